//! The push engine's decisions: when a change wakes a device, who waits, who is told.
//!
//! The back end holds a [`ledger::Ledger`] of subscriptions and asks [`wake::wake`] about every change; the front end
//! holds a [`routing::Routing`] of waiting Pings, each a [`ping::PingWait`]. Between them runs the wire of
//! `docs/fe-be.md`. NOTIFY is a hint everywhere: it may be lost, repeated, reordered or forged.

pub mod heartbeat;
pub mod ledger;
pub mod ping;
pub mod routing;

pub mod wake;
