//! Where the back end keeps what must last: an ordered map of bytes, and immutable bodies beside it.
//!
//! [`Index`] is one keyspace with two batch-shaped calls, so that an engine across a network stays
//! fast: a mailbox operation is at most two [`Read`]s and one [`Commit`]. [`Bodies`] keeps messages as
//! files by a fresh id; a body is put first, then the commit that names it. [`Store`] is both of one
//! engine. What every engine promises is in the traits' docs and is checked by `conformance`.
//!
//! Only this folder names sled. Not here: what keys and values mean (the mailbox model), who owns a
//! mailbox, and which bodies are still referenced.

mod backup;
mod base;
pub mod bench;
mod care;
#[cfg(test)]
mod care_tests;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash_tests;
mod disk;
mod engine;
mod error;
#[cfg(test)]
mod fault_tests;
mod files;
mod fsck;
mod hot;
mod journal;
mod memory;
mod merge;
mod place;
mod pool;
#[cfg(test)]
mod power_cut_tests;
mod record;
mod sled_index;
mod snapshot;
mod tree;
mod upkeep;
#[cfg(test)]
mod upkeep_tests;

pub use backup::{Copied, restore};
pub use care::{Usage, rebuild};
pub use error::StoreError;
pub use fsck::{Finding, References, Report, Severity, fsck};
pub use memory::{MemoryBodies, MemoryIndex};

use std::{
    fmt,
    future::Future,
    ops,
    path::Path,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;

/// A key of the index; keys are ordered as byte strings. 1 to [`KEY_BYTES_MAX`] bytes.
pub type Key = Vec<u8>;
/// A value of the index: 0 to [`VALUE_BYTES_MAX`] bytes, best under 2 KiB.
pub type Value = Vec<u8>;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, in bytes. Engines that dislike values over 2 KiB cut them into pieces by themselves.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that one commit may write: keys, values, and 16 for each write.
pub const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The answer of a store, later. Boxed, so that engines can be shared as `Arc<dyn Index>`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A bounded scan: the first `limit` keys of `start <= key < end` in the asked order.
/// A range whose end is not above its start is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Range {
    /// The lowest key that belongs to the range.
    pub start: Key,
    /// The lowest key above `start` that does not.
    pub end: Key,
    /// Most entries to answer. Choose it so that the answer fits in memory.
    pub limit: usize,
    /// Highest key first.
    pub reverse: bool,
}

impl Range {
    /// All keys that begin with `prefix`, ascending.
    pub fn prefix(prefix: &[u8], limit: usize) -> Self {
        Self { start: prefix.to_vec(), end: prefix_end(prefix), limit, reverse: false }
    }

    /// The same range, highest key first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }
}

/// The lowest key above every key that begins with `prefix`: the `end` of its range.
pub fn prefix_end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Nothing lies above a prefix of 0xFF only, but a key longer than any key does.
    vec![u8::MAX; KEY_BYTES_MAX + 1]
}

/// One question to the index.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Read {
    /// Single keys.
    pub gets: Vec<Key>,
    /// Scans.
    pub ranges: Vec<Range>,
}

impl Read {
    /// Asks for one more key.
    #[must_use]
    pub fn get(mut self, key: impl Into<Key>) -> Self {
        self.gets.push(key.into());
        self
    }

    /// Asks for one more scan.
    #[must_use]
    pub fn range(mut self, range: Range) -> Self {
        self.ranges.push(range);
        self
    }
}

/// The answer to a [`Read`]: as many gets and ranges as were asked, in the same order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// The value of each asked key, or none.
    pub gets: Vec<Option<Value>>,
    /// The entries of each asked range.
    pub ranges: Vec<Vec<(Key, Value)>>,
}

/// One change of the index, whole or not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Commit {
    /// What must hold just before the writes; none means that the key must be absent.
    pub expected: Vec<(Key, Option<Value>)>,
    /// What is written, none to delete. Of several writes to one key the last counts.
    pub writes: Vec<(Key, Option<Value>)>,
}

