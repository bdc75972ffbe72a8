//! Bodies as files: `bodies/<first two digits>/<32 hex digits>`, written once and never changed.
//!
//! A body is written under another name, synced, renamed, and its directory synced, so it is there
//! whole or not at all, and lasts once `put` has answered. What a crash leaves in `bodies/tmp` is
//! removed at the next start; that costs no look at the bodies themselves.
//!
//! Not here: which bodies are still named by the index.

use std::{
    fs::{self, File},
    io, ops,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Answer, Bodies, BodyEntry, BodyId, StoreError,
    disk::{make_dir, write_whole},
    place::Place,
    pool::Pool,
};

/// [`Bodies`] in a directory of their own.
pub(crate) struct FileBodies {
    shared: Arc<Shared>,
    pool: Pool,
}

struct Shared {
    dir: PathBuf,
    /// Keeps the store locked as long as its bodies are in use.
    place: Arc<Place>,
}

impl FileBodies {
    /// Makes the directories, if there are none, and clears what a crash left. Blocks.
    pub(crate) fn open(place: Arc<Place>, threads: usize) -> Result<Self, StoreError> {
        let dir = place.bodies();
        let disk = &*place.disk;
        let fail = |error| StoreError::io(format!("prepare {}", dir.display()), error);
        make_dir(disk, &dir)?;
        let missing: Vec<_> = (0..=u8::MAX)
            .map(|first| dir.join(format!("{first:02x}")))
            .filter(|path| !path.is_dir())
            .collect();
        for path in &missing {
            disk.create_dir(path).map_err(fail)?;
        }
        if !missing.is_empty() {
            disk.sync_dir(&dir).map_err(fail)?;
        }
        let tmp = dir.join("tmp");
        make_dir(disk, &tmp)?;
        for entry in fs::read_dir(&tmp).map_err(fail)? {
            disk.remove(&entry.map_err(fail)?.path()).map_err(fail)?;
        }
        Ok(Self { shared: Arc::new(Shared { dir, place }), pool: Pool::new(threads) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.pool.run(move || work(&shared)).await
    }
}

impl Shared {
    fn path(&self, id: BodyId) -> PathBuf {
        let name = id.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    fn put(&self, body: &[u8]) -> Result<BodyId, StoreError> {
        let id = BodyId::random()?;
        let scratch = self.dir.join("tmp").join(id.to_string());
        write_whole(&*self.place.disk, &scratch, &self.path(id), body)?;
        Ok(id)
    }

    fn open(&self, id: BodyId) -> Result<File, StoreError> {
        File::open(self.path(id)).map_err(|error| self.failed("open", id, error))
    }

    fn get(&self, id: BodyId) -> Result<Bytes, StoreError> {
        let body = fs::read(self.path(id)).map_err(|error| self.failed("read", id, error))?;
        Ok(body.into())
    }

    fn get_range(&self, id: BodyId, range: &ops::Range<u64>) -> Result<Bytes, StoreError> {
        let file = self.open(id)?;
        let size = file.metadata().map_err(|error| self.failed("measure", id, error))?.len();
        let (start, end) = (range.start.min(size), range.end.min(size));
        let mut part = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut part, start).map_err(|error| self.failed("read", id, error))?;
        Ok(part.into())
    }

    fn size(&self, id: BodyId) -> Result<u64, StoreError> {
        fs::metadata(self.path(id))
            .map(|found| found.len())
            .map_err(|error| self.failed("measure", id, error))
    }

    fn delete(&self, id: BodyId) -> Result<bool, StoreError> {
        match self.place.disk.remove(&self.path(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("remove", id, error)),
        }
    }

    fn list(&self, after: Option<BodyId>, limit: usize) -> Result<Vec<BodyEntry>, StoreError> {
        let mut entries = Vec::new();
        for first in after.map_or(0, |id| id.0[0])..=u8::MAX {
            let wanted = limit - entries.len();
            if wanted == 0 {
                break;
            }
            let dir = self.dir.join(format!("{first:02x}"));
            let mut ids =
                ids_in(&dir).map_err(|error| StoreError::io(format!("list {}", dir.display()), error))?;
            ids.retain(|id| after.is_none_or(|after| *id > after));
            ids.sort_unstable();
            for id in ids.into_iter().take(wanted) {
                // One deleted meanwhile is not listed.
                if let Ok(found) = fs::metadata(self.path(id)) {
                    let put_at = found.modified().map_err(|error| self.failed("measure", id, error))?;
                    entries.push(BodyEntry { id, bytes: found.len(), put_at });
                }
            }
        }
        Ok(entries)
    }

    fn failed(&self, doing: &str, id: BodyId, error: io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::NotFound {
            return StoreError::NoBody(id);
        }
        StoreError::io(format!("{doing} {}", self.path(id).display()), error)
    }
}

/// The bodies in one directory, in no order; other files are left alone.
fn ids_in(dir: &Path) -> io::Result<Vec<BodyId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<BodyId>().ok()));
    }
    Ok(ids)
}

impl Bodies for FileBodies {
    fn put(&self, body: Bytes) -> Answer<'_, BodyId> {
        Box::pin(self.run(move |shared| shared.put(&body)))
    }

    fn get(&self, id: BodyId) -> Answer<'_, Bytes> {
        Box::pin(self.run(move |shared| shared.get(id)))
    }

    fn get_range(&self, id: BodyId, range: ops::Range<u64>) -> Answer<'_, Bytes> {
        Box::pin(self.run(move |shared| shared.get_range(id, &range)))
    }

    fn size(&self, id: BodyId) -> Answer<'_, u64> {
        Box::pin(self.run(move |shared| shared.size(id)))
    }

    fn delete(&self, id: BodyId) -> Answer<'_, bool> {
        Box::pin(self.run(move |shared| shared.delete(id)))
    }

    fn list(&self, after: Option<BodyId>, limit: usize) -> Answer<'_, Vec<BodyEntry>> {
        Box::pin(self.run(move |shared| shared.list(after, limit)))
    }
}
