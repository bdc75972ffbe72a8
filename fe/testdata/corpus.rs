//! The mail corpus: the messages of `mail/` beside this file, and those that are too large for a file.
//!
//! Included by the tests that render it (`fe`) and that send it through both servers (`device`).

use std::fs;
use std::path::Path;

/// All messages with their names; `folder` is where this file lies.
pub(crate) fn messages(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut messages = files(&folder.join("mail"));
    assert!(messages.len() > 40, "the corpus is not in {}", folder.display());
    messages.extend(generated().map(|(name, message)| (name.to_owned(), message)));
    messages
}

/// The messages of CPython's tests of its email package, where they are installed (Debian: libpython3.11-testsuite).
pub(crate) fn of_cpython() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new("/usr/lib/python3.11/test/test_email/data");
    let messages = files(folder).into_iter();
    messages.filter(|(name, _)| name.starts_with("msg_")).collect()
}

/// The files of a folder in the order of their names; none where there is no folder.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            Some((name, fs::read(path).ok()?))
        })
        .collect();
    files.sort();
    files
}

fn generated() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let html = |body: String| format!("Subject: html\r\nContent-Type: text/html\r\n\r\n{body}").into_bytes();
    let line = "<tr><td style=\"color:#333\">A line of <b>HTML</b> &amp; more</td><td><a href=\"https://example.com/\">x</a></td></tr>\r\n";
    let mut deep = String::new();
    for depth in 0..150 {
        deep += &format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
    }
    let mut messages = String::from("Content-Type: message/rfc822\r\n\r\n");
    messages = messages.repeat(500);
    let mut headers = String::from("Subject: headers\r\n");
    for number in 0..20_000 {
        headers += &format!("X-Header-{number}: value\r\n");
    }
    headers += &format!("References: {}\r\n\r\nbody", "<id@example.com>\r\n ".repeat(20_000));
    let to = "\"A Name\" <a.name@example.com>,\r\n ".repeat(20_000);
    let parts = "--b\r\nContent-Disposition: attachment; filename=a\r\n\r\na\r\n".repeat(2_000);
    [
        ("attachment-of-20-mb", attachment(20 << 20)),
        ("html-of-10000-lines", html(format!("<table>{}</table>", line.repeat(10_000)))),
        ("html-nested-deeply", html("<div><span>".repeat(20_000) + "deep")),
        ("html-formatted-wildly", html("<b><i><u><a><font>".repeat(2_000) + "</p>wild")),
        ("html-in-one-word", html("x".repeat(500_000))),
        ("html-of-brackets", html("<".repeat(100_000))),
        ("html-with-long-attributes", html(format!("<p style=\"{}\">a</p>", "color:red;".repeat(20_000)))),
        ("html-tables-in-tables", html("<table><tr><td>".repeat(60) + "x")),
        ("multiparts-nested-deeply", deep.into_bytes()),
        ("messages-nested-deeply", messages.into_bytes()),
        ("header-of-20000-fields", headers.into_bytes()),
        ("header-of-one-line", format!("Subject: {}\r\n\r\nx", "long ".repeat(100_000)).into_bytes()),
        ("recipients-by-the-thousand", format!("To: {to} z@example.com\r\n\r\nx").into_bytes()),
        (
            "attachments-by-the-thousand",
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n").into_bytes(),
        ),
        ("text-of-one-line", format!("Subject: line\r\n\r\n{}", "word ".repeat(200_000)).into_bytes()),
        (
            "text-quoted-deeply",
            format!("Subject: quotes\r\n\r\n{}", "> > > >\r\n".repeat(20_000)).into_bytes(),
        ),
        ("bytes-of-all-kinds", (0..=255).cycle().take(50_000).collect()),
    ]
    .into_iter()
}

/// A message with an attachment of so many bytes.
fn attachment(bytes: usize) -> Vec<u8> {
    let line = [b'A'; 76];
    let mut message = b"Subject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee the file.\r\n--b\r\n\
        Content-Type: application/octet-stream; name=large.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for _ in 0..bytes / 57 {
        message.extend_from_slice(&line);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"--b--\r\n");
    message
}
