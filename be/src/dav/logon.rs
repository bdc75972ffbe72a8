//! `POST /directpush/logon`: a front end proves a user's password and gets a token to act for them.

use http::StatusCode;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::reply::{self, Reply};
use super::{Call, elsewhere};
use crate::auth::{Principal, Refusal};
use crate::http::body;

/// Bytes of the request, at most.
const BODY_BYTES_MAX: u64 = 8 * 1024;

#[derive(Deserialize)]
struct Request {
    login: String,
    password: String,
}

pub(super) async fn answer(call: &Call<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    if !matches!(call.principal, Principal::FrontEnd { .. }) {
        return Err(reply::text(StatusCode::FORBIDDEN, "only a front end logs users on"));
    }
    let body = body::read(call.server, &call.parts.headers, incoming, BODY_BYTES_MAX).await?;
    let request: Request = serde_json::from_slice(&body.bytes)
        .map_err(|_| reply::text(StatusCode::BAD_REQUEST, "not a log-on request"))?;
    match call.server.auth.log_on(&request.login, &request.password).await {
        Ok(on) => {
            let answer = json!({
                "user": on.account.name,
                "token": on.token,
                "expires_secs": on.expires_secs,
                "push": on.account.push,
                "sync": on.account.sync,
            });
            reply::json(StatusCode::OK, &answer)
        }
        Err(Refusal::Disabled) => reply::json(StatusCode::FORBIDDEN, &json!({ "disabled": true })),
        Err(Refusal::Elsewhere(url)) => Ok(elsewhere::redirect(call.parts, &url)),
        // Of the user, not of the front end: without a challenge for its own credential.
        Err(Refusal::Credential) => reply::json(StatusCode::UNAUTHORIZED, &json!({ "password": false })),
        Err(refusal) => Err(reply::refusal(&refusal)),
    }
}
