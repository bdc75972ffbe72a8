//! REPORT `dp:find`: messages by what they say.

use std::time::Duration;

use bytes::Bytes;
use directpush_common::dav::find::{Find, Found};
use directpush_common::dav::xml;
use http::{StatusCode, header};

use super::call::Call;
use super::{Backend, Result, Session};

/// What an answer takes beyond the time that the search itself may take.
const GRACE: Duration = Duration::from_secs(5);

impl Backend {
    /// The messages of the mailbox, or of the folders that `find` names, that fit.
    ///
    /// # Errors
    /// [`super::Error`]; `Busy` while another search of this mailbox goes on.
    pub async fn find(&self, session: &Session, find: &Find) -> Result<Found> {
        let path = session.user.mailbox_url();
        let mut call = Call::new("REPORT", &path, Some(session));
        call.headers.push((header::CONTENT_TYPE.as_str(), "text/xml".to_owned()));
        call.timeout = Some(Duration::from_secs(find.budget_secs) + GRACE);
        call.body = Bytes::from(find.write());
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::MULTI_STATUS => Ok(Found::read(&xml::parse(&answer.body)?)?),
            _ => Err(answer.into_error()),
        }
    }
}
