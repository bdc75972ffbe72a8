//! What an administrator does to users: one JSON object per line, one JSON answer per line, over a unix
//! socket that only the server's own user (and root) can open; or by the command line itself when no
//! server runs. Both execute the same [`Order`].

pub mod devices;
pub mod front_ends;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::mail::oof::Oof;
use directpush_common::names::UserName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::front_ends::FrontEnds;
use crate::auth::passwords;
use crate::config::policy::Policies;
use crate::config::{QUOTA_BYTES_MAX, QUOTA_ITEMS_MAX};
use crate::devices::Register;
use crate::error::{Error, WithCauses};
use crate::mailbox::condition::Conditions;
use crate::mailbox::folders::DEPTH_MAX;
use crate::mailbox::keys::FOLDERS_MAX;
use crate::mailbox::quota::{Quota, QuotaEdit, Usage as Held};
use crate::mailbox::users::Edit;
use crate::mailbox::{Mailboxes, directory};
use crate::migration::{self, STEP_BYTES_MAX, Step, Told};
use crate::store::{Copied, Usage};
use crate::submission::queue::list::Listed as Queued;
use crate::submission::queue::{Id, Queue, QueueError};
use devices::{DeviceAnswer, DeviceOrder};
use front_ends::{FrontEndAnswer, FrontEndOrder};

/// Bytes of a line, at most.
const LINE_BYTES_MAX: u64 = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
/// Users listed at a time.
const PAGE: usize = 1000;
/// Messages of the queue listed at a time; each may have many recipients.
const QUEUE_PAGE: usize = 100;

/// Something to do.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    AddUser {
        name: String,
        password: String,
        /// `password` is a hash in PHC form already, from another server.
        #[serde(default)]
        hashed: bool,
    },
    Password {
        name: String,
        password: String,
        #[serde(default)]
        hashed: bool,
    },
    SetUser {
        name: String,
        push: Option<bool>,
        sync: Option<bool>,
        disabled: Option<bool>,
        #[serde(default)]
        display_name: Option<String>,
        #[serde(default)]
        hidden: Option<bool>,
        #[serde(default)]
        device_passwords_only: Option<bool>,
        /// A policy of the configuration, `none`, or empty for the default one.
        #[serde(default)]
        policy: Option<String>,
    },
    /// Gives a user a quota of their own, part by part.
    SetQuota {
        name: String,
        parts: QuotaParts,
    },
    /// What a user's mailbox holds and may hold.
    Quota {
        name: String,
    },
    RemoveUser {
        name: String,
    },
    /// The hash of a user's password, to take it to another back end.
    Hash {
        name: String,
    },
    /// The next users after a name, at most a page.
    ListUsers {
        after: Option<String>,
    },
    /// Back the store up into a directory of the server's host.
    Backup {
        target: PathBuf,
    },
    /// What the store takes.
    Usage,
    AddAlias {
        name: String,
        address: String,
    },
    RemoveAlias {
        name: String,
        address: String,
    },
    ListAliases {
        name: String,
    },
    /// What is answered while a user is away.
    Oof {
        name: String,
    },
    SetOof {
        name: String,
        oof: Oof,
    },
    /// The next messages of the mail queue after one, of a user or of all, at most a page.
    ListQueue {
        user: Option<String>,
        after: Option<String>,
    },
    /// Tries a message of the queue, or all, now.
    RetryQueue {
        id: Option<String>,
    },
    RemoveQueued {
        id: String,
    },
    FrontEnd(FrontEndOrder),
    Device(DeviceOrder),
    /// A step of an export or an import. Messages to be added follow its line, and those asked for follow the answer's.
    Migrate {
        step: Step,
    },
}

/// A user as `user list` shows it.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch by itself")]
pub struct Listed {
    pub name: String,
    pub push: bool,
    pub sync: bool,
    pub disabled: bool,
    /// Unix seconds.
    pub created: i64,
    /// How the person is called; empty = nobody said.
    #[serde(default)]
    pub display_name: String,
    /// Not shown in the directory.
    #[serde(default)]
    pub hidden: bool,
}

