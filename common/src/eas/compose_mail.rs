//! The requests of SendMail, SmartForward and SmartReply in their WBXML form, from 14.0 up ([MS-ASCMD] 2.2.1.17 SendMail,
//! 2.2.1.19 SmartForward, 2.2.1.20 SmartReply), and the answer to one that fails.
//!
//! One that succeeds is answered with an empty body. Below 14.0 the body is the message itself and everything else stands
//! in the query ([`super::request_line::Parameters`]); [`ComposeRequest::of_query`] brings both into one form.
//!
//! Not here: the message, and what becomes of it.

use super::request_line::Parameters;
use super::status::CommonStatus;
use super::{Answer, Command, Malformed, Version, common_status_answer, number};
use crate::wbxml::tags::compose_mail::{
    ACCOUNT_ID, CLIENT_ID, FOLDER_ID, FORWARDEES, INSTANCE_ID, ITEM_ID, LONG_ID, MIME, REPLACE_MIME,
    SAVE_IN_SENT_ITEMS, SEND_MAIL, SMART_FORWARD, SMART_REPLY, SOURCE, STATUS,
};
use crate::wbxml::tags::{air_sync_base, rights_management};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Bytes of a ClientId that is taken. The specification says 40 characters; devices vary.
const CLIENT_ID_BYTES_MAX: usize = 256;
/// Bytes of a LongId ([MS-ASCMD] 2.2.3.98.4 LongId (SmartForward and SmartReply)).
const LONG_ID_BYTES_MAX: usize = 256;

/// A message to be sent, and how.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an element of the request, in any combination")]
pub struct ComposeRequest {
    /// What the device calls the message; below 14.0 nothing.
    pub client_id: Option<String>,
    /// The account that sends (14.1 and later).
    pub account_id: Option<String>,
    /// A copy goes into Sent Items.
    pub save_in_sent: bool,
    /// The message is whole: the original is not added to it.
    pub replace_mime: bool,
    /// What is replied to or forwarded.
    pub source: Option<Source>,
    /// Forwardees, or a body beside the MIME: a calendar item is forwarded (16.0 and later).
    pub forwards_event: bool,
    /// A rights management template is to be applied.
    pub protects: bool,
    /// The message (RFC 5322).
    pub mime: Vec<u8>,
}

/// The original of a reply or forward.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// By folder and item.
    Item {
        /// The folder's server id.
        folder: String,
        /// The item's server id.
        item: String,
        /// Which occurrence of a series.
        instance: Option<String>,
    },
    /// By the id that Search gave.
    Long(String),
}

/// Why a request is not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// The body is not WBXML, or broken.
    #[error("message to send: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("message to send: the root element is {0:?}")]
    OtherRoot(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("message to send: no valid {0:?}")]
    Invalid(Tag),
    /// Elements that exclude each other, or one without its other half.
    #[error("message to send: the ids do not go together")]
    Ids,
    /// There is nothing in Mime.
    #[error("message to send: no message")]
    NoMessage,
}

impl ComposeError {
    /// What the device is told.
    pub fn status(&self) -> CommonStatus {
        match self {
            Self::Wbxml(error) => Malformed::from(error).status(),
            Self::OtherRoot(_) | Self::Invalid(_) => CommonStatus::InvalidXml,
            Self::Ids => CommonStatus::InvalidCombinationOfIds,
            Self::NoMessage => CommonStatus::InvalidMime,
        }
    }
}

/// The root element of a command of this kind.
const fn root(command: Command) -> Tag {
    match command {
        Command::SmartForward => SMART_FORWARD,
        Command::SmartReply => SMART_REPLY,
        _ => SEND_MAIL,
    }
}

/// The answer of a message that was not sent. Below 14.0 a fault in the ids is 500 ([MS-ASCMD] 2.2.2 Common Status
/// Codes has it so for these commands): from it Android concludes that the original is gone, and sends the whole message.
pub fn compose_answer(command: Command, version: Version, status: CommonStatus) -> Answer {
    let smart = matches!(command, Command::SmartForward | Command::SmartReply);
    let original = matches!(status, CommonStatus::InvalidIds | CommonStatus::ItemNotFound);
    match common_status_answer(command, version, status) {
        Answer::Http(_) if smart && original => Answer::Http(500),
        answer => answer,
    }
}

impl ComposeRequest {
    /// The request below 14.0: the body is the message.
    ///
    /// # Errors
    /// [`ComposeError`].
    pub fn of_query(
        command: Command,
        parameters: &Parameters,
        body: impl Into<Vec<u8>>,
    ) -> Result<Self, ComposeError> {
        let source = if command == Command::SendMail {
            None
        } else {
            let Parameters { collection_id, item_id, long_id, occurrence, .. } = parameters.clone();
            Some(source(collection_id, item_id, long_id, occurrence)?)
        };
        let mime = body.into();
        if mime.is_empty() {
            return Err(ComposeError::NoMessage);
        }
        Ok(Self { save_in_sent: parameters.save_in_sent, source, mime, ..Self::default() })
    }

