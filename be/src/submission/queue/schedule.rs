//! When the queue does what: pure decisions over Unix seconds.
//!
//! [`Times`] spaces the attempts of one message (RFC 5321 4.5.4.1: at least 30 minutes later on, give up
//! after 4 to 5 days). [`HostHealth`] holds the whole queue back while the smart host cannot be reached,
//! so that a thousand messages do not knock a thousand times.
//!
//! Not here: clocks, and what an attempt is.

/// Seconds before the second, third, … attempt; the last one repeats.
const DELAYS: [u64; 5] = [60, 300, 900, 1800, 3600];
/// Seconds for which a host that cannot be reached is left alone after the first, second, … failure in a
/// row; the last one repeats.
const PAUSES: [u64; 5] = [15, 30, 60, 120, 300];

/// How long a message is tried, and when its sender hears of a delay.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A message still waiting after so many seconds is given up.
    pub queue_secs: u64,
    /// A message still waiting after so many seconds is worth one warning to its sender.
    pub warn_secs: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { queue_secs: 5 * 86_400, warn_secs: 4 * 3600 }
    }
}

impl Times {
    /// When to try again after `attempts` failed ones, the last just now. `chance` is in 0..1 and spreads
    /// messages that failed together over a tenth of the delay.
    pub fn next_attempt(attempts: u32, now: u64, chance: f64) -> u64 {
        let at = (attempts.max(1) as usize - 1).min(DELAYS.len() - 1);
        let delay = DELAYS[at];
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 360 seconds"
        )]
        let spread = (delay as f64 / 10.0 * chance.clamp(0.0, 1.0)) as u64;
        now + delay + spread
    }

    /// A stored time of the next attempt, as it counts now: one that lies further ahead than any delay
    /// was written under a clock that was wrong.
    pub fn plausible(next: u64, now: u64) -> u64 {
        let longest = DELAYS[DELAYS.len() - 1];
        if next > now + 2 * longest { now } else { next }
    }

    /// Whether a message accepted at `accepted` is to be given up once an attempt has failed.
    pub fn is_over(&self, accepted: u64, now: u64) -> bool {
        now.saturating_sub(accepted) >= self.queue_secs
    }

    /// When the sender is to be warned.
    pub fn warn_at(&self, accepted: u64) -> u64 {
        accepted.saturating_add(self.warn_secs)
    }
}

/// Whether the smart host answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostHealth {
    failures: u32,
    until: u64,
}

impl HostHealth {
    /// No connection could be made, or it was of no use.
    pub fn handle_failure(&mut self, now: u64) {
        let at = (self.failures as usize).min(PAUSES.len() - 1);
        self.failures = self.failures.saturating_add(1);
        self.until = now + PAUSES[at];
    }

    /// A transaction took place, whatever became of it.
    pub fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether one more attempt may begin while `in_flight` are under way: not during the pause, and
    /// after it one alone must show that the host is back.
    pub fn may_start(&self, now: u64, in_flight: usize) -> bool {
        self.failures == 0 || (now >= self.until && in_flight == 0)
    }

    /// When [`HostHealth::may_start`] should be asked again, if it said no because of the pause.
    pub fn deadline(&self) -> Option<u64> {
        (self.failures > 0).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_apart_to_an_hour() {
        let delays: Vec<u64> = (1..8).map(|attempts| Times::next_attempt(attempts, 0, 0.0)).collect();
        assert_eq!(delays, [60, 300, 900, 1800, 3600, 3600, 3600]);
        assert_eq!(Times::next_attempt(5, 100, 1.0), 100 + 3600 + 360);
        assert_eq!(Times::next_attempt(0, 0, f64::NAN), 60);
    }

    #[test]
    fn a_message_is_given_up_after_its_days_and_not_before() {
        let times = Times::default();
        assert!(!times.is_over(1000, 1000 + 5 * 86_400 - 1));
        assert!(times.is_over(1000, 1000 + 5 * 86_400));
        // A clock that went back gives nothing up.
        assert!(!times.is_over(1000, 10));
    }

    #[test]
    fn a_time_written_by_a_wrong_clock_is_now() {
        assert_eq!(Times::plausible(90_000, 100), 100);
        assert_eq!(Times::plausible(3_800, 100), 3_800);
    }

    #[test]
    fn a_host_that_is_down_is_asked_by_one_message_at_a_time() {
        let mut health = HostHealth::default();
        assert!(health.may_start(0, 3));
        health.handle_failure(100);
        assert!(!health.may_start(114, 0));
        assert!(health.may_start(115, 0));
        assert!(!health.may_start(115, 1));
        health.handle_failure(115);
        assert_eq!(health.deadline(), Some(145));
        for _ in 0..10 {
            health.handle_failure(1000);
        }
        assert_eq!(health.deadline(), Some(1300));
        health.handle_success();
        assert!(health.may_start(0, 3));
        assert_eq!(health.deadline(), None);
    }
}
