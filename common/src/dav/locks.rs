//! The write locks of one mailbox (RFC 4918 6, 7): who may be locked, what a lock covers, and what stands in whose way.
//!
//! One table per mailbox, keyed by path. A lock covers its root and, with Depth infinity, everything below; so a member
//! that is made later is covered too, and what leaves is not: locks never travel with COPY or MOVE (RFC 4918 7.6), they
//! end with their root (`forget`). A LOCK of a name where nothing is makes an empty resource first (RFC 4918 7.3); that
//! is the caller's business, as a member that is added.
//!
//! Not here: bodies (`lock_body`), the `If` header (`if_header`), whom locks bind (DAV clients only).

use std::collections::BTreeMap;

use super::request::Timeout;
use crate::clock::Moment;
use crate::names::Guid;

/// Roots named in one refusal, at most.
pub const HREFS_MAX: usize = 20;

/// Locks that cover one resource when one more is made, at most.
pub const SHARED_MAX: usize = 20;

/// Where a lock's root is: the decoded segments of a path within the mailbox. Case does not matter.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LockPath(
    /// Folded segments with slashes between, which none of them can hold. Empty: the mailbox.
    String,
);

impl LockPath {
    /// A path from its segments, none of which holds a slash.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Self {
        let mut path = String::new();
        for segment in segments {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&segment.as_ref().to_lowercase());
        }
        Self(path)
    }

    /// The collection this is a member of; the mailbox is a member of nothing.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(Self(self.0.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned())))
    }

    /// This path and all above it, upwards.
    fn upwards(&self) -> impl Iterator<Item = &str> {
        let mut next = Some(self.0.as_str());
        std::iter::from_fn(move || {
            let now = next?;
            next = match now.rsplit_once('/') {
                Some((above, _)) => Some(above),
                None if now.is_empty() => None,
                None => Some(""),
            };
            Some(now)
        })
    }
}

/// Bounds, from the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LockLimits {
    /// Seconds that a lock lasts without being refreshed, at most.
    pub timeout_secs_max: u32,
    /// Seconds if the request says nothing.
    pub timeout_secs: u32,
    /// Locks of one mailbox, at most.
    pub locks_max: usize,
}

impl Default for LockLimits {
    /// A day, ten minutes, and 1,000 locks.
    fn default() -> Self {
        Self { timeout_secs_max: 86_400, timeout_secs: 600, locks_max: 1_000 }
    }
}

impl LockLimits {
    fn secs(self, asked: Option<Timeout>) -> u32 {
        asked.unwrap_or(Timeout::Seconds(self.timeout_secs)).granted(self.timeout_secs_max).max(1)
    }
}

/// A write lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lock {
    /// Its URI (RFC 4918 6.5).
    pub token: String,
    /// Nobody else may have a lock here; otherwise shared.
    pub exclusive: bool,
    /// Depth infinity; otherwise 0.
    pub infinite: bool,
    /// The `owner` element as sent, self-contained; empty if none.
    pub owner: String,
    /// The URL of its root, encoded, as it was locked.
    pub root: String,
    /// Seconds granted by the last LOCK.
    pub secs: u32,
    expires: Moment,
}

impl Lock {
    /// Whole seconds that are left.
    pub const fn secs_left(&self, now: Moment) -> u64 {
        self.expires.millis_since(now).div_ceil(1000)
    }

    fn lives(&self, now: Moment) -> bool {
        now < self.expires
    }
}

/// A LOCK request with a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewLock {
    /// Its root.
    pub path: LockPath,
    /// The root's URL, encoded.
    pub root: String,
    /// Exclusive or shared.
    pub exclusive: bool,
    /// Depth infinity or 0.
    pub infinite: bool,
    /// The `owner` element.
    pub owner: String,
    /// What was asked for.
    pub timeout: Option<Timeout>,
    /// Random, new for each request.
    pub guid: Guid,
}

/// Why a LOCK is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LockRefusal {
    /// A lock here or above is in the way: 423 with `no-conflicting-lock` and these roots.
    Conflict(Vec<String>),
    /// Locks below are: 207 with 423 for each of these, and 424 for the resource itself (RFC 4918 9.10.6).
    Members(Vec<String>),
    /// The mailbox has too many: 503.
    TooMany,
}