    /// The request's body, from 14.0 up.
    pub fn encode(&self, command: Command) -> Vec<u8> {
        Writer::document(root(command), |writer| {
            writer.optional(CLIENT_ID, self.client_id.as_ref());
            if let Some(source) = &self.source {
                writer.element(SOURCE, |writer| source.write(writer));
            }
            writer.optional(ACCOUNT_ID, self.account_id.as_ref());
            if self.save_in_sent {
                writer.empty(SAVE_IN_SENT_ITEMS);
            }
            if self.replace_mime {
                writer.empty(REPLACE_MIME);
            }
            writer.opaque(MIME, &self.mime);
        })
    }

    /// Reads a request's body, from 14.0 up. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`ComposeError`].
    pub fn decode(command: Command, body: &[u8], bytes_max: usize) -> Result<Self, ComposeError> {
        let document = Document::parse(body, Limits { bytes_max, nodes_max: 1_000 })?;
        let asked = document.root();
        if asked.tag() != root(command) {
            return Err(ComposeError::OtherRoot(asked.tag()));
        }
        let text = |tag| asked.child_text(tag).map(std::borrow::Cow::into_owned);
        let client_id = text(CLIENT_ID).filter(|id| !id.is_empty() && id.len() <= CLIENT_ID_BYTES_MAX);
        let forwards_event = asked.child(FORWARDEES).is_some() || asked.child(air_sync_base::BODY).is_some();
        let source = match asked.child(SOURCE) {
            Some(child) => Some(Source::read(child)?),
            None if command == Command::SendMail => None,
            None => return Err(ComposeError::Invalid(SOURCE)),
        };
        let mime = asked.child(MIME).map(|mime| mime.bytes().into_owned());
        let mime = match mime {
            Some(mime) if mime.is_empty() => return Err(ComposeError::NoMessage),
            Some(mime) => mime,
            None if forwards_event => Vec::new(),
            None => return Err(ComposeError::Invalid(MIME)),
        };
        Ok(Self {
            client_id: Some(client_id.ok_or(ComposeError::Invalid(CLIENT_ID))?),
            account_id: text(ACCOUNT_ID).filter(|id| !id.is_empty()),
            save_in_sent: is_set(asked, SAVE_IN_SENT_ITEMS),
            replace_mime: is_set(asked, REPLACE_MIME),
            source,
            forwards_event,
            protects: asked.child(rights_management::TEMPLATE_ID).is_some(),
            mime,
        })
    }
}

/// An element that says yes by being there; some devices write a number into it all the same.
fn is_set(parent: ElementRef<'_>, tag: Tag) -> bool {
    parent.child(tag).is_some_and(|child| number(&child.text()) != Some(0))
}

impl Source {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Item { folder, item, instance } => {
                writer.text(FOLDER_ID, folder);
                writer.text(ITEM_ID, item);
                writer.optional(INSTANCE_ID, instance.as_ref());
            }
            Self::Long(id) => writer.text(LONG_ID, id),
        }
    }

    fn read(element: ElementRef<'_>) -> Result<Self, ComposeError> {
        let text = |tag| element.child_text(tag).map(std::borrow::Cow::into_owned);
        source(text(FOLDER_ID), text(ITEM_ID), text(LONG_ID), text(INSTANCE_ID))
    }
}

/// Either a LongId, or a folder and an item.
fn source(
    folder: Option<String>,
    item: Option<String>,
    long: Option<String>,
    instance: Option<String>,
) -> Result<Source, ComposeError> {
    let given = |id: Option<String>| id.filter(|id| !id.is_empty());
    match (given(folder), given(item), given(long)) {
        (None, None, Some(long)) if long.len() <= LONG_ID_BYTES_MAX => Ok(Source::Long(long)),
        (Some(folder), Some(item), None) => Ok(Source::Item { folder, item, instance: given(instance) }),
        (None, None, None) => Err(ComposeError::Invalid(SOURCE)),
        _ => Err(ComposeError::Ids),
    }
}

