//! A folder as the back end keeps it: live items, and a change log with one entry per item and tombstones.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use directpush_common::{
    change::{Entry, EntryKind, Gone, Live, Maker},
    dav::items::{Items, ItemsRequest},
    names::{DeviceKey, ItemId},
    numbers::{CollectionToken, Number},
    push::wake::{Wake, wake},
};

/// The generation of every mailbox here.
pub(crate) const EPOCH: u64 = 5;

/// One folder of a mailbox.
pub(crate) struct Folder {
    /// The mailbox's last number, shared by its folders.
    last: Rc<Cell<Number>>,
    log: BTreeMap<Number, Entry>,
    live: BTreeMap<ItemId, (Number, String)>,
    changed: Number,
}

impl Folder {
    pub(crate) fn new(last: Rc<Cell<Number>>) -> Self {
        Self { last, log: BTreeMap::new(), live: BTreeMap::new(), changed: Number::ZERO }
    }

    fn next(&mut self) -> Number {
        let number = self.last.get().next();
        self.last.set(number);
        self.changed = number;
        number
    }

    pub(crate) fn add(&mut self, date: i64, subject: &str, maker: Maker) -> Entry {
        let number = self.next();
        let live =
            Live { maker: maker.clone(), added: maker, date, size: 1, content: number, ..Live::default() };
        let entry = Entry { id: ItemId(number), changed: number, kind: EntryKind::Live(live) };
        self.live.insert(entry.id, (number, subject.to_owned()));
        self.log.insert(number, entry.clone());
        entry
    }

    pub(crate) fn set_read(&mut self, id: ItemId, read: bool, maker: Maker) -> Option<Entry> {
        let old = self.live.get(&id)?.0;
        let Some(Entry { kind: EntryKind::Live(mut live), .. }) = self.log.remove(&old) else { return None };
        let number = self.next();
        if live.maker != maker {
            live.before = old;
        }
        (live.maker, live.read) = (maker, read);
        let entry = Entry { id, changed: number, kind: EntryKind::Live(live) };
        self.live.get_mut(&id)?.0 = number;
        self.log.insert(number, entry.clone());
        Some(entry)
    }

    pub(crate) fn delete(&mut self, id: ItemId, maker: Maker) -> Option<Entry> {
        let (old, _) = self.live.remove(&id)?;
        let date = self.log.remove(&old)?.date();
        let number = self.next();
        let entry = Entry { id, changed: number, kind: EntryKind::Gone(Gone { maker, date }) };
        self.log.insert(number, entry.clone());
        Some(entry)
    }

    pub(crate) fn changed(&self) -> Number {
        self.changed
    }

    pub(crate) fn ids(&self) -> Vec<ItemId> {
        self.live.keys().copied().collect()
    }

    pub(crate) fn subject(&self, id: ItemId) -> Option<&str> {
        self.live.get(&id).map(|(_, subject)| subject.as_str())
    }

    /// Id, subject and read flag of what lies at or above the floor.
    pub(crate) fn contents(&self, floor: Option<i64>) -> Vec<(ItemId, String, bool)> {
        let entry = |id: &ItemId| self.live.get(id).and_then(|(number, _)| self.log.get(number));
        let mut contents = Vec::new();
        for (id, (_, subject)) in &self.live {
            if let Some(Entry { kind: EntryKind::Live(live), .. }) = entry(id)
                && floor.is_none_or(|floor| live.date >= floor)
            {
                contents.push((*id, subject.clone(), live.read));
            }
        }
        contents
    }

    /// A REPORT.
    pub(crate) fn items(&self, request: &ItemsRequest) -> Items {
        let entry = |id: &ItemId| self.log.get(&self.live[id].0).cloned();
        let (mut entries, limit): (Vec<Entry>, usize) = match request {
            ItemsRequest::Changes { since, limit } => {
                let since = since.map_or(Number::ZERO, |token| token.number);
                (self.log.range(since.next()..).map(|(_, entry)| entry.clone()).collect(), *limit)
            }
            ItemsRequest::Additions { after, limit } => {
                (self.live.range(ItemId(after.0.next())..).filter_map(|(id, _)| entry(id)).collect(), *limit)
            }
            ItemsRequest::Walk { before, limit } => {
                let before = before.unwrap_or(ItemId(Number(u64::MAX)));
                (self.live.range(..before).rev().filter_map(|(id, _)| entry(id)).collect(), *limit)
            }
        };
        let more = entries.len() > limit;
        entries.truncate(limit);
        let number = match (request, entries.last()) {
            (ItemsRequest::Changes { .. }, Some(last)) if more => last.changed,
            _ => self.changed,
        };
        Items { token: CollectionToken { epoch: EPOCH, number }, entries, more }
    }

    /// What counts for a device that knows the folder as of `base`.
    pub(crate) fn compare(&self, base: Number, floor: Option<i64>, device: &DeviceKey) -> Wake {
        let since = self.log.range(base.next()..);
        since.map(|(_, entry)| wake(entry, base, floor, device)).max().unwrap_or_default()
    }
}
