//! FolderCreate, FolderUpdate and FolderDelete, requests and responses, and the answer of GetHierarchy
//! ([MS-ASCMD] FolderCreate, FolderUpdate, FolderDelete, GetHierarchy; their Status elements).
//!
//! Not here: which folders there are, and what a key means.

use super::folder_sync::{Folder, FolderType};
use super::status::FolderChangeStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::folder_hierarchy::{
    DISPLAY_NAME, FOLDER, FOLDER_CREATE, FOLDER_DELETE, FOLDER_UPDATE, FOLDERS, PARENT_ID, SERVER_ID, STATUS,
    SYNC_KEY, TYPE,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Characters of a folder's name, at most ([MS-ASCMD] DisplayName (FolderCreate)).
pub const NAME_CHARS_MAX: usize = 256;

/// A change of the hierarchy that a device asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FolderChange {
    /// A new folder.
    Create {
        /// Where; `0` = at the top.
        parent_id: String,
        /// Its name.
        display_name: String,
        /// What it is for: 1, or 12 to 17.
        kind: FolderType,
    },
    /// Another name or place for a folder.
    Update {
        /// Which.
        server_id: String,
        /// Where; `0` = at the top.
        parent_id: String,
        /// Its name from now on.
        display_name: String,
    },
    /// A folder goes, with all in it.
    Delete {
        /// Which.
        server_id: String,
    },
}

/// One of the three requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FolderChangeRequest {
    /// The hierarchy that the device knows.
    pub sync_key: String,
    /// What it asks for.
    pub change: FolderChange,
}

/// Why a body is not such a request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderChangeError {
    /// The body is not WBXML, or broken.
    #[error("folder change: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another command's.
    #[error("folder change: the root element is {0:?}")]
    OtherRoot(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("folder change: no valid {0:?}")]
    Invalid(Tag),
}

impl FolderChangeError {
    /// What the device is answered: Status 10 wherever the body could be read.
    pub fn answer(&self, command: Command, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(command, version, Malformed::from(error)),
            _ => Answer::Body(FolderChangeResponse::failed(FolderChangeStatus::Malformed).encode(command)),
        }
    }
}

/// The root element of a command; FolderCreate's for all that are none of the three.
fn root(command: Command) -> Tag {
    match command {
        Command::FolderUpdate => FOLDER_UPDATE,
        Command::FolderDelete => FOLDER_DELETE,
        _ => FOLDER_CREATE,
    }
}

impl FolderChange {
    /// The command that asks for it.
    pub fn command(&self) -> Command {
        match self {
            Self::Create { .. } => Command::FolderCreate,
            Self::Update { .. } => Command::FolderUpdate,
            Self::Delete { .. } => Command::FolderDelete,
        }
    }
}

impl FolderChangeRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(root(self.change.command()), |writer| {
            writer.text(SYNC_KEY, &self.sync_key);
            match &self.change {
                FolderChange::Create { parent_id, display_name, kind } => {
                    writer.text(PARENT_ID, parent_id);
                    writer.text(DISPLAY_NAME, display_name);
                    writer.number(TYPE, kind);
                }
                FolderChange::Update { server_id, parent_id, display_name } => {
                    writer.text(SERVER_ID, server_id);
                    writer.text(PARENT_ID, parent_id);
                    writer.text(DISPLAY_NAME, display_name);
                }
                FolderChange::Delete { server_id } => writer.text(SERVER_ID, server_id),
            }
        })
    }

    /// Reads the body of one of the three commands. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], command: Command, limits: Limits) -> Result<Self, FolderChangeError> {
        let document = Document::parse(body, limits)?;
        let request = document.root();
        if request.tag() != root(command) {
            return Err(FolderChangeError::OtherRoot(request.tag()));
        }
        let change = match command {
            Command::FolderUpdate => FolderChange::Update {
                server_id: text(request, SERVER_ID)?,
                parent_id: text(request, PARENT_ID)?,
                display_name: name(request)?,
            },
            Command::FolderDelete => FolderChange::Delete { server_id: text(request, SERVER_ID)? },
            _ => FolderChange::Create {
                parent_id: text(request, PARENT_ID)?,
                display_name: name(request)?,
                kind: kind(request)?,
            },
        };
        Ok(Self { sync_key: text(request, SYNC_KEY)?, change })
    }
}

fn text(parent: ElementRef<'_>, tag: Tag) -> Result<String, FolderChangeError> {
    let text = parent.child_text(tag).filter(|text| !text.is_empty());
    text.map(std::borrow::Cow::into_owned).ok_or(FolderChangeError::Invalid(tag))
}

fn name(request: ElementRef<'_>) -> Result<String, FolderChangeError> {
    let name = text(request, DISPLAY_NAME)?.trim().to_owned();
    let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
    if fits { Ok(name) } else { Err(FolderChangeError::Invalid(DISPLAY_NAME)) }
}

/// The types that a device may make: a folder of no class, and a user's own of each class but the journal.
fn kind(request: ElementRef<'_>) -> Result<FolderType, FolderChangeError> {
    let kind = number(&text(request, TYPE)?).and_then(FolderType::from_code);
    kind.filter(|kind| matches!(kind.code(), 1 | 12..=15 | 17)).ok_or(FolderChangeError::Invalid(TYPE))
}

/// The answer to one of the three.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FolderChangeResponse {
    /// How it went.
    pub status: FolderChangeStatus,
    /// The key for the next request, when it went well.
    pub sync_key: Option<String>,
    /// FolderCreate: the new folder.
    pub server_id: Option<String>,
}

