//! Policies, keys, wipes and refusals, as each version is told of them.

use directpush_common::dav::standing::{Order, Standing};
use directpush_common::eas::Version;
use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse};
use directpush_common::eas::ping::PingResponse;
use directpush_common::eas::provision::{
    DeviceInformation, Policy, PolicyData, PolicyRequest, PolicyType, ProvisionRequest, ProvisionResponse,
    ProvisionResponseError, Wipe,
};
use directpush_common::eas::status::{PolicyAcknowledgement, ProvisionStatus};
use directpush_common::wbxml::Limits;
use reqwest::Method;

use crate::fake::USER;
use crate::world::{PHONE, Phone, World};

const VERSIONS: [Version; 5] =
    [Version::V2_5, Version::V12_0, Version::V12_1, Version::V14_0, Version::V14_1];

pub(crate) fn demand(world: &World, settings: &[(&str, i64)]) {
    let mut policy = Policy::default();
    for (name, value) in settings {
        policy.set(name, *value).unwrap();
    }
    let mut mailbox = world.fake.mailbox.lock();
    mailbox.manners.standing.policy = Some(policy.hash());
    mailbox.manners.policy = policy;
}

fn order(world: &World, order: Order) {
    world.fake.mailbox.lock().manners.standing.order = order;
}

/// The HTTP status and the Status of a FolderSync with this policy key.
async fn folder_sync(world: &World, phone: Phone, key: Option<u32>) -> (u16, u8) {
    let query = format!("Cmd=FolderSync&User={USER}&DeviceId={}&DeviceType=PocketPC", phone.id);
    let mut request =
        world.request(Method::POST, &query).header("MS-ASProtocolVersion", phone.version.as_str());
    if let Some(key) = key {
        request = request.header("X-MS-PolicyKey", key.to_string());
    }
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    let response = request.body(body).send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    match FolderSyncResponse::decode(&body, Limits::default()) {
        Ok(FolderSyncResponse::Changes(_)) => (status, 1),
        Ok(FolderSyncResponse::Common(common)) => (status, common.code()),
        Ok(FolderSyncResponse::Failed(failed)) => (status, failed.code()),
        Err(_) => (status, 0),
    }
}

async fn provision(world: &World, phone: Phone, request: &ProvisionRequest) -> ProvisionResponse {
    let body = world.body(phone, "Provision", request.encode()).await;
    ProvisionResponse::decode(&body, Limits::default()).unwrap()
}

fn ask(version: Version) -> ProvisionRequest {
    let information = DeviceInformation { model: Some("Test".into()), ..DeviceInformation::default() };
    ProvisionRequest {
        device_information: version.needs_device_information().then_some(information),
        policy: Some(PolicyRequest::Ask(PolicyType::of(version))),
        remote_wipe: None,
    }
}

fn acknowledge(version: Version, key: Option<u32>, status: PolicyAcknowledgement) -> ProvisionRequest {
    let policy_type = PolicyType::of(version);
    ProvisionRequest {
        policy: Some(PolicyRequest::Acknowledge { policy_type, key, status }),
        ..ProvisionRequest::default()
    }
}

/// Both phases; the final key.
pub(crate) async fn provisioned(world: &World, phone: Phone) -> u32 {
    let offered = provision(world, phone, &ask(phone.version)).await.policy.unwrap();
    let applied = acknowledge(phone.version, offered.key, PolicyAcknowledgement::Applied);
    provision(world, phone, &applied).await.policy.unwrap().key.unwrap()
}

#[tokio::test]
async fn a_policy_in_force_is_demanded_in_each_versions_own_way_and_then_lets_in() {
    for version in VERSIONS {
        let (world, phone) = (World::start().await, Phone { version, ..PHONE });
        assert_eq!(folder_sync(&world, phone, None).await, (200, 1), "none is in force");
        demand(&world, &[("device_password_enabled", 1), ("min_device_password_length", 6)]);
        let told = |status: u8| if version.has_common_statuses() { (200, status) } else { (449, 0) };
        assert_eq!(folder_sync(&world, phone, None).await, told(142));
        assert_eq!(folder_sync(&world, phone, Some(0)).await, told(142));
        assert_eq!(folder_sync(&world, phone, Some(5)).await, told(144));
        let offered = provision(&world, phone, &ask(version)).await.policy.unwrap();
        match offered.data.unwrap() {
            PolicyData::WapXml(text) => assert!(text.contains("MinimumPasswordLength"), "{text}"),
            PolicyData::Wbxml(doc) => assert!(doc.iter().any(|it| it.own_text() == "6")),
        }
        assert_eq!(folder_sync(&world, phone, offered.key).await, told(144), "a temporary key is no key");
        let applied = acknowledge(version, offered.key, PolicyAcknowledgement::Applied);
        let key = provision(&world, phone, &applied).await.policy.unwrap().key;
        assert_eq!(folder_sync(&world, phone, key).await, (200, 1));
        assert_eq!(folder_sync(&world, phone, None).await, told(142));
        demand(&world, &[("device_password_enabled", 1), ("min_device_password_length", 8)]);
        assert_eq!(folder_sync(&world, phone, key).await, told(143), "the policy is another");
        let key = provisioned(&world, phone).await;
        assert_eq!(folder_sync(&world, phone, Some(key)).await, (200, 1));
    }
}

