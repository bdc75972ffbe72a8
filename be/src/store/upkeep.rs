//! The helper beside the committer: snapshots, the index over them, and trimming what they cover.
//!
//! Once the journal behind the newest snapshot is as long as an eighth of what is live, and 16 MiB at
//! least and 48 at most, the committer ends its segment, and the helper merges the snapshot with the journal up to there into a new one
//! (`merge`), at a bounded pace. When that is durable and has been read back from the disk, the helper
//! makes an empty index over it, brings it up to date, and the committer changes over; the old index
//! goes as a whole. No commit waits for any of it.
//!
//! The snapshot before the newest stays, with the journal behind it: whichever file is damaged, the
//! others hold everything. So all of it takes about twice what is live, as much again as is due some
//! times over for journal and index, and what is live once more while a snapshot is being made.
//!
//! Everything here blocks, on a thread of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::{
    StoreError, StoreOptions,
    engine::{Engine, Shared, catch_up_beside},
    journal,
    merge::{Merge, Parts},
    place::Place,
    sled_index::Request,
    snapshot::{self, SnapshotReader, SnapshotWriter, Summary},
    tree::Tree,
};

/// A snapshot is due when the journal behind the newest is such a part of what is live.
const LIVE_TO_JOURNAL: u64 = 8;

/// But at the latest when it is so many times the least: a start replays or opens what is behind it.
const DUE_MAX: u64 = 3;

/// How many snapshots are kept.
const KEPT: usize = 2;

/// Something for the helper to do.
pub(crate) enum Chore {
    /// The journal has grown: see whether a snapshot is due.
    Consider,
    /// A snapshot is wanted now.
    Snapshot(oneshot::Sender<Result<Summary, StoreError>>),
    Stop,
}

/// The helper as the committer holds it.
pub(crate) struct Helper {
    pub(crate) chores: Sender<Chore>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Helper {
    pub(crate) fn start(engine: &Engine, committer: Weak<Sender<Request>>) -> Result<Self, StoreError> {
        let (chores, inbox) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            place: engine.place(),
            options: engine.options(),
            shared: engine.shared(),
            committer,
            pace: Pace::new(engine.options().snapshot_bytes_per_sec, Arc::clone(&stopping)),
            again_at: 0,
        };
        let thread = thread::Builder::new()
            .name("store-upkeep".to_owned())
            .spawn(move || keeper.run(&inbox))
            .map_err(|error| StoreError::io("start the store's helper", error))?;
        Ok(Self { chores, stopping, thread })
    }

    /// Lets it see whether there is something to do.
    pub(crate) fn poke(&self) {
        let _ = self.chores.send(Chore::Consider);
    }

    /// Ends it, in the middle of whatever it does.
    pub(crate) fn stop(self) {
        self.stopping.store(true, SeqCst);
        let _ = self.chores.send(Chore::Stop);
        if self.thread.join().is_err() {
            error!("the store's helper has died");
        }
    }
}

