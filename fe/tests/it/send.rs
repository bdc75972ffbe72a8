//! SendMail, SmartReply, SmartForward: each refusal of the back end in the words of each version, once-only across front ends,
//! bounds; MoveItems: each answer.

use directpush_common::dav::hierarchy::Class;
use directpush_common::eas::compose_mail::{ComposeRequest, Source, read_answer};
use directpush_common::eas::move_items::MoveItemsStatus::{
    CannotMove, InvalidDestination, InvalidSource, SameFolder, Success,
};
use directpush_common::eas::move_items::{MOVES_MAX, Move, MoveItemsRequest, MoveItemsResponse};
use directpush_common::eas::{Command, CommonStatus, Version};
use directpush_common::wbxml::Limits;
use reqwest::{Method, Response};

use crate::fake::folder_id;
use crate::world::{PHONE, Phone, World};

const MAIL: &str =
    "From: alice@example.com\r\nTo: bob@example.org\r\nSubject: x\r\nMessage-ID: <1@phone>\r\n\r\nhello\r\n";

fn request(client_id: &str) -> ComposeRequest {
    ComposeRequest {
        client_id: Some(client_id.into()),
        save_in_sent: true,
        mime: MAIL.as_bytes().to_vec(),
        ..ComposeRequest::default()
    }
}

async fn world() -> World {
    let world = World::start().await;
    world.fake.mailbox.lock().folders.push((5, "Sent%20Items", 5, Class::Email));
    world
}

/// HTTP status, Status (0 = none), Retry-After.
async fn told(response: Response) -> (u16, u8, Option<String>) {
    let (http, wait) = (response.status().as_u16(), response.headers().get("retry-after").cloned());
    let body = response.bytes().await.unwrap();
    let status = read_answer(&body, Limits::default()).unwrap();
    (http, status.map_or(0, CommonStatus::code), wait.map(|wait| wait.to_str().unwrap().to_owned()))
}

async fn send(world: &World, command: Command, request: &ComposeRequest) -> (u16, u8) {
    let answer = told(world.post(PHONE, command.name(), request.encode(command)).await).await;
    (answer.0, answer.1)
}

