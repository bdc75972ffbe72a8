//! WebDAV as clients use it: any resource in a folder, conditions, ranges, copies and moves, dead
//! properties, locks, quotas. `litmus` asks more, in `cargo xtask interop`.

use directpush_be::mailbox::quota::QuotaEdit;
use directpush_common::dav::hierarchy::{self, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::dav::subscribe::Since;
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;

use crate::client::{ALICE, Answer, Be};

const MAIL: &[u8] = b"Subject: x\r\n\r\nHello\r\n";

fn url(path: &str) -> String {
    format!("/exchange/{ALICE}/{path}")
}

async fn folder(be: &Be, kind: u8) -> FolderId {
    let body = hierarchy::write_request(Number(0));
    let answer = be.fe("REPORT", &url(""), &[], body.as_bytes()).await.expect(207);
    let folders = Hierarchy::read(&answer.body).unwrap().folders;
    folders.into_iter().find(|folder| folder.folder_type == kind).unwrap().id
}

/// What a phone's Sync would be told of a folder.
async fn items(be: &Be, folder: FolderId) -> usize {
    let url = folder.permanent_url(&ALICE.parse().unwrap());
    let body = ItemsRequest::Changes { since: None, limit: 100 }.write();
    let answer = be.fe("REPORT", &url, &[], body.as_bytes()).await.expect(207);
    Items::read(&answer.body).unwrap().entries.len()
}

async fn put(be: &Be, path: &str, body: &[u8]) -> Answer {
    be.alice("PUT", &url(path), &[], body).await
}

async fn get(be: &Be, path: &str) -> Answer {
    be.alice("GET", &url(path), &[], b"").await
}

#[tokio::test]
async fn a_folder_holds_anything_but_a_phone_hears_of_its_items_only() {
    let be = Be::start().await;
    let inbox = folder(&be, 2).await;
    be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200);
    put(&be, "Inbox/notes.txt", b"just text").await.expect(201);
    put(&be, "Inbox/noeml.eml", b"no header here").await.expect(201);
    let got = get(&be, "Inbox/NOTES.txt").await.expect(200);
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(got.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    assert_eq!(items(&be, inbox).await, 0);
    let found = be.alice("PROPFIND", &url("Inbox/"), &[("Depth", "1")], b"").await.expect(207).text();
    assert!(found.contains("notes.txt") && found.contains("<D:visiblecount>2<"), "{found}");

    // It becomes a message, which wakes; then it is none again.
    put(&be, "Inbox/noeml.eml", MAIL).await.expect(204);
    assert_eq!(be.notify().await.ids.len(), 1);
    assert_eq!(items(&be, inbox).await, 1);
    put(&be, "Inbox/noeml.eml", b"gone").await.expect(204);
    assert_eq!(items(&be, inbox).await, 0);
    assert_eq!(get(&be, "Inbox/noeml.eml").await.expect(200).body, b"gone");

    // An event is an item of the calendar; moved into the Inbox it is just a file.
    let calendar = folder(&be, 8).await;
    let event = b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    put(&be, "Calendar/e.ics", event).await.expect(201);
    assert_eq!(items(&be, calendar).await, 1);
    let to = url("Inbox/e.ics");
    be.alice("MOVE", &url("Calendar/e.ics"), &[("Destination", &to)], b"").await.expect(201);
    assert_eq!((items(&be, calendar).await, items(&be, inbox).await), (0, 0));
    be.alice("DELETE", &to, &[], b"").await.expect(204);
    get(&be, "Inbox/e.ics").await.expect(404);
}

#[tokio::test]
async fn conditions_and_ranges() {
    let be = Be::start().await;
    let path = url("Inbox/r.bin");
    let tag = be.alice("PUT", &path, &[], b"0123456789").await.expect(201);
    let tag = tag.header("etag").unwrap().to_owned();
    let ask = |name: &'static str, value: String| {
        let (be, path) = (&be, &path);
        async move { be.alice("GET", path, &[(name, &value)], b"").await }
    };
    let part = ask("Range", "bytes=2-4".into()).await.expect(206);
    assert_eq!((part.body.as_slice(), part.header("content-range")), (&b"234"[..], Some("bytes 2-4/10")));
    let parts = ask("Range", "bytes=0-0,-1".into()).await.expect(206);
    assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges"));
    assert!(parts.text().contains("Content-Range: bytes 9-9/10\r\n\r\n9\r\n--"));
    let none = ask("Range", "bytes=10-".into()).await.expect(416);
    assert_eq!(none.header("content-range"), Some("bytes */10"));
    let stale = [("Range", "bytes=0-0"), ("If-Range", "\"other\"")];
    be.alice("GET", &path, &stale, b"").await.expect(200);
    let modified = be.alice("HEAD", &path, &[], b"").await.expect(200);
    let modified = modified.header("last-modified").unwrap().to_owned();
    ask("If-Modified-Since", modified.clone()).await.expect(304);
    ask("If-None-Match", tag.clone()).await.expect(304);
    be.alice("PUT", &path, &[("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], b"")
        .await
        .expect(412);
    be.alice("PUT", &path, &[("If-Match", "\"x\"")], b"").await.expect(412);
    be.alice("PUT", &path, &[("If-Match", &tag)], b"next").await.expect(204);
    be.alice("DELETE", &path, &[("If-Match", &tag)], b"").await.expect(412);
    be.alice("DELETE", &path, &[("If", "([\"x\"])")], b"").await.expect(412);
}

#[tokio::test]
async fn copies_and_moves_of_trees() {
    let be = Be::start().await;
    for made in ["Inbox/a/", "Inbox/a/b/", "Inbox/c/"] {
        be.alice("MKCOL", &url(made), &[], b"").await.expect(201);
    }
    put(&be, "Inbox/a/b/deep.txt", b"deep").await.expect(201);
    put(&be, "Inbox/a/m.eml", MAIL).await.expect(201);
    put(&be, "Inbox/c/old.txt", b"old").await.expect(201);
    let send = async |method: &str, from: &str, to: &str, more: &[(&str, &str)]| {
        let to = url(to);
        let mut headers = vec![("Destination", to.as_str())];
        headers.extend_from_slice(more);
        be.alice(method, &url(from), &headers, b"").await
    };
    send("COPY", "Inbox/a/", "Inbox/c/", &[("Overwrite", "F")]).await.expect(412);
    send("COPY", "Inbox/a/", "Inbox/a/b/x/", &[]).await.expect(403);
    send("COPY", "Inbox/a/b/", "Inbox/a/", &[]).await.expect(403);
    send("COPY", "Inbox/a/", "Inbox/a/", &[]).await.expect(403);
    send("COPY", "Inbox/a/", "Inbox/none/x/", &[]).await.expect(409);
    send("COPY", "Inbox/a/", "Inbox/shallow/", &[("Depth", "0")]).await.expect(201);
    get(&be, "Inbox/shallow/m.eml").await.expect(404);
    send("COPY", "Inbox/a/", "Inbox/c/", &[]).await.expect(204);
    get(&be, "Inbox/c/old.txt").await.expect(404);
    assert_eq!(get(&be, "Inbox/c/b/deep.txt").await.expect(200).body, b"deep");
    assert_eq!(get(&be, "Inbox/c/m.eml").await.expect(200).body, MAIL);
    send("MOVE", "Inbox/c/", "Inbox/shallow/", &[("Overwrite", "F")]).await.expect(412);
    send("MOVE", "Inbox/c/", "Inbox/shallow/", &[]).await.expect(204);
    get(&be, "Inbox/c/").await.expect(404);
    assert_eq!(get(&be, "Inbox/shallow/B/DEEP.txt").await.expect(200).body, b"deep");
    // A member over a folder, and a rename by case.
    send("COPY", "Inbox/a/m.eml", "Inbox/a/b", &[]).await.expect(204);
    assert_eq!(get(&be, "Inbox/a/b").await.expect(200).body, MAIL);
    send("MOVE", "Inbox/a/m.eml", "Inbox/a/M.EML", &[]).await.expect(201);
    send("MOVE", "Inbox/a/M.EML", "Inbox/a/M.EML", &[]).await.expect(403);
    send("MOVE", "Inbox/", "Inbox/a/i/", &[]).await.expect(403);
    send("COPY", "Inbox/a/", "Sent%20Items/", &[]).await.expect(403);
    let elsewhere = [("Destination", "http://other.example/exchange/x/")];
    be.alice("COPY", &url("Inbox/a/"), &elsewhere, b"").await.expect(502);
    be.alice("DELETE", &url("Inbox/a/"), &[("Depth", "0")], b"").await.expect(400);
}

fn update(inside: &str) -> Vec<u8> {
    format!("<D:propertyupdate xmlns:D=\"DAV:\" xmlns:x=\"urn:x\">{inside}</D:propertyupdate>").into_bytes()
}

#[tokio::test]
async fn dead_properties_are_kept_whole_and_travel() {
    let be = Be::start().await;
    let path = url("Inbox/p.eml");
    let tag = be.alice("PUT", &path, &[], MAIL).await.expect(201);
    let set = update(
        "<D:set xml:lang=\"de\"><D:prop><x:a b=\"1\">t<x:i/>&amp;</x:a><plain>1</plain></D:prop></D:set>\
         <D:remove><D:prop><x:none/></D:prop></D:remove>",
    );
    be.alice("PROPPATCH", &path, &[], &set).await.expect(207);
    let both = update("<D:set><D:prop><x:late>1</x:late><D:getetag>\"1\"</D:getetag></D:prop></D:set>");
    let refused = be.alice("PROPPATCH", &path, &[], &both).await.expect(207).text();
    assert!(
        refused.contains("424 Failed") && refused.contains("cannot-modify-protected-property"),
        "{refused}"
    );
    let to = url("Inbox/q.eml");
    be.alice("COPY", &path, &[("Destination", &to)], b"").await.expect(201);
    let all = be.alice("PROPFIND", &to, &[("Depth", "0")], b"").await.expect(207).text();
    assert!(
        all.contains("xml:lang=\"de\"") && all.contains(">t<i/>&amp;</a>") && !all.contains("late"),
        "{all}"
    );
    let head = be.alice("HEAD", &path, &[], b"").await.expect(200);
    assert_eq!(head.header("etag"), tag.header("etag"), "no phone is told of dead properties");
    be.alice("PROPPATCH", &url("Inbox/"), &[], &set).await.expect(207);
    let large = format!("<D:set><D:prop><x:l>{}</x:l></D:prop></D:set>", "x".repeat(60_000));
    let over = be.alice("PROPPATCH", &path, &[], &update(&large)).await.expect(207).text();
    assert!(over.contains("507 "), "{over}");
}

#[tokio::test]
async fn locks_bind_dav_clients_and_nobody_else() {
    let be = Be::start().await;
    let path = url("Inbox/l.txt");
    let info = b"<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>";
    let lock = be.alice("LOCK", &path, &[("Timeout", "Second-100"), ("Depth", "0")], info).await.expect(201);
    let token = lock.header("lock-token").unwrap().to_owned();
    assert_eq!(get(&be, "Inbox/l.txt").await.expect(200).body, b"");
    let found = be.alice("PROPFIND", &path, &[("Depth", "0")], b"").await.expect(207).text();
    assert!(found.contains(token.trim_matches(['<', '>'])), "{found}");
    let locked = be.alice("PUT", &path, &[], b"x").await.expect(423).text();
    assert!(locked.contains("lock-token-submitted"));
    be.alice("DELETE", &path, &[], b"").await.expect(423);
    be.alice("LOCK", &path, &[("Depth", "0")], info).await.expect(423);
    let submitted = format!("({token})");
    be.alice("PUT", &path, &[("If", &submitted)], b"mine").await.expect(204);
    be.alice("LOCK", &path, &[("If", &submitted), ("Timeout", "Second-5")], b"").await.expect(200);
    // The folder cannot go while something in it is locked.
    be.alice("MKCOL", &url("Inbox/f/"), &[], b"").await.expect(201);
    let below = url("Inbox/f/x");
    let inner = be.alice("LOCK", &below, &[("Depth", "0")], info).await.expect(201);
    let partial = be.alice("DELETE", &url("Inbox/f/"), &[], b"").await.expect(207).text();
    assert!(partial.contains("423 Locked") && partial.contains("Inbox/f/x"), "{partial}");
    let inner = inner.header("lock-token").unwrap();
    be.alice("UNLOCK", &below, &[("Lock-Token", "<opaquelocktoken:none>")], b"").await.expect(409);
    be.alice("UNLOCK", &below, &[("Lock-Token", inner)], b"").await.expect(204);
    be.alice("DELETE", &url("Inbox/f/"), &[], b"").await.expect(204);
    // A lock of the Inbox stops neither mail nor a front end.
    let inbox = be.alice("LOCK", &url("Inbox/"), &[], info).await;
    assert_eq!(inbox.status, 207, "a lock below is in the way");
    be.alice("UNLOCK", &path, &[("Lock-Token", &token)], b"").await.expect(204);
    be.alice("LOCK", &url("Inbox/"), &[], info).await.expect(200);
    put(&be, "Inbox/new.txt", b"x").await.expect(423);
    be.deliver("through").await;
    be.fe("PUT", &url("Inbox/fe.eml"), &[], MAIL).await.expect(201);
}

const SHARED: &[u8] = b"<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>";

#[tokio::test]
async fn locks_end_with_what_they_were_on_whoever_took_it_away() {
    let be = Be::start().await;
    for made in ["Inbox/a/", "Inbox/b/"] {
        be.alice("MKCOL", &url(made), &[], b"").await.expect(201);
    }
    let path = url("Inbox/b/x");
    let lock = be.alice("LOCK", &path, &[("Depth", "0")], SHARED).await.expect(201);
    let submitted = format!("<{path}> ({})", lock.header("lock-token").unwrap());
    let to = url("Inbox/b/");
    let headers = [("Destination", to.as_str()), ("If", &submitted)];
    be.alice("COPY", &url("Inbox/a/"), &headers, b"").await.expect(204);
    put(&be, "Inbox/b/x", b"free").await.expect(201);
    be.alice("LOCK", &path, &[("Depth", "0")], SHARED).await.expect(200);
    be.fe("DELETE", &path, &[], b"").await.expect(204);
    put(&be, "Inbox/b/x", b"free").await.expect(201);
    // No more than a few share one resource, and they are told only to whom asks.
    for _ in 0..20 {
        be.alice("LOCK", &path, &[("Depth", "0")], SHARED).await.expect(200);
    }
    be.alice("LOCK", &path, &[("Depth", "0")], SHARED).await.expect(503);
    let ask = async |what: &str| {
        let body = format!("<D:propfind xmlns:D=\"DAV:\"><D:prop>{what}</D:prop></D:propfind>");
        be.alice("PROPFIND", &path, &[("Depth", "0")], body.as_bytes()).await.expect(207).text()
    };
    assert_eq!(ask("<D:getetag/><D:getetag/>").await.matches("<D:getetag>").count(), 1);
    assert_eq!(ask("<D:lockdiscovery/>").await.matches("<D:activelock>").count(), 20);
}

/// MoveItems names a folder only: what is there under the same name is another item.
#[tokio::test]
async fn a_phone_that_moves_an_item_overwrites_nothing() {
    let be = Be::start().await;
    let inbox = folder(&be, 2).await;
    let trash = FolderId { counter: 4, ..inbox };
    let to = trash.permanent_url(&ALICE.parse().unwrap());
    be.alice("MKCOL", &url("Deleted%20Items/tree.eml/"), &[], b"").await.expect(201);
    put(&be, "Deleted%20Items/tree.eml/deep.txt", b"deep").await.expect(201);
    put(&be, "Deleted%20Items/m.eml", b"Subject: old\r\n\r\n").await.expect(201);
    let by =
        [("Destination", to.as_str()), ("DirectPush-Device", "PocketPC/6F24"), ("DirectPush-Cause", "move")];
    for name in ["m.eml", "m.eml", "tree.eml"] {
        put(&be, &format!("Inbox/{name}"), MAIL).await.expect(201);
        be.fe("MOVE", &url(&format!("Inbox/{name}")), &by, b"").await.expect(201);
    }
    assert_eq!(items(&be, inbox).await, 0);
    assert_eq!(items(&be, trash).await, 4);
    assert_eq!(get(&be, "Deleted%20Items/m.eml").await.expect(200).body, b"Subject: old\r\n\r\n");
    for name in ["m%20(2).eml", "m%20(3).eml", "tree%20(2).eml"] {
        assert_eq!(get(&be, &format!("Deleted%20Items/{name}")).await.expect(200).body, MAIL, "{name}");
    }
    get(&be, "Deleted%20Items/tree.eml/deep.txt").await.expect(200);
}

#[tokio::test]
async fn mail_written_by_its_permanent_url_stays_mail() {
    let be = Be::start().await;
    be.deliver("x").await;
    let inbox = folder(&be, 2).await;
    let permanent = {
        let url = inbox.permanent_url(&ALICE.parse().unwrap());
        let body = ItemsRequest::Changes { since: None, limit: 100 }.write();
        let answer = be.fe("REPORT", &url, &[], body.as_bytes()).await.expect(207);
        inbox.item_url(&ALICE.parse().unwrap(), Items::read(&answer.body).unwrap().entries[0].id)
    };
    be.alice("PUT", &permanent, &[("If-Match", "\"x\"")], MAIL).await.expect(412);
    be.alice("PUT", &permanent, &[], MAIL).await.expect(204);
    assert_eq!(items(&be, inbox).await, 1);
    // The condition is on what is named, tagged or not.
    let stale = format!("<{permanent}> ([\"x\"])");
    be.alice("PUT", &permanent, &[("If", &stale)], MAIL).await.expect(412);
}

#[tokio::test]
async fn search_as_clients_of_the_time_sent_it() {
    let be = Be::start().await;
    for (name, body) in [("b.eml", MAIL), ("a.eml", MAIL), ("file.txt", b"x")] {
        put(&be, &format!("Inbox/{name}"), body).await.expect(201);
    }
    be.alice("MKCOL", &url("Inbox/sub/"), &[], b"").await.expect(201);
    put(&be, "Inbox/sub/deep.eml", MAIL).await.expect(201);
    let search = async |traversal: &str, rest: &str, headers: &[(&str, &str)]| {
        let scope = url("Inbox/");
        let body = format!(
            "<?xml version=\"1.0\"?><D:searchrequest xmlns:D=\"DAV:\"><D:sql>SELECT \"DAV:displayname\", \
             \"urn:schemas:httpmail:read\" FROM SCOPE('{traversal} TRAVERSAL OF \"{scope}\"') {rest}</D:sql></D:searchrequest>"
        );
        be.alice("SEARCH", &url(""), headers, body.as_bytes()).await
    };
    let names = |answer: &Answer| -> Vec<String> {
        let text = answer.text();
        let parts = text.split("<D:displayname>").skip(1);
        parts.map(|part| part.split('<').next().unwrap().to_owned()).collect()
    };
    let mail = r#"WHERE "DAV:isfolder" = false AND "DAV:contentclass" = 'urn:content-classes:message' ORDER BY "DAV:displayname""#;
    let found = search("SHALLOW", mail, &[]).await.expect(207);
    assert_eq!(names(&found), ["a.eml", "b.eml"], "{}", found.text());
    let deep = search("DEEP", mail, &[("Range", "rows=0-1")]).await.expect(207);
    assert_eq!(names(&deep), ["a.eml", "b.eml"]);
    assert_eq!(deep.header("content-range"), Some("rows 0-1; total=3"));
    let folders = search("DEEP", r#"WHERE "DAV:isfolder" = true"#, &[]).await.expect(207);
    assert_eq!(names(&folders), ["sub"]);
    let large = search("SHALLOW", r#"WHERE "DAV:getcontentlength" &lt; 5"#, &[]).await.expect(207);
    assert_eq!(names(&large), ["file.txt"]);
    search("SHALLOW", "WHERE (", &[]).await.expect(400);
    be.alice("SEARCH", "/exchange/bob@example.com/", &[], b"").await.expect(403);
}

#[tokio::test]
async fn a_full_mailbox_says_so_and_can_be_emptied() {
    let be = Be::start().await;
    let boxes = be.running.as_ref().unwrap().server().boxes.clone();
    let alice = ALICE.parse().unwrap();
    let quota = QuotaEdit { bytes: Some(100), folders: Some(12), ..QuotaEdit::default() };
    boxes.set_quota(&alice, quota).await.unwrap();
    put(&be, "Inbox/a.txt", &[b'a'; 90]).await.expect(201);
    let full = put(&be, "Inbox/b.txt", &[b'b'; 20]).await.expect(507).text();
    assert!(full.contains("quota-not-exceeded"), "{full}");
    put(&be, "Inbox/a.txt", &[b'a'; 101]).await.expect(507);
    let to = url("Inbox/copy.txt");
    be.alice("COPY", &url("Inbox/a.txt"), &[("Destination", &to)], b"").await.expect(507);
    be.alice("MOVE", &url("Inbox/a.txt"), &[("Destination", &to)], b"").await.expect(201);
    for (name, status) in [("one", 201), ("two", 201), ("three", 507)] {
        be.alice("MKCOL", &url(&format!("Inbox/{name}/")), &[], b"").await.expect(status);
    }
    let ask = b"<D:propfind xmlns:D=\"DAV:\"><D:prop><D:quota-used-bytes/><D:quota-available-bytes/></D:prop></D:propfind>";
    let told = be.alice("PROPFIND", &url("Inbox/"), &[("Depth", "0")], ask).await.expect(207).text();
    assert!(
        told.contains("<D:quota-used-bytes>90<") && told.contains("<D:quota-available-bytes>10<"),
        "{told}"
    );
    put(&be, "Inbox/copy.txt", b"less").await.expect(204);
    put(&be, "Inbox/b.txt", &[b'b'; 20]).await.expect(201);
    let (usage, _, own) = boxes.quota(&alice).await.unwrap();
    assert_eq!((usage.bytes, usage.items, own), (24, 2, quota));
}
