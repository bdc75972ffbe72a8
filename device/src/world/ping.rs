//! Ping in the simulated front end: a thin shell around `common::push::routing`, as the real one is.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use directpush_common::{
    autd::{AutdFolder, AutdState},
    dav::subscribe::{Already, Since},
    eas::ping::{PingBody, PingResponse},
    httpu::SubscriptionId,
    names::{DeviceKey, FolderId, Guid},
    numbers::Number,
    push::{
        heartbeat::HeartbeatLimits,
        ledger::NewSubscription,
        ping::{PingOutcome, PingStep, SubscribeFailure, UnsubscribeAnswer},
        routing::{Opening, PingRef},
        wake::Wake,
    },
    wbxml::Limits,
};
use smallvec::SmallVec;
use tokio::time::{sleep, timeout};

use super::{
    POLL_SECS,
    backend::{Backend, DeviceState},
    frontend::{Frontend, body_of, busy},
};
use crate::core::Response;

/// How long UNSUBSCRIBE may take at the end of a Ping.
const END: Duration = Duration::from_secs(2);
/// Seconds for which folders that are never synced are mentioned once.
const UNSYNCED_EVERY_SECS: u64 = 900;

/// One folder of a Ping.
#[derive(Clone, Debug)]
struct Watch {
    id: String,
    folder: u64,
    since: Since,
    floor: Option<i64>,
    pending: bool,
}

/// A waiting Ping's place; a device that hangs up drops it.
struct Seat {
    front: Rc<Frontend>,
    ping: PingRef,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let ids = self.front.routing.borrow_mut().close(self.ping);
        if ids.is_empty() || self.front.dead.is_cancelled() {
            return;
        }
        let front = Rc::clone(&self.front);
        tokio::task::spawn_local(async move { front.unsubscribe(&ids, false).await });
    }
}

impl Frontend {
    pub(super) async fn ping(self: &Rc<Self>, mailbox: usize, device: &DeviceKey, body: &[u8]) -> Response {
        if let Some(response) = self.answer(mailbox, device, body).await {
            return response;
        }
        sleep(Duration::from_millis(3000 + self.world.net.pick(0..1000))).await;
        body_of(PingResponse::ServerError.encode())
    }

    /// `None`: Status 8.
    async fn answer(self: &Rc<Self>, mailbox: usize, device: &DeviceKey, body: &[u8]) -> Option<Response> {
        let stored = self.world.backend.call(self.index, async |backend| {
            backend.devices.borrow().get(&device.to_string()).cloned().unwrap_or_default()
        });
        let state = stored.await?;
        let autd = match complete(PingBody::decode(body, Limits::default()).unwrap(), &state) {
            Ok(autd) => autd,
            Err(refusal) => return Some(body_of(refusal.encode())),
        };
        if state.autd.as_ref() != Some(&autd) {
            let put = self.world.backend.call(self.index, async |backend| {
                let mut devices = backend.devices.borrow_mut();
                let known = devices.entry(device.to_string()).or_default();
                known.autd = Some(autd.clone());
                known.autd_writes += 1;
            });
            put.await?;
        }
        if state.hierarchy.key == 0 {
            return Some(body_of(PingResponse::FolderSyncRequired.encode()));
        }
        let mut watches: Vec<Watch> = autd.folders.iter().map(|folder| watch(folder, &state)).collect();
        let pending: Vec<String> = watches.iter().filter(|w| w.pending).map(|w| w.id.clone()).collect();
        if !pending.is_empty() {
            return Some(body_of(PingResponse::Changed(pending).encode()));
        }
        let told = self.unsynced_told.borrow().get(device).copied();
        if told.is_some_and(|told| self.now() < told.plus_secs(UNSYNCED_EVERY_SECS)) {
            watches.iter_mut().filter(|w| w.since == Since::Nothing).for_each(|w| w.since = Since::Now);
        }
        let outcome = self.wait(mailbox, device, &watches, autd.heartbeat_secs).await?;
        if let PingOutcome::Changed(positions) = &outcome
            && positions.iter().any(|n| matches!(watches[usize::from(*n)].since, Since::Nothing))
        {
            self.unsynced_told.borrow_mut().insert(device.clone(), self.now());
        }
        Some(match outcome {
            PingOutcome::Expired => body_of(PingResponse::Expired.encode()),
            PingOutcome::Changed(positions) => {
                let named = positions.iter().map(|n| watches[usize::from(*n)].id.clone()).collect();
                body_of(PingResponse::Changed(named).encode())
            }
            PingOutcome::Event(_) => body_of(PingResponse::FolderSyncRequired.encode()),
            PingOutcome::Failed => return None,
            PingOutcome::Superseded | PingOutcome::Draining => busy(5 + self.world.net.pick(0..10)),
        })
    }

