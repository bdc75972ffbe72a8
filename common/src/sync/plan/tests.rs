//! The device's view after any history equals the folder: a small folder with a change log against a device
//! that applies commands, with lost responses, filters and two devices.

use std::collections::BTreeMap;

use super::*;
use crate::{
    change::{Cause, Gone, Live, Maker},
    sync::state::{CollectionState, Resume},
};

const EPOCH: u64 = 3;

/// A folder as the back end keeps it: one entry per item at its last change.
#[derive(Default)]
struct Folder {
    number: u64,
    log: BTreeMap<u64, Entry>,
}

impl Folder {
    fn write(&mut self, entry: Entry) {
        self.log.retain(|_, old| old.id != entry.id);
        self.log.insert(entry.changed.0, entry);
    }

    fn next(&mut self) -> Number {
        self.number += 1;
        Number(self.number)
    }

    fn add(&mut self, maker: Maker, date: i64) -> ItemId {
        let number = self.next();
        let live = Live {
            before: Number::ZERO,
            added: maker.clone(),
            maker,
            date,
            size: 1,
            content: number,
            ..Live::default()
        };
        self.write(Entry { id: ItemId(number), changed: number, kind: EntryKind::Live(live) });
        ItemId(number)
    }

    fn ids(&self) -> Vec<ItemId> {
        self.live().map(|(entry, _)| entry.id).collect()
    }

    fn live(&self) -> impl Iterator<Item = (&Entry, &Live)> {
        self.log.values().filter_map(|entry| match &entry.kind {
            EntryKind::Live(live) => Some((entry, live)),
            EntryKind::Gone(_) => None,
        })
    }

    /// Marks an item, or without marks turns its read flag.
    fn change(&mut self, id: ItemId, maker: &Maker, marks: Option<&str>) {
        let found =
            self.live().find(|(entry, _)| entry.id == id).map(|(entry, live)| (entry.changed, live.clone()));
        let Some((last, mut live)) = found else { return };
        live.before = if live.maker == *maker { live.before } else { last };
        live.maker = maker.clone();
        match marks {
            Some(marks) => marks.clone_into(&mut live.marks),
            None => live.read = !live.read,
        }
        let changed = self.next();
        self.write(Entry { id, changed, kind: EntryKind::Live(live) });
    }

    fn remove(&mut self, id: ItemId, maker: &Maker) {
        let found = self.live().find(|(entry, _)| entry.id == id).map(|(_, live)| live.date);
        let Some(date) = found else { return };
        let changed = self.next();
        self.write(Entry { id, changed, kind: EntryKind::Gone(Gone { maker: maker.clone(), date }) });
    }

    fn report(&self, request: ItemsRequest) -> Items {
        let token = |number| CollectionToken { epoch: EPOCH, number };
        let (mut entries, limit): (Vec<Entry>, usize) = match request {
            ItemsRequest::Changes { since, limit } => {
                let since = since.map_or(0, |since| since.number.0);
                (self.log.range(since + 1..).map(|(_, entry)| entry.clone()).collect(), limit)
            }
            ItemsRequest::Additions { after, limit } => {
                let mut entries: Vec<Entry> = self
                    .live()
                    .filter(|(entry, _)| entry.id > after)
                    .map(|(entry, _)| entry.clone())
                    .collect();
                entries.sort_by_key(|entry| entry.id);
                (entries, limit)
            }
            ItemsRequest::Walk { before, limit } => {
                let before = before.map_or(u64::MAX, |before| before.0.0);
                let mut entries: Vec<Entry> = self
                    .live()
                    .filter(|(entry, _)| entry.id.0.0 < before)
                    .map(|(entry, _)| entry.clone())
                    .collect();
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
                (entries, limit)
            }
        };
        let more = entries.len() > limit;
        entries.truncate(limit);
        let number = match request {
            ItemsRequest::Changes { .. } if more => entries[entries.len() - 1].changed,
            _ => Number(self.number),
        };
        Items { token: token(number), entries, more }
    }
}

