//! "It is done when" 5 (e), (f) and (i): servers that are killed.

use std::{collections::BTreeSet, time::Duration};

use directpush_common::eas::folder_sync::FolderType;
use directpush_device::{
    core::Kind,
    http::Server,
    lmtp::Lmtp,
    load::{
        fleet::{Account, Fashion, Fleet},
        mail::message,
    },
    pair::{Frontend, Seat},
};
use tokio::time::{Instant, sleep};

use crate::{
    loss::wake_all,
    process::Process,
    stage::{PASSWORD, TestPhone, deliver, profile, wait_until},
};

#[tokio::test(flavor = "multi_thread")]
async fn e_after_a_back_end_was_killed_a_thousand_devices_are_armed_again_within_5_s() {
    const USERS: usize = 10;
    const DEVICES: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false)];
    let backend = Process::backend(dir.path(), &seats, None, USERS);
    let http = backend.http;
    let mut config = Frontend::config(&seats[0], http);
    config.max_pings_per_user_and_minute = 10_000;
    let frontend = Frontend::start(config).await.unwrap();
    let accounts =
        (0..USERS).map(|n| Account { user: format!("user{n}@example.com"), password: PASSWORD.to_owned() });
    let fashion = Fashion {
        devices: DEVICES,
        folders: 1,
        heartbeat_secs: 480,
        sources: 2,
        version: directpush_common::eas::Version::V14_1,
    };
    let server = Server::at(frontend.http().unwrap());
    let mut fleet = Fleet::new(vec![server], accounts.collect(), fashion);
    assert_eq!(fleet.prepare(|_| {}).await.0, DEVICES);
    assert_eq!(fleet.park(Instant::now() + Duration::from_mins(1), |_| {}).await, DEVICES);
    let tally = &frontend.server.engine.tally;
    wait_until("all armed", || tally.subscribed.get() >= DEVICES as u64).await;

    backend.kill();
    let before = tally.subscribed.get();
    // Long enough that the front end has met the dead back end.
    sleep(Duration::from_millis(700)).await;
    let backend = Process::backend(dir.path(), &seats, Some(http), 0);
    let returned = Instant::now();
    wait_until("all armed again", || tally.subscribed.get() >= before + DEVICES as u64).await;
    assert!(returned.elapsed() <= Duration::from_secs(5), "{:?}", returned.elapsed());
    assert_eq!(fleet.board.parked.load(std::sync::atomic::Ordering::Relaxed), DEVICES, "no device noticed");
    wake_all(&fleet, USERS, backend.lmtp(), Duration::from_secs(20)).await;
    fleet.stop().await;
    frontend.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f_after_a_front_end_was_killed_devices_come_back_and_are_woken() {
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false)];
    let backend = Process::backend(dir.path(), &seats, None, 1);
    let frontend = Process::frontend(&seats[0], backend.http, None);
    let http = frontend.http;
    let mut phone =
        TestPhone::start(Server::at(http), profile("user0@example.com", "loyal", Kind::WindowsMobile));
    phone.pinging().await;
    deliver(&backend.lmtp(), "user0@example.com", "before").await;
    phone.has("before").await;
    phone.pinging().await;
    frontend.kill();
    // Nobody can tell the phone of this one.
    deliver(&backend.lmtp(), "user0@example.com", "meanwhile").await;
    let frontend = Process::frontend(&seats[0], backend.http, Some(http));
    phone.has("meanwhile").await;
    phone.pinging().await;
    deliver(&backend.lmtp(), "user0@example.com", "after").await;
    phone.has("after").await;
    let phone = phone.stop().await;
    assert_eq!(phone.counters().empty_syncs, 0);
    drop(frontend);
}

/// What LMTP acknowledged is there after any number of kills; and all of it comes to the device.
#[tokio::test(flavor = "multi_thread")]
async fn i_fifty_kills_lose_no_acknowledged_message() {
    const ROUNDS: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false)];
    let mut rng = fastrand::Rng::with_seed(2006);
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let backend = Process::backend(dir.path(), &seats, None, 1);
        let lmtp = backend.lmtp();
        let sender = tokio::spawn(async move {
            let mut taken = Vec::new();
            let Ok(mut lmtp) = Lmtp::connect(&lmtp).await else { return taken };
            for n in 0.. {
                let subject = format!("round {round} message {n}");
                let text = message("bob@example.org", "user0@example.com", &subject, "x");
                match lmtp.deliver("bob@example.org", &["user0@example.com"], text.as_bytes()).await {
                    Ok(answers) if answers[0].is_ok() => taken.push(subject),
                    _ => break,
                }
            }
            taken
        });
        sleep(Duration::from_micros(rng.u64(1_000..120_000))).await;
        backend.kill();
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(acknowledged.len() > 50, "{} messages were acknowledged", acknowledged.len());
    let backend = Process::backend(dir.path(), &seats, None, 0);
    let frontend = Frontend::start(Frontend::config(&seats[0], backend.http)).await.unwrap();
    let server = Server::at(frontend.http().unwrap());
    let mut phone = TestPhone::start(server, profile("user0@example.com", "reader", Kind::WindowsMobile));
    phone.pinging().await;
    let phone = phone.stop().await;
    let (_, inbox) = phone.mailbox().folder_of(FolderType::Inbox).unwrap();
    let held: BTreeSet<String> = inbox.items.values().map(|held| held.subject.to_string()).collect();
    let lost: Vec<&String> = acknowledged.difference(&held).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    frontend.stop().await;
}
