//! The LMTP dialogue (RFC 2033) as a state machine: bytes in, one action at a time out.
//!
//! The shell feeds what it reads and does what each action says; pipelined commands follow each other without
//! more. Every recipient gets a reply of its own after the message. Commands are parsed by smtp-proto. A line that ends
//! in a bare LF, and a message with a bare CR or LF in it, are refused: they are how messages are smuggled.
//!
//! Not here: sockets, time-outs, who the recipients are, storing; BDAT and SMTPUTF8 are answered "not implemented".

use smtp_proto::{Error, Request};

/// Bytes of a command line with its end, at most (RFC 5321 4.5.3.1.4 asks for 512; parameters add to it).
pub const LINE_BYTES_MAX: usize = 2048;
/// Commands that fail before the connection is closed.
const FAILURES_MAX: u32 = 20;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct LmtpLimits {
    /// Bytes of a message.
    pub message_bytes_max: usize,
    /// Recipients of one message.
    pub recipients_max: usize,
}

/// What the shell is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpAction {
    /// Send this.
    Reply(String),
    /// Look this address up, then call [`LmtpSession::handle_recipient`].
    CheckRecipient(String),
    /// Store the message for its recipients, then call [`LmtpSession::handle_delivered`].
    Deliver(Envelope),
    /// Send this, then close.
    Close(String),
}

/// A message with its envelope.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Envelope {
    /// Reverse path; empty for bounces.
    pub sender: String,
    /// Accepted recipients, in their order.
    pub recipients: Vec<String>,
    /// The message, dots unstuffed, lines ended by CRLF.
    pub message: Vec<u8>,
}

/// What became of one recipient: at RCPT, and after the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecipientResult {
    /// 250: at RCPT, the mailbox is here; after the message, it is durable.
    Accepted,
    /// 550 5.1.1.
    Unknown,
    /// 452 4.3.1: no room; try later.
    Full,
    /// 451 4.3.0: something failed here; try later.
    Failed,
}

