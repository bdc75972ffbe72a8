//! Properties of resources, as PROPFIND shows them: those of RFC 4918, a few of Exchange's, and ours.

use std::fmt::Write as _;

use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::xml::escape;
use directpush_common::dav::{DAV, HTTPMAIL, OURS};
use directpush_common::names::{FolderId, UserName};

use super::reply::{http_date, iso_date};
use crate::mailbox::State;
use crate::mailbox::items::{etag, implied_name};
use crate::mailbox::record::{Folder, Item, StateObject};

const EXCHANGE: &str = "http://schemas.microsoft.com/exchange/";

/// One property: namespace, local name, value as XML.
pub(super) type Property = (&'static str, &'static str, String);

/// What PROPFIND asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    All,
    Names,
    /// Namespace and local name of each.
    These(Vec<(String, String)>),
}

fn collection(name: &str, created: i64, modified: i64) -> Vec<Property> {
    vec![
        (DAV, "displayname", escape(name)),
        (DAV, "resourcetype", "<D:collection/>".into()),
        (DAV, "iscollection", "1".into()),
        (DAV, "creationdate", iso_date(created)),
        (DAV, "getlastmodified", http_date(modified)),
        (DAV, "supportedlock", String::new()),
        (DAV, "lockdiscovery", String::new()),
    ]
}

/// A collection that has nothing of its own: `/`, `/exchange/`, the device tree.
pub(super) fn bare(name: &str) -> Vec<Property> {
    collection(name, 0, 0)
}

/// The mailbox.
pub(super) fn mailbox(user: &UserName, state: &State) -> Vec<Property> {
    let mut found = collection(user.as_str(), 0, 0);
    let reports = report("dp:hierarchy");
    found.push((DAV, "supported-report-set", reports));
    found.push((OURS, "hierarchy-number", state.head.hierarchy.to_string()));
    let url = user.mailbox_url();
    for (name, counter) in [
        ("inbox", 2),
        ("drafts", 3),
        ("deleteditems", 4),
        ("sentitems", 5),
        ("outbox", 6),
        ("tasks", 7),
        ("calendar", 8),
        ("contacts", 9),
        ("notes", 10),
    ] {
        if let Some(url) = super::path::folder_url(user, state, counter) {
            found.push((HTTPMAIL, name, escape(&url)));
        }
    }
    found.push((HTTPMAIL, "msgfolderroot", escape(&url)));
    found
}

/// A folder.
pub(super) fn folder(user: &UserName, state: &State, counter: u64, folder: &Folder) -> Vec<Property> {
    let mut found = collection(&folder.name, folder.date, folder.date);
    let id = FolderId { installation: state.head.installation, counter };
    let token = state.token(counter).map(|token| token.to_string()).unwrap_or_default();
    let subfolders = state.tree.children(counter).next().is_some();
    let reports = report("D:sync-collection") + &report("dp:walk");
    found.extend([
        (DAV, "sync-token", token),
        (DAV, "supported-report-set", reports),
        (DAV, "hassubs", u8::from(subfolders).to_string()),
        (DAV, "visiblecount", folder.count.to_string()),
        (HTTPMAIL, "unreadcount", folder.unread.to_string()),
        (EXCHANGE, "permanenturl", escape(&id.permanent_url(user))),
        (EXCHANGE, "outlookfolderclass", folder_class(folder.class).into()),
        (OURS, "folder-id", id.to_string()),
    ]);
    found
}

fn report(name: &str) -> String {
    format!("<D:supported-report><D:report><{name}/></D:report></D:supported-report>")
}

fn folder_class(class: Class) -> &'static str {
    match class {
        Class::Email => "IPF.Note",
        Class::Calendar => "IPF.Appointment",
        Class::Contacts => "IPF.Contact",
        Class::Tasks => "IPF.Task",
        Class::Notes => "IPF.StickyNote",
    }
}

/// An item.
pub(super) fn item(user: &UserName, state: &State, folder: u64, id: u64, item: &Item) -> Vec<Property> {
    let installation = state.head.installation;
    let name = item.name.clone().unwrap_or_else(|| implied_name(installation, id));
    let number = directpush_common::names::ItemId(directpush_common::numbers::Number(id));
    let url = FolderId { installation, counter: folder }.item_url(user, number);
    vec![
        (DAV, "displayname", escape(&name)),
        (DAV, "resourcetype", String::new()),
        (DAV, "iscollection", "0".into()),
        (DAV, "creationdate", iso_date(item.date)),
        (DAV, "getlastmodified", http_date(item.modified)),
        (DAV, "getcontentlength", item.size.to_string()),
        (DAV, "getcontenttype", escape(&item.content_type)),
        (DAV, "getetag", escape(&etag(state.head.epoch, item.changed))),
        (DAV, "supportedlock", String::new()),
        (DAV, "lockdiscovery", String::new()),
        (HTTPMAIL, "read", u8::from(item.read).to_string()),
        (HTTPMAIL, "datereceived", iso_date(item.date)),
        (EXCHANGE, "permanenturl", escape(&url)),
    ]
}

