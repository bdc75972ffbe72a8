//! What every engine promises, checked on each of them.
//!
//! Each check takes a [`Subject`], which opens the store under test and can open it again. What only
//! an engine on disk can show (crashes, torn files, full disks) is in `crash_tests`.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// An engine under test.
enum Subject {
    Memory(Store),
    /// The directory goes with it.
    Sled(tempfile::TempDir),
}

impl Subject {
    fn all() -> [Self; 2] {
        [Self::Memory(Store::memory()), Self::Sled(tempfile::tempdir().unwrap())]
    }

    /// Opens the store, with what was committed when it was open before.
    async fn open(&self) -> Store {
        match self {
            Self::Memory(store) => store.clone(),
            Self::Sled(dir) => Store::open(&dir.path().join("store"), &small()).await.unwrap(),
        }
    }

    /// Closes the store, where there is something to be opened again.
    async fn close(&self, store: Store) {
        if matches!(self, Self::Sled(_)) {
            store.close().await.unwrap();
        }
    }
}

/// Options that make every rare thing happen often.
pub(super) fn small() -> StoreOptions {
    StoreOptions {
        cache_bytes: 4 * 1024 * 1024,
        hot_bytes: 64 * 1024,
        segment_bytes: 16 * 1024,
        checkpoint_bytes: 32 * 1024,
        snapshot_bytes: 24 * 1024,
        snapshot_bytes_per_sec: 0,
        snapshot_memory_bytes: 8 * 1024,
        reserve_bytes: 64 * 1024,
        ..StoreOptions::default()
    }
}

async fn get(store: &Store, key: &[u8]) -> Option<Value> {
    store.index.read(Read::default().get(key)).await.unwrap().gets.remove(0)
}

async fn scan(store: &Store, range: Range) -> Vec<(Key, Value)> {
    store.index.read(Read::default().range(range)).await.unwrap().ranges.remove(0)
}

fn keys(entries: &[(Key, Value)]) -> Vec<String> {
    entries.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}

fn between(start: &str, end: &str, limit: usize) -> Range {
    Range { start: start.into(), end: end.into(), limit, reverse: false }
}

#[tokio::test]
async fn ranges_are_ordered_bounded_and_go_both_ways() {
    for subject in Subject::all() {
        let store = subject.open().await;
        let mut commit = Commit::default();
        for key in ["b", "a", "ab", "c", "b\u{0}", "d"] {
            commit = commit.put(key, key);
        }
        store.index.commit(commit.put(vec![0xff; 3], "top")).await.unwrap();
        for (range, forward) in [
            (between("a", "d", 9), vec!["a", "ab", "b", "b\0", "c"]),
            (between("ab", "b", 9), vec!["ab"]),
            (between("b", "b", 9), vec![]),
            (between("c", "b", 9), vec![]),
            (between("x", "y", 9), vec![]),
            (Range::prefix(b"b", 9), vec!["b", "b\0"]),
            (between("a", "d", 0), vec![]),
        ] {
            assert_eq!(keys(&scan(&store, range.clone()).await), forward, "{range:?}");
            let backward: Vec<_> = forward.into_iter().rev().collect();
            assert_eq!(keys(&scan(&store, range.clone().reversed()).await), backward, "{range:?}");
        }
        assert_eq!(keys(&scan(&store, between("a", "d", 2)).await), ["a", "ab"]);
        assert_eq!(keys(&scan(&store, between("a", "d", 2).reversed()).await), ["c", "b\0"]);
        assert_eq!(scan(&store, Range::prefix(b"", 9)).await.len(), 7);
        assert_eq!(scan(&store, Range::prefix(&[0xff], 9)).await, [(vec![0xff; 3], b"top".to_vec())]);
    }
}

#[tokio::test]
async fn an_answer_has_the_shape_of_its_question() {
    for subject in Subject::all() {
        let store = subject.open().await;
        store.index.commit(Commit::default().put("a", "1").put("b", "")).await.unwrap();
        let read = Read::default()
            .get("b")
            .get("none")
            .get("a")
            .get("a")
            .range(between("x", "y", 1))
            .range(between("a", "z", 1));
        let found = store.index.read(read).await.unwrap();
        assert_eq!(found.gets, [Some(vec![]), None, Some(b"1".to_vec()), Some(b"1".to_vec())]);
        assert_eq!(found.ranges, [vec![], vec![(b"a".to_vec(), b"1".to_vec())]]);
        assert_eq!(store.index.read(Read::default()).await.unwrap(), Found::default());
    }
}

