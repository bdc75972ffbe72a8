//! Postfix: delivers to us over LMTP while phones wait, and takes our mail as the smart host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use directpush_be::{
    admin::{Answer, Order},
    config::LmtpListen,
    submission::queue::smart_host::{SmartHostSettings, Timeouts, Tls},
};
use directpush_common::eas::folder_sync::FolderType;
use directpush_device::{
    core::{Kind, News},
    http::Server,
    reporter::PhoneEvent,
};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

use super::{Site, adapted, attempt, field, free_port, run, user};
use crate::{
    dav::Dav,
    stage::{PATIENCE, TestPhone, profile},
};

const USERS: usize = 50;
/// Messages for each user, sent one by one, each to a phone that waits.
const WAVES: usize = 10;
/// And as many at once.
const BURST: usize = 10;

const MAIN: &str = include_str!("../../../../deploy/mta/postfix-main.cf");
const MASTER: &str = include_str!("../../../../deploy/mta/postfix-master.cf");

/// As the smart host it knows the rest of the world: one address there is refused, all other mail is taken and dropped.
const ELSEWHERE: &str = "\
default_transport = discard:
smart_host_rejects = check_recipient_access inline:{ { gone@elsewhere.example = 550 5.1.1 No such user } }
";

/// What every Postfix has, without chroot.
const SERVICES: &str = "\
pickup    unix  n  -  n  60     1  pickup
cleanup   unix  n  -  n  -      0  cleanup
qmgr      unix  n  -  n  300    1  qmgr
rewrite   unix  -  -  n  -      -  trivial-rewrite
bounce    unix  -  -  n  -      0  bounce
defer     unix  -  -  n  -      0  bounce
trace     unix  -  -  n  -      0  bounce
verify    unix  -  -  n  -      1  verify
proxymap  unix  -  -  n  -      -  proxymap
smtp      unix  -  -  n  -      -  smtp
showq     unix  n  -  n  -      -  showq
error     unix  -  -  n  -      -  error
retry     unix  -  -  n  -      -  error
discard   unix  -  -  n  -      -  discard
lmtp      unix  -  -  n  -      -  lmtp
anvil     unix  -  -  n  -      1  anvil
scache    unix  -  -  n  -      1  scache
postlog   unix-dgram n - n  -   1  postlogd
";

/// A Postfix with everything of its own in a folder; it stops with this value.
struct Postfix {
    config: PathBuf,
    log: PathBuf,
    /// Where it takes mail for us.
    smtp: u16,
    /// Where it takes mail from us.
    smart_host: u16,
}

