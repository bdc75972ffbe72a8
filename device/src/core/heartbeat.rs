//! How a device finds the longest heartbeat that its network bears: one strategy per kind of phone.
//!
//! Networks forget idle connections after a time that nobody tells the phone; a heartbeat longer than that
//! is lost mail, a shorter one is lost battery. Each strategy raises its interval while Pings come back and
//! lowers it when one does not. Sources: TechNet "Heartbeat Interval Adjustment" and the article's comments for
//! Windows Mobile, Android's published sources for the other two.
//!
//! Not here: the Ping itself, and when a failed one is repeated (`phone`).

use std::{fmt, str::FromStr, time::Duration};

/// A way to choose the heartbeat interval. All intervals are whole seconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    kind: Kind,
    interval: u32,
    min: u32,
    max: u32,
    /// The last interval was a rise that has not proved itself yet: the one before it.
    before_rise: Option<u32>,
    /// The longest interval that ever came back.
    high_water: u32,
    /// It was lowered once: never raise again.
    dropped: bool,
}

/// The strategies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Windows Mobile: 480 s, steps of 300 s, back to the last good value or to the minimum.
    WindowsMobile,
    /// Android from 2013 on (`EasPing`): 480 to 1680 s in steps of 300 s, stored for the account.
    Android,
    /// Android before (`EasSyncService`): 470 s, steps of 180 s, never up again once it went down.
    OldAndroid,
    /// Always the same interval, but what the server's bounds make of it.
    Fixed(u32),
}

impl Kind {
    /// Start, minimum, maximum and step. Windows Mobile's factory bounds are not published; the server's
    /// defaults stand in for them.
    const fn numbers(self) -> (u32, u32, u32, u32) {
        match self {
            Self::WindowsMobile => (480, 60, 2700, 300),
            Self::Android => (480, 480, 1680, 300),
            Self::OldAndroid => (470, 290, 1010, 180),
            Self::Fixed(secs) => (secs, secs, secs, 0),
        }
    }

    /// Seconds beyond the heartbeat after which the device gives up on an answer.
    pub const fn grace_secs(self) -> u64 {
        match self {
            // Its socket's timeout.
            Self::Android => 5,
            // Its watchdog alarm.
            Self::OldAndroid => 30,
            Self::WindowsMobile | Self::Fixed(_) => 15,
        }
    }

    /// Whether a Ping whose parameters did not change is sent without a body.
    pub const fn sends_empty_pings(self) -> bool {
        matches!(self, Self::WindowsMobile)
    }

    /// Whether a Ping that was answered with trouble (Status 3, 4, 8) is repeated without any delay, as
    /// Android's `PingParser.shouldPingAgain` does.
    pub const fn is_eager(self) -> bool {
        matches!(self, Self::Android | Self::OldAndroid)
    }
}

impl FromStr for Kind {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        match text {
            "windows-mobile" => Ok(Self::WindowsMobile),
            "android" => Ok(Self::Android),
            "old-android" => Ok(Self::OldAndroid),
            _ => {
                let secs = text.strip_prefix("fixed:").and_then(|secs| secs.parse().ok());
                secs.filter(|&secs| secs > 0).map(Self::Fixed).ok_or(UnknownStrategy)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowsMobile => f.write_str("windows-mobile"),
            Self::Android => f.write_str("android"),
            Self::OldAndroid => f.write_str("old-android"),
            Self::Fixed(secs) => write!(f, "fixed:{secs}"),
        }
    }
}

/// Not a strategy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a strategy is windows-mobile, android, old-android or fixed:<seconds>")]
pub struct UnknownStrategy;

impl Heartbeat {
    /// The strategy at its start.
    pub fn new(kind: Kind) -> Self {
        let (interval, min, max, _) = kind.numbers();
        Self { kind, interval, min, max, before_rise: None, high_water: 0, dropped: false }
    }

    /// Which strategy it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to ask for in the next Ping, in seconds.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// Status 1: the network bore the interval. (Status 2 ends a Ping early and says nothing of the network.)
    pub fn handle_expired(&mut self) {
        self.high_water = self.high_water.max(self.interval);
        self.before_rise = None;
        let (_, _, _, step) = self.kind.numbers();
        let higher = self.interval.saturating_add(step).min(self.max);
        if higher > self.interval && !self.dropped {
            self.before_rise = Some(self.interval);
            self.interval = higher;
        }
    }

