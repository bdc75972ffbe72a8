//! The device's state objects in its user's mailbox, as JSON with a version.
//!
//! A front end reads versions n and n−1 of each and writes version n. Each object is O(1): two keys and a few
//! numbers, however many items the device holds.

use serde::{Deserialize, Serialize};

use crate::numbers::{CollectionToken, Number};

/// Version of the objects that this code writes.
pub const STATE_VERSION: u32 = 1;

/// A state object that cannot be used: the device starts over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a state object of version {0}, which this front end does not read")]
pub struct UnknownVersion(pub u32);

/// What the device was told under one SyncKey of a collection.
///
/// The device holds every item that passes `floor`, has an id up to `through`, and lies not below the walk's `before` (while
/// there is a walk), in the state of `base` or a later one. Ids and log positions are two numbers, because an item that is
/// changed before it was sent moves up in the log, but keeps its id.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct KeyState {
    /// The number in the SyncKey; it only grows, also when the device starts over at 0.
    pub key: u32,
    /// The folder's state that the device knows; none = nothing yet.
    pub base: Option<CollectionToken>,
    /// Every addition up to this id was sent. Equal to the number of `base` unless `more`.
    #[serde(default)]
    pub through: Number,
    /// The part of the folder that is still to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// Whether additions beyond `through` or changes beyond `base` were left for the next response.
    #[serde(default)]
    pub more: bool,
    /// While `more`: the number of `base` when the changes now being sent began. An own upload in their midst moves its
    /// item up in the log, beyond what somebody else did to it; so what the device knows of an item is of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Number>,
    /// Unix seconds: items received before are not on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<i64>,
    /// FilterType that `floor` was made from.
    #[serde(default)]
    pub filter: u8,
    /// Options that last until the device sends others; the front end's own form.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// ClientId and ServerId of the items that the device added in the request that led to this key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<(String, String)>,
}

/// A walk down the items from the newest, begun by a first Sync or a changed filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// Items with a smaller id are still to be looked at; 0 = from the newest.
    pub before: Number,
    /// The filter before: which of those items the device holds. None = none of them (a first Sync).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<OldFloor>,
}

/// The floor that was in force before a filter changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct OldFloor {
    /// Unix seconds; none = everything.
    pub floor: Option<i64>,
}

impl KeyState {
    /// Whether the next Sync would bring something already known: Ping answers 2 at once.
    pub fn is_pending(&self) -> bool {
        self.more || self.walk.is_some()
    }
}

/// `Collection-<counter>`: the Sync state of one collection of one device.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct CollectionState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The key returned last.
    pub current: KeyState,
    /// The key before it, kept until the device proves by a Sync that it has the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyState>,
    /// The device's last request that may be repeated without a body had the current key. See
    /// [`CollectionState::repeated_key`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

/// From where a Sync request goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resume {
    /// The device has the current key.
    Current(KeyState),
    /// The last response did not reach the device: go on from the key before.
    Replay(KeyState),
    /// Neither: Status 3, the device starts over.
    Unknown,
}

impl CollectionState {
    /// Checks the version that was read.
    ///
    /// # Errors
    /// [`UnknownVersion`] for an object of a newer format.
    pub fn checked(self) -> Result<Self, UnknownVersion> {
        if (1..=STATE_VERSION).contains(&self.version) { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }

    /// From where a request with `key` (not 0) goes on.
    pub fn resume(&self, key: u32) -> Resume {
        match &self.previous {
            _ if key == self.current.key && key != 0 => Resume::Current(self.current.clone()),
            Some(previous) if key == previous.key => Resume::Replay(previous.clone()),
            _ => Resume::Unknown,
        }
    }

    /// The state after a response that starts the collection over (SyncKey 0).
    #[must_use]
    pub fn started_over(&self, filter: u8, floor: Option<i64>, options: String) -> Self {
        let current = KeyState {
            key: self.current.key.wrapping_add(1).max(1),
            filter,
            floor,
            options,
            ..KeyState::default()
        };
        Self { version: STATE_VERSION, current, previous: None, used: false }
    }

    /// The key of the device's last request, which a request that leaves it out repeats: the current one if that request was
    /// answered with nothing, else the one before, because the answer may not have arrived. 0 = none.
    pub fn repeated_key(&self) -> u32 {
        if self.used { self.current.key } else { self.previous.as_ref().map_or(0, |previous| previous.key) }
    }

    /// The state after a response with a new key made from `from`.
    #[must_use]
    pub fn answered(from: KeyState, mut next: KeyState) -> Self {
        next.key = from.key.wrapping_add(1).max(1);
        Self { version: STATE_VERSION, current: next, previous: Some(from), used: false }
    }

    /// The state after an empty response: the same key knows more. Only for [`Resume::Current`].
    #[must_use]
    pub fn advanced(&self, next: KeyState) -> Self {
        let current = KeyState { key: self.current.key, ..next };
        Self { version: STATE_VERSION, current, previous: self.previous.clone(), used: self.used }
    }
}

/// `FolderSyncFile`: the hierarchy that the device knows.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct FolderSyncState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The key returned last.
    pub key: u32,
    /// The hierarchy number behind it.
    pub hierarchy: Number,
    /// The key before it and its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(u32, Number)>,
    /// Folders that the device itself made or changed after `hierarchy`, by their counters, and the hierarchy number of that
    /// change, 0 for a removal: it need not be told of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<(u64, Number)>,
}

