//! Sync that waits: woken with the changes themselves, repeated without a body, and ended as a Ping is.

use std::time::Duration;

use directpush_common::change::{Cause, Maker};
use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::eas::Version;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{
    BodyPreference, BodyType, CollectionResponse, CommandResponse, MimeSupport, ServerCommand,
    SyncCollection, SyncCommand, SyncOptions, SyncRequest, SyncResponse, Wait,
};
use directpush_common::names::ItemId;
use directpush_common::numbers::Number;
use directpush_common::push::heartbeat::HeartbeatLimits;
use directpush_common::wbxml::tags::email;
use directpush_common::wbxml::{Element, Limits};
use reqwest::Response;
use tokio::task::JoinHandle;

use crate::provision::{demand, provisioned};
use crate::world::{MAIL, PHONE, Phone, World, collection};

type Waiting = JoinHandle<reqwest::Result<Response>>;

fn waiting(collections: Vec<SyncCollection>, secs: i64) -> SyncRequest {
    SyncRequest { collections, wait: Some(Wait::Seconds(secs)), ..SyncRequest::default() }
}

/// Sends a Sync that finds nothing; comes back once it is subscribed to `folders` folders.
async fn park(world: &World, phone: Phone, body: Vec<u8>, folders: u64) -> Waiting {
    park_with(world, phone, body, folders, None).await
}

async fn park_with(
    world: &World,
    phone: Phone,
    body: Vec<u8>,
    folders: u64,
    policy_key: Option<u32>,
) -> Waiting {
    let made = world.fake.mailbox.lock().next_subscription + folders;
    let mut request = world
        .request(
            reqwest::Method::POST,
            &format!("Cmd=Sync&User=alice@example.com&DeviceId={}&DeviceType=PocketPC", phone.id),
        )
        .header("MS-ASProtocolVersion", phone.version.as_str());
    if let Some(key) = policy_key {
        request = request.header("X-MS-PolicyKey", key.to_string());
    }
    if !body.is_empty() {
        request = request.header("Content-Type", "application/vnd.ms-sync.wbxml");
    }
    let waiting = tokio::spawn(request.body(body).send());
    world.fake.until("subscribed", |mailbox| mailbox.next_subscription >= made).await;
    waiting
}

async fn answer(waiting: Waiting) -> SyncResponse {
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    SyncResponse::decode(&response.bytes().await.unwrap(), Limits::default()).unwrap()
}

