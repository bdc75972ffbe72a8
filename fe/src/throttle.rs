//! Devices in a loop: how often one may ask, and for how long it is sent away that asks more often.
//!
//! Counted per device and minute. Who goes over a bound gets 503 with `Retry-After`, each time for twice as long; an hour of
//! manners makes it forgotten. A Sync that is repeated byte for byte counts apart: a first synchronisation may take hundreds,
//! each with another key, but who sends the same key again and again does not understand the answer.
//!
//! Not here: Pings that are answered at once (`eas::parked::guarded` slows these), failed log-ons (the back end does).

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use directpush_common::clock::Moment;
use directpush_common::eas::Command;
use parking_lot::Mutex;

/// Devices counted at once; more go uncounted until the minute is over.
const DEVICES_MAX: usize = 400_000;
/// After so long without going over a bound again, a device's next delay is the first again.
const FORGIVEN_SECS: u64 = 3600;

/// Requests of one device in a minute, at most; 0 = any number. And for how many seconds it is sent away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rates {
    /// Sync.
    pub syncs: u32,
    /// The same Sync, byte for byte.
    pub same_syncs: u32,
    /// FolderSync.
    pub folder_syncs: u32,
    /// Ping.
    pub pings: u32,
    /// All others together.
    pub others: u32,
    /// The first time.
    pub first_delay_secs: u32,
    /// However often.
    pub max_delay_secs: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            syncs: 300,
            same_syncs: 20,
            folder_syncs: 30,
            pings: 60,
            others: 600,
            first_delay_secs: 30,
            max_delay_secs: 3600,
        }
    }
}

impl Rates {
    /// No bound at all.
    pub fn unbounded() -> Self {
        Self { syncs: 0, same_syncs: 0, folder_syncs: 0, pings: 0, others: 0, ..Self::default() }
    }
}

/// Sent away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Away {
    /// For so many seconds.
    pub secs: u64,
    /// It went over a bound just now; else it came back too early.
    pub new: bool,
}

/// The counts of all devices.
pub struct Throttle {
    rates: Rates,
    table: Mutex<Table>,
    hasher: std::hash::RandomState,
}

#[derive(Default)]
struct Table {
    minute: u64,
    of: HashMap<u64, Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    syncs: u32,
    same_syncs: u32,
    folder_syncs: u32,
    pings: u32,
    others: u32,
    /// What the last Sync was, hashed.
    last_sync: u64,
    /// How often it was sent away of late.
    strikes: u32,
    until: Moment,
}

impl Seen {
    fn is_forgiven(&self, now: Moment) -> bool {
        self.strikes == 0 || now >= self.until.plus_secs(FORGIVEN_SECS)
    }
}

impl Throttle {
    /// Nobody has come yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, table: Mutex::default(), hasher: std::hash::RandomState::new() }
    }

    /// Counts a request of the device with this hash; `Some` = it is sent away. Provision never is: a wipe must get through.
    pub fn count(&self, device: u64, command: Command, body: &[u8], now: Moment) -> Option<Away> {
        if command == Command::Provision || self.rates == Rates::unbounded() {
            return None;
        }
        let mut table = self.table.lock();
        table.roll(now);
        if table.of.len() >= DEVICES_MAX && !table.of.contains_key(&device) {
            return None;
        }
        let seen = table.of.entry(device).or_default();
        if now < seen.until {
            let secs = seen.until.millis_since(now).div_ceil(1000).max(1);
            return Some(Away { secs, new: false });
        }
        if !self.is_over(seen, command, body) {
            return None;
        }
        if seen.is_forgiven(now) {
            seen.strikes = 0;
        }
        let delay = u64::from(self.rates.first_delay_secs) << seen.strikes.min(20);
        let secs = delay.min(u64::from(self.rates.max_delay_secs));
        *seen =
            Seen { strikes: seen.strikes.saturating_add(1), until: now.plus_secs(secs), ..Seen::default() };
        Some(Away { secs, new: true })
    }

    fn is_over(&self, seen: &mut Seen, command: Command, body: &[u8]) -> bool {
        let rates = &self.rates;
        let over = |count: &mut u32, most: u32| {
            *count += 1;
            most != 0 && *count > most
        };
        match command {
            Command::Sync => {
                // An empty one repeats the request before, and is answered when there is something.
                let this = self.hasher.hash_one(body);
                let same = !body.is_empty() && std::mem::replace(&mut seen.last_sync, this) == this;
                if !same {
                    seen.same_syncs = 0;
                }
                over(&mut seen.syncs, rates.syncs) | over(&mut seen.same_syncs, rates.same_syncs)
            }
            Command::FolderSync => over(&mut seen.folder_syncs, rates.folder_syncs),
            Command::Ping => over(&mut seen.pings, rates.pings),
            _ => over(&mut seen.others, rates.others),
        }
    }
}

