//! Whether a device may be served: the administrator's orders, this front end's own lists, the policy in force.
//!
//! The back end says it beside every answer below the device's folder, so it costs no request of its own, but where the
//! policy key must be compared and is not remembered, or a command reads no such object ([`gate`]).

use std::num::NonZeroU32;

use directpush_common::dav::standing::{Order, PolicyHash, Standing};
use directpush_common::eas::Command;
use directpush_common::eas::provision::{Provisioned, demand};
use directpush_common::sync::state::ProvisionState;

use super::Request;
use super::state::{self, Loaded, PROVISION};
use crate::backend::device::Fresh;
use crate::backend::{Error, Result};

/// Checks the device of a command that looks at its state by itself; Provision and Ping see to it themselves.
///
/// # Errors
/// [`Error::Refused`] when it is not served; else the back end's trouble.
pub async fn check(request: &Request, fresh: &Fresh) -> Result<()> {
    if !request.line.command.needs_policy_key() {
        return Ok(());
    }
    let standing = standing(request, fresh);
    let sent = request.line.policy_key;
    let is_good = |it: &Provisioned| request.resumed || sent == Some(it.key);
    let provisioned = match standing.policy {
        None => Provisioned::default(),
        Some(policy) => match remembered(request, fresh, policy).filter(is_good) {
            Some(remembered) => remembered,
            None => read(request).await?.0,
        },
    };
    // Of a request that is gone on with only the policy can be another by now.
    let sent = if request.resumed { Some(provisioned.key) } else { sent };
    match demand(standing, provisioned, sent, request.line.version) {
        Some(status) => Err(Error::Refused(status)),
        None => Ok(()),
    }
}

/// Checks the device of a command that would not look at its state.
///
/// # Errors
/// As [`check`].
pub async fn gate(request: &Request) -> Result<()> {
    let looks_itself = matches!(
        request.line.command,
        Command::Sync
            | Command::FolderSync
            | Command::FolderCreate
            | Command::FolderUpdate
            | Command::FolderDelete
            | Command::GetItemEstimate
            | Command::ItemOperations
            | Command::MoveItems
    );
    if looks_itself || !request.line.command.needs_policy_key() {
        return Ok(());
    }
    let (provisioned, fresh) = read(request).await?;
    match demand(standing(request, &fresh), provisioned, request.line.policy_key, request.line.version) {
        Some(status) => Err(Error::Refused(status)),
        None => Ok(()),
    }
}

/// Whether a Ping may wait. It carries no policy key, so it is never told to provision: it ends with Status 7, and the FolderSync
/// that follows is told what is the matter.
///
/// # Errors
/// The back end's trouble.
pub async fn lets_ping(request: &Request, fresh: &Fresh) -> Result<bool> {
    let standing = standing(request, fresh);
    if !matches!(standing.order, Order::None | Order::Allowed) {
        return Ok(false);
    }
    let Some(policy) = standing.policy else { return Ok(true) };
    Ok(match remembered(request, fresh, policy) {
        Some(_) => true,
        None => read(request).await?.0.policy == Some(policy),
    })
}

/// What the back end says of the device; where it says nothing, what this front end's lists do.
pub fn standing(request: &Request, fresh: &Fresh) -> Standing {
    let mut standing = fresh.standing;
    if standing.order == Order::None {
        standing.order = request.front.config.devices.verdict(&request.agent, &request.device.key);
    }
    standing
}

/// What a device has acknowledged, as its state object tells it.
pub fn provisioned(state: &ProvisionState) -> Provisioned {
    Provisioned { key: state.policy_key, policy: NonZeroU32::new(state.policy).map(PolicyHash) }
}

/// What is remembered of a device that has acknowledged this policy. One that has no state at all was forgotten.
fn remembered(request: &Request, fresh: &Fresh, policy: PolicyHash) -> Option<Provisioned> {
    if fresh.state == 0 {
        return None;
    }
    let known = request.device.known.lock();
    known.rare.as_ref()?.provisioned.filter(|it| it.policy == Some(policy))
}

async fn read(request: &Request) -> Result<(Provisioned, Fresh)> {
    let Loaded { value, fresh, .. } = state::load_unchecked::<ProvisionState>(request, PROVISION).await?;
    let provisioned = value.as_ref().map(provisioned).unwrap_or_default();
    if fresh.standing.policy.is_some() {
        request.device.known.lock().rare().provisioned = Some(provisioned);
    }
    Ok((provisioned, fresh))
}
