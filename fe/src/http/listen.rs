//! The listening socket and the accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::Reply;
use super::connection::{Connection, Server, refuse};

/// Connections that may wait to be accepted (the kernel lowers it to `somaxconn`): after a restart
/// every device of the installation comes at once.
const BACKLOG: i32 = 65_535;
/// A radio link that died says nothing: ask after this long, then twice more. Not sooner: each
/// probe wakes the radio of a phone that has parked its Ping exactly so as not to be woken.
const KEEP_ALIVE: Duration = Duration::from_mins(30);
const KEEP_ALIVE_EVERY: Duration = Duration::from_mins(1);
/// Sent bytes that nobody acknowledges for this long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// Refusals (503) under way at once; beyond them a connection over the limit is just closed.
const REFUSALS_MAX: usize = 256;

/// Binds a listener that restarts can take over.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the server drains. More than `connections_max` get 503 and `Retry-After`.
pub async fn accept(listener: TcpListener, server: Arc<Server>, connections_max: usize) {
    let refusals = Arc::new(tokio::sync::Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if server.open() < connections_max => {
                prepare(&stream);
                tokio::spawn(Connection::new(stream, Arc::clone(&server)));
            }
            Ok((stream, _)) => {
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        refuse(stream, &Reply::busy(10 + fastrand::u64(0..20))).await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                // Out of descriptors, or a peer that was gone already: neither is a reason to
                // stop, and the former must not spin.
                tracing::warn!(%error, "accept");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Socket options of a device's connection; each is a wish, none a condition.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keep_alive =
        TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_EVERY).with_retries(2);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}
