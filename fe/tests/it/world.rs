//! A front end, a fake back end behind it, and a device before it.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse};
use directpush_common::eas::ping::{PingFolder, PingRequest, PingResponse};
use directpush_common::eas::sync::{SyncCollection, SyncRequest, SyncResponse};
use directpush_common::eas::{CONTENT_TYPE, Version};
use directpush_common::push::heartbeat::HeartbeatLimits;
use directpush_common::wbxml::Limits;
use directpush_fe::{BackendConfig, Config, FrontEnd};
use reqwest::{Method, Response};
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, PASSWORD, USER, folder_id};

pub(crate) struct World {
    pub(crate) fake: Arc<Fake>,
    pub(crate) front: FrontEnd,
    pub(crate) shutdown: CancellationToken,
    pub(crate) client: reqwest::Client,
}

/// A device, as far as its request line goes.
#[derive(Clone, Copy)]
pub(crate) struct Phone {
    pub(crate) id: &'static str,
    pub(crate) version: Version,
}

pub(crate) const PHONE: Phone = Phone { id: "6F24CAD599A5BF1A690246B8C68FAE8D", version: Version::V14_1 };

/// Heartbeats from one second.
pub(crate) fn config(fake: &Fake) -> Config {
    let backend = BackendConfig {
        name: "be-1".into(),
        url: format!("http://{}", fake.address),
        domains: vec!["example.com".into()],
        default: true,
        notify_from: vec!["127.0.0.1".parse().unwrap()],
    };
    let mut config = Config::local("fe-1", "0123456789abcdef", vec![backend]);
    config.heartbeat = HeartbeatLimits::new(1, 3540).unwrap();
    config.max_folders = 3;
    config
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::before(Fake::start().await, change).await
    }

    pub(crate) async fn before(fake: Arc<Fake>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&fake);
        change(&mut config);
        let shutdown = CancellationToken::new();
        let front = directpush_fe::run(config, shutdown.clone()).await.unwrap();
        // As main does; all but the first fail.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { fake, front, shutdown, client }
    }

    pub(crate) fn url(&self, query: &str) -> String {
        format!("http://{}/Microsoft-Server-ActiveSync?{query}", self.front.http[0])
    }

    pub(crate) fn request(&self, method: Method, query: &str) -> reqwest::RequestBuilder {
        let basic = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        self.client.request(method, self.url(query)).header("Authorization", format!("Basic {basic}"))
    }

    pub(crate) async fn post(&self, phone: Phone, command: &str, body: Vec<u8>) -> Response {
        self.send(phone, command, body).await.unwrap()
    }

    pub(crate) async fn send(&self, phone: Phone, command: &str, body: Vec<u8>) -> reqwest::Result<Response> {
        let query = format!("Cmd={command}&User={USER}&DeviceId={}&DeviceType=PocketPC", phone.id);
        let mut request =
            self.request(Method::POST, &query).header("MS-ASProtocolVersion", phone.version.as_str());
        if !body.is_empty() {
            request = request.header("Content-Type", CONTENT_TYPE);
        }
        request.body(body).send().await
    }

    pub(crate) async fn body(&self, phone: Phone, command: &str, body: Vec<u8>) -> Bytes {
        let response = self.post(phone, command, body).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap()
    }

    pub(crate) async fn folder_sync(&self, phone: Phone, key: &str) -> FolderSyncResponse {
        let body = FolderSyncRequest { sync_key: key.into() }.encode();
        FolderSyncResponse::decode(&self.body(phone, "FolderSync", body).await, Limits::default()).unwrap()
    }

    pub(crate) async fn ping(&self, phone: Phone, heartbeat: Option<i64>, folders: &[u64]) -> PingResponse {
        self.ping_raw(phone, ping_body(heartbeat, folders)).await
    }

    pub(crate) async fn ping_raw(&self, phone: Phone, body: Vec<u8>) -> PingResponse {
        PingResponse::decode(&self.body(phone, "Ping", body).await, Limits::default()).unwrap()
    }

    pub(crate) async fn sync(&self, phone: Phone, collection: SyncCollection) -> SyncResponse {
        let request = SyncRequest { collections: vec![collection], ..SyncRequest::default() };
        let body = self.body(phone, "Sync", request.encode(phone.version)).await;
        SyncResponse::decode(&body, Limits::default()).unwrap()
    }

    /// FolderSync, Sync key 0, Sync until nothing is left. Returns the key.
    pub(crate) async fn prepare(&self, phone: Phone, folder: u64) -> String {
        self.folder_sync(phone, "0").await;
        let mut key = "0".to_owned();
        loop {
            let collection = collection(phone, folder, &key);
            match self.sync(phone, collection).await {
                SyncResponse::Collections(collections) if !collections.is_empty() => {
                    let idle = key == collections[0].sync_key
                        || (key != "0"
                            && !collections[0].more_available
                            && collections[0].commands.is_empty());
                    key.clone_from(&collections[0].sync_key);
                    if idle {
                        break;
                    }
                }
                _ => break,
            }
        }
        self.fake.requests();
        key
    }

    /// A Ping that waits: comes back with the answer to come, once it is subscribed.
    pub(crate) async fn park(
        &self,
        phone: Phone,
        heartbeat: i64,
        folders: &[u64],
    ) -> tokio::task::JoinHandle<reqwest::Result<Response>> {
        let (before, count) = (self.front.engine.waiting(), folders.len());
        let made = self.fake.mailbox.lock().next_subscription + count as u64;
        let query = format!("Cmd=Ping&User={USER}&DeviceId={}&DeviceType=PocketPC", phone.id);
        let request = self
            .request(Method::POST, &query)
            .header("MS-ASProtocolVersion", phone.version.as_str())
            .body(ping_body(Some(heartbeat), folders));
        let waiting = tokio::spawn(request.send());
        self.fake.until("subscribed", |mailbox| mailbox.next_subscription >= made).await;
        let _ = before;
        waiting
    }
}

pub(crate) fn ping_body(heartbeat: Option<i64>, folders: &[u64]) -> Vec<u8> {
    let class = |counter| if counter == 3 { "Calendar" } else { "Email" };
    let list = folders
        .iter()
        .map(|&counter| PingFolder { id: folder_id(counter).to_string(), class: class(counter).into() });
    let folders = (!folders.is_empty()).then(|| list.collect());
    PingRequest { heartbeat, folders }.encode()
}

pub(crate) fn collection(phone: Phone, folder: u64, key: &str) -> SyncCollection {
    let class = if folder == 3 { "Calendar" } else { "Email" };
    SyncCollection {
        class: phone.version.has_class_in_collection().then(|| class.to_owned()),
        sync_key: key.into(),
        collection_id: folder_id(folder).to_string(),
        ..SyncCollection::default()
    }
}

pub(crate) async fn decode_ping(response: reqwest::Result<Response>) -> PingResponse {
    let body = response.unwrap().bytes().await.unwrap();
    PingResponse::decode(&body, Limits::default()).unwrap()
}

/// The status 2 that names these folders.
pub(crate) fn changed(folders: &[u64]) -> PingResponse {
    PingResponse::Changed(folders.iter().map(|&counter| folder_id(counter).to_string()).collect())
}

pub(crate) const MAIL: &str = "From: Bob <bob@example.com>\r\nTo: alice@example.com\r\nSubject: Lunch\r\n\
    MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nAt noon?\r\n";
