//! Device state objects: conditional, numbered, written by front ends only.

use crate::client::{ALICE, Be};

const DEVICE: &str = "/exchange/alice@example.com/NON_IPM_SUBTREE/Microsoft-Server-ActiveSync/PocketPC/6F24";

#[tokio::test]
async fn one_conditional_get_tells_whether_all_is_still_true() {
    let be = Be::start().await;
    let autd = format!("{DEVICE}/AutdState.xml");
    let none = be.fe("GET", &autd, &[], b"").await.expect(404);
    assert_eq!(none.header("directpush-device-state"), Some("0"));
    assert_eq!(none.header("directpush-hierarchy"), Some("1"));
    let put = be.fe("PUT", &autd, &[("If-None-Match", "*")], b"<AutdState/>").await.expect(201);
    let tag = put.header("etag").unwrap().to_owned();
    assert_eq!(put.header("directpush-device-state"), Some("1"));
    let refused = be.fe("PUT", &autd, &[("If-None-Match", "*")], b"x").await.expect(412);
    assert_eq!(refused.header("directpush-device-state"), Some("1"));
    let same = be.fe("GET", &autd, &[("If-None-Match", &tag)], b"").await.expect(304);
    assert_eq!(same.header("directpush-device-state"), Some("1"));
    assert!(same.header("directpush-boot").is_some_and(|boot| boot.len() == 32));

    // Another object moves the device's number, and not the first one's tag.
    be.fe("PUT", &format!("{DEVICE}/Collection-2"), &[], &vec![0xff; 65_536]).await.expect(201);
    let same = be.fe("GET", &autd, &[("If-None-Match", &tag)], b"").await.expect(304);
    assert_eq!(same.header("directpush-device-state"), Some("2"));
    let big = be.fe("GET", &format!("{DEVICE}/Collection-2"), &[], b"").await.expect(200);
    assert_eq!(big.body.len(), 65_536);
    be.fe("PUT", &format!("{DEVICE}/Collection-2"), &[], &vec![0; 65_537]).await.expect(413);
    be.alice("MKCOL", &format!("/exchange/{ALICE}/New/"), &[], b"").await.expect(201);
    let same = be.fe("GET", &autd, &[("If-None-Match", &tag)], b"").await.expect(304);
    assert_ne!(same.header("directpush-hierarchy"), Some("1"));
}

#[tokio::test]
async fn a_user_reads_and_does_not_write() {
    let be = Be::start().await;
    let autd = format!("{DEVICE}/AutdState.xml");
    be.fe("PUT", &autd, &[], b"<AutdState/>").await.expect(201);
    assert_eq!(be.alice("GET", &autd, &[], b"").await.expect(200).body, b"<AutdState/>");
    assert_eq!(be.alice("GET", &autd, &[], b"").await.header("content-type"), Some("text/xml"));
    be.alice("PUT", &autd, &[], b"forged").await.expect(403);
    be.alice("DELETE", &autd, &[], b"").await.expect(403);
    be.alice("GET", DEVICE, &[], b"").await.expect(302);
    let mut at = String::new();
    for segment in DEVICE.split('/').skip(1) {
        at = format!("{at}/{segment}");
        be.alice("PROPFIND", &format!("{at}/"), &[("Depth", "1")], b"").await.expect(207);
    }
    let top = be.alice("PROPFIND", &format!("/exchange/{ALICE}/"), &[("Depth", "1")], b"").await.text();
    assert!(!top.contains("NON_IPM_SUBTREE"));
}
