//! The back end's ledger of subscriptions: who watches which folder, and who has to be told.
//!
//! Subscriptions live in groups, one group per Ping: they are made, told and ended together. A group that has
//! something to tell is sent a NOTIFY, again after 1, 3 and 9 s, until the front end acknowledges it by
//! UNSUBSCRIBE, POLL or renewal. The level of a subscription stays until then, so a lost datagram or a lost
//! answer loses nothing: POLL by call-back lists whatever is still unacknowledged.
//!
//! Memory per subscription is bounded by design (300 B): a group is one boxed struct with its usual single
//! subscription inside, one entry in each of three ordered maps, and no timer of its own.
//!
//! Not here: sockets, resolving call-back names, who may call (the shell checks), the comparison with the store
//! at SUBSCRIBE (the shell does it after registering and reports with [`Ledger::handle_compared`]).

mod budget;
mod call_backs;
mod group;
mod index;

pub use budget::WAKES_PER_MINUTE;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use budget::WakeBudget;
use call_backs::KnownCallBack;
use group::{Group, Subscription};

use smallvec::SmallVec;

use super::wake::{Wake, wake};
use crate::{
    change::Entry,
    clock::Moment,
    dav::{
        poll::{SubscriptionAnswer, SubscriptionStatus},
        subscribe::{DeviceEvent, LIFETIME_SECS_MAX},
    },
    httpu::{CallBack, Notify, SubscriptionId},
    names::{DeviceKey, Guid},
    numbers::Number,
};

/// When a NOTIFY is repeated: milliseconds after the one before it (0, 1, 3, 9 s after the first).
const REPEATS_MILLIS: [u64; 3] = [1000, 2000, 6000];
/// Datagrams of one group during its life, at most; beyond, POLL finds what there is.
const DATAGRAMS_PER_GROUP_MAX: u8 = 64;
/// Groups in one answer to POLL by call-back; a front end that gets so many asks again at once.
pub const POLL_ANSWERS_MAX: usize = 10_000;

/// A front end, as the shell numbers its credentials.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrontEndNumber(pub u16);

/// Bounds of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLimits {
    /// Subscriptions of one mailbox.
    pub per_mailbox: usize,
    /// Subscriptions in all.
    pub total: usize,
    /// Datagrams per second to one call-back, on average; twice as many may burst.
    pub datagrams_per_second: u32,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { per_mailbox: 2000, total: 2_000_000, datagrams_per_second: 50_000 }
    }
}

/// A subscription to be made. The shell has checked who asks and where the call-back leads.
#[derive(Clone, Debug)]
pub struct NewSubscription {
    /// Who asks.
    pub front_end: FrontEndNumber,
    /// Where NOTIFYs go.
    pub call_back: CallBack,
    /// The Ping.
    pub group: Guid,
    /// The mailbox, as the store numbers it.
    pub mailbox: u64,
    /// The folder's counter within the mailbox.
    pub folder: u64,
    /// Whose own uploads do not count.
    pub device: DeviceKey,
    /// What the device knows of the folder.
    pub base: Number,
    /// Unix seconds: items received before never count.
    pub floor: Option<i64>,
    /// Seconds that changes other than additions may wait; [`DELAY_NEVER`](crate::dav::subscribe::DELAY_NEVER) = they never wake.
    pub delay_secs: u32,
    /// Seconds; clamped to 1…3600.
    pub lifetime_secs: u32,
    /// Seconds between the front end's POLLs; a call-back silent for three of them is dropped.
    pub poll_interval_secs: u32,
}

/// Why a subscription was not made: 503.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LedgerFull {
    /// The mailbox has as many as it may have.
    #[error("the mailbox has too many subscriptions")]
    Mailbox,
    /// The back end has as many as it may have.
    #[error("the back end has too many subscriptions")]
    Total,
    /// The call-back is that of a front end process whose successor was heard of: nobody waits any more.
    #[error("the front end was restarted since")]
    Replaced,
}

