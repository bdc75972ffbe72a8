//! REPORT `dp:find` on a real back end.

use directpush_common::dav::find::{Field, Find, Found, Term};
use directpush_common::dav::xml;

use crate::client::{ALICE, Be};

async fn find(be: &Be, path: &str, find: &Find) -> Vec<String> {
    let answer = be.fe("REPORT", path, &[], find.write().as_bytes()).await.expect(207);
    let found = Found::read(&xml::parse(&answer.body).unwrap()).unwrap();
    assert!(!found.incomplete);
    let user = ALICE.parse().unwrap();
    let mut subjects = Vec::new();
    for (folder, entry) in found.messages {
        let message = be.fe("GET", &folder.item_url(&user, entry.id), &[], b"").await.expect(200).text();
        subjects.extend(message.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned)));
    }
    subjects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_found_in_the_folders_that_are_meant() {
    let be = Be::start().await;
    for subject in ["one", "two"] {
        be.deliver(subject).await;
    }
    let home = format!("/exchange/{ALICE}/");
    for (folder, subject) in
        [("Deleted%20Items", "one gone"), ("Sent%20Items", "one sent"), ("Drafts", "one begun")]
    {
        let message = format!("From: {ALICE}\r\nSubject: {subject}\r\n\r\nhello\r\n");
        be.fe("PUT", &format!("{home}{folder}/{}.eml", subject.replace(' ', "-")), &[], message.as_bytes())
            .await
            .expect(201);
    }
    be.fe("MKCOL", &format!("{home}Inbox/Below/"), &[], b"").await.expect(201);
    be.fe("PUT", &format!("{home}Inbox/Below/x.eml"), &[], b"Subject: one below\r\n\r\nx\r\n")
        .await
        .expect(201);
    let one = Find { terms: vec![Term::new(Field::Subject, "ONE").unwrap()], ..Find::default() };
    assert_eq!(find(&be, &home, &one).await, ["one below", "one begun", "one sent", "one"]);
    assert_eq!(find(&be, &format!("{home}Inbox/"), &one).await, ["one"]);
    let deep = Find { deep: true, ..one.clone() };
    assert_eq!(find(&be, &format!("{home}Inbox/"), &deep).await, ["one below", "one"]);
    assert_eq!(find(&be, &format!("{home}Deleted%20Items/"), &one).await, ["one gone"]);
    let unread = Find { terms: Vec::new(), read: Some(true), ..Find::default() };
    assert!(find(&be, &home, &unread).await.is_empty());
    be.fe("REPORT", &format!("{home}Inbox/x.eml"), &[], one.write().as_bytes()).await.expect(404);
    be.fe("REPORT", &home, &[], b"<f:find xmlns:f=\"urn:directpush:\"><f:term/></f:find>").await.expect(400);
}
