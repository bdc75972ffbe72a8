//! Parts of messages, copied as they are encoded: nothing of a 20 MB attachment is decoded or changed.

use directpush_common::mail::fields::Fields;
use mail_builder::mime::{BodyPart, MimePart};
use mail_parser::{Message, MessagePart, MimeHeaders as _, PartType};

use super::ComposeFault;
use super::header::{push_with_crlf, starts_with};

/// Parts taken over, at most.
const PARTS_MAX: usize = 1_000;

/// The parts of a message that are not its text: those that its HTML shows, and the others, if they are wanted. `room`:
/// bytes that are left.
pub(super) fn split<'x>(
    message: &Message<'_>,
    html: Option<&str>,
    others_too: bool,
    room: &mut usize,
) -> Result<(Vec<MimePart<'x>>, Vec<MimePart<'x>>), ComposeFault> {
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    for part in message.attachments().take(PARTS_MAX) {
        let is_shown = html.is_some_and(|html| is_in(part, html));
        if !is_shown && !others_too {
            continue;
        }
        let copied = copy(message, part);
        *room = room.checked_sub(copied.len()).ok_or(ComposeFault::TooLarge)?;
        let copied = MimePart::raw(BodyPart::Binary(copied.into()));
        if is_shown { shown.push(copied) } else { others.push(copied) }
    }
    Ok((shown, others))
}

/// A message as a part of another (RFC 2046 5.2.1).
pub(super) fn whole<'x>(message: &[u8], room: &mut usize) -> Result<MimePart<'x>, ComposeFault> {
    *room = room.checked_sub(message.len()).ok_or(ComposeFault::TooLarge)?;
    let mut out = b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n".to_vec();
    out.extend_from_slice(message);
    Ok(MimePart::raw(BodyPart::Binary(out.into())))
}

/// Whether the HTML refers to the part by its Content-ID or its Content-Location (RFC 2557).
fn is_in(part: &MessagePart<'_>, html: &str) -> bool {
    let names = |name: &str| !name.is_empty() && name.len() < 1_000;
    let id = part.content_id().map(|id| id.trim_matches(['<', '>']));
    let by_id = id
        .filter(|id| names(id))
        .is_some_and(|id| html.contains(&format!("cid:{id}")) || html.contains(&format!("CID:{id}")));
    by_id || part.content_location().filter(|at| names(at)).is_some_and(|at| html.contains(at))
}

/// Header and body of a part as they stand in the message; of the header what speaks of the body.
fn copy(message: &Message<'_>, part: &MessagePart<'_>) -> Vec<u8> {
    let raw = &message.raw_message;
    let at =
        |from: u32, to: u32| raw.get(from as usize..(to as usize).max(from as usize)).unwrap_or_default();
    let mut out = Vec::with_capacity((part.offset_end.saturating_sub(part.offset_header)) as usize + 64);
    let mut typed = false;
    for field in Fields::of(at(part.offset_header, part.offset_body)) {
        if starts_with(field.name, "Content-") {
            typed |= field.is("Content-Type");
            push_with_crlf(&mut out, field.raw);
        }
    }
    if !typed && matches!(part.body, PartType::Message(_)) {
        // The default within multipart/digest (RFC 2046 5.1.5).
        out.extend_from_slice(b"Content-Type: message/rfc822\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(at(part.offset_body, part.offset_end));
    out
}
