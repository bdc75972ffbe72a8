//! Protocol versions and what each of them can do ([MS-ASHTTP] MS-ASProtocolVersion).
//!
//! Code asks for the ability (`Version::has_common_statuses`), not for the number.

use std::fmt;
use std::str::FromStr;

/// A protocol version, in ascending order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// 2.5: Exchange 2003 SP2, the version of the first Direct Push devices.
    V2_5,
    /// 12.0: Exchange 2007.
    V12_0,
    /// 12.1: Exchange 2007 SP1; base64 query, hanging Sync.
    V12_1,
    /// 14.0: Exchange 2010; common statuses in the body.
    V14_0,
    /// 14.1: Exchange 2010 SP1; DeviceInformation within Provision.
    V14_1,
    /// 16.0: Exchange 2016; drafts are synchronised.
    V16_0,
    /// 16.1: Exchange 2016 CU; Find, account-only wipe.
    V16_1,
}

/// The versions that the server speaks, ascending.
pub const OFFERED: [Version; 7] = Version::ALL;

/// `OFFERED` as the value of `MS-ASProtocolVersions` and `X-MS-RP`. Ascending, because Android takes the
/// last one that it knows.
pub const OFFERED_LIST: &str = "2.5,12.0,12.1,14.0,14.1,16.0,16.1";

/// Not a protocol version that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a protocol version")]
pub struct UnknownVersion;

impl Version {
    /// All versions that exist for us.
    pub const ALL: [Self; 7] =
        [Self::V2_5, Self::V12_0, Self::V12_1, Self::V14_0, Self::V14_1, Self::V16_0, Self::V16_1];

    /// The version as headers write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2_5 => "2.5",
            Self::V12_0 => "12.0",
            Self::V12_1 => "12.1",
            Self::V14_0 => "14.0",
            Self::V14_1 => "14.1",
            Self::V16_0 => "16.0",
            Self::V16_1 => "16.1",
        }
    }

    /// The version as the base64 query writes it: ten times the number.
    pub const fn query_byte(self) -> u8 {
        match self {
            Self::V2_5 => 25,
            Self::V12_0 => 120,
            Self::V12_1 => 121,
            Self::V14_0 => 140,
            Self::V14_1 => 141,
            Self::V16_0 => 160,
            Self::V16_1 => 161,
        }
    }

    /// The version of a base64 query, which exists from 12.1 up.
    pub fn from_query_byte(byte: u8) -> Result<Self, UnknownVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.has_base64_query() && version.query_byte() == byte)
            .ok_or(UnknownVersion)
    }

    /// Whether the server speaks it.
    pub fn is_offered(self) -> bool {
        OFFERED.contains(&self)
    }

    /// Whether the query may be base64.
    pub fn has_base64_query(self) -> bool {
        self >= Self::V12_1
    }

    /// Whether statuses of 101 and above go into the body; before, they are HTTP statuses.
    pub fn has_common_statuses(self) -> bool {
        self >= Self::V14_0
    }

    /// Whether bodies and attachments are those of AirSyncBase; before, Email's own.
    pub fn has_air_sync_base(self) -> bool {
        self >= Self::V12_0
    }

    /// Whether each collection of a Sync names its class, in both directions.
    pub fn has_class_in_collection(self) -> bool {
        self <= Self::V12_0
    }

    /// Whether a mail has a follow-up flag.
    pub fn has_flags(self) -> bool {
        self >= Self::V12_0
    }

    /// Whether a mail has categories, and says what was last done with it.
    pub fn has_categories(self) -> bool {
        self >= Self::V14_0
    }

    /// Whether drafts are synchronised in both directions.
    pub fn has_drafts(self) -> bool {
        self >= Self::V16_0
    }

    /// Whether Sync may wait (`Wait`, in minutes), be empty, or be `Partial`.
    pub fn has_hanging_sync(self) -> bool {
        self >= Self::V12_1
    }

    /// Whether Sync may wait for a `HeartbeatInterval`, in seconds.
    pub fn has_sync_heartbeat(self) -> bool {
        self >= Self::V14_0
    }

    /// Whether the policy is a text in the MS-WAP-Provisioning-XML form.
    pub fn has_wap_provisioning(self) -> bool {
        self == Self::V2_5
    }

    /// Whether the first Provision request must describe the device (Status 165 if not).
    pub fn needs_device_information(self) -> bool {
        self >= Self::V14_1
    }

    /// Whether the account alone can be removed from the device.
    pub fn has_account_only_wipe(self) -> bool {
        self >= Self::V16_1
    }

    /// Whether a user's addresses are told as those of an account.
    pub fn has_accounts(self) -> bool {
        self >= Self::V14_1
    }

    /// Whether the class Notes exists.
    pub fn has_notes(self) -> bool {
        self >= Self::V14_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        Self::ALL.into_iter().find(|version| version.as_str() == text.trim()).ok_or(UnknownVersion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_list_is_the_offered_versions_in_ascending_order() {
        assert!(OFFERED.is_sorted());
        assert_eq!(OFFERED.map(Version::as_str).join(","), OFFERED_LIST);
    }

    #[test]
    fn versions_read_as_they_are_written() {
        for version in Version::ALL {
            assert_eq!(version.as_str().parse(), Ok(version));
            let from_byte = Version::from_query_byte(version.query_byte());
            assert_eq!(from_byte.is_ok(), version.has_base64_query());
            assert_eq!(from_byte.unwrap_or(version), version);
        }
        assert_eq!("1.0".parse::<Version>(), Err(UnknownVersion));
        assert_eq!(Version::from_query_byte(191), Err(UnknownVersion));
    }
}
