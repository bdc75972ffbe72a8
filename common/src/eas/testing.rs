//! What the tests of the commands share: recorded messages and hex.

use data_encoding::HEXLOWER_PERMISSIVE;

/// The bytes of `testdata/eas/<name>.hex`.
macro_rules! recorded {
    ($name:literal) => {
        crate::eas::testing::bytes(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/eas/",
            $name,
            ".hex"
        )))
    };
}

/// Bytes from hex digits; blanks, line ends and `#` comments to the line's end do not count.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let lines = hex.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: String = lines.flat_map(str::split_whitespace).collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap()
}
