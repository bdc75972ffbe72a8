//! The file operations that the queue's durability rests on, behind a seam that tests can cut short.
//!
//! All names lie in one directory. A new or renamed file lasts only when its directory has been synced
//! too, which `rename` leaves to `sync`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use parking_lot::Mutex;

/// What the queue asks of a directory. Every call may block.
pub trait Files: Send + Sync {
    /// Writes a file of these parts, replacing one of that name, and makes its content last.
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()>;
    /// Gives a file another name in one step, replacing one of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is removed already.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's names last.
    fn sync(&self) -> io::Result<()>;
    /// The names in the directory.
    fn names(&self) -> io::Result<Vec<String>>;
    /// The first bytes of a file, at most `bytes_max`.
    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
}

/// A directory of the file system, for this user alone.
pub struct Directory(PathBuf);

impl Directory {
    /// Makes the directory if need be.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self(path))
    }
}

impl Files for Directory {
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.0.join(name))?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name))?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Files that are gone with the process: beside a store that is, too.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Files for Memory {
    fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.0.lock().insert(name.to_owned(), parts.concat());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let files = self.0.lock();
        let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes[..bytes.len().min(usize::try_from(bytes_max).unwrap_or(usize::MAX))].to_vec())
    }
}
