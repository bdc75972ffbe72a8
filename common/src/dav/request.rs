//! The header fields of WebDAV requests (RFC 4918 10) and of Exchange's clients, each as a typed value.
//!
//! Not here: `If` (`if_header`), HTTP's own conditions (`conditions`), `Range` (`range`).

use std::fmt;

use super::DavError;

/// Bytes of a `Destination`, at most.
pub const DESTINATION_BYTES_MAX: usize = 8 * 1024;

/// `Depth` (RFC 4918 10.2), with Exchange's `noroot`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// `0`: the resource alone.
    Zero,
    /// `1`: with its members.
    One,
    /// `1,noroot`: its members alone.
    OneNoRoot,
    /// `infinity`: with everything below.
    Infinity,
    /// `infinity,noroot`: everything below alone.
    InfinityNoRoot,
}

impl Depth {
    /// Reads the header; `absent` is what the method takes if there is none.
    ///
    /// # Errors
    /// [`DavError::Bad`] for anything else: 400.
    pub fn parse(value: Option<&str>, absent: Self) -> Result<Self, DavError> {
        let Some(value) = value else { return Ok(absent) };
        let value: String = value.chars().filter(|c| !matches!(c, ' ' | '\t')).collect();
        match value.to_ascii_lowercase().as_str() {
            "0" => Ok(Self::Zero),
            "1" => Ok(Self::One),
            "infinity" => Ok(Self::Infinity),
            "1,noroot" => Ok(Self::OneNoRoot),
            "infinity,noroot" => Ok(Self::InfinityNoRoot),
            _ => Err(DavError::Bad("Depth")),
        }
    }

    /// Whether the resource itself is meant.
    pub const fn root(self) -> bool {
        matches!(self, Self::Zero | Self::One | Self::Infinity)
    }

    /// Whether members are meant.
    pub const fn members(self) -> bool {
        !matches!(self, Self::Zero)
    }

    /// Whether members of members are meant.
    pub const fn is_infinite(self) -> bool {
        matches!(self, Self::Infinity | Self::InfinityNoRoot)
    }
}

/// `Overwrite` (RFC 4918 10.6): absent means `T`.
///
/// # Errors
/// [`DavError::Bad`] for anything but T and F: 400.
pub fn overwrite(value: Option<&str>) -> Result<bool, DavError> {
    flag(value, true, "Overwrite")
}

/// Exchange's `Allow-Rename`: `t` lets the server choose another name when that of the destination is taken.
pub fn allow_rename(value: Option<&str>) -> bool {
    flag(value, false, "Allow-Rename").unwrap_or(false)
}

/// Exchange's `Brief`: `t` leaves properties out that were not found.
pub fn brief(value: Option<&str>) -> bool {
    flag(value, false, "Brief").unwrap_or(false)
}

/// `Translate`: `f` asks for the resource as it is stored ([Exchange SDK]). Absent means `t`; we store what we send.
pub fn translate(value: Option<&str>) -> bool {
    flag(value, true, "Translate").unwrap_or(true)
}

fn flag(value: Option<&str>, absent: bool, name: &'static str) -> Result<bool, DavError> {
    match value.map(str::trim) {
        None => Ok(absent),
        Some(value) if value.eq_ignore_ascii_case("t") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("f") => Ok(false),
        Some(_) => Err(DavError::Bad(name)),
    }
}

/// How long a lock is asked for or granted (RFC 4918 10.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    /// `Second-<n>`.
    Seconds(u32),
    /// `Infinite`.
    Infinite,
}

impl Timeout {
    /// Reads the header, a list in the order of preference: the first that can be read counts. `None` if there is none.
    pub fn parse(value: Option<&str>) -> Option<Self> {
        value?.split(',').take(16).find_map(|one| {
            let one = one.trim();
            if one.eq_ignore_ascii_case("infinite") {
                return Some(Self::Infinite);
            }
            let (word, secs) = one.split_once('-')?;
            let ok = word.eq_ignore_ascii_case("second")
                && !secs.is_empty()
                && secs.bytes().all(|byte| byte.is_ascii_digit());
            // Above 2³²-1 the value is not one of RFC 4918's, but what it means is clear.
            ok.then(|| Self::Seconds(secs.parse().unwrap_or(u32::MAX)))
        })
    }

    /// The seconds granted, if at most `cap` seconds are.
    pub const fn granted(self, cap: u32) -> u32 {
        match self {
            Self::Seconds(secs) if secs < cap => secs,
            Self::Seconds(_) | Self::Infinite => cap,
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(secs) => write!(f, "Second-{secs}"),
            Self::Infinite => f.write_str("Infinite"),
        }
    }
}

/// `Lock-Token` (RFC 4918 10.5): `<` URI `>`, as UNLOCK sends it. Gives the URI.
///
/// # Errors
/// [`DavError::Bad`] for anything else: 400.
pub fn lock_token(value: &str) -> Result<&str, DavError> {
    let inside = value.trim().strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let ok = |uri: &&str| {
        uri.contains(':') && !uri.contains(|c: char| matches!(c, '<' | '>') || c <= ' ' || c == '\u{7f}')
    };
    inside.filter(ok).ok_or(DavError::Bad("Lock-Token"))
}

