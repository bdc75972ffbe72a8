//! PUT: anything into a folder, or a device's state object. What is an item of the folder's class is one,
//! and wakes phones; anything else is just kept.
//!
//! The body is durable before the commit that names it. If the commit is not made, the body has no
//! use and is collected.

use std::sync::Arc;

use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::locks::{LockPath, Touch};
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::get::numbered;
use super::path::{DevicePlace, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox, guard};
use crate::auth::Principal;
use crate::error::Error;
use crate::http::body;
use crate::mailbox::Mailboxes;
use crate::mailbox::items::{Content, ItemName, Member, etag, implied_name};
use crate::mailbox::kind::{self, Kind};
use crate::mailbox::quota::Exceeded;
use crate::mailbox::state::{OBJECT_NAME_MAX, STATE_BYTES_MAX};
use crate::mailbox::users::Account;
use crate::store::BodyId;

/// A body that is durable and, until a commit names it, without a use.
struct Stored<'a> {
    boxes: &'a Mailboxes,
    body: BodyId,
    used: bool,
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.boxes.body_dropped(self.body);
        }
    }
}

/// The folder, and the name in it.
fn place(at: &InMailbox<'_>) -> Result<(u64, ItemName), Reply> {
    match &at.target {
        Target::Item { folder, name } if !at.call.path.slash => Ok((*folder, name.clone())),
        Target::NoParent => Err(reply::text(StatusCode::CONFLICT, "the folder does not exist")),
        Target::Top(_) => Err(reply::text(StatusCode::FORBIDDEN, "items live in folders")),
        Target::Mailbox | Target::Folder(_) | Target::FlatTop | Target::Item { .. } => {
            Err(reply::text(StatusCode::METHOD_NOT_ALLOWED, "a folder cannot be PUT"))
        }
        Target::Device(_) | Target::Nothing => {
            Err(reply::text(StatusCode::FORBIDDEN, "nothing can be written here"))
        }
    }
}

async fn touch(at: &InMailbox<'_>, there: bool) -> Result<[(LockPath, Touch); 1], Reply> {
    let touch = if there { Touch::Resource } else { Touch::Member };
    Ok([(guard::lock_path(at, &at.target, &at.inside).await?, touch)])
}

/// Refuses what would be refused in the end, before the disk is bothered; the commit decides.
async fn check(at: &InMailbox<'_>, found: Option<&Member>, size: u64) -> Result<(), Reply> {
    guard::look(at, &touch(at, found.is_some()).await?).await?;
    let tag = found.map(|member| (etag(at.state.head.epoch, member.item.changed), member.item.modified));
    let checked = at.call.conditions().check(tag.as_ref().map(|(tag, modified)| (tag.as_str(), *modified)));
    checked.map_err(|error| reply::failure(&error))?;
    let room = at.state.quota(&at.call.server.boxes).available_bytes(&at.state.tree.usage());
    let freed = found.map_or(0, |member| member.item.size);
    if room.is_some_and(|room| size > room.saturating_add(freed)) {
        return Err(reply::failure(&Error::Quota(Exceeded::Bytes)));
    }
    Ok(())
}

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    place(at)?;
    let call = at.call;
    let maker = call.maker()?;
    if call.parts.headers.contains_key(header::CONTENT_RANGE) {
        return Err(reply::text(StatusCode::BAD_REQUEST, "a partial PUT is not taken"));
    }
    let limit = call.server.config.limits.mail_bytes_max;
    let read = body::read(call.server, &call.parts.headers, incoming, limit).await?;
    let boxes = &call.server.boxes;
    let size = read.bytes.len() as u64;
    let at = at.anew().await?;
    let (folder, name) = place(&at)?;
    let found = at.member_if_there(folder, &name).await?;
    check(&at, found.as_ref(), size).await?;
    let said = call.header(header::CONTENT_TYPE.as_str());
    let (kind, content_type) = match &call.principal {
        // A front end knows what it writes: an item of the folder.
        Principal::FrontEnd { .. } => {
            let class = at.state.tree.folder(folder).map_or(Class::Email, |folder| folder.class);
            (Kind::of_class(class), content_type(said, class))
        }
        Principal::User(_) => match (&name, found.map(|member| member.item)) {
            (ItemName::Name(name), _) => kind::classify(name, said, &read.bytes),
            // By its id: what it is called, and what it was, say what it is.
            (ItemName::Id(id), item) => {
                let kept = item.as_ref().map(|item| item.content_type.clone());
                let own = item.and_then(|item| item.name);
                let name = own.unwrap_or_else(|| implied_name(at.state.head.installation, *id));
                kind::classify(&name, said.or(kept.as_deref()), &read.bytes)
            }
        },
    };
    let body::Read { bytes, place: memory } = read;
    let body = boxes.store.bodies.put(bytes).await.map_err(|error| reply::failure(&error.into()))?;
    let mut stored = Stored { boxes, body, used: false };
    // What waits for its turn waits without its body.
    drop(memory);
    let (mut guard, at) = guard::enter(&at).await?;
    let (folder, name) = place(&at)?;
    let there = at.there(folder, &name).await?;
    guard.allow(&at, &touch(&at, there).await?, None).await?;
    let content = Content { body, size, content_type, kind };
    let conditions = guard.conditions.clone();
    let put = boxes.put(at.account.mailbox, folder, name, content, maker, conditions).await;
    let written = put.map_err(|error| reply::failure(&error))?;
    stored.used = true;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(reply::with(reply::empty(status), header::ETAG, &written.etag()))
}

