//! Quotas: what a mailbox may hold, what it holds, and when to warn (RFC 4331 is how DAV tells it).
//!
//! What a folder holds is kept in its own record and changes in the commit that changes it; a mailbox's
//! usage is the sum over its folders, so it cannot drift. The check is one place, before each commit: a
//! commit that makes the mailbox hold more of something, above what it may, is refused. One that takes
//! away, or leaves as it is, is always let through.
//!
//! Not here: how a refusal is told (`dav::reply`, LMTP's 452 and 552, ActiveSync's Status 113).

use super::record::Folder;
use super::{Mailboxes, State};
use crate::error::Error;
use directpush_common::names::UserName;
use std::sync::Arc;

/// What a mailbox may hold; 0 = as much as it likes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// Bytes of messages and of everything else in folders.
    pub bytes: u64,
    /// Messages and everything else in folders.
    pub items: u64,
    /// Folders, the default ones included.
    pub folders: u64,
    /// Folders within each other; at most [`super::folders::DEPTH_MAX`].
    pub depth: u64,
    /// Bytes of dead properties.
    pub property_bytes: u64,
    /// Percent of `bytes` or `items` from which on the user should be warned.
    pub warning_percent: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            bytes: 10 << 30,
            items: 2_000_000,
            folders: 2000,
            depth: 16,
            property_bytes: 16 << 20,
            warning_percent: 90,
        }
    }
}

/// What of the quota is one mailbox's own; none = as configured for all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuotaEdit {
    pub bytes: Option<u64>,
    pub items: Option<u64>,
    pub folders: Option<u64>,
    pub depth: Option<u64>,
    pub property_bytes: Option<u64>,
}

impl QuotaEdit {
    pub(super) fn fields(&self) -> [Option<u64>; 5] {
        [self.bytes, self.items, self.folders, self.depth, self.property_bytes]
    }

    pub(super) fn fields_mut(&mut self) -> [&mut Option<u64>; 5] {
        [&mut self.bytes, &mut self.items, &mut self.folders, &mut self.depth, &mut self.property_bytes]
    }

    /// The quota of a mailbox with this of its own.
    pub fn over(&self, all: &Quota) -> Quota {
        Quota {
            bytes: self.bytes.unwrap_or(all.bytes),
            items: self.items.unwrap_or(all.items),
            folders: self.folders.unwrap_or(all.folders),
            depth: self.depth.unwrap_or(all.depth),
            property_bytes: self.property_bytes.unwrap_or(all.property_bytes),
            warning_percent: all.warning_percent,
        }
    }
}

/// What a mailbox holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    pub bytes: u64,
    pub items: u64,
    pub folders: u64,
    pub property_bytes: u64,
}

impl Usage {
    fn of(folder: &Folder) -> Self {
        let held = &folder.held;
        let items = folder.count + held.files;
        Self { bytes: held.bytes, items, folders: 1, property_bytes: held.property_bytes }
    }

    pub(super) fn add(&mut self, folder: &Folder) {
        let more = Self::of(folder);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.items = self.items.saturating_add(more.items);
        self.folders += 1;
        self.property_bytes = self.property_bytes.saturating_add(more.property_bytes);
    }

    pub(super) fn subtract(&mut self, folder: &Folder) {
        let less = Self::of(folder);
        self.bytes = self.bytes.saturating_sub(less.bytes);
        self.items = self.items.saturating_sub(less.items);
        self.folders = self.folders.saturating_sub(1);
        self.property_bytes = self.property_bytes.saturating_sub(less.property_bytes);
    }
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            items: self.items.saturating_add(more.items),
            folders: self.folders.saturating_add(more.folders),
            property_bytes: self.property_bytes.saturating_add(more.property_bytes),
        }
    }
}

/// Which part of a quota is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exceeded {
    Bytes,
    Items,
    Folders,
    Depth,
    Properties,
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "the mailbox is full",
            Self::Items => "the mailbox holds too many items",
            Self::Folders => "the mailbox holds too many folders",
            Self::Depth => "the folders are nested too deep",
            Self::Properties => "the mailbox holds too many properties",
        })
    }
}

fn over(limit: u64, value: u64) -> bool {
    limit != 0 && value > limit
}

