//! SMTP to the smart host (RFC 5321), with lettre's commands, replies and TLS.
//!
//! lettre's own `send` gives a whole message up when one recipient is refused; here MAIL, RCPT and DATA
//! are sent one by one, so that each recipient has an outcome of its own. Connections are kept for a while
//! for the next message. lettre's feature `tracing` stays off: it logs passwords and messages.
//!
//! Not here: the queue, and when to try again.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsVersion,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::entry::Outcome;
use super::guard::Guard;
use super::reply::Reply;
use super::{Carried, Carrier, Letter};

/// Recipients of one transaction (RFC 5321 4.5.3.1.8: at least 100 must be taken).
const RECIPIENTS_AT_ONCE: usize = 100;
/// How long a connection is kept for the next message; hosts close idle ones after minutes.
const IDLE: Duration = Duration::from_secs(15);
/// The message is sent in pieces, so that it is not copied whole.
const PIECE_BYTES: usize = 64 * 1024;
/// How fast a host must take a message on the whole.
const BYTES_PER_SEC_MIN: u64 = 4 * 1024;

/// How the connection is kept from being read and changed on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tls {
    /// TLS from the first byte (RFC 8314 3.3), usually port 465.
    Implicit,
    /// STARTTLS (RFC 3207), or nothing is sent.
    Required,
    /// STARTTLS if the host offers it, with any certificate (RFC 7435): against listeners only.
    Opportunistic,
    /// None; for a host on loopback.
    None,
}

/// The smart host, and how to speak to it.
#[derive(Clone)]
pub struct SmartHostSettings {
    /// Its name (also the one in its certificate) or address.
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Login and password.
    pub login: Option<(String, String)>,
    /// This host's name, for EHLO.
    pub hello: String,
    pub timeouts: Timeouts,
}

impl std::fmt::Debug for SmartHostSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, tls, hello, .. } = self;
        f.debug_struct("SmartHostSettings")
            .field("host", host)
            .field("port", port)
            .field("tls", tls)
            .field("hello", hello)
            .field("login", &self.login.as_ref().map(|(name, _)| name))
            .finish_non_exhaustive()
    }
}

/// How long to wait for the host (RFC 5321 4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the connection with TLS, greeting and authentication, together.
    pub connect: Duration,
    /// For the reply to a command.
    pub command: Duration,
    /// For the reply to the message; its transfer may take longer the larger it is.
    pub message: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_mins(1),
            command: Duration::from_mins(5),
            message: Duration::from_mins(10),
        }
    }
}

/// The smart host's settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS for the smart host cannot be set up: {0}")]
pub struct BadTls(String);

/// The smart host.
pub struct SmartHost {
    settings: SmartHostSettings,
    parameters: Option<TlsParameters>,
    idle: Arc<Mutex<Vec<AsyncSmtpConnection>>>,
}

/// Why a command did not do what it should.
#[derive(Debug)]
enum Failure {
    /// The host said no, and the connection can be used on.
    Refused(Reply),
    /// The connection is of no use any more.
    Broken(Reply),
}

impl Failure {
    fn reply(self) -> Reply {
        match self {
            Self::Refused(reply) | Self::Broken(reply) => reply,
        }
    }
}

fn failure(error: &SmtpError) -> Failure {
    match error.status() {
        Some(code) => {
            let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            let reply = Reply::new(code.into(), &text);
            // 421: the host closes the connection (RFC 5321 3.8).
            if reply.code == 421 { Failure::Broken(reply) } else { Failure::Refused(reply) }
        }
        None => Failure::Broken(Reply::none(&error.to_string())),
    }
}

fn reply(response: &Response) -> Reply {
    Reply::new(response.code().into(), &response.message().collect::<Vec<_>>().join(" "))
}

/// What a host's refusal means for a recipient.
fn outcome(reply: Reply) -> Outcome {
    if reply.code / 100 == 5 { Outcome::Permanent(reply) } else { Outcome::Transient(reply) }
}

/// Whether a refusal speaks of us, not of the message: TLS or authentication is missing (RFC 4954 6).
fn is_about_us(reply: &Reply) -> bool {
    matches!(reply.code, 530 | 534 | 535 | 538)
}

