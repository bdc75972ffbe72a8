//! From the words of a statement to a [`Search`].
//!
//! What stands on the left of a comparison is a property, what stands on the right a literal, whichever quotes they have:
//! clients of the time used both for both.

use super::condition::{Comparison, Condition, Operand};
use super::lexer::{Token, What, tokens};
use super::value::{Type, Value};
use super::{
    CONDITIONS_MAX, DEPTH_MAX, Order, SCOPES_MAX, SELECTED_MAX, SQL_BYTES_MAX, Scope, Search, SearchError,
    Select, Traversal,
};

type Result<T> = std::result::Result<T, SearchError>;

pub(super) fn parse(sql: &str) -> Result<Search> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(SearchError::TooMany("bytes"));
    }
    let tokens = tokens(sql)?;
    let mut parser = Parser { tokens: &tokens, end: sql.len(), conditions: 0 };
    let search = parser.statement()?;
    parser.symbol(";");
    match parser.tokens.first() {
        None => Ok(search),
        Some(token) if token.is_word("GROUP") => Err(SearchError::Unsupported("GROUP BY")),
        Some(_) => parser.fail("the end of the statement"),
    }
}

struct Parser<'a> {
    /// What is still to be read.
    tokens: &'a [Token],
    /// Bytes of the statement.
    end: usize,
    conditions: usize,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, what: &'static str) -> Result<T> {
        let at = self.tokens.first().map_or(self.end, |token| token.at);
        Err(SearchError::Syntax { at, what })
    }

    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn take(&mut self, test: impl FnOnce(&Token) -> bool) -> bool {
        let there = self.tokens.first().is_some_and(test);
        if there {
            self.tokens = &self.tokens[1..];
        }
        there
    }

    fn word(&mut self, word: &str) -> bool {
        self.take(|token| token.is_word(word))
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.take(|token| token.is_symbol(symbol))
    }

    fn expect_word(&mut self, word: &'static str) -> Result<()> {
        if self.word(word) { Ok(()) } else { self.fail(word) }
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<()> {
        if self.symbol(symbol) { Ok(()) } else { self.fail(symbol) }
    }

    fn quoted(&mut self, what: &'static str) -> Result<&'a str> {
        match self.tokens.first().map(|token| &token.what) {
            Some(What::Quoted(text)) => {
                self.tokens = &self.tokens[1..];
                Ok(text)
            }
            _ => self.fail(what),
        }
    }

    fn statement(&mut self) -> Result<Search> {
        self.expect_word("SELECT")?;
        let select = self.select()?;
        self.expect_word("FROM")?;
        let scopes = self.from()?;
        let condition = if self.word("WHERE") { Some(self.any_of(0)?) } else { None };
        let mut order = Vec::new();
        if self.word("ORDER") {
            self.expect_word("BY")?;
            loop {
                let property = self.property()?.property;
                let descending = self.word("DESC");
                if !descending {
                    self.word("ASC");
                }
                order.push(Order { property, descending });
                if order.len() > SCOPES_MAX {
                    return Err(SearchError::TooMany("properties to sort by"));
                }
                if !self.symbol(",") {
                    break;
                }
            }
        }
        Ok(Search { select, scopes, condition, order })
    }

    fn select(&mut self) -> Result<Select> {
        if self.symbol("*") {
            return Ok(Select::All);
        }
        let mut uris = Vec::new();
        loop {
            uris.push(self.property()?.property);
            if uris.len() > SELECTED_MAX {
                return Err(SearchError::TooMany("properties"));
            }
            if !self.symbol(",") {
                return Ok(Select::These(uris));
            }
        }
    }

    /// A quoted property URI, or one in a CAST.
    fn property(&mut self) -> Result<Operand> {
        let cast = self.word("CAST");
        if cast {
            self.expect_symbol("(")?;
        }
        let uri = self.quoted("a property in quotes")?;
        if uri.trim().is_empty() || uri.contains(char::is_control) {
            return self.fail("a property in quotes before this");
        }
        let property = uri.trim().to_owned();
        let cast = if cast { Some(self.cast_type()?) } else { None };
        Ok(Operand { property, cast })
    }

    /// `AS 'type')`.
    fn cast_type(&mut self) -> Result<Type> {
        self.expect_word("AS")?;
        let Some(What::Quoted(name) | What::Word(name)) = self.next().map(|token| &token.what) else {
            return self.fail("a type");
        };
        let found = Type::parse(name).ok_or(SearchError::Unsupported("this type"))?;
        self.expect_symbol(")")?;
        Ok(found)
    }

    fn from(&mut self) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        if !self.word("SCOPE") {
            // Without SCOPE the traversal is shallow (Exchange SDK, Searching by Using the SELECT Statement).
            let uri = self.quoted("SCOPE")?.trim().to_owned();
            return Ok(vec![Scope { traversal: Traversal::Shallow, uri }]);
        }
        self.expect_symbol("(")?;
        if self.symbol(")") {
            return Ok(vec![Scope { traversal: Traversal::Deep, uri: String::new() }]);
        }
        loop {
            let at = self.tokens.first().map_or(self.end, |token| token.at);
            places(self.quoted("a traversal in quotes")?, at, &mut scopes)?;
            if !self.symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(scopes)
    }

    fn any_of(&mut self, depth: usize) -> Result<Condition> {
        let mut left = self.all_of(depth)?;
        while self.word("OR") {
            self.count()?;
            left = Condition::Or(Box::new(left), Box::new(self.all_of(depth)?));
        }
        Ok(left)
    }

    fn all_of(&mut self, depth: usize) -> Result<Condition> {
        let mut left = self.one(depth)?;
        while self.word("AND") {
            self.count()?;
            left = Condition::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn count(&mut self) -> Result<()> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX { Err(SearchError::TooMany("conditions")) } else { Ok(()) }
    }

    fn one(&mut self, depth: usize) -> Result<Condition> {
        if depth == DEPTH_MAX {
            return Err(SearchError::TooMany("parentheses"));
        }
        self.count()?;
        if self.word("NOT") {
            return Ok(Condition::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.symbol("(") {
            let inside = self.any_of(depth + 1)?;
            self.expect_symbol(")")?;
            return Ok(inside);
        }
        if self.word("CONTAINS") || self.word("FREETEXT") {
            return self.contains();
        }
        let left = self.property()?;
        if self.word("IS") {
            let not = self.word("NOT");
            self.expect_word("NULL")?;
            return Ok(negated(Condition::IsNull(left), not));
        }
        let not = self.word("NOT");
        if self.word("LIKE") {
            let pattern = self.quoted("a pattern in quotes")?.to_owned();
            return Ok(negated(Condition::Like(left, pattern), not));
        }
        if not {
            return self.fail("LIKE");
        }
        let how = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((_, how)) = how.into_iter().find(|(symbol, _)| self.symbol(symbol)) else {
            return self.fail("a comparison");
        };
        let literal = self.literal()?;
        // A client that writes "= NULL" means IS NULL.
        match (how, literal) {
            (Comparison::Equal, Value::Null) => Ok(Condition::IsNull(left)),
            (Comparison::NotEqual, Value::Null) => Ok(negated(Condition::IsNull(left), true)),
            (how, literal) => Ok(Condition::Compare(left, how, literal)),
        }
    }

    /// `CONTAINS("property", 'words')`, or without a property: the text of the body.
    fn contains(&mut self) -> Result<Condition> {
        self.expect_symbol("(")?;
        let cast = self.tokens.first().is_some_and(|token| token.is_word("CAST"));
        let two = matches!(self.tokens, [_, comma, ..] if comma.is_symbol(","));
        let operand = if self.symbol("*") || !(cast || two) {
            Operand { property: "urn:schemas:httpmail:textdescription".to_owned(), cast: None }
        } else {
            self.property()?
        };
        if cast || two {
            self.expect_symbol(",")?;
        }
        let words = self.quoted("words in quotes")?.trim().trim_matches('"').to_owned();
        self.expect_symbol(")")?;
        Ok(Condition::Contains(operand, words))
    }

    fn literal(&mut self) -> Result<Value> {
        let Some(token) = self.next() else { return self.fail("a value") };
        match &token.what {
            What::Quoted(text) => Ok(Value::Text(text.clone())),
            What::Word(word) if word.eq_ignore_ascii_case("CAST") => {
                self.expect_symbol("(")?;
                let text = match self.next().map(|token| &token.what) {
                    Some(What::Quoted(text) | What::Word(text)) => text.clone(),
                    _ => return self.fail("a value"),
                };
                let to = self.cast_type()?;
                match Value::Text(text).cast(to) {
                    Value::Null => Err(SearchError::Syntax { at: token.at, what: "a value of this type" }),
                    value => Ok(value),
                }
            }
            What::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                "null" => Ok(Value::Null),
                number => match (number.parse(), number.parse::<f64>()) {
                    (Ok(number), _) => Ok(Value::Int(number)),
                    (_, Ok(number)) if number.is_finite() => Ok(Value::Float(number)),
                    _ => Err(SearchError::Syntax { at: token.at, what: "a value" }),
                },
            },
            What::Symbol(_) => Err(SearchError::Syntax { at: token.at, what: "a value" }),
        }
    }
}

fn negated(condition: Condition, not: bool) -> Condition {
    if not { Condition::Not(Box::new(condition)) } else { condition }
}

/// What is inside the quotes of SCOPE: `SHALLOW TRAVERSAL OF "url"`, with one URL or several in parentheses; or a URL
/// alone, whose traversal is deep.
fn places(text: &str, at: usize, scopes: &mut Vec<Scope>) -> Result<()> {
    let mut words = text.trim_start().splitn(2, char::is_whitespace);
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    let (traversal, list) = match first.as_str() {
        "SHALLOW" | "DEEP" | "HIERARCHICAL" => {
            let mut rest = words.next().unwrap_or_default();
            for word in ["TRAVERSAL", "OF"] {
                rest = rest.trim_start();
                let found = rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
                if !found {
                    return Err(SearchError::Syntax { at, what: "TRAVERSAL OF" });
                }
                rest = &rest[word.len()..];
            }
            let traversal = match first.as_str() {
                "SHALLOW" => Traversal::Shallow,
                "DEEP" => Traversal::Deep,
                _ => Traversal::Hierarchical,
            };
            (traversal, rest)
        }
        _ => (Traversal::Deep, text),
    };
    let list = list.trim();
    let list = list.strip_prefix('(').and_then(|list| list.strip_suffix(')')).unwrap_or(list);
    for uri in list.split(',') {
        let uri = uri.trim();
        let bare = ['"', '\'']
            .into_iter()
            .find_map(|quote| uri.strip_prefix(quote).and_then(|uri| uri.strip_suffix(quote)))
            .unwrap_or(uri);
        if bare.contains(['"', '\'']) || bare.contains(char::is_control) {
            return Err(SearchError::Syntax { at, what: "a URL in quotes" });
        }
        if scopes.len() == SCOPES_MAX {
            return Err(SearchError::TooMany("places"));
        }
        scopes.push(Scope { traversal, uri: bare.trim().to_owned() });
    }
    Ok(())
}
