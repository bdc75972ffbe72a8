//! What a server adds at the top of a message, and the loops it finds there (RFC 5321 4.4, 6.3).

use std::fmt::Write as _;

use super::address::Address;
use super::fields::{Fields, without};

/// `Received` fields above which a message goes in circles (RFC 5321 6.3 asks for a limit of at least 100).
pub const HOPS_MAX: usize = 100;

/// What a `Received` field tells. Texts from outside are cleaned when they are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Received<'a> {
    /// The name that the other gave in LHLO.
    pub helo: &'a str,
    /// Its address, if it has one.
    pub peer: Option<std::net::IpAddr>,
    /// This host.
    pub by: &'a str,
    /// `LMTP`, `LMTPS`, `UTF8LMTP`, `HTTP`.
    pub with: &'a str,
    /// How the log calls this message.
    pub id: &'a str,
    /// The recipient, if there is only one: others must not learn of each other.
    pub recipient: Option<&'a Address>,
    /// Unix seconds.
    pub date: i64,
}

impl Received<'_> {
    /// The field with its line end.
    pub fn field(&self) -> String {
        let mut out = String::from("Received: ");
        if !self.helo.is_empty() {
            let _ = write!(out, "from {}", clean(self.helo));
            if let Some(peer) = self.peer {
                let v6 = if peer.is_ipv6() { "IPv6:" } else { "" };
                let _ = write!(out, " ([{v6}{peer}])");
            }
            out.push_str("\r\n\t");
        }
        let _ = write!(out, "by {} with {}", clean(self.by), clean(self.with));
        if !self.id.is_empty() {
            let _ = write!(out, " id {}", clean(self.id));
        }
        if let Some(recipient) = self.recipient {
            let _ = write!(out, "\r\n\tfor <{recipient}>");
        }
        let _ = write!(out, ";\r\n\t{}\r\n", date(self.date));
        out
    }
}

/// One word of a trace field: what is not plain becomes a hyphen.
fn clean(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let text: String = text.chars().take(255).map(|c| if plain(c) { c } else { '-' }).collect();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

/// A date as RFC 5322 3.3 writes it, in UTC.
pub fn date(secs: i64) -> String {
    let at = jiff::Timestamp::from_second(secs).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// The message as it is put into mailboxes: `Return-Path` with the envelope's sender at the top and nowhere else, then
/// `Received`. `sender`: the reverse path without angle brackets; empty for bounces.
pub fn delivered(message: &[u8], sender: &str, received: &Received<'_>) -> Vec<u8> {
    let sender: String =
        sender.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).take(320).collect();
    let mut out = format!("Return-Path: <{sender}>\r\n{}", received.field()).into_bytes();
    out.extend(without(message, &["Return-Path"]));
    out
}

/// The message with a field on top.
pub fn with_field(message: &[u8], name: &str, value: &str) -> Vec<u8> {
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    [format!("{name}: {value}\r\n").as_bytes(), message].concat()
}

/// How many servers say they have handled the message.
pub fn hops(message: &[u8]) -> usize {
    Fields::of(message).filter(|field| field.is("Received")).count()
}

/// Whether the message goes in circles: too many hops, or it says that it was delivered to this address before.
pub fn is_looping(message: &[u8], address: &Address, hops_max: usize) -> bool {
    let key = address.key();
    hops(message) > hops_max
        || Fields::of(message)
            .filter(|field| field.is("Delivered-To"))
            .any(|field| field.value().parse::<Address>().is_ok_and(|address| address.key() == key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received() -> Received<'static> {
        Received {
            helo: "mta.example",
            peer: Some("2001:db8::1".parse().unwrap()),
            by: "be.example",
            with: "LMTP",
            id: "4f2",
            recipient: None,
            date: 784_111_777,
        }
    }

    #[test]
    fn a_message_gets_its_trace() {
        let message = b"return-path: <old@y>\r\nSubject: x\r\nReturn-Path:\r\n <older@y>\r\n\r\nbody";
        let out = delivered(message, "s@y", &received());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Return-Path: <s@y>\r\nReceived: from mta.example ([IPv6:2001:db8::1])\r\n\tby be.example with LMTP id 4f2;\r\n\t\
             Sun, 06 Nov 1994 08:49:37 +0000\r\nSubject: x\r\n\r\nbody"
        );
        let bounce = delivered(b"\r\nx", "", &Received { helo: "", ..received() });
        assert!(bounce.starts_with(b"Return-Path: <>\r\nReceived: by be.example"));
    }

    #[test]
    fn nobody_adds_fields_by_their_name() {
        let address = "a@x".parse().unwrap();
        let evil = Received { helo: "x\r\nBcc: y (", recipient: Some(&address), ..received() };
        let out = delivered(b"A: b\r\n\r\n", "s@y>\r\nEvil: 1", &evil);
        let names: Vec<_> = Fields::of(&out).map(|field| field.name).collect();
        assert_eq!(names, ["Return-Path", "Received", "A"]);
        let out = with_field(b"A: b\r\n\r\n", "Delivered-To", "a@x\r\nEvil: 1");
        assert_eq!(Fields::of(&out).count(), 2);
    }

    #[test]
    fn loops_are_noticed() {
        let address: Address = "a@x".parse().unwrap();
        let mut message = b"Subject: x\r\n\r\nbody".to_vec();
        assert!(!is_looping(&message, &address, 3));
        for _ in 0..3 {
            message = delivered(&message, "s@y", &received());
        }
        assert_eq!(hops(&message), 3);
        assert!(!is_looping(&message, &address, 3));
        assert!(is_looping(&delivered(&message, "s@y", &received()), &address, 3));
        let back = with_field(&message, "Delivered-To", "A@X");
        assert!(is_looping(&back, &address, 100));
        assert!(!is_looping(&back, &"b@x".parse().unwrap(), 100));
    }
}