async fn in_time<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, SmtpError>>,
) -> Result<T, Failure> {
    match timeout(limit, future).await {
        Ok(result) => result.map_err(|error| failure(&error)),
        Err(_) => Err(Failure::Broken(Reply::none("4.4.2 the host did not answer in time"))),
    }
}

/// An address as lettre sends it. `Address` checks more than the wire needs, and refuses some addresses that exist;
/// what could break out of the command line is refused here.
fn address(text: &str) -> Option<Address> {
    let (local, domain) = text.rsplit_once('@')?;
    let harmless = |c: char| !c.is_control() && !matches!(c, '<' | '>') && !c.is_whitespace();
    let form_ok = !local.is_empty() && !domain.is_empty() && text.len() <= 320 && text.chars().all(harmless);
    form_ok.then(|| Address::new_dangerous(local, domain))
}

impl SmartHost {
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(settings: SmartHostSettings) -> Result<Self, BadTls> {
        let bad = |error: SmtpError| BadTls(error.to_string());
        let parameters = if settings.tls == Tls::None {
            None
        } else {
            let mut builder =
                TlsParameters::builder(settings.host.clone()).set_min_tls_version(TlsVersion::Tlsv12);
            if settings.tls == Tls::Opportunistic {
                builder = builder
                    .certificate_store(CertificateStore::None)
                    .dangerous_accept_invalid_certs(true)
                    .dangerous_accept_invalid_hostnames(true);
            } else if let Some(pem) = &settings.ca {
                builder = builder
                    .certificate_store(CertificateStore::None)
                    .add_root_certificate(Certificate::from_pem(pem).map_err(bad)?);
            }
            Some(builder.build().map_err(bad)?)
        };
        Ok(Self { settings, parameters, idle: Arc::default() })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Reply> {
        match timeout(self.settings.timeouts.connect, self.greet()).await {
            Ok(result) => result,
            Err(_) => Err(Reply::none("4.4.1 the host did not answer in time")),
        }
    }

    async fn greet(&self) -> Result<AsyncSmtpConnection, Reply> {
        let SmartHostSettings { host, port, tls, login, .. } = &self.settings;
        let told = |error: SmtpError| failure(&error).reply();
        let unreached =
            |error: io::Error| Reply::none(&format!("4.4.1 cannot connect to the smart host: {error}"));
        let hello = match self.settings.hello.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
            Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
            Err(_) => ClientId::Domain(self.settings.hello.clone()),
        };
        let at = (host.as_str(), *port);
        let mut connection = match (tls, &self.parameters) {
            (Tls::Implicit, Some(parameters)) => {
                AsyncSmtpConnection::connect_tokio1(at, None, &hello, Some(parameters.clone()), None)
                    .await
                    .map_err(told)?
            }
            (_, parameters) => {
                let stream = TcpStream::connect(at).await.map_err(unreached)?;
                let _ = stream.set_nodelay(true);
                let stream = Box::new(Guard::new(stream));
                let mut connection =
                    AsyncSmtpConnection::connect_with_transport(stream, &hello).await.map_err(told)?;
                if let Some(parameters) = parameters
                    && (*tls == Tls::Required || connection.can_starttls())
                {
                    if !connection.can_starttls() {
                        return Err(Reply::none("4.7.4 the smart host does not offer STARTTLS"));
                    }
                    connection.starttls(parameters.clone(), &hello).await.map_err(told)?;
                }
                connection
            }
        };
        if let Some((name, password)) = login {
            let credentials = Credentials::new(name.clone(), password.clone());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(told)?;
        }
        Ok(connection)
    }

