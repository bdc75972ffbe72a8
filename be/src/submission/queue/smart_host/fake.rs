//! A mail host for tests: says yes unless told otherwise, and writes down what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers a command otherwise than with yes. An empty answer closes the connection.
type Says = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the host offers.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(super) enum Offers {
    #[default]
    Plain,
    StartTls,
    /// And puts a reply of its own behind the one to STARTTLS.
    StartTlsWithMore,
    Implicit,
}

/// A message as it came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Arrived {
    pub(super) mail: String,
    pub(super) to: Vec<String>,
    pub(super) message: Vec<u8>,
    pub(super) encrypted: bool,
}

pub(super) struct FakeHost {
    pub(super) port: u16,
    /// The certificate, in PEM, for `localhost`.
    pub(super) ca: Vec<u8>,
    pub(super) connections: AtomicUsize,
    pub(super) arrived: Mutex<Vec<Arrived>>,
    pub(super) commands: Mutex<Vec<String>>,
    offers: Offers,
    extensions: &'static [&'static str],
    says: Says,
    acceptor: TlsAcceptor,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl FakeHost {
    pub(super) async fn start(
        offers: Offers,
        says: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::start_with(offers, &["8BITMIME", "SMTPUTF8", "AUTH PLAIN LOGIN"], says).await
    }

    pub(super) async fn start_with(
        offers: Offers,
        extensions: &'static [&'static str],
        says: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let der = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], der)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            ca: key.cert.pem().into_bytes(),
            connections: AtomicUsize::new(0),
            arrived: Mutex::default(),
            commands: Mutex::default(),
            offers,
            extensions,
            says: Box::new(says),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        });
        let serving = host.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, SeqCst);
                let host = serving.clone();
                tokio::spawn(async move { host.converse(Box::new(stream)).await });
            }
        });
        host
    }

    pub(super) fn count(&self, command: &str) -> usize {
        self.commands.lock().iter().filter(|line| line.starts_with(command)).count()
    }

    fn answer(&self, line: &str) -> String {
        if let Some(told) = (self.says)(line) {
            return told;
        }
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => {
                let mut lines: Vec<&str> = vec!["fake"];
                lines.extend(self.extensions);
                if matches!(self.offers, Offers::StartTls | Offers::StartTlsWithMore) {
                    lines.push("STARTTLS");
                }
                let last = lines.len() - 1;
                let line = |(at, text): (usize, &&str)| {
                    format!("250{}{text}\r\n", if at == last { ' ' } else { '-' })
                };
                lines.iter().enumerate().map(line).collect()
            }
            "STARTTLS" if self.offers == Offers::StartTlsWithMore => {
                "220 go ahead\r\n250 evil\r\n".to_owned()
            }
            "STARTTLS" => "220 go ahead\r\n".to_owned(),
            "AUTH" if line == "AUTH LOGIN" => "334 VXNlcm5hbWU6\r\n".to_owned(),
            "AUTH" => "235 2.7.0 welcome\r\n".to_owned(),
            "DATA" => "354 go ahead\r\n".to_owned(),
            "QUIT" => "221 bye\r\n".to_owned(),
            _ => "250 2.0.0 ok\r\n".to_owned(),
        }
    }

    async fn converse(&self, stream: Box<dyn Stream>) -> Option<()> {
        let mut encrypted = self.offers == Offers::Implicit;
        let stream: Box<dyn Stream> =
            if encrypted { Box::new(self.acceptor.accept(stream).await.ok()?) } else { stream };
        let mut stream = BufReader::new(stream);
        let greeting = (self.says)("greeting").unwrap_or_else(|| "220 fake ESMTP\r\n".to_owned());
        stream.write_all(greeting.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let mut now = Arrived { mail: String::new(), to: Vec::new(), message: Vec::new(), encrypted };
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            self.commands.lock().push(line.clone());
            let answer = self.answer(&line);
            stream.write_all(answer.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            if answer.is_empty() || line == "QUIT" {
                return None;
            }
            let yes = answer.starts_with('2') || answer.starts_with('3');
            match line.split([' ', ':']).next().unwrap_or_default() {
                "STARTTLS" if yes => {
                    encrypted = true;
                    let plain = stream.into_inner();
                    stream = BufReader::new(Box::new(self.acceptor.accept(plain).await.ok()?));
                }
                "MAIL" if yes => {
                    now = Arrived { mail: line, to: Vec::new(), message: Vec::new(), encrypted };
                }
                "RCPT" if yes => now.to.push(line),
                "DATA" if yes => {
                    loop {
                        let mut line = Vec::new();
                        if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                            return None;
                        }
                        if line == b".\r\n" {
                            break;
                        }
                        now.message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                    }
                    let answer = self.answer("message");
                    if answer.starts_with('2') {
                        self.arrived.lock().push(now.clone());
                    }
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.flush().await.ok()?;
                    if answer.is_empty() {
                        return None;
                    }
                }
                _ => {}
            }
        }
    }
}
