//! WebDAV: one file per method. Here a request is let in, its place found, and its method called.
//!
//! RFC 4918 classes 1, 2 and 3, RFC 4331, RFC 6578, and Exchange's SEARCH, SUBSCRIBE, UNSUBSCRIBE and POLL,
//! as `docs/fe-be.md` has them. Not here: Exchange's B-methods (BPROPFIND, BCOPY, …), answered 501.

#![expect(clippy::result_large_err, reason = "an error here is an answer, made once per request")]

mod delete;
mod devices;
mod directory;
mod elsewhere;
mod find;
mod get;
pub mod guard;
mod lock;
mod logon;
mod mail;
mod mkcol;
mod oof;
mod options;
pub mod path;
mod poll;
mod properties;
mod propfind;
mod proppatch;
mod put;
pub mod reply;
mod report;
mod search;
mod settings;
mod submit;
mod subscribe;
mod transfer;
mod unsubscribe;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::change::{Cause, Maker};
use directpush_common::dav::headers;
use directpush_common::names::DeviceKey;
use directpush_common::push::ledger::FrontEndNumber;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;

use crate::auth::front_ends::FrontEnd;
use crate::auth::{Credentials, Principal, Refusal};
use crate::error::Error;
use crate::http::body;
use crate::http::connection::Fragment;
use crate::mailbox::State;
use crate::mailbox::condition::Conditions;
use crate::mailbox::items::{ItemName, Member};
use crate::mailbox::users::Account;
use crate::server::Server;
use path::{Inside, Path, Place, Target};
use reply::Reply;

/// Methods we have, for `Allow`.
pub(crate) const ALLOW: &str = "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, \
                                UNLOCK, REPORT, SEARCH, SUBSCRIBE, UNSUBSCRIBE, POLL";
/// Methods that exist but that we do not have: 405 rather than 501.
const KNOWN: [&str; 5] = ["POST", "PATCH", "TRACE", "CONNECT", "NOTIFY"];
/// Methods that write to a mailbox.
const WRITES: [&str; 8] = ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "PROPPATCH"];
/// Bytes of an XML body, at most.
const XML_BYTES_MAX: u64 = 1024 * 1024;

/// A request that was let in.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Arc<Server>,
    pub(crate) parts: &'a Parts,
    pub(crate) path: Path,
    pub(crate) principal: Principal,
}

/// A request to the own mailbox.
#[derive(Clone)]
pub(crate) struct InMailbox<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) account: Arc<Account>,
    pub(crate) state: Arc<State>,
    pub(crate) inside: Inside,
    pub(crate) target: Target,
}

impl<'a> InMailbox<'a> {
    /// The same request to what is there now.
    pub(crate) async fn anew(&self) -> Result<InMailbox<'a>, Reply> {
        let state = self.call.server.boxes.state(self.account.mailbox).await;
        let state = state.map_err(|error| reply::failure(&error))?;
        let target = path::find(&state, &self.inside);
        Ok(InMailbox { state, target, ..self.clone() })
    }

    /// A member of a folder, if it is there.
    pub(crate) async fn member_if_there(
        &self,
        folder: u64,
        name: &ItemName,
    ) -> Result<Option<Member>, Reply> {
        let found = self.call.server.boxes.member_if_there(&self.state, self.account.mailbox, folder, name);
        found.await.map_err(|error| reply::failure(&error))
    }

    pub(crate) async fn there(&self, folder: u64, name: &ItemName) -> Result<bool, Reply> {
        Ok(self.member_if_there(folder, name).await?.is_some())
    }
}

/// What the access log wants to know beside the request line.
#[derive(Default)]
pub struct Who {
    pub name: Option<String>,
}

impl Call<'_> {
    /// A request header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The conditions of the request.
    pub(crate) fn conditions(&self) -> Conditions {
        let headers = directpush_common::dav::conditions::Conditions::from_headers(|name| self.header(name));
        Conditions { headers, seen: None }
    }

    /// The device that a front end writes for.
    pub(crate) fn device(&self) -> Result<Option<DeviceKey>, Reply> {
        match (&self.principal, self.header(headers::DEVICE)) {
            (Principal::FrontEnd { .. }, Some(device)) => match device.parse() {
                Ok(device) => Ok(Some(device)),
                Err(error) => Err(reply::text(StatusCode::BAD_REQUEST, error)),
            },
            _ => Ok(None),
        }
    }

    /// Who makes the change that this request asks for.
    pub(crate) fn maker(&self) -> Result<Maker, Reply> {
        let cause = match (&self.principal, self.header(headers::CAUSE)) {
            (Principal::FrontEnd { .. }, Some(cause)) => match cause.trim().parse() {
                Ok(cause) => cause,
                Err(error) => return Err(reply::text(StatusCode::BAD_REQUEST, error)),
            },
            _ => Cause::Dav,
        };
        Ok(Maker { device: self.device()?, cause })
    }

    /// The front end that asks; anybody else gets 403.
    pub(crate) fn front_end(&self) -> Result<(&FrontEnd, FrontEndNumber), Reply> {
        match &self.principal {
            Principal::FrontEnd { front_end, number, .. } => Ok((front_end, *number)),
            Principal::User(_) => {
                Err(reply::text(StatusCode::FORBIDDEN, "only front ends subscribe; use POLL of your client"))
            }
        }
    }

    /// The path as it was written, for hrefs.
    pub(crate) fn href(&self) -> &str {
        self.parts.uri.path()
    }
}

