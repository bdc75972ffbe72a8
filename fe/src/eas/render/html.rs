//! HTML: made harmless before a device shows it, made of text, and made into text.
//!
//! What stays is what lays mail out: structure, tables, images, links, inline styles by a list of
//! properties. What acts, loads or frames goes, `svg` and `math` too: their parsing rules have been the way
//! around such filters before. Pictures of the message (`cid:`) and of the Web stay as they are; whether to
//! load the latter is the device's question to its user.
//!
//! The parser takes time that grows faster than its input where elements nest deeply, so that what is too
//! large or too deep is not parsed: it is stripped of its tags, and goes on as text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use ammonia::Builder;

use super::text::cut;

/// HTML beyond this is not parsed.
const PARSED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Elements open inside each other, at most, for HTML that is parsed.
const PARSED_DEPTH_MAX: usize = 200;
/// Columns of laid out text: phones wrap for themselves.
const LAYOUT_COLUMNS: usize = 10_000;
/// What a document is put into: the characters are UTF-8 by then, whatever it said of itself.
const BEFORE: &str =
    "<html><head><meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body>";
const AFTER: &str = "</body></html>";

static SANITIZER: LazyLock<Builder<'static>> = LazyLock::new(sanitizer);

fn sanitizer() -> Builder<'static> {
    const CONTENT_GOES_TOO: [&str; 18] = [
        "script", "style", "title", "noscript", "iframe", "object", "embed", "applet", "svg", "math",
        "template", "select", "textarea", "xmp", "noembed", "noframes", "audio", "video",
    ];
    const SIZES: [&str; 11] = [
        "width",
        "height",
        "align",
        "valign",
        "bgcolor",
        "border",
        "cellpadding",
        "cellspacing",
        "nowrap",
        "colspan",
        "rowspan",
    ];
    const STYLES: [&str; 73] = [
        "background",
        "background-color",
        "background-image",
        "background-position",
        "background-repeat",
        "background-size",
        "border",
        "border-bottom",
        "border-bottom-color",
        "border-bottom-left-radius",
        "border-bottom-right-radius",
        "border-bottom-style",
        "border-bottom-width",
        "border-collapse",
        "border-color",
        "border-left",
        "border-left-color",
        "border-left-style",
        "border-left-width",
        "border-radius",
        "border-right",
        "border-right-color",
        "border-right-style",
        "border-right-width",
        "border-spacing",
        "border-style",
        "border-top",
        "border-top-color",
        "border-top-left-radius",
        "border-top-right-radius",
        "border-top-style",
        "border-top-width",
        "border-width",
        "box-sizing",
        "clear",
        "color",
        "direction",
        "display",
        "float",
        "font",
        "font-family",
        "font-size",
        "font-style",
        "font-variant",
        "font-weight",
        "height",
        "letter-spacing",
        "line-height",
        "list-style",
        "list-style-type",
        "margin",
        "margin-bottom",
        "margin-left",
        "margin-right",
        "margin-top",
        "max-height",
        "max-width",
        "min-height",
        "min-width",
        "padding",
        "padding-bottom",
        "padding-left",
        "padding-right",
        "padding-top",
        "table-layout",
        "text-align",
        "text-decoration",
        "text-indent",
        "text-transform",
        "vertical-align",
        "white-space",
        "width",
        "word-break",
    ];
    let mut builder = Builder::default();
    builder
        .add_tags(["font", "big", "tfoot", "address"])
        .clean_content_tags(HashSet::from(CONTENT_GOES_TOO))
        .add_generic_attributes(["style", "dir", "align"])
        .filter_style_properties(HashSet::from(STYLES))
        .add_url_schemes(["cid", "data"])
        .attribute_filter(|_, attribute, value| allowed(attribute, value))
        .link_rel(None)
        .add_tag_attributes("font", ["color", "face", "size"])
        .add_tag_attributes("img", ["border", "hspace", "vspace"])
        .add_tag_attributes("a", ["name"])
        .add_tag_attributes("blockquote", ["type"])
        .add_tag_attributes("ol", ["type"])
        .add_tag_attributes("ul", ["type"])
        .add_tag_attributes("hr", ["color", "noshade"]);
    for tag in ["table", "tbody", "thead", "tfoot", "tr", "td", "th", "col", "colgroup"] {
        builder.add_tag_attributes(tag, SIZES);
    }
    builder
}

