//! `fe.toml`: the file as written becomes a checked [`Config`], or a list of all its mistakes.
//!
//! Settings keep the names an Exchange administrator knows, all in seconds. Unknown keys are
//! mistakes. [`TEMPLATE`] is the commented file of defaults that `--print-config` writes.

mod devices;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use directpush_common::config::{Mistake, Mistakes};
use directpush_common::config::{Origin, Section};
use directpush_common::placement::Placement;
use directpush_common::push::heartbeat::{
    HEARTBEAT_SECS_CAP, HeartbeatLimits, MAX_HEARTBEAT_SECS, MIN_HEARTBEAT_SECS,
};

use crate::backend::call::MAIL_BYTES_MAX;
use crate::backend::tls::{self, TlsFiles};
use crate::throttle::Rates;

pub use devices::{DeviceLists, DeviceRule};

/// The commented defaults.
pub const TEMPLATE: &str = include_str!("fe.toml");

/// A secret that does not show itself.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `change_delay`: how long changes other than additions may wait before they wake a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeDelay {
    /// Seconds.
    Secs(u32),
    /// They never wake: [MS-ASCMD] 3.1.5.8 to the letter.
    Never,
}

/// One `[[backend]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendConfig {
    /// In logs.
    pub name: String,
    /// `http://host:port` or `https://host:port`, without a slash at the end.
    pub url: String,
    /// Mail domains whose users live here, lower case.
    pub domains: Vec<String>,
    /// Takes users of every other domain, and of none.
    pub default: bool,
    /// Addresses its NOTIFYs come from; empty = those of the url's host.
    pub notify_from: Vec<IpAddr>,
}

/// A front end's whole configuration, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// This front end's name, as the back ends know it.
    pub name: String,
    /// What proves it to them.
    pub secret: Secret,
    /// Where devices reach us.
    pub http_listen: Vec<SocketAddr>,
    /// Address of the UDP socket.
    pub udp_listen: IpAddr,
    /// Its port; 0 = any (tests).
    pub udp_listen_port: u16,
    /// This front end's own name in Call-Back, never the balanced one.
    pub call_back_host: String,
    /// The back ends.
    pub backends: Vec<BackendConfig>,
    /// Files for those that are reached by HTTPS.
    pub backend_tls: TlsFiles,
    /// The file with the map from users to back ends; none = `domains` and `default` of the back ends are the map.
    pub placement_file: Option<PathBuf>,
    /// The map, by places in `backends`.
    pub placement: Placement,
    /// Push is on at all.
    pub direct_push: bool,
    /// The bounds of the heartbeat.
    pub heartbeat: HeartbeatLimits,
    /// The configured bounds contradicted each other: event 3016, and `heartbeat` has the defaults.
    pub heartbeat_conflict: bool,
    /// The bounds as the file has them, in seconds.
    pub heartbeat_as_written: (u32, u32),
    /// Samples in the window of event 3033.
    pub hbi_sample_size: u32,
    /// Event 3033 at this average or below, in seconds.
    pub hbi_alert_threshold: u32,
    /// Folders in one Ping.
    pub max_folders: u32,
    /// Seconds between two POLLs of a back end.
    pub poll_interval: u32,
    /// See [`ChangeDelay`].
    pub change_delay: ChangeDelay,
    /// Devices of one user that may wait at this front end.
    pub max_devices_per_user: u32,
    /// Pings that one user's devices may establish in a minute.
    pub max_pings_per_user_and_minute: u32,
    /// Where devices reach the service, as `https://host`; none = as they call us.
    pub public_url: Option<String>,
    /// Which devices may come.
    pub devices: DeviceLists,
    /// How often a device may ask.
    pub throttle: Rates,
    /// Connections of devices.
    pub max_connections: u32,
    /// Bytes of a message that a device sends, at most.
    pub mail_bytes: usize,
    /// Plain HTTP beyond this host.
    pub allow_plaintext: bool,
    /// Where the W3C access log goes.
    pub access_log: Option<PathBuf>,
    /// A filter as `tracing` knows them.
    pub log_level: String,
}

