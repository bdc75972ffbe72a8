//! The life of a Ping in its order, on every protocol version, as the wire and the access logs show it.

use directpush_common::{
    eas::{Version, ping::PingResponse},
    httpu::Notify,
};
use directpush_device::{
    core::{Kind, Task},
    relay::Sight,
    reporter::PhoneEvent,
};

use crate::stage::{Stage, TestPhone, is_exchange, lines_of, methods, profile};

/// "It is done when" 3: the article's flow in its order; a repeated Ping causes no PUT.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_runs_as_the_article_tells() {
    let mut stage = Stage::new().await;
    let mut phone = stage.phone(Kind::WindowsMobile);
    phone.pinging().await;
    stage.armed(1).await;
    let before = methods(&stage.sights());
    let autd: Vec<&String> = before.iter().filter(|line| line.contains("AutdState.xml")).collect();
    assert_eq!(autd, ["PUT AutdState.xml 201"], "a new device has none to be read");
    assert_eq!(before.last().map(String::as_str), Some("SUBSCRIBE Inbox 200"));
    assert_eq!(before.iter().filter(|line| line.starts_with("SUBSCRIBE")).count(), 1, "one per folder");

    stage.deliver("hello").await;
    let woken = phone.woken().await;
    let seen = stage.sights_until("UNSUBSCRIBE", |sight| is_exchange(sight, "UNSUBSCRIBE")).await;
    assert_eq!(methods(&seen), ["NOTIFY", "UNSUBSCRIBE alice@example.com 207"]);
    let Some(Sight::Exchange(unsubscribe)) = seen.last() else { unreachable!() };
    assert!(unsubscribe.answered <= woken, "the response is issued after UNSUBSCRIBE");
    let Sight::Datagram { bytes, .. } = &seen[0] else { unreachable!() };
    assert_eq!(Notify::decode(bytes).unwrap().encode(), *bytes, "byte for byte as our writer makes it");
    assert_eq!(bytes.last(), Some(&0), "the article's NUL");

    phone.has("hello").await;
    let events = phone.pinging().await;
    let Some(PhoneEvent::Sent { body, .. }) = events.last() else { unreachable!() };
    assert!(body.is_empty(), "nothing changed: an empty Ping");
    stage.armed(1).await;
    let again = methods(&stage.sights());
    assert!(again.iter().any(|line| line == "GET AutdState.xml 304"), "{again:?}");
    assert!(!again.iter().any(|line| line.starts_with("PUT AutdState")), "{again:?}");
    assert_eq!(again.last().map(String::as_str), Some("SUBSCRIBE Inbox 200"));
    phone.stop().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_logs_side_by_side_show_the_flow() {
    let logs = tempfile::tempdir().unwrap();
    let [be_log, fe_log] = ["be.log", "fe.log"].map(|name| logs.path().join(name));
    let (be, fe) = (be_log.clone(), fe_log.clone());
    let stage = Stage::with(move |back, front| {
        back.access_log = directpush_be::config::AccessLog::File(be);
        front.access_log = Some(fe);
    })
    .await;
    let mut phone = stage.phone(Kind::WindowsMobile);
    phone.pinging().await;
    stage.armed(1).await;
    stage.deliver("hello").await;
    phone.has("hello").await;
    phone.pinging().await;
    stage.armed(1).await;
    phone.stop().await;
    stage.strike().await;
    let be = lines_of(&be_log);
    let place = |what: &str| be.iter().position(|line| line.contains(what));
    let order = [
        place("PUT /exchange/alice@example.com/NON_IPM_SUBTREE"),
        place("SUBSCRIBE /exchange"),
        place("UNSUBSCRIBE"),
    ];
    let puts = be.iter().filter(|line| line.contains("PUT") && line.contains("AutdState.xml")).count();
    assert_eq!(puts, 1, "written on the first Ping and never again:\n{}", be.join("\n"));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?}:\n{}", be.join("\n"));
    let fe = lines_of(&fe_log);
    let pings: Vec<&String> = fe.iter().filter(|line| line.contains("Cmd=Ping")).collect();
    assert!(!pings.is_empty() && pings[0].contains("DeviceType=PocketPC"), "{}", fe.join("\n"));
    // Put into one by their times, which are whole seconds, the back end's lines first.
    let mut both: Vec<&String> = be.iter().chain(&fe).collect();
    both.sort_by_key(|line| line.get(..19));
    let place = |what: &str| both.iter().position(|line| line.contains(what));
    let told = [
        place("Cmd=FolderSync"),
        place("Cmd=Sync"),
        place("SUBSCRIBE /exchange"),
        place("UNSUBSCRIBE"),
        place("Cmd=Ping"),
    ];
    assert!(told.iter().all(Option::is_some) && told[2..].is_sorted(), "{told:?}: {both:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_both_request_lines_are_woken() {
    let stage = Stage::new().await;
    let mut phones = Vec::new();
    for version in [Version::V2_5, Version::V12_0, Version::V12_1, Version::V14_0, Version::V14_1] {
        for base64 in [false, true] {
            if base64 && !version.has_base64_query() {
                continue;
            }
            let id = format!("v{}{base64}", version.query_byte());
            let mut profile = profile("alice@example.com", &id, Kind::Android);
            (profile.version, profile.base64, profile.provisions_first) = (version, base64, true);
            phones.push((id, TestPhone::start(stage.server(), profile)));
        }
    }
    for (_, phone) in &mut phones {
        phone.pinging().await;
    }
    stage.armed(phones.len()).await;
    stage.deliver("for all of them").await;
    for (id, phone) in &mut phones {
        phone.woken().await;
        let events = phone.has("for all of them").await;
        let Some(PhoneEvent::Applied { news, .. }) = events.last() else { unreachable!() };
        let held = news[0].1.as_ref().unwrap();
        assert_eq!(held.body.trim(), "Hello.", "{id}");
        assert!(held.from.contains("bob@example.org"), "{id}: {}", held.from);
    }
    for (_, phone) in phones {
        assert_eq!(phone.stop().await.counters().empty_syncs, 0);
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_passes_and_the_next_is_longer() {
    use directpush_common::push::heartbeat::HeartbeatLimits;
    let stage = Stage::with(|_, front| front.heartbeat = HeartbeatLimits::new(1, 2).unwrap()).await;
    let mut phone = stage.phone(Kind::Android);
    assert_eq!(phone.pinged().await.0, PingResponse::HeartbeatOutOfRange(2));
    assert_eq!(phone.pinged().await.0, PingResponse::Expired);
    let counters = phone.stop().await.counters();
    assert_eq!((counters.pings_changed, counters.empty_syncs), (0, 0));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_folders_are_watched_and_all_changed_ones_named() {
    use directpush_common::eas::folder_sync::FolderType;
    let stage = Stage::new().await;
    let mut profile = profile("alice@example.com", "wide", Kind::WindowsMobile);
    profile.watch = vec![FolderType::Inbox, FolderType::Sent, FolderType::Drafts, FolderType::Deleted];
    let mut phone = TestPhone::start(stage.server(), profile);
    phone.pinging().await;
    stage.armed(4).await;
    stage.deliver("one").await;
    phone.has("one").await;
    let events = phone.pinging().await;
    assert!(matches!(events.last(), Some(PhoneEvent::Sent { task: Task::Ping(480), .. })));
    stage.armed(4).await;
    phone.stop().await;
    stage.strike().await;
}
