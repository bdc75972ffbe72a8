//! Messages made here: what a device sends is completed, a reply or forward gets the original that the device left to us
//! ([MS-ASCMD] 2.2.1.19 SmartForward, 2.2.1.20 SmartReply).
//!
//! The device's own words stay on top, the original is quoted below them in text and HTML; its inline images come along with
//! the HTML, its attachments with a forward. Parts are copied as they are encoded, texts are written anew in UTF-8. A message
//! that must not be touched (signed, encrypted, an invitation) goes as it is.
//!
//! Pure, and hostile at both ends: it runs where a panic and a long run are contained ([`desk`]).
//!
//! Not here: who may send (the back end), where the original is (`send_mail`).

pub mod desk;
pub mod draft;
mod header;
mod parts;
mod quote;

#[cfg(test)]
mod tests;

use directpush_common::mail::fields;
use mail_builder::mime::MimePart;
use mail_parser::{Message, MessageParser, MimeHeaders as _, PartType};

pub use header::{Completion, answering, complete};

/// What the device wants done with the original.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Smart {
    /// Quote it.
    Reply,
    /// Quote it, with its attachments.
    Forward,
}

/// Why a message cannot be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ComposeFault {
    /// What the device sent is no message.
    #[error("not a message")]
    Unreadable,
    /// It would be larger than messages may be.
    #[error("larger than messages may be")]
    TooLarge,
}

/// The device's message with the original. `bytes_max`: of the result.
///
/// # Errors
/// [`ComposeFault`].
pub fn smart(mime: &[u8], original: &[u8], smart: Smart, bytes_max: usize) -> Result<Vec<u8>, ComposeFault> {
    let own = MessageParser::default().parse(mime).ok_or(ComposeFault::Unreadable)?;
    let out = if must_stay(&own) { mime.to_vec() } else { joined(&own, mime, original, smart, bytes_max)? };
    let out = header::answering(&out, original);
    if out.len() > bytes_max { Err(ComposeFault::TooLarge) } else { Ok(out) }
}

/// Whether a message says nothing any more, or something else, once its parts are moved about.
fn must_stay(message: &Message<'_>) -> bool {
    let root = message.root_part();
    let whole = [
        ("multipart", "signed"),
        ("multipart", "encrypted"),
        ("multipart", "report"),
        ("application", "pkcs7-mime"),
        ("application", "x-pkcs7-mime"),
    ];
    whole.iter().any(|(kind, sub)| root.is_content_type(kind, sub))
        || message.parts.iter().any(|part| part.is_content_type("text", "calendar"))
}

fn is_encrypted(message: &Message<'_>) -> bool {
    let root = message.root_part();
    root.is_content_type("multipart", "encrypted")
        || root.is_content_type("application", "pkcs7-mime")
        || root.is_content_type("application", "x-pkcs7-mime")
}

fn joined(
    own: &Message<'_>,
    mime: &[u8],
    original: &[u8],
    smart: Smart,
    bytes_max: usize,
) -> Result<Vec<u8>, ComposeFault> {
    let parsed = MessageParser::default().parse(original);
    let words = quote::words(own);
    // What cannot be quoted is attached as a whole, so that nothing of it is lost.
    let quoted = parsed.as_ref().filter(|parsed| !is_encrypted(parsed));
    let quote = quoted.map(|parsed| quote::quote(parsed, original)).unwrap_or_default();
    let (text, html) = quote::below(&words, &quote);
    let mut room = bytes_max.saturating_sub(text.len() + html.as_ref().map_or(0, String::len));
    let (mut inline, mut attached) = parts::split(own, html.as_deref(), true, &mut room)?;
    match (quoted, smart) {
        (Some(parsed), smart) => {
            let with_files = smart == Smart::Forward;
            let (images, files) = parts::split(parsed, quote.html.as_deref(), with_files, &mut room)?;
            inline.extend(images);
            attached.extend(files);
        }
        (None, Smart::Forward) => attached.push(parts::whole(original, &mut room)?),
        (None, Smart::Reply) => {}
    }
    let mut out = header::of_message(mime);
    body(text, html, inline, attached).write_part(&mut out);
    Ok(out)
}

/// mixed(related(alternative(text, HTML), inline), attached), without the levels that hold one thing.
fn body<'x>(
    text: String,
    html: Option<String>,
    inline: Vec<MimePart<'x>>,
    attached: Vec<MimePart<'x>>,
) -> MimePart<'x> {
    let text = MimePart::new("text/plain", text);
    let mut top = match html {
        None => text,
        Some(html) => MimePart::new("multipart/alternative", vec![text, MimePart::new("text/html", html)]),
    };
    for (kind, parts) in [("multipart/related", inline), ("multipart/mixed", attached)] {
        if !parts.is_empty() {
            let mut all = vec![top];
            all.extend(parts);
            top = MimePart::new(kind, all);
        }
    }
    top
}

/// Whether the original was answered to everybody: more than one address is written to.
pub fn is_to_all(mime: &[u8]) -> bool {
    fields::recipients(mime, 1_000).is_ok_and(|recipients| recipients.len() > 1)
}

/// Text of a part that has one.
fn text_of<'m>(body: &'m PartType<'_>) -> Option<(&'m str, bool)> {
    match body {
        PartType::Text(text) => Some((text, false)),
        PartType::Html(html) => Some((html, true)),
        _ => None,
    }
}
