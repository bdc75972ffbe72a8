//! A device's state objects in the user's mailbox: conditional GET and PUT.
//!
//! Every answer below the device's folder carries two numbers that say whether what a front end
//! remembers of the device is still true; [`Fresh`] holds them.

use bytes::Bytes;
use directpush_common::dav::headers;
use directpush_common::names::DeviceKey;
use directpush_common::numbers::Number;
use http::{StatusCode, header};

use super::call::{Answer, Call};
use super::{Backend, Result, Session};

/// Bytes of a state object, at most (`docs/fe-be.md`).
pub const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// What the back end says of the device with every answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fresh {
    /// `DirectPush-Device-State`: grows with every write to an object of this device.
    pub state: u64,
    /// `DirectPush-Hierarchy`: the mailbox's hierarchy number.
    pub hierarchy: Number,
}

/// The answer to a conditional GET.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Object {
    /// It is as it was (304).
    Same,
    /// There is none (404).
    None,
    /// Its ETag and content.
    Is(Box<str>, Bytes),
}

/// What becomes of a conditional PUT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Put {
    /// Written; the new ETag.
    Done(Box<str>),
    /// Somebody else wrote meanwhile (412).
    Conflict,
}

/// The condition of a PUT.
#[derive(Clone, Copy, Debug)]
pub enum If<'a> {
    /// Whatever is there.
    Any,
    /// Only when there is nothing yet.
    Absent,
    /// Only when this is there.
    Tag(&'a str),
}

impl Backend {
    /// Reads `object` of the device unless its ETag is still `tag`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn device_get(
        &self,
        session: &Session,
        device: &DeviceKey,
        object: &str,
        tag: Option<&str>,
    ) -> Result<(Object, Fresh)> {
        let path = format!("{}{object}", device.state_url(&session.user));
        let mut call = Call::new("GET", &path, Some(session));
        call.answer_bytes_max = OBJECT_BYTES_MAX;
        if let Some(tag) = tag {
            call.headers.push((header::IF_NONE_MATCH.as_str(), tag.to_owned()));
        }
        let answer = self.call(call).await?;
        let fresh = fresh(&answer);
        match answer.status {
            StatusCode::OK => Ok((Object::Is(etag(&answer), answer.body), fresh)),
            StatusCode::NOT_MODIFIED => Ok((Object::Same, fresh)),
            StatusCode::NOT_FOUND => Ok((Object::None, fresh)),
            _ => Err(answer.into_error()),
        }
    }

    /// Writes `object` of the device under a condition.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn device_put(
        &self,
        session: &Session,
        device: &DeviceKey,
        object: &str,
        condition: If<'_>,
        content: impl Into<Bytes>,
    ) -> Result<(Put, Fresh)> {
        let path = format!("{}{object}", device.state_url(&session.user));
        let mut call = Call::new("PUT", &path, Some(session));
        match condition {
            If::Any => {}
            If::Absent => call.headers.push((header::IF_NONE_MATCH.as_str(), "*".to_owned())),
            If::Tag(tag) => call.headers.push((header::IF_MATCH.as_str(), tag.to_owned())),
        }
        call.body = content.into();
        let answer = self.call(call).await?;
        let fresh = fresh(&answer);
        match answer.status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                Ok((Put::Done(etag(&answer)), fresh))
            }
            StatusCode::PRECONDITION_FAILED => Ok((Put::Conflict, fresh)),
            _ => Err(answer.into_error()),
        }
    }
}

fn fresh(answer: &Answer) -> Fresh {
    Fresh {
        state: answer.number(headers::DEVICE_STATE).unwrap_or(0),
        hierarchy: answer.number(headers::HIERARCHY).unwrap_or(Number::ZERO),
    }
}

fn etag(answer: &Answer) -> Box<str> {
    answer.header(header::ETAG.as_str()).unwrap_or_default().into()
}
