use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use super::*;
use crate::{
    dav::poll::SubscriptionStatus,
    push::ping::{ASK_MILLIS_MIN, PingOutcome},
};

const T: Moment = Moment(1_000_000);

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (Arc::clone(&woken), Waker::from(woken))
}

fn call_back(n: u8) -> CallBack {
    CallBack::new("fe", 2883, Guid([n; 16])).unwrap()
}

fn group(n: u8) -> Guid {
    Guid([n; 16])
}

fn opening(n: u8, device: u64) -> Opening {
    Opening { backend: 0, device, group: group(n), heartbeat_secs: 480, folders: 1, sync: false }
}

/// A Ping in the table with subscription `id`, waiting.
fn waiting(table: &mut Routing, n: u8, device: u64, id: u64, waker: &Waker) -> PingRef {
    let ping = table.open(T, opening(n, device));
    assert!(matches!(table.step(T, ping, waker), Some(PingStep::Subscribe(_))));
    table.handle_subscribed(ping, 0, SubscriptionId(id), Already::Nothing, None);
    assert_eq!(table.step(T, ping, waker), Some(PingStep::Wait));
    ping
}

fn notify(n: u8, ids: &[u64]) -> Notify {
    Notify {
        call_back: call_back(1),
        group: Some(group(n)),
        ids: ids.iter().map(|id| SubscriptionId(*id)).collect(),
    }
}

fn found(n: u8, id: u64) -> SubscriptionAnswer {
    SubscriptionAnswer { id: SubscriptionId(id), status: SubscriptionStatus::Changed, group: Some(group(n)) }
}

#[test]
fn a_notify_wakes_only_the_ping_it_names() {
    let mut table = Routing::new(call_back(1));
    let ((woken_a, waker_a), (woken_b, waker_b)) = (waker(), waker());
    let a = waiting(&mut table, 1, 10, 27, &waker_a);
    let b = waiting(&mut table, 2, 20, 28, &waker_b);
    assert_eq!(table.handle_notify(&notify(1, &[27])), Routed::Taken);
    assert_eq!((woken_a.0.load(Ordering::Relaxed), woken_b.0.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(table.step(T, a, &waker_a), Some(PingStep::Ask));
    assert_eq!(table.handle_notify(&notify(1, &[27])), Routed::Repeated);
    assert_eq!(table.step(T, b, &waker_b), Some(PingStep::Wait));
}

#[test]
fn a_datagram_that_is_not_ours_wakes_nobody() {
    let mut table = Routing::new(call_back(1));
    let (woken, waker) = waker();
    waiting(&mut table, 1, 10, 27, &waker);
    let foreign = Notify { call_back: call_back(2), ..notify(1, &[27]) };
    assert_eq!(table.handle_notify(&foreign), Routed::NotOurs);
    assert_eq!(table.handle_notify(&notify(2, &[27])), Routed::Unknown, "the id alone does not do");
    assert_eq!(table.handle_notify(&notify(1, &[28])), Routed::Unknown, "nor does the group");
    assert_eq!(table.handle_notify(&Notify { group: None, ..notify(1, &[27]) }), Routed::Unknown);
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    let all = Notify { group: None, ..notify(1, &[]) };
    assert_eq!(table.handle_notify(&all), Routed::Taken, "a back end may ask for questions about everything");
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_poll_finding_counts_only_if_no_datagram_came() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let a = waiting(&mut table, 1, 10, 27, &waker);
    waiting(&mut table, 2, 20, 28, &waker);
    table.handle_notify(&notify(1, &[27]));
    assert_eq!(table.handle_polled(&[found(1, 27), found(2, 28), found(3, 29)]), 1);
    assert_eq!(table.handle_polled(&[found(2, 28)]), 0, "known by now");
    assert_eq!(table.step(T, a, &waker), Some(PingStep::Ask));
}

#[test]
fn a_newer_sync_of_a_device_ends_the_one_that_waits_and_no_ping() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 1, &waker);
    let sync = |table: &mut Routing, n| table.open(T, Opening { sync: true, ..opening(n, 10) });
    let first = sync(&mut table, 2);
    let other = table.open(T, Opening { sync: true, ..opening(4, 20) });
    table.handle_sync(10);
    assert_eq!(table.step(T, first, &waker), Some(PingStep::Answer(PingOutcome::Superseded)));
    table.close(first);
    let second = sync(&mut table, 3);
    table.close(ping);
    sync(&mut table, 5);
    assert_eq!(table.step(T, second, &waker), Some(PingStep::Answer(PingOutcome::Superseded)));
    assert!(matches!(table.step(T, other, &waker), Some(PingStep::Subscribe(_))), "another device's");
    table.handle_sync(99);
}

#[test]
fn a_third_ping_of_a_device_ends_the_oldest() {
    let mut table = Routing::new(call_back(1));
    let (woken, waker) = waker();
    let first = waiting(&mut table, 1, 10, 1, &waker);
    let second = waiting(&mut table, 2, 10, 2, &waker);
    waiting(&mut table, 3, 20, 3, &waker);
    assert_eq!(woken.0.load(Ordering::Relaxed), 0, "two may wait, and other devices do not count");
    waiting(&mut table, 4, 10, 4, &waker);
    assert_eq!(table.step(T, first, &waker), Some(PingStep::End));
    table.handle_unsubscribed(T, first, None);
    assert_eq!(table.step(T, first, &waker), Some(PingStep::Answer(PingOutcome::Superseded)));
    assert_eq!(table.step(T, second, &waker), Some(PingStep::Wait));
}

