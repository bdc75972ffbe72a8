//! Writing WBXML: exact bytes, minimal page switches, nothing on the wire that XML cannot carry.
//!
//! An element turns out to be empty only when it ends, so its content bit is set by the first content
//! that follows: an empty element is one byte and has no END. Elements nest by closures, so every
//! document is balanced by construction and writing cannot fail.

use std::borrow::Cow;
use std::fmt::Display;

use super::token::{CONTENT, END, OPAQUE, STR_I, SWITCH_PAGE};
use super::{Content, Element, Tag};

/// How every EAS document begins: WBXML 1.3, unknown public id, UTF-8, no string table.
pub const HEADER: [u8; 4] = [0x03, 0x01, 0x6A, 0x00];

/// Writes one document.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    page: u8,
    /// Where the tag stands that was just written, as long as it has no content.
    fresh: Option<usize>,
}

impl Writer {
    /// Writes a whole document: the root element, and by `content` what is in it.
    pub fn document(root: Tag, content: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self { out: HEADER.to_vec(), page: 0, fresh: None };
        writer.element(root, content);
        writer.out
    }

    /// Writes a whole tree as a document.
    pub(super) fn tree_document(root: &Element) -> Vec<u8> {
        let mut writer = Self { out: HEADER.to_vec(), page: 0, fresh: None };
        writer.tree(root);
        writer.out
    }

    /// An element with whatever `content` writes into it.
    pub fn element(&mut self, tag: Tag, content: impl FnOnce(&mut Self)) {
        self.open(tag);
        content(self);
        self.close();
    }

    /// An element without content.
    pub fn empty(&mut self, tag: Tag) {
        self.open(tag);
        self.close();
    }

    /// An element with text, or OPAQUE where the tag's content is bytes by definition.
    pub fn text(&mut self, tag: Tag, text: &str) {
        self.open(tag);
        if tag.is_opaque() {
            self.bytes(text.as_bytes());
        } else {
            self.string(text);
        }
        self.close();
    }

    /// An element with a number, or anything else that shows itself as text.
    pub fn number(&mut self, tag: Tag, value: impl Display) {
        self.text(tag, &value.to_string());
    }

    /// An element with text, if there is any to write.
    pub fn optional(&mut self, tag: Tag, value: Option<impl Display>) {
        if let Some(value) = value {
            self.number(tag, value);
        }
    }

    /// An element with OPAQUE bytes.
    pub fn opaque(&mut self, tag: Tag, bytes: &[u8]) {
        self.open(tag);
        self.bytes(bytes);
        self.close();
    }

    /// A whole tree.
    pub fn tree(&mut self, element: &Element) {
        self.open(element.tag);
        for piece in &element.content {
            match piece {
                Content::Element(child) => self.tree(child),
                Content::Text(text) if element.tag.is_opaque() => self.bytes(text.as_bytes()),
                Content::Text(text) => self.string(text),
                Content::Opaque(bytes) => self.bytes(bytes),
            }
        }
        self.close();
    }

    fn open(&mut self, tag: Tag) {
        self.begin_content();
        if self.page != tag.page() {
            self.page = tag.page();
            self.out.extend([SWITCH_PAGE, self.page]);
        }
        self.fresh = Some(self.out.len());
        self.out.push(tag.token());
    }

    fn close(&mut self) {
        if self.fresh.take().is_none() {
            self.out.push(END);
        }
    }

    /// Content follows: the tag that was just written has some after all.
    fn begin_content(&mut self) {
        if let Some(at) = self.fresh.take() {
            self.out[at] |= CONTENT;
        }
    }

    fn string(&mut self, text: &str) {
        let text = legal(text);
        if text.is_empty() {
            return;
        }
        self.begin_content();
        self.out.push(STR_I);
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        // A body beyond 4 GiB cannot be expressed, nor reach this place: bodies are bounded far below.
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        self.begin_content();
        self.out.push(OPAQUE);
        for shift in [28, 21, 14, 7] {
            if length >> shift != 0 {
                self.out.push(0x80 | (length >> shift & 0x7F) as u8);
            }
        }
        self.out.push((length & 0x7F) as u8);
        self.out.extend_from_slice(bytes);
    }
}

/// Whether XML 1.0 can carry the character (its production `Char`); NUL would also end the STR_I.
fn is_legal(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

/// The text without what XML cannot carry: mail is full of stray controls, devices give up on them.
fn legal(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_legal) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().filter(|&character| is_legal(character)).collect())
    }
}
