//! The headers of SUBSCRIBE, its renewal, and their answers.
//!
//! Headers are read through a function from name to value, so that any HTTP library's map will do.
//! Source: `docs/fe-be.md`; for Exchange's own headers the SDK's pages as the reference notes quote them.

use std::{fmt, str::FromStr};

use super::{DavError, headers};
use crate::{
    httpu::{CallBack, SubscriptionId},
    names::{DeviceKey, Guid},
    numbers::{CollectionToken, Number},
};

/// Longest life of a subscription, in seconds: Exchange 2003's bound.
pub const LIFETIME_SECS_MAX: u32 = 3600;
/// `Notification-delay` that says: changes other than additions never wake.
pub const DELAY_NEVER: u32 = u32::MAX;
/// Ids in one request, at most.
pub const REQUEST_IDS_MAX: usize = 1000;

/// With what the back end compares a folder when it is subscribed to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Since {
    /// The token of the device's last Sync response for the folder.
    Token(CollectionToken),
    /// The device never synced the folder: any item counts.
    Nothing,
    /// Only what comes from now on.
    Now,
}

/// A new subscription: the question of one device about one folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscribe {
    /// Where NOTIFYs go.
    pub call_back: CallBack,
    /// The Ping.
    pub group: Guid,
    /// Seconds, at most [`LIFETIME_SECS_MAX`].
    pub lifetime_secs: u32,
    /// Seconds that changes other than additions may wait; [`DELAY_NEVER`] = they never wake.
    pub delay_secs: u32,
    /// Whose own uploads do not count.
    pub device: DeviceKey,
    /// What the device knows of the folder.
    pub since: Since,
    /// Unix seconds: items received before never count.
    pub floor: Option<i64>,
    /// The hierarchy number that the device knows.
    pub hierarchy: Number,
    /// Seconds between the POLLs of this front end.
    pub poll_interval_secs: u32,
}

impl Subscribe {
    /// The request's header fields, in the order of `docs/fe-be.md`.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut out = vec![
            (headers::NOTIFICATION_TYPE, "update".to_owned()),
            (headers::DEPTH, "1".to_owned()),
            (headers::CALL_BACK, self.call_back.to_string()),
            (headers::SUBSCRIBE_GROUP, self.group.to_group()),
            (headers::SUBSCRIPTION_LIFETIME, self.lifetime_secs.to_string()),
            (headers::NOTIFICATION_DELAY, self.delay_secs.to_string()),
            (headers::DEVICE, self.device.to_string()),
        ];
        match self.since {
            Since::Token(token) => out.push((headers::TOKEN, token.to_string())),
            Since::Nothing => out.push((headers::TOKEN, "none".to_owned())),
            Since::Now => {}
        }
        if let Some(floor) = self.floor {
            out.push((headers::FLOOR, floor.to_string()));
        }
        out.push((headers::HIERARCHY, self.hierarchy.to_string()));
        out.push((headers::POLL_INTERVAL, self.poll_interval_secs.to_string()));
        out
    }

    /// Reads the request's header fields.
    ///
    /// # Errors
    /// [`DavError`] names the field that is missing or wrong.
    pub fn from_headers<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, DavError> {
        match get(headers::NOTIFICATION_TYPE) {
            Some(kind) if kind.trim().eq_ignore_ascii_case("update") => {}
            Some(_) => return Err(DavError::Bad(headers::NOTIFICATION_TYPE)),
            None => return Err(DavError::Missing(headers::NOTIFICATION_TYPE)),
        }
        if get(headers::DEPTH).is_some_and(|depth| depth.trim() != "1") {
            return Err(DavError::Bad(headers::DEPTH));
        }
        let group = required(&get, headers::SUBSCRIBE_GROUP)?;
        let since = match get(headers::TOKEN).map(str::trim) {
            None => Since::Now,
            Some("none") => Since::Nothing,
            Some(token) => Since::Token(token.parse().map_err(|_| DavError::Bad(headers::TOKEN))?),
        };
        let lifetime_secs = optional(&get, headers::SUBSCRIPTION_LIFETIME)?.unwrap_or(LIFETIME_SECS_MAX);
        Ok(Self {
            call_back: parsed(&get, headers::CALL_BACK)?,
            group: Guid::from_group(group).map_err(|_| DavError::Bad(headers::SUBSCRIBE_GROUP))?,
            lifetime_secs: lifetime_secs.clamp(1, LIFETIME_SECS_MAX),
            delay_secs: optional(&get, headers::NOTIFICATION_DELAY)?.unwrap_or(0),
            device: parsed(&get, headers::DEVICE)?,
            since,
            floor: optional(&get, headers::FLOOR)?,
            hierarchy: parsed(&get, headers::HIERARCHY)?,
            poll_interval_secs: optional(&get, headers::POLL_INTERVAL)?.unwrap_or(60),
        })
    }
}

