//! COPY and MOVE of members and folders (RFC 4918 9.8, 9.9), within one mailbox.
//!
//! A move is one commit, what it overwrites included. So is the copy of a member: the body is shared, and
//! has one use more. The copy of a folder with all below it is made in steps, each a commit of bounded size;
//! one that fails on the way leaves what was copied by then, and says where it stopped. Whether there is
//! room for all of it is looked at before the first step.

use std::collections::VecDeque;
use std::sync::Arc;

use directpush_common::change::Maker;
use directpush_common::names::DeviceKey;

use super::condition::Conditions;
use super::folders::{FIRST_OWN, OwnType, ROOT, Tree};
use super::items::{ItemName, Member, Written, etag, implied_id, implied_name};
use super::kind::Kind;
use super::properties::{Properties, load};
use super::quota::Usage;
use super::record::{Folder, Item};
use super::tree::{Occupant, TreeWritten};
use super::{Mailboxes, Writer, decode, keys};
use crate::error::Error;
use crate::store::Read;

/// Members copied by one commit, at most: with all the dead properties they may have, that still fits.
const STEP: usize = 100;

/// Names tried for a member whose own is taken where it goes.
const NAMES_TRIED: u32 = 9;
/// Longest name that is made up, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    Copy,
    Move,
}

/// A member that is copied or moved, and what must hold of it.
#[derive(Clone, Debug)]
pub struct From {
    pub folder: u64,
    pub name: ItemName,
    pub conditions: Conditions,
}

/// Where something goes.
#[derive(Clone, Debug)]
pub struct To {
    pub folder: u64,
    /// The name it gets there. A member keeps its own if there is none, or gets one that is free: nothing is
    /// overwritten then.
    pub name: Option<String>,
    pub overwrite: bool,
    /// The entity tag that was there when `If` was evaluated; the inner none: nothing that has one.
    pub seen: Option<Option<String>>,
}

/// What became of the copy of a folder.
#[derive(Debug)]
pub struct Copied {
    /// Nothing was there before.
    pub created: bool,
    /// Where it stopped: names below the destination, and why.
    pub failed: Option<(Vec<String>, Error)>,
}

/// Who copies or moves.
#[derive(Clone, Debug)]
pub struct By {
    pub maker: Maker,
    pub device: Option<DeviceKey>,
}

impl Writer {
    /// What stands at the destination. Refused: a place that is missing; something that must not be
    /// overwritten; a folder that holds `source`, which would go with it.
    async fn destination(&self, to: &To, name: &str, source: u64) -> Result<Option<Occupant>, Error> {
        self.state.depth(to.folder)?;
        let found = self.occupant(to.folder, name).await?;
        if let Some(Occupant::Folder(counter)) = &found {
            if self.state.tree.subtree(*counter).contains(&source) {
                return Err(Error::Forbidden("the destination holds the source"));
            }
            if *counter < FIRST_OWN {
                return Err(Error::Forbidden("a default folder cannot be overwritten"));
            }
        }
        let tag = match &found {
            Some(Occupant::Member(member)) => Some(etag(self.state.head.epoch, member.item.changed)),
            _ => None,
        };
        if to.seen.as_ref().is_some_and(|seen| *seen != tag) {
            return Err(Error::Precondition);
        }
        if found.is_some() && !to.overwrite { Err(Error::Precondition) } else { Ok(found) }
    }

    /// A member's record, to be written elsewhere. Records of the first format do not say what it is; what is an
    /// item of its folder is of the folder's class.
    fn whole_item(&self, folder: u64, member: Member) -> Result<Item, Error> {
        let class = self.state.tree.folder(folder).ok_or(Error::Gone("the folder"))?.class;
        let kind = if member.file { member.item.kind } else { Kind::of_class(class) };
        Ok(Item { kind, ..member.item })
    }

