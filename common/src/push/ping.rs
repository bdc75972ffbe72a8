//! One waiting Ping, from the moment its question is complete to its answer.
//!
//! The device asks: tell me when one of these folders changes, or after this many seconds ([MS-ASCMD] 2.2.1.13 Ping).
//! [`PingWait`] holds that question and says at each moment what is to be done: subscribe to folders, wait, ask the
//! back end whether a NOTIFY was meant seriously, end the subscriptions, answer. The shell does it and
//! reports back. A NOTIFY is only a reason to ask; the answer comes from UNSUBSCRIBE.
//!
//! Not here: WBXML, AutdState, which folders to watch, who finds this Ping for a NOTIFY (`routing`).

use smallvec::SmallVec;

use crate::{
    clock::Moment,
    dav::{
        poll::{SubscriptionAnswer, SubscriptionStatus},
        subscribe::{Already, DeviceEvent},
    },
    httpu::SubscriptionId,
};

/// Milliseconds between two questions to the back end about one Ping, at least.
pub const ASK_MILLIS_MIN: u64 = 1000;
/// Milliseconds before a failed re-subscription is tried again.
const RETRY_MILLIS: u64 = 1000;
/// NOTIFYs kept that came before the answer to their SUBSCRIBE.
const EARLY_MAX: usize = 8;

/// What the device is told when its Ping ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PingOutcome {
    /// Status 1: the heartbeat passed and nothing changed.
    Expired,
    /// Status 2: the folders at these positions changed.
    Changed(SmallVec<[u16; 4]>),
    /// Status 7, or the refusal that the next command will get.
    Event(DeviceEvent),
    /// Status 8, after a short hold: the folders could not be watched.
    Failed,
    /// 503 + Retry-After: a newer Ping of this device took the place. Not Status 1: the heartbeat has not
    /// passed, and a phone would learn a wrong one from it.
    Superseded,
    /// 503 + Retry-After: this front end is stopping.
    Draining,
}

/// What the shell is to do now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PingStep {
    /// SUBSCRIBE to the folders at these positions, then report each.
    Subscribe(SmallVec<[u16; 4]>),
    /// Nothing before [`PingWait::deadline`] or the next event.
    Wait,
    /// UNSUBSCRIBE if something counts (`DirectPush-Only-If-Changed`), then report the answer.
    Ask,
    /// UNSUBSCRIBE whatever there is, then report the answer.
    End,
    /// Answer the device.
    Answer(PingOutcome),
}

/// Why a SUBSCRIBE failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubscribeFailure {
    /// The back end cannot compare with the device's token: its Sync has to start over. As good as a change.
    TokenGone,
    /// The folder is gone: the device holds an old hierarchy.
    FolderGone,
    /// The back end is down, slow or refuses.
    Backend,
}

/// What UNSUBSCRIBE said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsubscribeAnswer {
    /// Per subscription.
    pub answers: Vec<SubscriptionAnswer>,
    /// Nothing counted; the subscriptions live on.
    pub kept: bool,
    /// An event that the device has to hear of.
    pub event: Option<DeviceEvent>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    /// 0 = not subscribed now; back ends count from 1.
    id: u64,
    changed: bool,
    asked: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Some folder is not subscribed; the shell may be at it.
    Subscribing,
    Waiting,
    /// A question is on its way.
    Asking,
    /// The last question is on its way.
    Ending,
    Done,
}

/// Ids of NOTIFYs that came before the answer to their SUBSCRIBE.
type Early = SmallVec<[u32; EARLY_MAX]>;

/// Why the wait ends although nobody said that a folder changed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reason {
    Deadline,
    Failed,
    Superseded,
    Draining,
    Changed,
    Event(DeviceEvent),
}

/// One Ping, waiting. The shell calls `handle_*` as things happen and asks [`PingWait::step`] what to do.
#[derive(Debug)]
pub struct PingWait {
    deadline: Moment,
    /// Not before this moment: the next question, or the next try to subscribe.
    not_before: Moment,
    watched: SmallVec<[Watched; 1]>,
    /// Few Pings have any, and those not for long.
    early: Option<Box<Early>>,
    phase: Phase,
    notified: bool,
    established: bool,
    restarted: bool,
    reason: Option<Reason>,
}

impl PingWait {
    /// A Ping over `folders` folders (1 to 65535) that waits until `deadline`.
    pub fn new(deadline: Moment, folders: usize) -> Self {
        let unsubscribed = Watched { id: 0, changed: false, asked: false };
        Self {
            deadline,
            not_before: Moment::default(),
            watched: SmallVec::from_elem(unsubscribed, folders.min(usize::from(u16::MAX))),
            early: None,
            phase: Phase::Subscribing,
            notified: false,
            established: false,
            restarted: false,
            reason: None,
        }
    }

