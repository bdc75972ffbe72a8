//! The one timer of all waiting Pings and holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use directpush_common::clock::Moment;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::Engine;

/// Wakes whoever's time has come, until `stop`.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    loop {
        // Said before the tables are read: a deadline entered in between is in them, or wakes us.
        engine.timer_target.store(0, Ordering::Release);
        let now = engine.now();
        engine.routing().handle_time(now);
        engine.holds.lock().handle_time(now);
        let next = engine.routing().deadline().min(engine.holds.lock().deadline());
        engine.timer_target.store(next.0, Ordering::Release);
        let missed = engine.routing().deadline().min(engine.holds.lock().deadline());
        let next = next.min(missed);
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.sooner.notified() => {}
            () = sleep_until(engine.clock.instant(next)), if next != Moment::NEVER => {}
        }
    }
}