/// Why a body is not such a response.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no response to this command")]
pub struct BadFolderChangeResponse;

impl FolderChangeResponse {
    /// A response that says nothing but this status.
    pub fn failed(status: FolderChangeStatus) -> Self {
        Self { status, sync_key: None, server_id: None }
    }

    /// The response's body. Order: Status, SyncKey, ServerId.
    pub fn encode(&self, command: Command) -> Vec<u8> {
        Writer::document(root(command), |writer| {
            writer.number(STATUS, self.status);
            writer.optional(SYNC_KEY, self.sync_key.as_ref());
            writer.optional(SERVER_ID, self.server_id.as_ref());
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], command: Command, limits: Limits) -> Result<Self, BadFolderChangeResponse> {
        let document = Document::parse(body, limits).map_err(|_| BadFolderChangeResponse)?;
        let response = document.root();
        if response.tag() != root(command) {
            return Err(BadFolderChangeResponse);
        }
        let status = response.child_text(STATUS).and_then(|text| number(&text));
        let owned = |tag| response.child_text(tag).map(std::borrow::Cow::into_owned);
        Ok(Self {
            status: status.and_then(FolderChangeStatus::from_code).ok_or(BadFolderChangeResponse)?,
            sync_key: owned(SYNC_KEY),
            server_id: owned(SERVER_ID),
        })
    }
}

/// The answer of GetHierarchy: mail folders, without a status and without a key.
pub fn hierarchy_answer(folders: &[Folder]) -> Vec<u8> {
    Writer::document(FOLDERS, |writer| {
        for folder in folders {
            writer.element(FOLDER, |writer| {
                writer.text(DISPLAY_NAME, &folder.display_name);
                writer.text(SERVER_ID, &folder.server_id);
                writer.number(TYPE, folder.kind);
                writer.text(PARENT_ID, &folder.parent_id);
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wbxml::{Contents, dump_bytes};

    const COMMANDS: [Command; 3] = [Command::FolderCreate, Command::FolderUpdate, Command::FolderDelete];

    fn create(kind: FolderType) -> FolderChangeRequest {
        let (parent_id, display_name) = ("0".into(), "Travel".into());
        FolderChangeRequest {
            sync_key: "3".into(),
            change: FolderChange::Create { parent_id, display_name, kind },
        }
    }

    #[test]
    fn each_request_reads_as_it_is_written() {
        let update = FolderChange::Update {
            server_id: "7".into(),
            parent_id: "5".into(),
            display_name: "Trips".into(),
        };
        let delete = FolderChange::Delete { server_id: "7".into() };
        let others = [update, delete].map(|change| FolderChangeRequest { sync_key: "3".into(), change });
        for request in [create(FolderType::UserMail)].into_iter().chain(others) {
            let (body, command) = (request.encode(), request.change.command());
            assert_eq!(FolderChangeRequest::decode(&body, command, Limits::default()), Ok(request));
        }
        assert_eq!(
            dump_bytes(&create(FolderType::UserMail).encode(), Contents::Shown),
            "<FolderCreate><SyncKey>3</SyncKey><ParentId>0</ParentId><DisplayName>Travel</DisplayName>\
             <Type>12</Type></FolderCreate>"
        );
    }

    #[test]
    fn responses_keep_their_order() {
        let response = FolderChangeResponse {
            status: FolderChangeStatus::Success,
            sync_key: Some("4".into()),
            server_id: Some("9".into()),
        };
        let body = response.encode(Command::FolderCreate);
        assert_eq!(
            dump_bytes(&body, Contents::Shown),
            "<FolderCreate><Status>1</Status><SyncKey>4</SyncKey><ServerId>9</ServerId></FolderCreate>"
        );
        let read = FolderChangeResponse::decode(&body, Command::FolderCreate, Limits::default());
        assert_eq!(read, Ok(response));
    }

    #[test]
    fn what_lacks_something_or_makes_a_default_folder_is_status_10() {
        for request in [create(FolderType::Inbox), create(FolderType::UserJournal)] {
            let body = request.encode();
            let error = FolderChangeRequest::decode(&body, Command::FolderCreate, Limits::default());
            assert_eq!(error, Err(FolderChangeError::Invalid(TYPE)));
        }
        for command in COMMANDS {
            let empty = Writer::document(root(command), |_| {});
            let error = FolderChangeRequest::decode(&empty, command, Limits::default()).unwrap_err();
            let Answer::Body(answer) = error.answer(command, Version::V2_5) else { panic!("a body") };
            let expected = FolderChangeStatus::Malformed;
            let answer = FolderChangeResponse::decode(&answer, command, Limits::default()).unwrap();
            assert_eq!(answer.status, expected);
        }
    }

    #[test]
    fn get_hierarchy_lists_folders() {
        let folder = Folder {
            server_id: "5".into(),
            parent_id: "0".into(),
            display_name: "Inbox".into(),
            kind: FolderType::Inbox,
        };
        assert_eq!(
            dump_bytes(&hierarchy_answer(&[folder]), Contents::Shown),
            "<Folders><Folder><DisplayName>Inbox</DisplayName><ServerId>5</ServerId><Type>2</Type>\
             <ParentId>0</ParentId></Folder></Folders>"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(token in 0x53u8..0x56, tail in prop::collection::vec(any::<u8>(), 0..100)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x07, token][..], &tail].concat();
            for command in COMMANDS {
                let _ = FolderChangeRequest::decode(&body, command, Limits::default());
                let _ = FolderChangeResponse::decode(&body, command, Limits::default());
            }
        }
    }
}
