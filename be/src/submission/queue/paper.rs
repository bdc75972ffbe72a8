//! A directory in memory that knows what was synced: for tests that cut the power.
//!
//! As a file system does, it keeps two truths: what a process sees, and what the disk would show. The
//! content of a file reaches the disk at its sync; the directory's names when the directory is synced.
//! What was not synced may be there or not after a cut, in any combination.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;

use super::files::Files;

#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    synced: bool,
}

/// A name that changed since the directory was synced: what it means now.
type Change = (String, Option<usize>);

#[derive(Clone, Default)]
struct Sheet {
    inodes: Vec<Inode>,
    seen: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// In their order. A rename is one change of two names.
    pending: Vec<Vec<Change>>,
    full: bool,
    steps_left: Option<u32>,
    stopped: bool,
}

#[derive(Default)]
pub(super) struct Paper(Mutex<Sheet>);

impl Sheet {
    /// One step of a process that is killed after so many.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => {
                self.stopped = true;
                Err(io::Error::other("injected: the process is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, changes: Vec<Change>) {
        for (name, inode) in &changes {
            apply(&mut self.seen, name, *inode);
        }
        self.pending.push(changes);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, name: &str, inode: Option<usize>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

impl Paper {
    /// Fails every step after so many.
    pub(super) fn stop_after(&self, steps: u32) {
        self.0.lock().steps_left = Some(steps);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    pub(super) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut sheet = self.0.lock();
        let inode = sheet.seen[name];
        edit(&mut sheet.inodes[inode].seen);
    }

    /// The process was killed: the system still writes all it saw.
    pub(super) fn after_kill(&self) -> Self {
        let mut sheet = self.0.lock().clone();
        (sheet.steps_left, sheet.stopped) = (None, false);
        Self(Mutex::new(sheet))
    }

    /// The power went: of what was not synced a random part is there, torn files included.
    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sheet = self.0.lock().clone();
        let mut names = sheet.durable.clone();
        for changes in &sheet.pending {
            if random.bool() {
                for (name, inode) in changes {
                    apply(&mut names, name, *inode);
                }
            }
        }
        for inode in &mut sheet.inodes {
            if !inode.synced {
                inode.seen.truncate(random.usize(0..=inode.seen.len()));
            }
        }
        sheet.durable.clone_from(&names);
        sheet.seen = names;
        sheet.pending.clear();
        (sheet.steps_left, sheet.stopped) = (None, false);
        Self(Mutex::new(sheet))
    }
}

impl Files for Paper {
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut sheet = self.0.lock();
        sheet.step()?;
        if sheet.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = sheet.inodes.len();
        sheet.inodes.push(Inode { seen: Vec::new(), synced: false });
        sheet.change(vec![(name.to_owned(), Some(inode))]);
        for part in parts {
            sheet.step()?;
            sheet.inodes[inode].seen.extend_from_slice(part);
        }
        sheet.step()?;
        sheet.inodes[inode].synced = true;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sheet = self.0.lock();
        sheet.step()?;
        let inode = *sheet.seen.get(from).ok_or(io::ErrorKind::NotFound)?;
        sheet.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut sheet = self.0.lock();
        sheet.step()?;
        if sheet.seen.contains_key(name) {
            sheet.change(vec![(name.to_owned(), None)]);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut sheet = self.0.lock();
        sheet.step()?;
        sheet.durable = sheet.seen.clone();
        sheet.pending.clear();
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().seen.keys().cloned().collect())
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let sheet = self.0.lock();
        let inode = *sheet.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = sheet.inodes[inode].seen.clone();
        bytes.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}
