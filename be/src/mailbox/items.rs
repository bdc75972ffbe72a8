//! Writing the members of a folder: delivery, PUT, flags, removal. One read or two, then one commit.
//!
//! A member is an item of its folder's class, or a file: whatever else a DAV client keeps there. A file has
//! an id and an entity tag too, but no place in the change log, so no phone hears of it.
//!
//! An item's id is the number of its addition and stays as long as the item stays in its folder; a
//! move is a tombstone there and an addition here. The change log keeps one live entry per item: a
//! change moves the entry to its new number.
//!
//! Not here: copies and moves (`transfer`), dead properties (`properties`).

use std::sync::Arc;

use directpush_common::change::{Cause, Entry, EntryKind, Gone, Live, Maker};
use directpush_common::names::{FolderId, Guid, ItemId};
use directpush_common::numbers::Number;

use super::condition::Conditions;
use super::kind::Kind;
use super::properties::Properties;
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

/// A member as found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    pub id: u64,
    pub item: Item,
    /// It is no item of its folder's class.
    pub file: bool,
}

/// What is PUT, its body durable already.
#[derive(Clone, Debug)]
pub struct Content {
    pub body: BodyId,
    pub size: u64,
    pub content_type: String,
    pub kind: Kind,
}

/// How a path names an item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemName {
    Id(u64),
    Name(String),
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
            marks: item.marks.clone(),
            content: Number(if item.content == 0 { id } else { item.content }),
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

/// Finds a member: one read by id, at most two by name.
pub(super) async fn find(
    index: &dyn Index,
    installation: Guid,
    mailbox: u64,
    folder: u64,
    name: &ItemName,
) -> Result<Option<Member>, Error> {
    let (id, implied) = match name {
        ItemName::Id(id) => (*id, false),
        ItemName::Name(name) => {
            let found = index.read(Read::default().get(keys::name(mailbox, folder, name))).await?;
            match (found.gets.first().and_then(Option::as_ref), implied_id(installation, name)) {
                (Some(id), _) => (decode::<u64>(mailbox, id)?, false),
                (None, Some(id)) => (id, true),
                (None, None) => return Ok(None),
            }
        }
    };
    let read = Read::default().get(keys::item(mailbox, folder, id)).get(keys::file(mailbox, folder, id));
    let found = index.read(read).await?;
    for (file, bytes) in [false, true].into_iter().zip(&found.gets) {
        if let Some(bytes) = bytes {
            let item: Item = decode(mailbox, bytes)?;
            // One that was given a name goes by that name only.
            let meant = !implied || item.name.is_none();
            return Ok(meant.then_some(Member { id, item, file }));
        }
    }
    Ok(None)
}

impl Writer {
    pub(super) async fn find(&self, folder: u64, name: &ItemName) -> Result<Option<Member>, Error> {
        let index = &*self.boxes.store.index;
        find(index, self.state.head.installation, self.entry.id, folder, name).await
    }
}

impl Draft {
    fn log(&mut self, folder: u64, entry: Entry) {
        self.changes.push(FolderChange { folder, entry });
    }

    /// Writes a member's record where it lies.
    pub(super) fn put_member(&mut self, folder: u64, member: &Member) {
        let key = keys::member(self.mailbox, folder, member.id, member.file);
        self.put(key, member.item.encode());
    }

