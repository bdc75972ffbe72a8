//! The directory of a store: what lies where, whose it is, and whether its index can be trusted.
//!
//! ```text
//! format      "directpush store 3", written once there is a journal
//! lock        locked while a process has the store open
//! restoring   there while a backup is being brought back
//! reserve     space kept back, so that what the journal took can always be applied
//! journal/    the truth of the index, together with
//! snapshots/  what the index held at some positions of the journal; before the oldest it is trimmed
//! index/      sled, over the newest snapshot; after the first, index-<n>/, which index.current then names;
//!             index.corrupt-<n>/ are damaged ones, set aside; index.old/ is there while another is made, and
//!             index.check/, a copy, while one is looked at
//! index.boot  there while the index is open: the boot of the machine in which it was opened
//! bodies/     see `files`
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    StoreError,
    disk::{Disk, make_dir, write_whole},
    journal, snapshot,
};

/// The format that this program writes, and the newest that it reads. 1 had no snapshots, and in 2 the
/// index held everything.
const FORMAT: u32 = 3;
const FORMAT_WORDS: &str = "directpush store ";
/// How many damaged indexes, and how many damaged journals, are kept for someone to look at.
const KEPT_ASIDE: u32 = 3;
/// How often a lock is tried: a store that was just dropped is still being closed.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A store's directory, locked for this process as long as this lives.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    /// What the index is called now.
    index_name: Mutex<String>,
    /// The journal may hold a commit that the index does not show, and after a restart will.
    pub(crate) unsure: AtomicBool,
    /// The lock ends with the file.
    _lock: File,
}

impl Place {
    /// Makes or enters the directory of a store.
    ///
    /// # Errors
    /// `InUse`, `NewerFormat`, and `Corrupt` when there is a journal without a format.
    pub(crate) fn enter(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        make_dir(&*disk, dir)?;
        let lock = lock(dir)?;
        // A process that was killed may have left names that are not durable yet.
        disk.sync_dir(dir).map_err(|error| StoreError::io(format!("sync {}", dir.display()), error))?;
        let index_name = Mutex::new(index_name(dir)?);
        let place =
            Self { dir: dir.to_owned(), disk, index_name, unsure: AtomicBool::new(false), _lock: lock };
        place.end_replacement()?;
        place.check_format()?;
        Ok(place)
    }

    /// Enters a directory that a backup is to be brought back into: an empty one, or one in which that
    /// was begun before. Until `restored` it is no store.
    pub(crate) fn for_restore(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        make_dir(&*disk, dir)?;
        let fail = |error| StoreError::io(format!("prepare {}", dir.display()), error);
        let index_name = Mutex::new("index".to_owned());
        let place =
            Self { dir: dir.to_owned(), disk, index_name, unsure: AtomicBool::new(false), _lock: lock(dir)? };
        place.disk.sync_dir(dir).map_err(fail)?;
        let marker = place.restoring();
        let scratch = place.scratch("restoring.new");
        if marker.exists() {
            for part in [place.snapshots(), place.journal(), place.index()] {
                remove_dir(&part)?;
            }
            return Ok(place);
        }
        for entry in fs::read_dir(dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            if name != "lock" {
                let busy = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
                return Err(StoreError::io(format!("restore into {}", dir.display()), busy));
            }
        }
        write_whole(&*place.disk, &scratch, &marker, b"")?;
        Ok(place)
    }

