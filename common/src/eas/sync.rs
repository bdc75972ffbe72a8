//! Sync's request and response ([MS-ASCMD] 2.2.1.21 Sync).
//!
//! One request carries several collections, each with its key, its options and the device's own changes;
//! the response gives each a new key, the server's changes and the fate of the device's. From 12.1 up
//! either may be empty: the request means "as the last time", the response "nothing happened".
//!
//! Items are element trees here: rendering mail, and reading what a device changed in it, is
//! `fe::eas`'s. Not here either: keys, windows, and what is sent when (`sync::plan`).

pub mod marks;
mod options;
mod request;
mod response;

#[cfg(test)]
mod tests;

pub use options::{BodyPreference, BodyType, FilterType, MimeSupport, SyncOptions};
pub(super) use options::{read_filter, read_options, write_body_preferences, write_options};
pub use request::{SyncBody, SyncCollection, SyncCommand, SyncError, SyncRequest, Wait};
pub use response::{CollectionResponse, CommandResponse, ServerCommand, SyncResponse, SyncResponseError};

use crate::wbxml::Element;
use crate::wbxml::tags::{air_sync, email};

/// What is in an ApplicationData element: the item's elements, in schema order.
pub type ApplicationData = Vec<Element>;

/// The read flag in a device's change of a message, if it is in there.
pub fn email_read(data: &ApplicationData) -> Option<bool> {
    let read = data.iter().find(|element| element.tag == email::READ)?;
    match read.own_text().trim() {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

/// Whether a device's change of a message touches nothing but the read flag and the follow-up flag.
pub fn is_flags_only(data: &ApplicationData) -> bool {
    data.iter().all(|element| [email::READ, email::FLAG].contains(&element.tag))
}

fn application_data(writer: &mut crate::wbxml::Writer, data: &ApplicationData) {
    writer.element(air_sync::APPLICATION_DATA, |writer| {
        for element in data {
            writer.tree(element);
        }
    });
}

fn read_application_data(parent: crate::wbxml::ElementRef<'_>) -> Option<ApplicationData> {
    let data = parent.child(air_sync::APPLICATION_DATA)?;
    Some(data.children().map(crate::wbxml::ElementRef::to_element).collect())
}