    /// Adds a member; its id is the number it gets. Of `item`, the numbers and makers are set here, the marks stay.
    pub(super) fn add_member(
        &mut self,
        folder: u64,
        mut item: Item,
        maker: Maker,
        properties: &Properties,
    ) -> Result<u64, Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, id) = (self.mailbox, self.number());
        let file = !item.kind.fits(head.class);
        (item.changed, item.before, item.added, item.maker) = (id, 0, maker.clone(), maker);
        (item.property_bytes, item.content) = (properties.bytes(), 0);
        head.held.bytes = head.held.bytes.saturating_add(item.size);
        head.held.property_bytes = head.held.property_bytes.saturating_add(item.property_bytes);
        if file {
            head.held.files += 1;
        } else {
            (head.changed, head.added) = (id, id);
            head.count += 1;
            head.unread += u64::from(!item.read);
            self.put(keys::log(mailbox, folder, id), LogEntry::Live(id).encode());
            self.log(folder, entry(id, &item));
        }
        self.put_folder(folder, head);
        if let Some(name) = &item.name {
            self.put(keys::name(mailbox, folder, name), id.encode());
        }
        if item.property_bytes != 0 {
            self.put_properties(folder, id, properties);
        }
        self.put(keys::body_use(BodyId(item.body), mailbox, folder, id), Vec::new());
        self.put_member(folder, &Member { id, item, file });
        Ok(id)
    }

    /// Writes what `edit` makes of a member, as a change by `maker`.
    pub(super) fn change(
        &mut self,
        folder: u64,
        member: &mut Member,
        maker: Maker,
        edit: impl FnOnce(&mut Item),
    ) -> Result<(), Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, number) = (self.mailbox, self.number());
        let item = &mut member.item;
        let was = (item.changed, item.read, item.size);
        if item.maker != maker {
            item.before = item.changed;
        }
        (item.changed, item.maker, item.modified) = (number, maker, now_secs());
        edit(item);
        head.held.bytes = head.held.bytes.saturating_sub(was.2).saturating_add(item.size);
        if !member.file {
            head.changed = number;
            head.unread = head.unread.saturating_sub(u64::from(!was.1)) + u64::from(!item.read);
            self.delete(keys::log(mailbox, folder, was.0));
            self.put(keys::log(mailbox, folder, number), LogEntry::Live(member.id).encode());
            self.log(folder, entry(member.id, item));
        }
        self.put_folder(folder, head);
        self.put_member(folder, member);
        Ok(())
    }

    /// Takes a member out of its folder, an item leaving a tombstone. Its body loses a use unless it is `moved`.
    pub(super) fn remove_member(
        &mut self,
        folder: u64,
        member: &Member,
        maker: Maker,
        moved: bool,
    ) -> Result<(), Error> {
        let mut head = self.folder(folder)?;
        let (mailbox, id, item) = (self.mailbox, member.id, &member.item);
        head.held.bytes = head.held.bytes.saturating_sub(item.size);
        head.held.property_bytes = head.held.property_bytes.saturating_sub(item.property_bytes);
        if member.file {
            head.held.files = head.held.files.saturating_sub(1);
        } else {
            let number = self.number();
            head.changed = number;
            head.count = head.count.saturating_sub(1);
            head.unread = head.unread.saturating_sub(u64::from(!item.read));
            self.delete(keys::log(mailbox, folder, item.changed));
            let tombstone = LogEntry::Removed { item: id, maker: maker.clone(), date: item.date };
            self.put(keys::log(mailbox, folder, number), tombstone.encode());
            let kind = EntryKind::Gone(Gone { maker, date: item.date });
            self.log(folder, Entry { id: ItemId(Number(id)), changed: Number(number), kind });
        }
        self.put_folder(folder, head);
        if let Some(name) = &item.name {
            self.delete(keys::name(mailbox, folder, name));
        }
        if item.property_bytes != 0 {
            self.delete(keys::properties(mailbox, folder, id));
        }
        self.delete(keys::member(mailbox, folder, id, member.file));
        self.delete(keys::body_use(BodyId(item.body), mailbox, folder, id));
        if !moved {
            self.dropped.push(BodyId(item.body));
        }
        Ok(())
    }

    /// Adds an item without a name.
    pub(crate) fn deliver(&mut self, folder: u64, new: NewItem, maker: Maker) -> Result<Written, Error> {
        // Delivered is delivered: it is an item of its folder, whatever it looks like.
        let kind = Kind::of_class(self.folder(folder)?.class);
        let NewItem { body, size, content_type, date, read } = new;
        let item = new_item(Content { body, size, content_type, kind }, date, None, read);
        let id = self.add_member(folder, item, maker, &Properties::default())?;
        Ok(Written { epoch: self.head.epoch, folder, id, changed: id, created: true })
    }

    /// A name that items without one of their own may get later must not be given away.
    pub(super) fn check_name(&self, name: &str) -> Result<(), Error> {
        match implied_id(self.head.installation, name) {
            Some(id) if id > self.head.last => Err(Error::Forbidden("the name is reserved")),
            _ => Ok(()),
        }
    }
}

