//! The NOTIFY datagram: an exact writer and a tolerant reader.
//!
//! The writer makes the article's datagram byte for byte, the NUL behind the last line included. The
//! reader also takes what other servers and the SDK's examples send: no NUL, no empty line, header names
//! in any case, no group, several ids, or no id at all ("ask about everything").

use std::{fmt, str::FromStr};

use smallvec::SmallVec;

use super::CallBack;
use crate::names::Guid;

/// Bytes of a NOTIFY, at most; a longer datagram is not read.
pub const DATAGRAM_BYTES_MAX: usize = 1024;

/// Ids in one NOTIFY, at most.
pub const IDS_MAX: usize = 64;

/// The number of a subscription on one back end process, in decimal on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SubscriptionId(pub u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SubscriptionId {
    type Err = NotifyError;
    fn from_str(text: &str) -> Result<Self, NotifyError> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotifyError::BadSubscriptionId);
        }
        text.parse().map(Self).map_err(|_| NotifyError::BadSubscriptionId)
    }
}

/// One NOTIFY: "something changed for these subscriptions of this group".
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notify {
    /// The request target, equal to the Call-Back of the subscription.
    pub call_back: CallBack,
    /// The group that the front end named in SUBSCRIBE; one per Ping.
    pub group: Option<Guid>,
    /// The subscriptions; none means all of the call-back's.
    pub ids: SmallVec<[SubscriptionId; 2]>,
}

/// Why a datagram is not a NOTIFY.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotifyError {
    /// Longer than [`DATAGRAM_BYTES_MAX`].
    #[error("the datagram is longer than {DATAGRAM_BYTES_MAX} bytes")]
    TooLong,
    /// Bytes that are no text.
    #[error("the datagram is not text")]
    NotText,
    /// Not `NOTIFY <target> HTTP/1.x`.
    #[error("the datagram does not begin with a NOTIFY request line")]
    WrongMethod,
    /// The target is no call-back URL.
    #[error("the request target is not a call-back of ours")]
    BadTarget,
    /// Subscribe-group is not base64 of a GUID, or is there twice.
    #[error("Subscribe-group is not a GUID in base64")]
    BadGroup,
    /// Subscription-id is not a list of numbers.
    #[error("Subscription-id is not a list of numbers")]
    BadSubscriptionId,
    /// More than [`IDS_MAX`] ids.
    #[error("more than {IDS_MAX} subscription ids")]
    TooManyIds,
}

impl Notify {
    /// The datagram, as in the article: request line, group, ids, empty line, NUL.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(format!("NOTIFY {} HTTP/1.1\r\n", self.call_back).as_bytes());
        if let Some(group) = self.group {
            out.extend_from_slice(format!("Subscribe-group: {}\r\n", group.to_group()).as_bytes());
        }
        if !self.ids.is_empty() {
            out.extend_from_slice(b"Subscription-id: ");
            for (n, id) in self.ids.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                out.extend_from_slice(format!("{comma}{id}").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n\0");
        out
    }

    /// Reads one datagram. Never panics, whatever the bytes.
    pub fn decode(datagram: &[u8]) -> Result<Self, NotifyError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(NotifyError::TooLong);
        }
        let text = std::str::from_utf8(datagram).map_err(|_| NotifyError::NotText)?;
        let mut lines =
            text.trim_end_matches('\0').split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let call_back = request_target(lines.next().unwrap_or(""))?;
        let mut notify = Self { call_back, group: None, ids: SmallVec::new() };
        // Field names ignore case (RFC 9110 5.1); Exchange itself sent "Subscription-id".
        for (name, value) in lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'))
        {
            if name.eq_ignore_ascii_case("Subscribe-group") {
                let group = Guid::from_group(value.trim()).map_err(|_| NotifyError::BadGroup)?;
                if notify.group.replace(group).is_some() {
                    return Err(NotifyError::BadGroup);
                }
            } else if name.eq_ignore_ascii_case("Subscription-id") {
                for id in value.split(',') {
                    if notify.ids.len() == IDS_MAX {
                        return Err(NotifyError::TooManyIds);
                    }
                    notify.ids.push(id.parse()?);
                }
            }
        }
        Ok(notify)
    }
}

