//! A snapshot: all keys and values as they were at one position of the journal, in order of key.
//!
//! ```text
//! snapshot = header "DPSNAP02" with the position | blocks | lists | end
//! block    = frame "DPs1", numbered from 0: { shared, rest: lengths of the key's beginning that it has in
//!            common with the one before it in the block, and of the rest | value: 0 for deleted, or its
//!            length + 1 | rest of the key | value }, all numbers LEB128
//! list     = frame "DPsI", numbered on: like a block, with the first key of each block and where it begins: u64
//! end      = frame "DPsZ", numbered on: position, entries, live bytes, where the lists begin: u64
//! ```
//! Headers and frames are those of `record`. A snapshot is written under another name, synced and
//! renamed, so it is there whole or not at all; what is missing or damaged later shows in a check.
//! Deleted keys are only in the runs that `merge` makes on its way. "DPSNAP01", of stores of formats 2 and
//! before, has no lists, and an end without the place where they begin.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    KEY_BYTES_MAX, Key, StoreError, VALUE_BYTES_MAX, Value,
    disk::{Disk, DiskFile},
    record::{FRAME_HEADER_BYTES, HEADER_BYTES, Header, Next, read_frame, seal, u64_at},
};

const SNAPSHOT: [u8; 8] = *b"DPSNAP02";
const FIRST_SNAPSHOT: [u8; 8] = *b"DPSNAP01";
pub(crate) const BLOCK: [u8; 4] = *b"DPs1";
const LIST: [u8; 4] = *b"DPsI";
const END: [u8; 4] = *b"DPsZ";
/// A block is closed once it is this long, in bytes: what is read for one key.
const BLOCK_BYTES: usize = 16 * 1024;
/// So long is a part of the list of blocks, in bytes.
const LIST_BYTES: usize = 64 * 1024;
/// No list of blocks that is longer is believed.
const LISTS_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// What an end holds, in bytes, in the first format and now.
const FIRST_END_BYTES: usize = 24;
const END_BYTES: usize = 32;
/// So much is written before it is synced: no sync of the journal then waits long behind it.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// What a damaged snapshot is called, and how many of them are kept for someone to look at.
const DAMAGED: &str = "damaged";
const KEPT_ASIDE: usize = 2;

/// What is in a snapshot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Summary {
    /// The position of the journal that it is made of.
    pub(crate) through: u64,
    pub(crate) entries: u64,
    /// Keys and values, in bytes.
    pub(crate) live_bytes: u64,
}

/// A block's first key, and where it begins in the file.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) first: Box<[u8]>,
    pub(crate) at: u64,
}

/// Where the snapshot of a position lies.
pub(crate) fn path_of(dir: &Path, through: u64) -> PathBuf {
    dir.join(format!("{through:016x}.snapshot"))
}

/// The snapshots in a directory, oldest first, each with its position.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let fail = |error| StoreError::io(format!("list {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut snapshots = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "snapshot")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            && let Ok(through) = u64::from_str_radix(stem, 16)
        {
            snapshots.push((through, path));
        }
    }
    snapshots.sort();
    Ok(snapshots)
}

/// Removes what a crash left of snapshots and runs that were being made.
pub(crate) fn remove_unfinished(dir: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let fail = |error| StoreError::io(format!("clear {}", dir.display()), error);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "new" || extension == "run") {
            match disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Gives a damaged snapshot a name under which nothing looks for it, so that it counts no more. Of those
/// with such names only the newest few stay: they must not fill the disk.
pub(crate) fn set_aside(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let fail = |error| failed("set aside", path, error);
    disk.rename(path, &path.with_extension(DAMAGED)).map_err(fail)?;
    let Some(dir) = path.parent() else { return Ok(()) };
    let entries: Result<Vec<_>, _> = fs::read_dir(dir).map_err(fail)?.collect();
    let paths = entries.map_err(fail)?.into_iter().map(|entry| entry.path());
    let mut aside: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == DAMAGED)).collect();
    // The names are positions.
    aside.sort();
    for old in aside.iter().rev().skip(KEPT_ASIDE) {
        disk.remove(old).map_err(fail)?;
    }
    disk.sync_dir(dir).map_err(fail)
}

/// Writes a snapshot. Dropped before `finish`, it leaves nothing.
pub(crate) struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    scratch: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: Header,
    length: u64,
    synced: u64,
    blocks: u64,
    /// The block being filled, behind the room for its front.
    block: Vec<u8>,
    last_key: Key,
    marks: Vec<Mark>,
    summary: Summary,
    finished: bool,
}

