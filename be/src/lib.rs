#![forbid(unsafe_code)]
//! The back end: mailboxes over WebDAV and LMTP, subscriptions, UDP NOTIFY.
//!
//! [`run`] starts one from a checked [`Config`]; the binary `directpush-be` and the tests start it the
//! same way.

pub mod admin;
pub mod auth;
pub mod auto_reply;
pub mod config;
pub mod dav;
pub mod delivery;
pub mod devices;
pub mod error;
pub mod http;
pub mod lmtp;
pub mod mailbox;
pub mod maintenance;
pub mod migration;
pub mod notifier;
pub mod placement;
pub mod server;
mod start;
pub mod store;
pub mod submission;

pub use config::Config;
pub use error::Error;
pub use start::{LmtpAddress, Offline, Reloader, Running, open_store, run};
