//! mbox files, as `mboxrd`: messages one behind the other, each begun by a line `From `, whose like inside a message are
//! quoted by `>` (RFC 4155, the Unix manual page mbox(5)).
//!
//! Reading is a push parser, so a file of any size goes through in pieces: bytes in, messages out. Both line ends are
//! taken and all become CRLF. Not here: files, locks, `Content-Length` headers (they are not trusted).

use super::fields;
use super::maildir::Flags;

/// Bytes of a `From ` line, at most.
const FROM_BYTES_MAX: usize = 4 * 1024;

/// Something found in the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// A message, its lines ended by CRLF.
    Message {
        /// The sender that the `From ` line names; empty if none.
        sender: String,
        /// When it says that the message came, Unix seconds.
        date: Option<i64>,
        /// The message.
        message: Vec<u8>,
    },
    /// A message of more bytes than allowed; it was passed over.
    TooLarge {
        /// Where its `From ` line begins in the file.
        at: u64,
    },
}

/// Reads a file in pieces.
#[derive(Debug)]
pub struct MboxReader {
    bytes_max: usize,
    line: Vec<u8>,
    /// Bytes of the file before `line`.
    at: u64,
    current: Option<Current>,
    /// An empty line that belongs to the message only if something follows it in the message.
    blank: bool,
    /// The last line was cut because of its length: what comes goes on with it.
    continued: bool,
}

#[derive(Debug)]
struct Current {
    sender: String,
    date: Option<i64>,
    message: Vec<u8>,
    at: u64,
    too_large: bool,
}

/// Bytes of a line that are looked at together. Longer ones are passed on in pieces.
const PIECE_BYTES: usize = 64 * 1024;

impl MboxReader {
    /// A reader that passes over messages of more than so many bytes.
    pub const fn new(message_bytes_max: usize) -> Self {
        Self {
            bytes_max: message_bytes_max,
            line: Vec::new(),
            at: 0,
            current: None,
            blank: true,
            continued: false,
        }
    }

    /// Takes the next piece of the file; gives the messages that ended in it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.line.len();
            let end = bytes.iter().take(room).position(|&byte| byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or_else(|| room.min(bytes.len()));
            self.line.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            // A CR at the end of a piece may belong to the line end that follows.
            if end.is_some() || (self.line.len() == PIECE_BYTES && !bytes.is_empty()) {
                found.extend(self.take_line());
            }
        }
        found
    }

    /// The file is at its end: gives the last message.
    pub fn finish(mut self) -> Option<Found> {
        if !self.line.is_empty()
            && let Some(found) = self.take_line()
        {
            // A `From ` line without its end ends the message before it and begins nothing.
            return Some(found);
        }
        self.close()
    }

    fn take_line(&mut self) -> Option<Found> {
        let line = std::mem::take(&mut self.line);
        let at = self.at;
        self.at += line.len() as u64;
        let was_continued = self.continued;
        let ended = line.ends_with(b"\n");
        self.continued = !ended;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = if ended { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        if !was_continued && self.blank && text.starts_with(b"From ") && text.len() <= FROM_BYTES_MAX {
            let done = self.close();
            let (sender, date) = from_line(&String::from_utf8_lossy(&text[5..]));
            self.current = Some(Current { sender, date, message: Vec::new(), at, too_large: false });
            return done;
        }
        if !was_continued && ended && text.is_empty() {
            if self.blank {
                self.keep(b"\r\n");
            }
            self.blank = true;
            return None;
        }
        if self.blank {
            self.keep(b"\r\n");
        }
        self.blank = false;
        let quoted = text.iter().position(|&byte| byte != b'>').unwrap_or(0);
        let unquote = !was_continued && quoted > 0 && text[quoted..].starts_with(b"From ");
        self.keep(&text[usize::from(unquote)..]);
        if ended {
            self.keep(b"\r\n");
        }
        None
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes_max = self.bytes_max;
        let Some(current) = &mut self.current else { return };
        if current.too_large {
            return;
        }
        if current.message.len() + bytes.len() > bytes_max {
            current.too_large = true;
            current.message = Vec::new();
        } else {
            current.message.extend_from_slice(bytes);
        }
    }

    fn close(&mut self) -> Option<Found> {
        self.blank = false;
        let Current { sender, date, mut message, at, too_large } = self.current.take()?;
        if too_large {
            return Some(Found::TooLarge { at });
        }
        if !message.is_empty() && !message.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        Some(Found::Message { sender, date, message })
    }
}

