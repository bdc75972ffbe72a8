//! The connection layer: sockets in, requests to an axum `Router`, and parked connections.
//!
//! A connection is served by hyper while something happens on it and by nothing but a small
//! struct while a request waits ([`park`]) or none is made (`rest`). [`listen`] accepts, [`connection`] moves a connection
//! between its two lives, [`patience`] decides when a slow peer has had its time, [`body`] reads
//! request bodies within their bounds.
//!
//! Not here: TLS (any [`Stream`] will do), what a request means (`eas`).

pub mod body;
pub mod connection;
pub mod listen;
pub mod park;
pub mod patience;
pub mod reply;
mod rest;
#[cfg(test)]
mod tests;
mod watched;

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use park::{Parked, Seat};
pub use reply::Reply;

/// What a connection runs over: TCP now, TLS later. The addresses are asked of the stream when
/// they are needed, so that a parked connection need not remember them.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The address of the other end.
    fn peer(&self) -> Option<SocketAddr>;
    /// Our own address on this connection.
    fn local(&self) -> Option<SocketAddr>;
}

impl Stream for TcpStream {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn local(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
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
