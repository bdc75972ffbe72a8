//! Properties of resources, as PROPFIND shows them: those of RFC 4918, a few of Exchange's, and ours.

use std::fmt::Write as _;

use directpush_common::dav::fragment::PropertyName;
use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::lock_body;
use directpush_common::dav::properties::{Propfind, is_protected};
use directpush_common::dav::xml::escape;
use directpush_common::dav::{DAV, HTTPMAIL, OURS};
use directpush_common::names::{FolderId, UserName};

use super::mail;
use super::reply::{http_date, iso_date};
use crate::mailbox::State;
use crate::mailbox::items::{Member, etag, implied_name};
use crate::mailbox::kind::Kind;
use crate::mailbox::properties::Properties;
use crate::mailbox::quota::Quota;
use crate::mailbox::record::{Folder, StateObject};

const EXCHANGE: &str = "http://schemas.microsoft.com/exchange/";
/// The namespace of DAV replication.
const REPL: &str = "http://schemas.microsoft.com/repl/";

/// One property: namespace, local name, value as XML.
pub(super) type Property = (&'static str, &'static str, String);

fn collection(name: &str, created: i64, modified: i64) -> Vec<Property> {
    vec![
        (DAV, "displayname", escape(name)),
        (DAV, "resourcetype", "<D:collection/>".into()),
        (DAV, "iscollection", "1".into()),
        (DAV, "isfolder", "1".into()),
        (DAV, "ishidden", "0".into()),
        (DAV, "creationdate", iso_date(created)),
        (DAV, "getlastmodified", http_date(modified)),
    ]
}

/// A collection that has nothing of its own: `/`, `/exchange/`, the device tree.
pub(super) fn bare(name: &str) -> Vec<Property> {
    let mut found = collection(name, 0, 0);
    found.extend(unlockable());
    found
}

/// What nobody locks.
fn unlockable() -> [Property; 2] {
    [(DAV, "supportedlock", String::new()), (DAV, "lockdiscovery", String::new())]
}

/// What DAV clients may lock, with the locks there are.
fn lockable(discovery: String) -> [Property; 2] {
    [(DAV, "supportedlock", lock_body::SUPPORTED.into()), (DAV, "lockdiscovery", discovery)]
}

/// RFC 4331 3, 4: of the whole mailbox, wherever in it one asks. Nothing is said of what has no bound.
fn quota(state: &State, quota: &Quota) -> Vec<Property> {
    let usage = state.tree.usage();
    let mut found = vec![(DAV, "quota-used-bytes", usage.bytes.to_string())];
    if let Some(available) = quota.available_bytes(&usage) {
        found.push((DAV, "quota-available-bytes", available.to_string()));
    }
    found
}

/// The mailbox.
pub(super) fn mailbox(user: &UserName, state: &State, limits: &Quota, discovery: String) -> Vec<Property> {
    let mut found = collection(user.as_str(), 0, 0);
    found.extend(lockable(discovery));
    found.extend(quota(state, limits));
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
    found.push((HTTPMAIL, "sendmsg", escape(&(url + "%23%23DavMailSubmissionURI%23%23/"))));
    found
}

