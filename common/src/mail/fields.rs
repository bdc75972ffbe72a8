//! The header of a message as a run of fields (RFC 5322 2.2), and what is asked of it: senders, recipients, Message-ID,
//! marks of spam filters, whether a machine wrote it.

use std::borrow::Cow;

use super::address::{Address, BadAddress, addresses};

/// Bytes of a header, at most; what is beyond counts as body.
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Fields that are looked at, at most.
pub const FIELDS_MAX: usize = 5_000;

/// One field, or a line that is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'a> {
    /// Its name as written; empty for a line that is no field.
    pub name: &'a str,
    /// All its bytes, line ends included.
    pub raw: &'a [u8],
    /// What is behind the colon, line ends included.
    value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Whether it has this name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value on one line (RFC 5322 2.2.3), without white space around it. Bytes that are not UTF-8 become U+FFFD.
    pub fn value(&self) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(self.value);
        if text.trim().contains(['\r', '\n']) {
            Cow::Owned(text.trim().chars().filter(|c| !matches!(c, '\r' | '\n')).collect())
        } else {
            match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            }
        }
    }
}

/// The fields of a message, from the top.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Fields<'a> {
    /// The fields of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0, left: FIELDS_MAX }
    }

    /// The byte behind the last field that was given. At the end: where the empty line is, or the body.
    pub const fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = &self.message[self.at..];
        if self.left == 0 || rest.is_empty() || empty_line(rest) > 0 {
            return None;
        }
        let mut end = line(rest);
        while matches!(rest.get(end), Some(b' ' | b'\t')) && empty_line(&rest[end..]) == 0 {
            end += line(&rest[end..]);
        }
        if self.at + end > HEADER_BYTES_MAX {
            return None;
        }
        self.left -= 1;
        self.at += end;
        let raw = &rest[..end];
        let colon = raw.iter().position(|&byte| byte == b':').unwrap_or(0);
        // White space before the colon is obsolete, but was seen (RFC 5322 4.5).
        let name = raw[..colon].trim_ascii_end();
        let named = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        let name = if named { std::str::from_utf8(name).unwrap_or_default() } else { "" };
        let value = if name.is_empty() { raw } else { &raw[colon + 1..] };
        Some(Field { name, raw, value })
    }
}

/// Bytes of the first line with its end.
fn line(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |at| at + 1)
}

/// Bytes of the empty line that `text` begins with; 0 if it does not.
fn empty_line(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

/// Splits a message into its header and its body. The empty line between is in neither.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut fields = Fields::of(message);
    fields.by_ref().for_each(drop);
    let (header, rest) = message.split_at(fields.offset());
    (header, &rest[empty_line(rest)..])
}

/// The message without the fields of these names; everything else byte for byte.
pub fn without(message: &[u8], names: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut fields = Fields::of(message);
    for field in fields.by_ref() {
        if !names.iter().any(|name| field.is(name)) {
            out.extend_from_slice(field.raw);
        }
    }
    out.extend_from_slice(&message[fields.offset()..]);
    out
}

/// The value of the first field of this name.
pub fn first<'a>(message: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    Fields::of(message).find(|field| field.is(name)).map(|field| field.value())
}

/// The message's own id with its angle brackets, if it has one that can be one (RFC 5322 3.6.4).
pub fn message_id(message: &[u8]) -> Option<String> {
    let value = first(message, "Message-ID")?;
    let (_, rest) = value.split_once('<')?;
    let (id, _) = rest.split_once('>')?;
    let ok = !id.is_empty()
        && id.len() <= 900
        && !id.contains(|c: char| c.is_whitespace() || c.is_control() || c == '<');
    ok.then(|| format!("<{id}>"))
}

/// The message as it leaves: without `Bcc` and `Resent-Bcc`.
pub fn without_bcc(message: &[u8]) -> Vec<u8> {
    without(message, &["Bcc", "Resent-Bcc"])
}

/// Who says they wrote and sent the message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Senders {
    /// `From`: at least one.
    pub from: Vec<Address>,
    /// `Sender`, if there is one.
    pub sender: Option<Address>,
}

/// Why a message cannot be sent as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadFields {
    /// No `From`, or none with an address.
    #[error("the message has no sender")]
    NoFrom,
    /// More than one `From` or `Sender` field: readers would show different ones.
    #[error("the message has more than one {0} field")]
    Twice(&'static str),
    /// A list of addresses cannot be read.
    #[error("{0}: {1}")]
    Address(&'static str, BadAddress),
    /// More recipients than allowed.
    #[error("the message has more than {0} recipients")]
    TooMany(usize),
}

/// Reads `From` and `Sender`.
///
/// # Errors
/// See [`BadFields`]: whatever could be read in two ways is refused.
pub fn senders(message: &[u8]) -> Result<Senders, BadFields> {
    let only = |name: &'static str| -> Result<Option<Vec<Address>>, BadFields> {
        let mut found = Fields::of(message).filter(|field| field.is(name));
        let Some(field) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(BadFields::Twice(name));
        }
        addresses(&field.value()).map(Some).map_err(|error| BadFields::Address(name, error))
    };
    let from = only("From")?.filter(|from| !from.is_empty()).ok_or(BadFields::NoFrom)?;
    let sender = match only("Sender")?.unwrap_or_default().as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => return Err(BadFields::Twice("Sender")),
    };
    Ok(Senders { from, sender })
}

