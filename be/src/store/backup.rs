//! Backups: a snapshot and the bodies it names, with a manifest of hashes, in a directory of their own.
//!
//! ```text
//! manifest                         written last, under another name first
//! lock                             locked while a backup is written
//! <position>-<random>.snapshot     the index
//! bodies/<two digits>/<name>       as in the store
//! queue/<random>-<name>            the files of the mail queue, which lies beside the store
//! ```
//! The manifest is lines: `directpush backup 2`; `snapshot <name> <bytes> <sha256>`; one
//! `queue <name> <bytes> <sha256>` for each file of the queue; one `body <name> <bytes> <sha256>` for
//! each, in order; `end <bodies> <sha256 of all lines before>`. Format 1 had no queue.
//! A backup into a directory that holds an older one copies only what is not there yet; the older one
//! stays whole until the manifest of the new one takes its place. Where the file system can, bodies,
//! which never change, are hard links.
//!
//! The queue is copied before the snapshot and what is new in it after: whatever was in it at the
//! snapshot's moment is there. What left it in between is sent twice after a restore, and nothing is lost.
//!
//! A body that is not what was put is left out, and an older backup's copy of it stays.
//!
//! Both directions may be interrupted at any moment and run again.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{
    BodyId, Progress, StoreError, Value, Watch,
    disk::{Disk, RealDisk, make_dir},
    files::{FileBodies, names_in},
    journal,
    place::Place,
    snapshot::{self, SnapshotReader, SnapshotWriter},
};

const FIRST_LINE: &str = "directpush backup 2";
const OLDER_FIRST_LINE: &str = "directpush backup 1";
/// Where the mail queue lies, beside a store and in a backup.
const QUEUE: &str = "queue";
const MANIFEST: &str = "manifest";
/// No line of a manifest is longer.
const LINE_BYTES_MAX: u64 = 1024;

/// What a backup holds, or a restore has brought back.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Copied {
    /// Keys of the index.
    pub entries: u64,
    /// All bodies, and how long they are in bytes.
    pub bodies: u64,
    /// See `bodies`.
    pub body_bytes: u64,
    /// Bodies that were not there yet.
    pub new_bodies: u64,
    /// Bodies that are damaged and were left out; the log names them.
    #[serde(default)]
    pub damaged_bodies: u64,
    /// Messages in the mail queue.
    #[serde(default)]
    pub queued: u64,
}

fn fail(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let doing = format!("{doing} {}", path.display());
    move |error| StoreError::io(doing, error)
}

fn damaged(path: &Path, what: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset: 0, what }
}

/// A file as the manifest names it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Listed {
    name: String,
    bytes: u64,
    hash: String,
}

impl Listed {
    fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split(' ');
        let (name, bytes, hash) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        let safe = plain && !name.starts_with('.') && hash.len() == 64 && words.next().is_none();
        safe.then(|| Self { name: name.to_owned(), bytes, hash: hash.to_owned() })
    }

    /// Where a body lies below `bodies`, if this is the name of one.
    fn body_path(&self) -> Option<PathBuf> {
        let id: BodyId = self.name.strip_suffix(".body").unwrap_or(&self.name).parse().ok()?;
        Some(Path::new(&format!("{:02x}", id.0[0])).join(&self.name))
    }
}

impl Listed {
    /// What a file of the queue is called there, if this is one.
    fn queue_name(&self) -> Option<&str> {
        self.name.split_once('-').map(|(_, name)| name).filter(|name| is_queued(name))
    }
}

