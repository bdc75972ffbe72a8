use SubscriptionStatus::{Changed, Unchanged};

use super::*;
use crate::{
    change::{Cause, Maker},
    dav::subscribe::DELAY_NEVER,
    push::wake::tests::{by, live, phone},
};

const FE: FrontEndNumber = FrontEndNumber(0);
const MAILBOX: u64 = 9;
const INBOX: u64 = 2;
const T: Moment = Moment(1_000_000);

fn call_back(n: u8) -> CallBack {
    CallBack::new("fe", 2883, Guid([n; 16])).unwrap()
}

fn new() -> NewSubscription {
    NewSubscription {
        front_end: FE,
        call_back: call_back(1),
        group: Guid([7; 16]),
        mailbox: MAILBOX,
        folder: INBOX,
        device: phone(),
        base: Number(10),
        floor: None,
        delay_secs: 300,
        lifetime_secs: 540,
        poll_interval_secs: 3600,
    }
}

fn ledger() -> Ledger {
    Ledger::new(LedgerLimits::default(), 1)
}

fn delivery(id: u64) -> Entry {
    live(id, id, Maker::of(Cause::Delivery), Maker::of(Cause::Delivery), 0)
}

fn flag_change(id: u64, changed: u64) -> Entry {
    live(id, changed, Maker::of(Cause::Dav), Maker::of(Cause::Delivery), id)
}

/// Runs time on to `until` and gives the milliseconds after `T` at which datagrams left.
fn sent_until(ledger: &mut Ledger, until: Moment) -> Vec<u64> {
    let mut times = Vec::new();
    while ledger.deadline() <= until {
        let now = ledger.deadline();
        ledger.handle_time(now);
        times.extend(ledger.take_datagrams().iter().map(|_| now.millis_since(T)));
    }
    times
}

#[test]
fn a_delivery_is_told_at_once_and_repeated_until_acknowledged() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    let datagrams = ledger.take_datagrams();
    assert_eq!(datagrams.len(), 1);
    assert_eq!((datagrams[0].group, datagrams[0].ids.as_slice()), (Some(Guid([7; 16])), [id].as_slice()));
    let times = sent_until(&mut ledger, T.plus_secs(200));
    assert_eq!(times.len(), 3, "{times:?}");
    for (time, planned) in times.iter().zip([1000, 3000, 9000]) {
        assert!((planned..=planned + planned / 10).contains(time), "{times:?}");
    }

    let mut ledger = self::ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    let ended = ledger.handle_unsubscribe(T, FE, &[id], true);
    assert_eq!(ended.answers[0].status, SubscriptionStatus::Changed);
    assert!(!ended.kept && ledger.is_empty());
    ledger.take_datagrams();
    assert_eq!(sent_until(&mut ledger, T.plus_secs(4000)), [0; 0]);
}

#[test]
fn other_folders_other_mailboxes_and_own_uploads_are_not_told() {
    let mut ledger = ledger();
    ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX + 1, &delivery(11));
    ledger.handle_change(T, MAILBOX + 1, INBOX, &delivery(11));
    ledger.handle_change(T, MAILBOX, INBOX, &live(5, 11, by(Cause::Sync), Maker::of(Cause::Delivery), 5));
    assert_eq!(sent_until(&mut ledger, T.plus_secs(600)), [0; 0]);
}

#[test]
fn other_changes_are_gathered_for_the_delay_and_counted_at_the_end() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &flag_change(5, 11));
    ledger.handle_change(T.plus_secs(100), MAILBOX, INBOX, &flag_change(6, 12));
    let kept = ledger.handle_unsubscribe(T, FE, &[id], true);
    assert!(kept.kept, "a change that may wait does not count yet");
    assert_eq!(sent_until(&mut ledger, T.plus_secs(299)), [0; 0]);
    assert_eq!(sent_until(&mut ledger, T.plus_secs(300)), [300_000]);
    let ended = ledger.handle_unsubscribe(T, FE, &[id], false);
    assert_eq!(ended.answers[0].status, SubscriptionStatus::Changed);

    let id = ledger.handle_subscribe(T, &NewSubscription { delay_secs: DELAY_NEVER, ..new() }).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &flag_change(5, 11));
    assert_eq!(sent_until(&mut ledger, T.plus_secs(539)), [0; 0]);
    let ended = ledger.handle_unsubscribe(T, FE, &[id], false);
    assert_eq!(ended.answers[0].status, SubscriptionStatus::Changed, "still pending at the deadline");

    ledger.handle_subscribe(T, &NewSubscription { delay_secs: 0, ..new() }).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &flag_change(5, 11));
    assert_eq!(ledger.take_datagrams().len(), 1, "delay 0 tells at once");
}

