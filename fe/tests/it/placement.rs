//! Users at several back ends: the map, redirects, and waiting Pings whose mailbox moves.

use std::sync::Arc;

use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse};
use directpush_common::httpu::Notify;
use directpush_common::placement::Placement;
use directpush_fe::BackendConfig;

use crate::fake::Fake;
use crate::world::{MAIL, PHONE, World, changed, decode_ping};

/// A front end with two back ends, be-1 and be-2, that have the same mailbox; the map is in `map`.
async fn two(map: &std::path::Path) -> (World, String) {
    std::fs::write(map, "* be-1\n").unwrap();
    let fake = Fake::start().await;
    let second = format!("http://{}", fake.open_door("be-2").await);
    let url = second.clone();
    let world = World::before(Arc::clone(&fake), |config| {
        config.backends[0].domains.clear();
        config.backends[0].default = false;
        config.backends.push(BackendConfig { name: "be-2".into(), url, ..config.backends[0].clone() });
        config.placement_file = Some(map.to_owned());
        config.placement = Placement::everybody_at(0);
    });
    (world.await, second)
}

fn is_at_be_2(request: &str) -> bool {
    request.starts_with("be-2 ")
}

#[tokio::test]
async fn a_user_who_is_elsewhere_is_found_by_the_redirect_of_the_log_on() {
    let dir = tempfile::tempdir().unwrap();
    let (world, second) = two(&dir.path().join("placement")).await;
    world.fake.elsewhere.lock().insert("be-1", second);
    assert!(matches!(world.folder_sync(PHONE, "0").await, FolderSyncResponse::Changes(_)));
    assert!(matches!(world.folder_sync(PHONE, "1").await, FolderSyncResponse::Changes(_)));
    let requests = world.fake.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("elsewhere")).count(), 1, "{requests:?}");
    assert_eq!(requests[0], "be-1 sends POST elsewhere");
    assert!(requests[1..].iter().all(|request| is_at_be_2(request)), "{requests:?}");
}

#[tokio::test]
async fn a_command_follows_a_mailbox_that_has_moved_since_the_log_on() {
    let dir = tempfile::tempdir().unwrap();
    let (world, second) = two(&dir.path().join("placement")).await;
    world.folder_sync(PHONE, "0").await;
    world.fake.requests();
    world.fake.elsewhere.lock().insert("be-1", second);
    assert!(matches!(world.folder_sync(PHONE, "1").await, FolderSyncResponse::Changes(_)));
    let requests = world.fake.requests();
    assert_eq!(requests[0], "be-1 sends GET elsewhere");
    assert!(requests[1..].iter().all(|request| is_at_be_2(request)), "{requests:?}");
}

#[tokio::test]
async fn redirects_to_strangers_and_in_a_ring_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (world, second) = two(&dir.path().join("placement")).await;
    let body = || FolderSyncRequest { sync_key: "0".into() }.encode();
    let stranger = Fake::start().await;
    world.fake.elsewhere.lock().insert("be-1", format!("http://{}", stranger.address));
    assert_eq!(world.post(PHONE, "FolderSync", body()).await.status(), 503);
    assert!(stranger.requests().is_empty());
    world.fake.elsewhere.lock().insert("be-1", second);
    world.fake.elsewhere.lock().insert("be-2", format!("http://{}", world.fake.address));
    world.fake.requests();
    assert_eq!(world.post(PHONE, "FolderSync", body()).await.status(), 503);
    assert_eq!(world.fake.requests().len(), 3, "two hops");
}

#[tokio::test]
async fn a_waiting_ping_follows_its_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let (world, second) = two(&dir.path().join("placement")).await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    let (call_back, group) = {
        let mut mailbox = world.fake.mailbox.lock();
        let subscribe = mailbox.subscriptions.values().next().unwrap().subscribe.clone();
        mailbox.subscriptions.clear();
        (subscribe.call_back, subscribe.group)
    };
    world.fake.elsewhere.lock().insert("be-1", second);
    world.fake.requests();
    // The old back end wakes all that waits there: the answer to the question is the redirect.
    let ids = Vec::new().into_iter().collect();
    world.fake.send(vec![Notify { call_back, group: Some(group), ids }]).await;
    world.fake.until("subscribed anew", |mailbox| !mailbox.subscriptions.is_empty()).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    let requests = world.fake.requests();
    assert!(requests.contains(&"be-2 SUBSCRIBE Inbox".to_owned()), "{requests:?}");
}

#[tokio::test]
async fn a_map_that_is_read_again_moves_users_and_their_waiting_pings() {
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("placement");
    let (world, _) = two(&map).await;
    world.prepare(PHONE, 1).await;
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.requests();
    let reloader = world.front.reloader();
    std::fs::write(&map, "* be-9\n").unwrap();
    reloader.reload();
    std::fs::write(&map, "* be-1 # as before\n").unwrap();
    reloader.reload();
    std::fs::write(&map, "alice@example.com be-2\n* be-1\n").unwrap();
    reloader.reload();
    world.fake.until("left and subscribed", |mailbox| mailbox.requests.len() >= 2).await;
    let mut requests = world.fake.requests();
    requests.sort();
    assert_eq!(requests, ["UNSUBSCRIBE alice@example.com", "be-2 SUBSCRIBE Inbox"]);
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    assert!(matches!(world.folder_sync(PHONE, "0").await, FolderSyncResponse::Changes(_)));
    let requests = world.fake.requests();
    assert!(requests.iter().all(|request| is_at_be_2(request)), "{requests:?}");
}
