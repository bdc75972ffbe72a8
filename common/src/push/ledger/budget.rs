//! How often a device may be woken: a budget for each device, kept over its Pings.
//!
//! A burst of mail would wake a phone for each message: it answers each Status 2 with a Sync and another Ping, and pays with its
//! battery. The budget is a token bucket (as a generic cell rate: one moment for each device, at which its bucket is full
//! again); a bucket that is full is forgotten, so memory is in proportion to the devices woken lately.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::{clock::Moment, names::DeviceKey};

/// The usual budget of a device: wakes per minute, and as many at once.
pub const WAKES_PER_MINUTE: u32 = 30;
/// Devices above which buckets that are full are looked for.
const SWEEP_MIN: usize = 1024;

/// The buckets of all devices. The default has no bound.
#[derive(Debug, Default)]
pub(super) struct WakeBudget {
    /// Milliseconds that one wake costs; 0 = nothing.
    cost: u64,
    /// Milliseconds' worth of wakes that may come at once.
    burst: u64,
    /// When each bucket is full again, by a keyed hash of the device. Two devices that share one share a budget.
    full_at: HashMap<u64, Moment>,
    hasher: RandomState,
    sweep_at: usize,
}

impl WakeBudget {
    pub(super) fn new(wakes_per_minute: u32) -> Self {
        let cost = 60_000_u64.checked_div(wakes_per_minute.into()).map_or(0, |cost| cost.max(1));
        Self { cost, burst: cost * u64::from(wakes_per_minute), ..Self::default() }
    }

    /// Takes one wake off the device's bucket; or says when there will be one.
    pub(super) fn spend(&mut self, now: Moment, mailbox: u64, device: &DeviceKey) -> Option<Moment> {
        if self.cost == 0 {
            return None;
        }
        let key = self.hasher.hash_one((mailbox, device));
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now).plus_millis(self.cost);
        if full_at.millis_since(now) > self.burst {
            return Some(Moment(full_at.0 - self.burst));
        }
        if self.full_at.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.full_at.shrink_to(SWEEP_MIN);
            self.sweep_at = self.full_at.len() * 2;
        }
        self.full_at.insert(key, full_at);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_spent_and_fills_again() {
        let device = |n: u32| DeviceKey::new("iPhone", &n.to_string()).unwrap();
        let mut budget = WakeBudget::new(30);
        let t = Moment(1_000);
        for _ in 0..30 {
            assert_eq!(budget.spend(t, 1, &device(1)), None);
        }
        assert_eq!(budget.spend(t, 1, &device(1)), Some(t.plus_secs(2)));
        assert_eq!(budget.spend(t, 1, &device(2)), None, "each device has its own");
        assert_eq!(budget.spend(t, 2, &device(1)), None, "and each mailbox");
        assert!(budget.spend(t.plus_millis(1_999), 1, &device(1)).is_some());
        assert_eq!(budget.spend(t.plus_secs(2), 1, &device(1)), None);
        assert!(budget.spend(t.plus_secs(2), 1, &device(1)).is_some());
    }

    #[test]
    fn no_budget_is_no_bound() {
        let device = DeviceKey::new("iPhone", "A").unwrap();
        let mut budget = WakeBudget::new(0);
        assert!((0..1_000).all(|_| budget.spend(Moment(5), 1, &device).is_none()));
        let mut budget = WakeBudget::new(u32::MAX);
        assert!((0..1_000).all(|_| budget.spend(Moment(5), 1, &device).is_none()));
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let mut budget = WakeBudget::new(60);
        for n in 0..10_000_u64 {
            let device = DeviceKey::new("iPhone", &n.to_string()).unwrap();
            assert_eq!(budget.spend(Moment(n * 10_000), 1, &device), None);
        }
        assert!(budget.full_at.len() <= SWEEP_MIN, "{}", budget.full_at.len());
    }
}