/// What is behind `From `: a sender, then a date as asctime writes it, in UTC.
fn from_line(text: &str) -> (String, Option<i64>) {
    let (sender, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let sender = if sender == "MAILER-DAEMON" || sender == "-" { "" } else { sender };
    let words: Vec<&str> = rest.split_whitespace().take(6).collect();
    // Some writers put a zone before or behind the year; it is passed over.
    let date = match *words.as_slice() {
        [day, month, date, time, year] => Some(format!("{day} {month} {date} {time} {year}")),
        [day, month, date, time, a, b] => {
            let year = if a.len() == 4 && a.bytes().all(|byte| byte.is_ascii_digit()) { a } else { b };
            Some(format!("{day} {month} {date} {time} {year}"))
        }
        _ => None,
    };
    (sender.to_owned(), date.and_then(|date| crate::dav::conditions::parse_http_date(&date).ok()))
}

/// The message with its flags in front, as mail programs keep them in an mbox: `Status` (`R` read, `O` old) and `X-Status`
/// (`A` answered, `F` flagged, `T` draft, `D` deleted). Fields of these names that it had are taken out.
pub fn with_status(message: &[u8], flags: Flags) -> Vec<u8> {
    let letters =
        |all: &[(bool, char)]| all.iter().filter(|(set, _)| *set).map(|(_, c)| *c).collect::<String>();
    let more =
        letters(&[(flags.replied, 'A'), (flags.flagged, 'F'), (flags.draft, 'T'), (flags.trashed, 'D')]);
    let mut out = format!("Status: {}\r\n", letters(&[(flags.seen, 'R'), (true, 'O')]));
    if !more.is_empty() {
        out.push_str(&format!("X-Status: {more}\r\n"));
    }
    let mut out = out.into_bytes();
    out.extend(fields::without(message, &STATUS));
    out
}

/// The flags in a message of an mbox, and the message without them.
pub fn take_status(message: &[u8]) -> (Flags, Vec<u8>) {
    let value = |name| fields::first(message, name).unwrap_or_default().into_owned();
    let (status, more) = (value("Status"), value("X-Status"));
    let flags = Flags {
        seen: status.contains('R'),
        replied: more.contains('A'),
        flagged: more.contains('F'),
        draft: more.contains('T'),
        trashed: more.contains('D'),
        passed: false,
    };
    (flags, fields::without(message, &STATUS))
}

const STATUS: [&str; 2] = ["Status", "X-Status"];

/// Writes one message as it stands in a file, with LF at line ends, what looks like a `From ` line quoted, and an empty
/// line behind it. `date`: when it came, Unix seconds.
pub fn write(sender: &str, date: i64, message: &[u8], out: &mut Vec<u8>) {
    let sender: String = sender.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let sender = if sender.is_empty() { "MAILER-DAEMON" } else { &sender };
    let at = jiff::Timestamp::from_second(date).unwrap_or_default();
    out.extend_from_slice(format!("From {sender} {}\n", at.strftime("%a %b %e %H:%M:%S %Y")).as_bytes());
    let mut rest = message;
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let quotes = text.iter().position(|&byte| byte != b'>').unwrap_or(text.len());
        if text[quotes..].starts_with(b"From ") {
            out.push(b'>');
        }
        out.extend_from_slice(text);
        out.push(b'\n');
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(file: &[u8], piece: usize) -> Vec<Found> {
        let mut reader = MboxReader::new(10_000);
        let mut found: Vec<_> = file.chunks(piece.max(1)).flat_map(|bytes| reader.push(bytes)).collect();
        found.extend(reader.finish());
        found
    }

    fn messages(file: &[u8], piece: usize) -> Vec<String> {
        let text = |found| match found {
            Found::Message { message, .. } => String::from_utf8_lossy(&message).into_owned(),
            Found::TooLarge { at } => format!("too large at {at}"),
        };
        read(file, piece).into_iter().map(text).collect()
    }

    #[test]
    fn messages_come_out_however_the_file_is_cut() {
        let file = b"From s@y Sun Nov  6 08:49:37 1994\nSubject: 1\n\nbody\n>From here\n>>From there\nFrom now on\n\n\nend\n\n\
            From - Sun Nov  6 08:49:37 1994\r\nSubject: 2\r\n\r\nFrom\r\n";
        for piece in 1..60 {
            assert_eq!(
                messages(file, piece),
                [
                    "Subject: 1\r\n\r\nbody\r\nFrom here\r\n>From there\r\nFrom now on\r\n\r\n\r\nend\r\n",
                    "Subject: 2\r\n\r\nFrom\r\n"
                ],
                "pieces of {piece}"
            );
        }
        let Found::Message { sender, date, .. } = &read(file, 99)[0] else { panic!() };
        assert_eq!((sender.as_str(), *date), ("s@y", Some(784_111_777)));
        let Found::Message { sender, .. } = &read(file, 99)[1] else { panic!() };
        assert_eq!(sender, "");
    }

    #[test]
    fn flags_go_in_and_come_out() {
        let message = b"X-Status: D\r\nSubject: x\r\n\r\nStatus: RO\r\n";
        let flags = Flags { seen: true, flagged: true, replied: true, ..Flags::default() };
        let marked = with_status(message, flags);
        assert_eq!(marked, b"Status: RO\r\nX-Status: AF\r\nSubject: x\r\n\r\nStatus: RO\r\n");
        assert_eq!(take_status(&marked), (flags, b"Subject: x\r\n\r\nStatus: RO\r\n".to_vec()));
        assert_eq!(with_status(b"\r\nx", Flags::default()), b"Status: O\r\n\r\nx");
        assert_eq!(take_status(b"A: b\r\n\r\n").0, Flags::default());
    }

    #[test]
    fn odd_files_are_read_as_far_as_they_go() {
        assert!(messages(b"", 9).is_empty());
        assert!(messages(b"no mbox at all\n\nFr", 9).is_empty());
        assert_eq!(messages(b"From x\n", 9), [""]);
        assert_eq!(
            messages(b"From x odd date here\nSubject: x\n\nno end", 9),
            ["Subject: x\r\n\r\nno end\r\n"]
        );
        let large = format!("From x\n\n{}\n\nFrom y\nSubject: y\n\nz\n", "x".repeat(10_001));
        assert_eq!(messages(large.as_bytes(), 999), ["too large at 0", "Subject: y\r\n\r\nz\r\n"]);
        assert_eq!(messages(b"From x\n\nbody\n\n", 99), ["\r\nbody\r\n"], "no header at all");
    }

    #[test]
    fn lines_longer_than_a_piece_stay_whole() {
        let long = "From ".to_owned() + &"y".repeat(3 * PIECE_BYTES);
        let mut file = Vec::new();
        write("s@y", 0, format!("Subject: x\r\n\r\n{long}\r\n").as_bytes(), &mut file);
        let mut reader = MboxReader::new(1 << 20);
        assert!(reader.push(&file).is_empty());
        let Some(Found::Message { message, .. }) = reader.finish() else { panic!() };
        assert_eq!(message.len(), long.len() + 16);
        assert!(message.ends_with(b"yy\r\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            bodies in prop::collection::vec(prop::collection::vec("(>{0,2}From ){0,1}[a >]{0,4}", 1..6), 0..5),
            piece in 1_usize..40,
        ) {
            let messages: Vec<String> =
                bodies.iter().map(|lines| format!("Subject: x\r\n\r\n{}\r\n.\r\n", lines.join("\r\n"))).collect();
            let mut file = Vec::new();
            for message in &messages {
                write("s@y", 784_111_777, message.as_bytes(), &mut file);
            }
            prop_assert_eq!(super::tests::messages(&file, piece), messages);
        }

        #[test]
        fn cuts_do_not_matter(file in "(From x|>From|\r?\n|[a-c ]{1,3}){0,30}", piece in 1_usize..20) {
            prop_assert_eq!(read(file.as_bytes(), piece), read(file.as_bytes(), 10_000));
        }
    }
}
