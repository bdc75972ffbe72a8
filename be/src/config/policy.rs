//! `[policy]` and `[policy.NAME]` of `be.toml`: what is demanded of devices.

use std::collections::BTreeMap;

use directpush_common::config::Section;
use directpush_common::eas::provision::{Policy, PolicyInForce, SETTINGS};

/// The name that says: nothing is demanded.
pub const NONE: &str = "none";

/// The policies of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    all: BTreeMap<String, PolicyInForce>,
    /// Of users who have none of their own.
    default: Option<String>,
}

impl Policies {
    /// The policy for a user whose record names `own` (empty = the default one); none = nothing is demanded. One that is gone
    /// from the configuration is the default one.
    pub fn of(&self, own: &str) -> Option<&PolicyInForce> {
        if own == NONE {
            return None;
        }
        self.all.get(own).or_else(|| self.all.get(self.default.as_ref()?))
    }

    /// Whether a user can be given this one.
    pub fn has(&self, name: &str) -> bool {
        name.is_empty() || name == NONE || self.all.contains_key(name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }
}

pub(super) fn policies(root: &mut Section<'_>) -> Policies {
    let mut policies = Policies::default();
    let Some(mut section) = root.table("policy") else { return policies };
    policies.default = section.string("default").filter(|name| !name.is_empty());
    for (name, mut table) in section.all_tables() {
        if name == NONE || name == "default" || name.len() > 64 || name.chars().any(char::is_control) {
            section.mistake(&name, "cannot be a policy's name", "choose another: [policy.staff]");
        }
        let mut policy = Policy::default();
        policy.allow_non_provisionable = table.bool("allow_non_provisionable", false);
        policy.allow_externally_managed = table.bool("allow_externally_managed", false);
        for setting in &SETTINGS {
            let (least, most) = setting.range;
            let Some(value) = table.integer(setting.name, least..=most) else { continue };
            if let Err(error) = policy.set(setting.name, value) {
                table.mistake(setting.name, &error.to_string(), "leave it out");
            }
        }
        table.finish();
        let hash = policy.hash().to_string();
        policies.all.insert(name.clone(), PolicyInForce { hash, name, policy });
    }
    if let Some(name) = policies.default.as_ref().filter(|name| !policies.all.contains_key(*name)) {
        let what = format!("names {name:?}, which is no policy");
        section.mistake("default", &what, "write [policy.NAME] with its settings");
    }
    section.finish();
    policies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Mistakes};

    #[test]
    fn policies_are_read_and_users_have_the_default_one() {
        let text = "[policy]\ndefault = \"staff\"\n[policy.staff]\ndevice_password_enabled = true\n\
                    min_device_password_length = 6\n[policy.guests]\nallow_non_provisionable = true\n";
        let policies = Config::from_toml(text, "be.toml").unwrap().policies;
        let staff = policies.of("").unwrap();
        assert_eq!((staff.name.as_str(), staff.policy.get("min_device_password_length")), ("staff", Some(6)));
        assert_eq!(staff.policy.get("device_password_enabled"), Some(1));
        assert_eq!(staff.hash, staff.policy.hash().to_string());
        assert!(policies.of("guests").unwrap().policy.allow_non_provisionable);
        assert!(policies.of(NONE).is_none());
        assert_eq!(policies.of("gone").unwrap().name, "staff");
        assert!(policies.has("") && policies.has("guests") && !policies.has("gone"));
        assert!(Config::from_toml("", "be.toml").unwrap().policies.of("").is_none());
    }

    #[test]
    fn mistakes_are_told_with_their_lines() {
        let text = "[policy]\ndefault = \"x\"\n[policy.staff]\nmin_device_password_length = 99\ncolour = 1\n\
                    [policy.none]\n";
        let Mistakes(mistakes) = Config::from_toml(text, "be.toml").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|it| (it.line, it.key.as_str())).collect();
        assert_eq!(
            told,
            [
                (2, "policy.default"),
                (4, "policy.staff.min_device_password_length"),
                (5, "policy.staff.colour"),
                (6, "policy.none")
            ]
        );
    }
}
