//! Find's request and response ([MS-ASCMD] Find; 16.1): the quick search of mail and people.
//!
//! Not here: how it is found, and what a query means (`free_text`).

use super::search::{Range, write_person};
use super::status::FindStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer};
use crate::directory::Person;
use crate::wbxml::tags::find::{
    DEEP_TRAVERSAL, EXECUTE_SEARCH, FIND, FREE_TEXT, GAL_SEARCH_CRITERION, MAIL_BOX_SEARCH_CRITERION,
    OPTIONS, PICTURE, PROPERTIES, QUERY, RANGE, RESPONSE, RESULT, SEARCH_ID, STATUS, TOTAL,
};
use crate::wbxml::tags::{air_sync, item_operations};
use crate::wbxml::{Document, Element, Limits, WbxmlError, Writer};

/// A Find request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FindRequest {
    /// The device's own name for this search.
    pub search_id: String,
    /// Where and what.
    pub criterion: FindCriterion,
    /// Which of the results.
    pub range: Range,
    /// A picture of each person is wanted.
    pub picture: bool,
}

/// Where Find searches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FindCriterion {
    /// In mail.
    Mailbox {
        /// Words and properties.
        free_text: String,
        /// In this folder; none = in all.
        collection_id: Option<String>,
        /// And in those below.
        deep: bool,
    },
    /// Among people.
    Gal(String),
}

/// Why a body is not a Find request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The body is not WBXML, or broken.
    #[error("Find: {0}")]
    Wbxml(#[from] WbxmlError),
    /// Something that must be there is not, or has no valid content.
    #[error("Find: the request is invalid")]
    Invalid,
    /// The range does not begin with 0.
    #[error("Find: the range does not begin with 0")]
    Range,
}

impl FindError {
    /// What the device is answered.
    pub fn answer(&self, version: Version) -> Answer {
        let status = match self {
            Self::Wbxml(error) => return malformed_answer(Command::Find, version, Malformed::from(error)),
            Self::Invalid => FindStatus::InvalidRequest,
            Self::Range => FindStatus::InvalidRange,
        };
        Answer::Body(FindResponse::failed(status).encode())
    }
}

impl FindRequest {
    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, FindError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        let search_id =
            root.child_text(SEARCH_ID).filter(|_| root.tag() == FIND).ok_or(FindError::Invalid)?;
        let execute = root.child(EXECUTE_SEARCH).ok_or(FindError::Invalid)?;
        let mailbox = execute.child(MAIL_BOX_SEARCH_CRITERION);
        let criterion = mailbox.or_else(|| execute.child(GAL_SEARCH_CRITERION)).ok_or(FindError::Invalid)?;
        let query = criterion.child(QUERY).ok_or(FindError::Invalid)?;
        let options = criterion.child(OPTIONS);
        let range = options.and_then(|options| options.child_text(RANGE));
        let range = Range::read(range.as_deref()).ok_or(FindError::Invalid)?;
        if range.first != 0 {
            return Err(FindError::Range);
        }
        let wanted = |tag| options.is_some_and(|options| options.child(tag).is_some());
        let criterion = if mailbox.is_some() {
            let free_text = query.child_text(FREE_TEXT).filter(|text| !text.trim().is_empty());
            let collection_id = query.child_text(air_sync::COLLECTION_ID);
            FindCriterion::Mailbox {
                free_text: free_text.ok_or(FindError::Invalid)?.into_owned(),
                collection_id: collection_id.filter(|id| !id.is_empty()).map(std::borrow::Cow::into_owned),
                deep: wanted(DEEP_TRAVERSAL),
            }
        } else {
            let text = query.text().trim().to_owned();
            FindCriterion::Gal(Some(text).filter(|text| !text.is_empty()).ok_or(FindError::Invalid)?)
        };
        Ok(Self { search_id: search_id.into_owned(), criterion, range, picture: wanted(PICTURE) })
    }

    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        let Range { first, last } = self.range;
        let options = |writer: &mut Writer, deep: bool| {
            writer.element(OPTIONS, |writer| {
                writer.number(RANGE, format_args!("{first}-{last}"));
                if deep {
                    writer.empty(DEEP_TRAVERSAL);
                }
                if self.picture {
                    writer.empty(PICTURE);
                }
            });
        };
        Writer::document(FIND, |writer| {
            writer.text(SEARCH_ID, &self.search_id);
            writer.element(EXECUTE_SEARCH, |writer| match &self.criterion {
                FindCriterion::Mailbox { free_text, collection_id, deep } => {
                    writer.element(MAIL_BOX_SEARCH_CRITERION, |writer| {
                        writer.element(QUERY, |writer| {
                            writer.text(air_sync::CLASS, "Email");
                            writer.optional(air_sync::COLLECTION_ID, collection_id.as_ref());
                            writer.text(FREE_TEXT, free_text);
                        });
                        options(writer, *deep);
                    });
                }
                FindCriterion::Gal(text) => writer.element(GAL_SEARCH_CRITERION, |writer| {
                    writer.text(QUERY, text);
                    options(writer, false);
                }),
            });
        })
    }
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub enum FindResult {
    /// A message.
    Message {
        /// Its id in its folder.
        server_id: String,
        /// Its folder.
        collection_id: String,
        /// What it is.
        properties: Vec<Element>,
    },
    /// A person.
    Person(Person),
}

