//! FolderSync ([MS-ASCMD] 2.2.1.3 FolderSync): the hierarchy, whole or since a key.
//!
//! The key stands for a hierarchy number; the key before it stays good until the device uses the
//! new one, so that a lost answer costs nothing. What the device was told is what Ping compares with.

use directpush_common::dav::hierarchy::{Folder, Hierarchy};
use directpush_common::eas::folder_sync::{
    Folder as WireFolder, FolderSyncRequest, FolderSyncResponse, FolderType, HierarchyChanges,
};
use directpush_common::eas::status::FolderSyncStatus;
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;
use directpush_common::sync::state::FolderSyncState;
use directpush_common::wbxml::Limits;

use super::state::{self, FOLDER_SYNC};
use super::{Reaction, Request};
use crate::backend::Result;
use crate::backend::device::Put;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match FolderSyncRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let Ok(key) = asked.sync_key.parse::<u32>() else {
        return Ok(failed(FolderSyncStatus::InvalidSyncKey));
    };
    let loaded = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?;
    let before = loaded.value.unwrap_or_default();
    let since = match key {
        0 => Number::ZERO,
        key => match before.known(key) {
            Some(since) => since,
            None => return Ok(failed(FolderSyncStatus::InvalidSyncKey)),
        },
    };
    let hierarchy = request.backend().hierarchy(&request.session, since).await?;
    let after = before.answered(key, hierarchy.number);
    if after != before {
        let (put, fresh) = state::save(request, FOLDER_SYNC, loaded.tag.as_deref(), &after).await?;
        if put == Put::Conflict {
            // Two FolderSyncs of one device at once: the other one's key holds, this device asks again.
            return Ok(failed(FolderSyncStatus::ServerError));
        }
        let mut known = request.device.known.lock();
        known.folder_synced(after.hierarchy, loaded.fresh.state, fresh.state);
    }
    let known = |folder: FolderId, changed| key == before.key && before.is_own(folder.counter, changed);
    let changes = changes(&hierarchy, since, after.key, known);
    let note = format!(
        "Fc{}_St1_Sk{}",
        changes.added.len() + changes.updated.len() + changes.deleted.len(),
        after.key
    );
    let body = FolderSyncResponse::Changes(changes).encode();
    let commands = super::dispatch::commands(&request.front, &request.session);
    Ok(if key == 0 { Reaction::Afresh(body, note, commands) } else { Reaction::Body(body, note) })
}

fn failed(status: FolderSyncStatus) -> Reaction {
    Reaction::Body(FolderSyncResponse::Failed(status).encode(), format!("St{status}"))
}

/// What the device is told; `known` says which changes it made itself.
fn changes(
    hierarchy: &Hierarchy,
    since: Number,
    key: u32,
    known: impl Fn(FolderId, Number) -> bool,
) -> HierarchyChanges {
    let mut changes = HierarchyChanges { sync_key: key.to_string(), ..HierarchyChanges::default() };
    let mut folders: Vec<&Folder> = hierarchy.folders.iter().collect();
    // Parents before their children: a parent's id is always the smaller counter unless it was moved.
    folders.sort_by_key(|folder| (depth(hierarchy, folder), folder.id));
    folders.retain(|folder| !known(folder.id, folder.changed));
    for folder in folders {
        let wire = wire(folder);
        if folder.created > since { changes.added.push(wire) } else { changes.updated.push(wire) }
    }
    // A device that begins has nothing that could be deleted.
    if since != Number::ZERO {
        let removed = hierarchy.removed.iter().filter(|removed| !known(**removed, Number::ZERO));
        changes.deleted = removed.map(ToString::to_string).collect();
    }
    changes
}

/// A folder as devices see it.
pub fn wire(folder: &Folder) -> WireFolder {
    WireFolder {
        server_id: folder.id.to_string(),
        parent_id: folder.parent.map_or_else(|| "0".to_owned(), |parent| parent.to_string()),
        display_name: folder.name.clone(),
        kind: FolderType::from_code(i64::from(folder.folder_type)).unwrap_or(FolderType::Unknown),
    }
}

/// Folders above this one within the answer; bounded, should they lie in a ring.
fn depth(hierarchy: &Hierarchy, folder: &Folder) -> usize {
    let mut parent = folder.parent;
    for depth in 0..64 {
        let Some(above) = parent.and_then(|id| hierarchy.folders.iter().find(|it| it.id == id)) else {
            return depth;
        };
        parent = above.parent;
    }
    64
}
