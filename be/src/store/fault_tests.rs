//! The engine on a disk that is full or fails, and what it does about a failing index.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    conformance::small,
    crash_tests::{all, commit, index, open, segments, state_after},
    disk::{
        RealDisk,
        faulty::{Fails, Faults, FaultyDisk},
    },
    engine::Engine,
    place::Place,
    sled_index::SledIndex,
    *,
};

async fn open_faulty(dir: &Path, options: StoreOptions) -> (Store, Arc<Faults>) {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.0);
    (Store::open_on(dir, options, Arc::new(disk)).await.unwrap(), faults)
}

#[tokio::test]
async fn a_full_disk_refuses_commits_and_bodies_until_there_is_space() {
    for reserve_bytes in [0, 4096] {
        let scratch = tempfile::tempdir().unwrap();
        let options = StoreOptions { reserve_bytes, ..small() };
        let (store, faults) = open_faulty(scratch.path(), options).await;
        store.index.commit(commit(1)).await.unwrap();
        let length = || fs::metadata(&segments(scratch.path())[0]).unwrap().len();
        let before = length();
        faults.full.store(true, SeqCst);
        for space in 0..60 {
            faults.space.store(space, SeqCst);
            let refused = store.index.commit(commit(2)).await;
            assert!(matches!(refused, Err(StoreError::Full)), "{space} left: {refused:?}");
            assert_eq!(length(), before, "{space} left: nothing half-written stays");
            faults.space.store(space, SeqCst);
            let refused = store.bodies.put(Bytes::from(vec![1; 100])).await;
            assert!(matches!(refused, Err(StoreError::Full)), "{space} left: {refused:?}");
            assert_eq!(all(&store).await, state_after(1).await);
        }
        faults.full.store(false, SeqCst);
        store.index.commit(commit(2)).await.unwrap();
        let body = store.bodies.put(Bytes::from(vec![1; 100])).await.unwrap();
        assert_eq!(store.bodies.list(None, 9).await.unwrap().len(), 1);
        assert_eq!(fs::read_dir(scratch.path().join("bodies/tmp")).unwrap().count(), 0);
        store.close().await.unwrap();
        drop(store);
        fs::remove_dir_all(index(scratch.path())).unwrap();
        let store = open(scratch.path()).await;
        assert_eq!(all(&store).await, state_after(2).await);
        assert_eq!(store.bodies.get(body).await.unwrap(), vec![1; 100]);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_that_could_not_be_synced_is_not_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, faults) = open_faulty(scratch.path(), small()).await;
    let body = store.bodies.put(Bytes::from_static(b"x")).await.unwrap();
    store.index.commit(commit(1)).await.unwrap();
    // The cut cannot be synced either: nobody knows the journal's end, so nothing is taken behind it.
    faults.sync_fails.store(true, SeqCst);
    for _ in 0..2 {
        assert!(matches!(store.index.commit(commit(2)).await, Err(StoreError::Io { .. })));
        assert_eq!(all(&store).await, state_after(1).await);
        assert!(store.bodies.delete(body).await.is_err(), "the commit may name it");
    }
    faults.sync_fails.store(false, SeqCst);
    store.index.commit(commit(2)).await.unwrap();
    assert!(store.bodies.delete(body).await.unwrap());
    // A half-written record that cannot be cut off.
    faults.full.store(true, SeqCst);
    faults.space.store(20, SeqCst);
    faults.cut_fails.store(true, SeqCst);
    assert!(matches!(store.index.commit(commit(3)).await, Err(StoreError::Io { .. })));
    faults.full.store(false, SeqCst);
    assert!(matches!(store.index.commit(commit(3)).await, Err(StoreError::Io { .. })));
    store.close().await.unwrap();
    drop(store);
    let store = open(scratch.path()).await;
    assert_eq!(all(&store).await, state_after(2).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_read_only_file_system_refuses_commits_and_bodies_until_it_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, faults) = open_faulty(scratch.path(), small()).await;
    let body = store.bodies.put(Bytes::from_static(b"x")).await.unwrap();
    store.index.commit(commit(1)).await.unwrap();
    faults.read_only.store(true, SeqCst);
    for _ in 0..3 {
        assert!(matches!(store.index.commit(commit(2)).await, Err(StoreError::ReadOnly)));
        let refused = store.bodies.put(Bytes::from_static(b"y")).await;
        assert!(matches!(refused, Err(StoreError::ReadOnly)), "{refused:?}");
        assert!(matches!(store.bodies.delete(body).await, Err(StoreError::ReadOnly)));
        assert_eq!(all(&store).await, state_after(1).await);
        assert_eq!(store.bodies.get(body).await.unwrap(), "x");
    }
    faults.read_only.store(false, SeqCst);
    store.index.commit(commit(2)).await.unwrap();
    assert_eq!(all(&store).await, state_after(2).await);
    store.close().await.unwrap();
}

