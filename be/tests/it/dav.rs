//! Folders and items over WebDAV.

use directpush_common::change::{Cause, EntryKind};
use directpush_common::dav::hierarchy::{self, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::names::{FolderId, ItemId};
use directpush_common::numbers::Number;

use crate::client::{ALICE, Be};

const MAIL: &[u8] = b"Subject: x\r\n\r\nHello\r\n";

async fn folders(be: &Be, since: u64) -> Hierarchy {
    let body = hierarchy::write_request(Number(since));
    let answer = be.fe("REPORT", &format!("/exchange/{ALICE}/"), &[], body.as_bytes()).await.expect(207);
    Hierarchy::read(&answer.body).unwrap()
}

async fn report(be: &Be, folder: FolderId, request: ItemsRequest) -> Items {
    let url = folder.permanent_url(&ALICE.parse().unwrap());
    let answer = be.fe("REPORT", &url, &[], request.write().as_bytes()).await.expect(207);
    Items::read(&answer.body).unwrap()
}

async fn inbox(be: &Be) -> FolderId {
    folders(be, 0).await.folders.iter().find(|folder| folder.folder_type == 2).unwrap().id
}

#[tokio::test]
async fn the_hierarchy_tells_of_folders_made_renamed_and_removed() {
    let be = Be::start().await;
    let born = folders(&be, 0).await;
    let counters: Vec<_> = born.folders.iter().map(|f| (f.id.counter, f.folder_type)).collect();
    assert_eq!(counters[..5], [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
    assert!(born.removed.is_empty());

    let lists = format!("/exchange/{ALICE}/Inbox/Lists/");
    be.alice("MKCOL", &lists, &[], b"").await.expect(201);
    be.alice("MKCOL", &lists.replace("Lists", "LISTS"), &[], b"").await.expect(405);
    be.alice("MKCOL", &format!("{lists}a/b/"), &[], b"").await.expect(409);
    be.alice("MKCOL", &format!("{lists}a/"), &[], b"<x/>").await.expect(415);
    let made = folders(&be, born.number.0).await;
    assert_eq!(made.folders.len(), 1);
    assert_eq!((made.folders[0].name.as_str(), made.folders[0].folder_type), ("Lists", 12));
    assert_eq!(made.folders[0].parent, Some(inbox(&be).await));
    assert!(made.number > born.number);

    let renamed = format!("/exchange/{ALICE}/News%20%26%20more/");
    be.alice("MOVE", &lists, &[("Destination", &renamed)], b"").await.expect(201);
    let moved = folders(&be, made.number.0).await;
    assert_eq!(moved.folders[0].id, made.folders[0].id);
    assert_eq!((moved.folders[0].parent, moved.folders[0].url.as_str()), (None, renamed.as_str()));

    be.alice("DELETE", &renamed, &[], b"").await.expect(204);
    let gone = folders(&be, moved.number.0).await;
    assert_eq!(gone.removed, [made.folders[0].id]);
    be.alice("DELETE", &format!("/exchange/{ALICE}/Inbox/"), &[], b"").await.expect(403);
}

#[tokio::test]
async fn an_item_is_put_read_changed_moved_and_deleted() {
    let be = Be::start().await;
    let inbox = inbox(&be).await;
    let url = format!("/exchange/{ALICE}/Inbox/note%201.eml");
    let put = be.alice("PUT", &url, &[("If-None-Match", "*")], MAIL).await.expect(201);
    let tag = put.header("etag").unwrap().to_owned();
    be.alice("PUT", &url, &[("If-None-Match", "*")], MAIL).await.expect(412);
    let got = be.alice("GET", &url.replace("note", "NOTE"), &[], b"").await.expect(200);
    assert_eq!(got.body, MAIL);
    assert_eq!(got.header("content-type"), Some("message/rfc822"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(got.header("etag"), Some(tag.as_str()));
    be.alice("GET", &url, &[("If-None-Match", &tag)], b"").await.expect(304);
    let head = be.alice("HEAD", &url, &[], b"").await.expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some("21"), 0));

    // The entry of the log, by permanent id.
    let all = report(&be, inbox, ItemsRequest::Changes { since: None, limit: 10 }).await;
    let entry = &all.entries[0];
    let EntryKind::Live(live) = &entry.kind else { panic!("{entry:?}") };
    assert_eq!((live.size, live.read, live.added.cause), (21, false, Cause::Dav));
    assert_eq!(entry.id.0, entry.changed);
    let permanent = inbox.item_url(&ALICE.parse().unwrap(), entry.id);
    assert_eq!(be.fe("GET", &permanent, &[], b"").await.expect(200).body, MAIL);

    // The read flag, by a device.
    let body = br#"<D:propertyupdate xmlns:D="DAV:" xmlns:m="urn:schemas:httpmail:"><D:set><D:prop><m:read>1</m:read></D:prop></D:set></D:propertyupdate>"#;
    let by = [("DirectPush-Device", "PocketPC/6F24"), ("DirectPush-Cause", "sync")];
    let patched = be.fe("PROPPATCH", &permanent, &by, body).await.expect(207);
    let read_tag = patched.header("etag").unwrap().to_owned();
    assert_ne!(read_tag, tag);
    // Once more changes nothing.
    assert_eq!(be.fe("PROPPATCH", &permanent, &by, body).await.expect(207).header("etag"), Some(&*read_tag));
    let now = report(&be, inbox, ItemsRequest::Changes { since: Some(all.token), limit: 10 }).await;
    let EntryKind::Live(live) = &now.entries[0].kind else { panic!() };
    assert!(live.read);
    assert_eq!((now.entries[0].id, live.before), (entry.id, entry.changed));
    assert_eq!(live.maker.device.as_ref().unwrap().to_string(), "PocketPC/6F24");
    be.alice("PUT", &url, &[("If-Match", &tag)], b"other").await.expect(412);

    // Into another folder by its permanent URL: a new id there, a tombstone here.
    let trash = FolderId { counter: 4, ..inbox };
    let to = trash.permanent_url(&ALICE.parse().unwrap());
    let moved =
        be.fe("MOVE", &permanent, &[("Destination", &to), by[0], ("DirectPush-Cause", "move")], b"").await;
    let moved = moved.expect(201);
    let there = moved.header("location").unwrap().to_owned();
    assert!(there.starts_with(&to));
    be.fe("GET", &permanent, &[], b"").await.expect(404);
    assert_eq!(be.fe("GET", &there, &[], b"").await.expect(200).body, MAIL);
    be.alice("GET", &format!("/exchange/{ALICE}/Deleted%20Items/note%201.eml"), &[], b"").await.expect(200);
    let gone = report(&be, inbox, ItemsRequest::Changes { since: Some(now.token), limit: 10 }).await;
    let EntryKind::Gone(tombstone) = &gone.entries[0].kind else { panic!() };
    assert_eq!((gone.entries.len(), gone.entries[0].id, tombstone.maker.cause), (1, entry.id, Cause::Move));

    be.fe("DELETE", &there, &[], b"").await.expect(204);
    be.fe("DELETE", &there, &[], b"").await.expect(404);
    let left = report(&be, trash, ItemsRequest::Changes { since: None, limit: 10 }).await;
    assert!(left.entries.is_empty(), "an initial report tells of no removals");
}

#[tokio::test]
async fn reports_page_in_both_directions() {
    let be = Be::start().await;
    let inbox = inbox(&be).await;
    for n in 0..7 {
        be.alice("PUT", &format!("/exchange/{ALICE}/Inbox/{n}.eml"), &[], MAIL).await.expect(201);
    }
    let mut since = None;
    let mut seen = Vec::new();
    loop {
        let page = report(&be, inbox, ItemsRequest::Changes { since, limit: 3 }).await;
        seen.extend(page.entries.iter().map(|entry| entry.id));
        since = Some(page.token);
        if !page.more {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted());
    let mut walked: Vec<ItemId> = Vec::new();
    loop {
        let before = walked.last().copied();
        let page = report(&be, inbox, ItemsRequest::Walk { before, limit: 3 }).await;
        walked.extend(page.entries.iter().map(|entry| entry.id));
        assert_eq!(Some(page.token), since);
        if !page.more {
            break;
        }
    }
    walked.reverse();
    assert_eq!(walked, seen);
    let young = report(&be, inbox, ItemsRequest::Additions { after: seen[4], limit: 9 }).await;
    assert_eq!(young.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), seen[5..]);
    // A token of another generation.
    let url = inbox.permanent_url(&ALICE.parse().unwrap());
    let token = directpush_common::numbers::CollectionToken { epoch: 1, number: Number(1) };
    let body = ItemsRequest::Changes { since: Some(token), limit: 9 }.write();
    let refused = be.fe("REPORT", &url, &[], body.as_bytes()).await.expect(403);
    assert!(refused.text().contains("valid-sync-token"));
}

#[tokio::test]
async fn numbers_survive_a_restart_and_are_never_reused() {
    let mut be = Be::start().await;
    let inbox = inbox(&be).await;
    be.deliver("one").await;
    let before = report(&be, inbox, ItemsRequest::Changes { since: None, limit: 10 }).await;
    be.restart().await;
    // The act-for token is still good: the key of tokens is in the store.
    be.deliver("two").await;
    let after = report(&be, inbox, ItemsRequest::Changes { since: Some(before.token), limit: 10 }).await;
    assert_eq!(after.entries.len(), 1);
    assert!(after.entries[0].id > before.entries[0].id);
    assert_eq!(after.token.epoch, before.token.epoch);
}

#[tokio::test]
async fn propfind_resolves_permanent_urls_and_lists_members() {
    let be = Be::start().await;
    let inbox = inbox(&be).await;
    be.deliver("x").await;
    let url = inbox.permanent_url(&ALICE.parse().unwrap());
    let found = be.fe("PROPFIND", &url, &[("Depth", "0")], b"").await.expect(207).text();
    assert!(found.contains(&format!("<D:href>/exchange/{ALICE}/Inbox/</D:href>")), "{found}");
    assert!(found.contains("<m:unreadcount>1</m:unreadcount>"));
    let all = be.alice("PROPFIND", &format!("/exchange/{ALICE}/Inbox/"), &[("Depth", "1")], b"").await;
    let all = all.expect(207).text();
    let href = all.split("<D:href>").nth(2).unwrap().split('<').next().unwrap().to_owned();
    assert!(href.contains(".eml"), "{all}");
    be.alice("GET", &href, &[], b"").await.expect(200);
    let body =
        br#"<D:propfind xmlns:D="DAV:"><D:prop><D:displayname/><x xmlns="urn:x"/></D:prop></D:propfind>"#;
    let some =
        be.alice("PROPFIND", "/exchange/alice@example.com/", &[("Depth", "0")], body).await.expect(207);
    assert!(some.text().contains("404 Not Found"));
    let brief = [("Depth", "0"), ("Brief", "t")];
    let some = be.alice("PROPFIND", "/exchange/alice@example.com/", &brief, body).await.expect(207);
    assert!(!some.text().contains("404 Not Found"));
    let deep = be.alice("PROPFIND", &format!("/exchange/{ALICE}/"), &[], b"").await.expect(403);
    assert!(deep.text().contains("propfind-finite-depth"));
    let top = be.alice("PROPFIND", "/exchange/", &[("Depth", "1")], b"").await.expect(207).text();
    assert!(top.contains("/exchange/alice@example.com/"));
    let found = be.alice("GET", &format!("/exchange/{ALICE}/Inbox"), &[], b"").await.expect(302);
    assert_eq!(found.header("location"), Some("/exchange/alice@example.com/Inbox/"));
}
