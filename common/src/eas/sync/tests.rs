use proptest::prelude::*;

use super::*;
use crate::eas::status::{CommonStatus, SyncStatus};
use crate::eas::{Answer, Version};
use crate::wbxml::tags::{air_sync_base, email2};
use crate::wbxml::{Contents, Limits, Writer, dump_bytes};

fn decode(body: &[u8]) -> Result<SyncBody, SyncError> {
    SyncBody::decode(body, Limits::default())
}

/// The body reads as this request, and is written again byte for byte.
#[track_caller]
fn check(body: &[u8], version: Version, request: &SyncRequest) {
    assert_eq!(decode(body).as_ref(), Ok(&SyncBody::Full(request.clone())));
    assert_eq!(request.encode(version), body);
}

#[track_caller]
fn check_response(response: &SyncResponse, version: Version, shown: &str) {
    let body = response.encode(version);
    assert_eq!(dump_bytes(&body, Contents::Shown), shown);
    assert_eq!(SyncResponse::decode(&body, Limits::default()).as_ref(), Ok(response));
}

fn collection(key: &str) -> SyncCollection {
    SyncCollection { sync_key: key.to_owned(), collection_id: "5".to_owned(), ..SyncCollection::default() }
}

fn one(collection: SyncCollection) -> SyncRequest {
    SyncRequest { collections: vec![collection], ..SyncRequest::default() }
}

#[test]
fn first_requests_of_both_eras() {
    check(&recorded!("sync-request-14-key-0"), Version::V14_1, &one(collection("0")));
    let class = Some("Email".to_owned());
    check(
        &recorded!("sync-request-2.5-key-0"),
        Version::V2_5,
        &one(SyncCollection { class, ..collection("0") }),
    );
    assert_eq!(decode(b""), Ok(SyncBody::Empty));
}

#[test]
fn a_mail_sync_with_options() {
    let preference = BodyPreference {
        body_type: BodyType::Plain,
        truncation_size: Some(400),
        all_or_none: false,
        preview: None,
    };
    let options = SyncOptions {
        filter_type: Some(FilterType::ThreeDays),
        mime_support: Some(MimeSupport::Never),
        body_preferences: vec![preference],
        ..SyncOptions::default()
    };
    let request = SyncCollection {
        deletes_as_moves: Some(true),
        get_changes: Some(true),
        window_size: Some(100),
        options: vec![options],
        ..collection("7")
    };
    check(&recorded!("sync-request-14-options"), Version::V14_1, &one(request));
}

#[test]
fn the_options_of_2_5() {
    let body = recorded!("sync-request-2.5-options");
    let Ok(SyncBody::Full(request)) = decode(&body) else { panic!("{:?}", decode(&body)) };
    let [collection] = &request.collections[..] else { panic!("one collection") };
    assert_eq!(collection.class.as_deref(), Some("Email"));
    assert_eq!((collection.get_changes, collection.deletes_as_moves), (Some(true), Some(true)));
    let options = &collection.options[0];
    assert_eq!((options.truncation_limit(), options.conflict), (Some(512), Some(1)));
    assert_eq!(options.filter_type.and_then(FilterType::days), Some(3));
    let all = SyncOptions { truncation: Some(9), mime_truncation: Some(8), ..SyncOptions::default() };
    assert_eq!((all.truncation_limit(), all.mime_truncation_limit()), (None, None));
}

/// [MS-ASCMD] GetChanges: absent, empty and 0 are three things.
#[test]
fn get_changes_absent_empty_and_no() {
    let with = |key: &str, content: &dyn Fn(&mut Writer)| {
        let body = Writer::document(air_sync::SYNC, |writer| {
            writer.element(air_sync::COLLECTIONS, |writer| {
                writer.element(air_sync::COLLECTION, |writer| {
                    content(writer);
                    writer.text(air_sync::COLLECTION_ID, "5");
                    writer.text(air_sync::SYNC_KEY, key);
                });
            });
        });
        let Ok(SyncBody::Full(mut request)) = decode(&body) else { panic!("readable") };
        let collection = request.collections.remove(0);
        (
            collection.get_changes,
            collection.wants_changes(Version::V12_1),
            collection.wants_changes(Version::V2_5),
        )
    };
    assert_eq!(with("7", &|_| {}), (None, true, true));
    assert_eq!(with("0", &|_| {}), (None, false, false));
    assert_eq!(with("7", &|writer| writer.empty(air_sync::GET_CHANGES)), (Some(true), true, true));
    assert_eq!(with("7", &|writer| writer.number(air_sync::GET_CHANGES, 1)), (Some(true), true, true));
    assert_eq!(with("7", &|writer| writer.number(air_sync::GET_CHANGES, 0)), (Some(false), false, false));
}

