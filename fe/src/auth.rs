//! Who asks: HTTP Basic, proved once by the back end and remembered for as long as it said.
//!
//! Devices send their password with every request. What is remembered is not the password but
//! an HMAC of the whole credential under a key that lives and dies with this process, and with it
//! the act-for token the back end minted. A token that the back end no longer takes is
//! forgotten by [`Logons::forget`]; failures are never remembered here, the back end slows them.
//!
//! Not here: what a refused request looks like (`eas`).

use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};
use directpush_common::clock::Moment;
use hashbrown::HashTable;
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::backend::logon::Logon;
use crate::backend::{self, Backends, HOPS_MAX, Session};

/// Credentials remembered, at most; twice as many for a moment.
const REMEMBERED_MAX: usize = 200_000;
/// Bytes of an `Authorization` field that is looked at.
const FIELD_BYTES_MAX: usize = 1024;

/// A name and password as the device sent them.
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    /// `user`, `user@domain` or `domain\user`.
    pub login: String,
    /// The password.
    pub password: String,
}

impl Credential {
    /// Reads `Authorization: Basic …`. Phones send UTF-8, Outlook ISO-8859-1: what is not the
    /// former is the latter (RFC 7617 2.1 leaves it open).
    pub fn from_field(field: &[u8]) -> Option<Self> {
        let field = std::str::from_utf8(field).ok().filter(|field| field.len() <= FIELD_BYTES_MAX)?;
        let (scheme, encoded) = field.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let encoded = encoded.trim().as_bytes();
        let bytes = BASE64.decode(encoded).or_else(|_| BASE64_NOPAD.decode(encoded)).ok()?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(latin) => latin.into_bytes().into_iter().map(char::from).collect(),
        };
        let (login, password) = text.split_once(':')?;
        // An empty password proves nothing anywhere.
        (!login.is_empty() && !password.is_empty())
            .then(|| Self { login: login.to_owned(), password: password.to_owned() })
    }
}

/// What a credential is remembered by, an HMAC of it: under `slot` it is found, by `check` it is known.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    slot: u64,
    check: [u8; 16],
}

impl Key {
    fn new(hmac: [u8; 32]) -> Self {
        Self {
            slot: u64::from_le_bytes(hmac[..8].try_into().unwrap_or_default()),
            check: hmac[8..24].try_into().unwrap_or_default(),
        }
    }
}

/// What became of a credential.
pub enum Proof {
    /// It is right.
    Session(Arc<Session>),
    /// It is wrong, or nobody has that name: 401.
    Wrong,
    /// The user is disabled: 403.
    Disabled,
}

/// Two generations: the younger fills, then becomes the older, whose useful entries return when
/// they are used. So the table stays bounded without a clock or a list.
#[derive(Default)]
struct Generations {
    young: HashTable<Arc<Session>>,
    old: HashTable<Arc<Session>>,
}

/// All log-ons that this process knows.
pub struct Logons {
    secret: Hmac<Sha256>,
    known: Mutex<Generations>,
}

impl Logons {
    /// An empty table under a new key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let secret = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Ok(Self { secret, known: Mutex::default() })
    }

    /// Proves a credential: from memory, else by the user's back end.
    ///
    /// # Errors
    /// When the back end cannot say.
    pub async fn prove(
        &self,
        credential: &Credential,
        backends: &Backends,
        now: Moment,
    ) -> backend::Result<Proof> {
        let key = self.key(credential);
        if let Some(session) = self.recall(key, now) {
            return Ok(Proof::Session(session));
        }
        let (answer, index) = log_on(credential, backends).await?;
        match answer {
            Logon::Granted(granted) => {
                // A little less than the back end said: the two clocks differ.
                let until_secs = secs(now.plus_secs(granted.expires_secs.saturating_sub(60)));
                let session = Arc::new(Session {
                    user: granted.user,
                    token: granted.token.into(),
                    key,
                    until_secs,
                    backend: index.into(),
                    push: granted.push,
                    sync: granted.sync,
                });
                self.remember(&session);
                Ok(Proof::Session(session))
            }
            Logon::Wrong => Ok(Proof::Wrong),
            Logon::Disabled => Ok(Proof::Disabled),
        }
    }

    /// The back end no longer takes this log-on's token.
    pub fn forget(&self, session: &Session) {
        let mut known = self.known.lock();
        take(&mut known.young, session.key);
        take(&mut known.old, session.key);
    }

    /// The map from users to back ends is another: every log-on goes by it.
    pub fn replace(&self, backends: &Backends) {
        let known = self.known.lock();
        for session in known.young.iter().chain(&known.old) {
            if let Some(index) = backends.place(&session.user) {
                session.move_to(index);
            }
        }
    }

    fn key(&self, credential: &Credential) -> Key {
        let mut mac = self.secret.clone();
        // A login never holds a colon, so the two parts cannot be shifted into each other.
        mac.update(credential.login.as_bytes());
        mac.update(b":");
        mac.update(credential.password.as_bytes());
        Key::new(mac.finalize().into_bytes().into())
    }

    fn recall(&self, key: Key, now: Moment) -> Option<Arc<Session>> {
        let mut known = self.known.lock();
        if let Some(returning) = take(&mut known.old, key) {
            insert(&mut known.young, returning);
        }
        let found = known.young.find(key.slot, |session| session.key.slot == key.slot)?;
        let same = bool::from(found.key.check.ct_eq(&key.check));
        (same && secs(now) < found.until_secs).then(|| Arc::clone(found))
    }

    fn remember(&self, session: &Arc<Session>) {
        let mut known = self.known.lock();
        if known.young.len() >= REMEMBERED_MAX {
            known.old = std::mem::take(&mut known.young);
        }
        take(&mut known.young, session.key);
        insert(&mut known.young, Arc::clone(session));
    }
}

