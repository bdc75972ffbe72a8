//! Finding the server, logging on, and being kept out of it: Autodiscover, `Expect`, lengths, lists, loops.

use std::time::Duration;

use data_encoding::BASE64;
use directpush_common::dav::standing::{Order, Standing};
use directpush_common::eas::Version;
use directpush_common::eas::autodiscover::AutodiscoverRequest;
use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse};
use directpush_common::wbxml::Limits;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake::{PASSWORD, USER};
use crate::world::{PHONE, Phone, World};

async fn discover(world: &World, address: &str) -> String {
    let url = format!("http://{}/Autodiscover/Autodiscover.xml", world.front.http[0]);
    let body = AutodiscoverRequest { address: address.into() }.encode();
    let request = world.client.post(url).basic_auth(USER, Some(PASSWORD)).body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/xml; charset=utf-8");
    response.text().await.unwrap()
}

#[tokio::test]
async fn autodiscover_names_the_server_to_its_own_users() {
    let world = World::with(|config| config.public_url = Some("https://mail.example.com".into())).await;
    let url = "<Url>https://mail.example.com/Microsoft-Server-ActiveSync</Url>";
    for address in [USER, "A.Smith@example.com"] {
        let found = discover(&world, address).await;
        assert!(found.contains(url) && found.contains("<DisplayName>Alice Smith</DisplayName>"), "{found}");
    }
    assert!(discover(&world, "bob@example.com").await.contains("<Status>2</Status>"));
    assert!(discover(&world, "nobody").await.contains("<ErrorCode>600</ErrorCode>"));
    let path = format!("http://{}/autodiscover/autodiscover.xml", world.front.http[0]);
    let unproved = world.client.post(&path).body("").send().await.unwrap();
    assert_eq!(unproved.status(), 401);
    let outlook =
        AutodiscoverRequest { address: USER.into() }.encode().replace("mobilesync/resp", "outlook/resp");
    let told = world.client.post(path).basic_auth(USER, Some(PASSWORD)).body(outlook).send().await.unwrap();
    assert!(told.text().await.unwrap().contains("<ErrorCode>601</ErrorCode>"));
}

#[tokio::test]
async fn autodiscover_in_json_tells_everybody_the_same() {
    let world = World::start().await;
    let base = format!("http://{}", world.front.http[0]);
    let ask = async |question: &str| {
        let url = format!("{base}/autodiscover/autodiscover.json{question}");
        let response = world.client.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let here = format!("{{\"Protocol\":\"ActiveSync\",\"Url\":\"{base}/Microsoft-Server-ActiveSync\"}}");
    assert_eq!(ask("?Email=who%40ever.example&Protocol=ActiveSync").await, (200, here));
    let (status, xml) = ask("/v1.0/a@b.example?Protocol=AutodiscoverV1").await;
    assert_eq!((status, xml.contains("/autodiscover/autodiscover.xml\"")), (200, true));
    assert_eq!(ask("?Email=a@b.example&Protocol=EWS").await.0, 400);
    assert!(world.fake.requests().is_empty());
}

#[tokio::test]
async fn every_way_to_write_a_name_and_a_password_logs_on() {
    let world = World::start().await;
    let url = world.url("");
    for login in ["alice", "alice@example.com", "EXAMPLE\\alice"] {
        let response = world
            .client
            .request(Method::OPTIONS, &url)
            .basic_auth(login, Some(PASSWORD))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{login}");
    }
    // The same password in the two encodings that devices use.
    for credential in ["alice:größe".as_bytes(), b"alice:gr\xf6\xdfe"] {
        let field = format!("Basic {}", BASE64.encode(credential));
        let request = world.client.request(Method::OPTIONS, &url).header("Authorization", field);
        assert_eq!(request.send().await.unwrap().status(), 401);
        assert_eq!(world.fake.mailbox.lock().tried.pop().unwrap(), "größe");
    }
}

/// What comes back on a connection of its own, until the server closes it or is silent.
async fn raw(world: &World, first: &str, then: &[u8]) -> String {
    let mut socket = TcpStream::connect(world.front.http[0]).await.unwrap();
    socket.write_all(first.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut space = [0; 4096];
    if !then.is_empty() {
        let count = socket.read(&mut space).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&space[..count]));
        socket.write_all(then).await.unwrap();
    }
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut space)).await {
        if count == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&space[..count]));
    }
    text
}

