//! What is to be done when, in order of time: the owner looks at its beginning only.

use std::collections::BTreeSet;

use super::Id;
use super::entry::Route;

/// Where one message stands in it: Unix seconds.
#[derive(Clone, Copy)]
pub(super) struct Planned {
    pub(super) chore: Option<u64>,
    pub(super) due: Option<(Route, u64)>,
}

/// What is to be done when, by message.
#[derive(Default)]
pub(super) struct Agenda {
    pub(super) chores: BTreeSet<(u64, Id)>,
    pub(super) local: BTreeSet<(u64, Id)>,
    pub(super) remote: BTreeSet<(u64, Id)>,
}

impl Agenda {
    fn due(&mut self, route: Route) -> &mut BTreeSet<(u64, Id)> {
        match route {
            Route::Local => &mut self.local,
            Route::SmartHost => &mut self.remote,
        }
    }

    pub(super) fn note(&mut self, id: Id, planned: Planned) {
        self.chores.extend(planned.chore.map(|at| (at, id)));
        if let Some((route, at)) = planned.due {
            self.due(route).insert((at, id));
        }
    }

    pub(super) fn forget(&mut self, id: Id, planned: Planned) {
        if let Some(at) = planned.chore {
            self.chores.remove(&(at, id));
        }
        if let Some((route, at)) = planned.due {
            self.due(route).remove(&(at, id));
        }
    }
}
