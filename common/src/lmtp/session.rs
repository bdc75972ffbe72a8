//! One LMTP connection: which command may come when, and what it is answered.

use smtp_proto::{Error, Request};

use super::body::{BadBody, Body};
use super::{Envelope, LINE_BYTES_MAX, LmtpAction, LmtpBounds, LmtpLimits, RecipientResult};

/// One connection.
#[derive(Debug)]
pub struct LmtpSession {
    host: String,
    limits: LmtpLimits,
    bounds: LmtpBounds,
    helo: Option<String>,
    mail: Option<Envelope>,
    line: Vec<u8>,
    mode: Mode,
    /// The message, from DATA or the first BDAT on.
    body: Option<Body>,
    full: bool,
    stopping: bool,
    commands: u32,
    failures: u32,
    transactions: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Command,
    Data,
    /// So many bytes of a chunk are to come; it is the last; it counts.
    Chunk {
        left: usize,
        last: bool,
        counts: bool,
    },
    Closed,
}

impl LmtpSession {
    /// A connection to the server named `host`.
    pub fn new(host: &str, limits: LmtpLimits) -> Self {
        Self {
            host: host.to_owned(),
            limits,
            bounds: LmtpBounds::default(),
            helo: None,
            mail: None,
            line: Vec::new(),
            mode: Mode::Command,
            body: None,
            full: false,
            stopping: false,
            commands: 0,
            failures: 0,
            transactions: 0,
        }
    }

