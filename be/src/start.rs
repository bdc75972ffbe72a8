//! Starting and stopping a back end: the same way for the binary, the tests and the demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use directpush_common::names::UserName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Administered};
use crate::auth::front_ends::FrontEnds;
use crate::auth::{Auth, AuthSettings};
use crate::auto_reply::{self, Responder};
use crate::config::{Config, Engine, LmtpListen};
use crate::dav::guard::Locks;
use crate::delivery::Post;
use crate::devices::Register;
use crate::error::{Error, WithCauses};
use crate::http::access_log::AccessLog;
use crate::http::body::Budget;
use crate::http::tls::Tls;
use crate::http::{Door, Places};
use crate::mailbox::addresses::AddressRules;
use crate::mailbox::find::Searches;
use crate::mailbox::{Mailboxes, SWEEP_EVERY, UserEvent, Watcher as _, now_secs, purge};
use crate::notifier::Notifier;
use crate::placement::Elsewhere;
use crate::server::Server;
use crate::store::{Store, StoreOptions};
use crate::submission::queue::files::{Directory, Files, Memory};
use crate::submission::queue::smart_host::SmartHost;
use crate::submission::queue::{self, Clock, Owner, Queue, QueueSettings};
use crate::submission::{PostOffice, Submission};
use crate::{http, lmtp, maintenance};

/// How long connections may take to finish what they do when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

const USERS_AT_A_TIME: usize = 1000;

/// Where LMTP can be reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpAddress {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A back end that runs. Dropping it does not stop it; its `shutdown` token does.
pub struct Running {
    /// Where HTTP can be reached.
    pub http: SocketAddr,
    /// Where HTTPS can be reached, if it can.
    pub https: Option<SocketAddr>,
    /// Where LMTP can be reached, in the order of the configuration.
    pub lmtp: Vec<LmtpAddress>,
    server: Arc<Server>,
    stop: CancellationToken,
    accepting: TaskTracker,
    background: TaskTracker,
    background_stop: CancellationToken,
    /// The mail queue: stopped after those who submit, before what it delivers to.
    sending: TaskTracker,
    sending_stop: CancellationToken,
}

type QueueOwner = Owner<Option<SmartHost>, PostOffice>;

/// Opens the mail queue of a configuration; its owner is still to be run.
async fn open_queue(
    config: &Config,
    post: Arc<Post>,
    settings: QueueSettings,
) -> Result<(Queue, QueueOwner), Error> {
    let path = config.state_dir.join("queue");
    let doing = format!("open the mail queue {}", path.display());
    let files: Arc<dyn Files> = if config.engine == Engine::Memory {
        Arc::new(Memory::default())
    } else {
        let opened = tokio::task::spawn_blocking(move || Directory::open(path)).await;
        Arc::new(opened.map_err(|_| Error::Task)?.map_err(Error::io(doing.clone()))?)
    };
    let wrong = |error: &dyn std::fmt::Display| std::io::Error::other(error.to_string());
    let smart_host = config.smart_host.clone().map(SmartHost::new).transpose();
    let smart_host = smart_host.map_err(|error| Error::io("use [smart_host]")(wrong(&error)))?;
    let name = config.smart_host.as_ref().map(|settings| settings.host.clone()).unwrap_or_default();
    let office = PostOffice::new(post, name);
    let clock: Clock = Arc::new(|| u64::try_from(now_secs()).unwrap_or(0));
    let opened = queue::open(files, settings, Arc::new(smart_host), Arc::new(office), clock).await;
    opened.map_err(|error| Error::io(doing)(wrong(&WithCauses(&error))))
}

/// The map of users, as it is now.
fn elsewhere(config: &Config) -> Result<Option<Arc<Elsewhere>>, Error> {
    let opened = config.placement.clone().map(Elsewhere::open).transpose();
    let wrong = |error| Error::io("read the map of users")(std::io::Error::other(error));
    Ok(opened.map_err(wrong)?.map(Arc::new))
}

