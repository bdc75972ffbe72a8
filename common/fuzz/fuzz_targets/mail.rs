//! Messages as bytes: fields, addresses, traces, notifications. Whatever is taken out is gone, and the rest stays.
//! Seeds: mail
#![no_main]

use directpush_common::mail::address::{Address, addresses};
use directpush_common::mail::dsn::{Action, Recipient, Report, compose};
use directpush_common::mail::fields::{self, Fields};
use directpush_common::mail::trace;
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    assert_eq!(fields::without(message, &[]), message);
    let out = fields::without_bcc(message);
    assert!(!Fields::of(&out).any(|field| field.is("Bcc")));
    let _ = (fields::senders(message), fields::recipients(message, 10), fields::is_automatic(message));
    if let Some(id) = fields::message_id(message) {
        assert!(!id.contains(['\r', '\n', ' ']));
    }
    let to: Address = "a@x".parse().expect("an address");
    let _ = trace::is_looping(message, &to, 10);
    let text = String::from_utf8_lossy(message);
    round_trip(addresses(&text), |found| {
        addresses(&found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    });
    let delivered = trace::delivered(
        message,
        &text,
        &trace::Received { helo: &text, by: &text, ..trace::Received::default() },
    );
    assert_eq!(
        Fields::of(&delivered).take(2).map(|field| field.name).collect::<Vec<_>>(),
        ["Return-Path", "Received"]
    );
    let recipient = Recipient {
        address: to.clone(),
        action: Action::Failed,
        status: text.to_string(),
        diagnostic: text.to_string(),
        remote: text.to_string(),
        tried: 0,
    };
    let report =
        Report { to: &to, host: &text, arrived: 0, date: 0, recipients: &[recipient], message, unique: "u" };
    let bounce = compose(&report);
    assert_eq!(Fields::of(&bounce).count(), 8, "the header is ours alone");
});