struct Keeper {
    place: Arc<Place>,
    options: StoreOptions,
    shared: Arc<Shared>,
    committer: Weak<Sender<Request>>,
    pace: Pace,
    /// After a failure: how long the journal must be before the next attempt, in bytes.
    again_at: u64,
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Chore>) {
        loop {
            let chore = if self.shared.overgrown.load(SeqCst) {
                // Nobody commits, so nobody asks.
                inbox.recv_timeout(self.options.snapshot_retry)
            } else {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match chore {
                Ok(Chore::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Chore::Snapshot(waiter)) => {
                    let _ = waiter.send(self.take());
                }
                Ok(Chore::Consider) => self.try_to_consider(),
                Err(RecvTimeoutError::Timeout) => {
                    self.again_at = 0;
                    self.try_to_consider();
                }
            }
        }
    }

    fn try_to_consider(&mut self) {
        match self.consider() {
            Ok(()) | Err(StoreError::Stopped) => {}
            Err(damage @ StoreError::Corrupt { .. }) => {
                error!(%damage, "no snapshot can be made any more; the index still answers");
            }
            Err(failure) => warn!(%failure, "no snapshot could be made; the journal grows on"),
        }
    }

    fn consider(&mut self) -> Result<(), StoreError> {
        let snapshots = snapshot::list(&self.place.snapshots())?;
        let newest = snapshots.last();
        // One whose end cannot be read is found damaged when it is merged.
        let live =
            newest.and_then(|(_, path)| snapshot::summary(path).ok()).map_or(0, |found| found.live_bytes);
        let journal = journal_bytes(&self.place.journal(), newest.map_or(0, |(through, _)| *through))?;
        let due = (live / LIVE_TO_JOURNAL)
            .min(self.options.snapshot_bytes.saturating_mul(DUE_MAX))
            .max(self.options.snapshot_bytes);
        if journal < due.max(self.again_at) {
            return Ok(());
        }
        let taken = self.take();
        self.again_at = if taken.is_ok() { 0 } else { journal.saturating_add(due / 2) };
        if let Err(failure) = &taken
            && journal >= self.options.journal_bytes_max
            && !matches!(failure, StoreError::Stopped)
            && !self.shared.overgrown.swap(true, SeqCst)
        {
            error!(journal, "the journal must not grow on: no commit is taken before a snapshot is made");
        }
        taken.map(|_| ())
    }

    /// Makes a snapshot of everything committed so far, then trims.
    fn take(&mut self) -> Result<Summary, StoreError> {
        let through = self.roll()?;
        let summary = self.write(through)?;
        if self.shared.overgrown.swap(false, SeqCst) {
            info!("a snapshot is made: commits are taken again");
        }
        match self.rebase(through) {
            Ok(()) | Err(StoreError::Stopped) => {}
            Err(failure) => warn!(%failure, "the index stays over the older snapshot"),
        }
        // What is trimmed must not be needed to bring the tree up to date after a crash.
        self.shared.flush()?;
        trim(&self.place, self.shared.positions()?.1)?;
        Ok(summary)
    }

    /// Puts the index over the snapshot of a position.
    fn rebase(&mut self, through: u64) -> Result<(), StoreError> {
        if self.shared.positions()?.1 == through {
            return Ok(());
        }
        let old = self.place.index();
        let (name, path) = self.place.next_index()?;
        if let Err(failure) = self.swap(through, name, &path) {
            // Should it have been adopted by half, it is the name of one that is made anew.
            let _ = fs::remove_dir_all(&path);
            return Err(failure);
        }
        let removed = fs::remove_dir_all(&old);
        removed.map_err(|error| StoreError::io(format!("remove {}", old.display()), error))
    }

    fn swap(&mut self, through: u64, name: String, path: &Path) -> Result<(), StoreError> {
        let fail = |failure| StoreError::io("make a new index", std::io::Error::other(failure));
        let snapshot = snapshot::path_of(&self.place.snapshots(), through);
        let tree = Tree::create(path, &snapshot, self.options.cache_bytes).map_err(fail)?;
        catch_up_beside(&tree, &self.place, &self.shared)?;
        tree.flush().map_err(fail)?;
        let (waiter, answer) = oneshot::channel();
        let committer = self.committer.upgrade().ok_or(StoreError::Stopped)?;
        let request = Request::Swap(Box::new((tree, name, waiter)));
        committer.send(request).map_err(|_| StoreError::Stopped)?;
        drop(committer);
        // sled writes as it is dropped: here, where nobody waits.
        answer.blocking_recv().unwrap_or(Err(StoreError::Stopped)).map(drop)
    }

    /// Has the committer end its segment.
    fn roll(&self) -> Result<u64, StoreError> {
        let (waiter, answer) = oneshot::channel();
        let committer = self.committer.upgrade().ok_or(StoreError::Stopped)?;
        committer.send(Request::Roll(waiter)).map_err(|_| StoreError::Stopped)?;
        drop(committer);
        answer.blocking_recv().unwrap_or(Err(StoreError::Stopped))
    }

    fn write(&mut self, through: u64) -> Result<Summary, StoreError> {
        let mut bases = snapshot::list(&self.place.snapshots())?;
        let mut damaged = Vec::new();
        loop {
            let base = bases.pop();
            let made = match &base {
                Some((at, path)) if *at == through => {
                    // Whoever made it may have been killed before its name was durable.
                    settle(&self.place, path)
                        .and_then(|()| read_back(path, &mut |bytes| self.pace.spend(bytes)))
                }
                base => write(&self.place, &self.options, base.as_ref(), through, &mut |bytes| {
                    self.pace.spend(bytes)
                }),
            };
            match (made, base) {
                (Err(damage), Some((at, path))) if is_damage_of(&damage, &path) => {
                    error!(%damage, "a snapshot is damaged; trying the one before it");
                    // The new one takes the place of one of the same position.
                    damaged.extend((at != through).then_some(path));
                }
                (made, _) => {
                    let made = made?;
                    damaged.iter().try_for_each(|path| snapshot::set_aside(&*self.place.disk, path))?;
                    return Ok(made);
                }
            }
        }
    }
}

