//! What only an engine on disk can show: crashes, torn and damaged files. Failing disks: `fault_tests`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    conformance::small,
    record::{FRAME_HEADER_BYTES, HEADER_BYTES},
    *,
};

pub(super) async fn open(dir: &Path) -> Store {
    Store::open(dir, &small()).await.unwrap()
}

/// One segment, whatever is written.
fn one_segment() -> StoreOptions {
    StoreOptions { segment_bytes: u64::MAX, snapshot_bytes: u64::MAX, ..small() }
}

/// The directory of the index that is in use.
pub(super) fn index(dir: &Path) -> PathBuf {
    dir.join(fs::read_to_string(dir.join("index.current")).unwrap_or_else(|_| "index".to_owned()))
}

pub(super) async fn all(store: &Store) -> Vec<(Key, Value)> {
    let range = Range { start: vec![0], end: vec![255], limit: usize::MAX, reverse: false };
    store.index.read(Read::default().range(range)).await.unwrap().ranges.remove(0)
}

/// Commit number `n` of a run, and what is there after it.
pub(super) fn commit(n: u8) -> Commit {
    let commit = Commit::default().put([1, n], vec![n; usize::from(n % 8) * 5]).put("last", [n]);
    if n > 2 { commit.delete([1, n - 2]) } else { commit }
}

pub(super) async fn state_after(n: u8) -> Vec<(Key, Value)> {
    let model = Store::memory();
    for n in 1..=n {
        model.index.commit(commit(n)).await.unwrap();
    }
    all(&model).await
}

async fn run_to(dir: &Path, n: u8, options: StoreOptions) {
    let store = Store::open(dir, &options).await.unwrap();
    for n in 1..=n {
        store.index.commit(commit(n)).await.unwrap();
    }
    store.close().await.unwrap();
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    // The index first: in a crash it is never ahead of the journal.
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            let _ = fs::copy(&path, &target).unwrap();
        }
    }
}

pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Where the records of a segment begin, and its end.
fn record_starts(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![HEADER_BYTES];
    while let Some(&at) = starts.last().filter(|at| **at < bytes.len()) {
        let payload = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        starts.push(at + FRAME_HEADER_BYTES + payload as usize);
    }
    starts
}

