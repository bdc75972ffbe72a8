//! Properties that are read out of a message itself: `urn:schemas:httpmail:` beyond what its record knows, and any
//! header field as `urn:schemas:mailheader:` followed by its name in lower case.
//!
//! Only messages are looked into, only when one of these is asked for by name, and only at their beginning: the
//! first [`HEAD_BYTES`] where header fields suffice, else the first [`WHOLE_BYTES`], in which text and the first
//! attachment are found. Parsing happens on the blocking pool; a message that cannot be parsed has none of these.
//!
//! Not here: what a phone is shown (the front end's), searching in text (`dp:find`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::dav::HTTPMAIL;
use directpush_common::dav::fragment::PropertyName;
use directpush_common::dav::xml::escape;
use mail_parser::{Address, HeaderForm, HeaderName, Message, MessageParser, MimeHeaders as _};

use super::reply::{self, Reply, iso_date};
use crate::error::Error;
use crate::mailbox::items::Member;
use crate::mailbox::kind::Kind;
use crate::mailbox::properties::Property;
use crate::server::Server;
use crate::store::{BodyId, StoreError};

/// The namespace of header fields as they are.
pub(super) const MAILHEADER: &str = "urn:schemas:mailheader:";
/// Bytes of a message that are read for its header fields.
const HEAD_BYTES: u64 = 32 << 10;
/// Bytes of a message that are read for its text and its attachments.
const WHOLE_BYTES: u64 = 256 << 10;
/// Messages in memory at a time.
const CHUNK: usize = 16;
/// Bytes of one value that are told, of a field and of the text.
const FIELD_BYTES_MAX: usize = 8 << 10;
const TEXT_BYTES_MAX: usize = 32 << 10;

/// Names in `urn:schemas:httpmail:` that come from header fields.
const FIELDS: [&str; 20] = [
    "subject",
    "normalizedsubject",
    "thread-topic",
    "from",
    "fromname",
    "fromemail",
    "sender",
    "sendername",
    "senderemail",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "displayto",
    "displaycc",
    "displaybcc",
    "date",
    "importance",
    "priority",
    "messageid",
];
/// Those that need more of the message.
const BODY: [&str; 2] = ["textdescription", "hasattachment"];

/// Whether a property is read out of messages.
pub(super) fn is_of_message(name: &PropertyName) -> bool {
    let local = name.name.as_str();
    match name.ns.as_str() {
        HTTPMAIL => FIELDS.contains(&local) || BODY.contains(&local),
        // What is a name both of a field and of an element.
        MAILHEADER => {
            local.starts_with(|c: char| c.is_ascii_alphabetic())
                && local.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// What of a message is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<Vec<PropertyName>>);

impl Asked {
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a PropertyName>) -> Self {
        let mut asked: Vec<PropertyName> = Vec::new();
        for name in names.into_iter().filter(|name| is_of_message(name)) {
            if !asked.contains(name) {
                asked.push(name.clone());
            }
        }
        Self(Arc::new(asked))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> u64 {
        let whole = self.0.iter().any(|name| name.ns == HTTPMAIL && BODY.contains(&name.name.as_str()));
        if whole { WHOLE_BYTES } else { HEAD_BYTES }
    }

    /// The properties of some members, in their order; none of those that are no messages.
    pub(super) async fn read(&self, server: &Server, page: &[Member]) -> Result<Vec<Vec<Property>>, Reply> {
        let mut all = Vec::with_capacity(page.len());
        for chunk in page.chunks(CHUNK) {
            let wanted = self.bytes();
            let most: u64 = chunk.iter().map(|member| member.item.size.min(wanted)).sum();
            let place = server.budget.take(most).await.ok_or_else(reply::busy)?;
            let mut beginnings = Vec::with_capacity(chunk.len());
            for member in chunk {
                let is_message = member.item.kind == Kind::Message;
                beginnings.push(if is_message { beginning(server, member, wanted).await? } else { None });
            }
            let asked = self.clone();
            let parsed = tokio::task::spawn_blocking(move || {
                let _place = place;
                beginnings.into_iter().map(|bytes| asked.properties(bytes.as_ref())).collect::<Vec<_>>()
            });
            all.extend(parsed.await.map_err(|_| reply::failure(&Error::Task))?);
        }
        Ok(all)
    }

    fn properties(&self, beginning: Option<&(Bytes, bool)>) -> Vec<Property> {
        let Some((bytes, cut)) = beginning else { return Vec::new() };
        // Messages are anybody's: one that the parser cannot take is one without properties.
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            let parser = MessageParser::default();
            let message =
                if self.bytes() == HEAD_BYTES { parser.parse_headers(bytes) } else { parser.parse(bytes) };
            let Some(message) = message else { return Vec::new() };
            let found = self.0.iter().filter_map(|name| {
                let value = value(&message, name, *cut)?;
                let (tag, ns) = (&name.name, escape(&name.ns));
                let xml = format!("<{tag} xmlns=\"{ns}\">{}</{tag}>", escape(&value));
                Some(Property { name: name.clone(), xml })
            });
            found.collect()
        }));
        parsed.unwrap_or_default()
    }
}

