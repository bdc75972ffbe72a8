//! Reading a WBXML document: one pass, one flat vector, every bound checked on the way.
//!
//! Strict where leniency would hide damage (header, unknown pages, refused tokens), lenient where
//! devices vary: OPAQUE counts wherever text is expected, and a token that a known page does not
//! have is skipped with everything below it.

use std::borrow::Cow;

use super::tags::is_page;
use super::token::{ATTRIBUTES, CONTENT, END, OPAQUE, STR_I, SWITCH_PAGE, UTF_8};
use super::{Content, Element, Tag};

/// Deepest nesting that is read; the root element is at depth 1.
pub const DEPTH_MAX: usize = 32;

/// Bounds on one document, chosen by who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest document, in bytes.
    pub bytes_max: usize,
    /// Most elements and texts together; this bounds the memory of a `Document` (24 bytes each).
    pub nodes_max: usize,
}

impl Default for Limits {
    /// 1 MiB and 65,536 nodes: several times what the largest legal Sync request needs.
    fn default() -> Self {
        Self { bytes_max: 1 << 20, nodes_max: 1 << 16 }
    }
}

/// Why a document was not read, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("WBXML at byte {offset}: {fault}")]
pub struct WbxmlError {
    /// Offset of the offending byte.
    pub offset: usize,
    /// What is wrong there.
    pub fault: WbxmlFault,
}

/// What can be wrong with a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WbxmlFault {
    /// The header is not that of WBXML as EAS uses it; this is some other kind of content.
    #[error("not an EAS WBXML header")]
    Header,
    /// A string table, which EAS never has.
    #[error("a string table of {0} bytes")]
    StringTable(u32),
    /// Longer than the caller's `bytes_max`.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// More elements and texts than the caller's `nodes_max`.
    #[error("more than {0} elements and texts")]
    TooManyNodes(usize),
    /// Nested deeper than `DEPTH_MAX`.
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// The body ends inside a token or an element.
    #[error("the body ends too early")]
    Truncated,
    /// SWITCH_PAGE to a page that EAS does not have.
    #[error("unknown code page {0}")]
    UnknownPage(u8),
    /// The root element is not in the tables.
    #[error("unknown root token {0:#04x}")]
    UnknownRoot(u8),
    /// A tag with attributes.
    #[error("tag byte {0:#04x} has attributes")]
    Attributes(u8),
    /// A global token that EAS does not use: entity, literal, extension, processing instruction.
    #[error("token {0:#04x} is not used in EAS")]
    Refused(u8),
    /// A string without its closing NUL.
    #[error("unterminated string")]
    UnterminatedString,
    /// A string that is not UTF-8, although the header says so.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// OPAQUE content longer than the rest of the body.
    #[error("opaque content of {0} bytes ends beyond the body")]
    OpaqueBeyondEnd(u32),
    /// A multi-byte integer above 32 bits.
    #[error("a multi-byte integer exceeds 32 bits")]
    IntegerOverflow,
    /// END or text outside any element.
    #[error("content outside the root element")]
    OutsideRoot,
    /// Bytes after the root element.
    #[error("bytes after the root element")]
    Trailing,
}

impl WbxmlError {
    /// Whether this is no WBXML at all (Status 101) rather than broken WBXML (Status 102).
    pub fn is_other_content(&self) -> bool {
        self.fault == WbxmlFault::Header
    }
}

#[derive(Clone, Copy, Debug)]
enum Node<'a> {
    /// An element and how many of the nodes behind it are below it.
    Element {
        tag: Tag,
        below: u32,
    },
    Text(&'a str),
    Opaque(&'a [u8]),
}

/// A document that was read; it borrows its texts from the body.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Document<'a> {
    /// Reads a whole document. Never panics, whatever the bytes.
    pub fn parse(body: &'a [u8], limits: Limits) -> Result<Self, WbxmlError> {
        if body.len() > limits.bytes_max {
            return Err(WbxmlError {
                offset: limits.bytes_max,
                fault: WbxmlFault::TooLong(limits.bytes_max),
            });
        }
        let mut cursor = Cursor { body, at: 0 };
        cursor.header()?;
        Ok(Self { nodes: Parser::new(cursor, limits.nodes_max).run()? })
    }

    /// The root element.
    pub fn root(&self) -> ElementRef<'_> {
        ElementRef { nodes: &self.nodes }
    }
}

/// An element of a `Document`, with what is below it.
#[derive(Clone, Copy, Debug)]
pub struct ElementRef<'d> {
    /// The element itself, then all its descendants in document order. Never empty.
    nodes: &'d [Node<'d>],
}

impl<'d> ElementRef<'d> {
    /// The element's tag.
    pub fn tag(self) -> Tag {
        match self.nodes[0] {
            Node::Element { tag, .. } => tag,
            Node::Text(_) | Node::Opaque(_) => unreachable!("an ElementRef begins with its element"),
        }
    }

