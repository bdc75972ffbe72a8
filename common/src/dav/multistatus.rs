//! Writing `DAV:multistatus` (RFC 4918 13, 14.16) and bodies that say which condition failed (RFC 4918 16).
//!
//! Not here: the multistatus bodies that front end and back end both read and write (`poll`, `items`, `hierarchy`).

use std::fmt::Write as _;

use super::xml::escape;

/// A condition that RFC 4918 16, RFC 4331 6, RFC 6578 or RFC 3253 names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// 409: UNLOCK of a token that does not lock this resource.
    LockTokenMatchesRequestUri,
    /// 423: a lock token should have been submitted.
    LockTokenSubmitted,
    /// 423: a lock is in the way of the lock asked for.
    NoConflictingLock,
    /// 403: the body has an external entity.
    NoExternalEntities,
    /// 409: live properties would be lost on the way.
    PreservedLiveProperties,
    /// 403: PROPFIND with Depth infinity.
    PropfindFiniteDepth,
    /// 403: PROPPATCH of what the server computes.
    CannotModifyProtectedProperty,
    /// 507: the user's quota would be exceeded.
    QuotaNotExceeded,
    /// 507: the disk would be full.
    SufficientDiskSpace,
    /// 507: there are more than can be listed.
    NumberOfMatchesWithinLimits,
    /// 403: the token is not one of this collection, or too old.
    ValidSyncToken,
}

impl Condition {
    /// The status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::LockTokenMatchesRequestUri | Self::PreservedLiveProperties => 409,
            Self::LockTokenSubmitted | Self::NoConflictingLock => 423,
            Self::NoExternalEntities
            | Self::PropfindFiniteDepth
            | Self::CannotModifyProtectedProperty
            | Self::ValidSyncToken => 403,
            Self::QuotaNotExceeded | Self::SufficientDiskSpace | Self::NumberOfMatchesWithinLimits => 507,
        }
    }

    /// The local name of its element.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LockTokenMatchesRequestUri => "lock-token-matches-request-uri",
            Self::LockTokenSubmitted => "lock-token-submitted",
            Self::NoConflictingLock => "no-conflicting-lock",
            Self::NoExternalEntities => "no-external-entities",
            Self::PreservedLiveProperties => "preserved-live-properties",
            Self::PropfindFiniteDepth => "propfind-finite-depth",
            Self::CannotModifyProtectedProperty => "cannot-modify-protected-property",
            Self::QuotaNotExceeded => "quota-not-exceeded",
            Self::SufficientDiskSpace => "sufficient-disk-space",
            Self::NumberOfMatchesWithinLimits => "number-of-matches-within-limits",
            Self::ValidSyncToken => "valid-sync-token",
        }
    }

    fn write<'a>(self, out: &mut String, hrefs: impl IntoIterator<Item = &'a str>) {
        let name = self.name();
        let mut hrefs = hrefs.into_iter().peekable();
        if hrefs.peek().is_none() {
            let _ = write!(out, "<D:{name}/>");
            return;
        }
        let _ = write!(out, "<D:{name}>");
        for href in hrefs {
            let _ = write!(out, "<D:href>{}</D:href>", escape(href));
        }
        let _ = write!(out, "</D:{name}>");
    }
}

/// The body that goes with [`Condition::status`]; `hrefs`: the roots of the locks in the way, still encoded.
pub fn error_body<'a>(condition: Condition, hrefs: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><D:error xmlns:D=\"DAV:\">");
    condition.write(&mut out, hrefs);
    out + "</D:error>"
}

/// A multistatus as it is written. Binds `D` to `DAV:` and nothing else.
#[derive(Debug)]
pub struct Multistatus {
    out: String,
}

impl Default for Multistatus {
    fn default() -> Self {
        Self { out: "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:multistatus xmlns:D=\"DAV:\">".to_owned() }
    }
}

