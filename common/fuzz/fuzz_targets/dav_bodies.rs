//! The XML bodies between front end and back end, both directions: POLL, hierarchy, items.
//! Seeds: dav
#![no_main]

use directpush_common::dav::hierarchy::{self, Hierarchy};
use directpush_common::dav::items::{Items, ItemsRequest};
use directpush_common::dav::{poll, xml};
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    settles(poll::read(data), |answers| poll::read(poll::write("/exchange/a/", answers).as_bytes()));
    settles(Hierarchy::read(data), |hierarchy| Hierarchy::read(hierarchy.write().as_bytes()));
    settles(Items::read(data), |items| Items::read(items.write("/f/", |id| format!("/f/{id}")).as_bytes()));
    if let Ok(root) = xml::parse(data) {
        settles(ItemsRequest::read(&root), |request| {
            ItemsRequest::read(&xml::parse(request.write().as_bytes())?)
        });
        settles(hierarchy::read_request(&root), |since| {
            hierarchy::read_request(&xml::parse(hierarchy::write_request(*since).as_bytes())?)
        });
    }
});
