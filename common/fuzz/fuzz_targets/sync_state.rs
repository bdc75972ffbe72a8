//! The state of a device as a front end finds it in the mailbox: JSON, of this version or another.
//! Seeds: sync_state
#![no_main]

use directpush_common::sync::state::{CollectionState, FolderSyncState, ProvisionState};
use directpush_fuzz::round_trip;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fn again<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&serde_json::to_vec(value)?)
    }
    let collection = serde_json::from_slice::<CollectionState>(data);
    if let Ok(state) = &collection {
        let _ = state.clone().checked();
        let _ = state.resume(state_key(data));
    }
    round_trip(collection, again);
    let hierarchy = serde_json::from_slice::<FolderSyncState>(data);
    if let Ok(state) = &hierarchy {
        let _ = state.clone().checked();
        let _ = state.known(state_key(data));
    }
    round_trip(hierarchy, again);
    round_trip(serde_json::from_slice::<ProvisionState>(data), again);
});

/// Some key; mostly a small one.
fn state_key(data: &[u8]) -> u32 {
    data.first().copied().map_or(0, u32::from)
}
