//! A device's state objects in the user's mailbox: conditional GET and PUT.
//!
//! Every answer below the device's folder carries two numbers that say whether what a front end
//! remembers of the device is still true; [`Fresh`] holds them.

use bytes::Bytes;
use directpush_common::dav::headers;
use directpush_common::dav::standing::{DeviceReport, Standing, WipeReport};
use directpush_common::eas::{Command, Version};
use directpush_common::names::{DeviceKey, encode_segment};
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
    /// What was ordered for the device, and which policy it needs.
    pub standing: Standing,
}

/// Which device asks and what for; the back end keeps a register of it.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Whose.
    pub session: &'a Session,
    /// Which device.
    pub device: &'a DeviceKey,
    /// Its User-Agent.
    pub agent: &'a str,
    /// What it speaks.
    pub version: Version,
    /// What it asked for.
    pub command: Command,
}

impl<'a> Asker<'a> {
    fn call(&self, method: &'static str, path: &'a str) -> Call<'a> {
        let mut call = Call::new(method, path, Some(self.session));
        call.headers.push((headers::VERSION, self.version.to_string()));
        call.headers.push((headers::COMMAND, self.command.to_string()));
        if !self.agent.is_empty() {
            call.headers.push((headers::AGENT, encode_segment(self.agent)));
        }
        call
    }
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
        asker: Asker<'_>,
        object: &str,
        tag: Option<&str>,
    ) -> Result<(Object, Fresh)> {
        let path = format!("{}{object}", asker.device.state_url(&asker.session.user));
        let mut call = asker.call("GET", &path);
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
        asker: Asker<'_>,
        object: &str,
        condition: If<'_>,
        content: impl Into<Bytes>,
    ) -> Result<(Put, Fresh)> {
        let path = format!("{}{object}", asker.device.state_url(&asker.session.user));
        let mut call = asker.call("PUT", &path);
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

    /// Tells that a device wipes itself as it was ordered, or that it says it cannot.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn report_wipe(&self, session: &Session, device: &DeviceKey, wipe: WipeReport) -> Result<()> {
        let report = DeviceReport { device: device.to_string(), wipe };
        let mut call = Call::new("POST", "/directpush/device", Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "application/json".to_owned()));
        call.body = serde_json::to_vec(&report).unwrap_or_default().into();
        let answer = self.call(call).await?;
        match answer.status {
            // 409: the order was withdrawn meanwhile.
            status if status.is_success() || status == StatusCode::CONFLICT => Ok(()),
            _ => Err(answer.into_error()),
        }
    }
}

fn fresh(answer: &Answer) -> Fresh {
    Fresh {
        state: answer.number(headers::DEVICE_STATE).unwrap_or(0),
        hierarchy: answer.number(headers::HIERARCHY).unwrap_or(Number::ZERO),
        standing: Standing::from_headers(|name| answer.header(name)),
    }
}

fn etag(answer: &Answer) -> Box<str> {
    answer.header(header::ETAG.as_str()).unwrap_or_default().into()
}
