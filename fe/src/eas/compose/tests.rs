use super::*;

const ORIGINAL: &str = "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: Alice <alice@example.com>\r\n\
    Date: Mon, 2 Mar 2026 10:00:00 +0100\r\nSubject: =?iso-8859-1?q?Gr=FC=DFe?=\r\nMessage-ID: <o@example.org>\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n\
    --m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
    --r\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
    <html><head><style>p {color: red}</style><title>t</title></head><body bgcolor=3D\"white\"><p>sch=F6n \
    <img src=3D\"cid:pic@x\"></p></body></html>\r\n\
    --r\r\nContent-Type: image/png\r\nContent-ID: <pic@x>\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n\
    --r--\r\n\
    --m\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\n\
    Content-Transfer-Encoding: base64\r\nX-Inner: not taken\r\n\r\nJVBERi0x\r\n\
    --m\r\nContent-Type: message/rfc822\r\n\r\nFrom: k@example.org\r\nSubject: inner\r\n\r\ninner text\r\n\
    --m--\r\n";

fn plain(text: &str) -> String {
    format!(
        "From: alice@example.com\r\nTo: j@example.org\r\nSubject: Re: x\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Kept: yes\r\n\r\n{text}"
    )
}

fn done(mime: &str, kind: Smart) -> String {
    String::from_utf8(smart(mime.as_bytes(), ORIGINAL.as_bytes(), kind, 1 << 20).unwrap()).unwrap()
}

/// Names and types of what is attached, and the two texts.
fn seen(message: &str) -> (Vec<String>, String, String) {
    let parsed = MessageParser::default().parse(message.as_bytes()).unwrap();
    let attached = parsed.attachments().map(|part| {
        let kind = part.content_type().unwrap();
        format!("{}/{}", kind.ctype(), kind.subtype().unwrap())
    });
    let text = parsed.body_text(0).unwrap().into_owned();
    let html = parsed.html_bodies().next().and_then(|part| text_of(&part.body)).unwrap().0.to_owned();
    (attached.collect(), text, html)
}

#[test]
fn a_reply_quotes_both_ways_and_brings_the_images_only() {
    let reply = done(&plain("Danke, t\u{fc}r\r\n"), Smart::Reply);
    let (attached, text, html) = seen(&reply);
    assert_eq!(attached, ["image/png"]);
    assert!(text.starts_with("Danke, t\u{fc}r\r\n\r\n________"), "{text}");
    assert!(
        text.contains("From: J\u{fc}rgen <j@example.org>\r\nSent: Mon, 2 Mar 2026 10:00:00 +0100\r\n"),
        "{text}"
    );
    assert!(text.contains("Subject: Gr\u{fc}\u{df}e\r\n") && text.contains("sch\u{f6}n"), "{text}");
    let order = [
        "Danke, t\u{fc}r",
        "<hr>",
        "J\u{fc}rgen &lt;j@example.org&gt;",
        "<style>p",
        "sch\u{f6}n",
        "cid:pic@x",
    ];
    let places: Vec<_> = order.iter().map(|piece| html.find(piece)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} {html}");
    assert!(!html.contains("<title>"), "{html}");
    assert_eq!(reply.matches("iVBORw0KGgo=").count(), 1, "copied as it was encoded");
    let head = reply.split("\r\n\r\n").next().unwrap();
    assert!(head.contains("In-Reply-To: <o@example.org>\r\nReferences: <o@example.org>\r\n"), "{head}");
    assert!(head.contains("X-Kept: yes\r\n") && head.matches("MIME-Version").count() == 1, "{head}");
    assert_eq!(head.matches("Content-Type").count(), 1, "{head}");
}

#[test]
fn a_forward_brings_everything() {
    let (attached, text, html) = seen(&done(&plain("FYI"), Smart::Forward));
    assert_eq!(attached, ["image/png", "application/pdf", "message/rfc822"]);
    assert!(text.starts_with("FYI\r\n\r\n___") && html.contains("FYI"));
    let forward = done(&plain("FYI"), Smart::Forward);
    assert!(!forward.contains("X-Inner"), "fields that do not speak of the body stay behind");
    let parsed = MessageParser::default().parse(forward.as_bytes()).unwrap();
    let inner = parsed.attachments().last().and_then(|part| part.message().cloned()).unwrap();
    assert_eq!((inner.subject(), inner.body_text(0).unwrap().trim_end()), (Some("inner"), "inner text"));
    let pdf = parsed.attachments().nth(1).unwrap();
    assert_eq!((pdf.attachment_name(), pdf.contents()), (Some("a.pdf"), b"%PDF-1".as_slice()));
}

