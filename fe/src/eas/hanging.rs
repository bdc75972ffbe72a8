//! A Sync that waits ([MS-ASCMD] 2.2.1.21 Sync, Wait and HeartbeatInterval): parked like a Ping, answered with the
//! changes themselves.
//!
//! It subscribes to its collections with the tokens that the device holds, by the same table, and is woken by the same
//! rule. What is parked is as small as a Ping: the request itself lies in the mailbox (`SyncRequest`, and each
//! collection's state), and is read again when there is something to tell. If then there is nothing after all, it waits
//! on, in place, for what is left of its time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use directpush_common::clock::Moment;
use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::SyncResponse;
use directpush_common::eas::{Command, RequestLine, Version};
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;
use directpush_common::push::ping::PingOutcome;
use directpush_common::sync::cache::SyncCache;
use directpush_common::sync::state::FolderSyncState;
use smallvec::SmallVec;

use super::dispatch::retry_after;
use super::parked::{HUNG_UP, Held, NOWHERE, Trace, Whose, count, guarded, held_until, wbxml};
use super::ping::retry_after_secs;
use super::state::{self, FOLDER_SYNC, SYNC_REQUEST};
use super::sync::{self, Turned};
use super::sync_collection::Standing;
use super::{Reaction, Request};
use crate::backend::{self, HOPS_MAX, Result, Session};
use crate::device::Device;
use crate::front::Front;
use crate::http::{Ends, Parked, Reply, Seat};
use crate::push::Watches;
use crate::push::hold::{self, Hold};
use crate::push::wait::{NotOpened, Question, Wait};

/// Looks at the same request, at most, before it is answered with nothing: the device comes back.
const TURNS_MAX: usize = 4;

/// A request to which nothing has happened yet waits for `secs`.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn park(request: &Request, standing: Vec<Standing>, secs: u32) -> Result<Reaction> {
    let until = request.now_plus_secs(u64::from(secs));
    let note = format!("Hb{secs}_Fc{}_St1", standing.len());
    let pushes = request.front.config.direct_push && request.session.push;
    let Some(last) = standing.last().filter(|_| pushes) else {
        // Nobody watches; the device looks again when its time has passed.
        return Ok(Reaction::Park(Box::new(Held::new(request, until, Vec::new(), note))));
    };
    let Some(seen) = hierarchy_seen(request, last).await? else {
        return Ok(hierarchy_moved(request));
    };
    let mut watches = Watches::new(last.id.installation, seen, standing.len());
    for one in &standing {
        watches.push(one.watch.clone());
    }
    settle(&mut watches, &standing);
    request.front.sample(secs);
    match go_on(request, Arc::new(watches), None, until).await? {
        Next::Answer(answer) => Ok(answer.into_reaction(request)),
        Next::Wait(wait) => {
            request.device.known.lock().waits_for(wait.watches());
            Ok(Reaction::Park(Box::new(ParkedSync {
                stage: Stage::Waiting(wait),
                trace: Trace::of(request),
            })))
        }
    }
}

/// The hierarchy number of the device's last FolderSync.
async fn hierarchy_seen(request: &Request, last: &Standing) -> Result<Option<Number>> {
    {
        let known = request.device.known.lock();
        if known.state != 0 && known.state == last.fresh.state && known.seen.is_some() {
            return Ok(known.seen);
        }
    }
    let loaded = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?;
    Ok(loaded.value.filter(|state| state.key != 0).map(|state| state.hierarchy))
}

fn hierarchy_moved(request: &Request) -> Reaction {
    request.device.known.lock().state = 0;
    let body = SyncResponse::failed(SyncStatus::FolderSyncRequired).encode(request.line.version);
    guarded(request, body, "St12".to_owned())
}

/// What the device knows of these collections now.
fn settle(watches: &mut Watches, standing: &[Standing]) {
    for one in standing {
        if let Some(at) = watches.position(one.id) {
            watches.set_known(at, one.base, one.floor, false);
        }
    }
}