/// 64 writers at once must share syncs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_together_share_a_sync() {
    const WRITERS: u64 = 64;
    const COMMITS: u64 = 20;
    let scratch = tempfile::tempdir().unwrap();
    let (store, faults) = open_faulty(
        scratch.path(),
        StoreOptions { segment_bytes: u64::MAX, snapshot_bytes: u64::MAX, ..small() },
    )
    .await;
    let before = faults.syncs.load(SeqCst);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..COMMITS {
                let key = [writer.to_be_bytes(), n.to_be_bytes()].concat();
                store.index.commit(Commit::default().expect(key.clone(), None).put(key, "x")).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let syncs = faults.syncs.load(SeqCst) - before;
    assert!(syncs >= COMMITS, "{syncs} syncs cannot have carried {COMMITS} commits one after the other");
    assert!(syncs <= WRITERS * COMMITS / 4, "{syncs} syncs for {} commits", WRITERS * COMMITS);
    store.close().await.unwrap();
}

#[test]
fn a_failure_behind_the_journal_is_repaired_before_the_answer() {
    let scratch = tempfile::tempdir().unwrap();
    let writes = |n: u8| [(vec![1, n], Some(vec![n])), (b"last".to_vec(), Some(vec![n]))].into();
    let place = Arc::new(Place::enter(scratch.path(), Arc::new(RealDisk)).unwrap());
    let mut engine = Engine::open(place, small()).unwrap();
    let shared = engine.shared();
    for n in 1..=9 {
        engine.repair().unwrap();
        match n {
            3 => shared.lose_tree(),
            5..=9 => {
                shared.lose_tree();
                shared.damaged.store(true, SeqCst);
            }
            _ => {}
        }
        engine.repair().unwrap();
        if n == 4 {
            // It fails between the journal and the tree.
            shared.lose_tree();
        }
        engine.make(&writes(n)).unwrap();
        for past in 1..=n {
            assert_eq!(engine.get(&[1, past]).unwrap(), Some(vec![past]), "after {n}");
        }
    }
    engine.close().unwrap();
    assert!(scratch.path().join("index.corrupt-3").exists());
    assert!(!scratch.path().join("index.corrupt-4").exists(), "damaged indexes must not fill the disk");
}

/// A flush that fails for the disk's sake takes nothing from readers.
#[test]
fn an_index_is_not_given_up_where_no_other_can_be_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.0);
    let place = Arc::new(Place::enter(scratch.path(), Arc::new(disk)).unwrap());
    let mut engine = Engine::open(place, StoreOptions { hot_bytes: 0, ..small() }).unwrap();
    let shared = engine.shared();
    engine.make(&[(b"k".to_vec(), Some(b"v".to_vec()))].into()).unwrap();
    faults.read_only.store(true, SeqCst);
    shared.failed.store(true, SeqCst);
    for _ in 0..2 {
        assert!(matches!(engine.repair(), Err(StoreError::ReadOnly)));
        assert_eq!(shared.read(&Read::default().get("k")).unwrap().gets, [Some(b"v".to_vec())]);
    }
    faults.read_only.store(false, SeqCst);
    engine.repair().unwrap();
    assert!(!shared.failed.load(SeqCst));
    assert_eq!(engine.get(b"k").unwrap(), Some(b"v".to_vec()));
    engine.close().unwrap();
}

#[test]
fn what_a_failure_left_of_a_file_is_in_nobodys_way() {
    let scratch = tempfile::tempdir().unwrap();
    let (new, path) = (scratch.path().join("a.new"), scratch.path().join("a"));
    fs::write(&new, "half").unwrap();
    disk::write_whole(&RealDisk, &new, &path, b"whole").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"whole");
}

#[tokio::test]
async fn a_read_that_finds_the_index_away_waits_for_its_repair() {
    let scratch = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::enter(scratch.path(), Arc::new(RealDisk)).unwrap());
    let engine = Engine::open(place, small()).unwrap();
    let shared = engine.shared();
    let index = SledIndex::start(engine, 2).unwrap();
    index.commit(Commit::default().put("k", "v")).await.unwrap();
    for damaged in [false, true] {
        shared.lose_tree();
        shared.damaged.store(damaged, SeqCst);
        let found = index.read(Read::default().get("k")).await.unwrap();
        assert_eq!(found.gets, [Some(b"v".to_vec())]);
        assert_eq!(scratch.path().join("index.corrupt-1").exists(), damaged);
    }
    index.close().await.unwrap();
}

