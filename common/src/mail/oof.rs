//! Out of office: what a user wants answered automatically, and when; a device sets it by `Oof` of the command Settings
//! ([MS-ASCMD]). Kept with the mailbox as JSON, at `NON_IPM_SUBTREE/Settings/Oof` (`docs/fe-be.md`).
//!
//! A value that exists is valid. Not here: which messages are answered and how (`auto_reply`).

use serde::{Deserialize, Serialize};

/// Bytes of one reply's text, at most.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The latest time that can be set, Unix seconds: the end of the year 9999.
const TIME_MAX: i64 = 253_402_300_799;

/// What a user wants answered, and when.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Oof {
    /// When.
    pub state: OofState,
    /// To people here (`AppliesToInternal`).
    pub internal: OofReply,
    /// To people elsewhere whom the user knows (`AppliesToExternalKnown`).
    pub external_known: OofReply,
    /// To all others (`AppliesToExternalUnknown`).
    pub external_unknown: OofReply,
}

/// When replies are sent.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OofState {
    /// Never (`OofState` 0).
    #[default]
    Off,
    /// Until it is switched off (1).
    On,
    /// From `start` until before `end`, Unix seconds (2).
    Scheduled {
        /// The first second.
        start: i64,
        /// The first second behind it; above `start`.
        end: i64,
    },
}

/// A reply for some of those who write.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OofReply {
    /// Whether they are answered at all.
    #[serde(default)]
    pub enabled: bool,
    /// What they are told; at most [`TEXT_BYTES_MAX`] bytes.
    #[serde(default)]
    pub text: String,
    /// What `text` is.
    #[serde(default, rename = "type")]
    pub body_type: OofBody,
}

/// What a reply's text is (`BodyType`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OofBody {
    /// Plain text.
    #[default]
    Text,
    /// HTML.
    Html,
}

/// Who wrote to the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Somebody here.
    Internal,
    /// Somebody elsewhere whom the user knows.
    ExternalKnown,
    /// Anybody else.
    ExternalUnknown,
}

/// What cannot be set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadOof {
    /// A schedule without both its ends, or that ends before it begins.
    #[error("a schedule begins before it ends: start and end are Unix seconds")]
    Schedule,
    /// A text of more than [`TEXT_BYTES_MAX`] bytes.
    #[error("a reply has at most {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// A text with NUL or another control character that no text has.
    #[error("a reply holds a character that no text has")]
    NotText,
}

/// As it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    state: WrittenState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    #[serde(default)]
    internal: OofReply,
    #[serde(default)]
    external_known: OofReply,
    #[serde(default)]
    external_unknown: OofReply,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenState {
    Off,
    On,
    Scheduled,
}

impl TryFrom<Written> for Oof {
    type Error = BadOof;
    fn try_from(written: Written) -> Result<Self, BadOof> {
        let state = match (written.state, written.start, written.end) {
            (WrittenState::Off, ..) => OofState::Off,
            (WrittenState::On, ..) => OofState::On,
            (WrittenState::Scheduled, Some(start), Some(end)) => OofState::scheduled(start, end)?,
            (WrittenState::Scheduled, ..) => return Err(BadOof::Schedule),
        };
        let Written { internal, external_known, external_unknown, .. } = written;
        for reply in [&internal, &external_known, &external_unknown] {
            reply.check()?;
        }
        Ok(Self { state, internal, external_known, external_unknown })
    }
}

impl From<Oof> for Written {
    fn from(oof: Oof) -> Self {
        let Oof { state, internal, external_known, external_unknown } = oof;
        let (state, start, end) = match state {
            OofState::Off => (WrittenState::Off, None, None),
            OofState::On => (WrittenState::On, None, None),
            OofState::Scheduled { start, end } => (WrittenState::Scheduled, Some(start), Some(end)),
        };
        Self { state, start, end, internal, external_known, external_unknown }
    }
}

impl OofState {
    /// From `start` until before `end`, Unix seconds.
    ///
    /// # Errors
    /// [`BadOof::Schedule`]: it would never begin, or has no end.
    pub fn scheduled(start: i64, end: i64) -> Result<Self, BadOof> {
        if start < end && start >= 0 && end <= TIME_MAX {
            Ok(Self::Scheduled { start, end })
        } else {
            Err(BadOof::Schedule)
        }
    }