/// What counted already when a subscription was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Already {
    /// Nothing.
    Nothing,
    /// A change that may wait for the delay; it is pending now.
    Later,
    /// The device is to be told at once.
    Now,
}

/// The 200 of a new subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscribed {
    /// The subscription's number on this back end process.
    pub id: SubscriptionId,
    /// Seconds granted.
    pub lifetime_secs: u32,
    /// Seconds of delay that will really be used.
    pub delay_secs: u32,
    /// Echo of the group.
    pub group: Guid,
    /// The URI to poll.
    pub content_location: String,
    /// What the comparison found.
    pub already: Already,
    /// An event that the device has to hear of, if one is due.
    pub event: Option<DeviceEvent>,
}

impl Subscribed {
    /// The answer's header fields.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut out = vec![
            (headers::SUBSCRIPTION_ID, self.id.to_string()),
            (headers::SUBSCRIPTION_LIFETIME, self.lifetime_secs.to_string()),
            (headers::NOTIFICATION_DELAY, self.delay_secs.to_string()),
            (headers::SUBSCRIBE_GROUP, self.group.to_group()),
            (headers::CONTENT_LOCATION, self.content_location.clone()),
        ];
        match self.already {
            Already::Nothing => {}
            Already::Later => out.push((headers::CHANGED, "later".to_owned())),
            Already::Now => out.push((headers::CHANGED, "now".to_owned())),
        }
        if let Some(event) = self.event {
            out.push((headers::EVENT, event.to_string()));
        }
        out
    }

    /// Reads the answer's header fields.
    ///
    /// # Errors
    /// [`DavError`] names the field that is missing or wrong.
    pub fn from_headers<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, DavError> {
        Ok(Self {
            id: parsed(&get, headers::SUBSCRIPTION_ID)?,
            lifetime_secs: parsed(&get, headers::SUBSCRIPTION_LIFETIME)?,
            delay_secs: optional(&get, headers::NOTIFICATION_DELAY)?.unwrap_or(0),
            group: Guid::from_group(required(&get, headers::SUBSCRIBE_GROUP)?)
                .map_err(|_| DavError::Bad(headers::SUBSCRIBE_GROUP))?,
            content_location: required(&get, headers::CONTENT_LOCATION)?.to_owned(),
            already: match get(headers::CHANGED).map(str::trim) {
                None => Already::Nothing,
                Some("later") => Already::Later,
                Some(_) => Already::Now,
            },
            event: get(headers::EVENT).and_then(|event| event.trim().parse().ok()),
        })
    }
}

/// Something that a waiting device must hear of though no item changed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DeviceEvent {
    /// A folder was made, renamed, moved or removed.
    Hierarchy,
    /// The device is to be wiped.
    Wipe,
    /// Its policy changed.
    Policy,
    /// The user may no longer use ActiveSync.
    Disabled,
    /// The password changed: log on again.
    Password,
    /// The device is blocked.
    Blocked,
    /// The administrator removed the device; it starts over.
    Forgotten,
}

impl DeviceEvent {
    const ALL: [(Self, &str); 7] = [
        (Self::Hierarchy, "hierarchy"),
        (Self::Wipe, "wipe"),
        (Self::Policy, "policy"),
        (Self::Disabled, "disabled"),
        (Self::Password, "password"),
        (Self::Blocked, "blocked"),
        (Self::Forgotten, "forgotten"),
    ];
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for DeviceEvent {
    type Err = DavError;
    fn from_str(text: &str) -> Result<Self, DavError> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(event, _)| *event).ok_or(DavError::Bad(headers::EVENT))
    }
}

/// A comma list of subscription ids, at most [`REQUEST_IDS_MAX`].
///
/// # Errors
/// [`DavError::Bad`] for anything else.
pub fn parse_ids(text: &str) -> Result<Vec<SubscriptionId>, DavError> {
    let mut ids = Vec::new();
    for id in text.split(',') {
        if ids.len() == REQUEST_IDS_MAX {
            return Err(DavError::Bad(headers::SUBSCRIPTION_ID));
        }
        ids.push(id.parse().map_err(|_| DavError::Bad(headers::SUBSCRIPTION_ID))?);
    }
    Ok(ids)
}

