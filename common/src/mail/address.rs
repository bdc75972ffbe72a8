//! Addresses (RFC 5322 3.4): lists with names, comments, groups and quoted strings; what one address is, and the rules
//! by which it is some user's.
//!
//! Not here: which users exist, aliases, display names and their encoded words (they are passed over).

use std::fmt;
use std::str::FromStr;

use crate::names::UserName;

/// Addresses of one list, at most.
pub const ADDRESSES_MAX: usize = 10_000;
/// Bytes of one address, at most (RFC 5321 4.5.3.1.3).
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Depth of comments, at most.
const COMMENTS_MAX: usize = 8;

/// Why an address, or a list of them, cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadAddress {
    /// Not of the form `local@domain`.
    #[error("not an address")]
    Form,
    /// Too long.
    #[error("an address of more than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`ADDRESSES_MAX`].
    #[error("more than {ADDRESSES_MAX} addresses")]
    TooMany,
}

/// `local@domain`, without name and comments.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    local: String,
    domain: String,
}

impl Address {
    /// The part before the `@`, without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part behind it, in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What two ways to write the same mailbox have in common: all in lower case.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }

    /// The address without its sub-address (RFC 5233 1), and that: `user+tag@x` is `user@x` and `tag`. An address that
    /// has none, or nothing before it, stays as it is.
    pub fn without_tag(&self, separator: char) -> (Self, Option<&str>) {
        match self.local.split_once(separator) {
            Some((user, tag)) if !user.is_empty() => {
                (Self { local: user.to_owned(), domain: self.domain.clone() }, Some(tag))
            }
            _ => (self.clone(), None),
        }
    }

    /// The user whose mailbox this would be, if such a name can exist.
    pub fn user(&self) -> Option<UserName> {
        self.key().parse().ok()
    }
}

impl FromStr for Address {
    type Err = BadAddress;
    /// Reads an addr-spec (RFC 5322 3.4.1), or the path of an envelope without its angle brackets. The domain may be a
    /// literal in brackets. Letters beyond ASCII are allowed (RFC 6532 3.2).
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let text = text.trim();
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(BadAddress::TooLong);
        }
        let (local, domain) = if let Some(quoted) = text.strip_prefix('"') {
            let (local, rest) = quoted_string(quoted).ok_or(BadAddress::Form)?;
            (local, rest.trim_start().strip_prefix('@').ok_or(BadAddress::Form)?.trim_start())
        } else {
            let (local, domain) = text.split_once('@').ok_or(BadAddress::Form)?;
            (
                Some(local.trim_end()).filter(|local| dot_atom(local)).ok_or(BadAddress::Form)?.to_owned(),
                domain.trim_start(),
            )
        };
        let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let domain_ok = match literal {
            Some(literal) => {
                !literal.is_empty()
                    && literal.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-'))
            }
            None => domain.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            }),
        };
        if local.is_empty() || !domain_ok {
            return Err(BadAddress::Form);
        }
        Ok(Self { local, domain: domain.to_lowercase() })
    }
}

/// As an addr-spec: the local part in quotes if it needs them.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if dot_atom(&self.local) {
            write!(f, "{}@{}", self.local, self.domain)
        } else {
            write!(f, "\"{}\"@{}", self.local.replace('\\', "\\\\").replace('"', "\\\""), self.domain)
        }
    }
}

fn atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

fn dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atom_char))
}

/// Behind the opening quote: what is inside, and what is behind the closing one. Control characters are refused.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((inside, &text[at + 1..])),
            '\\' => inside.push(chars.next().map(|(_, c)| c).filter(|c| !c.is_control())?),
            c if c.is_control() && c != '\t' => return None,
            c => inside.push(c),
        }
    }
    None
}

/// Behind an opening parenthesis: what is behind the closing one.
fn comment(text: &str) -> Option<&str> {
    let mut depth = 1;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()),
            _ => {}
        }
        if depth == 0 {
            return Some(&text[at + 1..]);
        }
        if depth > COMMENTS_MAX {
            return None;
        }
    }
    None
}

