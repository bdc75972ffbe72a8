//! Whole messages: properties, the choice among body forms, and what is cut.

use directpush_common::wbxml::tags::air_sync_base as base;
use directpush_common::wbxml::{Content, Tag};

use super::*;

const MAIL: &str = "From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\nTo: Alice <alice@example.com>\r\n\
    Subject: Hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
    Gr\u{fc}\u{df}e\r\n";
const HTML: &str = "From: a@b\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<p>one</p><p>two</p>";

fn facts() -> Facts {
    Facts { date: 1_700_000_000, reference: "5:7".into(), ..Facts::default() }
}

fn prefer(form: Form, bytes_max: Option<usize>) -> Preference {
    Preference { bytes_max, ..Preference::new(form) }
}

fn wish(preferences: &[Preference], mime_support: u8) -> Wish {
    Wish { preferences: preferences.to_vec(), mime_support, ..Wish::new(Version::V14_1) }
}

fn render(mail: &str, wish: &Wish) -> ApplicationData {
    application_data(mail.as_bytes(), &facts(), wish)
}

fn text(data: &ApplicationData, path: &[Tag]) -> String {
    let first = data.iter().find(|element| element.tag == path[0]);
    let found = first.and_then(|first| path[1..].iter().try_fold(first, |element, tag| element.child(*tag)));
    found.map(|element| element.own_text().into_owned()).unwrap_or_default()
}

fn body(data: &ApplicationData, tag: Tag) -> String {
    text(data, &[base::BODY, tag])
}

#[test]
fn bodies_are_cut_between_characters() {
    // "Grü" is 4 bytes; a cut at 3 would fall into the ü.
    let data = render(MAIL, &wish(&[prefer(Form::Plain, Some(3))], 0));
    assert_eq!((body(&data, base::DATA), body(&data, base::TRUNCATED)), ("Gr".into(), "1".into()));
    assert_eq!(body(&data, base::ESTIMATED_DATA_SIZE), "9");
    let old = Wish { text_bytes_max: Some(4), ..Wish::new(Version::V2_5) };
    let data = render(MAIL, &old);
    assert_eq!(text(&data, &[email::BODY]), "Gr\u{fc}");
    assert_eq!(text(&data, &[email::BODY_TRUNCATED]), "1");
    assert!(!data.iter().any(|element| element.tag.page() == base::BODY.page()), "no AirSyncBase at 2.5");
    let none = render(MAIL, &wish(&[prefer(Form::Plain, Some(0))], 0));
    assert_eq!((body(&none, base::DATA), body(&none, base::TRUNCATED)), (String::new(), "1".into()));
}

#[test]
fn html_goes_as_html_or_as_text_and_mime_as_it_is() {
    let both = [prefer(Form::Plain, None), prefer(Form::Html, None)];
    let data = render(HTML, &wish(&both, 0));
    assert_eq!(body(&data, base::TYPE), "2");
    assert!(body(&data, base::DATA).contains("<p>one</p><p>two</p>"));
    assert_eq!(text(&data, &[base::NATIVE_BODY_TYPE]), "2");
    let data = render(HTML, &wish(&both[..1], 0));
    assert_eq!(body(&data, base::TYPE), "1");
    let plain = body(&data, base::DATA);
    assert!(plain.contains("one") && plain.contains("two") && !plain.contains('<'), "{plain}");
    let data = render(HTML, &wish(&[prefer(Form::Mime, None)], 2));
    assert_eq!((body(&data, base::TYPE), body(&data, base::DATA)), ("4".into(), HTML.into()));
    // Text for a device that takes text and HTML; HTML made of it for one that takes only that.
    let data = render(MAIL, &wish(&both, 0));
    assert_eq!((body(&data, base::TYPE), text(&data, &[base::NATIVE_BODY_TYPE])), ("1".into(), "1".into()));
    let data = render(MAIL, &wish(&both[1..], 0));
    assert!(body(&data, base::DATA).contains("Gr\u{fc}\u{df}e<br>"));
}

