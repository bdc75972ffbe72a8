//! "It is done when" 5 (h): what must not wake a device does not, and there is no loop of Ping 2 and empty Sync.

use std::time::Duration;

use directpush_common::eas::folder_sync::FolderType;
use directpush_device::{
    core::{Kind, News, Task},
    drive::Wish,
    reporter::PhoneEvent,
};
use directpush_fe::ChangeDelay;
use tokio::time::sleep;

use crate::stage::{Stage, TestPhone, profile};

fn requests(events: &[PhoneEvent]) -> Vec<&'static str> {
    let name = |event: &PhoneEvent| match event {
        PhoneEvent::Sent { task, .. } => Some(task.name()),
        _ => None,
    };
    events.iter().filter_map(name).collect()
}

fn added(events: &[PhoneEvent]) -> (String, String) {
    let news = events.iter().rev().find_map(|event| match event {
        PhoneEvent::Applied { news, .. } => news.first().map(|(news, _)| news.clone()),
        _ => None,
    });
    let Some(News::Added { folder, item }) = news else { panic!("an item came") };
    (folder, item)
}

#[tokio::test(flavor = "multi_thread")]
async fn h_an_own_change_wakes_nobody() {
    let stage = Stage::with(|_, front| front.change_delay = ChangeDelay::Secs(0)).await;
    let mut phone = stage.phone(Kind::WindowsMobile);
    phone.pinging().await;
    stage.armed(1).await;
    stage.deliver("to be read").await;
    let (folder, item) = added(&phone.has("to be read").await);
    phone.pinging().await;
    stage.armed(1).await;
    phone.wishes.send(Wish::MarkRead(folder.clone(), item.clone(), true)).await.unwrap();
    let events = phone.pinging().await;
    assert_eq!(requests(&events), ["Sync", "Ping"], "uploaded once, then waiting");
    stage.armed(1).await;
    // Own changes wake at once if at all (the delay is 0): a while without anything is proof enough.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(requests(&phone.events()), Vec::<&str>::new());
    phone.wishes.send(Wish::Delete(folder, item)).await.unwrap();
    let events = phone.pinging().await;
    assert_eq!(requests(&events), ["Sync", "Ping"]);
    stage.armed(1).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(requests(&phone.events()), Vec::<&str>::new());
    let phone = phone.stop().await;
    assert_eq!(phone.counters().empty_syncs, 0);
    stage.strike().await;
}

/// Another device's change of a flag comes with its delay, once.
#[tokio::test(flavor = "multi_thread")]
async fn another_devices_flag_comes_after_its_delay_once() {
    let stage = Stage::with(|_, front| front.change_delay = ChangeDelay::Secs(2)).await;
    let mut one = TestPhone::start(stage.server(), profile("alice@example.com", "one", Kind::WindowsMobile));
    let mut two = TestPhone::start(stage.server(), profile("alice@example.com", "two", Kind::WindowsMobile));
    one.pinging().await;
    two.pinging().await;
    stage.armed(2).await;
    stage.deliver("to be read").await;
    let (folder, item) = added(&one.has("to be read").await);
    two.has("to be read").await;
    one.pinging().await;
    two.pinging().await;
    stage.armed(2).await;
    let begun = tokio::time::Instant::now();
    one.wishes.send(Wish::MarkRead(folder, item, true)).await.unwrap();
    let woken = two.woken().await;
    assert!(woken - begun >= Duration::from_millis(1500), "coalesced: {:?}", woken - begun);
    let read = |event: &PhoneEvent| match event {
        PhoneEvent::Applied { news, .. } => {
            news.iter().any(|(_, held)| held.as_ref().is_some_and(|held| held.read))
        }
        _ => false,
    };
    two.until("the flag", read).await;
    two.pinging().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(requests(&two.events()), Vec::<&str>::new());
    one.stop().await;
    assert_eq!(two.stop().await.counters().empty_syncs, 0);
    stage.strike().await;
}

/// Some phones ping folders that they never sync: they are told of what is there once, not in a loop.
#[tokio::test(flavor = "multi_thread")]
async fn h_a_folder_that_is_never_synced_causes_no_loop() {
    let stage = Stage::new().await;
    stage.deliver("was there before").await;
    let mut profile = profile("alice@example.com", "odd", Kind::Android);
    (profile.watch, profile.watch_unsynced) = (vec![FolderType::Sent], vec![FolderType::Inbox]);
    let mut phone = TestPhone::start(stage.server(), profile);
    phone.woken().await;
    sleep(Duration::from_secs(4)).await;
    let again = phone.events();
    let pings =
        again.iter().filter(|event| matches!(event, PhoneEvent::Sent { task: Task::Ping(_), .. })).count();
    assert_eq!(pings, 1, "{again:#?}");
    phone.stop().await;
    stage.strike().await;
}
