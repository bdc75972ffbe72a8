//! PROPFIND (RFC 4918 9.1), Depth 0 and 1. Infinity is refused: one request would walk the mailbox.

use directpush_common::dav::locks::LockPath;
use directpush_common::dav::multistatus::Condition;
use directpush_common::dav::properties::Propfind;
use directpush_common::dav::request::{Depth, brief};
use directpush_common::dav::xml::escape;
use directpush_common::names::{decode_segment, encode_segment};
use hyper::body::Incoming;

use super::get::numbered;
use super::path::{DevicePlace, Place, Target, folder_url};
use super::properties;
use super::reply::{self, Reply};
use super::{Call, InMailbox, body_bytes, not_found};
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{Member, implied_name};
use crate::mailbox::properties::Properties;
use crate::mailbox::quota::Quota;

/// Items read at a time, and listed in all; RFC 6578 is for folders that hold more.
pub(super) const PAGE: usize = 500;
const LISTED_MAX: usize = 20_000;
/// Bytes of an answer from which on no more is listed.
pub(super) const LISTED_BYTES_MAX: usize = 16 << 20;

fn depth(call: &Call<'_>) -> Result<Depth, Reply> {
    // None means infinity (RFC 4918 9.1).
    let depth = Depth::parse(call.header("depth"), Depth::Infinity).map_err(reply::bad)?;
    if depth.is_infinite() {
        return Err(reply::condition(Condition::PropfindFiniteDepth, []));
    }
    Ok(depth)
}

/// `/` and `/exchange/`: whoever asks sees the own mailbox below.
pub(super) async fn outside(call: &Call<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let depth = depth(call)?;
    let asked = Propfind::parse(&body_bytes(call, incoming).await?).map_err(reply::bad)?;
    let brief = brief(call.header("brief"));
    let mut out = String::new();
    properties::open(&mut out);
    let mut tell = |href: &str, name: &str| {
        let none = Properties::default();
        properties::response(&mut out, href, &properties::bare(name), &none, &asked, brief);
    };
    let root = call.path.place == Place::Root;
    let own = call.principal.account().map(|account| (account.name.mailbox_url(), account.name.to_string()));
    let (href, name, below) = if root {
        ("/", "", Some(("/exchange/".to_owned(), "exchange".to_owned())))
    } else {
        ("/exchange/", "exchange", own)
    };
    if depth.root() {
        tell(href, name);
    }
    if let (Some((href, name)), true) = (below, depth.members()) {
        tell(&href, &name);
    }
    out.push_str(properties::CLOSE);
    Ok(reply::multi_status(out))
}

/// An answer about resources of a mailbox, while it is written: of PROPFIND, or of SEARCH.
pub(super) struct Listing<'a> {
    pub(super) at: &'a InMailbox<'a>,
    asked: Propfind,
    brief: bool,
    /// Dead properties may matter.
    dead: bool,
    quota: Quota,
    pub(super) out: String,
}

/// One resource with all that is known of it.
pub(super) struct Row {
    pub(super) href: String,
    pub(super) found: Vec<properties::Property>,
    pub(super) dead: Properties,
}

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let call = at.call;
    let depth = depth(call)?;
    let asked = Propfind::parse(&body_bytes(call, incoming).await?).map_err(reply::bad)?;
    let brief = brief(call.header("brief"));
    if let Target::Device(place) = &at.target {
        return device(at, place, depth, &asked, brief).await;
    }
    let dead = properties::wants_dead(&asked);
    let mut listing = Listing::new(at, asked, brief, dead);
    match &at.target {
        Target::Mailbox => {
            if depth.root() {
                let href = at.account.name.mailbox_url();
                let found =
                    properties::mailbox(&at.account.name, &at.state, &listing.quota, listing.locks(&href));
                listing.tell(&href, &found, &Properties::default());
            }
            if depth.members() {
                listing.subfolders(ROOT).await?;
            }
        }
        Target::Folder(folder) => {
            if depth.root() {
                listing.folder(*folder).await?;
            }
            if depth.members() {
                listing.subfolders(*folder).await?;
                if listing.members(*folder).await? {
                    let href = folder_url(&at.account.name, &at.state, *folder).unwrap_or_default();
                    listing.out.push_str(&format!(
                        "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                         <D:error><D:number-of-matches-within-limits/></D:error></D:response>",
                        escape(&href)
                    ));
                }
            }
        }
        Target::Item { .. } if call.path.slash => return Err(not_found()),
        Target::Item { folder, name } => {
            let member = at.member_if_there(*folder, name).await?.ok_or_else(not_found)?;
            listing.page(*folder, vec![member], Some(call.href())).await?;
        }
        Target::FlatTop => {
            listing.tell(call.href(), &properties::bare("-FlatUrlSpace-"), &Properties::default());
        }
        Target::Device(_) | Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
    }
    listing.out.push_str(properties::CLOSE);
    Ok(reply::multi_status(listing.out))
}

