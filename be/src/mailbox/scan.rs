//! Reading items: by name, by the change log, by the walk, as a listing. At most two reads each.

use std::sync::Arc;

use directpush_common::change::{Entry, EntryKind, Gone};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::names::ItemId;
use directpush_common::numbers::{CollectionToken, Number};

use super::items::{ItemName, Member, entry};
use super::record::{Held, Item, LogEntry};
use super::{Mailboxes, State, decode, keys};
use crate::error::Error;
use crate::store::Read;

impl State {
    /// A folder's token as it stands.
    pub fn token(&self, folder: u64) -> Result<CollectionToken, Error> {
        let head = self.tree.folder(folder).ok_or(Error::Gone("the folder"))?;
        Ok(CollectionToken { epoch: self.head.epoch, number: Number(head.changed) })
    }

    /// The number a token names, if the log still reaches back to it.
    pub fn check_token(&self, folder: u64, token: CollectionToken) -> Result<u64, Error> {
        let head = self.tree.folder(folder).ok_or(Error::Gone("the folder"))?;
        let known = token.epoch == self.head.epoch
            && token.number.0 <= self.head.last
            && token.number.0 >= head.forgotten;
        if known { Ok(token.number.0) } else { Err(Error::Token) }
    }
}

impl Mailboxes {
    /// One member of a folder.
    pub async fn member(
        &self,
        state: &State,
        mailbox: u64,
        folder: u64,
        name: &ItemName,
    ) -> Result<Member, Error> {
        self.member_if_there(state, mailbox, folder, name).await?.ok_or(Error::Gone("the item"))
    }

    /// Members above `after`, oldest first, at most `limit`: the items, or the files.
    pub async fn members_after(
        &self,
        mailbox: u64,
        folder: u64,
        file: bool,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Member>, Error> {
        let range = if file {
            keys::files_after(mailbox, folder, after, limit)
        } else {
            keys::items_after(mailbox, folder, after, limit)
        };
        let found = self.list(mailbox, range).await?;
        Ok(found.into_iter().map(|(id, item)| Member { id, item, file }).collect())
    }

    /// Counts anew what a folder holds: for records older than quotas, and for `fsck`.
    pub async fn measure(&self, mailbox: u64, folder: u64) -> Result<Held, Error> {
        const PAGE: usize = 1000;
        let mut held = Held::NOTHING;
        for file in [false, true] {
            let mut after = 0;
            loop {
                let page = self.members_after(mailbox, folder, file, after, PAGE).await?;
                for member in &page {
                    held.files += u64::from(file);
                    held.bytes = held.bytes.saturating_add(member.item.size);
                    held.property_bytes = held.property_bytes.saturating_add(member.item.property_bytes);
                }
                match page.last() {
                    Some(last) if page.len() == PAGE => after = last.id,
                    _ => break,
                }
            }
        }
        let own = super::properties::load(&*self.store.index, mailbox, folder, 0, 1).await?.bytes();
        held.own_property_bytes = own;
        held.property_bytes = held.property_bytes.saturating_add(own);
        Ok(held)
    }

    /// Log entries above `since`, ascending, at most `limit`; the number the scan reached, and whether
    /// there is more behind it.
    pub async fn log_above(
        &self,
        mailbox: u64,
        folder: u64,
        since: u64,
        limit: usize,
    ) -> Result<(Vec<Entry>, Option<u64>, bool), Error> {
        let range = keys::log_above(mailbox, folder, since, limit + 1);
        let mut lines =
            self.store.index.read(Read::default().range(range)).await?.ranges.pop().unwrap_or_default();
        let more = lines.len() > limit;
        lines.truncate(limit);
        let reached = lines.last().map(|(key, _)| keys::last_number(key));
        let mut read = Read::default();
        let mut log = Vec::with_capacity(lines.len());
        for (key, line) in &lines {
            let line: LogEntry = decode(mailbox, line)?;
            if let LogEntry::Live(id) = line {
                read = read.get(keys::item(mailbox, folder, id));
            }
            log.push((keys::last_number(key), line));
        }
        let mut items = if read.gets.is_empty() {
            Vec::new().into_iter()
        } else {
            self.store.index.read(read).await?.gets.into_iter()
        };
        let mut entries = Vec::with_capacity(log.len());
        for (number, line) in log {
            match line {
                LogEntry::Removed { item, maker, date } => entries.push(Entry {
                    id: ItemId(Number(item)),
                    changed: Number(number),
                    kind: EntryKind::Gone(Gone { maker, date }),
                }),
                LogEntry::Live(id) => {
                    let Some(item) = items.next().flatten() else { continue };
                    let item: Item = decode(mailbox, &item)?;
                    // Changed again between our two reads: its entry stands at a higher number now, and
                    // whoever scans on from `reached` meets it there.
                    if item.changed == number {
                        entries.push(entry(id, &item));
                    }
                }
            }
        }
        Ok((entries, reached, more))
    }

    /// The reports on a folder's items.
    pub async fn report(
        &self,
        state: &Arc<State>,
        mailbox: u64,
        folder: u64,
        request: ItemsRequest,
    ) -> Result<Items, Error> {
        let now = state.token(folder)?;
        match request {
            ItemsRequest::Changes { since, limit } => {
                let first = since.is_none();
                let since = since.map_or(Ok(0), |token| state.check_token(folder, token))?;
                let (mut entries, reached, more) = self.log_above(mailbox, folder, since, limit).await?;
                if first {
                    // RFC 6578 3.4: an initial synchronisation tells of no removals.
                    entries.retain(|entry| matches!(entry.kind, EntryKind::Live(_)));
                }
                let number = match reached {
                    Some(reached) if more => reached,
                    // The scan may have seen commits younger than the published state.
                    reached => reached.unwrap_or(0).max(now.number.0).max(since),
                };
                Ok(Items {
                    token: CollectionToken { epoch: now.epoch, number: Number(number) },
                    entries,
                    more,
                })
            }
            ItemsRequest::Additions { limit, .. } | ItemsRequest::Walk { limit, .. } => {
                let mut found = match request {
                    ItemsRequest::Additions { after, .. } => {
                        self.oldest(mailbox, folder, after.0.0, limit + 1).await?
                    }
                    ItemsRequest::Walk { before, .. } => {
                        self.newest(mailbox, folder, before.map_or(0, |id| id.0.0), limit + 1).await?
                    }
                    ItemsRequest::Changes { .. } => Vec::new(),
                };
                let more = found.len() > limit;
                found.truncate(limit);
                let entries = found.iter().map(|(id, item)| entry(*id, item)).collect();
                Ok(Items { token: now, entries, more })
            }
        }
    }

    /// Items below `before` (0: all), newest first.
    pub async fn newest(
        &self,
        mailbox: u64,
        folder: u64,
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Item)>, Error> {
        self.list(mailbox, keys::items_before(mailbox, folder, before, limit)).await
    }

    /// Items above `after`, oldest first.
    pub async fn oldest(
        &self,
        mailbox: u64,
        folder: u64,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Item)>, Error> {
        self.list(mailbox, keys::items_after(mailbox, folder, after, limit)).await
    }

    async fn list(&self, mailbox: u64, range: crate::store::Range) -> Result<Vec<(u64, Item)>, Error> {
        let found = self.store.index.read(Read::default().range(range)).await?;
        let lines = found.ranges.into_iter().next().unwrap_or_default();
        lines.iter().map(|(key, value)| Ok((keys::last_number(key), decode(mailbox, value)?))).collect()
    }
}
