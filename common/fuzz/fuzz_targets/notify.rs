//! The NOTIFY datagram, which anyone can send to a front end.
//! Seeds: httpu
#![no_main]

use directpush_common::httpu::Notify;
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Ids in decimal and a canonical Call-Back may be longer than what was read: then the bound may refuse it.
    if data.len() < 1024 {
        round_trip(Notify::decode(data), |notify| Notify::decode(&notify.encode()));
    } else {
        let _ = Notify::decode(data);
    }
});
