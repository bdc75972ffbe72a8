//! Ping's request and response ([MS-ASCMD] 2.2.1.13 Ping).
//!
//! A body may leave out what is cached for the device, or be absent altogether; what it does hold must be
//! complete, or the answer is Status 4. An interval that is a number but out of range is not a syntax
//! error: it gets Status 5, which is decided where the bounds are known.
//!
//! Not here: the cache (`AutdState`), the waiting (`push::ping`), and how many folders are too many.

use std::collections::HashSet;

use super::number;
use super::status::{CommonStatus, PingStatus};
use crate::wbxml::tags::ping::{CLASS, FOLDER, FOLDERS, HEARTBEAT_INTERVAL, ID, MAX_FOLDERS, PING, STATUS};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// What a Ping request's body says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PingBody {
    /// No body: everything as the last time.
    Empty,
    /// A `Ping` element.
    Full(PingRequest),
}

/// The parameters that a Ping carries; what is `None` comes from the cache.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PingRequest {
    /// How long to wait, in seconds, as the device wrote it: any number, even a negative one.
    pub heartbeat: Option<i64>,
    /// The folders to watch; replaces the cached list as a whole. Never empty, no folder twice.
    pub folders: Option<Vec<PingFolder>>,
}

/// A folder to watch.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PingFolder {
    /// The folder's server id, as FolderSync gave it.
    pub id: String,
    /// The class of its items: Email, Calendar, Contacts, Tasks or Notes.
    pub class: String,
}

/// Why a request is not a Ping. The device is answered Status 4 for each of these.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The body is not WBXML, or broken.
    #[error("Ping: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Ping: the root element is {0:?}")]
    NotPing(Tag),
    /// A `Ping` element with neither interval nor folders.
    #[error("Ping: neither HeartbeatInterval nor Folders")]
    Nothing,
    /// An interval that is no number.
    #[error("Ping: HeartbeatInterval is not a number")]
    HeartbeatNotANumber,
    /// An element that may be there once.
    #[error("Ping: {0:?} more than once")]
    Repeated(Tag),
    /// A `Folders` element without a folder.
    #[error("Ping: Folders without a Folder")]
    NoFolder,
    /// A folder that lacks its Id or its Class.
    #[error("Ping: a Folder without {0:?}")]
    Incomplete(Tag),
    /// The same folder twice.
    #[error("Ping: a Folder is listed twice")]
    Duplicate,
}

impl PingBody {
    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, PingError> {
        if body.is_empty() {
            return Ok(Self::Empty);
        }
        let document = Document::parse(body, limits)?;
        PingRequest::read(document.root()).map(Self::Full)
    }
}

impl PingRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(PING, |writer| {
            writer.optional(HEARTBEAT_INTERVAL, self.heartbeat);
            if let Some(folders) = &self.folders {
                writer.element(FOLDERS, |writer| folders.iter().for_each(|folder| folder.write(writer)));
            }
        })
    }

    fn read(root: ElementRef<'_>) -> Result<Self, PingError> {
        if root.tag() != PING {
            return Err(PingError::NotPing(root.tag()));
        }
        let heartbeat = match single(root, HEARTBEAT_INTERVAL)? {
            Some(element) => Some(number(&element.text()).ok_or(PingError::HeartbeatNotANumber)?),
            None => None,
        };
        let folders = single(root, FOLDERS)?.map(read_folders).transpose()?;
        if heartbeat.is_none() && folders.is_none() {
            return Err(PingError::Nothing);
        }
        Ok(Self { heartbeat, folders })
    }
}

impl PingFolder {
    fn write(&self, writer: &mut Writer) {
        writer.element(FOLDER, |writer| {
            writer.text(ID, &self.id);
            writer.text(CLASS, &self.class);
        });
    }

    /// Id and Class in either order.
    fn read(folder: ElementRef<'_>) -> Result<Self, PingError> {
        let part = |tag| {
            single(folder, tag)?
                .map(|element| element.text().trim().to_owned())
                .filter(|text| !text.is_empty())
                .ok_or(PingError::Incomplete(tag))
        };
        Ok(Self { id: part(ID)?, class: part(CLASS)? })
    }
}

fn read_folders(folders: ElementRef<'_>) -> Result<Vec<PingFolder>, PingError> {
    let folders: Vec<PingFolder> = folders
        .children()
        .filter(|child| child.tag() == FOLDER)
        .map(PingFolder::read)
        .collect::<Result<_, _>>()?;
    if folders.is_empty() {
        return Err(PingError::NoFolder);
    }
    let mut ids = HashSet::new();
    if folders.iter().all(|folder| ids.insert(folder.id.as_str())) {
        Ok(folders)
    } else {
        Err(PingError::Duplicate)
    }
}

