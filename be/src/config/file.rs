//! `be.toml`, key by key. Every default has its reason in [`TEMPLATE`], which `--print-config` writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::{AccessLog, Config, Engine, FrontEnd, Limits, LmtpListen, mail, place, policy};
use crate::mailbox::folders::DEPTH_MAX;
use crate::mailbox::keys::FOLDERS_MAX;
use crate::mailbox::quota::Quota;
use crate::mailbox::state::DEVICES_MAX;
use directpush_common::config::{Mistake, Mistakes, Origin, Section};

/// The commented defaults.
pub const TEMPLATE: &str = include_str!("be.toml");

/// The largest quota that can be set, of bytes (1 PiB).
pub const QUOTA_BYTES_MAX: u64 = 1 << 50;
/// The largest quota that can be set, of items.
pub const QUOTA_ITEMS_MAX: u64 = 1 << 40;

/// Characters of a front end's secret, at least.
pub const SECRET_CHARS_MIN: usize = 16;
const STATE_DIR: &str = "/var/lib/directpush-be";

impl FromStr for LmtpListen {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(()),
            None => text.parse().map(Self::Tcp).map_err(|_| ()),
        }
    }
}

impl Config {
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
                cure: "name an existing file with --config; --print-config writes one to start from".into(),
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
        let config = read(&mut root);
        root.finish();
        origin.verdict()?;
        // The map names back ends: it is read when these are known to be right.
        if let Some(placement) = &config.placement {
            placement.read()?;
        }
        Ok(config)
    }
}

fn read(root: &mut Section<'_>) -> Config {
    let allow_plaintext = root.bool("allow_plaintext", false);
    let state_dir = PathBuf::from(root.string("state_dir").unwrap_or_else(|| STATE_DIR.into()));
    let admin_socket =
        root.string("admin_socket").map_or_else(|| state_dir.join("admin.sock"), PathBuf::from);
    let (engine, cache_bytes) = store(root);
    let mail = mail::mail(root);
    Config {
        engine,
        cache_bytes,
        http_listen: http_listen(root, allow_plaintext),
        tls: place::tls(root),
        placement: place::placement(root),
        token_key: place::token_key(root),
        lmtp_listen: lmtp_listen(root, allow_plaintext, !mail.lmtp_allow.is_empty()),
        submission: mail::submission(root),
        smart_host: mail::smart_host(root, &mail.host_name),
        mail,
        admin_socket: Some(admin_socket),
        front_ends: front_ends(root),
        default_domain: default_domain(root),
        access_log: match root.string("access_log").as_deref() {
            None | Some("") => AccessLog::None,
            Some("-") => AccessLog::Stdout,
            Some(path) => AccessLog::File(path.into()),
        },
        limits: limits(root),
        quota: quota(root),
        policies: Arc::new(policy::policies(root)),
        log: root.string("log_level").unwrap_or_else(|| "info".into()),
        state_dir,
    }
}

fn http_listen(root: &mut Section<'_>, allow_plaintext: bool) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8008));
    let address =
        root.parsed("http_listen", default, "an address and a port: http_listen = \"127.0.0.1:8008\"");
    plaintext(root, "http_listen", address, allow_plaintext);
    address
}

fn plaintext(root: &Section<'_>, key: &str, address: SocketAddr, allowed: bool) {
    if !allowed && !address.ip().is_loopback() {
        root.mistake(
            key,
            "is reached from other hosts, unencrypted",
            "listen on loopback, or write allow_plaintext = true if the network between is trusted",
        );
    }
}

fn lmtp_listen(root: &mut Section<'_>, allow_plaintext: bool, allows: bool) -> Vec<LmtpListen> {
    let cure =
        "a socket or an address: lmtp_listen = [\"unix:/run/directpush-be/lmtp.sock\", \"127.0.0.1:24\"]";
    let listen = root.list("lmtp_listen", &["unix:/run/directpush-be/lmtp.sock"], cure);
    for at in &listen {
        if let LmtpListen::Tcp(address) = at {
            plaintext(root, "lmtp_listen", *address, allow_plaintext);
            if !allows && !address.ip().is_loopback() {
                root.mistake(
                    "lmtp_listen",
                    "is reached from other hosts, and none of them may deliver",
                    "name the MTA: lmtp_allow = [\"192.0.2.1\"] in [mail]",
                );
            }
        }
    }
    listen
}

