//! FolderSync's request and response ([MS-ASCMD] FolderSync; Status (FolderSync)).
//!
//! A request without SyncKey is incorrectly formatted (Status 10); one with an empty key mismatches
//! (Status 9), as any key does that the server does not know.
//!
//! Not here: which folders there are, and what a key means.

use super::status::{CommonStatus, FolderSyncStatus};
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::folder_hierarchy::{
    ADD, CHANGES, COUNT, DELETE, DISPLAY_NAME, FOLDER_SYNC, PARENT_ID, SERVER_ID, STATUS, SYNC_KEY, TYPE,
    UPDATE,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

numbered! {
    /// What a folder is for ([MS-ASCMD] Type (FolderSync)).
    FolderType {
        /// A user's folder of no particular class.
        UserGeneric = 1,
        /// Inbox.
        Inbox = 2,
        /// Drafts.
        Drafts = 3,
        /// Deleted Items.
        Deleted = 4,
        /// Sent Items.
        Sent = 5,
        /// Outbox.
        Outbox = 6,
        /// The default task list.
        Tasks = 7,
        /// The default calendar.
        Calendar = 8,
        /// The default address book.
        Contacts = 9,
        /// The default notes.
        Notes = 10,
        /// The journal.
        Journal = 11,
        /// A user's mail folder.
        UserMail = 12,
        /// A user's calendar.
        UserCalendar = 13,
        /// A user's address book.
        UserContacts = 14,
        /// A user's task list.
        UserTasks = 15,
        /// A user's journal.
        UserJournal = 16,
        /// A user's notes.
        UserNotes = 17,
        /// Something else.
        Unknown = 18,
        /// Whom the user wrote to of late.
        RecipientCache = 19,
    }
}

/// A FolderSync request: what changed in the hierarchy since this key? `0` asks for all of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FolderSyncRequest {
    /// The key of the last response; never empty.
    pub sync_key: String,
}

/// Why a body is not a FolderSync request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderSyncError {
    /// The body is not WBXML, or broken.
    #[error("FolderSync: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("FolderSync: the root element is {0:?}")]
    NotFolderSync(Tag),
    /// No SyncKey.
    #[error("FolderSync: no SyncKey")]
    NoSyncKey,
    /// A SyncKey without content.
    #[error("FolderSync: an empty SyncKey")]
    EmptySyncKey,
}

impl FolderSyncError {
    /// What the device is answered.
    pub fn answer(&self, version: Version) -> Answer {
        let status = match self {
            Self::Wbxml(error) => {
                return malformed_answer(Command::FolderSync, version, Malformed::from(error));
            }
            Self::NotFolderSync(_) | Self::NoSyncKey => FolderSyncStatus::Malformed,
            Self::EmptySyncKey => FolderSyncStatus::InvalidSyncKey,
        };
        Answer::Body(FolderSyncResponse::Failed(status).encode())
    }
}

impl FolderSyncRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(FOLDER_SYNC, |writer| writer.text(SYNC_KEY, &self.sync_key))
    }

    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, FolderSyncError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != FOLDER_SYNC {
            return Err(FolderSyncError::NotFolderSync(root.tag()));
        }
        let sync_key = root.child_text(SYNC_KEY).ok_or(FolderSyncError::NoSyncKey)?;
        if sync_key.is_empty() {
            return Err(FolderSyncError::EmptySyncKey);
        }
        Ok(Self { sync_key: sync_key.into_owned() })
    }
}

/// The answer to FolderSync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FolderSyncResponse {
    /// Status 1.
    Changes(HierarchyChanges),
    /// Another status of FolderSync's own.
    Failed(FolderSyncStatus),
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// What changed in the hierarchy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HierarchyChanges {
    /// The key for the next request.
    pub sync_key: String,
    /// Folders that were renamed or moved, as they are now.
    pub updated: Vec<Folder>,
    /// Ids of folders that are gone.
    pub deleted: Vec<String>,
    /// New folders, parents before their children.
    pub added: Vec<Folder>,
}

/// A folder of the hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// Its id, which stays the same across renames and moves.
    pub server_id: String,
    /// Its parent's id; `0` at the top.
    pub parent_id: String,
    /// Its name, unique among its siblings.
    pub display_name: String,
    /// What it is for.
    pub kind: FolderType,
}

