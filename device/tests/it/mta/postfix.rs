//! Postfix: delivers to us over LMTP while phones wait.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use directpush_be::config::LmtpListen;
use directpush_common::eas::folder_sync::FolderType;
use directpush_device::{
    core::{Kind, News},
    http::Server,
    reporter::PhoneEvent,
};
use tokio::task::JoinSet;

use super::{Site, adapted, attempt, field, free_port, run, user};
use crate::stage::{TestPhone, profile};

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
    /// In `dir`, delivering to the LMTP socket there. `more` goes to the end of main.cf.
    async fn start(dir: &Path, socket: &Path, more: &str) -> Self {
        let dir = dir.join("postfix");
        let (config, log) = (dir.join("etc"), dir.join("mail.log"));
        for folder in [&config, &dir.join("queue"), &dir.join("data")] {
            fs::create_dir_all(folder).unwrap();
        }
        run("chown", vec!["postfix".to_owned(), dir.join("data").display().to_string()]).await;
        let (smtp, smart_host) = (free_port(), free_port());
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
    let postfix = Postfix::start(site.dir.path(), &socket, ELSEWHERE).await;

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
