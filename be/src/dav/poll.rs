//! POLL: by ids as the Exchange SDK has it, acknowledging; by Call-Back, ours, acknowledging nothing.

use directpush_common::dav::headers;
use directpush_common::dav::poll::{self, SubscriptionStatus};
use directpush_common::dav::subscribe::{format_ids, parse_ids};
use directpush_common::httpu::CallBack;
use http::StatusCode;

use super::Call;
use super::reply::{self, Reply};

/// Seconds between a front end's POLLs when it does not say.
const POLL_INTERVAL_SECS: u32 = 60;

pub(super) fn answer(call: &Call<'_>) -> Result<Reply, Reply> {
    let (_, front_end) = call.front_end()?;
    let notifier = &call.server.notifier;
    let bad = |line: &str| reply::text(StatusCode::BAD_REQUEST, line);
    let (answers, count) = match (call.header(headers::SUBSCRIPTION_ID), call.header(headers::CALL_BACK)) {
        (Some(ids), None) => {
            let ids = parse_ids(ids).map_err(|_| bad("Subscription-id cannot be read"))?;
            (notifier.poll(front_end, &ids), None)
        }
        (None, Some(call_back)) => {
            let call_back: CallBack =
                call_back.trim().parse().map_err(|_| bad("Call-Back cannot be read"))?;
            let interval = match call.header(headers::POLL_INTERVAL).map(|text| text.trim().parse()) {
                None => POLL_INTERVAL_SECS,
                Some(Ok(secs)) => secs,
                Some(Err(_)) => return Err(bad("DirectPush-Poll-Interval cannot be read")),
            };
            let (answers, count) = notifier.poll_call_back(front_end, &call_back, interval);
            (answers, Some(count))
        }
        _ => return Err(bad("POLL takes Subscription-id or Call-Back")),
    };
    let changed = answers.iter().filter(|answer| answer.status == SubscriptionStatus::Changed).map(|a| a.id);
    let changed = format_ids(changed);
    let mut reply = reply::multi_status(poll::write(call.href(), &answers));
    match count {
        Some(count) => reply = reply::with_ours(reply, headers::COUNT, &count.to_string()),
        None => reply = reply::with_ours(reply, headers::SUBSCRIPTION_ID, &changed),
    }
    Ok(reply)
}
