//! What is not let in, and what is too much.

use data_encoding::BASE64;

use crate::client::{ALICE, Be, SECRET, parse};

#[tokio::test]
async fn credentials_are_checked_as_the_contract_says() {
    let be = Be::start().await;
    be.running.as_ref().unwrap().add_user("bob@example.com", "x").await.unwrap();
    let inbox = format!("/exchange/{ALICE}/Inbox/");
    let none = be.send("GET", &inbox, &[], b"").await.expect(401);
    assert!(none.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic")));
    for credential in ["fe-1:wrong", "fe-2:wrong", "", "fe-1"] {
        let credential = format!("DirectPush {credential}");
        let refused = be.send("GET", &inbox, &[("Authorization", &credential)], b"").await.expect(401);
        assert_eq!(refused.header("directpush-reason"), Some("front-end"));
    }
    let fe = format!("DirectPush fe-1:{SECRET}");
    be.send("GET", &inbox, &[("Authorization", &fe)], b"").await.expect(403);
    let forged = [("Authorization", fe.as_str()), ("DirectPush-Act-For", "AQ.AQ")];
    let refused = be.send("GET", &inbox, &forged, b"").await.expect(401);
    assert_eq!(refused.header("directpush-reason"), Some("credential"));
    be.fe("GET", "/exchange/bob@example.com/Inbox/", &[], b"").await.expect(403);
    be.alice("GET", "/exchange/bob@example.com/Inbox/", &[], b"").await.expect(403);
    be.alice("GET", "/exchange/nobody@example.com/", &[], b"").await.expect(403);
    for wrong in ["alice@example.com:wrong", "nobody:correct horse", "alice@example.com", ":"] {
        let basic = format!("Basic {}", BASE64.encode(wrong.as_bytes()));
        be.send("GET", &inbox, &[("Authorization", &basic)], b"").await.expect(401);
    }
}

#[tokio::test]
async fn log_on_takes_every_form_and_refuses_the_rest() {
    let be = Be::start_with(|config| config.default_domain = Some("example.com".into())).await;
    for login in ["alice", "ALICE@example.com", "example.com\\alice", "CORP\\alice"] {
        let answer = be.log_on_as(login, crate::client::PASSWORD).await.expect(200);
        assert!(answer.text().contains("\"user\":\"alice@example.com\""), "{login}");
    }
    be.log_on_as(ALICE, "wrong").await.expect(401);
    be.log_on_as("nobody", "wrong").await.expect(401);
    let edit = directpush_be::mailbox::users::Edit { disabled: Some(true), ..Default::default() };
    let boxes = &be.running.as_ref().unwrap().server().boxes;
    boxes.edit_user(&ALICE.parse().unwrap(), edit).await.unwrap();
    assert!(
        be.log_on_as(ALICE, crate::client::PASSWORD).await.expect(403).text().contains("\"disabled\":true")
    );
    be.log_on_as(ALICE, "wrong").await.expect(401);
}

#[tokio::test]
async fn too_much_is_told_and_the_connection_closed() {
    let be = Be::start_with(|config| config.limits.request_secs = 1).await;
    let long = format!("GET / HTTP/1.1\r\nHost: be\r\nX: {}\r\n\r\n", "x".repeat(17 * 1024));
    assert_eq!(be.raw(long.as_bytes()).await.status, 431);
    let fe = format!("DirectPush fe-1:{SECRET}");
    let huge = format!(
        "PUT /exchange/{ALICE}/Inbox/x.eml HTTP/1.1\r\nHost: be\r\nAuthorization: {fe}\r\n\
         DirectPush-Act-For: {}\r\nContent-Length: 99999999999\r\n\r\n",
        be.token
    );
    assert_eq!(be.raw(huge.as_bytes()).await.status, 413);
    assert_eq!(be.raw(b"GET / HTTP/1.1\r\nHost:").await.status, 408);
    let trickle = huge.replace("99999999999", "10");
    assert_eq!(be.raw(trickle.as_bytes()).await.status, 408);
    let fe = [("Authorization", fe.as_str())];
    be.send("POST", "/directpush/logon", &fe, &[b'x'; 9000]).await.expect(413);
}

#[tokio::test]
async fn methods_paths_and_bodies_that_are_not_ours() {
    let be = Be::start().await;
    let inbox = format!("/exchange/{ALICE}/Inbox/");
    for (method, status) in [("PATCH", 405), ("POST", 405), ("BPROPFIND", 501), ("FROBNICATE", 501)] {
        let answer = be.alice(method, &inbox, &[], b"").await.expect(status);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("SUBSCRIBE")));
    }
    let options = be.send("OPTIONS", "/", &[], b"").await.expect(200);
    assert_eq!((options.header("dav"), options.header("ms-author-via")), (Some("1, 2, 3"), Some("DAV")));
    for path in ["/exchange/../etc/passwd", "/exchange/a/%2e%2e/b", "/exchange/a/b%2fc", "/exchange/a/%00"] {
        be.alice("GET", path, &[], b"").await.expect(400);
    }
    be.alice("GET", "/other", &[], b"").await.expect(404);
    be.alice("MKCOL", &format!("{inbox}keep/"), &[], b"").await.expect(201);
    be.alice("DELETE", &format!("{inbox}keep/#ment"), &[], b"").await.expect(400);
    be.alice("GET", &format!("{inbox}keep/"), &[], b"").await.expect(200);
    be.alice("PUT", &format!("/exchange/{ALICE}/loose.eml"), &[], b"x").await.expect(403);
    be.alice("PUT", &format!("/exchange/{ALICE}/No/loose.eml"), &[], b"x").await.expect(409);
    be.alice("PUT", &inbox, &[], b"x").await.expect(405);
    let bomb = br#"<!DOCTYPE x [<!ENTITY a "aaaa">]><D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>"#;
    be.alice("PROPFIND", &inbox, &[("Depth", "0")], bomb).await.expect(400);
    let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    be.alice("PROPFIND", &inbox, &[("Depth", "0")], deep.as_bytes()).await.expect(400);
    be.alice("PUT", &format!("{inbox}x.eml"), &[("Content-Encoding", "gzip")], b"x").await.expect(415);
    assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n").status, 200);
}
