//! GetItemEstimate's request and response ([MS-ASCMD] 2.2.1.9 GetItemEstimate).
//!
//! Below 14.0 a collection is Class, CollectionId, FilterType, SyncKey; from 14.0 up SyncKey,
//! CollectionId, ConversationMode, Options ([MS-ASCMD] 6.20 GetItemEstimate Request Schema). Both are
//! read at every version, in any order; each is written at its own.
//!
//! Not here: counting.

use super::status::{CommonStatus, ItemEstimateStatus};
use super::sync::{SyncOptions, read_filter, read_options, write_options};
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::air_sync;
use crate::wbxml::tags::item_estimate::{
    CLASS, COLLECTION, COLLECTION_ID, COLLECTIONS, ESTIMATE, GET_ITEM_ESTIMATE, RESPONSE, STATUS,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// A GetItemEstimate request: how many changes would a Sync bring?
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ItemEstimateRequest {
    /// The collections in question; at least one.
    pub collections: Vec<EstimateCollection>,
}

/// A collection of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EstimateCollection {
    /// The class of its items (below 14.0).
    pub class: Option<String>,
    /// The key of the last Sync response.
    pub sync_key: String,
    /// The folder's server id.
    pub collection_id: String,
    /// The options; below 14.0 only a FilterType.
    pub options: Vec<SyncOptions>,
}

/// Why a body is not a GetItemEstimate request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemEstimateError {
    /// The body is not WBXML, or broken.
    #[error("GetItemEstimate: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("GetItemEstimate: the root element is {0:?}")]
    NotItemEstimate(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("GetItemEstimate: no valid {0:?}")]
    Invalid(Tag),
}

impl ItemEstimateError {
    /// What the device is answered. The command has no status of its own for a malformed request.
    pub fn answer(&self, version: Version) -> Answer {
        let malformed = match self {
            Self::Wbxml(error) => Malformed::from(error),
            _ => Malformed::Xml,
        };
        malformed_answer(Command::GetItemEstimate, version, malformed)
    }
}

impl ItemEstimateRequest {
    /// The request's body.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        Writer::document(GET_ITEM_ESTIMATE, |writer| {
            writer.element(COLLECTIONS, |writer| {
                for collection in &self.collections {
                    writer.element(COLLECTION, |writer| collection.write(writer, version));
                }
            });
        })
    }

    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ItemEstimateError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != GET_ITEM_ESTIMATE {
            return Err(ItemEstimateError::NotItemEstimate(root.tag()));
        }
        let collections = root.child(COLLECTIONS).into_iter().flat_map(ElementRef::children);
        let collections = collections.filter(|child| child.tag() == COLLECTION);
        let collections: Vec<_> = collections.map(EstimateCollection::read).collect::<Result<_, _>>()?;
        if collections.is_empty() {
            return Err(ItemEstimateError::Invalid(COLLECTIONS));
        }
        Ok(Self { collections })
    }
}

impl EstimateCollection {
    fn write(&self, writer: &mut Writer, version: Version) {
        if version >= Version::V14_0 {
            writer.text(air_sync::SYNC_KEY, &self.sync_key);
            writer.text(COLLECTION_ID, &self.collection_id);
            for options in &self.options {
                write_options(writer, options);
            }
        } else {
            let filter = self.options.iter().find_map(|options| options.filter_type);
            writer.optional(CLASS, self.class.as_ref());
            writer.text(COLLECTION_ID, &self.collection_id);
            writer.optional(air_sync::FILTER_TYPE, filter);
            writer.text(air_sync::SYNC_KEY, &self.sync_key);
        }
    }

    fn read(collection: ElementRef<'_>) -> Result<Self, ItemEstimateError> {
        let invalid = ItemEstimateError::Invalid;
        let text = |tag| collection.child_text(tag).map(std::borrow::Cow::into_owned);
        let options = collection.children().filter(|child| child.tag() == air_sync::OPTIONS);
        let mut options: Vec<_> = options.map(read_options).collect::<Result<_, _>>().map_err(invalid)?;
        if let Some(filter) = collection.child(air_sync::FILTER_TYPE) {
            let filter_type = Some(read_filter(filter).map_err(invalid)?);
            options.push(SyncOptions { filter_type, ..SyncOptions::default() });
        }
        Ok(Self {
            // A device may name the class of a collection on either page.
            class: text(CLASS).or_else(|| text(air_sync::CLASS)),
            sync_key: text(air_sync::SYNC_KEY).ok_or(invalid(air_sync::SYNC_KEY))?,
            collection_id: text(COLLECTION_ID).ok_or(invalid(COLLECTION_ID))?,
            options,
        })
    }
}

