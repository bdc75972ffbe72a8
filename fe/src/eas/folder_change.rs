//! What FolderCreate, FolderUpdate and FolderDelete have in common ([MS-ASCMD]): the key they come with and the one they get.
//!
//! Where nobody else changed the hierarchy, the new key stands for all of it. Else it stands for what the device knew, and the
//! device's own change is remembered beside it, so that the next FolderSync tells of the others only.

use directpush_common::eas::folder_change::{FolderChange, FolderChangeRequest, FolderChangeResponse};
use directpush_common::eas::status::FolderChangeStatus;
use directpush_common::names::{FolderId, check};
use directpush_common::numbers::Number;
use directpush_common::sync::state::FolderSyncState;
use directpush_common::wbxml::Limits;

use super::state::{self, FOLDER_SYNC, Loaded};
use super::{Reaction, Request};
use crate::backend::Result;
use crate::backend::device::Put;
use crate::backend::folders::FolderOutcome;

/// Times that the key is stored again when the device's FolderSync came in between.
const TRIES_MAX: usize = 3;

/// A request that may be carried out.
pub struct Asked {
    /// The key that it came with; it is known.
    pub key: u32,
    /// What the device wants.
    pub change: FolderChange,
    /// What the device knew.
    pub state: FolderSyncState,
    loaded: Loaded<FolderSyncState>,
}

/// Reads the request and its key; `Err` = the answer.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn begin(request: &Request) -> Result<std::result::Result<Asked, Reaction>> {
    let command = request.line.command;
    let asked = match FolderChangeRequest::decode(&request.body, command, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(error.answer(command, request.line.version).into())),
    };
    if let FolderChange::Create { display_name, .. } | FolderChange::Update { display_name, .. } =
        &asked.change
        && check(display_name).is_err()
    {
        return Ok(Err(failed(request, FolderChangeStatus::Malformed)));
    }
    let loaded = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?;
    let state = loaded.value.clone().unwrap_or_default();
    let key = asked.sync_key.parse::<u32>().ok().filter(|key| state.known(*key).is_some());
    let Some(key) = key else { return Ok(Err(failed(request, FolderChangeStatus::InvalidSyncKey))) };
    Ok(Ok(Asked { key, change: asked.change, state, loaded }))
}

/// The parent that a device names; `Err` = there is none.
pub fn parent(id: &str) -> std::result::Result<Option<FolderId>, FolderChangeStatus> {
    match id {
        "0" => Ok(None),
        id => id.parse().map(Some).map_err(|_| FolderChangeStatus::ParentNotFound),
    }
}

/// The answer to an outcome of the back end: the new key, or what was in the way.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn end(request: &Request, asked: Asked, outcome: FolderOutcome) -> Result<Reaction> {
    let status = match outcome {
        FolderOutcome::Done(folder) => return done(request, asked, folder).await,
        FolderOutcome::Exists => FolderChangeStatus::Exists,
        FolderOutcome::NoParent => FolderChangeStatus::ParentNotFound,
        FolderOutcome::NotFound => FolderChangeStatus::NotFound,
        FolderOutcome::Special => FolderChangeStatus::SpecialFolder,
        FolderOutcome::BadName => FolderChangeStatus::Malformed,
    };
    Ok(failed(request, status))
}

async fn done(request: &Request, asked: Asked, folder: FolderId) -> Result<Reaction> {
    let Asked { key, change, mut state, mut loaded } = asked;
    let created = matches!(change, FolderChange::Create { .. });
    for _ in 0..TRIES_MAX {
        let Some(known) = state.known(key) else { break };
        let hierarchy = request.backend().hierarchy(&request.session, known).await?;
        let changed =
            hierarchy.folders.iter().find(|it| it.id == folder).map_or(Number::ZERO, |it| it.changed);
        let told = |counter, changed| key == state.key && state.is_own(counter, changed);
        let alone = hierarchy.folders.iter().all(|it| it.id == folder || told(it.id.counter, it.changed))
            && hierarchy.removed.iter().all(|it| *it == folder || told(it.counter, Number::ZERO));
        let next = state.changed(key, (folder.counter, changed), alone.then_some(hierarchy.number));
        let (put, fresh) = state::save(request, FOLDER_SYNC, loaded.tag.as_deref(), &next).await?;
        if put == Put::Conflict {
            loaded = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?;
            state = loaded.value.clone().unwrap_or_default();
            continue;
        }
        request.device.known.lock().folder_synced(next.hierarchy, loaded.fresh.state, fresh.state);
        return Ok(answer(request, next.key, created.then_some(folder)));
    }
    // Done, but the device's key is gone meanwhile: it learns of the change by FolderSync.
    Ok(failed(request, FolderChangeStatus::InvalidSyncKey))
}

/// Status 1 with the key for the next request.
pub fn answer(request: &Request, key: u32, folder: Option<FolderId>) -> Reaction {
    let response = FolderChangeResponse {
        status: FolderChangeStatus::Success,
        sync_key: Some(key.to_string()),
        server_id: folder.map(|folder| folder.to_string()),
    };
    Reaction::Body(response.encode(request.line.command), format!("St1_Sk{key}"))
}

/// Another status.
pub fn failed(request: &Request, status: FolderChangeStatus) -> Reaction {
    let body = FolderChangeResponse::failed(status).encode(request.line.command);
    Reaction::Body(body, format!("St{status}"))
}
