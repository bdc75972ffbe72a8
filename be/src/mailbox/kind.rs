//! What a resource is: an item of some class, or just a file that a DAV client keeps in a folder.
//!
//! A folder holds whatever is PUT into it, but only what is of its class is an item: has a place in the
//! change log, wakes a phone, and appears in its Sync. The media type says what a body claims to be,
//! or the name's extension where no type says it; a look at its beginning says whether it may be true.
//!
//! Not here: parsing items. What a device is shown of a message is the front end's work.

use directpush_common::dav::hierarchy::Class;

/// What a resource is. The codes are kept in records, for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// No item of any class.
    Other,
    Message,
    Event,
    Task,
    Contact,
    Note,
}

/// Bytes of a body that are looked at.
const LOOK_BYTES: usize = 64 * 1024;
/// Longest media type that is kept, in bytes.
const TYPE_BYTES_MAX: usize = 128;
const UNTYPED: &str = "application/octet-stream";

/// Media types by extension: the items', and what people keep beside them.
const EXTENSIONS: [(&str, &str); 15] = [
    ("eml", "message/rfc822"),
    ("ics", "text/calendar; charset=utf-8"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("xml", "application/xml"),
    ("json", "application/json"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("gif", "image/gif"),
    ("zip", "application/zip"),
];

impl Kind {
    const ALL: [Self; 6] = [Self::Other, Self::Message, Self::Event, Self::Task, Self::Contact, Self::Note];

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The kind that a folder of this class holds.
    pub fn of_class(class: Class) -> Self {
        match class {
            Class::Email => Self::Message,
            Class::Calendar => Self::Event,
            Class::Contacts => Self::Contact,
            Class::Tasks => Self::Task,
            Class::Notes => Self::Note,
        }
    }

    /// Whether it is an item in a folder of this class.
    pub fn fits(self, class: Class) -> bool {
        self == Self::of_class(class)
    }

    /// What a media type claims.
    pub fn of_type(content_type: &str) -> Self {
        match essence(content_type).as_str() {
            "message/rfc822" | "message/global" => Self::Message,
            "text/calendar" => Self::Event,
            "text/vcard" | "text/x-vcard" | "text/directory" => Self::Contact,
            "text/plain" => Self::Note,
            _ => Self::Other,
        }
    }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What was PUT under this name with this `Content-Type`, and the type to keep it with.
pub fn classify(name: &str, said: Option<&str>, body: &[u8]) -> (Kind, String) {
    let said = said
        .map(str::trim)
        .filter(|said| said.len() <= TYPE_BYTES_MAX && said.contains('/') && essence(said) != UNTYPED);
    let content_type = said.unwrap_or_else(|| by_extension(name)).to_owned();
    let kind = match Kind::of_type(&content_type) {
        Kind::Message if is_message(body) => Kind::Message,
        Kind::Event | Kind::Task => calendar_kind(body),
        Kind::Contact if begins_with(body, "BEGIN:VCARD") => Kind::Contact,
        Kind::Note if std::str::from_utf8(body).is_ok() => Kind::Note,
        _ => Kind::Other,
    };
    (kind, content_type)
}

fn by_extension(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    EXTENSIONS
        .iter()
        .find(|(known, _)| Some(*known) == extension.as_deref())
        .map_or(UNTYPED, |(_, kind)| kind)
}

fn begins_with(body: &[u8], line: &str) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    body.get(..line.len()).is_some_and(|start| start.eq_ignore_ascii_case(line.as_bytes()))
}

/// A message begins with a header field (RFC 5322 2.2).
fn is_message(body: &[u8]) -> bool {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let name = line[..colon].trim_ascii_end();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// A task if it holds one and no event (RFC 5545 3.6); a calendar without either is an event's, empty.
fn calendar_kind(body: &[u8]) -> Kind {
    if !begins_with(body, "BEGIN:VCALENDAR") {
        return Kind::Other;
    }
    let start = &body[..body.len().min(LOOK_BYTES)];
    let holds = |wanted: &str| {
        start
            .split(|byte| *byte == b'\n')
            .any(|line| line.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    if holds("BEGIN:VTODO") && !holds("BEGIN:VEVENT") { Kind::Task } else { Kind::Event }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, said: Option<&str>, body: &str, kind: Kind, content_type: &str) {
        assert_eq!(classify(name, said, body.as_bytes()), (kind, content_type.to_owned()), "{name}");
    }

    #[test]
    fn items_are_known_by_type_or_extension_and_by_their_beginning() {
        let mail = "Subject: x\r\n\r\nHello: you\r\n";
        check("a.eml", None, mail, Kind::Message, "message/rfc822");
        check("a", Some("Message/RFC822; x=y"), mail, Kind::Message, "Message/RFC822; x=y");
        check("a.eml", Some(UNTYPED), mail, Kind::Message, "message/rfc822");
        check("a", None, mail, Kind::Other, UNTYPED);
        check("a.eml", None, "This is\na text\n", Kind::Other, "message/rfc822");
        check("a.eml", None, "", Kind::Other, "message/rfc822");
        check("a.eml", Some("text/plain"), "x", Kind::Note, "text/plain");
        let todo = "BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nEND:VTODO\r\nEND:VCALENDAR\r\n";
        check("t.ics", None, todo, Kind::Task, "text/calendar; charset=utf-8");
        check("t.ics", None, &todo.replace("VTODO", "VEVENT"), Kind::Event, "text/calendar; charset=utf-8");
        check("c.vcf", Some("text/vcard"), "\u{feff}begin:vcard\r\n", Kind::Contact, "text/vcard");
        check("c.vcf", Some("rubbish"), "x", Kind::Other, "text/vcard; charset=utf-8");
        check("res", None, "", Kind::Other, UNTYPED);
    }

    #[test]
    fn codes_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(Kind::from_code(6), None);
    }
}
