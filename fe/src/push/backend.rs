//! One task per back end: POLL at its interval, and at once when there is a reason; after a restart
//! of the back end every Ping there subscribes again, in place.
//!
//! A connection on which nothing is said is kept to each back end. When it breaks and a new one
//! is refused, the back end is down, and the task knows within a moment when it is up again:
//! devices do not wait for the next POLL.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use directpush_common::push::ledger::POLL_ANSWERS_MAX;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::backend::Backend;

/// How often a back end that is down is tried.
const DOWN_RETRY: Duration = Duration::from_millis(250);
/// Two POLLs that somebody asked for are at least so far apart.
const POLL_APART: Duration = Duration::from_millis(500);
/// A quiet connection that the back end closes sooner is not opened again at once.
const QUIET_APART: Duration = Duration::from_secs(5);

/// Watches one back end until `stop`.
pub async fn run(engine: Arc<Engine>, index: u16, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = poll_forever(&engine, index) => {}
        () = watch_connection(&engine, index) => {}
        () = rearm_forever(&engine, index) => {}
    }
}

async fn poll_forever(engine: &Engine, index: u16) {
    let interval = Duration::from_secs(u64::from(engine.poll_interval_secs));
    let mut mismatches = 0;
    loop {
        let polled = poll(engine, index).await;
        mismatches = if polled == Poll::Fewer { mismatches + 1 } else { 0 };
        // Twice in a row, because our count and the back end's are not of the same instant.
        if mismatches >= 2 {
            tracing::warn!(backend = engine.backends.at(index).name(), "the back end lost subscriptions");
            rearm(engine, index);
            mismatches = 0;
        }
        let soon = mismatches > 0 || matches!(polled, Poll::Failed | Poll::More);
        let pause = if soon { Duration::from_secs(2).min(interval) } else { interval };
        sleep(POLL_APART.min(interval)).await;
        let _ = timeout(pause.saturating_sub(POLL_APART), engine.flow(index).poke.notified()).await;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Poll {
    Fine,
    /// The back end has fewer subscriptions of ours than we know of.
    Fewer,
    Failed,
    /// The answer was full: there is more.
    More,
}

async fn poll(engine: &Engine, index: u16) -> Poll {
    let (backend, flow) = (engine.backends.at(index), engine.flow(index));
    let known = engine.routing().subscriptions_at(index) as u64;
    let (leaving, left) = (flow.leaving.load(Ordering::Relaxed), flow.left.load(Ordering::Relaxed));
    match backend.poll(&engine.call_back, engine.poll_interval_secs).await {
        Ok(polled) => {
            engine.tally.polls.add_one();
            let unannounced = engine.routing().handle_polled(&polled.answers);
            if unannounced > 0 {
                engine.tally.unannounced.add(unannounced as u64);
                tracing::warn!(
                    backend = backend.name(),
                    condition = "D5",
                    unannounced,
                    "the UDP path from the back end is broken: POLL found what no NOTIFY had announced. Open UDP \
                     port {} from the back end to this host, and check what {} resolves to there.",
                    engine.call_back.port(),
                    engine.call_back.host()
                );
            }
            let gone = leaving + flow.left.load(Ordering::Relaxed).saturating_sub(left);
            match polled.count {
                _ if polled.answers.len() >= POLL_ANSWERS_MAX => Poll::More,
                Some(count) if count + gone < known => Poll::Fewer,
                _ => Poll::Fine,
            }
        }
        Err(error) => {
            backend.complain("POLL", &error);
            Poll::Failed
        }
    }
}

async fn rearm_forever(engine: &Engine, index: u16) {
    loop {
        engine.backends.at(index).restarted().await;
        rearm(engine, index);
    }
}

fn rearm(engine: &Engine, index: u16) {
    engine.tally.rearmed.add_one();
    engine.routing().handle_backend_restarted(index);
}

/// Keeps the quiet connection, and pokes the POLL when the back end is back.
async fn watch_connection(engine: &Engine, index: u16) {
    let backend = engine.backends.at(index);
    let mut down = false;
    loop {
        let began = Instant::now();
        if let Some(mut quiet) = connect(backend).await {
            if std::mem::take(&mut down) {
                tracing::info!(backend = backend.name(), "the back end can be reached again");
                engine.poke(index);
            }
            // Ends when the back end says or does anything: both mean that this one is over.
            let _ = quiet.read_u8().await;
            let lived = began.elapsed();
            drop(quiet);
            // Closed for being idle, or because the process died: connecting again tells.
            if lived < QUIET_APART && connect(backend).await.is_some() {
                engine.poke(index);
                sleep(QUIET_APART).await;
            }
        } else {
            if !down {
                tracing::warn!(backend = backend.name(), "the back end cannot be reached");
            }
            down = true;
            sleep(DOWN_RETRY).await;
        }
    }
}

/// A connection that nothing is said on, with TLS if the back end is reached by it.
async fn connect(backend: &Backend) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
    let url = backend.url();
    let (host, port) = (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?);
    let connected = async {
        let plain = TcpStream::connect((host.as_str(), port)).await.ok()?;
        let Some(tls) = backend.tls() else { return Some(Box::new(plain) as Box<_>) };
        let name = ServerName::try_from(host.clone()).ok()?;
        Some(Box::new(TlsConnector::from(tls).connect(name, plain).await.ok()?) as Box<_>)
    };
    timeout(Duration::from_secs(2), connected).await.ok()?
}
