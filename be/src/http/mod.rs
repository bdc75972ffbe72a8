//! HTTP/1.1: accepting connections, bounding what they may cost, and the access log.
//!
//! Not here: what a request means (`dav`).

pub mod access_log;
pub mod body;
pub mod connection;
mod places;

use std::net::SocketAddr;
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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dav::{self, reply};
use crate::server::Server;
use places::{Owner, Place, Places};

/// What a connection beyond the bound is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Accepts until `stop`; connections are given the time to finish what they do by `tasks`' owner.
pub async fn accept(server: Arc<Server>, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    let places = Places::new(server.config.limits);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
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
            tasks.spawn(turn_away(stream));
            continue;
        };
        prepare(&stream);
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            connection::serve(server, stream, peer, place, stop).await;
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
    peer: SocketAddr,
    local: SocketAddr,
    request: Request<Incoming>,
    place: &Place,
) -> Response<Full<bytes::Bytes>> {
    let start = Instant::now();
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
