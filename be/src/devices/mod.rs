//! The register of devices: what each did last, and what the administrator decided of it.
//!
//! What a device did is told by front ends with every request below its folder. It is kept in memory and written at most
//! once in ten minutes, and at the stop: a crash costs the administrator a few minutes of it. What was decided is durable
//! before anybody is told. Both lie beside the device's objects, where no user can write.
//!
//! Not here: what a front end makes of a decision, and how the administrator gives one (`admin::devices`).

pub mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use directpush_common::dav::standing::{Order, WipeReport};
use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::names::DeviceKey;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, WithCauses};
use crate::mailbox::record::Record as _;
use crate::mailbox::state::DEVICES_MAX;
use crate::mailbox::{Mailboxes, decode, keys, now_secs};
use crate::store::{Commit, Read};
use record::{Decided, Seen};

/// What a device did is written when so many seconds have passed since it was last.
const WRITE_AFTER_SECS: i64 = 600;
/// A device that did nothing for so many seconds is let go.
const IDLE_SECS: i64 = 900;
/// Devices in memory, at most. Of others only what was decided counts, and is read each time.
const REMEMBERED_MAX: usize = 100_000;
/// How often it is looked what there is to write.
const EVERY: Duration = Duration::from_secs(20);
/// Writes at once.
const WRITES_AT_ONCE: usize = 16;
/// Characters of a User-Agent that are kept.
const AGENT_CHARS_MAX: usize = 256;
/// Characters of a version or a command that are kept.
const WORD_CHARS_MAX: usize = 32;

/// What a front end says of a device's request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knock<'a> {
    /// The User-Agent, decoded.
    pub agent: Option<&'a str>,
    pub version: Option<&'a str>,
    pub command: Option<&'a str>,
    pub front_end: &'a str,
}

/// A device as the register has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Known {
    pub seen: Seen,
    pub decided: Decided,
    /// It has state here.
    pub state: bool,
}

type Name = (u64, DeviceKey);

struct Entry {
    seen: Seen,
    decided: Decided,
    /// When `seen` was written; none = what there is has not been.
    written: i64,
    dirty: bool,
}

/// The register of one back end.
pub struct Register {
    boxes: Arc<Mailboxes>,
    known: Mutex<HashMap<Name, Entry>>,
}

impl Register {
    pub fn new(boxes: Arc<Mailboxes>) -> Self {
        Self { boxes, known: Mutex::default() }
    }

