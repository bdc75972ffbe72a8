//! The directory of people (the Global Address List of [MS-ASCMD] Search and ResolveRecipients): what a front end
//! asks a back end, what it is told, and when a person is meant by a query.
//!
//! Not here: where people are kept, and which of them are shown (the back end's mailbox model).

use serde::{Deserialize, Serialize};

/// Entries of one answer, at most.
pub const ENTRIES_MAX: usize = 100;
/// Characters of a query, at most ([MS-ASCMD] Query (Search): up to 256 characters).
pub const QUERY_CHARS_MAX: usize = 256;

/// A question to the directory: `POST /directpush/directory`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryQuery {
    /// Beginnings of words, all of which must fit; or, if `exact`, a whole name or address.
    pub query: String,
    /// Entries wanted, 1 to [`ENTRIES_MAX`].
    pub limit: usize,
    /// Whether only a whole name or address counts.
    #[serde(default)]
    pub exact: bool,
}

/// What the directory answers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct DirectoryAnswer {
    /// In the order of their names.
    pub entries: Vec<Person>,
    /// People who are meant, those beyond the limit included.
    pub total: usize,
}

/// A person as others see them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// How the person is called; the local part of the address where nothing else is known.
    pub name: String,
    /// The name of the mailbox.
    pub user: String,
    /// The primary address first.
    pub addresses: Vec<String>,
}

/// A query made ready for many comparisons.
#[derive(Clone, Debug)]
pub struct Wanted {
    exact: Option<String>,
    words: Vec<String>,
}

impl DirectoryQuery {
    /// Makes the query ready. A query of nothing but blanks means nobody.
    pub fn wanted(&self) -> Wanted {
        let query: String = self.query.chars().take(QUERY_CHARS_MAX).collect::<String>().to_lowercase();
        let query = query.trim();
        if self.exact {
            return Wanted { exact: Some(query.to_owned()), words: Vec::new() };
        }
        Wanted { exact: None, words: words(query).map(str::to_owned).collect() }
    }

    /// The limit within its bounds.
    pub fn bounded_limit(&self) -> usize {
        self.limit.clamp(1, ENTRIES_MAX)
    }
}

/// What people type between the words of a name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '<' | '>'))
        .filter(|word| !word.is_empty())
}

impl Wanted {
    /// Whether this person is meant.
    pub fn means(&self, person: &Person) -> bool {
        let name = person.name.to_lowercase();
        let addresses = || person.addresses.iter().map(|address| address.to_lowercase());
        if let Some(exact) = &self.exact {
            return !exact.is_empty() && (name == *exact || addresses().any(|address| address == *exact));
        }
        !self.words.is_empty()
            && self.words.iter().all(|word| {
                words(&name).any(|part| part.starts_with(word.as_str()))
                    || addresses().any(|address| begins(&address, word))
            })
    }
}

/// Whether an address, or a part of its local part, begins with this.
fn begins(address: &str, word: &str) -> bool {
    let local = address.split('@').next().unwrap_or(address);
    address.starts_with(word) || local.split(['.', '-', '_', '+']).any(|part| part.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Person {
        Person {
            name: "Jürgen van der Berg".into(),
            user: "jb@example.com".into(),
            addresses: vec!["jb@example.com".into(), "juergen.berg@example.com".into()],
        }
    }

    fn means(query: &str, exact: bool) -> bool {
        DirectoryQuery { query: query.into(), limit: 10, exact }.wanted().means(&person())
    }

    #[test]
    fn beginnings_of_words_of_name_and_address_count_and_all_must_fit() {
        for query in [
            "j",
            "JÜR",
            "berg",
            "van berg",
            "Berg, Jürgen",
            "jb@ex",
            "juergen.b",
            "bErG jb",
            "<jb@example.com>",
        ] {
            assert!(means(query, false), "{query}");
        }
        for query in ["", "  ", ",", "rgen", "berg alice", "example", "jb@other"] {
            assert!(!means(query, false), "{query}");
        }
    }

    #[test]
    fn exact_means_a_whole_name_or_address() {
        for query in ["jürgen van der berg", "JB@example.com", "juergen.berg@example.com"] {
            assert!(means(query, true), "{query}");
        }
        for query in ["", "jürgen", "jb", "jb@example"] {
            assert!(!means(query, true), "{query}");
        }
    }
}
