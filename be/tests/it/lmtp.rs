//! Mail comes in.

use directpush_be::mailbox::quota::QuotaEdit;

use crate::client::{ALICE, Be, PASSWORD, mail};
use crate::submission::messages;

async fn count(be: &Be) -> usize {
    let listing = be.alice("GET", &format!("/exchange/{ALICE}/Inbox/"), &[], b"").await.expect(200);
    listing.text().lines().filter(|line| line.contains(".eml")).count()
}

#[tokio::test]
async fn each_recipient_has_a_reply_and_the_body_is_kept_once() {
    let be = Be::start().await;
    be.running.as_ref().unwrap().add_user("bob@example.com", "x").await.unwrap();
    let message = format!(
        "LHLO mta\r\nMAIL FROM:<>\r\nRCPT TO:<{ALICE}>\r\nRCPT TO:<nobody@example.com>\r\n\
         RCPT TO:<BOB@example.com>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n"
    );
    let said = be.lmtp(message.as_bytes()).await;
    let codes: Vec<_> = said.lines().filter(|l| l.as_bytes()[3] == b' ').map(|l| &l[..3]).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "550", "250", "354", "250", "250", "221"], "{said}");
    let listing = be.alice("GET", &format!("/exchange/{ALICE}/Inbox/"), &[], b"").await.text();
    let name = listing.lines().find(|line| line.contains(".eml")).unwrap();
    let got = be.alice("GET", &format!("/exchange/{ALICE}/Inbox/{name}"), &[], b"").await.expect(200);
    let got = got.text();
    assert!(got.starts_with("Return-Path: <>\r\nReceived: from mta ([127.0.0.1])\r\n\tby "), "{got}");
    assert!(got.ends_with("\r\nSubject: x\r\n\r\n.dot\r\n"), "{got}");
    assert!(!got.to_lowercase().contains("bob@"), "one recipient is not told of the other: {got}");
    let store = &be.running.as_ref().unwrap().server().boxes.store;
    assert_eq!(store.bodies.list(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_lead_to_their_owners() {
    let be = Be::start_with(|config| {
        config.default_domain = Some("example.com".into());
        config.mail.catch_all = Some("bob@example.com".parse().unwrap());
    })
    .await;
    let running = be.running.as_ref().unwrap();
    running.add_user("bob@example.com", "x").await.unwrap();
    let alias = "sales@y.example".parse().unwrap();
    running.server().boxes.add_alias(&ALICE.parse().unwrap(), &alias).await.unwrap();
    for to in ["Alice+lists@example.com", "sales@Y.example", "sales+2@y.example", "nobody@z.example"] {
        let said = be.lmtp(&mail(to, "x")).await;
        assert!(said.contains(&format!("250 2.1.5 <{to}> OK")), "{said}");
    }
    assert_eq!(messages(&be, ALICE, PASSWORD, "Inbox").await.len(), 3);
    assert_eq!(messages(&be, "bob@example.com", "x", "Inbox").await.len(), 1);
}

fn with_fields(fields: &str) -> Vec<u8> {
    String::from_utf8(mail(ALICE, "x")).unwrap().replace("Subject: x", &format!("{fields}Subject: x")).into()
}

#[tokio::test]
async fn spam_goes_to_junk_and_what_comes_twice_is_kept_once() {
    let be = Be::start().await;
    for _ in 0..2 {
        let said = be.lmtp(&with_fields("Message-ID: <1@x>\r\n")).await;
        assert!(said.contains("250 2.1.5"), "{said}");
    }
    be.lmtp(&with_fields("Message-ID: <2@x>\r\n")).await;
    be.lmtp(&with_fields("X-Spam-Flag: YES\r\nMessage-ID: <3@x>\r\n")).await;
    assert_eq!(messages(&be, ALICE, PASSWORD, "Inbox").await.len(), 2);
    assert_eq!(messages(&be, ALICE, PASSWORD, "Junk%20E-mail").await.len(), 1);
    let circling = "Received: from x\r\n".repeat(101);
    let said = be.lmtp(&with_fields(&circling)).await;
    assert!(said.contains("554 5.4.6"), "{said}");
}

#[tokio::test]
async fn bad_mail_stores_nothing() {
    let be = Be::start_with(|config| config.limits.mail_bytes_max = 64 * 1024).await;
    let said = be.lmtp(&mail("nobody@example.com", "x")).await;
    assert!(said.contains("550 5.1.1"), "{said}");
    let smuggled = String::from_utf8(mail(ALICE, "x")).unwrap().replace("Hello.\r\n", "Hello.\n.\nMAIL\r\n");
    let said = be.lmtp(smuggled.as_bytes()).await;
    assert!(said.contains("554 5.6.0"), "{said}");
    let big = String::from_utf8(mail(ALICE, "x")).unwrap().replace("Hello.", &"long line\r\n".repeat(7000));
    let said = be.lmtp(big.as_bytes()).await;
    assert!(said.contains("552 5.3.4"), "{said}");
    let cut = String::from_utf8(mail(ALICE, "x")).unwrap();
    let cut = cut.split("Hello.").next().unwrap();
    let mut stream = tokio::net::TcpStream::connect(be.lmtp).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, cut.as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(count(&be).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_deliver_at_once() {
    let be = std::sync::Arc::new(Be::start().await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..30 {
        let be = be.clone();
        tasks.spawn(async move { be.deliver(&format!("message {n}")).await });
    }
    tasks.join_all().await;
    assert_eq!(count(&be).await, 30);
}

#[tokio::test]
async fn a_unix_socket_serves_too_and_goes_with_the_server() {
    use directpush_be::config::LmtpListen;
    let at = tempfile::TempDir::new().unwrap();
    let path = at.path().join("lmtp.sock");
    let mut be = Be::start_with(|config| config.lmtp_listen.push(LmtpListen::Unix(path.clone()))).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &mail(ALICE, "x")).await.unwrap();
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut said).await.unwrap();
    assert!(said.contains("250 2.1.5"), "{said}");
    // A waiting connection is told, and does not hold up the stop.
    let mut waiting = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut greeting = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut waiting, &mut greeting).await.unwrap();
    be.stop.cancel();
    be.running.take().unwrap().finished().await.unwrap();
    let mut farewell = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut waiting, &mut farewell).await.unwrap();
    assert!(farewell.contains("421 4.3.2"), "{farewell}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_full_mailbox_is_tried_again_unless_the_message_can_never_fit() {
    let be = Be::start().await;
    let boxes = &be.running.as_ref().unwrap().server().boxes;
    let own = |bytes| QuotaEdit { bytes: Some(bytes), ..QuotaEdit::default() };
    boxes.set_quota(&ALICE.parse().unwrap(), own(2000)).await.unwrap();
    let large = String::from_utf8(mail(ALICE, "x")).unwrap().replace("Hello.", &"Hello.\r\n".repeat(150));
    let said = be.lmtp(large.as_bytes()).await;
    assert!(said.contains("250 2.1.5"), "{said}");
    let said = be.lmtp(large.as_bytes()).await;
    assert!(said.contains("452 4.2.2"), "{said}");
    boxes.set_quota(&ALICE.parse().unwrap(), own(1000)).await.unwrap();
    let said = be.lmtp(large.as_bytes()).await;
    assert!(said.contains("552 5.2.2"), "{said}");
    assert_eq!(count(&be).await, 1);
}
