//! The back ends as the front end sees them: who owns a user's mailbox, and how to ask it.
//!
//! [`call`] is the one place where a request is sent, timed, retried and judged; the other files
//! are the questions: [`logon`], [`device`] state, [`items`], [`subscribe`]. What goes over the wire
//! is `docs/fe-be.md`; headers and bodies are written and read by `common::dav`.
//!
//! Not here: who waits for what (`push`), what a device is told (`eas`).

pub mod breaker;
pub mod call;
pub mod device;
pub mod error;
pub mod items;
pub mod logon;
pub mod subscribe;

use std::sync::Arc;

use directpush_common::names::UserName;

use crate::auth::Key;

pub use call::{Backend, Settings};
pub use error::{Error, Result};

/// Somebody whose password was proved: for whom a request is made, and the proof.
#[derive(Debug)]
pub struct Session {
    /// The mailbox.
    pub user: UserName,
    /// What the back end minted at log-on.
    pub token: Box<str>,
    /// The credential that was proved.
    pub key: Key,
    /// Until when it need not be proved again, in seconds of the front end's clock.
    pub until_secs: u32,
    /// Index of the back end among the configured ones.
    pub backend: u16,
    /// Push is on for this user.
    pub push: bool,
    /// User-initiated sync is on for this user.
    pub sync: bool,
}

/// All back ends, and the map from users to them.
pub struct Backends {
    all: Vec<Arc<Backend>>,
    domains: Vec<(String, u16)>,
    default: u16,
}

impl Backends {
    /// `domains` are lower case, each with the index of its back end; `default` takes the rest.
    pub fn new(all: Vec<Arc<Backend>>, domains: Vec<(String, u16)>, default: u16) -> Self {
        Self { all, domains, default }
    }

    /// Every back end, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Backend>] {
        &self.all
    }

    /// The back end of a session.
    pub fn of(&self, session: &Session) -> &Arc<Backend> {
        self.at(session.backend)
    }

    /// A back end by its index.
    pub fn at(&self, index: u16) -> &Arc<Backend> {
        &self.all[usize::from(index).min(self.all.len() - 1)]
    }

    /// Where somebody logs on who calls themselves `user`, `user@domain` or `domain\user`.
    pub fn for_login(&self, login: &str) -> u16 {
        let domain = match login.split_once('\\') {
            Some((domain, _)) => Some(domain),
            None => login.rsplit_once('@').map(|(_, domain)| domain),
        };
        domain
            .and_then(|domain| self.domains.iter().find(|(name, _)| name.eq_ignore_ascii_case(domain)))
            .map_or(self.default, |(_, index)| *index)
    }
}
