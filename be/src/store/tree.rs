//! The one sled tree: how keys and values lie in it. Everything here blocks.
//!
//! | sled key | holds |
//! |---|---|
//! | `k` key | 0 and the value; or 1 and the number of its pieces, as u16 |
//! | `p` length of key: u16, key, number: u16 | one piece of a long value |
//! | `m` "position" | the journal position up to which the tree is made, u64 |
//!
//! sled keeps a leaf whose node passes about 128 KiB in a side file that it never syncs, and rewrites
//! a whole leaf of up to 16 entries for one change; so values are cut into pieces of 2 KiB.
//! Integers are big-endian, so that pieces lie in order.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use super::{Found, Key, Range, Read, Value, record::Writes};

/// Longest value that is kept in one piece, and the length of a piece, in bytes.
const PIECE_BYTES: usize = 2048;
const POSITION: &[u8] = b"mposition";
const WHOLE: u8 = 0;
const PIECES: u8 = 1;
/// sled gives its file lock up a moment after it is dropped.
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

type Outcome<T> = Result<T, sled::Error>;

/// The tree, open.
pub(crate) struct Tree(sled::Db);

impl Tree {
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Outcome<Self> {
        remove_unfinished_snapshots(path)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        for _ in 0..OPEN_ATTEMPTS {
            match guarded(|| config.open()) {
                Err(sled::Error::Io(error)) if is_locked(&error) => thread::sleep(OPEN_PAUSE),
                opened => return opened.map(Self),
            }
        }
        guarded(|| config.open()).map(Self)
    }

    /// The journal position up to which the tree is made.
    pub(crate) fn position(&self) -> Outcome<u64> {
        let bytes = self.0.get(POSITION)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// Whether it holds no key.
    pub(crate) fn is_empty(&self) -> Outcome<bool> {
        guarded(|| Ok(self.0.iter().next().transpose()?.is_none()))
    }

    /// What `apply` will write: done apart, since it reads.
    pub(crate) fn stage(&self, position: u64, writes: &Writes) -> Outcome<sled::Batch> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            let head_key = head_key(key);
            let had = self.0.get(&head_key)?.map_or(0, |head| pieces_of(&head).unwrap_or(0));
            let have = match value {
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

    /// Fills an empty tree. Until the last part, which has the position, it counts as not made at all.
    pub(crate) fn fill(&self, entries: &[(Key, Value)], position: Option<u64>) -> Outcome<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            insert(&mut batch, key, value);
        }
        if let Some(position) = position {
            batch.insert(POSITION, &position.to_be_bytes());
        }
        self.apply(batch)
    }

    /// Makes a staged batch. After an error the tree may hold a part of it: open it again.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Outcome<()> {
        guarded(|| self.0.apply_batch(batch))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Outcome<Option<Value>> {
        let head = self.0.get(head_key(key))?;
        head.map(|head| self.value(key, &head)).transpose()
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
        guarded(|| self.0.flush().map(|_| ()))
    }

    fn scan(&self, range: &Range) -> Outcome<Vec<(Key, Value)>> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let hits = self.0.range(head_key(&range.start)..head_key(&range.end));
        let entry = |hit: Outcome<(sled::IVec, sled::IVec)>| {
            let (head_key, head) = hit?;
            let key = head_key.get(1..).unwrap_or_default().to_vec();
            let value = self.value(&key, &head)?;
            Ok((key, value))
        };
        if range.reverse {
            hits.rev().take(range.limit).map(entry).collect()
        } else {
            hits.take(range.limit).map(entry).collect()
        }
    }

    fn value(&self, key: &[u8], head: &[u8]) -> Outcome<Value> {
        let Some(pieces) = pieces_of(head) else {
            return Ok(head.get(1..).unwrap_or_default().to_vec());
        };
        let mut value = Vec::with_capacity(usize::from(pieces) * PIECE_BYTES);
        for number in 0..pieces {
            let piece = self.0.get(piece_key(key, number))?;
            value.extend_from_slice(&piece.ok_or_else(|| lost("a piece of a value is missing"))?);
        }
        Ok(value)
    }
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
fn is_locked(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("WouldBlock")
}

/// Whether the fault lies in sled's files, or in the disk below them, and a rebuilt index would be free of
/// it; otherwise it is the disk's space, or a permission.
pub(crate) fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => {
            (error.raw_os_error().is_none() || super::error::is_unreadable(error))
                && !is_locked(error)
                && !super::error::is_full(error)
                && error.kind() != std::io::ErrorKind::PermissionDenied
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
        let tree = Tree::open(dir.path(), 1024 * 1024).unwrap();
        // The head and the position, and as many pieces as the value needs.
        for (position, (length, entries)) in
            [(65_536, 34), (4097, 5), (4096, 4), (2048, 2), (9000, 7), (0, 2)].into_iter().enumerate()
        {
            let writes = [(b"k".to_vec(), Some(vec![1; length]))].into();
            tree.apply(tree.stage(position as u64, &writes).unwrap()).unwrap();
            assert_eq!(tree.get(b"k").unwrap(), Some(vec![1; length]));
            assert_eq!(tree.0.iter().count(), entries, "{length} bytes");
        }
        tree.apply(tree.stage(9, &[(b"k".to_vec(), Some(vec![1; 9000]))].into()).unwrap()).unwrap();
        tree.apply(tree.stage(10, &[(b"k".to_vec(), None)].into()).unwrap()).unwrap();
        assert_eq!(tree.0.iter().count(), 1);
        assert_eq!(tree.position().unwrap(), 10);
    }
}
