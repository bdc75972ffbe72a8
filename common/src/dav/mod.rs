//! What front end and back end say over HTTP: headers and XML bodies, written and read by one code.
//!
//! The contract in prose is `docs/fe-be.md`. Standard parts are RFC 4918 and RFC 6578; SUBSCRIBE,
//! UNSUBSCRIBE and POLL are Exchange's. What DAV clients say is read here too: conditions, locks, properties.
//! Not here: methods as such, storage, HTTP itself.

pub mod conditions;
pub mod find;
pub mod fragment;
pub mod headers;
pub mod hierarchy;
pub mod if_header;
pub mod items;
pub mod lock_body;
pub mod locks;
pub mod multistatus;
pub mod poll;
pub mod properties;
pub mod range;
pub mod request;
pub mod search;
pub mod standing;
pub mod subscribe;
pub mod xml;

/// The namespace of RFC 4918.
pub const DAV: &str = "DAV:";
/// The namespace of our own elements.
pub const OURS: &str = "urn:directpush:";
/// The namespace of `subscriptionID` (capital E, [Exchange SDK]).
pub const EXCHANGE: &str = "http://schemas.microsoft.com/Exchange/";
/// The namespace of mail properties, `read` among them.
pub const HTTPMAIL: &str = "urn:schemas:httpmail:";

/// A body or header of the other server that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DavError {
    /// Not well-formed, too deep, too large, or with a DOCTYPE.
    #[error("XML: {0}")]
    Xml(String),
    /// An element or attribute that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that cannot be read.
    #[error("{0} cannot be read")]
    Bad(&'static str),
}
