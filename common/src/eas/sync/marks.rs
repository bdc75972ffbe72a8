//! The elements of a mail that may change after it came: Read, Flag, Categories, LastVerbExecuted ([MS-ASEMAIL]).
//!
//! What a device sends of them is read into a [`MailChange`]; what it is sent is made from [`Marks`] in one place, for
//! an Add, a Change and a Fetch alike.
//!
//! Not here: where they are kept (`mail::marks`), drafts.

use super::ApplicationData;
use crate::eas::Version;
use crate::mail::marks::{Flag, FlagStatus, Marks};
use crate::wbxml::tags::{email, email2, tasks};
use crate::wbxml::{Element, Tag};

/// Longest text of one property of a flag, and of one category, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Categories of a message ([MS-ASEMAIL] Categories), at most.
const CATEGORIES_MAX: usize = 300;
/// Longest date, in bytes.
const DATE_BYTES_MAX: usize = 32;

/// What a device changed of a mail.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MailChange {
    /// The read flag.
    pub read: Option<bool>,
    /// The follow-up flag: `Some(None)` = cleared.
    pub flag: Option<Option<Flag>>,
    /// The categories, all of them.
    pub categories: Option<Vec<String>>,
}

/// A property that contradicts itself or others: Status 6.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a property of a mail that cannot be kept")]
pub struct BadProperty;

impl MailChange {
    /// Reads a device's Change. Elements that are none of these are passed over.
    ///
    /// # Errors
    /// [`BadProperty`].
    pub fn read(data: &ApplicationData) -> Result<Self, BadProperty> {
        let mut change = Self { read: super::email_read(data), ..Self::default() };
        for element in data {
            match element.tag {
                email::FLAG => change.flag = Some(read_flag(element)?),
                email::CATEGORIES => change.categories = Some(read_categories(element)?),
                _ => {}
            }
        }
        Ok(change)
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether only marks change, and the read flag does not.
    pub fn touches_marks(&self) -> bool {
        self.flag.is_some() || self.categories.is_some()
    }

    /// Puts the change into what is there.
    pub fn apply(&self, marks: &mut Marks) {
        if let Some(flag) = &self.flag {
            let before = std::mem::replace(&mut marks.flag, flag.clone());
            if let (Some(now), Some(before)) = (&mut marks.flag, before) {
                now.complete_from(before);
            }
        }
        if let Some(categories) = &self.categories {
            marks.categories.clone_from(categories);
        }
    }
}

impl Flag {
    /// A device that marks a flag as done need not repeat what was to be done.
    fn complete_from(&mut self, before: Self) {
        if self.status != FlagStatus::Done {
            return;
        }
        if self.flag_type.is_empty() {
            self.flag_type = before.flag_type;
        }
        if self.subject.is_empty() {
            self.subject = before.subject;
        }
        if self.start.is_none() && self.due.is_none() {
            (self.start, self.due) = (before.start, before.due);
            (self.start_utc, self.due_utc) = (before.start_utc, before.due_utc);
        }
    }
}

/// Reads a Flag element: empty or of Status 0 means none ([MS-ASEMAIL] Flag).
fn read_flag(flag: &Element) -> Result<Option<Flag>, BadProperty> {
    let status = match flag.child(email::STATUS).map(|status| status.own_text().trim().to_owned()) {
        None if flag.children().next().is_none() => return Ok(None),
        Some(status) => match status.as_str() {
            "0" => return Ok(None),
            "1" => FlagStatus::Done,
            "2" => FlagStatus::Active,
            _ => return Err(BadProperty),
        },
        None => FlagStatus::Active,
    };
    let text = |tag| match flag.child(tag).map(|child| child.own_text().into_owned()) {
        Some(text) if text.len() > TEXT_BYTES_MAX => Err(BadProperty),
        text => Ok(text.unwrap_or_default()),
    };
    let date = |tag| match flag.child(tag).map(|child| child.own_text().trim().to_owned()) {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if is_date(&text) => Ok(Some(text)),
        Some(_) => Err(BadProperty),
    };
    let read = Flag {
        status,
        flag_type: text(email::FLAG_TYPE)?,
        subject: text(tasks::SUBJECT)?,
        start: date(tasks::START_DATE)?,
        start_utc: date(tasks::UTC_START_DATE)?,
        due: date(tasks::DUE_DATE)?,
        due_utc: date(tasks::UTC_DUE_DATE)?,
        complete_time: date(email::COMPLETE_TIME)?,
        date_completed: date(tasks::DATE_COMPLETED)?,
        reminder_set: flag.child(tasks::REMINDER_SET).is_some_and(|it| it.own_text().trim() == "1"),
        reminder_time: date(tasks::REMINDER_TIME)?,
        ordinal_date: date(tasks::ORDINAL_DATE)?,
        sub_ordinal_date: Some(text(tasks::SUB_ORDINAL_DATE)?).filter(|text| !text.is_empty()),
    };
    if read.is_consistent() { Ok(Some(read)) } else { Err(BadProperty) }
}

impl Flag {
    /// [MS-ASEMAIL]: the four dates of start and end are all there or none; no end lies before its start; what is done
    /// says when.
    fn is_consistent(&self) -> bool {
        let dates = [&self.start, &self.start_utc, &self.due, &self.due_utc];
        let all_or_none = dates.iter().all(|date| date.is_some()) || dates.iter().all(|date| date.is_none());
        let in_order = self.due >= self.start && self.due_utc >= self.start_utc;
        all_or_none && in_order && (self.status != FlagStatus::Done || self.complete_time.is_some())
    }

