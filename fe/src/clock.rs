//! The front end's clock: the only place that turns tokio's time into the cores' [`Moment`].

use directpush_common::clock::Moment;
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds since this front end started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now(self) -> Moment {
        Moment(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The instant at which a moment is over, so that a core asked then finds it passed.
    pub fn instant(self, moment: Moment) -> Instant {
        self.0 + Duration::from_millis(moment.0.min(u64::from(u32::MAX) * 1000))
    }
}
