//! The map from users to back ends, in both of its forms.
//! Seeds: placement
#![no_main]

use directpush_common::placement::Placement;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let user = "alice@example.com".parse().expect("a user");
    for file in ["map", "map.toml"] {
        match Placement::parse(text, file, &["be-1", "be-2"]) {
            Ok(placement) => assert!(placement.backend(&user).is_none_or(|at| at < 2)),
            Err(mistakes) => assert!(!mistakes.0.is_empty()),
        }
    }
});
