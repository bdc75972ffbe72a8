//! SEARCH as Exchange's clients sent it: `DAV:sql` over the properties that PROPFIND shows (`common::dav::search`).
//!
//! Rows are looked at one page at a time and bounded in number; so is the answer. `Range: rows=` asks for a
//! part of them, as the clients of the time did. One account searches one thing at a time, and not for long.
//! Not here: the replication manifest (`R:repl`), for which there is RFC 6578.

use directpush_common::dav::conditions::parse_http_date;
use directpush_common::dav::fragment::PropertyName;
use directpush_common::dav::multistatus::Condition;
use directpush_common::dav::properties::Propfind;
use directpush_common::dav::range::{self, Ranges};
use directpush_common::dav::request::{brief, uri_path};
use directpush_common::dav::search::{Scope, Search, Select, Traversal, Type, Value, property_name};
use directpush_common::dav::xml;
use directpush_common::dav::{DAV, HTTPMAIL};
use http::{HeaderName, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::path::{self, Path, Place, Target};
use super::propfind::{Listing, Row};
use super::reply::{self, Reply};
use super::{InMailbox, body_bytes, guard, not_found};
use crate::mailbox::folders::ROOT;

/// Resources looked at by one request, at most.
const EXAMINED_MAX: usize = 100_000;
/// Resources found by one request, at most.
const FOUND_MAX: usize = 10_000;
/// Bytes of what was found, before the answer is made of it.
const FOUND_BYTES_MAX: usize = 32 << 20;

/// One resource that was found.
struct Hit {
    key: Vec<Value>,
    row: Row,
}

/// A SEARCH while it goes through the mailbox.
struct Hunt<'a> {
    search: &'a Search,
    /// The properties that condition and order look at.
    uris: Vec<&'a str>,
    listing: Listing<'a>,
    hits: Vec<Hit>,
    examined: usize,
    bytes: usize,
    /// Memory for what was found.
    place: Option<OwnedSemaphorePermit>,
}

/// The properties that condition and order look at, as often as they do.
fn looked_at_uris(search: &Search) -> impl Iterator<Item = &str> {
    let condition = search.condition.iter().flat_map(directpush_common::dav::search::Condition::properties);
    condition.chain(search.order.iter().map(|order| order.property.as_str()))
}

/// Resources looked at without letting others have their turn.
const TURN: usize = 50;

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let call = at.call;
    let search = Search::parse_body(&body_bytes(call, incoming).await?).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        reply::text(status, error)
    })?;
    let asked = match &search.select {
        Select::All => Propfind::All { include: Vec::new() },
        Select::These(uris) => {
            let mut names: Vec<PropertyName> = Vec::new();
            for name in uris.iter().filter_map(|uri| property_name(uri)) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Propfind::These(names)
        }
    };
    let looked_at: Vec<PropertyName> = looked_at_uris(&search).filter_map(property_name).collect();
    let searching = call.server.locks.searching(at.account.mailbox).await;
    let _searching = searching.ok_or_else(reply::busy)?;
    let listing = Listing::new(at, asked, brief(call.header("brief")), &looked_at);
    let mut uris: Vec<&str> = Vec::new();
    for uri in looked_at_uris(&search) {
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    let mut hunt =
        Hunt { search: &search, uris, listing, hits: Vec::new(), examined: 0, bytes: 0, place: None };
    for scope in &search.scopes {
        hunt.scope(scope).await?;
    }
    let Hunt { mut hits, mut listing, place: _place, .. } = hunt;
    if !search.order.is_empty() {
        hits.sort_by(|a, b| search.compare(&a.key, &b.key));
    }
    let total = hits.len() as u64;
    let parts = match call.header(header::RANGE.as_str()).map(|value| range::rows(value, total)) {
        Some(Ranges::Parts(parts)) => Some(parts),
        Some(Ranges::Unsatisfiable) => Some(Vec::new()),
        Some(Ranges::Whole) | None => None,
    };
    for (n, hit) in hits.iter().enumerate() {
        let wanted = |parts: &Vec<(u64, u64)>| {
            parts.iter().any(|(first, last)| (*first..=*last).contains(&(n as u64)))
        };
        if parts.as_ref().is_none_or(wanted) && listing.tell_row(&hit.row).await? {
            return Err(reply::condition(Condition::NumberOfMatchesWithinLimits, []));
        }
    }
    let reply = reply::with(listing.finish(), HeaderName::from_static("accept-ranges"), "rows");
    Ok(match parts {
        Some(parts) => reply::with(reply, header::CONTENT_RANGE, &range::content_rows(&parts, total)),
        None => reply,
    })
}