/// What deliveries need of a configuration.
fn post(config: &Config, boxes: Arc<Mailboxes>, elsewhere: Option<Arc<Elsewhere>>) -> Post {
    let mail = &config.mail;
    Post {
        boxes,
        rules: AddressRules {
            default_domain: config.default_domain.clone(),
            delimiter: mail.delimiter,
            catch_all: mail.catch_all.clone(),
            elsewhere,
        },
        spam_marks: mail.spam_marks.clone(),
        duplicate_window: mail.duplicate_window,
        host: mail.host_name.clone(),
        replies: std::sync::OnceLock::new(),
    }
}

/// Opens the store of a configuration, making its directory (for this user alone) if need be.
pub async fn open_store(config: &Config) -> Result<Store, Error> {
    if config.engine == Engine::Memory {
        return Ok(Store::memory());
    }
    let dir = config.state_dir.clone();
    tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)
    })
    .await
    .map_err(|_| Error::Task)?
    .map_err(Error::io(format!("make the directory {}", config.state_dir.display())))?;
    let options = StoreOptions { cache_bytes: config.cache_bytes, ..StoreOptions::default() };
    Ok(Store::open(&config.state_dir.join("store"), &options).await?)
}

/// A store and its mail queue without a server, for the command line: nothing is served or sent.
pub struct Offline {
    pub administered: Administered,
    queue: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Offline {
    /// # Errors
    /// A server runs on this configuration, or the store or the queue cannot be opened.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let store = open_store(config).await?;
        // Bodies and removed mailboxes are dropped by the server when it runs next.
        let (boxes, _jobs) = Mailboxes::open(store).await?;
        boxes.set_default_quota(config.quota);
        let settings = QueueSettings { orders_only: true, ..config.submission.queue };
        let post = Arc::new(post(config, boxes.clone(), elsewhere(config)?));
        let (queue, owner) = open_queue(config, post, settings).await?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(owner.run(stop.clone()));
        let front_ends = Arc::new(FrontEnds::open(&config.state_dir, &config.front_ends)?);
        let administered = Administered {
            register: Arc::new(Register::new(boxes.clone())),
            boxes,
            queue,
            front_ends,
            state_dir: config.state_dir.clone(),
            policies: config.policies.clone(),
            mail_bytes_max: config.limits.mail_bytes_max,
        };
        Ok(Self { administered, queue: running, stop })
    }

    /// Makes everything last.
    pub async fn close(self) -> Result<(), Error> {
        self.stop.cancel();
        self.queue.await.map_err(|_| Error::Task)?;
        Ok(self.administered.boxes.store.close().await?)
    }
}

