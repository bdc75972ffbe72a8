//! Writing items: delivery, PUT, flags, removal, moves. One read or two, then one commit.
//!
//! An item's id is the number of its addition and stays as long as the item stays in its folder; a
//! move is a tombstone there and an addition here. The change log keeps one live entry per item: a
//! change moves the entry to its new number.

use std::sync::Arc;

use directpush_common::change::{Entry, EntryKind, Gone, Live, Maker};
use directpush_common::names::{FolderId, Guid, ItemId};
use directpush_common::numbers::Number;

use super::condition::Conditions;
use super::record::{Item, LogEntry, Record};
use super::{Draft, FolderChange, Mailboxes, Writer, decode, keys, now_secs};
use crate::error::Error;
use crate::store::{BodyId, Index, Read};

/// An item to add, its body durable already.
#[derive(Clone, Debug)]
pub struct NewItem {
    pub body: BodyId,
    pub size: u64,
    pub content_type: String,
    /// When it was received, Unix seconds.
    pub date: i64,
    pub read: bool,
}

/// What a write made of an item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    pub epoch: u64,
    pub folder: u64,
    pub id: u64,
    pub changed: u64,
    /// The name had no item before.
    pub created: bool,
}

impl Written {
    pub fn etag(&self) -> String {
        etag(self.epoch, self.changed)
    }
}

/// An item's entity tag.
pub fn etag(epoch: u64, changed: u64) -> String {
    format!("\"{epoch}-{changed}\"")
}

/// How a path names an item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemName {
    Id(u64),
    Name(String),
}

/// Where a moved item goes.
#[derive(Clone, Debug)]
pub struct MoveTo {
    pub folder: u64,
    /// Keep the name it has when none is given.
    pub name: Option<String>,
    pub overwrite: bool,
}

/// The log entry of a live item.
pub fn entry(id: u64, item: &Item) -> Entry {
    Entry {
        id: ItemId(Number(id)),
        changed: Number(item.changed),
        kind: EntryKind::Live(Live {
            before: Number(item.before),
            maker: item.maker.clone(),
            added: item.added.clone(),
            date: item.date,
            size: item.size,
            read: item.read,
        }),
    }
}

/// The name of an item that was given none: its item section and `.eml`.
pub fn implied_name(installation: Guid, id: u64) -> String {
    let section = FolderId { installation, counter: id }.to_string();
    format!("{section}.eml")
}

/// The id in a name that [`implied_name`] made.
pub fn implied_id(installation: Guid, name: &str) -> Option<u64> {
    let section = name.get(..name.len().checked_sub(4)?)?;
    if !name.get(section.len()..)?.eq_ignore_ascii_case(".eml") {
        return None;
    }
    ItemId::from_section(&section.to_lowercase())
        .ok()
        .filter(|(guid, _)| *guid == installation)
        .map(|(_, id)| id.0.0)
}

/// Finds an item: one read by id, at most two by name.
pub(super) async fn find(
    index: &dyn Index,
    installation: Guid,
    mailbox: u64,
    folder: u64,
    name: &ItemName,
) -> Result<Option<(u64, Item)>, Error> {
    let id = match name {
        ItemName::Id(id) => *id,
        ItemName::Name(name) => {
            let implied = implied_id(installation, name);
            let mut read = Read::default().get(keys::name(mailbox, folder, name));
            if let Some(id) = implied {
                read = read.get(keys::item(mailbox, folder, id));
            }
            let found = index.read(read).await?;
            let mut gets = found.gets.into_iter();
            match (gets.next().flatten(), implied, gets.next().flatten()) {
                (Some(id), _, _) => decode::<u64>(mailbox, &id)?,
                (None, Some(id), Some(item)) => {
                    // One that was given a name goes by that name only.
                    let item: Item = decode(mailbox, &item)?;
                    return Ok(item.name.is_none().then_some((id, item)));
                }
                _ => return Ok(None),
            }
        }
    };
    let found = index.read(Read::default().get(keys::item(mailbox, folder, id))).await?;
    match found.gets.first().and_then(Option::as_ref) {
        Some(item) => Ok(Some((id, decode(mailbox, item)?))),
        None => Ok(None),
    }
}

