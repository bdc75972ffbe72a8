//! A message as a device wants it: RFC 5322 in, ApplicationData out.
//!
//! [MS-ASEMAIL] gives the properties, [MS-ASAIRS] the body of 12.0 and later; 2.5 has its own
//! body elements. Text is truncated by bytes of UTF-8, never inside a character. What is
//! given to [`application_data`] is hostile: it runs where a panic and a long run are contained
//! (`content`), and what is superlinear in its input has a bound on that input here.
//!
//! Not here: fetching the message, which items a Sync carries.

use std::borrow::Cow;
use std::fmt::Write as _;

use directpush_common::eas::sync::ApplicationData;
use directpush_common::wbxml::Element;
use directpush_common::wbxml::tags::{air_sync_base as base, email};
use mail_parser::{Address, Message, MessageParser, MessagePart, MimeHeaders as _, PartType};

/// HTML beyond this is stripped of its tags instead of laid out.
const LAYOUT_BYTES_MAX: usize = 256 * 1024;
/// Tags open inside each other, at most, for HTML that is laid out.
const LAYOUT_DEPTH_MAX: usize = 200;
/// Columns of laid out text: phones wrap for themselves.
const LAYOUT_COLUMNS: usize = 10_000;
/// Bytes of a header property.
const PROPERTY_BYTES_MAX: usize = 32 * 1024;
/// Attachments listed.
const ATTACHMENTS_MAX: usize = 256;

/// In which form a body goes to the device ([MS-ASAIRS] Type).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// 1.
    Plain,
    /// 2.
    Html,
    /// 4.
    Mime,
}

/// One BodyPreference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Preference {
    /// Type.
    pub form: Form,
    /// TruncationSize in bytes.
    pub bytes_max: Option<usize>,
    /// AllOrNone.
    pub all_or_none: bool,
}

/// What the device asked for, in one form for all versions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    /// 2.5: MIMESupport 2, and the bytes of body that Truncation allows.
    Legacy {
        /// Send MIMEData instead of Body.
        mime: bool,
        /// Bytes of body; `None` = all.
        bytes_max: Option<usize>,
    },
    /// 12.0 and later.
    Preferences {
        /// In the device's order of preference.
        preferences: Vec<Preference>,
        /// MIMESupport: 0 never, 1 for S/MIME only, 2 for all.
        mime_support: u8,
    },
}

/// What the folder knows of the item besides its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// The read flag.
    pub read: bool,
    /// When it was received: Unix seconds.
    pub date: i64,
    /// What FileReference begins with: folder and item.
    pub reference: String,
}

/// The ApplicationData of a message.
pub fn application_data(mime: &[u8], facts: &Facts, wish: &Wish) -> ApplicationData {
    let parser = MessageParser::default();
    let Some(message) = parser.parse(mime) else {
        return unreadable(facts, wish);
    };
    let mut data = properties(&message, facts);
    match wish {
        Wish::Legacy { mime: whole, bytes_max } => legacy_body(&mut data, &message, mime, *whole, *bytes_max),
        Wish::Preferences { preferences, mime_support } => {
            attachments(&mut data, &message, &facts.reference);
            body(&mut data, &message, mime, preferences, *mime_support);
        }
    }
    data
}

/// What a device is given for a message that cannot be read: it must not block the folder.
pub fn unreadable(facts: &Facts, wish: &Wish) -> ApplicationData {
    let text = "This message could not be converted for the device. It is unchanged in the mailbox.";
    let mut data = ApplicationData::new();
    data.push(Element::text(email::SUBJECT, "(unreadable message)"));
    data.push(Element::text(email::DATE_RECEIVED, date_text(facts.date)));
    data.push(Element::text(email::READ, flag(facts.read)));
    match wish {
        Wish::Legacy { .. } => data.push(Element::text(email::BODY, text)),
        Wish::Preferences { .. } => data.push(body_element(Form::Plain, text, text.len(), false)),
    }
    data.push(Element::text(email::MESSAGE_CLASS, "IPM.Note"));
    data
}