/// `data:` is for pictures in the text; as a link it is a page of a stranger's making.
fn allowed<'v>(attribute: &str, value: &'v str) -> Option<Cow<'v, str>> {
    let begin: String = value.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(11).collect();
    let begin = begin.to_ascii_lowercase();
    let picture = attribute == "src" && begin == "data:image/" && !value.contains("svg");
    (!begin.starts_with("data:") || picture).then_some(Cow::Borrowed(value))
}

/// A document's body, harmless. One that cannot be parsed here is given as the text in it.
pub(super) fn sanitized(html: &str) -> String {
    if is_parseable(html) { SANITIZER.clean(html).to_string() } else { of_text(&stripped(html)) }
}

/// A whole document around what `sanitized` and `of_text` give.
pub(super) fn document(body: &str) -> String {
    [BEFORE, body, AFTER].concat()
}

/// Text as the body of a document.
pub(super) fn of_text(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 16);
    let mut at_line_begin = true;
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '\r' => continue,
            '\n' => html.push_str("<br>\r\n"),
            ' ' if at_line_begin => html.push_str("&nbsp;"),
            character => html.push(character),
        }
        at_line_begin = matches!(character, '\n') || at_line_begin && character == ' ';
    }
    html
}

/// HTML as text: laid out when that is safe, else stripped of its tags.
pub(super) fn to_text(html: &str) -> String {
    if is_parseable(html) {
        let laid_out = html2text::config::plain_no_decorate()
            .raw_mode(true)
            .allow_width_overflow()
            .string_from_read(html.as_bytes(), LAYOUT_COLUMNS);
        if let Ok(text) = laid_out {
            return text.trim_start_matches('\n').replace('\n', "\r\n");
        }
    }
    stripped(html)
}

fn stripped(html: &str) -> String {
    mail_parser::decoders::html::html_to_text(html)
}

fn is_parseable(html: &str) -> bool {
    html.len() <= PARSED_BYTES_MAX && nesting(html) <= PARSED_DEPTH_MAX
}

/// An upper bound of how deep the elements of a document nest: opening tags that nothing closed yet.
fn nesting(html: &str) -> usize {
    const VOID: [&str; 12] =
        ["br", "img", "hr", "meta", "link", "input", "col", "wbr", "p", "li", "area", "base"];
    let (mut depth, mut deepest) = (0_usize, 0);
    let name = |tag: &str| {
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
        tag[..end].to_ascii_lowercase()
    };
    for tag in html.split('<').skip(1) {
        if let Some(closed) = tag.strip_prefix('/') {
            if !VOID.contains(&name(closed).as_str()) {
                depth = depth.saturating_sub(1);
            }
        } else if !name(tag).is_empty() && !VOID.contains(&name(tag).as_str()) {
            depth += 1;
            deepest = deepest.max(depth);
        }
    }
    deepest
}

/// The beginning of a document in at most `bytes_max` bytes, not in the middle of a tag or of a
/// character's name.
pub(super) fn cut_html(html: &str, bytes_max: usize) -> &str {
    let shown = cut(html, bytes_max);
    if shown.len() == html.len() {
        return shown;
    }
    let open = |begin: char, end: char, longest: usize| {
        let at = shown.rfind(begin)?;
        (shown.len() - at <= longest && !shown[at..].contains(end)).then_some(at)
    };
    let end = open('<', '>', shown.len()).or_else(|| open('&', ';', 10));
    &shown[..end.unwrap_or(shown.len())]
}

/// What somebody wrote above the message that they answer: HTML up to where mail programs begin to quote.
pub(super) fn above_quote(html: &str) -> &str {
    const QUOTES: [&str; 8] = [
        "<div class=\"gmail_quote",
        "<blockquote type=\"cite\"",
        "<div class=\"moz-cite-prefix\"",
        "<div id=\"appendonsend\"",
        "<div id=\"divrplyfwdmsg\"",
        "<div style=\"border:none;border-top:solid #e1e1e1",
        "<div style=\"border:none;border-top:solid #b5c4df",
        "-----original message-----",
    ];
    let lower = html.to_ascii_lowercase();
    let end = QUOTES.iter().filter_map(|quote| lower.find(quote)).filter(|&at| at > 0).min();
    end.map_or(html, |end| &html[..end])
}