/// A device's state object.
pub(super) fn state_object(name: &str, object: &StateObject) -> Vec<Property> {
    vec![
        (DAV, "displayname", escape(name)),
        (DAV, "resourcetype", String::new()),
        (DAV, "iscollection", "0".into()),
        (DAV, "creationdate", iso_date(object.modified)),
        (DAV, "getlastmodified", http_date(object.modified)),
        (DAV, "getcontentlength", object.size.to_string()),
        (DAV, "getcontenttype", escape(&object.content_type)),
        (DAV, "getetag", escape(&object.etag())),
        (DAV, "supportedlock", String::new()),
        (DAV, "lockdiscovery", String::new()),
    ]
}

/// The opening of a multistatus that binds every prefix used here.
pub(super) fn open(out: &mut String) {
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:multistatus xmlns:D=\"{DAV}\" xmlns:m=\"{HTTPMAIL}\" \
         xmlns:e=\"{EXCHANGE}\" xmlns:dp=\"{OURS}\">"
    );
}

pub(super) const CLOSE: &str = "</D:multistatus>";

fn prefix(ns: &str) -> &'static str {
    match ns {
        HTTPMAIL => "m",
        EXCHANGE => "e",
        OURS => "dp",
        _ => "D",
    }
}

/// Properties that `allprop` leaves out: those that only make sense when asked for (RFC 6578 4, RFC 3253 3.1.5).
fn only_when_asked(property: &Property) -> bool {
    matches!(property.1, "sync-token" | "supported-report-set")
}

/// One `D:response`. `brief` leaves out what was not found (`Brief: t`).
pub(super) fn response(out: &mut String, href: &str, found: &[Property], asked: &Asked, brief: bool) {
    let _ = write!(out, "<D:response><D:href>{}</D:href><D:propstat><D:prop>", escape(href));
    let mut missing = String::new();
    match asked {
        Asked::All => {
            for (ns, name, value) in found.iter().filter(|property| !only_when_asked(property)) {
                let prefix = prefix(ns);
                let _ = write!(out, "<{prefix}:{name}>{value}</{prefix}:{name}>");
            }
        }
        Asked::Names => {
            for (ns, name, _) in found {
                let _ = write!(out, "<{}:{name}/>", prefix(ns));
            }
        }
        Asked::These(names) => {
            for (ns, name) in names {
                if let Some((known, local, value)) = found.iter().find(|(n, l, _)| n == ns && l == name) {
                    let prefix = prefix(known);
                    let _ = write!(out, "<{prefix}:{local}>{value}</{prefix}:{local}>");
                } else {
                    missing.push_str(&empty_element(ns, name));
                }
            }
        }
    }
    out.push_str("</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>");
    if !missing.is_empty() && !brief {
        let _ = write!(
            out,
            "<D:propstat><D:prop>{missing}</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
        );
    }
    out.push_str("</D:response>");
}

/// `<name xmlns="ns"/>` of a property we know nothing about.
pub(super) fn empty_element(ns: &str, name: &str) -> String {
    // The name was read by an XML parser; what it let through is still checked before it is echoed.
    let ok = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '·'));
    if !ok || name.starts_with(|c: char| !c.is_alphabetic() && c != '_') {
        return String::new();
    }
    format!("<{name} xmlns=\"{}\"/>", escape(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_properties_are_named_under_404() {
        let mut out = String::new();
        open(&mut out);
        let asked = Asked::These(vec![
            (DAV.into(), "displayname".into()),
            ("urn:x".into(), "odd".into()),
            ("urn:x".into(), "a b><".into()),
        ]);
        response(&mut out, "/exchange/a/", &bare("a & b"), &asked, false);
        out.push_str(CLOSE);
        assert!(out.contains("<D:displayname>a &amp; b</D:displayname>"));
        assert!(out.contains("<odd xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 404 Not Found"));
        assert!(directpush_common::dav::xml::parse(out.as_bytes()).is_ok(), "{out}");
    }
}
