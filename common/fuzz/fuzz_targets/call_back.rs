//! The Call-Back URL, from a SUBSCRIBE.
//! Seeds: call_back
#![no_main]

use directpush_common::httpu::CallBack;
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|text: &str| {
    round_trip(text.parse::<CallBack>(), |call_back| call_back.to_string().parse());
});
