//! Mail leaves: to neighbours, to a smart host, into the queue, and back as a bounce.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use directpush_be::Config;
use directpush_be::submission::queue::smart_host::{SmartHostSettings, Timeouts, Tls};
use tokio_util::sync::CancellationToken;

use crate::client::{ALICE, Answer, Be, PASSWORD};
use crate::fake::{FakeHost, Offers};
use crate::users::{ok, tool};

const BOB: &str = "bob@example.com";

fn relay(host: &FakeHost) -> SmartHostSettings {
    SmartHostSettings {
        host: "localhost".into(),
        port: host.port,
        tls: Tls::None,
        ca: None,
        login: None,
        hello: "be.example.com".into(),
        timeouts: Timeouts::default(),
    }
}

/// A back end with alice and bob, whose mail leaves by this host.
async fn start(host: &Arc<FakeHost>, change: impl FnOnce(&mut Config)) -> Be {
    let relay = relay(host);
    let be = Be::start_with(|config| {
        config.default_domain = Some("example.com".into());
        config.smart_host = Some(relay);
        change(config);
    })
    .await;
    be.running.as_ref().unwrap().add_user(BOB, "x").await.unwrap();
    be
}

async fn submit(be: &Be, message: &str) -> Answer {
    let uri = format!("/exchange/{ALICE}/%23%23DavMailSubmissionURI%23%23/");
    be.fe("PUT", &uri, &[("Content-Type", "message/rfc822")], message.as_bytes()).await
}

fn message(from: &str, to: &str) -> String {
    format!("From: {from}\r\nTo: {to}\r\nMessage-ID: <{}@phone>\r\nSubject: hi\r\n\r\nhello\r\n", to.len())
}

/// The messages of a folder, as a DAV client gets them.
pub(crate) async fn messages(be: &Be, user: &str, password: &str, folder: &str) -> Vec<String> {
    let basic = format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
    let headers = [("Authorization", basic.as_str())];
    let folder = format!("/exchange/{user}/{folder}/");
    let listing = be.send("GET", &folder, &headers, b"").await.expect(200).text();
    let mut found = Vec::new();
    for name in listing.lines().filter(|line| line.contains(".eml")) {
        found.push(be.send("GET", &format!("{folder}{name}"), &headers, b"").await.expect(200).text());
    }
    found
}

/// Waits for what another task does.
async fn wait_for<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not happen");
}

async fn left(be: &Be) -> usize {
    let queue = be.running.as_ref().unwrap().server().submission.queue();
    queue.list(None, None, 100).await.unwrap().len()
}

fn yes(_: &str) -> Option<String> {
    None
}

