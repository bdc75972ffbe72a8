//! The queue's directory: what a power cut leaves of it is the queue.
//!
//! ```text
//! <id>.mail    one line of header, the envelope as JSON, the message; written once
//! <id>.state   one line of header, the state as JSON; replaced whole; absent = never tried
//! *.new        a file that was being written: nobody was told that it is there
//! *.corrupt    set aside because it cannot be read
//! ```
//! A message is in the queue from the moment its `.mail` has its name for good until that name is gone
//! for good. Its state may be older than what was done: then something is sent twice, never lost.
//!
//! Not here: who calls off the async workers (`super::owner`), and when.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::Id;
use super::entry::{Entry, Envelope, State};
use super::files::Files;

/// The format written, and the newest that is read.
const FORMAT: u32 = 1;
const MAIL: &str = "directpush mail";
const STATE: &str = "directpush state";
/// Bytes of a header line, at most.
const HEADER_BYTES_MAX: usize = 128;
/// Bytes of an envelope or a state, at most: a thousand recipients with their answers.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that hold the envelope of nearly every message.
const USUAL_BYTES: u64 = 8 * 1024;

/// Why the queue's directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// No space is left.
    #[error("no space left for the mail queue")]
    Full,
    /// The file system is read-only.
    #[error("the mail queue's file system is read-only")]
    ReadOnly,
    /// The operating system failed otherwise.
    #[error("{doing} in the mail queue")]
    Io { doing: &'static str, source: io::Error },
    /// A file is not as it was written.
    #[error("damaged in the mail queue: {0}")]
    Corrupt(&'static str),
    /// A file was written by a newer program.
    #[error("the mail queue holds format {0}, newer than this program's {FORMAT}")]
    Newer(u32),
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::Full,
        io::ErrorKind::ReadOnlyFilesystem => SpoolError::ReadOnly,
        _ => SpoolError::Io { doing, source },
    }
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Scan {
    pub entries: BTreeMap<Id, Entry>,
    /// Files that cannot be read and were given another name.
    pub set_aside: Vec<String>,
    /// Messages of a newer program, left alone.
    pub newer: Vec<String>,
}

/// The queue's directory, open. Every call may block.
#[derive(Clone)]
pub struct Spool(Arc<dyn Files>);

fn mail(id: Id) -> String {
    format!("{id}.mail")
}

fn state(id: Id) -> String {
    format!("{id}.state")
}

/// The SHA-256 of these bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

impl Spool {
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self(files)
    }

    /// Reads what the last process left. Only headers are read, not messages.
    pub fn scan(&self, now: u64) -> Result<Scan, SpoolError> {
        let names = self.0.names().map_err(failed("list the directory"))?;
        let mut scan = Scan::default();
        let mut states = Vec::new();
        for name in names {
            match name.split_once('.') {
                Some((_, ending)) if ending.ends_with("new") => {
                    self.0.remove(&name).map_err(failed("remove an unfinished file"))?;
                }
                Some((id, "mail")) if id.parse::<Id>().is_ok() => self.scan_mail(&name, now, &mut scan)?,
                Some((id, "state")) => states.extend(id.parse::<Id>()),
                _ => {}
            }
        }
        for id in states {
            let Some(entry) = scan.entries.get_mut(&id) else {
                if !scan.newer.contains(&mail(id)) {
                    self.0.remove(&state(id)).map_err(failed("remove the state of a removed message"))?;
                }
                continue;
            };
            match self.scan_state(id, entry.envelope.recipients.len()) {
                Ok(state) => entry.state = state,
                Err(SpoolError::Corrupt(_) | SpoolError::Newer(_)) => {
                    // The message counts as never tried: twice is better than lost.
                    self.set_aside(&state(id), &mut scan.set_aside)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.0.sync().map_err(failed("sync the directory"))?;
        Ok(scan)
    }

    fn scan_mail(&self, name: &str, now: u64, scan: &mut Scan) -> Result<(), SpoolError> {
        let Some(id) = name.split('.').next().and_then(|id| id.parse::<Id>().ok()) else { return Ok(()) };
        let read = |bytes_max| self.0.read(name, bytes_max).map_err(failed("read a message's envelope"));
        let mut head = read(USUAL_BYTES)?;
        if head.len() as u64 == USUAL_BYTES && unframe::<Envelope>(MAIL, &head).is_err() {
            head = read((HEADER_BYTES_MAX + RECORD_BYTES_MAX) as u64)?;
        }
        match unframe::<Envelope>(MAIL, &head) {
            Ok((envelope, _)) if !envelope.recipients.is_empty() => {
                let state = State::new(envelope.recipients.len(), now);
                scan.entries.insert(id, Entry { envelope, state });
                Ok(())
            }
            Err(SpoolError::Newer(_)) => {
                scan.newer.push(name.to_owned());
                Ok(())
            }
            _ => self.set_aside(name, &mut scan.set_aside),
        }
    }

    fn scan_state(&self, id: Id, recipients: usize) -> Result<State, SpoolError> {
        let bytes = self
            .0
            .read(&state(id), (HEADER_BYTES_MAX + RECORD_BYTES_MAX) as u64)
            .map_err(failed("read a message's state"))?;
        let (state, rest) = unframe::<State>(STATE, &bytes)?;
        if state.recipients.len() != recipients || !rest.is_empty() {
            return Err(SpoolError::Corrupt("a state that belongs to another message"));
        }
        Ok(state)
    }

    fn set_aside(&self, name: &str, told: &mut Vec<String>) -> Result<(), SpoolError> {
        let aside = format!("{name}.corrupt");
        self.0.rename(name, &aside).map_err(failed("set a damaged file aside"))?;
        told.push(aside);
        Ok(())
    }

    /// Puts a message into the queue: when this returns, it would survive a power cut.
    pub fn put(&self, id: Id, envelope: &Envelope, message: &[u8]) -> Result<(), SpoolError> {
        let head = frame(MAIL, envelope)?;
        let (scratch, name) = (format!("{id}.new"), mail(id));
        let write = || {
            self.0.write(&scratch, &[&head, message])?;
            self.0.rename(&scratch, &name)?;
            self.0.sync()
        };
        write().map_err(|error| {
            // It was refused, so it must not be sent; what is left keeps no space.
            let _ = self.0.remove(&scratch);
            let _ = self.0.remove(&name);
            failed("write a message")(error)
        })
    }

    /// Writes down how far a message has come.
    pub fn save(&self, id: Id, new: &State) -> Result<(), SpoolError> {
        let record = frame(STATE, new)?;
        let (scratch, name) = (format!("{id}.state.new"), state(id));
        let write = || {
            self.0.write(&scratch, &[&record])?;
            self.0.rename(&scratch, &name)?;
            self.0.sync()
        };
        write().map_err(|error| {
            let _ = self.0.remove(&scratch);
            failed("write a message's state")(error)
        })
    }

    /// The message, as it was put in.
    pub fn message(&self, id: Id, envelope: &Envelope) -> Result<Bytes, SpoolError> {
        let bytes_max = envelope.size.saturating_add((HEADER_BYTES_MAX + RECORD_BYTES_MAX) as u64);
        let bytes = Bytes::from(self.0.read(&mail(id), bytes_max).map_err(failed("read a message"))?);
        let (_, rest) = unframe::<Envelope>(MAIL, &bytes)?;
        let message = bytes.slice(bytes.len() - rest.len()..);
        if message.len() as u64 != envelope.size || digest(&message) != envelope.digest {
            return Err(SpoolError::Corrupt("a message that is not as it was accepted"));
        }
        Ok(message)
    }

    /// Takes a message out of the queue for good.
    pub fn remove(&self, id: Id) -> Result<(), SpoolError> {
        let remove = || {
            self.0.remove(&mail(id))?;
            self.0.sync()?;
            // A state without its message is removed by the next scan at the latest.
            self.0.remove(&state(id))
        };
        remove().map_err(failed("remove a message"))
    }

    /// Gives a message's files another name, for someone to look at.
    pub fn put_aside(&self, id: Id) -> Result<(), SpoolError> {
        self.set_aside(&mail(id), &mut Vec::new())?;
        self.0.sync().map_err(failed("sync the directory"))
    }
}

/// A record with its header line: what it is, its length, its SHA-256.
fn frame<T: Serialize>(kind: &str, record: &T) -> Result<Vec<u8>, SpoolError> {
    let json = serde_json::to_vec(record).map_err(|_| SpoolError::Corrupt("a record that is no JSON"))?;
    if json.len() > RECORD_BYTES_MAX {
        return Err(SpoolError::Corrupt("an envelope over its bound"));
    }
    let mut bytes = format!("{kind} {FORMAT} {} {}\n", json.len(), digest(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads what [`frame`] wrote, and what follows it.
fn unframe<'a, T: DeserializeOwned>(kind: &str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), SpoolError> {
    let broken = SpoolError::Corrupt;
    let head = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let end = head.iter().position(|&byte| byte == b'\n').ok_or(broken("no header"))?;
    let line = std::str::from_utf8(&head[..end]).map_err(|_| broken("no header"))?;
    let mut words = line.strip_prefix(kind).ok_or(broken("another kind of file"))?.split_whitespace();
    let format: u32 = words.next().and_then(|word| word.parse().ok()).ok_or(broken("no format"))?;
    if format > FORMAT {
        return Err(SpoolError::Newer(format));
    }
    let len: usize = words.next().and_then(|word| word.parse().ok()).ok_or(broken("no length"))?;
    let sum = words.next().ok_or(broken("no checksum"))?;
    let rest = &bytes[end + 1..];
    if len > RECORD_BYTES_MAX || rest.get(len) != Some(&b'\n') || digest(&rest[..len]) != sum {
        return Err(broken("a record that does not match its checksum"));
    }
    let record = serde_json::from_slice(&rest[..len]).map_err(|_| broken("a record without its fields"))?;
    Ok((record, &rest[len + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::queue::entry::tests::entry;
    use crate::submission::queue::entry::{Outcome, Standing};
    use crate::submission::queue::files::Directory;
    use crate::submission::queue::paper::Paper;
    use crate::submission::queue::reply::Reply;
    use crate::submission::queue::schedule::Times;

    const MESSAGE: &[u8] = b"From: alice@example.com\r\n\r\nhello\r\n";

    fn letter() -> Entry {
        let mut entry = entry(&["a@x", "b@x"], 1000);
        entry.envelope.size = MESSAGE.len() as u64;
        entry.envelope.digest = digest(MESSAGE);
        entry
    }

    fn id(number: u64) -> Id {
        Id(number)
    }

    #[test]
    fn a_message_comes_back_as_it_was_put_in() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Spool::new(Arc::new(Directory::open(dir.path().join("queue")).unwrap()));
        let spool = open();
        let mut entry = letter();
        spool.put(id(7), &entry.envelope, MESSAGE).unwrap();
        let delivered = vec![(0, Outcome::Delivered(Reply::new(250, "2.0.0 ok")))];
        entry.handle_attempt(delivered, 1000, &Times::default(), 0.0);
        spool.save(id(7), &entry.state).unwrap();

        let scan = open().scan(2000).unwrap();
        assert_eq!(scan.entries.get(&id(7)), Some(&entry));
        assert_eq!(spool.message(id(7), &entry.envelope).unwrap(), MESSAGE);

        spool.remove(id(7)).unwrap();
        spool.remove(id(7)).unwrap();
        assert!(open().scan(2000).unwrap().entries.is_empty());
        assert_eq!(std::fs::read_dir(dir.path().join("queue")).unwrap().count(), 0);
    }

    #[test]
    fn only_this_user_may_read_the_queue() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue");
        Spool::new(Arc::new(Directory::open(path.clone()).unwrap()))
            .put(id(1), &letter().envelope, MESSAGE)
            .unwrap();
        let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.join(mail(id(1)))), 0o600);
        assert_eq!(mode(path), 0o700);
    }

    #[test]
    fn what_is_damaged_is_set_aside_and_the_rest_goes_on() {
        let paper = Arc::new(Paper::default());
        let spool = Spool::new(paper.clone());
        for number in 1..=5 {
            spool.put(id(number), &letter().envelope, MESSAGE).unwrap();
            spool.save(id(number), &letter().state).unwrap();
        }
        paper.edit(&mail(id(1)), |bytes| bytes[40] ^= 1);
        paper.edit(&mail(id(2)), |bytes| bytes.truncate(20));
        paper.edit(&state(id(3)), |bytes| bytes.push(b'x'));
        paper.edit(&mail(id(4)), |bytes| *bytes.last_mut().unwrap() ^= 1);
        paper.edit(&mail(id(5)), |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replacen("mail 1 ", "mail 9 ", 1).into_bytes();
        });
        let scan = spool.scan(0).unwrap();
        assert_eq!(scan.entries.keys().copied().collect::<Vec<_>>(), [id(3), id(4)]);
        assert_eq!(scan.newer, [mail(id(5))]);
        let mut aside = scan.set_aside;
        aside.sort();
        let names = [mail(id(1)), mail(id(2)), state(id(3))];
        assert_eq!(aside, names.map(|name| format!("{name}.corrupt")));
        let read = spool.message(id(4), &letter().envelope);
        assert!(matches!(read, Err(SpoolError::Corrupt(_))), "the message itself is checked when it is read");
        spool.put_aside(id(4)).unwrap();
        assert_eq!(spool.scan(0).unwrap().entries.len(), 1);
        assert!(paper.names().unwrap().contains(&state(id(5))), "what a newer program wrote is left alone");
    }

    /// Kill the process, or the power, at each step of a message's life.
    #[test]
    fn a_cut_at_any_step_loses_nothing_that_was_acknowledged() {
        let mut cuts = 0;
        for seed in 0..40 {
            for steps in 0..60 {
                let paper = Arc::new(Paper::default());
                paper.stop_after(steps);
                let spool = Spool::new(paper.clone());
                let put = spool.put(id(1), &letter().envelope, MESSAGE).is_ok();
                let mut tried = letter();
                tried.handle_attempt(
                    vec![(0, Outcome::Delivered(Reply::new(250, "ok")))],
                    1000,
                    &Times::default(),
                    0.0,
                );
                let saved = spool.save(id(1), &tried.state).is_ok();
                let removing = saved && seed % 2 == 0;
                let removed = removing && spool.remove(id(1)).is_ok();
                let stopped = paper.is_stopped();
                cuts += usize::from(stopped);

                // A kill leaves what was written; a power cut only what was synced, and some of the rest.
                let left = Arc::new(if seed < 4 { paper.after_kill() } else { paper.after_power_cut(seed) });
                let spool = Spool::new(left);
                let scan = spool.scan(2000).unwrap();
                let found = scan.entries.get(&id(1));
                if removed {
                    assert_eq!(found, None);
                } else if put && !removing {
                    let found = found.expect("an acknowledged message is lost");
                    assert_eq!(spool.message(id(1), &found.envelope).unwrap(), MESSAGE);
                    assert!(scan.set_aside.is_empty(), "a cut leaves nothing half written: {scan:?}");
                    let state = if saved { &tried.state } else { &found.state };
                    assert_eq!(&found.state, state, "what was written down is lost");
                }
                if let Some(found) = found {
                    assert_eq!(spool.message(id(1), &found.envelope).unwrap(), MESSAGE, "half a message");
                    assert!(found.is_waiting() && found.state.recipients[1].standing == Standing::Waiting);
                }
                if !stopped {
                    break;
                }
            }
        }
        assert!(cuts > 40 * 7, "{cuts}");
    }

    #[test]
    fn a_full_disk_refuses_the_message_and_keeps_nothing_of_it() {
        let paper = Arc::new(Paper::default());
        let spool = Spool::new(paper.clone());
        paper.set_full(true);
        assert!(matches!(spool.put(id(1), &letter().envelope, MESSAGE), Err(SpoolError::Full)));
        paper.set_full(false);
        assert!(paper.names().unwrap().is_empty());
        spool.put(id(1), &letter().envelope, MESSAGE).unwrap();
        paper.set_full(true);
        assert!(matches!(spool.save(id(1), &letter().state), Err(SpoolError::Full)));
        spool.remove(id(1)).unwrap();
        assert!(spool.scan(0).unwrap().entries.is_empty());
    }
}
