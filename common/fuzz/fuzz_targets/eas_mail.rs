//! The bodies of the commands about mail, folders and people, as devices send them: read without a panic, whatever they are.
//! Seeds: eas
#![no_main]

use directpush_common::dav::find::{Find, Found};
use directpush_common::dav::xml;
use directpush_common::eas::autodiscover::AutodiscoverRequest;
use directpush_common::eas::compose_mail::ComposeRequest;
use directpush_common::eas::find::FindRequest;
use directpush_common::eas::folder_change::FolderChangeRequest;
use directpush_common::eas::move_items::{MoveItemsRequest, MoveItemsResponse};
use directpush_common::eas::resolve_recipients::{ResolveRequest, ResolveResponse};
use directpush_common::eas::search::SearchRequest;
use directpush_common::eas::settings::SettingsRequest;
use directpush_common::eas::validate_cert::ValidateCertRequest;
use directpush_common::eas::{Command, item_operations};
use directpush_common::mail::marks::Marks;
use directpush_common::wbxml::Limits;
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    for command in [Command::SendMail, Command::SmartReply, Command::SmartForward] {
        let _ = ComposeRequest::decode(command, data, 1 << 20);
    }
    for command in [Command::FolderCreate, Command::FolderUpdate, Command::FolderDelete] {
        let _ = FolderChangeRequest::decode(data, command, limits);
    }
    let _ = AutodiscoverRequest::decode(data);
    let _ = FindRequest::decode(data, limits);
    let _ = SearchRequest::decode(data, limits);
    let _ = SettingsRequest::decode(data, limits);
    let _ = MoveItemsRequest::decode(data, limits);
    let _ = MoveItemsResponse::decode(data, limits);
    let _ = ResolveRequest::decode(data, limits);
    let _ = ResolveResponse::decode(data, limits);
    let _ = ValidateCertRequest::decode(data, limits);
    let _ = item_operations::decode(data, limits);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Marks::from_text(text);
    }
    if let Ok(root) = xml::parse(data) {
        settles(Find::read(&root), |find| Find::read(&xml::parse(find.write().as_bytes())?));
        let _ = Found::read(&root);
    }
});
