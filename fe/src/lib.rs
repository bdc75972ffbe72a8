//! The front end: parks phones' Pings and wakes them on NOTIFY.
#![forbid(unsafe_code)]

pub mod auth;
pub mod backend;
pub mod http;
