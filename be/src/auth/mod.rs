//! Who asks: front ends by their credential, users by their password or by a token minted here.
//!
//! `passwords` checks passwords at a bounded cost; `token` mints and reads act-for tokens. This file
//! puts them together into a [`Principal`].

pub mod passwords;
pub mod token;

use std::sync::Arc;

use data_encoding::BASE64;
use directpush_common::dav::headers::FE_SCHEME;
use directpush_common::names::UserName;
use subtle::ConstantTimeEq;

use crate::config::FrontEnd;
use crate::error::Error;
use crate::mailbox::users::Account;
use crate::mailbox::{Mailboxes, now_secs};
use passwords::{Passwords, Verdict};
use token::Tokens;

/// Who a request comes from.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A front end, by its place in the configuration, perhaps acting for a user.
    FrontEnd { at: usize, acting: Option<Arc<Account>> },
    /// A user with a DAV client.
    User(Arc<Account>),
}

impl Principal {
    /// The user whose mailbox may be touched.
    pub fn account(&self) -> Option<&Arc<Account>> {
        match self {
            Self::FrontEnd { acting, .. } => acting.as_ref(),
            Self::User(account) => Some(account),
        }
    }
}

/// Why a request is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// 401: no credential, or a wrong password.
    Credential,
    /// 401 with the reason `front-end`.
    FrontEnd,
    /// 401 with the reason `credential`: log on again.
    Token,
    /// 403: the password was right, the user is disabled.
    Disabled,
    /// 503: too many checks wait.
    Busy,
    /// The store failed.
    Failed(Error),
}

/// What a log-on gave.
pub struct LoggedOn {
    pub account: Arc<Account>,
    pub token: String,
    pub expires_secs: u64,
}

/// Authentication of one back end.
pub struct Auth {
    boxes: Arc<Mailboxes>,
    front_ends: Vec<FrontEnd>,
    default_domain: Option<String>,
    passwords: Passwords,
    tokens: Tokens,
}

impl Auth {
    pub async fn new(
        boxes: Arc<Mailboxes>,
        front_ends: Vec<FrontEnd>,
        default_domain: Option<String>,
    ) -> Result<Self, Error> {
        let tokens = Tokens::new(boxes.users.token_secret().await?);
        Ok(Self { boxes, front_ends, default_domain, passwords: Passwords::new()?, tokens })
    }

    pub fn front_end(&self, at: usize) -> &FrontEnd {
        &self.front_ends[at]
    }

    /// Hashes a new password, off the async workers.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.passwords.hash(password).await
    }

    /// `Authorization: DirectPush <name>:<secret>`; every front end is compared, in constant time.
    fn front_end_of(&self, credential: &str) -> Option<usize> {
        let (name, secret) = credential.trim().split_once(':')?;
        let mut found = None;
        for (at, front_end) in self.front_ends.iter().enumerate() {
            let same = front_end.secret.as_bytes().ct_eq(secret.as_bytes());
            if bool::from(same) && front_end.name == name {
                found = Some(at);
            }
        }
        found
    }

    /// Who sent this `Authorization`, acting for whom.
    pub async fn principal(
        &self,
        authorization: Option<&str>,
        act_for: Option<&str>,
    ) -> Result<Principal, Refusal> {
        let authorization = authorization.ok_or(Refusal::Credential)?.trim();
        let (scheme, credential) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case(FE_SCHEME) {
            let at = self.front_end_of(credential).ok_or(Refusal::FrontEnd)?;
            let acting = match act_for {
                None => None,
                Some(token) => Some(self.acting(token).await?),
            };
            return Ok(Principal::FrontEnd { at, acting });
        }
        if scheme.eq_ignore_ascii_case("Basic") {
            let decoded = BASE64.decode(credential.trim().as_bytes()).map_err(|_| Refusal::Credential)?;
            let text = String::from_utf8(decoded).map_err(|_| Refusal::Credential)?;
            let (login, password) = text.split_once(':').ok_or(Refusal::Credential)?;
            return self.check(login, password).await.map(Principal::User);
        }
        Err(Refusal::Credential)
    }

    async fn acting(&self, token: &str) -> Result<Arc<Account>, Refusal> {
        let claim = self.tokens.read(token, now_secs()).ok_or(Refusal::Token)?;
        let account = self.boxes.users.account(&claim.user).await.map_err(Refusal::Failed)?;
        match account {
            Some(account)
                if account.version == claim.version
                    && account.mailbox == claim.mailbox
                    && !account.disabled =>
            {
                Ok(account)
            }
            _ => Err(Refusal::Token),
        }
    }

    /// The users that somebody may mean who logs on as `login`: `user`, `user@domain`, `domain\user`.
    fn meant(&self, login: &str) -> Vec<UserName> {
        let (domain, local) = match login.split_once('\\') {
            Some((domain, local)) => (Some(domain), local),
            None => (None, login),
        };
        let mut names = vec![local.to_owned()];
        if !local.contains('@') {
            let domains = [domain.filter(|domain| domain.contains('.')), self.default_domain.as_deref()];
            names.extend(domains.into_iter().flatten().map(|domain| format!("{local}@{domain}")));
        } else if let Some((local, domain)) = local.split_once('@')
            && self.default_domain.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(domain))
        {
            names.push(local.to_owned());
        }
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Checks a password.
    pub async fn check(&self, login: &str, password: &str) -> Result<Arc<Account>, Refusal> {
        let names = self.meant(login);
        let known = self.boxes.users.with_hash(&names).await.map_err(Refusal::Failed)?;
        let (account, hash) = known.unzip();
        let version = account.as_ref().map_or(0, |account| account.version);
        // One name per user for counting failures, however the login was written.
        let counted =
            account.as_ref().map_or_else(|| login.to_lowercase(), |account| account.name.to_string());
        match self.passwords.check(&counted, version, password, hash).await {
            Verdict::Right => match account {
                Some(account) if account.disabled => Err(Refusal::Disabled),
                Some(account) => Ok(account),
                None => Err(Refusal::Credential),
            },
            Verdict::Wrong => Err(Refusal::Credential),
            Verdict::Busy => Err(Refusal::Busy),
        }
    }

    /// Checks a password and mints an act-for token.
    pub async fn log_on(&self, login: &str, password: &str) -> Result<LoggedOn, Refusal> {
        let account = self.check(login, password).await?;
        let token = self.tokens.mint(&account, now_secs());
        Ok(LoggedOn { account, token, expires_secs: token::LIFETIME_SECS })
    }
}