#[tokio::test]
async fn a_commit_that_expected_otherwise_changes_nothing() {
    for subject in Subject::all() {
        let store = subject.open().await;
        let claim = Commit::default().expect("n", None).put("n", "1");
        store.index.commit(claim.clone()).await.unwrap();
        assert!(matches!(store.index.commit(claim).await, Err(StoreError::Conflict)));
        let two = Commit::default().expect("n", Some(b"1".to_vec())).expect("other", Some(vec![]));
        assert!(matches!(store.index.commit(two.put("n", "2")).await, Err(StoreError::Conflict)));
        assert_eq!(get(&store, b"n").await, Some(b"1".to_vec()));
        store.index.commit(Commit::default().expect("n", Some(b"1".to_vec())).delete("n")).await.unwrap();
        assert_eq!(get(&store, b"n").await, None);
        // The last write to a key counts, and only looking is allowed.
        store
            .index
            .commit(Commit::default().put("n", "1").delete("n").put("n", "3").delete("none"))
            .await
            .unwrap();
        store.index.commit(Commit::default().expect("n", Some(b"3".to_vec()))).await.unwrap();
        store.index.commit(Commit::default()).await.unwrap();
    }
}

/// 64 writers count one number up; a lost or doubled step would show in the sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_compete_for_a_key_lose_no_step() {
    const WRITERS: u64 = 64;
    const STEPS: u64 = 5;
    for subject in Subject::all() {
        let store = subject.open().await;
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..STEPS {
                    loop {
                        let old = get(&store, b"count").await;
                        let number =
                            old.as_ref().map_or(0, |old| String::from_utf8_lossy(old).parse().unwrap());
                        let next = format!("{}", number + 1_u64);
                        match store
                            .index
                            .commit(Commit::default().expect("count", old).put("count", next))
                            .await
                        {
                            Ok(()) => break,
                            Err(StoreError::Conflict) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
        writers.join_all().await;
        assert_eq!(get(&store, b"count").await, Some((WRITERS * STEPS).to_string().into_bytes()));
    }
}

/// Readers see each commit whole or not at all, over gets and ranges, long values included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_part_of_a_commit() {
    for subject in Subject::all() {
        let store = subject.open().await;
        let key = |n: usize| format!("k{n:02}");
        let write = move |round: u8| {
            let commit = (0..20).fold(Commit::default(), |commit, n| commit.put(key(n), vec![round]));
            commit.put("long", vec![round; 5000 + 1000 * usize::from(round % 7)])
        };
        store.index.commit(write(0)).await.unwrap();
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for round in 1..=100 {
                    store.index.commit(write(round)).await.unwrap();
                }
            }
        });
        let mut last = 0;
        while last < 100 {
            let read = Read::default().get("k00").get("long").range(Range::prefix(b"k", 99));
            let found = store.index.read(read).await.unwrap();
            let round = found.gets[0].clone().unwrap()[0];
            assert!(round >= last, "time went back from {last} to {round}");
            last = round;
            assert_eq!(found.gets[1], Some(vec![round; 5000 + 1000 * usize::from(round % 7)]));
            assert_eq!(found.ranges[0].len(), 20);
            assert!(found.ranges[0].iter().all(|(_, value)| *value == [round]), "a torn read at {round}");
        }
        writer.await.unwrap();
    }
}

/// The same for gets alone, of keys that are read often and of keys that are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_of_one_batch_are_of_one_state() {
    for subject in Subject::all() {
        let store = subject.open().await;
        let write = move |round: u32| {
            (0..40).fold(Commit::default(), |commit, n| match (round + n) % 7 {
                0 if n > 0 => commit.delete(format!("k{n}")),
                1 if n > 0 => commit.put(format!("k{n}"), round.to_be_bytes().repeat(6000)),
                _ => commit.put(format!("k{n}"), round.to_be_bytes()),
            })
        };
        store.index.commit(write(0)).await.unwrap();
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for round in 1..=150 {
                    store.index.commit(write(round)).await.unwrap();
                }
            }
        });
        let mut last = 0;
        let mut random = fastrand::Rng::with_seed(1);
        while last < 150 {
            let asked: Vec<u32> = (0..random.u32(1..5)).map(|_| random.u32(1..40)).chain([0]).collect();
            let read = asked.iter().fold(Read::default(), |read, n| read.get(format!("k{n}")));
            let gets = store.index.read(read).await.unwrap().gets;
            let round = gets.last().unwrap().as_ref().unwrap();
            let round = u32::from_be_bytes(round[..4].try_into().unwrap());
            assert!(round >= last, "time went back from {last} to {round}");
            last = round;
            for (n, value) in asked.iter().zip(&gets) {
                let value = value.as_ref().map(|value| u32::from_be_bytes(value[..4].try_into().unwrap()));
                let there = (round + n) % 7 != 0 || *n == 0;
                assert_eq!(value, there.then_some(round), "k{n} of {asked:?}");
            }
        }
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_is_seen_by_every_read_after_its_answer() {
    for subject in Subject::all() {
        let store = subject.open().await;
        for n in 0..50_u8 {
            store.index.commit(Commit::default().put("k", [n])).await.unwrap();
            assert_eq!(get(&store, b"k").await, Some(vec![n]));
        }
    }
}

