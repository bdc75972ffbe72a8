//! The LMTP dialogue (RFC 2033) as a state machine: bytes in, one action at a time out.
//!
//! The shell feeds what it reads and does what each action says; pipelined commands (RFC 2920) follow each other without
//! more. Every recipient gets a reply of its own after the message. Offered: 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
//! SIZE (RFC 1870), ENHANCEDSTATUSCODES (RFC 2034), CHUNKING (RFC 3030). Commands are parsed by smtp-proto. A line that
//! ends in a bare LF, and a message with a bare CR or LF in it, are refused: they are how messages are smuggled.
//!
//! Not here: sockets, time-outs, who the recipients are, storing; BINARYMIME, DSN and STARTTLS are not offered.

mod body;
mod session;

pub use session::LmtpSession;

/// Bytes of a command line with its end, at most (RFC 5321 4.5.3.1.4 asks for 512; parameters add to it).
pub const LINE_BYTES_MAX: usize = 2048;

/// Bounds of one message.
#[derive(Clone, Copy, Debug)]
pub struct LmtpLimits {
    /// Bytes of a message.
    pub message_bytes_max: usize,
    /// Recipients of one message; an MTA brings the others in another transaction (452 4.5.3).
    pub recipients_max: usize,
}

/// Bounds of one connection. Whoever goes beyond one is told 421 and may connect anew.
#[derive(Clone, Copy, Debug)]
pub struct LmtpBounds {
    /// Commands of any kind.
    pub commands_max: u32,
    /// Commands answered 5xx, accepted recipients set that back.
    pub failures_max: u32,
    /// Messages.
    pub transactions_max: u32,
}

impl Default for LmtpBounds {
    /// Bounds that no MTA reaches before it closes the connection by itself.
    fn default() -> Self {
        Self { commands_max: 1_000_000, failures_max: 20, transactions_max: 10_000 }
    }
}

/// What the shell is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LmtpAction {
    /// Send this.
    Reply(String),
    /// Look this address up, then call [`LmtpSession::handle_recipient`].
    CheckRecipient(String),
    /// Store the message for its recipients, then send the replies of [`LmtpSession::handle_delivered`].
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
    /// The message, lines ended by CRLF. By DATA: dots unstuffed, the last line ended too.
    pub message: Vec<u8>,
    /// The name that the MTA gave in LHLO.
    pub helo: String,
    /// Addresses and header may hold UTF-8 (RFC 6531).
    pub utf8: bool,
}

/// What became of one recipient: at RCPT, and after the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecipientResult {
    /// 250: at RCPT, the mailbox is here; after the message, it is durable.
    Accepted,
    /// 550 5.1.1.
    Unknown,
    /// 452 4.3.1: no room on the disk; try later.
    Full,
    /// 451 4.3.0: something failed here; try later.
    Failed,
    /// 452 4.2.2: the mailbox has reached its quota, but might have room later.
    OverQuota,
    /// 552 5.2.2: the message can never fit in the mailbox's quota.
    NeverFits,
    /// 550 5.2.1: the mailbox is disabled.
    Disabled,
    /// 554 5.4.6: the message has been here before.
    Loop,
    /// 550 5.7.1: the sender may not write to this recipient.
    Refused,
}

impl RecipientResult {
    fn reply(self, address: &str) -> String {
        // A reply line has at most 512 bytes (RFC 5321 4.5.3.1.5).
        let address = if address.len() > 300 { "the recipient" } else { address };
        let (codes, text) = match self {
            Self::Accepted => ("250 2.1.5", "OK"),
            Self::Unknown => ("550 5.1.1", "no such user here"),
            Self::Full => ("452 4.3.1", "no room now, try again later"),
            Self::Failed => ("451 4.3.0", "not stored, try again later"),
            Self::OverQuota => ("452 4.2.2", "the mailbox is full, try again later"),
            Self::NeverFits => ("552 5.2.2", "the mailbox is full"),
            Self::Disabled => ("550 5.2.1", "the mailbox is disabled"),
            Self::Loop => ("554 5.4.6", "the message goes round in circles"),
            Self::Refused => ("550 5.7.1", "not allowed"),
        };
        format!("{codes} <{address}> {text}\r\n")
    }
}

#[cfg(test)]
mod tests;