    /// The child elements in document order.
    pub fn children(self) -> Children<'d> {
        Children { nodes: &self.nodes[1..] }
    }

    /// The first child with this tag.
    pub fn child(self, tag: Tag) -> Option<ElementRef<'d>> {
        self.children().find(|child| child.tag() == tag)
    }

    /// The text of the first child with this tag.
    pub fn child_text(self, tag: Tag) -> Option<Cow<'d, str>> {
        self.child(tag).map(ElementRef::text)
    }

    /// Whether the element has neither text nor children.
    pub fn is_empty(self) -> bool {
        self.nodes.len() == 1
    }

    /// The element's own text; OPAQUE bytes that are not UTF-8 become U+FFFD.
    pub fn text(self) -> Cow<'d, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The element's own text or OPAQUE content as bytes, in order.
    pub fn bytes(self) -> Cow<'d, [u8]> {
        let mut whole = Cow::Borrowed(&[][..]);
        for piece in self.pieces() {
            let bytes = match piece {
                Piece::Element(_) => continue,
                Piece::Text(text) => text.as_bytes(),
                Piece::Opaque(bytes) => bytes,
            };
            if whole.is_empty() {
                whole = Cow::Borrowed(bytes);
            } else {
                whole.to_mut().extend_from_slice(bytes);
            }
        }
        whole
    }

    /// An owned copy of the element and everything below it.
    pub fn to_element(self) -> Element {
        let content = self.pieces().map(|piece| match piece {
            Piece::Element(child) => Content::Element(child.to_element()),
            Piece::Text(text) => Content::Text(text.to_owned()),
            Piece::Opaque(bytes) => Content::Opaque(bytes.to_vec()),
        });
        Element { tag: self.tag(), content: content.collect() }
    }

    /// Each piece of content in order, for `dump`.
    pub(super) fn pieces(self) -> impl Iterator<Item = Piece<'d>> {
        let mut rest = &self.nodes[1..];
        std::iter::from_fn(move || {
            let (&first, behind) = rest.split_first()?;
            let piece = match first {
                Node::Element { below, .. } => {
                    let (inside, after) = rest.split_at(below as usize + 1);
                    rest = after;
                    return Some(Piece::Element(ElementRef { nodes: inside }));
                }
                Node::Text(text) => Piece::Text(text),
                Node::Opaque(bytes) => Piece::Opaque(bytes),
            };
            rest = behind;
            Some(piece)
        })
    }
}

/// One piece of an element's content.
pub(super) enum Piece<'d> {
    Element(ElementRef<'d>),
    Text(&'d str),
    Opaque(&'d [u8]),
}

/// The child elements of an element.
#[derive(Clone, Debug)]
pub struct Children<'d> {
    nodes: &'d [Node<'d>],
}

impl<'d> Iterator for Children<'d> {
    type Item = ElementRef<'d>;

    fn next(&mut self) -> Option<ElementRef<'d>> {
        while let Some((first, behind)) = self.nodes.split_first() {
            if let Node::Element { below, .. } = first {
                let (inside, after) = self.nodes.split_at(*below as usize + 1);
                self.nodes = after;
                return Some(ElementRef { nodes: inside });
            }
            self.nodes = behind;
        }
        None
    }
}

/// Bytes and a position in them.
struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fail<T>(&self, fault: WbxmlFault) -> Result<T, WbxmlError> {
        Err(WbxmlError { offset: self.at, fault })
    }

    fn byte(&mut self) -> Result<u8, WbxmlError> {
        let Some(&byte) = self.body.get(self.at) else {
            return self.fail(WbxmlFault::Truncated);
        };
        self.at += 1;
        Ok(byte)
    }

    /// A multi-byte integer: seven bits per byte, the high bit says that more follow.
    fn integer(&mut self) -> Result<u32, WbxmlError> {
        let start = self.at;
        let mut value: u64 = 0;
        for _ in 0..5 {
            let byte = self.byte()?;
            value = value << 7 | u64::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return u32::try_from(value)
                    .map_err(|_| WbxmlError { offset: start, fault: WbxmlFault::IntegerOverflow });
            }
        }
        Err(WbxmlError { offset: start, fault: WbxmlFault::IntegerOverflow })
    }

    /// Version 1.0 to 1.3, a public id that needs no string table, UTF-8, no string table. Devices
    /// write `03 01 6A 00`; the version differs only in features that EAS does not use.
    fn header(&mut self) -> Result<(), WbxmlError> {
        let other_content = |offset| WbxmlError { offset, fault: WbxmlFault::Header };
        let version = self.byte().map_err(|_| other_content(0))?;
        let public_id = self.integer().map_err(|_| other_content(1))?;
        let charset_at = self.at;
        let charset = self.integer().map_err(|_| other_content(charset_at))?;
        if version > 0x03 || public_id == 0 || charset != UTF_8 {
            return Err(other_content(0));
        }
        let table_at = self.at;
        match self.integer()? {
            0 => Ok(()),
            length => Err(WbxmlError { offset: table_at, fault: WbxmlFault::StringTable(length) }),
        }
    }

    fn string(&mut self) -> Result<&'a str, WbxmlError> {
        let rest = &self.body[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == 0) else {
            return self.fail(WbxmlFault::UnterminatedString);
        };
        let Ok(text) = std::str::from_utf8(&rest[..length]) else {
            return self.fail(WbxmlFault::NotUtf8);
        };
        self.at += length + 1;
        Ok(text)
    }

    fn opaque(&mut self) -> Result<&'a [u8], WbxmlError> {
        let start = self.at;
        let length = self.integer()?;
        let Some(bytes) = self.body[self.at..].get(..length as usize) else {
            return Err(WbxmlError { offset: start, fault: WbxmlFault::OpaqueBeyondEnd(length) });
        };
        self.at += bytes.len();
        Ok(bytes)
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    page: u8,
    nodes: Vec<Node<'a>>,
    nodes_left: usize,
    nodes_max: usize,
    /// The open elements, as positions in `nodes`.
    open: [u32; DEPTH_MAX],
    depth: usize,
    /// The depth of the unknown element that is being skipped, if any.
    skipping: Option<usize>,
}

