//! One connection, from accept to close: hyper while requests come, a small struct while one waits.
//!
//! The future is a hand-written state machine because its size is paid per parked device: the
//! hyper life and the writing of an answer are boxed, so that a parked connection is a socket, a
//! box and two words ([`crate::http::park`] says why). Everything else about it is in the boxes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::park::{Parked, Seat};
use super::patience::{Overdue, Patience, Progress};
use super::watched::Watched;
use super::{Ends, Reply, Stream};

/// Bytes of a request's head, request line included; more is 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes taken from a parked connection before it is left alone until its answer.
const EARLY_BYTES_MAX: usize = 64;
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
    open: AtomicUsize,
    emptied: Notify,
}

impl Server {
    /// A server without connections.
    pub fn new(router: Router, patience: Patience, drain: CancellationToken) -> Arc<Self> {
        Arc::new(Self { router, patience, drain, open: AtomicUsize::new(0), emptied: Notify::new() })
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

/// A connection as a future: spawn it.
pub struct Connection<S: Stream> {
    server: Arc<Server>,
    life: Life<S>,
}

/// A life that is over soon: boxed, so that only its pointer is paid for while a request waits.
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Life<S> {
    Http(Boxed<Option<Handover<S>>>),
    Parked(Handover<S>),
    Answering(Boxed<Option<(S, Bytes)>>),
    Over,
}

/// What is left of a connection while its request waits.
struct Handover<S> {
    stream: S,
    parked: Box<dyn Parked>,
    /// Bytes that the device sent meanwhile; usually none, so usually one null pointer.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in every parked connection")]
    early: Option<Box<Vec<u8>>>,
    close: bool,
}

impl<S: Stream> Connection<S> {
    /// A connection that was just accepted.
    pub fn new(stream: S, server: Arc<Server>) -> Self {
        server.open.fetch_add(1, Ordering::Relaxed);
        let life = Life::Http(Box::pin(serve(stream, Bytes::new(), Arc::clone(&server))));
        Self { server, life }
    }
}

impl<S: Stream> Drop for Connection<S> {
    fn drop(&mut self) {
        // What is parked gives back its place before the count says that we are gone.
        self.life = Life::Over;
        if self.server.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.server.emptied.notify_waiters();
        }
    }
}

impl<S: Stream> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut self.life {
                Life::Http(http) => match ready!(http.as_mut().poll(cx)) {
                    Some(handover) => Life::Parked(handover),
                    None => Life::Over,
                },
                Life::Parked(waiting) => match ready!(waiting.poll(cx)) {
                    Some(reply) => match std::mem::replace(&mut self.life, Life::Over) {
                        Life::Parked(waiting) => {
                            let draining = self.server.drain.is_cancelled();
                            let patience = self.server.patience.write;
                            Life::Answering(Box::pin(answer(waiting, reply, draining, patience)))
                        }
                        life => life,
                    },
                    None => Life::Over,
                },
                Life::Answering(answering) => match ready!(answering.as_mut().poll(cx)) {
                    Some((stream, early)) => {
                        Life::Http(Box::pin(serve(stream, early, Arc::clone(&self.server))))
                    }
                    None => Life::Over,
                },
                Life::Over => return Poll::Ready(()),
            };
            self.life = next;
        }
    }
}

impl<S: Stream> Handover<S> {
    /// The answer, or `None` when the device hung up.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        if let Poll::Ready(reply) = self.parked.poll_answer(cx) {
            return Poll::Ready(Some(reply));
        }
        // A device that pipelines gets its turn after the answer. Beyond a few bytes the socket is
        // left alone: what else it sends waits in the kernel, and costs the device, not us.
        let mut space = [0; EARLY_BYTES_MAX];
        while self.early.as_ref().is_none_or(|early| early.len() < EARLY_BYTES_MAX) {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.early.get_or_insert_default().extend_from_slice(buf.filled());
                }
                Poll::Ready(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }
}

/// Writes the answer of a parked request. `None` when the connection ends with it.
async fn answer<S: Stream>(
    waiting: Handover<S>,
    reply: Reply,
    draining: bool,
    patience: Duration,
) -> Option<(S, Bytes)> {
    let Handover { mut stream, mut parked, early, close } = waiting;
    let close = close || draining;
    let bytes = reply.encode(close);
    let ends = Ends { peer: stream.peer(), local: stream.local() };
    let sent = timeout(patience, async {
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
    Some((stream, early.map(|early| Bytes::from(*early)).unwrap_or_default()))
}

/// How a connection's life in hyper ended.
enum End {
    Parked(Box<dyn Parked>, bool),
    Closed,
    Broken,
    Overdue(Overdue),
}

/// The hyper life: serves requests until one parks the connection or it closes.
async fn serve<S: Stream>(stream: S, early: Bytes, server: Arc<Server>) -> Option<Handover<S>> {
    let progress = Arc::new(Mutex::new(Progress::new(Instant::now())));
    let seat = Seat::default();
    let ends = Ends { peer: stream.peer(), local: stream.local() };
    let io = TokioIo::new(Watched { stream, early, progress: Arc::clone(&progress) });
    let service = {
        let (seat, progress, router) = (seat.clone(), Arc::clone(&progress), server.router.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            progress.lock().handle_request();
            seat.begin(closes_after(&request));
            request.extensions_mut().insert(seat.clone());
            request.extensions_mut().insert(ends);
            let answer = router.clone().call(request.map(Body::new));
            let progress = Arc::clone(&progress);
            Box::pin(async move {
                let answer = answer.await;
                progress.lock().handle_answer(Instant::now());
                answer
            })
        })
    };
    let mut connection = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(io, service);
    let end = {
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
            loop {
                let Some((due, overdue)) = progress.lock().deadline(&server.patience) else {
                    return Poll::Pending;
                };
                if Instant::now() >= due {
                    return Poll::Ready(End::Overdue(overdue));
                }
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
    match end {
        End::Parked(parked, close) => {
            // hyper's own leftover comes before what it had not taken yet.
            let mut left = parts.read_buf.to_vec();
            left.extend_from_slice(&early);
            let early = (!left.is_empty()).then(|| Box::new(left));
            return Some(Handover { stream, parked, early, close });
        }
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