/// A folder.
pub(super) fn folder(
    user: &UserName,
    state: &State,
    counter: u64,
    folder: &Folder,
    limits: &Quota,
    discovery: String,
) -> Vec<Property> {
    let mut found = collection(&folder.name, folder.date, folder.date);
    found.extend(lockable(discovery));
    found.extend(quota(state, limits));
    let id = FolderId { installation: state.head.installation, counter };
    let token = state.token(counter).map(|token| token.to_string()).unwrap_or_default();
    let subfolders = state.tree.children(counter).count() as u64;
    let members = folder.count + folder.held.files;
    let reports = report("D:sync-collection") + &report("dp:walk");
    found.extend([
        (DAV, "sync-token", token),
        (DAV, "supported-report-set", reports),
        (DAV, "hassubs", u8::from(subfolders > 0).to_string()),
        (DAV, "nosubs", "0".into()),
        (DAV, "isreadonly", "0".into()),
        (DAV, "isstructureddocument", "0".into()),
        (DAV, "childcount", (members + subfolders).to_string()),
        (DAV, "objectcount", members.to_string()),
        (DAV, "visiblecount", members.to_string()),
        (DAV, "id", id.to_string()),
        (DAV, "uid", id.to_string()),
        (REPL, "repl-uid", repl_uid(id)),
        (DAV, "contentclass", content_class(folder.class).into()),
        (
            DAV,
            "parentname",
            super::path::folder_url(user, state, folder.parent).map(|url| escape(&url)).unwrap_or_default(),
        ),
        (EXCHANGE, "foldersize", folder.held.bytes.to_string()),
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

/// The permanent id as DAV replication writes it: the GUID, and the counter as six bytes.
fn repl_uid(id: FolderId) -> String {
    let section = id.to_string();
    let guid = section.split('-').next().unwrap_or_default();
    format!("rid:{guid}{:012x}", id.counter)
}

/// The content class of a folder, as Exchange's clients know it.
fn content_class(class: Class) -> &'static str {
    match class {
        Class::Email => "urn:content-classes:mailfolder",
        Class::Calendar => "urn:content-classes:calendarfolder",
        Class::Contacts => "urn:content-classes:contactfolder",
        Class::Tasks => "urn:content-classes:taskfolder",
        Class::Notes => "urn:content-classes:notefolder",
    }
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
pub(super) fn item(
    user: &UserName,
    state: &State,
    folder: u64,
    member: &Member,
    discovery: String,
) -> Vec<Property> {
    let (id, item) = (member.id, &member.item);
    let installation = state.head.installation;
    let parent = super::path::folder_url(user, state, folder).unwrap_or_default();
    let name = item.name.clone().unwrap_or_else(|| implied_name(installation, id));
    let number = directpush_common::names::ItemId(directpush_common::numbers::Number(id));
    let url = FolderId { installation, counter: folder }.item_url(user, number);
    let mut found = vec![
        (DAV, "displayname", escape(&name)),
        (DAV, "resourcetype", String::new()),
        (DAV, "iscollection", "0".into()),
        (DAV, "isfolder", "0".into()),
        (DAV, "ishidden", "0".into()),
        (DAV, "isreadonly", "0".into()),
        (DAV, "isstructureddocument", "0".into()),
        (DAV, "parentname", escape(&parent)),
        (DAV, "creationdate", iso_date(item.date)),
        (DAV, "getlastmodified", http_date(item.modified)),
        (DAV, "getcontentlength", item.size.to_string()),
        (DAV, "getcontenttype", escape(&item.content_type)),
        (DAV, "getetag", escape(&etag(state.head.epoch, item.changed))),
        (EXCHANGE, "permanenturl", escape(&url)),
        (REPL, "repl-uid", repl_uid(FolderId { installation, counter: id })),
    ];
    found.extend(lockable(discovery));
    if !member.file {
        found.push((HTTPMAIL, "read", u8::from(item.read).to_string()));
        found.push((HTTPMAIL, "datereceived", iso_date(item.date)));
        found.push((OURS, "marks", escape(&item.marks)));
    }
    if let Some((content_class, message_class)) = item_classes(item.kind) {
        found.push((DAV, "contentclass", content_class.into()));
        found.push((EXCHANGE, "outlookmessageclass", message_class.into()));
    }
    found
}

/// Content class and message class of an item, as Exchange's clients know them.
fn item_classes(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::Message => Some(("urn:content-classes:message", "IPM.Note")),
        Kind::Event => Some(("urn:content-classes:appointment", "IPM.Appointment")),
        Kind::Task => Some(("urn:content-classes:task", "IPM.Task")),
        Kind::Contact => Some(("urn:content-classes:person", "IPM.Contact")),
        Kind::Note => Some(("urn:content-classes:note", "IPM.StickyNote")),
        Kind::Other => None,
    }
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
         xmlns:e=\"{EXCHANGE}\" xmlns:r=\"{REPL}\" xmlns:dp=\"{OURS}\">"
    );
}

pub(super) const CLOSE: &str = "</D:multistatus>";

fn prefix(ns: &str) -> &'static str {
    match ns {
        HTTPMAIL => "m",
        EXCHANGE => "e",
        REPL => "r",
        OURS => "dp",
        _ => "D",
    }
}

/// Properties that `allprop` leaves out: those that only make sense when asked for (RFC 6578 4, RFC 3253 3.1.5,
/// RFC 4331 2).
fn only_when_asked(name: &str) -> bool {
    matches!(
        name,
        "sync-token" | "supported-report-set" | "quota-used-bytes" | "quota-available-bytes" | "marks"
    )
}

