//! Sync ([MS-ASCMD] 2.2.1.21 Sync): the request as a whole; a collection is `sync_collection`.
//!
//! When there is nothing to report the answer is an empty body (12.1 and later): the device keeps
//! its keys, and the tokens behind them have moved on all the same. A request that may wait goes to `hanging` then.
//! What such a request asked for is kept in the mailbox, so that an empty or a partial one can mean it, at any
//! front end.

use std::collections::HashSet;

use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{
    CollectionResponse, SyncBody, SyncCollection, SyncError, SyncRequest, SyncResponse, Wait,
};
use directpush_common::eas::{
    Command, CommonStatus, Malformed, Version, common_status_answer, malformed_answer,
};
use directpush_common::names::FolderId;
use directpush_common::push::heartbeat::HeartbeatLimits;
use directpush_common::sync::cache::SyncCache;
use directpush_common::wbxml::Limits;

use super::budget::Budget;
use super::send_mail::body_bytes_max;
use super::state::{self, SYNC_REQUEST};
use super::sync_collection::{self, Standing, Synced, Terms};
use super::{Reaction, Request, hanging};
use crate::backend::Result;
use crate::backend::device::If;
use crate::device::Device;

/// Collections of one request.
const COLLECTIONS_MAX: usize = 300;
/// Options of one collection: there are fewer classes than this.
const OPTIONS_MAX: usize = 8;
/// Changes of one response, all collections together.
const WINDOW_MAX: usize = 512;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let version = request.line.version;
    request.front.engine.handle_sync(request.device.hash);
    let body = match read(request).await {
        Ok(SyncBody::Empty) if !version.has_hanging_sync() => {
            return Ok(malformed_answer(Command::Sync, version, Malformed::Content).into());
        }
        Ok(body) => body,
        Err(error) => return Ok(error.answer(version).into()),
    };
    // Before anything is compared with anything.
    let max_folders = request.front.config.max_folders;
    let limit_of = |waits| if waits { max_folders as usize } else { COLLECTIONS_MAX };
    let too_many = |limit| failed(version, SyncStatus::TooManyCollections, u32::try_from(limit).ok());
    if let SyncBody::Full(asked) = &body {
        if asked.collections.len() > limit_of(true).max(COLLECTIONS_MAX) {
            return Ok(too_many(limit_of(asked.wait.is_some())));
        }
        if names_one_twice(asked) {
            return Ok(failed(version, SyncStatus::ProtocolError, None));
        }
    }
    let whole = matches!(&body, SyncBody::Full(asked) if !asked.partial);
    let cached = match &body {
        SyncBody::Full(asked) if asked.wait.is_none() && whole => None,
        _ => state::load::<SyncCache>(request, SYNC_REQUEST).await?.value,
    };
    let asked = match (body, &cached) {
        (SyncBody::Full(asked), _) if whole => asked,
        (SyncBody::Empty, Some(cached)) => cached.request(),
        (SyncBody::Full(partial), Some(cached)) => cached.completed(partial),
        // What was asked the last time is not known: the device sends it all.
        (_, None) => return Ok(failed(version, SyncStatus::IncompleteRequest, None)),
    };
    let wait_secs = match wait_secs(&asked, request.front.config.heartbeat) {
        Ok(secs) => secs,
        Err(limit) => return Ok(failed(version, SyncStatus::WaitOutOfRange, Some(limit))),
    };
    let limit = limit_of(wait_secs > 0);
    if asked.collections.len() > limit {
        return Ok(too_many(limit));
    }
    if asked.collections.iter().any(has_options_twice) {
        return Ok(failed(version, SyncStatus::ProtocolError, None));
    }
    let mut options = asked.collections.iter().flat_map(|collection| &collection.options);
    if options.any(|options| options.asks_for_unknown_part(version)) {
        let status = CommonStatus::BodyPartPreferenceTypeNotSupported;
        return Ok(common_status_answer(Command::Sync, version, status).into());
    }
    if wait_secs > 0 {
        keep(request, &asked, cached.as_ref()).await?;
    }
    let turned = match turn(request, &asked, None).await? {
        Ok(turned) => turned,
        Err(status) => return Ok(failed(version, status, None)),
    };
    if turned.responses.is_empty() && wait_secs > 0 {
        return hanging::park(request, turned.standing, wait_secs).await;
    }
    let device = std::sync::Arc::clone(&request.device);
    if !turned.told.is_empty() {
        request.seat.if_unsent(move || mark_unsent(&device, turned.told));
    }
    let note = note(&turned.responses);
    Ok(Reaction::Body(SyncResponse::Collections(turned.responses).encode(version), note))
}

/// Reads the request. One that is large, because drafts with attachments are in it, is read where that holds up nobody.
async fn read(request: &Request) -> std::result::Result<SyncBody, SyncError> {
    let limits = Limits::default();
    if request.body.len() <= limits.bytes_max || !request.line.version.has_drafts() {
        return SyncBody::decode(&request.body, limits);
    }
    let limits = Limits { bytes_max: body_bytes_max(request.front.config.mail_bytes), ..limits };
    let body = request.body.clone();
    let reading = request.front.desk.work("a large Sync", move || SyncBody::decode(&body, limits));
    // It is refused as one that is too large.
    reading.await.unwrap_or_else(|_| SyncBody::decode(&request.body, Limits::default()))
}

/// A folder that is there twice would be told of twice.
fn names_one_twice(asked: &SyncRequest) -> bool {
    let mut known = HashSet::new();
    let mut ids = asked.collections.iter().filter_map(|it| it.collection_id.parse::<FolderId>().ok());
    !ids.all(|id| known.insert(id))
}