impl Postfix {
    /// In `dir`, delivering to the LMTP socket there, and taking our mail at the port `smart_host`. `more` goes to the end of main.cf.
    async fn start(dir: &Path, socket: &Path, smart_host: u16, more: &str) -> Self {
        let dir = dir.join("postfix");
        let (config, log) = (dir.join("etc"), dir.join("mail.log"));
        for folder in [&config, &dir.join("queue"), &dir.join("data")] {
            fs::create_dir_all(folder).unwrap();
        }
        run("chown", vec!["postfix".to_owned(), dir.join("data").display().to_string()]).await;
        let smtp = free_port();
        let main = format!(
            "compatibility_level = 3.6\nmyhostname = mx.example.com\nmydestination =\nlocal_recipient_maps =\n\
             alias_maps =\nalias_database =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             queue_directory = {dir}/queue\ndata_directory = {dir}/data\n\
             maillog_file = {dir}/mail.log\nmaillog_file_prefixes = {dir}\n\n{}\n{more}\n",
            adapted(MAIN, "/run/directpush-be/lmtp.sock", socket.to_str().unwrap()),
            dir = dir.display(),
        );
        fs::write(config.join("main.cf"), main).unwrap();
        let behind = adapted(MASTER, "127.0.0.1:10587", &format!("127.0.0.1:{smart_host}"));
        let behind = adapted(&behind, "reject_unknown_recipient_domain", "$smart_host_rejects");
        let master = format!("127.0.0.1:{smtp} inet n - n - - smtpd\n{SERVICES}{behind}");
        fs::write(config.join("master.cf"), master).unwrap();
        let this = Self { config, log, smtp, smart_host };
        run("postfix", vec!["-c".to_owned(), this.config.display().to_string(), "start".to_owned()]).await;
        this
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Small messages for each user, by a sender of its own.
    async fn inject_for_all(&self, subject: &str, messages: usize) {
        let mut senders = JoinSet::new();
        for n in 0..USERS {
            let server = format!("127.0.0.1:{}", self.smtp);
            let (messages, user) = (messages.to_string(), user(n));
            let arguments = ["-m", &messages, "-f", "bob@example.org", "-t", &user, "-S", subject, &server];
            let arguments = arguments.map(str::to_owned).to_vec();
            senders.spawn(async move { run("smtp-source", arguments).await });
        }
        senders.join_all().await;
    }

    /// Whether swaks could hand over a message for this address, and the dialogue.
    async fn swaks(&self, port: u16, from: &str, to: &str) -> (bool, String) {
        let port = port.to_string();
        let arguments = ["--server", "127.0.0.1", "--port", &port, "--from", from, "--to", to];
        attempt("swaks", arguments.map(str::to_owned).to_vec()).await
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = Command::new("postfix").arg("-c").arg(&self.config).arg("stop").output();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postfix, and root: cargo xtask interop"]
async fn a_thousand_messages_by_postfix_wake_their_phones_and_arrive_once() {
    let mut socket = PathBuf::new();
    let site = Site::new(USERS, |dir| {
        socket = dir.path().join("lmtp.sock");
        LmtpListen::Unix(socket.clone())
    })
    .await;
    let server = Server::at(site.frontend.http().unwrap());
    let start = |n: usize| {
        let profile = profile(&user(n), &format!("phone{n}"), Kind::WindowsMobile);
        TestPhone::start(server.clone(), profile)
    };
    let mut phones: Vec<TestPhone> = (0..USERS).map(start).collect();
    for phone in &mut phones {
        phone.pinging().await;
    }
    let postfix = Postfix::start(site.dir.path(), &socket, free_port(), ELSEWHERE).await;

    for wave in 0..WAVES {
        let subject = format!("wave {wave}");
        postfix.inject_for_all(&subject, 1).await;
        for phone in &mut phones {
            phone.woken().await;
            phone.has(&subject).await;
            phone.pinging().await;
        }
    }
    postfix.inject_for_all("burst", BURST).await;
    for phone in &mut phones {
        phone.woken().await;
        let mut came = 0;
        let all_came = |event: &PhoneEvent| {
            if let PhoneEvent::Applied { news, .. } = event {
                came += news.iter().filter(|(news, _)| matches!(news, News::Added { .. })).count();
            }
            came == BURST
        };
        phone.until("the burst", all_came).await;
        phone.pinging().await;
    }
    let mut wakes = 0;
    for phone in phones {
        let phone = phone.stop().await;
        let counters = phone.counters();
        assert!(counters.pings_changed > WAVES as u64, "{counters:?}");
        assert_eq!(counters.empty_syncs, 0, "no wake without a message");
        let (_, inbox) = phone.mailbox().folder_of(FolderType::Inbox).unwrap();
        assert_eq!(inbox.items.len(), WAVES + BURST);
        wakes += counters.pings_changed;
    }
    let mut ids = BTreeSet::new();
    for n in 0..USERS {
        let messages = site.inbox(&user(n)).await;
        assert_eq!(messages.len(), WAVES + BURST, "{} got each once", user(n));
        ids.extend(messages.iter().map(|message| field(message, "Message-Id").to_owned()));
    }
    assert_eq!(ids.len(), USERS * (WAVES + BURST), "Message-IDs, each in one mailbox");
    assert!(!postfix.log().contains("status=deferred"), "Postfix had to try again");
    println!("{} messages, {wakes} wakes", ids.len());

    let (accepted, talk) = postfix.swaks(postfix.smtp, "bob@example.org", "nobody@example.com").await;
    assert!(!accepted && talk.contains("550 5.1.1"), "{talk}");
    let (accepted, talk) =
        postfix.swaks(postfix.smart_host, "user0@example.com", "any@elsewhere.example").await;
    assert!(accepted, "the smart host takes mail: {talk}");
    let (accepted, talk) =
        postfix.swaks(postfix.smart_host, "user0@example.com", "gone@elsewhere.example").await;
    assert!(!accepted && talk.contains("550 5.1.1"), "the smart host refuses one: {talk}");
}

/// Looks until it is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: it does not happen");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postfix, and root: cargo xtask interop"]
async fn what_postfix_refuses_as_the_smart_host_comes_back_as_a_bounce() {
    let (mut socket, port) = (PathBuf::new(), free_port());
    let site = Site::with(1, |dir, config| {
        socket = dir.path().join("lmtp.sock");
        config.lmtp_listen = vec![LmtpListen::Unix(socket.clone())];
        config.smart_host = Some(SmartHostSettings {
            host: "127.0.0.1".to_owned(),
            port,
            tls: Tls::None,
            ca: None,
            login: None,
            hello: "be.example.com".to_owned(),
            timeouts: Timeouts::default(),
        });
    })
    .await;
    let postfix = Postfix::start(site.dir.path(), &socket, port, ELSEWHERE).await;
    let server = Server::at(site.frontend.http().unwrap());
    let mut phone = TestPhone::start(server, profile(&user(0), "phone", Kind::WindowsMobile));
    phone.pinging().await;

    let message = "From: user0@example.com\r\nTo: any@elsewhere.example, gone@elsewhere.example\r\n\
                   Bcc: hidden@elsewhere.example\r\nSubject: to two and one\r\nMessage-ID: <first@phone>\r\n\r\nHello.\r\n";
    let mut dav = Dav::person(site.backend.http(), &user(0));
    let uri = "/exchange/user0@example.com/%23%23DavMailSubmissionURI%23%23/";
    let answer = dav.ask("PUT", uri, &[], message.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 201);

    let bounce = until("the bounce", async || site.inbox(&user(0)).await.pop()).await;
    phone.woken().await;
    assert!(bounce.starts_with("Return-Path: <>\r\n"), "{bounce}");
    assert!(field(&bounce, "Content-Type").starts_with("multipart/report"), "{bounce}");
    assert_eq!(field(&bounce, "To"), "<user0@example.com>");
    assert_eq!(field(&bounce, "Auto-Submitted"), "auto-replied");
    let told = "Final-Recipient: rfc822; gone@elsewhere.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
                Remote-MTA: dns; 127.0.0.1\r\nDiagnostic-Code: smtp; 550 5.1.1 ";
    assert!(bounce.contains(told), "{bounce}");
    assert_eq!(bounce.matches("Final-Recipient:").count(), 1, "{bounce}");
    assert!(bounce.contains("Subject: to two and one\r\n") && !bounce.contains("hidden@"), "{bounce}");

    // Who is not refused has it, and nothing waits.
    let sent = |to: &str| {
        let log = postfix.log();
        log.lines().any(|line| line.contains(&format!("to=<{to}>")) && line.contains("status=sent"))
    };
    for to in ["any@elsewhere.example", "hidden@elsewhere.example"] {
        until(to, async || sent(to).then_some(())).await;
    }
    assert!(!sent("gone@elsewhere.example"));
    let list = || Order::ListQueue { user: None, after: None };
    until("an empty queue", async || match site.backend.order(list()).await {
        Answer::Queue { messages, .. } => messages.is_empty().then_some(()),
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(site.inbox(&user(0)).await.len(), 1, "one bounce");
    phone.stop().await;
}
