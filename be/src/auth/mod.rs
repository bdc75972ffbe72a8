//! Who asks: front ends by their credential, users by their password or by a token minted here.
//!
//! `passwords` checks passwords at a bounded cost; `token` mints and reads act-for tokens; `front_ends` knows who may ask, and
//! `authority` signs their certificates; `device_passwords` are good for devices alone. This file puts them together into a [`Principal`].

pub mod authority;
pub mod device_passwords;
pub mod front_ends;
pub mod passwords;
pub mod token;

use std::sync::Arc;

use data_encoding::BASE64;
use directpush_common::dav::headers::FE_SCHEME;
use directpush_common::names::UserName;
use directpush_common::push::ledger::FrontEndNumber;
use subtle::ConstantTimeEq;

use crate::config::place::TokenKey;
use crate::error::Error;
use crate::http::tls::Shown;
use crate::mailbox::users::Account;
use crate::mailbox::{Mailboxes, now_secs};
use crate::placement::Elsewhere;
use front_ends::{FrontEnd, FrontEnds};
use passwords::{Passwords, Verdict};
use token::{Token, Tokens};

/// Who a request comes from.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A front end, perhaps acting for a user.
    FrontEnd { number: FrontEndNumber, front_end: Arc<FrontEnd>, acting: Option<Arc<Account>> },
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
    /// 307: whose mailbox it is, is at the back end of this URL.
    Elsewhere(Arc<str>),
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

/// How a request says who sent it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `DirectPush-Act-For`.
    pub act_for: Option<&'a str>,
    /// The certificate that its connection showed.
    pub shown: Option<&'a Shown>,
}

/// Authentication of one back end.
pub struct Auth {
    boxes: Arc<Mailboxes>,
    front_ends: Arc<FrontEnds>,
    /// Whether front ends must show certificates.
    certificates: bool,
    elsewhere: Option<Arc<Elsewhere>>,
    default_domain: Option<String>,
    passwords: Passwords,
    tokens: Tokens,
}

/// What authentication goes by.
pub struct AuthSettings {
    pub front_ends: Arc<FrontEnds>,
    /// Whether front ends must show certificates.
    pub certificates: bool,
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// `user` and `user@<this>` are the same user.
    pub default_domain: Option<String>,
    pub token_key: Option<TokenKey>,
}

impl Auth {
    pub async fn new(boxes: Arc<Mailboxes>, settings: AuthSettings) -> Result<Self, Error> {
        let AuthSettings { front_ends, certificates, elsewhere, default_domain, token_key } = settings;
        let tokens = Tokens::new(boxes.users.token_secret().await?, token_key);
        let passwords = Passwords::new()?;
        Ok(Self { boxes, front_ends, certificates, elsewhere, default_domain, passwords, tokens })
    }

    pub fn front_ends(&self) -> &Arc<FrontEnds> {
        &self.front_ends
    }

    /// Hashes a new password, off the async workers.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.passwords.hash(password).await
    }

    /// `Authorization: DirectPush <name>:<secret>`, and where it must, the certificate that goes with it.
    fn front_end_of(&self, credential: &str, shown: Option<&Shown>) -> Option<FrontEndNumber> {
        let (name, secret) = credential.trim().split_once(':')?;
        let found = self.front_ends.find(name, secret)?;
        if self.certificates && !shown.is_some_and(|shown| shown.names(name)) {
            tracing::warn!(front_end = name, "comes without a certificate for its name");
            return None;
        }
        Some(found)
    }

    /// Who sent a request, acting for whom.
    pub async fn principal(&self, credentials: Credentials<'_>) -> Result<Principal, Refusal> {
        let authorization = credentials.authorization.ok_or(Refusal::Credential)?.trim();
        let (scheme, credential) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if scheme.eq_ignore_ascii_case(FE_SCHEME) {
            let number = self.front_end_of(credential, credentials.shown).ok_or(Refusal::FrontEnd)?;
            let front_end = self.front_ends.at(number).ok_or(Refusal::FrontEnd)?;
            let acting = match credentials.act_for {
                None => None,
                Some(token) => Some(self.acting(token).await?),
            };
            return Ok(Principal::FrontEnd { number, front_end, acting });
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
        let account = match self.tokens.read(token, now_secs()).ok_or(Refusal::Token)? {
            Token::Own(claim) => {
                let account = self.boxes.users.account(&claim.user).await.map_err(Refusal::Failed)?;
                account.filter(|it| it.version == claim.version && it.mailbox == claim.mailbox)
            }
            Token::Shared(claim, fingerprint) => {
                let known = self.boxes.users.with_hash(&[claim.user]).await.map_err(Refusal::Failed)?;
                // Of a mailbox of our own it was ours once, before a backup was brought back.
                let known = known.filter(|(account, hash)| {
                    account.mailbox != claim.mailbox
                        && self
                            .tokens
                            .fingerprint(account, hash)
                            .is_some_and(|own| own.ct_eq(&fingerprint).into())
                });
                known.map(|(account, _)| account)
            }
        };
        account.filter(|account| !account.disabled).ok_or(Refusal::Token)
    }

    /// The back end where the mailbox of this user is, if that is another one.
    pub fn elsewhere(&self, user: &UserName) -> Option<Arc<str>> {
        self.elsewhere.as_ref()?.of(user)
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
        self.prove(login, password, false).await.map(|(account, _)| account)
    }

    /// Checks a password, of a device if it is one that logs on; gives the hash of the user's own too.
    async fn prove(
        &self,
        login: &str,
        password: &str,
        device: bool,
    ) -> Result<(Arc<Account>, String), Refusal> {
        let names = self.meant(login);
        let known = self.boxes.users.with_hash(&names).await.map_err(Refusal::Failed)?;
        if let Some(elsewhere) = &self.elsewhere {
            let url = match &known {
                Some((account, _)) => elsewhere.of(&account.name),
                None => elsewhere.of_any(&names),
            };
            if let Some(url) = url {
                return Err(Refusal::Elsewhere(url));
            }
        }
        if let (true, Some((account, hash))) = (device, &known)
            && self.boxes.is_device_password(account.mailbox, password).await.map_err(Refusal::Failed)?
        {
            let refused = account.disabled.then_some(Refusal::Disabled);
            return refused.map_or_else(|| Ok((account.clone(), hash.clone())), Err);
        }
        let (account, hash) = known.unzip();
        let version = account.as_ref().map_or(0, |account| account.version);
        // One name per user for counting failures, however the login was written.
        let counted =
            account.as_ref().map_or_else(|| login.to_lowercase(), |account| account.name.to_string());
        match self.passwords.check(&counted, version, password, hash.clone()).await {
            Verdict::Right => match account.zip(hash) {
                // As if it were wrong: who guesses learns nothing.
                Some((account, _)) if device && account.device_passwords_only => Err(Refusal::Credential),
                Some((account, _)) if account.disabled => Err(Refusal::Disabled),
                Some(proved) => Ok(proved),
                None => Err(Refusal::Credential),
            },
            Verdict::Wrong => Err(Refusal::Credential),
            Verdict::Busy => Err(Refusal::Busy),
        }
    }

    /// Checks a password and mints an act-for token.
    pub async fn log_on(&self, login: &str, password: &str) -> Result<LoggedOn, Refusal> {
        let (account, hash) = self.prove(login, password, true).await?;
        let token = self.tokens.mint(&account, &hash, now_secs());
        Ok(LoggedOn { account, token, expires_secs: token::LIFETIME_SECS })
    }
}