impl<'a> Parser<'a> {
    fn new(cursor: Cursor<'a>, nodes_max: usize) -> Self {
        let nodes_max = nodes_max.min(u32::MAX as usize);
        Self {
            cursor,
            page: 0,
            nodes: Vec::new(),
            nodes_left: nodes_max,
            nodes_max,
            open: [0; DEPTH_MAX],
            depth: 0,
            skipping: None,
        }
    }

    fn run(mut self) -> Result<Vec<Node<'a>>, WbxmlError> {
        loop {
            self.step()?;
            if self.depth == 0 && !self.nodes.is_empty() {
                break;
            }
        }
        if self.cursor.at < self.cursor.body.len() {
            return self.cursor.fail(WbxmlFault::Trailing);
        }
        Ok(self.nodes)
    }

    fn step(&mut self) -> Result<(), WbxmlError> {
        let offset = self.cursor.at;
        let fail = |fault| Err(WbxmlError { offset, fault });
        match self.cursor.byte()? {
            SWITCH_PAGE => {
                self.page = self.cursor.byte()?;
                if !is_page(self.page) {
                    return fail(WbxmlFault::UnknownPage(self.page));
                }
            }
            END | STR_I | OPAQUE if self.depth == 0 => return fail(WbxmlFault::OutsideRoot),
            END => self.close(),
            STR_I => {
                let text = self.cursor.string()?;
                self.content(offset, Node::Text(text), text.is_empty())?;
            }
            OPAQUE => {
                let bytes = self.cursor.opaque()?;
                self.content(offset, Node::Opaque(bytes), bytes.is_empty())?;
            }
            token @ (0x02 | 0x04 | 0x40..=0x44 | 0x80..=0x84 | 0xC0..=0xC2 | 0xC4) => {
                return fail(WbxmlFault::Refused(token));
            }
            tag if tag & ATTRIBUTES != 0 => return fail(WbxmlFault::Attributes(tag)),
            tag => self.element(offset, tag)?,
        }
        Ok(())
    }

    fn element(&mut self, offset: usize, byte: u8) -> Result<(), WbxmlError> {
        if self.depth == DEPTH_MAX {
            return Err(WbxmlError { offset, fault: WbxmlFault::TooDeep });
        }
        let has_content = byte & CONTENT != 0;
        match Tag::known(self.page, byte & !CONTENT) {
            Some(tag) if self.skipping.is_none() => {
                let position = self.nodes.len();
                self.push(offset, Node::Element { tag, below: 0 })?;
                if has_content {
                    // `nodes_max` fits in u32, so `position` does.
                    self.open[self.depth] = u32::try_from(position).unwrap_or(u32::MAX);
                }
            }
            None if self.depth == 0 => {
                return Err(WbxmlError { offset, fault: WbxmlFault::UnknownRoot(byte & !CONTENT) });
            }
            None if self.skipping.is_none() && has_content => self.skipping = Some(self.depth),
            _ => {}
        }
        if has_content {
            self.depth += 1;
        }
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        match self.skipping {
            Some(depth) if depth == self.depth => self.skipping = None,
            Some(_) => {}
            None => {
                let position = self.open[self.depth] as usize;
                let count = self.nodes.len() - position - 1;
                if let Node::Element { below, .. } = &mut self.nodes[position] {
                    *below = u32::try_from(count).unwrap_or(u32::MAX);
                }
            }
        }
    }

    fn content(&mut self, offset: usize, node: Node<'a>, empty: bool) -> Result<(), WbxmlError> {
        if empty || self.skipping.is_some() {
            return Ok(());
        }
        self.push(offset, node)
    }

    fn push(&mut self, offset: usize, node: Node<'a>) -> Result<(), WbxmlError> {
        if self.nodes_left == 0 {
            return Err(WbxmlError { offset, fault: WbxmlFault::TooManyNodes(self.nodes_max) });
        }
        self.nodes_left -= 1;
        self.nodes.push(node);
        Ok(())
    }
}
