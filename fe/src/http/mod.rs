//! The connection layer: sockets in, requests to an axum `Router`, and parked connections.
//!
//! A connection is served by hyper while something happens on it and by nothing but a small
//! struct while a request waits ([`park`]; its socket stands in the `lot`) or none is made (`rest`). [`listen`] accepts, [`connection`] moves a connection
//! between its two lives, [`patience`] decides when a slow peer has had its time, [`body`] reads
//! request bodies within their bounds, [`gzip`] compresses answers.
//!
//! Not here: TLS (any [`Stream`] will do), what a request means (`eas`).

pub mod body;
pub mod connection;
pub mod gzip;
pub mod listen;
mod lot;
pub mod park;
pub mod patience;
pub mod reply;
mod rest;
#[cfg(test)]
mod tests;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use park::{Parked, Seat};
pub use reply::Reply;

/// What a connection runs over: TCP now, TLS later. The addresses are asked of the stream when
/// they are needed, so that a parked connection need not remember them.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// It while its connection is parked.
    type Still: Still<Stream = Self>;

    /// Takes it out of the runtime's hands.
    ///
    /// # Errors
    /// When the runtime does not let go of it; it is closed then.
    fn into_still(self) -> io::Result<Self::Still>;
    /// The address of the other end.
    fn peer(&self) -> Option<SocketAddr>;
    /// Our own address on this connection.
    fn local(&self) -> Option<SocketAddr>;
}

/// A stream that nothing happens on, as small as can be. Reading from it does not block.
pub trait Still: io::Read + AsFd + Unpin + Send + 'static {
    /// It when something happens again.
    type Stream;

    /// Gives it back to the runtime.
    ///
    /// # Errors
    /// When the runtime has no room for it; it is closed then.
    fn into_stream(self) -> io::Result<Self::Stream>;
}

impl Stream for TcpStream {
    type Still = std::net::TcpStream;

    fn into_still(self) -> io::Result<Self::Still> {
        self.into_std()
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn local(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }
}

impl Still for std::net::TcpStream {
    type Stream = TcpStream;

    fn into_stream(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self)
    }
}

/// The two ends of the connection that a request came on, as a request extension.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who asks.
    pub peer: Option<SocketAddr>,
    /// Where they reached us.
    pub local: Option<SocketAddr>,
}
