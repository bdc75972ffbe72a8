//! What this front end remembers of devices: enough to establish a Ping with one conditional GET.
//!
//! Nothing here is the truth. The back end's answer to the GET of AutdState.xml carries two numbers
//! that say whether what is remembered still holds; when it does not, it is read again. So any
//! front end serves any device, and the table may forget whatever it likes.
//!
//! A waiting Ping shares this memory: its folder list is the one kept here.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use directpush_common::clock::Moment;
use directpush_common::eas::provision::Provisioned;
use directpush_common::names::{DeviceKey, FolderId, Guid, UserName};
use directpush_common::numbers::Number;
use directpush_common::sync::state::KeyState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::push::{Watch, Watches};

/// Devices remembered in each of two generations.
const DEVICES_MAX: usize = 200_000;

/// One device of one user.
pub struct Device {
    /// Its name.
    pub key: DeviceKey,
    /// A keyed hash of user and device, by which the push engine knows it.
    pub hash: u64,
    /// What is remembered.
    pub known: Mutex<Known>,
}

/// What is remembered of a device.
#[derive(Default)]
pub struct Known {
    /// The device-state number for which `seen` and `watches` hold; 0 = they do not.
    pub state: u64,
    /// The hierarchy number of the device's last FolderSync.
    pub seen: Option<Number>,
    /// AutdState.xml: its ETag and heartbeat; its folders are those of `watches`.
    pub autd: Option<(Box<str>, u32)>,
    /// The folders of the last Ping, and what the device knows of each.
    pub watches: Option<Arc<Watches>>,
    /// Rare things, so that a well-behaved device does not pay for them.
    pub rare: Option<Box<Rare>>,
}

/// What most devices never need.
#[derive(Default)]
pub struct Rare {
    /// Folders whose last Sync response could not be written to its end: Ping says 2, once.
    pub unsent: Vec<FolderId>,
    /// When a Ping was last answered 2 for a folder that was never synchronised.
    pub unsynced_told: Option<Moment>,
    /// Pings in a row that were answered at once with a status from which devices come back at once.
    pub refusals: u32,
    /// When the last of them was.
    pub refused_at: Moment,
    /// The folders that a device synchronised before its first Ping, which then need not be read.
    pub synced: Option<Watches>,
    /// The device has no AutdState.xml, as of `state`.
    pub no_autd: bool,
    /// What it acknowledged last; of use only where a policy is in force.
    pub provisioned: Option<Provisioned>,
}

impl Rare {
    fn is_idle(&self) -> bool {
        let told = self.unsent.is_empty() && self.unsynced_told.is_none();
        told && self.refusals == 0 && self.synced.is_none() && !self.no_autd && self.provisioned.is_none()
    }
}

/// Folders remembered of a device that never pinged.
const SYNCED_MAX: usize = 64;

impl Known {
    /// Forgets everything that the back end could contradict.
    pub fn forget(&mut self) {
        (self.state, self.seen, self.autd, self.watches) = (0, None, None, None);
        if let Some(rare) = &mut self.rare {
            (rare.synced, rare.no_autd) = (None, false);
        }
        self.settle();
    }

    /// Gives back what no longer holds anything.
    pub fn settle(&mut self) {
        self.rare.take_if(|rare| rare.is_idle());
    }

    /// One of the device's objects was written, having been read at device-state number `before`, and the number is
    /// `after` now. Whether what is remembered still holds: nobody else wrote between what is remembered and what was read.
    /// (Nor in the moment between reading and writing, which cannot be told: the numbers of a mailbox's devices
    /// are of one row.)
    pub fn wrote(&mut self, before: u64, after: u64) -> bool {
        if before == 0 {
            // There was no object at all, so there is nothing but this one.
            self.forget();
            self.state = after;
            self.rare().no_autd = true;
            return true;
        }
        let holds = self.state == before;
        self.state = if holds { after } else { 0 };
        holds
    }

    /// The device was told the hierarchy as of number `seen`.
    pub fn folder_synced(&mut self, seen: Number, before: u64, after: u64) {
        if !self.wrote(before, after) {
            self.forget();
            self.state = after;
        }
        self.seen = Some(seen);
        if let Some(rare) = &mut self.rare {
            rare.synced = None;
        }
    }

    /// A folder of the hierarchy as of this number.
    pub fn met(&mut self, installation: Guid, hierarchy: Number, watch: Watch) {
        if self.watches.is_some() {
            return;
        }
        let synced = &mut self.rare().synced;
        let known = synced.take().filter(|it| it.installation == installation && it.hierarchy == hierarchy);
        let mut known = known.unwrap_or_else(|| Watches::new(installation, hierarchy, 1));
        if known.folders().len() < SYNCED_MAX && known.position(watch.folder(installation)).is_none() {
            known.push(watch);
        }
        *synced = Some(known);
    }

    /// A folder, if it is remembered as of this hierarchy number.
    pub fn watch_of(&self, folder: FolderId, hierarchy: Number) -> Option<Watch> {
        let synced = || self.rare.as_ref()?.synced.as_ref();
        let known = self.watches.as_deref().or_else(synced)?;
        known.watch_of(folder).filter(|_| known.hierarchy == hierarchy)
    }

    /// The device waits by Sync for these folders. If it never pinged, what its Syncs left is in them.
    pub fn waits_for(&mut self, watches: &Arc<Watches>) {
        if self.autd.is_none() {
            self.watches = Some(Arc::clone(watches));
            if let Some(rare) = &mut self.rare {
                rare.synced = None;
            }
        }
        self.settle();
    }