/// What a Change of the read flag carries: nothing else of a mail changes.
pub fn read_flag(read: bool) -> ApplicationData {
    vec![Element::text(email::READ, flag(read))]
}

fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn date_text(unix_secs: i64) -> String {
    let date = jiff::Timestamp::from_second(unix_secs).unwrap_or_default();
    date.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

fn properties(message: &Message<'_>, facts: &Facts) -> ApplicationData {
    let mut data = ApplicationData::new();
    let mut property = |tag, text: String| {
        if !text.is_empty() {
            data.push(Element::text(tag, cut(&text, PROPERTY_BYTES_MAX).to_owned()));
        }
    };
    property(email::TO, addresses(message.to()));
    property(email::CC, addresses(message.cc()));
    property(email::FROM, addresses(message.from().or_else(|| message.sender())));
    property(email::REPLY_TO, addresses(message.reply_to()));
    property(email::SUBJECT, message.subject().unwrap_or_default().to_owned());
    property(email::DATE_RECEIVED, date_text(facts.date));
    property(email::DISPLAY_TO, display_names(message.to()));
    property(email::THREAD_TOPIC, message.thread_name().unwrap_or_default().to_owned());
    property(email::IMPORTANCE, importance(message).to_owned());
    property(email::READ, flag(facts.read).to_owned());
    property(email::MESSAGE_CLASS, message_class(message).to_owned());
    property(email::INTERNET_CPID, "65001".to_owned());
    data
}

/// `"Name" <address>, …`, as [MS-ASEMAIL] From and To want it.
fn addresses(list: Option<&Address<'_>>) -> String {
    let mut out = String::new();
    for entry in list.into_iter().flat_map(Address::iter) {
        let (name, address) = (entry.name().unwrap_or_default(), entry.address().unwrap_or_default());
        if name.is_empty() && address.is_empty() {
            continue;
        }
        if out.len() > PROPERTY_BYTES_MAX {
            break;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        let name = name.replace(['"', '\\'], "");
        let _ = match (name.is_empty(), address.is_empty()) {
            (true, _) => write!(out, "{address}"),
            (false, true) => write!(out, "\"{name}\""),
            (false, false) => write!(out, "\"{name}\" <{address}>"),
        };
    }
    out
}

fn display_names(list: Option<&Address<'_>>) -> String {
    let names = list.into_iter().flat_map(Address::iter);
    let names = names.filter_map(|entry| entry.name().or_else(|| entry.address())).take(100);
    names.collect::<Vec<_>>().join("; ")
}

/// 0 low, 1 normal, 2 high ([MS-ASEMAIL] Importance).
fn importance(message: &Message<'_>) -> &'static str {
    let says =
        |name: &'static str| message.header(name).and_then(|value| value.as_text()).unwrap_or_default();
    let (importance, priority) = (says("Importance").trim(), says("X-Priority").trim());
    if importance.eq_ignore_ascii_case("high") || priority.starts_with(['1', '2']) {
        "2"
    } else if importance.eq_ignore_ascii_case("low") || priority.starts_with(['4', '5']) {
        "0"
    } else {
        "1"
    }
}

fn is_signed_or_encrypted(message: &Message<'_>) -> bool {
    let root = message.root_part();
    root.is_content_type("multipart", "signed")
        || root.is_content_type("application", "pkcs7-mime")
        || root.is_content_type("application", "x-pkcs7-mime")
}

fn message_class(message: &Message<'_>) -> &'static str {
    if !is_signed_or_encrypted(message) {
        "IPM.Note"
    } else if message.root_part().is_content_type("multipart", "signed") {
        "IPM.Note.SMIME.MultipartSigned"
    } else {
        "IPM.Note.SMIME"
    }
}

fn attachments(data: &mut ApplicationData, message: &Message<'_>, reference: &str) {
    let mut list = Element::new(base::ATTACHMENTS);
    for (index, part) in message.attachments().enumerate().take(ATTACHMENTS_MAX) {
        let inline = part.content_disposition().is_some_and(mail_parser::ContentType::is_inline);
        let method = if matches!(part.body, PartType::Message(_)) { "5" } else { "1" };
        let mut entry = Element::new(base::ATTACHMENT);
        entry.push(Element::text(base::DISPLAY_NAME, attachment_name(part, index)));
        entry.push(Element::text(base::FILE_REFERENCE, format!("{reference}:{index}")));
        entry.push(Element::text(base::METHOD, method));
        entry.push(Element::text(base::ESTIMATED_DATA_SIZE, part.len().to_string()));
        if let Some(id) = part.content_id() {
            entry.push(Element::text(base::CONTENT_ID, cut(id, 512).to_owned()));
        }
        if inline {
            entry.push(Element::text(base::IS_INLINE, "1"));
        }
        list.push(entry);
    }
    if !list.content.is_empty() {
        data.push(list);
    }
}

fn attachment_name(part: &MessagePart<'_>, index: usize) -> String {
    match part.attachment_name() {
        Some(name) if !name.trim().is_empty() => cut(name, 512).to_owned(),
        _ => format!("attachment {}", index + 1),
    }
}

/// The body of 12.0 and later: the first preference that suits, cut as it says.
fn body(
    data: &mut ApplicationData,
    message: &Message<'_>,
    mime: &[u8],
    preferences: &[Preference],
    mime_support: u8,
) {
    let native = native_form(message);
    let wants_mime = mime_support == 2 || (mime_support == 1 && is_signed_or_encrypted(message));
    let of = |form| preferences.iter().find(|preference| preference.form == form).copied();
    let plain = Preference { form: Form::Plain, bytes_max: None, all_or_none: false };
    let candidates = [
        of(Form::Mime).filter(|_| wants_mime),
        of(Form::Html).filter(|_| native == Form::Html),
        of(Form::Plain),
        of(Form::Html),
        of(Form::Mime),
        Some(plain),
    ];
    for preference in candidates.into_iter().flatten() {
        let text = text_of(message, mime, preference.form);
        let bytes_max = preference.bytes_max.unwrap_or(usize::MAX);
        if preference.all_or_none && text.len() > bytes_max && preference != plain {
            continue;
        }
        let shown = cut(&text, bytes_max);
        data.push(body_element(preference.form, shown, text.len(), shown.len() < text.len()));
        break;
    }
    data.push(Element::text(base::NATIVE_BODY_TYPE, if native == Form::Html { "2" } else { "1" }));
    data.push(Element::text(email::CONTENT_CLASS, "urn:content-classes:message"));
}

fn body_element(form: Form, shown: &str, bytes: usize, truncated: bool) -> Element {
    let kind = match form {
        Form::Plain => "1",
        Form::Html => "2",
        Form::Mime => "4",
    };
    let mut body = Element::new(base::BODY);
    body.push(Element::text(base::TYPE, kind));
    body.push(Element::text(base::ESTIMATED_DATA_SIZE, bytes.to_string()));
    if truncated {
        body.push(Element::text(base::TRUNCATED, "1"));
    }
    if !shown.is_empty() {
        body.push(Element::text(base::DATA, shown));
    }
    body
}

/// The body of 2.5 ([MS-ASEMAIL] Body, MIMEData).
fn legacy_body(
    data: &mut ApplicationData,
    message: &Message<'_>,
    mime: &[u8],
    whole: bool,
    bytes_max: Option<usize>,
) {
    let bytes_max = bytes_max.unwrap_or(usize::MAX);
    let mut list = Element::new(email::ATTACHMENTS);
    for (index, part) in message.attachments().enumerate().take(ATTACHMENTS_MAX) {
        list.push(Element::container(
            email::ATTACHMENT,
            [
                Element::text(email::ATT_METHOD, "1"),
                Element::text(email::ATT_SIZE, part.len().to_string()),
                Element::text(email::DISPLAY_NAME, attachment_name(part, index)),
            ],
        ));
    }
    if !list.content.is_empty() {
        data.push(list);
    }
    let form = if whole { Form::Mime } else { Form::Plain };
    let text = text_of(message, mime, form);
    let shown = cut(&text, bytes_max);
    let truncated = flag(shown.len() < text.len());
    let [truncated_tag, size_tag, data_tag] = if whole {
        [email::MIME_TRUNCATED, email::MIME_SIZE, email::MIME_DATA]
    } else {
        [email::BODY_TRUNCATED, email::BODY_SIZE, email::BODY]
    };
    data.push(Element::text(truncated_tag, truncated));
    data.push(Element::text(size_tag, text.len().to_string()));
    if !shown.is_empty() {
        data.push(Element::text(data_tag, shown));
    }
}

fn native_form(message: &Message<'_>) -> Form {
    let html = message.html_bodies().next().is_some_and(|part| matches!(part.body, PartType::Html(_)));
    if html { Form::Html } else { Form::Plain }
}

fn text_of<'a>(message: &'a Message<'_>, mime: &'a [u8], form: Form) -> Cow<'a, str> {
    match form {
        Form::Mime => String::from_utf8_lossy(mime),
        Form::Html => message.body_html(0).unwrap_or_default(),
        Form::Plain => match message.text_bodies().next().map(|part| &part.body) {
            Some(PartType::Html(html)) => Cow::Owned(plain_text(html)),
            _ => message.body_text(0).unwrap_or_default(),
        },
    }
}

/// HTML as text: laid out when that is safe, else stripped of its tags.
fn plain_text(html: &str) -> String {
    if html.len() <= LAYOUT_BYTES_MAX && nesting(html) <= LAYOUT_DEPTH_MAX {
        let laid_out = html2text::config::plain_no_decorate()
            .allow_width_overflow()
            .string_from_read(html.as_bytes(), LAYOUT_COLUMNS);
        if let Ok(text) = laid_out {
            return text.replace('\n', "\r\n");
        }
    }
    mail_parser::decoders::html::html_to_text(html)
}

/// An upper bound of how deep the tags of a document nest: opening tags that nothing closed yet.
fn nesting(html: &str) -> usize {
    const VOID: [&str; 9] = ["br", "img", "hr", "meta", "link", "input", "col", "wbr", "p"];
    let (mut depth, mut deepest) = (0_usize, 0);
    for tag in html.split('<').skip(1) {
        let name_end = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = tag.get(..name_end).unwrap_or_default();
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if !name.is_empty() && !VOID.iter().any(|void| name.eq_ignore_ascii_case(void)) {
            depth += 1;
            deepest = deepest.max(depth);
        }
    }
    deepest
}

/// The beginning of `text` in at most `bytes_max` bytes, whole characters only.
fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use directpush_common::wbxml::Tag;

    use super::*;

    const MAIL: &str = "From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\nTo: Alice <alice@example.com>\r\n\
        Subject: Hello\r\nImportance: high\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        Gr\u{fc}\u{df}e\r\n";
    const HTML: &str =
        "From: a@b\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<p>one</p><p>two</p>";

    fn facts() -> Facts {
        Facts { read: false, date: 1_700_000_000, reference: "5:7".into() }
    }

    fn prefer(form: Form, bytes_max: Option<usize>) -> Preference {
        Preference { form, bytes_max, all_or_none: false }
    }

    fn wish(preferences: &[Preference], mime_support: u8) -> Wish {
        Wish::Preferences { preferences: preferences.to_vec(), mime_support }
    }

    fn text(data: &ApplicationData, path: &[Tag]) -> String {
        let first = data.iter().find(|element| element.tag == path[0]);
        let found =
            first.and_then(|first| path[1..].iter().try_fold(first, |element, tag| element.child(*tag)));
        found.map(|element| element.own_text().into_owned()).unwrap_or_default()
    }

    #[test]
    fn headers_become_properties() {
        let data = application_data(MAIL.as_bytes(), &facts(), &wish(&[], 0));
        assert_eq!(text(&data, &[email::FROM]), "\"J\u{fc}rgen\" <j@example.com>");
        assert_eq!(text(&data, &[email::TO]), "\"Alice\" <alice@example.com>");
        assert_eq!(text(&data, &[email::SUBJECT]), "Hello");
        assert_eq!(text(&data, &[email::IMPORTANCE]), "2");
        assert_eq!(text(&data, &[email::READ]), "0");
        assert_eq!(text(&data, &[email::DATE_RECEIVED]), "2023-11-14T22:13:20.000Z");
        assert_eq!(text(&data, &[base::BODY, base::DATA]).trim(), "Gr\u{fc}\u{df}e");
    }

    #[test]
    fn bodies_are_cut_between_characters() {
        // "Grü" is 4 bytes; a cut at 3 would fall into the ü.
        let data = application_data(MAIL.as_bytes(), &facts(), &wish(&[prefer(Form::Plain, Some(3))], 0));
        assert_eq!(text(&data, &[base::BODY, base::DATA]), "Gr");
        assert_eq!(text(&data, &[base::BODY, base::TRUNCATED]), "1");
        let old = Wish::Legacy { mime: false, bytes_max: Some(4) };
        let data = application_data(MAIL.as_bytes(), &facts(), &old);
        assert_eq!(text(&data, &[email::BODY]), "Gr\u{fc}");
        assert_eq!(text(&data, &[email::BODY_TRUNCATED]), "1");
    }

    #[test]
    fn html_goes_as_html_or_as_text_and_mime_as_it_is() {
        let both = [prefer(Form::Plain, None), prefer(Form::Html, None)];
        let data = application_data(HTML.as_bytes(), &facts(), &wish(&both, 0));
        assert_eq!(text(&data, &[base::BODY, base::TYPE]), "2");
        let data = application_data(HTML.as_bytes(), &facts(), &wish(&both[..1], 0));
        assert_eq!(text(&data, &[base::BODY, base::TYPE]), "1");
        let plain = text(&data, &[base::BODY, base::DATA]);
        assert!(plain.contains("one") && plain.contains("two") && !plain.contains('<'), "{plain}");
        let data = application_data(HTML.as_bytes(), &facts(), &wish(&[prefer(Form::Mime, None)], 2));
        assert_eq!(text(&data, &[base::BODY, base::DATA]), HTML);
    }

    #[test]
    fn all_or_none_falls_back_to_the_next_preference() {
        let all = Preference { form: Form::Html, bytes_max: Some(3), all_or_none: true };
        let data =
            application_data(HTML.as_bytes(), &facts(), &wish(&[all, prefer(Form::Plain, Some(3))], 0));
        assert_eq!(text(&data, &[base::BODY, base::TYPE]), "1");
        assert_eq!(text(&data, &[base::BODY, base::DATA]).len(), 3);
    }

    #[test]
    fn hostile_html_is_stripped_not_laid_out() {
        let deep = "<div>".repeat(50_000);
        assert!(nesting(&deep) > LAYOUT_DEPTH_MAX);
        assert_eq!(plain_text(&format!("{deep}x")).trim(), "x");
    }

    #[test]
    fn bytes_that_are_no_mail_still_give_an_item() {
        for bytes in [&b""[..], b"\0\0\0", b"Content-Type: multipart/mixed; boundary=", &[0xff; 300]] {
            let data = application_data(bytes, &facts(), &wish(&[prefer(Form::Html, Some(100))], 2));
            assert_eq!(text(&data, &[email::READ]), "0");
        }
    }
}
