//! PROPFIND (RFC 4918 9.1), Depth 0 and 1. Infinity is refused: one request would walk the mailbox.

use directpush_common::dav::DAV;
use directpush_common::dav::xml::{Element, escape};
use directpush_common::names::encode_segment;
use http::StatusCode;
use hyper::body::Incoming;

use super::get::numbered;
use super::path::{DevicePlace, Place, Target, folder_url};
use super::properties::{self, Asked};
use super::reply::{self, Reply};
use super::{Call, InMailbox, not_found, xml_body};
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::implied_name;

/// Properties one request may ask for.
const PROPERTIES_MAX: usize = 200;
/// Items read at a time, and listed in all; RFC 6578 is for folders that hold more.
const PAGE: usize = 500;
const LISTED_MAX: usize = 20_000;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Depth {
    Zero,
    One,
    /// Exchange's `1,noroot`: the members only.
    Members,
}

fn depth(call: &Call<'_>) -> Result<Depth, Reply> {
    match call.header("depth").map(str::trim) {
        Some("0") => Ok(Depth::Zero),
        Some("1") => Ok(Depth::One),
        Some(text) if text.replace(' ', "").eq_ignore_ascii_case("1,noroot") => Ok(Depth::Members),
        // None means infinity (RFC 4918 9.1).
        None | Some("infinity") => Err(reply::precondition(StatusCode::FORBIDDEN, "propfind-finite-depth")),
        Some(_) => Err(reply::text(StatusCode::BAD_REQUEST, "Depth cannot be read")),
    }
}

fn asked(body: Option<&Element>) -> Result<Asked, Reply> {
    let bad = |line: &str| Err(reply::text(StatusCode::BAD_REQUEST, line));
    let Some(root) = body else { return Ok(Asked::All) };
    if !root.is(DAV, "propfind") {
        return bad("the body is no propfind");
    }
    if root.child(DAV, "propname").is_some() {
        return Ok(Asked::Names);
    }
    let Some(prop) = root.child(DAV, "prop") else {
        return if root.child(DAV, "allprop").is_some() {
            Ok(Asked::All)
        } else {
            bad("nothing is asked for")
        };
    };
    if prop.children.len() > PROPERTIES_MAX {
        return bad("too many properties");
    }
    Ok(Asked::These(prop.children.iter().map(|child| (child.ns.clone(), child.name.clone())).collect()))
}

/// `/` and `/exchange/`: whoever asks sees the own mailbox below.
pub(super) fn outside(call: &Call<'_>) -> Reply {
    let depth = match depth(call) {
        Ok(depth) => depth,
        Err(reply) => return reply,
    };
    let mut out = String::new();
    properties::open(&mut out);
    let root = call.path.place == Place::Root;
    let own = call.principal.account().map(|account| (account.name.mailbox_url(), account.name.to_string()));
    let (href, name, below) = if root {
        ("/", "", Some(("/exchange/".to_owned(), "exchange".to_owned())))
    } else {
        ("/exchange/", "exchange", own)
    };
    if depth != Depth::Members {
        properties::response(&mut out, href, &properties::bare(name), &Asked::All, false);
    }
    if let (Some((href, name)), true) = (below, depth != Depth::Zero) {
        properties::response(&mut out, &href, &properties::bare(&name), &Asked::All, false);
    }
    out.push_str(properties::CLOSE);
    reply::multi_status(out)
}

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let call = at.call;
    let depth = depth(call)?;
    let asked = asked(xml_body(call, incoming).await?.as_ref())?;
    let brief = call.header("brief").is_some_and(|value| value.trim().eq_ignore_ascii_case("t"));
    let user = &at.account.name;
    let mut out = String::new();
    properties::open(&mut out);
    let mut tell = |href: &str, found: &[properties::Property]| {
        properties::response(&mut out, href, found, &asked, brief);
    };
    match &at.target {
        Target::Mailbox => {
            if depth != Depth::Members {
                tell(&user.mailbox_url(), &properties::mailbox(user, &at.state));
            }
            if depth != Depth::Zero {
                subfolders(at, ROOT, &mut tell);
            }
        }
        Target::Folder(folder) => {
            let folder = *folder;
            if depth != Depth::Members
                && let Some(record) = at.state.tree.folder(folder)
            {
                // A permanent URL is answered with the friendly one: that is how it is resolved.
                let href = folder_url(user, &at.state, folder).unwrap_or_default();
                tell(&href, &properties::folder(user, &at.state, folder, record));
            }
            if depth != Depth::Zero {
                subfolders(at, folder, &mut tell);
                let cut = items(at, folder, &mut tell).await?;
                if cut {
                    let href = folder_url(user, &at.state, folder).unwrap_or_default();
                    out.push_str(&format!(
                        "<D:response><D:href>{}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                         <D:error><D:number-of-matches-within-limits/></D:error></D:response>",
                        escape(&href)
                    ));
                }
            }
        }
        Target::Item { folder, name } => {
            let boxes = &call.server.boxes;
            let (id, item) = boxes
                .item(&at.state, at.account.mailbox, *folder, name)
                .await
                .map_err(|error| reply::failure(&error))?;
            tell(call.href(), &properties::item(user, &at.state, *folder, id, &item));
        }
        Target::FlatTop => tell(call.href(), &properties::bare("-FlatUrlSpace-")),
        Target::Device(place) => return device(at, place, depth, &asked, brief).await,
        Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
    }
    out.push_str(properties::CLOSE);
    Ok(reply::multi_status(out))
}

