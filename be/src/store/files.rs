//! Bodies as files: `bodies/<first two digits>/<32 hex digits>.body`, written once and never changed.
//!
//! Behind the body stand 40 bytes: SHA-256 of its id and content, and `DPbody1\n`; a check of the store
//! compares them (`verify`). Stores of format 1 have bodies without them, and without `.body`.
//!
//! A body is written under another name, synced, renamed, and its directory synced, so it is there
//! whole or not at all, and lasts once `put` has answered. What a crash leaves in `bodies/tmp` is
//! removed at the next start; that costs no look at the bodies themselves.
//!
//! Not here: which bodies are still named by the index.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{
    Answer, Bodies, BodyEntry, BodyId, StoreError,
    disk::{make_dir, write_parts},
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
    /// How many backups are under way.
    held: Mutex<usize>,
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
        // Even if none is missing: whoever made them may have been killed before this.
        disk.sync_dir(&dir).map_err(fail)?;
        let tmp = dir.join("tmp");
        make_dir(disk, &tmp)?;
        for entry in fs::read_dir(&tmp).map_err(fail)? {
            disk.remove(&entry.map_err(fail)?.path()).map_err(fail)?;
        }
        let shared = Shared { dir, place, held: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), pool: Pool::new(threads) })
    }

    /// From now on no body goes, until the answer is dropped. Those to be deleted meanwhile stay until
    /// bodies without a use are collected.
    pub(crate) fn hold(&self) -> Hold {
        *self.shared.held.lock() += 1;
        Hold(Arc::clone(&self.shared))
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.shared.place
    }

    /// Compares a body with the hash behind it; see `Shared::verify`. Blocks.
    pub(crate) fn verify(&self, id: BodyId) -> Result<(u64, bool), StoreError> {
        self.shared.verify(id)
    }

    /// See [`Bodies::list`] and [`Bodies::delete`]. Block.
    pub(crate) fn list_now(&self, after: Option<BodyId>, limit: usize) -> Result<Vec<BodyEntry>, StoreError> {
        self.shared.list(after, limit)
    }

    pub(crate) fn delete_now(&self, id: BodyId) -> Result<bool, StoreError> {
        self.shared.delete(id)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.pool.run(move || work(&shared)).await
    }
}

/// What stands behind a body.
const SEAL_BYTES: usize = 40;
const SEAL_WORD: &[u8; 8] = b"DPbody1\n";
const EXTENSION: &str = "body";

fn seal_of(id: BodyId, body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut seal = [0; SEAL_BYTES];
    seal[..32].copy_from_slice(&Sha256::new_with_prefix(id.0).chain_update(body).finalize());
    seal[32..].copy_from_slice(SEAL_WORD);
    seal
}

/// Keeps bodies from being deleted while it lives: a backup reads them.
pub(crate) struct Hold(Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.held.lock() -= 1;
    }
}

/// A body's file: where, and whether the seal is behind it.
struct Found {
    path: PathBuf,
    sealed: bool,
    file: File,
    /// Of the body, in bytes.
    bytes: u64,
}

impl Shared {
    fn path(&self, id: BodyId) -> PathBuf {
        self.dir.join(format!("{:02x}", id.0[0])).join(id.to_string()).with_extension(EXTENSION)
    }

    /// Where a body of format 1 lies.
    fn bare_path(&self, id: BodyId) -> PathBuf {
        self.path(id).with_extension("")
    }

    fn put(&self, body: &[u8]) -> Result<BodyId, StoreError> {
        let id = BodyId::random()?;
        let scratch = self.dir.join("tmp").join(id.to_string());
        write_parts(&*self.place.disk, &scratch, &self.path(id), &[body, &seal_of(id, body)])?;
        Ok(id)
    }