/// The answer to GetItemEstimate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemEstimateResponse {
    /// The collections, in the request's order.
    Collections(Vec<Estimate>),
    /// The request as a whole failed.
    Failed(ItemEstimateStatus),
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// The estimate of one collection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Estimate {
    /// How it went.
    pub status: ItemEstimateStatus,
    /// The class of its items; written at 2.5 and 12.0 only.
    pub class: Option<String>,
    /// The folder's server id.
    pub collection_id: String,
    /// How many changes a Sync would bring; with Status 1.
    pub estimate: Option<u32>,
}

/// Why a body is not a response to GetItemEstimate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemEstimateResponseError {
    /// The body is not WBXML, or broken, or empty.
    #[error("GetItemEstimate response: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("GetItemEstimate response: the root element is {0:?}")]
    NotItemEstimate(Tag),
    /// A status that does not exist.
    #[error("GetItemEstimate response: no known Status")]
    BadStatus,
}

impl ItemEstimateResponse {
    /// The response's body.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        Writer::document(GET_ITEM_ESTIMATE, |writer| match self {
            Self::Collections(collections) => {
                for collection in collections {
                    writer.element(RESPONSE, |writer| collection.write(writer, version));
                }
            }
            Self::Failed(status) => writer.number(STATUS, status),
            Self::Common(status) => writer.number(STATUS, status),
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ItemEstimateResponseError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != GET_ITEM_ESTIMATE {
            return Err(ItemEstimateResponseError::NotItemEstimate(root.tag()));
        }
        if let Some(status) = root.child(STATUS) {
            let code = number(&status.text()).unwrap_or_default();
            if let Some(status) = CommonStatus::from_code(code) {
                return Ok(Self::Common(status));
            }
            let status = ItemEstimateStatus::from_code(code).ok_or(ItemEstimateResponseError::BadStatus)?;
            if status != ItemEstimateStatus::Success {
                return Ok(Self::Failed(status));
            }
        }
        let responses = root.children().filter(|child| child.tag() == RESPONSE);
        responses.map(Estimate::read).collect::<Result<_, _>>().map(Self::Collections)
    }
}

impl Estimate {
    fn write(&self, writer: &mut Writer, version: Version) {
        writer.number(STATUS, self.status);
        writer.element(COLLECTION, |writer| {
            if version.has_class_in_collection() {
                writer.optional(CLASS, self.class.as_ref());
            }
            writer.text(COLLECTION_ID, &self.collection_id);
            writer.optional(ESTIMATE, self.estimate);
        });
    }