#[test]
fn a_stray_question_keeps_the_group_and_a_real_change_still_wakes_it() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    let kept = ledger.handle_unsubscribe(T, FE, &[id], true);
    assert!(kept.kept);
    assert_eq!(kept.answers[0].status, SubscriptionStatus::Unchanged);
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    assert_eq!(ledger.take_datagrams().len(), 1);
}

#[test]
fn unsubscribe_answers_per_folder() {
    let mut ledger = ledger();
    let a = ledger.handle_subscribe(T, &new()).unwrap();
    let b = ledger.handle_subscribe(T, &NewSubscription { folder: 3, ..new() }).unwrap();
    let c = ledger.handle_subscribe(T, &NewSubscription { folder: 4, ..new() }).unwrap();
    ledger.handle_change(T, MAILBOX, 3, &delivery(11));
    ledger.handle_change(T, MAILBOX, 4, &flag_change(5, 12));
    let ended = ledger.handle_unsubscribe(T, FE, &[a, b, c], true);
    let statuses: Vec<_> = ended.answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [Unchanged, Changed, Changed], "a pending change goes with the wake");
    assert!(ledger.is_empty());
}

#[test]
fn poll_by_call_back_repeats_levels_until_they_are_acknowledged() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    assert_eq!(ledger.handle_poll_call_back(T, FE, &call_back(1), 3600), (vec![], 1));
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    for _ in 0..2 {
        let (found, count) = ledger.handle_poll_call_back(T, FE, &call_back(1), 60);
        assert_eq!((found[0].id, found[0].group, count), (id, Some(Guid([7; 16])), 1));
    }
    assert_eq!(ledger.handle_poll(T, FE, &[id])[0].status, SubscriptionStatus::Changed);
    assert_eq!(ledger.handle_poll(T, FE, &[id])[0].status, SubscriptionStatus::Unchanged);
    assert_eq!(ledger.handle_poll_call_back(T, FE, &call_back(1), 60).0, []);
}

#[test]
fn what_the_comparison_found_is_a_level_without_a_datagram() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_compared(T, id, Wake::Now);
    assert_eq!(ledger.take_datagrams(), []);
    assert_eq!(ledger.handle_unsubscribe(T, FE, &[id], false).answers[0].status, SubscriptionStatus::Changed);
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_compared(T, id, Wake::Later);
    assert_eq!(sent_until(&mut ledger, T.plus_secs(300)), [300_000]);
}

#[test]
fn a_withdrawn_subscription_leaves_the_others_of_its_group() {
    let mut ledger = ledger();
    let a = ledger.handle_subscribe(T, &new()).unwrap();
    let b = ledger.handle_subscribe(T, &NewSubscription { folder: 3, ..new() }).unwrap();
    ledger.handle_withdrawn(b);
    assert_eq!((ledger.len(), ledger.by_folder.len()), (1, 1));
    ledger.handle_change(T, MAILBOX, 3, &delivery(11));
    assert_eq!(ledger.take_datagrams(), []);
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(12));
    assert_eq!(ledger.take_datagrams().len(), 1);
    ledger.handle_withdrawn(a);
    assert!(ledger.is_empty() && ledger.by_folder.is_empty() && ledger.due.is_empty());
}

#[test]
fn another_process_counts_from_elsewhere() {
    let first = |seed| Ledger::new(LedgerLimits::default(), seed).handle_subscribe(T, &new()).unwrap().0;
    assert!(first(1).abs_diff(first(2)) > 10_000, "an old id must not name a new subscription");
}

#[test]
fn another_front_end_can_neither_see_nor_end_a_subscription() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    let other = FrontEndNumber(1);
    let unknown = |answers: &[SubscriptionAnswer]| answers[0].status == SubscriptionStatus::Unknown;
    assert!(unknown(&ledger.handle_unsubscribe(T, other, &[id], false).answers));
    assert!(unknown(&ledger.handle_poll(T, other, &[id])));
    assert!(unknown(&ledger.handle_renew(T, other, &[id], 60)));
    assert_eq!(ledger.handle_poll_call_back(T, other, &call_back(1), 60), (vec![], 0));
    assert!(unknown(&ledger.handle_poll(T, FE, &[SubscriptionId(u64::MAX)])));
    assert_eq!(ledger.len(), 1);
}

