use proptest::prelude::*;

use super::*;
use crate::wbxml::{Contents, dump_bytes};

fn decode(body: &[u8]) -> Result<ProvisionRequest, ProvisionError> {
    ProvisionRequest::decode(body, Limits::default())
}

#[track_caller]
fn check(body: &[u8], request: &ProvisionRequest, shown: &str) {
    assert_eq!(dump_bytes(body, Contents::Shown), shown);
    assert_eq!(decode(body).as_ref(), Ok(request));
    assert_eq!(request.encode(), body);
}

#[track_caller]
fn check_response(response: &ProvisionResponse, shown: &str) {
    let body = response.encode();
    assert_eq!(dump_bytes(&body, Contents::Shown), shown);
    assert_eq!(ProvisionResponse::decode(&body, Limits::default()).as_ref(), Ok(response));
}

#[test]
fn both_phases_of_the_request() {
    let ask = ProvisionRequest {
        policy: Some(PolicyRequest::Ask(PolicyType::Wbxml)),
        ..ProvisionRequest::default()
    };
    check(
        &recorded!("provision-request-ask"),
        &ask,
        "<Provision><Policies><Policy><PolicyType>MS-EAS-Provisioning-WBXML</PolicyType></Policy></Policies></Provision>",
    );
    let acknowledge = PolicyRequest::Acknowledge {
        policy_type: PolicyType::Wbxml,
        key: Some(1_307_199_584),
        status: PolicyAcknowledgement::Applied,
    };
    check(
        &recorded!("provision-request-acknowledge"),
        &ProvisionRequest { policy: Some(acknowledge), ..ProvisionRequest::default() },
        "<Provision><Policies><Policy><PolicyType>MS-EAS-Provisioning-WBXML</PolicyType>\
         <PolicyKey>1307199584</PolicyKey><Status>1</Status></Policy></Policies></Provision>",
    );
    let information = DeviceInformation { model: Some("A1".to_owned()), ..DeviceInformation::default() };
    check(
        &recorded!("provision-request-ask-with-device-information"),
        &ProvisionRequest { device_information: Some(information), ..ask },
        "<Provision><Settings:DeviceInformation><Settings:Set><Settings:Model>A1</Settings:Model></Settings:Set>\
         </Settings:DeviceInformation><Policies><Policy><PolicyType>MS-EAS-Provisioning-WBXML</PolicyType>\
         </Policy></Policies></Provision>",
    );
}

#[test]
fn wipe_reports_in_the_orders_of_android_and_ios() {
    let wiped = ProvisionRequest { remote_wipe: Some((Wipe::Device, 1)), ..ProvisionRequest::default() };
    assert_eq!(decode(&wiped.encode()), Ok(wiped));
    let android = Writer::document(PROVISION, |writer| {
        writer.number(STATUS, 1);
        writer.element(REMOTE_WIPE, |writer| writer.number(STATUS, 1));
        writer.element(POLICIES, |writer| {
            writer.element(POLICY, |writer| writer.text(POLICY_TYPE, "MS-EAS-Provisioning-WBXML"));
        });
    });
    let request = decode(&android).unwrap();
    assert_eq!(
        (request.remote_wipe, request.policy),
        (Some((Wipe::Device, 1)), Some(PolicyRequest::Ask(PolicyType::Wbxml)))
    );
}

/// R4989, R450: no PolicyType, or a Policy outside Policies, is a protocol error.
#[test]
fn structure_errors_are_status_2() {
    let outside = Writer::document(PROVISION, |writer| {
        writer.element(POLICY, |writer| writer.text(POLICY_TYPE, "MS-EAS-Provisioning-WBXML"));
    });
    let untyped =
        Writer::document(PROVISION, |writer| writer.element(POLICIES, |writer| writer.empty(POLICY)));
    let empty = Writer::document(PROVISION, |_| {});
    let status = Writer::document(PROVISION, |writer| {
        writer.element(POLICIES, |writer| {
            writer.element(POLICY, |writer| {
                writer.text(POLICY_TYPE, "MS-EAS-Provisioning-WBXML");
                writer.number(POLICY_KEY, 7);
                writer.number(STATUS, 9);
            });
        });
    });
    for body in [outside, untyped, empty, status] {
        for version in [Version::V2_5, Version::V14_1] {
            let Answer::Body(answer) = decode(&body).unwrap_err().answer(version) else { panic!("a body") };
            assert_eq!(dump_bytes(&answer, Contents::Shown), "<Provision><Status>2</Status></Provision>");
        }
    }
    assert_eq!(decode(b"x").unwrap_err().answer(Version::V12_1), Answer::Http(400));
}

#[test]
fn a_key_that_cannot_exist_is_read_as_none() {
    let body = Writer::document(PROVISION, |writer| {
        writer.element(POLICIES, |writer| {
            writer.element(POLICY, |writer| {
                writer.text(POLICY_TYPE, "x");
                writer.text(POLICY_KEY, "99999999999");
                writer.number(STATUS, 2);
            });
        });
    });
    let policy_type = PolicyType::Other("x".to_owned());
    let status = PolicyAcknowledgement::PartlyApplied;
    let policy = PolicyRequest::Acknowledge { policy_type, key: None, status };
    assert_eq!(decode(&body).unwrap().policy, Some(policy));
}

