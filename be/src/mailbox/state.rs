//! Device state objects: `AutdState.xml`, `FolderSyncFile`, `Provision`, `Collection-…`.
//!
//! They have entity tags and no change numbers: nobody is notified of them. Each write moves the
//! device's generation, which every answer below the device's folder carries; so one conditional GET
//! tells a front end whether all it remembers of the device is still true. A GET is one read and
//! needs no open mailbox, since that is what every Ping asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use directpush_common::names::DeviceKey;

use super::condition::Conditions;
use super::record::{Head, Record, StateObject};
use super::{Mailboxes, decode, keys, now_secs};
use crate::error::Error;
use crate::store::{Commit, Read, VALUE_BYTES_MAX};

/// Longest state object, in bytes.
pub const STATE_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// Devices of one mailbox, at most; the configuration may say fewer.
pub const DEVICES_MAX: usize = 1000;
/// Objects of one device, at most: one per collection and a few more.
pub const OBJECTS_MAX: usize = 1100;
/// Longest name of an object, in bytes.
pub const OBJECT_NAME_MAX: usize = 64;

/// What every answer below a device's folder carries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeviceNumbers {
    /// Grows with every write to one of the device's objects; 0 = none yet.
    pub device_state: u64,
    pub hierarchy: u64,
}

/// A device's object as found.
#[derive(Clone, Debug)]
pub struct Found {
    pub object: StateObject,
    pub bytes: Vec<u8>,
}

impl StateObject {
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.revision)
    }
}

impl Mailboxes {
    /// One object of a device, and the device's numbers whether it is there or not.
    pub async fn device_object(
        &self,
        mailbox: u64,
        device: &DeviceKey,
        object: &str,
    ) -> Result<(DeviceNumbers, Option<Found>), Error> {
        let read = Read::default()
            .get(keys::head(mailbox))
            .get(keys::device(mailbox, device))
            .get(keys::state(mailbox, device, object))
            .get(keys::state_bytes(mailbox, device, object));
        let mut gets = self.store.index.read(read).await?.gets.into_iter();
        let head: Head = decode(mailbox, &gets.next().flatten().ok_or(Error::NoUser)?)?;
        let device_state = gets.next().flatten().map_or(Ok(0), |bytes| decode(mailbox, &bytes))?;
        let numbers = DeviceNumbers { device_state, hierarchy: head.hierarchy };
        let found = match (gets.next().flatten(), gets.next().flatten()) {
            (Some(object), bytes) => {
                Some(Found { object: decode(mailbox, &object)?, bytes: bytes.unwrap_or_default() })
            }
            (None, _) => None,
        };
        Ok((numbers, found))
    }

    /// Writes an object; gives its tag, whether it is new, and the device's numbers.
    pub async fn put_device_object(
        self: &Arc<Self>,
        mailbox: u64,
        device: DeviceKey,
        object: String,
        content_type: String,
        bytes: Vec<u8>,
        conditions: Conditions,
    ) -> Result<(StateObject, bool, DeviceNumbers), Error> {
        if bytes.len() > STATE_BYTES_MAX {
            return Err(Error::OverBound("the state object"));
        }
        self.change_devices(mailbox, device.clone(), object.clone(), move |head, old| {
            let current = old.map(|old| (old.etag(), old.modified));
            conditions.check(current.as_ref().map(|(tag, modified)| (tag.as_str(), *modified)))?;
            head.device_states += 1;
            let written = StateObject {
                revision: head.device_states,
                content_type,
                modified: now_secs(),
                size: bytes.len() as u64,
            };
            let commit = Commit::default()
                .put(keys::device(mailbox, &device), head.device_states.encode())
                .put(keys::state(mailbox, &device, &object), written.encode())
                .put(keys::state_bytes(mailbox, &device, &object), bytes);
            let numbers = DeviceNumbers { device_state: head.device_states, hierarchy: head.hierarchy };
            Ok((commit, (written, old.is_none(), numbers)))
        })
        .await
    }

    /// Removes an object.
    pub async fn remove_device_object(
        self: &Arc<Self>,
        mailbox: u64,
        device: DeviceKey,
        object: String,
        conditions: Conditions,
    ) -> Result<DeviceNumbers, Error> {
        self.change_devices(mailbox, device.clone(), object.clone(), move |head, old| {
            let old = old.ok_or(Error::Gone("the state object"))?;
            conditions.check(Some((&old.etag(), old.modified)))?;
            head.device_states += 1;
            let commit = Commit::default()
                .put(keys::device(mailbox, &device), head.device_states.encode())
                .delete(keys::state(mailbox, &device, &object))
                .delete(keys::state_bytes(mailbox, &device, &object));
            Ok((commit, DeviceNumbers { device_state: head.device_states, hierarchy: head.hierarchy }))
        })
        .await
    }

