//! The request's side of Sync.

use super::{
    ApplicationData, SyncOptions, application_data, read_application_data, read_options, write_options,
};
use crate::eas::status::SyncStatus;
use crate::eas::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::air_sync::{
    ADD, CHANGE, CLASS, CLIENT_ID, COLLECTION, COLLECTION_ID, COLLECTIONS, COMMANDS, CONVERSATION_MODE,
    DELETE, DELETES_AS_MOVES, FETCH, GET_CHANGES, HEARTBEAT_INTERVAL, OPTIONS, PARTIAL, SERVER_ID, SUPPORTED,
    SYNC, SYNC_KEY, WAIT, WINDOW_SIZE,
};
use crate::wbxml::tags::email2;
use crate::wbxml::{Document, Element, ElementRef, Limits, Tag, WbxmlError, Writer};

/// What a Sync request's body says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncBody {
    /// No body: as the last time (12.1 and up; Status 13 if that is not known any more).
    Empty,
    /// A `Sync` element.
    Full(SyncRequest),
}

/// A Sync request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncRequest {
    /// The collections that are named; empty only if `partial`.
    pub collections: Vec<SyncCollection>,
    /// How long the answer may wait for a change.
    pub wait: Option<Wait>,
    /// The most changes of all collections together.
    pub window_size: Option<u32>,
    /// Collections that are not named are as in the last request.
    pub partial: bool,
}

/// How long a hanging Sync waits: as the device wrote it, for the range is the server's to decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// `Wait`, in minutes (12.1 and up).
    Minutes(i64),
    /// `HeartbeatInterval`, in seconds (14.0 and up).
    Seconds(i64),
}

/// A collection of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncCollection {
    /// The class of its items (2.5 and 12.0).
    pub class: Option<String>,
    /// The key of the last response; `0` begins anew.
    pub sync_key: String,
    /// The folder's server id.
    pub collection_id: String,
    /// Which properties the device keeps; the server must not drop the others on a change. Empty means
    /// none, `None` means that nothing is said.
    pub supported: Option<Vec<Tag>>,
    /// Deleted items go to Deleted Items. `None` means yes.
    pub deletes_as_moves: Option<bool>,
    /// Whether the server's changes are wanted. See `wants_changes`.
    pub get_changes: Option<bool>,
    /// The most changes.
    pub window_size: Option<u32>,
    /// Items of a conversation come in whole (14.0 and up).
    pub conversation_mode: Option<bool>,
    /// The options; several only where a collection holds items of several classes.
    pub options: Vec<SyncOptions>,
    /// What the device changed.
    pub commands: Vec<SyncCommand>,
}

/// A change by the device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyncCommand {
    /// A new item.
    Add {
        /// Its class, where the collection holds several (14.0 and up).
        class: Option<String>,
        /// The id by which the device knows it until the response gives it one.
        client_id: String,
        /// The item. With `email2:Send` at its end it is a draft that is to be sent.
        data: ApplicationData,
    },
    /// Properties of an item that changed.
    Change {
        /// The item.
        server_id: String,
        /// The properties.
        data: ApplicationData,
    },
    /// An item is gone.
    Delete {
        /// The item.
        server_id: String,
    },
    /// An item is wanted in whole.
    Fetch {
        /// The item.
        server_id: String,
    },
}

/// Why a body is not a Sync request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The body is not WBXML, or broken.
    #[error("Sync: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Sync: the root element is {0:?}")]
    NotSync(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("Sync: no valid {0:?}")]
    Invalid(Tag),
    /// `Wait` and `HeartbeatInterval` together.
    #[error("Sync: both Wait and HeartbeatInterval")]
    TwoWaits,
}

impl SyncError {
    /// What the device is answered: Status 4 wherever the body could be read.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(Command::Sync, version, Malformed::from(error)),
            _ => Answer::Body(super::SyncResponse::failed(SyncStatus::ProtocolError).encode(version)),
        }
    }
}

