//! PUT to `/exchange/<user>/%23%23DavMailSubmissionURI%23%23/`: a user's mail leaves, as Exchange's DAV clients
//! sent it. The body is the message; its recipients are those of its header.

use std::sync::Arc;

use directpush_common::dav::headers;
use directpush_common::dav::multistatus::Condition;
use directpush_common::mail::fields::BadFields;
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::Call;
use super::reply::{self, Reply};
use crate::http::body;
use crate::mailbox::users::Account;
use crate::submission::message::BadMessage;
use crate::submission::queue::QueueError;
use crate::submission::queue::spool::SpoolError;
use crate::submission::{Refusal, Submitted};

pub(super) async fn answer(
    call: &Call<'_>,
    account: &Arc<Account>,
    incoming: Incoming,
) -> Result<Reply, Reply> {
    let bytes_max = call.server.config.limits.mail_bytes_max;
    let read = body::read(call.server, &call.parts.headers, incoming, bytes_max).await?;
    match call.server.submission.submit(account, read.bytes.clone()).await {
        Ok(Submitted { id, .. }) => {
            Ok(reply::with_ours(reply::empty(StatusCode::CREATED), headers::SUBMISSION, &id))
        }
        Err(refusal) => {
            tracing::info!(user = %account.name, error = %refusal, "mail not accepted");
            Err(refused(&refusal))
        }
    }
}

fn refused(refusal: &Refusal) -> Reply {
    let (status, reason) = match refusal {
        Refusal::Message(BadMessage::Loop) => (StatusCode::LOOP_DETECTED, "loop"),
        Refusal::Message(BadMessage::Fields(BadFields::TooMany(_))) => (StatusCode::FORBIDDEN, "recipients"),
        Refusal::Message(_) => (StatusCode::UNPROCESSABLE_ENTITY, "message"),
        Refusal::Sender(_) => (StatusCode::FORBIDDEN, "sender"),
        Refusal::Rate(_) => (StatusCode::TOO_MANY_REQUESTS, "rate"),
        Refusal::NoSmartHost(_) => (StatusCode::FORBIDDEN, "smart-host"),
        Refusal::Queue(QueueError::Spool(SpoolError::Full | SpoolError::ReadOnly)) => {
            return reply::condition(Condition::SufficientDiskSpace, []);
        }
        Refusal::Queue(error) => {
            tracing::warn!(%error, "the mail queue does not take a message");
            (StatusCode::SERVICE_UNAVAILABLE, "queue")
        }
        Refusal::Failed(error) => return reply::failure(error),
    };
    let answer = reply::with_ours(reply::text(status, refusal), headers::REASON, reason);
    let wait = match refusal {
        Refusal::Rate(secs) => *secs,
        Refusal::Queue(_) => reply::RETRY_AFTER_SECS.into(),
        _ => return answer,
    };
    reply::with(answer, header::RETRY_AFTER, &wait.to_string())
}
