//! Request bodies of PROPFIND, PROPPATCH and LOCK.
//! Seeds: dav_update
#![no_main]

use directpush_common::dav::lock_body::LockInfo;
use directpush_common::dav::properties::{Instruction, Propfind, parse_update};
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Propfind::parse(data);
    let _ = LockInfo::parse(data);
    settles(parse_update(data), |steps| {
        let mut body = String::from("<D:propertyupdate xmlns:D=\"DAV:\">");
        for step in steps {
            let (what, inside) = match step {
                Instruction::Set(fragment) => ("set", fragment.xml.clone()),
                Instruction::Remove(name) => ("remove", name.to_string()),
            };
            body.push_str(&format!("<D:{what}><D:prop>{inside}</D:prop></D:{what}>"));
        }
        parse_update((body + "</D:propertyupdate>").as_bytes())
    });
});