    /// One read, one commit, under the mailbox's lock. Without opening the mailbox: only its head moves.
    async fn change_devices<T: Send + 'static>(
        self: &Arc<Self>,
        mailbox: u64,
        device: DeviceKey,
        object: String,
        change: impl FnOnce(&mut Head, Option<&StateObject>) -> Result<(Commit, T), Error> + Send + 'static,
    ) -> Result<T, Error> {
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let read = Read::default()
                .get(keys::head(mailbox))
                .get(keys::device(mailbox, &device))
                .get(keys::state(mailbox, &device, &object));
            let mut gets = boxes.store.index.read(read).await?.gets.into_iter();
            let old_head = gets.next().flatten().ok_or(Error::NoUser)?;
            let mut head: Head = decode(mailbox, &old_head)?;
            let known_device = gets.next().flatten().is_some();
            let old =
                gets.next().flatten().map(|bytes| decode::<StateObject>(mailbox, &bytes)).transpose()?;
            if old.is_none() {
                // Something new: there must be room for it.
                let devices_max = boxes.devices_max.load(Ordering::Relaxed);
                let (range, max, full) = if known_device {
                    let full = Error::OverBound("the number of state objects");
                    (keys::states(mailbox, &device, OBJECTS_MAX), OBJECTS_MAX, full)
                } else {
                    (keys::devices(mailbox, devices_max), devices_max, Error::Devices)
                };
                let found = boxes.store.index.read(Read::default().range(range)).await?;
                if found.ranges.first().is_some_and(|found| found.len() >= max) {
                    return Err(full);
                }
            }
            let (commit, answer) = change(&mut head, old.as_ref())?;
            let commit =
                commit.expect(keys::head(mailbox), Some(old_head)).put(keys::head(mailbox), head.encode());
            let done = boxes.store.index.commit(commit).await;
            boxes.adopt_head(mailbox, done.is_ok().then_some(head));
            done?;
            Ok(answer)
        })
        .await
    }

    /// Removes a device with all its objects, and what is known of it beside them.
    pub async fn remove_device(self: &Arc<Self>, mailbox: u64, device: DeviceKey) -> Result<(), Error> {
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let read = Read::default().get(keys::head(mailbox)).range(keys::states(
                mailbox,
                &device,
                OBJECTS_MAX + 1,
            ));
            let mut found = boxes.store.index.read(read).await?;
            let old_head = found.gets.pop().flatten().ok_or(Error::NoUser)?;
            let mut head: Head = decode(mailbox, &old_head)?;
            head.device_states += 1;
            let mut commit = Commit::default()
                .expect(keys::head(mailbox), Some(old_head))
                .put(keys::head(mailbox), head.encode())
                .delete(keys::device(mailbox, &device))
                .delete(keys::device_seen(mailbox, &device))
                .delete(keys::device_decided(mailbox, &device));
            for (key, _) in found.ranges.iter().flatten() {
                if let Some(object) = keys::state_name(mailbox, &device, key) {
                    commit = commit
                        .delete(keys::state(mailbox, &device, object))
                        .delete(keys::state_bytes(mailbox, &device, object));
                }
            }
            let done = boxes.store.index.commit(commit).await;
            boxes.adopt_head(mailbox, done.is_ok().then_some(head));
            Ok(done?)
        })
        .await
    }

    /// The devices that have state in a mailbox.
    pub async fn devices(&self, mailbox: u64) -> Result<Vec<DeviceKey>, Error> {
        let read = Read::default().range(keys::devices(mailbox, DEVICES_MAX));
        let found = self.store.index.read(read).await?;
        Ok(found.ranges.iter().flatten().filter_map(|(key, _)| keys::device_of(key)).collect())
    }

    /// A device's objects by name, and its numbers.
    pub async fn device_objects(
        &self,
        mailbox: u64,
        device: &DeviceKey,
    ) -> Result<(DeviceNumbers, Vec<(String, StateObject)>), Error> {
        let read = Read::default()
            .get(keys::head(mailbox))
            .get(keys::device(mailbox, device))
            .range(keys::states(mailbox, device, OBJECTS_MAX));
        let mut found = self.store.index.read(read).await?;
        let mut gets = found.gets.into_iter();
        let head: Head = decode(mailbox, &gets.next().flatten().ok_or(Error::NoUser)?)?;
        let device_state = gets.next().flatten().map_or(Ok(0), |bytes| decode(mailbox, &bytes))?;
        let numbers = DeviceNumbers { device_state, hierarchy: head.hierarchy };
        let mut objects = Vec::new();
        for (key, value) in found.ranges.pop().unwrap_or_default() {
            if let Some(name) = keys::state_name(mailbox, device, &key) {
                objects.push((name.to_owned(), decode(mailbox, &value)?));
            }
        }
        Ok((numbers, objects))
    }
}