/// Asks the user's back end, and where it redirects to; and says who answered.
async fn log_on(credential: &Credential, backends: &Backends) -> backend::Result<(Logon, u16)> {
    let Credential { login, password } = credential;
    let mut index = backends.for_login(login);
    let mut hops = 0;
    loop {
        let error = match backends.at(index).logon(login, password).await {
            Ok(answer) => {
                if hops > 0 && matches!(answer, Logon::Granted(_)) {
                    backends.remember(login, index);
                }
                return Ok((answer, index));
            }
            Err(error) => error,
        };
        backends.forget(login);
        let next = match &error {
            backend::Error::Moved { location } if hops < HOPS_MAX => backends.at_location(location),
            _ => None,
        };
        match next {
            Some(next) if next != index => (index, hops) = (next, hops + 1),
            _ => return Err(error),
        }
    }
}

fn insert(table: &mut HashTable<Arc<Session>>, session: Arc<Session>) {
    table.insert_unique(session.key.slot, session, |session| session.key.slot);
}

fn take(table: &mut HashTable<Arc<Session>>, key: Key) -> Option<Arc<Session>> {
    let found = table.find_entry(key.slot, |session| session.key.slot == key.slot).ok()?;
    Some(found.remove().0)
}

fn secs(moment: Moment) -> u32 {
    u32::try_from(moment.0 / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(bytes: &[u8]) -> Option<Credential> {
        Credential::from_field(format!("Basic {}", BASE64.encode(bytes)).as_bytes())
    }

    #[test]
    fn basic_in_utf_8_and_latin_1() {
        let utf8 = basic("jürgen@köln.example:größe:1".as_bytes()).unwrap();
        assert_eq!((utf8.login.as_str(), utf8.password.as_str()), ("jürgen@köln.example", "größe:1"));
        let latin = basic(b"DOM\\j\xfcrgen:gr\xf6\xdfe").unwrap();
        assert_eq!((latin.login.as_str(), latin.password.as_str()), ("DOM\\jürgen", "größe"));
    }

    #[test]
    fn what_is_no_credential_is_none() {
        for bytes in [&b"nocolon"[..], b":password", b"user:", b""] {
            assert!(basic(bytes).is_none());
        }
        assert!(Credential::from_field(b"Bearer abc").is_none());
        assert!(Credential::from_field(b"Basic ***").is_none());
        assert!(Credential::from_field("Basic ".repeat(400).as_bytes()).is_none());
    }

    fn session(key: Key, until: Moment) -> Arc<Session> {
        let (user, until_secs) = ("alice@example.com".parse().unwrap(), secs(until));
        Arc::new(Session {
            user,
            token: "t".into(),
            key,
            until_secs,
            backend: 0.into(),
            push: true,
            sync: true,
        })
    }

    #[test]
    fn a_log_on_is_recalled_until_it_expires_or_is_forgotten() {
        let (logons, now) = (Logons::new().unwrap(), Moment(5000));
        let key = logons.key(&basic(b"alice:secret").unwrap());
        logons.remember(&session(key, now.plus_secs(100)));
        assert!(logons.recall(key, now.plus_secs(99)).is_some());
        assert!(logons.recall(key, now.plus_secs(100)).is_none());
        let other = logons.key(&basic(b"alice:Secret").unwrap());
        assert!(logons.recall(other, now).is_none());
        logons.forget(&session(key, now));
        assert!(logons.recall(key, now).is_none());
    }

    #[test]
    fn what_is_used_survives_a_generation() {
        let (logons, now) = (Logons::new().unwrap(), Moment(0));
        let key = logons.key(&basic(b"alice:secret").unwrap());
        logons.remember(&session(key, now.plus_secs(100)));
        for _ in 0..2 {
            let young = std::mem::take(&mut logons.known.lock().young);
            logons.known.lock().old = young;
            assert!(logons.recall(key, now).is_some());
        }
    }
}
