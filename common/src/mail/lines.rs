//! Line ends of messages in files. On the wire and in a mailbox lines end with CRLF; files of other servers have LF.
//!
//! The two conversions undo each other for every message whose lines all end with CRLF, or that has none at all; whatever is
//! mixed stays as it is, in both directions.

use std::borrow::Cow;

/// The message with LF for CRLF, if that can be undone: every LF is behind a CR, and every CR before an LF.
pub fn to_lf(message: &[u8]) -> Cow<'_, [u8]> {
    let paired = |at: usize| match message[at] {
        b'\r' => message.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && message[at - 1] == b'\r',
        _ => true,
    };
    if !message.contains(&b'\n') || !(0..message.len()).all(paired) {
        return Cow::Borrowed(message);
    }
    Cow::Owned(message.iter().copied().filter(|byte| *byte != b'\r').collect())
}

/// The message with CRLF for LF, unless some of its lines end with CRLF already, or it has a CR of another kind.
pub fn to_crlf(message: &[u8]) -> Cow<'_, [u8]> {
    if message.contains(&b'\r') || !message.contains(&b'\n') {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    for &byte in message {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mixed_line_ends_stay() {
        assert_eq!(to_lf(b"a\r\nb\r\n").as_ref(), b"a\nb\n");
        assert_eq!(to_crlf(b"a\nb\n").as_ref(), b"a\r\nb\r\n");
        for mixed in [b"a\r\nb\n".as_slice(), b"a\r\r\n", b"a\rb\r\n", b"\r", b"", b"a"] {
            assert_eq!(to_lf(mixed).as_ref(), mixed);
            assert_eq!(to_crlf(mixed).as_ref(), mixed);
        }
    }

    proptest! {
        #[test]
        fn what_goes_to_a_file_comes_back(message in "([a-b]|\r\n){0,12}|[a\r\n]{0,8}") {
            let message = message.as_bytes();
            let all_lf = message.contains(&b'\n') && !message.contains(&b'\r');
            let back = to_crlf(&to_lf(message)).into_owned();
            if all_lf {
                prop_assert_eq!(back, to_crlf(message).into_owned());
            } else {
                prop_assert_eq!(back, message);
            }
        }
    }
}
