//! WBXML as Exchange ActiveSync uses it ([MS-ASWBXML]): code pages, a bounded reader, an exact writer.
//!
//! A document is the header `03 01 6A 00` (WBXML 1.3, no public id, UTF-8, no string table) and one
//! element. Only SWITCH_PAGE, END, STR_I and OPAQUE occur besides tags; the reader refuses everything
//! else with the offset at which it stood, and never panics, whatever the bytes.
//!
//! `Document` is what was read (one flat vector that borrows from the body), `Element` is an owned tree
//! for what is kept or built elsewhere, `Writer` writes, `dump` shows either for logs and tests.
//!
//! Not here: what the elements mean (`crate::eas`).

mod dump;
mod element;
mod reader;
pub mod tags;
mod writer;

#[cfg(test)]
mod tests;

pub use dump::{Contents, dump, dump_bytes};
pub use element::{Content, Element};
pub use reader::{Children, DEPTH_MAX, Document, ElementRef, Limits, WbxmlError, WbxmlFault};
pub use tags::Tag;
pub use writer::{HEADER, Writer};

/// Tokens that mean the same on every code page ([MS-ASWBXML], WBXML 1.3 global tokens).
mod token {
    pub(super) const SWITCH_PAGE: u8 = 0x00;
    pub(super) const END: u8 = 0x01;
    pub(super) const STR_I: u8 = 0x03;
    pub(super) const OPAQUE: u8 = 0xC3;
    /// Set in a tag byte when the element has content.
    pub(super) const CONTENT: u8 = 0x40;
    /// Set in a tag byte when the element has attributes; EAS has none.
    pub(super) const ATTRIBUTES: u8 = 0x80;
    /// UTF-8, as an IANA MIBenum.
    pub(super) const UTF_8: u32 = 0x6A;
}
