//! The sled tree and the journal as one: opened together, rebuilt together, written in one order.
//!
//! A group of commits goes to the journal, is synced, and then goes to the tree together with its
//! position, in one batch. So the tree is at any time the journal up to some position: what is
//! missing is replayed at the next start, and a tree that is damaged or gone is made anew: an empty
//! one over the newest snapshot, and the journal behind it.
//!
//! Everything here blocks; the committer owns it, and readers share the tree through [`Shared`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::RwLock;
use tracing::{error, info, warn};

use super::{
    Found, Progress, Read, StoreError, StoreOptions, Watch,
    base::Base,
    disk::make_dir,
    hot::Hot,
    journal::{self, Journal, Unwritten},
    place::Place,
    record::Writes,
    snapshot::{self, SnapshotReader},
    tree::{Tree, is_damage},
};

/// How much of the journal is applied in one batch when it is replayed, in bytes.
const REPLAY_BYTES: usize = 1024 * 1024;
/// A new tree is caught up once so few groups are missing: the committer applies the rest.
const CAUGHT_UP: u64 = 64;
const CATCH_UPS_MAX: usize = 8;

/// What readers share with the committer.
pub(crate) struct Shared {
    /// Locked for writing while a batch is applied, so that a reader sees it whole or not at all.
    /// None: closed, or being opened again after a failure.
    tree: RwLock<Option<Tree>>,
    /// A part of what the tree holds.
    hot: Hot,
    /// The tree failed: the committer opens it again.
    pub(crate) failed: AtomicBool,
    /// And for damage in its files: the committer makes it anew.
    pub(crate) damaged: AtomicBool,
    /// No snapshot can be made, and the journal has become too long: no commit is taken until one is.
    pub(crate) overgrown: AtomicBool,
    /// Closed for good.
    pub(crate) closed: AtomicBool,
}

impl Shared {
    /// Answers a batch of gets from memory, if it can. Never waits.
    pub(crate) fn read_hot(&self, read: &Read) -> Option<Found> {
        if !read.ranges.is_empty() || self.closed.load(SeqCst) {
            return None;
        }
        let gets = self.hot.read(&read.gets)?;
        Some(Found { gets, ranges: Vec::new() })
    }

    /// Answers a batch from one state of the tree.
    pub(crate) fn read(&self, read: &Read) -> Result<Found, StoreError> {
        let tree = self.tree.read();
        let Some(tree) = tree.as_ref() else { return Err(self.down()) };
        let found = tree.read(read).map_err(|failure| {
            self.note(&failure);
            failed("read the index", failure)
        })?;
        self.hot.learn(&read.gets, &found.gets);
        Ok(found)
    }

    /// The position up to which the tree is made, and that of the snapshot below it.
    pub(crate) fn positions(&self) -> Result<(u64, u64), StoreError> {
        let tree = self.tree.read();
        let Some(tree) = tree.as_ref() else { return Err(self.down()) };
        let made = tree.position().map_err(|failure| failed("read the index", failure))?;
        Ok((made, tree.base()))
    }

    /// Hands what sled holds back to the operating system, if the tree is there.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let tree = self.tree.read();
        let Some(tree) = tree.as_ref() else { return Err(self.down()) };
        tree.flush().map_err(|failure| {
            self.note(&failure);
            failed("flush the index", failure)
        })
    }

    /// Takes the tree away, as a failure does.
    #[cfg(test)]
    pub(crate) fn lose_tree(&self) {
        *self.tree.write() = None;
        self.hot.clear();
        self.failed.store(true, SeqCst);
    }

    fn down(&self) -> StoreError {
        if self.closed.load(SeqCst) {
            return StoreError::Stopped;
        }
        failed("read the index", "it is being repaired")
    }

    /// Notes a failure of the tree for `repair`; called with the tree locked, so that it is not noted
    /// of the next one.
    fn note(&self, failure: &sled::Error) {
        if is_damage(failure) && !self.damaged.swap(true, SeqCst) {
            error!(%failure, "the index is damaged; it will be rebuilt from the journal");
        }
        self.failed.store(true, SeqCst);
    }
}

/// A failure of the open tree: never `Full`, which would say that nothing was written.
fn failed(doing: &str, failure: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::io(doing, std::io::Error::other(failure))
}

