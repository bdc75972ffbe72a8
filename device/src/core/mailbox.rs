//! What a device holds: its folders, their SyncKeys and items, and its own changes that wait to be uploaded.
//!
//! Filled from nothing but responses, so that a test can lay it beside the mailbox on the server.

use std::collections::BTreeMap;

use directpush_common::{
    eas::{
        folder_sync::{Folder, FolderType, HierarchyChanges},
        status::SyncStatus,
        sync::{
            ApplicationData, CollectionResponse, CommandResponse, ServerCommand, SyncCommand, email_read,
        },
    },
    wbxml::{
        Element,
        tags::{air_sync_base, email},
    },
};

/// An item on the device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Subject.
    pub subject: Box<str>,
    /// From.
    pub from: Box<str>,
    /// The text that came with it.
    pub body: Box<str>,
    /// The read flag.
    pub read: bool,
}

/// A folder on the device.
#[derive(Clone, Debug)]
pub struct Collection {
    /// What it is for.
    pub kind: FolderType,
    /// Its name.
    pub name: Box<str>,
    /// The key of the last response; `0` = never synced.
    pub sync_key: Box<str>,
    /// Its items by server id.
    pub items: BTreeMap<Box<str>, Held>,
    /// Whether the next thing to do is to Sync it.
    pub stale: bool,
    /// Own changes that no response has confirmed yet.
    pub uploads: Vec<SyncCommand>,
}

/// What a Sync response changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// An item came.
    Added {
        /// Its folder.
        folder: String,
        /// The item.
        item: String,
    },
    /// An item is different now.
    Changed {
        /// Its folder.
        folder: String,
        /// The item.
        item: String,
    },
    /// An item went.
    Removed {
        /// Its folder.
        folder: String,
        /// The item.
        item: String,
    },
}

/// All folders on the device, by server id. Only those that it keeps or watches are in here.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    /// The key of the last FolderSync; `0` = none.
    pub hierarchy_key: Box<str>,
    /// The folders.
    pub folders: BTreeMap<Box<str>, Collection>,
}

