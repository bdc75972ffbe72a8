//! One request to a back end: sent with our credential, timed, judged.
//!
//! Every answer carries the back end's boot id; a new one means that its subscriptions are gone,
//! and whoever waits on [`Backend::restarted`] hears of it. A request is tried once more when the
//! connection broke under it, because a kept connection may have died unseen.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use directpush_common::clock::Moment;
use directpush_common::dav::headers;
use directpush_common::eas::CommonStatus;
use directpush_common::event::Event;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use reqwest::Url;
use rustls::ClientConfig;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use super::breaker::{Breaker, PROTECTED_SECS};
use super::{Error, Result, Session};
use crate::events;

/// Bytes of an XML or JSON answer, at most.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of an item, at most: of the largest message that may be sent (`mail_bytes`), and of what is added to it.
pub const ITEM_BYTES_MAX: usize = MAIL_BYTES_MAX + (1 << 20);
/// The largest `mail_bytes`.
pub const MAIL_BYTES_MAX: usize = 64 << 20;
/// The same condition of the same back end is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Characters of a `Location` that is looked at.
const LOCATION_CHARS_MAX: usize = 1024;
/// A request that gets no turn for this long is given up.
const SLOT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Log-ons under way at once.
const LOGONS_MAX: usize = 32;

/// How to reach one back end.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the configuration and the log.
    pub name: String,
    /// `http://host:port` or `https://host:port`.
    pub url: Url,
    /// `Authorization` of this front end.
    pub authorization: String,
    /// Requests under way at once.
    pub requests_max: usize,
    /// Seconds for an ordinary answer.
    pub timeout: Duration,
    /// For an `https` url: whom to trust, and who we are.
    pub tls: Arc<ClientConfig>,
}

/// One back end.
pub struct Backend {
    settings: Settings,
    /// The url without a slash at the end.
    base: String,
    origin: String,
    link: RwLock<Link>,
    slots: Semaphore,
    /// Log-ons have turns of their own: whoever guesses passwords holds up nobody's mail.
    logon_slots: Semaphore,
    breaker: Mutex<Breaker>,
    boot: Mutex<Option<Box<str>>>,
    restarted: Notify,
    logged: Mutex<Option<Instant>>,
    began: Instant,
}

/// What connections are made with.
struct Link {
    client: reqwest::Client,
    tls: Arc<ClientConfig>,
}

impl Link {
    fn new(settings: &Settings, tls: Arc<ClientConfig>) -> std::result::Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(settings.requests_max)
            .user_agent(concat!("Microsoft-Server-ActiveSync/6.5 directpush-fe/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured((*tls).clone())
            .build()?;
        Ok(Self { client, tls })
    }
}

/// A request, before it is sent.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    pub(super) path: &'a str,
    pub(super) session: Option<&'a Session>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) timeout: Option<Duration>,
    pub(super) answer_bytes_max: usize,
    /// Asked even when the back end is protected: the question that finds out whether it is back.
    pub(super) probing: bool,
    /// A log-on: it may take long on purpose, and says nothing about the back end's health.
    pub(super) logon: bool,
    /// Never sent twice, whatever becomes of it.
    pub(super) once: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: &'static str, path: &'a str, session: Option<&'a Session>) -> Self {
        Self {
            method,
            path,
            session,
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            probing: false,
            logon: false,
            once: false,
        }
    }
}

impl Call<'_> {
    /// Whether it may be carried out twice. An item that has moved is not there to be moved again, and 404 would
    /// tell the device that it is gone.
    fn may_repeat(&self) -> bool {
        self.method != "MOVE" && !self.once
    }
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Option<T> {
        self.header(name).and_then(|value| value.trim().parse().ok())
    }

    /// The error that this answer is.
    pub(super) fn into_error(self) -> Error {
        let reason = self.header(headers::REASON).map(str::to_owned);
        match self.status {
            StatusCode::UNAUTHORIZED if reason.as_deref() == Some("credential") => Error::Credential,
            StatusCode::SERVICE_UNAVAILABLE => {
                Error::Busy { retry_after_secs: self.number(header::RETRY_AFTER.as_str()).unwrap_or(10) }
            }
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                let location = self.header(header::LOCATION.as_str()).unwrap_or_default();
                Error::Moved { location: location.chars().take(LOCATION_CHARS_MAX).collect() }
            }
            StatusCode::FORBIDDEN if reason.as_deref() == Some("devices") => {
                Error::Refused(CommonStatus::MaximumDevicesReached)
            }
            status => Error::Status { status, reason },
        }
    }
}