#[tokio::test]
async fn a_device_that_cannot_or_does_not_apply_the_policy_is_kept_out() {
    let world = World::start().await;
    demand(&world, &[("require_device_encryption", 1)]);
    let old = Phone { version: Version::V12_0, ..PHONE };
    let refused = provision(&world, old, &ask(old.version)).await;
    assert_eq!(refused.status, ProvisionStatus::LegacyDeviceOnStrictPolicy);
    let version = PHONE.version;
    let offered = provision(&world, PHONE, &ask(version)).await.policy.unwrap().key;
    for (said, status) in [
        (PolicyAcknowledgement::PartlyApplied, ProvisionStatus::DeviceNotFullyProvisionable),
        (PolicyAcknowledgement::Ignored, ProvisionStatus::DeviceNotFullyProvisionable),
        (PolicyAcknowledgement::ExternallyManaged, ProvisionStatus::ExternallyManagedDevicesNotAllowed),
    ] {
        let answer = provision(&world, PHONE, &acknowledge(version, offered, said)).await;
        assert_eq!((answer.status, answer.policy), (status, None));
    }
    let lenient = {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.manners.policy.allow_non_provisionable = true;
        mailbox.manners.standing.policy = Some(mailbox.manners.policy.hash());
        acknowledge(version, offered, PolicyAcknowledgement::PartlyApplied)
    };
    let answer = provision(&world, PHONE, &lenient).await;
    assert!(answer.policy.unwrap().key.is_some());
    assert_eq!(provision(&world, old, &ask(old.version)).await.status, ProvisionStatus::Success);
}

#[tokio::test]
async fn a_wipe_is_ordered_and_acknowledged() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    order(&world, Order::Wipe);
    assert_eq!(world.ping(PHONE, Some(60), &[1]).await, PingResponse::FolderSyncRequired);
    assert_eq!(folder_sync(&world, PHONE, None).await, (200, 140));
    let old = Phone { version: Version::V12_1, ..PHONE };
    assert_eq!(folder_sync(&world, old, Some(7)).await, (449, 0));
    assert_eq!(folder_sync(&world, old, None).await, (403, 0), "it sent no key");
    let told = provision(&world, PHONE, &ask(PHONE.version)).await;
    assert_eq!((told.status, told.wipe, told.policy), (ProvisionStatus::Success, Some(Wipe::Device), None));
    for (status, word) in [(1, "acknowledged"), (2, "failed")] {
        let report = ProvisionRequest { remote_wipe: Some((Wipe::Device, status)), ..ask(Version::V12_1) };
        assert_eq!(provision(&world, PHONE, &report).await.wipe, None);
        let wipes = world.fake.mailbox.lock().wipes.split_off(0);
        assert_eq!(wipes, [format!("{{\"device\":\"PocketPC/{}\",\"wipe\":\"{word}\"}}", PHONE.id)]);
    }
}

#[tokio::test]
async fn an_account_only_wipe_keeps_older_devices_out() {
    let world = World::start().await;
    order(&world, Order::AccountWipe);
    assert_eq!(folder_sync(&world, PHONE, None).await, (200, 129));
}

#[tokio::test]
async fn who_is_blocked_or_one_too_many_is_told_so() {
    let world = World::start().await;
    let old = Phone { version: Version::V2_5, ..PHONE };
    for kind in [Order::Blocked, Order::Quarantined] {
        order(&world, kind);
        assert_eq!(folder_sync(&world, PHONE, None).await, (200, 129));
        assert_eq!(folder_sync(&world, old, None).await, (403, 0));
        let body = world.body(PHONE, "Provision", ask(PHONE.version).encode()).await;
        let refused = ProvisionResponse::decode(&body, Limits::default());
        assert!(matches!(refused, Err(ProvisionResponseError::Refused(status)) if status.code() == 129));
        assert_eq!(world.ping(PHONE, Some(60), &[1]).await, PingResponse::FolderSyncRequired);
    }
    world.fake.mailbox.lock().manners.standing = Standing::default();
    world.fake.mailbox.lock().manners.devices_full = true;
    assert_eq!(folder_sync(&world, PHONE, None).await, (200, 177));
    assert_eq!(folder_sync(&world, old, None).await, (403, 0));
}

#[tokio::test]
async fn a_ping_is_never_asked_for_a_key_but_ends_with_7() {
    let world = World::start().await;
    demand(&world, &[("device_password_enabled", 1)]);
    let key = provisioned(&world, PHONE).await;
    assert_eq!(folder_sync(&world, PHONE, Some(key)).await, (200, 1));
    let answer = world.ping(PHONE, Some(1), &[1]).await;
    assert_ne!(answer, PingResponse::FolderSyncRequired);
    demand(&world, &[("device_password_enabled", 1), ("allow_camera", 0)]);
    assert_eq!(world.ping(PHONE, Some(60), &[1]).await, PingResponse::FolderSyncRequired);
}

#[tokio::test]
async fn the_back_end_hears_who_asks() {
    let world = World::start().await;
    let query = format!("Cmd=FolderSync&User={USER}&DeviceId={}&DeviceType=PocketPC", PHONE.id);
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    let request = world.request(Method::POST, &query).header("MS-ASProtocolVersion", "14.1");
    request.header("User-Agent", "Test Phone/1.0").body(body).send().await.unwrap();
    let asked_by = world.fake.mailbox.lock().asked_by.clone();
    assert_eq!(asked_by, ["Test%20Phone%2F1.0", "14.1", "FolderSync"]);
}
