//! Names: users, devices, folders, items, GUIDs, and how each becomes one segment of a URL.
//!
//! Names that come from a device or a person are checked once, here. A name that exists is one URL
//! segment: it cannot climb out of the user's own mailbox.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::Error as _};

use crate::numbers::Number;

/// Bytes of a name, at most, before encoding. Source: a path segment stays below 255 bytes when encoded.
pub const NAME_BYTES_MAX: usize = 128;

/// What RFC 3986 3.3 lets a path segment hold unencoded, less the sub-delimiters that confuse logs.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$');

/// A name that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadName {
    /// Empty.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// Holds a control character, a slash or a backslash, is `.` or `..`, or is not UTF-8.
    #[error("the name holds a character that a path segment must not hold")]
    Unsafe,
    /// Does not have the form of this kind of name.
    #[error("the name has not the form it must have")]
    Form,
}

/// Encodes `name` as one path segment.
pub fn encode_segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// Decodes text that [`encode_segment`] encoded and that is no name: slashes may be in it.
pub fn decode_text(text: &str) -> Result<String, BadName> {
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| BadName::Unsafe)?.into_owned())
}

/// Decodes one path segment, once, and refuses whatever could be read as more than one.
pub fn decode_segment(segment: &str) -> Result<String, BadName> {
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| BadName::Unsafe)?.into_owned();
    check(&name)?;
    Ok(name)
}

/// Whether `name` can be one path segment: not empty, not dots, no slash, backslash or control character.
pub fn check(name: &str) -> Result<(), BadName> {
    match name {
        "" => Err(BadName::Empty),
        "." | ".." => Err(BadName::Unsafe),
        _ if name.chars().any(|c| c.is_control() || c == '/' || c == '\\') => Err(BadName::Unsafe),
        _ => Ok(()),
    }
}

/// The name of a mailbox and its owner, lower case: `alice@example.com` or `alice`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct UserName(Box<str>);

impl UserName {
    /// The name as written in URLs (before encoding) and logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `@`.
    pub fn local_part(&self) -> &str {
        self.0.split('@').next().unwrap_or(&self.0)
    }

    /// The part behind `@`, if there is one.
    pub fn domain(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, domain)| domain)
    }

    /// `/exchange/<user>/`, encoded.
    pub fn mailbox_url(&self) -> String {
        format!("/exchange/{}/", encode_segment(&self.0))
    }

    /// Whether somebody who logs on, or names themselves in `User=`, as `login` means this user:
    /// the whole name, its local part, or `domain\user`. Case is ignored.
    pub fn is_meant_by(&self, login: &str) -> bool {
        let login = login.rsplit('\\').next().unwrap_or(login);
        login.eq_ignore_ascii_case(&self.0)
            || login.to_lowercase() == *self.0
            || (!login.contains('@') && login.to_lowercase() == self.local_part())
    }
}

impl FromStr for UserName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let name = text.trim().to_lowercase();
        check(&name)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(BadName::TooLong);
        }
        let form_ok = match name.split_once('@') {
            Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
            None => true,
        };
        if !form_ok || name.contains([' ', ':', '"', '<', '>', ',', '?', '#', '%']) {
            return Err(BadName::Form);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One device of a user: what it is and which one, as it says itself.
///
/// One allocation, because each parked device has one. `Display` and `FromStr` use
/// `<DeviceType>/<DeviceId>` with each part encoded as a path segment.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceKey(
    /// DeviceType, a slash (neither part can hold one), DeviceId.
    Box<str>,
);

impl DeviceKey {
    /// A device from what it sent in its request line.
    pub fn new(device_type: &str, device_id: &str) -> Result<Self, BadName> {
        for part in [device_type, device_id] {
            check(part)?;
            if part.len() > NAME_BYTES_MAX {
                return Err(BadName::TooLong);
            }
        }
        Ok(Self(format!("{device_type}/{device_id}").into()))
    }

    /// DeviceType, constant for a device: `PocketPC`, `iPhone`.
    pub fn device_type(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// DeviceId, unique among the user's devices.
    pub fn device_id(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// The device's folder in its user's mailbox, encoded, with a slash at the end.
    pub fn state_url(&self, user: &UserName) -> String {
        format!("{}NON_IPM_SUBTREE/Microsoft-Server-ActiveSync/{self}/", user.mailbox_url())
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", encode_segment(self.device_type()), encode_segment(self.device_id()))
    }
}

impl FromStr for DeviceKey {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (device_type, device_id) = text.split_once('/').ok_or(BadName::Form)?;
        Self::new(&decode_segment(device_type)?, &decode_segment(device_id)?)
    }
}

/// A GUID. As text with hyphens; in `Subscribe-group` as base64 of its bytes in Windows' memory order.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A version 4 GUID made of 16 random bytes.
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// 32 lower-case hex digits without hyphens.
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// From 32 hex digits of any case.
    pub fn from_hex(text: &str) -> Result<Self, BadName> {
        let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).map_err(|_| BadName::Form)?;
        bytes.try_into().map(Self).map_err(|_| BadName::Form)
    }

    /// Base64 of the GUID as Windows holds it (its first three fields little-endian): 24 characters.
    pub fn to_group(self) -> String {
        BASE64.encode(&self.memory_order())
    }

    /// Reads what [`Guid::to_group`] writes.
    pub fn from_group(text: &str) -> Result<Self, BadName> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| BadName::Form)?;
        bytes.try_into().map(|bytes| Self(Self(bytes).memory_order())).map_err(|_| BadName::Form)
    }

    /// Swaps between network order and Windows' memory order; its own inverse.
    const fn memory_order(self) -> [u8; 16] {
        let mut b = self.0;
        b.swap(0, 3);
        b.swap(1, 2);
        b.swap(4, 5);
        b.swap(6, 7);
        b
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.to_hex();
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let hyphens_ok = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23));
        if !hyphens_ok {
            return Err(BadName::Form);
        }
        Self::from_hex(&text.replace('-', ""))
    }
}