    /// What to do now. `Subscribe`, `Ask` and `End` are said once; the shell then reports.
    pub fn step(&mut self, now: Moment) -> PingStep {
        match self.phase {
            Phase::Done => return PingStep::Answer(self.outcome()),
            Phase::Asking | Phase::Ending => return PingStep::Wait,
            Phase::Subscribing | Phase::Waiting => {}
        }
        if now >= self.deadline && self.established {
            self.reason = self.reason.max(Some(Reason::Deadline));
        }
        if self.reason.is_some() && !self.watched.iter().any(|watched| watched.asked) {
            let subscribed = self.watched.iter().any(|watched| watched.id != 0);
            self.phase = if subscribed { Phase::Ending } else { Phase::Done };
            return if subscribed { PingStep::End } else { PingStep::Answer(self.outcome()) };
        }
        if self.phase == Phase::Subscribing && now >= self.not_before {
            let missing: SmallVec<[u16; 4]> = self.positions(|watched| watched.id == 0 && !watched.asked);
            for &position in &missing {
                self.watched[usize::from(position)].asked = true;
            }
            if !missing.is_empty() {
                return PingStep::Subscribe(missing);
            }
        }
        if self.phase == Phase::Waiting && self.notified && now >= self.not_before {
            self.phase = Phase::Asking;
            self.notified = false;
            self.not_before = now.plus_millis(ASK_MILLIS_MIN);
            return PingStep::Ask;
        }
        PingStep::Wait
    }

    /// When the heartbeat has passed.
    pub fn expires(&self) -> Moment {
        self.deadline
    }

    /// When [`PingWait::step`] has something new to say though nothing happened.
    pub fn deadline(&self) -> Moment {
        match self.phase {
            Phase::Waiting if self.notified => self.not_before.min(self.deadline),
            Phase::Subscribing if self.established => self.not_before.min(self.deadline),
            Phase::Waiting => self.deadline,
            Phase::Subscribing | Phase::Asking | Phase::Ending | Phase::Done => Moment::NEVER,
        }
    }

    /// The subscriptions that UNSUBSCRIBE has to name.
    pub fn subscriptions(&self) -> impl Iterator<Item = SubscriptionId> {
        self.watched.iter().filter(|watched| watched.id != 0).map(|watched| SubscriptionId(watched.id))
    }

    /// A SUBSCRIBE was answered 200.
    pub fn handle_subscribed(
        &mut self,
        position: u16,
        id: SubscriptionId,
        already: Already,
        event: Option<DeviceEvent>,
    ) {
        let Some(watched) = self.watched.get_mut(usize::from(position)) else { return };
        watched.id = id.0;
        watched.asked = false;
        if already == Already::Now {
            watched.changed = true;
            self.end(Reason::Changed);
        }
        if let Some(event) = event {
            self.end(Reason::Event(event));
        }
        if self.early.as_ref().is_some_and(|early| early.iter().any(|&early| u64::from(early) == id.0)) {
            self.notified = true;
        }
        self.settle();
    }

    /// A SUBSCRIBE failed. The first time that ends the Ping; a Ping that waited already tries again, because
    /// back ends come back.
    pub fn handle_subscribe_failed(&mut self, now: Moment, position: u16, failure: SubscribeFailure) {
        let Some(watched) = self.watched.get_mut(usize::from(position)) else { return };
        watched.asked = false;
        match failure {
            SubscribeFailure::TokenGone => {
                watched.changed = true;
                self.end(Reason::Changed);
            }
            SubscribeFailure::FolderGone => self.end(Reason::Event(DeviceEvent::Hierarchy)),
            SubscribeFailure::Backend if self.established => self.not_before = now.plus_millis(RETRY_MILLIS),
            SubscribeFailure::Backend => self.end(Reason::Failed),
        }
        self.settle();
    }

    /// Records a NOTIFY or a finding of POLL for one subscription. Repetitions change nothing. Says whether it
    /// was for this Ping, as far as can be known before all SUBSCRIBEs are answered.
    pub fn handle_notify(&mut self, id: Option<SubscriptionId>) -> bool {
        let ours = id.is_none_or(|id| self.watched.iter().any(|watched| watched.id == id.0));
        if ours {
            self.notified = true;
            return true;
        }
        let pending = self.watched.iter().any(|watched| watched.id == 0);
        if let Some(early) = id.and_then(|id| u32::try_from(id.0).ok())
            && pending
        {
            let known = self.early.get_or_insert_default();
            let room = known.len() < EARLY_MAX;
            if room && !known.contains(&early) {
                known.push(early);
            }
            return room;
        }
        false
    }

