//! ItemOperations' request and response ([MS-ASCMD] 2.2.1.10 ItemOperations): items and attachments fetched,
//! folders emptied, conversations moved, many in one request, in their order.
//!
//! A response is one WBXML document or, when the device accepts it, several parts: the document, which
//! then names parts by number, and the bytes of each ([MS-ASCMD] MultiPartResponse).
//!
//! Not here: what becomes of each operation (`fe::eas::item_operations`).

use super::status::{CommonStatus, ItemOperationsStatus};
use super::sync::{ApplicationData, SyncOptions, read_options};
use super::{Answer, Command, Malformed, Version, malformed_answer};
use crate::wbxml::tags::item_operations::{
    CONVERSATION_ID, DATA, DELETE_SUB_FOLDERS, DST_FLD_ID, EMPTY_FOLDER_CONTENTS, FETCH, ITEM_OPERATIONS,
    MOVE, MOVE_ALWAYS, OPTIONS, PART, PROPERTIES, RANGE, RESPONSE, STATUS, STORE, TOTAL,
};
use crate::wbxml::tags::{air_sync, air_sync_base, document_library, item_operations, search};
use crate::wbxml::{Content, Document, Element, ElementRef, Limits, Tag, WbxmlError, Writer};

/// The media type of a response in several parts.
pub const MULTIPART_CONTENT_TYPE: &str = "application/vnd.ms-sync.multipart";

/// One operation of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// An item, an attachment or a document.
    Fetch(Fetch),
    /// All items of a folder are deleted.
    EmptyFolderContents {
        /// The folder's server id.
        collection_id: String,
        /// Folders below it too.
        delete_sub_folders: bool,
    },
    /// A conversation goes to another folder (14.0 and up).
    Move {
        /// Which.
        conversation_id: Vec<u8>,
        /// Whether later messages of it go there too; without it the request is refused.
        always: bool,
    },
}

/// A Fetch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fetch {
    /// `Mailbox` or `DocumentLibrary`.
    pub store: String,
    /// The item.
    pub source: FetchSource,
    /// Which bytes of an attachment, the first and the last.
    pub range: Option<(u64, u64)>,
    /// MIMESupport and body preferences.
    pub options: SyncOptions,
    /// The elements that are wanted; all if none is named.
    pub schema: Vec<Tag>,
}

/// What a Fetch names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum FetchSource {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// An item of a folder.
    Item {
        /// The folder's server id.
        collection_id: String,
        /// The item's.
        server_id: String,
    },
    /// An item as Search named it.
    LongId(String),
    /// An attachment.
    FileReference(String),
    /// A document.
    LinkId(String),
}

/// Why a body is not an ItemOperations request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemOperationsError {
    /// The body is not WBXML, or broken.
    #[error("ItemOperations: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("ItemOperations: the root element is {0:?}")]
    NotItemOperations(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("ItemOperations: no valid {0:?}")]
    Invalid(Tag),
}

impl ItemOperationsError {
    /// What the device is answered: Status 2 for what is WBXML, and no request.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(Command::ItemOperations, version, Malformed::from(error)),
            _ => Answer::Body(ItemOperationsResponse::failed(ItemOperationsStatus::ProtocolError).encode()),
        }
    }
}

/// Reads a request's body. Never panics, whatever the bytes.
///
/// # Errors
/// [`ItemOperationsError`].
pub fn decode(body: &[u8], limits: Limits) -> Result<Vec<Operation>, ItemOperationsError> {
    let document = Document::parse(body, limits)?;
    let root = document.root();
    if root.tag() != ITEM_OPERATIONS {
        return Err(ItemOperationsError::NotItemOperations(root.tag()));
    }
    let operations = root.children().filter_map(|child| match child.tag() {
        FETCH => Some(Fetch::read(child).map(Operation::Fetch)),
        EMPTY_FOLDER_CONTENTS => Some(read_empty(child)),
        MOVE => Some(read_move(child)),
        _ => None,
    });
    let operations: Vec<_> = operations.collect::<Result<_, _>>()?;
    if operations.is_empty() {
        return Err(ItemOperationsError::Invalid(FETCH));
    }
    Ok(operations)
}

