//! What a load command measured, as a line of JSON and as words.

use std::{fmt, time::Duration};

use serde::Serialize;

/// The outcome of one command.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was done.
    pub phase: &'static str,
    /// Devices prepared or parked, messages delivered.
    pub changes: usize,
    /// Changes of which a device was not told, or that it did not get, in time. Must be 0.
    pub unanswered: usize,
    /// Messages that LMTP did not take.
    pub refused: usize,
    /// From the first to the last.
    pub took_secs: f64,
    /// From LMTP's 250 (read) to the last byte of the Ping's answer at the device.
    pub latency_us: Latency,
    /// From the message's last byte sent to the same: with the commit to disk.
    pub from_data_us: Latency,
    /// From LMTP's 250 to the message on the device, its Sync included.
    pub synced_us: Latency,
    /// Answers that were no wake: Status 8, 503, connections lost.
    pub disturbances: u64,
}

/// Microseconds; zero where nothing was measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half are not slower.
    pub p50: f64,
    /// 99 in a hundred are not slower.
    pub p99: f64,
    /// None is slower.
    pub max: f64,
}

impl Latency {
    /// Of these samples, in microseconds; the nearest rank.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            samples.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// Microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, max } = self;
        write!(f, "p50 {:.3} ms   p99 {:.3} ms   max {:.3} ms", p50 / 1e3, p99 / 1e3, max / 1e3)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, changes, unanswered, took_secs, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let per_sec = *changes as f64 / took_secs.max(1e-9);
        write!(f, "{phase:<10} {changes} in {took_secs:.2} s ({per_sec:.0}/s)")?;
        if self.latency_us.max > 0.0 || self.from_data_us.max > 0.0 {
            write!(f, "\n  250 → device        {}", self.latency_us)?;
            write!(f, "\n  last byte → device  {}", self.from_data_us)?;
            write!(f, "\n  250 → synced        {}", self.synced_us)?;
            write!(f, "\n  unanswered          {unanswered}")?;
        }
        if self.refused > 0 {
            write!(f, "\n  refused by LMTP     {}", self.refused)?;
        }
        if self.disturbances > 0 {
            write!(f, "\n  disturbances        {}", self.disturbances)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let shown = |samples| format!("{}", Latency::of(samples));
        let hundred: Vec<f64> = (1..=100).map(|n| f64::from(n) * 1e3).collect();
        assert_eq!(shown(hundred), "p50 50.000 ms   p99 99.000 ms   max 100.000 ms");
        assert_eq!(shown(vec![7000.0]), "p50 7.000 ms   p99 7.000 ms   max 7.000 ms");
        assert_eq!(shown(Vec::new()), "p50 0.000 ms   p99 0.000 ms   max 0.000 ms");
    }
}
