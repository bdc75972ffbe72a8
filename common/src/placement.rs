//! Which back end holds a user's mailbox: a map from names and domains to back ends, read by every front end, and by the
//! back ends to say where a user is that they do not hold.
//!
//! Two ways to write it. TOML:
//! ```toml
//! default = "be-1"            # everybody else; without it they have no mailbox
//! [domains]
//! "example.org" = "be-2"
//! [users]
//! "alice@example.com" = "be-3"
//! ```
//! Or, for many users, lines of two words with a tab or spaces between: `alice@example.com be-3`, `@example.org be-2`,
//! `* be-1`; what follows a `#` at the start of a line or behind white space is a comment.
//!
//! An exact name goes before its domain, a domain before the default. Case does not matter. Not here: reading the file,
//! when it is read again, the back ends' addresses.

use std::collections::HashMap;

use crate::config::{Mistakes, Origin, Section};
use crate::names::UserName;

/// Back ends, at most.
pub const BACKENDS_MAX: usize = 65_535;
/// Mistakes that are told of one file, at most.
const MISTAKES_MAX: usize = 50;

/// The map. Back ends are numbers: their places in the list that the map was read with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Placement {
    users: HashMap<Box<str>, u16>,
    domains: HashMap<Box<str>, u16>,
    default: Option<u16>,
}

impl Placement {
    /// Everybody at one back end.
    pub fn everybody_at(backend: u16) -> Self {
        Self { default: Some(backend), ..Self::default() }
    }

    /// Reads the map: TOML if `file` ends in `.toml`, else lines. `backends`: the names of those that are configured.
    ///
    /// # Errors
    /// Every line that cannot be read, names a back end that is none of these, or says again what another has said.
    pub fn parse(text: &str, file: &str, backends: &[&str]) -> Result<Self, Mistakes> {
        let origin = Origin::new(text, file);
        let mut reader = Reader { origin: &origin, backends, read: Self::default(), mistakes: 0 };
        let is_toml = file.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("toml"));
        if is_toml {
            reader.toml()?;
        } else {
            reader.lines(text);
        }
        let read = reader.read;
        origin.verdict().map(|()| read)
    }

    /// Where a user's mailbox is, as a place in the list that the map was read with.
    pub fn backend(&self, user: &UserName) -> Option<usize> {
        let of_domain = || self.domains.get(user.domain()?);
        let found = self.users.get(user.as_str()).or_else(of_domain).copied();
        found.or(self.default).map(usize::from)
    }

    /// The same for somebody who may be meant by any of these names: one that the map names goes before a domain, a
    /// domain before the default, and what comes first in the list before what comes later.
    pub fn backend_of_any(&self, names: &[UserName]) -> Option<usize> {
        let exact = names.iter().find_map(|name| self.users.get(name.as_str()));
        let of_domain = || names.iter().find_map(|name| self.domains.get(name.domain()?));
        let found = exact.or_else(of_domain).copied();
        found.or(self.default).map(usize::from)
    }

    /// Users that are named themselves.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody has a back end.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.domains.is_empty() && self.default.is_none()
    }
}

struct Reader<'a> {
    origin: &'a Origin<'a>,
    backends: &'a [&'a str],
    read: Placement,
    mistakes: usize,
}

