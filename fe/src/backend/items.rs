//! The mailbox itself: its folders, a folder's changes, an item and what a device does to it.

use std::time::Duration;

use bytes::Bytes;
use directpush_common::change::Cause;
use directpush_common::dav::hierarchy::{self, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::dav::xml::escape;
use directpush_common::dav::{DavError, HTTPMAIL, OURS, headers};
use directpush_common::names::{DeviceKey, FolderId, ItemId};
use directpush_common::numbers::Number;
use http::{StatusCode, header};

use super::call::{Answer, Call, ITEM_BYTES_MAX};
use super::{Backend, Result, Session};

/// A body of megabytes takes longer than an answer.
const ITEM_TIMEOUT: Duration = Duration::from_secs(30);

/// One item of one folder.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The folder.
    pub folder: FolderId,
    /// The item.
    pub item: ItemId,
}

impl Backend {
    /// The folders changed since hierarchy number `since`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn hierarchy(&self, session: &Session, since: Number) -> Result<Hierarchy> {
        let path = session.user.mailbox_url();
        let answer = self.report(session, &path, hierarchy::write_request(since)).await?;
        match answer.status {
            StatusCode::MULTI_STATUS => Ok(Hierarchy::read(&answer.body)?),
            _ => Err(answer.into_error()),
        }
    }

    /// Changes of a folder, or its items from the newest. `None`: the token is of another epoch
    /// or too old, and the device starts the collection over.
    ///
    /// # Errors
    /// [`super::Error`]; `is_not_found` when the folder is gone.
    pub async fn items(
        &self,
        session: &Session,
        folder: FolderId,
        request: ItemsRequest,
    ) -> Result<Option<Items>> {
        let path = folder.permanent_url(&session.user);
        let answer = self.report(session, &path, request.write()).await?;
        match answer.status {
            StatusCode::MULTI_STATUS => Ok(Some(Items::read(&answer.body)?)),
            // DAV:valid-sync-token (RFC 6578 3.2).
            StatusCode::FORBIDDEN if contains(&answer.body, b"valid-sync-token") => Ok(None),
            _ => Err(answer.into_error()),
        }
    }

    async fn report(&self, session: &Session, path: &str, body: String) -> Result<Answer> {
        let mut call = Call::new("REPORT", path, Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "text/xml".to_owned()));
        call.body = Bytes::from(body);
        self.call(call).await
    }

    /// The bytes of an item; `None` when it is gone.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_get(&self, session: &Session, place: Place) -> Result<Option<Bytes>> {
        let path = place.folder.item_url(&session.user, place.item);
        let mut call = Call::new("GET", &path, Some(session));
        call.answer_bytes_max = ITEM_BYTES_MAX;
        call.timeout = Some(ITEM_TIMEOUT);
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.into_error()),
        }
    }

    /// Sets the read flag and the marks (as text), in one commit. False when the item is gone.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_set(
        &self,
        session: &Session,
        device: &DeviceKey,
        place: Place,
        read: Option<bool>,
        marks: Option<&str>,
    ) -> Result<bool> {
        let read = read.map_or("", |read| if read { "<m:read>1</m:read>" } else { "<m:read>0</m:read>" });
        let marks = marks.map_or_else(String::new, |marks| format!("<p:marks>{}</p:marks>", escape(marks)));
        let path = place.folder.item_url(&session.user, place.item);
        let mut call = as_device("PROPPATCH", &path, session, device, Cause::Sync);
        call.headers.push((header::CONTENT_TYPE.as_str(), "text/xml".to_owned()));
        call.body = Bytes::from(format!(
            "<?xml version=\"1.0\"?><D:propertyupdate xmlns:D=\"DAV:\" xmlns:m=\"{HTTPMAIL}\" xmlns:p=\"{OURS}\">\
             <D:set><D:prop>{read}{marks}</D:prop></D:set></D:propertyupdate>"
        ));
        done(self.call(call).await?)
    }

    /// Deletes an item for good. False when it was gone already.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_delete(&self, session: &Session, device: &DeviceKey, place: Place) -> Result<bool> {
        let path = place.folder.item_url(&session.user, place.item);
        done(self.call(as_device("DELETE", &path, session, device, Cause::Sync)).await?)
    }

    /// Moves an item into a folder. The id it has there, or `None` when it is gone.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_move(
        &self,
        session: &Session,
        device: &DeviceKey,
        place: Place,
        to: FolderId,
        cause: Cause,
    ) -> Result<Option<ItemId>> {
        let path = place.folder.item_url(&session.user, place.item);
        self.moved(session, to, as_device("MOVE", &path, session, device, cause)).await
    }

    /// Moves an item as MoveItems does: no device is named, so that the one that asked for it is told of it in its next Sync of
    /// both folders, like every other.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_move_told(
        &self,
        session: &Session,
        place: Place,
        to: FolderId,
    ) -> Result<Option<ItemId>> {
        let path = place.folder.item_url(&session.user, place.item);
        let mut call = Call::new("MOVE", &path, Some(session));
        call.headers.push((headers::CAUSE, Cause::Move.to_string()));
        self.moved(session, to, call).await
    }

    async fn moved(&self, session: &Session, to: FolderId, mut call: Call<'_>) -> Result<Option<ItemId>> {
        call.headers.push((
            "Destination",
            format!("{}{}", self.url().as_str().trim_end_matches('/'), to.permanent_url(&session.user)),
        ));
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
                let location =
                    answer.header(header::LOCATION.as_str()).ok_or(DavError::Missing("Location"))?;
                let section = location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let (_, item) = ItemId::from_section(section).map_err(|_| DavError::Bad("Location"))?;
                Ok(Some(item))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.into_error()),
        }
    }
}

/// A write that names its maker, so that the device is not woken by what it did itself.
pub(super) fn as_device<'a>(
    method: &'static str,
    path: &'a str,
    session: &'a Session,
    device: &DeviceKey,
    cause: Cause,
) -> Call<'a> {
    let mut call = Call::new(method, path, Some(session));
    call.headers.push((headers::DEVICE, device.to_string()));
    call.headers.push((headers::CAUSE, cause.to_string()));
    call
}

fn done(answer: Answer) -> Result<bool> {
    match answer.status {
        status if status.is_success() => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(answer.into_error()),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
