//! What must hold in every world.

use std::{cell::RefCell, rc::Rc, time::Duration};

use directpush_common::{
    change::{Cause, Maker},
    eas::{folder_sync::FolderType, sync::FilterType},
};

use super::{
    FOLDERS, INBOX, POLL_SECS, World,
    device::Device,
    folder_id,
    network::Weather,
    run,
    sync::{item_of, server_id},
};
use crate::core::{Kind, Profile};

fn profile(id: &str, strategy: Kind) -> Profile {
    let mut profile = Profile::new("alice", id, strategy).unwrap();
    profile.watch = vec![FolderType::Inbox, FolderType::Sent];
    profile
}

/// A device that waits for its Ping's answer.
async fn parked(world: &Rc<World>, profile: Profile) -> Rc<Device> {
    let device = world.device(0, profile);
    assert!(
        world.pass_until(120, || device.is_pinging() && world.backend.subscriptions() > 0).await.is_some()
    );
    world.pass(5).await;
    device
}

/// Whether the device holds what the mailbox has, within its filter.
fn difference(world: &World, device: &Device, floor: Option<i64>) -> Option<String> {
    let phone = device.phone.borrow();
    for folder in FOLDERS {
        let there = world.backend.folder(device.mailbox, folder, |folder| folder.contents(floor));
        let there: Vec<_> =
            there.into_iter().map(|(id, subject, read)| (server_id(folder, id), subject, read)).collect();
        let held = phone.mailbox().folders.get(folder_id(folder).to_string().as_str())?;
        let mut here: Vec<_> = held
            .items
            .iter()
            .map(|(id, held)| (id.to_string(), held.subject.to_string(), held.read))
            .collect();
        here.sort_by_key(|(id, ..)| item_of(id));
        if here != there {
            return Some(format!("folder {folder}: on the phone {here:?}, in the mailbox {there:?}"));
        }
    }
    None
}

/// Whatever happens to datagrams, servers and devices: in the end every device holds what its mailbox has.
#[test]
fn nothing_is_lost() {
    for seed in 0..1000 {
        run(seed, 2, |world| async move {
            let kinds = [Kind::WindowsMobile, Kind::Android, Kind::OldAndroid, Kind::Fixed(300)];
            let mut devices = Vec::new();
            for n in 0..2u64 {
                let kind = kinds[usize::try_from(world.net.pick(0..4)).unwrap()];
                let mut profile = profile(&format!("phone{n}"), kind);
                profile.syncs_together = world.net.chance(0.5);
                profile.window = [1, 3, 100][usize::try_from(world.net.pick(0..3)).unwrap()];
                devices.push(world.device(0, profile));
            }
            for _ in 0..40 {
                mishap(&world, &devices).await;
                let pause = [0, 1, 20, 90][usize::try_from(world.net.pick(0..4)).unwrap()];
                tokio::time::sleep(Duration::from_millis(pause * 1000 + world.net.pick(0..700))).await;
            }
            // The storm is over, but datagrams stay lost.
            for front in 0..world.fronts() {
                world.net.partition(front, false);
            }
            let in_step = || devices.iter().all(|device| difference(&world, device, None).is_none());
            if world.pass_until(3000, in_step).await.is_none() {
                for device in &devices {
                    let left = difference(&world, device, None);
                    let out = device.phone.borrow().outstanding().cloned();
                    assert_eq!(left, None, "seed {seed}, {}: {out:?}", device.key);
                }
            }
        });
    }
}

/// One thing that can happen.
async fn mishap(world: &Rc<World>, devices: &[Rc<Device>]) {
    let pick = |below| usize::try_from(world.net.pick(0..below)).unwrap();
    let folder = FOLDERS[pick(2)];
    let device = &devices[pick(devices.len() as u64)];
    let ids = world.backend.folder(0, folder, |folder| folder.ids());
    let some = (!ids.is_empty()).then(|| ids[pick(ids.len() as u64)]);
    let dav = Maker::of(Cause::Dav);
    match world.net.pick(0..14) {
        0..=4 => {
            world.deliver(0, folder, &format!("message at {}", world.now().0));
        }
        5 => {
            if let Some(id) = some {
                world.backend.change(0, folder, |f| f.set_read(id, true, dav));
            }
        }
        6 => {
            if let Some(id) = some {
                world.backend.change(0, folder, |f| f.delete(id, dav));
            }
        }
        7 => {
            if let Some(id) = some {
                let (folder, item) = (folder_id(folder).to_string(), server_id(folder, id));
                device.edit(|phone| {
                    phone.mailbox_mut().mark_read(&folder, &item, true);
                });
            }
        }
        8 => {
            if let Some(id) = some {
                let (folder, item) = (folder_id(folder).to_string(), server_id(folder, id));
                device.edit(|phone| {
                    phone.mailbox_mut().delete(&folder, &item);
                });
            }
        }
        9 => device.roam(pick(2)),
        10 => {
            let front = pick(2);
            world.kill_front(front);
            world.pass(world.net.pick(0..10)).await;
            world.start_front(front);
        }
        11 => {
            world.backend.kill();
            world.pass(world.net.pick(0..20)).await;
            world.backend.start();
        }
        12 => {
            let front = pick(2);
            let cut = world.net.is_cut(front);
            world.net.partition(front, !cut);
        }
        _ => {
            let weather = [Weather::FAIR, Weather::FOUL, Weather::NOTHING_ARRIVES];
            world.net.weather.set(weather[pick(3)]);
        }
    }
}