impl Backend {
    /// Prepares for a back end; nothing is sent yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(settings: Settings) -> std::result::Result<Arc<Self>, reqwest::Error> {
        let link = RwLock::new(Link::new(&settings, Arc::clone(&settings.tls))?);
        Ok(Arc::new(Self {
            slots: Semaphore::new(settings.requests_max),
            logon_slots: Semaphore::new(LOGONS_MAX),
            base: settings.url.as_str().trim_end_matches('/').to_owned(),
            origin: settings.url.origin().ascii_serialization(),
            link,
            breaker: Mutex::default(),
            boot: Mutex::default(),
            restarted: Notify::new(),
            logged: Mutex::default(),
            began: Instant::now(),
            settings,
        }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Scheme, host and port, as text.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        &self.settings.url
    }

    /// Whom we trust and who we are, if it is reached by HTTPS.
    pub fn tls(&self) -> Option<Arc<ClientConfig>> {
        (self.settings.url.scheme() == "https").then(|| Arc::clone(&self.link.read().tls))
    }

    /// New connections are made with these certificates; those in use end with their requests.
    ///
    /// # Errors
    /// When the HTTP client cannot be built: everything stays as it was.
    pub fn renew(&self, tls: Arc<ClientConfig>) -> std::result::Result<(), reqwest::Error> {
        let link = Link::new(&self.settings, tls)?;
        *self.link.write() = link;
        Ok(())
    }

    /// Waits until an answer carried a new boot id: every subscription is gone. One waiter.
    pub async fn restarted(&self) {
        self.restarted.notified().await;
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Sends a request and takes what comes, whatever its status.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer> {
        if !call.probing && !self.breaker.lock().allows(self.now()) {
            return Err(Error::Protected { backend: self.name().to_owned() });
        }
        // Our own queue is not the back end's slowness: its time begins when the request is sent.
        let slots = if call.logon { &self.logon_slots } else { &self.slots };
        let Ok(_slot) = timeout(SLOT_WAIT_MAX, slots.acquire()).await else {
            return Err(Error::Busy { retry_after_secs: SLOT_WAIT_MAX.as_secs() });
        };
        let logon = call.logon;
        let user = call.session.map_or("-", |session| session.user.as_str()).to_owned();
        match timeout(call.timeout.unwrap_or(self.settings.timeout), self.send(call)).await {
            Ok(Ok(answer)) => {
                self.breaker.lock().handle_answer();
                self.note_boot(&answer);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) if logon => Err(Error::Busy { retry_after_secs: SLOT_WAIT_MAX.as_secs() }),
            Err(_) => {
                let protect = self.breaker.lock().handle_timeout(self.now());
                events::log(&Event::BackendSlow { backend: self.name().to_owned() });
                tracing::debug!(backend = self.name(), user, condition = "D9", "no answer in time");
                if protect {
                    let backend = self.name().to_owned();
                    events::log(&Event::BackendProtected { backend, secs: PROTECTED_SECS });
                }
                Err(Error::Timeout { backend: self.name().to_owned() })
            }
        }
    }

    /// Logs a failure with its condition, not more often than an operator can read.
    pub fn complain(&self, what: &str, error: &Error) {
        let now = Instant::now();
        {
            let mut logged = self.logged.lock();
            if logged.is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
                return;
            }
            *logged = Some(now);
        }
        let (condition, cause) = error.condition().unwrap_or(("-", "-"));
        tracing::warn!(backend = self.name(), what, condition, cause, %error, "a request to the back end failed");
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer> {
        match self.attempt(&call).await {
            // A kept connection that had died under us: a new one is worth a try.
            Err(Error::Unreachable { source, .. })
                if call.may_repeat() && !source.is_connect() && !source.is_timeout() =>
            {
                self.attempt(&call).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Answer> {
        let unreachable = |source| Error::Unreachable { backend: self.name().to_owned(), source };
        let method = Method::from_bytes(call.method.as_bytes()).unwrap_or_default();
        let client = self.link.read().client.clone();
        let mut request = client
            .request(method, format!("{}{}", self.base, call.path))
            .header(header::AUTHORIZATION, &self.settings.authorization)
            .body(call.body.clone());
        if let Some(session) = call.session {
            request = request.header(headers::ACT_FOR, &*session.token);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let max = call.answer_bytes_max;
        if response.content_length().is_some_and(|length| length > max as u64) {
            return Err(Error::TooLarge(max));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > max {
                return Err(Error::TooLarge(max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }

    fn note_boot(&self, answer: &Answer) {
        let Some(boot) = answer.header(headers::BOOT) else { return };
        let mut known = self.boot.lock();
        if known.as_deref() == Some(boot) {
            return;
        }
        if known.replace(boot.into()).is_some() {
            tracing::info!(backend = self.name(), "the back end has restarted");
            self.restarted.notify_one();
        }
    }
}
