//! The journal: every group of commits in the order in which it was made, and the truth of the store.
//!
//! It is a row of segment files, `<first position in hex>.journal`, of about 64 MiB each; the oldest are
//! dropped once a snapshot covers them (`upkeep`). One record is one group commit and is synced
//! before the next is written; so only the last record can be torn by a crash, and anything bad
//! before a good record is damage.
//!
//! Not here: what a record looks like (`record`), snapshots, and when to trim.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::warn;

use super::{
    StoreError,
    disk::{Disk, DiskFile, make_dir, write_whole},
    record::{
        FRAME_HEADER_BYTES, HEADER_BYTES, Header, Next, SEGMENT, Writes, decode_writes, encode_record,
        holds_record, next_record, read_record,
    },
};

/// Where a new segment begins, in bytes of the old one.
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What is said of a journal without segments.
pub(crate) const GONE: &str = "the journal is gone";
/// What is said of one that lacks what others have seen of it.
pub(crate) const ENDS_EARLY: &str = "commits that were made are missing from the end of the journal; \
    `directpush-be fsck --repair` takes them from the index, if that is whole";

/// The journal, open for appending. Owned by the committer.
pub(crate) struct Journal {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    /// The segment being written.
    header: Header,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Its length, in bytes: where the next record goes.
    length: u64,
    /// The position of the last record.
    position: u64,
    /// Set when a failed write could not be undone: nothing may be appended before it is.
    broken: bool,
    /// Set while a new segment is begun: its name may be there, so nothing may go to the old one.
    beginning: bool,
}

/// What became of an append that failed.
pub(crate) enum Unwritten {
    /// The record is not in the journal.
    Not(StoreError),
    /// A part of it may be, and after a crash now even all of it.
    Unknown(StoreError),
}