#[test]
fn a_restarted_front_end_replaces_its_predecessor_and_a_silent_one_is_dropped() {
    let mut ledger = ledger();
    ledger.handle_subscribe(T, &new()).unwrap();
    let successor = NewSubscription { call_back: call_back(2), poll_interval_secs: 60, ..new() };
    let id = ledger.handle_subscribe(T, &successor).unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger.handle_poll(T, FE, &[id])[0].status, SubscriptionStatus::Unchanged);
    ledger.handle_time(T.plus_secs(179));
    assert_eq!(ledger.len(), 1);
    ledger.handle_poll_call_back(T.plus_secs(179), FE, &call_back(2), 60);
    ledger.handle_time(T.plus_secs(358));
    assert_eq!(ledger.len(), 1, "heard of in time");
    ledger.handle_time(T.plus_secs(359));
    assert!(ledger.is_empty(), "silent for three intervals");
    assert_eq!(ledger.counters().dropped, 2);
}

#[test]
fn a_subscription_ends_with_its_lifetime_unless_renewed() {
    let mut ledger = ledger();
    let long = NewSubscription { lifetime_secs: 100, ..new() };
    let id = ledger.handle_subscribe(T, &long).unwrap();
    ledger.handle_renew(T.plus_secs(99), FE, &[id], 100);
    ledger.handle_time(T.plus_secs(198));
    assert_eq!(ledger.len(), 1);
    ledger.handle_time(T.plus_secs(199));
    assert!(ledger.is_empty());
    assert_eq!(ledger.counters().expired, 1);
    ledger.handle_change(T.plus_secs(199), MAILBOX, INBOX, &delivery(11));
    assert_eq!(ledger.take_datagrams(), []);
}

#[test]
fn an_event_reaches_the_device_that_is_meant() {
    let mut ledger = ledger();
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    let other = DeviceKey::new("iPhone", "B").unwrap();
    ledger.handle_event(T, MAILBOX, Some(&other), None, DeviceEvent::Wipe);
    ledger.handle_event(T, MAILBOX, None, Some(&phone()), DeviceEvent::Hierarchy);
    assert_eq!(ledger.take_datagrams(), []);
    ledger.handle_event(T, MAILBOX, None, Some(&other), DeviceEvent::Hierarchy);
    assert_eq!(ledger.take_datagrams().len(), 1);
    let ended = ledger.handle_unsubscribe(T, FE, &[id], true);
    assert_eq!((ended.kept, ended.event), (false, Some(DeviceEvent::Hierarchy)));
}

#[test]
fn bounds_hold() {
    let limits = LedgerLimits { per_mailbox: 2, total: 3, datagrams_per_second: 1 };
    let mut ledger = Ledger::new(limits, 1);
    for folder in 2..4 {
        ledger.handle_subscribe(T, &NewSubscription { folder, ..new() }).unwrap();
    }
    assert_eq!(ledger.handle_subscribe(T, &new()), Err(LedgerFull::Mailbox));
    let other = NewSubscription { mailbox: 10, group: Guid([8; 16]), ..new() };
    ledger.handle_subscribe(T, &other).unwrap();
    assert_eq!(ledger.handle_subscribe(T, &other), Err(LedgerFull::Total));
    // One datagram per second, two may burst: the first second allows two of these twenty.
    for n in 0..10 {
        ledger.handle_change(T, MAILBOX, INBOX, &delivery(11 + n));
        ledger.handle_change(T, 10, INBOX, &delivery(11 + n));
    }
    ledger.handle_time(T.plus_millis(999));
    assert_eq!(ledger.take_datagrams().len(), 2);
}

#[test]
fn what_a_predecessor_sent_arrives_too_late() {
    let mut ledger = ledger();
    ledger.handle_subscribe(T, &new()).unwrap();
    let successor = NewSubscription { call_back: call_back(2), group: Guid([8; 16]), ..new() };
    let id = ledger.handle_subscribe(T, &successor).unwrap();
    let late = NewSubscription { group: Guid([9; 16]), folder: 3, ..new() };
    assert_eq!(ledger.handle_subscribe(T, &late), Err(LedgerFull::Replaced));
    assert_eq!(
        ledger.handle_poll_call_back(T, FE, &call_back(2), 60).1,
        1,
        "the successor keeps what it has"
    );
    ledger.handle_change(T, MAILBOX, INBOX, &delivery(11));
    assert_eq!(ledger.take_datagrams()[0].ids.as_slice(), [id]);
    // Another front end that names the same call-back neither joins nor replaces it.
    let foreign = NewSubscription { front_end: FrontEndNumber(1), call_back: call_back(2), ..new() };
    ledger.handle_subscribe(T, &foreign).unwrap();
    assert_eq!(ledger.handle_poll_call_back(T, FE, &call_back(2), 60).1, 1);
}

