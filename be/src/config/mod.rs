//! The configuration of a back end: `be.toml` as written becomes a checked [`Config`], or a list of all
//! its mistakes with file, line, key and cure.

mod file;
pub mod mail;
pub mod place;
pub mod policy;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::mailbox::quota::Quota;

use directpush_common::push::ledger::WAKES_PER_MINUTE;

pub use directpush_common::config::{Mistake, Mistakes};
pub use file::{QUOTA_BYTES_MAX, QUOTA_ITEMS_MAX, SECRET_CHARS_MIN, TEMPLATE, is_front_end_name};
use mail::{MailSettings, SubmissionSettings};
use place::{PlacementSettings, TlsSettings, TokenKey};
use policy::Policies;

use crate::submission::queue::smart_host::SmartHostSettings;

/// Everything a back end is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that lasts is kept.
    pub state_dir: PathBuf,
    pub engine: Engine,
    /// What the store may cache, in bytes.
    pub cache_bytes: u64,
    pub http_listen: SocketAddr,
    /// Where HTTPS is; none = nowhere.
    pub tls: Option<TlsSettings>,
    /// Where users are that are not here; none = everybody is.
    pub placement: Option<PlacementSettings>,
    /// What back ends share so that they take each other's act-for tokens.
    pub token_key: Option<TokenKey>,
    pub lmtp_listen: Vec<LmtpListen>,
    /// The administrator's socket (mode 0600); none = no such socket.
    pub admin_socket: Option<PathBuf>,
    pub front_ends: Vec<FrontEnd>,
    /// `user` and `user@<this>` are the same user.
    pub default_domain: Option<String>,
    pub access_log: AccessLog,
    /// How mail comes in.
    pub mail: MailSettings,
    /// How mail leaves.
    pub submission: SubmissionSettings,
    /// Where mail for other hosts goes; none = such mail is refused.
    pub smart_host: Option<SmartHostSettings>,
    pub limits: Limits,
    /// What a mailbox may hold, unless it has a quota of its own.
    pub quota: Quota,
    /// What is demanded of devices.
    pub policies: Arc<Policies>,
    /// What `tracing` shows: `info`, `directpush_be=debug`, …
    pub log: String,
}

/// Which store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    Sled,
    /// Gone with the process: for tests.
    Memory,
}

/// Where mail comes in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpListen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A front end that may ask.
#[derive(Clone)]
pub struct FrontEnd {
    pub name: String,
    /// At least 16 characters; never logged.
    pub secret: String,
    /// The only host its Call-Backs may name.
    pub call_back_host: String,
    /// The only ports.
    pub call_back_ports: Vec<u16>,
}

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontEnd").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLog {
    None,
    Stdout,
    File(PathBuf),
}

/// Bounds on what peers can make us hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// HTTP connections at once.
    pub connections_max: usize,
    /// HTTP connections at once of one address that is no front end's.
    pub connections_per_address_max: usize,
    /// LMTP connections at once.
    pub lmtp_connections_max: usize,
    /// A message or another item, in bytes.
    pub mail_bytes_max: u64,
    /// Recipients of one LMTP transaction.
    pub recipients_max: usize,
    /// Bodies that are being read or sent, all together, in bytes.
    pub bodies_in_memory_bytes_max: u64,
    /// Subscriptions of one mailbox.
    pub subscriptions_per_mailbox_max: usize,
    /// Devices of one user.
    pub devices_per_user_max: usize,
    /// Subscriptions in all.
    pub subscriptions_max: usize,
    /// NOTIFY datagrams per second to one front end process, on average.
    pub datagrams_per_second: u32,
    /// How often a device is woken in a minute, on average, and at once after a quiet time; 0 = no bound.
    pub wakes_per_minute: u32,
    /// How long a request's header may take, and its body without progress, in seconds.
    pub request_secs: u64,
    /// How long a front end's connection may be idle between requests, in seconds. A user's at most five minutes, one
    /// that has proved nothing at most `request_secs`.
    pub idle_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_address_max: 256,
            lmtp_connections_max: 128,
            mail_bytes_max: 25 * 1024 * 1024,
            recipients_max: 1000,
            bodies_in_memory_bytes_max: 256 * 1024 * 1024,
            subscriptions_per_mailbox_max: 2000,
            devices_per_user_max: 177,
            subscriptions_max: 2_000_000,
            datagrams_per_second: 50_000,
            wakes_per_minute: WAKES_PER_MINUTE,
            request_secs: 30,
            idle_secs: 3600,
        }
    }
}

impl Config {
    /// A configuration for tests and demonstrations: loopback, ports chosen by the system, no access log.
    pub fn loopback(state_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            state_dir: state_dir.into(),
            engine: Engine::Sled,
            cache_bytes: 64 * 1024 * 1024,
            http_listen: any,
            tls: None,
            placement: None,
            token_key: None,
            lmtp_listen: vec![LmtpListen::Tcp(any)],
            admin_socket: None,
            front_ends: Vec::new(),
            default_domain: None,
            access_log: AccessLog::None,
            mail: MailSettings::default(),
            submission: SubmissionSettings::default(),
            smart_host: None,
            limits: Limits::default(),
            quota: Quota::default(),
            policies: Arc::default(),
            log: "info".into(),
        }
    }
}
