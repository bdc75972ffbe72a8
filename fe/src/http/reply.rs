//! The answer of a parked request, as the bytes of one short HTTP/1.1 response.
//!
//! hyper has let go of the connection by then, so the head is written here: status line, Date,
//! Content-Length (MS-ASHTTP wants it in every answer), what the caller adds, and
//! `Connection: close` when the connection ends with it.

use std::fmt::Write as _;

use bytes::Bytes;
use http::StatusCode;

/// A whole response: small, and written in one piece.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Header lines beyond Date, Content-Length and Connection.
    pub headers: Vec<(&'static str, String)>,
    /// The body; a Content-Type for it is among `headers`.
    pub body: Bytes,
}

impl Reply {
    /// A response without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// 503 that asks the device to come back in `retry_after_secs`.
    pub fn busy(retry_after_secs: u64) -> Self {
        let mut reply = Self::empty(StatusCode::SERVICE_UNAVAILABLE);
        reply.headers.push(("Retry-After", retry_after_secs.to_string()));
        reply
    }

    /// The bytes on the wire; `close` says that the connection ends after them.
    pub fn encode(&self, close: bool) -> Vec<u8> {
        let mut head = String::with_capacity(256);
        let reason = self.status.canonical_reason().unwrap_or("");
        let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        if let Some(date) = http_date() {
            let _ = write!(head, "Date: {date}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        if close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Now, as RFC 9110 5.6.7 (Date/Time Formats) wants it.
fn http_date() -> Option<String> {
    let now = jiff::Timestamp::now();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_length_and_close() {
        let reply = Reply {
            status: StatusCode::OK,
            headers: vec![("Content-Type", "application/vnd.ms-sync.wbxml".into())],
            body: Bytes::from_static(b"\x03\x01"),
        };
        let text = String::from_utf8_lossy(&reply.encode(true)).into_owned();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
        assert!(
            text.contains(" GMT\r\nContent-Type: application/vnd.ms-sync.wbxml\r\nContent-Length: 2\r\n")
        );
        assert!(text.ends_with("Connection: close\r\n\r\n\u{3}\u{1}"));
    }

    #[test]
    fn busy_says_when_to_come_back() {
        let text = String::from_utf8(Reply::busy(17).encode(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("Retry-After: 17\r\nContent-Length: 0\r\n\r\n"));
    }
}
