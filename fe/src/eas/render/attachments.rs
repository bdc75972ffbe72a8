//! Attachments: what a device is told of them, and one of them by its reference.
//!
//! A FileReference is the item's server id and the number of the part in the message's tree: it stays good
//! as long as the item does. Names and sizes come from headers and lengths; a body is decoded only when it
//! is fetched ([MS-ASAIRS] Attachment; 2.5 has its own elements, [MS-ASEMAIL] Attachments).

use directpush_common::mail::fields::Fields;
use directpush_common::wbxml::Element;
use directpush_common::wbxml::tags::{air_sync_base as base, email};
use mail_parser::{ContentType, MimeHeaders as _};

use super::layout::Layout;
use super::parts::{Part, Tree};
use super::text::{clean, cut};

/// Attachments listed.
const ATTACHMENTS_MAX: usize = 256;
/// Bytes of a name, a Content-ID and such.
const NAME_BYTES_MAX: usize = 255;

/// An attachment's bytes and what they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attachment {
    /// Media type, as a header writes it.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The attachment of this number, or `None` when there is no such part.
pub fn attachment(mime: &[u8], part: usize) -> Option<Attachment> {
    let tree = Tree::of(mime);
    let part = tree.parts.get(part)?;
    Some(Attachment { content_type: content_type(part), bytes: part.decoded().into_owned() })
}

/// An attachment as it stands in the message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// The number of its part.
    pub number: usize,
    /// Whether it belongs to the text (RFC 2387).
    pub shown: bool,
    /// The fields that speak of it, and its body, still encoded.
    pub part: Vec<u8>,
}

/// All attachments that a device is told of, in the order of their numbers.
pub fn files(mime: &[u8]) -> Vec<File> {
    let tree = Tree::of(mime);
    let layout = Layout::of(&tree);
    let mut files: Vec<File> = entries(&tree, &layout)
        .map(|(_, number, part)| {
            let shown = part.parent.is_some_and(|parent| tree.parts[parent].is("multipart", "related"));
            let mut copied = Vec::with_capacity(part.head.len() + part.body.len() + 64);
            for field in Fields::of(part.head) {
                let of_body = field.name.get(..8).is_some_and(|begin| begin.eq_ignore_ascii_case("Content-"));
                if of_body {
                    copied.extend_from_slice(field.raw.trim_ascii_end());
                    copied.extend_from_slice(b"\r\n");
                }
            }
            if part.is("message", "rfc822") && part.headers().content_type().is_none() {
                // The default within multipart/digest (RFC 2046 5.1.5).
                copied.extend_from_slice(b"Content-Type: message/rfc822\r\n");
            }
            copied.extend_from_slice(b"\r\n");
            copied.extend_from_slice(part.body);
            File { number, shown, part: copied }
        })
        .collect();
    files.sort_by_key(|file| file.number);
    files
}

/// The Attachments element of 12.0 and later, if there are any.
pub(super) fn list(tree: &Tree<'_>, layout: &Layout, reference: &str, html: Option<&str>) -> Option<Element> {
    let entries = entries(tree, layout).map(|(nth, number, part)| {
        let headers = part.headers();
        let method = if part.is("message", "rfc822") { "5" } else { "1" };
        let mut entry = Element::new(base::ATTACHMENT);
        let mut property = |tag, text: String| {
            if !text.is_empty() {
                entry.push(Element::text(tag, text));
            }
        };
        let id = headers.content_id().map(|id| short(id.trim_matches(['<', '>', ' '])));
        let inline = is_inline(tree, part, id.as_deref(), html);
        property(base::DISPLAY_NAME, name(part, nth));
        property(base::FILE_REFERENCE, format!("{reference}:{number}"));
        property(base::METHOD, method.to_owned());
        property(base::ESTIMATED_DATA_SIZE, part.decoded_len().to_string());
        property(base::CONTENT_ID, id.unwrap_or_default());
        property(base::CONTENT_LOCATION, headers.content_location().map(short).unwrap_or_default());
        property(base::IS_INLINE, if inline { "1".to_owned() } else { String::new() });
        entry
    });
    container(base::ATTACHMENTS, entries)
}

/// The Attachments element of 2.5, if there are any.
pub(super) fn legacy_list(tree: &Tree<'_>, layout: &Layout, reference: &str) -> Option<Element> {
    let entries = entries(tree, layout).map(|(nth, number, part)| {
        let method = if part.is("message", "rfc822") { "5" } else { "1" };
        let mut entry = Element::container(
            email::ATTACHMENT,
            [
                Element::text(email::ATT_METHOD, method),
                Element::text(email::ATT_SIZE, part.decoded_len().to_string()),
                Element::text(email::DISPLAY_NAME, name(part, nth)),
                Element::text(email::ATT_NAME, format!("{reference}:{number}")),
            ],
        );
        if let Some(id) = part.headers().content_id() {
            entry.push(Element::text(email::ATT_OID, short(id.trim_matches(['<', '>', ' ']))));
        }
        entry
    });
    container(email::ATTACHMENTS, entries)
}

fn container(tag: directpush_common::wbxml::Tag, entries: impl Iterator<Item = Element>) -> Option<Element> {
    let list = Element::container(tag, entries);
    (!list.content.is_empty()).then_some(list)
}

fn entries<'t, 'a>(
    tree: &'t Tree<'a>,
    layout: &'t Layout,
) -> impl Iterator<Item = (usize, usize, &'t Part<'a>)> {
    let listed = layout.attached.iter().take(ATTACHMENTS_MAX).enumerate();
    listed.map(|(nth, &number)| (nth, number, &tree.parts[number]))
}