    /// A device asks for something. What was ordered for it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn knock(&self, mailbox: u64, device: &DeviceKey, knock: Knock<'_>) -> Result<Order, Error> {
        let (name, now) = ((mailbox, device.clone()), now_secs());
        if let Some(order) = self.note(&name, &knock, now) {
            return Ok(order);
        }
        let Known { seen, decided, .. } = self.read(mailbox, device).await?;
        {
            let mut known = self.known.lock();
            if known.len() >= REMEMBERED_MAX && !known.contains_key(&name) {
                return Ok(decided.order());
            }
            known.entry(name.clone()).or_insert(Entry { seen, decided, written: now, dirty: false });
        }
        Ok(self.note(&name, &knock, now).unwrap_or_else(|| decided.order()))
    }

    fn note(&self, name: &Name, knock: &Knock<'_>, now: i64) -> Option<Order> {
        let mut known = self.known.lock();
        let entry = known.get_mut(name)?;
        let seen = &mut entry.seen;
        if seen.first == 0 {
            seen.first = now;
        }
        seen.last = now;
        for (kept, said, max) in [
            (&mut seen.agent, knock.agent, AGENT_CHARS_MAX),
            (&mut seen.version, knock.version, WORD_CHARS_MAX),
            (&mut seen.command, knock.command, WORD_CHARS_MAX),
            (&mut seen.front_end, Some(knock.front_end), AGENT_CHARS_MAX),
        ] {
            // Rarely another than last time.
            if let Some(said) = said
                && *kept != said
            {
                *kept = said.chars().filter(|c| !c.is_control()).take(max).collect();
            }
        }
        match knock.command {
            Some("Sync") => seen.sync = now,
            Some("Ping") => seen.ping = now,
            _ => {}
        }
        entry.dirty = true;
        Some(entry.decided.order())
    }

    /// A device's Ping begins to wait, for so many seconds.
    pub fn waits(&self, mailbox: u64, device: &DeviceKey, heartbeat_secs: u32) {
        let now = now_secs();
        if let Some(entry) = self.known.lock().get_mut(&(mailbox, device.clone())) {
            entry.seen.ping = now;
            entry.seen.heartbeat_secs = heartbeat_secs;
            entry.dirty = true;
        }
    }

    async fn read(&self, mailbox: u64, device: &DeviceKey) -> Result<Known, Error> {
        let read = Read::default()
            .get(keys::device_seen(mailbox, device))
            .get(keys::device_decided(mailbox, device))
            .get(keys::device(mailbox, device));
        let mut gets = self.boxes.store.index.read(read).await?.gets.into_iter();
        let mut get = || gets.next().flatten();
        let (seen, decided, state) = (get(), get(), get());
        Ok(Known {
            seen: seen.map_or_else(|| Ok(Seen::default()), |bytes| decode(mailbox, &bytes))?,
            decided: decided.map_or_else(|| Ok(Decided::default()), |bytes| decode(mailbox, &bytes))?,
            state: state.is_some(),
        })
    }

    /// A device; none if nothing is known of it.
    pub async fn find(&self, mailbox: u64, device: &DeviceKey) -> Result<Option<Known>, Error> {
        let mut found = self.read(mailbox, device).await?;
        if let Some(entry) = self.known.lock().get(&(mailbox, device.clone())) {
            found.seen = entry.seen.clone();
        }
        Ok((found != Known::default()).then_some(found))
    }

    /// All devices of a mailbox that have state, or of which something was decided.
    pub async fn list(&self, mailbox: u64) -> Result<Vec<(DeviceKey, Known)>, Error> {
        let read = Read::default()
            .range(keys::devices(mailbox, DEVICES_MAX))
            .range(keys::devices_decided(mailbox, DECIDED_MAX));
        let ranges = self.boxes.store.index.read(read).await?.ranges;
        let mut devices: Vec<DeviceKey> =
            ranges.iter().flatten().filter_map(|(key, _)| keys::device_of(key)).collect();
        devices.sort();
        devices.dedup();
        let mut list = Vec::with_capacity(devices.len());
        for device in devices {
            if let Some(known) = self.find(mailbox, &device).await? {
                list.push((device, known));
            }
        }
        Ok(list)
    }

    /// Changes what was decided of a device; it hears of it at once if it waits.
    ///
    /// # Errors
    /// The user is gone; too much was decided; the store fails.
    pub async fn decide(
        &self,
        mailbox: u64,
        device: &DeviceKey,
        change: impl FnOnce(&mut Decided) -> Result<(), Error> + Send + 'static,
    ) -> Result<Decided, Error> {
        let (boxes, key) = (self.boxes.clone(), device.clone());
        let decided = self.boxes.write_bare(mailbox, async move {
            let read = Read::default()
                .get(keys::head(mailbox))
                .get(keys::device_decided(mailbox, &key))
                .range(keys::devices_decided(mailbox, DECIDED_MAX));
            let mut found = boxes.store.index.read(read).await?;
            let mut gets = std::mem::take(&mut found.gets).into_iter();
            let head = gets.next().flatten().ok_or(Error::NoUser)?;
            let old = gets.next().flatten();
            let mut decided = match &old {
                Some(bytes) => decode(mailbox, bytes)?,
                None if found.ranges.first().is_some_and(|all| all.len() >= DECIDED_MAX) => {
                    return Err(Error::OverBound("the number of devices"));
                }
                None => Decided::default(),
            };
            change(&mut decided)?;
            let commit = Commit::default().expect(keys::head(mailbox), Some(head));
            let place = keys::device_decided(mailbox, &key);
            let commit = if decided == Decided::default() {
                commit.delete(place)
            } else {
                commit.put(place, decided.encode())
            };
            boxes.store.index.commit(commit).await?;
            Ok(decided)
        });
        let decided = decided.await?;
        if let Some(entry) = self.known.lock().get_mut(&(mailbox, device.clone())) {
            entry.decided = decided;
        }
        let event = match decided.order() {
            Order::Wipe | Order::AccountWipe => DeviceEvent::Wipe,
            Order::Blocked | Order::Quarantined => DeviceEvent::Blocked,
            Order::None | Order::Allowed => DeviceEvent::Policy,
        };
        self.boxes.tell_device(mailbox, Some(device), event);
        Ok(decided)
    }

    /// A device says what became of its wipe.
    ///
    /// # Errors
    /// Nobody ordered one; the store fails.
    pub async fn wipe_report(
        &self,
        mailbox: u64,
        device: &DeviceKey,
        report: WipeReport,
    ) -> Result<(), Error> {
        let now = now_secs();
        let done = self.decide(mailbox, device, move |decided| decided.reported(report, now)).await?;
        tracing::warn!(%device, ?report, order = %done.order(), "a device answered the order to wipe");
        Ok(())
    }

    /// Forgets a device: its objects and all that is known of it. It starts over.
    ///
    /// # Errors
    /// The store fails.
    pub async fn forget(&self, mailbox: u64, device: &DeviceKey) -> Result<(), Error> {
        self.boxes.remove_device(mailbox, device.clone()).await?;
        self.known.lock().remove(&(mailbox, device.clone()));
        self.boxes.tell_device(mailbox, Some(device), DeviceEvent::Forgotten);
        Ok(())
    }

    /// Writes what is due, or all, and lets go of who did nothing lately.
    pub async fn write(&self, all: bool) {
        let now = now_secs();
        let due: Vec<(Name, Seen)> = {
            let mut known = self.known.lock();
            known.retain(|_, entry| entry.dirty || now - entry.seen.last < IDLE_SECS);
            let due = known.iter_mut().filter(|(_, entry)| {
                entry.dirty && (all || now - entry.written >= WRITE_AFTER_SECS || now < entry.written)
            });
            due.map(|(name, entry)| {
                (entry.dirty, entry.written) = (false, now);
                (name.clone(), entry.seen.clone())
            })
            .collect()
        };
        let mut due = due.into_iter();
        loop {
            let mut writing = tokio::task::JoinSet::new();
            for ((mailbox, device), seen) in due.by_ref().take(WRITES_AT_ONCE) {
                let boxes = self.boxes.clone();
                writing.spawn(async move { write_seen(&boxes, mailbox, device, seen).await });
            }
            if writing.is_empty() {
                return;
            }
            while let Some(done) = writing.join_next().await {
                if let Ok(Err(error)) = done {
                    // It is tried again when the device comes next.
                    tracing::debug!(error = %WithCauses(&error), "what a device did is not written");
                }
            }
        }
    }

    /// Writes from time to time until `stop`, then all.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.write(true).await,
                _ = every.tick() => self.write(false).await,
            }
        }
    }
}

