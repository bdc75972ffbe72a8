//! Mail from and to other servers: `directpush-be export` and `import`, as Maildir or mbox.
//!
//! The command reads and writes the files, as whoever runs it; the mailboxes are reached step by step, by the administrator's
//! socket of a running server or in the store itself. A step is an [`Order`], and messages are the bytes
//! behind its line. So an interruption at any moment leaves whole steps, and the same command again goes on from there.
//!
//! Here is what the mailbox's side does. Not here: files (`source`, `target`), what is asked in which order (`import`, `export`).

pub mod export;
pub mod import;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use directpush_common::dav::hierarchy::Class;
use directpush_common::names::UserName;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::admin::{self, Administered, Answer, Order};
use crate::error::{Error, WithCauses};
use crate::mailbox::Mailboxes;
use crate::mailbox::folders::DEPTH_MAX;
use crate::mailbox::import::{ImportKey, NewImport};
use crate::mailbox::items::ItemName;
use crate::store::BodyId;

/// Messages of one step, at most.
pub const STEP_MESSAGES_MAX: usize = 64;
/// Bytes of messages of one step, at most, unless it is one message.
pub const STEP_BYTES_MAX: u64 = 8 << 20;
/// Items listed at a time.
const PAGE: usize = 500;

/// One step.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A mailbox's folders.
    Folders { user: String },
    /// The items of a folder after one (0: from the first).
    Items { user: String, folder: u64, after: u64 },
    /// These items' messages.
    Messages { user: String, folder: u64, ids: Vec<u64> },
    /// Makes a folder, if it is not there.
    Folder { user: String, path: Vec<String> },
    /// Which of these were imported before.
    Known { user: String, keys: Vec<String>, anew: bool },
    /// Adds the messages that follow to a folder.
    Add { user: String, path: Vec<String>, messages: Vec<Letter>, anew: bool },
}

/// A message to be added; its bytes follow the step, in the order of the letters.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    /// 32 hex digits.
    pub key: String,
    pub size: u64,
    /// When it was received, Unix seconds.
    pub date: i64,
    pub read: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub marks: String,
}

/// What came of a step.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    Folders(Vec<Folder>),
    Items {
        items: Vec<Listed>,
        more: bool,
    },
    /// The sizes of the messages that follow; none for an item that is gone.
    Messages(Vec<Option<u64>>),
    Made,
    Known(Vec<bool>),
    /// Of the messages, from the first: how many were looked at, and added. Those after them were refused for this reason.
    Added {
        done: usize,
        added: usize,
        refused: Option<String>,
    },
}

/// A folder, for an export.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Folder {
    pub id: u64,
    pub path: Vec<String>,
    /// It holds mail.
    pub mail: bool,
    pub items: u64,
    /// What it holds that is no item of its class.
    pub files: u64,
}

/// An item, for an export.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Listed {
    pub id: u64,
    pub size: u64,
    pub date: i64,
    pub read: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub marks: String,
}

/// Who carries steps out: a server, or a store without one.
pub trait Desk {
    /// One step with the bytes that go with it; what came of it, and bytes.
    fn order(&self, order: Order, payload: Bytes) -> impl Future<Output = Result<(Answer, Bytes), String>>;
}

impl Desk for Administered {
    async fn order(&self, order: Order, payload: Bytes) -> Result<(Answer, Bytes), String> {
        match admin::execute_with(self, order, payload).await {
            (Answer::Refused(why), _) => Err(why),
            answer => Ok(answer),
        }
    }
}

impl Step {
    /// Bytes that follow it.
    pub fn payload_bytes(&self) -> u64 {
        match self {
            Self::Add { messages, .. } => {
                messages.iter().fold(0, |sum, letter| letter.size.saturating_add(sum))
            }
            _ => 0,
        }
    }
}

/// Takes a step to the desk.
async fn take(desk: &impl Desk, step: Step, payload: Bytes) -> Result<(Told, Bytes), String> {
    match desk.order(Order::Migrate { step }, payload).await? {
        (Answer::Migrated(told), bytes) => Ok((told, bytes)),
        _ => Err(UNEXPECTED.into()),
    }
}

const UNEXPECTED: &str = "the server answered something else";

