//! UNSUBSCRIBEs that nobody waits for: the device hung up, or the back end was too slow to be
//! waited for at the end of a Ping.
//!
//! They are worth a few tries and no more: what is never ended expires with its lifetime.

use std::sync::Arc;
use std::time::Duration;

use directpush_common::httpu::SubscriptionId;
use smallvec::SmallVec;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::backend::Session;

/// Goodbyes under way at once.
const UNDER_WAY_MAX: usize = 16;
/// How often one is tried, and how long after a failure.
const TRIES: u32 = 3;
const RETRY: Duration = Duration::from_secs(5);

/// Subscriptions to end.
pub struct Farewell {
    /// Whose.
    pub session: Arc<Session>,
    /// At which back end.
    pub backend: u16,
    /// Which.
    pub ids: SmallVec<[SubscriptionId; 4]>,
    /// How long to wait first.
    pub after: Duration,
}

/// Says goodbye until `stop`.
pub async fn run(engine: Arc<Engine>, mut queue: mpsc::UnboundedReceiver<Farewell>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    loop {
        let farewell = tokio::select! {
            () = stop.cancelled() => return,
            farewell = queue.recv() => match farewell {
                Some(farewell) => farewell,
                None => return,
            },
        };
        let (engine, slots) = (Arc::clone(&engine), Arc::clone(&slots));
        tokio::spawn(async move {
            // Those that wait first do not hold up those that need not.
            sleep(farewell.after).await;
            if let Ok(_slot) = slots.acquire().await {
                say(&engine, farewell).await;
            }
        });
    }
}

async fn say(engine: &Engine, farewell: Farewell) {
    let Farewell { session, backend, ids, .. } = farewell;
    for _ in 0..TRIES {
        match engine.backends.at(backend).unsubscribe(&session, ids.iter().copied(), false).await {
            Err(error) if error.is_silence() => sleep(RETRY).await,
            _ => return,
        }
    }
}
