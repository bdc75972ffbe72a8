//! The device's state objects as typed values: read, written under their ETag.
//!
//! An object that cannot be read counts as none, and is logged: the device starts over and it is
//! written anew.

use bytes::Bytes;
use directpush_common::names::FolderId;
use directpush_common::sync::cache::SyncCache;
use directpush_common::sync::state::{CollectionState, FolderSyncState, ProvisionState, UnknownVersion};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Request, standing};
use crate::backend::Result;
use crate::backend::device::{Fresh, If, Object, Put};

/// A kind of state object.
pub trait StateObject: DeserializeOwned + Serialize + Sized {
    /// Checks the version that was read.
    ///
    /// # Errors
    /// For an object of a newer format.
    fn checked(self) -> std::result::Result<Self, UnknownVersion>;
}

impl StateObject for CollectionState {
    fn checked(self) -> std::result::Result<Self, UnknownVersion> {
        self.checked()
    }
}

impl StateObject for FolderSyncState {
    fn checked(self) -> std::result::Result<Self, UnknownVersion> {
        self.checked()
    }
}

impl StateObject for SyncCache {
    fn checked(self) -> std::result::Result<Self, UnknownVersion> {
        self.checked()
    }
}

impl StateObject for ProvisionState {
    /// Version 1 is all there is.
    fn checked(self) -> std::result::Result<Self, UnknownVersion> {
        if self.version <= 1 { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }
}

/// Name of the object that holds the hierarchy the device knows.
pub const FOLDER_SYNC: &str = "FolderSyncFile";
/// Name of the object that holds its policy keys.
pub const PROVISION: &str = "Provision";
/// Name of the object that holds the parameters of Ping.
pub const AUTD: &str = "AutdState.xml";

/// Name of the object that holds what a Sync waits for.
pub const SYNC_REQUEST: &str = "SyncRequest";

/// Name of the object of a collection.
pub fn collection(folder: FolderId) -> String {
    format!("Collection-{:x}", folder.counter)
}

/// An object as it was read.
pub struct Loaded<T> {
    /// Its content, if there is any that can be used.
    pub value: Option<T>,
    /// Its ETag, if there is one.
    pub tag: Option<Box<str>>,
    /// What the answer said of the device.
    pub fresh: Fresh,
}

/// Reads an object, of a device that may be served.
///
/// # Errors
/// [`crate::backend::Error`]; `Refused` when the device must provision first, or is kept out.
pub async fn load<T: StateObject>(request: &Request, name: &str) -> Result<Loaded<T>> {
    let loaded = load_unchecked(request, name).await?;
    standing::check(request, &loaded.fresh).await?;
    Ok(loaded)
}

/// Reads an object, whatever the device's standing.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn load_unchecked<T: StateObject>(request: &Request, name: &str) -> Result<Loaded<T>> {
    let (user, device) = (&request.session.user, &request.device.key);
    let (object, fresh) = request.backend().device_get(request.asker(), name, None).await?;
    let Object::Is(tag, content) = object else {
        return Ok(Loaded { value: None, tag: None, fresh });
    };
    let value = match serde_json::from_slice::<T>(&content).map(StateObject::checked) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(%user, %device, object = name, %error, "a state object is not used");
            None
        }
        Err(error) => {
            tracing::warn!(%user, %device, object = name, %error, "a state object is corrupt");
            None
        }
    };
    Ok(Loaded { value, tag: Some(tag), fresh })
}

/// Writes an object if it is still as it was read.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn save<T: StateObject>(
    request: &Request,
    name: &str,
    tag: Option<&str>,
    value: &T,
) -> Result<(Put, Fresh)> {
    let content = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
    let condition = tag.map_or(If::Absent, If::Tag);
    request.backend().device_put(request.asker(), name, condition, content).await
}
