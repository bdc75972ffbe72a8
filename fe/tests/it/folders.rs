//! FolderCreate, FolderUpdate, FolderDelete and GetHierarchy: keys, statuses, and what others hear of it.

use directpush_common::eas::folder_change::{FolderChange, FolderChangeRequest, FolderChangeResponse};
use directpush_common::eas::folder_sync::{FolderSyncResponse, FolderType, HierarchyChanges};
use directpush_common::eas::ping::PingResponse;
use directpush_common::eas::status::FolderChangeStatus;
use directpush_common::eas::{Command, Version};
use directpush_common::wbxml::{Contents, Limits, dump_bytes};

use crate::fake::folder_id;
use crate::world::{PHONE, Phone, World};

async fn change(world: &World, key: &str, change: FolderChange) -> FolderChangeResponse {
    let command = change.command();
    let body = FolderChangeRequest { sync_key: key.into(), change }.encode();
    let answer = world.body(PHONE, command.name(), body).await;
    FolderChangeResponse::decode(&answer, command, Limits::default()).unwrap()
}

async fn create(world: &World, key: &str, parent: &str, name: &str) -> FolderChangeResponse {
    let kind = FolderType::UserMail;
    change(world, key, FolderChange::Create { parent_id: parent.into(), display_name: name.into(), kind })
        .await
}

async fn update(world: &World, key: &str, id: &str, parent: &str, name: &str) -> FolderChangeResponse {
    let (server_id, parent_id, display_name) = (id.into(), parent.into(), name.into());
    change(world, key, FolderChange::Update { server_id, parent_id, display_name }).await
}

async fn delete(world: &World, key: &str, id: &str) -> FolderChangeResponse {
    change(world, key, FolderChange::Delete { server_id: id.into() }).await
}

async fn synced(world: &World, phone: Phone, key: &str) -> HierarchyChanges {
    match world.folder_sync(phone, key).await {
        FolderSyncResponse::Changes(changes) => changes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_is_made_renamed_moved_and_deleted_under_one_chain_of_keys() {
    let world = World::start().await;
    let key = synced(&world, PHONE, "0").await.sync_key;
    let made = create(&world, &key, "0", "Travel").await;
    assert_eq!(made.status, FolderChangeStatus::Success);
    let (key, id) = (made.sync_key.unwrap(), made.server_id.unwrap());
    let inner = create(&world, &key, &id, "Rome & Ostia").await;
    let (key, inner) = (inner.sync_key.unwrap(), inner.server_id.unwrap());
    let renamed = update(&world, &key, &inner, "0", "Rome").await;
    assert_eq!((renamed.status, renamed.server_id), (FolderChangeStatus::Success, None));
    let key = renamed.sync_key.unwrap();
    // The device knows what it did: nothing is told again, and its Ping waits.
    let told = synced(&world, PHONE, &key).await;
    assert_eq!((told.added, told.updated, told.sync_key.as_str()), (vec![], vec![], key.as_str()));
    assert_ne!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::FolderSyncRequired);
    let deleted = delete(&world, &key, &id).await;
    assert_eq!(deleted.status, FolderChangeStatus::Success);
    let told = synced(&world, PHONE, &deleted.sync_key.unwrap()).await;
    assert!(told.deleted.is_empty());
}

#[tokio::test]
async fn what_is_in_the_way_has_its_status() {
    let world = World::start().await;
    let key = synced(&world, PHONE, "0").await.sync_key;
    let (inbox, none) = (folder_id(1).to_string(), folder_id(77).to_string());
    for (response, status) in [
        (create(&world, &key, "0", "Inbox").await, FolderChangeStatus::Exists),
        (create(&world, &key, &none, "A").await, FolderChangeStatus::ParentNotFound),
        (create(&world, &key, "elsewhere", "A").await, FolderChangeStatus::ParentNotFound),
        (create(&world, "77", "0", "A").await, FolderChangeStatus::InvalidSyncKey),
        (create(&world, "0", "0", "A").await, FolderChangeStatus::InvalidSyncKey),
        (create(&world, &key, "0", "a/b").await, FolderChangeStatus::Malformed),
        (update(&world, &key, &inbox, "0", "Mine").await, FolderChangeStatus::SpecialFolder),
        (update(&world, &key, &none, "0", "Mine").await, FolderChangeStatus::NotFound),
        (delete(&world, &key, &inbox).await, FolderChangeStatus::SpecialFolder),
        (delete(&world, &key, &none).await, FolderChangeStatus::NotFound),
        (delete(&world, &key, "x").await, FolderChangeStatus::NotFound),
    ] {
        assert_eq!(response, FolderChangeResponse::failed(status));
    }
}

#[tokio::test]
async fn a_lost_answer_costs_nothing() {
    let world = World::start().await;
    let key = synced(&world, PHONE, "0").await.sync_key;
    let lost = create(&world, &key, "0", "Travel").await;
    let again = create(&world, &key, "0", "Travel").await;
    assert_eq!(again, lost);
    assert_eq!(
        create(&world, &again.sync_key.unwrap(), "0", "Travel").await.status,
        FolderChangeStatus::Exists
    );
}

#[tokio::test]
async fn another_devices_folder_is_seen_and_ends_the_ping() {
    let world = World::start().await;
    let other = Phone { id: "OTHER", ..PHONE };
    world.prepare(PHONE, 1).await;
    let theirs = synced(&world, other, "0").await.sync_key;
    let mine = synced(&world, PHONE, "0").await.sync_key;
    let made = create(&world, &mine, "0", "Mine").await;
    assert_eq!(world.ping(other, Some(60), &[1]).await, PingResponse::FolderSyncRequired);
    let told = synced(&world, other, &theirs).await;
    assert_eq!((told.added.len(), told.added[0].display_name.as_str()), (1, "Mine"));
    // Somebody else's change came in between: this device is told of that one, not of its own.
    {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.folders.push((5, "Theirs", 12, directpush_common::dav::hierarchy::Class::Email));
        mailbox.hierarchy = 5;
    }
    let second = create(&world, &made.sync_key.unwrap(), "0", "Second").await;
    assert_eq!(world.ping(PHONE, Some(60), &[1]).await, PingResponse::FolderSyncRequired);
    let told = synced(&world, PHONE, &second.sync_key.unwrap()).await;
    let names: Vec<_> = told.added.iter().map(|folder| folder.display_name.as_str()).collect();
    assert_eq!(names, ["Theirs"]);
}

#[tokio::test]
async fn get_hierarchy_is_for_old_devices_only() {
    let world = World::start().await;
    let old = Phone { version: Version::V2_5, ..PHONE };
    let body = world.body(old, "GetHierarchy", Vec::new()).await;
    let shown = dump_bytes(&body, Contents::Shown);
    assert!(shown.starts_with("<Folders><Folder><DisplayName>Inbox</DisplayName>"), "{shown}");
    assert!(!shown.contains("Calendar"));
    assert_eq!(world.post(PHONE, "GetHierarchy", Vec::new()).await.status(), 501);
    assert!(!Command::GetHierarchy.is_of(PHONE.version));
}
