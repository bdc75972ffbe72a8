//! One message in the queue: its envelope, which never changes, and how far it has come.
//!
//! Pure: the owner (`super::owner`) hands in results and the time, asks what is owed, and writes the
//! state down. A recipient ends as delivered, or as failed and told; a message without any other
//! recipient is done.

use directpush_common::names::UserName;
use serde::{Deserialize, Serialize};

use super::reply::Reply;
use super::schedule::Times;

/// Who wrote a message, to whom. Never changes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Envelope {
    /// Who submitted it; reports go to this user's mailbox.
    pub user: UserName,
    /// The reverse path.
    pub sender: String,
    /// Where it goes.
    pub route: Route,
    /// The forward paths, at least one.
    pub recipients: Vec<String>,
    /// When it was accepted, in Unix seconds.
    pub accepted: u64,
    /// The message's bytes.
    pub size: u64,
    /// SHA-256 of the message, in hex.
    pub digest: String,
    /// Whether its sender is told what became of it: not when a machine wrote it (RFC 3834 2).
    pub reports: bool,
}

/// Which way a message leaves.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// To the smart host.
    SmartHost,
    /// To mailboxes here that could not take it at once.
    Local,
}

/// How far a message has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Attempts made.
    pub attempts: u32,
    /// When to try next, in Unix seconds.
    pub next: u64,
    /// Whether the sender has been told of the delay.
    pub warned: bool,
    /// One for each recipient of the envelope, in its order.
    pub recipients: Vec<Recipient>,
}

/// How far one recipient has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Recipient {
    pub standing: Standing,
    /// The last answer.
    pub last: Option<Reply>,
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// To be tried (again).
    Waiting,
    /// The next host has taken responsibility.
    Delivered,
    /// Given up; the sender does not know yet.
    Failed,
    /// Given up, and the sender knows, or need not know.
    Told,
}

/// What an attempt gave for one recipient.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The next host has it.
    Delivered(Reply),
    /// Try again later.
    Transient(Reply),
    /// Never.
    Permanent(Reply),
}

impl Outcome {
    /// The answer behind it.
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Transient(reply) | Self::Permanent(reply) => reply,
        }
    }
}

/// A report that is owed to the sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owed {
    /// Some recipients failed.
    Failure,
    /// Some recipients still wait.
    Delay,
}

/// A message in the queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub envelope: Envelope,
    pub state: State,
}

impl State {
    /// The state of a message that was never tried, for so many recipients.
    pub fn new(recipients: usize, now: u64) -> Self {
        let recipient = Recipient { standing: Standing::Waiting, last: None };
        Self { attempts: 0, next: now, warned: false, recipients: vec![recipient; recipients] }
    }
}

impl Entry {
    /// The recipients of a standing, by their place in the envelope.
    pub fn recipients(&self, standing: Standing) -> Vec<usize> {
        let of = |(at, recipient): (usize, &Recipient)| (recipient.standing == standing).then_some(at);
        self.state.recipients.iter().enumerate().filter_map(of).collect()
    }

    fn any(&self, standing: Standing) -> bool {
        self.state.recipients.iter().any(|recipient| recipient.standing == standing)
    }

    /// Whether it is to be tried (at [`State::next`]).
    pub fn is_waiting(&self) -> bool {
        self.any(Standing::Waiting)
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        !self.any(Standing::Waiting) && !self.any(Standing::Failed)
    }

    /// Takes in an attempt's outcomes, by place of the recipient; one that has none counts as
    /// transient. `chance` is in 0..1.
    pub fn handle_attempt(&mut self, outcomes: Vec<(usize, Outcome)>, now: u64, times: &Times, chance: f64) {
        self.state.attempts = self.state.attempts.saturating_add(1);
        for (at, outcome) in outcomes {
            let Some(recipient) = self.state.recipients.get_mut(at) else { continue };
            if recipient.standing != Standing::Waiting {
                continue;
            }
            let (standing, reply) = match outcome {
                Outcome::Delivered(reply) => (Standing::Delivered, reply),
                Outcome::Transient(reply) => (Standing::Waiting, reply),
                Outcome::Permanent(reply) => (Standing::Failed, reply),
            };
            *recipient = Recipient { standing, last: Some(reply) };
        }
        self.state.next = Times::next_attempt(self.state.attempts, now, chance);
        if times.is_over(self.envelope.accepted, now) {
            self.give_up();
        }
        self.settle();
    }

    /// Gives up what still waits.
    pub fn give_up(&mut self) {
        for recipient in &mut self.state.recipients {
            if recipient.standing == Standing::Waiting {
                recipient.standing = Standing::Failed;
            }
        }
        self.settle();
    }

