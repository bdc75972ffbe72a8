//! What can go wrong in the store, in the few kinds that a caller treats differently.
//!
//! Every variant is `Clone`: the failure of one group commit is the answer to all who waited for it.

use std::{io, path::PathBuf, sync::Arc};

/// Everything that can fail in the store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An expected key holds something else: nothing was written. Read again and decide again.
    #[error("an expected key has changed")]
    Conflict,
    /// No space is left: nothing was written. Reads go on, and writes succeed again once there is space.
    #[error("no space left on the store's device")]
    Full,
    /// The file system has become read-only: nothing was written. Reads go on, and writes succeed again
    /// once it can be written to.
    #[error("the store's file system is read-only")]
    ReadOnly,
    /// A key, value or commit over its bound: nothing was written. A mistake of the caller.
    #[error("{what} of {bytes} bytes is over the bound of {bytes_max}")]
    TooLarge {
        /// What is too large: a key, a value, a commit.
        what: &'static str,
        /// Its size, in bytes.
        bytes: usize,
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// There is no body of this id.
    #[error("body {0} does not exist")]
    NoBody(super::BodyId),
    /// The operating system or the engine failed. From `commit`, the outcome is unknown: the writes may
    /// be there or appear after the next start.
    #[error("{doing}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A file cannot be believed: it was damaged after it was written.
    #[error(
        "{} is damaged at byte {offset}: {what}; `directpush-be fsck` says what is lost, \
         `directpush-be restore` brings a backup back",
        path.display()
    )]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// Another process has this store open.
    #[error("the store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The store was written by a newer version of this program.
    #[error("the store {} has format {found}, newer than this program's {known}", path.display())]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// The store is closed, or its committer has stopped after a failure that the log names.
    #[error("the store has stopped")]
    Stopped,
}

impl StoreError {
    /// Wraps what the operating system said: `Full` or `ReadOnly`, when it said that.
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::Full;
        }
        if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Self::ReadOnly;
        }
        Self::Io { doing: doing.into(), source: Arc::new(source) }
    }

    /// Whether what was read is damaged, or the disk cannot read it at all.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Io { source, .. } => is_unreadable(source),
            _ => false,
        }
    }
}

/// Whether the disk answered that it cannot (EIO).
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(5)
}

/// Whether the disk, or the quota of who runs us, is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
