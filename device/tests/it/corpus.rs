//! The mail corpus through both servers: every message reaches a device in every form of every version, and libwbxml's
//! `wbxml2xml` decodes every answer. The second is why `cargo xtask interop` runs this, and `cargo test` does not.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command};

use directpush_common::{
    clock::Moment,
    eas::{
        CONTENT_TYPE, Version,
        folder_sync::{FolderSyncRequest, FolderSyncResponse, FolderType},
        item_operations::{self, Fetch, FetchSource, Operation},
        sync::{
            BodyPreference, BodyType, MimeSupport, ServerCommand, SyncCollection, SyncOptions, SyncRequest,
            SyncResponse,
        },
        version::OFFERED,
    },
    wbxml::{
        Document, Element, Limits,
        tags::{air_sync_base, email, item_operations as operations},
    },
};
use directpush_device::{
    core::{Request, Task},
    drive::basic,
    http::{Connection, Server},
    pair::{Backend, Frontend, Seat},
};

use crate::{dav::Dav, stage::PASSWORD};

#[path = "../../../fe/testdata/corpus.rs"]
mod messages;

/// A response holds some messages of megabytes.
const LIMITS: Limits = Limits { bytes_max: 96 << 20, nodes_max: 1 << 20 };
/// What is larger is asked for in one version only.
const LARGE_BYTES: usize = 256 << 10;
/// Operations of one request.
const FETCHED_AT_ONCE: usize = 50;

/// A device that sends one request after the other.
struct Device {
    server: Server,
    connection: Connection,
    authorization: String,
    version: Version,
    id: String,
    user: &'static str,
    decoded: usize,
}

impl Device {
    async fn new(http: SocketAddr, user: &'static str, version: Version, id: String) -> Self {
        let server = Server::at(http);
        let connection = Connection::open(&server, None).await.unwrap();
        let authorization = basic(user, PASSWORD);
        Self { server, connection, authorization, version, id, user, decoded: 0 }
    }

    /// The answer to a command, which libwbxml must be able to read.
    async fn ask(&mut self, command: &str, body: Vec<u8>) -> Vec<u8> {
        let request = Request {
            task: Task::Options,
            method: "POST",
            target: format!(
                "/Microsoft-Server-ActiveSync?Cmd={command}&User={}&DeviceId={}&DeviceType=Test",
                self.user, self.id
            ),
            headers: vec![
                ("MS-ASProtocolVersion", self.version.as_str().to_owned()),
                ("Content-Type", CONTENT_TYPE.to_owned()),
            ],
            body,
            give_up: Moment::NEVER,
        };
        self.connection.send(&self.server, &self.authorization, &request).await.unwrap();
        let (answer, reusable) = self.connection.receive().await.unwrap();
        assert!(reusable && answer.status == 200, "{command}: {}", answer.status);
        let body = answer.body;
        if !body.is_empty() {
            wbxml2xml(&body);
            self.decoded += 1;
        }
        body
    }

    async fn inbox(&mut self) -> String {
        let request = FolderSyncRequest { sync_key: "0".to_owned() }.encode();
        match FolderSyncResponse::decode(&self.ask("FolderSync", request).await, LIMITS).unwrap() {
            FolderSyncResponse::Changes(changes) => {
                let inbox = changes.added.into_iter().find(|folder| folder.kind == FolderType::Inbox);
                inbox.unwrap().server_id
            }
            other => panic!("{other:?}"),
        }
    }

    /// All messages of the folder as this device wants them.
    async fn messages(&mut self, folder: &str, options: &SyncOptions) -> Vec<Vec<Element>> {
        let (mut key, mut messages) = ("0".to_owned(), Vec::new());
        loop {
            let collection = SyncCollection {
                class: self.version.has_class_in_collection().then(|| "Email".to_owned()),
                sync_key: key.clone(),
                collection_id: folder.to_owned(),
                get_changes: (key != "0").then_some(true),
                window_size: Some(100),
                options: vec![options.clone()],
                ..SyncCollection::default()
            };
            let request = SyncRequest { collections: vec![collection], ..SyncRequest::default() };
            let answer = self.ask("Sync", request.encode(self.version)).await;
            let SyncResponse::Collections(mut collections) = SyncResponse::decode(&answer, LIMITS).unwrap()
            else {
                panic!("no collections");
            };
            let Some(collection) = collections.pop() else { return messages };
            let begun = key == "0";
            key = collection.sync_key;
            for command in collection.commands {
                match command {
                    ServerCommand::Add { data, .. } => messages.push(data),
                    other => panic!("{other:?}"),
                }
            }
            if !begun && !collection.more_available {
                return messages;
            }
        }
    }

