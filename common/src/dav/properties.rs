//! Request bodies of PROPFIND and PROPPATCH (RFC 4918 9.1, 9.2), and which properties are the server's own.
//!
//! Not here: the values of live properties, where dead ones are kept, answers (`multistatus`).

use super::fragment::{Collector, Fragment, PropertyName};
use super::xml::{self, walk};
use super::{DAV, DavError};

/// Properties that one request may name.
pub const PROPERTIES_MAX: usize = 200;

/// What a PROPFIND asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Propfind {
    /// `allprop`, or no body at all: all dead properties and those of RFC 4918, and `include`.
    All {
        /// More that are wanted (RFC 4918 14.8).
        include: Vec<PropertyName>,
    },
    /// `propname`: the names of all properties.
    Names,
    /// `prop`: these.
    These(Vec<PropertyName>),
}

impl Propfind {
    /// Reads the body.
    ///
    /// # Errors
    /// [`DavError`]: 400.
    pub fn parse(body: &[u8]) -> Result<Self, DavError> {
        if body.is_empty() {
            return Ok(Self::All { include: Vec::new() });
        }
        let root = xml::parse(body)?;
        if !root.is(DAV, "propfind") {
            return Err(DavError::Missing("propfind"));
        }
        let names = |element: &xml::Element| -> Result<Vec<_>, DavError> {
            if element.children.len() > PROPERTIES_MAX {
                return Err(DavError::Bad("the number of properties"));
            }
            let mut names = Vec::new();
            for child in &element.children {
                let name = PropertyName::new(&child.ns, &child.name);
                // One that is asked for twice is told once.
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        };
        if root.child(DAV, "propname").is_some() {
            Ok(Self::Names)
        } else if root.child(DAV, "allprop").is_some() {
            let include = root.child(DAV, "include").map(names).transpose()?.unwrap_or_default();
            Ok(Self::All { include })
        } else {
            root.child(DAV, "prop").ok_or(DavError::Missing("prop")).and_then(names).map(Self::These)
        }
    }
}

/// One step of a PROPPATCH.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Instruction {
    /// Give the property this value.
    Set(Fragment),
    /// Take the property away; it need not be there.
    Remove(PropertyName),
}

impl Instruction {
    /// Which property it is about.
    pub const fn name(&self) -> &PropertyName {
        match self {
            Self::Set(fragment) => &fragment.name,
            Self::Remove(name) => name,
        }
    }
}

/// Reads the body of a PROPPATCH: the steps in document order, which is the order in which they are carried out; all or
/// none (RFC 4918 9.2).
///
/// # Errors
/// [`DavError`]: 400.
pub fn parse_update(body: &[u8]) -> Result<Vec<Instruction>, DavError> {
    let mut collector = Collector::new(3, PROPERTIES_MAX);
    walk(body, &mut collector)?;
    if !collector.above.first().is_some_and(|(_, root)| root.is(DAV, "propertyupdate")) {
        return Err(DavError::Missing("propertyupdate"));
    }
    let steps = collector.found.into_iter().filter_map(|(path, fragment)| match path.as_slice() {
        [_, step, prop] if prop.is(DAV, "prop") && step.is(DAV, "set") => Some(Instruction::Set(fragment)),
        [_, step, prop] if prop.is(DAV, "prop") && step.is(DAV, "remove") => {
            Some(Instruction::Remove(fragment.name))
        }
        // Elements we do not know are passed over (RFC 4918 17).
        _ => None,
    });
    let steps: Vec<_> = steps.collect();
    if steps.is_empty() { Err(DavError::Missing("prop")) } else { Ok(steps) }
}

/// Whether a property in `DAV:` is computed, so that a PROPPATCH of it is refused with 403 and
/// `DAV:cannot-modify-protected-property` (RFC 4918 15, RFC 4331 3 and 4, RFC 6578 4, RFC 3253 3.1).
pub fn is_protected(name: &PropertyName) -> bool {
    const NAMES: [&str; 21] = [
        "creationdate",
        "getcontentlength",
        "getetag",
        "getlastmodified",
        "lockdiscovery",
        "resourcetype",
        "supportedlock",
        "quota-available-bytes",
        "quota-used-bytes",
        "sync-token",
        "supported-report-set",
        // Exchange's, in the same namespace.
        "href",
        "iscollection",
        "isfolder",
        "ishidden",
        "isreadonly",
        "isstructureddocument",
        "hassubs",
        "visiblecount",
        "parentname",
        "id",
    ];
    name.ns == DAV && NAMES.contains(&name.name.as_str())
}

