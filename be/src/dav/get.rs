//! GET and HEAD: items, device state, and a plain listing of a folder.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::dav::conditions::Verdict;
use directpush_common::dav::headers;
use directpush_common::dav::range::{self, Ranges};
use http::{HeaderName, StatusCode, header};

use super::path::{DevicePlace, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox, not_found};
use crate::error::Error;
use crate::http::body;
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{ItemName, etag, implied_name};
use crate::mailbox::state::DeviceNumbers;
use crate::mailbox::users::Account;
use crate::store::{BodyId, StoreError};

/// Items that a folder's listing names.
const LISTED_MAX: usize = 100;
const UNTYPED: &str = "application/octet-stream";

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
        Target::Item { .. } if at.call.path.slash => Err(not_found()),
        Target::Item { folder, name } => item(at, *folder, name).await,
        _ => Err(not_found()),
    }
}

async fn item(at: &InMailbox<'_>, folder: u64, name: &ItemName) -> Result<Reply, Reply> {
    let boxes = &at.call.server.boxes;
    let member = at.member_if_there(folder, name).await?.ok_or_else(not_found)?;
    let item = member.item;
    let size = item.size;
    let tag = etag(at.state.head.epoch, item.changed);
    let modified = reply::http_date(item.modified);
    let described = |mut reply: Reply, content_type: &str| {
        for (name, value) in [
            (header::CONTENT_TYPE, content_type),
            (header::ETAG, tag.as_str()),
            (header::LAST_MODIFIED, modified.as_str()),
            (header::ACCEPT_RANGES, "bytes"),
            (header::CONTENT_DISPOSITION, disposition(content_type)),
            // Mail may hold any script: it runs nowhere.
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        ] {
            reply = reply::with(reply, name, value);
        }
        reply
    };
    match at.call.conditions().read(&tag, item.modified) {
        Verdict::NotModified => {
            let reply = reply::with(reply::empty(StatusCode::NOT_MODIFIED), header::ETAG, &tag);
            return Ok(reply::with(reply, header::LAST_MODIFIED, &modified));
        }
        Verdict::Failed => return Err(reply::failure(&Error::Precondition)),
        Verdict::GoOn => {}
    }
    if at.call.parts.method == http::Method::HEAD {
        let reply = reply::with(reply::empty(StatusCode::OK), header::CONTENT_LENGTH, &size.to_string());
        return Ok(described(reply, &item.content_type));
    }
    let wanted = match (at.call.header("range"), at.call.header("if-range")) {
        (Some(_), Some(only)) if !range::if_range_holds(only, &tag, item.modified) => Ranges::Whole,
        (Some(wanted), _) => range::bytes(wanted, size),
        (None, _) => Ranges::Whole,
    };
    let body_id = BodyId(item.body);
    let failure = |error: StoreError| reply::failure(&error.into());
    match wanted {
        Ranges::Whole => {
            let place = body::reserve(at.call.server, at.account.mailbox, size).await?;
            let bytes: Bytes = boxes.store.bodies.get(body_id).await.map_err(failure)?;
            let reply = reply::body(StatusCode::OK, UNTYPED, body::placed(bytes, place));
            Ok(described(reply, &item.content_type))
        }
        Ranges::Unsatisfiable => {
            let reply = reply::text(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
            Err(reply::with(reply, header::CONTENT_RANGE, &range::unsatisfied(size)))
        }
        Ranges::Parts(parts) => {
            let total = parts.iter().map(|(first, last)| last - first + 1).sum();
            let place = body::reserve(at.call.server, at.account.mailbox, total).await?;
            if let [(first, last)] = parts[..] {
                let bytes = boxes.store.bodies.get_range(body_id, first..last + 1).await.map_err(failure)?;
                let reply = reply::body(StatusCode::PARTIAL_CONTENT, UNTYPED, body::placed(bytes, place));
                let reply = described(reply, &item.content_type);
                let content_range = range::content_range((first, last), size);
                return Ok(reply::with(reply, header::CONTENT_RANGE, &content_range));
            }
            let boundary = format!("{:032x}", fastrand::u128(..));
            let mut all = Vec::new();
            for part in parts {
                let bytes =
                    boxes.store.bodies.get_range(body_id, part.0..part.1 + 1).await.map_err(failure)?;
                all.extend_from_slice(range::part_head(&boundary, &item.content_type, part, size).as_bytes());
                all.extend_from_slice(&bytes);
            }
            all.extend_from_slice(range::parts_end(&boundary).as_bytes());
            let reply = reply::body(StatusCode::PARTIAL_CONTENT, UNTYPED, body::placed(all.into(), place));
            Ok(described(reply, &format!("multipart/byteranges; boundary={boundary}")))
        }
    }
}

/// A browser is to save what it could run, and may show the rest.
fn disposition(content_type: &str) -> &'static str {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let shown = matches!(essence.as_str(), "text/plain" | "image/png" | "image/jpeg" | "image/gif");
    if shown { "inline" } else { "attachment" }
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
            match conditions.read(&tag, found.object.modified) {
                Verdict::NotModified => {
                    let reply = reply::with(reply::empty(StatusCode::NOT_MODIFIED), header::ETAG, &tag);
                    return Ok(numbered(reply, numbers));
                }
                Verdict::Failed => return Ok(numbered(reply::failure(&Error::Precondition), numbers)),
                Verdict::GoOn => {}
            }
            let mut reply = reply::body(StatusCode::OK, "application/octet-stream", found.bytes);
            reply = reply::with(reply, header::CONTENT_TYPE, &found.object.content_type);
            reply = reply::with(reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            reply = reply::with(reply, header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
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
