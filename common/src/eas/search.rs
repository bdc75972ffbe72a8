//! Search's request and response ([MS-ASCMD] Search): mail by its words, people by their names.
//!
//! Not here: how it is found; documents (Document Library), which are read so that they can be refused.

use super::status::SearchStatus;
use super::sync::{SyncOptions, read_options};
use super::{Answer, Command, Malformed, Version, malformed_answer};
use crate::directory::Person;
use crate::wbxml::tags::search::{
    AND, CONVERSATION_ID, DEEP_TRAVERSAL, FREE_TEXT, GREATER_THAN, LESS_THAN, LONG_ID, NAME, OPTIONS, OR,
    PICTURE, PROPERTIES, QUERY, RANGE, RESPONSE, RESULT, SEARCH, STATUS, STORE, TOTAL, VALUE,
};
use crate::wbxml::tags::{air_sync, email, gal};
use crate::wbxml::{Document, Element, ElementRef, Limits, WbxmlError, Writer};

/// Results of one response, at most, and when the device does not say.
pub const RESULTS_MAX: u32 = 100;
/// Status of a picture that there is none of ([MS-ASCMD] 2.2.2 Common Status Codes, 173).
const NO_PICTURE: u8 = 173;

/// From which result to which, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// The first, from 0.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl Range {
    /// Reads `0-99`; none is the first hundred. `None` for anything else.
    pub fn read(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else { return Some(Self { first: 0, last: RESULTS_MAX - 1 }) };
        let (first, last) = text.trim().split_once('-')?;
        let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        (range.first <= range.last && range.last < 1_000_000).then_some(range)
    }

    /// How many, within the bound of a response.
    pub fn count(self) -> usize {
        (self.last - self.first).saturating_add(1).min(RESULTS_MAX) as usize
    }
}

/// A Search request.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// Where and what.
    pub store: SearchStore,
    /// Which of the results.
    pub range: Range,
    /// A picture of each person is wanted.
    pub picture: bool,
}

/// Where is searched.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchStore {
    /// In mail.
    Mailbox(MailboxQuery),
    /// Among people: the Global Address List.
    Gal(String),
    /// In documents.
    Documents,
}

/// What is searched for in mail; all of it must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MailboxQuery {
    /// Words.
    pub free_text: String,
    /// Classes of items; none = mail too.
    pub classes: Vec<String>,
    /// Folders; none = all.
    pub collection_ids: Vec<String>,
    /// The folders below too.
    pub deep: bool,
    /// Received after, as the device writes it.
    pub since: Option<String>,
    /// Received before.
    pub before: Option<String>,
    /// A conversation is asked for.
    pub conversation: bool,
    /// Bodies, as for Sync.
    pub options: SyncOptions,
}

/// Why a body is not a Search request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The body is not WBXML, or broken.
    #[error("Search: {0}")]
    Wbxml(#[from] WbxmlError),
    /// Something that must be there is not, or has no valid content.
    #[error("Search: the request is invalid")]
    Invalid,
    /// Alternatives, which are not searched for.
    #[error("Search: the query is too complex")]
    TooComplex,
}

impl SearchError {
    /// What the device is answered: Status 2 or 8 of the store wherever the body could be read.
    pub fn answer(&self, version: Version) -> Answer {
        let status = match self {
            Self::Wbxml(error) => {
                return malformed_answer(Command::Search, version, Malformed::from(error));
            }
            Self::Invalid => SearchStatus::InvalidRequest,
            Self::TooComplex => SearchStatus::TooComplex,
        };
        Answer::Body(SearchResponse::failed(status).encode())
    }
}

impl SearchRequest {
    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, SearchError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        let store = root.child(STORE).filter(|_| root.tag() == SEARCH).ok_or(SearchError::Invalid)?;
        let name = store.child_text(NAME).ok_or(SearchError::Invalid)?;
        let query = store.child(QUERY).ok_or(SearchError::Invalid)?;
        let options = store.child(OPTIONS);
        let range = options.and_then(|options| options.child_text(RANGE));
        let range = Range::read(range.as_deref()).ok_or(SearchError::Invalid)?;
        let picture = options.is_some_and(|options| options.child(PICTURE).is_some());
        let store = match name.trim().to_ascii_lowercase().as_str() {
            "mailbox" => SearchStore::Mailbox(MailboxQuery::read(query, options)?),
            "gal" => SearchStore::Gal(
                Some(query.text().trim().to_owned())
                    .filter(|text| !text.is_empty())
                    .ok_or(SearchError::Invalid)?,
            ),
            "document library" | "documentlibrary" => SearchStore::Documents,
            _ => return Err(SearchError::Invalid),
        };
        Ok(Self { store, range, picture })
    }

    /// The request's body; of the options those that are the store's.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(SEARCH, |writer| {
            writer.element(STORE, |writer| {
                writer.text(
                    NAME,
                    match self.store {
                        SearchStore::Mailbox(_) => "Mailbox",
                        SearchStore::Gal(_) => "GAL",
                        SearchStore::Documents => "Document Library",
                    },
                );
                match &self.store {
                    SearchStore::Mailbox(query) => {
                        writer.element(QUERY, |writer| writer.element(AND, |writer| query.write(writer)));
                    }
                    SearchStore::Gal(text) => writer.text(QUERY, text),
                    SearchStore::Documents => writer.empty(QUERY),
                }
                writer.element(OPTIONS, |writer| {
                    let Range { first, last } = self.range;
                    writer.number(RANGE, format_args!("{first}-{last}"));
                    if matches!(&self.store, SearchStore::Mailbox(query) if query.deep) {
                        writer.empty(DEEP_TRAVERSAL);
                    }
                    if self.picture {
                        writer.empty(PICTURE);
                    }
                });
            });
        })
    }
}

