//! GET and HEAD: items, device state, and a plain listing of a folder.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::dav::headers;
use http::{HeaderName, StatusCode, header};

use super::path::{DevicePlace, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox, not_found};
use crate::http::body;
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{etag, implied_name};
use crate::mailbox::state::DeviceNumbers;
use crate::mailbox::users::Account;
use crate::store::BodyId;

/// Items that a folder's listing names.
const LISTED_MAX: usize = 100;

pub(super) async fn answer(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    match &at.target {
        Target::Mailbox | Target::Folder(_) | Target::FlatTop | Target::Device(_) if !at.call.path.slash => {
            let to = format!("{}/", at.call.href());
            Ok(reply::with(reply::empty(StatusCode::FOUND), header::LOCATION, &to))
        }
        Target::Mailbox => Ok(listing(at, ROOT, Vec::new())),
        Target::Folder(folder) => {
            let boxes = &at.call.server.boxes;
            let items = boxes
                .newest(at.account.mailbox, *folder, 0, LISTED_MAX)
                .await
                .map_err(|error| reply::failure(&error))?;
            let installation = at.state.head.installation;
            let names = items
                .into_iter()
                .map(|(id, item)| item.name.unwrap_or_else(|| implied_name(installation, id)))
                .collect();
            Ok(listing(at, *folder, names))
        }
        Target::Item { folder, name } => {
            let boxes = &at.call.server.boxes;
            let (_, item) = boxes
                .item(&at.state, at.account.mailbox, *folder, name)
                .await
                .map_err(|error| reply::failure(&error))?;
            let tag = etag(at.state.head.epoch, item.changed);
            let conditions = at.call.conditions();
            if conditions.not_modified(&tag) {
                return Ok(reply::with(reply::empty(StatusCode::NOT_MODIFIED), header::ETAG, &tag));
            }
            conditions.check(Some(&tag)).map_err(|error| reply::failure(&error))?;
            let mut reply = if at.call.parts.method == http::Method::HEAD {
                reply::with(reply::empty(StatusCode::OK), header::CONTENT_LENGTH, &item.size.to_string())
            } else {
                let place = body::reserve(at.call.server, item.size).await?;
                let bytes = boxes.store.bodies.get(BodyId(item.body)).await;
                let bytes: Bytes = bytes.map_err(|error| reply::failure(&error.into()))?;
                reply::body(StatusCode::OK, "application/octet-stream", body::placed(bytes, place))
            };
            for (name, value) in [
                (header::CONTENT_TYPE, item.content_type.as_str()),
                (header::ETAG, tag.as_str()),
                (header::LAST_MODIFIED, &reply::http_date(item.modified)),
                // Mail may hold any script: it runs nowhere.
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
            ] {
                reply = reply::with(reply, name, value);
            }
            Ok(reply)
        }
        _ => Err(not_found()),
    }
}

/// A device's object, or what lies above it.
pub(super) async fn device(
    call: &Call<'_>,
    account: &Arc<Account>,
    place: &DevicePlace,
) -> Result<Reply, Reply> {
    let boxes = &call.server.boxes;
    match place {
        DevicePlace::Object(device, object) => {
            let (numbers, found) = boxes
                .device_object(account.mailbox, device, object)
                .await
                .map_err(|error| reply::failure(&error))?;
            let Some(found) = found else { return Ok(numbered(not_found(), numbers)) };
            let tag = found.object.etag();
            let conditions = call.conditions();
            if conditions.not_modified(&tag) {
                let reply = reply::with(reply::empty(StatusCode::NOT_MODIFIED), header::ETAG, &tag);
                return Ok(numbered(reply, numbers));
            }
            if let Err(error) = conditions.check(Some(&tag)) {
                return Ok(numbered(reply::failure(&error), numbers));
            }
            let mut reply = reply::body(StatusCode::OK, "application/octet-stream", found.bytes);
            reply = reply::with(reply, header::CONTENT_TYPE, &found.object.content_type);
            reply = reply::with(reply, header::ETAG, &tag);
            reply = reply::with(reply, header::LAST_MODIFIED, &reply::http_date(found.object.modified));
            Ok(numbered(reply, numbers))
        }
        DevicePlace::Device(device) => {
            let (numbers, objects) = boxes
                .device_objects(account.mailbox, device)
                .await
                .map_err(|error| reply::failure(&error))?;
            if objects.is_empty() {
                return Ok(numbered(not_found(), numbers));
            }
            if !call.path.slash {
                let to = format!("{}/", call.href());
                let reply = reply::with(reply::empty(StatusCode::FOUND), header::LOCATION, &to);
                return Ok(numbered(reply, numbers));
            }
            let list = objects.iter().fold(String::new(), |list, (name, _)| list + name + "\n");
            Ok(numbered(reply::text(StatusCode::OK, list.trim_end()), numbers))
        }
        DevicePlace::NonIpm | DevicePlace::ActiveSync | DevicePlace::Type(_) if !call.path.slash => {
            let to = format!("{}/", call.href());
            Ok(reply::with(reply::empty(StatusCode::FOUND), header::LOCATION, &to))
        }
        _ => Ok(reply::text(StatusCode::OK, "device state")),
    }
}

/// Every answer below a device's folder says whether what is remembered of the device is still true.
pub(super) fn numbered(reply: Reply, numbers: DeviceNumbers) -> Reply {
    let reply = reply::with_ours(reply, headers::DEVICE_STATE, &numbers.device_state.to_string());
    reply::with_ours(reply, headers::HIERARCHY, &numbers.hierarchy.to_string())
}

fn listing(at: &InMailbox<'_>, folder: u64, items: Vec<String>) -> Reply {
    let mut text = String::new();
    for (_, child) in at.state.tree.children(folder) {
        let _ = writeln!(text, "{}/", child.name);
    }
    for item in items {
        let _ = writeln!(text, "{item}");
    }
    let reply = reply::text(StatusCode::OK, text.trim_end());
    let nosniff: HeaderName = header::X_CONTENT_TYPE_OPTIONS;
    reply::with(reply, nosniff, "nosniff")
}