#[tokio::test]
async fn neighbours_have_it_at_once_and_the_rest_leaves_by_the_smart_host() {
    let host = FakeHost::start(Offers::Plain, yes).await;
    let be = start(&host, |_| {}).await;
    let mail = format!(
        "From: Alice <{ALICE}>\r\nTo: {BOB}, far@x.example\r\nBcc: hidden@x.example\r\nSubject: hi\r\n\r\nhello\n.\n"
    );
    let answer = submit(&be, &mail).await.expect(201);
    assert!(answer.header("directpush-submission").is_some());
    let got = messages(&be, BOB, "x", "Inbox").await;
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with(&format!("Return-Path: <{ALICE}>\r\nReceived: by ")), "{}", got[0]);
    let arrived = wait_for(async || host.arrived.lock().first().cloned()).await;
    assert_eq!(arrived.mail, format!("MAIL FROM:<{ALICE}>"));
    assert_eq!(arrived.to, ["RCPT TO:<far@x.example>", "RCPT TO:<hidden@x.example>"]);
    let text = String::from_utf8(arrived.message).unwrap();
    assert!(!text.contains("hidden@") && text.contains("\r\nMessage-ID: <"), "{text}");
    assert!(text.ends_with("\r\n\r\nhello\r\n.\r\n"), "{text}");
    wait_for(async || (left(&be).await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_rejected_recipient_ends_as_a_bounce_in_the_senders_inbox() {
    let host = FakeHost::start(Offers::Plain, |line| {
        line.starts_with("RCPT TO:<never@").then(|| "550 5.1.1 nobody of that name\r\n".to_owned())
    })
    .await;
    let be = start(&host, |_| {}).await;
    submit(&be, &message(ALICE, "never@x.example, yes@x.example, nobody@example.com")).await.expect(201);
    let bounces = wait_for(async || {
        let got = messages(&be, ALICE, PASSWORD, "Inbox").await;
        (got.len() == 2).then_some(got)
    })
    .await;
    let of =
        |address: &str| bounces.iter().find(|text| text.contains(&format!("rfc822; {address}\r\n"))).unwrap();
    let relayed = of("never@x.example");
    assert!(
        relayed.contains("Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; localhost\r\n"),
        "{relayed}"
    );
    assert!(relayed.contains("Diagnostic-Code: smtp; 550 5.1.1 nobody of that name\r\n"), "{relayed}");
    assert!(relayed.starts_with("Return-Path: <>\r\n") && relayed.contains("Auto-Submitted: auto-replied"));
    assert!(relayed.contains("Subject: hi\r\n") && !relayed.contains("yes@x.example\r\nAction"));
    assert!(of("nobody@example.com").contains("5.1.1 no such user here"));
    assert_eq!(host.arrived.lock().len(), 1);
}

#[tokio::test]
async fn a_user_sends_as_themselves_and_their_aliases_only() {
    let host = FakeHost::start(Offers::Plain, yes).await;
    let be = start(&host, |_| {}).await;
    let (alice, sales) = (ALICE.parse().unwrap(), "sales@y.example".parse().unwrap());
    be.running.as_ref().unwrap().server().boxes.add_alias(&alice, &sales).await.unwrap();
    for from in [ALICE, "sales@y.example", "Alice+lists@example.com", "Sales <sales+x@Y.example>"] {
        submit(&be, &message(from, BOB)).await.expect(201);
    }
    for from in [BOB, "alice@y.example", "alice@example.com, bob@example.com", "nobody@example.com"] {
        let refused = submit(&be, &message(from, BOB)).await.expect(403);
        assert_eq!(refused.header("directpush-reason"), Some("sender"), "{from}");
    }
    let forged = format!("From: {ALICE}\r\nSender: {BOB}\r\nTo: {BOB}\r\n\r\n");
    submit(&be, &forged).await.expect(403);
    // Nobody hands in for somebody else, and there is nothing to be read.
    let other = format!("/exchange/{BOB}/%23%23DavMailSubmissionURI%23%23/");
    be.fe("PUT", &other, &[], message(BOB, ALICE).as_bytes()).await.expect(403);
    be.alice("GET", &format!("/exchange/{ALICE}/%23%23DavMailSubmissionURI%23%23/"), &[], b"")
        .await
        .expect(405);
    be.alice("MKCOL", &format!("/exchange/{ALICE}/%23%23DavMailSubmissionURI%23%23/"), &[], b"")
        .await
        .expect(405);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_its_reason() {
    let host = FakeHost::start(Offers::Plain, yes).await;
    let be = start(&host, |config| {
        config.submission.limits.recipients_max = 3;
        config.submission.limits.hourly.messages = 2;
    })
    .await;
    let reason = |answer: Answer, status: u16| {
        answer.expect(status).header("directpush-reason").map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(reason(submit(&be, "Subject: x\r\n\r\n").await, 422), "message");
    assert_eq!(reason(submit(&be, &message(ALICE, "a b c")).await, 422), "message");
    assert_eq!(reason(submit(&be, &message(ALICE, "a@x, b@x, c@x, d@x")).await, 403), "recipients");
    let circling = format!("{}{}", "Received: x\r\n".repeat(101), message(ALICE, BOB));
    assert_eq!(reason(submit(&be, &circling).await, 508), "loop");
    submit(&be, &message(ALICE, BOB)).await.expect(201);
    // What went out and comes back with a trace on it.
    let back = format!("Received: from somewhere\r\n{}", message(ALICE, BOB));
    assert_eq!(reason(submit(&be, &back).await, 508), "loop");
    submit(&be, &message(ALICE, BOB)).await.expect(201);
    let refused = submit(&be, &message(ALICE, BOB)).await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=4200).contains(&wait), "{wait}");
    assert_eq!(reason(refused, 429), "rate");

    let alone = Be::start().await;
    assert_eq!(reason(submit(&alone, &message(ALICE, "far@x.example")).await, 403), "smart-host");
    submit(&alone, &message(ALICE, ALICE)).await.expect(201);
    assert_eq!(messages(&alone, ALICE, PASSWORD, "Inbox").await.len(), 1);
}

#[tokio::test]
async fn what_waits_survives_a_restart_and_is_seen_by_the_administrator() {
    let host = FakeHost::start(Offers::Plain, |line| {
        line.starts_with("MAIL").then(|| "451 4.3.0 later\r\n".to_owned())
    })
    .await;
    let mut be = start(&host, |config| config.default_domain = None).await;
    submit(&be, &message(ALICE, "far@x.example")).await.expect(201);
    submit(&be, &message(ALICE, "further@x.example")).await.expect(201);
    wait_for(async || (host.count("MAIL") == 2).then_some(())).await;
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\n", be.dir.path())).unwrap();
    be.stop.cancel();
    be.running.take().unwrap().finished().await.unwrap();

    // No server runs: the command line reads the queue itself.
    let run = async |arguments: Vec<String>| {
        let config = config.clone();
        let run = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tool(&config, &arguments, None)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let listed = ok(&run(words("queue list --json")).await);
    let json: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(json[0]["recipients"][0]["address"], "far@x.example");
    assert_eq!(json[0]["recipients"][0]["last_answer"], "451 4.3.0 later");
    assert!(!listed.contains("hello") && !listed.contains("hi\""));
    let first = json[0]["id"].as_str().unwrap();
    ok(&run(words(&format!("queue remove {first}"))).await);
    assert!(!run(words(&format!("queue remove {first}"))).await.status.success());
    assert_eq!(ok(&run(words("queue retry --all")).await), "1 to be tried now\n");
    let shown = ok(&run(words("queue list")).await);
    assert!(shown.contains("further@x.example  waits: 451 4.3.0 later"), "{shown}");

    // The next process sends it, by another host.
    let good = FakeHost::start(Offers::Plain, yes).await;
    let mut config = Config::loopback(be.dir.path());
    config.smart_host = Some(relay(&good));
    let stop = CancellationToken::new();
    let running = directpush_be::run(config, stop.clone()).await.unwrap();
    let arrived = wait_for(async || good.arrived.lock().first().cloned()).await;
    assert_eq!(arrived.to, ["RCPT TO:<further@x.example>"]);
    stop.cancel();
    running.finished().await.unwrap();
}

#[tokio::test]
async fn aliases_are_kept_by_command_line() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\n", dir.path().join("state"))).unwrap();
    let run = |arguments: &[&str]| tool(&config, arguments, Some("secret\n"));
    ok(&run(&["user", "add", "bob@example.com"]));
    ok(&run(&["user", "alias", "add", "bob@example.com", "Info@example.com"]));
    assert_eq!(ok(&run(&["user", "alias", "list", "bob@example.com"])), "info@example.com\n");
    let taken = run(&["user", "add", "info@example.com"]);
    assert!(!taken.status.success());
    ok(&run(&["user", "alias", "remove", "bob@example.com", "info@example.com"]));
    assert_eq!(ok(&run(&["user", "alias", "list", "bob@example.com", "--json"])), "[]\n");
    assert_eq!(ok(&run(&["queue", "list"])), "");
}
