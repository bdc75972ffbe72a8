//! Reading TOML key by key, and keeping every mistake with its place.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake in a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// Its line, from 1; 0 = the file as a whole.
    pub line: usize,
    /// The key, with the sections it stands in.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// All mistakes of a file, in the order of its lines.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Mistake { file, line, key, what, cure } in &self.0 {
            writeln!(f, "{file}:{line}: {key} {what}\n    cure: {cure}")?;
        }
        Ok(())
    }
}

/// The file being read, and what was found wrong in it.
pub(super) struct Origin<'a> {
    text: &'a str,
    file: &'a str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, mistakes: RefCell::default() }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset.min(self.text.len())).unwrap_or_default();
        1 + before.split(|byte| *byte == b'\n').count().saturating_sub(1)
    }

    fn add(&self, line: usize, key: String, what: &str, cure: &str) {
        let (what, cure) = (what.to_owned(), cure.to_owned());
        self.mistakes.borrow_mut().push(Mistake { file: self.file.to_owned(), line, key, what, cure });
    }

    /// All mistakes, if there are any.
    pub(super) fn verdict(&self) -> Result<(), Mistakes> {
        let mut mistakes = self.mistakes.borrow_mut().split_off(0);
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }
}

/// One table of the file; each key is taken out as it is read.
pub(super) struct Section<'a> {
    origin: &'a Origin<'a>,
    table: Vec<(String, usize, DeValue<'a>)>,
    taken: Vec<(String, usize)>,
    path: String,
    line: usize,
}

impl<'a> Section<'a> {
    /// Parses the file.
    pub(super) fn parse(origin: &'a Origin<'a>) -> Result<Self, Mistakes> {
        match DeTable::parse(origin.text) {
            Ok(table) => Ok(Self::of(origin, table.into_inner(), String::new(), 0)),
            Err(error) => {
                let line = error.span().map_or(0, |span| origin.line(span.start));
                origin.add(
                    line,
                    String::new(),
                    error.message(),
                    "see https://toml.io for how TOML is written",
                );
                origin.verdict().map(|()| Self::of(origin, DeTable::new(), String::new(), 0))
            }
        }
    }

    fn of(origin: &'a Origin<'a>, table: DeTable<'a>, path: String, line: usize) -> Self {
        let table = table
            .into_iter()
            .map(|(key, value)| {
                let line = origin.line(key.span().start);
                (key.into_inner().into_owned(), line, value.into_inner())
            })
            .collect();
        Self { origin, table, taken: Vec::new(), path, line }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &str) -> Option<DeValue<'a>> {
        let at = self.table.iter().position(|(name, _, _)| name == key)?;
        let (name, line, value) = self.table.swap_remove(at);
        self.taken.push((name, line));
        Some(value)
    }

    /// Notes a mistake at a key.
    pub(super) fn mistake(&self, key: &str, what: &str, cure: &str) {
        let places = self.taken.iter().map(|(name, line)| (name, line));
        let mut places = places.chain(self.table.iter().map(|(name, line, _)| (name, line)));
        let line = places.find(|(name, _)| *name == key).map_or(self.line, |(_, line)| *line);
        self.origin.add(line, self.key(key), what, cure);
    }

    /// Whether the key holds a string.
    pub(super) fn is_string(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _, value)| name == key && matches!(value, DeValue::String(_)))
    }

    /// A string.
    pub(super) fn string(&mut self, key: &str) -> Option<String> {
        if let DeValue::String(text) = self.take(key)? {
            Some(text.into_owned())
        } else {
            self.mistake(key, "is not a string", &format!("put it into quotes: {key} = \"...\""));
            None
        }
    }

    /// A string that must be there.
    pub(super) fn required(&mut self, key: &str, cure: &str) -> String {
        let missing = !self.table.iter().any(|(name, _, _)| name == key);
        let value = self.string(key).unwrap_or_default();
        if missing {
            self.mistake(key, "is missing", cure);
        }
        value
    }

    /// A string that means something.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, default: T, cure: &str) -> T {
        let Some(text) = self.string(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.mistake(key, "cannot be read", cure);
            default
        })
    }

    /// true or false.
    pub(super) fn bool(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(DeValue::Boolean(value)) => value,
            Some(_) => {
                self.mistake(key, "is neither true nor false", &format!("write {key} = {default}"));
                default
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn secs(&mut self, key: &str, range: RangeInclusive<u32>, default: u32) -> u32 {
        let Some(value) = self.take(key) else { return default };
        let number = match &value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if let Some(number) =
            number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number))
        {
            number
        } else {
            let what = format!("is not a whole number from {} to {}", range.start(), range.end());
            self.mistake(key, &what, &format!("write {key} = {default}"));
            default
        }
    }

    /// A list of strings that mean something; one string counts as a list.
    pub(super) fn list<T: FromStr>(&mut self, key: &str, default: &[&str], cure: &str) -> Vec<T> {
        let texts = match self.take(key) {
            None => default.iter().map(|&text| Some(text.to_owned())).collect(),
            Some(DeValue::String(text)) => vec![Some(text.into_owned())],
            Some(DeValue::Array(values)) => values
                .into_iter()
                .map(|value| match value.into_inner() {
                    DeValue::String(text) => Some(text.into_owned()),
                    _ => None,
                })
                .collect(),
            Some(_) => vec![None],
        };
        let mut list = Vec::new();
        for text in texts {
            match text.and_then(|text| text.parse().ok()) {
                Some(value) => list.push(value),
                None => self.mistake(key, "holds something that cannot be read", cure),
            }
        }
        list
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Section<'a>> {
        let values = match self.take(key) {
            None => return Vec::new(),
            Some(DeValue::Array(values)) => values.into_iter().collect(),
            Some(_) => Vec::new(),
        };
        let mut sections = Vec::new();
        for value in values {
            let line = self.origin.line(value.span().start);
            if let DeValue::Table(table) = Spanned::into_inner(value) {
                sections.push(Self::of(self.origin, table, self.key(key), line));
            } else {
                self.mistake(key, "is not a table", &format!("write [[{key}]]"));
            }
        }
        sections
    }

    /// Every key that nobody asked for is a mistake.
    pub(super) fn finish(self) {
        for (key, line, _) in &self.table {
            self.origin.add(*line, self.key(key), "is not a setting", "see --print-config for all settings");
        }
    }
}
