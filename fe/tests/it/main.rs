//! The front end against a small fake back end: what goes over both wires, and in which order.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod access_log;
mod bad_input;
mod commands;
mod connect;
mod drafts;
mod fake;
mod folders;
mod hanging;
mod item_operations;
mod ping;
mod placement;
mod protocol;
mod provision;
mod search;
mod send;
mod settings;
mod stalled;
mod sync;
mod tls;
mod world;
