//! What happened to an item, and who did it: the entry of a folder's change log.
//!
//! A folder's log holds exactly one entry per item, at the number of its last change, and one tombstone
//! per item that left. The wake rule and Sync planning read nothing else.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    names::{DeviceKey, ItemId},
    numbers::Number,
};

/// Why a change was made; on the wire `DirectPush-Cause` and in lower case.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Mail came in.
    Delivery,
    /// A DAV client wrote.
    #[default]
    Dav,
    /// A device uploaded it in its own Sync.
    Sync,
    /// A device's MoveItems.
    Move,
    /// The copy that SendMail keeps in Sent Items.
    Send,
    /// The server itself.
    System,
    /// Mail came in that the MTA's filter had marked as spam.
    Junk,
    /// An administrator brought it from another server.
    Import,
}

impl Cause {
    const ALL: [(Self, &str); 8] = [
        (Self::Delivery, "delivery"),
        (Self::Dav, "dav"),
        (Self::Sync, "sync"),
        (Self::Move, "move"),
        (Self::Send, "send"),
        (Self::System, "system"),
        (Self::Junk, "junk"),
        (Self::Import, "import"),
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, text) = Self::ALL[*self as usize];
        f.write_str(text)
    }
}

impl FromStr for Cause {
    type Err = UnknownCause;
    fn from_str(text: &str) -> Result<Self, UnknownCause> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(cause, _)| *cause).ok_or(UnknownCause)
    }
}

/// A cause that this version does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown cause of a change")]
pub struct UnknownCause;

/// Who made a change, and why.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Maker {
    /// The device, if one did.
    pub device: Option<DeviceKey>,
    /// Why.
    pub cause: Cause,
}

impl Maker {
    /// A maker that is no device.
    pub const fn of(cause: Cause) -> Self {
        Self { device: None, cause }
    }

    /// Whether `device` uploaded this in its own Sync. Such a change never wakes it and is not sent back to it;
    /// its MoveItems and its SendMail are not meant ([MS-ASCMD] test case R5636 wants those to wake).
    pub fn is_own_sync_of(&self, device: &DeviceKey) -> bool {
        self.cause == Cause::Sync && self.device.as_ref() == Some(device)
    }
}

/// One entry of a folder's change log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The item; also the number of its addition to this folder.
    pub id: ItemId,
    /// The number of its last change; the entry's place in the log.
    pub changed: Number,
    /// What the entry says.
    pub kind: EntryKind,
}

/// A live item or a tombstone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// The item is here.
    Live(Live),
    /// The item was deleted or moved out.
    Gone(Gone),
}

/// What the log knows of a live item.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Live {
    /// The last change made by anyone but the maker of the last change; 0 if there is none.
    pub before: Number,
    /// Who made the last change.
    pub maker: Maker,
    /// Who added the item.
    pub added: Maker,
    /// When it was received: Unix seconds.
    pub date: i64,
    /// Size in bytes.
    pub size: u64,
    /// The read flag.
    pub read: bool,
    /// What a phone keeps with the item beside its bytes and the read flag:
    /// [`Marks`](crate::mail::marks::Marks) as text, which the back end does not look into; empty if nothing.
    pub marks: String,
    /// The number of the last change of its bytes: that of its addition, unless it was replaced since.
    pub content: Number,
}

/// What the log keeps of an item that left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gone {
    /// Who removed it.
    pub maker: Maker,
    /// When it had been received: Unix seconds. A device that never held it need not hear of it.
    pub date: i64,
}

impl Entry {
    /// When the item was received: Unix seconds.
    pub fn date(&self) -> i64 {
        match &self.kind {
            EntryKind::Live(live) => live.date,
            EntryKind::Gone(gone) => gone.date,
        }
    }

    /// Whether, for somebody who knows the folder as of `base`, this entry only repeats what `device`
    /// itself uploaded in a Sync since.
    pub fn is_own_upload(&self, base: Number, device: &DeviceKey) -> bool {
        match &self.kind {
            // A device that moved an item away knows that it is gone.
            EntryKind::Gone(Gone { maker, .. }) => {
                maker.device.as_ref() == Some(device) && matches!(maker.cause, Cause::Sync | Cause::Move)
            }
            EntryKind::Live(live) if self.id.0 > base => {
                live.added.is_own_sync_of(device)
                    && live.maker.is_own_sync_of(device)
                    && live.before <= self.id.0
            }
            EntryKind::Live(live) => live.maker.is_own_sync_of(device) && live.before <= base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_what_they_write() {
        for (cause, text) in Cause::ALL {
            assert_eq!(cause.to_string(), text);
            assert_eq!(text.parse(), Ok(cause));
        }
        assert!("Delivery".parse::<Cause>().is_err());
    }
}
