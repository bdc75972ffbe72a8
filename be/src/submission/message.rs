//! A submitted message as it leaves: what is read of it, and what is changed in it (RFC 6409 8).
//!
//! Pure. Line ends become CRLF, so that no two readers see different messages in it; `Bcc` goes; a missing
//! `From`, `Date` or `Message-ID` is added; `Received` is put on top.
//!
//! Not here: whether the sender is the user, who the recipients are.

use std::borrow::Cow;

use directpush_common::mail::Address;
use directpush_common::mail::fields::{self, BadFields, Senders};
use directpush_common::mail::trace::{self, HOPS_MAX, Received};

/// What a message is completed with.
pub struct Completion<'a> {
    /// The user's own address.
    pub own: &'a str,
    /// This host's name.
    pub host: &'a str,
    /// How the log calls the message; a Message-ID is made of it.
    pub id: &'a str,
    /// Unix seconds.
    pub now: i64,
    pub recipients_max: usize,
}

/// A message that is ready to leave.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub senders: Senders,
    /// Each once; at least one.
    pub recipients: Vec<Address>,
    pub message_id: String,
    /// How many servers had it before.
    pub hops: usize,
    /// A machine wrote it: nobody is told of its failure (RFC 3834 2).
    pub automatic: bool,
    pub message: Vec<u8>,
}

/// Why a message cannot leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadMessage {
    #[error(transparent)]
    Fields(#[from] BadFields),
    #[error("the message has no recipient")]
    NoRecipients,
    /// RFC 5321 6.3.
    #[error("the message goes round in circles")]
    Loop,
}

/// Reads a message and makes it ready.
///
/// # Errors
/// See [`BadMessage`].
pub fn prepare(message: &[u8], with: &Completion<'_>) -> Result<Outgoing, BadMessage> {
    let message = with_crlf(message);
    let hops = trace::hops(&message);
    if hops > HOPS_MAX {
        return Err(BadMessage::Loop);
    }
    let recipients = fields::recipients(&message, with.recipients_max)?;
    if recipients.is_empty() {
        return Err(BadMessage::NoRecipients);
    }
    let mut left = fields::without(&message, &["Bcc", "Resent-Bcc", "Return-Path"]);
    if fields::first(&left, "Date").is_none() {
        left = trace::with_field(&left, "Date", &trace::date(with.now));
    }
    let message_id = if let Some(id) = fields::message_id(&left) {
        id
    } else {
        let id = format!("<{}@{}>", with.id, with.host);
        left = trace::with_field(&fields::without(&left, &["Message-ID"]), "Message-ID", &id);
        id
    };
    if fields::first(&left, "From").is_none() {
        left = trace::with_field(&left, "From", &format!("<{}>", with.own));
    }
    let senders = fields::senders(&left)?;
    let word = fields::first(&left, "Auto-Submitted");
    let automatic = word.is_some_and(|word| {
        let word = word.split([';', ' ', '(']).next().unwrap_or_default();
        !word.eq_ignore_ascii_case("no")
    });
    let received =
        Received { by: with.host, with: "HTTP", id: with.id, date: with.now, ..Received::default() };
    let message = [received.field().as_bytes(), &left].concat();
    Ok(Outgoing { senders, recipients, message_id, hops, automatic, message })
}

/// The message with every line ended by CRLF (RFC 5321 2.3.8), the last one too.
fn with_crlf(message: &[u8]) -> Cow<'_, [u8]> {
    let bare = |at: usize| match message[at] {
        b'\n' => at == 0 || message[at - 1] != b'\r',
        b'\r' => message.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    if message.ends_with(b"\r\n") && !(0..message.len()).any(bare) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    for (at, &byte) in message.iter().enumerate() {
        if bare(at) {
            out.extend_from_slice(b"\r\n");
        } else {
            out.push(byte);
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with() -> Completion<'static> {
        Completion { own: "alice@x", host: "be.x", id: "7f", now: 784_111_777, recipients_max: 3 }
    }

    fn text(message: &str) -> String {
        String::from_utf8(prepare(message.as_bytes(), &with()).unwrap().message).unwrap()
    }

    #[test]
    fn what_is_there_stays_and_bcc_goes() {
        let given =
            "From: A <a@x>\r\nTo: b@y\r\nBcc: hidden@y\r\nDate: today\r\nMessage-ID: <1@x>\r\n\r\nBcc: x\r\n";
        let left = text(given);
        let (received, rest) = left.split_once("+0000\r\n").unwrap();
        assert_eq!(received, "Received: by be.x with HTTP id 7f;\r\n\tSun, 06 Nov 1994 08:49:37 ");
        assert_eq!(rest, given.replace("Bcc: hidden@y\r\n", ""));
        let outgoing = prepare(given.as_bytes(), &with()).unwrap();
        assert_eq!(outgoing.recipients.iter().map(Address::key).collect::<Vec<_>>(), ["b@y", "hidden@y"]);
        assert_eq!((outgoing.message_id.as_str(), outgoing.hops, outgoing.automatic), ("<1@x>", 0, false));
    }

    #[test]
    fn what_is_missing_is_added() {
        let left = text("To: b@y\n\nhello");
        let (_, rest) = left.split_once("+0000\r\n").unwrap();
        assert_eq!(
            rest,
            "From: <alice@x>\r\nMessage-ID: <7f@be.x>\r\nDate: Sun, 06 Nov 1994 08:49:37 +0000\r\nTo: b@y\r\n\r\nhello\r\n"
        );
    }

    #[test]
    fn a_message_has_one_meaning_only() {
        assert_eq!(with_crlf(b"a\nb\rc\r\n\n.\n\r"), b"a\r\nb\r\nc\r\n\r\n.\r\n\r\n".as_slice());
        assert_eq!(with_crlf(b""), b"\r\n".as_slice());
        assert!(matches!(with_crlf(b"a\r\n\r\nb\r\n"), Cow::Borrowed(_)));
        let refused = |message: &str| prepare(message.as_bytes(), &with()).unwrap_err();
        assert_eq!(refused("From: a@x\r\n\r\n"), BadMessage::NoRecipients);
        assert_eq!(refused("From: a@x\r\nFrom: b@x\r\nTo: c@x\r\n\r\n"), BadFields::Twice("From").into());
        assert_eq!(refused("To: a@x, b@x, c@x, d@x\r\n\r\n"), BadFields::TooMany(3).into());
        let circling = format!("{}To: a@x\r\n\r\n", "Received: x\r\n".repeat(HOPS_MAX + 1));
        assert_eq!(refused(&circling), BadMessage::Loop);
    }

    #[test]
    fn what_a_machine_wrote_is_known() {
        for (field, wanted) in [("auto-replied (vacation)", true), ("no", false)] {
            let message = format!("Auto-Submitted: {field}\r\nTo: a@x\r\n\r\n");
            assert_eq!(prepare(message.as_bytes(), &with()).unwrap().automatic, wanted, "{field}");
        }
    }
}