impl<'a> Listing<'a> {
    pub(super) fn new(at: &'a InMailbox<'a>, asked: Propfind, brief: bool, dead: bool) -> Self {
        let quota = at.state.quota(&at.call.server.boxes);
        let mut out = String::new();
        properties::open(&mut out);
        Self { at, asked, brief, dead, quota, out }
    }

    pub(super) fn tell_row(&mut self, row: &Row) {
        self.tell(&row.href, &row.found, &row.dead);
    }

    fn tell(&mut self, href: &str, found: &[properties::Property], dead: &Properties) {
        properties::response(&mut self.out, href, found, dead, &self.asked, self.brief);
    }

    /// The locks on what has this friendly URL.
    fn locks(&self, href: &str) -> String {
        let inside = href.get(self.at.account.name.mailbox_url().len()..).unwrap_or_default();
        let segments = inside.split('/').filter(|segment| !segment.is_empty());
        let names = segments.map(|segment| decode_segment(segment).unwrap_or_default());
        self.at.call.server.locks.discovery(self.at.account.mailbox, &LockPath::new(names))
    }

    async fn folder(&mut self, counter: u64) -> Result<(), Reply> {
        if let Some(row) = self.folder_row(counter).await? {
            self.tell_row(&row);
        }
        Ok(())
    }

    /// A permanent URL is answered with the friendly one: that is how it is resolved.
    pub(super) async fn folder_row(&self, counter: u64) -> Result<Option<Row>, Reply> {
        let at = self.at;
        let (Some(record), Some(href)) =
            (at.state.tree.folder(counter), folder_url(&at.account.name, &at.state, counter))
        else {
            return Ok(None);
        };
        let bytes = if self.dead { record.held.own_property_bytes } else { 0 };
        let dead = at.call.server.boxes.properties(at.account.mailbox, counter, 0, bytes).await;
        let dead = dead.map_err(|error| reply::failure(&error))?;
        let locks = self.locks(&href);
        let found = properties::folder(&at.account.name, &at.state, counter, record, &self.quota, locks);
        Ok(Some(Row { href, found, dead }))
    }

    async fn subfolders(&mut self, parent: u64) -> Result<(), Reply> {
        let children: Vec<u64> = self.at.state.tree.children(parent).map(|(counter, _)| counter).collect();
        for counter in children {
            self.folder(counter).await?;
        }
        Ok(())
    }

    /// Lists a folder's members; says whether there are more than are listed.
    async fn members(&mut self, folder: u64) -> Result<bool, Reply> {
        let at = self.at;
        let mut listed = 0;
        for file in [false, true] {
            let mut after = 0;
            loop {
                let page = at
                    .call
                    .server
                    .boxes
                    .members_after(at.account.mailbox, folder, file, after, PAGE)
                    .await
                    .map_err(|error| reply::failure(&error))?;
                let (count, last) = (page.len(), page.last().map(|member| member.id));
                self.page(folder, page, None).await?;
                listed += count;
                match last {
                    Some(_) if listed >= LISTED_MAX || self.out.len() >= LISTED_BYTES_MAX => return Ok(true),
                    Some(last) if count == PAGE => after = last,
                    _ => break,
                }
            }
        }
        Ok(false)
    }