/// A file system of its own, gone with this.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// None where one may not be mounted.
    fn mount(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Everything of the store, sled's files too, on a disk that is full again and again.
#[tokio::test]
async fn a_disk_that_is_really_full_stops_nothing_but_writes() {
    let Some(disk) = Tmpfs::mount(8 * 1024) else { return };
    let dir = disk.path().join("store");
    let options = StoreOptions { reserve_bytes: 1024 * 1024, ..small() };
    let store = Store::open(&dir, &options).await.unwrap();
    let model = Store::memory();
    let write =
        |n: u32| Commit::default().put(format!("k{n:05}"), vec![u8::try_from(n % 251).unwrap(); 1500]);
    let (mut n, mut bodies, mut refusals) = (0, Vec::new(), 0);
    for round in 0..6 {
        // A part of the disk is somebody else's, for a while.
        let other = disk.path().join("other");
        let filler = vec![1; 256 * 1024];
        let mut file = fs::File::create(&other).unwrap();
        while std::io::Write::write_all(&mut file, &filler).is_ok() {}
        drop(file);
        for _ in 0..20 {
            match store.index.commit(write(n)).await {
                Ok(()) => {
                    model.index.commit(write(n)).await.unwrap();
                    n += 1;
                }
                Err(StoreError::Full) => refusals += 1,
                Err(error) => panic!("round {round}: {error:?}"),
            }
            match store.bodies.put(Bytes::from(vec![7; 3000])).await {
                Ok(body) => bodies.push(body),
                Err(StoreError::Full) => refusals += 1,
                Err(error) => panic!("round {round}: {error:?}"),
            }
            assert_eq!(all(&store).await, all(&model).await, "round {round}: reads go on");
        }
        fs::remove_file(other).unwrap();
        for _ in 0..20 {
            store.index.commit(write(n)).await.unwrap();
            model.index.commit(write(n)).await.unwrap();
            n += 1;
        }
        bodies.push(store.bodies.put(Bytes::from(vec![7; 3000])).await.unwrap());
    }
    assert!(refusals > 50, "{refusals}");
    for body in bodies {
        assert_eq!(store.bodies.get(body).await.unwrap(), vec![7; 3000]);
    }
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(&dir, &options).await.unwrap();
    assert_eq!(all(&store).await, all(&model).await);
    store.close().await.unwrap();
    drop(store);
    let remounted =
        std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remounted.success());
    let refused = Store::open(&dir, &options).await.err();
    assert!(matches!(refused, Some(StoreError::ReadOnly)), "{refused:?}");
}