/// The same of text: up to a line of theirs, or to the quoted lines that nothing follows.
pub(super) fn above_quoted_text(text: &str) -> &str {
    if let Some(end) = text.to_ascii_lowercase().find("-----original message-----").filter(|&end| end > 0) {
        return &text[..end];
    }
    let mut end = text.len();
    let mut quoted = false;
    for line in text.split_inclusive('\n').rev() {
        let line_text = line.trim();
        if line_text.starts_with('>') {
            quoted = true;
        } else if !(line_text.is_empty() || quoted && line_text.ends_with(':')) {
            break;
        }
        end -= line.len();
    }
    if quoted && end > 0 { &text[..end] } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_or_loads_is_taken_out() {
        for (html, clean) in [
            ("<p onclick=\"x()\">a<script>b</script>c</p>", "<p>ac</p>"),
            ("<a href=\"javascript:x()\">a</a>", "<a>a</a>"),
            ("<a href=\"data:text/html,x\">a</a>", "<a>a</a>"),
            ("<svg><style><img src=x onerror=y></style></svg>a", "<img src=\"x\">a"),
            ("<svg><animate/></svg><math><mi>b</mi></math>a", "a"),
            ("<title>t</title><style>p{}</style><iframe src=\"x\">y</iframe>a", "a"),
            ("<form action=\"x\"><input name=\"y\">a</form>", "a"),
            ("<p style=\"position:fixed;color:red;behavior:url(x)\">a</p>", "<p style=\"color:red\">a</p>"),
            ("<!-- [if mso]> x <![endif]-->a", "a"),
        ] {
            assert_eq!(sanitized(html), clean, "{html}");
        }
    }

    #[test]
    fn pictures_and_layout_stay() {
        for html in [
            "<img src=\"cid:part1@x\" alt=\"a\">",
            "<img src=\"https://example.com/a.png\" width=\"1\">",
            "<img src=\"data:image/png;base64,AAAA\">",
            "<table bgcolor=\"#fff\" cellpadding=\"0\"><tbody><tr><td valign=\"top\">a</td></tr></tbody></table>",
            "<font color=\"red\">a</font>",
            "<a href=\"mailto:a@example.com\">a</a>",
        ] {
            assert_eq!(sanitized(html), html);
        }
    }

    #[test]
    fn hostile_html_is_stripped_not_parsed() {
        let deep = "<div>".repeat(50_000);
        assert!(nesting(&deep) > PARSED_DEPTH_MAX);
        assert_eq!(to_text(&format!("{deep}x")).trim(), "x");
        assert_eq!(sanitized(&format!("{deep}&lt;x")).trim(), "&lt;x");
        // Closing what need not be closed hides no depth.
        assert!(nesting(&"<div></p>".repeat(1000)) > PARSED_DEPTH_MAX);
        assert!(nesting(&"<p>a</p><br/>".repeat(1000)) <= PARSED_DEPTH_MAX);
    }

    #[test]
    fn tables_become_lines_not_drawings() {
        let text = to_text("<table><tr><td>a</td><td>b</td></tr></table><p>c &amp; d</p>");
        assert!(text.contains('a') && text.contains("c & d"), "{text:?}");
        assert!(!text.contains(['\u{2500}', '\u{2502}']), "{text:?}");
    }

    #[test]
    fn text_becomes_html_that_says_the_same() {
        assert_eq!(of_text("a < b\r\n  c & d  e"), "a &lt; b<br>\r\n&nbsp;&nbsp;c &amp; d  e");
    }

    #[test]
    fn html_is_not_cut_inside_a_tag() {
        assert_eq!(cut_html("<p>a</p><a href=\"x\">", 12), "<p>a</p>");
        assert_eq!(cut_html("<p>a&nbsp;b", 8), "<p>a");
        assert_eq!(cut_html("<p>a", 9), "<p>a");
        assert_eq!(cut_html("1 > 0 & 2 or so it goes on", 20), "1 > 0 & 2 or so it g");
    }

    #[test]
    fn the_quoted_part_is_left_out() {
        assert_eq!(above_quote("<p>yes</p><div class=\"gmail_quote\">no</div>"), "<p>yes</p>");
        assert_eq!(above_quote("<p>yes</p>"), "<p>yes</p>");
        assert_eq!(above_quoted_text("yes\r\n\r\nOn Monday A wrote:\r\n> no\r\n> no\r\n"), "yes\r\n");
        assert_eq!(above_quoted_text("> only\r\n"), "> only\r\n");
        assert_eq!(above_quoted_text("yes\r\n"), "yes\r\n");
    }
}
