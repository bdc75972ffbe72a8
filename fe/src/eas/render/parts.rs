//! A message as a tree of MIME parts (RFC 2045, RFC 2046): where the header and the body of each lie.
//!
//! One pass over the lines; nothing is decoded but headers, so that a message of many megabytes costs
//! its own bytes and little more. A part's number in the tree is what a FileReference names. Mail is
//! broken in many ways and still read: a header ends at the first line that is none, a boundary that
//! never comes makes its multipart a text, a part ends where an outer one does.
//!
//! Not here: which parts are the body (`layout`), and what is in an attached message.

use std::borrow::Cow;

use data_encoding::BASE64_NOPAD;
use mail_parser::{Message, MessageParser, MimeHeaders as _};

use super::text;

/// Multiparts inside each other; what lies deeper is one part, as it is.
const DEPTH_MAX: usize = 20;
/// Parts of a message; what follows is part of the last one.
const PARTS_MAX: usize = 1000;
/// Bytes of a header that are looked at.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a boundary (RFC 2046 5.1.1 allows 70).
const BOUNDARY_BYTES_MAX: usize = 256;

/// A message taken apart.
pub(super) struct Tree<'a> {
    /// The parts in the order in which they begin; the first is the message itself.
    pub(super) parts: Vec<Part<'a>>,
}

/// A part.
pub(super) struct Part<'a> {
    /// Its header, with the last line's end, without the empty line.
    pub(super) head: &'a [u8],
    /// Its body, still encoded.
    pub(super) body: &'a [u8],
    /// Its header, read.
    headers: Message<'static>,
    /// `text`, `image`, …
    media: String,
    /// `plain`, `html`, …
    subtype: String,
    /// The part that it belongs to.
    pub(super) parent: Option<usize>,
    /// The parts of a multipart.
    pub(super) children: Vec<usize>,
}

/// How a body is encoded (RFC 2045 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// RFC 2045 6.8.
    Base64,
    /// RFC 2045 6.7.
    QuotedPrintable,
    /// Before MIME.
    Uuencode,
}

/// Where a part ended.
#[derive(Clone, Copy)]
enum End {
    /// At a boundary: which of the open ones, and whether it was the last of its multipart.
    Boundary { at: usize, last: bool },
    /// With the message.
    Message,
}

struct Scan<'a> {
    raw: &'a [u8],
    at: usize,
    open: Vec<Vec<u8>>,
    parts: Vec<Part<'a>>,
}

impl<'a> Tree<'a> {
    /// Takes a message apart; any bytes are one.
    pub(super) fn of(raw: &'a [u8]) -> Self {
        let mut scan = Scan { raw, at: 0, open: Vec::new(), parts: Vec::new() };
        // The line before a message in an mbox, kept by some who copy it from there.
        if raw.starts_with(b"From ") {
            scan.line();
        }
        scan.part(None, false);
        Self { parts: scan.parts }
    }

    /// The message itself.
    pub(super) fn root(&self) -> &Part<'a> {
        &self.parts[0]
    }
}