/// Whether a property beyond `DAV:` is ours to say, so that no PROPPATCH sets it.
pub(super) fn is_computed(name: &PropertyName) -> bool {
    match name.ns.as_str() {
        OURS => true,
        _ if mail::is_of_message(name) => true,
        REPL => true,
        EXCHANGE => matches!(
            name.name.as_str(),
            "permanenturl" | "outlookfolderclass" | "outlookmessageclass" | "foldersize"
        ),
        HTTPMAIL => matches!(
            name.name.as_str(),
            "unreadcount"
                | "datereceived"
                | "inbox"
                | "drafts"
                | "deleteditems"
                | "sentitems"
                | "outbox"
                | "tasks"
                | "calendar"
                | "contacts"
                | "notes"
                | "msgfolderroot"
                | "sendmsg"
        ),
        DAV => matches!(
            name.name.as_str(),
            "displayname"
                | "getcontenttype"
                | "contentclass"
                | "uid"
                | "nosubs"
                | "childcount"
                | "objectcount"
        ),
        _ => false,
    }
}

/// Whether this question may be about dead properties at all.
pub(super) fn wants_dead(asked: &Propfind) -> bool {
    match asked {
        Propfind::All { .. } | Propfind::Names => true,
        Propfind::These(names) => names_dead(names),
    }
}

/// Whether one of these may be a dead property.
pub(super) fn names_dead(names: &[PropertyName]) -> bool {
    names.iter().any(|name| !is_protected(name) && !is_computed(name))
}

/// Whether it asks for the locks.
pub(super) fn wants_locks(asked: &Propfind) -> bool {
    match asked {
        Propfind::All { .. } => true,
        Propfind::Names => false,
        Propfind::These(names) => names.iter().any(|name| name.is(DAV, "lockdiscovery")),
    }
}

/// One `D:response`. `brief` leaves out what was not found (`Brief: t`).
pub(super) fn response(
    out: &mut String,
    href: &str,
    found: &[Property],
    dead: &Properties,
    asked: &Propfind,
    brief: bool,
) {
    let _ = write!(out, "<D:response><D:href>{}</D:href><D:propstat><D:prop>", escape(href));
    let mut missing = String::new();
    let live = |out: &mut String, (ns, name, value): &Property| {
        let prefix = prefix(ns);
        let _ = match value.as_str() {
            "" => write!(out, "<{prefix}:{name}/>"),
            value => write!(out, "<{prefix}:{name}>{value}</{prefix}:{name}>"),
        };
    };
    let mut one = |out: &mut String, name: &PropertyName| {
        if let Some(property) = found.iter().find(|(n, l, _)| *n == name.ns && *l == name.name) {
            live(out, property);
        } else if let Some(property) = dead.0.iter().find(|property| property.name == *name) {
            out.push_str(&property.xml);
        } else {
            let _ = write!(missing, "{name}");
        }
    };
    match asked {
        Propfind::All { include } => {
            for property in found.iter().filter(|(_, name, _)| !only_when_asked(name)) {
                live(out, property);
            }
            for property in &dead.0 {
                out.push_str(&property.xml);
            }
            for name in include.iter().filter(|name| name.ns != DAV || only_when_asked(&name.name)) {
                one(out, name);
            }
        }
        Propfind::Names => {
            for (ns, name, _) in found {
                let _ = write!(out, "<{}:{name}/>", prefix(ns));
            }
            for property in &dead.0 {
                let _ = write!(out, "{}", property.name);
            }
        }
        Propfind::These(names) => {
            for name in names {
                one(out, name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_properties_are_named_under_404() {
        let mut out = String::new();
        open(&mut out);
        let names = [(DAV, "displayname"), ("urn:x", "odd"), ("urn:x", "dead")];
        let asked = Propfind::These(names.map(|(ns, name)| PropertyName::new(ns, name)).into());
        let dead = crate::mailbox::properties::Property {
            name: PropertyName::new("urn:x", "dead"),
            xml: "<dead xmlns=\"urn:x\">parrot</dead>".into(),
        };
        let dead = Properties(vec![dead]);
        response(&mut out, "/exchange/a/", &bare("a & b"), &dead, &asked, false);
        out.push_str(CLOSE);
        assert!(out.contains("<D:displayname>a &amp; b</D:displayname>"));
        assert!(out.contains("parrot"));
        assert!(out.contains("<odd xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 404 Not Found"));
        assert!(directpush_common::dav::xml::parse(out.as_bytes()).is_ok(), "{out}");
    }
}
