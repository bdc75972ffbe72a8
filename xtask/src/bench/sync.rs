//! What a Sync costs: the first one of a large folder, and the one that brings a new message, in folders of growing size.
//!
//! One device, one connection, 14.1; bodies as HTML of at most 32 KiB. The messages are of about 2 KB, text and HTML. A Sync of one
//! new message is from the first byte of the request to the last of the answer, with the message in it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail, ensure};
use data_encoding::BASE64;
use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse, FolderType};
use directpush_common::eas::sync::{
    BodyPreference, BodyType, ServerCommand, SyncCollection, SyncOptions, SyncRequest, SyncResponse,
};
use directpush_common::eas::{CONTENT_TYPE, Version};
use directpush_common::wbxml::Limits;

use super::count;
use super::measure::percentile;
use super::ours::{Mailboxes, PASSWORD, Pair, user};
use super::report::{Report, Subject};

/// Connections that fill a folder.
const LANES: usize = 32;
/// Messages of one Sync.
const WINDOW: u32 = 100;
/// New messages that are waited for, one by one.
const NEWS: usize = 100;
const LIMITS: Limits = Limits { bytes_max: 64 << 20, nodes_max: 1 << 20 };
/// The figures of each size, the smallest first.
const NAMES: [&str; 3] = [
    "Sync of one new message, in a small folder, p50",
    "Sync of one new message, in a large folder, p50",
    "Sync of one new message, in a huge folder, p50",
];

/// Fills folders of these sizes and syncs them; the second is the one whose first Sync is shown.
pub(crate) fn measure(programs: &Path, sizes: [usize; 3], report: &mut Report) -> Result<()> {
    let mailboxes = Mailboxes::make(programs, sizes.len(), 0)?;
    let pair = Pair::start(programs, &mailboxes)?;
    let mut row = |name, unit, aim, value| report.add(Subject::Directpush, name, unit, aim, value);
    for (number, (&size, name)) in sizes.iter().zip(NAMES).enumerate() {
        println!("  directpush: a folder of {size} messages");
        fill(pair.lmtp(), &user(number), size)?;
        let mut device = Device::new(pair.http(), &user(number))?;
        let (took_secs, messages) = device.first()?;
        ensure!(messages == size, "the first Sync brought {messages} messages of {size}");
        if number == 1 {
            row("messages of the first Sync measured below", "", "", count(size));
            row("first Sync of a folder", "s", "", took_secs);
            row("the same", "messages/s", "", count(size) / took_secs);
        }
        let mut samples = Vec::with_capacity(NEWS);
        for _ in 0..NEWS {
            fill(pair.lmtp(), &user(number), 1)?;
            let began = SystemTime::now();
            let (messages, _) = device.sync()?;
            samples.push(began.elapsed().unwrap_or_default().as_secs_f64() * 1e6);
            ensure!(messages == 1, "a Sync brought {messages} messages instead of one");
        }
        samples.sort_by(f64::total_cmp);
        row(name, "µs", "the same in each", percentile(&samples, 0.5).context("no samples")?);
    }
    Ok(())
}

/// Delivers so many messages.
fn fill(lmtp: SocketAddr, to: &str, messages: usize) -> Result<()> {
    let lanes = LANES.min(messages);
    thread::scope(|scope| {
        let lane = |lane: usize| {
            scope.spawn(move || -> Result<()> {
                let mut lmtp = Lmtp::open(lmtp)?;
                (lane..messages).step_by(lanes).try_for_each(|number| lmtp.deliver(to, number))
            })
        };
        let running: Vec<_> = (0..lanes).map(lane).collect();
        running.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("a delivery panicked"))?)
    })
}

struct Lmtp(BufReader<TcpStream>);