impl SnapshotWriter {
    pub(crate) fn create(disk: Arc<dyn Disk>, path: &Path, through: u64) -> Result<Self, StoreError> {
        let scratch = path.with_extension("new");
        let _ = disk.remove(&scratch);
        let header = Header::new(through)?;
        let file = disk.create(&scratch).map_err(|error| failed("create", &scratch, error))?;
        let writer = Self {
            disk,
            scratch,
            path: path.to_owned(),
            file,
            header,
            length: HEADER_BYTES as u64,
            synced: 0,
            blocks: 0,
            block: vec![0; FRAME_HEADER_BYTES],
            last_key: Key::new(),
            marks: Vec::new(),
            summary: Summary { through, ..Summary::default() },
            finished: false,
        };
        let written = writer.file.write_all_at(&header.encode(SNAPSHOT), 0);
        written.map_err(|error| failed("write", &writer.scratch, error))?;
        Ok(writer)
    }

    /// Adds the next entry; keys come in ascending order. Answers how many bytes went to the disk.
    pub(crate) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<u64, StoreError> {
        if self.block.len() == FRAME_HEADER_BYTES {
            self.marks.push(Mark { first: key.into(), at: self.length });
        }
        self.put(key, value);
        self.summary.entries += 1;
        self.summary.live_bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        if self.block.len() < BLOCK_BYTES { Ok(0) } else { self.flush(BLOCK) }
    }

    /// Puts an entry into the block.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let shared = match self.block.len() {
            FRAME_HEADER_BYTES => 0,
            _ => self.last_key.iter().zip(key).take_while(|(left, right)| left == right).count(),
        };
        put_number(&mut self.block, shared);
        put_number(&mut self.block, key.len() - shared);
        put_number(&mut self.block, value.map_or(0, |value| value.len() + 1));
        self.block.extend_from_slice(&key[shared..]);
        self.block.extend_from_slice(value.unwrap_or_default());
        key.clone_into(&mut self.last_key);
    }

    fn flush(&mut self, word: [u8; 4]) -> Result<u64, StoreError> {
        seal(&mut self.block, word, self.header.salt, self.blocks);
        let mut written = self.file.write_all_at(&self.block, self.length);
        let bytes = self.block.len() as u64;
        self.length += bytes;
        self.blocks += 1;
        self.block.truncate(FRAME_HEADER_BYTES);
        if self.length - self.synced >= SYNC_BYTES {
            self.synced = self.length;
            written = written.and_then(|()| self.file.sync_data());
        }
        written.map(|()| bytes).map_err(|error| failed("write", &self.scratch, error))
    }

    /// Writes the list of blocks and the end, and makes the snapshot last.
    pub(crate) fn finish(mut self) -> Result<Summary, StoreError> {
        if self.block.len() > FRAME_HEADER_BYTES {
            self.flush(BLOCK)?;
        }
        let lists_at = self.length;
        for Mark { first, at } in std::mem::take(&mut self.marks) {
            self.put(&first, Some(&at.to_le_bytes()));
            if self.block.len() >= LIST_BYTES {
                self.flush(LIST)?;
            }
        }
        if self.block.len() > FRAME_HEADER_BYTES {
            self.flush(LIST)?;
        }
        let Summary { through, entries, live_bytes } = self.summary;
        for number in [through, entries, live_bytes, lists_at] {
            self.block.extend_from_slice(&number.to_le_bytes());
        }
        self.flush(END)?;
        let last = || {
            self.file.sync_data()?;
            self.disk.rename(&self.scratch, &self.path)?;
            self.path.parent().map_or(Ok(()), |parent| self.disk.sync_dir(parent))
        };
        last().map_err(|error| failed("finish", &self.path, error))?;
        self.finished = true;
        Ok(self.summary)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.disk.remove(&self.scratch);
        }
    }
}

/// Reads a snapshot in order, checking it on the way.
pub(crate) struct SnapshotReader {
    path: PathBuf,
    input: BufReader<File>,
    header: Header,
    /// Where the next frame begins, in bytes from the start.
    offset: u64,
    blocks: u64,
    block: Vec<u8>,
    /// Where in `block` the next entry begins.
    at: usize,
    key: Key,
    counted: Summary,
    ended: bool,
}

