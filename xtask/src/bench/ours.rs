//! Our two servers, as an operator starts them: two processes, a configuration file each, a store on disk.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::driver::Driver;
use super::measure::{open_files_max, percentile};
use super::nchan::free_address;

const SECRET: &str = "only-for-this-benchmark";
pub(crate) const PASSWORD: &str = "bench-password";
/// The same, hashed in microseconds: log-ons of ten thousand devices are not what the figures are of.
const HASHED: &str =
    "$argon2id$v=19$m=8,t=1,p=1$YmVuY2htYXJrIG9ubHkuLg$fMgNf1uPDiibgCCCHnRDTTmhZOPlf0IMlS3AVyg+r3w";
/// Mailboxes are `load-0@bench`, `load-1@bench` …
const PREFIX: &str = "load-";
const DOMAIN: &str = "bench";
/// In the back end's state folder.
const ADMIN_SOCKET: &str = "state/admin.sock";
const ADMIN_CONNECTIONS: usize = 4;
const START_MAX: Duration = Duration::from_secs(30);
/// Source addresses of the devices.
const SOURCES: &str = "4";

/// The name of a user.
pub(crate) fn user(number: usize) -> String {
    format!("{PREFIX}{number}@{DOMAIN}")
}

/// A store with users in it, made once.
pub(crate) struct Mailboxes {
    folder: TempDir,
}

impl Mailboxes {
    /// The first `dear` users have a password that costs what passwords cost; the others' are checked at once.
    pub(crate) fn make(programs: &Path, users: usize, dear: usize) -> Result<Self> {
        let folder = TempDir::with_prefix("bench-mailboxes-")?;
        let [http, lmtp, udp] = [free_address()?, free_address()?, free_address()?];
        fs::write(folder.path().join("be.toml"), be_toml(folder.path(), http, lmtp, udp))?;
        let mut back_end = spawn(programs, folder.path(), "be")?;
        let made = wait_until_listening(lmtp, folder.path(), "be")
            .and_then(|()| add_users(folder.path(), users, dear));
        // SIGTERM, so that everything is flushed and the socket removed.
        let _ = Command::new("kill").arg(back_end.id().to_string()).status();
        let _ = back_end.wait();
        let _ = fs::remove_file(folder.path().join(ADMIN_SOCKET));
        made?;
        Ok(Self { folder })
    }
}

/// Adds users by the administrator's socket, as `directpush-be user add` does, over several connections.
fn add_users(folder: &Path, users: usize, dear: usize) -> Result<()> {
    thread::scope(|scope| {
        let add = |lane: usize| {
            scope.spawn(move || -> Result<()> {
                let mut stream = UnixStream::connect(folder.join(ADMIN_SOCKET))?;
                let mut answers = BufReader::new(stream.try_clone()?).lines();
                for user in (lane..users).step_by(ADMIN_CONNECTIONS) {
                    let name = self::user(user);
                    let hashed = user >= dear;
                    let password = if hashed { HASHED } else { PASSWORD };
                    let order = serde_json::json!({
                        "order": "add-user", "name": name, "password": password, "hashed": hashed
                    });
                    writeln!(stream, "{order}")?;
                    let answer = answers.next().context("the administrator's socket closed")??;
                    ensure!(answer.contains("done"), "adding {name}: {answer}");
                }
                Ok(())
            })
        };
        let lanes: Vec<_> = (0..ADMIN_CONNECTIONS).map(add).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("adding users panicked"))?)
    })
}

/// A running pair; both end with this value, and their store with them.
pub(crate) struct Pair {
    programs: PathBuf,
    folder: TempDir,
    back_end: Child,
    front_end: Child,
    http: SocketAddr,
    lmtp: SocketAddr,
    be_http: SocketAddr,
}

impl Pair {
    /// Starts both on a copy of `mailboxes`.
    pub(crate) fn start(programs: &Path, mailboxes: &Mailboxes) -> Result<Self> {
        let folder = TempDir::with_prefix("bench-directpush-")?;
        let copied = Command::new("cp")
            .arg("-r")
            .arg(mailboxes.folder.path().join("state"))
            .arg(folder.path())
            .status()?;
        ensure!(copied.success(), "the mailboxes cannot be copied");
        let [http, lmtp, be_http, udp] = [free_address()?, free_address()?, free_address()?, free_address()?];
        fs::write(folder.path().join("be.toml"), be_toml(folder.path(), be_http, lmtp, udp))?;
        fs::write(folder.path().join("fe.toml"), fe_toml(http, be_http, udp))?;
        let (back_end, front_end) = spawn_both(programs, folder.path())?;
        let pair = Self { programs: programs.to_owned(), folder, back_end, front_end, http, lmtp, be_http };
        pair.wait_until_listening()?;
        Ok(pair)
    }