impl Config {
    /// A configuration for this host alone, with ports of the system's choice: tests and the demo.
    pub fn local(name: &str, secret: &str, backends: Vec<BackendConfig>) -> Self {
        Self {
            name: name.to_owned(),
            secret: Secret(secret.to_owned()),
            http_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            udp_listen: Ipv4Addr::LOCALHOST.into(),
            udp_listen_port: 0,
            call_back_host: "127.0.0.1".to_owned(),
            placement: placement_of(&backends).unwrap_or_default(),
            backends,
            backend_tls: TlsFiles::default(),
            placement_file: None,
            direct_push: true,
            heartbeat: HeartbeatLimits::default(),
            heartbeat_conflict: false,
            heartbeat_as_written: (MIN_HEARTBEAT_SECS, MAX_HEARTBEAT_SECS),
            hbi_sample_size: 200,
            hbi_alert_threshold: 540,
            max_folders: 200,
            poll_interval: 60,
            change_delay: ChangeDelay::Secs(300),
            max_devices_per_user: 100,
            max_pings_per_user_and_minute: 600,
            public_url: None,
            devices: DeviceLists::default(),
            throttle: Rates::unbounded(),
            max_connections: 200_000,
            mail_bytes: 25 << 20,
            allow_plaintext: false,
            access_log: None,
            log_level: "info".to_owned(),
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// All its mistakes at once.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(&text, &file),
            Err(error) => Err(Mistakes(vec![Mistake {
                file,
                line: 0,
                key: String::new(),
                what: format!("the file cannot be read: {error}"),
                cure: "name an existing file with --config; --print-config writes one to start from"
                    .to_owned(),
            }])),
        }
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// All its mistakes at once.
    pub fn from_toml(text: &str, file: &str) -> Result<Self, Mistakes> {
        let origin = Origin::new(text, file);
        let mut root = Section::parse(&origin)?;
        let mut config = Self::read(&mut root);
        root.finish();
        // The map names back ends, so that there must be some before it is read.
        let placement =
            if config.backends.is_empty() { Ok(Placement::default()) } else { config.read_placement() };
        let mut mistakes = origin.verdict().err().map(|told| told.0).unwrap_or_default();
        match placement {
            Ok(placement) => config.placement = placement,
            Err(told) => mistakes.extend(told.0),
        }
        if mistakes.is_empty() { Ok(config) } else { Err(Mistakes(mistakes)) }
    }

    /// Reads the map from users to back ends, as it is now.
    ///
    /// # Errors
    /// All its mistakes at once.
    pub fn read_placement(&self) -> Result<Placement, Mistakes> {
        let Some(path) = &self.placement_file else { return placement_of(&self.backends) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("the file cannot be read: {error}");
            let cure = "name an existing file: placement = \"/etc/directpush/placement\"".to_owned();
            Mistakes(vec![Mistake { file: file.clone(), line: 0, key: "placement".to_owned(), what, cure }])
        })?;
        let names: Vec<&str> = self.backends.iter().map(|backend| backend.name.as_str()).collect();
        Placement::parse(&text, &file, &names)
    }