/// A device: what it holds (id -> read flag and marks) and the key it has.
struct Phone {
    name: DeviceKey,
    holds: BTreeMap<ItemId, (bool, String)>,
    key: u32,
    stored: CollectionState,
}

impl Phone {
    fn new(id: &str) -> Self {
        let stored = CollectionState::default().started_over(0, None, String::new());
        Self { name: DeviceKey::new("iPhone", id).unwrap(), holds: BTreeMap::new(), key: 1, stored }
    }

    fn start_over(&mut self, filter: u8, floor: Option<i64>) {
        self.stored = self.stored.started_over(filter, floor, String::new());
        self.key = self.stored.current.key;
        self.holds.clear();
    }

    /// One Sync; `lost`: the response does not reach the device. Returns whether there is more.
    fn sync(&mut self, folder: &Folder, window: usize, filter: u8, floor: Option<i64>, lost: bool) -> bool {
        let (from, current) = match self.stored.resume(self.key) {
            Resume::Current(state) => (state, true),
            Resume::Replay(state) => (state, false),
            Resume::Unknown => panic!("a key that this server gave is unknown"),
        };
        if SyncPlan::must_start_over(&from, filter) {
            self.start_over(filter, floor);
            return true;
        }
        let mut plan = SyncPlan::new(&self.name, from.clone(), window, filter, floor);
        while let Some(request) = plan.wants() {
            plan.handle_items(&folder.report(request));
        }
        let planned = plan.finish();
        assert!(planned.commands.len() <= window);
        if planned.commands.is_empty() && !planned.more && current {
            self.stored = self.stored.advanced(planned.next);
            return false;
        }
        self.stored = CollectionState::answered(from, planned.next);
        if lost {
            return true;
        }
        self.key = self.stored.current.key;
        for command in planned.commands {
            let read = |id| {
                let found = folder.live().find(|(entry, _)| entry.id == id);
                found.map(|(_, live)| (live.read, live.marks.clone())).unwrap_or_default()
            };
            match command {
                PlanCommand::Add(id) => {
                    assert!(self.holds.insert(id, read(id)).is_none(), "added twice: {id}");
                }
                PlanCommand::Change(id) => {
                    assert!(self.holds.insert(id, read(id)).is_some(), "changed unseen: {id}");
                }
                // An item that came and went while additions were paged out: devices ignore what they do not know.
                PlanCommand::Delete(id) => {
                    self.holds.remove(&id);
                }
                PlanCommand::SoftDelete(id) => {
                    assert!(self.holds.remove(&id).is_some(), "left the filter unseen: {id}");
                }
            }
        }
        planned.more
    }

    #[track_caller]
    fn check(&self, folder: &Folder, floor: Option<i64>, seed: u64) {
        let expected: BTreeMap<ItemId, (bool, String)> = folder
            .live()
            .filter(|(entry, _)| floor.is_none_or(|floor| entry.date() >= floor))
            .map(|(entry, live)| (entry.id, (live.read, live.marks.clone())))
            .collect();
        assert_eq!(self.holds, expected, "seed {seed}");
    }
}