impl Hunt<'_> {
    async fn scope(&mut self, scope: &Scope) -> Result<(), Reply> {
        let at = self.listing.at;
        let target = match scope.uri.as_str() {
            "" => at.target.clone(),
            uri => {
                let path = uri_path(uri, guard::authority(at.call)).map_err(reply::bad)?;
                match Path::parse(path).map_err(reply::bad)?.place {
                    Place::Mailbox { user, inside } if user == at.account.name => {
                        path::find(&at.state, &inside)
                    }
                    Place::Mailbox { .. } => {
                        return Err(reply::text(StatusCode::FORBIDDEN, "not your mailbox"));
                    }
                    _ => return Err(not_found()),
                }
            }
        };
        let top = match target {
            Target::Mailbox => ROOT,
            Target::Folder(folder) => folder,
            Target::Item { .. } => {
                return Err(reply::text(StatusCode::CONFLICT, "only folders can be searched"));
            }
            _ => return Err(not_found()),
        };
        let mut waiting = vec![top];
        while let Some(folder) = waiting.pop() {
            let children: Vec<u64> = at.state.tree.children(folder).map(|(child, _)| child).collect();
            for child in &children {
                let row = self.listing.folder_row(*child).await?;
                if let Some(row) = row {
                    self.look_at(row).await?;
                }
            }
            if folder != ROOT && scope.traversal != Traversal::Hierarchical {
                self.members(folder).await?;
            }
            if scope.traversal != Traversal::Shallow {
                waiting.extend(children);
            }
        }
        Ok(())
    }

    async fn members(&mut self, folder: u64) -> Result<(), Reply> {
        let at = self.listing.at;
        let page_len = self.listing.page_len();
        for file in [false, true] {
            let mut after = 0;
            loop {
                let boxes = &at.call.server.boxes;
                let page = boxes.members_after(at.account.mailbox, folder, file, after, page_len).await;
                let page = page.map_err(|error| reply::failure(&error))?;
                let (count, last) = (page.len(), page.last().map(|member| member.id));
                let dead = self.listing.dead_of(folder, &page).await?;
                for (member, dead) in page.iter().zip(dead) {
                    self.look_at(self.listing.row(folder, member, dead)).await?;
                }
                match last {
                    Some(last) if count == page_len => after = last,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    async fn look_at(&mut self, mut row: Row) -> Result<(), Reply> {
        self.examined += 1;
        if self.examined.is_multiple_of(TURN) {
            // What is in memory is read without waiting.
            tokio::task::yield_now().await;
        }
        // Exchange has the URL as a property too, and its clients select it.
        row.found.push((DAV, "href", xml::escape(&row.href)));
        // Each is evaluated once, however often the condition asks.
        let values: Vec<(&str, Value)> = self.uris.iter().map(|uri| (*uri, value(&row, uri))).collect();
        let known = |uri: &str| {
            let found = values.iter().find(|(known, _)| *known == uri);
            found.map_or(Value::Null, |(_, value)| value.clone())
        };
        if self.search.matches(known) {
            let key = self.search.sort_key(known);
            self.bytes += row.bytes();
            self.hits.push(Hit { key, row });
            let budget = &self.listing.at.call.server.budget;
            if !budget.grow(&mut self.place, self.bytes as u64).await {
                return Err(reply::busy());
            }
        }
        let too_much = self.bytes > FOUND_BYTES_MAX || self.hits.len() > FOUND_MAX || self.listing.is_late();
        if too_much || self.examined > EXAMINED_MAX {
            return Err(reply::condition(Condition::NumberOfMatchesWithinLimits, []));
        }
        Ok(())
    }
}

impl Row {
    /// About what it takes of memory.
    fn bytes(&self) -> usize {
        let live: usize = self.found.iter().map(|property| size_of_val(property) + property.2.len()).sum();
        self.href.len() + live + self.dead.0.iter().map(|property| 64 + property.xml.len()).sum::<usize>()
    }
}

/// A resource's property, as SEARCH compares it.
fn value(row: &Row, uri: &str) -> Value {
    let Some(name) = property_name(uri) else { return Value::Null };
    let live = row.found.iter().find(|(ns, local, _)| *ns == name.ns && *local == name.name);
    let xml = match live {
        Some((.., value)) => format!("<a xmlns:D=\"DAV:\">{value}</a>"),
        None => match row.dead.0.iter().find(|property| property.name == name) {
            Some(property) => property.xml.clone(),
            None => return Value::Null,
        },
    };
    let text = xml::parse(xml.as_bytes()).map(|element| element.text).unwrap_or_default();
    match (name.ns.as_str(), name.name.as_str()) {
        (_, "getlastmodified") => parse_http_date(&text).map_or(Value::Null, |secs| Value::Date(secs * 1000)),
        (_, "creationdate" | "datereceived") | (HTTPMAIL, "date") => Value::Text(text).cast(Type::Date),
        (
            _,
            "isfolder"
            | "iscollection"
            | "ishidden"
            | "isreadonly"
            | "isstructureddocument"
            | "hassubs"
            | "hasattachment"
            | "read",
        ) => Value::Bool(text == "1"),
        (
            _,
            "getcontentlength" | "visiblecount" | "childcount" | "objectcount" | "unreadcount" | "foldersize",
        )
        | (HTTPMAIL, "importance" | "priority") => Value::Text(text).cast(Type::Int),
        _ => Value::Text(text),
    }
}
