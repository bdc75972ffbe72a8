//! `directpush-be import`: mail of other servers into a mailbox. One thread reads the files, batches go to the mailbox, one
//! commit each. It may be interrupted and run again.
//!
//! A message is known by a hash of its folder, its bytes, and the how-manieth of these in that folder it is; neither by its
//! file's name nor by its flags or date, which servers change. What was imported is never added again, also if its user has
//! moved or deleted it since, unless that is asked for. What cannot be taken is named and passed over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use directpush_common::mail::maildir::{Flags, default_folder};
use directpush_common::mail::marks::{Flag, Marks, Verb, VerbKind};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::source::{self, Found, INBOX, Message};
use super::{Desk, Letter, STEP_BYTES_MAX, STEP_MESSAGES_MAX, Step, Told, UNEXPECTED, take};
use crate::mailbox::now_secs;
use crate::maintenance::Bar;
use crate::store::Progress;

/// Messages that cannot be taken, of which each is named.
const NAMED_MAX: usize = 1000;
/// What the reading thread may be ahead.
const AHEAD: usize = 16;
const TRASH: &str = "Deleted Items";

/// What is imported, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    pub source: PathBuf,
    pub user: String,
    /// The folder for messages whose place says none: an mbox, or a Maildir's own.
    pub folder: Vec<String>,
    /// Folders called `Sent`, `Trash`, … keep their names instead of becoming default folders.
    pub keep_names: bool,
    /// What an earlier import added is added again if it is no longer where that put it.
    pub anew: bool,
    /// Nothing is added.
    pub dry_run: bool,
    /// Larger messages are passed over.
    pub mail_bytes_max: u64,
}

/// What was imported.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    pub dry_run: bool,
    pub users: u64,
    pub folders: u64,
    /// Messages added, or that would be; and their bytes.
    pub added: u64,
    pub bytes: u64,
    /// Messages that were there from an earlier import.
    pub known: u64,
    /// What was passed over: which, and why; at most a thousand are named.
    pub bad: Vec<(String, String)>,
    pub bad_count: u64,
    /// Users whose import could not come to its end, and why.
    pub stopped: Vec<(String, String)>,
}

impl Imported {
    /// Whether all that was found is in the mailboxes now.
    pub fn is_whole(&self) -> bool {
        self.bad_count == 0 && self.stopped.is_empty()
    }

    fn bad(&mut self, name: String, why: String) {
        self.bad_count += 1;
        if self.bad.len() < NAMED_MAX {
            self.bad.push((name, why));
        }
    }
}

/// A batch in the making: all of one folder.
#[derive(Default)]
struct Batch {
    path: Vec<String>,
    letters: Vec<Letter>,
    payload: BytesMut,
}

impl Batch {
    fn takes(&self, path: &[String], bytes: u64) -> bool {
        self.letters.is_empty()
            || (self.path == path
                && self.letters.len() < STEP_MESSAGES_MAX
                && self.payload.len() as u64 + bytes <= STEP_BYTES_MAX)
    }
}

/// Imports one mailbox; adds to `imported` what became of it.
///
/// # Errors
/// The source cannot be read, there is no such user, or the server or store fails. A full mailbox is told in `imported`.
pub async fn import(
    desk: &impl Desk,
    options: &ImportOptions,
    imported: &mut Imported,
    watch: &mut Bar,
) -> Result<(), String> {
    imported.dry_run = options.dry_run;
    imported.users += 1;
    // Nobody: said before anything is read.
    take(desk, Step::Known { user: options.user.clone(), keys: Vec::new(), anew: false }, Bytes::new())
        .await?;
    let (sender, mut found) = mpsc::channel(AHEAD);
    let (from, into, bytes_max) = (options.source.clone(), options.folder.clone(), options.mail_bytes_max);
    let reading = tokio::task::spawn_blocking(move || {
        let total = source::measure(&from);
        let mut sink = |found| sender.blocking_send((found, total)).is_ok();
        source::read(&from, &into, bytes_max, &mut sink)
    });
    let mut run = Run { desk, options, imported, batch: Batch::default(), seen: HashMap::new(), full: None };
    let mut done = 0;
    while let Some((found, total)) = found.recv().await {
        if let Found::Message(message) = &found {
            done += message.bytes.len() as u64;
            watch.show(Progress { phase: "import", done, total: total.max(done) });
        }
        run.take(found).await?;
        if run.full.is_some() {
            break;
        }
    }
    if run.full.is_none() {
        run.flush().await?;
    }
    if let Some(why) = run.full.take() {
        run.imported.stopped.push((options.user.clone(), why));
    }
    // Without a receiver the thread ends.
    drop(found);
    let read = reading.await.map_err(|error| error.to_string())?;
    read.map_err(|error| format!("{}: {error}", options.source.display()))
}

