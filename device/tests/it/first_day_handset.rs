//! A phone as the script of its first day needs it: it says what it is told to say, in any version and both request lines, and
//! remembers folders, keys and items.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER_PERMISSIVE;
use directpush_common::{
    clock::Moment,
    eas::{
        CONTENT_TYPE, Command, RequestLine, Version,
        compose_mail::{ComposeRequest, Source, read_answer},
        folder_sync::{Folder, FolderSyncRequest, FolderSyncResponse, FolderType},
        move_items::{Move, MoveItemsRequest, MoveItemsResponse, MoveItemsStatus},
        ping::{PingFolder, PingRequest, PingResponse},
        provision::{DeviceInformation, PolicyRequest, PolicyType, ProvisionRequest, ProvisionResponse},
        request_line::{DeviceId, DeviceType, Parameters},
        status::{PolicyAcknowledgement, ProvisionStatus, SyncStatus},
        sync::{
            ApplicationData, BodyPreference, BodyType, CollectionResponse, CommandResponse, ServerCommand,
            SyncCollection, SyncCommand, SyncOptions, SyncRequest, SyncResponse,
        },
    },
    wbxml::{
        Limits, Tag,
        tags::{air_sync_base, email},
    },
};
use directpush_device::{
    core::{Request, Response, Task},
    drive::basic,
    http::{Connection, Server},
};

use crate::stage::PASSWORD;

pub(crate) struct Handset {
    server: Server,
    pub(crate) user: String,
    pub(crate) version: Version,
    device_id: String,
    device_type: &'static str,
    policy_key: Option<u32>,
    hierarchy_key: String,
    pub(crate) folders: BTreeMap<String, Folder>,
    pub(crate) collections: BTreeMap<String, Collection>,
    /// ClientIds given so far.
    written: u32,
}

/// A folder that is synchronised.
#[derive(Default)]
pub(crate) struct Collection {
    key: String,
    pub(crate) items: BTreeMap<String, ApplicationData>,
}

pub(crate) fn limits() -> Limits {
    Limits { bytes_max: 64 << 20, ..Limits::default() }
}

/// Bytes as the captures show them.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.replace(char::is_whitespace, "").as_bytes()).unwrap()
}

/// The text of a property; of a body what is in its Data.
pub(crate) fn text(data: &ApplicationData, tag: Tag) -> String {
    let found = data.iter().find(|element| element.tag == tag);
    found.map(|element| element.own_text().into_owned()).unwrap_or_default()
}

pub(crate) fn body(data: &ApplicationData) -> String {
    let body = data.iter().find(|element| element.tag == air_sync_base::BODY);
    let inner = body.and_then(|body| body.child(air_sync_base::DATA));
    inner.map_or_else(|| text(data, email::BODY), |data| data.own_text().into_owned())
}

impl Handset {
    pub(crate) fn new(server: Server, user: &str, version: Version) -> Self {
        let (device_id, device_type) = match version {
            Version::V2_5 => ("6F24CAD599A5BF1A690246B8C68FAE8D", "PocketPC"),
            Version::V12_0 => ("6F24CAD599A5BF1A690246B8C68FAE8E", "SmartPhone"),
            Version::V12_1 => ("B5280D56929FDF0C637412A86A1B65CE", "WindowsMail"),
            Version::V14_0 | Version::V14_1 => ("androidc1234567890", "Android"),
            Version::V16_0 | Version::V16_1 => ("ApplF2LM1234567890ABCDEFGH", "iPhone"),
        };
        Self {
            server,
            user: user.to_owned(),
            version,
            device_id: device_id.to_owned(),
            device_type,
            policy_key: None,
            hierarchy_key: "0".to_owned(),
            folders: BTreeMap::new(),
            collections: BTreeMap::new(),
            written: 0,
        }
    }