#[test]
fn a_burst_wakes_as_often_as_the_budget_allows_and_the_rest_is_told_later() {
    let mut ledger = ledger().with_wakes_per_minute(2);
    let mut wakes = Vec::new();
    for n in 0..5 {
        let now = T.plus_millis(n * 100);
        let id = ledger.handle_subscribe(now, &NewSubscription { base: Number(10 + n), ..new() }).unwrap();
        ledger.handle_change(now, MAILBOX, INBOX, &delivery(11 + n));
        if ledger.take_datagrams().is_empty() {
            assert!(ledger.handle_unsubscribe(now, FE, &[id], true).kept, "it may wait");
            assert_eq!(ledger.handle_poll_call_back(now, FE, &call_back(1), 3600).0, []);
            assert_eq!(sent_until(&mut ledger, T.plus_millis(29_999)), [0; 0]);
            assert_eq!(sent_until(&mut ledger, T.plus_millis(30_000)), [30_000]);
            let found = ledger.handle_poll_call_back(T.plus_secs(30), FE, &call_back(1), 3600).0;
            assert_eq!(found.len(), 1, "from now on a lost datagram is found by POLL");
            let ended = ledger.handle_unsubscribe(T.plus_secs(30), FE, &[id], true);
            assert_eq!((ended.kept, ended.answers[0].status), (false, Changed));
            break;
        }
        wakes.push(n);
        ledger.handle_unsubscribe(now, FE, &[id], true);
    }
    assert_eq!(wakes, [0, 1]);
    assert_eq!(ledger.counters().held, 1);
}

#[test]
fn a_wake_that_is_held_counts_at_the_end_of_the_ping_and_at_subscribe() {
    let mut ledger = ledger().with_wakes_per_minute(1);
    let id = ledger.handle_subscribe(T, &new()).unwrap();
    assert_eq!(ledger.handle_compared(T, id, Wake::Now), Wake::Now);
    ledger.handle_unsubscribe(T, FE, &[id], false);
    let never = NewSubscription { delay_secs: DELAY_NEVER, ..new() };
    let id = ledger.handle_subscribe(T, &never).unwrap();
    assert_eq!(ledger.handle_compared(T, id, Wake::Now), Wake::Later, "the budget is used up");
    ledger.handle_event(T, MAILBOX, None, None, DeviceEvent::Policy);
    assert_eq!(ledger.take_datagrams().len(), 1, "what the administrator does is told at once");
    let ended = ledger.handle_unsubscribe(T, FE, &[id], false);
    assert_eq!(ended.answers[0].status, Changed);
    let id = ledger.handle_subscribe(T, &never).unwrap();
    ledger.handle_compared(T, id, Wake::Now);
    assert_eq!(sent_until(&mut ledger, T.plus_secs(60)), [60_000]);
}

