//! REPORT: `dp:hierarchy` on the mailbox, `D:sync-collection` (RFC 6578) and `dp:walk` on folders.

use directpush_common::dav::hierarchy::{self, Folder, Hierarchy};
use directpush_common::dav::items::ItemsRequest;
use directpush_common::dav::{DAV, DavError, OURS};
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;
use http::StatusCode;
use hyper::body::Incoming;

use super::path::{Target, folder_url};
use super::reply::{self, Reply};
use super::{InMailbox, find, not_found, xml_body};
use crate::mailbox::folders::ROOT;

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let root = xml_body(at.call, incoming).await?;
    let root = root.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "the body is missing"))?;
    let unsupported = || reply::precondition(StatusCode::FORBIDDEN, "supported-report");
    match &at.target {
        Target::Mailbox if root.is(OURS, "hierarchy") => {
            let since = hierarchy::read_request(&root).map_err(bad)?;
            folders(at, since).await
        }
        Target::Mailbox | Target::Folder(_) if root.is(OURS, "find") => find::answer(at, &root).await,
        Target::Folder(folder) if root.is(DAV, "sync-collection") || root.is(OURS, "walk") => {
            let request = match ItemsRequest::read(&root) {
                Err(DavError::Bad("sync-token")) => {
                    return Err(reply::precondition(StatusCode::FORBIDDEN, "valid-sync-token"));
                }
                request => request.map_err(bad)?,
            };
            items(at, *folder, request).await
        }
        Target::Item { folder, name } => {
            at.member_if_there(*folder, name).await?.ok_or_else(not_found)?;
            Err(unsupported())
        }
        Target::Mailbox | Target::Folder(_) | Target::Device(_) | Target::FlatTop => Err(unsupported()),
        Target::Top(_) | Target::NoParent | Target::Nothing => Err(not_found()),
    }
}

fn bad(error: DavError) -> Reply {
    reply::text(StatusCode::BAD_REQUEST, error)
}

async fn folders(at: &InMailbox<'_>, since: Number) -> Result<Reply, Reply> {
    let state = &at.state;
    let changes = at
        .call
        .server
        .boxes
        .tree_changes(state, at.account.mailbox, since.0)
        .await
        .map_err(|error| reply::failure(&error))?;
    let id = |counter| FolderId { installation: state.head.installation, counter };
    let folders = changes.changed.into_iter().filter_map(|counter| {
        let folder = state.tree.folder(counter)?;
        Some(Folder {
            id: id(counter),
            parent: (folder.parent != ROOT).then(|| id(folder.parent)),
            folder_type: folder.kind,
            class: folder.class,
            name: folder.name.clone(),
            created: Number(folder.created),
            changed: Number(folder.moved),
            url: folder_url(&at.account.name, state, counter)?,
        })
    });
    let hierarchy = Hierarchy {
        number: Number(state.head.hierarchy),
        folders: folders.collect(),
        removed: changes.removed.into_iter().map(id).collect(),
    };
    Ok(reply::multi_status(hierarchy.write()))
}

async fn items(at: &InMailbox<'_>, folder: u64, request: ItemsRequest) -> Result<Reply, Reply> {
    let boxes = &at.call.server.boxes;
    let found = boxes
        .report(&at.state, at.account.mailbox, folder, request)
        .await
        .map_err(|error| reply::failure(&error))?;
    let id = FolderId { installation: at.state.head.installation, counter: folder };
    let user = &at.account.name;
    Ok(reply::multi_status(found.write(&id.permanent_url(user), |item| id.item_url(user, item))))
}
