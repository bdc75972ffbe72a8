//! The corpus in every form a device can ask for: nothing panics, nothing is a placeholder, and what is encoded reads the
//! same again.

use std::path::Path;

use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{CollectionResponse, ServerCommand, SyncResponse};
use directpush_common::wbxml::tags::air_sync_base as base;
use directpush_common::wbxml::{Content, Limits};

use super::*;

#[path = "../../../testdata/corpus.rs"]
mod corpus;

/// Messages beyond this are asked for in one version only.
const LARGE_BYTES: usize = 256 * 1024;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut messages = corpus::messages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    messages.extend(corpus::of_cpython());
    messages
}

fn wishes(version: Version) -> Vec<Wish> {
    let with = |preferences: &[Preference], mime_support| Wish {
        preferences: preferences.to_vec(),
        mime_support,
        ..Wish::new(version)
    };
    if !version.has_air_sync_base() {
        let cut = Wish { mime_support: 2, mime_bytes_max: Some(4096), ..Wish::new(version) };
        return vec![Wish { text_bytes_max: Some(512), ..Wish::new(version) }, cut];
    }
    let cut = |form| Preference { bytes_max: Some(333), preview: Some(255), ..Preference::new(form) };
    let all = Preference { bytes_max: Some(1000), all_or_none: true, ..Preference::new(Form::Html) };
    vec![
        with(&[Preference::new(Form::Plain)], 0),
        with(&[Preference::new(Form::Html)], 0),
        with(&[Preference::new(Form::Mime)], 2),
        with(&[cut(Form::Plain), cut(Form::Html)], 0),
        with(&[cut(Form::Mime), cut(Form::Html)], 1),
        Wish { parts: vec![cut(Form::Html)], ..with(&[all], 0) },
    ]
}

fn child(body: &Element, tag: directpush_common::wbxml::Tag) -> Option<String> {
    body.child(tag).map(|element| element.own_text().into_owned())
}

/// The body says how large it is, and is no larger than asked.
fn check_body(name: &str, wish: &Wish, data: &ApplicationData) {
    let bodies: Vec<_> = data.iter().filter(|element| element.tag == base::BODY).collect();
    assert_eq!(bodies.len(), usize::from(wish.version.has_air_sync_base()), "{name}");
    for body in bodies {
        let kind = child(body, base::TYPE).unwrap();
        let form = match kind.as_str() {
            "1" => Form::Plain,
            "2" => Form::Html,
            _ => Form::Mime,
        };
        let wanted = wish.preferences.iter().find(|preference| preference.form == form).unwrap();
        let size: usize = child(body, base::ESTIMATED_DATA_SIZE).unwrap().parse().unwrap();
        let shown = body.child(base::DATA).map_or(0, |data| match &data.content[..] {
            [Content::Text(text)] => text.len(),
            [Content::Opaque(bytes)] => bytes.len(),
            other => panic!("{name}: {other:?}"),
        });
        assert!(
            shown <= wanted.bytes_max.unwrap_or(usize::MAX) && shown <= size,
            "{name}: {shown} of {size}"
        );
        assert_eq!(child(body, base::TRUNCATED).is_some(), shown < size, "{name}");
        assert!(child(body, base::PREVIEW).is_none_or(|preview| preview.chars().count() <= 255), "{name}");
    }
}

#[test]
fn every_message_goes_in_every_form_and_reads_the_same_again() {
    let facts = Facts { date: 1_700_000_000, reference: "5:7".into(), ..Facts::default() };
    for (name, message) in corpus() {
        let versions = [Version::V14_1, Version::V2_5, Version::V12_0, Version::V16_1];
        let versions = if message.len() > LARGE_BYTES { &versions[..1] } else { &versions[..] };
        for &version in versions {
            for wish in wishes(version) {
                let data = application_data(&message, &facts, &wish);
                assert_ne!(data, unreadable(&facts, &wish), "{name}");
                check_body(&name, &wish, &data);
                let mut collection = CollectionResponse::plain("1", "5", SyncStatus::Success);
                collection.commands = vec![ServerCommand::Add { server_id: "5:7".into(), data }];
                let response = SyncResponse::Collections(vec![collection]);
                let limits = Limits { bytes_max: 1 << 26, ..Limits::default() };
                // Nothing was left out on the way: no text holds what a string cannot.
                let read = SyncResponse::decode(&response.encode(Version::V14_1), limits).unwrap();
                assert!(read == response, "{name} {wish:?}");
            }
        }
    }
}

