//! Sync for mail: both directions, windows, keys N and N-1, and what must not happen.

use directpush_common::change::{Cause, Maker};
use directpush_common::eas::Version;
use directpush_common::eas::ping::PingResponse;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{
    BodyPreference, BodyType, CollectionResponse, CommandResponse, FilterType, ServerCommand, SyncCollection,
    SyncCommand, SyncOptions, SyncRequest, SyncResponse,
};
use directpush_common::names::ItemId;
use directpush_common::numbers::Number;
use directpush_common::wbxml::Element;
use directpush_common::wbxml::tags::{air_sync_base, email};

use crate::world::{MAIL, PHONE, Phone, World, changed, collection};

async fn one(world: &World, phone: Phone, asked: SyncCollection) -> CollectionResponse {
    match world.sync(phone, asked).await {
        SyncResponse::Collections(mut collections) if collections.len() == 1 => collections.remove(0),
        other => panic!("{other:?}"),
    }
}

fn text(data: &[Element], tag: directpush_common::wbxml::Tag) -> String {
    data.iter().find(|element| element.tag == tag).map(|it| it.own_text().into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn mail_comes_newest_first_through_a_window_and_then_nothing_is_an_empty_body() {
    let world = World::start().await;
    for _ in 0..3 {
        world.fake.deliver(1, MAIL).await;
    }
    world.folder_sync(PHONE, "0").await;
    let begun = one(&world, PHONE, collection(PHONE, 1, "0")).await;
    assert!(begun.commands.is_empty() && begun.sync_key == "1");
    let mut asked = collection(PHONE, 1, "1");
    let html = BodyPreference {
        body_type: BodyType::Plain,
        truncation_size: Some(4),
        all_or_none: false,
        preview: None,
    };
    asked.options = vec![SyncOptions { body_preferences: vec![html], ..SyncOptions::default() }];
    asked.window_size = Some(2);
    let first = one(&world, PHONE, asked).await;
    assert!(first.more_available);
    let ids: Vec<_> = first
        .commands
        .iter()
        .map(|command| match command {
            ServerCommand::Add { server_id, data } => {
                assert_eq!(text(data, email::SUBJECT), "Lunch");
                let body = data.iter().find(|element| element.tag == air_sync_base::BODY).unwrap();
                assert_eq!(body.child(air_sync_base::DATA).unwrap().own_text(), "At n");
                server_id.clone()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, ["1:13", "1:12"]);
    let rest = one(&world, PHONE, collection(PHONE, 1, "2")).await;
    assert!(!rest.more_available && rest.commands.len() == 1);
    let body = SyncRequest { collections: vec![collection(PHONE, 1, "3")], ..SyncRequest::default() };
    assert!(world.body(PHONE, "Sync", body.encode(PHONE.version)).await.is_empty());
}

#[tokio::test]
async fn the_key_before_replays_and_a_strange_one_starts_over() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    world.fake.deliver(1, MAIL).await;
    let lost = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    let again = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    assert_eq!((again.sync_key, again.commands), (lost.sync_key, lost.commands));
    let strange = one(&world, PHONE, collection(PHONE, 1, "4711")).await;
    assert_eq!((strange.status, strange.sync_key.as_str()), (SyncStatus::InvalidSyncKey, "0"));
}

#[tokio::test]
async fn flags_travel_both_ways_and_an_own_change_causes_no_loop() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let item = world.fake.deliver(1, MAIL).await;
    let added = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    // From the device.
    let mut asked = collection(PHONE, 1, &added.sync_key);
    let read = vec![Element::text(email::READ, "1")];
    asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data: read }];
    let done = one(&world, PHONE, asked).await;
    assert!(done.responses.is_empty() && done.commands.is_empty(), "{done:?}");
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired, "its own change");
    // From elsewhere.
    let other = Maker::of(Cause::Dav);
    world.fake.mailbox.lock().touch(1, ItemId(Number(item)), other.clone(), Some(false));
    let told = one(&world, PHONE, collection(PHONE, 1, &done.sync_key)).await;
    match &told.commands[..] {
        [ServerCommand::Change { data, .. }] => assert_eq!(text(data, email::READ), "0"),
        other => panic!("{other:?}"),
    }
    world.fake.mailbox.lock().touch(1, ItemId(Number(item)), other, None);
    let gone = one(&world, PHONE, collection(PHONE, 1, &told.sync_key)).await;
    assert!(matches!(&gone.commands[..], [ServerCommand::Delete { .. }]));
}

#[tokio::test]
async fn deleting_moves_to_the_bin_unless_told_otherwise() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let items = [world.fake.deliver(1, MAIL).await, world.fake.deliver(1, MAIL).await];
    let mut key = one(&world, PHONE, collection(PHONE, 1, &key)).await.sync_key;
    for (item, as_moves, method) in [(items[0], None, "MOVE"), (items[1], Some(false), "DELETE")] {
        world.fake.requests();
        let mut asked = collection(PHONE, 1, &key);
        asked.deletes_as_moves = as_moves;
        asked.commands = vec![SyncCommand::Delete { server_id: format!("1:{item}") }];
        key = one(&world, PHONE, asked).await.sync_key;
        assert!(world.fake.requests().iter().any(|request| request.starts_with(method)));
    }
    let mut asked = collection(PHONE, 1, &key);
    asked.commands = vec![SyncCommand::Delete { server_id: "1:9999".into() }];
    let missing = one(&world, PHONE, asked).await;
    assert_eq!(missing.responses.len(), 1);
}

