//! Submission: a user's mail leaves. A front end or a DAV client PUTs it to the mailbox's submission URI.
//!
//! The sender must be the user, or one of the user's aliases; how much goes to how many is bounded. Mail for
//! neighbours is put into their mailboxes at once; the rest, and what could not be put there, goes into the
//! queue. Accepted means: it would survive a power cut.
//!
//! Not here: HTTP (`dav::submit`), the copy in Sent Items (the front end's).

pub mod message;
mod office;
pub mod queue;

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::lmtp::RecipientResult;
use directpush_common::mail::Address;
use parking_lot::Mutex;

use crate::delivery::{Origin, Parcel, Post};
use crate::error::{Error, WithCauses};
use crate::mailbox::addresses::Place;
use crate::mailbox::oof::{AddressMark, mark};
use crate::mailbox::users::Account;
use crate::mailbox::{now_secs, random_number};
use message::{BadMessage, Completion, Outgoing, prepare};
use queue::entry::Route;
use queue::rate::{HourlyLimits, Rates};
use queue::{Mail, Queue, QueueError};

pub use office::PostOffice;

/// Message-IDs that are remembered to know a message that comes back.
const SENT_MAX: usize = 50_000;

/// Bounds of what one user submits.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionLimits {
    /// Recipients of one message.
    pub recipients_max: usize,
    pub hourly: HourlyLimits,
}

impl Default for SubmissionLimits {
    fn default() -> Self {
        Self { recipients_max: 100, hourly: HourlyLimits::default() }
    }
}

/// Where users hand in what they send.
pub struct Submission {
    post: Arc<Post>,
    limits: SubmissionLimits,
    /// Mail for other hosts can leave.
    relays: bool,
    queue: Queue,
    rates: Mutex<Rates>,
    sent: Mutex<Sent>,
}

/// What was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Submitted {
    /// How the log and the `Received` field call it.
    pub id: String,
    /// Recipients here who have it.
    pub delivered: usize,
    /// Recipients for whom it is in the queue.
    pub queued: usize,
}