    fn read(root: &mut Section<'_>) -> Self {
        let defaults = Self::local("fe", "", Vec::new());
        let allow_plaintext = root.bool("allow_plaintext", false);
        let min = root.secs("min_heartbeat_interval", 1..=HEARTBEAT_SECS_CAP, MIN_HEARTBEAT_SECS);
        let max = root.secs("max_heartbeat_interval", 1..=u32::MAX, MAX_HEARTBEAT_SECS);
        let heartbeat = HeartbeatLimits::new(min, max);
        let placement_file = root.string("placement").filter(|path| !path.is_empty()).map(PathBuf::from);
        let backends = read_backends(root, allow_plaintext, placement_file.is_some());
        Self {
            name: root
                .required("name", "this front end's name, the one the back end was told: name = \"fe-1\""),
            secret: read_secret(root),
            http_listen: read_listen(root, allow_plaintext),
            udp_listen: root.parsed(
                "udp_listen",
                Ipv4Addr::UNSPECIFIED.into(),
                "an address: udp_listen = \"0.0.0.0\"",
            ),
            udp_listen_port: u16::try_from(root.secs("udp_listen_port", 1..=65_535, 2883)).unwrap_or(2883),
            call_back_host: read_call_back_host(root),
            backend_tls: read_backend_tls(root, &backends),
            backends,
            placement_file,
            placement: Placement::default(),
            direct_push: root.bool("direct_push", true),
            heartbeat: heartbeat.unwrap_or_default(),
            heartbeat_conflict: heartbeat.is_none(),
            heartbeat_as_written: (min, max),
            hbi_sample_size: root.secs("hbi_sample_size", 1..=1_000_000, 200),
            hbi_alert_threshold: root.secs("hbi_alert_threshold", 0..=HEARTBEAT_SECS_CAP, 540),
            max_folders: root.secs("max_folders", 1..=1000, 200),
            poll_interval: root.secs("poll_interval", 1..=3600, 60),
            change_delay: read_change_delay(root),
            max_devices_per_user: root.secs(
                "max_devices_per_user",
                1..=1_000_000,
                defaults.max_devices_per_user,
            ),
            max_pings_per_user_and_minute: root.secs(
                "max_pings_per_user_and_minute",
                1..=1_000_000,
                defaults.max_pings_per_user_and_minute,
            ),
            public_url: read_public_url(root),
            devices: devices::read_lists(root),
            throttle: devices::read_rates(root),
            max_connections: root.secs("max_connections", 1..=10_000_000, defaults.max_connections),
            mail_bytes: usize::try_from(root.number(
                "mail_bytes",
                64 << 10..=MAIL_BYTES_MAX as u64,
                defaults.mail_bytes as u64,
            ))
            .unwrap_or(defaults.mail_bytes),
            allow_plaintext,
            access_log: root.string("access_log").filter(|path| !path.is_empty()).map(PathBuf::from),
            log_level: root.string("log_level").unwrap_or_else(|| "info".to_owned()),
        }
    }
}

fn read_secret(root: &mut Section<'_>) -> Secret {
    match (root.string("secret"), root.string("secret_file")) {
        (Some(secret), None) if secret.len() >= 16 => Secret(secret),
        (Some(_), None) => {
            root.mistake(
                "secret",
                "is shorter than 16 characters",
                "write a random one, the same as on the back end",
            );
            Secret(String::new())
        }
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().len() >= 16 => Secret(text.trim().to_owned()),
            Ok(_) => {
                root.mistake(
                    "secret_file",
                    "holds fewer than 16 characters",
                    "write a random secret into it",
                );
                Secret(String::new())
            }
            Err(error) => {
                root.mistake(
                    "secret_file",
                    &format!("cannot be read: {error}"),
                    "name a file that this user can read",
                );
                Secret(String::new())
            }
        },
        (Some(_), Some(_)) => {
            root.mistake("secret", "stands beside secret_file", "keep one of the two");
            Secret(String::new())
        }
        (None, None) => {
            root.mistake("secret", "is missing", "write secret_file = \"/etc/directpush/fe.secret\"");
            Secret(String::new())
        }
    }
}

fn read_listen(root: &mut Section<'_>, allow_plaintext: bool) -> Vec<SocketAddr> {
    let cure = "an address and a port: http_listen = [\"127.0.0.1:8080\"]";
    let addresses: Vec<SocketAddr> = root.list("http_listen", &["127.0.0.1:8080"], cure);
    if !allow_plaintext && addresses.iter().any(|address| !address.ip().is_loopback()) {
        root.mistake(
            "http_listen",
            "would take passwords in plain text from other hosts",
            "listen on 127.0.0.1 behind a TLS proxy, or write allow_plaintext = true",
        );
    }
    addresses
}

fn read_call_back_host(root: &mut Section<'_>) -> String {
    let cure = "this host's own name as the back ends resolve it: call_back_host = \"fe-1.example.com\"";
    let host = root.required("call_back_host", cure);
    let fits = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if !fits || host.len() > 200 {
        root.mistake("call_back_host", "is neither a host name nor an IPv4 address", cure);
    }
    host
}

fn read_public_url(root: &mut Section<'_>) -> Option<String> {
    let url = root.string("public_url")?;
    let url = url.trim_end_matches('/').to_owned();
    let fits = reqwest::Url::parse(&url).is_ok_and(|parsed| {
        parsed.scheme() == "https"
            && parsed.path() == "/"
            && parsed.query().is_none()
            && parsed.host().is_some()
    });
    if !fits {
        root.mistake(
            "public_url",
            "is not of the form https://host",
            "public_url = \"https://mail.example.com\"",
        );
    }
    Some(url)
}

