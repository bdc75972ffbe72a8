//! An item by the names that devices have for it: server id, LongId, FileReference.
//!
//! A server id is the folder's counter in hex and the item's number, `5:42`; Search and Find give the same as LongId.
//! A FileReference is that and the number of a part, `5:42:3`.

use std::sync::Arc;

use bytes::Bytes;
use directpush_common::change::{EntryKind, Live};
use directpush_common::dav::hierarchy::{Folder, Hierarchy};
use directpush_common::dav::items::ItemsRequest;
use directpush_common::eas::sync::ApplicationData;
use directpush_common::names::ItemId;
use directpush_common::numbers::Number;
use directpush_common::sync::state::FolderSyncState;

use super::Request;
use super::render::{self, Facts, Wish};
use super::state::{self, FOLDER_SYNC};
use crate::backend::items::Place;
use crate::backend::{Error, Result};

/// The EAS type of the folder of drafts ([MS-ASCMD] Type (FolderSync)).
const DRAFTS: u8 = 3;

/// The folders of the mailbox as they are now.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn folders(request: &Request) -> Result<Arc<Hierarchy>> {
    let current = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?.fresh.hierarchy;
    request.front.folders.get(request, current).await
}

/// The folder and the item that a server id or a LongId names.
pub fn find<'a>(all: &'a Hierarchy, name: &str) -> Option<(&'a Folder, Place)> {
    let (counter, item) = name.split_once(':')?;
    let counter = u64::from_str_radix(counter, 16).ok()?;
    let folder = all.folders.iter().find(|folder| folder.id.counter == counter)?;
    let item = ItemId(item.parse::<Number>().ok()?);
    Some((folder, Place { folder: folder.id, item }))
}

/// The item and the part that a FileReference names.
pub fn find_attachment(all: &Hierarchy, reference: &str) -> Option<(Place, usize)> {
    let (item, part) = reference.rsplit_once(':')?;
    let (_, place) = find(all, item)?;
    Some((place, part.parse().ok()?))
}

/// What its folder knows of an item: the walk that begins just above it. `None` when it is gone.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn live(request: &Request, place: Place) -> Result<Option<Live>> {
    Ok(changed(request, place).await?.map(|(live, _)| live))
}

/// The same, and the number of its last change.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn changed(request: &Request, place: Place) -> Result<Option<(Live, Number)>> {
    let walk = ItemsRequest::Walk { before: Some(ItemId(place.item.0.next())), limit: 1 };
    let items = request.backend().items(&request.session, place.folder, walk).await?;
    let entry = items.and_then(|items| items.entries.into_iter().find(|entry| entry.id == place.item));
    Ok(entry.and_then(|entry| match entry.kind {
        EntryKind::Live(live) => Some((live, entry.changed)),
        EntryKind::Gone(_) => None,
    }))
}

/// Why the bytes of an item that is there cannot be had, now or later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfetchable {
    /// It is larger than what a front end holds.
    TooLarge,
    /// The back end cannot read it.
    Damaged,
}

/// The bytes of a message, or that they cannot be had.
pub type Mime = std::result::Result<Bytes, Unfetchable>;

/// The bytes of an item; `None` when it is gone. What cannot be had is logged, and no trouble: whatever else a
/// request asks for must not wait for it.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn bytes(request: &Request, place: Place) -> Result<Option<Mime>> {
    match request.backend().item_get(&request.session, place).await {
        Ok(mime) => Ok(mime.map(Ok)),
        Err(error) if error.is_of_the_item() => {
            let (user, folder, item) = (&request.session.user, place.folder, place.item);
            tracing::warn!(%user, %folder, %item, %error, "an item cannot be fetched");
            let too_large = matches!(error, Error::TooLarge(_));
            Ok(Some(Err(if too_large { Unfetchable::TooLarge } else { Unfetchable::Damaged })))
        }
        Err(error) => Err(error),
    }
}

/// A message as a device wants it; a placeholder for one that cannot be had.
pub async fn rendered(request: &Request, mime: Mime, facts: Facts, wish: Wish) -> ApplicationData {
    match mime {
        Ok(mime) => request.front.content.render(mime, facts, wish).await,
        Err(_) => render::unreadable(&facts, &wish),
    }
}

/// A message and what its folder knows of it. `None` when it is gone.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn message(request: &Request, folder: &Folder, place: Place) -> Result<Option<(Mime, Facts)>> {
    let Some(live) = live(request, place).await? else { return Ok(None) };
    let Some(mime) = bytes(request, place).await? else { return Ok(None) };
    Ok(Some((mime, facts(request, folder, place, &live))))
}

/// What a folder knows of an item, as the renderer needs it.
pub fn facts(request: &Request, folder: &Folder, place: Place, live: &Live) -> Facts {
    Facts {
        read: live.read,
        date: live.date,
        reference: format!("{:x}:{}", folder.id.counter, place.item),
        draft: folder.folder_type == DRAFTS,
        marks: render::marks(&live.marks, request.line.version),
    }
}
