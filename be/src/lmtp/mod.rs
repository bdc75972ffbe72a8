//! LMTP: mail comes in. The dialogue is `common::lmtp`; here are its sockets, clocks and the store.
//!
//! A recipient is answered 250 only when the message would survive a power cut: the body is durable
//! first, then one commit per mailbox, and the replies after them.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::change::{Cause, Maker};
use directpush_common::lmtp::{Envelope, LmtpAction, LmtpLimits, LmtpSession, RecipientResult};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, WithCauses};
use crate::mailbox::folders::INBOX;
use crate::mailbox::items::NewItem;
use crate::mailbox::now_secs;
use crate::server::Server;
use crate::store::StoreError;

/// How long the MTA may say nothing (RFC 5321 4.5.3.2.7).
const PATIENCE: Duration = Duration::from_mins(5);
/// How long it may leave a reply unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a message may take, and how fast it must be on the whole when it takes longer.
const MESSAGE_PATIENCE: Duration = Duration::from_mins(10);
const MESSAGE_BYTES_PER_SEC_MIN: u64 = 4 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// Memory for a message is taken in pieces of so many bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// Mailboxes that one message is committed to at the same time.
const AT_ONCE: usize = 64;

/// A bound LMTP listener.
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        })
    }
}

/// Accepts until `stop`. A socket file is removed at the end.
pub async fn accept(
    server: Arc<Server>,
    listener: Listener,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an LMTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tasks.spawn(async move {
                let full = format!("421 4.3.2 {} too many connections\r\n", host());
                let _ = tokio::time::timeout(WRITE_PATIENCE, stream.write_all(full.as_bytes())).await;
            });
            continue;
        };
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = converse(&server, stream, stop).await {
                tracing::debug!(%error, "an LMTP connection broke off");
            }
            drop(place);
        });
    }
    if let Listener::Unix(_, path) = &listener {
        let _ = std::fs::remove_file(path);
    }
}

/// This host's name, for greetings.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if ok { name.to_owned() } else { "localhost".to_owned() }
}

async fn say(stream: &mut Box<dyn Stream>, text: &str) -> io::Result<()> {
    let write = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_PATIENCE, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn converse(
    server: &Arc<Server>,
    mut stream: Box<dyn Stream>,
    stop: CancellationToken,
) -> io::Result<()> {
    let limits = server.config.limits;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut session = LmtpSession::new(
        &host(),
        LmtpLimits { message_bytes_max: size(limits.mail_bytes_max), recipients_max: limits.recipients_max },
    );
    say(&mut stream, &session.greeting()).await?;
    let mut input = vec![0; READ_BYTES];
    let mut places: Vec<OwnedSemaphorePermit> = Vec::new();
    let (mut receiving, mut since) = (0, Instant::now());
    loop {
        let read = tokio::select! {
            // A message that is coming in may come to its end; the stop has its own time limit.
            () = stop.cancelled(), if !session.is_receiving() => None,
            read = timeout_at(due(&session, since, receiving), stream.read(&mut input)) => read.ok(),
        };
        let count = match read {
            None => return say(&mut stream, &session.farewell()).await,
            Some(count) => count?,
        };
        if count == 0 {
            return Ok(());
        }
        let mut rest = &input[..count];
        // Replies to pipelined commands leave together (RFC 2920 3.2).
        let mut replies = String::new();
        while !rest.is_empty() {
            let (taken, action) = session.feed(rest);
            rest = &rest[taken..];
            match action {
                None => {}
                Some(LmtpAction::Reply(reply)) => replies.push_str(&reply),
                Some(LmtpAction::Close(reply)) => {
                    replies.push_str(&reply);
                    return say(&mut stream, &replies).await;
                }
                Some(LmtpAction::CheckRecipient(address)) => {
                    let result = match server.auth.recipient(&address).await {
                        Ok(Some(_)) => RecipientResult::Accepted,
                        Ok(None) => RecipientResult::Unknown,
                        Err(error) => failed(&error),
                    };
                    replies.push_str(&session.handle_recipient(&address, result));
                }
                Some(LmtpAction::Deliver(envelope)) => {
                    let recipients = envelope.recipients.clone();
                    let results = deliver(server, envelope).await;
                    replies.push_str(&LmtpSession::handle_delivered(&recipients, &results));
                }
            }
            if session.is_receiving() {
                if receiving == 0 {
                    since = Instant::now();
                }
                receiving += taken;
                if receiving > places.len() * PIECE_BYTES {
                    let Some(place) = server.budget.take(PIECE_BYTES as u64).await else {
                        replies.push_str(&session.farewell());
                        return say(&mut stream, &replies).await;
                    };
                    places.push(place);
                }
            } else {
                receiving = 0;
                places.clear();
            }
        }
        if !replies.is_empty() {
            say(&mut stream, &replies).await?;
        }
    }
}

/// Until when the MTA has to say something more.
fn due(session: &LmtpSession, since: Instant, receiving: usize) -> Instant {
    let next = Instant::now() + PATIENCE;
    if !session.is_receiving() {
        return next;
    }
    let rate = Duration::from_secs(receiving as u64 / MESSAGE_BYTES_PER_SEC_MIN);
    next.min(since + MESSAGE_PATIENCE + rate)
}

fn failed(error: &Error) -> RecipientResult {
    match error {
        Error::Store(StoreError::Full) => RecipientResult::Full,
        Error::NoUser => RecipientResult::Unknown,
        error => {
            tracing::error!(error = %WithCauses(error), "cannot deliver");
            RecipientResult::Failed
        }
    }
}

/// Stores a message for its recipients; one result each, in their order.
async fn deliver(server: &Arc<Server>, envelope: Envelope) -> Vec<RecipientResult> {
    let boxes = &server.boxes;
    let size = envelope.message.len() as u64;
    let body = match boxes.store.bodies.put(Bytes::from(envelope.message)).await {
        Ok(body) => body,
        Err(error) => {
            let result = failed(&error.into());
            return vec![result; envelope.recipients.len()];
        }
    };
    let mut owners = Vec::with_capacity(envelope.recipients.len());
    let mut results: HashMap<u64, RecipientResult> = HashMap::new();
    let mut waiting = Vec::new();
    for address in &envelope.recipients {
        let owner = match server.auth.recipient(address).await {
            Ok(Some(account)) => {
                // Two addresses of one user: one message.
                if results.insert(account.mailbox, RecipientResult::Failed).is_none() {
                    waiting.push(account.mailbox);
                }
                Ok(account.mailbox)
            }
            Ok(None) => Err(RecipientResult::Unknown),
            Err(error) => Err(failed(&error)),
        };
        owners.push(owner);
    }
    let date = now_secs();
    for some in waiting.chunks(AT_ONCE) {
        let mut commits = JoinSet::new();
        for &mailbox in some {
            let new = NewItem { body, size, content_type: "message/rfc822".into(), date, read: false };
            let boxes = boxes.clone();
            commits.spawn(async move {
                let added = boxes.add(mailbox, INBOX, new, Maker::of(Cause::Delivery)).await;
                (mailbox, added.map_or_else(|error| failed(&error), |_| RecipientResult::Accepted))
            });
        }
        while let Some(done) = commits.join_next().await {
            if let Ok((mailbox, result)) = done {
                results.insert(mailbox, result);
            }
        }
    }
    if !results.values().any(|result| *result == RecipientResult::Accepted) {
        boxes.body_dropped(body);
    }
    owners
        .into_iter()
        .map(|owner| match owner {
            Ok(mailbox) => results.get(&mailbox).copied().unwrap_or(RecipientResult::Failed),
            Err(result) => result,
        })
        .collect()
}