    /// MAIL on a connection that was kept, or on a new one if that is gone.
    async fn begin(&self, mail: impl Fn(&AsyncSmtpConnection) -> Result<Mail, Reply> + Send + Sync) -> Begun {
        let kept = self.idle.lock().pop();
        let limit = self.settings.timeouts.command;
        if let Some(mut connection) = kept {
            match mail(&connection) {
                Err(reply) => return Begun::Refused(Some(connection), reply),
                Ok(command) => match in_time(limit, connection.command(command)).await {
                    Ok(_) => return Begun::Ready(connection),
                    Err(Failure::Refused(reply)) => return Begun::Refused(Some(connection), reply),
                    Err(Failure::Broken(_)) => {}
                },
            }
        }
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(reply) => return Begun::Unreached(reply),
        };
        match mail(&connection) {
            Err(reply) => Begun::Refused(Some(connection), reply),
            Ok(command) => match in_time(limit, connection.command(command)).await {
                Ok(_) => Begun::Ready(connection),
                Err(Failure::Refused(reply)) => Begun::Refused(Some(connection), reply),
                Err(Failure::Broken(reply)) => Begun::Unreached(reply),
            },
        }
    }

    /// Keeps a connection for the next message, for a while.
    fn keep(&self, connection: AsyncSmtpConnection) {
        if connection.has_broken() {
            return;
        }
        self.idle.lock().push(connection);
        let idle: Weak<_> = Arc::downgrade(&self.idle);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            // The oldest; if it was used meanwhile, another one that was kept for a while.
            let oldest = idle.upgrade().and_then(|idle| {
                let mut idle = idle.lock();
                (!idle.is_empty()).then(|| idle.remove(0))
            });
            if let Some(mut oldest) = oldest {
                let _ = timeout(IDLE, oldest.quit()).await;
            }
        });
    }

    /// One transaction: at most as many recipients as every host takes.
    async fn transact(&self, letter: &Letter, recipients: &[String]) -> Carried {
        let same = |outcome: Outcome| vec![outcome; recipients.len()];
        let needs = Needs::of(letter, recipients);
        let sender = if letter.sender.is_empty() { Some(None) } else { address(&letter.sender).map(Some) };
        let Some(sender) = sender else {
            let bad = Reply::new(553, "5.1.7 the sender's address has not the form of one");
            return Carried { outcomes: same(Outcome::Permanent(bad)), host_failed: false };
        };
        let begun =
            self.begin(|connection| Ok(Mail::new(sender.clone(), needs.parameters(connection)?))).await;
        let mut connection = match begun {
            Begun::Ready(connection) => connection,
            Begun::Unreached(reply) => {
                tracing::warn!(host = %self.settings.host, answer = %reply, "the smart host cannot be used");
                return Carried { outcomes: same(Outcome::Transient(reply)), host_failed: true };
            }
            Begun::Refused(connection, reply) if is_about_us(&reply) => {
                tracing::error!(host = %self.settings.host, answer = %reply, "the smart host wants more of us");
                drop(connection);
                return Carried { outcomes: same(Outcome::Transient(reply)), host_failed: true };
            }
            Begun::Refused(connection, reply) => {
                if let Some(connection) = connection {
                    self.reset(connection).await;
                }
                return Carried { outcomes: same(outcome(reply)), host_failed: false };
            }
        };
        let (mut outcomes, broken) = self.name_recipients(&mut connection, recipients).await;
        if let Some(reply) = broken {
            fill(&mut outcomes, &Outcome::Transient(reply));
            return Carried { outcomes: outcomes.into_iter().flatten().collect(), host_failed: false };
        }
        if outcomes.iter().all(Option::is_some) {
            self.reset(connection).await;
            return Carried { outcomes: outcomes.into_iter().flatten().collect(), host_failed: false };
        }
        let (last, usable) = match self.send_data(&mut connection, &letter.message).await {
            Ok(reply) => (Outcome::Delivered(reply), true),
            Err(Failure::Refused(reply)) => (outcome(reply), true),
            Err(Failure::Broken(reply)) => (Outcome::Transient(reply), false),
        };
        fill(&mut outcomes, &last);
        if usable {
            self.keep(connection);
        }
        Carried { outcomes: outcomes.into_iter().flatten().collect(), host_failed: false }
    }

    /// RCPT for each; `None` = accepted so far. Also the reply with which the connection broke off.
    async fn name_recipients(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipients: &[String],
    ) -> (Vec<Option<Outcome>>, Option<Reply>) {
        let mut outcomes = Vec::with_capacity(recipients.len());
        for recipient in recipients {
            let Some(address) = address(recipient) else {
                let bad = Reply::new(553, "5.1.3 this has not the form of an address");
                outcomes.push(Some(Outcome::Permanent(bad)));
                continue;
            };
            let rcpt = connection.command(Rcpt::new(address, Vec::new()));
            match in_time(self.settings.timeouts.command, rcpt).await {
                Ok(_) => outcomes.push(None),
                Err(Failure::Refused(reply)) => outcomes.push(Some(outcome(reply))),
                Err(Failure::Broken(reply)) => {
                    outcomes.resize(recipients.len(), None);
                    return (outcomes, Some(reply));
                }
            }
        }
        (outcomes, None)
    }

    async fn send_data(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &[u8],
    ) -> Result<Reply, Failure> {
        let Timeouts { command, message: limit, .. } = self.settings.timeouts;
        let go_ahead = in_time(command, connection.command(Data)).await?;
        if !go_ahead.has_code(354) {
            return Err(Failure::Broken(Reply::none("4.5.0 the host answered DATA with something else")));
        }
        // lettre ends the message with CRLF before the dot.
        let message = message.strip_suffix(b"\r\n").unwrap_or(message);
        let limit = limit + Duration::from_secs(message.len() as u64 / BYTES_PER_SEC_MIN);
        let last = in_time(limit, connection.message_iter(message.chunks(PIECE_BYTES))).await?;
        if last.code().severity as u8 != 2 {
            return Err(Failure::Broken(Reply::none(
                "4.5.0 the host answered the message with something else",
            )));
        }
        Ok(reply(&last))
    }

    /// Ends a transaction that came to nothing, and keeps the connection.
    async fn reset(&self, mut connection: AsyncSmtpConnection) {
        if in_time(self.settings.timeouts.command, connection.command(Rset)).await.is_ok() {
            self.keep(connection);
        }
    }
}