impl Table {
    /// Begins a new minute, if there is one.
    fn roll(&mut self, now: Moment) {
        let minute = now.0 / 60_000;
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        self.of.retain(|_, seen| !seen.is_forgiven(now));
        self.of.values_mut().for_each(|seen| {
            *seen = Seen { strikes: seen.strikes, until: seen.until, ..Seen::default() };
        });
        self.of.shrink_to(1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> Throttle {
        Throttle::new(Rates { syncs: 10, same_syncs: 3, ..Rates::default() })
    }

    #[test]
    fn a_device_in_a_loop_is_sent_away_for_longer_each_time_and_forgiven_after_an_hour() {
        let throttle = throttle();
        let mut now = Moment(60_000);
        for expected in [30, 60, 120] {
            let away = (0..).find_map(|_| throttle.count(1, Command::Sync, b"same", now)).unwrap();
            assert_eq!(away, Away { secs: expected, new: true });
            let early = throttle.count(1, Command::Ping, b"", now.plus_secs(expected - 1));
            assert_eq!(
                early,
                Some(Away { secs: 1, new: false }),
                "it came back too early, which costs no more"
            );
            now = now.plus_secs(expected);
        }
        now = now.plus_secs(FORGIVEN_SECS + 120);
        let away = (0..).find_map(|_| throttle.count(1, Command::Sync, b"same", now)).unwrap();
        assert_eq!(away.secs, 30);
    }

    #[test]
    fn a_first_synchronisation_and_other_devices_are_not_in_a_loop() {
        let throttle = throttle();
        for key in 0..10_u8 {
            assert_eq!(throttle.count(1, Command::Sync, &[key], Moment(0)), None);
        }
        assert!(throttle.count(1, Command::Sync, b"one more", Moment(0)).is_some());
        assert_eq!(throttle.count(2, Command::Sync, b"one more", Moment(0)), None);
        assert_eq!(throttle.count(1, Command::Provision, b"", Moment(0)), None);
        assert_eq!(throttle.count(3, Command::FolderSync, b"", Moment(0)), None);
    }

    #[test]
    fn a_minute_later_the_count_begins_anew_and_nought_is_no_bound() {
        let throttle = throttle();
        for minute in 0..5 {
            for key in 0..10_u8 {
                assert_eq!(throttle.count(1, Command::Sync, &[key], Moment(minute * 60_000)), None);
            }
        }
        let unbounded = Throttle::new(Rates::unbounded());
        assert!((0..10_000).all(|_| unbounded.count(1, Command::Sync, b"", Moment(0)).is_none()));
    }

    #[test]
    fn the_delay_has_an_end() {
        let throttle = throttle();
        let mut now = Moment(0);
        for _ in 0..40 {
            let away = (0..).find_map(|_| throttle.count(1, Command::Sync, b"same", now)).unwrap();
            assert!(away.secs <= 3600);
            now = now.plus_secs(away.secs);
        }
    }
}
