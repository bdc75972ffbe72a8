//! What one Ping watches, in as few bytes as it takes to subscribe again after a restart.
//!
//! The list is made once and shared by the device's remembered state and its waiting Pings. A
//! folder costs 32 bytes here; its URL below the mailbox is shared by all mailboxes that have it.
use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::subscribe::Since;
use directpush_common::names::{FolderId, Guid};
use directpush_common::numbers::{CollectionToken, Number};
use smallvec::SmallVec;

use super::words::Word;

/// Change number that stands for "never synchronised".
const NEVER_SYNCED: u64 = u64::MAX;
/// Change number that stands for "only what comes from now on".
const FROM_NOW_ON: u64 = u64::MAX - 1;
/// Change number that stands for "a token of an epoch that is over": the device has to start the folder over.
const OUTDATED: u64 = u64::MAX - 2;

/// One folder that a Ping watches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watch {
    counter: u64,
    number: u64,
    path: Word,
    floor: u32,
    class: Class,
    /// The class is the folder's own, not only what the device says of it.
    certain: bool,
    pending: bool,
}

/// All folders that a Ping watches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watches {
    /// The installation that the folder ids begin with.
    pub installation: Guid,
    /// The hierarchy number that the device knows.
    pub hierarchy: Number,
    /// The mailbox epoch of all tokens; those of another are [`OUTDATED`].
    epoch: u64,
    folders: SmallVec<[Watch; 1]>,
}

impl Watch {
    /// A folder of this class that was never synchronised. `path` is its URL below the mailbox, encoded.
    pub fn new(counter: u64, class: Class, path: Word) -> Self {
        Self { counter, number: NEVER_SYNCED, path, floor: 0, class, certain: true, pending: false }
    }

    /// The same folder; the device says that it is of this class.
    #[must_use]
    pub fn called(self, class: Class) -> Self {
        Self { class, certain: self.certain && class == self.class, ..self }
    }

    /// Whether the device was told that there is more, and has not fetched it.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Whether the device never synchronised it.
    pub fn is_new(&self) -> bool {
        self.number == NEVER_SYNCED
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

    /// Items received before never count, Unix seconds.
    pub fn floor(&self) -> Option<i64> {
        (self.floor > 0).then(|| i64::from(self.floor))
    }
}

impl Watches {
    /// A list without folders. `hierarchy` is what the device's last FolderSync saw.
    pub fn new(installation: Guid, hierarchy: Number, folders: usize) -> Self {
        Self { installation, hierarchy, epoch: 0, folders: SmallVec::with_capacity(folders) }
    }

    /// Adds a folder.
    pub fn push(&mut self, watch: Watch) {
        self.folders.push(watch);
    }

    /// The folders, in the device's order.
    pub fn folders(&self) -> &[Watch] {
        &self.folders
    }

    /// Where a folder stands in the list.
    pub fn position(&self, folder: FolderId) -> Option<usize> {
        let here = folder.installation == self.installation;
        self.folders.iter().position(|watch| here && watch.counter == folder.counter)
    }

    /// A folder, if its class is certain.
    pub fn watch_of(&self, folder: FolderId) -> Option<Watch> {
        let watch = &self.folders[self.position(folder)?];
        watch.certain.then(|| watch.clone())
    }

    /// The list of these folders, if all of them are in this one.
    pub fn select(&self, folders: impl Iterator<Item = (FolderId, Class)>) -> Option<Self> {
        let one = |(folder, class)| Some(self.folders[self.position(folder)?].clone().called(class));
        let mut selected: SmallVec<[Watch; 1]> = folders.map(one).collect::<Option<_>>()?;
        selected.shrink_to_fit();
        let Self { installation, hierarchy, epoch, .. } = *self;
        Some(Self { installation, hierarchy, epoch, folders: selected })
    }