impl SnapshotReader {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |error| failed("read", path, error);
        let mut input = BufReader::with_capacity(128 * 1024, File::open(path).map_err(fail)?);
        let (header, _) = read_header(path, &mut input)?;
        Ok(Self {
            path: path.to_owned(),
            input,
            header,
            offset: HEADER_BYTES as u64,
            blocks: 0,
            block: Vec::new(),
            at: 0,
            key: Key::new(),
            counted: Summary { through: header.number, ..Summary::default() },
            ended: false,
        })
    }

    /// The next entry; none at the end, whose totals then have been found right.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, Option<Value>)>, StoreError> {
        while self.at >= self.block.len() {
            if self.ended || !self.next_block()? {
                return Ok(None);
            }
        }
        let before = self.counted.entries;
        let entry =
            self.entry().ok_or_else(|| corrupt(&self.path, self.offset, "a malformed block before it"))?;
        if before > 0 && entry.0 <= self.key {
            return Err(corrupt(&self.path, self.offset, "keys out of order before it"));
        }
        self.counted.entries += 1;
        self.counted.live_bytes += (entry.0.len() + entry.1.as_ref().map_or(0, Vec::len)) as u64;
        self.key.clone_from(&entry.0);
        Ok(Some(entry))
    }

    fn next_block(&mut self) -> Result<bool, StoreError> {
        let frame = self.frame_word().map_err(|error| failed("read", &self.path, error))?;
        let word = if frame == END || frame == LIST { frame } else { BLOCK };
        let next = read_frame(word, self.header.salt, &mut self.input);
        match next.map_err(|error| failed("read", &self.path, error))? {
            Next::Record(number, payload) if number == self.blocks => {
                if word == END {
                    if end_of(&payload).is_none_or(|(summary, _)| summary != self.counted) {
                        return Err(corrupt(&self.path, self.offset, "an end with other totals"));
                    }
                    self.ended = true;
                    return Ok(false);
                }
                self.offset += (FRAME_HEADER_BYTES + payload.len()) as u64;
                self.blocks += 1;
                // What a list says was seen in the blocks: its check is all that counts here.
                (self.block, self.at) = (if word == LIST { Vec::new() } else { payload }, 0);
                Ok(true)
            }
            Next::Record(..) => Err(corrupt(&self.path, self.offset, "a block out of order")),
            Next::End => Err(corrupt(&self.path, self.offset, "its end is missing")),
            Next::Bad => Err(corrupt(&self.path, self.offset, "a bad block")),
        }
    }

    /// The word of the next frame, without taking it.
    fn frame_word(&mut self) -> io::Result<[u8; 4]> {
        let mut word = [0; 4];
        let buffered = io::BufRead::fill_buf(&mut self.input)?;
        if let Some(front) = buffered.get(..4) {
            word.copy_from_slice(front);
        } else {
            // A word across two fills of the buffer.
            let read = self.input.get_ref().read_at(&mut word, self.offset)?;
            if read < word.len() {
                word = [0; 4];
            }
        }
        Ok(word)
    }

    fn entry(&mut self) -> Option<(Key, Option<Value>)> {
        let mut rest = self.block.get(self.at..)?;
        // In a block's first entry nothing is shared.
        let mut key = if self.at == 0 { Key::new() } else { self.key.clone() };
        let value = take_entry(&mut rest, &mut key)?.map(<[u8]>::to_vec);
        self.at = self.block.len() - rest.len();
        Some((key, value))
    }

    /// Reads to the end. Calls `each` with the bytes read since the last call.
    pub(crate) fn verify(
        mut self,
        mut each: impl FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Summary, StoreError> {
        let mut told = 0;
        while self.next()?.is_some() {
            if self.offset > told {
                each(self.offset - told)?;
                told = self.offset;
            }
        }
        Ok(self.counted)
    }
}

/// What a whole snapshot says of itself at its end, without reading all of it.
pub(crate) fn summary(path: &Path) -> Result<Summary, StoreError> {
    let file = File::open(path).map_err(|error| failed("read", path, error))?;
    read_end(path, &file).map(|end| end.summary)
}

/// Where everything lies in a snapshot.
pub(crate) struct Layout {
    pub(crate) header: Header,
    pub(crate) marks: Vec<Mark>,
    /// Where the last block ends.
    pub(crate) blocks_end: u64,
}

