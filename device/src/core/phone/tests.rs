//! A phone against scripted answers.

use directpush_common::{
    clock::Moment,
    eas::{
        Version,
        folder_sync::{Folder, FolderSyncResponse, FolderType, HierarchyChanges},
        ping::{PingBody, PingFolder, PingResponse},
        provision::{PolicyResponse, PolicyType, ProvisionResponse},
        status::{FolderSyncStatus, PolicyStatus, ProvisionStatus, SyncStatus},
        sync::{CollectionResponse, ServerCommand, SyncBody, SyncCommand, SyncResponse, email_read},
    },
    wbxml::{Element, Limits, tags::email},
};

use super::{super::Kind, *};

const INBOX: &str = "7529a5b36290aa458b9e1fc2d5ff85a6-5";

/// A phone, its time, and what it sent last.
struct Bench {
    phone: Phone,
    now: Moment,
}

impl Bench {
    fn new(strategy: Kind) -> Self {
        let profile = Profile::new("alice", "6F24CAD599A5BF1A690246B8C68FAE8D", strategy).unwrap();
        Self { phone: Phone::new(profile), now: Moment(5000) }
    }

    /// The next request, which must be for `task`.
    #[track_caller]
    fn expect(&mut self, task: &str) -> Request {
        let request = self.phone.next_request(self.now).expect("a request");
        assert_eq!(request.task.name(), task);
        assert!(self.phone.next_request(self.now).is_none(), "one request at a time");
        request
    }

    fn answer(&mut self, status: u16, body: Vec<u8>) -> Vec<News> {
        self.phone.handle_response(self.now, &Response { status, headers: Vec::new(), body })
    }

