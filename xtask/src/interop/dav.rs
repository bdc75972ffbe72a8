//! WebDAV as litmus, cadaver, rclone and curl speak it: each against a back end of its own, in a folder of a mailbox.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::steps::{Outcome, output};

const USER: &str = "alice@example.com";
const PASSWORD: &str = "only-for-this-test";
const START_MAX: Duration = Duration::from_secs(30);
const MESSAGE: &str = "From: bob@example.org\r\nTo: alice@example.com\r\nSubject: from a WebDAV client\r\n\
                       MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nHello.\r\n";
/// litmus's suites, in its order.
const SUITES: [&str; 5] = ["basic", "copymove", "props", "locks", "http"];

/// A back end with one user; it ends with this value.
struct BackEnd {
    process: Child,
    http: SocketAddr,
    folder: TempDir,
}

impl BackEnd {
    fn start(programs: &Path) -> Result<Self> {
        let program = programs.join("directpush-be");
        let folder = TempDir::with_prefix("interop-dav-")?;
        let config = folder.path().join("be.toml");
        let http = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let at = folder.path().display();
        fs::write(
            &config,
            format!(
                "state_dir = \"{at}/state\"\nhttp_listen = \"{http}\"\nlmtp_listen = [\"unix:{at}/lmtp.sock\"]\n\
                 access_log = \"{at}/access.log\"\nlog_level = \"warn\"\n"
            ),
        )?;
        let mut add = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .args(["user", "add", USER])
            .stdin(Stdio::piped())
            .spawn()?;
        add.stdin.take().context("no standard input")?.write_all(format!("{PASSWORD}\n").as_bytes())?;
        ensure!(add.wait()?.success(), "the user could not be made");
        let process = Command::new(&program).arg("--config").arg(&config).stdin(Stdio::null()).spawn()?;
        let this = Self { process, http, folder };
        let began = SystemTime::now();
        while TcpStream::connect(http).is_err() {
            ensure!(began.elapsed()? < START_MAX, "directpush-be does not listen on {http}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// The mailbox, with a slash at the end.
    fn url(&self) -> String {
        format!("http://{}/exchange/{USER}/", self.http)
    }

    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.folder.path().join(name)).with_context(|| format!("{name} did not come"))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All five suites; each must say that it ran tests and that none failed or was left out.
pub(super) fn litmus(programs: &Path) -> Result<Outcome> {
    let back_end = BackEnd::start(programs)?;
    let litmus = Command::new("litmus")
        .args(["-k", &back_end.url(), USER, PASSWORD])
        .current_dir(back_end.path())
        .stdin(Stdio::null())
        .output()
        .context("cannot start litmus")?;
    let said = String::from_utf8_lossy(&litmus.stdout);
    println!("{said}");
    let verdicts = summaries(&said);
    let missing: Vec<&str> =
        SUITES.into_iter().filter(|suite| !verdicts.iter().any(|verdict| verdict.suite == *suite)).collect();
    ensure!(missing.is_empty(), "litmus did not finish {}", missing.join(", "));
    let text: Vec<String> = verdicts.iter().map(Verdict::text).collect();
    let text = text.join(", ");
    let bad = verdicts.iter().any(|verdict| verdict.failed > 0 || verdict.passed < verdict.run);
    let skipped = said.lines().filter(|line| line.contains("SKIPPED")).count();
    if bad || skipped > 0 {
        bail!("{text}; {skipped} skipped");
    }
    Ok(Outcome::Passed(text))
}

/// What litmus says at the end of a suite.
#[derive(Debug, Eq, PartialEq)]
struct Verdict<'a> {
    suite: &'a str,
    run: u32,
    passed: u32,
    failed: u32,
}

impl Verdict<'_> {
    fn text(&self) -> String {
        format!("{} {}/{}", self.suite, self.passed, self.run)
    }
}

/// The lines "<- summary for `basic': of 16 tests run: 16 passed, 0 failed. 100.0%".
fn summaries(said: &str) -> Vec<Verdict<'_>> {
    let verdict = |line| {
        let (suite, rest) = str::strip_prefix(line, "<- summary for `")?.split_once("': of ")?;
        let (run, rest) = rest.split_once(" tests run: ")?;
        let (passed, rest) = rest.split_once(" passed, ")?;
        let (failed, _) = rest.split_once(" failed")?;
        let number = |text: &str| text.parse().ok();
        Some(Verdict { suite, run: number(run)?, passed: number(passed)?, failed: number(failed)? })
    };
    said.lines().filter_map(verdict).collect()
}

