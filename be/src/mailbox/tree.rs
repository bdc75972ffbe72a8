//! Writing the folder tree: make, rename or move, remove. Each is one commit and moves the hierarchy
//! number, which ends the Pings of devices that know an older one.

use std::sync::Arc;

use directpush_common::dav::hierarchy::Class;
use directpush_common::names::DeviceKey;

use super::folders::{DEPTH_MAX, FIRST_OWN, ROOT, own_type};
use super::record::{Folder, Record};
use super::{Mailboxes, Writer, keys, now_secs};
use crate::error::Error;
use crate::store::Read;

/// What of the folder tree a `dp:hierarchy` report tells.
#[derive(Clone, Debug, Default)]
pub struct TreeChanges {
    /// Counters of folders made, renamed or moved since.
    pub changed: Vec<u64>,
    pub removed: Vec<u64>,
}

impl Writer {
    /// Refuses a place for a folder that is taken, missing, or too deep; gives its class by inheritance.
    async fn check_place(&self, parent: u64, name: &str) -> Result<Class, Error> {
        let tree = &self.state.tree;
        let class = match (parent, tree.folder(parent)) {
            (ROOT, _) => Class::Email,
            (_, Some(folder)) => folder.class,
            (_, None) => return Err(Error::Conflict("the folder above does not exist")),
        };
        if tree.child(parent, name).is_some() {
            return Err(Error::Conflict("a folder of this name exists"));
        }
        if parent != ROOT {
            if tree.path(parent).is_none_or(|path| path.len() >= DEPTH_MAX) {
                return Err(Error::OverBound("the depth of folders"));
            }
            let index = &*self.boxes.store.index;
            let key = keys::name(self.entry.id, parent, name);
            let found = index.read(Read::default().get(key)).await?;
            if found.gets.first().is_some_and(Option::is_some) {
                return Err(Error::Conflict("an item has this name"));
            }
        }
        Ok(class)
    }
}

impl Mailboxes {
    /// Makes a folder; without a class it takes its parent's.
    pub async fn make_folder(
        self: &Arc<Self>,
        mailbox: u64,
        parent: u64,
        name: String,
        class: Option<Class>,
        by: Option<DeviceKey>,
    ) -> Result<u64, Error> {
        self.write(mailbox, move |mut writer| async move {
            let inherited = writer.check_place(parent, &name).await?;
            if writer.state.tree.len() >= keys::FOLDERS_MAX {
                return Err(Error::OverBound("the number of folders"));
            }
            let class = class.unwrap_or(inherited);
            let mut draft = writer.draft();
            draft.by = by;
            let number = draft.number();
            draft.head.hierarchy = number;
            let counter = draft.head.next_folder;
            draft.head.next_folder += 1;
            draft.put_folder(
                counter,
                Folder {
                    parent,
                    kind: own_type(class),
                    class,
                    name,
                    created: number,
                    moved: number,
                    changed: number,
                    added: 0,
                    count: 0,
                    unread: 0,
                    forgotten: 0,
                    date: now_secs(),
                },
            );
            writer.commit(draft).await?;
            Ok(counter)
        })
        .await
    }

    /// Gives a folder another name, another parent, or both. Its id stays.
    pub async fn move_folder(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        parent: u64,
        name: String,
        by: Option<DeviceKey>,
    ) -> Result<(), Error> {
        self.write(mailbox, move |mut writer| async move {
            let tree = &writer.state.tree;
            let subtree = tree.subtree(counter);
            if counter < FIRST_OWN {
                return Err(Error::Forbidden("a default folder stays where it is"));
            }
            if subtree.contains(&parent) {
                return Err(Error::Forbidden("a folder cannot be moved below itself"));
            }
            if tree.child(parent, &name) != Some(counter) {
                writer.check_place(parent, &name).await?;
            }
            let height =
                subtree.iter().filter_map(|&below| writer.state.tree.path(below)).map(|path| path.len());
            let own = writer.state.tree.path(counter).ok_or(Error::Gone("the folder"))?.len();
            let above =
                if parent == ROOT { 0 } else { writer.state.tree.path(parent).map_or(0, |path| path.len()) };
            if above + height.max().unwrap_or(own) - own >= DEPTH_MAX {
                return Err(Error::OverBound("the depth of folders"));
            }
            let mut draft = writer.draft();
            draft.by = by;
            let mut folder = draft.folder(counter)?;
            let number = draft.number();
            draft.head.hierarchy = number;
            (folder.parent, folder.name, folder.moved) = (parent, name, number);
            draft.put_folder(counter, folder);
            writer.commit(draft).await
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
    ) -> Result<(), Error> {
        self.write(mailbox, move |mut writer| async move {
            if counter < FIRST_OWN {
                return Err(Error::Forbidden("a default folder cannot be removed"));
            }
            if writer.state.tree.folder(counter).is_none() {
                return Err(Error::Gone("the folder"));
            }
            let mut draft = writer.draft();
            draft.by = by;
            for gone in writer.state.tree.subtree(counter) {
                let number = draft.number();
                draft.head.hierarchy = number;
                draft.tree.remove(gone);
                draft.delete(keys::folder(mailbox, gone));
                draft.put(keys::folder_gone(mailbox, number), gone.encode());
                draft.put(keys::garbage(mailbox, gone), Vec::new());
            }
            draft.garbage = true;
            writer.commit(draft).await
        })
        .await
    }

    /// What became of the folder tree since a hierarchy number.
    pub async fn tree_changes(
        &self,
        state: &super::State,
        mailbox: u64,
        since: u64,
    ) -> Result<TreeChanges, Error> {
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
