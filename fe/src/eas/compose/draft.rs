//! Drafts: a message as a device of 16.0 and later writes it, property by property, made into MIME ([MS-ASEMAIL] properties,
//! [MS-ASAIRS] Body and Attachments).
//!
//! A change names only what is different: fields that are not named keep their bytes, and so does the whole body where
//! neither it nor the attachments change. Attachments that stay are copied as they are encoded.
//!
//! Not here: where drafts are kept and how they leave (`eas::draft`).

use std::borrow::Cow;

use directpush_common::mail::fields;
use directpush_common::wbxml::tags::{air_sync_base as base, email, email2};
use directpush_common::wbxml::{Content, Element, Tag};
use mail_builder::headers::{Header as _, address::Address, text::Text};
use mail_builder::mime::{BodyPart, MimePart};
use mail_parser::MessageParser;
use mail_parser::decoders::html::html_to_text;

use super::{ComposeFault, header, must_stay, parts, quote};
use crate::eas::render::{self, File};

/// Recipients of one field, and attachments, at most.
const ADDRESSES_MAX: usize = 1_000;
const ATTACHMENTS_MAX: usize = 256;
/// Bytes of a property of the header, and of an attachment's name, Content-ID and such.
const PROPERTY_BYTES_MAX: usize = 64 * 1024;
const NAME_BYTES_MAX: usize = 255;

/// What a device wrote of a draft.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The elements.
    pub data: &'a [Element],
    /// The message that they change.
    pub before: Option<&'a [u8]>,
    /// What FileReferences begin with: the item's server id.
    pub reference: &'a str,
}

/// The body that was written.
enum Words {
    Kept,
    New(quote::Words),
    /// Type 4: a message, of which the body counts, and what no property names.
    Mime(Vec<u8>),
}

/// An attachment that was added.
struct Added {
    kind: String,
    name: String,
    content_id: String,
    shown: bool,
    bytes: Vec<u8>,
}

/// The draft. `bytes_max`: of the result.
///
/// # Errors
/// [`ComposeFault`]: what was written is no message, or too large.
pub fn draft(written: &Written<'_>, bytes_max: usize) -> Result<Vec<u8>, ComposeFault> {
    let words = words(written.data)?;
    let before: &[u8] = match &words {
        Words::Mime(mime) => mime,
        _ => written.before.unwrap_or_default(),
    };
    let (mut out, replaced) = fields_of(written.data)?;
    let before = fields::without(before, &replaced);
    let added = added(written.data)?;
    let deleted = deleted(written)?;
    let kept = match words {
        Words::New(_) => false,
        Words::Kept | Words::Mime(_) => added.is_empty() && deleted.is_empty() && !before.is_empty(),
    };
    if kept {
        out.extend_from_slice(&before);
        return within(out, bytes_max);
    }
    let parsed = MessageParser::default().parse(&before);
    let (text, html) = match words {
        Words::New(words) => (words.text, words.html),
        _ if parsed.as_ref().is_some_and(must_stay) => return Err(ComposeFault::Unreadable),
        _ => parsed.as_ref().map(quote::words).map(|words| (words.text, words.html)).unwrap_or_default(),
    };
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    let files = render::files(&before).into_iter().filter(|file| !deleted.contains(&file.number));
    let count = files.fold(added.len(), |count, File { shown: is_shown, part, .. }| {
        let part = MimePart::raw(BodyPart::Binary(part.into()));
        let list = if is_shown { &mut shown } else { &mut others };
        list.push(part);
        count + 1
    });
    if count > ATTACHMENTS_MAX {
        return Err(ComposeFault::Unreadable);
    }
    for file in added {
        let is_shown = file.shown;
        let part = file.part(bytes_max)?;
        let list = if is_shown { &mut shown } else { &mut others };
        list.push(part);
    }
    out.extend_from_slice(&header::of_message(&before));
    super::body(quote::with_crlf(&text), html, shown, others).write_part(&mut out);
    within(out, bytes_max)
}

