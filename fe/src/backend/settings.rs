//! What belongs to a user and is no folder: `NON_IPM_SUBTREE/Settings/`, in JSON.

use bytes::Bytes;
use directpush_common::dav::DavError;
use directpush_common::directory::Person;
use directpush_common::eas::provision::PolicyInForce;
use directpush_common::mail::oof::Oof;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Answer, Call};
use super::{Backend, Result, Session};

impl Backend {
    /// The policy in force for this user; `None` = none is demanded.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn policy(&self, session: &Session) -> Result<Option<PolicyInForce>> {
        self.settings_get(session, "Policy").await
    }

    /// How the user is called, and their addresses.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn person(&self, session: &Session) -> Result<Option<Person>> {
        self.settings_get(session, "User").await
    }

    /// What the user wants answered automatically.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn oof(&self, session: &Session) -> Result<Option<Oof>> {
        self.settings_get(session, "Oof").await
    }

    /// Sets what is answered automatically; false when the back end does not take it.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn oof_put(&self, session: &Session, oof: &Oof) -> Result<bool> {
        let path = settings_url(session, "Oof");
        let answer = self.call(json("PUT", &path, session, oof)).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
                Ok(false)
            }
            _ => Err(answer.into_error()),
        }
    }

    async fn settings_get<T: DeserializeOwned>(&self, session: &Session, object: &str) -> Result<Option<T>> {
        let path = settings_url(session, object);
        let answer = self.call(Call::new("GET", &path, Some(session))).await?;
        match answer.status {
            StatusCode::OK => read(&answer).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.into_error()),
        }
    }
}

fn settings_url(session: &Session, object: &str) -> String {
    format!("{}NON_IPM_SUBTREE/Settings/{object}", session.user.mailbox_url())
}

fn json<'a>(method: &'static str, path: &'a str, session: &'a Session, content: &impl Serialize) -> Call<'a> {
    let mut call = Call::new(method, path, Some(session));
    call.headers.push((header::CONTENT_TYPE.as_str(), "application/json".to_owned()));
    call.body = Bytes::from(serde_json::to_vec(content).unwrap_or_default());
    call
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    Ok(serde_json::from_slice(&answer.body).map_err(|_| DavError::Bad("JSON"))?)
}