async fn only(waiting: Waiting) -> CollectionResponse {
    match answer(waiting).await {
        SyncResponse::Collections(mut collections) if collections.len() == 1 => collections.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn send(world: &World, phone: Phone, request: &SyncRequest) -> SyncResponse {
    let body = world.body(phone, "Sync", request.encode(phone.version)).await;
    SyncResponse::decode(&body, Limits::default()).unwrap()
}

/// The same, for an answer of some megabytes.
async fn send_large(world: &World, request: &SyncRequest) -> SyncResponse {
    let body = world.body(PHONE, "Sync", request.encode(PHONE.version)).await;
    SyncResponse::decode(&body, Limits { bytes_max: 16 << 20, ..Limits::default() }).unwrap()
}

fn failed(status: SyncStatus, limit: Option<u32>) -> SyncResponse {
    SyncResponse::Failed { status, limit }
}

fn subject(command: &ServerCommand) -> String {
    let ServerCommand::Add { data, .. } = command else { panic!("{command:?}") };
    data.iter().find(|it| it.tag == email::SUBJECT).unwrap().own_text().into_owned()
}

#[tokio::test]
async fn a_waiting_sync_is_woken_with_the_message_itself_in_every_version() {
    for version in [Version::V12_1, Version::V14_0, Version::V14_1] {
        let (world, phone) = (World::start().await, Phone { version, ..PHONE });
        let key = world.prepare(phone, 1).await;
        let mut request = waiting(vec![collection(phone, 1, &key)], 600);
        if version == Version::V12_1 {
            request.wait = Some(Wait::Minutes(10));
        }
        let parked = park(&world, phone, request.encode(version), 1).await;
        assert_eq!(world.front.engine.waiting(), 1);
        world.fake.deliver(1, MAIL).await;
        let news = only(parked).await;
        assert_eq!((news.commands.len(), subject(&news.commands[0])), (1, "Lunch".to_owned()));
        assert_ne!(news.sync_key, key);
        assert_eq!(world.front.engine.waiting(), 0);
        assert!(world.fake.mailbox.lock().subscriptions.is_empty());
    }
}

#[tokio::test]
async fn it_ends_with_an_empty_body_and_goes_on_with_one() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let begun = tokio::time::Instant::now();
    let parked =
        park(&world, PHONE, waiting(vec![collection(PHONE, 1, &key)], 2).encode(PHONE.version), 1).await;
    let response = parked.await.unwrap().unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-length"].to_str().unwrap()),
        (200, "0")
    );
    assert!(response.headers().get("content-type").is_none() && begun.elapsed() >= Duration::from_secs(2));
    // The request is not said again.
    let parked = park(&world, PHONE, Vec::new(), 1).await;
    world.fake.deliver(1, MAIL).await;
    let news = only(parked).await;
    assert_eq!(news.commands.len(), 1);
    // Its answer was lost: an empty request gets it again, under the same key.
    let again = world.body(PHONE, "Sync", Vec::new()).await;
    assert_eq!(
        SyncResponse::decode(&again, Limits::default()).unwrap(),
        SyncResponse::Collections(vec![news.clone()])
    );
    // It arrived: the next one names the new key, the rest is as it was.
    let partial = SyncRequest {
        collections: vec![collection(PHONE, 1, &news.sync_key)],
        partial: true,
        ..SyncRequest::default()
    };
    assert_eq!(send(&world, PHONE, &partial).await, SyncResponse::nothing());
}

#[tokio::test]
async fn partial_names_what_is_different_and_keeps_the_rest() {
    let world = World::start().await;
    let inbox = world.prepare(PHONE, 1).await;
    let bin = world.prepare(PHONE, 2).await;
    let collections = vec![collection(PHONE, 1, &inbox), collection(PHONE, 2, &bin)];
    let parked = park(&world, PHONE, waiting(collections, 600).encode(PHONE.version), 2).await;
    let item = world.fake.deliver(1, MAIL).await;
    let news = only(parked).await;
    // The device flags what came, and names only the Inbox.
    let mut asked = collection(PHONE, 1, &news.sync_key);
    let read = vec![Element::text(email::READ, "1")];
    asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data: read }];
    let partial = SyncRequest { collections: vec![asked], partial: true, ..SyncRequest::default() };
    let SyncResponse::Collections(done) = send(&world, PHONE, &partial).await else { panic!("an answer") };
    let [done] = &done[..] else { panic!("only the Inbox: {done:?}") };
    let partial = SyncRequest {
        collections: vec![collection(PHONE, 1, &done.sync_key)],
        partial: true,
        ..SyncRequest::default()
    };
    let parked = park(&world, PHONE, partial.encode(PHONE.version), 2).await;
    world.fake.deliver(2, MAIL).await;
    let news = only(parked).await;
    assert_eq!((news.collection_id, news.commands.len()), (collection(PHONE, 2, "0").collection_id, 1));
}

#[tokio::test]
async fn what_is_there_already_is_the_answer() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    world.fake.deliver(1, MAIL).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600);
    let SyncResponse::Collections(news) = send(&world, PHONE, &request).await else { panic!("an answer") };
    assert_eq!(news[0].commands.len(), 1);
}

#[tokio::test]
async fn only_additions_wake_it_and_it_waits_on_in_place() {
    let world = World::start().await;
    world.fake.deliver(1, MAIL).await;
    let key = world.prepare(PHONE, 1).await;
    let parked =
        park(&world, PHONE, waiting(vec![collection(PHONE, 1, &key)], 3).encode(PHONE.version), 1).await;
    let notifies = {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.touch(1, ItemId(Number(11)), Maker::of(Cause::Dav), Some(true));
        mailbox.notifies()
    };
    assert!(notifies.is_empty(), "a flag may wait");
    // At the end of its time the change is told all the same.
    let news = only(parked).await;
    assert!(matches!(&news.commands[..], [ServerCommand::Change { .. }]), "{news:?}");
}

