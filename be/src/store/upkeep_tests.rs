//! Snapshots and trimming: what is kept, what goes, and what the index is made of anew.

use std::{fs, path::Path};

use super::{
    conformance::small,
    crash_tests::{all, index, open, segments},
    snapshot::{self, SnapshotReader},
    *,
};

fn snapshots(dir: &Path) -> Vec<std::path::PathBuf> {
    snapshot::list(&dir.join("snapshots")).unwrap().into_iter().map(|(_, path)| path).collect()
}

fn size(path: &Path) -> u64 {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum();
    }
    fs::metadata(path).unwrap().len()
}

/// Snapshots are made when the test says so.
fn by_hand() -> StoreOptions {
    StoreOptions { snapshot_bytes: u64::MAX, ..small() }
}

/// Commit `n` of a run that writes over and over the same 200 keys, some of them away.
fn churn(n: usize) -> Commit {
    (0..10).fold(Commit::default().put("last", n.to_string()), |commit, step| {
        let key = format!("key/{:04}", (n * 7 + step * 31) % 200);
        match (n + step) % 5 {
            0 => commit.delete(key),
            1 => commit.put(key, vec![u8::try_from(n % 256).unwrap(); 3000]),
            _ => commit.put(key, format!("{n} {step}").repeat(20)),
        }
    })
}

async fn run(dir: &Path, options: StoreOptions, commits: std::ops::Range<usize>) -> Vec<(Key, Value)> {
    let store = Store::open(dir, &options).await.unwrap();
    for n in commits {
        store.index.commit(churn(n)).await.unwrap();
    }
    let found = all(&store).await;
    store.close().await.unwrap();
    found
}

async fn rebuilt(dir: &Path) -> Vec<(Key, Value)> {
    fs::remove_dir_all(index(dir)).unwrap();
    let store = open(dir).await;
    let found = all(&store).await;
    store.close().await.unwrap();
    found
}

#[tokio::test]
async fn churn_leaves_a_bounded_journal_and_all_of_the_data() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let mut expected = Vec::new();
    for round in 0..4 {
        expected = run(&dir, small(), round * 300..(round + 1) * 300).await;
        assert_eq!(rebuilt(&dir).await, expected, "round {round}");
    }
    let model = Store::memory();
    for n in 0..1200 {
        model.index.commit(churn(n)).await.unwrap();
    }
    assert_eq!(all(&model).await, expected);
    // Without waiting for the helper nothing can be said; a snapshot by hand waits for it.
    let store = open(&dir).await;
    store.snapshot().await.unwrap();
    store.index.commit(Commit::default().put("more", "x")).await.unwrap();
    store.snapshot().await.unwrap();
    expected.insert(
        expected.partition_point(|(key, _)| key.as_slice() < b"more".as_slice()),
        (b"more".to_vec(), b"x".to_vec()),
    );
    let kept = snapshots(&dir);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let live: u64 = expected.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    let summary = SnapshotReader::open(&kept[1]).unwrap().verify(|_| Ok(())).unwrap();
    assert_eq!((summary.live_bytes, summary.entries), (live, expected.len() as u64));
    let used = size(&dir.join("journal")) + size(&dir.join("snapshots"));
    assert!(used < 5 * live / 2, "{used} bytes for {live}");
    assert!(segments(&dir).len() <= 2);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(rebuilt(&dir).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_made_while_commits_go_on_and_by_themselves() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = open(&dir).await;
    let by_hand = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..10 {
                store.snapshot().await.unwrap();
            }
        }
    });
    for n in 0..600 {
        store.index.commit(churn(n)).await.unwrap();
    }
    by_hand.await.unwrap();
    let expected = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    assert!(segments(&dir)[0] > dir.join("journal/0000000000000002.journal"), "the first segment is gone");
    assert_eq!(rebuilt(&dir).await, expected);
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_one_before() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = Store::open(&dir, &by_hand()).await.unwrap();
    for n in 0..90 {
        store.index.commit(churn(n)).await.unwrap();
        if n % 30 == 20 {
            store.snapshot().await.unwrap();
        }
    }
    let expected = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    let kept = snapshots(&dir);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let mut bytes = fs::read(&kept[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&kept[1], bytes).unwrap();
    assert_eq!(rebuilt(&dir).await, expected);
    // The next snapshot is made of the good one as well.
    let store = Store::open(&dir, &by_hand()).await.unwrap();
    store.index.commit(churn(90)).await.unwrap();
    let expected = all(&store).await;
    store.snapshot().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(rebuilt(&dir).await, expected);
}

