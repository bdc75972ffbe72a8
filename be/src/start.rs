//! Starting and stopping a back end: the same way for the binary, the tests and the demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use directpush_common::names::UserName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::config::{Config, Engine, LmtpListen};
use crate::dav::guard::Locks;
use crate::error::Error;
use crate::http::access_log::AccessLog;
use crate::http::body::Budget;
use crate::mailbox::{Mailboxes, SWEEP_EVERY, purge};
use crate::notifier::Notifier;
use crate::server::Server;
use crate::store::{Store, StoreOptions};
use crate::{admin, http, lmtp, maintenance};

/// How long connections may take to finish what they do when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Where LMTP can be reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpAddress {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A back end that runs. Dropping it does not stop it; its `shutdown` token does.
pub struct Running {
    /// Where HTTP can be reached.
    pub http: SocketAddr,
    /// Where LMTP can be reached, in the order of the configuration.
    pub lmtp: Vec<LmtpAddress>,
    server: Arc<Server>,
    stop: CancellationToken,
    accepting: TaskTracker,
    background: TaskTracker,
    background_stop: CancellationToken,
}

/// Opens the store of a configuration, making its directory (for this user alone) if need be.
pub async fn open_store(config: &Config) -> Result<Store, Error> {
    if config.engine == Engine::Memory {
        return Ok(Store::memory());
    }
    let dir = config.state_dir.clone();
    tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)
    })
    .await
    .map_err(|_| Error::Task)?
    .map_err(Error::io(format!("make the directory {}", config.state_dir.display())))?;
    let options = StoreOptions { cache_bytes: config.cache_bytes, ..StoreOptions::default() };
    Ok(Store::open(&config.state_dir.join("store"), &options).await?)
}

/// Starts a back end; it serves when this returns, and stops when `shutdown` is cancelled.
///
/// # Errors
/// The store cannot be opened, or a port or socket cannot be had.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<Running, Error> {
    let store = open_store(&config).await?;
    let (boxes, jobs) = Mailboxes::open(store).await?;
    boxes.set_default_quota(config.quota);
    let auth = Auth::new(boxes.clone(), config.front_ends.clone(), config.default_domain.clone()).await?;
    let notifier = Notifier::new(&config.limits, config.http_listen.ip())?;
    boxes.watch(notifier.clone());
    let access_log = AccessLog::open(&config.access_log)?;
    let mut boot = [0; 16];
    getrandom::fill(&mut boot)
        .map_err(|error| Error::io("draw the boot id")(std::io::Error::other(error.to_string())))?;

    let doing = |address: &SocketAddr| format!("listen on {address}");
    let listener =
        TcpListener::bind(config.http_listen).await.map_err(Error::io(doing(&config.http_listen)))?;
    let http = listener.local_addr().map_err(Error::io(doing(&config.http_listen)))?;
    let (lmtp_listeners, lmtp) = bind_lmtp(&config).await?;
    let admin = match &config.admin_socket {
        Some(path) => Some((admin::listen(path)?, admin::owner(path)?)),
        None => None,
    };

    let server = Arc::new(Server {
        locks: Locks::default(),
        budget: Budget::new(config.limits.bodies_in_memory_bytes_max),
        boot: HEXLOWER.encode(&boot),
        boxes: boxes.clone(),
        auth,
        notifier: notifier.clone(),
        access_log,
        config,
    });
    let (accepting, background, background_stop) =
        (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
    background.spawn(notifier.run(background_stop.clone()));
    background.spawn(purge::run(boxes.clone(), jobs, background_stop.clone()));
    background.spawn(maintenance::collect(boxes.store.clone(), background_stop.clone()));
    background.spawn(sweep(server.clone(), background_stop.clone()));
    accepting.spawn(http::accept(server.clone(), listener, shutdown.clone(), accepting.clone()));
    let places = Arc::new(Semaphore::new(server.config.limits.lmtp_connections_max));
    for listener in lmtp_listeners {
        let (places, stop, tasks) = (places.clone(), shutdown.clone(), accepting.clone());
        accepting.spawn(lmtp::accept(server.clone(), listener, places, stop, tasks));
    }
    if let Some((listener, owner)) = admin {
        accepting.spawn(admin::serve(boxes, listener, owner, shutdown.clone(), accepting.clone()));
    }
    tracing::info!(%http, ?lmtp, boot = %server.boot, "the back end serves");
    Ok(Running { http, lmtp, server, stop: shutdown, accepting, background, background_stop })
}

async fn bind_lmtp(config: &Config) -> Result<(Vec<lmtp::Listener>, Vec<LmtpAddress>), Error> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for listen in &config.lmtp_listen {
        match listen {
            LmtpListen::Unix(path) => {
                let listener = admin::bind_unix(path)?;
                // Whoever may enter its directory may deliver: the MTA runs as another user.
                admin::set_mode(path, 0o666)?;
                listeners.push(lmtp::Listener::Unix(listener, path.clone()));
                addresses.push(LmtpAddress::Unix(path.clone()));
            }
            LmtpListen::Tcp(address) => {
                let doing = || format!("listen on {address} for LMTP");
                let listener = TcpListener::bind(address).await.map_err(Error::io(doing()))?;
                addresses.push(LmtpAddress::Tcp(listener.local_addr().map_err(Error::io(doing()))?));
                listeners.push(lmtp::Listener::Tcp(listener));
            }
        }
    }
    Ok((listeners, addresses))
}

async fn sweep(server: Arc<Server>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {
                server.boxes.sweep();
                server.locks.sweep();
            }
        }
    }
}

impl Running {
    /// What the parts share: mailboxes, notifier, authentication.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Adds a user, in-process.
    pub async fn add_user(&self, name: &str, password: &str) -> Result<UserName, Error> {
        let name: UserName = name.parse().map_err(|_| Error::Forbidden("this cannot be a user's name"))?;
        let hash = self.server.auth.hash(password.to_owned()).await?;
        self.server.boxes.add_user(&name, hash).await?;
        Ok(name)
    }

    /// Waits for the stop: refuses what is new, lets what runs come to its end, then closes the store.
    pub async fn finished(self) -> Result<(), Error> {
        self.stop.cancelled().await;
        self.accepting.close();
        if tokio::time::timeout(DRAIN, self.accepting.wait()).await.is_err() {
            tracing::warn!(left = self.accepting.len(), "connections did not end in time");
        }
        if let Some(path) = &self.server.config.admin_socket {
            let _ = std::fs::remove_file(path);
        }
        self.background_stop.cancel();
        self.background.close();
        self.background.wait().await;
        if let Some(log) = &self.server.access_log {
            log.flush();
        }
        self.server.boxes.store.close().await?;
        tracing::info!("the back end has stopped");
        Ok(())
    }
}
