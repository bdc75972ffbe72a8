//! Automatic replies of a person who is away (RFC 3834): which messages may have one, and what it looks like.
//!
//! Pure. Whoever could be a machine is not answered (RFC 3834 2), a reply goes to the envelope's sender (4), with an empty
//! reverse path (3.3), and says of itself that a machine wrote it (5), so that no two machines answer each other.
//!
//! Not here: what the user wants said (`oof`), how often one sender is answered, sending.

use std::fmt::Write as _;

use data_encoding::BASE64;

use super::address::{Address, addresses};
use super::dsn::{folded, word};
use super::fields::{self, Fields};
use super::oof::{OofBody, OofReply};
use super::trace::date;

/// Addresses of a header that are looked at, at most.
pub const ADDRESSED_MAX: usize = 200;
/// Characters of a subject that are repeated.
const SUBJECT_CHARS_MAX: usize = 300;
/// Message-IDs in `References`, at most: the first and the last ones.
const REFERENCES_MAX: usize = 20;
/// What one encoded word holds, in bytes before its encoding (RFC 2047 2: 75 characters in all).
const WORD_BYTES: usize = 42;
/// Characters of base64 in a line (RFC 2045 6.8).
const BASE64_LINE: usize = 76;

/// Why a message has no reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Silence {
    /// Its reverse path is empty or no address: a report.
    NoSender,
    /// A machine or a list sent it, or its sender wants no reply.
    Automatic,
    /// The sender's address is one that no person reads.
    Machine,
    /// It names the user neither in `To` nor in `Cc`.
    NotAddressed,
}

/// The address to which a reply to this message would go. `sender`: the envelope's reverse path without its brackets.
///
/// # Errors
/// There must be no reply.
pub fn answerable(sender: &str, message: &[u8]) -> Result<Address, Silence> {
    let sender: Address = sender.parse().map_err(|_| Silence::NoSender)?;
    if is_machine(&sender) {
        return Err(Silence::Machine);
    }
    if fields::is_automatic(message) {
        return Err(Silence::Automatic);
    }
    Ok(sender)
}

/// Whether this is an address from which machines write, or to which lists want their bounces (RFC 3834 2).
fn is_machine(address: &Address) -> bool {
    const NAMES: [&str; 11] = [
        "mailer-daemon",
        "postmaster",
        "listserv",
        "majordomo",
        "noreply",
        "no-reply",
        "no_reply",
        "donotreply",
        "do-not-reply",
        "bounce",
        "bounces",
    ];
    let local = address.local().to_lowercase();
    let name = local.split('+').next().unwrap_or_default();
    NAMES.contains(&name)
        || local.starts_with("owner-")
        || ["-owner", "-request", "-relay", "-bounces", "-bounce", "-noreply", "-no-reply"]
            .iter()
            .any(|end| name.ends_with(end))
        // Addresses that lists make for each bounce (VERP): list-bounces+someone=x@y.
        || (local.contains('=') && (local.contains("bounce") || local.starts_with("prvs=")))
}

/// Whom the message names in `To` and `Cc`, or in the `Resent-` ones; of those, the first [`ADDRESSED_MAX`]. A field that
/// cannot be read names nobody.
pub fn addressed(message: &[u8]) -> Vec<Address> {
    const NAMES: [&str; 4] = ["To", "Cc", "Resent-To", "Resent-Cc"];
    Fields::of(message)
        .filter(|field| NAMES.iter().any(|name| field.is(name)))
        .flat_map(|field| addresses(&field.value()).unwrap_or_default())
        .take(ADDRESSED_MAX)
        .collect()
}

/// A reply in the making.
#[derive(Clone, Copy, Debug)]
pub struct AutoReply<'a> {
    /// The user, by the address to which the message was written.
    pub from: &'a Address,
    /// What [`answerable`] gave.
    pub to: &'a Address,
    /// This host, for the Message-ID.
    pub host: &'a str,
    /// A random word of letters and digits, for the same.
    pub unique: &'a str,
    /// Now, Unix seconds.
    pub date: i64,
    /// The message that is answered; its header is enough.
    pub message: &'a [u8],
    /// What is said.
    pub reply: &'a OofReply,
}

