//! Planning one Sync response of one collection from numbers alone.
//!
//! Usually one report of the changes since the device's base fits into the window and is the whole response. If it does
//! not: first the additions in the order of their ids, then the other changes in the order of their numbers. If a
//! walk is open, it follows: the items that the device does not hold yet, newest first. The shell fetches each
//! report that [`SyncPlan::wants`], hands it in, and takes the commands when nothing more is wanted. The cost is that of the
//! changes, never of the folder.
//!
//! Not here: bodies, options, uploads, SyncKeys as text.

use super::state::{KeyState, OldFloor, Walk};
use crate::{
    change::{Entry, EntryKind},
    dav::items::{Items, ItemsRequest, RESULTS_MAX},
    names::{DeviceKey, ItemId},
    numbers::{CollectionToken, Number},
};

/// Reports fetched for one response, at most: a filter that passes little must not scan a huge folder at once.
const REPORTS_MAX: usize = 16;

/// One command of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlanCommand {
    /// The device gets the item.
    Add(ItemId),
    /// The device holds the item in an older state.
    Change(ItemId),
    /// The item is gone.
    Delete(ItemId),
    /// The item left the device's filter.
    SoftDelete(ItemId),
}

/// A plan in the making.
#[derive(Debug)]
pub struct SyncPlan<'a> {
    device: &'a DeviceKey,
    state: KeyState,
    /// Additions up to here were sent before this request.
    through: Number,
    window: usize,
    commands: Vec<PlanCommand>,
    phase: Phase,
    reports: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// All changes at once, if they fit.
    Whole,
    Additions,
    Changes,
    Walk,
    Done,
}

/// What a plan came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Planned {
    /// In the order to be sent.
    pub commands: Vec<PlanCommand>,
    /// What the device knows once it has them.
    pub next: KeyState,
    /// MoreAvailable.
    pub more: bool,
}

impl<'a> SyncPlan<'a> {
    /// Plans from `state`, at most `window` commands (1 to 512). `floor` (Unix seconds) and `filter` are what the
    /// request asks for now; a filter or a floor that moved begins a walk for what enters and what leaves.
    pub fn new(
        device: &'a DeviceKey,
        mut state: KeyState,
        window: usize,
        filter: u8,
        floor: Option<i64>,
    ) -> Self {
        if state.base.is_none() {
            (state.filter, state.floor) = (filter, floor);
            state.walk = Some(Walk { before: Number::ZERO, old: None });
        } else if state.walk.is_none() && (state.filter != filter || state.floor < floor) {
            // Another filter, or the same one on a later day: what has become too old leaves the device.
            state.walk =
                Some(Walk { before: state.through.next(), old: Some(OldFloor { floor: state.floor }) });
            (state.filter, state.floor) = (filter, floor);
        }
        let phase = match state.base {
            None => Phase::Walk,
            Some(_) if state.more => Phase::Additions,
            Some(_) => Phase::Whole,
        };
        let (through, window) = (state.through, window.clamp(1, RESULTS_MAX));
        Self { device, state, through, window, commands: Vec::new(), phase, reports: 0 }
    }

    /// Whether a request for this filter needs the collection to start over: another change of filter while the walk
    /// of the last one is still open.
    pub fn must_start_over(state: &KeyState, filter: u8) -> bool {
        state.walk.is_some() && state.base.is_some() && state.filter != filter
    }

    /// The report to fetch next; `None`: the plan is complete.
    pub fn wants(&self) -> Option<ItemsRequest> {
        let limit = self.window - self.commands.len();
        if limit == 0 || self.reports >= REPORTS_MAX {
            return None;
        }
        // A filter or an own upload drops entries: look at more than the window holds.
        let more_than_window = RESULTS_MAX.min(limit + 64);
        match self.phase {
            Phase::Whole | Phase::Changes => {
                Some(ItemsRequest::Changes { since: self.state.base, limit: more_than_window })
            }
            Phase::Additions => {
                Some(ItemsRequest::Additions { after: ItemId(self.state.through), limit: more_than_window })
            }
            Phase::Walk => {
                let before = self.state.walk.map_or(Number::ZERO, |walk| walk.before);
                let limit = if self.state.floor.is_some() { RESULTS_MAX } else { limit };
                Some(ItemsRequest::Walk { before: (before != Number::ZERO).then_some(ItemId(before)), limit })
            }
            Phase::Done => None,
        }
    }

    /// Hands in the report that was wanted.
    pub fn handle_items(&mut self, items: &Items) {
        self.reports += 1;
        match self.phase {
            Phase::Whole => self.take_whole(items),
            Phase::Additions => self.take_additions(items),
            Phase::Changes => self.take_changes(items),
            Phase::Walk => self.take_walk(items),
            Phase::Done => {}
        }
    }