impl Commit {
    /// Demands that `key` hold `value` just before the writes; none demands its absence.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Key>, value: Option<Value>) -> Self {
        self.expected.push((key.into(), value));
        self
    }

    /// Writes one key.
    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes one key; deleting an absent key is no mistake.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.writes.push((key.into(), None));
        self
    }

    /// The bytes written: keys, values, and 16 for each write.
    fn bytes(&self) -> usize {
        self.writes.iter().map(|(key, value)| 16 + key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Refuses what no engine takes, before it is queued.
    fn check(&self) -> Result<(), StoreError> {
        let over = |what, bytes, bytes_max| Err(StoreError::TooLarge { what, bytes, bytes_max });
        for (key, value) in &self.writes {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return over("a key", key.len(), KEY_BYTES_MAX);
            }
            if let Some(value) = value.as_ref().filter(|value| value.len() > VALUE_BYTES_MAX) {
                return over("a value", value.len(), VALUE_BYTES_MAX);
            }
        }
        match self.bytes() {
            bytes if bytes > COMMIT_BYTES_MAX => over("a commit", bytes, COMMIT_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

/// An ordered map of byte strings, shared by many readers and writers.
///
/// Every engine promises:
/// - A commit is atomic. One `read` sees each commit whole or not at all, over all of its gets and
///   ranges: it is one point in the order of commits.
/// - A commit that was answered `Ok` is durable (it survives a power cut; not in memory, of course),
///   and every `read` that starts after the answer sees it. Nobody sees a commit before it is durable.
/// - Commits are serial: `expected` is compared with the state in which the writes are made.
/// - Nothing blocks an async worker, and queues are bounded: a caller waits instead.
/// - Dropping the future of a `commit` does not recall it: it may still be made.
///
/// Calls need a running tokio runtime.
pub trait Index: Send + Sync {
    /// Answers a batch of gets and scans from one state of the map.
    ///
    /// # Errors
    /// `Io` when the engine fails, `Stopped` after `close`.
    fn read(&self, read: Read) -> Answer<'_, Found>;

    /// Makes one change, if all that it expects holds.
    ///
    /// # Errors
    /// `Conflict`, `Full`, `ReadOnly` and `TooLarge`: nothing was written. `Io` and `Stopped`: see [`StoreError`].
    fn commit(&self, commit: Commit) -> Answer<'_, ()>;

    /// Finishes the commits that were taken, makes the next start quick, and lets go of all files.
    /// Everything after it is answered `Stopped`. A second close is no mistake.
    fn close(&self) -> Answer<'_, ()>;
}

/// The name of a body: 128 random bits, so that no two bodies ever share one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BodyId(pub [u8; 16]);

impl BodyId {
    /// A name that no body has yet.
    pub(crate) fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| StoreError::io("draw a body's id", std::io::Error::other(error.to_string())))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// The text is not the name of a body: 32 lowercase hex digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a body id is 32 lowercase hex digits")]
pub struct NotABodyId;

impl FromStr for BodyId {
    type Err = NotABodyId;

    fn from_str(text: &str) -> Result<Self, NotABodyId> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotABodyId)?;
        bytes.try_into().map(Self).map_err(|_| NotABodyId)
    }
}

/// One body as a listing shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyEntry {
    /// Its name.
    pub id: BodyId,
    /// Its length, in bytes.
    pub bytes: u64,
    /// When it was put, by the wall clock: an unreferenced body younger than the grace period may
    /// still be waiting for its commit.
    pub put_at: SystemTime,
}

/// Immutable bodies: messages as they came, and whatever else is too large for the index.
///
/// A body is there whole or not at all. Calls need a running tokio runtime and block no async worker;
/// a `put` or `delete` whose future is dropped may still be made (an unreferenced body is collected).
pub trait Bodies: Send + Sync {
    /// Keeps a body under a fresh id; it is durable when this returns.
    ///
    /// # Errors
    /// `Full`: nothing is kept.
    fn put(&self, body: Bytes) -> Answer<'_, BodyId>;

    /// A whole body.
    ///
    /// # Errors
    /// `NoBody`.
    fn get(&self, id: BodyId) -> Answer<'_, Bytes>;

    /// A part of a body, in bytes from its start; what lies beyond the end is left out.
    /// `0..n` is its beginning, for headers and previews.
    ///
    /// # Errors
    /// `NoBody`.
    fn get_range(&self, id: BodyId, range: ops::Range<u64>) -> Answer<'_, Bytes>;

    /// A body's length, in bytes.
    ///
    /// # Errors
    /// `NoBody`.
    fn size(&self, id: BodyId) -> Answer<'_, u64>;

    /// Forgets a body. Says whether there was one; a crash may bring it back.
    fn delete(&self, id: BodyId) -> Answer<'_, bool>;

    /// The next bodies after `after` by id, at most `limit`: for the collection of unreferenced ones.
    /// A body put or deleted meanwhile may be listed or not.
    fn list(&self, after: Option<BodyId>, limit: usize) -> Answer<'_, Vec<BodyEntry>>;
}

/// How far something long is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// What is being done: `snapshot`, `journal`, `index`, `bodies`, …
    pub phase: &'static str,
    /// How much of it is done, in bytes or pieces.
    pub done: u64,
    /// How much there is; 0 where nobody knows.
    pub total: u64,
}