    /// Tells of some members, under their friendly URLs or under the one that was asked for.
    async fn page(&mut self, folder: u64, page: Vec<Member>, href: Option<&str>) -> Result<(), Reply> {
        for mut row in self.rows(folder, page).await? {
            if let Some(href) = href {
                href.clone_into(&mut row.href);
            }
            self.tell_row(&row);
        }
        Ok(())
    }

    pub(super) async fn rows(&self, folder: u64, page: Vec<Member>) -> Result<Vec<Row>, Reply> {
        let at = self.at;
        let base = folder_url(&at.account.name, &at.state, folder).unwrap_or_default();
        let dead = if self.dead {
            let dead = at.call.server.boxes.properties_of(at.account.mailbox, folder, &page).await;
            dead.map_err(|error| reply::failure(&error))?
        } else {
            Vec::new()
        };
        let mut dead = dead.into_iter();
        let rows = page.iter().map(|member| {
            let installation = at.state.head.installation;
            let name = member.item.name.clone().unwrap_or_else(|| implied_name(installation, member.id));
            let href = format!("{base}{}", encode_segment(&name));
            let locks = self.locks(&href);
            let found = properties::item(&at.account.name, &at.state, folder, member, locks);
            Row { href, found, dead: dead.next().unwrap_or_default() }
        });
        Ok(rows.collect())
    }
}

/// The device tree: reachable by its URL, never listed with the mailbox.
async fn device(
    at: &InMailbox<'_>,
    place: &DevicePlace,
    depth: Depth,
    asked: &Propfind,
    brief: bool,
) -> Result<Reply, Reply> {
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    let failure = |error| reply::failure(&error);
    let mut out = String::new();
    properties::open(&mut out);
    let mut tell = |href: &str, found: &[properties::Property]| {
        properties::response(&mut out, href, found, &Properties::default(), asked, brief);
    };
    let href = at.call.href().trim_end_matches('/').to_owned() + "/";
    let (own, below): (_, Vec<_>) = match place {
        DevicePlace::NonIpm => ("NON_IPM_SUBTREE".to_owned(), vec!["Microsoft-Server-ActiveSync".to_owned()]),
        DevicePlace::ActiveSync => {
            let mut types: Vec<_> = boxes
                .devices(mailbox)
                .await
                .map_err(failure)?
                .iter()
                .map(|device| device.device_type().to_owned())
                .collect();
            types.dedup();
            ("Microsoft-Server-ActiveSync".to_owned(), types)
        }
        DevicePlace::Type(kind) => {
            let devices = boxes.devices(mailbox).await.map_err(failure)?;
            let ids: Vec<_> = devices
                .iter()
                .filter(|device| device.device_type() == kind)
                .map(|device| device.device_id().to_owned())
                .collect();
            if ids.is_empty() {
                return Err(not_found());
            }
            (kind.clone(), ids)
        }
        DevicePlace::Device(device) => {
            let (found, objects) = boxes.device_objects(mailbox, device).await.map_err(failure)?;
            if objects.is_empty() {
                return Ok(numbered(not_found(), found));
            }
            if depth.root() {
                tell(&href, &properties::bare(device.device_id()));
            }
            if depth.members() {
                for (name, object) in &objects {
                    let href = format!("{href}{}", encode_segment(name));
                    tell(&href, &properties::state_object(name, object));
                }
            }
            out.push_str(properties::CLOSE);
            return Ok(numbered(reply::multi_status(out), found));
        }
        DevicePlace::Object(device, object) => {
            let (found, there) = boxes.device_object(mailbox, device, object).await.map_err(failure)?;
            let Some(there) = there else { return Ok(numbered(not_found(), found)) };
            tell(at.call.href(), &properties::state_object(object, &there.object));
            out.push_str(properties::CLOSE);
            return Ok(numbered(reply::multi_status(out), found));
        }
    };
    if depth.root() {
        tell(&href, &properties::bare(&own));
    }
    if depth.members() {
        for name in below {
            tell(&format!("{href}{}/", encode_segment(&name)), &properties::bare(&name));
        }
    }
    out.push_str(properties::CLOSE);
    Ok(reply::multi_status(out))
}