/// Reads an address-list, as From, To and their like hold it. Empty places between commas are passed over (RFC 5322
/// 4.4); what is neither an address nor a group is refused.
///
/// # Errors
/// See [`BadAddress`].
pub fn addresses(list: &str) -> Result<Vec<Address>, BadAddress> {
    let mut found = Vec::new();
    // What stands before a comma: words without an angle, or the address in angles.
    let (mut words, mut angle) = (String::new(), None::<String>);
    let mut in_group = false;
    let mut rest = list;
    loop {
        let next = rest.chars().next();
        match next {
            None | Some(',' | ';') => {
                let bare = std::mem::take(&mut words);
                let one = match angle.take() {
                    Some(address) => Some(address),
                    None => Some(bare.trim().to_owned()).filter(|bare| !bare.is_empty()),
                };
                if let Some(one) = one {
                    found.push(one.parse()?);
                }
                if found.len() > ADDRESSES_MAX {
                    return Err(BadAddress::TooMany);
                }
                match next {
                    None if in_group => return Err(BadAddress::Form),
                    None => return Ok(found),
                    Some(';') if !in_group => return Err(BadAddress::Form),
                    Some(';') => in_group = false,
                    _ => {}
                }
                rest = &rest[1..];
            }
            Some('(') => {
                rest = comment(&rest[1..]).ok_or(BadAddress::Form)?;
                words.push(' ');
            }
            Some('"') if angle.is_none() => {
                let (_, after) = quoted_string(&rest[1..]).ok_or(BadAddress::Form)?;
                words.push_str(&rest[..rest.len() - after.len()]);
                rest = after;
            }
            Some('[') if angle.is_none() => {
                let end = rest.find(']').ok_or(BadAddress::Form)? + 1;
                words.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            Some('<') if angle.is_none() => {
                let (address, after) = in_angles(&rest[1..])?;
                angle = Some(address);
                rest = after;
            }
            Some(':') if !in_group && angle.is_none() && !words.trim().is_empty() && !words.contains('@') => {
                in_group = true;
                words.clear();
                rest = &rest[1..];
            }
            Some(c) if matches!(c, '<' | '>' | ':') || (c.is_control() && c != '\t') => {
                return Err(BadAddress::Form);
            }
            // Words behind the address in angles would be another reading of it.
            Some(c) if angle.is_some() && !c.is_whitespace() => return Err(BadAddress::Form),
            Some(c) => {
                words.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
}

/// Behind `<`: the addr-spec with comments taken out and a route passed over (RFC 5322 4.4), and what is behind `>`.
fn in_angles(text: &str) -> Result<(String, &str), BadAddress> {
    let mut inside = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '>' => {
                let route = inside.trim_start().starts_with('@');
                let spec =
                    if route { inside.split_once(':').map(|(_, spec)| spec) } else { Some(inside.as_str()) };
                return Ok((spec.ok_or(BadAddress::Form)?.trim().to_owned(), &rest[1..]));
            }
            '(' => rest = comment(&rest[1..]).ok_or(BadAddress::Form)?,
            '"' => {
                let (_, after) = quoted_string(&rest[1..]).ok_or(BadAddress::Form)?;
                inside.push_str(&rest[..rest.len() - after.len()]);
                rest = after;
            }
            '<' => return Err(BadAddress::Form),
            c => {
                inside.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        if inside.len() > 2 * ADDRESS_BYTES_MAX {
            return Err(BadAddress::TooLong);
        }
    }
    Err(BadAddress::Form)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, expected: &[&str]) {
        let found = addresses(list).unwrap_or_else(|error| panic!("{list}: {error}"));
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{list}");
    }

    #[test]
    fn lists_as_rfc_5322_has_them() {
        check("john.doe@Example.COM", &["john.doe@example.com"]);
        check("\"Joe Q. Public\" <john.q.public@example.com>", &["john.q.public@example.com"]);
        check(
            "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
            &["mary@x.test", "jdoe@example.org", "one@y.test"],
        );
        check(
            "A Group:Ed Jones <joe@where.test>,joe@where.test,\"Jo\" <j@one.test>;",
            &["joe@where.test", "joe@where.test", "j@one.test"],
        );
        check("Undisclosed recipients:(nobody(that I know))  ;", &[]);
        check("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", &["pete@silly.test"]);
        check("=?utf-8?Q?J=C3=BCrgen?= <j@x>", &["j@x"]);
        check("\"<evil@x>\" <good@x>", &["good@x"]);
        check("<@a,@b:c@d>", &["c@d"]);
        check(" , a@x , , b@x,", &["a@x", "b@x"]);
        check(
            "\"a b\"@x, \"plain\"@x, jürgen@bücher.example",
            &["\"a b\"@x", "plain@x", "jürgen@bücher.example"],
        );
        check("a@[IPv6:::1]", &["a@[ipv6:::1]"]);
        check("a @ x", &["a@x"]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "a",
            "a@",
            "@x",
            "a@x b@x",
            "<a@x> <b@x>",
            "<a@x> b@x",
            "a@x <b@x",
            "<a@x",
            "a@b@c",
            "a..b@x",
            ".a@x",
            "a@x..y",
            "a@-x",
            "\"a@x",
            "(a@x",
            "g: a@x",
            "a@x;",
            "a@x: b@x;",
            "a\u{0}b@x",
            "a@x\u{7}",
            "\"\"@x",
            "<>",
            "a@[x y]",
            "g: h: a@x;;",
            "<a<b@x>",
            "((((((((((a))))))))))b@x",
        ] {
            assert!(addresses(bad).is_err(), "{bad}: {:?}", addresses(bad));
        }
        let long = format!("{}@x", "a".repeat(ADDRESS_BYTES_MAX));
        assert_eq!(addresses(&long), Err(BadAddress::TooLong));
    }

    #[test]
    fn an_address_is_some_users() {
        let address: Address = "Alice+Lists+x@Example.com".parse().unwrap();
        assert_eq!(address.key(), "alice+lists+x@example.com");
        let (plain, tag) = address.without_tag('+');
        assert_eq!((plain.to_string().as_str(), tag), ("Alice@example.com", Some("Lists+x")));
        assert_eq!(plain.user().unwrap().as_str(), "alice@example.com");
        let odd: Address = "+x@example.com".parse().unwrap();
        assert_eq!(odd.without_tag('+'), (odd.clone(), None));
        assert_eq!("\"a b\"@x".parse::<Address>().unwrap().user(), None);
    }

    proptest! {
        #[test]
        fn an_address_survives_being_written(text in "(\"[a-z \\\\\"@.]{0,6}\"|[a-z.+]{1,6})@[a-z.]{1,8}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address.clone()));
                prop_assert_eq!(addresses(&address.to_string()), Ok(vec![address.clone()]));
                prop_assert_eq!(addresses(&format!("\"x, y\" (c) <{address}>")), Ok(vec![address]));
            }
        }

        #[test]
        fn never_panics(list in "[a@x<>,;:\"()\\\\ .é]{0,30}") {
            let _ = addresses(&list);
        }
    }
}