/// Writes the reply (RFC 3834 3), its lines ended by CRLF and none too long.
pub fn compose(reply: &AutoReply<'_>) -> Vec<u8> {
    let unique: String = reply.unique.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    let subject = fields::first(reply.message, "Subject").unwrap_or_default();
    let mut out = String::new();
    let _ = write!(
        out,
        "From: <{}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <auto-{unique}@{}>\r\n",
        reply.from,
        reply.to,
        subject_of(&subject),
        date(reply.date),
        word(reply.host),
    );
    if let Some(id) = fields::message_id(reply.message) {
        let _ = write!(out, "In-Reply-To: {id}\r\nReferences: {}\r\n", references(reply.message, &id));
    }
    let kind = match reply.reply.body_type {
        OofBody::Text => "plain",
        OofBody::Html => "html",
    };
    let _ = write!(
        out,
        "Auto-Submitted: auto-replied (vacation)\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    // The canonical form of text has CRLF, which then is encoded (RFC 2045 6.8).
    let mut text = reply.reply.text.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n");
    if !text.ends_with('\n') {
        text.push_str("\r\n");
    }
    let encoded = BASE64.encode(text.as_bytes());
    for at in (0..encoded.len()).step_by(BASE64_LINE) {
        out.push_str(&encoded[at..encoded.len().min(at + BASE64_LINE)]);
        out.push_str("\r\n");
    }
    out.into_bytes()
}

/// `Auto: ` and the subject (RFC 3834 3.1.5), on lines of bounded length.
fn subject_of(subject: &str) -> String {
    let mut subject: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
    // An encoded word cut in the middle is none.
    if let Some(at) = subject.rfind("=?")
        && !subject[at..].ends_with("?=")
        && !subject[at..].contains("?= ")
        && subject.chars().count() == SUBJECT_CHARS_MAX
    {
        subject.truncate(at);
    }
    let text = format!("Auto: {}", if subject.trim().is_empty() { "(no subject)" } else { subject.trim() });
    let too_long = text.split_whitespace().any(|word| word.len() > 400);
    if text.is_ascii() && !too_long { folded(&text) } else { encoded_words(&text) }
}

/// A text as encoded words of RFC 2047, cut between characters.
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut piece = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if piece.len() + c.len_utf8() > WORD_BYTES {
            words.push(std::mem::take(&mut piece));
        }
        piece.push(c);
    }
    words.push(piece);
    let words: Vec<String> =
        words.iter().map(|word| format!("=?utf-8?B?{}?=", BASE64.encode(word.as_bytes()))).collect();
    words.join("\r\n\t")
}