/// Own changes that are remembered; older ones are told to the device again, which does no harm.
const OWN_MAX: usize = 64;

impl FolderSyncState {
    /// Checks the version that was read.
    ///
    /// # Errors
    /// [`UnknownVersion`] for an object of a newer format.
    pub fn checked(self) -> Result<Self, UnknownVersion> {
        if (1..=STATE_VERSION).contains(&self.version) { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }

    /// The hierarchy number that a device with `key` (not 0) knows; `None`: Status 9.
    pub fn known(&self, key: u32) -> Option<Number> {
        match self.previous {
            _ if key == self.key && key != 0 => Some(self.hierarchy),
            Some((previous, number)) if key == previous => Some(number),
            _ => None,
        }
    }

    /// The state after a response that tells a device with `key` (0 = none) about `hierarchy`. Nothing new keeps the
    /// key.
    #[must_use]
    pub fn answered(&self, key: u32, hierarchy: Number) -> Self {
        match self.known(key) {
            Some(known) if known == hierarchy && key == self.key => self.clone(),
            known => Self {
                version: STATE_VERSION,
                key: self.key.max(key).wrapping_add(1).max(1),
                hierarchy,
                previous: known.map(|known| (key, known)),
                own: Vec::new(),
            },
        }
    }

    /// The state after a response to a FolderCreate, FolderUpdate or FolderDelete with `key`, a known one. `own` is the
    /// folder and the hierarchy number of the change, 0 for a removal. `alone` is the mailbox's hierarchy number if
    /// nobody else changed anything since `key`.
    #[must_use]
    pub fn changed(&self, key: u32, own: (u64, Number), alone: Option<Number>) -> Self {
        let known = self.known(key).unwrap_or_default();
        let mut next = Self {
            version: STATE_VERSION,
            key: self.key.max(key).wrapping_add(1).max(1),
            hierarchy: alone.unwrap_or(known),
            previous: Some((key, known)),
            own: Vec::new(),
        };
        if alone.is_none() {
            next.own = if key == self.key { self.own.clone() } else { Vec::new() };
            next.own.retain(|(folder, _)| *folder != own.0);
            next.own.push(own);
            let over = next.own.len().saturating_sub(OWN_MAX);
            next.own.drain(..over);
        }
        next
    }

    /// Whether the device made this change itself.
    pub fn is_own(&self, folder: u64, changed: Number) -> bool {
        self.own.contains(&(folder, changed))
    }
}

/// `Provision`: the policy keys of the device and what it said about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ProvisionState {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The final key; 0 = none yet.
    pub policy_key: u32,
    /// The temporary key that the device has to acknowledge; 0 = none.
    #[serde(default)]
    pub pending_key: u32,
    /// Hash of the policy that `policy_key` stands for; 0 = the one that forbids nothing.
    #[serde(default)]
    pub policy: u32,
    /// Hash of the policy that was offered under `pending_key`.
    #[serde(default)]
    pub pending_policy: u32,
    /// What the device said of its policy (1 applied, 2 in part, 3 not, 4 managed by somebody else); 0 = nothing yet.
    #[serde(default)]
    pub acknowledgement: u8,
    /// The password by which a locked device can be opened, as the device sent it; empty = none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recovery_password: String,
    /// DeviceInformation: names and values as sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub information: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(key: u32) -> KeyState {
        KeyState { key, ..KeyState::default() }
    }

    #[test]
    fn keys_n_and_n_minus_1_are_known_and_no_other() {
        let one = CollectionState::default().started_over(0, None, String::new());
        assert_eq!(one.resume(1), Resume::Current(one.current.clone()));
        assert_eq!(one.resume(0), Resume::Unknown);
        let two = CollectionState::answered(one.current.clone(), KeyState { more: true, ..state(0) });
        assert_eq!((two.current.key, two.current.more), (2, true));
        assert_eq!(two.resume(1), Resume::Replay(one.current.clone()));
        assert_eq!(two.resume(3), Resume::Unknown);
        let again = CollectionState::answered(one.current, state(0));
        assert_eq!(again.current.key, 2, "a replay gives the lost key again");
        let three = CollectionState::answered(two.current, state(0));
        assert_eq!(three.resume(1), Resume::Unknown);
    }

    #[test]
    fn starting_over_never_gives_a_key_again() {
        let one = CollectionState::default().started_over(0, None, String::new());
        let two = CollectionState::answered(one.current, state(0));
        let over = two.started_over(3, Some(5), "x".into());
        assert_eq!((over.current.key, over.current.base, over.previous), (3, None, None));
    }

    #[test]
    fn a_repeated_request_has_the_key_of_the_last_one() {
        let one = CollectionState::default().started_over(0, None, String::new());
        assert_eq!((CollectionState::default().repeated_key(), one.repeated_key()), (0, 0));
        let quiet = CollectionState { used: true, ..one.advanced(state(0)) };
        assert_eq!(quiet.repeated_key(), 1, "answered with nothing");
        assert_eq!(quiet.advanced(state(0)).repeated_key(), 1);
        let two = CollectionState::answered(quiet.current, state(0));
        assert_eq!(two.repeated_key(), 1, "its answer may be lost");
        let json = serde_json::to_string(&CollectionState { used: true, ..two }).unwrap();
        assert_eq!(serde_json::from_str::<CollectionState>(&json).unwrap().repeated_key(), 2);
    }

    #[test]
    fn an_empty_response_keeps_the_key() {
        let one = CollectionState::default().started_over(0, None, String::new());
        let base = Some(CollectionToken { epoch: 1, number: Number(9) });
        let advanced = one.advanced(KeyState { base, ..state(77) });
        assert_eq!((advanced.current.key, advanced.current.base), (1, base));
    }

    #[test]
    fn folder_keys_follow_the_hierarchy() {
        let first = FolderSyncState::default().answered(0, Number(5));
        assert_eq!((first.key, first.known(1), first.known(0)), (1, Some(Number(5)), None));
        assert_eq!(first.answered(1, Number(5)), first, "nothing new keeps the key");
        let second = first.answered(1, Number(6));
        assert_eq!((second.key, second.known(1), second.known(2)), (2, Some(Number(5)), Some(Number(6))));
        let replay = second.answered(1, Number(6));
        assert_eq!((replay.known(1), replay.hierarchy), (Some(Number(5)), Number(6)));
        assert_eq!(second.answered(0, Number(6)).known(1), None);
    }

    #[test]
    fn what_a_device_changes_itself_it_is_not_told_of() {
        let first = FolderSyncState::default().answered(0, Number(5));
        let alone = first.changed(1, (30, Number(6)), Some(Number(6)));
        assert_eq!((alone.key, alone.known(2), alone.known(1)), (2, Some(Number(6)), Some(Number(5))));
        assert!(alone.own.is_empty());
        let beside = first.changed(1, (30, Number(7)), None);
        assert_eq!(beside.known(2), Some(Number(5)), "somebody else's change is still to be told");
        assert!(beside.is_own(30, Number(7)) && !beside.is_own(30, Number(8)));
        let both = beside.changed(2, (31, Number(8)), None);
        assert_eq!(both.own, [(30, Number(7)), (31, Number(8))]);
        assert!(both.answered(3, Number(9)).own.is_empty());
    }

    #[test]
    fn objects_read_what_they_write_and_refuse_the_future() {
        let old = Some(OldFloor { floor: None });
        let state = KeyState {
            walk: Some(Walk { before: Number(7), old }),
            added: vec![("c".into(), "s".into())],
            ..state(3)
        };
        let object = CollectionState::answered(state.clone(), state);
        let json = serde_json::to_string(&object).unwrap();
        assert_eq!(serde_json::from_str::<CollectionState>(&json).unwrap().checked(), Ok(object.clone()));
        assert_eq!(CollectionState { version: 2, ..object }.checked(), Err(UnknownVersion(2)));
        assert!(serde_json::from_str::<CollectionState>("{}").is_err());
    }
}