/// A part of a quota, as an administrator sets it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaPart {
    /// What `[quota]` of the configuration says.
    Default,
    /// The user's own; 0 = no bound.
    Own(u64),
}

/// The parts of a quota to be set; what is not named stays.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaParts {
    pub bytes: Option<QuotaPart>,
    pub items: Option<QuotaPart>,
    pub folders: Option<QuotaPart>,
    pub depth: Option<QuotaPart>,
    pub property_bytes: Option<QuotaPart>,
}

impl QuotaParts {
    /// The quota with these parts set; or why one cannot be.
    fn over(&self, own: QuotaEdit) -> Result<QuotaEdit, String> {
        let set = |what: &str, part: Option<QuotaPart>, own: Option<u64>, max: u64| match part {
            None => Ok(own),
            Some(QuotaPart::Default) => Ok(None),
            Some(QuotaPart::Own(number)) if number <= max => Ok(Some(number)),
            Some(QuotaPart::Own(_)) => Err(format!("a quota of {what} is at most {max}")),
        };
        Ok(QuotaEdit {
            bytes: set("bytes", self.bytes, own.bytes, QUOTA_BYTES_MAX)?,
            items: set("items", self.items, own.items, QUOTA_ITEMS_MAX)?,
            folders: set("folders", self.folders, own.folders, FOLDERS_MAX as u64)?,
            depth: set("depth", self.depth, own.depth, DEPTH_MAX as u64)?,
            property_bytes: set("property bytes", self.property_bytes, own.property_bytes, QUOTA_BYTES_MAX)?,
        })
    }
}

/// What `user quota` shows of one part.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct QuotaLine {
    /// None: it is not counted.
    pub used: Option<u64>,
    /// 0 = no bound.
    pub limit: u64,
    /// Whether the limit is this user's own.
    pub own: bool,
}

/// What a mailbox holds and may hold.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct QuotaTold {
    pub bytes: QuotaLine,
    pub items: QuotaLine,
    pub folders: QuotaLine,
    pub depth: QuotaLine,
    pub property_bytes: QuotaLine,
    /// Whether the user should be warned.
    pub warning: bool,
}

impl QuotaTold {
    fn new(held: &Held, quota: &Quota, own: &QuotaEdit) -> Self {
        let line = |used, limit, own: Option<u64>| QuotaLine { used, limit, own: own.is_some() };
        Self {
            bytes: line(Some(held.bytes), quota.bytes, own.bytes),
            items: line(Some(held.items), quota.items, own.items),
            folders: line(Some(held.folders), quota.folders, own.folders),
            depth: line(None, quota.depth, own.depth),
            property_bytes: line(Some(held.property_bytes), quota.property_bytes, own.property_bytes),
            warning: quota.warning(held).is_some(),
        }
    }
}

/// The answer to an [`Order`].
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done,
    BackedUp(Copied),
    Usage(Usage),
    Quota(QuotaTold),
    Users {
        users: Vec<Listed>,
        more: bool,
    },
    Aliases(Vec<String>),
    Hash(String),
    Oof(Oof),
    Queue {
        messages: Vec<Queued>,
        more: bool,
    },
    /// So many messages are concerned.
    Count(usize),
    FrontEnd(FrontEndAnswer),
    Device(DeviceAnswer),
    Migrated(Told),
    Refused(String),
}

impl Order {
    /// Bytes that follow its line.
    fn payload_bytes(&self) -> u64 {
        if let Self::Migrate { step } = self { step.payload_bytes() } else { 0 }
    }
}

impl Answer {
    /// Bytes that follow its line.
    fn payload_bytes(&self) -> u64 {
        match self {
            Self::Migrated(Told::Messages(sizes)) => {
                sizes.iter().flatten().fold(0, |sum, size| size.saturating_add(sum))
            }
            _ => 0,
        }
    }
}

/// What orders are carried out on.
#[derive(Clone)]
pub struct Administered {
    pub boxes: Arc<Mailboxes>,
    pub queue: Queue,
    pub front_ends: Arc<FrontEnds>,
    pub state_dir: PathBuf,
    pub register: Arc<Register>,
    pub policies: Arc<Policies>,
    /// The largest message that is taken.
    pub mail_bytes_max: u64,
}

