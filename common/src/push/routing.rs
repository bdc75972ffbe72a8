//! The front end's table of waiting Pings: who a NOTIFY is for, whose time is up, who must make room.
//!
//! A Ping is found by its group (128 random bits, chosen by this front end before its first SUBSCRIBE, so a NOTIFY
//! cannot come too early to be known) and by its device. Deadlines of all Pings stand in one heap (`due`): one timer
//! for the table, none per Ping. A parked connection leaves its [`Waker`] here.
//!
//! Each byte is paid per parked device: an entry holds its own keys, and all that refers to it is a slot of four bytes.
//!
//! Not here: sockets, requests to the back end, which source addresses may send (the shell asks before).

mod due;

use std::task::Waker;

use hashbrown::{HashTable, hash_table::Entry as Found};
use smallvec::SmallVec;

use self::due::Due;
use super::ping::{PingStep, PingWait, SubscribeFailure, UnsubscribeAnswer};
use crate::{
    clock::Moment,
    dav::{
        poll::SubscriptionAnswer,
        subscribe::{Already, DeviceEvent},
    },
    httpu::{CallBack, Notify, SubscriptionId},
    names::Guid,
};

/// Pings of one device that may wait at the same time; a further one ends the oldest.
pub const PINGS_PER_DEVICE: usize = 2;

/// A waiting Ping. Stale references are noticed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PingRef {
    slot: u32,
    generation: u32,
}

/// A Ping to be entered.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The back end of the user's mailbox, as the shell numbers them.
    pub backend: u16,
    /// A keyed hash of user and device.
    pub device: u64,
    /// Fresh and random.
    pub group: Guid,
    /// Granted, in seconds.
    pub heartbeat_secs: u32,
    /// Folders to watch.
    pub folders: usize,
    /// It is a Sync that waits, not a Ping: a newer Sync of the device ends it.
    pub sync: bool,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Routed {
    /// Some Ping will ask the back end.
    Taken,
    /// For a Ping that already knows: a repetition.
    Repeated,
    /// Another process's call-back: a predecessor's, or another front end's.
    NotOurs,
    /// Our call-back, but no such Ping, or an id that is not that Ping's.
    Unknown,
}

/// No slot: the end of a chain, or no place in the heap.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    wait: PingWait,
    group: Guid,
    device: u64,
    waker: Option<Waker>,
    generation: u32,
    /// The slot of the same device's Ping before this one.
    older: u32,
    /// Where it stands in the heap of deadlines.
    place: u32,
    backend: u16,
    sync: bool,
}

type Entries = Vec<Option<Box<Entry>>>;

/// The waiting Pings of one front end process.
#[derive(Debug)]
pub struct Routing {
    call_back: CallBack,
    entries: Entries,
    free: Vec<u32>,
    by_group: HashTable<u32>,
    /// The newest Ping of each device.
    by_device: HashTable<u32>,
    due: Due,
    generation: u32,
    draining: bool,
}

impl Routing {
    /// An empty table of the front end process that `call_back` names.
    pub fn new(call_back: CallBack) -> Self {
        Self {
            call_back,
            entries: Vec::new(),
            free: Vec::new(),
            by_group: HashTable::new(),
            by_device: HashTable::new(),
            due: Due::default(),
            generation: 0,
            draining: false,
        }
    }

    /// Where back ends send NOTIFYs.
    pub fn call_back(&self) -> &CallBack {
        &self.call_back
    }