    /// From now on it is a store.
    pub(crate) fn restored(&self) -> Result<(), StoreError> {
        let removed = self.disk.remove(&self.restoring()).and_then(|()| self.disk.sync_dir(&self.dir));
        removed.map_err(|error| StoreError::io("end the restore", error))
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.dir.join("format");
        let marker = self.restoring();
        if marker.exists() {
            let what = "a restore was interrupted; run `directpush-be restore` again";
            return Err(StoreError::Corrupt { path: marker, offset: 0, what });
        }
        let Some(text) = read_text(&path)? else {
            if !journal::is_new(&self.journal())? || self.snapshots().exists() {
                return Err(StoreError::Corrupt { path, offset: 0, what: "it is missing from a store" });
            }
            // In this order a store always has a journal, and one without has lost it.
            journal::create_behind(&self.journal(), &*self.disk, 0)?;
            return self.write_format();
        };
        match text.trim_end().strip_prefix(FORMAT_WORDS).and_then(|number| number.parse().ok()) {
            Some(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { path: self.dir.clone(), found, known: FORMAT })
            }
            Some(FORMAT) => Ok(()),
            // Their files are read as they are; who knows only them must not look for what differs now.
            Some(1 | 2) => self.write_format(),
            _ => Err(StoreError::Corrupt { path, offset: 0, what: "it names no known format" }),
        }
    }

    /// Makes this directory a store of the present format.
    pub(crate) fn write_format(&self) -> Result<(), StoreError> {
        let text = format!("{FORMAT_WORDS}{FORMAT}\n");
        write_whole(&*self.disk, &self.scratch("format.new"), &self.dir.join("format"), text.as_bytes())
    }

    pub(crate) fn restoring(&self) -> PathBuf {
        self.dir.join("restoring")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join(&*self.index_name.lock())
    }

    /// A name for another index, whose directory is not there.
    pub(crate) fn next_index(&self) -> Result<(String, PathBuf), StoreError> {
        let number = self.index_name.lock().strip_prefix("index-").and_then(|n| n.parse::<u32>().ok());
        let name = format!("index-{}", number.unwrap_or(0).wrapping_add(1));
        let path = self.dir.join(&name);
        remove_dir(&path)?;
        Ok((name, path))
    }

    /// From now on, and after a crash, that one is the index.
    pub(crate) fn adopt_index(&self, name: String) -> Result<(), StoreError> {
        self.name_index(&name)?;
        *self.index_name.lock() = name;
        Ok(())
    }

    fn name_index(&self, name: &str) -> Result<(), StoreError> {
        let scratch = self.scratch("index.current.new");
        write_whole(&*self.disk, &scratch, &self.dir.join("index.current"), name.as_bytes())
    }

    fn old_index(&self) -> PathBuf {
        self.dir.join("index.old")
    }

    /// Moves the index out of the way while another is made. One that is there already stays: what
    /// an interrupted start has made in its place is worth less.
    pub(crate) fn retire_index(&self) -> Result<(), StoreError> {
        let (index, old) = (self.index(), self.old_index());
        if old.exists() || !index.exists() {
            return remove_dir(&index);
        }
        self.move_dir(&index, &old)
    }

    /// The other one is whole: removes the retired one, or keeps it for someone to look at, while there
    /// are not too many of those: they must not fill the disk. Answers where it is kept.
    pub(crate) fn end_retirement(&self, keep: bool) -> Result<Option<PathBuf>, StoreError> {
        let old = self.old_index();
        let Some(aside) = self.aside().find(|path| keep && old.exists() && !path.exists()) else {
            return remove_dir(&old).map(|()| None);
        };
        self.move_dir(&old, &aside).map(|()| Some(aside))
    }

    /// No other one could be made: puts the retired one back, not to be used before all else fails.
    pub(crate) fn put_index_back(&self) -> Result<(), StoreError> {
        let old = self.old_index();
        if !old.exists() {
            return Ok(());
        }
        self.mark_suspect()?;
        remove_dir(&self.index())?;
        self.move_dir(&old, &self.index())
    }

    fn move_dir(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let moved = self.disk.rename(from, to).and_then(|()| self.disk.sync_dir(&self.dir));
        moved.map_err(|error| StoreError::io(format!("move {}", from.display()), error))
    }

    /// Removes indexes that are none, or not yet.
    pub(crate) fn remove_stale_indexes(&self) -> Result<(), StoreError> {
        self.remove_copy()?;
        let fail = |error| StoreError::io(format!("list {}", self.dir.display()), error);
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_index(name) && path.is_dir() && path != self.index() {
                remove_dir(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn bodies(&self) -> PathBuf {
        self.dir.join("bodies")
    }

    /// A file name for `write_whole`, free of what a crash may have left there.
    fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        let _ = self.disk.remove(&path);
        path
    }

    fn boot_mark(&self) -> PathBuf {
        self.dir.join("index.boot")
    }

    /// Whether the machine went down while the index was open. sled never syncs its file, so what
    /// was on its way to the disk then may be missing without a trace.
    pub(crate) fn machine_went_down(&self) -> Result<bool, StoreError> {
        Ok(read_text(&self.boot_mark())?.is_some_and(|mark| mark.trim_end() != boot()))
    }

    /// Notes, before the index is opened, in which boot it is.
    pub(crate) fn mark_open(&self) -> Result<(), StoreError> {
        self.mark(&boot())
    }

    /// Notes that the index must be rebuilt at the next start.
    pub(crate) fn mark_suspect(&self) -> Result<(), StoreError> {
        self.mark("suspect")
    }

    fn mark(&self, text: &str) -> Result<(), StoreError> {
        let scratch = self.scratch("index.boot.new");
        write_whole(&*self.disk, &scratch, &self.boot_mark(), format!("{text}\n").as_bytes())
    }

    /// Syncs the closed index and notes that it is whole on the disk.
    pub(crate) fn mark_closed(&self) -> Result<(), StoreError> {
        let close = || {
            sync_tree(&self.index())?;
            match self.disk.remove(&self.boot_mark()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            self.disk.sync_dir(&self.dir)
        };
        // Should adopting another have failed halfway: that one is not synced.
        let name = self.index_name.lock().clone();
        if index_name(&self.dir)? != name {
            self.name_index(&name)?;
        }
        close().map_err(|error| StoreError::io("sync the index", error))
    }

    /// Moves the index out of the way and answers where to, if there was one. Where enough of them
    /// are kept already, it is removed: they must not fill the disk.
    pub(crate) fn set_index_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let index = self.index();
        if !index.exists() {
            return Ok(None);
        }
        let Some(aside) = self.aside().find(|path| !path.exists()) else {
            self.remove_index()?;
            return Ok(None);
        };
        self.move_dir(&index, &aside)?;
        Ok(Some(aside))
    }

    /// Puts an empty journal behind position `through` in the place of the one that is there, and answers
    /// where that is kept, if there was one. Needs a snapshot of that position, which the next to enter
    /// looks for, should this be interrupted.
    pub(crate) fn replace_journal(&self, through: u64) -> Result<Option<PathBuf>, StoreError> {
        let new = self.new_journal();
        remove_dir(&new)?;
        journal::create_behind(&new, &*self.disk, through)?;
        let mut aside = None;
        if self.journal().exists() {
            let to =
                self.dir.join(format!("journal.corrupt-{}", self.journals_aside()?.last().unwrap_or(&0) + 1));
            self.move_dir(&self.journal(), &to)?;
            aside = Some(to);
        }
        self.move_dir(&new, &self.journal())?;
        let kept = self.journals_aside()?;
        for old in kept.iter().rev().skip(KEPT_ASIDE as usize) {
            remove_dir(&self.dir.join(format!("journal.corrupt-{old}")))?;
        }
        Ok(aside)
    }

    /// The numbers of the journals that were set aside, the oldest first.
    fn journals_aside(&self) -> Result<Vec<u32>, StoreError> {
        let fail = |error| StoreError::io(format!("list {}", self.dir.display()), error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("journal.corrupt-"));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn new_journal(&self) -> PathBuf {
        self.dir.join("journal.new")
    }

    /// Ends a `replace_journal` that was interrupted when the old one was out of the way.
    fn end_replacement(&self) -> Result<(), StoreError> {
        let new = self.new_journal();
        if self.journal().exists() || !new.exists() {
            return Ok(());
        }
        let Some((first, _)) = journal::segments(&new)?.pop() else { return Ok(()) };
        if snapshot::path_of(&self.snapshots(), first.saturating_sub(1)).exists() {
            self.move_dir(&new, &self.journal())?;
        }
        Ok(())
    }

    /// Copies an index to where it can be opened, and so written to, without being touched itself.
    pub(crate) fn copy_of_index(&self, index: &Path) -> Result<PathBuf, StoreError> {
        let copy = self.index_copy();
        remove_dir(&copy)?;
        copy_dir(index, &copy).map_err(|error| StoreError::io(format!("copy {}", index.display()), error))?;
        Ok(copy)
    }

    pub(crate) fn remove_copy(&self) -> Result<(), StoreError> {
        remove_dir(&self.index_copy())
    }

    fn index_copy(&self) -> PathBuf {
        self.dir.join("index.check")
    }

    /// The indexes that were set aside and may be all that is left.
    pub(crate) fn indexes_aside(&self) -> Vec<PathBuf> {
        self.aside().chain([self.old_index()]).filter(|path| path.exists()).collect()
    }

    /// Where damaged indexes are kept.
    fn aside(&self) -> impl Iterator<Item = PathBuf> {
        (1..=KEPT_ASIDE).map(|n| self.dir.join(format!("index.corrupt-{n}")))
    }

    /// Removes an index that was made by half.
    pub(crate) fn remove_index(&self) -> Result<(), StoreError> {
        remove_dir(&self.index())
    }

    /// Removes the index and all that were set aside, for their space: only when it is sure that another
    /// can be made.
    pub(crate) fn remove_indexes(&self) -> Result<(), StoreError> {
        self.aside().chain([self.old_index()]).try_for_each(|path| remove_dir(&path))?;
        self.remove_index()
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Keeps `bytes` of space back. `Full` when there are not as many.
    pub(crate) fn keep_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let path = self.reserve();
        if bytes == 0 || fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
            return Ok(());
        }
        self.release_reserve();
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        write_whole(&*self.disk, &self.scratch("reserve.new"), &path, &zeros)
    }

    /// Gives the reserve up, for the index to be opened and brought up to date.
    pub(crate) fn release_reserve(&self) {
        let _ = self.disk.remove(&self.reserve());
    }
}

/// Whether a directory of that name is an index.
fn is_index(name: &str) -> bool {
    name == "index" || name.strip_prefix("index-").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// What the index is called.
fn index_name(dir: &Path) -> Result<String, StoreError> {
    let named = read_text(&dir.join("index.current"))?;
    Ok(named.filter(|name| is_index(name)).unwrap_or_else(|| "index".to_owned()))
}

fn remove_dir(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_dir(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let fail = |error| StoreError::io(format!("lock {}", path.display()), error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
    }
    Err(StoreError::InUse(dir.to_owned()))
}

/// A small file's text, if there is one.
fn read_text(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(format!("read {}", path.display()), error)),
    }
}

/// What names this boot of the machine; where the system does not say, all boots look alike.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim_end().to_owned())
}

/// Syncs every file and directory below `dir`.
fn sync_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
