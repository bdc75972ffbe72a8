use proptest::prelude::*;

use super::super::testing::bytes;
use super::*;
use crate::wbxml::{Contents, WbxmlFault, dump_bytes};

fn decode(body: &[u8]) -> Result<PingBody, PingError> {
    PingBody::decode(body, Limits::default())
}

fn folder(id: &str) -> PingFolder {
    PingFolder { id: id.to_owned(), class: "Email".to_owned() }
}

/// The body reads as this request, and is written again byte for byte.
#[track_caller]
fn check(body: &[u8], request: &PingRequest) {
    assert_eq!(decode(body).as_ref(), Ok(&PingBody::Full(request.clone())));
    assert_eq!(request.encode(), body);
}

#[track_caller]
fn check_response(body: &[u8], response: &PingResponse, shown: &str) {
    assert_eq!(response.encode(), body);
    assert_eq!(PingResponse::decode(body, Limits::default()).as_ref(), Ok(response));
    assert_eq!(dump_bytes(body, Contents::Shown), shown);
}

#[track_caller]
fn check_error(hex: &str, error: PingError) {
    assert_eq!(decode(&bytes(hex)), Err(error));
}

#[test]
fn requests_in_both_directions() {
    let inbox = PingRequest { heartbeat: Some(480), folders: Some(vec![folder("5")]) };
    let body = recorded!("ping-request-480-one-folder");
    assert_eq!(body.len(), 33);
    check(&body, &inbox);
    check(&recorded!("ping-request-only-heartbeat"), &PingRequest { heartbeat: Some(680), folders: None });
    check(&recorded!("ping-request-only-folders"), &PingRequest { heartbeat: None, ..inbox.clone() });
    check(
        &recorded!("ping-request-negative-heartbeat"),
        &PingRequest { heartbeat: Some(-100), folders: None },
    );
    assert_eq!(decode(b""), Ok(PingBody::Empty));
}

#[test]
fn responses_in_both_directions() {
    let expired = "<Ping><Status>1</Status></Ping>";
    check_response(&recorded!("ping-response-1-expired"), &PingResponse::Expired, expired);
    check_response(
        &recorded!("ping-response-2-one-folder"),
        &PingResponse::Changed(vec!["5".to_owned()]),
        "<Ping><Status>2</Status><Folders><Folder>5</Folder></Folders></Ping>",
    );
    check_response(
        &recorded!("ping-response-2-two-folders"),
        &PingResponse::Changed(vec!["5".to_owned(), "7".to_owned()]),
        "<Ping><Status>2</Status><Folders><Folder>5</Folder><Folder>7</Folder></Folders></Ping>",
    );
    check_response(
        &recorded!("ping-response-5-heartbeat-3540"),
        &PingResponse::HeartbeatOutOfRange(3540),
        "<Ping><Status>5</Status><HeartbeatInterval>3540</HeartbeatInterval></Ping>",
    );
    check_response(
        &recorded!("ping-response-6-max-folders-200"),
        &PingResponse::TooManyFolders(200),
        "<Ping><Status>6</Status><MaxFolders>200</MaxFolders></Ping>",
    );
}

#[test]
fn statuses_without_company_are_13_bytes() {
    let statuses = [
        (PingResponse::MissingParameters, b'3'),
        (PingResponse::Syntax, b'4'),
        (PingResponse::FolderSyncRequired, b'7'),
        (PingResponse::ServerError, b'8'),
    ];
    for (response, digit) in statuses {
        let body = response.encode();
        assert_eq!((body.len(), body[9]), (13, digit));
        assert_eq!(PingResponse::decode(&body, Limits::default()), Ok(response));
    }
}

#[test]
fn elements_may_come_in_any_order_and_opaque() {
    let body = bytes(
        "03016A00 000D 45 49 4A 4C 0345 6D61 696C00 01 4B C3 01 35 01 01 01 48 03 20343830 20 00 01 01",
    );
    let request = PingRequest { heartbeat: Some(480), folders: Some(vec![folder("5")]) };
    assert_eq!(decode(&body), Ok(PingBody::Full(request)));
}

/// [MS-ASCMD] Status 4: an empty Ping, and a Folder without Id, are syntax errors, not missing parameters.
#[test]
fn what_is_there_must_be_complete() {
    check_error("03016A00 000D 05", PingError::Nothing);
    check_error("03016A00 000D 45 01", PingError::Nothing);
    check_error("03016A00 000D 45 09 01", PingError::NoFolder);
    check_error("03016A00 000D 45 49 0A 01 01", PingError::Incomplete(ID));
    check_error("03016A00 000D 45 49 4A 4C 03 45 00 01 01 01 01", PingError::Incomplete(ID));
    check_error("03016A00 000D 45 49 4A 0B 4C 03 45 00 01 01 01 01", PingError::Incomplete(ID));
    check_error("03016A00 000D 45 49 4A 4B 03 35 00 01 01 01 01", PingError::Incomplete(CLASS));
    check_error("03016A00 000D 45 08 01", PingError::HeartbeatNotANumber);
    check_error("03016A00 000D 45 48 03 38 6D 00 01 01", PingError::HeartbeatNotANumber);
    check_error("03016A00 000D 45 48 03 38 00 01 48 03 39 00 01 01", PingError::Repeated(HEARTBEAT_INTERVAL));
    let twice = PingRequest { heartbeat: None, folders: Some(vec![folder("5"), folder("6"), folder("5")]) };
    assert_eq!(decode(&twice.encode()), Err(PingError::Duplicate));
}

