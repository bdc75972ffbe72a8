//! What a device does to the folders of a mailbox: MKCOL, MOVE and DELETE by permanent URLs.

use directpush_common::change::Cause;
use directpush_common::dav::{DavError, headers};
use directpush_common::names::{DeviceKey, FolderId, encode_segment};
use http::StatusCode;

use super::items::as_device;
use super::{Backend, Result, Session};

/// What became of a change of a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FolderOutcome {
    /// Done, with this folder.
    Done(FolderId),
    /// The parent has a folder of this name.
    Exists,
    /// The parent is not there.
    NoParent,
    /// The folder is not there.
    NotFound,
    /// It is one of those that every mailbox has.
    Special,
    /// No back end takes such a name.
    BadName,
}

impl Backend {
    /// Makes a folder of this EAS type below `parent`; `None` = at the top.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn folder_create(
        &self,
        session: &Session,
        device: &DeviceKey,
        (parent, name): (Option<FolderId>, &str),
        folder_type: u8,
    ) -> Result<FolderOutcome> {
        let path = place(session, parent, name);
        let mut call = as_device("MKCOL", &path, session, device, Cause::Sync);
        call.headers.push((headers::FOLDER_TYPE, folder_type.to_string()));
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::CREATED => {
                let location =
                    answer.header(headers::CONTENT_LOCATION).ok_or(DavError::Missing("Content-Location"))?;
                let id = location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                Ok(FolderOutcome::Done(id.parse().map_err(|_| DavError::Bad("Content-Location"))?))
            }
            StatusCode::METHOD_NOT_ALLOWED => Ok(FolderOutcome::Exists),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(FolderOutcome::NoParent),
            StatusCode::BAD_REQUEST => Ok(FolderOutcome::BadName),
            _ => Err(answer.into_error()),
        }
    }

    /// Gives a folder another name, another parent, or both.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn folder_move(
        &self,
        session: &Session,
        device: &DeviceKey,
        folder: FolderId,
        (parent, name): (Option<FolderId>, &str),
    ) -> Result<FolderOutcome> {
        let path = folder.permanent_url(&session.user);
        let mut call = as_device("MOVE", &path, session, device, Cause::Sync);
        let base = self.url().as_str().trim_end_matches('/');
        call.headers.push(("Destination", format!("{base}{}", place(session, parent, name))));
        call.headers.push(("Overwrite", "F".to_owned()));
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(FolderOutcome::Done(folder)),
            StatusCode::PRECONDITION_FAILED => Ok(FolderOutcome::Exists),
            StatusCode::CONFLICT => Ok(FolderOutcome::NoParent),
            StatusCode::NOT_FOUND => Ok(FolderOutcome::NotFound),
            StatusCode::FORBIDDEN => Ok(FolderOutcome::Special),
            StatusCode::BAD_REQUEST => Ok(FolderOutcome::BadName),
            _ => Err(answer.into_error()),
        }
    }

    /// Deletes a folder with all in it.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn folder_delete(
        &self,
        session: &Session,
        device: &DeviceKey,
        folder: FolderId,
    ) -> Result<FolderOutcome> {
        let path = folder.permanent_url(&session.user);
        let answer = self.call(as_device("DELETE", &path, session, device, Cause::Sync)).await?;
        match answer.status {
            status if status.is_success() => Ok(FolderOutcome::Done(folder)),
            StatusCode::NOT_FOUND => Ok(FolderOutcome::NotFound),
            StatusCode::FORBIDDEN => Ok(FolderOutcome::Special),
            _ => Err(answer.into_error()),
        }
    }
}

/// The URL of a folder by its parent and its name.
fn place(session: &Session, parent: Option<FolderId>, name: &str) -> String {
    let above =
        parent.map_or_else(|| session.user.mailbox_url(), |parent| parent.permanent_url(&session.user));
    format!("{above}{}/", encode_segment(name))
}
