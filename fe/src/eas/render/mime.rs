//! A message as MIME for a device ([MS-ASAIRS] Type 4; 2.5's MIMEData): as it is, where a WBXML string can
//! hold it.
//!
//! A string is UTF-8 without control characters, mail need not be. Parts that are not are sent in base64,
//! their header saying so: every client reads that, and nothing is lost. What is signed or encrypted must
//! arrive byte by byte; if that cannot be a string, it is sent as the bytes it is (OPAQUE).

use std::borrow::Cow;

use data_encoding::BASE64_MIME;

use super::parts::{Encoding, Part, Tree};
use super::text::{self, is_legal};

/// Messages inside each other that are looked into.
const DEPTH_MAX: usize = 5;

/// A message on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Mime<'a> {
    /// As a string.
    Text(Cow<'a, str>),
    /// As bytes.
    Bytes(&'a [u8]),
}

/// A message as it goes onto the wire.
pub(super) fn on_the_wire<'a>(tree: &Tree<'a>, raw: &'a [u8]) -> Mime<'a> {
    match legal(raw) {
        Some(text) => Mime::Text(Cow::Borrowed(text)),
        None if is_sealed(tree) => Mime::Bytes(raw),
        None => Mime::Text(Cow::Owned(in_seven_bits(tree, raw, 0))),
    }
}

fn legal(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| is_legal(text))
}

/// Whether a signature or a key covers bytes that must not change.
fn is_sealed(tree: &Tree<'_>) -> bool {
    let sealed = |part: &Part<'_>| {
        part.is("multipart", "signed") && legal(part.body).is_none()
            || part.is_pkcs7_mime() && part.encoding() == Encoding::Identity && legal(part.body).is_none()
    };
    tree.parts.iter().any(sealed)
}

fn in_seven_bits(tree: &Tree<'_>, raw: &[u8], depth: usize) -> String {
    let mut out = String::with_capacity(raw.len() + raw.len() / 3);
    let mut done = 0;
    for part in tree.parts.iter().filter(|part| part.children.is_empty() && legal(part.body).is_none()) {
        let (head, body) = (offset(raw, part.head), offset(raw, part.body));
        copy(&mut out, &raw[done..head]);
        done = body + part.body.len();
        if part.is("message", "rfc822") && part.encoding() == Encoding::Identity && depth < DEPTH_MAX {
            copy(&mut out, &raw[head..body]);
            out += &in_seven_bits(&Tree::of(part.body), part.body, depth + 1);
            continue;
        }
        copy(&mut out, &without_encoding(part.head));
        out += "Content-Transfer-Encoding: base64\r\n\r\n";
        // Quoted-printable and such with stray bytes in it: what it means is what is sent.
        out += BASE64_MIME.encode(&part.decoded()).trim_end();
    }
    copy(&mut out, &raw[done..]);
    out
}

/// Where a piece of the message begins in it.
fn offset(raw: &[u8], piece: &[u8]) -> usize {
    (piece.as_ptr().addr()).saturating_sub(raw.as_ptr().addr()).min(raw.len())
}

/// Appends headers and what stands between parts: as text, whatever it is.
fn copy(out: &mut String, bytes: &[u8]) {
    match legal(bytes) {
        Some(text) => out.push_str(text),
        None => out.push_str(&text::decode(bytes, None, false)),
    }
}

/// A header without its Content-Transfer-Encoding, ending with a line end.
fn without_encoding(head: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"content-transfer-encoding";
    let mut kept = Vec::with_capacity(head.len());
    let mut skipping = false;
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default().trim_ascii_end();
            skipping = name.eq_ignore_ascii_case(FIELD);
        }
        if !skipping {
            kept.extend_from_slice(line);
        }
    }
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        kept.extend_from_slice(b"\r\n");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(raw: &[u8]) -> Mime<'_> {
        on_the_wire(&Tree::of(raw), raw)
    }

    #[test]
    fn what_a_string_can_hold_goes_as_it_is() {
        let raw = "Subject: Grüße\r\n\r\nohne Änderung\r\n";
        assert_eq!(wire(raw.as_bytes()), Mime::Text(Cow::Borrowed(raw)));
    }

    #[test]
    fn other_bytes_go_in_base64_and_mean_the_same() {
        let raw = b"Subject: Gr\xfc\xdfe\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\
            Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding:\r\n 8bit\r\n\r\nGr\xfc\xdfe\r\n\
            --x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\x01\x02\r\n\
            --x\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n\r\n\
            \x1b$B$\"\x1b(B\r\n--x--\r\n";
        let Mime::Text(text) = wire(raw) else { panic!("bytes") };
        assert!(is_legal(&text));
        assert!(text.starts_with("Subject: Gr\u{fc}\u{df}e\r\n"));
        let tree = Tree::of(text.as_bytes());
        assert_eq!(tree.parts.len(), 4);
        assert_eq!(tree.parts[1].text(), "Gr\u{fc}\u{df}e");
        assert_eq!(tree.parts[2].decoded().as_ref(), b"\0\x01\x02");
        let inner = Tree::of(tree.parts[3].body);
        assert_eq!(inner.root().text(), "\u{3042}");
        assert!(text.ends_with("\r\n--x--\r\n"));
    }

    #[test]
    fn what_is_signed_goes_byte_by_byte() {
        let raw = b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\n\xfc\r\n--x--\r\n";
        assert_eq!(wire(raw), Mime::Bytes(raw));
        let raw = b"X: \xfc\r\nContent-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\na\r\n--x--\r\n";
        assert!(matches!(wire(raw), Mime::Text(_)), "only the outer header is not text");
    }
}
