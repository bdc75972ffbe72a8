//! What waits on a connection: a Ping in the push engine's table, or an answer that is held back.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use directpush_common::clock::Moment;
use directpush_common::eas::{CONTENT_TYPE, Command, Version};
use directpush_common::names::DeviceKey;
use directpush_common::push::ping::PingOutcome;
use directpush_common::w3c::activesync_query;
use http::StatusCode;

use super::ping::{reply_body, retry_after_secs};
use super::{Reaction, Request};
use crate::access_log::Entry;
use crate::backend::Session;
use crate::front::{Admission, Front};
use crate::http::{Ends, Parked, Reply};
use crate::push::hold::{self, Hold};
use crate::push::wait::Wait;

/// What the log line of a parked request needs, in a few words.
pub struct Trace {
    front: Arc<Front>,
    session: Arc<Session>,
    device: Arc<DeviceKey>,
    agent: Arc<str>,
    began: Moment,
    received: u32,
    version: Version,
    command: Command,
    logged: bool,
}

impl Trace {
    /// The trace of a request.
    pub fn of(request: &Request) -> Self {
        Self {
            front: Arc::clone(&request.front),
            session: Arc::clone(&request.session),
            device: Arc::clone(&request.device.key),
            agent: Arc::clone(&request.agent),
            began: request.began,
            received: u32::try_from(request.body.len()).unwrap_or(u32::MAX),
            version: request.line.version,
            command: request.line.command,
            logged: false,
        }
    }

    fn write(&mut self, ends: Ends, status: u16, sent: usize, note: &str) {
        if std::mem::replace(&mut self.logged, true) || !self.front.access_log.is_on() {
            return;
        }
        let note = format!("V{}_{note}", self.version.query_byte());
        let (id, kind) = (self.device.device_id(), self.device.device_type());
        let user = self.session.user.as_str();
        let query = activesync_query(user, id, kind, self.command.name(), &note);
        self.front.access_log.write(
            ends,
            &Entry {
                method: "POST",
                stem: "/Microsoft-Server-ActiveSync",
                query: &query,
                user,
                agent: &self.agent,
                status,
                sent: sent as u64,
                received: u64::from(self.received),
                taken_millis: self.front.now().millis_since(self.began),
            },
        );
    }
}

/// The status that the log shows when the device hung up before its answer.
const HUNG_UP: u16 = 499;
const NOWHERE: Ends = Ends { peer: None, local: None };

/// A Ping that waits.
pub struct ParkedPing {
    wait: Wait,
    trace: Trace,
    outcome: u8,
    heartbeat_secs: u16,
    _admission: Admission,
}

impl ParkedPing {
    /// A Ping whose subscriptions stand.
    pub fn new(request: &Request, wait: Wait, heartbeat_secs: u32, admission: Admission) -> Self {
        let heartbeat_secs = u16::try_from(heartbeat_secs).unwrap_or(u16::MAX);
        Self { wait, trace: Trace::of(request), outcome: 0, heartbeat_secs, _admission: admission }
    }

    fn note(&self) -> String {
        format!("Hb{}_Fc{}_St{}", self.heartbeat_secs, self.wait.watches().folders.len(), self.outcome)
    }
}

impl Parked for ParkedPing {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let outcome = ready!(self.wait.poll_outcome(cx));
        count(&self.trace.front, &outcome);
        Poll::Ready(match reply_body(&outcome, self.wait.watches()) {
            Some((status, body)) => {
                self.outcome = status;
                wbxml(body)
            }
            None => Reply::busy(retry_after_secs(&outcome)),
        })
    }

    fn answered(&mut self, ends: Ends, status: u16, sent: Option<usize>) {
        let note = self.note();
        self.trace.write(ends, if sent.is_some() { status } else { HUNG_UP }, sent.unwrap_or(0), &note);
    }
}

impl Drop for ParkedPing {
    fn drop(&mut self) {
        if !self.trace.logged {
            self.trace.front.engine.tally.hung_up.add_one();
            let note = self.note();
            self.trace.write(NOWHERE, HUNG_UP, 0, &note);
        }
    }
}

/// Counts how a Ping ended.
pub fn count(front: &Front, outcome: &PingOutcome) {
    match outcome {
        PingOutcome::Changed(_) => front.engine.tally.woken.add_one(),
        PingOutcome::Expired => front.engine.tally.expired.add_one(),
        _ => {}
    }
}

/// An answer that is known and given later.
pub struct Held {
    hold: Hold,
    body: Bytes,
    trace: Trace,
    note: Box<str>,
}

impl Held {
    /// Gives `body` at `until`.
    pub fn new(request: &Request, until: Moment, body: Vec<u8>, note: String) -> Self {
        let hold = Hold::new(&request.front.engine, until);
        Self { hold, body: body.into(), trace: Trace::of(request), note: note.into() }
    }
}

impl Parked for Held {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        Poll::Ready(match ready!(self.hold.poll(cx)) {
            hold::Held::Over => wbxml(self.body.to_vec()),
            hold::Held::Draining => Reply::busy(retry_after_secs(&PingOutcome::Draining)),
        })
    }

    fn answered(&mut self, ends: Ends, status: u16, sent: Option<usize>) {
        let note = self.note.clone();
        self.trace.write(ends, if sent.is_some() { status } else { HUNG_UP }, sent.unwrap_or(0), &note);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let note = self.note.clone();
        self.trace.write(NOWHERE, HUNG_UP, 0, &note);
    }
}

fn wbxml(body: Vec<u8>) -> Reply {
    let mut reply = Reply::empty(StatusCode::OK);
    if !body.is_empty() {
        reply.headers.push(("Content-Type", CONTENT_TYPE.to_owned()));
    }
    reply.headers.push(("Cache-Control", "private".to_owned()));
    reply.body = body.into();
    reply
}

/// An answer from which devices come back at once: the first few are given at once, the next are
/// held, so that a device in a loop costs it and us little.
pub fn guarded(request: &Request, body: Vec<u8>, note: String) -> Reaction {
    const PATIENCE: u32 = 3;
    const RUN_SECS: u64 = 10;
    const HOLD_SECS: u64 = 5;
    let now = request.front.now();
    let refusals = {
        let mut known = request.device.known.lock();
        let rare = known.rare();
        let in_a_run = now.millis_since(rare.refused_at) < (RUN_SECS + HOLD_SECS) * 1000 && rare.refusals > 0;
        rare.refusals = if in_a_run { rare.refusals.saturating_add(1) } else { 1 };
        rare.refused_at = now;
        rare.refusals
    };
    if refusals <= PATIENCE {
        return Reaction::Body(body, note);
    }
    let until = now.plus_millis(HOLD_SECS * 1000 + fastrand::u64(0..1000));
    Reaction::Park(Box::new(Held::new(request, until, body, note)))
}