/// A message's first bytes, and whether there are more. None if they are gone: `fsck` will say so.
async fn beginning(server: &Server, member: &Member, bytes: u64) -> Result<Option<(Bytes, bool)>, Reply> {
    let bodies = &server.boxes.store.bodies;
    match bodies.get_range(BodyId(member.item.body), 0..bytes).await {
        Ok(found) => Ok(Some((found, member.item.size > bytes))),
        Err(StoreError::NoBody(_)) => Ok(None),
        Err(error) => Err(reply::failure(&error.into())),
    }
}

/// One property; `cut`: this is not all of the message.
fn value(message: &Message<'_>, name: &PropertyName, cut: bool) -> Option<String> {
    if name.ns == MAILHEADER {
        return field(message, &name.name);
    }
    let addresses = |name: &str| addressees(message, name);
    let listed = |name: &str, tell: fn(&Mailbox) -> String| -> Option<String> {
        let found = addresses(name)?;
        Some(found.iter().map(tell).collect::<Vec<_>>().join(", "))
    };
    let first = |name: &str, tell: fn(&Mailbox) -> String| addresses(name)?.first().map(tell);
    let found = match name.name.as_str() {
        "subject" => field(message, "subject")?,
        "normalizedsubject" => base_subject(message)?,
        "thread-topic" => field(message, "thread-topic").or_else(|| base_subject(message))?,
        "from" | "to" | "cc" | "bcc" | "reply-to" => listed(&name.name, Mailbox::whole)?,
        "sender" => listed("sender", Mailbox::whole).or_else(|| listed("from", Mailbox::whole))?,
        "fromname" => first("from", Mailbox::display)?,
        "fromemail" => first("from", |one| one.address.clone())?,
        "sendername" => first("sender", Mailbox::display).or_else(|| first("from", Mailbox::display))?,
        "senderemail" => {
            first("sender", |one| one.address.clone()).or_else(|| first("from", |one| one.address.clone()))?
        }
        "displayto" => listed("to", Mailbox::display)?,
        "displaycc" => listed("cc", Mailbox::display)?,
        "displaybcc" => listed("bcc", Mailbox::display)?,
        "date" => iso_date(message.date()?.to_timestamp()),
        "messageid" => field(message, "message-id")?,
        "importance" => importance(message).to_string(),
        "priority" => (importance(message) - 1).to_string(),
        "textdescription" => return Some(clip(message.body_text(0)?.trim().to_owned(), TEXT_BYTES_MAX)),
        "hasattachment" => u8::from(has_attachment(message, cut)).to_string(),
        _ => return None,
    };
    Some(clip(found, FIELD_BYTES_MAX))
}

/// A field's text, decoded and unfolded; of several, all, a line each.
fn field(message: &Message<'_>, name: &str) -> Option<String> {
    let name = HeaderName::parse(name)?;
    let values = message.header_as(name, HeaderForm::Text);
    let lines: Vec<_> = values.iter().filter_map(|value| value.as_text()).map(str::trim).collect();
    (!lines.is_empty()).then(|| clip(lines.join("\n"), FIELD_BYTES_MAX))
}

/// The subject without `Re:` and its kin.
fn base_subject(message: &Message<'_>) -> Option<String> {
    message.thread_name().map(str::to_owned)
}

struct Mailbox {
    name: Option<String>,
    address: String,
}

impl Mailbox {
    /// `Alice <alice@example.com>`.
    fn whole(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} <{}>", self.address),
            None => self.address.clone(),
        }
    }

    fn display(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.clone())
    }
}

/// Whoever a field names, those with an address; none if nobody.
fn addressees(message: &Message<'_>, name: &str) -> Option<Vec<Mailbox>> {
    let name = HeaderName::parse(name)?;
    let found: Vec<Mailbox> = message
        .header_values(name)
        .filter_map(|value| value.as_address())
        .flat_map(Address::iter)
        .filter_map(|one| {
            let address = one.address()?.to_owned();
            Some(Mailbox { name: one.name().filter(|name| !name.is_empty()).map(str::to_owned), address })
        })
        .collect();
    (!found.is_empty()).then_some(found)
}

/// 0 low, 1 normal, 2 high: by `Importance`, else by `X-Priority`, where 3 is normal.
fn importance(message: &Message<'_>) -> i8 {
    match field(message, "importance").map(|text| text.to_ascii_lowercase()).as_deref() {
        Some("low") => return 0,
        Some("high") => return 2,
        Some("normal") => return 1,
        _ => {}
    }
    match field(message, "x-priority").and_then(|text| text.bytes().next()) {
        Some(b'1' | b'2') => 2,
        Some(b'4' | b'5') => 0,
        _ => 1,
    }
}