impl Reader<'_> {
    fn toml(&mut self) -> Result<(), Mistakes> {
        let mut root = Section::parse(self.origin)?;
        for (section, prefix) in [("users", ""), ("domains", "@")] {
            if let Some(mut table) = root.table(section) {
                for (who, line, backend) in table.strings() {
                    if prefix.is_empty() && (who == "*" || who.starts_with('@')) {
                        self.mistake(
                            line,
                            &who,
                            "is no user",
                            "put domains under [domains], and write default = \"...\"",
                        );
                    } else {
                        self.entry(line, &format!("{prefix}{who}"), &backend);
                    }
                }
            }
        }
        for (key, line, backend) in root.strings() {
            if key == "default" {
                self.entry(line, "*", &backend);
            } else {
                self.mistake(line, &key, "is not known", "there are default, [domains] and [users]");
            }
        }
        Ok(())
    }

    fn lines(&mut self, text: &str) {
        for (n, line) in (1..).zip(text.lines()) {
            let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
            match *words.take(3).collect::<Vec<_>>().as_slice() {
                [] => {}
                [who, backend] => self.entry(n, who, backend),
                [who, ..] => {
                    self.mistake(n, who, "is not a name and a back end", "write: alice@example.com be-1");
                }
            }
        }
    }

    fn entry(&mut self, line: usize, who: &str, backend: &str) {
        let Some(at) = self.backends.iter().position(|name| name.eq_ignore_ascii_case(backend)) else {
            let known = self.backends.iter().take(20).copied().collect::<Vec<_>>().join(", ");
            let cure = format!("there are: {known}");
            return self.mistake(
                line,
                who,
                &format!("is placed at {backend:?}, which is not configured"),
                &cure,
            );
        };
        let Ok(at) = u16::try_from(at) else {
            return self.mistake(line, who, "is beyond the number of back ends", "fewer back ends");
        };
        let twice = if who == "*" {
            self.read.default.replace(at).is_some()
        } else if let Some(domain) = who.strip_prefix('@') {
            // A domain must be one that a user's name can have.
            match format!("x@{domain}").parse::<UserName>() {
                Ok(name) => {
                    let domain = name.domain().unwrap_or_default();
                    self.read.domains.insert(domain.into(), at).is_some()
                }
                Err(error) => {
                    return self.mistake(line, who, &error.to_string(), "write a domain: @example.org");
                }
            }
        } else {
            match who.parse::<UserName>() {
                Ok(name) => self.read.users.insert(name.as_str().into(), at).is_some(),
                Err(error) => {
                    return self.mistake(line, who, &error.to_string(), "write a user: alice@example.com");
                }
            }
        };
        if twice {
            self.mistake(line, who, "has been placed already", "leave one of the two");
        }
    }

    fn mistake(&mut self, line: usize, who: &str, what: &str, cure: &str) {
        self.mistakes += 1;
        if self.mistakes <= MISTAKES_MAX {
            let shown: String = who.chars().take(100).filter(|c| !c.is_control()).collect();
            self.origin.add(line, shown, what, cure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKENDS: [&str; 3] = ["be-1", "be-2", "be-3"];
    const LINES: &str =
        "# who lives where\n* be-1\n@Example.org\tBE-2 # moved\n\nAlice@example.com   be-3\nbob be-2\n";
    const TOML: &str = "default = \"be-1\"\n[domains]\n\"example.org\" = \"be-2\"\n[users]\n\"alice@example.com\" = \"be-3\"\nbob = \"be-2\"\n";

    fn parse(text: &str, file: &str) -> Result<Placement, Mistakes> {
        Placement::parse(text, file, &BACKENDS)
    }

    #[test]
    fn both_ways_to_write_it_mean_the_same() {
        let placement = parse(LINES, "placement").unwrap();
        assert_eq!(parse(TOML, "placement.toml").unwrap(), placement);
        for (user, expected) in [
            ("alice@example.com", 2),
            ("ALICE@Example.COM", 2),
            ("carol@example.com", 0),
            ("alice@example.org", 1),
            ("bob", 1),
            ("bob@example.com", 0),
            ("x@sub.example.org", 0),
        ] {
            assert_eq!(placement.backend(&user.parse().unwrap()), Some(expected), "{user}");
        }
        assert_eq!(placement.len(), 2);
        assert_eq!(parse("@example.org be-2", "x").unwrap().backend(&"bob".parse().unwrap()), None);
        assert!(parse("", "x").unwrap().is_empty() && parse("", "x.toml").unwrap().is_empty());
        assert_eq!(Placement::everybody_at(1).backend(&"bob".parse().unwrap()), Some(1));
    }

    #[test]
    fn of_several_names_the_one_that_the_map_names_counts() {
        let placement = parse(LINES, "placement").unwrap();
        for (names, expected) in [
            (&["carol@example.com", "carol"][..], 0),
            (&["bob@example.com", "bob"], 1),
            (&["alice", "alice@example.com"], 2),
            (&["x@example.org", "alice@example.com"], 2),
            (&["x", "x@example.org"], 1),
        ] {
            let names: Vec<UserName> = names.iter().map(|name| name.parse().unwrap()).collect();
            assert_eq!(placement.backend_of_any(&names), Some(expected), "{names:?}");
        }
        assert_eq!(Placement::default().backend_of_any(&["bob".parse().unwrap()]), None);
    }

    #[track_caller]
    fn check(text: &str, file: &str, expected: &[usize]) {
        let mistakes = parse(text, file).unwrap_err();
        assert_eq!(mistakes.0.iter().map(|mistake| mistake.line).collect::<Vec<_>>(), expected, "{mistakes}");
    }

    #[test]
    fn all_mistakes_are_told_with_their_lines() {
        check(
            "a be-1\na be-2\n\nb be-9\nc\nd be-1 be-2\n@ be-1\na/b be-1\n* be-1\n* be-2",
            "x",
            &[2, 4, 5, 6, 7, 8, 10],
        );
        check(
            "default = \"be-9\"\nother = \"be-1\"\n[users]\na = \"be-8\"\n\"@x\" = \"be-1\"\nc = 3",
            "x.toml",
            &[1, 2, 4, 5, 6],
        );
        check("[users\n", "x.toml", &[1]);
        check("[users]\na = \"be-1\"\na = \"be-2\"", "x.toml", &[3]);
        let many = "x be-9\n".repeat(1000);
        assert_eq!(parse(&many, "x").unwrap_err().0.len(), MISTAKES_MAX);
    }
}
