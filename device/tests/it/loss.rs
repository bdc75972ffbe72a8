//! "It is done when" 5 (a) to (d): what datagrams and timing can do, and that nothing is lost by it.

use std::time::Duration;

use directpush_device::{
    core::Kind,
    drive::Gate,
    lmtp::LmtpAddress,
    load::{
        board::Journey,
        fleet::{Account, Fashion, Fleet},
        mail::Mailer,
    },
    relay::Weather,
};
use tokio::time::Instant;

use crate::stage::{PASSWORD, Stage, TestPhone, is_exchange, profile, wait_until};

pub(crate) const ALL_LOST: Weather = Weather { loss: 1.0, duplicates: 0.0, late_millis: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_with_every_datagram_dropped_poll_brings_the_mail() {
    const POLL_SECS: u32 = 3;
    let stage = Stage::with(|_, front| front.poll_interval = POLL_SECS).await;
    stage.udp_relay.set(ALL_LOST);
    let mut phone = stage.phone(Kind::WindowsMobile);
    phone.pinging().await;
    stage.armed(1).await;
    let delivered = stage.deliver("lost datagrams").await;
    let woken = phone.woken().await;
    let took = woken - delivered;
    assert!(took < Duration::from_secs(u64::from(POLL_SECS) + 2), "{took:?}");
    assert!(stage.frontend.server.engine.tally.unannounced.get() > 0, "counted as a broken UDP path");
    phone.has("lost datagrams").await;
    phone.stop().await;
    stage.strike().await;
}

/// So many users with so many devices each.
pub(crate) async fn fleet(
    stage: &Stage,
    users: usize,
    devices_per_user: usize,
    heartbeat_secs: u32,
) -> Fleet {
    let mut accounts = Vec::new();
    for n in 0..users {
        let user = format!("user{n}@example.com");
        stage.backend.add_user(&user, PASSWORD).await.unwrap();
        accounts.push(Account { user, password: PASSWORD.to_owned() });
    }
    let fashion = Fashion {
        devices: users * devices_per_user,
        folders: 1,
        heartbeat_secs,
        sources: 2,
        version: directpush_common::eas::Version::V14_1,
    };
    let mut fleet = Fleet::new(vec![stage.server()], accounts, fashion);
    let (ready, _) = fleet.prepare(|_| {}).await;
    assert_eq!(ready, users * devices_per_user);
    let parked = fleet.park(Instant::now() + Duration::from_mins(1), |_| {}).await;
    assert_eq!(parked, ready);
    fleet
}

/// One message for every user, and until when its devices were woken and had it. All must be.
pub(crate) async fn wake_all(
    fleet: &Fleet,
    users: usize,
    lmtp: LmtpAddress,
    patience: Duration,
) -> Vec<Journey> {
    let mailer = Mailer::new(lmtp, 4);
    for device in 0..fleet.size() {
        assert!(fleet.board.begin(device), "device {device} does not wait");
    }
    for user in 0..users {
        let mailed = mailer.send(fleet.address(user), 1).await.unwrap();
        assert!(mailed.acked.is_some());
        for device in fleet.siblings(user) {
            fleet.board.acked(device, mailed.sent, mailed.acked);
        }
    }
    let all = fleet.board.wait_for(Instant::now() + patience, |board| board.under_way() == 0).await;
    assert!(all, "{} devices were not told", fleet.board.under_way());
    fleet.board.take_finished()
}

#[tokio::test(flavor = "multi_thread")]
async fn b_with_half_lost_and_the_rest_repeated_and_late_nine_in_ten_come_soon() {
    const USERS: usize = 8;
    const POLL_SECS: u32 = 20;
    let stage = Stage::with(|_, front| front.poll_interval = POLL_SECS).await;
    let fleet = fleet(&stage, USERS, 50, 480).await;
    stage.armed(USERS * 50).await;
    stage.udp_relay.set(Weather { loss: 0.5, duplicates: 0.5, late_millis: 300 });
    let patience = Duration::from_secs(u64::from(POLL_SECS) + 10);
    let journeys = wake_all(&fleet, USERS, stage.backend.lmtp().unwrap(), patience).await;
    let took = |journey: &Journey| journey.woken.unwrap().saturating_duration_since(journey.acked.unwrap());
    let soon = journeys.iter().filter(|journey| took(journey) <= Duration::from_secs(10)).count();
    assert!(soon * 10 >= journeys.len() * 9, "{soon} of {} within 10 s", journeys.len());
    let latest = journeys.iter().map(took).max().unwrap();
    assert!(latest <= Duration::from_secs(u64::from(POLL_SECS) + 2), "{latest:?}");
    fleet.stop().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c_a_change_between_the_last_sync_and_subscribe_answers_at_once() {
    let stage = Stage::new().await;
    stage.udp_relay.set(ALL_LOST);
    let profile = profile("alice@example.com", "slow", Kind::WindowsMobile);
    let mut phone = TestPhone::start_gated(stage.server(), profile, false);
    phone.in_step().await;
    stage.deliver("in the gap").await;
    let opened = Instant::now();
    phone.gate.send_replace(Gate::Open);
    let woken = phone.woken().await;
    assert!(woken - opened < Duration::from_secs(5), "at once, and not by POLL: {:?}", woken - opened);
    phone.has("in the gap").await;
    phone.stop().await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_change_between_subscribe_and_its_response_is_not_lost() {
    let mut stage = Stage::new().await;
    let profile = profile("alice@example.com", "slow", Kind::WindowsMobile);
    let mut phone = TestPhone::start_gated(stage.server(), profile, false);
    phone.in_step().await;
    stage.http_relay.hold("SUBSCRIBE");
    phone.gate.send_replace(Gate::Open);
    stage.sights_until("SUBSCRIBE", |sight| is_exchange(sight, "SUBSCRIBE")).await;
    stage.deliver("overtaking").await;
    let taken = &stage.frontend.server.engine.tally.notify_taken;
    wait_until("the NOTIFY that overtook", || taken.get() > 0).await;
    let released = Instant::now();
    stage.http_relay.release();
    let woken = phone.woken().await;
    assert!(woken - released < Duration::from_secs(4), "{:?}", woken - released);
    phone.has("overtaking").await;
    phone.stop().await;
    stage.strike().await;
}
