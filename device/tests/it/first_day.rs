//! Issue "It is done when" 1: a phone's first day, in each version, on real servers. What is asked is one table; a row says
//! from which version on, and up to which, it is played.
//!
//! Where a request of a real phone was recorded, it stands here byte for byte.

use std::time::Duration;

use directpush_common::{
    eas::{
        Command, CommonStatus, Version,
        compose_mail::read_answer,
        folder_sync::{FolderSyncResponse, FolderType},
        item_operations::{Fetch, FetchSource, Operation, encode},
        move_items::MoveItemsStatus,
        ping::PingResponse,
        request_line::Parameters,
        resolve_recipients::{ResolveRequest, ResolveResponse, ResolveStatus},
        status::{FolderSyncStatus, SyncStatus},
        sync::{CommandResponse, SyncCommand, SyncResponse},
        validate_cert::{CertStatus, ValidateCertRequest, ValidateCertResponse},
        version::OFFERED_LIST,
    },
    wbxml::{
        Contents, Element, dump_bytes,
        tags::{air_sync_base, email, email2},
    },
};
use directpush_device::lmtp::Lmtp;
use tokio::time::timeout;

use crate::first_day_handset::{Handset, body, hex, limits, text};
use crate::stage::{PASSWORD, PATIENCE, Stage, wait_until};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
/// Messages in the Inbox when the day begins.
const OLD_MAIL: usize = 1_000;
/// The message that is worked with: HTML with an image, and an attachment.
const LETTER: &str = "From: Bob Example <bob@example.com>\r\nTo: alice@example.com\r\nSubject: Letter\r\n\
    Message-ID: <letter@example.com>\r\nDate: Mon, 2 Mar 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=m\r\n\r\n\
    --m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
    --r\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
    <html><body><p>Gr=FC=DFe <img src=3D\"cid:pic@x\"></p></body></html>\r\n\
    --r\r\nContent-Type: image/png\r\nContent-ID: <pic@x>\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--r--\r\n\
    --m\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n--m--\r\n";

/// What happens on the day, in its order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Autodiscover,
    Options,
    Captures,
    AddAccount,
    Settings,
    FirstSync,
    Push,
    Read,
    Flag,
    Reply,
    ReplyOnce,
    Attachment,
    Forward,
    ForwardGone,
    Draft,
    Move,
    Delete,
    EmptyTrash,
    Folders,
    SearchPeople,
    SearchMail,
    FindPeople,
    LookUp,
    Certificates,
    NoCalendar,
    Wipe,
}

/// The table: a step, the first version that has it, and the last.
const DAY: [(Step, Version, Version); 26] = [
    (Step::Autodiscover, Version::V2_5, Version::V16_1),
    (Step::Options, Version::V2_5, Version::V16_1),
    (Step::Captures, Version::V2_5, Version::V16_1),
    (Step::AddAccount, Version::V2_5, Version::V16_1),
    (Step::Settings, Version::V12_0, Version::V16_1),
    (Step::FirstSync, Version::V2_5, Version::V16_1),
    (Step::Push, Version::V2_5, Version::V16_1),
    (Step::Read, Version::V2_5, Version::V16_1),
    (Step::Flag, Version::V12_0, Version::V16_1),
    (Step::Reply, Version::V2_5, Version::V16_1),
    (Step::ReplyOnce, Version::V2_5, Version::V16_1),
    (Step::Attachment, Version::V2_5, Version::V16_1),
    (Step::Forward, Version::V2_5, Version::V16_1),
    (Step::ForwardGone, Version::V2_5, Version::V16_1),
    (Step::Draft, Version::V16_0, Version::V16_1),
    (Step::Move, Version::V2_5, Version::V16_1),
    (Step::Delete, Version::V2_5, Version::V16_1),
    (Step::EmptyTrash, Version::V2_5, Version::V16_1),
    (Step::Folders, Version::V2_5, Version::V16_1),
    (Step::SearchPeople, Version::V2_5, Version::V16_1),
    (Step::SearchMail, Version::V12_0, Version::V16_1),
    (Step::FindPeople, Version::V16_1, Version::V16_1),
    (Step::LookUp, Version::V2_5, Version::V16_1),
    (Step::Certificates, Version::V2_5, Version::V16_1),
    (Step::NoCalendar, Version::V2_5, Version::V16_1),
    (Step::Wipe, Version::V2_5, Version::V16_1),
];

