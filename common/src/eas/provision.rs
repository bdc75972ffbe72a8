//! Provision's request and response, both phases ([MS-ASPROV]; [MS-ASCMD] Provision).
//!
//! First the device asks for its policy and gets it with a temporary key; then it acknowledges that key and
//! gets the final one. At 2.5 the policy is a text (MS-WAP-Provisioning-XML), later it is elements.
//!
//! Not here: which keys are valid, and whether anybody must have a policy.

mod demand;
mod policy;
#[cfg(test)]
mod tests;

pub use demand::{Provisioned, demand};
pub use policy::{BadSetting, Policy, PolicyData, PolicyInForce, SETTINGS, Setting, WAP_PERMISSIVE};

use super::status::{CommonStatus, PolicyAcknowledgement, PolicyStatus, ProvisionStatus};
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::provision::{
    ACCOUNT_ONLY_REMOTE_WIPE, DATA, POLICIES, POLICY, POLICY_KEY, POLICY_TYPE, PROVISION, REMOTE_WIPE, STATUS,
};
use crate::wbxml::tags::settings;
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// How a policy is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicyType {
    /// `MS-EAS-Provisioning-WBXML`: elements, from 12.0 up.
    Wbxml,
    /// `MS-WAP-Provisioning-XML`: a text, at 2.5.
    WapXml,
    /// Something else, which is answered with Policy Status 3.
    Other(String),
}

impl PolicyType {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Wbxml => "MS-EAS-Provisioning-WBXML",
            Self::WapXml => "MS-WAP-Provisioning-XML",
            Self::Other(name) => name,
        }
    }

    /// The type that devices of this version ask for.
    pub fn of(version: Version) -> Self {
        if version.has_wap_provisioning() { Self::WapXml } else { Self::Wbxml }
    }

    fn named(name: &str) -> Self {
        [Self::Wbxml, Self::WapXml]
            .into_iter()
            .find(|known| known.as_str() == name)
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

/// What a device says of itself; all of it may be missing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(missing_docs, reason = "the names are the specification's, and say it all")]
pub struct DeviceInformation {
    pub model: Option<String>,
    pub imei: Option<String>,
    pub friendly_name: Option<String>,
    pub os: Option<String>,
    pub os_language: Option<String>,
    pub phone_number: Option<String>,
    pub user_agent: Option<String>,
    pub mobile_operator: Option<String>,
}

/// A Provision request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProvisionRequest {
    /// Required in the first request from 14.1 up.
    pub device_information: Option<DeviceInformation>,
    /// What it wants of the policy; `None` in a mere report of a wipe.
    pub policy: Option<PolicyRequest>,
    /// The device reports that it is wiping: which wipe, and the status it gives (1 is success).
    pub remote_wipe: Option<(Wipe, i64)>,
}

/// What a device wants of its policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicyRequest {
    /// First phase: the policy itself.
    Ask(PolicyType),
    /// Second phase: the final key, for having seen to the policy.
    Acknowledge {
        /// The type again.
        policy_type: PolicyType,
        /// The temporary key; `None` if it is no key that can exist.
        key: Option<u32>,
        /// What became of the policy on the device.
        status: PolicyAcknowledgement,
    },
}

/// Why a body is not a Provision request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The body is not WBXML, or broken.
    #[error("Provision: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Provision: the root element is {0:?}")]
    NotProvision(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("Provision: no valid {0:?}")]
    Invalid(Tag),
}

impl ProvisionError {
    /// What the device is answered: Status 2 wherever the body could be read.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(Command::Provision, version, Malformed::from(error)),
            _ => Answer::Body(ProvisionResponse::failed(ProvisionStatus::ProtocolError).encode()),
        }
    }
}

