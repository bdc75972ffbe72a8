//! The policy document, and the one that forbids nothing.

use crate::eas::Version;
use crate::wbxml::tags::provision as tags;
use crate::wbxml::{Element, ElementRef, Writer};

/// A policy, in one of its two forms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicyData {
    /// The settings of an EASProvisionDoc, in schema order.
    Wbxml(Vec<Element>),
    /// A wap-provisioningdoc, as a text.
    WapXml(String),
}

/// The WAP form of a policy that asks for nothing: security policy 4131 (a password is required) set to
/// 1, which is no.
pub const WAP_PERMISSIVE: &str = "<wap-provisioningdoc><characteristic type=\"SecurityPolicy\">\
                                  <parm name=\"4131\" value=\"1\"/></characteristic></wap-provisioningdoc>";

/// A policy that forbids nothing, in the form and to the extent that the version knows.
pub fn permissive_policy(version: Version) -> PolicyData {
    if version.has_wap_provisioning() {
        return PolicyData::WapXml(WAP_PERMISSIVE.to_owned());
    }
    let since_12_1: &[_] = if version >= Version::V12_1 { &SINCE_12_1 } else { &[] };
    let settings = SINCE_12_0.iter().chain(since_12_1);
    PolicyData::Wbxml(settings.map(|&(tag, value)| Element::text(tag, value)).collect())
}

/// An empty value means that there is no limit.
const SINCE_12_0: [(crate::wbxml::Tag, &str); 11] = [
    (tags::DEVICE_PASSWORD_ENABLED, "0"),
    (tags::ALPHANUMERIC_DEVICE_PASSWORD_REQUIRED, "0"),
    (tags::PASSWORD_RECOVERY_ENABLED, "0"),
    (tags::ATTACHMENTS_ENABLED, "1"),
    (tags::MIN_DEVICE_PASSWORD_LENGTH, ""),
    (tags::MAX_INACTIVITY_TIME_DEVICE_LOCK, ""),
    (tags::MAX_DEVICE_PASSWORD_FAILED_ATTEMPTS, ""),
    (tags::MAX_ATTACHMENT_SIZE, ""),
    (tags::ALLOW_SIMPLE_DEVICE_PASSWORD, "1"),
    (tags::DEVICE_PASSWORD_EXPIRATION, ""),
    (tags::DEVICE_PASSWORD_HISTORY, "0"),
];

const SINCE_12_1: [(crate::wbxml::Tag, &str); 28] = [
    (tags::ALLOW_STORAGE_CARD, "1"),
    (tags::ALLOW_CAMERA, "1"),
    (tags::REQUIRE_DEVICE_ENCRYPTION, "0"),
    (tags::ALLOW_UNSIGNED_APPLICATIONS, "1"),
    (tags::ALLOW_UNSIGNED_INSTALLATION_PACKAGES, "1"),
    (tags::MIN_DEVICE_PASSWORD_COMPLEX_CHARACTERS, "1"),
    (tags::ALLOW_WI_FI, "1"),
    (tags::ALLOW_TEXT_MESSAGING, "1"),
    (tags::ALLOW_POPIMAP_EMAIL, "1"),
    (tags::ALLOW_BLUETOOTH, "2"),
    (tags::ALLOW_IR_DA, "1"),
    (tags::REQUIRE_MANUAL_SYNC_WHEN_ROAMING, "0"),
    (tags::ALLOW_DESKTOP_SYNC, "1"),
    (tags::MAX_CALENDAR_AGE_FILTER, "0"),
    (tags::ALLOW_HTML_EMAIL, "1"),
    (tags::MAX_EMAIL_AGE_FILTER, "0"),
    (tags::MAX_EMAIL_BODY_TRUNCATION_SIZE, "-1"),
    (tags::MAX_EMAIL_HTML_BODY_TRUNCATION_SIZE, "-1"),
    (tags::REQUIRE_SIGNED_SMIME_MESSAGES, "0"),
    (tags::REQUIRE_ENCRYPTED_SMIME_MESSAGES, "0"),
    (tags::REQUIRE_SIGNED_SMIME_ALGORITHM, "0"),
    (tags::REQUIRE_ENCRYPTION_SMIME_ALGORITHM, "0"),
    (tags::ALLOW_SMIME_ENCRYPTION_ALGORITHM_NEGOTIATION, "2"),
    (tags::ALLOW_SMIME_SOFT_CERTS, "1"),
    (tags::ALLOW_BROWSER, "1"),
    (tags::ALLOW_CONSUMER_EMAIL, "1"),
    (tags::ALLOW_REMOTE_DESKTOP, "1"),
    (tags::ALLOW_INTERNET_SHARING, "1"),
];

impl PolicyData {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::WapXml(text) => writer.text(tags::DATA, text),
            Self::Wbxml(settings) => writer.element(tags::DATA, |writer| {
                writer.element(tags::EAS_PROVISION_DOC, |writer| {
                    for setting in settings {
                        writer.tree(setting);
                    }
                });
            }),
        }
    }

    pub(super) fn read(data: ElementRef<'_>) -> Self {
        match data.child(tags::EAS_PROVISION_DOC) {
            Some(doc) => Self::Wbxml(doc.children().map(ElementRef::to_element).collect()),
            None => Self::WapXml(data.text().into_owned()),
        }
    }
}
