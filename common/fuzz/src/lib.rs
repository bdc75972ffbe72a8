//! What the fuzz targets share: the property they all check, and header fields made of lines.
//!
//! Each target is one file in `fuzz_targets/`. It feeds bytes to one decoder of `directpush-common` and holds it to two
//! promises: it never panics, and what it accepts reads the same once it was written again.
//! `cargo xtask fuzz` runs them.

#![forbid(unsafe_code)]

use std::fmt::Debug;

/// Decodes, writes again, decodes again: the value must be the same.
///
/// # Panics
/// If the decoder does not accept what the encoder wrote, or reads something else.
pub fn round_trip<T: Debug + PartialEq, E: Debug>(
    decoded: Result<T, E>,
    again: impl FnOnce(&T) -> Result<T, E>,
) {
    if let Ok(value) = decoded {
        match again(&value) {
            Ok(second) => assert_eq!(value, second, "reads differently once it was written"),
            Err(error) => panic!("what was written is refused: {error:?}\n{value:?}"),
        }
    }
}

/// Header fields from lines `Name: value`, as far as the input is text.
pub struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    /// Lines without a colon are not fields.
    pub fn parse(data: &'a [u8]) -> Self {
        let text = std::str::from_utf8(data).unwrap_or("");
        Self(
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name, value.trim()))
                .collect(),
        )
    }

    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// Looks a field up in what an encoder gave.
pub fn written<'a>(fields: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Like [`round_trip`], for formats whose writer leaves out what the wire cannot carry, such as control characters: the
/// first writing may change the value, or leave too little of it; what is read then must stay as it is.
///
/// # Panics
/// If a second writing still changes the value.
pub fn settles<T: Debug + PartialEq, E: Debug>(decoded: Result<T, E>, again: impl Fn(&T) -> Result<T, E>) {
    if let Ok(value) = decoded {
        round_trip(again(&value), again);
    }
}
