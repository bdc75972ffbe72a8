//! Ping from end to end: the article's order, each status, and every edge of the wait.

use std::time::Duration;

use directpush_common::dav::subscribe::{DeviceEvent, Since};
use directpush_common::eas::Version;
use directpush_common::eas::ping::PingResponse;
use directpush_common::httpu::{Notify, SubscriptionId};
use directpush_common::names::Guid;
use tokio::net::UdpSocket;

use crate::world::{MAIL, PHONE, Phone, World, changed, decode_ping};

#[tokio::test]
async fn one_ping_asks_the_back_end_in_the_articles_order() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1, 3]).await;
    let first = world.fake.requests();
    let at = |what: &str| {
        first.iter().position(|request| request == what).unwrap_or_else(|| panic!("{what}: {first:?}"))
    };
    // A new device has no AutdState.xml to be read.
    assert_eq!(at("PUT AutdState.xml"), 0);
    assert!(at("SUBSCRIBE Inbox") < at("SUBSCRIBE Calendar"));
    assert_eq!(first.last().unwrap(), "SUBSCRIBE Calendar", "and then it waits");
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    assert_eq!(world.fake.requests(), ["UNSUBSCRIBE alice@example.com"]);
    assert!(world.fake.mailbox.lock().subscriptions.is_empty());
}

#[tokio::test]
async fn the_first_ping_of_a_new_device_reads_nothing_that_its_syncs_told() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    world.fake.requests();
    let waiting = world.park(PHONE, 600, &[1]).await;
    assert_eq!(world.fake.requests(), ["PUT AutdState.xml", "SUBSCRIBE Inbox"]);
    // What the device knows came with its Sync, so the mail that comes now is news.
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
}

#[tokio::test]
async fn a_repeated_and_an_empty_ping_cause_no_put_and_no_other_question() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    world.fake.requests();
    let steady = ["GET AutdState.xml", "SUBSCRIBE Inbox", "UNSUBSCRIBE alice@example.com"];
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    assert_eq!(world.fake.requests(), steady);
    assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::Expired);
    assert_eq!(world.fake.requests(), steady);
    // Only the interval, then only the folders: the other half comes from AutdState.
    assert_eq!(world.ping(PHONE, Some(2), &[]).await, PingResponse::Expired);
    assert_eq!(world.ping(PHONE, None, &[1]).await, PingResponse::Expired);
    let puts = world.fake.requests().into_iter().filter(|request| request.starts_with("PUT")).count();
    assert_eq!(puts, 1);
}

#[tokio::test]
async fn a_sync_keeps_the_next_ping_at_one_conditional_get() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    world.fake.deliver(1, MAIL).await;
    world.sync(PHONE, crate::world::collection(PHONE, 1, &key)).await;
    world.fake.requests();
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    let steady = ["GET AutdState.xml", "SUBSCRIBE Inbox", "UNSUBSCRIBE alice@example.com"];
    assert_eq!(world.fake.requests(), steady);
}

#[tokio::test]
async fn every_version_is_woken() {
    for (version, id) in [
        (Version::V2_5, "A25"),
        (Version::V12_0, "A120"),
        (Version::V12_1, "A121"),
        (Version::V14_0, "A140"),
        (Version::V14_1, "A141"),
    ] {
        let (world, phone) = (World::start().await, Phone { id, version });
        world.prepare(phone, 1).await;
        let waiting = world.park(phone, 600, &[1]).await;
        world.fake.deliver(1, MAIL).await;
        assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]), "{version}");
    }
}

#[tokio::test]
async fn a_change_between_sync_and_subscribe_is_told_at_once() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(world.ping(PHONE, Some(600), &[1]).await, changed(&[1]));
    assert!(world.fake.mailbox.lock().subscriptions.is_empty(), "it is unsubscribed before the answer");
}

