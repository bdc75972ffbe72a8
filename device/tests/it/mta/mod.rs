//! Mail servers that others wrote, around ours: `cargo xtask interop` installs them and runs these tests, as root.
//!
//! What an operator copies stands in `deploy/mta/` and is what runs here; only paths, ports and directories are replaced.

mod exim;
mod postfix;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use directpush_be::{Config, config::LmtpListen};
use directpush_device::pair::{Backend, Frontend, Seat};
use tempfile::TempDir;

use crate::{
    dav::{Dav, View, text},
    stage::PASSWORD,
};

/// A pair, and a folder that programs of other users can look into.
struct Site {
    backend: Backend,
    frontend: Frontend,
    dir: TempDir,
}

impl Site {
    /// With the users `user0@example.com` …, and LMTP at `listen` in the folder.
    async fn new(users: usize, listen: impl FnOnce(&TempDir) -> LmtpListen) -> Self {
        Self::with(users, |dir, config| config.lmtp_listen = vec![listen(dir)]).await
    }

    /// The same, with more of the back end's settings.
    async fn with(users: usize, change: impl FnOnce(&TempDir, &mut Config)) -> Self {
        let dir = TempDir::with_prefix("directpush-mta-").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let seat = Seat::new("fe-1", false);
        let mut config = Backend::config(&dir.path().join("be"), std::slice::from_ref(&seat));
        config.default_domain = Some("example.com".to_owned());
        change(&dir, &mut config);
        let backend = Backend::start(config).await.unwrap();
        for n in 0..users {
            backend.add_user(&user(n), PASSWORD).await.unwrap();
        }
        let frontend = Frontend::start(Frontend::config(&seat, backend.http())).await.unwrap();
        Self { backend, frontend, dir }
    }

    /// The messages in a user's Inbox, as WebDAV gives them.
    async fn inbox(&self, user: &str) -> Vec<String> {
        let mut dav = Dav::person(self.backend.http(), user);
        let folders = dav.hierarchy().await.unwrap();
        let inbox = folders.iter().find(|folder| folder.folder_type == 2).unwrap().id;
        let mut view = View::default();
        view.sync(&mut dav, inbox).await.unwrap();
        let mut messages = Vec::new();
        for item in view.items.keys() {
            let url = inbox.item_url(&dav.user, *item);
            messages.push(text(&dav.done("GET", &url, &[], b"").await.unwrap()));
        }
        messages
    }
}

fn user(n: usize) -> String {
    format!("user{n}@example.com")
}

/// The value of a header field, which stands on one line.
fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let head = message.split("\r\n\r\n").next().unwrap();
    let value = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    });
    value.unwrap_or_else(|| panic!("there is no {name}: {message}"))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A file of `deploy/mta/` with what differs here; it must be in it.
fn adapted(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "there is no {from} to replace");
    text.replace(from, to)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a program that must succeed, off the runtime's threads.
async fn run(program: &str, arguments: Vec<String>) -> String {
    let (succeeded, said) = attempt(program, arguments.clone()).await;
    assert!(succeeded, "{program} {arguments:?}\n{said}");
    said
}

/// Whether a program succeeds, and what it says.
async fn attempt(program: &str, arguments: Vec<String>) -> (bool, String) {
    let mut command = Command::new("timeout");
    command.args(["60", program]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    (output.status.success(), said(&output))
}
