//! "It is done when" 5 (g): two front ends, and a device that moves from one to the other.

use directpush_device::{
    core::Kind,
    drive::Wish,
    http::Server,
    pair::{Backend, Frontend, Seat},
};

use crate::stage::{PASSWORD, TestPhone, deliver, profile, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn g_a_device_that_moves_is_woken_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false), Seat::new("fe-2", false)];
    let backend = Backend::start(Backend::config(dir.path(), &seats)).await.unwrap();
    backend.add_user("alice@example.com", PASSWORD).await.unwrap();
    let mut fronts = Vec::new();
    for seat in &seats {
        fronts.push(Frontend::start(Frontend::config(seat, backend.http())).await.unwrap());
    }
    let servers: Vec<Server> = fronts.iter().map(|front| Server::at(front.http().unwrap())).collect();
    let lmtp = backend.lmtp().unwrap();

    let profile = profile("alice@example.com", "roamer", Kind::WindowsMobile);
    let mut phone = TestPhone::start(servers[0].clone(), profile);
    phone.pinging().await;
    wait_until("armed at the first", || backend.subscriptions() == 1).await;
    deliver(&lmtp, "alice@example.com", "at the first").await;
    phone.has("at the first").await;
    phone.pinging().await;
    wait_until("armed at the first again", || backend.subscriptions() == 1).await;

    for (n, subject) in ["at the second", "back at the first", "at the second again"].iter().enumerate() {
        let server = servers[(n + 1) % 2].clone();
        phone.wishes.send(Wish::Roam(server)).await.unwrap();
        phone.pinging().await;
        // The connection at the other front end still stands, and its Ping still waits there.
        wait_until("armed at both", || backend.subscriptions() >= 2).await;
        deliver(&lmtp, "alice@example.com", subject).await;
        phone.woken().await;
        phone.has(subject).await;
        phone.pinging().await;
        wait_until("armed here alone", || backend.subscriptions() == 1).await;
    }
    let phone = phone.stop().await;
    assert_eq!(phone.counters().empty_syncs, 0, "no Ping 2 without something new");
    let (_, inbox) =
        phone.mailbox().folder_of(directpush_common::eas::folder_sync::FolderType::Inbox).unwrap();
    assert_eq!(inbox.items.len(), 4);
    for front in fronts {
        front.stop().await;
    }
    backend.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_that_stops_sends_its_devices_away_with_503() {
    use directpush_device::{core::Task, reporter::PhoneEvent};
    let stage = crate::stage::Stage::new().await;
    let mut phone = stage.phone(Kind::Android);
    phone.pinging().await;
    stage.armed(1).await;
    stage.frontend.stop().await;
    let ended = |event: &PhoneEvent| matches!(event, PhoneEvent::Received { task: Task::Ping(_), .. });
    let events = phone.until("the end of the Ping", ended).await;
    let Some(PhoneEvent::Received { status, retry_after, .. }) = events.last() else { unreachable!() };
    assert_eq!(*status, 503, "never an early Status 1");
    assert!(retry_after.is_some_and(|secs| (1..=120).contains(&secs)), "{retry_after:?}");
    let phone = phone.stop().await;
    assert_eq!(phone.heartbeat().interval(), 480, "and the phone learns no wrong heartbeat");
    stage.backend.stop().await.unwrap();
}