#[tokio::test]
async fn parameters_that_are_missing_are_status_3() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::MissingParameters);
    assert_eq!(world.ping(PHONE, None, &[1]).await, PingResponse::MissingParameters);
    let other = Phone { id: "B", ..PHONE };
    world.prepare(other, 1).await;
    assert_eq!(world.ping(other, Some(1), &[]).await, PingResponse::MissingParameters);
    // Each half was sent once by now: the other half, and then nothing at all, is enough.
    assert_eq!(world.ping(PHONE, Some(1), &[]).await, PingResponse::Expired);
    assert_eq!(world.ping(other, None, &[1]).await, PingResponse::Expired);
    assert_eq!(world.ping_raw(other, Vec::new()).await, PingResponse::Expired);
}

#[tokio::test]
async fn a_corrupt_autd_state_is_status_3_and_rewritten() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    world.ping(PHONE, Some(1), &[1]).await;
    {
        let mut mailbox = world.fake.mailbox.lock();
        let (_, object) =
            mailbox.objects.iter_mut().find(|(path, _)| path.ends_with("AutdState.xml")).unwrap();
        *object = (999, "<not xml".into());
    }
    assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::MissingParameters);
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::Expired);
}

#[tokio::test]
async fn syntax_and_bounds_are_status_4_5_and_6() {
    let world = World::with(|config| {
        config.heartbeat = directpush_common::push::heartbeat::HeartbeatLimits::default();
    })
    .await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping_raw(PHONE, b"\x03\x01\x6a\x00\x00\x0d\x05".to_vec()).await, PingResponse::Syntax);
    assert_eq!(world.ping_raw(PHONE, b"GET / HTTP/1.1".to_vec()).await, PingResponse::Syntax);
    assert_eq!(world.ping(PHONE, Some(-100), &[1]).await, PingResponse::HeartbeatOutOfRange(60));
    let other = Phone { id: "B", ..PHONE };
    world.folder_sync(other, "0").await;
    assert_eq!(world.ping(other, Some(6_000_000), &[1]).await, PingResponse::HeartbeatOutOfRange(2700));
    assert_eq!(world.ping(other, Some(600), &[1, 2, 3, 4]).await, PingResponse::TooManyFolders(3));
    // A refused interval is not kept.
    assert_eq!(world.ping_raw(other, Vec::new()).await, PingResponse::MissingParameters);
}

#[tokio::test]
async fn a_hierarchy_that_moved_or_was_never_seen_is_status_7() {
    let world = World::start().await;
    assert_eq!(world.ping(PHONE, Some(600), &[1]).await, PingResponse::FolderSyncRequired);
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[77]).await, PingResponse::FolderSyncRequired);
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    world.fake.mailbox.lock().hierarchy = 4;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::FolderSyncRequired);
    world.folder_sync(PHONE, "0").await;
    assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::Expired);
}

#[tokio::test]
async fn a_device_event_ends_the_wait_with_status_7() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    let notify = {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.manners.event = Some(DeviceEvent::Wipe);
        let (id, subscription) = mailbox.subscriptions.first_key_value().unwrap();
        let (call_back, group) = (subscription.subscribe.call_back.clone(), subscription.subscribe.group);
        Notify { call_back, group: Some(group), ids: [SubscriptionId(*id)].into_iter().collect() }
    };
    world.fake.send(vec![notify]).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, PingResponse::FolderSyncRequired);
}

#[tokio::test]
async fn a_back_end_that_refuses_is_status_8_after_a_while() {
    for status in [501, 403, 404, 503] {
        let world = World::start().await;
        world.prepare(PHONE, 1).await;
        world.fake.mailbox.lock().manners.subscribe_status = Some(status);
        let began = tokio::time::Instant::now();
        let expected =
            if status == 404 { PingResponse::FolderSyncRequired } else { PingResponse::ServerError };
        assert_eq!(world.ping(PHONE, Some(600), &[1]).await, expected, "{status}");
        assert!(status == 404 || began.elapsed() >= Duration::from_secs(3), "no hot loop");
    }
}

#[tokio::test]
async fn a_device_in_a_loop_is_slowed() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let began = tokio::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::MissingParameters);
    }
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn a_token_that_the_back_end_cannot_use_is_status_2() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    world.fake.mailbox.lock().manners.subscribe_status = Some(409);
    assert_eq!(world.ping(PHONE, Some(600), &[1]).await, changed(&[1]));
}