impl RecipientResult {
    fn reply(self, address: &str) -> String {
        match self {
            Self::Accepted => format!("250 2.1.5 <{address}> OK\r\n"),
            Self::Unknown => format!("550 5.1.1 <{address}> no such user here\r\n"),
            Self::Full => format!("452 4.3.1 <{address}> no room now, try again later\r\n"),
            Self::Failed => format!("451 4.3.0 <{address}> not stored, try again later\r\n"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct LmtpSession {
    host: String,
    limits: LmtpLimits,
    greeted: bool,
    mail: Option<Envelope>,
    line: Vec<u8>,
    mode: Mode,
    failures: u32,
    body: Body,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Command,
    Data,
    Closed,
}

/// The message while it comes in.
#[derive(Debug, Default)]
struct Body {
    received: usize,
    /// The bytes of `\r\n.\r\n` that the input ends with so far.
    ending: usize,
    smuggled: bool,
    oversize: bool,
}

impl LmtpSession {
    /// A connection to the server named `host`.
    pub fn new(host: &str, limits: LmtpLimits) -> Self {
        Self {
            host: host.to_owned(),
            limits,
            greeted: false,
            mail: None,
            line: Vec::new(),
            mode: Mode::Command,
            failures: 0,
            body: Body::default(),
        }
    }

    /// What to say first.
    pub fn greeting(&self) -> String {
        format!("220 {} LMTP directpush\r\n", self.host)
    }

    /// What to say when the server stops or the time is up.
    pub fn farewell(&self) -> String {
        format!("421 4.3.2 {} closing, try again later\r\n", self.host)
    }

    /// Whether a message is being received: a connection that ends now has stored nothing.
    pub fn is_receiving(&self) -> bool {
        self.mode == Mode::Data
    }

    /// Takes bytes from the front of `input` until there is something to do. Returns how many were taken; the rest is
    /// to be fed again after the action is done.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        match self.mode {
            Mode::Command => self.feed_line(input),
            Mode::Data => self.feed_data(input),
            Mode::Closed => (input.len(), None),
        }
    }

    /// The answer to [`LmtpAction::CheckRecipient`]; returns the reply to send.
    pub fn handle_recipient(&mut self, address: &str, result: RecipientResult) -> String {
        if let (RecipientResult::Accepted, Some(mail)) = (result, &mut self.mail) {
            mail.recipients.push(address.to_owned());
        }
        result.reply(address)
    }

    /// The answer to [`LmtpAction::Deliver`]: one result per recipient, in their order; returns the replies to send.
    pub fn handle_delivered(recipients: &[String], results: &[RecipientResult]) -> String {
        let results = results.iter().copied().chain(std::iter::repeat(RecipientResult::Failed));
        recipients.iter().zip(results).map(|(address, result)| result.reply(address)).collect()
    }

    fn feed_line(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        let end = input.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(input.len());
        if self.line.len() + taken > LINE_BYTES_MAX {
            self.mode = Mode::Closed;
            return (taken, Some(LmtpAction::Close("500 5.5.2 line too long\r\n".into())));
        }
        self.line.extend_from_slice(&input[..taken]);
        if end.is_none() {
            return (taken, None);
        }
        let line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\r\n") || line[..line.len() - 2].contains(&b'\r') {
            self.mode = Mode::Closed;
            return (taken, Some(LmtpAction::Close("500 5.5.2 lines end in CR LF\r\n".into())));
        }
        let action = self.command(&line);
        if let LmtpAction::Reply(reply) = &action {
            self.failures += u32::from(reply.starts_with('5'));
            if self.failures > FAILURES_MAX {
                self.mode = Mode::Closed;
                return (taken, Some(LmtpAction::Close("421 4.7.0 too many errors\r\n".into())));
            }
        }
        (taken, Some(action))
    }

    fn command(&mut self, line: &[u8]) -> LmtpAction {
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request,
            Err(error) => return LmtpAction::Reply(parse_failure(&error)),
        };
        let reply = match request {
            Request::Lhlo { .. } => {
                self.greeted = true;
                self.mail = None;
                format!(
                    "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE {}\r\n",
                    self.host, self.limits.message_bytes_max
                )
            }
            Request::Ehlo { .. } | Request::Helo { .. } => "500 5.5.1 this is LMTP: say LHLO\r\n".into(),
            Request::Quit => {
                self.mode = Mode::Closed;
                return LmtpAction::Close(format!("221 2.0.0 {} closing\r\n", self.host));
            }
            Request::Noop { .. } => "250 2.0.0 OK\r\n".into(),
            Request::Rset => {
                self.mail = None;
                "250 2.0.0 OK\r\n".into()
            }
            _ if !self.greeted => "503 5.5.1 say LHLO first\r\n".into(),
            Request::Mail { .. } if self.mail.is_some() => "503 5.5.1 a message is under way\r\n".into(),
            Request::Mail { from } if from.size > self.limits.message_bytes_max => {
                "552 5.3.4 message too large\r\n".into()
            }
            Request::Mail { from } if from.flags & smtp_proto::MAIL_SMTPUTF8 != 0 => {
                "555 5.5.4 SMTPUTF8 is not offered\r\n".into()
            }
            Request::Mail { from } => {
                self.mail = Some(Envelope { sender: from.address.into_owned(), ..Envelope::default() });
                "250 2.1.0 OK\r\n".into()
            }
            Request::Rcpt { to } => match &self.mail {
                None => "503 5.5.1 say MAIL first\r\n".into(),
                Some(mail) if mail.recipients.len() >= self.limits.recipients_max => {
                    "452 4.5.3 too many recipients\r\n".into()
                }
                Some(_) => return LmtpAction::CheckRecipient(to.address.into_owned()),
            },
            Request::Data => match &self.mail {
                Some(mail) if !mail.recipients.is_empty() => {
                    self.mode = Mode::Data;
                    self.body = Body { ending: 2, ..Body::default() };
                    "354 end with <CR><LF>.<CR><LF>\r\n".into()
                }
                _ => "503 5.5.1 no valid recipients\r\n".into(),
            },
            Request::Vrfy { .. } => "252 2.1.5 send mail and see\r\n".into(),
            Request::Help { .. } => "214 2.0.0 RFC 2033\r\n".into(),
            _ => "502 5.5.1 not implemented\r\n".into(),
        };
        LmtpAction::Reply(reply)
    }

    /// Only CR LF dot CR LF ends a message; it is recognised byte by byte, wherever reads are cut.
    fn feed_data(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        const END: &[u8] = b"\r\n.\r\n";
        for (at, &byte) in input.iter().enumerate() {
            let ending = self.body.ending;
            if byte == END[ending] {
                self.body.ending += 1;
                if self.body.ending == END.len() {
                    return (at + 1, Some(self.received()));
                }
                // The dot of a line is kept back until the next byte tells what it is.
                if ending != 2 {
                    self.push(byte);
                }
                continue;
            }
            match ending {
                // A dot at the start of a line that does not end the message: the stuffed one goes.
                3 if byte == b'.' => self.push(b'.'),
                3 => {
                    self.push(b'.');
                    self.push_checked(byte);
                }
                // A CR without its LF, behind a line or behind the dot.
                1 | 4 => {
                    self.body.smuggled = true;
                    self.push(byte);
                }
                _ => self.push_checked(byte),
            }
            self.body.ending = usize::from(byte == b'\r');
        }
        if self.body.received > self.limits.message_bytes_max.saturating_mul(4) {
            self.mode = Mode::Closed;
            return (input.len(), Some(LmtpAction::Close("421 4.3.4 message far too large\r\n".into())));
        }
        (input.len(), None)
    }

