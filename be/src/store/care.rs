//! What a store on disk offers beside reads and commits: figures, backups, the collection of bodies
//! without a use, and an index made anew.

use std::{fs, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    BodyId, Progress, Range, Read, Store, StoreError, StoreOptions, Watch,
    backup::{self, Copied, QueueCopy},
    engine::{Engine, Trust},
    files::FileBodies,
    fsck::existing,
    pool::Pool,
    sled_index::SledIndex,
    snapshot, upkeep,
};

/// How often a backup takes another snapshot, when the one it was to copy has made way meanwhile.
const SNAPSHOT_ATTEMPTS: usize = 5;
/// Bodies looked at together.
const PAGE: usize = 256;
/// Bodies that may wait for their second look.
const CANDIDATES_MAX: usize = 100_000;

/// What a store on disk has beside its two traits.
pub(crate) struct Embedded {
    pub(crate) index: Arc<SledIndex>,
    pub(crate) bodies: Arc<FileBodies>,
}

/// What a store takes, in bytes of files.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Keys and values at the last snapshot; 0 before the first.
    pub live: u64,
    /// The journal.
    pub journal: u64,
    /// Snapshots.
    pub snapshot: u64,
    /// sled's files.
    pub index: u64,
    /// Bodies.
    pub bodies: u64,
}

impl Store {
    /// What the store takes; nothing in memory. Looks at each body's length: minutes for millions.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        let Some(embedded) = self.embedded.clone() else { return Ok(Usage::default()) };
        Pool::new(1)
            .run(move || {
                let place = embedded.bodies.place();
                let snapshots = snapshot::list(&place.snapshots())?;
                let newest = snapshots.last().and_then(|(_, path)| snapshot::summary(path).ok());
                Ok(Usage {
                    live: newest.map_or(0, |newest| newest.live_bytes),
                    journal: upkeep::journal_bytes(&place.journal(), 0)?,
                    snapshot: size_of(&place.snapshots()),
                    index: size_of(&place.index()),
                    bodies: size_of(&place.bodies()),
                })
            })
            .await
    }

    /// Backs the running store up into `target`, as of the moment of the call; see `backup`.
    /// Incremental where `target` holds an older backup of it.
    ///
    /// # Errors
    /// `Full`, `Corrupt`, `Io`: an older backup in `target` is still whole.
    pub async fn backup(
        &self,
        target: &Path,
        mut watch: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Copied, StoreError> {
        let Some(embedded) = self.embedded.clone() else {
            let nothing = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(StoreError::io("back up a store in memory", nothing));
        };
        let hold = embedded.bodies.hold();
        let begin = {
            let (embedded, target) = (Arc::clone(&embedded), target.to_owned());
            move || {
                let lock = backup::lock(&target)?;
                Ok((lock, QueueCopy::begin(embedded.bodies.place(), &target)?))
            }
        };
        let (lock, queue) = Pool::new(1).run(begin).await?;
        let mut attempts = 0;
        loop {
            let through = embedded.index.snapshot().await?.through;
            // Kept under another name, it stays when the next one comes.
            let dir = embedded.bodies.place().snapshots();
            // Of its own: another backup may be under way.
            let kept = dir.join(format!("{through:016x}-{}.run", BodyId::random()?));
            let path = snapshot::path_of(&dir, through);
            attempts += 1;
            let link = move || {
                fs::hard_link(&path, &kept)
                    .or_else(|_| fs::copy(&path, &kept).map(|_| ()))
                    .map(|()| kept)
                    .map_err(|error| StoreError::io("keep a snapshot for the backup", error))
            };
            match Pool::new(1).run(link).await {
                Err(_) if attempts < SNAPSHOT_ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(kept) => {
                    let target = target.to_owned();
                    let copy = move || {
                        let (_hold, _lock) = (hold, lock);
                        let copied = backup::backup(&embedded.bodies, queue, &kept, &target, &mut watch);
                        let _ = fs::remove_file(&kept);
                        copied
                    };
                    return Pool::new(1).run(copy).await;
                }
            }
        }
    }

    /// Deletes the bodies that nothing uses, by the ranges in which their uses lie. A body is looked at
    /// twice, `grace` apart: one whose commit is still on its way has a use by then, as long as a commit
    /// takes less than that. Answers how many went.
    pub async fn collect_bodies(
        &self,
        uses: impl Fn(BodyId) -> Range + Send + Sync,
        grace: Duration,
    ) -> Result<u64, StoreError> {
        let candidates = self.unused_bodies(&uses).await?;
        if candidates.is_empty() {
            return Ok(0);
        }
        tokio::time::sleep(grace).await;
        self.delete_unused(&candidates, &uses).await
    }

    /// The bodies that nothing uses at this moment, in order and not too many at a time. Some of them
    /// may be waiting for the commit that names them.
    pub async fn unused_bodies(
        &self,
        uses: &(impl Fn(BodyId) -> Range + Send + Sync),
    ) -> Result<Vec<BodyId>, StoreError> {
        let mut candidates = Vec::new();
        let mut after = None;
        while candidates.len() < CANDIDATES_MAX {
            let page = self.bodies.list(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let ids: Vec<BodyId> = page.iter().map(|entry| entry.id).collect();
            candidates.extend(self.unused(&ids, uses).await?);
        }
        Ok(candidates)
    }

    /// Deletes those of `candidates` that still nothing uses. Answers how many went.
    pub async fn delete_unused(
        &self,
        candidates: &[BodyId],
        uses: &(impl Fn(BodyId) -> Range + Send + Sync),
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for ids in candidates.chunks(PAGE) {
            for id in self.unused(ids, uses).await? {
                deleted += u64::from(self.bodies.delete(id).await?);
            }
        }
        Ok(deleted)
    }

    async fn unused(
        &self,
        ids: &[BodyId],
        uses: &(impl Fn(BodyId) -> Range + Send + Sync),
    ) -> Result<Vec<BodyId>, StoreError> {
        let read = ids.iter().fold(Read::default(), |read, id| read.range(Range { limit: 1, ..uses(*id) }));
        let found = self.index.read(read).await?;
        let unused = ids.iter().zip(&found.ranges).filter(|(_, range)| range.is_empty());
        Ok(unused.map(|(id, _)| *id).collect())
    }
}

/// Makes the index of the closed store in `dir` anew. Blocks; when it is interrupted, the next start
/// goes on with it.
///
/// # Errors
/// `InUse` while a server runs; `Corrupt` when there is nothing whole to make it of.
pub fn rebuild(dir: &Path, options: &StoreOptions, watch: Watch<'_>) -> Result<(), StoreError> {
    let place = Arc::new(existing(dir)?);
    // Should the snapshots turn out to be damaged, the old one may be all there is: it comes back then.
    place.retire_index()?;
    Engine::open_watched(Arc::clone(&place), *options, Trust::Nothing, watch)?.close()
}

/// The length of all files below a directory.
pub(crate) fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let found = entry.metadata().ok()?;
        Some(if found.is_dir() { size_of(&entry.path()) } else { found.len() })
    };
    entries.filter_map(size).sum()
}
