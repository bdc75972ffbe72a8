//! Time as the cores see it: milliseconds since an origin that only the shell knows.
//!
//! A `Moment` is 8 bytes, so tables of many thousand deadlines stay small, and a simulated world can
//! hand in its own time. Not here: reading a clock, calendar dates (those are Unix seconds).

use std::time::Duration;

/// A point in time: whole milliseconds since the shell's origin (its start). Monotonic, never wall clock.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `secs` seconds, or [`Moment::NEVER`] if that does not exist.
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus_millis(secs.saturating_mul(1000))
    }

    /// This moment plus `millis` milliseconds, or [`Moment::NEVER`] if that does not exist.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis_since(earlier))
    }
}