/// Changing over to another index fails at every step of naming it; whatever is left opens and is whole.
#[tokio::test]
async fn an_index_that_could_not_be_adopted_costs_nothing() {
    let steps: [Fails; 3] = [
        |doing, path| doing == "create" && path.ends_with("index.current.new"),
        |doing, path| doing == "rename" && path.ends_with("index.current"),
        // The name is there by then, but may not last.
        |doing, path| doing == "sync" && path.join("format").exists() && path.join("index.current").exists(),
    ];
    for (step, fails) in steps.into_iter().enumerate() {
        let scratch = tempfile::tempdir().unwrap();
        let by_hand = StoreOptions { snapshot_bytes: u64::MAX, ..small() };
        let dir = scratch.path().join("store");
        let (store, faults) = open_faulty(&dir, by_hand).await;
        for n in 1..=9 {
            store.index.commit(commit(n)).await.unwrap();
        }
        *faults.fails.lock() = Some(fails);
        let _ = store.snapshot().await;
        store.index.commit(commit(10)).await.unwrap();
        assert_eq!(all(&store).await, state_after(10).await, "{step}");
        let killed = scratch.path().join("killed");
        super::crash_tests::copy(&dir, &killed);
        *faults.fails.lock() = None;
        store.index.commit(commit(11)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        for (dir, commits) in [(killed, 10), (dir, 11)] {
            let store = open(&dir).await;
            assert_eq!(all(&store).await, state_after(commits).await, "{step}");
            store.index.commit(commit(commits + 1)).await.unwrap();
            store.snapshot().await.unwrap();
            assert_eq!(all(&store).await, state_after(commits + 1).await, "{step}");
            store.close().await.unwrap();
            assert!(index(&dir).join("db").exists());
        }
    }
}

#[tokio::test]
async fn a_journal_behind_which_no_snapshot_can_be_made_does_not_grow_for_ever() {
    let scratch = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        journal_bytes_max: 64 * 1024,
        snapshot_retry: std::time::Duration::from_millis(20),
        ..small()
    };
    let (store, faults) = open_faulty(scratch.path(), options).await;
    *faults.fails.lock() =
        Some(|doing, path| doing == "create" && path.parent().is_some_and(|dir| dir.ends_with("snapshots")));
    let write = |n: usize| Commit::default().put(n.to_string(), vec![7; 2000]);
    let mut made = 0;
    let refused = loop {
        match store.index.commit(write(made)).await {
            Ok(()) => made += 1,
            Err(refused) => break refused,
        }
        assert!(made < 100_000, "it grows for ever");
    };
    assert!(matches!(refused, StoreError::Full), "{refused:?}");
    assert!(made > 32, "{made}");
    assert_eq!(all(&store).await.len(), made, "reads go on");
    *faults.fails.lock() = None;
    // It is tried again by itself.
    while store.index.commit(write(made)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(all(&store).await.len(), made + 1);
    store.close().await.unwrap();
}

/// A repair while the helper is writing takes nothing away from it.
#[test]
fn a_repair_under_way_leaves_unfinished_files_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let place = Arc::new(Place::enter(scratch.path(), Arc::new(RealDisk)).unwrap());
    let unfinished = place.snapshots().join("0000000000000001.new");
    let engine = Engine::open(Arc::clone(&place), small()).unwrap();
    fs::write(&unfinished, "half").unwrap();
    let mut engine = engine;
    engine.shared().lose_tree();
    engine.repair().unwrap();
    assert!(unfinished.exists());
    engine.close().unwrap();
    drop(place);
    let place = Arc::new(Place::enter(scratch.path(), Arc::new(RealDisk)).unwrap());
    Engine::open(place, small()).unwrap().close().unwrap();
    assert!(!unfinished.exists(), "a start clears it");
}

/// Puts a file that cannot be read (EIO) in the place of another.
fn unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    // Nothing is mapped at 0 in our own memory.
    std::os::unix::fs::symlink("/proc/self/mem", path).unwrap();
    assert_eq!(fs::read(path).unwrap_err().raw_os_error(), Some(5));
}

#[tokio::test]
async fn a_disk_that_cannot_read_a_snapshot_is_as_if_it_were_damaged() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let by_hand = StoreOptions { snapshot_bytes: u64::MAX, ..small() };
    let store = Store::open(&dir, &by_hand).await.unwrap();
    for n in 1..=9 {
        store.index.commit(commit(n)).await.unwrap();
        if n % 3 == 0 {
            store.snapshot().await.unwrap();
        }
    }
    store.close().await.unwrap();
    drop(store);
    unreadable(&snapshot::list(&dir.join("snapshots")).unwrap().pop().unwrap().1);
    let report = fsck(&dir, &by_hand, &super::crash_tests::NoBodies, false, &mut |_| ()).unwrap();
    assert!(report.damages > 0 && report.losses == 0, "{:?}", report.findings);
    let store = Store::open(&dir, &by_hand).await.unwrap();
    assert_eq!(all(&store).await, state_after(9).await, "the one before it and the journal");
    store.index.commit(commit(10)).await.unwrap();
    store.snapshot().await.unwrap();
    assert_eq!(all(&store).await, state_after(10).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn fsck_goes_on_where_the_disk_cannot_read_a_segment_or_a_body() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = Store::open(&dir, &StoreOptions { snapshot_bytes: u64::MAX, ..small() }).await.unwrap();
    let body = store.bodies.put(Bytes::from_static(b"body")).await.unwrap();
    for n in 1..=9 {
        store.index.commit(commit(n)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    unreadable(&dir.join(format!("bodies/{:02x}/{body}.body", body.0[0])));
    unreadable(&segments(&dir)[0]);
    let report = fsck(&dir, &small(), &super::crash_tests::NoBodies, true, &mut |_| ()).unwrap();
    assert!(report.losses == 1 && report.damages > 0, "{:?}", report.findings);
    let store = open(&dir).await;
    assert_eq!(all(&store).await, state_after(9).await, "out of the index");
    store.close().await.unwrap();
}
