//! `fsck`, `rebuild`, backups, and the collection of bodies, against damage of every kind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    conformance::small,
    crash_tests::{all, copy, index, open, segments},
    *,
};

/// What is damaged and how, what fsck says, and whether a repair brings all of it back.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path), Severity, bool);

/// Keys `use/<body>` name bodies.
struct Uses;

impl References for Uses {
    fn body(&self, key: &[u8], _: &[u8]) -> Option<BodyId> {
        std::str::from_utf8(key.strip_prefix(b"use/")?).ok()?.parse().ok()
    }

    fn uses(&self, body: BodyId) -> Range {
        Range::prefix(format!("use/{body}").as_bytes(), 1)
    }
}

fn check(dir: &Path, repair: bool) -> Report {
    fsck(dir, &small(), &Uses, repair, &mut |_| ()).unwrap()
}

/// A closed store with bodies, a snapshot and a journal behind it; answers its content.
async fn filled(dir: &Path) -> (Vec<(Key, Value)>, Vec<BodyId>) {
    let store = Store::open(dir, &StoreOptions { snapshot_bytes: u64::MAX, ..small() }).await.unwrap();
    let mut bodies = Vec::new();
    for n in 0..60_u32 {
        let body = store.bodies.put(Bytes::from(format!("body {n} ").repeat(50))).await.unwrap();
        bodies.push(body);
        let commit = Commit::default().put(format!("use/{body}"), "").put(format!("n/{n}"), vec![1; 3000]);
        store.index.commit(commit.delete(format!("n/{}", n / 2))).await.unwrap();
        if n == 40 {
            store.snapshot().await.unwrap();
        }
    }
    let content = all(&store).await;
    store.close().await.unwrap();
    (content, bodies)
}

