//! Where all devices of a load stand: who waits, which message is on its way to whom, who was told when.
//!
//! Each device's task writes here through its [`Watcher`]; the commands read and wait.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use directpush_common::eas::ping::PingResponse;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};

use crate::{
    core::{News, Phone, Request, Response, Task},
    drive::Observer,
};

/// One message on its way to one device.
#[derive(Clone, Copy, Debug)]
pub struct Journey {
    /// The last byte of it was sent.
    pub sent: Instant,
    /// LMTP answered 250.
    pub acked: Option<Instant>,
    /// The Ping's answer was there to its last byte.
    pub woken: Option<Instant>,
    /// The message was on the device.
    pub synced: Option<Instant>,
}

impl Journey {
    fn is_over(&self) -> bool {
        self.acked.is_some() && self.woken.is_some() && self.synced.is_some()
    }
}

#[derive(Debug, Default)]
struct Slot {
    parked: bool,
    journey: Option<Journey>,
}

/// All devices.
#[derive(Debug)]
pub struct Board {
    slots: Mutex<Vec<Slot>>,
    finished: Mutex<Vec<Journey>>,
    under_way: AtomicUsize,
    /// Journeys under way whose device was not woken yet.
    asleep: AtomicUsize,
    /// Devices that hold all there is.
    pub ready: AtomicUsize,
    /// Pings that are out.
    pub parked: AtomicUsize,
    /// Devices that have stopped for good.
    pub stopped: AtomicUsize,
    /// Status 8, 503, lost connections.
    pub disturbances: AtomicU64,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// A board of so many devices.
    pub fn new(devices: usize) -> Arc<Self> {
        let mut slots = Vec::new();
        slots.resize_with(devices, Slot::default);
        Arc::new(Self {
            slots: Mutex::new(slots),
            finished: Mutex::default(),
            under_way: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            disturbances: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    /// Begins the journey of a message to `device`; false while another is on its way, or the device does not wait.
    pub fn begin(&self, device: usize) -> bool {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.get_mut(device).filter(|slot| slot.parked && slot.journey.is_none()) else {
            return false;
        };
        slot.journey = Some(Journey { sent: Instant::now(), acked: None, woken: None, synced: None });
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.asleep.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// LMTP answered: 250 at `acked`, or something else (`None`).
    pub fn acked(&self, device: usize, sent: Instant, acked: Option<Instant>) {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.get_mut(device) else { return };
        match acked {
            None => {
                if let Some(journey) = slot.journey.take() {
                    self.under_way.fetch_sub(1, Ordering::Relaxed);
                    self.asleep.fetch_sub(usize::from(journey.woken.is_none()), Ordering::Relaxed);
                }
            }
            Some(_) => {
                if let Some(journey) = &mut slot.journey {
                    (journey.sent, journey.acked) = (sent, acked);
                }
            }
        }
        self.settle(slot);
    }

    /// Takes the journeys that ended.
    pub fn take_finished(&self) -> Vec<Journey> {
        std::mem::take(&mut *lock(&self.finished))
    }

    /// Journeys that have not ended.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Journeys whose device was not woken yet.
    pub fn asleep(&self) -> usize {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Ends all journeys; returns how many were under way.
    pub fn give_up(&self) -> usize {
        let mut slots = lock(&self.slots);
        self.under_way.store(0, Ordering::Relaxed);
        self.asleep.store(0, Ordering::Relaxed);
        slots.iter_mut().filter_map(|slot| slot.journey.take()).count()
    }

    /// Waits until `done` or `until`; says whether it was `done`.
    pub async fn wait_for(&self, until: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(self) {
                return true;
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return done(self);
            }
        }
    }

    fn settle(&self, slot: &mut Slot) {
        if slot.journey.as_ref().is_some_and(Journey::is_over)
            && let Some(journey) = slot.journey.take()
        {
            lock(&self.finished).push(journey);
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    fn change(&self, device: usize, change: impl FnOnce(&mut Slot)) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get_mut(device) {
            change(slot);
            self.settle(slot);
        }
    }
}

/// One device's hand on the board.
pub struct Watcher {
    /// The board.
    pub board: Arc<Board>,
    /// Which device.
    pub device: usize,
    /// Its turn at getting prepared; given back when it is.
    pub turn: Option<OwnedSemaphorePermit>,
    /// Whether its Ping is out.
    pub parked: bool,
    /// Whether it was counted as ready.
    pub ready: bool,
}

impl Watcher {
    fn park(&mut self, parked: bool) {
        if self.parked != parked {
            self.parked = parked;
            let count = &self.board.parked;
            if parked {
                count.fetch_add(1, Ordering::Relaxed)
            } else {
                count.fetch_sub(1, Ordering::Relaxed)
            };
            self.board.change(self.device, |slot| slot.parked = parked);
            self.board.changed.notify_waiters();
        }
    }

    fn woken(&self, at: Instant) {
        let board = &self.board;
        board.change(self.device, |slot| {
            if let Some(journey) = slot.journey.as_mut().filter(|journey| journey.woken.is_none()) {
                journey.woken = Some(at);
                board.asleep.fetch_sub(1, Ordering::Relaxed);
            }
        });
        board.changed.notify_waiters();
    }

    fn disturbed(&self) {
        self.board.disturbances.fetch_add(1, Ordering::Relaxed);
    }
}

impl Observer for Watcher {
    fn ready(&mut self) {
        self.turn = None;
        if !self.ready {
            self.ready = true;
            self.board.ready.fetch_add(1, Ordering::Relaxed);
            self.board.changed.notify_waiters();
        }
    }

    fn sent(&mut self, _: &Phone, request: &Request) {
        if matches!(request.task, Task::Ping(_)) {
            self.turn = None;
            self.park(true);
        }
    }

    fn received(&mut self, at: Instant, request: &Request, response: &Response) {
        if response.status != 200 {
            self.disturbed();
        }
        if !matches!(request.task, Task::Ping(_)) {
            return;
        }
        match PingResponse::decode(&response.body, directpush_common::wbxml::Limits::default()) {
            Ok(PingResponse::Changed(_)) => self.woken(at),
            Ok(PingResponse::ServerError) => self.disturbed(),
            _ => {}
        }
        self.park(false);
    }

    fn applied(&mut self, _: &Phone, news: &[News]) {
        if news.iter().any(|news| matches!(news, News::Added { .. })) {
            let now = Instant::now();
            self.board.change(self.device, |slot| {
                if let Some(journey) = &mut slot.journey {
                    journey.synced.get_or_insert(now);
                }
            });
        }
    }

    fn lost(&mut self, request: &Request, _: &io::Error) {
        self.disturbed();
        if matches!(request.task, Task::Ping(_)) {
            self.park(false);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.park(false);
        self.board.stopped.fetch_add(1, Ordering::Relaxed);
        self.board.changed.notify_waiters();
    }
}
