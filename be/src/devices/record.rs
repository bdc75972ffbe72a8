//! What is kept of a device: what it did last, and what was decided of it. JSON, so that later fields are simply absent.

use directpush_common::dav::standing::{Order, WipeReport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mailbox::record::{Record, RecordError};

/// What a device did last. Times are Unix seconds, 0 = never.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Seen {
    pub first: i64,
    pub last: i64,
    pub sync: i64,
    pub ping: i64,
    /// Of the last Ping.
    pub heartbeat_secs: u32,
    /// User-Agent.
    pub agent: String,
    /// Of the protocol.
    pub version: String,
    pub command: String,
    pub front_end: String,
}

/// Whether a device may come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Nobody decided.
    #[default]
    Undecided,
    Allowed,
    Blocked,
    Quarantined,
}

/// An order to wipe.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wipe {
    pub account_only: bool,
    /// Unix seconds.
    pub ordered: i64,
    /// When the device said that it does so.
    #[serde(default)]
    pub acknowledged: Option<i64>,
    /// When it last said that it cannot.
    #[serde(default)]
    pub failed: Option<i64>,
}

/// What was decided of a device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Decided {
    pub access: Access,
    pub wipe: Option<Wipe>,
}

impl Decided {
    /// What front ends are told. A device that has wiped itself stays out until the administrator lets it in again.
    pub fn order(&self) -> Order {
        match (self.wipe, self.access) {
            (Some(Wipe { acknowledged: None, account_only: false, .. }), _) => Order::Wipe,
            (Some(Wipe { acknowledged: None, account_only: true, .. }), _) => Order::AccountWipe,
            (Some(_), _) | (None, Access::Blocked) => Order::Blocked,
            (None, Access::Quarantined) => Order::Quarantined,
            (None, Access::Allowed) => Order::Allowed,
            (None, Access::Undecided) => Order::None,
        }
    }

    /// It shall wipe itself, from `now` on.
    pub fn wipe(&mut self, account_only: bool, now: i64) {
        self.wipe = Some(Wipe { account_only, ordered: now, acknowledged: None, failed: None });
    }

    /// What the device says of it.
    pub fn reported(&mut self, report: WipeReport, now: i64) -> Result<(), Error> {
        let wipe = self.wipe.as_mut().ok_or(Error::Conflict("nobody ordered a wipe"))?;
        match report {
            WipeReport::Acknowledged => wipe.acknowledged = wipe.acknowledged.or(Some(now)),
            WipeReport::Failed => wipe.failed = Some(now),
        }
        Ok(())
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|_| RecordError::Field(what))
}

impl Record for Seen {
    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(bytes, "device seen")
    }
}

impl Record for Decided {
    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode(bytes, "device decided")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_follow_what_was_decided() {
        let mut decided = Decided { access: Access::Allowed, wipe: None };
        assert_eq!(decided.order(), Order::Allowed);
        decided.wipe(true, 1);
        assert_eq!(decided.order(), Order::AccountWipe);
        decided.reported(WipeReport::Failed, 2).unwrap();
        assert_eq!(decided.order(), Order::AccountWipe, "it is told again");
        decided.reported(WipeReport::Acknowledged, 3).unwrap();
        assert_eq!(decided.order(), Order::Blocked);
        assert_eq!(Decided::decode(&decided.encode()).unwrap(), decided);
        assert_eq!(Decided::decode(b"{}").unwrap(), Decided::default());
        assert!(Decided::decode(b"no").is_err());
    }
}