#[tokio::test]
async fn a_newer_sync_of_the_device_ends_it_and_a_ping_may_wait_beside() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    let first = park(&world, PHONE, request.clone(), 1).await;
    let ping = world.park(PHONE, 600, &[1]).await;
    let second = park(&world, PHONE, request, 1).await;
    let ended = first.await.unwrap().unwrap();
    assert_eq!((ended.status().as_u16(), ended.bytes().await.unwrap().len()), (200, 0), "nothing happened");
    world.fake.until("two left", |mailbox| mailbox.subscriptions.len() == 2).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(only(second).await.commands.len(), 1);
    assert_eq!(crate::world::decode_ping(ping.await.unwrap()).await, crate::world::changed(&[1]));
}

#[tokio::test]
async fn connections_that_end_each_other_in_turns_are_slowed() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    let mut last = park(&world, PHONE, request.clone(), 1).await;
    for _ in 0..3 {
        let next = park(&world, PHONE, request.clone(), 1).await;
        let ended = std::mem::replace(&mut last, next).await.unwrap().unwrap();
        assert_eq!(ended.status(), 200);
    }
    let next = park(&world, PHONE, request, 1).await;
    let early = tokio::time::timeout(Duration::from_secs(1), &mut last).await;
    assert!(early.is_err(), "held back: {early:?}");
    world.shutdown.cancel();
    world.front.stopped().await;
    assert_eq!(last.await.unwrap().unwrap().status(), 503);
    assert_eq!(next.await.unwrap().unwrap().status(), 503);
}

#[tokio::test]
async fn under_a_policy_it_is_woken_all_the_same_until_the_policy_is_another() {
    let world = World::start().await;
    let mut key = world.prepare(PHONE, 1).await;
    demand(&world, &[("device_password_enabled", 1)]);
    let policy_key = Some(provisioned(&world, PHONE).await);
    let request = |key: &str| waiting(vec![collection(PHONE, 1, key)], 600).encode(PHONE.version);
    let parked = park_with(&world, PHONE, request(&key), 1, policy_key).await;
    world.fake.deliver(1, MAIL).await;
    let news = only(parked).await;
    assert_eq!((news.commands.len(), subject(&news.commands[0])), (1, "Lunch".to_owned()));
    key.clone_from(&news.sync_key);
    let parked = park_with(&world, PHONE, request(&key), 1, policy_key).await;
    demand(&world, &[("device_password_enabled", 1), ("min_device_password_length", 8)]);
    world.fake.deliver(1, MAIL).await;
    assert_eq!(answer(parked).await, failed(SyncStatus::FolderSyncRequired, None), "FolderSync is told why");
}

#[tokio::test]
async fn it_ends_as_a_ping_does_when_the_device_leaves_or_the_front_end_stops() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    park(&world, PHONE, request.clone(), 1).await.abort();
    world.fake.until("unsubscribed", |mailbox| mailbox.subscriptions.is_empty()).await;
    let parked = park(&world, PHONE, request, 1).await;
    world.shutdown.cancel();
    world.front.stopped().await;
    assert_eq!(parked.await.unwrap().unwrap().status(), 503);
}

#[tokio::test]
async fn a_device_event_is_status_12() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    let parked = park(&world, PHONE, request.clone(), 1).await;
    world.fake.mailbox.lock().manners.event = Some(DeviceEvent::Hierarchy);
    world.fake.deliver(1, MAIL).await;
    // What came is told first or not at all: the hierarchy comes before.
    assert_eq!(answer(parked).await, failed(SyncStatus::FolderSyncRequired, None));
    {
        let mut mailbox = world.fake.mailbox.lock();
        (mailbox.manners.event, mailbox.hierarchy) = (None, 4);
    }
    let news =
        send(&world, PHONE, &SyncRequest { wait: None, ..waiting(vec![collection(PHONE, 1, &key)], 1) })
            .await;
    let SyncResponse::Collections(news) = news else { panic!("an answer") };
    let request = waiting(vec![collection(PHONE, 1, &news[0].sync_key)], 600);
    assert_eq!(send(&world, PHONE, &request).await, failed(SyncStatus::FolderSyncRequired, None));
}

