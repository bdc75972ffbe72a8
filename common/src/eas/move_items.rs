//! MoveItems' request and response ([MS-ASCMD] 2.2.1.12 MoveItems).
//!
//! Each Move is answered by itself, in the request's order. Success is Status 3.
//!
//! Not here: moving.

use super::status::CommonStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::move_items::{
    DST_FLD_ID, DST_MSG_ID, MOVE, MOVE_ITEMS, RESPONSE, SRC_FLD_ID, SRC_MSG_ID, STATUS,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Moves of one request that are carried out ([MS-ASCMD] 3.1.5.10 Limiting Size of Command Requests).
pub const MOVES_MAX: usize = 1_000;

numbered! {
    /// Answers of MoveItems ([MS-ASCMD] 2.2.3.177.10 Status (MoveItems)).
    MoveItemsStatus {
        /// The source folder is not known, or the item is not in it.
        InvalidSource = 1,
        /// The destination folder is not known.
        InvalidDestination = 2,
        /// Done.
        Success = 3,
        /// Source and destination are the same.
        SameFolder = 4,
        /// The item cannot be moved there, or is to be moved to more than one place; or the request is too long.
        CannotMove = 5,
        /// Not now: the item or a folder is locked.
        Locked = 7,
    }
}

/// A MoveItems request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MoveItemsRequest {
    /// What to move; at least one.
    pub moves: Vec<Move>,
}

/// One item, from where to where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// The item's server id.
    pub item: String,
    /// The folder it lies in.
    pub from: String,
    /// The folder it is to lie in.
    pub to: String,
}

/// Why a body is not what it should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveItemsError {
    /// The body is not WBXML, or broken.
    #[error("MoveItems: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("MoveItems: the root element is {0:?}")]
    NotMoveItems(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("MoveItems: no valid {0:?}")]
    Invalid(Tag),
}

impl MoveItemsError {
    /// What the device is answered.
    pub fn answer(&self, version: Version) -> Answer {
        let malformed = match self {
            Self::Wbxml(error) => Malformed::from(error),
            _ => Malformed::Xml,
        };
        malformed_answer(Command::MoveItems, version, malformed)
    }
}

fn parse(body: &[u8], limits: Limits) -> Result<Document<'_>, MoveItemsError> {
    let document = Document::parse(body, limits)?;
    match document.root().tag() {
        MOVE_ITEMS => Ok(document),
        other => Err(MoveItemsError::NotMoveItems(other)),
    }
}

fn text(element: ElementRef<'_>, tag: Tag) -> Result<String, MoveItemsError> {
    let text = element.child_text(tag).filter(|text| !text.is_empty());
    text.map(std::borrow::Cow::into_owned).ok_or(MoveItemsError::Invalid(tag))
}

impl MoveItemsRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(MOVE_ITEMS, |writer| {
            for Move { item, from, to } in &self.moves {
                writer.element(MOVE, |writer| {
                    writer.text(SRC_MSG_ID, item);
                    writer.text(SRC_FLD_ID, from);
                    writer.text(DST_FLD_ID, to);
                });
            }
        })
    }

    /// Reads a request's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`MoveItemsError`].
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, MoveItemsError> {
        let document = parse(body, limits)?;
        let moves = document.root().children().filter(|child| child.tag() == MOVE).map(|child| {
            Ok(Move {
                item: text(child, SRC_MSG_ID)?,
                from: text(child, SRC_FLD_ID)?,
                to: text(child, DST_FLD_ID)?,
            })
        });
        let moves: Vec<Move> = moves.collect::<Result<_, MoveItemsError>>()?;
        if moves.is_empty() { Err(MoveItemsError::Invalid(MOVE)) } else { Ok(Self { moves }) }
    }
}

/// The answer to MoveItems.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MoveItemsResponse {
    /// The moves, in the request's order.
    Moved(Vec<Moved>),
    /// The request as a whole failed.
    Failed(MoveItemsStatus),
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// What became of one move.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moved {
    /// The item's server id as it was.
    pub item: String,
    /// How it went.
    pub status: MoveItemsStatus,
    /// Its server id now; with Status 3.
    pub moved_to: Option<String>,
}

