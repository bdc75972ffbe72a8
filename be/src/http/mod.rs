//! HTTP/1.1: accepting connections, bounding what they may cost, and the access log.
//!
//! Not here: what a request means (`dav`).

pub mod access_log;
pub mod body;
pub mod connection;
mod places;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use directpush_common::dav::headers;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dav::{self, reply};
use crate::server::Server;
use connection::Ends;
pub(crate) use places::Places;
use places::{Owner, Place};
use tls::{Shown, Tls};

/// What a connection beyond the bound is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// An address that takes connections.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// Speaks TLS first.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Accepts until `stop`; connections are given the time to finish what they do by `tasks`' owner.
pub(crate) async fn accept(
    server: Arc<Server>,
    door: Door,
    places: Arc<Places>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = door.listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = places.enter(peer.ip(), Instant::now()) else {
            tracing::warn!(%peer, "too many connections");
            if door.tls.is_none() {
                tasks.spawn(turn_away(stream));
            }
            continue;
        };
        prepare(&stream);
        let Ok(local) = stream.local_addr() else { continue };
        let (server, stop) = (server.clone(), stop.clone());
        let tls = door.tls.as_ref().map(|tls| tls.current());
        tasks.spawn(async move {
            let mut ends = Ends { peer, local, shown: None };
            let Some(tls) = tls else {
                connection::serve(server, stream, ends, place, stop).await;
                return;
            };
            let patience = Duration::from_secs(server.config.limits.request_secs);
            let greeted = tokio::select! {
                () = stop.cancelled() => return,
                () = place.leave.cancelled() => return,
                greeted = tokio::time::timeout(patience, TlsAcceptor::from(tls).accept(stream)) => greeted,
            };
            match greeted {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    ends.shown = shown.map(|shown| Shown(Arc::new(shown.clone().into_owned())));
                    connection::serve(server, stream, ends, place, stop).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                Err(_) => tracing::debug!(%peer, "no TLS in time"),
            }
        });
    }
}

async fn turn_away(mut stream: TcpStream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    })
    .await;
}

/// A front end that vanished without a word is noticed within minutes.
fn prepare(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15));
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Answers one request and writes its line in the access log.
async fn answer(
    server: Arc<Server>,
    ends: &Ends,
    request: Request<Incoming>,
    place: &Place,
) -> Response<Full<bytes::Bytes>> {
    let start = Instant::now();
    let Ends { peer, local, .. } = *ends;
    let (parts, incoming) = request.into_parts();
    let mut who = dav::Who::default();
    let prove = |front_end| {
        place.prove(if front_end { Owner::FrontEnd } else { Owner::User }, Instant::now());
    };
    let reply = dav::answer(&server, peer, &parts, incoming, &mut who, &prove).await;
    let reply = reply::with_ours(reply, headers::BOOT, &server.boot);
    if let Some(log) = &server.access_log {
        log.write(&access_log::Line {
            local,
            peer,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            user: who.name.as_deref(),
            agent: parts.headers.get(http::header::USER_AGENT).map(http::HeaderValue::as_bytes),
            status: reply.status().as_u16(),
            sent: hyper::body::Body::size_hint(reply.body()).exact().unwrap_or(0),
            received: length(&parts),
            taken: start.elapsed(),
        });
    }
    reply
}

fn length(parts: &http::request::Parts) -> u64 {
    let length = parts.headers.get(http::header::CONTENT_LENGTH);
    length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}
