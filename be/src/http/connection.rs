//! One connection: hyper, and a clock on what the peer makes us wait for.
//!
//! A request's head that trickles in is answered 408; hyper itself answers a head over 16 KiB with 431.
//! How long an idle connection may stay depends on whose it is (`places`): front ends keep one open to notice
//! that this process went away.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::places::Place;
use super::tls::Shown;
use crate::server::Server;

/// Bytes of a request's head, request line included.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A peer that takes an answer slower than this on the whole uses up its patience.
const BYTES_PER_SEC_MIN: u64 = 16 * 1024;
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What the peer is doing.
#[derive(Clone, Copy)]
enum Phase {
    /// Nothing, since then.
    Idle(Instant),
    /// It began to send a request's head then.
    Head(Instant),
    /// It has its request in; it waits for us.
    Asked,
}

/// The two ends of a connection.
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// The certificate that the peer showed.
    pub(super) shown: Option<Shown>,
}

/// What bytes come and go through: TCP, or TLS above it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

struct Watched<S> {
    stream: S,
    phase: Arc<Mutex<Phase>>,
    /// We are in the first line of a request.
    in_line: bool,
    seen: Arc<Seen>,
}

/// What was seen of a request before hyper made one of it.
#[derive(Default)]
struct Seen {
    /// Its first line was looked at.
    line: AtomicBool,
    /// There is a `#` in its first line.
    fragment: AtomicBool,
    /// There is one behind the first line: in its other fields, in its body, or in a request right behind it.
    hash: AtomicBool,
}

impl Seen {
    /// Whether the request that is there now had a fragment. Of one that came together with the one before it, the first
    /// line was not looked at: it had one if there may be one.
    fn take_fragment(&self) -> bool {
        let fragment = self.fragment.swap(false, Ordering::Relaxed);
        let line = self.line.swap(false, Ordering::Relaxed);
        fragment || (!line && self.hash.load(Ordering::Relaxed))
    }
}

/// Left with a request whose target had a fragment. hyper drops it, and what remains may name something
/// quite different: `DELETE folder/#note`.
#[derive(Clone, Copy, Debug)]
pub struct Fragment;

impl<S> Watched<S> {
    /// Looks for a fragment in a request's first line.
    fn look(&mut self, bytes: &[u8], begins: bool) {
        let mut rest = bytes;
        if begins {
            self.in_line = true;
            self.seen.line.store(true, Ordering::Relaxed);
            self.seen.fragment.store(false, Ordering::Relaxed);
            self.seen.hash.store(false, Ordering::Relaxed);
        }
        if self.in_line {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, behind) = bytes.split_at(end.unwrap_or(bytes.len()));
            if line.contains(&b'#') {
                self.seen.fragment.store(true, Ordering::Relaxed);
            }
            self.in_line = end.is_none();
            rest = behind;
        }
        if !self.seen.hash.load(Ordering::Relaxed) && rest.contains(&b'#') {
            self.seen.hash.store(true, Ordering::Relaxed);
        }
    }

    /// A peer that takes what we send is not idle.
    fn sent(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count @ 1..)) = polled {
            let mut phase = self.phase.lock();
            if let Phase::Idle(since) = *phase {
                *phase = Phase::Idle(earned(since, *count, Instant::now()));
            }
        }
    }
}

/// Since when a peer is idle that was since `since` and took so many bytes: they are worth the time in which the slowest
/// we wait for takes them. One byte now and then would hold an answer in memory for ever.
fn earned(since: Instant, bytes: usize, now: Instant) -> Instant {
    let micros = (bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SEC_MIN;
    (since + Duration::from_micros(micros)).min(now)
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let begins = {
                let mut phase = self.phase.lock();
                let begins = matches!(*phase, Phase::Idle(_));
                if begins {
                    *phase = Phase::Head(Instant::now());
                }
                begins
            };
            self.look(&buf.filled()[before..], begins);
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

enum End {
    Closed,
    /// The head did not come in time.
    Slow,
    /// Nothing came for too long.
    Idle,
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Stream>(
    server: Arc<Server>,
    stream: S,
    ends: Ends,
    place: Place,
    stop: CancellationToken,
) {
    let phase = Arc::new(Mutex::new(Phase::Idle(Instant::now())));
    let seen = Arc::new(Seen::default());
    let io = TokioIo::new(Watched { stream, phase: phase.clone(), in_line: false, seen: seen.clone() });
    let limits = server.config.limits;
    let (place, ends) = (Arc::new(place), Arc::new(ends));
    let leave = place.leave.clone();
    let service = {
        let (phase, place) = (phase.clone(), place.clone());
        hyper::service::service_fn(move |mut request| {
            *phase.lock() = Phase::Asked;
            if seen.take_fragment() {
                request.extensions_mut().insert(Fragment);
            }
            if let Some(shown) = &ends.shown {
                request.extensions_mut().insert(shown.clone());
            }
            let (server, phase, place, ends) = (server.clone(), phase.clone(), place.clone(), ends.clone());
            // Boxed, so that the connection can be taken apart again.
            Box::pin(async move {
                let reply = super::answer(server, &ends, request, &place).await;
                *phase.lock() = Phase::Idle(Instant::now());
                Ok::<_, std::convert::Infallible>(reply)
            })
        })
    };
    let mut connection = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(io, service);
    let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    let mut stopped = std::pin::pin!(stop.cancelled());
    let mut left = std::pin::pin!(leave.cancelled());
    let mut stopping = false;
    let end = std::future::poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if !stopping && left.as_mut().poll(cx).is_ready() {
            // Another needs the place: at once if nothing goes on here, else when it is done.
            stopping = true;
            if !matches!(*phase.lock(), Phase::Asked) {
                return Poll::Ready(End::Idle);
            }
            Pin::new(&mut connection).graceful_shutdown();
        }
        if connection.poll_without_shutdown(cx).is_ready() {
            return Poll::Ready(End::Closed);
        }
        loop {
            let (due, end) = match *phase.lock() {
                Phase::Asked => return Poll::Pending,
                Phase::Head(since) => (since + Duration::from_secs(limits.request_secs), End::Slow),
                Phase::Idle(since) => (since + place.patience(), End::Idle),
            };
            if Instant::now() >= due {
                return Poll::Ready(end);
            }
            timer.as_mut().reset(due);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
    let mut stream = connection.into_parts().io.into_inner().stream;
    if let End::Slow = end {
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(TIMED_OUT)).await;
    }
    linger(stream).await;
}

/// Closes without losing our last bytes: a socket closed with unread input resets the connection, and
/// the reset may overtake the answer.
async fn linger(mut stream: impl Stream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.shutdown().await?;
        let (mut space, mut left) = ([0; 2048], 256 * 1024_usize);
        while left > 0 {
            match stream.read(&mut space).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_idle_in_the_end() {
        let since = Instant::now();
        let at = |secs| since + Duration::from_secs(secs);
        assert_eq!(earned(since, 1, at(100)), since + Duration::from_micros(61));
        assert_eq!(earned(since, 160 * 1024, at(100)), at(10));
        assert_eq!(earned(since, 160 * 1024, at(4)), at(4), "no time is saved up");
    }
}
