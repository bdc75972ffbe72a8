//! The header of a message that leaves: what is missing is added, what speaks of the body goes when the body is made anew,
//! and an answer says what it answers (RFC 5322 3.6.4).

use std::borrow::Cow;

use directpush_common::mail::fields::{self, Fields};
use directpush_common::mail::trace;

/// Ids in References, at most: the first, and the last ones.
const REFERENCES_MAX: usize = 30;
/// Bytes of References that are taken over.
const REFERENCES_BYTES_MAX: usize = 8 * 1024;

/// What a message is completed with. The back end would add the same; then the copy in Sent Items would lack it.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// The user's own address, if it is known.
    pub own: Option<&'a str>,
    /// With angle brackets. The same for the same message, so that one handed in twice is seen to be one.
    pub message_id: &'a str,
    /// Unix seconds.
    pub now: i64,
}

/// The message with the fields that every message has.
pub fn complete(message: &[u8], with: &Completion<'_>) -> Vec<u8> {
    let mut added = Vec::new();
    let mut add = |name: &str, value: &str| added.extend(trace::with_field(b"", name, value));
    if let Some(own) = with.own.filter(|_| fields::first(message, "From").is_none()) {
        add("From", &format!("<{own}>"));
    }
    if fields::first(message, "Date").is_none() {
        add("Date", &trace::date(with.now));
    }
    let message = if fields::message_id(message).is_some() {
        Cow::Borrowed(message)
    } else {
        add("Message-ID", with.message_id);
        Cow::Owned(fields::without(message, &["Message-ID"]))
    };
    // Without it the other fields of MIME mean nothing (RFC 2045 4).
    let is_mime = Fields::of(&message).any(|field| starts_with(field.name, "Content-"));
    if is_mime && fields::first(&message, "MIME-Version").is_none() {
        add("MIME-Version", "1.0");
    }
    added.extend_from_slice(&message);
    added
}

/// The fields of a message but those that speak of its body, for another body.
pub(super) fn of_message(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in Fields::of(message) {
        let of_body = starts_with(field.name, "Content-") || field.is("MIME-Version");
        if !of_body && !field.name.is_empty() {
            push_with_crlf(&mut out, field.raw);
        }
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    out
}

/// The message with `In-Reply-To` and `References`, where it has none, to the original.
pub fn answering(message: &[u8], original: &[u8]) -> Vec<u8> {
    let mut added = Vec::new();
    if let Some(id) = fields::message_id(original) {
        if fields::first(message, "In-Reply-To").is_none() {
            added.extend(trace::with_field(b"", "In-Reply-To", &id));
        }
        if fields::first(message, "References").is_none() {
            let before =
                fields::first(original, "References").or_else(|| fields::first(original, "In-Reply-To"));
            let ids = ids(&before.unwrap_or_default(), &id);
            added.extend_from_slice(format!("References: {}\r\n", ids.join("\r\n ")).as_bytes());
        }
    }
    added.extend_from_slice(message);
    added
}

/// The ids of a References field and one more, each once, shortened in the middle.
fn ids(before: &str, last: &str) -> Vec<String> {
    let before = before.get(..REFERENCES_BYTES_MAX).unwrap_or(before);
    let mut ids: Vec<String> = Vec::new();
    for id in before.split('<').skip(1).filter_map(|piece| piece.split_once('>')) {
        let id = format!("<{}>", id.0);
        let sound = id.len() < 500 && !id.contains(|c: char| c.is_whitespace() || c.is_control());
        if sound && id != last && !ids.contains(&id) {
            ids.push(id);
        }
    }
    if ids.len() >= REFERENCES_MAX {
        ids.drain(1..ids.len() + 2 - REFERENCES_MAX);
    }
    ids.push(last.to_owned());
    ids
}

pub(super) fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// Some devices end lines with LF.
pub(super) fn push_with_crlf(out: &mut Vec<u8>, lines: &[u8]) {
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_what_is_there_stays() {
        let with = Completion { own: Some("alice@x"), message_id: "<1@x>", now: 784_111_777 };
        let whole = b"From: a@x\r\nDate: d\r\nMessage-ID: <7@x>\r\nTo: b@y\r\n\r\nhi".as_slice();
        assert_eq!(complete(whole, &with), whole);
        let bare = complete(b"To: b@y\nContent-Type: text/plain\n\nhi", &with);
        assert_eq!(
            String::from_utf8(bare).unwrap(),
            "From: <alice@x>\r\nDate: Sun, 06 Nov 1994 08:49:37 +0000\r\nMessage-ID: <1@x>\r\nMIME-Version: 1.0\r\n\
             To: b@y\nContent-Type: text/plain\n\nhi"
        );
    }

    #[test]
    fn a_thread_is_continued_and_does_not_grow_for_ever() {
        let long: Vec<String> = (0..100).map(|n| format!("<{n}@x>")).collect();
        let original = format!("Message-ID: <last@x>\r\nReferences: {}\r\n\r\n", long.join("\r\n\t"));
        let answer = answering(b"To: b@y\r\n\r\n", original.as_bytes());
        let references = fields::first(&answer, "References").unwrap().into_owned();
        assert_eq!(references.split_whitespace().count(), REFERENCES_MAX);
        assert!(references.starts_with("<0@x> <") && references.ends_with("<99@x> <last@x>"), "{references}");
        assert_eq!(fields::first(&answer, "In-Reply-To").unwrap(), "<last@x>");
        let set = b"In-Reply-To: <a@b>\r\nReferences: <a@b>\r\n\r\n";
        assert_eq!(answering(set, original.as_bytes()), set);
        assert_eq!(answering(b"To: b@y\r\n\r\n", b"Subject: x\r\n\r\n"), b"To: b@y\r\n\r\n");
    }
}
