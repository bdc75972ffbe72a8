//! Servers as processes of their own, to be killed: this very test program, started again as a server.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use directpush_device::{
    lmtp::LmtpAddress,
    pair::{Backend, Frontend, Seat},
};
use serde::{Deserialize, Serialize};

use crate::stage::PASSWORD;

const ROLE: &str = "DIRECTPUSH_IT_ROLE";

/// What a server process is told, as JSON in its environment.
#[derive(Debug, Deserialize, Serialize)]
enum Role {
    Backend { dir: PathBuf, seats: Vec<Place>, http: Option<SocketAddr>, users: usize },
    Frontend { seat: Place, backend: SocketAddr, http: Option<SocketAddr> },
}

/// A [`Seat`] that can be written down.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Place {
    name: String,
    secret: String,
    listens: Ipv4Addr,
    call_back: Ipv4Addr,
}

impl Place {
    fn of(seat: &Seat) -> Self {
        let Seat { name, secret, listens, call_back } = seat.clone();
        Self { name, secret, listens, call_back }
    }

    fn seat(self) -> Seat {
        let Self { name, secret, listens, call_back } = self;
        Seat { name, secret, listens, call_back }
    }
}

/// Where a server process can be reached; the one line of JSON that it writes.
#[derive(Debug, Deserialize, Serialize)]
struct Ready {
    http: SocketAddr,
    lmtp: Option<SocketAddr>,
}

/// A server in a process of its own. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) http: SocketAddr,
    lmtp: Option<SocketAddr>,
}

impl Process {
    /// A back end with the users `user0@example.com` … that exist afterwards.
    pub(crate) fn backend(dir: &Path, seats: &[Seat], http: Option<SocketAddr>, users: usize) -> Self {
        let seats = seats.iter().map(Place::of).collect();
        Self::start(&Role::Backend { dir: dir.to_owned(), seats, http, users })
    }

    pub(crate) fn frontend(seat: &Seat, backend: SocketAddr, http: Option<SocketAddr>) -> Self {
        Self::start(&Role::Frontend { seat: Place::of(seat), backend, http })
    }

    fn start(role: &Role) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process::a_server_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, serde_json::to_string(role).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let ready = out.lines().map_while(Result::ok).find_map(|line| {
            let json = &line[line.find('{')?..];
            serde_json::from_str::<Ready>(json).ok()
        });
        let Some(Ready { http, lmtp }) = ready else {
            let _ = child.kill();
            panic!("the server process did not start: {:?}", child.wait());
        };
        Self { child, http, lmtp }
    }

    pub(crate) fn lmtp(&self) -> LmtpAddress {
        LmtpAddress::Tcp(self.lmtp.unwrap())
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what a process of [`Process::start`] runs. Without a role there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_process() {
    let Ok(role) = env::var(ROLE) else { return };
    let tell = |ready: &Ready| println!("\n{}", serde_json::to_string(ready).unwrap());
    match serde_json::from_str(&role).unwrap() {
        Role::Backend { dir, seats, http, users } => {
            let seats: Vec<Seat> = seats.into_iter().map(Place::seat).collect();
            let mut config = Backend::config(&dir, &seats);
            config.http_listen = http.unwrap_or(config.http_listen);
            let backend = Backend::start(config).await.unwrap();
            for n in 0..users {
                // After a restart it is there already.
                let _ = backend.add_user(&format!("user{n}@example.com"), PASSWORD).await;
            }
            let LmtpAddress::Tcp(lmtp) = backend.lmtp().unwrap() else { panic!("LMTP by TCP") };
            tell(&Ready { http: backend.http(), lmtp: Some(lmtp) });
            std::future::pending::<()>().await;
        }
        Role::Frontend { seat, backend, http } => {
            let mut config = Frontend::config(&seat.seat(), backend);
            if let Some(http) = http {
                config.http_listen = vec![http];
            }
            let frontend = Frontend::start(config).await.unwrap();
            tell(&Ready { http: frontend.http().unwrap(), lmtp: None });
            std::future::pending::<()>().await;
        }
    }
}
