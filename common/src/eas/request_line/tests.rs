use proptest::prelude::*;

use super::*;

const HEADERS: RequestHeaders<'static> =
    RequestHeaders { protocol_version: Some("2.5"), policy_key: None, accept_multipart: None };

fn decode(query: &str) -> Result<RequestLine, RequestLineError> {
    RequestLine::decode(query, HEADERS)
}

#[track_caller]
fn check_fault(query: &str, headers: RequestHeaders<'_>, fault: RequestLineFault, answer: Answer) {
    let error = RequestLine::decode(query, headers).unwrap_err();
    assert_eq!((error.fault, error.answer()), (fault, answer));
}

#[test]
fn plain_queries_in_the_orders_of_real_devices() {
    let windows_mobile = "Cmd=Ping&User=jim&DeviceId=6F24CAD599A5BF1A690246B8C68FAE8D&DeviceType=PocketPC";
    let line = decode(windows_mobile).unwrap();
    assert_eq!(line.command, Command::Ping);
    assert_eq!(line.user.as_deref(), Some("jim"));
    assert_eq!(line.device_id.as_str(), "6F24CAD599A5BF1A690246B8C68FAE8D");
    assert_eq!(line.device_type.as_str(), "PocketPC");
    assert_eq!(line.encode_plain(), windows_mobile);

    let ios = decode("User=d%5Cjim&DeviceId=ApplX&DeviceType=iPhone&Cmd=Sync").unwrap();
    assert_eq!((ios.command, ios.user.as_deref()), (Command::Sync, Some("d\\jim")));
    let shouting = decode("CMD=ping&USER=u%40d&DEVICEID=x&devicetype=Windows+Mail&SaveInSent=T").unwrap();
    assert_eq!((shouting.command, shouting.user.as_deref()), (Command::Ping, Some("u@d")));
    assert_eq!(shouting.device_type.as_str(), "Windows Mail");
    assert!(shouting.parameters.save_in_sent);
}

#[test]
fn headers_complete_the_plain_query() {
    let headers = RequestHeaders {
        protocol_version: Some("14.1"),
        policy_key: Some("3942919513"),
        accept_multipart: Some("T"),
    };
    let line = RequestLine::decode("Cmd=ItemOperations&DeviceId=x&DeviceType=y", headers).unwrap();
    assert_eq!((line.version, line.policy_key), (Version::V14_1, Some(3_942_919_513)));
    assert!(line.parameters.accept_multipart);
    let nonsense = RequestHeaders { policy_key: Some("x"), ..headers };
    let line = RequestLine::decode("Cmd=Sync&DeviceId=x&DeviceType=y", nonsense).unwrap();
    assert_eq!(line.policy_key, None);
}

/// The specification's example: no user, no policy key.
#[test]
fn base64_query_of_the_specification() {
    let query = "jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l";
    let line = decode(query).unwrap();
    assert_eq!((line.version, line.command, line.locale), (Version::V14_0, Command::Sync, Some(0x0409)));
    assert_eq!((line.device_id.as_str(), line.device_type.as_str()), ("v140Device", "SmartPhone"));
    assert_eq!((line.user.as_deref(), line.policy_key), (None, None));
    assert_eq!(line.encode_base64().unwrap(), query);
}

/// Windows Mail: a binary device id, a policy key of 0, and `/` and `+` in the query.
#[test]
fn base64_query_with_a_binary_device_id() {
    let line = decode("jQAHBBC5KA1Wkp/fDGN0EqhqG2XOBAAAAAALV2luZG93c01haWw=").unwrap();
    assert_eq!((line.version, line.command, line.locale), (Version::V14_1, Command::Sync, Some(0x0407)));
    assert_eq!(line.device_id.as_str(), "b9280d56929fdf0c637412a86a1b65ce");
    assert_eq!((line.policy_key, line.device_type.as_str()), (Some(0), "WindowsMail"));
    let escaped = decode("jQAHBBC5KA1Wkp%2FfDGN0EqhqG2XOBAAAAAALV2luZG93c01haWw%3D").unwrap();
    assert_eq!(escaped, line);
    assert_eq!(decode("jQAHBBC5KA1Wkp/fDGN0EqhqG2XOBAAAAAALV2luZG93c01haWw").unwrap(), line);
}

#[test]
fn base64_parameters_by_tag_with_unknown_ones_skipped() {
    let mut record = vec![121, 18, 9, 4, 1, b'x', 0, 1, b'y'];
    record.extend([8, 3, b'j', b'i', b'm', 7, 1, 3, 5, 2, 0, 0, 1, 1, b'5']);
    let line = decode(&data_encoding::BASE64.encode(&record)).unwrap();
    assert_eq!((line.version, line.command), (Version::V12_1, Command::Ping));
    assert_eq!((line.user.as_deref(), line.parameters.collection_id.as_deref()), (Some("jim"), Some("5")));
    assert!(line.parameters.save_in_sent && line.parameters.accept_multipart);
}

