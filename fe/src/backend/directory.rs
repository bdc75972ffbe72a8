//! Who is who, asked of the back end (`docs/fe-be.md`, `POST /directpush/directory`).

use bytes::Bytes;
use directpush_common::dav::DavError;
use directpush_common::directory::{DirectoryAnswer, DirectoryQuery};
use http::{StatusCode, header};

use super::call::Call;
use super::{Backend, Result, Session};

impl Backend {
    /// The people that a query means.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn directory(&self, session: &Session, query: &DirectoryQuery) -> Result<DirectoryAnswer> {
        let mut call = Call::new("POST", "/directpush/directory", Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "application/json".to_owned()));
        call.body = Bytes::from(serde_json::to_vec(query).unwrap_or_default());
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => {
                Ok(serde_json::from_slice(&answer.body).map_err(|_| DavError::Bad("directory"))?)
            }
            _ => Err(answer.into_error()),
        }
    }
}
