//! The table of bad input: what each is answered, and that the next request is served as ever.

use directpush_common::eas::{CONTENT_TYPE, Version};
use reqwest::Method;

use crate::world::{PHONE, Phone, World, ping_body};

#[tokio::test]
async fn broken_bodies_are_answered_by_command_and_version() {
    let world = World::start().await;
    let deep = [&b"\x03\x01\x6a\x00\x00\x0d"[..], &[0x49; 33], &[0x01; 33]].concat();
    let bodies: [&[u8]; 5] = [
        b"hello",
        b"\x03\x01\x6a\x00\x00\x0d\x45",
        &deep,
        b"\x03\x01\x6a\x00\x00\x07\x56\xff\x030\x00\x01\x01",
        b"\x03\x01\x6a\x00\x45\xc3\xff\xff\xff\x7f",
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        // A fresh device each, so that the loop guard does not slow the test.
        let phone = Phone { id: ["A", "B", "C", "D", "E"][n], ..PHONE };
        let ping = world.body(phone, "Ping", body.to_vec()).await;
        assert_eq!(&ping[..], b"\x03\x01\x6a\x00\x00\x0d\x45\x47\x034\x00\x01\x01", "body {n}");
        let sync = world.body(phone, "FolderSync", body.to_vec()).await;
        assert!(
            sync.windows(5).any(|it| it == b"\x03101\x00" || it == b"\x03102\x00"),
            "body {n}: {sync:x?}"
        );
        let old = Phone { version: Version::V12_1, ..phone };
        assert_eq!(world.post(old, "FolderSync", body.to_vec()).await.status(), 400, "body {n}");
    }
}

#[tokio::test]
async fn request_lines_that_cannot_be_served() {
    let world = World::start().await;
    for (query, version, status) in [
        ("Cmd=NotExist&User=alice&DeviceId=A&DeviceType=T", "12.1", 501),
        ("Cmd=MeetingResponse&User=alice&DeviceId=A&DeviceType=T", "12.1", 501),
        ("Cmd=MoveCollection&User=alice&DeviceId=A&DeviceType=T", "12.1", 501),
        ("Cmd=Ping&User=alice&DeviceId=A&DeviceType=T", "3.7", 400),
        ("Cmd=Ping&User=alice&DeviceType=T", "12.1", 400),
        ("Cmd=Ping&User=alice&DeviceId=%2e%2e%2fx&DeviceType=T", "12.1", 400),
        ("Cmd=Ping&User=alice&DeviceId=A&DeviceType=..", "12.1", 400),
        ("Cmd=Ping&User=alice&DeviceId=A%0d%0a&DeviceType=T", "12.1", 400),
        ("!!!", "12.1", 400),
    ] {
        let request = world.request(Method::POST, query).header("MS-ASProtocolVersion", version);
        assert_eq!(request.send().await.unwrap().status(), status, "{query}");
    }
    assert!(world.fake.requests().is_empty(), "nothing of it reaches the back end");
    let get = world.request(Method::GET, "Cmd=Ping").send().await.unwrap();
    assert_eq!(get.status(), 405);
    let elsewhere = world.client.get(format!("http://{}/owa", world.front.http[0])).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
}

#[tokio::test]
async fn sizes_and_types_have_bounds() {
    let world = World::start().await;
    let query = "Cmd=Sync&User=alice&DeviceId=A&DeviceType=T";
    let request = || world.request(Method::POST, query).header("MS-ASProtocolVersion", "12.1");
    let large = request().header("Content-Type", CONTENT_TYPE).body(vec![0; (1 << 20) + 1]);
    assert_eq!(large.send().await.unwrap().status(), 413);
    let text = request().header("Content-Type", "text/plain").body("x");
    assert_eq!(text.send().await.unwrap().status(), 400);
    let packed = request().header("Content-Encoding", "gzip").body("x");
    assert_eq!(packed.send().await.unwrap().status(), 415);
    let headers = request().header("X-Long", "x".repeat(17 * 1024));
    assert_eq!(headers.send().await.unwrap().status(), 431);
}

#[tokio::test]
async fn the_base64_query_is_the_same_request() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    // 12.1, Ping, LCID 0x0409, the id as text, no policy key, type PocketPC.
    let mut packed = vec![121, 18, 9, 4, 32];
    packed.extend(PHONE.id.as_bytes());
    packed.extend([0, 8]);
    packed.extend(b"PocketPC");
    let query = data_encoding::BASE64.encode(&packed);
    let response = world.request(Method::POST, &query).body(ping_body(Some(1), &[1])).send().await.unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(&body[..], b"\x03\x01\x6a\x00\x00\x0d\x45\x47\x031\x00\x01\x01");
}

#[tokio::test]
async fn a_back_end_that_is_down_is_503_then_status_8_and_heals() {
    let world = World::start().await;
    world.prepare(PHONE, 1).await;
    let fake = std::sync::Arc::clone(&world.fake);
    let restart = tokio::spawn(async move { fake.restart(std::time::Duration::from_secs(2)).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let ping = world.body(PHONE, "Ping", ping_body(Some(1), &[1])).await;
    assert_eq!(&ping[..], b"\x03\x01\x6a\x00\x00\x0d\x45\x47\x038\x00\x01\x01");
    restart.await.unwrap();
    let ping = world.body(PHONE, "Ping", ping_body(Some(1), &[1])).await;
    assert_eq!(&ping[..], b"\x03\x01\x6a\x00\x00\x0d\x45\x47\x031\x00\x01\x01");
}
