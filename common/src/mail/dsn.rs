//! Delivery status notifications (RFC 3464): the bounce that a sender gets, and the warning that mail is late.
//!
//! A multipart/report (RFC 6522) of three parts: a text for people, message/delivery-status for programs, and the
//! message or its header. It is sent with the null sender and marked `Auto-Submitted`, so nothing answers it.
//!
//! Not here: whether one is due (never for a null sender, never for what is a notification itself), sending it.

use std::fmt::Write as _;

use super::address::Address;
use super::fields::split;
use super::trace::date;

/// Bytes of a message that is sent back whole; of a larger one only the header goes.
pub const RETURNED_BYTES_MAX: usize = 256 * 1024;
/// Characters of a diagnostic text that are kept.
const DIAGNOSTIC_CHARS_MAX: usize = 800;

/// What is reported of a recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It is given up.
    Failed,
    /// It is tried on.
    Delayed {
        /// Until when, Unix seconds.
        until: i64,
    },
}

/// One recipient of the report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient {
    /// To whom.
    pub address: Address,
    /// What became of it.
    pub action: Action,
    /// The enhanced status code (RFC 3463), `5.1.1`. One that is none becomes `5.0.0` or `4.0.0`.
    pub status: String,
    /// The other server's answer as it came, or empty.
    pub diagnostic: String,
    /// The host that gave it, or empty.
    pub remote: String,
    /// When it was tried last, Unix seconds.
    pub tried: i64,
}

/// What goes into a notification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report<'a> {
    /// Who gets it: the envelope's sender of the message.
    pub to: &'a Address,
    /// This host.
    pub host: &'a str,
    /// When the message came in, Unix seconds.
    pub arrived: i64,
    /// Now, Unix seconds.
    pub date: i64,
    /// At least one.
    pub recipients: &'a [Recipient],
    /// The message.
    pub message: &'a [u8],
    /// A random word of letters and digits: the id of the notification and what divides its parts.
    pub unique: &'a str,
}