/// The answer to Find.
#[derive(Clone, Debug, PartialEq)]
pub struct FindResponse {
    /// How it went.
    pub status: FindStatus,
    /// `Mailbox` or `GAL`.
    pub store: &'static str,
    /// What was found, from the first on.
    pub results: Vec<FindResult>,
    /// How many there are in all.
    pub total: u32,
    /// A picture of each person was asked for; there is none.
    pub picture: bool,
}

impl FindResponse {
    /// A response that says nothing but this status.
    pub fn failed(status: FindStatus) -> Self {
        Self { status, store: "", results: Vec::new(), total: 0, picture: false }
    }

    /// The response's body. Order: Status; in Response: Store, Status, Result, Range, Total.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(FIND, |writer| {
            writer.number(STATUS, self.status);
            if self.status == FindStatus::Success {
                writer.element(RESPONSE, |writer| self.write(writer));
            }
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(item_operations::STORE, self.store);
        writer.number(STATUS, FindStatus::Success);
        for result in &self.results {
            writer.element(RESULT, |writer| match result {
                FindResult::Message { server_id, collection_id, properties } => {
                    writer.text(air_sync::CLASS, "Email");
                    writer.text(air_sync::SERVER_ID, server_id);
                    writer.text(air_sync::COLLECTION_ID, collection_id);
                    writer.element(PROPERTIES, |writer| properties.iter().for_each(|it| writer.tree(it)));
                }
                FindResult::Person(person) => {
                    writer.element(PROPERTIES, |writer| write_person(writer, person, self.picture));
                }
            });
        }
        if let Some(last) = self.results.len().checked_sub(1) {
            writer.number(RANGE, format_args!("0-{last}"));
        }
        writer.number(TOTAL, self.total);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wbxml::{Contents, dump_bytes};

    fn request(criterion: FindCriterion, first: u32) -> FindRequest {
        FindRequest { search_id: "s".into(), criterion, range: Range { first, last: 49 }, picture: false }
    }

    fn decode(body: &[u8]) -> Result<FindRequest, FindError> {
        FindRequest::decode(body, Limits::default())
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let collection_id = Some("5".to_owned());
        for criterion in [
            FindCriterion::Mailbox { free_text: "lunch".into(), collection_id, deep: true },
            FindCriterion::Gal("ali".into()),
        ] {
            let request = request(criterion, 0);
            assert_eq!(decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn what_lacks_something_is_status_2_and_a_later_range_is_4() {
        let shown = |error: FindError| match error.answer(Version::V16_1) {
            Answer::Body(body) => dump_bytes(&body, Contents::Shown),
            Answer::Http(status) => status.to_string(),
        };
        let empty = decode(&Writer::document(FIND, |_| {})).unwrap_err();
        assert_eq!(shown(empty), "<Find><Status>2</Status></Find>");
        let later = decode(&request(FindCriterion::Gal("a".into()), 5).encode()).unwrap_err();
        assert_eq!(shown(later), "<Find><Status>4</Status></Find>");
        assert_eq!(shown(decode(b"x").unwrap_err()), "<Find><Status>101</Status></Find>");
    }

    #[test]
    fn results_come_with_their_range() {
        let message = FindResult::Message {
            server_id: "2:9".into(),
            collection_id: "x-2".into(),
            properties: Vec::new(),
        };
        let response = FindResponse {
            status: FindStatus::Success,
            store: "Mailbox",
            results: vec![message],
            total: 1,
            picture: false,
        };
        assert_eq!(
            dump_bytes(&response.encode(), Contents::Shown),
            "<Find><Status>1</Status><Response><ItemOperations:Store>Mailbox</ItemOperations:Store><Status>1</Status>\
             <Result><AirSync:Class>Email</AirSync:Class><AirSync:ServerId>2:9</AirSync:ServerId>\
             <AirSync:CollectionId>x-2</AirSync:CollectionId><Properties/></Result><Range>0-0</Range><Total>1</Total></Response>\
             </Find>"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x19, 0x45][..], &tail].concat();
            let _ = decode(&body);
        }
    }
}
