//! Push: the shells around `common::push`, which decides.
//!
//! [`Engine`] holds the table of waiting Pings and one of plain holds; [`wait::Wait`] is one Ping's
//! place in it and does what the table says next. Beside them run one timer ([`timer`]), one UDP
//! listener ([`udp`]), one task per back end ([`backend`]: POLL, re-subscription) and one that says
//! goodbye to back ends when nobody waits for it any more ([`farewell`]).
//!
//! Nothing here is per device but an entry in a table: no task, no channel, no timer.

pub mod backend;
pub mod farewell;
pub mod hold;
pub mod tally;
pub mod timer;
pub mod udp;
pub mod wait;
pub mod watches;
pub mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use directpush_common::clock::Moment;
use directpush_common::dav::subscribe::DELAY_NEVER;
use directpush_common::httpu::{CallBack, SubscriptionId};
use directpush_common::push::ping::PingStep;
use directpush_common::push::routing::{PingRef, Routing};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::backend::{Backends, Session};
use crate::clock::Clock;
use crate::config::{ChangeDelay, Config};
use farewell::Farewell;
use hold::Holds;
use tally::Tally;
pub use watches::{Watch, Watches};
pub use words::{Word, Words};

/// Re-subscriptions under way at once: enough to bring 50,000 back within seconds, few enough
/// that a back end that has just started can answer each in time.
const REARMING_MAX: usize = 48;

/// The push engine of one front end process.
pub struct Engine {
    clock: Clock,
    backends: Arc<Backends>,
    call_back: CallBack,
    delay_secs: u32,
    poll_interval_secs: u32,
    routing: Mutex<Routing>,
    holds: Mutex<Holds>,
    /// What the timer waits for, in milliseconds; `sooner` tells it of something earlier.
    timer_target: AtomicU64,
    sooner: Notify,
    rearming: Semaphore,
    flows: Vec<Flow>,
    farewells: mpsc::UnboundedSender<Farewell>,
    /// What was counted.
    pub tally: Tally,
}

/// What goes on between us and one back end, for comparing its count of subscriptions with ours.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Subscriptions named in UNSUBSCRIBEs under way.
    leaving: AtomicU64,
    /// Subscriptions named in UNSUBSCRIBEs begun since the start.
    left: AtomicU64,
    /// Somebody has a reason to POLL now.
    poke: Notify,
}

impl Engine {
    /// An engine without Pings, and the other end of its queue of goodbyes.
    pub fn new(
        clock: Clock,
        config: &Config,
        backends: Arc<Backends>,
        call_back: CallBack,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Farewell>) {
        let (farewells, queue) = mpsc::unbounded_channel();
        let engine = Self {
            clock,
            call_back: call_back.clone(),
            delay_secs: match config.change_delay {
                ChangeDelay::Secs(secs) => secs,
                ChangeDelay::Never => DELAY_NEVER,
            },
            poll_interval_secs: config.poll_interval,
            routing: Mutex::new(Routing::new(call_back)),
            holds: Mutex::default(),
            timer_target: AtomicU64::new(u64::MAX),
            sooner: Notify::new(),
            rearming: Semaphore::new(REARMING_MAX),
            flows: backends.all().iter().map(|_| Flow::default()).collect(),
            backends,
            farewells,
            tally: Tally::default(),
        };
        (Arc::new(engine), queue)
    }

    /// The engine's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Where back ends send NOTIFYs.
    pub fn call_back(&self) -> &CallBack {
        &self.call_back
    }

    /// A device, by its keyed hash, began a Sync: one that still waits for it ends.
    pub fn handle_sync(&self, device: u64) {
        self.routing().handle_sync(device);
    }

    /// Pings waiting.
    pub fn waiting(&self) -> usize {
        self.routing.lock().len()
    }

    /// The front end is stopping: every Ping and every hold ends, and new ones end at once.
    pub fn drain(&self) {
        self.routing().handle_drain();
        self.holds.lock().handle_drain();
    }

    fn routing(&self) -> MutexGuard<'_, Routing> {
        self.routing.lock()
    }

    fn step(&self, ping: PingRef, waker: &Waker) -> Option<PingStep> {
        let mut routing = self.routing();
        let step = routing.step(self.now(), ping, waker);
        let deadline = routing.deadline();
        drop(routing);
        self.set_timer(deadline);
        step
    }

    /// The timer must fire at `deadline` or sooner.
    fn set_timer(&self, deadline: Moment) {
        if deadline.0 < self.timer_target.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
    }

    fn flow(&self, backend: u16) -> &Flow {
        &self.flows[usize::from(backend).min(self.flows.len() - 1)]
    }

    /// Nobody waits for these subscriptions any more.
    fn leave(&self, session: &Arc<Session>, backend: u16, ids: SmallVec<[SubscriptionId; 4]>) {
        if !ids.is_empty() {
            self.flow(backend).left.fetch_add(ids.len() as u64, Ordering::Relaxed);
            let farewell = Farewell { session: Arc::clone(session), backend, ids, after: Duration::ZERO };
            let _ = self.farewells.send(farewell);
        }
    }

    /// A Ping goes to where its mailbox is, should that have moved.
    fn settle(&self, session: &Arc<Session>, ping: PingRef) {
        let moved = self.routing().handle_moved(ping, session.backend());
        if let Some((before, ids)) = moved {
            self.leave(session, before, ids);
        }
    }

    /// The map from users to back ends is another: waiting Pings look where their mailboxes are.
    pub fn replaced(&self) {
        self.routing().wake_all();
    }

    /// There is a reason to POLL this back end now.
    pub fn poke(&self, backend: u16) {
        self.flow(backend).poke.notify_one();
    }
}
