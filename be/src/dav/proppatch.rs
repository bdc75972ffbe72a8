//! PROPPATCH (RFC 4918 9.2): dead properties, the read flag `read` of `urn:schemas:httpmail:`, and what phones
//! keep with an item, `marks` of `urn:directpush:`, which only front ends set. Whole or not at all.

use directpush_common::dav::fragment::PropertyName;
use directpush_common::dav::locks::Touch;
use directpush_common::dav::multistatus::{Condition, Multistatus};
use directpush_common::dav::properties::{Instruction, is_protected, parse_update};
use directpush_common::dav::{HTTPMAIL, OURS};
use directpush_common::mail::marks::MARKS_BYTES_MAX;
use http::{StatusCode, header};
use hyper::body::Incoming;

use super::path::Target;
use super::reply::{self, Reply};
use super::{InMailbox, body_bytes, guard, not_found, properties};
use crate::auth::Principal;
use crate::error::Error;
use crate::mailbox::properties::Patch;

pub(super) async fn answer(at: &InMailbox<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let body = body_bytes(at.call, incoming).await?;
    let steps = parse_update(&body).map_err(reply::bad)?;
    let mut names: Vec<PropertyName> = Vec::new();
    for step in &steps {
        if !names.contains(step.name()) {
            names.push(step.name().clone());
        }
    }
    let (mut guard, at) = guard::enter(at).await?;
    let at = &at;
    let mut patch = Patch::default();
    let mut refused = Vec::new();
    let is_member = matches!(at.target, Target::Item { .. });
    for step in steps {
        if step.name().is(HTTPMAIL, "read") {
            match read_flag(&step).filter(|_| is_member) {
                Some(read) => patch.read = Some(read),
                None => refused.push(step.name().clone()),
            }
        } else if step.name().is(OURS, "marks") {
            let front_end = matches!(at.call.principal, Principal::FrontEnd { .. });
            match marks(&step).filter(|_| is_member && front_end) {
                Some(marks) => patch.marks = Some(marks),
                None => refused.push(step.name().clone()),
            }
        } else if is_protected(step.name()) || properties::is_computed(step.name()) {
            refused.push(step.name().clone());
        } else {
            patch.steps.push(step);
        }
    }
    let href = at.call.href();
    match &at.target {
        Target::Item { .. } | Target::Folder(_) => {}
        Target::Mailbox | Target::FlatTop | Target::Device(_) => {
            return Ok(reply::multi_status(statuses(href, &[], &names, None)));
        }
        Target::Top(_) | Target::NoParent | Target::Nothing => return Err(not_found()),
    }
    let path = guard::lock_path(at, &at.target, &at.inside).await?;
    guard.allow(at, &[(path, Touch::Resource)], None).await?;
    let boxes = &at.call.server.boxes;
    let mailbox = at.account.mailbox;
    if !refused.is_empty() {
        // It must exist for its properties to be refused.
        if let Target::Item { folder, name } = &at.target {
            at.member_if_there(*folder, name).await?.ok_or_else(not_found)?;
        }
        names.retain(|name| !refused.contains(name));
        let protected = Some(Condition::CannotModifyProtectedProperty);
        return Ok(reply::multi_status(statuses(href, &names, &refused, protected)));
    }
    let done = match &at.target {
        Target::Item { folder, name } => {
            let (maker, conditions) = (at.call.maker()?, guard.conditions.clone());
            let patched = boxes.patch_member(mailbox, *folder, name.clone(), patch, maker, conditions).await;
            patched.map(|written| Some(written.etag()))
        }
        Target::Folder(folder) => {
            guard.check_folder()?;
            boxes.patch_folder(mailbox, *folder, patch.steps).await.map(|()| None)
        }
        _ => return Err(not_found()),
    };
    match done {
        Ok(tag) => {
            let mut out = Multistatus::default();
            out.properties(href, &[(200, listed(&names), None)]);
            let reply = reply::multi_status(out.finish());
            Ok(match tag {
                Some(tag) => reply::with(reply, header::ETAG, &tag),
                None => reply,
            })
        }
        // RFC 4331 6: told for the property, inside the 207.
        Err(Error::Quota(_) | Error::OverBound(_)) => {
            let mut out = Multistatus::default();
            out.properties(href, &[(507, listed(&names), Some(Condition::QuotaNotExceeded))]);
            Ok(reply::multi_status(out.finish()))
        }
        Err(error) => Err(reply::failure(&error)),
    }
}

/// The read flag as a step sets it; none: not what the flag can be.
fn read_flag(step: &Instruction) -> Option<bool> {
    match step {
        Instruction::Set(fragment) => match fragment.text.trim() {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        },
        Instruction::Remove(_) => None,
    }
}

/// The marks as a step sets them, a JSON object on one line; none: not what marks can be.
fn marks(step: &Instruction) -> Option<String> {
    let text = match step {
        Instruction::Set(fragment) => fragment.text.trim(),
        Instruction::Remove(_) => "",
    };
    let fits = text.len() <= MARKS_BYTES_MAX && !text.contains(char::is_control);
    let object = || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    (fits && (text.is_empty() || object().is_ok())).then(|| text.to_owned())
}

fn listed(names: &[PropertyName]) -> String {
    names.iter().map(ToString::to_string).collect()
}

/// If anything is refused, the rest fails for that reason (RFC 4918 9.2.1).
fn statuses(
    href: &str,
    names: &[PropertyName],
    refused: &[PropertyName],
    condition: Option<Condition>,
) -> String {
    let mut out = Multistatus::default();
    let status = StatusCode::FAILED_DEPENDENCY.as_u16();
    out.properties(href, &[(status, listed(names), None), (403, listed(refused), condition)]);
    out.finish()
}