/// Reads the list of blocks.
///
/// # Errors
/// `Corrupt`, also for a snapshot of the first format, which has none.
pub(crate) fn layout(path: &Path, file: &File) -> Result<Layout, StoreError> {
    let End { header, lists, .. } = read_end(path, file)?;
    let lists = lists.ok_or_else(|| corrupt(path, 0, "it has no list of its blocks"))?;
    let bad = || corrupt(path, lists.start, "a bad list of blocks");
    let length = lists.end.checked_sub(lists.start).filter(|length| *length <= LISTS_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length.ok_or_else(bad)?).map_err(|_| bad())?];
    file.read_exact_at(&mut bytes, lists.start).map_err(|error| failed("read", path, error))?;
    let (mut rest, mut marks, mut numbers) = (bytes.as_slice(), Vec::<Mark>::new(), Vec::new());
    while !rest.is_empty() {
        let frame = read_frame(LIST, header.salt, &mut rest).map_err(|error| failed("read", path, error))?;
        let Next::Record(number, payload) = frame else { return Err(bad()) };
        numbers.push(number);
        let (mut entries, mut key) = (payload.as_slice(), Key::new());
        while !entries.is_empty() {
            let at = take_entry(&mut entries, &mut key).flatten().and_then(|at| at.try_into().ok());
            let at = at.map(u64::from_le_bytes).filter(|at| *at < lists.start).ok_or_else(bad)?;
            if marks.last().is_some_and(|last| *last.first >= *key || last.at >= at) {
                return Err(bad());
            }
            marks.push(Mark { first: key.as_slice().into(), at });
        }
    }
    if numbers.iter().zip(marks.len() as u64..).any(|(found, expected)| *found != expected) {
        return Err(bad());
    }
    Ok(Layout { header, marks, blocks_end: lists.start })
}

struct End {
    header: Header,
    summary: Summary,
    /// Where the lists of blocks lie; none in the first format.
    lists: Option<Range<u64>>,
}

fn read_end(path: &Path, file: &File) -> Result<End, StoreError> {
    let fail = |error| failed("read", path, error);
    let length = file.metadata().map_err(fail)?.len();
    let (header, end_bytes) = read_header(path, &mut io::BufReader::new(file))?;
    let at = length.saturating_sub((FRAME_HEADER_BYTES + end_bytes) as u64);
    let mut bytes = vec![0; FRAME_HEADER_BYTES + end_bytes];
    let missing = || corrupt(path, at, "its end is missing");
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(missing()),
        read => read.map_err(fail)?,
    }
    match read_frame(END, header.salt, &mut bytes.as_slice()).map_err(fail)? {
        Next::Record(_, payload) => {
            let (summary, lists_at) = end_of(&payload).ok_or_else(missing)?;
            Ok(End { header, summary, lists: lists_at.map(|from| from..at) })
        }
        _ => Err(missing()),
    }
}

/// What an end says: also where the lists begin, but in the first format.
fn end_of(payload: &[u8]) -> Option<(Summary, Option<u64>)> {
    let lists_at = match payload.len() {
        FIRST_END_BYTES => None,
        END_BYTES => Some(u64_at(payload, 24)),
        _ => return None,
    };
    let summary =
        Summary { through: u64_at(payload, 0), entries: u64_at(payload, 8), live_bytes: u64_at(payload, 16) };
    Some((summary, lists_at))
}

/// The header of a snapshot, and how long its end is.
fn read_header(path: &Path, input: &mut impl io::Read) -> Result<(Header, usize), StoreError> {
    let mut bytes = [0; HEADER_BYTES];
    match input.read_exact(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(failed("read", path, error));
        }
        _ => {}
    }
    let now = Header::decode(SNAPSHOT, &bytes).map(|header| (header, END_BYTES));
    let header = now.or_else(|| Some((Header::decode(FIRST_SNAPSHOT, &bytes)?, FIRST_END_BYTES)));
    header.ok_or_else(|| corrupt(path, 0, "a bad snapshot header"))
}

/// Writes a snapshot of the first format anew, in its own place; does nothing with others.
pub(crate) fn modernise(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(|error| failed("read", path, error))?;
    if read_header(path, &mut &file)?.1 == END_BYTES {
        return Ok(());
    }
    let mut reader = SnapshotReader::open(path)?;
    let mut writer = SnapshotWriter::create(Arc::clone(disk), path, reader.counted.through)?;
    while let Some((key, value)) = reader.next()? {
        writer.add(&key, value.as_deref())?;
    }
    writer.finish().map(|_| ())
}

/// Takes the next entry of a block off its front. `key` holds the one before it, and then its own.
#[expect(clippy::option_option, reason = "malformed, deleted, a value")]
pub(crate) fn take_entry<'a>(rest: &mut &'a [u8], key: &mut Key) -> Option<Option<&'a [u8]>> {
    let shared = take_number(rest)?;
    let length = take_number(rest)?;
    let tag = take_number(rest)?;
    if shared > key.len() || length > KEY_BYTES_MAX || tag > VALUE_BYTES_MAX + 1 {
        return None;
    }
    let (own, behind) = rest.split_at_checked(length)?;
    let (value, behind) = behind.split_at_checked(tag.saturating_sub(1))?;
    key.truncate(shared);
    key.extend_from_slice(own);
    *rest = behind;
    Some((tag > 0).then_some(value))
}

