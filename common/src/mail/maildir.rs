//! Maildir (<https://cr.yp.to/proto/maildir.html>): what file names say of a message, and folders of Maildir++, whose names
//! are in modified UTF-7 (RFC 3501 5.1.3).
//!
//! Not here: directories, reading files, which order messages came in (the file's own time says that).

use std::fmt;

use data_encoding::{Encoding, Specification};

/// Bytes of a folder's name, at most.
const NAME_BYTES_MAX: usize = 1024;
/// Folders one within the other, at most.
const DEPTH_MAX: usize = 32;

/// The flags of a message: what is behind `:2,`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "six letters that stand for themselves")]
pub struct Flags {
    /// `D`
    pub draft: bool,
    /// `F`
    pub flagged: bool,
    /// `P`: forwarded or resent.
    pub passed: bool,
    /// `R`
    pub replied: bool,
    /// `S`: read.
    pub seen: bool,
    /// `T`: to be deleted.
    pub trashed: bool,
}

impl Flags {
    /// The flags that a file name shows. Some writers use `;` or `!` for the colon, where a file system has none.
    pub fn of_name(name: &str) -> Self {
        let info = name.rsplit_once([':', ';', '!']).map_or("", |(_, info)| info);
        let letters = info.strip_prefix("2,").unwrap_or_default();
        let has = |letter| letters.contains(letter);
        Self {
            draft: has('D'),
            flagged: has('F'),
            passed: has('P'),
            replied: has('R'),
            seen: has('S'),
            trashed: has('T'),
        }
    }
}

/// The end of a file name in `cur/`: `:2,` and letters in the order of the alphabet.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(":2,")?;
        let all = [
            (self.draft, "D"),
            (self.flagged, "F"),
            (self.passed, "P"),
            (self.replied, "R"),
            (self.seen, "S"),
            (self.trashed, "T"),
        ];
        all.into_iter().filter(|(set, _)| *set).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// The name of a message's file in `cur/`: the time at which it came (Unix seconds), what tells it from others of that second,
/// its size in bytes as Maildir++ has it, and its flags.
pub fn file_name(date: i64, unique: &str, size: u64, flags: Flags) -> String {
    format!("{}.{unique}.directpush,S={size}{flags}", date.max(0))
}

/// What of a file name stays when flags change: all before `:2,`.
pub fn unflagged(name: &str) -> &str {
    name.rsplit_once(":2,").map_or(name, |(start, _)| start)
}

/// The default folder that a folder of this name at the top of another server's mailbox is, by the names that servers and mail
/// programs give them (RFC 6154 lists what they are for); `None` for a folder of the user's own.
pub fn default_folder(name: &str) -> Option<&'static str> {
    Some(match name.to_lowercase().as_str() {
        "inbox" => "Inbox",
        "drafts" | "draft" => "Drafts",
        "sent" | "sent items" | "sent messages" | "sent mail" | "sent-mail" => "Sent Items",
        "trash" | "deleted items" | "deleted messages" | "deleted" => "Deleted Items",
        "junk" | "spam" | "junk e-mail" | "junk email" | "junk mail" | "bulk mail" => "Junk E-mail",
        "outbox" => "Outbox",
        _ => return None,
    })
}

/// Whether a name in `cur/` or `new/` is that of a message: not hidden, and no path.
pub fn is_message(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// The seconds of the time at which a name says its file was made: the number it begins with.
pub fn date(name: &str) -> Option<i64> {
    let (number, _) = name.split_once('.')?;
    let ok = number.len() <= 12 && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| ok)
}

/// The path of the folder that a directory `.A.B` of a Maildir++ holds: `A`, then `B`. A name that is no modified UTF-7 is
/// taken as it is written, since some servers write UTF-8. `None` if it is no folder's directory.
pub fn folder_path(directory: &str) -> Option<Vec<String>> {
    let names = directory.strip_prefix('.')?;
    if names.is_empty() || directory.len() > NAME_BYTES_MAX {
        return None;
    }
    let path: Vec<String> =
        names.split('.').map(|name| decode_name(name).unwrap_or_else(|| name.to_owned())).collect();
    let ok = path.len() <= DEPTH_MAX && path.iter().all(|name| crate::names::check(name).is_ok());
    ok.then_some(path)
}

/// The directory of a folder: `.A.B`. What a Maildir++ name cannot hold, a dot or a slash, becomes an underscore.
pub fn directory(path: &[impl AsRef<str>]) -> String {
    let mut out = String::new();
    for name in path {
        let name: String = name
            .as_ref()
            .chars()
            .map(|c| if matches!(c, '.' | '/') || c.is_control() { '_' } else { c })
            .collect();
        out.push('.');
        out.push_str(&encode_name(&name));
    }
    out
}

