//! DELETE: members of folders, folders that a user made with all below them, device state.
//!
//! A folder goes whole or not at all: it is out of reach with one commit, whatever it holds. If something
//! below is locked, nothing is deleted and 207 says what (RFC 4918 9.6.1).

use std::sync::Arc;

use directpush_common::dav::locks::Touch;
use directpush_common::dav::request::Depth;
use http::StatusCode;

use super::get::numbered;
use super::guard;
use super::path::{DevicePlace, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox, not_found};
use crate::auth::Principal;
use crate::mailbox::users::Account;

pub(super) async fn answer(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    match &at.target {
        Target::Item { .. } if at.call.path.slash => return Err(not_found()),
        Target::Item { .. } | Target::Folder(_) => {}
        Target::Mailbox | Target::FlatTop | Target::Device(_) => {
            return Err(reply::text(StatusCode::FORBIDDEN, "this stays"));
        }
        Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
    }
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    guard.allow(at, &[(path.clone(), Touch::Tree)], None).await?;
    let conditions = guard.conditions.clone();
    let hierarchy = match &at.target {
        Target::Item { folder, name } => {
            let maker = at.call.maker()?;
            boxes.remove_item(mailbox, *folder, name.clone(), maker, conditions).await.map(|()| None)
        }
        Target::Folder(folder) => {
            // RFC 4918 9.6.1: a collection goes with all that is in it.
            let depth = Depth::parse(at.call.header("depth"), Depth::Infinity).map_err(reply::bad)?;
            if depth != Depth::Infinity {
                return Err(reply::text(StatusCode::BAD_REQUEST, "a folder is deleted with all below it"));
            }
            guard.check_folder()?;
            let removed = boxes.remove_folder(mailbox, *folder, at.call.device()?).await;
            removed.map(|removed| Some(removed.hierarchy))
        }
        _ => return Err(not_found()),
    };
    let hierarchy = hierarchy.map_err(|error| reply::failure(&error))?;
    guard.forget(&path);
    Ok(reply::of_tree(reply::empty(StatusCode::NO_CONTENT), hierarchy))
}

pub(super) async fn device(
    call: &Call<'_>,
    account: &Arc<Account>,
    place: &DevicePlace,
) -> Result<Reply, Reply> {
    if !matches!(call.principal, Principal::FrontEnd { .. }) {
        return Err(reply::text(StatusCode::FORBIDDEN, "only front ends write device state"));
    }
    let DevicePlace::Object(device, object) = place else {
        return Err(reply::text(StatusCode::FORBIDDEN, "this stays"));
    };
    let boxes = &call.server.boxes;
    let conditions = call.conditions();
    let done = boxes.remove_device_object(account.mailbox, device.clone(), object.clone(), conditions).await;
    match done {
        Ok(numbers) => Ok(numbered(reply::empty(StatusCode::NO_CONTENT), numbers)),
        Err(error) => {
            let found = boxes.device_object(account.mailbox, device, object).await;
            let (numbers, _) = found.map_err(|error| reply::failure(&error))?;
            Ok(numbered(reply::failure(&error), numbers))
        }
    }
}
