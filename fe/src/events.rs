//! Numbered events into the log: a line with the field `EVENT_ID`, which journald keeps as such.

use directpush_common::event::{Event, Level};

/// Logs an event at its own level.
pub fn log(event: &Event) {
    let id = event.id();
    match event.level() {
        Level::Information => tracing::info!(EVENT_ID = id, "{event}"),
        Level::Warning => tracing::warn!(EVENT_ID = id, "{event}"),
        Level::Error => tracing::error!(EVENT_ID = id, "{event}"),
    }
}