    /// The commands and the state after them.
    pub fn finish(mut self) -> Planned {
        self.state.more = matches!(self.phase, Phase::Additions | Phase::Changes);
        if !self.state.more {
            self.state.since = None;
        }
        let more = self.state.is_pending();
        Planned { commands: self.commands, next: self.state, more }
    }

    fn take_whole(&mut self, items: &Items) {
        let commands = |entry: &Entry| self.addition(entry).or_else(|| self.change(entry));
        let commands: Vec<PlanCommand> = items.entries.iter().filter_map(commands).collect();
        if items.more || commands.len() > self.window {
            self.phase = Phase::Additions;
            self.state.since = self.state.base.map(|base| base.number);
            return;
        }
        self.commands = commands;
        self.state.base = Some(items.token);
        self.state.through = items.token.number;
        self.walk_or_done();
    }

    fn take_additions(&mut self, items: &Items) {
        for entry in &items.entries {
            if self.commands.len() == self.window {
                return;
            }
            self.commands.extend(self.addition(entry));
            self.state.through = entry.id.0;
        }
        if !items.more {
            self.state.through = self.state.through.max(items.token.number);
            self.phase = Phase::Changes;
        }
    }

    fn take_changes(&mut self, items: &Items) {
        for entry in &items.entries {
            if self.commands.len() == self.window {
                return;
            }
            self.commands.extend(self.change(entry));
            self.state.base = Some(CollectionToken { epoch: items.token.epoch, number: entry.changed });
        }
        if !items.more {
            self.state.base = Some(items.token);
            // Additions between the two reports have ids above `through`: the next Sync brings them.
            self.state.base = self
                .state
                .base
                .map(|base| CollectionToken { number: base.number.min(self.state.through), ..base });
            self.walk_or_done();
        }
    }

    fn walk_or_done(&mut self) {
        self.phase = if self.state.walk.is_some() { Phase::Walk } else { Phase::Done };
    }

    /// The command for an item that was added since.
    fn addition(&self, entry: &Entry) -> Option<PlanCommand> {
        let EntryKind::Live(live) = &entry.kind else { return None };
        let news = entry.id.0 > self.through && !entry.is_own_upload(self.through, self.device);
        if !news || !self.passes(entry) {
            return None;
        }
        // The device's own upload, changed by somebody else since.
        let held = live.added.is_own_sync_of(self.device);
        Some(if held { PlanCommand::Change(entry.id) } else { PlanCommand::Add(entry.id) })
    }

    /// The command for an item that the device holds.
    fn change(&self, entry: &Entry) -> Option<PlanCommand> {
        let known = self.state.since.unwrap_or(self.state.base?.number);
        if !self.holds(entry) || entry.is_own_upload(known, self.device) {
            return None;
        }
        match &entry.kind {
            EntryKind::Gone(_) => Some(PlanCommand::Delete(entry.id)),
            // Its addition, which was sent, and nothing since.
            EntryKind::Live(_) if entry.changed == entry.id.0 => None,
            EntryKind::Live(_) => self.passes(entry).then_some(PlanCommand::Change(entry.id)),
        }
    }

    fn passes(&self, entry: &Entry) -> bool {
        self.state.floor.is_none_or(|floor| entry.date() >= floor)
    }

    /// Whether the device held the item of `entry` when the request came.
    fn holds(&self, entry: &Entry) -> bool {
        match self.state.walk {
            _ if entry.id.0 > self.through => false,
            Some(walk) if entry.id.0 < walk.before => {
                walk.old.is_some_and(|old| old.floor.is_none_or(|floor| entry.date() >= floor))
            }
            _ => self.passes(entry),
        }
    }

    fn take_walk(&mut self, items: &Items) {
        if self.state.base.is_none() {
            self.state.base = Some(items.token);
            self.through = items.token.number;
            self.state.through = self.through;
        }
        let Some(mut walk) = self.state.walk else { return };
        let passes = |floor: Option<i64>, entry: &Entry| floor.is_none_or(|floor| entry.date() >= floor);
        for entry in &items.entries {
            if self.commands.len() == self.window {
                self.state.walk = Some(walk);
                return;
            }
            walk.before = entry.id.0;
            // Younger than what the device knew: the changes of this Sync or the next bring it.
            if entry.id.0 > self.through {
                continue;
            }
            let was = walk.old.is_some_and(|old| passes(old.floor, entry));
            match (was, passes(self.state.floor, entry)) {
                (false, true) => self.commands.push(PlanCommand::Add(entry.id)),
                (true, false) => self.commands.push(PlanCommand::SoftDelete(entry.id)),
                _ => {}
            }
        }
        self.state.walk = items.more.then_some(walk);
        if !items.more {
            self.phase = Phase::Done;
        }
    }
}

#[cfg(test)]
mod tests;