/// The Status in the answer of a message that was not sent. `None`: it was sent, the body is empty.
///
/// # Errors
/// When it is neither.
pub fn read_answer(body: &[u8], limits: Limits) -> Result<Option<CommonStatus>, ComposeError> {
    if body.is_empty() {
        return Ok(None);
    }
    let document = Document::parse(body, limits)?;
    let code = document.root().child_text(STATUS).and_then(|text| number(&text));
    let status = code.and_then(CommonStatus::from_code);
    status.map(Some).ok_or(ComposeError::Invalid(STATUS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    const MAIL: &[u8] = b"To: b@y\r\n\r\nh\xE9\r\n";

    fn decode(command: Command, body: &[u8]) -> Result<ComposeRequest, ComposeError> {
        ComposeRequest::decode(command, body, 1 << 20)
    }

    fn reply() -> ComposeRequest {
        let item = Source::Item { folder: "2".into(), item: "2:7".into(), instance: None };
        ComposeRequest {
            client_id: Some("33f52a60".into()),
            save_in_sent: true,
            source: Some(item),
            mime: MAIL.to_vec(),
            ..ComposeRequest::default()
        }
    }

    #[test]
    fn a_reply_is_read_as_it_is_written_bytes_and_all() {
        let body = reply().encode(Command::SmartReply);
        assert_eq!(
            dump_bytes(&body, Contents::Hidden),
            dump_bytes(&reply().encode(Command::SmartReply), Contents::Hidden)
        );
        assert_eq!(decode(Command::SmartReply, &body), Ok(reply()));
        let long =
            ComposeRequest { source: Some(Source::Long("RgAA".into())), replace_mime: true, ..reply() };
        assert_eq!(decode(Command::SmartForward, &long.encode(Command::SmartForward)), Ok(long));
        let plain = ComposeRequest { source: None, ..reply() };
        assert_eq!(decode(Command::SendMail, &plain.encode(Command::SendMail)), Ok(plain));
    }

    #[test]
    fn what_is_missing_or_contradictory_has_its_status() {
        #[track_caller]
        fn check(command: Command, body: &[u8], status: u8) {
            assert_eq!(decode(command, body).unwrap_err().status().code(), status);
        }
        let of = |request: ComposeRequest| request.encode(Command::SmartReply);
        check(Command::SendMail, b"", 101);
        check(Command::SendMail, &[3, 1, 0x6A, 0, 0], 102);
        check(Command::SendMail, &of(reply()), 103);
        check(Command::SmartReply, &of(ComposeRequest { client_id: None, ..reply() }), 103);
        check(Command::SmartReply, &of(ComposeRequest { source: None, ..reply() }), 103);
        check(Command::SmartReply, &of(ComposeRequest { mime: Vec::new(), ..reply() }), 107);
        let both = Writer::document(SMART_REPLY, |writer| {
            writer.text(CLIENT_ID, "1");
            writer.element(SOURCE, |writer| {
                writer.text(LONG_ID, "x");
                writer.text(ITEM_ID, "2:7");
            });
            writer.opaque(MIME, MAIL);
        });
        check(Command::SmartReply, &both, 105);
    }

    #[test]
    fn an_event_that_is_forwarded_and_protection_are_seen() {
        let body = Writer::document(SMART_FORWARD, |writer| {
            writer.text(CLIENT_ID, "1");
            writer.element(SOURCE, |writer| {
                writer.text(FOLDER_ID, "4");
                writer.text(ITEM_ID, "4:1");
            });
            writer.empty(FORWARDEES);
            writer.text(rights_management::TEMPLATE_ID, "t");
        });
        let asked = decode(Command::SmartForward, &body).unwrap();
        assert!(asked.forwards_event && asked.protects && asked.mime.is_empty());
    }

    #[test]
    fn a_query_says_the_same() {
        let parameters = Parameters {
            collection_id: Some("2".into()),
            item_id: Some("2:7".into()),
            save_in_sent: true,
            ..Parameters::default()
        };
        let read = |command, parameters: &Parameters| ComposeRequest::of_query(command, parameters, MAIL);
        let same = ComposeRequest { client_id: None, ..reply() };
        assert_eq!(read(Command::SmartReply, &parameters), Ok(same));
        assert_eq!(read(Command::SendMail, &parameters).unwrap().source, None);
        let half = Parameters { item_id: None, ..parameters.clone() };
        assert_eq!(read(Command::SmartReply, &half), Err(ComposeError::Ids));
        let none = ComposeRequest::of_query(Command::SendMail, &parameters, b"".as_slice());
        assert_eq!(none, Err(ComposeError::NoMessage));
    }

    #[test]
    fn failures_are_told_in_each_versions_way() {
        let answer = |version, status| compose_answer(Command::SmartReply, version, status);
        let gone = CommonStatus::ItemNotFound;
        assert_eq!(answer(Version::V12_1, gone), Answer::Http(500));
        assert_eq!(answer(Version::V2_5, CommonStatus::InvalidMime), Answer::Http(400));
        let send = compose_answer(Command::SendMail, Version::V2_5, CommonStatus::MailboxQuotaExceeded);
        assert_eq!(send, Answer::Http(507));
        let Answer::Body(body) = answer(Version::V14_0, gone) else { panic!("14.0 gets a body") };
        assert_eq!(dump_bytes(&body, Contents::Shown), "<SmartReply><Status>150</Status></SmartReply>");
        assert_eq!(read_answer(&body, Limits::default()), Ok(Some(gone)));
        assert_eq!(read_answer(b"", Limits::default()), Ok(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x15, 0x47][..], &tail].concat();
            let _ = (decode(Command::SmartReply, &body), read_answer(&body, Limits::default()));
        }
    }
}