#[test]
fn both_phases_of_the_response() {
    let policy = PolicyResponse {
        policy_type: PolicyType::Wbxml,
        status: PolicyStatus::Success,
        key: Some(7),
        data: None,
    };
    let response = ProvisionResponse {
        device_information: Some(true),
        status: ProvisionStatus::Success,
        policy: Some(policy.clone()),
        wipe: None,
    };
    check_response(
        &response,
        "<Provision><Settings:DeviceInformation><Settings:Status>1</Settings:Status></Settings:DeviceInformation>\
         <Status>1</Status><Policies><Policy><PolicyType>MS-EAS-Provisioning-WBXML</PolicyType><Status>1</Status>\
         <PolicyKey>7</PolicyKey></Policy></Policies></Provision>",
    );
    let wipe = ProvisionResponse {
        device_information: None,
        policy: None,
        wipe: Some(Wipe::Device),
        ..response.clone()
    };
    check_response(&wipe, "<Provision><Status>1</Status><RemoteWipe/></Provision>");
    let data = Some(PolicyData::Wbxml(vec![crate::wbxml::Element::text(
        crate::wbxml::tags::provision::ATTACHMENTS_ENABLED,
        "1",
    )]));
    check_response(
        &ProvisionResponse {
            device_information: None,
            policy: Some(PolicyResponse { data, ..policy }),
            ..response
        },
        "<Provision><Status>1</Status><Policies><Policy><PolicyType>MS-EAS-Provisioning-WBXML</PolicyType>\
         <Status>1</Status><PolicyKey>7</PolicyKey><Data><EASProvisionDoc><AttachmentsEnabled>1</AttachmentsEnabled>\
         </EASProvisionDoc></Data></Policy></Policies></Provision>",
    );
}

/// At 2.5 the policy is one string, not opaque and not elements.
#[test]
fn the_wap_policy_is_a_string() {
    let response = ProvisionResponse {
        device_information: None,
        status: ProvisionStatus::Success,
        policy: Some(PolicyResponse {
            policy_type: PolicyType::of(Version::V2_5),
            status: PolicyStatus::Success,
            key: Some(7),
            data: Some(Policy::default().to_data(Version::V2_5)),
        }),
        wipe: None,
    };
    let body = response.encode();
    let string = [&[0x4A, 0x03][..], WAP_PERMISSIVE.as_bytes(), &[0, 1]].concat();
    assert!(body.windows(string.len()).any(|window| window == string));
    assert_eq!(ProvisionResponse::decode(&body, Limits::default()), Ok(response));
}

#[test]
fn the_permissive_policy_has_only_what_the_version_knows() {
    let count = |version| match Policy::default().to_data(version) {
        PolicyData::Wbxml(settings) => settings.len(),
        PolicyData::WapXml(_) => 0,
    };
    assert_eq!([Version::V12_0, Version::V12_1, Version::V14_1].map(count), [12, 40, 40]);
}

#[test]
fn common_statuses_are_refusals() {
    let body =
        Writer::document(PROVISION, |writer| writer.number(STATUS, CommonStatus::MaximumDevicesReached));
    let refused = ProvisionResponseError::Refused(CommonStatus::MaximumDevicesReached);
    assert_eq!(ProvisionResponse::decode(&body, Limits::default()), Err(refused));
}

#[test]
fn a_policy_is_written_for_each_version_and_changes_its_hash() {
    let mut policy = Policy::default();
    let before = policy.hash();
    for (name, value) in [
        ("device_password_enabled", 1),
        ("min_device_password_length", 6),
        ("max_device_password_failed_attempts", 8),
        ("max_inactivity_time_device_lock", 300),
        ("alphanumeric_device_password_required", 1),
    ] {
        policy.set(name, value).unwrap();
    }
    assert_ne!(policy.hash(), before);
    assert!(policy.is_known_to(Version::V2_5));
    let PolicyData::WapXml(wap) = policy.to_data(Version::V2_5) else { panic!() };
    for part in [
        "name=\"4131\" value=\"0\"",
        "name=\"MinimumPasswordLength\" value=\"6\"",
        "name=\"DeviceWipeThreshold\" value=\"8\"",
        "name=\"AEFrequencyValue\" value=\"5\"",
        "name=\"PasswordComplexity\" value=\"0\"",
    ] {
        assert!(wap.contains(part), "{part} in {wap}");
    }
    let PolicyData::Wbxml(doc) = policy.to_data(Version::V14_1) else { panic!() };
    let length = crate::wbxml::tags::provision::MIN_DEVICE_PASSWORD_LENGTH;
    assert!(doc.iter().any(|it| it.tag == length && it.own_text() == "6"));
    policy.set("require_device_encryption", 1).unwrap();
    let known = [Version::V2_5, Version::V12_0, Version::V12_1].map(|version| policy.is_known_to(version));
    assert_eq!(known, [false, false, true]);
    assert_eq!(policy.set("allow_teleport", 1), Err(BadSetting::Unknown));
    assert_eq!(policy.set("allow_bluetooth", 3), Err(BadSetting::OutOfRange(0, 2)));
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
}

#[test]
fn an_account_only_wipe_is_ordered_and_reported_by_its_own_element() {
    let order = ProvisionResponse {
        wipe: Some(Wipe::Account),
        ..ProvisionResponse::failed(ProvisionStatus::Success)
    };
    check_response(&order, "<Provision><Status>1</Status><AccountOnlyRemoteWipe/></Provision>");
    let report = ProvisionRequest { remote_wipe: Some((Wipe::Account, 2)), ..ProvisionRequest::default() };
    assert_eq!(decode(&report.encode()), Ok(report));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x0E, 0x45][..], &tail].concat();
        let _ = (decode(&body), ProvisionResponse::decode(&body, Limits::default()));
    }
}
