//! `[mail]`, `[submission]` and `[smart_host]` of `be.toml`: how mail comes in and leaves.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use directpush_common::config::Section;
use directpush_common::mail::fields::SpamMark;
use directpush_common::names::UserName;

use crate::auto_reply::AutoReplySettings;
use crate::submission::SubmissionLimits;
use crate::submission::queue::QueueSettings;
use crate::submission::queue::rate::HourlyLimits;
use crate::submission::queue::schedule::Times;
use crate::submission::queue::smart_host::{SmartHostSettings, Timeouts, Tls};

/// How mail comes in.
#[derive(Clone, Debug)]
pub struct MailSettings {
    /// This host's name: in greetings, `Received` and reports.
    pub host_name: String,
    /// Beside loopback, who may deliver by LMTP over TCP.
    pub lmtp_allow: Vec<Network>,
    /// What stands between a user and a tag in an address.
    pub delimiter: Option<char>,
    /// Who gets mail for addresses that nobody has.
    pub catch_all: Option<UserName>,
    /// Fields by which the MTA's filter marks spam.
    pub spam_marks: Vec<SpamMark>,
    /// How long the same Message-ID comes into the same mailbox once; zero: as often as it comes.
    pub duplicate_window: Duration,
    /// How often people who are away answer.
    pub auto_reply: AutoReplySettings,
}

/// How mail leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmissionSettings {
    pub limits: SubmissionLimits,
    pub queue: QueueSettings,
}

/// Addresses that begin alike: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        if bits <= all { Ok(Self { address, bits }) } else { Err(()) }
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            host_name: own_name(),
            lmtp_allow: Vec::new(),
            delimiter: Some('+'),
            catch_all: None,
            spam_marks: ["X-Spam-Flag: YES", "X-Spam: Yes"]
                .iter()
                .filter_map(|mark| mark.parse().ok())
                .collect(),
            duplicate_window: Duration::from_hours(1),
            auto_reply: AutoReplySettings::default(),
        }
    }
}

/// What the system calls this host.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if is_host_name(name.trim()) { name.trim().to_owned() } else { "localhost".to_owned() }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
}

pub(super) fn mail(root: &mut Section<'_>) -> MailSettings {
    let mut mail = MailSettings::default();
    let Some(mut section) = root.table("mail") else { return mail };
    if let Some(name) = section.string("host_name") {
        if !is_host_name(&name) {
            section.mistake("host_name", "is no host's name", "write host_name = \"mail.example.com\"");
        }
        mail.host_name = name;
    }
    mail.lmtp_allow =
        section.list("lmtp_allow", &[], "addresses or networks: lmtp_allow = [\"10.1.2.0/24\"]");
    match section
        .string("recipient_delimiter")
        .as_deref()
        .map(|text| (text.chars().next(), text.chars().count()))
    {
        None => {}
        Some((delimiter, 0 | 1)) if delimiter.is_none_or(|c| c.is_ascii_punctuation() && c != '@') => {
            mail.delimiter = delimiter;
        }
        Some(_) => section.mistake(
            "recipient_delimiter",
            "is not one sign",
            "write recipient_delimiter = \"+\", or \"\" for none",
        ),
    }
    if let Some(name) = section.string("catch_all").filter(|name| !name.is_empty()) {
        mail.catch_all = name.parse().ok();
        if mail.catch_all.is_none() {
            section.mistake(
                "catch_all",
                "cannot be a user",
                "name a user: catch_all = \"postmaster@example.com\"",
            );
        }
    }
    let marks: Vec<String> = mail.spam_marks.iter().map(ToString::to_string).collect();
    let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
    mail.spam_marks = section.list(
        "spam_headers",
        &marks,
        "fields as they are written: spam_headers = [\"X-Spam-Flag: YES\"]",
    );
    let window = mail.duplicate_window.as_secs();
    mail.duplicate_window = Duration::from_secs(section.number("duplicate_secs", 0..=30 * 86_400, window));
    let AutoReplySettings { window_secs, per_hour } = &mut mail.auto_reply;
    *window_secs = 86_400 * section.number("auto_reply_days", 1..=365, *window_secs / 86_400);
    *per_hour = section.secs("auto_replies_per_hour", 0..=10_000, *per_hour);
    section.finish();
    mail
}

pub(super) fn submission(root: &mut Section<'_>) -> SubmissionSettings {
    let mut settings = SubmissionSettings::default();
    let Some(mut section) = root.table("submission") else { return settings };
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let SubmissionSettings { limits, queue } = &mut settings;
    limits.recipients_max = size(section.number("recipients", 1..=10_000, limits.recipients_max as u64));
    let HourlyLimits { messages, recipients } = &mut limits.hourly;
    *messages = section.secs("messages_per_hour", 1..=1_000_000, *messages);
    *recipients = section.secs("recipients_per_hour", 1..=10_000_000, *recipients);
    let Times { queue_secs, warn_secs } = &mut queue.times;
    *queue_secs = 86_400 * section.number("queue_days", 1..=30, *queue_secs / 86_400);
    *warn_secs = 3600 * section.number("warn_hours", 1..=720, *warn_secs / 3600);
    queue.messages_max = size(section.number("queue_messages", 1..=1_000_000, queue.messages_max as u64));
    queue.messages_per_user_max =
        size(section.number("queue_messages_per_user", 1..=1_000_000, queue.messages_per_user_max as u64));
    queue.bytes_max = section.number("queue_bytes", 1 << 20..=1 << 50, queue.bytes_max);
    queue.connections_max = size(section.number("connections", 1..=100, queue.connections_max as u64));
    section.finish();
    settings
}

