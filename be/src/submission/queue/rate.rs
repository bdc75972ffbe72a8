//! How much a user may send in an hour: messages and recipients, counted in memory.
//!
//! Pure; time is Unix seconds. Counted in slots of five minutes, so that no hour, wherever it begins,
//! holds more than is allowed. A restart forgets the counts.

use std::collections::HashMap;

use directpush_common::names::UserName;

const SLOT_SECS: u64 = 300;
/// An hour that begins inside a slot touches thirteen.
const SLOTS: usize = 13;
/// Users counted at once; beyond that the ones who have sent nothing for an hour are forgotten first.
const USERS_MAX: usize = 100_000;

/// Allowed per user and hour.
#[derive(Clone, Copy, Debug)]
pub struct HourlyLimits {
    pub messages: u32,
    pub recipients: u32,
}

impl Default for HourlyLimits {
    fn default() -> Self {
        Self { messages: 200, recipients: 1000 }
    }
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// Which five minutes since 1970.
    number: u64,
    messages: u32,
    recipients: u32,
}

/// What every user has sent in the last hour.
#[derive(Default)]
pub struct Rates {
    users: HashMap<UserName, [Slot; SLOTS]>,
}

impl Rates {
    /// Counts a message, or says in how many seconds to try again.
    ///
    /// # Errors
    /// Seconds until a part of what was sent is an hour old.
    pub fn take(
        &mut self,
        user: &UserName,
        recipients: u32,
        now: u64,
        limits: &HourlyLimits,
    ) -> Result<(), u64> {
        let number = now / SLOT_SECS;
        let is_recent = |slot: &Slot| slot.number + SLOTS as u64 > number && slot.messages > 0;
        if self.users.len() >= USERS_MAX && !self.users.contains_key(user) {
            self.users.retain(|_, slots| slots.iter().any(is_recent));
            if self.users.len() >= USERS_MAX {
                return Err(SLOT_SECS);
            }
        }
        let slots = self.users.entry(user.clone()).or_default();
        let recent = slots.iter().filter(|slot| is_recent(slot));
        let (messages, named) = recent.fold((0_u32, 0_u32), |(messages, named), slot| {
            (messages.saturating_add(slot.messages), named.saturating_add(slot.recipients))
        });
        if messages >= limits.messages || named.saturating_add(recipients) > limits.recipients {
            let oldest = slots.iter().filter(|slot| is_recent(slot)).map(|slot| slot.number).min();
            let free = oldest.map_or(number + 1, |oldest| oldest + SLOTS as u64) * SLOT_SECS;
            return Err(free.saturating_sub(now).max(1));
        }
        let slot = &mut slots[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.messages += 1;
        slot.recipients = slot.recipients.saturating_add(recipients);
        Ok(())
    }

    /// Takes back what [`Rates::take`] counted at `then`, for a message that was not accepted after all.
    pub fn give_back(&mut self, user: &UserName, recipients: u32, then: u64) {
        let number = then / SLOT_SECS;
        let Some(slots) = self.users.get_mut(user) else { return };
        if let Some(slot) = slots.iter_mut().find(|slot| slot.number == number) {
            slot.messages = slot.messages.saturating_sub(1);
            slot.recipients = slot.recipients.saturating_sub(recipients);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alice() -> UserName {
        "alice".parse().unwrap()
    }

    #[test]
    fn the_next_message_may_go_when_the_answer_said() {
        let limits = HourlyLimits { messages: 2, recipients: 100 };
        let mut rates = Rates::default();
        let start = 1_000_000_000;
        assert_eq!(rates.take(&alice(), 1, start, &limits), Ok(()));
        assert_eq!(rates.take(&alice(), 1, start + 600, &limits), Ok(()));
        let wait = rates.take(&alice(), 1, start + 700, &limits).unwrap_err();
        assert!(rates.take(&alice(), 1, start + 700 + wait - 1, &limits).is_err());
        assert_eq!(rates.take(&alice(), 1, start + 700 + wait, &limits), Ok(()));
        assert_eq!(rates.take(&"bob".parse().unwrap(), 1, start + 700, &limits), Ok(()));
    }

    #[test]
    fn recipients_count_too_and_can_be_given_back() {
        let limits = HourlyLimits { messages: 100, recipients: 10 };
        let mut rates = Rates::default();
        assert_eq!(rates.take(&alice(), 8, 5000, &limits), Ok(()));
        assert!(rates.take(&alice(), 3, 5000, &limits).is_err());
        rates.give_back(&alice(), 8, 5000);
        assert_eq!(rates.take(&alice(), 10, 5000, &limits), Ok(()));
    }

    proptest! {
        #[test]
        fn no_hour_holds_more_than_is_allowed(steps in proptest::collection::vec((0_u64..900, 1_u32..5), 1..200)) {
            let limits = HourlyLimits { messages: 6, recipients: 15 };
            let mut rates = Rates::default();
            let (mut now, mut sent) = (1_000_000_000_u64, Vec::new());
            for (pause, recipients) in steps {
                now += pause;
                if rates.take(&alice(), recipients, now, &limits).is_ok() {
                    sent.push((now, recipients));
                }
            }
            for &(begin, _) in &sent {
                let hour = sent.iter().filter(|(at, _)| (begin..begin + 3600).contains(at));
                let (messages, named) = hour.fold((0, 0), |(m, r), (_, recipients)| (m + 1, r + recipients));
                prop_assert!(messages <= 6 && named <= 15);
            }
        }
    }
}