impl ProvisionRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(PROVISION, |writer| {
            if let Some(information) = &self.device_information {
                writer.element(settings::DEVICE_INFORMATION, |writer| {
                    writer.element(settings::SET, |writer| information.write(writer));
                });
            }
            if let Some(policy) = &self.policy {
                writer.element(POLICIES, |writer| writer.element(POLICY, |writer| policy.write(writer)));
            }
            if let Some((wipe, status)) = self.remote_wipe {
                writer.element(wipe.tag(), |writer| writer.number(STATUS, status));
            }
        })
    }

    /// Reads a request's body. Never panics, whatever the bytes. Android puts RemoteWipe before Policies,
    /// and iOS 5 a Status before RemoteWipe; the order does not matter here.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ProvisionError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != PROVISION {
            return Err(ProvisionError::NotProvision(root.tag()));
        }
        let mut wipes = [Wipe::Device, Wipe::Account].into_iter();
        let remote_wipe = match wipes.find_map(|wipe| Some((wipe, root.child(wipe.tag())?))) {
            Some((wipe, report)) => {
                let status = report.child_text(STATUS).and_then(|text| number(&text));
                Some((wipe, status.ok_or(ProvisionError::Invalid(STATUS))?))
            }
            None => None,
        };
        let policy = match root.child(POLICIES) {
            Some(policies) => {
                let policy = policies.child(POLICY).ok_or(ProvisionError::Invalid(POLICY))?;
                Some(PolicyRequest::read(policy)?)
            }
            None if remote_wipe.is_none() => return Err(ProvisionError::Invalid(POLICIES)),
            None => None,
        };
        let information = root.child(settings::DEVICE_INFORMATION);
        let device_information =
            information.and_then(|information| information.child(settings::SET)).map(DeviceInformation::read);
        Ok(Self { device_information, policy, remote_wipe })
    }
}

impl PolicyRequest {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Ask(policy_type) => writer.text(POLICY_TYPE, policy_type.as_str()),
            Self::Acknowledge { policy_type, key, status } => {
                writer.text(POLICY_TYPE, policy_type.as_str());
                match key {
                    Some(key) => writer.number(POLICY_KEY, key),
                    None => writer.empty(POLICY_KEY),
                }
                writer.number(STATUS, status);
            }
        }
    }

    fn read(policy: ElementRef<'_>) -> Result<Self, ProvisionError> {
        let name = policy.child_text(POLICY_TYPE).ok_or(ProvisionError::Invalid(POLICY_TYPE))?;
        let policy_type = PolicyType::named(name.trim());
        if policy.child(POLICY_KEY).is_none() && policy.child(STATUS).is_none() {
            return Ok(Self::Ask(policy_type));
        }
        let status = policy.child_text(STATUS).and_then(|text| number(&text));
        let status = status.and_then(PolicyAcknowledgement::from_code);
        Ok(Self::Acknowledge {
            policy_type,
            key: policy_key(policy),
            status: status.ok_or(ProvisionError::Invalid(STATUS))?,
        })
    }
}

impl DeviceInformation {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.optional(settings::MODEL, self.model.as_ref());
        writer.optional(settings::IMEI, self.imei.as_ref());
        writer.optional(settings::FRIENDLY_NAME, self.friendly_name.as_ref());
        writer.optional(settings::OS, self.os.as_ref());
        writer.optional(settings::OS_LANGUAGE, self.os_language.as_ref());
        writer.optional(settings::PHONE_NUMBER, self.phone_number.as_ref());
        writer.optional(settings::USER_AGENT, self.user_agent.as_ref());
        writer.optional(settings::MOBILE_OPERATOR, self.mobile_operator.as_ref());
    }

    pub(super) fn read(set: ElementRef<'_>) -> Self {
        let text = |tag| set.child_text(tag).map(std::borrow::Cow::into_owned);
        Self {
            model: text(settings::MODEL),
            imei: text(settings::IMEI),
            friendly_name: text(settings::FRIENDLY_NAME),
            os: text(settings::OS),
            os_language: text(settings::OS_LANGUAGE),
            phone_number: text(settings::PHONE_NUMBER),
            user_agent: text(settings::USER_AGENT),
            mobile_operator: text(settings::MOBILE_OPERATOR),
        }
    }
}

/// The answer to Provision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProvisionResponse {
    /// Whether the device's description was taken; `None` where it sent none.
    pub device_information: Option<bool>,
    /// How the request as a whole went.
    pub status: ProvisionStatus,
    /// The policy.
    pub policy: Option<PolicyResponse>,
    /// What the device shall remove.
    pub wipe: Option<Wipe>,
}