/// What became of MAIL.
enum Begun {
    Ready(AsyncSmtpConnection),
    Refused(Option<AsyncSmtpConnection>, Reply),
    Unreached(Reply),
}

/// Gives an outcome to those who have none.
fn fill(outcomes: &mut [Option<Outcome>], with: &Outcome) {
    for outcome in outcomes {
        outcome.get_or_insert_with(|| with.clone());
    }
}

/// What a message asks of the host.
struct Needs {
    eight_bit: bool,
    /// An address is not ASCII (RFC 6531 3.1).
    utf8: bool,
}

impl Needs {
    fn of(letter: &Letter, recipients: &[String]) -> Self {
        let utf8 = !letter.sender.is_ascii() || recipients.iter().any(|address| !address.is_ascii());
        Self { eight_bit: !letter.message.is_ascii(), utf8 }
    }

    fn parameters(&self, connection: &AsyncSmtpConnection) -> Result<Vec<MailParameter>, Reply> {
        let offers = |extension| connection.server_info().supports_feature(extension);
        let mut parameters = Vec::new();
        if self.utf8 {
            if !offers(Extension::SmtpUtfEight) {
                return Err(Reply::new(553, "5.6.7 the smart host does not take addresses beyond ASCII"));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if self.eight_bit {
            if !offers(Extension::EightBitMime) {
                return Err(Reply::new(554, "5.6.3 the smart host does not take 8-bit messages"));
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(parameters)
    }
}

impl Carrier for SmartHost {
    async fn carry(&self, letter: Letter) -> Carried {
        let mut all = Carried { outcomes: Vec::new(), host_failed: false };
        for recipients in letter.recipients.chunks(RECIPIENTS_AT_ONCE) {
            if all.host_failed {
                let down = Outcome::Transient(Reply::none("4.4.1 the smart host cannot be used"));
                all.outcomes.resize(all.outcomes.len() + recipients.len(), down);
                continue;
            }
            let Carried { outcomes, host_failed } = self.transact(&letter, recipients).await;
            all.outcomes.extend(outcomes);
            all.host_failed = host_failed;
        }
        all
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
