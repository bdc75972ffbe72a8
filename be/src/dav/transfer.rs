//! COPY and MOVE (RFC 4918 9.8, 9.9): a member to another folder or name, a folder to another place or name.
//!
//! A permanent folder URL as `Destination` of a member means "into it, under the name it has"; that is how a
//! front end moves. Nothing is overwritten then: an item whose name is taken gets another one. A member's new
//! permanent URL is the answer's `Location`.

use directpush_common::dav::locks::{LockPath, Touch};
use directpush_common::dav::multistatus::Multistatus;
use directpush_common::dav::request::{Depth, UriError, overwrite, uri_path};
use directpush_common::names::{FolderId, ItemId, encode_segment};
use directpush_common::numbers::Number;
use http::{StatusCode, header};

use super::guard::{self, Guard};
use super::path::{self, Inside, Path, Place, Target};
use super::reply::{self, Reply};
use super::{InMailbox, not_found};
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{ItemName, implied_name};
pub(super) use crate::mailbox::transfer::Verb;
use crate::mailbox::transfer::{By, From, To};

pub(super) async fn answer(at: &InMailbox<'_>, verb: Verb) -> Result<Reply, Reply> {
    let call = at.call;
    let (guard, at) = guard::enter(at).await?;
    let at = &at;
    let destination = destination(at)?;
    let overwrite = overwrite(call.header("overwrite")).map_err(reply::bad)?;
    let depth = Depth::parse(call.header("depth"), Depth::Infinity).map_err(reply::bad)?;
    let by = By { maker: call.maker()?, device: call.device()? };
    match &at.target {
        Target::Item { folder, name } => {
            if at.call.path.slash {
                return Err(not_found());
            }
            member(at, guard, verb, (*folder, name), destination, overwrite, by).await
        }
        Target::Folder(folder) => {
            let deep = match (verb, depth) {
                (_, Depth::Infinity) => true,
                (Verb::Copy, Depth::Zero) => false,
                _ => return Err(reply::text(StatusCode::BAD_REQUEST, "no such Depth here")),
            };
            folder_to(at, guard, verb, (*folder, deep), destination, overwrite, by).await
        }
        Target::Mailbox | Target::FlatTop | Target::Device(_) => {
            Err(reply::text(StatusCode::FORBIDDEN, "this stays"))
        }
        Target::Top(_) | Target::NoParent | Target::Nothing => Err(not_found()),
    }
}

struct Destination {
    inside: Inside,
    target: Target,
    href: String,
}

/// Where it goes: a place in the same mailbox of this server.
fn destination(at: &InMailbox<'_>) -> Result<Destination, Reply> {
    let header = at.call.header("destination");
    let header = header.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Destination is missing"))?;
    let href = uri_path(header, guard::authority(at.call)).map_err(|error| {
        let status = match error {
            UriError::Elsewhere => StatusCode::BAD_GATEWAY,
            UriError::Form => StatusCode::BAD_REQUEST,
        };
        reply::text(status, format_args!("Destination: {error}"))
    })?;
    let path = Path::parse(href).map_err(reply::bad)?;
    match path.place {
        Place::Mailbox { user, inside } if user == at.account.name => {
            let target = path::find(&at.state, &inside);
            Ok(Destination { inside, target, href: href.to_owned() })
        }
        Place::Mailbox { .. } => Err(reply::text(StatusCode::FORBIDDEN, "not your mailbox")),
        _ => Err(reply::text(StatusCode::FORBIDDEN, "nothing can be put there")),
    }
}

/// Folder and name at the destination, whether something is there or not.
fn place(at: &InMailbox<'_>, to: &Destination) -> Result<(u64, String), Reply> {
    match (&to.target, &to.inside) {
        (Target::Top(name), _) => Ok((ROOT, name.clone())),
        (Target::Item { folder, name: ItemName::Name(name) }, _) => Ok((*folder, name.clone())),
        // A folder is there: it is to be overwritten, or is the source by another case of its name.
        (Target::Folder(folder), Inside::Names(names)) => {
            let parent = at.state.tree.folder(*folder).map_or(ROOT, |folder| folder.parent);
            Ok((parent, names.last().cloned().unwrap_or_default()))
        }
        (Target::Folder(folder), Inside::Below { name, .. }) => {
            let parent = at.state.tree.folder(*folder).map_or(ROOT, |folder| folder.parent);
            Ok((parent, name.clone()))
        }
        (Target::NoParent, _) => {
            Err(reply::text(StatusCode::CONFLICT, "the folder of the destination does not exist"))
        }
        _ => Err(reply::text(StatusCode::FORBIDDEN, "nothing can be put there")),
    }
}

