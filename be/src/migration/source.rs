//! Reading what another server left: a Maildir with folders beside (Maildir++) or within each other, an mbox, or a tree of
//! mboxes. Each file says by itself what it is; what cannot be read is named and passed over. Blocks: not for async workers.
//!
//! Symbolic links below the source are not followed, and only plain files are opened: the owner of a Maildir must not
//! have other people's files imported by whoever runs this. Not here: what becomes of the messages (`import`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use directpush_common::mail::fields::Fields;
use directpush_common::mail::lines::to_crlf;
use directpush_common::mail::maildir::{self, Flags};
use directpush_common::mail::mbox::{self, MboxReader};

/// Directories within each other, at most.
const DEPTH_MAX: usize = 32;
/// Bytes of an mbox that are read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// A folder for what says nothing else.
pub(super) const INBOX: &str = "Inbox";

/// A message as it was found.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) folder: Vec<String>,
    /// Its file, and in an mbox where it is in it: for complaints.
    pub(super) name: String,
    /// When it came, Unix seconds; none where nothing says it.
    pub(super) date: Option<i64>,
    pub(super) flags: Flags,
    pub(super) bytes: Vec<u8>,
}

/// Something found.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// A folder, which may be empty.
    Folder(Vec<String>),
    Message(Message),
    /// Something that cannot be taken, and why.
    Bad {
        name: String,
        why: String,
    },
}

/// What is told of, as it is found; false: no more is wanted.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Found) -> bool;

/// Nobody wants more.
struct Enough;

struct Reader<'a> {
    bytes_max: usize,
    sink: Sink<'a>,
}

/// Reads a source. Of an mbox file, and of a Maildir's own messages, the folder is `into`.
///
/// # Errors
/// The source itself cannot be read, or is nothing of what is known.
pub(super) fn read(source: &Path, into: &[String], bytes_max: u64, sink: Sink<'_>) -> io::Result<()> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut reader = Reader { bytes_max, sink };
    let meta = fs::metadata(source)?;
    let strange = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
    if !meta.is_dir() {
        if !is_mbox(source)? {
            return strange("it does not begin as an mbox does, with a line \"From …\"");
        }
        let _ = reader.folder(into).and_then(|()| reader.mbox(source, into));
        return Ok(());
    }
    if !holds_mail(source, 0) {
        return strange("there is neither a Maildir nor an mbox in it");
    }
    let _ = reader.directory(source, into, &[], 0);
    Ok(())
}

/// Files that can be counted in advance, for the bar: those of Maildirs by number, mboxes by bytes. None where it is too much work.
pub(super) fn measure(source: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(source) else { return 0 };
    if meta.is_file() {
        return meta.len();
    }
    if !meta.is_dir() {
        return 0;
    }
    entries(source).iter().map(|(path, _)| measure(path)).sum()
}