#[test]
fn changes_of_the_device() {
    let body = recorded!("sync-request-14-read-flag-and-delete");
    let data = vec![Element::text(email::READ, "1")];
    assert_eq!((email_read(&data), is_flags_only(&data)), (Some(true), true));
    let commands = vec![
        SyncCommand::Change { server_id: "5:1".to_owned(), data },
        SyncCommand::Delete { server_id: "5:2".to_owned() },
        SyncCommand::Fetch { server_id: "5:3".to_owned() },
    ];
    check(&body, Version::V14_1, &one(SyncCollection { commands, ..collection("8") }));
    assert_eq!(email_read(&vec![Element::text(email::SUBJECT, "x")]), None);
    assert!(!is_flags_only(&vec![Element::text(email::SUBJECT, "x")]));
}

#[test]
fn hanging_and_partial_requests() {
    let wait = SyncRequest { wait: Some(Wait::Minutes(59)), partial: true, ..SyncRequest::default() };
    assert_eq!(decode(&wait.encode(Version::V12_1)), Ok(SyncBody::Full(wait)));
    let heartbeat =
        SyncRequest { wait: Some(Wait::Seconds(-5)), window_size: Some(0), ..one(collection("7")) };
    assert_eq!(decode(&heartbeat.encode(Version::V14_0)), Ok(SyncBody::Full(heartbeat)));
    let supported = SyncCollection { supported: Some(Vec::new()), ..collection("0") };
    assert_eq!(decode(&one(supported.clone()).encode(Version::V14_0)), Ok(SyncBody::Full(one(supported))));
}

#[test]
fn protocol_errors_are_status_4() {
    let both = Writer::document(air_sync::SYNC, |writer| {
        writer.number(air_sync::WAIT, 1);
        writer.number(air_sync::HEARTBEAT_INTERVAL, 60);
        writer.empty(air_sync::PARTIAL);
    });
    assert_eq!(decode(&both), Err(SyncError::TwoWaits));
    let no_key = one(SyncCollection { sync_key: String::new(), ..collection("0") }).encode(Version::V14_1);
    assert_eq!(decode(&no_key), Err(SyncError::Invalid(air_sync::SYNC_KEY)));
    let nothing = Writer::document(air_sync::SYNC, |_| {});
    assert_eq!(decode(&nothing), Err(SyncError::Invalid(air_sync::COLLECTIONS)));
    let body = Writer::document(air_sync::SYNC, |writer| {
        writer.element(air_sync::COLLECTIONS, |writer| {
            writer.element(air_sync::COLLECTION, |writer| {
                writer.text(air_sync::SYNC_KEY, "1");
                writer.text(air_sync::COLLECTION_ID, "5");
                writer.element(air_sync::OPTIONS, |writer| writer.number(air_sync::FILTER_TYPE, 9));
            });
        });
    });
    let error = decode(&body).unwrap_err();
    assert_eq!(error, SyncError::Invalid(air_sync::FILTER_TYPE));
    let Answer::Body(answer) = error.answer(Version::V2_5) else { panic!("a body") };
    assert_eq!(dump_bytes(&answer, Contents::Shown), "<Sync><Status>4</Status></Sync>");
    assert_eq!(decode(b"x").unwrap_err().answer(Version::V2_5), Answer::Http(400));
}

