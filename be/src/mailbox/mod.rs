//! Mailboxes: the model, written once over the store's `Index`.
//!
//! Each open mailbox has one owner. Its writes are serial: number, commit, publish, notify, in that
//! order, so that nobody sees a change before it is durable, a number once shown is never reused, and
//! notifications leave in the order of commits. Different mailboxes commit in parallel, which is what
//! the engine's group commit lives on. Readers take the published state and never wait for a writer.
//!
//! A write runs in a task of its own: a client that hangs up neither recalls it nor loses its NOTIFY.
//!
//! Not here: keys and bytes (`keys`, `record`), HTTP (`dav`), who is woken (`notifier`).

pub mod addresses;
pub mod aliases;
mod codec;
pub mod condition;
pub mod deliver;
pub mod directory;
pub mod find;
pub mod folders;
#[cfg(test)]
mod history_tests;
pub mod import;
pub mod items;
pub mod keys;
pub mod kind;
pub mod oof;
pub mod properties;
pub mod purge;
pub mod quota;
pub mod record;
pub mod scan;
pub mod state;
pub mod transfer;
pub mod tree;
pub mod users;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use directpush_common::change::Entry;
use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::names::{DeviceKey, Guid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::store::{BodyId, Commit, Read, Store};
use folders::Tree;
use record::{Folder, Head, Record};

/// Who wants to know of changes: the notifier. Called in commit order, with the owner's lock held,
/// so it must be quick and must not come back to the mailbox.
pub trait Watcher: Send + Sync {
    /// One durable commit did this, in this order.
    fn changed(&self, mailbox: u64, changes: &[FolderChange]);
    /// The folder tree changed, through this device if one did it.
    fn hierarchy(&self, mailbox: u64, by: Option<&DeviceKey>);
    /// Something that ends the use of every subscription of the mailbox.
    fn user_event(&self, mailbox: u64, event: UserEvent);
    /// The same of one device, or of all.
    fn device_event(&self, mailbox: u64, device: Option<&DeviceKey>, event: DeviceEvent);
}

/// What an administrator does to a user that devices must learn of at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UserEvent {
    Password,
    Disabled,
    Removed,
    /// Push or sync was switched.
    Policy,
}

/// What one commit did to one item of a folder.
#[derive(Clone, Debug)]
pub struct FolderChange {
    pub folder: u64,
    pub entry: Entry,
}

/// A mailbox at one moment.
#[derive(Clone, Debug)]
pub struct State {
    pub head: Head,
    pub tree: Tree,
}

/// One mailbox in memory: its published state, and the lock that makes its writes serial.
pub struct Mailbox {
    pub id: u64,
    writer: Arc<tokio::sync::Mutex<()>>,
    state: RwLock<Option<Arc<State>>>,
    used: AtomicU32,
}

/// All mailboxes of this back end. One per process; clones of the `Arc` share it.
pub struct Mailboxes {
    pub store: Store,
    pub installation: Guid,
    pub users: users::Users,
    shards: Vec<Mutex<HashMap<u64, Arc<Mailbox>>>>,
    watcher: OnceLock<Arc<dyn Watcher>>,
    oofs: oof::Oofs,
    dropped: mpsc::UnboundedSender<purge::Job>,
    minute_ticks: AtomicU32,
    /// What holds for mailboxes without a quota of their own.
    quota: RwLock<quota::Quota>,
    /// Devices of one user, at most.
    devices_max: AtomicUsize,
}

const SHARDS: usize = 64;
/// A mailbox nobody used for two to three sweeps is let go; its subscriptions live on in the notifier.
pub const SWEEP_EVERY: Duration = Duration::from_secs(10);
const IDLE_SWEEPS: u32 = 2;

/// Seconds since 1970 by the wall clock.
pub fn now_secs() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A random number that is not 0.
pub fn random_number() -> Result<u64, Error> {
    loop {
        let n = getrandom::u64()
            .map_err(|error| Error::io("draw a random number")(std::io::Error::other(error.to_string())))?;
        // 53 bits: it also fits the numbers of JSON and of spreadsheets that read our logs.
        if n >> 11 != 0 {
            return Ok(n >> 11);
        }
    }
}

/// Reads a record out of an answer.
pub(crate) fn decode<R: Record>(mailbox: u64, bytes: &[u8]) -> Result<R, Error> {
    R::decode(bytes).map_err(|source| Error::Record { mailbox, source })
}