/// What is in a directory, by name.
fn entries(dir: &Path) -> Vec<(PathBuf, String)> {
    let Ok(read) = fs::read_dir(dir) else { return Vec::new() };
    let named = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        Some((entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    let mut all: Vec<_> = read.filter_map(named).collect();
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn is_maildir(dir: &Path) -> bool {
    is_dir(&dir.join("cur")) && (is_dir(&dir.join("new")) || is_dir(&dir.join("tmp")))
}

/// Opens a plain file, no link and nothing that would block.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    Ok(file)
}

fn is_mbox(path: &Path) -> io::Result<bool> {
    let mut start = [0; 5];
    let mut file = open(path)?;
    if file.metadata()?.len() == 0 {
        // A folder without messages, if its name says that it is one.
        return Ok(path.extension().is_some_and(|ending| ending == "mbox"));
    }
    let mut len = 0;
    while len < start.len() {
        match file.read(&mut start[len..])? {
            0 => break,
            count => len += count,
        }
    }
    Ok(&start == b"From ")
}

/// Whether there is mail in a directory, however deep.
fn holds_mail(dir: &Path, depth: usize) -> bool {
    if is_maildir(dir) {
        return true;
    }
    depth < DEPTH_MAX
        && entries(dir).iter().any(|(path, _)| {
            if is_dir(path) { holds_mail(path, depth + 1) } else { is_mbox(path).unwrap_or(false) }
        })
}

/// The name of a folder by its directory or file: servers write modified UTF-7, mail programs add endings.
fn folder_name(name: &str, ending: &str) -> String {
    let name = name.strip_suffix(ending).unwrap_or(name);
    maildir::decode_name(name).unwrap_or_else(|| name.to_owned())
}

impl Reader<'_> {
    fn tell(&mut self, found: Found) -> Result<(), Enough> {
        if (self.sink)(found) { Ok(()) } else { Err(Enough) }
    }

    fn folder(&mut self, path: &[String]) -> Result<(), Enough> {
        self.tell(Found::Folder(path.to_vec()))
    }

    fn bad(&mut self, path: &Path, why: impl std::fmt::Display) -> Result<(), Enough> {
        self.tell(Found::Bad { name: path.display().to_string(), why: why.to_string() })
    }

    /// A directory whose own messages, if it is a Maildir, are of the folder `own`, and whose folders are below `path`.
    fn directory(&mut self, dir: &Path, own: &[String], path: &[String], depth: usize) -> Result<(), Enough> {
        if depth > DEPTH_MAX {
            return self.bad(dir, "the directories are nested too deep");
        }
        let maildir = is_maildir(dir);
        if maildir {
            self.maildir(dir, own)?;
        }
        for (entry, name) in entries(dir) {
            let below = |names: Vec<String>| [path, &names].concat();
            if is_dir(&entry) {
                if maildir && ["cur", "new", "tmp"].contains(&name.as_str()) || !holds_mail(&entry, depth + 1)
                {
                    continue;
                }
                let names = match name.strip_prefix('.') {
                    Some(_) => maildir::folder_path(&name),
                    None => Some(vec![folder_name(&name, ".sbd")]),
                };
                match names {
                    Some(names) => {
                        let folder = below(names);
                        self.directory(&entry, &folder, &folder, depth + 1)?;
                    }
                    None => self.bad(&entry, "this is no folder's name")?,
                }
            } else if !maildir && is_mbox(&entry).unwrap_or(false) {
                let folder = below(vec![folder_name(&name, ".mbox")]);
                self.folder(&folder)?;
                self.mbox(&entry, &folder)?;
            }
        }
        Ok(())
    }

    fn maildir(&mut self, dir: &Path, folder: &[String]) -> Result<(), Enough> {
        self.folder(folder)?;
        let mut files = Vec::new();
        for part in ["cur", "new"] {
            for (path, name) in entries(&dir.join(part)) {
                if maildir::is_message(&name) {
                    let modified = fs::symlink_metadata(&path).and_then(|meta| meta.modified()).ok();
                    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    let modified = modified.and_then(|since| i64::try_from(since.as_secs()).ok());
                    // A server that stores a message sets the file's time to when it came; a copy may have lost that, and
                    // then the name says when it was made.
                    let date = [modified, maildir::date(&name)].into_iter().flatten().min();
                    files.push((date, name, path));
                }
            }
        }
        files.sort();
        for (date, name, path) in files {
            match self.file(&path) {
                Ok(bytes) => {
                    let (folder, flags) = (folder.to_vec(), Flags::of_name(&name));
                    let name = path.display().to_string();
                    self.message(Message { folder, name, date, flags, bytes })?;
                }
                // Somebody else's program removed or renamed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.bad(&path, error)?,
            }
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open(path)?.take(self.bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.bytes_max {
            return Err(io::Error::other(self.too_large()));
        }
        let bytes = match to_crlf(&bytes) {
            std::borrow::Cow::Owned(converted) => converted,
            std::borrow::Cow::Borrowed(_) => bytes,
        };
        Ok(bytes)
    }

    fn too_large(&self) -> String {
        format!("it is larger than mail_bytes ({})", self.bytes_max)
    }

    fn mbox(&mut self, path: &Path, folder: &[String]) -> Result<(), Enough> {
        let mut file = match open(path) {
            Ok(file) => file,
            Err(error) => return self.bad(path, error),
        };
        let mut reader = MboxReader::new(self.bytes_max);
        let mut piece = vec![0; PIECE_BYTES];
        let mut number = 0;
        loop {
            let found = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => reader.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.bad(path, error),
            };
            for found in found {
                number += 1;
                self.of_mbox(path, folder, number, found)?;
            }
        }
        match reader.finish() {
            Some(found) => self.of_mbox(path, folder, number + 1, found),
            None => Ok(()),
        }
    }

    fn of_mbox(
        &mut self,
        path: &Path,
        folder: &[String],
        number: u64,
        found: mbox::Found,
    ) -> Result<(), Enough> {
        let name = format!("{}: message {number}", path.display());
        match found {
            mbox::Found::Message { date, message, .. } => {
                let (flags, bytes) = mbox::take_status(&message);
                self.message(Message { folder: folder.to_vec(), name, date, flags, bytes })
            }
            mbox::Found::TooLarge { .. } => self.tell(Found::Bad { name, why: self.too_large() }),
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Enough> {
        let has_field = Fields::of(&message.bytes).take(20).any(|field| !field.name.is_empty());
        if has_field {
            return self.tell(Found::Message(message));
        }
        let why =
            if message.bytes.is_empty() { "it is empty" } else { "it does not begin as a message does" };
        self.tell(Found::Bad { name: message.name, why: why.to_owned() })
    }
}
