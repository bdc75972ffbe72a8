//! Users: who they are, their password's hash, their switches, and the mailbox that is theirs.
//!
//! What a request needs (mailbox, version, switches) is kept in memory for a while, the hash is not.
//! Every change goes through here, so what is remembered is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use directpush_common::names::{Guid, UserName};
use parking_lot::Mutex;

use super::folders::{BIRTH, FIRST_OWN, defaults};
use super::record::{Head, Record, User};
use super::{Mailboxes, UserEvent, decode, keys, now_secs, purge, random_number};
use crate::error::Error;
use crate::store::{Commit, Index, Read, Store, StoreError};

/// What a request needs to know of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch by itself")]
pub struct Account {
    pub name: UserName,
    pub mailbox: u64,
    /// Credential version: tokens of another one are refused.
    pub version: u32,
    pub push: bool,
    pub sync: bool,
    pub disabled: bool,
    /// The own password is no good for devices.
    pub device_passwords_only: bool,
    /// The policy for the user's devices: empty = the default one.
    pub policy: Box<str>,
}

/// A change of a user's record.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// An argon2id hash.
    pub hash: Option<String>,
    pub push: Option<bool>,
    pub sync: Option<bool>,
    pub disabled: Option<bool>,
    /// How the person is called; empty = as nobody had said.
    pub display_name: Option<String>,
    /// Not shown in the directory.
    pub hidden: Option<bool>,
    /// The own password is no good for devices.
    pub device_passwords_only: Option<bool>,
    /// The policy for the user's devices: empty = the default one.
    pub policy: Option<String>,
}

/// The remembered accounts, by name.
pub struct Users {
    pub(super) store: Store,
    known: Mutex<HashMap<UserName, Remembered>>,
    /// Serialises changes of users; they are rare.
    changing: tokio::sync::Mutex<()>,
    /// Odd while a change is being made.
    changes: AtomicU64,
    ticks: AtomicU32,
    pub(super) directory: super::directory::Kept,
}

/// A change of a user's record is being made.
pub(super) struct Changing<'a> {
    changes: &'a AtomicU64,
    _lock: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

struct Remembered {
    account: Arc<Account>,
    used: u32,
}

const REMEMBERED_MAX: usize = 100_000;
const IDLE_SWEEPS: u32 = 6;

fn account(name: UserName, user: &User) -> Arc<Account> {
    let User { mailbox, version, push, sync, disabled, device_passwords_only, .. } = *user;
    let policy = user.policy.as_str().into();
    Arc::new(Account { name, mailbox, version, push, sync, disabled, device_passwords_only, policy })
}

/// The installation's GUID; made on the first start.
pub(super) async fn installation(store: &Store) -> Result<Guid, Error> {
    let made = secret_of(&*store.index, keys::installation(), 16).await?;
    let bytes = made.try_into().map_err(|_| Error::Conflict("the installation's GUID is damaged"))?;
    Ok(Guid::from_random(bytes))
}

