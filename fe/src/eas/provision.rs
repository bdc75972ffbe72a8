//! Provision ([MS-ASPROV]): both phases, with a policy that forbids nothing.
//!
//! Nobody is made to provision; devices that do it all the same, most of them, get a policy and
//! keys that last, and what they say of themselves is kept for the administrator.

use directpush_common::eas::provision::{
    DeviceInformation, PolicyRequest, PolicyResponse, PolicyType, ProvisionRequest, ProvisionResponse,
    permissive_policy,
};
use directpush_common::eas::status::{PolicyStatus, ProvisionStatus};
use directpush_common::sync::state::{ProvisionState, STATE_VERSION};
use directpush_common::wbxml::Limits;

use super::state::{self, PROVISION};
use super::{Reaction, Request};
use crate::backend::Result;
use crate::backend::device::Put;

/// Characters of one thing that a device says of itself.
const INFORMATION_CHARS_MAX: usize = 256;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let version = request.line.version;
    let asked = match ProvisionRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(version).into()),
    };
    let first_phase = matches!(asked.policy, Some(PolicyRequest::Ask(_)));
    if first_phase && version.needs_device_information() && asked.device_information.is_none() {
        return Ok(answer(&ProvisionResponse::failed(ProvisionStatus::DeviceInformationRequired)));
    }
    let loaded = state::load::<ProvisionState>(request, PROVISION).await?;
    let before = loaded.value.unwrap_or_default();
    let mut after = ProvisionState { version: STATE_VERSION, ..before.clone() };
    if let Some(information) = &asked.device_information {
        after.information = listed(information);
    }
    let policy = asked.policy.map(|policy| match policy {
        PolicyRequest::Ask(policy_type) => offer(request, policy_type, &mut after),
        PolicyRequest::Acknowledge { policy_type, key, .. } => acknowledge(policy_type, key, &mut after),
    });
    if after != before {
        let (put, fresh) = state::save(request, PROVISION, loaded.tag.as_deref(), &after).await?;
        if put == Put::Conflict {
            return Ok(answer(&ProvisionResponse::failed(ProvisionStatus::ServerError)));
        }
        request.device.known.lock().wrote(loaded.fresh.state, fresh.state);
    }
    Ok(answer(&ProvisionResponse {
        device_information: asked.device_information.map(|_| true),
        status: ProvisionStatus::Success,
        policy,
        remote_wipe: false,
    }))
}

fn answer(response: &ProvisionResponse) -> Reaction {
    Reaction::Body(response.encode(), format!("St{}", response.status))
}

/// The first phase: the policy under a temporary key.
fn offer(request: &Request, policy_type: PolicyType, state: &mut ProvisionState) -> PolicyResponse {
    if policy_type != PolicyType::of(request.line.version) {
        return PolicyResponse { policy_type, status: PolicyStatus::UnknownType, key: None, data: None };
    }
    // Never 0: an early iPhone takes that for no key at all.
    state.pending_key = fastrand::u32(1..=u32::MAX);
    PolicyResponse {
        policy_type,
        status: PolicyStatus::Success,
        key: Some(state.pending_key),
        data: Some(permissive_policy(request.line.version)),
    }
}

/// The second phase: the final key, whatever became of a policy that asks for nothing.
fn acknowledge(policy_type: PolicyType, key: Option<u32>, state: &mut ProvisionState) -> PolicyResponse {
    if key.is_none_or(|key| key == 0 || key != state.pending_key) {
        return PolicyResponse { policy_type, status: PolicyStatus::WrongKey, key: None, data: None };
    }
    // The same for the same temporary key: a device that missed the answer acknowledges again.
    state.policy_key = state.pending_key.rotate_left(16) ^ 1;
    state.policy_key = state.policy_key.max(1);
    PolicyResponse { policy_type, status: PolicyStatus::Success, key: Some(state.policy_key), data: None }
}

fn listed(information: &DeviceInformation) -> Vec<(String, String)> {
    let values = [
        ("Model", &information.model),
        ("IMEI", &information.imei),
        ("FriendlyName", &information.friendly_name),
        ("OS", &information.os),
        ("OSLanguage", &information.os_language),
        ("PhoneNumber", &information.phone_number),
        ("UserAgent", &information.user_agent),
        ("MobileOperator", &information.mobile_operator),
    ];
    values
        .into_iter()
        .filter_map(|(name, value)| {
            let value: String = value.as_ref()?.chars().take(INFORMATION_CHARS_MAX).collect();
            Some((name.to_owned(), value))
        })
        .collect()
}
