//! The newest snapshot as the lower half of the index: single keys and scans, straight from its file.
//!
//! A snapshot never changes, so what is kept of it in memory is its list of blocks (about 50 bytes for
//! each 16 KiB) and, in a bounded cache, the blocks last used. Every block is compared with its check
//! when it is read from the file. Opening one reads its header, the list and its end: no items.
//!
//! Not here: what was written since, which lies over it (`tree`), and how snapshots are made.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Key, StoreError, Value,
    record::{Next, Salt, read_frame},
    snapshot::{BLOCK, Mark, corrupt, failed, layout, take_entry},
};

const SHARDS: usize = 8;

/// A block's entries, in order of key.
pub(crate) struct Block {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an entry's key and value lie in `bytes`; a block is far below 4 GiB.
struct Entry {
    key: Range<u32>,
    value_end: u32,
}

impl Block {
    fn decode(payload: &[u8]) -> Option<Self> {
        let mut block = Self { bytes: Vec::with_capacity(payload.len() * 2), entries: Vec::new() };
        let (mut rest, mut key) = (payload, Key::new());
        while !rest.is_empty() {
            // What was deleted is only in runs, never in a snapshot.
            let value = take_entry(&mut rest, &mut key)??;
            let start = u32::try_from(block.bytes.len()).ok()?;
            block.bytes.extend_from_slice(&key);
            let end = u32::try_from(block.bytes.len()).ok()?;
            block.bytes.extend_from_slice(value);
            let value_end = u32::try_from(block.bytes.len()).ok()?;
            block.entries.push(Entry { key: start..end, value_end });
        }
        Some(block)
    }

    fn part(&self, part: Range<u32>) -> &[u8] {
        self.bytes.get(part.start as usize..part.end as usize).unwrap_or_default()
    }

    fn key(&self, at: usize) -> Option<&[u8]> {
        self.entries.get(at).map(|entry| self.part(entry.key.clone()))
    }

    fn value(&self, at: usize) -> Option<&[u8]> {
        self.entries.get(at).map(|entry| self.part(entry.key.end..entry.value_end))
    }

    /// How many entries are below `key`.
    fn below(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|entry| self.part(entry.key.clone()) < key)
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

/// A snapshot, open for reading at any place.
pub(crate) struct Base {
    path: PathBuf,
    file: File,
    salt: Salt,
    through: u64,
    /// Each block's first key and where it lies, in order.
    marks: Vec<Mark>,
    /// Where the last block ends.
    end: u64,
    cache: Cache,
}

impl Base {
    /// Opens a snapshot; blocks of at most `cache_bytes` are kept in memory.
    ///
    /// # Errors
    /// `Corrupt` when its header, its list of blocks or its end is damaged, or it is of the first format.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| failed("read", path, error))?;
        let layout = layout(path, &file)?;
        let cache = Cache::new(cache_bytes);
        Ok(Self {
            path: path.to_owned(),
            file,
            salt: layout.header.salt,
            through: layout.header.number,
            marks: layout.marks,
            end: layout.blocks_end,
            cache,
        })
    }

    /// The position of the journal that it is made of.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        let Some(number) = self.block_of(key) else { return Ok(None) };
        let block = self.block(number)?;
        let at = block.below(key);
        Ok(block.value(at).filter(|_| block.key(at) == Some(key)).map(<[u8]>::to_vec))
    }

    /// The entries of `start <= key < end`, ascending or descending.
    pub(crate) fn cursor<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a [u8],
        reverse: bool,
    ) -> Result<Cursor<'a>, StoreError> {
        let mut cursor = Cursor { base: self, bound: if reverse { start } else { end }, reverse, held: None };
        // Going down, the first is the last one below `end`.
        let from = if reverse { end } else { start };
        if let Some(number) =
            self.block_of(from).or_else(|| (!reverse && !self.marks.is_empty()).then_some(0))
        {
            let block = self.block(number)?;
            let at = block.below(from);
            cursor.held = Some((number, block, at));
        }
        Ok(cursor)
    }

    /// The block in which a key would lie; none if that is before the first.
    fn block_of(&self, key: &[u8]) -> Option<usize> {
        self.marks.partition_point(|mark| *mark.first <= *key).checked_sub(1)
    }

    fn block(&self, number: usize) -> Result<Arc<Block>, StoreError> {
        if let Some(block) = self.cache.get(number) {
            return Ok(block);
        }
        let begin = self.marks.get(number).map_or(self.end, |mark| mark.at);
        let end = self.marks.get(number + 1).map_or(self.end, |mark| mark.at);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin)).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, begin) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(failed("read", &self.path, error));
            }
            // A block that is cut off does not check.
            _ => {}
        }
        let frame = read_frame(BLOCK, self.salt, &mut bytes.as_slice());
        let block = match frame.map_err(|error| failed("read", &self.path, error))? {
            Next::Record(found, payload) if found == number as u64 => Block::decode(&payload),
            _ => None,
        };
        let block = Arc::new(block.ok_or_else(|| corrupt(&self.path, begin, "a bad block"))?);
        self.cache.put(number, &block);
        Ok(block)
    }
}

/// A scan of a [`Base`].
pub(crate) struct Cursor<'a> {
    base: &'a Base,
    /// The end, or going down the start, of what is asked.
    bound: &'a [u8],
    reverse: bool,
    /// The block that it is in, and the entry to come; going down, the one above it.
    held: Option<(usize, Arc<Block>, usize)>,
}