    /// Kills both and starts them again on the same store and ports: nobody's password is remembered then.
    pub(crate) fn restart(&mut self) -> Result<()> {
        stop(&mut self.front_end);
        stop(&mut self.back_end);
        (self.back_end, self.front_end) = spawn_both(&self.programs, self.folder.path())?;
        self.wait_until_listening()
    }

    pub(crate) fn front_end_pids(&self) -> [u32; 1] {
        [self.front_end.id()]
    }

    pub(crate) fn all_pids(&self) -> [u32; 2] {
        [self.front_end.id(), self.back_end.id()]
    }

    /// Where devices connect.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the back end takes mail.
    pub(crate) fn lmtp(&self) -> SocketAddr {
        self.lmtp
    }

    /// A driver with so many devices, each of a user of its own and watching so many folders.
    pub(crate) fn driver(&self, devices: usize, folders: usize) -> Result<Driver> {
        let (http, lmtp) = (format!("http://{}", self.http), self.lmtp.to_string());
        Driver::start(
            "directpush",
            Command::new(self.programs.join("directpush"))
                .args(["load", "--steered", "--fe", &http, "--lmtp", &lmtp])
                .args(["--users", &format!("{PREFIX}@{DOMAIN}"), "--devices", &devices.to_string()])
                .args(["--folders", &folders.to_string(), "--sources", SOURCES, "--heartbeat", "3540"])
                .env("DIRECTPUSH_PASSWORD", PASSWORD),
        )
    }

    /// How long the back end takes to answer a front end that asks for nothing, in microseconds, p50: one round trip, as
    /// an UNSUBSCRIBE needs it.
    pub(crate) fn round_trip_us(&self, count: usize) -> Result<f64> {
        let mut stream = TcpStream::connect(self.be_http)?;
        stream.set_nodelay(true)?;
        let request = format!(
            "OPTIONS /exchange/ HTTP/1.1\r\nHost: {}\r\nAuthorization: DirectPush fe-1:{SECRET}\r\n\r\n",
            self.be_http
        );
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let began = SystemTime::now();
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            // OPTIONS has no body.
            while !answer.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer)?;
                ensure!(read > 0, "the back end hung up");
                answer.extend_from_slice(&buffer[..read]);
            }
            samples.push(began.elapsed().unwrap_or_default().as_secs_f64() * 1e6);
        }
        samples.sort_by(f64::total_cmp);
        percentile(&samples, 0.5).context("no samples")
    }

    fn wait_until_listening(&self) -> Result<()> {
        for (address, name) in [(self.be_http, "be"), (self.lmtp, "be"), (self.http, "fe")] {
            wait_until_listening(address, self.folder.path(), name)?;
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        stop(&mut self.front_end);
        stop(&mut self.back_end);
    }
}

fn stop(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn spawn(programs: &Path, folder: &Path, name: &str) -> Result<Child> {
    let log = fs::File::create(folder.join(format!("{name}.log")))?;
    Command::new(programs.join(format!("directpush-{name}")))
        .arg("--config")
        .arg(folder.join(format!("{name}.toml")))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start directpush-{name}"))
}

fn spawn_both(programs: &Path, folder: &Path) -> Result<(Child, Child)> {
    let mut back_end = spawn(programs, folder, "be")?;
    match spawn(programs, folder, "fe") {
        Ok(front_end) => Ok((back_end, front_end)),
        Err(error) => {
            stop(&mut back_end);
            Err(error)
        }
    }
}

fn wait_until_listening(address: SocketAddr, folder: &Path, name: &str) -> Result<()> {
    let began = SystemTime::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed().unwrap_or_default() > START_MAX {
            let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
            bail!("directpush-{name} does not listen on {address}:\n{log}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The back end's settings: the defaults, but for addresses and room for the load.
fn be_toml(folder: &Path, http: SocketAddr, lmtp: SocketAddr, udp: SocketAddr) -> String {
    format!(
        "state_dir = \"{}\"
http_listen = \"{http}\"
lmtp_listen = [\"{lmtp}\"]
default_domain = \"{DOMAIN}\"
log_level = \"warn\"

[[front_end]]
name = \"fe-1\"
secret = \"{SECRET}\"
call_back_host = \"127.0.0.1\"
call_back_ports = [{}]
",
        folder.join("state").display(),
        udp.port()
    )
}

/// The front end's settings: the defaults, but for addresses, the longest heartbeat there is, and room for the load.
fn fe_toml(http: SocketAddr, be_http: SocketAddr, udp: SocketAddr) -> String {
    format!(
        "name = \"fe-1\"
secret = \"{SECRET}\"
http_listen = [\"{http}\"]
udp_listen = \"127.0.0.1\"
udp_listen_port = {}
call_back_host = \"127.0.0.1\"
max_heartbeat_interval = 3540
max_connections = {}
log_level = \"warn\"

[[backend]]
name = \"be-1\"
url = \"http://{be_http}\"
default = true
",
        udp.port(),
        open_files_max()
    )
}
