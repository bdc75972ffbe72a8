//! The back end from outside: a real one on loopback, port 0, with sled in a temporary directory.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod client;
mod dav;
mod device_state;
mod lmtp;
mod push;
mod refusals;
mod users;
mod webdav;
