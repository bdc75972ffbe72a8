//! The LMTP dialogue. However the network cuts the bytes, the answers and what is stored are the same; and no message
//! that is stored has a bare CR or LF, or the end of another message in it.
//! Seeds: lmtp
#![no_main]

use directpush_common::lmtp::{Envelope, LmtpAction, LmtpLimits, LmtpSession, RecipientResult};

const LIMITS: LmtpLimits = LmtpLimits { message_bytes_max: 4096, recipients_max: 3 };

fn talk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (String, Vec<Envelope>) {
    let mut session = LmtpSession::new("be", LIMITS);
    let (mut replies, mut stored) = (String::new(), Vec::new());
    for mut rest in pieces {
        while !rest.is_empty() {
            let (taken, action) = session.feed(rest);
            assert!(taken > 0, "nothing was taken");
            rest = &rest[taken..];
            match action {
                None => {}
                Some(LmtpAction::Reply(reply)) => replies += &reply,
                Some(LmtpAction::CheckRecipient(address)) => {
                    let known = address.starts_with(['a', 'b', 'c', 'd']);
                    let result = if known { RecipientResult::Accepted } else { RecipientResult::Unknown };
                    replies += &session.handle_recipient(&address, result);
                }
                Some(LmtpAction::Deliver(envelope)) => {
                    let results = vec![RecipientResult::Accepted; envelope.recipients.len()];
                    replies += &LmtpSession::handle_delivered(&envelope.recipients, &results);
                    stored.push(envelope);
                }
                Some(LmtpAction::Close(reply)) => return (replies + &reply, stored),
            }
        }
    }
    (replies, stored)
}

fn has_bare_line_end(message: &[u8]) -> bool {
    let mut last = 0;
    let bare = message.iter().any(|&byte| {
        let bare = (byte == b'\n') != (last == b'\r');
        last = byte;
        bare
    });
    bare || last == b'\r'
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = talk(std::iter::once(data));
    assert_eq!(whole, talk(data.chunks(1)), "depends on how the bytes are cut");
    for envelope in &whole.1 {
        assert!(!envelope.recipients.is_empty() && envelope.recipients.len() <= LIMITS.recipients_max);
        assert!(envelope.message.len() <= LIMITS.message_bytes_max, "{} bytes", envelope.message.len());
        assert!(!has_bare_line_end(&envelope.message), "a bare line end was stored");
    }
});