impl Quota {
    /// Refuses a change that makes more of something that there is too much of then.
    pub fn check(&self, before: &Usage, after: &Usage) -> Result<(), Exceeded> {
        for (limit, before, after, exceeded) in [
            (self.bytes, before.bytes, after.bytes, Exceeded::Bytes),
            (self.items, before.items, after.items, Exceeded::Items),
            (self.folders, before.folders, after.folders, Exceeded::Folders),
            (self.property_bytes, before.property_bytes, after.property_bytes, Exceeded::Properties),
        ] {
            if after > before && over(limit, after) {
                return Err(exceeded);
            }
        }
        Ok(())
    }

    /// Whether a folder may lie so deep; 1 is the top.
    pub fn check_depth(&self, depth: usize) -> Result<(), Exceeded> {
        let depth_max = super::folders::DEPTH_MAX;
        if depth > depth_max || over(self.depth, depth as u64) { Err(Exceeded::Depth) } else { Ok(()) }
    }

    /// Bytes that still fit; none = no bound.
    pub fn available_bytes(&self, usage: &Usage) -> Option<u64> {
        (self.bytes != 0).then(|| self.bytes.saturating_sub(usage.bytes))
    }

    /// What the user should be warned of: the part that has reached the warning threshold, and its percentage.
    pub fn warning(&self, usage: &Usage) -> Option<(Exceeded, u64)> {
        [(self.bytes, usage.bytes, Exceeded::Bytes), (self.items, usage.items, Exceeded::Items)]
            .into_iter()
            .filter(|(limit, ..)| *limit != 0)
            .map(|(limit, used, part)| {
                let percent = u128::from(used) * 100 / u128::from(limit);
                (part, u64::try_from(percent).unwrap_or(u64::MAX))
            })
            .filter(|(_, percent)| *percent >= self.warning_percent)
            .max_by_key(|(_, percent)| *percent)
    }
}

impl State {
    /// The quota that holds for this mailbox.
    pub fn quota(&self, boxes: &Mailboxes) -> Quota {
        self.head.quota.over(&boxes.quota.read())
    }
}

impl Mailboxes {
    /// Sets what holds for mailboxes without a quota of their own.
    pub fn set_default_quota(&self, quota: Quota) {
        *self.quota.write() = quota;
    }

    /// Gives a user's mailbox a quota of its own, or takes parts of it back.
    pub async fn set_quota(self: &Arc<Self>, user: &UserName, quota: QuotaEdit) -> Result<(), Error> {
        let account = self.users.account(user).await?.ok_or(Error::NoUser)?;
        self.write(account.mailbox, move |mut writer| async move {
            let mut draft = writer.draft();
            draft.head.quota = quota;
            writer.commit(draft).await
        })
        .await
    }

    /// What a user's mailbox holds, what it may hold, and what of that is its own.
    pub async fn quota(&self, user: &UserName) -> Result<(Usage, Quota, QuotaEdit), Error> {
        let account = self.users.account(user).await?.ok_or(Error::NoUser)?;
        let state = self.state(account.mailbox).await?;
        Ok((state.tree.usage(), state.quota(self), state.head.quota))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_above_its_bound_is_refused() {
        let quota = Quota { bytes: 100, items: 0, ..Quota::default() };
        let full = Usage { bytes: 100, items: 5, folders: 1, property_bytes: 0 };
        let above = Usage { bytes: 120, ..full };
        assert_eq!(quota.check(&full, &above), Err(Exceeded::Bytes));
        assert_eq!(quota.check(&above, &full), Ok(()));
        assert_eq!(quota.check(&above, &Usage { items: u64::MAX, ..above }), Ok(()));
        assert_eq!(quota.available_bytes(&above), Some(0));
        assert_eq!(Quota { bytes: 0, ..quota }.available_bytes(&above), None);
        assert_eq!(quota.check_depth(17), Err(Exceeded::Depth));
        assert_eq!(Quota { depth: 0, ..quota }.check_depth(33), Err(Exceeded::Depth));
    }

    #[test]
    fn the_warning_names_what_is_nearest_its_bound() {
        let quota = Quota { bytes: 1000, items: 10, warning_percent: 90, ..Quota::default() };
        let usage = Usage { bytes: 899, items: 8, folders: 0, property_bytes: 0 };
        assert_eq!(quota.warning(&usage), None);
        assert_eq!(quota.warning(&Usage { bytes: 900, ..usage }), Some((Exceeded::Bytes, 90)));
        assert_eq!(quota.warning(&Usage { bytes: 900, items: 10, ..usage }), Some((Exceeded::Items, 100)));
    }
}