/// Headers on which it depends what a request does: lists, and those of which there is one.
const LISTS: [&str; 3] = ["if", "if-match", "if-none-match"];
const SINGLES: [&str; 6] =
    ["destination", "depth", "overwrite", "lock-token", "if-modified-since", "if-unmodified-since"];

/// The same request with each list on one line. One that says twice what it can say once, or says it in what is no
/// text, is refused: what is not understood must not be taken as not said.
fn settle(parts: &Parts) -> Result<Cow<'_, Parts>, Reply> {
    let mut settled = Cow::Borrowed(parts);
    let unclear = |name: &str| reply::text(StatusCode::BAD_REQUEST, format_args!("{name} cannot be read"));
    for name in LISTS.into_iter().chain(SINGLES) {
        let lines: Vec<_> = parts.headers.get_all(name).iter().collect();
        let texts: Option<Vec<&str>> = lines.iter().map(|line| line.to_str().ok()).collect();
        let texts = texts.ok_or_else(|| unclear(name))?;
        if texts.len() > 1 {
            let joined = texts.join(if name == "if" { " " } else { ", " });
            match HeaderValue::from_str(&joined) {
                Ok(value) if LISTS.contains(&name) => {
                    settled.to_mut().headers.insert(name, value);
                }
                _ => return Err(unclear(name)),
            }
        }
    }
    Ok(settled)
}

