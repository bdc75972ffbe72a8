//! Front and back ends in this process, on loopback: for the demonstration and the whole-system tests.
//!
//! Every front end gets a loopback address of its own, so that its NOTIFY port can be the usual one whatever else
//! runs on this host.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use directpush_be::{LmtpAddress as BeLmtp, Running};
use directpush_fe::FrontEnd;
use tokio_util::sync::CancellationToken;

use crate::lmtp::LmtpAddress;

/// The NOTIFY port ([the article]: UDP 2883).
pub const NOTIFY_PORT: u16 = 2883;

/// Where a front end lives, and how it proves itself to the back end.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
    /// The address at which it listens for NOTIFYs.
    pub listens: Ipv4Addr,
    /// The address that its Call-Backs name: the same, or a relay's.
    pub call_back: Ipv4Addr,
}

impl Seat {
    /// A seat of its own. With `relayed` the Call-Back names another address, where a relay can stand.
    pub fn new(name: &str, relayed: bool) -> Self {
        let listens = own_address();
        let call_back = if relayed { own_address() } else { listens };
        Self { name: name.to_owned(), secret: uuid::Uuid::new_v4().to_string(), listens, call_back }
    }
}

/// An address of 127.0.0.0/8 that nobody else of this host uses, most likely.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // 22 bits: the process, so that test programs run beside each other, and a number within it.
    let [_, a, b, c] = ((std::process::id() & 0x3fff) << 8 | (number & 0xff)).to_be_bytes();
    Ipv4Addr::new(127, 64 | (a & 0x3f), b, c)
}

/// A back end that runs here.
pub struct Backend {
    running: Running,
    stop: CancellationToken,
}

impl Backend {
    /// The settings of one on the store in `dir` that takes these front ends.
    pub fn config(dir: &Path, seats: &[Seat]) -> directpush_be::Config {
        let mut config = directpush_be::Config::loopback(dir);
        let front_end = |seat: &Seat| directpush_be::config::FrontEnd {
            name: seat.name.clone(),
            secret: seat.secret.clone(),
            call_back_host: seat.call_back.to_string(),
            call_back_ports: vec![NOTIFY_PORT],
        };
        config.front_ends = seats.iter().map(front_end).collect();
        config
    }

    /// Starts one.
    pub async fn start(config: directpush_be::Config) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let running = directpush_be::run(config, stop.clone()).await.context("start the back end")?;
        Ok(Self { running, stop })
    }

    /// Where HTTP is.
    pub fn http(&self) -> SocketAddr {
        self.running.http
    }

    /// Where LMTP is.
    pub fn lmtp(&self) -> anyhow::Result<LmtpAddress> {
        match self.running.lmtp.first().context("the back end takes no LMTP")? {
            BeLmtp::Tcp(address) => Ok(LmtpAddress::Tcp(*address)),
            BeLmtp::Unix(path) => Ok(LmtpAddress::Unix(path.as_path().into())),
        }
    }

    /// Makes a user.
    pub async fn add_user(&self, name: &str, password: &str) -> anyhow::Result<()> {
        self.running.add_user(name, password).await.with_context(|| format!("make the user {name}"))?;
        Ok(())
    }

    /// Does what an administrator orders.
    pub async fn order(&self, order: directpush_be::admin::Order) -> directpush_be::admin::Answer {
        directpush_be::admin::execute(&self.running.administered(), order).await
    }

    /// Reads the map of users and the certificates again.
    pub async fn reload(&self) {
        self.running.reloader().reload().await;
    }

    /// Subscriptions that it holds now.
    pub fn subscriptions(&self) -> usize {
        self.running.server().notifier.counters().0
    }

    /// Stops it in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.finished().await.context("stop the back end")
    }
}

/// A front end that runs here.
pub struct Frontend {
    /// The server, with what it counts.
    pub server: FrontEnd,
    stop: CancellationToken,
}

impl Frontend {
    /// The settings of a front end on this seat with one back end (or a relay before it) at `backend`.
    pub fn config(seat: &Seat, backend: SocketAddr) -> directpush_fe::Config {
        let backend = directpush_fe::BackendConfig {
            name: "be-1".to_owned(),
            url: format!("http://{backend}"),
            domains: Vec::new(),
            default: true,
            notify_from: vec![Ipv4Addr::LOCALHOST.into(), seat.call_back.into(), seat.listens.into()],
        };
        let mut config = directpush_fe::Config::local(&seat.name, &seat.secret, vec![backend]);
        config.udp_listen = seat.listens.into();
        config.udp_listen_port = NOTIFY_PORT;
        config.call_back_host = seat.call_back.to_string();
        config
    }

    /// Starts one.
    pub async fn start(config: directpush_fe::Config) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let server = directpush_fe::run(config, stop.clone()).await.context("start the front end")?;
        Ok(Self { server, stop })
    }

    /// Where devices connect.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        self.server.http.first().copied().context("the front end does not listen")
    }

    /// Stops it in order: waiting devices are sent away with 503.
    pub async fn stop(self) {
        self.stop.cancel();
        self.server.stopped().await;
    }
}