impl<'a> Scan<'a> {
    /// The next line with its end, if there is one.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.raw[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
        self.at += length;
        Some(&rest[..length])
    }

    /// Whether a line is a boundary of an open multipart, the innermost first.
    fn boundary(&self, line: &[u8]) -> Option<End> {
        let rest = line.strip_prefix(b"--")?.trim_ascii_end();
        self.open.iter().enumerate().rev().find_map(|(at, boundary)| {
            match rest.strip_prefix(boundary.as_slice())? {
                b"" => Some(End::Boundary { at, last: false }),
                b"--" => Some(End::Boundary { at, last: true }),
                _ => None,
            }
        })
    }

    /// Skips to the next boundary. What was skipped ends before the line end that belongs to the boundary.
    fn skip(&mut self) -> (&'a [u8], End) {
        let from = self.at;
        while let Some(line) = self.line() {
            if let Some(end) = self.boundary(line) {
                let skipped = &self.raw[from..self.at - line.len()];
                return (without_line_end(skipped), end);
            }
        }
        (&self.raw[from..], End::Message)
    }

    /// The header at this place, and the boundary that came instead of a body.
    fn head(&mut self) -> (&'a [u8], Option<End>) {
        let from = self.at;
        loop {
            let before = self.at;
            let Some(line) = self.line() else { return (&self.raw[from..], None) };
            if line.trim_ascii().is_empty() && !(before > from && line.starts_with(b" ")) {
                return (&self.raw[from..before], None);
            }
            if let Some(end) = self.boundary(line) {
                return (&self.raw[from..before], Some(end));
            }
            let goes_on = before > from && line.starts_with(b" ") || line.starts_with(b"\t");
            if !goes_on && !is_field(line) {
                self.at = before;
                return (&self.raw[from..before], None);
            }
        }
    }

    /// A part and all below it.
    fn part(&mut self, parent: Option<usize>, in_digest: bool) -> End {
        let (head, missing_body) = self.head();
        let number = self.parts.len();
        let part = Part::new(head, parent, in_digest);
        let boundary = part.boundary().filter(|_| self.open.len() < DEPTH_MAX);
        let digest = part.is("multipart", "digest");
        self.parts.push(part);
        if let Some(parent) = parent {
            self.parts[parent].children.push(number);
        }
        if let Some(end) = missing_body {
            return end;
        }
        let from = self.at;
        let Some(boundary) = boundary else {
            let (body, end) = self.skip();
            self.parts[number].body = body;
            return end;
        };
        let own = self.open.len();
        self.open.push(boundary);
        let (_, mut end) = self.skip();
        while let End::Boundary { at, last: false } = end
            && at == own
            && self.parts.len() < PARTS_MAX
        {
            end = self.part(Some(number), digest);
        }
        self.open.truncate(own);
        // What follows the last part, or came after too many.
        let (body, end) = match end {
            End::Boundary { at, .. } if at == own => {
                let (_, end) = self.skip();
                (&self.raw[from..self.at], end)
            }
            end => (&self.raw[from..self.at], end),
        };
        let part = &mut self.parts[number];
        part.body = body;
        if part.children.is_empty() {
            (part.media, part.subtype) = ("text".to_owned(), "plain".to_owned());
        }
        end
    }
}

/// Whether a line begins a field: a name and a colon (RFC 5322 2.2).
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().position(|&byte| byte == b':').map_or(&b""[..], |colon| &line[..colon]);
    let name = name.trim_ascii_end();
    !name.is_empty() && name.len() <= 256 && name.iter().all(u8::is_ascii_graphic)
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

impl<'a> Part<'a> {
    fn new(head: &'a [u8], parent: Option<usize>, in_digest: bool) -> Self {
        let headers = read(head);
        let (media, subtype) = match headers.content_type() {
            Some(kind) => {
                (kind.ctype().to_ascii_lowercase(), kind.subtype().unwrap_or_default().to_ascii_lowercase())
            }
            None if in_digest => ("message".to_owned(), "rfc822".to_owned()),
            None => ("text".to_owned(), "plain".to_owned()),
        };
        Self { head, body: b"", headers, media, subtype, parent, children: Vec::new() }
    }