    /// Whether replies are sent at `now`, Unix seconds.
    pub const fn is_active(&self, now: i64) -> bool {
        match *self {
            Self::Off => false,
            Self::On => true,
            Self::Scheduled { start, end } => start <= now && now < end,
        }
    }

    /// Whether replies will never be sent from `now` on, unless it is set anew.
    pub const fn is_over(&self, now: i64) -> bool {
        match *self {
            Self::Off => true,
            Self::On => false,
            Self::Scheduled { end, .. } => end <= now,
        }
    }
}

impl OofReply {
    /// A reply to be sent.
    ///
    /// # Errors
    /// The text cannot be one: see [`BadOof`].
    pub fn new(text: impl Into<String>, body_type: OofBody) -> Result<Self, BadOof> {
        let reply = Self { enabled: true, text: text.into(), body_type };
        reply.check().map(|()| reply)
    }

    fn check(&self) -> Result<(), BadOof> {
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(BadOof::TooLong);
        }
        if self.text.chars().any(|c| c.is_control() && !matches!(c, '\r' | '\n' | '\t')) {
            return Err(BadOof::NotText);
        }
        Ok(())
    }
}

impl Oof {
    /// What somebody is told at `now` (Unix seconds); `None`: nothing.
    pub fn reply(&self, audience: Audience, now: i64) -> Option<&OofReply> {
        let reply = match audience {
            Audience::Internal => &self.internal,
            Audience::ExternalKnown => &self.external_known,
            Audience::ExternalUnknown => &self.external_unknown,
        };
        (self.state.is_active(now) && reply.enabled && !reply.text.trim().is_empty()).then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Oof, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let json = r#"{"state":"scheduled","start":100,"end":200,"internal":{"enabled":true,"text":"Back soon.","type":"text"},"external-known":{"enabled":false,"text":"<p>x</p>","type":"html"},"external-unknown":{"enabled":false,"text":"","type":"text"}}"#;
        let oof = read(json).unwrap();
        assert_eq!(oof.state, OofState::Scheduled { start: 100, end: 200 });
        assert_eq!(oof.external_known.body_type, OofBody::Html);
        assert_eq!(serde_json::to_string(&oof).unwrap(), json);
        let least = read(r#"{"state":"off"}"#).unwrap();
        assert_eq!(least, Oof::default());
        assert_eq!(read(&serde_json::to_string(&least).unwrap()), Ok(least));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (json, why) in [
            (r#"{"state":"scheduled"}"#, "begins before it ends"),
            (r#"{"state":"scheduled","start":5,"end":5}"#, "begins before it ends"),
            (r#"{"state":"scheduled","start":-1,"end":5}"#, "begins before it ends"),
            (r#"{"state":"scheduled","start":1,"end":9223372036854775807}"#, "begins before it ends"),
            (r#"{"state":"on","internal":{"enabled":true,"text":"a\u0000b"}}"#, "no text has"),
            (r#"{"state":"on","more":1}"#, "unknown field"),
            (r#"{"state":"sometimes"}"#, "unknown variant"),
            (r"{}", "missing field"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(OofReply::new(long, OofBody::Text), Err(BadOof::TooLong));
    }

    #[test]
    fn a_schedule_has_its_first_second_and_not_its_last() {
        let state = OofState::scheduled(100, 200).unwrap();
        let active: Vec<bool> = [99, 100, 199, 200].map(|now| state.is_active(now)).to_vec();
        assert_eq!(active, [false, true, true, false]);
        assert!(!state.is_over(199) && state.is_over(200));
        assert!(OofState::On.is_active(0) && !OofState::Off.is_active(0));
    }

    #[test]
    fn each_audience_has_its_own_reply() {
        let oof = Oof {
            state: OofState::On,
            internal: OofReply::new("in", OofBody::Text).unwrap(),
            external_known: OofReply { enabled: false, ..OofReply::new("known", OofBody::Text).unwrap() },
            external_unknown: OofReply::new(" \n", OofBody::Text).unwrap(),
        };
        assert_eq!(oof.reply(Audience::Internal, 5).unwrap().text, "in");
        assert_eq!(oof.reply(Audience::ExternalKnown, 5), None, "not enabled");
        assert_eq!(oof.reply(Audience::ExternalUnknown, 5), None, "nothing to say");
        let off = Oof { state: OofState::Off, ..oof };
        assert_eq!(off.reply(Audience::Internal, 5), None);
    }
}