    /// The rare things.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// A Sync response of `folder` went out: the device will know `key`. The collection was read at
    /// device-state number `before` and written at `after`.
    pub fn synced(&mut self, folder: FolderId, key: &KeyState, before: u64, after: u64) {
        if let Some(rare) = &mut self.rare {
            rare.unsent.retain(|unsent| *unsent != folder);
            rare.refusals = 0;
        }
        let holds = self.wrote(before, after);
        self.settle();
        let watches = match &mut self.watches {
            _ if !holds => None,
            Some(watches) => Some(Arc::make_mut(watches)),
            None => self.rare.as_mut().and_then(|rare| rare.synced.as_mut()),
        };
        let Some(watches) = watches else { return };
        if let Some(at) = watches.position(folder) {
            watches.set_known(at, key.base, key.floor, key.is_pending());
        }
    }
}

/// All devices that are remembered.
pub struct Devices {
    hasher: RandomState,
    table: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashTable<Arc<Device>>,
    old: HashTable<Arc<Device>>,
}

impl Default for Devices {
    fn default() -> Self {
        Self { hasher: RandomState::new(), table: Mutex::default() }
    }
}

impl Devices {
    /// The device, known or new.
    pub fn get(&self, user: &UserName, key: &DeviceKey) -> Arc<Device> {
        let hash = self.hasher.hash_one((user, key));
        let mut table = self.table.lock();
        let same = |device: &Arc<Device>| device.hash == hash && device.key == *key;
        if let Some(device) = table.young.find(hash, same) {
            return Arc::clone(device);
        }
        if let Ok(found) = table.old.find_entry(hash, same) {
            let (device, _) = found.remove();
            table.young.insert_unique(hash, Arc::clone(&device), |device| device.hash);
            return device;
        }
        if table.young.len() >= DEVICES_MAX {
            table.old = std::mem::take(&mut table.young);
        }
        let known = Mutex::default();
        let device = Arc::new(Device { key: key.clone(), hash, known });
        table.young.insert_unique(hash, Arc::clone(&device), |device| device.hash);
        device
    }

    /// A keyed hash of a user, for counting.
    pub fn user_hash(&self, user: &UserName) -> u64 {
        self.hasher.hash_one(user)
    }
}

#[cfg(test)]
mod tests {
    use directpush_common::dav::hierarchy::Class;
    use directpush_common::dav::subscribe::Since;
    use directpush_common::numbers::CollectionToken;

    use super::*;
    use crate::push::Words;

    #[test]
    fn the_same_device_is_found_again_and_users_do_not_share() {
        let devices = Devices::default();
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let key = DeviceKey::new("iPhone", "A").unwrap();
        let first = devices.get(&alice, &key);
        assert!(Arc::ptr_eq(&first, &devices.get(&alice, &key)));
        assert!(!Arc::ptr_eq(&first, &devices.get(&bob, &key)));
    }

    #[test]
    fn a_sync_moves_the_token_only_when_nothing_else_happened() {
        let folder = FolderId { installation: Guid([1; 16]), counter: 2 };
        let token = |number| CollectionToken { epoch: 1, number: Number(number) };
        let mut watches = Watches::new(folder.installation, Number(3), 1);
        watches.push(Watch::new(folder.counter, Class::Email, Words::default().share("Inbox/")));
        watches.set_known(0, Some(token(5)), None, false);
        let mut known = Known { state: 10, watches: Some(Arc::new(watches)), ..Known::default() };
        let key = KeyState { base: Some(token(9)), ..KeyState::default() };
        known.synced(folder, &key, 10, 11);
        let watches = known.watches.as_ref().unwrap();
        assert_eq!((known.state, watches.since(&watches.folders()[0])), (11, Since::Token(token(9))));
        known.synced(folder, &key, 12, 13);
        assert_eq!(known.state, 0, "somebody else wrote in between");
    }

    #[test]
    fn the_first_ping_of_a_device_finds_what_its_syncs_left() {
        let folder = FolderId { installation: Guid([1; 16]), counter: 2 };
        let token = CollectionToken { epoch: 1, number: Number(9) };
        let mut known = Known::default();
        known.folder_synced(Number(3), 0, 1);
        assert!(known.rare().no_autd, "there was nothing before");
        known.met(
            folder.installation,
            Number(3),
            Watch::new(2, Class::Email, Words::default().share("Inbox/")),
        );
        assert_eq!(known.watch_of(folder, Number(3)).map(|it| it.class()), Some(Class::Email));
        assert_eq!(known.watch_of(folder, Number(4)), None, "another hierarchy");
        known.synced(folder, &KeyState { base: Some(token), ..KeyState::default() }, 1, 2);
        assert_eq!((known.state, known.seen), (2, Some(Number(3))));
        let synced = known.rare().synced.clone().unwrap();
        let selected = synced.select([(folder, Class::Email)].into_iter()).unwrap();
        assert_eq!(selected.since(&selected.folders()[0]), Since::Token(token));
        assert!(synced.select([(FolderId { counter: 5, ..folder }, Class::Email)].into_iter()).is_none());
        let called = synced.select([(folder, Class::Notes)].into_iter()).unwrap();
        assert_eq!((called.folders()[0].class(), called.watch_of(folder)), (Class::Notes, None));
        known.synced(folder, &KeyState::default(), 3, 4);
        assert_eq!(known.state, 0, "somebody else wrote in between");
        known.folder_synced(Number(3), 5, 6);
        assert_eq!((known.state, known.seen), (6, Some(Number(3))));
        assert!(
            known.rare.is_none(),
            "what the Syncs left is of unknown age, and AutdState.xml may be there by now"
        );
    }
}
