//! Steps of a phone's first day that are about the account: finding the server, settings, folders, searching, drafts, and being
//! wiped in the end.

use tokio::time::timeout;

use crate::first_day::Day;
use crate::first_day_handset::{body, limits, text};
use crate::stage::{PATIENCE, wait_until};
use directpush_be::admin::{Order, devices::DeviceOrder};
use directpush_common::{
    eas::{
        Command,
        autodiscover::AutodiscoverRequest,
        find::{FindCriterion, FindRequest},
        folder_change::{FolderChange, FolderChangeRequest, FolderChangeResponse},
        folder_sync::{FolderSyncRequest, FolderType},
        move_items::MoveItemsStatus,
        ping::PingResponse,
        provision::{DeviceInformation, ProvisionRequest, Wipe},
        request_line::Parameters,
        search::{MailboxQuery, Range, SearchRequest, SearchStore},
        settings::SettingsRequest,
        status::{FolderChangeStatus, SyncStatus},
        sync::{CommandResponse, SyncCommand},
    },
    wbxml::{
        Contents, Element, dump_bytes,
        tags::{air_sync_base as base, email, email2},
    },
};

const FIRST_TEN: Range = Range { first: 0, last: 9 };

impl Day {
    pub(crate) async fn autodiscover(&mut self) {
        let phone = &self.phone;
        let body = AutodiscoverRequest { address: phone.user.clone() }.encode().into_bytes();
        let headers = vec![("Content-Type", "text/xml; charset=utf-8".to_owned())];
        let path = "/autodiscover/autodiscover.xml".to_owned();
        let answer = phone.http("POST", path, &phone.authorization(), headers, body).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.status == 200 && text.contains("/Microsoft-Server-ActiveSync</Url>"), "{text}");
    }

    pub(crate) async fn settings(&mut self) {
        let information = DeviceInformation { model: Some("Phone".into()), ..DeviceInformation::default() };
        let asked = SettingsRequest {
            device_information: Some(Ok(information)),
            user_information: true,
            ..SettingsRequest::default()
        };
        let shown = dump_bytes(&self.phone.ask(Command::Settings, asked.encode()).await, Contents::Shown);
        assert!(shown.starts_with("<Settings><Status>1</Status>"), "{shown}");
        assert!(shown.contains(&format!("<SMTPAddress>{}<", self.phone.user)), "{shown}");
    }

    async fn change_folder(&mut self, change: FolderChange) -> FolderChangeResponse {
        let command = change.command();
        let body = FolderChangeRequest { sync_key: self.phone.hierarchy_key(), change }.encode();
        let answer = self.phone.ask(command, body).await;
        let response = FolderChangeResponse::decode(&answer, command, limits()).unwrap();
        if let Some(key) = &response.sync_key {
            self.phone.set_hierarchy_key(key);
        }
        response
    }

    /// A folder is made, gets an item, is renamed, and goes; the other phone of the same user is told of each.
    pub(crate) async fn folders(&mut self) {
        let mut second = self.phone.another();
        second.provision().await;
        second.folder_sync().await;
        let create = FolderChange::Create {
            parent_id: "0".into(),
            display_name: "Travel".into(),
            kind: FolderType::UserMail,
        };
        let made = self.change_folder(create.clone()).await;
        assert_eq!(made.status, FolderChangeStatus::Success);
        let id = made.server_id.unwrap();
        assert_ne!(self.change_folder(create).await.status, FolderChangeStatus::Success, "the name is taken");

        let inbox = self.inbox.clone();
        let (item, _) = self.phone.find(&inbox, "old 3").unwrap();
        self.phone.move_item(&item, &inbox, &id).await.unwrap();
        self.phone.sync(&id).await;
        assert!(self.phone.find(&id, "old 3").is_some());

        let rename = FolderChange::Update {
            server_id: id.clone(),
            parent_id: "0".into(),
            display_name: "Rome".into(),
        };
        assert_eq!(self.change_folder(rename).await.status, FolderChangeStatus::Success);
        second.folder_sync().await;
        assert_eq!(second.folders[&id].display_name, "Rome");

        let delete = FolderChange::Delete { server_id: id.clone() };
        assert_eq!(self.change_folder(delete).await.status, FolderChangeStatus::Success);
        second.folder_sync().await;
        assert!(!second.folders.contains_key(&id));
        let (item, _) = self.phone.find(&inbox, "old 4").unwrap();
        let gone = self.phone.move_item(&item, &inbox, &id).await;
        assert_eq!(gone, Err(MoveItemsStatus::InvalidDestination));
    }

    async fn search_for(&self, store: SearchStore) -> String {
        let body = SearchRequest { store, range: FIRST_TEN, picture: false }.encode();
        dump_bytes(&self.phone.ask(Command::Search, body).await, Contents::Shown)
    }

    pub(crate) async fn search_people(&mut self) {
        let found = self.search_for(SearchStore::Gal("bob".into())).await;
        assert!(found.contains("<GAL:EmailAddress>bob@example.com</GAL:EmailAddress>"), "{found}");
    }

    pub(crate) async fn search_mail(&mut self) {
        let query = MailboxQuery {
            free_text: "letter".into(),
            classes: vec!["Email".into()],
            ..MailboxQuery::default()
        };
        let found = self.search_for(SearchStore::Mailbox(query)).await;
        assert!(found.contains("Subject>Letter<"), "{found}");
    }

    pub(crate) async fn find_people(&mut self) {
        let criterion = FindCriterion::Gal("bob".into());
        let find = FindRequest { search_id: "1".into(), criterion, range: FIRST_TEN, picture: false };
        let found = dump_bytes(&self.phone.ask(Command::Find, find.encode()).await, Contents::Shown);
        assert!(found.contains("bob@example.com"), "{found}");
    }

    /// A letter that is begun, gets its words and an attachment later, and leaves from where it lies.
    pub(crate) async fn draft(&mut self) {
        let drafts = self.phone.folder(FolderType::Drafts);
        self.phone.sync(&drafts).await;
        let begun = vec![Element::text(email::TO, "bob@example.com"), Element::text(email::SUBJECT, "Begun")];
        let add = SyncCommand::Add { class: None, client_id: "d1".into(), data: begun };
        let told = self.phone.sync_with(&drafts, vec![add], true).await;
        let [CommandResponse::Add { server_id: Some(id), status: SyncStatus::Success, .. }] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert!(self.phone.find(&drafts, "Begun").is_none(), "what it wrote does not come back");
        let data = self.phone.fetch(&drafts, id).await;
        assert_eq!((text(&data, email2::IS_DRAFT).as_str(), text(&data, email::READ).as_str()), ("1", "1"));
        let words = [Element::text(base::TYPE, "1"), Element::text(base::DATA, "Come at noon.")];
        let file = [
            Element::text(base::CLIENT_ID, "f1"),
            Element::opaque(base::CONTENT, b"%PDF-1.4".as_slice()),
            Element::text(base::DISPLAY_NAME, "map.pdf"),
        ];
        let files = Element::container(base::ATTACHMENTS, [Element::container(base::ADD, file)]);
        let data = vec![Element::container(base::BODY, words), files];
        let change = SyncCommand::Change { server_id: id.clone(), data };
        let told = self.phone.sync_with(&drafts, vec![change], true).await;
        assert!(matches!(&told[..], [CommandResponse::Changed { .. }]), "{told:?}");
        let data = self.phone.fetch(&drafts, id).await;
        assert!(body(&data).contains("Come at noon.") && text(&data, email::SUBJECT) == "Begun", "{data:?}");
        let send = SyncCommand::Change { server_id: id.clone(), data: vec![Element::new(email2::SEND)] };
        let told = self.phone.sync_with(&drafts, vec![send], true).await;
        assert!(told.is_empty(), "{told:?}");
        let item = self.bobs("Begun").await;
        assert!(!item.is_empty());
        let fetch = SyncCommand::Fetch { server_id: id.clone() };
        let told = self.phone.sync_with(&drafts, vec![fetch], true).await;
        assert!(
            matches!(&told[..], [CommandResponse::Fetch { status: SyncStatus::ObjectNotFound, .. }]),
            "{told:?}"
        );
        let sent = self.phone.folder(FolderType::Sent);
        self.phone.sync(&sent).await;
        assert!(self.phone.find(&sent, "Begun").is_some(), "a copy is kept");
    }

    /// The administrator's order ends the Ping that waits; the phone is told to wipe itself, and says that it does.
    pub(crate) async fn wipe(&mut self) {
        let (user, device) = (self.phone.user.clone(), self.phone.device());
        let folders = [self.inbox.clone()];
        let before = self.stage.backend.subscriptions();
        let (backend, ping) = (&self.stage.backend, self.phone.ping(480, &folders));
        let order = async {
            wait_until("the Ping waits", || backend.subscriptions() > before).await;
            let wipe = DeviceOrder::Wipe { user, device, account_only: false };
            backend.order(Order::Device(wipe)).await;
        };
        let (answer, ()) = timeout(PATIENCE, async { tokio::join!(ping, order) }).await.unwrap();
        assert_eq!(answer, PingResponse::FolderSyncRequired);
        let body = FolderSyncRequest { sync_key: self.phone.hierarchy_key() }.encode();
        let refused = self.phone.post(Command::FolderSync, Parameters::default(), body).await;
        if self.phone.version.has_common_statuses() {
            let shown = dump_bytes(&refused.body, Contents::Shown);
            assert_eq!(shown, "<FolderSync><Status>140</Status></FolderSync>");
        } else {
            assert!([403, 449].contains(&refused.status), "{}", refused.status);
        }
        let told = self.phone.provision_with(&self.phone.ask_policy()).await;
        assert_eq!(told.wipe, Some(Wipe::Device));
        let report = ProvisionRequest { remote_wipe: Some((Wipe::Device, 1)), ..self.phone.ask_policy() };
        assert_eq!(self.phone.provision_with(&report).await.wipe, None);
    }
}