fn content_type(said: Option<&str>, class: Class) -> String {
    let default = match class {
        Class::Email => "message/rfc822",
        Class::Calendar | Class::Tasks => "text/calendar; charset=utf-8",
        Class::Contacts => "text/vcard; charset=utf-8",
        Class::Notes => "text/plain; charset=utf-8",
    };
    said.filter(|said| said.len() <= 128).unwrap_or(default).to_owned()
}

/// Only front ends write device state: a phone's owner must not be able to undo a policy.
pub(super) async fn device(
    call: &Call<'_>,
    account: &Arc<Account>,
    place: &DevicePlace,
    incoming: Incoming,
) -> Result<Reply, Reply> {
    if !matches!(call.principal, Principal::FrontEnd { .. }) {
        return Err(reply::text(StatusCode::FORBIDDEN, "only front ends write device state"));
    }
    let DevicePlace::Object(device, object) = place else {
        return Err(reply::text(StatusCode::METHOD_NOT_ALLOWED, "a folder cannot be PUT"));
    };
    if object.len() > OBJECT_NAME_MAX {
        return Err(reply::text(StatusCode::BAD_REQUEST, "the name is too long"));
    }
    let read = body::read(call.server, &call.parts.headers, incoming, STATE_BYTES_MAX as u64).await?;
    let content_type = call.header(header::CONTENT_TYPE.as_str()).filter(|said| said.len() <= 128);
    let content_type = content_type
        .unwrap_or(if object == "AutdState.xml" { "text/xml" } else { "application/octet-stream" })
        .to_owned();
    let boxes = &call.server.boxes;
    let written = boxes
        .put_device_object(
            account.mailbox,
            device.clone(),
            object.clone(),
            content_type,
            read.bytes.to_vec(),
            call.conditions(),
        )
        .await;
    match written {
        Ok((object, created, numbers)) => {
            let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
            let reply = reply::with(reply::empty(status), header::ETAG, &object.etag());
            Ok(numbered(reply, numbers))
        }
        Err(error @ Error::Precondition) => {
            let found = boxes.device_object(account.mailbox, device, object).await;
            let (numbers, _) = found.map_err(|error| reply::failure(&error))?;
            Ok(numbered(reply::failure(&error), numbers))
        }
        Err(error) => Err(reply::failure(&error)),
    }
}
