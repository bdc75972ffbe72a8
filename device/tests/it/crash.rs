//! Issue 3's crash test: a back end that is killed at random moments under mixed load, and whose index is now and then
//! damaged or removed between two lives. Nothing acknowledged is lost, nothing is half there, it always opens, and old
//! tokens go on.
//!
//! Each client has a mailbox of its own and does one thing at a time, so that at most its last request is in doubt.
//! `DIRECTPUSH_CRASH_ROUNDS` and `DIRECTPUSH_CRASH_SEED` set how many lives and which. Power cuts are the store's tests.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Seek as _, SeekFrom, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use directpush_common::{
    dav::hierarchy::Class,
    names::{DeviceKey, FolderId, ItemId},
};
use directpush_device::{
    lmtp::{Lmtp, LmtpAddress, LmtpError},
    load::mail::message,
    pair::Seat,
};
use fastrand::Rng;
use tokio::time::sleep;

use crate::{
    dav::{Dav, View, text},
    process::Process,
};

const CLIENTS: usize = 4;
/// Messages that a client keeps, about.
const KEPT: usize = 16;
/// How long a life's load goes on, in milliseconds.
const LIFE: std::ops::Range<u64> = 10..150;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_and_tears_nothing() {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (rounds, seed) = (number("DIRECTPUSH_CRASH_ROUNDS", 12), number("DIRECTPUSH_CRASH_SEED", 3));
    println!("{rounds} rounds, DIRECTPUSH_CRASH_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false)];
    let mut rng = Rng::with_seed(seed);
    let mut clients = Vec::new();
    let mut acknowledged = 0;
    for round in 0..=rounds {
        let server = Process::backend(dir.path(), &seats, None, if round == 0 { CLIENTS } else { 0 });
        if round == 0 {
            for n in 0..CLIENTS {
                clients.push(Client::new(server.http, &seats[0], n, rng.fork()).await);
            }
        }
        let mut tasks = Vec::new();
        for mut client in clients.drain(..) {
            let http = server.http;
            tasks.push(tokio::spawn(async move {
                client.check(http, round).await;
                client
            }));
        }
        for task in tasks {
            clients.push(task.await.unwrap());
        }
        if round == rounds {
            break;
        }
        let mut tasks = Vec::new();
        for mut client in clients.drain(..) {
            let lmtp = server.lmtp();
            tasks.push(tokio::spawn(async move {
                client.work(&lmtp).await;
                client
            }));
        }
        sleep(Duration::from_millis(rng.u64(LIFE))).await;
        server.kill();
        for task in tasks {
            clients.push(task.await.unwrap());
        }
        if rng.u8(..4) == 0 {
            damage(&dir.path().join("store/index"), &mut rng);
        }
    }
    for client in &clients {
        acknowledged += client.acknowledged;
    }
    println!("{acknowledged} changes were acknowledged");
    assert!(acknowledged > 2 * rounds, "only {acknowledged} changes were acknowledged");
}

/// What becomes of an index on a bad day: gone, cut, or overwritten here and there.
fn damage(index: &Path, rng: &mut Rng) {
    if rng.u8(..3) == 0 {
        fs::remove_dir_all(index).unwrap();
        return;
    }
    let files = fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for path in files {
        let file = fs::File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len().max(1);
        if rng.bool() {
            file.set_len(rng.u64(..length)).unwrap();
            continue;
        }
        for _ in 0..4 {
            let noise: Vec<u8> = (0..64).map(|_| rng.u8(..)).collect();
            (&file).seek(SeekFrom::Start(rng.u64(..length))).unwrap();
            (&file).write_all(&noise).unwrap();
        }
    }
}

/// A message, by its subject.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Mail {
    folder: FolderId,
    read: bool,
    text: String,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Model {
    mails: BTreeMap<String, Mail>,
    /// The device's object.
    state: Option<String>,
}

#[derive(Clone, Debug)]
enum Change {
    Add(String, Mail),
    Read(String, bool),
    Move(String, FolderId),
    Delete(String),
    State(String),
}

impl Model {
    fn after(&self, change: &Change) -> Self {
        let mut model = self.clone();
        match change.clone() {
            Change::Add(subject, mail) => {
                model.mails.insert(subject, mail);
            }
            Change::Read(subject, read) => model.mails.get_mut(&subject).unwrap().read = read,
            Change::Move(subject, folder) => model.mails.get_mut(&subject).unwrap().folder = folder,
            Change::Delete(subject) => {
                model.mails.remove(&subject);
            }
            Change::State(state) => model.state = Some(state),
        }
        model
    }
}

struct Client {
    dav: Dav,
    address: String,
    folders: Vec<FolderId>,
    /// Friendly URLs.
    urls: BTreeMap<FolderId, String>,
    inbox: FolderId,
    views: BTreeMap<FolderId, View>,
    /// Who bore which id, ever.
    subjects: BTreeMap<ItemId, String>,
    model: Model,
    doubt: Option<Change>,
    acknowledged: u64,
    next: u64,
    rng: Rng,
}

impl Client {
    async fn new(http: SocketAddr, seat: &Seat, number: usize, rng: Rng) -> Self {
        let address = format!("user{number}@example.com");
        let mut dav = Dav::front_end(http, seat, &address).await.unwrap();
        let folders = dav.hierarchy().await.unwrap();
        let mail = folders.iter().filter(|folder| folder.class == Class::Email);
        let mail: Vec<FolderId> = mail.map(|folder| folder.id).take(4).collect();
        let inbox = folders.iter().find(|folder| folder.folder_type == 2).unwrap().id;
        assert!(mail.contains(&inbox));
        Self {
            dav,
            address,
            views: mail.iter().map(|folder| (*folder, View::default())).collect(),
            folders: mail,
            urls: folders.into_iter().map(|folder| (folder.id, folder.url)).collect(),
            inbox,
            subjects: BTreeMap::new(),
            model: Model::default(),
            doubt: None,
            acknowledged: 0,
            next: 0,
            rng,
        }
    }

    fn state_url(&self) -> String {
        format!("{}FolderSyncFile", DeviceKey::new("PocketPC", "crash").unwrap().state_url(&self.dav.user))
    }

    /// Compares all there is with all that was acknowledged; what was in doubt is not afterwards.
    async fn check(&mut self, http: SocketAddr, round: u64) {
        self.dav.moved_to(http);
        let mut found = Model::default();
        for folder in self.folders.clone() {
            let view = self.views.get_mut(&folder).unwrap();
            view.sync(&mut self.dav, folder).await.unwrap();
            let mut anew = View::default();
            anew.sync(&mut self.dav, folder).await.unwrap();
            assert_eq!(*view, anew, "round {round}: going on from a token and starting anew differ");
            for (id, (_, live)) in anew.items {
                let url = folder.item_url(&self.dav.user, id);
                let got = self.dav.done("GET", &url, &[], b"").await.unwrap();
                assert_eq!(got.body.len() as u64, live.size, "round {round}: {url}");
                let (subject, text) = read(&text(&got));
                let known = self.subjects.entry(id).or_insert_with(|| subject.clone());
                assert_eq!(*known, subject, "round {round}: the number {id} was given twice");
                let twin = found.mails.insert(subject, Mail { folder, read: live.read, text });
                assert_eq!(twin, None, "round {round}: {known} is there twice");
            }
        }
        let state = self.dav.ask("GET", &self.state_url(), &[], b"").await.unwrap();
        found.state = (state.status == 200).then(|| text(&state));
        if found != self.model {
            let doubt = self.doubt.take();
            let other = doubt.as_ref().map(|change| self.model.after(change));
            assert_eq!(Some(&found), other.as_ref(), "round {round}: not {:?} either", self.model);
            self.model = found;
        }
        self.doubt = None;
    }

    /// Does one thing after the other until the server is gone.
    async fn work(&mut self, lmtp: &LmtpAddress) {
        let Ok(mut lmtp) = Lmtp::connect(lmtp).await else { return };
        while self.one_thing(&mut lmtp).await.is_ok() {}
        self.dav.moved_to(SocketAddr::from(([127, 0, 0, 1], 1)));
    }

    async fn one_thing(&mut self, lmtp: &mut Lmtp) -> io::Result<()> {
        let known: Vec<(ItemId, String)> = self
            .views
            .values()
            .flat_map(|view| view.items.keys())
            .map(|id| (*id, self.subjects.get(id).cloned().unwrap_or_default()))
            .collect();
        let dice = self.rng.u8(..100);
        let change = match self.rng.choice(&known) {
            Some((_, subject)) if dice < 25 => Change::Read(subject.clone(), !self.model.mails[subject].read),
            Some((_, subject)) if dice < 45 => {
                let here = self.model.mails[subject].folder;
                let others: Vec<FolderId> = self.folders.iter().copied().filter(|id| *id != here).collect();
                Change::Move(subject.clone(), self.rng.choice(others).unwrap())
            }
            Some((_, subject)) if known.len() > KEPT || dice < 50 => Change::Delete(subject.clone()),
            _ if dice < 65 => Change::State(format!("{{\"round\": {}}}", self.rng.u64(..))),
            _ => {
                self.next += 1;
                let size = if self.rng.u8(..8) == 0 { 60_000 } else { 400 };
                let lines =
                    (0..self.rng.usize(1..size) / 40).map(|n| format!("line {n} of {size} bytes, about\r\n"));
                let folder =
                    if dice < 90 { self.inbox } else { self.rng.choice(self.folders.clone()).unwrap() };
                let text = lines.chain(["The end.".to_owned()]).collect();
                Change::Add(format!("message {}", self.next), Mail { folder, read: false, text })
            }
        };
        self.doubt = Some(change.clone());
        match &change {
            Change::Add(subject, mail) => {
                let whole = message("bob@example.org", &self.address, subject, &mail.text);
                if mail.folder == self.inbox && self.rng.bool() {
                    let answers = lmtp.deliver("bob@example.org", &[&self.address], whole.as_bytes()).await;
                    match answers {
                        Ok(answers) => assert!(answers[0].is_ok(), "{}", answers[0].reply),
                        Err(LmtpError::Io(error)) => return Err(error),
                        Err(refused) => panic!("{refused}"),
                    }
                } else {
                    let url = format!("{}{}.eml", self.urls[&mail.folder], subject.replace(' ', "-"));
                    self.dav.done("PUT", &url, &[], whole.as_bytes()).await?;
                }
            }
            Change::Read(subject, read) => {
                self.dav.set_read(&self.url(subject), *read).await?;
            }
            Change::Move(subject, folder) => {
                self.dav.move_into(&self.url(subject), *folder).await?;
            }
            Change::Delete(subject) => {
                self.dav.done("DELETE", &self.url(subject), &[], b"").await?;
            }
            Change::State(state) => {
                self.dav.done("PUT", &self.state_url(), &[], state.as_bytes()).await?;
            }
        }
        self.model = self.model.after(&change);
        self.doubt = None;
        self.acknowledged += 1;
        self.look(&change).await
    }

    /// Learns the ids that a change made.
    async fn look(&mut self, change: &Change) -> io::Result<()> {
        let (subject, folders) = match change {
            Change::State(_) => return Ok(()),
            Change::Add(subject, mail) => (subject, vec![mail.folder]),
            Change::Move(subject, _) | Change::Read(subject, _) | Change::Delete(subject) => {
                (subject, self.folders.clone())
            }
        };
        for folder in folders {
            let view = self.views.get_mut(&folder).unwrap();
            view.sync(&mut self.dav, folder).await?;
            for id in view.items.keys() {
                self.subjects.entry(*id).or_insert_with(|| subject.clone());
            }
        }
        Ok(())
    }

    fn url(&self, subject: &str) -> String {
        let folder = self.model.mails[subject].folder;
        let ids = self.views[&folder].items.keys();
        let id = ids.copied().find(|id| self.subjects[id] == subject);
        folder.item_url(&self.dav.user, id.unwrap_or_else(|| panic!("{subject} has no id")))
    }
}

/// Subject and text of a message.
fn read(whole: &str) -> (String, String) {
    let (head, text) = whole.split_once("\r\n\r\n").unwrap_or_else(|| panic!("torn: {whole:?}"));
    let subject = head.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
    (subject.to_owned(), text.strip_suffix("\r\n").unwrap_or_else(|| panic!("torn: {whole:?}")).to_owned())
}
