//! Reading a configuration file key by key, and keeping every mistake with its place and its cure.
//!
//! A server takes each key it knows out of a [`Section`] with the check that belongs to it; what is left over at the end
//! is a mistake too. Not here: which settings there are; each server's `config` has its own.

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
            // A key that is not there has no line.
            let place = if *line == 0 { file.clone() } else { format!("{file}:{line}") };
            writeln!(f, "{place}: {key} {what}\n    cure: {cure}")?;
        }
        Ok(())
    }
}

/// The file being read, and what was found wrong in it.
#[derive(Debug)]
pub struct Origin<'a> {
    text: &'a str,
    file: &'a str,
    /// Where each line ends.
    ends: Vec<usize>,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Origin<'a> {
    /// Nothing is wrong yet with `text`, which the operator knows as `file`.
    pub fn new(text: &'a str, file: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { text, file, ends, mistakes: RefCell::default() }
    }

    fn line(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }

    /// Notes a mistake in a line.
    pub fn add(&self, line: usize, key: String, what: &str, cure: &str) {
        let (what, cure) = (what.to_owned(), cure.to_owned());
        self.mistakes.borrow_mut().push(Mistake { file: self.file.to_owned(), line, key, what, cure });
    }

    /// All mistakes, if there are any.
    pub fn verdict(&self) -> Result<(), Mistakes> {
        let mut mistakes = self.mistakes.borrow_mut().split_off(0);
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }
}

/// One table of the file; each key is taken out as it is read.
#[derive(Debug)]
pub struct Section<'a> {
    origin: &'a Origin<'a>,
    table: Vec<(String, usize, DeValue<'a>)>,
    taken: Vec<(String, usize)>,
    path: String,
    line: usize,
}

