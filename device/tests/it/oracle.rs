//! Sync against an oracle: after any history each device's view of its folders is the mailbox.
//!
//! Two devices on two front ends before one back end that is restarted now and then. Mail is delivered, moved, deleted,
//! read, flagged and categorised, by the devices and by a DAV client beside them; answers are lost and requests repeated, at
//! the other front end as well; filters and windows change. What a device holds it knows from answers alone.
//! `DIRECTPUSH_ORACLE_SEEDS=<first>..<end>` chooses the histories. The same over numbers alone is `common::sync::plan`'s.

use std::{collections::BTreeMap, net::SocketAddr};

use directpush_common::{
    change::Live,
    clock::Moment,
    dav::{headers, hierarchy::Folder},
    eas::{
        CONTENT_TYPE, Version,
        folder_sync::{FolderSyncRequest, FolderType},
        move_items::{Move, MoveItemsRequest},
        status::SyncStatus,
        sync::{
            ApplicationData, CollectionResponse, CommandResponse, FilterType, ServerCommand, SyncCollection,
            SyncCommand, SyncOptions, SyncRequest, SyncResponse, email_read, marks::MailChange,
        },
    },
    mail::marks::Marks,
    names::{FolderId, ItemId},
    wbxml::{Element, Limits, tags::email},
};
use directpush_device::{
    core::{Request, Response, Task},
    drive::basic,
    http::{Connection, Server},
    pair::{Backend, Frontend, Seat},
};
use fastrand::Rng;

use crate::{
    dav::{Dav, View},
    stage::{PASSWORD, deliver},
};

const USER: &str = "alice@example.com";
const STEPS: usize = 60;
/// Syncs until a folder is told to its end, at most.
const ROUNDS_MAX: usize = 200;
const FILTERS: [FilterType; 3] = [FilterType::All, FilterType::ThreeDays, FilterType::OneMonth];

#[tokio::test(flavor = "multi_thread")]
async fn after_any_history_each_devices_view_is_the_mailbox() {
    let seeds = std::env::var("DIRECTPUSH_ORACLE_SEEDS").unwrap_or_else(|_| "0..3".to_owned());
    let (first, end) = seeds.split_once("..").expect("<first>..<end>");
    for seed in first.parse().unwrap()..end.parse::<u64>().unwrap() {
        println!("DIRECTPUSH_ORACLE_SEEDS={seed}..{}", seed + 1);
        let mut play = Play::new(seed).await;
        for _ in 0..STEPS {
            play.step().await;
        }
        play.compare().await;
    }
}

/// An item as a device shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Shown {
    read: bool,
    marks: Marks,
}

impl Shown {
    fn change(&mut self, data: &ApplicationData) {
        let change = MailChange::read(data).unwrap();
        self.read = change.read.unwrap_or(self.read);
        change.apply(&mut self.marks);
    }

    /// As the folder keeps it; what was last done with a message is not a device's to say.
    fn of(live: &Live) -> Self {
        let marks = Marks { verb: None, ..Marks::from_text(&live.marks) };
        Self { read: live.read, marks }
    }
}

/// A folder on a device.
#[derive(Default)]
struct Collection {
    key: String,
    items: BTreeMap<String, Shown>,
    filter: usize,
    /// A request whose answer was lost: it is repeated as it was.
    lost: Option<SyncCollection>,
}

struct Phone {
    id: &'static str,
    collections: BTreeMap<FolderId, Collection>,
}

struct Play {
    rng: Rng,
    dir: tempfile::TempDir,
    seats: Vec<Seat>,
    backend: Option<Backend>,
    frontends: Vec<Frontend>,
    http: SocketAddr,
    folders: Vec<FolderId>,
    views: BTreeMap<FolderId, View>,
    dav: Dav,
    phones: Vec<Phone>,
    history: Vec<String>,
    mails: u32,
}

