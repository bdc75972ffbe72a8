//! The SQL of SEARCH.
//! Seeds: search
#![no_main]

use directpush_common::dav::search::{Search, Value};
use directpush_fuzz::settles;

libfuzzer_sys::fuzz_target!(|sql: &str| {
    let search = Search::parse(sql);
    if let Ok(search) = &search {
        for value in [Value::Null, Value::Int(1), Value::Text("x".into()), Value::Texts(vec!["y".into()])] {
            search.matches(|_| value.clone());
        }
    }
    settles(search, |search| Search::parse(&search.to_string()));
    let _ = Search::parse_body(sql.as_bytes());
});
