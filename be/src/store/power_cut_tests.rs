//! Power cuts: whatever was not synced may be lost, torn or reordered, and nothing acknowledged is.
//!
//! A disk records every step of a run: writes, cuts, syncs, renames, removals, syncs of directories.
//! Then the power is cut behind any of these steps, many times: of the data that no sync covers some
//! sectors are kept and some not, and of the names that no sync of their directory covers some are there
//! and some not. Each disk that may be left so is opened and looked at.
//!
//! sled's files are not recorded: nothing is known of them after a power cut, and the store must not
//! use them then. `POWER_CUTS` in the environment says how many cuts are tried.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{
    conformance::small,
    disk::{Disk, DiskFile, RealDisk},
    *,
};

const WRITERS: u32 = 4;
const SECTOR: usize = 512;

/// A step of the run, with paths below the store's directory and files by number.
#[derive(Clone, Debug)]
enum Step {
    Create(PathBuf, usize),
    Write(usize, u64, Vec<u8>),
    Cut(usize, u64),
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDir(PathBuf),
    SyncDir(PathBuf),
    /// A writer asks for its commit of this number.
    Asked(u32, u32),
    /// It was answered.
    Answered(u32, u32),
    Body(BodyId, Bytes),
    /// A body may go from here on.
    BodyGoes(BodyId),
    /// The store was closed: sled's files are what they were then.
    Closed,
}

type Kind = fn(&Step) -> bool;

#[derive(Default)]
struct Log {
    steps: Vec<Step>,
    files: HashMap<PathBuf, usize>,
    count: usize,
    /// The process is killed behind so many steps of this kind; none of the disk's is made after that.
    kill: Option<(Kind, usize)>,
    dead: bool,
}

impl Log {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("killed")) } else { Ok(()) }
    }

    fn push(&mut self, step: Step) {
        if let Some((kind, left)) = &mut self.kill
            && kind(&step)
        {
            *left = left.saturating_sub(1);
            self.dead = *left == 0;
        }
        self.steps.push(step);
    }
}

#[derive(Clone)]
struct Recorder {
    root: PathBuf,
    log: Arc<Mutex<Log>>,
}

struct RecordedFile(Box<dyn DiskFile>, usize, Arc<Mutex<Log>>);

impl Recorder {
    fn note(&self, step: Step) {
        self.log.lock().push(step);
    }

    /// Only a killed process may fail.
    fn killed(&self) {
        assert!(self.log.lock().dead, "a step failed");
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).map_or_else(|_| PathBuf::from("/"), Path::to_owned)
    }
}

