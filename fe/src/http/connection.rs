//! One connection, from accept to close: hyper while a request is served, a small struct while one
//! waits, and little more between requests.
//!
//! The future is a hand-written state machine because its size is paid per parked device: the
//! lives are boxed, each as large as it must be, and what is left fits a task of 128 bytes. tokio's record of a socket would take
//! 256 more, so a parked one leaves tokio (`lot`).
//! hyper's buffers exist only from the first byte of a request to the last of its answer
//! (`rest`), and only so many requests are read and answered at once: when every device
//! comes at the same moment, the others wait in the kernel.

use std::future::Future;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::lot::{Lot, Spot};
use super::park::{Parked, Seat};
use super::patience::{Overdue, Patience, Progress};
use super::rest::{self, Begun, Rested};
use super::watched::{Answered, Asked, Watched};
use super::{Ends, Reply, Still, Stream};

/// Bytes of a request's head, request line included; more is 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes taken from a parked connection before it is left alone until its answer.
const EARLY_BYTES_MAX: usize = 64;
/// Requests read and answered at once. What comes beyond waits its turn; see [`TURN_MAX`].
const TURNS: usize = 128;
/// How long a request counts among [`TURNS`]; one that takes longer goes on uncounted, so that
/// slow ones (a cold log-on, a large Sync) do not hold up the others.
const TURN_MAX: Duration = Duration::from_secs(1);
/// How long a closing connection may still send, so that our last answer is not reset away.
const LINGER: Duration = Duration::from_secs(1);
/// How much it may send in that time.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What all connections of a server share.
pub struct Server {
    /// Who answers.
    pub router: Router,
    /// How slow a peer may be.
    pub patience: Patience,
    /// Cancelled when no further request is to be taken.
    pub drain: CancellationToken,
    pub(super) turns: Arc<Semaphore>,
    lot: Lot,
    open: AtomicUsize,
    emptied: Notify,
}

impl Server {
    /// A server without connections, in the current runtime.
    ///
    /// # Errors
    /// When the system has no epoll instance to give.
    pub fn new(router: Router, patience: Patience, drain: CancellationToken) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            router,
            patience,
            drain,
            turns: Arc::new(Semaphore::new(TURNS)),
            lot: Lot::open()?,
            open: AtomicUsize::new(0),
            emptied: Notify::new(),
        }))
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until the last connection is closed.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A connection's place among those open at its server; given back when dropped.
pub(super) struct Open(Arc<Server>);

impl Open {
    fn new(server: Arc<Server>) -> Self {
        server.open.fetch_add(1, Ordering::Relaxed);
        Self(server)
    }
}

impl Deref for Open {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

/// A connection as a future: spawn it.
pub struct Connection<S: Stream>(Life<S>);

/// A life that is over soon.
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Life<S: Stream> {
    Resting(Boxed<Rested<S>>),
    Http(Boxed<Option<After<S>>>),
    Parked(Waiting<S>),
    Answering(Boxed<Option<(S, Bytes, Open)>>),
    Closing(Boxed<()>),
    Over,
}

/// What comes after a life in hyper.
enum After<S> {
    /// A request waits.
    Parked { stream: S, parked: Box<dyn Parked>, rare: Option<Box<Rare>>, open: Open },
    /// It was answered.
    Rest { stream: S, early: Bytes, seat: Seat, open: Open },
}

/// A connection whose request waits. What is parked goes before the count says that its connection is gone.
struct Waiting<S: Stream> {
    handover: Box<Handover<S::Still>>,
    open: Open,
}

/// What is left of a connection while its request waits.
struct Handover<S> {
    still: S,
    spot: Spot,
    parked: Box<dyn Parked>,
    /// Usually nothing, so usually one null pointer.
    rare: Option<Box<Rare>>,
}

/// What few waiting connections have.
#[derive(Default)]
struct Rare {
    /// Bytes that the device sent meanwhile.
    early: Vec<u8>,
    /// The connection ends with the answer.
    close: bool,
}

impl<S: Stream> Connection<S> {
    /// A connection that was just accepted.
    pub fn new(stream: S, server: Arc<Server>) -> Self {
        Self(Life::resting(stream, Bytes::new(), Seat::default(), Open::new(server)))
    }
}

#[cfg(test)]
pub(super) const PARKED_BYTES: usize = size_of::<Handover<std::net::TcpStream>>();
/// With this much tokio's task takes 128 bytes, with more the next size is 256.
#[cfg(test)]
pub(super) const CONNECTION_BYTES: usize = size_of::<Connection<tokio::net::TcpStream>>();

impl<S: Stream> Life<S> {
    fn resting(stream: S, early: Bytes, seat: Seat, open: Open) -> Self {
        Self::Resting(Box::pin(rest::rest(stream, early, seat, open)))
    }

