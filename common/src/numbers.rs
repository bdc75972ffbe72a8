//! The mailbox's numbers: one change number per mailbox, and the token that names a state of a folder.
//!
//! The owner of a mailbox allocates its numbers, each once. A number without its mailbox's epoch means
//! nothing: a mailbox that was born again starts a new epoch.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A change number of one mailbox. 0 is before every change.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub u64);

impl Number {
    /// Before every change.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Number {
    type Err = BadNumber;
    fn from_str(text: &str) -> Result<Self, BadNumber> {
        digits(text).map(Self)
    }
}

/// A state of one collection: the epoch of its mailbox and the folder's highest change number in it.
/// On the wire a URI, as `DAV:sync-token` must be (RFC 6578 4): `urn:directpush:token:<epoch>:<number>`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct CollectionToken {
    /// The mailbox's generation.
    pub epoch: u64,
    /// Everything up to this change number is known.
    pub number: Number,
}

const TOKEN_PREFIX: &str = "urn:directpush:token:";

impl fmt::Display for CollectionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_PREFIX}{}:{}", self.epoch, self.number)
    }
}

impl FromStr for CollectionToken {
    type Err = BadNumber;
    fn from_str(text: &str) -> Result<Self, BadNumber> {
        let (epoch, number) =
            text.trim().strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once(':')).ok_or(BadNumber)?;
        Ok(Self { epoch: digits(epoch)?, number: number.parse()? })
    }
}

/// Text that is not a change number or token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a number or token of a mailbox")]
pub struct BadNumber;

/// Decimal digits and nothing else (`u64::from_str` would take a `+`).
fn digits(text: &str) -> Result<u64, BadNumber> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadNumber);
    }
    text.parse().map_err(|_| BadNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_reads_what_it_writes_and_nothing_else() {
        let token = CollectionToken { epoch: 5, number: Number(1234) };
        assert_eq!(token.to_string(), "urn:directpush:token:5:1234");
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in [
            "",
            "5:1234",
            "urn:directpush:token:5",
            "urn:directpush:token:+5:1",
            "urn:directpush:token:5:1:2",
        ] {
            assert_eq!(bad.parse::<CollectionToken>(), Err(BadNumber), "{bad}");
        }
    }
}