/// Whom the header names: `To`, `Cc` and `Bcc`, or of a message that is resent the `Resent-` ones alone; each address
/// once. For a submission without an envelope.
///
/// # Errors
/// See [`BadFields`].
pub fn recipients(message: &[u8], recipients_max: usize) -> Result<Vec<Address>, BadFields> {
    const PLAIN: [&str; 3] = ["To", "Cc", "Bcc"];
    const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let resent = Fields::of(message).any(|field| RESENT.iter().any(|name| field.is(name)));
    let names = if resent { RESENT } else { PLAIN };
    let mut found: Vec<Address> = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for field in Fields::of(message) {
        let Some(name) = names.into_iter().find(|name| field.is(name)) else { continue };
        for address in addresses(&field.value()).map_err(|error| BadFields::Address(name, error))? {
            if keys.insert(address.key()) {
                found.push(address);
            }
            if found.len() > recipients_max {
                return Err(BadFields::TooMany(recipients_max));
            }
        }
    }
    Ok(found)
}

/// Whether a machine wrote the message, a list brought it, or its sender wants no machine to answer it (RFC 3834 2, 5):
/// `Auto-Submitted` other than `no`, an empty `Return-Path`, reports, `Precedence`, the fields of lists (RFC 2369, RFC 2919),
/// and Exchange's `X-Auto-Response-Suppress`.
pub fn is_automatic(message: &[u8]) -> bool {
    Fields::of(message).any(|field| {
        let value = field.value();
        let word = value.split([';', ' ', '(']).next().unwrap_or_default().trim();
        let is_list = field.name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("List-"));
        let suppressed =
            |class: &str| ["all", "oof", "autoreply"].contains(&class.trim().to_lowercase().as_str());
        (field.is("Auto-Submitted") && !word.eq_ignore_ascii_case("no"))
            || (field.is("Return-Path") && value == "<>")
            || (field.is("Content-Type") && word.eq_ignore_ascii_case("multipart/report"))
            || (field.is("Precedence")
                && ["bulk", "junk", "list"].iter().any(|one| word.eq_ignore_ascii_case(one)))
            || (field.is("X-Auto-Response-Suppress") && value.split(',').any(suppressed))
            || is_list
    })
}

/// A field by which a filter before us marks spam: `X-Spam-Flag: YES` (SpamAssassin), `X-Spam: Yes` (rspamd).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpamMark {
    name: String,
    value: String,
}

impl std::str::FromStr for SpamMark {
    type Err = BadMark;
    fn from_str(text: &str) -> Result<Self, BadMark> {
        let (name, value) = text.split_once(':').ok_or(BadMark)?;
        let (name, value) = (name.trim(), value.trim());
        let ok = !name.is_empty() && !value.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(Self { name: name.to_owned(), value: value.to_owned() }) } else { Err(BadMark) }
    }
}

impl std::fmt::Display for SpamMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// A setting that is no field.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("write it as a field: \"X-Spam-Flag: YES\"")]
pub struct BadMark;