/// After any history, a device that syncs to the end holds what the folder holds.
#[test]
fn the_devices_view_equals_the_folder_after_any_history() {
    for seed in 0..3000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut folder = Folder::default();
        let mut phones = [Phone::new("A"), Phone::new("B")];
        // The second and the third filter reach back so far from today.
        let mut floors = [None, Some(60), Some(110)];
        let mut filter = [0u8, rng.u8(0..3)];
        for _ in 0..rng.u32(1..60) {
            let n = rng.usize(0..2);
            let own = Maker { device: Some(phones[n].name.clone()), cause: Cause::Sync };
            let some_id = rng.choice(folder.ids());
            match rng.u8(0..10) {
                0..=3 => {
                    folder.add(Maker::of(Cause::Delivery), rng.i64(50..200));
                }
                4 => {
                    if let Some(id) = some_id {
                        let marks = rng.bool().then(|| format!("dav{}", rng.u8(..)));
                        folder.change(id, &Maker::of(Cause::Dav), marks.as_deref());
                    }
                }
                5 => {
                    if let Some(id) = some_id {
                        folder.remove(id, &Maker::of(Cause::Dav));
                    }
                }
                // A device flags or deletes what it holds, and knows that it did.
                6 => {
                    let held: Vec<ItemId> =
                        phones[n].holds.keys().copied().filter(|id| folder.ids().contains(id)).collect();
                    if let Some(&id) = rng.choice(&held) {
                        // It knows of its own change, not what else has become of the item.
                        let marks = format!("own{}", rng.u8(..));
                        folder.change(id, &own, Some(&marks));
                        phones[n].holds.get_mut(&id).unwrap().1 = marks;
                    }
                }
                7 => {
                    let held: Vec<ItemId> =
                        phones[n].holds.keys().copied().filter(|id| folder.ids().contains(id)).collect();
                    if let Some(&id) = rng.choice(&held) {
                        folder.remove(id, &own);
                        phones[n].holds.remove(&id);
                    }
                }
                8 if rng.u8(0..4) == 0 => filter[n] = rng.u8(0..3),
                8 if rng.u8(0..2) == 0 => {
                    // Days pass: items become too old.
                    let days = rng.i64(1..30);
                    floors = floors.map(|floor| floor.map(|floor| floor + days));
                }
                _ => {
                    let (f, window) = (filter[n], rng.usize(1..6));
                    phones[n].sync(&folder, window, f, floors[usize::from(f)], rng.u8(0..4) == 0);
                }
            }
        }
        for (n, phone) in phones.iter_mut().enumerate() {
            let floor = floors[usize::from(filter[n])];
            // A day that began during a walk is looked at after it, by the next Sync.
            for _ in 0..2 {
                let mut rounds = 0;
                while phone.sync(&folder, 4, filter[n], floor, false) {
                    rounds += 1;
                    assert!(rounds < 500, "seed {seed}: Sync never ends");
                }
            }
            phone.check(&folder, floor, seed);
        }
    }
}

#[test]
fn a_first_sync_sends_the_newest_first_and_new_mail_before_the_rest() {
    let mut folder = Folder::default();
    let ids: Vec<ItemId> = (0..5).map(|date| folder.add(Maker::of(Cause::Delivery), date)).collect();
    let phone = DeviceKey::new("iPhone", "A").unwrap();
    let plan = |folder: &Folder, state: KeyState| {
        let mut plan = SyncPlan::new(&phone, state, 2, 0, None);
        while let Some(request) = plan.wants() {
            plan.handle_items(&folder.report(request));
        }
        plan.finish()
    };
    let first = plan(&folder, KeyState::default());
    assert_eq!(first.commands, [PlanCommand::Add(ids[4]), PlanCommand::Add(ids[3])]);
    assert!(first.more && first.next.is_pending());
    let new = folder.add(Maker::of(Cause::Delivery), 9);
    let second = plan(&folder, first.next);
    assert_eq!(second.commands, [PlanCommand::Add(new), PlanCommand::Add(ids[2])]);
    let third = plan(&folder, second.next);
    assert_eq!(third.commands, [PlanCommand::Add(ids[1]), PlanCommand::Add(ids[0])]);
    let last = plan(&folder, third.next);
    assert_eq!((last.commands.as_slice(), last.more), ([].as_slice(), false));
}

#[test]
fn the_cost_of_a_sync_does_not_grow_with_the_folder() {
    let mut folder = Folder::default();
    for date in 0..2000 {
        folder.add(Maker::of(Cause::Delivery), date);
    }
    let through = Number(folder.number);
    let base = Some(CollectionToken { epoch: EPOCH, number: through });
    let new = folder.add(Maker::of(Cause::Delivery), 9);
    let phone = DeviceKey::new("iPhone", "A").unwrap();
    let mut plan =
        SyncPlan::new(&phone, KeyState { key: 1, base, through, ..KeyState::default() }, 100, 0, None);
    let request = plan.wants().unwrap();
    let items = folder.report(request);
    assert_eq!(items.entries.len(), 1);
    plan.handle_items(&items);
    assert_eq!(plan.wants(), None);
    assert_eq!(plan.finish().commands, [PlanCommand::Add(new)]);
}
