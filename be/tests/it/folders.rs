//! Folders as a front end makes, renames, moves and removes them for a phone (FolderCreate and its kin): by
//! permanent URL.

use directpush_common::dav::hierarchy::{self, Class, Folder, Hierarchy};
use directpush_common::names::FolderId;
use directpush_common::numbers::Number;

use crate::client::{ALICE, Answer, Be};

const BY: (&str, &str) = ("DirectPush-Device", "PocketPC/6F24");

async fn folders(be: &Be, since: u64) -> Hierarchy {
    let body = hierarchy::write_request(Number(since));
    let answer = be.fe("REPORT", &format!("/exchange/{ALICE}/"), &[], body.as_bytes()).await.expect(207);
    Hierarchy::read(&answer.body).unwrap()
}

fn permanent(id: FolderId) -> String {
    id.permanent_url(&ALICE.parse().unwrap())
}

/// The hierarchy number that an answer tells.
#[track_caller]
fn number(answer: &Answer) -> u64 {
    answer.header("directpush-hierarchy").unwrap().parse().unwrap()
}

async fn make(be: &Be, url: &str, kind: &str) -> Answer {
    be.fe("MKCOL", url, &[BY, ("DirectPush-Folder-Type", kind)], b"").await
}

/// The one folder that changed since.
async fn changed(be: &Be, since: u64) -> Folder {
    let [folder] = <[Folder; 1]>::try_from(folders(be, since).await.folders).unwrap();
    folder
}

#[tokio::test]
async fn a_front_end_makes_folders_of_every_type() {
    let be = Be::start().await;
    let born = folders(&be, 0).await;
    let inbox = born.folders.iter().find(|folder| folder.folder_type == 2).unwrap().id;
    let mut since = born.number.0;
    for (kind, class) in [
        ("1", Class::Email),
        ("12", Class::Email),
        ("13", Class::Calendar),
        ("14", Class::Contacts),
        ("15", Class::Tasks),
        ("16", Class::Notes),
        ("17", Class::Notes),
    ] {
        let made = make(&be, &format!("{}t%20{kind}/", permanent(inbox)), kind).await.expect(201);
        let folder = changed(&be, since).await;
        assert_eq!((folder.folder_type.to_string().as_str(), folder.class), (kind, class));
        assert_eq!((folder.name, folder.parent), (format!("t {kind}"), Some(inbox)));
        assert_eq!(made.header("content-location"), Some(permanent(folder.id).as_str()));
        since = folder.changed.0;
        assert_eq!(number(&made), since);
    }
    make(&be, &format!("/exchange/{ALICE}/Top"), "14").await.expect(201);
    let top = changed(&be, since).await;
    assert_eq!((top.parent, top.class), (None, Class::Contacts));
    for kind in ["2", "11", "18", "x", ""] {
        make(&be, &format!("/exchange/{ALICE}/No"), kind).await.expect(400);
    }
    // A person's folder is for what its parent is for, whatever they say.
    let url = format!("/exchange/{ALICE}/Calendar/Work/");
    be.alice("MKCOL", &url, &[("DirectPush-Folder-Type", "14")], b"").await.expect(201);
    let made = folders(&be, 0).await.folders.into_iter().find(|folder| folder.name == "Work").unwrap();
    assert_eq!((made.folder_type, made.class), (13, Class::Calendar));
}

#[tokio::test]
async fn a_name_that_is_taken_and_a_parent_that_is_gone_are_told_apart() {
    let be = Be::start().await;
    let top = format!("/exchange/{ALICE}/");
    make(&be, &format!("{top}INBOX"), "12").await.expect(405);
    let made = make(&be, &format!("{top}a"), "12").await.expect(201);
    let a = made.header("content-location").unwrap().to_owned();
    be.alice("PUT", &format!("{top}a/x"), &[], b"file").await.expect(201);
    make(&be, &format!("{a}X/"), "12").await.expect(405);
    be.fe("DELETE", &a, &[BY], b"").await.expect(204);
    make(&be, &format!("{a}b/"), "12").await.expect(409);
}

#[tokio::test]
async fn a_front_end_renames_moves_and_removes_folders_by_permanent_url() {
    let be = Be::start().await;
    let born = folders(&be, 0).await;
    let by_type = |kind: u8| born.folders.iter().find(|folder| folder.folder_type == kind).unwrap().id;
    let (inbox, trash) = (by_type(2), by_type(4));
    let mut urls = Vec::new();
    for name in ["one", "two"] {
        let made = make(&be, &format!("{}{name}", permanent(inbox)), "12").await.expect(201);
        urls.push(made.header("content-location").unwrap().to_owned());
    }
    let (one, two) = (urls[0].as_str(), urls[1].as_str());
    be.fe("PUT", &format!("{one}m.eml"), &[BY], b"Subject: x\r\n\r\n").await.expect(201);
    let to = async |to: String| {
        let headers = [BY, ("Destination", to.as_str()), ("Overwrite", "F")];
        be.fe("MOVE", one, &headers, b"").await
    };
    let since = folders(&be, 0).await.number.0;
    to(format!("{}TWO", permanent(inbox))).await.expect(412);
    to(format!("{one}deeper")).await.expect(403);
    let nowhere = FolderId { counter: 999, ..inbox };
    to(format!("{}x", permanent(nowhere))).await.expect(409);
    assert_eq!(folders(&be, 0).await.number.0, since);

    // Renamed, by case alone too; moved into another folder; to the top.
    for (place, name, parent) in [
        (permanent(inbox), "One", Some(inbox)),
        (permanent(inbox), "uno", Some(inbox)),
        (permanent(trash), "uno", Some(trash)),
        (format!("/exchange/{ALICE}/"), "Grüße", None),
    ] {
        let before = folders(&be, 0).await.number.0;
        let encoded = directpush_common::names::encode_segment(name);
        let moved = to(format!("{place}{encoded}")).await.expect(201);
        let folder = changed(&be, before).await;
        assert_eq!((permanent(folder.id).as_str(), folder.name.as_str(), folder.parent), (one, name, parent));
        assert_eq!(number(&moved), folder.changed.0);
    }
    be.fe("GET", &format!("{one}m.eml"), &[], b"").await.expect(200);

    let before = folders(&be, 0).await.number.0;
    let removed = be.fe("DELETE", two, &[BY], b"").await.expect(204);
    let after = folders(&be, before).await;
    assert_eq!(number(&removed), after.number.0);
    assert_eq!(after.removed.iter().map(|id| permanent(*id)).collect::<Vec<_>>(), [two]);
    be.fe("DELETE", two, &[BY], b"").await.expect(404);
    be.fe("DELETE", &permanent(inbox), &[BY], b"").await.expect(403);
    let top = format!("/exchange/{ALICE}/x");
    be.fe("MOVE", &permanent(inbox), &[("Destination", &top), ("Overwrite", "F")], b"").await.expect(403);
}