/// What comes next for a request that waits.
enum Next {
    Answer(Answer),
    Wait(Wait),
}

/// How it ends.
struct Answer {
    end: End,
    note: String,
    told: Vec<FolderId>,
}

enum End {
    /// 200 with this body, perhaps empty.
    Body(Vec<u8>),
    /// Status 12.
    Hierarchy,
    /// Another Sync of the device has taken its place: nothing happened, told later to a device that does it in a ring.
    Superseded,
    /// 503.
    Busy(u64),
}

impl Answer {
    fn of(end: End, note: &str) -> Self {
        Self { end, note: note.to_owned(), told: Vec::new() }
    }

    /// Nothing happened: the device keeps its keys and may ask again without a body.
    fn nothing() -> Self {
        Self::of(End::Body(Vec::new()), "St1")
    }

    /// The answer of a request that was never parked.
    fn into_reaction(self, request: &Request) -> Reaction {
        match self.end {
            End::Body(body) => {
                let (device, told) = (Arc::clone(&request.device), self.told);
                if !told.is_empty() {
                    request.seat.if_unsent(move || sync::mark_unsent(&device, told));
                }
                Reaction::Body(body, self.note)
            }
            End::Hierarchy => hierarchy_moved(request),
            End::Superseded => guarded(request, Vec::new(), self.note),
            End::Busy(secs) => Reaction::Busy(secs),
        }
    }
}

/// Answers, or waits until `until`. `changed`: the positions of folders that the back end has something to say of.
async fn go_on(
    request: &Request,
    mut watches: Arc<Watches>,
    mut changed: Option<SmallVec<[u16; 4]>>,
    until: Moment,
) -> Result<Next> {
    for _ in 0..TURNS_MAX {
        if let Some(positions) = changed.take() {
            let turned = match look(request, &watches, &positions).await? {
                Ok(turned) => turned,
                Err(status) => {
                    let body = SyncResponse::failed(status).encode(request.line.version);
                    return Ok(Next::Answer(Answer::of(End::Body(body), &format!("St{status}"))));
                }
            };
            if !turned.responses.is_empty() {
                let note = sync::note(&turned.responses);
                let body = SyncResponse::Collections(turned.responses).encode(request.line.version);
                return Ok(Next::Answer(Answer { end: End::Body(body), note, told: turned.told }));
            }
            settle(Arc::make_mut(&mut watches), &turned.standing);
        }
        let left = until.millis_since(request.front.now()).div_ceil(1000);
        let Ok(heartbeat_secs @ 1..) = u32::try_from(left) else { break };
        let question = Question {
            session: Arc::clone(&request.session),
            device: Arc::clone(&request.device),
            watches: Arc::clone(&watches),
            heartbeat_secs,
            sync: true,
        };
        let mut wait = match Wait::open(&request.front, question) {
            Ok(wait) => wait,
            Err(NotOpened::TooMany) => {
                return Ok(Next::Answer(Answer::of(End::Busy(30 + fastrand::u64(0..60)), "St0")));
            }
            Err(NotOpened::NoRandomness(error)) => {
                tracing::error!(%error, "no Sync can be parked");
                return Ok(Next::Answer(Answer::of(End::Busy(30), "St0")));
            }
        };
        match wait.establish().await? {
            None => return Ok(Next::Wait(wait)),
            Some(PingOutcome::Changed(positions)) => changed = Some(positions),
            Some(outcome) => return Ok(Next::Answer(answer_to(&outcome, request.line.version))),
        }
    }
    Ok(Next::Answer(Answer::nothing()))
}

