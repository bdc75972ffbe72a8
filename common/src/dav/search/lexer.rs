//! The words of a SEARCH statement.

use super::SearchError;

/// One word with the byte where it begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum What {
    /// A keyword, a bare name or a number, as written.
    Word(String),
    /// A text in single or double quotes, without them; a doubled quote is one.
    Quoted(String),
    /// `,` `(` `)` `*` `=` `<` `>` `!=` `<>` `<=` `>=`
    Symbol(&'static str),
}

impl Token {
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(&self.what, What::Word(text) if text.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(&self.what, What::Symbol(text) if *text == symbol)
    }
}

/// Longest symbols first.
const SYMBOLS: [&str; 12] = ["!=", "<>", "<=", ">=", "=", "<", ">", ",", "(", ")", "*", ";"];

pub(super) fn tokens(sql: &str) -> Result<Vec<Token>, SearchError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = sql[at..].chars().next() {
        let rest = &sql[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if matches!(c, '"' | '\'') {
            let (text, len) =
                quoted(rest, c).ok_or(SearchError::Syntax { at, what: "a quote without its end" })?;
            found.push(Token { at, what: What::Quoted(text) });
            at += len;
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            found.push(Token { at, what: What::Symbol(symbol) });
            at += symbol.len();
        } else {
            let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '#' | '+');
            let len = rest.find(|c| !word(c)).unwrap_or(rest.len());
            if len == 0 {
                return Err(SearchError::Syntax { at, what: "a character that does not belong here" });
            }
            found.push(Token { at, what: What::Word(rest[..len].to_owned()) });
            at += len;
        }
    }
    Ok(found)
}

/// The text, and the bytes that it took with its quotes.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut at = 1;
    loop {
        let inside = &rest[at..];
        let end = inside.find(quote)?;
        text.push_str(&inside[..end]);
        at += end + 1;
        if !rest[at..].starts_with(quote) {
            return Some((text, at));
        }
        text.push(quote);
        at += 1;
    }
}