/// Why a body is not a response to FolderSync.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FolderSyncResponseError {
    /// The body is not WBXML, or broken, or empty.
    #[error("FolderSync response: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("FolderSync response: the root element is {0:?}")]
    NotFolderSync(Tag),
    /// An element that is not there, or has no valid content.
    #[error("FolderSync response: no valid {0:?}")]
    Invalid(Tag),
}

impl FolderSyncResponse {
    /// The response's body. Order: Status, SyncKey, Changes(Count, Update, Delete, Add).
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(FOLDER_SYNC, |writer| match self {
            Self::Changes(changes) => {
                writer.number(STATUS, FolderSyncStatus::Success);
                writer.text(SYNC_KEY, &changes.sync_key);
                writer.element(CHANGES, |writer| changes.write(writer));
            }
            Self::Failed(status) => writer.number(STATUS, status),
            Self::Common(status) => writer.number(STATUS, status),
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, FolderSyncResponseError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != FOLDER_SYNC {
            return Err(FolderSyncResponseError::NotFolderSync(root.tag()));
        }
        let code = root.child_text(STATUS).and_then(|text| number(&text)).unwrap_or_default();
        if let Some(status) = CommonStatus::from_code(code) {
            return Ok(Self::Common(status));
        }
        match FolderSyncStatus::from_code(code) {
            Some(FolderSyncStatus::Success) => HierarchyChanges::read(root).map(Self::Changes),
            Some(status) => Ok(Self::Failed(status)),
            None => Err(FolderSyncResponseError::Invalid(STATUS)),
        }
    }
}

impl HierarchyChanges {
    fn write(&self, writer: &mut Writer) {
        writer.number(COUNT, self.updated.len() + self.deleted.len() + self.added.len());
        for folder in &self.updated {
            writer.element(UPDATE, |writer| folder.write(writer));
        }
        for id in &self.deleted {
            writer.element(DELETE, |writer| writer.text(SERVER_ID, id));
        }
        for folder in &self.added {
            writer.element(ADD, |writer| folder.write(writer));
        }
    }

    fn read(root: ElementRef<'_>) -> Result<Self, FolderSyncResponseError> {
        let mut changes = Self { sync_key: text(root, SYNC_KEY)?, ..Self::default() };
        for change in root.child(CHANGES).into_iter().flat_map(ElementRef::children) {
            match change.tag() {
                UPDATE => changes.updated.push(Folder::read(change)?),
                DELETE => changes.deleted.push(text(change, SERVER_ID)?),
                ADD => changes.added.push(Folder::read(change)?),
                _ => {}
            }
        }
        Ok(changes)
    }
}

impl Folder {
    fn write(&self, writer: &mut Writer) {
        writer.text(SERVER_ID, &self.server_id);
        writer.text(PARENT_ID, &self.parent_id);
        writer.text(DISPLAY_NAME, &self.display_name);
        writer.number(TYPE, self.kind);
    }

