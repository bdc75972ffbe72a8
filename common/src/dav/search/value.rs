//! Values of properties in a SEARCH, their types as CAST names them, and how two of them compare.

use std::cmp::Ordering;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The value of a property, or of a literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// There is none.
    Null,
    /// `boolean`.
    Bool(bool),
    /// All whole numbers.
    Int(i64),
    /// `float`, `r4`, `r8`, `fixed.14.4`.
    Float(f64),
    /// Milliseconds since 1970: `dateTime` and `dateTime.tz`.
    Date(i64),
    /// `string`, `uuid`, `bin.base64`, `bin.hex`.
    Text(String),
    /// `mv.string`: equal to a text if one of these is.
    Texts(Vec<String>),
}

/// A type as CAST names it (Exchange SDK, Property Data Types).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// `boolean`.
    Bool,
    /// `int`, `i1` to `i8`, `ui1` to `ui8`.
    Int,
    /// `float`, `r4`, `r8`, `number`, `fixed.14.4`.
    Float,
    /// `dateTime`, `dateTime.tz`, `date`.
    Date,
    /// `string`, `mv.string`, and everything that is compared as it is written.
    Text,
}

impl Type {
    /// Reads the name of a type.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "boolean" => Self::Bool,
            "int" | "i1" | "i2" | "i4" | "i8" | "ui1" | "ui2" | "ui4" | "ui8" => Self::Int,
            "float" | "r4" | "r8" | "number" | "fixed.14.4" => Self::Float,
            "datetime" | "datetime.tz" | "date" => Self::Date,
            "string" | "mv.string" | "uuid" | "uri" | "bin.base64" | "bin.hex" => Self::Text,
            _ => return None,
        })
    }

    /// A name that reads as this type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int => "int",
            Self::Float => "float",
            Self::Date => "dateTime.tz",
            Self::Text => "string",
        }
    }
}

impl Value {
    /// The value as this type; [`Value::Null`] if it cannot be.
    #[must_use]
    pub fn cast(self, to: Type) -> Self {
        let converted = match (&self, to) {
            (Self::Null | Self::Texts(_), _)
            | (Self::Bool(_), Type::Bool)
            | (Self::Int(_), Type::Int)
            | (Self::Float(_), Type::Float)
            | (Self::Date(_), Type::Date)
            | (Self::Text(_), Type::Text) => Some(self),
            (Self::Text(text), Type::Bool) => boolean(text).map(Self::Bool),
            (Self::Text(text), Type::Int) => text.trim().parse().ok().map(Self::Int),
            (Self::Text(text), Type::Float) => float(text).map(Self::Float),
            (Self::Text(text), Type::Date) => date(text).map(Self::Date),
            (Self::Int(number), Type::Bool) => Some(Self::Bool(*number != 0)),
            (Self::Bool(flag), Type::Int) => Some(Self::Int((*flag).into())),
            (Self::Int(number), Type::Float) => Some(Self::Float(real(*number))),
            (Self::Int(number), Type::Text) => Some(Self::Text(number.to_string())),
            (Self::Bool(flag), Type::Text) => Some(Self::Text(u8::from(*flag).to_string())),
            _ => None,
        };
        converted.unwrap_or(Self::Null)
    }

    const fn kind(&self) -> Option<Type> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Date(_) => Type::Date,
            Self::Text(_) | Self::Texts(_) => Type::Text,
        })
    }

    /// How this value, of a property, compares with `other`, a literal: the literal is read as the property's type.
    /// Texts are compared without regard to case. `None` if they cannot be compared.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        let converted;
        let other = match (self, other) {
            (Self::Int(number), Self::Float(_)) => return Self::Float(real(*number)).compare(other),
            _ if self.kind() == other.kind() => other,
            (_, other) => {
                converted = other.clone().cast(self.kind()?);
                &converted
            }
        };
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) | (Self::Date(a), Self::Date(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(folded(a).cmp(folded(b))),
            _ => None,
        }
    }

    /// The texts of this value: what LIKE and CONTAINS look at.
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::Texts(texts) => texts,
            _ => &[],
        }
    }

    /// A total order for sorting: nothing, then by type, then by value.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Date(_) => 3,
            Self::Text(_) | Self::Texts(_) => 4,
        };
        rank(self).cmp(&rank(other)).then_with(|| match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&real(*b)),
            (Self::Int(a), Self::Float(b)) => real(*a).total_cmp(b),
            (Self::Text(_) | Self::Texts(_), _) => {
                let first = |value: &Self| value.texts().first().map(|text| folded(text).collect::<String>());
                first(self).cmp(&first(other))
            }
            _ => self.compare(other).unwrap_or(Ordering::Equal),
        })
    }
}

/// Characters in lower case.
pub(super) fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn float(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

#[expect(clippy::cast_precision_loss, reason = "compared with what was a float to begin with")]
const fn real(number: i64) -> f64 {
    number as f64
}

/// ISO 8601 as clients wrote it: `2005-01-01T00:00:00Z`, with or without fractions and offset, with a space for the T,
/// the date alone. Without an offset it is UTC.
pub(super) fn date(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() > 40 {
        return None;
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
