//! `[devices]` and `[throttle]` of `fe.toml`: which devices may come at all, and how often.

use std::str::FromStr;

use directpush_common::config::Section;
use directpush_common::dav::standing::Order;
use directpush_common::names::DeviceKey;

use crate::throttle::Rates;

/// One entry of a list: `agent:`, `type:` or `id:` and a pattern in which `*` stands for anything. Case does not count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceRule {
    what: What,
    pattern: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Agent,
    Type,
    Id,
}

impl FromStr for DeviceRule {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (what, pattern) = text.split_once(':').ok_or(())?;
        let what = match what.trim() {
            "agent" => What::Agent,
            "type" => What::Type,
            "id" => What::Id,
            _ => return Err(()),
        };
        let pattern = pattern.trim().to_lowercase();
        if pattern.is_empty() || pattern.len() > 256 { Err(()) } else { Ok(Self { what, pattern }) }
    }
}

impl DeviceRule {
    fn means(&self, agent: &str, device: &DeviceKey) -> bool {
        let text = match self.what {
            What::Agent => agent,
            What::Type => device.device_type(),
            What::Id => device.device_id(),
        };
        fits(&self.pattern, &text.to_lowercase())
    }
}

/// Whether the text has the parts between the pattern's asterisks, in their order.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

/// The lists: the first that names a device decides.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeviceLists {
    /// Let in.
    pub allow: Vec<DeviceRule>,
    /// Kept out.
    pub deny: Vec<DeviceRule>,
    /// Kept out until the administrator allows it at the back end.
    pub quarantine: Vec<DeviceRule>,
}

impl DeviceLists {
    /// What the lists say of a device.
    pub fn verdict(&self, agent: &str, device: &DeviceKey) -> Order {
        let named = |list: &[DeviceRule]| list.iter().any(|rule| rule.means(agent, device));
        if named(&self.allow) {
            Order::None
        } else if named(&self.deny) {
            Order::Blocked
        } else if named(&self.quarantine) {
            Order::Quarantined
        } else {
            Order::None
        }
    }
}

pub(super) fn read_lists(root: &mut Section<'_>) -> DeviceLists {
    let Some(mut section) = root.table("devices") else { return DeviceLists::default() };
    let cure =
        "write agent:, type: or id: and a pattern, such as deny = [\"agent:BadMail/*\", \"type:OldPhone\"]";
    let mut list = |key| section.list::<DeviceRule>(key, &[], cure);
    let lists = DeviceLists { allow: list("allow"), deny: list("deny"), quarantine: list("quarantine") };
    section.finish();
    lists
}

pub(super) fn read_rates(root: &mut Section<'_>) -> Rates {
    let defaults = Rates::default();
    let Some(mut section) = root.table("throttle") else { return defaults };
    let mut rate = |key, default| section.secs(key, 0..=1_000_000, default);
    let syncs = rate("syncs_per_minute", defaults.syncs);
    let same_syncs = rate("same_syncs_per_minute", defaults.same_syncs);
    let folder_syncs = rate("folder_syncs_per_minute", defaults.folder_syncs);
    let pings = rate("pings_per_minute", defaults.pings);
    let others = rate("other_commands_per_minute", defaults.others);
    let first_delay_secs = section.secs("first_delay", 1..=3600, defaults.first_delay_secs);
    let max_delay_secs = section.secs("max_delay", 1..=86_400, defaults.max_delay_secs);
    if max_delay_secs < first_delay_secs {
        section.mistake("max_delay", "is below first_delay", "write max_delay = 3600");
    }
    section.finish();
    Rates { syncs, same_syncs, folder_syncs, pings, others, first_delay_secs, max_delay_secs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<DeviceRule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_list_that_names_a_device_decides() {
        let lists = DeviceLists {
            allow: rules(&["id:APPL1"]),
            deny: rules(&["agent:BadMail/*", "type:OldPhone"]),
            quarantine: rules(&["type:*"]),
        };
        let verdict =
            |agent: &str, kind: &str, id: &str| lists.verdict(agent, &DeviceKey::new(kind, id).unwrap());
        assert_eq!(verdict("BadMail/3.1", "iPhone", "appl1"), Order::None, "allowed by its id");
        assert_eq!(verdict("badmail/3.1", "iPhone", "X"), Order::Blocked);
        assert_eq!(verdict("", "oldphone", "X"), Order::Blocked);
        assert_eq!(verdict("Mail", "iPhone", "X"), Order::Quarantined);
        assert_eq!(DeviceLists::default().verdict("x", &DeviceKey::new("a", "b").unwrap()), Order::None);
    }

    #[test]
    fn asterisks_stand_for_anything() {
        for (pattern, text, fit) in [
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("*b*", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("abc", "abcd", false),
            ("a*bb", "ab", false),
            ("*x*", "abc", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
        for bad in ["", "abc", "model:x", "agent:", "agent: "] {
            assert!(bad.parse::<DeviceRule>().is_err(), "{bad}");
        }
    }
}