#[tokio::test]
async fn a_folder_never_synchronised_is_told_once() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired, "empty: nothing to tell");
    world.fake.deliver(1, MAIL).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, changed(&[1]));
    assert_eq!(
        world.ping(PHONE, Some(1), &[1]).await,
        PingResponse::Expired,
        "a phone that never synchronises"
    );
    let subscriptions = world.fake.mailbox.lock().next_subscription;
    let waiting = world.park(PHONE, 600, &[1]).await;
    let since = world.fake.mailbox.lock().subscriptions[&(subscriptions + 1)].subscribe.since;
    assert_eq!(since, Since::Now);
    waiting.abort();
}

#[tokio::test]
async fn more_available_is_status_2_at_once_and_asks_nothing() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    for _ in 0..3 {
        world.fake.deliver(1, MAIL).await;
    }
    let mut collection = crate::world::collection(PHONE, 1, &key);
    collection.window_size = Some(1);
    world.sync(PHONE, collection).await;
    assert_eq!(world.ping(PHONE, Some(600), &[1]).await, changed(&[1]));
    assert!(world.fake.requests().iter().all(|request| !request.starts_with("SUBSCRIBE")));
}

#[tokio::test]
async fn a_stray_datagram_asks_once_and_wakes_nobody() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 3, &[1]).await;
    world.fake.requests();
    let (real, forged) = {
        let mailbox = world.fake.mailbox.lock();
        let (id, subscription) = mailbox.subscriptions.first_key_value().unwrap();
        let call_back = subscription.subscribe.call_back.clone();
        let ids = [SubscriptionId(*id)].into_iter().collect();
        let real = Notify { call_back: call_back.clone(), group: Some(subscription.subscribe.group), ids };
        let forged = Notify { group: Some(Guid([9; 16])), ..real.clone() };
        (real, forged)
    };
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let target = ("127.0.0.1", real.call_back.port());
    stranger.send_to(&real.encode(), target).await.unwrap();
    world.fake.send(vec![forged, real.clone(), real.clone(), real]).await;
    let answer = decode_ping(waiting.await.unwrap()).await;
    assert_eq!(answer, PingResponse::Expired);
    let asked = world.fake.requests().iter().filter(|request| request.starts_with("UNSUBSCRIBE")).count();
    // The conditional questions, at most one per second, and the end.
    assert!((2..=4).contains(&asked), "{asked}");
    let tally = &world.front.engine.tally;
    assert_eq!((tally.notify_foreign.get(), tally.notify_unknown.get()), (1, 1));
    assert!(tally.notify_repeated.get() >= 1);
}

#[tokio::test]
async fn a_back_end_too_slow_at_the_end_does_not_hold_up_the_device() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    world.fake.mailbox.lock().manners.unsubscribe_delay = Duration::from_secs(20);
    let began = tokio::time::Instant::now();
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_third_ping_of_a_device_ends_the_oldest() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let first = world.park(PHONE, 600, &[1]).await;
    let second = world.park(PHONE, 600, &[1]).await;
    let third = world.park(PHONE, 600, &[1]).await;
    let ended = first.await.unwrap().unwrap();
    assert_eq!(ended.status(), 503);
    assert!(ended.headers().contains_key("retry-after"));
    world.fake.deliver(1, MAIL).await;
    for waiting in [second, third] {
        assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    }
}

#[tokio::test]
async fn a_device_that_hangs_up_leaves_nothing_behind() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    waiting.abort();
    world.fake.until("unsubscribed", |mailbox| mailbox.subscriptions.is_empty()).await;
    assert_eq!(world.front.engine.waiting(), 0);
    assert_eq!(world.front.engine.tally.hung_up.get(), 1);
}

#[tokio::test]
async fn a_lost_datagram_is_found_by_poll_and_counted() {
    let world = World::with(|config| config.poll_interval = 1).await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.mailbox.lock().manners.notify = false;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    assert_eq!(world.front.engine.tally.unannounced.get(), 1);
}

#[tokio::test]
async fn after_a_restart_of_the_back_end_pings_subscribe_again_in_place() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.restart(Duration::from_millis(700)).await;
    world.fake.deliver(1, MAIL).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(decode_ping(answer).await, changed(&[1]));
}