    /// Enters a Ping whose heartbeat begins now. The oldest Ping of the device makes room if need be.
    pub fn open(&mut self, now: Moment, opening: Opening) -> PingRef {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let deadline = now.plus_secs(u64::from(opening.heartbeat_secs));
        let mut wait = PingWait::new(deadline, opening.folders);
        if self.draining {
            wait.handle_drain();
        }
        let entry = Entry {
            wait,
            group: opening.group,
            device: opening.device,
            waker: None,
            generation,
            older: NONE,
            place: NONE,
            backend: opening.backend,
            sync: opening.sync,
        };
        let slot = self.insert(Box::new(entry));
        let entries = &self.entries;
        self.by_group.insert_unique(hash_of(opening.group), slot, |&slot| {
            at(entries, slot).map_or(0, |entry| hash_of(entry.group))
        });
        let same = |&slot: &u32| at(entries, slot).is_some_and(|entry| entry.device == opening.device);
        let device_of = |&slot: &u32| at(entries, slot).map_or(0, |entry| entry.device);
        let older = match self.by_device.entry(opening.device, same, device_of) {
            Found::Occupied(mut newest) => std::mem::replace(newest.get_mut(), slot),
            Found::Vacant(none) => {
                none.insert(slot);
                NONE
            }
        };
        if let Some(entry) = self.at_mut(slot) {
            entry.older = older;
        }
        if opening.sync {
            self.supersede(self.chain(older).filter(|&slot| self.is_sync(slot)).collect());
        }
        self.supersede(self.chain(slot).skip(PINGS_PER_DEVICE).collect());
        self.reschedule(slot);
        PingRef { slot, generation }
    }

    /// The device began a Sync: one that still waits is a connection that it has left, and knows older keys.
    pub fn handle_sync(&mut self, device: u64) {
        let same = |&slot: &u32| at(&self.entries, slot).is_some_and(|entry| entry.device == device);
        let Some(&newest) = self.by_device.find(device, same) else { return };
        self.supersede(self.chain(newest).filter(|&slot| self.is_sync(slot)).collect());
    }

    fn is_sync(&self, slot: u32) -> bool {
        at(&self.entries, slot).is_some_and(|entry| entry.sync)
    }

    fn supersede(&mut self, slots: SmallVec<[u32; 2]>) {
        for slot in slots {
            self.change(slot, |wait| {
                wait.handle_superseded();
                true
            });
        }
    }