pub(super) fn smart_host(root: &mut Section<'_>, own_name: &str) -> Option<SmartHostSettings> {
    let mut section = root.table("smart_host")?;
    let host = section.required("host", "the host that takes our mail: host = \"smtp.example.com\"");
    let tls = match section.string("tls").as_deref() {
        None | Some("required") => Tls::Required,
        Some("implicit") => Tls::Implicit,
        Some("opportunistic") => Tls::Opportunistic,
        Some("none") => Tls::None,
        Some(_) => {
            section.mistake(
                "tls",
                "is not a way to use TLS",
                "write \"required\" (STARTTLS), \"implicit\", \"opportunistic\" or \"none\"",
            );
            Tls::Required
        }
    };
    let default = if tls == Tls::Implicit { 465 } else { 587 };
    let port = u16::try_from(section.number("port", 1..=65_535, default)).unwrap_or(587);
    let is_loopback = host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    if tls == Tls::None && !is_loopback && !host.is_empty() {
        section.mistake(
            "tls",
            "is \"none\" for another host",
            "use \"required\"; \"none\" is for a host on loopback",
        );
    }
    let ca = section.string("ca").and_then(|path| match std::fs::read(&path) {
        Ok(pem) => Some(pem),
        Err(error) => {
            section.mistake(
                "ca",
                &format!("cannot be read: {error}"),
                "name a PEM file that this user can read",
            );
            None
        }
    });
    let login = login(&mut section);
    if login.is_some() && tls == Tls::Opportunistic {
        section.mistake(
            "login",
            "would be told to whoever answers",
            "use tls = \"required\" with a login, so that the host proves who it is",
        );
    }
    let hello = section.string("hello").unwrap_or_else(|| own_name.to_owned());
    if !is_host_name(&hello) && hello.parse::<IpAddr>().is_err() {
        section.mistake("hello", "is no host's name", "write hello = \"mail.example.com\"");
    }
    section.finish();
    Some(SmartHostSettings { host, port, tls, ca, login, hello, timeouts: Timeouts::default() })
}

fn login(section: &mut Section<'_>) -> Option<(String, String)> {
    let cure = "write login = \"name\" and secret_file = \"/etc/directpush/smart-host.secret\"";
    let secret = section.string("secret_file").map(|path| match std::fs::read_to_string(&path) {
        Ok(text) => {
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                section.mistake("secret_file", "is empty", "write the password into it");
            }
            secret.to_owned()
        }
        Err(error) => {
            let what = format!("cannot be read: {error}");
            section.mistake("secret_file", &what, "name a file that this user can read");
            String::new()
        }
    });
    match (section.string("login"), secret) {
        (None, None) => None,
        (Some(name), Some(secret)) => Some((name, secret)),
        (Some(_), None) => {
            section.mistake("login", "has no password", cure);
            None
        }
        (None, Some(_)) => {
            section.mistake("secret_file", "has no login", cure);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn networks_hold_what_begins_alike() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let inside = |network: Network, address: &str| network.contains(address.parse().unwrap());
        assert!(inside(network("10.0.0.0/8"), "10.255.1.2") && !inside(network("10.0.0.0/8"), "11.0.0.1"));
        assert!(inside(network("10.0.0.0/8"), "::ffff:10.1.1.1"));
        assert!(inside(network("192.0.2.7"), "192.0.2.7") && !inside(network("192.0.2.7"), "192.0.2.6"));
        assert!(inside(network("2001:db8::/32"), "2001:db8::1") && !inside(network("::/128"), "::1"));
        assert!(inside(network("0.0.0.0/0"), "203.0.113.9") && !inside(network("0.0.0.0/0"), "::1"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "x/8", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_smart_host_is_read_and_its_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "open sesame\n").unwrap();
        let text = format!(
            "[smart_host]\nhost = \"smtp.example.com\"\nlogin = \"me\"\nsecret_file = {secret:?}\n\
             [mail]\nhost_name = \"be.example.com\"\nrecipient_delimiter = \"\"\n[submission]\nqueue_days = 2\n"
        );
        let config = Config::from_toml(&text, "be.toml").unwrap();
        let smart_host = config.smart_host.unwrap();
        assert_eq!(
            (smart_host.port, smart_host.tls, smart_host.hello.as_str()),
            (587, Tls::Required, "be.example.com")
        );
        assert_eq!(smart_host.login, Some(("me".to_owned(), "open sesame".to_owned())));
        assert_eq!((config.mail.delimiter, config.submission.queue.times.queue_secs), (None, 2 * 86_400));

        let text = "[smart_host]\nhost = \"smtp.example.com\"\ntls = \"none\"\nlogin = \"me\"\nca = \"/nowhere\"\n\
                    hello = \"a b\"\n[mail]\nrecipient_delimiter = \"ab\"\ncatch_all = \"a b\"\nlmtp_allow = \"x\"\n";
        let mistakes = Config::from_toml(text, "be.toml").unwrap_err();
        let told: Vec<_> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(
            told,
            [
                "smart_host.tls",
                "smart_host.login",
                "smart_host.ca",
                "smart_host.hello",
                "mail.recipient_delimiter",
                "mail.catch_all",
                "mail.lmtp_allow"
            ]
        );
    }
}