/// Writes the snapshot of a position, out of an older one and the journal, and reads it back.
pub(crate) fn write(
    place: &Place,
    options: &StoreOptions,
    base: Option<&(u64, PathBuf)>,
    through: u64,
    each: &mut dyn FnMut(u64) -> Result<(), StoreError>,
) -> Result<Summary, StoreError> {
    let dir = place.snapshots();
    let parts = Parts {
        base: base.map(|(at, path)| (*at, path.as_path())),
        journal: &place.journal(),
        through,
        scratch: &dir,
        memory_bytes: options.snapshot_memory_bytes,
        disk: Arc::clone(&place.disk),
    };
    let mut merge = Merge::begin(parts, &mut *each)?;
    let path = snapshot::path_of(&dir, through);
    let mut writer = SnapshotWriter::create(Arc::clone(&place.disk), &path, through)?;
    while let Some((key, value)) = merge.next()? {
        each(writer.add(&key, Some(&value))?)?;
    }
    let written = writer.finish()?;
    match read_back(&path, each) {
        Ok(found) if found == written => {
            info!(through, entries = written.entries, live_bytes = written.live_bytes, "made a snapshot");
            Ok(written)
        }
        verified => {
            let _ = place.disk.remove(&path);
            let what = "it does not read back as it was written";
            Err(verified.err().unwrap_or(StoreError::Corrupt { path, offset: 0, what }))
        }
    }
}

/// Reads a durable snapshot from the disk: what the machine's memory has of it says nothing of what was
/// written. Where the file system cannot forget that, its word is taken.
fn read_back(
    path: &Path,
    each: &mut dyn FnMut(u64) -> Result<(), StoreError>,
) -> Result<Summary, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io(format!("read {}", path.display()), error))?;
    if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed) {
        debug!(%error, "a snapshot is read back from memory");
    }
    SnapshotReader::open(path)?.verify(each)
}

/// Whether it is that file that is damaged, or cannot be read.
fn is_damage_of(failure: &StoreError, file: &Path) -> bool {
    match failure {
        StoreError::Corrupt { path, .. } => path == file,
        StoreError::Io { doing, .. } => {
            failure.is_damage() && doing.ends_with(file.to_string_lossy().as_ref())
        }
        _ => false,
    }
}

/// Makes a snapshot last, and its name.
fn settle(place: &Place, path: &Path) -> Result<(), StoreError> {
    let synced = place.disk.open(path).and_then(|file| file.sync_data());
    let synced = synced.and_then(|()| place.disk.sync_dir(&place.snapshots()));
    synced.map_err(|error| StoreError::io(format!("sync {}", path.display()), error))
}

/// Removes what the two newest snapshots make superfluous, but nothing that the index, over the snapshot
/// `base`, needs. Of the two the older is there in case the newer is damaged; where there is but one, the
/// journal from its beginning is.
fn trim(place: &Place, base: u64) -> Result<(), StoreError> {
    let (dir, journal) = (place.snapshots(), place.journal());
    // Nothing goes that a name not yet durable is to replace.
    let synced = place.disk.sync_dir(&dir);
    synced.map_err(|error| StoreError::io(format!("sync {}", dir.display()), error))?;
    let snapshots = snapshot::list(&dir)?;
    let Some(at) = snapshots.len().checked_sub(KEPT) else { return Ok(()) };
    let (keep, _) = snapshots[at];
    let keep = if base == 0 { keep } else { keep.min(base) };
    // The journal goes first: what is before a snapshot is only of use with an older one.
    journal::trim(&journal, &*place.disk, keep)?;
    for (_, path) in snapshots.iter().take_while(|(through, _)| *through < keep) {
        debug!(snapshot = %path.display(), "no longer needed");
        let removed = place.disk.remove(path).and_then(|()| place.disk.sync_dir(&dir));
        removed.map_err(|error| StoreError::io(format!("remove {}", path.display()), error))?;
    }
    Ok(())
}

/// The length of the segments that begin after a position.
pub(crate) fn journal_bytes(dir: &Path, after: u64) -> Result<u64, StoreError> {
    let segments = journal::segments(dir)?;
    let newer = segments.iter().filter(|(first, _)| *first > after);
    Ok(newer.map(|(_, path)| fs::metadata(path).map_or(0, |found| found.len())).sum())
}

/// Bounds how fast something in the background goes on, and ends it when the store closes.
struct Pace {
    bytes_per_sec: u64,
    stopping: Arc<AtomicBool>,
    owed_bytes: u64,
}

/// How much is done between two rests.
const STRIDE_BYTES: u64 = 256 * 1024;

impl Pace {
    fn new(bytes_per_sec: u64, stopping: Arc<AtomicBool>) -> Self {
        Self { bytes_per_sec, stopping, owed_bytes: 0 }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), StoreError> {
        if self.stopping.load(SeqCst) {
            return Err(StoreError::Stopped);
        }
        self.owed_bytes += bytes;
        if self.bytes_per_sec > 0 && self.owed_bytes >= STRIDE_BYTES {
            let millis = self.owed_bytes * 1000 / self.bytes_per_sec;
            thread::sleep(Duration::from_millis(millis.min(1000)));
            self.owed_bytes = 0;
        }
        Ok(())
    }
}
