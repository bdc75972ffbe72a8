//! One waiting Ping, or Sync: does what the table says next, until the table says what to answer.
//!
//! Cancel-safe: dropping a [`Wait`] takes the Ping out of the table and ends its subscriptions
//! behind. Requests under way live in one box that exists only while they run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use directpush_common::clock::Moment;
use directpush_common::dav::subscribe::{DeviceEvent, LIFETIME_SECS_MAX, Subscribe};
use directpush_common::names::Guid;
use directpush_common::push::ping::{PingOutcome, PingStep, SubscribeFailure, UnsubscribeAnswer};
use directpush_common::push::routing::{Opening, PingRef};
use smallvec::SmallVec;
use tokio::time::timeout_at;

use super::farewell::Farewell;
use super::{Engine, Watches};
use crate::backend::subscribe::Subscription;
use crate::backend::{Error, HOPS_MAX, Session};
use crate::device::Device;
use crate::front::Front;

/// A subscription outlives the heartbeat by this much, so that it never ends first.
const LIFETIME_BEYOND_HEARTBEAT_SECS: u32 = 60;

/// Whose Ping it is and what it watches.
#[derive(Clone)]
pub struct Question {
    /// The log-on.
    pub session: Arc<Session>,
    /// The device.
    pub device: Arc<Device>,
    /// The folders.
    pub watches: Arc<Watches>,
    /// Granted, in seconds.
    pub heartbeat_secs: u32,
    /// A Sync asks it.
    pub sync: bool,
}

/// Why a Ping has no place.
#[derive(Debug)]
pub enum NotOpened {
    /// Its user has as many as the bounds allow.
    TooMany,
    /// The system has no randomness to give.
    NoRandomness(getrandom::Error),
}

/// A Ping in the table, and its place among those of its user.
pub struct Wait {
    front: Arc<Front>,
    session: Arc<Session>,
    device: Arc<Device>,
    watches: Arc<Watches>,
    ping: PingRef,
    /// A keyed hash of the user.
    user: u64,
    heartbeat_secs: u16,
    /// Requests to the back end that the table is waiting for.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Wait {
    /// Enters a Ping whose heartbeat begins now.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(front: &Arc<Front>, question: Question) -> Result<Self, NotOpened> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(NotOpened::NoRandomness)?;
        let Question { session, device, watches, heartbeat_secs, sync } = question;
        let user = front.devices.user_hash(&session.user);
        if !front.admit(user) {
            return Err(NotOpened::TooMany);
        }
        let opening = Opening {
            backend: session.backend(),
            device: device.hash,
            group: Guid::from_random(random),
            heartbeat_secs,
            folders: watches.folders().len(),
            sync,
        };
        let ping = front.engine.routing().open(front.now(), opening);
        let heartbeat_secs = u16::try_from(heartbeat_secs).unwrap_or(u16::MAX);
        let front = Arc::clone(front);
        Ok(Self { front, session, device, watches, ping, user, heartbeat_secs, work: None })
    }

    /// The front end.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Whose it is.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The device that waits.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Front end, log-on and device, for what goes on when it has ended.
    pub fn parts(&self) -> (Arc<Front>, Arc<Session>, Arc<Device>) {
        (Arc::clone(&self.front), Arc::clone(&self.session), Arc::clone(&self.device))
    }

    /// When its heartbeat has passed.
    pub fn expires(&self) -> Moment {
        self.front.engine.routing().expires(self.ping).unwrap_or_default()
    }

    /// Granted, in seconds.
    pub fn heartbeat_secs(&self) -> u16 {
        self.heartbeat_secs
    }

    /// What it watches.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// Subscribes to the folders. `Some` = there is an answer already; `None` = it is time to wait.
    ///
    /// # Errors
    /// [`Error::Credential`]: the log-on is no longer good, and nothing was decided. [`Error::Moved`]: nor is the back end.
    pub async fn establish(&mut self) -> Result<Option<PingOutcome>, Error> {
        loop {
            self.front.engine.settle(&self.session, self.ping);
            match self.front.engine.step(self.ping, Waker::noop()) {
                Some(PingStep::Wait) => return Ok(None),
                Some(PingStep::Answer(outcome)) => return Ok(Some(outcome)),
                Some(PingStep::Subscribe(positions)) => {
                    let job = self.job();
                    job.subscribe(&positions).await?;
                }
                Some(PingStep::Ask) => self.job().unsubscribe(true).await,
                Some(PingStep::End) => self.job().unsubscribe(false).await,
                None => return Ok(Some(PingOutcome::Superseded)),
            }
        }
    }

    /// The outcome, once there is one.
    pub fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<PingOutcome> {
        loop {
            if let Some(work) = &mut self.work {
                ready!(work.as_mut().poll(cx));
                self.work = None;
            }
            self.front.engine.settle(&self.session, self.ping);
            let job = match self.front.engine.step(self.ping, cx.waker()) {
                Some(PingStep::Wait) => return Poll::Pending,
                Some(PingStep::Answer(outcome)) => return Poll::Ready(outcome),
                Some(step) => (self.job(), step),
                None => return Poll::Ready(PingOutcome::Superseded),
            };
            self.work = Some(Box::pin(async move {
                let (job, step) = job;
                match step {
                    PingStep::Subscribe(positions) => job.rearm(&positions).await,
                    PingStep::Ask => job.unsubscribe(true).await,
                    PingStep::End => job.unsubscribe(false).await,
                    PingStep::Wait | PingStep::Answer(_) => {}
                }
            }));
        }
    }

    fn job(&self) -> Job {
        Job {
            engine: Arc::clone(&self.front.engine),
            session: Arc::clone(&self.session),
            device: Arc::clone(&self.device),
            watches: Arc::clone(&self.watches),
            ping: self.ping,
            heartbeat_secs: u32::from(self.heartbeat_secs),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let engine = &self.front.engine;
        let (backend, ids) = {
            let mut routing = engine.routing();
            (routing.backend(self.ping).unwrap_or_default(), routing.close(self.ping))
        };
        self.front.dismiss(self.user);
        engine.leave(&self.session, backend, ids);
    }
}

