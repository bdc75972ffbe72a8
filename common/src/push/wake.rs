//! The wake rule: whether a change ends the wait of a device, and when.
//!
//! One pure function, used for every commit and for the comparison at SUBSCRIBE. Additions wake at once
//! ([MS-ASCMD] 3.1.5.8: delivery, copied in, moved in); other changes may wait; what the device did itself in a Sync,
//! what it already knows, what lies before its date floor and what was delivered as spam never wakes it. What an administrator
//! brings from another server may wait like a change: thousands of messages come at once, and none of them is new.

use crate::{
    change::{Cause, Entry, EntryKind},
    names::DeviceKey,
    numbers::Number,
};

/// Whether a change counts for a waiting device. Ordered: what counts more is greater.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wake {
    /// Not at all.
    #[default]
    Never,
    /// After the delay for changes that are no additions.
    Later,
    /// At once.
    Now,
}

/// What a change means for `device`, which knows the folder as of `base` and asked only for items received at
/// or after `floor` (Unix seconds).
pub fn wake(entry: &Entry, base: Number, floor: Option<i64>, device: &DeviceKey) -> Wake {
    let known = entry.changed <= base || entry.is_own_upload(base, device);
    let below_floor = floor.is_some_and(|floor| entry.date() < floor);
    if known || below_floor {
        return Wake::Never;
    }
    match &entry.kind {
        // Spam is there when the device looks, but calls nobody to look.
        EntryKind::Live(live) if live.added.cause == Cause::Junk && entry.id.0 > base => Wake::Never,
        EntryKind::Live(live) if live.added.cause == Cause::Import => Wake::Later,
        // The device's own upload that somebody else changed since: it holds the item already.
        EntryKind::Live(live) if live.added.is_own_sync_of(device) => Wake::Later,
        EntryKind::Live(_) if entry.id.0 > base => Wake::Now,
        // Came and went: the device never saw it.
        EntryKind::Gone(_) if entry.id.0 > base => Wake::Never,
        EntryKind::Live(_) | EntryKind::Gone(_) => Wake::Later,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        change::{Gone, Live, Maker},
        names::ItemId,
    };

    pub(crate) fn phone() -> DeviceKey {
        DeviceKey::new("iPhone", "A").unwrap()
    }

    pub(crate) fn by(cause: Cause) -> Maker {
        Maker { device: Some(phone()), cause }
    }

    pub(crate) fn live(id: u64, changed: u64, maker: Maker, added: Maker, before: u64) -> Entry {
        let live = Live { before: Number(before), maker, added, date: 1000, size: 1, ..Live::default() };
        Entry { id: ItemId(Number(id)), changed: Number(changed), kind: EntryKind::Live(live) }
    }

    fn gone(id: u64, changed: u64, maker: Maker) -> Entry {
        let kind = EntryKind::Gone(Gone { maker, date: 1000 });
        Entry { id: ItemId(Number(id)), changed: Number(changed), kind }
    }

    /// The device knows the folder as of 10.
    #[track_caller]
    fn check(entry: &Entry, expected: Wake) {
        assert_eq!(wake(entry, Number(10), None, &phone()), expected);
        let floor = wake(entry, Number(10), Some(1001), &phone());
        assert_eq!(floor, Wake::Never, "items below the date floor never wake");
        assert_eq!(wake(entry, Number(10), Some(1000), &phone()), expected, "the floor itself is inside");
    }

    #[test]
    fn additions_by_anyone_wake_at_once() {
        for added in [Maker::of(Cause::Delivery), Maker::of(Cause::Dav), by(Cause::Move), by(Cause::Send)] {
            check(&live(11, 11, added.clone(), added, 0), Wake::Now);
        }
        let other = Maker { device: Some(DeviceKey::new("iPhone", "B").unwrap()), cause: Cause::Sync };
        check(&live(11, 11, other.clone(), other, 0), Wake::Now);
    }

    #[test]
    fn an_addition_stays_one_when_it_is_changed_before_the_device_saw_it() {
        check(&live(11, 12, Maker::of(Cause::Dav), Maker::of(Cause::Delivery), 11), Wake::Now);
        check(&live(11, 12, by(Cause::Sync), Maker::of(Cause::Delivery), 11), Wake::Now);
    }

    #[test]
    fn spam_wakes_nobody() {
        check(&live(11, 11, Maker::of(Cause::Junk), Maker::of(Cause::Junk), 0), Wake::Never);
        check(&live(11, 12, Maker::of(Cause::Dav), Maker::of(Cause::Junk), 11), Wake::Never);
        // Once the device holds it, it is an item like others; moved out of Junk it is a new one.
        check(&live(5, 11, Maker::of(Cause::Dav), Maker::of(Cause::Junk), 5), Wake::Later);
        check(&live(12, 12, Maker::of(Cause::Dav), Maker::of(Cause::Dav), 0), Wake::Now);
    }

    #[test]
    fn what_is_imported_waits() {
        check(&live(11, 11, Maker::of(Cause::Import), Maker::of(Cause::Import), 0), Wake::Later);
        check(&live(11, 12, by(Cause::Sync), Maker::of(Cause::Import), 11), Wake::Later);
    }

    #[test]
    fn other_changes_wait() {
        check(&live(5, 11, Maker::of(Cause::Dav), Maker::of(Cause::Delivery), 5), Wake::Later);
        check(&gone(5, 11, Maker::of(Cause::Dav)), Wake::Later);
    }

    #[test]
    fn what_the_device_knows_never_wakes_it() {
        check(&live(5, 10, Maker::of(Cause::Dav), Maker::of(Cause::Delivery), 5), Wake::Never);
        check(&live(5, 11, by(Cause::Sync), Maker::of(Cause::Delivery), 5), Wake::Never);
        check(&live(11, 11, by(Cause::Sync), by(Cause::Sync), 0), Wake::Never);
        check(&gone(5, 11, by(Cause::Sync)), Wake::Never);
        check(&gone(5, 11, by(Cause::Move)), Wake::Never);
        check(&gone(11, 12, Maker::of(Cause::Dav)), Wake::Never);
    }

    #[test]
    fn an_own_change_does_not_hide_somebody_elses() {
        // Changed by another at 11, then by the device itself at 12: 11 is still unknown to it.
        check(&live(5, 12, by(Cause::Sync), Maker::of(Cause::Delivery), 11), Wake::Later);
        // The device's own upload, changed by another since.
        check(&live(11, 12, Maker::of(Cause::Dav), by(Cause::Sync), 11), Wake::Later);
    }
}