impl Play {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seats = vec![Seat::new("fe-1", false), Seat::new("fe-2", false), Seat::new("fe-3", false)];
        let backend = Backend::start(Backend::config(dir.path(), &seats)).await.unwrap();
        backend.add_user(USER, PASSWORD).await.unwrap();
        let http = backend.http();
        let mut frontends = Vec::new();
        for seat in &seats[..2] {
            let mut config = Frontend::config(seat, http);
            // Devices of a test are in a hurry.
            (config.throttle.syncs, config.throttle.same_syncs) = (0, 0);
            (config.throttle.folder_syncs, config.throttle.others) = (0, 0);
            frontends.push(Frontend::start(config).await.unwrap());
        }
        // The third front end is a DAV client that knows ids.
        let mut dav = Dav::front_end(http, &seats[2], USER).await.unwrap();
        let all: Vec<Folder> = dav.hierarchy().await.unwrap();
        let of = |kind: FolderType| {
            all.iter().find(|it| i64::from(it.folder_type) == i64::from(kind.code())).unwrap().id
        };
        let folders = vec![of(FolderType::Inbox), of(FolderType::Deleted), of(FolderType::Sent)];
        let phone = |id| Phone { id, collections: BTreeMap::new() };
        let mut play = Self {
            rng: Rng::with_seed(seed),
            dir,
            seats,
            backend: Some(backend),
            frontends,
            http,
            views: folders.iter().map(|folder| (*folder, View::default())).collect(),
            folders,
            dav,
            phones: vec![phone("phoneA"), phone("phoneB")],
            history: Vec::new(),
            mails: 0,
        };
        for phone in 0..2 {
            let answer = play.post(phone, "FolderSync", FolderSyncRequest { sync_key: "0".into() }.encode());
            assert_eq!(answer.await.status, 200);
        }
        play
    }

    fn note(&mut self, what: String) {
        self.history.push(what);
    }

    /// One command, to whichever front end.
    async fn post(&mut self, phone: usize, command: &'static str, body: Vec<u8>) -> Response {
        let at = self.rng.usize(..self.frontends.len());
        let server = Server::at(self.frontends[at].http().unwrap());
        let target = format!(
            "/Microsoft-Server-ActiveSync?Cmd={command}&User={USER}&DeviceId={}&DeviceType=Test",
            self.phones[phone].id
        );
        let headers = vec![
            ("MS-ASProtocolVersion", Version::V14_1.as_str().to_owned()),
            ("Content-Type", CONTENT_TYPE.to_owned()),
        ];
        let request =
            Request { task: Task::Options, method: "POST", target, headers, body, give_up: Moment::NEVER };
        let mut connection = Connection::open(&server, None).await.unwrap();
        connection.send(&server, &basic(USER, PASSWORD), &request).await.unwrap();
        connection.receive().await.unwrap().0
    }

    async fn step(&mut self) {
        let (phone, folder) = (self.rng.usize(..2), *self.rng.choice(&self.folders).unwrap());
        match self.rng.u8(..100) {
            0..25 => {
                self.mails += 1;
                let subject = format!("mail {}", self.mails);
                self.note(format!("{subject} is delivered"));
                deliver(&self.backend.as_ref().unwrap().lmtp().unwrap(), USER, &subject).await;
            }
            25..40 => self.somebody_else(folder).await,
            40..47 => self.move_items(phone, folder).await,
            47..50 => self.restart().await,
            _ => {
                self.sync(phone, folder, true).await;
            }
        }
    }

    /// A DAV client reads, flags, deletes or moves a message.
    async fn somebody_else(&mut self, folder: FolderId) {
        self.look(folder).await;
        let known: Vec<ItemId> = self.views[&folder].items.keys().copied().collect();
        let Some(&item) = self.rng.choice(&known) else { return };
        let url = folder.item_url(&self.dav.user, item);
        let cause = [(headers::CAUSE, "dav".to_owned())];
        match self.rng.u8(..5) {
            0 | 1 => {
                let read = self.rng.bool();
                self.note(format!("DAV: {item} read {read}"));
                self.dav.set_read(&url, read).await.unwrap();
            }
            2 => {
                let name = self.rng.u8(..9);
                self.note(format!("DAV: {item} category {name}"));
                let body = format!(
                    "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:p=\"urn:directpush:\"><D:set><D:prop>\
                     <p:marks>{{\"c\":[\"c{name}\"]}}</p:marks></D:prop></D:set></D:propertyupdate>"
                );
                self.dav.done("PROPPATCH", &url, &cause, body.as_bytes()).await.unwrap();
            }
            3 => {
                self.note(format!("DAV: {item} deleted"));
                self.dav.done("DELETE", &url, &cause, b"").await.unwrap();
            }
            _ => {
                let to = *self.rng.choice(&self.folders).unwrap();
                if to != folder {
                    self.note(format!("DAV: {item} moved"));
                    self.dav.move_into(&url, to).await.unwrap();
                }
            }
        }
    }

    async fn move_items(&mut self, phone: usize, folder: FolderId) {
        let to = *self.rng.choice(&self.folders).unwrap();
        let Some(collection) = self.phones[phone].collections.get(&folder).filter(|_| to != folder) else {
            return;
        };
        let held: Vec<String> = collection.items.keys().cloned().collect();
        let Some(item) = self.rng.choice(held) else { return };
        self.note(format!("{phone} moves {item}"));
        let moves = vec![Move { item, from: folder.to_string(), to: to.to_string() }];
        assert_eq!(self.post(phone, "MoveItems", MoveItemsRequest { moves }.encode()).await.status, 200);
    }

    async fn restart(&mut self) {
        self.note("the back end starts anew".to_owned());
        self.backend.take().unwrap().stop().await.unwrap();
        let mut config = Backend::config(self.dir.path(), &self.seats);
        config.http_listen = self.http;
        self.backend = Some(Backend::start(config).await.unwrap());
        self.dav.moved_to(self.http);
    }

    /// What a device does before it syncs: it reads, flags, categorises or deletes what it holds.
    fn changes(&mut self, phone: usize, folder: FolderId) -> Vec<SyncCommand> {
        let mut commands = Vec::new();
        for _ in 0..self.rng.usize(..3) {
            let collection = self.phones[phone].collections.get_mut(&folder).unwrap();
            let held: Vec<String> = collection.items.keys().cloned().collect();
            let Some(server_id) = self.rng.choice(held) else { break };
            let number = self.rng.u8(..9);
            let data = match self.rng.u8(..6) {
                0 => {
                    collection.items.remove(&server_id);
                    commands.push(SyncCommand::Delete { server_id });
                    continue;
                }
                1 => vec![Element::new(email::FLAG)],
                2 => {
                    let flag = [
                        Element::text(email::STATUS, "2"),
                        Element::text(email::FLAG_TYPE, format!("flag {number}")),
                    ];
                    vec![Element::container(email::FLAG, flag)]
                }
                3 => {
                    let category = Element::text(email::CATEGORY, format!("d{number}"));
                    vec![Element::container(email::CATEGORIES, [category])]
                }
                _ => vec![Element::text(email::READ, if number.is_multiple_of(2) { "0" } else { "1" })],
            };
            assert!(email_read(&data).is_some() || data.len() == 1);
            collection.items.get_mut(&server_id).unwrap().change(&data);
            commands.push(SyncCommand::Change { server_id, data });
        }
        commands
    }

    /// One Sync of one folder. Returns whether there is more.
    async fn sync(&mut self, phone: usize, folder: FolderId, wild: bool) -> bool {
        let known = self.phones[phone]
            .collections
            .entry(folder)
            .or_insert_with(|| Collection { key: "0".to_owned(), ..Collection::default() });
        let (key, lost) = (known.key.clone(), known.lost.take());
        let asked = if let Some(asked) = lost {
            asked
        } else {
            if wild && key != "0" && self.rng.u8(..8) == 0 {
                known.filter = self.rng.usize(..FILTERS.len());
            }
            let filter_type = Some(FILTERS[known.filter]);
            let commands = if wild && key != "0" { self.changes(phone, folder) } else { Vec::new() };
            let conflict = self.rng.choice([None, Some(0), Some(1)]).unwrap();
            let options = SyncOptions { filter_type, conflict, ..SyncOptions::default() };
            let first = key == "0";
            SyncCollection {
                sync_key: key,
                collection_id: folder.to_string(),
                get_changes: (!first).then_some(true),
                window_size: (!first).then(|| self.rng.u32(1..8)),
                options: vec![options],
                commands,
                ..SyncCollection::default()
            }
        };
        let request = SyncRequest { collections: vec![asked.clone()], ..SyncRequest::default() };
        let answer = self.post(phone, "Sync", request.encode(Version::V14_1)).await;
        let is_lost = wild && self.rng.u8(..4) == 0;
        self.note(format!("{phone} syncs {folder} {asked:?}: {} lost {is_lost}", answer.status));
        if is_lost || answer.status != 200 {
            assert!(answer.status == 200 || answer.status == 503, "{}", answer.status);
            self.phones[phone].collections.get_mut(&folder).unwrap().lost = Some(asked);
            return true;
        }
        match SyncResponse::decode(&answer.body, Limits::default()).unwrap() {
            SyncResponse::Collections(mut answered) => match answered.pop() {
                None => false,
                Some(response) => self.apply(phone, folder, asked, response),
            },
            other => panic!("{other:?}"),
        }
    }

    fn apply(
        &mut self,
        phone: usize,
        folder: FolderId,
        asked: SyncCollection,
        response: CollectionResponse,
    ) -> bool {
        let collection = self.phones[phone].collections.get_mut(&folder).unwrap();
        match response.status {
            SyncStatus::Success => {}
            SyncStatus::InvalidSyncKey => {
                (collection.key, collection.items) = ("0".to_owned(), BTreeMap::new());
                return true;
            }
            SyncStatus::Retry => {
                collection.lost = Some(asked);
                return true;
            }
            status => panic!("{status:?}"),
        }
        let begun = asked.sync_key == "0";
        collection.key = response.sync_key;
        for answer in response.responses {
            match answer {
                CommandResponse::Change { server_id, status: SyncStatus::ObjectNotFound } => {
                    collection.items.remove(&server_id);
                }
                CommandResponse::Change { status: SyncStatus::Conflict, .. }
                | CommandResponse::Delete { status: SyncStatus::ObjectNotFound, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for command in response.commands {
            match command {
                ServerCommand::Add { server_id, data } => {
                    let mut shown = Shown::default();
                    shown.change(&data);
                    collection.items.insert(server_id, shown);
                }
                ServerCommand::Change { server_id, data } => {
                    if let Some(shown) = collection.items.get_mut(&server_id) {
                        shown.change(&data);
                    }
                }
                ServerCommand::Delete { server_id } | ServerCommand::SoftDelete { server_id } => {
                    collection.items.remove(&server_id);
                }
            }
        }
        response.more_available || begun
    }

    async fn look(&mut self, folder: FolderId) {
        self.views.get_mut(&folder).unwrap().sync(&mut self.dav, folder).await.unwrap();
    }

    async fn compare(&mut self) {
        for folder in self.folders.clone() {
            self.look(folder).await;
            let there: BTreeMap<String, Shown> = self.views[&folder]
                .items
                .iter()
                .map(|(item, (_, live))| (format!("{:x}:{item}", folder.counter), Shown::of(live)))
                .collect();
            for phone in 0..2 {
                let mut rounds = 0;
                while self.sync(phone, folder, false).await {
                    rounds += 1;
                    assert!(rounds < ROUNDS_MAX, "Sync never ends: {:#?}", self.history);
                }
                let held = &self.phones[phone].collections[&folder].items;
                assert_eq!(*held, there, "device {phone}, folder {folder}: {:#?}", self.history);
            }
        }
    }
}
