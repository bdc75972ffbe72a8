//! Mail for mailboxes here, whoever brings it: the MTA by LMTP, a user who writes to a neighbour, a report.
//!
//! A recipient's result says delivered only when the message would survive a power cut: the body is durable
//! first, then one commit per mailbox. All recipients share one body, so nothing in it names one of them.
//!
//! Not here: LMTP (`lmtp`), who may send (`submission`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use directpush_common::change::{Cause, Maker};
use directpush_common::lmtp::RecipientResult;
use directpush_common::mail::fields::{SpamMark, is_spam, message_id, split};
use directpush_common::mail::trace::{self, HOPS_MAX, Received};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::auto_reply::Arrival;
use crate::error::{Error, WithCauses};
use crate::mailbox::addresses::AddressRules;
use crate::mailbox::deliver::Once;
use crate::mailbox::folders::{INBOX, JUNK};
use crate::mailbox::items::NewItem;
use crate::mailbox::quota::Exceeded;
use crate::mailbox::users::Account;
use crate::mailbox::{Mailboxes, now_secs};
use crate::store::StoreError;

/// Mailboxes that one message is committed to at the same time.
const AT_ONCE: usize = 64;

/// What deliveries need of the back end.
pub struct Post {
    pub boxes: Arc<Mailboxes>,
    pub rules: AddressRules,
    /// Fields by which the MTA's filter marks spam.
    pub spam_marks: Vec<SpamMark>,
    /// The same Message-ID comes into the same mailbox once in so long; zero: as often as it comes.
    pub duplicate_window: Duration,
    /// This host's name, for what is written at the top of messages.
    pub host: String,
    /// Who answers for people who are away; set once, by a server that serves.
    pub replies: OnceLock<mpsc::Sender<Arrival>>,
}

/// A message for mailboxes here.
pub struct Parcel<'a> {
    /// The reverse path; empty for reports.
    pub sender: &'a str,
    pub recipients: &'a [String],
    pub message: &'a [u8],
    pub origin: Origin<'a>,
}

/// Who brought it.
#[derive(Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The name that the MTA gave.
    pub helo: &'a str,
    pub peer: Option<IpAddr>,
    /// `LMTP`, `UTF8LMTP`; empty when no `Received` is to be written.
    pub with: &'a str,
    /// How the log calls the message.
    pub id: &'a str,
}

impl Post {
    /// Whether an address can be delivered to.
    pub async fn check(&self, address: &str) -> RecipientResult {
        match self.boxes.recipient(&self.rules, address).await {
            Ok(Some(_)) => RecipientResult::Accepted,
            Ok(None) => RecipientResult::Unknown,
            Err(error) => failed(&error, 0),
        }
    }

