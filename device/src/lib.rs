#![forbid(unsafe_code)]
//! A faithful ActiveSync device: one core, driven in real time against real servers (`drive`, `demo`, `load`) or
//! in virtual time against a simulated network (`world`).

pub mod core;
pub mod demo;
pub mod drive;
pub mod http;
pub mod lmtp;
pub mod load;
pub mod log;
pub mod pair;
pub mod relay;
pub mod reporter;
pub mod single;

#[cfg(test)]
mod world;
