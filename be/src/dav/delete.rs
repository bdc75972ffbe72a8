//! DELETE: items, folders that a user made, device state.

use std::sync::Arc;

use http::StatusCode;

use super::get::numbered;
use super::path::{DevicePlace, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox, not_found};
use crate::auth::Principal;
use crate::mailbox::users::Account;

pub(super) async fn answer(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    let done = match &at.target {
        Target::Item { folder, name } => {
            let maker = at.call.maker()?;
            boxes.remove_item(mailbox, *folder, name.clone(), maker, at.call.conditions()).await
        }
        Target::Folder(folder) => boxes.remove_folder(mailbox, *folder, at.call.device()?).await,
        Target::Mailbox | Target::FlatTop | Target::Device(_) => {
            return Err(reply::text(StatusCode::FORBIDDEN, "this stays"));
        }
        Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
    };
    done.map_err(|error| reply::failure(&error))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
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