/// As below 14.0: the message is the body.
async fn send_old(world: &World, query: &str, mail: &str) -> (u16, u8, Option<String>) {
    let query = format!("Cmd={query}&User=alice&DeviceId=A&DeviceType=PocketPC");
    let request = world
        .request(Method::POST, &query)
        .header("MS-ASProtocolVersion", "12.1")
        .header("Content-Type", "message/rfc822")
        .body(mail.to_owned());
    told(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_message_leaves_and_its_copy_is_the_same() {
    let world = world().await;
    assert_eq!(send(&world, Command::SendMail, &request("1")).await, (200, 0));
    assert_eq!(
        send_old(&world, "SendMail&SaveInSent=T", "To: bob@example.org\n\nbare").await,
        (200, 0, None)
    );
    assert_eq!(send_old(&world, "SendMail&SaveInSent=F", MAIL).await, (200, 0, None));
    let mailbox = world.fake.mailbox.lock();
    assert_eq!(mailbox.put, [(5, mailbox.submitted[0].clone()), (5, mailbox.submitted[1].clone())]);
    let bare = String::from_utf8(mailbox.submitted[1].to_vec()).unwrap();
    for field in ["From: <alice@example.com>\r\n", "Date: ", "Message-ID: <"] {
        assert!(bare.contains(field), "{bare}");
    }
}

#[tokio::test]
async fn what_the_back_end_refuses_is_told_in_each_versions_words() {
    let world = world().await;
    for (refusal, status, http) in [
        ((403, "sender"), 120, 400),
        ((403, "recipients"), 120, 400),
        ((403, "smart-host"), 120, 400),
        ((413, ""), 122, 400),
        ((422, "message"), 107, 400),
        ((429, "rate"), 115, 503),
        ((508, "loop"), 120, 400),
        ((507, ""), 113, 507),
    ] {
        world.fake.mailbox.lock().manners.submission = Some(refusal);
        assert_eq!(send(&world, Command::SendMail, &request("1")).await, (200, status), "{refusal:?}");
        let (told, _, wait) = send_old(&world, "SendMail", MAIL).await;
        assert_eq!((told, wait.is_some()), (http, http == 503), "{refusal:?}");
    }
    world.fake.mailbox.lock().manners.submission = Some((503, "queue"));
    assert_eq!(send(&world, Command::SendMail, &request("1")).await, (503, 0));
    // None of it was sent, so that the same message may still be.
    world.fake.mailbox.lock().manners.submission = None;
    assert_eq!(send(&world, Command::SendMail, &request("1")).await, (200, 0));
    assert_eq!(send_old(&world, "SendMail", MAIL).await.0, 200);
}

#[tokio::test]
async fn requests_that_cannot_be_sent_have_their_status() {
    let world = world().await;
    let item =
        |item: &str| Source::Item { folder: folder_id(1).to_string(), item: item.into(), instance: None };
    let with_mail = |mail: &str| ComposeRequest { mime: mail.as_bytes().to_vec(), ..request("1") };
    for (command, asked, status) in [
        (Command::SendMail, with_mail("Subject: x\r\n\r\nnobody"), 119),
        (Command::SendMail, with_mail("To: b@@\r\n\r\nx"), 116),
        (Command::SendMail, with_mail("From: a@x\r\nFrom: b@x\r\nTo: b@x\r\n\r\nx"), 0),
        (Command::SendMail, ComposeRequest { mime: Vec::new(), ..request("2") }, 107),
        (Command::SendMail, ComposeRequest { client_id: None, ..request("3") }, 103),
        (Command::SendMail, ComposeRequest { account_id: Some("other".into()), ..request("4") }, 166),
        (Command::SmartReply, request("5"), 103),
        (Command::SmartReply, ComposeRequest { source: Some(item("1:999")), ..request("6") }, 150),
        (Command::SmartReply, ComposeRequest { source: Some(item("3:1")), ..request("7") }, 117),
        (
            Command::SmartForward,
            ComposeRequest { source: Some(Source::Long("9:9".into())), ..request("8") },
            150,
        ),
    ] {
        assert_eq!(send(&world, command, &asked).await, (200, status), "{asked:?}");
    }
    let original = format!("CollectionId={}&ItemId=1:999", folder_id(1));
    for (query, mail, http) in [
        ("SendMail".to_owned(), "Subject: x\r\n\r\nnobody", 400),
        ("SendMail".to_owned(), "", 400),
        ("SmartReply&ItemId=1:9".to_owned(), MAIL, 400),
        (format!("SmartForward&{original}"), MAIL, 500),
    ] {
        assert_eq!(send_old(&world, &query, mail).await.0, http, "{query}");
    }
}

/// The device's answer got lost, and the balancer sends it to another front end.
#[tokio::test]
async fn a_message_goes_out_once_whichever_front_end_is_asked() {
    let first = world().await;
    let second = World::before(std::sync::Arc::clone(&first.fake), |_| {}).await;
    assert_eq!(send(&first, Command::SendMail, &request("1")).await, (200, 0));
    assert_eq!(send(&second, Command::SendMail, &request("1")).await, (200, 118));
    assert_eq!(send(&second, Command::SendMail, &request("2")).await, (200, 0));
    assert_eq!(send_old(&first, "SendMail", MAIL).await.0, 200);
    assert_eq!(send_old(&second, "SendMail", MAIL).await.0, 200);
    assert_eq!(first.fake.mailbox.lock().submitted.len(), 3);
    // Both at once: one sends, and the other is told to come again, or that it was sent.
    let message = request("3");
    let (a, b) =
        tokio::join!(send(&first, Command::SendMail, &message), send(&second, Command::SendMail, &message));
    let said = [a, b];
    assert!(said.contains(&(200, 0)), "{said:?}");
    assert!(said.iter().any(|said| [(503, 0), (200, 118)].contains(said)), "{said:?}");
    assert_eq!(first.fake.mailbox.lock().submitted.len(), 4);
}

#[tokio::test]
async fn a_large_message_passes_and_a_larger_one_does_not() {
    let world = World::with(|config| config.mail_bytes = 4 << 20).await;
    let mail = |bytes: usize| format!("{MAIL}{}", "0123456789abcde\r\n".repeat(bytes / 17));
    let large = ComposeRequest { mime: mail(4_100_000).into_bytes(), ..request("1") };
    assert_eq!(send(&world, Command::SendMail, &large).await, (200, 0));
    assert!(world.fake.mailbox.lock().submitted[0].len() > 4_000_000);
    assert_eq!(send_old(&world, "SendMail", &mail(6 << 20)).await.0, 413);
    // A command is no message.
    let query = "Cmd=Sync&User=alice&DeviceId=A&DeviceType=PocketPC";
    let sync = world.request(Method::POST, query).header("MS-ASProtocolVersion", "14.1").body(mail(2 << 20));
    assert_eq!(sync.send().await.unwrap().status(), 413);
    // What a forward brings along counts, too.
    let item = world.fake.deliver(1, &mail(3 << 20)).await;
    let source = Source::Item { folder: folder_id(1).to_string(), item: format!("1:{item}"), instance: None };
    let attached = format!(
        "To: b@x\r\nContent-Type: application/zip\r\n\r\n{}",
        "0123456789abcde\r\n".repeat((2 << 20) / 17)
    );
    let forward = ComposeRequest { source: Some(source), mime: attached.into_bytes(), ..request("2") };
    assert_eq!(send(&world, Command::SmartForward, &forward).await, (200, 122));
}

#[tokio::test]
async fn an_answer_quotes_and_notes_what_was_done() {
    let world = world().await;
    let original =
        "From: bob@example.org\r\nSubject: first\r\nMessage-ID: <o@example.org>\r\n\r\nthe original\r\n";
    let item = world.fake.deliver(1, original).await;
    let source = Some(Source::Long(format!("1:{item}")));
    world.fake.requests();
    let reply = ComposeRequest { source: source.clone(), ..request("1") };
    assert_eq!(send(&world, Command::SmartReply, &reply).await, (200, 0));
    let whole = ComposeRequest { source, replace_mime: true, ..request("2") };
    assert_eq!(send(&world, Command::SmartReply, &whole).await, (200, 0));
    let asked = world.fake.requests();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("PROPPATCH")).count(), 2, "{asked:?}");
    let mailbox = world.fake.mailbox.lock();
    let text = |at: usize| String::from_utf8(mailbox.submitted[at].to_vec()).unwrap();
    for at in 0..2 {
        assert!(
            text(at).contains("In-Reply-To: <o@example.org>\r\nReferences: <o@example.org>\r\n"),
            "{}",
            text(at)
        );
        assert_eq!(text(at).contains("the original"), at == 0, "{}", text(at));
    }
}

