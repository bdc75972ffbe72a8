//! PROPPATCH (RFC 4918 9.2): the read flag, `read` of `urn:schemas:httpmail:`. Whole or not at all.

use directpush_common::dav::xml::escape;
use directpush_common::dav::{DAV, HTTPMAIL};
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::path::Target;
use super::properties::{CLOSE, empty_element, open};
use super::reply::{self, Reply};
use super::{InMailbox, not_found, xml_body};

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let body = xml_body(at.call, incoming).await?;
    let root = body.filter(|root| root.is(DAV, "propertyupdate"));
    let root = root.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "the body is no propertyupdate"))?;
    let mut read = None;
    let mut names = Vec::new();
    let mut refused = Vec::new();
    for instruction in &root.children {
        let set = instruction.is(DAV, "set");
        if !set && !instruction.is(DAV, "remove") {
            continue;
        }
        for property in instruction.children_named(DAV, "prop").flat_map(|prop| &prop.children) {
            let flag = match property.text.trim() {
                "1" | "true" => Some(true),
                "0" | "false" => Some(false),
                _ => None,
            };
            let name = (property.ns.clone(), property.name.clone());
            if set && property.is(HTTPMAIL, "read") && flag.is_some() {
                read = flag;
                names.push(name);
            } else {
                refused.push(name);
            }
        }
    }
    let (folder, name) = match &at.target {
        Target::Item { folder, name } => (*folder, name.clone()),
        Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
        _ => {
            refused.append(&mut names);
            return Ok(reply::multi_status(statuses(at.call.href(), &[], &refused)));
        }
    };
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    let Some(read) = read.filter(|_| refused.is_empty()) else {
        // It must exist for its properties to be refused.
        boxes.item(&at.state, mailbox, folder, &name).await.map_err(|error| reply::failure(&error))?;
        return Ok(reply::multi_status(statuses(at.call.href(), &names, &refused)));
    };
    let written = boxes
        .set_read(mailbox, folder, name, read, at.call.maker()?, at.call.conditions())
        .await
        .map_err(|error| reply::failure(&error))?;
    let xml = statuses(at.call.href(), &names, &[]);
    Ok(reply::with(reply::multi_status(xml), header::ETAG, &written.etag()))
}

/// If anything is refused, the rest fails for that reason (RFC 4918 9.2.1).
fn statuses(href: &str, names: &[(String, String)], refused: &[(String, String)]) -> String {
    let mut out = String::new();
    open(&mut out);
    out.push_str(&format!("<D:response><D:href>{}</D:href>", escape(href)));
    let done = if refused.is_empty() { "200 OK" } else { "424 Failed Dependency" };
    for (names, status) in [(names, done), (refused, "403 Forbidden")] {
        if !names.is_empty() {
            let props: String = names.iter().map(|(ns, name)| empty_element(ns, name)).collect();
            out.push_str(&format!(
                "<D:propstat><D:prop>{props}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
            ));
        }
    }
    out.push_str("</D:response>");
    out.push_str(CLOSE);
    out
}
