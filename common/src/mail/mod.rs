//! Messages (RFC 5322) as bytes: what a server reads of them and changes in them on their way, without a MIME library.
//!
//! Fields are found where they stand, and what is not changed keeps its bytes: folding, order, odd line ends. Reading
//! is tolerant and bounded: a line that is no field is passed over. Writing is strict.
//!
//! Not here: bodies, MIME parts, character sets (the front end's), the envelope (`lmtp`).

pub mod address;
pub mod auto_reply;
pub mod dsn;
pub mod fields;
pub mod lines;
pub mod maildir;
pub mod marks;
pub mod mbox;
pub mod oof;
pub mod trace;

pub use address::Address;
pub use marks::Marks;
