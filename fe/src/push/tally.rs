//! What the push engine counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Datagrams for which some Ping asks its back end.
    pub notify_taken: Count,
    /// Repetitions of what was known.
    pub notify_repeated: Count,
    /// Datagrams for another process: a predecessor, or another front end.
    pub notify_not_ours: Count,
    /// Our call-back, but no such Ping or subscription.
    pub notify_unknown: Count,
    /// Datagrams that are no NOTIFY.
    pub notify_malformed: Count,
    /// Datagrams from an address that is no back end's.
    pub notify_foreign: Count,
    /// Findings of POLL that no datagram had announced: the UDP path is broken.
    pub unannounced: Count,
    /// POLLs answered.
    pub polls: Count,
    /// Back ends found restarted, or to have lost subscriptions.
    pub rearmed: Count,
    /// SUBSCRIBEs answered 200.
    pub subscribed: Count,
    /// SUBSCRIBEs that failed.
    pub subscribe_failed: Count,
    /// Questions whether a NOTIFY was meant seriously.
    pub asked: Count,
    /// UNSUBSCRIBEs without an answer in time.
    pub unsubscribe_failed: Count,
    /// Pings answered because something changed.
    pub woken: Count,
    /// Pings answered because their heartbeat passed.
    pub expired: Count,
    /// Devices that hung up while they waited.
    pub hung_up: Count,
}
