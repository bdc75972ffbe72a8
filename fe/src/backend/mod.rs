//! The back ends as the front end sees them: who owns a user's mailbox, and how to ask it.
//!
//! [`call`] is the one place where a request is sent, timed, retried and judged; the other files
//! are the questions: [`logon`], [`device`] state, [`items`], [`submission`], [`subscribe`]. What goes over the wire
//! is `docs/fe-be.md`; headers and bodies are written and read by `common::dav`.
//!
//! Not here: who waits for what (`push`), what a device is told (`eas`).

pub mod breaker;
pub mod call;
pub mod device;
pub mod directory;
pub mod drafts;
pub mod error;
pub mod find;
pub mod folders;
pub mod items;
pub mod logon;
pub mod purge;
pub mod settings;
pub mod submission;
pub mod subscribe;
pub mod tls;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use directpush_common::names::UserName;
use directpush_common::placement::Placement;
use parking_lot::{Mutex, RwLock};

use crate::auth::Key;

pub use call::{Backend, Settings};
pub use error::{Error, Result};

/// Redirects from back end to back end that are followed for one request.
pub const HOPS_MAX: usize = 2;
/// Log-ons remembered that were redirected.
const REDIRECTED_MAX: usize = 100_000;

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
    /// Index of the back end among the configured ones. It changes when the mailbox moves.
    pub backend: AtomicU16,
    /// Push is on for this user.
    pub push: bool,
    /// User-initiated sync is on for this user.
    pub sync: bool,
}

impl Session {
    /// Index of the back end that holds the mailbox, as far as is known.
    pub fn backend(&self) -> u16 {
        self.backend.load(Ordering::Relaxed)
    }

    /// The mailbox is elsewhere now. What waits for it subscribes there when it is next woken.
    pub fn move_to(&self, backend: u16) {
        self.backend.store(backend, Ordering::Relaxed);
    }
}

/// All back ends, and the map from users to them.
pub struct Backends {
    all: Vec<Arc<Backend>>,
    placement: RwLock<Placement>,
    /// Where log-ons were redirected to, by a keyed hash of the login.
    redirected: Mutex<HashMap<u64, u16>>,
    hasher: RandomState,
}

impl Backends {
    /// These back ends, of which there is at least one; `placement` was read with them in this order.
    pub fn new(all: Vec<Arc<Backend>>, placement: Placement) -> Self {
        let placement = RwLock::new(placement);
        Self { all, placement, redirected: Mutex::default(), hasher: RandomState::new() }
    }

    /// Every back end, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Backend>] {
        &self.all
    }

    /// The back end of a session.
    pub fn of(&self, session: &Session) -> &Arc<Backend> {
        self.at(session.backend())
    }

    /// A back end by its index.
    pub fn at(&self, index: u16) -> &Arc<Backend> {
        &self.all[usize::from(index).min(self.all.len() - 1)]
    }

    /// Where the map has this user.
    pub fn place(&self, user: &UserName) -> Option<u16> {
        self.placement.read().backend(user).and_then(|index| u16::try_from(index).ok())
    }

    /// Where somebody logs on who calls themselves `user`, `user@domain` or `domain\\user`: where the last one was
    /// redirected to, else where the map says. Nobody's log-on goes to the first back end, which refuses it as it refuses
    /// any other, after the same time.
    pub fn for_login(&self, login: &str) -> u16 {
        if let Some(index) = self.redirected.lock().get(&self.hash(login)) {
            return *index;
        }
        let name = match login.split_once('\\') {
            Some((domain, user)) => format!("{user}@{domain}"),
            None => login.to_owned(),
        };
        name.parse().ok().and_then(|user| self.place(&user)).unwrap_or(0)
    }

    /// A log-on was redirected, and answered there.
    pub fn remember(&self, login: &str, index: u16) {
        let mut redirected = self.redirected.lock();
        if redirected.len() >= REDIRECTED_MAX {
            redirected.clear();
        }
        redirected.insert(self.hash(login), index);
    }

    /// A log-on failed: the next goes where the map says.
    pub fn forget(&self, login: &str) {
        self.redirected.lock().remove(&self.hash(login));
    }

    /// Takes another map; whether it says anything else than the one before. Redirects are forgotten then.
    pub fn replace(&self, placement: Placement) -> bool {
        let mut current = self.placement.write();
        if *current == placement {
            return false;
        }
        *current = placement;
        self.redirected.lock().clear();
        true
    }

    /// The configured back end that a redirect leads to, if it is one.
    pub fn at_location(&self, location: &str) -> Option<u16> {
        let wanted = reqwest::Url::parse(location).ok()?.origin().ascii_serialization();
        let found = self.all.iter().position(|backend| backend.origin() == wanted)?;
        u16::try_from(found).ok()
    }

    /// Follows a redirect of a request of this session; `false` when it leads to no other configured back end.
    pub fn follow(&self, session: &Session, location: &str) -> bool {
        let Some(index) = self.at_location(location).filter(|index| *index != session.backend()) else {
            return false;
        };
        tracing::info!(user = %session.user, to = self.at(index).name(), "the mailbox is at another back end");
        session.move_to(index);
        true
    }

    fn hash(&self, login: &str) -> u64 {
        self.hasher.hash_one(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(map: &str) -> Backends {
        let one = |url: &str| {
            Backend::new(Settings {
                name: url.to_owned(),
                url: url.parse().unwrap(),
                authorization: String::new(),
                requests_max: 1,
                timeout: std::time::Duration::from_secs(1),
                tls: tls::unused().unwrap(),
            })
        };
        let urls = ["http://127.0.0.1:1", "https://be-2.example", "https://be-3.example:8443"];
        let all = urls.map(|url| one(url).unwrap()).to_vec();
        Backends::new(all, Placement::parse(map, "map", &["be-1", "be-2", "be-3"]).unwrap())
    }

    #[test]
    fn a_log_on_goes_where_the_map_says_however_the_user_writes_it() {
        let backends = backends("* be-1\n@example.org be-2\nalice@example.com be-3\n");
        for (login, index) in [
            ("ALICE@example.com", 2),
            ("bob@example.com", 0),
            ("bob@Example.ORG", 1),
            ("example.org\\bob", 1),
            ("alice", 0),
            ("", 0),
        ] {
            assert_eq!(backends.for_login(login), index, "{login}");
        }
    }

    #[test]
    fn a_redirect_is_remembered_until_it_fails_or_the_map_changes() {
        let backends = backends("* be-1\n");
        backends.remember("alice", 2);
        assert_eq!((backends.for_login("alice"), backends.for_login("bob")), (2, 0));
        let same = Placement::parse("* be-1 # the same", "map", &["be-1"]).unwrap();
        assert!(!backends.replace(same));
        assert_eq!(backends.for_login("alice"), 2);
        backends.forget("alice");
        assert_eq!(backends.for_login("alice"), 0);
        backends.remember("alice", 2);
        assert!(backends.replace(Placement::everybody_at(1)));
        assert_eq!(backends.for_login("alice"), 1);
    }

    #[test]
    fn a_redirect_leads_only_to_configured_back_ends() {
        let backends = backends("* be-1\n");
        assert_eq!(backends.at_location("https://be-2.example:443/exchange/alice/"), Some(1));
        assert_eq!(backends.at_location("https://BE-3.example:8443/"), Some(2));
        for other in
            ["https://be-3.example/", "http://be-2.example/", "https://evil.example/", "/exchange/", ""]
        {
            assert_eq!(backends.at_location(other), None, "{other}");
        }
    }
}