    fn element(&self) -> Element {
        let mut flag = Element::new(email::FLAG);
        let mut put = |tag: Tag, text: Option<&str>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                flag.push(Element::text(tag, text));
            }
        };
        let status = if self.status == FlagStatus::Done { "1" } else { "2" };
        put(tasks::SUBJECT, Some(&self.subject));
        put(email::STATUS, Some(status));
        put(email::FLAG_TYPE, Some(&self.flag_type));
        put(tasks::DATE_COMPLETED, self.date_completed.as_deref());
        put(email::COMPLETE_TIME, self.complete_time.as_deref());
        put(tasks::START_DATE, self.start.as_deref());
        put(tasks::DUE_DATE, self.due.as_deref());
        put(tasks::UTC_START_DATE, self.start_utc.as_deref());
        put(tasks::UTC_DUE_DATE, self.due_utc.as_deref());
        put(tasks::REMINDER_SET, self.reminder_set.then_some("1"));
        put(tasks::REMINDER_TIME, self.reminder_time.as_deref());
        put(tasks::ORDINAL_DATE, self.ordinal_date.as_deref());
        put(tasks::SUB_ORDINAL_DATE, self.sub_ordinal_date.as_deref());
        flag
    }
}

fn read_categories(categories: &Element) -> Result<Vec<String>, BadProperty> {
    let named = categories.children().filter(|child| child.tag == email::CATEGORY);
    let mut read: Vec<String> = Vec::new();
    for category in named.map(|category| category.own_text().trim().to_owned()) {
        if category.len() > TEXT_BYTES_MAX || read.len() >= CATEGORIES_MAX {
            return Err(BadProperty);
        }
        if !category.is_empty() && !read.contains(&category) {
            read.push(category);
        }
    }
    Ok(read)
}