    fn read(folder: ElementRef<'_>) -> Result<Self, FolderSyncResponseError> {
        let kind = folder.child_text(TYPE).and_then(|text| number(&text)).and_then(FolderType::from_code);
        Ok(Self {
            server_id: text(folder, SERVER_ID)?,
            parent_id: text(folder, PARENT_ID)?,
            display_name: text(folder, DISPLAY_NAME)?,
            kind: kind.unwrap_or(FolderType::Unknown),
        })
    }
}

fn text(parent: ElementRef<'_>, tag: Tag) -> Result<String, FolderSyncResponseError> {
    parent.child_text(tag).map(std::borrow::Cow::into_owned).ok_or(FolderSyncResponseError::Invalid(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    fn decode(body: &[u8]) -> Result<FolderSyncRequest, FolderSyncError> {
        FolderSyncRequest::decode(body, Limits::default())
    }

    /// The answer at 14.1, shown, and the one at 12.1 as HTTP status.
    #[track_caller]
    fn check_refused(body: &[u8], shown: &str, http: u16) {
        let error = decode(body).unwrap_err();
        let Answer::Body(body) = error.answer(Version::V14_1) else { panic!("14.1 gets a body") };
        assert_eq!(
            dump_bytes(&body, Contents::Shown),
            format!("<FolderSync><Status>{shown}</Status></FolderSync>")
        );
        match error.answer(Version::V12_1) {
            Answer::Http(status) => assert_eq!(status, http),
            Answer::Body(same) => assert_eq!((same, 200), (body, http)),
        }
    }

    #[test]
    fn request_in_both_directions() {
        let body = recorded!("folder-sync-request-key-0");
        let request = FolderSyncRequest { sync_key: "0".to_owned() };
        assert_eq!(decode(&body), Ok(request.clone()));
        assert_eq!(request.encode(), body);
    }

    /// Microsoft's own cases: R4815, R4068, R4086.
    #[test]
    fn requests_that_cannot_be_served() {
        check_refused(&recorded!("folder-sync-request-tag-ff"), "102", 400);
        check_refused(&recorded!("folder-sync-request-empty-key"), "9", 200);
        check_refused(&recorded!("folder-sync-request-no-key"), "10", 200);
        check_refused(b"hello", "101", 400);
        check_refused(&recorded!("ping-request-only-heartbeat"), "10", 200);
    }

    #[test]
    fn response_in_both_directions() {
        let body = recorded!("folder-sync-response-add-inbox");
        let inbox = Folder {
            server_id: "5".to_owned(),
            parent_id: "0".to_owned(),
            display_name: "Inbox".to_owned(),
            kind: FolderType::Inbox,
        };
        let changes =
            HierarchyChanges { sync_key: "1".to_owned(), added: vec![inbox], ..HierarchyChanges::default() };
        let response = FolderSyncResponse::Changes(changes);
        assert_eq!(response.encode(), body);
        assert_eq!(FolderSyncResponse::decode(&body, Limits::default()), Ok(response));
    }

    #[test]
    fn changes_are_counted_and_in_schema_order() {
        let folder = |id: &str| Folder {
            server_id: id.to_owned(),
            parent_id: "0".to_owned(),
            display_name: id.to_owned(),
            kind: FolderType::UserMail,
        };
        let changes = HierarchyChanges {
            sync_key: "2".to_owned(),
            updated: vec![folder("u")],
            deleted: vec!["d".to_owned()],
            added: vec![folder("a")],
        };
        let shown = dump_bytes(&FolderSyncResponse::Changes(changes).encode(), Contents::Shown);
        let of = |id: &str| {
            format!(
                "<ServerId>{id}</ServerId><ParentId>0</ParentId><DisplayName>{id}</DisplayName><Type>12</Type>"
            )
        };
        assert_eq!(
            shown,
            format!(
                "<FolderSync><Status>1</Status><SyncKey>2</SyncKey><Changes><Count>3</Count><Update>{}</Update>\
                 <Delete><ServerId>d</ServerId></Delete><Add>{}</Add></Changes></FolderSync>",
                of("u"),
                of("a")
            )
        );
        let nothing = HierarchyChanges { sync_key: "2".to_owned(), ..HierarchyChanges::default() };
        let shown = dump_bytes(&FolderSyncResponse::Changes(nothing).encode(), Contents::Shown);
        assert!(shown.ends_with("<Changes><Count>0</Count></Changes></FolderSync>"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(rows in prop::collection::vec(("[!-~]{1,20}", "\\PC{1,20}", 1..20i64), 0..20)) {
            let mut changes = HierarchyChanges { sync_key: "9".to_owned(), ..HierarchyChanges::default() };
            for (id, name, kind) in rows {
                let kind = FolderType::from_code(kind).unwrap();
                let display_name = name;
                let folder = Folder { server_id: id.clone(), parent_id: id.clone(), display_name, kind };
                match kind.code() % 3 {
                    0 => changes.added.push(folder),
                    1 => changes.updated.push(folder),
                    _ => changes.deleted.push(id),
                }
            }
            let response = FolderSyncResponse::Changes(changes);
            prop_assert_eq!(FolderSyncResponse::decode(&response.encode(), Limits::default()), Ok(response));
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x07, 0x56][..], &tail].concat();
            let _ = (decode(&body), FolderSyncResponse::decode(&body, Limits::default()));
        }
    }
}
