//! REPORT `dp:find`: messages by what they say, newest first, within a time that the asker sets.
//!
//! [MS-ASCMD] Search (Mailbox) and Find ask this way. Here: the question, the answer, and when a message fits. Not
//! here: how a message's texts are got out of it, and the going through folders (the back end).

use super::{
    DAV, DavError, OURS,
    items::{read_entry, write_entry},
    xml::{Element, escape},
};
use crate::{
    change::Entry,
    names::{FolderId, UserName},
};

/// Messages of one answer, at most.
pub const RESULTS_MAX: usize = 1000;
/// Seconds of one search, at most.
pub const BUDGET_SECS_MAX: u64 = 10;
/// Terms of one question, at most.
pub const TERMS_MAX: usize = 16;
/// Folders named in one question, at most.
pub const FOLDERS_MAX: usize = 1000;
/// Bytes of a term, at most.
const TERM_BYTES_MAX: usize = 1024;

/// Where a term may stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// In any of the others.
    Any,
    /// Subject.
    Subject,
    /// From, Sender: names and addresses.
    From,
    /// To.
    To,
    /// Cc and Bcc.
    Cc,
    /// From, To or Cc.
    Participants,
    /// The text of the message.
    Body,
}

impl Field {
    const ALL: [(Self, &str); 7] = [
        (Self::Any, "any"),
        (Self::Subject, "subject"),
        (Self::From, "from"),
        (Self::To, "to"),
        (Self::Cc, "cc"),
        (Self::Participants, "participants"),
        (Self::Body, "body"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A word or phrase that a message must hold; case does not matter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Term {
    field: Field,
    /// Lower case, not empty.
    text: String,
}

/// A question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Find {
    /// All of them must fit; none = every message.
    pub terms: Vec<Term>,
    /// Unix seconds: received then or later.
    pub since: Option<i64>,
    /// Unix seconds: received before.
    pub before: Option<i64>,
    /// Only read ones, or only unread ones.
    pub read: Option<bool>,
    /// In these folders; none = the one the REPORT goes to, or all of the mailbox.
    pub folders: Vec<FolderId>,
    /// In the folders below as well.
    pub deep: bool,
    /// Messages wanted, 1 to [`RESULTS_MAX`].
    pub limit: usize,
    /// Seconds that it may take, 1 to [`BUDGET_SECS_MAX`].
    pub budget_secs: u64,
}

impl Default for Find {
    fn default() -> Self {
        Self {
            terms: Vec::new(),
            since: None,
            before: None,
            read: None,
            folders: Vec::new(),
            deep: false,
            limit: 100,
            budget_secs: 5,
        }
    }
}

/// The texts of a message, each in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Texts {
    /// Subject.
    pub subject: String,
    /// From, Sender.
    pub from: String,
    /// To.
    pub to: String,
    /// Cc and Bcc.
    pub cc: String,
    /// The text of the message; empty if no term looks there.
    pub body: String,
}

/// An answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// The messages and where they lie, newest first.
    pub messages: Vec<(FolderId, Entry)>,
    /// Whether time or room ended the search before all was looked at.
    pub incomplete: bool,
}

impl Term {
    /// A term; `None` if there is nothing in it but blanks, or too much.
    pub fn new(field: Field, text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        (!text.is_empty() && text.len() <= TERM_BYTES_MAX).then_some(Self { field, text })
    }

    /// Whether only the text of the message, which takes longer to get, can decide.
    pub fn needs_body(&self) -> bool {
        matches!(self.field, Field::Any | Field::Body)
    }

    fn fits(&self, texts: &Texts) -> bool {
        let Texts { subject, from, to, cc, body } = texts;
        let places: &[&String] = match self.field {
            Field::Any => &[subject, from, to, cc, body],
            Field::Subject => &[subject],
            Field::From => &[from],
            Field::To => &[to],
            Field::Cc => &[cc],
            Field::Participants => &[from, to, cc],
            Field::Body => &[body],
        };
        places.iter().any(|place| place.contains(&self.text))
    }
}

impl Find {
    /// Whether a message with these texts fits.
    pub fn fits(&self, texts: &Texts) -> bool {
        self.terms.iter().all(|term| term.fits(texts))
    }

    /// Whether a message received then and with this read flag can fit.
    pub fn may_fit(&self, date: i64, read: bool) -> bool {
        self.since.is_none_or(|since| date >= since)
            && self.before.is_none_or(|before| date < before)
            && self.read.is_none_or(|wanted| wanted == read)
    }

    /// Whether a term looks into the text of the message.
    pub fn needs_body(&self) -> bool {
        self.terms.iter().any(Term::needs_body)
    }

    /// Writes the request body.
    pub fn write(&self) -> String {
        let mut out = format!("<?xml version=\"1.0\"?><dp:find xmlns:dp=\"{OURS}\">");
        for term in &self.terms {
            out.push_str(&format!(
                "<dp:term field=\"{}\">{}</dp:term>",
                term.field.name(),
                escape(&term.text)
            ));
        }
        for (name, value) in
            [("since", self.since), ("before", self.before), ("read", self.read.map(i64::from))]
        {
            if let Some(value) = value {
                out.push_str(&format!("<dp:{name}>{value}</dp:{name}>"));
            }
        }
        for folder in &self.folders {
            out.push_str(&format!("<dp:folder>{folder}</dp:folder>"));
        }
        if self.deep {
            out.push_str("<dp:deep/>");
        }
        out.push_str(&format!(
            "<dp:nresults>{}</dp:nresults><dp:budget>{}</dp:budget></dp:find>",
            self.limit, self.budget_secs
        ));
        out
    }

