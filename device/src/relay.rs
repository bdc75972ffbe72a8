//! Relays between front end and back end: they let everything through, and show it.
//!
//! [`HttpRelay`] stands before a back end and sees each request with its answer; it can hold answers back.
//! [`UdpRelay`] stands where the Call-Back points and sees each datagram; it can lose, repeat and delay them.
//! What the demonstration prints and what the whole-system tests break goes through here, as real bytes.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes of a message's head, at most.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Something that passed a relay.
#[derive(Clone, Debug)]
pub enum Sight {
    /// A request and its answer.
    Exchange(Exchange),
    /// A datagram.
    Datagram {
        /// When it came.
        at: Instant,
        /// What it says.
        bytes: Vec<u8>,
        /// How many copies went on.
        copies: usize,
    },
}

/// A request and its answer between front end and back end.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When the request was there.
    pub asked: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// The request's line and header fields.
    pub request: String,
    /// The request's body.
    pub body: Vec<u8>,
    /// The answer's line and header fields.
    pub answer: String,
}

impl Exchange {
    /// `GET`, `SUBSCRIBE`, …
    pub fn method(&self) -> &str {
        self.request.split(' ').next().unwrap_or_default()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.request.split(' ').nth(1).unwrap_or_default()
    }

    /// The answer's status.
    pub fn status(&self) -> u16 {
        self.answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

/// Whose answers are held back, and until when.
#[derive(Debug)]
pub struct HttpRelay {
    /// Where the front end connects.
    pub address: SocketAddr,
    held: watch::Sender<Option<&'static str>>,
    _stop: DropGuard,
}

impl HttpRelay {
    /// A relay before `target` that tells `seen` of everything.
    pub async fn start(target: SocketAddr, seen: mpsc::UnboundedSender<Sight>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (held, hold) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stopping.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((client, _)) = accepted else { continue };
                let (seen, hold, stopping) = (seen.clone(), hold.clone(), stopping.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        // A connection that breaks is closed on both sides; that is what a relay can do.
                        _ = relay(client, target, seen, hold) => {}
                    }
                });
            }
        });
        Ok(Self { address, held, _stop: stop.drop_guard() })
    }

    /// Holds back the answers to requests of this method, until [`HttpRelay::release`].
    pub fn hold(&self, method: &'static str) {
        self.held.send_replace(Some(method));
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.held.send_replace(None);
    }
}

async fn relay(
    mut client: TcpStream,
    target: SocketAddr,
    seen: mpsc::UnboundedSender<Sight>,
    mut hold: watch::Receiver<Option<&'static str>>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    loop {
        tokio::select! {
            ready = client.readable() => ready?,
            // The back end closes an idle connection, or dies: the front end is to notice.
            ready = server.readable() => {
                ready?;
                return Ok(());
            }
        }
        let (head, body) = read_message(&mut client, "").await?;
        let request = String::from_utf8_lossy(&head).into_owned();
        let asked = Instant::now();
        server.write_all(&[&head[..], &body].concat()).await?;
        let method = request.split(' ').next().unwrap_or_default().to_owned();
        let (answer, answer_body) = tokio::select! {
            read = read_message(&mut server, &method) => read?,
            closed = closed(&client) => return closed,
        };
        let exchange = Exchange {
            asked,
            answered: Instant::now(),
            request,
            body,
            answer: String::from_utf8_lossy(&answer).into_owned(),
        };
        let _ = seen.send(Sight::Exchange(exchange));
        hold.wait_for(|held| held.is_none_or(|held| held != method))
            .await
            .map_err(|_| ErrorKind::BrokenPipe)?;
        client.write_all(&[&answer[..], &answer_body].concat()).await?;
    }
}

/// Ends when the peer has closed, although nobody reads from it.
async fn closed(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut byte = [0];
        match stream.peek(&mut byte).await {
            Ok(0) => return Ok(()),
            Ok(_) => sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(error),
        }
    }
}

/// One message as its bytes: the head with its empty line, and the body. `method` is empty for a request, else the
/// request's whose answer this is.
async fn read_message(stream: &mut TcpStream, method: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        more(stream, &mut bytes).await?;
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    };
    let bodiless = method == "HEAD" || head.starts_with("http/1.1 204") || head.starts_with("http/1.1 304");
    if let Some(length) = field("content-length").and_then(|length| length.parse::<usize>().ok()) {
        while !bodiless && body.len() < length {
            more(stream, &mut body).await?;
        }
    } else if field("transfer-encoding").is_some() && !bodiless {
        while !body.ends_with(b"0\r\n\r\n") {
            more(stream, &mut body).await?;
        }
    }
    Ok((bytes, body))
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What becomes of datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Part of them that is lost, 0 to 1.
    pub loss: f64,
    /// Part of the others that comes twice.
    pub duplicates: f64,
    /// Each copy is up to so many milliseconds late, so that they overtake each other.
    pub late_millis: u64,
}

/// Stands where the Call-Back points, and passes datagrams on to the front end.
#[derive(Debug)]
pub struct UdpRelay {
    weather: Arc<Mutex<Weather>>,
    _stop: DropGuard,
}

impl UdpRelay {
    /// A relay at `here` for the front end that listens at `target`.
    pub async fn start(
        here: SocketAddr,
        target: SocketAddr,
        seed: u64,
        seen: mpsc::UnboundedSender<Sight>,
    ) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(here).await?);
        let weather = Arc::new(Mutex::new(Weather::default()));
        let stop = CancellationToken::new();
        let (stopping, current) = (stop.clone(), Arc::clone(&weather));
        let mut rng = fastrand::Rng::with_seed(seed);
        tokio::spawn(async move {
            let mut space = [0; 2048];
            loop {
                let received = tokio::select! {
                    () = stopping.cancelled() => return,
                    received = socket.recv_from(&mut space) => received,
                };
                let Ok((length, _)) = received else { continue };
                let (at, bytes) = (Instant::now(), space[..length].to_vec());
                let weather = *current.lock().unwrap_or_else(PoisonError::into_inner);
                let copies = match (rng.f64() < weather.loss, rng.f64() < weather.duplicates) {
                    (true, _) => 0,
                    (false, false) => 1,
                    (false, true) => 2,
                };
                let _ = seen.send(Sight::Datagram { at, bytes: bytes.clone(), copies });
                for _ in 0..copies {
                    if weather.late_millis == 0 {
                        let _ = socket.send_to(&bytes, target).await;
                        continue;
                    }
                    let late = Duration::from_millis(rng.u64(0..=weather.late_millis));
                    let (socket, bytes) = (Arc::clone(&socket), bytes.clone());
                    tokio::spawn(async move {
                        sleep(late).await;
                        let _ = socket.send_to(&bytes, target).await;
                    });
                }
            }
        });
        Ok(Self { weather, _stop: stop.drop_guard() })
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }
}
