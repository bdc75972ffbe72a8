//! What can go wrong between front end and back end, and what an operator should look at.
//!
//! The conditions D2 to D4 and D9 are the article's and its readers' own: a mailbox server that
//! answered 501, 401, 403, 302 or 404 to SUBSCRIBE, or too late, and phones that synchronised
//! only when their heartbeats ran out. Each names its cause in the log line.

use directpush_common::dav::DavError;
use directpush_common::eas::CommonStatus;
use http::StatusCode;

/// The result of asking a back end.
pub type Result<T> = std::result::Result<T, Error>;

/// A request to a back end that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer in time (D9, event 3007).
    #[error("back end {backend} did not answer in time")]
    Timeout {
        /// Its configured name.
        backend: String,
    },
    /// Too many time-outs before: not even asked (event 3014).
    #[error("back end {backend} is protected from requests for now")]
    Protected {
        /// Its configured name.
        backend: String,
    },
    /// No connection, or it broke.
    #[error("back end {backend} cannot be reached: {source}")]
    Unreachable {
        /// Its configured name.
        backend: String,
        /// What the connection said.
        source: reqwest::Error,
    },
    /// The act-for token is no longer good: log on again.
    #[error("the log-on is no longer valid")]
    Credential,
    /// The mailbox is at another back end (307, 308).
    #[error("the mailbox is at {location}")]
    Moved {
        /// A URL of the other back end.
        location: String,
    },
    /// The back end has no time: it said after how many seconds to come back.
    #[error("the back end is busy for {retry_after_secs} s")]
    Busy {
        /// Seconds.
        retry_after_secs: u64,
    },
    /// The device may not be served, or not before it has provisioned.
    #[error("the device is refused: Status {0}")]
    Refused(CommonStatus),
    /// A status that this question has no use for.
    #[error("unexpected status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// `DirectPush-Reason`, if given.
        reason: Option<String>,
    },
    /// An answer that cannot be read, or is too large.
    #[error("the answer cannot be read: {0}")]
    Garbled(#[from] DavError),
    /// A body over our bound.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl Error {
    /// The status, when the back end answered at all.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the back end did not answer at all, so that asking again later may help.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Protected { .. } | Self::Unreachable { .. })
    }

    /// Whether it is the fate of the one item that was asked for, and will be again: too large for us, or damaged.
    pub fn is_of_the_item(&self) -> bool {
        matches!(self, Self::TooLarge(_)) || self.status() == Some(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The diagnosable condition and its usual cause, for the log.
    pub fn condition(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Timeout { .. } | Self::Protected { .. } => {
                Some(("D9", "the back end is slow or overloaded"))
            }
            Self::Status { status, reason } => match status.as_u16() {
                501 | 405 => Some((
                    "D2",
                    "what answers is not our back end: check the url, and a proxy or virtual host in between",
                )),
                401 if reason.as_deref() == Some("front-end") => Some((
                    "D3",
                    "the back end does not know this front end: name and secret must be the same on both",
                )),
                403 if reason.as_deref() == Some("call-back") => Some((
                    "D3",
                    "the back end refuses our Call-Back: call_back_host and port must be those it has for us",
                )),
                401 | 403 => Some(("D3", "the back end refuses this front end or this user")),
                301..=308 | 404 => Some(("D4", "the address leads elsewhere: check the url and any proxy")),
                _ => None,
            },
            Self::Moved { .. } => Some((
                "D4",
                "the back end redirects in a ring, or to an address that is not among the configured back ends",
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_items_fate_is_no_trouble_of_the_back_end() {
        let status = |status| Error::Status { status, reason: None };
        assert!(Error::TooLarge(5).is_of_the_item());
        assert!(status(StatusCode::INTERNAL_SERVER_ERROR).is_of_the_item());
        for error in [
            status(StatusCode::FORBIDDEN),
            status(StatusCode::INSUFFICIENT_STORAGE),
            Error::Busy { retry_after_secs: 1 },
            Error::Timeout { backend: "be".into() },
            Error::Credential,
        ] {
            assert!(!error.is_of_the_item(), "{error}");
        }
    }
}
