//! The `If` header (RFC 4918 10.4): lists of state tokens and entity tags that must hold for a request to go on.
//!
//! [`IfHeader::resources`] says whose state the evaluation needs, so that a shell can fetch it first;
//! [`IfHeader::holds`] decides; [`IfHeader::tokens`] is what the request has submitted (RFC 4918 10.4.1), whether its
//! list held or not. Not here: which locks a method needs (`locks`), `If-Match` and its kin (`conditions`).

use super::DavError;
use super::conditions::EntityTag;

/// Bytes of the header, at most.
pub const IF_BYTES_MAX: usize = 8 * 1024;
/// Conditions in the whole header, at most.
pub const CONDITIONS_MAX: usize = 100;

/// One `If` header. It holds if one of its lists does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IfHeader {
    lists: Vec<List>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct List {
    /// The Resource-Tag that applies; none: the resource of the request.
    resource: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Condition {
    not: bool,
    state: State,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Token(String),
    Tag(EntityTag),
}

/// What a resource's state is when the header is evaluated. The default is that of a resource that does not exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResourceState {
    /// Tokens of all locks that cover the resource.
    pub tokens: Vec<String>,
    /// Its entity tag with quotes, if it has one.
    pub etag: Option<String>,
}

impl IfHeader {
    /// Reads the header's value.
    ///
    /// # Errors
    /// [`DavError::Bad`] for anything that RFC 4918 10.4.2 does not produce, or beyond the bounds: 400.
    pub fn parse(value: &str) -> Result<Self, DavError> {
        if value.len() > IF_BYTES_MAX {
            return Err(BAD);
        }
        let mut rest = value.trim();
        let mut lists = Vec::new();
        let (mut tag, mut count) = (None, 0);
        let tagged = rest.starts_with('<');
        while !rest.is_empty() {
            if rest.starts_with('<') {
                // A tagged list has at least one list behind its tag, and untagged lists do not mix with tagged ones.
                if !tagged {
                    return Err(BAD);
                }
                let (resource, after) = angled(rest)?;
                tag = Some(resource.to_owned());
                rest = after.trim_start();
                if !rest.starts_with('(') {
                    return Err(BAD);
                }
            }
            let (conditions, after) = list(rest)?;
            count += conditions.len();
            if count > CONDITIONS_MAX {
                return Err(BAD);
            }
            lists.push(List { resource: tag.clone(), conditions });
            rest = after.trim_start();
        }
        if lists.is_empty() { Err(BAD) } else { Ok(Self { lists }) }
    }

    /// The resources whose state is asked for, each once: a URI or path as written, or `None` for the request's own.
    pub fn resources(&self) -> Vec<Option<&str>> {
        let mut found = Vec::new();
        for list in &self.lists {
            let resource = list.resource.as_deref();
            if !found.contains(&resource) {
                found.push(resource);
            }
        }
        found
    }

    /// Every state token that appears anywhere, negated or not: those are submitted (RFC 4918 10.4.1).
    pub fn tokens(&self) -> Vec<&str> {
        let conditions = self.lists.iter().flat_map(|list| &list.conditions);
        conditions
            .filter_map(|condition| match &condition.state {
                State::Token(token) => Some(token.as_str()),
                State::Tag(_) => None,
            })
            .collect()
    }

    /// Whether the request may go on; if not the answer is 412. Entity tags are compared strongly.
    pub fn holds(&self, mut state_of: impl FnMut(Option<&str>) -> ResourceState) -> bool {
        self.lists.iter().any(|list| {
            let state = state_of(list.resource.as_deref());
            list.conditions.iter().all(|condition| {
                let there = match &condition.state {
                    State::Token(token) => state.tokens.contains(token),
                    State::Tag(tag) => state.etag.as_deref().is_some_and(|etag| tag.is_strongly(etag)),
                };
                there != condition.not
            })
        })
    }
}

