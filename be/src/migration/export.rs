//! `directpush-be export`: mailboxes as files of other servers. It may be interrupted and run again: what is there is not written
//! again, and flags that changed are made good. Mail only; what else folders hold is counted and left out.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use directpush_common::mail::maildir::Flags;
use directpush_common::mail::marks::{FlagStatus, Marks, VerbKind};
use directpush_common::names::encode_segment;

use super::target::{Format, Named, Open, Target};
use super::{Desk, Folder, Listed, STEP_BYTES_MAX, STEP_MESSAGES_MAX, Step, Told, UNEXPECTED, take};
use crate::maintenance::Bar;
use crate::store::Progress;

pub use super::target::Format as ExportFormat;

/// The default folder for what is not sent yet.
const DRAFTS: &str = "Drafts";

/// What was exported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Exported {
    pub users: u64,
    pub folders: u64,
    /// Messages that are there now.
    pub messages: u64,
    /// Of those, the ones that were written by this run, and their bytes.
    pub written: u64,
    pub bytes: u64,
    /// Items and files that are no mail.
    pub left_out: u64,
}

/// Exports users, each into a directory of `target` that is called as they are.
///
/// # Errors
/// A step is refused, or a file cannot be written.
pub async fn export(
    desk: &impl Desk,
    users: &[String],
    target: &Path,
    format: Format,
    mut watch: Bar,
) -> Result<Exported, String> {
    let mut exported = Exported::default();
    let mut total = 0;
    let mut all = Vec::new();
    for user in users {
        let folders = folders(desk, user).await?;
        total += folders.iter().filter(|folder| folder.mail).map(|folder| folder.items).sum::<u64>();
        all.push((user, folders));
    }
    for (user, folders) in all {
        let dir = target.join(encode_segment(user));
        let mut place = Target::new(&dir, format);
        exported.users += 1;
        for folder in folders {
            exported.left_out += folder.files;
            if !folder.mail {
                exported.left_out += folder.items;
                continue;
            }
            let one = One { desk, user, folder: &folder, dir: &dir };
            one.export(&mut place, &mut exported, &mut |done| {
                watch.show(Progress { phase: "export", done, total: total.max(done) });
            })
            .await?;
        }
    }
    Ok(exported)
}

/// A mailbox's folders; those above come before those below.
async fn folders(desk: &impl Desk, user: &str) -> Result<Vec<Folder>, String> {
    let (Told::Folders(mut folders), _) =
        take(desk, Step::Folders { user: user.into() }, Bytes::new()).await?
    else {
        return Err(UNEXPECTED.into());
    };
    folders.sort_by_key(|folder| (folder.path.len(), folder.id));
    Ok(folders)
}

/// One folder of one user.
struct One<'a, D> {
    desk: &'a D,
    user: &'a str,
    folder: &'a Folder,
    dir: &'a PathBuf,
}

impl<D: Desk> One<'_, D> {
    async fn export(
        &self,
        place: &mut Target,
        exported: &mut Exported,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), String> {
        let (user, folder) = (self.user.to_owned(), self.folder.id);
        let cannot = |error: std::io::Error| format!("cannot write below {}: {error}", self.dir.display());
        let mut open = place.open(folder, &self.folder.path).map_err(cannot)?;
        exported.folders += 1;
        let mut after = 0;
        loop {
            let step = Step::Items { user: user.clone(), folder, after };
            let (Told::Items { items, more }, _) = take(self.desk, step, Bytes::new()).await? else {
                return Err(UNEXPECTED.into());
            };
            after = items.last().map_or(after, |item| item.id);
            let mut wanted: Vec<Listed> = Vec::new();
            for item in items {
                if open.has(&self.named(&item), item.size).map_err(cannot)? {
                    exported.messages += 1;
                } else {
                    wanted.push(item);
                }
            }
            let mut left = &wanted[..];
            while !left.is_empty() {
                let taken = self.messages(left, &mut open, exported).await?;
                left = &left[taken..];
                tell(exported.messages);
            }
            tell(exported.messages);
            if !more {
                return open.close().map_err(cannot);
            }
        }
    }

    /// Writes the next messages, and says how many of the wanted are settled.
    async fn messages(
        &self,
        wanted: &[Listed],
        open: &mut Open,
        exported: &mut Exported,
    ) -> Result<usize, String> {
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for item in wanted.iter().take(STEP_MESSAGES_MAX) {
            bytes += item.size;
            if !ids.is_empty() && bytes > STEP_BYTES_MAX {
                break;
            }
            ids.push(item.id);
        }
        let step = Step::Messages { user: self.user.into(), folder: self.folder.id, ids };
        let (Told::Messages(sizes), mut payload) = take(self.desk, step, Bytes::new()).await? else {
            return Err(UNEXPECTED.into());
        };
        if sizes.is_empty() {
            return Err(UNEXPECTED.into());
        }
        for (item, size) in wanted.iter().zip(&sizes) {
            // Deleted or moved meanwhile.
            let Some(size) = size else { continue };
            let size = usize::try_from(*size).unwrap_or(usize::MAX);
            if size > payload.len() {
                return Err(UNEXPECTED.into());
            }
            let message = payload.split_to(size);
            let written = open.write(&self.named(item), &message);
            written.map_err(|error| format!("cannot write below {}: {error}", self.dir.display()))?;
            exported.messages += 1;
            exported.written += 1;
            exported.bytes += message.len() as u64;
        }
        Ok(sizes.len())
    }

    fn named(&self, item: &Listed) -> Named {
        let draft = self.folder.path == [DRAFTS];
        Named { folder: self.folder.id, id: item.id, date: item.date, flags: flags(item, draft) }
    }
}

/// The flags of a message: read, and what of its marks others know.
fn flags(item: &Listed, draft: bool) -> Flags {
    let marks = Marks::from_text(&item.marks);
    let verb = marks.verb.map(|verb| verb.kind);
    Flags {
        draft,
        flagged: marks.flag.is_some_and(|flag| flag.status == FlagStatus::Active),
        passed: verb == Some(VerbKind::Forward),
        replied: matches!(verb, Some(VerbKind::Reply | VerbKind::ReplyAll)),
        seen: item.read,
        trashed: false,
    }
}