impl<'a> Section<'a> {
    /// Parses the file.
    pub fn parse(origin: &'a Origin<'a>) -> Result<Self, Mistakes> {
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
    pub fn mistake(&self, key: &str, what: &str, cure: &str) {
        let places = self.taken.iter().map(|(name, line)| (name, line));
        let mut places = places.chain(self.table.iter().map(|(name, line, _)| (name, line)));
        let line = places.find(|(name, _)| *name == key).map_or(self.line, |(_, line)| *line);
        self.origin.add(line, self.key(key), what, cure);
    }

    /// Whether the key holds a string.
    pub fn is_string(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _, value)| name == key && matches!(value, DeValue::String(_)))
    }

    /// A string.
    pub fn string(&mut self, key: &str) -> Option<String> {
        if let DeValue::String(text) = self.take(key)? {
            return Some(text.into_owned());
        }
        self.mistake(key, "is not a string", &format!("put it into quotes: {key} = \"...\""));
        None
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &str, cure: &str) -> String {
        let missing = !self.table.iter().any(|(name, _, _)| name == key);
        let value = self.string(key).unwrap_or_default();
        if missing {
            self.mistake(key, "is missing", cure);
        }
        value
    }

    /// A string that means something.
    pub fn parsed<T: FromStr>(&mut self, key: &str, default: T, cure: &str) -> T {
        let Some(text) = self.string(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.mistake(key, "cannot be read", cure);
            default
        })
    }

    /// true or false.
    pub fn bool(&mut self, key: &str, default: bool) -> bool {
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
    pub fn number(&mut self, key: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(value) = self.take(key) else { return default };
        let number = match &value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return number;
        }
        let what = format!("is not a whole number from {} to {}", range.start(), range.end());
        self.mistake(key, &what, &format!("write {key} = {default}"));
        default
    }

    /// A whole number within bounds, or true or false for 1 and 0; none where the key is not there.
    pub fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let number = match self.take(key)? {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::Boolean(value) => Some(i64::from(value)),
            _ => None,
        };
        let fits = number.filter(|number| range.contains(number));
        if fits.is_none() {
            let what = format!("is not a whole number from {} to {}", range.start(), range.end());
            self.mistake(key, &what, "write one of these, or leave it out");
        }
        fits
    }

    /// A whole number of 32 bits within bounds; mostly seconds.
    pub fn secs(&mut self, key: &str, range: RangeInclusive<u32>, default: u32) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.number(key, range, u64::from(default))).unwrap_or(default)
    }

    /// A list of whole numbers within bounds.
    pub fn ports(&mut self, key: &str, default: &[u16]) -> Vec<u16> {
        let Some(value) = self.take(key) else { return default.to_vec() };
        let number = |value: &DeValue<'_>| match value {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let ports: Vec<Option<u16>> = match &value {
            DeValue::Array(values) => values.iter().map(|value| number(value.get_ref())).collect(),
            value => vec![number(value)],
        };
        let read: Vec<u16> = ports.iter().flatten().copied().filter(|port| *port != 0).collect();
        if read.is_empty() || read.len() != ports.len() {
            self.mistake(key, "is not a list of ports from 1 to 65535", &format!("write {key} = [2883]"));
            return default.to_vec();
        }
        read
    }

    /// A list of strings that mean something; one string counts as a list.
    pub fn list<T: FromStr>(&mut self, key: &str, default: &[&str], cure: &str) -> Vec<T> {
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

    /// All keys that were not taken yet, with their line and string: for tables whose keys are names.
    pub fn strings(&mut self) -> Vec<(String, usize, String)> {
        let mut found = Vec::new();
        for (key, line, value) in std::mem::take(&mut self.table) {
            if let DeValue::String(text) = value {
                found.push((key, line, text.into_owned()));
            } else {
                self.origin.add(line, self.key(&key), "is not a string", "put it into quotes");
            }
        }
        found.sort_by_key(|(_, line, _)| *line);
        found
    }

    /// The table of `[key]`.
    pub fn table(&mut self, key: &str) -> Option<Section<'a>> {
        let line = self.table.iter().find(|(name, _, _)| name == key).map_or(0, |(_, line, _)| *line);
        if let DeValue::Table(table) = self.take(key)? {
            return Some(Self::of(self.origin, table, self.key(key), line));
        }
        self.mistake(key, "is not a table", &format!("write [{key}]"));
        None
    }

    /// All tables that were not taken yet, with their names, in the order of the file.
    pub fn all_tables(&mut self) -> Vec<(String, Section<'a>)> {
        let is_table = |(_, _, value): &mut (String, usize, DeValue<'a>)| matches!(value, DeValue::Table(_));
        let mut found: Vec<_> = self.table.extract_if(.., is_table).collect();
        found.sort_by_key(|(_, line, _)| *line);
        let tables = found.into_iter().filter_map(|(name, line, value)| {
            let DeValue::Table(table) = value else { return None };
            self.taken.push((name.clone(), line));
            let path = self.key(&name);
            Some((name, Self::of(self.origin, table, path, line)))
        });
        tables.collect()
    }

    /// The tables of `[[key]]`.
    pub fn tables(&mut self, key: &str) -> Vec<Section<'a>> {
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
    pub fn finish(self) {
        for (key, line, _) in &self.table {
            self.origin.add(*line, self.key(key), "is not a setting", "see --print-config for all settings");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(u32, bool, Vec<u64>), Mistakes> {
        let origin = Origin::new(text, "fe.toml");
        let mut file = Section::parse(&origin)?;
        let secs = file.secs("min", 1..=3540, 60);
        let push = file.bool("push", true);
        let mut numbers = Vec::new();
        for mut backend in file.tables("backend") {
            numbers.push(backend.number("weight", 1..=9, 1));
            backend.required("url", "write url = \"http://be.example\"");
            backend.finish();
        }
        file.finish();
        origin.verdict().map(|()| (secs, push, numbers))
    }

    #[test]
    fn all_mistakes_are_named_with_line_key_and_cure() {
        let text =
            "min = 9999\npuhs = true\n\n[[backend]]\nurl = \"a\"\n[[backend]]\nweight = \"x\"\ncolour = 1\n";
        let Mistakes(mistakes) = read(text).unwrap_err();
        let places: Vec<_> = mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(
            places,
            [(1, "min"), (2, "puhs"), (6, "backend.url"), (7, "backend.weight"), (8, "backend.colour")]
        );
        assert!(mistakes.iter().all(|m| m.file == "fe.toml" && !m.what.is_empty() && !m.cure.is_empty()));
    }

    #[test]
    fn a_good_file_is_read_and_a_broken_one_names_its_line() {
        assert_eq!(read("min = 5\n[[backend]]\nurl = \"a\"\n"), Ok((5, true, vec![1])));
        assert_eq!(read(""), Ok((60, true, vec![])));
        let Mistakes(broken) = read("min = 5\nb = = 1\n").unwrap_err();
        assert_eq!((broken.len(), broken[0].line), (1, 2));
    }
}
