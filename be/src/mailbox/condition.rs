//! Conditional requests: what must hold of a resource for a request to go on (RFC 9110 13).
//!
//! A condition is checked under the mailbox's lock, against the state in which the write is made. The `If`
//! header of RFC 4918 is evaluated before, by `dav::guard`; what it saw of the resource comes here as
//! `seen`, so that a change between the two is noticed.

use directpush_common::dav::conditions::{Conditions as Headers, Verdict};

use super::items::etag;
use super::record::Item;
use crate::error::Error;

/// The conditions of one request. The default holds always.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    /// `If-Match` and its kin.
    pub headers: Headers,
    /// The entity tag that was there when `If` was evaluated; the inner none: nothing was.
    pub seen: Option<Option<String>>,
}

impl Conditions {
    /// Whether a write may go on, given tag and modification (Unix seconds) of what is there now.
    ///
    /// # Errors
    /// [`Error::Precondition`].
    pub fn check(&self, current: Option<(&str, i64)>) -> Result<(), Error> {
        let same = self.seen.as_ref().is_none_or(|seen| seen.as_deref() == current.map(|(tag, _)| tag));
        if same && self.headers.check(false, current) == Verdict::GoOn {
            Ok(())
        } else {
            Err(Error::Precondition)
        }
    }

    /// The same, for a member of a folder.
    pub(super) fn check_member(&self, epoch: u64, item: Option<&Item>) -> Result<(), Error> {
        let tag = item.map(|item| (etag(epoch, item.changed), item.modified));
        self.check(tag.as_ref().map(|(tag, modified)| (tag.as_str(), *modified)))
    }

    /// What a reader is told.
    pub fn read(&self, tag: &str, modified: i64) -> Verdict {
        self.headers.check(true, Some((tag, modified)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_since_the_if_header_was_evaluated_is_noticed() {
        let seen =
            |tag: Option<&str>| Conditions { seen: Some(tag.map(Into::into)), ..Conditions::default() };
        assert!(seen(Some("\"1\"")).check(Some(("\"1\"", 0))).is_ok());
        assert!(seen(Some("\"1\"")).check(Some(("\"2\"", 0))).is_err());
        assert!(seen(Some("\"1\"")).check(None).is_err());
        assert!(seen(None).check(None).is_ok());
        assert!(seen(None).check(Some(("\"1\"", 0))).is_err());
        assert!(Conditions::default().check(None).is_ok());
    }
}
