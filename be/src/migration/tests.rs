use std::fs;
use std::path::Path;

use directpush_common::mail::maildir::Flags;

use super::export::{ExportFormat, export};
use super::import::{ImportOptions, Imported, import};
use super::source::{self, Found};
use super::*;
use crate::config::Config;
use crate::mailbox::condition::Conditions;
use crate::mailbox::quota::QuotaEdit;
use crate::maintenance::Bar;
use crate::start::Offline;

const BOUND: u64 = 10_000;
const ALICE: &str = "alice@x.example";
const BOB: &str = "bob@x.example";

/// A store in memory with alice and bob.
async fn offline() -> (tempfile::TempDir, Offline) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::loopback(dir.path());
    config.engine = crate::config::Engine::Memory;
    config.limits.mail_bytes_max = BOUND;
    let offline = Offline::open(&config).await.unwrap();
    for user in [ALICE, BOB] {
        offline.administered.boxes.add_user(&user.parse().unwrap(), String::new()).await.unwrap();
    }
    (dir, offline)
}

fn options(source: &Path, user: &str) -> ImportOptions {
    ImportOptions {
        source: source.to_owned(),
        user: user.to_owned(),
        folder: vec!["Inbox".to_owned()],
        keep_names: false,
        anew: false,
        dry_run: false,
        mail_bytes_max: BOUND,
    }
}

async fn run(on: &Offline, options: &ImportOptions) -> Imported {
    let mut imported = Imported::default();
    import(&on.administered, options, &mut imported, &mut Bar::hidden()).await.unwrap();
    imported
}

/// Everything of a mailbox: folder, date, read, marks and bytes of each message, in a fixed order.
async fn all(on: &Offline, user: &str) -> Vec<(String, i64, bool, String, Vec<u8>)> {
    let boxes = &on.administered.boxes;
    let account = boxes.users.account(&user.parse().unwrap()).await.unwrap().unwrap();
    let state = boxes.state(account.mailbox).await.unwrap();
    let mut all = Vec::new();
    for (folder, _) in state.tree.iter() {
        let path = state.tree.path(folder).unwrap().join("/");
        for (_, item) in boxes.oldest(account.mailbox, folder, 0, 1000).await.unwrap() {
            let bytes = boxes.store.bodies.get(BodyId(item.body)).await.unwrap().to_vec();
            all.push((path.clone(), item.date, item.read, item.marks.clone(), bytes));
        }
    }
    all.sort();
    all
}

async fn folders(on: &Offline, user: &str) -> Vec<String> {
    let boxes = &on.administered.boxes;
    let account = boxes.users.account(&user.parse().unwrap()).await.unwrap().unwrap();
    let state = boxes.state(account.mailbox).await.unwrap();
    let mut all: Vec<String> =
        state.tree.iter().map(|(id, _)| state.tree.path(id).unwrap().join("/")).collect();
    all.sort();
    all
}

fn maildir(dir: &Path) {
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
}

fn message(subject: &str) -> String {
    format!("From: bob@y\nSubject: {subject}\n\nHello,\n.\nFrom here\n")
}

