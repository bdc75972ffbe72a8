//! `Range`: byte ranges of a body (RFC 9110 14) and Exchange's row ranges of a SEARCH.
//!
//! Both have the same grammar: `unit=first-last`, `first-`, `-count`, in a list. Exchange adds `rows=-0`, no rows at all
//! but the headers of an answer ([Exchange SDK] Range Header). Not here: reading bodies, `Content-Type` of several parts.

use super::conditions::{EntityTag, parse_http_date};

/// Ranges answered one by one, at most. A request for more gets the whole.
pub const RANGES_MAX: usize = 16;

/// What of a body, or of a list of rows, is to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ranges {
    /// All of it, 200: no range, one that cannot be read, or too many.
    Whole,
    /// These, 206: first and last, both included, in the order asked for; never empty. Those that overlap are one.
    Parts(Vec<(u64, u64)>),
    /// None of them exists, 416.
    Unsatisfiable,
}

/// Reads `Range: bytes=…` for a body of `len` bytes.
pub fn bytes(value: &str, len: u64) -> Ranges {
    ranges("bytes", value, len)
}

/// Reads `Range: rows=…` for `len` rows; `rows=-0` is [`Ranges::Unsatisfiable`].
pub fn rows(value: &str, len: u64) -> Ranges {
    ranges("rows", value, len)
}

fn ranges(unit: &str, value: &str, len: u64) -> Ranges {
    let set = value.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case(unit));
    let Some((_, set)) = set else { return Ranges::Whole };
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut seen = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        seen += 1;
        match part(spec, len) {
            None => return Ranges::Whole,
            Some(_) if seen > RANGES_MAX => return Ranges::Whole,
            Some((first, last)) if first > last => {}
            Some(part) => parts.push(part),
        }
    }
    if seen == 0 {
        return Ranges::Whole;
    }
    if parts.is_empty() { Ranges::Unsatisfiable } else { Ranges::Parts(merge(parts)) }
}

/// First and last; first above last if there is no such part of what is there. `None`: not a range at all.
fn part(spec: &str, len: u64) -> Option<(u64, u64)> {
    const NOTHING: (u64, u64) = (1, 0);
    let number = |text: &str| -> Option<u64> {
        let ok = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        ok.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let count = number(last)?;
        let exists = count > 0 && len > 0;
        return Some(if exists { (len.saturating_sub(count), len - 1) } else { NOTHING });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some(if first < len { (first, last.min(len - 1)) } else { NOTHING })
}

/// Makes one of those that overlap or touch. The rest keeps its order.
fn merge(parts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (mut first, mut last) in parts {
        let mut place = None;
        let mut at = 0;
        while at < out.len() {
            let (a, b) = out[at];
            if a <= last.saturating_add(1) && first <= b.saturating_add(1) {
                (first, last) = (first.min(a), last.max(b));
                out.remove(at);
                place.get_or_insert(at);
                at = 0;
            } else {
                at += 1;
            }
        }
        out.insert(place.unwrap_or(out.len()).min(out.len()), (first, last));
    }
    out
}

/// `Content-Range` of one part of a body of `len` bytes (RFC 9110 14.4).
pub fn content_range((first, last): (u64, u64), len: u64) -> String {
    format!("bytes {first}-{last}/{len}")
}

/// `Content-Range` of a 416.
pub fn unsatisfied(len: u64) -> String {
    format!("bytes */{len}")
}

/// `Content-Range` of rows, as Exchange writes it.
pub fn content_rows(parts: &[(u64, u64)], len: u64) -> String {
    let list: Vec<String> = parts.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    format!("rows {}; total={len}", list.join(","))
}

/// What stands before one part of `multipart/byteranges` (RFC 9110 14.6).
pub fn part_head(boundary: &str, content_type: &str, part: (u64, u64), len: u64) -> String {
    format!(
        "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
        content_range(part, len)
    )
}

/// What stands behind the last part.
pub fn parts_end(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
}

/// Whether `If-Range` lets `Range` count (RFC 9110 13.1.5): the entity tag, compared strongly, or the very date of the
/// last modification, in Unix seconds.
pub fn if_range_holds(value: &str, etag: &str, modified: i64) -> bool {
    match EntityTag::read(value.trim()) {
        Some((tag, "")) => tag.is_strongly(etag),
        Some(_) => false,
        None => parse_http_date(value) == Ok(modified),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &str, len: u64, expected: &[(u64, u64)]) {
        let expected =
            if expected.is_empty() { Ranges::Unsatisfiable } else { Ranges::Parts(expected.to_vec()) };
        assert_eq!(bytes(value, len), expected, "{value}");
    }

    #[test]
    fn ranges_as_rfc_9110_has_them() {
        check("bytes=0-499", 10_000, &[(0, 499)]);
        check("bytes=-500", 10_000, &[(9_500, 9_999)]);
        check("bytes=9500-", 10_000, &[(9_500, 9_999)]);
        check("bytes=0-0,-1", 10_000, &[(0, 0), (9_999, 9_999)]);
        check("Bytes = 500-600 , 601-999", 10_000, &[(500, 999)]);
        check("bytes=500-700,601-999,0-1", 10_000, &[(500, 999), (0, 1)]);
        check("bytes=0-99999999999999999999", 10, &[(0, 9)]);
        check("bytes=10-", 10, &[]);
        check("bytes=-0", 10, &[]);
        check("bytes=0-", 0, &[]);
        check("bytes=20-30,1-2", 10, &[(1, 2)]);
        for whole in
            ["", "bytes", "rows=0-1", "bytes=", "bytes=2-1", "bytes=a-", "bytes=-", "bytes=+1-2", "bytes=1"]
        {
            assert_eq!(bytes(whole, 10), Ranges::Whole, "{whole}");
        }
        let many = "0-0,".repeat(RANGES_MAX + 1);
        assert_eq!(bytes(&format!("bytes={many}"), 1000), Ranges::Whole);
    }

    #[test]
    fn rows_as_exchange_has_them() {
        assert_eq!(rows("rows=0-5, 10-15", 12), Ranges::Parts(vec![(0, 5), (10, 11)]));
        assert_eq!(rows("rows=0-4,-5", 100), Ranges::Parts(vec![(0, 4), (95, 99)]));
        assert_eq!(rows("rows=-0", 100), Ranges::Unsatisfiable);
        assert_eq!(content_rows(&[(0, 4), (95, 99)], 100), "rows 0-4,95-99; total=100");
    }

    #[test]
    fn a_range_counts_only_for_what_the_reader_has() {
        assert!(if_range_holds("\"1\"", "\"1\"", 0));
        assert!(!if_range_holds("W/\"1\"", "\"1\"", 0));
        assert!(!if_range_holds("\"1\"x", "\"1\"", 0));
        assert!(if_range_holds("Sun, 06 Nov 1994 08:49:37 GMT", "\"1\"", 784_111_777));
        assert!(!if_range_holds("Sun, 06 Nov 1994 08:49:37 GMT", "\"1\"", 784_111_778));
    }

    proptest! {
        #[test]
        fn parts_exist_and_do_not_overlap(value in "bytes=([0-9]{0,2}-[0-9]{0,2},){0,6}", len in 0_u64..60) {
            if let Ranges::Parts(parts) = bytes(&value, len) {
                let mut sorted = parts.clone();
                sorted.sort_unstable();
                for part in &sorted {
                    prop_assert!(part.0 <= part.1 && part.1 < len);
                }
                for pair in sorted.windows(2) {
                    prop_assert!(pair[0].1 + 1 < pair[1].0, "{:?}", parts);
                }
            }
        }
    }
}
