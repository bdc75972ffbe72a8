//! `directpush device`: one device against any server, and its log.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use directpush_common::eas::{Version, folder_sync::FolderType, request_line::DeviceType};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Kind, Phone, Profile},
    drive::{Clock, Drive, basic, open_gate},
    http::Server,
    log::DeviceLog,
};

/// `directpush device`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The server, as `http://host[:port]`
    #[arg(long)]
    server: String,
    /// User name; the password is taken from DIRECTPUSH_PASSWORD, else asked for on the terminal or read as one line
    /// from standard input
    #[arg(long)]
    user: String,
    /// How it finds its heartbeat: windows-mobile, android, old-android or `fixed:SECONDS`
    #[arg(long, default_value = "windows-mobile")]
    strategy: Kind,
    /// The best protocol version it speaks: 2.5, 12.0, 12.1, 14.0 or 14.1 [default: the strategy's]
    #[arg(long)]
    protocol: Option<Version>,
    /// Up to 32 letters and digits, constant for a device
    #[arg(long, default_value = "6F24CAD599A5BF1A690246B8C68FAE8D")]
    device_id: String,
    /// [default: the strategy's]
    #[arg(long)]
    device_type: Option<String>,
    /// Writes the query as base64 (12.1 and up)
    #[arg(long)]
    base64: bool,
    /// Asks for a policy without being told to
    #[arg(long)]
    provision: bool,
    /// Folders to keep and to watch, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "inbox")]
    watch: Vec<Folder>,
    /// Shows the bodies as XML; they hold subjects and texts
    #[arg(long)]
    bodies: bool,
    /// Also writes `Ping Exchange Server 1.txt` into this directory; the two before it are kept
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// Ends after so many seconds [default: never]
    #[arg(long = "for")]
    secs: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Folder {
    Inbox,
    Drafts,
    Sent,
    Deleted,
    Outbox,
    Calendar,
    Contacts,
    Tasks,
    Notes,
}

impl Folder {
    fn kind(self) -> FolderType {
        match self {
            Self::Inbox => FolderType::Inbox,
            Self::Drafts => FolderType::Drafts,
            Self::Sent => FolderType::Sent,
            Self::Deleted => FolderType::Deleted,
            Self::Outbox => FolderType::Outbox,
            Self::Calendar => FolderType::Calendar,
            Self::Contacts => FolderType::Contacts,
            Self::Tasks => FolderType::Tasks,
            Self::Notes => FolderType::Notes,
        }
    }
}

/// Runs the device until it is stopped, or in trouble, which is the error.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut profile = Profile::new(&options.user, &options.device_id, options.strategy)
        .context("--device-id: up to 64 printable characters, none of them / \\ % or a blank")?;
    if let Some(version) = options.protocol {
        profile.version = version;
    }
    if let Some(device_type) = &options.device_type {
        profile.device_type = DeviceType::new(device_type).context("--device-type")?;
    }
    if options.base64 && !profile.version.has_base64_query() {
        bail!("--base64 needs --protocol 12.1 or later");
    }
    profile.base64 = options.base64;
    profile.provisions_first = options.provision;
    profile.watch = options.watch.iter().map(|folder| folder.kind()).collect();
    let server = Server::resolve(&options.server).await?;
    let password = password()?;
    let file = options.log_dir.as_deref().map(|dir| DeviceLog::create(dir, options.bodies)).transpose();
    let file = file.context("write the log")?;
    let (_wishes, wishes) = mpsc::channel(1);
    let drive = Drive {
        server,
        source: None,
        authorization: basic(&options.user, &password),
        observer: (DeviceLog::new(io::stdout(), options.bodies), file),
        wishes,
        clock: Clock::start(),
        gate: open_gate(),
    };
    let stop = CancellationToken::new();
    let ending = stop.clone();
    let secs = options.secs;
    tokio::spawn(async move {
        let expiry = async {
            match secs {
                Some(secs) => tokio::time::sleep(Duration::from_secs(secs)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = expiry => {}
        }
        ending.cancel();
    });
    let (phone, trouble) = drive.run(Phone::new(profile), stop).await;
    let done = phone.counters();
    println!(
        "{} requests: {} Pings ({} answered 1, {} answered 2), {} Syncs; heartbeat now {} s",
        done.requests,
        done.pings,
        done.pings_expired,
        done.pings_changed,
        done.syncs,
        phone.heartbeat().interval()
    );
    match trouble {
        Some(trouble) => Err(trouble.into()),
        None => Ok(()),
    }
}

/// Never an argument: arguments can be read by every user of the host.
fn password() -> anyhow::Result<String> {
    if let Ok(password) = std::env::var("DIRECTPUSH_PASSWORD") {
        return Ok(password);
    }
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Password: ").context("read the password");
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("no password: set DIRECTPUSH_PASSWORD, or write it on standard input");
    }
    Ok(password.to_owned())
}