fn request_target(line: &str) -> Result<CallBack, NotifyError> {
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let form_ok = method == Some("NOTIFY")
        && version.is_some_and(|v| v.starts_with("HTTP/1."))
        && words.next().is_none();
    if !form_ok {
        return Err(NotifyError::WrongMethod);
    }
    target.unwrap_or("").parse().map_err(|_| NotifyError::BadTarget)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use smallvec::smallvec;

    use super::*;

    const ARTICLE: &[u8] = include_bytes!("../../testdata/httpu/article.bin");

    fn article() -> Notify {
        Notify {
            call_back: "httpu://1b25a.1b1domain.lab:2883/35395ce4-1504-4ac4-9721-f152c646ea35"
                .parse()
                .unwrap(),
            group: Some(Guid::from_group("UsPCWwFL20q7D+navoMqyA==").unwrap()),
            ids: smallvec![SubscriptionId(27)],
        }
    }

    #[test]
    fn the_articles_datagram_is_written_byte_for_byte() {
        let datagram = article().encode();
        assert_eq!(datagram, ARTICLE);
        assert_eq!(datagram.len(), 154);
        assert_eq!(
            HEXLOWER.encode(&Sha256::digest(&datagram)),
            "391c514efaec8277b21d521dc615637480563f8a4c73a8c7332f75c9aa67c13e"
        );
    }

    #[test]
    fn the_articles_datagram_is_read() {
        assert_eq!(Notify::decode(ARTICLE), Ok(article()));
    }

    #[test]
    fn other_servers_forms_are_read() {
        let target = "httpu://fe:2883/35395ce4-1504-4ac4-9721-f152c646ea35";
        // No group (the SDK's example), no empty line and no NUL (OpenGroupware), bare LF, odd case.
        for text in [
            format!("NOTIFY {target} HTTP/1.1\r\nSubscription-id: 15\r\n\r\n"),
            format!("NOTIFY {target} HTTP/1.1\r\nSUBSCRIPTION-ID: 15\r\n"),
            format!("NOTIFY {target} HTTP/1.1\nsubscription-id:15\n\n"),
        ] {
            let notify = Notify::decode(text.as_bytes()).unwrap();
            assert_eq!(
                (notify.group, notify.ids.as_slice()),
                (None, [SubscriptionId(15)].as_slice()),
                "{text:?}"
            );
        }
        let many = format!("NOTIFY {target} HTTP/1.1\r\nSubscription-id: 1, 18,243\r\n\r\n\0");
        assert_eq!(Notify::decode(many.as_bytes()).unwrap().ids.len(), 3);
        let all = format!("NOTIFY {target} HTTP/1.1\r\n\r\n");
        assert!(Notify::decode(all.as_bytes()).unwrap().ids.is_empty());
    }

    #[test]
    fn what_is_not_a_notify_says_why() {
        let target = "httpu://fe:2883/35395ce4-1504-4ac4-9721-f152c646ea35";
        for (bytes, why) in [
            (b"".to_vec(), NotifyError::WrongMethod),
            (b"\xff\xfe".to_vec(), NotifyError::NotText),
            (vec![b'a'; 2000], NotifyError::TooLong),
            (format!("GET {target} HTTP/1.1\r\n\r\n").into_bytes(), NotifyError::WrongMethod),
            (b"NOTIFY http://fe/ HTTP/1.1\r\n\r\n".to_vec(), NotifyError::BadTarget),
            (
                format!("NOTIFY {target} HTTP/1.1\r\nSubscription-id: x\r\n\r\n").into_bytes(),
                NotifyError::BadSubscriptionId,
            ),
            (
                format!("NOTIFY {target} HTTP/1.1\r\nSubscription-id: 1,\r\n\r\n").into_bytes(),
                NotifyError::BadSubscriptionId,
            ),
            (
                format!("NOTIFY {target} HTTP/1.1\r\nSubscribe-group: AA==\r\n\r\n").into_bytes(),
                NotifyError::BadGroup,
            ),
            (
                format!("NOTIFY {target} HTTP/1.1\r\nSubscription-id: {}\r\n\r\n", vec!["1"; 65].join(","))
                    .into_bytes(),
                NotifyError::TooManyIds,
            ),
        ] {
            assert_eq!(Notify::decode(&bytes), Err(why), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(guid: [u8; 16], group: Option<[u8; 16]>, ids in prop::collection::vec(any::<u64>(), 0..8), port in 1u16..) {
            let notify = Notify {
                call_back: CallBack::new("fe-7.example", port, Guid(guid)).unwrap(),
                group: group.map(Guid),
                ids: ids.into_iter().map(SubscriptionId).collect(),
            };
            prop_assert_eq!(Notify::decode(&notify.encode()), Ok(notify));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = Notify::decode(&bytes);
        }
    }
}
