//! The words of a search, as people type them and as Exchange's clients write them in its query language (KQL): words,
//! `"phrases"`, `from:ann`, `subject:lunch`, `isread:false`.
//!
//! All must fit. `AND` says nothing more, and `OR` is understood only where the same words are looked for in several places,
//! which is how clients write "anywhere". Not here: other properties (`kind:`, `size:` …), which are left out of the search.

use crate::dav::find::{Field, TERMS_MAX, Term};

/// What the words ask for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FreeText {
    /// All must fit.
    pub terms: Vec<Term>,
    /// Only read, or only unread messages.
    pub read: Option<bool>,
}

/// Alternatives, negations, or more terms than are looked for at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the query is too complex")]
pub struct TooComplex;

/// A piece of a query: where, and what.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Piece {
    property: String,
    text: String,
    quoted: bool,
}

impl FreeText {
    /// Reads a query.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn read(query: &str) -> Result<Self, TooComplex> {
        let mut read = Self::default();
        let pieces = pieces(query);
        let mut at = 0;
        while at < pieces.len() {
            let mut alternatives = vec![&pieces[at]];
            while pieces.get(at + 1).is_some_and(|piece| piece.is_word("OR")) {
                alternatives.push(pieces.get(at + 2).ok_or(TooComplex)?);
                at += 2;
            }
            at += 1;
            read.take(&alternatives)?;
        }
        if read.terms.len() > TERMS_MAX { Err(TooComplex) } else { Ok(read) }
    }

    fn take(&mut self, alternatives: &[&Piece]) -> Result<(), TooComplex> {
        let first = alternatives[0];
        if first.is_word("AND") {
            return Ok(());
        }
        if first.is_word("NOT") || alternatives.iter().any(|it| !it.text.eq_ignore_ascii_case(&first.text)) {
            return Err(TooComplex);
        }
        if let [only] = alternatives
            && only.property == "isread"
        {
            self.read = Some(only.text.eq_ignore_ascii_case("true") || only.text == "1");
            return Ok(());
        }
        let field = match alternatives {
            [only] => only.field(),
            _ => Some(Field::Any),
        };
        let text = first.text.trim_end_matches('*');
        self.terms.extend(field.and_then(|field| Term::new(field, text)));
        Ok(())
    }
}

impl Piece {
    fn is_word(&self, word: &str) -> bool {
        !self.quoted && self.property.is_empty() && self.text == word
    }

    /// Where it is looked for; `None` = nowhere that we know.
    fn field(&self) -> Option<Field> {
        Some(match self.property.as_str() {
            "" | "content" => Field::Any,
            "subject" => Field::Subject,
            "from" | "sender" => Field::From,
            "to" => Field::To,
            "cc" | "bcc" => Field::Cc,
            "participants" | "recipients" => Field::Participants,
            "body" => Field::Body,
            _ => return None,
        })
    }
}

/// Properties that are known, and those that are left out; any other word before a colon is a word.
const PROPERTIES: [&str; 19] = [
    "subject",
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "participants",
    "recipients",
    "body",
    "content",
    "isread",
    "kind",
    "size",
    "received",
    "sent",
    "hasattachment",
    "hasattachments",
    "importance",
    "category",
];

fn pieces(query: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = query.trim_start_matches(is_between);
    // One more than can be looked for says already that there are too many.
    while !rest.is_empty() && pieces.len() <= 4 * TERMS_MAX {
        let mut property = String::new();
        let name = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if let Some(value) = rest[name.len()..].strip_prefix(':')
            && PROPERTIES.contains(&name.to_ascii_lowercase().as_str())
        {
            property = name.to_ascii_lowercase();
            rest = value.trim_start_matches(['(', '=']);
        }
        let (text, quoted, after) = if let Some(phrase) = rest.strip_prefix('"') {
            let end = phrase.find('"').unwrap_or(phrase.len());
            (&phrase[..end], true, phrase[end..].strip_prefix('"').unwrap_or_default())
        } else {
            let end = rest.find(is_between).unwrap_or(rest.len());
            (&rest[..end], false, &rest[end..])
        };
        if !text.trim().is_empty() {
            pieces.push(Piece { property, text: text.trim().to_owned(), quoted });
        }
        rest = after.trim_start_matches(is_between);
    }
    pieces
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(query: &str, terms: &[(Field, &str)], is_read: Option<bool>) {
        let terms = terms.iter().map(|(field, text)| Term::new(*field, text).unwrap()).collect();
        assert_eq!(FreeText::read(query), Ok(FreeText { terms, read: is_read }), "{query}");
    }

    #[test]
    fn words_phrases_and_properties() {
        check("lunch noon", &[(Field::Any, "lunch"), (Field::Any, "noon")], None);
        check("\"at noon\" AND lunch*", &[(Field::Any, "at noon"), (Field::Any, "lunch")], None);
        check("from:ann subject:\"the lunch\"", &[(Field::From, "ann"), (Field::Subject, "the lunch")], None);
        check("isread:false to:bob", &[(Field::To, "bob")], Some(false));
        check("kind:email lunch size:>5", &[(Field::Any, "lunch")], None);
        check(
            "re: 10:30 http://x",
            &[(Field::Any, "re:"), (Field::Any, "10:30"), (Field::Any, "http://x")],
            None,
        );
        check("", &[], None);
        check("  \"\" ", &[], None);
    }

    #[test]
    fn the_same_words_in_several_places_are_anywhere() {
        check("(subject:\"x y\" OR from:\"x y\" OR body:\"x y\")", &[(Field::Any, "x y")], None);
        for query in ["a OR b", "from:a OR from:b", "NOT a", "a OR"] {
            assert_eq!(FreeText::read(query), Err(TooComplex), "{query}");
        }
        assert_eq!(FreeText::read(&"w ".repeat(TERMS_MAX + 1)), Err(TooComplex));
    }

    proptest! {
        #[test]
        fn any_text_is_a_query_or_too_complex(query in ".{0,200}") {
            let _ = FreeText::read(&query);
        }
    }
}