impl Mailboxes {
    /// Opens the installation, making its GUID on the first start. The receiver goes to [`purge::run`].
    pub async fn open(store: Store) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<purge::Job>), Error> {
        let installation = users::installation(&store).await?;
        let (dropped, jobs) = mpsc::unbounded_channel();
        let boxes = Arc::new(Self {
            users: users::Users::new(store.clone()),
            store,
            installation,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            watcher: OnceLock::new(),
            oofs: oof::Oofs::default(),
            dropped,
            minute_ticks: AtomicU32::new(0),
            quota: RwLock::default(),
            devices_max: AtomicUsize::new(state::DEVICES_MAX),
        });
        Ok((boxes, jobs))
    }

    /// Names the one who wants to know of changes. Once, before the first write.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        let _ = self.watcher.set(watcher);
    }

    /// How many devices one user may have; at most [`state::DEVICES_MAX`].
    pub fn set_devices_max(&self, max: usize) {
        self.devices_max.store(max.min(state::DEVICES_MAX), Ordering::Relaxed);
    }

    /// Tells a device that waits, or all of a mailbox, that it is to ask again.
    pub(crate) fn tell_device(&self, mailbox: u64, device: Option<&DeviceKey>, event: DeviceEvent) {
        if let Some(watcher) = self.watcher() {
            watcher.device_event(mailbox, device, event);
        }
    }

    fn watcher(&self) -> Option<&Arc<dyn Watcher>> {
        self.watcher.get()
    }

    fn shard(&self, mailbox: u64) -> &Mutex<HashMap<u64, Arc<Mailbox>>> {
        let at = usize::try_from(mailbox % SHARDS as u64).unwrap_or(0);
        &self.shards[at]
    }

    fn entry(&self, mailbox: u64) -> Arc<Mailbox> {
        let mut shard = self.shard(mailbox).lock();
        let found = shard.entry(mailbox).or_insert_with(|| {
            Arc::new(Mailbox {
                id: mailbox,
                writer: Arc::default(),
                state: RwLock::new(None),
                used: AtomicU32::new(0),
            })
        });
        found.used.store(self.minute_ticks.load(Ordering::Relaxed), Ordering::Relaxed);
        found.clone()
    }

    /// The mailbox as it stands.
    pub async fn state(&self, mailbox: u64) -> Result<Arc<State>, Error> {
        let entry = self.entry(mailbox);
        let published = entry.state.read().clone();
        if let Some(state) = published {
            return Ok(state);
        }
        // Loading excludes writing: else a commit between our read and our publishing were forgotten.
        let _writing = entry.writer.lock().await;
        self.load(&entry).await
    }

    /// With the writer's lock held.
    async fn load(&self, entry: &Mailbox) -> Result<Arc<State>, Error> {
        let published = entry.state.read().clone();
        if let Some(state) = published {
            return Ok(state);
        }
        let found = self
            .store
            .index
            .read(
                Read::default()
                    .get(keys::head(entry.id))
                    .range(keys::folders(entry.id))
                    .range(keys::all_garbage(entry.id)),
            )
            .await?;
        if found.ranges.get(1).is_some_and(|garbage| !garbage.is_empty()) {
            self.purge(purge::Job::Folders(entry.id));
        }
        let head = found.gets.first().and_then(Option::as_ref).ok_or(Error::NoUser)?;
        let head: Head = decode(entry.id, head)?;
        let mut folders = Vec::new();
        for (key, value) in found.ranges.first().into_iter().flatten() {
            folders.push((keys::last_number(key), decode::<Folder>(entry.id, value)?));
        }
        self.count(entry.id, &head, &mut folders).await?;
        let state = Arc::new(State { head, tree: Tree::new(folders) });
        *entry.state.write() = Some(state.clone());
        Ok(state)
    }

    /// Counts what folders hold whose records are older than quotas, once; the head is as it was read.
    async fn count(&self, mailbox: u64, head: &Head, folders: &mut [(u64, Folder)]) -> Result<(), Error> {
        if folders.iter().all(|(_, folder)| folder.held.counted) {
            return Ok(());
        }
        let mut commit = Commit::default().expect(keys::head(mailbox), Some(head.encode()));
        for (counter, folder) in folders.iter_mut().filter(|(_, folder)| !folder.held.counted) {
            folder.held = self.measure(mailbox, *counter).await?;
            commit = commit.put(keys::folder(mailbox, *counter), folder.encode());
        }
        Ok(self.store.index.commit(commit).await?)
    }

    /// Runs a write under the mailbox's lock, in a task of its own.
    pub(crate) async fn write<T, F, W>(self: &Arc<Self>, mailbox: u64, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Writer) -> W + Send + 'static,
        W: Future<Output = Result<T, Error>> + Send,
    {
        let boxes = self.clone();
        let work = async move {
            let entry = boxes.entry(mailbox);
            let writing = entry.writer.clone().lock_owned().await;
            let state = boxes.load(&entry).await?;
            operation(Writer { boxes, entry, state, _writing: writing }).await
        };
        tokio::spawn(work).await.map_err(|_| Error::Task)?
    }

    /// Runs something under the mailbox's lock that needs no state of it.
    pub(crate) async fn write_bare<T, W>(self: &Arc<Self>, mailbox: u64, operation: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let entry = self.entry(mailbox);
        let work = async move {
            let _writing = entry.writer.lock().await;
            operation.await
        };
        tokio::spawn(work).await.map_err(|_| Error::Task)?
    }

    /// Takes over a head that was committed beside the published state; none = nothing is known now.
    pub(crate) fn adopt_head(&self, mailbox: u64, head: Option<Head>) {
        let entry = self.entry(mailbox);
        let mut published = entry.state.write();
        *published = match (published.take(), head) {
            (Some(state), Some(head)) => Some(Arc::new(State { head, tree: state.tree.clone() })),
            _ => None,
        };
    }

    /// Forgets what memory holds of a mailbox; the next use reads it again.
    pub(crate) fn forget(&self, mailbox: u64) {
        *self.entry(mailbox).state.write() = None;
    }

    /// Lets go of mailboxes and accounts that nobody used lately. Called every [`SWEEP_EVERY`].
    pub fn sweep(&self) {
        let now = self.minute_ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Whoever works with a mailbox holds its Arc: two owners can never exist.
            shard.retain(|_, mailbox| {
                Arc::strong_count(mailbox) > 1
                    || now.wrapping_sub(mailbox.used.load(Ordering::Relaxed)) < IDLE_SWEEPS
            });
            if shard.capacity() > 4 * shard.len() + 16 {
                shard.shrink_to_fit();
            }
        }
        self.users.sweep();
    }

    /// Mailboxes held in memory.
    pub fn open_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Tells the collector that a body lost a use.
    pub(crate) fn body_dropped(&self, body: BodyId) {
        let _ = self.dropped.send(purge::Job::Body(body));
    }

    pub(crate) fn purge(&self, job: purge::Job) {
        let _ = self.dropped.send(job);
    }
}