/// The values of `quota-used-bytes` and `quota-available-bytes` (RFC 4331 3, 4) in bytes. `limit`: the user's quota, if
/// there is one; `free`: what the disk can still take.
pub fn quota(used: u64, limit: Option<u64>, free: u64) -> (u64, u64) {
    (used, limit.map_or(free, |limit| limit.saturating_sub(used).min(free)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn propfind_bodies() {
        let parse = |body: &str| Propfind::parse(body.as_bytes());
        assert_eq!(parse(""), Ok(Propfind::All { include: vec![] }));
        assert_eq!(
            parse(
                r#"<propfind xmlns="DAV:"><foobar/><allprop/><include><x xmlns="urn:x"/></include></propfind>"#
            ),
            Ok(Propfind::All { include: vec![PropertyName::new("urn:x", "x")] })
        );
        assert_eq!(parse(r#"<propfind xmlns="DAV:"><propname/></propfind>"#), Ok(Propfind::Names));
        assert_eq!(
            parse(r#"<D:propfind xmlns:D="DAV:"><D:prop><D:a/><b/></D:prop></D:propfind>"#),
            Ok(Propfind::These(vec![PropertyName::new("DAV:", "a"), PropertyName::new("", "b")]))
        );
        for bad in [
            "<propfind",
            r#"<propfind xmlns="DAV:"/>"#,
            "<propfind><allprop/></propfind>",
            r#"<D:propfind xmlns:D="DAV:"><D:prop><b:a xmlns:b=""/></D:prop></D:propfind>"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_update_keeps_the_order_of_the_document() {
        let body = r#"<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><a xmlns="urn:x"><b
            xmlns="urn:y">1</b></a></D:prop></D:set><D:remove><D:prop><a xmlns="urn:x"/><c/></D:prop></D:remove>
            <D:odd><D:prop><z/></D:prop></D:odd><D:set><D:prop xml:lang="en"><c>&#x10000;</c></D:prop></D:set>
            </D:propertyupdate>"#;
        let steps = parse_update(body.as_bytes()).unwrap();
        let told: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Instruction::Set(fragment) => fragment.xml.clone(),
                Instruction::Remove(name) => format!("-{name}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                "<a xmlns=\"urn:x\"><b xmlns=\"urn:y\">1</b></a>",
                "-<a xmlns=\"urn:x\"/>",
                "-<c xmlns=\"\"/>",
                "<c xmlns=\"\" xml:lang=\"en\">\u{10000}</c>",
            ]
        );
        for bad in [
            "",
            "<a/>",
            r#"<propertyupdate xmlns="DAV:"/>"#,
            r#"<propertyupdate xmlns="DAV:"><set/></propertyupdate>"#,
        ] {
            assert!(parse_update(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn quotas() {
        assert_eq!(quota(10, Some(100), 1000), (10, 90));
        assert_eq!(quota(110, Some(100), 1000), (110, 0));
        assert_eq!(quota(10, None, 1000), (10, 1000));
        assert_eq!(quota(10, Some(100), 5), (10, 5));
    }

    proptest! {
        #[test]
        fn values_survive_being_written(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,40}") {
            let escaped = xml::escape(&text);
            let body = format!(
                "<propertyupdate xmlns=\"DAV:\"><set><prop><a b=\"{escaped}\">{escaped}<c/>{escaped}</a></prop></set></propertyupdate>"
            );
            let steps = parse_update(body.as_bytes()).unwrap();
            let Instruction::Set(fragment) = &steps[0] else { panic!() };
            let again = format!("<propertyupdate xmlns=\"DAV:\"><set><prop>{}</prop></set></propertyupdate>", fragment.xml);
            prop_assert_eq!(parse_update(again.as_bytes()).unwrap(), steps);
        }
    }
}