#[test]
fn responses_in_schema_order() {
    let mail = vec![
        Element::text(email::SUBJECT, "Hello"),
        Element::container(air_sync_base::BODY, [Element::text(air_sync_base::TYPE, "1")]),
    ];
    let response = CollectionResponse {
        more_available: true,
        commands: vec![
            ServerCommand::Add { server_id: "5:1".to_owned(), data: mail },
            ServerCommand::Change {
                server_id: "5:2".to_owned(),
                data: vec![Element::text(email::READ, "1")],
            },
            ServerCommand::Delete { server_id: "5:3".to_owned() },
            ServerCommand::SoftDelete { server_id: "5:4".to_owned() },
        ],
        responses: vec![
            CommandResponse::Add {
                client_id: "c".to_owned(),
                server_id: None,
                status: SyncStatus::ConversionError,
                data: None,
            },
            CommandResponse::Changed {
                server_id: "5:8".to_owned(),
                data: vec![Element::text(email::SUBJECT, "x")],
            },
            CommandResponse::Change { server_id: "5:9".to_owned(), status: SyncStatus::ObjectNotFound },
        ],
        ..CollectionResponse::plain("2", "5", SyncStatus::Success)
    };
    check_response(
        &SyncResponse::Collections(vec![response]),
        Version::V14_1,
        "<Sync><Collections><Collection><SyncKey>2</SyncKey><CollectionId>5</CollectionId><Status>1</Status>\
         <MoreAvailable/><Commands>\
         <Add><ServerId>5:1</ServerId><ApplicationData><Email:Subject>Hello</Email:Subject>\
         <AirSyncBase:Body><AirSyncBase:Type>1</AirSyncBase:Type></AirSyncBase:Body></ApplicationData></Add>\
         <Change><ServerId>5:2</ServerId><ApplicationData><Email:Read>1</Email:Read></ApplicationData></Change>\
         <Delete><ServerId>5:3</ServerId></Delete><SoftDelete><ServerId>5:4</ServerId></SoftDelete></Commands>\
         <Responses><Add><ClientId>c</ClientId><Status>6</Status></Add>\
         <Change><ServerId>5:8</ServerId><Status>1</Status><ApplicationData><Email:Subject>x</Email:Subject>\
         </ApplicationData></Change>\
         <Change><ServerId>5:9</ServerId><Status>8</Status></Change></Responses>\
         </Collection></Collections></Sync>",
    );
}

#[test]
fn the_class_is_written_where_the_version_wants_it() {
    let class = Some("Email".to_owned());
    let plain = CollectionResponse::plain("1", "5", SyncStatus::Success);
    let response = SyncResponse::Collections(vec![CollectionResponse { class, ..plain.clone() }]);
    let body = recorded!("sync-response-2.5-key-1");
    assert_eq!(response.encode(Version::V2_5), body);
    assert_eq!(SyncResponse::decode(&body, Limits::default()), Ok(response.clone()));
    let modern = recorded!("sync-response-14-key-1");
    assert_eq!(response.encode(Version::V14_1), modern);
    assert_eq!(SyncResponse::decode(&modern, Limits::default()), Ok(SyncResponse::Collections(vec![plain])));
}

#[test]
fn nothing_is_an_empty_body_and_never_empty_collections() {
    assert_eq!(SyncResponse::nothing().encode(Version::V14_1), b"");
    assert_eq!(SyncResponse::decode(b"", Limits::default()), Ok(SyncResponse::nothing()));
}

#[test]
fn failures_of_the_whole() {
    let out_of_range = SyncResponse::Failed { status: SyncStatus::WaitOutOfRange, limit: Some(59) };
    check_response(&out_of_range, Version::V12_1, "<Sync><Status>14</Status><Limit>59</Limit></Sync>");
    let incomplete = SyncResponse::failed(SyncStatus::IncompleteRequest);
    check_response(&incomplete, Version::V12_1, "<Sync><Status>13</Status></Sync>");
    let common = SyncResponse::Common(CommonStatus::DeviceNotProvisioned);
    check_response(&common, Version::V14_0, "<Sync><Status>142</Status></Sync>");
}

fn words() -> impl Strategy<Value = String> {
    "[!-~]{1,20}"
}

fn data() -> impl Strategy<Value = ApplicationData> {
    prop::collection::vec("\\PC{1,40}".prop_map(|text| Element::text(email::SUBJECT, text)), 0..3)
}

fn commands() -> impl Strategy<Value = SyncCommand> {
    (0..4u8, words(), data(), any::<bool>()).prop_map(|(kind, id, data, sms)| match kind {
        0 => SyncCommand::Add { class: sms.then(|| "SMS".to_owned()), client_id: id, data },
        1 => SyncCommand::Change { server_id: id, data },
        2 => SyncCommand::Delete { server_id: id },
        _ => SyncCommand::Fetch { server_id: id },
    })
}