/// [MS-ASCMD] Class (Sync): options of the same class twice are an error, as are more than there are classes.
fn has_options_twice(collection: &SyncCollection) -> bool {
    if collection.options.len() > OPTIONS_MAX {
        return true;
    }
    let classes: Vec<_> = collection.options.iter().map(|options| options.class.as_deref()).collect();
    (1..classes.len()).any(|at| classes[..at].contains(&classes[at]))
}

/// A request that waits may be repeated without a body: what it asked for is written down if it is not what is there.
async fn keep(request: &Request, asked: &SyncRequest, cached: Option<&SyncCache>) -> Result<()> {
    let cache = SyncCache::of(asked);
    if cached == Some(&cache) {
        return Ok(());
    }
    let content = serde_json::to_vec(&cache).unwrap_or_default();
    let before = request.device.known.lock().state;
    let put = request.backend().device_put(request.asker(), SYNC_REQUEST, If::Any, content).await?;
    // Nothing of what is remembered is in this object.
    let (_, fresh) = put;
    let mut known = request.device.known.lock();
    if known.state == before && before != 0 {
        known.state = fresh.state;
    }
    Ok(())
}

/// What the collections of a request came to.
pub struct Turned {
    /// Of those to which something happened.
    pub responses: Vec<CollectionResponse>,
    /// The others, as far as the device wants to hear of them.
    pub standing: Vec<Standing>,
    /// The folders whose changes are in `responses`.
    pub told: Vec<FolderId>,
}

/// Carries out the collections of a request; with `only`, those of these folders. `Err`: the whole is refused.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn turn(
    request: &Request,
    asked: &SyncRequest,
    only: Option<&[FolderId]>,
) -> Result<std::result::Result<Turned, SyncStatus>> {
    let version = request.line.version;
    let mut room = asked.window_size.map_or(WINDOW_MAX, |size| match size as usize {
        0 => WINDOW_MAX,
        size => size.min(WINDOW_MAX),
    });
    let mut budget = Budget::default();
    let mut turned = Turned { responses: Vec::new(), standing: Vec::new(), told: Vec::new() };
    for collection in &asked.collections {
        let named = |only: &[FolderId]| collection.collection_id.parse().is_ok_and(|id| only.contains(&id));
        if !only.is_none_or(named) {
            continue;
        }
        let terms = Terms { room, budget, waits: asked.wait.is_some() };
        match sync_collection::run(request, collection, terms).await? {
            Synced::Nothing(_, standing) if version.has_hanging_sync() => turned.standing.extend(standing),
            Synced::Nothing(response, _) => turned.responses.push(response),
            Synced::Something(response, folder) => {
                room = room.saturating_sub(response.commands.len());
                budget.spend(&response);
                turned.told.extend(folder);
                turned.responses.push(response);
            }
            Synced::Refused(status) => return Ok(Err(status)),
        }
    }
    Ok(Ok(turned))
}

/// The answer to a request that fails as a whole.
pub fn failed(version: Version, status: SyncStatus, limit: Option<u32>) -> Reaction {
    let response = SyncResponse::Failed { status, limit };
    Reaction::Body(response.encode(version), format!("St{status}"))
}

/// How long the device allows for an answer, in seconds; 0 = it does not ask to be held. `Err`: the nearest that is
/// granted, in the unit that the device asked in ([MS-ASCMD] Limit).
fn wait_secs(asked: &SyncRequest, limits: HeartbeatLimits) -> std::result::Result<u32, u32> {
    match asked.wait {
        None => Ok(0),
        Some(Wait::Seconds(secs)) => limits.grant(secs).map_err(|out| out.nearest),
        Some(Wait::Minutes(minutes)) => {
            let granted = limits.grant(minutes.saturating_mul(60));
            granted.map_err(|out| {
                let whole =
                    if out.nearest == limits.min() { out.nearest.div_ceil(60) } else { out.nearest / 60 };
                whole.max(1)
            })
        }
    }
}

/// If an answer cannot be written to its end, the device's next Ping says 2 for its folders.
pub fn mark_unsent(device: &Device, told: Vec<FolderId>) {
    let mut known = device.known.lock();
    let unsent = &mut known.rare().unsent;
    unsent.extend(told);
    unsent.sort_unstable();
    unsent.dedup();
}

/// What the log says of an answer.
pub fn note(responses: &[CollectionResponse]) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_the_bounds_of_heartbeats_in_either_unit() {
        let secs =
            |wait, limits| wait_secs(&SyncRequest { wait: Some(wait), ..SyncRequest::default() }, limits);
        let exchange = HeartbeatLimits::new(60, 3540).unwrap();
        assert_eq!(secs(Wait::Minutes(1), exchange), Ok(60));
        assert_eq!(secs(Wait::Minutes(59), exchange), Ok(3540));
        assert_eq!((secs(Wait::Minutes(0), exchange), secs(Wait::Minutes(60), exchange)), (Err(1), Err(59)));
        assert_eq!(
            (secs(Wait::Seconds(59), exchange), secs(Wait::Seconds(3541), exchange)),
            (Err(60), Err(3540))
        );
        assert_eq!(secs(Wait::Minutes(i64::MAX), exchange), Err(59));
        let odd = HeartbeatLimits::new(90, 150).unwrap();
        assert_eq!((secs(Wait::Minutes(1), odd), secs(Wait::Minutes(3), odd)), (Err(2), Err(2)));
        assert_eq!(secs(Wait::Minutes(2), odd), Ok(120));
    }
}