/// The answer to an outcome that needs no look at the collections.
fn answer_to(outcome: &PingOutcome, version: Version) -> Answer {
    match outcome {
        PingOutcome::Event(
            DeviceEvent::Hierarchy
            | DeviceEvent::Wipe
            | DeviceEvent::Policy
            | DeviceEvent::Disabled
            | DeviceEvent::Password
            | DeviceEvent::Blocked
            | DeviceEvent::Forgotten,
        ) => Answer::of(End::Hierarchy, "St12"),
        // From a passing trouble the device comes back by itself.
        PingOutcome::Failed if version.has_common_statuses() => {
            let body = SyncResponse::failed(SyncStatus::Retry).encode(version);
            Answer::of(End::Body(body), "St16")
        }
        PingOutcome::Failed => Answer::of(End::Busy(10 + fastrand::u64(0..10)), "St0"),
        // 503 would be taken for the whole account, and nobody reads the answer but the connection that was left.
        PingOutcome::Superseded => Answer::of(End::Superseded, "St1"),
        PingOutcome::Draining => Answer::of(End::Busy(retry_after_secs(outcome)), "St0"),
        PingOutcome::Expired | PingOutcome::Changed(_) => Answer::nothing(),
    }
}

/// The collections at these positions, as the device last asked for them.
async fn look(
    request: &Request,
    watches: &Watches,
    positions: &[u16],
) -> Result<std::result::Result<Turned, SyncStatus>> {
    let Some(cached) = state::load::<SyncCache>(request, SYNC_REQUEST).await?.value else {
        return Ok(Err(SyncStatus::IncompleteRequest));
    };
    let at = |position: &u16| watches.folders().get(usize::from(*position));
    let folders: Vec<FolderId> =
        positions.iter().filter_map(at).map(|watch| watch.folder(watches.installation)).collect();
    sync::turn(request, &cached.request(), Some(&folders)).await
}

/// A Sync that waits on a connection.
struct ParkedSync {
    stage: Stage,
    trace: Trace,
}

enum Stage {
    Waiting(Wait),
    After(Box<After>),
}

/// What follows the wait.
struct After {
    front: Arc<Front>,
    session: Arc<Session>,
    device: Arc<Device>,
    /// Woken: the collections are being looked at.
    work: Option<Pin<Box<dyn Future<Output = Next> + Send>>>,
    note: String,
    told: Vec<FolderId>,
}

impl Stage {
    fn whose(&self) -> Whose<'_> {
        match self {
            Self::Waiting(wait) => {
                Whose { front: wait.front(), session: wait.session(), device: wait.device() }
            }
            Self::After(after) => {
                Whose { front: &after.front, session: &after.session, device: &after.device }
            }
        }
    }

    fn note(&self) -> String {
        match self {
            Self::Waiting(wait) => {
                format!("Hb{}_Fc{}", wait.heartbeat_secs(), wait.watches().folders().len())
            }
            Self::After(after) => format!("Hb_{}", after.note),
        }
    }

    /// The wait is over.
    fn after(&mut self) -> &mut After {
        if let Self::Waiting(wait) = self {
            let (front, session, device) = wait.parts();
            let after = After { front, session, device, work: None, note: String::new(), told: Vec::new() };
            *self = Self::After(Box::new(after));
        }
        match self {
            Self::After(after) => after,
            Self::Waiting(_) => unreachable!("it was replaced above"),
        }
    }
}

impl ParkedSync {
    /// Begins to look at what has changed. False if that cannot be.
    fn look(&mut self, positions: SmallVec<[u16; 4]>) -> bool {
        let Stage::Waiting(wait) = &self.stage else { return false };
        let (front, session, device) = wait.parts();
        let Some(line) = RequestLine::resumed(Command::Sync, self.trace.version(), &device.key) else {
            return false;
        };
        let (agent, began) = self.trace.asked();
        let (body, seat) = (bytes::Bytes::new(), Seat::default());
        let request = Request { front, session, device, line, body, seat, began, agent, resumed: true };
        let (watches, until) = (Arc::clone(wait.watches()), wait.expires());
        let work = Box::pin(async move { resume(&request, watches, positions, until).await });
        self.stage.after().work = Some(work);
        true
    }

