//! What clients of Exchange's time read of mail and folders: `urn:schemas:httpmail:`, header fields, and SEARCH by them.

use data_encoding::BASE64;

use crate::client::{ALICE, Answer, Be, PASSWORD};

const ONE: &[u8] = b"From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nTo: alice@example.com\r\nCc: bob@example.com\r\n\
    Subject: Re: =?utf-8?b?R3LDvMOfZQ==?=\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nImportance: high\r\n\
    X-Mailer: <pine> & more\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\n\r\nHello\r\n--b\r\nContent-Type: image/png\r\nContent-Disposition: attachment\r\n\r\nx\r\n--b--\r\n";
const TWO: &[u8] =
    b"From: bob@example.com\r\nSubject: plain\r\nDate: Mon, 07 Nov 1994 08:49:37 GMT\r\n\r\nText\r\n";

fn url(path: &str) -> String {
    format!("/exchange/{ALICE}/{path}")
}

async fn be() -> Be {
    let be = Be::start().await;
    for (name, body) in [("one.eml", ONE), ("two.eml", TWO), ("file.txt", b"Subject: no mail\r\n\r\n")] {
        be.alice("PUT", &url(&format!("Inbox/{name}")), &[], body).await.expect(201);
    }
    be
}

async fn ask(be: &Be, path: &str, depth: &str, properties: &str) -> String {
    let body = format!(
        "<D:propfind xmlns:D=\"DAV:\" xmlns:m=\"urn:schemas:httpmail:\" xmlns:h=\"urn:schemas:mailheader:\" \
         xmlns:r=\"http://schemas.microsoft.com/repl/\"><D:prop>{properties}</D:prop></D:propfind>"
    );
    let headers = [("Depth", depth), ("Brief", "t")];
    be.alice("PROPFIND", &url(path), &headers, body.as_bytes()).await.expect(207).text()
}

#[tokio::test]
async fn a_message_tells_what_is_in_it() {
    let be = be().await;
    let names =
        "<m:subject/><m:fromname/><m:fromemail/><m:to/><m:cc/><m:date/><m:importance/><h:x-mailer/><h:none/>";
    let told = ask(&be, "Inbox/one.eml", "0", names).await;
    for expected in [
        "<subject xmlns=\"urn:schemas:httpmail:\">Re: Grüße</subject>",
        ">Jörg</fromname>",
        ">joerg@example.org</fromemail>",
        ">alice@example.com</to>",
        ">bob@example.com</cc>",
        ">1994-11-06T08:49:37Z</date>",
        ">2</importance>",
        "<x-mailer xmlns=\"urn:schemas:mailheader:\">&lt;pine&gt; &amp; more</x-mailer>",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains("<none"), "{told}");
    let all = ask(&be, "Inbox/", "1", "<D:displayname/><m:textdescription/><m:hasattachment/>").await;
    assert_eq!(all.matches("</textdescription>").count(), 2, "{all}");
    assert!(all.contains(">1</hasattachment>") && all.contains(">0</hasattachment>"), "{all}");
    // Nobody sets what the message says.
    let set = "<D:propertyupdate xmlns:D=\"DAV:\"><D:set><D:prop><subject xmlns=\"urn:schemas:httpmail:\">x</subject></D:prop></D:set></D:propertyupdate>";
    let told = be.alice("PROPPATCH", &url("Inbox/one.eml"), &[], set.as_bytes()).await.expect(207).text();
    assert!(told.contains("403 Forbidden"), "{told}");
    // Who asks for everything does not ask for every message to be read.
    let all = be.alice("PROPFIND", &url("Inbox/"), &[("Depth", "1")], b"").await.expect(207).text();
    assert!(!all.contains("subject"), "{all}");
}

#[tokio::test]
async fn folders_tell_what_clients_of_the_time_ask() {
    let be = be().await;
    be.alice("MKCOL", &url("Inbox/sub/"), &[], b"").await.expect(201);
    let names = "<D:childcount/><D:objectcount/><D:hassubs/><D:nosubs/><D:isreadonly/><D:uid/><r:repl-uid/>";
    let told = ask(&be, "Inbox/", "0", names).await;
    for expected in ["<D:childcount>4<", "<D:objectcount>3<", "<D:hassubs>1<", "<D:nosubs>0<"] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let uid = told.split("<r:repl-uid>rid:").nth(1).unwrap().split('<').next().unwrap();
    assert!(uid.len() == 44 && uid.ends_with("000000000002"), "{uid}");
    let told = ask(&be, "", "0", "<m:sendmsg/><m:inbox/>").await;
    assert!(told.contains("%23%23DavMailSubmissionURI%23%23/</m:sendmsg>"), "{told}");
}