pub(crate) fn failed(doing: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::io(format!("{doing} {}", path.display()), error)
}

pub(crate) fn corrupt(path: &Path, offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset, what }
}

fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0));
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    // Nothing in a block needs more than 21 bits.
    for shift in [0, 7, 14] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    fn entries(count: u32) -> Vec<(Key, Option<Value>)> {
        let value = |n: u32| match n % 7 {
            0 => None,
            1 => Some(Vec::new()),
            6 => Some(vec![1; 20_000]),
            _ => Some(n.to_le_bytes().repeat(9)),
        };
        (0..count).map(|n| (format!("mailbox/{:07}", n * 13).into_bytes(), value(n))).collect()
    }

    fn write(path: &Path, entries: &[(Key, Option<Value>)]) -> Summary {
        let mut writer = SnapshotWriter::create(Arc::new(RealDisk), path, 7).unwrap();
        for (key, value) in entries {
            writer.add(key, value.as_deref()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(path: &Path) -> Result<Vec<(Key, Option<Value>)>, StoreError> {
        let mut reader = SnapshotReader::open(path)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    #[test]
    fn a_snapshot_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 2, 500] {
            let path = path_of(dir.path(), 7);
            let entries = entries(count);
            let written = write(&path, &entries);
            assert_eq!(read(&path).unwrap(), entries);
            assert_eq!(summary(&path).unwrap(), written);
            assert_eq!(SnapshotReader::open(&path).unwrap().verify(|_| Ok(())).unwrap(), written);
        }
        assert_eq!(list(dir.path()).unwrap(), [(7, path_of(dir.path(), 7))]);
        let unfinished = SnapshotWriter::create(Arc::new(RealDisk), &path_of(dir.path(), 9), 9).unwrap();
        drop(unfinished);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Puts a snapshot as programs of format 2 wrote it in the place of one of ours.
    pub(crate) fn make_first(path: &Path) {
        let bytes = fs::read(path).unwrap();
        let Layout { header, marks, blocks_end } = layout(path, &File::open(path).unwrap()).unwrap();
        let mut end = vec![0; FRAME_HEADER_BYTES];
        let Summary { through, entries, live_bytes } = summary(path).unwrap();
        end.extend([through, entries, live_bytes].iter().flat_map(|number| number.to_le_bytes()));
        seal(&mut end, END, header.salt, marks.len() as u64);
        let blocks = &bytes[HEADER_BYTES..usize::try_from(blocks_end).unwrap()];
        fs::write(path, [&header.encode(FIRST_SNAPSHOT), blocks, &end].concat()).unwrap();
    }

    #[test]
    fn a_snapshot_of_the_first_format_reads_the_same_and_is_made_anew_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), 7);
        let entries = entries(500);
        let written = write(&path, &entries);
        let modern = fs::read(&path).unwrap();
        make_first(&path);
        assert_ne!(fs::read(&path).unwrap(), modern);
        assert_eq!((read(&path).unwrap(), summary(&path).unwrap()), (entries.clone(), written));
        assert!(layout(&path, &File::open(&path).unwrap()).is_err(), "it has no list");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for _ in 0..2 {
            modernise(&disk, &path).unwrap();
            assert_eq!((read(&path).unwrap(), summary(&path).unwrap()), (entries.clone(), written));
            assert!(layout(&path, &File::open(&path).unwrap()).unwrap().marks.len() > 5);
        }
    }

    #[test]
    fn of_damaged_snapshots_only_the_newest_few_stay() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=5 {
            let path = path_of(dir.path(), n);
            fs::write(&path, "damaged").unwrap();
            set_aside(&RealDisk, &path).unwrap();
        }
        assert!(list(dir.path()).unwrap().is_empty());
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["0000000000000004.damaged", "0000000000000005.damaged"]);
    }

    #[test]
    fn any_damage_to_a_snapshot_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), 7);
        write(&path, &entries(60));
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() > 2 * BLOCK_BYTES, "more than one block");
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..400 {
            let mut bad = bytes.clone();
            let at = if round < 60 { round } else { random.usize(..bytes.len()) };
            if round % 2 == 0 {
                bad[at] ^= 1 << random.u32(..8);
            } else {
                bad.truncate(at);
            }
            fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(StoreError::Corrupt { .. })), "byte {at}");
        }
    }
}
