//! What a mailbox keeps for automatic replies: the out-of-office object, who was answered, and to whom the user has written.
//!
//! The object is a setting, no item: nobody is notified of it. Whether it is in force is asked with every delivery, so what
//! was read is remembered. Those who were answered are kept as hashes of their addresses, one record each; old ones are
//! removed a few at a time, wherever chance looks.
//!
//! Not here: which messages are answered (`auto_reply`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use directpush_common::mail::Address;
use directpush_common::mail::oof::Oof;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::codec::{Reader, Writer};
use super::condition::Conditions;
use super::record::{Record, RecordError};
use super::{Mailboxes, decode, keys, now_secs};
use crate::error::Error;
use crate::store::{Commit, Read};

/// Bytes of the object as it is written, at most.
pub const OOF_BYTES_MAX: usize = 60 * 1024;
/// Mailboxes whose object is remembered, at most.
const REMEMBERED_MAX: usize = 100_000;
/// Records that one write looks at to remove old ones: more than it adds.
const LOOKED_AT: usize = 4;
/// After so long even somebody who was answered in the same time of absence is forgotten, in seconds.
const ANSWERED_SECS_MAX: u64 = 180 * 86_400;
/// After so long somebody to whom the user has written is no longer known, in seconds.
const KNOWN_SECS: u64 = 2 * 365 * 86_400;
/// A record of somebody known is written again when it is so old, in seconds.
const KNOWN_AGAIN_SECS: u64 = 30 * 86_400;
/// Addresses noted of one message, at most.
const NOTED_MAX: usize = 500;

/// The object as it is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeptOof {
    pub oof: Oof,
    /// Grows with every write.
    revision: u64,
    /// The revision that set the state that is in force: one time of absence.
    pub period: u64,
    /// Unix seconds.
    pub modified: i64,
}

/// The form in the index.
struct Setting {
    revision: u64,
    period: u64,
    modified: u64,
    json: String,
}

/// Somebody who was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Answered {
    /// Unix seconds.
    when: u64,
    period: u64,
}

/// What is remembered of the objects: none where nothing is in force and nothing will be.
#[derive(Default)]
pub struct Oofs {
    known: Mutex<HashMap<u64, Option<Arc<KeptOof>>>>,
    /// Writes so far: a read that one of them overtook is not remembered.
    writes: AtomicU64,
}

/// Whom a record is about: a hash of the address.
pub type AddressMark = [u8; 16];

/// The mark of an address, however it is written.
pub fn mark(address: &Address) -> AddressMark {
    let mut mark = [0; 16];
    mark.copy_from_slice(&Sha256::digest(address.key())[..16]);
    mark
}

impl Record for Setting {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        for number in [self.revision, self.period, self.modified] {
            out.number(number);
        }
        out.text(&self.json);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        Ok(Self {
            revision: from.number()?,
            period: from.number()?,
            modified: from.number()?,
            json: from.text()?,
        })
    }
}

impl Record for Answered {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.when);
        out.number(self.period);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        Ok(Self { when: from.number()?, period: from.number()? })
    }
}

impl KeptOof {
    fn of(setting: &Setting) -> Result<Self, RecordError> {
        let oof = serde_json::from_str(&setting.json).map_err(|_| RecordError::Field("oof"))?;
        let Setting { revision, period, modified, .. } = *setting;
        Ok(Self { oof, revision, period, modified: i64::try_from(modified).unwrap_or(i64::MAX) })
    }

    /// Its entity tag.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.revision, self.modified)
    }
}

/// One that was never written is switched off.
fn kept(mailbox: u64, bytes: Option<&Vec<u8>>) -> Result<KeptOof, Error> {
    let Some(bytes) = bytes else { return Ok(KeptOof::default()) };
    let setting: Setting = decode(mailbox, bytes)?;
    KeptOof::of(&setting).map_err(|source| Error::Record { mailbox, source })
}

impl Mailboxes {
    /// A mailbox's object.
    pub async fn oof(&self, mailbox: u64) -> Result<KeptOof, Error> {
        let found = self.store.index.read(Read::default().get(keys::oof(mailbox))).await?;
        kept(mailbox, found.gets.first().and_then(Option::as_ref))
    }

