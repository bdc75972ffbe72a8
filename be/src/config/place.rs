//! `https_listen`, `[tls]`, `[placement]`, `[back_ends]` and `token_key_file` of `be.toml`: one back end among several.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use directpush_common::config::{Mistake, Mistakes, Section};
use directpush_common::placement::Placement;
use http::Uri;

use crate::http::tls::{self, TlsFiles};

/// Characters of the key that back ends share, at least.
const TOKEN_KEY_CHARS_MIN: usize = 32;

/// HTTPS.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub listen: SocketAddr,
    pub files: TlsFiles,
}

/// Where users are.
#[derive(Clone, Debug)]
pub struct PlacementSettings {
    /// The map.
    pub map: PathBuf,
    /// What it calls this back end.
    pub back_end: String,
    /// The others.
    pub back_ends: Vec<BackEnd>,
}

/// Another back end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackEnd {
    pub name: String,
    /// Scheme, host and port by which front ends know it.
    pub url: String,
}

/// A key that is never shown.
#[derive(Clone)]
pub struct TokenKey(pub Vec<u8>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl PlacementSettings {
    /// Reads the map as it is now. This back end is number 0 in it, the others follow.
    ///
    /// # Errors
    /// All its mistakes at once.
    pub fn read(&self) -> Result<Placement, Mistakes> {
        let file = self.map.display().to_string();
        let text = std::fs::read_to_string(&self.map).map_err(|error| {
            Mistakes(vec![Mistake {
                file: file.clone(),
                line: 0,
                key: "placement.map".into(),
                what: format!("cannot be read: {error}"),
                cure: "name a file that this user can read".into(),
            }])
        })?;
        let others = self.back_ends.iter().map(|other| other.name.as_str());
        let names: Vec<&str> = std::iter::once(self.back_end.as_str()).chain(others).collect();
        Placement::parse(&text, &file, &names)
    }
}

pub(super) fn placement(root: &mut Section<'_>) -> Option<PlacementSettings> {
    let back_ends = back_ends(root);
    let section = root.table("placement");
    let mut settings = None;
    if let Some(mut section) = section {
        let map = section.string("map").filter(|path| !path.is_empty());
        if let Some(map) = map {
            let back_end =
                section.required("back_end", "what the map calls this back end: back_end = \"be-1\"");
            if back_ends.iter().any(|other| other.name.eq_ignore_ascii_case(&back_end)) {
                section.mistake(
                    "back_end",
                    "stands in [back_ends] too",
                    "name only the others in [back_ends]",
                );
            }
            settings = Some(PlacementSettings { map: map.into(), back_end, back_ends: back_ends.clone() });
        } else {
            section.string("back_end");
        }
        section.finish();
    }
    if settings.is_none() && !back_ends.is_empty() {
        root.mistake(
            "back_ends",
            "is of no use without a map",
            "write map = \"/etc/directpush/placement\" in [placement]",
        );
    }
    settings
}

fn back_ends(root: &mut Section<'_>) -> Vec<BackEnd> {
    let Some(mut section) = root.table("back_ends") else { return Vec::new() };
    let mut back_ends: Vec<BackEnd> = Vec::new();
    for (name, _, url) in section.strings() {
        match origin(&url) {
            Some(url) => back_ends.push(BackEnd { name, url }),
            None => section.mistake(
                &name,
                "is not of the form http://host:port or https://host:port",
                "write be-2 = \"https://be-2.example.com:8443\"",
            ),
        }
    }
    section.finish();
    back_ends
}

/// Scheme, host and port, and nothing else.
fn origin(url: &str) -> Option<String> {
    let parsed: Uri = url.parse().ok()?;
    let authority = parsed.authority()?;
    let fits = matches!(parsed.scheme_str(), Some("http" | "https"))
        && !authority.as_str().contains('@')
        && parsed.path_and_query().is_none_or(|path| path == "/");
    fits.then(|| url.trim_end_matches('/').to_owned())
}

pub(super) fn tls(root: &mut Section<'_>) -> Option<TlsSettings> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let asked = root.is_string("https_listen");
    let listen = root.parsed("https_listen", any, "an address and a port: https_listen = \"0.0.0.0:8443\"");
    let section = root.table("tls");
    let mut files = None;
    if let Some(mut section) = section {
        let mut path = |key| section.string(key).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
        let named = certificate.is_some() || key.is_some() || client_ca.is_some();
        match certificate.zip(key) {
            Some((certificate, key)) => files = Some(TlsFiles { certificate, key, client_ca }),
            None if named => section.mistake(
                "certificate",
                "or key is missing",
                "write both; `directpush-be tls init HOST` makes them",
            ),
            None => {}
        }
        if let Some(files) = &files
            && let Err(error) = tls::server(files)
        {
            let what = format!("or another of these files cannot be used: {error}");
            section.mistake("certificate", &what, "name PEM files that this user can read");
        }
        section.finish();
    }
    match files {
        Some(files) if asked => Some(TlsSettings { listen, files }),
        None if asked => {
            root.mistake(
                "https_listen",
                "has no certificate",
                "write certificate and key in [tls]; `directpush-be tls init HOST` makes them",
            );
            None
        }
        Some(_) => {
            root.mistake(
                "tls",
                "is of no use without an address",
                "write https_listen = \"0.0.0.0:8443\" above",
            );
            None
        }
        None => None,
    }
}

pub(super) fn token_key(root: &mut Section<'_>) -> Option<TokenKey> {
    let path = root.string("token_key_file").filter(|path| !path.is_empty())?;
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().chars().count() >= TOKEN_KEY_CHARS_MIN => {
            Some(TokenKey(text.trim().as_bytes().to_vec()))
        }
        Ok(_) => {
            root.mistake(
                "token_key_file",
                "holds fewer than 32 characters",
                "write a random key into it: openssl rand -hex 32",
            );
            None
        }
        Err(error) => {
            let what = format!("cannot be read: {error}");
            root.mistake("token_key_file", &what, "name a file that this user can read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_map_and_the_other_back_ends_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let map = dir.path().join("placement");
        std::fs::write(&map, "* be-1\n@example.org be-2\n").unwrap();
        let text = format!(
            "[placement]\nmap = {map:?}\nback_end = \"be-1\"\n[back_ends]\nbe-2 = \"https://be-2.example:8443/\"\n"
        );
        let placement = Config::from_toml(&text, "be.toml").unwrap().placement.unwrap();
        assert_eq!(
            placement.back_ends,
            [BackEnd { name: "be-2".into(), url: "https://be-2.example:8443".into() }]
        );
        assert_eq!(placement.read().unwrap().backend(&"x@example.org".parse().unwrap()), Some(1));
        std::fs::write(&map, "* be-1\n@example.org be-3\n").unwrap();
        let Mistakes(mistakes) = Config::from_toml(&text, "be.toml").unwrap_err();
        assert_eq!((mistakes.len(), mistakes[0].line), (1, 2), "of the map");
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let Mistakes(mistakes) = Config::from_toml(text, "be.toml").unwrap_err();
        assert_eq!(mistakes.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), expected, "{mistakes:?}");
    }

    #[test]
    fn mistakes_are_told() {
        check("[back_ends]\nbe-2 = \"https://x\"\n", &["back_ends"]);
        for url in ["ftp://x", "x", "http://x/path", "http://user@x", "http://x?q"] {
            check(
                &format!("[placement]\nmap = \"/nowhere\"\nback_end = \"a\"\n[back_ends]\nb = \"{url}\"\n"),
                &["back_ends.b"],
            );
        }
        check(
            "[placement]\nmap = \"/nowhere\"\nback_end = \"B\"\n[back_ends]\nb = \"http://x\"\n",
            &["placement.back_end"],
        );
        check("[placement]\nmap = \"/nowhere\"\nback_end = \"a\"\n", &["placement.map"]);
        check("https_listen = \"127.0.0.1:0\"\n", &["https_listen"]);
        check("[tls]\ncertificate = \"/nowhere\"\n", &["tls.certificate"]);
        check("token_key_file = \"/nowhere\"\n", &["token_key_file"]);
    }
}
