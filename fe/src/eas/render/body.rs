//! Bodies: which form a device is given, how much of it, previews and parts.
//!
//! 12.0 and later: [MS-ASAIRS] 2.2.2.9 Body, 2.2.2.10 BodyPart; 2.5: [MS-ASEMAIL] Body and MIMEData. A
//! message goes in the form in which it was written if the device takes it: HTML as HTML, text as text. MIME
//! goes when the device asks for it by MIMESupport. Sizes are bytes of UTF-8; texts are cut between characters.

use std::borrow::Cow;
use std::cell::OnceCell;

use directpush_common::eas::sync::ApplicationData;
use directpush_common::wbxml::tags::{air_sync_base as base, email};
use directpush_common::wbxml::{Content, Element};

use super::layout::Layout;
use super::mime::{self, Mime};
use super::parts::Tree;
use super::text::{cut, preview};
use super::{Form, Preference, Wish, flag, html, properties};

/// Characters of a preview ([MS-ASAIRS] 2.2.2.35 Preview).
const PREVIEW_MAX: u32 = 255;
/// Texts beyond this have no part of their own to show: Status 176.
const PART_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The body of a message in all its forms, each made when it is first asked for.
pub(super) struct Body<'t, 'a> {
    tree: &'t Tree<'a>,
    layout: &'t Layout,
    raw: &'a [u8],
    source: OnceCell<String>,
    text: OnceCell<String>,
    html: OnceCell<String>,
}

