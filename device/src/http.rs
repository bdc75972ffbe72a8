//! A small HTTP/1.1 client: one connection of one device, cheap enough for ten thousand in one process.
//!
//! While it waits for an answer it holds a socket and nothing else: the buffer is allocated when the first byte
//! is there. It understands `Content-Length`, chunked bodies and bodies that end with the connection
//! (RFC 9112 6.3), and keeps the connection for the next request where the server does.
//!
//! Not here: TLS, redirects, pipelining, cookies.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, lookup_host},
};

use crate::core::{Request, Response};

/// Bytes of a response's head, at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a response's body, at most.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A server as its URL names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// `Host`.
    host: String,
    address: SocketAddr,
}

/// A URL that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Anything but http.
    #[error("{0}: only http:// is spoken; put a proxy that speaks TLS between, or use the plain port")]
    Scheme(String),
    /// No such host.
    #[error("cannot find the host of {url}")]
    Resolve {
        /// The URL.
        url: String,
        /// Why.
        source: io::Error,
    },
}

impl Server {
    /// The server at `[http://]host[:port][/]`.
    pub async fn resolve(url: &str) -> Result<Self, ServerError> {
        let rest = match url.split_once("://") {
            None => url,
            Some(("http", rest)) => rest,
            Some(_) => return Err(ServerError::Scheme(url.to_owned())),
        };
        let host = rest.split('/').next().unwrap_or_default();
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let error = |source| ServerError::Resolve { url: url.to_owned(), source };
        let address = lookup_host(&with_port).await.map_err(error)?.next();
        let address = address.ok_or_else(|| error(ErrorKind::NotFound.into()))?;
        Ok(Self { host: host.to_owned(), address })
    }

    /// The server at this address.
    pub fn at(address: SocketAddr) -> Self {
        Self { host: address.to_string(), address }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A connection, between requests or within one.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects, from `source` if one is given.
    pub async fn open(server: &Server, source: Option<IpAddr>) -> io::Result<Self> {
        let address = server.address;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends a request.
    pub async fn send(&mut self, server: &Server, authorization: &str, request: &Request) -> io::Result<()> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\n",
            request.method, request.target, server.host
        );
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", request.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&request.body);
        self.stream.write_all(&bytes).await
    }

    /// Waits for the answer and reads it whole. The flag says whether the connection can be used again.
    pub async fn receive(&mut self) -> io::Result<(Response, bool)> {
        self.stream.readable().await?;
        let mut buffer = Vec::with_capacity(1024);
        let (head_bytes, head) = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                let head = Head::parse(&buffer[..end])?;
                // 100 Continue and its like: the answer is still to come.
                if (100..200).contains(&head.status) {
                    buffer.drain(..end + 4);
                    continue;
                }
                break (end + 4, head);
            }
            if buffer.len() > HEAD_BYTES_MAX {
                return Err(bad("the head of the answer is too long"));
            }
            self.fill(&mut buffer).await?;
        };
        buffer.drain(..head_bytes);
        let (body, reusable) = match head.length {
            Length::Known(length) => {
                while buffer.len() < length {
                    self.fill(&mut buffer).await?;
                }
                (buffer, true)
            }
            Length::Chunked => (self.chunked(buffer).await?, true),
            Length::UntilClose => {
                while self.stream.read_buf(&mut buffer).await? > 0 {
                    bounded(buffer.len())?;
                }
                (buffer, false)
            }
        };
        Ok((Response { status: head.status, headers: head.headers, body }, reusable && head.keep_alive))
    }

    async fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match self.stream.read_buf(buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn chunked(&mut self, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&buffer, b"\r\n") {
                    Some(end) => break end,
                    None => self.fill(&mut buffer).await?,
                }
            };
            let size = std::str::from_utf8(&buffer[..end]).ok();
            let size = size.and_then(|line| line.split(';').next()).map(str::trim);
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| bad("a chunk without a size"))?;
            bounded(body.len().saturating_add(size))?;
            // Without trailers the last chunk ends as the others do.
            while buffer.len() < end + 2 + size + 2 {
                self.fill(&mut buffer).await?;
            }
            body.extend_from_slice(&buffer[end + 2..end + 2 + size]);
            buffer.drain(..end + 2 + size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    length: Length,
    keep_alive: bool,
}

#[derive(Debug, Eq, PartialEq)]
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the head of the answer is not text"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let version = words.next().filter(|version| version.starts_with("HTTP/1."));
        let version = version.ok_or_else(|| bad("the answer is not HTTP/1"))?;
        let status = words.next().and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| bad("the answer has no status"))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let is = |name, what: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case(what));
        let length = if is("transfer-encoding", "chunked") {
            Length::Chunked
        } else if status == 204 || status == 304 {
            Length::Known(0)
        } else {
            match value("content-length") {
                Some(length) => {
                    let length = length.parse().map_err(|_| bad("Content-Length is not a number"))?;
                    Length::Known(bounded(length)?)
                }
                None => Length::UntilClose,
            }
        };
        let keep_alive =
            !is("connection", "close") && (version == "HTTP/1.1" || is("connection", "keep-alive"));
        Ok(Self { status, headers, length, keep_alive })
    }
}

fn bounded(length: usize) -> io::Result<usize> {
    if length <= BODY_BYTES_MAX { Ok(length) } else { Err(bad("the answer is too long")) }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What the client makes of an answer of these bytes, after which the server closes.
    async fn read(answer: &'static [u8]) -> io::Result<(Response, bool)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::at(listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            from
        });
        let source = "127.0.0.9".parse().unwrap();
        let mut connection = Connection::open(&server, Some(source)).await.unwrap();
        assert_eq!(peer.await.unwrap().ip(), source);
        connection.receive().await
    }

    #[track_caller]
    fn check(got: io::Result<(Response, bool)>, status: u16, body: &str, reusable: bool) {
        let (response, again) = got.unwrap();
        assert_eq!((response.status, response.body.as_slice(), again), (status, body.as_bytes(), reusable));
    }

    #[tokio::test]
    async fn bodies_end_as_the_head_says() {
        check(read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await, 200, "ok", true);
        let close = b"HTTP/1.1 503 No\r\nConnection: close\r\ncontent-length: 0\r\nRetry-After: 7\r\n\r\n";
        let got = read(close).await;
        assert_eq!(got.as_ref().unwrap().0.retry_after(), Some(7));
        check(got, 503, "", false);
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        check(read(chunked).await, 200, "abcde", true);
        check(read(b"HTTP/1.1 200 OK\r\n\r\nto the end").await, 200, "to the end", false);
        check(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n").await, 204, "", true);
    }

    #[tokio::test]
    async fn cut_or_foreign_answers_are_errors() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(read(bytes).await.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn only_http_urls() {
        assert!(matches!(Server::resolve("https://a/").await, Err(ServerError::Scheme(_))));
        let server = Server::resolve("http://127.0.0.1:81/x").await.unwrap();
        assert_eq!(server.address(), "127.0.0.1:81".parse().unwrap());
        assert_eq!(Server::resolve("http://127.0.0.1").await.unwrap().address().port(), 80);
    }
}