/// Why a message is not accepted. Nothing of it was sent, but when the queue fails at the last: some
/// recipients may have it then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// `From` or `Sender` names somebody else.
    #[error("{0} is not an address of this user")]
    Sender(String),
    /// The user's hour is used up.
    #[error("too much mail in one hour, try again in {0} s")]
    Rate(u64),
    /// There is no smart host, and a recipient is elsewhere.
    #[error("mail to {0} cannot leave: no smart host is configured")]
    NoSmartHost(String),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Submission {
    pub fn new(post: Arc<Post>, limits: SubmissionLimits, relays: bool, queue: Queue) -> Self {
        Self { post, limits, relays, queue, rates: Mutex::default(), sent: Mutex::default() }
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Accepts a message of a user, or says why not.
    pub async fn submit(
        self: &Arc<Self>,
        account: &Arc<Account>,
        message: Bytes,
    ) -> Result<Submitted, Refusal> {
        // A client that hangs up must not leave half of the recipients without the message.
        let (submission, account) = (self.clone(), account.clone());
        let work = async move { submission.accept(&account, message).await };
        tokio::spawn(work).await.map_err(|_| Error::Task)?
    }

    async fn accept(&self, account: &Account, message: Bytes) -> Result<Submitted, Refusal> {
        let id = format!("{:014x}", random_number()?);
        let outgoing = self.prepare(account, message, &id).await?;
        let mut said: Vec<&Address> = outgoing.senders.from.iter().collect();
        said.extend(&outgoing.senders.sender);
        for address in said {
            let owner = self.post.boxes.owner(&self.post.rules, &address.to_string()).await?;
            if owner.is_none_or(|owner| owner.mailbox != account.mailbox) {
                return Err(Refusal::Sender(address.to_string()));
            }
        }
        if outgoing.hops > 0 && self.sent.lock().knows(&outgoing.message_id) {
            return Err(BadMessage::Loop.into());
        }
        let (here, elsewhere) = self.places(&outgoing.recipients).await?;
        if let (false, Some(address)) = (self.relays, elsewhere.first()) {
            return Err(Refusal::NoSmartHost(address.clone()));
        }
        let now = u64::try_from(now_secs()).unwrap_or(0);
        let count = u32::try_from(outgoing.recipients.len()).unwrap_or(u32::MAX);
        let hourly = &self.limits.hourly;
        self.rates.lock().take(&account.name, count, now, hourly).map_err(Refusal::Rate)?;
        let known = outgoing.recipients.iter().filter(|address| elsewhere.contains(&address.to_string()));
        let known = known.map(mark).collect();
        let sent = self.send(account, outgoing, here, elsewhere, &id).await;
        match &sent {
            Err(_) => self.rates.lock().give_back(&account.name, count, now),
            Ok(Submitted { delivered, queued, .. }) => {
                self.note_known(account, known, now);
                tracing::info!(user = %account.name, id, delivered, queued, "mail submitted");
            }
        }
        sent
    }

    /// Whom the user has written to, elsewhere: automatic replies ask. Nobody waits for it.
    fn note_known(&self, account: &Account, known: Vec<AddressMark>, now: u64) {
        if known.is_empty() {
            return;
        }
        let (boxes, mailbox) = (self.post.boxes.clone(), account.mailbox);
        tokio::spawn(async move {
            if let Err(error) = boxes.note_written_to(mailbox, known, now).await {
                tracing::debug!(error = %WithCauses(&error), "cannot note whom a user knows");
            }
        });
    }

    /// Reading and rewriting a large message takes a while: not on an async worker.
    async fn prepare(&self, account: &Account, message: Bytes, id: &str) -> Result<Outgoing, Refusal> {
        let own = self.post.rules.address_of(&account.name);
        let (host, id, recipients_max) = (self.post.host.clone(), id.to_owned(), self.limits.recipients_max);
        let work = move || {
            let with = Completion { own: &own, host: &host, id: &id, now: now_secs(), recipients_max };
            prepare(&message, &with)
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Task)??)
    }

    /// The recipients here and those elsewhere.
    async fn places(&self, recipients: &[Address]) -> Result<(Vec<String>, Vec<String>), Error> {
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for address in recipients {
            let address = address.to_string();
            match self.post.boxes.place(&self.post.rules, &address).await? {
                // What is for nobody here comes back as every failure does: from the queue.
                Place::Here(_) | Place::Nobody => here.push(address),
                Place::Elsewhere => elsewhere.push(address),
            }
        }
        Ok((here, elsewhere))
    }

    async fn send(
        &self,
        account: &Account,
        outgoing: Outgoing,
        here: Vec<String>,
        elsewhere: Vec<String>,
        id: &str,
    ) -> Result<Submitted, Refusal> {
        let message = Bytes::from(outgoing.message);
        let sender = match outgoing.senders.from.first() {
            Some(address) => address.to_string(),
            None => self.post.rules.address_of(&account.name),
        };
        let mail = |route, recipients| Mail {
            user: account.name.clone(),
            sender: sender.clone(),
            route,
            recipients,
            reports: !outgoing.automatic,
            message: message.clone(),
        };
        let mut queued = elsewhere.len();
        // The queue first: it is what may refuse.
        if !elsewhere.is_empty() {
            self.queue.add(mail(Route::SmartHost, elsewhere)).await?;
        }
        self.sent.lock().note(&outgoing.message_id);
        if here.is_empty() {
            return Ok(Submitted { id: id.to_owned(), delivered: 0, queued });
        }
        let parcel =
            Parcel { sender: &sender, recipients: &here, message: &message, origin: Origin::default() };
        let results = self.post.deliver(parcel).await;
        let left: Vec<String> = here
            .iter()
            .zip(&results)
            .filter(|(_, result)| **result != RecipientResult::Accepted)
            .map(|(address, _)| address.clone())
            .collect();
        let delivered = here.len() - left.len();
        queued += left.len();
        if !left.is_empty() {
            // Refused here, the message is submitted again: some get it twice, nobody loses it.
            self.queue.add(mail(Route::Local, left)).await?;
        }
        Ok(Submitted { id: id.to_owned(), delivered, queued })
    }
}

/// The Message-IDs of what was sent of late, as hashes: a message that comes back with a trace and one of
/// these goes round in circles.
#[derive(Default)]
struct Sent {
    known: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

fn hash(message_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message_id.hash(&mut hasher);
    hasher.finish()
}

impl Sent {
    fn knows(&self, message_id: &str) -> bool {
        self.known.contains_key(&hash(message_id))
    }

    fn note(&mut self, message_id: &str) {
        let mark = hash(message_id);
        *self.known.entry(mark).or_default() += 1;
        self.order.push_back(mark);
        if self.order.len() > SENT_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(count) = self.known.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_known_for_a_while() {
        let mut sent = Sent::default();
        sent.note("<1@x>");
        sent.note("<1@x>");
        assert!(sent.knows("<1@x>") && !sent.knows("<2@x>"));
        for n in 0..SENT_MAX {
            sent.note(&format!("<{n}@y>"));
        }
        assert!(!sent.knows("<1@x>") && sent.knows("<0@y>"));
        assert_eq!(sent.order.len(), SENT_MAX);
    }
}