#[tokio::test]
async fn what_cannot_be_made_anew_is_refused_and_names_the_cure() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = Store::open(&dir, &by_hand()).await.unwrap();
    for n in 0..50 {
        store.index.commit(churn(n)).await.unwrap();
    }
    store.snapshot().await.unwrap();
    store.index.commit(churn(50)).await.unwrap();
    let expected = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    // The journal since the beginning is as good.
    let snapshot = snapshots(&dir).pop().unwrap();
    let bytes = fs::read(&snapshot).unwrap();
    fs::write(&snapshot, &bytes[..bytes.len() / 2]).unwrap();
    let store = Store::open(&dir, &by_hand()).await.unwrap();
    assert_eq!(all(&store).await, expected);
    store.close().await.unwrap();
    drop(store);
    // Without that there is nothing left.
    fs::remove_file(segments(&dir).remove(0)).unwrap();
    fs::remove_dir_all(index(&dir)).unwrap();
    let refused = Store::open(&dir, &small()).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Corrupt { path, .. } if *path == snapshot), "{refused:?}");
    assert!(refused.to_string().contains("directpush-be restore"), "{refused}");
    fs::write(&snapshot, &bytes).unwrap();
    assert_eq!(all(&open(&dir).await).await, expected);
    // A journal that is gone is not a new store.
    fs::remove_dir_all(dir.join("journal")).unwrap();
    let refused = Store::open(&dir, &small()).await.err();
    assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_index_made_by_half_is_made_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = open(&dir).await;
    for n in 0..50 {
        store.index.commit(churn(n)).await.unwrap();
    }
    store.snapshot().await.unwrap();
    let expected = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    fs::remove_dir_all(index(&dir)).unwrap();
    drop(tree::Tree::open(&index(&dir), &dir.join("snapshots"), 1024 * 1024).unwrap());
    let store = open(&dir).await;
    assert_eq!(all(&store).await, expected);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_without_snapshots_is_taken_over() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let expected = run(&dir, by_hand(), 0..200).await;
    fs::remove_dir_all(dir.join("snapshots")).unwrap();
    fs::write(dir.join("format"), "directpush store 1\n").unwrap();
    let store = open(&dir).await;
    assert_eq!(fs::read(dir.join("format")).unwrap(), b"directpush store 3\n");
    store.snapshot().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(rebuilt(&dir).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_changes_over_to_each_snapshot_under_way() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = open(&dir).await;
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            let mut last = 0;
            while last < 1499 {
                // Two keys of each commit, one of them always in a scan of the tree.
                let read = Read::default().get("last").range(Range::prefix(b"last", 1));
                let found = store.index.read(read).await.unwrap();
                let Some(value) = &found.gets[0] else { continue };
                assert_eq!(found.ranges[0][0].1, *value);
                let n: usize = String::from_utf8_lossy(value).parse().unwrap();
                assert!(n >= last, "time went back from {last} to {n}");
                last = n;
            }
        }
    });
    let model = Store::memory();
    for n in 0..1500 {
        store.index.commit(churn(n)).await.unwrap();
        model.index.commit(churn(n)).await.unwrap();
        if n % 300 == 299 {
            store.snapshot().await.unwrap();
            assert_eq!(all(&store).await, all(&model).await);
            let copied = scratch.path().join(n.to_string());
            crash_tests::copy(&dir, &copied);
            let crashed = open(&copied).await;
            assert_eq!(all(&crashed).await, all(&model).await, "killed after {n}");
            crashed.close().await.unwrap();
        }
    }
    reader.await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert!(index(&dir) > dir.join("index"), "it changed over");
    let names = fs::read_dir(&dir).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert_eq!(names.filter(|name| name.starts_with("index-")).count(), 1, "the old ones are gone");
    assert!(!dir.join("index").exists());
    // One that a crash left half made is removed.
    fs::create_dir(dir.join("index-4000")).unwrap();
    let store = open(&dir).await;
    assert_eq!(all(&store).await, all(&model).await);
    assert!(!dir.join("index-4000").exists());
    store.close().await.unwrap();
}

/// As a program of format 2 left it: an index that holds everything, and a snapshot without a list.
#[tokio::test]
async fn a_store_of_format_2_goes_on_with_its_index_and_without() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run(&dir, by_hand(), 0..100).await;
    // Before its first snapshot the index still holds everything.
    let full = scratch.path().join("full");
    crash_tests::copy(&index(&dir), &full);
    let store = Store::open(&dir, &by_hand()).await.unwrap();
    store.snapshot().await.unwrap();
    let expected = all(&store).await;
    store.close().await.unwrap();
    drop(store);
    fs::remove_dir_all(index(&dir)).unwrap();
    let _ = fs::remove_file(dir.join("index.current"));
    snapshot::tests::make_first(&snapshots(&dir)[0]);
    fs::write(dir.join("format"), "directpush store 2\n").unwrap();
    for with_index in [true, false] {
        let dir = {
            let to = scratch.path().join(with_index.to_string());
            crash_tests::copy(&dir, &to);
            to
        };
        if with_index {
            crash_tests::copy(&full, &index(&dir));
        }
        let store = open(&dir).await;
        assert_eq!(all(&store).await, expected);
        assert_eq!(fs::read(dir.join("format")).unwrap(), b"directpush store 3\n");
        store.index.commit(churn(100)).await.unwrap();
        let expected = all(&store).await;
        store.snapshot().await.unwrap();
        assert_eq!(all(&store).await, expected);
        store.close().await.unwrap();
        drop(store);
        assert_eq!(rebuilt(&dir).await, expected);
    }
}