/// Writes a request, as a device does.
pub fn encode(operations: &[Operation]) -> Vec<u8> {
    Writer::document(ITEM_OPERATIONS, |writer| {
        for operation in operations {
            match operation {
                Operation::Fetch(fetch) => writer.element(FETCH, |writer| fetch.write(writer)),
                Operation::EmptyFolderContents { collection_id, delete_sub_folders } => {
                    writer.element(EMPTY_FOLDER_CONTENTS, |writer| {
                        writer.text(air_sync::COLLECTION_ID, collection_id);
                        if *delete_sub_folders {
                            writer.element(OPTIONS, |writer| writer.empty(DELETE_SUB_FOLDERS));
                        }
                    });
                }
                Operation::Move { conversation_id, always } => writer.element(MOVE, |writer| {
                    writer.opaque(CONVERSATION_ID, conversation_id);
                    writer.text(DST_FLD_ID, "");
                    if *always {
                        writer.element(OPTIONS, |writer| writer.empty(MOVE_ALWAYS));
                    }
                }),
            }
        }
    })
}

fn read_empty(empty: ElementRef<'_>) -> Result<Operation, ItemOperationsError> {
    let collection_id = empty.child_text(air_sync::COLLECTION_ID);
    let collection_id =
        collection_id.ok_or(ItemOperationsError::Invalid(air_sync::COLLECTION_ID))?.into_owned();
    let options = empty.child(OPTIONS);
    let delete_sub_folders = options.is_some_and(|options| options.child(DELETE_SUB_FOLDERS).is_some());
    Ok(Operation::EmptyFolderContents { collection_id, delete_sub_folders })
}

fn read_move(asked: ElementRef<'_>) -> Result<Operation, ItemOperationsError> {
    let id = asked.child(CONVERSATION_ID).ok_or(ItemOperationsError::Invalid(CONVERSATION_ID))?.to_element();
    let conversation_id = id.content.into_iter().find_map(|piece| match piece {
        Content::Opaque(bytes) => Some(bytes),
        Content::Text(text) => Some(text.into_bytes()),
        Content::Element(_) => None,
    });
    let always = asked.child(OPTIONS).is_some_and(|options| options.child(MOVE_ALWAYS).is_some());
    Ok(Operation::Move { conversation_id: conversation_id.unwrap_or_default(), always })
}

impl Fetch {
    fn write(&self, writer: &mut Writer) {
        writer.text(STORE, &self.store);
        match &self.source {
            FetchSource::Nothing => {}
            FetchSource::Item { collection_id, server_id } => {
                writer.text(air_sync::COLLECTION_ID, collection_id);
                writer.text(air_sync::SERVER_ID, server_id);
            }
            FetchSource::LongId(id) => writer.text(search::LONG_ID, id),
            FetchSource::FileReference(reference) => writer.text(air_sync_base::FILE_REFERENCE, reference),
            FetchSource::LinkId(link) => writer.text(document_library::LINK_ID, link),
        }
        let plain = self.schema.is_empty() && self.range.is_none() && self.options == SyncOptions::default();
        if plain {
            return;
        }
        writer.element(OPTIONS, |writer| {
            if !self.schema.is_empty() {
                writer.element(item_operations::SCHEMA, |writer| {
                    for tag in &self.schema {
                        writer.empty(*tag);
                    }
                });
            }
            writer.optional(RANGE, self.range.map(|(first, last)| format!("{first}-{last}")));
            writer.optional(air_sync::MIME_SUPPORT, self.options.mime_support);
            super::sync::write_body_preferences(writer, &self.options);
        });
    }

