//! OPTIONS, FolderSync, Provision, GetItemEstimate, and who may ask.

use directpush_common::eas::Version;
use directpush_common::eas::command::{LISTED, LISTED_WITHOUT_PUSH};
use directpush_common::eas::folder_sync::FolderSyncResponse;
use directpush_common::eas::item_estimate::{EstimateCollection, ItemEstimateRequest, ItemEstimateResponse};
use directpush_common::eas::provision::{
    DeviceInformation, PolicyRequest, PolicyType, ProvisionRequest, ProvisionResponse,
};
use directpush_common::eas::status::{
    FolderSyncStatus, ItemEstimateStatus, PolicyAcknowledgement, PolicyStatus, ProvisionStatus,
};
use directpush_common::eas::version::OFFERED_LIST;
use directpush_common::wbxml::Limits;
use reqwest::Method;

use crate::fake::folder_id;
use crate::world::{MAIL, PHONE, Phone, World};

#[tokio::test]
async fn options_lists_versions_and_commands_and_hides_ping_without_push() {
    for push in [true, false] {
        let world = World::with(|config| config.direct_push = push).await;
        let response = world.request(Method::OPTIONS, "").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["MS-ASProtocolVersions"], OFFERED_LIST);
        let commands = response.headers()["MS-ASProtocolCommands"].to_str().unwrap();
        assert_eq!(commands, if push { LISTED } else { LISTED_WITHOUT_PUSH });
    }
}

#[tokio::test]
async fn switches_of_the_user_count() {
    let world = World::start().await;
    (world.fake.mailbox.lock().manners.push, world.fake.mailbox.lock().manners.sync) = (false, false);
    let response = world.request(Method::OPTIONS, "").send().await.unwrap();
    assert!(!response.headers()["MS-ASProtocolCommands"].to_str().unwrap().contains("Ping"));
    let old = Phone { version: Version::V12_1, ..PHONE };
    assert_eq!(world.post(old, "FolderSync", Vec::new()).await.status(), 403);
    let body = world.body(PHONE, "FolderSync", Vec::new()).await;
    let status = FolderSyncResponse::decode(&body, Limits::default()).unwrap();
    assert!(matches!(status, FolderSyncResponse::Common(status) if status.code() == 126), "{status:?}");
}

#[tokio::test]
async fn who_is_not_who_they_say_is_refused() {
    let world = World::start().await;
    let url = world.url("Cmd=FolderSync&User=alice&DeviceId=A&DeviceType=T");
    let plain = world.client.post(&url).send().await.unwrap();
    assert_eq!(plain.status(), 401);
    assert!(plain.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
    for (login, password) in [("alice@example.com", "wrong"), ("nobody", "secret")] {
        let response = world.client.post(&url).basic_auth(login, Some(password)).send().await.unwrap();
        assert_eq!(response.status(), 401, "{login}");
    }
    let other = world
        .request(Method::POST, "Cmd=FolderSync&User=bob&DeviceId=A&DeviceType=T")
        .header("MS-ASProtocolVersion", "14.1")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 403);
}

#[tokio::test]
async fn folder_sync_gives_all_then_nothing_then_what_is_new() {
    let world = World::start().await;
    let response =
        world.post(PHONE, "FolderSync", b"\x03\x01\x6a\x00\x00\x07\x56\x52\x030\x00\x01\x01".to_vec()).await;
    assert_eq!(response.headers()["X-MS-RP"], OFFERED_LIST);
    assert!(response.headers().contains_key("content-length"));
    let FolderSyncResponse::Changes(all) = world.folder_sync(PHONE, "0").await else { panic!() };
    assert_eq!((all.added.len(), all.added[0].server_id.as_str()), (3, folder_id(1).to_string().as_str()));
    let FolderSyncResponse::Changes(none) = world.folder_sync(PHONE, &all.sync_key).await else { panic!() };
    assert!(none.added.is_empty() && none.updated.is_empty() && none.deleted.is_empty());
    assert_eq!(none.sync_key, all.sync_key);
    {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.folders.push((4, "New", 12, directpush_common::dav::hierarchy::Class::Email));
        mailbox.hierarchy = 4;
    }
    let FolderSyncResponse::Changes(new) = world.folder_sync(PHONE, &all.sync_key).await else { panic!() };
    assert_eq!((new.added.len(), new.added[0].display_name.as_str()), (1, "New"));
    // The answer was lost: the key before is still good.
    let FolderSyncResponse::Changes(again) = world.folder_sync(PHONE, &all.sync_key).await else { panic!() };
    assert_eq!(again.added, new.added);
    for wrong in ["77", "abc"] {
        let expected = FolderSyncResponse::Failed(FolderSyncStatus::InvalidSyncKey);
        assert_eq!(world.folder_sync(PHONE, wrong).await, expected);
    }
}