/// Hashes a file.
fn hash_of(path: &Path) -> Result<(u64, String), StoreError> {
    let mut file = File::open(path).map_err(fail("read", path))?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = file.read(&mut buffer).map_err(fail("read", path))?;
        if read == 0 {
            return Ok((bytes, HEXLOWER.encode(&hash.finalize())));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The directory of the mail queue, if there is a place for one.
fn queue_of(place: &Place) -> Option<PathBuf> {
    place.dir.parent().map(|parent| parent.join(QUEUE))
}

/// Whether this is the name of a file that belongs to the queue, and not one that is being written.
fn is_queued(name: &str) -> bool {
    let id = name.strip_suffix(MAIL).or_else(|| name.strip_suffix(".state"));
    id.is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const MAIL: &str = ".mail";

/// A copy of the mail queue, which goes on meanwhile. Nothing in it is ever changed in place: a file is
/// written under another name, and then there as a whole.
pub(crate) struct QueueCopy {
    from: Option<PathBuf>,
    dir: PathBuf,
    /// Of this backup; an older one's files stay as they are.
    tag: String,
    names: BTreeSet<String>,
    files: Vec<Listed>,
}

impl QueueCopy {
    /// Copies what is there now: before the snapshot.
    pub(crate) fn begin(place: &Place, target: &Path) -> Result<Self, StoreError> {
        let dir = target.join(QUEUE);
        make_dir(&RealDisk, &dir)?;
        let tag = HEXLOWER.encode(&BodyId::random()?.0[..4]);
        let mut copy = Self { from: queue_of(place), dir, tag, names: BTreeSet::new(), files: Vec::new() };
        copy.go_on()?;
        Ok(copy)
    }

    /// Copies what has come since.
    fn go_on(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.from.clone() else { return Ok(()) };
        let entries = match fs::read_dir(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(fail("list", &from))?,
        };
        for entry in entries {
            let Ok(name) = entry.map_err(fail("list", &from))?.file_name().into_string() else { continue };
            if !is_queued(&name) || self.names.contains(&name) {
                continue;
            }
            let (at, to) = (from.join(&name), format!("{}-{name}", self.tag));
            match bring(&at, &self.dir.join(&to), false) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                brought => brought?,
            }
            let (bytes, hash) = hash_of(&self.dir.join(&to))?;
            self.files.push(Listed { name: to, bytes, hash });
            self.names.insert(name);
        }
        RealDisk.sync_dir(&self.dir).map_err(fail("sync", &self.dir))
    }
}

/// Links or copies a file that never changes, so that it is there whole and lasts.
fn bring(from: &Path, to: &Path, link: bool) -> Result<(), StoreError> {
    if link && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let scratch = to.with_extension("tmp");
    let copy = || {
        fs::copy(from, &scratch)?;
        File::open(&scratch)?.sync_all()?;
        fs::rename(&scratch, to)
    };
    copy().map_err(|error| {
        let _ = fs::remove_file(&scratch);
        fail("copy", from)(error)
    })
}

/// Reads a manifest from the start, checking it on the way.
struct ManifestReader {
    path: PathBuf,
    input: BufReader<File>,
    hash: Sha256,
    bodies: u64,
    snapshot: Listed,
    queue: Vec<Listed>,
    /// A line that was read too early.
    ahead: Option<String>,
}

impl ManifestReader {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let input = BufReader::new(File::open(path).map_err(fail("read", path))?);
        let nothing = Listed { name: String::new(), bytes: 0, hash: String::new() };
        let mut reader = Self {
            path: path.to_owned(),
            input,
            hash: Sha256::new(),
            bodies: 0,
            snapshot: nothing,
            queue: Vec::new(),
            ahead: None,
        };
        if ![FIRST_LINE, OLDER_FIRST_LINE].contains(&reader.line()?.as_str()) {
            return Err(damaged(path, "it is no manifest of a backup of this format"));
        }
        let line = reader.line()?;
        let snapshot = line.strip_prefix("snapshot ").and_then(Listed::parse);
        reader.snapshot = snapshot.ok_or_else(|| damaged(path, "it names no snapshot"))?;
        loop {
            let line = reader.line()?;
            let Some(queued) = line.strip_prefix("queue ") else {
                reader.ahead = Some(line);
                return Ok(reader);
            };
            let queued = Listed::parse(queued).filter(|queued| queued.queue_name().is_some());
            reader.queue.push(queued.ok_or_else(|| damaged(path, "a malformed line"))?);
        }
    }

    fn line(&mut self) -> Result<String, StoreError> {
        let mut line = String::new();
        let read = self.input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        read.map_err(fail("read", &self.path))?;
        let Some(text) = line.strip_suffix('\n').filter(|text| !text.starts_with("end ")) else {
            return Ok(line.trim_end_matches('\n').to_owned());
        };
        self.hash.update(&line);
        Ok(text.to_owned())
    }

    /// The next body; none at the end, whose totals then have been found right.
    fn next(&mut self) -> Result<Option<Listed>, StoreError> {
        let line = match self.ahead.take() {
            Some(line) => line,
            None => self.line()?,
        };
        if let Some(body) = line.strip_prefix("body ") {
            self.bodies += 1;
            let body = Listed::parse(body).filter(|body| body.body_path().is_some());
            return body.map(Some).ok_or_else(|| damaged(&self.path, "a malformed line"));
        }
        let hash = HEXLOWER.encode(&self.hash.clone().finalize());
        if line == format!("end {} {hash}", self.bodies) {
            return Ok(None);
        }
        Err(damaged(&self.path, "its end is missing, or it was changed"))
    }
}

/// Writes a manifest beside the old one.
struct ManifestWriter {
    scratch: PathBuf,
    output: BufWriter<File>,
    hash: Sha256,
    bodies: u64,
}

impl ManifestWriter {
    fn create(target: &Path) -> Result<Self, StoreError> {
        let scratch = target.join("manifest.new");
        let output = BufWriter::new(File::create(&scratch).map_err(fail("create", &scratch))?);
        let mut writer = Self { scratch, output, hash: Sha256::new(), bodies: 0 };
        writer.line(FIRST_LINE)?;
        Ok(writer)
    }

    fn line(&mut self, text: &str) -> Result<(), StoreError> {
        let line = format!("{text}\n");
        self.hash.update(&line);
        self.output.write_all(line.as_bytes()).map_err(fail("write", &self.scratch))
    }

    fn file(&mut self, kind: &str, Listed { name, bytes, hash }: &Listed) -> Result<(), StoreError> {
        self.bodies += u64::from(kind == "body");
        self.line(&format!("{kind} {name} {bytes} {hash}"))
    }

    fn finish(mut self, target: &Path) -> Result<(), StoreError> {
        let hash = HEXLOWER.encode(&self.hash.clone().finalize());
        let end = format!("end {} {hash}\n", self.bodies);
        let mut finish = || {
            self.output.write_all(end.as_bytes())?;
            self.output.flush()?;
            self.output.get_ref().sync_all()?;
            fs::rename(&self.scratch, target.join(MANIFEST))?;
            RealDisk.sync_dir(target)
        };
        finish().map_err(fail("write", &target.join(MANIFEST)))
    }
}

/// Makes the directory of a backup, and locks it for as long as the answer lives. Blocks.
pub(crate) fn lock(target: &Path) -> Result<File, StoreError> {
    make_dir(&RealDisk, target)?;
    let lock = target.join("lock");
    let lock = File::create(&lock).map_err(fail("create", &lock))?;
    if lock.try_lock().is_err() {
        return Err(StoreError::InUse(target.to_owned()));
    }
    Ok(lock)
}

/// Backs up a snapshot and all bodies, which the caller keeps from being deleted, and what came into the
/// queue meanwhile. Blocks; the target is locked.
pub(crate) fn backup(
    bodies: &FileBodies,
    mut queue: QueueCopy,
    snapshot: &Path,
    target: &Path,
    watch: Watch<'_>,
) -> Result<Copied, StoreError> {
    let place = bodies.place();
    queue.go_on()?;
    make_dir(&RealDisk, &target.join("bodies"))?;
    let mut manifest = ManifestWriter::create(target)?;
    // A name of its own: the one of an older backup must stay as it is until this one is whole.
    let stem = snapshot.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name = format!("{stem}-{}.snapshot", HEXLOWER.encode(&BodyId::random()?.0[..4]));
    let copy = target.join(&name);
    bring(snapshot, &copy, true)?;
    let entries = SnapshotReader::open(&copy)?.verify(|_| Ok(()))?.entries;
    let (bytes, hash) = hash_of(&copy)?;
    manifest.file("snapshot", &Listed { name: name.clone(), bytes, hash })?;

    queue.files.iter().try_for_each(|file| manifest.file("queue", file))?;
    let mails = queue.names.iter().filter(|name| name.ends_with(MAIL));
    let mut copied = Copied { entries, queued: mails.count() as u64, ..Copied::default() };
    let old = target.join(MANIFEST);
    let mut old = if old.exists() { Some(ManifestReader::open(&old)?) } else { None };
    let mut older = next_of(&mut old)?;
    for first in 0..=u8::MAX {
        watch(Progress { phase: "bodies", done: first.into(), total: 256 });
        let part = format!("{first:02x}");
        let (from, to) = (place.bodies().join(&part), target.join("bodies").join(&part));
        make_dir(&RealDisk, &to)?;
        let mut names = names_in(&from).map_err(fail("list", &from))?;
        names.sort_unstable();
        for (id, path) in names {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            while older.as_ref().is_some_and(|older| older.name.as_str() < name) {
                older = next_of(&mut old)?;
            }
            let to = to.join(name);
            let there = fs::metadata(&to).map(|found| found.len()).ok();
            let same = older.as_ref().filter(|older| older.name == name && there == Some(older.bytes));
            let listed = if let Some(same) = same {
                same.clone()
            } else {
                match bodies.verify(id) {
                    Err(damage) if damage.is_damage() => {
                        warn!(%damage, body = %id, "a damaged body is left out of the backup");
                        copied.damaged_bodies += 1;
                        continue;
                    }
                    verified => verified.map(|_| ())?,
                }
                // One that an interrupted backup left is whole.
                if there.is_none() {
                    bring(&path, &to, true)?;
                }
                copied.new_bodies += 1;
                let (bytes, hash) = hash_of(&to)?;
                Listed { name: name.to_owned(), bytes, hash }
            };
            copied.bodies += 1;
            copied.body_bytes += listed.bytes;
            manifest.file("body", &listed)?;
        }
        RealDisk.sync_dir(&to).map_err(fail("sync", &to))?;
    }
    let bodies = target.join("bodies");
    RealDisk.sync_dir(&bodies).map_err(fail("sync", &bodies))?;
    manifest.finish(target)?;
    remove_superfluous(target, &name, watch)?;
    Ok(copied)
}

fn next_of(manifest: &mut Option<ManifestReader>) -> Result<Option<Listed>, StoreError> {
    match manifest {
        Some(reader) => {
            let next = reader.next()?;
            if next.is_none() {
                *manifest = None;
            }
            Ok(next)
        }
        None => Ok(None),
    }
}

/// Removes what only an older backup needed.
fn remove_superfluous(target: &Path, snapshot: &str, watch: Watch<'_>) -> Result<(), StoreError> {
    for entry in fs::read_dir(target).map_err(fail("list", target))? {
        let path = entry.map_err(fail("list", target))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ends = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if ends("snapshot") && name != snapshot || ends("tmp") {
            fs::remove_file(&path).map_err(fail("remove", &path))?;
        }
    }
    let reader = ManifestReader::open(&target.join(MANIFEST))?;
    let queued: BTreeSet<String> = reader.queue.iter().map(|file| file.name.clone()).collect();
    let queue = target.join(QUEUE);
    for entry in fs::read_dir(&queue).map_err(fail("list", &queue))? {
        let path = entry.map_err(fail("list", &queue))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_none_or(|name| !queued.contains(name)) {
            fs::remove_file(&path).map_err(fail("remove", &path))?;
        }
    }
    let mut reader = Some(reader);
    let mut listed = next_of(&mut reader)?;
    for first in 0..=u8::MAX {
        watch(Progress { phase: "old bodies", done: first.into(), total: 256 });
        let dir = target.join("bodies").join(format!("{first:02x}"));
        let entries = fs::read_dir(&dir).map_err(fail("list", &dir))?;
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        for name in names {
            while listed.as_ref().is_some_and(|listed| listed.name < name) {
                listed = next_of(&mut reader)?;
            }
            if listed.as_ref().is_none_or(|listed| listed.name != name) {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(fail("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// What becomes of the value of a key as it is brought back.
pub(crate) type Renew<'a> = &'a mut dyn FnMut(&[u8], Value) -> Result<Value, StoreError>;

/// Brings a backup back into `dir`, which is empty, not there, or was left by an interrupted restore.
/// Reads all of the backup before anything is written; bodies that are damaged make it refuse, unless it is
/// to leave them out. A mail queue that is there stays; otherwise the one of the backup is brought back. `renew` may change the value of a key on the way:
/// what was promised to others after the backup was made must not come true in another way. Blocks.
///
/// # Errors
/// `Corrupt` when the backup is not what was written; `Io`, also for a directory that is in use.
pub fn restore(
    backup: &Path,
    dir: &Path,
    leave_out_damaged: bool,
    renew: Renew<'_>,
    watch: Watch<'_>,
) -> Result<Copied, StoreError> {
    // A backup that cannot be brought back leaves nothing behind that looks like half of it.
    let (listed, left_out, mut copied) = verify(backup, leave_out_damaged, watch)?;
    let place = Place::for_restore(dir, Arc::new(RealDisk))?;
    let disk = &*place.disk;
    make_dir(disk, &place.bodies())?;
    let mut manifest = ManifestReader::open(&backup.join(MANIFEST))?;
    copied.queued = restore_queue(backup, &manifest.queue, &place)?;
    let (mut done, total) = (0, copied.bodies);
    while let Some(body) = manifest.next()? {
        let Some(path) = body.body_path().filter(|_| !left_out.contains(&body.name)) else { continue };
        let to = place.bodies().join(&path);
        if let Some(parent) = to.parent() {
            make_dir(disk, parent)?;
        }
        if fs::metadata(&to).map(|found| found.len()).ok() != Some(body.bytes) {
            bring(&backup.join("bodies").join(&path), &to, false)?;
            copied.new_bodies += 1;
        }
        done += 1;
        if done % 256 == 0 {
            watch(Progress { phase: "bodies", done, total });
        }
    }
    for first in 0..=u8::MAX {
        let part = place.bodies().join(format!("{first:02x}"));
        make_dir(disk, &part)?;
        disk.sync_dir(&part).map_err(fail("sync", &part))?;
    }
    disk.sync_dir(&place.bodies()).map_err(fail("sync", &place.bodies()))?;
    let from = backup.join(&listed.name);
    let through = snapshot::summary(&from)?.through;
    make_dir(disk, &place.snapshots())?;
    let mut reader = SnapshotReader::open(&from)?;
    let path = snapshot::path_of(&place.snapshots(), through);
    let mut writer = SnapshotWriter::create(Arc::clone(&place.disk), &path, through)?;
    while let Some((key, value)) = reader.next()? {
        let value = value.map(|value| renew(&key, value)).transpose()?;
        writer.add(&key, value.as_deref())?;
    }
    writer.finish()?;
    journal::create_behind(&place.journal(), disk, through)?;
    place.write_format()?;
    place.restored()?;
    Ok(copied)
}

/// Brings the mail queue back where there is none. Answers how many messages came back.
fn restore_queue(backup: &Path, files: &[Listed], place: &Place) -> Result<u64, StoreError> {
    let Some(to) = queue_of(place).filter(|_| !files.is_empty()) else { return Ok(0) };
    let used = fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        info!(queue = %to.display(), "a mail queue is there: it stays as it is");
        return Ok(0);
    }
    let scratch = to.with_extension("restoring");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(fail("clear", &scratch))?;
    }
    fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(fail("make", &scratch))?;
    for file in files {
        let Some(name) = file.queue_name() else { continue };
        bring(&backup.join(QUEUE).join(&file.name), &scratch.join(name), false)?;
    }
    RealDisk.sync_dir(&scratch).map_err(fail("sync", &scratch))?;
    let moved = match fs::remove_dir(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(&scratch, &to),
    };
    moved.and_then(|()| RealDisk.sync_dir(to.parent().unwrap_or(&to))).map_err(fail("bring back", &to))?;
    Ok(files.iter().filter(|file| file.name.ends_with(MAIL)).count() as u64)
}

/// Compares everything in a backup with its manifest. Answers its snapshot, the bodies to be left out, and
/// what else it holds.
///
/// # Errors
/// `Corrupt`, with the file that is not what was written.
fn verify(
    backup: &Path,
    leave_out_damaged: bool,
    watch: Watch<'_>,
) -> Result<(Listed, BTreeSet<String>, Copied), StoreError> {
    let path = backup.join(MANIFEST);
    // The manifest itself first, to its end.
    let mut manifest = ManifestReader::open(&path)?;
    while manifest.next()?.is_some() {}
    let total = manifest.bodies;
    let mut manifest = ManifestReader::open(&path)?;
    let listed = manifest.snapshot.clone();
    let compare = |path: &Path, listed: &Listed| match hash_of(path) {
        Ok((bytes, hash)) if bytes == listed.bytes && hash == listed.hash => Ok(()),
        Ok(_) => Err(damaged(path, "it is not what was backed up")),
        Err(error) => Err(error),
    };
    let file = backup.join(&listed.name);
    compare(&file, &listed)?;
    let queue = backup.join(QUEUE);
    manifest.queue.iter().try_for_each(|file| compare(&queue.join(&file.name), file))?;
    let mut copied =
        Copied { entries: SnapshotReader::open(&file)?.verify(|_| Ok(()))?.entries, ..Copied::default() };
    let mut left_out = BTreeSet::new();
    while let Some(body) = manifest.next()? {
        let Some(path) = body.body_path() else { continue };
        match compare(&backup.join("bodies").join(path), &body) {
            Err(damage) if leave_out_damaged && is_lost(&damage) => {
                warn!(%damage, "a body of the backup is left out");
                copied.damaged_bodies += 1;
                left_out.insert(body.name);
                continue;
            }
            compared => compared?,
        }
        copied.bodies += 1;
        copied.body_bytes += body.bytes;
        if copied.bodies.is_multiple_of(256) {
            watch(Progress { phase: "verify", done: copied.bodies, total });
        }
    }
    Ok((listed, left_out, copied))
}

fn is_lost(failure: &StoreError) -> bool {
    let gone = matches!(failure, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
    gone || failure.is_damage()
}
