//! Sync over numbers: what a device holds is derived from a few numbers, never listed.
//!
//! [`state`] is what is kept per device and collection between requests; [`plan`] turns it and the folder's reports into
//! the commands of one response and the next state.

pub mod plan;
pub mod state;
