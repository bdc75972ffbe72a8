//! How long a peer may take: one pure decision for the whole of a connection's life in hyper.
//!
//! Three things can last too long: a request head that has begun (408 and close), a connection on
//! which nothing is asked (close), and an answer that the peer does not read (close). The
//! body of a request has its own bound in `body`; while a handler works nothing here counts.

use std::time::Duration;

use tokio::time::Instant;

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// From one answer to the first byte of the next request; also from accept to the first byte.
    pub idle: Duration,
    /// Without the peer taking a single byte of an answer.
    pub write: Duration,
    /// For a whole request body.
    pub body: Duration,
    /// For the body of a message that is sent: phones upload slowly.
    pub mail: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_mins(2),
            write: Duration::from_secs(30),
            body: Duration::from_secs(30),
            mail: Duration::from_mins(10),
        }
    }
}

/// What the connection is doing, as the stream and the service see it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an event that did or did not happen, in any order"
)]
pub(super) struct Progress {
    /// A handler is at work.
    pub(super) handling: bool,
    /// When the first byte of the coming request arrived.
    pub(super) head_since: Option<Instant>,
    /// Since when the peer has taken nothing although there is something to write.
    pub(super) blocked_since: Option<Instant>,
    /// When the last answer was given, or the connection began.
    pub(super) idle_since: Instant,
    /// The peer has sent its last byte.
    pub(super) eof: bool,
    /// The connection ends with this answer.
    pub(super) close: bool,
    /// Every byte of the request's body was read.
    pub(super) asked: bool,
    /// Every byte of the answer was taken by hyper.
    pub(super) answered: bool,
}

/// Whose time has run out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    /// The head of a request: 408.
    Head,
    /// Nothing was asked: close.
    Idle,
    /// The answer is not read: close.
    Write,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            handling: false,
            head_since: None,
            blocked_since: None,
            idle_since: now,
            eof: false,
            close: false,
            asked: false,
            answered: false,
        }
    }

    /// Bytes arrived.
    pub(super) fn handle_read(&mut self, now: Instant) {
        if !self.handling && self.head_since.is_none() {
            self.head_since = Some(now);
        }
    }

    /// A request's head is complete and its handler begins; `close` when the peer wants no other.
    pub(super) fn handle_request(&mut self, close: bool) {
        self.handling = true;
        self.head_since = None;
        (self.close, self.asked, self.answered) = (close, false, false);
    }

    /// Whether the request was read and answered to the last byte, so that the connection can be taken back from
    /// hyper between two messages. Ask it when hyper has written what it can.
    pub(super) fn is_over(&self) -> bool {
        let whole = self.asked && self.answered && self.blocked_since.is_none();
        whole && !self.handling && !self.close && !self.eof && self.head_since.is_none()
    }

    /// The handler gave its answer.
    pub(super) fn handle_answer(&mut self, now: Instant) {
        self.handling = false;
        self.idle_since = now;
    }

    /// What is overdue first, and when.
    pub(super) fn deadline(&self, patience: &Patience) -> Option<(Instant, Overdue)> {
        let write = self.blocked_since.map(|since| (since + patience.write, Overdue::Write));
        let read = match (self.handling, self.head_since) {
            (true, _) => None,
            (false, Some(since)) => Some((since + patience.head, Overdue::Head)),
            (false, None) => Some((self.idle_since + patience.idle, Overdue::Idle)),
        };
        match (write, read) {
            (Some(write), Some(read)) => Some(if write.0 <= read.0 { write } else { read }),
            (write, read) => write.or(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_begun_head_has_less_time_than_silence_and_a_handler_has_all_of_it() {
        let (t0, patience) = (Instant::now(), Patience::default());
        let mut progress = Progress::new(t0);
        assert_eq!(progress.deadline(&patience), Some((t0 + patience.idle, Overdue::Idle)));
        let t1 = t0 + Duration::from_secs(5);
        progress.handle_read(t1);
        progress.handle_read(t1 + Duration::from_secs(20));
        assert_eq!(progress.deadline(&patience), Some((t1 + patience.head, Overdue::Head)));
        progress.handle_request(false);
        assert_eq!(progress.deadline(&patience), None);
        progress.handle_answer(t1);
        (progress.asked, progress.answered) = (true, false);
        assert!(!progress.is_over(), "the answer is not out");
        progress.answered = true;
        assert!(progress.is_over());
        progress.handling = true;
        progress.blocked_since = Some(t1);
        assert_eq!(progress.deadline(&patience), Some((t1 + patience.write, Overdue::Write)));
    }
}