impl Multistatus {
    /// One resource with one status. `href` is still encoded; hrefs of `condition` as in [`error_body`].
    pub fn status(&mut self, href: &str, status: u16, condition: Option<(Condition, &[String])>) {
        let _ = write!(
            self.out,
            "<D:response><D:href>{}</D:href><D:status>{}</D:status>",
            escape(href),
            status_line(status)
        );
        if let Some((condition, hrefs)) = condition {
            self.out.push_str("<D:error>");
            condition.write(&mut self.out, hrefs.iter().map(String::as_str));
            self.out.push_str("</D:error>");
        }
        self.out.push_str("</D:response>");
    }

    /// One resource with a status for each group of properties: what stands inside `D:prop`, as XML. Groups that are
    /// empty are left out; if all are, an empty 200 is written, since a response must say something.
    pub fn properties(&mut self, href: &str, groups: &[(u16, String, Option<Condition>)]) {
        let _ = write!(self.out, "<D:response><D:href>{}</D:href>", escape(href));
        let nothing = [(200, String::new(), None)];
        let all_empty = groups.iter().all(|(_, inside, _)| inside.is_empty());
        for (status, inside, condition) in if all_empty { &nothing[..] } else { groups } {
            if inside.is_empty() && !all_empty {
                continue;
            }
            let _ = write!(
                self.out,
                "<D:propstat><D:prop>{inside}</D:prop><D:status>{}</D:status>",
                status_line(*status)
            );
            if let Some(condition) = condition {
                self.out.push_str("<D:error>");
                condition.write(&mut self.out, []);
                self.out.push_str("</D:error>");
            }
            self.out.push_str("</D:propstat>");
        }
        self.out.push_str("</D:response>");
    }

    /// Bytes so far, for a bound.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Never: there is a root.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The document.
    pub fn finish(self) -> String {
        self.out + "</D:multistatus>"
    }
}

/// `HTTP/1.1 423 Locked`.
pub fn status_line(status: u16) -> String {
    let reason = match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Other",
    };
    format!("HTTP/1.1 {status} {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dav::{DAV, xml};

    #[test]
    fn a_multistatus_can_be_read_again() {
        let mut out = Multistatus::default();
        out.status("/a&b", 423, Some((Condition::LockTokenSubmitted, &["/a".to_owned()])));
        out.properties("/c", &[(200, "<D:x/>".into(), None), (404, String::new(), None)]);
        out.properties(
            "/d",
            &[
                (403, "<D:getetag/>".into(), Some(Condition::CannotModifyProtectedProperty)),
                (424, "<y xmlns=\"\"/>".into(), None),
            ],
        );
        out.properties("/e", &[(404, String::new(), None)]);
        let root = xml::parse(out.finish().as_bytes()).unwrap();
        let all: Vec<_> = root.children_named(DAV, "response").collect();
        assert_eq!(all[0].child_text(DAV, "href"), Some("/a&b"));
        assert_eq!(all[0].child_text(DAV, "status"), Some("HTTP/1.1 423 Locked"));
        let error = all[0].child(DAV, "error").unwrap();
        assert_eq!(error.child(DAV, "lock-token-submitted").unwrap().child_text(DAV, "href"), Some("/a"));
        let propstats = |n: usize| all[n].children_named(DAV, "propstat").collect::<Vec<_>>();
        assert_eq!(propstats(1).len(), 1);
        assert_eq!(propstats(2).len(), 2);
        assert!(propstats(2)[0].child(DAV, "error").is_some());
        assert_eq!(propstats(3)[0].child_text(DAV, "status"), Some("HTTP/1.1 200 OK"));
    }

    #[test]
    fn a_failed_condition_names_what_is_in_the_way() {
        let body = error_body(Condition::NoConflictingLock, ["/x"]);
        let root = xml::parse(body.as_bytes()).unwrap();
        assert!(root.is(DAV, "error"));
        assert_eq!(root.children[0].child_text(DAV, "href"), Some("/x"));
        assert_eq!(Condition::NoConflictingLock.status(), 423);
    }
}
