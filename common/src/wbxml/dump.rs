//! A readable form of a document, for logs and tests: `<Ping><Status>2</Status></Ping>`.
//!
//! A tag whose page is not the root's carries its page name: `<Email:Read>1</Email:Read>`. This is
//! not XML for a parser: OPAQUE bytes appear as a comment with their length.

use std::fmt::Write;

use super::reader::Piece;
use super::{Document, ElementRef, Limits, Tag};

/// What of the texts a dump shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contents {
    /// Everything: for tests.
    Shown,
    /// Only what steers the protocol (keys, ids, statuses, options). Mail, contacts and passwords
    /// appear as their length: for logs.
    Hidden,
}

/// Shows an element and what is below it.
pub fn dump(element: ElementRef<'_>, contents: Contents) -> String {
    let mut out = String::new();
    show(&mut out, element, element.tag().page(), contents);
    out
}

/// Shows a body, or why it cannot be read.
pub fn dump_bytes(body: &[u8], contents: Contents) -> String {
    match Document::parse(body, Limits::default()) {
        Ok(document) => dump(document.root(), contents),
        Err(error) => format!("<!-- {error} -->"),
    }
}

fn show(out: &mut String, element: ElementRef<'_>, root_page: u8, contents: Contents) {
    let tag = element.tag();
    let (prefix, colon) = if tag.page() == root_page { ("", "") } else { (tag.page_name(), ":") };
    let name = tag.name();
    if element.is_empty() {
        let _ = write!(out, "<{prefix}{colon}{name}/>");
        return;
    }
    let _ = write!(out, "<{prefix}{colon}{name}>");
    for piece in element.pieces() {
        match piece {
            Piece::Element(child) => show(out, child, root_page, contents),
            Piece::Text(text) if contents == Contents::Hidden && is_private(tag) => {
                let _ = write!(out, "<!-- {} bytes -->", text.len());
            }
            Piece::Text(text) => escape(out, text),
            Piece::Opaque(bytes) => {
                let _ = write!(out, "<!-- {} opaque bytes -->", bytes.len());
            }
        }
    }
    let _ = write!(out, "</{prefix}{colon}{name}>");
}

/// Everything but the pages that steer synchronisation, and the few texts of theirs that say something
/// about the user.
fn is_private(tag: Tag) -> bool {
    use super::tags::{air_sync_base, email, folder_hierarchy, provision};
    const STEERING_PAGES: [u8; 6] = [0, 5, 6, 7, 13, 14];
    const ALSO_STEERING: [Tag; 6] = [
        air_sync_base::TYPE,
        air_sync_base::TRUNCATION_SIZE,
        air_sync_base::TRUNCATED,
        air_sync_base::ESTIMATED_DATA_SIZE,
        air_sync_base::ALL_OR_NONE,
        email::READ,
    ];
    tag == folder_hierarchy::DISPLAY_NAME
        || tag == provision::DATA
        || !(STEERING_PAGES.contains(&tag.page()) || ALSO_STEERING.contains(&tag))
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // A device must not be able to write lines of its own into a log.
            character if character.is_control() => {
                let _ = write!(out, "&#{};", u32::from(character));
            }
            character => out.push(character),
        }
    }
}
