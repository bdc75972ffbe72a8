//! Access log lines: whatever names come from outside, a line stays one line with the same number of fields.
#![no_main]

use directpush_common::w3c::{FIELDS, Line, activesync_query};

libfuzzer_sys::fuzz_target!(|values: (i64, [&str; 6], u16)| {
    let (unix_millis, [method, stem, user, agent, device_id, device_type], status) = values;
    let query = activesync_query(user, device_id, device_type, "Ping", agent);
    let line =
        Line { unix_millis, method, stem, query: &query, user, agent, status, ..Line::default() }.format();
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(line.ends_with('\n') && !line.contains(['\r', '\0', '\x1b']), "{line:?}");
    assert_eq!(line.split(' ').count(), FIELDS.split_whitespace().count(), "{line:?}");
});
