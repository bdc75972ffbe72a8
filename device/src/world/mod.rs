//! A simulated world: phones, front ends and a back end in virtual time, on a network that may do anything.
//!
//! The phones are `core::Phone`; the front end decides with `common::push::routing` and `common::sync`, the
//! back end with `common::push::ledger` over a mailbox in memory. What is simulated is what lies between
//! them: delay, loss, repetition and reordering of datagrams, broken connections, partitions, restarts. Time is
//! tokio's, paused: it jumps from one event to the next, so that an hour takes milliseconds. A seed gives a course.
//!
//! Not here: the shells of the real servers; the whole-system tests run those.

mod backend;
mod device;
mod frontend;
mod mailbox;
mod network;
mod ping;
mod sync;
mod tests;

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use directpush_common::{change::Cause, change::Maker, clock::Moment, names::FolderId, names::Guid};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

use self::{backend::Backend, device::Device, frontend::Frontend, network::Network};
use crate::core::Profile;

/// The day on which every world begins, in Unix seconds.
const DAWN_SECS: i64 = 1_700_000_000;
/// Seconds between two POLLs.
pub(crate) const POLL_SECS: u32 = 60;
/// The Inbox's counter within each mailbox; it is the first of [`FOLDERS`].
pub(crate) const INBOX: u64 = 2;
/// Counters of the mail folders of each mailbox.
pub(crate) const FOLDERS: [u64; 2] = [INBOX, 3];

/// Everything there is.
pub(crate) struct World {
    pub(crate) net: Rc<Network>,
    pub(crate) backend: Rc<Backend>,
    fronts: Vec<RefCell<Option<Rc<Frontend>>>>,
    pub(crate) devices: RefCell<Vec<Rc<Device>>>,
    pub(crate) change_delay: u32,
    origin: Instant,
}

/// Runs a course of events with a world of this seed, in virtual time.
pub(crate) fn run<F: Future<Output = ()>>(seed: u64, fronts: usize, course: impl FnOnce(Rc<World>) -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let net = Rc::new(Network::new(seed));
        let origin = Instant::now();
        let world = Rc::new(World {
            backend: Backend::new(Rc::clone(&net), origin),
            net,
            fronts: (0..fronts).map(|_| RefCell::new(None)).collect(),
            devices: RefCell::default(),
            change_delay: 300,
            origin,
        });
        backend::listen(&world);
        for front in 0..fronts {
            world.start_front(front);
        }
        course(Rc::clone(&world)).await;
    });
}

impl World {
    pub(crate) fn now(&self) -> Moment {
        moment(self.origin)
    }

    pub(crate) fn unix_secs(&self) -> i64 {
        DAWN_SECS + i64::try_from(self.now().0 / 1000).unwrap()
    }

    pub(crate) fn front(&self, front: usize) -> Option<Rc<Frontend>> {
        self.fronts[front].borrow().clone()
    }

    pub(crate) fn fronts(&self) -> usize {
        self.fronts.len()
    }

    /// Starts a front end process, with a new GUID.
    pub(crate) fn start_front(self: &Rc<Self>, front: usize) {
        *self.fronts[front].borrow_mut() = Some(Frontend::start(self, front));
    }

    /// Kills a front end process: every connection breaks, and nobody says goodbye.
    pub(crate) fn kill_front(&self, front: usize) {
        if let Some(front) = self.fronts[front].borrow_mut().take() {
            front.dead.cancel();
        }
    }

    /// A device of the mailbox `mailbox` that connects to front end 0.
    pub(crate) fn device(self: &Rc<Self>, mailbox: usize, profile: Profile) -> Rc<Device> {
        let device = Device::start(self, mailbox, profile);
        self.devices.borrow_mut().push(Rc::clone(&device));
        device
    }

    /// Mail comes in. Returns when it is durable.
    pub(crate) fn deliver(&self, mailbox: usize, folder: u64, subject: &str) -> Moment {
        self.deliver_dated(mailbox, folder, subject, self.unix_secs())
    }

    /// An item with another date of receipt.
    pub(crate) fn deliver_dated(&self, mailbox: usize, folder: u64, subject: &str, date: i64) -> Moment {
        let maker = Maker::of(Cause::Delivery);
        self.backend.change(mailbox, folder, |found| Some(found.add(date, subject, maker)));
        self.now()
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, secs: u64) {
        sleep(Duration::from_secs(secs)).await;
    }

    /// Lets time pass until `done`; says how long it took, at most `secs`.
    pub(crate) async fn pass_until(&self, secs: u64, done: impl Fn() -> bool) -> Option<Duration> {
        let begun = Instant::now();
        let tick = Duration::from_millis((secs * 2).clamp(20, 1000));
        while !done() {
            if begun.elapsed() >= Duration::from_secs(secs) {
                return None;
            }
            sleep(tick).await;
        }
        Some(begun.elapsed())
    }
}

pub(crate) fn moment(origin: Instant) -> Moment {
    Moment(u64::try_from(origin.elapsed().as_millis()).unwrap())
}

/// A folder's server id.
pub(crate) fn folder_id(counter: u64) -> FolderId {
    FolderId { installation: Guid([7; 16]), counter }
}
