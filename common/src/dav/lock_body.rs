//! `lockinfo` as LOCK sends it, and `activelock`, `lockdiscovery` and `supportedlock` as they are answered (RFC 4918 14, 15).

use std::fmt::Write as _;

use super::fragment::Collector;
use super::locks::Lock;
use super::xml::{escape, walk};
use super::{DAV, DavError};
use crate::clock::Moment;

/// Bytes of an `owner` element, at most.
pub const OWNER_BYTES_MAX: usize = 4 * 1024;

/// The value of `DAV:supportedlock`: exclusive and shared write locks.
pub const SUPPORTED: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
                             </D:lockentry><D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/>\
                             </D:locktype></D:lockentry>";

/// What a LOCK with a body asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockInfo {
    /// Exclusive; otherwise shared.
    pub exclusive: bool,
    /// The `owner` element, self-contained; empty if there was none.
    pub owner: String,
}

impl LockInfo {
    /// Reads the body. An empty body means a refresh and is not for here.
    ///
    /// # Errors
    /// [`DavError`]: 400.
    pub fn parse(body: &[u8]) -> Result<Self, DavError> {
        let mut collector = Collector::new(1, 20);
        walk(body, &mut collector)?;
        if !collector.above.first().is_some_and(|(_, root)| root.is(DAV, "lockinfo")) {
            return Err(DavError::Missing("lockinfo"));
        }
        let find = |name: &'static str| {
            let mut all = collector.found.iter().map(|(_, fragment)| fragment);
            all.find(|fragment| fragment.name.is(DAV, name))
        };
        let has = |name: &'static str, inside: &'static str| -> Result<bool, DavError> {
            let fragment = find(name).ok_or(DavError::Missing(name))?;
            let element = super::xml::parse(fragment.xml.as_bytes())?;
            Ok(element.child(DAV, inside).is_some())
        };
        if !has("locktype", "write")? {
            return Err(DavError::Bad("locktype"));
        }
        let exclusive = has("lockscope", "exclusive")?;
        if !exclusive && !has("lockscope", "shared")? {
            return Err(DavError::Bad("lockscope"));
        }
        let owner = find("owner").map(|fragment| fragment.xml.clone()).unwrap_or_default();
        if owner.len() > OWNER_BYTES_MAX {
            return Err(DavError::Bad("owner"));
        }
        Ok(Self { exclusive, owner })
    }
}

/// The value of `DAV:lockdiscovery`: one `activelock` each, the prefix `D` being bound.
pub fn discovery<'a>(locks: impl IntoIterator<Item = &'a Lock>, now: Moment) -> String {
    let mut out = String::new();
    for lock in locks {
        let scope = if lock.exclusive { "exclusive" } else { "shared" };
        let depth = if lock.infinite { "infinity" } else { "0" };
        let _ = write!(
            out,
            "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>\
             <D:depth>{depth}</D:depth>{}<D:timeout>Second-{}</D:timeout><D:locktoken><D:href>{}</D:href>\
             </D:locktoken><D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
            lock.owner,
            lock.secs_left(now),
            escape(&lock.token),
            escape(&lock.root),
        );
    }
    out
}

/// The body of a LOCK's answer, 200 or 201. A new lock's token goes into `Lock-Token` as well, in angle brackets.
pub fn lock_answer(lock: &Lock, now: Moment) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{}</D:lockdiscovery></D:prop>",
        discovery([lock], now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dav::locks::{LockLimits, LockPath, LockTable, NewLock};
    use crate::dav::xml;
    use crate::names::Guid;

    #[test]
    fn what_is_asked_for_is_answered() {
        let body = br#"<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/>
            </D:lockscope><D:locktype><D:write/></D:locktype><D:owner> <D:href>http://a/&amp;</D:href>x</D:owner>
            </D:lockinfo>"#;
        let info = LockInfo::parse(body).unwrap();
        assert!(!info.exclusive);
        assert_eq!(info.owner, "<owner xmlns=\"DAV:\"> <href>http://a/&amp;</href>x</owner>");
        let new = NewLock {
            path: LockPath::new(["inbox", "a"]),
            root: "/exchange/u/Inbox/a".into(),
            exclusive: info.exclusive,
            infinite: true,
            owner: info.owner,
            timeout: None,
            guid: Guid([1; 16]),
        };
        let mut table = LockTable::default();
        let lock = table.lock(new, LockLimits::default(), Moment(0)).unwrap();
        let root = xml::parse(lock_answer(lock, Moment(1_500)).as_bytes()).unwrap();
        let active =
            root.child(DAV, "lockdiscovery").and_then(|found| found.child(DAV, "activelock")).unwrap();
        assert_eq!(active.child_text(DAV, "timeout"), Some("Second-599"));
        assert_eq!(active.child_text(DAV, "depth"), Some("infinity"));
        assert!(active.child(DAV, "lockscope").unwrap().child(DAV, "shared").is_some());
        assert_eq!(active.child(DAV, "owner").unwrap().child_text(DAV, "href"), Some("http://a/&"));
        assert_eq!(
            active.child(DAV, "lockroot").unwrap().child_text(DAV, "href"),
            Some("/exchange/u/Inbox/a")
        );
        let token = active.child(DAV, "locktoken").unwrap().child_text(DAV, "href").unwrap();
        assert_eq!(token, lock.token);
    }

    #[test]
    fn what_is_no_lockinfo_is_refused() {
        let long = "x".repeat(OWNER_BYTES_MAX);
        for bad in [
            String::new(),
            "<lockinfo/>".to_owned(),
            r#"<lockinfo xmlns="DAV:"/>"#.to_owned(),
            r#"<lockinfo xmlns="DAV:"><locktype><write/></locktype></lockinfo>"#.to_owned(),
            r#"<lockinfo xmlns="DAV:"><locktype><read/></locktype><lockscope><shared/></lockscope></lockinfo>"#.to_owned(),
            r#"<lockinfo xmlns="DAV:"><locktype><write/></locktype><lockscope><mine/></lockscope></lockinfo>"#.to_owned(),
            format!(
                r#"<lockinfo xmlns="DAV:"><locktype><write/></locktype><lockscope><shared/></lockscope><owner>{long}</owner></lockinfo>"#
            ),
        ] {
            assert!(LockInfo::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
