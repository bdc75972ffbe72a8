//! A back end under test, and the little HTTP that talks to it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use data_encoding::BASE64;
use directpush_be::config::FrontEnd;
use directpush_be::{Config, LmtpAddress, Running};
use directpush_common::dav::subscribe::{Since, Subscribe};
use directpush_common::httpu::{CallBack, Notify};
use directpush_common::names::{DeviceKey, Guid};
use directpush_common::numbers::Number;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "a secret of sixteen characters or more";
pub(crate) const ALICE: &str = "alice@example.com";
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct Be {
    pub(crate) running: Option<Running>,
    pub(crate) http: SocketAddr,
    pub(crate) lmtp: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) dir: TempDir,
    /// The front end's UDP socket.
    pub(crate) udp: UdpSocket,
    /// Alice's act-for token.
    pub(crate) token: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

pub(crate) fn config(dir: &TempDir, udp_port: u16) -> Config {
    let mut config = Config::loopback(dir.path());
    config.front_ends.push(FrontEnd {
        name: "fe-1".into(),
        secret: SECRET.into(),
        call_back_host: "127.0.0.1".into(),
        call_back_ports: vec![udp_port],
    });
    config
}

impl Be {
    /// A back end with the user alice, logged on.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut be = Self::start_unasked(change).await;
        be.log_on().await;
        be
    }

    /// Without the log-on.
    pub(crate) async fn start_unasked(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut config = config(&dir, udp.local_addr().unwrap().port());
        change(&mut config);
        let stop = CancellationToken::new();
        let running = directpush_be::run(config, stop.clone()).await.unwrap();
        running.add_user(ALICE, PASSWORD).await.unwrap();
        Self {
            http: running.http,
            lmtp: lmtp_address(&running),
            running: Some(running),
            stop,
            dir,
            udp,
            token: String::new(),
        }
    }

    /// Stops and starts it again on the same store, with the same configuration.
    pub(crate) async fn restart(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().finished().await.unwrap();
        self.stop = CancellationToken::new();
        let config = config(&self.dir, self.udp.local_addr().unwrap().port());
        let running = directpush_be::run(config, self.stop.clone()).await.unwrap();
        (self.http, self.lmtp) = (running.http, lmtp_address(&running));
        self.running = Some(running);
    }

    pub(crate) async fn log_on(&mut self) {
        let answer = self.log_on_as(ALICE, PASSWORD).await.expect(200);
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(json["user"], ALICE);
        self.token = json["token"].as_str().unwrap().into();
    }

    pub(crate) async fn log_on_as(&self, login: &str, password: &str) -> Answer {
        let body = serde_json::json!({ "login": login, "password": password }).to_string();
        let fe = format!("DirectPush fe-1:{SECRET}");
        self.send("POST", "/directpush/logon", &[("Authorization", &fe)], body.as_bytes()).await
    }

    /// A request as it is.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: be\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes).await
    }

    /// Bytes as they are; the answer until the connection closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        // A server that refuses early may close before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        parse(&answer)
    }

    /// A request of the front end, acting for alice.
    pub(crate) async fn fe(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let credential = format!("DirectPush fe-1:{SECRET}");
        let mut all = vec![("Authorization", credential.as_str()), ("DirectPush-Act-For", &self.token)];
        all.extend_from_slice(headers);
        self.send(method, path, &all, body).await
    }

    /// A request of alice herself, with a DAV client.
    pub(crate) async fn alice(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let basic = format!("Basic {}", BASE64.encode(format!("{ALICE}:{PASSWORD}").as_bytes()));
        let mut all = vec![("Authorization", basic.as_str())];
        all.extend_from_slice(headers);
        self.send(method, path, &all, body).await
    }

    pub(crate) fn call_back(&self) -> CallBack {
        let guid = Guid([7; 16]);
        CallBack::new("127.0.0.1", self.udp.local_addr().unwrap().port(), guid).unwrap()
    }

    /// What a device's Ping for a folder asks.
    pub(crate) fn question(&self, group: u8, since: Since, hierarchy: u64) -> Subscribe {
        Subscribe {
            call_back: self.call_back(),
            group: Guid([group; 16]),
            lifetime_secs: 540,
            delay_secs: 300,
            device: phone(),
            since,
            floor: None,
            hierarchy: Number(hierarchy),
            poll_interval_secs: 60,
        }
    }

    pub(crate) async fn subscribe(&self, folder: &str, question: &Subscribe) -> Answer {
        let headers = question.to_headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.fe("SUBSCRIBE", &format!("/exchange/{ALICE}/{folder}/"), &headers, b"").await
    }

    /// The next NOTIFY; the test fails when none comes.
    pub(crate) async fn notify(&self) -> Notify {
        let udp = self.udp.try_clone().unwrap();
        let received = tokio::task::spawn_blocking(move || {
            let mut space = [0; 2048];
            let count = udp.recv(&mut space).expect("a NOTIFY");
            space[..count].to_vec()
        });
        Notify::decode(&received.await.unwrap()).unwrap()
    }

    /// Delivers a message to alice.
    pub(crate) async fn deliver(&self, subject: &str) {
        let replies = self.lmtp(&mail(ALICE, subject)).await;
        assert!(replies.contains(&format!("250 2.1.5 <{ALICE}> OK")), "{replies}");
    }

    /// An LMTP conversation, all at once; everything the server said.
    pub(crate) async fn lmtp(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.lmtp).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said).await;
        said
    }
}

fn lmtp_address(running: &Running) -> SocketAddr {
    match running.lmtp[0] {
        LmtpAddress::Tcp(address) => address,
        LmtpAddress::Unix(_) => panic!("the tests deliver by TCP"),
    }
}

pub(crate) fn mail(to: &str, subject: &str) -> Vec<u8> {
    format!(
        "LHLO mta\r\nMAIL FROM:<bob@example.org>\r\nRCPT TO:<{to}>\r\nDATA\r\n\
         From: bob@example.org\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nHello.\r\n.\r\nQUIT\r\n"
    )
    .into_bytes()
}

pub(crate) fn phone() -> DeviceKey {
    DeviceKey::new("PocketPC", "6F24CAD599A5BF1A690246B8C68FAE8D").unwrap()
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer: {:?}", String::from_utf8_lossy(bytes));
    });
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}