fn file_of(dir: &Path, body: BodyId) -> PathBuf {
    dir.join("bodies").join(format!("{:02x}", body.0[0])).join(format!("{body}.body"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

async fn content(dir: &Path) -> Vec<(Key, Value)> {
    let store = open(dir).await;
    let content = all(&store).await;
    store.close().await.unwrap();
    content
}

#[tokio::test]
async fn fsck_finds_nothing_where_nothing_is_and_all_damage_where_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    let (expected, bodies) = filled(&origin).await;
    let report = check(&origin, false);
    assert_eq!((report.notes, report.damages, report.losses), (0, 0, 0), "{:?}", report.findings);
    assert_eq!((report.entries, report.bodies, report.unreferenced), (expected.len() as u64, 60, 0));
    assert_eq!(report.bodies_unhashed, 0);

    let snapshot = |dir: &Path| snapshot::list(&dir.join("snapshots")).unwrap().pop().unwrap().1;
    let journal = |dir: &Path| segments(dir).pop().unwrap();
    let cases: [Damage<'_>; 9] = [
        ("snapshot", &|dir| flip(&snapshot(dir), 5000), Severity::Damage, true),
        ("snapshot gone", &|dir| fs::remove_file(snapshot(dir)).unwrap(), Severity::Damage, true),
        ("journal", &|dir| flip(&journal(dir), 200), Severity::Damage, true),
        ("journal gone", &|dir| fs::remove_dir_all(dir.join("journal")).unwrap(), Severity::Damage, true),
        (
            "torn",
            &|dir| {
                let bytes = fs::read(journal(dir)).unwrap();
                fs::write(journal(dir), [&bytes[..], b"DPr1 and some"].concat()).unwrap();
            },
            Severity::Note,
            true,
        ),
        ("index", &|dir| fs::write(index(dir).join("db"), vec![0xa5; 4096]).unwrap(), Severity::Damage, true),
        ("index gone", &|dir| fs::remove_dir_all(index(dir)).unwrap(), Severity::Note, true),
        ("body", &|dir| flip(&file_of(dir, bodies[7]), 20), Severity::Loss, false),
        ("body gone", &|dir| fs::remove_file(file_of(dir, bodies[7])).unwrap(), Severity::Loss, false),
    ];
    for (name, damage, severity, repairable) in cases {
        let dir = scratch.path().join(name);
        copy(&origin, &dir);
        damage(&dir);
        let report = check(&dir, false);
        let worst = report.findings.iter().map(|finding| finding.severity).max();
        assert_eq!(worst, Some(severity), "{name}: {:?}", report.findings);
        check(&dir, true);
        assert_eq!(content(&dir).await, expected, "{name}");
        let report = check(&dir, false);
        assert_eq!(report.is_clean(), repairable, "{name}: {:?}", report.findings);
    }
}

fn unhurried() -> StoreOptions {
    StoreOptions { snapshot_bytes: u64::MAX, segment_bytes: 8000, ..small() }
}

/// A store with a snapshot, an older segment in front of it, and `count` commits behind it in segments of
/// two or three each.
async fn many_segments(dir: &Path, count: u32) -> Vec<(Key, Value)> {
    let store = Store::open(dir, &unhurried()).await.unwrap();
    for n in 0..20 + count {
        store.index.commit(Commit::default().put(format!("n/{n}"), vec![1; 3000])).await.unwrap();
        if n == 9 || n == 19 {
            store.snapshot().await.unwrap();
        }
    }
    let content = all(&store).await;
    store.close().await.unwrap();
    content
}

#[tokio::test]
async fn damage_before_the_newest_snapshot_costs_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let expected = many_segments(&dir, 6).await;
    assert_eq!(snapshot::list(&dir.join("snapshots")).unwrap().len(), 2);
    flip(&segments(&dir)[0], 200);
    // Not even an index that is older.
    fs::remove_dir_all(index(&dir)).unwrap();
    assert_eq!(check(&dir, false).damages, 1);
    let report = check(&dir, true);
    assert_eq!(report.losses, 0, "{:?}", report.findings);
    assert!(!dir.join("journal.corrupt-1").exists());
    assert!(check(&dir, false).is_clean());
    assert_eq!(content(&dir).await, expected);
}

#[tokio::test]
async fn a_repair_takes_what_is_whole_behind_the_index_and_counts_the_rest() {
    let scratch = tempfile::tempdir().unwrap();
    let origin = scratch.path().join("origin");
    many_segments(&origin, 6).await;
    let old = scratch.path().join("index");
    copy(&index(&origin), &old);
    let store = Store::open(&origin, &unhurried()).await.unwrap();
    for n in 26..32 {
        store.index.commit(Commit::default().put(format!("n/{n}"), vec![1; 3000])).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // The index has seen 26 commits of 32; of the journal one before that is damaged, and perhaps one behind.
    for (lost, has) in [(None, 32), (Some(30), 29)] {
        let dir = scratch.path().join(has.to_string());
        copy(&origin, &dir);
        fs::remove_dir_all(index(&dir)).unwrap();
        copy(&old, &index(&dir));
        for position in [Some(22), lost].into_iter().flatten() {
            damage_record(&dir, position);
        }
        let report = check(&dir, true);
        assert_eq!(report.losses, u64::from(lost.is_some()), "{:?}", report.findings);
        let entries = content(&dir).await;
        let expected = (0..has).map(|n| format!("n/{n}").into_bytes());
        assert_eq!(entries.len(), has, "{:?}", report.repairs);
        assert!(expected.into_iter().all(|key| entries.iter().any(|(found, _)| *found == key)));
        assert!(check(&dir, false).is_clean());
    }
}

/// Flips a bit in the record at a position.
fn damage_record(dir: &Path, position: u64) {
    for path in segments(dir) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(16)
            .position(|front| front.starts_with(b"DPr1") && front[8..] == position.to_le_bytes());
        if let Some(at) = found {
            return flip(&path, at + 100);
        }
    }
    panic!("no record {position}");
}

/// Between moving the old journal away and moving the new one in.
#[tokio::test]
async fn a_repair_that_was_interrupted_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let (expected, _) = filled(&dir).await;
    flip(&segments(&dir).pop().unwrap(), 200);
    check(&dir, true);
    fs::rename(dir.join("journal"), dir.join("journal.new")).unwrap();
    assert_eq!(content(&dir).await, expected);
}

#[tokio::test]
async fn what_only_a_backup_has_is_said_so() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    filled(&dir).await;
    fs::remove_file(segments(&dir).remove(0)).unwrap();
    flip(&snapshot::list(&dir.join("snapshots")).unwrap().pop().unwrap().1, 5000);
    fs::remove_dir_all(index(&dir)).unwrap();
    let report = check(&dir, true);
    assert!(report.losses > 0, "{:?}", report.findings);
    assert!(report.findings.iter().any(|finding| finding.what.contains("restore")), "{:?}", report.findings);
    assert!(fsck(&dir.join("none"), &small(), &Uses, false, &mut |_| ()).is_err());
    assert!(!dir.join("none").exists(), "a mistyped path stays nothing");
}