fn within(out: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, ComposeFault> {
    if out.len() > bytes_max { Err(ComposeFault::TooLarge) } else { Ok(out) }
}

/// Which of a draft's attachments were just added, in the order in which they were written: their numbers. `before`: as
/// [`Written`].
pub fn numbers_of_added(data: &[Element], mime: &[u8]) -> Vec<(String, usize)> {
    let added = attachments(data, base::ADD);
    let files = render::files(mime);
    // They stand behind those that were there, each kind by itself.
    let last = |shown: bool| {
        let mut wanted: Vec<_> = added.iter().filter(|it| is_shown(it) == shown).collect();
        let mut found: Vec<_> = files.iter().filter(|file| file.shown == shown).collect();
        let skipped = found.len().saturating_sub(wanted.len());
        found.drain(..skipped);
        wanted.truncate(found.len());
        let numbered = wanted.into_iter().zip(found);
        numbered
            .map(|(it, file)| (text_of(it, base::CLIENT_ID).unwrap_or_default(), file.number))
            .collect::<Vec<_>>()
    };
    [last(true), last(false)].concat()
}

fn property(data: &[Element], tag: Tag) -> Option<&Element> {
    data.iter().find(|element| element.tag == tag)
}

fn text_of(parent: &Element, tag: Tag) -> Option<String> {
    parent.child(tag).map(|child| child.own_text().into_owned())
}

/// The fields that are new, and the names of those that go.
fn fields_of(data: &[Element]) -> Result<(Vec<u8>, Vec<&'static str>), ComposeFault> {
    let (mut out, mut replaced) = (Vec::new(), Vec::new());
    let text = |tag| match property(data, tag).map(Element::own_text) {
        Some(text) if text.len() > PROPERTY_BYTES_MAX => Err(ComposeFault::Unreadable),
        Some(text) => Ok(Some(text.replace(char::is_control, " "))),
        None => Ok(None),
    };
    let lists = [(email::TO, "To"), (email::CC, "Cc"), (email2::BCC, "Bcc"), (email::REPLY_TO, "Reply-To")];
    for (tag, name) in lists {
        let Some(text) = text(tag)? else { continue };
        replaced.push(name);
        let list = addresses(&text)?;
        if !list.is_empty() {
            out.extend_from_slice(format!("{name}: ").as_bytes());
            Address::new_list(list).write_header(&mut out, name.len() + 2);
        }
    }
    if let Some(subject) = text(email::SUBJECT)? {
        replaced.push("Subject");
        out.extend_from_slice(b"Subject: ");
        Text::new(subject).write_header(&mut out, "Subject: ".len());
    }
    if let Some(importance) = text(email::IMPORTANCE)? {
        replaced.extend(["Importance", "Priority", "X-Priority", "X-MSMail-Priority"]);
        match importance.trim() {
            "0" => out.extend_from_slice(b"Importance: low\r\n"),
            "2" => out.extend_from_slice(b"Importance: high\r\n"),
            _ => {}
        }
    }
    Ok((out, replaced))
}

/// The addresses of a property, read as a field would be. One that is not written to its end yet stays as it is.
fn addresses(text: &str) -> Result<Vec<Address<'static>>, ComposeFault> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let field = format!("To: {}\r\n\r\n", with_commas(text));
    let parsed = MessageParser::default().parse(field.as_bytes()).ok_or(ComposeFault::Unreadable)?;
    let sound = |address: &str| {
        !address.is_empty()
            && !address.contains(|c: char| c.is_whitespace() || c.is_control() || "<>,;:\"".contains(c))
    };
    let mut list = Vec::new();
    for one in parsed.to().into_iter().flat_map(mail_parser::Address::iter) {
        let (name, address) = match (one.name.as_deref(), one.address.as_deref()) {
            (name, Some(address)) => (name, address),
            (Some(name), None) => (None, name),
            (None, None) => continue,
        };
        if !sound(address) {
            return Err(ComposeFault::Unreadable);
        }
        list.push(Address::new_address(name.map(str::to_owned), address.to_owned()));
    }
    if list.len() > ADDRESSES_MAX { Err(ComposeFault::Unreadable) } else { Ok(list) }
}

/// Devices separate by semicolons what fields separate by commas.
fn with_commas(text: &str) -> String {
    let mut quoted = false;
    let comma = |c| {
        quoted ^= c == '"';
        if c == ';' && !quoted { ',' } else { c }
    };
    text.chars().map(comma).collect()
}