    async fn wait(
        self: &Rc<Self>,
        mailbox: usize,
        device: &DeviceKey,
        watches: &[Watch],
        heartbeat_secs: u32,
    ) -> Option<PingOutcome> {
        let group = Guid::from_random(self.world.net.bytes());
        let hash =
            device.to_string().bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let opening =
            Opening { backend: 0, device: hash, group, heartbeat_secs, folders: watches.len(), sync: false };
        let ping = self.routing.borrow_mut().open(self.now(), opening);
        let _seat = Seat { front: Rc::clone(self), ping };
        loop {
            let step = poll_fn(|context| {
                let now = self.now();
                let step = self.routing.borrow_mut().step(now, ping, context.waker());
                self.sooner.notify_one();
                match step {
                    Some(PingStep::Wait) => Poll::Pending,
                    step => Poll::Ready(step),
                }
            });
            match step.await? {
                PingStep::Subscribe(positions) => {
                    for position in positions {
                        let watch = &watches[usize::from(position)];
                        self.subscribe(mailbox, device, watch, ping, position, group, heartbeat_secs).await;
                    }
                }
                step @ (PingStep::Ask | PingStep::End) => {
                    let ids = self.routing.borrow().subscriptions(ping);
                    let answer =
                        timeout(END, self.unsubscribe(&ids, step == PingStep::Ask)).await.ok().flatten();
                    let now = self.now();
                    self.routing.borrow_mut().handle_unsubscribed(now, ping, answer.as_ref());
                }
                PingStep::Answer(outcome) => return Some(outcome),
                PingStep::Wait => {}
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a SUBSCRIBE says that much")]
    async fn subscribe(
        &self,
        mailbox: usize,
        device: &DeviceKey,
        watch: &Watch,
        ping: PingRef,
        position: u16,
        group: Guid,
        heartbeat_secs: u32,
    ) {
        let new = |base| NewSubscription {
            front_end: self.number(),
            call_back: self.call_back.clone(),
            group,
            mailbox: mailbox as u64,
            folder: watch.folder,
            device: device.clone(),
            base,
            floor: watch.floor,
            delay_secs: self.world.change_delay,
            lifetime_secs: heartbeat_secs + 60,
            poll_interval_secs: POLL_SECS,
        };
        let made = self.world.backend.call(self.index, async |backend: &Backend| {
            let here = backend.folder(mailbox, watch.folder, |folder| folder.changed());
            let base = match watch.since {
                Since::Token(token) => token.number,
                Since::Nothing => Number::ZERO,
                Since::Now => here,
            };
            let id = backend.ledger(|ledger, now| ledger.handle_subscribe(now, &new(base))).unwrap();
            // Registered first, compared second; anything may happen between.
            sleep(Duration::from_millis(self.world.net.pick(0..5))).await;
            let found =
                backend.folder(mailbox, watch.folder, |folder| folder.compare(base, watch.floor, device));
            backend.ledger(|ledger, now| ledger.handle_compared(now, id, found));
            (id, found)
        });
        let made = made.await;
        let now = self.now();
        let mut routing = self.routing.borrow_mut();
        match made {
            Some((id, found)) => {
                let already = match found {
                    Wake::Never => Already::Nothing,
                    Wake::Later => Already::Later,
                    Wake::Now => Already::Now,
                };
                routing.handle_subscribed(ping, position, id, already, None);
            }
            None => routing.handle_subscribe_failed(now, ping, position, SubscribeFailure::Backend),
        }
    }

    async fn unsubscribe(
        &self,
        ids: &SmallVec<[SubscriptionId; 4]>,
        only_if_changed: bool,
    ) -> Option<UnsubscribeAnswer> {
        let said = self.world.backend.call(self.index, async |backend| {
            backend.ledger(|ledger, now| ledger.handle_unsubscribe(now, self.number(), ids, only_if_changed))
        });
        let said = said.await?;
        Some(UnsubscribeAnswer { answers: said.answers, kept: said.kept, event: said.event })
    }
}

/// What the body leaves out comes from AutdState.
fn complete(body: PingBody, state: &DeviceState) -> Result<AutdState, PingResponse> {
    let (heartbeat, folders) = match body {
        PingBody::Empty => (None, None),
        PingBody::Full(asked) => (asked.heartbeat, asked.folders),
    };
    let cached = state.autd.as_ref();
    let folders = match folders {
        Some(folders) => Some(
            folders
                .into_iter()
                .map(|folder| AutdFolder { class: folder.class.parse().unwrap(), id: folder.id })
                .collect(),
        ),
        None => cached.map(|autd| autd.folders.clone()),
    };
    let heartbeat = heartbeat.or(cached.map(|autd| i64::from(autd.heartbeat_secs)));
    let (Some(heartbeat), Some(folders)) = (heartbeat, folders) else {
        return Err(PingResponse::MissingParameters);
    };
    match HeartbeatLimits::default().grant(heartbeat) {
        Ok(heartbeat_secs) => Ok(AutdState { heartbeat_secs, folders }),
        Err(out) => Err(PingResponse::HeartbeatOutOfRange(out.nearest)),
    }
}

fn watch(folder: &AutdFolder, state: &DeviceState) -> Watch {
    let counter = folder.id.parse::<FolderId>().unwrap().counter;
    let current = state.collections.get(&counter).map(|(_, state)| state.current.clone()).unwrap_or_default();
    Watch {
        id: folder.id.clone(),
        folder: counter,
        since: current.base.map_or(Since::Nothing, Since::Token),
        floor: current.floor,
        pending: current.is_pending() && current.base.is_some(),
    }
}
