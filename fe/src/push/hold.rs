//! Holds: answers that are known already and given later.
//!
//! A Ping of a user without push waits for its heartbeat and nothing else; a device that repeats
//! a mistaken Ping at once is slowed down. A hold is a moment and a waker in one ordered map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use directpush_common::clock::Moment;

use super::Engine;

/// All holds of a front end.
#[derive(Debug, Default)]
pub struct Holds {
    due: BTreeMap<(Moment, u64), Option<Waker>>,
    next: u64,
    draining: bool,
}

impl Holds {
    fn open(&mut self, until: Moment) -> (Moment, u64) {
        self.next += 1;
        let key = (until, self.next);
        if !self.draining {
            self.due.insert(key, None);
        }
        key
    }

    /// Wakes what is due.
    pub(super) fn handle_time(&mut self, now: Moment) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                break;
            }
            if let Some(waker) = first.remove() {
                waker.wake();
            }
        }
    }

    /// Wakes all.
    pub(super) fn handle_drain(&mut self) {
        self.draining = true;
        self.handle_time(Moment::NEVER);
    }

    pub(super) fn deadline(&self) -> Moment {
        self.due.first_key_value().map_or(Moment::NEVER, |(key, _)| key.0)
    }
}

/// Why a hold ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// Its time has come.
    Over,
    /// The front end is stopping.
    Draining,
}

/// One hold; gone when dropped.
pub struct Hold {
    engine: Arc<Engine>,
    key: (Moment, u64),
}

impl Hold {
    /// Holds until `until`.
    pub fn new(engine: &Arc<Engine>, until: Moment) -> Self {
        let mut holds = engine.holds.lock();
        let key = holds.open(until);
        let deadline = holds.deadline();
        drop(holds);
        engine.set_timer(deadline);
        Self { engine: Arc::clone(engine), key }
    }

    /// Whether it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Held> {
        let mut holds = self.engine.holds.lock();
        if holds.draining {
            return Poll::Ready(Held::Draining);
        }
        match holds.due.get_mut(&self.key) {
            Some(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Held::Over),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.engine.holds.lock().due.remove(&self.key);
    }
}
