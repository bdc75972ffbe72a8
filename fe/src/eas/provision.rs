//! Provision ([MS-ASPROV]): both phases, wipes ordered and acknowledged, and what a device says of itself.
//!
//! Where no policy is in force nobody is made to provision; devices that do it all the same, most of them, get a policy
//! that forbids nothing and keys that last. Who must provision first is decided by `standing`.

use directpush_common::dav::standing::{Order, PolicyHash, WipeReport};
use directpush_common::eas::CommonStatus;
use directpush_common::eas::provision::{
    DeviceInformation, Policy, PolicyRequest, PolicyResponse, PolicyType, ProvisionRequest,
    ProvisionResponse, Wipe,
};
use directpush_common::eas::status::{PolicyAcknowledgement, PolicyStatus, ProvisionStatus};
use directpush_common::sync::state::{ProvisionState, STATE_VERSION};
use directpush_common::wbxml::Limits;

use super::state::{self, PROVISION};
use super::{Reaction, Request, standing};
use crate::backend::device::Put;
use crate::backend::{Error, Result};

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
    let loaded = state::load_unchecked::<ProvisionState>(request, PROVISION).await?;
    let standing = standing::standing(request, &loaded.fresh);
    match standing.order {
        Order::None | Order::Allowed => {}
        Order::Wipe => return wipe(request, &asked, Wipe::Device).await,
        Order::AccountWipe if version.has_account_only_wipe() => {
            return wipe(request, &asked, Wipe::Account).await;
        }
        // Blocked, in quarantine, or without a notion of removing one account.
        _ => return Err(Error::Refused(CommonStatus::DeviceIsBlockedForThisUser)),
    }
    if first_phase && version.needs_device_information() && asked.device_information.is_none() {
        return Ok(answer(&ProvisionResponse::failed(ProvisionStatus::DeviceInformationRequired)));
    }
    let in_force = match standing.policy {
        None => Demanded::default(),
        Some(_) => demanded(request).await?,
    };
    let before = loaded.value.unwrap_or_default();
    let mut after = ProvisionState { version: STATE_VERSION, ..before.clone() };
    if let Some(information) = &asked.device_information {
        after.information = listed(information);
    }
    let policy = match asked.policy {
        None => None,
        Some(PolicyRequest::Ask(_)) if in_force.refuses(request) => {
            return Ok(answer(&ProvisionResponse::failed(ProvisionStatus::LegacyDeviceOnStrictPolicy)));
        }
        Some(PolicyRequest::Ask(policy_type)) => Some(offer(request, policy_type, &in_force, &mut after)),
        Some(PolicyRequest::Acknowledge { policy_type, key, status }) => {
            if let Some(refusal) = in_force.refusal_of(status) {
                return Ok(answer(&ProvisionResponse::failed(refusal)));
            }
            Some(acknowledge(policy_type, key, status, &mut after))
        }
    };
    if after != before {
        let (put, fresh) = state::save(request, PROVISION, loaded.tag.as_deref(), &after).await?;
        if put == Put::Conflict {
            return Ok(answer(&ProvisionResponse::failed(ProvisionStatus::ServerError)));
        }
        let mut known = request.device.known.lock();
        known.wrote(loaded.fresh.state, fresh.state);
        if standing.policy.is_some() {
            known.rare().provisioned = Some(standing::provisioned(&after));
        }
    }
    Ok(answer(&ProvisionResponse {
        device_information: asked.device_information.map(|_| true),
        status: ProvisionStatus::Success,
        policy,
        wipe: None,
    }))
}

fn answer(response: &ProvisionResponse) -> Reaction {
    let wipe = if response.wipe.is_some() { "_Wipe" } else { "" };
    Reaction::Body(response.encode(), format!("St{}{wipe}", response.status))
}

/// The order to wipe; or the end of it, when the device says that it obeys. A device wipes without waiting for this answer.
async fn wipe(request: &Request, asked: &ProvisionRequest, wipe: Wipe) -> Result<Reaction> {
    let mut response = ProvisionResponse::failed(ProvisionStatus::Success);
    match asked.remote_wipe {
        None => response.wipe = Some(wipe),
        Some((_, status)) => {
            let report = if status == 1 { WipeReport::Acknowledged } else { WipeReport::Failed };
            let (session, device) = (&request.session, &request.device.key);
            request.backend().report_wipe(session, device, report).await?;
            tracing::info!(user = %session.user, %device, status, "a device reports its wipe");
        }
    }
    Ok(answer(&response))
}

/// What the device must apply; without a hash: nothing.
#[derive(Default)]
struct Demanded {
    hash: Option<PolicyHash>,
    policy: Policy,
}

async fn demanded(request: &Request) -> Result<Demanded> {
    let Some(in_force) = request.backend().policy(&request.session).await? else {
        return Ok(Demanded::default());
    };
    Ok(Demanded { hash: in_force.hash.parse().ok(), policy: in_force.policy })
}

impl Demanded {
    /// Whether the device's version does not know all of a policy that it must apply whole.
    fn refuses(&self, request: &Request) -> bool {
        self.hash.is_some()
            && !self.policy.allow_non_provisionable
            && !self.policy.is_known_to(request.line.version)
    }

    /// What becomes of a device that did this with the policy; `None` = it is let in.
    fn refusal_of(&self, status: PolicyAcknowledgement) -> Option<ProvisionStatus> {
        self.hash?;
        match status {
            PolicyAcknowledgement::Applied => None,
            PolicyAcknowledgement::PartlyApplied | PolicyAcknowledgement::Ignored => {
                (!self.policy.allow_non_provisionable).then_some(ProvisionStatus::DeviceNotFullyProvisionable)
            }
            PolicyAcknowledgement::ExternallyManaged => (!self.policy.allow_externally_managed)
                .then_some(ProvisionStatus::ExternallyManagedDevicesNotAllowed),
        }
    }
}

/// The first phase: the policy under a temporary key.
fn offer(
    request: &Request,
    policy_type: PolicyType,
    in_force: &Demanded,
    state: &mut ProvisionState,
) -> PolicyResponse {
    if policy_type != PolicyType::of(request.line.version) {
        return PolicyResponse { policy_type, status: PolicyStatus::UnknownType, key: None, data: None };
    }
    // Never 0: an early iPhone takes that for no key at all.
    state.pending_key = fastrand::u32(1..=u32::MAX);
    state.pending_policy = in_force.hash.map_or(0, PolicyHash::get);
    PolicyResponse {
        policy_type,
        status: PolicyStatus::Success,
        key: Some(state.pending_key),
        data: Some(in_force.policy.to_data(request.line.version)),
    }
}

/// The second phase: the final key. It stands for the policy that was offered, which need no longer be the one in force.
fn acknowledge(
    policy_type: PolicyType,
    key: Option<u32>,
    status: PolicyAcknowledgement,
    state: &mut ProvisionState,
) -> PolicyResponse {
    if key.is_none_or(|key| key == 0 || key != state.pending_key) {
        return PolicyResponse { policy_type, status: PolicyStatus::WrongKey, key: None, data: None };
    }
    // The same for the same temporary key: a device that missed the answer acknowledges again.
    state.policy_key = (state.pending_key.rotate_left(16) ^ 1).max(1);
    (state.policy, state.acknowledgement) = (state.pending_policy, status.code());
    PolicyResponse { policy_type, status: PolicyStatus::Success, key: Some(state.policy_key), data: None }
}

/// What a device says of itself, as it is kept.
pub fn listed(information: &DeviceInformation) -> Vec<(String, String)> {
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
