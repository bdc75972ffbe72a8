//! What one Ping watches, in as few bytes as it takes to subscribe again after a restart.
//!
//! The list is made once and shared by the device's remembered state and its waiting Pings. A
//! folder costs 48 bytes here; its URL below the mailbox is shared by all mailboxes that have it.

use std::collections::HashSet;
use std::sync::Arc;

use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::subscribe::Since;
use directpush_common::names::{FolderId, Guid};
use directpush_common::numbers::{CollectionToken, Number};
use parking_lot::Mutex;
use smallvec::SmallVec;

/// Change number that stands for "never synchronised".
const NEVER_SYNCED: u64 = u64::MAX;
/// Change number that stands for "only what comes from now on".
const FROM_NOW_ON: u64 = u64::MAX - 1;

/// One folder that a Ping watches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watch {
    counter: u64,
    epoch: u64,
    number: u64,
    path: Arc<str>,
    floor: u32,
    class: Class,
    pending: bool,
}

/// All folders that a Ping watches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watches {
    /// The installation that the folder ids begin with.
    pub installation: Guid,
    /// The hierarchy number that the device knows.
    pub hierarchy: Number,
    /// The folders, in the device's order.
    pub folders: SmallVec<[Watch; 1]>,
}

impl Watch {
    /// A folder. `path` is its URL below the mailbox, encoded; `floor` the date floor of the
    /// device's FilterType in Unix seconds.
    pub fn new(
        folder: FolderId,
        class: Class,
        path: Arc<str>,
        token: Option<CollectionToken>,
        floor: Option<i64>,
    ) -> Self {
        Self {
            counter: folder.counter,
            epoch: token.map_or(0, |token| token.epoch),
            number: token.map_or(NEVER_SYNCED, |token| token.number.0),
            path,
            floor: seconds(floor),
            class,
            pending: false,
        }
    }

    /// The device's last Sync response carried this token under this floor; `pending` when it said
    /// that there is more to fetch.
    pub fn set_known(&mut self, token: Option<CollectionToken>, floor: Option<i64>, pending: bool) {
        self.epoch = token.map_or(0, |token| token.epoch);
        self.number = token.map_or(NEVER_SYNCED, |token| token.number.0);
        self.floor = seconds(floor);
        // A collection that was only begun has all before it: that is "never", not "more".
        self.pending = pending && token.is_some();
    }

    /// Whether the device was told that there is more, and has not fetched it.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// The token of the device's last Sync response.
    pub fn token(&self) -> Option<CollectionToken> {
        let (epoch, number) = (self.epoch, Number(self.number));
        (self.number < FROM_NOW_ON).then_some(CollectionToken { epoch, number })
    }

    /// Only what comes from now on counts.
    pub fn from_now_on(&mut self) {
        self.number = FROM_NOW_ON;
    }

    /// The folder.
    pub fn folder(&self, installation: Guid) -> FolderId {
        FolderId { installation, counter: self.counter }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its URL below the mailbox, encoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the device knows of it.
    pub fn since(&self) -> Since {
        match self.number {
            NEVER_SYNCED => Since::Nothing,
            FROM_NOW_ON => Since::Now,
            _ => self.token().map_or(Since::Nothing, Since::Token),
        }
    }

    /// Items received before never count, Unix seconds.
    pub fn floor(&self) -> Option<i64> {
        (self.floor > 0).then(|| i64::from(self.floor))
    }
}

impl Watches {
    /// Where a folder stands in the list.
    pub fn position(&self, folder: FolderId) -> Option<usize> {
        let here = folder.installation == self.installation;
        self.folders.iter().position(|watch| here && watch.counter == folder.counter)
    }
}

fn seconds(floor: Option<i64>) -> u32 {
    floor.and_then(|floor| u32::try_from(floor).ok()).unwrap_or(0)
}

/// Paths below a mailbox, each kept once however many mailboxes have it.
#[derive(Debug, Default)]
pub struct Paths(Mutex<HashSet<Arc<str>>>);

impl Paths {
    /// Different paths kept, at most; beyond, a path belongs to its user alone.
    const KEPT_MAX: usize = 10_000;

    /// The shared copy of `path`.
    pub fn share(&self, path: &str) -> Arc<str> {
        let mut kept = self.0.lock();
        if let Some(known) = kept.get(path) {
            return Arc::clone(known);
        }
        let new: Arc<str> = path.into();
        if kept.len() < Self::KEPT_MAX {
            kept.insert(Arc::clone(&new));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_costs_48_bytes_and_forgets_nothing() {
        assert!(size_of::<Watch>() <= 48, "{}", size_of::<Watch>());
        let paths = Paths::default();
        let (a, b) = (paths.share("Inbox/"), paths.share("Inbox/"));
        assert!(Arc::ptr_eq(&a, &b));
        let folder = FolderId { installation: Guid([7; 16]), counter: 2 };
        let token = CollectionToken { epoch: 5, number: Number(12) };
        let watch = Watch::new(folder, Class::Email, a, Some(token), Some(1_700_000_000));
        assert_eq!(watch.folder(folder.installation), folder);
        assert_eq!(watch.since(), Since::Token(token));
        assert_eq!(watch.floor(), Some(1_700_000_000));
        let never = Watch::new(folder, Class::Notes, b, None, None);
        assert_eq!((never.since(), never.floor()), (Since::Nothing, None));
    }
}
