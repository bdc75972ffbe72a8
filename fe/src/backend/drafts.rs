//! Drafts that a device writes, and the one that it has sent (`docs/fe-be.md`, Reports and items).

use std::time::Duration;

use bytes::Bytes;
use directpush_common::change::Cause;
use directpush_common::dav::{DavError, headers};
use directpush_common::names::{DeviceKey, FolderId, ItemId, encode_segment};
use http::{StatusCode, header};

use super::call::{Answer, Call};
use super::items::{Place, as_device};
use super::{Backend, Result, Session};

/// A body of megabytes takes longer than an answer.
const DRAFT_TIMEOUT: Duration = Duration::from_mins(1);

impl Backend {
    /// Puts a new message into a folder under this name, once: one of this name that is there already is it. Its id.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn draft_add(
        &self,
        session: &Session,
        device: &DeviceKey,
        folder: FolderId,
        name: &str,
        message: Bytes,
    ) -> Result<ItemId> {
        let path = format!("{}{}", folder.permanent_url(&session.user), encode_segment(name));
        let mut call = as_device("PUT", &path, session, device, Cause::Sync);
        call.headers.push((header::IF_NONE_MATCH.as_str(), "*".to_owned()));
        let answer = self.call(with_message(call, message)).await?;
        match answer.status {
            status if status.is_success() => added(&answer),
            StatusCode::PRECONDITION_FAILED => {
                let answer = self.call(Call::new("HEAD", &path, Some(session))).await?;
                if answer.status.is_success() { added(&answer) } else { Err(answer.into_error()) }
            }
            _ => Err(answer.into_error()),
        }
    }

    /// Puts a message in the place of one, whose id it keeps. False when that is gone.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn draft_change(
        &self,
        session: &Session,
        device: &DeviceKey,
        place: Place,
        message: Bytes,
    ) -> Result<bool> {
        let path = place.folder.item_url(&session.user, place.item);
        let call = as_device("PUT", &path, session, device, Cause::Sync);
        let answer = self.call(with_message(call, message)).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(false),
            _ => Err(answer.into_error()),
        }
    }

    /// Deletes a draft that was sent. No device is named, so that all are told, the one that sent it too.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn draft_sent(&self, session: &Session, place: Place) -> Result<()> {
        let path = place.folder.item_url(&session.user, place.item);
        let mut call = Call::new("DELETE", &path, Some(session));
        call.headers.push((headers::CAUSE, Cause::Send.to_string()));
        let answer = self.call(call).await?;
        match answer.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.into_error()),
        }
    }
}

fn with_message(mut call: Call<'_>, message: Bytes) -> Call<'_> {
    call.headers.push((header::CONTENT_TYPE.as_str(), "message/rfc822".to_owned()));
    call.body = message;
    call.timeout = Some(DRAFT_TIMEOUT);
    call
}

/// The id of an item that nobody has changed since it was added: the number in its entity tag.
fn added(answer: &Answer) -> Result<ItemId> {
    let tag = answer.header(header::ETAG.as_str()).ok_or(DavError::Missing("ETag"))?;
    let number = tag.trim_matches('"').rsplit('-').next().and_then(|number| number.parse().ok());
    Ok(ItemId(number.ok_or(DavError::Bad("ETag"))?))
}
