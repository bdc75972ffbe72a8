//! FolderDelete ([MS-ASCMD] FolderDelete): a folder goes, with all in it.

use directpush_common::eas::folder_change::FolderChange;
use directpush_common::eas::status::FolderChangeStatus;

use super::{Reaction, Request, folder_change};
use crate::backend::Result;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match folder_change::begin(request).await? {
        Ok(asked) => asked,
        Err(answer) => return Ok(answer),
    };
    let FolderChange::Delete { server_id } = &asked.change else {
        return Ok(folder_change::failed(request, FolderChangeStatus::Malformed));
    };
    let Ok(folder) = server_id.parse() else {
        return Ok(folder_change::failed(request, FolderChangeStatus::NotFound));
    };
    let deleted = request.backend().folder_delete(&request.session, &request.device.key, folder).await?;
    folder_change::end(request, asked, deleted).await
}
