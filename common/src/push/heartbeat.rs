//! Heartbeat intervals: what is granted, and the average that tells of a short-lived network path.
//!
//! The bounds and their defaults are the article's: 60 s, 2700 s, and never above 59 minutes because a
//! subscription lives 60. Event 3033 comes from a sliding window of the intervals that devices asked for.
//! What counts as a sample: every interval granted to a Ping that goes on to wait or to find a change, whether
//! it came in the body or from AutdState; a refused interval (Status 5) and a Ping that fails for another reason do not.

/// Longest heartbeat that can be configured, in seconds: 59 minutes.
pub const HEARTBEAT_SECS_CAP: u32 = 3540;
/// `min_heartbeat_interval` unless configured, in seconds.
pub const MIN_HEARTBEAT_SECS: u32 = 60;
/// `max_heartbeat_interval` unless configured, in seconds.
pub const MAX_HEARTBEAT_SECS: u32 = 2700;

/// The bounds of the heartbeat interval, in seconds: 1 ≤ min ≤ max ≤ [`HEARTBEAT_SECS_CAP`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeartbeatLimits {
    min: u32,
    max: u32,
}

/// An interval outside the bounds: Status 5 with the nearest one ([MS-ASCMD] 2.2.3.177.11 Status (Ping)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutOfRange {
    /// The nearest interval allowed, in seconds.
    pub nearest: u32,
}

impl Default for HeartbeatLimits {
    fn default() -> Self {
        Self { min: MIN_HEARTBEAT_SECS, max: MAX_HEARTBEAT_SECS }
    }
}

impl HeartbeatLimits {
    /// The bounds as configured, the upper one capped at 59 minutes; `None` when they contradict each other
    /// (event 3016: the defaults are used for both).
    pub fn new(min: u32, max: u32) -> Option<Self> {
        let max = max.min(HEARTBEAT_SECS_CAP);
        (1..=max).contains(&min).then_some(Self { min, max })
    }

    /// Shortest interval, in seconds.
    pub fn min(self) -> u32 {
        self.min
    }

    /// Longest interval, in seconds.
    pub fn max(self) -> u32 {
        self.max
    }

    /// Grants what a device asks for. It is never silently changed.
    ///
    /// # Errors
    /// [`OutOfRange`] with the nearest interval allowed.
    pub fn grant(self, asked: i64) -> Result<u32, OutOfRange> {
        match u32::try_from(asked) {
            Ok(asked) if (self.min..=self.max).contains(&asked) => Ok(asked),
            Ok(asked) if asked > self.max => Err(OutOfRange { nearest: self.max }),
            Err(_) if asked > 0 => Err(OutOfRange { nearest: self.max }),
            _ => Err(OutOfRange { nearest: self.min }),
        }
    }
}

/// The sliding window behind event 3033.
#[derive(Debug)]
pub struct Sampler {
    window: Vec<u16>,
    size: usize,
    next: usize,
    sum: u64,
    threshold: u32,
    quiet: usize,
}

impl Sampler {
    /// A window of `size` samples (`hbi_sample_size`, at least 1) that raises at an average of `threshold`
    /// seconds (`hbi_alert_threshold`) or less.
    pub fn new(size: usize, threshold: u32) -> Self {
        let size = size.max(1);
        Self { window: Vec::new(), size, next: 0, sum: 0, threshold, quiet: 0 }
    }

    /// Records a granted interval in seconds. Returns the average when event 3033 is to be logged: the window is
    /// full, the average is at or below the threshold, and a whole window has passed since the last time.
    pub fn handle_sample(&mut self, secs: u32) -> Option<u32> {
        let sample = u16::try_from(secs).unwrap_or(u16::MAX);
        if self.window.len() < self.size {
            self.window.push(sample);
        } else {
            self.sum -= u64::from(self.window[self.next]);
            self.window[self.next] = sample;
        }
        self.next = (self.next + 1) % self.size;
        self.sum += u64::from(sample);
        self.quiet = self.quiet.saturating_sub(1);
        let average = self.average()?;
        if average > self.threshold || self.quiet > 0 {
            return None;
        }
        self.quiet = self.size;
        Some(average)
    }

    /// The average of a full window in whole seconds, rounded down.
    pub fn average(&self) -> Option<u32> {
        let full = self.window.len() == self.size;
        full.then(|| u32::try_from(self.sum / self.size as u64).unwrap_or(u32::MAX))
    }

    /// Samples in the window.
    pub fn samples(&self) -> usize {
        self.window.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_out_of_range_is_answered_with_the_nearest_bound() {
        let limits = HeartbeatLimits::default();
        assert_eq!(limits.grant(60), Ok(60));
        assert_eq!(limits.grant(2700), Ok(2700));
        for short in [-100, 0, 59, i64::MIN] {
            assert_eq!(limits.grant(short), Err(OutOfRange { nearest: 60 }), "{short}");
        }
        for long in [2701, 6_000_000, i64::MAX] {
            assert_eq!(limits.grant(long), Err(OutOfRange { nearest: 2700 }), "{long}");
        }
    }

    #[test]
    fn contradicting_bounds_are_refused_and_59_minutes_is_the_cap() {
        assert_eq!(HeartbeatLimits::new(61, 60), None);
        assert_eq!(HeartbeatLimits::new(0, 60), None);
        assert_eq!(HeartbeatLimits::new(3541, 9999), None);
        assert_eq!(HeartbeatLimits::new(1, 9999).unwrap().max(), 3540);
    }

    #[test]
    fn the_alert_needs_a_full_window_and_comes_once_per_window() {
        let mut sampler = Sampler::new(3, 540);
        assert_eq!([540, 540].map(|s| sampler.handle_sample(s)), [None, None]);
        assert_eq!(sampler.handle_sample(540), Some(540), "at the threshold counts");
        assert_eq!([1, 1].map(|s| sampler.handle_sample(s)), [None, None]);
        assert_eq!(sampler.handle_sample(1), Some(1));
        let mut long = Sampler::new(2, 540);
        assert_eq!([540, 543, 540].map(|s| long.handle_sample(s)), [None, None, None]);
        assert_eq!(long.average(), Some(541));
    }
}
