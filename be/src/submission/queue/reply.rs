//! What a mail host said about a recipient or a whole transaction, kept for the queue's list and for the
//! report to the sender (RFC 5321 4.2 SMTP Replies, RFC 3463 enhanced status codes).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of a reply's text that are kept.
const TEXT_CHARS_MAX: usize = 400;

/// An answer: the host's own, or ours about the host when there was none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reply {
    /// Three digits; 0 when the host did not answer.
    pub code: u16,
    /// One line without control characters; begins with the enhanced status code if the host gave one.
    pub text: String,
}

impl Reply {
    /// A host's answer. Its text is cut and cleaned: it goes into lists and reports.
    pub fn new(code: u16, text: &str) -> Self {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX);
        Self { code, text: clean.collect::<String>().trim().to_owned() }
    }

    /// Why there is no answer.
    pub fn none(text: &str) -> Self {
        Self::new(0, text)
    }

    /// The enhanced status code at the beginning of the text, if it agrees with the reply code
    /// (RFC 2034 4).
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.text.split(' ').next()?;
        let mut parts = word.split('.');
        let class = parts.next()?.parse::<u16>().ok()?;
        let number = |part: Option<&str>| {
            part.is_some_and(|part| {
                (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        let form_ok = number(parts.next()) && number(parts.next()) && parts.next().is_none();
        (form_ok && matches!(class, 2 | 4 | 5) && (self.code == 0 || class == self.code / 100))
            .then_some(word)
    }

    /// The `Status` of a report's recipient (RFC 3464 2.3.4): what the host said, or the general code of
    /// its class. A recipient given up on after temporary failures is 5.4.7, delivery time expired.
    pub fn status(&self, given_up: bool) -> &str {
        match self.code / 100 {
            5 => self.enhanced().unwrap_or("5.0.0"),
            2 => self.enhanced().unwrap_or("2.0.0"),
            _ if given_up => "5.4.7",
            4 => self.enhanced().unwrap_or("4.0.0"),
            // No answer from the host (RFC 3463 3.5).
            _ => self.enhanced().unwrap_or("4.4.1"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            0 => f.write_str(&self.text),
            code => write!(f, "{code} {}", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enhanced_code_must_agree_with_the_reply() {
        let enhanced = |code, text| Reply::new(code, text).enhanced().map(str::to_owned);
        assert_eq!(enhanced(550, "5.1.1 no such user").as_deref(), Some("5.1.1"));
        assert_eq!(enhanced(550, "4.1.1 no such user"), None);
        assert_eq!(enhanced(550, "5.1 no such user"), None);
        assert_eq!(enhanced(550, "5.1.1234 no"), None);
        assert_eq!(enhanced(250, "2.0.0").as_deref(), Some("2.0.0"));
        assert_eq!(enhanced(451, ""), None);
    }

    #[test]
    fn a_status_is_never_missing() {
        assert_eq!(Reply::new(550, "no").status(false), "5.0.0");
        assert_eq!(Reply::new(452, "4.2.2 full").status(false), "4.2.2");
        assert_eq!(Reply::new(452, "4.2.2 full").status(true), "5.4.7");
        assert_eq!(Reply::none("connection refused").status(false), "4.4.1");
    }

    #[test]
    fn text_is_one_bounded_line() {
        let reply = Reply::new(550, &format!("5.1.1 a\r\nb\u{7}{}", "x".repeat(5000)));
        assert!(reply.text.starts_with("5.1.1 a  b x"));
        assert_eq!(reply.text.chars().count(), TEXT_CHARS_MAX);
    }
}