fn subfolders(at: &InMailbox<'_>, parent: u64, tell: &mut impl FnMut(&str, &[properties::Property])) {
    for (counter, folder) in at.state.tree.children(parent) {
        if let Some(href) = folder_url(&at.account.name, &at.state, counter) {
            tell(&href, &properties::folder(&at.account.name, &at.state, counter, folder));
        }
    }
}

/// Lists a folder's items; says whether there are more than are listed.
async fn items(
    at: &InMailbox<'_>,
    folder: u64,
    tell: &mut impl FnMut(&str, &[properties::Property]),
) -> Result<bool, Reply> {
    let boxes = &at.call.server.boxes;
    let base = folder_url(&at.account.name, &at.state, folder).unwrap_or_default();
    let (mut after, mut listed) = (0, 0);
    loop {
        let page = boxes
            .oldest(at.account.mailbox, folder, after, PAGE)
            .await
            .map_err(|error| reply::failure(&error))?;
        for (id, item) in &page {
            let name = item.name.clone().unwrap_or_else(|| implied_name(at.state.head.installation, *id));
            let found = properties::item(&at.account.name, &at.state, folder, *id, item);
            tell(&format!("{base}{}", encode_segment(&name)), &found);
        }
        listed += page.len();
        match page.last() {
            Some((last, _)) if page.len() == PAGE && listed < LISTED_MAX => after = *last,
            _ => return Ok(page.len() == PAGE),
        }
    }
}

/// The device tree: reachable by its URL, never listed with the mailbox.
async fn device(
    at: &InMailbox<'_>,
    place: &DevicePlace,
    depth: Depth,
    asked: &Asked,
    brief: bool,
) -> Result<Reply, Reply> {
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    let failure = |error| reply::failure(&error);
    let mut out = String::new();
    properties::open(&mut out);
    let mut tell = |href: &str, found: &[properties::Property]| {
        properties::response(&mut out, href, found, asked, brief);
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
            if depth != Depth::Members {
                tell(&href, &properties::bare(device.device_id()));
            }
            if depth != Depth::Zero {
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
    if depth != Depth::Members {
        tell(&href, &properties::bare(&own));
    }
    if depth != Depth::Zero {
        for name in below {
            tell(&format!("{href}{}/", encode_segment(&name)), &properties::bare(&name));
        }
    }
    out.push_str(properties::CLOSE);
    Ok(reply::multi_status(out))
}