/// Carries a step out.
pub async fn carry_out(
    boxes: &Arc<Mailboxes>,
    step: Step,
    payload: Bytes,
    mail_bytes_max: u64,
) -> Result<(Told, Bytes), String> {
    let told = |error: Error| WithCauses(&error).to_string();
    let none = Bytes::new();
    match step {
        Step::Folders { user } => {
            let state = boxes.state(mailbox(boxes, &user).await?).await.map_err(told)?;
            let folders = state.tree.iter().filter_map(|(id, folder)| {
                let path = state.tree.path(id)?.into_iter().map(str::to_owned).collect();
                let (mail, items) = (folder.class == Class::Email, folder.count);
                Some(Folder { id, path, mail, items, files: folder.held.files })
            });
            Ok((Told::Folders(folders.collect()), none))
        }
        Step::Items { user, folder, after } => {
            let mailbox = mailbox(boxes, &user).await?;
            let items = boxes.oldest(mailbox, folder, after, PAGE).await.map_err(told)?;
            let more = items.len() == PAGE;
            let listed = |(id, item): (u64, crate::mailbox::record::Item)| Listed {
                id,
                size: item.size,
                date: item.date,
                read: item.read,
                marks: item.marks,
            };
            Ok((Told::Items { items: items.into_iter().map(listed).collect(), more }, none))
        }
        Step::Messages { user, folder, ids } => {
            if ids.len() > STEP_MESSAGES_MAX {
                return Err("too many messages in one step".into());
            }
            messages(boxes, mailbox(boxes, &user).await?, folder, &ids, mail_bytes_max).await.map_err(told)
        }
        Step::Folder { user, path } => {
            let mailbox = mailbox(boxes, &user).await?;
            boxes.mail_folder(mailbox, &checked(path)?).await.map_err(told)?;
            Ok((Told::Made, none))
        }
        Step::Known { user, keys, anew } => {
            if keys.len() > STEP_MESSAGES_MAX {
                return Err("too many messages in one step".into());
            }
            let keys: Vec<ImportKey> = keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
            let known = boxes.imported(mailbox(boxes, &user).await?, &keys, anew).await.map_err(told)?;
            Ok((Told::Known(known), none))
        }
        Step::Add { user, path, messages, anew } => {
            let letters = letters(messages, payload, mail_bytes_max)?;
            let mailbox = mailbox(boxes, &user).await?;
            let folder = boxes.mail_folder(mailbox, &checked(path)?).await.map_err(told)?;
            Ok((add(boxes, mailbox, folder, letters, anew).await.map_err(told)?, none))
        }
    }
}

async fn mailbox(boxes: &Mailboxes, user: &str) -> Result<u64, String> {
    let name: UserName = user.parse().map_err(|error| format!("{user:?} cannot be a user: {error}"))?;
    let account = boxes.users.account(&name).await.map_err(|error| WithCauses(&error).to_string())?;
    let missing = || format!("there is no user {name}: make one first with `directpush-be user add`");
    account.map(|account| account.mailbox).ok_or_else(missing)
}

fn key(text: &str) -> Result<ImportKey, String> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| "a key of an import has 32 hex digits".into())
}

/// Folder names are segments of URLs, too.
fn checked(path: Vec<String>) -> Result<Vec<String>, String> {
    if path.is_empty() || path.len() > DEPTH_MAX {
        return Err("the folders are nested too deep".into());
    }
    for name in &path {
        let ok =
            directpush_common::names::check(name).is_ok() && name.len() <= crate::dav::path::NAME_BYTES_MAX;
        if !ok {
            return Err(format!("{name:?} cannot be a folder's name"));
        }
    }
    Ok(path)
}

async fn messages(
    boxes: &Arc<Mailboxes>,
    mailbox: u64,
    folder: u64,
    ids: &[u64],
    mail_bytes_max: u64,
) -> Result<(Told, Bytes), Error> {
    let state = boxes.state(mailbox).await?;
    let bound = mail_bytes_max.max(STEP_BYTES_MAX);
    let (mut sizes, mut all) = (Vec::new(), BytesMut::new());
    for &id in ids {
        let found = boxes.member_if_there(&state, mailbox, folder, &ItemName::Id(id)).await?;
        let Some(member) = found else {
            sizes.push(None);
            continue;
        };
        if !all.is_empty() && all.len() as u64 + member.item.size > bound {
            // More than was asked for, by what changed meanwhile: the next step asks again.
            break;
        }
        let bytes = boxes.store.bodies.get(BodyId(member.item.body)).await?;
        sizes.push(Some(bytes.len() as u64));
        all.extend_from_slice(&bytes);
    }
    Ok((Told::Messages(sizes), all.freeze()))
}