#[test]
fn what_is_wrong_is_answered_as_the_version_wants() {
    use RequestLineFault as Fault;
    let at = |version| RequestHeaders { protocol_version: Some(version), ..RequestHeaders::default() };
    let status = |code| {
        let status = CommonStatus::from_code(code).unwrap();
        common_status_answer(Command::Sync, Version::V14_1, status)
    };
    let http = Answer::Http;
    check_fault("Cmd=NotExist&DeviceId=x&DeviceType=y", at("14.1"), Fault::UnknownCommand, http(501));
    for version in ["1.0", "16.2", "17.0"] {
        check_fault("Cmd=Sync&DeviceId=x&DeviceType=y", at(version), Fault::UnsupportedVersion, http(400));
    }
    check_fault(
        "Cmd=Sync&DeviceId=x&DeviceType=y",
        RequestHeaders::default(),
        Fault::MissingVersion,
        http(400),
    );
    check_fault("Cmd=Sync&DeviceType=y", at("12.1"), Fault::DeviceId, http(400));
    check_fault("Cmd=Sync&DeviceType=y", at("14.1"), Fault::DeviceId, status(108));
    check_fault("Cmd=Sync&DeviceId=x", at("14.1"), Fault::DeviceType, status(109));
    check_fault("Cmd=Sync&DeviceId=x", at("2.5"), Fault::DeviceType, http(400));
    for id in ["..", ".", "a%2Fb", "a%5Cb", "a%00", "%252f", "a%0d%0ab", "%FF", "a+b", ""] {
        let query = format!("Cmd=Sync&DeviceId={id}&DeviceType=y");
        check_fault(&query, at("2.5"), Fault::DeviceId, http(400));
    }
}

#[test]
fn queries_of_neither_form_are_malformed() {
    let malformed = RequestLineFault::Malformed;
    let truncated = "jAAJBAp2MTQwRGV2";
    for query in ["", "&", "User=u&DeviceId=d", "DeviceId=cmd", "jAA", "jAAJBAr!", truncated, "%FF", "ü"] {
        check_fault(query, HEADERS, malformed, Answer::Http(400));
    }
    // Microsoft's own case: version byte 191.
    let query = data_encoding::BASE64.encode(&[191, 0, 9, 4, 1, b'x', 0, 1, b'y']);
    check_fault(&query, HEADERS, RequestLineFault::UnsupportedVersion, Answer::Http(400));
    // A policy key of three bytes.
    let query = data_encoding::BASE64.encode(&[140, 0, 9, 4, 1, b'x', 3, 1, 2, 3, 1, b'y']);
    check_fault(&query, HEADERS, malformed, Answer::Http(400));
}

#[test]
fn a_plus_in_a_user_counts_as_itself_and_as_a_blank() {
    let user = |query: &str| decode(&format!("Cmd=Sync&DeviceId=x&DeviceType=y&{query}")).unwrap();
    assert!(user("User=jim+news@d").names_user(|user| user == "jim+news@d"));
    assert!(user("User=jim+smith").names_user(|user| user == "jim smith"));
    assert!(user("User=jim%2Bnews").names_user(|user| user == "jim+news"));
    assert!(!user("User=other").names_user(|user| user == "jim"));
    assert!(user("").names_user(|user| user == "jim"));
}

fn lines() -> impl Strategy<Value = RequestLine> {
    let parameters = (proptest::option::of("\\PC{0,20}"), proptest::option::of("\\PC{0,20}"), any::<bool>());
    let device = ("[A-Za-z0-9._-]{3,64}", "[A-Za-z0-9]{1,30}");
    (
        0..24u8,
        2..5usize,
        proptest::option::of("\\PC{0,30}"),
        device,
        any::<Option<u32>>(),
        any::<u16>(),
        parameters,
    )
        .prop_map(|(code, version, user, (id, kind), policy_key, locale, (item, folder, save))| {
            RequestLine {
                command: Command::from_code(code).unwrap(),
                version: super::super::version::OFFERED[version],
                user,
                device_id: DeviceId::new(&id).unwrap(),
                device_type: DeviceType::new(&kind).unwrap(),
                policy_key,
                locale: Some(locale),
                parameters: Parameters {
                    item_id: item,
                    collection_id: folder,
                    save_in_sent: save,
                    ..Parameters::default()
                },
            }
        })
}

proptest! {
    #[test]
    fn both_forms_say_the_same(line in lines()) {
        let base64 = line.encode_base64().unwrap();
        prop_assert_eq!(RequestLine::decode(&base64, RequestHeaders::default()), Ok(line.clone()));
        let key = line.policy_key.map(|key| key.to_string());
        let headers = RequestHeaders {
            protocol_version: Some(line.version.as_str()),
            policy_key: key.as_deref(),
            accept_multipart: None,
        };
        let plain = RequestLine::decode(&line.encode_plain(), headers);
        prop_assert_eq!(plain, Ok(RequestLine { locale: None, ..line }));
    }

    #[test]
    fn arbitrary_queries_never_panic(query in "\\PC{0,100}", record in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(&query);
        let _ = decode(&format!("Cmd=Ping&{query}"));
        let _ = decode(&data_encoding::BASE64.encode(&record));
    }
}
