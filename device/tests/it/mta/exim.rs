//! Exim: delivers to us over LMTP, and asks us who exists.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use directpush_be::config::LmtpListen;

use super::{Site, adapted, field, free_port, said, user};

const ROUTER: &str = include_str!("../../../../deploy/mta/exim4-router.conf");
const TRANSPORT: &str = include_str!("../../../../deploy/mta/exim4-transport.conf");
const ACL: &str = include_str!("../../../../deploy/mta/exim4-acl.conf");

/// Exim wants its user to exist; where it is not installed, it gets the files of users from us, in a mount namespace.
const WITH_USERS: &str = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/group\" /etc/group && shift && \
                          exec \"$@\"";

fn program() -> String {
    env::var("DIRECTPUSH_EXIM").unwrap_or_else(|_| "/usr/sbin/exim4".to_owned())
}

/// Whether Exim succeeds on the configuration in `dir`, and what it says.
async fn exim(dir: &Path, arguments: &'static [&'static str], input: &'static str) -> (bool, String) {
    let dir = PathBuf::from(dir);
    let run = move || {
        let mut child = Command::new("timeout")
            .args(["60", "unshare", "--mount", "sh", "-c", WITH_USERS, "sh"])
            .arg(&dir)
            .args([&program(), "-C"])
            .arg(dir.join("exim.conf"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    (output.status.success(), said(&output))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Exim, and root: cargo xtask interop"]
async fn exim_delivers_and_asks_who_exists() {
    let port = free_port();
    let site = Site::new(1, |_| LmtpListen::Tcp(([127, 0, 0, 1], port).into())).await;
    let dir = site.dir.path();
    let users = [("passwd", "Debian-exim:x:64999:64999::/:/bin/false"), ("group", "Debian-exim:x:64999:")];
    for (file, line) in users {
        let there = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let more = if there.contains("Debian-exim:") { "" } else { line };
        fs::write(dir.join(file), format!("{}\n{more}\n", there.trim_end())).unwrap();
    }
    let config = format!(
        "primary_hostname = mx.example.com\nspool_directory = {dir}/spool\nlog_file_path = {dir}/spool/%slog\n\
         exim_path = {}\ndisable_ipv6\nkeep_environment =\nqualify_domain = example.com\ntls_advertise_hosts =\n\
         acl_smtp_rcpt = rcpt\n\nbegin acl\nrcpt:\n{ACL}\n  accept\n    domains = example.com\n  deny\n\n\
         begin routers\n{ROUTER}\nbegin transports\n{}\n",
        program(),
        adapted(TRANSPORT, "2424", &port.to_string()),
        dir = dir.display(),
    );
    fs::write(dir.join("exim.conf"), config).unwrap();
    let message = "From: bob@example.org\nTo: user0@example.com\nSubject: by Exim\n\nHello.\n";
    let arguments = &["-odi", "-oi", "-f", "bob@example.org", "user0@example.com"];
    let (accepted, talk) = exim(dir, arguments, message).await;
    assert!(accepted, "{talk}");
    let log = fs::read_to_string(dir.join("spool/mainlog")).unwrap_or_default();
    let messages = site.inbox(&user(0)).await;
    assert_eq!(messages.len(), 1, "{talk}{log}");
    assert_eq!(field(&messages[0], "Subject"), "by Exim");

    // A session as if from outside: who is unknown is refused there.
    let session = "EHLO mta.example\r\nMAIL FROM:<bob@example.org>\r\nRCPT TO:<user0@example.com>\r\n\
                   RCPT TO:<nobody@example.com>\r\nQUIT\r\n";
    let (_, talk) = exim(dir, &["-bhc", "192.0.2.1"], session).await;
    let is_verdict = |line: &&str| line.starts_with("250 Accepted") || line.starts_with("550 ");
    let verdicts: Vec<&str> = talk.lines().filter(is_verdict).map(|line| &line[..3]).collect();
    assert_eq!(verdicts, ["250", "550"], "{talk}");
}
