//! The UDP socket on which back ends announce changes.
//!
//! A datagram is only a reason to ask the back end, and only when it comes from one of them and
//! names this process's call-back, a waiting Ping's group and its subscription. Everything else
//! is counted. Without the socket push goes on by POLL, slower; the port is tried again.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use directpush_common::event::Event;
use directpush_common::httpu::{DATAGRAM_BYTES_MAX, Notify};
use directpush_common::push::routing::Routed;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::events;

/// Bytes the kernel may keep for us: a burst of ten thousand NOTIFYs with their overhead.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The port is tried again after this long, then twice as long, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LAST: Duration = Duration::from_mins(5);

/// The addresses that NOTIFYs may come from, IPv4 as such.
pub type Sources = HashSet<IpAddr>;

/// Binds the socket.
///
/// # Errors
/// When somebody else has the port.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A wish: the kernel grants what net.core.rmem_max allows.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Says that the port could not be had (events 3015 and 3024).
pub fn log_failure(address: SocketAddr, error: &io::Error) {
    let (port, error) = (address.port(), error.to_string());
    events::log(&Event::UdpPortUnavailable { port, error: error.clone() });
    events::log(&Event::AutdFailed { error });
}

/// Says that the port was had (event 3025).
pub fn log_ready(address: SocketAddr) {
    events::log(&Event::AutdInitialized);
    tracing::debug!(%address, "NOTIFY is listened for");
}

/// Listens until `stop`; `socket` is `None` when the port could not be had at the start.
pub async fn run(
    engine: Arc<Engine>,
    mut socket: Option<UdpSocket>,
    address: SocketAddr,
    sources: Sources,
    stop: CancellationToken,
) {
    let mut retry = RETRY_FIRST;
    loop {
        let Some(bound) = socket.take() else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(retry) => {}
            }
            match bind(address) {
                Ok(bound) => {
                    log_ready(address);
                    retry = RETRY_FIRST;
                    socket = Some(bound);
                }
                Err(error) => {
                    log_failure(address, &error);
                    retry = (retry * 2).min(RETRY_LAST);
                }
            }
            continue;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            error = listen(&engine, &bound, &sources) => log_failure(address, &error),
        }
    }
}

async fn listen(engine: &Engine, socket: &UdpSocket, sources: &Sources) -> io::Error {
    // One byte more than we take, so that a longer datagram is seen to be one.
    let mut space = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match socket.recv_from(&mut space).await {
            Ok((length, source)) => handle(engine, &space[..length], source, sources),
            // An ICMP error of something we never sent on this socket: not ours to stop for.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return error,
        }
    }
}

fn handle(engine: &Engine, datagram: &[u8], source: SocketAddr, sources: &Sources) {
    let tally = &engine.tally;
    if !sources.contains(&source.ip().to_canonical()) {
        return tally.notify_foreign.add_one();
    }
    let Ok(notify) = Notify::decode(datagram) else {
        return tally.notify_malformed.add_one();
    };
    let routed = engine.routing().handle_notify(&notify);
    match routed {
        Routed::Taken => tally.notify_taken.add_one(),
        Routed::Repeated => tally.notify_repeated.add_one(),
        Routed::NotOurs => {
            tally.notify_not_ours.add_one();
            tracing::debug!(%source, call_back = %notify.call_back, "a NOTIFY for another front end process");
        }
        Routed::Unknown => tally.notify_unknown.add_one(),
    }
    tracing::debug!(%source, ?routed, "NOTIFY");
}
