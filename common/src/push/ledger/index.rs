//! Where groups are found: by slot, by subscription, by folder, by when they are due; and how they come and go.

use smallvec::SmallVec;

use super::{FrontEndNumber, Group, Ledger};
use crate::{httpu::SubscriptionId, names::Guid};

impl Ledger {
    pub(super) fn insert(&mut self, group: Group) -> u32 {
        let group = Some(Box::new(group));
        if let Some(slot) = self.free.pop() {
            self.groups[slot as usize] = group;
            return slot;
        }
        self.groups.push(group);
        u32::try_from(self.groups.len() - 1).expect("the total of subscriptions is bounded far below 2^32")
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some(group) = self.groups.get_mut(slot as usize).and_then(Option::take) else { return };
        for subscription in &group.subscriptions {
            self.by_id.remove(&subscription.id);
            self.by_folder.remove(&(group.mailbox, subscription.folder, slot));
        }
        if let Some(known) = self.call_backs.get_mut(&group.call_back) {
            known.subscriptions -= group.subscriptions.len();
        }
        self.due.remove(&(group.due, slot));
        self.free.push(slot);
    }

    /// A front end that asks again for a folder of the same Ping did not hear the first answer.
    pub(super) fn forget_folder(&mut self, slot: u32, folder: u64) {
        let Some(group) = self.groups.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if let Some(n) = group.subscriptions.iter().position(|s| s.folder == folder) {
            let old = group.subscriptions.remove(n);
            self.by_id.remove(&old.id);
            if let Some(known) = self.call_backs.get_mut(&group.call_back) {
                known.subscriptions -= 1;
            }
        }
    }

    pub(super) fn reschedule(&mut self, slot: u32) {
        let Some(group) = self.groups.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let due = group.next_due();
        if due != group.due {
            self.due.remove(&(group.due, slot));
            self.due.insert((due, slot));
            group.due = due;
        }
    }

    pub(super) fn fresh_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn groups_of(&self, mailbox: u64) -> SmallVec<[u32; 4]> {
        let mut slots: SmallVec<[u32; 4]> = self
            .by_folder
            .range((mailbox, 0, 0)..=(mailbox, u64::MAX, u32::MAX))
            .map(|&(_, _, slot)| slot)
            .collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    pub(super) fn group_of(&self, mailbox: u64, guid: Guid, call_back: u16) -> Option<u32> {
        let same = |group: &Group| group.guid == guid && group.call_back == call_back;
        self.groups_of(mailbox).into_iter().find(|&slot| self.group(slot).is_some_and(same))
    }

    pub(super) fn group(&self, slot: u32) -> Option<&Group> {
        self.groups.get(slot as usize)?.as_deref()
    }

    pub(super) fn group_mut(&mut self, slot: u32) -> Option<&mut Group> {
        self.groups.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, id: SubscriptionId) -> Option<(u32, usize)> {
        let id = u32::try_from(id.0).ok()?;
        let slot = *self.by_id.get(&id)?;
        let n = self.group(slot)?.subscriptions.iter().position(|s| s.id == id)?;
        Some((slot, n))
    }

    /// Unknown and foreign are the same to a caller.
    pub(super) fn find_of(&self, front_end: FrontEndNumber, id: SubscriptionId) -> Option<(u32, usize)> {
        let (slot, n) = self.find(id)?;
        let known = self.call_backs.get(&self.group(slot)?.call_back)?;
        (known.front_end == front_end).then_some((slot, n))
    }
}
