//! Property names, and XML kept as it is: the values of dead properties and the owner of a lock.
//!
//! A fragment is one element written so that it means the same wherever it stands (RFC 4918 4.3): each element declares
//! its own namespace, attributes keep theirs, `xml:lang` in scope is written onto the fragment's root, and all
//! character data is kept. Prefixes, comments and processing instructions are not. Writing a fragment that was read
//! gives the same bytes.

use std::fmt::{self, Write as _};

use super::DavError;
use super::xml::{Attribute, Sink, escape};

/// The namespace of `xml:lang`.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Bytes of one fragment as it is written, at most.
pub const FRAGMENT_BYTES_MAX: usize = 64 * 1024;

/// The name of a property.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PropertyName {
    /// Namespace; empty if none.
    pub ns: String,
    /// Local name.
    pub name: String,
}

impl PropertyName {
    /// `{ns}name`.
    pub fn new(ns: &str, name: &str) -> Self {
        Self { ns: ns.to_owned(), name: name.to_owned() }
    }

    /// Whether this is `{ns}name`.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }
}

/// As an empty element: how a property is named in an answer. The name must come from a parsed body.
impl fmt::Display for PropertyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} xmlns=\"{}\"/>", self.name, escape(&self.ns))
    }
}

/// One element with all that is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// The element's own name.
    pub name: PropertyName,
    /// The element, self-contained, at most [`FRAGMENT_BYTES_MAX`] bytes.
    pub xml: String,
    /// All character data directly inside the element.
    pub text: String,
}

/// Writes one element and what is inside as it is read.
#[derive(Default)]
pub(super) struct Writer {
    out: String,
    text: String,
    /// Local name and namespace of each open element.
    open: Vec<PropertyName>,
    root: Option<PropertyName>,
    /// The last start tag still lacks its `>`.
    tag_open: bool,
}

impl Writer {
    /// An element begins; `lang` is the `xml:lang` in scope around the root.
    pub(super) fn start(
        &mut self,
        ns: &str,
        name: &str,
        attributes: &[Attribute],
        lang: Option<&str>,
    ) -> Result<(), DavError> {
        self.close_tag();
        let _ = write!(self.out, "<{name}");
        if self.open.last().is_none_or(|parent| parent.ns != ns) {
            let _ = write!(self.out, " xmlns=\"{}\"", escape(ns));
        }
        let own_lang = attributes.iter().any(|attribute| attribute.ns == XML && attribute.name == "lang");
        if let (Some(lang), true, false) = (lang, self.open.is_empty(), own_lang) {
            let _ = write!(self.out, " xml:lang=\"{}\"", escape(lang));
        }
        let mut n = 0;
        for Attribute { ns, name, value } in attributes {
            n += usize::from(!matches!(ns.as_str(), "" | XML));
            let value = escape(value);
            let _ = match ns.as_str() {
                "" => write!(self.out, " {name}=\"{value}\""),
                XML => write!(self.out, " xml:{name}=\"{value}\""),
                ns => write!(self.out, " xmlns:a{n}=\"{}\" a{n}:{name}=\"{value}\"", escape(ns)),
            };
        }
        self.tag_open = true;
        let name = PropertyName::new(ns, name);
        if self.open.is_empty() {
            self.root = Some(name.clone());
        }
        self.open.push(name);
        self.bounded()
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), DavError> {
        if self.open.len() == 1 {
            self.text.push_str(text);
        }
        if !text.is_empty() {
            self.close_tag();
            self.out.push_str(&escape(text));
        }
        self.bounded()
    }

    /// An element ends; gives the fragment if it was the root.
    pub(super) fn end(&mut self) -> Option<Fragment> {
        let name = self.open.pop()?;
        if self.tag_open {
            self.out.push_str("/>");
            self.tag_open = false;
        } else {
            let _ = write!(self.out, "</{}>", name.name);
        }
        if !self.open.is_empty() {
            return None;
        }
        let xml = std::mem::take(&mut self.out);
        let text = std::mem::take(&mut self.text);
        self.root.take().map(|name| Fragment { name, xml, text })
    }