fn default_domain(root: &mut Section<'_>) -> Option<String> {
    let domain = root.string("default_domain")?.to_lowercase();
    let form_ok = !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.') || !b.is_ascii());
    if !form_ok {
        root.mistake("default_domain", "is no mail domain", "write default_domain = \"example.com\"");
    }
    Some(domain)
}

fn store(root: &mut Section<'_>) -> (Engine, u64) {
    let defaults = Config::loopback("");
    let Some(mut section) = root.table("store") else { return (defaults.engine, defaults.cache_bytes) };
    let engine = match section.string("engine").as_deref() {
        None | Some("sled") => Engine::Sled,
        Some("memory") => Engine::Memory,
        Some(_) => {
            section.mistake("engine", "is not an engine", "write engine = \"sled\"");
            Engine::Sled
        }
    };
    let cache_bytes = section.number("cache_bytes", 1 << 20..=1 << 44, defaults.cache_bytes);
    section.finish();
    (engine, cache_bytes)
}

fn limits(root: &mut Section<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = root.table("limits") else { return limits };
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut read = |key: &str, low: u64, high: u64, default: u64| section.number(key, low..=high, default);
    limits.connections_max = size(read("connections", 1, 1_000_000, limits.connections_max as u64));
    limits.connections_per_address_max =
        size(read("connections_per_address", 1, 1_000_000, limits.connections_per_address_max as u64));
    limits.lmtp_connections_max =
        size(read("lmtp_connections", 1, 100_000, limits.lmtp_connections_max as u64));
    limits.mail_bytes_max = read("mail_bytes", 64 << 10, 1 << 30, limits.mail_bytes_max);
    limits.recipients_max = size(read("recipients", 1, 100_000, limits.recipients_max as u64));
    limits.bodies_in_memory_bytes_max =
        read("bodies_in_memory_bytes", 1 << 20, 1 << 40, limits.bodies_in_memory_bytes_max);
    limits.subscriptions_per_mailbox_max =
        size(read("subscriptions_per_mailbox", 1, 1_000_000, limits.subscriptions_per_mailbox_max as u64));
    limits.devices_per_user_max =
        size(read("devices_per_user", 1, DEVICES_MAX as u64, limits.devices_per_user_max as u64));
    limits.subscriptions_max = size(read("subscriptions", 1, 100_000_000, limits.subscriptions_max as u64));
    let datagrams = read("datagrams_per_second", 1, 1_000_000, limits.datagrams_per_second.into());
    limits.datagrams_per_second = u32::try_from(datagrams).unwrap_or(u32::MAX);
    let wakes = read("wakes_per_minute", 0, 60_000, limits.wakes_per_minute.into());
    limits.wakes_per_minute = u32::try_from(wakes).unwrap_or(u32::MAX);
    limits.request_secs = read("request_secs", 1, 3600, limits.request_secs);
    limits.idle_secs = read("idle_secs", 1, 7 * 86_400, limits.idle_secs);
    section.finish();
    limits
}

fn quota(root: &mut Section<'_>) -> Quota {
    let mut quota = Quota::default();
    let Some(mut section) = root.table("quota") else { return quota };
    quota.bytes = section.number("bytes", 0..=QUOTA_BYTES_MAX, quota.bytes);
    quota.items = section.number("items", 0..=QUOTA_ITEMS_MAX, quota.items);
    quota.folders = section.number("folders", 0..=FOLDERS_MAX as u64, quota.folders);
    quota.depth = section.number("depth", 0..=DEPTH_MAX as u64, quota.depth);
    quota.property_bytes = section.number("property_bytes", 0..=QUOTA_BYTES_MAX, quota.property_bytes);
    quota.warning_percent = section.number("warning_percent", 1..=100, quota.warning_percent);
    section.finish();
    quota
}