#[tokio::test]
async fn bodies_of_the_first_format_are_read_and_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let (_, bodies) = filled(&dir).await;
    let path = file_of(&dir, bodies[3]);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(path.with_extension(""), &bytes[..bytes.len() - 40]).unwrap();
    let report = check(&dir, false);
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.bodies_unhashed, 1);
    let store = open(&dir).await;
    assert_eq!(store.bodies.get(bodies[3]).await.unwrap(), "body 3 ".repeat(50));
    assert_eq!(store.bodies.size(bodies[3]).await.unwrap(), 350);
    assert_eq!(store.bodies.get_range(bodies[3], 5..6).await.unwrap(), "3");
    assert_eq!(store.bodies.list(None, 100).await.unwrap().len(), 60);
    assert!(store.bodies.delete(bodies[3]).await.unwrap());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_rebuilt_index_is_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let (expected, _) = filled(&dir).await;
    let store = open(&dir).await;
    assert!(matches!(rebuild(&dir, &small(), &mut |_| ()), Err(StoreError::InUse(_))));
    store.close().await.unwrap();
    drop(store);
    rebuild(&dir, &small(), &mut |_| ()).unwrap();
    assert!(!dir.join("index.corrupt-1").exists());
    assert_eq!(content(&dir).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_store_is_one_of_its_states() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, target) = (scratch.path().join("store"), scratch.path().join("backup"));
    let store = open(&dir).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut live = std::collections::VecDeque::new();
            for n in 0..400_u32 {
                let body = store.bodies.put(Bytes::from(format!("body {n}"))).await.unwrap();
                live.push_back(body);
                let mut commit =
                    Commit::default().put("n", n.to_string()).put(format!("use/{body}"), n.to_string());
                let old = if live.len() > 20 { live.pop_front() } else { None };
                if let Some(old) = old {
                    commit = commit.delete(format!("use/{old}"));
                }
                store.index.commit(commit).await.unwrap();
                if let Some(old) = old {
                    store.bodies.delete(old).await.unwrap();
                }
            }
        }
    });
    let mut last = 0;
    for round in 0..4 {
        let copied = store.backup(&target, |_| ()).await.unwrap();
        let back = scratch.path().join(format!("back-{round}"));
        assert_eq!(
            restore(&target, &back, false, &mut |_, value| Ok(value), &mut |_| ()).unwrap().entries,
            copied.entries
        );
        let report = check(&back, false);
        assert!(report.is_clean(), "round {round}: {:?}", report.findings);
        let restored = open(&back).await;
        let found =
            restored.index.read(Read::default().get("n").range(Range::prefix(b"use/", 99))).await.unwrap();
        let n: u32 = found.gets[0].as_ref().map_or(0, |n| String::from_utf8_lossy(n).parse().unwrap());
        assert!(n >= last, "round {round}");
        last = n;
        for (key, value) in &found.ranges[0] {
            let body = Uses.body(key, value).unwrap();
            let expected = format!("body {}", String::from_utf8_lossy(value));
            assert_eq!(restored.bodies.get(body).await.unwrap(), expected, "round {round}");
        }
        restored.close().await.unwrap();
    }
    writer.await.unwrap();
    // What was to be deleted meanwhile is collected, and the last backup holds just what is left.
    store.collect_bodies(|id| Uses.uses(id), std::time::Duration::ZERO).await.unwrap();
    assert_eq!(store.bodies.list(None, 999).await.unwrap().len(), 20);
    let copied = store.backup(&target, |_| ()).await.unwrap();
    assert_eq!(copied.bodies, 20);
    let again = store.backup(&target, |_| ()).await.unwrap();
    assert_eq!((again.bodies, again.new_bodies), (20, 0), "only what is new is copied");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 5, "lock, manifest, bodies, queue and one snapshot");
    assert!(fs::read_dir(dir.join("snapshots")).unwrap().count() <= 2, "none is kept for a backup");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, target) = (scratch.path().join("store"), scratch.path().join("backup"));
    let (expected, bodies) = filled(&dir).await;
    let store = open(&dir).await;
    store.backup(&target, |_| ()).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert!(usage.live > 0 && usage.bodies > 60 * 350 && usage.index > 0, "{usage:?}");
    store.close().await.unwrap();
    let manifest = fs::read_to_string(target.join("manifest")).unwrap();
    let lines: Vec<&str> = manifest.lines().collect();
    let without = |skip: usize| {
        let kept =
            lines.iter().enumerate().filter(|(at, _)| *at != skip).map(|(_, line)| format!("{line}\n"));
        kept.collect::<String>()
    };
    for bad in (0..lines.len()).step_by(9).map(without).chain([manifest.replace("body 0", "body ../0")]) {
        fs::write(target.join("manifest"), bad).unwrap();
        let back = scratch.path().join("refused");
        let refused = restore(&target, &back, false, &mut |_, value| Ok(value), &mut |_| ());
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert!(!back.exists(), "nothing is begun");
        drop(place::Place::for_restore(&back, std::sync::Arc::new(disk::RealDisk)).unwrap());
        let refused = Store::open(&back, &small()).await.err();
        assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "an interrupted restore is no store");
        fs::remove_dir_all(back).unwrap();
    }
    fs::write(target.join("manifest"), &manifest).unwrap();
    // A hard link would damage the store's own.
    let body = file_of(&target, bodies[5]);
    let bytes = fs::read(&body).unwrap();
    fs::remove_file(&body).unwrap();
    fs::write(&body, "another").unwrap();
    let back = scratch.path().join("back");
    assert!(matches!(
        restore(&target, &back, false, &mut |_, value| Ok(value), &mut |_| ()),
        Err(StoreError::Corrupt { .. })
    ));
    fs::write(&body, bytes).unwrap();
    // It goes on where it was interrupted.
    drop(place::Place::for_restore(&back, std::sync::Arc::new(disk::RealDisk)).unwrap());
    fs::create_dir_all(back.join("journal")).unwrap();
    let mut renewed = expected.clone();
    for (key, value) in &mut renewed {
        value.extend(key.first());
    }
    let mut renew = |key: &[u8], value: Value| Ok([value.as_slice(), &key[..1]].concat());
    restore(&target, &back, false, &mut renew, &mut |_| ()).unwrap();
    assert_eq!(content(&back).await, renewed);
    assert!(
        restore(&target, &back, false, &mut |_, value| Ok(value), &mut |_| ()).is_err(),
        "not over a store"
    );
}