/// Writes a list of subscription ids as `1, 2`.
pub fn format_ids(ids: impl IntoIterator<Item = SubscriptionId>) -> String {
    ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

fn required<'a>(get: &impl Fn(&str) -> Option<&'a str>, name: &'static str) -> Result<&'a str, DavError> {
    get(name).map(str::trim).ok_or(DavError::Missing(name))
}

fn parsed<'a, T: FromStr>(get: &impl Fn(&str) -> Option<&'a str>, name: &'static str) -> Result<T, DavError> {
    required(get, name)?.parse().map_err(|_| DavError::Bad(name))
}

fn optional<'a, T: FromStr>(
    get: &impl Fn(&str) -> Option<&'a str>,
    name: &'static str,
) -> Result<Option<T>, DavError> {
    get(name).map(|value| value.trim().parse().map_err(|_| DavError::Bad(name))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(headers: &'a [(&'static str, String)]) -> impl Fn(&str) -> Option<&'a str> {
        move |name| {
            headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        }
    }

    fn subscribe() -> Subscribe {
        Subscribe {
            call_back: "httpu://fe:2883/35395ce4-1504-4ac4-9721-f152c646ea35".parse().unwrap(),
            group: Guid([7; 16]),
            lifetime_secs: 540,
            delay_secs: 300,
            device: DeviceKey::new("PocketPC", "6F24").unwrap(),
            since: Since::Token(CollectionToken { epoch: 5, number: Number(12) }),
            floor: Some(1_700_000_000),
            hierarchy: Number(7),
            poll_interval_secs: 60,
        }
    }

    #[test]
    fn a_subscription_reads_what_it_writes() {
        for since in [subscribe().since, Since::Nothing, Since::Now] {
            let subscribe = Subscribe { since, ..subscribe() };
            assert_eq!(Subscribe::from_headers(lookup(&subscribe.to_headers())), Ok(subscribe));
        }
        let long = Subscribe { lifetime_secs: 99_999, ..subscribe() };
        assert_eq!(Subscribe::from_headers(lookup(&long.to_headers())).unwrap().lifetime_secs, 3600);
    }

    #[test]
    fn each_wrong_header_is_named() {
        for name in
            [headers::CALL_BACK, headers::SUBSCRIBE_GROUP, headers::DEVICE, headers::NOTIFICATION_TYPE]
        {
            let fields: Vec<_> =
                subscribe().to_headers().into_iter().filter(|(key, _)| *key != name).collect();
            assert_eq!(Subscribe::from_headers(lookup(&fields)), Err(DavError::Missing(name)));
        }
        for (name, value) in [
            (headers::CALL_BACK, "http://fe/"),
            (headers::DEPTH, "infinity"),
            (headers::NOTIFICATION_TYPE, "delete"),
            (headers::TOKEN, "5:12"),
            (headers::DEVICE, "a%2fb/c"),
        ] {
            let mut fields = subscribe().to_headers();
            fields.iter_mut().filter(|(key, _)| *key == name).for_each(|field| field.1 = value.into());
            assert_eq!(Subscribe::from_headers(lookup(&fields)), Err(DavError::Bad(name)), "{value}");
        }
    }

    #[test]
    fn the_answer_reads_what_it_writes() {
        for (already, event) in [
            (Already::Nothing, None),
            (Already::Later, Some(DeviceEvent::Hierarchy)),
            (Already::Now, Some(DeviceEvent::Forgotten)),
        ] {
            let subscribed = Subscribed {
                id: SubscriptionId(27),
                lifetime_secs: 540,
                delay_secs: 300,
                group: Guid([7; 16]),
                content_location: "http://be/exchange/alice/Inbox/".into(),
                already,
                event,
            };
            assert_eq!(Subscribed::from_headers(lookup(&subscribed.to_headers())), Ok(subscribed));
        }
    }

    #[test]
    fn id_lists_take_white_space_and_have_a_bound() {
        assert_eq!(parse_ids("1, 18,243").unwrap().len(), 3);
        assert_eq!(format_ids(parse_ids("1,18").unwrap()), "1, 18");
        assert!(parse_ids("").is_err() && parse_ids("1,,2").is_err() && parse_ids("-1").is_err());
        assert!(parse_ids(&vec!["1"; 1001].join(",")).is_err());
    }
}
