//! A back end of a few hundred lines that writes down what it is asked.
//!
//! It speaks `docs/fe-be.md` by the same code as the real one (`common::dav`), keeps one mailbox in
//! memory, sends real NOTIFY datagrams, and can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::response::Response;
use directpush_common::change::{Cause, Entry, EntryKind, Gone, Live, Maker};
use directpush_common::dav::find::{Find, Found, Texts};
use directpush_common::dav::hierarchy::{self, Class, Folder, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::dav::poll::{SubscriptionAnswer, SubscriptionStatus, write as write_answers};
use directpush_common::dav::standing::Standing;
use directpush_common::dav::subscribe::{Already, DeviceEvent, Since, Subscribe, Subscribed, parse_ids};
use directpush_common::dav::{DAV, HTTPMAIL, OURS, headers, xml};
use directpush_common::directory::{DirectoryAnswer, DirectoryQuery, Person};
use directpush_common::eas::provision::{Policy, PolicyInForce};
use directpush_common::httpu::{Notify, SubscriptionId};
use directpush_common::names::{FolderId, Guid, ItemId, decode_segment};
use directpush_common::numbers::{CollectionToken, Number};
use directpush_common::push::wake::{Wake, wake};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) const USER: &str = "alice@example.com";
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const INSTALLATION: Guid = Guid([0xb3; 16]);
pub(crate) const EPOCH: u64 = 5;

pub(crate) fn folder_id(counter: u64) -> FolderId {
    FolderId { installation: INSTALLATION, counter }
}

/// How it misbehaves.
#[allow(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) subscribe_status: Option<u16>,
    pub(crate) unsubscribe_delay: Duration,
    /// Takes requests and answers none.
    pub(crate) stalled: bool,
    pub(crate) notify: bool,
    pub(crate) push: bool,
    pub(crate) sync: bool,
    pub(crate) event: Option<DeviceEvent>,
    pub(crate) token_good: bool,
    /// What a message that is handed in is answered, and the reason; else it is taken.
    pub(crate) submission: Option<(u16, &'static str)>,
    /// What it says of every device, and the policy behind it.
    pub(crate) standing: Standing,
    pub(crate) policy: Policy,
    /// Somebody else writes every device object first.
    pub(crate) contended: bool,
    /// There is no room for another change of an item.
    pub(crate) full: bool,
    /// Searches end before all is looked at.
    pub(crate) search_incomplete: bool,
    /// The user has as many devices as may be.
    pub(crate) devices_full: bool,
    /// An item that cannot be read.
    pub(crate) damaged: Option<u64>,
    /// Nothing is known of the user but the name.
    pub(crate) nameless: bool,
}

/// A folder that a device made.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) counter: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) name: String,
    pub(crate) folder_type: u8,
    pub(crate) created: u64,
    pub(crate) changed: u64,
}

pub(crate) struct Subscription {
    pub(crate) subscribe: Subscribe,
    pub(crate) folder: u64,
}

