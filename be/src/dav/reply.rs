//! Answers: status, headers, body, and how each kind of failure is told.

use bytes::Bytes;
use directpush_common::dav::headers;
use directpush_common::dav::multistatus::{Condition, error_body};
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::auth::Refusal;
use crate::error::{Error, WithCauses};
use crate::store::StoreError;

/// The type of every answer.
pub type Reply = Response<Full<Bytes>>;

/// Seconds in `Retry-After` when we are busy.
pub const RETRY_AFTER_SECS: u32 = 5;

/// An answer without a body.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// An answer with a body of this type.
pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Result<Reply, Reply> {
    match serde_json::to_vec(value) {
        Ok(json) => Ok(body(status, "application/json", json)),
        Err(_) => Err(failure(&Error::Task)),
    }
}

/// 207.
pub fn multi_status(xml: impl Into<Bytes>) -> Reply {
    body(StatusCode::MULTI_STATUS, "text/xml; charset=\"utf-8\"", xml)
}

/// An answer whose body says in a line what is wrong.
pub fn text(status: StatusCode, line: impl std::fmt::Display) -> Reply {
    body(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

/// 400 for a header or a body that cannot be read.
pub fn bad(error: impl std::fmt::Display) -> Reply {
    text(StatusCode::BAD_REQUEST, error)
}

/// A condition of RFC 4918 16 that does not hold, with the status that goes with it.
pub fn condition<'a>(condition: Condition, hrefs: impl IntoIterator<Item = &'a str>) -> Reply {
    let status = StatusCode::from_u16(condition.status()).unwrap_or(StatusCode::CONFLICT);
    body(status, "text/xml; charset=\"utf-8\"", error_body(condition, hrefs))
}

/// 403 or 409 with a `DAV:` precondition (RFC 4918 16).
pub fn precondition(status: StatusCode, name: &str) -> Reply {
    let xml = format!("<?xml version=\"1.0\"?><D:error xmlns:D=\"DAV:\"><D:{name}/></D:error>");
    body(status, "text/xml; charset=\"utf-8\"", xml)
}

/// 503 + `Retry-After`.
pub fn busy() -> Reply {
    with(text(StatusCode::SERVICE_UNAVAILABLE, "busy"), header::RETRY_AFTER, &RETRY_AFTER_SECS.to_string())
}

/// The same answer with another status.
pub fn with_status(mut reply: Reply, status: StatusCode) -> Reply {
    *reply.status_mut() = status;
    reply
}

/// The same answer with one more header. A value that no header can hold is left out.
pub fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// The same answer with one more header of ours.
pub fn with_ours(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// The same answer with the mailbox's hierarchy number after a change of the folder tree.
pub fn of_tree(reply: Reply, hierarchy: Option<u64>) -> Reply {
    match hierarchy {
        Some(number) => with_ours(reply, headers::HIERARCHY, &number.to_string()),
        None => reply,
    }
}

/// What a failure becomes. Its text goes to the log, not to the asker, where it could tell of others.
pub fn failure(error: &Error) -> Reply {
    match error {
        Error::Store(StoreError::Full) => condition(Condition::SufficientDiskSpace, []),
        Error::Quota(_) => condition(Condition::QuotaNotExceeded, []),
        Error::Store(StoreError::Conflict) | Error::Busy(_) => busy(),
        Error::Store(StoreError::NoBody(_)) | Error::Record { .. } | Error::Task => {
            tracing::error!(error = %WithCauses(error), "cannot answer");
            text(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; the server's log says more")
        }
        Error::Store(_) | Error::Io { .. } => {
            tracing::error!(error = %WithCauses(error), "the store fails");
            busy()
        }
        Error::NoUser | Error::Gone(_) => text(StatusCode::NOT_FOUND, error),
        Error::UserExists | Error::Conflict(_) | Error::Taken(_) => text(StatusCode::CONFLICT, error),
        Error::Precondition => text(StatusCode::PRECONDITION_FAILED, error),
        Error::Forbidden(_) => text(StatusCode::FORBIDDEN, error),
        Error::Devices => with_ours(text(StatusCode::FORBIDDEN, error), headers::REASON, "devices"),
        Error::OverBound(_) => text(StatusCode::INSUFFICIENT_STORAGE, error),
        Error::Token => precondition(StatusCode::FORBIDDEN, "valid-sync-token"),
    }
}

/// What is said to those who are not let in.
pub fn refusal(refusal: &Refusal) -> Reply {
    let reason = match refusal {
        // Whoever is elsewhere is unknown where no path says the rest.
        Refusal::Credential | Refusal::Elsewhere(_) => None,
        Refusal::FrontEnd => Some("front-end"),
        Refusal::Token => Some("credential"),
        Refusal::Disabled => return text(StatusCode::FORBIDDEN, "the user is disabled"),
        Refusal::Busy => return busy(),
        Refusal::Failed(error) => return failure(error),
    };
    let reply = text(StatusCode::UNAUTHORIZED, "log on");
    match reason {
        Some(reason) => with_ours(reply, headers::REASON, reason),
        None => with(reply, header::WWW_AUTHENTICATE, "Basic realm=\"directpush\", charset=\"UTF-8\""),
    }
}

/// An HTTP date (RFC 9110 5.6.7) of Unix seconds.
pub fn http_date(secs: i64) -> String {
    jiff::Timestamp::from_second(secs)
        .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or_default()
}

/// An ISO 8601 date of Unix seconds, as `DAV:creationdate` has it.
pub fn iso_date(secs: i64) -> String {
    jiff::Timestamp::from_second(secs)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_the_rfcs_write_them() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_date(784_111_777), "1994-11-06T08:49:37Z");
    }
}