/// Requests to the back end on behalf of one Ping.
struct Job {
    engine: Arc<Engine>,
    session: Arc<Session>,
    device: Arc<Device>,
    watches: Arc<Watches>,
    ping: PingRef,
    heartbeat_secs: u32,
}

impl Job {
    /// Follows a redirect.
    fn follow(&self, error: &Error) -> bool {
        let Error::Moved { location } = error else { return false };
        let followed = self.engine.backends.follow(&self.session, location);
        if followed {
            self.engine.settle(&self.session, self.ping);
        }
        followed
    }

    /// Subscribes again for a device that waits already: in turn with all the others.
    async fn rearm(&self, positions: &[u16]) {
        let Some(expires) = self.engine.routing().expires(self.ping) else { return };
        let turn = timeout_at(self.engine.clock.instant(expires), self.engine.rearming.acquire()).await;
        if turn.is_err() {
            // The heartbeat has passed in the queue: there is nothing to watch any more.
            for &position in positions {
                self.report_failure(position, SubscribeFailure::Backend);
            }
            return;
        }
        let mut hops = 0;
        let error = loop {
            match self.subscribe(positions).await {
                Ok(()) => return,
                Err(error) if hops < HOPS_MAX && self.follow(&error) => hops += 1,
                Err(error) => break error,
            }
        };
        // What could not be watched is tried again in a moment.
        for &position in positions {
            self.report_failure(position, SubscribeFailure::Backend);
        }
        if let Error::Credential = error {
            // Nobody is there to log on again; the device's next command does it.
            self.engine.routing().handle_logged_off(self.ping);
        } else {
            self.engine.backends.of(&self.session).complain("SUBSCRIBE", &error);
        }
    }

