//! The keys of the index: mailbox number, kind, then what the kind needs, big-endian, so that byte
//! order is the order of numbers.
//!
//! | kind | after it | value |
//! |---|---|---|
//! | head | | [`Head`](super::record::Head) |
//! | folder | counter | [`Folder`](super::record::Folder) |
//! | folder gone | hierarchy number | the counter |
//! | item | folder, id | [`Item`](super::record::Item) |
//! | log | folder, change number | [`LogEntry`](super::record::LogEntry) |
//! | file | folder, id | [`Item`](super::record::Item) of a member that is no item of its folder's class |
//! | properties | folder, id (0: the folder's own) | dead [`Properties`](super::properties::Properties) |
//! | name | folder, folded name | the id of the item or file |
//! | state, state bytes | device, object | [`StateObject`](super::record::StateObject), its bytes |
//! | device | device | the `device_states` number of its last write |
//! | device seen, device decided | device | what it did, what was [decided](crate::devices::record) of it |
//! | device password | number | [`DevicePassword`](crate::auth::device_passwords::DevicePassword) |
//! | seen | window of time, hash of a Message-ID | when it was delivered, Unix seconds |
//! | oof | | the out-of-office object |
//! | answered, written to | hash of an address | when, and in which absence |
//! | imported | key of an import | the folder and id that the message got |
//! | garbage | folder | empty: a removed folder whose items are still to be dropped |
//!
//! Mailbox 0 is the installation's: its GUID, secrets, users and their aliases, references to bodies, removed mailboxes.

use directpush_common::names::DeviceKey;

use crate::store::{BodyId, Key, Range, prefix_end};

const HEAD: u8 = 1;
const FOLDER: u8 = 2;
const FOLDER_GONE: u8 = 3;
const ITEM: u8 = 4;
const LOG: u8 = 5;
const NAME: u8 = 6;
const STATE: u8 = 7;
const STATE_BYTES: u8 = 8;
const DEVICE: u8 = 9;
const GARBAGE: u8 = 10;
const FILE: u8 = 11;
const PROPERTIES: u8 = 12;
const SEEN: u8 = 13;
const DEVICE_SEEN: u8 = 14;
const DEVICE_DECIDED: u8 = 15;
const DEVICE_PASSWORD: u8 = 16;
const OOF: u8 = 20;
const ANSWERED: u8 = 21;
const WRITTEN_TO: u8 = 22;
const IMPORTED: u8 = 23;

const INSTALLATION: u8 = 64;
const TOKEN_SECRET: u8 = 65;
const USER: u8 = 66;
const BODY_USE: u8 = 67;
const MAILBOX_GONE: u8 = 68;
const ALIAS: u8 = 69;
const ALIAS_OF: u8 = 70;

/// The most folders one mailbox holds; a bound for scans.
pub const FOLDERS_MAX: usize = 5000;

