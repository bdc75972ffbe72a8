//! A small XML tree with bounds, for bodies of a few hundred elements.
//!
//! Reading goes through quick-xml's namespace reader: prefixes do not matter, a DOCTYPE is refused, depth
//! and number of elements are bounded. Writing is done by the callers with [`escape`]. Values whose mixed content and
//! attributes must be kept, as dead properties, are read by `fragment` from the same walk.

use std::borrow::Cow;

use quick_xml::{
    NsReader,
    events::{BytesStart, Event},
    name::{PrefixDeclaration, ResolveResult},
};

use super::DavError;

/// Depth of elements, at most.
pub const DEPTH_MAX: usize = 32;
/// Elements and attributes of one body, at most.
pub const NODES_MAX: usize = 200_000;
/// Bytes of all names and namespaces of one body, each counted where it is used, at most.
pub const NAME_BYTES_MAX: usize = 32 << 20;

/// An element with its namespace resolved.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Element {
    /// Namespace; empty if none.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Attributes without namespace declarations: local name and value.
    pub attributes: Vec<(String, String)>,
    /// Child elements.
    pub children: Vec<Element>,
    /// All character data directly inside.
    pub text: String,
}

impl Element {
    /// Whether this is `{ns}name`.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }

    /// The first child `{ns}name`.
    pub fn child(&self, ns: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(ns, name))
    }

    /// All children `{ns}name`.
    pub fn children_named<'a>(&'a self, ns: &'a str, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.is(ns, name))
    }

    /// The trimmed text of the first child `{ns}name`.
    pub fn child_text(&self, ns: &str, name: &str) -> Option<&str> {
        self.child(ns, name).map(|child| child.text.trim())
    }

    /// An attribute by local name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An attribute that must be there and parse.
    pub fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, DavError> {
        let value = self.attribute(name).ok_or(DavError::Missing(name))?;
        value.parse().map_err(|_| DavError::Bad(name))
    }
}

/// Reads one document.
///
/// # Errors
/// [`DavError::Xml`] for anything not well-formed, beyond the bounds, or with a DOCTYPE.
pub fn parse(bytes: &[u8]) -> Result<Element, DavError> {
    let mut tree = Tree::default();
    walk(bytes, &mut tree)?;
    tree.root.ok_or_else(|| DavError::Xml("the document ends too early".into()))
}

/// An attribute that is no namespace declaration.
pub(super) struct Attribute {
    /// Namespace; empty if none.
    pub(super) ns: String,
    /// Local name.
    pub(super) name: String,
    /// With its references resolved.
    pub(super) value: String,
}

/// What is told of each part of a document as it is read, in order. Starts and ends match.
pub(super) trait Sink {
    /// An element begins.
    fn start(&mut self, ns: &str, name: &str, attributes: Vec<Attribute>) -> Result<(), DavError>;
    /// Character data in the innermost open element.
    fn text(&mut self, text: &str) -> Result<(), DavError>;
    /// The innermost open element ends.
    fn end(&mut self) -> Result<(), DavError>;
}

/// Reads one document into a sink. Comments and processing instructions are left out.
pub(super) fn walk(bytes: &[u8], sink: &mut impl Sink) -> Result<(), DavError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DavError::Xml("not UTF-8".into()))?;
    legal(text)?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    let mut budget = Budget::default();
    let (mut depth, mut done) = (0, false);
    loop {
        match reader.read_event().map_err(bad)? {
            Event::Start(_) | Event::Empty(_) if done => {
                return Err(DavError::Xml("more than one root".into()));
            }
            Event::Start(start) => {
                if depth == DEPTH_MAX {
                    return Err(DavError::Xml(format!("deeper than {DEPTH_MAX}")));
                }
                depth += 1;
                element(&reader, &start, &mut budget, sink)?;
            }
            Event::Empty(start) => {
                element(&reader, &start, &mut budget, sink)?;
                sink.end()?;
                done = depth == 0;
            }
            Event::End(_) => {
                if depth == 0 {
                    return Err(DavError::Xml("an end without a start".into()));
                }
                depth -= 1;
                sink.end()?;
                done = depth == 0;
            }
            Event::Text(text) => push_text(sink, depth, &text.xml10_content())?,
            Event::CData(data) => push_text(sink, depth, &data.xml10_content())?,
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(bad)? {
                    Some(character) => character.to_string(),
                    None => match &*reference {
                        "lt" => "<".into(),
                        "gt" => ">".into(),
                        "amp" => "&".into(),
                        "quot" => "\"".into(),
                        "apos" => "'".into(),
                        other => return Err(DavError::Xml(format!("unknown entity {other:?}"))),
                    },
                };
                legal(&resolved)?;
                push_text(sink, depth, &resolved)?;
            }
            Event::DocType(_) => return Err(DavError::Xml("a DOCTYPE is refused".into())),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if depth == 0 && done { Ok(()) } else { Err(DavError::Xml("the document ends too early".into())) }
}

/// Builds an [`Element`].
#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    root: Option<Element>,
}

impl Sink for Tree {
    fn start(&mut self, ns: &str, name: &str, attributes: Vec<Attribute>) -> Result<(), DavError> {
        let attributes = attributes.into_iter().map(|a| (a.name, a.value)).collect();
        let (ns, name) = (ns.to_owned(), name.to_owned());
        self.open.push(Element { ns, name, attributes, ..Element::default() });
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), DavError> {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), DavError> {
        if let Some(element) = self.open.pop() {
            match self.open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => self.root = Some(element),
            }
        }
        Ok(())
    }
}