/// Whatever becomes of a message on its way, a device is given something that it can read.
#[test]
fn damaged_messages_go_too() {
    const PIECES: [&[u8]; 4] = [b"\r\n--b", b"\n\n--a--", b"=?utf-8?b", b"\0\x1b\xff\xfe\"<&"];
    let messages = corpus::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mail"));
    let mut random = fastrand::Rng::with_seed(4);
    let facts = Facts { reference: "5:7".into(), ..Facts::default() };
    let wishes = wishes(Version::V16_1);
    for round in 0..1500 {
        let mut message = messages[random.usize(..messages.len())].1.clone();
        for _ in 0..random.usize(1..6) {
            let other = &messages[random.usize(..messages.len())].1;
            let at = random.usize(..=message.len());
            let piece = match random.u8(..5) {
                0 => {
                    message.truncate(at);
                    continue;
                }
                1 => {
                    message.iter_mut().skip(at).take(3).for_each(|byte| *byte = random.u8(..));
                    continue;
                }
                2 => {
                    message.drain(at..message.len().min(at + 40));
                    continue;
                }
                3 => &other[..random.usize(..=other.len())],
                _ => PIECES[random.usize(..PIECES.len())],
            };
            message.splice(at..at, piece.iter().copied());
        }
        let data = application_data(&message, &facts, &wishes[round % wishes.len()]);
        let mut collection = CollectionResponse::plain("1", "5", SyncStatus::Success);
        collection.commands = vec![ServerCommand::Add { server_id: "5:7".into(), data }];
        let response = SyncResponse::Collections(vec![collection]);
        let read = SyncResponse::decode(&response.encode(Version::V16_1), Limits::default()).unwrap();
        assert!(read == response, "round {round}: {}", String::from_utf8_lossy(&message));
        for part in 0..4 {
            let _ = attachment(&message, part);
        }
    }
}

fn rendered(name: &str, form: Form) -> ApplicationData {
    let messages = corpus::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mail"));
    let (_, message) = messages.into_iter().find(|(known, _)| known == name).unwrap();
    let mime_support = if form == Form::Mime { 2 } else { 0 };
    let wish = Wish { preferences: vec![Preference::new(form)], mime_support, ..Wish::new(Version::V14_1) };
    application_data(&message, &Facts { reference: "5:7".into(), ..Facts::default() }, &wish)
}

fn body(name: &str, form: Form) -> String {
    let data = rendered(name, form);
    let body = data.iter().find(|element| element.tag == base::BODY).unwrap();
    child(body, base::DATA).unwrap_or_default()
}

#[test]
fn character_sets_are_read_for_what_they_are() {
    for (name, text) in [
        ("plain", "Gr\u{fc}\u{df}e aus K\u{f6}ln"),
        ("charset-iso-8859-1", "Gr\u{fc}\u{df}e"),
        ("charset-windows-1251", "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}"),
        ("charset-koi8-r", "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}"),
        ("charset-windows-1252", "\u{201c}quotes\u{201d} and \u{20ac}"),
        ("charset-iso-2022-jp", "\u{3053}\u{3093}\u{306b}\u{3061}\u{306f}"),
        ("charset-iso-2022-jp-raw", "\u{65e5}\u{672c}\u{8a9e}"),
        ("charset-shift_jis", "\u{3053}\u{3093}"),
        ("charset-euc-jp", "\u{3053}\u{3093}"),
        ("charset-gb18030", "\u{20bb7}"),
        ("charset-big5", "\u{4f60}\u{597d}"),
        ("charset-euc-kr", "\u{c548}\u{b155}"),
        ("charset-utf-16", "Gr\u{fc}\u{df}e"),
        ("charset-cp850", "Gr\u{fc}\u{df}e"),
        ("charset-utf-7", "Gr\u{fc}\u{df}e"),
        ("charset-raw-headers", "ge\u{f6}ffnet"),
        ("charset-lies", "Gr\u{fc}\u{df}e in UTF-8"),
        ("charset-unknown", "caf\u{e9}"),
        ("charset-broken-utf-8", "ok"),
        ("control-characters", "abcde\u{7f}fg"),
    ] {
        let plain = body(name, Form::Plain);
        assert!(plain.contains(text), "{name}: {plain:?}");
        let html = body(name, Form::Html);
        assert!(html.contains(text), "{name}: {html:?}");
    }
}

#[test]
fn hostile_html_does_nothing() {
    for name in ["html-hostile", "newsletter", "html-unclosed"] {
        let html = body(name, Form::Html).to_ascii_lowercase();
        for bad in [
            "<script",
            "onerror",
            "onload",
            "onfocus",
            "javascript:",
            "<iframe",
            "<form",
            "<style",
            "<base",
            "expression(",
        ] {
            assert!(
                !html.replace("&lt;", "").contains(bad) || html.contains(&format!("&lt;{}", &bad[1..])),
                "{name} {bad}: {html}"
            );
        }
    }
    let news = body("newsletter", Form::Html);
    assert!(news.contains("<table") && news.contains("https://example.com/pixel.gif"), "{news}");
}

#[test]
fn mime_of_what_a_string_cannot_hold_means_the_same() {
    for name in ["charset-iso-2022-jp-raw", "charset-raw-headers", "message-in-message", "control-characters"]
    {
        let mime = body(name, Form::Mime);
        let again = application_data(mime.as_bytes(), &Facts::default(), &Wish::new(Version::V14_1));
        let again = again.iter().find(|element| element.tag == base::BODY).unwrap();
        assert_eq!(child(again, base::DATA).unwrap_or_default(), body(name, Form::Plain), "{name}");
    }
    let signed = rendered("smime-signed-8bit", Form::Mime);
    let signed = signed.iter().find(|element| element.tag == base::BODY).unwrap();
    assert!(matches!(&signed.child(base::DATA).unwrap().content[..], [Content::Opaque(_)]));
}
