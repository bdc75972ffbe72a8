//! The embedded engine: an [`Index`] on sled, with a journal below it that is the truth.
//!
//! One thread, the committer, makes all commits. It takes what waits, compares it with the tree and
//! with what the group before it in the queue writes, makes the group with one sync, and answers all
//! who waited: the more callers, the larger the groups.
//!
//! Not here: the order journal, tree (`engine`), and the layout of either.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, warn};

use super::{
    Answer, Commit, Found, Index, Read, StoreError,
    engine::{Engine, Shared},
    pool::Pool,
    record::Writes,
    snapshot::Summary,
    tree::Tree,
    upkeep::{Chore, Helper},
};

/// What may wait for the committer, in KiB; more callers wait without having queued.
const QUEUE_KIB: u32 = 64 * 1024;
/// A group takes no further commit once it has this many, or this many bytes.
const GROUP_COMMITS: usize = 1024;
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// With nothing to do for so long, the committer flushes the tree.
const IDLE: Duration = Duration::from_secs(5);

type Waiter = oneshot::Sender<Result<(), StoreError>>;

pub(crate) enum Request {
    Commit {
        commit: Commit,
        waiter: Waiter,
        space: OwnedSemaphorePermit,
    },
    /// A read found the tree failed or away.
    Repair(Waiter),
    /// A snapshot begins: answers the position that it is to have.
    Roll(oneshot::Sender<Result<u64, StoreError>>),
    /// A compacted index is there: answers the one that was in use.
    Swap(Box<(Tree, String, SwapWaiter)>),
    Close(Waiter),
}

type SwapWaiter = oneshot::Sender<Result<Option<Tree>, StoreError>>;

/// An [`Index`] on sled. When the last handle goes without `close`, the committer closes by itself.
pub(crate) struct SledIndex {
    shared: Arc<Shared>,
    reads: Pool,
    queue: Arc<Sender<Request>>,
    chores: Sender<Chore>,
    space: Arc<Semaphore>,
}

impl SledIndex {
    /// Starts the committer of an open engine; at most `read_threads` reads run at once.
    pub(crate) fn start(engine: Engine, read_threads: usize) -> Result<Self, StoreError> {
        let shared = engine.shared();
        let (queue, requests) = channel();
        let queue = Arc::new(queue);
        let helper = Helper::start(&engine, Arc::downgrade(&queue))?;
        let chores = helper.chores.clone();
        thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || run(engine, requests, helper))
            .map_err(|error| StoreError::io("start the committer", error))?;
        let space = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Ok(Self { shared, reads: Pool::new(read_threads), queue, chores, space })
    }

    /// Writes a snapshot of now, and trims what is behind it.
    pub(crate) async fn snapshot(&self) -> Result<Summary, StoreError> {
        let (waiter, answer) = oneshot::channel();
        self.chores.send(Chore::Snapshot(waiter)).map_err(|_| StoreError::Stopped)?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }

    async fn ask(&self, request: impl FnOnce(Waiter) -> Request) -> Result<(), StoreError> {
        let (waiter, answer) = oneshot::channel();
        self.queue.send(request(waiter)).map_err(|_| StoreError::Stopped)?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }
}

impl Index for SledIndex {
    fn read(&self, read: Read) -> Answer<'_, Found> {
        Box::pin(async move {
            if let Some(found) = self.shared.read_hot(&read) {
                return Ok(found);
            }
            let read = Arc::new(read);
            let attempt = || {
                let (shared, read) = (Arc::clone(&self.shared), Arc::clone(&read));
                self.reads.run(move || shared.read(&read))
            };
            match attempt().await {
                Err(StoreError::Io { .. }) if self.shared.failed.load(SeqCst) => {
                    self.ask(Request::Repair).await?;
                    attempt().await
                }
                answer => answer,
            }
        })
    }

    fn commit(&self, commit: Commit) -> Answer<'_, ()> {
        Box::pin(async move {
            commit.check()?;
            let kib = u32::try_from(commit.bytes() / 1024 + 1).unwrap_or(QUEUE_KIB).min(QUEUE_KIB);
            let space = Arc::clone(&self.space).acquire_many_owned(kib).await;
            let space = space.map_err(|_| StoreError::Stopped)?;
            self.ask(|waiter| Request::Commit { commit, waiter, space }).await
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.ask(Request::Close).await {
                // Closed before.
                Err(StoreError::Stopped) => Ok(()),
                closed => closed,
            }
        })
    }
}