    fn after(after: After<S>, waker: &Waker) -> Self {
        match after {
            After::Rest { stream, early, seat, open } => Self::resting(stream, early, seat, open),
            After::Parked { stream, parked, rare, open } => {
                let entered =
                    stream.into_still().and_then(|still| Ok((open.lot.enter(&still, waker)?, still)));
                match entered {
                    Ok((spot, still)) => {
                        let handover = Box::new(Handover { still, spot, parked, rare });
                        Self::Parked(Waiting { handover, open })
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be parked");
                        Self::Over
                    }
                }
            }
        }
    }
}

impl<S: Stream> Drop for Connection<S> {
    fn drop(&mut self) {
        if let Life::Parked(waiting) = &self.0 {
            waiting.leave();
        }
    }
}

impl<S: Stream> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut self.0 {
                Life::Resting(resting) => match ready!(resting.as_mut().poll(cx)) {
                    Rested::Begun(begun) => Life::Http(Box::pin(serve(begun))),
                    Rested::Closing(stream, open) => Life::Closing(Box::pin(async move {
                        linger(stream).await;
                        drop(open);
                    })),
                    Rested::Gone => Life::Over,
                },
                Life::Http(http) => match ready!(http.as_mut().poll(cx)) {
                    Some(after) => Life::after(after, cx.waker()),
                    None => Life::Over,
                },
                Life::Parked(waiting) => {
                    let reply = ready!(waiting.poll(cx));
                    waiting.leave();
                    match (reply, std::mem::replace(&mut self.0, Life::Over)) {
                        (Some(reply), Life::Parked(waiting)) => {
                            Life::Answering(Box::pin(answer(waiting, reply)))
                        }
                        _ => Life::Over,
                    }
                }
                Life::Answering(answering) => match ready!(answering.as_mut().poll(cx)) {
                    Some((stream, early, open)) => Life::resting(stream, early, Seat::default(), open),
                    None => Life::Over,
                },
                Life::Closing(closing) => {
                    ready!(closing.as_mut().poll(cx));
                    Life::Over
                }
                Life::Over => return Poll::Ready(()),
            };
            self.0 = next;
        }
    }
}