#[tokio::test]
async fn large_commits_and_long_values_are_kept_whole() {
    for subject in Subject::all() {
        let mut store = subject.open().await;
        let many = (0..20_000_u32).fold(Commit::default(), |c, n| c.put(n.to_be_bytes(), n.to_le_bytes()));
        store.index.commit(many).await.unwrap();
        // Lengths around those at which an engine might cut; long keys beside their prefixes.
        let lengths = [0, 1, 2047, 2048, 2049, 4096, 4097, 65_535, VALUE_BYTES_MAX];
        let value = |n: usize| (0..n).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
        for (step, length) in lengths.into_iter().chain(lengths.into_iter().rev()).enumerate() {
            let commit = Commit::default().put("v", value(length)).put("v\0", value(length / 2));
            store.index.commit(commit.put(vec![b'w'; KEY_BYTES_MAX], value(length))).await.unwrap();
            if step % 4 == 3 {
                subject.close(store).await;
                store = subject.open().await;
            }
            let expected = [
                (b"v".to_vec(), value(length)),
                (b"v\0".to_vec(), value(length / 2)),
                (vec![b'w'; KEY_BYTES_MAX], value(length)),
            ];
            assert_eq!(scan(&store, between("v", "x", 9)).await, expected, "length {length}");
        }
        store.index.commit(Commit::default().delete("v").put("v\0", "short")).await.unwrap();
        assert_eq!(get(&store, b"v").await, None);
        let all =
            scan(&store, Range { start: vec![0], end: vec![1], limit: usize::MAX, reverse: false }).await;
        assert_eq!(all.len(), 20_000);
        assert!(
            all.iter()
                .zip(0_u32..)
                .all(|((key, value), n)| *key == n.to_be_bytes() && *value == n.to_le_bytes())
        );
    }
}

#[tokio::test]
async fn what_is_over_a_bound_is_refused_whole() {
    for subject in Subject::all() {
        let store = subject.open().await;
        for commit in [
            Commit::default().put("", "x"),
            Commit::default().put(vec![1; KEY_BYTES_MAX + 1], "x"),
            Commit::default().put("k", vec![0; VALUE_BYTES_MAX + 1]),
            (0..=128_u8).fold(Commit::default(), |commit, n| commit.put([n, n], vec![0; VALUE_BYTES_MAX])),
        ] {
            let refused = store.index.commit(commit.put("mark", "x")).await;
            assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
        }
        assert_eq!(get(&store, b"mark").await, None);
        // Asking for what cannot be there is no mistake.
        assert_eq!(get(&store, &[1; KEY_BYTES_MAX + 1]).await, None);
    }
}

