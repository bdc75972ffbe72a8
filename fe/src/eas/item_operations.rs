//! ItemOperations ([MS-ASCMD] 2.2.1.10 ItemOperations): items and attachments fetched, folders emptied.
//!
//! Operations are carried out in their order, each with its own status. Not here: documents (Status 9) and moving
//! a conversation (Status 156): to find its messages all mail would have to be read.

use std::sync::Arc;

use bytes::Bytes;
use directpush_common::change::EntryKind;
use directpush_common::dav::hierarchy::Hierarchy;
use directpush_common::dav::items::ItemsRequest;
use directpush_common::eas::item_operations::{
    Fetch, FetchSource, Found, ItemOperationsResponse, MULTIPART_CONTENT_TYPE, Operation, OperationStatus,
    Outcome, decode,
};
use directpush_common::eas::status::ItemOperationsStatus;
use directpush_common::eas::{CommonStatus, Version};
use directpush_common::names::FolderId;
use directpush_common::wbxml::{Element, Limits};
use http::HeaderValue;
use tokio::task::JoinSet;

use super::item::{Mime, Unfetchable};
use super::options::Kept;
use super::{Reaction, Request, folders, item};
use crate::backend::items::Place;
use crate::backend::{Error, Result};

/// Operations of one request ([MS-ASCMD] 3.1.5.10 Limiting Size of Command Requests).
const OPERATIONS_MAX: usize = 100;
/// Bytes of one response; what would come on top is Status 11.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Responses beyond this are written on a thread of their own.
const LARGE_BYTES: usize = 256 * 1024;
/// Items looked up at once in a folder that is emptied.
const PAGE: usize = 500;
/// Items deleted at once.
const DELETED_AT_ONCE_MAX: usize = 8;
/// How long emptying may take, in milliseconds: devices wait 30 s for an answer.
const EMPTYING_MILLIS_MAX: u64 = 20_000;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`]; all of it may be asked for again.
pub async fn run(request: &Request) -> Result<Reaction> {
    let version = request.line.version;
    let operations = match decode(&request.body, Limits::default()) {
        Ok(operations) => operations,
        Err(error) => return Ok(error.answer(version).into()),
    };
    if operations.len() > OPERATIONS_MAX {
        let response = ItemOperationsResponse::failed(ItemOperationsStatus::ProtocolError);
        return Ok(Reaction::Body(response.encode(), "St2".to_owned()));
    }
    let all = item::folders(request).await?;
    let (mut outcomes, mut room) = (Vec::with_capacity(operations.len()), RESPONSE_BYTES_MAX);
    let mut last = Last(None);
    for operation in operations {
        outcomes.push(match operation {
            Operation::Fetch(fetch) => {
                let (status, found) = match fetched(request, &all, &fetch, &mut last, &mut room).await? {
                    Ok(found) => (ItemOperationsStatus::Success.into(), Some(found)),
                    Err(status) => (status, None),
                };
                Outcome::Fetch { status, source: fetch.source, found }
            }
            Operation::EmptyFolderContents { collection_id, delete_sub_folders } => {
                let status = emptied(request, &all, &collection_id, delete_sub_folders).await?;
                Outcome::EmptyFolderContents { status: status.into(), collection_id }
            }
            Operation::Move { conversation_id, always } => {
                let status = match always {
                    _ if version < Version::V14_0 => ItemOperationsStatus::ProtocolError,
                    false => ItemOperationsStatus::MoveAlwaysRequired,
                    true => ItemOperationsStatus::ActionNotSupported,
                };
                Outcome::Move { status: status.into(), conversation_id }
            }
        });
    }
    let note = format!("Fc{}", outcomes.len());
    let response = ItemOperationsResponse { status: ItemOperationsStatus::Success, outcomes };
    let multipart = request.line.parameters.accept_multipart;
    let encode = move || if multipart { response.encode_multipart() } else { response.encode() };
    let body = if RESPONSE_BYTES_MAX - room > LARGE_BYTES {
        tokio::task::spawn_blocking(encode).await.unwrap_or_default()
    } else {
        encode()
    };
    if multipart {
        return Ok(Reaction::Data(HeaderValue::from_static(MULTIPART_CONTENT_TYPE), body, note));
    }
    Ok(Reaction::Body(body, note))
}

type Fetched = std::result::Result<Found, OperationStatus>;

/// The message whose attachment was fetched last: its next one needs no other request.
struct Last(Option<(Place, Bytes)>);

impl Last {
    /// The bytes of a message; `None` when it is gone.
    async fn message(&mut self, request: &Request, place: Place) -> Result<Option<Mime>> {
        let same = |known: &Place| known.folder == place.folder && known.item == place.item;
        if let Some((_, mime)) = self.0.as_ref().filter(|(known, _)| same(known)) {
            return Ok(Some(Ok(mime.clone())));
        }
        // Two large messages are not held at once.
        self.0 = None;
        let mime = item::bytes(request, place).await?;
        self.0 = mime.clone().and_then(Mime::ok).map(|mime| (place, mime));
        Ok(mime)
    }
}

async fn fetched(
    request: &Request,
    all: &Hierarchy,
    fetch: &Fetch,
    last: &mut Last,
    room: &mut usize,
) -> Result<Fetched> {
    let refused = |status: ItemOperationsStatus| Ok(Err(status.into()));
    if !fetch.store.trim().eq_ignore_ascii_case("Mailbox") {
        return refused(ItemOperationsStatus::UnknownStore);
    }
    let name = match &fetch.source {
        FetchSource::FileReference(reference) => {
            return attachment(request, all, fetch, reference, last, room).await;
        }
        FetchSource::Item { server_id: name, .. } | FetchSource::LongId(name) => name,
        FetchSource::LinkId(_) => return refused(ItemOperationsStatus::UnknownStore),
        FetchSource::Nothing => return refused(ItemOperationsStatus::ProtocolError),
    };
    if fetch.options.asks_for_unknown_part(request.line.version) {
        return Ok(Err(OperationStatus::Common(CommonStatus::BodyPartPreferenceTypeNotSupported)));
    }
    let Some((folder, place)) = item::find(all, name) else { return refused(ItemOperationsStatus::NotFound) };
    // The folder that is named must be the item's.
    let elsewhere = |id: &str| !id.is_empty() && id.parse() != Ok(folder.id);
    if matches!(&fetch.source, FetchSource::Item { collection_id, .. } if elsewhere(collection_id)) {
        return refused(ItemOperationsStatus::NotFound);
    }
    if folder.class.as_str() != "Email" {
        return refused(ItemOperationsStatus::ConversionFailed);
    }
    let (mime, facts) = match item::message(request, folder, place).await? {
        None => return refused(ItemOperationsStatus::NotFound),
        Some((Err(fault), _)) => return refused(status_of(fault)),
        Some((Ok(mime), facts)) => (mime, facts),
    };
    let wish = Kept::default().updated(std::slice::from_ref(&fetch.options)).wish(request.line.version);
    let mut data = request.front.content.render(mime, facts, wish).await;
    if !fetch.schema.is_empty() {
        data.retain(|element| fetch.schema.contains(&element.tag));
    }
    let Some(left) = room.checked_sub(data.iter().map(Element::weight).sum()) else {
        return refused(ItemOperationsStatus::TooLarge);
    };
    *room = left;
    Ok(Ok(Found::Item { class: folder.class.as_str().to_owned(), data }))
}

async fn attachment(
    request: &Request,
    all: &Hierarchy,
    fetch: &Fetch,
    reference: &str,
    last: &mut Last,
    room: &mut usize,
) -> Result<Fetched> {
    let refused = |status: ItemOperationsStatus| Ok(Err(status.into()));
    let Some((place, part)) = item::find_attachment(all, reference) else {
        return refused(ItemOperationsStatus::InvalidAttachment);
    };
    let mime = match last.message(request, place).await? {
        None => return refused(ItemOperationsStatus::InvalidAttachment),
        Some(Err(fault)) => return refused(status_of(fault)),
        Some(Ok(mime)) => mime,
    };
    let Some(mut found) = request.front.content.attachment(mime, part).await else {
        return refused(ItemOperationsStatus::InvalidAttachment);
    };
    let total = found.bytes.len();
    let mut range = None;
    if let Some((first, last)) = fetch.range {
        let Some(cut) = cut(first, last, total) else { return refused(ItemOperationsStatus::InvalidRange) };
        found.bytes = found.bytes.get(cut.clone()).unwrap_or_default().to_vec();
        range = Some((cut.start as u64, cut.end.saturating_sub(1) as u64));
    }
    // In base64, it may be.
    let Some(left) = room.checked_sub(found.bytes.len() / 3 * 4) else {
        return refused(ItemOperationsStatus::TooLarge);
    };
    *room = left;
    let content_type = found.content_type;
    Ok(Ok(Found::Attachment { content_type, range, total: total as u64, bytes: found.bytes }))
}

/// What a message that cannot be had is answered, for itself alone.
fn status_of(fault: Unfetchable) -> ItemOperationsStatus {
    match fault {
        Unfetchable::TooLarge => ItemOperationsStatus::TooLarge,
        Unfetchable::Damaged => ItemOperationsStatus::ConversionFailed,
    }
}

/// The bytes of a range, as far as there are any ([MS-ASCMD] Range (ItemOperations)).
fn cut(first: u64, last: u64, total: usize) -> Option<std::ops::Range<usize>> {
    let first = usize::try_from(first).ok()?;
    let end = usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1).min(total);
    (first < end).then_some(first..end)
}

/// Deletes all items of a folder, and the folders below it. What takes longer than a device waits is
/// Status 3: what is gone is gone, and asking again goes on.
///
/// The deletions are in nobody's name, so that the device that asked is told of them by its next Sync.
async fn emptied(
    request: &Request,
    all: &Hierarchy,
    collection_id: &str,
    delete_sub_folders: bool,
) -> Result<ItemOperationsStatus> {
    let Some(folder) = folders::find(all, collection_id) else { return Ok(ItemOperationsStatus::NotFound) };
    let mut before = None;
    loop {
        let walk = ItemsRequest::Walk { before, limit: PAGE };
        let items = match request.backend().items(&request.session, folder.id, walk).await {
            Err(error) if error.is_not_found() => return Ok(ItemOperationsStatus::NotFound),
            other => other?,
        };
        let entries = items.map(|items| items.entries).unwrap_or_default();
        let live: Vec<_> = entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Live(_)))
            .map(|entry| entry.id)
            .collect();
        let Some(last) = live.last().copied() else { break };
        delete(request, folder.id, live).await?;
        before = Some(last);
        if request.front.now().millis_since(request.began) > EMPTYING_MILLIS_MAX {
            return Ok(ItemOperationsStatus::ServerError);
        }
    }
    if delete_sub_folders {
        let below = all.folders.iter().filter(|child| child.parent == Some(folder.id));
        for child in below {
            match request.backend().folder_purge(&request.session, child.id).await {
                Ok(_) => {}
                Err(error) if error.status() == Some(http::StatusCode::FORBIDDEN) => {
                    return Ok(ItemOperationsStatus::AccessDenied);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ItemOperationsStatus::Success)
}

/// Deletes items, some at a time.
async fn delete(
    request: &Request,
    folder: FolderId,
    items: Vec<directpush_common::names::ItemId>,
) -> Result<()> {
    let mut under_way: JoinSet<Result<bool>> = JoinSet::new();
    let mut failed: Option<Error> = None;
    for item in items {
        if under_way.len() >= DELETED_AT_ONCE_MAX
            && let Some(Ok(Err(error))) = under_way.join_next().await
        {
            failed = Some(error);
            break;
        }
        let (backend, session) = (Arc::clone(request.backend()), Arc::clone(&request.session));
        under_way.spawn(async move { backend.item_purge(&session, Place { folder, item }).await });
    }
    while let Some(done) = under_way.join_next().await {
        if let Ok(Err(error)) = done {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_what_there_is() {
        assert_eq!(cut(0, 9, 100), Some(0..10));
        assert_eq!(cut(90, 200, 100), Some(90..100));
        assert_eq!(cut(0, u64::MAX, 1), Some(0..1));
        for (first, last, total) in [(100, 200, 100), (5, 4, 100), (0, 0, 0), (u64::MAX, u64::MAX, 5)] {
            assert_eq!(cut(first, last, total), None, "{first}-{last} of {total}");
        }
    }
}
