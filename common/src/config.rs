//! Mistakes in a configuration file: all of them at once, each with its place and its cure.
//!
//! A server deserializes its file with [`read`], then checks values and collects [`Mistake`]s. Not here: which
//! settings there are; each server's `config.rs` has its own.

use std::{fmt, path::Path};

use serde::de::DeserializeOwned;

/// One mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// The key's path: `ping.min_heartbeat_interval`, or empty for the file as a whole.
    pub key: String,
    /// Line in the file, from 1; `None` if the key is not there at all.
    pub line: Option<usize>,
    /// What is wrong, in plain words.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

/// All mistakes of one file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mistakes {
    /// The file as the operator named it.
    pub file: String,
    /// In the order in which they were found.
    pub list: Vec<Mistake>,
    text: String,
}

impl Mistakes {
    /// No mistakes yet in `file` with text `source`.
    pub fn new(file: &Path, source: &str) -> Self {
        Self { file: file.display().to_string(), list: Vec::new(), text: source.to_owned() }
    }

    /// Adds a mistake; the line is looked up by the last part of `key`.
    pub fn add(&mut self, key: &str, what: impl Into<String>, cure: impl Into<String>) {
        let line = self.line_of(key);
        self.list.push(Mistake { key: key.to_owned(), line, what: what.into(), cure: cure.into() });
    }

    /// `Ok` if there is none.
    ///
    /// # Errors
    /// The mistakes themselves.
    pub fn or_ok<T>(self, value: T) -> Result<T, Self> {
        if self.list.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The line where the last part of `key` is set, inside the table that the parts before name.
    fn line_of(&self, key: &str) -> Option<usize> {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut current = "";
        for (n, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[') {
                current = header.trim_start_matches('[').split(']').next().unwrap_or("").trim();
            } else if current == table
                && line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
            {
                return Some(n + 1);
            }
        }
        None
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.list {
            let line = mistake.line.map_or_else(String::new, |line| format!(":{line}"));
            let key = if mistake.key.is_empty() { String::new() } else { format!(" {}:", mistake.key) };
            writeln!(f, "{}{line}:{key} {}\n    cure: {}", self.file, mistake.what, mistake.cure)?;
        }
        Ok(())
    }
}

/// Deserializes the text of a configuration file. Unknown keys and values of the wrong kind are all collected, as
/// far as the file can be read at all.
///
/// # Errors
/// [`Mistakes`] with place and cure. `T` must refuse unknown fields (`deny_unknown_fields`).
pub fn read<T: DeserializeOwned>(file: &Path, source: &str) -> Result<T, Mistakes> {
    let mut mistakes = Mistakes::new(file, source);
    let mut text = source.to_owned();
    // Each round reports one mistake and blanks its line, so that the next round finds the next.
    for _ in 0..32 {
        let error = match toml::from_str::<T>(&text) {
            Ok(value) => {
                mistakes.list.sort_by_key(|mistake| mistake.line);
                return mistakes.or_ok(value);
            }
            Err(error) => error,
        };
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count());
        let message = error.message().trim().to_owned();
        let known = message
            .find(", expected `")
            .or_else(|| message.find(", expected one of"))
            .map(|at| message[at..].to_owned());
        let cure = match known {
            Some(known) => format!("use a key that exists here{known}"),
            None => "correct the value; --print-config shows every setting with its meaning".to_owned(),
        };
        let key = line.and_then(|line| key_in(&text, line)).unwrap_or_default();
        mistakes.list.push(Mistake { key, line: line.map(|line| line + 1), what: message, cure });
        // A line that sets a value can be blanked without changing the others; anything else ends the search.
        match line.and_then(|line| blank(&text, line)) {
            Some(next) => text = next,
            None => break,
        }
    }
    mistakes.list.sort_by_key(|mistake| mistake.line);
    Err(mistakes)
}

fn key_in(text: &str, line: usize) -> Option<String> {
    let (key, _) = text.lines().nth(line)?.split_once('=')?;
    Some(key.trim().to_owned())
}

fn blank(text: &str, line: usize) -> Option<String> {
    let sets_a_value = key_in(text, line).is_some_and(|key| !key.is_empty() && !key.starts_with('#'));
    let lines = text.lines().enumerate().map(|(n, content)| if n == line { "" } else { content });
    sets_a_value.then(|| lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[derive(Default)]
    struct File {
        port: u16,
        ping: Ping,
    }

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[derive(Default)]
    struct Ping {
        min: u64,
    }

    #[test]
    fn all_mistakes_are_named_with_line_key_and_cure() {
        let text = "port = 70000\nprot = 1\n[ping]\n# a comment\nmin = \"x\"\nmax = 3\n";
        let mistakes = read::<File>(Path::new("fe.toml"), text).unwrap_err();
        let places: Vec<_> = mistakes.list.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(places, [(Some(1), "port"), (Some(2), "prot"), (Some(5), "min"), (Some(6), "max")]);
        let text = mistakes.to_string();
        assert!(
            text.contains("fe.toml:2: prot: unknown field")
                && text.contains("cure: use a key that exists here, expected"),
            "{text}"
        );
    }

    #[test]
    fn a_good_file_is_read_and_a_broken_one_is_told() {
        assert_eq!(read::<File>(Path::new("fe.toml"), "port = 7\n[ping]\nmin = 5").unwrap().ping.min, 5);
        let broken = read::<File>(Path::new("fe.toml"), "[ping\nmin = 5").unwrap_err();
        assert_eq!(broken.list.len(), 1);
    }

    #[test]
    fn later_checks_find_the_line_of_their_key() {
        let mut mistakes = Mistakes::new(Path::new("fe.toml"), "min = 1\n[ping]\nmin = 5\n");
        mistakes.add("ping.min", "too small", "raise it");
        mistakes.add("ping.max", "missing", "set it");
        assert_eq!(mistakes.list.iter().map(|m| m.line).collect::<Vec<_>>(), [Some(3), None]);
        assert!(mistakes.or_ok(()).is_err());
    }
}
