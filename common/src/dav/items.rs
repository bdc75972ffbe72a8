//! REPORTs on a folder's items: `DAV:sync-collection` (RFC 6578 3.2) and our `dp:walk`.
//!
//! The first goes up the change log from a token; the second goes down the items from the newest and is
//! how a device fills its window. Both answer with the entries of `change`.

use super::{
    DAV, DavError, OURS,
    xml::{Element, escape, parse},
};
use crate::{
    change::{Entry, EntryKind, Gone, Live, Maker},
    mail::marks::MARKS_BYTES_MAX,
    names::ItemId,
    numbers::{CollectionToken, Number},
};

/// Entries of one answer, at most.
pub const RESULTS_MAX: usize = 512;

/// A REPORT on a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ItemsRequest {
    /// What changed after `since`, in ascending order of change numbers.
    Changes {
        /// The state known; none = the empty folder.
        since: Option<CollectionToken>,
        /// Entries, at most.
        limit: usize,
    },
    /// Live items above `after`, oldest first.
    Additions {
        /// Only items with a greater id.
        after: ItemId,
        /// Entries, at most.
        limit: usize,
    },
    /// Live items below `before`, newest first.
    Walk {
        /// Only items with a smaller id; none = from the newest.
        before: Option<ItemId>,
        /// Entries, at most.
        limit: usize,
    },
}

/// The answer of either report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Items {
    /// Changes: the state known after this answer. Otherwise: the folder's state when the scan began.
    pub token: CollectionToken,
    /// The entries, in the order of the report.
    pub entries: Vec<Entry>,
    /// Whether the scan ended at its limit.
    pub more: bool,
}

impl ItemsRequest {
    /// Writes the request body.
    pub fn write(&self) -> String {
        match self {
            Self::Changes { since, limit } => {
                let token = since.map_or_else(String::new, |token| token.to_string());
                format!(
                    "<?xml version=\"1.0\"?><D:sync-collection xmlns:D=\"{DAV}\" xmlns:dp=\"{OURS}\">\
                     <D:sync-token>{token}</D:sync-token><D:sync-level>1</D:sync-level>\
                     <D:limit><D:nresults>{limit}</D:nresults></D:limit><D:prop><dp:item/></D:prop></D:sync-collection>"
                )
            }
            Self::Additions { after, limit } => format!(
                "<?xml version=\"1.0\"?><dp:walk xmlns:dp=\"{OURS}\"><dp:after>{after}</dp:after>\
                 <dp:nresults>{limit}</dp:nresults></dp:walk>"
            ),
            Self::Walk { before, limit } => {
                let before = before.unwrap_or_default();
                format!(
                    "<?xml version=\"1.0\"?><dp:walk xmlns:dp=\"{OURS}\"><dp:before>{before}</dp:before>\
                     <dp:nresults>{limit}</dp:nresults></dp:walk>"
                )
            }
        }
    }

    /// Reads a request, already parsed. A limit that is absent or too high becomes [`RESULTS_MAX`].
    ///
    /// # Errors
    /// [`DavError`] for another document or a token that is none of ours.
    pub fn read(root: &Element) -> Result<Self, DavError> {
        let limit = |text: Option<&str>| match text {
            None => Ok(RESULTS_MAX),
            Some(text) => match text.parse::<usize>() {
                Ok(limit @ 1..) => Ok(limit.min(RESULTS_MAX)),
                _ => Err(DavError::Bad("nresults")),
            },
        };
        if root.is(DAV, "sync-collection") {
            let since = match root.child_text(DAV, "sync-token") {
                None => return Err(DavError::Missing("sync-token")),
                Some("") => None,
                Some(token) => Some(token.parse().map_err(|_| DavError::Bad("sync-token"))?),
            };
            let nresults = root.child(DAV, "limit").and_then(|limit| limit.child_text(DAV, "nresults"));
            Ok(Self::Changes { since, limit: limit(nresults)? })
        } else if root.is(OURS, "walk") {
            if let Some(after) = root.child_text(OURS, "after") {
                let after = ItemId(after.parse().map_err(|_| DavError::Bad("after"))?);
                return Ok(Self::Additions { after, limit: limit(root.child_text(OURS, "nresults"))? });
            }
            let before = root.child_text(OURS, "before").ok_or(DavError::Missing("before"))?;
            let before: Number = before.parse().map_err(|_| DavError::Bad("before"))?;
            let before = (before != Number::ZERO).then_some(ItemId(before));
            Ok(Self::Walk { before, limit: limit(root.child_text(OURS, "nresults"))? })
        } else {
            Err(DavError::Missing("sync-collection"))
        }
    }
}

