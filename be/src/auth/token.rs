//! Act-for tokens: "the bearer, a front end, acts for this user", signed by this back end.
//!
//! `base64url(claim) . base64url(HMAC-SHA256)`. The claim holds the credential version, so that a change
//! of password or switches ends every token made before it. The key is kept in the store: a restart
//! of the back end logs nobody off.
//!
//! Back ends that share a key (`token_key_file`) take each other's tokens, so that a mailbox that moved costs no new log-on. Such a
//! token has a third part: a fingerprint of the user's credential (name, password's hash, switches), and an HMAC of all under the
//! shared key. The back end that the mailbox moved to takes it if its own record of the user gives the same fingerprint.

use data_encoding::BASE64URL_NOPAD;
use directpush_common::names::UserName;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::place::TokenKey;
use crate::mailbox::users::Account;

/// How long a token is good for, in seconds.
pub const LIFETIME_SECS: u64 = 24 * 3600;

const FORMAT: u8 = 1;

/// Mints and reads tokens.
pub struct Tokens {
    secret: Vec<u8>,
    shared: Option<TokenKey>,
}

/// What a user's credential is, without saying it.
pub type Fingerprint = [u8; 16];

/// A token that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Token {
    /// Ours.
    Own(Claim),
    /// Of a back end with which we share a key.
    Shared(Claim, Fingerprint),
}

/// What a token says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    pub user: UserName,
    pub mailbox: u64,
    pub version: u32,
    /// Unix seconds.
    pub expires: i64,
}

impl Tokens {
    /// `secret` is this back end's own, `shared` that of several.
    pub fn new(secret: Vec<u8>, shared: Option<TokenKey>) -> Self {
        Self { secret, shared }
    }

    /// A token for this user, good for [`LIFETIME_SECS`] from `now` (Unix seconds). `hash` is that of the user's password.
    pub fn mint(&self, account: &Account, hash: &str, now: i64) -> String {
        let mut claim = vec![FORMAT];
        claim.extend_from_slice(&account.mailbox.to_be_bytes());
        claim.extend_from_slice(&account.version.to_be_bytes());
        claim.extend_from_slice(&now.saturating_add_unsigned(LIFETIME_SECS).to_be_bytes());
        claim.extend_from_slice(account.name.as_str().as_bytes());
        let mac = own(&self.secret, &claim).finalize().into_bytes();
        let mut token = format!("{}.{}", BASE64URL_NOPAD.encode(&claim), BASE64URL_NOPAD.encode(&mac));
        if let Some((TokenKey(key), fingerprint)) = self.shared.as_ref().zip(self.fingerprint(account, hash))
        {
            let mac = between(key, &claim, &fingerprint).finalize().into_bytes();
            let part = BASE64URL_NOPAD.encode(&[&fingerprint[..], &mac].concat());
            token.push('.');
            token.push_str(&part);
        }
        token
    }

    /// Of a user's credential as it is now; none where no key is shared.
    pub fn fingerprint(&self, account: &Account, hash: &str) -> Option<Fingerprint> {
        let TokenKey(key) = self.shared.as_ref()?;
        let mut mac = hmac(key);
        mac.update(b"directpush credential\0");
        mac.update(account.name.as_str().as_bytes());
        mac.update(&[0, account.push.into(), account.sync.into()]);
        mac.update(hash.as_bytes());
        mac.finalize().into_bytes().first_chunk().copied()
    }

    /// What a token says, if one of us minted it and it has not expired.
    pub fn read(&self, token: &str, now: i64) -> Option<Token> {
        let mut parts = token.trim().splitn(3, '.');
        let mut part = || BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok();
        let (bytes, mac) = (part()?, part()?);
        let claim = claim(&bytes).filter(|claim| now < claim.expires)?;
        if own(&self.secret, &bytes).verify_slice(&mac).is_ok() {
            return Some(Token::Own(claim));
        }
        let TokenKey(key) = self.shared.as_ref()?;
        let third = part()?;
        let (fingerprint, mac) = third.split_first_chunk()?;
        between(key, &bytes, fingerprint).verify_slice(mac).ok()?;
        Some(Token::Shared(claim, *fingerprint))
    }
}