/// Executes an order.
pub async fn execute(on: &Administered, order: Order) -> Answer {
    match attempt(on, order).await {
        Ok(answer) => answer,
        Err(error) => Answer::Refused(error),
    }
}

/// Executes an order with the bytes that follow it; gives those that follow the answer.
pub async fn execute_with(on: &Administered, order: Order, payload: Bytes) -> (Answer, Bytes) {
    let Order::Migrate { step } = order else { return (execute(on, order).await, Bytes::new()) };
    match migration::carry_out(&on.boxes, step, payload, on.mail_bytes_max).await {
        Ok((told, bytes)) => (Answer::Migrated(told), bytes),
        Err(error) => (Answer::Refused(error), Bytes::new()),
    }
}

async fn attempt(on: &Administered, order: Order) -> Result<Answer, String> {
    let Administered { boxes, queue, .. } = on;
    let told = |error: Error| WithCauses(&error).to_string();
    let stuck = |error: QueueError| WithCauses(&error).to_string();
    match order {
        Order::AddUser { name, password, hashed } => {
            let name = user(&name)?;
            let hash = hash(password, hashed).await?;
            boxes.add_user(&name, hash).await.map_err(told)?;
            tracing::info!(user = %name, "user added");
        }
        Order::Password { name, password, hashed } => {
            let name = user(&name)?;
            let edit = Edit { hash: Some(hash(password, hashed).await?), ..Edit::default() };
            boxes.edit_user(&name, edit).await.map_err(told)?;
            tracing::info!(user = %name, "password changed");
        }
        Order::SetUser {
            name,
            push,
            sync,
            disabled,
            display_name,
            hidden,
            device_passwords_only,
            policy,
        } => {
            let name = user(&name)?;
            let display_name = display_name.map(|text| directory::display_name(&text)).transpose()?;
            if let Some(policy) = policy.as_ref().filter(|policy| !on.policies.has(policy)) {
                let known: Vec<&str> = on.policies.names().collect();
                return Err(format!("{policy:?} is no policy of be.toml; there are: {}", known.join(", ")));
            }
            let edit = Edit {
                hash: None,
                push,
                sync,
                disabled,
                display_name,
                hidden,
                device_passwords_only,
                policy,
            };
            boxes.edit_user(&name, edit).await.map_err(told)?;
            tracing::info!(user = %name, ?push, ?sync, ?disabled, "switches set");
        }
        Order::SetQuota { name, parts } => {
            let name = user(&name)?;
            let (_, _, own) = boxes.quota(&name).await.map_err(told)?;
            boxes.set_quota(&name, parts.over(own)?).await.map_err(told)?;
            tracing::info!(user = %name, ?parts, "quota set");
        }
        Order::Quota { name } => {
            let (held, quota, own) = boxes.quota(&user(&name)?).await.map_err(told)?;
            return Ok(Answer::Quota(QuotaTold::new(&held, &quota, &own)));
        }
        Order::RemoveUser { name } => {
            let name = user(&name)?;
            boxes.remove_user(&name).await.map_err(told)?;
            tracing::info!(user = %name, "user removed");
        }
        Order::Hash { name } => {
            let found = boxes.users.with_hash(&[user(&name)?]).await.map_err(told)?;
            let (_, hash) = found.ok_or_else(|| told(Error::NoUser))?;
            tracing::info!(user = name, "the hash of the password was given out");
            return Ok(Answer::Hash(hash));
        }
        Order::ListUsers { after } => {
            let found = boxes.users.list(after.as_deref(), PAGE).await.map_err(told)?;
            let more = found.len() == PAGE;
            let users = found
                .into_iter()
                .map(|(name, user)| Listed {
                    name: name.to_string(),
                    push: user.push,
                    sync: user.sync,
                    disabled: user.disabled,
                    created: user.created,
                    display_name: user.display_name,
                    hidden: user.hidden,
                })
                .collect();
            return Ok(Answer::Users { users, more });
        }
        Order::Backup { target } => {
            let copied = boxes.store.backup(&target, |_| ()).await.map_err(|error| told(error.into()))?;
            tracing::info!(target = %target.display(), bodies = copied.bodies, "backed up");
            return Ok(Answer::BackedUp(copied));
        }
        Order::Usage => {
            return Ok(Answer::Usage(boxes.store.usage().await.map_err(|error| told(error.into()))?));
        }
        Order::AddAlias { name, address } => {
            let (name, address) = (user(&name)?, alias(&address)?);
            boxes.add_alias(&name, &address).await.map_err(told)?;
            tracing::info!(user = %name, alias = %address, "alias added");
        }
        Order::RemoveAlias { name, address } => {
            let (name, address) = (user(&name)?, alias(&address)?);
            boxes.remove_alias(&name, &address).await.map_err(told)?;
            tracing::info!(user = %name, alias = %address, "alias removed");
        }
        Order::ListAliases { name } => {
            let aliases = boxes.aliases(&user(&name)?).await.map_err(told)?;
            return Ok(Answer::Aliases(aliases.iter().map(ToString::to_string).collect()));
        }
        Order::Oof { name } => {
            let mailbox = mailbox(boxes, &name).await?;
            return Ok(Answer::Oof(boxes.oof(mailbox).await.map_err(told)?.oof));
        }
        Order::SetOof { name, oof } => {
            let (mailbox, state) = (mailbox(boxes, &name).await?, oof.state);
            boxes.put_oof(mailbox, oof, Conditions::default()).await.map_err(told)?;
            tracing::info!(user = %name, ?state, "automatic replies set");
        }
        Order::Migrate { .. } => return Err("an order that has bytes behind it".into()),
        Order::ListQueue { user: name, after } => {
            let name = name.as_deref().map(user).transpose()?;
            let after = after.as_deref().map(queued).transpose()?;
            let messages = queue.list(name, after, QUEUE_PAGE).await.map_err(stuck)?;
            let more = messages.len() == QUEUE_PAGE;
            return Ok(Answer::Queue { messages, more });
        }
        Order::RetryQueue { id } => {
            let count = queue.retry(id.as_deref().map(queued).transpose()?).await.map_err(stuck)?;
            return Ok(Answer::Count(count));
        }
        Order::RemoveQueued { id } => {
            if !queue.remove(queued(&id)?).await.map_err(stuck)? {
                return Err(format!("there is no message {id} in the queue"));
            }
        }
        Order::Device(order) => return devices::execute(on, order).await.map(Answer::Device),
        Order::FrontEnd(order) => {
            let done = front_ends::execute(on.front_ends.clone(), on.state_dir.clone(), order).await;
            return done.map(Answer::FrontEnd);
        }
    }
    Ok(Answer::Done)
}