/// "It is done when" 5 (a) for a thousand courses.
#[test]
fn with_every_datagram_dropped_mail_waits_for_one_poll_at_most() {
    for seed in 0..1000 {
        run(seed, 1, |world| async move {
            world.net.weather.set(Weather::NOTHING_ARRIVES);
            let device = parked(&world, profile("phone", Kind::WindowsMobile)).await;
            world.pass(world.net.pick(0..100)).await;
            world.deliver(0, INBOX, "lost");
            let took = world.pass_until(200, || device.has("lost")).await.expect("woken");
            let bound = Duration::from_secs(u64::from(POLL_SECS) + 3);
            assert!(took <= bound, "seed {seed}: {took:?}");
            let front = world.front(0).unwrap();
            let quick = took < Duration::from_secs(1);
            assert!(front.unannounced.get() > 0 || quick, "seed {seed}: not counted as a broken path");
        });
    }
}

/// "It is done when" 5 (b): nine in ten within 10 s, all within one POLL.
#[test]
fn with_half_the_datagrams_lost_nine_in_ten_come_soon() {
    let times = Rc::new(RefCell::new(Vec::new()));
    for seed in 0..600 {
        let times = Rc::clone(&times);
        run(seed, 1, |world| async move {
            world.net.weather.set(Weather::FOUL);
            let device = parked(&world, profile("phone", Kind::Android)).await;
            world.pass(world.net.pick(0..70)).await;
            world.deliver(0, INBOX, "foul");
            let took = world.pass_until(200, || device.woken.get().is_some()).await.expect("woken");
            assert!(took <= Duration::from_secs(u64::from(POLL_SECS) + 3), "seed {seed}: {took:?}");
            times.borrow_mut().push(took);
        });
    }
    let times = times.borrow();
    let soon = times.iter().filter(|took| **took <= Duration::from_secs(10)).count();
    assert!(soon * 10 >= times.len() * 9, "{soon} of {} within 10 s", times.len());
}

/// "It is done when" 5 (c) and (d): the change falls anywhere between the last Sync and the parked Ping.
#[test]
fn a_change_in_the_gap_is_told_at_once() {
    for seed in 0..1000 {
        run(seed, 1, |world| async move {
            world.net.weather.set(Weather::NOTHING_ARRIVES);
            let device = world.device(0, profile("phone", Kind::Android));
            // Somewhere between the first request and a little after the first SUBSCRIBE.
            tokio::time::sleep(Duration::from_millis(world.net.pick(0..3000))).await;
            world.deliver(0, INBOX, "gap");
            let subscribed = world.backend.subscriptions() > 0;
            let took = world.pass_until(200, || device.has("gap")).await.expect("woken");
            let bound = if subscribed { u64::from(POLL_SECS) + 3 } else { 5 };
            assert!(took <= Duration::from_secs(bound), "seed {seed}: {took:?}, subscribed {subscribed}");
        });
    }
}

/// "It is done when" 5 (e): after the back end's return every Ping is armed again, and its devices noticed nothing.
#[test]
fn after_a_restart_of_the_back_end_all_are_armed_again() {
    for seed in 0..200 {
        run(seed, 1, |world| async move {
            let mut devices = Vec::new();
            for n in 0..5 {
                devices.push(parked(&world, profile(&format!("phone{n}"), Kind::Fixed(1500))).await);
            }
            let requests: Vec<u64> =
                devices.iter().map(|device| device.phone.borrow().counters().requests).collect();
            world.backend.kill();
            world.pass(world.net.pick(1..60)).await;
            world.backend.start();
            let armed = world.pass_until(5, || world.backend.subscriptions() == 10).await;
            assert!(armed.is_some(), "seed {seed}: {} of 10", world.backend.subscriptions());
            for (device, before) in devices.iter().zip(requests) {
                assert_eq!(device.phone.borrow().counters().requests, before, "seed {seed}: noticed");
            }
            world.deliver(0, INBOX, "after");
            let all = || devices.iter().all(|device| device.has("after"));
            assert!(world.pass_until(5, all).await.is_some(), "seed {seed}: not woken");
        });
    }
}

/// "It is done when" 5 (f): what was parked at the front end that died comes back and misses nothing.
#[test]
fn after_a_restart_of_the_front_end_nothing_is_missed() {
    for seed in 0..300 {
        run(seed, 1, |world| async move {
            let device = parked(&world, profile("phone", Kind::Android)).await;
            world.kill_front(0);
            world.deliver(0, INBOX, "meanwhile");
            world.pass(world.net.pick(0..30)).await;
            world.start_front(0);
            assert!(world.pass_until(70, || device.has("meanwhile")).await.is_some(), "seed {seed}");
            world.pass(5).await;
            world.deliver(0, INBOX, "after");
            assert!(world.pass_until(5, || device.has("after")).await.is_some(), "seed {seed}");
        });
    }
}