/// The lock is held over the step itself, so that the log has the order in which things happened.
impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut log = self.log.lock();
        log.alive()?;
        let file = RealDisk.create(path)?;
        let (number, path) = (log.count, self.below(path));
        log.count += 1;
        log.files.insert(path.clone(), number);
        log.push(Step::Create(path, number));
        Ok(Box::new(RecordedFile(file, number, self.log.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.log.lock().alive()?;
        let file = RealDisk.open(path)?;
        let number = self.log.lock().files[&self.below(path)];
        Ok(Box::new(RecordedFile(file, number, self.log.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        log.alive()?;
        RealDisk.rename(from, to)?;
        let (from, to) = (self.below(from), self.below(to));
        // Directories that are set aside are sled's.
        if let Some(number) = log.files.remove(&from) {
            log.files.insert(to.clone(), number);
            log.push(Step::Rename(from, to));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        log.alive()?;
        RealDisk.remove(path)?;
        let path = self.below(path);
        log.files.remove(&path);
        log.push(Step::Remove(path));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        log.alive()?;
        RealDisk.create_dir(path)?;
        log.push(Step::MakeDir(self.below(path)));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        log.alive()?;
        log.push(Step::SyncDir(self.below(path)));
        Ok(())
    }
}

impl DiskFile for RecordedFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut log = self.2.lock();
        log.alive()?;
        self.0.write_all_at(bytes, offset)?;
        log.push(Step::Write(self.1, offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut log = self.2.lock();
        log.alive()?;
        self.0.set_len(bytes)?;
        log.push(Step::Cut(self.1, bytes));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut log = self.2.lock();
        log.alive()?;
        log.push(Step::Sync(self.1));
        Ok(())
    }
}

fn body_of(writer: u32, n: u32) -> Bytes {
    Bytes::from(format!("body {writer} {n} ").repeat(1 + n as usize % 90))
}

/// Commits, bodies and their removal, by several writers at once, and a snapshot now and then.
async fn load(store: &Store, recorder: &Recorder, count: u32) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        // What a reader has seen counts as answered.
        let head = head_of(store, writer).await;
        recorder.note(Step::Answered(writer, head));
        let (store, recorder, numbers) = (store.clone(), recorder.clone(), head + 1..=head + count);
        writers.spawn(async move {
            let mut bodies = BTreeMap::new();
            for n in numbers {
                let content = body_of(writer, n);
                let Ok(body) = store.bodies.put(content.clone()).await else { return recorder.killed() };
                recorder.note(Step::Body(body, content));
                bodies.insert(n, body);
                let long = vec![u8::try_from(n % 251).unwrap(); n as usize % 6 * 900];
                let commit = Commit::default()
                    .put(format!("head/{writer}"), n.to_string())
                    .put(format!("item/{writer}/{n:06}"), body.to_string())
                    .put(format!("long/{writer}"), long)
                    .delete(format!("item/{writer}/{:06}", n.saturating_sub(3)));
                recorder.note(Step::Asked(writer, n));
                if store.index.commit(commit).await.is_err() {
                    return recorder.killed();
                }
                recorder.note(Step::Answered(writer, n));
                if let Some(old) = n.checked_sub(5).and_then(|old| bodies.remove(&old)) {
                    recorder.note(Step::BodyGoes(old));
                    if store.bodies.delete(old).await.is_err() {
                        return recorder.killed();
                    }
                }
                if n % 40 == 39 && writer == 0 && store.snapshot().await.is_err() {
                    return recorder.killed();
                }
            }
        });
    }
    writers.join_all().await;
}

async fn head_of(store: &Store, writer: u32) -> u32 {
    let found = store.index.read(Read::default().get(format!("head/{writer}"))).await.unwrap();
    found.gets[0].as_ref().map_or(0, |head| String::from_utf8_lossy(head).parse().unwrap())
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Default)]
struct Data {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let start = usize::try_from(*offset).unwrap();
                bytes.resize(bytes.len().max(start + written.len()), 0);
                bytes[start..start + written.len()].copy_from_slice(written);
            }
            Self::Cut(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        }
    }

    /// Some of its sectors; what is left out of the middle reads as before, or as zeros.
    fn tear(&self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let Self::Write(offset, written) = self else { return self.make(bytes) };
        let longer = random.bool();
        for (at, sector) in written.chunks(SECTOR).enumerate() {
            if random.bool() {
                Self::Write(offset + (at * SECTOR) as u64, sector.to_vec()).make(bytes);
            }
        }
        if longer {
            bytes.resize(bytes.len().max(usize::try_from(*offset).unwrap() + written.len()), 0);
        }
    }
}

/// A change of a directory that no sync covers yet.
#[derive(Clone)]
struct Naming {
    path: PathBuf,
    node: Option<Node>,
}

/// What the disk is sure to hold, and what it may hold, after some steps.
#[derive(Clone, Default)]
struct Machine {
    live: BTreeMap<PathBuf, Node>,
    names: BTreeMap<PathBuf, Node>,
    pending: Vec<Vec<Naming>>,
    data: Vec<Data>,
    asked: BTreeMap<u32, u32>,
    answered: BTreeMap<u32, u32>,
    bodies: BTreeMap<BodyId, Bytes>,
    /// How often the store was closed, and said so on the disk.
    closed: usize,
}