fn key(mailbox: u64, kind: u8, numbers: &[u64]) -> Key {
    let mut key = Vec::with_capacity(9 + 8 * numbers.len() + 16);
    key.extend_from_slice(&mailbox.to_be_bytes());
    key.push(kind);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

/// The last number of a key: an item id, a change number, a counter.
pub fn last_number(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

pub fn head(mailbox: u64) -> Key {
    key(mailbox, HEAD, &[])
}

pub fn folder(mailbox: u64, counter: u64) -> Key {
    key(mailbox, FOLDER, &[counter])
}

pub fn folders(mailbox: u64) -> Range {
    Range::prefix(&key(mailbox, FOLDER, &[]), FOLDERS_MAX)
}

pub fn folder_gone(mailbox: u64, number: u64) -> Key {
    key(mailbox, FOLDER_GONE, &[number])
}

pub fn folders_gone_above(mailbox: u64, number: u64) -> Range {
    Range {
        start: key(mailbox, FOLDER_GONE, &[number.saturating_add(1)]),
        end: prefix_end(&key(mailbox, FOLDER_GONE, &[])),
        limit: 10 * FOLDERS_MAX,
        reverse: false,
    }
}

pub fn item(mailbox: u64, folder: u64, id: u64) -> Key {
    key(mailbox, ITEM, &[folder, id])
}

/// Items with an id below `before` (0: all), newest first.
pub fn items_before(mailbox: u64, folder: u64, before: u64, limit: usize) -> Range {
    let prefix = key(mailbox, ITEM, &[folder]);
    let end = if before == 0 { prefix_end(&prefix) } else { item(mailbox, folder, before) };
    Range { start: prefix, end, limit, reverse: true }
}

/// Items with an id above `after`, oldest first.
pub fn items_after(mailbox: u64, folder: u64, after: u64, limit: usize) -> Range {
    let prefix = key(mailbox, ITEM, &[folder]);
    Range {
        start: item(mailbox, folder, after.saturating_add(1)),
        end: prefix_end(&prefix),
        limit,
        reverse: false,
    }
}

/// A member that is no item: no change log knows it.
pub fn file(mailbox: u64, folder: u64, id: u64) -> Key {
    key(mailbox, FILE, &[folder, id])
}

/// An item or a file.
pub fn member(mailbox: u64, folder: u64, id: u64, is_file: bool) -> Key {
    if is_file { file(mailbox, folder, id) } else { item(mailbox, folder, id) }
}

/// Files with an id above `after`, oldest first.
pub fn files_after(mailbox: u64, folder: u64, after: u64, limit: usize) -> Range {
    let end = prefix_end(&key(mailbox, FILE, &[folder]));
    Range { start: file(mailbox, folder, after.saturating_add(1)), end, limit, reverse: false }
}

/// Dead properties of a member, or (id 0) of the folder itself.
pub fn properties(mailbox: u64, folder: u64, id: u64) -> Key {
    key(mailbox, PROPERTIES, &[folder, id])
}

pub fn log(mailbox: u64, folder: u64, number: u64) -> Key {
    key(mailbox, LOG, &[folder, number])
}

pub fn log_above(mailbox: u64, folder: u64, number: u64, limit: usize) -> Range {
    Range {
        start: log(mailbox, folder, number.saturating_add(1)),
        end: prefix_end(&key(mailbox, LOG, &[folder])),
        limit,
        reverse: false,
    }
}

/// The most bytes of a name that are part of its key; names are shorter (checked at the edge).
pub fn name(mailbox: u64, folder: u64, name: &str) -> Key {
    let mut key = key(mailbox, NAME, &[folder]);
    key.extend_from_slice(super::folders::folded(name).as_bytes());
    key
}

fn device_key(mailbox: u64, kind: u8, device: &DeviceKey) -> Key {
    let mut key = key(mailbox, kind, &[]);
    // The text form is two encoded segments; NUL cannot be in it, so no device is another's prefix.
    key.extend_from_slice(device.to_string().as_bytes());
    key.push(0);
    key
}

pub fn state(mailbox: u64, device: &DeviceKey, object: &str) -> Key {
    let mut key = device_key(mailbox, STATE, device);
    key.extend_from_slice(object.as_bytes());
    key
}

pub fn states(mailbox: u64, device: &DeviceKey, limit: usize) -> Range {
    Range::prefix(&device_key(mailbox, STATE, device), limit)
}

/// The object's name in a key made by [`state`].
pub fn state_name<'a>(mailbox: u64, device: &DeviceKey, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key.get(device_key(mailbox, STATE, device).len()..)?).ok()
}

pub fn state_bytes(mailbox: u64, device: &DeviceKey, object: &str) -> Key {
    let mut key = device_key(mailbox, STATE_BYTES, device);
    key.extend_from_slice(object.as_bytes());
    key
}

pub fn device(mailbox: u64, device: &DeviceKey) -> Key {
    device_key(mailbox, DEVICE, device)
}

pub fn devices(mailbox: u64, limit: usize) -> Range {
    Range::prefix(&key(mailbox, DEVICE, &[]), limit)
}

/// What a device did last.
pub fn device_seen(mailbox: u64, device: &DeviceKey) -> Key {
    device_key(mailbox, DEVICE_SEEN, device)
}

/// What was decided of a device.
pub fn device_decided(mailbox: u64, device: &DeviceKey) -> Key {
    device_key(mailbox, DEVICE_DECIDED, device)
}

pub fn devices_decided(mailbox: u64, limit: usize) -> Range {
    Range::prefix(&key(mailbox, DEVICE_DECIDED, &[]), limit)
}

pub fn device_password(mailbox: u64, number: u64) -> Key {
    key(mailbox, DEVICE_PASSWORD, &[number])
}

pub fn device_passwords(mailbox: u64, limit: usize) -> Range {
    Range::prefix(&key(mailbox, DEVICE_PASSWORD, &[]), limit)
}

/// The device in a key made by [`device`] or [`device_decided`].
pub fn device_of(found: &[u8]) -> Option<DeviceKey> {
    std::str::from_utf8(found.get(9..found.len().checked_sub(1)?)?).ok()?.parse().ok()
}

pub fn garbage(mailbox: u64, folder: u64) -> Key {
    key(mailbox, GARBAGE, &[folder])
}

pub fn all_garbage(mailbox: u64) -> Range {
    Range::prefix(&key(mailbox, GARBAGE, &[]), FOLDERS_MAX)
}

/// A message that was delivered.
pub fn seen(mailbox: u64, window: u64, mark: &[u8; 16]) -> Key {
    let mut key = key(mailbox, SEEN, &[window]);
    key.extend_from_slice(mark);
    key
}

/// What was delivered in windows before this one.
pub fn seen_before(mailbox: u64, window: u64, limit: usize) -> Range {
    let (start, end) = (key(mailbox, SEEN, &[]), key(mailbox, SEEN, &[window]));
    Range { start, end, limit, reverse: false }
}

pub fn oof(mailbox: u64) -> Key {
    key(mailbox, OOF, &[])
}

fn marked(mailbox: u64, kind: u8, mark: &[u8; 16]) -> Key {
    let mut key = key(mailbox, kind, &[]);
    key.extend_from_slice(mark);
    key
}

fn marked_from(mailbox: u64, kind: u8, mark: &[u8; 16], limit: usize) -> Range {
    let end = prefix_end(&key(mailbox, kind, &[]));
    Range { start: marked(mailbox, kind, mark), end, limit, reverse: false }
}

/// Somebody who was answered automatically.
pub fn answered(mailbox: u64, mark: &[u8; 16]) -> Key {
    marked(mailbox, ANSWERED, mark)
}

/// Those who were answered, from a mark on.
pub fn answered_from(mailbox: u64, mark: &[u8; 16], limit: usize) -> Range {
    marked_from(mailbox, ANSWERED, mark, limit)
}

/// Somebody to whom the user has written.
pub fn written_to(mailbox: u64, mark: &[u8; 16]) -> Key {
    marked(mailbox, WRITTEN_TO, mark)
}

/// Those to whom the user has written, from a mark on.
pub fn written_to_from(mailbox: u64, mark: &[u8; 16], limit: usize) -> Range {
    marked_from(mailbox, WRITTEN_TO, mark, limit)
}

/// A message that was brought from another server.
pub fn imported(mailbox: u64, import: &[u8; 16]) -> Key {
    marked(mailbox, IMPORTED, import)
}

/// Log, names and properties of one folder, for its removal.
pub fn folder_rest(mailbox: u64, folder: u64, limit: usize) -> [Range; 3] {
    [LOG, NAME, PROPERTIES].map(|kind| Range::prefix(&key(mailbox, kind, &[folder]), limit))
}

/// Every item and every file of a mailbox, whatever the folder: for its removal.
pub fn all_members(mailbox: u64, limit: usize) -> [Range; 2] {
    [ITEM, FILE].map(|kind| Range::prefix(&key(mailbox, kind, &[]), limit))
}

/// Folder and id in a key made by [`item`] or [`file()`].
pub fn item_of(key: &[u8]) -> (u64, u64) {
    let folder = key.get(9..17).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    (folder, last_number(key))
}

/// Everything of a mailbox.
pub fn whole(mailbox: u64, limit: usize) -> Range {
    Range::prefix(&mailbox.to_be_bytes(), limit)
}

pub fn installation() -> Key {
    key(0, INSTALLATION, &[])
}

pub fn token_secret() -> Key {
    key(0, TOKEN_SECRET, &[])
}

pub fn user(name: &str) -> Key {
    let mut key = key(0, USER, &[]);
    key.extend_from_slice(name.as_bytes());
    key
}

/// Users after one (or from the first), in order of name.
pub fn users_after(after: Option<&str>, limit: usize) -> Range {
    let prefix = key(0, USER, &[]);
    let start = after.map_or_else(
        || prefix.clone(),
        |name| {
            let mut start = user(name);
            start.push(0);
            start
        },
    );
    Range { start, end: prefix_end(&prefix), limit, reverse: false }
}

pub fn user_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(9..)?).ok()
}