fn single(parent: ElementRef<'_>, tag: Tag) -> Result<Option<ElementRef<'_>>, PingError> {
    let mut found = parent.children().filter(|child| child.tag() == tag);
    let first = found.next();
    if found.next().is_some() { Err(PingError::Repeated(tag)) } else { Ok(first) }
}

/// The answer to a Ping; it always has a body, for an empty one counts as a network failure on Android.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PingResponse {
    /// Status 1.
    Expired,
    /// Status 2 with the ids of all folders that changed.
    Changed(Vec<String>),
    /// Status 3.
    MissingParameters,
    /// Status 4.
    Syntax,
    /// Status 5 with the nearest heartbeat that is granted, in seconds.
    HeartbeatOutOfRange(u32),
    /// Status 6 with the number of folders that may be watched.
    TooManyFolders(u32),
    /// Status 7.
    FolderSyncRequired,
    /// Status 8.
    ServerError,
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// Why a body is not a response to Ping.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PingResponseError {
    /// The body is not WBXML, or broken, or empty.
    #[error("Ping response: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Ping response: the root element is {0:?}")]
    NotPing(Tag),
    /// No Status, or one that does not exist.
    #[error("Ping response: no known Status")]
    BadStatus,
    /// The element that this status brings with it is not there, or no number.
    #[error("Ping response: Status without its {0:?}")]
    Missing(Tag),
}

impl PingResponse {
    /// The number in its Status element.
    pub fn status_code(&self) -> u8 {
        let status = match self {
            Self::Expired => PingStatus::Expired,
            Self::Changed(_) => PingStatus::Changed,
            Self::MissingParameters => PingStatus::MissingParameters,
            Self::Syntax => PingStatus::Syntax,
            Self::HeartbeatOutOfRange(_) => PingStatus::HeartbeatOutOfRange,
            Self::TooManyFolders(_) => PingStatus::TooManyFolders,
            Self::FolderSyncRequired => PingStatus::FolderSyncRequired,
            Self::ServerError => PingStatus::ServerError,
            Self::Common(status) => return status.code(),
        };
        status.code()
    }

    /// The response's body. Order: Status, Folders, MaxFolders, HeartbeatInterval.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(PING, |writer| {
            writer.number(STATUS, self.status_code());
            match self {
                // An empty `Folders` is not allowed, so none is written.
                Self::Changed(folders) if !folders.is_empty() => writer.element(FOLDERS, |writer| {
                    for folder in folders {
                        writer.text(FOLDER, folder);
                    }
                }),
                Self::TooManyFolders(max) => writer.number(MAX_FOLDERS, max),
                Self::HeartbeatOutOfRange(bound) => writer.number(HEARTBEAT_INTERVAL, bound),
                _ => {}
            }
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, PingResponseError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != PING {
            return Err(PingResponseError::NotPing(root.tag()));
        }
        let code =
            root.child_text(STATUS).and_then(|text| number(&text)).ok_or(PingResponseError::BadStatus)?;
        if let Some(status) = CommonStatus::from_code(code) {
            return Ok(Self::Common(status));
        }
        let bound = |tag| {
            let value = root.child_text(tag).and_then(|text| number(&text));
            value.and_then(|value| u32::try_from(value).ok()).ok_or(PingResponseError::Missing(tag))
        };
        Ok(match PingStatus::from_code(code).ok_or(PingResponseError::BadStatus)? {
            PingStatus::Expired => Self::Expired,
            PingStatus::Changed => {
                let folders = root.child(FOLDERS).into_iter().flat_map(ElementRef::children);
                let named = folders.filter(|child| child.tag() == FOLDER);
                Self::Changed(named.map(|folder| folder.text().into_owned()).collect())
            }
            PingStatus::MissingParameters => Self::MissingParameters,
            PingStatus::Syntax => Self::Syntax,
            PingStatus::HeartbeatOutOfRange => Self::HeartbeatOutOfRange(bound(HEARTBEAT_INTERVAL)?),
            PingStatus::TooManyFolders => Self::TooManyFolders(bound(MAX_FOLDERS)?),
            PingStatus::FolderSyncRequired => Self::FolderSyncRequired,
            PingStatus::ServerError => Self::ServerError,
        })
    }
}

#[cfg(test)]
mod tests;
