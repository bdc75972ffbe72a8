//! WBXML documents: the reader, the writer and the dump.
//! Seeds: eas
#![no_main]

use directpush_common::wbxml::{Contents, Document, Element, Limits, dump_bytes};
use directpush_fuzz::settles;

fn read(bytes: &[u8]) -> Result<Element, String> {
    let document = Document::parse(bytes, Limits::default()).map_err(|error| error.to_string())?;
    Ok(document.root().to_element())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = dump_bytes(data, Contents::Shown);
    let _ = dump_bytes(data, Contents::Hidden);
    settles(read(data), |element| read(&element.to_document()));
});
