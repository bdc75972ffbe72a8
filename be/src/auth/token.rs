//! Act-for tokens: "the bearer, a front end, acts for this user", signed by this back end.
//!
//! `base64url(claim) . base64url(HMAC-SHA256)`. The claim holds the credential version, so that a change
//! of password or switches ends every token made before it. The key is kept in the store: a restart
//! of the back end logs nobody off.

use data_encoding::BASE64URL_NOPAD;
use directpush_common::names::UserName;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::mailbox::users::Account;

/// How long a token is good for, in seconds.
pub const LIFETIME_SECS: u64 = 24 * 3600;

const FORMAT: u8 = 1;

/// Mints and reads tokens.
pub struct Tokens {
    secret: Vec<u8>,
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
    pub fn new(secret: Vec<u8>) -> Self {
        Self { secret }
    }

    fn mac(&self, claim: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.secret).expect("any key length will do");
        mac.update(b"directpush act-for\0");
        mac.update(claim);
        mac
    }

    /// A token for this user, good for [`LIFETIME_SECS`] from `now` (Unix seconds).
    pub fn mint(&self, account: &Account, now: i64) -> String {
        let mut claim = vec![FORMAT];
        claim.extend_from_slice(&account.mailbox.to_be_bytes());
        claim.extend_from_slice(&account.version.to_be_bytes());
        claim.extend_from_slice(&now.saturating_add_unsigned(LIFETIME_SECS).to_be_bytes());
        claim.extend_from_slice(account.name.as_str().as_bytes());
        let mac = self.mac(&claim).finalize().into_bytes();
        format!("{}.{}", BASE64URL_NOPAD.encode(&claim), BASE64URL_NOPAD.encode(&mac))
    }

    /// What a token says, if it is ours and not expired.
    pub fn read(&self, token: &str, now: i64) -> Option<Claim> {
        let (claim, mac) = token.trim().split_once('.')?;
        let claim = BASE64URL_NOPAD.decode(claim.as_bytes()).ok()?;
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        self.mac(&claim).verify_slice(&mac).ok()?;
        let rest = claim.strip_prefix(&[FORMAT])?;
        let (mailbox, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (expires, user) = rest.split_first_chunk()?;
        let claim = Claim {
            user: std::str::from_utf8(user).ok()?.parse().ok()?,
            mailbox: u64::from_be_bytes(*mailbox),
            version: u32::from_be_bytes(*version),
            expires: i64::from_be_bytes(*expires),
        };
        (now < claim.expires).then_some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Account {
        Account {
            name: "alice@example.com".parse().unwrap(),
            mailbox: 7,
            version: 3,
            push: true,
            sync: true,
            disabled: false,
        }
    }

    #[test]
    fn a_token_reads_back_until_it_expires() {
        let tokens = Tokens::new(vec![1; 32]);
        let token = tokens.mint(&alice(), 1000);
        let claim = tokens.read(&token, 1000).unwrap();
        assert_eq!((claim.user, claim.mailbox, claim.version), (alice().name, 7, 3));
        assert!(tokens.read(&token, 1000 + LIFETIME_SECS.cast_signed()).is_none());
    }

    #[test]
    fn a_forged_token_is_refused() {
        let token = Tokens::new(vec![1; 32]).mint(&alice(), 1000);
        assert!(Tokens::new(vec![2; 32]).read(&token, 1000).is_none());
        let tokens = Tokens::new(vec![1; 32]);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(tokens.read(&forged, 1000).is_none(), "{at}");
        }
        for bad in ["", ".", "a.b", "AQ.AQ"] {
            assert!(tokens.read(bad, 1000).is_none());
        }
    }
}
