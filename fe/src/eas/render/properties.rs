//! The properties of a message beside body and attachments ([MS-ASEMAIL] 2.2.2), from its header.
//!
//! Not sent: MeetingRequest and the Schedule classes, as long as there is no calendar to answer with; an
//! invitation is a mail with its `invite.ics`, which every device opens. ReceivedAsBcc: whether an address is
//! the user's own is not known here.

use std::fmt::Write as _;

use directpush_common::eas::Version;
use directpush_common::eas::sync::ApplicationData;
use directpush_common::wbxml::tags::{email, email2};
use directpush_common::wbxml::{Element, Tag};
use mail_parser::{Address, HeaderValue, Message};

use super::layout::Layout;
use super::parts::Tree;
use super::text::{clean, code_page, cut};
use super::{Facts, conversation, date_text, flag};

/// Bytes of a header property.
const PROPERTY_BYTES_MAX: usize = 32 * 1024;
/// Names in DisplayTo.
const DISPLAY_NAMES_MAX: usize = 100;
/// Bytes of a delivery report that are looked at.
const REPORT_BYTES_MAX: usize = 16 * 1024;

/// The properties of a message at a version.
pub(super) fn of(tree: &Tree<'_>, layout: &Layout, facts: &Facts, version: Version) -> ApplicationData {
    let message = tree.root().headers();
    let mut data = ApplicationData::new();
    let mut property = |tag: Tag, text: String| {
        if !text.is_empty() {
            data.push(Element::text(tag, clean(cut(&text, PROPERTY_BYTES_MAX).to_owned())));
        }
    };
    property(email::TO, addresses(message.to(), ", "));
    property(email::CC, addresses(message.cc(), ", "));
    property(email::FROM, addresses(message.from().or_else(|| message.sender()), ", "));
    property(email::REPLY_TO, addresses(message.reply_to(), "; "));
    property(email::SUBJECT, message.subject().unwrap_or_default().to_owned());
    property(email::DATE_RECEIVED, date_text(facts.date));
    property(email::DISPLAY_TO, display_names(message.to()));
    property(email::THREAD_TOPIC, message.thread_name().unwrap_or_default().to_owned());
    property(email::IMPORTANCE, importance(message).to_owned());
    property(email::READ, flag(facts.read).to_owned());
    property(email::MESSAGE_CLASS, message_class(tree).to_owned());
    property(email::INTERNET_CPID, internet_code_page(tree, layout).to_string());
    if version.has_air_sync_base() {
        property(email::CONTENT_CLASS, "urn:content-classes:message".to_owned());
    }
    if version >= Version::V14_0 {
        let (from, sender) = (addresses(message.from(), ", "), addresses(message.sender(), ", "));
        if !from.is_empty() && sender != from {
            property(email2::SENDER, sender);
        }
        if facts.draft && version >= Version::V16_0 {
            property(email2::BCC, addresses(message.bcc(), ", "));
        }
        if version >= Version::V16_0 {
            property(email2::IS_DRAFT, flag(facts.draft).to_owned());
        }
        let id = conversation::id(message, tree.root().head);
        data.push(Element::opaque(email2::CONVERSATION_ID, id));
        data.push(Element::opaque(email2::CONVERSATION_INDEX, conversation::index(message, facts.date)));
    }
    data.extend(facts.marks.iter().cloned());
    data
}

/// `"Name" <address>`, …, as [MS-ASEMAIL] From and To want it.
fn addresses(list: Option<&Address<'_>>, separator: &str) -> String {
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
            out.push_str(separator);
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
    let names = names.filter_map(|entry| entry.name().or_else(|| entry.address())).take(DISPLAY_NAMES_MAX);
    names.collect::<Vec<_>>().join("; ")
}