/// Answers a request. `prove` is told once the asker has proved who they are: whether it is a front end.
pub async fn answer(
    server: &Arc<Server>,
    peer: SocketAddr,
    parts: &Parts,
    incoming: Incoming,
    who: &mut Who,
    prove: &(dyn Fn(bool) + Sync),
) -> Reply {
    let settled = match settle(parts) {
        Ok(settled) => settled,
        Err(reply) => return reply,
    };
    let parts = &*settled;
    let method = parts.method.as_str();
    if method == "OPTIONS" {
        return options::answer();
    }
    if !ALLOW.split(", ").any(|known| known == method) && method != "POST" {
        let status = if KNOWN.contains(&method) {
            StatusCode::METHOD_NOT_ALLOWED
        } else {
            StatusCode::NOT_IMPLEMENTED
        };
        return reply::with(reply::text(status, "no such method here"), header::ALLOW, ALLOW);
    }
    if parts.extensions.get::<Fragment>().is_some() {
        return reply::text(StatusCode::BAD_REQUEST, "the target has a fragment; write # as %23");
    }
    let path = match Path::parse(parts.uri.path()) {
        Ok(path) => path,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, error),
    };
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let (authorization, act_for) = (text("authorization"), text(headers::ACT_FOR));
    let credentials = Credentials { authorization, act_for, shown: parts.extensions.get() };
    if let Some(reply) = elsewhere::answer(server, parts, &path, credentials, who, prove).await {
        return reply;
    }
    let principal = match server.auth.principal(credentials).await {
        Ok(principal) => principal,
        // The end of a Ping is the front end's own business: a user's new password, or a disabled user,
        // must not keep the old subscriptions alive.
        Err(Refusal::Token) if matches!(method, "UNSUBSCRIBE" | "POLL") => {
            match server.auth.principal(Credentials { act_for: None, ..credentials }).await {
                Ok(principal) => principal,
                Err(refusal) => return reply::refusal(&refusal),
            }
        }
        Err(Refusal::Elsewhere(url)) => return elsewhere::redirect(parts, &url),
        Err(refusal) => {
            tracing::debug!(%peer, ?refusal, "a request is not let in");
            return reply::refusal(&refusal);
        }
    };
    prove(matches!(principal, Principal::FrontEnd { .. }));
    who.name = match &principal {
        Principal::FrontEnd { front_end, acting, .. } => {
            Some(acting.as_ref().map_or_else(|| front_end.name.clone(), |account| account.name.to_string()))
        }
        Principal::User(account) => Some(account.name.to_string()),
    };
    if WRITES.contains(&method) {
        // A task of its own: a client that hangs up ends no write half way, and frees no lock under it.
        let (server, parts) = (server.clone(), parts.clone());
        let work = async move {
            let call = Call { server: &server, parts: &parts, path, principal };
            dispatch(&call, parts.method.as_str(), incoming).await
        };
        let done = tokio::spawn(work).await;
        return done.map_or_else(|_| reply::failure(&Error::Task), |(Ok(reply) | Err(reply))| reply);
    }
    let call = Call { server, parts, path, principal };
    match dispatch(&call, method, incoming).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn dispatch(call: &Call<'_>, method: &str, incoming: Incoming) -> Result<Reply, Reply> {
    if method == "POST" {
        return match call.path.place {
            Place::LogOn => logon::answer(call, incoming).await,
            Place::Device => devices::report(call, incoming).await,
            Place::Directory => directory::answer(call, incoming).await,
            _ => Err(reply::with(
                reply::text(StatusCode::METHOD_NOT_ALLOWED, "no POST here"),
                header::ALLOW,
                ALLOW,
            )),
        };
    }
    if method == "POLL" {
        return poll::answer(call);
    }
    let inside = match &call.path.place {
        Place::Root | Place::Exchange => return outside(call, method, incoming).await,
        Place::LogOn | Place::Device | Place::Directory | Place::Nowhere => {
            return Err(reply::text(StatusCode::NOT_FOUND, "nothing is here"));
        }
        Place::Mailbox { user, inside } => match call.principal.account() {
            Some(account) if account.name == *user => inside,
            Some(_) => return Err(reply::text(StatusCode::FORBIDDEN, "not your mailbox")),
            None if matches!(method, "UNSUBSCRIBE") => return unsubscribe::answer(call),
            None => return Err(reply::text(StatusCode::FORBIDDEN, "a front end acts for a user here")),
        },
    };
    if method == "UNSUBSCRIBE" {
        return unsubscribe::answer(call);
    }
    let Some(account) = call.principal.account().cloned() else {
        return Err(reply::text(StatusCode::FORBIDDEN, "a front end acts for a user here"));
    };
    // What every Ping asks, without opening the mailbox: one read.
    if let (Inside::Device(place), true) = (inside, matches!(method, "GET" | "HEAD" | "PUT" | "DELETE")) {
        let standing = devices::knock(call, &account, place).await?;
        let answer = match method {
            "PUT" => put::device(call, &account, place, incoming).await,
            "DELETE" => delete::device(call, &account, place).await,
            _ => get::device(call, &account, place).await,
        };
        let stamped = |reply| devices::stamped(reply, standing);
        return answer.map(stamped).map_err(stamped);
    }
    if let Inside::Submission = inside {
        return match method {
            "PUT" => submit::answer(call, &account, incoming).await,
            _ => Err(reply::with(
                reply::text(StatusCode::METHOD_NOT_ALLOWED, "messages are PUT here"),
                header::ALLOW,
                "OPTIONS, PUT",
            )),
        };
    }
    if let Inside::Settings(object) = inside {
        return settings::answer(call, &account, method, object, incoming).await;
    }
    let boxes = &call.server.boxes;
    let state = boxes.state(account.mailbox).await.map_err(|error| reply::failure(&error))?;
    let target = path::find(&state, inside);
    let at = InMailbox { call, account, state, inside: inside.clone(), target };
    match method {
        "GET" | "HEAD" => get::answer(&at).await,
        "PUT" => put::answer(&at, incoming).await,
        "DELETE" => delete::answer(&at).await,
        "MKCOL" => mkcol::answer(&at, incoming).await,
        "COPY" => transfer::answer(&at, transfer::Verb::Copy).await,
        "MOVE" => transfer::answer(&at, transfer::Verb::Move).await,
        "LOCK" => lock::answer(&at, incoming).await,
        "UNLOCK" => lock::unlock(&at).await,
        "PROPFIND" => propfind::answer(&at, incoming).await,
        "PROPPATCH" => proppatch::answer(&at, incoming).await,
        "SEARCH" => search::answer(&at, incoming).await,
        "REPORT" => report::answer(&at, incoming).await,
        "SUBSCRIBE" => elsewhere::meanwhile(&at, subscribe::answer(&at).await),
        _ => Err(reply::text(StatusCode::NOT_IMPLEMENTED, "no such method here")),
    }
}

/// `/` and `/exchange/`: enough for a client that walks down the path.
async fn outside(call: &Call<'_>, method: &str, incoming: Incoming) -> Result<Reply, Reply> {
    match method {
        "GET" | "HEAD" => Ok(reply::text(StatusCode::OK, "directpush back end")),
        "PROPFIND" => propfind::outside(call, incoming).await,
        _ => Err(reply::text(StatusCode::FORBIDDEN, "nothing can be written here")),
    }
}

/// The XML body of a request, not yet parsed; empty if there is none.
pub(crate) async fn body_bytes(call: &Call<'_>, incoming: Incoming) -> Result<Bytes, Reply> {
    Ok(body::read(call.server, &call.parts.headers, incoming, XML_BYTES_MAX).await?.bytes)
}

/// The XML body of a request, parsed; none if there is no body.
pub(crate) async fn xml_body(
    call: &Call<'_>,
    incoming: Incoming,
) -> Result<Option<directpush_common::dav::xml::Element>, Reply> {
    let bytes = body_bytes(call, incoming).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    directpush_common::dav::xml::parse(&bytes)
        .map(Some)
        .map_err(|error| reply::text(StatusCode::BAD_REQUEST, error))
}

/// A missing target's answer to methods that read.
pub(crate) fn not_found() -> Reply {
    reply::text(StatusCode::NOT_FOUND, "nothing is here")
}
