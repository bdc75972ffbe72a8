//! A group of subscriptions: one Ping, from its first SUBSCRIBE to its UNSUBSCRIBE, and when it is to be told.

use smallvec::SmallVec;

use super::super::wake::Wake;
use crate::{
    clock::Moment,
    dav::subscribe::{DELAY_NEVER, DeviceEvent},
    names::{DeviceKey, Guid},
    numbers::Number,
};

/// One folder of a group. 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) base: Number,
    pub(super) floor: i64,
    pub(super) folder: u64,
    pub(super) id: u32,
    pub(super) level: Wake,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) guid: Guid,
    pub(super) device: DeviceKey,
    pub(super) mailbox: u64,
    pub(super) subscriptions: SmallVec<[Subscription; 1]>,
    pub(super) expires: Moment,
    pub(super) due: Moment,
    pub(super) delay_secs: u32,
    pub(super) call_back: u16,
    pub(super) datagrams: u8,
    pub(super) event: Option<DeviceEvent>,
    pub(super) telling: Option<Box<Telling>>,
}

/// A group with something to tell, now or when its delay has passed.
#[derive(Debug)]
pub(super) struct Telling {
    /// When changes that may wait have waited long enough.
    pub(super) later: Moment,
    /// When the next NOTIFY is due.
    pub(super) next: Moment,
    /// NOTIFYs of this series so far.
    pub(super) sent: u8,
}

impl Group {
    /// Whether something is to be told at once.
    pub(super) fn counts(&self) -> bool {
        self.event.is_some() || self.subscriptions.iter().any(|s| s.level == Wake::Now)
    }

    /// Starts a series of NOTIFYs, unless one is still running.
    pub(super) fn tell_at(&mut self, now: Moment) {
        let telling = self.telling.get_or_insert_with(Box::default);
        if telling.next == Moment::NEVER {
            telling.next = now;
            telling.sent = 0;
        }
    }

    /// Starts the delay, unless it runs already: changes are gathered from the first one on.
    pub(super) fn wait_for_delay(&mut self, now: Moment) {
        if self.delay_secs == DELAY_NEVER {
            return;
        }
        let later = now.plus_secs(u64::from(self.delay_secs));
        let telling = self.telling.get_or_insert_with(Box::default);
        telling.later = telling.later.min(later);
    }

    /// What would count now waits until `until`, as the device was woken often enough.
    pub(super) fn hold(&mut self, until: Moment) {
        let telling = self.telling.get_or_insert_with(Box::default);
        telling.later = telling.later.min(until);
    }

    /// Whether changes have waited long enough, so that they are to be told.
    pub(super) fn is_ripe(&self, now: Moment) -> bool {
        self.telling.as_ref().is_some_and(|telling| telling.later <= now)
            && self.subscriptions.iter().any(|s| s.level == Wake::Later)
    }

    /// Turns changes that have waited long enough into changes to be told.
    pub(super) fn ripen(&mut self, now: Moment) {
        let ripe = self.is_ripe(now);
        if let Some(telling) = self.telling.as_mut().filter(|telling| telling.later <= now) {
            telling.later = Moment::NEVER;
        }
        if ripe {
            for subscription in self.subscriptions.iter_mut().filter(|s| s.level == Wake::Later) {
                subscription.level = Wake::Now;
            }
            self.tell_at(now);
        }
    }

    /// Puts the end of the delay off until `until`.
    pub(super) fn put_off(&mut self, until: Moment) {
        if let Some(telling) = self.telling.as_mut() {
            telling.later = until;
        }
    }

    /// The front end was heard about this group: repetitions end; what counts stays a level.
    pub(super) fn acknowledge(&mut self) {
        let waiting = self.subscriptions.iter().any(|s| s.level == Wake::Later);
        match self.telling.as_mut() {
            Some(telling) if waiting && telling.later != Moment::NEVER => telling.next = Moment::NEVER,
            _ => self.telling = None,
        }
    }

    pub(super) fn next_due(&self) -> Moment {
        let telling = self.telling.as_ref().map_or(Moment::NEVER, |telling| telling.later.min(telling.next));
        self.expires.min(telling)
    }
}

impl Default for Telling {
    fn default() -> Self {
        Self { later: Moment::NEVER, next: Moment::NEVER, sent: 0 }
    }
}