/// The messages of a step, each with its bytes.
fn letters(
    letters: Vec<Letter>,
    mut payload: Bytes,
    mail_bytes_max: u64,
) -> Result<Vec<(ImportKey, Letter, Bytes)>, String> {
    if letters.len() > STEP_MESSAGES_MAX {
        return Err("too many messages in one step".into());
    }
    let mut all = Vec::with_capacity(letters.len());
    for letter in letters {
        let size = usize::try_from(letter.size).unwrap_or(usize::MAX);
        if letter.size > mail_bytes_max {
            return Err(format!("a message is larger than mail_bytes ({mail_bytes_max})"));
        }
        if size > payload.len() || letter.marks.len() > directpush_common::mail::marks::MARKS_BYTES_MAX {
            return Err("a step is malformed".into());
        }
        all.push((key(&letter.key)?, letter, payload.split_to(size)));
    }
    Ok(all)
}

/// Adds messages: all in one commit, or, where that is refused, one after the other up to the first that is.
async fn add(
    boxes: &Arc<Mailboxes>,
    mailbox: u64,
    folder: u64,
    letters: Vec<(ImportKey, Letter, Bytes)>,
    anew: bool,
) -> Result<Told, Error> {
    let keys: Vec<ImportKey> = letters.iter().map(|(key, ..)| *key).collect();
    let known = boxes.imported(mailbox, &keys, anew).await?;
    let mut puts = JoinSet::new();
    for (at, (_, _, bytes)) in letters.iter().enumerate().filter(|(at, _)| !known[*at]) {
        let (store, bytes) = (boxes.store.clone(), bytes.clone());
        puts.spawn(async move { (at, store.bodies.put(bytes).await) });
    }
    let (mut bodies, mut failed) = (vec![None; letters.len()], None);
    while let Some(done) = puts.join_next().await {
        match done {
            Ok((at, Ok(body))) => bodies[at] = Some(body),
            Ok((_, Err(error))) => failed = Some(Error::from(error)),
            Err(_) => failed = Some(Error::Task),
        }
    }
    let drop_all =
        |bodies: &[Option<BodyId>]| bodies.iter().flatten().for_each(|body| boxes.body_dropped(*body));
    if let Some(error) = failed {
        drop_all(&bodies);
        return Err(error);
    }
    let new = |at: usize| {
        let (key, Letter { size, date, read, marks, .. }, _) = &letters[at];
        let (size, date, read, marks) = (*size, *date, *read, marks.clone());
        bodies[at].map(|body| NewImport { key: *key, body, size, date, read, marks })
    };
    let whole: Vec<NewImport> = (0..letters.len()).filter_map(new).collect();
    let mut added = 0;
    match import(boxes, mailbox, folder, whole, anew).await {
        Ok(count) => added += count,
        Err(Error::Quota(_)) if letters.len() > 1 => {
            for at in 0..letters.len() {
                let Some(one) = new(at) else { continue };
                match import(boxes, mailbox, folder, vec![one], anew).await {
                    Ok(count) => added += count,
                    Err(error) => {
                        drop_all(&bodies[at..]);
                        return refused(at, added, error);
                    }
                }
            }
        }
        Err(error) => {
            drop_all(&bodies);
            return refused(0, 0, error);
        }
    }
    Ok(Told::Added { done: letters.len(), added, refused: None })
}

fn refused(done: usize, added: usize, error: Error) -> Result<Told, Error> {
    match error {
        Error::Quota(exceeded) => Ok(Told::Added { done, added, refused: Some(exceeded.to_string()) }),
        error => Err(error),
    }
}

async fn import(
    boxes: &Arc<Mailboxes>,
    mailbox: u64,
    folder: u64,
    new: Vec<NewImport>,
    anew: bool,
) -> Result<usize, Error> {
    let bodies: Vec<BodyId> = new.iter().map(|new| new.body).collect();
    let added = boxes.import(mailbox, folder, new, anew).await?;
    // Another import was faster.
    let unused = bodies.iter().zip(&added).filter(|(_, added)| !**added);
    unused.for_each(|(body, _)| boxes.body_dropped(*body));
    Ok(added.into_iter().filter(|added| *added).count())
}