    /// What the Ping's shell is to do now; [`PingStep::Wait`] leaves `waker` here to be woken for more. `None`: no
    /// such Ping.
    pub fn step(&mut self, now: Moment, ping: PingRef, waker: &Waker) -> Option<PingStep> {
        let entry = self.entry_mut(ping)?;
        let step = entry.wait.step(now);
        if step == PingStep::Wait {
            match &mut entry.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        self.reschedule(ping.slot);
        Some(step)
    }

    /// The Ping's group.
    pub fn group(&self, ping: PingRef) -> Option<Guid> {
        self.entry(ping).map(|entry| entry.group)
    }

    /// When the Ping's heartbeat has passed.
    pub fn expires(&self, ping: PingRef) -> Option<Moment> {
        self.entry(ping).map(|entry| entry.wait.expires())
    }

    /// The subscriptions that UNSUBSCRIBE has to name.
    pub fn subscriptions(&self, ping: PingRef) -> SmallVec<[SubscriptionId; 4]> {
        self.entry(ping).map(|entry| entry.wait.subscriptions().collect()).unwrap_or_default()
    }

    /// A SUBSCRIBE was answered.
    pub fn handle_subscribed(
        &mut self,
        ping: PingRef,
        position: u16,
        id: SubscriptionId,
        already: Already,
        event: Option<DeviceEvent>,
    ) {
        self.change_ref(ping, |wait| wait.handle_subscribed(position, id, already, event));
    }

    /// A SUBSCRIBE failed.
    pub fn handle_subscribe_failed(
        &mut self,
        now: Moment,
        ping: PingRef,
        position: u16,
        failure: SubscribeFailure,
    ) {
        self.change_ref(ping, |wait| wait.handle_subscribe_failed(now, position, failure));
    }

    /// An UNSUBSCRIBE, conditional or final, was answered or timed out.
    pub fn handle_unsubscribed(&mut self, now: Moment, ping: PingRef, answer: Option<&UnsubscribeAnswer>) {
        self.change_ref(ping, |wait| wait.handle_unsubscribed(now, answer));
    }

    /// A datagram from a back end.
    pub fn handle_notify(&mut self, notify: &Notify) -> Routed {
        if notify.call_back != self.call_back {
            return Routed::NotOurs;
        }
        let Some(group) = notify.group else {
            return if notify.ids.is_empty() { self.notify_all() } else { Routed::Unknown };
        };
        let Some(slot) = self.slot_of(group) else { return Routed::Unknown };
        let mut routed = Routed::Unknown;
        self.change(slot, |wait| {
            let known = wait.is_notified();
            let mut taken = notify.ids.is_empty() && wait.handle_notify(None);
            for id in &notify.ids {
                taken |= wait.handle_notify(Some(*id));
            }
            routed = match (taken, known) {
                (false, _) => Routed::Unknown,
                (true, false) => Routed::Taken,
                (true, true) => Routed::Repeated,
            };
            routed == Routed::Taken
        });
        routed
    }

    /// The answer to POLL by call-back. Returns how many findings no datagram had announced: above zero, the UDP
    /// path from that back end is broken.
    pub fn handle_polled(&mut self, answers: &[SubscriptionAnswer]) -> usize {
        let mut unannounced = 0;
        for answer in answers {
            let Some(slot) = answer.group.and_then(|group| self.slot_of(group)) else { continue };
            self.change(slot, |wait| {
                let known = wait.is_notified();
                let news = wait.handle_notify(Some(answer.id)) && !known;
                unannounced += usize::from(news);
                news
            });
        }
        unannounced
    }

    /// The user's mailbox is at this back end now: the Ping subscribes there. If it was at another, says which, and
    /// the subscriptions that are left there.
    pub fn handle_moved(
        &mut self,
        ping: PingRef,
        backend: u16,
    ) -> Option<(u16, SmallVec<[SubscriptionId; 4]>)> {
        let left = self.subscriptions(ping);
        let entry = self.entry_mut(ping).filter(|entry| entry.backend != backend)?;
        let before = std::mem::replace(&mut entry.backend, backend);
        self.change_ref(ping, PingWait::handle_backend_restarted);
        Some((before, left))
    }

    /// The Ping's log-on no longer holds at the back end: the device comes back with its password.
    pub fn handle_logged_off(&mut self, ping: PingRef) {
        self.change_ref(ping, PingWait::handle_superseded);
    }

    /// Wakes the shells of all Pings: something that they look at has changed.
    pub fn wake_all(&mut self) {
        self.change_all(|_| {});
    }

    /// The back end that a Ping's subscriptions are at.
    pub fn backend(&self, ping: PingRef) -> Option<u16> {
        self.entry(ping).map(|entry| entry.backend)
    }

    /// A back end is a new process: all its Pings subscribe again.
    pub fn handle_backend_restarted(&mut self, backend: u16) {
        self.change_all(|entry| {
            if entry.backend == backend {
                entry.wait.handle_backend_restarted();
            }
        });
    }

    /// The front end is stopping: all Pings end, and new ones end at once.
    pub fn handle_drain(&mut self) {
        self.draining = true;
        self.change_all(|entry| entry.wait.handle_drain());
    }

    /// Wakes the Pings whose time has come.
    pub fn handle_time(&mut self, now: Moment) {
        while let Some((due, slot)) = self.due.first(&self.entries) {
            if due > now {
                break;
            }
            // Its shell asks for the next step and thereby enters the next deadline.
            self.due.remove(&mut self.entries, slot);
            if let Some(waker) = self.at_mut(slot).and_then(|entry| entry.waker.take()) {
                waker.wake();
            }
        }
    }

    /// When [`Routing::handle_time`] has something to do.
    pub fn deadline(&self) -> Moment {
        self.due.first(&self.entries).map_or(Moment::NEVER, |(due, _)| due)
    }

    /// Forgets a Ping: it was answered, or its device hung up. Returns the subscriptions that still live.
    pub fn close(&mut self, ping: PingRef) -> SmallVec<[SubscriptionId; 4]> {
        let subscriptions = self.subscriptions(ping);
        let (slot, Some(entry)) = (ping.slot, self.entry(ping)) else { return subscriptions };
        let (group, device) = (entry.group, entry.device);
        self.due.remove(&mut self.entries, slot);
        if let Ok(found) = self.by_group.find_entry(hash_of(group), |&other| other == slot) {
            found.remove();
        }
        self.unchain(slot, device);
        self.entries[slot as usize] = None;
        self.free.push(slot);
        subscriptions
    }

    /// Pings waiting.
    pub fn len(&self) -> usize {
        self.by_group.len()
    }

    /// Whether no Ping waits.
    pub fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// Subscriptions at one back end, for comparison with what it says in its answer to POLL.
    pub fn subscriptions_at(&self, backend: u16) -> usize {
        let here = self.entries.iter().flatten().filter(|entry| entry.backend == backend);
        here.map(|entry| entry.wait.subscriptions().count()).sum()
    }

    fn notify_all(&mut self) -> Routed {
        self.change_all(|entry| {
            entry.wait.handle_notify(None);
        });
        Routed::Taken
    }

    fn slot_of(&self, group: Guid) -> Option<u32> {
        let ours = |&slot: &u32| at(&self.entries, slot).is_some_and(|entry| entry.group == group);
        self.by_group.find(hash_of(group), ours).copied()
    }

    /// This Ping and the older ones of its device, the newest first.
    fn chain(&self, slot: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(slot).filter(|&slot| slot != NONE), |&slot| {
            at(&self.entries, slot).map(|entry| entry.older)
        })
        .take_while(|&slot| slot != NONE)
    }

