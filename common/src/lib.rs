#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! Direct Push without I/O: the protocols, the vocabulary and the decisions.
//!
//! Wire formats (`httpu`, `dav`, `autd`, `wbxml`, `eas`, `lmtp`, `mail`), the names and numbers every part
//! shares (`names`, `numbers`, `change`), and the state machines that decide (`push`, `sync`).
//! The front end, the back end and the simulated device all call this same code; none of it knows a
//! socket, a clock, a disk or a runtime: time comes in as [`clock::Moment`], chance as a seed.

pub mod autd;
pub mod change;
pub mod clock;

pub mod config;
pub mod dav;
pub mod directory;

pub mod eas;
pub mod event;
pub mod httpu;

pub mod lmtp;
pub mod mail;
pub mod names;
pub mod numbers;
pub mod placement;
pub mod push;
pub mod sync;
pub mod w3c;
pub mod wbxml;
