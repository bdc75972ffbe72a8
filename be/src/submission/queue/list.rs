//! The queue as an administrator sees it: `directpush-be queue list`, also as JSON. No subject, no text.

use serde::{Deserialize, Serialize};

use super::Id;
use super::entry::{Entry, Route, Standing};

/// A message in the queue.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Listed {
    pub id: String,
    pub user: String,
    pub sender: String,
    pub route: Route,
    /// Bytes.
    pub size: u64,
    /// Unix seconds.
    pub accepted: u64,
    pub age_secs: u64,
    pub attempts: u32,
    /// Unix seconds; none when there is nothing left to try.
    pub next_attempt: Option<u64>,
    /// An attempt is under way.
    pub trying: bool,
    pub recipients: Vec<ListedRecipient>,
}

/// One of its recipients.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListedRecipient {
    pub address: String,
    pub state: Standing,
    pub last_answer: Option<String>,
}

impl Listed {
    pub(super) fn new(id: Id, entry: &Entry, trying: bool, now: u64) -> Self {
        let Entry { envelope, state } = entry;
        let recipients = envelope.recipients.iter().zip(&state.recipients);
        Self {
            id: id.to_string(),
            user: envelope.user.to_string(),
            sender: envelope.sender.clone(),
            route: envelope.route,
            size: envelope.size,
            accepted: envelope.accepted,
            age_secs: now.saturating_sub(envelope.accepted),
            attempts: state.attempts,
            next_attempt: entry.is_waiting().then_some(state.next),
            trying,
            recipients: recipients
                .map(|(address, recipient)| ListedRecipient {
                    address: address.clone(),
                    state: recipient.standing,
                    last_answer: recipient.last.as_ref().map(ToString::to_string),
                })
                .collect(),
        }
    }
}