/// The thread so far and the message itself (RFC 5322 3.6.4), one to a line.
fn references(message: &[u8], id: &str) -> String {
    let before = fields::first(message, "References").or_else(|| fields::first(message, "In-Reply-To"));
    let before = before.unwrap_or_default();
    let is_id = |word: &&str| {
        word.len() <= 250
            && word.starts_with('<')
            && word.ends_with('>')
            && word.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let mut ids: Vec<&str> = before.split_whitespace().filter(is_id).filter(|word| *word != id).collect();
    if ids.len() >= REFERENCES_MAX {
        ids.drain(1..ids.len() + 2 - REFERENCES_MAX);
    }
    ids.push(id);
    ids.join("\r\n\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_who_could_be_a_machine_is_answered() {
        let plain = b"Subject: x\r\n\r\n";
        for sender in [
            "",
            "<>",
            "no address",
            "MAILER-DAEMON@y",
            "noreply@y",
            "No-Reply@y",
            "noreply+x@y",
            "shop-noreply@y",
            "owner-list@y",
            "list-owner@y",
            "list-request@y",
            "list-bounces@y",
            "list-bounces+bob=x@y",
            "prvs=12345=bob@y",
            "listserv@y",
        ] {
            assert!(answerable(sender, plain).is_err(), "{sender}");
        }
        for sender in ["bob@y", "requests@y", "owner@y", "b.ounce@y", "a=b@y"] {
            assert_eq!(answerable(sender, plain), Ok(address(sender)));
        }
        for field in [
            "Auto-Submitted: auto-generated",
            "Auto-Submitted: auto-replied (vacation)",
            "Precedence: list",
            "List-Id: <a.b>",
            "List-Post: <mailto:a@b>",
            "Content-Type: multipart/report",
            "X-Auto-Response-Suppress: All",
        ] {
            let message = format!("{field}\r\n\r\n");
            assert_eq!(answerable("bob@y", message.as_bytes()), Err(Silence::Automatic), "{field}");
        }
        assert_eq!(answerable("bob@y", b"Auto-Submitted: no\r\n\r\n"), Ok(address("bob@y")));
    }

    #[test]
    fn only_to_and_cc_say_who_is_addressed() {
        let message = b"To: A <a@x>, b@x\r\nCC: G: c@x;\r\nBcc: d@x\r\nReply-To: e@x\r\nresent-to: f@x\r\nTo: odd <<\r\n\r\nTo: g@x\r\n";
        let found: Vec<String> = addressed(message).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a@x", "b@x", "c@x", "f@x"]);
        let many = vec!["a@x"; ADDRESSED_MAX + 50].join(", ");
        assert_eq!(addressed(format!("To: {many}\r\n\r\n").as_bytes()).len(), ADDRESSED_MAX);
    }

    fn composed(message: &str, reply: &OofReply) -> String {
        let (from, to) = (address("alice@x"), address("bob@y"));
        let reply = AutoReply {
            from: &from,
            to: &to,
            host: "be.x",
            unique: "7f",
            date: 784_111_777,
            message: message.as_bytes(),
            reply,
        };
        String::from_utf8(compose(&reply)).unwrap()
    }

    fn away() -> OofReply {
        OofReply::new("Back on Monday.\nAlice", OofBody::Text).unwrap()
    }

    #[test]
    fn a_reply_has_the_fields_of_rfc_3834() {
        let text =
            composed("Subject: Lunch?\r\nMessage-ID: <2@y>\r\nReferences: <0@y>\r\n <1@y>\r\n\r\n", &away());
        assert_eq!(
            text,
            "From: <alice@x>\r\nTo: <bob@y>\r\nSubject: Auto: Lunch?\r\nDate: Sun, 06 Nov 1994 08:49:37 +0000\r\n\
             Message-ID: <auto-7f@be.x>\r\nIn-Reply-To: <2@y>\r\nReferences: <0@y>\r\n\t<1@y>\r\n\t<2@y>\r\n\
             Auto-Submitted: auto-replied (vacation)\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             QmFjayBvbiBNb25kYXkuDQpBbGljZQ0K\r\n"
        );
        assert!(fields::is_automatic(text.as_bytes()), "no machine answers a reply");
        let html = OofReply::new("<p>x</p>", OofBody::Html).unwrap();
        let text = composed("\r\n", &html);
        assert!(text.contains("Content-Type: text/html; charset=utf-8\r\n"), "{text}");
        assert!(text.contains("Subject: Auto: (no subject)\r\n") && !text.contains("References"), "{text}");
    }

    #[test]
    fn subjects_from_outside_are_bounded_and_add_no_field() {
        for subject in [
            "Grüße aus Köln",
            "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
            "x\r\n\tfolded",
            "a\u{0}b\u{7}c",
            &"x".repeat(3000),
            &"words and ".repeat(300),
            &"é".repeat(3000),
            &"=?utf-8?B?eHh4eHh4?= ".repeat(100),
        ] {
            let text = composed(&format!("Subject: {subject}\r\n\r\n"), &away());
            let names: Vec<&str> = Fields::of(text.as_bytes()).map(|field| field.name).collect();
            assert_eq!(names.len(), 10, "{subject}: {names:?}");
            assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 500), "{text}");
            let value = fields::first(text.as_bytes(), "Subject").unwrap().into_owned();
            assert!(value.starts_with("Auto:") || value.starts_with("=?utf-8?B?QXV0bzog"), "{value}");
            let is_whole =
                |word: &str| !word.contains("=?") || (word.starts_with("=?") && word.ends_with("?="));
            assert!(value.split_whitespace().all(is_whole), "{value}");
        }
    }

    #[test]
    fn a_long_thread_keeps_its_ends() {
        let ids: Vec<String> = (0..200).map(|n| format!("<{n}@y>")).collect();
        let text =
            composed(&format!("Message-ID: <me@y>\r\nReferences: {}\r\n\r\n", ids.join("\r\n ")), &away());
        let value = fields::first(text.as_bytes(), "References").unwrap().into_owned();
        let kept: Vec<&str> = value.split_whitespace().collect();
        assert_eq!((kept.len(), kept[0], kept[18], kept[19]), (REFERENCES_MAX, "<0@y>", "<199@y>", "<me@y>"));
        let odd = composed("Message-ID: <me@y>\r\nReferences: evil <a b> <ok@y>\r\n\r\n", &away());
        assert!(odd.contains("References: <ok@y>\r\n\t<me@y>\r\n"), "{odd}");
    }
}
