//! `POST /directpush/logon`: a password for an act-for token.

use bytes::Bytes;
use directpush_common::dav::DavError;
use directpush_common::names::UserName;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::{Backend, Result};

#[derive(Serialize)]
struct Request<'a> {
    login: &'a str,
    password: &'a str,
}

/// The answer to a password that is right.
#[derive(Debug, Deserialize)]
pub struct Granted {
    /// The mailbox.
    pub user: UserName,
    /// What proves it from now on.
    pub token: String,
    /// For so many seconds.
    pub expires_secs: u64,
    /// Push is on for this user.
    pub push: bool,
    /// User-initiated sync is on for this user.
    pub sync: bool,
}

/// What the back end says of a password.
#[derive(Debug)]
pub enum Logon {
    /// It is right.
    Granted(Granted),
    /// It is wrong, or nobody has that name.
    Wrong,
    /// It is right, and the user is disabled.
    Disabled,
}

impl Backend {
    /// Proves a password. The back end slows down whoever fails often.
    ///
    /// # Errors
    /// [`super::Error`]; `Busy` when too many checks wait.
    pub async fn logon(&self, login: &str, password: &str) -> Result<Logon> {
        let body = serde_json::to_vec(&Request { login, password }).unwrap_or_default();
        let mut call = Call::new("POST", "/directpush/logon", None);
        call.headers.push(("Content-Type", "application/json".to_owned()));
        call.body = Bytes::from(body);
        call.logon = true;
        // argon2id and a queue in front of it take their time.
        call.timeout = Some(std::time::Duration::from_secs(15));
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => {
                let granted = serde_json::from_slice(&answer.body).map_err(|_| DavError::Bad("logon"))?;
                Ok(Logon::Granted(granted))
            }
            StatusCode::UNAUTHORIZED if answer.header("DirectPush-Reason") != Some("front-end") => {
                Ok(Logon::Wrong)
            }
            StatusCode::FORBIDDEN => Ok(Logon::Disabled),
            _ => Err(answer.into_error()),
        }
    }
}
