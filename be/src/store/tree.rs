//! The index: what was written since a snapshot, in one sled tree, over that snapshot (`base`).
//!
//! | sled key | holds |
//! |---|---|
//! | `k` key | 0 and the value; 1 and the number of its pieces, as u16; or 2: deleted, whatever lies below |
//! | `p` length of key: u16, key, number: u16 | one piece of a long value |
//! | `m` "position" | the journal position up to which the tree is made, u64 |
//! | `m` "base" | the position of the snapshot below, u64; not there: none |
//!
//! So sled, whose memory, files and time to open grow with what it holds, holds what was written
//! lately, and its files go as a whole when the next snapshot takes its place below.
//!
//! sled keeps a leaf whose node passes about 128 KiB in a side file that it never syncs, and rewrites
//! a whole leaf of up to 16 entries for one change; so values are cut into pieces of 2 KiB.
//! Integers are big-endian, so that pieces lie in order. Everything here blocks.

use std::{
    cmp::Ordering,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use super::{
    Found, Key, Range, Read, StoreError, Value,
    base::{Base, Cursor},
    record::Writes,
    snapshot,
};

/// Longest value that is kept in one piece, and the length of a piece, in bytes.
const PIECE_BYTES: usize = 2048;
const POSITION: &[u8] = b"mposition";
const BASE: &[u8] = b"mbase";
const WHOLE: u8 = 0;
const PIECES: u8 = 1;
const GONE: u8 = 2;
/// sled gives its file lock up a moment after it is dropped.
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

type Outcome<T> = Result<T, sled::Error>;

/// The tree, open.
pub(crate) struct Tree {
    sled: sled::Db,
    base: Option<Base>,
}

impl Tree {
    /// Opens the tree at `path`, or an empty one, over a snapshot in `snapshots`. Of each of the two, up to
    /// half of `cache_bytes` are kept in memory.
    pub(crate) fn open(path: &Path, snapshots: &Path, cache_bytes: u64) -> Outcome<Self> {
        let sled = open_sled(path, cache_bytes / 2)?;
        let base = match number(sled.get(BASE)?) {
            0 => None,
            through => {
                let path = snapshot::path_of(snapshots, through);
                Some(Base::open(&path, half(cache_bytes)).map_err(base_failed)?)
            }
        };
        Ok(Self { sled, base })
    }

    /// Makes a tree where there is none, of all that a snapshot holds.
    pub(crate) fn create(path: &Path, base: &Path, cache_bytes: u64) -> Outcome<Self> {
        let base = Base::open(base, half(cache_bytes)).map_err(base_failed)?;
        let sled = open_sled(path, cache_bytes / 2)?;
        let mut batch = sled::Batch::default();
        let through = base.through().to_be_bytes();
        batch.insert(BASE, &through);
        batch.insert(POSITION, &through);
        guarded(|| sled.apply_batch(batch))?;
        Ok(Self { sled, base: Some(base) })
    }

    /// The journal position up to which the tree is made.
    pub(crate) fn position(&self) -> Outcome<u64> {
        Ok(number(self.sled.get(POSITION)?))
    }

    /// The position of the snapshot below; 0 without one.
    pub(crate) fn base(&self) -> u64 {
        self.base.as_ref().map_or(0, Base::through)
    }

    /// Whether it holds no key.
    pub(crate) fn is_empty(&self) -> Outcome<bool> {
        guarded(|| Ok(self.sled.iter().next().transpose()?.is_none()))
    }

    /// What `apply` will write: done apart, since it reads.
    pub(crate) fn stage(&self, position: u64, writes: &Writes) -> Outcome<sled::Batch> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            let head_key = head_key(key);
            let had = self.sled.get(&head_key)?.map_or(0, |head| pieces_of(&head).unwrap_or(0));
            let have = match value {
                None if self.base.is_some() => {
                    batch.insert(head_key, &[GONE]);
                    0
                }
                None => {
                    batch.remove(head_key);
                    0
                }
                Some(value) => insert(&mut batch, key, value),
            };
            for number in have..had {
                batch.remove(piece_key(key, number));
            }
        }
        batch.insert(POSITION, &position.to_be_bytes());
        Ok(batch)
    }

    /// Makes a staged batch. After an error the tree may hold a part of it: open it again.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Outcome<()> {
        guarded(|| self.sled.apply_batch(batch))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Outcome<Option<Value>> {
        match (self.sled.get(head_key(key))?, &self.base) {
            (Some(head), _) => self.value(key, &head),
            (None, Some(base)) => base.get(key).map_err(base_failed),
            (None, None) => Ok(None),
        }
    }

    /// Answers a batch; the caller sees to it that nothing is applied meanwhile.
    pub(crate) fn read(&self, read: &Read) -> Outcome<Found> {
        guarded(|| {
            let gets = read.gets.iter().map(|key| self.get(key)).collect::<Outcome<_>>()?;
            let ranges = read.ranges.iter().map(|range| self.scan(range)).collect::<Outcome<_>>()?;
            Ok(Found { gets, ranges })
        })
    }

    /// Hands sled's buffers to the operating system, so that less is replayed after a crash.
    pub(crate) fn flush(&self) -> Outcome<()> {
        guarded(|| self.sled.flush().map(|_| ()))
    }

    fn scan(&self, range: &Range) -> Outcome<Vec<(Key, Value)>> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let mut hits = self.sled.range(head_key(&range.start)..head_key(&range.end));
        let mut upper = || {
            let hit = if range.reverse { hits.next_back() } else { hits.next() };
            let entry = |(head_key, head): (sled::IVec, sled::IVec)| -> Outcome<(Key, Option<Value>)> {
                let key = head_key.get(1..).unwrap_or_default().to_vec();
                let value = self.value(&key, &head)?;
                Ok((key, value))
            };
            hit.transpose()?.map(entry).transpose()
        };
        let base = self.base.as_ref();
        let mut lower = base.map(|base| base.cursor(&range.start, &range.end, range.reverse)).transpose();
        let mut lower = || match &mut lower {
            Ok(cursor) => cursor.as_mut().map_or(Ok(None), Cursor::next).map_err(base_failed),
            Err(failure) => Err(base_failed(failure.clone())),
        };
        let (mut ours, mut below) = (upper()?, lower()?);
        let mut found = Vec::new();
        while found.len() < range.limit {
            let order = match (&ours, &below) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((other, _))) if range.reverse => other.cmp(key),
                (Some((key, _)), Some((other, _))) => key.cmp(other),
            };
            if order == Ordering::Greater {
                found.extend(std::mem::replace(&mut below, lower()?));
                continue;
            }
            if order == Ordering::Equal {
                below = lower()?;
            }
            if let Some((key, Some(value))) = std::mem::replace(&mut ours, upper()?) {
                found.push((key, value));
            }
        }
        Ok(found)
    }

    /// What a head says; none: deleted.
    fn value(&self, key: &[u8], head: &[u8]) -> Outcome<Option<Value>> {
        if head == [GONE] {
            return Ok(None);
        }
        let Some(pieces) = pieces_of(head) else {
            return Ok(Some(head.get(1..).unwrap_or_default().to_vec()));
        };
        let mut value = Vec::with_capacity(usize::from(pieces) * PIECE_BYTES);
        for number in 0..pieces {
            let piece = self.sled.get(piece_key(key, number))?;
            value.extend_from_slice(&piece.ok_or_else(|| lost("a piece of a value is missing"))?);
        }
        Ok(Some(value))
    }
}