    /// SUBSCRIBE for each folder, in the device's order. Fails without a report when another log-on or another back end is
    /// needed.
    async fn subscribe(&self, positions: &[u16]) -> Result<(), Error> {
        let Some(group) = self.engine.routing().group(self.ping) else { return Ok(()) };
        let backend = self.engine.backends.of(&self.session);
        let mut silent = false;
        for &position in positions {
            let Some(watch) = self.watches.folders().get(usize::from(position)) else { continue };
            if silent {
                // The others would only wait for the same silence.
                self.report_failure(position, SubscribeFailure::Backend);
                continue;
            }
            let subscribe = Subscribe {
                call_back: self.engine.call_back.clone(),
                group,
                lifetime_secs: (self.heartbeat_secs + LIFETIME_BEYOND_HEARTBEAT_SECS).min(LIFETIME_SECS_MAX),
                delay_secs: self.engine.delay_secs,
                device: self.device.key.clone(),
                since: self.watches.since(watch),
                floor: watch.floor(),
                hierarchy: self.watches.hierarchy,
                poll_interval_secs: self.engine.poll_interval_secs,
            };
            let url = format!("{}{}", self.session.user.mailbox_url(), watch.path());
            match backend.subscribe(&self.session, &url, &subscribe).await {
                Ok(Subscription::Made(made)) => {
                    self.engine.tally.subscribed.add_one();
                    let mut routing = self.engine.routing();
                    routing.handle_subscribed(self.ping, position, made.id, made.already, made.event);
                }
                Ok(Subscription::Gone) => self.report_failure(position, SubscribeFailure::FolderGone),
                Ok(Subscription::TokenTooOld) => self.report_failure(position, SubscribeFailure::TokenGone),
                Err(error @ (Error::Credential | Error::Moved { .. })) => return Err(error),
                Err(error) => {
                    self.engine.tally.subscribe_failed.add_one();
                    backend.complain("SUBSCRIBE", &error);
                    silent = error.is_silence();
                    if silent {
                        self.engine.poke(self.session.backend());
                    }
                    self.report_failure(position, SubscribeFailure::Backend);
                }
            }
        }
        Ok(())
    }

    fn report_failure(&self, position: u16, failure: SubscribeFailure) {
        let now = self.engine.now();
        self.engine.routing().handle_subscribe_failed(now, self.ping, position, failure);
    }

    /// The end of the Ping, or with `only_if_changed` the question whether it is one.
    async fn unsubscribe(&self, only_if_changed: bool) {
        let ids: SmallVec<[_; 4]> = self.engine.routing().subscriptions(self.ping);
        let at = self.session.backend();
        let flow = self.engine.flow(at);
        let count = ids.len() as u64;
        flow.leaving.fetch_add(count, Ordering::Relaxed);
        flow.left.fetch_add(count, Ordering::Relaxed);
        if only_if_changed {
            self.engine.tally.asked.add_one();
        }
        let backend = self.engine.backends.of(&self.session);
        let answer = match backend.unsubscribe(&self.session, ids.iter().copied(), only_if_changed).await {
            Ok(said) => Some(UnsubscribeAnswer { answers: said.answers, kept: said.kept, event: said.event }),
            // The log-on ended while the device waited: its next command will find out how.
            Err(Error::Credential) => Some(UnsubscribeAnswer {
                answers: Vec::new(),
                kept: false,
                event: Some(DeviceEvent::Password),
            }),
            // The subscriptions went with the mailbox: it is asked anew where that is.
            Err(error) if self.follow(&error) => {
                Some(UnsubscribeAnswer { answers: Vec::new(), kept: false, event: None })
            }
            Err(error) => {
                self.engine.tally.unsubscribe_failed.add_one();
                backend.complain("UNSUBSCRIBE", &error);
                if !only_if_changed {
                    let (session, after) = (Arc::clone(&self.session), Duration::from_secs(5));
                    let _ = self.engine.farewells.send(Farewell { session, backend: at, ids, after });
                }
                None
            }
        };
        flow.leaving.fetch_sub(count, Ordering::Relaxed);
        let now = self.engine.now();
        self.engine.routing().handle_unsubscribed(now, self.ping, answer.as_ref());
    }
}
