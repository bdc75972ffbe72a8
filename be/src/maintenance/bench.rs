//! Figures of a whole back end that holds many items, for `cargo xtask bench`: what changes cost to tell,
//! what a delivery costs, and what memory and a start do.
//!
//! The server is started in this process and asked over HTTP, on loopback, as a front end asks it. Items are
//! made by the mailbox model, some hundred to a commit, and share one body. Not here: the store by itself
//! (`store::bench`).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use directpush_common::change::Maker;
use directpush_common::dav::items::ItemsRequest;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{AccessLog, Config};
use crate::error::Error;
use crate::mailbox::Mailboxes;
use crate::mailbox::folders::INBOX;
use crate::mailbox::items::NewItem;
use crate::start::{Running, run};
use crate::store::bench::memory_bytes;
use crate::store::{BodyId, Progress, Watch};

/// Folders whose changes are asked for hold so many items, and as many as were asked for.
const SIZES: [u64; 3] = [10, 1_000, 100_000];
/// Items made in one commit.
const AT_ONCE: u64 = 250;
/// Changes told by one REPORT.
const CHANGES: u64 = 10;
/// REPORTs measured for each folder, after some that are not.
const ASKED: usize = 300;
const UNMEASURED: usize = 20;
/// How long deliveries are measured.
const SPAN: Duration = Duration::from_secs(5);
/// A message, in bytes.
const MESSAGE_BYTES: usize = 4096;
const PASSWORD: &str = "measured";

/// What was measured; times in milliseconds or microseconds as the names say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scale {
    /// Items of the largest mailbox.
    pub items: u64,
    /// Items made per second.
    pub filled_per_sec: u64,
    /// REPORT `sync-collection` with ten changes: items of the folder, median, and the 99th percentile.
    pub sync_us: Vec<(u64, u64, u64)>,
    /// Messages of 4 KiB delivered per second, each with its body, to as many mailboxes at once.
    pub deliveries_per_sec: Vec<(usize, u64)>,
    /// From the start of the closed server to its first answer.
    pub start_ms: u64,
    /// This process's memory then, and the most that it has been before.
    pub resident_bytes: u64,
    /// See `resident_bytes`.
    pub peak_bytes: u64,
}

/// Makes a back end in `dir` with one mailbox of `items`, and measures it. Takes minutes.
///
/// # Errors
/// Whatever keeps it from starting, or from answering.
pub async fn measure(config: &Config, dir: &Path, items: u64, watch: Watch<'_>) -> Result<Scale, Error> {
    let mut config = Config { state_dir: dir.to_owned(), ..config.clone() };
    config.http_listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.lmtp_listen = Vec::new();
    config.admin_socket = None;
    config.access_log = AccessLog::None;
    config.smart_host = None;
    (config.quota.bytes, config.quota.items) = (u64::MAX / 2, u64::MAX / 2);
    let mut sizes: Vec<u64> = SIZES.iter().copied().filter(|size| *size < items).collect();
    sizes.push(items);
    let mut scale = Scale { items, ..Scale::default() };
    let mut tell = |phase, done, total| watch(Progress { phase, done, total });

    let stop = CancellationToken::new();
    let running = run(config.clone(), stop.clone()).await?;
    let boxes = running.server().boxes.clone();
    let body = boxes.store.bodies.put(Bytes::from(vec![b'x'; MESSAGE_BYTES])).await?;
    let (begun, mut filled) = (Instant::now(), 0);
    let total: u64 = sizes.iter().sum();
    for size in &sizes {
        let mailbox = mailbox_of(&running, *size).await?;
        let mut left = *size;
        while left > 0 {
            let some = left.min(AT_ONCE);
            fill(&boxes, mailbox, body, some).await?;
            left -= some;
            filled += some;
            tell("fill", filled, total);
        }
    }
    scale.filled_per_sec = per_sec(filled, begun);
    for size in &sizes {
        tell("sync", 0, 0);
        scale.sync_us.push(sync(&running, *size, body).await?);
    }
    for writers in [1, 64] {
        tell("deliveries", 0, 0);
        scale.deliveries_per_sec.push((writers, deliveries(&running, writers).await?));
    }
    scale.peak_bytes = memory_bytes("VmHWM:");
    drop(boxes);
    stop.cancel();
    running.finished().await?;

    tell("start", 0, 0);
    let (stop, begun) = (CancellationToken::new(), Instant::now());
    let running = run(config, stop.clone()).await?;
    let mut asker = Asker::connect(&running, &name_of(items)).await?;
    let since = ItemsRequest::Walk { before: None, limit: 10 };
    asker.report(&since).await?;
    scale.start_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    scale.resident_bytes = memory_bytes("VmRSS:");
    stop.cancel();
    running.finished().await?;
    Ok(scale)
}

fn name_of(size: u64) -> String {
    format!("holds-{size}")
}

async fn mailbox_of(running: &Running, size: u64) -> Result<u64, Error> {
    let server = running.server();
    let name = name_of(size).parse().map_err(|_| Error::Conflict("a name that is none"))?;
    if let Some(account) = server.boxes.users.account(&name).await? {
        return Ok(account.mailbox);
    }
    let hash = server.auth.hash(PASSWORD.to_owned()).await?;
    Ok(server.boxes.add_user(&name, hash).await?.mailbox)
}