#[tokio::test]
async fn provision_goes_through_both_phases() {
    for version in [Version::V2_5, Version::V12_1, Version::V14_1] {
        let (world, phone) = (World::start().await, Phone { version, ..PHONE });
        let ask = |information: bool| ProvisionRequest {
            device_information: information
                .then(|| DeviceInformation { model: Some("Test".into()), ..DeviceInformation::default() }),
            policy: Some(PolicyRequest::Ask(PolicyType::of(version))),
            remote_wipe: None,
        };
        let send = async |request: &ProvisionRequest| {
            let body = world.body(phone, "Provision", request.encode()).await;
            ProvisionResponse::decode(&body, Limits::default()).unwrap()
        };
        if version.needs_device_information() {
            assert_eq!(send(&ask(false)).await.status, ProvisionStatus::DeviceInformationRequired);
        }
        let first = send(&ask(version.needs_device_information())).await;
        let offered = first.policy.unwrap();
        assert!(offered.data.is_some() && first.status == ProvisionStatus::Success);
        let acknowledge = |key| ProvisionRequest {
            policy: Some(PolicyRequest::Acknowledge {
                policy_type: PolicyType::of(version),
                key,
                status: PolicyAcknowledgement::Applied,
            }),
            ..ProvisionRequest::default()
        };
        let wrong = send(&acknowledge(Some(offered.key.unwrap().wrapping_add(1)))).await;
        assert_eq!(wrong.policy.unwrap().status, PolicyStatus::WrongKey);
        let last = send(&acknowledge(offered.key)).await.policy.unwrap();
        assert!(last.data.is_none() && last.key.is_some() && last.key != offered.key);
    }
}

#[tokio::test]
async fn an_estimate_counts_what_a_sync_would_bring() {
    let world = World::start().await;
    let estimate = async |key: &str, folder: u64| {
        let collection = EstimateCollection {
            sync_key: key.into(),
            collection_id: folder_id(folder).to_string(),
            ..EstimateCollection::default()
        };
        let request = ItemEstimateRequest { collections: vec![collection] };
        let body = world.body(PHONE, "GetItemEstimate", request.encode(PHONE.version)).await;
        match ItemEstimateResponse::decode(&body, Limits::default()).unwrap() {
            ItemEstimateResponse::Collections(mut it) => (it[0].status, it.remove(0).estimate),
            other => panic!("{other:?}"),
        }
    };
    world.folder_sync(PHONE, "0").await;
    assert_eq!(estimate("1", 1).await, (ItemEstimateStatus::NotPrimed, None));
    let key = world.prepare(PHONE, 1).await;
    for _ in 0..3 {
        world.fake.deliver(1, MAIL).await;
    }
    assert_eq!(estimate(&key, 1).await, (ItemEstimateStatus::Success, Some(3)));
    world.fake.requests();
    let collection = EstimateCollection {
        sync_key: key.clone(),
        collection_id: folder_id(1).to_string(),
        ..EstimateCollection::default()
    };
    let request = ItemEstimateRequest { collections: vec![collection; 50] };
    let body = world.body(PHONE, "GetItemEstimate", request.encode(PHONE.version)).await;
    let ItemEstimateResponse::Collections(told) =
        ItemEstimateResponse::decode(&body, Limits::default()).unwrap()
    else {
        panic!("estimates")
    };
    assert!(told.len() == 50 && told.iter().all(|it| it.estimate == Some(3)));
    let asked = world.fake.requests();
    assert!(asked.len() < 5, "one folder is counted once: {asked:?}");
    assert_eq!(estimate("99", 1).await, (ItemEstimateStatus::InvalidSyncKey, None));
    assert_eq!(estimate(&key, 9).await, (ItemEstimateStatus::InvalidCollection, None));
}