fn claim(bytes: &[u8]) -> Option<Claim> {
    let rest = bytes.strip_prefix(&[FORMAT])?;
    let (mailbox, rest) = rest.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (expires, user) = rest.split_first_chunk()?;
    Some(Claim {
        user: std::str::from_utf8(user).ok()?.parse().ok()?,
        mailbox: u64::from_be_bytes(*mailbox),
        version: u32::from_be_bytes(*version),
        expires: i64::from_be_bytes(*expires),
    })
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any key length will do")
}

fn own(secret: &[u8], claim: &[u8]) -> Hmac<Sha256> {
    let mut mac = hmac(secret);
    mac.update(b"directpush act-for\0");
    mac.update(claim);
    mac
}

fn between(key: &[u8], claim: &[u8], fingerprint: &Fingerprint) -> Hmac<Sha256> {
    let mut mac = hmac(key);
    mac.update(b"directpush act-for between back ends\0");
    mac.update(fingerprint);
    mac.update(claim);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$of alice";

    fn alice() -> Account {
        Account {
            name: "alice@example.com".parse().unwrap(),
            mailbox: 7,
            version: 3,
            push: true,
            sync: true,
            disabled: false,
            device_passwords_only: false,
            policy: "".into(),
        }
    }

    fn tokens(secret: u8, shared: Option<u8>) -> Tokens {
        Tokens::new(vec![secret; 32], shared.map(|shared| TokenKey(vec![shared; 32])))
    }

    #[test]
    fn a_token_reads_back_until_it_expires() {
        for tokens in [tokens(1, None), tokens(1, Some(9))] {
            let token = tokens.mint(&alice(), HASH, 1000);
            let Some(Token::Own(claim)) = tokens.read(&token, 1000) else { panic!("not ours") };
            assert_eq!((claim.user, claim.mailbox, claim.version), (alice().name, 7, 3));
            assert!(tokens.read(&token, 1000 + LIFETIME_SECS.cast_signed()).is_none());
        }
    }

    #[test]
    fn a_forged_token_is_refused() {
        let token = tokens(1, None).mint(&alice(), HASH, 1000);
        assert!(tokens(2, None).read(&token, 1000).is_none());
        for (minting, reading) in
            [(tokens(1, None), tokens(1, None)), (tokens(1, Some(9)), tokens(2, Some(9)))]
        {
            let token = minting.mint(&alice(), HASH, 1000);
            let own = token.match_indices('.').nth(1).map_or(token.len(), |(at, _)| at);
            for at in 0..token.len() {
                let mut forged = token.clone().into_bytes();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                let forged = String::from_utf8(forged).unwrap();
                // What is between the other's own secret and us says nothing here.
                let theirs =
                    token.len() > own && forged[..own] != token[..own] && at > token.find('.').unwrap();
                assert!(theirs || reading.read(&forged, 1000).is_none(), "{at}");
            }
        }
        for bad in ["", ".", "..", "a.b", "AQ.AQ", "AQ.AQ.AQ"] {
            assert!(tokens(1, Some(1)).read(bad, 1000).is_none());
        }
    }

    #[test]
    fn a_shared_token_stands_for_the_credential_that_it_was_made_for() {
        let (one, other) = (tokens(1, Some(9)), tokens(2, Some(9)));
        let token = one.mint(&alice(), HASH, 1000);
        let Some(Token::Shared(claim, fingerprint)) = other.read(&token, 1000) else { panic!("not shared") };
        assert_eq!((claim.user, claim.mailbox), (alice().name, 7));
        let moved = Account { mailbox: 8, version: 4, ..alice() };
        assert_eq!(other.fingerprint(&moved, HASH), Some(fingerprint));
        assert_ne!(other.fingerprint(&moved, "$argon2id$another"), Some(fingerprint));
        assert_ne!(other.fingerprint(&Account { push: false, ..moved.clone() }, HASH), Some(fingerprint));
        for stranger in [tokens(2, Some(8)), tokens(2, None)] {
            assert!(stranger.read(&token, 1000).is_none());
        }
    }
}
