//! Conditional requests: entity tags, `If-Match` and `If-None-Match` (RFC 9110 13.1).
//!
//! A condition is checked under the mailbox's lock, against the state in which the write is made.

use crate::error::Error;

/// The conditions of one request. The default holds always.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    pub if_match: Option<Tags>,
    pub if_none_match: Option<Tags>,
}

/// `*` or a list of entity tags, quotes included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tags {
    Any,
    List(Vec<String>),
}

impl Tags {
    /// Reads a header value. What cannot be read names no tag, so it matches nothing.
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "*" => Self::Any,
            list => Self::List(list.split(',').map(|tag| tag.trim().to_owned()).collect()),
        }
    }

    fn names(&self, current: Option<&str>, weak: bool) -> bool {
        let strip = |tag: &str| if weak { tag.trim_start_matches("W/").to_owned() } else { tag.to_owned() };
        match (self, current) {
            (Self::Any, current) => current.is_some(),
            (Self::List(tags), Some(current)) => tags.iter().any(|tag| strip(tag) == current),
            (Self::List(_), None) => false,
        }
    }
}

impl Conditions {
    /// Whether a write may go on, given the tag of what is there now.
    pub fn check(&self, current: Option<&str>) -> Result<(), Error> {
        let held = self.if_match.as_ref().is_none_or(|tags| tags.names(current, false))
            && self.if_none_match.as_ref().is_none_or(|tags| !tags.names(current, true));
        if held { Ok(()) } else { Err(Error::Precondition) }
    }

    /// Whether a reader has this already: 304.
    pub fn not_modified(&self, current: &str) -> bool {
        self.if_none_match.as_ref().is_some_and(|tags| tags.names(Some(current), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_as_rfc_9110_says() {
        let at = |m: Option<&str>, n: Option<&str>| Conditions {
            if_match: m.map(Tags::parse),
            if_none_match: n.map(Tags::parse),
        };
        assert!(at(None, None).check(None).is_ok());
        assert!(at(Some("*"), None).check(None).is_err());
        assert!(at(Some("\"1\", \"2\""), None).check(Some("\"2\"")).is_ok());
        assert!(at(Some("W/\"2\""), None).check(Some("\"2\"")).is_err());
        assert!(at(None, Some("*")).check(Some("\"2\"")).is_err());
        assert!(at(None, Some("*")).check(None).is_ok());
        assert!(at(None, Some("W/\"2\"")).not_modified("\"2\""));
        assert!(!at(None, Some("\"3\"")).not_modified("\"2\""));
    }
}