/// The users of a directory in which each has a directory or file of that name.
///
/// # Errors
/// The directory cannot be read.
pub fn users(dir: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".mbox").unwrap_or(&name);
        if let Ok(user) = directpush_common::names::decode_segment(name)
            && !user.starts_with('.')
        {
            all.push((user, entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

struct Run<'a, D> {
    desk: &'a D,
    options: &'a ImportOptions,
    imported: &'a mut Imported,
    batch: Batch,
    /// How often a message was found in a folder.
    seen: HashMap<[u8; 16], u32>,
    /// Why the mailbox takes no more.
    full: Option<String>,
}

impl<D: Desk> Run<'_, D> {
    async fn take(&mut self, found: Found) -> Result<(), String> {
        match found {
            Found::Bad { name, why } => self.imported.bad(name, why),
            Found::Folder(path) => {
                self.imported.folders += 1;
                let path = self.mapped(path);
                if !self.options.dry_run {
                    let step = Step::Folder { user: self.options.user.clone(), path: path.clone() };
                    match take(self.desk, step, Bytes::new()).await {
                        Ok(_) => {}
                        // Its messages will say more.
                        Err(why) => self.imported.bad(path.join("/"), why),
                    }
                }
            }
            Found::Message(message) => {
                let path = self.mapped(message.folder.clone());
                let path = if message.flags.trashed { vec![TRASH.to_owned()] } else { path };
                if !self.batch.takes(&path, message.bytes.len() as u64) {
                    self.flush().await?;
                }
                self.batch.path = path;
                let letter = self.letter(&message);
                self.batch.letters.push(letter);
                self.batch.payload.extend_from_slice(&message.bytes);
            }
        }
        Ok(())
    }

    /// A folder's path here.
    fn mapped(&self, mut path: Vec<String>) -> Vec<String> {
        if let Some(first) = path.first_mut() {
            match default_folder(first) {
                Some(default) if !self.options.keep_names || default == INBOX => default.clone_into(first),
                _ => {}
            }
        }
        path
    }

    fn letter(&mut self, message: &Message) -> Letter {
        let mut hash = Sha256::new();
        for name in &message.folder {
            hash.update(name.to_lowercase());
            hash.update([0]);
        }
        hash.update([0]);
        hash.update(&message.bytes);
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        let count = self.seen.entry(key).or_default();
        *count += 1;
        if *count > 1 {
            let again = Sha256::new().chain_update(key).chain_update(count.to_be_bytes()).finalize();
            key.copy_from_slice(&again[..16]);
        }
        let now = now_secs();
        Letter {
            key: HEXLOWER.encode(&key),
            size: message.bytes.len() as u64,
            date: message.date.unwrap_or(now).clamp(0, now),
            read: message.flags.seen || message.flags.draft,
            marks: marks(message.flags, message.date.unwrap_or(now)),
        }
    }

    /// Brings the batch to the mailbox.
    async fn flush(&mut self) -> Result<(), String> {
        let Batch { path, letters, payload } = std::mem::take(&mut self.batch);
        if letters.is_empty() {
            return Ok(());
        }
        let (user, anew) = (self.options.user.clone(), self.options.anew);
        let keys = letters.iter().map(|letter| letter.key.clone()).collect();
        let step = Step::Known { user: user.clone(), keys, anew };
        let (Told::Known(known), _) = take(self.desk, step, Bytes::new()).await? else {
            return Err(UNEXPECTED.into());
        };
        let (mut new, mut bytes, mut payload) = (Vec::new(), BytesMut::new(), payload.freeze());
        for (letter, known) in letters.into_iter().zip(known) {
            let message = payload.split_to(usize::try_from(letter.size).unwrap_or(0).min(payload.len()));
            if known {
                self.imported.known += 1;
            } else {
                bytes.extend_from_slice(&message);
                new.push(letter);
            }
        }
        let sizes: Vec<u64> = new.iter().map(|letter| letter.size).collect();
        if new.is_empty() || self.options.dry_run {
            self.imported.added += new.len() as u64;
            self.imported.bytes += sizes.iter().sum::<u64>();
            return Ok(());
        }
        let step = Step::Add { user, path, messages: new, anew };
        let (Told::Added { done, added, refused }, _) = take(self.desk, step, bytes.freeze()).await? else {
            return Err(UNEXPECTED.into());
        };
        self.imported.added += added as u64;
        self.imported.known += done.saturating_sub(added) as u64;
        self.imported.bytes += sizes.iter().take(done).sum::<u64>();
        self.full = refused;
        Ok(())
    }
}

/// What of a file's flags is kept as marks.
fn marks(flags: Flags, date: i64) -> String {
    let verb = match (flags.replied, flags.passed) {
        (true, _) => Some(VerbKind::Reply),
        (false, true) => Some(VerbKind::Forward),
        (false, false) => None,
    };
    let marks = Marks {
        flag: flags.flagged.then(Flag::default),
        // Nobody knows when: with the message, so that it is the same in each import.
        verb: verb.map(|kind| Verb { kind, time: date }),
        ..Marks::default()
    };
    marks.to_text().unwrap_or_default()
}