fn open_sled(path: &Path, cache_bytes: u64) -> Outcome<sled::Db> {
    remove_unfinished_snapshots(path)?;
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    for _ in 0..OPEN_ATTEMPTS {
        match guarded(|| config.open()) {
            Err(sled::Error::Io(error)) if is_locked(&error) => thread::sleep(OPEN_PAUSE),
            opened => return opened,
        }
    }
    guarded(|| config.open())
}

fn half(bytes: u64) -> usize {
    usize::try_from(bytes / 2).unwrap_or(usize::MAX)
}

fn number(bytes: Option<sled::IVec>) -> u64 {
    bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// A failure of the snapshot below, as sled would tell it. One that is gone is damage.
fn base_failed(failure: StoreError) -> sled::Error {
    let code = match &failure {
        StoreError::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => source.raw_os_error(),
        _ => None,
    };
    sled::Error::Io(code.map_or_else(|| io::Error::other(failure), io::Error::from_raw_os_error))
}

/// sled writes its snapshot as `snap.<lsn>.generating`, then renames it. It takes one that a crash or
/// a full disk has left unfinished for the newest snapshot, and the store for corrupt.
fn remove_unfinished_snapshots(path: &Path) -> Outcome<()> {
    // No directory, nothing in it.
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Adds a key to a batch; answers in how many pieces.
fn insert(batch: &mut sled::Batch, key: &[u8], value: &[u8]) -> u16 {
    if value.len() <= PIECE_BYTES {
        batch.insert(head_key(key), [&[WHOLE], value].concat());
        return 0;
    }
    let mut have = 0_u16;
    for piece in value.chunks(PIECE_BYTES) {
        batch.insert(piece_key(key, have), piece);
        have += 1;
    }
    batch.insert(head_key(key), [&[PIECES], have.to_be_bytes().as_slice()].concat());
    have
}

fn head_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

/// Where piece `number` of a value lies. The length in front keeps the pieces of a key from looking
/// like those of a longer one.
fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    [b"p".as_slice(), &length.to_be_bytes(), key, &number.to_be_bytes()].concat()
}

/// The number of pieces of a value that lies in pieces.
fn pieces_of(head: &[u8]) -> Option<u16> {
    match head {
        [PIECES, count @ ..] => count.try_into().ok().map(u16::from_be_bytes),
        _ => None,
    }
}

/// Calls sled, which panics on some damage and on some failures of the disk.
fn guarded<T>(call: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(lost("sled panicked")))
}