    /// All attachments that the messages name; gives how many.
    async fn attachments(&mut self, messages: &[Vec<Element>]) -> usize {
        let lists = messages.iter().flatten().filter(|element| element.tag == air_sync_base::ATTACHMENTS);
        let references: Vec<_> = lists
            .flat_map(Element::children)
            .filter_map(|entry| Some(entry.child(air_sync_base::FILE_REFERENCE)?.own_text().into_owned()))
            .collect();
        for some in references.chunks(FETCHED_AT_ONCE) {
            let fetch = |reference: &String| {
                Operation::Fetch(Fetch {
                    store: "Mailbox".to_owned(),
                    source: FetchSource::FileReference(reference.clone()),
                    ..Fetch::default()
                })
            };
            let request = item_operations::encode(&some.iter().map(fetch).collect::<Vec<_>>());
            let answer = self.ask("ItemOperations", request).await;
            let answer = Document::parse(&answer, LIMITS).unwrap();
            let outcomes = answer.root().child(operations::RESPONSE).unwrap().children();
            let statuses: Vec<_> = outcomes
                .map(|outcome| outcome.child_text(operations::STATUS).unwrap().into_owned())
                .collect();
            assert!(statuses.iter().all(|status| status == "1"), "{some:?}: {statuses:?}");
            assert_eq!(statuses.len(), some.len());
        }
        references.len()
    }
}

/// What libwbxml makes of a document; it must make something of it.
fn wbxml2xml(document: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answer.wbxml");
    fs::write(&file, document).unwrap();
    let made = Command::new("wbxml2xml")
        .args(["-l", "ACTIVESYNC", "-m", "0", "-o", "-"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && !made.stdout.is_empty(), "{}: {said}", made.status);
    assert!(!said.contains("Error"), "{said}");
}

/// The forms that a version has, each as a device asks for it.
fn forms(version: Version) -> Vec<SyncOptions> {
    if !version.has_air_sync_base() {
        let mime = SyncOptions { mime_support: Some(MimeSupport::Always), ..SyncOptions::default() };
        return vec![
            SyncOptions::default(),
            SyncOptions { truncation: Some(4), ..SyncOptions::default() },
            mime,
        ];
    }
    let body = |body_type, truncation_size| BodyPreference {
        body_type,
        truncation_size,
        all_or_none: false,
        preview: (version >= Version::V14_0).then_some(255),
    };
    let with = |body_preferences, mime_support| SyncOptions {
        body_preferences,
        mime_support: Some(mime_support),
        ..SyncOptions::default()
    };
    vec![
        with(vec![body(BodyType::Plain, None)], MimeSupport::Never),
        with(vec![body(BodyType::Html, None)], MimeSupport::Never),
        with(vec![body(BodyType::Mime, None)], MimeSupport::Always),
        with(vec![body(BodyType::Plain, Some(500)), body(BodyType::Html, Some(500))], MimeSupport::Never),
    ]
}

async fn put(dav: &mut Dav, messages: &[(String, Vec<u8>)]) {
    let kind = [("Content-Type", "message/rfc822".to_owned())];
    for (name, message) in messages {
        let target = format!("{}Inbox/{name}.eml", dav.user.mailbox_url());
        dav.done("PUT", &target, &kind, message).await.unwrap();
    }
}

fn is_placeholder(message: &[Element]) -> bool {
    message.iter().any(|it| it.tag == email::SUBJECT && it.own_text() == "(unreadable message)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wbxml2xml (cargo xtask interop)"]
async fn corpus_reaches_devices_in_every_form_and_libwbxml_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let seat = Seat::new("fe-1", false);
    let mut back = Backend::config(&dir.path().join("be"), std::slice::from_ref(&seat));
    back.limits.mail_bytes_max = 64 << 20;
    let backend = Backend::start(back).await.unwrap();
    let frontend = Frontend::start(Frontend::config(&seat, backend.http())).await.unwrap();
    let all = messages::messages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fe/testdata"));
    let cpython = messages::of_cpython();
    let small: Vec<_> =
        all.iter().chain(&cpython).filter(|(_, it)| it.len() <= LARGE_BYTES).cloned().collect();
    let large: Vec<_> = all.iter().filter(|(_, it)| it.len() > LARGE_BYTES).cloned().collect();
    let (mut decoded, mut attachments) = (0, BTreeSet::new());
    for (user, messages, versions) in
        [("alice@example.com", &small, &OFFERED[..]), ("bob@example.com", &large, &[Version::V14_1])]
    {
        backend.add_user(user, PASSWORD).await.unwrap();
        let mut dav = Dav::front_end(backend.http(), &seat, user).await.unwrap();
        put(&mut dav, messages).await;
        for &version in versions {
            for (number, options) in forms(version).iter().enumerate() {
                let id = format!("d{}n{number}", version.query_byte());
                let mut device = Device::new(frontend.http().unwrap(), user, version, id).await;
                let inbox = device.inbox().await;
                let got = device.messages(&inbox, options).await;
                assert_eq!(got.len(), messages.len(), "{user} {version} {number}");
                assert!(!got.iter().any(|message| is_placeholder(message)), "{user} {version} {number}");
                if version == Version::V14_1 && number == 0 {
                    attachments.insert((user, device.attachments(&got).await));
                }
                decoded += device.decoded;
            }
        }
    }
    println!(
        "{} messages ({} of CPython's), {attachments:?} attachments, {decoded} answers decoded",
        small.len() + large.len(),
        cpython.len()
    );
    frontend.stop().await;
    backend.stop().await.unwrap();
}
