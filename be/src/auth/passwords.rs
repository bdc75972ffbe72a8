//! Checking passwords at a bounded cost.
//!
//! argon2id costs tens of milliseconds and 19 MiB each, so a few run at a time, on the blocking pool.
//! What was right (and what was wrong) is remembered as an HMAC under a key of this process, so a
//! device that sends its password with every request costs one check. Failures of one login are
//! answered more and more slowly; a right password never waits for that, because only the answer to
//! a failure is held back. A login that nobody has is checked against a hash that nothing matches,
//! in the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::Error;

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too many checks wait.
    Busy,
}

/// Checks waiting for their turn, at most.
const WAITING_MAX: usize = 512;
/// Failures being answered slowly at one time, at most; beyond it they are answered at once.
const SLOWED_MAX: usize = 2048;
/// Verdicts remembered, at most, of each kind.
const REMEMBERED_MAX: usize = 65_536;
/// Logins whose failures are counted, at most.
const FAILING_MAX: usize = 16_384;
/// A wrong password is remembered this long: phones repeat an old one for days.
const WRONG_FOR: Duration = Duration::from_mins(10);
/// A right one is checked anew after this time.
const RIGHT_FOR: Duration = Duration::from_hours(24);
/// Failures older than this are forgotten.
const FAILURES_FOR: Duration = Duration::from_mins(10);
const FREE_FAILURES: u32 = 3;

type Tag = [u8; 16];

/// The checks of one back end.
pub struct Passwords {
    key: [u8; 32],
    /// A hash that no password has.
    nobody: Arc<str>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    slowed: AtomicUsize,
    verdicts: Mutex<HashMap<Tag, (bool, Instant)>>,
    failing: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Passwords {
    pub fn new() -> Result<Self, Error> {
        let draw = |bytes: &mut [u8]| {
            getrandom::fill(bytes)
                .map_err(|error| Error::io("draw a key")(std::io::Error::other(error.to_string())))
        };
        let mut key = [0; 32];
        draw(&mut key)?;
        let mut unknown = [0; 16];
        draw(&mut unknown)?;
        let nobody = password_auth::generate_hash(unknown);
        let at_once = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4));
        Ok(Self {
            key,
            nobody: nobody.into(),
            turns: Arc::new(Semaphore::new(at_once)),
            waiting: AtomicUsize::new(0),
            slowed: AtomicUsize::new(0),
            verdicts: Mutex::default(),
            failing: Mutex::default(),
        })
    }

    fn tag(&self, login: &str, version: u32, password: &str) -> Tag {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("any key length will do");
        mac.update(&(login.len() as u64).to_be_bytes());
        mac.update(login.as_bytes());
        mac.update(&version.to_be_bytes());
        mac.update(password.as_bytes());
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; 16];
        tag.copy_from_slice(&full[..16]);
        tag
    }

    fn recall(&self, tag: &Tag, now: Instant) -> Option<bool> {
        self.verdicts.lock().get(tag).filter(|(_, until)| *until > now).map(|(right, _)| *right)
    }

    fn remember(&self, tag: Tag, right: bool, now: Instant) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= REMEMBERED_MAX {
            verdicts.retain(|_, (_, until)| *until > now);
            if verdicts.len() >= REMEMBERED_MAX {
                // Wrong ones go first: they are what an attacker can make many of.
                verdicts.retain(|_, (right, _)| *right);
            }
            if verdicts.len() >= REMEMBERED_MAX {
                verdicts.clear();
            }
        }
        let until = now + if right { RIGHT_FOR } else { WRONG_FOR };
        verdicts.insert(tag, (right, until));
    }

    /// Checks `password` against `hash`; none = nobody has this login.
    pub async fn check(&self, login: &str, version: u32, password: &str, hash: Option<String>) -> Verdict {
        let now = Instant::now();
        let tag = self.tag(login, version, password);
        let right = if let Some(right) = self.recall(&tag, now) {
            right
        } else {
            let right = match self.argon2(password, hash).await {
                Ok(right) => right,
                Err(busy) => return busy,
            };
            self.remember(tag, right, now);
            right
        };
        if right {
            self.failing.lock().remove(login);
            return Verdict::Right;
        }
        self.slow_down(login, now).await;
        Verdict::Wrong
    }

    async fn argon2(&self, password: &str, hash: Option<String>) -> Result<bool, Verdict> {
        let waiting = Held::take(&self.waiting, WAITING_MAX).ok_or(Verdict::Busy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Verdict::Busy)?;
        drop(waiting);
        let password = password.to_owned();
        let known = hash.is_some();
        let hash = hash.map_or_else(|| self.nobody.clone(), Into::into);
        let check = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            password_auth::verify_password(password, &hash).is_ok()
        });
        Ok(check.await.unwrap_or(false) && known)
    }

    async fn slow_down(&self, login: &str, now: Instant) {
        let failures = {
            let mut failing = self.failing.lock();
            if failing.len() >= FAILING_MAX {
                failing.retain(|_, (_, last)| now.duration_since(*last) < FAILURES_FOR);
                if failing.len() >= FAILING_MAX {
                    failing.clear();
                }
            }
            let (count, last) = failing.entry(login.to_owned()).or_insert((0, now));
            if now.duration_since(*last) >= FAILURES_FOR {
                *count = 0;
            }
            (*count, *last) = (count.saturating_add(1), now);
            *count
        };
        if let Some(_slowed) = Held::take(&self.slowed, SLOWED_MAX) {
            tokio::time::sleep(hold(failures)).await;
        }
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Error::Busy("passwords"))?;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            password_auth::generate_hash(password)
        })
        .await
        .map_err(|_| Error::Task)
    }
}

