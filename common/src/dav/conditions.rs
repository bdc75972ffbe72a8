//! Conditional requests (RFC 9110 13): entity tags, dates, and in which order they decide.
//!
//! A condition is checked against the state in which the write is made, so the values are kept parsed until then.
//! Not here: the `If` header of RFC 4918 (`if_header`), `If-Range` (`range`).

use super::DavError;

/// Entity tags in one header, at most; what is beyond names nothing.
pub const TAGS_MAX: usize = 100;

/// An entity tag (RFC 9110 8.8.3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EntityTag {
    /// It had `W/` before it.
    pub weak: bool,
    /// The opaque part with its quotes.
    pub quoted: String,
}

impl EntityTag {
    /// Reads a tag at the beginning of `text` and gives what is behind it.
    pub(super) fn read(text: &str) -> Option<(Self, &str)> {
        let weak = text.starts_with("W/");
        let tag = text.strip_prefix("W/").unwrap_or(text);
        let inside = tag.strip_prefix('"')?;
        let end = inside.find('"')?;
        if inside[..end].chars().any(char::is_control) {
            return None;
        }
        let (quoted, rest) = tag.split_at(end + 2);
        Some((Self { weak, quoted: quoted.to_owned() }, rest))
    }

    /// Strong comparison (RFC 9110 8.8.3.2) with the tag of what is there, quotes included.
    pub fn is_strongly(&self, current: &str) -> bool {
        !self.weak && self.quoted == current
    }

    /// Weak comparison: `W/` does not matter on either side.
    pub fn is_weakly(&self, current: &str) -> bool {
        self.quoted == current.strip_prefix("W/").unwrap_or(current)
    }
}

impl std::fmt::Display for EntityTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.weak { "W/" } else { "" }, self.quoted)
    }
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tags {
    /// `*`: whatever is there.
    Any,
    /// These.
    List(Vec<EntityTag>),
    /// These, and what could not be read: nobody knows what else was meant.
    Unclear(Vec<EntityTag>),
}

impl Tags {
    /// Reads a header's value. Reading stops at what is no entity tag, and at [`TAGS_MAX`].
    pub fn parse(value: &str) -> Self {
        let mut rest = value.trim();
        if rest == "*" {
            return Self::Any;
        }
        let mut tags = Vec::new();
        while let Some((tag, after)) = EntityTag::read(rest).filter(|_| tags.len() < TAGS_MAX) {
            tags.push(tag);
            rest = after.trim_start_matches([' ', '\t', ',']);
        }
        if rest.is_empty() && !tags.is_empty() { Self::List(tags) } else { Self::Unclear(tags) }
    }

    fn name(&self, current: Option<&str>, compare: fn(&EntityTag, &str) -> bool) -> bool {
        match (self, current) {
            (Self::Any, current) => current.is_some(),
            (Self::List(tags) | Self::Unclear(tags), Some(current)) => {
                tags.iter().any(|tag| compare(tag, current))
            }
            (Self::List(_) | Self::Unclear(_), None) => false,
        }
    }
}

/// What the conditions say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Carry the request out.
    GoOn,
    /// 304: the reader has this already.
    NotModified,
    /// 412.
    Failed,
}

/// The conditions of one request. The default always says [`Verdict::GoOn`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<Tags>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tags>,
    /// `If-Modified-Since`, Unix seconds.
    pub if_modified_since: Option<i64>,
    /// `If-Unmodified-Since`, Unix seconds.
    pub if_unmodified_since: Option<i64>,
}

impl Conditions {
    /// Reads them from a request's headers. A date that cannot be read is as if it were not there (RFC 9110 13.1.3).
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            if_match: header("If-Match").map(Tags::parse),
            if_none_match: header("If-None-Match").map(Tags::parse),
            if_modified_since: header("If-Modified-Since").and_then(|value| parse_http_date(value).ok()),
            if_unmodified_since: header("If-Unmodified-Since").and_then(|value| parse_http_date(value).ok()),
        }
    }

    /// Decides in the order of RFC 9110 13.2.2. A write whose `If-None-Match` is unclear fails: it asked for care.
    ///
    /// `read`: the method is GET or HEAD. `current`: the entity tag with quotes, and the modification in Unix seconds, of
    /// what is there; `None` if nothing is.
    pub fn check(&self, read: bool, current: Option<(&str, i64)>) -> Verdict {
        let tag = current.map(|(tag, _)| tag);
        let modified = current.map(|(_, modified)| modified);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !tags.name(tag, EntityTag::is_strongly) => return Verdict::Failed,
            (None, Some(since)) if modified.is_none_or(|modified| modified > since) => {
                return Verdict::Failed;
            }
            _ => {}
        }
        let known = match (&self.if_none_match, self.if_modified_since) {
            (Some(Tags::Unclear(_)), _) if !read => return Verdict::Failed,
            (Some(tags), _) => tags.name(tag, EntityTag::is_weakly),
            (None, Some(since)) if read => modified.is_some_and(|modified| modified <= since),
            _ => false,
        };
        match (known, read) {
            (false, _) => Verdict::GoOn,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Failed,
        }
    }
}

