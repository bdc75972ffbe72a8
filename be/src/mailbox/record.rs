//! The mailbox's records as bytes: what the index keeps under each key of `keys`.
//!
//! A record opens with its format version, then fields in a fixed order: numbers as LEB128
//! varints, text and bytes with their length before them. Small on purpose: a delivered message
//! costs about 60 bytes here, and an engine that copies values does so cheaply.
//!
//! Not here: how a field is written (`codec`), what the fields mean for the protocol (`mailbox`), and where they are
//! kept (`store`).

use directpush_common::change::Maker;
use directpush_common::dav::hierarchy::Class;
use directpush_common::names::Guid;

use super::codec::{Reader, Writer, class_code, class_from_code};
use super::kind::Kind;
use super::quota::QuotaEdit;

/// A record that cannot be read: damage below us, or a newer format.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record ends too early")]
    Short,
    #[error("record format {0} is not known here; was this store written by a newer version?")]
    Version(u8),
    #[error("field {0} does not make sense")]
    Field(&'static str),
}

/// What the mailbox as a whole knows: its generation and its counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// The installation's GUID, kept from birth: folder ids are made of it.
    pub installation: Guid,
    /// The mailbox's generation, random at birth; part of every token.
    pub epoch: u64,
    /// The last change number given out.
    pub last: u64,
    /// The number of the last change of the folder tree.
    pub hierarchy: u64,
    /// The counter that the next folder gets.
    pub next_folder: u64,
    /// Grows with every write to a device's state objects.
    pub device_states: u64,
    /// What of the quota is this mailbox's own; the rest is the configuration's.
    pub quota: QuotaEdit,
}

/// A folder and its head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// Counter of the folder above; [`super::folders::ROOT`] for those at the top.
    pub parent: u64,
    /// The EAS folder type ([MS-ASCMD] 2.2.3.186.3 Type (FolderSync)).
    pub kind: u8,
    pub class: Class,
    pub name: String,
    /// Hierarchy number at which it was made.
    pub created: u64,
    /// Hierarchy number of its last change of name or place.
    pub moved: u64,
    /// The highest number of any change in it.
    pub changed: u64,
    /// The highest number of an addition to it.
    pub added: u64,
    /// Live items in it, and those of them that are unread.
    pub count: u64,
    pub unread: u64,
    /// Tokens below this number are too old: tombstones were dropped up to it.
    pub forgotten: u64,
    /// When it was made, Unix seconds.
    pub date: i64,
    /// What it holds beside its items, and in all.
    pub held: Held,
}

/// What a folder itself holds, members of its subfolders not included. Written with every change of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Members that are no items of the folder's class.
    pub files: u64,
    /// Bytes of all members.
    pub bytes: u64,
    /// Bytes of dead properties, of the folder and of all members.
    pub property_bytes: u64,
    /// Bytes of the folder's own dead properties, part of `property_bytes`.
    pub own_property_bytes: u64,
    /// False for a record of the first format: it has to be counted before it is used.
    pub counted: bool,
}

impl Held {
    /// A new folder's.
    pub const NOTHING: Self =
        Self { files: 0, bytes: 0, property_bytes: 0, own_property_bytes: 0, counted: true };
}

/// An item in its folder. Its id (the number of its addition) is in the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    pub changed: u64,
    /// The last change made by anyone but the maker of the last change; 0 = none.
    pub before: u64,
    pub maker: Maker,
    pub added: Maker,
    /// When it was received, Unix seconds.
    pub date: i64,
    /// When it was last changed, Unix seconds.
    pub modified: i64,
    pub size: u64,
    pub read: bool,
    pub body: [u8; 16],
    pub content_type: String,
    /// The name it was given; without one it goes by `<item section>.eml`.
    pub name: Option<String>,
    /// What it is; decides in which folders it is an item.
    pub kind: Kind,
    /// Bytes of its dead properties; 0 = it has none.
    pub property_bytes: u64,
    /// What phones keep with it: a JSON object that is not looked into; empty if nothing.
    pub marks: String,
    /// The number of the last change of its bytes; 0 = they are those that were added.
    pub content: u64,
}

/// One line of a folder's change log, kept under the number of the change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogEntry {
    /// The last change of this item, which is there.
    Live(u64),
    /// The item left the folder, through this maker; it had been received then (Unix seconds).
    Removed { item: u64, maker: Maker, date: i64 },
}

/// A device state object: `AutdState.xml`, a Sync state, … Its bytes are kept under a key of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateObject {
    /// The mailbox's `device_states` at its last write; its `ETag`.
    pub revision: u64,
    pub content_type: String,
    pub modified: i64,
    pub size: u64,
}

