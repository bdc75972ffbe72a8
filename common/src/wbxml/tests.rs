//! Tests of the reader, the writer and the dump together.

use data_encoding::HEXLOWER_PERMISSIVE;
use proptest::prelude::*;

use super::tags::{air_sync, compose_mail, email, folder_hierarchy, ping};
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}

/// The bytes read as this text, and are written again as they were.
#[track_caller]
fn check(hex: &str, shown: &str) {
    let body = bytes(hex);
    let document = Document::parse(&body, Limits::default()).unwrap();
    assert_eq!(dump(document.root(), Contents::Shown), shown);
    assert_eq!(document.root().to_element().to_document(), body);
}

#[track_caller]
fn check_fault(hex: &str, offset: usize, fault: WbxmlFault) {
    let error = Document::parse(&bytes(hex), Limits::default()).unwrap_err();
    assert_eq!(error, WbxmlError { offset, fault });
}

#[test]
fn ping_bodies_in_both_directions() {
    check("03 01 6A 00  00 0D 45  47 03 31 00 01  01", "<Ping><Status>1</Status></Ping>");
    check(
        "03 01 6A 00  00 0D 45  47 03 32 00 01  49 4A 03 35 00 01 01 01",
        "<Ping><Status>2</Status><Folders><Folder>5</Folder></Folders></Ping>",
    );
}

#[test]
fn pages_switch_only_when_they_change() {
    check(
        "03 01 6A 00  45 5C 4F 57  00 02 55 03 31 00 01 56 03 62 00 01  01  00 00 14 01 01 01",
        "<Sync><Collections><Collection><Options><Email:Read>1</Email:Read><Email:To>b</Email:To></Options>\
         <MoreAvailable/></Collection></Collections></Sync>",
    );
}

#[test]
fn a_switch_that_changes_nothing_is_read() {
    let body = bytes("03016A00 00 00 45 00 00 00 02 15 00 00 01");
    let document = Document::parse(&body, Limits::default()).unwrap();
    assert_eq!(document.root().to_element().to_document(), bytes("03016A00 45 00 02 15 01"));
}

#[test]
fn unknown_tokens_are_skipped_with_all_below_them() {
    // Token 0x3E on page 13, holding text, a known tag and a page switch that stays in force.
    let body =
        bytes("03016A00 000D 45 7E 03 78 00 01 7E 48 03 31 00 01 C3 01 FF 00 07 01 47 03 39 00 01 3E 01");
    let document = Document::parse(&body, Limits::default()).unwrap();
    assert_eq!(
        dump(document.root(), Contents::Shown),
        "<Ping><FolderHierarchy:DisplayName>9</FolderHierarchy:DisplayName></Ping>"
    );
}

#[test]
fn opaque_counts_as_text() {
    let body = bytes("03016A00 000D 45 48 C3 03 34 38 30 01 01");
    let document = Document::parse(&body, Limits::default()).unwrap();
    assert_eq!(document.root().child_text(ping::HEARTBEAT_INTERVAL).unwrap(), "480");
    let split = bytes("03016A00 000D 45 48 C3 01 34 03 38 30 00 01 01");
    let document = Document::parse(&split, Limits::default()).unwrap();
    assert_eq!(document.root().child_text(ping::HEARTBEAT_INTERVAL).unwrap(), "480");
}

#[test]
fn faults_say_what_and_where() {
    check_fault("", 0, WbxmlFault::Header);
    check_fault("3C 3F 78 6D 6C", 0, WbxmlFault::Header);
    check_fault("04 01 6A 00 05", 0, WbxmlFault::Header);
    check_fault("03 00 00 6A 00 05", 0, WbxmlFault::Header);
    check_fault("03 01 04 00 05", 0, WbxmlFault::Header);
    check_fault("03 01 6A", 3, WbxmlFault::Truncated);
    check_fault("03 01 6A 02 61 00 05", 3, WbxmlFault::StringTable(2));
    check_fault("03016A00", 4, WbxmlFault::Truncated);
    check_fault("03016A00 000D 45", 7, WbxmlFault::Truncated);
    check_fault("03016A00 00", 5, WbxmlFault::Truncated);
    check_fault("03016A00 001A 45", 4, WbxmlFault::UnknownPage(0x1A));
    check_fault("03016A00 000D 7F 01", 6, WbxmlFault::UnknownRoot(0x3F));
    check_fault("03016A00 01", 4, WbxmlFault::OutsideRoot);
    check_fault("03016A00 03 61 00", 4, WbxmlFault::OutsideRoot);
    check_fault("03016A00 05 05", 5, WbxmlFault::Trailing);
    check_fault("03016A00 45 01 00", 6, WbxmlFault::Trailing);
    check_fault("03016A00 0007 56 FF 03 30 00 01 01", 7, WbxmlFault::Attributes(0xFF));
    check_fault("03016A00 C5", 4, WbxmlFault::Attributes(0xC5));
    for refused in [0x02, 0x04, 0x40, 0x43, 0x44, 0x80, 0x83, 0x84, 0xC0, 0xC2, 0xC4] {
        check_fault(&format!("03016A00 45 {refused:02X} 01"), 5, WbxmlFault::Refused(refused));
    }
    check_fault("03016A00 45 4B 03 31", 7, WbxmlFault::UnterminatedString);
    check_fault("03016A00 45 4B 03 FF 00 01 01", 7, WbxmlFault::NotUtf8);
    check_fault("03016A00 45 4B C3 05 31 01 01", 7, WbxmlFault::OpaqueBeyondEnd(5));
    check_fault("03016A00 45 4B C3 8F FF FF FF 7F 01", 7, WbxmlFault::OpaqueBeyondEnd(u32::MAX));
    check_fault("03016A00 45 4B C3 90 80 80 80 00 01", 7, WbxmlFault::IntegerOverflow);
    check_fault("03016A00 45 4B C3 80 80 80 80 80 80 01", 7, WbxmlFault::IntegerOverflow);
}

