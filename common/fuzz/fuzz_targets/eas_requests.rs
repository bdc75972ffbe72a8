//! The bodies of ActiveSync commands as types, requests and responses.
//! Seeds: eas
#![no_main]

use directpush_common::eas::Version;
use directpush_common::eas::folder_sync::{FolderSyncRequest, FolderSyncResponse};
use directpush_common::eas::item_estimate::{ItemEstimateRequest, ItemEstimateResponse};
use directpush_common::eas::ping::{PingBody, PingResponse};
use directpush_common::eas::provision::{ProvisionRequest, ProvisionResponse};
use directpush_common::eas::sync::{SyncBody, SyncResponse};
use directpush_common::wbxml::Limits;
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let ping = PingBody::decode(data, limits);
    settles(ping, |body| match body {
        PingBody::Empty => Ok(PingBody::Empty),
        PingBody::Full(request) => PingBody::decode(&request.encode(), limits),
    });
    settles(PingResponse::decode(data, limits), |response| PingResponse::decode(&response.encode(), limits));

    let folder_sync = FolderSyncRequest::decode(data, limits);
    if let Err(error) = &folder_sync {
        let _ = error.answer(Version::V14_1);
    }
    settles(folder_sync, |request| FolderSyncRequest::decode(&request.encode(), limits));
    settles(FolderSyncResponse::decode(data, limits), |response| {
        FolderSyncResponse::decode(&response.encode(), limits)
    });

    settles(ProvisionRequest::decode(data, limits), |request| {
        ProvisionRequest::decode(&request.encode(), limits)
    });
    settles(ProvisionResponse::decode(data, limits), |response| {
        ProvisionResponse::decode(&response.encode(), limits)
    });

    for version in [Version::V2_5, Version::V14_1] {
        settles(SyncBody::decode(data, limits), |body| match body {
            SyncBody::Empty => Ok(SyncBody::Empty),
            SyncBody::Full(request) => SyncBody::decode(&request.encode(version), limits),
        });
        let response = SyncResponse::decode(data, limits);
        settles(response, |response| SyncResponse::decode(&response.encode(version), limits));
        let request = ItemEstimateRequest::decode(data, limits);
        settles(request, |request| ItemEstimateRequest::decode(&request.encode(version), limits));
        let response = ItemEstimateResponse::decode(data, limits);
        settles(response, |response| ItemEstimateResponse::decode(&response.encode(version), limits));
    }
});
