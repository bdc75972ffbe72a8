//! Which parts of a message are its body, and which are attached.
//!
//! A message has two views: parts to show as text and parts to show as HTML, each in order. An
//! alternative gives one part to each view (the last of its kind, RFC 2046 5.1.4); what has no
//! alternative is in both. Everything else is an attachment, the parts of a multipart/related that the
//! HTML refers to included; an attached message is one attachment, whatever is in it.

use mail_parser::{ContentType, MimeHeaders as _};

use super::parts::{Part, Tree};

/// The message's parts by what they are for.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Layout {
    /// What is shown where a device wants text.
    pub(super) text: Vec<usize>,
    /// What is shown where a device wants HTML.
    pub(super) html: Vec<usize>,
    /// The attachments.
    pub(super) attached: Vec<usize>,
}

/// The views that a part is to be in.
#[derive(Clone, Copy)]
struct Views {
    text: bool,
    html: bool,
}

impl Layout {
    /// Sorts the parts of a message.
    pub(super) fn of(tree: &Tree<'_>) -> Self {
        let mut layout = Self::default();
        layout.place(tree, 0, Views { text: true, html: true });
        // In the order of the message, whatever the order in which alternatives were looked at.
        layout.attached.sort_unstable();
        layout
    }

    /// Whether the message was written in HTML.
    pub(super) fn is_html(&self, tree: &Tree<'_>) -> bool {
        self.html.iter().any(|&part| tree.parts[part].is("text", "html"))
    }

    fn place(&mut self, tree: &Tree<'_>, number: usize, views: Views) {
        let part = &tree.parts[number];
        if part.children.is_empty() {
            self.place_leaf(part, number, views);
        } else if part.is("multipart", "alternative") {
            self.place_alternative(tree, part, views);
        } else if part.is("multipart", "related") || part.is("multipart", "signed") {
            let first = related_root(tree, part);
            self.place(tree, first, views);
            for &child in part.children.iter().filter(|&&child| child != first) {
                self.attach(tree, child);
            }
        } else {
            for &child in &part.children {
                self.place(tree, child, views);
            }
        }
    }

    fn place_leaf(&mut self, part: &Part<'_>, number: usize, views: Views) {
        if !is_shown(part) {
            self.attached.push(number);
            return;
        }
        if views.text {
            self.text.push(number);
        }
        if views.html {
            self.html.push(number);
        }
    }

    fn place_alternative(&mut self, tree: &Tree<'_>, part: &Part<'_>, views: Views) {
        let last = |subtype| part.children.iter().copied().rev().find(|&child| shows(tree, child, subtype));
        let (html, plain) = (last("html"), last("plain"));
        match (plain, html) {
            (Some(plain), Some(html)) if plain != html => {
                self.place(tree, plain, Views { text: views.text, html: false });
                self.place(tree, html, Views { text: false, html: views.html });
            }
            _ => {
                if let Some(only) = html.or(plain) {
                    self.place(tree, only, views);
                }
            }
        }
        let chosen = [html, plain];
        for &child in part.children.iter().filter(|&&child| !chosen.contains(&Some(child))) {
            // Another wording of the same text is not lost if it is left out; anything else would be.
            let wording = tree.parts[child].is_any("text") && !tree.parts[child].is("text", "calendar");
            let nothing_chosen = chosen == [None, None];
            if !wording || nothing_chosen {
                self.attach(tree, child);
            }
        }
    }

    /// Everything below, as attachments.
    fn attach(&mut self, tree: &Tree<'_>, number: usize) {
        let part = &tree.parts[number];
        if part.children.is_empty() {
            self.attached.push(number);
        }
        for &child in &part.children {
            self.attach(tree, child);
        }
    }
}

