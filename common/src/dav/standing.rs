//! What a back end says of a device beside every answer below the device's folder: an order of the administrator's, and
//! which policy is in force for its user. And what a front end says of a device in return.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DavError, headers};

/// What the administrator ordered for a device.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Order {
    /// Nothing.
    #[default]
    None,
    /// It may come, whatever a front end's own lists say.
    Allowed,
    /// It shall wipe itself.
    Wipe,
    /// It shall remove this account, and what belongs to it (16.1; older devices are refused).
    AccountWipe,
    /// It is refused.
    Blocked,
    /// It is refused until the administrator has looked at it.
    Quarantined,
}

impl Order {
    /// The value of `DirectPush-Order`; `None` has none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Allowed => "allowed",
            Self::Wipe => "wipe",
            Self::AccountWipe => "account-wipe",
            Self::Blocked => "blocked",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether the device shall remove what it holds.
    pub const fn is_wipe(self) -> bool {
        matches!(self, Self::Wipe | Self::AccountWipe)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Order {
    type Err = DavError;
    fn from_str(text: &str) -> Result<Self, DavError> {
        let all =
            [Self::None, Self::Allowed, Self::Wipe, Self::AccountWipe, Self::Blocked, Self::Quarantined];
        all.into_iter().find(|order| order.as_str() == text).ok_or(DavError::Bad(headers::ORDER))
    }
}

/// Which policy: a hash of its content, never 0. As text 8 hex digits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PolicyHash(pub std::num::NonZeroU32);

impl PolicyHash {
    /// The hash of this content, the same in every process (FNV-1a).
    pub fn of(content: &[u8]) -> Self {
        let hash = content
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Self(std::num::NonZeroU32::new(hash).unwrap_or(std::num::NonZeroU32::MIN))
    }

    /// As a number; not 0.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for PolicyHash {
    type Err = DavError;
    fn from_str(text: &str) -> Result<Self, DavError> {
        let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8);
        number.and_then(std::num::NonZeroU32::new).map(Self).ok_or(DavError::Bad(headers::POLICY))
    }
}

/// What an answer below a device's folder says of the device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// `DirectPush-Order`.
    pub order: Order,
    /// `DirectPush-Policy`; `None` = the device need not provision.
    pub policy: Option<PolicyHash>,
}

impl Standing {
    /// Reads the headers of an answer. An order that this code does not know blocks: an administrator gave it for a
    /// reason.
    pub fn from_headers<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            order: get(headers::ORDER).map_or(Order::None, |text| text.parse().unwrap_or(Order::Blocked)),
            policy: get(headers::POLICY).and_then(|text| text.parse().ok()),
        }
    }

    /// The headers of an answer.
    pub fn to_headers(self) -> impl Iterator<Item = (&'static str, String)> {
        let order = (self.order != Order::None).then(|| (headers::ORDER, self.order.to_string()));
        order.into_iter().chain(self.policy.map(|policy| (headers::POLICY, policy.to_string())))
    }
}

/// `POST /directpush/device`: a device did what it was ordered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `<DeviceType>/<DeviceId>`, each encoded.
    pub device: String,
    /// `acknowledged`: it is wiping; `failed`: it says that it could not.
    pub wipe: WipeReport,
}

/// What a device says of a wipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WipeReport {
    /// It is wiping.
    Acknowledged,
    /// It could not.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_survives_its_headers_and_an_unknown_order_blocks() {
        for order in [Order::None, Order::Allowed, Order::Wipe, Order::AccountWipe, Order::Quarantined] {
            let standing = Standing { order, policy: Some(PolicyHash::of(b"x")) };
            let fields: Vec<_> = standing.to_headers().collect();
            let get = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1.as_str());
            assert_eq!(Standing::from_headers(get), standing);
        }
        assert_eq!(Standing::from_headers(|_| None), Standing::default());
        assert_eq!(
            Standing::from_headers(|name| (name == headers::ORDER).then_some("explode")).order,
            Order::Blocked
        );
    }

    #[test]
    fn a_policy_hash_is_eight_digits_and_never_nought() {
        let hash = PolicyHash::of(b"one policy");
        assert_eq!((hash.to_string().len(), hash.to_string().parse()), (8, Ok(hash)));
        assert_ne!(hash, PolicyHash::of(b"another policy"));
        for bad in ["", "00000000", "xyz", "1", "123456789"] {
            assert!(bad.parse::<PolicyHash>().is_err(), "{bad}");
        }
    }
}