fn item(body: BodyId) -> NewItem {
    let size = MESSAGE_BYTES as u64;
    NewItem { body, size, content_type: "message/rfc822".into(), date: 1_700_000_000, read: false }
}

/// Adds so many items to an Inbox in one commit.
async fn fill(boxes: &Arc<Mailboxes>, mailbox: u64, body: BodyId, count: u64) -> Result<(), Error> {
    boxes
        .write(mailbox, move |mut writer| async move {
            let mut draft = writer.draft();
            for _ in 0..count {
                draft.deliver(INBOX, item(body), Maker::default())?;
            }
            writer.commit(draft).await
        })
        .await
}

/// Asks for the last changes of a folder, over and over.
async fn sync(running: &Running, size: u64, body: BodyId) -> Result<(u64, u64, u64), Error> {
    let boxes = &running.server().boxes;
    let mailbox = mailbox_of(running, size).await?;
    let since = boxes.state(mailbox).await?.token(INBOX)?;
    fill(boxes, mailbox, body, CHANGES).await?;
    let request = ItemsRequest::Changes { since: Some(since), limit: 100 };
    let mut asker = Asker::connect(running, &name_of(size)).await?;
    let mut took = Vec::with_capacity(ASKED);
    for round in 0..ASKED + UNMEASURED {
        let begun = Instant::now();
        let answer = asker.report(&request).await?;
        if round >= UNMEASURED {
            took.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        if answer.matches("<D:response>").count() as u64 != CHANGES {
            return Err(Error::Conflict("a REPORT told of more or fewer changes than there are"));
        }
    }
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    Ok((size, at(50), at(99)))
}

/// Messages per second, to as many mailboxes as there are writers.
async fn deliveries(running: &Running, writers: usize) -> Result<u64, Error> {
    let mut mailboxes = Vec::with_capacity(writers);
    for n in 0..writers {
        let name = format!("receives-{n}-of-{writers}");
        let user = name.parse().map_err(|_| Error::Conflict("a name that is none"))?;
        mailboxes.push(running.server().boxes.add_user(&user, "!".into()).await?.mailbox);
    }
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for mailbox in mailboxes {
        let boxes = running.server().boxes.clone();
        tasks.spawn(async move {
            let mut delivered = 0;
            while begun.elapsed() < SPAN {
                let body = boxes.store.bodies.put(Bytes::from(vec![b'y'; MESSAGE_BYTES])).await?;
                boxes.add(mailbox, INBOX, item(body), Maker::default()).await?;
                delivered += 1;
            }
            Ok::<u64, Error>(delivered)
        });
    }
    let mut delivered = 0;
    while let Some(done) = tasks.join_next().await {
        delivered += done.map_err(|_| Error::Task)??;
    }
    Ok(per_sec(delivered, begun))
}

fn per_sec(count: u64, begun: Instant) -> u64 {
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    count * 1000 / millis.max(1)
}

/// A connection to the server, with a user's password.
struct Asker {
    connection: TcpStream,
    head: String,
    read: Vec<u8>,
}

impl Asker {
    async fn connect(running: &Running, name: &str) -> Result<Self, Error> {
        let fail = Error::io("connect to the server that is measured");
        let connection = TcpStream::connect(running.http).await.map_err(fail)?;
        let credentials = BASE64.encode(format!("{name}:{PASSWORD}").as_bytes());
        let head = format!(
            "REPORT /exchange/{name}/Inbox/ HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Type: text/xml\r\n",
            running.http
        );
        Ok(Self { connection, head, read: Vec::new() })
    }

    /// Asks and answers the body.
    async fn report(&mut self, request: &ItemsRequest) -> Result<String, Error> {
        let body = request.write();
        let text = format!("{}Content-Length: {}\r\n\r\n{body}", self.head, body.len());
        let fail = || Error::io("ask the server that is measured");
        self.connection.write_all(text.as_bytes()).await.map_err(fail())?;
        self.read.clear();
        loop {
            if let Some(body) = whole(&self.read) {
                return Ok(body);
            }
            if self.connection.read_buf(&mut self.read).await.map_err(fail())? == 0 {
                return Err(fail()(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// The body of an answer, once all of it has come.
fn whole(read: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(read).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (body.len() >= length?).then(|| body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_of_its_body_is_there() {
        let answer = "HTTP/1.1 207 Multi-Status\r\nContent-Length: 5\r\n\r\nhello";
        for length in 0..answer.len() {
            assert_eq!(whole(&answer.as_bytes()[..length]), None, "{length}");
        }
        assert_eq!(whole(answer.as_bytes()).as_deref(), Some("hello"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_back_end_is_measured() {
        let scratch = tempfile::tempdir().unwrap();
        let config = Config::loopback(scratch.path());
        let scale = measure(&config, &scratch.path().join("state"), 300, &mut |_| ()).await.unwrap();
        assert_eq!(scale.sync_us.iter().map(|(size, ..)| *size).collect::<Vec<_>>(), [10, 300]);
        assert!(scale.deliveries_per_sec.iter().all(|(_, rate)| *rate > 0));
    }
}