    fn read(fetch: ElementRef<'_>) -> Result<Self, ItemOperationsError> {
        let text = |tag| fetch.child_text(tag).map(std::borrow::Cow::into_owned);
        let store = text(STORE).ok_or(ItemOperationsError::Invalid(STORE))?;
        let source = if let Some(reference) = text(air_sync_base::FILE_REFERENCE) {
            FetchSource::FileReference(reference)
        } else if let Some(id) = text(search::LONG_ID) {
            FetchSource::LongId(id)
        } else if let Some(server_id) = text(air_sync::SERVER_ID) {
            FetchSource::Item { collection_id: text(air_sync::COLLECTION_ID).unwrap_or_default(), server_id }
        } else if let Some(link) = text(document_library::LINK_ID) {
            FetchSource::LinkId(link)
        } else {
            FetchSource::Nothing
        };
        let Some(options) = fetch.child(OPTIONS) else {
            return Ok(Self { store, source, ..Self::default() });
        };
        let range =
            options.child_text(RANGE).map(|text| range(&text).ok_or(ItemOperationsError::Invalid(RANGE)));
        let schema = options.child(item_operations::SCHEMA).into_iter().flat_map(ElementRef::children);
        Ok(Self {
            store,
            source,
            range: range.transpose()?,
            options: read_options(options).map_err(ItemOperationsError::Invalid)?,
            schema: schema.map(ElementRef::tag).collect(),
        })
    }
}

/// `0-4095`: the first and the last byte.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.trim().split_once('-')?;
    let number = |text: &str| text.trim().parse().ok();
    Some((number(first)?, number(last)?))
}

/// The answer to ItemOperations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ItemOperationsResponse {
    /// How the whole went.
    pub status: ItemOperationsStatus,
    /// What became of each operation, in the order of the request.
    pub outcomes: Vec<Outcome>,
}

/// The status of one operation: the command's own, or a common one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OperationStatus {
    /// One of [MS-ASCMD] 2.2.3.177.8 Status (ItemOperations).
    Own(ItemOperationsStatus),
    /// One of [MS-ASCMD] 2.2.2 Common Status Codes.
    Common(CommonStatus),
}

impl From<ItemOperationsStatus> for OperationStatus {
    fn from(status: ItemOperationsStatus) -> Self {
        Self::Own(status)
    }
}

impl std::fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(status) => status.fmt(f),
            Self::Common(status) => status.fmt(f),
        }
    }
}

/// What became of one operation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Of a Fetch.
    Fetch {
        /// How it went.
        status: OperationStatus,
        /// What was asked for.
        source: FetchSource,
        /// What there is.
        found: Option<Found>,
    },
    /// Of an EmptyFolderContents.
    EmptyFolderContents {
        /// How it went.
        status: OperationStatus,
        /// The folder's server id.
        collection_id: String,
    },
    /// Of a Move.
    Move {
        /// How it went.
        status: OperationStatus,
        /// Which conversation.
        conversation_id: Vec<u8>,
    },
}

/// What a Fetch brings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// An item: its class and its elements.
    Item {
        /// `Email`.
        class: String,
        /// As in Sync.
        data: ApplicationData,
    },
    /// An attachment, or some bytes of it.
    Attachment {
        /// Its media type.
        content_type: String,
        /// The first and the last of these bytes, when a range was asked for.
        range: Option<(u64, u64)>,
        /// The bytes of the whole.
        total: u64,
        /// These bytes.
        bytes: Vec<u8>,
    },
}

impl ItemOperationsResponse {
    /// A response that says nothing but this status.
    pub const fn failed(status: ItemOperationsStatus) -> Self {
        Self { status, outcomes: Vec::new() }
    }

    /// The response as one document: attachments in base64.
    pub fn encode(&self) -> Vec<u8> {
        self.document(&mut None)
    }

    /// The response in several parts: the document first, then what it refers to. Source: [MS-ASCMD]
    /// MultiPartResponse: the number of parts, offset and length of each, all of 32 bits,
    /// little-endian, then the parts.
    pub fn encode_multipart(&self) -> Vec<u8> {
        let mut parts = Some(Vec::new());
        let document = self.document(&mut parts);
        let parts: Vec<Vec<u8>> = std::iter::once(document).chain(parts.unwrap_or_default()).collect();
        let bytes: usize = parts.iter().map(Vec::len).sum();
        let head = 4 + 8 * parts.len();
        let mut out = Vec::with_capacity(head + bytes);
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        out.extend(number(parts.len()));
        let mut offset = head;
        for part in &parts {
            out.extend(number(offset));
            out.extend(number(part.len()));
            offset += part.len();
        }
        for part in &parts {
            out.extend_from_slice(part);
        }
        out
    }