impl SyncBody {
    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, SyncError> {
        if body.is_empty() {
            return Ok(Self::Empty);
        }
        let document = Document::parse(body, limits)?;
        SyncRequest::read(document.root()).map(Self::Full)
    }
}

impl SyncRequest {
    /// The request's body. Order: Collections, Wait or HeartbeatInterval, WindowSize, Partial.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        Writer::document(SYNC, |writer| {
            if !self.collections.is_empty() {
                writer.element(COLLECTIONS, |writer| {
                    for collection in &self.collections {
                        writer.element(COLLECTION, |writer| collection.write(writer, version));
                    }
                });
            }
            match self.wait {
                Some(Wait::Minutes(minutes)) => writer.number(WAIT, minutes),
                Some(Wait::Seconds(seconds)) => writer.number(HEARTBEAT_INTERVAL, seconds),
                None => {}
            }
            writer.optional(WINDOW_SIZE, self.window_size);
            if self.partial {
                writer.empty(PARTIAL);
            }
        })
    }

    fn read(root: ElementRef<'_>) -> Result<Self, SyncError> {
        if root.tag() != SYNC {
            return Err(SyncError::NotSync(root.tag()));
        }
        let collections: Vec<_> = root
            .child(COLLECTIONS)
            .into_iter()
            .flat_map(ElementRef::children)
            .filter(|child| child.tag() == COLLECTION)
            .map(SyncCollection::read)
            .collect::<Result<_, _>>()?;
        let partial = root.child(PARTIAL).is_some();
        if collections.is_empty() && !partial {
            return Err(SyncError::Invalid(COLLECTIONS));
        }
        let wait = match (root.child(WAIT), root.child(HEARTBEAT_INTERVAL)) {
            (Some(_), Some(_)) => return Err(SyncError::TwoWaits),
            (Some(minutes), None) => Some(Wait::Minutes(integer(minutes)?)),
            (None, Some(seconds)) => Some(Wait::Seconds(integer(seconds)?)),
            (None, None) => None,
        };
        Ok(Self { collections, wait, window_size: window_size(root)?, partial })
    }
}

impl SyncCollection {
    /// Whether the server's changes are wanted: not with key 0; else what GetChanges says. Without it the answer is yes,
    /// but devices of 2.5 and 12.0 leave it out when they only upload or fetch (AOSP).
    pub fn wants_changes(&self, version: Version) -> bool {
        self.sync_key != "0"
            && self.get_changes.unwrap_or(version.has_hanging_sync() || self.commands.is_empty())
    }

    fn write(&self, writer: &mut Writer, version: Version) {
        if version.has_class_in_collection() {
            writer.optional(CLASS, self.class.as_ref());
        }
        writer.text(SYNC_KEY, &self.sync_key);
        writer.text(COLLECTION_ID, &self.collection_id);
        if let Some(supported) = &self.supported {
            writer.element(SUPPORTED, |writer| {
                for &tag in supported {
                    writer.empty(tag);
                }
            });
        }
        writer.optional(DELETES_AS_MOVES, self.deletes_as_moves.map(u8::from));
        writer.optional(GET_CHANGES, self.get_changes.map(u8::from));
        writer.optional(WINDOW_SIZE, self.window_size);
        writer.optional(CONVERSATION_MODE, self.conversation_mode.map(u8::from));
        for options in &self.options {
            write_options(writer, options);
        }
        if !self.commands.is_empty() {
            writer.element(COMMANDS, |writer| {
                for command in &self.commands {
                    command.write(writer);
                }
            });
        }
    }

