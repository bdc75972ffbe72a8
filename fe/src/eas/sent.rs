//! Which messages a device has sent of late: a device that saw no answer sends again, maybe to another front end, and the
//! message must not go out twice ([MS-ASCMD] 2.2.3.28.1 ClientId (SendMail, SmartForward, and SmartReply)).
//!
//! A message is claimed before it is handed in and settled afterwards, both in the device's object [`SENT_MAIL`]. A claim that
//! nobody settled (the front end died) lapses: then the message may go out twice, never not at all.

use data_encoding::HEXLOWER;
use directpush_common::sync::state::UnknownVersion;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Request;
use super::state::{self, StateObject};
use crate::backend::Result;
use crate::backend::device::{Fresh, Put};

/// Name of the object.
pub const SENT_MAIL: &str = "SentMail";
/// Messages remembered.
const SENT_MAX: usize = 64;
/// Seconds for which a claim holds.
const CLAIM_SECS: i64 = 180;
/// Tries to write the object while others write it.
const TRIES_MAX: usize = 5;

/// What a message is known by: its ClientId, or, where there is none, all its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark(String);

impl Mark {
    /// The mark of a message with a ClientId.
    pub fn of_client_id(id: &str) -> Self {
        Self::of(b"client-id", id.as_bytes())
    }

    /// The mark of a message without one.
    pub fn of_message(message: &[u8]) -> Self {
        Self::of(b"message", message)
    }

    fn of(kind: &[u8], text: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(text).finalize();
        Self(HEXLOWER.encode(&digest[..16]))
    }

    /// It as text: 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is known of a message before it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// Nothing: it is ours to send.
    Ours,
    /// It was sent.
    Sent,
    /// Somebody is sending it now.
    UnderWay,
}

/// The object: the messages, the oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SentMail {
    version: u32,
    sent: Vec<Entry>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Entry {
    mark: String,
    /// When it was claimed: Unix seconds.
    at: i64,
    done: bool,
}

impl StateObject for SentMail {
    /// Version 1 is all there is.
    fn checked(self) -> std::result::Result<Self, UnknownVersion> {
        if self.version <= 1 { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }
}

impl SentMail {
    /// Claims a message.
    pub fn claim(&mut self, mark: &Mark, now: i64) -> Claim {
        if let Some(entry) = self.sent.iter().find(|entry| entry.mark == mark.0) {
            if entry.done {
                return Claim::Sent;
            }
            // A clock that was set back must not block a message for long.
            if (0..CLAIM_SECS).contains(&(now - entry.at)) {
                return Claim::UnderWay;
            }
        }
        self.release(mark);
        self.version = 1;
        self.sent.push(Entry { mark: mark.0.clone(), at: now, done: false });
        let surplus = self.sent.len().saturating_sub(SENT_MAX);
        self.sent.drain(..surplus);
        Claim::Ours
    }

    /// The message was sent.
    pub fn settle(&mut self, mark: &Mark) {
        for entry in self.sent.iter_mut().filter(|entry| entry.mark == mark.0) {
            entry.done = true;
        }
    }

    /// The message was not sent: the device may try again.
    pub fn release(&mut self, mark: &Mark) {
        self.sent.retain(|entry| entry.mark != mark.0);
    }
}

/// Whether a message is known to have been sent.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn is_settled(request: &Request, mark: &Mark) -> Result<bool> {
    let known = state::load::<SentMail>(request, SENT_MAIL).await?.value.unwrap_or_default();
    Ok(known.sent.iter().any(|entry| entry.mark == mark.0 && entry.done))
}

/// Changes the device's object; what `change` gives, and what the back end said of the device.
///
/// # Errors
/// [`crate::backend::Error`]; `Busy` when others write it all the time.
pub async fn update<T>(request: &Request, mut change: impl FnMut(&mut SentMail) -> T) -> Result<(T, Fresh)> {
    for _ in 0..TRIES_MAX {
        let loaded = state::load::<SentMail>(request, SENT_MAIL).await?;
        let before = loaded.value.unwrap_or_default();
        let mut after = before.clone();
        let outcome = change(&mut after);
        if after == before {
            return Ok((outcome, loaded.fresh));
        }
        let (put, fresh) = state::save(request, SENT_MAIL, loaded.tag.as_deref(), &after).await?;
        if let Put::Done(_) = put {
            // Our own write moved the number; what was true before it still is.
            request.device.known.lock().wrote(loaded.fresh.state, fresh.state);
            return Ok((outcome, Fresh { hierarchy: loaded.fresh.hierarchy.max(fresh.hierarchy), ..fresh }));
        }
    }
    Err(crate::backend::Error::Busy { retry_after_secs: 5 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_once_and_a_claim_lapses() {
        let (mut sent, mark) = (SentMail::default(), Mark::of_client_id("1"));
        assert_eq!(sent.claim(&mark, 1_000), Claim::Ours);
        assert_eq!(sent.claim(&mark, 1_000 + CLAIM_SECS - 1), Claim::UnderWay);
        assert_eq!(sent.claim(&mark, 1_000 + CLAIM_SECS), Claim::Ours);
        sent.release(&mark);
        assert_eq!(sent.claim(&mark, 1_200), Claim::Ours);
        sent.settle(&mark);
        assert_eq!(sent.claim(&mark, 9_000_000), Claim::Sent);
        assert_eq!(sent.claim(&Mark::of_message(b"1"), 1_200), Claim::Ours);
    }

    #[test]
    fn the_object_stays_small_and_reads_as_it_is_written() {
        let mut sent = SentMail::default();
        for n in 0..500 {
            let mark = Mark::of_client_id(&n.to_string());
            assert_eq!(sent.claim(&mark, n), Claim::Ours);
            sent.settle(&mark);
        }
        let text = serde_json::to_vec(&sent).unwrap();
        assert!(text.len() < 8 * 1024, "{}", text.len());
        assert_eq!(serde_json::from_slice::<SentMail>(&text).unwrap().checked().unwrap(), sent);
        assert_eq!(sent.claim(&Mark::of_client_id("499"), 500), Claim::Sent);
        assert!(SentMail { version: 2, ..sent }.checked().is_err());
    }
}