/// A body in one form.
enum Made<'b> {
    Text(Cow<'b, str>),
    Html(&'b str),
    Bytes(&'b [u8]),
}

impl Made<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Html(html) => html.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Its beginning, as an element's content.
    fn shown(&self, bytes_max: usize) -> (Content, usize) {
        match self {
            Self::Bytes(bytes) => {
                let shown = &bytes[..bytes.len().min(bytes_max)];
                (Content::Opaque(shown.to_vec()), shown.len())
            }
            Self::Text(text) => {
                let shown = cut(text, bytes_max);
                (Content::Text(shown.to_owned()), shown.len())
            }
            Self::Html(html) => {
                let shown = html::cut_html(html, bytes_max);
                (Content::Text(shown.to_owned()), shown.len())
            }
        }
    }
}

impl<'t, 'a> Body<'t, 'a> {
    pub(super) fn new(tree: &'t Tree<'a>, layout: &'t Layout, raw: &'a [u8]) -> Self {
        Self { tree, layout, raw, source: OnceCell::new(), text: OnceCell::new(), html: OnceCell::new() }
    }

    /// The HTML as it came, if there is any: what attached pictures are looked for in.
    pub(super) fn html_source(&self) -> Option<&str> {
        if !self.layout.is_html(self.tree) {
            return None;
        }
        Some(self.source.get_or_init(|| {
            let parts = self.layout.html.iter().map(|&number| &self.tree.parts[number]);
            parts.filter(|part| part.is("text", "html")).map(super::parts::Part::text).collect()
        }))
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| {
            let parts = self.layout.text.iter().map(|&number| &self.tree.parts[number]);
            let texts = parts.map(|part| {
                let text = part.text();
                if part.is("text", "html") { html::to_text(&text) } else { text }
            });
            texts.collect::<Vec<_>>().join("\r\n")
        })
    }

    fn html(&self) -> &str {
        self.html.get_or_init(|| {
            let parts = self.layout.html.iter().map(|&number| &self.tree.parts[number]);
            let bodies = parts.map(|part| {
                let text = part.text();
                if part.is("text", "html") { html::sanitized(&text) } else { html::of_text(&text) }
            });
            html::document(&bodies.collect::<Vec<_>>().join("<br>\r\n"))
        })
    }

    fn made(&self, form: Form) -> Made<'_> {
        match form {
            Form::Plain => Made::Text(Cow::Borrowed(self.text())),
            Form::Html => Made::Html(self.html()),
            Form::Mime => match mime::on_the_wire(self.tree, self.raw) {
                Mime::Text(text) => Made::Text(text),
                Mime::Bytes(bytes) => Made::Bytes(bytes),
            },
        }
    }

    /// The body of 12.0 and later: the first preference that suits, cut as it says.
    pub(super) fn push(&self, data: &mut ApplicationData, wish: &Wish) {
        let is_html = self.layout.is_html(self.tree);
        data.push(self.preferred(wish, is_html));
        data.extend(wish.parts.iter().find(|part| part.form == Form::Html).map(|part| self.part(part)));
        data.push(Element::text(base::NATIVE_BODY_TYPE, if is_html { "2" } else { "1" }));
    }

    fn preferred(&self, wish: &Wish, is_html: bool) -> Element {
        let of = |form| wish.preferences.iter().find(|preference| preference.form == form);
        let wants_mime = wish.mime_support == 2 || wish.mime_support == 1 && properties::is_smime(self.tree);
        let candidates = [
            of(Form::Mime).filter(|_| wants_mime),
            of(Form::Html).filter(|_| is_html),
            of(Form::Plain),
            of(Form::Html),
            of(Form::Mime),
        ];
        let mut withheld = None;
        for preference in candidates.into_iter().flatten() {
            let made = self.made(preference.form);
            let bytes_max = preference.bytes_max.unwrap_or(usize::MAX);
            if preference.all_or_none && made.len() > bytes_max {
                withheld = withheld.or(Some((preference, made.len())));
                continue;
            }
            return self.element(preference, &made, bytes_max);
        }
        let Some((preference, bytes)) = withheld else {
            let plain = Preference::new(Form::Plain);
            return self.element(&plain, &self.made(Form::Plain), usize::MAX);
        };
        // All or none: none ([MS-ASAIRS] 2.2.2.3.2 AllOrNone).
        let mut body = begun(preference.form, bytes, true);
        self.push_preview(&mut body, preference);
        body
    }

    fn element(&self, preference: &Preference, made: &Made<'_>, bytes_max: usize) -> Element {
        let (shown, length) = made.shown(bytes_max);
        let mut body = begun(preference.form, made.len(), length < made.len());
        if length > 0 {
            body.push(Element { tag: base::DATA, content: vec![shown] });
        }
        self.push_preview(&mut body, preference);
        body
    }

    fn push_preview(&self, body: &mut Element, preference: &Preference) {
        if let Some(characters) = preference.preview.filter(|&characters| characters > 0) {
            let words = preview(self.text(), characters.min(PREVIEW_MAX) as usize);
            body.push(Element::text(base::PREVIEW, words));
        }
    }

    /// The part of a conversation that this message adds: what stands above what it quotes.
    fn part(&self, preference: &Preference) -> Element {
        let source = self.html_source();
        let bytes = source.map_or_else(|| self.text().len(), str::len);
        let mut part = Element::new(base::BODY_PART);
        let mut say = |tag, text: String| part.push(Element::text(tag, text));
        if bytes > PART_BYTES_MAX {
            say(base::STATUS, "176".to_owned());
            say(base::TYPE, "2".to_owned());
            say(base::ESTIMATED_DATA_SIZE, bytes.to_string());
            say(base::TRUNCATED, "1".to_owned());
            return part;
        }
        let own = match source {
            Some(source) => html::sanitized(html::above_quote(source)),
            None => html::of_text(html::above_quoted_text(self.text())),
        };
        let own = html::document(&own);
        let bytes_max = preference.bytes_max.unwrap_or(usize::MAX);
        let withheld = preference.all_or_none && own.len() > bytes_max;
        let shown = if withheld { "" } else { html::cut_html(&own, bytes_max) };
        say(base::STATUS, "1".to_owned());
        say(base::TYPE, "2".to_owned());
        say(base::ESTIMATED_DATA_SIZE, own.len().to_string());
        if shown.len() < own.len() {
            say(base::TRUNCATED, "1".to_owned());
        }
        if !shown.is_empty() {
            say(base::DATA, shown.to_owned());
        }
        self.push_preview(&mut part, preference);
        part
    }

    /// The body of 2.5.
    pub(super) fn push_legacy(&self, data: &mut ApplicationData, wish: &Wish) {
        let whole = wish.mime_support == 2 || wish.mime_support == 1 && properties::is_smime(self.tree);
        let (form, bytes_max) =
            if whole { (Form::Mime, wish.mime_bytes_max) } else { (Form::Plain, wish.text_bytes_max) };
        let [truncated, size, body] = if whole {
            [email::MIME_TRUNCATED, email::MIME_SIZE, email::MIME_DATA]
        } else {
            [email::BODY_TRUNCATED, email::BODY_SIZE, email::BODY]
        };
        let made = self.made(form);
        let (shown, length) = made.shown(bytes_max.unwrap_or(usize::MAX));
        data.push(Element::text(truncated, flag(length < made.len())));
        data.push(Element::text(size, made.len().to_string()));
        if length > 0 {
            data.push(Element { tag: body, content: vec![shown] });
        }
    }
}

/// A Body with what stands before its Data.
fn begun(form: Form, bytes: usize, truncated: bool) -> Element {
    let kind = match form {
        Form::Plain => "1",
        Form::Html => "2",
        Form::Mime => "4",
    };
    let mut body = Element::new(base::BODY);
    body.push(Element::text(base::TYPE, kind));
    body.push(Element::text(base::ESTIMATED_DATA_SIZE, bytes.to_string()));
    if truncated {
        body.push(Element::text(base::TRUNCATED, "1"));
    }
    body
}

/// A body of plain text that is there in full.
pub(super) fn plain(text: &str) -> Element {
    let mut body = begun(Form::Plain, text.len(), false);
    body.push(Element::text(base::DATA, text));
    body
}
