//! The plain query: named parameters in any order, names in any case, values percent-encoded.

use std::borrow::Cow;
use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{DeviceId, DeviceType, Draft, RequestHeaders, RequestLine};

/// Everything but what RFC 3986 2.3 leaves unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether the query has a parameter named `Cmd`. A base64 query cannot: it has no `&`, and `=` only
/// behind a record that is longer than three characters.
pub(super) fn is_plain(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        name.eq_ignore_ascii_case("Cmd")
    })
}

pub(super) fn read(query: &str, headers: RequestHeaders<'_>) -> Draft {
    let mut draft = Draft {
        version: headers.protocol_version.map(str::parse),
        policy_key: headers.policy_key.and_then(|key| key.trim().parse().ok()),
        ..Draft::default()
    };
    draft.parameters.accept_multipart = headers.accept_multipart.is_some_and(is_true);
    for pair in query.split('&') {
        let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || decoded(raw);
        let text = || Some(value().into_owned());
        match name.to_ascii_lowercase().as_str() {
            "cmd" => draft.command = value().parse().ok(),
            // A `+` stays: in a user's name it is far more often itself than a blank.
            "user" => draft.user = Some(percent_decode_str(raw).decode_utf8_lossy().into_owned()),
            "deviceid" => draft.device_id = Some(DeviceId::new(&value())),
            "devicetype" => draft.device_type = Some(DeviceType::new(&value())),
            "attachmentname" => draft.parameters.attachment_name = text(),
            "collectionid" => draft.parameters.collection_id = text(),
            "itemid" => draft.parameters.item_id = text(),
            "longid" => draft.parameters.long_id = text(),
            "occurrence" => draft.parameters.occurrence = text(),
            "saveinsent" => draft.parameters.save_in_sent = is_true(&value()),
            _ => {}
        }
    }
    draft
}

pub(super) fn write(line: &RequestLine) -> String {
    let mut query = format!("Cmd={}", line.command);
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", utf8_percent_encode(value, ENCODED));
        }
    };
    let parameters = &line.parameters;
    add("User", line.user.as_deref());
    add("DeviceId", Some(line.device_id.as_str()));
    add("DeviceType", Some(line.device_type.as_str()));
    add("AttachmentName", parameters.attachment_name.as_deref());
    add("CollectionId", parameters.collection_id.as_deref());
    add("ItemId", parameters.item_id.as_deref());
    add("LongId", parameters.long_id.as_deref());
    add("Occurrence", parameters.occurrence.as_deref());
    add("SaveInSent", parameters.save_in_sent.then_some("T"));
    query
}

fn is_true(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("T")
}

/// A value without its escapes; `+` is a blank. What is not UTF-8 becomes U+FFFD and matches nothing.
fn decoded(raw: &str) -> Cow<'_, str> {
    if raw.contains('+') {
        let blanks = raw.replace('+', " ");
        Cow::Owned(percent_decode_str(&blanks).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(raw).decode_utf8_lossy()
    }
}