    fn options(&mut self, versions: &str, commands: &str) {
        self.expect("OPTIONS");
        let headers = [("ms-asprotocolversions", versions), ("ms-asprotocolcommands", commands)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        self.phone.handle_response(self.now, &Response { status: 200, headers, body: Vec::new() });
    }

    fn hierarchy(&mut self) {
        self.expect("FolderSync");
        let folder = |server_id: &str, kind| Folder {
            server_id: server_id.to_owned(),
            parent_id: "0".to_owned(),
            display_name: "Inbox".to_owned(),
            kind,
        };
        let added = vec![folder(INBOX, FolderType::Inbox), folder("sent", FolderType::Sent)];
        let changes = HierarchyChanges { sync_key: "1".to_owned(), added, ..HierarchyChanges::default() };
        self.answer(200, FolderSyncResponse::Changes(changes).encode());
    }

    /// Answers a Sync with this key and these commands.
    fn sync(&mut self, key: &str, commands: Vec<ServerCommand>, more: bool) -> (SyncCollection, Vec<News>) {
        let request = self.expect("Sync");
        let Ok(SyncBody::Full(asked)) = SyncBody::decode(&request.body, Limits::default()) else {
            panic!("a Sync body")
        };
        let plain = CollectionResponse::plain(key, INBOX, SyncStatus::Success);
        let answer = CollectionResponse { commands, more_available: more, ..plain };
        let body = SyncResponse::Collections(vec![answer]).encode(self.phone.version());
        let news = self.answer(200, body);
        (asked.collections[0].clone(), news)
    }

    /// From the account to the first Ping.
    fn connected(strategy: Kind) -> Self {
        let mut bench = Self::new(strategy);
        bench.options("2.5,12.0,12.1,14.0,14.1", "Sync,FolderSync,Ping,Provision");
        bench.hierarchy();
        bench.sync("1", Vec::new(), false);
        bench.sync("2", vec![add("1", "hello")], false);
        bench
    }

    fn ping(&mut self) -> (u32, PingBody) {
        let request = self.expect("Ping");
        let Task::Ping(secs) = request.task else { panic!("a Ping") };
        (secs, PingBody::decode(&request.body, Limits::default()).unwrap())
    }

    fn answer_ping(&mut self, response: &PingResponse) {
        self.answer(200, response.encode());
    }
}

use directpush_common::eas::sync::SyncCollection;

fn add(id: &str, subject: &str) -> ServerCommand {
    let data = vec![Element::text(email::SUBJECT, subject), Element::text(email::READ, "0")];
    ServerCommand::Add { server_id: id.to_owned(), data }
}

#[test]
fn a_phone_goes_from_its_account_to_ping() {
    let mut bench = Bench::new(Kind::Android);
    bench.options("2.5,12.1,14.1,16.1", "Sync,Ping");
    assert_eq!(bench.phone.version(), Version::V14_1, "the best that both speak");
    bench.hierarchy();
    let (asked, _) = bench.sync("1", Vec::new(), false);
    assert_eq!((asked.sync_key.as_str(), asked.window_size), ("0", None));
    let (asked, news) = bench.sync("2", vec![add("1", "a")], true);
    assert_eq!(
        (asked.sync_key.as_str(), asked.wants_changes(Version::V14_1), asked.class),
        ("1", true, None)
    );
    assert_eq!(news.len(), 1);
    bench.sync("3", vec![add("2", "b")], false);
    let (_, inbox) = bench.phone.mailbox().folder_of(FolderType::Inbox).unwrap();
    let subjects: Vec<_> = inbox.items.values().map(|held| &*held.subject).collect();
    assert_eq!(subjects, ["a", "b"]);
    assert!(bench.phone.mailbox().folder_of(FolderType::Sent).is_none(), "only what is kept");
    let folders = vec![PingFolder { id: INBOX.to_owned(), class: "Email".to_owned() }];
    let (secs, body) = bench.ping();
    assert_eq!(secs, 480);
    let full = PingRequest { heartbeat: Some(480), folders: Some(folders) };
    assert_eq!(body, PingBody::Full(full));
}

#[test]
fn the_request_line_is_the_articles() {
    let mut bench = Bench::connected(Kind::WindowsMobile);
    let request = bench.expect("Ping");
    let line = "/Microsoft-Server-ActiveSync?User=alice&DeviceId=6F24CAD599A5BF1A690246B8C68FAE8D\
                &DeviceType=PocketPC&Cmd=Ping";
    assert_eq!((request.method, request.target.as_str()), ("POST", line));
    assert!(request.headers.contains(&("MS-ASProtocolVersion", "2.5".to_owned())));
    let mut profile = Profile::new("alice", "a", Kind::Android).unwrap();
    profile.base64 = true;
    let request = Request::new(&profile, Version::V14_1, None, Task::FolderSync, vec![1], Moment(0));
    assert!(!request.target.contains("Cmd="), "{}", request.target);
    assert!(request.headers.iter().all(|(name, _)| *name != "MS-ASProtocolVersion"));
}

#[test]
fn windows_mobile_repeats_an_unchanged_ping_without_a_body() {
    let mut bench = Bench::connected(Kind::WindowsMobile);
    assert!(matches!(bench.ping(), (480, PingBody::Full(_))));
    bench.answer_ping(&PingResponse::Changed(vec![INBOX.to_owned()]));
    bench.sync("3", vec![add("2", "b")], false);
    assert_eq!(bench.ping(), (480, PingBody::Empty), "neither interval nor folders changed");
    bench.answer_ping(&PingResponse::Expired);
    assert!(matches!(bench.ping(), (780, PingBody::Full(_))), "the interval changed");
    bench.answer_ping(&PingResponse::Changed(vec![INBOX.to_owned()]));
    bench.sync("3", Vec::new(), false);
    assert_eq!(bench.ping(), (780, PingBody::Empty));
    bench.answer_ping(&PingResponse::MissingParameters);
    assert!(matches!(bench.ping(), (780, PingBody::Full(_))), "Status 3: all of it, at once");
}

#[test]
fn a_change_is_synced_and_pinged_again() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    bench.answer_ping(&PingResponse::Changed(vec![INBOX.to_owned()]));
    let (asked, news) = bench.sync("3", vec![add("9", "new")], false);
    assert_eq!(asked.sync_key, "2");
    assert_eq!(news, [News::Added { folder: INBOX.to_owned(), item: "9".to_owned() }]);
    bench.ping();
    assert_eq!(bench.phone.counters().empty_syncs, 0);
    bench.answer_ping(&PingResponse::Changed(vec![INBOX.to_owned()]));
    bench.expect("Sync");
    bench.answer(200, Vec::new());
    assert_eq!(bench.phone.counters().empty_syncs, 1, "2 and nothing there");
    bench.ping();
}

#[test]
fn own_changes_are_uploaded_once_and_again_if_the_answer_is_lost() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    assert!(bench.phone.mailbox_mut().mark_read(INBOX, "1", true));
    assert!(bench.phone.handle_wish(bench.now), "the Ping is given up");
    bench.expect("Sync");
    bench.phone.handle_lost(bench.now);
    bench.now = bench.phone.deadline();
    let (asked, _) = bench.sync("3", Vec::new(), false);
    let [SyncCommand::Change { server_id, data }] = asked.commands.as_slice() else { panic!("one change") };
    assert_eq!((server_id.as_str(), email_read(data)), ("1", Some(true)));
    bench.ping();
}

#[test]
fn status_5_gives_the_heartbeat_and_7_a_folder_sync() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    bench.answer_ping(&PingResponse::HeartbeatOutOfRange(300));
    assert_eq!(bench.ping().0, 300);
    bench.answer_ping(&PingResponse::FolderSyncRequired);
    bench.hierarchy();
    bench.ping();
}