/// The token names no lock that covers the resource: 412 for a refresh, 409 for UNLOCK, both with
/// `lock-token-matches-request-uri`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no such lock here")]
pub struct NoSuchLock;

/// Locks whose tokens were not submitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Locked {
    /// The roots of those locks: for `lock-token-submitted`.
    pub roots: Vec<String>,
    /// They are all below the resource, not on it or above: for methods that answer 207.
    pub members_only: bool,
}

/// What a request changes at a path, so which locks bind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Touch {
    /// Body or properties of what is there: PUT over it, PROPPATCH.
    Resource,
    /// A name appears: PUT of something new, MKCOL, COPY, MOVE, LOCK to where nothing is. Binds to locks on the parent too.
    Member,
    /// What is there goes away with everything below: DELETE, the source of MOVE, what COPY or MOVE overwrite.
    Tree,
}

/// The locks of one mailbox.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    locks: BTreeMap<String, Vec<Lock>>,
    count: usize,
}

impl LockTable {
    /// Locks held, those that have expired unnoticed included.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the table can be dropped.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes a lock. That the requester may write here is to be asked with [`LockTable::allows`] only if a resource is
    /// made by it; an existing one may be locked whatever locks are shared on it.
    ///
    /// # Errors
    /// See [`LockRefusal`].
    pub fn lock(&mut self, new: NewLock, limits: LockLimits, now: Moment) -> Result<&Lock, LockRefusal> {
        let clash = |lock: &&Lock| new.exclusive || lock.exclusive;
        let conflict = roots(self.covering(&new.path, now).into_iter().filter(clash));
        if !conflict.is_empty() {
            return Err(LockRefusal::Conflict(conflict));
        }
        if new.infinite {
            let members = roots(self.below(&new.path, now).map(|(_, lock)| lock).filter(clash));
            if !members.is_empty() {
                return Err(LockRefusal::Members(members));
            }
        }
        // Each of them is told with each resource that it covers.
        if self.covering(&new.path, now).len() >= SHARED_MAX {
            return Err(LockRefusal::TooMany);
        }
        if self.count >= limits.locks_max {
            self.expire(now);
        }
        if self.count >= limits.locks_max {
            return Err(LockRefusal::TooMany);
        }
        let secs = limits.secs(new.timeout);
        let lock = Lock {
            token: format!("opaquelocktoken:{}", new.guid),
            exclusive: new.exclusive,
            infinite: new.infinite,
            owner: new.owner,
            root: new.root,
            secs,
            expires: now.plus_secs(secs.into()),
        };
        self.count += 1;
        let here = self.locks.entry(new.path.0).or_default();
        here.push(lock);
        here.last().ok_or(LockRefusal::TooMany)
    }

    /// Refreshes a lock that covers `path` (RFC 4918 9.10.2): its time begins anew.
    ///
    /// # Errors
    /// [`NoSuchLock`].
    pub fn refresh(
        &mut self,
        path: &LockPath,
        token: &str,
        timeout: Option<Timeout>,
        limits: LockLimits,
        now: Moment,
    ) -> Result<&Lock, NoSuchLock> {
        let root = self.root_of(path, token, now).ok_or(NoSuchLock)?;
        let lock =
            self.locks.get_mut(&root).and_then(|here| here.iter_mut().find(|lock| lock.token == token));
        let lock = lock.ok_or(NoSuchLock)?;
        lock.secs = limits.secs(timeout);
        lock.expires = now.plus_secs(lock.secs.into());
        Ok(lock)
    }

    /// Ends a lock that covers `path` (RFC 4918 9.11).
    ///
    /// # Errors
    /// [`NoSuchLock`].
    pub fn unlock(&mut self, path: &LockPath, token: &str, now: Moment) -> Result<(), NoSuchLock> {
        let root = self.root_of(path, token, now).ok_or(NoSuchLock)?;
        self.retain_at(&root, |lock| lock.token != token);
        Ok(())
    }