#[tokio::test]
async fn a_device_that_waits_for_100_continue_gets_it() {
    let world = World::start().await;
    let basic = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    let head = format!(
        "POST /Microsoft-Server-ActiveSync?Cmd=FolderSync&User={USER}&DeviceId=A&DeviceType=T HTTP/1.1\r\nHost: fe\r\n\
         Authorization: Basic {basic}\r\nMS-ASProtocolVersion: 14.1\r\nExpect: 100-continue\r\nConnection: close\r\n\
         Content-Type: application/vnd.ms-sync.wbxml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let text = raw(&world, &head, &body).await;
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
    // Who has no password is refused before the body, which never comes.
    let text = raw(&world, &head.replace(&basic, "eDp5"), b"").await;
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");
}

#[tokio::test]
async fn every_answer_says_its_length() {
    let world = World::start().await;
    let query = |command: &str| format!("Cmd={command}&User={USER}&DeviceId=A&DeviceType=T");
    let sync = FolderSyncRequest { sync_key: "0".into() }.encode();
    for (method, query, body) in [
        (Method::OPTIONS, String::new(), Vec::new()),
        (Method::POST, query("FolderSync"), sync),
        (Method::POST, query("FolderSync"), b"x".to_vec()),
        (Method::POST, query("MoveCollection"), Vec::new()),
        (Method::POST, "!!!".into(), Vec::new()),
        (Method::GET, String::new(), Vec::new()),
    ] {
        for version in ["2.5", "14.1"] {
            let request = world.request(method.clone(), &query).header("MS-ASProtocolVersion", version);
            let response = request.body(body.clone()).send().await.unwrap();
            let length = response.headers().get("content-length").map(|it| it.to_str().unwrap().to_owned());
            let length: usize = length.unwrap_or_else(|| panic!("{method} {query}")).parse().unwrap();
            assert_eq!(length, response.bytes().await.unwrap().len());
        }
    }
}

#[tokio::test]
async fn thousands_of_idle_connections_cost_the_others_nothing() {
    const IDLE: usize = 1500;
    let world = World::start().await;
    let basic = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
    let request = format!(
        "OPTIONS /Microsoft-Server-ActiveSync HTTP/1.1\r\nHost: fe\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut socket = TcpStream::connect(world.front.http[0]).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut space = [0; 2048];
        let count = socket.read(&mut space).await.unwrap();
        assert!(space[..count].starts_with(b"HTTP/1.1 200"));
        idle.push(socket);
    }
    assert_eq!(world.front.connections(), IDLE);
    let FolderSyncResponse::Changes(_) = world.folder_sync(PHONE, "0").await else { panic!() };
    // Each of them is still good.
    for socket in idle.iter_mut().step_by(100) {
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut space = [0; 2048];
        let count = socket.read(&mut space).await.unwrap();
        assert!(space[..count].starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn lists_of_the_front_end_keep_devices_out_unless_the_administrator_allows_them() {
    let world = World::with(|config| {
        config.devices.deny = vec!["agent:BadMail/*".parse().unwrap()];
        config.devices.quarantine = vec!["type:Pocket*".parse().unwrap()];
    })
    .await;
    assert!(
        matches!(world.folder_sync(PHONE, "0").await, FolderSyncResponse::Common(status) if status.code() == 129)
    );
    let old = Phone { version: Version::V12_1, ..PHONE };
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    assert_eq!(world.post(old, "FolderSync", body.clone()).await.status(), 403);
    world.fake.mailbox.lock().manners.standing.order = Order::Allowed;
    assert!(matches!(world.folder_sync(PHONE, "0").await, FolderSyncResponse::Changes(_)));
    world.fake.mailbox.lock().manners.standing = Standing::default();
    let query = format!("Cmd=FolderSync&User={USER}&DeviceId=A&DeviceType=T");
    let request = world.request(Method::POST, &query).header("MS-ASProtocolVersion", "14.1");
    let answer = request.header("User-Agent", "badmail/7").body(body).send().await.unwrap();
    let answer = FolderSyncResponse::decode(&answer.bytes().await.unwrap(), Limits::default()).unwrap();
    assert!(matches!(answer, FolderSyncResponse::Common(status) if status.code() == 129));
}

#[tokio::test]
async fn a_device_in_a_loop_is_sent_away_and_others_are_not() {
    let world = World::with(|config| config.throttle.folder_syncs = 5).await;
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    let mut away = None;
    // The minute may change in between.
    for _ in 0..12 {
        let response = world.post(PHONE, "FolderSync", body.clone()).await;
        if response.status() == 503 {
            away = Some(response.headers()["retry-after"].to_str().unwrap().to_owned());
            break;
        }
    }
    assert_eq!(away.as_deref(), Some("30"));
    let early = world.post(PHONE, "Search", Vec::new()).await;
    assert_eq!(early.status(), 503, "nothing else either");
    let other = Phone { id: "OTHER", ..PHONE };
    assert_eq!(world.post(other, "FolderSync", body).await.status(), 200);
}
