//! Settings ([MS-ASCMD] Settings): out of office, what the device says of itself, its recovery password, who the user is.

use directpush_common::directory::Person;
use directpush_common::eas::settings::{OofRequest, SettingsRequest, SettingsResponse};
use directpush_common::eas::status::SettingsStatus;
use directpush_common::mail::oof::{Oof, OofBody, OofReply, TEXT_BYTES_MAX};
use directpush_common::sync::state::{ProvisionState, STATE_VERSION};
use directpush_common::wbxml::Limits;

use super::provision::listed;
use super::state::{self, PROVISION};
use super::{Reaction, Request};
use crate::backend::Result;
use crate::backend::device::Put;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let version = request.line.version;
    let asked = match SettingsRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(version).into()),
    };
    let mut response =
        SettingsResponse { rights_management: asked.rights_management, ..SettingsResponse::default() };
    response.oof = match asked.oof {
        None => None,
        Some(Err(status)) => Some(Err(status)),
        Some(Ok(oof)) => Some(out_of_office(request, oof).await?),
    };
    if asked.device_information.is_some() || asked.device_password.is_some() {
        let password_status = match &asked.device_password {
            Some(Ok(_)) if !may_recover(request).await? => Some(Err(SettingsStatus::DeniedByPolicy)),
            None => None,
            Some(Ok(password)) => Some(Ok(password.clone())),
            Some(Err(status)) => Some(Err(*status)),
        };
        let kept = keep(request, |state| {
            if let Some(Ok(information)) = &asked.device_information {
                state.information = listed(information);
            }
            if let Some(Ok(password)) = &password_status {
                state.recovery_password.clone_from(password);
            }
        });
        let kept = kept.await?;
        response.device_information =
            asked.device_information.map(|it| it.map_or_else(|status| status, |_| kept));
        response.device_password = password_status.map(|it| it.map_or_else(|status| status, |_| kept));
    }
    if asked.user_information {
        let known = request.backend().person(&request.session).await?;
        response.user_information = Some(known.or_else(|| own_address(request)).ok_or(UNKNOWN));
    }
    Ok(Reaction::Body(response.encode(version), "St1".to_owned()))
}

/// Nobody knows who the user is: a part of its own, as devices look for its Status when they are set up.
const UNKNOWN: SettingsStatus = SettingsStatus::ServerUnavailable;

/// The person behind a user of whom nothing is known but a name that is an address.
fn own_address(request: &Request) -> Option<Person> {
    let user = &request.session.user;
    user.domain()?;
    let user = user.to_string();
    let name = user.split('@').next().unwrap_or_default().to_owned();
    Some(Person { name, addresses: vec![user.clone()], user })
}

/// Changes what is kept of the device.
async fn keep(request: &Request, change: impl Fn(&mut ProvisionState)) -> Result<SettingsStatus> {
    let loaded = state::load::<ProvisionState>(request, PROVISION).await?;
    let before = loaded.value.unwrap_or_default();
    let mut after = ProvisionState { version: STATE_VERSION, ..before.clone() };
    change(&mut after);
    if after == before {
        return Ok(SettingsStatus::Success);
    }
    let (put, fresh) = state::save(request, PROVISION, loaded.tag.as_deref(), &after).await?;
    if put == Put::Conflict {
        // Somebody else wrote: the device sends it again.
        return Ok(SettingsStatus::ServerUnavailable);
    }
    request.device.known.lock().wrote(loaded.fresh.state, fresh.state);
    Ok(SettingsStatus::Success)
}

/// Whether the policy in force wants recovery passwords.
async fn may_recover(request: &Request) -> Result<bool> {
    let in_force = request.backend().policy(&request.session).await?;
    Ok(in_force.is_some_and(|it| it.policy.get("password_recovery_enabled") == Some(1)))
}

async fn out_of_office(
    request: &Request,
    asked: OofRequest,
) -> Result<std::result::Result<Option<Oof>, SettingsStatus>> {
    let backend = request.backend();
    let oof = backend.oof(&request.session).await?.unwrap_or_default();
    match asked {
        OofRequest::Get(wanted) => {
            let Oof { state, internal, external_known, external_unknown } = oof;
            // At most 16 KiB each, but HTML takes its time.
            let told = tokio::task::spawn_blocking(move || Oof {
                state,
                internal: as_wanted(internal, wanted),
                external_known: as_wanted(external_known, wanted),
                external_unknown: as_wanted(external_unknown, wanted),
            });
            Ok(told.await.map(Some).map_err(|_| SettingsStatus::ServerUnavailable))
        }
        OofRequest::Set(change) => {
            let taken = backend.oof_put(&request.session, &change.apply(oof)).await?;
            Ok(if taken { Ok(None) } else { Err(SettingsStatus::InvalidArguments) })
        }
    }
}

/// A reply's text in the form that the device asks for.
fn as_wanted(reply: OofReply, wanted: OofBody) -> OofReply {
    let text = match (reply.body_type, wanted) {
        (OofBody::Text, OofBody::Html) => {
            let escaped = reply.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            escaped.replace("\r\n", "\n").replace('\n', "<br>\r\n")
        }
        (OofBody::Html, OofBody::Text) => mail_parser::decoders::html::html_to_text(&reply.text),
        _ => return reply,
    };
    let text = if text.len() > 2 * TEXT_BYTES_MAX { String::new() } else { text };
    OofReply { text, body_type: wanted, ..reply }
}
