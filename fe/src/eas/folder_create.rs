//! FolderCreate ([MS-ASCMD] FolderCreate): a new folder.

use directpush_common::eas::folder_change::FolderChange;
use directpush_common::eas::status::FolderChangeStatus;
use directpush_common::names::FolderId;

use super::folder_change::{self, Asked};
use super::{Reaction, Request};
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
    let FolderChange::Create { parent_id, display_name, kind } = &asked.change else {
        return Ok(folder_change::failed(request, FolderChangeStatus::Malformed));
    };
    let parent = match folder_change::parent(parent_id) {
        Ok(parent) => parent,
        Err(status) => return Ok(folder_change::failed(request, status)),
    };
    let place = (parent, display_name.as_str());
    let backend = request.backend();
    let made = backend.folder_create(&request.session, &request.device.key, place, kind.code()).await?;
    if made == FolderOutcome::Exists
        && let Some(folder) = made_before(request, &asked, parent, display_name).await?
    {
        return Ok(folder_change::answer(request, asked.state.key, Some(folder)));
    }
    folder_change::end(request, asked, made).await
}

/// The folder, if this very request made it and its answer was lost: the key is the one before, and it was made since.
async fn made_before(
    request: &Request,
    asked: &Asked,
    parent: Option<FolderId>,
    name: &str,
) -> Result<Option<FolderId>> {
    let Some(known) = asked.state.known(asked.key).filter(|_| asked.key != asked.state.key) else {
        return Ok(None);
    };
    let since = request.backend().hierarchy(&request.session, known).await?;
    let found = since.folders.iter().find(|it| it.parent == parent && it.name == name && it.created > known);
    Ok(found.map(|found| found.id))
}
