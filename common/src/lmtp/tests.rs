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
        ("LHLO x\r\nBDAT 3 LAST\r\nabc", "503"),
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

/// Greeting and envelope for `a@x` and `b@x`, then what is given.
fn chunks(commands: &[u8]) -> Vec<u8> {
    let mut input = b"LHLO mta\r\nMAIL FROM:<s@y>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n".to_vec();
    input.extend_from_slice(commands);
    input
}

#[test]
fn chunks_make_one_message_however_reads_are_cut() {
    let input = chunks(b"BDAT 9\r\nS: x\r\n\r\n.BDAT 0\r\nBDAT 8 LAST\r\n\r\n.\r\nab\nQUIT\r\n");
    for piece in 1..40 {
        let (replies, stored) = talk(&input, piece);
        assert_eq!(codes(&replies)[4..], ["250", "250", "554", "554", "221"], "a bare LF: {replies}");
        assert!(stored.is_empty());
    }
    let input = chunks(b"BDAT 9\r\nS: x\r\n\r\n.BDAT 8 LAST\r\n\r\n.\r\nab\rQUIT\r\n");
    assert_eq!(codes(&talk(&input, 3).0)[5..7], ["554", "554"], "a CR at the end");
    let input = chunks(b"BDAT 9\r\nS: x\r\n\r\n\rBDAT 4 LAST\r\n\n.\r\nQUIT\r\n");
    for piece in 1..40 {
        let (replies, stored) = talk(&input, piece);
        assert_eq!(codes(&replies)[4..], ["250", "250", "250", "221"], "{replies}");
        assert_eq!(String::from_utf8_lossy(&stored[0].message), "S: x\r\n\r\n\r\n.\r\n");
        assert_eq!(stored[0].recipients, ["a@x", "b@x"]);
    }
}

#[test]
fn a_chunk_is_never_read_as_commands() {
    let (replies, stored) = talk(b"LHLO x\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n", 100);
    assert_eq!(codes(&replies), ["250", "503", "250"]);
    assert!(stored.is_empty());
    let (replies, _) = talk(b"LHLO x\r\nBDAT many LAST\r\nQUIT\r\n", 100);
    assert_eq!(codes(&replies), ["250", "501"], "closed");
    let (replies, _) = talk(&chunks(b"BDAT 99999999999999\r\nQUIT\r\n"), 100);
    assert_eq!(codes(&replies).last(), Some(&"552"));
    let (replies, stored) = talk(&chunks(b"BDAT 2\r\nabDATA\r\nRSET\r\nBDAT 2 LAST\r\ncd"), 100);
    assert_eq!(codes(&replies)[4..], ["250", "503", "250", "503"]);
    assert!(stored.is_empty());
}

#[test]
fn oversize_chunks_are_refused_at_the_end() {
    let mut input = b"BDAT 900\r\n".to_vec();
    input.extend([b'x'; 900]);
    input.extend(b"BDAT 101 LAST\r\n");
    input.extend([b'x'; 101]);
    assert_eq!(codes(&talk(&chunks(&input), 64).0)[4..], ["250", "552", "552"]);
    let exact = "x".repeat(998);
    assert_eq!(talk(&message(&exact), 64).1[0].message.len(), 1000, "exactly what SIZE allows");
}

#[test]
fn addresses_in_utf8_need_their_parameter() {
    let (replies, _) = talk("LHLO x\r\nMAIL FROM:<jürgen@y>\r\n".as_bytes(), 100);
    assert_eq!(codes(&replies), ["250", "553"]);
    let (replies, _) =
        talk("LHLO x\r\nMAIL FROM:<s@y>\r\nRCPT TO:<jürgen@x>\r\nRSET\r\nMAIL FROM:<jürgen@y> SMTPUTF8\r\nRCPT TO:<a@x>\r\n".as_bytes(), 100);
    assert_eq!(codes(&replies), ["250", "250", "553", "250", "250", "250"], "{replies}");
    let (_, stored) = talk(
        "LHLO mta\r\nMAIL FROM:<jürgen@y> BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<a@x>\r\nDATA\r\n.\r\n"
            .as_bytes(),
        100,
    );
    assert_eq!(
        (stored[0].sender.as_str(), stored[0].utf8, stored[0].helo.as_str()),
        ("jürgen@y", true, "mta")
    );
    assert!(stored[0].message.is_empty());
    let (replies, _) = talk(b"LHLO x\r\nMAIL FROM:<s@y> BODY=BINARYMIME\r\n", 100);
    assert_eq!(codes(&replies).last(), Some(&"555"));
}