impl<S: Stream> Waiting<S> {
    /// The answer, or `None` when the device hung up.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        let Handover { still, spot, parked, rare } = &mut *self.handover;
        if let Poll::Ready(reply) = parked.poll_answer(cx) {
            return Poll::Ready(Some(reply));
        }
        if !self.open.lot.is_stirred(*spot, cx.waker()) {
            return Poll::Pending;
        }
        // A device that pipelines gets its turn after the answer. Beyond a few bytes the socket is
        // left alone: what else it sends waits in the kernel, and costs the device, not us.
        let mut space = [0; EARLY_BYTES_MAX];
        while rare.as_ref().is_none_or(|rare| rare.early.len() < EARLY_BYTES_MAX) {
            match still.read(&mut space) {
                Ok(0) => return Poll::Ready(None),
                Ok(count) => rare.get_or_insert_default().early.extend_from_slice(&space[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }

    /// Its socket is watched no longer.
    fn leave(&self) {
        self.open.lot.leave(self.handover.spot, &self.handover.still);
    }
}

/// Writes the answer of a parked request. `None` when the connection ends with it.
async fn answer<S: Stream>(waiting: Waiting<S>, reply: Reply) -> Option<(S, Bytes, Open)> {
    let Waiting { handover, open } = waiting;
    let Handover { still, mut parked, rare, .. } = *handover;
    let mut stream = still.into_stream().ok()?;
    let Rare { early, close } = rare.map(|rare| *rare).unwrap_or_default();
    let close = close || open.drain.is_cancelled();
    let bytes = reply.encode(close);
    let ends = Ends { peer: stream.peer(), local: stream.local() };
    let sent = timeout(open.patience.write, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    })
    .await;
    let sent = matches!(sent, Ok(Ok(())));
    parked.answered(ends, reply.status.as_u16(), sent.then_some(bytes.len()));
    drop(parked);
    if !sent {
        return None;
    }
    if close {
        linger(stream).await;
        return None;
    }
    Some((stream, early.into(), open))
}

/// How a connection's life in hyper ended.
enum End {
    Parked(Box<dyn Parked>, bool),
    /// Answered to the last byte, and nothing of the next request has come.
    Rested,
    Closed,
    Broken,
    Overdue(Overdue),
}

/// The hyper life: serves one request, which may park the connection.
async fn serve<S: Stream>(begun: Begun<S>) -> Option<After<S>> {
    let Begun { stream, early, seat, turn, open } = begun;
    let server = &*open;
    let progress = Arc::new(Mutex::new(Progress::new(Instant::now())));
    let ends = Ends { peer: stream.peer(), local: stream.local() };
    let io = TokioIo::new(Watched { stream, early, progress: Arc::clone(&progress) });
    let service = {
        let (seat, progress, router) = (seat.clone(), Arc::clone(&progress), server.router.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let close = closes_after(&request);
            progress.lock().handle_request(close);
            seat.begin(close);
            request.extensions_mut().insert(seat.clone());
            request.extensions_mut().insert(ends);
            let asked = request.map(|body| Body::new(Asked::new(body, Arc::clone(&progress))));
            let answer = router.clone().call(asked);
            let progress = Arc::clone(&progress);
            Box::pin(async move {
                let answer = answer.await?;
                let mut noted = progress.lock();
                noted.handle_answer(Instant::now());
                noted.close |= answer.headers().contains_key(header::CONNECTION);
                drop(noted);
                Ok::<_, std::convert::Infallible>(answer.map(|body| Answered { body, progress }))
            })
        })
    };
    let mut connection = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(io, service);
    let end = {
        let mut turn: Option<(OwnedSemaphorePermit, Instant)> =
            turn.map(|turn| (turn, Instant::now() + TURN_MAX));
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        let mut drained = std::pin::pin!(server.drain.cancelled());
        let mut draining = false;
        std::future::poll_fn(|cx| {
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Closed),
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Pending => {}
            }
            // The handler runs inside the poll above, so this is the moment to look.
            if let Some((parked, close)) = seat.take() {
                return Poll::Ready(End::Parked(parked, close));
            }
            if !draining && progress.lock().is_over() {
                return Poll::Ready(End::Rested);
            }
            loop {
                let (now, noted) = (Instant::now(), progress.lock());
                // A head that did not come in one piece has no claim to a turn.
                turn = turn.take().filter(|(_, until)| noted.handling && now < *until);
                let overdue = noted.deadline(&server.patience);
                drop(noted);
                let due = match (&overdue, &turn) {
                    (Some((due, overdue)), _) if now >= *due => return Poll::Ready(End::Overdue(*overdue)),
                    (Some((due, _)), Some((_, until))) => *due.min(until),
                    (Some((due, _)), None) => *due,
                    (None, Some((_, until))) => *until,
                    (None, None) => return Poll::Pending,
                };
                timer.as_mut().reset(due);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    };
    let parts = connection.into_parts();
    let Watched { stream, early, .. } = parts.io.into_inner();
    let eof = progress.lock().eof;
    // hyper's own leftover comes before what it had not taken yet.
    let left = || [&*parts.read_buf, &*early].concat();
    match end {
        End::Parked(parked, close) => {
            let early = left();
            let rare = (close || !early.is_empty()).then(|| Box::new(Rare { early, close }));
            return Some(After::Parked { stream, parked, rare, open });
        }
        End::Rested => return Some(After::Rest { stream, early: left().into(), seat, open }),
        End::Overdue(Overdue::Head) => {
            seat.broke();
            refuse(stream, &Reply::empty(http::StatusCode::REQUEST_TIMEOUT)).await;
        }
        End::Overdue(Overdue::Write) | End::Broken => {
            seat.broke();
            if !eof {
                linger(stream).await;
            }
        }
        End::Closed | End::Overdue(Overdue::Idle) => {
            if !eof {
                linger(stream).await;
            }
        }
    }
    None
}

/// Whether the device wants the connection closed after this request (RFC 9112 9.3 Persistence).
fn closes_after<B>(request: &Request<B>) -> bool {
    let says = |word: &str| {
        request.headers().get_all(header::CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|value| value.split(',').any(|it| it.trim().eq_ignore_ascii_case(word)))
        })
    };
    if request.version() == Version::HTTP_11 { says("close") } else { true }
}

/// Writes a refusal and closes.
pub(super) async fn refuse<S: Stream>(mut stream: S, reply: &Reply) {
    let bytes = reply.encode(true);
    if let Ok(Ok(())) = timeout(LINGER, stream.write_all(&bytes)).await {
        linger(stream).await;
    }
}

/// Closes without losing our last bytes: a socket closed with unread input resets the connection,
/// and the reset may overtake the answer.
async fn linger<S: Stream>(mut stream: S) {
    let drained = async {
        stream.shutdown().await?;
        let (mut space, mut left) = ([0; 2048], LINGER_BYTES_MAX);
        while left > 0 {
            let count = stream.read(&mut space).await?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, drained).await;
}