impl Items {
    /// Writes the 207 body. `folder` is the folder's URL, `href` gives an item's URL (both encoded).
    pub fn write(&self, folder: &str, href: impl Fn(ItemId) -> String) -> String {
        let mut out = format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"{DAV}\" xmlns:dp=\"{OURS}\">");
        for entry in &self.entries {
            write_entry(&mut out, &href(entry.id), entry);
        }
        if self.more {
            // RFC 6578 3.6: a truncated result says so for the collection itself.
            out.push_str(&format!(
                "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                 <D:error><D:number-of-matches-within-limits/></D:error></D:response>",
                escape(folder)
            ));
        }
        out.push_str(&format!("<D:sync-token>{}</D:sync-token></D:multistatus>", self.token));
        out
    }

    /// Reads the 207 body.
    ///
    /// # Errors
    /// [`DavError`] for another document.
    pub fn read(body: &[u8]) -> Result<Self, DavError> {
        let root = parse(body)?;
        let token = root.child_text(DAV, "sync-token").ok_or(DavError::Missing("sync-token"))?;
        let token = token.parse().map_err(|_| DavError::Bad("sync-token"))?;
        let mut items = Self { token, entries: Vec::new(), more: false };
        for response in root.children_named(DAV, "response") {
            match read_entry(response)? {
                Some(entry) => items.entries.push(entry),
                None if response.child_text(DAV, "status").is_some_and(|status| status.contains(" 507 ")) => {
                    items.more = true;
                }
                None => return Err(DavError::Missing("item")),
            }
        }
        Ok(items)
    }
}

/// Writes the response that tells of an entry. `href` is its URL, encoded.
pub(super) fn write_entry(out: &mut String, href: &str, entry: &Entry) {
    out.push_str("<D:response><D:href>");
    out.push_str(&escape(href));
    out.push_str("</D:href>");
    let item = format!("<dp:item id=\"{}\" changed=\"{}\"", entry.id, entry.changed);
    match &entry.kind {
        EntryKind::Gone(gone) => {
            let (device, cause) = maker_attributes(&gone.maker);
            let date = gone.date;
            out.push_str(&format!(
                "<D:status>HTTP/1.1 404 Not Found</D:status>{item} device=\"{device}\" \
                 cause=\"{cause}\" date=\"{date}\"/>"
            ));
        }
        EntryKind::Live(live) => {
            let (device, cause) = maker_attributes(&live.maker);
            let (added_device, added_cause) = maker_attributes(&live.added);
            out.push_str(&format!(
                "<D:propstat><D:prop>{item} before=\"{}\" device=\"{device}\" cause=\"{cause}\" \
                 added-device=\"{added_device}\" added-cause=\"{added_cause}\" date=\"{}\" size=\"{}\" read=\"{}\"",
                live.before,
                live.date,
                live.size,
                u8::from(live.read)
            ));
            if live.content != entry.id.0 {
                out.push_str(&format!(" content=\"{}\"", live.content));
            }
            if !live.marks.is_empty() {
                out.push_str(&format!(" marks=\"{}\"", escape(&live.marks)));
            }
            out.push_str("/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>");
        }
    }
    out.push_str("</D:response>");
}

/// Reads the response that tells of an entry; `None` for a response of another kind.
pub(super) fn read_entry(response: &Element) -> Result<Option<Entry>, DavError> {
    if let Some(gone) = response.child(OURS, "item") {
        let kind =
            EntryKind::Gone(Gone { maker: maker(gone, "device", "cause")?, date: gone.parsed("date")? });
        return Ok(Some(Entry { id: ItemId(gone.parsed("id")?), changed: gone.parsed("changed")?, kind }));
    }
    let live = response.child(DAV, "propstat").and_then(|propstat| propstat.child(DAV, "prop"));
    live.and_then(|prop| prop.child(OURS, "item")).map(live_entry).transpose()
}

