//! A backup that is made while mail comes in, and what becomes of phones when it is brought back: they go on from it
//! by themselves, whatever they had seen since.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use directpush_be::{
    admin::{Answer, Order},
    maintenance::{self, Bar},
};
use directpush_common::eas::folder_sync::FolderType;
use directpush_device::{
    core::{Kind, Phone},
    http::Server,
    pair::{Backend, Frontend, Seat},
};

use crate::{
    dav::{Dav, View, text},
    stage::{PASSWORD, TestPhone, deliver, profile},
};

const USER: &str = "alice@example.com";

/// The subjects in the Inbox.
async fn inbox(backend: &Backend) -> BTreeSet<String> {
    let mut dav = Dav::person(backend.http(), USER);
    let folders = dav.hierarchy().await.unwrap();
    let inbox = folders.iter().find(|folder| folder.folder_type == 2).unwrap().id;
    let mut view = View::default();
    view.sync(&mut dav, inbox).await.unwrap();
    let mut subjects = BTreeSet::new();
    for item in view.items.keys() {
        let url = inbox.item_url(&dav.user, *item);
        let whole = text(&dav.done("GET", &url, &[], b"").await.unwrap());
        let subject = whole.lines().find_map(|line| line.strip_prefix("Subject: "));
        subjects.insert(subject.unwrap().to_owned());
    }
    subjects
}

fn held(phone: &Phone) -> BTreeSet<String> {
    let (_, inbox) = phone.mailbox().folder_of(FolderType::Inbox).unwrap();
    inbox.items.values().map(|held| held.subject.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_go_on_from_a_backup_that_was_made_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let (state, copy) = (dir.path().join("be"), dir.path().join("backup"));
    let seat = Seat::new("fe-1", false);
    let mut config = Backend::config(&state, std::slice::from_ref(&seat));
    let backend = Backend::start(config.clone()).await.unwrap();
    config.http_listen = backend.http();
    backend.add_user(USER, PASSWORD).await.unwrap();
    let frontend = Frontend::start(Frontend::config(&seat, backend.http())).await.unwrap();
    let server = Server::at(frontend.http().unwrap());
    let mut phone = TestPhone::start(server, profile(USER, "phone1", Kind::WindowsMobile));
    phone.pinging().await;

    let lmtp = backend.lmtp().unwrap();
    for n in 0..20 {
        deliver(&lmtp, USER, &format!("before {n}")).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (lmtp, done) = (lmtp.clone(), Arc::clone(&done));
        async move {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    return n;
                }
                deliver(&lmtp, USER, &format!("meanwhile {n}")).await;
            }
            unreachable!()
        }
    });
    for _ in 0..2 {
        // The second copies what is new.
        let answer = backend.order(Order::Backup { target: copy.clone() }).await;
        assert!(matches!(answer, Answer::BackedUp(_)), "{answer:?}");
    }
    done.store(true, Ordering::Relaxed);
    let meanwhile: usize = load.await.unwrap();
    deliver(&lmtp, USER, "lost with the disk").await;
    phone.has("lost with the disk").await;
    phone.pinging().await;

    backend.stop().await.unwrap();
    fs::remove_dir_all(state.join("store")).unwrap();
    maintenance::restore(&config, copy, false, Bar::new()).await.unwrap();
    let backend = Backend::start(config).await.unwrap();
    let restored = inbox(&backend).await;
    assert!((0..20).all(|n| restored.contains(&format!("before {n}"))), "{restored:?}");
    assert!(!restored.contains("lost with the disk") && restored.len() <= 20 + meanwhile, "{restored:?}");

    deliver(&backend.lmtp().unwrap(), USER, "after").await;
    phone.has("after").await;
    phone.pinging().await;
    let phone = phone.stop().await;
    assert_eq!(held(&phone), inbox(&backend).await);
    frontend.stop().await;
    backend.stop().await.unwrap();
}
