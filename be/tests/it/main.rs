//! The back end from outside: a real one on loopback, port 0, with sled in a temporary directory.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod client;
mod dav;
mod device_state;
mod devices;
mod directory;
mod exchange;
#[allow(dead_code, reason = "these tests use less of it than its own")]
#[path = "../../src/submission/queue/smart_host/fake.rs"]
mod fake;
mod find;
mod folders;
mod lmtp;
mod marks;
mod migration;
mod oof;
mod placement;
mod push;
mod races;
mod refusals;
mod submission;
mod users;
mod webdav;