/// Starts a back end; it serves when this returns, and stops when `shutdown` is cancelled.
///
/// # Errors
/// The store cannot be opened, or a port or socket cannot be had.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<Running, Error> {
    let store = open_store(&config).await?;
    let (boxes, jobs) = Mailboxes::open(store).await?;
    boxes.set_default_quota(config.quota);
    boxes.set_devices_max(config.limits.devices_per_user_max);
    let elsewhere = elsewhere(&config)?;
    let tls = config.tls.as_ref().map(|tls| Tls::open(tls.files.clone())).transpose();
    let tls = tls.map_err(|error| Error::io("use [tls]")(std::io::Error::other(error)))?.map(Arc::new);
    let settings = AuthSettings {
        front_ends: Arc::new(FrontEnds::open(&config.state_dir, &config.front_ends)?),
        certificates: tls.as_ref().is_some_and(|tls| tls.asks_front_ends()),
        elsewhere: elsewhere.clone(),
        default_domain: config.default_domain.clone(),
        token_key: config.token_key.clone(),
    };
    let auth = Auth::new(boxes.clone(), settings).await?;
    let seen_at = config.tls.as_ref().map_or(config.http_listen, |tls| tls.listen);
    let notifier = Notifier::new(&config.limits, seen_at.ip())?;
    boxes.watch(notifier.clone());
    let access_log = AccessLog::open(&config.access_log)?;
    let mut boot = [0; 16];
    getrandom::fill(&mut boot)
        .map_err(|error| Error::io("draw the boot id")(std::io::Error::other(error.to_string())))?;

    let (door, http) = door(config.http_listen, None).await?;
    let mut doors = vec![door];
    let mut https = None;
    if let (Some(settings), Some(tls)) = (&config.tls, &tls) {
        let (door, at) = self::door(settings.listen, Some(tls.clone())).await?;
        doors.push(door);
        https = Some(at);
    }
    let (lmtp_listeners, lmtp) = bind_lmtp(&config).await?;
    let admin = match &config.admin_socket {
        Some(path) => Some((admin::listen(path)?, admin::owner(path)?)),
        None => None,
    };

    let post = Arc::new(post(&config, boxes.clone(), elsewhere.clone()));
    let (queue, sender) = open_queue(&config, post.clone(), config.submission.queue).await?;
    let relays = config.smart_host.is_some();
    let (replies, arrivals) = tokio::sync::mpsc::channel(auto_reply::WAITING_MAX);
    let _ = post.replies.set(replies);
    let responder = Responder::new(post.clone(), queue.clone(), relays, config.mail.auto_reply);
    let submission = Submission::new(post.clone(), config.submission.limits, relays, queue.clone());

    let server = Arc::new(Server {
        post,
        submission: Arc::new(submission),
        searches: Searches::default(),
        locks: Locks::default(),
        budget: Budget::new(config.limits.bodies_in_memory_bytes_max),
        boot: HEXLOWER.encode(&boot),
        boxes: boxes.clone(),
        auth,
        notifier: notifier.clone(),
        elsewhere,
        tls,
        register: Arc::new(Register::new(boxes.clone())),
        access_log,
        config,
    });
    let (accepting, background, background_stop) =
        (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
    let (sending, sending_stop) = (TaskTracker::new(), CancellationToken::new());
    sending.spawn(sender.run(sending_stop.clone()));
    sending.spawn(responder.run(arrivals, sending_stop.clone()));
    background.spawn(notifier.run(background_stop.clone()));
    background.spawn(purge::run(boxes.clone(), jobs, background_stop.clone()));
    background.spawn(maintenance::collect(boxes.store.clone(), background_stop.clone()));
    background.spawn(server.register.clone().run(background_stop.clone()));
    background.spawn(sweep(server.clone(), background_stop.clone()));
    let http_places = Places::new(server.config.limits);
    for door in doors {
        let (places, stop, tasks) = (http_places.clone(), shutdown.clone(), accepting.clone());
        accepting.spawn(http::accept(server.clone(), door, places, stop, tasks));
    }
    let places = Arc::new(Semaphore::new(server.config.limits.lmtp_connections_max));
    for listener in lmtp_listeners {
        let (places, stop, tasks) = (places.clone(), shutdown.clone(), accepting.clone());
        accepting.spawn(lmtp::accept(server.clone(), listener, places, stop, tasks));
    }
    if let Some((listener, owner)) = admin {
        let administered = administered(&server);
        accepting.spawn(admin::serve(administered, listener, owner, shutdown.clone(), accepting.clone()));
    }
    tracing::info!(%http, ?https, ?lmtp, boot = %server.boot, "the back end serves");
    Ok(Running {
        http,
        https,
        lmtp,
        server,
        stop: shutdown,
        accepting,
        background,
        background_stop,
        sending,
        sending_stop,
    })
}

/// Binds an address for HTTP, or for HTTPS.
async fn door(address: SocketAddr, tls: Option<Arc<Tls>>) -> Result<(Door, SocketAddr), Error> {
    let doing = || format!("listen on {address}");
    let listener = TcpListener::bind(address).await.map_err(Error::io(doing()))?;
    let at = listener.local_addr().map_err(Error::io(doing()))?;
    Ok((Door { listener, tls }, at))
}

fn administered(server: &Server) -> Administered {
    Administered {
        boxes: server.boxes.clone(),
        queue: server.submission.queue().clone(),
        front_ends: server.auth.front_ends().clone(),
        state_dir: server.config.state_dir.clone(),
        register: server.register.clone(),
        policies: server.config.policies.clone(),
        mail_bytes_max: server.config.limits.mail_bytes_max,
    }
}