/// Who wants to know.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// How a store on disk is opened. Sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// What is cached of the index, half of it by sled, whose real use can be several times its share.
    pub cache_bytes: u64,
    /// What is kept of the keys just read and written, to answer gets at once.
    pub hot_bytes: usize,
    /// Most index reads at once.
    pub read_threads: usize,
    /// Most body reads and writes at once. Writes wait for the disk, which merges them: more is better.
    pub body_threads: usize,
    /// Where the journal begins a new segment.
    pub segment_bytes: u64,
    /// How much of the journal may lie between two flushes of sled: what is replayed after a crash.
    pub checkpoint_bytes: u64,
    /// How much journal makes a new snapshot due, unless an eighth of what is live is more; then that, but
    /// not more than three times this.
    pub snapshot_bytes: u64,
    /// How fast a snapshot is written, in bytes per second, so that commits find the disk free. 0: no bound.
    pub snapshot_bytes_per_sec: u64,
    /// What a snapshot may hold in memory while it is made.
    pub snapshot_memory_bytes: usize,
    /// How long the journal behind the newest snapshot may become while no other can be made: then commits
    /// are answered `Full`, and a snapshot is tried every `snapshot_retry`, until one succeeds.
    pub journal_bytes_max: u64,
    /// See `journal_bytes_max`.
    pub snapshot_retry: Duration,
    /// Disk space kept back, so that a full disk never stops what the journal has taken. 0 for none.
    pub reserve_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            hot_bytes: 16 * 1024 * 1024,
            read_threads: 4,
            body_threads: 16,
            segment_bytes: journal::SEGMENT_BYTES,
            checkpoint_bytes: 16 * 1024 * 1024,
            snapshot_bytes: 16 * 1024 * 1024,
            snapshot_bytes_per_sec: 64 * 1024 * 1024,
            snapshot_memory_bytes: 32 * 1024 * 1024,
            journal_bytes_max: 4 * 1024 * 1024 * 1024,
            snapshot_retry: Duration::from_mins(1),
            reserve_bytes: 8 * 1024 * 1024,
        }
    }
}

/// An index and its bodies, of one engine. Clones share them.
#[derive(Clone)]
pub struct Store {
    /// The ordered map.
    pub index: Arc<dyn Index>,
    /// The bodies its values name.
    pub bodies: Arc<dyn Bodies>,
    /// What only an engine on disk has.
    embedded: Option<Arc<care::Embedded>>,
}

impl Store {
    /// A store in memory, gone with its last handle: for tests.
    pub fn memory() -> Self {
        let (index, bodies) = (Arc::new(MemoryIndex::default()), Arc::new(MemoryBodies::default()));
        Self { index, bodies, embedded: None }
    }

    /// Opens the store in `dir`, or makes it: the embedded engine. After a crash this replays the end
    /// of the journal; an index that is damaged, gone, or not to be trusted after a power cut is
    /// made anew: an empty one over the newest snapshot, and the journal behind that.
    ///
    /// # Errors
    /// `InUse`, `NewerFormat`, `Corrupt`, `Full`, `Io`.
    pub async fn open(dir: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_on(dir, *options, Arc::new(disk::RealDisk)).await
    }

    async fn open_on(
        dir: &Path,
        options: StoreOptions,
        disk: Arc<dyn disk::Disk>,
    ) -> Result<Self, StoreError> {
        let dir = dir.to_owned();
        let open = move || {
            let place = Arc::new(place::Place::enter(&dir, disk)?);
            let engine = engine::Engine::open(Arc::clone(&place), options)?;
            let bodies = Arc::new(files::FileBodies::open(place, options.body_threads)?);
            let index = Arc::new(sled_index::SledIndex::start(engine, options.read_threads)?);
            let embedded = care::Embedded { index: index.clone(), bodies: bodies.clone() };
            Ok(Self { index, bodies, embedded: Some(Arc::new(embedded)) })
        };
        pool::Pool::new(1).run(open).await
    }

    /// Writes a snapshot of everything committed so far and trims the journal behind it, as happens by
    /// itself when the journal has grown. Nothing to do in memory.
    ///
    /// # Errors
    /// `Full`, `Corrupt`, `Io`: nothing was trimmed. `Stopped` after `close`.
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        match &self.embedded {
            Some(embedded) => embedded.index.snapshot().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Closes the index; see [`Index::close`]. The store stays locked until its last handle is dropped.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.index.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_prefix_is_just_above_it() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert!(prefix_end(b"\xff") > vec![0xff; KEY_BYTES_MAX]);
        assert!(prefix_end(b"") > vec![0xff; KEY_BYTES_MAX]);
    }

    #[test]
    fn body_ids_read_back_and_nothing_else_does() {
        let id = BodyId([0xa7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "a7", "../../../../../../../etc/passwd_", &"A7".repeat(16), &"a7".repeat(17)] {
            assert_eq!(text.parse::<BodyId>(), Err(NotABodyId), "{text}");
        }
    }
}
