//! What waits on a connection: a Ping in the push engine's table, or an answer that is held back.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use directpush_common::clock::Moment;
use directpush_common::eas::{CONTENT_TYPE, Command, Version};
use directpush_common::push::ping::PingOutcome;
use directpush_common::w3c::activesync_query;
use http::StatusCode;

use super::ping::{reply_body, retry_after_secs};
use super::{Reaction, Request};
use crate::access_log::Entry;
use crate::backend::Session;
use crate::device::Device;
use crate::front::Front;
use crate::http::{Ends, Parked, Reply};
use crate::push::Word;
use crate::push::hold::{self, Hold};
use crate::push::wait::Wait;

/// What the log line of a parked request needs, in a few words.
pub struct Trace {
    agent: Word,
    began: Moment,
    received: u32,
    version: Version,
    command: Command,
    pub(super) logged: bool,
    /// The status of the answer's body.
    outcome: u8,
}

impl Trace {
    /// The version that the device speaks.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// A device's program, and when it asked.
    pub(super) fn asked(&self) -> (Word, Moment) {
        (self.agent.clone(), self.began)
    }

    /// The trace of a request.
    pub fn of(request: &Request) -> Self {
        Self {
            agent: request.agent.clone(),
            began: request.began,
            received: u32::try_from(request.body.len()).unwrap_or(u32::MAX),
            version: request.line.version,
            command: request.line.command,
            logged: false,
            outcome: 0,
        }
    }

    pub(super) fn write(&mut self, whose: &Whose<'_>, ends: Ends, status: u16, sent: usize, note: &str) {
        let Whose { front, session, device } = whose;
        if std::mem::replace(&mut self.logged, true) || !front.access_log.is_on() {
            return;
        }
        let note = format!("V{}_{note}", self.version.query_byte());
        let (id, kind) = (device.key.device_id(), device.key.device_type());
        let user = session.user.as_str();
        let query = activesync_query(user, id, kind, self.command.name(), &note);
        front.access_log.write(
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
                taken_millis: front.now().millis_since(self.began),
            },
        );
    }
}

/// Whose request a trace is of.
pub(super) struct Whose<'a> {
    pub(super) front: &'a Front,
    pub(super) session: &'a Session,
    pub(super) device: &'a Device,
}

/// The status that the log shows when the device hung up before its answer.
pub(super) const HUNG_UP: u16 = 499;
pub(super) const NOWHERE: Ends = Ends { peer: None, local: None };

/// A Ping that waits.
pub struct ParkedPing {
    wait: Wait,
    trace: Trace,
}

impl ParkedPing {
    /// A Ping whose subscriptions stand.
    pub fn new(request: &Request, wait: Wait) -> Self {
        Self { wait, trace: Trace::of(request) }
    }

    fn write(&mut self, ends: Ends, status: u16, sent: usize) {
        let Self { wait, trace } = self;
        let folders = wait.watches().folders().len();
        let note = format!("Hb{}_Fc{folders}_St{}", wait.heartbeat_secs(), trace.outcome);
        let whose = Whose { front: wait.front(), session: wait.session(), device: wait.device() };
        trace.write(&whose, ends, status, sent, &note);
    }
}

impl Parked for ParkedPing {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let outcome = ready!(self.wait.poll_outcome(cx));
        count(self.wait.front(), &outcome);
        Poll::Ready(match reply_body(&outcome, self.wait.watches()) {
            Some((status, body)) => {
                self.trace.outcome = status;
                wbxml(body)
            }
            None => Reply::busy(retry_after_secs(&outcome)),
        })
    }

    fn answered(&mut self, ends: Ends, status: u16, sent: Option<usize>) {
        self.write(ends, if sent.is_some() { status } else { HUNG_UP }, sent.unwrap_or(0));
    }
}

impl Drop for ParkedPing {
    fn drop(&mut self) {
        if !self.trace.logged {
            self.wait.front().engine.tally.hung_up.add_one();
            self.write(NOWHERE, HUNG_UP, 0);
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
    front: Arc<Front>,
    session: Arc<Session>,
    device: Arc<Device>,
    body: Bytes,
    trace: Trace,
    note: Box<str>,
}

impl Held {
    /// Gives `body` at `until`.
    pub fn new(request: &Request, until: Moment, body: Vec<u8>, note: String) -> Self {
        let hold = Hold::new(&request.front.engine, until);
        Self {
            hold,
            front: Arc::clone(&request.front),
            session: Arc::clone(&request.session),
            device: Arc::clone(&request.device),
            body: body.into(),
            trace: Trace::of(request),
            note: note.into(),
        }
    }

    fn write(&mut self, ends: Ends, status: u16, sent: usize) {
        let whose = Whose { front: &self.front, session: &self.session, device: &self.device };
        self.trace.write(&whose, ends, status, sent, &self.note);
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
        self.write(ends, if sent.is_some() { status } else { HUNG_UP }, sent.unwrap_or(0));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.write(NOWHERE, HUNG_UP, 0);
    }
}

pub(super) fn wbxml(body: Vec<u8>) -> Reply {
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
    match held_until(&request.front, &request.device) {
        None => Reaction::Body(body, note),
        Some(until) => Reaction::Park(Box::new(Held::new(request, until, body, note))),
    }
}

/// Counts such an answer, and says how long it is to be held; `None` = not at all.
pub(super) fn held_until(front: &Front, device: &Device) -> Option<Moment> {
    const PATIENCE: u32 = 3;
    const RUN_SECS: u64 = 10;
    const HOLD_SECS: u64 = 5;
    let now = front.now();
    let refusals = {
        let mut known = device.known.lock();
        let rare = known.rare();
        let in_a_run = now.millis_since(rare.refused_at) < (RUN_SECS + HOLD_SECS) * 1000 && rare.refusals > 0;
        rare.refusals = if in_a_run { rare.refusals.saturating_add(1) } else { 1 };
        rare.refused_at = now;
        rare.refusals
    };
    (refusals > PATIENCE).then(|| now.plus_millis(HOLD_SECS * 1000 + fastrand::u64(0..1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_ping_fits_its_size_class() {
        // 96 and 112 bytes are allocated as such by jemalloc; one more field is paid per parked device.
        assert!(size_of::<ParkedPing>() <= 96, "{}", size_of::<ParkedPing>());
    }
}
