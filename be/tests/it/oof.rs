//! People who are away: the object that front ends write, the command line, and a reply from end to end.

use std::time::Duration;

use crate::client::{ALICE, Be, PASSWORD};
use crate::submission::messages;
use crate::users::{ok, tool};

const BOB: &str = "bob@example.com";

fn url() -> String {
    format!("/exchange/{ALICE}/NON_IPM_SUBTREE/Settings/Oof")
}

#[tokio::test]
async fn a_front_end_writes_it_and_its_user_reads_it() {
    let be = Be::start().await;
    let first = be.fe("GET", &url(), &[], b"").await.expect(200);
    let json: serde_json::Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(json["state"], "off");
    let tag = first.header("etag").unwrap().to_owned();
    let away = br#"{"state":"on","internal":{"enabled":true,"text":"Away.","type":"text"}}"#;
    let written = be.fe("PUT", &url(), &[("If-Match", &tag)], away).await.expect(204);
    assert_ne!(written.header("etag"), Some(tag.as_str()));
    be.fe("PUT", &url(), &[("If-Match", &tag)], away).await.expect(412);
    let known = be.fe("GET", &url(), &[("If-None-Match", written.header("etag").unwrap())], b"").await;
    known.expect(304);
    let read = be.alice("GET", &url(), &[], b"").await.expect(200);
    assert!(read.text().contains("Away."));
    be.alice("PUT", &url(), &[], away).await.expect(403);
    for bad in ["", "{}", r#"{"state":"scheduled","start":5,"end":4}"#, r#"{"state":"on","x":1}"#] {
        be.fe("PUT", &url(), &[], bad.as_bytes()).await.expect(400);
    }
    be.fe("PUT", &url(), &[], &vec![b' '; 61 * 1024]).await.expect(413);
    be.fe("DELETE", &url(), &[], b"").await.expect(405);
    let other = url().replace(ALICE, BOB);
    be.fe("GET", &other, &[], b"").await.expect(403);
}

#[tokio::test]
async fn a_neighbour_who_writes_is_answered_once() {
    let be = Be::start_with(|config| config.default_domain = Some("example.com".into())).await;
    be.running.as_ref().unwrap().add_user(BOB, "x").await.unwrap();
    let away = br#"{"state":"on","internal":{"enabled":true,"text":"Back on Monday.","type":"text"}}"#;
    be.fe("PUT", &url(), &[], away).await.expect(204);
    let letter = |subject: &str, more: &str| {
        format!(
            "LHLO mta\r\nMAIL FROM:<{BOB}>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\nFrom: {BOB}\r\nTo: {ALICE}\r\n{more}\
             Message-ID: <{subject}@x>\r\nSubject: {subject}\r\n\r\nHello.\r\n.\r\nQUIT\r\n"
        )
    };
    be.lmtp(letter("listed", "List-Id: <l.x>\r\n").as_bytes()).await;
    be.lmtp(letter("spam", "X-Spam-Flag: YES\r\n").as_bytes()).await;
    be.lmtp(letter("Lunch", "").as_bytes()).await;
    be.lmtp(letter("Again", "").as_bytes()).await;
    let mut got = Vec::new();
    for _ in 0..1000 {
        got = messages(&be, BOB, "x", "Inbox").await;
        if !got.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The answers are in order, so whatever would have been said of "Again" is said before this one.
    let text = &got[0];
    assert!(text.starts_with("Return-Path: <>\r\n"), "{text}");
    for line in [
        &format!("From: <{ALICE}>\r\n"),
        "Subject: Auto: Lunch\r\n",
        "In-Reply-To: <Lunch@x>\r\n",
        "Auto-Submitted: auto-replied",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(messages(&be, ALICE, PASSWORD, "Inbox").await.len(), 3);
    let off = br#"{"state":"off"}"#;
    be.fe("PUT", &url(), &[], off).await.expect(204);
    assert_eq!(messages(&be, BOB, "x", "Inbox").await.len(), 1);
}

#[test]
fn an_administrator_sets_shows_and_clears_it() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\n", dir.path().join("state"))).unwrap();
    let run = |arguments: &str, input| tool(&config, &arguments.split(' ').collect::<Vec<_>>(), Some(input));
    ok(&run("user add bob@example.com", "secret\n"));
    let set =
        "user oof set bob@example.com --text - --external known --start 2026-12-24 --end 2027-01-07T08:00";
    ok(&run(set, "Back in January.\n"));
    let shown = ok(&run("user oof show bob@example.com --json", ""));
    let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["state"], "scheduled");
    let enabled = ["internal", "external-known", "external-unknown"].map(|who| json[who]["enabled"].clone());
    assert_eq!(enabled, [true, true, false]);
    let shown = ok(&run("user oof show bob@example.com", ""));
    assert!(shown.contains("from 2026-12-24") && shown.contains("Back in January."), "{shown}");
    ok(&run("user oof clear bob@example.com", ""));
    assert!(ok(&run("user oof show bob@example.com", "")).starts_with("off\n"));
    for refused in [
        "user oof set bob@example.com --text - --start 2027-01-07 --end 2026-12-24",
        "user oof set bob@example.com --text - --end soon",
        "user oof show nobody@example.com",
    ] {
        assert!(!run(refused, "x").status.success(), "{refused}");
    }
}