    fn find(&self, id: BodyId) -> Result<Found, StoreError> {
        let path = self.path(id);
        let (path, sealed, file) = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.bare_path(id);
                let file = File::open(&path).map_err(|error| self.failed("open", id, error))?;
                (path, false, file)
            }
            opened => (path, true, opened.map_err(|error| self.failed("open", id, error))?),
        };
        let length = file.metadata().map_err(|error| self.failed("measure", id, error))?.len();
        let seal = if sealed { SEAL_BYTES as u64 } else { 0 };
        let bytes = length.checked_sub(seal).ok_or_else(|| corrupt(&path, 0, "a body without its end"))?;
        Ok(Found { path, sealed, file, bytes })
    }

    fn get(&self, id: BodyId) -> Result<Bytes, StoreError> {
        self.get_range(id, &(0..u64::MAX))
    }

    fn get_range(&self, id: BodyId, range: &ops::Range<u64>) -> Result<Bytes, StoreError> {
        let found = self.find(id)?;
        let (start, end) = (range.start.min(found.bytes), range.end.min(found.bytes));
        let mut part = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)];
        found.file.read_exact_at(&mut part, start).map_err(|error| self.failed("read", id, error))?;
        Ok(part.into())
    }

    fn size(&self, id: BodyId) -> Result<u64, StoreError> {
        self.find(id).map(|found| found.bytes)
    }

    /// Compares a body with its seal. Answers its length, in bytes, and whether it has one.
    fn verify(&self, id: BodyId) -> Result<(u64, bool), StoreError> {
        let mut found = self.find(id)?;
        let fail = |error| self.failed("read", id, error);
        let mut hash = Sha256::new_with_prefix(id.0);
        let mut left = found.bytes;
        let mut buffer = vec![0; 128 * 1024];
        while left > 0 {
            let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            found.file.read_exact(&mut buffer[..part]).map_err(fail)?;
            hash.update(&buffer[..part]);
            left -= part as u64;
        }
        if found.sealed {
            let mut seal = [0; SEAL_BYTES];
            found.file.read_exact(&mut seal).map_err(fail)?;
            if seal[..32] != hash.finalize()[..] || seal[32..] != *SEAL_WORD {
                return Err(corrupt(&found.path, 0, "a body that is not what was put"));
            }
        }
        Ok((found.bytes, found.sealed))
    }

    fn delete(&self, id: BodyId) -> Result<bool, StoreError> {
        if *self.held.lock() > 0 {
            return Ok(self.path(id).exists() || self.bare_path(id).exists());
        }
        if self.place.unsure.load(SeqCst) {
            // A commit that may yet turn out to be made could name it.
            let unsure = io::Error::other("the journal could not be written");
            return Err(StoreError::io("delete a body", unsure));
        }
        for path in [self.path(id), self.bare_path(id)] {
            match self.place.disk.remove(&path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed("remove", id, error)),
            }
        }
        Ok(false)
    }

    fn list(&self, after: Option<BodyId>, limit: usize) -> Result<Vec<BodyEntry>, StoreError> {
        let mut entries = Vec::new();
        for first in after.map_or(0, |id| id.0[0])..=u8::MAX {
            let wanted = limit - entries.len();
            if wanted == 0 {
                break;
            }
            let dir = self.dir.join(format!("{first:02x}"));
            let mut names =
                names_in(&dir).map_err(|error| StoreError::io(format!("list {}", dir.display()), error))?;
            names.retain(|(id, _)| after.is_none_or(|after| *id > after));
            names.sort_unstable();
            for (id, path) in names.into_iter().take(wanted) {
                // One deleted meanwhile is not listed.
                if let Ok(found) = fs::metadata(&path) {
                    let put_at = found.modified().map_err(|error| self.failed("measure", id, error))?;
                    let seal = path.extension().map_or(0, |_| SEAL_BYTES as u64);
                    entries.push(BodyEntry { id, bytes: found.len().saturating_sub(seal), put_at });
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

fn corrupt(path: &Path, offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset, what }
}

/// The bodies in one directory and their files, in no order; other files are left alone.
pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<(BodyId, PathBuf)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension == EXTENSION)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            && let Ok(id) = stem.parse::<BodyId>()
        {
            names.push((id, path));
        }
    }
    Ok(names)
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