fn front_ends(root: &mut Section<'_>) -> Vec<FrontEnd> {
    let mut front_ends: Vec<FrontEnd> = Vec::new();
    for mut section in root.tables("front_end") {
        let name = section.required("name", "the name in its fe.toml: name = \"fe-1\"");
        if !is_front_end_name(&name) {
            section.mistake("name", "is no plain name", "choose letters, digits, hyphens and dots");
        }
        if front_ends.iter().any(|other| other.name == name) {
            section.mistake(
                "name",
                "is another front end's too",
                "give each front end its own name and secret",
            );
        }
        let secret = secret(&mut section);
        let call_back_host = section.required(
            "call_back_host",
            "the host its Call-Backs name: call_back_host = \"fe-1.example.com\"",
        );
        let call_back_ports = section.ports("call_back_ports", &[2883]);
        section.finish();
        front_ends.push(FrontEnd {
            name,
            secret,
            call_back_host: call_back_host.to_lowercase(),
            call_back_ports,
        });
    }
    front_ends
}

/// Whether a front end can be called that: it stands in a credential, in a certificate and in the name of a file.
pub fn is_front_end_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain)
}

fn secret(section: &mut Section<'_>) -> String {
    let (key, secret) = match (section.string("secret"), section.string("secret_file")) {
        (Some(_), Some(_)) => {
            section.mistake("secret", "stands beside secret_file", "keep one of the two");
            return String::new();
        }
        (None, None) => {
            section.mistake("secret", "is missing", "write secret_file = \"/etc/directpush/fe-1.secret\"");
            return String::new();
        }
        (Some(secret), None) => ("secret", secret),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => ("secret_file", text.trim().to_owned()),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                section.mistake("secret_file", &what, "name a file that this user can read");
                return String::new();
            }
        },
    };
    if secret.chars().count() < SECRET_CHARS_MIN {
        section.mistake(key, "is shorter than 16 characters", "use a random one: openssl rand -hex 32");
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_the_defaults() {
        let config = Config::from_toml(TEMPLATE, "be.toml").unwrap();
        let empty = Config::from_toml("", "be.toml").unwrap();
        assert_eq!(format!("{config:?}"), format!("{empty:?}"));
        // And uncommented it says the same, but for the front end and the settings that have no default.
        let uncommented: String = TEMPLATE
            .lines()
            .filter(|line| {
                let no_default = [
                    "# default_domain",
                    "# catch_all",
                    "# host_name",
                    "# login",
                    "# ca ",
                    "# hello",
                    "# https_listen",
                    "# certificate",
                    "# key",
                    "# client_ca",
                    "# map",
                    "# back_end",
                    "# be-2",
                    "# default =",
                    "# device_password_enabled",
                    "# min_device_password_length",
                    "# max_inactivity_time_device_lock",
                    "# allow_non_provisionable",
                ];
                let is_file = line.contains("secret_file") || line.contains("token_key_file");
                !no_default.iter().any(|key| line.starts_with(key)) && !is_file
            })
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") && !rest.starts_with('"') => format!("{rest}\n"),
                Some(rest) if rest.starts_with("[smart_host]") => format!("{rest}\n"),
                Some(rest) if rest.starts_with("[[") => format!("{rest}\nsecret = \"0123456789abcdef\"\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut full = Config::from_toml(&uncommented, "be.toml").unwrap();
        assert_eq!(full.front_ends.len(), 1);
        full.front_ends.clear();
        assert_eq!(full.smart_host.take().unwrap().host, "smtp.example.com");
        assert_eq!(format!("{full:?}"), format!("{empty:?}"));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_lines() {
        let text = "http_listen = \"0.0.0.0:80\"\nstate_dri = \"x\"\n[limits]\nmail_bytes = \"big\"\n\
                    [[front_end]]\nname = \"fe-1\"\nsecret = \"short\"\ncall_back_host = \"h\"\n\
                    [[front_end]]\nname = \"fe-1\"\n";
        let mistakes = Config::from_toml(text, "be.toml").unwrap_err();
        let told: Vec<_> = mistakes.0.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, "http_listen"),
                (2, "state_dri"),
                (4, "limits.mail_bytes"),
                (7, "front_end.secret"),
                (9, "front_end.secret"),
                (9, "front_end.call_back_host"),
                (10, "front_end.name"),
            ]
        );
        assert!(mistakes.to_string().contains("be.toml:2: state_dri is not a setting"));
    }
}