/// A user as the store keeps them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch by itself")]
pub struct User {
    pub mailbox: u64,
    /// argon2id, PHC string.
    pub hash: String,
    /// Grows with every change of password or switches; act-for tokens name it.
    pub version: u32,
    pub push: bool,
    pub sync: bool,
    pub disabled: bool,
    /// When the user was made, Unix seconds.
    pub created: i64,
    /// How the person is called; empty = nobody said.
    pub display_name: String,
    /// Not shown in the directory.
    pub hidden: bool,
    /// The own password is no good for devices.
    pub device_passwords_only: bool,
    /// The policy for the user's devices: empty = the default one.
    pub policy: String,
}

/// A type that is kept in the index.
pub trait Record: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

impl Record for Head {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(&self.installation.0);
        for n in [self.epoch, self.last, self.hierarchy, self.next_folder, self.device_states] {
            out.number(n);
        }
        // Only where there is something to say: a head without is byte for byte what it was before quotas.
        if self.quota != QuotaEdit::default() {
            for limit in self.quota.fields() {
                out.number(limit.map_or(0, |limit| limit.saturating_add(1)));
            }
        }
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        let mut head = Self {
            installation: Guid(from.array()?),
            epoch: from.number()?,
            last: from.number()?,
            hierarchy: from.number()?,
            next_folder: from.number()?,
            device_states: from.number()?,
            quota: QuotaEdit::default(),
        };
        if !from.ended() {
            for limit in head.quota.fields_mut() {
                *limit = from.number()?.checked_sub(1);
            }
        }
        Ok(head)
    }
}

impl Record for Folder {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.parent);
        out.byte(self.kind);
        out.byte(class_code(self.class));
        out.text(&self.name);
        for n in [self.created, self.moved, self.changed, self.added, self.count, self.unread, self.forgotten]
        {
            out.number(n);
        }
        out.signed(self.date);
        let held = &self.held;
        for n in [held.files, held.bytes, held.property_bytes, held.own_property_bytes] {
            out.number(n);
        }
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        let mut folder = Self {
            parent: from.number()?,
            kind: from.byte()?,
            class: class_from_code(from.byte()?).ok_or(RecordError::Field("class"))?,
            name: from.text()?,
            created: from.number()?,
            moved: from.number()?,
            changed: from.number()?,
            added: from.number()?,
            count: from.number()?,
            unread: from.number()?,
            forgotten: from.number()?,
            date: from.signed()?,
            held: Held { counted: false, ..Held::NOTHING },
        };
        if !from.ended() {
            folder.held = Held {
                files: from.number()?,
                bytes: from.number()?,
                property_bytes: from.number()?,
                own_property_bytes: from.number()?,
                counted: true,
            };
        }
        Ok(folder)
    }
}

impl Record for Item {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.changed);
        out.number(self.before);
        out.maker(&self.maker);
        out.maker(&self.added);
        out.signed(self.date);
        out.signed(self.modified);
        out.number(self.size);
        out.byte(u8::from(self.read));
        out.raw(&self.body);
        out.text(&self.content_type);
        out.text(self.name.as_deref().unwrap_or(""));
        out.byte(self.kind.code());
        out.number(self.property_bytes);
        // Only where there is something to say: most mail is never marked nor replaced.
        if !self.marks.is_empty() || self.content != 0 {
            out.text(&self.marks);
            out.number(self.content);
        }
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        let mut item = Self {
            changed: from.number()?,
            before: from.number()?,
            maker: from.maker()?,
            added: from.maker()?,
            date: from.signed()?,
            modified: from.signed()?,
            size: from.number()?,
            read: from.byte()? == 1,
            body: from.raw()?,
            content_type: from.text()?,
            name: Some(from.text()?).filter(|name| !name.is_empty()),
            kind: Kind::Other,
            property_bytes: 0,
            marks: String::new(),
            content: 0,
        };
        if from.ended() {
            item.kind = Kind::of_type(&item.content_type);
        } else {
            item.kind = Kind::from_code(from.byte()?).ok_or(RecordError::Field("kind"))?;
            item.property_bytes = from.number()?;
        }
        if !from.ended() {
            item.marks = from.text()?;
            item.content = from.number()?;
        }
        Ok(item)
    }
}

impl Record for LogEntry {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Live(item) => {
                out.byte(0);
                out.number(*item);
            }
            Self::Removed { item, maker, date } => {
                out.byte(1);
                out.number(*item);
                out.maker(maker);
                out.signed(*date);
            }
        }
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        match from.byte()? {
            0 => Ok(Self::Live(from.number()?)),
            1 => Ok(Self::Removed { item: from.number()?, maker: from.maker()?, date: from.signed()? }),
            _ => Err(RecordError::Field("log entry")),
        }
    }
}

