//! The access log in W3C extended format, with the fields of the article's back end.
//!
//! Lines go to a thread of its own through a bounded queue, so that a slow disk never holds up a
//! request; what does not fit is counted and said. Written at least each second and at the stop.
//! Names that come from outside are escaped: no request can forge a line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use directpush_common::w3c;
use parking_lot::Mutex;

use crate::config;
use crate::error::Error;

const QUEUE_MAX: usize = 16_384;
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// The name under which IIS knew its first web site.
const SITE: &str = "W3SVC1";

/// One request.
pub struct Line<'a> {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub method: &'a str,
    /// Still encoded.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub user: Option<&'a str>,
    pub agent: Option<&'a [u8]>,
    pub status: u16,
    /// Bytes of the bodies.
    pub sent: u64,
    pub received: u64,
    pub taken: Duration,
}

enum Order {
    Line(String),
    Flush(SyncSender<()>),
}

/// The log. Dropping it writes what is left.
pub struct AccessLog {
    queue: Option<SyncSender<Order>>,
    lost: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl AccessLog {
    /// Opens the log; none for "no log".
    pub fn open(to: &config::AccessLog) -> Result<Option<Self>, Error> {
        let out: Box<dyn Write + Send> = match to {
            config::AccessLog::None => return Ok(None),
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => {
                let open = OpenOptions::new().create(true).append(true).open(path);
                let file: File =
                    open.map_err(Error::io(format!("open the access log {}", path.display())))?;
                Box::new(file)
            }
        };
        let (queue, orders) = sync_channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(BufWriter::new(out), &orders))
            .map_err(Error::io("start the access log's thread"))?;
        Ok(Some(Self { queue: Some(queue), lost: AtomicU64::new(0), writer: Mutex::new(Some(writer)) }))
    }

    /// Queues a line.
    pub fn write(&self, line: &Line<'_>) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(Order::Line(format(line, unix_millis()))) {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::warn!(lost, "the access log cannot keep up; lines are lost");
            }
        }
    }

    /// Returns when all that was queued is written.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.send(Order::Flush(done)).is_ok()
        {
            let _ = wait.recv();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

fn write(mut out: BufWriter<Box<dyn Write + Send>>, orders: &Receiver<Order>) {
    let mut failed = false;
    let mut check = |done: io::Result<()>| {
        if let (Err(error), false) = (&done, failed) {
            tracing::error!(%error, "cannot write the access log");
        }
        failed = done.is_err();
    };
    check(out.write_all(w3c::head(unix_millis()).as_bytes()));
    loop {
        match orders.recv_timeout(FLUSH_EVERY) {
            Ok(Order::Line(line)) => check(out.write_all(line.as_bytes())),
            Ok(Order::Flush(done)) => {
                check(out.flush());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => check(out.flush()),
            Err(RecvTimeoutError::Disconnected) => {
                check(out.flush());
                return;
            }
        }
    }
}

fn unix_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn format(line: &Line<'_>, unix_millis: i64) -> String {
    w3c::Line {
        unix_millis,
        site: SITE,
        server_ip: &line.local.ip().to_string(),
        method: line.method,
        stem: line.path,
        query: line.query.unwrap_or(""),
        port: line.local.port(),
        user: line.user.unwrap_or(""),
        client_ip: &line.peer.ip().to_string(),
        agent: &String::from_utf8_lossy(line.agent.unwrap_or(b"")),
        status: line.status,
        sent: line.sent,
        received: line.received,
        taken_millis: u64::try_from(line.taken.as_millis()).unwrap_or(u64::MAX),
    }
    .format()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_as_the_article_shows_it() {
        let line = Line {
            local: "192.168.50.20:80".parse().unwrap(),
            peer: "192.168.50.21:4711".parse().unwrap(),
            method: "SUBSCRIBE",
            path: "/exchange/alice@example.com/Inbox/",
            query: None,
            user: Some("alice@example.com"),
            agent: Some(b"Microsoft-Server-ActiveSync/6.5 \nGET / forged\xff"),
            status: 200,
            sent: 0,
            received: 17,
            taken: Duration::from_millis(3),
        };
        let at: jiff::Timestamp = "2011-10-29T17:35:56Z".parse().unwrap();
        assert_eq!(
            format(&line, at.as_millisecond()),
            "2011-10-29 17:35:56 W3SVC1 192.168.50.20 SUBSCRIBE /exchange/alice@example.com/Inbox/ - 80 \
             alice@example.com 192.168.50.21 Microsoft-Server-ActiveSync/6.5+%0AGET+/+forged\u{fffd} 200 0 0 0 17 3\n"
        );
    }
}