#[tokio::test]
async fn a_journal_cut_anywhere_keeps_every_whole_commit() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    run_to(&origin, 5, one_segment()).await;
    fs::remove_dir_all(index(&origin)).unwrap();
    let bytes = fs::read(&segments(&origin)[0]).unwrap();
    let starts = record_starts(&bytes);
    assert_eq!(starts.len(), 6);
    // Every byte would be better still, but takes minutes.
    for cut in (starts[3]..bytes.len()).step_by(3) {
        let kept = if cut < starts[4] { 3 } else { 4 };
        let dir = scratch.path().join(cut.to_string());
        copy(&origin, &dir);
        let mut torn = bytes[..cut].to_vec();
        if cut % 2 == 1 && cut != starts[4] {
            // Blocks that were allocated and not written read as zeros.
            torn.resize(bytes.len(), 0);
        }
        fs::write(&segments(&dir)[0], torn).unwrap();
        let store = open(&dir).await;
        assert_eq!(all(&store).await, state_after(kept).await, "cut at {cut}");
        let length = fs::metadata(&segments(&dir)[0]).unwrap().len();
        assert_eq!(length, starts[usize::from(kept)] as u64, "what was torn is gone");
        store.index.commit(commit(kept + 1)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        fs::remove_dir_all(index(&dir)).unwrap();
        let store = open(&dir).await;
        assert_eq!(all(&store).await, state_after(kept + 1).await, "cut at {cut}, and gone on");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_that_names_the_place() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    run_to(&origin, 5, one_segment()).await;
    fs::remove_dir_all(index(&origin)).unwrap();
    let bytes = fs::read(&segments(&origin)[0]).unwrap();
    let starts = record_starts(&bytes);
    for at in starts[1]..starts[2] {
        let dir = scratch.path().join(at.to_string());
        copy(&origin, &dir);
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(&segments(&dir)[0], bad).unwrap();
        match Store::open(&dir, &small()).await.err() {
            Some(StoreError::Corrupt { path, offset, .. }) => {
                assert_eq!((path, offset), (segments(&dir)[0].clone(), starts[1] as u64), "byte {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_missing_or_cut_segment_is_damage_unless_it_is_the_last() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    run_to(&origin, 100, StoreOptions { segment_bytes: 1000, snapshot_bytes: u64::MAX, ..small() }).await;
    fs::remove_dir_all(index(&origin)).unwrap();
    let count = segments(&origin).len();
    assert!(count > 5, "{count} segments");
    for (at, cut) in [(0, false), (2, false), (2, true), (count - 2, true)] {
        let dir = scratch.path().join(format!("{at}{cut}"));
        copy(&origin, &dir);
        let path = segments(&dir)[at].clone();
        if cut {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let refused = Store::open(&dir, &small()).await.err();
        assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{at} {cut}: {refused:?}");
    }
    // What a crash leaves of a segment that was being made is no obstacle.
    fs::write(origin.join("journal/00000000000000ff.new"), b"DPJR").unwrap();
    let store = open(&origin).await;
    assert_eq!(all(&store).await, state_after(100).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_that_lacks_what_the_index_has_is_refused_and_repaired() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run_to(&dir, 5, one_segment()).await;
    let segment = segments(&dir).remove(0);
    let bytes = fs::read(&segment).unwrap();
    let mut bad = bytes.clone();
    *bad.last_mut().unwrap() ^= 1;
    for short in [bytes[..record_starts(&bytes)[3]].to_vec(), bad] {
        let at = scratch.path().join(short.len().to_string());
        copy(&dir, &at);
        fs::write(at.join(segment.strip_prefix(&dir).unwrap()), &short).unwrap();
        let refused = Store::open(&at, &small()).await.err().unwrap();
        assert!(refused.to_string().contains("fsck --repair"), "{refused}");
        assert_eq!(fs::read(at.join(segment.strip_prefix(&dir).unwrap())).unwrap(), short, "nothing is cut");
        fsck(&at, &small(), &NoBodies, true, &mut |_| ()).unwrap();
        let store = open(&at).await;
        assert_eq!(all(&store).await, state_after(5).await);
        store.close().await.unwrap();
    }
}

pub(super) struct NoBodies;

impl References for NoBodies {
    fn body(&self, _: &[u8], _: &[u8]) -> Option<BodyId> {
        None
    }

    fn uses(&self, _: BodyId) -> Range {
        Range::default()
    }
}

#[tokio::test]
async fn a_journal_that_is_gone_is_no_new_store() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run_to(&dir, 5, one_segment()).await;
    fs::remove_dir_all(dir.join("snapshots")).unwrap();
    let segment = segments(&dir).remove(0);
    let bytes = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    // As it was left, behind a power cut, and without an index.
    for round in 0..3 {
        match round {
            1 => fs::write(dir.join("index.boot"), "another boot\n").unwrap(),
            2 => {
                fs::rename(index(&dir), dir.join("kept")).unwrap();
                fs::remove_file(dir.join("index.boot")).unwrap();
            }
            _ => {}
        }
        let refused = Store::open(&dir, &small()).await.err();
        assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{round}: {refused:?}");
        assert_eq!(index(&dir).exists(), round < 2, "nothing was touched");
    }
    fs::rename(dir.join("kept"), index(&dir)).unwrap();
    fs::write(&segment, bytes).unwrap();
    let store = open(&dir).await;
    assert_eq!(all(&store).await, state_after(5).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_index_stays_until_another_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run_to(&dir, 5, one_segment()).await;
    let segment = segments(&dir).remove(0);
    let bytes = fs::read(&segment).unwrap();
    let mut bad = bytes.clone();
    bad[record_starts(&bytes)[2] + 40] ^= 1;
    fs::write(&segment, bad).unwrap();
    for round in 0..3 {
        if round == 0 {
            rebuild(&dir, &small(), &mut |_| ()).unwrap_err();
        } else {
            fs::write(dir.join("index.boot"), "another boot\n").unwrap();
            assert!(Store::open(&dir, &small()).await.is_err());
        }
        assert!(index(&dir).join("db").exists() && !dir.join("index.old").exists(), "{round}");
    }
    fs::write(&segment, bytes).unwrap();
    let store = open(&dir).await;
    assert_eq!(all(&store).await, state_after(5).await);
    assert!(!dir.join("index.old").exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt_whatever_the_damage() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    run_to(&origin, 200, small()).await;
    let expected = state_after(200).await;
    let size = usize::try_from(fs::metadata(index(&origin).join("db")).unwrap().len()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..24 {
        let dir = scratch.path().join(round.to_string());
        copy(&origin, &dir);
        let mut bytes = fs::read(index(&dir).join("db")).unwrap();
        match round {
            0 => bytes.clear(),
            1 => bytes.truncate(size / 2),
            2 => bytes.fill(0xa5),
            3 => fs::write(index(&dir).join("conf"), b"garbage").unwrap(),
            _ => {
                // Most of the file is unused: aim at where there is something.
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(1);
                let at = random.usize(..used);
                let end = (at + random.usize(1..5000)).min(size);
                bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..));
            }
        }
        fs::write(index(&dir).join("db"), bytes).unwrap();
        let store = open(&dir).await;
        let range = Range { start: vec![0], end: vec![255], limit: usize::MAX, reverse: false };
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            // Damage that a read meets is repaired by the committer, which this commit waits for.
            match store.index.read(Read::default().range(range.clone())).await {
                Ok(found) => break found,
                Err(_) if attempts < 3 => drop(store.index.commit(Commit::default()).await),
                Err(error) => panic!("round {round}: {error}"),
            }
        };
        assert_eq!(found.ranges[0], expected, "round {round}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_taken_at_any_commit_opens_with_all_of_it() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = open(&dir).await;
    for n in 1..=120 {
        store.index.commit(commit(n)).await.unwrap();
        if n % 5 == 0 {
            let copied = scratch.path().join(n.to_string());
            copy(&dir, &copied);
            let store = open(&copied).await;
            assert_eq!(all(&store).await, state_after(n).await, "after commit {n}");
            store.close().await.unwrap();
            drop(store);
            fs::remove_dir_all(copied).unwrap();
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_index_that_was_open_when_the_machine_went_down_is_rebuilt() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run_to(&dir, 20, small()).await;
    assert!(!dir.join("index.boot").exists(), "it was closed");
    fs::write(dir.join("index.boot"), "another boot\n").unwrap();
    fs::write(index(&dir).join("old"), "").unwrap();
    let store = open(&dir).await;
    assert!(!index(&dir).join("old").exists());
    assert_eq!(all(&store).await, state_after(20).await);
    assert!(dir.join("index.boot").exists());
    store.close().await.unwrap();
}

/// sled itself takes such a file for its newest snapshot and refuses the store.
#[tokio::test]
async fn a_snapshot_that_sled_did_not_finish_is_no_damage() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    run_to(&dir, 20, small()).await;
    fs::write(dir.join("index/snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
    let store = open(&dir).await;
    assert_eq!(all(&store).await, state_after(20).await);
    assert!(!dir.join("index.corrupt-1").exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn foreign_formats_and_second_owners_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let store = open(&dir).await;
    let refused = Store::open(&dir, &small()).await.err();
    assert!(matches!(refused, Some(StoreError::InUse(_))), "{refused:?}");
    assert!(refused.unwrap().to_string().contains("in use by another process"));
    store.close().await.unwrap();
    drop(store);
    fs::write(dir.join("format"), "directpush store 4\n").unwrap();
    let refused = Store::open(&dir, &small()).await.err();
    assert!(matches!(refused, Some(StoreError::NewerFormat { found: 4, known: 3, .. })), "{refused:?}");
    for text in ["", "directpush store 0\n", "something else\n"] {
        fs::write(dir.join("format"), text).unwrap();
        let refused = Store::open(&dir, &small()).await.err();
        assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{text:?}: {refused:?}");
    }
    fs::remove_file(dir.join("format")).unwrap();
    assert!(matches!(Store::open(&dir, &small()).await.err(), Some(StoreError::Corrupt { .. })));
}

const WRITERS: usize = 6;

/// Not a test of its own: what `kill_9_loses_nothing_acknowledged` kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by kill_9_loses_nothing_acknowledged"]
async fn victim() {
    let Some(dir) = std::env::var_os("STORE_VICTIM") else { return };
    let store = open(Path::new(&dir)).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let head = format!("head/{writer}");
            let mut old = store.index.read(Read::default().get(head.clone())).await.unwrap().gets.remove(0);
            loop {
                let n =
                    old.as_ref().map_or(0, |old| String::from_utf8_lossy(old).parse::<u64>().unwrap()) + 1;
                let body = store.bodies.put(Bytes::from(format!("body of {writer}/{n}"))).await.unwrap();
                let next = n.to_string().into_bytes();
                let long = vec![u8::try_from(n % 256).unwrap(); usize::try_from(n % 5 * 1500).unwrap()];
                let commit = Commit::default()
                    .expect(head.clone(), old)
                    .put(head.clone(), next.clone())
                    .put(format!("body/{writer}/{n:08}"), body.to_string())
                    .put(format!("long/{writer}/{n:08}"), long);
                store.index.commit(commit).await.unwrap();
                println!("ack {writer} {n}");
                old = Some(next);
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let test = format!("{}::victim", module_path!().split_once("::").unwrap().1);
    let mut acknowledged = [0_u64; WRITERS];
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--ignored", "--nocapture"])
            .env("STORE_VICTIM", &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut patience = fastrand::u32(1..300);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((_, ack)) = line.split_once("ack ") else { continue };
            let (writer, n) = ack.split_once(' ').unwrap();
            acknowledged[writer.parse::<usize>().unwrap()] = n.parse().unwrap();
            patience = patience.saturating_sub(1);
            if patience == 0 {
                let _ = child.kill();
            }
        }
        child.wait().unwrap();
        let store = open(&dir).await;
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let head = Read::default()
                .get(format!("head/{writer}"))
                .range(Range::prefix(format!("body/{writer}/").as_bytes(), usize::MAX))
                .range(Range::prefix(format!("long/{writer}/").as_bytes(), usize::MAX));
            let found = store.index.read(head).await.unwrap();
            let head =
                found.gets[0].as_ref().map_or(0, |head| String::from_utf8_lossy(head).parse().unwrap());
            assert!(head >= *acknowledged, "round {round}: {writer} lost {acknowledged}, has {head}");
            assert_eq!(found.ranges[0].len() as u64, head, "round {round}");
            assert_eq!(found.ranges[1].len() as u64, head, "round {round}");
            for (n, ((body_key, body), (_, long))) in
                (1_u64..).zip(found.ranges[0].iter().zip(&found.ranges[1]))
            {
                assert_eq!(*body_key, format!("body/{writer}/{n:08}").into_bytes());
                assert_eq!(
                    *long,
                    vec![u8::try_from(n % 256).unwrap(); usize::try_from(n % 5 * 1500).unwrap()]
                );
                let body = store.bodies.get(String::from_utf8_lossy(body).parse().unwrap()).await.unwrap();
                assert_eq!(body, format!("body of {writer}/{n}"));
            }
        }
        store.close().await.unwrap();
    }
    assert!(acknowledged.iter().sum::<u64>() > 100, "{acknowledged:?}");
    assert!(!dir.join("index.corrupt-1").exists(), "a killed process leaves an index that opens");
}