/// A date as devices write it: `2026-11-23T08:00:00.000Z`, or without the marks between.
fn is_date(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"-:.TZ".contains(&byte);
    (8..=DATE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().take(4).all(|byte| byte.is_ascii_digit())
}

/// The elements of these marks, as a version has them: Flag from 12.0 up, Categories and LastVerbExecuted from 14.0 up.
/// A flag or categories that are not there are empty elements, because in a Change that takes them away.
/// `date_text` writes Unix seconds as a date of the protocol.
pub fn mark_elements(marks: &Marks, version: Version, date_text: impl Fn(i64) -> String) -> ApplicationData {
    let mut data = ApplicationData::new();
    if version.has_flags() {
        data.push(marks.flag.as_ref().map_or_else(|| Element::new(email::FLAG), Flag::element));
    }
    if version.has_categories() {
        let categories = marks.categories.iter().map(|name| Element::text(email::CATEGORY, name.as_str()));
        data.push(Element::container(email::CATEGORIES, categories));
        if let Some(verb) = marks.verb {
            data.push(Element::text(email2::LAST_VERB_EXECUTED, verb.kind.code().to_string()));
            data.push(Element::text(email2::LAST_VERB_EXECUTION_TIME, date_text(verb.time)));
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::marks::{Verb, VerbKind};

    const START: &str = "2026-11-23T08:00:00.000Z";
    const DUE: &str = "2026-11-24T08:00:00.000Z";

    fn flag(children: &[(Tag, &str)]) -> ApplicationData {
        let children = children.iter().map(|(tag, text)| Element::text(*tag, *text));
        vec![Element::container(email::FLAG, children)]
    }

    fn four_dates() -> Vec<(Tag, &'static str)> {
        vec![
            (email::STATUS, "2"),
            (email::FLAG_TYPE, "for Follow Up"),
            (tasks::START_DATE, START),
            (tasks::UTC_START_DATE, START),
            (tasks::DUE_DATE, DUE),
            (tasks::UTC_DUE_DATE, DUE),
        ]
    }

    #[test]
    fn a_flag_is_read_as_it_is_written() {
        let mut marks = Marks { verb: Some(Verb { kind: VerbKind::Forward, time: 0 }), ..Marks::default() };
        let change = MailChange::read(&flag(&four_dates())).unwrap();
        assert!(change.touches_marks() && change.read.is_none());
        change.apply(&mut marks);
        let data = mark_elements(&marks, Version::V14_1, |time| time.to_string());
        assert_eq!(data[0].tag, email::FLAG);
        assert_eq!(MailChange::read(&data[..1].to_vec()).unwrap(), change);
        let tags: Vec<Tag> = data.iter().map(|element| element.tag).collect();
        let verb = [email2::LAST_VERB_EXECUTED, email2::LAST_VERB_EXECUTION_TIME];
        assert_eq!(tags, [&[email::FLAG, email::CATEGORIES][..], &verb].concat());
        assert_eq!((data[2].own_text(), data[3].own_text()), ("3".into(), "0".into()));
        assert_eq!(mark_elements(&marks, Version::V12_1, |_| String::new()).len(), 1);
        assert!(mark_elements(&marks, Version::V2_5, |_| String::new()).is_empty());
    }

    /// The cases of Microsoft's suite (MS-ASEMAIL S03).
    #[test]
    fn dates_that_contradict_each_other_are_refused() {
        let without = |tag: Tag| four_dates().into_iter().filter(|(it, _)| *it != tag).collect::<Vec<_>>();
        let with = |tag: Tag, text| {
            let mut dates = without(tag);
            dates.push((tag, text));
            dates
        };
        for bad in [
            without(tasks::UTC_START_DATE),
            without(tasks::DUE_DATE),
            with(tasks::DUE_DATE, "2026-11-22T08:00:00.000Z"),
            with(tasks::UTC_DUE_DATE, "2026-11-22T08:00:00.000Z"),
            with(tasks::DUE_DATE, "tomorrow"),
            vec![(email::STATUS, "1")],
            vec![(email::STATUS, "3")],
        ] {
            assert_eq!(MailChange::read(&flag(&bad)), Err(BadProperty), "{bad:?}");
        }
    }

    #[test]
    fn a_flag_is_cleared_by_nothing_and_by_zero_and_done_keeps_what_was_to_be_done() {
        for cleared in [flag(&[]), flag(&[(email::STATUS, "0")])] {
            assert_eq!(MailChange::read(&cleared).unwrap().flag, Some(None));
        }
        let mut marks = Marks::default();
        MailChange::read(&flag(&four_dates())).unwrap().apply(&mut marks);
        let done = flag(&[(email::STATUS, "1"), (email::COMPLETE_TIME, DUE), (tasks::DATE_COMPLETED, DUE)]);
        MailChange::read(&done).unwrap().apply(&mut marks);
        let flag = marks.flag.clone().unwrap();
        assert_eq!((flag.status, &*flag.flag_type), (FlagStatus::Done, "for Follow Up"));
        assert_eq!((flag.start.as_deref(), flag.complete_time.as_deref()), (Some(START), Some(DUE)));
        MailChange { flag: Some(None), ..MailChange::default() }.apply(&mut marks);
        assert_eq!(marks, Marks::default());
    }

    #[test]
    fn categories_are_a_set_within_bounds() {
        let categories = |names: &[&str]| {
            let names = names.iter().map(|name| Element::text(email::CATEGORY, *name));
            vec![Element::container(email::CATEGORIES, names)]
        };
        let read = |names: &[&str]| MailChange::read(&categories(names)).map(|change| change.categories);
        assert_eq!(read(&["Blue", "Red", "Blue", " "]), Ok(Some(vec!["Blue".into(), "Red".into()])));
        assert_eq!(read(&[]), Ok(Some(Vec::new())));
        assert_eq!(read(&["x".repeat(257).as_str()]), Err(BadProperty));
        let none = MailChange::read(&vec![Element::text(email::READ, "1")]).unwrap();
        assert!(!none.touches_marks() && !none.is_empty() && none.read == Some(true));
    }
}
