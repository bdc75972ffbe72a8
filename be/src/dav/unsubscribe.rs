//! UNSUBSCRIBE: the end of a Ping in one request. Says what counts, and ends the groups of the ids.

use directpush_common::dav::headers;
use directpush_common::dav::poll::{self, SubscriptionStatus};
use directpush_common::dav::subscribe::{format_ids, parse_ids};
use http::StatusCode;

use super::Call;
use super::reply::{self, Reply};

/// The ids are the front end's own; whose mailbox they watch it knew when it subscribed. So no act-for
/// token is needed: a user's new password must not keep the old Ping's subscriptions alive.
pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Reply> {
    let (_, front_end) = call.front_end()?;
    let missing = || reply::text(StatusCode::BAD_REQUEST, "Subscription-id is missing");
    let ids = parse_ids(call.header(headers::SUBSCRIPTION_ID).ok_or_else(missing)?)
        .map_err(|error| reply::text(StatusCode::BAD_REQUEST, error))?;
    let only_if_changed = call.header(headers::ONLY_IF_CHANGED).is_some_and(|value| value.trim() == "t");
    let done = call.server.notifier.unsubscribe(front_end, &ids, only_if_changed);
    let changed =
        done.answers.iter().filter(|answer| answer.status == SubscriptionStatus::Changed).map(|a| a.id);
    let mut reply = reply::multi_status(poll::write(call.href(), &done.answers));
    reply = reply::with_ours(reply, headers::SUBSCRIPTION_ID, &format_ids(changed));
    if done.kept {
        reply = reply::with_ours(reply, headers::KEPT, "t");
    }
    if let Some(event) = done.event {
        reply = reply::with_ours(reply, headers::EVENT, &event.to_string());
    }
    Ok(reply)
}
