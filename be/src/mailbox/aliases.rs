//! Aliases: addresses beside a user's name at which mail reaches the user, and as which the user may send.
//!
//! An alias belongs to one user, cannot be a user's name, and goes with its user. Nobody logs on with one.

use std::sync::Arc;

use directpush_common::names::UserName;

use super::users::{Account, Users};
use super::{Mailboxes, keys};
use crate::error::Error;
use crate::store::{Commit, Key, Read, StoreError, Value};

/// Aliases of one user, at most.
pub const ALIASES_MAX: usize = 100;

impl Users {
    /// The user who owns the first of these addresses that is an alias.
    pub async fn with_alias(&self, addresses: &[UserName]) -> Result<Option<Arc<Account>>, Error> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut read = Read::default();
        for address in addresses {
            read = read.get(keys::alias(address.as_str()));
        }
        let found = self.store.index.read(read).await?;
        for bytes in found.gets.into_iter().flatten() {
            // A user who was removed meanwhile took the alias along.
            if let Some(name) = owner(&bytes)
                && let Some(account) = self.account(&name).await?
            {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    /// The aliases of a mailbox, in order.
    pub(super) async fn aliases_of(&self, mailbox: u64) -> Result<Vec<UserName>, Error> {
        Ok(self.aliases_of_all(&[mailbox]).await?.pop().unwrap_or_default())
    }

    /// The aliases of each of these mailboxes, in order.
    pub(super) async fn aliases_of_all(&self, mailboxes: &[u64]) -> Result<Vec<Vec<UserName>>, Error> {
        let ranges = mailboxes.iter().map(|mailbox| keys::aliases_of(*mailbox, ALIASES_MAX));
        let found = self.store.index.read(ranges.fold(Read::default(), Read::range)).await?;
        let aliases = |rows: &Vec<(Key, Value)>| {
            rows.iter().filter_map(|(key, _)| keys::alias_of(key)?.parse().ok()).collect()
        };
        Ok(found.ranges.iter().map(aliases).collect())
    }
}

fn owner(bytes: &[u8]) -> Option<UserName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Mailboxes {
    /// The aliases of a user, in order.
    pub async fn aliases(&self, name: &UserName) -> Result<Vec<UserName>, Error> {
        let account = self.users.account(name).await?.ok_or(Error::NoUser)?;
        self.users.aliases_of(account.mailbox).await
    }

    /// Gives a user an alias. One that is the user's already stays.
    ///
    /// # Errors
    /// `Conflict` when the address is somebody's; `OverBound` when the user has as many as one may have.
    pub async fn add_alias(&self, name: &UserName, address: &UserName) -> Result<(), Error> {
        let _changing = self.users.change().await;
        let account = self.users.account(name).await?.ok_or(Error::NoUser)?;
        let (alias, user) = (keys::alias(address.as_str()), keys::user(address.as_str()));
        let found = self.users.store.index.read(Read::default().get(alias.clone()).get(user.clone())).await?;
        match &found.gets[..] {
            [_, Some(_)] => return Err(Error::Conflict("a user has this name")),
            [Some(bytes), _] if owner(bytes).as_ref() == Some(name) => return Ok(()),
            [Some(_), _] => return Err(Error::Conflict("another user has this alias")),
            _ => {}
        }
        if self.users.aliases_of(account.mailbox).await?.len() >= ALIASES_MAX {
            return Err(Error::OverBound("the number of a user's aliases"));
        }
        let commit = Commit::default()
            .expect(alias.clone(), None)
            .expect(user, None)
            .put(alias, name.as_str().as_bytes().to_vec())
            .put(keys::alias_at(account.mailbox, address.as_str()), Vec::new());
        match self.users.store.index.commit(commit).await {
            Err(StoreError::Conflict) => Err(Error::Conflict("this address is somebody's")),
            done => Ok(done?),
        }
    }

    /// Takes an alias from a user.
    ///
    /// # Errors
    /// `Gone` when it is not this user's.
    pub async fn remove_alias(&self, name: &UserName, address: &UserName) -> Result<(), Error> {
        let _changing = self.users.change().await;
        let account = self.users.account(name).await?.ok_or(Error::NoUser)?;
        if !self.users.aliases_of(account.mailbox).await?.contains(address) {
            return Err(Error::Gone("this alias"));
        }
        let commit = Commit::default()
            .delete(keys::alias(address.as_str()))
            .delete(keys::alias_at(account.mailbox, address.as_str()));
        Ok(self.users.store.index.commit(commit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_alias_has_one_owner_and_goes_with_the_user() {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let alice = boxes.add_user(&name("alice@x"), String::new()).await.unwrap();
        boxes.add_user(&name("bob@x"), String::new()).await.unwrap();
        for _ in 0..2 {
            boxes.add_alias(&name("alice@x"), &name("Sales@x")).await.unwrap();
        }
        boxes.add_alias(&name("alice@x"), &name("info@x")).await.unwrap();
        assert_eq!(boxes.aliases(&name("alice@x")).await.unwrap(), [name("info@x"), name("sales@x")]);
        let found = boxes.users.with_alias(&[name("nobody@x"), name("sales@x")]).await.unwrap();
        assert_eq!(found, Some(alice));

        let taken = boxes.add_alias(&name("bob@x"), &name("sales@x")).await;
        assert!(matches!(taken, Err(Error::Conflict(_))));
        let taken = boxes.add_alias(&name("alice@x"), &name("bob@x")).await;
        assert!(matches!(taken, Err(Error::Conflict(_))));
        let taken = boxes.add_user(&name("sales@x"), String::new()).await;
        assert!(matches!(taken, Err(Error::UserExists)));
        let not_his = boxes.remove_alias(&name("bob@x"), &name("sales@x")).await;
        assert!(matches!(not_his, Err(Error::Gone(_))));

        boxes.remove_alias(&name("alice@x"), &name("info@x")).await.unwrap();
        assert_eq!(boxes.users.with_alias(&[name("info@x")]).await.unwrap(), None);
        boxes.remove_user(&name("alice@x")).await.unwrap();
        boxes.add_alias(&name("bob@x"), &name("sales@x")).await.unwrap();
        assert_eq!(boxes.aliases(&name("bob@x")).await.unwrap(), [name("sales@x")]);
    }

    #[tokio::test]
    async fn aliases_are_bounded() {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        boxes.add_user(&name("alice"), String::new()).await.unwrap();
        for n in 0..ALIASES_MAX {
            boxes.add_alias(&name("alice"), &name(&format!("a{n}"))).await.unwrap();
        }
        let more = boxes.add_alias(&name("alice"), &name("more")).await;
        assert!(matches!(more, Err(Error::OverBound(_))));
    }
}
