//! `NON_IPM_SUBTREE/Settings/Oof`: what is answered while the user is away, as JSON. It is always there, switched off until it
//! was set. Only front ends write it, for devices; an administrator does by `directpush-be user oof`.

use std::sync::Arc;

use directpush_common::dav::conditions::Verdict;
use directpush_common::mail::oof::Oof;
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::Call;
use super::reply::{self, Reply};
use crate::auth::Principal;
use crate::error::Error;
use crate::http::body;
use crate::mailbox::oof::{KeptOof, OOF_BYTES_MAX};
use crate::mailbox::users::Account;

pub(super) async fn answer(
    call: &Call<'_>,
    account: &Arc<Account>,
    method: &str,
    incoming: Incoming,
) -> Result<Reply, Reply> {
    match method {
        "GET" | "HEAD" => read(call, account).await,
        "PUT" => write(call, account, incoming).await,
        _ => {
            let refused = reply::text(StatusCode::METHOD_NOT_ALLOWED, "this is read, or written whole");
            Err(reply::with(refused, header::ALLOW, "OPTIONS, GET, HEAD, PUT"))
        }
    }
}

fn tagged(reply: Reply, kept: &KeptOof) -> Reply {
    let reply = reply::with(reply, header::ETAG, &kept.etag());
    reply::with(reply, header::LAST_MODIFIED, &reply::http_date(kept.modified))
}

async fn read(call: &Call<'_>, account: &Arc<Account>) -> Result<Reply, Reply> {
    let kept = call.server.boxes.oof(account.mailbox).await.map_err(|error| reply::failure(&error))?;
    match call.conditions().read(&kept.etag(), kept.modified) {
        Verdict::NotModified => Ok(tagged(reply::empty(StatusCode::NOT_MODIFIED), &kept)),
        Verdict::Failed => Err(reply::failure(&Error::Precondition)),
        Verdict::GoOn => {
            let answer = tagged(reply::json(StatusCode::OK, &kept.oof)?, &kept);
            Ok(reply::with(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        }
    }
}

async fn write(call: &Call<'_>, account: &Arc<Account>, incoming: Incoming) -> Result<Reply, Reply> {
    if !matches!(call.principal, Principal::FrontEnd { .. }) {
        return Err(reply::text(StatusCode::FORBIDDEN, "only front ends write this"));
    }
    let read = body::read(call.server, &call.parts.headers, incoming, OOF_BYTES_MAX as u64).await?;
    let oof: Oof = serde_json::from_slice(&read.bytes).map_err(reply::bad)?;
    let written = call.server.boxes.put_oof(account.mailbox, oof, call.conditions()).await;
    let kept = written.map_err(|error| reply::failure(&error))?;
    tracing::info!(user = %account.name, state = ?kept.oof.state, "automatic replies set");
    Ok(tagged(reply::empty(StatusCode::NO_CONTENT), &kept))
}