/// The mailbox of a user.
async fn mailbox(boxes: &Mailboxes, name: &str) -> Result<u64, String> {
    let account = boxes.users.account(&user(name)?).await.map_err(|error| WithCauses(&error).to_string())?;
    account.map(|account| account.mailbox).ok_or_else(|| Error::NoUser.to_string())
}

fn alias(address: &str) -> Result<UserName, String> {
    address.parse().map_err(|error| format!("{address:?} cannot be an alias: {error}"))
}

fn queued(id: &str) -> Result<Id, String> {
    id.parse().map_err(|()| format!("{id:?} is not the id of a message: 16 hex digits"))
}

fn user(name: &str) -> Result<UserName, String> {
    name.parse().map_err(|error| format!("{name:?} cannot be a user: {error}"))
}

/// What is stored of a password. One that is hashed already is taken as it is, if a log-on can check it at a bearable cost.
async fn hash(password: String, hashed: bool) -> Result<String, String> {
    if hashed {
        let refused = || "not a hash of argon2 in PHC form, or one that costs too much to check".to_owned();
        return passwords::is_bearable(&password).then_some(password).ok_or_else(refused);
    }
    if password.is_empty() || password.len() > 1024 || password.contains('\0') {
        return Err("a password has 1 to 1024 bytes".into());
    }
    let hashed = tokio::task::spawn_blocking(move || password_auth::generate_hash(password)).await;
    hashed.map_err(|error| error.to_string())
}

