//! FolderUpdate ([MS-ASCMD] FolderUpdate): another name or place for a folder.

use directpush_common::eas::folder_change::FolderChange;
use directpush_common::eas::status::FolderChangeStatus;
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;

use super::{Reaction, Request, folder_change};
use crate::backend::Result;
use crate::backend::folders::FolderOutcome;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match folder_change::begin(request).await? {
        Ok(asked) => asked,
        Err(answer) => return Ok(answer),
    };
    let FolderChange::Update { server_id, parent_id, display_name } = &asked.change else {
        return Ok(folder_change::failed(request, FolderChangeStatus::Malformed));
    };
    let Ok(folder) = server_id.parse() else {
        return Ok(folder_change::failed(request, FolderChangeStatus::NotFound));
    };
    let parent = match folder_change::parent(parent_id) {
        Ok(parent) => parent,
        Err(status) => return Ok(folder_change::failed(request, status)),
    };
    let place = (parent, display_name.as_str());
    let moved = request.backend().folder_move(&request.session, &request.device.key, folder, place).await?;
    let moved = match moved {
        FolderOutcome::Special => understood(request, folder, place).await?,
        moved => moved,
    };
    folder_change::end(request, asked, moved).await
}

/// What a back end means that forbids it: a default folder, nothing that would change, or a place below itself.
async fn understood(
    request: &Request,
    folder: FolderId,
    place: (Option<FolderId>, &str),
) -> Result<FolderOutcome> {
    let hierarchy = request.backend().hierarchy(&request.session, Number::ZERO).await?;
    Ok(match hierarchy.folders.iter().find(|it| it.id == folder) {
        Some(it) if (it.parent, it.name.as_str()) == place => FolderOutcome::Done(folder),
        Some(it) if matches!(it.folder_type, 1 | 12..=17) => FolderOutcome::NoParent,
        _ => FolderOutcome::Special,
    })
}