    /// The device's last Sync response of the folder at `at` carried this token under this floor (the date floor of the
    /// device's FilterType in Unix seconds); `pending` when it said that there is more to fetch.
    pub fn set_known(
        &mut self,
        at: usize,
        token: Option<CollectionToken>,
        floor: Option<i64>,
        pending: bool,
    ) {
        if let Some(token) = token.filter(|token| token.epoch != self.epoch) {
            // A mailbox has one epoch: tokens of the one before are worth nothing.
            self.epoch = token.epoch;
            for watch in self.folders.iter_mut().filter(|watch| watch.number < OUTDATED) {
                watch.number = OUTDATED;
            }
        }
        let Some(watch) = self.folders.get_mut(at) else { return };
        watch.number = token.map_or(NEVER_SYNCED, |token| token.number.0.min(OUTDATED));
        watch.floor = seconds(floor);
        // A collection that was only begun has all before it: that is "never", not "more".
        watch.pending = pending && token.is_some();
    }

    /// The same list; of folders that were never synchronised only what comes from now on counts.
    #[must_use]
    pub fn without_unsynced(&self) -> Self {
        let mut watches = self.clone();
        watches
            .folders
            .iter_mut()
            .filter(|watch| watch.is_new())
            .for_each(|watch| watch.number = FROM_NOW_ON);
        watches
    }

    /// What the device knows of one of the folders.
    pub fn since(&self, watch: &Watch) -> Since {
        match watch.number {
            NEVER_SYNCED => Since::Nothing,
            FROM_NOW_ON => Since::Now,
            // No mailbox has the epoch 0, so the back end will say that the token is worth nothing.
            OUTDATED => Since::Token(CollectionToken { epoch: 0, number: Number(0) }),
            number => Since::Token(CollectionToken { epoch: self.epoch, number: Number(number) }),
        }
    }
}

fn seconds(floor: Option<i64>) -> u32 {
    floor.and_then(|floor| u32::try_from(floor).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::words::Words;

    const FOLDER: FolderId = FolderId { installation: Guid([7; 16]), counter: 2 };

    fn token(epoch: u64, number: u64) -> CollectionToken {
        CollectionToken { epoch, number: Number(number) }
    }

    fn watching(folders: u64) -> Watches {
        let words = Words::default();
        let mut watches = Watches::new(FOLDER.installation, Number(3), 2);
        for counter in 2..2 + folders {
            watches.push(Watch::new(counter, Class::Email, words.share("Inbox/")));
        }
        watches
    }

    #[test]
    fn a_folder_costs_32_bytes_and_forgets_nothing() {
        assert!(size_of::<Watch>() <= 32, "{}", size_of::<Watch>());
        let mut watches = watching(2);
        assert_eq!(watches.position(FOLDER), Some(0));
        watches.set_known(0, Some(token(5, 12)), Some(1_700_000_000), true);
        let [known, never] = watches.folders() else { panic!("two folders") };
        assert_eq!((known.path(), known.folder(watches.installation)), ("Inbox/", FOLDER));
        assert_eq!(watches.since(known), Since::Token(token(5, 12)));
        assert_eq!((known.floor(), known.is_pending(), known.is_new()), (Some(1_700_000_000), true, false));
        assert_eq!((watches.since(never), never.floor(), never.is_new()), (Since::Nothing, None, true));
        let told = watches.without_unsynced();
        assert_eq!(told.since(&told.folders()[1]), Since::Now);
        assert_eq!(told.since(&told.folders()[0]), Since::Token(token(5, 12)));
    }

    #[test]
    fn a_token_of_a_new_epoch_outdates_the_others() {
        let mut watches = watching(3);
        watches.set_known(0, Some(token(5, 12)), None, false);
        watches.set_known(1, Some(token(6, 1)), None, false);
        let since: Vec<Since> = watches.folders().iter().map(|watch| watches.since(watch)).collect();
        let Since::Token(outdated) = since[0] else { panic!("{since:?}") };
        assert!(outdated.epoch != 5 && outdated.epoch != 6);
        assert_eq!(since[1..], [Since::Token(token(6, 1)), Since::Nothing]);
    }
}