/// A folder of a mailbox, permanent across renames: `<32 hex>-<hex counter>`.
/// The hex digits are the installation's GUID as Windows holds it in memory; the counter is the mailbox's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FolderId {
    /// The installation this mailbox was born in.
    pub installation: Guid,
    /// The folder's counter within the mailbox, 1 to 2⁴⁸−1.
    pub counter: u64,
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", HEXLOWER.encode(&self.installation.memory_order()), self.counter)
    }
}

impl FromStr for FolderId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (installation, counter) = source_key(text)?;
        if counter == 0 || counter >> 48 != 0 {
            return Err(BadName::Form);
        }
        Ok(Self { installation, counter })
    }
}

impl FolderId {
    /// `/exchange/<user>/-FlatUrlSpace-/<folder id>/`.
    pub fn permanent_url(&self, user: &UserName) -> String {
        format!("{}-FlatUrlSpace-/{self}/", user.mailbox_url())
    }

    /// The permanent URL of an item of this folder.
    pub fn item_url(&self, user: &UserName, item: ItemId) -> String {
        format!(
            "{}{}-{:x}",
            self.permanent_url(user),
            HEXLOWER.encode(&self.installation.memory_order()),
            item.0.0
        )
    }
}

/// An item during its stay in one folder: the change number under which it was added.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub Number);

impl ItemId {
    /// Reads the last segment of an item's permanent URL.
    pub fn from_section(section: &str) -> Result<(Guid, Self), BadName> {
        source_key(section).map(|(guid, counter)| (guid, Self(Number(counter))))
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `<32 hex>-<hex without leading zeros>`.
fn source_key(text: &str) -> Result<(Guid, u64), BadName> {
    let (guid, counter) = text.split_once('-').ok_or(BadName::Form)?;
    let counter_ok = (1..=16).contains(&counter.len()) && counter.bytes().all(|b| b.is_ascii_hexdigit());
    if !counter_ok || (counter.len() > 1 && counter.starts_with('0')) {
        return Err(BadName::Form);
    }
    let counter = u64::from_str_radix(counter, 16).map_err(|_| BadName::Form)?;
    Ok((Guid(Guid::from_hex(guid)?.memory_order()), counter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn group_is_the_guid_as_windows_holds_it() {
        let guid: Guid = "5bc2c352-4b01-4adb-bb0f-e9dabe832ac8".parse().unwrap();
        assert_eq!(guid.to_group(), "UsPCWwFL20q7D+navoMqyA==");
        assert_eq!(Guid::from_group("UsPCWwFL20q7D+navoMqyA=="), Ok(guid));
    }

    #[test]
    fn folder_ids_of_the_article_read_and_write() {
        for text in ["7529a5b36290aa458b9e1fc2d5ff85a6-3aaa2", "7529a5b36290aa458b9e1fc2d5ff85a6-2cfb8"] {
            let id: FolderId = text.parse().unwrap();
            assert_eq!(id.installation.to_string(), "b3a52975-9062-45aa-8b9e-1fc2d5ff85a6");
            assert_eq!(id.to_string(), text);
        }
        for bad in
            ["7529a5b36290aa458b9e1fc2d5ff85a6-0", "7529a5b36290aa458b9e1fc2d5ff85a6-03", "7529-1", "", "-"]
        {
            assert!(bad.parse::<FolderId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn device_names_stay_one_segment() {
        for bad in ["..", ".", "", "a/b", "a\\b", "a\u{7}b", "a\nb"] {
            assert!(DeviceKey::new("PocketPC", bad).is_err(), "{bad:?}");
        }
        let odd = DeviceKey::new("Smart Phone", "50%2f..").unwrap();
        assert_eq!(odd.to_string(), "Smart%20Phone/50%252f..");
        assert_eq!(odd.to_string().parse(), Ok(odd));
        assert_eq!(decode_segment("a%2fb"), Err(BadName::Unsafe));
        assert_eq!(decode_segment("%2e%2e"), Err(BadName::Unsafe));
    }

    #[test]
    fn a_user_is_meant_by_each_way_to_log_on() {
        let alice: UserName = "Alice@Example.com".parse().unwrap();
        assert_eq!(alice.mailbox_url(), "/exchange/alice@example.com/");
        for login in ["alice@example.com", "ALICE@example.COM", "alice", "EXAMPLE\\alice"] {
            assert!(alice.is_meant_by(login), "{login}");
        }
        for login in ["bob", "alice@other.example", "", "alic"] {
            assert!(!alice.is_meant_by(login), "{login}");
        }
    }

    proptest! {
        #[test]
        fn any_safe_name_survives_its_url(name in "[^/\\\\\\p{Cc}]{1,40}") {
            prop_assume!(name != "." && name != "..");
            prop_assert_eq!(decode_segment(&encode_segment(&name)), Ok(name));
        }
    }
}