#[tokio::test]
async fn bodies_without_a_use_go_when_they_are_looked_at_twice() {
    let dir = tempfile::tempdir().unwrap();
    for store in [Store::memory(), open(&dir.path().join("store")).await] {
        let used = store.bodies.put(Bytes::from_static(b"used")).await.unwrap();
        let late = store.bodies.put(Bytes::from_static(b"late")).await.unwrap();
        let unused = store.bodies.put(Bytes::from_static(b"unused")).await.unwrap();
        store.index.commit(Commit::default().put(format!("use/{used}"), "")).await.unwrap();
        let uses = |id| Uses.uses(id);
        let mut found = store.unused_bodies(&uses).await.unwrap();
        found.sort_unstable();
        let mut expected = [late, unused];
        expected.sort_unstable();
        assert_eq!(found, expected);
        // Its commit was on the way.
        store.index.commit(Commit::default().put(format!("use/{late}"), "")).await.unwrap();
        assert_eq!(store.delete_unused(&found, &uses).await.unwrap(), 1);
        assert!(matches!(store.bodies.get(unused).await, Err(StoreError::NoBody(_))));
        for kept in [used, late] {
            store.bodies.get(kept).await.unwrap();
        }
        assert_eq!(store.collect_bodies(uses, std::time::Duration::ZERO).await.unwrap(), 0);
        store.close().await.unwrap();
    }
}

/// Neither journal nor index can be read; an index that was set aside still can.
#[tokio::test]
async fn an_index_that_was_set_aside_is_the_last_resort() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let (expected, _) = filled(&dir).await;
    copy(&index(&dir), &dir.join("index.corrupt-1"));
    fs::write(index(&dir).join("db"), vec![0xa5; 4096]).unwrap();
    fs::remove_dir_all(dir.join("journal")).unwrap();
    let report = check(&dir, true);
    assert!(report.findings.iter().any(|finding| finding.what.contains("index.corrupt-1")), "{report:?}");
    fs::remove_dir_all(index(&dir)).unwrap();
    assert_eq!(content(&dir).await, expected);
}

/// A plain check, interrupted by a power cut, must not cost the index its trust.
#[tokio::test]
async fn a_check_leaves_the_index_as_it_lies() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    filled(&dir).await;
    let files = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            names.filter(|path| path.is_file()).map(|path| (fs::read(&path).unwrap(), path)).collect();
        files.sort();
        files
    };
    let before = (files(&dir), files(&index(&dir)));
    let mut watch = |_: Progress| assert!(!dir.join("index.boot").exists());
    fsck(&dir, &small(), &Uses, false, &mut watch).unwrap();
    assert_eq!((files(&dir), files(&index(&dir))), before);
    assert!(!dir.join("index.check").exists());
}

#[tokio::test]
async fn of_journals_set_aside_only_the_newest_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let (expected, _) = filled(&dir).await;
    for round in 1..=5 {
        let store = Store::open(&dir, &unhurried()).await.unwrap();
        store.index.commit(Commit::default().put("round", [round])).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        flip(&segments(&dir).pop().unwrap(), 90);
        check(&dir, true);
    }
    let kept: Vec<bool> = (1..=6).map(|n| dir.join(format!("journal.corrupt-{n}")).exists()).collect();
    assert_eq!(kept, [false, false, true, true, true, false]);
    assert_eq!(content(&dir).await.len(), expected.len() + 1);
}