/// The locks that bind: on what goes away, and on where it appears.
async fn touches(
    at: &InMailbox<'_>,
    verb: Verb,
    to: &LockPath,
) -> Result<(LockPath, Vec<(LockPath, Touch)>), Reply> {
    let from = guard::lock_path(at, &at.target, &at.inside).await?;
    let mut touches = vec![(to.clone(), Touch::Tree)];
    if verb == Verb::Move {
        touches.push((from.clone(), Touch::Tree));
    }
    Ok((from, touches))
}

async fn member(
    at: &InMailbox<'_>,
    mut guard: Guard,
    verb: Verb,
    (folder, name): (u64, &ItemName),
    destination: Destination,
    overwrite: bool,
    by: By,
) -> Result<Reply, Reply> {
    let permanent = matches!(destination.inside, Inside::Permanent { .. });
    let destination_is_folder = !permanent && matches!(destination.target, Target::Folder(_));
    let (mut to, to_path) = match destination.target {
        Target::Folder(into) if permanent => {
            let own = match at.member_if_there(folder, name).await? {
                Some(member) => {
                    let installation = at.state.head.installation;
                    member.item.name.unwrap_or_else(|| implied_name(installation, member.id))
                }
                None => return Err(not_found()),
            };
            let there = Target::Item { folder: into, name: ItemName::Name(own) };
            let path = guard::lock_path(at, &there, &destination.inside).await?;
            (To { folder: into, name: None, overwrite: false, seen: None }, path)
        }
        _ => {
            let (into, name) = place(at, &destination)?;
            if into == ROOT {
                return Err(reply::text(StatusCode::FORBIDDEN, "items live in folders"));
            }
            let path = guard::lock_path(at, &destination.target, &destination.inside).await?;
            (To { folder: into, name: Some(name), overwrite, seen: None }, path)
        }
    };
    let (from, touches) = touches(at, verb, &to_path).await?;
    guard.allow(at, &touches, Some(&to_path)).await?;
    if !permanent {
        to.seen = guard.seen_there.clone();
    }
    let (boxes, mailbox) = (&at.call.server.boxes, at.account.mailbox);
    let source = From { folder, name: name.clone(), conditions: guard.conditions.clone() };
    let done = boxes.transfer_member(mailbox, source, to, by, verb).await;
    let done = done.map_err(|error| reply::failure(&error))?;
    if verb == Verb::Move && from != to_path {
        guard.forget(&from);
    }
    if !done.created && (verb == Verb::Move || destination_is_folder) && from != to_path {
        guard.forget(&to_path);
    }
    let installation = at.state.head.installation;
    let url =
        FolderId { installation, counter: done.folder }.item_url(&at.account.name, ItemId(Number(done.id)));
    let status = if done.created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    let reply = reply::with(reply::empty(status), header::LOCATION, &url);
    Ok(reply::with(reply, header::ETAG, &done.etag()))
}

async fn folder_to(
    at: &InMailbox<'_>,
    mut guard: Guard,
    verb: Verb,
    (folder, deep): (u64, bool),
    destination: Destination,
    overwrite: bool,
    by: By,
) -> Result<Reply, Reply> {
    let (parent, name) = place(at, &destination)?;
    let to_path = guard::lock_path(at, &destination.target, &destination.inside).await?;
    let (from, touches) = touches(at, verb, &to_path).await?;
    guard.allow(at, &touches, Some(&to_path)).await?;
    guard.check_folder()?;
    let to = To { folder: parent, name: Some(name), overwrite, seen: guard.seen_there.clone() };
    let (boxes, mailbox) = (&at.call.server.boxes, at.account.mailbox);
    let failure = |error| reply::failure(&error);
    let (created, failed, hierarchy) = match verb {
        Verb::Move => {
            let moved = boxes.move_folder(mailbox, folder, to, by).await.map_err(failure)?;
            (moved.created, None, Some(moved.hierarchy))
        }
        Verb::Copy => {
            let copied = boxes.copy_folder(mailbox, folder, to, deep, by).await.map_err(failure)?;
            (copied.created, copied.failed, None)
        }
    };
    if verb == Verb::Move && from != to_path {
        guard.forget(&from);
    }
    if !created && from != to_path {
        // MOVE deletes what is there first, and its locks end (RFC 4918 9.9.3, 9.6); a collection that COPY
        // writes over stays what it is, with other members (9.8.4).
        match (verb, &destination.target) {
            (Verb::Copy, Target::Folder(_)) => guard.forget_below(&to_path),
            _ => guard.forget(&to_path),
        }
    }
    if let Some((below, error)) = failed {
        let mut href = destination.href.trim_end_matches('/').to_owned() + "/";
        for name in below {
            href.push_str(&encode_segment(&name));
            href.push('/');
        }
        let mut out = Multistatus::default();
        out.status(&href, reply::failure(&error).status().as_u16(), None);
        return Ok(reply::multi_status(out.finish()));
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(reply::of_tree(reply::empty(status), hierarchy))
}
