//! Sync ([MS-ASCMD] 2.2.1.21 Sync): the request as a whole; a collection is `sync_collection`.
//!
//! When there is nothing to report the answer is an empty body (12.1 and later): the device keeps
//! its keys, and the tokens behind them have moved on all the same.
//!
//! Not here: waiting. A Sync that asks to be held is answered when something is there, else after
//! a pause without watching; push by hanging Sync is to use the seam that Ping uses.

use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{CollectionResponse, SyncBody, SyncRequest, SyncResponse, Wait};
use directpush_common::eas::{Command, CommonStatus, Malformed, Version, malformed_answer};
use directpush_common::names::FolderId;
use directpush_common::push::heartbeat::HEARTBEAT_SECS_CAP;
use directpush_common::wbxml::Limits;

use super::parked::Held;
use super::sync_collection::{self, Synced};
use super::{Reaction, Request};
use crate::backend::Result;

/// Collections of one request.
const COLLECTIONS_MAX: usize = 300;
/// Changes of one response, all collections together.
const WINDOW_MAX: usize = 512;
/// A held Sync that nobody watches for is answered at least this often.
const UNWATCHED_HOLD_SECS: u64 = 60;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let version = request.line.version;
    let asked = match SyncBody::decode(&request.body, Limits::default()) {
        Ok(SyncBody::Full(asked)) => asked,
        // What the last request was is not kept: the device sends it again.
        Ok(SyncBody::Empty) if version.has_hanging_sync() => {
            return Ok(failed(version, SyncStatus::IncompleteRequest, None));
        }
        Ok(SyncBody::Empty) => return Ok(malformed_answer(Command::Sync, version, Malformed::Content).into()),
        Err(error) => return Ok(error.answer(version).into()),
    };
    if asked.partial {
        return Ok(failed(version, SyncStatus::IncompleteRequest, None));
    }
    if asked.collections.len() > COLLECTIONS_MAX {
        let limit = u32::try_from(COLLECTIONS_MAX).ok();
        return Ok(failed(version, SyncStatus::TooManyCollections, limit));
    }
    let wait_secs = match wait_secs(&asked) {
        Ok(secs) => secs,
        Err(limit) => return Ok(failed(version, SyncStatus::WaitOutOfRange, Some(limit))),
    };
    let mut window = asked.window_size.map_or(WINDOW_MAX, |size| (size as usize).clamp(1, WINDOW_MAX));
    let (mut responses, mut told) = (Vec::new(), Vec::new());
    for collection in &asked.collections {
        match sync_collection::run(request, collection, window).await? {
            Synced::Nothing(response) if version.has_hanging_sync() => drop(response),
            Synced::Nothing(response) => responses.push(response),
            Synced::Something(response, folder) => {
                window = window.saturating_sub(response.commands.len());
                told.extend(folder);
                responses.push(response);
            }
        }
    }
    warn_if_unsent(request, told);
    let note = note(&responses);
    if responses.is_empty() && wait_secs > 0 {
        let until = request.now_plus_secs(wait_secs.min(UNWATCHED_HOLD_SECS));
        return Ok(Reaction::Park(Box::new(Held::new(request, until, Vec::new(), note))));
    }
    Ok(Reaction::Body(SyncResponse::Collections(responses).encode(version), note))
}

fn failed(version: Version, status: SyncStatus, limit: Option<u32>) -> Reaction {
    let response = match status {
        SyncStatus::TooManyCollections if version.has_common_statuses() && limit.is_none() => {
            SyncResponse::Common(CommonStatus::TooManyFolders)
        }
        status => SyncResponse::Failed { status, limit },
    };
    Reaction::Body(response.encode(version), format!("St{status}"))
}

/// How long the device allows for an answer, in seconds; 0 = it does not ask to be held.
fn wait_secs(asked: &SyncRequest) -> std::result::Result<u64, u32> {
    let bounded = |asked: i64, min: u32, max: u32| match u32::try_from(asked) {
        Ok(value) if value > max => Err(max),
        Ok(value) if value >= min => Ok(u64::from(value)),
        Err(_) if asked > 0 => Err(max),
        _ => Err(min),
    };
    match asked.wait {
        None => Ok(0),
        Some(Wait::Minutes(minutes)) => {
            bounded(minutes, 1, HEARTBEAT_SECS_CAP / 60).map(|minutes| minutes * 60)
        }
        Some(Wait::Seconds(secs)) => bounded(secs, 60, HEARTBEAT_SECS_CAP),
    }
}

/// If this answer cannot be written to its end, the device's next Ping says 2 for its folders.
fn warn_if_unsent(request: &Request, told: Vec<FolderId>) {
    if told.is_empty() {
        return;
    }
    let device = std::sync::Arc::clone(&request.device);
    request.seat.if_unsent(move || {
        let mut known = device.known.lock();
        let unsent = &mut known.rare().unsent;
        unsent.extend(told);
        unsent.sort_unstable();
        unsent.dedup();
    });
}

fn note(responses: &[CollectionResponse]) -> String {
    use directpush_common::eas::sync::ServerCommand::{Add, Change, Delete, SoftDelete};
    let (mut added, mut changed, mut deleted) = (0, 0, 0);
    for command in responses.iter().flat_map(|response| &response.commands) {
        match command {
            Add { .. } => added += 1,
            Change { .. } => changed += 1,
            Delete { .. } | SoftDelete { .. } => deleted += 1,
        }
    }
    let worst = responses.iter().map(|response| response.status.code()).max().unwrap_or(1);
    format!("Fc{}_Svr:{added}A{changed}C{deleted}D_St{worst}", responses.len())
}