impl Writer {
    async fn find(&self, folder: u64, name: &ItemName) -> Result<Option<(u64, Item)>, Error> {
        let index = &*self.boxes.store.index;
        find(index, self.state.head.installation, self.entry.id, folder, name).await
    }
}

impl Draft {
    fn log(&mut self, folder: u64, entry: Entry) {
        self.changes.push(FolderChange { folder, entry });
    }

    /// Adds an item; its id is the number it gets.
    fn add(&mut self, folder: u64, new: NewItem, name: Option<String>, maker: Maker) -> Result<u64, Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, id) = (self.mailbox, self.number());
        (head.changed, head.added) = (id, id);
        head.count += 1;
        head.unread += u64::from(!new.read);
        self.put_folder(folder, head);
        let item = Item {
            changed: id,
            before: 0,
            added: maker.clone(),
            maker,
            date: new.date,
            modified: now_secs(),
            size: new.size,
            read: new.read,
            body: new.body.0,
            content_type: new.content_type,
            name,
        };
        if let Some(name) = &item.name {
            self.put(keys::name(mailbox, folder, name), id.encode());
        }
        self.put(keys::item(mailbox, folder, id), item.encode());
        self.put(keys::log(mailbox, folder, id), LogEntry::Live(id).encode());
        self.put(keys::body_use(new.body, mailbox, folder, id), Vec::new());
        self.log(folder, entry(id, &item));
        Ok(id)
    }

    /// Writes what `edit` makes of an item, as a change by `maker`.
    fn change(
        &mut self,
        folder: u64,
        id: u64,
        mut item: Item,
        maker: Maker,
        edit: impl FnOnce(&mut Item),
    ) -> Result<u64, Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, number) = (self.mailbox, self.number());
        head.unread -= u64::from(!item.read).min(head.unread);
        self.delete(keys::log(mailbox, folder, item.changed));
        if item.maker != maker {
            item.before = item.changed;
        }
        (item.changed, item.maker, item.modified) = (number, maker, now_secs());
        edit(&mut item);
        head.changed = number;
        head.unread += u64::from(!item.read);
        self.put_folder(folder, head);
        self.put(keys::item(mailbox, folder, id), item.encode());
        self.put(keys::log(mailbox, folder, number), LogEntry::Live(id).encode());
        self.log(folder, entry(id, &item));
        Ok(number)
    }

    /// Takes an item out of its folder, leaving a tombstone. Its body loses a use unless it is `moved`.
    fn remove(&mut self, folder: u64, id: u64, item: &Item, maker: Maker, moved: bool) -> Result<u64, Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, number) = (self.mailbox, self.number());
        head.changed = number;
        head.count -= head.count.min(1);
        head.unread -= u64::from(!item.read).min(head.unread);
        self.put_folder(folder, head);
        if let Some(name) = &item.name {
            self.delete(keys::name(mailbox, folder, name));
        }
        self.delete(keys::item(mailbox, folder, id));
        self.delete(keys::log(mailbox, folder, item.changed));
        self.put(
            keys::log(mailbox, folder, number),
            LogEntry::Removed { item: id, maker: maker.clone(), date: item.date }.encode(),
        );
        self.delete(keys::body_use(BodyId(item.body), mailbox, folder, id));
        if !moved {
            self.dropped.push(BodyId(item.body));
        }
        let kind = EntryKind::Gone(Gone { maker, date: item.date });
        let entry = Entry { id: ItemId(Number(id)), changed: Number(number), kind };
        self.log(folder, entry);
        Ok(number)
    }

    /// A name that items without one of their own may get later must not be given away.
    fn check_name(&self, name: &str) -> Result<(), Error> {
        match implied_id(self.head.installation, name) {
            Some(id) if id > self.head.last => Err(Error::Forbidden("the name is reserved")),
            _ => Ok(()),
        }
    }
}