#[tokio::test]
async fn a_damaged_body_is_left_out_of_a_backup_and_on_request_of_a_restore() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, target) = (scratch.path().join("store"), scratch.path().join("backup"));
    let (expected, bodies) = filled(&dir).await;
    let store = open(&dir).await;
    flip(&file_of(&dir, bodies[3]), 20);
    let copied = store.backup(&target, |_| ()).await.unwrap();
    assert_eq!((copied.bodies, copied.damaged_bodies), (59, 1));
    // What an older backup has stays, whatever becomes of the store's.
    let other = file_of(&dir, bodies[4]);
    let bytes = fs::read(&other).unwrap();
    fs::remove_file(&other).unwrap();
    fs::write(&other, bytes).unwrap();
    flip(&other, 20);
    let copied = store.backup(&target, |_| ()).await.unwrap();
    assert_eq!((copied.bodies, copied.damaged_bodies), (59, 1));
    store.close().await.unwrap();
    flip(&file_of(&target, bodies[5]), 20);
    let back = scratch.path().join("back/store");
    let mut same = |_: &[u8], value| Ok(value);
    assert!(restore(&target, &back, false, &mut same, &mut |_| ()).is_err());
    let copied = restore(&target, &back, true, &mut same, &mut |_| ()).unwrap();
    assert_eq!((copied.bodies, copied.damaged_bodies), (58, 1));
    assert_eq!(content(&back).await, expected);
    let store = open(&back).await;
    assert_eq!(store.bodies.get(bodies[4]).await.unwrap(), "body 4 ".repeat(50));
    assert!(matches!(store.bodies.get(bodies[5]).await, Err(StoreError::NoBody(_))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_has_the_mail_queue() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, target) = (scratch.path().join("state/store"), scratch.path().join("backup"));
    filled(&dir).await;
    let queue = scratch.path().join("state/queue");
    fs::create_dir(&queue).unwrap();
    let mail = |n: u32| queue.join(format!("{n:016x}.mail"));
    for n in 0..3 {
        fs::write(mail(n), format!("mail {n}")).unwrap();
    }
    let state = queue.join(format!("{:016x}.state", 1));
    fs::write(&state, "tried once").unwrap();
    for unfinished in ["0000000000000009.mail.new", "notes"] {
        fs::write(queue.join(unfinished), "half").unwrap();
    }
    let store = open(&dir).await;
    assert_eq!(store.backup(&target, |_| ()).await.unwrap().queued, 3);
    // Sent, tried again, and come.
    fs::remove_file(mail(0)).unwrap();
    fs::write(&state, "tried twice").unwrap();
    fs::write(mail(7), "mail 7").unwrap();
    assert_eq!(store.backup(&target, |_| ()).await.unwrap().queued, 3);
    store.close().await.unwrap();
    assert_eq!(fs::read_dir(target.join("queue")).unwrap().count(), 4, "the older backup's are gone");
    let back = scratch.path().join("back/store");
    let mut same = |_: &[u8], value| Ok(value);
    assert_eq!(restore(&target, &back, false, &mut same, &mut |_| ()).unwrap().queued, 3);
    let names = fs::read_dir(scratch.path().join("back/queue")).unwrap();
    let mut found: Vec<_> = names
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_owned().into_string().unwrap(), fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    let expected =
        [(1, "mail", "mail 1"), (1, "state", "tried twice"), (2, "mail", "mail 2"), (7, "mail", "mail 7")];
    let expected = expected.map(|(n, kind, text)| (format!("{n:016x}.{kind}"), text.to_owned()));
    assert_eq!(found, expected);
    // One that is there stays.
    fs::remove_dir_all(&back).unwrap();
    fs::write(scratch.path().join("back/queue").join(&expected[0].0), "another").unwrap();
    assert_eq!(restore(&target, &back, false, &mut same, &mut |_| ()).unwrap().queued, 0);
    assert_eq!(
        fs::read_to_string(scratch.path().join("back/queue").join(&expected[0].0)).unwrap(),
        "another"
    );
    let damaged = fs::read_dir(target.join("queue")).unwrap().next().unwrap().unwrap().path();
    fs::write(damaged, "x").unwrap();
    let back = scratch.path().join("refused/store");
    assert!(restore(&target, &back, true, &mut same, &mut |_| ()).is_err());
}