/// Why a URI in a header cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UriError {
    /// Not an absolute http URI or absolute path, or with a query or fragment: 400.
    #[error("the URI is not one of ours")]
    Form,
    /// On another server: 502 (RFC 4918 9.8.5).
    #[error("the URI is on another server")]
    Elsewhere,
}

/// The path of `Destination` (RFC 4918 10.3), or of a Resource-Tag of `If`: still percent-encoded, beginning with a slash.
///
/// `authority` is by which host (and port) the asker has reached us; `None` lets any pass, for those who reach us by a
/// name of their own. Each segment is then to be decoded once, with [`crate::names::decode_segment`].
///
/// # Errors
/// See [`UriError`].
pub fn uri_path<'a>(value: &'a str, authority: Option<&str>) -> Result<&'a str, UriError> {
    let value = value.trim();
    if value.len() > DESTINATION_BYTES_MAX
        || value.contains(|c: char| c <= ' ' || matches!(c, '\\' | '?' | '#' | '\u{7f}'))
    {
        return Err(UriError::Form);
    }
    if value.starts_with('/') {
        // A network-path reference would name a host without a scheme.
        return if value.starts_with("//") { Err(UriError::Form) } else { Ok(value) };
    }
    let (scheme, rest) = value.split_once("://").ok_or(UriError::Form)?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return Err(UriError::Form),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() || host.contains('@') {
        return Err(UriError::Form);
    }
    // Behind a proxy that ends TLS, the scheme in the URI is the client's: both default ports go without saying.
    let plain = |host: &str| {
        let host = host.to_ascii_lowercase();
        let bare = host
            .strip_suffix(port)
            .or_else(|| host.strip_suffix(":80"))
            .or_else(|| host.strip_suffix(":443"));
        bare.map_or_else(|| host.clone(), str::to_owned)
    };
    if authority.is_some_and(|ours| plain(ours) != plain(host)) {
        return Err(UriError::Elsewhere);
    }
    Ok(if path.is_empty() { "/" } else { path })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depths() {
        let parse = |text| Depth::parse(Some(text), Depth::Zero);
        assert_eq!(parse("0"), Ok(Depth::Zero));
        assert_eq!(parse("Infinity"), Ok(Depth::Infinity));
        assert_eq!(parse("1, NoRoot"), Ok(Depth::OneNoRoot));
        assert_eq!(parse("infinity,noroot"), Ok(Depth::InfinityNoRoot));
        assert_eq!(Depth::parse(None, Depth::Infinity), Ok(Depth::Infinity));
        for bad in ["", "2", "0,noroot", "-1", "infinite"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(!Depth::OneNoRoot.root() && Depth::OneNoRoot.members() && !Depth::OneNoRoot.is_infinite());
    }

    #[test]
    fn timeouts() {
        let parse = |text| Timeout::parse(Some(text));
        assert_eq!(parse("Second-4100000000"), Some(Timeout::Seconds(4_100_000_000)));
        assert_eq!(parse("Extended-x, Infinite, Second-5"), Some(Timeout::Infinite));
        assert_eq!(parse("second-99999999999"), Some(Timeout::Seconds(u32::MAX)));
        assert_eq!(parse("Second-"), None);
        assert_eq!(parse("Second--5"), None);
        assert_eq!(Timeout::Infinite.granted(600), 600);
        assert_eq!(Timeout::Seconds(5).granted(600), 5);
    }

    #[test]
    fn lock_tokens() {
        assert_eq!(lock_token(" <opaquelocktoken:a-b> "), Ok("opaquelocktoken:a-b"));
        for bad in ["", "<>", "opaquelocktoken:a", "<a>", "<a:b><c:d>", "<a: b>"] {
            assert!(lock_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations() {
        let ours = Some("Mail.example:80");
        assert_eq!(uri_path("http://mail.example/exchange/a/%20b/", ours), Ok("/exchange/a/%20b/"));
        assert_eq!(uri_path("https://MAIL.example:443/x", ours), Ok("/x"));
        assert_eq!(uri_path("/x/y", ours), Ok("/x/y"));
        assert_eq!(uri_path("http://mail.example", ours), Ok("/"));
        assert_eq!(uri_path("http://other.example/x", ours), Err(UriError::Elsewhere));
        assert_eq!(uri_path("http://mail.example:8080/x", ours), Err(UriError::Elsewhere));
        assert_eq!(uri_path("http://other.example/x", None), Ok("/x"));
        for bad in [
            "",
            "x",
            "//other.example/x",
            "ftp://h/x",
            "http:///x",
            "http://u@h/x",
            "/a\\b",
            "/a?b",
            "/a#b",
            "/a b",
        ] {
            assert_eq!(uri_path(bad, None), Err(UriError::Form), "{bad}");
        }
    }

    #[test]
    fn flags() {
        assert_eq!(overwrite(None), Ok(true));
        assert_eq!(overwrite(Some("f")), Ok(false));
        assert!(overwrite(Some("x")).is_err());
        assert!(brief(Some("T")) && !brief(None));
        assert!(translate(None) && !translate(Some("f")));
        assert!(!allow_rename(None) && allow_rename(Some("t")));
    }

    proptest! {
        #[test]
        fn a_path_is_a_path(value in "(http://)?[a-z/:@%.]{0,20}|\\PC{0,30}") {
            if let Ok(path) = uri_path(&value, None) {
                prop_assert!(path.starts_with('/'));
            }
        }
    }
}