/// A Maildir as Dovecot leaves it.
fn dovecot(dir: &Path) {
    maildir(dir);
    fs::write(dir.join("cur/784111777.M1.mx,S=40:2,S"), message("read")).unwrap();
    fs::write(dir.join("cur/784111778.M2.mx:2,FRS"), message("flagged")).unwrap();
    fs::write(dir.join("new/784111779.M3.mx"), message("new")).unwrap();
    fs::write(dir.join("new/784111780.M4.mx"), message("new")).unwrap();
    fs::write(dir.join("cur/784111781.M5.mx:2,ST"), message("deleted")).unwrap();
    fs::write(dir.join("dovecot.index"), b"\0\0").unwrap();
    for folder in [".Sent", ".Entw&APw-rfe", ".INBOX.Lists.Rust", ".Notes", ".Empty"] {
        maildir(&dir.join(folder));
        if folder != ".Empty" {
            fs::write(dir.join(folder).join("cur/784111790.M9.mx:2,S"), message(folder)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_maildir_comes_over_with_folders_flags_and_dates_and_only_once() {
    let (dir, on) = offline().await;
    let source = dir.path().join("maildir");
    dovecot(&source);
    let told = run(&on, &ImportOptions { dry_run: true, ..options(&source, ALICE) }).await;
    assert_eq!((told.added, told.is_whole(), all(&on, ALICE).await.len()), (9, true, 0), "{told:?}");
    let told = run(&on, &options(&source, ALICE)).await;
    assert_eq!((told.added, told.known, told.folders), (9, 0, 6), "{told:?}");
    let got = all(&on, ALICE).await;
    let of = |folder: &str| got.iter().filter(|(path, ..)| path == folder).collect::<Vec<_>>();
    let inbox = of("Inbox");
    assert_eq!(
        inbox.iter().map(|(_, date, read, ..)| (*date - 784_111_777, *read)).collect::<Vec<_>>(),
        [(0, true), (1, true), (2, false), (3, false)]
    );
    assert!(
        inbox[1].3.contains("\"f\":") && inbox[1].3.contains("\"v\":") && inbox[0].3.is_empty(),
        "{inbox:?}"
    );
    assert_eq!(inbox[0].4, message("read").replace('\n', "\r\n").into_bytes());
    for folder in ["Sent Items", "Entwürfe", "Inbox/Lists/Rust", "Notes (mail)", "Deleted Items"] {
        assert_eq!(of(folder).len(), 1, "{folder}");
    }
    assert!(folders(&on, ALICE).await.contains(&"Empty".to_owned()));

    // Again, with other names and flags: nothing is new. What its user removed stays away, unless that is asked for.
    fs::rename(source.join("new/784111779.M3.mx"), source.join("cur/784111779.M3.mx:2,S")).unwrap();
    let told = run(&on, &options(&source, ALICE)).await;
    assert_eq!((told.added, told.known), (0, 9), "{told:?}");
    let boxes = on.administered.boxes.clone();
    let account = boxes.users.account(&ALICE.parse().unwrap()).await.unwrap().unwrap();
    let (id, _) =
        boxes.oldest(account.mailbox, crate::mailbox::folders::INBOX, 0, 1).await.unwrap().remove(0);
    let by = directpush_common::change::Maker::default();
    let removed = boxes.remove_item(account.mailbox, 2, ItemName::Id(id), by, Conditions::default()).await;
    removed.unwrap();
    assert_eq!(run(&on, &options(&source, ALICE)).await.added, 0);
    let again = ImportOptions { anew: true, ..options(&source, ALICE) };
    assert_eq!(run(&on, &again).await.added, 1);
    assert_eq!(all(&on, ALICE).await, got);
    // Into another mailbox, under the names that the folders have.
    let other = ImportOptions { keep_names: true, ..options(&source, BOB) };
    assert_eq!(run(&on, &other).await.added, 9);
    assert!(folders(&on, BOB).await.contains(&"Sent".to_owned()));
}

#[tokio::test]
async fn what_is_exported_and_imported_is_the_same() {
    let (dir, on) = offline().await;
    let source = dir.path().join("maildir");
    dovecot(&source);
    fs::write(source.join("cur/784111800.M7.mx:2,"), "Subject: odd\r\n\r\nmixed\nends\r\n").unwrap();
    fs::write(source.join("cur/784111801.M8.mx:2,P"), "Subject: no end\n\nlast line").unwrap();
    run(&on, &options(&source, ALICE)).await;
    let there = all(&on, ALICE).await;
    for (n, format) in
        [ExportFormat::Maildir, ExportFormat::Nested, ExportFormat::Mbox].into_iter().enumerate()
    {
        let target = dir.path().join(format!("export{n}"));
        let users = [ALICE.to_owned()];
        let told = export(&on.administered, &users, &target, format, Bar::hidden()).await.unwrap();
        assert_eq!((told.messages, told.written), (11, 11), "{told:?}");
        let told = export(&on.administered, &users, &target, format, Bar::hidden()).await.unwrap();
        let written = if format == ExportFormat::Mbox { 11 } else { 0 };
        assert_eq!((told.messages, told.written), (11, written), "{format:?}: {told:?}");
        let user = format!("user{n}@x.example");
        on.administered.boxes.add_user(&user.parse().unwrap(), String::new()).await.unwrap();
        let told = run(&on, &options(&target.join(ALICE), &user)).await;
        assert!(told.is_whole() && told.added == 11, "{told:?}");
        let mut expected = there.clone();
        if format == ExportFormat::Mbox {
            // An mbox has lines only, and no word for "forwarded".
            for (.., marks, bytes) in &mut expected {
                let text =
                    String::from_utf8(bytes.clone()).unwrap().replace("\r\n", "\n").replace('\n', "\r\n");
                *bytes = if text.ends_with('\n') { text } else { text + "\r\n" }.into_bytes();
                if marks.contains("\"k\":\"f\"") {
                    marks.clear();
                }
            }
            expected.sort();
        }
        assert_eq!(all(&on, &user).await, expected, "{format:?}");
        assert_eq!(folders(&on, &user).await, folders(&on, ALICE).await, "{format:?}");
    }
}

#[tokio::test]
async fn bad_messages_are_named_and_stop_nothing() {
    let (dir, on) = offline().await;
    let source = dir.path().join("maildir");
    maildir(&source);
    fs::write(source.join("cur/1.a:2,"), "").unwrap();
    fs::write(source.join("cur/2.b:2,"), b"\x7fELF\0\0\0").unwrap();
    fs::write(source.join("cur/3.c:2,"), format!("Subject: x\n\n{}", "x".repeat(20_000))).unwrap();
    fs::write(dir.path().join("secret"), message("somebody else's")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), source.join("cur/4.d:2,")).unwrap();
    std::os::unix::fs::symlink(dir.path(), source.join(".Linked")).unwrap();
    fs::create_dir(source.join("cur/5.e:2,")).unwrap();
    fs::write(source.join("cur/6.f:2,"), message("good")).unwrap();
    fs::write(source.join("cur/.hidden"), message("hidden")).unwrap();
    let told = run(&on, &options(&source, ALICE)).await;
    assert_eq!((told.added, told.bad_count, told.is_whole()), (1, 5, false), "{told:?}");
    let named: Vec<String> =
        told.bad.iter().map(|(name, _)| name.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(named, ["1.a:2,", "2.b:2,", "3.c:2,", "4.d:2,", "5.e:2,"]);
    let mut nobody = Imported::default();
    let missing =
        import(&on.administered, &options(&source, "carol@x"), &mut nobody, &mut Bar::hidden()).await;
    assert!(missing.unwrap_err().contains("no user carol@x"));
    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let refused = import(&on.administered, &options(&nothing, ALICE), &mut nobody, &mut Bar::hidden()).await;
    assert!(refused.unwrap_err().contains("neither a Maildir nor an mbox"));
}

#[tokio::test]
async fn a_full_mailbox_is_said_and_the_rest_comes_when_there_is_room() {
    let (dir, on) = offline().await;
    let source = dir.path().join("maildir");
    maildir(&source);
    for n in 0..10 {
        fs::write(source.join(format!("cur/{n}.a:2,")), message(&format!("{n}"))).unwrap();
    }
    let boxes = &on.administered.boxes;
    let own = |items| QuotaEdit { items: Some(items), ..QuotaEdit::default() };
    boxes.set_quota(&ALICE.parse().unwrap(), own(4)).await.unwrap();
    let told = run(&on, &options(&source, ALICE)).await;
    assert_eq!((told.added, told.is_whole()), (4, false), "{told:?}");
    assert_eq!(told.stopped, [(ALICE.to_owned(), "the mailbox holds too many items".to_owned())]);
    boxes.set_quota(&ALICE.parse().unwrap(), own(0)).await.unwrap();
    let told = run(&on, &options(&source, ALICE)).await;
    assert_eq!((told.added, told.known, told.is_whole()), (6, 4, true), "{told:?}");
}

#[test]
fn a_tree_of_mboxes_is_read_as_mail_programs_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let mbox = |text: &str| format!("From bob@y Sun Nov  6 08:49:37 1994\nStatus: RO\nX-Status: F\n{text}\n");
    fs::create_dir_all(dir.path().join("Work.sbd")).unwrap();
    fs::write(dir.path().join("Inbox"), mbox("Subject: 1\n\nx\n") + &mbox("Subject: 2\n\ny\n")).unwrap();
    fs::write(dir.path().join("Inbox.msf"), "index").unwrap();
    fs::write(dir.path().join("Work.sbd/2025.mbox"), mbox("Subject: 3\n\nz\n")).unwrap();
    let mut found = Vec::new();
    source::read(dir.path(), &["Inbox".to_owned()], BOUND, &mut |one| {
        found.push(one);
        true
    })
    .unwrap();
    let messages: Vec<_> = found
        .iter()
        .filter_map(|one| match one {
            Found::Message(message) => Some((message.folder.join("/"), message.date, message.flags)),
            _ => None,
        })
        .collect();
    let flags = Flags { seen: true, flagged: true, ..Flags::default() };
    let one = |folder: &str| (folder.to_owned(), Some(784_111_777), flags);
    assert_eq!(messages, [one("Inbox"), one("Inbox"), one("Work/2025")]);
}

#[tokio::test]
async fn steps_from_outside_are_bounded() {
    let (_dir, on) = offline().await;
    let boxes = &on.administered.boxes;
    let letter = |size| Letter { key: "0".repeat(32), size, date: 5, read: false, marks: String::new() };
    let add = |messages: Vec<Letter>| Step::Add {
        user: ALICE.into(),
        path: vec!["Inbox".into()],
        messages,
        anew: false,
    };
    let take =
        async |step, payload: &'static [u8]| carry_out(boxes, step, Bytes::from_static(payload), BOUND).await;
    for bad in [
        add(vec![letter(5)]),
        add(vec![letter(BOUND + 1)]),
        add(vec![letter(1); STEP_MESSAGES_MAX + 1]),
        add(vec![Letter { key: "x".into(), ..letter(1) }]),
        add(vec![Letter { marks: "x".repeat(3000), ..letter(1) }]),
        Step::Folder { user: ALICE.into(), path: vec!["a/b".into()] },
        Step::Folder { user: ALICE.into(), path: vec!["..".into()] },
        Step::Folder { user: ALICE.into(), path: Vec::new() },
        Step::Folder { user: ALICE.into(), path: vec!["a".into(); 40] },
        Step::Messages { user: ALICE.into(), folder: 2, ids: vec![1; 65] },
        Step::Known { user: "../x".into(), keys: Vec::new(), anew: false },
    ] {
        let said = format!("{bad:?}");
        assert!(take(bad, b"abc").await.is_err(), "{said}");
    }
    let (told, _) = take(Step::Messages { user: ALICE.into(), folder: 2, ids: vec![7] }, b"").await.unwrap();
    assert_eq!(told, Told::Messages(vec![None]));
}