    /// Holds the answer of a request whose place was taken, if that happens again and again. False if not.
    fn holds_back(&mut self) -> bool {
        let whose = self.stage.whose();
        let Some(until) = held_until(whose.front, whose.device) else { return false };
        let mut hold = Hold::new(&whose.front.engine, until);
        self.stage.after().work = Some(Box::pin(async move {
            Next::Answer(match poll_fn(|cx| hold.poll(cx)).await {
                hold::Held::Over => Answer::nothing(),
                hold::Held::Draining => {
                    Answer::of(End::Busy(retry_after_secs(&PingOutcome::Draining)), "St0")
                }
            })
        }));
        true
    }

    fn finish(&mut self, answer: Answer) -> Reply {
        let version = self.trace.version();
        let after = self.stage.after();
        (after.work, after.note, after.told) = (None, answer.note, answer.told);
        match answer.end {
            End::Body(body) => wbxml(body),
            End::Superseded => wbxml(Vec::new()),
            End::Hierarchy => {
                after.device.known.lock().state = 0;
                wbxml(SyncResponse::failed(SyncStatus::FolderSyncRequired).encode(version))
            }
            End::Busy(secs) => Reply::busy(secs),
        }
    }

    fn write(&mut self, ends: Ends, status: u16, sent: usize) {
        let Self { stage, trace } = self;
        let note = stage.note();
        trace.write(&stage.whose(), ends, status, sent, &note);
    }
}

/// Goes on after a NOTIFY, wherever the mailbox is now. Trouble is 503: the device comes back with its keys.
async fn resume(
    request: &Request,
    watches: Arc<Watches>,
    positions: SmallVec<[u16; 4]>,
    until: Moment,
) -> Next {
    let mut hops = 0;
    loop {
        match go_on(request, Arc::clone(&watches), Some(positions.clone()), until).await {
            Ok(next) => return next,
            Err(backend::Error::Moved { location })
                if hops < HOPS_MAX && request.front.backends.follow(&request.session, &location) =>
            {
                hops += 1;
            }
            // The policy is another, or an order came: FolderSync is told which.
            Err(backend::Error::Refused(_)) => return Next::Answer(Answer::of(End::Hierarchy, "St12")),
            Err(error) => {
                request.backend().complain("Sync", &error);
                return Next::Answer(Answer::of(End::Busy(retry_after(&error)), "St0"));
            }
        }
    }
}

impl Parked for ParkedSync {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        loop {
            let next = match &mut self.stage {
                Stage::Waiting(wait) => {
                    let outcome = ready!(wait.poll_outcome(cx));
                    count(wait.front(), &outcome);
                    match outcome {
                        PingOutcome::Changed(positions) if self.look(positions.clone()) => continue,
                        outcome => Next::Answer(answer_to(&outcome, self.trace.version())),
                    }
                }
                Stage::After(after) => match &mut after.work {
                    Some(work) => ready!(work.as_mut().poll(cx)),
                    None => Next::Answer(Answer::nothing()),
                },
            };
            match next {
                Next::Answer(answer) => {
                    if matches!(answer.end, End::Superseded) && self.holds_back() {
                        continue;
                    }
                    return Poll::Ready(self.finish(answer));
                }
                Next::Wait(wait) => self.stage = Stage::Waiting(wait),
            }
        }
    }

    fn answered(&mut self, ends: Ends, status: u16, sent: Option<usize>) {
        self.write(ends, if sent.is_some() { status } else { HUNG_UP }, sent.unwrap_or(0));
        if let (None, Stage::After(after)) = (sent, &mut self.stage)
            && !after.told.is_empty()
        {
            sync::mark_unsent(&after.device, std::mem::take(&mut after.told));
        }
    }
}

impl Drop for ParkedSync {
    fn drop(&mut self) {
        if !self.trace.logged {
            self.stage.whose().front.engine.tally.hung_up.add_one();
            self.write(NOWHERE, HUNG_UP, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_sync_is_as_small_as_a_waiting_ping() {
        assert!(size_of::<ParkedSync>() <= 96, "{}", size_of::<ParkedSync>());
    }
}
