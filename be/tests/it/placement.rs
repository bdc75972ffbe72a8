//! Mailboxes at several back ends, front ends by certificate, and what `fe add` makes.

use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use directpush_be::admin::front_ends::{FrontEndAnswer, FrontEndOrder};
use directpush_be::admin::{self, Answer as Told, Order};
use directpush_be::auth::authority::{Authority, Issued, Use};
use directpush_be::config::place::{BackEnd, PlacementSettings, TlsSettings, TokenKey};
use directpush_be::http::tls::TlsFiles;
use directpush_common::dav::subscribe::Since;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{ALICE, Answer, Be, PASSWORD, SECRET, parse};
use crate::users::{ok, tool};

const FE: &str = "DirectPush fe-1:a secret of sixteen characters or more";

/// A back end whose map (in `map`) says who is at the one at `other`.
async fn beside(other: &Be, map: &Path, key: Option<TokenKey>) -> Be {
    let back_ends = vec![BackEnd { name: "be-2".into(), url: format!("http://{}", other.http) }];
    let settings = PlacementSettings { map: map.into(), back_end: "be-1".into(), back_ends };
    Be::start_with(|config| {
        config.placement = Some(settings);
        config.token_key = key;
    })
    .await
}

async fn reload(be: &Be) {
    be.running.as_ref().unwrap().reloader().reload().await;
}

#[track_caller]
fn leads_to(answer: &Answer, other: &Be, path: &str) {
    assert_eq!(answer.status, 307, "{}", answer.text());
    assert_eq!(answer.header("Location"), Some(&*format!("http://{}{path}", other.http)));
}