fn words(data: &[Element]) -> Result<Words, ComposeFault> {
    let Some(body) = property(data, base::BODY) else { return Ok(Words::Kept) };
    let bytes = body.child(base::DATA).map(own_bytes).unwrap_or_default();
    let text = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
    match text_of(body, base::TYPE).as_deref().map(str::trim) {
        None | Some("1") => Ok(Words::New(quote::Words { text: text(bytes), html: None })),
        Some("2") => {
            let html = text(bytes);
            Ok(Words::New(quote::Words { text: html_to_text(&html), html: Some(html) }))
        }
        Some("4") => Ok(Words::Mime(bytes.into_owned())),
        Some(_) => Err(ComposeFault::Unreadable),
    }
}

/// What an element holds, as opaque bytes or as text.
fn own_bytes(element: &Element) -> Cow<'_, [u8]> {
    match element.content.as_slice() {
        [Content::Opaque(bytes)] => Cow::Borrowed(bytes),
        [Content::Text(text)] => Cow::Borrowed(text.as_bytes()),
        _ => Cow::Owned(element.own_text().into_owned().into_bytes()),
    }
}

/// Children of Attachments.
fn attachments(data: &[Element], tag: Tag) -> Vec<&Element> {
    let all = data.iter().filter(|element| element.tag == base::ATTACHMENTS);
    all.flat_map(Element::children).filter(|child| child.tag == tag).collect()
}

/// The numbers of the attachments that go.
fn deleted(written: &Written<'_>) -> Result<Vec<usize>, ComposeFault> {
    let number = |element: &Element| {
        let reference = text_of(element, base::FILE_REFERENCE)?;
        let (item, number) = reference.trim().rsplit_once(':')?;
        number.parse().ok().filter(|_| item == written.reference)
    };
    let all = attachments(written.data, base::DELETE);
    all.into_iter().map(|element| number(element).ok_or(ComposeFault::Unreadable)).collect()
}

fn added(data: &[Element]) -> Result<Vec<Added>, ComposeFault> {
    let all = attachments(data, base::ADD);
    if all.len() > ATTACHMENTS_MAX {
        return Err(ComposeFault::Unreadable);
    }
    all.into_iter().map(|element| Added::read(element).ok_or(ComposeFault::Unreadable)).collect()
}

/// Whether the text shows it: an image with an id that says so.
fn is_shown(element: &Element) -> bool {
    let is = |tag, text: &str| text_of(element, tag).is_some_and(|it| it.trim() == text);
    let image = text_of(element, base::CONTENT_TYPE).is_some_and(|kind| kind.trim().starts_with("image/"));
    image && is(base::IS_INLINE, "1") && text_of(element, base::CONTENT_ID).is_some_and(|id| is_id(&id))
}

fn is_id(id: &str) -> bool {
    let sound = |c: char| c.is_ascii_graphic() && !"<>\"\\()".contains(c);
    !id.is_empty() && id.len() <= NAME_BYTES_MAX && id.chars().all(sound)
}

impl Added {
    fn read(element: &Element) -> Option<Self> {
        let text = |tag| text_of(element, tag).unwrap_or_default();
        let short = |text: &str| {
            let end = text.floor_char_boundary(NAME_BYTES_MAX);
            text[..end].replace(char::is_control, " ")
        };
        let bytes = match element.child(base::CONTENT)?.content.as_slice() {
            [Content::Opaque(bytes)] => bytes.clone(),
            [] => Vec::new(),
            // As text it is base64.
            _ => {
                let text = element.child(base::CONTENT)?.own_text();
                let dense: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
                data_encoding::BASE64.decode(&dense).ok()?
            }
        };
        let kind = text(base::CONTENT_TYPE).trim().to_ascii_lowercase();
        let content_id = text(base::CONTENT_ID);
        Some(Self {
            kind: if is_type(&kind) { kind } else { "application/octet-stream".to_owned() },
            name: short(&text(base::DISPLAY_NAME)),
            content_id: if is_id(&content_id) { content_id } else { String::new() },
            shown: is_shown(element),
            bytes,
        })
    }

