//! Writing the folder tree: make and remove. Each is one commit and moves the hierarchy number, which ends
//! the Pings of devices that know an older one. Here too is what a place must be like for something to be
//! put there. Not here: copies and moves (`transfer`).

use std::sync::Arc;

use directpush_common::change::Maker;
use directpush_common::dav::hierarchy::Class;
use directpush_common::names::DeviceKey;

use super::folders::{FIRST_OWN, OwnType, ROOT};
use super::items::{ItemName, Member};
use super::properties::Properties;
use super::record::{Folder, Held, Record};
use super::{Draft, Mailboxes, State, Writer, keys, now_secs};
use crate::error::Error;
use crate::store::Read;

/// What of the folder tree a `dp:hierarchy` report tells.
#[derive(Clone, Debug, Default)]
pub struct TreeChanges {
    /// Counters of folders made, renamed or moved since.
    pub changed: Vec<u64>,
    pub removed: Vec<u64>,
}

/// What a write made of the folder tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeWritten {
    /// The folder's counter.
    pub folder: u64,
    /// Nothing was there before.
    pub created: bool,
    /// The mailbox's hierarchy number with it.
    pub hierarchy: u64,
}

/// What a name in a folder stands for.
pub(super) enum Occupant {
    Folder(u64),
    Member(Box<Member>),
}

impl State {
    /// How deep a folder lies: 0 is the mailbox, 1 the top.
    pub(super) fn depth(&self, folder: u64) -> Result<usize, Error> {
        if folder == ROOT {
            return Ok(0);
        }
        let path = self.tree.path(folder).ok_or(Error::Conflict("the folder above does not exist"))?;
        Ok(path.len())
    }

    /// The class that a folder made there has.
    pub(super) fn class_below(&self, parent: u64) -> Class {
        self.tree.folder(parent).map_or(Class::Email, |folder| folder.class)
    }
}

impl Writer {
    /// What has this name in that folder.
    pub(super) async fn occupant(&self, folder: u64, name: &str) -> Result<Option<Occupant>, Error> {
        if let Some(counter) = self.state.tree.child(folder, name) {
            return Ok(Some(Occupant::Folder(counter)));
        }
        if folder == ROOT {
            return Ok(None);
        }
        let found = self.find(folder, &ItemName::Name(name.to_owned())).await?;
        Ok(found.map(|member| Occupant::Member(Box::new(member))))
    }

    /// Refuses a place that is missing or too deep for a tree of folders `height` levels high.
    pub(super) fn check_depth(&self, parent: u64, height: usize) -> Result<(), Error> {
        let depth = self.state.depth(parent)? + height;
        self.state.quota(&self.boxes).check_depth(depth).map_err(Error::Quota)
    }
}

impl Draft {
    /// Makes a folder; its dead properties come with it.
    pub(super) fn add_folder(
        &mut self,
        parent: u64,
        name: String,
        kind: OwnType,
        properties: &Properties,
    ) -> Result<u64, Error> {
        if self.tree.len() >= keys::FOLDERS_MAX {
            return Err(Error::OverBound("the number of folders"));
        }
        let number = self.number();
        self.head.hierarchy = number;
        let counter = self.head.next_folder;
        self.head.next_folder += 1;
        let property_bytes = properties.bytes();
        let folder = Folder {
            parent,
            kind: kind.code(),
            class: kind.class(),
            name,
            created: number,
            moved: number,
            changed: number,
            added: 0,
            count: 0,
            unread: 0,
            forgotten: 0,
            date: now_secs(),
            held: Held { property_bytes, own_property_bytes: property_bytes, ..Held::NOTHING },
        };
        self.put_folder(counter, folder);
        if property_bytes != 0 {
            self.put_properties(counter, 0, properties);
        }
        Ok(counter)
    }

    /// Takes a folder and all below it away. What they hold is dropped behind, a batch at a time.
    pub(super) fn remove_folder(&mut self, counter: u64) -> Result<(), Error> {
        if counter < FIRST_OWN {
            return Err(Error::Forbidden("a default folder cannot be removed"));
        }
        let mailbox = self.mailbox;
        for gone in self.tree.subtree(counter) {
            let number = self.number();
            self.head.hierarchy = number;
            self.tree.remove(gone);
            self.touched.remove(&gone);
            self.delete(keys::folder(mailbox, gone));
            self.put(keys::folder_gone(mailbox, number), gone.encode());
            self.put(keys::garbage(mailbox, gone), Vec::new());
        }
        self.garbage = true;
        Ok(())
    }

    /// Takes away what stands where something is to be put. A device that did it hears of it: what it moved is
    /// its own business, what had to go for it is not.
    pub(super) fn remove_occupant(
        &mut self,
        folder: u64,
        occupant: &Occupant,
        maker: &Maker,
    ) -> Result<(), Error> {
        match occupant {
            Occupant::Folder(counter) => self.remove_folder(*counter),
            Occupant::Member(member) => {
                let maker = Maker { device: None, cause: maker.cause };
                self.remove_member(folder, member, maker, false)
            }
        }
    }
}

impl Mailboxes {
    /// Makes a folder; without a type it is for what its parent is for.
    pub async fn make_folder(
        self: &Arc<Self>,
        mailbox: u64,
        parent: u64,
        name: String,
        kind: Option<OwnType>,
        by: Option<DeviceKey>,
    ) -> Result<TreeWritten, Error> {
        self.write(mailbox, move |mut writer| async move {
            writer.check_depth(parent, 1)?;
            match writer.occupant(parent, &name).await? {
                Some(Occupant::Folder(_)) => return Err(Error::Taken("a folder of this name exists")),
                Some(Occupant::Member(_)) => return Err(Error::Taken("an item has this name")),
                None => {}
            }
            let kind = kind.unwrap_or_else(|| OwnType::of(writer.state.class_below(parent)));
            let mut draft = writer.draft();
            draft.check_name(&name)?;
            draft.by = by;
            let folder = draft.add_folder(parent, name, kind, &Properties::default())?;
            writer.commit(draft).await?;
            Ok(TreeWritten { folder, created: true, hierarchy: writer.state.head.hierarchy })
        })
        .await
    }

    /// Removes a folder and all below it. It is out of reach with the commit; its items are dropped
    /// behind, a batch at a time.
    pub async fn remove_folder(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        by: Option<DeviceKey>,
    ) -> Result<TreeWritten, Error> {
        self.write(mailbox, move |mut writer| async move {
            if writer.state.tree.folder(counter).is_none() {
                return Err(Error::Gone("the folder"));
            }
            let mut draft = writer.draft();
            draft.by = by;
            draft.remove_folder(counter)?;
            writer.commit(draft).await?;
            Ok(TreeWritten { folder: counter, created: false, hierarchy: writer.state.head.hierarchy })
        })
        .await
    }

    /// What became of the folder tree since a hierarchy number.
    pub async fn tree_changes(&self, state: &State, mailbox: u64, since: u64) -> Result<TreeChanges, Error> {
        let changed =
            state.tree.iter().filter(|(_, folder)| folder.moved > since).map(|(at, _)| at).collect();
        let mut removed = Vec::new();
        if since > 0 && since < state.head.hierarchy {
            let range = keys::folders_gone_above(mailbox, since);
            let found = self.store.index.read(Read::default().range(range)).await?;
            for (_, counter) in found.ranges.iter().flatten() {
                removed.push(super::decode(mailbox, counter)?);
            }
        }
        Ok(TreeChanges { changed, removed })
    }
}