    /// Writes the object.
    pub async fn put_oof(
        self: &Arc<Self>,
        mailbox: u64,
        oof: Oof,
        conditions: Conditions,
    ) -> Result<KeptOof, Error> {
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let read = Read::default().get(keys::head(mailbox)).get(keys::oof(mailbox));
            let mut gets = boxes.store.index.read(read).await?.gets.into_iter();
            let head = gets.next().flatten().ok_or(Error::NoUser)?;
            let old = kept(mailbox, gets.next().flatten().as_ref())?;
            conditions.check(Some((&old.etag(), old.modified)))?;
            let json = serde_json::to_string(&oof).map_err(|_| Error::Task)?;
            if json.len() > OOF_BYTES_MAX {
                return Err(Error::OverBound("the out-of-office object"));
            }
            let revision = old.revision + 1;
            let period = if old.oof.state == oof.state { old.period } else { revision };
            let now = now_secs();
            let setting = Setting { revision, period, modified: u64::try_from(now).unwrap_or(0), json };
            let commit = Commit::default()
                .expect(keys::head(mailbox), Some(head))
                .put(keys::oof(mailbox), setting.encode());
            let done = boxes.store.index.commit(commit).await;
            boxes.oofs.writes.fetch_add(1, Ordering::AcqRel);
            // Written or not: it is read again.
            boxes.oofs.known.lock().remove(&mailbox);
            done?;
            Ok(KeptOof { oof, revision, period, modified: now })
        })
        .await
    }

    /// Whether memory knows that nothing is in force in a mailbox at `now`, Unix seconds.
    pub fn is_oof_off(&self, mailbox: u64, now: i64) -> bool {
        match self.oofs.known.lock().get(&mailbox) {
            Some(None) => true,
            Some(Some(kept)) => !kept.oof.state.is_active(now),
            None => false,
        }
    }

    /// What is in force in a mailbox at `now`, Unix seconds.
    pub async fn active_oof(&self, mailbox: u64, now: i64) -> Result<Option<Arc<KeptOof>>, Error> {
        let remembered = self.oofs.known.lock().get(&mailbox).cloned();
        let found = if let Some(found) = remembered {
            found
        } else {
            let before = self.oofs.writes.load(Ordering::Acquire);
            let read = self.oof(mailbox).await?;
            let found = (!read.oof.state.is_over(now)).then(|| Arc::new(read));
            let mut known = self.oofs.known.lock();
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            if self.oofs.writes.load(Ordering::Acquire) == before {
                known.insert(mailbox, found.clone());
            }
            found
        };
        Ok(found.filter(|kept| kept.oof.state.is_active(now)))
    }

    /// Whether somebody is to be answered now; if so, it is on record that they were. Nobody is twice in `window_secs`, nor
    /// twice in one time of absence. Durable when it returns.
    pub async fn take_turn(
        self: &Arc<Self>,
        mailbox: u64,
        who: AddressMark,
        period: u64,
        window_secs: u64,
        now: u64,
    ) -> Result<bool, Error> {
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let read = Read::default()
                .get(keys::head(mailbox))
                .get(keys::answered(mailbox, &who))
                .range(keys::answered_from(mailbox, &anywhere(), LOOKED_AT));
            let found = boxes.store.index.read(read).await?;
            let head = found.gets.first().cloned().flatten().ok_or(Error::NoUser)?;
            let is_old = |answered: &Answered| {
                let age = now.saturating_sub(answered.when);
                age >= window_secs && (answered.period != period || age >= ANSWERED_SECS_MAX)
            };
            if let Some(bytes) = found.gets.get(1).and_then(Option::as_ref)
                && !is_old(&decode(mailbox, bytes)?)
            {
                return Ok(false);
            }
            let mut commit = Commit::default().expect(keys::head(mailbox), Some(head));
            for (key, bytes) in found.ranges.iter().flatten() {
                if is_old(&decode(mailbox, bytes)?) {
                    commit = commit.delete(key.clone());
                }
            }
            let answered = Answered { when: now, period };
            boxes.store.index.commit(commit.put(keys::answered(mailbox, &who), answered.encode())).await?;
            Ok(true)
        })
        .await
    }

    /// Whether the user has written to an address.
    pub async fn has_written_to(&self, mailbox: u64, who: AddressMark) -> Result<bool, Error> {
        let read = Read::default().get(keys::written_to(mailbox, &who));
        Ok(self.store.index.read(read).await?.gets.first().is_some_and(Option::is_some))
    }

    /// Notes that the user has written to these, at `now`, Unix seconds. Writes nothing if that is known.
    pub async fn note_written_to(
        self: &Arc<Self>,
        mailbox: u64,
        mut whom: Vec<AddressMark>,
        now: u64,
    ) -> Result<(), Error> {
        whom.truncate(NOTED_MAX);
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let mut read = Read::default().get(keys::head(mailbox)).range(keys::written_to_from(
                mailbox,
                &anywhere(),
                LOOKED_AT,
            ));
            for who in &whom {
                read = read.get(keys::written_to(mailbox, who));
            }
            let found = boxes.store.index.read(read).await?;
            let mut gets = found.gets.into_iter();
            let head = gets.next().flatten().ok_or(Error::NoUser)?;
            let mut commit = Commit::default().expect(keys::head(mailbox), Some(head));
            let mut news = false;
            for (who, bytes) in whom.iter().zip(gets) {
                let when: Option<u64> = bytes.map(|bytes| decode(mailbox, &bytes)).transpose()?;
                if when.is_none_or(|when| now.saturating_sub(when) >= KNOWN_AGAIN_SECS) {
                    commit = commit.put(keys::written_to(mailbox, who), now.encode());
                    news = true;
                }
            }
            if !news {
                return Ok(());
            }
            for (key, bytes) in found.ranges.iter().flatten() {
                let when: u64 = decode(mailbox, bytes)?;
                if now.saturating_sub(when) >= KNOWN_SECS && !whom.iter().any(|who| key.ends_with(who)) {
                    commit = commit.delete(key.clone());
                }
            }
            Ok(boxes.store.index.commit(commit).await?)
        })
        .await
    }
}

