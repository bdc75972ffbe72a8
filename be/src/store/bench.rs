//! Figures of the embedded engine, for `cargo xtask bench`: commits, reads, start-up, memory, disk.
//!
//! Items look as the mailbox model writes them: a record of some hundred bytes under a key of mailbox,
//! folder and id, a log entry, a name, and the mailbox's head, in one commit. Bodies are left out: they
//! are files, and cost what files cost.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{Commit, Key, Progress, Range, Read, Store, StoreError, StoreOptions, Usage, Watch, rebuild};

/// Bytes of an item's record.
const RECORD_BYTES: usize = 160;
/// Items written behind the last snapshot before the store is left as a crash leaves it.
const REPLAYED: u64 = 20_000;
/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(3);

/// What was measured; times in microseconds or milliseconds as the names say.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Items made.
    pub items: u64,
    /// Keys that they are.
    pub keys: u64,
    /// How long making them took, 100 to a commit.
    pub fill_ms: u64,
    /// Durable commits per second, by writers at once.
    pub commits_per_sec: Vec<(usize, u64)>,
    /// Gets per second of keys just used, by readers at once.
    pub hot_gets_per_sec: Vec<(usize, u64)>,
    /// Gets per second of random keys.
    pub cold_gets_per_sec: Vec<(usize, u64)>,
    /// Scans of 10 entries per second.
    pub scans_per_sec: Vec<(usize, u64)>,
    /// From opening the closed store to its first answer.
    pub start_ms: u64,
    /// The same for a store that was not closed.
    pub start_after_crash_ms: u64,
    /// Making the index anew.
    pub rebuild_ms: u64,
    /// This process's resident memory with the store open and used.
    pub resident_bytes: u64,
    /// The most that it has been while the items were made, and while each was written three times more.
    pub peak_bytes: u64,
    /// What the store takes after that.
    pub usage: UsageFigures,
}

/// See [`Usage`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UsageFigures {
    /// Keys and values.
    pub live: u64,
    /// Journal and snapshots.
    pub journal_and_snapshot: u64,
    /// sled's files.
    pub index: u64,
}

impl From<Usage> for UsageFigures {
    fn from(usage: Usage) -> Self {
        let journal_and_snapshot = usage.journal + usage.snapshot;
        Self { live: usage.live, journal_and_snapshot, index: usage.index }
    }
}

fn key(kind: u8, item: u64) -> Key {
    [&1_u64.to_be_bytes()[..], &[kind], &1_u64.to_be_bytes(), &item.to_be_bytes()].concat()
}

fn write(commit: Commit, item: u64, round: u64) -> Commit {
    let mut record = vec![u8::try_from(item % 251).unwrap_or(0); RECORD_BYTES];
    record[..8].copy_from_slice(&round.to_be_bytes());
    commit.put(key(4, item), record).put(key(5, item), vec![1; 24]).put(key(6, item), item.to_be_bytes())
}