/// An alias; its value is the user's name.
pub fn alias(address: &str) -> Key {
    let mut key = key(0, ALIAS, &[]);
    key.extend_from_slice(address.as_bytes());
    key
}

/// An alias, by its owner's mailbox.
pub fn alias_at(mailbox: u64, address: &str) -> Key {
    let mut key = key(0, ALIAS_OF, &[mailbox]);
    key.extend_from_slice(address.as_bytes());
    key
}

pub fn aliases_of(mailbox: u64, limit: usize) -> Range {
    Range::prefix(&key(0, ALIAS_OF, &[mailbox]), limit)
}

/// The address in a key made by [`alias_at`].
pub fn alias_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(17..)?).ok()
}

/// One use of a body by one item. A body without a use is collected.
pub fn body_use(body: BodyId, mailbox: u64, folder: u64, item: u64) -> Key {
    let mut key = key(0, BODY_USE, &[]);
    key.extend_from_slice(&body.0);
    for number in [mailbox, folder, item] {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

pub fn body_uses(body: BodyId) -> Range {
    let mut prefix = key(0, BODY_USE, &[]);
    prefix.extend_from_slice(&body.0);
    Range::prefix(&prefix, 1)
}

pub fn mailbox_gone(mailbox: u64) -> Key {
    key(0, MAILBOX_GONE, &[mailbox])
}

pub fn mailboxes_gone(limit: usize) -> Range {
    Range::prefix(&key(0, MAILBOX_GONE, &[]), limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_and_scans_stay_in_their_folder() {
        let walk = items_before(1, 2, 10, 5);
        assert!(walk.start <= item(1, 2, 9) && item(1, 2, 9) < walk.end);
        assert!(item(1, 2, 10) >= walk.end && item(1, 1, u64::MAX) < walk.start);
        let scan = log_above(1, 2, 10, 5);
        assert!(log(1, 2, 10) < scan.start && scan.start <= log(1, 2, 11) && log(1, 3, 0) >= scan.end);
    }

    #[test]
    fn keys_give_back_what_they_were_made_of() {
        assert_eq!(item_of(&item(7, 8, 9)), (8, 9));
        let phone: DeviceKey = "PocketPC/6F24".parse().unwrap();
        assert_eq!(device_of(&device(3, &phone)), Some(phone.clone()));
        assert_eq!(state_name(3, &phone, &state(3, &phone, "AutdState.xml")), Some("AutdState.xml"));
        assert_eq!(user_of(&user("alice@example.com")), Some("alice@example.com"));
        assert_eq!(alias_of(&alias_at(7, "sales@example.com")), Some("sales@example.com"));
    }
}