    fn document(&self, parts: &mut Option<Vec<Vec<u8>>>) -> Vec<u8> {
        Writer::document(ITEM_OPERATIONS, |writer| {
            writer.number(STATUS, self.status);
            if !self.outcomes.is_empty() {
                writer.element(RESPONSE, |writer| {
                    for outcome in &self.outcomes {
                        outcome.write(writer, parts);
                    }
                });
            }
        })
    }
}

impl Outcome {
    fn write(&self, writer: &mut Writer, parts: &mut Option<Vec<Vec<u8>>>) {
        match self {
            Self::Fetch { status, source, found } => writer.element(FETCH, |writer| {
                writer.number(STATUS, status);
                match source {
                    FetchSource::Nothing => {}
                    FetchSource::Item { collection_id, server_id } => {
                        writer.text(air_sync::COLLECTION_ID, collection_id);
                        writer.text(air_sync::SERVER_ID, server_id);
                    }
                    FetchSource::LongId(id) => writer.text(search::LONG_ID, id),
                    FetchSource::FileReference(reference) => {
                        writer.text(air_sync_base::FILE_REFERENCE, reference);
                    }
                    FetchSource::LinkId(link) => writer.text(document_library::LINK_ID, link),
                }
                if let Some(found) = found {
                    found.write(writer, parts);
                }
            }),
            Self::EmptyFolderContents { status, collection_id } => {
                writer.element(EMPTY_FOLDER_CONTENTS, |writer| {
                    writer.number(STATUS, status);
                    writer.text(air_sync::COLLECTION_ID, collection_id);
                });
            }
            Self::Move { status, conversation_id } => writer.element(MOVE, |writer| {
                writer.number(STATUS, status);
                writer.opaque(CONVERSATION_ID, conversation_id);
            }),
        }
    }
}

impl Found {
    fn write(&self, writer: &mut Writer, parts: &mut Option<Vec<Vec<u8>>>) {
        match self {
            Self::Item { class, data } => {
                writer.text(air_sync::CLASS, class);
                writer.element(PROPERTIES, |writer| {
                    for element in data {
                        match parts {
                            Some(parts) if element.tag == air_sync_base::BODY => {
                                writer.tree(&with_body_apart(element, parts));
                            }
                            _ => writer.tree(element),
                        }
                    }
                });
            }
            Self::Attachment { content_type, range, total, bytes } => writer.element(PROPERTIES, |writer| {
                if let Some((first, last)) = range {
                    writer.text(RANGE, &format!("{first}-{last}"));
                    writer.number(TOTAL, total);
                }
                writer.text(air_sync_base::CONTENT_TYPE, content_type);
                match parts {
                    Some(parts) => {
                        parts.push(bytes.clone());
                        writer.number(PART, parts.len());
                    }
                    None => writer.text(DATA, &data_encoding::BASE64.encode(bytes)),
                }
            }),
        }
    }
}