fn lost(what: &str) -> sled::Error {
    sled::Error::ReportableBug(what.to_owned())
}

/// sled wraps the refusal of its lock in an error of its own making.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("WouldBlock")
}

/// Whether the fault lies in sled's files, or in the disk below them, and a rebuilt index would be free of
/// it; otherwise it is the disk's space, or a permission.
pub(crate) fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => {
            (error.raw_os_error().is_none() || super::error::is_unreadable(error))
                && !is_locked(error)
                && !super::error::is_full(error)
                && error.kind() != io::ErrorKind::PermissionDenied
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_shrinks_leaves_no_pieces_behind() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path(), dir.path(), 1024 * 1024).unwrap();
        // The head and the position, and as many pieces as the value needs.
        for (position, (length, entries)) in
            [(65_536, 34), (4097, 5), (4096, 4), (2048, 2), (9000, 7), (0, 2)].into_iter().enumerate()
        {
            let writes = [(b"k".to_vec(), Some(vec![1; length]))].into();
            tree.apply(tree.stage(position as u64, &writes).unwrap()).unwrap();
            assert_eq!(tree.get(b"k").unwrap(), Some(vec![1; length]));
            assert_eq!(tree.sled.iter().count(), entries, "{length} bytes");
        }
        tree.apply(tree.stage(9, &[(b"k".to_vec(), Some(vec![1; 9000]))].into()).unwrap()).unwrap();
        tree.apply(tree.stage(10, &[(b"k".to_vec(), None)].into()).unwrap()).unwrap();
        assert_eq!(tree.sled.iter().count(), 1);
        assert_eq!(tree.position().unwrap(), 10);
    }

    #[test]
    fn what_is_written_lies_over_the_snapshot_and_both_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = |n: u32| format!("key/{n:05}").into_bytes();
        let path = snapshot::path_of(dir.path(), 5);
        let disk = std::sync::Arc::new(crate::store::disk::RealDisk);
        let mut writer = snapshot::SnapshotWriter::create(disk, &path, 5).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for n in (0..2000).step_by(2) {
            let value = vec![1; if n % 100 == 0 { 5000 } else { 30 }];
            writer.add(&key(n), Some(&value)).unwrap();
            model.insert(key(n), value);
        }
        writer.finish().unwrap();
        let index = dir.path().join("index");
        let mut tree = Tree::create(&index, &path, 1024 * 1024).unwrap();
        assert_eq!((tree.position().unwrap(), tree.base()), (5, 5));
        let mut random = fastrand::Rng::with_seed(2);
        for round in 6..300_u32 {
            let mut writes = Writes::new();
            for _ in 0..5 {
                let length = if random.u8(..10) == 0 { 5000 } else { 20 };
                let value = random.bool().then(|| vec![2; length]);
                writes.insert(key(random.u32(..2000)), value);
            }
            tree.apply(tree.stage(round.into(), &writes).unwrap()).unwrap();
            for (key, value) in writes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            if round % 100 == 0 {
                drop(tree);
                tree = Tree::open(&index, dir.path(), 1024 * 1024).unwrap();
                assert_eq!((tree.position().unwrap(), tree.base()), (round.into(), 5));
            }
            let (start, end) = (key(random.u32(..2000)), key(random.u32(..2000)));
            let range =
                Range { start: start.clone(), end: end.clone(), limit: random.usize(..60), reverse: false };
            let read =
                Read::default().get(start.clone()).range(range.clone()).range(range.clone().reversed());
            let found = tree.read(&read).unwrap();
            assert_eq!(found.gets[0], model.get(&start).cloned());
            let entries: Vec<_> = if start < end {
                model.range(start..end).map(|(k, v)| (k.clone(), v.clone())).collect()
            } else {
                vec![]
            };
            assert_eq!(found.ranges[0], entries[..range.limit.min(entries.len())]);
            let backwards: Vec<_> = entries.into_iter().rev().take(range.limit).collect();
            assert_eq!(found.ranges[1], backwards);
        }
        let all = Read::default().range(Range::prefix(b"key", usize::MAX));
        assert_eq!(tree.read(&all).unwrap().ranges[0], model.into_iter().collect::<Vec<_>>());
        drop(tree);
        fs::remove_file(&path).unwrap();
        assert!(is_damage(&Tree::open(&index, dir.path(), 1024 * 1024).err().unwrap()), "half of it is gone");
    }
}