/// "It is done when" 5 (g), with every strategy.
#[test]
fn a_device_that_roams_is_woken_where_it_is() {
    for seed in 0..300 {
        run(seed, 2, |world| async move {
            let device = parked(&world, profile("phone", Kind::WindowsMobile)).await;
            for n in 0..4 {
                device.roam((n + 1) % 2);
                world.pass(2).await;
                let subject = format!("move {n}");
                world.deliver(0, INBOX, &subject);
                assert!(
                    world.pass_until(5, || device.has(&subject)).await.is_some(),
                    "seed {seed}: {subject}"
                );
                world.pass(world.net.pick(0..30)).await;
            }
            assert_eq!(device.phone.borrow().counters().empty_syncs, 0, "seed {seed}");
        });
    }
}

/// "It is done when" 5 (h): nothing that must not wake a device makes it work. An hour costs it its heartbeats.
#[test]
fn there_are_no_hot_loops() {
    for seed in 0..60 {
        run(seed, 1, |world| async move {
            let mut filtered = profile("filtered", Kind::Fixed(480));
            filtered.filter = FilterType::OneDay;
            let mut odd = profile("odd", Kind::Android);
            (odd.watch, odd.watch_unsynced) = (vec![FolderType::Sent], vec![FolderType::Inbox]);
            world.deliver(0, INBOX, "was there before");
            let mut devices = vec![parked(&world, filtered).await, parked(&world, odd).await];
            devices.push(parked(&world, profile("plain", Kind::WindowsMobile)).await);
            // An own change, a deletion, and an item from before the day.
            let first = world.backend.folder(0, INBOX, |folder| folder.ids()[0]);
            let (inbox, item) = (folder_id(INBOX).to_string(), server_id(INBOX, first));
            devices[2].edit(|phone| {
                phone.mailbox_mut().mark_read(&inbox, &item, true);
            });
            world.deliver_dated(0, INBOX, "old", world.unix_secs() - 3 * 86_400);
            world.pass(1200).await;
            world.backend.change(0, INBOX, |folder| folder.delete(first, Maker::of(Cause::Dav)));
            world.pass(1200).await;
            let requests = |device: &Rc<Device>| device.phone.borrow().counters();
            let before: Vec<_> = devices.iter().map(requests).collect();
            world.pass(2 * 3600).await;
            for (device, before) in devices.iter().zip(before) {
                let (now, name) = (requests(device), &device.key);
                let pings = now.pings - before.pings;
                assert!(
                    (2..=16).contains(&pings),
                    "seed {seed}, {name}: {pings} Pings in two hours of nothing"
                );
                let other = now.requests - before.requests - pings;
                assert_eq!(other, 0, "seed {seed}, {name}: {other} other requests in two hours of nothing");
                assert!(now.empty_syncs <= 1, "seed {seed}, {name}: {} empty Syncs", now.empty_syncs);
            }
            assert!(devices[2].has("old") && !devices[0].has("old"), "seed {seed}");
        });
    }
}

/// While the back end is down devices are held, not driven round in circles: Android repeats Status 8 at once.
#[test]
fn a_back_end_that_is_down_makes_no_hot_loop() {
    for seed in 0..60 {
        run(seed, 1, |world| async move {
            let device = parked(&world, profile("phone", Kind::Android)).await;
            world.backend.kill();
            device.edit(|_| {});
            world.pass(5).await;
            let before = device.phone.borrow().counters().requests;
            world.pass(600).await;
            let requests = device.phone.borrow().counters().requests - before;
            assert!(requests <= 600 / 3, "seed {seed}: {requests} requests in ten minutes");
            world.backend.start();
            world.pass(10).await;
            world.deliver(0, INBOX, "back");
            assert!(world.pass_until(70, || device.has("back")).await.is_some(), "seed {seed}");
        });
    }
}

/// AutdState is written for the first Ping and whenever it changes, and not for a repeated or an empty one.
#[test]
fn a_repeated_ping_writes_nothing() {
    for kind in [Kind::Fixed(480), Kind::WindowsMobile] {
        run(1, 1, |world| async move {
            let device = parked(&world, profile("phone", kind)).await;
            let writes = || world.backend.devices.borrow()[&device.key.to_string()].autd_writes;
            assert_eq!(writes(), 1);
            for n in 0..5 {
                world.deliver(0, INBOX, &format!("{n}"));
                world.pass(5).await;
            }
            assert_eq!(device.phone.borrow().counters().pings_changed, 5);
            assert_eq!(writes(), 1, "{kind}");
            world.pass(1000).await;
            let longer = u32::from(kind == Kind::WindowsMobile);
            assert!(writes() <= 1 + 2 * longer, "{kind}: {}", writes());
        });
    }
}