    /// Status 5: the server's nearest bound, in seconds. It holds from now on.
    pub fn handle_bound(&mut self, legal: u32) {
        if legal > self.interval {
            self.min = legal;
            self.max = self.max.max(legal);
        } else {
            self.max = legal;
            self.min = self.min.min(legal);
        }
        self.interval = legal;
        self.before_rise = None;
        self.dropped = false;
    }

    /// The connection was lost, or no answer came, `lasted` after the Ping was sent.
    pub fn handle_lost(&mut self, lasted: Duration) {
        match self.kind {
            Kind::Fixed(_) => {}
            Kind::WindowsMobile => {
                self.interval = self.before_rise.take().unwrap_or(self.min);
            }
            Kind::Android => self.lower(),
            Kind::OldAndroid => {
                // A connection that never stood says nothing of how long one may stay idle.
                let stood = lasted >= Duration::from_secs(2);
                if stood && self.interval > self.min && self.interval > self.high_water {
                    self.lower();
                    self.dropped = true;
                }
            }
        }
    }

    fn lower(&mut self) {
        let (_, _, _, step) = self.kind.numbers();
        self.interval = self.interval.saturating_sub(step).max(self.min);
        self.before_rise = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(500);

    /// The intervals asked for in a row; `bears` says how long the network keeps an idle connection.
    fn course(kind: Kind, bears: u32, pings: usize) -> Vec<u32> {
        let mut heartbeat = Heartbeat::new(kind);
        let mut asked = Vec::new();
        for _ in 0..pings {
            asked.push(heartbeat.interval());
            if heartbeat.interval() <= bears {
                heartbeat.handle_expired();
            } else {
                heartbeat.handle_lost(LATE);
            }
        }
        asked
    }

    /// The article's comment: 480, ten minutes later 780, a quarter of an hour later 1080.
    #[test]
    fn windows_mobile_climbs_as_the_article_tells() {
        assert_eq!(course(Kind::WindowsMobile, 9999, 4), [480, 780, 1080, 1380]);
        assert_eq!(course(Kind::WindowsMobile, 9999, 20)[19], 2700);
    }

    #[test]
    fn windows_mobile_goes_back_to_the_last_good_value_or_to_the_minimum() {
        assert_eq!(course(Kind::WindowsMobile, 900, 5), [480, 780, 1080, 780, 1080]);
        assert_eq!(course(Kind::WindowsMobile, 300, 3), [480, 60, 360]);
    }

    #[test]
    fn android_steps_up_and_down_between_its_bounds() {
        assert_eq!(course(Kind::Android, 9999, 6), [480, 780, 1080, 1380, 1680, 1680]);
        assert_eq!(course(Kind::Android, 900, 5), [480, 780, 1080, 780, 1080]);
        assert_eq!(course(Kind::Android, 10, 3), [480, 480, 480]);
    }

    #[test]
    fn old_android_stays_down_once_it_went_down() {
        assert_eq!(course(Kind::OldAndroid, 9999, 5), [470, 650, 830, 1010, 1010]);
        assert_eq!(course(Kind::OldAndroid, 700, 5), [470, 650, 830, 650, 650]);
        let mut heartbeat = Heartbeat::new(Kind::OldAndroid);
        heartbeat.handle_lost(Duration::from_secs(1));
        assert_eq!(heartbeat.interval(), 470, "a refused connection teaches nothing");
    }

    #[test]
    fn the_servers_bounds_are_taken_over() {
        for kind in [Kind::WindowsMobile, Kind::Android, Kind::OldAndroid, Kind::Fixed(480)] {
            let mut heartbeat = Heartbeat::new(kind);
            heartbeat.handle_bound(300);
            assert_eq!(heartbeat.interval(), 300, "{kind}");
            heartbeat.handle_expired();
            assert_eq!(heartbeat.interval(), 300, "{kind} does not go beyond the bound again");
            heartbeat.handle_bound(3000);
            assert_eq!(heartbeat.interval(), 3000, "{kind}");
        }
    }

    #[test]
    fn names_read_as_they_are_written() {
        for kind in [Kind::WindowsMobile, Kind::Android, Kind::OldAndroid, Kind::Fixed(7)] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for bad in ["", "ios", "fixed:", "fixed:0", "fixed:-1"] {
            assert_eq!(bad.parse::<Kind>(), Err(UnknownStrategy), "{bad}");
        }
    }
}
