//! ItemOperations and GetAttachment: items and attachments by each of their names, in one document or several parts.

use bytes::Bytes;
use directpush_common::eas::Version;
use directpush_common::eas::item_operations::{Fetch, FetchSource, Operation, encode};
use directpush_common::eas::sync::{
    BodyPreference, BodyType, MimeSupport, ServerCommand, SyncCollection, SyncOptions, SyncResponse,
};
use directpush_common::wbxml::tags::{air_sync, air_sync_base as base, email, item_operations as ops};
use directpush_common::wbxml::{Document, Element, Limits};
use reqwest::Method;

use crate::fake::{USER, folder_id};
use crate::world::{MAIL, PHONE, Phone, World, collection};

const ATTACHED: &str = "Subject: Plan\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nHere.\r\n--x\r\n\
    Content-Type: application/pdf; name=plan.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nMDEyMzQ1Njc4OQ==\r\n--x--\r\n";

fn fetch(source: FetchSource) -> Fetch {
    Fetch { store: "Mailbox".into(), source, ..Fetch::default() }
}

fn item(folder: u64, item: u64) -> FetchSource {
    FetchSource::Item {
        collection_id: folder_id(folder).to_string(),
        server_id: format!("{folder:x}:{item}"),
    }
}

fn read(body: &Bytes) -> Element {
    Document::parse(body, Limits::default()).unwrap().root().to_element()
}

/// The outcomes of a request in their order.
async fn outcomes(world: &World, phone: Phone, operations: &[Operation]) -> Vec<Element> {
    let answer = read(&world.body(phone, "ItemOperations", encode(operations)).await);
    assert_eq!(answer.child(ops::STATUS).unwrap().own_text(), "1");
    answer.child(ops::RESPONSE).unwrap().children().cloned().collect()
}

fn status(outcome: &Element) -> String {
    outcome.child(ops::STATUS).unwrap().own_text().into_owned()
}

#[tokio::test]
async fn items_are_fetched_by_server_id_and_long_id_in_the_form_that_is_asked_for() {
    let world = World::start().await;
    let number = world.fake.deliver(1, MAIL).await;
    world.folder_sync(PHONE, "0").await;
    let mime = BodyPreference {
        body_type: BodyType::Mime,
        truncation_size: None,
        all_or_none: false,
        preview: None,
    };
    let options = SyncOptions {
        mime_support: Some(MimeSupport::Always),
        body_preferences: vec![mime],
        ..SyncOptions::default()
    };
    let operations = [
        Operation::Fetch(Fetch { options: options.clone(), ..fetch(item(1, number)) }),
        Operation::Fetch(Fetch {
            schema: vec![email::SUBJECT],
            ..fetch(FetchSource::LongId(format!("1:{number}")))
        }),
        Operation::Fetch(fetch(item(1, 4711))),
        Operation::Fetch(fetch(item(2, number))),
        Operation::Fetch(Fetch { store: "DocumentLibrary".into(), ..fetch(FetchSource::LinkId("x".into())) }),
        Operation::Fetch(fetch(FetchSource::Nothing)),
        Operation::Fetch(fetch(item(3, number))),
    ];
    let found = outcomes(&world, PHONE, &operations).await;
    assert_eq!(found.iter().map(status).collect::<Vec<_>>(), ["1", "1", "6", "6", "9", "2", "14"]);
    let properties = found[0].child(ops::PROPERTIES).unwrap();
    assert_eq!(properties.child(base::BODY).unwrap().child(base::DATA).unwrap().own_text(), MAIL);
    assert_eq!(found[0].child(air_sync::CLASS).unwrap().own_text(), "Email");
    let chosen: Vec<_> = found[1].child(ops::PROPERTIES).unwrap().children().map(|child| child.tag).collect();
    assert_eq!(chosen, [email::SUBJECT]);

    let part = BodyPreference { body_type: BodyType::Plain, ..mime };
    let options = SyncOptions { body_part_preferences: vec![part], ..options };
    let refused =
        outcomes(&world, PHONE, &[Operation::Fetch(Fetch { options, ..fetch(item(1, number)) })]).await;
    assert_eq!(status(&refused[0]), "164");
    // Sync says the same.
    let options = SyncOptions { body_part_preferences: vec![part], ..SyncOptions::default() };
    let asked = SyncCollection { options: vec![options], ..collection(PHONE, 1, "0") };
    let refused = world.sync(PHONE, asked).await;
    assert!(matches!(refused, SyncResponse::Common(status) if status.code() == 164), "{refused:?}");
}