/// A failure to open or close the tree.
fn not_opened(doing: &str, failure: sled::Error) -> StoreError {
    match failure {
        sled::Error::Io(failure) => StoreError::io(doing, failure),
        failure => failed(doing, failure),
    }
}

/// The tree, the journal and their place.
pub(crate) struct Engine {
    place: Arc<Place>,
    options: StoreOptions,
    journal: Journal,
    shared: Arc<Shared>,
    /// Journal bytes since the tree was last flushed.
    unflushed_bytes: u64,
}

impl Engine {
    pub(crate) fn open(place: Arc<Place>, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_watched(place, options, Trust::Snapshots, &mut |_| ())
    }

    /// The same, telling how far it is.
    pub(crate) fn open_watched(
        place: Arc<Place>,
        options: StoreOptions,
        trust: Trust,
        watch: Watch<'_>,
    ) -> Result<Self, StoreError> {
        // sled needs space to open; the reserve is there for it.
        place.release_reserve();
        // Here and at no later repair: the helper may be making others by then.
        make_dir(&*place.disk, &place.snapshots())?;
        snapshot::remove_unfinished(&place.snapshots(), &*place.disk)?;
        let (tree, journal) = open_both(&place, &options, false, trust, watch)?;
        place.remove_stale_indexes()?;
        if let Err(failure) = place.keep_reserve(options.reserve_bytes) {
            warn!(%failure, "no space for the reserve: the store refuses commits until there is");
        }
        let shared = Arc::new(Shared {
            tree: RwLock::new(Some(tree)),
            hot: Hot::new(options.hot_bytes),
            failed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            overgrown: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        Ok(Self { place, options, journal, shared, unflushed_bytes: 0 })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }

    pub(crate) fn options(&self) -> StoreOptions {
        self.options
    }

    /// Ends a segment of the journal: everything so far is in the older ones. Answers the position.
    pub(crate) fn roll(&mut self) -> Result<u64, StoreError> {
        self.repair()?;
        let position = self.journal.roll()?;
        self.place.unsure.store(false, SeqCst);
        Ok(position)
    }

    /// Opens the tree again if it failed; makes it anew if it is damaged.
    pub(crate) fn repair(&mut self) -> Result<(), StoreError> {
        match self.shared.damaged.load(SeqCst) {
            false if !self.shared.failed.load(SeqCst) => Ok(()),
            damaged => self.reopen(damaged),
        }
    }

    /// Puts a tree over a newer snapshot in the place of the one in use, and answers that. The new one is
    /// the journal up to a position that is not long past.
    pub(crate) fn swap(&mut self, tree: Tree, name: String) -> Result<Option<Tree>, StoreError> {
        self.repair()?;
        catch_up(&tree, &self.place, self.journal.position())?;
        tree.flush().map_err(|failure| not_opened("flush the new index", failure))?;
        self.place.adopt_index(name)?;
        // Both hold the same: what is known of hot keys stays true.
        Ok(self.shared.tree.write().replace(tree))
    }

    /// Sees, before a group, that there is space to apply what the journal will have taken.
    pub(crate) fn keep_reserve(&self) -> Result<(), StoreError> {
        if self.shared.overgrown.load(SeqCst) {
            return Err(StoreError::Full);
        }
        self.place.keep_reserve(self.options.reserve_bytes)
    }

    /// The value of a key in the state that all earlier groups have made.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.shared.hot.get(key) {
            return Ok(value);
        }
        let tree = self.shared.tree.read();
        let Some(tree) = tree.as_ref() else { return Err(self.shared.down()) };
        tree.get(key).map_err(|failure| {
            self.shared.note(&failure);
            failed("read the index", failure)
        })
    }

    /// Makes a group: durable first, then visible. Answers how much the journal grew, in bytes.
    pub(crate) fn make(&mut self, writes: &Writes) -> Result<u64, StoreError> {
        let (position, bytes) = self.journal.append(writes).map_err(|unwritten| match unwritten {
            Unwritten::Not(error) => error,
            Unwritten::Unknown(error) => {
                self.place.unsure.store(true, SeqCst);
                failed("write the journal", error)
            }
        })?;
        self.place.unsure.store(false, SeqCst);
        if !self.apply(position, writes) {
            // The replay of a repair applies this group too. If it cannot, a later one does.
            self.repair().map_err(|failure| failed("apply a commit", failure))?;
        }
        self.unflushed_bytes += bytes;
        if self.unflushed_bytes >= self.options.checkpoint_bytes {
            self.checkpoint();
        }
        Ok(bytes)
    }

