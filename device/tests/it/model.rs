//! Random DAV, LMTP and ActiveSync operations on a real pair with a real store, beside a plain model of the mailbox.
//!
//! The model is maps of subjects; it knows nothing of numbers, tokens or keys. After every step something is compared:
//! a folder's listing, its messages byte for byte, what an old token leads to, or all that a phone holds.
//! `DIRECTPUSH_MODEL_SEEDS=<first>..<end>` chooses the histories. What is killed is `crash`'s subject.

use std::collections::BTreeMap;

use directpush_common::{
    clock::Moment,
    dav::{DAV, HTTPMAIL, hierarchy::Class, xml},
    eas::folder_sync::FolderType,
    names::{FolderId, ItemId, decode_segment, encode_segment},
};
use directpush_device::{
    core::{Kind, Phone, Task},
    drive::basic,
    http::{Connection, Server},
    lmtp::Lmtp,
    load::mail::message,
    pair::{Backend, Frontend, Seat},
};
use fastrand::Rng;

use crate::{
    dav::{Dav, View, text},
    stage::{PASSWORD, profile},
};

const USER: &str = "alice@example.com";
const STEPS: usize = 80;
const INBOX: &str = "Inbox";
const BIN: &str = "Deleted Items";
/// Folders that are there from the beginning and take part.
const STANDARD: [&str; 5] = [INBOX, BIN, "Drafts", "Sent Items", "Junk E-mail"];

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_leave_what_the_model_says() {
    let seeds = std::env::var("DIRECTPUSH_MODEL_SEEDS").unwrap_or_else(|_| "0..4".to_owned());
    let (first, end) = seeds.split_once("..").expect("<first>..<end>");
    for seed in first.parse().unwrap()..end.parse::<u64>().unwrap() {
        println!("DIRECTPUSH_MODEL_SEEDS={seed}..{}", seed + 1);
        let mut play = Play::new(seed).await;
        for _ in 0..STEPS {
            play.step().await;
        }
        play.restart().await;
        play.compare_all().await;
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Mail {
    read: bool,
    text: String,
    /// Another one for every place where it is put: a copy of it that a phone holds is of one stay.
    stay: u64,
}

/// Folder, subject, message.
type Model = BTreeMap<String, BTreeMap<String, Mail>>;

/// A phone that asks when it is told to, and what it held then.
struct Handset {
    phone: Phone,
    connection: Option<Connection>,
    now: Moment,
    /// Stays by folder and subject.
    seen: BTreeMap<(String, String), u64>,
}

struct Play {
    rng: Rng,
    model: Model,
    /// What lies in folders and is no message, by name: phones never hear of it.
    others: BTreeMap<String, BTreeMap<String, String>>,
    next: u64,
    dav: Dav,
    folders: BTreeMap<String, FolderId>,
    subjects: BTreeMap<(FolderId, ItemId), String>,
    /// Kept in step at every look; and seldom.
    fresh: BTreeMap<FolderId, View>,
    old: BTreeMap<FolderId, View>,
    phones: Vec<Handset>,
    backend: Option<Backend>,
    frontend: Option<Frontend>,
    seat: Seat,
    history: Vec<String>,
    dir: tempfile::TempDir,
}

impl Play {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seat = Seat::new("fe-1", false);
        let backend = Backend::start(Backend::config(dir.path(), std::slice::from_ref(&seat))).await.unwrap();
        backend.add_user(USER, PASSWORD).await.unwrap();
        let frontend = Frontend::start(Frontend::config(&seat, backend.http())).await.unwrap();
        let phones = [(Kind::WindowsMobile, 100), (Kind::Android, 5)].into_iter().enumerate();
        let phones = phones.map(|(n, (kind, window))| {
            let mut profile = profile(USER, &format!("phone{n}"), kind);
            profile.window = window;
            profile.watch = vec![
                FolderType::Inbox,
                FolderType::Deleted,
                FolderType::Drafts,
                FolderType::Sent,
                FolderType::UserMail,
            ];
            Handset { phone: Phone::new(profile), connection: None, now: Moment(0), seen: BTreeMap::new() }
        });
        let mut play = Self {
            rng: Rng::with_seed(seed),
            model: STANDARD.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect(),
            others: BTreeMap::new(),
            next: 0,
            dav: Dav::person(backend.http(), USER),
            folders: BTreeMap::new(),
            subjects: BTreeMap::new(),
            fresh: BTreeMap::new(),
            old: BTreeMap::new(),
            phones: phones.collect(),
            backend: Some(backend),
            frontend: Some(frontend),
            seat,
            history: Vec::new(),
            dir,
        };
        play.learn_folders().await;
        play
    }

    async fn step(&mut self) {
        let folder = self.rng.choice(self.model.keys()).unwrap().clone();
        let other = self.rng.choice(self.model.keys()).unwrap().clone();
        let subject = self.rng.choice(self.model[&folder].keys()).cloned();
        let own = !STANDARD.contains(&folder.as_str());
        match (self.rng.u8(..100), subject) {
            (0..20, _) => self.deliver().await,
            (20..30, _) => self.put(&folder).await,
            (30..42, Some(subject)) => self.mark(&folder, &subject).await,
            (42..54, Some(subject)) if !self.model[&other].contains_key(&subject) => {
                self.move_mail(&folder, &subject, &other).await;
            }
            (54..58, Some(subject)) => self.copy_mail(&folder, &subject, &other).await,
            (58..62, Some(subject)) => self.delete(&folder, &subject).await,
            (62..66, _) if self.model.len() < 8 => self.make_folder().await,
            (66..68, _) if own => self.rename_folder(&folder).await,
            (68..70, _) if own => self.remove_folder(&folder).await,
            (70..80, _) => self.edit_on_phone().await,
            (80..86, _) => {
                let number = self.rng.usize(..self.phones.len());
                self.settle(number).await;
                self.compare_phone(number);
            }
            (86..88, _) => self.put_other(&folder).await,
            (88..90, _) => self.restart().await,
            (90..95, _) => self.compare_old_token(&folder).await,
            _ => self.compare_folder(&folder).await,
        }
    }

    fn note(&mut self, what: String) {
        self.history.push(what);
    }

    fn mail(&mut self) -> (String, Mail) {
        self.next += 1;
        let lines = self.rng.usize(1..20);
        let line = |n| format!("line {n} of {lines}, of message {}\r\n", self.next);
        let text = (0..lines).map(line).collect::<Vec<_>>().concat();
        let mail = Mail { read: false, text: text.trim_end().to_owned(), stay: self.stay() };
        (format!("message {}", self.next), mail)
    }

    fn stay(&mut self) -> u64 {
        self.rng.u64(..)
    }

    async fn deliver(&mut self) {
        let (subject, mail) = self.mail();
        self.note(format!("deliver {subject}"));
        let lmtp = self.backend.as_ref().unwrap().lmtp().unwrap();
        let mut lmtp = Lmtp::connect(&lmtp).await.unwrap();
        let whole = message("bob@example.org", USER, &subject, &mail.text);
        let answers = lmtp.deliver("bob@example.org", &[USER], whole.as_bytes()).await.unwrap();
        assert!(answers[0].is_ok(), "{}", answers[0].reply);
        self.model.get_mut(INBOX).unwrap().insert(subject, mail);
    }

    async fn put(&mut self, folder: &str) {
        let (subject, mail) = self.mail();
        self.note(format!("put {subject} into {folder}"));
        let url = format!("{}{}.eml", folder_url(&self.dav, folder), encode_segment(&subject));
        let whole = message("bob@example.org", USER, &subject, &mail.text);
        self.dav.done("PUT", &url, &[], whole.as_bytes()).await.unwrap();
        self.model.get_mut(folder).unwrap().insert(subject, mail);
    }

    async fn mark(&mut self, folder: &str, subject: &str) {
        let mail = self.model.get_mut(folder).unwrap().get_mut(subject).unwrap();
        mail.read = !mail.read;
        let read = mail.read;
        self.note(format!("mark {subject} in {folder}: {read}"));
        let url = self.url(folder, subject).await;
        self.dav.set_read(&url, read).await.unwrap();
    }

    async fn move_mail(&mut self, folder: &str, subject: &str, to: &str) {
        self.note(format!("move {subject} from {folder} to {to}"));
        let url = self.url(folder, subject).await;
        self.dav.move_into(&url, self.folders[to]).await.unwrap();
        self.put_in_model(folder, subject, to);
    }

    async fn copy_mail(&mut self, folder: &str, subject: &str, to: &str) {
        if self.model[to].contains_key(subject) {
            return;
        }
        self.note(format!("copy {subject} from {folder} to {to}"));
        let url = self.url(folder, subject).await;
        let there = format!("{}{}.eml", folder_url(&self.dav, to), encode_segment(subject));
        self.dav.done("COPY", &url, &[("Destination", there)], b"").await.unwrap();
        let mail = Mail { stay: self.stay(), ..self.model[folder][subject].clone() };
        self.model.get_mut(to).unwrap().insert(subject.to_owned(), mail);
    }

    /// A resource that is no item of the folder's class.
    async fn put_other(&mut self, folder: &str) {
        let name = format!("notes {}.txt", self.rng.u8(..3));
        self.next += 1;
        let text = format!("text {}", self.next);
        self.note(format!("put {name} into {folder}: {text}"));
        let url = format!("{}{}", folder_url(&self.dav, folder), encode_segment(&name));
        let kind = [("Content-Type", "text/plain".to_owned())];
        self.dav.done("PUT", &url, &kind, text.as_bytes()).await.unwrap();
        self.others.entry(folder.to_owned()).or_default().insert(name, text);
    }

    fn put_in_model(&mut self, folder: &str, subject: &str, to: &str) {
        let stay = self.stay();
        let mail = self.model.get_mut(folder).unwrap().remove(subject).unwrap();
        self.model.get_mut(to).unwrap().insert(subject.to_owned(), Mail { stay, ..mail });
    }

    async fn delete(&mut self, folder: &str, subject: &str) {
        self.note(format!("delete {subject} in {folder}"));
        let url = self.url(folder, subject).await;
        self.dav.done("DELETE", &url, &[], b"").await.unwrap();
        self.model.get_mut(folder).unwrap().remove(subject);
    }

    async fn make_folder(&mut self) {
        self.next += 1;
        let name = format!("Größe {}", self.next);
        self.note(format!("make {name}"));
        let url = folder_url(&self.dav, &name);
        self.dav.done("MKCOL", &url, &[], b"").await.unwrap();
        self.model.insert(name, BTreeMap::new());
        self.learn_folders().await;
    }

    async fn rename_folder(&mut self, folder: &str) {
        self.next += 1;
        let name = format!("Renamed {}", self.next);
        self.note(format!("rename {folder} to {name}"));
        let to = [("Destination", folder_url(&self.dav, &name))];
        self.dav.done("MOVE", &folder_url(&self.dav, folder), &to, b"").await.unwrap();
        let mails = self.model.remove(folder).unwrap();
        self.model.insert(name.clone(), mails);
        if let Some(others) = self.others.remove(folder) {
            self.others.insert(name.clone(), others);
        }
        for phone in &mut self.phones {
            let seen = std::mem::take(&mut phone.seen).into_iter();
            phone.seen = seen
                .map(|((there, subject), stay)| {
                    ((if there == folder { name.clone() } else { there }, subject), stay)
                })
                .collect();
        }
        self.learn_folders().await;
    }

    async fn remove_folder(&mut self, folder: &str) {
        self.note(format!("remove {folder}"));
        self.dav.done("DELETE", &folder_url(&self.dav, folder), &[], b"").await.unwrap();
        self.model.remove(folder);
        self.others.remove(folder);
        self.learn_folders().await;
    }

    /// The owner reads or deletes something that the phone showed; it may long have gone or moved.
    async fn edit_on_phone(&mut self) {
        let number = self.rng.usize(..self.phones.len());
        let Some(((folder, subject), stay)) = self.rng.choice(self.phones[number].seen.clone()) else {
            return;
        };
        let Some(place) = self.folders.get(&folder).map(ToString::to_string) else { return };
        let phone = &mut self.phones[number].phone;
        let Some(collection) = phone.mailbox().folders.get(place.as_str()) else { return };
        let held = collection.items.iter().find(|(_, held)| *held.subject == *subject);
        let Some((item, held)) = held.map(|(id, held)| (id.to_string(), held.clone())) else { return };
        let there = self.model[&folder].get(&subject).filter(|mail| mail.stay == stay);
        // Who wins when both changed the flag is not the model's to say.
        if there.is_some_and(|mail| mail.read != held.read) {
            return;
        }
        // One subject is one message in each folder.
        let delete = self.rng.u8(..3) == 0 && (folder == BIN || !self.model[BIN].contains_key(&subject));
        let lives = there.is_some();
        if delete {
            assert!(phone.mailbox_mut().delete(&place, &item));
        } else {
            assert!(phone.mailbox_mut().mark_read(&place, &item, !held.read));
        }
        self.note(format!(
            "phone {number} {} {subject} in {folder}",
            if delete { "deletes" } else { "marks" }
        ));
        match (lives, delete) {
            (true, true) if folder == BIN => {
                self.model.get_mut(&folder).unwrap().remove(&subject);
            }
            (true, true) => self.put_in_model(&folder, &subject, BIN),
            (true, false) => {
                self.model.get_mut(&folder).unwrap().get_mut(&subject).unwrap().read = !held.read;
            }
            (false, _) => {}
        }
        self.settle(number).await;
        // A bin that was asked for in the same request before the folder with the deleted message shows it next time.
        self.settle(number).await;
        self.compare_phone(number);
    }

    async fn restart(&mut self) {
        self.note("restart".to_owned());
        let backend = self.backend.take().unwrap();
        let http = backend.http();
        // Who stops waits for connections, not for long.
        self.dav.moved_to(http);
        for phone in &mut self.phones {
            phone.connection = None;
        }
        self.frontend.take().unwrap().stop().await;
        backend.stop().await.unwrap();
        let mut config = Backend::config(self.dir.path(), std::slice::from_ref(&self.seat));
        config.http_listen = http;
        self.backend = Some(Backend::start(config).await.unwrap());
        self.frontend = Some(Frontend::start(Frontend::config(&self.seat, http)).await.unwrap());
    }

    /// Lets a phone do everything up to its next Ping.
    async fn settle(&mut self, number: usize) {
        self.note(format!("phone {number} syncs"));
        let server = Server::at(self.frontend.as_ref().unwrap().http().unwrap());
        let handset = &mut self.phones[number];
        handset.phone.want_hierarchy();
        handset.phone.want_sync();
        for _ in 0..300 {
            assert_eq!(handset.phone.trouble(), None, "{:#?}", self.history);
            let Some(request) = handset.phone.next_request(handset.now) else {
                handset.now = handset.phone.deadline();
                continue;
            };
            if matches!(request.task, Task::Ping(_)) {
                handset.phone.handle_wish(handset.now);
                return;
            }
            let mut connection = match handset.connection.take() {
                Some(connection) => connection,
                None => Connection::open(&server, None).await.unwrap(),
            };
            connection.send(&server, &basic(USER, PASSWORD), &request).await.unwrap();
            let (response, reusable) = connection.receive().await.unwrap();
            handset.connection = reusable.then_some(connection);
            handset.phone.handle_response(handset.now, &response);
        }
        panic!("phone {number} never rests: {:#?}", self.history);
    }

    fn compare_phone(&mut self, number: usize) {
        let handset = &mut self.phones[number];
        let (mut held, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for collection in handset.phone.mailbox().folders.values() {
            let items = collection.items.values().map(|held| {
                (held.subject.to_string(), (held.read, held.body.trim_end().replace("\r\n", "\n")))
            });
            held.insert(collection.name.to_string(), items.collect::<BTreeMap<_, _>>());
        }
        let mut there = BTreeMap::new();
        for (folder, mails) in &self.model {
            let items = mails.iter().map(|(subject, mail)| {
                seen.insert((folder.clone(), subject.clone()), mail.stay);
                (subject.clone(), (mail.read, mail.text.replace("\r\n", "\n")))
            });
            there.insert(folder.clone(), items.collect::<BTreeMap<_, _>>());
        }
        assert_eq!(held, there, "phone {number} (left) after {:#?}", self.history);
        handset.seen = seen;
    }

    async fn compare_all(&mut self) {
        let folders: Vec<String> = self.model.keys().cloned().collect();
        for folder in &folders {
            self.compare_folder(folder).await;
            self.compare_old_token(folder).await;
        }
        for number in 0..self.phones.len() {
            self.settle(number).await;
            self.compare_phone(number);
        }
    }

    /// The listing, and every message in it.
    async fn compare_folder(&mut self, folder: &str) {
        let ask = b"<D:propfind xmlns:D=\"DAV:\" xmlns:m=\"urn:schemas:httpmail:\"><D:prop>\
                    <D:getcontentlength/><m:read/></D:prop></D:propfind>";
        let url = folder_url(&self.dav, folder);
        let answer = self.dav.done("PROPFIND", &url, &[("Depth", "1".to_owned())], ask).await.unwrap();
        let (mut listed, mut others) = (BTreeMap::new(), BTreeMap::new());
        for response in xml::parse(&answer.body).unwrap().children_named(DAV, "response") {
            let href = response.child_text(DAV, "href").unwrap();
            let path = href.find("/exchange/").map_or(href, |start| &href[start..]);
            if path.ends_with('/') {
                continue;
            }
            let got = text(&self.dav.done("GET", path, &[], b"").await.unwrap());
            if let Some(read) = find(response, "read") {
                listed.insert(subject(&got), (read == "1", body(&got)));
            } else {
                let name = path.rsplit('/').next().unwrap();
                others.insert(decode_segment(name).unwrap(), got);
            }
        }
        assert_eq!(listed, flat(&self.model[folder]), "{folder} (left) after {:#?}", self.history);
        let there = self.others.get(folder).cloned().unwrap_or_default();
        assert_eq!(others, there, "others in {folder} (left) after {:#?}", self.history);
    }

    /// Going on from a token of long ago leads where everybody else is.
    async fn compare_old_token(&mut self, folder: &str) {
        let id = self.folders[folder];
        let mut view = self.old.remove(&id).unwrap_or_default();
        view.sync(&mut self.dav, id).await.unwrap();
        let mut listed = BTreeMap::new();
        for (item, (_, live)) in &view.items {
            let (subject, body) = self.content(id, *item).await;
            listed.insert(subject, (live.read, body));
        }
        assert_eq!(listed, flat(&self.model[folder]), "{folder} by token (left) after {:#?}", self.history);
        self.old.insert(id, view);
    }

    async fn content(&mut self, folder: FolderId, item: ItemId) -> (String, String) {
        let url = folder.item_url(&self.dav.user, item);
        let whole = text(&self.dav.done("GET", &url, &[], b"").await.unwrap());
        (subject(&whole), body(&whole))
    }

    /// The permanent URL of a message.
    async fn url(&mut self, folder: &str, subject: &str) -> String {
        let id = self.folders[folder];
        let mut view = self.fresh.remove(&id).unwrap_or_default();
        view.sync(&mut self.dav, id).await.unwrap();
        let mut found = None;
        for item in view.items.keys() {
            if !self.subjects.contains_key(&(id, *item)) {
                let (subject, _) = self.content(id, *item).await;
                self.subjects.insert((id, *item), subject);
            }
            found = found.or((self.subjects[&(id, *item)] == subject).then_some(*item));
        }
        self.fresh.insert(id, view);
        let item = found.unwrap_or_else(|| panic!("{subject} is not in {folder}: {:#?}", self.history));
        id.item_url(&self.dav.user, item)
    }

    async fn learn_folders(&mut self) {
        let all = self.dav.hierarchy().await.unwrap();
        let mail = all.into_iter().filter(|folder| folder.class == Class::Email);
        self.folders = mail.map(|folder| (folder.name, folder.id)).collect();
        let missing: Vec<&String> =
            self.model.keys().filter(|name| !self.folders.contains_key(*name)).collect();
        assert!(missing.is_empty(), "{missing:?} are missing after {:#?}", self.history);
        let own = self.folders.keys().filter(|name| self.model.contains_key(*name)).count();
        assert_eq!(own, self.model.len());
    }
}

fn folder_url(dav: &Dav, folder: &str) -> String {
    format!("{}{}/", dav.user.mailbox_url(), encode_segment(folder))
}

fn flat(mails: &BTreeMap<String, Mail>) -> BTreeMap<String, (bool, String)> {
    mails.iter().map(|(subject, mail)| (subject.clone(), (mail.read, mail.text.clone()))).collect()
}

/// The text of a property of `httpmail` that was found.
fn find<'a>(response: &'a xml::Element, name: &str) -> Option<&'a str> {
    let found = response
        .children_named(DAV, "propstat")
        .find(|stat| stat.child_text(DAV, "status").is_some_and(|status| status.contains(" 200 ")))?;
    found.child(DAV, "prop")?.child(HTTPMAIL, name).map(|element| element.text.as_str())
}

fn subject(whole: &str) -> String {
    whole.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned()
}

fn body(whole: &str) -> String {
    let (_, body) = whole.split_once("\r\n\r\n").unwrap();
    body.strip_suffix("\r\n").unwrap().to_owned()
}
