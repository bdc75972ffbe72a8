//! Settings: out of office, who the user is, what is kept of the device.

use directpush_common::eas::Version;
use directpush_common::eas::provision::{DeviceInformation, Policy};
use directpush_common::eas::settings::{OofChange, OofRequest, SettingsRequest};
use directpush_common::eas::status::SettingsStatus;
use directpush_common::mail::oof::{Audience, OofBody, OofReply, OofState};
use directpush_common::wbxml::{Contents, dump_bytes};

use crate::world::{PHONE, Phone, World};

async fn settings(world: &World, phone: Phone, request: &SettingsRequest) -> String {
    dump_bytes(&world.body(phone, "Settings", request.encode()).await, Contents::Shown)
}

fn oof(request: OofRequest) -> SettingsRequest {
    SettingsRequest { oof: Some(Ok(request)), ..SettingsRequest::default() }
}

#[tokio::test]
async fn out_of_office_is_set_and_told_in_the_form_that_is_asked_for() {
    let world = World::start().await;
    let off = settings(&world, PHONE, &oof(OofRequest::Get(OofBody::Text))).await;
    assert!(off.contains("<OofState>0</OofState>"), "{off}");
    let reply = OofReply::new("Away until <Monday>\nBye", OofBody::Text).unwrap();
    let change = OofChange { state: Some(OofState::On), replies: vec![(Audience::Internal, reply.clone())] };
    let set = settings(&world, PHONE, &oof(OofRequest::Set(change))).await;
    assert_eq!(set, "<Settings><Status>1</Status><Oof><Status>1</Status></Oof></Settings>");
    let html = settings(&world, PHONE, &oof(OofRequest::Get(OofBody::Html))).await;
    assert!(html.contains("<OofState>1</OofState>"), "{html}");
    assert!(html.contains("Away until &amp;lt;Monday&amp;gt;&lt;br&gt;"), "{html}");
    let text = settings(&world, PHONE, &oof(OofRequest::Get(OofBody::Text))).await;
    assert!(
        text.contains("<BodyType>TEXT</BodyType>") && text.contains("Away until &lt;Monday&gt;"),
        "{text}"
    );
}

#[tokio::test]
async fn who_the_user_is_is_told_to_each_version_in_its_form() {
    let world = World::start().await;
    let request = SettingsRequest { user_information: true, ..SettingsRequest::default() };
    for (version, account) in [(Version::V12_0, false), (Version::V14_0, false), (Version::V14_1, true)] {
        let told = settings(&world, Phone { version, ..PHONE }, &request).await;
        assert!(told.contains("<SMTPAddress>a.smith@example.com</SMTPAddress>"), "{told}");
        assert_eq!(told.contains("<Accounts>"), account, "{told}");
    }
    world.fake.mailbox.lock().manners.nameless = true;
    let told = settings(&world, PHONE, &request).await;
    assert!(told.contains("<UserInformation><Status>1</Status>"), "{told}");
    assert!(told.contains("<SMTPAddress>alice@example.com</SMTPAddress>"), "{told}");
    let old = Phone { version: Version::V2_5, ..PHONE };
    assert_eq!(world.post(old, "Settings", request.encode()).await.status(), 501);
}

#[tokio::test]
async fn what_a_device_says_of_itself_is_kept_and_its_recovery_password_if_the_policy_wants_it() {
    let world = World::start().await;
    let information = DeviceInformation { model: Some("Phone 7".into()), ..DeviceInformation::default() };
    let request = SettingsRequest {
        device_information: Some(Ok(information)),
        device_password: Some(Ok("123456".into())),
        rights_management: true,
        ..SettingsRequest::default()
    };
    let told = settings(&world, PHONE, &request).await;
    assert_eq!(
        told,
        "<Settings><Status>1</Status><DeviceInformation><Status>1</Status></DeviceInformation><DevicePassword>\
         <Status>7</Status></DevicePassword><RightsManagementInformation><Status>168</Status>\
         </RightsManagementInformation></Settings>"
    );
    let kept = || {
        let mailbox = world.fake.mailbox.lock();
        let object = mailbox.objects.iter().find(|(path, _)| path.ends_with("/Provision")).unwrap();
        String::from_utf8(object.1.1.to_vec()).unwrap()
    };
    assert!(kept().contains("Phone 7") && !kept().contains("123456"));
    {
        let mut policy = Policy::default();
        policy.set("password_recovery_enabled", 1).unwrap();
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.manners.standing.policy = Some(policy.hash());
        mailbox.manners.policy = policy;
    }
    // The device has not provisioned since: it is told so, and nothing is kept.
    let told = settings(&world, PHONE, &request).await;
    assert_eq!(told, "<Settings><Status>142</Status></Settings>");
    assert!(!kept().contains("123456"));
}

#[tokio::test]
async fn a_part_that_cannot_be_carried_out_fails_alone() {
    let world = World::start().await;
    let request = SettingsRequest {
        oof: Some(Ok(OofRequest::Set(OofChange { state: Some(OofState::On), replies: Vec::new() }))),
        device_information: Some(Err(SettingsStatus::ProtocolError)),
        ..SettingsRequest::default()
    };
    // A part that cannot be written is left out of the request, so this one is of a wrong element.
    let told = settings(&world, PHONE, &request).await;
    assert_eq!(told, "<Settings><Status>1</Status><Oof><Status>1</Status></Oof></Settings>");
    let empty =
        world.body(PHONE, "Settings", b"\x03\x01\x6a\x00\x00\x12\x45\x54\x48\x01\x01\x01".to_vec()).await;
    assert_eq!(
        dump_bytes(&empty, Contents::Shown),
        "<Settings><Status>1</Status><DevicePassword><Status>2</Status></DevicePassword></Settings>"
    );
    let nothing = world.body(PHONE, "Settings", b"\x03\x01\x6a\x00\x00\x12\x05".to_vec()).await;
    assert_eq!(dump_bytes(&nothing, Contents::Shown), "<Settings><Status>2</Status></Settings>");
}