    /// Failures that nobody is to be told of are told.
    fn settle(&mut self) {
        if !self.envelope.reports {
            self.handle_told(Owed::Failure);
        }
    }

    /// The report owed now, if any. A failure comes first.
    pub fn owed(&self, now: u64, times: &Times) -> Option<Owed> {
        if self.any(Standing::Failed) {
            return Some(Owed::Failure);
        }
        let late = now >= times.warn_at(self.envelope.accepted) && self.state.attempts > 0;
        (late && self.may_warn() && self.is_waiting()).then_some(Owed::Delay)
    }

    /// Whether a warning may yet be sent.
    pub fn may_warn(&self) -> bool {
        self.envelope.reports && !self.state.warned
    }

    /// The report is in the sender's mailbox, or can never be.
    pub fn handle_told(&mut self, owed: Owed) {
        match owed {
            Owed::Delay => self.state.warned = true,
            Owed::Failure => {
                for recipient in &mut self.state.recipients {
                    if recipient.standing == Standing::Failed {
                        recipient.standing = Standing::Told;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn entry(recipients: &[&str], accepted: u64) -> Entry {
        let envelope = Envelope {
            user: "alice@example.com".parse().unwrap(),
            sender: "alice@example.com".into(),
            route: Route::SmartHost,
            recipients: recipients.iter().map(|&address| address.into()).collect(),
            accepted,
            size: 0,
            digest: String::new(),
            reports: true,
        };
        Entry { state: State::new(recipients.len(), accepted), envelope }
    }

    fn ok() -> Outcome {
        Outcome::Delivered(Reply::new(250, "2.0.0 queued"))
    }

    fn later() -> Outcome {
        Outcome::Transient(Reply::new(451, "4.3.0 later"))
    }

    fn never() -> Outcome {
        Outcome::Permanent(Reply::new(550, "5.1.1 nobody"))
    }

    #[test]
    fn each_recipient_has_a_fate_of_its_own() {
        let times = Times::default();
        let mut entry = entry(&["a@x", "b@x", "c@x"], 1000);
        entry.handle_attempt(vec![(0, ok()), (1, later()), (2, never())], 1010, &times, 0.0);
        assert_eq!(entry.recipients(Standing::Waiting), [1]);
        assert_eq!(entry.state.next, 1070);
        assert_eq!(entry.owed(1010, &times), Some(Owed::Failure));
        entry.handle_told(Owed::Failure);
        assert_eq!(entry.owed(1010, &times), None);
        assert!(!entry.is_done());
        entry.handle_attempt(vec![(1, ok()), (2, later())], 1070, &times, 0.0);
        assert!(entry.is_done());
    }

    #[test]
    fn a_late_message_is_warned_of_once() {
        let times = Times::default();
        let mut entry = entry(&["a@x"], 0);
        let late = 4 * 3600;
        assert_eq!(entry.owed(late, &times), None, "never tried: there is nothing to say yet");
        entry.handle_attempt(vec![(0, later())], late - 1, &times, 0.0);
        assert_eq!(entry.owed(late - 1, &times), None);
        assert_eq!(entry.owed(late, &times), Some(Owed::Delay));
        entry.handle_told(Owed::Delay);
        assert_eq!(entry.owed(late + 1, &times), None);
    }

    #[test]
    fn an_attempt_that_fails_after_the_last_day_gives_up() {
        let times = Times::default();
        let mut entry = entry(&["a@x", "b@x"], 0);
        entry.handle_attempt(vec![(0, later())], times.queue_secs, &times, 0.0);
        assert_eq!(entry.recipients(Standing::Failed), [0, 1]);
        assert_eq!(entry.owed(times.queue_secs, &times), Some(Owed::Failure));
    }

    #[test]
    fn what_a_machine_wrote_is_given_up_in_silence() {
        let times = Times::default();
        let mut entry = entry(&["a@x", "b@x"], 0);
        entry.envelope.reports = false;
        entry.handle_attempt(vec![(0, never()), (1, later())], 10, &times, 0.0);
        assert_eq!(entry.owed(5 * 3600, &times), None);
        assert!(!entry.is_done());
        entry.give_up();
        assert!(entry.is_done());
    }

    #[test]
    fn a_result_for_nobody_is_ignored() {
        let mut entry = entry(&["a@x"], 0);
        entry.handle_attempt(vec![(7, ok())], 0, &Times::default(), 0.0);
        assert!(entry.is_waiting());
    }
}