    /// Brings a group into the tree; otherwise the tree is away and noted as failed.
    fn apply(&self, position: u64, writes: &Writes) -> bool {
        let staged = self.shared.tree.read().as_ref().map(|tree| tree.stage(position, writes));
        let mut tree = self.shared.tree.write();
        let applied = match (staged, tree.as_ref()) {
            (Some(Ok(batch)), Some(tree)) => tree.apply(batch),
            (Some(Err(failure)), _) => Err(failure),
            _ => return false,
        };
        if let Err(failure) = &applied {
            error!(%failure, position, "the index failed behind the journal; opening it again");
            self.shared.note(failure);
            // A part of the batch may be in the tree: nobody may look at it.
            *tree = None;
        } else {
            self.shared.hot.write(writes);
        }
        applied.is_ok()
    }

    /// Bounds what is replayed after a crash. Makes nothing durable: the journal is.
    pub(crate) fn checkpoint(&mut self) {
        if self.unflushed_bytes == 0 {
            return;
        }
        self.unflushed_bytes = 0;
        if let Some(tree) = self.shared.tree.read().as_ref()
            && let Err(failure) = tree.flush()
        {
            warn!(%failure, "the index could not be flushed");
            self.shared.note(&failure);
        }
    }

    /// Opens tree and journal again after a failure; the reserve makes room for it on a full disk.
    fn reopen(&mut self, damaged: bool) -> Result<(), StoreError> {
        self.place.release_reserve();
        if !damaged && self.shared.tree.read().is_some() {
            // As long as nothing can be written, no other tree can be opened: this one may still answer.
            self.place.mark_open()?;
        }
        *self.shared.tree.write() = None;
        self.shared.failed.store(true, SeqCst);
        let (opened, journal) =
            open_both(&self.place, &self.options, damaged, Trust::Snapshots, &mut |_| ())?;
        self.journal = journal;
        self.place.unsure.store(false, SeqCst);
        let mut tree = self.shared.tree.write();
        // What was replayed may be a commit that it does not know of.
        self.shared.hot.clear();
        *tree = Some(opened);
        self.shared.damaged.store(false, SeqCst);
        self.shared.failed.store(false, SeqCst);
        info!(position = self.journal.position(), "the index is open again");
        Ok(())
    }

    /// Flushes and syncs the tree, and lets go of it.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.shared.closed.store(true, SeqCst);
        let tree = self.shared.tree.write().take();
        if self.shared.damaged.load(SeqCst) {
            return self.place.mark_suspect();
        }
        let Some(tree) = tree.filter(|_| !self.shared.failed.load(SeqCst)) else { return Ok(()) };
        self.place.release_reserve();
        tree.flush().map_err(|failure| not_opened("flush the index", failure))?;
        drop(tree);
        let closed = self.place.mark_closed();
        // For the next start; where there is no space for it, that one must do without.
        let _ = self.place.keep_reserve(self.options.reserve_bytes);
        closed
    }
}

/// What a new tree may be put over without having been read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trust {
    /// Snapshots: they were read back when they were made.
    Snapshots,
    /// Nothing: something was damaged, and it may have been the snapshot.
    Nothing,
}

/// Opens the tree and the journal and brings the tree up to date, making it anew where it cannot be
/// believed.
fn open_both(
    place: &Place,
    options: &StoreOptions,
    damaged: bool,
    trust: Trust,
    watch: Watch<'_>,
) -> Result<(Tree, Journal), StoreError> {
    // Without a journal nothing can be made of what is there, and nothing of it may go.
    if journal::segments(&place.journal())?.is_empty() {
        return Err(StoreError::Corrupt { path: place.journal(), offset: 0, what: journal::GONE });
    }
    let mut damage = damaged.then(|| "a read found it damaged".to_owned());
    if damaged {
        place.retire_index()?;
    } else if place.machine_went_down()? {
        warn!(dir = %place.dir.display(), "the machine went down with the store open; rebuilding the index");
        place.retire_index()?;
    }
    let trust = if damaged { Trust::Nothing } else { trust };
    match open_or_make(place, options, trust, &mut damage, watch) {
        Ok(opened) => {
            if let Some(aside) = place.end_retirement(damage.is_some())? {
                let why = damage.unwrap_or_default();
                error!(why, aside = %aside.display(), "the index was damaged; it was made anew");
            }
            Ok(opened)
        }
        Err(failure) => {
            if let Err(failure) = place.put_index_back() {
                warn!(%failure, "the old index stays in index.old");
            }
            Err(failure)
        }
    }
}

