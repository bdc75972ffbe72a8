//! What front ends say and hear of devices: headers beside every request below a device's folder, and
//! `POST /directpush/device`, by which a device answers the order to wipe.

use std::sync::Arc;

use directpush_common::dav::headers;
use directpush_common::dav::standing::{DeviceReport, PolicyHash, Standing};
use directpush_common::names::{DeviceKey, decode_text};
use http::StatusCode;
use hyper::body::Incoming;

use super::Call;
use super::path::DevicePlace;
use super::reply::{self, Reply};
use crate::auth::Principal;
use crate::devices::Knock;
use crate::http::body;
use crate::mailbox::users::Account;

/// Bytes of a report, at most.
const BODY_BYTES_MAX: u64 = 8 * 1024;
/// Characters of an encoded User-Agent that are looked at.
const AGENT_CHARS_MAX: usize = 1024;
/// By so much a subscription outlives the heartbeat of its Ping, in seconds.
const LIFETIME_BEYOND_HEARTBEAT_SECS: u32 = 60;

/// Notes that a device asks, if one does; says what the answer tells of it.
pub(super) async fn knock(
    call: &Call<'_>,
    account: &Arc<Account>,
    place: &DevicePlace,
) -> Result<Option<Standing>, Reply> {
    let (DevicePlace::Device(device) | DevicePlace::Object(device, _)) = place else { return Ok(None) };
    let Principal::FrontEnd { front_end, .. } = &call.principal else { return Ok(None) };
    let agent = call.header(headers::AGENT).filter(|agent| agent.len() <= AGENT_CHARS_MAX);
    let agent = agent.and_then(|agent| decode_text(agent.trim()).ok());
    let knock = Knock {
        agent: agent.as_deref(),
        version: call.header(headers::VERSION),
        command: call.header(headers::COMMAND),
        front_end: &front_end.name,
    };
    let order = call.server.register.knock(account.mailbox, device, knock).await;
    let order = order.map_err(|error| reply::failure(&error))?;
    let policy = call.server.config.policies.of(&account.policy);
    Ok(Some(Standing { order, policy: policy.and_then(|policy| policy.hash.parse::<PolicyHash>().ok()) }))
}

/// An answer that tells it.
pub(super) fn stamped(reply: Reply, standing: Option<Standing>) -> Reply {
    let told = standing.into_iter().flat_map(Standing::to_headers);
    told.fold(reply, |reply, (name, value)| reply::with_ours(reply, name, &value))
}

/// A device's Ping begins to wait.
pub(super) fn waits(call: &Call<'_>, account: &Account, device: &DeviceKey, lifetime_secs: u32) {
    let heartbeat_secs = lifetime_secs.saturating_sub(LIFETIME_BEYOND_HEARTBEAT_SECS);
    call.server.register.waits(account.mailbox, device, heartbeat_secs);
}

/// `POST /directpush/device`.
pub(super) async fn report(call: &Call<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let Principal::FrontEnd { acting: Some(account), .. } = &call.principal else {
        return Err(reply::text(StatusCode::FORBIDDEN, "a front end reports, acting for a user"));
    };
    let body = body::read(call.server, &call.parts.headers, incoming, BODY_BYTES_MAX).await?;
    let report: DeviceReport = serde_json::from_slice(&body.bytes).map_err(reply::bad)?;
    let device: DeviceKey = report.device.parse().map_err(reply::bad)?;
    let done = call.server.register.wipe_report(account.mailbox, &device, report.wipe).await;
    done.map_err(|error| reply::failure(&error))?;
    Ok(reply::empty(StatusCode::OK))
}
