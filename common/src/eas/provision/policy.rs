//! The settings of a policy, what an administrator makes of them, and the two forms of the policy document
//! ([MS-ASPROV] EASProvisionDoc; MS-WAP-Provisioning-XML at 2.5).
//!
//! A setting that the policy does not name has the value that forbids nothing. Not here: the lists of applications
//! (ApprovedApplicationList, UnapprovedInROMApplicationList), which no device of today reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::dav::standing::PolicyHash;
use crate::eas::Version;
use crate::wbxml::tags::provision as tags;
use crate::wbxml::{Element, ElementRef, Tag, Writer};

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

/// One setting of an EASProvisionDoc.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As configuration files write it.
    pub name: &'static str,
    tag: Tag,
    /// The first version that knows it.
    pub since: Version,
    /// The values that it may have.
    pub range: (i64, i64),
    /// The value that forbids nothing; empty = no limit.
    permissive: &'static str,
}

const fn setting(
    name: &'static str,
    tag: Tag,
    since: Version,
    range: (i64, i64),
    permissive: &'static str,
) -> Setting {
    Setting { name, tag, since, range, permissive }
}

const OLD: Version = Version::V12_0;
const NEW: Version = Version::V12_1;
const SWITCH: (i64, i64) = (0, 1);
const COUNT: (i64, i64) = (0, i32::MAX as i64);