/// Whether a hash from elsewhere can be taken: argon2 in PHC form with salt and output, that checks in at most 256 MiB and about
/// a second. Weaker ones than ours are taken: they are as good as they were where they come from.
pub fn is_bearable(hash: &str) -> bool {
    const KIB_MAX: u64 = 256 * 1024;
    const KIB_PASSES_MAX: u64 = 2 * KIB_MAX;
    const LANES_MAX: u64 = 16;
    let fields: Vec<&str> = hash.split('$').collect();
    let ["", algorithm, _, costs, _, _] = fields[..] else { return false };
    let cost = |name: &str| {
        let value = costs.split(',').find_map(|cost| cost.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(u64::MAX)
    };
    let [memory, passes, lanes] = ["m", "t", "p"].map(cost);
    hash.len() <= 512
        && algorithm.starts_with("argon2")
        && memory <= KIB_MAX
        && memory.saturating_mul(passes) <= KIB_PASSES_MAX
        && lanes <= LANES_MAX
        && password_auth::is_hash_obsolete(hash).is_ok()
}

/// How long the answer to the n-th failure in a row is held back.
fn hold(failures: u32) -> Duration {
    match failures.saturating_sub(FREE_FAILURES) {
        0 => Duration::ZERO,
        n => Duration::from_millis(250 << (n - 1).min(4)),
    }
}

/// One of a bounded number of places.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn take(places: &'a AtomicUsize, max: usize) -> Option<Self> {
        if places.fetch_add(1, Ordering::Relaxed) >= max {
            places.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(places))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert_eq!(passwords.check("a", 1, "correct horse", Some(hash.clone())).await, Verdict::Right);
        assert_eq!(passwords.check("a", 1, "wrong", Some(hash.clone())).await, Verdict::Wrong);
        assert_eq!(passwords.check("b", 0, "correct horse", None).await, Verdict::Wrong);
        // A new version of the credential forgets what was remembered.
        let other = passwords.hash("new".into()).await.unwrap();
        assert_eq!(passwords.check("a", 2, "correct horse", Some(other)).await, Verdict::Wrong);
    }

    #[test]
    fn hashes_from_elsewhere_must_be_whole_and_bearable() {
        let ours = password_auth::generate_hash("x");
        assert!(is_bearable(&ours));
        let (head, tail) = ours.split_at(ours.find("m=").unwrap());
        let dearer = format!("{head}m=4194304{}", &tail[tail.find(',').unwrap()..]);
        let longer = ours.replace("t=2", "t=4000000000");
        let cut = ours[..ours.rfind('$').unwrap()].to_owned();
        for bad in [dearer, longer, cut, String::new(), "$1$abc$def".into(), "$2y$10$abc".into()] {
            assert!(!is_bearable(&bad), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_slowed_and_the_right_password_is_not() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("right".into()).await.unwrap();
        for _ in 0..20 {
            passwords.check("a", 1, "wrong", Some(hash.clone())).await;
        }
        let start = Instant::now();
        passwords.check("a", 1, "wrong", Some(hash.clone())).await;
        assert_eq!(start.elapsed(), Duration::from_secs(4));
        let start = Instant::now();
        assert_eq!(passwords.check("a", 1, "right", Some(hash)).await, Verdict::Right);
        assert!(start.elapsed() < Duration::from_secs(4));
    }
}
