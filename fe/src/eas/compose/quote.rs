//! The words of a reply or forward, and the original below them, as Exchange lays them out: a line, who wrote to whom and
//! when, then the text.

use std::fmt::Write as _;

use directpush_common::mail::fields;
use mail_parser::decoders::html::{html_to_text, text_to_html};
use mail_parser::{Address, Message};

use super::text_of;

/// Bytes of a quoted text, or HTML; a longer text is cut, for longer HTML its text is quoted.
const QUOTE_BYTES_MAX: usize = 2 << 20;
/// Bytes of a list of addresses that is quoted.
const ADDRESSES_BYTES_MAX: usize = 4 * 1024;
/// What stands between the words and the original.
const LINE: &str = "________________________________";

/// A text in both forms.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) text: String,
    /// `None`: it was written as text.
    pub(super) html: Option<String>,
}

/// What a message says.
pub(super) fn words(message: &Message<'_>) -> Words {
    let mut text = String::new();
    for part in message.text_bodies() {
        match text_of(&part.body) {
            Some((piece, false)) => text.push_str(piece),
            Some((piece, true)) => text.push_str(&html_to_text(piece)),
            None => {}
        }
    }
    let mut html = None::<String>;
    let is_html = |body| text_of(body).is_some_and(|(_, is_html)| is_html);
    if message.html_bodies().any(|part| is_html(&part.body)) {
        for part in message.html_bodies() {
            let html = html.get_or_insert_default();
            match text_of(&part.body) {
                Some((piece, true)) => html.push_str(piece),
                Some((piece, false)) => html.push_str(&text_to_html(piece)),
                None => {}
            }
        }
    }
    Words { text, html }
}

/// The original as it is quoted.
pub(super) fn quote(original: &Message<'_>, raw: &[u8]) -> Words {
    let Words { text, html } = words(original);
    let line = |name: &str| fields::first(raw, name).map(|value| printable(&value)).unwrap_or_default();
    let told = [
        ("From", addresses(original.from().or_else(|| original.sender()))),
        ("Sent", line("Date")),
        ("To", addresses(original.to())),
        ("Cc", addresses(original.cc())),
        ("Subject", printable(original.subject().unwrap_or_default())),
    ];
    let mut block = format!("{LINE}\r\n");
    let mut marked = String::from("<hr><div>");
    for (name, value) in told.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(block, "{name}: {value}\r\n");
        let _ = write!(marked, "<b>{name}:</b> {}<br>\r\n", escape(value));
    }
    block.push_str("\r\n");
    block.push_str(cut(&text, QUOTE_BYTES_MAX));
    let html = html.filter(|html| html.len() <= QUOTE_BYTES_MAX).map(|html| {
        marked.push_str("</div><br>\r\n<div>");
        for style in styles(&html) {
            marked.push_str(style);
        }
        marked.push_str(inside(&html));
        marked.push_str("</div>\r\n");
        marked
    });
    Words { text: block, html }
}

/// The words with the quote below; HTML if either has it.
pub(super) fn below(words: &Words, quote: &Words) -> (String, Option<String>) {
    let mut text = words.text.clone();
    if !quote.text.is_empty() {
        text = format!("{}\r\n\r\n{}", text.trim_end(), quote.text);
    }
    let html = (words.html.is_some() || quote.html.is_some()).then(|| {
        let above = words.html.clone().unwrap_or_else(|| text_to_html(&words.text));
        let below = match &quote.html {
            Some(html) => html.clone(),
            None if quote.text.is_empty() => String::new(),
            None => format!("<pre style=\"white-space:pre-wrap\">{}</pre>\r\n", escape(&quote.text)),
        };
        let end = find_last(&above, "</body").or_else(|| find_last(&above, "</html")).unwrap_or(above.len());
        let (before, after) = above.split_at(end);
        format!("{before}{below}{after}")
    });
    (with_crlf(&text), html)
}

/// `Name <address>, …`.
fn addresses(list: Option<&Address<'_>>) -> String {
    let mut out = String::new();
    for entry in list.into_iter().flat_map(Address::iter) {
        if out.len() > ADDRESSES_BYTES_MAX {
            out.push_str(", \u{2026}");
            break;
        }
        let separator = if out.is_empty() { "" } else { ", " };
        let _ = match (entry.name(), entry.address()) {
            (Some(name), Some(address)) => write!(out, "{separator}{name} <{address}>"),
            (Some(one), None) | (None, Some(one)) => write!(out, "{separator}{one}"),
            (None, None) => Ok(()),
        };
    }
    printable(&out)
}

fn printable(text: &str) -> String {
    cut(text, 2 * ADDRESSES_BYTES_MAX).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What is between `<body>` and `</body>`, else what is behind the head.
fn inside(html: &str) -> &str {
    let begin = find(html, "<body")
        .or_else(|| find(html, "</head"))
        .and_then(|at| html[at..].find('>').map(|end| at + end + 1))
        .unwrap_or(0);
    let rest = &html[begin..];
    let end = find_last(rest, "</body").or_else(|| find_last(rest, "</html")).unwrap_or(rest.len());
    &rest[..end]
}

/// The style sheets of the head.
fn styles(html: &str) -> Vec<&str> {
    let head = &html[..find(html, "<body").unwrap_or(0)];
    let mut found = Vec::new();
    let mut rest = head;
    while let Some(begin) = find(rest, "<style") {
        let Some(end) = find(&rest[begin..], "</style>") else { break };
        let end = begin + end + "</style>".len();
        found.push(&rest[begin..end]);
        rest = &rest[end..];
    }
    found
}

/// Where an ASCII text stands first, whatever its case.
fn find(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes().windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn find_last(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes().windows(wanted.len()).rposition(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

pub(super) fn with_crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        out.push_str(bare);
        if line.ends_with('\n') {
            out.push_str("\r\n");
        }
    }
    out
}

/// The beginning in at most `bytes_max` bytes, whole characters only.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