pub(super) fn new_item(content: Content, date: i64, name: Option<String>, read: bool) -> Item {
    let Content { body, size, content_type, kind } = content;
    let nobody = Maker::default();
    Item {
        changed: 0,
        before: 0,
        maker: nobody.clone(),
        added: nobody,
        date,
        modified: now_secs(),
        size,
        read,
        body: body.0,
        content_type,
        name,
        kind,
        property_bytes: 0,
        marks: String::new(),
        content: 0,
    }
}

impl Mailboxes {
    /// Adds a message without a name: LMTP's way.
    pub async fn add(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        new: NewItem,
        maker: Maker,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let mut draft = writer.draft();
            let written = draft.deliver(folder, new, maker)?;
            writer.commit(draft).await?;
            Ok(written)
        })
        .await
    }

    /// PUT: replaces the member of that name, or adds one under it. What was an item and is one no longer
    /// leaves as one, and the other way about; its dead properties stay.
    pub async fn put(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        content: Content,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let found = writer.find(folder, &name).await?;
            conditions.check_member(epoch, found.as_ref().map(|member| &member.item))?;
            let mut draft = writer.draft();
            let created = found.is_none();
            let file = !content.kind.fits(draft.folder(folder)?.class);
            let (id, changed) = match (found, name) {
                (Some(mut member), _) if member.file == file => {
                    draft.delete(keys::body_use(BodyId(member.item.body), mailbox, folder, member.id));
                    draft.put(keys::body_use(content.body, mailbox, folder, member.id), Vec::new());
                    draft.dropped.push(BodyId(member.item.body));
                    draft.change(folder, &mut member, maker, |item| {
                        item.body = content.body.0;
                        item.size = content.size;
                        item.content_type = content.content_type;
                        item.kind = content.kind;
                        item.content = item.changed;
                    })?;
                    (member.id, member.item.changed)
                }
                (Some(member), _) => {
                    let index = &*writer.boxes.store.index;
                    let bytes = member.item.property_bytes;
                    let properties =
                        super::properties::load(index, mailbox, folder, member.id, bytes).await?;
                    draft.remove_member(folder, &member, maker.clone(), false)?;
                    let installation = draft.head.installation;
                    let name = member.item.name.unwrap_or_else(|| implied_name(installation, member.id));
                    let mut item = new_item(content, now_secs(), Some(name), member.item.read);
                    item.marks = member.item.marks;
                    let id = draft.add_member(folder, item, maker, &properties)?;
                    (id, id)
                }
                (None, ItemName::Id(_)) => return Err(Error::Gone("the item")),
                (None, ItemName::Name(name)) => {
                    draft.check_name(&name)?;
                    if draft.tree.child(folder, &name).is_some() {
                        return Err(Error::Taken("a folder has this name"));
                    }
                    // A copy of what the user sent, or what a device of the user wrote, is no news to the user.
                    let read = matches!(maker.cause, Cause::Send | Cause::Sync);
                    let item = new_item(content, now_secs(), Some(name), read);
                    let id = draft.add_member(folder, item, maker, &Properties::default())?;
                    (id, id)
                }
            };
            writer.commit(draft).await?;
            Ok(Written { epoch, folder, id, changed, created })
        })
        .await
    }

    /// Removes a member for good.
    pub async fn remove_item(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<(), Error> {
        self.write(mailbox, move |mut writer| async move {
            let member = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check_member(writer.state.head.epoch, Some(&member.item))?;
            let mut draft = writer.draft();
            draft.remove_member(folder, &member, maker, false)?;
            writer.commit(draft).await
        })
        .await
    }
}
