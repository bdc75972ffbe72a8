//! Text: character sets, what XML cannot carry, cutting and previews.
//!
//! Character sets are those of the WHATWG (`encoding_rs`) and, where it has none, mail-parser's (UTF-7,
//! code pages of DOS). A text that does not say in which it is written is UTF-8 if it can be, else
//! Windows-1252.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use mail_parser::decoders::charsets::map::charset_decoder;

/// Where a document names its own character set, it does so in its first bytes.
const SNIFFED_BYTES: usize = 1024;

/// Bytes as text, without what XML cannot carry.
pub(super) fn decode(bytes: &[u8], charset: Option<&str>, html: bool) -> String {
    let charset = charset.map(str::trim).filter(|name| !name.is_empty());
    let known = charset.and_then(|name| Encoding::for_label(name.as_bytes()));
    let text = match (charset, known) {
        // All that calls itself ASCII.
        (Some(name), Some(encoding))
            if encoding == WINDOWS_1252 && name.to_ascii_lowercase().contains("ascii") =>
        {
            guessed(bytes, html)
        }
        (Some(_), Some(encoding)) if encoding != encoding_rs::REPLACEMENT => {
            encoding.decode(bytes).0.into_owned()
        }
        (Some(name), _) => match charset_decoder(name.as_bytes()) {
            Some(decoder) => decoder(bytes),
            None => guessed(bytes, html),
        },
        (None, _) => guessed(bytes, html),
    };
    clean(text)
}

fn guessed(bytes: &[u8], html: bool) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let said = if html { said_by_html(bytes) } else { None };
    said.unwrap_or(WINDOWS_1252).decode(bytes).0.into_owned()
}

/// The `charset=` of a `meta` element.
fn said_by_html(bytes: &[u8]) -> Option<&'static Encoding> {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(SNIFFED_BYTES)]).to_ascii_lowercase();
    let (_, name) = begin.split_once("charset=")?;
    let name = name.trim_start_matches(['"', '\'']);
    let name = name.split(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c))).next()?;
    Encoding::for_label(name.as_bytes()).filter(|encoding| *encoding != UTF_8)
}

/// The Windows code page of a character set, as InternetCPID names it; `None` where there is none.
pub(super) fn code_page(charset: &str) -> Option<u32> {
    if charset.trim().eq_ignore_ascii_case("us-ascii") {
        return Some(20127);
    }
    if charset.trim().eq_ignore_ascii_case("utf-7") {
        return Some(65000);
    }
    let name = Encoding::for_label(charset.trim().as_bytes())?.name();
    // To the WHATWG ISO 8859-1 is windows-1252.
    if name == "windows-1252" && charset.to_ascii_lowercase().contains("8859") {
        return Some(28591);
    }
    if let Some(number) = name.strip_prefix("windows-").and_then(|number| number.parse().ok()) {
        return Some(number);
    }
    if let Some(number) = name.strip_prefix("ISO-8859-").and_then(|number| number.parse::<u32>().ok()) {
        return Some(28590 + number);
    }
    Some(match name {
        "UTF-8" => 65001,
        "UTF-16LE" => 1200,
        "UTF-16BE" => 1201,
        "GBK" => 936,
        "gb18030" => 54936,
        "Big5" => 950,
        "EUC-JP" => 51932,
        "ISO-2022-JP" => 50220,
        "Shift_JIS" => 932,
        "EUC-KR" => 51949,
        "KOI8-R" => 20866,
        "KOI8-U" => 21866,
        "IBM866" => 866,
        "macintosh" => 10000,
        _ => return None,
    })
}

/// Whether XML and STR_I can carry all of a text.
pub(super) fn is_legal(text: &str) -> bool {
    text.chars().all(is_legal_char)
}

fn is_legal_char(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

/// A text without what XML cannot carry.
pub(super) fn clean(text: String) -> String {
    if is_legal(&text) { text } else { text.chars().filter(|&character| is_legal_char(character)).collect() }
}

/// The beginning of `text` in at most `bytes_max` bytes, whole characters only.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The first words of a text, at most so many characters, blanks and line ends as one blank each.
pub(super) fn preview(text: &str, characters_max: usize) -> String {
    let mut preview = String::new();
    let mut left = characters_max;
    for word in text.split_whitespace() {
        if !preview.is_empty() && left > 0 {
            preview.push(' ');
            left -= 1;
        }
        if left == 0 {
            break;
        }
        let taken = word.chars().take(left);
        let before = preview.len();
        preview.extend(taken);
        left -= preview[before..].chars().count();
    }
    preview.truncate(preview.trim_end().len());
    preview
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_sets_by_their_names() {
        let check =
            |bytes: &[u8], charset, text| assert_eq!(decode(bytes, Some(charset), false), text, "{charset}");
        check(b"Gr\xfc\xdfe", "iso-8859-1", "Gr\u{fc}\u{df}e");
        check(b"\x80", "Windows-1252", "\u{20ac}");
        check(b"\x1b$B$\"\x1b(B", "iso-2022-jp", "\u{3042}");
        check(b"\x81\x30\x81\x30", "gb18030", "\u{80}");
        check(b"\xc4\xe3", "gb2312", "\u{4f60}");
        check(b"\xcf\xf0", "windows-1251", "\u{41f}\u{440}");
        check(b"Hi Mom +Jjo-!", "utf-7", "Hi Mom \u{263a}!");
        check(b"\x81", "cp850", "\u{fc}");
        check(b"Gr\xc3\xbc", "us-ascii", "Gr\u{fc}");
        check(b"Gr\xfc", "x-unknown", "Gr\u{fc}");
        check(b"ok\xff", "utf-8", "ok\u{fffd}");
    }

    #[test]
    fn without_a_name_it_is_guessed() {
        assert_eq!(decode("Grüße".as_bytes(), None, false), "Grüße");
        assert_eq!(decode(b"Gr\xfc", None, false), "Gr\u{fc}");
        let page = b"<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>\xf0";
        assert!(decode(page, None, true).ends_with('\u{41f}'));
    }

    #[test]
    fn what_xml_cannot_carry_is_left_out() {
        assert_eq!(decode(b"a\0b\x1bc\x0c\r\n", None, false), "abc\r\n");
    }

    #[test]
    fn code_pages() {
        for (charset, page) in [
            ("utf-8", Some(65001)),
            ("US-ASCII", Some(20127)),
            ("iso-8859-1", Some(28591)),
            ("iso-8859-15", Some(28605)),
            ("windows-1251", Some(1251)),
            ("iso-2022-jp", Some(50220)),
            ("nonsense", None),
        ] {
            assert_eq!(code_page(charset), page, "{charset}");
        }
    }

    #[test]
    fn previews_are_counted_in_characters() {
        assert_eq!(preview("  Gr\u{fc}\u{df}e\r\n\r\nan  alle ", 255), "Gr\u{fc}\u{df}e an alle");
        assert_eq!(preview("Gr\u{fc}\u{df}e an", 4), "Gr\u{fc}\u{df}");
        assert_eq!(preview("ab cd", 3), "ab");
        assert_eq!(preview("ab", 0), "");
    }
}
