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
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access_log::{self, AccessLog};
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
    server: Arc<Server>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl FrontEnd {
    /// Devices' connections open now.
    pub fn connections(&self) -> usize {
        self.server.open()
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
    let patience = front.patience;
    let router = Router::new()
        .fallback(move |request: http::Request<Body>| eas::dispatch::handle(Arc::clone(&front), request));
    let server = Server::new(router, patience, shutdown).map_err(Error::Watch)?;
    let mut http = Vec::new();
    for listener in listeners {
        http.extend(listener.local_addr());
        tasks.spawn(listen::accept(listener, Arc::clone(&server), connections_max));
    }
    tracing::info!(http = ?http, udp = ?udp, "the front end listens");
    Ok(FrontEnd { http, udp, engine, server, tasks, stop })
}

fn random_guid() -> Result<Guid, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::Random)?;
    Ok(Guid::from_random(random))
}

fn backends(config: &Config) -> Result<Backends, reqwest::Error> {
    let (mut all, mut domains, mut default) = (Vec::new(), Vec::new(), 0);
    for (index, backend) in config.backends.iter().enumerate() {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        all.push(Backend::new(Settings {
            name: backend.name.clone(),
            url: backend.url.clone(),
            authorization: format!("{FE_SCHEME} {}:{}", config.name, config.secret.0),
            requests_max: REQUESTS_MAX,
            timeout: TIMEOUT,
        })?);
        domains.extend(backend.domains.iter().map(|domain| (domain.clone(), index)));
        if backend.default {
            default = index;
        }
    }
    Ok(Backends::new(all, domains, default))
}

/// The addresses that NOTIFYs may come from.
async fn sources(backends: &[BackendConfig]) -> HashSet<IpAddr> {
    let mut sources = HashSet::new();
    for backend in backends {
        if !backend.notify_from.is_empty() {
            sources.extend(backend.notify_from.iter().map(IpAddr::to_canonical));
            continue;
        }
        let authority = backend.url.trim_start_matches("http://");
        let target = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        match tokio::net::lookup_host(&target).await {
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
