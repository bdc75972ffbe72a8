//! Who is due next: a binary heap of slots in which each entry knows its place, so that a deadline that moves or
//! goes away costs a few swaps. Four bytes a Ping here and four in its entry.
//!
//! The moments themselves are the Pings' own ([`PingWait::deadline`](super::PingWait::deadline)): whoever changes a Ping calls [`Due::settle`].

use super::{Entries, NONE, at};
use crate::clock::Moment;

/// The heap. Its first slot has the earliest deadline.
#[derive(Debug, Default)]
pub(super) struct Due(Vec<u32>);

impl Due {
    /// The earliest deadline, and whose it is.
    pub(super) fn first(&self, entries: &Entries) -> Option<(Moment, u32)> {
        self.0.first().map(|&slot| (moment(entries, slot), slot))
    }

    /// Enters a slot, moves it to where its deadline belongs, or takes it out if it has none.
    pub(super) fn settle(&mut self, entries: &mut Entries, slot: u32) {
        let Some(entry) = at(entries, slot) else { return };
        let (place, due) = (entry.place, entry.wait.deadline());
        if due == Moment::NEVER {
            return self.remove(entries, slot);
        }
        let place = if place == NONE {
            self.0.push(slot);
            self.0.len() - 1
        } else {
            place as usize
        };
        self.sift(entries, place);
    }

    /// Takes a slot out, if it is in.
    pub(super) fn remove(&mut self, entries: &mut Entries, slot: u32) {
        let Some(place) =
            entries[slot as usize].as_mut().map(|entry| std::mem::replace(&mut entry.place, NONE))
        else {
            return;
        };
        if place != NONE {
            self.0.swap_remove(place as usize);
            if (place as usize) < self.0.len() {
                self.sift(entries, place as usize);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves the slot at `place` up or down to where it belongs.
    fn sift(&mut self, entries: &mut Entries, mut place: usize) {
        let slot = self.0[place];
        let due = moment(entries, slot);
        while place > 0 {
            let parent = (place - 1) / 2;
            if moment(entries, self.0[parent]) <= due {
                break;
            }
            self.put(entries, place, self.0[parent]);
            place = parent;
        }
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.0.len());
            let Some(child) = children.min_by_key(|&child| moment(entries, self.0[child])) else { break };
            if due <= moment(entries, self.0[child]) {
                break;
            }
            self.put(entries, place, self.0[child]);
            place = child;
        }
        self.put(entries, place, slot);
    }

    fn put(&mut self, entries: &mut Entries, place: usize, slot: u32) {
        self.0[place] = slot;
        if let Some(entry) = &mut entries[slot as usize] {
            entry.place = u32::try_from(place).unwrap_or(NONE);
        }
    }
}

fn moment(entries: &Entries, slot: u32) -> Moment {
    at(entries, slot).map_or(Moment::NEVER, |entry| entry.wait.deadline())
}
