//! Names from URLs and headers: users, devices, folders, items, segments.
//! Seeds: names
#![no_main]

use directpush_common::names::{DeviceKey, FolderId, Guid, ItemId, UserName, decode_segment, encode_segment};
use directpush_common::numbers::CollectionToken;
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|text: &str| {
    round_trip(decode_segment(text), |name| decode_segment(&encode_segment(name)));
    if let Ok(name) = decode_segment(text) {
        assert!(
            !name.contains(['/', '\\', '\0']) && name != ".." && name != ".",
            "{name:?} is not one segment"
        );
    }
    round_trip(text.parse::<UserName>(), |user| user.as_str().parse());
    round_trip(text.parse::<DeviceKey>(), |device| device.to_string().parse());
    round_trip(text.parse::<FolderId>(), |folder| folder.to_string().parse());
    round_trip(text.parse::<Guid>(), |guid| guid.to_string().parse());
    round_trip(Guid::from_group(text), |guid| Guid::from_group(&guid.to_group()));
    round_trip(text.parse::<CollectionToken>(), |token| token.to_string().parse());
    let _ = ItemId::from_section(text);
});
