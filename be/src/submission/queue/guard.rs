//! The TCP stream below an SMTP connection, watched for two things that the SMTP client does not look at.
//!
//! - A reply has an end: a host that goes on and on within one reply is cut off.
//! - Nothing follows the reply to STARTTLS: what an attacker puts behind it in the clear would be read as
//!   if it had come encrypted (RFC 3207 6).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes received in a row, without anything sent between. Certificates of a TLS handshake fit too.
const RECEIVED_BYTES_MAX: usize = 256 * 1024;
const STARTTLS: &[u8] = b"STARTTLS\r\n";

/// See above.
pub(super) struct Guard<S> {
    stream: S,
    received: usize,
    /// What came after STARTTLS was sent, until something else is sent.
    after_starttls: Option<Vec<u8>>,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, received: 0, after_starttls: None }
    }
}

/// Whether this is one reply and no more (RFC 5321 4.2).
fn is_one_reply(bytes: &[u8]) -> bool {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let goes_on = line.get(3) == Some(&b'-');
        let is_last = lines.peek().is_none();
        if goes_on == is_last || !line.ends_with(b"\r\n") {
            return false;
        }
    }
    !bytes.is_empty()
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        self.received += new.len();
        if self.received > RECEIVED_BYTES_MAX {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other("a reply of the mail host has no end")));
        }
        if let Some(after) = &mut self.after_starttls {
            after.extend_from_slice(new);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(after) = self.after_starttls.take()
            && !is_one_reply(&after)
        {
            return Poll::Ready(Err(io::Error::other(
                "the mail host's reply to STARTTLS is followed by more",
            )));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(_)) = polled {
            self.received = 0;
            self.after_starttls = buf.starts_with(STARTTLS).then(Vec::new);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl AsyncTokioStream for Guard<TcpStream> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn after_starttls(reply: &[u8]) -> io::Result<()> {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut guard = Guard::new(near);
        guard.write_all(STARTTLS).await?;
        far.write_all(reply).await?;
        far.read_exact(&mut [0; STARTTLS.len()]).await?;
        let mut read = vec![0; reply.len()];
        guard.read_exact(&mut read).await?;
        guard.write_all(b"\x16\x03\x01").await
    }

    #[tokio::test]
    async fn nothing_may_follow_the_reply_to_starttls() {
        assert!(after_starttls(b"220 go ahead\r\n").await.is_ok());
        assert!(after_starttls(b"220-go\r\n220 ahead\r\n").await.is_ok());
        assert!(after_starttls(b"220 go ahead\r\n250 evil\r\n").await.is_err());
        assert!(after_starttls(b"220 go ahead\r\n250").await.is_err());
        assert!(after_starttls(b"220-go ahead\r\n").await.is_err());
    }

    #[tokio::test]
    async fn a_reply_without_an_end_is_cut_off() {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move { while far.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let mut read = Vec::new();
        let error = Guard::new(near).read_to_end(&mut read).await.unwrap_err();
        assert!(read.len() <= RECEIVED_BYTES_MAX && error.to_string().contains("no end"));
    }
}
