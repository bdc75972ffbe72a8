//! A device's id and type: short, printable, and one path segment each, because the device's state is kept
//! below `…/<DeviceType>/<DeviceId>/` in the mailbox.
//!
//! The specification allows 1 to 32 letters and digits for the id and visible characters for the type;
//! real devices go somewhat beyond that, so the check is only that nothing can be done with the text.

use std::fmt;

use data_encoding::HEXLOWER;

/// Longest id or type, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// An id or type that is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("empty, too long, or not a plain name")]
pub struct InvalidDevice;

/// Which device: constant, and unique among the devices of its type.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId(String);

/// What kind of device: `SmartPhone`, `iPhone`, `PocketPC`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceType(String);

impl DeviceId {
    /// The id of this text.
    pub fn new(text: &str) -> Result<Self, InvalidDevice> {
        if is_plain_name(text) && !text.contains(' ') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDevice)
        }
    }

    /// The id of these bytes of a base64 query: as they are if they are a printable id, else in hex. A
    /// device that uses the plain form as well writes the same text there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidDevice> {
        let printable = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(bytes) {
            Ok(text) if printable && !text.contains(['/', '\\', '%']) => Self::new(text),
            _ => Self::new(&HEXLOWER.encode(bytes)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceType {
    /// The type of this text.
    pub fn new(text: &str) -> Result<Self, InvalidDevice> {
        if is_plain_name(text) { Ok(Self(text.to_owned())) } else { Err(InvalidDevice) }
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Printable ASCII, and nothing that means something in a path: no separators, no escapes, no dots alone.
fn is_plain_name(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'/' | b'\\' | b'%'))
        && text.trim() == text
        && text != "."
        && text != ".."
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_harmless_segment() {
        for text in ["6F24CAD599A5BF1A690246B8C68FAE8D", "validate", "androidc1234567890", "a.b_c-d", "..."] {
            assert_eq!(DeviceId::new(text).unwrap().as_str(), text);
        }
        let long = "x".repeat(65);
        for text in ["", ".", "..", "a/b", "a\\b", "%2f", "a b", "a\u{7}", "ä", "a\0", long.as_str()] {
            assert_eq!(DeviceId::new(text), Err(InvalidDevice), "{text:?}");
        }
        assert!(DeviceType::new("Windows Mail").is_ok());
        assert_eq!(DeviceType::new(" "), Err(InvalidDevice));
        assert_eq!(DeviceType::new("../x"), Err(InvalidDevice));
    }

    #[test]
    fn binary_ids_become_hex_and_printable_ones_stay() {
        assert_eq!(DeviceId::from_bytes(b"v140Device").unwrap().as_str(), "v140Device");
        assert_eq!(DeviceId::from_bytes(&[0xB9, 0x28]).unwrap().as_str(), "b928");
        assert_eq!(DeviceId::from_bytes(b"a/b").unwrap().as_str(), "612f62");
        assert_eq!(DeviceId::from_bytes(b""), Err(InvalidDevice));
        assert_eq!(DeviceId::from_bytes(b".."), Err(InvalidDevice));
        assert_eq!(DeviceId::from_bytes(&[0xFF; 33]), Err(InvalidDevice));
    }
}