#[tokio::test]
async fn attachments_are_fetched_by_the_reference_that_sync_gave() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    world.fake.deliver(1, ATTACHED).await;
    let SyncResponse::Collections(synced) = world.sync(PHONE, collection(PHONE, 1, &key)).await else {
        panic!()
    };
    let ServerCommand::Add { data, .. } = &synced[0].commands[0] else { panic!() };
    let list = data.iter().find(|element| element.tag == base::ATTACHMENTS).unwrap();
    let entry = list.children().next().unwrap();
    assert_eq!(entry.child(base::DISPLAY_NAME).unwrap().own_text(), "plan.pdf");
    let reference = entry.child(base::FILE_REFERENCE).unwrap().own_text().into_owned();

    let whole = fetch(FetchSource::FileReference(reference.clone()));
    let some = Fetch { range: Some((8, 100)), ..whole.clone() };
    let none = Fetch { range: Some((10, 100)), ..whole.clone() };
    let strange = fetch(FetchSource::FileReference("1:4711:1".into()));
    let operations = [whole.clone(), some, none, strange].map(Operation::Fetch);
    world.fake.requests();
    let found = outcomes(&world, PHONE, &operations).await;
    assert_eq!(found.iter().map(status).collect::<Vec<_>>(), ["1", "1", "8", "15"]);
    // One message, read once.
    let asked = world.fake.requests().into_iter().filter(|it| it.starts_with("GET") && it.contains('-'));
    assert_eq!(asked.count(), 2, "the message and the strange one");
    let of = |at: usize, tag| {
        found[at].child(ops::PROPERTIES).unwrap().child(tag).map(|it| it.own_text().into_owned())
    };
    assert_eq!(of(0, ops::DATA).unwrap(), "MDEyMzQ1Njc4OQ==");
    assert_eq!(of(0, base::CONTENT_TYPE).unwrap(), "application/pdf");
    assert_eq!((of(0, ops::RANGE), of(1, ops::RANGE).unwrap()), (None, "8-9".into()));
    assert_eq!((of(1, ops::TOTAL).unwrap(), of(1, ops::DATA).unwrap()), ("10".into(), "ODk=".into()));

    // The same as bytes beside the document.
    let query = format!("Cmd=ItemOperations&User={USER}&DeviceId={}&DeviceType=PocketPC", PHONE.id);
    let request = world.request(Method::POST, &query).header("MS-ASProtocolVersion", "14.1");
    let request =
        request.header("MS-ASAcceptMultiPart", "T").header("Content-Type", "application/vnd.ms-sync.wbxml");
    let answer = request.body(encode(&[Operation::Fetch(whole)])).send().await.unwrap();
    assert_eq!(answer.headers()["Content-Type"], "application/vnd.ms-sync.multipart");
    let body = answer.bytes().await.unwrap();
    let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((number(0), &body[number(12)..][..number(16)]), (2, &b"0123456789"[..]));
    let document = read(&body.slice(number(4)..number(4) + number(8)));
    let outcome = document.child(ops::RESPONSE).unwrap().children().next().unwrap();
    assert_eq!(outcome.child(ops::PROPERTIES).unwrap().child(ops::PART).unwrap().own_text(), "1");

    // And as the whole answer, for older devices.
    let query = format!(
        "Cmd=GetAttachment&User={USER}&DeviceId={}&DeviceType=PocketPC&AttachmentName={reference}",
        PHONE.id
    );
    let get = |query: &str| world.request(Method::POST, query).header("MS-ASProtocolVersion", "2.5").send();
    let answer = get(&query).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["Content-Type"]),
        (200, &"application/pdf".parse().unwrap())
    );
    assert_eq!(answer.bytes().await.unwrap(), "0123456789");
    assert_eq!(get(&format!("{query}9")).await.unwrap().status(), 404);
    assert_eq!(get(query.split_once("&AttachmentName").unwrap().0).await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_folder_is_emptied_and_its_device_is_told() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    for _ in 0..3 {
        world.fake.deliver(1, MAIL).await;
    }
    let SyncResponse::Collections(synced) = world.sync(PHONE, collection(PHONE, 1, &key)).await else {
        panic!()
    };
    let empty = |folder: &str| Operation::EmptyFolderContents {
        collection_id: folder.to_owned(),
        delete_sub_folders: false,
    };
    let done = outcomes(&world, PHONE, &[empty(&folder_id(1).to_string()), empty("4711")]).await;
    assert_eq!(done.iter().map(status).collect::<Vec<_>>(), ["1", "6"]);
    let SyncResponse::Collections(told) = world.sync(PHONE, collection(PHONE, 1, &synced[0].sync_key)).await
    else {
        panic!()
    };
    let gone =
        told[0].commands.iter().filter(|command| matches!(command, ServerCommand::Delete { .. })).count();
    assert_eq!(gone, 3);
    // Nothing is left to delete.
    world.fake.requests();
    outcomes(&world, PHONE, &[empty(&folder_id(1).to_string())]).await;
    assert!(!world.fake.requests().iter().any(|request| request.starts_with("DELETE")));
}

