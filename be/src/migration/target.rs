//! Writing what an export has: a Maildir with folders beside (Maildir++) or within each other, or an mbox per folder. Blocks: not
//! for async workers.
//!
//! A file has its name only when it is whole, and what is there already is not written again. Lines end with LF, as
//! programs that read such files expect; `common::mail::lines` says what can be undone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use directpush_common::mail::fields;
use directpush_common::mail::lines::to_lf;
use directpush_common::mail::maildir::{self, Flags};
use directpush_common::mail::mbox;

use super::source::INBOX;

/// What is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// A Maildir whose folders are directories `.A.B` in it: what Dovecot and Courier read.
    #[default]
    Maildir,
    /// A Maildir per folder, within each other as the folders are.
    Nested,
    /// A file `A.mbox` per folder, those below it in a directory `A`.
    Mbox,
}

/// What tells a message from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) folder: u64,
    pub(super) id: u64,
    /// When it came, Unix seconds.
    pub(super) date: i64,
    pub(super) flags: Flags,
}

/// The directory of one mailbox.
pub(super) struct Target {
    dir: PathBuf,
    format: Format,
    /// Names on the disk that folders have, in lower case: two must not share one.
    taken: HashSet<String>,
    places: BTreeMap<u64, PathBuf>,
}

/// One folder, open.
pub(super) enum Open {
    Maildir {
        dir: PathBuf,
        /// Files of ours that are there, by what makes their message one.
        there: HashMap<String, String>,
    },
    Mbox {
        part: PathBuf,
        whole: PathBuf,
        out: BufWriter<File>,
    },
}

impl Target {
    pub(super) fn new(dir: &Path, format: Format) -> Self {
        Self { dir: dir.to_owned(), format, taken: HashSet::new(), places: BTreeMap::new() }
    }

    /// Opens a folder, made if need be. Folders come in the same order each time, so that each has the same place.
    pub(super) fn open(&mut self, folder: u64, path: &[String]) -> io::Result<Open> {
        let place = self.place(path);
        self.places.insert(folder, place.clone());
        if self.format == Format::Mbox {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            let part = place.with_added_extension("part");
            let out = BufWriter::new(File::create(&part)?);
            return Ok(Open::Mbox { part, whole: place, out });
        }
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(place.join(part))?;
        }
        if self.format == Format::Maildir && place != self.dir {
            // By this file, programs know a folder's directory from a mailbox's.
            File::create(place.join("maildirfolder"))?;
        }
        let mut there = HashMap::new();
        for entry in fs::read_dir(place.join("cur"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some((_, rest)) = name.split_once('.')
                && let Some((unique, _)) = rest.split_once(".directpush,")
            {
                there.insert(unique.to_owned(), name);
            }
        }
        Ok(Open::Maildir { dir: place, there })
    }

    fn place(&mut self, path: &[String]) -> PathBuf {
        let mut n = 1;
        loop {
            let number = if n == 1 { String::new() } else { format!("_{n}") };
            let relative = match self.format {
                Format::Maildir if path == [INBOX] => String::new(),
                Format::Maildir => maildir::directory(path) + &number,
                Format::Nested => safe(path) + &number,
                Format::Mbox => safe(path) + &number + ".mbox",
            };
            if self.taken.insert(relative.to_lowercase()) {
                return if relative.is_empty() { self.dir.clone() } else { self.dir.join(relative) };
            }
            n += 1;
        }
    }
}

/// Folder names as a path. None is a path of its own (names have no slashes), hidden, or part of a Maildir.
fn safe(path: &[String]) -> String {
    let name = |name: &String| {
        let hidden = name.starts_with('.') || ["cur", "new", "tmp"].contains(&name.as_str());
        // As it is read: only what could be taken for modified UTF-7 is written so.
        let written = if name.is_ascii() { maildir::encode_name(name) } else { name.clone() };
        if hidden { format!("_{written}") } else { written }
    };
    path.iter().map(name).collect::<Vec<_>>().join("/")
}

impl Open {
    /// Whether a message is there already, whole; a change of flags is made good. An mbox is always written anew.
    pub(super) fn has(&mut self, named: &Named, size: u64) -> io::Result<bool> {
        let Self::Maildir { dir, there } = self else { return Ok(false) };
        let Some(name) = there.get(&unique(named)) else { return Ok(false) };
        // The size in the name is that of the file, with its own line ends: not known before it was read.
        let start = maildir::unflagged(name);
        let told = start.rsplit_once("S=").and_then(|(_, size)| size.parse::<u64>().ok());
        let file = dir.join("cur").join(name);
        let len = fs::symlink_metadata(&file)?.len();
        if told != Some(len) || len > size {
            fs::remove_file(file)?;
            return Ok(false);
        }
        let now = format!("{start}{}", named.flags);
        if now != *name {
            fs::rename(file, dir.join("cur").join(now))?;
        }
        Ok(true)
    }

    pub(super) fn write(&mut self, named: &Named, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Mbox { out, .. } => {
                let from = fields::first(message, "Return-Path").unwrap_or_default();
                let sender = from.trim_matches(['<', '>']);
                let mut text = Vec::with_capacity(message.len() + 256);
                mbox::write(sender, named.date, &mbox::with_status(message, named.flags), &mut text);
                out.write_all(&text)
            }
            Self::Maildir { dir, .. } => {
                let text = to_lf(message);
                let name = maildir::file_name(named.date, &unique(named), text.len() as u64, named.flags);
                let part = dir.join("tmp").join(unique(named));
                let mut file = File::create(&part)?;
                file.write_all(&text)?;
                let date = Duration::from_secs(u64::try_from(named.date).unwrap_or(0));
                if let Some(date) = UNIX_EPOCH.checked_add(date) {
                    file.set_times(FileTimes::new().set_modified(date).set_accessed(date))?;
                }
                fs::rename(part, dir.join("cur").join(name))
            }
        }
    }

    /// Makes what was written last.
    pub(super) fn close(self) -> io::Result<()> {
        match self {
            Self::Mbox { part, whole, out } => {
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                fs::rename(part, whole)
            }
            Self::Maildir { dir, .. } => Ok(rustix::fs::syncfs(File::open(dir)?)?),
        }
    }
}

fn unique(named: &Named) -> String {
    format!("F{:x}I{:x}", named.folder, named.id)
}