/// Reads an HTTP date in any of its three forms (RFC 9110 5.6.7) as Unix seconds.
///
/// A year of two digits is taken as 1970 to 2069; the RFC's rule needs a clock and differs for dates that are fifty
/// years away.
///
/// # Errors
/// [`DavError::Bad`] for anything else. The name of the day is not checked.
pub fn parse_http_date(value: &str) -> Result<i64, DavError> {
    http_date(value.trim()).ok_or(DavError::Bad("date"))
}

fn http_date(value: &str) -> Option<i64> {
    let words: Vec<&str> = value.split([' ', '-', ',']).filter(|word| !word.is_empty()).take(7).collect();
    // Sun, 06 Nov 1994 08:49:37 GMT, or Sunday, 06-Nov-94 08:49:37 GMT, or Sun Nov  6 08:49:37 1994.
    let ([_, day, month, year, time, "GMT" | "UTC"] | [_, month, day, time, year]) = *words.as_slice() else {
        return None;
    };
    let digits = |text: &str, most: usize| -> Option<i16> {
        let ok = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| ok)
    };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let year = match (year.len(), digits(year, 4)?) {
        (4, year) => year,
        (2, year) if year < 70 => 2000 + year,
        (2, year) => 1900 + year,
        _ => return None,
    };
    let time: Vec<&str> = time.split(':').take(4).collect();
    let [hour, minute, second] = *time.as_slice() else { return None };
    let small = |text: &str| digits(text, 2).and_then(|number| i8::try_from(number).ok());
    // A leap second is the last second that jiff knows.
    let second = small(second)?;
    let second = if second == 60 { 59 } else { second };
    let date = jiff::civil::DateTime::new(
        year,
        i8::try_from(month).ok()?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        second,
        0,
    );
    let zoned = date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_dates_of_rfc_9110_are_one() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(text), Ok(784_111_777), "{text}");
        }
        for bad in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "9 9 9 9 9",
        ] {
            assert!(parse_http_date(bad).is_err(), "{bad}");
        }
    }

    #[track_caller]
    fn check(headers: &[(&str, &str)], read: bool, current: Option<(&str, i64)>, expected: Verdict) {
        let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        assert_eq!(Conditions::from_headers(find).check(read, current), expected, "{headers:?}");
    }

    #[test]
    fn conditions_decide_in_the_order_of_rfc_9110() {
        use Verdict::{Failed, GoOn, NotModified};
        let at = Some(("\"2\"", 784_111_777));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let before = "Sun, 06 Nov 1994 08:49:36 GMT";
        check(&[], false, None, GoOn);
        check(&[("If-Match", "*")], false, None, Failed);
        check(&[("If-Match", "*")], false, at, GoOn);
        check(&[("If-Match", "\"1\", \"2\"")], false, at, GoOn);
        check(&[("If-Match", "\"a,\"2\"")], false, at, Failed);
        check(&[("If-Match", "W/\"2\"")], false, at, Failed);
        check(&[("If-Match", "rubbish")], false, at, Failed);
        for unclear in ["", "rubbish", "\"1\" rubbish", "\"1\", *"] {
            check(&[("If-None-Match", unclear)], false, at, Failed);
            check(&[("If-None-Match", unclear)], false, None, Failed);
            check(&[("If-None-Match", unclear)], true, at, GoOn);
        }
        check(&[("If-None-Match", "\"1\" , \"3\",")], false, at, GoOn);
        check(&[("If-None-Match", "*")], false, at, Failed);
        check(&[("If-None-Match", "*")], false, None, GoOn);
        check(&[("If-None-Match", "W/\"2\"")], true, at, NotModified);
        check(&[("If-None-Match", "\"3\""), ("If-Modified-Since", date)], true, at, GoOn);
        check(&[("If-Modified-Since", date)], true, at, NotModified);
        check(&[("If-Modified-Since", before)], true, at, GoOn);
        check(&[("If-Modified-Since", date)], false, at, GoOn);
        check(&[("If-Modified-Since", "soon")], true, at, GoOn);
        check(&[("If-Unmodified-Since", before)], false, at, Failed);
        check(&[("If-Unmodified-Since", date)], false, at, GoOn);
        check(&[("If-Unmodified-Since", date)], false, None, Failed);
        check(&[("If-Match", "\"2\""), ("If-Unmodified-Since", before)], false, at, GoOn);
    }

    proptest! {
        #[test]
        fn never_panics(value in "[\"W/*, a]{0,20}|\\PC{0,40}") {
            let _ = (Tags::parse(&value), parse_http_date(&value));
        }
    }
}