impl MailboxQuery {
    fn read(query: ElementRef<'_>, options: Option<ElementRef<'_>>) -> Result<Self, SearchError> {
        let mut read = Self::default();
        if query.child(OR).is_some() {
            return Err(SearchError::TooComplex);
        }
        // Without And there is but one criterion.
        let criteria = query.child(AND).unwrap_or(query);
        for criterion in criteria.children() {
            let text = || criterion.text().trim().to_owned();
            match criterion.tag() {
                FREE_TEXT => read.free_text = text(),
                air_sync::CLASS => read.classes.push(text()),
                air_sync::COLLECTION_ID => read.collection_ids.push(text()),
                CONVERSATION_ID => read.conversation = true,
                GREATER_THAN | LESS_THAN => {
                    if criterion.child(email::DATE_RECEIVED).is_none() {
                        return Err(SearchError::TooComplex);
                    }
                    let value = criterion.child_text(VALUE).ok_or(SearchError::Invalid)?;
                    let value = Some(value.trim().to_owned());
                    if criterion.tag() == GREATER_THAN { read.since = value } else { read.before = value }
                }
                _ => return Err(SearchError::TooComplex),
            }
        }
        if let Some(options) = options {
            read.deep = options.child(DEEP_TRAVERSAL).is_some();
            read.options = read_options(options).map_err(|_| SearchError::Invalid)?;
        }
        Ok(read)
    }

    fn write(&self, writer: &mut Writer) {
        self.classes.iter().for_each(|class| writer.text(air_sync::CLASS, class));
        self.collection_ids.iter().for_each(|id| writer.text(air_sync::COLLECTION_ID, id));
        writer.text(FREE_TEXT, &self.free_text);
        for (tag, value) in [(GREATER_THAN, &self.since), (LESS_THAN, &self.before)] {
            if let Some(value) = value {
                writer.element(tag, |writer| {
                    writer.empty(email::DATE_RECEIVED);
                    writer.text(VALUE, value);
                });
            }
        }
    }
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchResult {
    /// A message.
    Message {
        /// By which ItemOperations fetches it.
        long_id: String,
        /// Where it lies.
        collection_id: String,
        /// What it is.
        properties: Vec<Element>,
    },
    /// A person.
    Person(Person),
}

/// The answer to Search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResponse {
    /// How it went in the store.
    pub status: SearchStatus,
    /// What was found.
    pub results: Vec<SearchResult>,
    /// The first of them, counted from 0.
    pub first: u32,
    /// How many there are in all.
    pub total: u32,
    /// A picture of each person was asked for; there is none.
    pub picture: bool,
}

impl SearchResponse {
    /// A response that says nothing but this status.
    pub fn failed(status: SearchStatus) -> Self {
        Self { status, results: Vec::new(), first: 0, total: 0, picture: false }
    }

    /// The response's body. Order in the store: Status, Result, Range, Total; nothing found is one empty Result.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(SEARCH, |writer| {
            writer.number(STATUS, SearchStatus::Success);
            writer.element(RESPONSE, |writer| writer.element(STORE, |writer| self.write(writer)));
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.number(STATUS, self.status);
        if self.status != SearchStatus::Success {
            return;
        }
        if self.results.is_empty() {
            writer.empty(RESULT);
            writer.number(TOTAL, 0);
            return;
        }
        for result in &self.results {
            writer.element(RESULT, |writer| match result {
                SearchResult::Message { long_id, collection_id, properties } => {
                    writer.text(air_sync::CLASS, "Email");
                    writer.text(LONG_ID, long_id);
                    writer.text(air_sync::COLLECTION_ID, collection_id);
                    writer.element(PROPERTIES, |writer| properties.iter().for_each(|it| writer.tree(it)));
                }
                SearchResult::Person(person) => {
                    writer.element(PROPERTIES, |writer| write_person(writer, person, self.picture));
                }
            });
        }
        let last = self.first + u32::try_from(self.results.len()).unwrap_or(u32::MAX) - 1;
        writer.number(RANGE, format_args!("{}-{last}", self.first));
        writer.number(TOTAL, self.total);
    }
}

