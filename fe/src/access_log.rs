//! The access log: one W3C extended line per request, buffered, on disk within a second.
//!
//! Lines are made by `common::w3c`; they hold no credentials, subjects or bodies. Writing never
//! holds up a request: a disk that does not keep up costs lines, which are counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use directpush_common::w3c::{self, Line};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::http::Ends;

/// Bytes of lines not yet written; more are dropped.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// A line is on its way to the disk after this long.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// A front end's access log; without a file it keeps nothing.
#[derive(Default)]
pub struct AccessLog {
    buffer: Mutex<Buffer>,
    filled: Notify,
    on: bool,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
}

/// A request as the log tells of it; the rest of the line is filled in here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry<'a> {
    /// Method.
    pub method: &'a str,
    /// Path as received.
    pub stem: &'a str,
    /// Query as the log shows it.
    pub query: &'a str,
    /// Who, if known.
    pub user: &'a str,
    /// User-Agent.
    pub agent: &'a str,
    /// HTTP status.
    pub status: u16,
    /// Bytes out and in.
    pub sent: u64,
    /// Bytes in.
    pub received: u64,
    /// Milliseconds.
    pub taken_millis: u64,
}

impl AccessLog {
    /// Opens the file, to append to it. The task that writes is [`run`].
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<(Arc<Self>, Option<File>)> {
        let Some(path) = path else { return Ok((Arc::new(Self::default()), None)) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let head = w3c::head(jiff::Timestamp::now().as_millisecond()).into_bytes();
        let buffer = Mutex::new(Buffer { lines: head, dropped: 0 });
        Ok((Arc::new(Self { buffer, filled: Notify::new(), on: true }), Some(file)))
    }

    /// Whether anybody reads it: a line costs a little to make.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Adds a line.
    pub fn write(&self, ends: Ends, entry: &Entry<'_>) {
        if !self.on {
            return;
        }
        let ip = |address: Option<std::net::SocketAddr>| {
            address.map(|address| address.ip().to_canonical().to_string()).unwrap_or_default()
        };
        let line = Line {
            unix_millis: jiff::Timestamp::now().as_millisecond(),
            site: "fe",
            server_ip: &ip(ends.local),
            method: entry.method,
            stem: entry.stem,
            query: entry.query,
            port: ends.local.map_or(0, |local| local.port()),
            user: entry.user,
            client_ip: &ip(ends.peer),
            agent: entry.agent,
            status: entry.status,
            sent: entry.sent,
            received: entry.received,
            taken_millis: entry.taken_millis,
        }
        .format();
        let mut buffer = self.buffer.lock();
        if buffer.lines.len() + line.len() > BUFFER_BYTES_MAX {
            buffer.dropped += 1;
            return;
        }
        buffer.lines.extend_from_slice(line.as_bytes());
        drop(buffer);
        self.filled.notify_one();
    }

    fn take(&self) -> (Vec<u8>, u64) {
        let mut buffer = self.buffer.lock();
        (std::mem::take(&mut buffer.lines), std::mem::take(&mut buffer.dropped))
    }
}

/// Writes what was logged, until `stop`, and then the rest.
pub async fn run(log: Arc<AccessLog>, file: File, stop: CancellationToken) {
    let mut file = Some(file);
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            () = async { log.filled.notified().await; sleep(FLUSH_AFTER).await } => false,
        };
        let (lines, dropped) = log.take();
        if dropped > 0 {
            tracing::warn!(dropped, "the access log could not keep up");
        }
        let Some(mut open) = file.take() else { return };
        let written = tokio::task::spawn_blocking(move || {
            let outcome = open.write_all(&lines);
            (open, outcome)
        });
        match written.await {
            Ok((open, outcome)) => {
                if let Err(error) = outcome {
                    tracing::error!(%error, "the access log cannot be written");
                }
                file = Some(open);
            }
            Err(_) => return,
        }
        if stopping {
            return;
        }
    }
}
