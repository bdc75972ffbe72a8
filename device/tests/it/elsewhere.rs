//! Two back ends and a front end, with certificates on both sides: users who are at the second one, and one who moves there.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use directpush_be::{
    admin::{
        Answer, Order,
        front_ends::{FrontEndAnswer, FrontEndOrder},
    },
    auth::authority::{Authority, Issued, Use},
    config::place::{BackEnd, PlacementSettings, TlsSettings},
    http::tls::TlsFiles,
};
use directpush_device::{
    core::{Kind, Task},
    http::Server,
    pair::{Backend, Frontend, NOTIFY_PORT, Seat},
    reporter::PhoneEvent,
};

use crate::stage::{PASSWORD, TestPhone, deliver, profile, wait_until};

const HTTPS: u16 = 8443;

/// Where a back end lives, and its settings.
struct Place {
    name: &'static str,
    seat: Seat,
    dir: PathBuf,
    map: PathBuf,
    other: (&'static str, Seat),
}

impl Place {
    /// Certificates are signed by one authority, in the first one's directory.
    fn config(&self, authority: &Authority) -> directpush_be::Config {
        let now = jiff::Timestamp::now().as_second();
        let address = self.seat.listens;
        let issued = authority.issue(&[address.to_string()], Use::BackEnd, now).unwrap();
        fs::create_dir_all(&self.dir).unwrap();
        let files = TlsFiles {
            certificate: self.dir.join("server.pem"),
            key: self.dir.join("server.key"),
            client_ca: Some(self.dir.join("authority.pem")),
        };
        fs::write(&files.certificate, &issued.certificate).unwrap();
        fs::write(&files.key, &issued.key).unwrap();
        fs::write(files.client_ca.as_ref().unwrap(), &issued.ca).unwrap();
        let mut config = Backend::config(&self.dir, &[]);
        config.tls = Some(TlsSettings { listen: (address, HTTPS).into(), files });
        let (name, seat) = &self.other;
        config.placement = Some(PlacementSettings {
            map: self.map.clone(),
            back_end: self.name.to_owned(),
            back_ends: vec![BackEnd { name: (*name).to_owned(), url: url(seat) }],
        });
        config
    }
}

fn url(seat: &Seat) -> String {
    format!("https://{}:{HTTPS}", seat.listens)
}

/// Makes the front end known to a back end: with what it has already, if it has something.
async fn fe_add(backend: &Backend, seat: &Seat, secret: Option<&str>) -> Option<(String, Issued)> {
    let order = FrontEndOrder::Add {
        name: seat.name.clone(),
        call_back_host: seat.call_back.to_string(),
        call_back_ports: vec![NOTIFY_PORT],
        secret: secret.map(ToOwned::to_owned),
    };
    match backend.order(Order::FrontEnd(order)).await {
        Answer::FrontEnd(FrontEndAnswer::Credential { secret, certificate, .. }) => secret.zip(certificate),
        other => panic!("{other:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_notices_nothing_of_where_its_mailbox_is_or_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Seat::new("be-1", false), Seat::new("be-2", false));
    let [map, stale, first_dir, second_dir] =
        ["placement", "stale", "be-1", "be-2"].map(|name| dir.path().join(name));
    // What the front end reads is behind what the back ends read.
    fs::write(&map, "* be-1\n").unwrap();
    fs::write(&stale, "* be-1\n").unwrap();
    let authority = Authority::open(dir.path(), jiff::Timestamp::now().as_second()).unwrap();
    let authority = Arc::new(authority);
    let other = ("be-2", two.clone());
    let first = Place { name: "be-1", seat: one.clone(), dir: first_dir.clone(), map: map.clone(), other };
    let other = ("be-1", one.clone());
    let second = Place { name: "be-2", seat: two.clone(), dir: second_dir.clone(), map: map.clone(), other };

    let fe = Seat::new("fe-1", false);
    let be_1 = Backend::start(first.config(&authority)).await.unwrap();
    be_1.add_user("alice@example.com", PASSWORD).await.unwrap();
    // Its own authority is another than that of the certificates here: only the secret counts.
    let (secret, _) = fe_add(&be_1, &fe, None).await.unwrap();
    let now = jiff::Timestamp::now().as_second();
    let shown = authority.issue(&["fe-1".to_owned()], Use::FrontEnd, now).unwrap();
    let [ca, certificate, key] = ["ca.pem", "fe-1.pem", "fe-1.key"].map(|name| dir.path().join(name));
    for (path, text) in [(&ca, &shown.ca), (&certificate, &shown.certificate), (&key, &shown.key)] {
        fs::write(path, text).unwrap();
    }
    let mut config = Frontend::config(&fe, ([127, 0, 0, 1], 1).into());
    config.secret = directpush_fe::config::Secret(secret.clone());
    let backend = |seat: &Seat| directpush_fe::BackendConfig {
        name: seat.name.clone(),
        url: url(seat),
        default: false,
        notify_from: vec![seat.listens.into()],
        ..config.backends[0].clone()
    };
    config.backends = vec![backend(&one), backend(&two)];
    config.backend_tls =
        directpush_fe::backend::tls::TlsFiles { ca: Some(ca), identity: Some((certificate, key)) };
    config.placement_file = Some(stale);
    config.placement = config.read_placement().unwrap();
    let front = Frontend::start(config).await.unwrap();
    let server = Server::at(front.http().unwrap());

    // Alice at the first, in step and waiting.
    let mut alice =
        TestPhone::start(server.clone(), profile("alice@example.com", "alice1", Kind::WindowsMobile));
    alice.pinging().await;
    wait_until("alice waits at the first", || be_1.subscriptions() == 1).await;
    deliver(&be_1.lmtp().unwrap(), "alice@example.com", "at the first").await;
    alice.has("at the first").await;
    alice.pinging().await;
    wait_until("alice waits at the first again", || be_1.subscriptions() == 1).await;

    // The disk is copied while it stands still; the phone waits on meanwhile.
    be_1.stop().await.unwrap();
    copy(&first_dir.join("store"), &second_dir.join("store"));
    let be_1 = Backend::start(first.config(&authority)).await.unwrap();
    let be_2 = Backend::start(second.config(&authority)).await.unwrap();
    assert!(fe_add(&be_2, &fe, Some(&secret)).await.is_none());
    wait_until("alice waits at the first once more", || be_1.subscriptions() == 1).await;
    alice.events();

    // The map of the back ends changes; the front end's does not: it is told.
    fs::write(&map, "alice@example.com be-2\nbob@example.com be-2\n* be-1\n").unwrap();
    be_2.reload().await;
    be_1.reload().await;
    wait_until("alice waits at the second", || (be_1.subscriptions(), be_2.subscriptions()) == (0, 1)).await;
    deliver(&be_2.lmtp().unwrap(), "alice@example.com", "at the second").await;
    alice.woken().await;
    let events = alice.has("at the second").await;
    let commands = events.iter().filter_map(|event| match event {
        PhoneEvent::Sent { task, .. } => Some(task.clone()),
        _ => None,
    });
    for task in commands {
        assert!(matches!(task, Task::Sync(_) | Task::Ping(_)), "the phone noticed something: {task:?}");
    }

    // Bob was never anywhere else; the front end asks the first one, which knows.
    be_2.add_user("bob@example.com", PASSWORD).await.unwrap();
    let mut bob = TestPhone::start(server, profile("bob@example.com", "bob1", Kind::Android));
    bob.pinging().await;
    wait_until("bob waits at the second", || be_2.subscriptions() >= 2).await;
    assert_eq!(be_1.subscriptions(), 0);
    deliver(&be_2.lmtp().unwrap(), "bob@example.com", "for bob").await;
    bob.woken().await;
    bob.has("for bob").await;
    alice.stop().await;
    bob.stop().await;
    front.stop().await;
    be_1.stop().await.unwrap();
    be_2.stop().await.unwrap();
}
