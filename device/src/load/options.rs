//! The arguments of `directpush load`, and the accounts that they name.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use directpush_common::eas::Version;

use super::fleet::Account;
use crate::lmtp::LmtpAddress;

/// `directpush load`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// A front end, `http://host:port`; several share the devices
    #[arg(long, required = true, num_args = 1..)]
    pub(super) fe: Vec<String>,
    /// Where the back end takes LMTP: host:port, or the path of a unix socket
    #[arg(long = "lmtp", alias = "be-lmtp")]
    pub(super) lmtp: LmtpAddress,
    /// Users by pattern: `load-@bench` means load-0@bench, load-1@bench …; the password comes from DIRECTPUSH_PASSWORD
    #[arg(long, conflicts_with = "users_file")]
    pub(super) users: Option<String>,
    /// Users by file: a user and the password on each line
    #[arg(long)]
    pub(super) users_file: Option<PathBuf>,
    #[arg(long, default_value_t = 100)]
    pub(super) devices: usize,
    /// Devices of one user; a message wakes all of them
    #[arg(long, default_value_t = 1)]
    pub(super) devices_per_user: usize,
    /// Folders that each device watches
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(super) folders: u8,
    /// Source addresses, 127.0.0.2 and up; 0 = the system chooses
    #[arg(long, alias = "source-addresses", default_value_t = 0)]
    pub(super) sources: u8,
    /// Seconds of the devices' heartbeat
    #[arg(long, default_value_t = 480)]
    pub(super) heartbeat: u32,
    #[arg(long, default_value = "14.1")]
    pub(super) protocol: Version,
    #[arg(long, value_enum, default_value_t = Mode::Wake)]
    pub(super) mode: Mode,
    /// Messages of mode wake
    #[arg(long, default_value_t = 100)]
    pub(super) messages: usize,
    /// Messages per second of mode wake; without it one at a time
    #[arg(long)]
    pub(super) rate: Option<u32>,
    /// Seconds of modes idle and deliver
    #[arg(long, default_value_t = 10)]
    pub(super) secs: u32,
    /// LMTP connections of mode deliver
    #[arg(long, default_value_t = 64)]
    pub(super) connections: usize,
    /// Reports as lines of JSON, no progress bar
    #[arg(long)]
    pub(super) json: bool,
    /// Waits for a line on standard input before each phase
    #[arg(long)]
    pub(super) step: bool,
    /// Takes commands from standard input (see the documentation of `load`)
    #[arg(long)]
    pub(super) steered: bool,
}

/// What a load does by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Mode {
    /// Park, then send messages and time them
    Wake,
    /// Park, and nothing else: how long it takes
    Establish,
    /// Park and wait
    Idle,
    /// Messages only
    Deliver,
    /// Park, then one message for every device
    All,
}

/// The users of the load, with their passwords.
pub(super) fn accounts(options: &Options, users: usize) -> anyhow::Result<Vec<Account>> {
    if let Some(path) = &options.users_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let accounts: Vec<Account> = text
            .lines()
            .filter_map(|line| line.trim().split_once(char::is_whitespace))
            .map(|(user, password)| Account { user: user.to_owned(), password: password.trim().to_owned() })
            .take(users)
            .collect();
        ensure!(
            accounts.len() == users,
            "{}: {users} users are needed, one with the password per line; there are {}",
            path.display(),
            accounts.len()
        );
        return Ok(accounts);
    }
    let pattern = options.users.as_deref().context("say who the users are: --users or --users-file")?;
    let (prefix, domain) =
        pattern.split_once('@').context("--users is a pattern such as load-@example.com")?;
    let password =
        std::env::var("DIRECTPUSH_PASSWORD").context("the password is taken from DIRECTPUSH_PASSWORD")?;
    let account = |n| Account { user: format!("{prefix}{n}@{domain}"), password: password.clone() };
    Ok((0..users).map(account).collect())
}