#[tokio::test]
async fn mail_is_found_by_what_it_says() {
    let be = be().await;
    let search = async |rest: &str| {
        let scope = url("Inbox/");
        let body = format!(
            "<D:searchrequest xmlns:D=\"DAV:\"><D:sql>SELECT \"DAV:displayname\", \"urn:schemas:httpmail:subject\" \
             FROM SCOPE('SHALLOW TRAVERSAL OF \"{scope}\"') {rest}</D:sql></D:searchrequest>"
        );
        be.alice("SEARCH", &url(""), &[], body.as_bytes()).await.expect(207)
    };
    let names = |answer: &Answer| -> Vec<String> {
        let text = answer.text();
        let parts = text.split("<D:displayname>").skip(1);
        parts.map(|part| part.split('<').next().unwrap().to_owned()).collect()
    };
    let found = search(r#"WHERE "urn:schemas:httpmail:subject" LIKE '%Grüße'"#).await;
    assert_eq!(names(&found), ["one.eml"]);
    assert!(found.text().contains("Re: Grüße"), "{}", found.text());
    let found = search(r#"WHERE "urn:schemas:mailheader:from" LIKE '%bob@example.com%'"#).await;
    assert_eq!(names(&found), ["two.eml"]);
    let found = search(r#"WHERE "urn:schemas:httpmail:hasattachment" = true"#).await;
    assert_eq!(names(&found), ["one.eml"]);
    let newest = r#"WHERE "DAV:contentclass" = 'urn:content-classes:message' ORDER BY "urn:schemas:httpmail:date" DESC"#;
    assert_eq!(names(&search(newest).await), ["two.eml", "one.eml"]);
}

/// What is not understood is not taken as not said.
#[tokio::test]
async fn conditions_that_cannot_be_read_stop_a_write() {
    let be = be().await;
    let path = url("Inbox/two.eml");
    for (headers, status) in [
        (vec![("If-None-Match", "rubbish")], 412),
        (vec![("If-Match", "rubbish")], 412),
        (vec![("If-Match", "\"\u{e4}\"")], 400),
        (vec![("If", "(\u{e4})")], 400),
        (vec![("If", "([\"x\"")], 400),
        (vec![("If-Match", "\"1\""), ("If-Match", "\"2\"")], 412),
        (vec![("If", "([\"1\"])"), ("If", "([\"2\"])")], 412),
    ] {
        let answer = be.alice("PUT", &path, &headers, TWO).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    let to = url("Inbox/three.eml");
    for headers in [
        vec![("Destination", to.as_str()), ("Overwrite", "maybe")],
        vec![("Destination", to.as_str()), ("Overwrite", "F"), ("Overwrite", "T")],
        vec![("Destination", to.as_str()), ("Destination", to.as_str())],
        vec![("Destination", to.as_str()), ("Depth", "\u{e4}")],
        vec![("Destination", "/exchange/\u{e4}")],
    ] {
        be.alice("MOVE", &path, &headers, b"").await.expect(400);
    }
    be.alice("GET", &path, &[], b"").await.expect(200);
    // Two lines of a list are one list.
    let tag = be.alice("HEAD", &path, &[], b"").await.header("etag").unwrap().to_owned();
    be.alice("PUT", &path, &[("If-Match", "\"1\""), ("If-Match", &tag)], TWO).await.expect(204);
}

/// RFC 4918 9.8.4: COPY gives a collection other members, it does not take it away.
#[tokio::test]
async fn a_copy_over_a_locked_collection_leaves_its_lock_and_a_move_does_not() {
    const INFO: &[u8] = b"<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>";
    let be = be().await;
    for made in ["Inbox/a/", "Inbox/b/"] {
        be.alice("MKCOL", &url(made), &[], b"").await.expect(201);
    }
    let (from, to) = (url("Inbox/a/"), url("Inbox/b/"));
    let lock = be.alice("LOCK", &to, &[], INFO).await.expect(200);
    let submitted = format!("<{to}> ({})", lock.header("lock-token").unwrap());
    be.alice("COPY", &from, &[("Destination", &to)], b"").await.expect(423);
    let headers = [("Destination", to.as_str()), ("If", &submitted)];
    be.alice("COPY", &from, &headers, b"").await.expect(204);
    be.alice("PUT", &format!("{to}x"), &[], b"x").await.expect(423);
    be.alice("PUT", &format!("{to}x"), &[("If", &submitted)], b"x").await.expect(201);
    be.alice("MOVE", &from, &headers, b"").await.expect(204);
    be.alice("PUT", &format!("{to}x"), &[], b"x").await.expect(201);
    // Alone, a folder may be copied into itself.
    let inside = format!("{to}c/");
    be.alice("COPY", &to, &[("Destination", &inside), ("Depth", "0")], b"").await.expect(201);
    be.alice("COPY", &to, &[("Destination", &inside)], b"").await.expect(403);
}

/// A fragment is dropped by HTTP libraries, and what remains may name something quite different.
#[tokio::test]
async fn a_fragment_is_refused_in_a_request_that_came_together_with_another_too() {
    let be = be().await;
    be.alice("MKCOL", &url("Inbox/f/"), &[], b"").await.expect(201);
    let basic = BASE64.encode(format!("{ALICE}:{PASSWORD}").as_bytes());
    let request = |method: &str, path: &str, more: &str| {
        let path = url(path);
        format!("{method} {path} HTTP/1.1\r\nHost: be\r\nAuthorization: Basic {basic}\r\n{more}\r\n")
    };
    let alone = request("DELETE", "Inbox/f/#note", "Connection: close\r\n");
    be.raw(alone.as_bytes()).await.expect(400);
    let two =
        request("HEAD", "Inbox/one.eml", "") + &request("DELETE", "Inbox/f/#note", "Connection: close\r\n");
    let answers = be.raw(two.as_bytes()).await.expect(200);
    assert!(answers.text().starts_with("HTTP/1.1 400 "), "{}", answers.text());
    let two = request("HEAD", "Inbox/one.eml", "") + &request("DELETE", "Inbox/f/", "Connection: close\r\n");
    let answers = be.raw(two.as_bytes()).await.expect(200);
    assert!(answers.text().starts_with("HTTP/1.1 204 "), "{}", answers.text());
}