#[test]
fn deadlines_wake_in_their_order() {
    let mut table = Routing::new(call_back(1));
    let (woken, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 1, &waker);
    assert_eq!(table.deadline(), T.plus_secs(480));
    table.handle_time(T.plus_secs(479));
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    table.handle_time(T.plus_secs(480));
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(table.step(T.plus_secs(480), ping, &waker), Some(PingStep::End));
    assert_eq!(table.deadline(), Moment::NEVER);
}

#[test]
fn a_held_back_question_has_its_own_deadline() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 1, &waker);
    table.handle_notify(&notify(1, &[1]));
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::Ask));
    table.handle_unsubscribed(T, ping, Some(&UnsubscribeAnswer { answers: vec![], kept: true, event: None }));
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::Wait));
    table.handle_notify(&notify(1, &[1]));
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::Wait));
    assert_eq!(table.deadline(), T.plus_millis(ASK_MILLIS_MIN));
}

#[test]
fn closing_frees_everything_and_old_references_are_dead() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 27, &waker);
    assert_eq!(table.subscriptions_at(0), 1);
    assert_eq!(table.close(ping).as_slice(), [SubscriptionId(27)]);
    assert!(table.is_empty() && table.by_device.is_empty() && table.due.is_empty());
    let next = waiting(&mut table, 2, 10, 28, &waker);
    assert_eq!(next.slot, ping.slot);
    assert_eq!(table.step(T, ping, &waker), None);
    assert!(table.close(ping).is_empty());
    assert_eq!(table.len(), 1);
    assert_eq!(table.handle_notify(&notify(1, &[27])), Routed::Unknown);
}

#[test]
fn a_restart_touches_only_the_pings_of_that_back_end() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let here = waiting(&mut table, 1, 10, 1, &waker);
    let there = table.open(T, Opening { backend: 1, ..opening(2, 20) });
    table.step(T, there, &waker);
    table.handle_subscribed(there, 0, SubscriptionId(1), Already::Nothing, None);
    table.handle_backend_restarted(1);
    assert_eq!(table.step(T, here, &waker), Some(PingStep::Wait));
    assert!(matches!(table.step(T, there, &waker), Some(PingStep::Subscribe(_))));
}

#[test]
fn draining_ends_all_and_lets_nobody_in() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 1, &waker);
    table.handle_drain();
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::End));
    table.handle_unsubscribed(T, ping, None);
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::Answer(PingOutcome::Draining)));
    let late = table.open(T, opening(2, 20));
    assert_eq!(table.step(T, late, &waker), Some(PingStep::Answer(PingOutcome::Draining)));
}

#[test]
fn an_entry_fits_its_size_class() {
    // 112 and 128 bytes are allocated as such by jemalloc; one more field is paid per parked device.
    assert!(size_of::<Entry>() <= 112, "{}", size_of::<Entry>());
}

#[test]
fn deadlines_come_in_order_whoever_leaves_and_moves() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut waiting: Vec<(PingRef, Moment)> = Vec::new();
    for n in 0..400u32 {
        let random = rng.u128(..).to_le_bytes();
        // No two are due at the same moment.
        let heartbeat_secs = 60 + n * 1231 % 3480;
        let opening = Opening {
            backend: 0,
            device: u64::from(n / 2),
            group: Guid(random),
            heartbeat_secs,
            folders: 1,
            sync: false,
        };
        let ping = table.open(T, opening);
        table.step(T, ping, &waker);
        table.handle_subscribed(ping, 0, SubscriptionId(u64::from(n) + 1), Already::Nothing, None);
        waiting.push((ping, T.plus_secs(u64::from(heartbeat_secs))));
        if rng.u8(..3) == 0 {
            let (gone, _) = waiting.swap_remove(rng.usize(..waiting.len()));
            assert_eq!(table.close(gone).len(), 1);
        }
    }
    waiting.sort_by_key(|(_, due)| *due);
    for (ping, due) in waiting {
        assert_eq!(table.deadline(), due);
        table.handle_time(due);
        table.step(due, ping, &waker);
        table.close(ping);
    }
    assert!(table.is_empty() && table.by_device.is_empty() && table.due.is_empty());
}

#[test]
fn the_middle_of_three_leaves_and_the_others_stay() {
    let mut table = Routing::new(call_back(1));
    let (_, waker) = waker();
    let first = waiting(&mut table, 1, 10, 1, &waker);
    let second = waiting(&mut table, 2, 10, 2, &waker);
    table.close(second);
    let third = waiting(&mut table, 3, 10, 3, &waker);
    assert_eq!(table.step(T, first, &waker), Some(PingStep::Wait), "two wait");
    waiting(&mut table, 4, 10, 4, &waker);
    assert_eq!(table.step(T, first, &waker), Some(PingStep::End));
    assert_eq!(table.step(T, third, &waker), Some(PingStep::Wait));
}

#[test]
fn a_ping_whose_mailbox_moves_subscribes_there() {
    let mut table = Routing::new(call_back(1));
    let (woken, waker) = waker();
    let ping = waiting(&mut table, 1, 10, 27, &waker);
    assert_eq!(table.handle_moved(ping, 0), None, "it is there");
    let (before, left) = table.handle_moved(ping, 3).unwrap();
    assert_eq!((before, left.as_slice()), (0, &[SubscriptionId(27)][..]));
    assert_eq!((woken.0.load(Ordering::Relaxed), table.backend(ping)), (1, Some(3)));
    assert!(matches!(table.step(T, ping, &waker), Some(PingStep::Subscribe(_))));
    table.handle_subscribed(ping, 0, SubscriptionId(5), Already::Nothing, None);
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::Wait));
    assert_eq!((table.subscriptions_at(0), table.subscriptions_at(3)), (0, 1));
    assert_eq!(table.handle_notify(&notify(1, &[27])), Routed::Unknown, "what the old one says is no news");
    table.handle_logged_off(ping);
    assert_eq!(table.step(T, ping, &waker), Some(PingStep::End));
}
