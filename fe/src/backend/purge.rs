//! Deletions in nobody's name: unlike those of a device's Sync, the device that asked for them is told of them too.

use directpush_common::names::FolderId;
use http::StatusCode;

use super::call::Call;
use super::items::Place;
use super::{Backend, Result, Session};

impl Backend {
    /// Deletes an item for good. False when it was gone already.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_purge(&self, session: &Session, place: Place) -> Result<bool> {
        self.purge(session, &place.folder.item_url(&session.user, place.item)).await
    }

    /// Deletes a folder with all below it for good. False when it was gone already.
    ///
    /// # Errors
    /// [`super::Error`]; 403 for a folder that stays.
    pub async fn folder_purge(&self, session: &Session, folder: FolderId) -> Result<bool> {
        self.purge(session, &folder.permanent_url(&session.user)).await
    }

    async fn purge(&self, session: &Session, path: &str) -> Result<bool> {
        let answer = self.call(Call::new("DELETE", path, Some(session))).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.into_error()),
        }
    }
}
