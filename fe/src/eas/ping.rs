//! Ping ([MS-ASCMD] 2.2.1.13 Ping): the question made complete, refused, or parked.
//!
//! The order is DESIGN's "life of a Ping": what the body leaves out, the statuses that need no
//! waiting, SUBSCRIBE for every folder, and only then the wait. Every answer has a body, because
//! Android takes an empty one for a network failure.

use std::sync::Arc;

use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::eas::ping::{PingBody, PingResponse};
use directpush_common::push::ping::PingOutcome;
use directpush_common::wbxml::Limits;

use super::parked::{Held, ParkedPing, count, guarded};
use super::question::{self, Complete};
use super::{Reaction, Request};
use crate::backend::{self, Result};
use crate::push::Watches;
use crate::push::wait::{NotOpened, Question, Wait};

/// Some phones ping a folder that they never synchronise: they are told of its items this seldom.
const UNSYNCED_EVERY_SECS: u64 = 15 * 60;
/// How long Status 8 is held: devices ping again at once.
const TROUBLE_HOLD_SECS: u64 = 3;

/// Carries out the command.
///
/// # Errors
/// Only [`backend::Error::Credential`], [`backend::Error::Moved`] and [`backend::Error::Refused`]; other trouble is Status 8.
pub async fn run(request: &Request) -> Result<Reaction> {
    match ping(request).await {
        Err(
            error @ (backend::Error::Credential | backend::Error::Moved { .. } | backend::Error::Refused(_)),
        ) => Err(error),
        Err(error) => {
            request.backend().complain("Ping", &error);
            Ok(trouble(request))
        }
        done => done,
    }
}

/// Status 8, after a while.
fn trouble(request: &Request) -> Reaction {
    let until = request.now_plus_secs(TROUBLE_HOLD_SECS).plus_millis(fastrand::u64(0..1000));
    let body = PingResponse::ServerError.encode();
    Reaction::Park(Box::new(Held::new(request, until, body, "St8".to_owned())))
}

async fn ping(request: &Request) -> Result<Reaction> {
    let body = match PingBody::decode(&request.body, Limits::default()) {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(user = %request.session.user, device = %request.device.key, %error, "Ping refused");
            return Ok(refuse(request, &PingResponse::Syntax));
        }
    };
    let parameters = match question::parameters(request, body).await? {
        Ok(parameters) => parameters,
        Err(refusal) => return Ok(refuse(request, &refusal)),
    };
    let heartbeat_secs = parameters.heartbeat_secs();
    if !request.front.config.direct_push || !request.session.push {
        // Nobody watches; the device learns of changes when its heartbeat has passed.
        let until = request.now_plus_secs(u64::from(heartbeat_secs));
        let (body, note) = (PingResponse::Expired.encode(), format!("Hb{heartbeat_secs}_St1"));
        return Ok(Reaction::Park(Box::new(Held::new(request, until, body, note))));
    }
    let Some(complete) = question::complete(request, parameters).await? else {
        return Ok(refuse(request, &PingResponse::FolderSyncRequired));
    };
    if let Some(changed) = known_already(request, &complete.watches) {
        request.front.sample(heartbeat_secs);
        return Ok(answer(request, &PingOutcome::Changed(changed), &complete.watches, heartbeat_secs));
    }
    establish(request, complete).await
}

/// Statuses 3 to 7: devices come back at once, so a device that repeats itself is held.
fn refuse(request: &Request, refusal: &PingResponse) -> Reaction {
    guarded(request, refusal.encode(), format!("St{}", refusal.status_code()))
}

/// Folders of which the device was told that there is more, or whose answer did not reach it.
fn known_already(request: &Request, watches: &Watches) -> Option<smallvec::SmallVec<[u16; 4]>> {
    let unsent = match &mut request.device.known.lock().rare {
        Some(rare) => std::mem::take(&mut rare.unsent),
        None => Vec::new(),
    };
    let changed: smallvec::SmallVec<[u16; 4]> = (0u16..)
        .zip(watches.folders())
        .filter(|(_, watch)| watch.is_pending() || unsent.contains(&watch.folder(watches.installation)))
        .map(|(position, _)| position)
        .collect();
    (!changed.is_empty()).then_some(changed)
}