impl Mailbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { hierarchy_key: "0".into(), folders: BTreeMap::new() }
    }

    /// The folder of this purpose.
    pub fn folder_of(&self, kind: FolderType) -> Option<(&str, &Collection)> {
        self.folders.iter().find(|(_, folder)| folder.kind == kind).map(|(id, folder)| (&**id, folder))
    }

    /// Takes over what FolderSync said. `wanted` says whether a folder of this purpose is kept at all.
    pub fn apply_hierarchy(&mut self, changes: HierarchyChanges, wanted: impl Fn(FolderType) -> bool) {
        if &*self.hierarchy_key == "0" {
            // A full list: what it does not name is gone.
            let named = |id: &str| changes.added.iter().any(|folder| folder.server_id == id);
            self.folders.retain(|id, _| named(id));
        }
        self.hierarchy_key = changes.sync_key.into();
        for id in &changes.deleted {
            self.folders.remove(id.as_str());
        }
        for folder in changes.added.into_iter().chain(changes.updated) {
            let Folder { server_id, display_name, kind, .. } = folder;
            if !wanted(kind) {
                continue;
            }
            let known = self.folders.entry(server_id.into()).or_insert_with(|| Collection {
                kind,
                name: "".into(),
                sync_key: "0".into(),
                items: BTreeMap::new(),
                stale: true,
                uploads: Vec::new(),
            });
            known.name = display_name.into();
        }
    }

    /// Takes over what Sync said of one collection. `uploaded` is how many of its uploads were in the request.
    pub fn apply(&mut self, response: CollectionResponse, uploaded: usize) -> Vec<News> {
        let CollectionResponse {
            collection_id: folder, sync_key, more_available, commands, responses, ..
        } = response;
        let Some(known) = self.folders.get_mut(folder.as_str()) else { return Vec::new() };
        let begun = &*known.sync_key == "0";
        known.sync_key = sync_key.into();
        known.confirm(uploaded);
        // The answer to key 0 carries no items: the first real Sync follows.
        known.stale |= more_available || begun;
        let mut news = Vec::new();
        for command in commands {
            let folder = folder.clone();
            match command {
                ServerCommand::Add { server_id, data } => {
                    let old = known.items.insert(server_id.as_str().into(), Held::read(&data));
                    let item = server_id;
                    news.push(match old {
                        Some(_) => News::Changed { folder, item },
                        None => News::Added { folder, item },
                    });
                }
                ServerCommand::Change { server_id, data } => {
                    // What the device does not hold it may just have deleted; it does not come back by a flag.
                    if let Some(held) = known.items.get_mut(server_id.as_str()) {
                        held.change(&data);
                        news.push(News::Changed { folder, item: server_id });
                    }
                }
                ServerCommand::Delete { server_id } | ServerCommand::SoftDelete { server_id } => {
                    if known.items.remove(server_id.as_str()).is_some() {
                        news.push(News::Removed { folder, item: server_id });
                    }
                }
            }
        }
        for response in responses {
            // What the server does not have, the device need not hold.
            if let CommandResponse::Change { server_id, status: SyncStatus::ObjectNotFound } = response
                && known.items.remove(server_id.as_str()).is_some()
            {
                news.push(News::Removed { folder: folder.clone(), item: server_id });
            }
        }
        known.edit_again();
        news
    }

    /// Marks a message read or unread; the next Sync uploads it. False if there is no such item.
    pub fn mark_read(&mut self, folder: &str, item: &str, read: bool) -> bool {
        let Some(known) = self.folders.get_mut(folder) else { return false };
        let Some(held) = known.items.get_mut(item) else { return false };
        held.read = read;
        let data = vec![Element::text(email::READ, if read { "1" } else { "0" })];
        known.uploads.push(SyncCommand::Change { server_id: item.to_owned(), data });
        known.stale = true;
        true
    }

    /// Deletes a message; the next Sync uploads it. False if there is no such item.
    pub fn delete(&mut self, folder: &str, item: &str) -> bool {
        let Some(known) = self.folders.get_mut(folder) else { return false };
        if known.items.remove(item).is_none() {
            return false;
        }
        known.uploads.push(SyncCommand::Delete { server_id: item.to_owned() });
        known.stale = true;
        true
    }

    /// Status 3: the collection starts over.
    pub fn start_over(&mut self, folder: &str) {
        if let Some(known) = self.folders.get_mut(folder) {
            known.sync_key = "0".into();
            known.items.clear();
            known.uploads.clear();
            known.stale = true;
        }
    }
}

impl Collection {
    /// The first `uploaded` of its own changes are on the server. Those made since make the next Sync.
    pub(super) fn confirm(&mut self, uploaded: usize) {
        self.uploads.drain(..uploaded.min(self.uploads.len()));
        self.stale = !self.uploads.is_empty();
    }

    /// What the user changed since the request went out is newer than what the answer says.
    fn edit_again(&mut self) {
        for upload in &self.uploads {
            match upload {
                SyncCommand::Change { server_id, data } => {
                    if let Some(held) = self.items.get_mut(server_id.as_str()) {
                        held.change(data);
                    }
                }
                SyncCommand::Delete { server_id } => {
                    self.items.remove(server_id.as_str());
                }
                SyncCommand::Add { .. } | SyncCommand::Fetch { .. } => {}
            }
        }
    }
}

impl Held {
    fn read(data: &ApplicationData) -> Self {
        let mut held = Self::default();
        held.change(data);
        held
    }

    fn change(&mut self, data: &ApplicationData) {
        if let Some(read) = email_read(data) {
            self.read = read;
        }
        for element in data {
            let text = || element.own_text().into();
            match element.tag {
                email::SUBJECT => self.subject = text(),
                email::FROM => self.from = text(),
                email::BODY => self.body = text(),
                air_sync_base::BODY => {
                    let data = element.children().find(|child| child.tag == air_sync_base::DATA);
                    self.body = data.map(|data| data.own_text().into()).unwrap_or_default();
                }
                _ => {}
            }
        }
    }
}
