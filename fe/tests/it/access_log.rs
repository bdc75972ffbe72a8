//! The access log: one line per request, in the article's fields, without secrets.

use directpush_common::eas::ping::PingResponse;

use crate::fake::PASSWORD;
use crate::world::{MAIL, PHONE, World, changed, decode_ping};

#[tokio::test]
async fn each_request_is_a_line_that_names_device_and_command_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fe.log");
    let world = World::with(|config| config.access_log = Some(path.clone())).await;
    world.prepare(PHONE, 1).await;
    assert_eq!(world.ping(PHONE, Some(1), &[1]).await, PingResponse::Expired);
    let waiting = world.park(PHONE, 600, &[1]).await;
    world.fake.deliver(1, MAIL).await;
    assert_eq!(decode_ping(waiting.await.unwrap()).await, changed(&[1]));
    world.shutdown.cancel();
    world.front.stopped().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let fields = text.lines().find_map(|line| line.strip_prefix("#Fields: ")).unwrap();
    let fields = fields.split(' ').count();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.iter().all(|line| line.split(' ').count() == fields), "{text}");
    let key = format!("User=alice@example.com&DeviceId={}&DeviceType=PocketPC&Cmd=Ping&Log=V141_", PHONE.id);
    let pings: Vec<_> = lines.iter().filter(|line| line.contains(&key)).collect();
    assert!(pings[0].contains("Hb1_Fc1_St1 ") && pings[0].contains(" 200 0 0 "), "{text}");
    assert!(pings[1].contains("Hb600_Fc1_St2 ") && pings[1].contains(" 127.0.0.1 "), "{text}");
    for secret in [PASSWORD, "YWxpY2", "Lunch", "noon"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