/// Every setting, in the order of the document.
pub const SETTINGS: [Setting; 40] = [
    setting("device_password_enabled", tags::DEVICE_PASSWORD_ENABLED, OLD, SWITCH, "0"),
    setting(
        "alphanumeric_device_password_required",
        tags::ALPHANUMERIC_DEVICE_PASSWORD_REQUIRED,
        OLD,
        SWITCH,
        "0",
    ),
    setting("require_storage_card_encryption", tags::REQUIRE_STORAGE_CARD_ENCRYPTION, OLD, SWITCH, "0"),
    setting("password_recovery_enabled", tags::PASSWORD_RECOVERY_ENABLED, OLD, SWITCH, "0"),
    setting("attachments_enabled", tags::ATTACHMENTS_ENABLED, OLD, SWITCH, "1"),
    setting("min_device_password_length", tags::MIN_DEVICE_PASSWORD_LENGTH, OLD, (1, 16), ""),
    setting("max_inactivity_time_device_lock", tags::MAX_INACTIVITY_TIME_DEVICE_LOCK, OLD, (0, 9999), ""),
    setting(
        "max_device_password_failed_attempts",
        tags::MAX_DEVICE_PASSWORD_FAILED_ATTEMPTS,
        OLD,
        (4, 16),
        "",
    ),
    setting("max_attachment_size", tags::MAX_ATTACHMENT_SIZE, OLD, COUNT, ""),
    setting("allow_simple_device_password", tags::ALLOW_SIMPLE_DEVICE_PASSWORD, OLD, SWITCH, "1"),
    setting("device_password_expiration", tags::DEVICE_PASSWORD_EXPIRATION, OLD, COUNT, ""),
    setting("device_password_history", tags::DEVICE_PASSWORD_HISTORY, OLD, COUNT, "0"),
    setting("allow_storage_card", tags::ALLOW_STORAGE_CARD, NEW, SWITCH, "1"),
    setting("allow_camera", tags::ALLOW_CAMERA, NEW, SWITCH, "1"),
    setting("require_device_encryption", tags::REQUIRE_DEVICE_ENCRYPTION, NEW, SWITCH, "0"),
    setting("allow_unsigned_applications", tags::ALLOW_UNSIGNED_APPLICATIONS, NEW, SWITCH, "1"),
    setting(
        "allow_unsigned_installation_packages",
        tags::ALLOW_UNSIGNED_INSTALLATION_PACKAGES,
        NEW,
        SWITCH,
        "1",
    ),
    setting(
        "min_device_password_complex_characters",
        tags::MIN_DEVICE_PASSWORD_COMPLEX_CHARACTERS,
        NEW,
        (1, 4),
        "1",
    ),
    setting("allow_wifi", tags::ALLOW_WI_FI, NEW, SWITCH, "1"),
    setting("allow_text_messaging", tags::ALLOW_TEXT_MESSAGING, NEW, SWITCH, "1"),
    setting("allow_pop_imap_email", tags::ALLOW_POPIMAP_EMAIL, NEW, SWITCH, "1"),
    setting("allow_bluetooth", tags::ALLOW_BLUETOOTH, NEW, (0, 2), "2"),
    setting("allow_irda", tags::ALLOW_IR_DA, NEW, SWITCH, "1"),
    setting("require_manual_sync_when_roaming", tags::REQUIRE_MANUAL_SYNC_WHEN_ROAMING, NEW, SWITCH, "0"),
    setting("allow_desktop_sync", tags::ALLOW_DESKTOP_SYNC, NEW, SWITCH, "1"),
    setting("max_calendar_age_filter", tags::MAX_CALENDAR_AGE_FILTER, NEW, (0, 7), "0"),
    setting("allow_html_email", tags::ALLOW_HTML_EMAIL, NEW, SWITCH, "1"),
    setting("max_email_age_filter", tags::MAX_EMAIL_AGE_FILTER, NEW, (0, 5), "0"),
    setting(
        "max_email_body_truncation_size",
        tags::MAX_EMAIL_BODY_TRUNCATION_SIZE,
        NEW,
        (-1, i32::MAX as i64),
        "-1",
    ),
    setting(
        "max_email_html_body_truncation_size",
        tags::MAX_EMAIL_HTML_BODY_TRUNCATION_SIZE,
        NEW,
        (-1, i32::MAX as i64),
        "-1",
    ),
    setting("require_signed_smime_messages", tags::REQUIRE_SIGNED_SMIME_MESSAGES, NEW, SWITCH, "0"),
    setting("require_encrypted_smime_messages", tags::REQUIRE_ENCRYPTED_SMIME_MESSAGES, NEW, SWITCH, "0"),
    setting("require_signed_smime_algorithm", tags::REQUIRE_SIGNED_SMIME_ALGORITHM, NEW, SWITCH, "0"),
    setting("require_encryption_smime_algorithm", tags::REQUIRE_ENCRYPTION_SMIME_ALGORITHM, NEW, (0, 4), "0"),
    setting(
        "allow_smime_encryption_algorithm_negotiation",
        tags::ALLOW_SMIME_ENCRYPTION_ALGORITHM_NEGOTIATION,
        NEW,
        (0, 2),
        "2",
    ),
    setting("allow_smime_soft_certs", tags::ALLOW_SMIME_SOFT_CERTS, NEW, SWITCH, "1"),
    setting("allow_browser", tags::ALLOW_BROWSER, NEW, SWITCH, "1"),
    setting("allow_consumer_email", tags::ALLOW_CONSUMER_EMAIL, NEW, SWITCH, "1"),
    setting("allow_remote_desktop", tags::ALLOW_REMOTE_DESKTOP, NEW, SWITCH, "1"),
    setting("allow_internet_sharing", tags::ALLOW_INTERNET_SHARING, NEW, SWITCH, "1"),
];

/// A setting that cannot stand in a policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSetting {
    /// There is no such setting.
    #[error("is not a setting of a policy")]
    Unknown,
    /// The value is not one that it may have.
    #[error("is not from {0} to {1}")]
    OutOfRange(i64, i64),
}

/// What an administrator demands of devices.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Devices that cannot apply all of it are let in all the same.
    #[serde(default)]
    pub allow_non_provisionable: bool,
    /// Devices that somebody else manages are let in.
    #[serde(default)]
    pub allow_externally_managed: bool,
    /// Values by name; a switch is 0 or 1.
    #[serde(default)]
    settings: BTreeMap<String, i64>,
}

impl Policy {
    /// Demands `value` of the setting `name`.
    ///
    /// # Errors
    /// For a setting that does not exist and a value that it cannot have.
    pub fn set(&mut self, name: &str, value: i64) -> Result<(), BadSetting> {
        let known = SETTINGS.iter().find(|setting| setting.name == name).ok_or(BadSetting::Unknown)?;
        let (least, most) = known.range;
        if !(least..=most).contains(&value) {
            return Err(BadSetting::OutOfRange(least, most));
        }
        self.settings.insert(name.to_owned(), value);
        Ok(())
    }