pub(crate) struct Mailbox {
    pub(crate) folders: Vec<(u64, &'static str, u8, Class)>,
    pub(crate) made: Vec<Made>,
    pub(crate) unmade: Vec<(u64, u64)>,
    pub(crate) hierarchy: u64,
    pub(crate) objects: BTreeMap<String, (u64, Bytes)>,
    pub(crate) device_state: u64,
    pub(crate) number: u64,
    pub(crate) log: HashMap<u64, Vec<Entry>>,
    pub(crate) bodies: HashMap<(u64, u64), Bytes>,
    /// Drafts by the URL under which they were made.
    pub(crate) named: HashMap<String, u64>,
    pub(crate) subscriptions: BTreeMap<u64, Subscription>,
    pub(crate) next_subscription: u64,
    pub(crate) requests: Vec<String>,
    pub(crate) boot: String,
    /// Messages that were handed in.
    pub(crate) submitted: Vec<Bytes>,
    /// Messages that were PUT into folders, by the folder's number.
    pub(crate) put: Vec<(u64, Bytes)>,
    pub(crate) manners: Manners,
    /// What devices reported of wipes.
    pub(crate) wipes: Vec<String>,
    /// Passwords that were tried.
    pub(crate) tried: Vec<String>,
    /// Agent, version and command of the last question for device state.
    pub(crate) asked_by: [String; 3],
}

pub(crate) struct Fake {
    pub(crate) mailbox: Mutex<Mailbox>,
    pub(crate) address: SocketAddr,
    pub(crate) polls: AtomicU64,
    /// Doors that send everybody elsewhere: to this address.
    pub(crate) elsewhere: Mutex<HashMap<&'static str, String>>,
    udp: UdpSocket,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// One of the addresses at which a fake is reached, as if each were a back end.
#[derive(Clone)]
struct Door {
    fake: Arc<Fake>,
    name: &'static str,
}

impl Fake {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mailbox = Mailbox {
            folders: vec![
                (1, "Inbox", 2, Class::Email),
                (2, "Deleted%20Items", 4, Class::Email),
                (3, "Calendar", 8, Class::Calendar),
            ],
            made: Vec::new(),
            unmade: Vec::new(),
            hierarchy: 3,
            objects: BTreeMap::new(),
            device_state: 0,
            number: 10,
            log: HashMap::new(),
            bodies: HashMap::new(),
            named: HashMap::new(),
            subscriptions: BTreeMap::new(),
            next_subscription: 26,
            requests: Vec::new(),
            boot: "a".repeat(32),
            submitted: Vec::new(),
            put: Vec::new(),
            manners: Manners {
                subscribe_status: None,
                unsubscribe_delay: Duration::ZERO,
                stalled: false,
                notify: true,
                push: true,
                sync: true,
                event: None,
                token_good: true,
                submission: None,
                standing: Standing::default(),
                policy: Policy::default(),
                contended: false,
                full: false,
                search_incomplete: false,
                devices_full: false,
                damaged: None,
                nameless: false,
            },
            wipes: Vec::new(),
            tried: Vec::new(),
            asked_by: Default::default(),
        };
        let fake = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            mailbox: Mutex::new(mailbox),
            polls: AtomicU64::new(0),
            elsewhere: Mutex::default(),
            udp,
            task: Mutex::default(),
        });
        fake.serve(listener);
        fake
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let router = self.router("be-1");
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *self.task.lock() = Some(task);
    }

    fn router(self: &Arc<Self>, name: &'static str) -> Router {
        Router::new().fallback(answer).with_state(Door { fake: Arc::clone(self), name })
    }

    /// Opens another door to the same mailbox; what is asked there is written down with its name.
    pub(crate) async fn open_door(self: &Arc<Self>, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router(name);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    /// The same with TLS.
    pub(crate) async fn open_tls_door(
        self: &Arc<Self>,
        name: &'static str,
        tls: rustls::ServerConfig,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, acceptor) = (self.router(name), TlsAcceptor::from(Arc::new(tls)));
        tokio::spawn(async move { axum::serve(TlsListener { listener, acceptor }, router).await.unwrap() });
        address
    }

    /// Dies with all its subscriptions, and lives again on the same port.
    pub(crate) async fn restart(self: &Arc<Self>, down: Duration) {
        let task = self.task.lock().take().unwrap();
        task.abort();
        let _ = task.await;
        {
            let mut mailbox = self.mailbox.lock();
            mailbox.subscriptions.clear();
            mailbox.boot = "b".repeat(32);
        }
        tokio::time::sleep(down).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }

    /// What was asked so far, each `METHOD object`; forgets it.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.mailbox.lock().requests)
    }

    /// Delivers a message, and says so to whoever watches.
    pub(crate) async fn deliver(&self, folder: u64, mime: &str) -> u64 {
        let (number, notifies) = {
            let mut mailbox = self.mailbox.lock();
            mailbox.number += 1;
            let number = mailbox.number;
            let live = Live {
                maker: Maker::of(Cause::Delivery),
                added: Maker::of(Cause::Delivery),
                date: 1_700_000_000 + i64::try_from(number).unwrap(),
                size: mime.len() as u64,
                content: Number(number),
                ..Live::default()
            };
            let entry =
                Entry { id: ItemId(Number(number)), changed: Number(number), kind: EntryKind::Live(live) };
            mailbox.log.entry(folder).or_default().push(entry);
            mailbox.bodies.insert((folder, number), Bytes::copy_from_slice(mime.as_bytes()));
            (number, mailbox.notifies())
        };
        self.send(notifies).await;
        number
    }

    pub(crate) async fn send(&self, notifies: Vec<Notify>) {
        if !self.mailbox.lock().manners.notify {
            return;
        }
        for notify in notifies {
            let target = (notify.call_back.host().to_owned(), notify.call_back.port());
            self.udp.send_to(&notify.encode(), target).await.unwrap();
        }
    }

    /// Waits until `done`, for at most ten seconds.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Mailbox) -> bool) {
        for _ in 0..1000 {
            if done(&self.mailbox.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // Who does not trust us, or whom we do not trust, is gone.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Mailbox {
    fn level(&self, subscription: &Subscription) -> Wake {
        let base = match subscription.subscribe.since {
            Since::Token(token) => token.number,
            Since::Nothing => Number::ZERO,
            Since::Now => return Wake::Never,
        };
        let (floor, device) = (subscription.subscribe.floor, &subscription.subscribe.device);
        let log = self.log.get(&subscription.folder).map(Vec::as_slice).unwrap_or_default();
        log.iter().map(|entry| wake(entry, base, floor, device)).max().unwrap_or_default()
    }

    /// One NOTIFY per subscription with something to tell.
    pub(crate) fn notifies(&self) -> Vec<Notify> {
        let told = self.subscriptions.iter().filter(|(_, it)| self.level(it) == Wake::Now);
        told.map(|(id, it)| Notify {
            call_back: it.subscribe.call_back.clone(),
            group: Some(it.subscribe.group),
            ids: [SubscriptionId(*id)].into_iter().collect(),
        })
        .collect()
    }

    fn folder_of(&self, path: &str) -> Option<u64> {
        let rest = path.strip_prefix("/exchange/alice@example.com/")?;
        if let Some(flat) = rest.strip_prefix("-FlatUrlSpace-/") {
            return Some(flat.split('/').next()?.parse::<FolderId>().ok()?.counter);
        }
        let name = rest.split('/').next()?;
        self.folders.iter().find(|folder| folder.1 == name).map(|folder| folder.0)
    }

    fn item_of(path: &str) -> Option<ItemId> {
        let section = path.rsplit('/').next().filter(|section| !section.is_empty())?;
        Some(ItemId::from_section(section).ok()?.1)
    }

    fn hierarchy_since(&self, since: Number) -> Hierarchy {
        let folders = self.folders.iter().filter(|folder| folder.0 > since.0);
        let folder = |&(counter, name, folder_type, class): &(u64, &str, u8, Class)| Folder {
            id: folder_id(counter),
            parent: None,
            folder_type,
            class,
            name: name.replace("%20", " "),
            created: Number(counter),
            changed: Number(counter),
            url: format!("/exchange/alice@example.com/{name}/"),
        };
        let made = self.made.iter().filter(|made| made.changed > since.0).map(|made| Folder {
            id: folder_id(made.counter),
            parent: made.parent.map(folder_id),
            folder_type: made.folder_type,
            class: Class::Email,
            name: made.name.clone(),
            created: Number(made.created),
            changed: Number(made.changed),
            url: format!("/exchange/alice@example.com/{}/", made.name),
        });
        let unmade = self.unmade.iter().filter(|(_, number)| *number > since.0);
        Hierarchy {
            number: Number(self.hierarchy),
            folders: folders.map(folder).chain(made).collect(),
            removed: unmade.map(|(counter, _)| folder_id(*counter)).collect(),
        }
    }

    fn items(&self, folder: u64, request: ItemsRequest) -> Items {
        let mut log: Vec<Entry> = self.log.get(&folder).cloned().unwrap_or_default();
        let token = CollectionToken { epoch: EPOCH, number: Number(self.number) };
        let (limit, entries): (_, Vec<Entry>) = match request {
            ItemsRequest::Changes { since, limit } => {
                let base = since.map_or(Number::ZERO, |since| since.number);
                log.sort_by_key(|entry| entry.changed);
                (limit, log.into_iter().filter(|entry| entry.changed > base).collect())
            }
            ItemsRequest::Additions { after, limit } => {
                log.sort_by_key(|entry| entry.id);
                let live = log.into_iter().filter(|entry| matches!(entry.kind, EntryKind::Live(_)));
                (limit, live.filter(|entry| entry.id > after).collect())
            }
            ItemsRequest::Walk { before, limit } => {
                log.sort_by_key(|entry| std::cmp::Reverse(entry.id));
                let live = log.into_iter().filter(|entry| matches!(entry.kind, EntryKind::Live(_)));
                (limit, live.filter(|entry| before.is_none_or(|before| entry.id < before)).collect())
            }
        };
        let more = entries.len() > limit;
        let entries: Vec<_> = entries.into_iter().take(limit).collect();
        let token = match (&request, entries.last()) {
            (ItemsRequest::Changes { .. }, Some(last)) if more => {
                CollectionToken { epoch: EPOCH, number: last.changed }
            }
            _ => token,
        };
        Items { token, entries, more }
    }

    /// Read flag and marks of an item, set by `maker`.
    pub(crate) fn set(
        &mut self,
        folder: u64,
        item: ItemId,
        maker: Maker,
        read: Option<bool>,
        marks: Option<String>,
    ) -> bool {
        let log = self.log.get_mut(&folder).map(Vec::as_mut_slice).unwrap_or_default();
        let Some(entry) = log.iter_mut().find(|entry| entry.id == item) else { return false };
        let EntryKind::Live(live) = &mut entry.kind else { return false };
        if let Some(marks) = marks {
            live.marks = marks;
        }
        let read = read.unwrap_or(live.read);
        self.touch(folder, item, maker, Some(read))
    }

    /// An item changed by `maker`, or is gone.
    pub(crate) fn touch(&mut self, folder: u64, item: ItemId, maker: Maker, read: Option<bool>) -> bool {
        self.number += 1;
        let number = Number(self.number);
        let Some(log) = self.log.get_mut(&folder) else { return false };
        let Some(entry) = log.iter_mut().find(|entry| entry.id == item) else { return false };
        let EntryKind::Live(live) = &mut entry.kind else { return false };
        match read {
            Some(read) => {
                if live.maker != maker {
                    live.before = entry.changed;
                }
                (live.read, live.maker) = (read, maker);
            }
            None => entry.kind = EntryKind::Gone(Gone { maker, date: live.date }),
        }
        entry.changed = number;
        true
    }
}

fn person() -> Person {
    let addresses = vec![USER.into(), "a.smith@example.com".into()];
    Person { name: "Alice Smith".into(), user: USER.into(), addresses }
}

fn reply(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn with(mut response: Response, fields: impl IntoIterator<Item = (&'static str, String)>) -> Response {
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

async fn answer(State(door): State<Door>, request: Request<Body>) -> Response {
    let Door { fake, name } = door;
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let elsewhere = fake.elsewhere.lock().get(name).cloned();
    if let Some(base) = elsewhere.filter(|_| parts.method.as_str() != "POLL") {
        fake.mailbox.lock().requests.push(format!("{name} sends {} elsewhere", parts.method));
        return with(reply(307, Body::empty()), [("location", format!("{base}{}", parts.uri))]);
    }
    if parts.method.as_str() == "POLL" {
        fake.polls.fetch_add(1, Ordering::SeqCst);
    }
    if fake.mailbox.lock().manners.stalled {
        std::future::pending::<()>().await;
    }
    let delay = fake.mailbox.lock().manners.unsubscribe_delay;
    if parts.method.as_str() == "UNSUBSCRIBE" && !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut mailbox = fake.mailbox.lock();
    let known = mailbox.requests.len();
    let response = mailbox.answer(&parts, &body);
    if name != "be-1" {
        mailbox.requests[known..].iter_mut().for_each(|request| *request = format!("{name} {request}"));
    }
    let boot = mailbox.boot.clone();
    with(response, [(headers::BOOT, boot)])
}

impl Mailbox {
    fn answer(&mut self, parts: &http::request::Parts, body: &Bytes) -> Response {
        let get = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let (method, path) = (parts.method.as_str(), parts.uri.path().to_owned());
        assert_eq!(get("authorization"), Some("DirectPush fe-1:0123456789abcdef"));
        if path == "/directpush/logon" {
            return self.logon(body);
        }
        if method == "POLL" {
            return self.poll(get(headers::CALL_BACK).unwrap());
        }
        assert_eq!(get(headers::ACT_FOR), Some("token"), "{method} {path}");
        let object = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        self.requests.push(format!("{method} {object}"));
        if path == "/directpush/device" {
            self.wipes.push(String::from_utf8(body.to_vec()).unwrap());
            return reply(200, "");
        }
        if path == "/directpush/directory" {
            let query: DirectoryQuery = serde_json::from_slice(body).unwrap();
            let entries: Vec<_> = [person()].into_iter().filter(|it| query.wanted().means(it)).collect();
            let answer = DirectoryAnswer { total: entries.len(), entries };
            return reply(200, serde_json::to_vec(&answer).unwrap());
        }
        if path.contains("/NON_IPM_SUBTREE/Settings/") {
            return self.settings_object(method, &path, body);
        }
        if path.contains("/NON_IPM_SUBTREE/") {
            self.asked_by = [headers::AGENT, headers::VERSION, headers::COMMAND]
                .map(|name| get(name).unwrap_or_default().to_owned());
            if self.manners.devices_full && method == "PUT" {
                return with(reply(403, ""), [(headers::REASON, "devices".to_owned())]);
            }
            return self.device_object(method, &path, get("if-none-match"), get("if-match"), body);
        }
        let maker = Maker {
            device: get(headers::DEVICE).and_then(|device| device.parse().ok()),
            cause: get(headers::CAUSE).and_then(|cause| cause.parse().ok()).unwrap_or_default(),
        };
        match method {
            "REPORT" => self.report(&path, body),
            "SUBSCRIBE" => self.subscribe(&path, get),
            "UNSUBSCRIBE" => {
                let ids = parse_ids(get(headers::SUBSCRIPTION_ID).unwrap()).unwrap();
                self.unsubscribe(&path, &ids, get(headers::ONLY_IF_CHANGED).is_some())
            }
            "GET" => {
                let (folder, item) = (self.folder_of(&path).unwrap(), Self::item_of(&path).unwrap());
                match self.bodies.get(&(folder, item.0.0)) {
                    _ if self.manners.damaged == Some(item.0.0) => reply(500, ""),
                    Some(body) => reply(200, body.clone()),
                    None => reply(404, ""),
                }
            }
            "PROPPATCH" if self.manners.full => reply(507, ""),
            "PROPPATCH" => {
                let (folder, item) = (self.folder_of(&path).unwrap(), Self::item_of(&path).unwrap());
                let root = xml::parse(body).unwrap();
                let set = root.child(DAV, "set").and_then(|set| set.child(DAV, "prop")).unwrap();
                let read = set.child_text(HTTPMAIL, "read").map(|read| read == "1");
                let marks = set.child_text(OURS, "marks").map(str::to_owned);
                reply(if self.set(folder, item, maker, read, marks) { 207 } else { 404 }, "")
            }
            "PUT" if path.contains("DavMailSubmissionURI") => {
                if let Some((status, reason)) = self.manners.submission {
                    let wait = ("retry-after", "77".to_owned());
                    return with(reply(status, ""), [(headers::REASON, reason.to_owned()), wait]);
                }
                self.submitted.push(body.clone());
                with(reply(201, ""), [(headers::SUBMISSION, "7f".to_owned())])
            }
            "PUT" if maker.cause == Cause::Sync => {
                if self.manners.full {
                    return reply(507, "");
                }
                self.put_draft(&path, maker, get("if-none-match") == Some("*"), body)
            }
            "HEAD" => match self.named.get(&path) {
                Some(item) => with(reply(200, ""), [("etag", format!("\"{EPOCH}-{item}\""))]),
                None => reply(404, ""),
            },
            "PUT" => {
                assert_eq!((get("if-none-match"), get(headers::CAUSE)), (Some("*"), Some("send")));
                self.put.push((self.folder_of(&path).unwrap(), body.clone()));
                reply(201, "")
            }
            "MOVE" if !leads_to_a_mailbox(parts) => reply(400, ""),
            "MKCOL" => self.make_folder(&path, get(headers::FOLDER_TYPE).unwrap().parse().unwrap()),
            "MOVE" if path.ends_with('/') => {
                let destination = get("destination").unwrap().parse::<http::Uri>().unwrap();
                assert_eq!(get("overwrite"), Some("F"));
                self.move_folder(&path, destination.path())
            }
            "DELETE" if path.ends_with('/') => self.delete_folder(&path),
            "DELETE" | "MOVE" => {
                let (folder, item) = (self.folder_of(&path).unwrap(), Self::item_of(&path).unwrap());
                if !self.touch(folder, item, maker, None) {
                    return reply(404, "");
                }
                let location = folder_id(2).item_url(&USER.parse().unwrap(), ItemId(Number(self.number)));
                with(reply(if method == "MOVE" { 201 } else { 204 }, ""), [("location", location)])
            }
            _ => reply(501, ""),
        }
    }

    /// What a device writes: a new item by its name, or other bytes for one that is there.
    fn put_draft(&mut self, path: &str, maker: Maker, only_new: bool, body: &Bytes) -> Response {
        let folder = self.folder_of(path).unwrap();
        let Some(item) = Self::item_of(path) else {
            assert!(only_new, "a new one replaces none");
            if self.named.contains_key(path) {
                return reply(412, "");
            }
            self.number += 1;
            let number = Number(self.number);
            let live = Live {
                maker: maker.clone(),
                added: maker,
                date: 1_700_000_000,
                size: body.len() as u64,
                read: true,
                content: number,
                ..Live::default()
            };
            let entry = Entry { id: ItemId(number), changed: number, kind: EntryKind::Live(live) };
            self.log.entry(folder).or_default().push(entry);
            self.bodies.insert((folder, number.0), body.clone());
            self.named.insert(path.to_owned(), number.0);
            return with(reply(201, ""), [("etag", format!("\"{EPOCH}-{number}\""))]);
        };
        if !self.touch(folder, item, maker, Some(true)) {
            return reply(404, "");
        }
        let number = Number(self.number);
        for entry in self.log.get_mut(&folder).unwrap().iter_mut().filter(|entry| entry.id == item) {
            if let EntryKind::Live(live) = &mut entry.kind {
                live.content = number;
            }
        }
        self.bodies.insert((folder, item.0.0), body.clone());
        with(reply(204, ""), [("etag", format!("\"{EPOCH}-{number}\""))])
    }

    /// The parent and the name that a URL says.
    fn place_of(path: &str) -> (Option<u64>, String) {
        let (above, name) = path.trim_end_matches('/').rsplit_once('/').unwrap();
        let parent = above.rsplit('/').next().unwrap().parse::<FolderId>().ok();
        (parent.map(|parent| parent.counter), decode_segment(name).unwrap())
    }

    /// Why nothing can be there.
    fn in_the_way(&self, parent: Option<u64>, name: &str, taken: u16) -> Option<u16> {
        let known = |counter: &u64| {
            self.folders.iter().any(|it| it.0 == *counter)
                || self.made.iter().any(|it| it.counter == *counter)
        };
        let here = self.made.iter().any(|it| it.parent == parent && it.name == name)
            || (parent.is_none() && self.folders.iter().any(|it| it.1.replace("%20", " ") == name));
        match parent {
            Some(parent) if !known(&parent) => Some(409),
            _ => here.then_some(taken),
        }
    }

    fn make_folder(&mut self, path: &str, folder_type: u8) -> Response {
        let (parent, name) = Self::place_of(path);
        if let Some(status) = self.in_the_way(parent, &name, 405) {
            return reply(status, "");
        }
        self.hierarchy += 1;
        let (counter, number) = (100 + self.hierarchy, self.hierarchy);
        self.made.push(Made { counter, parent, name, folder_type, created: number, changed: number });
        let url = folder_id(counter).permanent_url(&USER.parse().unwrap());
        with(reply(201, ""), [(headers::CONTENT_LOCATION, url)])
    }

    fn move_folder(&mut self, path: &str, to: &str) -> Response {
        let counter = self.folder_of(path).unwrap();
        let (parent, name) = Self::place_of(to);
        if self.folders.iter().any(|it| it.0 == counter) {
            return reply(403, "");
        }
        if let Some(status) = self.in_the_way(parent, &name, 412) {
            return reply(status, "");
        }
        let number = self.hierarchy + 1;
        let Some(made) = self.made.iter_mut().find(|it| it.counter == counter) else { return reply(404, "") };
        (made.parent, made.name, made.changed) = (parent, name, number);
        self.hierarchy = number;
        reply(201, "")
    }

    fn delete_folder(&mut self, path: &str) -> Response {
        let counter = self.folder_of(path).unwrap();
        if self.folders.iter().any(|it| it.0 == counter) {
            return reply(403, "");
        }
        let Some(at) = self.made.iter().position(|it| it.counter == counter) else { return reply(404, "") };
        self.made.remove(at);
        self.hierarchy += 1;
        self.unmade.push((counter, self.hierarchy));
        reply(204, "")
    }

    fn settings_object(&mut self, method: &str, path: &str, body: &Bytes) -> Response {
        let object = path.rsplit('/').next().unwrap();
        match (method, object) {
            ("GET", "Policy") => match self.manners.standing.policy {
                None => reply(404, ""),
                Some(hash) => {
                    let policy = self.manners.policy.clone();
                    let in_force = PolicyInForce { hash: hash.to_string(), name: "phones".into(), policy };
                    reply(200, serde_json::to_vec(&in_force).unwrap())
                }
            },
            ("GET", "User") if self.manners.nameless => reply(404, ""),
            ("GET", "User") => reply(200, serde_json::to_vec(&person()).unwrap()),
            ("GET", _) => match self.objects.get(path) {
                Some((number, body)) => with(reply(200, body.clone()), [("etag", format!("\"{number}\""))]),
                None => reply(404, ""),
            },
            _ => {
                self.number += 1;
                self.objects.insert(path.to_owned(), (self.number, body.clone()));
                reply(204, "")
            }
        }
    }

    fn logon(&mut self, body: &Bytes) -> Response {
        let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
        self.tried.push(asked["password"].as_str().unwrap().to_owned());
        let known =
            ["alice", "alice@example.com", "EXAMPLE\\alice"].contains(&asked["login"].as_str().unwrap());
        if !known || asked["password"] != PASSWORD {
            return reply(401, "");
        }
        let (push, sync) = (self.manners.push, self.manners.sync);
        let granted = serde_json::json!({
            "user": USER, "token": "token", "expires_secs": 86400, "push": push, "sync": sync
        });
        reply(200, granted.to_string())
    }

    fn device_object(
        &mut self,
        method: &str,
        path: &str,
        none_match: Option<&str>,
        if_match: Option<&str>,
        body: &Bytes,
    ) -> Response {
        let known = self.objects.get(path).cloned();
        let tag = known.as_ref().map(|(version, _)| format!("\"{version}\""));
        let response = match (method, known) {
            ("PUT", _) if self.manners.contended => reply(412, ""),
            ("GET", None) => reply(404, ""),
            ("GET", Some(_)) if tag.as_deref() == none_match => reply(304, ""),
            ("GET", Some((_, content))) => with(reply(200, content), [("etag", tag.unwrap())]),
            (_, Some(_)) if none_match == Some("*") => reply(412, ""),
            (_, _) if if_match.is_some() && if_match != tag.as_deref() => reply(412, ""),
            _ => {
                self.device_state += 1;
                self.objects.insert(path.to_owned(), (self.device_state, body.clone()));
                with(reply(201, ""), [("etag", format!("\"{}\"", self.device_state))])
            }
        };
        let numbers = [
            (headers::DEVICE_STATE, self.device_state.to_string()),
            (headers::HIERARCHY, self.hierarchy.to_string()),
        ];
        with(with(response, numbers), self.manners.standing.to_headers())
    }

    fn report(&self, path: &str, body: &Bytes) -> Response {
        let root = xml::parse(body).unwrap();
        if let Ok(since) = hierarchy::read_request(&root) {
            return reply(207, self.hierarchy_since(since).write());
        }
        if let Ok(find) = Find::read(&root) {
            return reply(207, self.found(&find).write(&USER.parse().unwrap()));
        }
        let Some(folder) = self.folder_of(path) else { return reply(404, "") };
        if !self.manners.token_good {
            return reply(403, "<D:error xmlns:D=\"DAV:\"><D:valid-sync-token/></D:error>");
        }
        let items = self.items(folder, ItemsRequest::read(&root).unwrap());
        reply(207, items.write(path, |item| format!("{path}{item}")))
    }

    /// Newest first; the head of a message is its subject and its senders alike.
    fn found(&self, find: &Find) -> Found {
        let mut messages: Vec<(FolderId, Entry)> = Vec::new();
        for (folder, log) in &self.log {
            let wanted = find.folders.is_empty() || find.folders.contains(&folder_id(*folder));
            for entry in log.iter().filter(|_| wanted) {
                let EntryKind::Live(live) = &entry.kind else { continue };
                let text = String::from_utf8_lossy(&self.bodies[&(*folder, entry.id.0.0)]).to_lowercase();
                let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
                let (head, body) = (head.to_owned(), body.to_owned());
                let texts =
                    Texts { subject: head.clone(), from: head.clone(), to: head.clone(), cc: head, body };
                if find.fits(&texts) && find.may_fit(live.date, live.read) {
                    messages.push((folder_id(*folder), entry.clone()));
                }
            }
        }
        messages.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.id));
        messages.truncate(find.limit);
        Found { messages, incomplete: self.manners.search_incomplete }
    }

    fn subscribe<'a>(&mut self, path: &str, get: impl Fn(&str) -> Option<&'a str>) -> Response {
        if let Some(status) = self.manners.subscribe_status {
            return reply(status, "");
        }
        let Some(folder) = self.folder_of(path) else { return reply(404, "") };
        let subscribe = Subscribe::from_headers(get).unwrap();
        self.next_subscription += 1;
        let id = self.next_subscription;
        let subscription = Subscription { subscribe: subscribe.clone(), folder };
        let already = match self.level(&subscription) {
            Wake::Never => Already::Nothing,
            Wake::Later => Already::Later,
            Wake::Now => Already::Now,
        };
        self.subscriptions.insert(id, subscription);
        let subscribed = Subscribed {
            id: SubscriptionId(id),
            lifetime_secs: subscribe.lifetime_secs,
            delay_secs: subscribe.delay_secs,
            group: subscribe.group,
            content_location: path.to_owned(),
            already,
            event: (subscribe.hierarchy.0 != self.hierarchy).then_some(DeviceEvent::Hierarchy),
        };
        with(reply(200, ""), subscribed.to_headers())
    }

    fn unsubscribe(&mut self, path: &str, ids: &[SubscriptionId], only_if_changed: bool) -> Response {
        let answers: Vec<_> = ids
            .iter()
            .map(|id| {
                let status = match self.subscriptions.get(&id.0).map(|it| self.level(it)) {
                    None => SubscriptionStatus::Unknown,
                    Some(Wake::Now) => SubscriptionStatus::Changed,
                    Some(Wake::Later) if !only_if_changed => SubscriptionStatus::Changed,
                    Some(_) => SubscriptionStatus::Unchanged,
                };
                SubscriptionAnswer { id: *id, status, group: None }
            })
            .collect();
        let quiet = answers.iter().all(|answer| answer.status == SubscriptionStatus::Unchanged);
        let mut response = reply(207, write_answers(path, &answers));
        if let Some(event) = self.manners.event {
            response = with(response, [(headers::EVENT, event.to_string())]);
        } else if only_if_changed && quiet {
            return with(response, [(headers::KEPT, "t".to_owned())]);
        }
        for id in ids {
            self.subscriptions.remove(&id.0);
        }
        response
    }

    fn poll(&self, call_back: &str) -> Response {
        let ours =
            self.subscriptions.iter().filter(|(_, it)| it.subscribe.call_back.to_string() == call_back);
        let count = ours.clone().count();
        let answers: Vec<_> = ours
            .filter(|(_, it)| self.level(it) == Wake::Now)
            .map(|(id, it)| SubscriptionAnswer {
                id: SubscriptionId(*id),
                status: SubscriptionStatus::Changed,
                group: Some(it.subscribe.group),
            })
            .collect();
        with(reply(207, write_answers("/exchange/", &answers)), [(headers::COUNT, count.to_string())])
    }
}

/// Whether `Destination` is what a back end can take: an absolute URL with a path like its own.
fn leads_to_a_mailbox(parts: &http::request::Parts) -> bool {
    let destination = parts.headers.get("destination").and_then(|value| value.to_str().ok());
    let uri = destination.and_then(|value| value.parse::<http::Uri>().ok());
    uri.is_some_and(|uri| uri.authority().is_some() && uri.path().starts_with("/exchange/"))
}