#[test]
fn mime_support_decides_on_mime() {
    let signed = "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=x\r\n\r\n\
                  --x\r\n\r\na\r\n--x--\r\n";
    let both = [prefer(Form::Html, None), prefer(Form::Mime, None)];
    for (mail, support, kind) in
        [(MAIL, 0, "2"), (MAIL, 1, "2"), (MAIL, 2, "4"), (signed, 0, "2"), (signed, 1, "4"), (signed, 2, "4")]
    {
        assert_eq!(body(&render(mail, &wish(&both, support)), base::TYPE), kind, "{support} {mail}");
    }
    let old = Wish { mime_support: 2, mime_bytes_max: Some(10), ..Wish::new(Version::V2_5) };
    let data = render(MAIL, &old);
    assert_eq!(text(&data, &[email::MIME_DATA]), MAIL[..10]);
    assert_eq!(text(&data, &[email::MIME_SIZE]), MAIL.len().to_string());
}

#[test]
fn all_or_none_falls_back_to_the_next_preference_or_to_nothing() {
    let all = Preference { all_or_none: true, ..prefer(Form::Html, Some(3)) };
    let data = render(HTML, &wish(&[all, prefer(Form::Plain, Some(3))], 0));
    assert_eq!((body(&data, base::TYPE), body(&data, base::DATA).len()), ("1".into(), 3));
    let data = render(HTML, &wish(&[all], 0));
    assert_eq!((body(&data, base::TYPE), body(&data, base::TRUNCATED)), ("2".into(), "1".into()));
    assert_eq!(body(&data, base::DATA), "");
    assert_ne!(body(&data, base::ESTIMATED_DATA_SIZE), "0");
}

#[test]
fn previews_are_text_of_any_form() {
    let with = Preference { preview: Some(5), ..prefer(Form::Html, Some(1)) };
    let data = render(HTML, &wish(&[with], 0));
    assert_eq!(body(&data, base::PREVIEW), "one t");
    assert_eq!(body(&render(HTML, &wish(&[prefer(Form::Html, None)], 0)), base::PREVIEW), "");
}

#[test]
fn a_body_part_is_what_the_message_adds() {
    let answer =
        "Content-Type: text/html\r\n\r\n<p>yes</p><blockquote type=\"cite\"><p>question</p></blockquote>";
    let asked = Wish { parts: vec![Preference::new(Form::Html)], ..wish(&[prefer(Form::Plain, None)], 0) };
    let data = render(answer, &asked);
    let part = |tag| text(&data, &[base::BODY_PART, tag]);
    assert_eq!((part(base::STATUS), part(base::TYPE)), ("1".into(), "2".into()));
    assert!(part(base::DATA).contains("yes") && !part(base::DATA).contains("question"));
    assert!(body(&data, base::DATA).contains("question"));
    let huge = format!("Content-Type: text/html\r\n\r\n{}", "<p>much</p>\r\n".repeat(200_000));
    let data = render(&huge, &asked);
    assert_eq!(text(&data, &[base::BODY_PART, base::STATUS]), "176");
    assert_eq!(text(&data, &[base::BODY_PART, base::DATA]), "");
}

#[test]
fn several_texts_are_one_body() {
    let mail = "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n\
                Content-Type: image/png\r\n\r\n?\r\n--x\r\nContent-Type: text/html\r\n\r\n<b>two</b>\r\n--x--\r\n";
    let data = render(mail, &wish(&[prefer(Form::Plain, None)], 0));
    let plain = body(&data, base::DATA);
    assert!(plain.starts_with("one\r\n") && plain.contains("two"), "{plain:?}");
    let data = render(mail, &wish(&[prefer(Form::Html, None)], 0));
    assert!(body(&data, base::DATA).contains("one<br>\r\n<b>two</b>"));
    let attached = data.iter().find(|element| element.tag == base::ATTACHMENTS).unwrap();
    assert_eq!(attached.children().count(), 1);
}

#[test]
fn signed_bytes_that_are_no_text_go_as_bytes() {
    let mail = b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\n\xfc\x1b\r\n--x--\r\n";
    let data = application_data(mail, &facts(), &wish(&[prefer(Form::Mime, None)], 2));
    let data = data.iter().find(|element| element.tag == base::BODY).unwrap().child(base::DATA).unwrap();
    assert_eq!(data.content, [Content::Opaque(mail.to_vec())]);
}

#[test]
fn bytes_that_are_no_mail_still_give_an_item() {
    for bytes in [&b""[..], b"\0\0\0", b"Content-Type: multipart/mixed; boundary=", &[0xff; 300]] {
        for version in Version::ALL {
            let wish = Wish {
                mime_support: 2,
                preferences: vec![prefer(Form::Html, Some(100))],
                ..Wish::new(version)
            };
            let data = application_data(bytes, &facts(), &wish);
            assert_eq!(text(&data, &[email::READ]), "0");
        }
    }
}
