//! Looking after the store: `directpush-be fsck`, `rebuild`, `backup`, `restore` and `usage`.
//!
//! The work is the store's own (`store::fsck` and its neighbours); here is what it needs to know of the
//! mailbox model, which thread it runs on, and how its outcome is told. All of it may be interrupted at
//! any moment and run again. Not here: arguments and exit codes (`main.rs`).

pub mod bench;
mod tell;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use tell::{Bar, Summary};

use crate::config::{Config, Engine};
use crate::error::{Error, WithCauses};
use crate::mailbox::record::{Head, Record as _};
use crate::mailbox::{keys, random_number};
use crate::store::{
    self, BodyId, Copied, Progress, Range, References, Report, Store, StoreError, StoreOptions, Value,
};

/// How often bodies without a use are looked for, and how long one must have been without. Only a crash
/// leaves any: between a body and the commit that names it, or before a removal was carried out.
const COLLECT_EVERY: Duration = Duration::from_hours(6);
const COLLECT_GRACE: Duration = Duration::from_mins(15);

/// Where the mailbox model names bodies.
struct Uses;

/// What a key that names a use begins with, before the body.
fn uses_prefix() -> Vec<u8> {
    let mut start = keys::body_uses(BodyId([0; 16])).start;
    start.truncate(start.len().saturating_sub(16));
    start
}

impl References for Uses {
    fn body(&self, key: &[u8], _: &[u8]) -> Option<BodyId> {
        key.strip_prefix(uses_prefix().as_slice())?.first_chunk().map(|id| BodyId(*id))
    }

    fn uses(&self, body: BodyId) -> Range {
        keys::body_uses(body)
    }
}

/// The directory of a configuration's store, and how it is opened.
fn place(config: &Config) -> Result<(PathBuf, StoreOptions), Error> {
    if config.engine == Engine::Memory {
        return Err(Error::Conflict("the engine is \"memory\": there is nothing to look after"));
    }
    let options = StoreOptions { cache_bytes: config.cache_bytes, ..StoreOptions::default() };
    Ok((config.state_dir.join("store"), options))
}

/// Runs what blocks for long off the runtime's threads.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::StoreError> + Send + 'static,
) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Task)??)
}

/// Checks the store, while no server runs on it; with `repair`, repairs what can be.
pub async fn fsck(config: &Config, repair: bool, mut watch: Bar) -> Result<Report, Error> {
    let (dir, options) = place(config)?;
    apart(move || store::fsck(&dir, &options, &Uses, repair, &mut |at| watch.show(at))).await
}

/// Makes the index anew, while no server runs on it.
pub async fn rebuild(config: &Config, mut watch: Bar) -> Result<(), Error> {
    let (dir, options) = place(config)?;
    apart(move || store::rebuild(&dir, &options, &mut |at| watch.show(at))).await
}

/// Backs the store up while no server runs on it; a running one is asked by `admin::Order::Backup`.
pub async fn backup(config: &Config, target: &Path, mut watch: Bar) -> Result<Copied, Error> {
    let (dir, options) = place(config)?;
    if !dir.join("format").exists() {
        return Err(Error::Gone("the store"));
    }
    let store = Store::open(&dir, &options).await?;
    let copied = store.backup(target, move |at: Progress| watch.show(at)).await;
    store.close().await?;
    Ok(copied?)
}

/// Brings a backup back; the configuration's store must not be there.
/// With `leave_out_damaged`, without the bodies that are damaged in the backup.
pub async fn restore(
    config: &Config,
    source: PathBuf,
    leave_out_damaged: bool,
    mut watch: Bar,
) -> Result<Copied, Error> {
    let (dir, _) = place(config)?;
    apart(move || store::restore(&source, &dir, leave_out_damaged, &mut renewed, &mut |at| watch.show(at)))
        .await
}

/// Makes every mailbox that comes back another generation of itself: devices and clients hold tokens of
/// changes that the backup does not know, and the numbers in them must never mean something else. And
/// makes another secret for the tokens that stand for a password: of those that were revoked after the
/// backup, none may be good again.
fn renewed(key: &[u8], value: Value) -> Result<Value, StoreError> {
    let fail =
        |error: Error| StoreError::io("renew what comes back", std::io::Error::other(error.to_string()));
    if key == keys::token_secret() {
        let words = (0..8).map(|_| random_number()).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        // The low halves: all of their bits are random.
        return Ok(words.iter().flat_map(|word| word.to_le_bytes()[..4].to_vec()).collect());
    }
    let Some(mailbox) = key.first_chunk().map(|number| u64::from_be_bytes(*number)) else { return Ok(value) };
    if key != keys::head(mailbox) {
        return Ok(value);
    }
    let mut head =
        Head::decode(&value).map_err(|_| fail(Error::Conflict("a mailbox's head is malformed")))?;
    head.epoch = random_number().map_err(fail)?;
    // More than can have been given out meanwhile.
    head.last = head.last.saturating_add(1 << 32);
    head.device_states = head.device_states.saturating_add(1 << 32);
    head.next_folder = head.next_folder.saturating_add(1 << 16);
    Ok(head.encode())
}