/// Text or attribute value with the five special characters escaped, and characters that XML 1.0 cannot
/// hold replaced by U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", c as u32)),
            _ if is_legal(c) => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
    out
}

/// Whether XML 1.0 can hold each of these characters (XML 1.0 2.2 Characters).
fn is_legal(c: char) -> bool {
    !matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

fn legal(text: &str) -> Result<(), DavError> {
    let illegal = text.chars().find(|c| !is_legal(*c));
    illegal.map_or(Ok(()), |c| Err(DavError::Xml(format!("the character U+{:04X}", c as u32))))
}

fn bad(error: impl std::fmt::Display) -> DavError {
    DavError::Xml(error.to_string())
}

/// What one document has used of its bounds.
#[derive(Default)]
struct Budget {
    nodes: usize,
    name_bytes: usize,
}

impl Budget {
    /// Names are copied for each element, a long namespace for each element that uses it.
    fn take(&mut self, ns: &str, name: &str) -> Result<(), DavError> {
        self.nodes += 1;
        self.name_bytes += ns.len() + name.len();
        if self.nodes > NODES_MAX {
            return Err(DavError::Xml(format!("more than {NODES_MAX} elements and attributes")));
        }
        if self.name_bytes > NAME_BYTES_MAX {
            return Err(DavError::Xml(format!("more than {NAME_BYTES_MAX} bytes of names")));
        }
        Ok(())
    }
}

fn element(
    reader: &NsReader<&[u8]>,
    start: &BytesStart<'_>,
    budget: &mut Budget,
    sink: &mut impl Sink,
) -> Result<(), DavError> {
    let (ns, name) = reader.resolver().resolve_element(start.name());
    let (ns, name) = (bound(&ns)?, name.as_ref());
    named(name)?;
    budget.take(&ns, name)?;
    let mut attributes: Vec<Attribute> = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(bad)?;
        let value = quick_xml::escape::unescape(&attribute.value).map_err(bad)?.into_owned();
        legal(&value)?;
        if let Some(declaration) = attribute.key.as_namespace_binding() {
            // Namespaces in XML 1.0 5: a prefix cannot be declared away.
            if value.is_empty() && matches!(declaration, PrefixDeclaration::Named(_)) {
                return Err(DavError::Xml("a prefix without a namespace".into()));
            }
            budget.take("", "")?;
            continue;
        }
        let (ns, name) = reader.resolver().resolve_attribute(attribute.key);
        let (ns, name) = (bound(&ns)?.into_owned(), name.as_ref().to_owned());
        named(&name)?;
        budget.take(&ns, &name)?;
        attributes.push(Attribute { ns, name, value });
    }
    sink.start(&ns, name, attributes)
}

fn bound<'a>(ns: &ResolveResult<'a>) -> Result<Cow<'a, str>, DavError> {
    match ns {
        // The reader compares and gives namespaces as they were written.
        ResolveResult::Bound(ns) => quick_xml::escape::unescape(ns.0).map_err(bad),
        ResolveResult::Unbound => Ok(Cow::Borrowed("")),
        ResolveResult::Unknown(_) => Err(DavError::Xml("a prefix without a namespace".into())),
    }
}

/// A local name (XML 1.0 2.3 Name, less the colon), so that what was read can be written again.
fn named(name: &str) -> Result<(), DavError> {
    let first = |c: char| c.is_alphabetic() || c == '_';
    let other =
        |c: char| first(c) || c.is_numeric() || matches!(c, '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}');
    if name.starts_with(first) && name.chars().all(other) {
        Ok(())
    } else {
        Err(DavError::Xml("a name that is none".into()))
    }
}

fn push_text(sink: &mut impl Sink, depth: usize, text: &str) -> Result<(), DavError> {
    match depth {
        0 if text.trim().is_empty() => Ok(()),
        0 => Err(DavError::Xml("text outside the root".into())),
        _ => sink.text(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_do_not_matter() {
        let a = parse(br#"<D:prop xmlns:D="DAV:"><D:a x="1 &amp; 2">t&lt;&#65;</D:a></D:prop>"#).unwrap();
        let b = parse(br#"<prop xmlns="DAV:"><a x="1 &amp; 2"><![CDATA[t<A]]></a></prop>"#).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.child("DAV:", "a").unwrap().attribute("x"), Some("1 & 2"));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(33) + &"</a>".repeat(33);
        for bad in [
            "",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "text",
            "<p:a/>",
            "<a>&x;</a>",
            "<a>\u{0}</a>",
            "<a>&#1;</a>",
            "<a b=\"&#x1f;\"/>",
            "<p:a xmlns:p=\"\"/>",
            "<a><b\"c/></a>",
            "<1a/>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            deep.as_str(),
        ] {
            assert!(matches!(parse(bad.as_bytes()), Err(DavError::Xml(_))), "{bad}");
        }
        let long = format!("<x:r xmlns:x=\"{}\">{}</x:r>", "n".repeat(400_000), "<x:a/>".repeat(100));
        assert!(parse(long.as_bytes()).is_err(), "a long namespace, used often");
        let fits = "<a>".repeat(32) + &"</a>".repeat(32);
        assert!(parse(fits.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn escaped_text_survives(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,40}") {
            let document = format!("<a b=\"{0}\">{0}</a>", escape(&text));
            let element = parse(document.as_bytes()).unwrap();
            prop_assert_eq!(element.attribute("b"), Some(text.as_str()));
            prop_assert_eq!(element.text, text);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
