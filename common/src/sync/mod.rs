//! Sync over numbers: what a device holds is derived from a few numbers, never listed.
//!
//! [`state`] is what is kept per device and collection between requests; [`plan`] turns it and the folder's reports into
//! the commands of one response and the next state. [`cache`] is the last request that may be repeated without a body.

pub mod cache;
pub mod plan;
pub mod state;
