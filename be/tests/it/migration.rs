//! `directpush-be export` and `import` as programs: with a running server, whose phones wait, and without one.

use std::fs;
use std::path::Path;

use directpush_common::dav::subscribe::Since;

use crate::client::{ALICE, Be, PASSWORD};
use crate::submission::messages;
use crate::users::{ok, tool};

fn maildir(dir: &Path, count: usize) {
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.join(part)).unwrap();
        fs::create_dir_all(dir.join(".Work.2025").join(part)).unwrap();
    }
    for n in 0..count {
        let message = format!("From: bob@y\nSubject: old {n}\nMessage-ID: <{n}@y>\n\nHello.\n");
        fs::write(dir.join(format!("cur/{}.M{n}.mx:2,S", 1_700_000_000 + n)), &message).unwrap();
    }
    fs::write(dir.join(".Work.2025/new/1700000000.M1.mx"), "Subject: plan\n\nx\n").unwrap();
    fs::write(dir.join("cur/1700009999.bad.mx:2,"), "").unwrap();
}

fn summary(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_moves_in_and_out_while_the_server_runs_and_wakes_no_phone_for_each_message() {
    let dir = tempfile::TempDir::new().unwrap();
    let (socket, source, target) =
        (dir.path().join("admin.sock"), dir.path().join("maildir"), dir.path().join("out"));
    let be = Be::start_with(|config| config.admin_socket = Some(socket.clone())).await;
    let config = dir.path().join("be.toml");
    fs::write(&config, format!("state_dir = {:?}\nadmin_socket = {socket:?}\n", be.dir.path())).unwrap();
    let run = async |arguments: Vec<String>| {
        let config = config.clone();
        let run = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tool(&config, &arguments, None)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let import = words(&format!("import {} --user {ALICE} --json", source.display()));

    // New folders are told at once, as ever; so they come first.
    maildir(&source, 0);
    run(import.clone()).await;
    assert_eq!(messages(&be, ALICE, PASSWORD, "Work/2025").await, ["Subject: plan\r\n\r\nx\r\n"]);
    let boxes = &be.running.as_ref().unwrap().server().boxes;
    let account = boxes.users.account(&ALICE.parse().unwrap()).await.unwrap().unwrap();
    let hierarchy = boxes.state(account.mailbox).await.unwrap().head.hierarchy;
    be.subscribe("Inbox", &be.question(1, Since::Now, hierarchy)).await.expect(200);
    maildir(&source, 150);
    let told = run([import.clone(), words("--dry-run")].concat()).await;
    assert_eq!(summary(&String::from_utf8(told.stdout).unwrap())["added"], 150);
    assert!(messages(&be, ALICE, PASSWORD, "Inbox").await.is_empty());
    let told = run(import.clone()).await;
    assert_eq!(told.status.code(), Some(1), "one was passed over");
    let told = summary(&String::from_utf8(told.stdout).unwrap());
    assert_eq!((&told["added"], &told["passed_over"]), (&150.into(), &1.into()), "{told}");
    assert!(told["bad"][0]["message"].as_str().unwrap().ends_with("1700009999.bad.mx:2,"), "{told}");
    let patience = be.udp.read_timeout().unwrap();
    be.udp.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    assert!(be.udp.recv(&mut [0; 2048]).is_err(), "nobody was woken");
    be.udp.set_read_timeout(patience).unwrap();
    be.deliver("new").await;
    be.notify().await;
    let told = summary(&String::from_utf8(run(import).await.stdout).unwrap());
    assert_eq!((&told["added"], &told["known"]), (&0.into(), &151.into()), "{told}");

    let export = words(&format!("export {} --all --format mbox", target.display()));
    let said = ok(&run(export).await);
    assert!(said.starts_with("152 messages of 1 users in "), "{said}");
    let inbox = fs::read_to_string(target.join(ALICE).join("Inbox.mbox")).unwrap();
    assert_eq!(inbox.matches("\nSubject: old ").count(), 150);
    assert!(
        inbox.starts_with("From MAILER-DAEMON Tue Nov 14 22:13:20 2023\nStatus: RO\n"),
        "{}",
        &inbox[..200]
    );
}

#[test]
fn a_round_trip_without_a_server() {
    let dir = tempfile::TempDir::new().unwrap();
    let (source, target) = (dir.path().join("all/bob@example.com"), dir.path().join("out"));
    let config = dir.path().join("be.toml");
    fs::write(&config, format!("state_dir = {:?}\n", dir.path().join("state"))).unwrap();
    let run = |arguments: &str| tool(&config, &arguments.split(' ').collect::<Vec<_>>(), Some("secret\n"));
    ok(&run("user add bob@example.com"));
    ok(&run("user add carol@example.com"));
    maildir(&source, 20);
    fs::remove_file(source.join("cur/1700009999.bad.mx:2,")).unwrap();
    let said = ok(&run(&format!("import --all {}", dir.path().join("all").display())));
    assert!(said.starts_with("21 messages ("), "{said}");
    ok(&run(&format!("export {} --user bob@example.com", target.display())));
    let first = target.join("bob@example.com");
    ok(&run(&format!("import {} --user carol@example.com", first.display())));
    ok(&run(&format!("export {} --user carol@example.com", target.display())));
    let files = |dir: &Path| {
        let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let modified = entry.metadata().unwrap().modified().unwrap();
                let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let name = entry.file_name().into_string().unwrap();
                let flags = name.rsplit_once(":2,").unwrap().1.to_owned();
                (format!("{since} {flags}"), fs::read(entry.path()).unwrap())
            })
            .collect();
        all.sort();
        all
    };
    for folder in ["cur", ".Work.2025/cur"] {
        let (bob, carol) =
            (files(&first.join(folder)), files(&target.join("carol@example.com").join(folder)));
        assert!(!bob.is_empty() && bob == carol, "{folder}: {bob:?} {carol:?}");
    }
    assert_eq!(files(&first.join("cur"))[0].0, "1700000000 S");
    let nobody = run(&format!("import {} --user nobody@example.com", source.display()));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("make one first"));
}
