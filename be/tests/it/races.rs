//! What happens when writes of one mailbox meet, and when a client hangs up: the turn of DAV clients' writes is held
//! back, so that each meets the other where it hurts.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use directpush_be::server::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{ALICE, Be, PASSWORD};

const INFO: &[u8] = b"<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>";

fn url(path: &str) -> String {
    format!("/exchange/{ALICE}/{path}")
}

async fn mailbox(be: &Be) -> (Arc<Server>, u64) {
    let server = be.running.as_ref().unwrap().server().clone();
    let account = server.boxes.users.account(&ALICE.parse().unwrap()).await.unwrap().unwrap();
    (server, account.mailbox)
}

/// Waits until so many writes go on or wait.
async fn until_waiting(server: &Server, mailbox: u64, count: usize) {
    for _ in 0..1000 {
        if server.locks.writes(mailbox) == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} writes wait, not {count}", server.locks.writes(mailbox));
}

/// Sends a request of alice and hangs up once it waits for its turn.
async fn abandon(be: &Be, method: &str, path: &str, headers: &str, body: &[u8]) {
    let basic = BASE64.encode(format!("{ALICE}:{PASSWORD}").as_bytes());
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: be\r\nAuthorization: Basic {basic}\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    let (server, mailbox) = mailbox(be).await;
    let before = server.locks.writes(mailbox);
    let mut stream = TcpStream::connect(be.http).await.unwrap();
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    until_waiting(&server, mailbox, before + 1).await;
}

#[tokio::test]
async fn a_lock_of_a_new_name_empties_nothing_that_was_written_while_it_waited() {
    let be = Be::start().await;
    let (server, id) = mailbox(&be).await;
    let path = url("Inbox/x.txt");
    let lock = || be.alice("LOCK", &path, &[("Depth", "0")], INFO);
    let end = async |lock: crate::client::Answer| {
        assert_eq!(be.alice("GET", &path, &[], b"").await.expect(200).body, b"kept");
        let token = lock.expect(200).header("lock-token").unwrap().to_owned();
        be.alice("UNLOCK", &path, &[("Lock-Token", &token)], b"").await.expect(204);
        be.alice("DELETE", &path, &[], b"").await.expect(204);
    };
    // By another DAV client, which has its turn first.
    let turn = server.locks.hold(id).await;
    let put = be.alice("PUT", &path, &[], b"kept");
    let locked = async {
        until_waiting(&server, id, 1).await;
        lock().await
    };
    let release = async {
        until_waiting(&server, id, 2).await;
        drop(turn);
    };
    let (put, locked, ()) = tokio::join!(put, locked, release);
    put.expect(201);
    end(locked).await;
    // By a front end, which waits for nobody.
    let turn = server.locks.hold(id).await;
    let put = async {
        until_waiting(&server, id, 1).await;
        be.fe("PUT", &path, &[("Content-Type", "text/plain")], b"kept").await.expect(201);
        drop(turn);
    };
    let (locked, ()) = tokio::join!(lock(), put);
    end(locked).await;
}

#[tokio::test]
async fn a_write_that_waited_is_made_to_what_is_there_then() {
    let be = Be::start().await;
    let (server, id) = mailbox(&be).await;
    be.alice("MKCOL", &url("a/"), &[], b"").await.expect(201);
    be.alice("PUT", &url("a/x"), &[], b"kept").await.expect(201);
    let turn = server.locks.hold(id).await;
    let to = url("b/");
    let to = [("Destination", to.as_str())];
    let (source, inside) = (url("a/"), url("a/x"));
    let moved = be.alice("MOVE", &source, &to, b"");
    let removed = async {
        until_waiting(&server, id, 1).await;
        be.alice("DELETE", &source, &[], b"").await
    };
    let put = async {
        until_waiting(&server, id, 2).await;
        be.alice("PUT", &inside, &[], b"lost").await
    };
    let release = async {
        until_waiting(&server, id, 3).await;
        drop(turn);
    };
    let (moved, removed, put, ()) = tokio::join!(moved, removed, put, release);
    moved.expect(201);
    removed.expect(404);
    put.expect(409);
    assert_eq!(be.alice("GET", &url("b/x"), &[], b"").await.expect(200).body, b"kept");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_no_write_half_way() {
    let be = Be::start().await;
    let (server, id) = mailbox(&be).await;
    let (path, copy) = (url("Inbox/x.txt"), url("Inbox/y.txt"));
    let lock = be.alice("LOCK", &path, &[("Depth", "0")], INFO).await.expect(201);
    let token = lock.header("lock-token").unwrap().to_owned();
    let turn = server.locks.hold(id).await;
    abandon(&be, "COPY", &path, &format!("Destination: {copy}\r\n"), b"").await;
    abandon(&be, "DELETE", &path, &format!("If: ({token})\r\n"), b"").await;
    // They still wait, though nobody waits for them; and they still go one after the other.
    tokio::task::yield_now().await;
    assert_eq!(server.locks.writes(id), 2);
    drop(turn);
    until_waiting(&server, id, 0).await;
    be.alice("GET", &copy, &[], b"").await.expect(200);
    be.alice("GET", &path, &[], b"").await.expect(404);
    // What was locked is gone, and its lock with it.
    be.alice("PUT", &path, &[], b"free").await.expect(201);
}

#[tokio::test]
async fn waiting_writes_are_bounded() {
    let be = Be::start().await;
    let (server, id) = mailbox(&be).await;
    let turn = server.locks.hold(id).await;
    for n in 0..64 {
        abandon(&be, "MKCOL", &url(&format!("f{n}/")), "", b"").await;
    }
    let busy = be.alice("MKCOL", &url("more/"), &[], b"").await.expect(503);
    assert!(busy.header("retry-after").is_some());
    be.deliver("mail comes in all the same").await;
    drop(turn);
    until_waiting(&server, id, 0).await;
    be.alice("PROPFIND", &url("f63/"), &[("Depth", "0")], b"").await.expect(207);
}
