//! The front end: parks phones' Pings and wakes them on NOTIFY.
#![forbid(unsafe_code)]

pub mod http;
