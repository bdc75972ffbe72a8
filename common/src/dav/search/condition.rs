//! The WHERE of a SEARCH as a tree, and how it is decided with SQL's three truth values.

use std::cmp::Ordering;
use std::fmt;

use super::value::{Type, Value, folded};

/// How two values are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=` or `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// The property on the left of a comparison, by URI, read as a type if CAST says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operand {
    /// Its URI as written.
    pub property: String,
    /// From `CAST(… AS …)`.
    pub cast: Option<Type>,
}

/// A condition on a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// One of them.
    Or(Box<Condition>, Box<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A comparison with a literal.
    Compare(Operand, Comparison, Value),
    /// `LIKE`: `%` stands for any characters. Nothing else is special.
    Like(Operand, String),
    /// `CONTAINS` and `FREETEXT`: the words are somewhere in the text.
    Contains(Operand, String),
    /// `IS NULL`.
    IsNull(Operand),
}

impl Condition {
    /// Decides; `None` is SQL's UNKNOWN, which finds nothing and whose NOT is UNKNOWN too.
    pub(super) fn holds(&self, property: &impl Fn(&str) -> Value) -> Option<bool> {
        let value = |operand: &Operand| {
            let value = property(&operand.property);
            match operand.cast {
                Some(to) => value.cast(to),
                None => value,
            }
        };
        match self {
            Self::And(a, b) => match (a.holds(property), b) {
                (Some(false), _) => Some(false),
                (known, b) => match (known, b.holds(property)) {
                    (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                },
            },
            Self::Or(a, b) => match (a.holds(property), b) {
                (Some(true), _) => Some(true),
                (known, b) => match (known, b.holds(property)) {
                    (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                },
            },
            Self::Not(inner) => inner.holds(property).map(|holds| !holds),
            Self::Compare(operand, how, literal) => match value(operand) {
                Value::Texts(texts) => {
                    let one = |how: Comparison| {
                        let literal = literal.clone().cast(Type::Text);
                        let mut texts = texts.iter().map(|text| Value::Text(text.clone()).compare(&literal));
                        texts.any(|order| order.is_some_and(|order| how.holds(order)))
                    };
                    // "Not equal" of a list means that none of its texts is equal.
                    Some(if *how == Comparison::NotEqual { !one(Comparison::Equal) } else { one(*how) })
                }
                there => there.compare(literal).map(|order| how.holds(order)),
            },
            Self::Like(operand, pattern) => texts(&value(operand), |text| like(text, pattern)),
            Self::Contains(operand, words) => texts(&value(operand), |text| {
                let text: String = folded(text).collect();
                let words: String = folded(words).collect();
                text.contains(words.trim())
            }),
            Self::IsNull(operand) => Some(value(operand) == Value::Null),
        }
    }

    /// The URIs of all properties that the condition looks at, with repetitions.
    pub fn properties(&self) -> Vec<&str> {
        match self {
            Self::And(a, b) | Self::Or(a, b) => {
                let mut found = a.properties();
                found.extend(b.properties());
                found
            }
            Self::Not(inner) => inner.properties(),
            Self::Compare(operand, ..)
            | Self::Like(operand, _)
            | Self::Contains(operand, _)
            | Self::IsNull(operand) => vec![&operand.property],
        }
    }
}

fn texts(value: &Value, test: impl Fn(&str) -> bool) -> Option<bool> {
    match value {
        Value::Null => None,
        Value::Int(number) => Some(test(&number.to_string())),
        value => Some(value.texts().iter().any(|text| test(text))),
    }
}

/// Whether the pattern, in which `%` stands for any characters, is the whole text. Linear but for repeats in the pattern.
fn like(text: &str, pattern: &str) -> bool {
    let text: String = folded(text).collect();
    let pattern: String = folded(pattern).collect();
    let mut parts = pattern.split('%');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// SQL with every pair in parentheses.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        match self {
            Self::And(a, b) => write!(f, "({a} AND {b})"),
            Self::Or(a, b) => write!(f, "({a} OR {b})"),
            Self::Not(inner) => write!(f, "NOT ({inner})"),
            Self::Compare(operand, how, literal) => {
                write!(f, "{operand} {} ", how.text())?;
                match literal {
                    Value::Null | Value::Texts(_) => f.write_str("NULL"),
                    Value::Bool(flag) => write!(f, "{flag}"),
                    Value::Int(number) => write!(f, "{number}"),
                    Value::Float(number) => write!(f, "CAST('{number}' AS 'float')"),
                    Value::Date(millis) => {
                        let at = jiff::Timestamp::from_millisecond(*millis).unwrap_or_default();
                        write!(f, "CAST('{at}' AS 'dateTime.tz')")
                    }
                    Value::Text(text) => f.write_str(&quoted(text)),
                }
            }
            Self::Like(operand, pattern) => write!(f, "{operand} LIKE {}", quoted(pattern)),
            Self::Contains(operand, words) => write!(f, "CONTAINS({operand}, {})", quoted(words)),
            Self::IsNull(operand) => write!(f, "{operand} IS NULL"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let property = self.property.replace('"', "\"\"");
        match self.cast {
            Some(to) => write!(f, "CAST(\"{property}\" AS '{}')", to.name()),
            None => write!(f, "\"{property}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn percent_stands_for_anything() {
        for (text, pattern, expected) in [
            ("Hello", "hello", true),
            ("Hello", "hell", false),
            ("Hello", "HELL%", true),
            ("Hello", "%lo", true),
            ("Hello", "%ll%", true),
            ("Hello", "h%l%o", true),
            ("Hello", "h%lo%lo", false),
            ("lo", "%lo%lo", false),
            ("", "%", true),
            ("", "", true),
            ("a_b", "a_b", true),
            ("axb", "a_b", false),
            ("Straße", "%ß%", true),
        ] {
            assert_eq!(like(text, pattern), expected, "{text} LIKE {pattern}");
        }
    }
}