#[test]
fn nesting_is_read_to_depth_32_and_no_further() {
    let nested = |depth: usize| {
        let mut body = HEADER.to_vec();
        body.extend(std::iter::repeat_n(0x45, depth - 1));
        body.push(0x05);
        body.extend(std::iter::repeat_n(0x01, depth - 1));
        body
    };
    assert!(Document::parse(&nested(32), Limits::default()).is_ok());
    let error = Document::parse(&nested(33), Limits::default()).unwrap_err();
    assert_eq!(error, WbxmlError { offset: 36, fault: WbxmlFault::TooDeep });
}

/// An unknown element does not hide depth from the bound.
#[test]
fn skipped_elements_count_as_depth() {
    let mut body = bytes("03016A00 45");
    body.extend(std::iter::repeat_n(0x7F, 32));
    let error = Document::parse(&body, Limits::default()).unwrap_err();
    assert_eq!(error.fault, WbxmlFault::TooDeep);
}

#[test]
fn length_and_count_are_bounded() {
    let body = bytes("03016A00 45 05 05 05 01");
    let limits = |bytes_max, nodes_max| Limits { bytes_max, nodes_max };
    assert!(Document::parse(&body, limits(9, 4)).is_ok());
    let fault = |limits| Document::parse(&body, limits).unwrap_err();
    assert_eq!(fault(limits(8, 4)), WbxmlError { offset: 8, fault: WbxmlFault::TooLong(8) });
    assert_eq!(fault(limits(9, 3)), WbxmlError { offset: 7, fault: WbxmlFault::TooManyNodes(3) });
}

#[test]
fn text_loses_what_xml_cannot_carry() {
    let body = Writer::document(air_sync::SYNC, |w| w.text(email::SUBJECT, "a\0b\u{1}c\td\u{FFFF}\u{1F4E7}"));
    assert_eq!(
        dump_bytes(&body, Contents::Shown),
        "<Sync><Email:Subject>abc&#9;d\u{1F4E7}</Email:Subject></Sync>"
    );
    let body = Writer::document(air_sync::SYNC, |w| w.text(email::SUBJECT, "\0"));
    assert_eq!(body, bytes("03016A00 45 00 02 14 01"));
}

#[test]
fn bytes_go_as_opaque_with_a_length_of_as_many_bytes_as_it_needs() {
    let mime = "x".repeat(300);
    let body = Writer::document(compose_mail::SEND_MAIL, |w| w.text(compose_mail::MIME, &mime));
    assert_eq!(body[..11], bytes("03016A00 0015 45 50 C3 82 2C"));
    let document = Document::parse(&body, Limits::default()).unwrap();
    assert_eq!(document.root().child(compose_mail::MIME).unwrap().bytes().len(), 300);
}

#[test]
fn logs_show_the_protocol_and_hide_the_mail() {
    let body = Writer::document(air_sync::SYNC, |w| {
        w.text(air_sync::SYNC_KEY, "7\n<");
        w.text(email::SUBJECT, "salary");
        w.text(email::READ, "0");
        w.text(folder_hierarchy::DISPLAY_NAME, "Doctor");
    });
    assert_eq!(
        dump_bytes(&body, Contents::Hidden),
        "<Sync><SyncKey>7&#10;&lt;</SyncKey><Email:Subject><!-- 6 bytes --></Email:Subject>\
         <Email:Read>0</Email:Read>\
         <FolderHierarchy:DisplayName><!-- 6 bytes --></FolderHierarchy:DisplayName></Sync>"
    );
    assert_eq!(dump_bytes(b"<xml", Contents::Hidden), "<!-- WBXML at byte 0: not an EAS WBXML header -->");
}

fn tags() -> impl Strategy<Value = Tag> {
    proptest::sample::select(Tag::all().filter(|tag| !tag.is_opaque()).collect::<Vec<_>>())
}

/// Trees in the form in which they come back from the wire.
fn trees() -> impl Strategy<Value = Element> {
    let leaf = (tags(), proptest::option::of("[ -~\u{e4}\u{20ac}\u{1F4E7}]{1,12}"))
        .prop_map(|(tag, text)| text.map_or(Element::new(tag), |text| Element::text(tag, text)));
    let opaque = (tags(), prop::collection::vec(any::<u8>(), 1..200))
        .prop_map(|(tag, bytes)| Element::opaque(tag, bytes));
    prop_oneof![3 => leaf, 1 => opaque].prop_recursive(6, 64, 6, |inner| {
        (tags(), prop::collection::vec(inner, 1..6))
            .prop_map(|(tag, children)| Element::container(tag, children))
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(root in tags(), children in prop::collection::vec(trees(), 0..4)) {
        let element = Element::container(root, children);
        let body = element.to_document();
        let document = Document::parse(&body, Limits::default()).unwrap();
        prop_assert_eq!(document.root().to_element(), element);
    }

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let body = if header { [&HEADER[..], &tail].concat() } else { tail };
        let _ = dump_bytes(&body, Contents::Hidden);
    }

    /// Bytes that look like WBXML get further into the reader than random ones.
    #[test]
    fn plausible_bytes_never_panic(
        tail in prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(3), Just(0xC3), 0x05..0x20u8, 0x45..0x60u8, any::<u8>()], 0..300)
    ) {
        let body = [&HEADER[..], &tail].concat();
        if let Ok(document) = Document::parse(&body, Limits::default()) {
            let element = document.root().to_element();
            let _ = (document.root().text(), element.own_text().len());
        }
    }
}