/// Whether something is attached that is not shown with the text. A long message of mixed parts is taken to have
/// something where it was cut off.
fn has_attachment(message: &Message<'_>, cut: bool) -> bool {
    let attached = message.attachments().any(|part| {
        let disposition = part.content_disposition();
        let inline = disposition.is_some_and(mail_parser::ContentType::is_inline);
        // Text that nobody calls an attachment is text, the footer of a mailing list for one.
        let text = part.is_text() && disposition.is_none() && part.attachment_name().is_none();
        let shown = inline && part.content_id().is_some();
        !text && !shown
    });
    let mixed = message
        .content_type()
        .is_some_and(|kind| kind.ctype() == "multipart" && kind.subtype() == Some("mixed"));
    attached || (cut && mixed)
}

/// At most so many bytes, whole characters.
fn clip(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nTo: a@example.com, \"B, C\" <b@example.com>\r\n\
        Subject: Re: =?utf-8?b?R3LDvMOfZQ==?=\r\nDate: Sun, 06 Nov 1994 08:49:37 +0100\r\nX-Priority: 1 (Highest)\r\n\
        Received: one\r\nReceived: two\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/html\r\n\r\n<p>Hello &amp; bye</p>\r\n--b\r\n\
        Content-Type: image/png\r\nContent-Disposition: attachment; filename=a.png\r\n\r\nx\r\n--b--\r\n";

    fn read(names: &[(&str, &str)], bytes: &[u8], cut: bool) -> Vec<(String, String)> {
        let names: Vec<_> = names.iter().map(|(ns, name)| PropertyName::new(ns, name)).collect();
        let found = Asked::of(&names).properties(Some(&(Bytes::copy_from_slice(bytes), cut)));
        let text = |xml: &str| directpush_common::dav::xml::parse(xml.as_bytes()).unwrap().text;
        found.into_iter().map(|one| (one.name.name, text(&one.xml))).collect()
    }

    #[track_caller]
    fn check(ns: &str, name: &str, expected: Option<&str>) {
        let found = read(&[(ns, name)], MAIL, false);
        assert_eq!(found.first().map(|(_, value)| value.as_str()), expected, "{name}");
    }

    #[test]
    fn fields_are_decoded() {
        check(HTTPMAIL, "subject", Some("Re: Grüße"));
        check(HTTPMAIL, "normalizedsubject", Some("Grüße"));
        check(HTTPMAIL, "thread-topic", Some("Grüße"));
        check(HTTPMAIL, "from", Some("Jörg <joerg@example.org>"));
        check(HTTPMAIL, "fromname", Some("Jörg"));
        check(HTTPMAIL, "senderemail", Some("joerg@example.org"));
        check(HTTPMAIL, "to", Some("a@example.com, B, C <b@example.com>"));
        check(HTTPMAIL, "displayto", Some("a@example.com, B, C"));
        check(HTTPMAIL, "cc", None);
        check(HTTPMAIL, "date", Some("1994-11-06T07:49:37Z"));
        check(HTTPMAIL, "importance", Some("2"));
        check(HTTPMAIL, "priority", Some("1"));
        check(MAILHEADER, "subject", Some("Re: Grüße"));
        check(MAILHEADER, "received", Some("one\ntwo"));
        check(MAILHEADER, "x-none", None);
        check(HTTPMAIL, "read", None);
    }

    #[test]
    fn text_and_attachments_are_found_in_the_beginning() {
        check(HTTPMAIL, "textdescription", Some("Hello & bye"));
        check(HTTPMAIL, "hasattachment", Some("1"));
        let whole = [(HTTPMAIL, "hasattachment"), (HTTPMAIL, "subject")];
        let one =
            |text: &str| vec![("hasattachment".to_owned(), text.to_owned()), ("subject".into(), "x".into())];
        assert_eq!(read(&whole, b"Subject: x\r\n\r\ntext", true), one("0"));
        let mixed = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext";
        assert_eq!(read(&whole, mixed, true), one("1"));
        assert_eq!(read(&whole, mixed, false), one("0"));
    }

    #[test]
    fn any_bytes_are_taken() {
        for bytes in [&b""[..], b"\0\xff", b"no header", &b"(".repeat(40_000), &b"From: ".repeat(5000)] {
            read(&[(HTTPMAIL, "from"), (HTTPMAIL, "textdescription"), (MAILHEADER, "x")], bytes, true);
        }
        let long = format!("Subject: {}\r\n\r\n", "ä".repeat(20_000));
        assert_eq!(read(&[(HTTPMAIL, "subject")], long.as_bytes(), false)[0].1.len(), FIELD_BYTES_MAX);
    }
}