/// A person as the Global Address List shows them.
pub(super) fn write_person(writer: &mut Writer, person: &Person, picture: bool) {
    writer.text(gal::DISPLAY_NAME, &person.name);
    let alias = person.user.split('@').next().unwrap_or(&person.user);
    writer.text(gal::ALIAS, alias);
    if let Some(address) = person.addresses.first() {
        writer.text(gal::EMAIL_ADDRESS, address);
    }
    if picture {
        writer.element(gal::PICTURE, |writer| writer.number(gal::STATUS, NO_PICTURE));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wbxml::{Contents, Tag, dump_bytes};

    fn decode(body: &[u8]) -> Result<SearchRequest, SearchError> {
        SearchRequest::decode(body, Limits::default())
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let query = MailboxQuery {
            free_text: "lunch".into(),
            classes: vec!["Email".into()],
            collection_ids: vec!["5".into()],
            deep: true,
            since: Some("2026-01-01T00:00:00.000Z".into()),
            ..MailboxQuery::default()
        };
        let range = Range { first: 0, last: 49 };
        for store in [SearchStore::Mailbox(query), SearchStore::Gal("ali".into()), SearchStore::Documents] {
            let request = SearchRequest { store, range, picture: true };
            assert_eq!(decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn a_criterion_may_stand_without_and() {
        let body = Writer::document(SEARCH, |writer| {
            writer.element(STORE, |writer| {
                writer.text(NAME, "Mailbox");
                writer.element(QUERY, |writer| writer.text(FREE_TEXT, "x"));
            });
        });
        let SearchStore::Mailbox(query) = decode(&body).unwrap().store else { panic!() };
        assert_eq!(query.free_text, "x");
    }

    #[test]
    fn what_cannot_be_searched_for_is_status_2_or_8() {
        let with = |name: &str, criterion: Tag, range: &str| {
            let body = Writer::document(SEARCH, |writer| {
                writer.element(STORE, |writer| {
                    writer.text(NAME, name);
                    writer.element(QUERY, |writer| writer.text(criterion, "x"));
                    writer.element(OPTIONS, |writer| writer.text(RANGE, range));
                });
            });
            let Answer::Body(answer) = decode(&body).unwrap_err().answer(Version::V14_1) else { panic!() };
            dump_bytes(&answer, Contents::Shown)
        };
        let status = |code: u8| {
            format!(
                "<Search><Status>1</Status><Response><Store><Status>{code}</Status></Store></Response></Search>"
            )
        };
        assert_eq!(with("Mailbox", OR, "0-9"), status(8));
        assert_eq!(with("Mailbox", LESS_THAN, "0-9"), status(8));
        assert_eq!(with("Attic", FREE_TEXT, "0-9"), status(2));
        for range in ["9-0", "x", "1", "-1-3"] {
            assert_eq!(with("Mailbox", FREE_TEXT, range), status(2), "{range}");
        }
        assert_eq!(decode(b"x").unwrap_err().answer(Version::V12_1), Answer::Http(400));
    }

    #[test]
    fn results_come_with_their_range_and_nothing_is_an_empty_result() {
        let person = Person { name: "Alice".into(), user: "a@b".into(), addresses: vec!["a@b".into()] };
        let response = SearchResponse {
            status: SearchStatus::Success,
            results: vec![SearchResult::Person(person)],
            first: 3,
            total: 9,
            picture: true,
        };
        assert_eq!(
            dump_bytes(&response.encode(), Contents::Shown),
            "<Search><Status>1</Status><Response><Store><Status>1</Status><Result><Properties>\
             <GAL:DisplayName>Alice</GAL:DisplayName><GAL:Alias>a</GAL:Alias><GAL:EmailAddress>a@b</GAL:EmailAddress>\
             <GAL:Picture><GAL:Status>173</GAL:Status></GAL:Picture></Properties></Result><Range>3-3</Range><Total>9</Total>\
             </Store></Response></Search>"
        );
        let nothing = SearchResponse::failed(SearchStatus::Success);
        assert_eq!(
            dump_bytes(&nothing.encode(), Contents::Shown),
            "<Search><Status>1</Status><Response><Store><Status>1</Status><Result/><Total>0</Total></Store></Response>\
             </Search>"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x0F, 0x45][..], &tail].concat();
            let _ = decode(&body);
        }
    }
}
