//! Drafts of 16.0 and later: written, changed, deleted and sent by Sync; answers that get lost.

use directpush_common::dav::hierarchy::Class;
use directpush_common::eas::Version;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{
    ApplicationData, CollectionResponse, CommandResponse, ServerCommand, SyncCommand, SyncResponse,
};
use directpush_common::wbxml::tags::{air_sync_base as base, email, email2};
use directpush_common::wbxml::{Element, Tag};

use crate::fake::USER;
use crate::world::{PHONE, Phone, World, collection};

const NEW: Phone = Phone { version: Version::V16_1, ..PHONE };
const DRAFTS: u64 = 4;

async fn world() -> (World, String) {
    let world = World::start().await;
    {
        let mut mailbox = world.fake.mailbox.lock();
        mailbox.folders.push((DRAFTS, "Drafts", 3, Class::Email));
        mailbox.folders.push((5, "Sent%20Items", 5, Class::Email));
        mailbox.hierarchy = 5;
    }
    let key = world.prepare(NEW, DRAFTS).await;
    (world, key)
}

async fn upload(world: &World, folder: u64, key: &str, command: SyncCommand) -> CollectionResponse {
    let mut asked = collection(NEW, folder, key);
    asked.commands = vec![command];
    match world.sync(NEW, asked).await {
        SyncResponse::Collections(mut all) if all.len() == 1 => all.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn download(world: &World, phone: Phone, key: &str) -> CollectionResponse {
    match world.sync(phone, collection(phone, DRAFTS, key)).await {
        SyncResponse::Collections(mut all) if all.len() == 1 => all.remove(0),
        other => panic!("{other:?}"),
    }
}

fn text(tag: Tag, text: &str) -> Element {
    Element::text(tag, text)
}

fn body(words: &str) -> Element {
    Element::container(base::BODY, [text(base::TYPE, "1"), text(base::DATA, words)])
}

fn file(id: &str, bytes: &[u8]) -> Element {
    let content = Element::opaque(base::CONTENT, bytes);
    let name = text(base::DISPLAY_NAME, "a.bin");
    Element::container(base::ADD, [text(base::CLIENT_ID, id), content, name, text(base::METHOD, "1")])
}

fn letter() -> ApplicationData {
    vec![
        text(email::TO, "bob@example.com"),
        text(email::SUBJECT, "Plans"),
        body("Shall we?"),
        Element::container(base::ATTACHMENTS, [file("f1", b"first")]),
    ]
}

fn add(data: ApplicationData) -> SyncCommand {
    SyncCommand::Add { class: None, client_id: "c1".into(), data }
}

fn change(server_id: &str, data: ApplicationData) -> SyncCommand {
    SyncCommand::Change { server_id: server_id.into(), data }
}

/// The id of the one that was added, and the FileReference of its attachment.
fn added(response: &CollectionResponse) -> (String, String) {
    let [CommandResponse::Add { server_id: Some(id), status: SyncStatus::Success, data: Some(data), .. }] =
        &response.responses[..]
    else {
        panic!("{response:?}")
    };
    assert!(data.iter().any(|it| it.tag == email2::CONVERSATION_ID), "{data:?}");
    let list = data.iter().find(|it| it.tag == base::ATTACHMENTS).unwrap();
    let [file] = &list.children().collect::<Vec<_>>()[..] else { panic!("{list:?}") };
    assert_eq!(file.child(base::CLIENT_ID).unwrap().own_text(), "f1");
    (id.clone(), file.child(base::FILE_REFERENCE).unwrap().own_text().into_owned())
}

fn bytes_of(world: &World, server_id: &str) -> String {
    let item = server_id.split_once(':').unwrap().1.parse().unwrap();
    String::from_utf8(world.fake.mailbox.lock().bodies[&(DRAFTS, item)].to_vec()).unwrap()
}

fn count(world: &World) -> usize {
    world.fake.mailbox.lock().log.get(&DRAFTS).map_or(0, Vec::len)
}

#[tokio::test]
async fn a_draft_is_written_changed_and_deleted() {
    let (world, key) = world().await;
    let done = upload(&world, DRAFTS, &key, add(letter())).await;
    assert!(done.commands.is_empty(), "what the device wrote does not come back: {done:?}");
    let (id, reference) = added(&done);
    let mime = bytes_of(&world, &id);
    for piece in
        ["To: <bob@example.com>", "Subject: Plans", "Shall we?", &format!("From: <{USER}>"), "Message-ID:"]
    {
        assert!(mime.contains(piece), "{piece}: {mime}");
    }
    // Another device sees a draft, an older one a message.
    let other = Phone { id: "other", ..NEW };
    let others = world.prepare(other, 1).await;
    assert!(!others.is_empty());
    let begun = download(&world, other, "0").await;
    let seen = download(&world, other, &begun.sync_key).await;
    let [ServerCommand::Add { data, .. }] = &seen.commands[..] else { panic!("{seen:?}") };
    assert!(
        data.contains(&text(email2::IS_DRAFT, "1")) && data.contains(&text(email::READ, "1")),
        "{data:?}"
    );
    // Only what is named changes.
    let deletion = Element::container(base::DELETE, [text(base::FILE_REFERENCE, &reference)]);
    let files = Element::container(base::ATTACHMENTS, [deletion, file("f2", b"second")]);
    let data = vec![text(email::SUBJECT, "Better plans"), files];
    let done = upload(&world, DRAFTS, &done.sync_key, change(&id, data)).await;
    let [CommandResponse::Changed { server_id, data }] = &done.responses[..] else { panic!("{done:?}") };
    assert_eq!(server_id, &id);
    let list = data.iter().find(|it| it.tag == base::ATTACHMENTS).unwrap();
    assert_eq!(list.children().next().unwrap().child(base::CLIENT_ID).unwrap().own_text(), "f2");
    assert!(done.commands.is_empty(), "{done:?}");
    let mime = bytes_of(&world, &id);
    assert!(mime.contains("To: <bob@example.com>") && mime.contains("Subject: Better plans"), "{mime}");
    assert!(mime.contains("Shall we?") && mime.contains("c2Vjb25k") && !mime.contains("Zmlyc3Q="), "{mime}");
    let told = download(&world, other, &seen.sync_key).await;
    let [ServerCommand::Change { data, .. }] = &told.commands[..] else { panic!("{told:?}") };
    assert!(data.contains(&text(email::SUBJECT, "Better plans")), "the whole of it: {data:?}");
    let deleted = upload(&world, DRAFTS, &done.sync_key, SyncCommand::Delete { server_id: id.clone() }).await;
    assert!(deleted.responses.is_empty(), "{deleted:?}");
    let gone = upload(&world, DRAFTS, &deleted.sync_key, change(&id, vec![text(email::SUBJECT, "x")])).await;
    let status = SyncStatus::ObjectNotFound;
    assert_eq!(gone.responses, [CommandResponse::Change { server_id: id, status }]);
}

#[tokio::test]
async fn what_a_lost_answer_had_written_is_not_written_twice() {
    let (world, key) = world().await;
    let lost = upload(&world, DRAFTS, &key, add(letter())).await;
    let again = upload(&world, DRAFTS, &key, add(letter())).await;
    assert_eq!((again.responses.clone(), count(&world)), (lost.responses, 1));
    let (id, _) = added(&again);
    let files = vec![Element::container(base::ATTACHMENTS, [file("f2", b"second")])];
    let lost = upload(&world, DRAFTS, &again.sync_key, change(&id, files.clone())).await;
    let again = upload(&world, DRAFTS, &again.sync_key, change(&id, files)).await;
    assert_eq!(again.responses, lost.responses);
    assert_eq!(bytes_of(&world, &id).matches("c2Vjb25k").count(), 1);
    // The front end wrote the draft, and not what it did: the next one finds it by its name.
    world.fake.mailbox.lock().manners.contended = true;
    let refused = upload(&world, DRAFTS, &again.sync_key, add(letter())).await;
    assert_ne!(refused.status, SyncStatus::Success);
    world.fake.mailbox.lock().manners.contended = false;
    let done = upload(&world, DRAFTS, &again.sync_key, add(letter())).await;
    assert_ne!(added(&done).0, id, "another key, another draft");
    assert_eq!(count(&world), 2);
}

#[tokio::test]
async fn a_draft_is_sent_once_and_leaves_the_folder() {
    let (world, key) = world().await;
    let done = upload(&world, DRAFTS, &key, add(letter())).await;
    let (id, _) = added(&done);
    let data = vec![text(email2::BCC, "carol@example.com"), Element::new(email2::SEND)];
    let sent = upload(&world, DRAFTS, &done.sync_key, change(&id, data.clone())).await;
    assert!(sent.responses.is_empty(), "{sent:?}");
    assert!(
        matches!(&sent.commands[..], [ServerCommand::Delete { server_id }] if *server_id == id),
        "{sent:?}"
    );
    let again = upload(&world, DRAFTS, &done.sync_key, change(&id, data)).await;
    assert!(again.responses.is_empty(), "{again:?}");
    {
        let mailbox = world.fake.mailbox.lock();
        let [message] = &mailbox.submitted[..] else { panic!("{} times", mailbox.submitted.len()) };
        let message = String::from_utf8(message.to_vec()).unwrap();
        assert!(message.contains("Bcc: <carol@example.com>") && message.contains("Shall we?"), "{message}");
        assert!(matches!(&mailbox.put[..], [(5, _)]), "one copy in Sent Items");
    }
    // One that is sent without having been kept.
    let mut data = letter();
    data.push(Element::new(email2::SEND));
    let ok = CommandResponse::Add {
        client_id: "c1".into(),
        server_id: None,
        status: SyncStatus::Success,
        data: None,
    };
    let lost = upload(&world, DRAFTS, &again.sync_key, add(data.clone())).await;
    assert_eq!(lost.responses, std::slice::from_ref(&ok));
    let again = upload(&world, DRAFTS, &again.sync_key, add(data)).await;
    assert_eq!(again.responses, [ok]);
    assert_eq!(world.fake.mailbox.lock().submitted.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_written_or_sent_has_its_status() {
    let (world, key) = world().await;
    let status = |response: &CollectionResponse| match &response.responses[..] {
        [CommandResponse::Add { status, server_id: None, .. } | CommandResponse::Change { status, .. }] => {
            *status
        }
        other => panic!("{other:?}"),
    };
    let lone = vec![text(email::SUBJECT, "to nobody"), Element::new(email2::SEND)];
    let refused = upload(&world, DRAFTS, &key, add(lone)).await;
    assert_eq!(status(&refused), SyncStatus::ConversionError);
    let rtf = Element::container(base::BODY, [text(base::TYPE, "3"), text(base::DATA, "x")]);
    let refused = upload(&world, DRAFTS, &refused.sync_key, add(vec![rtf])).await;
    assert_eq!(status(&refused), SyncStatus::ConversionError);
    world.fake.mailbox.lock().manners.full = true;
    let refused = upload(&world, DRAFTS, &refused.sync_key, add(letter())).await;
    assert_eq!(status(&refused), SyncStatus::CannotComplete);
    world.fake.mailbox.lock().manners.full = false;
    let done = upload(&world, DRAFTS, &refused.sync_key, add(letter())).await;
    let (id, _) = added(&done);
    world.fake.mailbox.lock().manners.submission = Some((429, "rate"));
    let later = upload(&world, DRAFTS, &done.sync_key, change(&id, vec![Element::new(email2::SEND)])).await;
    assert_eq!(status(&later), SyncStatus::ServerError);
    assert!(bytes_of(&world, &id).contains("Shall we?"), "it stays where it is");
    // Nobody writes into other folders.
    let inbox = world.prepare(NEW, 1).await;
    let refused = upload(&world, 1, &inbox, add(letter())).await;
    assert_eq!(status(&refused), SyncStatus::ConversionError);
}

#[tokio::test]
async fn an_attachment_may_be_larger_than_a_command() {
    let (world, key) = world().await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let files = Element::container(base::ATTACHMENTS, [file("f1", &large)]);
    let done = upload(&world, DRAFTS, &key, add(vec![text(email::SUBJECT, "big"), files])).await;
    let (id, _) = added(&done);
    assert!(bytes_of(&world, &id).len() > 4_000_000);
    let old = Phone { version: Version::V14_1, ..PHONE };
    let padding = "x".repeat(2 << 20);
    assert_eq!(world.post(old, "Sync", padding.into_bytes()).await.status(), 413);
}