#[tokio::test]
async fn bodies_are_kept_listed_and_deleted() {
    for subject in Subject::all() {
        let mut store = subject.open().await;
        let before = SystemTime::now() - std::time::Duration::from_mins(1);
        let mut ids = Vec::new();
        for n in 0..40 {
            ids.push(store.bodies.put(Bytes::from(vec![7; n * 100])).await.unwrap());
        }
        subject.close(store).await;
        store = subject.open().await;
        let body = store.bodies.put(Bytes::from_static(b"Subject: x\r\n\r\nbody")).await.unwrap();
        ids.push(body);
        assert_eq!(store.bodies.get(body).await.unwrap(), "Subject: x\r\n\r\nbody");
        assert_eq!(store.bodies.size(body).await.unwrap(), 18);
        for (range, part) in [
            (0..7, "Subject"),
            (14..99, "body"),
            (18..99, ""),
            (99..100, ""),
            (0..u64::MAX, "Subject: x\r\n\r\nbody"),
        ] {
            assert_eq!(store.bodies.get_range(body, range.clone()).await.unwrap(), part, "{range:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "a peer may ask for it")]
        let nothing = store.bodies.get_range(body, 5..2).await.unwrap();
        assert!(nothing.is_empty());

        ids.sort_unstable();
        let mut listed = Vec::new();
        loop {
            let page = store.bodies.list(listed.last().map(|entry: &BodyEntry| entry.id), 7).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 7);
            listed.extend(page);
        }
        assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids);
        assert!(listed.iter().all(|entry| entry.put_at > before));
        assert_eq!(listed.iter().map(|entry| entry.bytes).sum::<u64>(), 18 + (0..40).sum::<u64>() * 100);

        assert!(store.bodies.delete(body).await.unwrap());
        assert!(!store.bodies.delete(body).await.unwrap());
        assert!(matches!(store.bodies.get(body).await, Err(StoreError::NoBody(id)) if id == body));
        assert!(matches!(store.bodies.get_range(body, 0..1).await, Err(StoreError::NoBody(_))));
        assert!(matches!(store.bodies.size(body).await, Err(StoreError::NoBody(_))));
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    for subject in Subject::all() {
        let store = subject.open().await;
        store.index.commit(Commit::default().put("k", "v")).await.unwrap();
        store.close().await.unwrap();
        store.close().await.unwrap();
        assert!(matches!(
            store.index.commit(Commit::default().put("k", "w")).await,
            Err(StoreError::Stopped)
        ));
        assert!(matches!(store.index.read(Read::default().get("k")).await, Err(StoreError::Stopped)));
    }
}

#[tokio::test]
async fn memory_fails_as_asked() {
    let index = MemoryIndex::default();
    index.set_full(true);
    assert!(matches!(index.commit(Commit::default().put("k", "v")).await, Err(StoreError::Full)));
    index.set_full(false);
    index.fail_next_commit();
    assert!(matches!(index.commit(Commit::default().put("k", "v")).await, Err(StoreError::Io { .. })));
    index.commit(Commit::default().expect("k", None).put("k", "v")).await.unwrap();
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Commit {
        expected: Vec<(u8, bool)>,
        writes: Vec<(u8, Option<u16>)>,
    },
    Together(Vec<(u8, Option<u16>)>),
    Scan(u8, u8, usize, bool),
    Reopen,
    /// The index is lost.
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24_u8;
    // Now and then a value that is kept in pieces.
    let length = prop_oneof![8 => 0..40_u16, 1 => 2000..9000_u16];
    let write = (key.clone(), proptest::option::weighted(0.7, length));
    let writes = proptest::collection::vec(write, 0..6);
    let expected = proptest::collection::vec((key.clone(), proptest::bool::weighted(0.9)), 0..3);
    prop_oneof![
        12 => (expected, writes.clone()).prop_map(|(expected, writes)| Step::Commit { expected, writes }),
        3 => writes.prop_map(Step::Together),
        6 => (key.clone(), key, 0..9_usize, any::<bool>()).prop_map(|(a, b, n, r)| Step::Scan(a, b, n, r)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
    ]
}

fn filled(seed: usize, length: u16) -> Value {
    (0..usize::from(length)).map(|at| u8::try_from((at + seed) % 256).unwrap()).collect()
}

/// The same steps on sled and on the engine in memory.
async fn compare(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("store");
    let mut store = Store::open(&path, &small()).await.unwrap();
    let model = Store::memory();
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Commit { expected, writes } => {
                let mut commit = Commit::default();
                for (key, right) in expected {
                    let now = get(&model, &[key + 1]).await;
                    commit = commit.expect([key + 1], if right { now } else { Some(b"wrong".to_vec()) });
                }
                commit.writes =
                    writes.into_iter().map(|(k, v)| (vec![k + 1], v.map(|n| filled(at, n)))).collect();
                let ours = store.index.commit(commit.clone()).await;
                let theirs = model.index.commit(commit).await;
                assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            }
            Step::Together(writes) => {
                // Polled in order, so they are queued in order, and mostly share a group.
                let mut waiting = JoinSet::new();
                for (key, value) in writes {
                    let commit = Commit {
                        writes: vec![(vec![key + 1], value.map(|n| filled(at, n)))],
                        ..Commit::default()
                    };
                    model.index.commit(commit.clone()).await.unwrap();
                    let index = Arc::clone(&store.index);
                    waiting.spawn(async move { index.commit(commit).await.unwrap() });
                }
                waiting.join_all().await;
            }
            Step::Scan(start, end, limit, reverse) => {
                let range = Range { start: vec![start], end: vec![end], limit, reverse };
                assert_eq!(scan(&store, range.clone()).await, scan(&model, range).await);
            }
            Step::Reopen | Step::Rebuild => {
                store.close().await.unwrap();
                drop(store);
                if matches!(step, Step::Rebuild) {
                    std::fs::remove_dir_all(super::crash_tests::index(&path)).unwrap();
                }
                store = Store::open(&path, &small()).await.unwrap();
            }
        }
    }
    let all = Range { start: vec![0], end: vec![255], limit: usize::MAX, reverse: false };
    assert_eq!(scan(&store, all.clone()).await, scan(&model, all).await);
    store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn sled_does_what_memory_does(steps in proptest::collection::vec(step(), 1..60)) {
        // One worker: tasks are then polled in the order in which they were spawned.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare(steps));
    }
}
