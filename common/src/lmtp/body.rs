//! A message as it comes in: by DATA, ended by CR LF dot CR LF and nothing else, or by BDAT in counted chunks.
//!
//! Bytes are taken as runs, however reads are cut. Once a message is too large or has a bare CR or LF it is no longer
//! kept, only counted to its end.

/// Why a message is refused when it is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BadBody {
    /// A CR without LF, or an LF without CR.
    BareLineEnd,
    TooLarge,
}

/// Where the reader stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    #[default]
    LineStart,
    Middle,
    /// Behind a CR that is not kept yet.
    Cr,
    /// Behind the dot that a line began with.
    Dot,
    /// Behind the CR that follows such a dot.
    DotCr,
}

/// The message so far.
#[derive(Debug)]
pub(super) struct Body {
    bytes_max: usize,
    kept: Vec<u8>,
    /// All bytes that came, kept or not.
    received: usize,
    fault: Option<BadBody>,
    at: At,
}

impl Body {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Vec::new(), received: 0, fault: None, at: At::LineStart }
    }

    /// All bytes that came, kept or not.
    pub(super) const fn received(&self) -> usize {
        self.received
    }

    /// Takes bytes of DATA up to the end of the message; says how many, and whether the end was there.
    pub(super) fn data(&mut self, input: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            self.at = match (self.at, byte) {
                (At::LineStart, b'.') => At::Dot,
                // The dot goes: it was stuffed, or the line should have been (RFC 5321 4.5.2).
                (At::Dot, b'\r') => At::DotCr,
                (At::DotCr, b'\n') => {
                    self.received += at + 1;
                    return (at + 1, true);
                }
                (At::DotCr, _) => {
                    self.fault(BadBody::BareLineEnd);
                    self.at = At::Middle;
                    continue;
                }
                (At::Cr, _) => {
                    at += self.after_cr(byte);
                    continue;
                }
                (At::LineStart | At::Middle | At::Dot, _) => {
                    at += self.run(&input[at..]);
                    continue;
                }
            };
            at += 1;
        }
        self.received += input.len();
        (input.len(), false)
    }

    /// Takes bytes of a chunk: there are no dots to look at.
    pub(super) fn chunk(&mut self, input: &[u8]) {
        let mut at = 0;
        while at < input.len() {
            at += match self.at {
                At::Cr => self.after_cr(input[at]),
                _ => self.run(&input[at..]),
            };
        }
        self.received += input.len();
    }

    /// The message, if it can be accepted.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, BadBody> {
        if self.at == At::Cr {
            self.fault(BadBody::BareLineEnd);
        }
        self.fault.map_or(Ok(self.kept), Err)
    }

    /// Keeps what comes before the next CR, or takes that CR. Returns how many bytes were taken.
    fn run(&mut self, input: &[u8]) -> usize {
        let end = input.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(input.len());
        self.keep(&input[..end]);
        match input.get(end) {
            None => {
                self.at = At::Middle;
                end
            }
            Some(b'\r') => {
                self.at = At::Cr;
                end + 1
            }
            Some(_) => {
                self.fault(BadBody::BareLineEnd);
                self.at = At::Middle;
                end + 1
            }
        }
    }

    /// The byte behind a CR: an LF is taken, anything else makes the CR a bare one.
    fn after_cr(&mut self, byte: u8) -> usize {
        if byte == b'\n' {
            self.keep(b"\r\n");
            self.at = At::LineStart;
            1
        } else {
            self.fault(BadBody::BareLineEnd);
            self.at = At::Middle;
            0
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if self.kept.len() + bytes.len() > self.bytes_max {
            self.fault(BadBody::TooLarge);
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    /// A bare line end weighs more than the size: it says what the message is.
    fn fault(&mut self, fault: BadBody) {
        if self.fault != Some(BadBody::BareLineEnd) {
            self.fault = Some(fault);
        }
        self.kept = Vec::new();
    }
}