/// What a device shall remove.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wipe {
    /// Everything: `RemoteWipe`.
    Device,
    /// This account and what belongs to it: `AccountOnlyRemoteWipe`, from 16.1 up.
    Account,
}

impl Wipe {
    const fn tag(self) -> Tag {
        match self {
            Self::Device => REMOTE_WIPE,
            Self::Account => ACCOUNT_ONLY_REMOTE_WIPE,
        }
    }
}

/// The policy of a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyResponse {
    /// The type that was asked for.
    pub policy_type: PolicyType,
    /// How it went with the policy.
    pub status: PolicyStatus,
    /// First phase: the temporary key. Second phase: the final one.
    pub key: Option<u32>,
    /// The policy itself, in the first phase only.
    pub data: Option<PolicyData>,
}

/// Why a body is not a response to Provision.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionResponseError {
    /// The body is not WBXML, or broken, or empty.
    #[error("Provision response: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("Provision response: the root element is {0:?}")]
    NotProvision(Tag),
    /// A common status instead of an answer.
    #[error("Provision response: common status {0}")]
    Refused(CommonStatus),
    /// An element that must be there is not, or has no valid content.
    #[error("Provision response: no valid {0:?}")]
    Invalid(Tag),
}

impl ProvisionResponse {
    /// A response that says nothing but this status.
    pub fn failed(status: ProvisionStatus) -> Self {
        Self { device_information: None, status, policy: None, wipe: None }
    }

    /// The response's body. Order: DeviceInformation, Status, Policies, RemoteWipe.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(PROVISION, |writer| {
            if let Some(taken) = self.device_information {
                writer.element(settings::DEVICE_INFORMATION, |writer| {
                    // 2 is Settings' protocol error.
                    writer.number(settings::STATUS, if taken { 1 } else { 2 });
                });
            }
            writer.number(STATUS, self.status);
            if let Some(policy) = &self.policy {
                writer.element(POLICIES, |writer| writer.element(POLICY, |writer| policy.write(writer)));
            }
            if let Some(wipe) = self.wipe {
                writer.empty(wipe.tag());
            }
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ProvisionResponseError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        if root.tag() != PROVISION {
            return Err(ProvisionResponseError::NotProvision(root.tag()));
        }
        let invalid = ProvisionResponseError::Invalid;
        let code = root.child_text(STATUS).and_then(|text| number(&text)).ok_or(invalid(STATUS))?;
        let status = match (ProvisionStatus::from_code(code), CommonStatus::from_code(code)) {
            (Some(status), _) => status,
            (None, Some(common)) => return Err(ProvisionResponseError::Refused(common)),
            (None, None) => return Err(invalid(STATUS)),
        };
        let policy = root.child(POLICIES).and_then(|policies| policies.child(POLICY));
        let information = root.child(settings::DEVICE_INFORMATION);
        Ok(Self {
            device_information: information
                .map(|information| information.child_text(settings::STATUS).as_deref() == Some("1")),
            status,
            policy: policy.map(PolicyResponse::read).transpose()?,
            wipe: [Wipe::Device, Wipe::Account].into_iter().find(|wipe| root.child(wipe.tag()).is_some()),
        })
    }
}

impl PolicyResponse {
    fn write(&self, writer: &mut Writer) {
        writer.text(POLICY_TYPE, self.policy_type.as_str());
        writer.number(STATUS, self.status);
        writer.optional(POLICY_KEY, self.key);
        if let Some(data) = &self.data {
            data.write(writer);
        }
    }

    fn read(policy: ElementRef<'_>) -> Result<Self, ProvisionResponseError> {
        let name = policy.child_text(POLICY_TYPE).ok_or(ProvisionResponseError::Invalid(POLICY_TYPE))?;
        let status = policy.child_text(STATUS).and_then(|text| number(&text));
        let status = status.and_then(PolicyStatus::from_code);
        Ok(Self {
            policy_type: PolicyType::named(&name),
            status: status.ok_or(ProvisionResponseError::Invalid(STATUS))?,
            key: policy_key(policy),
            data: policy.child(DATA).map(PolicyData::read),
        })
    }
}

fn policy_key(policy: ElementRef<'_>) -> Option<u32> {
    policy.child_text(POLICY_KEY)?.trim().parse().ok()
}
