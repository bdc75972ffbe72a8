//! The request line of ActiveSync: the query in both its forms, and the header fields that complete it.
//! The input is lines: query, MS-ASProtocolVersion, X-MS-PolicyKey, MS-ASAcceptMultiPart.
//! Seeds: request_line
#![no_main]

use directpush_common::eas::RequestLine;
use directpush_common::eas::request_line::RequestHeaders;
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let query = lines.next().unwrap_or("");
    let headers = RequestHeaders {
        protocol_version: lines.next(),
        policy_key: lines.next(),
        accept_multipart: lines.next(),
    };
    let decoded = RequestLine::decode(query, headers);
    if let Err(error) = &decoded {
        let _ = error.answer();
    }
    // The plain form has no place for the language.
    let decoded = decoded.map(|line| RequestLine { locale: None, ..line });
    round_trip(decoded.clone(), |line| {
        let (version, key) = (line.version.to_string(), line.policy_key.map(|key| key.to_string()));
        let headers = RequestHeaders {
            protocol_version: Some(&version),
            policy_key: key.as_deref(),
            accept_multipart: line.parameters.accept_multipart.then_some("T"),
        };
        RequestLine::decode(&line.encode_plain(), headers)
    });
    if let Some(packed) = decoded.ok().and_then(|line| line.encode_base64()) {
        let none = RequestHeaders { protocol_version: None, policy_key: None, accept_multipart: None };
        RequestLine::decode(&packed, none).expect("what was packed is read again");
    }
});