fn options() -> impl Strategy<Value = SyncOptions> {
    let preference = (1..5i64, any::<Option<u32>>(), any::<bool>(), any::<Option<u32>>()).prop_map(
        |(kind, truncation_size, all_or_none, preview)| BodyPreference {
            body_type: BodyType::from_code(kind).unwrap(),
            truncation_size,
            all_or_none,
            preview,
        },
    );
    let numbers = (0..9i64, 0..2u8, 0..10u8, 0..3i64, 0..9u8);
    (numbers, prop::collection::vec(preference, 0..4)).prop_map(|(numbers, body_preferences)| SyncOptions {
        class: None,
        filter_type: FilterType::from_code(numbers.0),
        conflict: Some(numbers.1),
        truncation: Some(numbers.2),
        mime_support: MimeSupport::from_code(numbers.3),
        mime_truncation: Some(numbers.4),
        max_items: None,
        body_part_preferences: body_preferences.iter().take(1).copied().collect(),
        body_preferences,
    })
}

proptest! {
    #[test]
    fn what_is_asked_is_read_again(
        keys in prop::collection::vec((words(), words(), any::<Option<bool>>(), any::<Option<u32>>()), 1..4),
        options in prop::collection::vec(options(), 0..3),
        commands in prop::collection::vec(commands(), 0..6),
    ) {
        let collections = keys.into_iter().map(|(sync_key, collection_id, switch, window_size)| SyncCollection {
            class: Some("Email".to_owned()),
            sync_key,
            collection_id,
            supported: switch.map(|_| vec![email::READ, air_sync_base::BODY]),
            deletes_as_moves: switch,
            get_changes: switch,
            window_size,
            conversation_mode: switch,
            options: options.clone(),
            commands: commands.clone(),
        });
        let request = SyncRequest { collections: collections.collect(), ..SyncRequest::default() };
        prop_assert_eq!(decode(&request.encode(Version::V12_0)), Ok(SyncBody::Full(request)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        tail in prop::collection::vec(prop_oneof![Just(1u8), Just(3), Just(0), 0x45..0x6Au8, any::<u8>()], 0..200)
    ) {
        let body = [&[0x03, 0x01, 0x6A, 0x00, 0x45, 0x5C, 0x4F][..], &tail].concat();
        let _ = (decode(&body), SyncResponse::decode(&body, Limits::default()));
    }
}

/// [MS-ASEMAIL] 2.2.2.69: Send stands beside the data; in it, it means the same.
#[test]
fn a_draft_to_be_sent_is_read_from_either_place() {
    let send = Element::new(email2::SEND);
    let subject = Element::text(email::SUBJECT, "x");
    let change = |data| {
        let command = SyncCommand::Change { server_id: "5:1".into(), data };
        let (sync_key, collection_id) = ("1".into(), "5".into());
        let commands = vec![command];
        let collection = SyncCollection { sync_key, collection_id, commands, ..SyncCollection::default() };
        SyncRequest { collections: vec![collection], ..SyncRequest::default() }
    };
    let written = change(vec![subject.clone(), send.clone()]);
    let body = written.encode(Version::V16_1);
    check(&body, Version::V16_1, &written);
    let inside = Writer::document(crate::wbxml::tags::air_sync::SYNC, |writer| {
        use crate::wbxml::tags::air_sync::{
            APPLICATION_DATA, CHANGE, COLLECTION, COLLECTION_ID, COLLECTIONS, COMMANDS, SERVER_ID, SYNC_KEY,
        };
        let data = Element::container(APPLICATION_DATA, [send, subject]);
        let change = Element::container(CHANGE, [Element::text(SERVER_ID, "5:1"), data]);
        let inner = [
            Element::text(SYNC_KEY, "1"),
            Element::text(COLLECTION_ID, "5"),
            Element::container(COMMANDS, [change]),
        ];
        writer.tree(&Element::container(COLLECTIONS, [Element::container(COLLECTION, inner)]));
    });
    assert_eq!(decode(&inside), Ok(SyncBody::Full(written)));
}
