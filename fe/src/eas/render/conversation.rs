//! ConversationId and ConversationIndex ([MS-ASCON] ConversationId, 2.2.2.4
//! ConversationIndex): opaque, made of what mail says itself.
//!
//! A conversation is named by the message that it began with: the first of References (RFC 5322 3.6.4),
//! else In-Reply-To, else the message itself. So every message of a thread gives the same id, in every
//! folder and on every server, and nothing is stored. The index is the time of sending, and below it the
//! levels that Outlook's Thread-Index gives, if there is one.

use data_encoding::BASE64;
use mail_parser::{HeaderValue, Message};
use sha2::{Digest as _, Sha256};

/// Seconds from 1601, where FILETIME begins, to 1970.
const EPOCH_SECS: i64 = 11_644_473_600;
/// Bytes of Thread-Index before its levels: one reserved, five of time, sixteen of a GUID.
const HEADER_BYTES: usize = 22;
/// Bytes of a level.
const LEVEL_BYTES: usize = 5;
/// Levels that are passed on.
const LEVELS_MAX: usize = 50;

/// The id of the conversation that a message belongs to.
pub(super) fn id(message: &Message<'_>, head: &[u8]) -> [u8; 16] {
    let root = first_id(message.references()).or_else(|| first_id(message.in_reply_to()));
    let root = root.or_else(|| message.message_id().map(str::to_owned));
    let mut hash = Sha256::new();
    match root.as_deref().map(str::trim).filter(|root| !root.is_empty()) {
        Some(root) => hash.update(root.as_bytes()),
        // It names neither itself nor another: a conversation of its own.
        None => hash.update(head),
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id
}

/// The place of a message in its conversation.
pub(super) fn index(message: &Message<'_>, received_unix_secs: i64) -> Vec<u8> {
    let thread_index = message.header("Thread-Index").and_then(HeaderValue::as_text);
    let decoded = thread_index.and_then(|text| {
        let digits: String = text.split_whitespace().collect();
        BASE64.decode(digits.as_bytes()).ok()
    });
    if let Some(decoded) = decoded.filter(|bytes| bytes.len() >= HEADER_BYTES) {
        let levels = (decoded.len() - HEADER_BYTES) / LEVEL_BYTES;
        let levels = &decoded[HEADER_BYTES..][..levels.min(LEVELS_MAX) * LEVEL_BYTES];
        return [&decoded[1..=LEVEL_BYTES], levels].concat();
    }
    let sent = message.date().filter(|date| date.is_valid()).map(mail_parser::DateTime::to_timestamp);
    let secs = sent.unwrap_or(received_unix_secs).saturating_add(EPOCH_SECS).max(0);
    let filetime = u64::try_from(secs).unwrap_or_default().saturating_mul(10_000_000).to_be_bytes();
    filetime[1..=LEVEL_BYTES].to_vec()
}

fn first_id(value: &HeaderValue<'_>) -> Option<String> {
    match value {
        HeaderValue::Text(id) => Some(id.to_string()),
        HeaderValue::TextList(ids) => ids.first().map(ToString::to_string),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::Tree;
    use super::*;

    fn of(raw: &str) -> ([u8; 16], Vec<u8>) {
        let tree = Tree::of(raw.as_bytes());
        let root = tree.root();
        (id(root.headers(), root.head), index(root.headers(), 0))
    }

    #[test]
    fn a_thread_has_one_id() {
        let (first, _) = of("Message-ID: <a@x>\r\n\r\n");
        let (answer, _) = of("Message-ID: <b@x>\r\nIn-Reply-To: <a@x>\r\n\r\n");
        let (third, _) = of("Message-ID: <c@x>\r\nIn-Reply-To: <b@x>\r\nReferences: <a@x>\r\n <b@x>\r\n\r\n");
        assert_eq!((first, first), (answer, third));
        let (other, _) = of("Message-ID: <d@x>\r\n\r\n");
        assert_ne!(first, other);
        assert_ne!(of("Subject: a\r\n\r\n").0, of("Subject: b\r\n\r\n").0);
    }

    #[test]
    fn the_index_is_a_time_and_outlooks_levels() {
        let (_, index) = of("Date: Mon, 3 Apr 2006 15:00:00 +0000\r\n\r\n");
        let filetime = (1_144_076_400_u64 + 11_644_473_600) * 10_000_000;
        assert_eq!(index, filetime.to_be_bytes()[1..6]);
        let thread: Vec<u8> = (0..32).collect();
        let raw = format!("Thread-Index: {}\r\n\r\n", BASE64.encode(&thread));
        assert_eq!(of(&raw).1, [&thread[1..6], &thread[22..32]].concat());
        assert_eq!(of("Thread-Index: ????\r\n\r\n").1.len(), 5);
    }
}