async fn establish(request: &Request, complete: Complete) -> Result<Reaction> {
    let Complete { heartbeat_secs, watches } = complete;
    let (watches, unsynced) = without_told(request, watches);
    let question = Question {
        session: Arc::clone(&request.session),
        device: Arc::clone(&request.device),
        watches,
        heartbeat_secs,
        sync: false,
    };
    let mut wait = match Wait::open(&request.front, question) {
        Ok(wait) => wait,
        Err(NotOpened::TooMany) => return Ok(Reaction::Busy(30 + fastrand::u64(0..60))),
        Err(NotOpened::NoRandomness(error)) => {
            tracing::error!(%error, "no Ping can be opened");
            return Ok(trouble(request));
        }
    };
    request.front.sample(heartbeat_secs);
    let Some(outcome) = wait.establish().await? else {
        if let Some(rare) = &mut request.device.known.lock().rare {
            rare.refusals = 0;
        }
        request.device.known.lock().settle();
        let parked = ParkedPing::new(request, wait);
        return Ok(Reaction::Park(Box::new(parked)));
    };
    if let PingOutcome::Changed(positions) = &outcome
        && positions.iter().any(|position| unsynced.contains(position))
    {
        request.device.known.lock().rare().unsynced_told = Some(request.front.now());
    }
    Ok(answer(request, &outcome, wait.watches(), heartbeat_secs))
}

/// The folders to watch, and those never synchronised. Once the device was told of what lies in
/// these, only what comes from then on counts, for a while.
fn without_told(request: &Request, watches: Arc<Watches>) -> (Arc<Watches>, Vec<u16>) {
    let unsynced: Vec<u16> = (0u16..)
        .zip(watches.folders())
        .filter(|(_, watch)| watch.is_new())
        .map(|(position, _)| position)
        .collect();
    if unsynced.is_empty() {
        return (watches, unsynced);
    }
    let now = request.front.now();
    let told = request.device.known.lock().rare.as_ref().and_then(|rare| rare.unsynced_told);
    if told.is_none_or(|told| now >= told.plus_secs(UNSYNCED_EVERY_SECS)) {
        return (watches, unsynced);
    }
    (Arc::new(watches.without_unsynced()), unsynced)
}

/// The answer of a Ping that never waited.
fn answer(request: &Request, outcome: &PingOutcome, watches: &Watches, heartbeat_secs: u32) -> Reaction {
    count(&request.front, outcome);
    if *outcome == PingOutcome::Failed {
        return trouble(request);
    }
    match reply_body(outcome, watches) {
        Some((status, body)) => {
            let note = format!("Hb{heartbeat_secs}_Fc{}_St{status}", watches.folders().len());
            match outcome {
                PingOutcome::Event(_) => {
                    request.device.known.lock().state = 0;
                    guarded(request, body, note)
                }
                // A Sync in between makes it a fresh start.
                _ => guarded(request, body, note),
            }
        }
        None => Reaction::Busy(retry_after_secs(outcome)),
    }
}

/// The status and body of an outcome; `None`: 503 and `Retry-After`, never an early Status 1, from
/// which a phone would learn that its network holds longer heartbeats than it does.
pub fn reply_body(outcome: &PingOutcome, watches: &Watches) -> Option<(u8, Vec<u8>)> {
    let response = match outcome {
        PingOutcome::Expired => PingResponse::Expired,
        PingOutcome::Changed(positions) => PingResponse::Changed(
            positions
                .iter()
                .filter_map(|position| watches.folders().get(usize::from(*position)))
                .map(|watch| watch.folder(watches.installation).to_string())
                .collect(),
        ),
        PingOutcome::Event(
            DeviceEvent::Hierarchy
            | DeviceEvent::Wipe
            | DeviceEvent::Policy
            | DeviceEvent::Disabled
            | DeviceEvent::Password
            | DeviceEvent::Blocked
            | DeviceEvent::Forgotten,
        ) => PingResponse::FolderSyncRequired,
        PingOutcome::Failed => PingResponse::ServerError,
        PingOutcome::Superseded | PingOutcome::Draining => return None,
    };
    Some((response.status_code(), response.encode()))
}

/// When a device should come back that was sent away without an answer. When this front end stops
/// all devices come back, so they are spread over a minute.
pub fn retry_after_secs(outcome: &PingOutcome) -> u64 {
    match outcome {
        PingOutcome::Superseded => 5 + fastrand::u64(0..10),
        _ => 1 + fastrand::u64(0..60),
    }
}