    pub(crate) async fn http(
        &self,
        method: &'static str,
        target: String,
        authorization: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Response {
        let mut connection = Connection::open(&self.server, None).await.unwrap();
        let give_up = Moment(u64::MAX);
        let request = Request { task: Task::Options, method, target, headers, body, give_up };
        connection.send(&self.server, authorization, &request).await.unwrap();
        connection.receive().await.unwrap().0
    }

    pub(crate) fn authorization(&self) -> String {
        basic(&self.user, PASSWORD)
    }

    fn line(&self, command: Command, parameters: Parameters) -> RequestLine {
        RequestLine {
            command,
            version: self.version,
            user: Some(self.user.clone()),
            device_id: DeviceId::new(&self.device_id).unwrap(),
            device_type: DeviceType::new(self.device_type).unwrap(),
            policy_key: self.policy_key,
            locale: Some(0x0409),
            parameters,
        }
    }

    /// One command. Windows Mail writes the query in base64, an iPhone the parameters in an order of its own.
    pub(crate) async fn post(&self, command: Command, parameters: Parameters, body: Vec<u8>) -> Response {
        let line = self.line(command, parameters);
        let base64 = (self.device_type == "WindowsMail").then(|| line.encode_base64()).flatten();
        let plain = base64.is_none();
        let query = base64.unwrap_or_else(|| match self.device_type {
            "iPhone" => format!(
                "User={}&DeviceId={}&DeviceType=iPhone&Cmd={}",
                self.user.replace('@', "%40"),
                self.device_id,
                command.name()
            ),
            _ => line.encode_plain(),
        });
        let mut headers = Vec::new();
        if plain {
            headers.push(("MS-ASProtocolVersion", self.version.as_str().to_owned()));
            if let Some(key) = self.policy_key.filter(|_| command.needs_policy_key()) {
                headers.push(("X-MS-PolicyKey", key.to_string()));
            }
        }
        if !body.is_empty() {
            let mail = command.sends_mail() && !self.version.has_common_statuses();
            headers.push(("Content-Type", if mail { "message/rfc822" } else { CONTENT_TYPE }.to_owned()));
        }
        let target = format!("/Microsoft-Server-ActiveSync?{query}");
        self.http("POST", target, &self.authorization(), headers, body).await
    }

    /// One command that is answered 200.
    pub(crate) async fn ask(&self, command: Command, body: Vec<u8>) -> Vec<u8> {
        let response = self.post(command, Parameters::default(), body).await;
        assert_eq!(response.status, 200, "{command} at {}", self.version);
        response.body
    }

    pub(crate) async fn folder_sync_with(&mut self, body: Vec<u8>) -> FolderSyncResponse {
        let answer = self.ask(Command::FolderSync, body).await;
        let response = FolderSyncResponse::decode(&answer, limits()).unwrap();
        if let FolderSyncResponse::Changes(changes) = &response {
            self.hierarchy_key.clone_from(&changes.sync_key);
            for folder in changes.added.iter().chain(&changes.updated) {
                self.folders.insert(folder.server_id.clone(), folder.clone());
            }
            for gone in &changes.deleted {
                self.folders.remove(gone);
                self.collections.remove(gone);
            }
        }
        response
    }

    pub(crate) async fn folder_sync(&mut self) {
        let body = FolderSyncRequest { sync_key: self.hierarchy_key.clone() }.encode();
        let response = self.folder_sync_with(body).await;
        assert!(matches!(response, FolderSyncResponse::Changes(_)), "{response:?}");
    }

    pub(crate) fn hierarchy_key(&self) -> String {
        self.hierarchy_key.clone()
    }

    pub(crate) fn set_hierarchy_key(&mut self, key: &str) {
        key.clone_into(&mut self.hierarchy_key);
    }

    pub(crate) fn folder(&self, kind: FolderType) -> String {
        self.folders.values().find(|folder| folder.kind == kind).unwrap().server_id.clone()
    }

    /// `DeviceType/DeviceId`, as an administrator names it.
    pub(crate) fn device(&self) -> String {
        format!("{}/{}", self.device_type, self.device_id)
    }

    /// Another device of the same user.
    pub(crate) fn another(&self) -> Self {
        let mut other = Self::new(self.server.clone(), &self.user, self.version);
        other.device_id.replace_range(..1, "9");
        other
    }

    /// The first request for a policy.
    pub(crate) fn ask_policy(&self) -> ProvisionRequest {
        let information = DeviceInformation {
            model: Some(self.device_type.to_owned()),
            user_agent: Some("FirstDay/1.0".to_owned()),
            ..DeviceInformation::default()
        };
        ProvisionRequest {
            device_information: self.version.needs_device_information().then_some(information),
            policy: Some(PolicyRequest::Ask(PolicyType::of(self.version))),
            remote_wipe: None,
        }
    }

    pub(crate) async fn provision_with(&self, request: &ProvisionRequest) -> ProvisionResponse {
        let answer = self.ask(Command::Provision, request.encode()).await;
        ProvisionResponse::decode(&answer, limits()).unwrap()
    }

    /// Both phases, as far as the server has a policy.
    pub(crate) async fn provision(&mut self) {
        let response = self.provision_with(&self.ask_policy()).await;
        assert_eq!(response.status, ProvisionStatus::Success, "{response:?}");
        let Some(key) = response.policy.and_then(|policy| policy.key) else { return };
        let policy = PolicyRequest::Acknowledge {
            policy_type: PolicyType::of(self.version),
            key: Some(key),
            status: PolicyAcknowledgement::Applied,
        };
        let acknowledge =
            ProvisionRequest { device_information: None, policy: Some(policy), remote_wipe: None };
        let response = self.provision_with(&acknowledge).await;
        self.policy_key = response.policy.and_then(|policy| policy.key);
        assert!(self.policy_key.is_some(), "the final key");
    }

    fn options(&self) -> SyncOptions {
        if !self.version.has_air_sync_base() {
            return SyncOptions { truncation: Some(8), ..SyncOptions::default() };
        }
        let plain = BodyPreference {
            body_type: BodyType::Plain,
            truncation_size: Some(64 << 10),
            all_or_none: false,
            preview: None,
        };
        SyncOptions { body_preferences: vec![plain], ..SyncOptions::default() }
    }

    /// One Sync of one folder.
    async fn sync_once(
        &mut self,
        folder: &str,
        commands: Vec<SyncCommand>,
        deletes_as_moves: bool,
    ) -> Option<CollectionResponse> {
        let class = self.version.has_class_in_collection().then(|| "Email".to_owned());
        let key = self.collections.get(folder).map_or("0", |known| known.key.as_str()).to_owned();
        let begins = key == "0";
        let collection = SyncCollection {
            class,
            sync_key: key,
            collection_id: folder.to_owned(),
            deletes_as_moves: (!begins).then_some(deletes_as_moves),
            get_changes: (!begins).then_some(true),
            window_size: (!begins).then_some(100),
            options: if begins { Vec::new() } else { vec![self.options()] },
            commands,
            ..SyncCollection::default()
        };
        let request = SyncRequest { collections: vec![collection], ..SyncRequest::default() };
        let answer = self.ask(Command::Sync, request.encode(self.version)).await;
        let response = SyncResponse::decode(&answer, limits()).unwrap();
        let SyncResponse::Collections(mut all) = response else { panic!("{response:?}") };
        let response = all.pop()?;
        assert_eq!(response.status, SyncStatus::Success, "{response:?}");
        let known = self.collections.entry(folder.to_owned()).or_default();
        known.key.clone_from(&response.sync_key);
        for command in &response.commands {
            match command.clone() {
                ServerCommand::Add { server_id, data } => drop(known.items.insert(server_id, data)),
                ServerCommand::Change { server_id, data } => {
                    let item = known.items.entry(server_id).or_default();
                    item.retain(|old| data.iter().all(|new| new.tag != old.tag));
                    item.extend(data);
                }
                ServerCommand::Delete { server_id } | ServerCommand::SoftDelete { server_id } => {
                    known.items.remove(&server_id);
                }
            }
        }
        Some(response)
    }

    /// Syncs of one folder until there is nothing more; what was said to the commands of the first.
    pub(crate) async fn sync_with(
        &mut self,
        folder: &str,
        commands: Vec<SyncCommand>,
        deletes_as_moves: bool,
    ) -> Vec<CommandResponse> {
        if !self.collections.contains_key(folder) {
            self.sync_once(folder, Vec::new(), true).await;
        }
        let first = self.sync_once(folder, commands, deletes_as_moves).await;
        let mut more = first.as_ref().is_some_and(|response| response.more_available);
        while more {
            let next = self.sync_once(folder, Vec::new(), true).await;
            more = next.is_some_and(|response| response.more_available);
        }
        first.map(|response| response.responses).unwrap_or_default()
    }

    pub(crate) async fn sync(&mut self, folder: &str) {
        self.sync_with(folder, Vec::new(), true).await;
    }

    /// The item with this subject.
    pub(crate) fn find(&self, folder: &str, subject: &str) -> Option<(String, ApplicationData)> {
        let items = &self.collections.get(folder)?.items;
        let found = items.iter().find(|(_, data)| text(data, email::SUBJECT) == subject);
        found.map(|(id, data)| (id.clone(), data.clone()))
    }

    /// The item as the server has it now.
    pub(crate) async fn fetch(&mut self, folder: &str, id: &str) -> ApplicationData {
        let fetch = SyncCommand::Fetch { server_id: id.to_owned() };
        let responses = self.sync_with(folder, vec![fetch], true).await;
        match responses.into_iter().next() {
            Some(CommandResponse::Fetch { status: SyncStatus::Success, data: Some(data), .. }) => data,
            other => panic!("{other:?}"),
        }
    }

    /// A Ping for these folders; its answer.
    pub(crate) async fn ping(&self, heartbeat: i64, folders: &[String]) -> PingResponse {
        let folder = |id: &String| PingFolder { id: id.clone(), class: "Email".to_owned() };
        let request =
            PingRequest { heartbeat: Some(heartbeat), folders: Some(folders.iter().map(folder).collect()) };
        PingResponse::decode(&self.ask(Command::Ping, request.encode()).await, limits()).unwrap()
    }

    /// Sends a message; `original`: folder and item. Whether it was taken.
    pub(crate) async fn send(
        &mut self,
        command: Command,
        original: Option<(&str, &str)>,
        mime: &str,
    ) -> Response {
        if !self.version.has_common_statuses() {
            let parameters = Parameters {
                collection_id: original.map(|(folder, _)| folder.to_owned()),
                item_id: original.map(|(_, item)| item.to_owned()),
                save_in_sent: true,
                ..Parameters::default()
            };
            return self.post(command, parameters, mime.as_bytes().to_vec()).await;
        }
        self.written += 1;
        let source = original.map(|(folder, item)| Source::Item {
            folder: folder.to_owned(),
            item: item.to_owned(),
            instance: None,
        });
        let request = ComposeRequest {
            client_id: Some(format!("FirstDay-{}", self.written)),
            save_in_sent: true,
            source,
            mime: mime.as_bytes().to_vec(),
            ..ComposeRequest::default()
        };
        self.post(command, Parameters::default(), request.encode(command)).await
    }

    /// The next message has the ClientId of the last.
    pub(crate) fn write_again(&mut self) {
        self.written -= 1;
    }

    /// Sends a message that is taken.
    pub(crate) async fn send_well(&mut self, command: Command, original: Option<(&str, &str)>, mime: &str) {
        let answer = self.send(command, original, mime).await;
        let status = read_answer(&answer.body, limits()).unwrap();
        assert_eq!((answer.status, status), (200, None), "{command} at {}", self.version);
    }

    /// Moves one item; the id it has then.
    pub(crate) async fn move_item(
        &mut self,
        item: &str,
        from: &str,
        to: &str,
    ) -> Result<String, MoveItemsStatus> {
        let wanted = Move { item: item.to_owned(), from: from.to_owned(), to: to.to_owned() };
        let body = MoveItemsRequest { moves: vec![wanted] }.encode();
        let answer = self.ask(Command::MoveItems, body).await;
        let response = MoveItemsResponse::decode(&answer, limits()).unwrap();
        let MoveItemsResponse::Moved(moved) = response else { panic!("{response:?}") };
        assert_eq!((moved.len(), moved[0].item.as_str()), (1, item));
        match (moved[0].status, &moved[0].moved_to) {
            (MoveItemsStatus::Success, Some(id)) => Ok(id.clone()),
            (status, _) => Err(status),
        }
    }
}
