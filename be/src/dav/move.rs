//! MOVE: an item to another folder or name, a folder to another place or name.
//!
//! A permanent folder URL as `Destination` means "into it, under the name it has"; that is how a front
//! end moves. The item's new permanent URL is the answer's `Location`.

use directpush_common::names::{FolderId, ItemId};
use directpush_common::numbers::Number;
use http::{StatusCode, Uri, header};

use super::path::{self, Inside, Path, Place, Target};
use super::reply::{self, Reply};
use super::{InMailbox, not_found};
use crate::auth::Principal;
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{ItemName, MoveTo};

pub(super) async fn answer(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    let call = at.call;
    let (inside, to) = destination(at)?;
    let overwrite = call.header("overwrite").is_none_or(|value| !value.trim().eq_ignore_ascii_case("F"));
    let boxes = &call.server.boxes;
    let mailbox = at.account.mailbox;
    match &at.target {
        Target::Item { folder, name } => {
            let permanent = matches!(inside, Inside::Permanent { .. });
            let to = match to {
                Target::Folder(folder) if permanent => MoveTo { folder, name: None, overwrite },
                Target::Item { folder, name: ItemName::Name(name) } => {
                    MoveTo { folder, name: Some(name), overwrite }
                }
                Target::Top(_) => {
                    return Err(reply::text(StatusCode::FORBIDDEN, "items live in folders"));
                }
                Target::NoParent => {
                    return Err(reply::text(StatusCode::CONFLICT, "the destination's folder does not exist"));
                }
                _ => return Err(reply::text(StatusCode::FORBIDDEN, "nothing can be moved there")),
            };
            let maker = call.maker()?;
            let moved = boxes
                .move_item(mailbox, *folder, name.clone(), to, maker, call.conditions())
                .await
                .map_err(|error| reply::failure(&error))?;
            let installation = at.state.head.installation;
            let url = FolderId { installation, counter: moved.folder }
                .item_url(&at.account.name, ItemId(Number(moved.id)));
            let status = if moved.created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
            let reply = reply::with(reply::empty(status), header::LOCATION, &url);
            Ok(reply::with(reply, header::ETAG, &moved.etag()))
        }
        Target::Folder(folder) => {
            let (parent, name) = match to {
                Target::Top(name) => (ROOT, name),
                Target::Item { folder, name: ItemName::Name(name) } => (folder, name),
                // The same place by another case of its name: that is a rename too.
                Target::Folder(same) if same == *folder => match inside {
                    Inside::Names(mut names) => {
                        let parent = at.state.tree.folder(same).map_or(ROOT, |folder| folder.parent);
                        (parent, names.pop().unwrap_or_default())
                    }
                    _ => return Err(reply::text(StatusCode::FORBIDDEN, "it is there already")),
                },
                Target::Folder(_) | Target::Mailbox => {
                    return Err(reply::text(StatusCode::PRECONDITION_FAILED, "a folder is there already"));
                }
                Target::NoParent => {
                    return Err(reply::text(StatusCode::CONFLICT, "the folder above does not exist"));
                }
                _ => return Err(reply::text(StatusCode::FORBIDDEN, "nothing can be moved there")),
            };
            boxes
                .move_folder(mailbox, *folder, parent, name, call.device()?)
                .await
                .map_err(|error| reply::failure(&error))?;
            Ok(reply::empty(StatusCode::CREATED))
        }
        Target::Mailbox | Target::FlatTop | Target::Device(_) => {
            Err(reply::text(StatusCode::FORBIDDEN, "this stays"))
        }
        Target::Top(_) | Target::NoParent | Target::Nothing => Err(not_found()),
    }
}

/// Where it goes: a place in the same mailbox of this server.
fn destination(at: &InMailbox<'_>) -> Result<(Inside, Target), Reply> {
    let header = at.call.header("destination");
    let header = header.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Destination is missing"))?;
    let bad = || reply::text(StatusCode::BAD_REQUEST, "Destination is not one of our URLs");
    let uri: Uri = header.trim().parse().map_err(|_| bad())?;
    // A front end knows by which name it reaches us; a person's client must mean this server.
    if let (Some(there), Some(host), Principal::User(_)) =
        (uri.authority(), at.call.header(header::HOST.as_str()), &at.call.principal)
        && !plain(there.as_str()).eq_ignore_ascii_case(plain(host))
    {
        return Err(reply::text(StatusCode::BAD_GATEWAY, "Destination is on another server"));
    }
    let path = Path::parse(uri.path()).map_err(|_| bad())?;
    match path.place {
        Place::Mailbox { user, inside } if user == at.account.name => {
            let target = path::find(&at.state, &inside);
            Ok((inside, target))
        }
        Place::Mailbox { .. } => Err(reply::text(StatusCode::FORBIDDEN, "not your mailbox")),
        _ => Err(reply::text(StatusCode::FORBIDDEN, "nothing can be moved there")),
    }
}

/// A host without the port that goes without saying.
fn plain(authority: &str) -> &str {
    authority.strip_suffix(":80").unwrap_or(authority)
}