#[tokio::test]
async fn an_item_outside_the_filter_neither_comes_nor_wakes() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    one(&world, PHONE, collection(PHONE, 1, "0")).await;
    let mut asked = collection(PHONE, 1, "1");
    asked.options = vec![SyncOptions { filter_type: Some(FilterType::OneDay), ..SyncOptions::default() }];
    world.sync(PHONE, asked).await;
    // The fake's mail is dated 2023.
    let waiting = world.park(PHONE, 1, &[1]).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(crate::world::decode_ping(waiting.await.unwrap()).await, PingResponse::Expired);
    let quiet = world.sync(PHONE, collection(PHONE, 1, "1")).await;
    assert_eq!(quiet, SyncResponse::nothing());
}

#[tokio::test]
async fn the_old_versions_name_the_class_and_get_their_own_body() {
    let (world, phone) = (World::start().await, Phone { version: Version::V2_5, ..PHONE });
    let key = world.prepare(phone, 1).await;
    world.fake.deliver(1, MAIL).await;
    let response = one(&world, phone, collection(phone, 1, &key)).await;
    assert_eq!(response.class.as_deref(), Some("Email"));
    match &response.commands[..] {
        [ServerCommand::Add { data, .. }] => {
            assert_eq!(text(data, email::BODY).trim(), "At noon?");
            assert_eq!(text(data, email::BODY_TRUNCATED), "0");
        }
        other => panic!("{other:?}"),
    }
    // Nothing new: a document that repeats the key, because 2.5 knows no empty answer.
    let quiet = one(&world, phone, collection(phone, 1, &response.sync_key)).await;
    assert_eq!(quiet.sync_key, response.sync_key);
}

#[tokio::test]
async fn a_token_that_is_gone_starts_the_collection_over() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    world.fake.mailbox.lock().manners.token_good = false;
    let refused = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    assert_eq!((refused.status, refused.sync_key.as_str()), (SyncStatus::InvalidSyncKey, "0"));
}

#[tokio::test]
async fn a_message_that_is_no_message_does_not_block_the_folder() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    world.fake.deliver(1, "\0\u{1}garbage").await;
    world.fake.deliver(1, MAIL).await;
    let response = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    assert_eq!(response.commands.len(), 2);
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    world.fake.deliver(1, MAIL).await;
    assert_eq!(world.ping(PHONE, Some(600), &[1]).await, changed(&[1]));
}

#[tokio::test]
async fn more_changes_than_a_request_may_carry_are_refused_not_dropped() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let mut asked = collection(PHONE, 1, &key);
    asked.commands = (0..201).map(|n| SyncCommand::Delete { server_id: format!("1:{n}") }).collect();
    let refused = one(&world, PHONE, asked).await;
    assert_eq!((refused.status, refused.sync_key), (SyncStatus::ProtocolError, key));
}

#[tokio::test]
async fn a_first_sync_sent_twice_gets_the_same_key_twice() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    world.fake.deliver(1, MAIL).await;
    let first = one(&world, PHONE, collection(PHONE, 1, "0")).await;
    let second = one(&world, PHONE, collection(PHONE, 1, "0")).await;
    assert_eq!(second.sync_key, first.sync_key);
    let synced = one(&world, PHONE, collection(PHONE, 1, &first.sync_key)).await;
    assert_eq!(synced.commands.len(), 1);
    let over = one(&world, PHONE, collection(PHONE, 1, "0")).await;
    assert_ne!(over.sync_key, first.sync_key, "a key that was used does not come again");
}

fn flagged(name: &str) -> Vec<Element> {
    let flag = [Element::text(email::STATUS, "2"), Element::text(email::FLAG_TYPE, name)];
    let categories = [Element::text(email::CATEGORY, "Blue")];
    vec![Element::container(email::FLAG, flag), Element::container(email::CATEGORIES, categories)]
}

fn marks_of(world: &World, item: u64) -> directpush_common::mail::Marks {
    let mailbox = world.fake.mailbox.lock();
    let entry = mailbox.log[&1].iter().find(|entry| entry.id == ItemId(Number(item))).unwrap();
    let directpush_common::change::EntryKind::Live(live) = &entry.kind else { panic!("gone") };
    directpush_common::mail::Marks::from_text(&live.marks)
}

