//! The front end: parks phones' Pings and wakes them on NOTIFY.
//!
//! [`run`] starts one: it listens for devices (`http`), answers their commands (`eas`) with the
//! help of the back ends (`backend`), and holds their Pings (`push`). It keeps nothing that must
//! survive it: any front end serves any device.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod auth;
pub mod backend;
pub mod clock;
pub mod config;
pub mod device;
pub mod eas;
pub mod events;
pub mod front;
pub mod http;
pub mod push;
mod server;
pub mod throttle;

pub use config::{BackendConfig, ChangeDelay, Config, Secret};
pub use server::{Error, FrontEnd, Reloader, run};
