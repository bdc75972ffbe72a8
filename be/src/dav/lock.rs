//! LOCK and UNLOCK (RFC 4918 9.10, 9.11): write locks, exclusive and shared, with time-outs.
//!
//! A LOCK of a name where nothing is makes an empty resource there, which is no item: no phone hears of it.

use bytes::Bytes;
use directpush_common::change::{Cause, Maker};
use directpush_common::dav::conditions::Tags;
use directpush_common::dav::if_header::IfHeader;
use directpush_common::dav::lock_body::{LockInfo, lock_answer};
use directpush_common::dav::locks::{LockLimits, LockRefusal, NewLock, Touch};
use directpush_common::dav::multistatus::{Condition, Multistatus};
use directpush_common::dav::request::{Depth, Timeout, lock_token};
use directpush_common::names::Guid;
use http::{HeaderName, StatusCode};
use hyper::body::Incoming;

use super::guard::{self, Guard};
use super::path::{Target, folder_url};
use super::reply::{self, Reply};
use super::{InMailbox, body_bytes, not_found};
use crate::auth::Principal;
use crate::error::Error;
use crate::mailbox::items::{Content, ItemName};
use crate::mailbox::kind;

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let call = at.call;
    if !matches!(call.principal, Principal::User(_)) {
        return Err(reply::text(StatusCode::FORBIDDEN, "locks are for DAV clients"));
    }
    let body = body_bytes(call, incoming).await?;
    let timeout = Timeout::parse(call.header("timeout"));
    if body.is_empty() {
        return refresh(at, timeout).await;
    }
    let info = LockInfo::parse(&body).map_err(reply::bad)?;
    let depth = Depth::parse(call.header("depth"), Depth::Infinity).map_err(reply::bad)?;
    let infinite = match depth {
        Depth::Zero => false,
        Depth::Infinity => true,
        _ => return Err(reply::text(StatusCode::BAD_REQUEST, "a lock has Depth 0 or infinity")),
    };
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let (mut creates, root) = match &at.target {
        Target::Mailbox => (false, at.account.name.mailbox_url()),
        Target::Folder(folder) => {
            (false, folder_url(&at.account.name, &at.state, *folder).unwrap_or_default())
        }
        Target::Item { folder, name } => {
            let there = at.member_if_there(*folder, name).await?;
            if there.is_none() && matches!(name, ItemName::Id(_)) {
                return Err(not_found());
            }
            (there.is_none(), call.href().to_owned())
        }
        Target::Top(_) => return Err(reply::text(StatusCode::FORBIDDEN, "items live in folders")),
        Target::NoParent => return Err(reply::text(StatusCode::CONFLICT, "the folder does not exist")),
        Target::FlatTop | Target::Device(_) | Target::Nothing => {
            return Err(reply::text(StatusCode::FORBIDDEN, "nothing can be locked here"));
        }
    };
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    let touches = [(path.clone(), Touch::Member)];
    guard.allow(at, if creates { &touches } else { &[] }, None).await?;
    let mut guid = [0; 16];
    getrandom::fill(&mut guid)
        .map_err(|_| reply::text(StatusCode::INTERNAL_SERVER_ERROR, "no random numbers"))?;
    let new = NewLock {
        path: path.clone(),
        root,
        exclusive: info.exclusive,
        infinite,
        owner: info.owner,
        timeout,
        guid: Guid::from_random(guid),
    };
    let made = guard.with_table(|table, now| {
        table.lock(new, LockLimits::default(), now).map(|lock| (lock.token.clone(), lock_answer(lock, now)))
    });
    let (token, xml) = match made {
        Some(Ok(made)) => made,
        Some(Err(refused)) => return Err(refusal(call.href(), refused)),
        None => return Err(not_found()),
    };
    if creates {
        match make(at, &guard).await {
            Ok(()) => {}
            // Mail or a phone's item came to be there meanwhile: that is what is locked.
            Err(Error::Precondition | Error::Taken(_)) if is_taken(at).await? => creates = false,
            Err(error) => {
                guard.with_table(|table, now| table.unlock(&path, &token, now));
                return Err(reply::failure(&error));
            }
        }
    }
    let status = if creates { StatusCode::CREATED } else { StatusCode::OK };
    let reply = reply::body(status, "text/xml; charset=\"utf-8\"", xml);
    Ok(reply::with(reply, HeaderName::from_static("lock-token"), &format!("<{token}>")))
}

/// Whether something has this name now.
async fn is_taken(at: &InMailbox<'_>) -> Result<bool, Reply> {
    let at = at.anew().await?;
    match &at.target {
        Target::Item { folder, name } => at.there(*folder, name).await,
        target => Ok(matches!(target, Target::Folder(_))),
    }
}

/// The empty resource of a lock where nothing was (RFC 4918 7.3); nothing that is there is replaced by it.
async fn make(at: &InMailbox<'_>, guard: &Guard) -> Result<(), Error> {
    let Target::Item { folder, name: ItemName::Name(name) } = &at.target else { return Ok(()) };
    let boxes = &at.call.server.boxes;
    let body = boxes.store.bodies.put(Bytes::new()).await?;
    let (kind, content_type) = kind::classify(name, None, b"");
    let content = Content { body, size: 0, content_type, kind };
    let name = ItemName::Name(name.clone());
    let maker = Maker::of(Cause::Dav);
    let mut conditions = guard.conditions.clone();
    conditions.headers.if_none_match = Some(Tags::Any);
    let put = boxes.put(at.account.mailbox, *folder, name, content, maker, conditions).await;
    put.map(drop).inspect_err(|_| boxes.body_dropped(body))
}

fn refusal(href: &str, refused: LockRefusal) -> Reply {
    match refused {
        LockRefusal::Conflict(roots) => {
            reply::condition(Condition::NoConflictingLock, roots.iter().map(String::as_str))
        }
        LockRefusal::Members(roots) => {
            let mut out = Multistatus::default();
            for root in &roots {
                out.status(root, 423, Some((Condition::NoConflictingLock, std::slice::from_ref(root))));
            }
            out.status(href, 424, None);
            reply::multi_status(out.finish())
        }
        LockRefusal::TooMany => reply::busy(),
    }
}

/// LOCK without a body: the lock named by `If` begins anew (RFC 4918 9.10.2).
async fn refresh(at: &InMailbox<'_>, timeout: Option<Timeout>) -> Result<Reply, Reply> {
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    guard.allow(at, &[], None).await?;
    let header = at.call.header("if").map(IfHeader::parse).transpose().map_err(reply::bad)?;
    let header =
        header.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "which lock is to be refreshed?"))?;
    let refreshed = guard.with_table(|table, now| {
        header.tokens().into_iter().find_map(|token| {
            let lock = table.refresh(&path, token, timeout, LockLimits::default(), now).ok()?;
            Some(lock_answer(lock, now))
        })
    });
    let Some(xml) = refreshed.flatten() else {
        let reply = reply::condition(Condition::LockTokenMatchesRequestUri, []);
        return Err(reply::with_status(reply, StatusCode::PRECONDITION_FAILED));
    };
    Ok(reply::body(StatusCode::OK, "text/xml; charset=\"utf-8\"", xml))
}

pub(super) async fn unlock(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    let header = at.call.header("lock-token");
    let header = header.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Lock-Token is missing"))?;
    let token = lock_token(header).map_err(reply::bad)?;
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    guard.allow(at, &[], None).await?;
    match guard.with_table(|table, now| table.unlock(&path, token, now)) {
        Some(Ok(())) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        _ => Err(reply::condition(Condition::LockTokenMatchesRequestUri, [])),
    }
}