#[tokio::test]
async fn conversations_stay_where_they_are() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    let operations = [true, false].map(|always| Operation::Move { conversation_id: vec![1; 16], always });
    let done = outcomes(&world, PHONE, &operations).await;
    assert_eq!(done.iter().map(status).collect::<Vec<_>>(), ["156", "155"]);
    let old = Phone { version: Version::V12_1, ..PHONE };
    assert_eq!(status(&outcomes(&world, old, &operations[..1]).await[0]), "2");
    let many = vec![operations[0].clone(); 101];
    let answer = read(&world.body(PHONE, "ItemOperations", encode(&many)).await);
    assert_eq!(answer.child(ops::STATUS).unwrap().own_text(), "2");
}

#[tokio::test]
async fn answers_are_compressed_for_who_asks() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    let long = format!("Subject: long\r\n\r\n{}", "The same words again and again.\r\n".repeat(500));
    let number = world.fake.deliver(1, &long).await;
    let query = format!("Cmd=ItemOperations&User={USER}&DeviceId={}&DeviceType=PocketPC", PHONE.id);
    let body = encode(&[Operation::Fetch(fetch(item(1, number)))]);
    let request = world.request(Method::POST, &query).header("MS-ASProtocolVersion", "14.1");
    let request = request.header("Content-Type", "application/vnd.ms-sync.wbxml");
    let answer = request.header("Accept-Encoding", "gzip").body(body.clone()).send().await.unwrap();
    assert_eq!(answer.headers()["Content-Encoding"], "gzip");
    let small = answer.bytes().await.unwrap();
    assert!(small.len() < long.len() / 5 && small.starts_with(&[0x1f, 0x8b]));
    let plain = world.body(PHONE, "ItemOperations", body).await;
    assert!(plain.len() > long.len());
}

#[tokio::test]
async fn one_message_that_cannot_be_read_holds_up_nothing_else() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let (first, damaged) = (world.fake.deliver(1, MAIL).await, world.fake.deliver(1, ATTACHED).await);
    let last = world.fake.deliver(1, MAIL).await;
    world.fake.mailbox.lock().manners.damaged = Some(damaged);
    let SyncResponse::Collections(synced) = world.sync(PHONE, collection(PHONE, 1, &key)).await else {
        panic!("an answer")
    };
    let subject_of = |number: u64| {
        let found = synced[0].commands.iter().find_map(|command| match command {
            ServerCommand::Add { server_id, data } if *server_id == format!("1:{number}") => Some(data),
            _ => None,
        });
        let subject = found.unwrap().iter().find(|it| it.tag == email::SUBJECT).unwrap();
        subject.own_text().into_owned()
    };
    assert_eq!([first, damaged, last].map(subject_of), ["Lunch", "(unreadable message)", "Lunch"]);
    let attachment = fetch(FetchSource::FileReference(format!("1:{damaged}:2")));
    let operations = [fetch(item(1, first)), fetch(item(1, damaged)), attachment, fetch(item(1, last))];
    let found = outcomes(&world, PHONE, &operations.map(Operation::Fetch)).await;
    assert_eq!(found.iter().map(status).collect::<Vec<_>>(), ["1", "14", "14", "1"]);
    let query = format!(
        "Cmd=GetAttachment&User={USER}&DeviceId={}&DeviceType=PocketPC&AttachmentName=1:{damaged}:2",
        PHONE.id
    );
    let request = world.request(Method::POST, &query).header("MS-ASProtocolVersion", "2.5");
    assert_eq!(request.send().await.unwrap().status(), 404);
}