/// Opens what is there; where the index turns out to be damaged, says so and makes it anew.
fn open_or_make(
    place: &Place,
    options: &StoreOptions,
    trust: Trust,
    damage: &mut Option<String>,
    watch: Watch<'_>,
) -> Result<(Tree, Journal), StoreError> {
    place.mark_open()?;
    let failed = match try_open(place, options, trust, watch) {
        Err(Failure::Tree(failure)) if is_damage(&failure) => {
            error!(%failure, "the index cannot be used; making it anew");
            *damage = Some(failure.to_string());
            place.retire_index()?;
            match try_open(place, options, Trust::Nothing, watch).map_err(Failure::into_error) {
                Err(failed) => failed,
                opened => return opened,
            }
        }
        Err(failed) => failed.into_error(),
        Ok(opened) => return Ok(opened),
    };
    if matches!(failed, StoreError::Full) && can_be_made(place)? {
        warn!("no space to make the index anew; removing the old ones");
        place.remove_indexes()?;
        return try_open(place, options, Trust::Snapshots, watch).map_err(Failure::into_error);
    }
    Err(failed)
}

/// Whether the newest snapshot and the journal behind it are whole: reads all of both.
fn can_be_made(place: &Place) -> Result<bool, StoreError> {
    let newest = snapshot::list(&place.snapshots())?.pop();
    if let Some((_, path)) = &newest
        && SnapshotReader::open(path).and_then(|reader| reader.verify(|_| Ok(()))).is_err()
    {
        return Ok(false);
    }
    let after = newest.map_or(0, |(through, _)| through);
    let found = journal::check(&place.journal(), after, |_| ())?;
    Ok(found.damage.is_none() && found.first <= after.saturating_add(1) && found.last >= after)
}

enum Failure {
    Tree(sled::Error),
    /// The tree holds more than the journal: that has lost its end.
    Ahead(PathBuf),
    Store(StoreError),
}