impl Machine {
    fn name(&mut self, changes: Vec<Naming>) {
        for change in &changes {
            match change.node {
                Some(node) => self.live.insert(change.path.clone(), node),
                None => self.live.remove(&change.path),
            };
        }
        self.pending.push(changes);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Create(path, number) => {
                assert_eq!(self.data.len(), *number);
                self.data.push(Data::default());
                self.name(vec![Naming { path: path.clone(), node: Some(Node::File(*number)) }]);
            }
            Step::Write(file, offset, bytes) => {
                self.data[*file].pending.push(Change::Write(*offset, bytes.clone()));
            }
            Step::Cut(file, length) => self.data[*file].pending.push(Change::Cut(*length)),
            Step::Sync(file) => {
                let Data { synced, pending } = &mut self.data[*file];
                pending.drain(..).for_each(|change| change.make(synced));
            }
            Step::Rename(from, to) => {
                let node = self.live.get(from).copied();
                let from = Naming { path: from.clone(), node: None };
                self.name(vec![Naming { path: to.clone(), node }, from]);
            }
            Step::Remove(path) => {
                if path.as_os_str() == "index.boot" {
                    self.closed += 1;
                }
                self.name(vec![Naming { path: path.clone(), node: None }]);
            }
            Step::MakeDir(path) => self.name(vec![Naming { path: path.clone(), node: Some(Node::Dir) }]),
            Step::SyncDir(dir) => {
                let mut left = Vec::new();
                for changes in std::mem::take(&mut self.pending) {
                    let (synced, rest): (Vec<_>, _) =
                        changes.into_iter().partition(|change| change.path.parent() == Some(dir));
                    for change in &synced {
                        apply(&mut self.names, change);
                    }
                    if !rest.is_empty() {
                        left.push(rest);
                    }
                }
                self.pending = left;
            }
            Step::Asked(writer, n) => drop(self.asked.insert(*writer, *n)),
            Step::Answered(writer, n) => drop(self.answered.insert(*writer, *n)),
            Step::Body(id, content) => drop(self.bodies.insert(*id, content.clone())),
            Step::BodyGoes(id) => drop(self.bodies.remove(id)),
            Step::Closed => {}
        }
    }

    /// A disk as it may be after a power cut here.
    fn cut(&self, random: &mut fastrand::Rng) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        // All of what was not synced, none of it, or some.
        let luck = [0, 100, 10, 50, 90][random.usize(..5)];
        let kept = |random: &mut fastrand::Rng| random.u32(..100) < luck;
        let mut names = self.names.clone();
        for changes in &self.pending {
            if kept(random) {
                for change in changes {
                    apply(&mut names, change);
                }
            }
        }
        let mut disk = BTreeMap::new();
        for (path, node) in &names {
            let inside = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
            if !inside.into_iter().all(|dir| names.get(dir) == Some(&Node::Dir)) {
                continue;
            }
            let content = match node {
                Node::Dir => None,
                Node::File(number) => {
                    let Data { synced, pending } = &self.data[*number];
                    let mut bytes = synced.clone();
                    for change in pending {
                        match (kept(random), random.bool()) {
                            (true, true) => change.make(&mut bytes),
                            (true, false) => change.tear(&mut bytes, random),
                            (false, _) => {}
                        }
                    }
                    Some(bytes)
                }
            };
            disk.insert(path.clone(), content);
        }
        disk
    }

    /// Opens such a disk and compares it with what was acknowledged and what was asked.
    async fn check(&self, dir: &Path, closed: &[PathBuf], disk: BTreeMap<PathBuf, Option<Vec<u8>>>) {
        fs::create_dir_all(dir).unwrap();
        for (path, content) in disk.into_iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
            let to = dir.join(&path);
            match content {
                None => fs::create_dir(to).unwrap(),
                // The machine is in another boot then.
                Some(_) if path.as_os_str() == "index.boot" => fs::write(to, "another boot\n").unwrap(),
                Some(bytes) => fs::write(to, bytes).unwrap(),
            }
        }
        if dir.join("index.boot").exists() {
            fs::create_dir(crash_tests::index(dir)).unwrap();
            fs::write(crash_tests::index(dir).join("db"), "anything").unwrap();
        } else if let Some(index) = self.closed.checked_sub(1).map(|last| &closed[last]) {
            crash_tests::copy(index, &crash_tests::index(dir));
        }
        let store = Store::open(dir, &small()).await.unwrap();
        self.look(&store).await;
        store.index.commit(Commit::default().put("after", "x")).await.unwrap();
        store.close().await.unwrap();
    }

    async fn look(&self, store: &Store) {
        for writer in 0..WRITERS {
            let read = Read::default()
                .get(format!("head/{writer}"))
                .get(format!("long/{writer}"))
                .range(Range::prefix(format!("item/{writer}/").as_bytes(), 99));
            let found = store.index.read(read).await.unwrap();
            let head: u32 =
                found.gets[0].as_ref().map_or(0, |head| String::from_utf8_lossy(head).parse().unwrap());
            let (answered, asked) = (self.answered.get(&writer), self.asked.get(&writer));
            let (answered, asked) = (answered.copied().unwrap_or(0), asked.copied().unwrap_or(0));
            assert!((answered..=asked).contains(&head), "{writer}: {head} of {answered} to {asked}");
            if head > 0 {
                let long = vec![u8::try_from(head % 251).unwrap(); head as usize % 6 * 900];
                assert_eq!(found.gets[1], Some(long), "{writer}: a torn commit");
            }
            let items: BTreeSet<_> = (head.saturating_sub(2).max(1)..=head).collect();
            assert_eq!(found.ranges[0].len(), items.len(), "{writer}: a torn commit");
            for (n, (key, body)) in items.into_iter().zip(&found.ranges[0]) {
                assert_eq!(*key, format!("item/{writer}/{n:06}").into_bytes());
                let body = String::from_utf8_lossy(body).parse().unwrap();
                assert_eq!(store.bodies.get(body).await.unwrap(), body_of(writer, n), "a named body");
            }
        }
        for (id, content) in &self.bodies {
            assert_eq!(store.bodies.get(*id).await.unwrap(), content, "an acknowledged body");
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Naming) {
    match change.node {
        Some(node) => names.insert(change.path.clone(), node),
        None => names.remove(&change.path),
    };
}

/// Runs the load in two sessions; answers the steps and sled's files as each session left them.
async fn record(root: &Path, scratch: &Path) -> (Vec<Step>, Vec<PathBuf>) {
    let recorder = Recorder { root: root.to_owned(), log: Arc::default() };
    let options = StoreOptions { snapshot_bytes: 12 * 1024, ..small() };
    let mut closed = Vec::new();
    for session in 0..2 {
        let store = Store::open_on(root, options, Arc::new(recorder.clone())).await.unwrap();
        load(&store, &recorder, 60).await;
        store.close().await.unwrap();
        drop(store);
        recorder.note(Step::Closed);
        let copy = scratch.join(format!("index-{session}"));
        crash_tests::copy(&crash_tests::index(root), &copy);
        closed.push(copy);
    }
    let log = recorder.log.lock();
    (log.steps.clone(), closed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_acknowledged_and_shows_nothing_by_half() {
    let cuts: usize = std::env::var("POWER_CUTS").map_or(300, |cuts| cuts.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let (steps, closed) = record(&scratch.path().join("store"), scratch.path()).await;
    let trimmed = steps.iter().filter(|step| match step {
        Step::Remove(path) => path.extension().is_some_and(|extension| extension == "journal"),
        _ => false,
    });
    assert!(trimmed.count() > 5, "the journal was trimmed");
    let mut random = fastrand::Rng::with_seed(std::env::var("POWER_SEED").map_or(11, |s| s.parse().unwrap()));
    let mut at: Vec<usize> = (0..cuts).map(|_| random.usize(..=steps.len())).collect();
    at.sort_unstable();
    let mut machine = Machine { names: [(PathBuf::new(), Node::Dir)].into(), ..Machine::default() };
    let mut done = 0;
    for (round, at) in at.into_iter().enumerate() {
        while done < at {
            machine.step(&steps[done]);
            done += 1;
        }
        let seed = random.u64(..);
        let disk = machine.cut(&mut fastrand::Rng::with_seed(seed));
        let dir = scratch.path().join(format!("cut-{round}"));
        let last =
            steps[..at].last().map(|step| format!("{step:.99?}").chars().take(120).collect::<String>());
        println!("cut {round} behind step {at} of {}, seed {seed}: {last:?}", steps.len());
        machine.check(&dir, &closed, disk).await;
        fs::remove_dir_all(dir).unwrap();
    }
}

/// What a process may be killed behind: what it leaves is in the memory of the machine only.
const KILLS: [Kind; 6] = [
    |step| matches!(step, Step::Rename(_, to) if to.extension().is_some_and(|kind| kind == "journal")),
    |step| matches!(step, Step::Rename(_, to) if to.extension().is_some_and(|kind| kind == "snapshot")),
    |step| matches!(step, Step::MakeDir(path) if path.starts_with("bodies/")),
    // Records are written at once and with nothing before them; headers and blocks begin otherwise.
    |step| matches!(step, Step::Write(_, _, bytes) if bytes.starts_with(b"DPr1")),
    |step| matches!(step, Step::Remove(path) if path.extension().is_some_and(|kind| kind == "journal")),
    |_| true,
];

/// The process is killed, another goes on with what it finds, and then the power is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_after_a_kill_loses_nothing_acknowledged_or_seen() {
    let rounds: usize = std::env::var("POWER_KILLS").map_or(12, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(std::env::var("POWER_SEED").map_or(5, |s| s.parse().unwrap()));
    for round in 0..rounds {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("store");
        let options = StoreOptions { snapshot_bytes: 6 * 1024, ..small() };
        let recorder = Recorder { root: root.clone(), log: Arc::default() };
        let kind = round % KILLS.len();
        let left = 1 + random.usize(..[4, 3, 250, 20, 3, 300][kind]);
        recorder.log.lock().kill = Some((KILLS[kind], left));
        if let Ok(store) = Store::open_on(&root, options, Arc::new(recorder.clone())).await {
            load(&store, &recorder, 20).await;
            let _ = store.close().await;
        }
        let killed = {
            let mut log = recorder.log.lock();
            assert!(log.dead, "round {round}: not killed behind {left} steps of kind {kind}");
            (log.kill, log.dead) = (None, false);
            log.steps.len()
        };
        let store = Store::open_on(&root, options, Arc::new(recorder.clone())).await.unwrap();
        load(&store, &recorder, 6).await;
        let steps = recorder.log.lock().steps.clone();
        for cut in 0..6 {
            let at = if cut == 0 { steps.len() } else { random.usize(killed..=steps.len()) };
            let mut machine = Machine { names: [(PathBuf::new(), Node::Dir)].into(), ..Machine::default() };
            steps[..at].iter().for_each(|step| machine.step(step));
            let seed = random.u64(..);
            println!(
                "round {round}: killed behind {left} of kind {kind} at {killed}, cut at {at}, seed {seed}"
            );
            let disk = machine.cut(&mut fastrand::Rng::with_seed(seed));
            let dir = scratch.path().join(format!("cut-{cut}"));
            machine.check(&dir, &[], disk).await;
        }
        store.close().await.unwrap();
    }
}
