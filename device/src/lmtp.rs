//! An LMTP client (RFC 2033): hands messages to the back end as an MTA does.
//!
//! One connection, one transaction at a time. The moment of each recipient's answer is kept, because the time
//! from there to the device is what the load driver measures.

use std::{io, net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UnixStream},
    time::Instant,
};

/// Where LMTP is taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(Box<Path>),
}

impl std::str::FromStr for LmtpAddress {
    type Err = std::net::AddrParseError;

    /// `host:port`, or a path that begins with a slash (`unix:` may stand before it).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            Ok(Self::Unix(Path::new(path).into()))
        } else {
            text.parse().map(Self::Tcp)
        }
    }
}

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum LmtpError {
    /// The connection failed.
    #[error("LMTP: {0}")]
    Io(#[from] io::Error),
    /// The server refused.
    #[error("LMTP: {after} is answered {reply}")]
    Refused {
        /// After which command.
        after: &'static str,
        /// The answer.
        reply: String,
    },
}

/// The answer for one recipient after the message was sent.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The reply line: `250 …` = it would survive a power cut.
    pub reply: String,
    /// When it was read.
    pub at: Instant,
}

impl Delivered {
    /// Whether the message is delivered.
    pub fn is_ok(&self) -> bool {
        self.reply.starts_with("250")
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection after its greeting.
pub struct Lmtp {
    stream: BufReader<Box<dyn Stream>>,
}

impl Lmtp {
    /// Connects and says LHLO.
    pub async fn connect(address: &LmtpAddress) -> Result<Self, LmtpError> {
        let stream: Box<dyn Stream> = match address {
            LmtpAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            LmtpAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let mut this = Self { stream: BufReader::new(stream) };
        this.expect("connecting", '2').await?;
        this.command("LHLO directpush.invalid\r\n", "LHLO", '2').await?;
        Ok(this)
    }

    /// Delivers one message (with CRLF line ends) to `recipients`; one answer for each that was accepted.
    pub async fn deliver(
        &mut self,
        from: &str,
        recipients: &[&str],
        message: &[u8],
    ) -> Result<Vec<Delivered>, LmtpError> {
        self.command(&format!("MAIL FROM:<{from}>\r\n"), "MAIL", '2').await?;
        for recipient in recipients {
            if let Err(error) = self.command(&format!("RCPT TO:<{recipient}>\r\n"), "RCPT", '2').await {
                self.command("RSET\r\n", "RSET", '2').await?;
                return Err(error);
            }
        }
        self.command("DATA\r\n", "DATA", '3').await?;
        let mut data = Vec::with_capacity(message.len() + 16);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                data.push(b'.');
            }
            data.extend_from_slice(line);
        }
        if !data.ends_with(b"\r\n") {
            data.extend_from_slice(b"\r\n");
        }
        data.extend_from_slice(b".\r\n");
        self.stream.write_all(&data).await?;
        self.stream.flush().await?;
        let mut answers = Vec::with_capacity(recipients.len());
        for _ in recipients {
            let reply = self.reply().await?;
            answers.push(Delivered { reply, at: Instant::now() });
        }
        Ok(answers)
    }

    async fn command(&mut self, line: &str, name: &'static str, class: char) -> Result<(), LmtpError> {
        self.stream.write_all(line.as_bytes()).await?;
        self.stream.flush().await?;
        self.expect(name, class).await
    }

    async fn expect(&mut self, after: &'static str, class: char) -> Result<(), LmtpError> {
        let reply = self.reply().await?;
        if reply.starts_with(class) { Ok(()) } else { Err(LmtpError::Refused { after, reply }) }
    }

    /// The last line of a reply.
    async fn reply(&mut self) -> Result<String, LmtpError> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}
