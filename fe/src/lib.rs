//! The front end: parks phones' Pings and wakes them on NOTIFY.
#![forbid(unsafe_code)]

pub mod auth;
pub mod backend;
pub mod clock;
pub mod config;
pub mod eas;
pub mod http;
pub mod push;
