//! The store in memory: the model that other engines are compared with, and the engine of tests.
//!
//! Failures can be asked for, so that callers can be tested against a full disk or a failing one.

use std::{
    collections::BTreeMap,
    io, ops,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{Answer, Bodies, BodyEntry, BodyId, Commit, Found, Index, Key, Range, Read, StoreError, Value};

/// An [`Index`] in memory. The lock is held for one batch; nothing waits for a disk.
#[derive(Default)]
pub struct MemoryIndex {
    entries: RwLock<BTreeMap<Key, Value>>,
    full: AtomicBool,
    fail_next: AtomicBool,
    closed: AtomicBool,
}

impl MemoryIndex {
    /// From now on commits are answered `Full`, or are taken again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, SeqCst);
    }

    /// The next commit is answered `Io`, and not made.
    pub fn fail_next_commit(&self) {
        self.fail_next.store(true, SeqCst);
    }

    fn running(&self) -> Result<(), StoreError> {
        if self.closed.load(SeqCst) { Err(StoreError::Stopped) } else { Ok(()) }
    }

    fn read_now(&self, read: &Read) -> Result<Found, StoreError> {
        self.running()?;
        let entries = self.entries.read();
        Ok(Found {
            gets: read.gets.iter().map(|key| entries.get(key).cloned()).collect(),
            ranges: read.ranges.iter().map(|range| scan(&entries, range)).collect(),
        })
    }

    fn commit_now(&self, commit: Commit) -> Result<(), StoreError> {
        self.running()?;
        commit.check()?;
        if self.full.load(SeqCst) {
            return Err(StoreError::Full);
        }
        if self.fail_next.swap(false, SeqCst) {
            return Err(StoreError::io("commit as a test asked", io::Error::other("injected failure")));
        }
        let mut entries = self.entries.write();
        if commit.expected.iter().any(|(key, value)| entries.get(key) != value.as_ref()) {
            return Err(StoreError::Conflict);
        }
        for (key, value) in commit.writes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }
}

fn scan(entries: &BTreeMap<Key, Value>, range: &Range) -> Vec<(Key, Value)> {
    if range.start >= range.end {
        return Vec::new();
    }
    let owned = |(key, value): (&Key, &Value)| (key.clone(), value.clone());
    let hits = entries.range::<[u8], _>((
        ops::Bound::Included(range.start.as_slice()),
        ops::Bound::Excluded(range.end.as_slice()),
    ));
    if range.reverse {
        hits.rev().take(range.limit).map(owned).collect()
    } else {
        hits.take(range.limit).map(owned).collect()
    }
}

impl Index for MemoryIndex {
    fn read(&self, read: Read) -> Answer<'_, Found> {
        Box::pin(async move { self.read_now(&read) })
    }

    fn commit(&self, commit: Commit) -> Answer<'_, ()> {
        Box::pin(async move { self.commit_now(commit) })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.closed.store(true, SeqCst);
            Ok(())
        })
    }
}

/// [`Bodies`] in memory.
#[derive(Default)]
pub struct MemoryBodies {
    bodies: Mutex<BTreeMap<BodyId, (Bytes, SystemTime)>>,
    full: AtomicBool,
}

impl MemoryBodies {
    /// From now on bodies are answered `Full`, or are taken again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, SeqCst);
    }

    fn find(&self, id: BodyId) -> Result<Bytes, StoreError> {
        self.bodies.lock().get(&id).map(|(body, _)| body.clone()).ok_or(StoreError::NoBody(id))
    }
}

impl Bodies for MemoryBodies {
    fn put(&self, body: Bytes) -> Answer<'_, BodyId> {
        Box::pin(async move {
            if self.full.load(SeqCst) {
                return Err(StoreError::Full);
            }
            let id = BodyId::random()?;
            self.bodies.lock().insert(id, (body, SystemTime::now()));
            Ok(id)
        })
    }

    fn get(&self, id: BodyId) -> Answer<'_, Bytes> {
        Box::pin(async move { self.find(id) })
    }

    fn get_range(&self, id: BodyId, range: ops::Range<u64>) -> Answer<'_, Bytes> {
        Box::pin(async move {
            let body = self.find(id)?;
            let clip = |at: u64| usize::try_from(at).map_or(body.len(), |at| at.min(body.len()));
            let (start, end) = (clip(range.start), clip(range.end));
            Ok(body.slice(start..end.max(start)))
        })
    }

    fn size(&self, id: BodyId) -> Answer<'_, u64> {
        Box::pin(async move { self.find(id).map(|body| body.len() as u64) })
    }

    fn delete(&self, id: BodyId) -> Answer<'_, bool> {
        Box::pin(async move { Ok(self.bodies.lock().remove(&id).is_some()) })
    }

    fn list(&self, after: Option<BodyId>, limit: usize) -> Answer<'_, Vec<BodyEntry>> {
        Box::pin(async move {
            let start = after.map_or(ops::Bound::Unbounded, ops::Bound::Excluded);
            let bodies = self.bodies.lock();
            let hits = bodies.range((start, ops::Bound::Unbounded)).take(limit);
            Ok(hits
                .map(|(id, (body, put_at))| BodyEntry { id: *id, bytes: body.len() as u64, put_at: *put_at })
                .collect())
        })
    }
}