impl MoveItemsResponse {
    /// The response's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(MOVE_ITEMS, |writer| match self {
            Self::Moved(all) => {
                for Moved { item, status, moved_to } in all {
                    writer.element(RESPONSE, |writer| {
                        writer.text(SRC_MSG_ID, item);
                        writer.number(STATUS, status);
                        writer.optional(DST_MSG_ID, moved_to.as_ref());
                    });
                }
            }
            Self::Failed(status) => writer.number(STATUS, status),
            Self::Common(status) => writer.number(STATUS, status),
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`MoveItemsError`].
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, MoveItemsError> {
        let document = parse(body, limits)?;
        let root = document.root();
        let status = |element: ElementRef<'_>| {
            let code = element.child_text(STATUS).and_then(|text| number(&text));
            code.ok_or(MoveItemsError::Invalid(STATUS))
        };
        if root.child(STATUS).is_some() {
            let code = status(root)?;
            let common = CommonStatus::from_code(code).map(Self::Common);
            let own = || MoveItemsStatus::from_code(code).map(Self::Failed);
            return common.or_else(own).ok_or(MoveItemsError::Invalid(STATUS));
        }
        let moved = root.children().filter(|child| child.tag() == RESPONSE).map(|child| {
            Ok(Moved {
                item: text(child, SRC_MSG_ID)?,
                status: MoveItemsStatus::from_code(status(child)?).ok_or(MoveItemsError::Invalid(STATUS))?,
                moved_to: text(child, DST_MSG_ID).ok(),
            })
        });
        moved.collect::<Result<_, _>>().map(Self::Moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    fn one(item: &str) -> Move {
        Move { item: item.into(), from: "5".into(), to: "14".into() }
    }

    /// [MS-ASCMD] 4.15.2 Response shows this document.
    #[test]
    fn the_specifications_example() {
        let moved =
            Moved { item: "5:1".into(), status: MoveItemsStatus::Success, moved_to: Some("14:1".into()) };
        let response = MoveItemsResponse::Moved(vec![moved]);
        let body = response.encode();
        assert_eq!(
            dump_bytes(&body, Contents::Shown),
            "<MoveItems><Response><SrcMsgId>5:1</SrcMsgId><Status>3</Status><DstMsgId>14:1</DstMsgId></Response></MoveItems>"
        );
        assert_eq!(MoveItemsResponse::decode(&body, Limits::default()), Ok(response));
        for response in [
            MoveItemsResponse::Failed(MoveItemsStatus::CannotMove),
            MoveItemsResponse::Common(CommonStatus::DeviceNotProvisioned),
        ] {
            assert_eq!(MoveItemsResponse::decode(&response.encode(), Limits::default()), Ok(response));
        }
    }

    #[test]
    fn a_move_lacks_nothing() {
        let decode = |body: &[u8]| MoveItemsRequest::decode(body, Limits::default());
        assert_eq!(decode(&MoveItemsRequest::default().encode()), Err(MoveItemsError::Invalid(MOVE)));
        let body = MoveItemsRequest { moves: vec![Move { to: String::new(), ..one("5:1") }] }.encode();
        let error = decode(&body).unwrap_err();
        assert_eq!(error, MoveItemsError::Invalid(DST_FLD_ID));
        assert_eq!(error.answer(Version::V12_1), Answer::Http(400));
        let Answer::Body(body) = error.answer(Version::V14_1) else { panic!("14.1 gets a body") };
        assert_eq!(dump_bytes(&body, Contents::Shown), "<MoveItems><Status>103</Status></MoveItems>");
    }

    proptest! {
        #[test]
        fn what_is_asked_is_read_again(items in prop::collection::vec("[!-~]{1,20}", 1..50)) {
            let request = MoveItemsRequest { moves: items.iter().map(|item| one(item)).collect() };
            prop_assert_eq!(MoveItemsRequest::decode(&request.encode(), Limits::default()), Ok(request));
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x05, 0x45][..], &tail].concat();
            let limits = Limits::default();
            let _ = (MoveItemsRequest::decode(&body, limits), MoveItemsResponse::decode(&body, limits));
        }
    }
}