/// Random bytes kept under a key; drawn once.
async fn secret_of(index: &dyn Index, key: Vec<u8>, len: usize) -> Result<Vec<u8>, Error> {
    loop {
        let found = index.read(Read::default().get(key.clone())).await?;
        if let Some(secret) = found.gets.into_iter().next().flatten() {
            return Ok(secret);
        }
        let mut secret = vec![0; len];
        getrandom::fill(&mut secret)
            .map_err(|error| Error::io("draw a secret")(std::io::Error::other(error.to_string())))?;
        match index.commit(Commit::default().expect(key.clone(), None).put(key.clone(), secret)).await {
            // Somebody else drew it: take theirs.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Users {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            changes: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            directory: super::directory::Kept::default(),
        }
    }

    pub(super) async fn change(&self) -> Changing<'_> {
        let lock = self.changing.lock().await;
        self.changes.fetch_add(1, Ordering::AcqRel);
        Changing { changes: &self.changes, _lock: lock }
    }

    /// The key of act-for tokens, kept so that a restart of the back end logs nobody off.
    pub async fn token_secret(&self) -> Result<Vec<u8>, Error> {
        secret_of(&*self.store.index, keys::token_secret(), 32).await
    }

    /// Grows with every change of users and aliases; odd while one is being made.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) async fn record(&self, name: &UserName) -> Result<Option<(Vec<u8>, User)>, Error> {
        let found = self.store.index.read(Read::default().get(keys::user(name.as_str()))).await?;
        found.gets.into_iter().next().flatten().map_or(Ok(None), |bytes| {
            let user = decode(0, &bytes)?;
            Ok(Some((bytes, user)))
        })
    }

    fn remember(&self, account: &Arc<Account>) {
        let mut known = self.known.lock();
        // What was known before is wrong now, whether or not there is room for more.
        if known.remove(&account.name).is_some() || known.len() < REMEMBERED_MAX {
            let used = self.ticks.load(Ordering::Relaxed);
            known.insert(account.name.clone(), Remembered { account: account.clone(), used });
        }
    }

    fn recall(&self, name: &UserName) -> Option<Arc<Account>> {
        let mut known = self.known.lock();
        let remembered = known.get_mut(name)?;
        remembered.used = self.ticks.load(Ordering::Relaxed);
        Some(remembered.account.clone())
    }

    /// A user's account.
    pub async fn account(&self, name: &UserName) -> Result<Option<Arc<Account>>, Error> {
        if let Some(account) = self.recall(name) {
            return Ok(Some(account));
        }
        let before = self.changes();
        let Some((_, user)) = self.record(name).await? else { return Ok(None) };
        let account = account(name.clone(), &user);
        // Only what no change has overtaken is remembered.
        if before.is_multiple_of(2) && self.changes() == before {
            self.remember(&account);
        }
        Ok(Some(account))
    }

    /// The first of these names that is a user's, with the password's hash.
    pub async fn with_hash(&self, names: &[UserName]) -> Result<Option<(Arc<Account>, String)>, Error> {
        let mut read = Read::default();
        for name in names {
            read = read.get(keys::user(name.as_str()));
        }
        if names.is_empty() {
            return Ok(None);
        }
        let found = self.store.index.read(read).await?;
        for (name, bytes) in names.iter().zip(found.gets) {
            if let Some(bytes) = bytes {
                let user: User = decode(0, &bytes)?;
                return Ok(Some((account(name.clone(), &user), user.hash)));
            }
        }
        Ok(None)
    }

    /// Users after a name (or from the first), in order.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<(UserName, User)>, Error> {
        let found = self.store.index.read(Read::default().range(keys::users_after(after, limit))).await?;
        let mut users = Vec::new();
        for (key, value) in found.ranges.iter().flatten() {
            if let Some(name) = keys::user_of(key).and_then(|name| name.parse().ok()) {
                users.push((name, decode(0, value)?));
            }
        }
        Ok(users)
    }

    pub(super) fn sweep(&self) {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut known = self.known.lock();
        known.retain(|_, remembered| now.wrapping_sub(remembered.used) < IDLE_SWEEPS);
        if known.capacity() > 4 * known.len() + 64 {
            known.shrink_to_fit();
        }
    }
}

impl Mailboxes {
    /// Makes a user and their mailbox, born with the default folders.
    pub async fn add_user(&self, name: &UserName, hash: String) -> Result<Arc<Account>, Error> {
        let _changing = self.users.change().await;
        let now = now_secs();
        let mailbox = random_number()?;
        // Random, so that nothing that was proved or minted for a user of this name before counts for this one.
        let version = u32::try_from(random_number()? & 0x3fff_ffff).unwrap_or(1).max(1);
        let user = User {
            mailbox,
            hash,
            version,
            push: true,
            sync: true,
            disabled: false,
            created: now,
            display_name: String::new(),
            hidden: false,
            device_passwords_only: false,
            policy: String::new(),
        };
        let head = Head {
            installation: self.installation,
            epoch: random_number()?,
            last: BIRTH,
            hierarchy: BIRTH,
            next_folder: FIRST_OWN,
            device_states: 0,
            quota: super::quota::QuotaEdit::default(),
        };
        let mut commit = Commit::default()
            .expect(keys::user(name.as_str()), None)
            .expect(keys::alias(name.as_str()), None)
            .expect(keys::head(mailbox), None)
            .put(keys::user(name.as_str()), user.encode())
            .put(keys::head(mailbox), head.encode());
        for (counter, folder) in defaults(now) {
            commit = commit.put(keys::folder(mailbox, counter), folder.encode());
        }
        match self.store.index.commit(commit).await {
            Ok(()) => {}
            Err(StoreError::Conflict) => return Err(Error::UserExists),
            Err(error) => return Err(error.into()),
        }
        let account = account(name.clone(), &user);
        self.users.remember(&account);
        Ok(account)
    }