#[tokio::test]
async fn subscriptions_that_the_back_end_lost_are_made_again() {
    let world = World::with(|config| config.poll_interval = 1).await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.mailbox.lock().subscriptions.clear();
    world.fake.until("subscribed again", |mailbox| !mailbox.subscriptions.is_empty()).await;
    waiting.abort();
}

#[tokio::test]
async fn without_push_a_ping_is_held_to_its_heartbeat() {
    let world = World::with(|config| config.direct_push = false).await;
    world.prepare(PHONE, 1).await;
    world.fake.deliver(1, MAIL).await;
    let began = tokio::time::Instant::now();
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(world.fake.requests().iter().all(|request| !request.starts_with("SUBSCRIBE")));
}

#[tokio::test]
async fn a_user_has_a_bound_of_pings_per_minute() {
    let world = World::with(|config| config.max_pings_per_user_and_minute = 1).await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    let refused = world.post(PHONE, "Ping", crate::world::ping_body(Some(1), &[1])).await;
    assert_eq!(refused.status(), 503);
}

#[tokio::test]
async fn a_front_end_that_stops_sends_its_devices_away_with_503() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.shutdown.cancel();
    let engine = std::sync::Arc::clone(&world.front.engine);
    world.front.stopped().await;
    let sent = waiting.await.unwrap().unwrap();
    assert_eq!(sent.status(), 503);
    assert!(sent.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(engine.waiting(), 0);
}

#[tokio::test]
async fn a_calendar_wakes_too() {
    let world = World::start().await;
    world.prepare(PHONE, 3).await;
    let waiting = world.park(PHONE, 600, &[3]).await;
    world.fake.deliver(3, "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n").await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[3]));
    // A Sync answers nothing and knows the change: no loop of Ping 2 and empty Sync.
    let key = "1";
    world.sync(PHONE, crate::world::collection(PHONE, 3, key)).await;
    assert_eq!(world.ping(PHONE, Some(1), &[3]).await, PingResponse::Expired);
}

#[tokio::test]
async fn without_its_udp_port_push_goes_on_by_poll() {
    let holder = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = holder.local_addr().unwrap().port();
    let world = World::with(|config| (config.udp_listen_port, config.poll_interval) = (port, 1)).await;
    assert_eq!(world.front.udp, None);
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
}

#[tokio::test]
async fn a_sync_answer_that_could_not_be_written_is_told_of_once() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    // Larger than any socket buffer, to a device that reads nothing and resets.
    let large = format!("{MAIL}{}", "x".repeat(12 << 20));
    world.fake.deliver(1, &large).await;
    let mut asked = crate::world::collection(PHONE, 1, &key);
    let body = directpush_common::eas::sync::BodyPreference {
        body_type: directpush_common::eas::sync::BodyType::Plain,
        truncation_size: None,
        all_or_none: false,
        preview: None,
    };
    asked.options = vec![directpush_common::eas::sync::SyncOptions {
        body_preferences: vec![body],
        ..directpush_common::eas::sync::SyncOptions::default()
    }];
    let request = directpush_common::eas::sync::SyncRequest {
        collections: vec![asked],
        ..directpush_common::eas::sync::SyncRequest::default()
    };
    let response = world.post(PHONE, "Sync", request.encode(PHONE.version)).await;
    assert_eq!(response.status(), 200);
    drop(response);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, changed(&[1]));
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
}

/// AutdState.xml was written, but the Ping did not come to watch its folders: the next empty Ping means the file, not
/// what was watched before.
#[tokio::test]
async fn an_empty_ping_watches_what_the_last_full_one_asked_even_if_that_one_failed() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    world.fake.mailbox.lock().hierarchy += 1;
    assert_eq!(world.ping(PHONE, Some(1), &[1, 3]).await, PingResponse::FolderSyncRequired);
    world.folder_sync(PHONE, "0").await;
    world.fake.requests();
    assert_ne!(world.ping_raw(PHONE, Vec::new()).await, PingResponse::MissingParameters);
    let asked = world.fake.requests();
    assert!(asked.iter().any(|request| request == "SUBSCRIBE Calendar"), "{asked:?}");
}
