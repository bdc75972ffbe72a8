//! The lot: where the sockets of parked connections stand, watched for the device hanging up.
//!
//! tokio keeps 256 bytes for each socket that it watches. A parked socket is taken out of tokio's hands and watched here,
//! by an epoll instance of our own with a thread that sleeps in it: what is kept for a socket is the waker of its task.
//! Edge-triggered: a socket that was found readable is not reported again before more comes.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::task::Waker;
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use parking_lot::Mutex;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// What the thread is told when the lot closes; no spot has this number.
const CLOSED: Token = Token(usize::MAX);

/// All parked sockets of a server.
pub(super) struct Lot {
    registry: Registry,
    spots: Arc<Mutex<Spots>>,
    closed: mio::Waker,
}

/// A socket's place in the lot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Spot(u32);

#[derive(Default)]
struct Spots {
    /// Whom to wake; `None` = woken, or nobody's.
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Lot {
    /// An empty lot, watched for as long as it exists.
    ///
    /// # Errors
    /// When the system has no epoll instance or no thread to give.
    pub(super) fn open() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let closed = mio::Waker::new(&registry, CLOSED)?;
        let spots = Arc::<Mutex<Spots>>::default();
        let watched = Arc::clone(&spots);
        thread::Builder::new().name("parked".to_owned()).spawn(move || watch(poll, &watched))?;
        Ok(Self { registry, spots, closed })
    }

    /// Watches a socket on behalf of `waker`. What has come already stirs it at once.
    ///
    /// # Errors
    /// When the kernel has no room for one more.
    pub(super) fn enter(&self, socket: &impl AsFd, waker: &Waker) -> io::Result<Spot> {
        let spot = {
            let mut spots = self.spots.lock();
            if let Some(spot) = spots.free.pop() {
                spots.wakers[spot as usize] = Some(waker.clone());
                Spot(spot)
            } else {
                spots.wakers.push(Some(waker.clone()));
                Spot(u32::try_from(spots.wakers.len() - 1).expect("descriptors are bounded far below 2^32"))
            }
        };
        let token = Token(spot.0 as usize);
        let entered = self.registry.register(&mut SourceFd(&raw(socket)), token, Interest::READABLE);
        if entered.is_err() {
            self.vacate(spot);
        }
        entered.map(|()| spot)
    }

    /// Whether the socket has something to read since it was last asked; `waker` hears of more.
    pub(super) fn is_stirred(&self, spot: Spot, waker: &Waker) -> bool {
        let mut spots = self.spots.lock();
        let Some(known) = spots.wakers.get_mut(spot.0 as usize) else { return false };
        let stirred = known.is_none();
        match known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        stirred
    }

    /// Watches the socket no longer.
    pub(super) fn leave(&self, spot: Spot, socket: &impl AsFd) {
        // It fails for a socket that the kernel has dropped already: it is out either way.
        let _ = self.registry.deregister(&mut SourceFd(&raw(socket)));
        self.vacate(spot);
    }

    fn vacate(&self, spot: Spot) {
        let mut spots = self.spots.lock();
        spots.wakers[spot.0 as usize] = None;
        spots.free.push(spot.0);
    }
}

fn raw(socket: &impl AsFd) -> i32 {
    socket.as_fd().as_raw_fd()
}

impl Drop for Lot {
    fn drop(&mut self) {
        let _ = self.closed.wake();
    }
}

/// Wakes whoever's socket stirs. An event of a socket that has left since wakes its successor, who finds nothing.
fn watch(mut poll: Poll, spots: &Mutex<Spots>) {
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::error!(%error, "parked connections are no longer watched"),
            Ok(()) => {}
        }
        for event in &events {
            if event.token() == CLOSED {
                return;
            }
            let waker = spots.lock().wakers.get_mut(event.token().0).and_then(Option::take);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
