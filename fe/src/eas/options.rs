//! The options of a collection that last: FilterType, body form, window.
//!
//! A device sends Options when it likes and means them until it sends others ([MS-ASCMD] Options).
//! They are kept in the collection's state as a short text of our own.

use directpush_common::eas::Version;
use directpush_common::eas::sync::{BodyType, FilterType, MimeSupport, SyncOptions};
use serde::{Deserialize, Serialize};

use super::render::{Form, Preference, Wish};

/// Seconds in a day.
const DAY_SECS: i64 = 86_400;
/// Preferences of a kind that are kept: there are four forms of a body.
const PREFERENCES_MAX: usize = 4;

/// Options as they are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// FilterType.
    #[serde(rename = "f")]
    pub filter: u8,
    /// 2.5's Truncation in bytes.
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    truncation: Option<usize>,
    /// MIMESupport.
    #[serde(rename = "m")]
    mime_support: u8,
    /// MIMETruncation in bytes.
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    mime_truncation: Option<usize>,
    /// Conflict, as sent: 0 the device wins, 1 the server.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none")]
    pub conflict: Option<u8>,
    /// Body preferences: form, bytes, all or none.
    #[serde(rename = "b", skip_serializing_if = "Vec::is_empty")]
    bodies: Vec<(u8, Option<u32>, bool)>,
    /// Their Preview, in the same order.
    #[serde(rename = "v", skip_serializing_if = "Vec::is_empty")]
    previews: Vec<Option<u32>>,
    /// Body part preferences: form, bytes, all or none, preview.
    #[serde(rename = "p", skip_serializing_if = "Vec::is_empty")]
    parts: Vec<(u8, Option<u32>, bool, Option<u32>)>,
}

impl Kept {
    /// Reads what [`Kept::to_text`] wrote; anything else is no options.
    pub fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// For the collection's state; empty when there is nothing to keep.
    pub fn to_text(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a request's Options make of these; none leave them as they are.
    #[must_use]
    pub fn updated(self, options: &[SyncOptions]) -> Self {
        // Several Options are for several classes; mail is the one without a class, or named so.
        let for_mail = options.iter().find(|it| it.class.as_deref().is_none_or(|class| class == "Email"));
        let Some(sent) = for_mail else { return self };
        let bodies = || sent.body_preferences.iter().take(PREFERENCES_MAX);
        let parts = sent.body_part_preferences.iter().take(PREFERENCES_MAX);
        let any_preview = bodies().any(|it| it.preview.is_some());
        Self {
            filter: sent.filter_type.map_or(0, FilterType::code),
            conflict: sent.conflict,
            truncation: sent.truncation_limit(),
            mime_support: sent.mime_support.map_or(0, MimeSupport::code),
            mime_truncation: sent.mime_truncation_limit(),
            bodies: bodies().map(|it| (it.body_type.code(), it.truncation_size, it.all_or_none)).collect(),
            previews: if any_preview { bodies().map(|it| it.preview).collect() } else { Vec::new() },
            parts: parts
                .map(|it| (it.body_type.code(), it.truncation_size, it.all_or_none, it.preview))
                .collect(),
        }
    }

    /// The date floor of the filter, in Unix seconds. Whole days, so that it does not move between
    /// two requests of an hour.
    pub fn floor(&self, now_unix_secs: i64) -> Option<i64> {
        let days = FilterType::from_code(i64::from(self.filter))?.days()?;
        Some(now_unix_secs.div_euclid(DAY_SECS) * DAY_SECS - i64::from(days) * DAY_SECS)
    }

    /// In which form bodies go to the device.
    pub fn wish(&self, version: Version) -> Wish {
        let preference = |form, bytes: Option<u32>, all_or_none, preview| {
            let form = match BodyType::from_code(i64::from(form))? {
                BodyType::Plain => Form::Plain,
                BodyType::Html => Form::Html,
                BodyType::Mime => Form::Mime,
                BodyType::Rtf => return None,
            };
            let mut bytes_max = bytes.map(|bytes| bytes as usize);
            if form == Form::Mime {
                bytes_max = bytes_max.or(self.mime_truncation);
            }
            Some(Preference { form, bytes_max, all_or_none, preview })
        };
        let previews = self.previews.iter().copied().chain(std::iter::repeat(None));
        let bodies = self.bodies.iter().zip(previews);
        let parts = self.parts.iter().filter(|_| version >= Version::V14_1);
        Wish {
            version,
            preferences: bodies
                .filter_map(|(&(form, bytes, all), it)| preference(form, bytes, all, it))
                .collect(),
            parts: parts.filter_map(|&(form, bytes, all, it)| preference(form, bytes, all, it)).collect(),
            mime_support: self.mime_support,
            mime_bytes_max: self.mime_truncation,
            text_bytes_max: self.truncation,
        }
    }
}

#[cfg(test)]
mod tests {
    use directpush_common::eas::sync::BodyPreference;

    use super::*;

    fn sent() -> SyncOptions {
        let body = BodyPreference {
            body_type: BodyType::Html,
            truncation_size: Some(500),
            all_or_none: false,
            preview: None,
        };
        SyncOptions {
            filter_type: Some(FilterType::OneWeek),
            body_preferences: vec![body],
            ..SyncOptions::default()
        }
    }

    #[test]
    fn options_last_until_others_come() {
        let kept = Kept::default().updated(&[sent()]);
        assert_eq!(Kept::from_text(&kept.to_text()), kept);
        assert_eq!(kept.clone().updated(&[]), kept);
        assert_eq!(Kept::from_text(""), Kept::default());
        assert_eq!(Kept::default().to_text(), "");
    }

    #[test]
    fn a_filter_is_a_floor_of_whole_days() {
        let kept = Kept::default().updated(&[sent()]);
        let noon = 20_000 * DAY_SECS + 43_200;
        assert_eq!(kept.floor(noon), Some((20_000 - 7) * DAY_SECS));
        assert_eq!(Kept::default().floor(noon), None);
    }

    #[test]
    fn each_version_gets_its_own_body_form() {
        let kept = Kept::default().updated(&[sent()]);
        let html = Preference { bytes_max: Some(500), ..Preference::new(Form::Html) };
        assert_eq!(kept.wish(Version::V14_1), Wish { preferences: vec![html], ..Wish::new(Version::V14_1) });
        let old = SyncOptions { truncation: Some(4), ..SyncOptions::default() };
        let kept = Kept::default().updated(&[old]);
        assert_eq!(
            kept.wish(Version::V2_5),
            Wish { text_bytes_max: Some(5 << 10), ..Wish::new(Version::V2_5) }
        );
    }

    #[test]
    fn previews_and_parts_are_kept_too() {
        let part = BodyPreference {
            body_type: BodyType::Html,
            truncation_size: None,
            all_or_none: true,
            preview: Some(10),
        };
        let sent = SyncOptions {
            body_preferences: vec![BodyPreference { preview: Some(255), ..part }],
            body_part_preferences: vec![part],
            ..SyncOptions::default()
        };
        let kept = Kept::from_text(&Kept::default().updated(&[sent]).to_text());
        let wish = kept.wish(Version::V14_1);
        assert_eq!((wish.preferences[0].preview, wish.parts[0].preview), (Some(255), Some(10)));
        assert!(wish.parts[0].all_or_none && kept.wish(Version::V14_0).parts.is_empty());
        // As an earlier version kept them.
        let old = Kept::from_text("{\"f\":3,\"b\":[[2,500,false]]}").wish(Version::V12_1);
        assert_eq!(old.preferences, [Preference { bytes_max: Some(500), ..Preference::new(Form::Html) }]);
    }
}
