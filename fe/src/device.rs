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
use directpush_common::names::{DeviceKey, FolderId, UserName};
use directpush_common::numbers::Number;
use directpush_common::sync::state::KeyState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::push::Watches;

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
}

impl Known {
    /// Forgets everything that the back end could contradict.
    pub fn forget(&mut self) {
        (self.state, self.seen, self.autd, self.watches) = (0, None, None, None);
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
        if self.state != before || before == 0 {
            self.state = 0;
            return;
        }
        self.state = after;
        let Some(watches) = &mut self.watches else { return };
        if let Some(at) = watches.position(folder) {
            Arc::make_mut(watches).set_known(at, key.base, key.floor, key.is_pending());
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
    use directpush_common::names::Guid;
    use directpush_common::numbers::CollectionToken;

    use super::*;
    use crate::push::{Watch, Words};

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
}