    /// The header, read: fields of which there are several count as the last one says.
    pub(super) fn headers(&self) -> &Message<'static> {
        &self.headers
    }

    /// Whether the part is of this media type.
    pub(super) fn is(&self, media: &str, subtype: &str) -> bool {
        self.media == media && self.subtype == subtype
    }

    /// Whether it is of any type of this kind.
    pub(super) fn is_any(&self, media: &str) -> bool {
        self.media == media
    }

    /// Whether it is S/MIME in one piece (RFC 8551 3.2), by either of its names.
    pub(super) fn is_pkcs7_mime(&self) -> bool {
        self.media == "application" && matches!(self.subtype.as_str(), "pkcs7-mime" | "x-pkcs7-mime")
    }

    /// Its media type as a header writes it.
    pub(super) fn media_type(&self) -> String {
        if self.subtype.is_empty() {
            return "application/octet-stream".to_owned();
        }
        format!("{}/{}", self.media, self.subtype)
    }

    /// A parameter of its Content-Type.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.headers.content_type()?.attribute(name)
    }

    fn boundary(&self) -> Option<Vec<u8>> {
        let boundary = self.parameter("boundary").filter(|_| self.media == "multipart")?.trim_end();
        let fits = !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX;
        fits.then(|| boundary.as_bytes().to_vec())
    }

    /// How the body is encoded; a multipart never is.
    pub(super) fn encoding(&self) -> Encoding {
        let name = self.headers.content_transfer_encoding().unwrap_or_default().trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if !self.children.is_empty() => Encoding::Identity,
            () if is("base64") => Encoding::Base64,
            () if is("quoted-printable") => Encoding::QuotedPrintable,
            () if is("x-uuencode") || is("uuencode") || is("x-uue") => Encoding::Uuencode,
            () => Encoding::Identity,
        }
    }

    /// The body's bytes, decoded as far as they can be.
    pub(super) fn decoded(&self) -> Cow<'a, [u8]> {
        match self.encoding() {
            Encoding::Identity => Cow::Borrowed(self.body),
            Encoding::Base64 => Cow::Owned(base64(self.body)),
            Encoding::QuotedPrintable => Cow::Owned(quoted_printable(self.body)),
            Encoding::Uuencode => Cow::Owned(uuencode(self.body)),
        }
    }

    /// About how many bytes `decoded` gives, without decoding.
    pub(super) fn decoded_len(&self) -> usize {
        match self.encoding() {
            Encoding::Base64 => self.body.iter().filter(|&&byte| is_base64(byte)).count() * 3 / 4,
            Encoding::Uuencode => self.body.len() * 3 / 4,
            Encoding::Identity | Encoding::QuotedPrintable => self.body.len(),
        }
    }

    /// The body as text, without what XML cannot carry.
    pub(super) fn text(&self) -> String {
        text::decode(&self.decoded(), self.parameter("charset"), self.is("text", "html"))
    }
}

/// Reads a header; one that is not UTF-8 as what it most likely is.
fn read(head: &[u8]) -> Message<'static> {
    let head = &head[..head.len().min(HEADER_BYTES_MAX)];
    let head = match std::str::from_utf8(head) {
        Ok(_) => Cow::Borrowed(head),
        Err(_) => Cow::Owned(text::decode(head, None, false).into_bytes()),
    };
    let read = MessageParser::default().parse_headers(head.as_ref());
    read.map(Message::into_owned)
        .filter(|message| !message.parts.is_empty())
        .unwrap_or_else(|| Message { parts: vec![mail_parser::MessagePart::default()], ..Message::default() })
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Base64 with whatever else stands between; several padded pieces in a row are read too.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    for piece in bytes.split(|&byte| byte == b'=') {
        let mut digits: Vec<u8> = piece.iter().copied().filter(|&byte| is_base64(byte)).collect();
        if digits.len() % 4 == 1 {
            digits.pop();
        }
        // The last digit's spare bits are to be zero, and are not always.
        let spare = digits.len() % 4;
        if spare > 0 {
            digits.extend(std::iter::repeat_n(b'A', 4 - spare));
        }
        let before = decoded.len();
        if let Ok(more) = BASE64_NOPAD.decode(&digits) {
            decoded.extend(more);
        }
        if spare > 0 {
            decoded.truncate(decoded.len().saturating_sub(4 - spare).max(before));
        }
    }
    decoded
}