#[test]
fn other_bodies_are_not_pings() {
    let fault = |offset, fault| PingError::Wbxml(WbxmlError { offset, fault });
    check_error(
        "03016A00 0007 56 52 03 30 00 01 01",
        PingError::NotPing(crate::wbxml::tags::folder_hierarchy::FOLDER_SYNC),
    );
    check_error("68656C6C6F", fault(0, WbxmlFault::Header));
    check_error("03016A00 000D 45 FF", fault(7, WbxmlFault::Attributes(0xFF)));
}

#[test]
fn heartbeats_beyond_any_range_are_still_numbers() {
    let body =
        Writer::document(PING, |writer| writer.text(HEARTBEAT_INTERVAL, "123456789012345678901234567890"));
    let request = PingRequest { heartbeat: Some(i64::MAX), folders: None };
    assert_eq!(decode(&body), Ok(PingBody::Full(request)));
}

#[test]
fn common_statuses_are_told_from_pings_own() {
    let body = PingResponse::Common(CommonStatus::ServerErrorRetryLater).encode();
    assert_eq!(dump_bytes(&body, Contents::Shown), "<Ping><Status>111</Status></Ping>");
    let read = PingResponse::decode(&body, Limits::default());
    assert_eq!(read, Ok(PingResponse::Common(CommonStatus::ServerErrorRetryLater)));
    let unknown = Writer::document(PING, |writer| writer.number(STATUS, 9));
    assert_eq!(PingResponse::decode(&unknown, Limits::default()), Err(PingResponseError::BadStatus));
}

fn words() -> impl Strategy<Value = String> {
    "[!-~]{1,40}"
}

proptest! {
    #[test]
    fn what_is_asked_is_read_again(
        heartbeat in any::<i64>(),
        ids in proptest::option::of(prop::collection::btree_map(words(), words(), 1..20)),
    ) {
        let folders = ids.map(|ids| ids.into_iter().map(|(id, class)| PingFolder { id, class }).collect());
        let request = PingRequest { heartbeat: Some(heartbeat), folders };
        prop_assert_eq!(decode(&request.encode()), Ok(PingBody::Full(request)));
    }

    #[test]
    fn what_is_answered_is_read_again(ids in prop::collection::vec(words(), 0..20), bound in any::<u32>()) {
        for response in [
            PingResponse::Changed(ids.clone()),
            PingResponse::HeartbeatOutOfRange(bound),
            PingResponse::TooManyFolders(bound),
        ] {
            prop_assert_eq!(PingResponse::decode(&response.encode(), Limits::default()), Ok(response));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x0D, 0x45][..], &tail].concat();
        let _ = (decode(&body), PingResponse::decode(&body, Limits::default()));
    }
}

/// The suites' schema: Status, then Folders, MaxFolders or HeartbeatInterval, each at most once, and only with the
/// status that brings it.
#[test]
fn responses_keep_the_order_of_the_schema() {
    use crate::wbxml::{Document, ElementRef, tags::ping};

    let of = |response: PingResponse| {
        let body = response.encode();
        let document = Document::parse(&body, Limits::default()).unwrap();
        assert_eq!(document.root().tag(), ping::PING);
        document.root().children().map(ElementRef::tag).collect::<Vec<_>>()
    };
    assert_eq!(of(PingResponse::Expired), [ping::STATUS]);
    assert_eq!(of(PingResponse::Changed(vec!["5".into(), "7".into()])), [ping::STATUS, ping::FOLDERS]);
    assert_eq!(of(PingResponse::HeartbeatOutOfRange(60)), [ping::STATUS, ping::HEARTBEAT_INTERVAL]);
    assert_eq!(of(PingResponse::TooManyFolders(200)), [ping::STATUS, ping::MAX_FOLDERS]);
    let body = PingResponse::Changed(vec!["5".into(), "7".into()]).encode();
    let document = Document::parse(&body, Limits::default()).unwrap();
    let folders: Vec<_> = document
        .root()
        .child(ping::FOLDERS)
        .unwrap()
        .children()
        .map(|f| (f.tag(), f.text().into_owned()))
        .collect();
    assert_eq!(folders, [(ping::FOLDER, "5".to_owned()), (ping::FOLDER, "7".to_owned())]);
}