    /// Whether a fragment is being written.
    pub(super) fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }

    fn close_tag(&mut self) {
        if self.tag_open {
            self.out.push('>');
            self.tag_open = false;
        }
    }

    fn bounded(&self) -> Result<(), DavError> {
        if self.out.len() > FRAGMENT_BYTES_MAX {
            return Err(DavError::Xml(format!("a value of more than {FRAGMENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// Takes each element at a certain depth as a fragment, and says where it stood.
///
/// The place is the path of elements above it, as names. At most `fragments_max` are taken.
pub(super) struct Collector {
    depth: usize,
    fragments_max: usize,
    path: Vec<PropertyName>,
    langs: Vec<Option<String>>,
    writer: Writer,
    /// What was found: the path above, and the fragment.
    pub(super) found: Vec<(Vec<PropertyName>, Fragment)>,
    /// Elements above that depth, in the order in which they began, with their paths.
    pub(super) above: Vec<(Vec<PropertyName>, PropertyName)>,
}

impl Collector {
    /// Takes the elements that have `depth` elements above them.
    pub(super) fn new(depth: usize, fragments_max: usize) -> Self {
        Self {
            depth,
            fragments_max,
            path: Vec::new(),
            langs: Vec::new(),
            writer: Writer::default(),
            found: Vec::new(),
            above: Vec::new(),
        }
    }
}

impl Sink for Collector {
    fn start(&mut self, ns: &str, name: &str, attributes: Vec<Attribute>) -> Result<(), DavError> {
        if self.writer.is_busy() || self.path.len() == self.depth {
            if self.found.len() == self.fragments_max {
                return Err(DavError::Xml(format!("more than {} values", self.fragments_max)));
            }
            let lang = self.langs.last().cloned().flatten();
            return self.writer.start(ns, name, &attributes, lang.as_deref());
        }
        let own = attributes.into_iter().find(|attribute| attribute.ns == XML && attribute.name == "lang");
        let lang = own.map(|attribute| attribute.value).or_else(|| self.langs.last().cloned().flatten());
        self.langs.push(lang);
        let name = PropertyName::new(ns, name);
        if self.above.len() == self.fragments_max.saturating_mul(self.depth) {
            return Err(DavError::Xml("too many elements".into()));
        }
        self.above.push((self.path.clone(), name.clone()));
        self.path.push(name);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), DavError> {
        if self.writer.is_busy() { self.writer.text(text) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), DavError> {
        if self.writer.is_busy() {
            if let Some(fragment) = self.writer.end() {
                self.found.push((self.path.clone(), fragment));
            }
        } else {
            self.path.pop();
            self.langs.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dav::xml::{parse, walk};

    fn fragments(document: &str, depth: usize) -> Result<Vec<Fragment>, DavError> {
        let mut collector = Collector::new(depth, 10);
        walk(document.as_bytes(), &mut collector)?;
        Ok(collector.found.into_iter().map(|(_, fragment)| fragment).collect())
    }

    #[test]
    fn a_fragment_means_the_same_wherever_it_stands() {
        let document = r#"<D:p xmlns:D="DAV:" xmlns:x="urn:x" xml:lang="de"><x:a b="&lt;" x:c="2"> t&amp;<D:d/><e
            xml:lang="en">&#10;</e>u </x:a><n/></D:p>"#;
        let found = fragments(document, 1).unwrap();
        assert_eq!(
            found[0].xml,
            "<a xmlns=\"urn:x\" xml:lang=\"de\" b=\"&lt;\" xmlns:a1=\"urn:x\" a1:c=\"2\"> t&amp;<d xmlns=\"DAV:\"/>\
             <e xmlns=\"\" xml:lang=\"en\">&#10;</e>u </a>"
        );
        assert_eq!(found[0].text, " t&u ");
        assert_eq!(found[1].xml, "<n xmlns=\"\" xml:lang=\"de\"/>");
        for fragment in found {
            let again = fragments(&fragment.xml, 0).unwrap();
            assert_eq!(again, [fragment]);
        }
    }

    #[test]
    fn values_are_bounded() {
        let value = "x".repeat(FRAGMENT_BYTES_MAX);
        assert!(fragments(&format!("<p><a>{value}</a></p>"), 1).is_err());
        let many = "<a/>".repeat(11);
        assert!(fragments(&format!("<p>{many}</p>"), 1).is_err());
        let ns = "n".repeat(1000);
        let grown = format!("<p xmlns:n=\"{ns}\"><a>{}</a></p>", "<n:b/>".repeat(1000));
        assert!(fragments(&grown, 1).is_err());
    }

    #[test]
    fn a_name_is_an_empty_element() {
        let name = PropertyName::new("urn:<x>", "odd");
        let element = parse(name.to_string().as_bytes()).unwrap();
        assert!(element.is("urn:<x>", "odd"));
    }
}
