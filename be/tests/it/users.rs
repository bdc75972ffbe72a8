//! Users by command line, with and without a running server; the access log; the configuration.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::client::{ALICE, Be};

/// "bench-password", hashed cheaply.
const FROM_ELSEWHERE: &str =
    "$argon2id$v=19$m=8,t=1,p=1$YmVuY2htYXJrIG9ubHkuLg$fMgNf1uPDiibgCCCHnRDTTmhZOPlf0IMlS3AVyg+r3w\n";

pub(crate) fn tool(config: &Path, arguments: &[&str], password: Option<&str>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_directpush-be"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(password.unwrap_or_default().as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
pub(crate) fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn users_are_kept_without_a_server() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\nlmtp_listen = []\n", dir.path().join("state")))
        .unwrap();
    ok(&tool(&config, &["user", "add", "Bob@example.com"], Some("secret\n")));
    let twice = tool(&config, &["user", "add", "bob@example.com"], Some("secret\n"));
    assert_eq!(twice.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("exists already"));
    ok(&tool(&config, &["user", "set", "bob@example.com", "--push", "off"], None));
    assert_eq!(ok(&tool(&config, &["user", "list"], None)), "bob@example.com  (push off)\n");
    ok(&tool(&config, &["user", "remove", "bob@example.com", "--yes"], None));
    assert_eq!(ok(&tool(&config, &["user", "list", "--json"], None)), "[]\n");
    let unknown = tool(&config, &["user", "passwd", "bob@example.com"], Some("x\n"));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such user"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_kept_while_the_server_runs() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("admin.sock");
    let be = Be::start_with(|config| config.admin_socket = Some(socket.clone())).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\nadmin_socket = {socket:?}\n", be.dir.path())).unwrap();
    let run = |arguments: &'static [&'static str], password| {
        let config = config.clone();
        tokio::task::spawn_blocking(move || tool(&config, arguments, password))
    };
    ok(&run(&["user", "add", "bob@example.com"], Some("secret\n")).await.unwrap());
    be.log_on_as("bob@example.com", "secret").await.expect(200);
    // A new password ends old log-ons at once, here and for DAV clients.
    ok(&run(&["user", "passwd", ALICE], Some("another\n")).await.unwrap());
    be.fe("GET", &format!("/exchange/{ALICE}/"), &[], b"").await.expect(401);
    be.log_on_as(ALICE, crate::client::PASSWORD).await.expect(401);
    be.log_on_as(ALICE, "another").await.expect(200);
    // A hash from another server comes as it is; a password given for one is refused.
    ok(&run(&["user", "passwd", ALICE, "--hashed"], Some(FROM_ELSEWHERE)).await.unwrap());
    be.log_on_as(ALICE, "bench-password").await.expect(200);
    let refused = run(&["user", "passwd", ALICE, "--hashed"], Some("bench-password\n")).await.unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not a hash of argon2"));
    ok(&run(&["user", "remove", "bob@example.com", "--yes"], None).await.unwrap());
    be.log_on_as("bob@example.com", "secret").await.expect(401);
    let said = be.lmtp(&crate::client::mail("bob@example.com", "x")).await;
    assert!(said.contains("550 5.1.1"), "{said}");
}

#[test]
fn configuration_mistakes_are_told_at_once_with_exit_code_2() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, "http_listen = \"0.0.0.0:80\"\nport = 1\n").unwrap();
    for arguments in [&["--check-config"][..], &[]] {
        let refused = tool(&config, arguments, None);
        assert_eq!(refused.status.code(), Some(2));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains(":1: http_listen is reached") && told.contains(":2: port is not"), "{told}");
    }
    std::fs::write(&config, "").unwrap();
    ok(&tool(&config, &["--check-config"], None));
    let template = ok(&tool(&config, &["--print-config"], None));
    assert!(template.contains("# state_dir = "));
}

#[tokio::test]
async fn the_access_log_has_one_line_per_request() {
    let logs = tempfile::TempDir::new().unwrap();
    let path = logs.path().join("access.log");
    let mut be =
        Be::start_with(|config| config.access_log = directpush_be::config::AccessLog::File(path.clone()))
            .await;
    be.fe("GET", &format!("/exchange/{ALICE}/Inbox/"), &[("User-Agent", "fe 1.0")], b"").await;
    be.fe("UNSUBSCRIBE", &format!("/exchange/{ALICE}/"), &[("Subscription-id", "9")], b"").await.expect(207);
    be.stop.cancel();
    be.running.take().unwrap().finished().await.unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines[1].contains(" fe+1.0 200 "), "{log}");
    assert!(lines[2].contains(&format!(" UNSUBSCRIBE /exchange/{ALICE}/ - ")), "{log}");
    assert!(!log.contains(crate::client::PASSWORD) && !log.contains(crate::client::SECRET));
}

#[test]
fn quotas_are_set_part_by_part_and_shown() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\n[quota]\nitems = 77\n", dir.path().join("state")))
        .unwrap();
    let run = |arguments: &str| tool(&config, &arguments.split(' ').collect::<Vec<_>>(), Some("secret\n"));
    ok(&run("user add bob@example.com"));
    ok(&run("user set bob@example.com --quota-bytes 1000000 --quota-folders 0 --push off"));
    ok(&run("user set bob@example.com --quota-folders default --quota-depth 4"));
    let told: serde_json::Value =
        serde_json::from_str(&ok(&run("user quota bob@example.com --json"))).unwrap();
    assert_eq!(told["bytes"], serde_json::json!({ "used": 0, "limit": 1_000_000, "own": true }));
    assert_eq!(told["items"], serde_json::json!({ "used": 0, "limit": 77, "own": false }));
    assert_eq!((&told["folders"]["own"], &told["depth"]["limit"]), (&false.into(), &4.into()));
    let shown = ok(&run("user quota bob@example.com"));
    assert!(shown.contains("bytes: 0 of 1000000 (own)\nitems: 0 of 77\n"), "{shown}");
    for refused in ["--quota-depth 33", "--quota-bytes 5G"] {
        let order = format!("user set bob@example.com {refused}");
        let done = tool(&config, &order.split(' ').collect::<Vec<_>>(), None);
        assert!(!done.status.success(), "{refused}");
    }
    assert!(ok(&run("user list")).contains("push off"));
}
