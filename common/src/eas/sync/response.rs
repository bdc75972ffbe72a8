//! The response's side of Sync.

use super::{ApplicationData, application_data, read_application_data};
use crate::eas::status::{CommonStatus, SyncStatus};
use crate::eas::{Version, number};
use crate::wbxml::tags::air_sync::{
    ADD, CHANGE, CLASS, CLIENT_ID, COLLECTION, COLLECTION_ID, COLLECTIONS, COMMANDS, DELETE, FETCH, LIMIT,
    MORE_AVAILABLE, RESPONSES, SERVER_ID, SOFT_DELETE, STATUS, SYNC, SYNC_KEY,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// The answer to Sync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncResponse {
    /// What happened, by collection. None at all is an empty body: a `Collections` without a
    /// `Collection` makes iOS crash.
    Collections(Vec<CollectionResponse>),
    /// The request as a whole failed.
    Failed {
        /// In which way.
        status: SyncStatus,
        /// Status 14: the nearest wait that is granted, in the unit that was asked in. Status 15: the
        /// most collections.
        limit: Option<u32>,
    },
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// What happened to a collection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CollectionResponse {
    /// The class of its items; written at 2.5 and 12.0 only.
    pub class: Option<String>,
    /// The key for the next request; `0` with Status 3.
    pub sync_key: String,
    /// The folder's server id.
    pub collection_id: String,
    /// How it went.
    pub status: SyncStatus,
    /// There are more changes than the window had room for.
    pub more_available: bool,
    /// The server's changes.
    pub commands: Vec<ServerCommand>,
    /// The fate of the device's changes: every Add and Fetch, and what failed of the others.
    pub responses: Vec<CommandResponse>,
}

/// A change on the server.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each field is the element of its name")]
pub enum ServerCommand {
    /// A new item.
    Add { server_id: String, data: ApplicationData },
    /// Properties of an item that changed.
    Change { server_id: String, data: ApplicationData },
    /// An item is gone.
    Delete { server_id: String },
    /// An item is out of the device's filter now, and still there.
    SoftDelete { server_id: String },
}

/// The fate of a change by the device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each field is the element of its name")]
pub enum CommandResponse {
    /// The id that a new item got, unless it failed.
    /// And what the server made of it (a draft's attachments, 16.0 and up).
    Add { client_id: String, server_id: Option<String>, status: SyncStatus, data: Option<ApplicationData> },
    /// A change that worked, where the server has something to say of it (as above).
    Changed { server_id: String, data: ApplicationData },
    /// A change that failed.
    Change { server_id: String, status: SyncStatus },
    /// A deletion that failed.
    Delete { server_id: String, status: SyncStatus },
    /// The item that was wanted, unless it failed.
    Fetch { server_id: String, status: SyncStatus, data: Option<ApplicationData> },
}

/// Why a body is not a response to Sync.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncResponseError {
    /// The body is not WBXML, or broken.
    #[error("Sync response: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Sync response: the root element is {0:?}")]
    NotSync(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("Sync response: no valid {0:?}")]
    Invalid(Tag),
}

impl SyncResponse {
    /// Nothing happened: an empty body.
    pub const fn nothing() -> Self {
        Self::Collections(Vec::new())
    }

    /// A response that says nothing but this status.
    pub const fn failed(status: SyncStatus) -> Self {
        Self::Failed { status, limit: None }
    }

    /// The response's body, perhaps empty. Order within a collection: Class, SyncKey, CollectionId,
    /// Status, MoreAvailable, Commands, Responses ([MS-ASCMD] 2.2.3.29.2 Collection (Sync)).
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match self {
            Self::Collections(collections) if collections.is_empty() => Vec::new(),
            Self::Collections(collections) => Writer::document(SYNC, |writer| {
                writer.element(COLLECTIONS, |writer| {
                    for collection in collections {
                        writer.element(COLLECTION, |writer| collection.write(writer, version));
                    }
                });
            }),
            Self::Failed { status, limit } => Writer::document(SYNC, |writer| {
                writer.number(STATUS, status);
                writer.optional(LIMIT, *limit);
            }),
            Self::Common(status) => Writer::document(SYNC, |writer| writer.number(STATUS, status)),
        }
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, SyncResponseError> {
        if body.is_empty() {
            return Ok(Self::nothing());
        }
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != SYNC {
            return Err(SyncResponseError::NotSync(root.tag()));
        }
        if let Some(status) = root.child(STATUS) {
            let code = number(&status.text()).unwrap_or_default();
            if let Some(status) = CommonStatus::from_code(code) {
                return Ok(Self::Common(status));
            }
            let status = SyncStatus::from_code(code).ok_or(SyncResponseError::Invalid(STATUS))?;
            if status != SyncStatus::Success {
                let limit = root.child_text(LIMIT).and_then(|text| text.trim().parse().ok());
                return Ok(Self::Failed { status, limit });
            }
        }
        let collections = root.child(COLLECTIONS).into_iter().flat_map(ElementRef::children);
        let collections = collections.filter(|child| child.tag() == COLLECTION);
        collections.map(CollectionResponse::read).collect::<Result<_, _>>().map(Self::Collections)
    }
}

impl CollectionResponse {
    /// A collection that failed, or had nothing happen to it.
    pub fn plain(sync_key: impl Into<String>, collection_id: impl Into<String>, status: SyncStatus) -> Self {
        Self {
            class: None,
            sync_key: sync_key.into(),
            collection_id: collection_id.into(),
            status,
            more_available: false,
            commands: Vec::new(),
            responses: Vec::new(),
        }
    }

