//! Call-backs: one for each front end process, with its budget of datagrams, and which process follows which.

use super::{FrontEndNumber, Ledger, LedgerFull, NewSubscription};
use crate::{clock::Moment, httpu::CallBack};

/// The datagrams that may burst to one call-back: two seconds' worth, in microseconds.
const BUDGET_MICROS: u64 = 2_000_000;
/// Call-backs remembered after their front end was restarted.
const REPLACED_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct KnownCallBack {
    pub(super) call_back: CallBack,
    pub(super) front_end: FrontEndNumber,
    pub(super) subscriptions: usize,
    pub(super) silent_after: Moment,
    pub(super) poll_interval_secs: u32,
    pub(super) budget_micros: u64,
    pub(super) budget_at: Moment,
}

impl KnownCallBack {
    pub(super) fn heard(&mut self, now: Moment) {
        self.silent_after = now.plus_secs(u64::from(self.poll_interval_secs) * 3);
    }

    /// A budget of two seconds' worth of datagrams, refilled as time passes.
    pub(super) fn spend(&mut self, now: Moment, per_second: u32) -> bool {
        let cost = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let earned = now.millis_since(self.budget_at).saturating_mul(1000);
        let budget = self.budget_micros.saturating_add(earned).min(BUDGET_MICROS);
        self.budget_at = now;
        let allowed = budget >= cost;
        self.budget_micros = if allowed { budget - cost } else { budget };
        allowed
    }
}

impl Ledger {
    /// Finds or learns a call-back. A new one of the same front end on the same host and port is the front end
    /// restarted: its predecessor is dropped at once, and what the predecessor sent and arrives late is refused.
    pub(super) fn call_back(&mut self, now: Moment, new: &NewSubscription) -> Result<u16, LedgerFull> {
        let known = self
            .call_backs
            .iter_mut()
            .find(|(_, k)| k.call_back == new.call_back && k.front_end == new.front_end);
        if let Some((&number, known)) = known {
            known.poll_interval_secs = new.poll_interval_secs.max(1);
            known.heard(now);
            return Ok(number);
        }
        if self.replaced.contains(&new.call_back) {
            return Err(LedgerFull::Replaced);
        }
        let number = (0..=u16::MAX).find(|n| !self.call_backs.contains_key(n)).ok_or(LedgerFull::Total)?;
        let before: Vec<u16> = self
            .call_backs
            .iter()
            .filter(|(_, k)| {
                k.front_end == new.front_end
                    && k.call_back.host() == new.call_back.host()
                    && k.call_back.port() == new.call_back.port()
            })
            .map(|(number, _)| *number)
            .collect();
        for number in before {
            if let Some(known) = self.call_backs.get(&number) {
                self.replaced.push_back(known.call_back.clone());
            }
            self.drop_call_back(number);
        }
        let excess = self.replaced.len().saturating_sub(REPLACED_MAX);
        self.replaced.drain(..excess);
        let mut known = KnownCallBack {
            call_back: new.call_back.clone(),
            front_end: new.front_end,
            subscriptions: 0,
            silent_after: now,
            poll_interval_secs: new.poll_interval_secs.max(1),
            budget_micros: BUDGET_MICROS,
            budget_at: now,
        };
        known.heard(now);
        self.call_backs.insert(number, known);
        Ok(number)
    }

    pub(super) fn drop_call_back(&mut self, number: u16) {
        let slots: Vec<u32> = (0u32..)
            .zip(&self.groups)
            .filter(|(_, group)| group.as_ref().is_some_and(|group| group.call_back == number))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.counters.dropped += self.group(slot).map_or(0, |group| group.subscriptions.len() as u64);
            self.remove(slot);
        }
        self.call_backs.remove(&number);
    }
}