/// Whether a filter marked the message: a field of that name whose value is that word, or begins with it and goes on
/// with something that is no letter or digit (`X-Spam-Status: Yes, score=9`).
pub fn is_spam(message: &[u8], marks: &[SpamMark]) -> bool {
    !marks.is_empty()
        && Fields::of(message).any(|field| {
            marks.iter().filter(|mark| field.is(&mark.name)).any(|mark| {
                let value = field.value();
                value.get(..mark.value.len()).is_some_and(|start| start.eq_ignore_ascii_case(&mark.value))
                    && !value[mark.value.len()..].starts_with(char::is_alphanumeric)
            })
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &[u8] = b"Return-Path: <s@y>\r\nReceived: from a\r\n\tby b; now\r\nnonsense\r\nSubject : folded\r\n  text\r\n\
        message-id: <1@y>\r\nBCC: hidden@x,\r\n other@x\r\n\r\nBcc: not this\r\n";

    #[test]
    fn fields_are_found_where_they_stand() {
        let fields: Vec<_> =
            Fields::of(MESSAGE).map(|field| (field.name, field.value().into_owned())).collect();
        assert_eq!(fields[1], ("Received", "from a\tby b; now".to_owned()));
        assert_eq!(fields[2], ("", "nonsense".to_owned()));
        assert_eq!(fields[3], ("Subject", "folded  text".to_owned()));
        assert_eq!(fields.len(), 6);
        assert_eq!(split(MESSAGE).1, b"Bcc: not this\r\n");
        assert_eq!(message_id(MESSAGE).as_deref(), Some("<1@y>"));
        assert_eq!(first(MESSAGE, "SUBJECT").as_deref(), Some("folded  text"));
        assert_eq!(message_id(b"Message-ID: <a b>\r\n\r\n"), None);
    }

    #[test]
    fn what_is_not_removed_keeps_its_bytes() {
        let left = without_bcc(MESSAGE);
        let text = String::from_utf8_lossy(&left).into_owned();
        assert!(!text.contains("hidden") && !text.contains("other@x"));
        assert!(text.ends_with("message-id: <1@y>\r\n\r\nBcc: not this\r\n"));
        assert_eq!(without(b"", &["Bcc"]), b"");
        assert_eq!(without(b"\n\nbody", &["Bcc"]), b"\n\nbody");
        assert_eq!(without(b"Bcc: x", &["Bcc"]), b"");
    }

    #[test]
    fn senders_and_recipients() {
        let message = b"From: A <a@x>, b@x\r\nSender: a@x\r\nTo: c@x, G: d@x;\r\nCc: C@X\r\nBcc: e@x\r\n\r\n";
        let found = senders(message).unwrap();
        assert_eq!(found.from.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a@x", "b@x"]);
        assert_eq!(found.sender.unwrap().to_string(), "a@x");
        let to = recipients(message, 10).unwrap();
        assert_eq!(to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c@x", "d@x", "e@x"]);
        assert_eq!(recipients(message, 2), Err(BadFields::TooMany(2)));
        let resent = b"To: c@x\r\nResent-To: r@x\r\n\r\n";
        assert_eq!(recipients(resent, 9).unwrap().len(), 1);
        assert_eq!(senders(b"To: a@x\r\n\r\n"), Err(BadFields::NoFrom));
        assert_eq!(senders(b"From: a@x\r\nFROM: b@x\r\n\r\n"), Err(BadFields::Twice("From")));
        assert!(matches!(senders(b"From: a@x b@x\r\n\r\n"), Err(BadFields::Address("From", _))));
    }

    #[test]
    fn marks_of_filters() {
        let marks: Vec<SpamMark> = ["X-Spam-Flag: YES", "X-Spam: Yes", "X-Spam-Status: Yes"]
            .iter()
            .map(|m| m.parse().unwrap())
            .collect();
        for (header, expected) in [
            ("X-Spam-Flag: YES", true),
            ("x-spam-flag: yes", true),
            ("X-Spam-Flag: NO", false),
            ("X-Spam: Yes", true),
            ("X-Spam-Status: Yes, score=7.1\r\n required=5", true),
            ("X-Spam-Status: Yesterday", false),
            ("Subject: X-Spam: Yes", false),
        ] {
            assert_eq!(is_spam(format!("{header}\r\n\r\n").as_bytes(), &marks), expected, "{header}");
        }
        assert!(!is_spam(b"\r\nX-Spam: Yes\r\n", &marks));
        assert!("X-Spam".parse::<SpamMark>().is_err() && ": x".parse::<SpamMark>().is_err());
    }

    #[test]
    fn machines_are_not_answered() {
        for (header, expected) in [
            ("Auto-Submitted: auto-replied", true),
            ("Auto-Submitted: no", false),
            ("Return-Path: <>", true),
            ("Return-Path: <a@x>", false),
            ("Content-Type: multipart/report; report-type=x", true),
            ("Precedence: bulk", true),
            ("Precedence: first-class", false),
            ("List-Unsubscribe: <https://x/>", true),
            ("X-Auto-Response-Suppress: DR, OOF", true),
            ("X-Auto-Response-Suppress: DR, RN", false),
            ("Subject: Auto-Submitted: x", false),
        ] {
            assert_eq!(is_automatic(format!("{header}\r\n\r\n").as_bytes()), expected, "{header}");
        }
    }

    #[test]
    fn a_header_is_bounded() {
        let many = b"A: b\r\n".repeat(FIELDS_MAX + 10);
        assert_eq!(Fields::of(&many).count(), FIELDS_MAX);
        let long = [b"A: ".to_vec(), vec![b'x'; HEADER_BYTES_MAX], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(Fields::of(&long).count(), 0);
        assert_eq!(without(&long, &["A"]), long);
    }

    proptest! {
        #[test]
        fn fields_and_body_are_the_whole(message in "([A-Ca-c]{0,3}:? ?[a-z ]{0,4}\r?\n){0,8}(\r\n[a-z:\n]{0,9})?") {
            let message = message.as_bytes();
            let mut fields = Fields::of(message);
            let raw: Vec<u8> = fields.by_ref().flat_map(|field| field.raw.to_vec()).collect();
            prop_assert_eq!([&raw, &message[fields.offset()..]].concat(), message);
            prop_assert_eq!(without(message, &[]), message);
            let once = without(message, &["a"]);
            prop_assert!(!Fields::of(&once).any(|field| field.is("a")));
        }
    }
}