    /// The same with other bounds than the default ones.
    #[must_use]
    pub const fn with_bounds(mut self, bounds: LmtpBounds) -> Self {
        self.bounds = bounds;
        self
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
    pub const fn is_receiving(&self) -> bool {
        !matches!(self.mode, Mode::Command | Mode::Closed) || self.body.is_some()
    }

    /// Whether a transaction is under way: from MAIL to the replies after the message. A server that stops lets it come to
    /// its end, and says [`LmtpSession::farewell`] then.
    pub const fn is_in_transaction(&self) -> bool {
        self.mail.is_some() || self.is_receiving()
    }

    /// The server stops: the transaction under way may end, the next MAIL is answered 421.
    pub const fn handle_stop(&mut self) {
        self.stopping = true;
    }

    /// The disk is full (or has room again): MAIL is answered 452 4.3.1, so that no message comes over the wire for
    /// nothing.
    pub const fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Takes bytes from the front of `input` until there is something to do. Returns how many were taken; the rest is
    /// to be fed again after the action is done.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        match self.mode {
            Mode::Command => self.feed_line(input),
            Mode::Data => self.feed_data(input),
            Mode::Chunk { left, last, counts } => self.feed_chunk(input, left, last, counts),
            Mode::Closed => (input.len(), None),
        }
    }

    /// The answer to [`LmtpAction::CheckRecipient`]; returns the reply to send.
    pub fn handle_recipient(&mut self, address: &str, result: RecipientResult) -> String {
        if let (RecipientResult::Accepted, Some(mail)) = (result, &mut self.mail) {
            mail.recipients.push(address.to_owned());
            self.failures = 0;
        }
        result.reply(address)
    }

    /// The answer to [`LmtpAction::Deliver`]: one result per recipient, in their order; returns the replies to send.
    pub fn handle_delivered(recipients: &[String], results: &[RecipientResult]) -> String {
        let results = results.iter().copied().chain(std::iter::repeat(RecipientResult::Failed));
        recipients.iter().zip(results).map(|(address, result)| result.reply(address)).collect()
    }

    fn close(&mut self, reply: impl Into<String>) -> LmtpAction {
        self.mode = Mode::Closed;
        self.mail = None;
        self.body = None;
        LmtpAction::Close(reply.into())
    }

    fn feed_line(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        let end = input.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(input.len());
        if self.line.len() + taken > LINE_BYTES_MAX {
            return (taken, Some(self.close("500 5.5.2 line too long\r\n")));
        }
        self.line.extend_from_slice(&input[..taken]);
        if end.is_none() {
            return (taken, None);
        }
        let line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\r\n") || line[..line.len() - 2].contains(&b'\r') {
            return (taken, Some(self.close("500 5.5.2 lines end in CR LF\r\n")));
        }
        self.commands += 1;
        if self.commands > self.bounds.commands_max {
            return (taken, Some(self.close("421 4.7.0 too many commands\r\n")));
        }
        let action = self.command(&line);
        if let Some(LmtpAction::Reply(reply)) = &action {
            self.failures += u32::from(reply.starts_with('5'));
            if self.failures > self.bounds.failures_max {
                return (taken, Some(self.close("421 4.7.0 too many errors\r\n")));
            }
        }
        (taken, action)
    }

    fn command(&mut self, line: &[u8]) -> Option<LmtpAction> {
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request,
            // What follows is a chunk whose size nobody knows: it must not be read as commands.
            Err(_) if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) => {
                return Some(self.close("501 5.5.4 the size of the chunk cannot be read\r\n"));
            }
            Err(error) => return Some(LmtpAction::Reply(parse_failure(&error).to_owned())),
        };
        let reply: String = match request {
            Request::Lhlo { host } => {
                self.helo = Some(host.into_owned());
                self.reset();
                format!(
                    "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n\
                     250-CHUNKING\r\n250 SIZE {}\r\n",
                    self.host, self.limits.message_bytes_max
                )
            }
            Request::Ehlo { .. } | Request::Helo { .. } => "500 5.5.1 this is LMTP: say LHLO\r\n".into(),
            Request::Quit => return Some(self.close(format!("221 2.0.0 {} closing\r\n", self.host))),
            Request::Noop { .. } => "250 2.0.0 OK\r\n".into(),
            Request::Rset => {
                self.reset();
                "250 2.0.0 OK\r\n".into()
            }
            Request::Bdat { chunk_size, is_last } => return self.bdat(chunk_size, is_last),
            _ if self.helo.is_none() => "503 5.5.1 say LHLO first\r\n".into(),
            Request::Mail { from } => return Some(self.mail(from)),
            Request::Rcpt { to } => match &self.mail {
                None => "503 5.5.1 say MAIL first\r\n".into(),
                Some(_) if self.body.is_some() => "503 5.5.1 the message is under way\r\n".into(),
                Some(mail) if mail.recipients.len() >= self.limits.recipients_max => {
                    "452 4.5.3 too many recipients\r\n".into()
                }
                Some(mail) if !mail.utf8 && !to.address.is_ascii() => {
                    "553 5.6.7 SMTPUTF8 is needed for this address\r\n".into()
                }
                Some(_) => return Some(LmtpAction::CheckRecipient(to.address.into_owned())),
            },
            Request::Data => match &self.mail {
                _ if self.body.is_some() => "503 5.5.1 go on with BDAT, or say RSET\r\n".into(),
                Some(mail) if !mail.recipients.is_empty() => {
                    self.mode = Mode::Data;
                    self.body = Some(Body::new(self.limits.message_bytes_max));
                    "354 end with <CR><LF>.<CR><LF>\r\n".into()
                }
                _ => "503 5.5.1 no valid recipients\r\n".into(),
            },
            Request::Vrfy { .. } => "252 2.1.5 send mail and see\r\n".into(),
            Request::Help { .. } => "214 2.0.0 RFC 2033\r\n".into(),
            _ => "502 5.5.1 not implemented\r\n".into(),
        };
        Some(LmtpAction::Reply(reply))
    }

    fn mail(&mut self, from: smtp_proto::MailFrom<std::borrow::Cow<'_, str>>) -> LmtpAction {
        let utf8 = from.flags & smtp_proto::MAIL_SMTPUTF8 != 0;
        let reply = if self.mail.is_some() {
            "503 5.5.1 a message is under way\r\n"
        } else if self.stopping {
            let farewell = self.farewell();
            return self.close(farewell);
        } else if self.transactions >= self.bounds.transactions_max {
            return self.close("421 4.7.0 enough for one connection\r\n");
        } else if from.size > self.limits.message_bytes_max {
            "552 5.3.4 message too large\r\n"
        } else if from.flags & smtp_proto::MAIL_BODY_BINARYMIME != 0 {
            "555 5.5.4 BINARYMIME is not offered\r\n"
        } else if !utf8 && !from.address.is_ascii() {
            "553 5.6.7 SMTPUTF8 is needed for this address\r\n"
        } else if self.full {
            "452 4.3.1 no room now, try again later\r\n"
        } else {
            let helo = self.helo.clone().unwrap_or_default();
            self.mail =
                Some(Envelope { sender: from.address.into_owned(), helo, utf8, ..Envelope::default() });
            "250 2.1.0 OK\r\n"
        };
        LmtpAction::Reply(reply.to_owned())
    }

    /// The chunk comes whatever the reply is (RFC 3030 2), so it is always taken off the input.
    fn bdat(&mut self, size: usize, last: bool) -> Option<LmtpAction> {
        let counts = self.mail.as_ref().is_some_and(|mail| !mail.recipients.is_empty());
        if counts && self.body.is_none() {
            self.body = Some(Body::new(self.limits.message_bytes_max));
        }
        let received = self.body.as_ref().map_or(0, Body::received);
        if size > self.received_max().saturating_sub(received) {
            return Some(self.close("552 5.3.4 message far too large\r\n"));
        }
        self.mode = Mode::Chunk { left: size, last, counts };
        (size == 0).then(|| self.chunk_done(last, counts))
    }

    fn feed_chunk(
        &mut self,
        input: &[u8],
        left: usize,
        last: bool,
        counts: bool,
    ) -> (usize, Option<LmtpAction>) {
        let taken = left.min(input.len());
        if let Some(body) = self.body.as_mut().filter(|_| counts) {
            body.chunk(&input[..taken]);
        }
        let left = left - taken;
        if left > 0 {
            self.mode = Mode::Chunk { left, last, counts };
            return (taken, None);
        }
        (taken, Some(self.chunk_done(last, counts)))
    }

    fn chunk_done(&mut self, last: bool, counts: bool) -> LmtpAction {
        self.mode = Mode::Command;
        if counts {
            return if last { self.received() } else { LmtpAction::Reply("250 2.0.0 go on\r\n".into()) };
        }
        self.failures += 1;
        if self.failures > self.bounds.failures_max {
            return self.close("421 4.7.0 too many errors\r\n");
        }
        LmtpAction::Reply("503 5.5.1 no valid recipients\r\n".into())
    }

    fn feed_data(&mut self, input: &[u8]) -> (usize, Option<LmtpAction>) {
        let received_max = self.received_max();
        let Some(body) = &mut self.body else {
            self.mode = Mode::Command;
            return (0, None);
        };
        let (taken, ended) = body.data(input);
        if ended {
            return (taken, Some(self.received()));
        }
        let action =
            (body.received() > received_max).then(|| self.close("421 4.3.4 message far too large\r\n"));
        (taken, action)
    }

    /// Bytes taken of a message that is refused in the end anyway.
    const fn received_max(&self) -> usize {
        self.limits.message_bytes_max.saturating_mul(4)
    }

    fn received(&mut self) -> LmtpAction {
        self.mode = Mode::Command;
        self.transactions += 1;
        let mut mail = self.mail.take().unwrap_or_default();
        let refusal = match self.body.take().map(Body::finish) {
            Some(Ok(message)) => {
                mail.message = message;
                return LmtpAction::Deliver(mail);
            }
            Some(Err(BadBody::BareLineEnd)) => "554 5.6.0 a bare CR or LF is not accepted",
            Some(Err(BadBody::TooLarge)) => "552 5.3.4 message too large",
            None => "451 4.3.0 not stored, try again later",
        };
        LmtpAction::Reply(mail.recipients.iter().flat_map(|_| [refusal, "\r\n"]).collect())
    }

    fn reset(&mut self) {
        self.mail = None;
        self.body = None;
    }
}

fn parse_failure(error: &Error) -> &'static str {
    match error {
        Error::UnknownCommand => "500 5.5.1 unknown command\r\n",
        Error::InvalidSenderAddress => "501 5.1.7 bad sender address\r\n",
        Error::InvalidRecipientAddress => "501 5.1.3 bad recipient address\r\n",
        Error::UnsupportedParameter { .. } => "555 5.5.4 unsupported parameter\r\n",
        _ => "501 5.5.2 syntax error\r\n",
    }
}
