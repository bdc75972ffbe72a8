//! The keys that were just read or written, answered without a hop to a blocking thread.
//!
//! One rule keeps it true: an entry only changes while the tree is locked. The committer writes here
//! what it has just applied, before it lets go of the tree; a reader puts down what it has found
//! before it lets go. So this is at any time a part of the tree's present state.
//!
//! A batch of gets must see each commit whole or not at all, across shards: the committer makes
//! `version` odd while it writes, and a batch during which it moved is not answered from here.
//!
//! Bounded in bytes. What was not used since it was last considered goes first.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;

use super::{Key, Value, record::Writes};

const SHARDS: usize = 16;
/// Longer values are left to the tree.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// About what an entry takes beside its key and value.
const ENTRY_BYTES: usize = 112;

/// What is known of a key.
enum Held {
    Value(Option<Value>),
    /// Too long to be held.
    Elsewhere,
}

impl Held {
    fn of(value: Option<&Value>) -> Self {
        match value {
            Some(value) if value.len() > VALUE_BYTES_MAX => Self::Elsewhere,
            value => Self::Value(value.cloned()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Value(Some(value)) => value.len(),
            _ => 0,
        }
    }
}

struct Entry {
    held: Held,
    used: bool,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<[u8]>, Entry>,
    /// Every key of `entries` once: the next to be considered first.
    order: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Shard {
    fn put(&mut self, key: &[u8], held: Held, bytes_max: usize) {
        self.bytes += held.bytes();
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes -= entry.held.bytes();
            entry.held = held;
        } else {
            let key: Arc<[u8]> = key.into();
            self.bytes += key.len() + ENTRY_BYTES;
            self.order.push_back(key.clone());
            self.entries.insert(key, Entry { held, used: false });
        }
        while self.bytes > bytes_max {
            let Some(key) = self.order.pop_front() else { return };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(key);
                }
                Some(entry) => {
                    self.bytes -= key.len() + ENTRY_BYTES + entry.held.bytes();
                    self.entries.remove(&key);
                }
                None => {}
            }
        }
    }
}

/// A part of the tree's present state, in memory.
pub(crate) struct Hot {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Odd while the committer writes.
    version: AtomicU64,
    shard_bytes_max: usize,
}

impl Hot {
    /// Holds at most `bytes`; none with 0.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            version: AtomicU64::new(0),
            shard_bytes_max: bytes / SHARDS,
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        &self.shards[hash]
    }

    /// All of the asked keys as one state has them, if all are here and no commit comes between.
    pub(crate) fn read(&self, keys: &[Key]) -> Option<Vec<Option<Value>>> {
        let before = self.version.load(SeqCst);
        if before % 2 == 1 {
            return None;
        }
        let found = keys.iter().map(|key| self.get(key)).collect::<Option<Vec<_>>>()?;
        (self.version.load(SeqCst) == before).then_some(found)
    }

    /// One key, if it is here.
    #[expect(clippy::option_option, reason = "not here, known to be absent, known to be there")]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Value>> {
        let mut shard = self.shard(key).lock();
        let entry = shard.entries.get_mut(key)?;
        entry.used = true;
        match &entry.held {
            Held::Value(value) => Some(value.clone()),
            Held::Elsewhere => None,
        }
    }

    /// Puts down what was found; the caller holds the tree against commits.
    pub(crate) fn learn(&self, keys: &[Key], values: &[Option<Value>]) {
        for (key, value) in keys.iter().zip(values).filter(|_| self.shard_bytes_max > 0) {
            self.shard(key).lock().put(key, Held::of(value.as_ref()), self.shard_bytes_max);
        }
    }

    /// Puts down what was just applied; the caller holds the tree against everyone.
    pub(crate) fn write(&self, writes: &Writes) {
        if self.shard_bytes_max == 0 {
            return;
        }
        self.version.fetch_add(1, SeqCst);
        for (key, value) in writes {
            self.shard(key).lock().put(key, Held::of(value.as_ref()), self.shard_bytes_max);
        }
        self.version.fetch_add(1, SeqCst);
    }

    /// Forgets everything: the tree is another now.
    pub(crate) fn clear(&self) {
        self.version.fetch_add(1, SeqCst);
        for shard in &self.shards {
            *shard.lock() = Shard::default();
        }
        self.version.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        format!("key/{n}").into_bytes()
    }

    #[test]
    fn it_holds_what_was_last_written_or_found_and_stays_in_its_bounds() {
        let hot = Hot::new(256 * 1024);
        let mut random = fastrand::Rng::with_seed(5);
        let mut model = std::collections::BTreeMap::new();
        let mut hits = 0;
        for round in 0..20_000 {
            let key = key(random.usize(..2000));
            if round % 3 == 0 {
                let long = if round % 60 == 0 { 20_000 } else { random.usize(..300) };
                let value = (round % 4 != 0).then(|| vec![u8::try_from(round % 256).unwrap(); long]);
                hot.write(&[(key.clone(), value.clone())].into());
                model.insert(key, value);
            } else if let Some(found) = hot.read(std::slice::from_ref(&key)) {
                hits += 1;
                assert_eq!(Some(&found[0]), model.get(&key));
            } else if let Some(value) = model.get(&key) {
                hot.learn(&[key], std::slice::from_ref(value));
            }
        }
        assert!(hits > 3000, "{hits}");
        for shard in &hot.shards {
            let shard = shard.lock();
            let bytes: usize =
                shard.entries.iter().map(|(k, e)| k.len() + ENTRY_BYTES + e.held.bytes()).sum();
            assert_eq!((bytes, shard.order.len()), (shard.bytes, shard.entries.len()));
            assert!(shard.bytes <= hot.shard_bytes_max);
        }
        hot.clear();
        assert!((0..2000).all(|n| hot.read(&[key(n)]).is_none()));
    }

    /// A batch that has one key of before and one of after must show that something came between.
    #[test]
    fn what_is_forgotten_counts_as_a_change() {
        let hot = Hot::new(64 * 1024);
        let before = hot.version.load(SeqCst);
        hot.clear();
        let after = hot.version.load(SeqCst);
        assert!(after > before && after.is_multiple_of(2));
    }

    #[test]
    fn what_is_used_stays_longer() {
        let hot = Hot::new(64 * 1024);
        hot.write(&[(b"used".to_vec(), Some(vec![1]))].into());
        for n in 0..5000 {
            hot.write(&[(key(n), Some(vec![0; 50]))].into());
            assert_eq!(hot.get(b"used"), Some(Some(vec![1])), "after {n}");
        }
    }

    #[test]
    fn a_batch_sees_each_commit_whole() {
        let hot = Hot::new(1024 * 1024);
        let keys: Vec<Key> = (0..40).map(key).collect();
        let write = |round: u32| {
            hot.write(&keys.iter().map(|key| (key.clone(), Some(round.to_le_bytes().to_vec()))).collect());
        };
        write(0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut answered, mut last) = (0, 0);
                while last < 20_000 {
                    let Some(found) = hot.read(&keys) else { continue };
                    assert!(found.iter().all(|value| *value == found[0]), "a torn read");
                    let round = u32::from_le_bytes(found[0].as_deref().unwrap().try_into().unwrap());
                    assert!(round >= last);
                    last = round;
                    answered += 1;
                }
                answered
            });
            (1..=20_000).for_each(write);
            assert!(reader.join().unwrap() > 0);
        });
    }
}