    /// A name like one that is taken there: `a (2).txt`. None, so that its id names it, if that will not do.
    async fn free_name(&self, folder: u64, name: &str) -> Result<Option<String>, Error> {
        if implied_id(self.state.head.installation, name).is_some() {
            return Ok(None);
        }
        let (stem, extension) =
            name.rfind('.').filter(|at| *at > 0).map_or((name, ""), |at| name.split_at(at));
        for n in 2..=NAMES_TRIED {
            let other = format!("{stem} ({n}){extension}");
            if other.len() > NAME_BYTES_MAX {
                break;
            }
            if self.occupant(folder, &other).await?.is_none() {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    async fn properties(&self, folder: u64, id: u64, bytes: u64) -> Result<Properties, Error> {
        load(&*self.boxes.store.index, self.entry.id, folder, id, bytes).await
    }
}

/// Levels of folders from this one down, itself included.
fn height(tree: &Tree, counter: u64) -> usize {
    let depth = |at| tree.path(at).map_or(0, |path| path.len());
    let own = depth(counter);
    tree.subtree(counter).into_iter().map(depth).max().unwrap_or(own) + 1 - own
}

/// The copy of a default folder is one of its class.
fn copied_type(source: &Folder) -> OwnType {
    OwnType::from_code(source.kind).unwrap_or_else(|| OwnType::of(source.class))
}

impl Mailboxes {
    /// Moves a member, which gets a new id in its new folder, or copies it. Its dead properties, flags and marks go with it.
    pub async fn transfer_member(
        self: &Arc<Self>,
        mailbox: u64,
        from: From,
        to: To,
        by: By,
        verb: Verb,
    ) -> Result<Written, Error> {
        let From { folder, name, conditions } = from;
        let moves = verb == Verb::Move;
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let member = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check_member(epoch, Some(&member.item))?;
            if to.folder == ROOT {
                return Err(Error::Forbidden("items live in folders"));
            }
            let own_name = member.item.name.clone();
            let mut new_name = to.name.clone().or_else(|| own_name.clone());
            let mut draft = writer.draft();
            draft.by = by.device;
            let mut created = true;
            if to.name.is_none() {
                if let Some(name) = own_name {
                    draft.check_name(&name)?;
                    new_name = match writer.occupant(to.folder, &name).await? {
                        Some(Occupant::Member(other)) if (to.folder, other.id) == (folder, member.id) => {
                            if !moves {
                                return Err(Error::Forbidden("source and destination are the same"));
                            }
                            Some(name)
                        }
                        Some(_) => writer.free_name(to.folder, &name).await?,
                        None => Some(name),
                    };
                }
            } else if let Some(name) = &new_name {
                draft.check_name(name)?;
                match writer.destination(&to, name, folder).await? {
                    Some(Occupant::Member(other)) if (to.folder, other.id) == (folder, member.id) => {
                        let installation = writer.state.head.installation;
                        let shown = own_name.clone().unwrap_or_else(|| implied_name(installation, member.id));
                        // The same by another case of its name is a rename.
                        if !moves || *name == shown {
                            return Err(Error::Forbidden("source and destination are the same"));
                        }
                    }
                    Some(occupant) => {
                        created = false;
                        draft.remove_occupant(to.folder, &occupant, &by.maker)?;
                    }
                    None => {}
                }
            }
            let properties = writer.properties(folder, member.id, member.item.property_bytes).await?;
            if moves {
                draft.remove_member(folder, &member, by.maker.clone(), true)?;
            }
            let mut item = writer.whole_item(folder, member)?;
            item.name = new_name;
            let id = draft.add_member(to.folder, item, by.maker, &properties)?;
            writer.commit(draft).await?;
            Ok(Written { epoch, folder: to.folder, id, changed: id, created })
        })
        .await
    }

    /// Gives a folder another name, another parent, or both. Its id stays.
    pub async fn move_folder(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        to: To,
        by: By,
    ) -> Result<TreeWritten, Error> {
        self.write(mailbox, move |mut writer| async move {
            let tree = &writer.state.tree;
            let own = tree.folder(counter).ok_or(Error::Gone("the folder"))?.clone();
            let name = to.name.clone().unwrap_or_else(|| own.name.clone());
            if counter < FIRST_OWN {
                return Err(Error::Forbidden("a default folder stays where it is"));
            }
            if to.folder == own.parent && name == own.name {
                return Err(Error::Forbidden("source and destination are the same"));
            }
            if tree.subtree(counter).contains(&to.folder) {
                return Err(Error::Forbidden("a folder cannot be moved below itself"));
            }
            writer.check_depth(to.folder, height(tree, counter))?;
            let mut draft = writer.draft();
            draft.by = by.device;
            draft.check_name(&name)?;
            let mut created = true;
            if tree.child(to.folder, &name) != Some(counter)
                && let Some(occupant) = writer.destination(&to, &name, counter).await?
            {
                created = false;
                draft.remove_occupant(to.folder, &occupant, &by.maker)?;
            }
            let mut folder = draft.folder(counter)?;
            let number = draft.number();
            draft.head.hierarchy = number;
            (folder.parent, folder.name, folder.moved) = (to.folder, name, number);
            draft.put_folder(counter, folder);
            writer.commit(draft).await?;
            Ok(TreeWritten { folder: counter, created, hierarchy: writer.state.head.hierarchy })
        })
        .await
    }

    /// Copies a folder: alone, or with all below it.
    ///
    /// # Errors
    /// Nothing was copied. What fails after the first step is told in [`Copied`].
    pub async fn copy_folder(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        to: To,
        deep: bool,
        by: By,
    ) -> Result<Copied, Error> {
        let boxes = self.clone();
        // In a task of its own: a client that hangs up does not leave half a copy.
        let work = async move {
            let (tree, new, created) = boxes.copy_root(mailbox, counter, to, deep, by.clone()).await?;
            let mut failed = None;
            let mut waiting = VecDeque::from([(counter, new, Vec::new())]);
            while let Some((from, into, path)) = waiting.pop_front().filter(|_| deep) {
                match boxes.copy_members(mailbox, from, into, &by).await {
                    Ok(()) => {}
                    Err(error) => {
                        failed = Some((path, error));
                        break;
                    }
                }
                for (child, folder) in tree.children(from) {
                    let mut path: Vec<String> = path.clone();
                    path.push(folder.name.clone());
                    match boxes.copy_one_folder(mailbox, child, into, by.clone()).await {
                        Ok(new) => waiting.push_back((child, new, path)),
                        Err(error) => {
                            failed = Some((path, error));
                            break;
                        }
                    }
                }
                if failed.is_some() {
                    break;
                }
            }
            Ok(Copied { created, failed })
        };
        tokio::spawn(work).await.map_err(|_| Error::Task)?
    }

    /// The first step: looks whether all of it may go there, and makes the new folder.
    async fn copy_root(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        to: To,
        deep: bool,
        by: By,
    ) -> Result<(Tree, u64, bool), Error> {
        self.write(mailbox, move |mut writer| async move {
            let tree = writer.state.tree.clone();
            let source = tree.folder(counter).ok_or(Error::Gone("the folder"))?.clone();
            let name = to.name.clone().unwrap_or_else(|| source.name.clone());
            let subtree = tree.subtree(counter);
            // Alone it may: it is copied before it is there (RFC 4918 9.8.3).
            if deep && subtree.contains(&to.folder) {
                return Err(Error::Forbidden("a folder cannot be copied below itself"));
            }
            let occupant = writer.destination(&to, &name, counter).await?;
            let mut draft = writer.draft();
            draft.by = by.device;
            draft.check_name(&name)?;
            if let Some(occupant) = &occupant {
                draft.remove_occupant(to.folder, occupant, &by.maker)?;
            }
            let mut wanted = Usage::default();
            for below in if deep { &subtree[..] } else { &[] } {
                if let Some(folder) = tree.folder(*below) {
                    wanted.add(folder);
                }
            }
            writer.check_depth(to.folder, if deep { height(&tree, counter) } else { 1 })?;
            let before = draft.tree.usage();
            let after = before.plus(&wanted);
            writer.state.quota(&writer.boxes).check(&before, &after).map_err(Error::Quota)?;
            let properties = writer.properties(counter, 0, source.held.own_property_bytes).await?;
            let new = draft.add_folder(to.folder, name, copied_type(&source), &properties)?;
            writer.commit(draft).await?;
            Ok((tree, new, occupant.is_none()))
        })
        .await
    }

    async fn copy_one_folder(
        self: &Arc<Self>,
        mailbox: u64,
        counter: u64,
        parent: u64,
        by: By,
    ) -> Result<u64, Error> {
        self.write(mailbox, move |mut writer| async move {
            let source = writer.state.tree.folder(counter).ok_or(Error::Gone("the folder"))?.clone();
            writer.check_depth(parent, 1)?;
            if writer.occupant(parent, &source.name).await?.is_some() {
                return Err(Error::Taken("the name was taken meanwhile"));
            }
            let properties = writer.properties(counter, 0, source.held.own_property_bytes).await?;
            let mut draft = writer.draft();
            draft.by = by.device;
            let new = draft.add_folder(parent, source.name.clone(), copied_type(&source), &properties)?;
            writer.commit(draft).await?;
            Ok(new)
        })
        .await
    }

    async fn copy_members(
        self: &Arc<Self>,
        mailbox: u64,
        from: u64,
        into: u64,
        by: &By,
    ) -> Result<(), Error> {
        for file in [false, true] {
            let mut after = Some(0);
            while let Some(last) = after {
                after = self.copy_step(mailbox, from, into, file, last, by.clone()).await?;
            }
        }
        Ok(())
    }

    /// Copies the next members above `after`; the last of them, if there may be more.
    async fn copy_step(
        self: &Arc<Self>,
        mailbox: u64,
        from: u64,
        into: u64,
        file: bool,
        after: u64,
        by: By,
    ) -> Result<Option<u64>, Error> {
        self.write(mailbox, move |mut writer| async move {
            // Front ends and deliveries write between the steps.
            if writer.state.tree.folder(from).is_none() {
                return Err(Error::Gone("the folder"));
            }
            let page = writer.boxes.members_after(mailbox, from, file, after, STEP).await?;
            let Some(last) = page.last().map(|member| member.id) else { return Ok(None) };
            let more = page.len() == STEP;
            let mut properties = writer.boxes.properties_of(mailbox, from, &page).await?.into_iter();
            let mut draft = writer.draft();
            let installation = draft.head.installation;
            for member in page {
                let properties = properties.next().unwrap_or_default();
                let id = member.id;
                let mut item = writer.whole_item(from, member)?;
                // The copy goes by the name under which the original was seen.
                let name = item.name.get_or_insert_with(|| implied_name(installation, id));
                if writer.occupant(into, name).await?.is_some() {
                    return Err(Error::Taken("the name was taken meanwhile"));
                }
                draft.add_member(into, item, by.maker.clone(), &properties)?;
            }
            writer.commit(draft).await?;
            Ok(more.then_some(last))
        })
        .await
    }

    /// The dead properties of these members, in their order: at most one read.
    pub async fn properties_of(
        &self,
        mailbox: u64,
        folder: u64,
        members: &[Member],
    ) -> Result<Vec<Properties>, Error> {
        let with = |member: &&Member| member.item.property_bytes != 0;
        let mut read = Read::default();
        for member in members.iter().filter(with) {
            read = read.get(keys::properties(mailbox, folder, member.id));
        }
        let mut found = if read.gets.is_empty() {
            Vec::new().into_iter()
        } else {
            self.store.index.read(read).await?.gets.into_iter()
        };
        let mut all = Vec::with_capacity(members.len());
        for member in members {
            let bytes = if with(&member) { found.next().flatten() } else { None };
            all.push(bytes.map_or(Ok(Properties::default()), |bytes| decode(mailbox, &bytes))?);
        }
        Ok(all)
    }
}
