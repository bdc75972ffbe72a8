//! Mail that leaves: the durable queue between a submission and the smart host.
//!
//! A message is acknowledged when it would survive a power cut ([`spool`]), and leaves the queue when for
//! every recipient either the next host has taken it or the sender has been told ([`entry`]). One task
//! owns the queue ([`owner`]); [`schedule`] says when, [`smart_host`] speaks SMTP, and the rest of the
//! back end is behind [`Office`].
//!
//! Not here: who may send and to whom, reading the message's header (`super::submission`), and the
//! text of reports.

mod agenda;
pub mod entry;
pub mod files;
mod guard;
pub mod handle;
pub mod list;
pub mod owner;
#[cfg(test)]
mod paper;
pub mod rate;
pub mod reply;
pub mod schedule;
pub mod smart_host;
pub mod spool;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use directpush_common::names::UserName;

use entry::Outcome;
pub use handle::{Clock, Mail, Queue, QueueError, QueueSettings};
pub use owner::{Owner, open};
use reply::Reply;

/// What names a message in the queue: 16 hex digits, of which the first ten are the second in which it came.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id(pub u64);

/// Bits of an id that count the messages of one second.
const COUNT_BITS: u32 = 24;

impl Id {
    /// The first id of a second.
    pub fn first(now: u64) -> Self {
        Self(now << COUNT_BITS)
    }

    /// The next one, should this one be taken.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Id {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let form_ok =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        form_ok.then(|| u64::from_str_radix(text, 16).map(Self).map_err(|_| ())).ok_or(())?
    }
}

/// One attempt: a message for some recipients.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: Id,
    pub sender: String,
    pub recipients: Vec<String>,
    pub message: Bytes,
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub struct Carried {
    /// One for each recipient of the letter, in their order.
    pub outcomes: Vec<Outcome>,
    /// Whether the host itself was at fault: nothing else needs to try it for a while.
    pub host_failed: bool,
}

impl Carried {
    /// The same for every recipient.
    pub fn all(letter: &Letter, outcome: &Outcome) -> Self {
        Self { outcomes: vec![outcome.clone(); letter.recipients.len()], host_failed: false }
    }
}

/// Takes mail on to the next host.
pub trait Carrier: Send + Sync + 'static {
    /// One attempt. Dropping the future gives the attempt up; the message may have arrived or not.
    fn carry(&self, letter: Letter) -> impl Future<Output = Carried> + Send;
}

/// The rest of the back end, as the queue sees it.
pub trait Office: Send + Sync + 'static {
    /// Delivers to mailboxes here. Durable when a recipient's outcome says delivered.
    fn deliver(&self, letter: Letter) -> impl Future<Output = Carried> + Send;

    /// Puts a report (RFC 3464) into its user's mailbox. May be called again with the same report
    /// after a crash.
    fn report(&self, report: Report) -> impl Future<Output = Reported> + Send;
}

/// What a sender is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    pub id: Id,
    /// Whose mailbox it goes to.
    pub user: UserName,
    /// The reverse path of the message: whom the report is addressed to.
    pub sender: String,
    /// When the message was accepted, in Unix seconds.
    pub accepted: u64,
    /// When trying ends, in Unix seconds: for a delay's report.
    pub until: u64,
    pub kind: ReportKind,
    pub recipients: Vec<ReportedRecipient>,
    /// The message, for its header to be returned; empty if it cannot be read any more.
    pub message: Bytes,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReportKind {
    /// `Action: failed`.
    Failed,
    /// `Action: delayed`.
    Delayed,
}

/// A recipient that a report names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReportedRecipient {
    pub address: String,
    /// The last answer, if there was one.
    pub reply: Option<Reply>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reported {
    /// It is in the mailbox, durably.
    Done,
    /// There is nobody any more to be told.
    Nobody,
    /// Not now.
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_digits_in_order_of_time() {
        let id = Id::first(1_800_000_000).next();
        assert_eq!(id.to_string(), "006b49d200000001");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(Id::first(1_800_000_001) > id);
        for text in ["", "1", "006b49d200fffff", "006B49D200FFFFFF", "+06b49d200ffffff", "../../../../../x"] {
            assert_eq!(text.parse::<Id>(), Err(()), "{text}");
        }
    }
}
