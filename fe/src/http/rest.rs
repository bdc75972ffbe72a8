//! A connection between two requests: a socket, a timer, and nothing of hyper.
//!
//! Phones keep their connection for the next Ping, so that between Sync and Ping as many of them rest as
//! there are devices. The first bytes of a request end the rest; then the connection waits for its turn, while the
//! remainder of the request lies in the kernel.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::connection::Open;
use super::{Seat, Stream};

/// Bytes taken to see that a request begins.
const FIRST_BYTES_MAX: usize = 64;

/// A connection on which a request has begun.
pub(super) struct Begun<S> {
    pub(super) stream: S,
    pub(super) early: Bytes,
    /// Holds what is to be done if the last answer did not arrive.
    pub(super) seat: Seat,
    /// Its place among the requests under way.
    pub(super) turn: Option<OwnedSemaphorePermit>,
    pub(super) open: Open,
}

/// What ends a rest.
pub(super) enum Rested<S> {
    Begun(Begun<S>),
    /// Nothing was asked for too long, or the server drains.
    Closing(S, Open),
    Gone,
}

/// Rests until a request begins and has its turn.
pub(super) async fn rest<S: Stream>(mut stream: S, mut early: Bytes, seat: Seat, open: Open) -> Rested<S> {
    let server = &*open;
    if early.is_empty() {
        let first = tokio::select! {
            biased;
            first = timeout(server.patience.idle, first_bytes(&mut stream)) => first.ok(),
            () = server.drain.cancelled() => None,
        };
        match first {
            Some(Ok(bytes)) if bytes.is_empty() => return Rested::Gone,
            Some(Ok(bytes)) => early = bytes,
            Some(Err(_)) => {
                seat.broke();
                return Rested::Gone;
            }
            None => return Rested::Closing(stream, open),
        }
    }
    let turn = Arc::clone(&server.turns).acquire_owned().await.ok();
    Rested::Begun(Begun { stream, early, seat, turn, open })
}

/// The first bytes of a request; none at the end of the stream.
async fn first_bytes<S: Stream>(stream: &mut S) -> io::Result<Bytes> {
    std::future::poll_fn(|cx| {
        // Not in the future: it is paid while the connection rests.
        let mut space = [0; FIRST_BYTES_MAX];
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buf.filled())))
    })
    .await
}