/// Devices of one mailbox of which something was decided, at most.
const DECIDED_MAX: usize = 1000;

/// Only of devices that have state: else whoever asks for ever new ones would fill the store.
async fn write_seen(
    boxes: &Arc<Mailboxes>,
    mailbox: u64,
    device: DeviceKey,
    seen: Seen,
) -> Result<(), Error> {
    let inner = boxes.clone();
    let work = async move {
        let read = Read::default().get(keys::device(mailbox, &device)).get(keys::head(mailbox));
        let mut gets = inner.store.index.read(read).await?.gets.into_iter();
        let (Some(_), Some(head)) = (gets.next().flatten(), gets.next().flatten()) else { return Ok(()) };
        let commit = Commit::default()
            .expect(keys::head(mailbox), Some(head))
            .put(keys::device_seen(mailbox, &device), seen.encode());
        Ok(inner.store.index.commit(commit).await?)
    };
    boxes.write_bare(mailbox, work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::condition::Conditions;
    use crate::store::Store;

    async fn register() -> (Register, u64) {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let account = boxes.add_user(&"alice".parse().unwrap(), String::new()).await.unwrap();
        (Register::new(boxes), account.mailbox)
    }

    fn phone(id: &str) -> DeviceKey {
        DeviceKey::new("Phone", id).unwrap()
    }

    async fn put(register: &Register, mailbox: u64, device: &DeviceKey) {
        let boxes = &register.boxes;
        let object = boxes.put_device_object(
            mailbox,
            device.clone(),
            "AutdState.xml".into(),
            "text/xml".into(),
            b"x".to_vec(),
            Conditions::default(),
        );
        object.await.unwrap();
    }

    const KNOCK: Knock<'static> = Knock {
        agent: Some("Apple-iPhone/1\n"),
        version: Some("14.1"),
        command: Some("Sync"),
        front_end: "fe-1",
    };

    #[tokio::test]
    async fn what_a_device_did_is_kept_in_memory_and_written_at_the_stop() {
        let (register, mailbox) = register().await;
        let (one, stranger) = (phone("1"), phone("2"));
        put(&register, mailbox, &one).await;
        for device in [&one, &stranger] {
            assert_eq!(register.knock(mailbox, device, KNOCK).await.unwrap(), Order::None);
        }
        register.waits(mailbox, &one, 480);
        assert_eq!(register.list(mailbox).await.unwrap().len(), 1, "a stranger has no state");
        register.write(false).await;
        let again = Register::new(register.boxes.clone());
        assert_eq!(again.find(mailbox, &one).await.unwrap().unwrap().seen, Seen::default());
        register.write(true).await;
        let known = again.find(mailbox, &one).await.unwrap().unwrap();
        let Seen { first, last, sync, ping, heartbeat_secs, agent, version, command, front_end } = known.seen;
        assert!(first > 0 && first <= last && sync == last && ping >= last);
        assert_eq!((heartbeat_secs, agent.as_str()), (480, "Apple-iPhone/1"));
        assert_eq!((version.as_str(), command.as_str(), front_end.as_str()), ("14.1", "Sync", "fe-1"));
        assert_eq!(again.find(mailbox, &stranger).await.unwrap(), None, "nothing is written of it");
    }

    #[tokio::test]
    async fn decisions_are_durable_and_counted_at_once() {
        let (register, mailbox) = register().await;
        let device = phone("1");
        put(&register, mailbox, &device).await;
        register.knock(mailbox, &device, KNOCK).await.unwrap();
        let wipe = |it: &mut Decided| {
            it.wipe(false, 5);
            Ok(())
        };
        register.decide(mailbox, &device, wipe).await.unwrap();
        assert_eq!(register.knock(mailbox, &device, KNOCK).await.unwrap(), Order::Wipe);
        let again = Register::new(register.boxes.clone());
        assert_eq!(again.knock(mailbox, &device, KNOCK).await.unwrap(), Order::Wipe);
        again.wipe_report(mailbox, &device, WipeReport::Acknowledged).await.unwrap();
        assert_eq!(again.knock(mailbox, &device, KNOCK).await.unwrap(), Order::Blocked, "wiped stays out");
        let unasked = again.wipe_report(mailbox, &phone("9"), WipeReport::Acknowledged).await;
        assert!(matches!(unasked, Err(Error::Conflict(_))));
        again.forget(mailbox, &device).await.unwrap();
        assert_eq!(again.find(mailbox, &device).await.unwrap(), None);
        let (numbers, found) = register.boxes.device_object(mailbox, &device, "AutdState.xml").await.unwrap();
        assert!(found.is_none() && numbers.device_state == 0);
        assert_eq!(again.knock(mailbox, &device, KNOCK).await.unwrap(), Order::None);
    }
}