impl Journal {
    /// Opens the journal in `dir` and hands every record after position `after` to `replay`, oldest first.
    /// A torn tail is cut off, unless something is known to hold its record: `known` is the highest
    /// position that a snapshot or the index has seen.
    ///
    /// A process that was killed may have left names and a last record that only the memory of the
    /// machine holds. They are made durable before this answers: who sees a record may act on it.
    ///
    /// Reads only the segments that hold those records, and the last one.
    ///
    /// # Errors
    /// `Corrupt` when there is no segment, and for anything bad before the tail.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        (after, known): (u64, u64),
        mut replay: impl FnMut(u64, Writes) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let segments = list_segments(dir, Some(&*disk))?;
        if segments.is_empty() {
            return Err(corrupt(dir, 0, GONE));
        }
        disk.sync_dir(dir).map_err(|error| failed("sync", dir, error))?;
        let begin = segments.iter().rposition(|(first, _)| *first <= after.saturating_add(1)).unwrap_or(0);
        let mut expected = segments[begin].0;
        if expected > after.saturating_add(1) {
            let path = segments[begin].1.clone();
            return Err(StoreError::Corrupt { path, offset: 0, what: "the segment before it is missing" });
        }
        let mut last = None;
        for (at, (first, path)) in segments.iter().enumerate().skip(begin) {
            if *first != expected {
                return Err(corrupt(path, 0, "a segment is missing before it"));
            }
            let mut segment = SegmentReader::open(path, *first)?;
            let mut record_at = segment.offset;
            loop {
                let offset = segment.offset;
                match segment.next()? {
                    Next::End => break,
                    Next::Record(position, payload) => {
                        if position != expected {
                            return Err(corrupt(path, offset, "a record is out of order"));
                        }
                        expected += 1;
                        record_at = offset;
                        if position > after {
                            let writes = decode_writes(&payload)
                                .ok_or_else(|| corrupt(path, offset, "a record is malformed"))?;
                            replay(position, writes)?;
                        }
                    }
                    Next::Bad if at + 1 < segments.len() => {
                        return Err(corrupt(path, offset, "a bad record before the last segment"));
                    }
                    Next::Bad if expected <= known.max(after) => {
                        return Err(corrupt(path, offset, ENDS_EARLY));
                    }
                    Next::Bad => {
                        segment.check_tail(offset, expected)?;
                        cut(&*disk, path, offset)?;
                        segment.offset = offset;
                        break;
                    }
                }
            }
            last = Some((segment.header, path.clone(), segment.offset, record_at));
        }
        // The loop ran at least once: `begin` is an index of `segments`.
        let Some((header, path, length, record_at)) = last else { return Err(StoreError::Stopped) };
        let file = disk.open(&path).map_err(|error| failed("open", &path, error))?;
        settle(&path, &*file, record_at..length).map_err(|error| failed("sync", &path, error))?;
        let dir = dir.to_owned();
        let position = expected - 1;
        Ok(Self {
            dir,
            disk,
            segment_bytes,
            header,
            path,
            file,
            length,
            position,
            broken: false,
            beginning: false,
        })
    }

    /// The position of the last record; 0 in an empty journal.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Appends one record and makes it durable. Answers its position and length in bytes.
    pub(crate) fn append(&mut self, writes: &Writes) -> Result<(u64, u64), Unwritten> {
        self.mend().map_err(Unwritten::Not)?;
        if self.beginning || self.length >= self.segment_bytes {
            self.begin_segment().map_err(Unwritten::Not)?;
        }
        let position = self.position + 1;
        let record = encode_record(self.header.salt, position, writes);
        if let Err(error) = self.file.write_all_at(&record, self.length).and_then(|()| self.file.sync_data())
        {
            let error = failed("write", &self.path, error);
            self.broken = true;
            return Err(match self.mend() {
                Ok(()) => Unwritten::Not(error),
                Err(_) => Unwritten::Unknown(error),
            });
        }
        let bytes = record.len() as u64;
        self.length += bytes;
        self.position = position;
        Ok((position, bytes))
    }

    /// Ends the segment, so that all records so far are in older ones. Answers their last position.
    pub(crate) fn roll(&mut self) -> Result<u64, StoreError> {
        self.mend()?;
        if self.beginning || self.header.number <= self.position {
            self.begin_segment()?;
        }
        Ok(self.position)
    }

    fn begin_segment(&mut self) -> Result<(), StoreError> {
        self.beginning = true;
        let (header, path, file) = new_segment(&self.dir, &*self.disk, self.position + 1)?;
        self.length = HEADER_BYTES as u64;
        (self.header, self.path, self.file) = (header, path, file);
        self.beginning = false;
        Ok(())
    }

    /// Cuts a half-written record off again. Only what was just written was not synced, so once the
    /// cut is synced it is known what the disk holds. Until that succeeds nothing can be appended.
    fn mend(&mut self) -> Result<(), StoreError> {
        if !self.broken {
            return Ok(());
        }
        let untouched = fs::metadata(&self.path).is_ok_and(|found| found.len() == self.length);
        // A read-only file system can neither have taken a part of the record nor cut it off.
        let cut = if untouched { Ok(()) } else { self.file.set_len(self.length) };
        if let Err(error) = cut.and_then(|()| self.file.sync_data()) {
            tracing::error!(
                file = %self.path.display(), %error,
                "the journal failed and cannot be repaired yet; the store takes no commits until it is"
            );
            return Err(failed("repair", &self.path, error));
        }
        self.broken = false;
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> StoreError {
    StoreError::io(format!("{doing} {}", path.display()), error)
}

fn corrupt(path: &Path, offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset, what }
}

/// The segments in order, each with the position its name says.
pub(crate) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    list_segments(dir, None)
}

/// The same; with a disk it also removes what a crash left of a segment that was being made.
fn list_segments(dir: &Path, disk: Option<&dyn Disk>) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let fail = |error| failed("list", dir, error);
    let mut segments = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(segments),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let (Some(stem), Some(extension)) =
            (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()))
        else {
            continue;
        };
        match (extension, u64::from_str_radix(stem, 16)) {
            ("journal", Ok(first)) => segments.push((first, path)),
            ("new", _) => disk.map_or(Ok(()), |disk| disk.remove(&path)).map_err(fail)?,
            _ => {}
        }
    }
    segments.sort();
    Ok(segments)
}

/// Makes the journal of a new or restored store: empty, behind position `through`.
pub(crate) fn create_behind(dir: &Path, disk: &dyn Disk, through: u64) -> Result<(), StoreError> {
    make_dir(disk, dir)?;
    new_segment(dir, disk, through + 1).map(|_| ())
}

/// Whether a journal has never held a record.
pub(crate) fn is_new(dir: &Path) -> Result<bool, StoreError> {
    let segments = segments(dir)?;
    let is_empty = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() == HEADER_BYTES as u64);
    Ok(segments.iter().all(|(first, path)| *first == 1 && is_empty(path)))
}

