//! SEARCH as Exchange's clients sent it: `D:searchrequest/D:sql`, a SELECT over the properties of resources.
//!
//! The grammar is that of the Exchange SDK's examples: SELECT of quoted property URIs, FROM SCOPE with shallow, deep or
//! hierarchical traversals, WHERE with comparisons, AND, OR, NOT, LIKE, IS NULL, CONTAINS and CAST, ORDER BY. Rows may be
//! asked for in parts, by `Range: rows=` (`range`).
//!
//! Read here, decided by [`Search::matches`] over a closure that gives a resource's properties. Not here: GROUP BY and
//! RFC 5323's `basicsearch` (422), the replication manifest (`R:repl`), walking the scope.

mod condition;
mod lexer;
mod parser;
mod value;

pub use condition::{Comparison, Condition, Operand};
pub use value::{Type, Value};

use std::cmp::Ordering;
use std::fmt;

use super::fragment::PropertyName;
use super::{DAV, DavError, xml};

/// Bytes of the SQL text, at most.
pub const SQL_BYTES_MAX: usize = 32 * 1024;
/// Properties selected, at most.
pub const SELECTED_MAX: usize = 200;
/// Comparisons and connectives, at most.
pub const CONDITIONS_MAX: usize = 500;
/// Depth of parentheses and NOTs, at most.
pub const DEPTH_MAX: usize = 32;
/// Places in the scope, and properties to sort by, at most.
pub const SCOPES_MAX: usize = 10;

/// Why a SEARCH cannot be carried out. The text is for the asker.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The body is no search request: 400.
    #[error(transparent)]
    Body(#[from] DavError),
    /// It is not SQL: 400.
    #[error("SQL: {what} at byte {at}")]
    Syntax {
        /// Where, counted from the beginning of the statement.
        at: usize,
        /// What was expected, or is wrong.
        what: &'static str,
    },
    /// It is beyond what we carry out: 422.
    #[error("SQL: {0} is not supported")]
    Unsupported(&'static str),
    /// It is beyond a bound: 422.
    #[error("SQL: too many {0}")]
    TooMany(&'static str),
}

impl SearchError {
    /// The status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Body(_) | Self::Syntax { .. } => 400,
            Self::Unsupported(_) | Self::TooMany(_) => 422,
        }
    }
}

/// How far a place of the scope reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Traversal {
    /// The members of the collection.
    Shallow,
    /// Everything below.
    Deep,
    /// All folders below, no items.
    Hierarchical,
}

/// One place of the scope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// How far.
    pub traversal: Traversal,
    /// A URI or path as written; empty means the request's own. See [`super::request::uri_path`].
    pub uri: String,
}

/// What is wanted of each resource found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Select {
    /// `*`.
    All,
    /// These property URIs, as written.
    These(Vec<String>),
}

/// A property to sort by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// Its URI.
    pub property: String,
    /// The largest first.
    pub descending: bool,
}

/// One search.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// What to tell of each resource.
    pub select: Select,
    /// Where to look; never empty.
    pub scopes: Vec<Scope>,
    /// Which resources; all if none.
    pub condition: Option<Condition>,
    /// In which order.
    pub order: Vec<Order>,
}

impl Search {
    /// Reads the body of a SEARCH.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn parse_body(body: &[u8]) -> Result<Self, SearchError> {
        let root = xml::parse(body)?;
        if !root.is(DAV, "searchrequest") {
            return Err(DavError::Missing("searchrequest").into());
        }
        if root.child(DAV, "basicsearch").is_some() {
            return Err(SearchError::Unsupported("basicsearch"));
        }
        let sql = root.child(DAV, "sql").ok_or(DavError::Missing("sql"))?;
        Self::parse(&sql.text)
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn parse(sql: &str) -> Result<Self, SearchError> {
        parser::parse(sql)
    }

    /// Whether a resource is one of those asked for, given its properties by URI; [`Value::Null`] for one it has not.
    pub fn matches(&self, property: impl Fn(&str) -> Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(&property) == Some(true))
    }

    /// What a resource is sorted by: to be asked once for each row, for [`Search::compare`].
    pub fn sort_key(&self, property: impl Fn(&str) -> Value) -> Vec<Value> {
        self.order.iter().map(|order| property(&order.property)).collect()
    }

    /// The order of two rows by their keys. What has no value comes first, or last if the order is descending.
    pub fn compare(&self, a: &[Value], b: &[Value]) -> Ordering {
        let pairs = self.order.iter().zip(a.iter().zip(b));
        pairs.fold(Ordering::Equal, |decided, (order, (a, b))| {
            decided.then_with(|| if order.descending { b.order(a) } else { a.order(b) })
        })
    }
}

/// A statement that reads as the same search.
impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.select {
            Select::All => f.write_str("SELECT *")?,
            Select::These(uris) => {
                for (n, uri) in uris.iter().enumerate() {
                    write!(f, "{}\"{}\"", if n == 0 { "SELECT " } else { ", " }, uri.replace('"', "\"\""))?;
                }
            }
        }
        for (n, Scope { traversal, uri }) in self.scopes.iter().enumerate() {
            let word = match traversal {
                Traversal::Shallow => "SHALLOW",
                Traversal::Deep => "DEEP",
                Traversal::Hierarchical => "HIERARCHICAL",
            };
            let before = if n == 0 { " FROM SCOPE(" } else { ", " };
            write!(f, "{before}'{word} TRAVERSAL OF \"{}\"'", uri.replace('\'', "''"))?;
        }
        f.write_str(")")?;
        if let Some(condition) = &self.condition {
            write!(f, " WHERE {condition}")?;
        }
        for (n, Order { property, descending }) in self.order.iter().enumerate() {
            let before = if n == 0 { " ORDER BY " } else { ", " };
            let after = if *descending { " DESC" } else { "" };
            write!(f, "{before}\"{}\"{after}", property.replace('"', "\"\""))?;
        }
        Ok(())
    }
}

/// Splits a property URI into namespace and local name: behind the last `:`, `/` or `#`, as all of Exchange's
/// namespaces end in one of them. `None` if there is no local name.
pub fn property_name(uri: &str) -> Option<PropertyName> {
    let at = uri.rfind([':', '/', '#'])? + 1;
    let (ns, name) = uri.split_at(at);
    // It is written as an element's name.
    let fits = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    fits.then(|| PropertyName::new(ns, name))
}

#[cfg(test)]
mod tests;
