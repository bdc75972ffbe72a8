//! Requests for mailboxes that are at another back end: 307 with the same path there (RFC 9110 15.4.8).
//!
//! `Location` is always a back end of our own configuration. The act-for token is not looked at, since it may be of the time when
//! the mailbox was here; nor is a person's password, which only the other back end can check.

use std::sync::Arc;

use directpush_common::dav::headers;
use directpush_common::dav::subscribe::parse_ids;
use http::request::Parts;
use http::{StatusCode, header};

use super::path::{Path, Place};
use super::reply::{self, Reply};
use super::{InMailbox, Who};
use crate::auth::{Credentials, Principal, Refusal};
use crate::server::Server;

/// The redirect, if that is what a request gets.
pub(super) async fn answer(
    server: &Arc<Server>,
    parts: &Parts,
    path: &Path,
    credentials: Credentials<'_>,
    who: &mut Who,
    prove: &(dyn Fn(bool) + Sync),
) -> Option<Reply> {
    let Place::Mailbox { user, .. } = &path.place else { return None };
    let url = server.auth.elsewhere(user)?;
    match server.auth.principal(Credentials { act_for: None, ..credentials }).await {
        Ok(Principal::FrontEnd { front_end, number, .. }) => {
            prove(true);
            who.name = Some(front_end.name.clone());
            if parts.method.as_str() == "UNSUBSCRIBE" {
                // What it had here ends all the same.
                let ids = parts.headers.get(headers::SUBSCRIPTION_ID).and_then(|ids| ids.to_str().ok());
                if let Some(Ok(ids)) = ids.map(parse_ids) {
                    server.notifier.unsubscribe(number, &ids, false);
                }
            }
            Some(redirect(parts, &url))
        }
        // A person, who would log on as somebody that is elsewhere.
        Err(Refusal::Elsewhere(theirs)) => Some(redirect(parts, &theirs)),
        _ => None,
    }
}

/// 307 to the same path at another back end.
pub(super) fn redirect(parts: &Parts, url: &str) -> Reply {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let reply = reply::text(StatusCode::TEMPORARY_REDIRECT, "this mailbox is at another back end");
    reply::with(reply, header::LOCATION, &format!("{url}{path}"))
}

/// A subscription that was made while the mailbox's place changed: nobody told it, so it is told now.
pub(super) fn meanwhile(at: &InMailbox<'_>, made: Result<Reply, Reply>) -> Result<Reply, Reply> {
    let reply = made?;
    let Some(url) = at.call.server.auth.elsewhere(&at.account.name) else { return Ok(reply) };
    let ids = reply.headers().get(headers::SUBSCRIPTION_ID).and_then(|ids| ids.to_str().ok());
    if let (Some(Ok(ids)), Ok((_, number))) = (ids.map(parse_ids), at.call.front_end()) {
        at.call.server.notifier.unsubscribe(number, &ids, false);
    }
    Err(redirect(at.call.parts, &url))
}