fn live_entry(item: &Element) -> Result<Entry, DavError> {
    let id = ItemId(item.parsed("id")?);
    let marks = item.attribute("marks").unwrap_or_default();
    let live = Live {
        before: item.parsed("before")?,
        maker: maker(item, "device", "cause")?,
        added: maker(item, "added-device", "added-cause")?,
        date: item.parsed("date")?,
        size: item.parsed("size")?,
        read: item.attribute("read") == Some("1"),
        marks: if marks.len() <= MARKS_BYTES_MAX { marks.to_owned() } else { String::new() },
        content: item.attribute("content").map_or(Ok(id.0), |_| item.parsed("content"))?,
    };
    Ok(Entry { id, changed: item.parsed("changed")?, kind: EntryKind::Live(live) })
}

fn maker(item: &Element, device: &'static str, cause: &'static str) -> Result<Maker, DavError> {
    let device = match item.attribute(device) {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| DavError::Bad("device"))?),
    };
    Ok(Maker { device, cause: item.parsed(cause)? })
}

fn maker_attributes(maker: &Maker) -> (String, String) {
    let device = maker.device.as_ref().map_or_else(String::new, |device| escape(&device.to_string()));
    (device, maker.cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::Cause, names::DeviceKey};

    #[test]
    fn answers_read_what_they_write() {
        let phone = Maker { device: Some(DeviceKey::new("i&Phone", "A\"1").unwrap()), cause: Cause::Sync };
        let live = Live {
            before: Number(3),
            maker: phone.clone(),
            added: Maker::of(Cause::Delivery),
            date: -5,
            size: 1234,
            read: true,
            marks: r#"{"categories":["<a & 'b'>"]}"#.into(),
            content: Number(8),
        };
        let plain = Live { marks: String::new(), content: Number(5), ..live.clone() };
        for more in [false, true] {
            let items = Items {
                token: CollectionToken { epoch: 7, number: Number(12) },
                entries: vec![
                    Entry { id: ItemId(Number(4)), changed: Number(9), kind: EntryKind::Live(live.clone()) },
                    Entry {
                        id: ItemId(Number(5)),
                        changed: Number(10),
                        kind: EntryKind::Live(plain.clone()),
                    },
                    Entry {
                        id: ItemId(Number(6)),
                        changed: Number(12),
                        kind: EntryKind::Gone(Gone { maker: phone.clone(), date: 9 }),
                    },
                ],
                more,
            };
            let body = items.write("/exchange/a/Inbox/", |id| format!("/exchange/a/Inbox/{id}"));
            assert_eq!(Items::read(body.as_bytes()).unwrap(), items);
            assert_eq!((body.matches(" marks=").count(), body.matches(" content=").count()), (1, 1));
        }
    }

    #[test]
    fn requests_read_what_they_write_within_bounds() {
        let token = CollectionToken { epoch: 7, number: Number(12) };
        for request in [
            ItemsRequest::Changes { since: None, limit: 100 },
            ItemsRequest::Changes { since: Some(token), limit: 512 },
            ItemsRequest::Additions { after: ItemId(Number(8)), limit: 9 },
            ItemsRequest::Walk { before: None, limit: 1 },
            ItemsRequest::Walk { before: Some(ItemId(Number(8))), limit: 1 },
        ] {
            assert_eq!(ItemsRequest::read(&parse(request.write().as_bytes()).unwrap()), Ok(request));
        }
        let big = ItemsRequest::Walk { before: None, limit: 100_000 };
        let read = ItemsRequest::read(&parse(big.write().as_bytes()).unwrap());
        assert_eq!(read, Ok(ItemsRequest::Walk { before: None, limit: RESULTS_MAX }));
        let zero = ItemsRequest::Walk { before: None, limit: 0 };
        assert_eq!(
            ItemsRequest::read(&parse(zero.write().as_bytes()).unwrap()),
            Err(DavError::Bad("nresults"))
        );
    }
}