/// What UNSUBSCRIBE found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsubscribed {
    /// Per id asked about.
    pub answers: Vec<SubscriptionAnswer>,
    /// It was conditional and nothing counted: all stays.
    pub kept: bool,
    /// An event that the device has to hear of.
    pub event: Option<DeviceEvent>,
}

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LedgerCounters {
    /// Subscriptions made.
    pub subscribed: u64,
    /// Subscriptions that ended by their lifetime.
    pub expired: u64,
    /// Subscriptions dropped because their call-back fell silent or was replaced.
    pub dropped: u64,
    /// NOTIFYs sent, repetitions included.
    pub notifies: u64,
    /// Repetitions.
    pub repeats: u64,
    /// NOTIFYs not sent because a budget was used up.
    pub suppressed: u64,
    /// Wakes put off because the device's budget was used up.
    pub held: u64,
}

/// The subscriptions of one back end process. The shell calls `handle_*`, sends what
/// [`Ledger::take_datagrams`] gives, and calls [`Ledger::handle_time`] at [`Ledger::deadline`].
#[derive(Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    rng: fastrand::Rng,
    next_id: u32,
    groups: Vec<Option<Box<Group>>>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32>,
    by_folder: BTreeSet<(u64, u64, u32)>,
    due: BTreeSet<(Moment, u32)>,
    call_backs: BTreeMap<u16, KnownCallBack>,
    /// Call-backs of processes that have a successor; the oldest first.
    replaced: VecDeque<CallBack>,
    wakes: WakeBudget,
    outbox: Vec<Notify>,
    counters: LedgerCounters,
}