async fn bind_lmtp(config: &Config) -> Result<(Vec<lmtp::Listener>, Vec<LmtpAddress>), Error> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for listen in &config.lmtp_listen {
        match listen {
            LmtpListen::Unix(path) => {
                let listener = admin::bind_unix(path)?;
                // Whoever may enter its directory may deliver: the MTA runs as another user.
                admin::set_mode(path, 0o666)?;
                listeners.push(lmtp::Listener::Unix(listener, path.clone()));
                addresses.push(LmtpAddress::Unix(path.clone()));
            }
            LmtpListen::Tcp(address) => {
                let doing = || format!("listen on {address} for LMTP");
                let listener = TcpListener::bind(address).await.map_err(Error::io(doing()))?;
                addresses.push(LmtpAddress::Tcp(listener.local_addr().map_err(Error::io(doing()))?));
                listeners.push(lmtp::Listener::Tcp(listener));
            }
        }
    }
    Ok((listeners, addresses))
}

async fn sweep(server: Arc<Server>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {
                server.boxes.sweep();
                server.locks.sweep();
            }
        }
    }
}

impl Running {
    /// What the parts share: mailboxes, notifier, authentication.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// What an administrator's orders are carried out on.
    pub fn administered(&self) -> Administered {
        administered(&self.server)
    }

    /// What reads the map of users and the certificates again.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.server.clone())
    }

    /// Adds a user, in-process.
    pub async fn add_user(&self, name: &str, password: &str) -> Result<UserName, Error> {
        let name: UserName = name.parse().map_err(|_| Error::Forbidden("this cannot be a user's name"))?;
        let hash = self.server.auth.hash(password.to_owned()).await?;
        self.server.boxes.add_user(&name, hash).await?;
        Ok(name)
    }

    /// Waits for the stop: refuses what is new, lets what runs come to its end, then closes the store.
    pub async fn finished(self) -> Result<(), Error> {
        self.stop.cancelled().await;
        self.accepting.close();
        if tokio::time::timeout(DRAIN, self.accepting.wait()).await.is_err() {
            tracing::warn!(left = self.accepting.len(), "connections did not end in time");
        }
        if let Some(path) = &self.server.config.admin_socket {
            let _ = std::fs::remove_file(path);
        }
        self.sending_stop.cancel();
        self.sending.close();
        self.sending.wait().await;
        self.background_stop.cancel();
        self.background.close();
        self.background.wait().await;
        if let Some(log) = &self.server.access_log {
            log.flush();
        }
        self.server.boxes.store.close().await?;
        tracing::info!("the back end has stopped");
        Ok(())
    }
}

/// Reads again what may change while a back end runs: the map of users, and the certificates.
#[derive(Clone)]
pub struct Reloader(Arc<Server>);

impl Reloader {
    /// Reads all of it. What has a mistake is told in the log and stays as it was. Devices that wait here and whose mailboxes
    /// are elsewhere now are told to ask again.
    pub async fn reload(&self) {
        let Server { elsewhere, tls, .. } = &*self.0;
        // Small files, but files.
        let (elsewhere, tls) = (elsewhere.clone(), tls.clone());
        let read = tokio::task::spawn_blocking(move || {
            (elsewhere.map(|elsewhere| elsewhere.reload()), tls.map(|tls| tls.reload()))
        });
        let Ok((map, certificates)) = read.await else { return };
        match certificates {
            Some(Ok(())) => tracing::info!("the certificates were read again"),
            Some(Err(error)) => tracing::error!(%error, "the certificates stay as they were"),
            None => {}
        }
        match map {
            Some(Ok(true)) => match self.tell().await {
                Ok(moved) => tracing::info!(moved, "the map of users is another"),
                Err(error) => tracing::error!(error = %WithCauses(&error), "not all who moved were told"),
            },
            Some(Err(mistakes)) => tracing::error!("the map of users stays as it was:\n{mistakes}"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Tells those who are elsewhere by the map; says how many they are.
    async fn tell(&self) -> Result<usize, Error> {
        let Server { boxes, auth, notifier, .. } = &*self.0;
        let (mut after, mut moved): (Option<UserName>, usize) = (None, 0);
        loop {
            let users = boxes.users.list(after.as_ref().map(UserName::as_str), USERS_AT_A_TIME).await?;
            for (name, user) in &users {
                if auth.elsewhere(name).is_some() {
                    notifier.user_event(user.mailbox, UserEvent::Policy);
                    moved += 1;
                }
            }
            let last = users.len() < USERS_AT_A_TIME;
            match users.into_iter().last() {
                Some((name, _)) if !last => after = Some(name),
                _ => return Ok(moved),
            }
        }
    }
}
