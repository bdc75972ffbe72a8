//! Events with numbers, as an Exchange administrator knows them: what each says and what cures it.
//!
//! In the log an event is a line with the field `EVENT_ID`. Numbers and meanings are the article's and the reference
//! notes'; the wording is ours. Not here: logging itself.

use std::fmt;

/// How loud an event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// All is well.
    Information,
    /// Something will work badly.
    Warning,
    /// Something does not work.
    Error,
}

/// An event of the front end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// 3002: ActiveSync is loaded.
    Loaded {
        /// The process id.
        process: u32,
    },
    /// 3025: push by UDP is ready.
    AutdInitialized,
    /// 3015: the UDP port could not be had.
    UdpPortUnavailable {
        /// `udp_listen_port`.
        port: u16,
        /// What the system said.
        error: String,
    },
    /// 3024: push by UDP is not ready; follows 3015, repeated at each try.
    AutdFailed {
        /// What the system said.
        error: String,
    },
    /// 3016: the smallest heartbeat is above the largest; both defaults are used.
    HeartbeatsContradict {
        /// As configured, in seconds.
        min: u32,
        /// As configured, in seconds.
        max: u32,
    },
    /// 3033: devices use short heartbeats.
    HeartbeatsShort {
        /// Samples in the window.
        samples: usize,
        /// Their average in seconds.
        average: u32,
        /// `hbi_alert_threshold` in seconds.
        threshold: u32,
    },
    /// 3007: a back end did not answer in time.
    BackendSlow {
        /// Its name.
        backend: String,
    },
    /// 3014: a back end failed so often that it is left alone for a while.
    BackendProtected {
        /// Its name.
        backend: String,
        /// For so many seconds.
        secs: u64,
    },
    /// 3101: a device asks far too often. The number is ours.
    DeviceLoops {
        /// Whose.
        user: String,
        /// Which device.
        device: String,
        /// What it asked for.
        command: &'static str,
        /// It is sent away for so many seconds.
        secs: u64,
    },
}

impl Event {
    /// The number: `EVENT_ID`.
    pub const fn id(&self) -> u16 {
        match self {
            Self::Loaded { .. } => 3002,
            Self::BackendSlow { .. } => 3007,
            Self::BackendProtected { .. } => 3014,
            Self::UdpPortUnavailable { .. } => 3015,
            Self::HeartbeatsContradict { .. } => 3016,
            Self::AutdFailed { .. } => 3024,
            Self::AutdInitialized => 3025,
            Self::HeartbeatsShort { .. } => 3033,
            Self::DeviceLoops { .. } => 3101,
        }
    }

    /// How loud.
    pub const fn level(&self) -> Level {
        match self {
            Self::Loaded { .. } | Self::AutdInitialized => Level::Information,
            Self::HeartbeatsContradict { .. } | Self::HeartbeatsShort { .. } | Self::DeviceLoops { .. } => {
                Level::Warning
            }
            Self::BackendSlow { .. }
            | Self::BackendProtected { .. }
            | Self::UdpPortUnavailable { .. }
            | Self::AutdFailed { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded { process } => write!(f, "ActiveSync is loaded: process id [{process}]"),
            Self::AutdInitialized => f.write_str("push by UDP NOTIFY is initialised"),
            Self::UdpPortUnavailable { port, error } => write!(
                f,
                "notifications could not be set up: {error}; see who holds UDP port [{port}] (ss -lunp), or set \
                 another udp_listen_port; until then push goes on by POLL"
            ),
            Self::AutdFailed { error } => write!(f, "push by UDP NOTIFY is not initialised: {error}"),
            Self::HeartbeatsContradict { min, max } => write!(
                f,
                "min_heartbeat_interval [{min}] is above max_heartbeat_interval [{max}]; the defaults are used for both"
            ),
            Self::HeartbeatsShort { samples, average, threshold } => write!(
                f,
                "the average of the most recent [{samples}] heartbeat intervals is [{average}] s, not above [{threshold}] s; \
                 let firewalls and proxies between devices and this server keep idle connections for at least 15 minutes"
            ),
            Self::BackendSlow { backend } => write!(
                f,
                "back end [{backend}] did not answer in time; see that it runs, can be reached and is not overloaded"
            ),
            Self::DeviceLoops { user, device, command, secs } => write!(
                f,
                "device [{device}] of [{user}] sends [{command}] too often and is sent away for [{secs}] s; remove the account \
                 from the device and add it again, or keep the device out ([devices] in fe.toml, directpush-be device block)"
            ),
            Self::BackendProtected { backend, secs } => write!(
                f,
                "back end [{backend}] failed too often and is protected from new requests for [{secs}] seconds"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_their_numbers_and_name_the_cure() {
        let port = Event::UdpPortUnavailable { port: 2883, error: "in use".into() };
        assert_eq!((port.id(), port.level()), (3015, Level::Error));
        assert!(port.to_string().contains("udp_listen_port") && port.to_string().contains("[2883]"));
        let short = Event::HeartbeatsShort { samples: 200, average: 300, threshold: 540 };
        assert_eq!((short.id(), short.level()), (3033, Level::Warning));
        assert!(short.to_string().contains("15 minutes"));
    }
}