    /// Whether a NOTIFY for it was recorded and not yet asked about.
    pub fn is_notified(&self) -> bool {
        self.notified
            || matches!(self.phase, Phase::Asking | Phase::Ending | Phase::Done)
            || self.reason.is_some()
    }

    /// What a conditional or final UNSUBSCRIBE said; `None` = no answer in time. A back end that does not answer
    /// does not hold up the device.
    pub fn handle_unsubscribed(&mut self, now: Moment, answer: Option<&UnsubscribeAnswer>) {
        let ending = self.phase == Phase::Ending;
        match answer {
            Some(answer) => self.take_answer(answer),
            None if ending => {}
            None => {
                self.notified = true;
                self.not_before = now.plus_millis(ASK_MILLIS_MIN);
            }
        }
        let ended = answer.is_some_and(|answer| !answer.kept);
        if ending || (ended && self.reason.is_some()) {
            self.forget_subscriptions();
            self.phase = Phase::Done;
            return;
        }
        if ended || self.restarted {
            // The back end knew none of them, or is a new process: subscribe again, in place.
            self.forget_subscriptions();
        }
        self.phase = Phase::Waiting;
        self.settle();
    }

    /// The back end is a new process, or may be: every subscription there is gone.
    pub fn handle_backend_restarted(&mut self) {
        match self.phase {
            Phase::Asking | Phase::Ending => self.restarted = true,
            Phase::Done => {}
            Phase::Subscribing | Phase::Waiting => {
                self.forget_subscriptions();
                self.settle();
            }
        }
    }

    /// Another Ping of the device took the place.
    pub fn handle_superseded(&mut self) {
        self.end(Reason::Superseded);
    }

    /// The front end is stopping.
    pub fn handle_drain(&mut self) {
        self.end(Reason::Draining);
    }

    fn take_answer(&mut self, answer: &UnsubscribeAnswer) {
        for answer in &answer.answers {
            let found = self.watched.iter_mut().find(|watched| watched.id == answer.id.0);
            if let Some(watched) = found.filter(|_| answer.status == SubscriptionStatus::Changed) {
                watched.changed = true;
                self.reason = self.reason.max(Some(Reason::Changed));
            }
        }
        if let Some(event) = answer.event {
            self.end(Reason::Event(event));
        }
    }

    fn outcome(&self) -> PingOutcome {
        match self.reason {
            Some(Reason::Event(event)) => PingOutcome::Event(event),
            Some(Reason::Changed) => PingOutcome::Changed(self.positions(|watched| watched.changed)),
            Some(Reason::Draining) => PingOutcome::Draining,
            Some(Reason::Superseded) => PingOutcome::Superseded,
            Some(Reason::Failed) => PingOutcome::Failed,
            Some(Reason::Deadline) | None => PingOutcome::Expired,
        }
    }

    fn end(&mut self, reason: Reason) {
        self.reason = self.reason.max(Some(reason));
    }

    fn forget_subscriptions(&mut self) {
        self.restarted = false;
        self.early = None;
        self.watched.iter_mut().for_each(|watched| watched.id = 0);
    }

    /// Subscribing while a folder is missing, waiting otherwise.
    fn settle(&mut self) {
        let complete = self.watched.iter().all(|watched| watched.id != 0);
        self.established |= complete;
        self.phase = if complete { Phase::Waiting } else { Phase::Subscribing };
        if complete {
            self.early = None;
        }
    }