    fn read(response: ElementRef<'_>) -> Result<Self, ItemEstimateResponseError> {
        let code = response.child_text(STATUS).and_then(|text| number(&text));
        let status = code.and_then(ItemEstimateStatus::from_code);
        let text = |tag| response.child(COLLECTION).and_then(|collection| collection.child_text(tag));
        Ok(Self {
            status: status.ok_or(ItemEstimateResponseError::BadStatus)?,
            class: text(CLASS).map(std::borrow::Cow::into_owned),
            collection_id: text(COLLECTION_ID).unwrap_or_default().into_owned(),
            estimate: text(ESTIMATE).and_then(|text| text.trim().parse().ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eas::sync::FilterType;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    fn decode(body: &[u8]) -> Result<ItemEstimateRequest, ItemEstimateError> {
        ItemEstimateRequest::decode(body, Limits::default())
    }

    fn inbox(class: Option<&str>) -> ItemEstimateRequest {
        let filter_type = Some(FilterType::ThreeDays);
        ItemEstimateRequest {
            collections: vec![EstimateCollection {
                class: class.map(str::to_owned),
                sync_key: "7".to_owned(),
                collection_id: "5".to_owned(),
                options: vec![SyncOptions { filter_type, ..SyncOptions::default() }],
            }],
        }
    }

    #[test]
    fn requests_of_both_eras() {
        let check = |body: Vec<u8>, version, request: ItemEstimateRequest, shown: &str| {
            assert_eq!(dump_bytes(&body, Contents::Shown), shown);
            assert_eq!(decode(&body).as_ref(), Ok(&request));
            assert_eq!(request.encode(version), body);
        };
        check(
            recorded!("get-item-estimate-request-12.1"),
            Version::V12_1,
            inbox(Some("Email")),
            "<GetItemEstimate><Collections><Collection><Class>Email</Class><CollectionId>5</CollectionId>\
             <AirSync:FilterType>2</AirSync:FilterType><AirSync:SyncKey>7</AirSync:SyncKey></Collection>\
             </Collections></GetItemEstimate>",
        );
        check(
            recorded!("get-item-estimate-request-14.1"),
            Version::V14_1,
            inbox(None),
            "<GetItemEstimate><Collections><Collection><AirSync:SyncKey>7</AirSync:SyncKey>\
             <CollectionId>5</CollectionId><AirSync:Options><AirSync:FilterType>2</AirSync:FilterType>\
             </AirSync:Options></Collection></Collections></GetItemEstimate>",
        );
    }

    #[test]
    fn responses_in_both_directions() {
        let check = |response: ItemEstimateResponse, version, shown: &str| {
            let body = response.encode(version);
            assert_eq!(dump_bytes(&body, Contents::Shown), shown);
            assert_eq!(ItemEstimateResponse::decode(&body, Limits::default()), Ok(response));
        };
        let estimate = |class: Option<&str>| Estimate {
            status: ItemEstimateStatus::Success,
            class: class.map(str::to_owned),
            collection_id: "5".to_owned(),
            estimate: Some(3),
        };
        check(
            ItemEstimateResponse::Collections(vec![estimate(None)]),
            Version::V14_1,
            "<GetItemEstimate><Response><Status>1</Status><Collection><CollectionId>5</CollectionId>\
             <Estimate>3</Estimate></Collection></Response></GetItemEstimate>",
        );
        check(
            ItemEstimateResponse::Collections(vec![estimate(Some("Email"))]),
            Version::V2_5,
            "<GetItemEstimate><Response><Status>1</Status><Collection><Class>Email</Class>\
             <CollectionId>5</CollectionId><Estimate>3</Estimate></Collection></Response></GetItemEstimate>",
        );
        let not_primed = Estimate { status: ItemEstimateStatus::NotPrimed, estimate: None, ..estimate(None) };
        check(
            ItemEstimateResponse::Collections(vec![not_primed]),
            Version::V12_1,
            "<GetItemEstimate><Response><Status>3</Status><Collection><CollectionId>5</CollectionId>\
             </Collection></Response></GetItemEstimate>",
        );
        let common = ItemEstimateResponse::Common(CommonStatus::DeviceNotProvisioned);
        check(common, Version::V14_0, "<GetItemEstimate><Status>142</Status></GetItemEstimate>");
    }

    #[test]
    fn structure_errors_are_answered_by_version() {
        let error = decode(&Writer::document(GET_ITEM_ESTIMATE, |_| {})).unwrap_err();
        assert_eq!(error.answer(Version::V12_1), Answer::Http(400));
        let Answer::Body(body) = error.answer(Version::V14_0) else { panic!("14.0 gets a body") };
        let shown = "<GetItemEstimate><Status>103</Status></GetItemEstimate>";
        assert_eq!(dump_bytes(&body, Contents::Shown), shown);
    }

    proptest! {
        #[test]
        fn what_is_asked_is_read_again(ids in prop::collection::vec(("[!-~]{1,20}", "[!-~]{1,20}"), 1..10)) {
            let collections = ids.into_iter().map(|(sync_key, collection_id)| {
                EstimateCollection { sync_key, collection_id, ..EstimateCollection::default() }
            });
            let request = ItemEstimateRequest { collections: collections.collect() };
            for version in Version::ALL {
                prop_assert_eq!(decode(&request.encode(version)), Ok(request.clone()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x06, 0x45][..], &tail].concat();
            let _ = (decode(&body), ItemEstimateResponse::decode(&body, Limits::default()));
        }
    }
}
