//! `NON_IPM_SUBTREE/Settings/<object>`: what belongs to a user and is no folder. `User` says how the user is called and
//! which addresses are theirs, `Policy` what is demanded of the user's devices, `Oof` what is answered while the user is away.

use std::sync::Arc;

use http::{StatusCode, header};
use hyper::body::Incoming;

use super::reply::{self, Reply};
use super::{Call, not_found, oof};
use crate::mailbox::users::Account;

pub(super) async fn answer(
    call: &Call<'_>,
    account: &Arc<Account>,
    method: &str,
    object: &str,
    incoming: Incoming,
) -> Result<Reply, Reply> {
    match object {
        "User" if matches!(method, "GET" | "HEAD") => {
            let server = call.server;
            let person = server.boxes.person(&server.post.rules, &account.name).await;
            reply::json(StatusCode::OK, &person.map_err(|error| reply::failure(&error))?)
        }
        "Policy" if matches!(method, "GET" | "HEAD") => match call.server.config.policies.of(&account.policy)
        {
            Some(policy) => reply::json(StatusCode::OK, policy),
            None => Err(not_found()),
        },
        "User" | "Policy" => Err(reply::with(
            reply::text(StatusCode::METHOD_NOT_ALLOWED, "this can be read only"),
            header::ALLOW,
            "OPTIONS, GET, HEAD",
        )),
        "Oof" => oof::answer(call, account, method, incoming).await,
        _ => Err(not_found()),
    }
}