impl Ledger {
    /// An empty ledger. `seed`, random for each process, jitters repetitions and sets the first id.
    pub fn new(limits: LedgerLimits, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            limits,
            // Not 1: a request that names subscriptions of the process before must not mean some of this one's.
            next_id: rng.u32(1..=u32::MAX),
            rng,
            groups: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_folder: BTreeSet::new(),
            due: BTreeSet::new(),
            call_backs: BTreeMap::new(),
            replaced: VecDeque::new(),
            wakes: WakeBudget::default(),
            outbox: Vec::new(),
            counters: LedgerCounters::default(),
        }
    }

    /// The same, waking each device at most so many times a minute on average, as many at once if it was quiet before;
    /// 0 = as often as something comes. What comes beyond is told when the budget allows, and at the end of the Ping.
    #[must_use]
    pub fn with_wakes_per_minute(mut self, wakes: u32) -> Self {
        self.wakes = WakeBudget::new(wakes);
        self
    }

    /// Registers a subscription. The comparison with the store comes after it ([`Ledger::handle_compared`]), so
    /// that no change can fall between.
    ///
    /// # Errors
    /// [`LedgerFull`] when a bound is reached.
    pub fn handle_subscribe(
        &mut self,
        now: Moment,
        new: &NewSubscription,
    ) -> Result<SubscriptionId, LedgerFull> {
        if self.by_id.len() >= self.limits.total {
            return Err(LedgerFull::Total);
        }
        let in_mailbox =
            self.by_folder.range((new.mailbox, 0, 0)..=(new.mailbox, u64::MAX, u32::MAX)).count();
        if in_mailbox >= self.limits.per_mailbox {
            return Err(LedgerFull::Mailbox);
        }
        let call_back = self.call_back(now, new)?;
        let expires = now.plus_secs(u64::from(new.lifetime_secs.clamp(1, LIFETIME_SECS_MAX)));
        let slot = self.group_of(new.mailbox, new.group, call_back).unwrap_or_else(|| {
            self.insert(Group {
                guid: new.group,
                device: new.device.clone(),
                mailbox: new.mailbox,
                subscriptions: SmallVec::new(),
                expires,
                due: Moment::NEVER,
                delay_secs: new.delay_secs,
                call_back,
                datagrams: 0,
                event: None,
                telling: None,
            })
        });
        self.forget_folder(slot, new.folder);
        let id = self.fresh_id();
        self.by_id.insert(id, slot);
        self.by_folder.insert((new.mailbox, new.folder, slot));
        if let Some(known) = self.call_backs.get_mut(&call_back) {
            known.subscriptions += 1;
        }
        let subscription = Subscription {
            base: new.base,
            floor: new.floor.unwrap_or(i64::MIN),
            folder: new.folder,
            id,
            level: Wake::Never,
        };
        if let Some(group) = self.group_mut(slot) {
            group.subscriptions.push(subscription);
            group.expires = group.expires.max(expires);
        }
        self.reschedule(slot);
        self.counters.subscribed += 1;
        Ok(SubscriptionId(u64::from(id)))
    }

    /// Records what the comparison at SUBSCRIBE found. `Now` goes out with the answer to SUBSCRIBE, so no NOTIFY
    /// is sent for it. Returns what the answer has to say: `Later` instead of `Now` if the device's budget of wakes is
    /// used up.
    pub fn handle_compared(&mut self, now: Moment, id: SubscriptionId, found: Wake) -> Wake {
        let Some((slot, n)) = self.find(id) else { return found };
        let held = if found == Wake::Now { self.hold(now, slot) } else { None };
        let Some(group) = self.group_mut(slot) else { return found };
        let found = if held.is_some() { Wake::Later } else { found };
        let level = &mut group.subscriptions[n].level;
        *level = found.max(*level);
        match held {
            Some(until) => group.hold(until),
            None if found == Wake::Later => group.wait_for_delay(now),
            None => {}
        }
        self.reschedule(slot);
        found
    }

    /// A subscription that its asker never heard of: it goes, and its group with the last one.
    pub fn handle_withdrawn(&mut self, id: SubscriptionId) {
        let Some((slot, n)) = self.find(id) else { return };
        match self.group(slot) {
            Some(group) if group.subscriptions.len() > 1 => {
                let (mailbox, folder) = (group.mailbox, group.subscriptions[n].folder);
                self.forget_folder(slot, folder);
                self.by_folder.remove(&(mailbox, folder, slot));
            }
            _ => self.remove(slot),
        }
    }

    /// A change of a folder is durable: whoever watches it is told, now or later.
    pub fn handle_change(&mut self, now: Moment, mailbox: u64, folder: u64, entry: &Entry) {
        let watchers: SmallVec<[u32; 4]> = self
            .by_folder
            .range((mailbox, folder, 0)..=(mailbox, folder, u32::MAX))
            .map(|&(_, _, slot)| slot)
            .collect();
        for slot in watchers {
            let Some(group) = self.group(slot) else { continue };
            let Some(n) = group.subscriptions.iter().position(|s| s.folder == folder) else { continue };
            let Subscription { base, floor, .. } = group.subscriptions[n];
            let floor = (floor != i64::MIN).then_some(floor);
            let mut level = wake(entry, base, floor, &group.device);
            if level == Wake::Later && group.delay_secs == 0 {
                level = Wake::Now;
            }
            let held = if level == Wake::Now { self.hold(now, slot) } else { None };
            let Some(group) = self.group_mut(slot) else { continue };
            if held.is_some() {
                level = Wake::Later;
            }
            let subscription = &mut group.subscriptions[n];
            subscription.level = subscription.level.max(level);
            match (level, held) {
                (Wake::Never, _) => continue,
                (_, Some(until)) => group.hold(until),
                (Wake::Later, None) => group.wait_for_delay(now),
                (Wake::Now, None) => group.tell_at(now),
            }
            self.reschedule(slot);
        }
        self.send_due(now);
    }

    /// Something a device has to hear of though no item changed: for one device of the mailbox, or for all but
    /// the one that caused it.
    pub fn handle_event(
        &mut self,
        now: Moment,
        mailbox: u64,
        only: Option<&DeviceKey>,
        except: Option<&DeviceKey>,
        event: DeviceEvent,
    ) {
        for slot in self.groups_of(mailbox) {
            let Some(group) = self.group_mut(slot) else { continue };
            let meant = only.is_none_or(|device| *device == group.device)
                && except.is_none_or(|device| *device != group.device);
            if meant {
                group.event = group.event.max(Some(event));
                group.tell_at(now);
                self.reschedule(slot);
            }
        }
        self.send_due(now);
    }

    /// Renewal by ids: lengthens the life of those that are this front end's and ends the repetition of their
    /// NOTIFYs; what is unacknowledged stays for POLL.
    /// One answer per id: `Unchanged` = renewed, `Unknown`.
    pub fn handle_renew(
        &mut self,
        now: Moment,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
        lifetime_secs: u32,
    ) -> Vec<SubscriptionAnswer> {
        let expires = now.plus_secs(u64::from(lifetime_secs.clamp(1, LIFETIME_SECS_MAX)));
        self.answer_each(now, front_end, ids, |group, _| {
            group.expires = group.expires.max(expires);
            SubscriptionStatus::Unchanged
        })
    }

    /// POLL by ids: says what changed and acknowledges it.
    pub fn handle_poll(
        &mut self,
        now: Moment,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
    ) -> Vec<SubscriptionAnswer> {
        self.answer_each(now, front_end, ids, |group, n| {
            let level = std::mem::take(&mut group.subscriptions[n].level);
            if level == Wake::Never { SubscriptionStatus::Unchanged } else { SubscriptionStatus::Changed }
        })
    }

    /// POLL by call-back: the subscriptions that count and are not acknowledged, and how many there are in all.
    /// Acknowledges nothing.
    pub fn handle_poll_call_back(
        &mut self,
        now: Moment,
        front_end: FrontEndNumber,
        call_back: &CallBack,
        poll_interval_secs: u32,
    ) -> (Vec<SubscriptionAnswer>, usize) {
        let known =
            self.call_backs.iter_mut().find(|(_, k)| k.call_back == *call_back && k.front_end == front_end);
        let Some((&number, known)) = known else { return (Vec::new(), 0) };
        known.poll_interval_secs = poll_interval_secs.max(1);
        known.heard(now);
        let count = known.subscriptions;
        let mut answers = Vec::new();
        for group in self.groups.iter().flatten().filter(|group| group.call_back == number) {
            if answers.len() >= POLL_ANSWERS_MAX {
                break;
            }
            // One is enough: the front end then asks about the whole group.
            let mut told = group.subscriptions.iter();
            let told = told.find(|s| s.level == Wake::Now || group.event.is_some());
            answers.extend(told.map(|s| SubscriptionAnswer {
                id: SubscriptionId(u64::from(s.id)),
                status: SubscriptionStatus::Changed,
                group: Some(group.guid),
            }));
        }
        (answers, count)
    }

    /// UNSUBSCRIBE. Ends the groups of the ids and says which changed; if `only_if_changed` and nothing counts now,
    /// ends nothing and acknowledges the NOTIFY that made the front end ask.
    pub fn handle_unsubscribe(
        &mut self,
        now: Moment,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
        only_if_changed: bool,
    ) -> Unsubscribed {
        let mut slots: SmallVec<[u32; 1]> = SmallVec::new();
        let mut event = None;
        let mut counts = false;
        let answers = self.answer_each(now, front_end, ids, |group, n| {
            counts |= group.counts();
            event = event.max(group.event);
            match group.subscriptions[n].level {
                Wake::Never => SubscriptionStatus::Unchanged,
                Wake::Later | Wake::Now => SubscriptionStatus::Changed,
            }
        });
        for id in ids {
            if let Some((slot, _)) = self.find_of(front_end, *id)
                && !slots.contains(&slot)
            {
                slots.push(slot);
            }
        }
        // An id that is unknown means that the front end's picture is wrong: it has to know.
        let all_known = answers.iter().all(|answer| answer.status != SubscriptionStatus::Unknown);
        if only_if_changed && !counts && all_known {
            let answers = answers
                .into_iter()
                .map(|answer| SubscriptionAnswer { status: SubscriptionStatus::Unchanged, ..answer })
                .collect();
            return Unsubscribed { answers, kept: true, event: None };
        }
        for slot in slots {
            self.remove(slot);
        }
        Unsubscribed { answers, kept: false, event }
    }

    /// Does what is due: delays that passed, repetitions, expiry, call-backs that fell silent.
    pub fn handle_time(&mut self, now: Moment) {
        let silent: Vec<u16> = self
            .call_backs
            .iter()
            .filter(|(_, k)| k.silent_after <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in silent {
            self.drop_call_back(number);
        }
        self.send_due(now);
    }

    /// When [`Ledger::handle_time`] has something to do.
    pub fn deadline(&self) -> Moment {
        let silent = self.call_backs.values().map(|known| known.silent_after).min();
        let due = self.due.first().map(|(due, _)| *due);
        due.unwrap_or(Moment::NEVER).min(silent.unwrap_or(Moment::NEVER))
    }

    /// The datagrams to send, in order. They are hints: a send that fails needs no report.
    pub fn take_datagrams(&mut self) -> Vec<Notify> {
        std::mem::take(&mut self.outbox)
    }

    /// Subscriptions now.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What happened so far.
    pub fn counters(&self) -> LedgerCounters {
        self.counters
    }

    fn send_due(&mut self, now: Moment) {
        while let Some(&(due, slot)) = self.due.first() {
            if due > now {
                break;
            }
            let Some(group) = self.group_mut(slot) else {
                self.due.remove(&(due, slot));
                continue;
            };
            if group.expires <= now {
                self.counters.expired += group.subscriptions.len() as u64;
                self.remove(slot);
                continue;
            }
            // Changes that have waited long enough wake too.
            if group.is_ripe(now)
                && let Some(until) = self.hold(now, slot)
            {
                if let Some(group) = self.group_mut(slot) {
                    group.put_off(until);
                }
                self.reschedule(slot);
                continue;
            }
            let Some(group) = self.group_mut(slot) else { continue };
            group.ripen(now);
            if group.telling.as_ref().is_some_and(|telling| telling.next <= now) {
                self.send(now, slot);
            }
            self.reschedule(slot);
        }
    }

    /// Whether a wake of this group's device has to wait, and until when. If it has not, it is counted, once for each
    /// time that a group begins to tell something: what else comes then travels with it.
    fn hold(&mut self, now: Moment, slot: u32) -> Option<Moment> {
        let group = self.groups.get(slot as usize)?.as_deref()?;
        if group.counts() {
            return None;
        }
        let until = self.wakes.spend(now, group.mailbox, &group.device)?;
        self.counters.held += 1;
        Some(until)
    }

    /// Sends a group's NOTIFY and plans its repetition.
    fn send(&mut self, now: Moment, slot: u32) {
        // Each repetition comes up to a tenth later than planned, so that many groups do not keep step.
        let jitter = self.rng.u64(0..=100);
        let Some(group) = self.groups.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some(telling) = group.telling.as_mut() else { return };
        let repeat = REPEATS_MILLIS.get(usize::from(telling.sent));
        telling.next =
            repeat.map_or(Moment::NEVER, |millis| now.plus_millis(millis + millis * jitter / 1000));
        let again = telling.sent > 0;
        telling.sent = telling.sent.saturating_add(1);
        let known = self.call_backs.get_mut(&group.call_back);
        let allowed = group.datagrams < DATAGRAMS_PER_GROUP_MAX
            && known.is_some_and(|known| known.spend(now, self.limits.datagrams_per_second));
        if !allowed {
            self.counters.suppressed += 1;
            return;
        }
        group.datagrams += 1;
        let event = group.event.is_some();
        let told = group.subscriptions.iter().filter(|s| s.level == Wake::Now || event);
        let ids = told.take(crate::httpu::IDS_MAX).map(|s| SubscriptionId(u64::from(s.id))).collect();
        if let Some(known) = self.call_backs.get(&group.call_back) {
            self.outbox.push(Notify { call_back: known.call_back.clone(), group: Some(group.guid), ids });
            self.counters.notifies += 1;
            self.counters.repeats += u64::from(again);
        }
    }

    /// Applies `each` to every subscription of `ids` that is this front end's; acknowledges what no longer counts.
    fn answer_each(
        &mut self,
        now: Moment,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
        mut each: impl FnMut(&mut Group, usize) -> SubscriptionStatus,
    ) -> Vec<SubscriptionAnswer> {
        let mut answers = Vec::with_capacity(ids.len());
        for &id in ids {
            let mut status = SubscriptionStatus::Unknown;
            if let Some((slot, n)) = self.find_of(front_end, id)
                && let Some(group) = self.group_mut(slot)
            {
                status = each(group, n);
                let number = group.call_back;
                if let Some(known) = self.call_backs.get_mut(&number) {
                    known.heard(now);
                }
                if let Some(group) = self.group_mut(slot) {
                    group.acknowledge();
                }
                self.reschedule(slot);
            }
            answers.push(SubscriptionAnswer { id, status, group: None });
        }
        answers
    }
}

#[cfg(test)]
mod tests;