/// Whether the text shows it: it is referred to, or belongs to a text that may refer to it.
fn is_inline(tree: &Tree<'_>, part: &Part<'_>, id: Option<&str>, html: Option<&str>) -> bool {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return false };
    if html.is_some_and(|html| html.contains(&format!("cid:{id}"))) {
        return true;
    }
    let related = part.parent.is_some_and(|parent| tree.parts[parent].is("multipart", "related"));
    let declared = part.headers().content_disposition().is_some_and(ContentType::is_inline);
    related && declared
}

/// A name that a device can save a file under: the message's, else one made of the type.
fn name(part: &Part<'_>, nth: usize) -> String {
    let said = part.headers().attachment_name().map(file_name).filter(|name| !name.is_empty());
    said.unwrap_or_else(|| match part.media_type().as_str() {
        "message/rfc822" => {
            let subject = Tree::of(&part.body[..part.body.len().min(16 * 1024)]);
            let subject = subject.root().headers().subject().map(file_name).unwrap_or_default();
            if subject.is_empty() { "message.eml".to_owned() } else { format!("{subject}.eml") }
        }
        "message/delivery-status" => "details.txt".to_owned(),
        "text/rfc822-headers" => "headers.txt".to_owned(),
        "text/calendar" => "invite.ics".to_owned(),
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => "smime.p7s".to_owned(),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => "smime.p7m".to_owned(),
        "application/pgp-signature" => "signature.asc".to_owned(),
        kind => {
            let extension = match kind {
                "image/jpeg" => ".jpg",
                "image/png" => ".png",
                "image/gif" => ".gif",
                "text/plain" => ".txt",
                "text/html" => ".html",
                "application/pdf" => ".pdf",
                _ => "",
            };
            format!("attachment {}{extension}", nth + 1)
        }
    })
}

/// A name without what leads elsewhere or shows as something else.
fn file_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = |c: &char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    short(name.chars().filter(shown).collect::<String>().trim())
}

fn short(text: &str) -> String {
    clean(cut(text, NAME_BYTES_MAX).to_owned())
}

/// The media type, with the character set of a text; `application/octet-stream` where it is no type.
fn content_type(part: &Part<'_>) -> String {
    let kind = part.media_type();
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+/".contains(&byte))
    };
    if !token(&kind) || kind.len() > NAME_BYTES_MAX {
        return "application/octet-stream".to_owned();
    }
    match part.parameter("charset").filter(|charset| part.is_any("text") && token(charset)) {
        Some(charset) => format!("{kind}; charset={charset}"),
        None => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\
        Content-Type: multipart/related; boundary=y\r\n\r\n--y\r\nContent-Type: text/html\r\n\r\n\
        <img src=\"cid:pic@x\">\r\n--y\r\nContent-Type: image/png\r\nContent-ID: <pic@x>\r\n\
        Content-Location: pic.png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--y--\r\n\
        --x\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n \
        filename*0*=utf-8''%E2%82%AC; filename*1=\"../../x.pdf\"\r\n\r\npdf\r\n\
        --x\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?in=2Fner?=\r\n\r\nbody\r\n\
        --x\r\nContent-Type: \"bad type\"; x\r\n\r\n?\r\n--x--\r\n";

    fn shown(entry: &Element, tag: directpush_common::wbxml::Tag) -> String {
        entry.child(tag).map(|child| child.own_text().into_owned()).unwrap_or_default()
    }

    #[test]
    fn names_methods_and_references() {
        let tree = Tree::of(MAIL.as_bytes());
        let layout = Layout::of(&tree);
        let list = list(&tree, &layout, "5:7", Some("<img src=\"cid:pic@x\">")).unwrap();
        let entries: Vec<_> = list
            .children()
            .map(|entry| {
                [base::DISPLAY_NAME, base::FILE_REFERENCE, base::METHOD, base::CONTENT_ID, base::IS_INLINE]
                    .map(|tag| shown(entry, tag))
            })
            .collect();
        assert_eq!(entries[0], ["attachment 1.png", "5:7:3", "1", "pic@x", "1"]);
        assert_eq!(entries[1], ["x.pdf", "5:7:4", "1", "", ""]);
        assert_eq!(entries[2], ["ner.eml", "5:7:5", "5", "", ""]);
        let old = legacy_list(&tree, &layout, "5:7").unwrap();
        let first = old.children().next().unwrap();
        assert_eq!(
            (shown(first, email::ATT_NAME), shown(first, email::ATT_SIZE)),
            ("5:7:3".into(), "5".into())
        );
    }

    #[test]
    fn one_attachment_by_its_number() {
        let picture = attachment(MAIL.as_bytes(), 3).unwrap();
        assert_eq!((picture.content_type.as_str(), picture.bytes.as_slice()), ("image/png", &b"hello"[..]));
        let message = attachment(MAIL.as_bytes(), 5).unwrap();
        assert!(message.bytes.starts_with(b"Subject:") && message.content_type == "message/rfc822");
        assert_eq!(attachment(MAIL.as_bytes(), 99), None);
        for part in 0..8 {
            let kind = attachment(MAIL.as_bytes(), part).map(|it| it.content_type).unwrap_or_default();
            assert!(http::HeaderValue::from_str(&kind).is_ok(), "{kind}");
        }
    }
}