/// Where the look for old records begins.
fn anywhere() -> AddressMark {
    fastrand::u128(..).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use directpush_common::mail::oof::{OofBody, OofReply, OofState};

    use super::*;
    use crate::store::Store;

    const DAY: u64 = 86_400;

    async fn mailbox() -> (Arc<Mailboxes>, u64) {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let account = boxes.add_user(&"alice@x".parse().unwrap(), String::new()).await.unwrap();
        (boxes, account.mailbox)
    }

    fn oof(state: OofState) -> Oof {
        Oof { state, internal: OofReply::new("away", OofBody::Text).unwrap(), ..Oof::default() }
    }

    fn anybody() -> Conditions {
        Conditions::default()
    }

    #[tokio::test]
    async fn the_object_is_kept_and_a_new_state_is_a_new_absence() {
        let (boxes, mailbox) = mailbox().await;
        assert_eq!(boxes.oof(mailbox).await.unwrap(), KeptOof::default());
        assert!(!boxes.is_oof_off(mailbox, 5), "nothing is known yet");
        assert_eq!(boxes.active_oof(mailbox, 5).await.unwrap(), None);
        assert!(boxes.is_oof_off(mailbox, 5));
        let first = boxes.put_oof(mailbox, oof(OofState::On), anybody()).await.unwrap();
        assert!(!boxes.is_oof_off(mailbox, 5));
        assert_eq!(boxes.active_oof(mailbox, 5).await.unwrap().as_deref(), Some(&first));
        let other = Oof { external_known: oof(OofState::On).internal, ..oof(OofState::On) };
        let second = boxes.put_oof(mailbox, other, anybody()).await.unwrap();
        assert!(second.period == first.period && second.etag() != first.etag());
        let scheduled = OofState::scheduled(100, 200).unwrap();
        let third = boxes.put_oof(mailbox, oof(scheduled), anybody()).await.unwrap();
        assert_ne!(third.period, first.period);
        assert_eq!(boxes.active_oof(mailbox, 99).await.unwrap(), None);
        assert!(boxes.is_oof_off(mailbox, 99) && !boxes.is_oof_off(mailbox, 100));
        assert!(boxes.active_oof(mailbox, 100).await.unwrap().is_some());
        assert_eq!(boxes.oof(mailbox).await.unwrap(), third);
    }

    #[tokio::test]
    async fn nobody_is_answered_twice_in_the_window_or_in_one_absence() {
        let (boxes, mailbox) = mailbox().await;
        let bob = mark(&"Bob@Y".parse().unwrap());
        assert_eq!(bob, mark(&"bob@y".parse().unwrap()));
        let turn = async |period, now| boxes.take_turn(mailbox, bob, period, 7 * DAY, now).await.unwrap();
        let start = 1_000_000_000;
        assert!(turn(1, start).await);
        assert!(!turn(1, start + 1).await);
        assert!(!turn(1, start + 30 * DAY).await, "once in one absence");
        assert!(!turn(2, start + 7 * DAY - 1).await, "once in the window");
        assert!(turn(2, start + 7 * DAY).await);
        let carol = mark(&"carol@y".parse().unwrap());
        assert!(boxes.take_turn(mailbox, carol, 2, 7 * DAY, start + 7 * DAY).await.unwrap());
    }

    #[tokio::test]
    async fn who_was_answered_long_ago_is_forgotten() {
        let (boxes, mailbox) = mailbox().await;
        let mark_of = |n: u64| mark(&format!("sender{n}@y").parse().unwrap());
        for n in 0..50 {
            assert!(boxes.take_turn(mailbox, mark_of(n), 1, 7 * DAY, n).await.unwrap());
        }
        for n in 50..400 {
            assert!(boxes.take_turn(mailbox, mark_of(n), 2, 7 * DAY, 100 * DAY + n).await.unwrap());
        }
        let range = keys::answered_from(mailbox, &[0; 16], 1000);
        let left = boxes.store.index.read(Read::default().range(range)).await.unwrap().ranges[0].len();
        assert!((350..370).contains(&left), "{left}");
    }

    #[tokio::test]
    async fn who_was_written_to_is_known() {
        let (boxes, mailbox) = mailbox().await;
        let [bob, carol] = ["bob@y", "carol@y"].map(|address| mark(&address.parse().unwrap()));
        assert!(!boxes.has_written_to(mailbox, bob).await.unwrap());
        boxes.note_written_to(mailbox, vec![bob], 5 * DAY).await.unwrap();
        boxes.note_written_to(mailbox, vec![bob, carol], 6 * DAY).await.unwrap();
        assert!(boxes.has_written_to(mailbox, bob).await.unwrap());
        assert!(boxes.has_written_to(mailbox, carol).await.unwrap());
        let nobody = boxes.note_written_to(mailbox + 1, vec![bob], 5).await;
        assert!(matches!(nobody, Err(Error::NoUser)), "nothing is left behind for a mailbox that is gone");
    }
}