#[tokio::test]
async fn each_move_has_its_answer_in_the_requests_order() {
    let world = world().await;
    let phone = Phone { version: Version::V12_1, ..PHONE };
    let (inbox, trash, calendar) =
        (folder_id(1).to_string(), folder_id(2).to_string(), folder_id(3).to_string());
    let first = format!("1:{}", world.fake.deliver(1, MAIL).await);
    let second = format!("1:{}", world.fake.deliver(1, MAIL).await);
    let one = |item: &str, from: &str, to: &str| Move { item: item.into(), from: from.into(), to: to.into() };
    let moves = vec![
        one("1:999", &inbox, &trash),
        one(&first, &inbox, &trash),
        one(&first, &inbox, "nowhere"),
        one(&second, "nowhere", &trash),
        one("1:4", &inbox, &inbox),
        one("1:5", &inbox, "nowhere"),
        one("1:6", &inbox, &calendar),
        one("2:6", &inbox, &trash),
    ];
    let body = world.body(phone, "MoveItems", MoveItemsRequest { moves: moves.clone() }.encode()).await;
    let MoveItemsResponse::Moved(told) = MoveItemsResponse::decode(&body, Limits::default()).unwrap() else {
        panic!()
    };
    let statuses: Vec<_> = told.iter().map(|told| told.status).collect();
    assert_eq!(
        statuses,
        [
            InvalidSource,
            Success,
            CannotMove,
            InvalidSource,
            SameFolder,
            InvalidDestination,
            CannotMove,
            InvalidSource
        ]
    );
    let named: Vec<_> = told.iter().map(|told| told.item.as_str()).collect();
    assert_eq!(named, moves.iter().map(|wanted| wanted.item.as_str()).collect::<Vec<_>>());
    assert!(told[1].moved_to.as_ref().is_some_and(|id| id.starts_with("2:")), "{told:?}");
    let many = MoveItemsRequest { moves: vec![one("1:1", &inbox, &trash); MOVES_MAX + 1] };
    let body = world.body(phone, "MoveItems", many.encode()).await;
    let failed = MoveItemsResponse::decode(&body, Limits::default()).unwrap();
    assert_eq!(failed, MoveItemsResponse::Failed(CannotMove));
}
