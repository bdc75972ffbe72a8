//! Mail that an administrator brings from another server: many messages in one commit, each once.
//!
//! What was imported is on record in the same commit, by a key that the importer makes of folder and content
//! (`migration::import`); so an import that was interrupted, or is run again, adds nothing twice, also not what its user has
//! moved or deleted since. Nobody is woken for each message: the cause is `import`.

use std::sync::Arc;

use directpush_common::change::{Cause, Maker};
use directpush_common::dav::hierarchy::Class;

use super::codec::{Reader, Writer};
use super::folders::{OwnType, ROOT};
use super::items::{Content, new_item};
use super::kind::Kind;
use super::properties::Properties;
use super::record::{Record, RecordError};
use super::{Mailboxes, decode, keys};
use crate::error::Error;
use crate::store::{BodyId, Read};

/// What makes a message of an import the same.
pub type ImportKey = [u8; 16];

/// A message to import, its body durable already.
#[derive(Clone, Debug)]
pub struct NewImport {
    pub key: ImportKey,
    pub body: BodyId,
    pub size: u64,
    /// When it was received, Unix seconds.
    pub date: i64,
    pub read: bool,
    /// As the item keeps them.
    pub marks: String,
}

/// What a message became.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    folder: u64,
    id: u64,
}

impl Record for Place {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.folder);
        out.number(self.id);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        Ok(Self { folder: from.number()?, id: from.number()? })
    }
}

impl Mailboxes {
    /// Which of these were imported before; with `anew`, only those that still are where they were put.
    pub async fn imported(&self, mailbox: u64, keys: &[ImportKey], anew: bool) -> Result<Vec<bool>, Error> {
        let mut read = Read::default();
        for key in keys {
            read = read.get(keys::imported(mailbox, key));
        }
        let found = self.store.index.read(read).await?.gets;
        if !anew {
            return Ok(found.iter().map(Option::is_some).collect());
        }
        let places =
            found.into_iter().map(|bytes| bytes.map(|bytes| decode::<Place>(mailbox, &bytes)).transpose());
        let places: Vec<Option<Place>> = places.collect::<Result<_, _>>()?;
        let mut read = Read::default();
        for place in places.iter().flatten() {
            read = read.get(keys::item(mailbox, place.folder, place.id));
        }
        let mut there = self.store.index.read(read).await?.gets.into_iter();
        Ok(places.iter().map(|place| place.is_some() && there.next().flatten().is_some()).collect())
    }

    /// Adds messages to a folder in one commit, those that were imported before excepted; says which were added.
    pub async fn import(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        new: Vec<NewImport>,
        anew: bool,
    ) -> Result<Vec<bool>, Error> {
        self.write(mailbox, move |mut writer| async move {
            let keys: Vec<ImportKey> = new.iter().map(|new| new.key).collect();
            let known = writer.boxes.imported(mailbox, &keys, anew).await?;
            let mut draft = writer.draft();
            let kind = Kind::of_class(draft.folder(folder)?.class);
            for (new, _) in new.iter().zip(&known).filter(|(_, known)| !**known) {
                let content_type = "message/rfc822".into();
                let content = Content { body: new.body, size: new.size, content_type, kind };
                let mut item = new_item(content, new.date, None, new.read);
                item.marks.clone_from(&new.marks);
                let id = draft.add_member(folder, item, Maker::of(Cause::Import), &Properties::default())?;
                draft.put(keys::imported(mailbox, &new.key), Place { folder, id }.encode());
            }
            if known.contains(&false) {
                writer.commit(draft).await?;
            }
            Ok(known.into_iter().map(|known| !known).collect())
        })
        .await
    }

    /// The mail folder of this path, made if it is not there. Where a folder of another class has the name, its mail goes
    /// into one beside it.
    pub async fn mail_folder(self: &Arc<Self>, mailbox: u64, path: &[String]) -> Result<u64, Error> {
        let mut at = ROOT;
        for name in path {
            let state = self.state(mailbox).await?;
            let there = |name: &str| state.tree.child(at, name);
            let is_mail = |child| state.tree.folder(child).is_some_and(|folder| folder.class == Class::Email);
            at = match there(name) {
                Some(child) if is_mail(child) => child,
                taken => {
                    let beside = format!("{name} (mail)");
                    let name = if taken.is_some() { beside } else { name.clone() };
                    if let Some(child) = there(&name) {
                        child
                    } else {
                        let kind = Some(OwnType::of(Class::Email));
                        self.make_folder(mailbox, at, name, kind, None).await?.folder
                    }
                }
            };
        }
        if at == ROOT { Err(Error::Gone("the folder")) } else { Ok(at) }
    }
}
