//! The file operations that durability rests on, behind a seam that tests can make fail.
//!
//! The journal and the bodies write through [`Disk`] only, so that a test can fill it, break it, or
//! record what was and was not synced. Reading goes to the files directly.
//!
//! On Linux a new or renamed file lasts only when its directory has been synced too.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::StoreError;

/// What the journal and the bodies ask of a file system.
pub(crate) trait Disk: Send + Sync {
    /// Makes a new file; one that exists is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory; one that exists is an error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory last.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file open for writing.
pub(crate) trait DiskFile: Send {
    /// Writes all bytes at an offset from the start. After an error some may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes content and length last.
    fn sync_data(&self) -> io::Result<()>;
}

/// The file system as it is.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// Writes a small file so that it is there whole or not at all, and lasts.
pub(crate) fn write_whole(
    disk: &dyn Disk,
    scratch: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), StoreError> {
    write_parts(disk, scratch, path, &[bytes])
}

/// The same, for content that lies in several parts.
pub(crate) fn write_parts(
    disk: &dyn Disk,
    scratch: &Path,
    path: &Path,
    parts: &[&[u8]],
) -> Result<(), StoreError> {
    let write = || {
        let file = match disk.create(scratch) {
            // A failure left it, and could not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(scratch)?;
                disk.create(scratch)?
            }
            created => created?,
        };
        let mut length = 0;
        for part in parts {
            file.write_all_at(part, length)?;
            length += part.len() as u64;
        }
        file.sync_data()?;
        drop(file);
        disk.rename(scratch, path)?;
        path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
    };
    write().map_err(|error| {
        // Whatever half of it there is must not keep the space, nor the name of the next attempt.
        let _ = disk.remove(scratch);
        StoreError::io(format!("write {}", path.display()), error)
    })
}

/// Makes a directory, and those above it, and sees that they last.
pub(crate) fn make_dir(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dir(disk, parent)?;
    }
    let make = || {
        match disk.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        disk.sync_dir(parent.unwrap_or(Path::new(".")))
    };
    make().map_err(|error| StoreError::io(format!("make directory {}", path.display()), error))
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A disk that can be full or broken, over the real one.

    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    };

    use parking_lot::Mutex;

    use super::{Disk, DiskFile, Path, RealDisk, io};

    /// Says of an operation, by its name, and a path whether it fails.
    pub(crate) type Fails = fn(&str, &Path) -> bool;

    /// What is wrong with the disk, shared with the test.
    #[derive(Default)]
    pub(crate) struct Faults {
        /// Bytes that can still be written while `full` is set.
        pub(crate) space: AtomicU64,
        /// Whether space is counted.
        pub(crate) full: AtomicBool,
        /// Whether every sync fails.
        pub(crate) sync_fails: AtomicBool,
        /// Whether files cannot be cut.
        pub(crate) cut_fails: AtomicBool,
        /// Whether nothing can be written at all.
        pub(crate) read_only: AtomicBool,
        /// Which operations fail: their name, and the path that is made, renamed to, removed or synced.
        pub(crate) fails: Mutex<Option<Fails>>,
        /// How often a file was synced.
        pub(crate) syncs: AtomicU64,
    }

    #[derive(Clone, Default)]
    pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

    struct FaultyFile(Box<dyn DiskFile>, Arc<Faults>);

    impl Disk for FaultyDisk {
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            self.0.writable()?;
            self.0.works("create", path)?;
            Ok(Box::new(FaultyFile(RealDisk.create(path)?, self.0.clone())))
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            self.0.writable()?;
            Ok(Box::new(FaultyFile(RealDisk.open(path)?, self.0.clone())))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.writable()?;
            self.0.works("rename", to)?;
            RealDisk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.writable()?;
            RealDisk.remove(path)
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.0.writable()?;
            RealDisk.create_dir(path)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.0.works("sync", path)?;
            RealDisk.sync_dir(path)
        }
    }

    impl Faults {
        fn works(&self, doing: &str, path: &Path) -> io::Result<()> {
            let fails = self.fails.lock().is_some_and(|fails| fails(doing, path));
            if fails { Err(io::Error::other("injected")) } else { Ok(()) }
        }

        fn writable(&self) -> io::Result<()> {
            if self.read_only.load(SeqCst) { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
        }
    }

    impl DiskFile for FaultyFile {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.1.writable()?;
            if !self.1.full.load(SeqCst) {
                return self.0.write_all_at(bytes, offset);
            }
            let space = self.1.space.load(SeqCst);
            let fits = bytes.len().min(usize::try_from(space).unwrap());
            self.1.space.store(space - fits as u64, SeqCst);
            self.0.write_all_at(&bytes[..fits], offset)?;
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn set_len(&self, bytes: u64) -> io::Result<()> {
            self.1.writable()?;
            if self.1.cut_fails.load(SeqCst) {
                return Err(io::Error::other("injected: cannot cut"));
            }
            self.0.set_len(bytes)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.1.syncs.fetch_add(1, SeqCst);
            if self.1.sync_fails.load(SeqCst) {
                return Err(io::Error::other("injected: cannot sync"));
            }
            self.0.sync_data()
        }
    }
}