    /// The value that is demanded of a setting; `None` = whatever.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.settings.get(name).copied()
    }

    /// By which devices notice that the policy is another.
    pub fn hash(&self) -> PolicyHash {
        let mut text = format!("{} {}\n", self.allow_non_provisionable, self.allow_externally_managed);
        for (name, value) in &self.settings {
            let _ = writeln!(text, "{name} {value}");
        }
        PolicyHash::of(text.as_bytes())
    }

    /// Whether a device of this version can apply all of it. At 2.5 that is the password alone.
    pub fn is_known_to(&self, version: Version) -> bool {
        SETTINGS
            .iter()
            .filter(|setting| {
                self.get(setting.name).is_some_and(|value| value.to_string() != setting.permissive)
            })
            .all(|setting| {
                if version.has_wap_provisioning() {
                    WAP_SETTINGS.contains(&setting.name)
                } else {
                    version >= setting.since
                }
            })
    }

    /// The document for a device of this version.
    pub fn to_data(&self, version: Version) -> PolicyData {
        if version.has_wap_provisioning() {
            return PolicyData::WapXml(self.to_wap());
        }
        let known = SETTINGS.iter().filter(|setting| version >= setting.since);
        PolicyData::Wbxml(
            known
                .map(|setting| match self.get(setting.name) {
                    Some(value) => Element::text(setting.tag, value.to_string()),
                    None => Element::text(setting.tag, setting.permissive),
                })
                .collect(),
        )
    }

    /// The registry settings of Windows Mobile 5 behind the settings of a password.
    fn to_wap(&self) -> String {
        const LASSD: &str = "HKLM\\Comm\\Security\\Policy\\LASSD";
        if self.get("device_password_enabled") != Some(1) {
            return WAP_PERMISSIVE.to_owned();
        }
        let mut registry = String::new();
        let mut parms = |key: &str, parms: &[(&str, i64)]| {
            let _ = write!(registry, "<characteristic type=\"{LASSD}{key}\">");
            for (name, value) in parms {
                let _ = write!(registry, "<parm name=\"{name}\" value=\"{value}\"/>");
            }
            registry.push_str("</characteristic>");
        };
        if let Some(secs) = self.get("max_inactivity_time_device_lock") {
            let minutes = (secs + 59) / 60;
            // Frequency type 1: after so many minutes without use.
            parms(
                "\\AE\\{50C13377-C66D-400C-889E-C316FC4AB374}",
                &[("AEFrequencyType", 1), ("AEFrequencyValue", minutes)],
            );
        }
        if let Some(attempts) = self.get("max_device_password_failed_attempts") {
            parms("", &[("DeviceWipeThreshold", attempts)]);
        }
        if let Some(length) = self.get("min_device_password_length") {
            parms("\\LAP\\lap_pw", &[("MinimumPasswordLength", length)]);
        }
        // 0: letters and digits; 2: whatever.
        let complexity = if self.get("alphanumeric_device_password_required") == Some(1) { 0 } else { 2 };
        parms("\\LAP\\lap_pw", &[("PasswordComplexity", complexity)]);
        format!(
            "<wap-provisioningdoc><characteristic type=\"SecurityPolicy\"><parm name=\"4131\" value=\"0\"/>\
             </characteristic><characteristic type=\"Registry\">{registry}</characteristic></wap-provisioningdoc>"
        )
    }
}

/// What the WAP form can say.
const WAP_SETTINGS: [&str; 5] = [
    "device_password_enabled",
    "alphanumeric_device_password_required",
    "min_device_password_length",
    "max_inactivity_time_device_lock",
    "max_device_password_failed_attempts",
];

/// The object `Settings/Policy` of a user: which policy is in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// [`Policy::hash`] as text.
    pub hash: String,
    /// Its name in the configuration.
    pub name: String,
    /// The policy.
    pub policy: Policy,
}

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