/// A Body whose Data became a part of the response ([MS-ASCMD] 2.2.3.130 Part).
fn with_body_apart(body: &Element, parts: &mut Vec<Vec<u8>>) -> Element {
    let mut apart = Element::new(body.tag);
    for child in body.children() {
        if child.tag != air_sync_base::DATA {
            apart.push(child.clone());
            continue;
        }
        let mut bytes = Vec::new();
        for piece in &child.content {
            match piece {
                Content::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Content::Opaque(more) => bytes.extend_from_slice(more),
                Content::Element(_) => {}
            }
        }
        parts.push(bytes);
        apart.push(Element::text(PART, parts.len().to_string()));
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eas::sync::{BodyPreference, BodyType, MimeSupport};
    use crate::wbxml::tags::email;
    use crate::wbxml::{Contents, dump_bytes};

    fn fetch(source: FetchSource) -> Fetch {
        Fetch { store: "Mailbox".into(), source, ..Fetch::default() }
    }

    fn item() -> FetchSource {
        FetchSource::Item { collection_id: "5".into(), server_id: "5:1".into() }
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let html = BodyPreference {
            body_type: BodyType::Html,
            truncation_size: Some(500),
            all_or_none: true,
            preview: None,
        };
        let options = SyncOptions {
            mime_support: Some(MimeSupport::Always),
            body_preferences: vec![html],
            body_part_preferences: vec![html],
            ..SyncOptions::default()
        };
        let operations = vec![
            Operation::Fetch(Fetch { options, schema: vec![email::SUBJECT], ..fetch(item()) }),
            Operation::Fetch(Fetch {
                range: Some((10, 19)),
                ..fetch(FetchSource::FileReference("5:1:2".into()))
            }),
            Operation::Fetch(fetch(FetchSource::LongId("5:1".into()))),
            Operation::Fetch(Fetch {
                store: "DocumentLibrary".into(),
                ..fetch(FetchSource::LinkId("x".into()))
            }),
            Operation::EmptyFolderContents { collection_id: "4".into(), delete_sub_folders: true },
            Operation::Move { conversation_id: vec![0, 1], always: true },
        ];
        assert_eq!(decode(&encode(&operations), Limits::default()), Ok(operations));
    }

    #[test]
    fn what_is_no_request_is_status_2() {
        let answer = |body: &[u8]| decode(body, Limits::default()).unwrap_err().answer(Version::V14_1);
        let status = |answer| match answer {
            Answer::Body(body) => dump_bytes(&body, Contents::Shown),
            Answer::Http(status) => status.to_string(),
        };
        let refused = "<ItemOperations><Status>2</Status></ItemOperations>";
        assert_eq!(status(answer(&Writer::document(ITEM_OPERATIONS, |_| {}))), refused);
        assert_eq!(status(answer(&Writer::document(FETCH, |_| {}))), refused);
        let bad = Writer::document(ITEM_OPERATIONS, |writer| {
            writer.element(FETCH, |writer| {
                writer.text(STORE, "Mailbox");
                writer.element(OPTIONS, |writer| writer.text(RANGE, "ten"));
            });
        });
        assert_eq!(status(answer(&bad)), refused);
        assert_eq!(
            status(answer(&[0x03, 0x01, 0x6A, 0x00, 0xFF])),
            "<ItemOperations><Status>102</Status></ItemOperations>"
        );
    }

    fn response() -> ItemOperationsResponse {
        let body = Element::container(
            air_sync_base::BODY,
            [Element::text(air_sync_base::TYPE, "1"), Element::text(air_sync_base::DATA, "Hello")],
        );
        ItemOperationsResponse {
            status: ItemOperationsStatus::Success,
            outcomes: vec![
                Outcome::Fetch {
                    status: ItemOperationsStatus::Success.into(),
                    source: item(),
                    found: Some(Found::Item {
                        class: "Email".into(),
                        data: vec![Element::text(email::SUBJECT, "s"), body],
                    }),
                },
                Outcome::Fetch {
                    status: ItemOperationsStatus::Success.into(),
                    source: FetchSource::FileReference("5:1:2".into()),
                    found: Some(Found::Attachment {
                        content_type: "image/png".into(),
                        range: Some((1, 3)),
                        total: 9,
                        bytes: b"png".to_vec(),
                    }),
                },
                Outcome::EmptyFolderContents {
                    status: OperationStatus::Common(CommonStatus::AccessDenied),
                    collection_id: "4".into(),
                },
            ],
        }
    }

    #[test]
    fn a_response_is_one_document_or_several_parts() {
        let shown = dump_bytes(&response().encode(), Contents::Shown);
        assert!(shown.contains("<Data>cG5n</Data>") && shown.contains(">Hello<"), "{shown}");
        assert!(shown.contains("<Range>1-3</Range><Total>9</Total>"), "{shown}");
        assert!(shown.contains("<EmptyFolderContents><Status>130</Status>"), "{shown}");

        let whole = response().encode_multipart();
        let number = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(number(0), 3);
        let part = |nth: usize| &whole[number(4 + 8 * nth)..][..number(8 + 8 * nth)];
        assert_eq!((part(1), part(2)), (&b"Hello"[..], &b"png"[..]));
        assert_eq!(number(4 + 16) + number(8 + 16), whole.len());
        let shown = dump_bytes(part(0), Contents::Shown);
        assert!(shown.contains("Part>1</") && shown.contains("<Part>2</Part>"), "{shown}");
        assert!(!shown.contains("Hello"), "{shown}");
    }
}