/// Makes a store of `items` in `dir`, which must not be there, and measures it. Takes minutes.
/// Tells `watch` of each part before it begins.
pub async fn measure(
    dir: &Path,
    items: u64,
    options: &StoreOptions,
    watch: Watch<'_>,
) -> Result<Figures, StoreError> {
    let mut part = 0;
    let mut tell = |phase| {
        part += 1;
        watch(Progress { phase, done: part, total: 7 });
    };
    tell("fill");
    let store = Store::open(dir, options).await?;
    let begun = Instant::now();
    for start in (0..items).step_by(100) {
        let commit = (start..items.min(start + 100)).fold(Commit::default(), |c, item| write(c, item, 0));
        store.index.commit(commit).await?;
    }
    let fill_ms = millis(begun);
    tell("commits");
    let mut commits_per_sec = Vec::new();
    for writers in [1, 64] {
        let head = AtomicU64::new(0);
        let made = rate(&store, writers, move |store, n, worker| {
            let item = n % items.max(1);
            let commit = write(Commit::default(), item, head.fetch_add(1, SeqCst));
            let commit = commit.put(key(1, worker), n.to_be_bytes());
            Box::pin(async move { store.index.commit(commit).await })
        });
        commits_per_sec.push((writers, made.await?));
    }
    tell("reads");
    let mut gets = [Vec::new(), Vec::new(), Vec::new()];
    for readers in [1, 64] {
        for (kind, rates) in gets.iter_mut().enumerate() {
            let made = rate(&store, readers, move |store, n, worker| {
                // A stride that is prime to nearly every number of items visits all of them.
                let any = (n * 7_919 + worker * 104_729) % items.max(1);
                let read = match kind {
                    0 => Read::default().get(key(1, n % 4)).get(key(4, worker % 8)),
                    1 => Read::default().get(key(4, any)).get(key(6, any)),
                    _ => Read::default()
                        .range(Range { start: key(4, any), ..Range::prefix(&key(4, 0)[..17], 10) }),
                };
                Box::pin(async move { store.index.read(read).await.map(|_| ()) })
            });
            rates.push((readers, made.await?));
        }
    }
    tell("churn");
    for round in 1..=3 {
        for start in (0..items).step_by(100) {
            let commit =
                (start..items.min(start + 100)).fold(Commit::default(), |c, item| write(c, item, round));
            store.index.commit(commit).await?;
        }
    }
    let (resident_bytes, peak_bytes) = (memory_bytes("VmRSS:"), memory_bytes("VmHWM:"));
    let usage = store.usage().await?.into();
    // Nothing may move while it is copied: behind a snapshot, so little is written that none is due.
    store.snapshot().await?;
    for start in (0..items.min(REPLAYED)).step_by(100) {
        let commit = (start..items.min(start + 100)).fold(Commit::default(), |c, item| write(c, item, 4));
        store.index.commit(commit).await?;
    }
    let crashed = dir.with_extension("crashed");
    copy(dir, &crashed)?;
    let _ = fs::remove_file(crashed.join("lock"));
    store.close().await?;
    drop(store);
    tell("start");
    let start_ms = start(dir, options).await?;
    tell("crash");
    let start_after_crash_ms = start(&crashed, options).await?;
    let _ = fs::remove_dir_all(&crashed);
    tell("rebuild");
    let (begun, place, options) = (Instant::now(), dir.to_owned(), *options);
    super::pool::Pool::new(1).run(move || rebuild(&place, &options, &mut |_| ())).await?;
    let rebuild_ms = millis(begun);
    let [hot_gets_per_sec, cold_gets_per_sec, scans_per_sec] = gets;
    Ok(Figures {
        items,
        keys: items * 3,
        fill_ms,
        commits_per_sec,
        hot_gets_per_sec,
        cold_gets_per_sec,
        scans_per_sec,
        start_ms,
        start_after_crash_ms,
        rebuild_ms,
        resident_bytes,
        peak_bytes,
        usage,
    })
}

/// How often per second `work` is done by so many at once.
async fn rate(
    store: &Store,
    workers: usize,
    work: impl Fn(Store, u64, u64) -> super::Answer<'static, ()> + Send + Sync + 'static,
) -> Result<u64, StoreError> {
    let (work, next) = (Arc::new(work), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..workers as u64 {
        let (store, work, next) = (store.clone(), Arc::clone(&work), Arc::clone(&next));
        tasks.spawn(async move {
            while begun.elapsed() < SPAN {
                work(store.clone(), next.fetch_add(1, SeqCst), worker).await?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or(Err(StoreError::Stopped))?;
    }
    Ok(next.load(SeqCst) * 1000 / millis(begun).max(1))
}

async fn start(dir: &Path, options: &StoreOptions) -> Result<u64, StoreError> {
    let begun = Instant::now();
    let store = Store::open(dir, options).await?;
    store.index.read(Read::default().get(key(4, 0))).await?;
    let taken = millis(begun);
    store.close().await?;
    Ok(taken)
}

/// Copies a store, at rest, as a process leaves it that is killed. In order of name: the index before the journal,
/// behind which it always is.
fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let fail = |error| StoreError::io(format!("copy {}", from.display()), error);
    fs::create_dir_all(to).map_err(fail)?;
    let entries: Result<Vec<_>, _> = fs::read_dir(from).map_err(fail)?.collect();
    let mut paths: Vec<_> = entries.map_err(fail)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(fail)?;
        }
    }
    Ok(())
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The resident memory of this process, now or at its most, where the system tells it.
pub(crate) fn memory_bytes(which: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes half a minute: run it after a change of this file"]
    async fn everything_is_measured() {
        let scratch = tempfile::tempdir().unwrap();
        let items = std::env::var("BENCH_ITEMS").map_or(1000, |items| items.parse().unwrap());
        let begun = Instant::now();
        let mut watch = |at: Progress| println!("{} ms: {}", millis(begun), at.phase);
        let dir = scratch.path().join("store");
        let figures = measure(&dir, items, &StoreOptions::default(), &mut watch).await.unwrap();
        println!("{figures:#?}");
        assert!(figures.commits_per_sec.iter().all(|(_, rate)| *rate > 0));
    }
}