/// The committer, to its end.
fn run(mut engine: Engine, requests: Receiver<Request>, helper: Helper) {
    let _noticed = DeathNotice;
    let poke_bytes = engine.options().snapshot_bytes / 4;
    let mut unpoked = u64::MAX;
    let closer = loop {
        match requests.recv_timeout(IDLE) {
            Ok(Request::Close(waiter)) => break Some(waiter),
            Ok(request) => {
                let mut group = Group::default();
                let stop = group.fill(request, &requests);
                unpoked = unpoked.saturating_add(group.make(&mut engine));
                if unpoked >= poke_bytes {
                    unpoked = 0;
                    helper.poke();
                }
                if stop.is_some() {
                    break stop;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Err(failure) = engine.repair() {
                    error!(%failure, "the index could not be repaired");
                }
                engine.checkpoint();
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    // The helper may wait for an answer of ours: it gets none.
    drop(requests);
    helper.stop();
    let closed = engine.close();
    if let Err(failure) = &closed {
        warn!(%failure, "the store did not close cleanly; the next start repairs it");
    }
    if let Some(waiter) = closer {
        let _ = waiter.send(closed);
    }
}

/// Says so when the committer dies: from then on every commit is answered `Stopped`.
struct DeathNotice;

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if thread::panicking() {
            error!("the store's committer has died; restart the server");
        }
    }
}

/// Commits that share one sync, and reads that wait for the same repair.
#[derive(Default)]
struct Group {
    commits: Vec<(Commit, Waiter, OwnedSemaphorePermit)>,
    bytes: usize,
    repairs: Vec<Waiter>,
    rolls: Vec<oneshot::Sender<Result<u64, StoreError>>>,
    swaps: Vec<(Tree, String, SwapWaiter)>,
}

impl Group {
    /// Takes one request and what waits behind it, without waiting. Answers who asked to close.
    fn fill(&mut self, first: Request, requests: &Receiver<Request>) -> Option<Waiter> {
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Commit { commit, waiter, space } => {
                    self.bytes += commit.bytes();
                    self.commits.push((commit, waiter, space));
                }
                Request::Repair(waiter) => self.repairs.push(waiter),
                Request::Roll(waiter) => self.rolls.push(waiter),
                Request::Swap(swap) => self.swaps.push(*swap),
                Request::Close(waiter) => return Some(waiter),
            }
            let room = self.commits.len() < GROUP_COMMITS && self.bytes < GROUP_BYTES;
            next = if room { requests.try_recv().ok() } else { None };
        }
        None
    }

    /// Makes what can be made and answers everyone. Answers how much the journal grew, in bytes.
    fn make(self, engine: &mut Engine) -> u64 {
        let sound = engine.repair();
        for waiter in self.rolls {
            let _ = waiter.send(engine.roll());
        }
        for (tree, name, waiter) in self.swaps {
            let _ = waiter.send(engine.swap(tree, name));
        }
        for waiter in self.repairs {
            let _ = waiter.send(sound.clone());
        }
        if self.commits.is_empty() {
            return 0;
        }
        let ready = sound.and_then(|()| engine.keep_reserve());
        let mut writes = Writes::new();
        let mut answers = Vec::with_capacity(self.commits.len());
        for (commit, waiter, space) in self.commits {
            let answer = ready.clone().and_then(|()| check(engine, &writes, &commit));
            if answer.is_ok() {
                writes.extend(commit.writes);
            }
            answers.push((answer, waiter, space));
        }
        let made = if writes.is_empty() { Ok(0) } else { engine.make(&writes) };
        for (answer, waiter, _space) in answers {
            // A waiter that has gone away does not mind.
            let _ = waiter.send(answer.and_then(|()| made.clone().map(|_| ())));
        }
        made.unwrap_or(0)
    }
}

/// Compares what a commit expects with the tree and with what its group has written so far.
fn check(engine: &Engine, group: &Writes, commit: &Commit) -> Result<(), StoreError> {
    for (key, expected) in &commit.expected {
        let holds = match BTreeMap::get(group, key) {
            Some(written) => written == expected,
            None => engine.get(key)? == *expected,
        };
        if !holds {
            return Err(StoreError::Conflict);
        }
    }
    Ok(())
}