/// A device that Pings, Syncs when it is told, and Pings again, while mail comes in bursts and every second datagram is
/// lost: it is woken within its budget, and in the end it knows everything.
#[test]
fn bursts_stay_within_the_budget_and_nothing_is_forgotten() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let per_minute = rng.u32(1..8);
        let delay_secs = *rng.choice(&[0, 30, 300, DELAY_NEVER]).unwrap();
        let mut ledger = Ledger::new(LedgerLimits::default(), seed).with_wakes_per_minute(per_minute);
        let (mut newest, mut known) = (10, 10);
        let mut wakes: Vec<u64> = Vec::new();
        let mut now = T;
        let mut ping: Option<(SubscriptionId, Moment)> = None;
        let mut burst_until = T;
        let mut last_delivery = T;
        while now < T.plus_secs(3_000) {
            now = now.plus_millis(500);
            let quiet = now > T.plus_secs(1_800);
            if rng.u8(0..100) == 0 {
                burst_until = now.plus_secs(10);
            }
            if !quiet && (now < burst_until || rng.u8(0..100) == 0) {
                newest += 1;
                last_delivery = now;
                ledger.handle_change(now, MAILBOX, INBOX, &delivery(newest));
            }
            ledger.handle_time(now);
            let told = !ledger.take_datagrams().is_empty() && rng.bool();
            let polled = now.millis_since(T).is_multiple_of(60_000)
                && !ledger.handle_poll_call_back(now, FE, &call_back(1), 3600).0.is_empty();
            let mut woken = false;
            match ping {
                None => {
                    let new =
                        NewSubscription { base: Number(known), delay_secs, lifetime_secs: 360, ..new() };
                    let id = ledger.handle_subscribe(now, &new).unwrap();
                    let found = if newest > known { Wake::Now } else { Wake::Never };
                    if ledger.handle_compared(now, id, found) == Wake::Now {
                        woken = true;
                        ledger.handle_unsubscribe(now, FE, &[id], false);
                    } else {
                        ping = Some((id, now.plus_secs(300)));
                    }
                }
                Some((id, _)) if told || polled => {
                    let ended = ledger.handle_unsubscribe(now, FE, &[id], true);
                    if !ended.kept {
                        assert_eq!(ended.answers[0].status, Changed, "seed {seed}");
                        woken = true;
                        ping = None;
                    }
                }
                Some((id, deadline)) if now >= deadline => {
                    let ended = ledger.handle_unsubscribe(now, FE, &[id], false);
                    assert_eq!(ended.answers[0].status == Changed, newest > known, "seed {seed}: the truth");
                    known = newest;
                    ping = None;
                }
                Some(_) => {}
            }
            if woken {
                wakes.push(now.millis_since(T));
                // Its Sync sometimes misses what comes while it is under way.
                known = newest - u64::from(rng.u8(0..4) == 0 && newest > known + 1);
            }
        }
        assert_eq!(known, newest, "seed {seed}: last delivery at {last_delivery:?}");
        let cost = 60_000 / u64::from(per_minute);
        for (i, from) in wakes.iter().enumerate() {
            for (j, to) in wakes.iter().enumerate().skip(i) {
                // A datagram that POLL had to find is later than its wake was counted, by a minute at most.
                let allowed = u64::from(per_minute) + (to - from + 60_000) / cost + 1;
                assert!((j - i) as u64 <= allowed, "seed {seed}: {} wakes in {} ms", j - i, to - from);
            }
        }
    }
}

/// 300 B per subscription: the boxed group, its places in the ordered maps (about 24 B each, half filled at worst), its
/// slot, and the device's name.
#[test]
fn a_subscription_stays_small() {
    assert_eq!(size_of::<Subscription>(), 32);
    assert_eq!(size_of::<Group>(), 112);
}

/// Random calls: nothing panics, the indexes agree with the groups, and what counts is never forgotten.
#[test]
fn random_histories_keep_the_indexes_whole() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ledger = Ledger::new(LedgerLimits::default(), seed).with_wakes_per_minute((seed % 3) as u32);
        let mut now = T;
        let mut ids = Vec::new();
        for number in 11..60 {
            now = now.plus_millis(rng.u64(0..30_000));
            let id = || SubscriptionId(0);
            match rng.u8(0..7) {
                0 | 1 => {
                    let group = Guid([rng.u8(0..4); 16]);
                    let folder = rng.u64(2..5);
                    ids.push(
                        ledger.handle_subscribe(now, &NewSubscription { group, folder, ..new() }).unwrap(),
                    );
                }
                2 => ledger.handle_change(now, MAILBOX, rng.u64(2..5), &delivery(number)),
                3 => ledger.handle_change(now, MAILBOX, rng.u64(2..5), &flag_change(5, number)),
                4 => ledger.handle_time(now),
                5 => {
                    let asked = rng.choice(&ids).copied().unwrap_or_else(id);
                    ledger.handle_unsubscribe(now, FE, &[asked], rng.bool());
                }
                _ => {
                    let (found, count) = ledger.handle_poll_call_back(now, FE, &call_back(1), 3600);
                    assert!(count == ledger.len(), "seed {seed}");
                    for answer in found {
                        assert_eq!(
                            ledger.handle_poll(now, FE, &[answer.id])[0].status,
                            SubscriptionStatus::Changed
                        );
                    }
                }
            }
            let live: usize = ledger.groups.iter().flatten().map(|group| group.subscriptions.len()).sum();
            assert_eq!((live, live), (ledger.by_id.len(), ledger.by_folder.len()), "seed {seed}");
            assert_eq!(ledger.due.len(), ledger.groups.iter().flatten().count(), "seed {seed}");
        }
    }
}
