//! The devices of a load: made, prepared up to their first Ping, parked.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use directpush_common::eas::{Version, folder_sync::FolderType};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Watcher};
use crate::{
    core::{Kind, Phone, Profile},
    drive::{Clock, Drive, Gate, Wish, basic},
    http::Server,
};

/// Devices that get prepared at the same time.
const PREPARING_AT_ONCE: usize = 64;
/// Mail folders that every mailbox has, in the order in which they are watched.
const FOLDERS: [FolderType; 5] =
    [FolderType::Inbox, FolderType::Sent, FolderType::Drafts, FolderType::Deleted, FolderType::Outbox];

/// A user and the password.
#[derive(Clone)]
pub struct Account {
    /// Login name, also the address for mail.
    pub user: String,
    /// The password.
    pub password: String,
}

/// How the devices are.
#[derive(Clone, Debug)]
pub struct Fashion {
    /// How many.
    pub devices: usize,
    /// Folders that each watches.
    pub folders: usize,
    /// Seconds of its heartbeat.
    pub heartbeat_secs: u32,
    /// Source addresses, from 127.0.0.2 up; 0 = the system's choice.
    pub sources: u8,
    /// Protocol version.
    pub version: Version,
}

/// All devices, running.
pub struct Fleet {
    /// Where they stand.
    pub board: Arc<Board>,
    accounts: Vec<Account>,
    servers: Vec<Server>,
    fashion: Fashion,
    gate: watch::Sender<Gate>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    wishes: Vec<mpsc::Sender<Wish>>,
    clock: Clock,
}

impl Fleet {
    /// The devices, not made yet. Device n belongs to account n, round about, and connects to server n.
    pub fn new(servers: Vec<Server>, accounts: Vec<Account>, fashion: Fashion) -> Self {
        Self {
            board: Board::new(fashion.devices),
            accounts,
            servers,
            gate: watch::channel(Gate::NoPing).0,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            wishes: Vec::new(),
            clock: Clock::start(),
            fashion,
        }
    }

    /// How many devices.
    pub fn size(&self) -> usize {
        self.fashion.devices
    }

    /// The address of a device's user.
    pub fn address(&self, device: usize) -> &str {
        &self.accounts[device % self.accounts.len()].user
    }

    /// The devices of the same user as `device`.
    pub fn siblings(&self, device: usize) -> impl Iterator<Item = usize> + use<> {
        let step = self.accounts.len();
        (device % step..self.fashion.devices).step_by(step)
    }

    /// Brings every device up to its first Ping. Says how many are, and how long it took.
    pub async fn prepare(&mut self, progress: impl Fn(u64)) -> (usize, Duration) {
        let began = Instant::now();
        let turns = Arc::new(Semaphore::new(PREPARING_AT_ONCE));
        for device in self.wishes.len()..self.fashion.devices {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { break };
            let watcher = Watcher {
                board: Arc::clone(&self.board),
                device,
                turn: Some(turn),
                parked: false,
                ready: false,
            };
            self.start(device, watcher);
            progress(self.board.ready.load(Ordering::Relaxed) as u64);
        }
        let ready = |board: &Board| board.ready.load(Ordering::Relaxed);
        let all = self.fashion.devices;
        let done = |board: &Board| {
            progress(ready(board) as u64);
            ready(board) + board.stopped.load(Ordering::Relaxed) >= all
        };
        self.board.wait_for(began + Duration::from_hours(1), done).await;
        (ready(&self.board), began.elapsed())
    }

    fn start(&mut self, device: usize, watcher: Watcher) {
        let account = &self.accounts[device % self.accounts.len()];
        let id = format!("load{device:028}");
        let profile = Profile::new(&account.user, &id, Kind::Fixed(self.fashion.heartbeat_secs));
        let (wishes, wishes_out) = mpsc::channel(1);
        self.wishes.push(wishes);
        let Ok(mut profile) = profile else { return };
        profile.version = self.fashion.version;
        profile.watch = FOLDERS[..self.fashion.folders.clamp(1, FOLDERS.len())].to_vec();
        let drive = Drive {
            server: self.servers[device % self.servers.len()].clone(),
            source: source(self.fashion.sources, device),
            authorization: basic(&account.user, &account.password),
            observer: watcher,
            wishes: wishes_out,
            clock: self.clock,
            gate: self.gate.subscribe(),
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let (phone, trouble) = drive.run(Phone::new(profile), stop).await;
            if let Some(trouble) = trouble {
                eprintln!("{}: {trouble}", phone.profile().user);
            }
        });
    }

    /// Lets all Pings out and waits until every one is, or `until`.
    pub async fn park(&self, until: Instant, progress: impl Fn(u64)) -> usize {
        self.gate.send_replace(Gate::Open);
        let out = |board: &Board| board.parked.load(Ordering::Relaxed);
        let done = |board: &Board| {
            progress(out(board) as u64);
            out(board) + board.stopped.load(Ordering::Relaxed) >= self.fashion.devices
        };
        self.board.wait_for(until, done).await;
        out(&self.board)
    }

    /// What devices may ask whose requests were answered.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Ends all devices.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn source(sources: u8, device: usize) -> Option<IpAddr> {
    let number = u8::try_from(device % usize::from(sources.max(1))).ok()?;
    (sources > 0).then(|| Ipv4Addr::new(127, 0, 0, number.saturating_add(2)).into())
}