    fn write(&self, writer: &mut Writer, version: Version) {
        if version.has_class_in_collection() {
            writer.optional(CLASS, self.class.as_ref());
        }
        writer.text(SYNC_KEY, &self.sync_key);
        writer.text(COLLECTION_ID, &self.collection_id);
        writer.number(STATUS, self.status);
        if self.more_available {
            writer.empty(MORE_AVAILABLE);
        }
        if !self.commands.is_empty() {
            writer.element(COMMANDS, |writer| {
                for command in &self.commands {
                    command.write(writer);
                }
            });
        }
        if !self.responses.is_empty() {
            writer.element(RESPONSES, |writer| {
                for response in &self.responses {
                    response.write(writer);
                }
            });
        }
    }

    fn read(collection: ElementRef<'_>) -> Result<Self, SyncResponseError> {
        let commands = collection.child(COMMANDS).into_iter().flat_map(ElementRef::children);
        let responses = collection.child(RESPONSES).into_iter().flat_map(ElementRef::children);
        Ok(Self {
            class: collection.child_text(CLASS).map(std::borrow::Cow::into_owned),
            sync_key: text(collection, SYNC_KEY)?,
            collection_id: text(collection, COLLECTION_ID)?,
            status: status(collection)?,
            more_available: collection.child(MORE_AVAILABLE).is_some(),
            commands: commands.filter_map(ServerCommand::read).collect::<Result<_, _>>()?,
            responses: responses.filter_map(CommandResponse::read).collect::<Result<_, _>>()?,
        })
    }
}

impl ServerCommand {
    fn write(&self, writer: &mut Writer) {
        let (tag, server_id, data) = match self {
            Self::Add { server_id, data } => (ADD, server_id, Some(data)),
            Self::Change { server_id, data } => (CHANGE, server_id, Some(data)),
            Self::Delete { server_id } => (DELETE, server_id, None),
            Self::SoftDelete { server_id } => (SOFT_DELETE, server_id, None),
        };
        writer.element(tag, |writer| {
            writer.text(SERVER_ID, server_id);
            if let Some(data) = data {
                application_data(writer, data);
            }
        });
    }

    /// `None` for an element that is no command.
    fn read(command: ElementRef<'_>) -> Option<Result<Self, SyncResponseError>> {
        let read = || {
            let server_id = || text(command, SERVER_ID);
            let data = || read_application_data(command).unwrap_or_default();
            Ok(Some(match command.tag() {
                ADD => Self::Add { server_id: server_id()?, data: data() },
                CHANGE => Self::Change { server_id: server_id()?, data: data() },
                DELETE => Self::Delete { server_id: server_id()? },
                SOFT_DELETE => Self::SoftDelete { server_id: server_id()? },
                _ => return Ok(None),
            }))
        };
        read().transpose()
    }
}

impl CommandResponse {
    fn write(&self, writer: &mut Writer) {
        let brief = |writer: &mut Writer, tag, server_id: &str, status: SyncStatus| {
            writer.element(tag, |writer| {
                writer.text(SERVER_ID, server_id);
                writer.number(STATUS, status);
            });
        };
        match self {
            Self::Add { client_id, server_id, status, data } => writer.element(ADD, |writer| {
                writer.text(CLIENT_ID, client_id);
                writer.optional(SERVER_ID, server_id.as_ref());
                writer.number(STATUS, status);
                if let Some(data) = data {
                    application_data(writer, data);
                }
            }),
            Self::Changed { server_id, data } => writer.element(CHANGE, |writer| {
                writer.text(SERVER_ID, server_id);
                writer.number(STATUS, SyncStatus::Success);
                application_data(writer, data);
            }),
            Self::Change { server_id, status } => brief(writer, CHANGE, server_id, *status),
            Self::Delete { server_id, status } => brief(writer, DELETE, server_id, *status),
            Self::Fetch { server_id, status, data } => writer.element(FETCH, |writer| {
                writer.text(SERVER_ID, server_id);
                writer.number(STATUS, status);
                if let Some(data) = data {
                    application_data(writer, data);
                }
            }),
        }
    }

    /// `None` for an element that is no response.
    fn read(response: ElementRef<'_>) -> Option<Result<Self, SyncResponseError>> {
        let read = || {
            let server_id = || text(response, SERVER_ID);
            let status = status(response)?;
            Ok(Some(match response.tag() {
                ADD => Self::Add {
                    client_id: text(response, CLIENT_ID)?,
                    server_id: server_id().ok(),
                    status,
                    data: read_application_data(response),
                },
                CHANGE => match read_application_data(response).filter(|_| status == SyncStatus::Success) {
                    Some(data) => Self::Changed { server_id: server_id()?, data },
                    None => Self::Change { server_id: server_id()?, status },
                },
                DELETE => Self::Delete { server_id: server_id()?, status },
                FETCH => {
                    Self::Fetch { server_id: server_id()?, status, data: read_application_data(response) }
                }
                _ => return Ok(None),
            }))
        };
        read().transpose()
    }
}

fn status(parent: ElementRef<'_>) -> Result<SyncStatus, SyncResponseError> {
    let code = parent.child_text(STATUS).and_then(|text| number(&text));
    code.and_then(SyncStatus::from_code).ok_or(SyncResponseError::Invalid(STATUS))
}

fn text(parent: ElementRef<'_>, tag: Tag) -> Result<String, SyncResponseError> {
    parent.child_text(tag).map(std::borrow::Cow::into_owned).ok_or(SyncResponseError::Invalid(tag))
}