/// Makes the socket, for this user alone. One left by a process that is gone is replaced.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let listener = bind_unix(path)?;
    set_mode(path, 0o600)?;
    Ok(listener)
}

/// Sets the mode of a socket just made.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io(format!("set the mode of {}", path.display())))
}

/// Binds a unix socket. A file there that nobody listens on any more is removed first.
pub fn bind_unix(path: &Path) -> Result<UnixListener, Error> {
    let doing = || format!("listen on {}", path.display());
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt as _;
        let stale = meta.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err();
        if stale {
            std::fs::remove_file(path).map_err(Error::io(doing()))?;
        }
    }
    UnixListener::bind(path).map_err(Error::io(doing()))
}

/// Serves orders until `stop`.
pub async fn serve(
    on: Administered,
    listener: UnixListener,
    owner: u32,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let peer = stream.peer_cred().map(|cred| cred.uid());
        if !peer.is_ok_and(|uid| uid == owner || uid == 0) {
            tracing::warn!("somebody else's process knocked at the administrator's socket");
            continue;
        }
        let on = on.clone();
        tasks.spawn(async move {
            let _ = converse(&on, stream).await;
        });
    }
}

/// The user who owns a file: for [`serve`], of the socket just made.
pub fn owner(path: &Path) -> Result<u32, Error> {
    std::fs::metadata(path).map(|meta| meta.uid()).map_err(Error::io(format!("look at {}", path.display())))
}

async fn converse(on: &Administered, stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut read).take(LINE_BYTES_MAX);
        match tokio::time::timeout(PATIENCE, bounded.read_line(&mut line)).await {
            Ok(Ok(1..)) if line.ends_with('\n') => {}
            _ => return Ok(()),
        }
        let (answer, bytes) = match serde_json::from_str::<Order>(&line) {
            Ok(order) => {
                let bound = on.mail_bytes_max.max(STEP_BYTES_MAX);
                let Some(payload) = payload(&mut read, order.payload_bytes(), bound).await else {
                    return Ok(());
                };
                execute_with(on, order, payload).await
            }
            // Not the parser's own words: they quote the line, and there may be a password in it.
            Err(_) => (Answer::Refused("not an order".into()), Bytes::new()),
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        write.write_all(&bytes).await?;
    }
}

/// The bytes behind a line; none if they are too many, or do not come.
async fn payload(read: &mut (impl AsyncRead + Unpin), bytes: u64, bound: u64) -> Option<Bytes> {
    let mut payload = vec![0; usize::try_from(bytes).ok().filter(|_| bytes <= bound)?];
    let came = tokio::time::timeout(PATIENCE, read.read_exact(&mut payload)).await;
    matches!(came, Ok(Ok(_))).then(|| payload.into())
}

/// Sends one order to a running server; none if no server listens there.
pub async fn ask(path: &Path, order: &Order) -> Result<Option<Answer>, Error> {
    Ok(ask_with(path, order, Bytes::new()).await?.map(|(answer, _)| answer))
}

/// Sends one order with the bytes that follow it; gives the answer with its own.
pub async fn ask_with(path: &Path, order: &Order, payload: Bytes) -> Result<Option<(Answer, Bytes)>, Error> {
    let Ok(mut stream) = UnixStream::connect(path).await else { return Ok(None) };
    let doing = || format!("ask the server at {}", path.display());
    let mut text = serde_json::to_string(order).map_err(|_| Error::Task)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await.map_err(Error::io(doing()))?;
    stream.write_all(&payload).await.map_err(Error::io(doing()))?;
    let (mut line, mut stream) = (String::new(), BufReader::new(stream));
    stream.read_line(&mut line).await.map_err(Error::io(doing()))?;
    let no_answer = || Error::io(doing())(std::io::Error::other("no answer"));
    let answer: Answer = serde_json::from_str(&line).map_err(|_| no_answer())?;
    let mut bytes = vec![0; usize::try_from(answer.payload_bytes()).map_err(|_| no_answer())?];
    stream.read_exact(&mut bytes).await.map_err(Error::io(doing()))?;
    Ok(Some((answer, bytes.into())))
}
