//! The header fields of DAV clients: `If`, conditions, ranges, Destination, lock tokens.
//! Seeds: dav_request
#![no_main]

use directpush_common::dav::conditions::{Conditions, parse_http_date};
use directpush_common::dav::if_header::{IfHeader, ResourceState};
use directpush_common::dav::range::{self, Ranges};
use directpush_common::dav::request::{Depth, Timeout, lock_token, uri_path};
use directpush_fuzz::{Fields, round_trip};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let fields = Fields::parse(data);
    let field = |name: &str| fields.get(name);
    let _ = Depth::parse(field("Depth"), Depth::Infinity);
    if let Some(timeout) = Timeout::parse(field("Timeout")) {
        assert_eq!(Timeout::parse(Some(&timeout.to_string())), Some(timeout));
    }
    let _ = field("Lock-Token").map(lock_token);
    if let Some(path) = field("Destination").and_then(|value| uri_path(value, Some("h.example")).ok()) {
        assert!(path.starts_with('/'));
    }
    if let Some(value) = field("If") {
        round_trip(IfHeader::parse(value), |header| IfHeader::parse(&header.to_string()));
        let _ = IfHeader::parse(value).map(|header| header.holds(|_| ResourceState::default()));
    }
    let _ = Conditions::from_headers(field).check(true, Some(("\"1\"", 1)));
    let _ = field("Date").map(parse_http_date);
    if let Some(value) = field("Range") {
        for ranges in [range::bytes(value, 1000), range::rows(value, 1000)] {
            if let Ranges::Parts(parts) = ranges {
                assert!(parts.iter().all(|(first, last)| first <= last && *last < 1000));
            }
        }
    }
});
