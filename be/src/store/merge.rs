//! A newer snapshot out of an older one and the journal behind it, in order and in bounded memory.
//!
//! The index has no part in it: snapshots descend from the journal alone, so no fault of the index can
//! get into them. The journal's writes are gathered in memory up to a bound; beyond it they are put
//! down as a run (a snapshot that also holds deletions), and the runs are merged with the older snapshot.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, btree_map},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Key, StoreError, Value,
    disk::Disk,
    journal,
    record::Writes,
    snapshot::{SnapshotReader, SnapshotWriter},
};

/// A place to read from: the higher its number, the newer.
enum Source {
    File(Box<SnapshotReader>),
    Memory(btree_map::IntoIter<Key, Option<Value>>),
}

impl Source {
    fn next(&mut self) -> Result<Option<(Key, Option<Value>)>, StoreError> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Memory(entries) => Ok(entries.next()),
        }
    }
}

/// The next entry of a source. Of several with one key the newest source's comes first.
type Head = (Key, Reverse<usize>, Option<Value>);

/// All keys at one position of the journal, in order.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// The next entry of each source, the lowest key first.
    heads: BinaryHeap<Reverse<Head>>,
    disk: Arc<dyn Disk>,
    runs: Vec<PathBuf>,
}

/// What a merge is made of.
pub(crate) struct Parts<'a> {
    /// The older snapshot and its position; none for an empty one at 0.
    pub(crate) base: Option<(u64, &'a Path)>,
    pub(crate) journal: &'a Path,
    /// The position that is wanted; the journal reaches it.
    pub(crate) through: u64,
    /// Where runs may be put down.
    pub(crate) scratch: &'a Path,
    /// Bytes of writes held in memory.
    pub(crate) memory_bytes: usize,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Merge {
    /// Reads the journal; `each` is told of the bytes on the way, and may stop it.
    pub(crate) fn begin(
        parts: Parts<'_>,
        mut each: impl FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let Parts { base, journal, through, scratch, memory_bytes, disk } = parts;
        let mut merge = Self { sources: Vec::new(), heads: BinaryHeap::new(), disk, runs: Vec::new() };
        if let Some((_, path)) = base {
            merge.sources.push(Source::File(Box::new(SnapshotReader::open(path)?)));
        }
        let (mut gathered, mut bytes) = (Writes::new(), 0);
        journal::read_between(journal, base.map_or(0, |(at, _)| at), through, |_, writes| {
            let more: usize = writes.iter().map(|(k, v)| 64 + k.len() + v.as_ref().map_or(0, Vec::len)).sum();
            each(more as u64)?;
            bytes += more;
            gathered.extend(writes);
            if bytes > memory_bytes {
                bytes = 0;
                merge.put_down(scratch, through, std::mem::take(&mut gathered))?;
            }
            Ok(())
        })?;
        merge.sources.push(Source::Memory(gathered.into_iter()));
        for source in 0..merge.sources.len() {
            merge.advance(source)?;
        }
        Ok(merge)
    }

    fn put_down(&mut self, scratch: &Path, through: u64, writes: Writes) -> Result<(), StoreError> {
        let path = scratch.join(format!("{}.run", self.runs.len()));
        let mut run = SnapshotWriter::create(Arc::clone(&self.disk), &path, through)?;
        for (key, value) in writes {
            run.add(&key, value.as_deref())?;
        }
        run.finish()?;
        self.sources.push(Source::File(Box::new(SnapshotReader::open(&path)?)));
        self.runs.push(path);
        Ok(())
    }

    fn advance(&mut self, source: usize) -> Result<(), StoreError> {
        if let Some((key, value)) = self.sources[source].next()? {
            self.heads.push(Reverse((key, Reverse(source), value)));
        }
        Ok(())
    }

    /// The next key that is there.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, Value)>, StoreError> {
        while let Some(Reverse((key, Reverse(source), value))) = self.heads.pop() {
            self.advance(source)?;
            while let Some(Reverse((same, Reverse(older), _))) = self.heads.peek() {
                if *same != key {
                    break;
                }
                let older = *older;
                self.heads.pop();
                self.advance(older)?;
            }
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        for path in &self.runs {
            let _ = self.disk.remove(path);
        }
    }
}