    fn part<'x>(self, bytes_max: usize) -> Result<MimePart<'x>, ComposeFault> {
        if self.kind == "message/rfc822" {
            let mut room = bytes_max;
            return parts::whole(&self.bytes, &mut room);
        }
        let part = MimePart::new(self.kind, self.bytes);
        let part = if self.content_id.is_empty() { part } else { part.cid(self.content_id) };
        Ok(if self.shown { part.inline() } else { part.attachment(self.name) })
    }
}

/// `type/subtype` of tokens (RFC 2045 5.1), of what can be a leaf.
fn is_type(text: &str) -> bool {
    let token = |part: &str| {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        (1..100).contains(&part.len()) && part.bytes().all(sound)
    };
    let leaf = |kind: &str| kind != "multipart" && (kind != "message" || text == "message/rfc822");
    text.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub) && leaf(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn body(kind: &str, text: &str) -> Element {
        Element::container(base::BODY, [Element::text(base::TYPE, kind), Element::text(base::DATA, text)])
    }

    fn file(id: &str, kind: &str, bytes: &[u8]) -> Element {
        let text = |tag, text: &str| Element::text(tag, text);
        let mut file = Element::container(
            base::ADD,
            [
                text(base::CLIENT_ID, id),
                Element::opaque(base::CONTENT, bytes),
                text(base::DISPLAY_NAME, "n.bin"),
                text(base::CONTENT_TYPE, kind),
                text(base::CONTENT_ID, id),
            ],
        );
        if kind.starts_with("image/") {
            file.push(text(base::IS_INLINE, "1"));
        }
        file
    }

    fn made(data: &[Element], before: Option<&[u8]>) -> Result<Vec<u8>, ComposeFault> {
        draft(&Written { data, before, reference: "5:7" }, BYTES_MAX)
    }

    fn files(mime: &[u8]) -> Vec<Vec<u8>> {
        let parsed = MessageParser::default().parse(mime).unwrap();
        parsed.attachments().map(|part| part.contents().to_vec()).collect()
    }

    #[test]
    fn a_change_lays_what_is_new_over_what_was_there() {
        let first = [
            Element::text(email::TO, "\"M\u{fc}ller; Bob\" <bob@example.com>; carol@example.com"),
            Element::text(email2::BCC, "dave@example.com"),
            Element::text(email::SUBJECT, "Gr\u{fc}\u{df}e\r\nX-Evil: 1"),
            Element::text(email::IMPORTANCE, "2"),
            body("1", "Hello"),
            Element::container(
                base::ATTACHMENTS,
                [file("a", "text/plain", b"one"), file("b", "image/png", b"two"), file("c", "x/y", b"three")],
            ),
        ];
        let mime = made(&first, None).unwrap();
        let parsed = MessageParser::default().parse(&mime).unwrap();
        let to: Vec<_> = parsed.to().unwrap().iter().map(|it| it.address.clone().unwrap()).collect();
        assert_eq!(to, ["bob@example.com", "carol@example.com"]);
        assert_eq!(parsed.to().unwrap().first().unwrap().name(), Some("M\u{fc}ller; Bob"));
        assert!(parsed.header("X-Evil").is_none() && parsed.bcc().is_some());
        assert_eq!(parsed.body_text(0).unwrap().trim(), "Hello");
        assert_eq!(files(&mime), [b"two".to_vec(), b"one".to_vec(), b"three".to_vec()]);
        let numbers = numbers_of_added(&first, &mime);
        let number = |id: &str| numbers.iter().find(|(it, _)| it == id).unwrap().1;
        for (id, bytes) in [("a", &b"one"[..]), ("b", b"two"), ("c", b"three")] {
            assert_eq!(render::attachment(&mime, number(id)).unwrap().bytes, bytes, "{id}");
        }
        let reference = Element::text(base::FILE_REFERENCE, format!("5:7:{}", number("a")));
        let deletion = Element::container(base::DELETE, [reference]);
        let files_too = Element::container(base::ATTACHMENTS, [deletion, file("d", "x/y", b"four")]);
        let change = [body("2", "<p>Hi</p>"), files_too];
        let changed = made(&change, Some(&mime)).unwrap();
        let parsed = MessageParser::default().parse(&changed).unwrap();
        assert!(parsed.subject().unwrap().starts_with("Gr\u{fc}\u{df}e"));
        assert_eq!((parsed.to().unwrap().iter().count(), parsed.bcc().unwrap().iter().count()), (2, 1));
        assert_eq!(fields::first(&changed, "Importance").unwrap(), "high");
        assert_eq!(parsed.body_html(0).unwrap().trim(), "<p>Hi</p>");
        assert_eq!(files(&changed), [b"two".to_vec(), b"three".to_vec(), b"four".to_vec()]);
        let [(id, number)] = &numbers_of_added(&change, &changed)[..] else { panic!() };
        assert_eq!(render::attachment(&changed, *number).unwrap().bytes, b"four");
        assert_eq!(id, "d");
        // Only the attachments: the texts stay.
        let change = [Element::container(base::ATTACHMENTS, [file("e", "x/y", b"five")])];
        let changed = made(&change, Some(&changed)).unwrap();
        let parsed = MessageParser::default().parse(&changed).unwrap();
        assert_eq!(parsed.body_html(0).unwrap().trim(), "<p>Hi</p>");
        assert_eq!(files(&changed).len(), 4);
    }

    #[test]
    fn what_a_change_does_not_name_keeps_its_bytes() {
        let before =
            b"From: a@x\r\nTo: b@x\r\nSubject: old\r\nReferences: <1@x>\r\nContent-Type: multipart/signed; \
            boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--\r\n";
        let change = [Element::text(email::SUBJECT, "new"), Element::text(email::TO, "")];
        let changed = String::from_utf8(made(&change, Some(before)).unwrap()).unwrap();
        assert!(
            changed.starts_with("Subject: new\r\nFrom: a@x\r\nReferences: <1@x>\r\nContent-Type:"),
            "{changed}"
        );
        assert!(changed.ends_with("\r\n\r\n--b\r\n\r\nhi\r\n--b--\r\n"), "{changed}");
        // What is signed does not get another attachment unseen.
        let change = [Element::container(base::ATTACHMENTS, [file("a", "x/y", b"one")])];
        assert_eq!(made(&change, Some(before)), Err(ComposeFault::Unreadable));
        let whole = [Element::text(email::TO, "c@x"), body("4", "To: d@x\r\nX-Own: 1\r\n\r\nwhole\r\n")];
        let changed = String::from_utf8(made(&whole, Some(before)).unwrap()).unwrap();
        assert_eq!(changed, "To: <c@x>\r\nX-Own: 1\r\n\r\nwhole\r\n");
    }

    #[test]
    fn what_is_no_draft_is_refused() {
        assert_eq!(made(&[body("3", "x")], None), Err(ComposeFault::Unreadable));
        let empty = [Element::container(base::ATTACHMENTS, [Element::new(base::ADD)])];
        assert_eq!(made(&empty, None), Err(ComposeFault::Unreadable));
        let foreign = Element::container(base::DELETE, [Element::text(base::FILE_REFERENCE, "5:8:1")]);
        let foreign = [Element::container(base::ATTACHMENTS, [foreign])];
        assert_eq!(made(&foreign, None), Err(ComposeFault::Unreadable));
        let long = [body("1", &"x".repeat(2_000))];
        let written = Written { data: &long, before: None, reference: "5:7" };
        assert_eq!(draft(&written, 1_000), Err(ComposeFault::TooLarge));
        assert!(made(&[], None).is_ok(), "an empty draft is one");
        assert!(
            is_type("text/plain") && !is_type("multipart/mixed") && !is_type("a/b c") && !is_type("text")
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(to in "(?s).{0,80}", text in "(?s).{0,80}", before in "(?s).{0,200}") {
            for kind in ["1", "2", "4"] {
                let files = Element::container(base::ATTACHMENTS, [file(&to, &text, text.as_bytes())]);
                let data = [Element::text(email::TO, to.as_str()), body(kind, &text), files];
                if let Ok(mime) = made(&data, Some(before.as_bytes())) {
                    let _ = numbers_of_added(&data, &mime);
                }
            }
        }
    }
}
