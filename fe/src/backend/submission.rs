//! What a user sends, handed in at the back end, and its copy (`docs/fe-be.md`, Submission).

use std::time::Duration;

use bytes::Bytes;
use directpush_common::change::Cause;
use directpush_common::dav::xml::escape;
use directpush_common::dav::{OURS, headers};
use directpush_common::names::{DeviceKey, encode_segment};
use http::{StatusCode, header};

use super::call::Call;
use super::items::Place;
use super::{Backend, Result, Session};

/// A body of megabytes takes longer than an answer, and neighbours' mailboxes are written to before it comes.
const SUBMISSION_TIMEOUT: Duration = Duration::from_mins(1);

/// What became of a message that was handed in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Submitted {
    /// It would survive a power cut. How the back end's log calls it.
    Accepted(Box<str>),
    /// Nothing was sent.
    Refused(Refusal),
}

/// Why the back end does not take a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `From` or `Sender` names somebody else.
    Sender,
    /// More recipients than a message may have.
    Recipients,
    /// A recipient is elsewhere, and no mail leaves.
    SmartHost,
    /// Larger than a message may be.
    TooLarge,
    /// No recipient, or a header that cannot be read in one way only.
    Message,
    /// The user's hour is used up: seconds until there is room.
    Rate(u64),
    /// The message was here before.
    Loop,
}

impl Backend {
    /// Hands in a message. It is not tried twice: a connection that breaks leaves open whether it was sent.
    ///
    /// # Errors
    /// [`super::Error`]; `Busy` when the queue is full, 507 when the disk is.
    pub async fn submit(&self, session: &Session, message: Bytes) -> Result<Submitted> {
        let path = format!("{}%23%23DavMailSubmissionURI%23%23/", session.user.mailbox_url());
        let mut call = Call::new("PUT", &path, Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "message/rfc822".to_owned()));
        call.body = message;
        call.timeout = Some(SUBMISSION_TIMEOUT);
        call.once = true;
        let answer = self.call(call).await?;
        let refusal = match (answer.status, answer.header(headers::REASON)) {
            (status, _) if status.is_success() => {
                let id = answer.header(headers::SUBMISSION).unwrap_or("-");
                return Ok(Submitted::Accepted(id.into()));
            }
            (StatusCode::FORBIDDEN, Some("sender")) => Refusal::Sender,
            (StatusCode::FORBIDDEN, Some("recipients")) => Refusal::Recipients,
            (StatusCode::FORBIDDEN, Some("smart-host")) => Refusal::SmartHost,
            (StatusCode::PAYLOAD_TOO_LARGE, _) => Refusal::TooLarge,
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Refusal::Message,
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Refusal::Rate(answer.number(header::RETRY_AFTER.as_str()).unwrap_or(600))
            }
            (StatusCode::LOOP_DETECTED, _) => Refusal::Loop,
            _ => return Err(answer.into_error()),
        };
        Ok(Submitted::Refused(refusal))
    }

    /// Puts a new message into a folder, under a name of its own; `folder` is the folder's URL path, with a slash at the
    /// end. What is put with the cause `send` is read.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_add(
        &self,
        session: &Session,
        device: &DeviceKey,
        folder: &str,
        message: Bytes,
        cause: Cause,
    ) -> Result<()> {
        let name = format!("{}.eml", uuid::Uuid::new_v4().simple());
        let path = format!("{folder}{}", encode_segment(&name));
        let mut call = Call::new("PUT", &path, Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "message/rfc822".to_owned()));
        call.headers.push((header::IF_NONE_MATCH.as_str(), "*".to_owned()));
        call.headers.push((headers::DEVICE, device.to_string()));
        call.headers.push((headers::CAUSE, cause.to_string()));
        call.body = message;
        call.timeout = Some(SUBMISSION_TIMEOUT);
        let answer = self.call(call).await?;
        match answer.status {
            // Repeated after a broken connection, it finds itself there.
            status if status.is_success() || status == StatusCode::PRECONDITION_FAILED => Ok(()),
            _ => Err(answer.into_error()),
        }
    }
}

impl Backend {
    /// Sets the marks of an item, as text. Nothing happens to one that is gone.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn item_set_marks(
        &self,
        session: &Session,
        device: &DeviceKey,
        place: Place,
        marks: &str,
        cause: Cause,
    ) -> Result<()> {
        let path = place.folder.item_url(&session.user, place.item);
        let mut call = Call::new("PROPPATCH", &path, Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "text/xml".to_owned()));
        call.headers.push((headers::DEVICE, device.to_string()));
        call.headers.push((headers::CAUSE, cause.to_string()));
        call.body = Bytes::from(format!(
            "<?xml version=\"1.0\"?><D:propertyupdate xmlns:D=\"DAV:\" xmlns:p=\"{OURS}\"><D:set><D:prop>\
             <p:marks>{}</p:marks></D:prop></D:set></D:propertyupdate>",
            escape(marks)
        ));
        let answer = self.call(call).await?;
        match answer.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.into_error()),
        }
    }
}

impl Refusal {
    /// For the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Recipients => "recipients",
            Self::SmartHost => "smart-host",
            Self::TooLarge => "size",
            Self::Message => "message",
            Self::Rate(_) => "rate",
            Self::Loop => "loop",
        }
    }
}
