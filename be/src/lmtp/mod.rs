//! LMTP: mail comes in. The dialogue is `common::lmtp`, the mailboxes are `delivery`'s; here are sockets and
//! clocks, and who may connect.
//!
//! A recipient is answered 250 only when the message would survive a power cut. While the disk is as good as full, MAIL is
//! answered 452, so that the MTA does not send what cannot be kept.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use directpush_common::lmtp::{Envelope, LmtpAction, LmtpLimits, LmtpSession, RecipientResult};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Engine;
use crate::delivery::{Origin, Parcel};
use crate::mailbox::random_number;
use crate::server::Server;

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

/// A disk with less room, in bytes, takes no more mail. The store keeps a reserve of its own beside it.
const ROOM_BYTES_MIN: u64 = 256 * 1024;

/// A bound LMTP listener.
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    /// A connection, and where it comes from if that has an address.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        Ok(match self {
            Self::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                (Box::new(stream), Some(peer.ip().to_canonical()))
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
        let (mut stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an LMTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = places.clone().try_acquire_owned().ok();
        let host = &server.config.mail.host_name;
        let refusal = match (&place, may_deliver(&server, peer)) {
            (_, false) => Some(format!("554 5.7.1 {host} takes no mail from you\r\n")),
            (None, _) => Some(format!("421 4.3.2 {host} too many connections\r\n")),
            _ => None,
        };
        if let Some(refusal) = refusal {
            tracing::warn!(?peer, refusal = refusal.trim_end(), "an LMTP connection is refused");
            tasks.spawn(async move {
                let _ = tokio::time::timeout(WRITE_PATIENCE, stream.write_all(refusal.as_bytes())).await;
            });
            continue;
        }
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = converse(&server, stream, peer, stop).await {
                tracing::debug!(%error, "an LMTP connection broke off");
            }
            drop(place);
        });
    }
    if let Listener::Unix(_, path) = &listener {
        let _ = std::fs::remove_file(path);
    }
}

/// Who reaches the socket file or loopback may deliver, and whom the configuration names.
fn may_deliver(server: &Server, peer: Option<IpAddr>) -> bool {
    peer.is_none_or(|peer| {
        peer.is_loopback() || server.config.mail.lmtp_allow.iter().any(|network| network.contains(peer))
    })
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
    peer: Option<IpAddr>,
    stop: CancellationToken,
) -> io::Result<()> {
    let limits = server.config.limits;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut session = LmtpSession::new(
        &server.config.mail.host_name,
        LmtpLimits { message_bytes_max: size(limits.mail_bytes_max), recipients_max: limits.recipients_max },
    );
    say(&mut stream, &session.greeting()).await?;
    let mut input = vec![0; READ_BYTES];
    let mut places: Vec<OwnedSemaphorePermit> = Vec::new();
    let (mut receiving, mut since) = (0, Instant::now());
    loop {
        let read = tokio::select! {
            // A transaction may come to its end; the stop has its own time limit.
            () = stop.cancelled(), if !session.is_in_transaction() => None,
            read = timeout_at(due(&session, since, receiving), stream.read(&mut input)) => read.ok(),
        };
        let count = match read {
            None => return say(&mut stream, &session.farewell()).await,
            Some(count) => count?,
        };
        if count == 0 {
            return Ok(());
        }
        if stop.is_cancelled() {
            session.handle_stop();
        }
        if !session.is_in_transaction() {
            session.set_full(is_full(server));
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
                    let result = server.post.check(&address).await;
                    replies.push_str(&session.handle_recipient(&address, result));
                }
                Some(LmtpAction::Deliver(envelope)) => {
                    let results = deliver(server, &envelope, peer).await;
                    replies.push_str(&LmtpSession::handle_delivered(&envelope.recipients, &results));
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

/// Whether the store's disk has no room. One that cannot be asked has: then the store says what it cannot take.
fn is_full(server: &Server) -> bool {
    // Local disks answer from memory, faster than another thread could be asked to.
    server.config.engine == Engine::Sled
        && rustix::fs::statvfs(&server.config.state_dir).is_ok_and(|disk| {
            let no_inodes = disk.f_files > 0 && disk.f_favail == 0;
            disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES_MIN || no_inodes
        })
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

async fn deliver(server: &Arc<Server>, envelope: &Envelope, peer: Option<IpAddr>) -> Vec<RecipientResult> {
    let id = random_number().map_or_else(|_| String::new(), |number| format!("{number:014x}"));
    let with = if envelope.utf8 { "UTF8LMTP" } else { "LMTP" };
    let origin = Origin { helo: &envelope.helo, peer, with, id: &id };
    let Envelope { sender, recipients, message, .. } = envelope;
    server.post.deliver(Parcel { sender, recipients, message, origin }).await
}