impl std::fmt::Display for IfHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = None;
        for (n, list) in self.lists.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            if list.resource.as_ref() != last {
                last = list.resource.as_ref();
                if let Some(resource) = last {
                    write!(f, "<{resource}> ")?;
                }
            }
            f.write_str("(")?;
            for (n, condition) in list.conditions.iter().enumerate() {
                let space = if n > 0 { " " } else { "" };
                let not = if condition.not { "Not " } else { "" };
                match &condition.state {
                    State::Token(token) => write!(f, "{space}{not}<{token}>")?,
                    State::Tag(tag) => write!(f, "{space}{not}[{tag}]")?,
                }
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

const BAD: DavError = DavError::Bad("If");

/// `<…>`: what is inside, and what is behind it. Neither white space nor another `<` may be inside.
fn angled(text: &str) -> Result<(&str, &str), DavError> {
    let inside = text.strip_prefix('<').ok_or(BAD)?;
    let (inside, rest) = inside.split_once('>').ok_or(BAD)?;
    let ok =
        !inside.is_empty() && !inside.contains(|c: char| c.is_whitespace() || c.is_control() || c == '<');
    if ok { Ok((inside, rest)) } else { Err(BAD) }
}

fn list(text: &str) -> Result<(Vec<Condition>, &str), DavError> {
    let mut rest = text.strip_prefix('(').ok_or(BAD)?.trim_start();
    let mut conditions = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(')') {
            return if conditions.is_empty() { Err(BAD) } else { Ok((conditions, after)) };
        }
        let not = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
        if not {
            rest = rest[3..].trim_start();
        }
        let (state, after) = if let Some(inside) = rest.strip_prefix('[') {
            let (tag, after) = EntityTag::read(inside.trim_start()).ok_or(BAD)?;
            (State::Tag(tag), after.trim_start().strip_prefix(']').ok_or(BAD)?)
        } else {
            let (token, after) = angled(rest)?;
            // A Coded-URL is an absolute URI, which has a scheme.
            if !token.contains(':') {
                return Err(BAD);
            }
            (State::Token(token.to_owned()), after)
        };
        if conditions.len() == CONDITIONS_MAX {
            return Err(BAD);
        }
        conditions.push(Condition { not, state });
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "opaquelocktoken:181d4fae-7d8c-11d0-a765-00a0c91e6bf2";

    fn state(tokens: &[&str], etag: &str) -> ResourceState {
        ResourceState {
            tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
            etag: Some(etag.to_owned()).filter(|etag| !etag.is_empty()),
        }
    }

    #[track_caller]
    fn check(value: &str, now: &ResourceState, expected: bool) {
        assert_eq!(IfHeader::parse(value).unwrap().holds(|_| now.clone()), expected, "{value}");
    }

    #[test]
    fn lists_hold_as_rfc_4918_says() {
        let locked = state(&[TOKEN], "\"1\"");
        check(&format!("(<{TOKEN}> [\"1\"])"), &locked, true);
        check(&format!("(<{TOKEN}> [\"2\"])"), &locked, false);
        check(&format!("(<{TOKEN}>) ([\"2\"])"), &locked, true);
        check("([W/\"1\"])", &locked, false);
        check(&format!("(<{TOKEN}x>) (Not <DAV:no-lock>)"), &locked, true);
        check(&format!("(<{TOKEN}>) (not <DAV:no-lock> [\"1\"])"), &state(&[], "\"1\""), true);
        check(&format!("(Not <{TOKEN}> [\"1\"])"), &locked, false);
        check("(<DAV:no-lock>)", &locked, false);
        check("(Not [\"1\"])", &ResourceState::default(), true);
    }

    #[test]
    fn tags_name_whose_state_counts() {
        let value = format!("<http://h/a/> (<{TOKEN}>)(Not <urn:x:y>) </b> ([\"7\"])");
        let header = IfHeader::parse(&value).unwrap();
        assert_eq!(header.resources(), [Some("http://h/a/"), Some("/b")]);
        assert_eq!(header.tokens(), [TOKEN, "urn:x:y"]);
        let b = |resource: Option<&str>| match resource {
            Some("/b") => state(&[], "\"7\""),
            _ => state(&["urn:x:y"], ""),
        };
        assert!(header.holds(b));
        assert!(!header.holds(|_| state(&["urn:x:y"], "\"8\"")));
    }

    #[test]
    fn what_is_no_if_header_is_refused() {
        for bad in [
            "",
            "()",
            "(",
            "(<a:b>",
            "<a:b>",
            "<a:b> <c:d> (<a:b>)",
            "(<a:b>) </x> (<a:b>)",
            "(<nocolon>)",
            "(<a:b >)",
            "([1])",
            "([\"1)",
            "(Not)",
            "(<a:b>) x",
            "(<a:<b>)",
            "([\"1\"] Not Not <a:b>)",
            "([\"\u{1}\"])",
        ] {
            assert!(IfHeader::parse(bad).is_err(), "{bad}");
        }
        assert!(IfHeader::parse(&"(<a:b>)".repeat(CONDITIONS_MAX)).is_ok());
        assert!(IfHeader::parse(&"(<a:b>)".repeat(CONDITIONS_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(value in "(\\(( ?(Not ){0,1}(<[a:]{2,4}>|\\[\"[a-c ,]{0,3}\"\\])){1,3} ?\\) ?){1,3}") {
            if let Ok(header) = IfHeader::parse(&value) {
                prop_assert_eq!(IfHeader::parse(&header.to_string()), Ok(header));
            }
        }

        #[test]
        fn never_panics(value in "[(<\\[\"a:Not >)\\]]{0,40}|\\PC{0,40}") {
            let _ = IfHeader::parse(&value).map(|header| header.holds(|_| ResourceState::default()));
        }
    }
}