/// 0 low, 1 normal, 2 high ([MS-ASEMAIL] Importance).
fn importance(message: &Message<'_>) -> &'static str {
    let says = |name: &'static str| message.header(name).and_then(HeaderValue::as_text).unwrap_or_default();
    let importance = says("Importance").trim();
    let priority = [says("X-Priority").trim(), says("Priority").trim(), says("X-MSMail-Priority").trim()];
    let any = |begins: [char; 2], word: &str| {
        priority.iter().any(|it| it.starts_with(begins) || it.eq_ignore_ascii_case(word))
    };
    if importance.eq_ignore_ascii_case("high") || any(['1', '2'], "high") || any(['1', '2'], "urgent") {
        "2"
    } else if importance.eq_ignore_ascii_case("low")
        || any(['4', '5'], "low")
        || any(['4', '5'], "non-urgent")
    {
        "0"
    } else {
        "1"
    }
}

/// Whether a message is S/MIME: then a device may want all of it.
pub(super) fn is_smime(tree: &Tree<'_>) -> bool {
    message_class(tree).starts_with("IPM.Note.SMIME")
}

/// [MS-ASEMAIL] MessageClass, as far as mail has one.
fn message_class(tree: &Tree<'_>) -> &'static str {
    let root = tree.root();
    if root.is_pkcs7_mime() {
        return "IPM.Note.SMIME";
    }
    if root.is("multipart", "signed") {
        // Signed by OpenPGP is mail with a file to a device that knows S/MIME only.
        let pgp = root
            .parameter("protocol")
            .is_some_and(|name| name.eq_ignore_ascii_case("application/pgp-signature"));
        return if pgp { "IPM.Note" } else { "IPM.Note.SMIME.MultipartSigned" };
    }
    if root.is("multipart", "report") {
        return report_class(tree);
    }
    "IPM.Note"
}

/// Delivery reports (RFC 3464) and receipts (RFC 8098).
fn report_class(tree: &Tree<'_>) -> &'static str {
    let is = |name: &str| {
        let kind = tree.root().parameter("report-type");
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(name))
    };
    if is("disposition-notification") {
        return "REPORT.IPM.Note.IPNRN";
    }
    if !is("delivery-status") {
        return "IPM.Note";
    }
    let status = tree.parts.iter().find(|part| part.is("message", "delivery-status"));
    let status = status.map(|part| {
        let begin = &part.body[..part.body.len().min(REPORT_BYTES_MAX)];
        String::from_utf8_lossy(begin).to_ascii_lowercase()
    });
    let status = status.unwrap_or_default();
    let mut actions = status.lines().filter_map(|line| line.strip_prefix("action:")).map(str::trim);
    match actions.next() {
        Some("delivered" | "relayed" | "expanded") => "REPORT.IPM.Note.DR",
        Some("delayed") => "REPORT.IPM.Note.DELAYED",
        _ => "REPORT.IPM.Note.NDR",
    }
}

/// The code page of the text that is shown first; UTF-8 where it does not say.
fn internet_code_page(tree: &Tree<'_>, layout: &Layout) -> u32 {
    let shown = layout.html.iter().chain(&layout.text);
    let mut charsets = shown.filter_map(|&part| tree.parts[part].parameter("charset"));
    charsets.next().and_then(code_page).unwrap_or(65001)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_mail(raw: &str, version: Version, draft: bool) -> ApplicationData {
        let tree = Tree::of(raw.as_bytes());
        let facts = Facts { date: 1_700_000_000, reference: "5:7".into(), draft, ..Facts::default() };
        of(&tree, &Layout::of(&tree), &facts, version)
    }

    #[track_caller]
    fn check(raw: &str, version: Version, expected: &[(Tag, &str)]) {
        let data = of_mail(raw, version, true);
        for (tag, text) in expected {
            let found = data.iter().find(|element| element.tag == *tag).map(Element::own_text);
            assert_eq!(found.as_deref().unwrap_or_default(), *text, "{tag:?}");
        }
    }

    #[test]
    fn headers_become_properties() {
        let mail = "From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\nSender: list@example.com\r\n\
            To: Alice <alice@example.com>, \"B, \\\"C\\\"\" <b@example.com>\r\nBcc: c@example.com\r\n\
            Reply-To: x@example.com, y@example.com\r\nSubject: Re: Fwd: Hello\0\r\nX-Priority: 1 (Highest)\r\n\
            Content-Type: text/plain; charset=iso-8859-1\r\n\r\n";
        let expected = [
            (email::FROM, "\"J\u{fc}rgen\" <j@example.com>"),
            (email::TO, "\"Alice\" <alice@example.com>, \"B, C\" <b@example.com>"),
            (email::REPLY_TO, "x@example.com; y@example.com"),
            (email::SUBJECT, "Re: Fwd: Hello"),
            (email::THREAD_TOPIC, "Hello"),
            (email::DISPLAY_TO, "Alice; B, \"C\""),
            (email::IMPORTANCE, "2"),
            (email::READ, "0"),
            (email::DATE_RECEIVED, "2023-11-14T22:13:20.000Z"),
            (email::INTERNET_CPID, "28591"),
            (email::MESSAGE_CLASS, "IPM.Note"),
        ];
        check(
            mail,
            Version::V2_5,
            &[&expected[..], &[(email::CONTENT_CLASS, ""), (email2::SENDER, "")]].concat(),
        );
        let later = [(email2::SENDER, "list@example.com"), (email2::IS_DRAFT, ""), (email2::BCC, "")];
        check(mail, Version::V14_1, &[&expected[..], &later[..]].concat());
        check(mail, Version::V16_1, &[(email2::IS_DRAFT, "1"), (email2::BCC, "c@example.com")]);
        let conversation = of_mail(mail, Version::V14_0, false);
        let id = conversation.iter().find(|element| element.tag == email2::CONVERSATION_ID).unwrap();
        assert!(
            matches!(&id.content[..], [directpush_common::wbxml::Content::Opaque(bytes)] if bytes.len() == 16)
        );
    }

    #[test]
    fn classes() {
        let class = |header: &str, body: &str| {
            let raw = format!("Content-Type: {header}\r\n\r\n{body}");
            message_class(&Tree::of(raw.as_bytes()))
        };
        let signed = "multipart/signed; boundary=x; protocol=";
        let part = "--x\r\n\r\na\r\n--x--\r\n";
        assert_eq!(
            class(&format!("{signed}\"application/pkcs7-signature\""), part),
            "IPM.Note.SMIME.MultipartSigned"
        );
        assert_eq!(class(&format!("{signed}\"application/pgp-signature\""), part), "IPM.Note");
        assert_eq!(class("application/x-pkcs7-mime; smime-type=enveloped-data", "x"), "IPM.Note.SMIME");
        assert_eq!(class("text/calendar; method=REQUEST", "x"), "IPM.Note");
        let report = |action: &str| {
            let body =
                format!("--x\r\nContent-Type: message/delivery-status\r\n\r\nAction: {action}\r\n--x--\r\n");
            class("multipart/report; report-type=delivery-status; boundary=x", &body)
        };
        assert_eq!(report("failed"), "REPORT.IPM.Note.NDR");
        assert_eq!(report("delayed"), "REPORT.IPM.Note.DELAYED");
        assert_eq!(report("Relayed"), "REPORT.IPM.Note.DR");
    }
}
