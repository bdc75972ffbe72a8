//! The base64 query: version, command, locale, device id, policy key, device type, then parameters, each
//! with its length ([MS-ASHTTP] base64 query value).

use data_encoding::{BASE64, BASE64_NOPAD};
use percent_encoding::percent_decode_str;

use super::{DeviceId, DeviceType, Draft, RequestHeaders, RequestLine};
use crate::eas::{Command, Version};

const ATTACHMENT_NAME: u8 = 0;
const COLLECTION_ID: u8 = 1;
const ITEM_ID: u8 = 3;
const LONG_ID: u8 = 4;
const OCCURRENCE: u8 = 6;
const OPTIONS: u8 = 7;
const USER: u8 = 8;

/// Bits of the `OPTIONS` byte.
const SAVE_IN_SENT: u8 = 0x01;
const ACCEPT_MULTIPART: u8 = 0x02;

/// `None` if the query is not base64 or the record does not add up. What the record says may still be
/// wrong; it is checked together with the plain form's.
pub(super) fn read(query: &str, headers: RequestHeaders<'_>) -> Option<Draft> {
    let bytes = decoded(query)?;
    let mut record = Record(&bytes);
    let version = record.byte()?;
    let command = record.byte()?;
    let mut draft = Draft {
        version: Some(Version::from_query_byte(version)),
        command: Command::from_code(command).ok(),
        locale: Some(u16::from_le_bytes(record.take(2)?.try_into().ok()?)),
        device_id: Some(DeviceId::from_bytes(record.prefixed()?)),
        policy_key: match record.prefixed()? {
            // Some devices send the header all the same.
            [] => headers.policy_key.and_then(|key| key.trim().parse().ok()),
            key => Some(u32::from_le_bytes(key.try_into().ok()?)),
        },
        device_type: Some(DeviceType::new(&text(record.prefixed()?))),
        ..Draft::default()
    };
    while let Some(tag) = record.byte() {
        let value = record.prefixed()?;
        let parameters = &mut draft.parameters;
        match tag {
            ATTACHMENT_NAME => parameters.attachment_name = Some(text(value)),
            COLLECTION_ID => parameters.collection_id = Some(text(value)),
            ITEM_ID => parameters.item_id = Some(text(value)),
            LONG_ID => parameters.long_id = Some(text(value)),
            OCCURRENCE => parameters.occurrence = Some(text(value)),
            OPTIONS => {
                let bits = value.first().copied().unwrap_or_default();
                parameters.save_in_sent = bits & SAVE_IN_SENT != 0;
                parameters.accept_multipart = bits & ACCEPT_MULTIPART != 0;
            }
            USER => draft.user = Some(text(value)),
            _ => {}
        }
    }
    Some(draft)
}

pub(super) fn write(line: &RequestLine) -> Option<String> {
    fn add(record: &mut Vec<u8>, value: &[u8]) -> Option<()> {
        record.push(u8::try_from(value.len()).ok()?);
        record.extend_from_slice(value);
        Some(())
    }
    if !line.version.has_base64_query() {
        return None;
    }
    let mut record = vec![line.version.query_byte(), line.command.code()];
    record.extend(line.locale.unwrap_or_default().to_le_bytes());
    add(&mut record, line.device_id.as_str().as_bytes())?;
    match line.policy_key {
        Some(key) => add(&mut record, &key.to_le_bytes())?,
        None => record.push(0),
    }
    add(&mut record, line.device_type.as_str().as_bytes())?;
    let parameters = &line.parameters;
    let texts = [
        (ATTACHMENT_NAME, &parameters.attachment_name),
        (COLLECTION_ID, &parameters.collection_id),
        (ITEM_ID, &parameters.item_id),
        (LONG_ID, &parameters.long_id),
        (OCCURRENCE, &parameters.occurrence),
        (USER, &line.user),
    ];
    for (tag, value) in texts {
        if let Some(value) = value {
            record.push(tag);
            add(&mut record, value.as_bytes())?;
        }
    }
    let options = (u8::from(parameters.save_in_sent) * SAVE_IN_SENT)
        | (u8::from(parameters.accept_multipart) * ACCEPT_MULTIPART);
    if options != 0 {
        record.push(OPTIONS);
        add(&mut record, &[options])?;
    }
    Some(BASE64.encode(&record))
}

/// The record's bytes: padding may be missing, and a proxy may have percent-encoded `/`, `+` or `=`.
fn decoded(query: &str) -> Option<Vec<u8>> {
    let unescaped = percent_decode_str(query).decode_utf8().ok()?;
    BASE64_NOPAD.decode(unescaped.trim_end_matches('=').as_bytes()).ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is left of the record.
struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }
}