#[tokio::test]
async fn after_a_restart_of_the_back_end_it_is_armed_again_and_loses_nothing() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    let parked = park(&world, PHONE, request, 1).await;
    world.fake.restart(Duration::from_millis(300)).await;
    world.fake.until("subscribed again", |mailbox| !mailbox.subscriptions.is_empty()).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(only(parked).await.commands.len(), 1);
}

#[tokio::test]
async fn trouble_when_it_is_woken_is_503_and_not_a_loss() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let request = waiting(vec![collection(PHONE, 1, &key)], 600).encode(PHONE.version);
    let parked = park(&world, PHONE, request.clone(), 1).await;
    world.fake.mailbox.lock().objects.retain(|name, _| !name.ends_with("SyncRequest"));
    world.fake.deliver(1, MAIL).await;
    assert_eq!(answer(parked).await, failed(SyncStatus::IncompleteRequest, None), "what it asked is gone");
    let SyncResponse::Collections(news) =
        send(&world, PHONE, &waiting(vec![collection(PHONE, 1, &key)], 600)).await
    else {
        panic!("an answer")
    };
    assert_eq!(news[0].commands.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_granted_has_its_status_and_limit() {
    let world = World::with(|config| config.heartbeat = HeartbeatLimits::new(60, 3540).unwrap()).await;
    world.folder_sync(PHONE, "0").await;
    for (wait, limit) in
        [(Wait::Minutes(0), 1), (Wait::Minutes(60), 59), (Wait::Seconds(59), 60), (Wait::Seconds(3541), 3540)]
    {
        let collections = vec![collection(PHONE, 1, "1")];
        let request = SyncRequest { collections, wait: Some(wait), ..SyncRequest::default() };
        let refused = send(&world, PHONE, &request).await;
        assert_eq!(refused, failed(SyncStatus::WaitOutOfRange, Some(limit)));
    }
    // Nothing waited yet, so nothing can be repeated.
    for request in [Vec::new(), SyncRequest { partial: true, ..SyncRequest::default() }.encode(PHONE.version)]
    {
        let refused = world.body(PHONE, "Sync", request).await;
        let refused = SyncResponse::decode(&refused, Limits::default()).unwrap();
        assert_eq!(refused, failed(SyncStatus::IncompleteRequest, None));
    }
    let many = |count: u64| (1..=count).map(|n| collection(PHONE, n, "0")).collect();
    let refused = send(&world, PHONE, &waiting(many(4), 600)).await;
    assert_eq!(refused, failed(SyncStatus::TooManyCollections, Some(3)), "as many as a Ping may watch");
    let refused =
        send(&world, PHONE, &SyncRequest { collections: many(301), ..SyncRequest::default() }).await;
    assert_eq!(refused, failed(SyncStatus::TooManyCollections, Some(300)));
    let mut twice = collection(PHONE, 1, "0");
    twice.options = vec![SyncOptions::default(), SyncOptions::default()];
    twice.options.iter_mut().for_each(|options| options.class = Some("Email".to_owned()));
    let refused =
        send(&world, PHONE, &SyncRequest { collections: vec![twice], ..SyncRequest::default() }).await;
    assert_eq!(refused, failed(SyncStatus::ProtocolError, None));
    let mut many_classes = collection(PHONE, 1, "0");
    let class = |n: u32| SyncOptions { class: Some(format!("Class{n}")), ..SyncOptions::default() };
    many_classes.options = (0..9).map(class).collect();
    let named_twice = vec![collection(PHONE, 1, "0"), collection(PHONE, 2, "0"), collection(PHONE, 1, "0")];
    for collections in [vec![many_classes], named_twice] {
        let refused = send(&world, PHONE, &SyncRequest { collections, ..SyncRequest::default() }).await;
        assert_eq!(refused, failed(SyncStatus::ProtocolError, None));
    }
    // Told before it is compared with what was asked the last time, of which there is nothing.
    let partial = SyncRequest { collections: many(301), partial: true, ..SyncRequest::default() };
    assert_eq!(send(&world, PHONE, &partial).await, failed(SyncStatus::TooManyCollections, Some(300)));
    let mut conversations = collection(PHONE, 3, "0");
    conversations.conversation_mode = Some(true);
    let refused =
        send(&world, PHONE, &SyncRequest { collections: vec![conversations], ..SyncRequest::default() })
            .await;
    assert_eq!(refused, failed(SyncStatus::ProtocolError, None), "no conversations in a calendar");
}

#[tokio::test]
async fn the_window_of_the_request_is_shared_by_its_collections() {
    let world = World::start().await;
    let (inbox, bin) = (world.prepare(PHONE, 1).await, world.prepare(PHONE, 2).await);
    for folder in [1, 1, 2] {
        world.fake.deliver(folder, MAIL).await;
    }
    let mut request = SyncRequest {
        collections: vec![collection(PHONE, 1, &inbox), collection(PHONE, 2, &bin)],
        window_size: Some(2),
        ..SyncRequest::default()
    };
    let SyncResponse::Collections(first) = send(&world, PHONE, &request).await else { panic!("an answer") };
    let counts: Vec<_> = first.iter().map(|it| (it.commands.len(), it.more_available)).collect();
    assert_eq!(counts, [(2, false), (0, true)]);
    assert_eq!(first[1].sync_key, bin, "nothing was said of it");
    request.collections[0].sync_key.clone_from(&first[0].sync_key);
    let SyncResponse::Collections(second) = send(&world, PHONE, &request).await else { panic!("an answer") };
    assert_eq!((second.len(), second[0].commands.len(), second[0].more_available), (1, 1, false));
}

#[tokio::test]
async fn the_bytes_of_the_answer_are_shared_by_its_collections_and_by_what_is_fetched() {
    let world = World::start().await;
    let (inbox, bin) = (world.prepare(PHONE, 1).await, world.prepare(PHONE, 2).await);
    let large = format!("{MAIL}{}", "A line of a long message.\r\n".repeat(120_000));
    for folder in [1, 2] {
        world.fake.deliver(folder, &large).await;
    }
    let mime = BodyPreference {
        body_type: BodyType::Mime,
        truncation_size: None,
        all_or_none: false,
        preview: None,
    };
    let options = SyncOptions {
        mime_support: Some(MimeSupport::Always),
        body_preferences: vec![mime],
        ..SyncOptions::default()
    };
    let asked = |folder, key: &str, commands| SyncCollection {
        options: vec![options.clone()],
        commands,
        ..collection(PHONE, folder, key)
    };
    let collections = vec![asked(1, &inbox, Vec::new()), asked(2, &bin, Vec::new())];
    let request = SyncRequest { collections, ..SyncRequest::default() };
    let SyncResponse::Collections(first) = send_large(&world, &request).await else { panic!("an answer") };
    let counts: Vec<_> = first.iter().map(|it| (it.commands.len(), it.more_available)).collect();
    assert_eq!(counts, [(1, false), (0, true)], "the second does not fit any more");
    let collections = vec![asked(2, &first[1].sync_key, Vec::new())];
    let request = SyncRequest { collections, ..SyncRequest::default() };
    let SyncResponse::Collections(second) = send_large(&world, &request).await else { panic!("an answer") };
    let ServerCommand::Add { server_id, .. } = &second[0].commands[0] else { panic!("{second:?}") };
    let fetch = SyncCommand::Fetch { server_id: server_id.clone() };
    let collections = vec![asked(2, &second[0].sync_key, vec![fetch.clone(), fetch.clone(), fetch])];
    let request = SyncRequest { collections, ..SyncRequest::default() };
    let SyncResponse::Collections(fetched) = send_large(&world, &request).await else { panic!("an answer") };
    let statuses: Vec<_> = fetched[0]
        .responses
        .iter()
        .map(|response| match response {
            CommandResponse::Fetch { status, data, .. } => (*status, data.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        statuses,
        [(SyncStatus::Success, true), (SyncStatus::Retry, false), (SyncStatus::Retry, false)]
    );
}