/// Quoted-printable; what is not stays as it is.
fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let content = line.trim_ascii_end();
        let (content, soft) = match content.strip_suffix(b"=") {
            Some(content) => (content, true),
            None => (content, false),
        };
        let mut rest = content;
        while let Some((&byte, tail)) = rest.split_first() {
            let digits = (tail.first().copied().and_then(hex), tail.get(1).copied().and_then(hex));
            if let (b'=', (Some(high), Some(low))) = (byte, digits) {
                decoded.push(high << 4 | low);
                rest = &tail[2..];
            } else {
                decoded.push(byte);
                rest = tail;
            }
        }
        if !soft {
            decoded.extend_from_slice(match line {
                [.., b'\r', b'\n'] => b"\r\n",
                [.., b'\n'] => b"\n",
                _ => b"",
            });
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The lines between `begin` and `end`.
fn uuencode(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let lines = lines.skip_while(|line| !line.starts_with(b"begin ")).skip(1);
    let mut decoded = Vec::new();
    for line in lines.take_while(|line| *line != b"end") {
        let Some((&count, digits)) = line.split_first() else { continue };
        let before = decoded.len();
        for group in digits.chunks(4) {
            let value = |at: usize| u32::from(group.get(at).map_or(0, |digit| digit.wrapping_sub(32) & 63));
            let bits = value(0) << 18 | value(1) << 12 | value(2) << 6 | value(3);
            decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        decoded.truncate(before + usize::from(count.wrapping_sub(32) & 63).min(decoded.len() - before));
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = "From a line of an mbox\nSubject: x\r\nContent-Type: multipart/mixed; boundary=\"a b\"\r\n\r\n\
        preamble\r\n--a b \r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n\
        --in\r\n\r\none\r\n--in\r\nContent-Type: text/html\r\n\r\ntwo\r\n--in--\r\n\r\n\
        --a b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n--a b--\r\nepilogue";

    #[track_caller]
    fn check(raw: &str, expected: &[(&str, &str)]) {
        let tree = Tree::of(raw.as_bytes());
        let parts = tree.parts.iter().map(|part| {
            let body = if part.children.is_empty() { part.text() } else { String::new() };
            (part.media_type(), body)
        });
        let parts: Vec<_> = parts.collect();
        let parts: Vec<_> = parts.iter().map(|(kind, body)| (kind.as_str(), body.as_str())).collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn parts_are_found_in_their_order() {
        let parts = [
            ("multipart/mixed", ""),
            ("multipart/alternative", ""),
            ("text/plain", "one"),
            ("text/html", "two"),
            ("image/png", "hello"),
        ];
        check(NESTED, &parts);
        let tree = Tree::of(NESTED.as_bytes());
        assert_eq!(tree.root().children, [1, 4]);
        assert_eq!(tree.parts[3].parent, Some(1));
        assert_eq!(tree.parts[4].decoded_len(), 5);
    }

    #[test]
    fn broken_structure_is_read_as_far_as_it_goes() {
        check("", &[("text/plain", "")]);
        check("no header at all\nmore", &[("text/plain", "no header at all\nmore")]);
        check("A: b\nno field\n\nbody", &[("text/plain", "no field\n\nbody")]);
        check("Content-Type: multipart/mixed; boundary=x\n\nnever comes", &[("text/plain", "never comes")]);
        check("Content-Type: multipart/mixed\n\n--x\n\nbody", &[("multipart/mixed", "--x\n\nbody")]);
        let open = "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nbody";
        check(open, &[("multipart/mixed", ""), ("text/plain", "body")]);
        // The inner one is never closed: the outer boundary ends it.
        let torn = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=y\n\n\
                    --y\n\none\n--x\n\ntwo\n--x--\n";
        check(
            torn,
            &[("multipart/mixed", ""), ("multipart/mixed", ""), ("text/plain", "one"), ("text/plain", "two")],
        );
        // A part without an empty line.
        let bare = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/html\n--x--\n";
        check(bare, &[("multipart/mixed", ""), ("text/html", "")]);
    }

    #[test]
    fn parts_of_a_digest_are_messages() {
        let digest = "Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: in\n\nbody\n--x--\n";
        check(digest, &[("multipart/digest", ""), ("message/rfc822", "Subject: in\n\nbody")]);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let mut deep = String::new();
        for depth in 0..200 {
            deep += &format!("Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n");
        }
        assert!(Tree::of(deep.as_bytes()).parts.len() <= DEPTH_MAX + 1);
        let many = format!("Content-Type: multipart/mixed; boundary=x\n\n{}", "--x\n\n".repeat(5000));
        assert_eq!(Tree::of(many.as_bytes()).parts.len(), PARTS_MAX);
    }

    #[test]
    fn encodings_are_read_leniently() {
        assert_eq!(base64(b"aGVs bG8=\r\n"), b"hello");
        assert_eq!(base64(b"aGVsbG8"), b"hello");
        assert_eq!(base64(b"aGVsbG8=aGVsbG8="), b"hellohello");
        assert_eq!(base64(b"=====\xff"), b"");
        assert_eq!(quoted_printable(b"a=3Db =\r\nc=\nd  \r\ne=F"), b"a=b cd\r\ne=F");
        assert_eq!(uuencode(b"begin 644 x\n%:&5L;&\\\n`\nend\n"), b"hello");
    }
}
