//! An owned element tree: what is kept from a request, and what another crate builds for a response.
//!
//! Item rendering in the front end returns these (`ApplicationData`), Sync requests hand them over.

use std::borrow::Cow;

use super::{Tag, Writer};

/// An element and what is in it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Element {
    /// Which element.
    pub tag: Tag,
    /// Children and texts, in document order.
    pub content: Vec<Content>,
}

/// A piece of an element's content.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Content {
    /// A child element.
    Element(Element),
    /// Text, written as STR_I; what XML cannot carry is left out on the wire.
    Text(String),
    /// Bytes, written as OPAQUE.
    Opaque(Vec<u8>),
}

impl Element {
    /// An element without content.
    pub fn new(tag: Tag) -> Self {
        Self { tag, content: Vec::new() }
    }

    /// An element that holds this text; without content if the text is empty.
    pub fn text(tag: Tag, text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::new(tag) } else { Self { tag, content: vec![Content::Text(text)] } }
    }

    /// An element that holds these bytes.
    pub fn opaque(tag: Tag, bytes: impl Into<Vec<u8>>) -> Self {
        Self { tag, content: vec![Content::Opaque(bytes.into())] }
    }

    /// An element that holds these children.
    pub fn container(tag: Tag, children: impl IntoIterator<Item = Self>) -> Self {
        Self { tag, content: children.into_iter().map(Content::Element).collect() }
    }

    /// Appends a child.
    pub fn push(&mut self, child: Self) {
        self.content.push(Content::Element(child));
    }

    /// The child elements in order.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|piece| match piece {
            Content::Element(child) => Some(child),
            Content::Text(_) | Content::Opaque(_) => None,
        })
    }

    /// The first child with this tag.
    pub fn child(&self, tag: Tag) -> Option<&Self> {
        self.children().find(|child| child.tag == tag)
    }

    /// The element's own text; OPAQUE bytes that are not UTF-8 become U+FFFD.
    pub fn own_text(&self) -> Cow<'_, str> {
        let mut pieces = self.content.iter().filter_map(|piece| match piece {
            Content::Element(_) => None,
            Content::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Content::Opaque(bytes) => Some(String::from_utf8_lossy(bytes)),
        });
        let first = pieces.next().unwrap_or_default();
        pieces.fold(first, |whole, piece| whole + piece)
    }

    /// About how many bytes the element takes on the wire.
    pub fn weight(&self) -> usize {
        let inner = self.content.iter().map(|piece| match piece {
            Content::Element(child) => child.weight(),
            Content::Text(text) => text.len(),
            Content::Opaque(bytes) => bytes.len(),
        });
        4 + inner.sum::<usize>()
    }

    /// The element as a whole WBXML document.
    pub fn to_document(&self) -> Vec<u8> {
        Writer::tree_document(self)
    }
}