#[test]
fn the_devices_own_parts_stay() {
    let own = "To: j@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b b\"\n\n\
        --b b\nContent-Type: text/html; charset=utf-8\n\n<html><body>Hi <img src=\"cid:me@x\"></body></html>\n\
        --b b\nContent-Type: image/gif\nContent-ID: <me@x>\nContent-Transfer-Encoding: base64\n\nR0lG\n\
        --b b\nContent-Type: text/x-log; name=l.log\nContent-Disposition: attachment; filename=l.log\n\nline\n--b b--\n";
    let (attached, text, html) = seen(&done(own, Smart::Reply));
    assert_eq!(attached, ["image/gif", "image/png", "text/x-log"]);
    assert!(text.starts_with("Hi"), "{text}");
    let (own, quoted) = (html.find("Hi").unwrap(), html.find("sch\u{f6}n").unwrap());
    assert!(own < quoted && html.trim_end().ends_with("</body></html>"), "{html}");
}

#[test]
fn a_text_that_answers_a_text_stays_one() {
    let original = "From: b@example.org\r\nSubject: x\r\n\r\nfirst\r\nsecond\r\n";
    let reply = smart(plain("ok").as_bytes(), original.as_bytes(), Smart::Reply, 1 << 20).unwrap();
    let reply = String::from_utf8(reply).unwrap();
    assert!(!reply.contains("multipart") && !reply.contains("text/html"), "{reply}");
    assert!(!reply.contains("In-Reply-To"), "the original has no id");
    assert!(reply.ends_with("From: b@example.org\r\nSubject: x\r\n\r\nfirst\r\nsecond\r\n"), "{reply}");
}

#[test]
fn what_must_stay_whole_does() {
    for kind in ["multipart/signed; boundary=b", "application/pkcs7-mime; smime-type=enveloped-data"] {
        let own = format!("To: j@example.org\r\nContent-Type: {kind}\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n");
        let sent = done(&own, Smart::Forward);
        assert!(sent.ends_with(&own) && sent.contains("In-Reply-To"), "{sent}");
    }
    let encrypted = "From: b@x\r\nMessage-ID: <e@x>\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nMIAG\r\n";
    let forward = smart(plain("see").as_bytes(), encrypted.as_bytes(), Smart::Forward, 1 << 20).unwrap();
    let (attached, text, _) = seen(&String::from_utf8(forward).unwrap());
    assert_eq!((attached, text.trim_end()), (vec!["message/rfc822".to_owned()], "see"));
}

#[test]
fn what_becomes_too_large_is_refused() {
    let big = format!("From: b@x\r\nContent-Type: application/zip\r\n\r\n{}", "x".repeat(100_000));
    let made = |bytes_max| smart(plain("see").as_bytes(), big.as_bytes(), Smart::Forward, bytes_max);
    assert_eq!(made(100_000), Err(ComposeFault::TooLarge));
    assert!(made(110_000).is_ok());
    assert!(smart(plain("see").as_bytes(), big.as_bytes(), Smart::Reply, 10_000).is_ok());
}

#[test]
fn who_is_written_to_tells_reply_from_reply_to_all() {
    assert!(!is_to_all(plain("x").as_bytes()));
    assert!(is_to_all(b"To: a@x\r\nCc: b@x\r\n\r\n"));
}

proptest::proptest! {
    #[test]
    fn nothing_panics(own in "(?s).{0,200}", original in "(?s).{0,200}", at in 0_usize..1_600) {
        let cut = ORIGINAL.get(..at.min(ORIGINAL.len())).unwrap_or(ORIGINAL);
        for kind in [Smart::Reply, Smart::Forward] {
            let _ = smart(own.as_bytes(), original.as_bytes(), kind, 1 << 16);
            let _ = smart(plain(&own).as_bytes(), cut.as_bytes(), kind, 1 << 16);
            let _ = smart(cut.as_bytes(), plain(&original).as_bytes(), kind, 1 << 16);
        }
    }
}
