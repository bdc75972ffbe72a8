//! PROPFIND (RFC 4918 9.1), Depth 0 and 1. Infinity is refused: one request would walk the mailbox.

use std::time::Duration;

use directpush_common::dav::fragment::PropertyName;
use directpush_common::dav::locks::LockPath;
use directpush_common::dav::multistatus::Condition;
use directpush_common::dav::properties::Propfind;
use directpush_common::dav::request::{Depth, brief};
use directpush_common::dav::xml::escape;
use directpush_common::names::{decode_segment, encode_segment};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::get::numbered;
use super::path::{DevicePlace, Place, Target, folder_url};
use super::reply::{self, Reply};
use super::{Call, InMailbox, body_bytes, not_found};
use super::{mail, properties};
use crate::http::body;
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::{Member, implied_name};
use crate::mailbox::properties::Properties;
use crate::mailbox::quota::Quota;

/// Items read at a time, and listed in all; RFC 6578 is for folders that hold more.
pub(super) const PAGE: usize = 500;
/// The same where dead properties are read with them.
const PAGE_DEAD: usize = 100;
const LISTED_MAX: usize = 20_000;
/// Bytes of an answer from which on no more is listed.
pub(super) const LISTED_BYTES_MAX: usize = 16 << 20;
/// Bytes of an answer that needs no place in memory.
const UNPLACED_BYTES_MAX: usize = 64 << 10;
/// How long one request looks at resources.
const TIME_MAX: Duration = Duration::from_secs(20);

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
    /// What is to be read out of messages.
    mail: mail::Asked,
    due: Instant,
    /// Locks are told.
    locks: bool,
    place: Option<OwnedSemaphorePermit>,
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
    let mut listing = Listing::new(at, asked, brief, &[]);
    match &at.target {
        Target::Mailbox => {
            if depth.root() {
                let href = at.account.name.mailbox_url();
                let found =
                    properties::mailbox(&at.account.name, &at.state, &listing.quota, listing.locks(&href));
                listing.tell(&href, &found, &Properties::default());
            }
            if depth.members() && listing.subfolders(ROOT).await? {
                listing.tell_more(&at.account.name.mailbox_url());
            }
        }
        Target::Folder(folder) => {
            if depth.root() {
                listing.folder(*folder).await?;
            }
            if depth.members() && (listing.subfolders(*folder).await? || listing.members(*folder).await?) {
                let href = folder_url(&at.account.name, &at.state, *folder).unwrap_or_default();
                listing.tell_more(&href);
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
    Ok(listing.finish())
}

impl<'a> Listing<'a> {
    /// `looked_at`: properties that matter though they are not told.
    pub(super) fn new(
        at: &'a InMailbox<'a>,
        asked: Propfind,
        brief: bool,
        looked_at: &[PropertyName],
    ) -> Self {
        let named = match &asked {
            Propfind::All { include } => include.as_slice(),
            Propfind::Names => &[],
            Propfind::These(names) => names,
        };
        let mail = mail::Asked::of(named.iter().chain(looked_at));
        let dead = properties::wants_dead(&asked) || properties::names_dead(looked_at);
        let due = Instant::now() + TIME_MAX;
        let quota = at.state.quota(&at.call.server.boxes);
        let mut out = String::new();
        properties::open(&mut out);
        let locks = properties::wants_locks(&asked);
        Self { at, asked, brief, dead, mail, due, locks, place: None, quota, out }
    }

    /// Tells of a resource; says whether no more is to be told.
    pub(super) async fn tell_row(&mut self, row: &Row) -> Result<bool, Reply> {
        self.tell(&row.href, &row.found, &row.dead);
        let bytes = self.out.len();
        let budget = &self.at.call.server.budget;
        if bytes > UNPLACED_BYTES_MAX && !budget.grow(&mut self.place, bytes as u64).await {
            return Err(reply::busy());
        }
        Ok(bytes >= LISTED_BYTES_MAX || self.is_late())
    }

    /// It has taken as long as it may.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.due
    }

    /// There is more in this folder than is told.
    fn tell_more(&mut self, href: &str) {
        self.out.push_str(&format!(
            "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
             <D:error><D:number-of-matches-within-limits/></D:error></D:response>",
            escape(href)
        ));
    }

    /// The answer, which keeps its place in memory until it is sent.
    pub(super) fn finish(mut self) -> Reply {
        self.out.push_str(properties::CLOSE);
        match self.place {
            Some(place) => reply::multi_status(body::placed(self.out.into(), place)),
            None => reply::multi_status(self.out),
        }
    }

    /// Members read at a time.
    pub(super) fn page_len(&self) -> usize {
        if self.dead || !self.mail.is_empty() { PAGE_DEAD } else { PAGE }
    }

    fn tell(&mut self, href: &str, found: &[properties::Property], dead: &Properties) {
        properties::response(&mut self.out, href, found, dead, &self.asked, self.brief);
    }

    /// The locks on what has this friendly URL.
    fn locks(&self, href: &str) -> String {
        if !self.locks {
            return String::new();
        }
        let inside = href.get(self.at.account.name.mailbox_url().len()..).unwrap_or_default();
        let segments = inside.split('/').filter(|segment| !segment.is_empty());
        let names = segments.map(|segment| decode_segment(segment).unwrap_or_default());
        self.at.call.server.locks.discovery(self.at.account.mailbox, &LockPath::new(names))
    }

    async fn folder(&mut self, counter: u64) -> Result<bool, Reply> {
        match self.folder_row(counter).await? {
            Some(row) => self.tell_row(&row).await,
            None => Ok(false),
        }
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

    /// Lists the folders in one; says whether there are more than are listed.
    async fn subfolders(&mut self, parent: u64) -> Result<bool, Reply> {
        let children: Vec<u64> = self.at.state.tree.children(parent).map(|(counter, _)| counter).collect();
        for counter in children {
            if self.folder(counter).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists a folder's members; says whether there are more than are listed.
    async fn members(&mut self, folder: u64) -> Result<bool, Reply> {
        let at = self.at;
        let mut listed = 0;
        let page_len = self.page_len();
        for file in [false, true] {
            let mut after = 0;
            loop {
                let page = at
                    .call
                    .server
                    .boxes
                    .members_after(at.account.mailbox, folder, file, after, page_len)
                    .await
                    .map_err(|error| reply::failure(&error))?;
                let (count, last) = (page.len(), page.last().map(|member| member.id));
                let full = self.page(folder, page, None).await?;
                listed += count;
                match last {
                    Some(_) if full || listed >= LISTED_MAX => return Ok(true),
                    Some(last) if count == page_len => after = last,
                    _ => break,
                }
            }
        }
        Ok(false)
    }

    /// Tells of some members, under their friendly URLs or under the one that was asked for; says whether no more
    /// is to be told.
    async fn page(&mut self, folder: u64, page: Vec<Member>, href: Option<&str>) -> Result<bool, Reply> {
        let dead = self.dead_of(folder, &page).await?;
        for (member, dead) in page.iter().zip(dead) {
            let mut row = self.row(folder, member, dead);
            if let Some(href) = href {
                href.clone_into(&mut row.href);
            }
            if self.tell_row(&row).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The dead properties of some members, in their order, and those that are read out of messages; empty ones
    /// if they do not matter.
    pub(super) async fn dead_of(&self, folder: u64, page: &[Member]) -> Result<Vec<Properties>, Reply> {
        let (at, server) = (self.at, self.at.call.server);
        let mut all = if self.dead {
            let dead = server.boxes.properties_of(at.account.mailbox, folder, page).await;
            dead.map_err(|error| reply::failure(&error))?
        } else {
            page.iter().map(|_| Properties::default()).collect()
        };
        if !self.mail.is_empty() {
            for (properties, read) in all.iter_mut().zip(self.mail.read(server, page).await?) {
                properties.0.retain(|one| !mail::is_of_message(&one.name));
                properties.0.extend(read);
            }
        }
        Ok(all)
    }

    pub(super) fn row(&self, folder: u64, member: &Member, dead: Properties) -> Row {
        let at = self.at;
        let base = folder_url(&at.account.name, &at.state, folder).unwrap_or_default();
        let installation = at.state.head.installation;
        let name = member.item.name.clone().unwrap_or_else(|| implied_name(installation, member.id));
        let href = format!("{base}{}", encode_segment(&name));
        let locks = self.locks(&href);
        let found = properties::item(&at.account.name, &at.state, folder, member, locks);
        Row { href, found, dead }
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
