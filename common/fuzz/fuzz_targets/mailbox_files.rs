//! mbox files, cut anywhere, and the names of Maildir.
//! Seeds: mbox, names
#![no_main]

use directpush_common::mail::maildir::{
    Flags, date, decode_name, directory, encode_name, folder_path, is_message,
};
use directpush_common::mail::mbox::{Found, MboxReader};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Found> {
    let mut reader = MboxReader::new(1024);
    let mut found: Vec<_> = pieces.flat_map(|piece| reader.push(piece)).collect();
    found.extend(reader.finish());
    found
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    assert_eq!(read(std::iter::once(data)), read(data.chunks(3)), "depends on how the bytes are cut");
    let Ok(name) = std::str::from_utf8(data) else { return };
    let flags = Flags::of_name(name);
    assert_eq!(Flags::of_name(&format!("x{flags}")), flags);
    let _ = (date(name), is_message(name));
    if let Some(path) = folder_path(name) {
        let again = directory(&path);
        assert!(again.len() > 1024 || folder_path(&again).is_some());
    }
    if let Some(decoded) = decode_name(name) {
        assert_eq!(decode_name(&encode_name(&decoded)), Some(decoded));
    }
});
