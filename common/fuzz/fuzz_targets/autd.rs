//! AutdState.xml, as a front end finds it in a mailbox.
//! Seeds: autd
#![no_main]

use directpush_common::autd::AutdState;
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    settles(AutdState::from_xml(data), |state| AutdState::from_xml(state.to_xml().as_bytes()));
});