/// Removes the segments that hold nothing after position `through`, oldest first. Each is gone for
/// good before the next goes, so what is left is a row without gaps, whatever happens.
pub(crate) fn trim(dir: &Path, disk: &dyn Disk, through: u64) -> Result<(), StoreError> {
    let segments = segments(dir)?;
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        if next.0 > through + 1 {
            break;
        }
        let removed = disk.remove(&segment.1).and_then(|()| disk.sync_dir(dir));
        removed.map_err(|error| failed("remove", &segment.1, error))?;
    }
    Ok(())
}

/// Hands the records after position `after`, up to `through`, to `each`, oldest first. The journal may
/// be appended to meanwhile, but must hold them all.
pub(crate) fn read_between(
    dir: &Path,
    after: u64,
    through: u64,
    mut each: impl FnMut(u64, Writes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if after >= through {
        return Ok(());
    }
    let segments = segments(dir)?;
    let begin = segments.iter().rposition(|(first, _)| *first <= after.saturating_add(1)).unwrap_or(0);
    let mut expected = segments.get(begin).map_or(0, |(first, _)| *first);
    if segments.is_empty() || expected > after.saturating_add(1) {
        return Err(corrupt(dir, 0, "records that no snapshot holds are missing"));
    }
    for (first, path) in segments.iter().skip(begin) {
        if expected > through {
            break;
        }
        if *first != expected {
            return Err(corrupt(path, 0, "a segment is missing before it"));
        }
        let mut segment = SegmentReader::open(path, *first)?;
        while expected <= through {
            let offset = segment.offset;
            match segment.next()? {
                Next::Record(position, payload) if position == expected => {
                    expected += 1;
                    if position > after {
                        let writes = decode_writes(&payload)
                            .ok_or_else(|| corrupt(path, offset, "a record is malformed"))?;
                        each(position, writes)?;
                    }
                }
                Next::Record(..) => return Err(corrupt(path, offset, "a record is out of order")),
                Next::End => break,
                Next::Bad => return Err(corrupt(path, offset, "a bad record")),
            }
        }
    }
    if expected <= through {
        return Err(corrupt(dir, 0, "the journal ends too early"));
    }
    Ok(())
}

/// What a check of the whole journal found.
pub(crate) struct Check {
    /// The first position, 1 in an empty journal.
    pub(crate) first: u64,
    /// The last position whose record is whole.
    pub(crate) last: u64,
    pub(crate) records: u64,
    /// Bytes of an unfinished commit at the end.
    pub(crate) torn: Option<u64>,
    pub(crate) damage: Option<StoreError>,
}

/// Reads the journal as it lies, from the segment that holds the record after position `after`; all of it
/// where none does. Tells `each` how many records were read.
pub(crate) fn check(dir: &Path, after: u64, mut each: impl FnMut(u64)) -> Result<Check, StoreError> {
    let mut segments = segments(dir)?;
    let begin = segments.iter().rposition(|(first, _)| *first <= after.saturating_add(1)).unwrap_or(0);
    segments.drain(..begin);
    let first = segments.first().map_or(1, |(first, _)| *first);
    let mut check = Check { first, last: first.saturating_sub(1), records: 0, torn: None, damage: None };
    if segments.is_empty() {
        check.damage = Some(corrupt(dir, 0, GONE));
    }
    for (at, (first, path)) in segments.iter().enumerate() {
        let mut segment = match SegmentReader::open(path, *first) {
            Ok(segment) if *first == check.last + 1 => segment,
            Ok(_) => {
                return Ok(Check {
                    damage: Some(corrupt(path, 0, "a segment is missing before it")),
                    ..check
                });
            }
            Err(damage) if damage.is_damage() => return Ok(Check { damage: Some(damage), ..check }),
            Err(error) => return Err(error),
        };
        loop {
            let offset = segment.offset;
            let next = match segment.next() {
                // The disk cannot read it: no better than damaged.
                Err(damage) if damage.is_damage() => return Ok(Check { damage: Some(damage), ..check }),
                next => next?,
            };
            match next {
                Next::End => break,
                Next::Record(position, payload)
                    if position == check.last + 1 && decode_writes(&payload).is_some() =>
                {
                    check.last = position;
                    check.records += 1;
                    each(check.records);
                }
                Next::Bad if at + 1 == segments.len() => {
                    match segment.check_tail(offset, check.last + 1) {
                        Ok(()) => check.torn = Some(fs::metadata(path).map_or(0, |f| f.len() - offset)),
                        Err(damage) => check.damage = Some(damage),
                    }
                    return Ok(check);
                }
                _ => return Ok(Check { damage: Some(corrupt(path, offset, "a bad record")), ..check }),
            }
        }
    }
    Ok(check)
}

/// Hands every whole record after position `after` to `each`, oldest first, up to the first that is missing.
/// Answers its position, and the highest that anything in the journal shows to have been made: between
/// the two lies what is lost. Holds one segment in memory.
pub(crate) fn salvage(
    dir: &Path,
    after: u64,
    mut each: impl FnMut(u64, Writes) -> Result<(), StoreError>,
) -> Result<(u64, u64), StoreError> {
    let (mut last, mut highest) = (after, after);
    for (first, path) in segments(dir)? {
        highest = highest.max(first.saturating_sub(1));
        let Ok(bytes) = fs::read(&path) else { continue };
        let header = Header::read(SEGMENT, &mut bytes.as_slice());
        let header = header.map_err(|error| failed("read", &path, error))?;
        let Some(header) = header else { continue };
        let mut rest = &bytes[HEADER_BYTES..];
        while let Some((position, payload, behind)) = next_record(header.salt, rest, first) {
            rest = behind;
            highest = highest.max(position);
            if position == last + 1
                && let Some(writes) = decode_writes(&payload)
            {
                each(position, writes)?;
                last = position;
            }
        }
    }
    Ok((last, highest))
}

type Segment = (Header, PathBuf, Box<dyn DiskFile>);

/// Makes a segment whose first record will be `first`. It is there with a good header or not at all.
fn new_segment(dir: &Path, disk: &dyn Disk, first: u64) -> Result<Segment, StoreError> {
    let header = Header::new(first)?;
    let path = dir.join(format!("{first:016x}.journal"));
    write_whole(disk, &path.with_extension("new"), &path, &header.encode(SEGMENT))?;
    let file = disk.open(&path).map_err(|error| failed("open", &path, error))?;
    Ok((header, path, file))
}

/// Makes the last record durable, which its writer may not have lived to do. It is written again: after a
/// sync that failed, the system takes what it holds of the file for written.
fn settle(path: &Path, file: &dyn DiskFile, record: std::ops::Range<u64>) -> std::io::Result<()> {
    let mut bytes = vec![0; usize::try_from(record.end - record.start).unwrap_or(usize::MAX)];
    File::open(path)?.read_exact_at(&mut bytes, record.start)?;
    if !bytes.is_empty() {
        file.write_all_at(&bytes, record.start)?;
    }
    file.sync_data()
}

/// Cuts a torn tail off.
fn cut(disk: &dyn Disk, path: &Path, offset: u64) -> Result<(), StoreError> {
    let bytes = fs::metadata(path).map_or(0, |found| found.len().saturating_sub(offset));
    warn!(file = %path.display(), offset, bytes, "cutting off what a crash left of an unfinished commit");
    let file = disk.open(path).map_err(|error| failed("open", path, error))?;
    file.set_len(offset).and_then(|()| file.sync_data()).map_err(|error| failed("cut", path, error))
}

/// Reads the records of one segment in order.
struct SegmentReader {
    header: Header,
    path: PathBuf,
    input: BufReader<File>,
    /// Where the next record begins, in bytes from the start.
    offset: u64,
}

impl SegmentReader {
    fn open(path: &Path, first: u64) -> Result<Self, StoreError> {
        let fail = |error| failed("read", path, error);
        let mut input = BufReader::with_capacity(256 * 1024, File::open(path).map_err(fail)?);
        let header = Header::read(SEGMENT, &mut input).map_err(fail)?;
        let header = header
            .filter(|header| header.number == first)
            .ok_or_else(|| corrupt(path, 0, "a bad segment header"))?;
        Ok(Self { header, path: path.to_owned(), input, offset: HEADER_BYTES as u64 })
    }

    fn next(&mut self) -> Result<Next, StoreError> {
        let next = read_record(self.header.salt, &mut self.input)
            .map_err(|error| failed("read", &self.path, error))?;
        if let Next::Record(_, payload) = &next {
            self.offset += (FRAME_HEADER_BYTES + payload.len()) as u64;
        }
        Ok(next)
    }

    /// Tells a torn tail, which may be cut off, from damage: after damage there are good records.
    fn check_tail(&mut self, offset: u64, expected: u64) -> Result<(), StoreError> {
        let mut rest = Vec::new();
        self.input
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.input.read_to_end(&mut rest))
            .map_err(|error| failed("read", &self.path, error))?;
        if holds_record(self.header.salt, &rest, expected) {
            return Err(corrupt(&self.path, offset, "a bad record before good ones"));
        }
        Ok(())
    }
}
