//! What everyone but the owner sees of the queue: its settings, and a handle that sends orders.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::names::UserName;
use tokio::sync::{mpsc, oneshot};

use super::Id;
use super::entry::Route;
use super::list::Listed;
use super::schedule::Times;
use super::spool::{SpoolError, digest};

/// Bounds and times of the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueSettings {
    pub times: Times,
    /// Attempts at the smart host at once.
    pub connections_max: usize,
    /// Messages in the queue.
    pub messages_max: usize,
    /// Messages of one user in the queue.
    pub messages_per_user_max: usize,
    /// Bytes of all messages in the queue.
    pub bytes_max: u64,
    /// How long attempts under way may take to their end when the server stops.
    pub drain: Duration,
    /// Only orders are carried out, nothing is sent or told: for the command line while no server runs.
    pub orders_only: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            times: Times::default(),
            connections_max: 4,
            messages_max: 10_000,
            messages_per_user_max: 500,
            bytes_max: 10 << 30,
            drain: Duration::from_secs(8),
            orders_only: false,
        }
    }
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Mail {
    pub user: UserName,
    pub sender: String,
    pub route: Route,
    /// At least one.
    pub recipients: Vec<String>,
    /// Whether the sender is told of failure and delay.
    pub reports: bool,
    pub message: Bytes,
}

/// Why the queue does not take a message, or does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue holds as much as it may.
    #[error("the mail queue is full")]
    TooMany,
    /// The user has as many messages waiting as one may have.
    #[error("too many messages of this user wait in the mail queue")]
    TooManyOfUser,
    /// It could not be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The server stops.
    #[error("the mail queue has stopped")]
    Stopped,
}

/// The time, in Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the owner is asked.
pub(super) enum Order {
    /// With the message's digest.
    Add(Mail, String, oneshot::Sender<Result<Id, QueueError>>),
    List {
        user: Option<UserName>,
        after: Option<Id>,
        limit: usize,
        reply: oneshot::Sender<Vec<Listed>>,
    },
    Retry(Option<Id>, oneshot::Sender<usize>),
    Remove(Id, oneshot::Sender<bool>),
}

/// A handle to the queue.
#[derive(Clone)]
pub struct Queue(mpsc::Sender<Order>);

impl Queue {
    pub(super) fn new(orders: mpsc::Sender<Order>) -> Self {
        Self(orders)
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(order(reply)).await.map_err(|_| QueueError::Stopped)?;
        answer.await.map_err(|_| QueueError::Stopped)
    }

    /// Puts a message into the queue: when this returns its id, it would survive a power cut.
    pub async fn add(&self, mail: Mail) -> Result<Id, QueueError> {
        let message = mail.message.clone();
        let sum = tokio::task::spawn_blocking(move || digest(&message));
        let sum = sum.await.map_err(|_| QueueError::Stopped)?;
        self.order(|reply| Order::Add(mail, sum, reply)).await?
    }

    /// The messages after an id (or from the oldest), at most `limit`, of one user or of all.
    pub async fn list(
        &self,
        user: Option<UserName>,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Vec<Listed>, QueueError> {
        self.order(|reply| Order::List { user, after, limit, reply }).await
    }

    /// Tries a message, or all that wait, now. Answers how many.
    pub async fn retry(&self, id: Option<Id>) -> Result<usize, QueueError> {
        self.order(|reply| Order::Retry(id, reply)).await
    }

    /// Removes a message, and tells nobody. Answers whether there was one; it is gone for good then.
    pub async fn remove(&self, id: Id) -> Result<bool, QueueError> {
        self.order(|reply| Order::Remove(id, reply)).await
    }
}
