//! Starting and stopping a front end.
//!
//! It stops in order: no new connections and Pings, 503 with a spread `Retry-After` to all that
//! wait, goodbye to the back ends, the access log to disk.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use directpush_common::dav::headers::FE_SCHEME;
use directpush_common::event::Event;
use directpush_common::httpu::{BadCallBack, CallBack};
use directpush_common::names::Guid;
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access_log::{self, AccessLog};
use crate::backend::tls::{self, TlsError};
use crate::backend::{Backend, Backends, Settings};
use crate::clock::Clock;
use crate::config::{BackendConfig, Config};
use crate::front::Front;
use crate::http::connection::Server;
use crate::http::listen;
use crate::push::{self, Engine};
use crate::{eas, events};

/// Requests to one back end under way at once.
const REQUESTS_MAX: usize = 64;
/// Seconds for an ordinary answer of a back end.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may take to end when the front end stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a front end does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address for devices cannot be had.
    #[error("listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("open the access log: {0}")]
    AccessLog(io::Error),
    /// The host or port cannot stand in a Call-Back.
    #[error("call_back_host: {0}")]
    CallBack(#[from] BadCallBack),
    /// The HTTP client cannot be built.
    #[error("prepare for the back ends: {0}")]
    Client(#[from] reqwest::Error),
    /// The kernel has no epoll instance for parked connections.
    #[error("prepare to watch parked connections: {0}")]
    Watch(io::Error),
    /// A file of `[backend_tls]` cannot be used.
    #[error("backend_tls: {0}")]
    Tls(#[from] TlsError),
    /// A back end's address is none.
    #[error("{0}: not of the form http://host:port or https://host:port")]
    Url(String),
    /// No randomness.
    #[error("the system's random numbers: {0}")]
    Random(getrandom::Error),
}

/// A front end that runs.
pub struct FrontEnd {
    /// Where devices reach it.
    pub http: Vec<SocketAddr>,
    /// Where NOTIFYs go; `None` while the port cannot be had.
    pub udp: Option<SocketAddr>,
    /// The engine, for what it counts.
    pub engine: Arc<Engine>,
    front: Arc<Front>,
    server: Arc<Server>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl FrontEnd {
    /// Devices' connections open now.
    pub fn connections(&self) -> usize {
        self.server.open()
    }

    /// What reads the map of users and the certificates again.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.front))
    }

    /// Waits until the front end has stopped, after `shutdown` was cancelled.
    pub async fn stopped(mut self) {
        self.server.drain.cancelled().await;
        self.engine.drain();
        if timeout(DRAIN, self.server.emptied()).await.is_err() {
            tracing::warn!(open = self.server.open(), "connections did not end in time");
        }
        // The last goodbyes are on their way; what does not arrive expires.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Reads again what may change while a front end runs: the map from users to back ends, and the certificates.
#[derive(Clone)]
pub struct Reloader(Arc<Front>);

impl Reloader {
    /// Reads all of it. What has a mistake is told in the log and stays as it was. Users whose back end is another now
    /// are served there, and their waiting Pings subscribe there.
    pub fn reload(&self) {
        let Front { config, backends, logons, engine, .. } = &*self.0;
        match config.read_placement() {
            Err(mistakes) => tracing::error!("the map of users stays as it was:\n{mistakes}"),
            Ok(placement) => {
                let users = placement.len();
                if backends.replace(placement) {
                    logons.replace(backends);
                    engine.replaced();
                    tracing::info!(users, "the map of users is another");
                }
            }
        }
        let renewed = tls_config(config).and_then(|tls| {
            backends
                .all()
                .iter()
                .try_for_each(|backend| backend.renew(Arc::clone(&tls)).map_err(Error::Client))
        });
        match renewed {
            Ok(()) => tracing::info!("the certificates were read again"),
            Err(error) => tracing::error!(%error, "the certificates stay as they were"),
        }
    }
}

/// Starts a front end. It stops when `shutdown` is cancelled; [`FrontEnd::stopped`] waits for that.
///
/// # Errors
/// When an address, the log or a Call-Back cannot be had. A UDP port that cannot be had is no
/// reason not to start: events 3015 and 3024, and push by POLL.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<FrontEnd, Error> {
    let (clock, stop, mut tasks) = (Clock::start(), CancellationToken::new(), JoinSet::new());
    let (access_log, file) = AccessLog::open(config.access_log.as_deref()).map_err(Error::AccessLog)?;
    let mut listeners = Vec::new();
    for &address in &config.http_listen {
        listeners.push(listen::bind(address).map_err(|source| Error::Listen { address, source })?);
    }
    events::log(&Event::Loaded { process: std::process::id() });
    if config.heartbeat_conflict {
        let (min, max) = config.heartbeat_as_written;
        events::log(&Event::HeartbeatsContradict { min, max });
    }
    let wanted = SocketAddr::new(config.udp_listen, config.udp_listen_port);
    let (socket, udp) = match push::udp::bind(wanted).and_then(|socket| Ok((socket.local_addr()?, socket))) {
        Ok((address, socket)) => {
            push::udp::log_ready(address);
            (Some(socket), Some(address))
        }
        Err(error) => {
            push::udp::log_failure(wanted, &error);
            (None, None)
        }
    };
    let call_back = CallBack::new(&config.call_back_host, udp.unwrap_or(wanted).port(), random_guid()?)?;
    let backends = Arc::new(backends(&config)?);
    let (engine, farewells) = Engine::new(clock, &config, Arc::clone(&backends), call_back);
    let sources = sources(&config.backends).await;
    let connections_max = config.max_connections as usize;
    let front = Front::new(config, Arc::clone(&engine), Arc::clone(&backends), Arc::clone(&access_log));
    let front = front.map_err(Error::Random)?;

    tasks.spawn(push::timer::run(Arc::clone(&engine), stop.clone()));
    tasks.spawn(push::farewell::run(Arc::clone(&engine), farewells, stop.clone()));
    tasks.spawn(push::udp::run(Arc::clone(&engine), socket, udp.unwrap_or(wanted), sources, stop.clone()));
    for index in 0..backends.all().len() {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        tasks.spawn(push::backend::run(Arc::clone(&engine), index, stop.clone()));
    }
    if let Some(file) = file {
        tasks.spawn(access_log::run(access_log, file, stop.clone()));
    }
    let (patience, kept) = (front.patience, Arc::clone(&front));
    let router = Router::new()
        .fallback(move |request: http::Request<Body>| eas::dispatch::handle(Arc::clone(&front), request));
    let server = Server::new(router, patience, shutdown).map_err(Error::Watch)?;
    let mut http = Vec::new();
    for listener in listeners {
        http.extend(listener.local_addr());
        tasks.spawn(listen::accept(listener, Arc::clone(&server), connections_max));
    }
    tracing::info!(http = ?http, udp = ?udp, "the front end listens");
    Ok(FrontEnd { http, udp, engine, front: kept, server, tasks, stop })
}

fn random_guid() -> Result<Guid, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::Random)?;
    Ok(Guid::from_random(random))
}

fn tls_config(config: &Config) -> Result<Arc<ClientConfig>, Error> {
    let used = config.backends.iter().any(|backend| backend.url.starts_with("https:"));
    Ok(if used { tls::client(&config.backend_tls)? } else { tls::unused()? })
}

fn backends(config: &Config) -> Result<Backends, Error> {
    let tls = tls_config(config)?;
    let mut all = Vec::new();
    for backend in &config.backends {
        all.push(Backend::new(Settings {
            name: backend.name.clone(),
            url: backend.url.parse().map_err(|_| Error::Url(backend.url.clone()))?,
            authorization: format!("{FE_SCHEME} {}:{}", config.name, config.secret.0),
            requests_max: REQUESTS_MAX,
            timeout: TIMEOUT,
            tls: Arc::clone(&tls),
        })?);
    }
    Ok(Backends::new(all, config.placement.clone()))
}

/// The addresses that NOTIFYs may come from.
async fn sources(backends: &[BackendConfig]) -> HashSet<IpAddr> {
    let mut sources = HashSet::new();
    for backend in backends {
        if !backend.notify_from.is_empty() {
            sources.extend(backend.notify_from.iter().map(IpAddr::to_canonical));
            continue;
        }
        let url = backend.url.parse::<reqwest::Url>().ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().trim_matches(['[', ']']);
        let port = url.as_ref().and_then(reqwest::Url::port_or_known_default).unwrap_or(80);
        match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => sources.extend(addresses.map(|address| address.ip().to_canonical())),
            Err(error) => tracing::warn!(
                backend = backend.name,
                %error,
                "the back end's name does not resolve: its NOTIFYs are refused, push goes on by POLL"
            ),
        }
    }
    sources
}