    fn push_checked(&mut self, byte: u8) {
        self.body.smuggled |= byte == b'\n';
        self.push(byte);
    }

    fn push(&mut self, byte: u8) {
        self.body.received += 1;
        let Some(mail) = &mut self.mail else { return };
        if self.body.received > self.limits.message_bytes_max || self.body.smuggled {
            self.body.oversize |= self.body.received > self.limits.message_bytes_max;
            mail.message = Vec::new();
        } else {
            mail.message.push(byte);
        }
    }

    fn received(&mut self) -> LmtpAction {
        self.mode = Mode::Command;
        let mut mail = self.mail.take().unwrap_or_default();
        // The CR kept with the dot's line belongs to the end, not to the message.
        if mail.message.last() == Some(&b'\r') {
            mail.message.pop();
        }
        let refusal = match &self.body {
            Body { smuggled: true, .. } => "554 5.6.0 a bare CR or LF is not accepted",
            Body { oversize: true, .. } => "552 5.3.4 message too large",
            _ => return LmtpAction::Deliver(mail),
        };
        let replies = mail.recipients.iter().map(|_| format!("{refusal}\r\n"));
        LmtpAction::Reply(replies.collect())
    }
}

fn parse_failure(error: &Error) -> String {
    match error {
        Error::UnknownCommand => "500 5.5.1 unknown command\r\n".into(),
        Error::InvalidSenderAddress => "501 5.1.7 bad sender address\r\n".into(),
        Error::InvalidRecipientAddress => "501 5.1.3 bad recipient address\r\n".into(),
        Error::UnsupportedParameter { .. } => "555 5.5.4 unsupported parameter\r\n".into(),
        _ => "501 5.5.2 syntax error\r\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: LmtpLimits = LmtpLimits { message_bytes_max: 1000, recipients_max: 3 };

    /// Feeds `input` in pieces of `piece` bytes; users `a` to `d` exist. Gives the replies and what was stored.
    fn talk(input: &[u8], piece: usize) -> (String, Vec<Envelope>) {
        let mut session = LmtpSession::new("be", LIMITS);
        let (mut replies, mut stored) = (String::new(), Vec::new());
        for mut rest in input.chunks(piece.max(1)) {
            while !rest.is_empty() {
                let (taken, action) = session.feed(rest);
                assert!(taken > 0);
                rest = &rest[taken..];
                match action {
                    None => {}
                    Some(LmtpAction::Reply(reply) | LmtpAction::Close(reply)) => replies.push_str(&reply),
                    Some(LmtpAction::CheckRecipient(address)) => {
                        let known = ["a@x", "b@x", "c@x", "d@x"].contains(&address.as_str());
                        let result = if known { RecipientResult::Accepted } else { RecipientResult::Unknown };
                        replies.push_str(&session.handle_recipient(&address, result));
                    }
                    Some(LmtpAction::Deliver(envelope)) => {
                        let results = vec![RecipientResult::Accepted; envelope.recipients.len()];
                        replies.push_str(&LmtpSession::handle_delivered(&envelope.recipients, &results));
                        stored.push(envelope);
                    }
                }
            }
        }
        (replies, stored)
    }

    fn codes(replies: &str) -> Vec<&str> {
        replies.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect()
    }

    fn message(body: &str) -> Vec<u8> {
        format!("LHLO mta\r\nMAIL FROM:<s@y>\r\nRCPT TO:<a@x>\r\nRCPT TO:<z@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n{body}\r\n.\r\nQUIT\r\n")
            .into_bytes()
    }

    #[test]
    fn each_recipient_gets_its_reply_however_reads_are_cut() {
        for piece in 1..40 {
            let (replies, stored) = talk(&message("Subject: x\r\n\r\n..dot\r\nend"), piece);
            assert_eq!(
                codes(&replies),
                ["250", "250", "250", "550", "250", "354", "250", "250", "221"],
                "{replies}"
            );
            assert_eq!(stored[0].sender, "s@y");
            assert_eq!(stored[0].recipients, ["a@x", "b@x"]);
            assert_eq!(
                String::from_utf8_lossy(&stored[0].message),
                "Subject: x\r\n\r\n.dot\r\nend\r\n",
                "piece {piece}"
            );
        }
    }

    #[test]
    fn smuggled_line_ends_are_refused_and_nothing_is_stored() {
        for body in [
            "a\n.\nMAIL FROM:<e@y>",
            "a\n.\r\nMAIL FROM:<e@y>",
            "a\r.\rb",
            "a\r\n.\nb",
            "a\r\n.\rb",
            "a\nb",
            "\r\r\n",
        ] {
            let (replies, stored) = talk(&message(body), 7);
            assert_eq!(codes(&replies)[6..8], ["554", "554"], "{body:?}: {replies}");
            assert!(stored.is_empty(), "{body:?}");
        }
        let (replies, _) = talk(b"LHLO x\nMAIL FROM:<s@y>\r\n", 100);
        assert_eq!(codes(&replies), ["500"]);
    }

    #[test]
    fn oversize_messages_are_refused_by_declaration_and_by_count() {
        let (replies, stored) = talk(&message(&"x".repeat(1000)), 64);
        assert_eq!(codes(&replies)[6..8], ["552", "552"]);
        assert!(stored.is_empty());
        let (replies, _) = talk(b"LHLO x\r\nMAIL FROM:<s@y> SIZE=1001\r\n", 64);
        assert_eq!(codes(&replies), ["250", "552"]);
        let (replies, _) = talk(&message(&"x".repeat(100_000)), 64);
        assert_eq!(codes(&replies).last(), Some(&"421"));
    }

    #[test]
    fn a_message_that_is_cut_off_is_not_stored() {
        let whole = message("Subject: x\r\n\r\nbody");
        let end = whole.windows(5).position(|w| w == b"\r\n.\r\n").unwrap() + 5;
        for cut in 0..end {
            assert!(talk(&whole[..cut], 9).1.is_empty(), "cut at {cut}");
        }
        assert_eq!(talk(&whole[..end], 9).1.len(), 1);
    }

    #[test]
    fn the_order_of_commands_is_kept() {
        for (input, expected) in [
            ("MAIL FROM:<s@y>\r\n", "503"),
            ("LHLO x\r\nRCPT TO:<a@x>\r\n", "503"),
            ("LHLO x\r\nMAIL FROM:<s@y>\r\nDATA\r\n", "503"),
            ("LHLO x\r\nMAIL FROM:<s@y>\r\nRCPT TO:<z@x>\r\nDATA\r\n", "503"),
            ("LHLO x\r\nMAIL FROM:<s@y>\r\nMAIL FROM:<s@y>\r\n", "503"),
            ("EHLO x\r\n", "500"),
            ("LHLO x\r\nBDAT 3 LAST\r\n", "502"),
            ("NONSENSE\r\n", "500"),
            ("LHLO x\r\nMAIL FROM:<>\r\nRSET\r\n", "250"),
        ] {
            let (replies, _) = talk(input.as_bytes(), 100);
            assert_eq!(codes(&replies).last(), Some(&expected), "{input:?}: {replies}");
        }
        let many = format!("LHLO x\r\nMAIL FROM:<s@y>\r\n{}", "RCPT TO:<a@x>\r\n".repeat(4));
        assert_eq!(codes(&talk(many.as_bytes(), 100).0).last(), Some(&"452"));
        let errors = "NONSENSE\r\n".repeat(30);
        assert_eq!(codes(&talk(errors.as_bytes(), 100).0).last(), Some(&"421"));
        assert_eq!(codes(&talk(&[b'x'; 5000], 100).0), ["500"]);
    }

    proptest! {
        /// Any message with proper line ends arrives as it was, stuffed and cut at will.
        #[test]
        fn messages_arrive_as_they_were(lines in prop::collection::vec("[.a-z \t]{0,12}", 1..10), piece in 1usize..50) {
            let body = lines.join("\r\n");
            let stuffed: Vec<String> =
                lines.iter().map(|line| if line.starts_with('.') { format!(".{line}") } else { line.clone() }).collect();
            let (_, stored) = talk(&message(&stuffed.join("\r\n")), piece);
            prop_assert_eq!(String::from_utf8_lossy(&stored[0].message), format!("{body}\r\n"));
        }

        #[test]
        fn never_panics(input: Vec<u8>, piece in 1usize..50) {
            let _ = talk(&input, piece);
            let mut greeted = message("");
            greeted.truncate(80);
            greeted.extend(input);
            let _ = talk(&greeted, piece);
        }
    }
}