#[tokio::test]
async fn follow_up_flags_and_categories_travel_both_ways() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let other = Phone { id: "other", ..PHONE };
    let item = world.fake.deliver(1, MAIL).await;
    let mut key = one(&world, PHONE, collection(PHONE, 1, &key)).await.sync_key;
    let others = world.prepare(other, 1).await;
    let change = |key: &str, data| {
        let mut asked = collection(PHONE, 1, key);
        asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data }];
        asked
    };
    let done = one(&world, PHONE, change(&key, flagged("Call"))).await;
    assert!(done.responses.is_empty() && done.commands.is_empty(), "{done:?}");
    key = done.sync_key;
    let kept = marks_of(&world, item);
    assert_eq!((kept.flag.unwrap().flag_type, kept.categories), ("Call".to_owned(), vec!["Blue".to_owned()]));
    // The other device hears of it, once, and whole.
    let told = one(&world, other, collection(other, 1, &others)).await;
    let [ServerCommand::Change { data, .. }] = &told.commands[..] else { panic!("{told:?}") };
    let flag = data.iter().find(|it| it.tag == email::FLAG).unwrap();
    assert_eq!(flag.child(email::FLAG_TYPE).unwrap().own_text(), "Call");
    assert!(data.iter().any(|it| it.tag == email::CATEGORIES) && text(data, email::READ) == "0");
    // Cleared again, by the other device, and its read flag with it.
    let mut asked = collection(other, 1, &told.sync_key);
    let cleared = vec![Element::new(email::FLAG), Element::text(email::READ, "1")];
    asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data: cleared }];
    one(&world, other, asked).await;
    assert_eq!(marks_of(&world, item).categories, ["Blue"]);
    let told = one(&world, PHONE, collection(PHONE, 1, &key)).await;
    let [ServerCommand::Change { data, .. }] = &told.commands[..] else { panic!("{told:?}") };
    let flag = data.iter().find(|it| it.tag == email::FLAG).unwrap();
    assert!(flag.children().next().is_none() && text(data, email::READ) == "1");
    // What cannot be kept is Status 6, and only that.
    let bad = vec![Element::container(email::FLAG, [Element::text(email::STATUS, "1")])];
    let refused = one(&world, PHONE, change(&told.sync_key, bad)).await;
    let status = SyncStatus::ConversionError;
    assert_eq!(refused.responses, [CommandResponse::Change { server_id: format!("1:{item}"), status }]);
}

#[tokio::test]
async fn in_a_conflict_the_one_wins_that_the_device_says() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let item = world.fake.deliver(1, MAIL).await;
    let mut key = one(&world, PHONE, collection(PHONE, 1, &key)).await.sync_key;
    for (conflict, wins) in [(None, false), (Some(1), false), (Some(0), true)] {
        let theirs = format!("{{\"c\":[\"{conflict:?}\"]}}");
        let theirs = theirs.replace("Some(", "").replace(')', "");
        world.fake.mailbox.lock().set(1, ItemId(Number(item)), Maker::of(Cause::Dav), None, Some(theirs));
        let mut asked = collection(PHONE, 1, &key);
        asked.options = vec![SyncOptions { conflict, ..SyncOptions::default() }];
        asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data: flagged("Call") }];
        let done = one(&world, PHONE, asked).await;
        let status = SyncStatus::Conflict;
        let lost = CommandResponse::Change { server_id: format!("1:{item}"), status };
        assert_eq!(done.responses, if wins { vec![] } else { vec![lost] });
        assert_eq!(marks_of(&world, item).flag.is_some(), wins);
        assert_eq!(done.commands.len(), 1, "what the other one did is told");
        key = done.sync_key;
    }
}

#[tokio::test]
async fn an_item_that_came_in_the_midst_of_others_is_in_no_conflict() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let item = world.fake.deliver(1, MAIL).await;
    world.fake.deliver(1, MAIL).await;
    let mut asked = collection(PHONE, 1, &key);
    asked.window_size = Some(1);
    let first = one(&world, PHONE, asked).await;
    assert!(first.more_available && first.commands.len() == 1);
    let mut asked = collection(PHONE, 1, &first.sync_key);
    asked.commands = vec![SyncCommand::Change { server_id: format!("1:{item}"), data: flagged("Call") }];
    let done = one(&world, PHONE, asked).await;
    assert!(done.responses.is_empty(), "{done:?}");
    assert!(marks_of(&world, item).flag.is_some());
}

#[tokio::test]
async fn what_a_lost_answer_had_done_is_not_done_twice() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let items = [world.fake.deliver(1, MAIL).await, world.fake.deliver(1, MAIL).await];
    let key = one(&world, PHONE, collection(PHONE, 1, &key)).await.sync_key;
    let mut asked = collection(PHONE, 1, &key);
    asked.commands = vec![
        SyncCommand::Change { server_id: format!("1:{}", items[0]), data: flagged("Call") },
        SyncCommand::Delete { server_id: format!("1:{}", items[1]) },
    ];
    let lost = one(&world, PHONE, asked.clone()).await;
    assert_eq!(one(&world, PHONE, asked).await, lost);
    let gone = SyncCommand::Delete { server_id: format!("1:{}", items[1]) };
    let mut asked = collection(PHONE, 1, &lost.sync_key);
    asked.commands = vec![gone];
    let refused = one(&world, PHONE, asked).await;
    assert!(matches!(
        refused.responses[..],
        [CommandResponse::Delete { status: SyncStatus::ObjectNotFound, .. }]
    ));
}