#[test]
fn status_8_is_repeated_at_once_by_android_and_ever_later_by_others() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    bench.answer_ping(&PingResponse::ServerError);
    bench.ping();
    let mut bench = Bench::connected(Kind::WindowsMobile);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        bench.ping();
        bench.answer_ping(&PingResponse::ServerError);
        pauses.push(bench.phone.deadline().millis_since(bench.now));
        bench.now = bench.phone.deadline();
    }
    assert_eq!(pauses, [1000, 2000, 4000, 8000]);
}

#[test]
fn overload_is_waited_out() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    let headers = vec![("retry-after".to_owned(), "17".to_owned())];
    bench.phone.handle_response(bench.now, &Response { status: 503, headers, body: Vec::new() });
    assert!(bench.phone.next_request(bench.now).is_none());
    assert_eq!(bench.phone.deadline(), bench.now.plus_secs(17));
    assert_eq!(bench.phone.heartbeat().interval(), 480, "it teaches nothing about the network");
    bench.now = bench.phone.deadline();
    bench.ping();
}

#[test]
fn a_lost_ping_is_repeated_at_once_and_a_refused_one_after_a_pause() {
    let mut bench = Bench::connected(Kind::WindowsMobile);
    bench.ping();
    bench.now = bench.now.plus_secs(400);
    bench.phone.handle_lost(bench.now);
    assert_eq!(bench.ping().0, 60, "the interval had not been raised: to the minimum");
    bench.phone.handle_lost(bench.now);
    assert!(bench.phone.next_request(bench.now).is_none());
    bench.now = bench.phone.deadline();
    bench.ping();
    assert!(!bench.phone.handle_time(bench.now));
    bench.now = bench.phone.deadline();
    assert_eq!(bench.now.0 % 1000, 0);
    assert!(bench.phone.handle_time(bench.now), "no answer in time");
    bench.ping();
}

#[test]
fn a_demanded_policy_is_fetched_in_two_phases() {
    let mut bench = Bench::new(Kind::Android);
    bench.options("14.1", "Ping");
    bench.expect("FolderSync");
    bench.answer(449, Vec::new());
    let policy = |key, status| ProvisionResponse {
        device_information: Some(true),
        status: ProvisionStatus::Success,
        policy: Some(PolicyResponse { policy_type: PolicyType::Wbxml, status, key: Some(key), data: None }),
        wipe: None,
    };
    bench.expect("Provision");
    bench.answer(200, policy(11, PolicyStatus::Success).encode());
    bench.expect("Provision");
    bench.answer(200, policy(12, PolicyStatus::Success).encode());
    let request = bench.expect("FolderSync");
    assert!(request.headers.contains(&("X-MS-PolicyKey", "12".to_owned())));
}

#[test]
fn keys_that_the_server_lost_are_begun_anew() {
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    bench.answer_ping(&PingResponse::Changed(vec![INBOX.to_owned()]));
    bench.expect("Sync");
    let lost = CollectionResponse::plain("0", INBOX, SyncStatus::InvalidSyncKey);
    bench.answer(200, SyncResponse::Collections(vec![lost]).encode(Version::V14_1));
    let (asked, _) = bench.sync("1", Vec::new(), false);
    assert_eq!(asked.sync_key, "0");
    bench.sync("2", vec![add("1", "hello")], false);
    bench.ping();
    bench.answer_ping(&PingResponse::FolderSyncRequired);
    bench.expect("FolderSync");
    bench.answer(200, FolderSyncResponse::Failed(FolderSyncStatus::InvalidSyncKey).encode());
    bench.hierarchy();
    bench.ping();
}

#[test]
fn trouble_stops_the_phone_and_says_why() {
    let mut bench = Bench::new(Kind::Android);
    bench.expect("OPTIONS");
    bench.answer(401, Vec::new());
    assert_eq!(bench.phone.trouble(), Some(&Trouble::Credentials));
    assert_eq!(bench.phone.deadline(), Moment::NEVER);
    let mut bench = Bench::new(Kind::WindowsMobile);
    bench.options("14.1", "Ping");
    assert!(matches!(bench.phone.trouble(), Some(Trouble::Version(..))));
    let mut bench = Bench::new(Kind::Android);
    bench.options("", "");
    assert!(matches!(bench.phone.trouble(), Some(Trouble::NotActiveSync(_))));
    let mut bench = Bench::connected(Kind::Android);
    bench.ping();
    bench.answer_ping(&PingResponse::TooManyFolders(3));
    assert_eq!(bench.phone.trouble(), Some(&Trouble::TooManyFolders(3)));
}

#[test]
fn without_push_it_polls() {
    let mut bench = Bench::new(Kind::Android);
    bench.options("14.1", "Sync,FolderSync");
    bench.hierarchy();
    bench.sync("1", Vec::new(), false);
    bench.sync("2", Vec::new(), false);
    assert!(bench.phone.next_request(bench.now).is_none());
    assert_eq!(bench.phone.deadline(), bench.now.plus_secs(900));
    bench.now = bench.phone.deadline();
    bench.expect("Sync");
}