    /// Takes a Ping out of the chain of its device.
    fn unchain(&mut self, slot: u32, device: u64) {
        let Some(older) = at(&self.entries, slot).map(|entry| entry.older) else { return };
        let entries = &self.entries;
        let same = |&other: &u32| at(entries, other).is_some_and(|entry| entry.device == device);
        let Ok(mut newest) = self.by_device.find_entry(device, same) else { return };
        if *newest.get() != slot {
            let newest = *newest.get();
            let newer =
                self.chain(newest).find(|&newer| at(&self.entries, newer).is_some_and(|it| it.older == slot));
            if let Some(newer) = newer.and_then(|newer| self.at_mut(newer)) {
                newer.older = older;
            }
        } else if older == NONE {
            newest.remove();
        } else {
            *newest.get_mut() = older;
        }
    }

    fn insert(&mut self, entry: Box<Entry>) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = Some(entry);
            return slot;
        }
        self.entries.push(Some(entry));
        u32::try_from(self.entries.len() - 1).expect("connections are bounded far below 2^32")
    }

    fn entry(&self, ping: PingRef) -> Option<&Entry> {
        at(&self.entries, ping.slot).filter(|entry| entry.generation == ping.generation)
    }

    fn entry_mut(&mut self, ping: PingRef) -> Option<&mut Entry> {
        self.at_mut(ping.slot).filter(|entry| entry.generation == ping.generation)
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_deref_mut()
    }

    fn change_ref(&mut self, ping: PingRef, change: impl FnOnce(&mut PingWait)) {
        if self.entry(ping).is_some() {
            self.change(ping.slot, |wait| {
                change(wait);
                true
            });
        }
    }

    /// Changes a Ping and wakes its shell if `change` says that there is something new for it.
    fn change(&mut self, slot: u32, change: impl FnOnce(&mut PingWait) -> bool) {
        let Some(entry) = self.at_mut(slot) else { return };
        if change(&mut entry.wait)
            && let Some(waker) = entry.waker.take()
        {
            waker.wake();
        }
        self.reschedule(slot);
    }

    fn change_all(&mut self, mut change: impl FnMut(&mut Entry)) {
        for slot in 0..self.entries.len() {
            let Some(entry) = self.entries[slot].as_mut() else { continue };
            change(entry);
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
            self.reschedule(u32::try_from(slot).unwrap_or(u32::MAX));
        }
    }

    /// Something happened to a Ping: its deadline may be another.
    fn reschedule(&mut self, slot: u32) {
        self.due.settle(&mut self.entries, slot);
    }
}

fn at(entries: &Entries, slot: u32) -> Option<&Entry> {
    entries.get(slot as usize)?.as_deref()
}

/// Groups are random, and nobody but this front end enters any: eight of their bytes are hash enough.
fn hash_of(group: Guid) -> u64 {
    group.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
