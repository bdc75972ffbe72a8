//! REPORT `dp:find`: messages by what they say, for a front end or a DAV client.

use std::time::Duration;

use directpush_common::dav::find::Find;
use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::xml::Element;
use tokio::time::Instant;

use super::InMailbox;
use super::path::Target;
use super::reply::{self, Reply};
use crate::mailbox::State;
use crate::mailbox::folders::{JUNK, ROOT};
use crate::mailbox::record::Folder;

/// EAS folder type of Deleted Items.
const DELETED_ITEMS: u8 = 4;

pub(super) async fn answer(at: &InMailbox<'_>, root: &Element) -> Result<Reply, Reply> {
    let find = Find::read(root).map_err(reply::bad)?;
    let (server, mailbox) = (at.call.server, at.account.mailbox);
    let _turn = server.searches.enter(mailbox).map_err(|error| reply::failure(&error))?;
    let folders = folders(&at.state, &at.target, &find);
    let deadline = Instant::now() + Duration::from_secs(find.budget_secs);
    let found = server.boxes.find(&at.state, mailbox, &folders, &find, || Instant::now() >= deadline).await;
    let found = found.map_err(|error| reply::failure(&error))?;
    Ok(reply::multi_status(found.write(&at.account.name)))
}

/// The mail folders that are searched: the named ones, or the one asked; of a whole mailbox all but what was thrown away and
/// what is junk.
fn folders(state: &State, target: &Target, find: &Find) -> Vec<u64> {
    let mail = |folder: &u64| state.tree.folder(*folder).is_some_and(|folder| folder.class == Class::Email);
    let tops = match target {
        _ if !find.folders.is_empty() => {
            let ours = find.folders.iter().filter(|id| id.installation == state.head.installation);
            ours.map(|id| id.counter).collect()
        }
        Target::Folder(folder) => vec![*folder],
        _ => {
            let thrown_away = |folder: &Folder| folder.kind == DELETED_ITEMS;
            let tops =
                state.tree.children(ROOT).filter(|(child, folder)| *child != JUNK && !thrown_away(folder));
            return tops.flat_map(|(top, _)| state.tree.subtree(top)).filter(mail).collect();
        }
    };
    let mut all: Vec<u64> =
        if find.deep { tops.into_iter().flat_map(|top| state.tree.subtree(top)).collect() } else { tops };
    all.sort_unstable();
    all.dedup();
    all.retain(mail);
    all
}
