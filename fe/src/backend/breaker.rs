//! When a back end that answers too late is left alone: Exchange's events 3007 and 3014.
//!
//! A pure decision. Only time-outs count: a refused connection costs nothing to find out, and a
//! back end that restarts must be found again at once.

use directpush_common::clock::Moment;

/// Time-outs in a row after which the back end is protected.
pub const TIMEOUTS_MAX: u32 = 5;
/// For how long it gets no request, in seconds (the text of event 3014).
pub const PROTECTED_SECS: u64 = 60;

/// The judgement on one back end.
#[derive(Debug, Default)]
pub struct Breaker {
    timeouts: u32,
    protected_until: Option<Moment>,
}

impl Breaker {
    /// Whether a request may be sent now.
    pub fn allows(&self, now: Moment) -> bool {
        self.protected_until.is_none_or(|until| now >= until)
    }

    /// An answer came in time: the back end is well.
    pub fn handle_answer(&mut self) {
        *self = Self::default();
    }

    /// No answer came in time. True when the back end is protected from now on (event 3014).
    pub fn handle_timeout(&mut self, now: Moment) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        if self.timeouts < TIMEOUTS_MAX || !self.allows(now) {
            return false;
        }
        self.protected_until = Some(now.plus_secs(PROTECTED_SECS));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_timeouts_protects_for_a_minute_and_an_answer_ends_it() {
        let (mut breaker, t0) = (Breaker::default(), Moment(0));
        for _ in 1..TIMEOUTS_MAX {
            assert!(!breaker.handle_timeout(t0));
        }
        assert!(breaker.allows(t0));
        assert!(breaker.handle_timeout(t0), "this one protects");
        assert!(!breaker.handle_timeout(t0), "said once");
        assert!(!breaker.allows(t0.plus_secs(59)));
        assert!(breaker.allows(t0.plus_secs(60)));
        breaker.handle_answer();
        assert!(breaker.allows(t0) && !breaker.handle_timeout(t0));
    }
}
