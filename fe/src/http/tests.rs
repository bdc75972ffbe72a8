//! The connection layer against raw sockets: each way a peer can be slow, rude, or gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::Server;
use super::patience::Patience;
use super::{Parked, Reply, Seat, body, listen};

/// The test's hand on what is parked.
#[derive(Default)]
struct Bell {
    reply: Mutex<(Option<Reply>, Option<Waker>)>,
    parked: Notify,
    dropped: Notify,
    sent: AtomicUsize,
    unsent: Notify,
}

impl Bell {
    fn ring(&self, reply: Reply) {
        let mut inner = self.reply.lock();
        inner.0 = Some(reply);
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
    }
}

struct Waiting(Arc<Bell>);

impl Parked for Waiting {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let mut inner = self.0.reply.lock();
        if let Some(reply) = inner.0.take() {
            Poll::Ready(reply)
        } else {
            inner.1 = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    fn answered(&mut self, _ends: super::Ends, _status: u16, sent: Option<usize>) {
        self.0.sent.fetch_add(sent.unwrap_or(0), Ordering::SeqCst);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

struct World {
    address: SocketAddr,
    bell: Arc<Bell>,
    drain: CancellationToken,
    server: Arc<Server>,
}

/// `/park` parks, `/big` answers 8 MiB, anything else reads at most 1,000 bytes and echoes them.
fn start(patience: Patience, connections_max: usize) -> World {
    let bell = Arc::new(Bell::default());
    let handler_bell = Arc::clone(&bell);
    let router = Router::new().fallback(move |request: Request<Body>| {
        let bell = Arc::clone(&handler_bell);
        async move {
            let (parts, incoming) = request.into_parts();
            let seat = parts.extensions.get::<Seat>().cloned().unwrap();
            if parts.uri.path() == "/park" {
                let waiting = Box::new(Waiting(Arc::clone(&bell)));
                bell.parked.notify_one();
                seat.park(waiting).await;
            }
            if parts.uri.path() == "/big" {
                let bell = Arc::clone(&bell);
                seat.if_unsent(move || bell.unsent.notify_one());
                return Response::new(Body::from(vec![b'x'; 8 << 20]));
            }
            match body::read(&parts.headers, incoming, 1000, patience.body).await {
                Ok(bytes) => Response::new(Body::from(bytes)),
                Err(status) => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = status;
                    response.headers_mut().insert("connection", "close".parse().unwrap());
                    response
                }
            }
        }
    });
    let drain = CancellationToken::new();
    let server = Server::new(router, patience, drain.clone()).unwrap();
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listen::accept(listener, Arc::clone(&server), connections_max));
    World { address, bell, drain, server }
}

fn brief() -> Patience {
    let short = Duration::from_millis(150);
    Patience { head: short, idle: short * 2, write: short, body: short, mail: short }
}

impl World {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn say(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        // One by one: the next answer may have come with this one, and stays for the next call.
        let byte = stream.read_u8().await;
        assert!(byte.is_ok(), "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_parked_connection_answers_and_goes_on_with_what_came_meanwhile() {
    let world = start(Patience::default(), 10);
    let mut stream = world.say(b"POST /park HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    world.bell.parked.notified().await;
    let more = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n";
    stream.write_all(more).await.unwrap();
    stream.write_all(&[b'y'; 600]).await.unwrap();
    world.bell.ring(Reply { body: Bytes::from_static(b"woken"), ..Reply::empty(StatusCode::OK) });
    let first = until(&mut stream, "woken").await;
    assert!(first.contains("Content-Length: 5\r\n"), "{first}");
    let second = until(&mut stream, &"y".repeat(600)).await;
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{second}");
    assert_eq!(world.bell.sent.load(Ordering::SeqCst), first.len());
    // And the connection can be parked again.
    stream.write_all(b"POST /park HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    world.bell.parked.notified().await;
    world.bell.ring(Reply { body: Bytes::from_static(b"again"), ..Reply::empty(StatusCode::OK) });
    until(&mut stream, "again").await;
}

#[tokio::test]
async fn a_device_that_hangs_up_is_freed_at_once() {
    let world = start(Patience::default(), 10);
    let stream = world.say(b"POST /park HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    world.bell.parked.notified().await;
    drop(stream);
    world.bell.dropped.notified().await;
    world.server.emptied().await;
    assert_eq!(world.bell.sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connection_close_and_http_1_0_are_heeded_after_a_wait() {
    for head in ["POST /park HTTP/1.1\r\nHost: a\r\nConnection: close", "POST /park HTTP/1.0\r\nHost: a"] {
        let world = start(Patience::default(), 10);
        let mut stream = world.say(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        world.bell.parked.notified().await;
        world.bell.ring(Reply::empty(StatusCode::OK));
        let text = all(&mut stream).await;
        assert!(text.contains("Connection: close\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_408() {
    let world = start(brief(), 10);
    let mut stream = world.say(b"POST /echo HTTP/1.1\r\nHo").await;
    let text = all(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
}

#[tokio::test]
async fn a_body_that_trickles_is_408() {
    let world = start(brief(), 10);
    let mut stream = world.say(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
    let text = all(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
}

#[tokio::test]
async fn a_body_over_the_bound_is_413_announced_or_not() {
    let world = start(Patience::default(), 10);
    let mut stream = world.say(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\nabc").await;
    assert!(all(&mut stream).await.starts_with("HTTP/1.1 413 "));
    let mut chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n".to_vec();
    chunked.extend([b'z'; 1001]);
    chunked.extend(b"\r\n");
    let mut stream = world.say(&chunked).await;
    assert!(all(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let world = start(Patience::default(), 10);
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc";
    let mut stream = world.say(head).await;
    assert!(all(&mut stream).await.starts_with("HTTP/1.1 415 "));
}

#[tokio::test]
async fn a_head_over_16_kib_is_431() {
    let world = start(Patience::default(), 10);
    let mut head = b"POST /echo HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    head.extend(vec![b'a'; 17 * 1024]);
    let mut stream = world.say(&head).await;
    let text = all(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped_and_the_handler_hears_of_it() {
    let world = start(brief(), 10);
    let stream = world.say(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    world.bell.unsent.notified().await;
    world.server.emptied().await;
    drop(stream);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let world = start(brief(), 10);
    let mut stream = world.connect().await;
    assert_eq!(all(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_over_the_limit_is_503_and_closed() {
    let world = start(Patience::default(), 1);
    let _first = world.say(b"POST /park HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    world.bell.parked.notified().await;
    let mut second = world.connect().await;
    let text = all(&mut second).await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("Retry-After: "), "{text}");
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_turn() {
    let world = start(Patience::default(), 10);
    let mut stream = world.connect().await;
    // Also a head that is cut anywhere, and one that is cut while its predecessor is answered.
    for round in 0..20 {
        let one = |body: &str| {
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let two = [one("first"), one("second")].concat();
        let (head, tail) = two.split_at(2 * round + one("first").len() / 2);
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(tail.as_bytes()).await.unwrap();
        until(&mut stream, "second").await;
    }
}

#[tokio::test]
async fn more_requests_than_turns_are_all_answered_and_the_slow_give_way() {
    let world = start(Patience::default(), 1000);
    // More than there are turns that never send their body: each counts for a second at most.
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(world.say(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await);
    }
    let mut quick = world.say(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = tokio::time::timeout(Duration::from_secs(10), until(&mut quick, "\r\n\r\n")).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    for stream in &mut slow {
        stream.write_all(b"123456789").await.unwrap();
        assert!(until(stream, "123456789").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn draining_closes_idle_connections_and_refuses_new_ones() {
    let world = start(Patience::default(), 10);
    let mut idle = world.say(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut idle, "\r\n\r\n").await;
    world.drain.cancel();
    assert_eq!(all(&mut idle).await, "");
    world.server.emptied().await;
    assert!(TcpStream::connect(world.address).await.is_err());
}

/// The future of a connection is paid once per parked device: this is the bound we build on.
#[test]
fn a_parked_connection_is_small() {
    let size = super::connection::CONNECTION_BYTES;
    assert!(size <= 24, "{size} bytes: the task is 256 bytes with one more");
    let parked = super::connection::PARKED_BYTES;
    assert!(parked <= 32, "{parked} bytes");
}