    /// The elements may come in any order. Those of single properties that are repeated count once.
    fn read(collection: ElementRef<'_>) -> Result<Self, SyncError> {
        let switch = |tag| collection.child(tag).map(is_set);
        let options = collection.children().filter(|child| child.tag() == OPTIONS);
        let commands = collection.child(COMMANDS).into_iter().flat_map(ElementRef::children);
        Ok(Self {
            class: collection.child_text(CLASS).map(std::borrow::Cow::into_owned),
            sync_key: text(collection, SYNC_KEY)?,
            collection_id: text(collection, COLLECTION_ID)?,
            supported: collection
                .child(SUPPORTED)
                .map(|supported| supported.children().map(ElementRef::tag).collect()),
            deletes_as_moves: switch(DELETES_AS_MOVES),
            get_changes: switch(GET_CHANGES),
            window_size: window_size(collection)?,
            conversation_mode: switch(CONVERSATION_MODE),
            options: options.map(read_options).collect::<Result<_, _>>().map_err(SyncError::Invalid)?,
            commands: commands.filter_map(SyncCommand::read).collect::<Result<_, _>>()?,
        })
    }
}

impl SyncCommand {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Add { class, client_id, data } => writer.element(ADD, |writer| {
                writer.optional(CLASS, class.as_ref());
                writer.text(CLIENT_ID, client_id);
                write_item(writer, data);
            }),
            Self::Change { server_id, data } => writer.element(CHANGE, |writer| {
                writer.text(SERVER_ID, server_id);
                write_item(writer, data);
            }),
            Self::Delete { server_id } => writer.element(DELETE, |writer| writer.text(SERVER_ID, server_id)),
            Self::Fetch { server_id } => writer.element(FETCH, |writer| writer.text(SERVER_ID, server_id)),
        }
    }

    /// `None` for an element that is no command.
    fn read(command: ElementRef<'_>) -> Option<Result<Self, SyncError>> {
        let read = || {
            let data = || read_item(command);
            let server_id = || text(command, SERVER_ID);
            Ok(Some(match command.tag() {
                ADD => Self::Add {
                    class: command.child_text(CLASS).map(std::borrow::Cow::into_owned),
                    client_id: text(command, CLIENT_ID)?,
                    data: data(),
                },
                CHANGE => Self::Change { server_id: server_id()?, data: data() },
                DELETE => Self::Delete { server_id: server_id()? },
                FETCH => Self::Fetch { server_id: server_id()? },
                _ => return Ok(None),
            }))
        };
        read().transpose()
    }
}

/// An item, and behind it whether it is a draft that leaves: `Send` stands beside its data ([MS-ASEMAIL] 2.2.2.69 Send), and is
/// kept as the last of them.
fn read_item(command: ElementRef<'_>) -> ApplicationData {
    let mut data = read_application_data(command).unwrap_or_default();
    let before = data.len();
    data.retain(|element| element.tag != email2::SEND);
    if data.len() < before || command.child(email2::SEND).is_some() {
        data.push(Element::new(email2::SEND));
    }
    data
}

fn write_item(writer: &mut Writer, data: &ApplicationData) {
    let (sends, data): (Vec<_>, Vec<_>) =
        data.iter().cloned().partition(|element| element.tag == email2::SEND);
    application_data(writer, &data);
    if !sends.is_empty() {
        writer.empty(email2::SEND);
    }
}

/// A switch: an element without content means yes ([MS-ASCMD] GetChanges), and so does any but `0`.
pub(super) fn is_set(element: ElementRef<'_>) -> bool {
    element.text().trim() != "0"
}

fn integer(element: ElementRef<'_>) -> Result<i64, SyncError> {
    number(&element.text()).ok_or(SyncError::Invalid(element.tag()))
}

/// WindowSize; 0 means the most, as does anything beyond 512 ([MS-ASCMD] WindowSize), which the planner
/// sees to.
fn window_size(parent: ElementRef<'_>) -> Result<Option<u32>, SyncError> {
    let Some(element) = parent.child(WINDOW_SIZE) else { return Ok(None) };
    let size = integer(element)?.clamp(-1, i64::from(u32::MAX));
    u32::try_from(size).map(Some).map_err(|_| SyncError::Invalid(WINDOW_SIZE))
}

fn text(parent: ElementRef<'_>, tag: Tag) -> Result<String, SyncError> {
    let text = parent.child_text(tag).filter(|text| !text.is_empty()).ok_or(SyncError::Invalid(tag))?;
    Ok(text.into_owned())
}