async fn first_day(version: Version) {
    let stage = Stage::new().await;
    if !version.is_offered() {
        let phone = Handset::new(stage.server(), ALICE, version);
        let refused = phone.post(Command::FolderSync, Parameters::default(), Vec::new()).await;
        let said = dump_bytes(&refused.body, Contents::Shown);
        assert_eq!(said, "<FolderSync><Status>138</Status></FolderSync>", "{version} is not offered");
        return stage.strike().await;
    }
    let mut day = Day::new(stage, version).await;
    for (step, from, to) in DAY {
        if (from..=to).contains(&version) {
            // Where the day stopped, should it.
            println!("{version}: {step:?}");
            day.play(step).await;
        }
    }
    day.stage.strike().await;
}

pub(crate) struct Day {
    pub(crate) stage: Stage,
    pub(crate) phone: Handset,
    /// Bob's phone, of the same make.
    other: Handset,
    pub(crate) inbox: String,
}

impl Day {
    async fn new(stage: Stage, version: Version) -> Self {
        stage.backend.add_user(BOB, PASSWORD).await.unwrap();
        let mut lmtp = Lmtp::connect(&stage.backend.lmtp().unwrap()).await.unwrap();
        for n in 0..OLD_MAIL {
            let mail =
                format!("From: bob@example.com\r\nTo: {ALICE}\r\nSubject: old {n}\r\n\r\nText {n}.\r\n");
            let mail = if n + 1 == OLD_MAIL { LETTER.to_owned() } else { mail };
            let answers = lmtp.deliver("bob@example.com", &[ALICE], mail.as_bytes()).await.unwrap();
            assert!(answers[0].is_ok(), "{}", answers[0].reply);
        }
        let phone = Handset::new(stage.server(), ALICE, version);
        let mut other = Handset::new(stage.server(), BOB, version);
        other.provision().await;
        other.folder_sync().await;
        Self { stage, phone, other, inbox: String::new() }
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::Autodiscover => self.autodiscover().await,
            Step::Settings => self.settings().await,
            Step::Folders => self.folders().await,
            Step::SearchPeople => self.search_people().await,
            Step::SearchMail => self.search_mail().await,
            Step::FindPeople => self.find_people().await,
            Step::Options => self.options().await,
            Step::Captures => self.captures().await,
            Step::AddAccount => self.add_account().await,
            Step::FirstSync => self.first_sync().await,
            Step::Push => self.push().await,
            Step::Read => self.read().await,
            Step::Flag => self.flag().await,
            Step::Reply => self.reply().await,
            Step::ReplyOnce => self.reply_once().await,
            Step::Attachment => self.attachment().await,
            Step::Forward => self.forward().await,
            Step::ForwardGone => self.forward_gone().await,
            Step::Draft => self.draft().await,
            Step::Move => self.move_about().await,
            Step::Delete => self.delete().await,
            Step::EmptyTrash => self.empty_trash().await,
            Step::LookUp => self.look_up().await,
            Step::Certificates => self.certificates().await,
            Step::NoCalendar => self.no_calendar().await,
            Step::Wipe => self.wipe().await,
        }
    }

    async fn options(&mut self) {
        let path = "/Microsoft-Server-ActiveSync";
        let phone = &self.phone;
        let wrong = directpush_device::drive::basic(ALICE, "wrong");
        assert_eq!(phone.http("OPTIONS", path.into(), &wrong, Vec::new(), Vec::new()).await.status, 401);
        let answer = phone.http("OPTIONS", path.into(), &phone.authorization(), Vec::new(), Vec::new()).await;
        let header =
            |name: &str| answer.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!((answer.status, header("ms-asprotocolversions")), (200, Some(OFFERED_LIST)));
        let commands = header("ms-asprotocolcommands").unwrap();
        for command in ["Sync", "SendMail", "SmartReply", "SmartForward", "MoveItems", "Ping"] {
            assert!(commands.split(',').any(|listed| listed == command), "{command}: {commands}");
        }
    }

    /// Requests of real phones.
    async fn captures(&mut self) {
        // The specification's example, a base64 query; and one of Windows Mail, with a binary device id. Neither has a body, so
        // that each asks for a Sync as the last one, of which there was none.
        for query in
            ["jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l", "jQAHBBC5KA1Wkp/fDGN0EqhqG2XOBAAAAAALV2luZG93c01haWw="]
        {
            let target = format!("/Microsoft-Server-ActiveSync?{query}");
            let authorization = self.phone.authorization();
            let answer = self.phone.http("POST", target, &authorization, Vec::new(), Vec::new()).await;
            assert_eq!(answer.status, 200, "{query}");
            let response = SyncResponse::decode(&answer.body, limits()).unwrap();
            let incomplete = SyncResponse::Failed { status: SyncStatus::IncompleteRequest, limit: None };
            assert_eq!(response, incomplete, "{query}");
        }
        // A Ping for folder 5 before any FolderSync.
        let ping = hex(
            "03 01 6a 00 00 0d 45 48 03 34 38 30 00 01 49 4a 4b 03 35 00 01 4c 03 45 6d 61 69 6c 00 01 01 01 01",
        );
        let answer = self.phone.ask(Command::Ping, ping).await;
        assert_eq!(PingResponse::decode(&answer, limits()).unwrap(), PingResponse::FolderSyncRequired);
    }

    async fn add_account(&mut self) {
        self.phone.provision().await;
        let capture = hex("03 01 6a 00 00 07 56 52 03 30 00 01 01");
        let FolderSyncResponse::Changes(all) = self.phone.folder_sync_with(capture).await else { panic!() };
        assert!(all.added.iter().any(|folder| folder.kind == FolderType::Inbox));
        self.phone.folder_sync().await;
        let key = self.phone.hierarchy_key();
        self.phone.set_hierarchy_key("77");
        let body = directpush_common::eas::folder_sync::FolderSyncRequest { sync_key: "77".into() }.encode();
        let response = self.phone.folder_sync_with(body).await;
        assert_eq!(response, FolderSyncResponse::Failed(FolderSyncStatus::InvalidSyncKey));
        self.phone.set_hierarchy_key(&key);
        self.inbox = self.phone.folder(FolderType::Inbox);
    }

    async fn first_sync(&mut self) {
        self.phone.sync(&self.inbox).await;
        let items = &self.phone.collections[&self.inbox].items;
        assert_eq!(items.len(), OLD_MAIL);
        let (_, data) = self.phone.find(&self.inbox, "old 7").unwrap();
        assert_eq!((body(&data).trim(), text(&data, email::READ).as_str()), ("Text 7.", "0"));
        let (_, letter) = self.phone.find(&self.inbox, "Letter").unwrap();
        assert!(body(&letter).contains("Gr\u{fc}\u{df}e"), "{}", body(&letter));
    }

    async fn push(&mut self) {
        let before = self.stage.backend.subscriptions();
        let folders = [self.inbox.clone()];
        let (backend, ping) = (&self.stage.backend, self.phone.ping(480, &folders));
        let deliver = async {
            wait_until("the Ping waits", || backend.subscriptions() > before).await;
            crate::stage::deliver(&backend.lmtp().unwrap(), ALICE, "news").await;
        };
        let (answer, ()) = timeout(PATIENCE, async { tokio::join!(ping, deliver) }).await.unwrap();
        assert_eq!(answer, PingResponse::Changed(folders.to_vec()));
        self.phone.sync(&self.inbox).await;
        assert!(self.phone.find(&self.inbox, "news").is_some());
    }

    async fn read(&mut self) {
        let (id, _) = self.phone.find(&self.inbox, "news").unwrap();
        let data = vec![Element::text(email::READ, "1")];
        let change = SyncCommand::Change { server_id: id.clone(), data };
        let failed = self.phone.sync_with(&self.inbox, vec![change], true).await;
        assert!(failed.is_empty() || succeeded(&failed), "{failed:?}");
        let inbox = self.inbox.clone();
        assert_eq!(text(&self.phone.fetch(&inbox, &id).await, email::READ), "1");
    }

    async fn flag(&mut self) {
        let (id, _) = self.phone.find(&self.inbox, "news").unwrap();
        let inside =
            [Element::text(email::STATUS, "2"), Element::text(email::FLAG_TYPE, "Flag for follow up")];
        let data = vec![Element::container(email::FLAG, inside)];
        let change = SyncCommand::Change { server_id: id.clone(), data };
        let inbox = self.inbox.clone();
        let failed = self.phone.sync_with(&inbox, vec![change], true).await;
        assert!(failed.is_empty() || succeeded(&failed), "{failed:?}");
        let data = self.phone.fetch(&inbox, &id).await;
        let flag = data.iter().find(|element| element.tag == email::FLAG).unwrap();
        assert_eq!(
            flag.child(email::STATUS).map(|status| status.own_text().into_owned()).as_deref(),
            Some("2")
        );
        assert_eq!(text(&data, email::READ), "1", "and it is still read");
    }

    fn mail(to: &str, subject: &str, words: &str) -> String {
        format!(
            "From: Alice <{ALICE}>\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{}@phone.example>\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n\r\n{words}\r\n",
            subject.replace([' ', ':'], "-")
        )
    }

    /// Bob's item with this subject, once it is there.
    pub(crate) async fn bobs(&mut self, subject: &str) -> String {
        let inbox = self.other.folder(FolderType::Inbox);
        let look = async {
            loop {
                self.other.sync(&inbox).await;
                if let Some((_, data)) = self.other.find(&inbox, subject) {
                    return body(&data);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{subject} does not come"))
    }

    async fn sent(&mut self, subject: &str) -> usize {
        let folder = self.phone.folder(FolderType::Sent);
        self.phone.sync(&folder).await;
        let items = self.phone.collections[&folder].items.values();
        items.filter(|data| text(data, email::SUBJECT) == subject && text(data, email::READ) == "1").count()
    }

    async fn reply(&mut self) {
        self.phone.send_well(Command::SendMail, None, &Self::mail(BOB, "Hello Bob", "Hello.")).await;
        assert_eq!(self.bobs("Hello Bob").await.trim(), "Hello.");
        assert_eq!(self.sent("Hello Bob").await, 1, "one copy in Sent Items, and it is read");

        let (id, _) = self.phone.find(&self.inbox, "Letter").unwrap();
        let inbox = self.inbox.clone();
        let mail = Self::mail(BOB, "Re: Letter", "Thanks, t\u{fc}r.");
        self.phone.send_well(Command::SmartReply, Some((&inbox, &id)), &mail).await;
        let body = self.bobs("Re: Letter").await;
        let order = ["Thanks, t\u{fc}r.", "Bob Example", "Gr\u{fc}\u{df}e"].map(|words| body.find(words));
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{body}");
        assert_eq!(self.sent("Re: Letter").await, 1);
        if self.phone.version.has_common_statuses() {
            let letter = self.phone.fetch(&inbox, &id).await;
            let verb = text(&letter, email2::LAST_VERB_EXECUTED);
            assert_eq!(verb, "1", "replied to the sender");
        }
    }

    /// The answer was lost, and the phone sends again.
    async fn reply_once(&mut self) {
        let mail = Self::mail(BOB, "Once", "Only once.");
        self.phone.send_well(Command::SendMail, None, &mail).await;
        if self.phone.version.has_common_statuses() {
            self.phone.write_again();
            let answer = self.phone.send(Command::SendMail, None, &mail).await;
            let status = read_answer(&answer.body, limits()).unwrap();
            assert_eq!(status, Some(CommonStatus::MessagePreviouslySent));
        } else {
            self.phone.send_well(Command::SendMail, None, &mail).await;
        }
        self.bobs("Once").await;
        assert_eq!(self.sent("Once").await, 1);
        // Who it is from, and to whom, is looked at before it leaves.
        for (mail, status, http) in [
            (Self::mail(BOB, "Forged", "x").replace(ALICE, BOB), CommonStatus::MailSubmissionFailed, 400),
            (Self::mail("", "Nobody", "x"), CommonStatus::MessageHasNoRecipient, 400),
            (Self::mail("bob@@", "Nonsense", "x"), CommonStatus::MessageRecipientUnresolved, 400),
        ] {
            self.refused(Command::SendMail, None, &mail, status, http).await;
        }
    }

    async fn refused(
        &mut self,
        command: Command,
        original: Option<(&str, &str)>,
        mail: &str,
        status: CommonStatus,
        http: u16,
    ) {
        let answer = self.phone.send(command, original, mail).await;
        if self.phone.version.has_common_statuses() {
            assert_eq!(read_answer(&answer.body, limits()).unwrap(), Some(status));
        } else {
            assert_eq!((answer.status, answer.body.len()), (http, 0), "{status:?}");
        }
    }

    async fn attachment(&mut self) {
        let (_, letter) = self.phone.find(&self.inbox, "Letter").unwrap();
        let (list, name, reference) = if self.phone.version.has_air_sync_base() {
            (air_sync_base::ATTACHMENTS, air_sync_base::DISPLAY_NAME, air_sync_base::FILE_REFERENCE)
        } else {
            (email::ATTACHMENTS, email::DISPLAY_NAME, email::ATT_NAME)
        };
        let list = letter.iter().find(|element| element.tag == list).unwrap();
        let text = |one: &Element, tag| one.child(tag).map(|text| text.own_text().into_owned());
        let pdf = list.children().find(|one| text(one, name).as_deref() == Some("a.pdf")).unwrap();
        let reference = text(pdf, reference).unwrap();
        if self.phone.version.has_common_statuses() {
            let fetch = Fetch {
                store: "Mailbox".into(),
                source: FetchSource::FileReference(reference.clone()),
                ..Fetch::default()
            };
            let answer = self.phone.ask(Command::ItemOperations, encode(&[Operation::Fetch(fetch)])).await;
            let shown = dump_bytes(&answer, Contents::Shown);
            assert!(shown.contains("JVBERi0xLjQK"), "{shown}");
        } else {
            let parameters = Parameters { attachment_name: Some(reference), ..Parameters::default() };
            let answer = self.phone.post(Command::GetAttachment, parameters, Vec::new()).await;
            assert_eq!((answer.status, answer.body.as_slice()), (200, b"%PDF-1.4\n".as_slice()));
        }
    }

    async fn forward(&mut self) {
        let (id, _) = self.phone.find(&self.inbox, "Letter").unwrap();
        let inbox = self.inbox.clone();
        let mail = Self::mail(BOB, "Fwd: Letter", "See below.");
        self.phone.send_well(Command::SmartForward, Some((&inbox, &id)), &mail).await;
        let text = self.bobs("Fwd: Letter").await;
        assert!(text.contains("See below.") && text.contains("Gr\u{fc}\u{df}e"), "{text}");
        let folder = self.other.folder(FolderType::Inbox);
        let (_, data) = self.other.find(&folder, "Fwd: Letter").unwrap();
        let shown = dump_bytes(
            &Element::container(directpush_common::wbxml::tags::air_sync::APPLICATION_DATA, data)
                .to_document(),
            Contents::Shown,
        );
        assert!(shown.contains("a.pdf"), "{shown}");
    }

    async fn forward_gone(&mut self) {
        let inbox = self.inbox.clone();
        let counter = inbox.rsplit('-').next().unwrap().to_owned();
        let gone = format!("{counter}:999999");
        let mail = Self::mail(BOB, "Fwd: gone", "x");
        let original = Some((inbox.as_str(), gone.as_str()));
        self.refused(Command::SmartForward, original, &mail, CommonStatus::ItemNotFound, 500).await;
    }

    async fn move_about(&mut self) {
        let (inbox, trash) = (self.inbox.clone(), self.phone.folder(FolderType::Deleted));
        let (id, _) = self.phone.find(&inbox, "old 1").unwrap();
        let moved = self.phone.move_item(&id, &inbox, &trash).await.unwrap();
        assert_ne!(moved, id);
        assert_eq!(self.phone.move_item(&id, &inbox, &trash).await, Err(MoveItemsStatus::InvalidSource));
        assert_eq!(self.phone.move_item(&moved, &trash, &trash).await, Err(MoveItemsStatus::SameFolder));
        assert_eq!(
            self.phone.move_item(&moved, &trash, "nowhere").await,
            Err(MoveItemsStatus::InvalidDestination)
        );
        let calendar = self.phone.folder(FolderType::Calendar);
        assert_eq!(self.phone.move_item(&moved, &trash, &calendar).await, Err(MoveItemsStatus::CannotMove));
        self.phone.sync(&trash).await;
        self.phone.sync(&inbox).await;
        assert_eq!(self.phone.find(&trash, "old 1").map(|(id, _)| id), Some(moved));
        assert!(self.phone.find(&inbox, "old 1").is_none());
    }

    async fn delete(&mut self) {
        let (inbox, trash) = (self.inbox.clone(), self.phone.folder(FolderType::Deleted));
        let (id, _) = self.phone.find(&inbox, "old 2").unwrap();
        let delete = SyncCommand::Delete { server_id: id };
        let failed = self.phone.sync_with(&inbox, vec![delete], true).await;
        assert!(failed.is_empty() || succeeded(&failed), "{failed:?}");
        self.phone.sync(&trash).await;
        assert!(self.phone.find(&trash, "old 2").is_some());
    }

    async fn empty_trash(&mut self) {
        let trash = self.phone.folder(FolderType::Deleted);
        let items = self.phone.collections[&trash].items.keys();
        let deletes: Vec<_> = items.map(|id| SyncCommand::Delete { server_id: id.clone() }).collect();
        assert_eq!(deletes.len(), 2);
        if self.phone.version.has_air_sync_base() {
            let empty =
                Operation::EmptyFolderContents { collection_id: trash.clone(), delete_sub_folders: false };
            let answer = self.phone.ask(Command::ItemOperations, encode(&[empty])).await;
            let shown = dump_bytes(&answer, Contents::Shown);
            assert_eq!(shown.matches("<Status>1</Status>").count(), 2, "{shown}");
            self.phone.sync(&trash).await;
        } else {
            self.phone.sync_with(&trash, deletes, false).await;
        }
        let mut second = self.phone.another();
        second.provision().await;
        second.folder_sync().await;
        second.sync(&trash).await;
        assert!(second.collections[&trash].items.is_empty());
    }

    async fn look_up(&mut self) {
        let asked = ResolveRequest {
            to: vec!["bob".into(), "nobody@example.org".into(), BOB.into()],
            certificates: true,
            ..ResolveRequest::default()
        };
        let answer = self.phone.ask(Command::ResolveRecipients, asked.encode()).await;
        let response = ResolveResponse::decode(&answer, limits()).unwrap();
        let ResolveResponse::Resolved(all) = response else { panic!("{response:?}") };
        let told: Vec<_> = all.iter().map(|one| (one.status, one.count)).collect();
        let (one, none) = ((ResolveStatus::Success, 1), (ResolveStatus::Unresolved, 0));
        assert_eq!(told, [one, none, one]);
        assert_eq!(all[0].people[0].address, BOB);
        assert!(all[0].people[0].certificates, "asked for, and told that there are none");
    }

    async fn certificates(&mut self) {
        let none =
            ValidateCertRequest { certificates: vec![b"none".to_vec()], ..ValidateCertRequest::default() };
        let answer = self.phone.ask(Command::ValidateCert, none.encode()).await;
        let response = ValidateCertResponse::decode(&answer, limits()).unwrap();
        assert_eq!(response, ValidateCertResponse::Judged(vec![CertStatus::BadSignature]));
    }

    /// What belongs to the calendar is not there, and the device is told so in the protocol's words.
    async fn no_calendar(&mut self) {
        let answer = self.phone.post(Command::MeetingResponse, Parameters::default(), Vec::new()).await;
        assert_eq!(answer.status, 501);
    }
}

fn succeeded(responses: &[CommandResponse]) -> bool {
    responses.iter().all(|response| {
        matches!(
            response,
            CommandResponse::Change { status: SyncStatus::Success, .. }
                | CommandResponse::Delete { status: SyncStatus::Success, .. }
        )
    })
}

macro_rules! days {
    ($($name:ident: $version:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                first_day(Version::$version).await;
            }
        )*
    };
}

days! {
    first_day_2_5: V2_5,
    first_day_12_0: V12_0,
    first_day_12_1: V12_1,
    first_day_14_0: V14_0,
    first_day_14_1: V14_1,
    first_day_16_0: V16_0,
    first_day_16_1: V16_1,
}