/// The one who writes to a mailbox now.
pub(crate) struct Writer {
    pub(crate) boxes: Arc<Mailboxes>,
    pub(crate) entry: Arc<Mailbox>,
    pub(crate) state: Arc<State>,
    _writing: tokio::sync::OwnedMutexGuard<()>,
}

/// A change in the making: numbers are given out here and become true with the commit.
pub(crate) struct Draft {
    pub(crate) mailbox: u64,
    pub(crate) head: Head,
    pub(crate) tree: Tree,
    touched: BTreeSet<u64>,
    /// The device that changes the folder tree, if one does.
    pub(crate) by: Option<DeviceKey>,
    pub(crate) writes: Commit,
    changes: Vec<FolderChange>,
    dropped: Vec<BodyId>,
    garbage: bool,
}

impl Writer {
    pub(crate) fn draft(&self) -> Draft {
        Draft {
            mailbox: self.entry.id,
            head: self.state.head,
            tree: self.state.tree.clone(),
            touched: BTreeSet::new(),
            by: None,
            writes: Commit::default(),
            changes: Vec::new(),
            dropped: Vec::new(),
            garbage: false,
        }
    }

    /// Makes the draft durable, publishes it and tells the notifier; nothing of it happens otherwise.
    pub(crate) async fn commit(&mut self, draft: Draft) -> Result<(), Error> {
        let mailbox = self.entry.id;
        let quota = self.state.quota(&self.boxes);
        quota.check(&self.state.tree.usage(), &draft.tree.usage()).map_err(Error::Quota)?;
        let mut commit = draft
            .writes
            .expect(keys::head(mailbox), Some(self.state.head.encode()))
            .put(keys::head(mailbox), draft.head.encode());
        for counter in &draft.touched {
            if let Some(folder) = draft.tree.folder(*counter) {
                commit = commit.put(keys::folder(mailbox, *counter), folder.encode());
            }
        }
        if let Err(error) = self.boxes.store.index.commit(commit).await {
            // Whether it was made may be unknown: what memory holds is no longer to be believed.
            *self.entry.state.write() = None;
            return Err(error.into());
        }
        let old = self.state.head.hierarchy;
        self.state = Arc::new(State { head: draft.head, tree: draft.tree });
        *self.entry.state.write() = Some(self.state.clone());
        if let Some(watcher) = self.boxes.watcher() {
            if !draft.changes.is_empty() {
                watcher.changed(mailbox, &draft.changes);
            }
            if draft.head.hierarchy != old {
                watcher.hierarchy(mailbox, draft.by.as_ref());
            }
        }
        for body in draft.dropped {
            self.boxes.body_dropped(body);
        }
        if draft.garbage {
            self.boxes.purge(purge::Job::Folders(mailbox));
        }
        Ok(())
    }
}

impl Draft {
    /// The next change number.
    pub(crate) fn number(&mut self) -> u64 {
        self.head.last += 1;
        self.head.last
    }

    /// A folder to change; it is written with the commit.
    pub(crate) fn folder(&mut self, counter: u64) -> Result<Folder, Error> {
        self.tree.folder(counter).map(|folder| Folder::clone(folder)).ok_or(Error::Gone("the folder"))
    }

    pub(crate) fn put_folder(&mut self, counter: u64, folder: Folder) {
        self.tree.insert(counter, folder);
        self.touched.insert(counter);
    }

    pub(crate) fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.writes.push((key.into(), Some(value.into())));
    }

    pub(crate) fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.writes.push((key.into(), None));
    }
}