    /// The locks on `path`: rooted there, or above with Depth infinity. For `lockdiscovery` and the `If` header.
    pub fn covering(&self, path: &LockPath, now: Moment) -> Vec<&Lock> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        for at in path.upwards() {
            let here = self.locks.get(at).into_iter().flatten();
            found.extend(here.filter(|lock| lock.lives(now) && (lock.infinite || at == path.0)));
        }
        found
    }

    /// Whether a request that submits these tokens may do this. Where locks are shared, the token of one is enough.
    ///
    /// # Errors
    /// [`Locked`]: 423, or part of a 207.
    pub fn allows(&self, path: &LockPath, touch: Touch, tokens: &[&str], now: Moment) -> Result<(), Locked> {
        if self.count == 0 {
            return Ok(());
        }
        let mut missing = Vec::new();
        missing.extend(missing_token(&self.covering(path, now), tokens));
        if let (Touch::Member | Touch::Tree, Some(parent)) = (touch, path.parent()) {
            missing.extend(missing_token(&self.covering(&parent, now), tokens));
        }
        let members_only = missing.is_empty();
        if touch == Touch::Tree {
            let mut last = None;
            for (at, _) in self.below(path, now) {
                if last != Some(at) && missing.len() < HREFS_MAX {
                    missing.extend(missing_token(&self.covering(&LockPath(at.to_owned()), now), tokens));
                }
                last = Some(at);
            }
        }
        missing.dedup();
        if missing.is_empty() { Ok(()) } else { Err(Locked { roots: missing, members_only }) }
    }

    /// What was at `path`, and everything below, is gone: so are its locks.
    pub fn forget(&mut self, path: &LockPath) {
        self.retain_at(&path.0, |_| false);
        self.forget_below(path);
    }

    /// Everything below `path` is gone: so are its locks. Those on it stay.
    pub fn forget_below(&mut self, path: &LockPath) {
        let below: Vec<String> = self.range(path).map(|(at, _)| at.clone()).collect();
        for at in below {
            self.retain_at(&at, |_| false);
        }
    }

    /// Drops what has expired. Answers are right without it; it frees memory.
    pub fn expire(&mut self, now: Moment) {
        self.locks.retain(|_, here| {
            here.retain(|lock| lock.lives(now));
            !here.is_empty()
        });
        self.count = self.locks.values().map(Vec::len).sum();
    }

    fn root_of(&self, path: &LockPath, token: &str, now: Moment) -> Option<String> {
        let covers = |at: &&str| {
            let here = self.locks.get(*at).into_iter().flatten();
            here.into_iter()
                .any(|lock| lock.token == token && lock.lives(now) && (lock.infinite || **at == *path.0))
        };
        path.upwards().find(covers).map(str::to_owned)
    }

    fn retain_at(&mut self, at: &str, keep: impl FnMut(&Lock) -> bool) {
        if let Some(here) = self.locks.get_mut(at) {
            let before = here.len();
            here.retain(keep);
            self.count -= before - here.len();
            if here.is_empty() {
                self.locks.remove(at);
            }
        }
    }

    fn range(&self, path: &LockPath) -> impl Iterator<Item = (&String, &Vec<Lock>)> {
        // '0' is the character behind '/'; the mailbox's members begin with any character at all.
        let (from, to) = match path.0.as_str() {
            "" => ("\u{0}".to_owned(), "\u{10ffff}".to_owned()),
            path => (format!("{path}/"), format!("{path}0")),
        };
        self.locks.range(from..to)
    }

    /// The living locks rooted below `path`.
    fn below(&self, path: &LockPath, now: Moment) -> impl Iterator<Item = (&str, &Lock)> {
        self.range(path).flat_map(move |(at, here)| {
            here.iter().filter(move |lock| lock.lives(now)).map(move |lock| (at.as_str(), lock))
        })
    }
}

fn roots<'a>(locks: impl Iterator<Item = &'a Lock>) -> Vec<String> {
    let mut found: Vec<String> = locks.take(HREFS_MAX).map(|lock| lock.root.clone()).collect();
    found.dedup();
    found
}

/// The root of a lock whose token should have been submitted for one resource, given all locks that cover it.
fn missing_token(covering: &[&Lock], tokens: &[&str]) -> Option<String> {
    let submitted = |lock: &&&Lock| tokens.contains(&lock.token.as_str());
    if covering.iter().any(|lock| submitted(&lock)) {
        return None;
    }
    covering.first().map(|lock| lock.root.clone())
}

#[cfg(test)]
mod tests;