impl Mailboxes {
    /// Adds an item without a name: LMTP's way.
    pub async fn add(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        new: NewItem,
        maker: Maker,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let mut draft = writer.draft();
            let id = draft.add(folder, new, None, maker)?;
            writer.commit(draft).await?;
            let epoch = writer.state.head.epoch;
            Ok(Written { epoch, folder, id, changed: id, created: true })
        })
        .await
    }

    /// PUT: replaces the item of that name, or adds one under it.
    pub async fn put_item(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        new: NewItem,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let found = writer.find(folder, &name).await?;
            let tag = found.as_ref().map(|(_, item)| etag(epoch, item.changed));
            conditions.check(tag.as_deref())?;
            let mut draft = writer.draft();
            let created = found.is_none();
            let (id, changed) = match (found, name) {
                (Some((id, item)), _) => {
                    let mailbox = draft.mailbox;
                    draft.delete(keys::body_use(BodyId(item.body), mailbox, folder, id));
                    draft.put(keys::body_use(new.body, mailbox, folder, id), Vec::new());
                    draft.dropped.push(BodyId(item.body));
                    let changed = draft.change(folder, id, item, maker, |item| {
                        item.body = new.body.0;
                        item.size = new.size;
                        item.content_type = new.content_type;
                    })?;
                    (id, changed)
                }
                (None, ItemName::Id(_)) => return Err(Error::Gone("the item")),
                (None, ItemName::Name(name)) => {
                    draft.check_name(&name)?;
                    if draft.tree.child(folder, &name).is_some() {
                        return Err(Error::Conflict("a folder has this name"));
                    }
                    let id = draft.add(folder, new, Some(name), maker)?;
                    (id, id)
                }
            };
            writer.commit(draft).await?;
            Ok(Written { epoch, folder, id, changed, created })
        })
        .await
    }

    /// Sets the read flag. Setting what is set already changes nothing and gets no number.
    pub async fn set_read(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        read: bool,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let (id, item) = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check(Some(&etag(epoch, item.changed)))?;
            let mut changed = item.changed;
            if item.read != read {
                let mut draft = writer.draft();
                changed = draft.change(folder, id, item, maker, |item| item.read = read)?;
                writer.commit(draft).await?;
            }
            Ok(Written { epoch, folder, id, changed, created: false })
        })
        .await
    }

    /// Removes an item for good.
    pub async fn remove_item(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<(), Error> {
        self.write(mailbox, move |mut writer| async move {
            let (id, item) = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check(Some(&etag(writer.state.head.epoch, item.changed)))?;
            let mut draft = writer.draft();
            draft.remove(folder, id, &item, maker, false)?;
            writer.commit(draft).await
        })
        .await
    }

    /// Moves an item; it gets a new id in its new folder.
    pub async fn move_item(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        to: MoveTo,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let (id, item) = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check(Some(&etag(epoch, item.changed)))?;
            let new_name = to.name.or_else(|| item.name.clone());
            let mut draft = writer.draft();
            let mut created = true;
            if let Some(name) = &new_name {
                draft.check_name(name)?;
                if draft.tree.child(to.folder, name).is_some() {
                    return Err(Error::Conflict("a folder has this name"));
                }
                let there = writer.find(to.folder, &ItemName::Name(name.clone())).await?;
                if let Some((other, old)) = there.filter(|(other, _)| (to.folder, *other) != (folder, id)) {
                    if !to.overwrite {
                        return Err(Error::Precondition);
                    }
                    created = false;
                    draft.remove(to.folder, other, &old, maker.clone(), false)?;
                }
            }
            draft.remove(folder, id, &item, maker.clone(), true)?;
            let new = NewItem {
                body: BodyId(item.body),
                size: item.size,
                content_type: item.content_type,
                date: item.date,
                read: item.read,
            };
            let id = draft.add(to.folder, new, new_name, maker)?;
            writer.commit(draft).await?;
            Ok(Written { epoch, folder: to.folder, id, changed: id, created })
        })
        .await
    }
}
