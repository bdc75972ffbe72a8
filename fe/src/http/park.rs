//! Parking: how a request handler gives its connection away while it waits.
//!
//! The handler finds a [`Seat`] among the request's extensions, hands it something that is
//! [`Parked`] and stays pending. The connection task then takes the socket back from hyper, drops
//! hyper, the router's future and everything the request held, and waits with that one box.
//! A Ping waits so; a hanging Sync can.
//!
//! Cancellation: when the device hangs up the box is dropped, and its `Drop` cleans up.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::{Ends, Reply};

/// Something that waits on a connection's behalf.
pub trait Parked: Send {
    /// The answer, once there is one; else keeps the waker for when there is.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply>;

    /// Told once after an answer: its status, and how many bytes went out, `None` when the
    /// device was gone before the last of them.
    fn answered(&mut self, ends: Ends, status: u16, sent: Option<usize>);
}

/// Where a handler puts what waits for it. One per connection and request, shared with the
/// connection task.
#[derive(Clone, Default)]
pub struct Seat(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    parked: Option<Box<dyn Parked>>,
    close: bool,
    unsent: Option<Box<dyn FnOnce() + Send>>,
}

impl Seat {
    /// Parks the connection: never returns, because the caller is dropped with hyper.
    pub async fn park(&self, parked: Box<dyn Parked>) -> Infallible {
        self.0.lock().parked = Some(parked);
        std::future::pending().await
    }

    /// Leaves word of what to do if the answer now being given cannot be written to its end.
    /// Forgotten as soon as the device asks for something else on this connection.
    pub fn if_unsent(&self, then: impl FnOnce() + Send + 'static) {
        self.0.lock().unsent = Some(Box::new(then));
    }

    /// A new request begins: `close` when the connection must not outlive its answer.
    pub(super) fn begin(&self, close: bool) {
        let mut inner = self.0.lock();
        inner.close = close;
        inner.unsent = None;
    }

    /// What the handler parked, and whether the connection closes after its answer.
    pub(super) fn take(&self) -> Option<(Box<dyn Parked>, bool)> {
        let mut inner = self.0.lock();
        let close = inner.close;
        inner.parked.take().map(|parked| (parked, close))
    }

    /// The connection broke: does what was left word of.
    pub(super) fn broke(&self) {
        let unsent = self.0.lock().unsent.take();
        if let Some(then) = unsent {
            then();
        }
    }
}