impl Lmtp {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut this = Self(BufReader::new(stream));
        this.reply()?;
        this.say("LHLO bench\r\n")?;
        Ok(this)
    }

    fn deliver(&mut self, to: &str, number: usize) -> Result<()> {
        self.say("MAIL FROM:<sender@example.com>\r\n")?;
        self.say(&format!("RCPT TO:<{to}>\r\n"))?;
        self.say("DATA\r\n")?;
        self.say(&message(number))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.0.get_mut().write_all(line.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the back end hung up");
            ensure!(line.starts_with(['2', '3']), "LMTP: {line}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

fn message(number: usize) -> String {
    let mut text = format!(
        "From: Sender <sender@example.com>\r\nTo: load@bench\r\nSubject: Message {number}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
    );
    for line in 0..12 {
        let _ = write!(text, "Line {line} of what is said in this message.\r\n");
    }
    text += "--b\r\nContent-Type: text/html\r\n\r\n<html><body>\r\n";
    for line in 0..12 {
        let _ = write!(
            text,
            "<p style=\"color:#333\">Line {line} of <b>what</b> is said in this message.</p>\r\n"
        );
    }
    text + "</body></html>\r\n--b--\r\n.\r\n"
}

/// A device that syncs its Inbox.
struct Device {
    stream: BufReader<TcpStream>,
    head: String,
    inbox: String,
    key: String,
}

impl Device {
    fn new(fe: SocketAddr, user: &str) -> Result<Self> {
        let stream = TcpStream::connect(fe)?;
        stream.set_nodelay(true)?;
        let basic = BASE64.encode(format!("{user}:{PASSWORD}").as_bytes());
        let head = format!(
            "HTTP/1.1\r\nHost: {fe}\r\nAuthorization: Basic {basic}\r\nMS-ASProtocolVersion: 14.1\r\nContent-Type: {CONTENT_TYPE}"
        );
        let mut this =
            Self { stream: BufReader::new(stream), head, inbox: String::new(), key: "0".to_owned() };
        let answer = this.ask("FolderSync", &FolderSyncRequest { sync_key: "0".to_owned() }.encode())?;
        let FolderSyncResponse::Changes(changes) = FolderSyncResponse::decode(&answer, LIMITS)? else {
            bail!("FolderSync was refused");
        };
        let inbox = changes.added.into_iter().find(|folder| folder.kind == FolderType::Inbox);
        this.inbox = inbox.context("there is no Inbox")?.server_id;
        Ok(this)
    }

    /// From key 0 to the last message: how long, and how many.
    fn first(&mut self) -> Result<(f64, usize)> {
        let began = SystemTime::now();
        let (mut messages, mut more) = (0, true);
        self.sync()?;
        while more {
            let (brought, goes_on) = self.sync()?;
            messages += brought;
            more = goes_on;
        }
        Ok((began.elapsed()?.as_secs_f64(), messages))
    }

    /// One Sync: how many messages it brought, and whether there are more.
    fn sync(&mut self) -> Result<(usize, bool)> {
        let html = BodyPreference {
            body_type: BodyType::Html,
            truncation_size: Some(32 << 10),
            all_or_none: false,
            preview: None,
        };
        let collection = SyncCollection {
            sync_key: self.key.clone(),
            collection_id: self.inbox.clone(),
            get_changes: (self.key != "0").then_some(true),
            window_size: Some(WINDOW),
            options: vec![SyncOptions { body_preferences: vec![html], ..SyncOptions::default() }],
            ..SyncCollection::default()
        };
        let request = SyncRequest { collections: vec![collection], ..SyncRequest::default() };
        let answer = self.ask("Sync", &request.encode(Version::V14_1))?;
        let SyncResponse::Collections(collections) = SyncResponse::decode(&answer, LIMITS)? else {
            bail!("Sync was refused");
        };
        let Some(collection) = collections.into_iter().next() else { return Ok((0, false)) };
        ensure!(collection.status.code() == 1, "Sync: Status {}", collection.status);
        self.key = collection.sync_key;
        let added = collection.commands.iter().filter(|it| matches!(it, ServerCommand::Add { .. })).count();
        Ok((added, collection.more_available))
    }

    fn ask(&mut self, command: &str, body: &[u8]) -> Result<Vec<u8>> {
        let request = format!(
            "POST /Microsoft-Server-ActiveSync?Cmd={command}&DeviceId=bench&DeviceType=bench {}\r\nContent-Length: {}\r\n\r\n",
            self.head,
            body.len()
        );
        self.stream.get_mut().write_all(&[request.as_bytes(), body].concat())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "{command}: {line}");
        let mut length = 0;
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the front end hung up");
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse()?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}
