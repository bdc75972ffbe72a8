//! The header fields of SUBSCRIBE and of its answer.
//! Seeds: headers
#![no_main]

use directpush_common::dav::subscribe::{Subscribe, Subscribed, format_ids, parse_ids};
use directpush_fuzz::{Fields, round_trip, written};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let fields = Fields::parse(data);
    round_trip(Subscribe::from_headers(|name| fields.get(name)), |request| {
        let again = request.to_headers();
        Subscribe::from_headers(|name| written(&again, name))
    });
    round_trip(Subscribed::from_headers(|name| fields.get(name)), |answer| {
        let again = answer.to_headers();
        Subscribed::from_headers(|name| written(&again, name))
    });
    if let Ok(text) = std::str::from_utf8(data) {
        round_trip(parse_ids(text), |ids| parse_ids(&format_ids(ids.iter().copied())));
    }
});
