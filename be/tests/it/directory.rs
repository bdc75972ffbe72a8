//! The directory of people, and what a user's settings tell.

use serde_json::{Value, json};

use crate::client::{ALICE, Be};
use crate::users::{ok, tool};

async fn ask(be: &Be, query: Value) -> Value {
    let answer = be.fe("POST", "/directpush/directory", &[], query.to_string().as_bytes()).await.expect(200);
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_found_by_those_who_may_ask() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("admin.sock");
    let be = Be::start_with(|config| config.admin_socket = Some(socket.clone())).await;
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\nadmin_socket = {socket:?}\n", be.dir.path())).unwrap();
    let run = |arguments: &'static [&'static str], password| {
        let config = config.clone();
        tokio::task::spawn_blocking(move || tool(&config, arguments, password))
    };
    ok(&run(&["user", "add", "bob@example.com"], Some("secret\n")).await.unwrap());
    ok(&run(&["user", "set", "bob@example.com", "--name", "Bob Baker"], None).await.unwrap());
    ok(&run(&["user", "alias", "add", "bob@example.com", "bread@example.com"], None).await.unwrap());
    // A name ends no log-on.
    be.log_on_as("bob@example.com", "secret").await.expect(200);
    let found = ask(&be, json!({ "query": "bak", "limit": 10 })).await;
    let bob = json!({ "name": "Bob Baker", "user": "bob@example.com",
                      "addresses": ["bob@example.com", "bread@example.com"] });
    assert_eq!(found, json!({ "entries": [bob], "total": 1 }));
    assert_eq!(ask(&be, json!({ "query": "bread@example.com", "limit": 1, "exact": true })).await, found);
    assert_eq!(ask(&be, json!({ "query": "example", "limit": 10 })).await["total"], 0);
    let user =
        be.fe("GET", &format!("/exchange/{ALICE}/NON_IPM_SUBTREE/Settings/User"), &[], b"").await.expect(200);
    let user: Value = serde_json::from_slice(&user.body).unwrap();
    assert_eq!(user, json!({ "name": "alice", "user": ALICE, "addresses": [ALICE] }));
    ok(&run(&["user", "set", "bob@example.com", "--hidden", "on"], None).await.unwrap());
    assert_eq!(ask(&be, json!({ "query": "bob", "limit": 10 })).await["total"], 0);
    let listed = ok(&run(&["user", "list"], None).await.unwrap());
    assert!(listed.contains("bob@example.com  Bob Baker  (hidden)\n"), "{listed}");
}

#[tokio::test]
async fn nobody_else_asks_and_nothing_odd_is_answered() {
    let be = Be::start().await;
    let path = "/directpush/directory";
    be.alice("POST", path, &[], br#"{"query":"a","limit":1}"#).await.expect(403);
    for body in [&b""[..], b"{}", br#"{"query":"a"}"#, br#"{"query":"a","limit":-1}"#, &[b'['; 8000]] {
        be.fe("POST", path, &[], body).await.expect(400);
    }
    be.fe("GET", path, &[], b"").await.expect(404);
    let user = format!("/exchange/{ALICE}/NON_IPM_SUBTREE/Settings/User");
    be.fe("PUT", &user, &[], b"{}").await.expect(405);
    be.alice("PUT", &user, &[], b"{}").await.expect(405);
    be.fe("GET", &format!("/exchange/{ALICE}/NON_IPM_SUBTREE/Settings/other"), &[], b"").await.expect(404);
}
