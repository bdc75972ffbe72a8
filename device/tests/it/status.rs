//! What a Ping is refused or ended with, by real servers: Microsoft's own cases (by their requirement ids) and the
//! edges of the life of a Ping.

use std::time::Duration;

use directpush_be::admin::{Answer, Order};
use directpush_common::{
    clock::Moment,
    eas::{
        CONTENT_TYPE,
        folder_sync::FolderType,
        header,
        ping::{PingFolder, PingRequest, PingResponse},
    },
    push::heartbeat::HeartbeatLimits,
    wbxml::{HEADER, Limits},
};
use directpush_device::{
    core::{Kind, Request, Response, Task},
    drive::basic,
    http::{Connection, Server},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::stage::{PASSWORD, PATIENCE, Stage, TestPhone, profile, wait_until};

const USER: &str = "alice@example.com";
/// A request as a phone writes it; `%` stands for the device's id.
const PING: &str =
    "/Microsoft-Server-ActiveSync?User=alice@example.com&DeviceId=%&DeviceType=SmartPhone&Cmd=Ping";

/// Sends one request on a connection of its own.
async fn send(
    server: &Server,
    authorization: &str,
    target: &str,
    version: Option<&str>,
    body: Vec<u8>,
) -> Response {
    let mut headers = Vec::new();
    headers.extend(version.map(|version| (header::PROTOCOL_VERSION, version.to_owned())));
    if !body.is_empty() {
        headers.push(("Content-Type", CONTENT_TYPE.to_owned()));
    }
    let request = Request {
        task: Task::Ping(0),
        method: "POST",
        target: target.to_owned(),
        headers,
        body,
        give_up: Moment::NEVER,
    };
    let mut connection = Connection::open(server, None).await.unwrap();
    connection.send(server, authorization, &request).await.unwrap();
    let answer = timeout(PATIENCE, connection.receive()).await.expect("an answer in time");
    answer.unwrap().0
}

/// Sends a Ping's body and reads the answer.
async fn ping(server: &Server, device: &str, body: Vec<u8>) -> PingResponse {
    let target = PING.replace('%', device);
    let response = send(server, &basic(USER, PASSWORD), &target, Some("14.1"), body).await;
    assert_eq!(response.status, 200);
    PingResponse::decode(&response.body, Limits::default()).unwrap()
}

/// A Ping that is on its way.
fn waiting(server: &Server, device: &str, body: Vec<u8>) -> JoinHandle<Response> {
    let (server, target) = (server.clone(), PING.replace('%', device));
    tokio::spawn(async move { send(&server, &basic(USER, PASSWORD), &target, Some("14.1"), body).await })
}

fn full(secs: i64, folders: &[&str]) -> Vec<u8> {
    let folders = folders.iter().map(|id| PingFolder { id: (*id).to_owned(), class: "Email".to_owned() });
    PingRequest { heartbeat: Some(secs), folders: Some(folders.collect()) }.encode()
}

/// A device that has synced its Inbox and Sent Items and does nothing more; and the ids of the two.
async fn synced(stage: &Stage, device: &str) -> [String; 2] {
    let mut profile = profile(USER, device, Kind::Fixed(480));
    profile.watch = vec![FolderType::Inbox, FolderType::Sent];
    let mut phone = TestPhone::start_gated(stage.server(), profile, false);
    phone.in_step().await;
    let phone = phone.stop().await;
    [FolderType::Inbox, FolderType::Sent].map(|kind| phone.mailbox().folder_of(kind).unwrap().0.to_owned())
}

/// R4240, R4241, R5836, R335, R4243, R6699, R4249, R5837, R4252, R4258; statuses 3, 4, 5, 6 and 7.
#[tokio::test(flavor = "multi_thread")]
async fn microsofts_cases_are_answered_as_they_should() {
    let stage = Stage::with(|_, front| {
        front.max_folders = 2;
        front.heartbeat = HeartbeatLimits::new(1, 2700).unwrap();
    })
    .await;
    let server = stage.server();
    assert_eq!(ping(&server, "stranger", full(60, &["x"])).await, PingResponse::FolderSyncRequired, "R4258");
    let [inbox, sent] = synced(&stage, "raw").await;
    let (inbox, sent) = (inbox.as_str(), sent.as_str());
    assert_eq!(ping(&server, "raw", Vec::new()).await, PingResponse::MissingParameters, "nothing is cached");
    let no_folders = PingRequest { heartbeat: Some(1), folders: None }.encode();
    assert_eq!(ping(&server, "raw", no_folders).await, PingResponse::MissingParameters, "R4240");
    let folder = PingFolder { id: inbox.to_owned(), class: "Email".to_owned() };
    let no_interval = PingRequest { heartbeat: None, folders: Some(vec![folder]) }.encode();
    assert_eq!(ping(&server, "raw", no_interval.clone()).await, PingResponse::Expired, "R4241, R5836");
    assert_eq!(ping(&server, "raw", Vec::new()).await, PingResponse::Expired, "R335");

    // A device that is refused again and again is held; these are each another one.
    let empty_element = [&HEADER[..], &[0x00, 0x0D, 0x05]].concat();
    let broken =
        [empty_element, full(60, &[inbox, inbox]), b"hello".to_vec(), full(60, &[inbox])[..9].to_vec()];
    for (n, body) in broken.into_iter().enumerate() {
        assert_eq!(
            ping(&server, &format!("broken{n}"), body).await,
            PingResponse::Syntax,
            "R4243, R6699: {n}"
        );
    }
    let (long, short, wide) =
        (full(6_000_000, &[inbox]), full(-100, &[inbox]), full(60, &[inbox, sent, "x"]));
    assert_eq!(ping(&server, "long", long).await, PingResponse::HeartbeatOutOfRange(2700), "R4249");
    assert_eq!(ping(&server, "short", short).await, PingResponse::HeartbeatOutOfRange(1), "R5837");
    assert_eq!(ping(&server, "wide", wide).await, PingResponse::TooManyFolders(2), "R4252");
    assert_eq!(ping(&server, "raw", full(60, &["unknown"])).await, PingResponse::FolderSyncRequired, "R4257");
    assert_eq!(
        ping(&server, "raw", full(1, &[inbox, sent])).await,
        PingResponse::Expired,
        "and is well again"
    );
    stage.strike().await;
}

/// Two may wait; a third ends the oldest, with 503 and not with an early Status 1.
#[tokio::test(flavor = "multi_thread")]
async fn a_third_ping_ends_the_oldest() {
    let stage = Stage::new().await;
    let server = stage.server();
    let [inbox, _] = synced(&stage, "many").await;
    let first = waiting(&server, "many", full(480, &[&inbox]));
    stage.armed(1).await;
    let second = waiting(&server, "many", full(480, &[&inbox]));
    stage.armed(2).await;
    let third = waiting(&server, "many", full(480, &[&inbox]));
    let ended = timeout(PATIENCE, first).await.unwrap().unwrap();
    assert_eq!(ended.status, 503);
    assert!(ended.retry_after().is_some());
    stage.armed(2).await;
    stage.deliver("for both").await;
    for left in [second, third] {
        let response = timeout(PATIENCE, left).await.unwrap().unwrap();
        assert_eq!(
            PingResponse::decode(&response.body, Limits::default()).unwrap(),
            PingResponse::Changed(vec![inbox.clone()])
        );
    }
    stage.strike().await;
}

/// R4257: another client makes a folder: waiting devices are told at once, with Status 7.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_ends_the_wait_with_status_7() {
    let stage = Stage::new().await;
    let mut phone = stage.phone(Kind::Android);
    phone.pinging().await;
    stage.armed(1).await;
    let mut dav = tokio::net::TcpStream::connect(stage.backend.http()).await.unwrap();
    let mkcol = format!(
        "MKCOL /exchange/{USER}/Projects/ HTTP/1.1\r\nHost: be\r\nAuthorization: {}\r\nContent-Length: 0\r\n\r\n",
        basic(USER, PASSWORD)
    );
    dav.write_all(mkcol.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    dav.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    assert_eq!(phone.pinged().await.0, PingResponse::FolderSyncRequired);
    phone.pinging().await;
    stage.armed(1).await;
    assert!(phone.stop().await.counters().folder_syncs == 2, "one FolderSync, no loop");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_change_ends_the_wait_and_the_old_one_is_refused() {
    let stage = Stage::new().await;
    let server = stage.server();
    let [inbox, _] = synced(&stage, "old").await;
    let wait = waiting(&server, "old", full(480, &[&inbox]));
    stage.armed(1).await;
    let order = Order::Password { name: USER.to_owned(), password: "another one".to_owned(), hashed: false };
    assert!(matches!(stage.backend.order(order).await, Answer::Done));
    timeout(PATIENCE, wait).await.expect("ended at once").unwrap();
    let target = PING.replace('%', "old");
    let refused = send(&server, &basic(USER, PASSWORD), &target, Some("14.1"), full(60, &[&inbox])).await;
    assert_eq!(refused.status, 401);
    let taken = waiting_as(&server, "another one", &target, full(480, &[&inbox]));
    stage.armed(1).await;
    taken.abort();
    stage.strike().await;
}

fn waiting_as(server: &Server, password: &str, target: &str, body: Vec<u8>) -> JoinHandle<Response> {
    let (server, authorization, target) = (server.clone(), basic(USER, password), target.to_owned());
    tokio::spawn(async move { send(&server, &authorization, &target, Some("14.1"), body).await })
}

/// A device that hangs up is forgotten at once, at both servers.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_hangs_up_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let [inbox, sent] = synced(&stage, "gone").await;
    let wait = waiting(&stage.server(), "gone", full(480, &[&inbox, &sent]));
    stage.armed(2).await;
    wait.abort();
    stage.armed(0).await;
    let engine = &stage.frontend.server.engine;
    wait_until("the Ping is forgotten", || engine.waiting() == 0).await;
    stage.strike().await;
}

/// Status 8 comes after a short hold, so that a phone which repeats at once makes no hot loop.
#[tokio::test(flavor = "multi_thread")]
async fn a_back_end_that_is_gone_is_status_8_after_a_hold() {
    let stage = Stage::new().await;
    let server = stage.server();
    let [inbox, _] = synced(&stage, "held").await;
    stage.backend.stop().await.unwrap();
    let begun = Instant::now();
    let target = PING.replace('%', "held");
    let response = send(&server, &basic(USER, PASSWORD), &target, Some("14.1"), full(480, &[&inbox])).await;
    assert_eq!(response.status, 200);
    assert_eq!(PingResponse::decode(&response.body, Limits::default()).unwrap(), PingResponse::ServerError);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    stage.frontend.stop().await;
}

/// Push off: Ping is not offered; one that comes all the same is held to its heartbeat and answered 1.
#[tokio::test(flavor = "multi_thread")]
async fn with_push_off_a_ping_is_only_held() {
    let stage = Stage::with(|_, front| {
        front.direct_push = false;
        front.heartbeat = HeartbeatLimits::new(1, 2700).unwrap();
    })
    .await;
    let [inbox, _] = synced(&stage, "off").await;
    let wait = waiting(&stage.server(), "off", full(2, &[&inbox]));
    stage.deliver("not told").await;
    let response = timeout(PATIENCE, wait).await.unwrap().unwrap();
    assert_eq!(PingResponse::decode(&response.body, Limits::default()).unwrap(), PingResponse::Expired);
    assert_eq!(stage.backend.subscriptions(), 0);
    stage.strike().await;
}

/// Rows of the table of bad input that need no body.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so() {
    let stage = Stage::new().await;
    let server = stage.server();
    let [inbox, _] = synced(&stage, "raw").await;
    let right = basic(USER, PASSWORD);
    let case = async |authorization: &str, target: &str, version: Option<&str>| {
        send(&server, authorization, target, version, full(60, &[&inbox])).await.status
    };
    let target = PING.replace('%', "raw");
    let v = Some("12.1");
    assert_eq!(case(&basic(USER, "wrong"), &target, v).await, 401);
    assert_eq!(case(&basic("nobody@example.com", PASSWORD), &target, v).await, 401);
    assert_eq!(case(&right, &target.replace("alice@", "bob@"), v).await, 403);
    assert_eq!(case(&right, &target.replace("Cmd=Ping", "Cmd=NotExist"), v).await, 501);
    assert_eq!(case(&right, &target, None).await, 400);
    assert_eq!(case(&right, &target, Some("9.9")).await, 400);
    assert_eq!(case(&right, &target.replace("DeviceId=raw&", ""), v).await, 400);
    for device in ["..", "a%2fb", "%2e%2e%2f", "a%00b"] {
        assert_eq!(case(&right, &PING.replace('%', device), v).await, 400, "{device}");
    }
    stage.strike().await;
}