impl Cursor<'_> {
    /// The next entry; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, Value)>, StoreError> {
        let last_block = self.base.marks.len().saturating_sub(1);
        while let Some((number, block, at)) = &mut self.held {
            let here = if self.reverse { at.checked_sub(1) } else { Some(*at) };
            if let Some((here, key, value)) = here.and_then(|at| Some((at, block.key(at)?, block.value(at)?)))
            {
                let within = if self.reverse { key >= self.bound } else { key < self.bound };
                if !within {
                    break;
                }
                let entry = (key.to_vec(), value.to_vec());
                *at = if self.reverse { here } else { here + 1 };
                return Ok(Some(entry));
            }
            let other = match self.reverse {
                true if *number > 0 => *number - 1,
                false if *number < last_block => *number + 1,
                _ => break,
            };
            let block = self.base.block(other)?;
            let at = if self.reverse { block.entries.len() } else { 0 };
            self.held = Some((other, block, at));
        }
        self.held = None;
        Ok(None)
    }
}

#[derive(Default)]
struct Shard {
    blocks: HashMap<usize, (Arc<Block>, bool)>,
    /// Every block of `blocks` once: the next to be considered first.
    order: VecDeque<usize>,
    bytes: usize,
}

/// Blocks in memory. What was not used since it was last considered goes first.
struct Cache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
}

impl Cache {
    fn new(bytes: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), shard_bytes_max: bytes / SHARDS }
    }

    fn get(&self, number: usize) -> Option<Arc<Block>> {
        let mut shard = self.shards[number % SHARDS].lock();
        let (block, used) = shard.blocks.get_mut(&number)?;
        *used = true;
        Some(Arc::clone(block))
    }

    fn put(&self, number: usize, block: &Arc<Block>) {
        let mut shard = self.shards[number % SHARDS].lock();
        if shard.blocks.insert(number, (Arc::clone(block), false)).is_some() {
            // Another reader brought the same.
            return;
        }
        shard.order.push_back(number);
        shard.bytes += block.memory();
        while shard.bytes > self.shard_bytes_max {
            let Some(number) = shard.order.pop_front() else { return };
            match shard.blocks.get_mut(&number) {
                Some((_, used)) if *used => {
                    *used = false;
                    shard.order.push_back(number);
                }
                Some(_) => {
                    let gone = shard.blocks.remove(&number);
                    shard.bytes -= gone.map_or(0, |(block, _)| block.memory());
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::store::{disk::RealDisk, snapshot::SnapshotWriter};

    fn made(dir: &Path, entries: &BTreeMap<Key, Value>) -> PathBuf {
        let path = dir.join("some.snapshot");
        let mut writer = SnapshotWriter::create(Arc::new(RealDisk), &path, 7).unwrap();
        for (key, value) in entries {
            writer.add(key, Some(value)).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn entries(count: u32) -> BTreeMap<Key, Value> {
        let value =
            |n: u32| vec![u8::try_from(n % 256).unwrap(); if n.is_multiple_of(50) { 20_000 } else { 40 }];
        (0..count).map(|n| (format!("mailbox/{:06}", n * 3).into_bytes(), value(n))).collect()
    }

    #[test]
    fn keys_and_scans_are_those_of_a_map() {
        let dir = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        for count in [0, 1, 3, 4000] {
            let model = entries(count);
            let base = Base::open(&made(dir.path(), &model), 200_000).unwrap();
            assert_eq!(base.through(), 7);
            for _ in 0..2000 {
                let any = |random: &mut fastrand::Rng| {
                    format!("mailbox/{:06}", random.u32(..count * 3 + 9)).into_bytes()
                };
                let (start, end) = (any(&mut random), any(&mut random));
                assert_eq!(base.get(&start).unwrap(), model.get(&start).cloned());
                if start >= end {
                    continue;
                }
                let limit = random.usize(..40);
                let wanted = model.range(start.clone()..end.clone()).map(|(k, v)| (k.clone(), v.clone()));
                for reverse in [false, true] {
                    let mut cursor = base.cursor(&start, &end, reverse).unwrap();
                    let found: Vec<_> = (0..limit).map_while(|_| cursor.next().unwrap()).collect();
                    let wanted: Vec<_> = if reverse {
                        wanted.clone().rev().take(limit).collect()
                    } else {
                        wanted.clone().take(limit).collect()
                    };
                    assert_eq!(found, wanted, "{count} {reverse}");
                }
            }
            let held: usize = base.cache.shards.iter().map(|shard| shard.lock().bytes).sum();
            assert!(held <= 200_000, "{held}");
        }
    }

    #[test]
    fn damage_shows_when_it_is_read_and_where_it_counts_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let model = entries(2000);
        let path = made(dir.path(), &model);
        let bytes = fs::read(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(4);
        let mut found = [0, 0];
        for round in 0..200 {
            let mut bad = bytes.clone();
            let at =
                if round < 100 { random.usize(..bad.len()) } else { bad.len() - 1 - random.usize(..600) };
            bad[at] ^= 1 << random.u32(..8);
            fs::write(&path, bad).unwrap();
            let Ok(base) = Base::open(&path, 0) else {
                found[0] += 1;
                continue;
            };
            let mut cursor =
                base.cursor(b"", b"z", false).unwrap_or_else(|_| base.cursor(b"z", b"z", true).unwrap());
            let damage = loop {
                match cursor.next() {
                    Ok(Some((key, value))) => assert_eq!(model[&key], value),
                    Ok(None) => break None,
                    Err(damage) => break Some(damage),
                }
            };
            found[1] += u32::from(damage.is_some_and(|damage| damage.is_damage()));
        }
        assert!(found[0] > 90 && found[1] > 50, "{found:?}");
        for length in [0, 20, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(Base::open(&path, 0).err().unwrap().is_damage());
        }
    }
}
