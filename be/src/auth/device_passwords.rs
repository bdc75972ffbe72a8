//! Passwords that the server makes for devices, so that a lost phone does not cost the user's own.
//!
//! They are random (120 bits), so SHA-256 keeps them well and checking costs nothing; what looks like one is compared before
//! argon2 is asked. They are good for devices only, never for DAV: who finds one cannot change what the user keeps. Each is
//! removed by itself; that ends all log-ons of the user, and whoever still has a good password logs on again unnoticed.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::Error;
use crate::mailbox::record::{Record, RecordError};
use crate::mailbox::{Mailboxes, decode, keys, now_secs, random_number};
use crate::store::{Commit, Read};

/// Of one user, at most.
const MAX: usize = 50;
/// Characters of a label.
pub const LABEL_CHARS_MAX: usize = 100;
/// Letters and digits of a password: 5 bits each.
const CHARS: usize = 24;
/// When a password was used is written at most once in so many seconds.
const WRITE_AFTER_SECS: i64 = 600;

/// A device password as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DevicePassword {
    /// What the administrator calls it.
    pub label: String,
    /// SHA-256 of the password without its hyphens.
    digest: [u8; 32],
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds, give or take ten minutes; 0 = never.
    #[serde(default)]
    pub used: i64,
}

impl Record for DevicePassword {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(bytes).map_err(|_| RecordError::Field("device password"))
    }
}

/// The digest of what looks like a device password: 24 letters and digits, however they are grouped.
fn digest(password: &str) -> Option<[u8; 32]> {
    let plain = password.bytes().filter(|b| !matches!(b, b'-' | b' ')).map(|b| b.to_ascii_lowercase());
    let plain: Vec<u8> = plain.take(CHARS + 1).collect();
    let fits = plain.len() == CHARS && plain.iter().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
    fits.then(|| Sha256::digest(&plain).into())
}

/// Six groups of four.
fn new_password() -> Result<String, Error> {
    let mut random = [0; CHARS * 5 / 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("draw a password")(std::io::Error::other(error.to_string())))?;
    let text = BASE32_NOPAD.encode(&random).to_ascii_lowercase();
    let groups: Vec<&str> = (0..CHARS).step_by(4).filter_map(|at| text.get(at..at + 4)).collect();
    Ok(groups.join("-"))
}

impl Mailboxes {
    /// A user's device passwords, with their numbers.
    pub async fn device_passwords(&self, mailbox: u64) -> Result<Vec<(u64, DevicePassword)>, Error> {
        let read = Read::default().range(keys::device_passwords(mailbox, MAX));
        let found = self.store.index.read(read).await?;
        let all = found.ranges.iter().flatten();
        all.map(|(key, value)| Ok((keys::last_number(key), decode(mailbox, value)?))).collect()
    }

    /// Makes one; gives its number and, this once, itself.
    pub async fn add_device_password(
        self: &Arc<Self>,
        mailbox: u64,
        label: String,
    ) -> Result<(u64, String), Error> {
        let (number, password) = (random_number()?, new_password()?);
        let digest = digest(&password).ok_or(Error::Task)?;
        let kept = DevicePassword { label, digest, created: now_secs(), used: 0 };
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let read = Read::default().get(keys::head(mailbox)).range(keys::device_passwords(mailbox, MAX));
            let mut found = boxes.store.index.read(read).await?;
            let head = found.gets.pop().flatten().ok_or(Error::NoUser)?;
            if found.ranges.first().is_some_and(|all| all.len() >= MAX) {
                return Err(Error::OverBound("the number of device passwords"));
            }
            let commit = Commit::default()
                .expect(keys::head(mailbox), Some(head))
                .put(keys::device_password(mailbox, number), kept.encode());
            Ok(boxes.store.index.commit(commit).await?)
        })
        .await?;
        Ok((number, password))
    }

    /// Removes one; says whether it was there.
    pub async fn remove_device_password(self: &Arc<Self>, mailbox: u64, number: u64) -> Result<bool, Error> {
        let boxes = self.clone();
        self.write_bare(mailbox, async move {
            let key = keys::device_password(mailbox, number);
            let found = boxes.store.index.read(Read::default().get(key.clone())).await?;
            if found.gets.into_iter().next().flatten().is_none() {
                return Ok(false);
            }
            boxes.store.index.commit(Commit::default().delete(key)).await?;
            Ok(true)
        })
        .await
    }

    /// Whether this is one of a user's device passwords.
    pub async fn is_device_password(self: &Arc<Self>, mailbox: u64, password: &str) -> Result<bool, Error> {
        let Some(digest) = digest(password) else { return Ok(false) };
        let mut found = None;
        for (number, kept) in self.device_passwords(mailbox).await? {
            if bool::from(kept.digest.ct_eq(&digest)) {
                found = Some((number, kept));
            }
        }
        let Some((number, kept)) = found else { return Ok(false) };
        let now = now_secs();
        if now - kept.used >= WRITE_AFTER_SECS {
            let boxes = self.clone();
            let work = async move {
                let key = keys::device_password(mailbox, number);
                // Unless it is removed meanwhile.
                let commit = Commit::default()
                    .expect(key.clone(), Some(kept.encode()))
                    .put(key, DevicePassword { used: now, ..kept }.encode());
                Ok(boxes.store.index.commit(commit).await?)
            };
            if let Err(error) = self.write_bare(mailbox, work).await {
                tracing::debug!(%error, "when a device password was used is not written");
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn device_passwords_are_made_checked_and_removed() {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let mailbox = boxes.add_user(&"alice".parse().unwrap(), String::new()).await.unwrap().mailbox;
        let (one, password) = boxes.add_device_password(mailbox, "phone".into()).await.unwrap();
        let (_, other) = boxes.add_device_password(mailbox, "tablet".into()).await.unwrap();
        assert_eq!((password.len(), password.split('-').count()), (29, 6));
        for good in [password.clone(), password.replace('-', ""), password.to_uppercase(), other.clone()] {
            assert!(boxes.is_device_password(mailbox, &good).await.unwrap(), "{good}");
        }
        let all = boxes.device_passwords(mailbox).await.unwrap();
        assert!(all.len() == 2 && all.iter().all(|(_, it)| it.created > 0 && it.used > 0));
        for bad in ["", "x", "aaaa-aaaa-aaaa-aaaa-aaaa-aaaa", &format!("{password}a"), "ää"] {
            assert!(!boxes.is_device_password(mailbox, bad).await.unwrap(), "{bad}");
        }
        assert!(boxes.remove_device_password(mailbox, one).await.unwrap());
        assert!(!boxes.remove_device_password(mailbox, one).await.unwrap());
        assert!(!boxes.is_device_password(mailbox, &password).await.unwrap());
        assert!(boxes.is_device_password(mailbox, &other).await.unwrap());
        for _ in 1..MAX {
            boxes.add_device_password(mailbox, String::new()).await.unwrap();
        }
        let full = boxes.add_device_password(mailbox, String::new()).await;
        assert!(matches!(full, Err(Error::OverBound(_))));
    }
}