fn basic(login: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{login}:{password}").as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_elsewhere_is_sent_there_and_nowhere_else() {
    assert!(FE.ends_with(SECRET));
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("placement");
    std::fs::write(&map, "* be-1\ncarol@example.com be-2\n@example.org be-2\n").unwrap();
    let other = Be::start().await;
    let be = beside(&other, &map, None).await;
    for login in ["carol@example.com", "CAROL@example.com", "anybody@example.org"] {
        leads_to(&be.log_on_as(login, "x").await, &other, "/directpush/logon");
    }
    assert_eq!(be.log_on_as("nobody@example.com", "x").await.status, 401);
    assert_eq!(be.log_on_as(ALICE, PASSWORD).await.status, 200);
    for (method, path) in [
        ("GET", "/exchange/carol@example.com/NON_IPM_SUBTREE/Microsoft-Server-ActiveSync/T/I/AutdState.xml"),
        ("PROPFIND", "/exchange/carol@example.com/Inbox/"),
        ("SUBSCRIBE", "/exchange/carol@example.com/Inbox/?query"),
        ("PUT", "/exchange/carol@example.com/%23%23DavMailSubmissionURI%23%23/"),
    ] {
        // Whatever token it has: it is the other one's to judge.
        for token in [be.token.as_str(), "forged"] {
            let headers = [("Authorization", FE), ("DirectPush-Act-For", token)];
            leads_to(&be.send(method, path, &headers, b"").await, &other, path);
        }
    }
    // A person is sent to where the password can be checked, if the mailbox is the own one.
    let (own, path) = (basic("carol@example.com", "x"), "/exchange/carol@example.com/Inbox/");
    leads_to(&be.send("PROPFIND", path, &[("Authorization", &own)], b"").await, &other, path);
    let alice = basic(ALICE, PASSWORD);
    for (credential, status) in [(Some(&*alice), 403), (Some("DirectPush fe-1:wrong"), 401), (None, 401)] {
        let headers: Vec<_> = credential.iter().map(|it| ("Authorization", *it)).collect();
        assert_eq!(be.send("PROPFIND", path, &headers, b"").await.status, status, "{credential:?}");
    }
    // The target is what was asked for, never a host of the asker's choice.
    let strange = be.send("GET", "//evil.example/exchange/carol@example.com/", &[("Authorization", FE)], b"");
    assert_eq!(strange.await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_is_read_again_moves_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("placement");
    std::fs::write(&map, "* be-1\n").unwrap();
    let other = Be::start().await;
    let be = beside(&other, &map, None).await;
    let made = be.subscribe("Inbox", &be.question(1, Since::Nothing, 1)).await.expect(200);
    let id = made.header("Subscription-id").unwrap().to_owned();
    std::fs::write(&map, "* be-9\n").unwrap();
    reload(&be).await;
    assert_eq!(be.log_on_as(ALICE, PASSWORD).await.status, 200, "a bad map changes nothing");
    std::fs::write(&map, "alice@example.com be-2\n* be-1\n").unwrap();
    reload(&be).await;
    be.notify().await;
    let path = "/exchange/alice@example.com/";
    let ask = [("Subscription-id", id.as_str()), ("DirectPush-Only-If-Changed", "t")];
    leads_to(&be.fe("UNSUBSCRIBE", path, &ask, b"").await, &other, path);
    assert_eq!(be.running.as_ref().unwrap().server().notifier.counters().0, 0, "nothing is left here");
    let replies = be.lmtp(&crate::client::mail(ALICE, "too late")).await;
    assert!(replies.contains("\r\n451 "), "the MTA is to try again, elsewhere: {replies}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_key_makes_tokens_good_at_the_other_back_end() {
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("placement");
    std::fs::write(&map, "* be-1\n").unwrap();
    let key = || Some(TokenKey(b"a key of more than thirty-two characters".to_vec()));
    let plain = Be::start().await;
    let other = Be::start_with(|config| config.token_key = key()).await;
    let be = beside(&other, &map, key()).await;
    let hash = |password: &'static str| {
        let (be, other) = (be.running.as_ref().unwrap(), other.running.as_ref().unwrap());
        let (be, other) = (be.administered(), other.administered());
        async move {
            let Told::Hash(hash) = admin::execute(&be, Order::Hash { name: ALICE.into() }).await else {
                panic!("no hash")
            };
            let password = if password.is_empty() { hash } else { password.to_owned() };
            let order = Order::Password { name: ALICE.into(), hashed: password.starts_with('$'), password };
            assert!(matches!(admin::execute(&other, order).await, Told::Done));
        }
    };
    let status = async |at: &Be| {
        let headers = [("Authorization", FE), ("DirectPush-Act-For", be.token.as_str()), ("Depth", "0")];
        at.send("PROPFIND", "/exchange/alice@example.com/", &headers, b"").await.status
    };
    assert_eq!(status(&other).await, 401, "another hash: it may be another password");
    hash("").await;
    assert_eq!((status(&be).await, status(&other).await, status(&plain).await), (207, 207, 401));
    hash("another").await;
    assert_eq!(status(&other).await, 401);
}

/// What a TLS client says and hears.
struct Client(Arc<ClientConfig>);

impl Client {
    fn new(ca: &str, own: Option<&Issued>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// None where there is no TLS.
    async fn propfind(&self, be: &Be, authorization: &str) -> Option<u16> {
        let https = be.running.as_ref().unwrap().https.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(https).await.unwrap();
        let mut stream = TlsConnector::from(self.0.clone()).connect(name, stream).await.ok()?;
        let head = format!(
            "PROPFIND /exchange/ HTTP/1.1\r\nHost: be\r\nDepth: 0\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(parse(&answer).status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_shows_the_certificate_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let authority = Authority::open(dir.path(), now).unwrap();
    let [certificate, key] = ["server.pem", "server.key"].map(|file| dir.path().join(file));
    let install = |issued: &Issued| {
        std::fs::write(&certificate, &issued.certificate).unwrap();
        std::fs::write(&key, &issued.key).unwrap();
    };
    let server = authority.issue(&["127.0.0.1".into()], Use::BackEnd, now).unwrap();
    install(&server);
    let client_ca = Some(dir.path().join("tls/ca.pem"));
    let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca };
    let be = {
        let settings = TlsSettings { listen: "127.0.0.1:0".parse().unwrap(), files };
        // Alice's log-on in the helper would go by plain HTTP, where no front end can show anything.
        Be::start_unasked(|config| config.tls = Some(settings)).await
    };
    let issue = |name: &str| authority.issue(&[name.to_owned()], Use::FrontEnd, now).unwrap();
    let client = |own: Option<&Issued>| Client::new(&server.ca, own);
    assert_eq!(client(Some(&issue("fe-1"))).propfind(&be, FE).await, Some(207));
    assert_eq!(client(Some(&issue("fe-2"))).propfind(&be, FE).await, Some(401), "another's certificate");
    assert_eq!(client(None).propfind(&be, FE).await, Some(401), "no certificate");
    assert_eq!(be.send("PROPFIND", "/exchange/", &[("Authorization", FE)], b"").await.status, 401, "no TLS");
    assert_eq!(client(None).propfind(&be, &basic(ALICE, PASSWORD)).await, Some(207), "a person needs none");
    let strangers = Authority::open(&dir.path().join("strangers"), now).unwrap();
    let forged = strangers.issue(&["fe-1".into()], Use::FrontEnd, now).unwrap();
    assert_eq!(client(Some(&forged)).propfind(&be, FE).await, None, "of another authority");
    // Read again: what cannot be used changes nothing.
    std::fs::write(&key, "no key").unwrap();
    reload(&be).await;
    assert_eq!(client(Some(&issue("fe-1"))).propfind(&be, FE).await, Some(207));
    install(&strangers.issue(&["127.0.0.1".into()], Use::BackEnd, now).unwrap());
    reload(&be).await;
    assert_eq!(client(Some(&issue("fe-1"))).propfind(&be, FE).await, None, "our client trusts the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn front_ends_are_added_while_the_server_runs() {
    let be = Be::start().await;
    let on = be.running.as_ref().unwrap().administered();
    let order = async |order| admin::execute(&on, Order::FrontEnd(order)).await;
    let add = |name: &str, host: &str, secret: Option<&str>| FrontEndOrder::Add {
        name: name.into(),
        call_back_host: host.into(),
        call_back_ports: vec![2883],
        secret: secret.map(Into::into),
    };
    let status = async |secret: &str| {
        let authorization = format!("DirectPush fe-2:{secret}");
        be.send("PROPFIND", "/exchange/", &[("Authorization", &authorization), ("Depth", "0")], b"")
            .await
            .status
    };
    let Told::FrontEnd(FrontEndAnswer::Credential { secret: Some(secret), certificate: Some(_), .. }) =
        order(add("fe-2", "127.0.0.1", None)).await
    else {
        panic!("not added")
    };
    assert_eq!(status(&secret).await, 207);
    let Told::FrontEnd(FrontEndAnswer::Credential { secret: Some(newer), .. }) =
        order(FrontEndOrder::Renew { name: "fe-2".into(), secret: true }).await
    else {
        panic!("not renewed")
    };
    assert_eq!((status(&secret).await, status(&newer).await), (401, 207));
    for refused in [
        add("fe-2", "127.0.0.1", None),
        add("fe-1", "127.0.0.1", None),
        add("../fe", "127.0.0.1", None),
        add("fe 3", "127.0.0.1", None),
        add("fe-3", "a b", None),
        add("fe-3", "127.0.0.1", Some("short")),
        FrontEndOrder::Remove { name: "fe-1".into() },
        FrontEndOrder::Renew { name: "fe-1".into(), secret: true },
        FrontEndOrder::Certify { hosts: vec!["no name".into()], install: false },
    ] {
        let shown = format!("{refused:?}");
        assert!(matches!(order(refused).await, Told::Refused(_)), "{shown}");
    }
    order(FrontEndOrder::Remove { name: "fe-2".into() }).await;
    assert_eq!(status(&newer).await, 401);
}

#[test]
fn fe_and_tls_on_the_command_line() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\nlmtp_listen = []\n", dir.path().join("state")))
        .unwrap();
    let out = dir.path().join("out");
    let out_text = out.to_str().unwrap();
    let add = ["fe", "add", "fe-1", "--address", "fe-1.example.com", "--out", out_text];
    let told = ok(&tool(&config, &add, None));
    assert!(told.contains("name = \"fe-1\"\nsecret_file = \"/etc/directpush/fe-1.secret\""), "{told}");
    for file in ["fe-1.secret", "fe-1.pem", "fe-1.key", "ca.pem"] {
        let meta = std::fs::metadata(out.join(file)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o600, "{file}");
    }
    assert!(!tool(&config, &add, None).status.success(), "nothing is overwritten");
    let listed = ok(&tool(&config, &["fe", "list"], None));
    assert!(listed.starts_with("fe-1\tfe-1.example.com\t2883\tadded\t20"), "{listed}");
    // At a second back end: the same secret.
    let second = dir.path().join("second.toml");
    std::fs::write(&second, format!("state_dir = {:?}\nlmtp_listen = []\n", dir.path().join("second")))
        .unwrap();
    let secret = out.join("fe-1.secret");
    ok(&tool(&second, &["fe", "add", "fe-1", "--secret-file", secret.to_str().unwrap()], None));
    assert_eq!(ok(&tool(&second, &["fe", "list"], None)), "fe-1\t127.0.0.1\t2883\tadded\t-\n");
    let json = ok(&tool(&config, &["fe", "renew", "fe-1", "--json"], None));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["secret"].is_null() && json["certificate"]["key"].as_str().unwrap().contains("PRIVATE KEY"));
    // What init prints is what be.toml needs.
    let init = ok(&tool(&config, &["tls", "init", "127.0.0.1", "be.example.com"], None));
    let lines = init.split_once("\n\n").unwrap().1;
    let text = format!("state_dir = {:?}\nlmtp_listen = []\n{lines}", dir.path().join("state"));
    std::fs::write(&config, text).unwrap();
    assert!(ok(&tool(&config, &["--check-config"], None)).contains("no mistakes"));
    ok(&tool(&config, &["fe", "remove", "fe-1"], None));
    assert_eq!(ok(&tool(&config, &["fe", "list", "--json"], None)), "[]\n");
}