impl Record for StateObject {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.revision);
        out.text(&self.content_type);
        out.signed(self.modified);
        out.number(self.size);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        Ok(Self {
            revision: from.number()?,
            content_type: from.text()?,
            modified: from.signed()?,
            size: from.number()?,
        })
    }
}

impl Record for User {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(self.mailbox);
        out.text(&self.hash);
        out.number(u64::from(self.version));
        for switch in [self.push, self.sync, self.disabled] {
            out.byte(u8::from(switch));
        }
        out.signed(self.created);
        out.text(&self.display_name);
        out.byte(u8::from(self.hidden));
        out.byte(u8::from(self.device_passwords_only));
        out.text(&self.policy);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        let mut user = Self {
            mailbox: from.number()?,
            hash: from.text()?,
            version: u32::try_from(from.number()?).map_err(|_| RecordError::Field("version"))?,
            push: from.byte()? == 1,
            sync: from.byte()? == 1,
            disabled: from.byte()? == 1,
            created: from.signed()?,
            display_name: String::new(),
            hidden: false,
            device_passwords_only: false,
            policy: String::new(),
        };
        if !from.ended() {
            user.display_name = from.text()?;
            user.hidden = from.byte()? == 1;
        }
        if !from.ended() {
            user.device_passwords_only = from.byte()? == 1;
            user.policy = from.text()?;
        }
        Ok(user)
    }
}

/// A bare number: device generations and the like.
impl Record for u64 {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.number(*self);
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Reader::new(bytes)?.number()
    }
}

#[cfg(test)]
mod tests {
    use directpush_common::change::Cause;
    use directpush_common::names::DeviceKey;

    use super::*;

    #[track_caller]
    fn round<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
        let bytes = record.encode();
        assert_eq!(R::decode(&bytes).unwrap(), *record);
        for cut in 0..bytes.len() {
            // A torn record is an error or another value, never a panic.
            let _ = R::decode(&bytes[..cut]);
        }
    }

    #[test]
    fn records_read_back_as_written() {
        round(&Head {
            installation: Guid([7; 16]),
            epoch: u64::MAX,
            last: 300,
            hierarchy: 1,
            next_folder: 16,
            device_states: 0,
            quota: QuotaEdit { bytes: Some(u64::MAX - 1), items: Some(0), ..QuotaEdit::default() },
        });
        let device: DeviceKey = "PocketPC/6F24CAD5".parse().unwrap();
        let item = Item {
            changed: 12,
            before: 11,
            maker: Maker { device: Some(device), cause: Cause::Sync },
            added: Maker { device: None, cause: Cause::Delivery },
            date: -5,
            modified: i64::MAX,
            size: 1 << 40,
            read: true,
            body: [9; 16],
            content_type: "message/rfc822".into(),
            name: Some("Grüße.eml".into()),
            kind: Kind::Message,
            property_bytes: 300,
            marks: "{\"verb\":1}".into(),
            content: 12,
        };
        round(&item);
        round(&Item { marks: String::new(), content: 0, ..item.clone() });
        round(&Item { name: None, ..item });
        round(&LogEntry::Live(5));
        let maker = Maker { device: None, cause: Cause::Dav };
        round(&LogEntry::Removed { item: 5, maker, date: 7 });
        round(&u64::MAX);
    }

    #[test]
    fn records_of_the_first_format_are_read() {
        let item = Item {
            changed: 3,
            before: 0,
            maker: Maker::of(Cause::Dav),
            added: Maker::of(Cause::Dav),
            date: 1,
            modified: 2,
            size: 5,
            read: false,
            body: [1; 16],
            content_type: "text/vcard; charset=utf-8".into(),
            name: None,
            kind: Kind::Contact,
            property_bytes: 0,
            marks: String::new(),
            content: 0,
        };
        let bytes = item.encode();
        assert_eq!(Item::decode(&bytes[..bytes.len() - 2]).unwrap(), item);
        let folder = super::super::folders::defaults(7).remove(&2).unwrap();
        let bytes = folder.encode();
        assert_eq!(Folder::decode(&bytes).unwrap(), folder);
        assert!(!Folder::decode(&bytes[..bytes.len() - 4]).unwrap().held.counted);
    }

    #[test]
    fn a_newer_format_is_named() {
        assert!(matches!(u64::decode(&[2, 0]), Err(RecordError::Version(2))));
    }
}