    fn positions(&self, which: impl Fn(&Watched) -> bool) -> SmallVec<[u16; 4]> {
        (0u16..)
            .zip(&self.watched)
            .filter(|(_, watched)| which(watched))
            .map(|(position, _)| position)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    const T: Moment = Moment(1_000_000);

    fn deadline() -> Moment {
        T.plus_secs(480)
    }

    /// A Ping over `folders` folders with subscriptions 1, 2, … that waits.
    fn waiting(folders: u16) -> PingWait {
        let mut ping = PingWait::new(deadline(), usize::from(folders));
        assert_eq!(ping.step(T), PingStep::Subscribe((0..folders).collect()));
        for position in 0..folders {
            ping.handle_subscribed(position, SubscriptionId(u64::from(position) + 1), Already::Nothing, None);
        }
        assert_eq!(ping.step(T), PingStep::Wait);
        ping
    }

    fn answer(changed: &[bool], kept: bool) -> UnsubscribeAnswer {
        let status =
            |changed| if changed { SubscriptionStatus::Changed } else { SubscriptionStatus::Unchanged };
        let answers = (1..).zip(changed).map(|(id, &changed)| SubscriptionAnswer {
            id: SubscriptionId(id),
            status: status(changed),
            group: None,
        });
        UnsubscribeAnswer { answers: answers.collect(), kept, event: None }
    }

    fn changed(positions: &[u16]) -> PingStep {
        PingStep::Answer(PingOutcome::Changed(SmallVec::from_slice(positions)))
    }

    #[test]
    fn the_heartbeat_passes() {
        let mut ping = waiting(2);
        assert_eq!(ping.deadline(), deadline());
        assert_eq!(ping.step(Moment(deadline().0 - 1)), PingStep::Wait);
        assert_eq!(ping.step(deadline()), PingStep::End);
        ping.handle_unsubscribed(deadline(), Some(&answer(&[false, false], false)));
        assert_eq!(ping.step(deadline()), PingStep::Answer(PingOutcome::Expired));
    }

    #[test]
    fn a_change_that_the_deadline_finds_is_status_2() {
        let mut ping = waiting(2);
        assert_eq!(ping.step(deadline()), PingStep::End);
        ping.handle_unsubscribed(deadline(), Some(&answer(&[false, true], false)));
        assert_eq!(ping.step(deadline()), changed(&[1]));
    }

    #[test]
    fn a_back_end_that_does_not_answer_does_not_hold_up_the_device() {
        let mut ping = waiting(1);
        assert_eq!(ping.step(deadline()), PingStep::End);
        ping.handle_unsubscribed(deadline(), None);
        assert_eq!(ping.step(deadline()), PingStep::Answer(PingOutcome::Expired));
    }

    #[test]
    fn a_notify_is_asked_about_and_wakes_with_all_changed_folders() {
        let mut ping = waiting(3);
        assert!(ping.handle_notify(Some(SubscriptionId(2))));
        assert_eq!(ping.step(T), PingStep::Ask);
        assert_eq!(ping.step(T), PingStep::Wait, "asked once");
        ping.handle_unsubscribed(T, Some(&answer(&[false, true, true], false)));
        assert_eq!(ping.step(T), changed(&[1, 2]));
    }

    #[test]
    fn a_stray_notify_costs_one_question_per_second() {
        let mut ping = waiting(1);
        ping.handle_notify(Some(SubscriptionId(1)));
        assert_eq!(ping.step(T), PingStep::Ask);
        ping.handle_unsubscribed(T, Some(&answer(&[false], true)));
        for millis in [0, 1, 999] {
            ping.handle_notify(Some(SubscriptionId(1)));
            assert_eq!(ping.step(T.plus_millis(millis)), PingStep::Wait);
        }
        assert_eq!(ping.deadline(), T.plus_millis(1000));
        assert_eq!(ping.step(T.plus_millis(1000)), PingStep::Ask);
        assert!(!ping.handle_notify(Some(SubscriptionId(77))), "not this Ping's");
    }

    #[test]
    fn what_counted_already_is_answered_at_once() {
        let mut ping = PingWait::new(deadline(), 2);
        ping.step(T);
        ping.handle_subscribed(0, SubscriptionId(1), Already::Now, None);
        assert_eq!(ping.step(T), PingStep::Wait, "the other SUBSCRIBE is still on its way");
        ping.handle_subscribed(1, SubscriptionId(2), Already::Nothing, None);
        assert_eq!(ping.step(T), PingStep::End);
        assert_eq!(ping.subscriptions().count(), 2);
        ping.handle_unsubscribed(T, None);
        assert_eq!(ping.step(T), changed(&[0]), "known before, whatever the back end says");
    }

    #[test]
    fn a_notify_that_overtakes_its_subscribe_is_held() {
        let mut ping = PingWait::new(deadline(), 1);
        ping.step(T);
        assert!(ping.handle_notify(Some(SubscriptionId(9))));
        assert_eq!(ping.step(T), PingStep::Wait);
        ping.handle_subscribed(0, SubscriptionId(9), Already::Nothing, None);
        assert_eq!(ping.step(T), PingStep::Ask);
    }

    #[test]
    fn a_failed_first_subscribe_ends_the_ping_and_what_was_made_is_ended() {
        let mut ping = PingWait::new(deadline(), 2);
        ping.step(T);
        ping.handle_subscribed(0, SubscriptionId(1), Already::Nothing, None);
        ping.handle_subscribe_failed(T, 1, SubscribeFailure::Backend);
        assert_eq!(ping.step(T), PingStep::End);
        ping.handle_unsubscribed(T, None);
        assert_eq!(ping.step(T), PingStep::Answer(PingOutcome::Failed));
        let mut all = PingWait::new(deadline(), 1);
        all.step(T);
        all.handle_subscribe_failed(T, 0, SubscribeFailure::Backend);
        assert_eq!(all.step(T), PingStep::Answer(PingOutcome::Failed));
    }

    #[test]
    fn a_token_or_folder_that_is_gone_says_so() {
        for (failure, expected) in [
            (SubscribeFailure::TokenGone, changed(&[0])),
            (SubscribeFailure::FolderGone, PingStep::Answer(PingOutcome::Event(DeviceEvent::Hierarchy))),
        ] {
            let mut ping = PingWait::new(deadline(), 1);
            ping.step(T);
            ping.handle_subscribe_failed(T, 0, failure);
            assert_eq!(ping.step(T), expected);
        }
    }

    #[test]
    fn a_restarted_back_end_is_subscribed_to_again_in_place() {
        let mut ping = waiting(2);
        ping.handle_backend_restarted();
        assert_eq!(ping.step(T), PingStep::Subscribe(smallvec![0, 1]));
        ping.handle_subscribe_failed(T, 0, SubscribeFailure::Backend);
        ping.handle_subscribed(1, SubscriptionId(5), Already::Nothing, None);
        assert_eq!(ping.step(T), PingStep::Wait);
        assert_eq!(ping.deadline(), T.plus_millis(1000));
        assert_eq!(ping.step(T.plus_millis(1000)), PingStep::Subscribe(smallvec![0]));
        ping.handle_subscribed(0, SubscriptionId(6), Already::Now, None);
        assert_eq!(ping.step(T), PingStep::End);
    }

    #[test]
    fn a_back_end_that_stays_away_ends_with_the_heartbeat() {
        let mut ping = waiting(1);
        ping.handle_backend_restarted();
        ping.step(T);
        ping.handle_subscribe_failed(T, 0, SubscribeFailure::Backend);
        assert_eq!(ping.step(deadline()), PingStep::Answer(PingOutcome::Expired));
    }

    #[test]
    fn a_restart_during_a_question_subscribes_again() {
        let mut ping = waiting(1);
        ping.handle_notify(None);
        assert_eq!(ping.step(T), PingStep::Ask);
        ping.handle_backend_restarted();
        ping.handle_unsubscribed(T, None);
        assert_eq!(ping.step(T.plus_secs(2)), PingStep::Subscribe(smallvec![0]));
        let mut lost = waiting(1);
        lost.handle_notify(None);
        lost.step(T);
        let unknown =
            SubscriptionAnswer { id: SubscriptionId(1), status: SubscriptionStatus::Unknown, group: None };
        let answer = UnsubscribeAnswer { answers: vec![unknown], kept: false, event: None };
        lost.handle_unsubscribed(T, Some(&answer));
        assert_eq!(
            lost.step(T.plus_secs(1)),
            PingStep::Subscribe(smallvec![0]),
            "the back end knew nothing of it"
        );
    }

    #[test]
    fn events_beat_changes_and_changes_beat_everything_else() {
        let mut ping = waiting(1);
        ping.handle_drain();
        assert_eq!(ping.step(T), PingStep::End);
        ping.handle_unsubscribed(T, Some(&answer(&[true], false)));
        assert_eq!(ping.step(T), changed(&[0]), "mail is here: better than 503");
        let mut ping = waiting(1);
        ping.handle_superseded();
        assert_eq!(ping.step(T), PingStep::End);
        ping.handle_unsubscribed(T, Some(&answer(&[false], false)));
        assert_eq!(ping.step(T), PingStep::Answer(PingOutcome::Superseded));
        let mut ping = waiting(1);
        ping.handle_notify(None);
        ping.step(T);
        let event = UnsubscribeAnswer { event: Some(DeviceEvent::Wipe), ..answer(&[true], false) };
        ping.handle_unsubscribed(T, Some(&event));
        assert_eq!(ping.step(T), PingStep::Answer(PingOutcome::Event(DeviceEvent::Wipe)));
    }

    #[test]
    fn a_change_wins_over_expiry_in_the_same_instant() {
        let mut ping = waiting(1);
        ping.handle_notify(Some(SubscriptionId(1)));
        assert_eq!(ping.step(deadline()), PingStep::End);
        ping.handle_unsubscribed(deadline(), Some(&answer(&[true], false)));
        assert_eq!(ping.step(deadline()), changed(&[0]));
    }
}
