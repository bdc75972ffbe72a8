//! SUBSCRIBE, UNSUBSCRIBE and POLL.

use std::time::Duration;

use directpush_common::dav::poll::{self, SubscriptionAnswer};
use directpush_common::dav::subscribe::{DeviceEvent, Subscribe, Subscribed, format_ids};
use directpush_common::dav::{DavError, headers};
use directpush_common::httpu::{CallBack, SubscriptionId};
use http::StatusCode;

use super::call::Call;
use super::{Backend, Result, Session};

/// The end of a Ping does not wait longer for the back end than this.
pub const UNSUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a SUBSCRIBE brings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subscription {
    /// It stands.
    Made(Subscribed),
    /// 404: the folder is gone.
    Gone,
    /// 409: the token is too old or of another epoch; the device starts the collection over.
    TokenTooOld,
}

/// The answer of UNSUBSCRIBE.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unsubscribed {
    /// One per id.
    pub answers: Vec<SubscriptionAnswer>,
    /// Nothing counted and everything stays (only when asked conditionally).
    pub kept: bool,
    /// A device event that ended the group's use.
    pub event: Option<DeviceEvent>,
}

/// The answer of POLL by call-back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Polled {
    /// Ids with something unacknowledged that counts, each with its group.
    pub answers: Vec<SubscriptionAnswer>,
    /// Subscriptions of this call-back.
    pub count: Option<u64>,
}

impl Backend {
    /// Subscribes to the folder at its friendly URL (encoded).
    ///
    /// # Errors
    /// [`super::Error`]; `Busy` over a bound.
    pub async fn subscribe(
        &self,
        session: &Session,
        folder_url: &str,
        subscribe: &Subscribe,
    ) -> Result<Subscription> {
        let mut call = Call::new("SUBSCRIBE", folder_url, Some(session));
        call.headers = subscribe.to_headers();
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::OK => Ok(Subscription::Made(Subscribed::from_headers(|name| answer.header(name))?)),
            StatusCode::NOT_FOUND => Ok(Subscription::Gone),
            StatusCode::CONFLICT => Ok(Subscription::TokenTooOld),
            _ => Err(answer.into_error()),
        }
    }

    /// Ends the subscriptions of a Ping and asks, in the same request, what changed; with
    /// `only_if_changed` they stay when nothing did.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn unsubscribe(
        &self,
        session: &Session,
        ids: impl IntoIterator<Item = SubscriptionId>,
        only_if_changed: bool,
    ) -> Result<Unsubscribed> {
        let path = session.user.mailbox_url();
        let mut call = Call::new("UNSUBSCRIBE", &path, Some(session));
        call.headers.push((headers::SUBSCRIPTION_ID, format_ids(ids)));
        if only_if_changed {
            call.headers.push((headers::ONLY_IF_CHANGED, "t".to_owned()));
        }
        call.timeout = Some(UNSUBSCRIBE_TIMEOUT);
        // The wait for a turn counts too: the device waits behind this.
        let answer = tokio::time::timeout(UNSUBSCRIBE_TIMEOUT, self.call(call)).await;
        let answer = answer.unwrap_or(Err(super::Error::Busy { retry_after_secs: 1 }))?;
        match answer.status {
            StatusCode::MULTI_STATUS => Ok(Unsubscribed {
                answers: poll::read(&answer.body)?,
                kept: answer.header(headers::KEPT).is_some_and(|kept| kept.trim().eq_ignore_ascii_case("t")),
                event: answer.header(headers::EVENT).and_then(|event| event.trim().parse().ok()),
            }),
            _ => Err(answer.into_error()),
        }
    }

    /// Asks for all that this front end was told of and has not acknowledged.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn poll(&self, call_back: &CallBack, poll_interval_secs: u32) -> Result<Polled> {
        let mut call = Call::new("POLL", "/exchange/", None);
        call.headers.push((headers::CALL_BACK, call_back.to_string()));
        call.headers.push((headers::POLL_INTERVAL, poll_interval_secs.to_string()));
        call.probing = true;
        let answer = self.call(call).await?;
        match answer.status {
            StatusCode::MULTI_STATUS => {
                let count = answer.header(headers::COUNT);
                let count =
                    count.map(|count| count.trim().parse().map_err(|_| DavError::Bad(headers::COUNT)));
                Ok(Polled { answers: poll::read(&answer.body)?, count: count.transpose()? })
            }
            _ => Err(answer.into_error()),
        }
    }
}