    /// Changes a user's record. Where password or switches change, tokens made before are refused from now on, and
    /// waiting devices hear of it.
    pub async fn edit_user(&self, name: &UserName, edit: Edit) -> Result<Arc<Account>, Error> {
        let _changing = self.users.change().await;
        let (old_bytes, old) = self.users.record(name).await?.ok_or(Error::NoUser)?;
        let mut user = old.clone();
        let password = edit.hash.is_some();
        if let Some(hash) = edit.hash {
            user.hash = hash;
        }
        user.push = edit.push.unwrap_or(old.push);
        user.sync = edit.sync.unwrap_or(old.sync);
        user.disabled = edit.disabled.unwrap_or(old.disabled);
        user.display_name = edit.display_name.unwrap_or(user.display_name);
        user.hidden = edit.hidden.unwrap_or(old.hidden);
        user.device_passwords_only = edit.device_passwords_only.unwrap_or(old.device_passwords_only);
        user.policy = edit.policy.unwrap_or(user.policy);
        if user == old {
            return Ok(account(name.clone(), &user));
        }
        let told = |it: &User| (it.hash.clone(), it.push, it.sync, it.disabled, it.device_passwords_only);
        let told = told(&user) != told(&old);
        user.version += u32::from(told);
        let key = keys::user(name.as_str());
        // A commit whose outcome is unknown must not leave the old account in force.
        self.users.known.lock().remove(name);
        self.store
            .index
            .commit(Commit::default().expect(key.clone(), Some(old_bytes)).put(key, user.encode()))
            .await?;
        let account = account(name.clone(), &user);
        self.users.remember(&account);
        if !told {
            if user.policy != old.policy {
                self.tell(user.mailbox, UserEvent::Policy);
            }
            return Ok(account);
        }
        let event = if user.disabled && !old.disabled {
            UserEvent::Disabled
        } else if password {
            UserEvent::Password
        } else {
            UserEvent::Policy
        };
        self.tell(user.mailbox, event);
        Ok(account)
    }

    /// Removes a user; the mailbox is out of reach at once and dropped behind.
    pub async fn remove_user(self: &Arc<Self>, name: &UserName) -> Result<(), Error> {
        let _changing = self.users.change().await;
        let (old, user) = self.users.record(name).await?.ok_or(Error::NoUser)?;
        let mailbox = user.mailbox;
        let aliases = self.users.aliases_of(mailbox).await?;
        let key = keys::user(name.as_str());
        let boxes = self.clone();
        // Under the mailbox's lock, and its head goes with it: no write that waits can come after.
        self.write_bare(mailbox, async move {
            let mut commit = Commit::default()
                .expect(key.clone(), Some(old))
                .delete(key)
                .delete(keys::head(mailbox))
                .put(keys::mailbox_gone(mailbox), Vec::new());
            for address in &aliases {
                commit = commit
                    .delete(keys::alias(address.as_str()))
                    .delete(keys::alias_at(mailbox, address.as_str()));
            }
            boxes.store.index.commit(commit).await?;
            boxes.forget(mailbox);
            Ok(())
        })
        .await?;
        self.users.known.lock().remove(name);
        self.tell(mailbox, UserEvent::Removed);
        self.purge(purge::Job::Mailbox(mailbox));
        Ok(())
    }

    /// Ends every token that stands for a log-on of this user; waiting devices hear of it.
    pub async fn revoke_tokens(&self, name: &UserName) -> Result<(), Error> {
        let _changing = self.users.change().await;
        let (old, mut user) = self.users.record(name).await?.ok_or(Error::NoUser)?;
        user.version += 1;
        let key = keys::user(name.as_str());
        self.users.known.lock().remove(name);
        let commit = Commit::default().expect(key.clone(), Some(old)).put(key, user.encode());
        self.store.index.commit(commit).await?;
        self.users.remember(&account(name.clone(), &user));
        self.tell(user.mailbox, UserEvent::Password);
        Ok(())
    }

    fn tell(&self, mailbox: u64, event: UserEvent) {
        if let Some(watcher) = self.watcher() {
            watcher.user_event(mailbox, event);
        }
    }
}