/// Base64 with `,` for `/` and without padding. Bits left over must be zero.
fn base64() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    specification.encoding().unwrap_or(data_encoding::BASE64_NOPAD)
}

/// A name in modified UTF-7 (RFC 3501 5.1.3).
pub fn encode_name(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match c {
            '&' => {
                out.push_str("&-");
                rest = &rest[1..];
            }
            ' '..='~' => {
                out.push(c);
                rest = &rest[1..];
            }
            _ => {
                let end = rest.find(|c| matches!(c, ' '..='~')).unwrap_or(rest.len());
                let units: Vec<u8> = rest[..end].encode_utf16().flat_map(u16::to_be_bytes).collect();
                out.push('&');
                out.push_str(&base64().encode(&units));
                out.push('-');
                rest = &rest[end..];
            }
        }
    }
    out
}

/// Reads a name in modified UTF-7; `None` if it is none.
pub fn decode_name(name: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (shifted, after) = rest[at + 1..].split_once('-')?;
        if shifted.is_empty() {
            out.push('&');
        } else {
            let bytes = base64().decode(shifted.as_bytes()).ok()?;
            let (pairs, []) = bytes.as_chunks::<2>() else { return None };
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            for c in char::decode_utf16(units) {
                out.push(c.ok()?);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out.chars().all(|c| !c.is_control()).then_some(out).filter(|_| name.is_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_of_a_name() {
        let flags = Flags::of_name("1056923716.M20046P5Q.host,S=12:2,FRS");
        assert_eq!(flags, Flags { flagged: true, replied: true, seen: true, ..Flags::default() });
        assert_eq!(flags.to_string(), ":2,FRS");
        assert_eq!(Flags::of_name("1056923716.M2.host"), Flags::default());
        assert_eq!(Flags::of_name("1.a:1,S"), Flags::default());
        assert!(Flags::of_name("1.a;2,S").seen);
        assert_eq!(Flags::default().to_string(), ":2,");
        assert_eq!(date("1056923716.M2.host:2,"), Some(1_056_923_716));
        assert_eq!(date("x.y"), None);
        assert!(is_message("1.a") && !is_message(".hidden") && !is_message("../x") && !is_message(""));
    }

    #[test]
    fn names_of_files() {
        let flags = Flags { seen: true, flagged: true, ..Flags::default() };
        let name = file_name(784_111_777, "F2I5", 12, flags);
        assert_eq!(name, "784111777.F2I5.directpush,S=12:2,FS");
        assert_eq!((Flags::of_name(&name), date(&name)), (flags, Some(784_111_777)));
        assert_eq!(unflagged(&name), "784111777.F2I5.directpush,S=12");
        assert_eq!(unflagged("1.x"), "1.x");
        assert_eq!((default_folder("SENT"), default_folder("Sent 2025")), (Some("Sent Items"), None));
    }

    #[test]
    fn folders_of_maildir_plus_plus() {
        assert_eq!(folder_path(".Sent"), Some(vec!["Sent".to_owned()]));
        assert_eq!(
            folder_path(".Entw&APw-rfe.&ZeVnLIqe-"),
            Some(vec!["Entwürfe".to_owned(), "日本語".to_owned()])
        );
        assert_eq!(folder_path(".Entwürfe & Co"), Some(vec!["Entwürfe & Co".to_owned()]));
        assert_eq!(folder_path(".A&-B"), Some(vec!["A&B".to_owned()]));
        for none in ["cur", "new", ".", "..", ".a..b", ".a.", ".a/b", ".&AAA-"] {
            assert_eq!(folder_path(none).filter(|path| !path[0].contains('&')), None, "{none}");
        }
        assert_eq!(directory(&["Entwürfe", "A.B/C & D"]), ".Entw&APw-rfe.A_B_C &- D");
    }

    #[test]
    fn what_is_no_modified_utf_7_is_not_read_as_such() {
        for bad in ["&", "&AP", "&A-", "&AAAA-", "&2AA-", "ü", "&A/w-", "&APx-"] {
            assert_eq!(decode_name(bad), None, "{bad}");
        }
        assert_eq!(
            decode_name("~peter/mail/&ZeVnLIqe-/&U,BTFw-").as_deref(),
            Some("~peter/mail/日本語/台北")
        );
    }

    proptest! {
        #[test]
        fn names_survive(name in "[^\\p{Cc}]{0,20}") {
            let encoded = encode_name(&name);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode_name(&encoded), Some(name));
        }

        #[test]
        fn paths_survive(path in prop::collection::vec("[^\\p{Cc}/\\\\.]{1,8}", 1..5)) {
            prop_assert_eq!(folder_path(&directory(&path)), Some(path));
        }
    }
}
