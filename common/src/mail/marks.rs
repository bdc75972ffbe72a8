//! Marks: what is kept of a mail beside its bytes and its read flag, and both servers and all devices agree on.
//!
//! A follow-up flag, categories, and what was last done with the message ([MS-ASEMAIL] Flag, Categories,
//! LastVerbExecuted). A back end keeps them as one short text and does not look inside; the text is JSON, and none
//! at all is the empty text.
//!
//! Not here: the elements of a Sync that they are made from (`eas::sync::marks`).

use serde::{Deserialize, Serialize};

/// Longest text of marks, in bytes.
pub const MARKS_BYTES_MAX: usize = 2048;

/// The marks of one message.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// Follow-up; none = not flagged.
    #[serde(rename = "f", skip_serializing_if = "Option::is_none")]
    pub flag: Option<Flag>,
    /// Categories, in the order given.
    #[serde(rename = "c", skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// The last reply or forward.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    pub verb: Option<Verb>,
}

/// A follow-up flag. Dates are texts as the device wrote them (`2026-11-23T08:00:00.000Z`).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flag {
    /// What has become of it.
    #[serde(rename = "s")]
    pub status: FlagStatus,
    /// FlagType: what is to be done, `Flag for follow up` if nothing else.
    #[serde(rename = "t", skip_serializing_if = "String::is_empty")]
    pub flag_type: String,
    /// Subject of the task.
    #[serde(rename = "j", skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// StartDate, local.
    #[serde(rename = "sl", skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// UtcStartDate.
    #[serde(rename = "su", skip_serializing_if = "Option::is_none")]
    pub start_utc: Option<String>,
    /// DueDate, local.
    #[serde(rename = "dl", skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// UtcDueDate.
    #[serde(rename = "du", skip_serializing_if = "Option::is_none")]
    pub due_utc: Option<String>,
    /// CompleteTime.
    #[serde(rename = "ct", skip_serializing_if = "Option::is_none")]
    pub complete_time: Option<String>,
    /// DateCompleted.
    #[serde(rename = "dc", skip_serializing_if = "Option::is_none")]
    pub date_completed: Option<String>,
    /// ReminderSet.
    #[serde(rename = "rs", skip_serializing_if = "std::ops::Not::not")]
    pub reminder_set: bool,
    /// ReminderTime.
    #[serde(rename = "rt", skip_serializing_if = "Option::is_none")]
    pub reminder_time: Option<String>,
    /// OrdinalDate.
    #[serde(rename = "od", skip_serializing_if = "Option::is_none")]
    pub ordinal_date: Option<String>,
    /// SubOrdinalDate.
    #[serde(rename = "so", skip_serializing_if = "Option::is_none")]
    pub sub_ordinal_date: Option<String>,
}

/// What has become of a flag ([MS-ASEMAIL] Status).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum FlagStatus {
    /// 1: what was to be done is done.
    #[serde(rename = "d")]
    Done,
    /// 2: to be done.
    #[default]
    #[serde(rename = "a")]
    Active,
}

/// What was last done with a message, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Verb {
    /// What.
    #[serde(rename = "k")]
    pub kind: VerbKind,
    /// When: Unix seconds.
    #[serde(rename = "t")]
    pub time: i64,
}

/// LastVerbExecuted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum VerbKind {
    /// 1: replied to the sender.
    #[serde(rename = "r")]
    Reply,
    /// 2: replied to all.
    #[serde(rename = "a")]
    ReplyAll,
    /// 3: forwarded.
    #[serde(rename = "f")]
    Forward,
}

impl VerbKind {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Reply => 1,
            Self::ReplyAll => 2,
            Self::Forward => 3,
        }
    }
}

/// Marks that would take more than [`MARKS_BYTES_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more marks than a message may have")]
pub struct TooManyMarks;

impl Marks {
    /// Reads what [`Marks::to_text`] wrote. What cannot be read is no marks: they must never keep a message away.
    pub fn from_text(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        serde_json::from_str(text).unwrap_or_default()
    }

    /// As they are kept; empty when there are none.
    ///
    /// # Errors
    /// [`TooManyMarks`].
    pub fn to_text(&self) -> Result<String, TooManyMarks> {
        if *self == Self::default() {
            return Ok(String::new());
        }
        let text = serde_json::to_string(self).map_err(|_| TooManyMarks)?;
        if text.len() > MARKS_BYTES_MAX { Err(TooManyMarks) } else { Ok(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_what_they_write_and_none_is_nothing() {
        assert_eq!(Marks::default().to_text().as_deref(), Ok(""));
        assert_eq!(Marks::from_text(""), Marks::default());
        let flag = Flag {
            flag_type: "Call".into(),
            due: Some("2026-11-23T08:00:00.000Z".into()),
            ..Flag::default()
        };
        let marks = Marks {
            flag: Some(flag),
            categories: vec!["Blue".into(), "Ärger".into()],
            verb: Some(Verb { kind: VerbKind::ReplyAll, time: 1_700_000_000 }),
        };
        let text = marks.to_text().unwrap();
        assert_eq!(Marks::from_text(&text), marks);
        assert_eq!(
            text,
            r#"{"f":{"s":"a","t":"Call","dl":"2026-11-23T08:00:00.000Z"},"c":["Blue","Ärger"],"v":{"k":"a","t":1700000000}}"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_marks_and_what_is_too_long_is_refused() {
        for text in ["x", "{", "[]", r#"{"f":3}"#, r#"{"v":{"k":"z","t":1}}"#] {
            assert_eq!(Marks::from_text(text), Marks::default(), "{text}");
        }
        // What a later version adds is passed over.
        assert_eq!(Marks::from_text(r#"{"c":["a"],"zz":1}"#).categories, ["a"]);
        let many = Marks { categories: vec!["x".repeat(100); 30], ..Marks::default() };
        assert_eq!(many.to_text(), Err(TooManyMarks));
    }
}