#[test]
fn a_stop_lets_the_transaction_end() {
    let mut session = LmtpSession::new("be", LIMITS);
    let say = |session: &mut LmtpSession, line: &str| match session.feed(line.as_bytes()).1 {
        Some(LmtpAction::Reply(reply) | LmtpAction::Close(reply)) => reply,
        Some(LmtpAction::CheckRecipient(address)) => {
            session.handle_recipient(&address, RecipientResult::Accepted)
        }
        other => format!("{other:?}"),
    };
    say(&mut session, "LHLO x\r\n");
    assert!(!session.is_in_transaction());
    say(&mut session, "MAIL FROM:<s@y>\r\n");
    session.handle_stop();
    assert!(session.is_in_transaction() && !session.is_receiving());
    assert!(say(&mut session, "RCPT TO:<a@x>\r\n").starts_with("250"));
    assert!(say(&mut session, "DATA\r\n").starts_with("354"));
    assert!(session.is_receiving());
    assert!(say(&mut session, ".\r\n").starts_with("Some(Deliver"));
    assert!(!session.is_in_transaction());
    assert!(say(&mut session, "MAIL FROM:<s@y>\r\n").starts_with("421 4.3.2"));
}

#[test]
fn a_full_disk_and_the_bounds_of_a_connection_are_told_at_mail() {
    let bounds = LmtpBounds { commands_max: 8, failures_max: 3, transactions_max: 1 };
    let mut session = LmtpSession::new("be", LIMITS).with_bounds(bounds);
    let mut say = |line: &str| match session.feed(line.as_bytes()).1 {
        Some(LmtpAction::Reply(reply) | LmtpAction::Close(reply)) => reply,
        Some(LmtpAction::CheckRecipient(address)) => {
            session.handle_recipient(&address, RecipientResult::Accepted)
        }
        other => {
            session.set_full(true);
            format!("{other:?}")
        }
    };
    say("LHLO x\r\n");
    say("MAIL FROM:<s@y>\r\n");
    say("RCPT TO:<a@x>\r\n");
    say("BDAT 1 LAST\r\n");
    assert!(say("x").contains("Deliver"));
    assert!(say("MAIL FROM:<s@y>\r\n").starts_with("421 4.7.0"));

    let mut session = LmtpSession::new("be", LIMITS).with_bounds(bounds);
    session.set_full(true);
    let mut say = |line: &str| match session.feed(line.as_bytes()).1 {
        Some(LmtpAction::Reply(reply) | LmtpAction::Close(reply)) => reply,
        other => format!("{other:?}"),
    };
    say("LHLO x\r\n");
    for _ in 0..7 {
        assert!(say("MAIL FROM:<s@y>\r\n").starts_with("452 4.3.1"));
    }
    assert_eq!(say("NOOP\r\n"), "421 4.7.0 too many commands\r\n");
}

#[test]
fn a_reply_line_stays_short() {
    let long = "x".repeat(1_000) + "@x";
    let mut session = LmtpSession::new("be", LIMITS);
    assert!(session.handle_recipient(&long, RecipientResult::Unknown).len() < 512);
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
        let mut chunked = chunks(b"BDAT 30 LAST\r\n");
        chunked.extend(&input);
        prop_assert_eq!(talk(&chunked, piece).1, talk(&chunked, 1).1);
        let mut greeted = message("");
        greeted.truncate(80);
        greeted.extend(input);
        let _ = talk(&greeted, piece);
    }
}