    /// Reads a request, already parsed. Bounds that are passed become the bounds.
    ///
    /// # Errors
    /// [`DavError`] for another document, or one that asks too much at once.
    pub fn read(root: &Element) -> Result<Self, DavError> {
        if !root.is(OURS, "find") {
            return Err(DavError::Missing("find"));
        }
        let number = |name: &'static str| match root.child_text(OURS, name) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| DavError::Bad(name)),
        };
        let count = |name, default: u64, max: u64| {
            Ok::<_, DavError>(number(name)?.map_or(default, |n| u64::try_from(n).unwrap_or(0).clamp(1, max)))
        };
        let default = Self::default();
        let mut terms = Vec::new();
        for term in root.children_named(OURS, "term") {
            let field = term.attribute("field").unwrap_or("any");
            let field = Field::ALL.iter().find(|(_, name)| *name == field).ok_or(DavError::Bad("field"))?.0;
            terms.push(Term::new(field, &term.text).ok_or(DavError::Bad("term"))?);
        }
        let folders = root.children_named(OURS, "folder").map(|folder| folder.text.trim().parse());
        let folders: Vec<_> = folders.collect::<Result<_, _>>().map_err(|_| DavError::Bad("folder"))?;
        if terms.len() > TERMS_MAX || folders.len() > FOLDERS_MAX {
            return Err(DavError::Bad("find"));
        }
        Ok(Self {
            terms,
            since: number("since")?,
            before: number("before")?,
            read: number("read")?.map(|read| read != 0),
            folders,
            deep: root.child(OURS, "deep").is_some(),
            limit: usize::try_from(count("nresults", default.limit as u64, RESULTS_MAX as u64)?)
                .unwrap_or(RESULTS_MAX),
            budget_secs: count("budget", default.budget_secs, BUDGET_SECS_MAX)?,
        })
    }
}

impl Found {
    /// Writes the 207 body.
    pub fn write(&self, user: &UserName) -> String {
        let mut out = format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"{DAV}\" xmlns:dp=\"{OURS}\">");
        for (folder, entry) in &self.messages {
            write_entry(&mut out, &folder.item_url(user, entry.id), entry);
        }
        if self.incomplete {
            out.push_str("<dp:incomplete/>");
        }
        out.push_str("</D:multistatus>");
        out
    }

    /// Reads a 207 body.
    ///
    /// # Errors
    /// [`DavError`] for anything else.
    pub fn read(root: &Element) -> Result<Self, DavError> {
        if !root.is(DAV, "multistatus") {
            return Err(DavError::Missing("multistatus"));
        }
        let mut found = Self { incomplete: root.child(OURS, "incomplete").is_some(), ..Self::default() };
        for response in root.children_named(DAV, "response") {
            let href = response.child_text(DAV, "href").ok_or(DavError::Missing("href"))?;
            let folder =
                href.rsplit('/').nth(1).and_then(|id| id.parse().ok()).ok_or(DavError::Bad("href"))?;
            if let Some(entry) = read_entry(response)? {
                found.messages.push((folder, entry));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::parse;
    use super::*;

    #[test]
    fn questions_read_what_they_write_within_bounds() {
        let term = |field, text| Term::new(field, text).unwrap();
        let whole = Find {
            terms: vec![term(Field::Any, "a < b & \"c\""), term(Field::Participants, "ann@x.example")],
            since: Some(-5),
            before: Some(1_700_000_000),
            read: Some(false),
            folders: vec!["7529a5b36290aa458b9e1fc2d5ff85a6-2".parse().unwrap()],
            deep: true,
            limit: 7,
            budget_secs: 3,
        };
        for find in [whole, Find::default()] {
            assert_eq!(Find::read(&parse(find.write().as_bytes()).unwrap()), Ok(find));
        }
        let much = Find { limit: 1_000_000, budget_secs: 3600, ..Find::default() };
        let read = Find::read(&parse(much.write().as_bytes()).unwrap()).unwrap();
        assert_eq!((read.limit, read.budget_secs), (RESULTS_MAX, BUDGET_SECS_MAX));
        for bad in [
            "<find/>".to_owned(),
            format!("<f:find xmlns:f=\"{OURS}\"><f:term field=\"x\">a</f:term></f:find>"),
            format!("<f:find xmlns:f=\"{OURS}\"><f:term> </f:term></f:find>"),
            format!("<f:find xmlns:f=\"{OURS}\"><f:since>yesterday</f:since></f:find>"),
            format!("<f:find xmlns:f=\"{OURS}\">{}</f:find>", "<f:term>a</f:term>".repeat(TERMS_MAX + 1)),
        ] {
            assert!(Find::read(&parse(bad.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_fields_stand_in_the_order_of_the_fields() {
        for (field, name) in Field::ALL {
            assert_eq!(field.name(), name);
        }
    }

    #[test]
    fn all_terms_must_fit() {
        let texts =
            Texts { subject: "lunch".into(), from: "ann".into(), body: "at noon".into(), ..Texts::default() };
        let fits = |terms: &[(Field, &str)]| {
            let terms = terms.iter().map(|(field, text)| Term::new(*field, text).unwrap()).collect();
            Find { terms, ..Find::default() }.fits(&texts)
        };
        assert!(fits(&[]) && fits(&[(Field::Any, "NOON"), (Field::Subject, "Lunch")]));
        assert!(!fits(&[(Field::Any, "noon"), (Field::Subject, "noon")]));
        let find = Find { since: Some(5), before: Some(9), read: Some(true), ..Find::default() };
        assert!(
            find.may_fit(5, true)
                && !find.may_fit(9, true)
                && !find.may_fit(4, true)
                && !find.may_fit(5, false)
        );
    }
}
