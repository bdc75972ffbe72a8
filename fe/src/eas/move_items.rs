//! MoveItems ([MS-ASCMD] 2.2.1.12 MoveItems): items into other folders, each with its own answer, in the request's order.
//!
//! An item has a new id where it goes. The device's next Sync of both folders tells it so, as the specification has it; and
//! unlike what the device does within Sync, a move wakes it.

use std::collections::HashSet;
use std::sync::Arc;

use directpush_common::dav::hierarchy::{Folder, Hierarchy};
use directpush_common::eas::move_items::{
    MOVES_MAX, Move, MoveItemsRequest, MoveItemsResponse, MoveItemsStatus, Moved,
};
use directpush_common::names::{FolderId, ItemId};
use directpush_common::wbxml::Limits;
use tokio::task::JoinSet;

use super::{Reaction, Request, folders, item};
use crate::backend::items::Place;
use crate::backend::{Error, Result};

/// Moves of one request under way at once: the back end writes them together.
const AT_ONCE_MAX: usize = 8;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`], when nothing was moved.
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match MoveItemsRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    if asked.moves.len() > MOVES_MAX {
        let response = MoveItemsResponse::Failed(MoveItemsStatus::CannotMove);
        return Ok(Reaction::Body(response.encode(), "St5".to_owned()));
    }
    let all = item::folders(request).await?;
    let mut moved: Vec<Option<Moved>> = vec![None; asked.moves.len()];
    let mut orders = Vec::new();
    let mut named = HashSet::new();
    for (at, wanted) in asked.moves.iter().enumerate() {
        // The second of two moves of an item has nothing to move.
        let order =
            if named.insert(&wanted.item) { order(&all, wanted) } else { Err(MoveItemsStatus::CannotMove) };
        match order {
            Ok((place, to)) => orders.push((at, place, to)),
            Err(status) => moved[at] = Some(said(wanted, status, None)),
        }
    }
    for (at, outcome) in carry_out(request, orders).await? {
        let wanted = &asked.moves[at];
        moved[at] = Some(match outcome {
            Ok(Some((folder, item))) => {
                said(wanted, MoveItemsStatus::Success, Some(format!("{:x}:{item}", folder.counter)))
            }
            Ok(None) => said(wanted, MoveItemsStatus::InvalidSource, None),
            Err(error) => said(wanted, of_error(&error), None),
        });
    }
    let moved = moved.into_iter().zip(&asked.moves);
    let moved: Vec<Moved> = moved
        .map(|(moved, wanted)| moved.unwrap_or_else(|| said(wanted, MoveItemsStatus::Locked, None)))
        .collect();
    let done = moved.iter().filter(|moved| moved.status == MoveItemsStatus::Success).count();
    let note = format!("Fc{}_Moved{done}", moved.len());
    Ok(Reaction::Body(MoveItemsResponse::Moved(moved).encode(), note))
}

fn said(wanted: &Move, status: MoveItemsStatus, moved_to: Option<String>) -> Moved {
    Moved { item: wanted.item.clone(), status, moved_to }
}

/// From where and to where, if the folders are such that it can be done.
fn order(all: &Hierarchy, wanted: &Move) -> std::result::Result<(Place, FolderId), MoveItemsStatus> {
    let (from, item) = source(all, wanted).ok_or(MoveItemsStatus::InvalidSource)?;
    let to = folders::find(all, &wanted.to).ok_or(MoveItemsStatus::InvalidDestination)?;
    if from.id == to.id {
        return Err(MoveItemsStatus::SameFolder);
    }
    if from.class != to.class {
        return Err(MoveItemsStatus::CannotMove);
    }
    Ok((Place { folder: from.id, item }, to.id))
}

/// The folder that a move begins in and the item, which must be there by its own id.
fn source<'a>(all: &'a Hierarchy, wanted: &Move) -> Option<(&'a Folder, ItemId)> {
    let folder = folders::find(all, &wanted.from)?;
    item::find(all, &wanted.item)
        .filter(|(found, _)| found.id == folder.id)
        .map(|(_, place)| (folder, place.item))
}

type Outcome = Result<Option<(FolderId, ItemId)>>;

/// Moves, some at a time. An error is one of the whole when nothing was moved before it.
async fn carry_out(
    request: &Request,
    orders: Vec<(usize, Place, FolderId)>,
) -> Result<Vec<(usize, Outcome)>> {
    let mut outcomes = Vec::with_capacity(orders.len());
    let mut under_way: JoinSet<(usize, Outcome)> = JoinSet::new();
    for (at, place, to) in orders {
        if under_way.len() >= AT_ONCE_MAX {
            outcomes.extend(under_way.join_next().await.and_then(std::result::Result::ok));
        }
        let (backend, session) = (Arc::clone(request.backend()), Arc::clone(&request.session));
        under_way.spawn(async move {
            let moved = backend.item_move_told(&session, place, to).await;
            (at, moved.map(|item| item.map(|item| (to, item))))
        });
    }
    while let Some(outcome) = under_way.join_next().await {
        outcomes.extend(outcome);
    }
    let moved = outcomes.iter().any(|(_, outcome)| matches!(outcome, Ok(Some(_))));
    let of_the_whole = |outcome: &Outcome| matches!(outcome, Err(error) if is_of_the_whole(error));
    if !moved
        && let Some(failed) = outcomes.iter().position(|(_, outcome)| of_the_whole(outcome))
        && let (_, Err(error)) = outcomes.swap_remove(failed)
    {
        return Err(error);
    }
    Ok(outcomes)
}

/// Whether the other moves fail for the same reason.
fn is_of_the_whole(error: &Error) -> bool {
    error.is_silence() || matches!(error, Error::Credential | Error::Moved { .. } | Error::Busy { .. })
}

fn of_error(error: &Error) -> MoveItemsStatus {
    match error.status().map(|status| status.as_u16()) {
        // The folder was removed since it was looked for.
        Some(409) => MoveItemsStatus::InvalidDestination,
        Some(403 | 412 | 507) => MoveItemsStatus::CannotMove,
        _ => MoveItemsStatus::Locked,
    }
}