impl Failure {
    fn into_error(self) -> StoreError {
        match self {
            Self::Tree(failure) => not_opened("open the index", failure),
            Self::Ahead(path) => StoreError::Corrupt { path, offset: 0, what: journal::ENDS_EARLY },
            Self::Store(error) => error,
        }
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        Self::Tree(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn try_open(
    place: &Place,
    options: &StoreOptions,
    trust: Trust,
    watch: Watch<'_>,
) -> Result<(Tree, Journal), Failure> {
    let snapshots = snapshot::list(&place.snapshots())?;
    let newest = snapshots.last().map_or(0, |(through, _)| *through);
    let first = journal::segments(&place.journal())?.first().map_or(u64::MAX, |(first, _)| *first);
    let mut tree = Tree::open(&place.index(), &place.snapshots(), options.cache_bytes)?;
    let mut made = tree.position()?;
    let goes_on = if made == 0 { newest == 0 && tree.is_empty()? } else { first <= made.saturating_add(1) };
    if !goes_on {
        (tree, made) = load(place, options, tree, (&snapshots, trust), first, watch)?;
    }
    let mut done = 0;
    let mut replay = Replay { tree: &tree, writes: Writes::new(), bytes: 0, position: made, failure: None };
    let journal = Journal::open(
        Path::new(&place.journal()),
        Arc::clone(&place.disk),
        options.segment_bytes,
        (made, newest),
        |position, writes| {
            done += 1;
            if done % 1000 == 0 {
                watch(Progress { phase: "journal", done, total: 0 });
            }
            replay.add(position, writes)
        },
    );
    if let Some(failure) = replay.failure.take() {
        return Err(failure.into());
    }
    let journal = journal?;
    replay.apply()?;
    if journal.position() < newest {
        let what = "it ends before the newest snapshot";
        return Err(StoreError::Corrupt { path: place.journal(), offset: 0, what }.into());
    }
    if journal.position() < made {
        return Err(Failure::Ahead(place.journal()));
    }
    if journal.position() > made {
        tree.flush()?;
        info!(from = made, to = journal.position(), "replayed the journal");
    }
    Ok((tree, journal))
}

/// Makes the tree anew over the newest snapshot that can be believed; the journal begins at `first`.
/// Answers it with its position: 0 when all of it must come from the journal.
fn load(
    place: &Place,
    options: &StoreOptions,
    tree: Tree,
    (snapshots, trust): (&[(u64, PathBuf)], Trust),
    first: u64,
    watch: Watch<'_>,
) -> Result<(Tree, u64), Failure> {
    drop(tree);
    place.retire_index()?;
    let mut damage = Vec::new();
    for (through, path) in snapshots.iter().rev() {
        if first > through.saturating_add(1) {
            break;
        }
        place.remove_index()?;
        match over(place, options, path, trust, watch) {
            Err(Failure::Store(corrupt)) if corrupt.is_damage() => {
                error!(error = %corrupt, "a snapshot is damaged; trying the one before it");
                damage.push((corrupt, path));
            }
            Ok(tree) => {
                damage.iter().try_for_each(|(_, path)| snapshot::set_aside(&*place.disk, path))?;
                return Ok((tree, *through));
            }
            Err(failed) => return Err(failed),
        }
    }
    if first == 1 {
        place.remove_index()?;
        return Ok((Tree::open(&place.index(), &place.snapshots(), options.cache_bytes)?, 0));
    }
    let what = "neither a snapshot nor the index reaches to where it begins";
    let gap = StoreError::Corrupt { path: place.journal(), offset: 0, what };
    Err(damage.into_iter().next().map_or(gap, |(corrupt, _)| corrupt).into())
}

/// An empty tree over a snapshot.
fn over(
    place: &Place,
    options: &StoreOptions,
    path: &Path,
    trust: Trust,
    watch: Watch<'_>,
) -> Result<Tree, Failure> {
    info!(snapshot = %path.display(), "making the index anew");
    snapshot::modernise(&place.disk, path)?;
    if trust == Trust::Nothing {
        let (mut done, total) = (0, std::fs::metadata(path).map_or(0, |found| found.len()));
        SnapshotReader::open(path)?.verify(|bytes| {
            done += bytes;
            watch(Progress { phase: "snapshot", done, total });
            Ok(())
        })?;
    }
    // Told apart from damage of the tree: another snapshot may do.
    drop(Base::open(path, 0)?);
    let tree = Tree::create(&place.index(), path, options.cache_bytes)?;
    tree.flush()?;
    Ok(tree)
}

/// Brings a new tree up to date, as far as the journal has been written and while commits go on.
pub(crate) fn catch_up_beside(tree: &Tree, place: &Place, shared: &Shared) -> Result<(), StoreError> {
    // What is written meanwhile becomes less each time, unless it comes as fast as it can be applied.
    for _ in 0..CATCH_UPS_MAX {
        let (made, _) = shared.positions()?;
        let had = tree.position().map_err(|failure| not_opened("read the new index", failure))?;
        if made.saturating_sub(had) < CAUGHT_UP {
            break;
        }
        catch_up(tree, place, made)?;
    }
    Ok(())
}

/// Applies the journal to a tree up to a position.
fn catch_up(tree: &Tree, place: &Place, through: u64) -> Result<(), StoreError> {
    let fail = |failure| not_opened("write the new index", failure);
    let made = tree.position().map_err(fail)?;
    let mut replay = Replay { tree, writes: Writes::new(), bytes: 0, position: made, failure: None };
    let read = journal::read_between(&place.journal(), made, through, |position, writes| {
        replay.add(position, writes)
    });
    if let Some(failure) = replay.failure.take() {
        return Err(fail(failure));
    }
    read?;
    replay.apply().map_err(fail)
}

/// Applies journal records to the tree, many at a time.
struct Replay<'a> {
    tree: &'a Tree,
    writes: Writes,
    bytes: usize,
    position: u64,
    /// What stopped it, where the journal's reader can only be told that something did.
    failure: Option<sled::Error>,
}

impl Replay<'_> {
    fn add(&mut self, position: u64, writes: Writes) -> Result<(), StoreError> {
        self.bytes +=
            writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        self.writes.extend(writes);
        self.position = position;
        if self.bytes < REPLAY_BYTES {
            return Ok(());
        }
        self.apply().map_err(|failure| {
            self.failure = Some(failure);
            StoreError::Stopped
        })
    }

    fn apply(&mut self) -> Result<(), sled::Error> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let batch = self.tree.stage(self.position, &std::mem::take(&mut self.writes))?;
        self.tree.apply(batch)
    }
}