    /// Stores a message for its recipients; one result each, in their order.
    pub async fn deliver(&self, parcel: Parcel<'_>) -> Vec<RecipientResult> {
        let Parcel { sender, recipients, message, origin } = parcel;
        if trace::hops(message) > HOPS_MAX {
            tracing::warn!(id = origin.id, sender, "a message goes round in circles");
            return vec![RecipientResult::Loop; recipients.len()];
        }
        let (folder, cause) =
            if is_spam(message, &self.spam_marks) { (JUNK, Cause::Junk) } else { (INBOX, Cause::Delivery) };
        let once = self.once(message);
        let traced = self.traced(sender, message, origin);
        let size = traced.len() as u64;
        let body = match self.boxes.store.bodies.put(Bytes::from(traced)).await {
            Ok(body) => body,
            Err(error) => return vec![failed(&error.into(), size); recipients.len()],
        };
        // Two addresses of one user: one message.
        let mut results: HashMap<u64, RecipientResult> = HashMap::new();
        let (mut owners, mut waiting) = (Vec::with_capacity(recipients.len()), Vec::new());
        for address in recipients {
            owners.push(match self.boxes.recipient(&self.rules, address).await {
                Ok(Some(account)) => {
                    let mailbox = account.mailbox;
                    if results.insert(mailbox, RecipientResult::Failed).is_none() {
                        waiting.push(account);
                    }
                    Ok(mailbox)
                }
                Ok(None) => Err(RecipientResult::Unknown),
                Err(error) => Err(failed(&error, size)),
            });
        }
        let date = now_secs();
        let mut kept = Vec::new();
        for some in waiting.chunks(AT_ONCE) {
            let mut commits = JoinSet::new();
            for account in some {
                let mailbox = account.mailbox;
                let new = NewItem { body, size, content_type: "message/rfc822".into(), date, read: false };
                let (boxes, once) = (self.boxes.clone(), once.clone());
                commits.spawn(async move {
                    let maker = Maker::of(cause);
                    (mailbox, boxes.deliver(mailbox, folder, new, maker, once).await)
                });
            }
            while let Some(done) = commits.join_next().await {
                let Ok((mailbox, added)) = done else { continue };
                let result = match added {
                    Ok(added) => {
                        if added.is_some() {
                            kept.push(mailbox);
                        }
                        RecipientResult::Accepted
                    }
                    Err(error) => self.not_added(mailbox, &error, size).await,
                };
                results.insert(mailbox, result);
            }
        }
        if kept.is_empty() {
            self.boxes.body_dropped(body);
        } else if cause == Cause::Delivery {
            self.announce(sender, message, waiting.iter().filter(|account| kept.contains(&account.mailbox)));
        }
        let result = |mailbox| results.get(&mailbox).copied().unwrap_or(RecipientResult::Failed);
        owners.into_iter().map(|owner| owner.map_or_else(|refused| refused, result)).collect()
    }

    /// Tells who answers for people who are away of a message that came; of those who are known to be there, not.
    fn announce<'a>(&self, sender: &str, message: &[u8], to: impl Iterator<Item = &'a Arc<Account>>) {
        let Some(replies) = self.replies.get() else { return };
        let now = now_secs();
        let mut header = None;
        for account in to.filter(|account| !sender.is_empty() && !self.boxes.is_oof_off(account.mailbox, now))
        {
            let header = header.get_or_insert_with(|| Bytes::copy_from_slice(split(message).0)).clone();
            let arrival = Arrival { account: account.clone(), sender: sender.to_owned(), header };
            if replies.try_send(arrival).is_err() {
                tracing::warn!(user = %account.name, "too much mail at once: one has no automatic reply");
            }
        }
    }

    /// Of a message that can never be in the mailbox, however much is taken out of it, the MTA has to tell the sender now.
    async fn not_added(&self, mailbox: u64, error: &Error, size: u64) -> RecipientResult {
        if matches!(error, Error::Quota(Exceeded::Bytes))
            && let Ok(state) = self.boxes.state(mailbox).await
            && (1..size).contains(&state.quota(&self.boxes).bytes)
        {
            return RecipientResult::NeverFits;
        }
        failed(error, size)
    }

    fn once(&self, message: &[u8]) -> Option<Once> {
        let window_secs = self.duplicate_window.as_secs();
        if window_secs == 0 {
            return None;
        }
        message_id(message).map(|id| Once::new(&id, window_secs))
    }

    /// The message with its trace on top (RFC 5321 4.4).
    fn traced(&self, sender: &str, message: &[u8], origin: Origin<'_>) -> Vec<u8> {
        let Origin { helo, peer, with, id } = origin;
        if with.is_empty() {
            return trace::with_field(message, "Return-Path", &format!("<{sender}>"));
        }
        let received = Received { helo, peer, by: &self.host, with, id, recipient: None, date: now_secs() };
        trace::delivered(message, sender, &received)
    }
}

fn failed(error: &Error, size: u64) -> RecipientResult {
    match error {
        Error::Store(StoreError::Full) => RecipientResult::Full,
        Error::NoUser => RecipientResult::Unknown,
        Error::Quota(_) => RecipientResult::OverQuota,
        Error::Busy(why) => {
            tracing::warn!(why, "cannot deliver now");
            RecipientResult::Failed
        }
        error => {
            tracing::error!(error = %WithCauses(error), size, "cannot deliver");
            RecipientResult::Failed
        }
    }
}