/// What `bench` measures.
#[derive(Serialize)]
pub struct Figures {
    /// The store by itself, if it was asked for.
    #[serde(flatten)]
    pub store: Option<store::bench::Figures>,
    /// A whole back end.
    pub scale: bench::Scale,
}

/// Measures a back end and a store made in `dir`, with the configuration's options, and removes them again.
///
/// # Errors
/// The directory is there, or what fails while it is measured.
pub async fn bench(
    config: &Config,
    dir: PathBuf,
    items: u64,
    with_store: bool,
    mut watch: Bar,
) -> Result<Figures, Error> {
    let (_, options) = place(config)?;
    if dir.exists() {
        return Err(Error::Conflict("the directory to measure in is there already"));
    }
    let scale = bench::measure(config, &dir.join("state"), items, &mut |at| watch.show(at)).await?;
    let store = dir.join("store");
    let measured = if with_store {
        Some(store::bench::measure(&store, items, &options, &mut |at| watch.show(at)).await)
    } else {
        None
    };
    let removed = apart(move || {
        std::fs::remove_dir_all(&dir)
            .map_err(|error| store::StoreError::io(format!("remove {}", dir.display()), error))
    });
    removed.await?;
    Ok(Figures { store: measured.transpose()?, scale })
}

/// Collects bodies that nothing uses, now and then, until `stop`.
pub async fn collect(store: Store, stop: CancellationToken) {
    until(stop, async {
        loop {
            tokio::time::sleep(COLLECT_EVERY).await;
            match store.collect_bodies(keys::body_uses, COLLECT_GRACE).await {
                Ok(0) => {}
                Ok(bodies) => tracing::info!(bodies, "collected bodies that nothing used"),
                Err(error) => {
                    tracing::warn!(error = %WithCauses(&error), "cannot collect bodies that nothing uses");
                }
            }
        }
    })
    .await;
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_of_a_body_is_found_and_nothing_else_is() {
        let body = BodyId([0xb7; 16]);
        let key = keys::body_use(body, 3, 1, 9);
        assert_eq!(Uses.body(&key, b""), Some(body));
        let range = Uses.uses(body);
        assert!(range.start <= key && key < range.end);
        for other in [keys::head(3), keys::item(3, 1, 9), keys::mailbox_gone(u64::MAX), keys::installation()]
        {
            assert_eq!(Uses.body(&other, b""), None);
        }
    }

    #[test]
    fn what_comes_back_has_another_secret_and_no_head_that_is_malformed() {
        let old = vec![7; 32];
        let new = renewed(&keys::token_secret(), old.clone()).unwrap();
        assert!(new.len() == 32 && new != old);
        assert_eq!(renewed(&keys::item(3, 1, 9), old.clone()).unwrap(), old);
        assert!(renewed(&keys::head(3), vec![0xff; 3]).is_err());
    }

    #[tokio::test]
    async fn a_store_is_checked_backed_up_and_brought_back() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("be.toml");
        let state = scratch.path().join("state");
        std::fs::write(&path, format!("state_dir = {state:?}\nlmtp_listen = []\n")).unwrap();
        let config = Config::load(&path).unwrap();
        let target = scratch.path().join("backup");
        assert!(backup(&config, &target, Bar::hidden()).await.is_err(), "no store is made by the way");
        let opened = crate::open_store(&config).await.unwrap();
        let (boxes, _jobs) = crate::mailbox::Mailboxes::open(opened).await.unwrap();
        let alice = boxes.add_user(&"alice".parse().unwrap(), "hash".into()).await.unwrap();
        let before = boxes.state(alice.mailbox).await.unwrap().head;
        assert!(fsck(&config, false, Bar::hidden()).await.is_err(), "it is in use");
        boxes.store.close().await.unwrap();
        drop(boxes);
        assert!(fsck(&config, false, Bar::hidden()).await.unwrap().is_clean());
        let copied = backup(&config, &target, Bar::hidden()).await.unwrap();
        assert!(copied.entries > 0);
        std::fs::remove_dir_all(state.join("store")).unwrap();
        restore(&config, target, false, Bar::hidden()).await.unwrap();
        rebuild(&config, Bar::hidden()).await.unwrap();
        let report = fsck(&config, true, Bar::hidden()).await.unwrap();
        assert!(report.is_clean() && report.entries == copied.entries, "{report:?}");
        let opened = crate::open_store(&config).await.unwrap();
        let (boxes, _jobs) = crate::mailbox::Mailboxes::open(opened).await.unwrap();
        let after = boxes.state(alice.mailbox).await.unwrap().head;
        assert_ne!(after.epoch, before.epoch, "a token of before is refused");
        assert!(after.last > before.last + 1_000_000 && after.next_folder > before.next_folder);
        boxes.store.close().await.unwrap();
    }
}
