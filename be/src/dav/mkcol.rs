//! MKCOL (RFC 4918 9.3): makes a folder; its class is that of the folder it lies in, unless a front end says
//! otherwise.

use directpush_common::dav::headers;
use directpush_common::dav::locks::Touch;
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::path::{NAME_BYTES_MAX, Target};
use super::reply::{self, Reply};
use super::{InMailbox, guard};
use crate::auth::Principal;
use crate::error::Error;
use crate::http::body;
use crate::mailbox::folders::{OwnType, ROOT};
use crate::mailbox::items::ItemName;

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let read = body::read(at.call.server, &at.call.parts.headers, incoming, NAME_BYTES_MAX as u64).await?;
    if !read.bytes.is_empty() {
        return Err(reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "MKCOL takes no body"));
    }
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let (parent, name) = match &at.target {
        Target::Top(name) => (ROOT, name.clone()),
        Target::Item { folder, name: ItemName::Name(name) } => (*folder, name.clone()),
        Target::NoParent => return Err(reply::text(StatusCode::CONFLICT, "the folder above does not exist")),
        Target::Mailbox | Target::Folder(_) | Target::FlatTop => {
            return Err(reply::text(StatusCode::METHOD_NOT_ALLOWED, "it exists"));
        }
        Target::Item { .. } | Target::Device(_) | Target::Nothing => {
            return Err(reply::text(StatusCode::FORBIDDEN, "no folder can be made here"));
        }
    };
    let kind = match (&at.call.principal, at.call.header(headers::FOLDER_TYPE)) {
        (Principal::FrontEnd { .. }, Some(code)) => {
            let kind = code.trim().parse().ok().and_then(OwnType::from_code);
            Some(kind.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "no folder of this type is made"))?)
        }
        _ => None,
    };
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    guard.allow(at, &[(path, Touch::Member)], None).await?;
    guard.conditions.check(None).map_err(|error| reply::failure(&error))?;
    let boxes = &at.call.server.boxes;
    let made = boxes.make_folder(at.account.mailbox, parent, name, kind, at.call.device()?).await;
    let made = made.map_err(|error| match error {
        // A name that was taken meanwhile, or by an item: RFC 4918 9.3.1.
        Error::Taken(_) => reply::text(StatusCode::METHOD_NOT_ALLOWED, error),
        error => reply::failure(&error),
    })?;
    let id =
        directpush_common::names::FolderId { installation: at.state.head.installation, counter: made.folder };
    let location = id.permanent_url(&at.account.name);
    let reply = reply::with(reply::empty(StatusCode::CREATED), header::CONTENT_LOCATION, &location);
    Ok(reply::of_tree(reply, Some(made.hierarchy)))
}