/// Writes the notification.
pub fn compose(report: &Report<'_>) -> Vec<u8> {
    let host = word(report.host);
    let late = report.recipients.iter().all(|recipient| matches!(recipient.action, Action::Delayed { .. }));
    let mut boundary: String = report.unique.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    boundary.insert_str(0, "dsn-");
    while find(report.message, boundary.as_bytes()) && boundary.len() < 70 {
        boundary.push('x');
    }
    let subject = if late { "Mail is late" } else { "Mail could not be delivered" };
    let mut out = String::new();
    let _ = write!(
        out,
        "From: Mail system <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\n\
         Message-ID: <{boundary}@{host}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        to = report.to,
        date = date(report.date),
    );
    people(&mut out, report, late);
    let _ = write!(
        out,
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {host}\r\nArrival-Date: {}\r\n",
        date(report.arrived)
    );
    for recipient in report.recipients {
        programs(&mut out, recipient);
    }
    let (header, body) = split(report.message);
    let whole = !late && report.message.len() <= RETURNED_BYTES_MAX;
    let kind = if whole { "message/rfc822" } else { "text/rfc822-headers" };
    let encoding = if report.message.is_ascii() { "7bit" } else { "8bit" };
    let _ = write!(
        out,
        "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    );
    let mut out = out.into_bytes();
    out.extend_from_slice(&header[..header.len().min(RETURNED_BYTES_MAX)]);
    if whole {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

fn people(out: &mut String, report: &Report<'_>, late: bool) {
    out.push_str(if late {
        "Your message has not been delivered yet to the recipients below. You need not send\r\nit again: \
         delivery is still being tried.\r\n"
    } else {
        "Your message could not be delivered to the recipients below.\r\n"
    });
    for recipient in report.recipients {
        let _ = write!(out, "\r\n{}\r\n", recipient.address);
        if !recipient.diagnostic.is_empty() {
            let from = if recipient.remote.is_empty() {
                String::new()
            } else {
                format!("{} says: ", word(&recipient.remote))
            };
            let _ = write!(out, "    {}\r\n", folded(&format!("{from}{}", recipient.diagnostic)));
        }
        if let Action::Delayed { until } = recipient.action {
            let _ = write!(out, "    It is tried until {}.\r\n", date(until));
        }
    }
}

/// The per-recipient fields of RFC 3464 2.3.
fn programs(out: &mut String, recipient: &Recipient) {
    let kind = if recipient.address.to_string().is_ascii() { "rfc822" } else { "utf-8" };
    let (action, class) = match recipient.action {
        Action::Failed => ("failed", '5'),
        Action::Delayed { .. } => ("delayed", '4'),
    };
    let mut parts = recipient.status.split('.');
    let number = |part: Option<&str>, most| {
        part.is_some_and(|part| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let well_formed = number(parts.next(), 1)
        && number(parts.next(), 3)
        && number(parts.next(), 3)
        && parts.next().is_none();
    let status = if well_formed && recipient.status.starts_with(class) {
        recipient.status.clone()
    } else {
        format!("{class}.0.0")
    };
    let _ = write!(
        out,
        "\r\nFinal-Recipient: {kind}; {}\r\nAction: {action}\r\nStatus: {status}\r\n",
        recipient.address
    );
    if !recipient.remote.is_empty() {
        let _ = write!(out, "Remote-MTA: dns; {}\r\n", word(&recipient.remote));
    }
    if !recipient.diagnostic.is_empty() {
        let _ = write!(out, "Diagnostic-Code: smtp; {}\r\n", folded(&recipient.diagnostic));
    }
    let _ = write!(out, "Last-Attempt-Date: {}\r\n", date(recipient.tried));
    if let Action::Delayed { until } = recipient.action {
        let _ = write!(out, "Will-Retry-Until: {}\r\n", date(until));
    }
}

/// A host's name, or what is left of it.
pub(super) fn word(text: &str) -> String {
    let word: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
        .take(255)
        .collect();
    if word.is_empty() { "localhost".to_owned() } else { word }
}

/// A text from outside as the value of a field: printable, of bounded length, on folded lines.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    let clean: String =
        text.chars().take(DIAGNOSTIC_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    for word in clean.split_whitespace() {
        if column > 0 && column + word.len() > 70 {
            out.push_str("\r\n\t");
            column = 0;
        } else if column > 0 {
            out.push(' ');
        }
        out.push_str(word);
        column += word.len() + 1;
    }
    out
}

fn find(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::super::fields::{self, Fields};
    use super::*;

    fn recipient(action: Action) -> Recipient {
        Recipient {
            address: "b@remote.example".parse().unwrap(),
            action,
            status: "5.1.1".into(),
            diagnostic: "550 5.1.1 no\r\nsuch: user here".into(),
            remote: "mx.remote.example".into(),
            tried: 784_111_777,
        }
    }

    fn report(recipients: &[Recipient], message: &[u8]) -> String {
        let to = "a@x.example".parse().unwrap();
        let report = Report {
            to: &to,
            host: "be.example",
            arrived: 784_111_000,
            date: 784_111_777,
            recipients,
            message,
            unique: "u1",
        };
        String::from_utf8(compose(&report)).unwrap()
    }

    fn parts(text: &str) -> Vec<&str> {
        let boundary = text.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
        let whole = text.split_once("\r\n\r\n").unwrap().1;
        let whole = whole.strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
        let divider = format!("--{boundary}\r\n");
        whole.strip_prefix(&divider).unwrap().split(&format!("\r\n{divider}")).collect()
    }

    #[test]
    fn a_bounce_tells_people_and_programs_and_returns_the_message() {
        let message = b"Subject: hello\r\n\r\nbody\r\n--dsn-u1\r\n";
        let text = report(&[recipient(Action::Failed)], message);
        assert!(fields::is_automatic(text.as_bytes()));
        assert_eq!(fields::first(text.as_bytes(), "To").as_deref(), Some("<a@x.example>"));
        let parts = parts(&text);
        assert_eq!(parts.len(), 3);
        assert!(
            parts[0].contains("b@remote.example")
                && parts[0].contains("mx.remote.example says: 550 5.1.1 no such")
        );
        let status = parts[1].split_once("\r\n\r\n").unwrap().1;
        let (message_fields, recipient_fields) = status.split_once("\r\n\r\n").unwrap();
        assert!(
            message_fields.starts_with("Reporting-MTA: dns; be.example\r\nArrival-Date: Sun, 06 Nov 1994")
        );
        let names: Vec<_> = Fields::of(recipient_fields.as_bytes()).map(|field| field.name).collect();
        assert_eq!(
            names,
            ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"]
        );
        let field = |name: &str| fields::first(recipient_fields.as_bytes(), name).unwrap();
        assert_eq!(field("Final-Recipient"), "rfc822; b@remote.example");
        assert_eq!(field("Status"), "5.1.1");
        assert_eq!(field("Diagnostic-Code"), "smtp; 550 5.1.1 no such: user here");
        assert!(parts[2].starts_with("Content-Type: message/rfc822\r\n"));
        assert!(parts[2].ends_with("\r\n\r\nSubject: hello\r\n\r\nbody\r\n--dsn-u1\r\n"));
    }

    #[test]
    fn a_warning_says_until_when_and_returns_the_header() {
        let text =
            report(&[recipient(Action::Delayed { until: 784_543_777 })], b"Subject: hello\r\n\r\nbody");
        let parts = parts(&text);
        assert!(parts[1].contains("Action: delayed\r\nStatus: 4.0.0\r\n"));
        assert!(parts[1].contains("Will-Retry-Until: Fri, 11 Nov 1994"));
        assert!(parts[2].contains("text/rfc822-headers") && !text.contains("body"));
        let large = [b"Subject: x\r\n\r\n".to_vec(), vec![b'x'; RETURNED_BYTES_MAX]].concat();
        assert!(report(&[recipient(Action::Failed)], &large).len() < 4096);
    }

    #[test]
    fn answers_from_outside_stay_in_their_field() {
        let evil = Recipient {
            diagnostic: format!("550 {}\r\n\r\n--dsn-u1\r\nEvil: 1", "y ".repeat(2_000)),
            remote: "x\r\nEvil: 2".into(),
            status: "5.1.1\r\nEvil: 3".into(),
            ..recipient(Action::Failed)
        };
        let text = report(&[evil], b"Subject: x\r\n\r\n");
        assert!(!text.contains("\r\nEvil"));
        assert!(text.lines().all(|line| line.len() < 998));
        assert_eq!(parts(&text).len(), 3);
    }
}