fn read_change_delay(root: &mut Section<'_>) -> ChangeDelay {
    if root.is_string("change_delay") {
        if root.string("change_delay").as_deref() != Some("never") {
            root.mistake("change_delay", "is neither seconds nor \"never\"", "write change_delay = 300");
        }
        return ChangeDelay::Never;
    }
    ChangeDelay::Secs(root.secs("change_delay", 0..=HEARTBEAT_SECS_CAP, 300))
}

/// The map that `domains` and `default` of the back ends are.
fn placement_of(backends: &[BackendConfig]) -> Result<Placement, Mistakes> {
    // By number, because a name may hold what the map's lines cannot.
    let numbers: Vec<String> = (0..backends.len()).map(|number| number.to_string()).collect();
    let mut lines = String::new();
    for (number, backend) in numbers.iter().zip(backends) {
        for domain in &backend.domains {
            lines.push_str(&format!("@{domain} {number}\n"));
        }
        if backend.default {
            lines.push_str(&format!("* {number}\n"));
        }
    }
    Placement::parse(
        &lines,
        "domains of the back ends",
        &numbers.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn read_backend_tls(root: &mut Section<'_>, backends: &[BackendConfig]) -> TlsFiles {
    let Some(mut section) = root.table("backend_tls") else { return TlsFiles::default() };
    let mut path = |key| section.string(key).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    if certificate.is_some() != key.is_some() {
        section.mistake("certificate", "stands without key, or key without it", "write both, or neither");
    }
    let files = TlsFiles { ca, identity: certificate.zip(key) };
    if !backends.iter().any(|backend| backend.url.starts_with("https:")) {
        section.mistake(
            "ca",
            "is for https, which no back end has",
            "write url = \"https://...\" in [[backend]]",
        );
    } else if let Err(error) = tls::client(&files) {
        section.mistake(
            "ca",
            &format!("or another of these files: {error}"),
            "name PEM files that this user can read",
        );
    }
    section.finish();
    files
}

fn read_backends(root: &mut Section<'_>, allow_plaintext: bool, placed: bool) -> Vec<BackendConfig> {
    let mut backends = Vec::new();
    for mut section in root.tables("backend") {
        let url = section.required("url", "where it listens: url = \"http://127.0.0.1:8081\"");
        let url = url.trim_end_matches('/').to_owned();
        match reqwest::Url::parse(&url) {
            _ if url.is_empty() => {}
            Ok(parsed)
                if matches!(parsed.scheme(), "http" | "https")
                    && parsed.host_str().is_some()
                    && parsed.path() == "/" =>
            {
                let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
                let local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
                if parsed.scheme() == "http" && !local && !allow_plaintext {
                    section.mistake(
                        "url",
                        "would carry mail in plain text to another host",
                        "write https://, or protect the link and write allow_plaintext = true",
                    );
                }
            }
            _ => section.mistake(
                "url",
                "is not of the form http://host:port or https://host:port",
                "url = \"http://127.0.0.1:8081\"",
            ),
        }
        let cure = "addresses: notify_from = [\"192.0.2.7\"]";
        backends.push(BackendConfig {
            name: section.string("name").unwrap_or_else(|| url.clone()),
            url,
            domains: section
                .list::<String>("domains", &[], "domains = [\"example.com\"]")
                .into_iter()
                .map(|domain| domain.to_lowercase())
                .collect(),
            default: section.bool("default", false),
            notify_from: section.list("notify_from", &[], cure),
        });
        let last = &backends[backends.len() - 1];
        if placed && (last.default || !last.domains.is_empty()) {
            section.mistake(
                "domains",
                "or default stands beside placement, which is the whole map",
                "write @domain lines and a * line into the map",
            );
        }
        if backends[..backends.len() - 1].iter().any(|other| other.name == last.name) {
            section.mistake("name", "is another back end's too", "give each its own name");
        }
        section.finish();
    }
    match backends.len() {
        0 => root.mistake("backend", "is missing", "write [[backend]] with its url"),
        _ if placed => {}
        1 => backends[0].default = true,
        _ if backends.iter().filter(|backend| backend.default).count() != 1 => {
            root.mistake("backend", "needs one default", "write default = true in exactly one [[backend]]");
        }
        _ => {}
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = \"fe-1\"\nsecret = \"0123456789abcdef\"\ncall_back_host = \"fe-1.example\"\n\
        [[backend]]\nurl = \"http://127.0.0.1:8081\"\n";

    #[test]
    fn the_least_file_gives_the_defaults() {
        let config = Config::from_toml(LEAST, "fe.toml").unwrap();
        assert_eq!(
            (config.heartbeat.min(), config.heartbeat.max(), config.udp_listen_port),
            (60, 2700, 2883)
        );
        assert_eq!(config.change_delay, ChangeDelay::Secs(300));
        assert_eq!(config.throttle, Rates::default());
        assert!(config.backends[0].default);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn the_template_is_a_valid_file_with_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("fe.secret");
        std::fs::write(&secret, "0123456789abcdef\n").unwrap();
        let text = TEMPLATE.replace("/etc/directpush/fe.secret", secret.to_str().unwrap());
        let config = Config::from_toml(&text, "fe.toml").unwrap();
        let least = Config::from_toml(LEAST, "fe.toml").unwrap();
        assert_eq!(
            Config {
                access_log: None,
                backends: Vec::new(),
                placement: Placement::default(),
                call_back_host: String::new(),
                ..config
            },
            Config {
                backends: Vec::new(),
                placement: Placement::default(),
                call_back_host: String::new(),
                ..least
            }
        );
    }

    #[test]
    fn a_message_that_may_be_sent_may_be_fetched() {
        let of = |bytes: usize| Config::from_toml(&format!("mail_bytes = {bytes}\n{LEAST}"), "fe.toml");
        assert_eq!(of(MAIL_BYTES_MAX).unwrap().mail_bytes, MAIL_BYTES_MAX);
        assert!(of(MAIL_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn every_mistake_is_told_at_once_with_line_and_cure() {
        let text = "name = 5\nmin_heartbeat_interval = 0\npoll_intervall = 60\nchange_delay = \"soon\"\n\
            http_listen = [\"0.0.0.0:80\"]\ncall_back_host = \"a b\"\n[[backend]]\nurl = \"ftp://be\"\nextra = 1\n";
        let Mistakes(mistakes) = Config::from_toml(text, "fe.toml").unwrap_err();
        let found: Vec<_> = mistakes.iter().map(|it| (it.line, it.key.as_str())).collect();
        for expected in [
            (1, "name"),
            (2, "min_heartbeat_interval"),
            (3, "poll_intervall"),
            (4, "change_delay"),
            (5, "http_listen"),
            (6, "call_back_host"),
            (8, "backend.url"),
            (9, "backend.extra"),
        ] {
            assert!(found.contains(&expected), "{expected:?} not in {found:?}");
        }
        assert!(found.iter().any(|(_, key)| *key == "secret"));
        assert!(mistakes.iter().all(|it| !it.cure.is_empty()));
    }

    #[test]
    fn devices_and_their_rates_are_read_and_their_mistakes_told() {
        let text = format!(
            "public_url = \"https://mail.example.com/\"\n{LEAST}[devices]\ndeny = [\"type:Old*\"]\n\
             [throttle]\npings_per_minute = 5\n"
        );
        let config = Config::from_toml(&text, "fe.toml").unwrap();
        assert_eq!(config.public_url.as_deref(), Some("https://mail.example.com"));
        assert_eq!((config.devices.deny.len(), config.throttle.pings), (1, 5));
        let text = format!(
            "public_url = \"mail\"\n{LEAST}[devices]\ndeny = [\"Old\"]\n[throttle]\nmax_delay = 5\nper = 1\n"
        );
        let Mistakes(mistakes) = Config::from_toml(&text, "fe.toml").unwrap_err();
        let keys: Vec<_> = mistakes.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["public_url", "devices.deny", "throttle.max_delay", "throttle.per"]);
    }

    #[test]
    fn contradicting_heartbeats_are_no_mistake_but_event_3016() {
        let text = format!("min_heartbeat_interval = 600\nmax_heartbeat_interval = 300\n{LEAST}");
        let config = Config::from_toml(&text, "fe.toml").unwrap();
        assert!(config.heartbeat_conflict);
        assert_eq!(config.heartbeat, HeartbeatLimits::default());
    }

    #[test]
    fn a_file_that_is_no_toml_names_its_line() {
        let Mistakes(mistakes) = Config::from_toml("name = \"a\"\nb = = 1\n", "fe.toml").unwrap_err();
        assert_eq!((mistakes.len(), mistakes[0].line), (1, 2));
    }
}
