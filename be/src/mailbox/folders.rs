//! The folder tree of one mailbox: the default folders, and the tree as it stands.
//!
//! Default folders have the same counters in every mailbox of an installation, so their ids are
//! the same too. `Tree` is a value: the owner publishes a new one after each commit, and readers
//! keep the one they took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directpush_common::dav::hierarchy::Class;

use super::quota::Usage;
use super::record::{Folder, Held};

/// The mailbox root's counter. It is no folder of the hierarchy: its children have parent `0` there.
pub const ROOT: u64 = 1;
/// The Inbox's counter: where LMTP delivers.
pub const INBOX: u64 = 2;
/// Where LMTP delivers what the MTA's filter marked as spam.
pub const JUNK: u64 = 11;
/// The first counter that a user's own folder gets; those below are the default folders'.
pub const FIRST_OWN: u64 = 16;
/// How deep folders may be nested.
pub const DEPTH_MAX: usize = 32;

/// The EAS type of a folder that a user made ([MS-ASCMD] 2.2.3.186.3 Type (FolderSync)): 1 is any, 12 mail,
/// 13 calendar, 14 contacts, 15 tasks, 16 journal, 17 notes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnType(u8);

impl OwnType {
    /// None for the default folders' types, which nobody makes, and for what is no type.
    pub fn from_code(code: u8) -> Option<Self> {
        matches!(code, 1 | 12..=17).then_some(Self(code))
    }

    pub fn of(class: Class) -> Self {
        Self(match class {
            Class::Email => 12,
            Class::Calendar => 13,
            Class::Contacts => 14,
            Class::Tasks => 15,
            Class::Notes => 17,
        })
    }

    pub fn code(self) -> u8 {
        self.0
    }

    /// What its items are. Entries of a journal are kept as text, like notes.
    pub fn class(self) -> Class {
        match self.0 {
            13 => Class::Calendar,
            14 => Class::Contacts,
            15 => Class::Tasks,
            16 | 17 => Class::Notes,
            _ => Class::Email,
        }
    }
}

/// Counter, name, EAS type and class of the folders every mailbox is born with.
pub const DEFAULTS: [(u64, &str, u8, Class); 10] = [
    (INBOX, "Inbox", 2, Class::Email),
    (3, "Drafts", 3, Class::Email),
    (4, "Deleted Items", 4, Class::Email),
    (5, "Sent Items", 5, Class::Email),
    (6, "Outbox", 6, Class::Email),
    (7, "Tasks", 7, Class::Tasks),
    (8, "Calendar", 8, Class::Calendar),
    (9, "Contacts", 9, Class::Contacts),
    (10, "Notes", 10, Class::Notes),
    (JUNK, "Junk E-mail", 12, Class::Email),
];

/// The hierarchy number at which the default folders were made, in every mailbox.
pub const BIRTH: u64 = 1;

/// The default folders of a new mailbox.
pub fn defaults(now_secs: i64) -> BTreeMap<u64, Folder> {
    DEFAULTS
        .iter()
        .map(|&(counter, name, kind, class)| {
            let folder = Folder {
                parent: ROOT,
                kind,
                class,
                name: name.to_owned(),
                created: BIRTH,
                moved: BIRTH,
                changed: BIRTH,
                added: 0,
                count: 0,
                unread: 0,
                forgotten: 0,
                date: now_secs,
                held: Held::NOTHING,
            };
            (counter, folder)
        })
        .collect()
}

/// Names are looked up without regard to case, as Exchange does; the case written is kept.
pub fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// The folders of a mailbox at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    folders: BTreeMap<u64, Arc<Folder>>,
    /// Parent and child.
    below: BTreeSet<(u64, u64)>,
    /// The sum over all folders, kept with every change.
    usage: Usage,
}

impl Tree {
    pub fn new(folders: impl IntoIterator<Item = (u64, Folder)>) -> Self {
        let mut tree = Self::default();
        for (counter, folder) in folders {
            tree.insert(counter, folder);
        }
        tree
    }

    /// What counts against the mailbox's quota.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub fn folder(&self, counter: u64) -> Option<&Arc<Folder>> {
        self.folders.get(&counter)
    }

    pub fn len(&self) -> usize {
        self.folders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Folder>)> {
        self.folders.iter().map(|(&counter, folder)| (counter, folder))
    }

    pub fn children(&self, parent: u64) -> impl Iterator<Item = (u64, &Arc<Folder>)> {
        let below = self.below.range((parent, 0)..=(parent, u64::MAX));
        below.filter_map(|(_, child)| self.folders.get(child).map(|folder| (*child, folder)))
    }

    /// The child of `parent` by that name, whatever its case.
    pub fn child(&self, parent: u64, name: &str) -> Option<u64> {
        let wanted = folded(name);
        self.children(parent).find(|(_, folder)| folded(&folder.name) == wanted).map(|(counter, _)| counter)
    }

    /// The names from the top down to a folder; none when it (or a parent) is gone.
    pub fn path(&self, counter: u64) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        let mut at = counter;
        while at != ROOT {
            let folder = self.folders.get(&at)?;
            names.push(folder.name.as_str());
            at = folder.parent;
            if names.len() > DEPTH_MAX + 1 {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    /// A folder and all below it, itself first.
    pub fn subtree(&self, counter: u64) -> Vec<u64> {
        let mut found = vec![counter];
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            found.extend(self.children(parent).map(|(child, _)| child));
            next += 1;
        }
        found
    }

    pub fn insert(&mut self, counter: u64, folder: Folder) {
        self.usage.add(&folder);
        let parent = folder.parent;
        if let Some(old) = self.folders.insert(counter, Arc::new(folder)) {
            self.usage.subtract(&old);
            self.below.remove(&(old.parent, counter));
        }
        self.below.insert((parent, counter));
    }

    pub fn remove(&mut self, counter: u64) {
        if let Some(old) = self.folders.remove(&counter) {
            self.usage.subtract(&old);
            self.below.remove(&(old.parent, counter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(defaults(0));
        let inbox = Folder::clone(tree.folder(INBOX).unwrap());
        tree.insert(16, Folder { parent: INBOX, name: "Lists".into(), ..inbox.clone() });
        tree.insert(17, Folder { parent: 16, name: "Rust".into(), ..inbox });
        tree
    }

    #[test]
    fn names_ignore_case_and_keep_it() {
        let tree = tree();
        assert_eq!(tree.child(ROOT, "INBOX"), Some(INBOX));
        assert_eq!(tree.child(INBOX, "lists"), Some(16));
        assert_eq!(tree.path(17).unwrap(), ["Inbox", "Lists", "Rust"]);
        assert_eq!(tree.child(ROOT, "Lists"), None);
    }

    #[test]
    fn a_subtree_is_everything_below() {
        assert_eq!(tree().subtree(INBOX), [INBOX, 16, 17]);
        assert_eq!(tree().subtree(3), [3]);
        let mut tree = tree();
        let lists = Folder::clone(tree.folder(16).unwrap());
        tree.insert(16, Folder { parent: 3, ..lists });
        assert_eq!((tree.subtree(INBOX), tree.subtree(3)), (vec![INBOX], vec![3, 16, 17]));
        tree.remove(16);
        assert_eq!(tree.subtree(3), [3]);
    }
}