/// A session as a person types it. cadaver's exit code says nothing; its words do.
pub(super) fn cadaver(programs: &Path) -> Result<Outcome> {
    let back_end = BackEnd::start(programs)?;
    let host = back_end.http.ip();
    back_end.file(".netrc", &format!("machine {host} login {USER} password {PASSWORD}\n"))?;
    let message = back_end.file("message.eml", MESSAGE)?;
    let got = back_end.path().join("got.eml");
    let commands = format!(
        "open {}\nls\nmkcol Cadaver\ncd Cadaver\nput {message} one.eml\nls\nget one.eml {}\ncopy one.eml two.eml\n\
         move two.eml three.eml\npropset one.eml colour blue\npropget one.eml colour\nlock one.eml\nunlock one.eml\n\
         delete three.eml\nls\ncd ..\nrmcol Cadaver\nls\nquit\n",
        back_end.url(),
        got.display()
    );
    let mut cadaver = Command::new("cadaver")
        .env("HOME", back_end.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cadaver")?;
    cadaver.stdin.take().context("no standard input")?.write_all(commands.as_bytes())?;
    let done = cadaver.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    let failed: Vec<&str> =
        said.lines().filter(|line| line.contains("failed") || line.contains("Could not")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    for word in ["Inbox", "one.eml", "blue", "Deleting `three.eml': succeeded"] {
        ensure!(said.contains(word), "cadaver does not show {word}");
    }
    ensure!(back_end.read("got.eml")? == MESSAGE, "what came back is not what was put");
    Ok(Outcome::Passed("listed, made, put, got, copied, moved, named, locked, deleted".to_owned()))
}

/// A folder of files to the mailbox and back, compared by rclone itself.
pub(super) fn rclone(programs: &Path) -> Result<Outcome> {
    let back_end = BackEnd::start(programs)?;
    let obscured = output(Command::new("rclone").args(["obscure", PASSWORD]))?;
    let rclone = |arguments: &[&str]| {
        output(
            Command::new("rclone")
                .args(["--config", &back_end.path().join("rclone.conf").display().to_string()])
                .args(arguments)
                .env("RCLONE_CONFIG_BE_TYPE", "webdav")
                .env("RCLONE_CONFIG_BE_URL", back_end.url())
                .env("RCLONE_CONFIG_BE_VENDOR", "other")
                .env("RCLONE_CONFIG_BE_USER", USER)
                .env("RCLONE_CONFIG_BE_PASS", obscured.trim()),
        )
    };
    fs::create_dir_all(back_end.path().join("out/deep er"))?;
    for (name, size) in [("out/one.eml", 10), ("out/grün.eml", 3000), ("out/deep er/three.eml", 500_000)] {
        back_end.file(name, &(MESSAGE.to_owned() + &"x".repeat(size)))?;
    }
    let out = back_end.path().join("out").display().to_string();
    let back = back_end.path().join("back").display().to_string();
    ensure!(rclone(&["lsf", "be:"])?.contains("Inbox/"), "rclone does not list the Inbox");
    rclone(&["copy", &out, "be:Rclone"])?;
    let listed = rclone(&["lsf", "-R", "be:Rclone"])?;
    ensure!(listed.contains("deep er/three.eml") && listed.contains("grün.eml"), "rclone lists {listed}");
    rclone(&["check", "--download", &out, "be:Rclone"])?;
    rclone(&["moveto", "be:Rclone/one.eml", "be:Rclone/deep er/moved.eml"])?;
    rclone(&["deletefile", "be:Rclone/grün.eml"])?;
    rclone(&["copy", "be:Rclone", &back])?;
    let there = |name: &str| back_end.path().join("back").join(name).exists();
    ensure!(there("deep er/moved.eml") && there("deep er/three.eml"), "what was moved did not come back");
    ensure!(!there("one.eml") && !there("grün.eml"), "what was moved or deleted came back");
    rclone(&["purge", "be:Rclone"])?;
    ensure!(!rclone(&["lsf", "be:"])?.contains("Rclone"), "the folder is still there");
    Ok(Outcome::Passed("copied there and back, checked, moved, deleted, purged".to_owned()))
}

/// What a script does with a mailbox, request by request; where davfs2 cannot mount, this is what a file manager says.
pub(super) fn curl(programs: &Path) -> Result<Outcome> {
    let back_end = BackEnd::start(programs)?;
    let message = back_end.file("message.eml", MESSAGE)?;
    let answer = back_end.path().join("answer").display().to_string();
    let mut requests = 0;
    let mut curl = |status: &str, path: &str, arguments: &[&str]| -> Result<String> {
        requests += 1;
        let url = format!("{}{path}", back_end.url());
        let _ = fs::remove_file(&answer);
        let got = output(
            Command::new("curl")
                .args(["-sS", "-u", &format!("{USER}:{PASSWORD}"), "-o", &answer, "-w", "%{http_code}"])
                .args(arguments)
                .arg(&url),
        )?;
        let body = fs::read_to_string(&answer).unwrap_or_default();
        ensure!(got == status, "curl {arguments:?} {path}: {got}, not {status}\n{body}");
        Ok(body)
    };
    let set_read = "<D:propertyupdate xmlns:D='DAV:' xmlns:m='urn:schemas:httpmail:'><D:set><D:prop><m:read>1</m:read>\
                    </D:prop></D:set></D:propertyupdate>";
    curl("401", "", &["-u", "alice@example.com:wrong", "-X", "PROPFIND"])?;
    let listed = curl("207", "", &["-X", "PROPFIND", "-H", "Depth: 1"])?;
    ensure!(listed.contains("Inbox/"), "the mailbox does not list the Inbox: {listed}");
    curl("201", "Work/", &["-X", "MKCOL"])?;
    curl("201", "Work/one.eml", &["-T", &message])?;
    curl("412", "Work/one.eml", &["-T", &message, "-H", "If-None-Match: *"])?;
    ensure!(curl("200", "Work/one.eml", &[])? == MESSAGE, "GET is not what was PUT");
    ensure!(curl("206", "Work/one.eml", &["-r", "0-3"])? == "From", "a range of it");
    curl("207", "Work/one.eml", &["-X", "PROPPATCH", "-d", set_read])?;
    let listed = curl("207", "Work/", &["-X", "PROPFIND", "-H", "Depth: 1"])?;
    ensure!(listed.contains("one.eml"), "the folder does not list the message: {listed}");
    let to = |name: &str| format!("Destination: {}{name}", back_end.url());
    curl("201", "Work/one.eml", &["-X", "COPY", "-H", &to("Work/two.eml")])?;
    curl("201", "Work/one.eml", &["-X", "MOVE", "-H", &to("Inbox/moved.eml")])?;
    curl("404", "Work/one.eml", &[])?;
    curl("412", "Work/two.eml", &["-X", "MOVE", "-H", &to("Inbox/moved.eml"), "-H", "Overwrite: F"])?;
    ensure!(curl("200", "Inbox/moved.eml", &[])? == MESSAGE, "what was moved is whole");
    curl("204", "Inbox/moved.eml", &["-X", "DELETE"])?;
    curl("204", "Work/", &["-X", "DELETE"])?;
    curl("404", "Work/two.eml", &[])?;
    Ok(Outcome::Passed(format!("{requests} requests answered as they should be")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litmus_is_understood() {
        let said = "-> running `basic':\n 0. init.................. pass\n\
                    <- summary for `basic': of 16 tests run: 15 passed, 1 failed. 93.8%\n\
                    <- summary for `copymove': of 13 tests run: 13 passed, 0 failed. 100.0%\n";
        let basic = Verdict { suite: "basic", run: 16, passed: 15, failed: 1 };
        let copymove = Verdict { suite: "copymove", run: 13, passed: 13, failed: 0 };
        assert_eq!(summaries(said), [basic, copymove]);
    }
}
