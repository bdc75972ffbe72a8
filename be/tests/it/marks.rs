//! What a phone keeps with an item, and a phone that replaces an item's bytes.

use directpush_common::change::{EntryKind, Live};
use directpush_common::dav::hierarchy::{self, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::mail::marks::MARKS_BYTES_MAX;
use directpush_common::names::{FolderId, ItemId};
use directpush_common::numbers::Number;

use crate::client::{ALICE, Answer, Be};

const BY: [(&str, &str); 2] = [("DirectPush-Device", "PocketPC/6F24"), ("DirectPush-Cause", "sync")];
const MARKS: &str = r#"{"categories":["<Red> & 'blue'"],"verb":1}"#;

async fn folder(be: &Be, kind: u8) -> FolderId {
    let body = hierarchy::write_request(Number(0));
    let answer = be.fe("REPORT", &format!("/exchange/{ALICE}/"), &[], body.as_bytes()).await.expect(207);
    let folders = Hierarchy::read(&answer.body).unwrap().folders;
    folders.into_iter().find(|folder| folder.folder_type == kind).unwrap().id
}

/// The one item of a folder.
async fn item(be: &Be, folder: FolderId) -> (ItemId, Number, Live) {
    let url = folder.permanent_url(&ALICE.parse().unwrap());
    let body = ItemsRequest::Walk { before: None, limit: 100 }.write();
    let answer = be.fe("REPORT", &url, &[], body.as_bytes()).await.expect(207);
    let entries = Items::read(&answer.body).unwrap().entries;
    assert_eq!(entries.len(), 1);
    let EntryKind::Live(live) = &entries[0].kind else { panic!() };
    (entries[0].id, entries[0].changed, live.clone())
}

fn url(folder: FolderId, id: ItemId) -> String {
    folder.item_url(&ALICE.parse().unwrap(), id)
}

fn update(inside: &str) -> String {
    format!(
        "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:m=\"urn:schemas:httpmail:\" xmlns:dp=\"urn:directpush:\">\
         {inside}</D:propertyupdate>"
    )
}

fn set(marks: &str) -> String {
    let marks = directpush_common::dav::xml::escape(marks);
    update(&format!("<D:set><D:prop><dp:marks>{marks}</dp:marks></D:prop></D:set>"))
}

async fn patch(be: &Be, url: &str, body: &str) -> Answer {
    be.fe("PROPPATCH", url, &BY, body.as_bytes()).await
}

#[tokio::test]
async fn marks_are_set_with_the_read_flag_in_one_change_and_travel() {
    let mut be = Be::start().await;
    let inbox = folder(&be, 2).await;
    be.deliver("x").await;
    let (id, added, _) = item(&be, inbox).await;
    let path = url(inbox, id);
    let both = set(MARKS).replace("<dp:marks>", "<m:read>1</m:read><dp:marks>");
    let told = patch(&be, &path, &both).await.expect(207);
    assert!(told.text().contains("200 OK") && !told.text().contains("403 Forbidden"), "{}", told.text());
    let (_, changed, live) = item(&be, inbox).await;
    assert_eq!((live.marks.as_str(), live.read), (MARKS, true));
    assert_eq!((changed.0, live.before, live.content), (added.0 + 1, added, id.0), "one change");
    assert_eq!(live.maker.device.unwrap().to_string(), "PocketPC/6F24");
    // Once more changes nothing.
    let again = patch(&be, &path, &both).await.expect(207);
    assert_eq!(again.header("etag"), told.header("etag"));
    let ask =
        b"<D:propfind xmlns:D=\"DAV:\"><D:prop><marks xmlns=\"urn:directpush:\"/></D:prop></D:propfind>";
    let told = be.fe("PROPFIND", &path, &[("Depth", "0")], ask).await.expect(207).text();
    assert!(told.contains("<dp:marks>{&quot;categories&quot;"), "{told}");

    // They survive a restart, a copy, and a move into another folder.
    be.restart().await;
    let trash = FolderId { counter: 4, ..inbox };
    let to = trash.permanent_url(&ALICE.parse().unwrap());
    be.fe("COPY", &path, &[("Destination", &to)], b"").await.expect(201);
    let (copy, _, live) = item(&be, trash).await;
    assert_eq!(live.marks, MARKS);
    be.fe("DELETE", &url(trash, copy), &[], b"").await.expect(204);
    be.fe("MOVE", &path, &[("Destination", &to)], b"").await.expect(201);
    let (id, _, live) = item(&be, trash).await;
    assert_eq!((live.marks.as_str(), live.content), (MARKS, id.0));

    let path = url(trash, id);
    let remove = update("<D:remove><D:prop><dp:marks/></D:prop></D:remove>");
    patch(&be, &path, &remove).await.expect(207);
    assert_eq!(item(&be, trash).await.2.marks, "");
}

#[tokio::test]
async fn what_is_no_marks_is_refused_and_so_is_whoever_is_no_front_end() {
    let be = Be::start().await;
    let inbox = folder(&be, 2).await;
    be.deliver("x").await;
    let path = url(inbox, item(&be, inbox).await.0);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MARKS_BYTES_MAX));
    for bad in ["x", "[]", "{\"a\":1", "{\"a\":\n1}", &large] {
        let told = patch(&be, &path, &set(bad)).await.expect(207).text();
        assert!(told.contains("403 Forbidden"), "{bad}: {told}");
    }
    let told = be.alice("PROPPATCH", &path, &[], set(MARKS).as_bytes()).await.expect(207).text();
    assert!(told.contains("403 Forbidden"), "{told}");
    assert_eq!(item(&be, inbox).await.2.marks, "");
}

/// A draft that a phone goes on writing is the same item, with a younger content.
#[tokio::test]
async fn an_item_that_is_replaced_keeps_its_id_and_says_since_when() {
    let be = Be::start().await;
    let drafts = folder(&be, 3).await;
    let name = format!("/exchange/{ALICE}/Drafts/d.eml");
    be.fe("PUT", &name, &BY, b"Subject: 1\r\n\r\n").await.expect(201);
    let (id, added, live) = item(&be, drafts).await;
    assert_eq!((id.0, live.content), (added, added));
    let path = url(drafts, id);
    patch(&be, &path, &set(MARKS)).await.expect(207);
    for body in [&b"Subject: 22\r\n\r\n"[..], b"Subject: 333\r\n\r\n"] {
        let put = be.fe("PUT", &path, &BY, body).await.expect(204);
        let (now, changed, live) = item(&be, drafts).await;
        assert_eq!((now, live.content, live.size), (id, changed, body.len() as u64));
        assert_eq!(live.marks, MARKS);
        assert!(put.header("etag").unwrap().ends_with(&format!("-{changed}\"")));
    }
    let (_, content, _) = item(&be, drafts).await;
    // What a phone wrote is read.
    patch(&be, &path, &update("<D:set><D:prop><m:read>0</m:read></D:prop></D:set>")).await.expect(207);
    let (_, changed, live) = item(&be, drafts).await;
    assert!(live.content == content && changed > content, "a flag is no new content");
    // By its name too, and by a person.
    be.alice("PUT", &name, &[], b"Subject: 4\r\n\r\n").await.expect(204);
    let (now, changed, live) = item(&be, drafts).await;
    assert_eq!((now, live.content), (id, changed));
}
