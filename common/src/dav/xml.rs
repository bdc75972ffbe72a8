//! A small XML tree with bounds, for bodies of a few hundred elements.
//!
//! Reading goes through quick-xml's namespace reader: prefixes do not matter, a DOCTYPE is refused, depth
//! and number of elements are bounded. Writing is done by the callers with [`escape`].

use quick_xml::{
    NsReader,
    events::{BytesStart, Event},
    name::ResolveResult,
};

use super::DavError;

/// Depth of elements, at most.
pub const DEPTH_MAX: usize = 32;
/// Elements and attributes of one body, at most.
pub const NODES_MAX: usize = 200_000;

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
    let text = std::str::from_utf8(bytes).map_err(|_| DavError::Xml("not UTF-8".into()))?;
    legal(text)?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Element> = Vec::new();
    let mut nodes = 0;
    let mut root = None;
    loop {
        let (ns, event) = reader.read_resolved_event().map_err(bad)?;
        match event {
            Event::Start(start) | Event::Empty(start) if root.is_some() => {
                drop(start);
                return Err(DavError::Xml("more than one root".into()));
            }
            Event::Start(start) => {
                let element = element(&ns, &start, &mut nodes)?;
                if open.len() == DEPTH_MAX {
                    return Err(DavError::Xml(format!("deeper than {DEPTH_MAX}")));
                }
                open.push(element);
            }
            Event::Empty(start) => {
                let element = element(&ns, &start, &mut nodes)?;
                close(element, &mut open, &mut root);
            }
            Event::End(_) => {
                let element = open.pop().ok_or_else(|| DavError::Xml("an end without a start".into()))?;
                close(element, &mut open, &mut root);
            }
            Event::Text(text) => push_text(&mut open, &text.xml10_content())?,
            Event::CData(data) => push_text(&mut open, &data.xml10_content())?,
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
                push_text(&mut open, &resolved)?;
            }
            Event::DocType(_) => return Err(DavError::Xml("a DOCTYPE is refused".into())),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match (open.is_empty(), root) {
        (true, Some(root)) => Ok(root),
        _ => Err(DavError::Xml("the document ends too early".into())),
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

fn element(ns: &ResolveResult<'_>, start: &BytesStart<'_>, nodes: &mut usize) -> Result<Element, DavError> {
    let ns = match ns {
        ResolveResult::Bound(ns) => ns.as_ref().to_owned(),
        ResolveResult::Unbound => String::new(),
        ResolveResult::Unknown(_) => return Err(DavError::Xml("a prefix without a namespace".into())),
    };
    let name = start.local_name().as_ref().to_owned();
    *nodes += 1;
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(bad)?;
        *nodes += 1;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let value = quick_xml::escape::unescape(&attribute.value).map_err(bad)?.into_owned();
        legal(&value)?;
        attributes.push((attribute.key.local_name().as_ref().to_owned(), value));
    }
    if *nodes > NODES_MAX {
        return Err(DavError::Xml(format!("more than {NODES_MAX} elements and attributes")));
    }
    Ok(Element { ns, name, attributes, ..Element::default() })
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *root = Some(element),
    }
}

fn push_text(open: &mut [Element], text: &str) -> Result<(), DavError> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(DavError::Xml("text outside the root".into())),
    }
    Ok(())
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
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            deep.as_str(),
        ] {
            assert!(matches!(parse(bad.as_bytes()), Err(DavError::Xml(_))), "{bad}");
        }
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