/// The part of a multipart/related that refers to the others (RFC 2387 3.2), else the first.
fn related_root(tree: &Tree<'_>, part: &Part<'_>) -> usize {
    let start = part.parameter("start").map(|id| id.trim().trim_start_matches('<').trim_end_matches('>'));
    let named = start.and_then(|start| {
        part.children.iter().copied().find(|&child| tree.parts[child].headers().content_id() == Some(start))
    });
    named.unwrap_or(part.children[0])
}

/// Whether a part is text to show: not named as a file, not declared to be one.
fn is_shown(part: &Part<'_>) -> bool {
    if !(part.is("text", "plain") || part.is("text", "html")) {
        return false;
    }
    let attached = part.headers().content_disposition().is_some_and(ContentType::is_attachment);
    !attached && (part.headers().attachment_name().is_none() || part.parent.is_none())
}

/// Whether a part, or one below it that would be shown, is text of this kind.
fn shows(tree: &Tree<'_>, number: usize, subtype: &str) -> bool {
    let part = &tree.parts[number];
    if part.children.is_empty() {
        return is_shown(part) && part.is("text", subtype);
    }
    if part.is("multipart", "related") {
        return shows(tree, related_root(tree, part), subtype);
    }
    part.children.iter().any(|&child| shows(tree, child, subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts by one letter each: `t`ext, `h`tml, `i`mage, `c`alendar, `f`ile that is text; multiparts in brackets
    /// behind their subtype's name.
    fn message(shape: &str) -> String {
        let mut out = String::new();
        let mut open: Vec<usize> = Vec::new();
        let mut names = String::new();
        for (at, letter) in shape.chars().enumerate() {
            let begin = |out: &mut String, open: &[usize]| {
                if let Some(boundary) = open.last() {
                    *out += &format!("\r\n--b{boundary}\r\n");
                }
            };
            match letter {
                '[' => {
                    begin(&mut out, &open);
                    out += &format!("Content-Type: multipart/{names}; boundary=b{at}\r\n\r\n");
                    names.clear();
                    open.push(at);
                }
                ']' => out += &format!("\r\n--b{}--\r\n", open.pop().unwrap()),
                'T' | 'H' | 'I' | 'C' | 'F' | 'M' => {
                    begin(&mut out, &open);
                    out += match letter {
                        'T' => "Content-Type: text/plain\r\n\r\ntext",
                        'H' => "Content-Type: text/html\r\n\r\nhtml",
                        'I' => "Content-Type: image/png\r\nContent-ID: <i>\r\n\r\nimage",
                        'C' => "Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR",
                        'M' => "Content-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\nb",
                        _ => "Content-Type: text/plain; name=a.txt\r\n\r\nfile",
                    };
                }
                other => names.push(other),
            }
        }
        out
    }

    #[track_caller]
    fn check(shape: &str, text: &[usize], html: &[usize], attached: &[usize]) {
        let raw = message(shape);
        let layout = Layout::of(&Tree::of(raw.as_bytes()));
        let expected = Layout { text: text.to_vec(), html: html.to_vec(), attached: attached.to_vec() };
        assert_eq!(layout, expected, "{shape}");
    }

    #[test]
    fn bodies_and_attachments_of_the_usual_shapes() {
        check("T", &[0], &[0], &[]);
        check("F", &[0], &[0], &[]);
        check("I", &[], &[], &[0]);
        check("alternative[TH]", &[1], &[2], &[]);
        check("mixed[alternative[TH]IF]", &[2], &[3], &[4, 5]);
        check("alternative[Trelated[HI]]", &[1], &[3], &[4]);
        check("related[alternative[TH]I]", &[2], &[3], &[4]);
        check("mixed[TIT]", &[1, 3], &[1, 3], &[2]);
        check("alternative[THC]", &[1], &[2], &[3]);
        check("alternative[C]", &[], &[], &[1]);
        check("alternative[T]", &[1], &[1], &[]);
        check("mixed[TM]", &[1], &[1], &[2]);
        check("signed[alternative[TH]I]", &[2], &[3], &[4]);
        check("alternative[Tmixed[HI]]", &[1], &[3], &[4]);
    }
}
