//! Exchange ActiveSync, the device-facing protocol, without I/O: the request line, the commands as types,
//! their statuses, and what each protocol version is answered when a request cannot be read.
//!
//! Every request and response can be written and read: the front end reads requests, the simulated
//! device reads responses, and the tests hold the two against each other.
//!
//! Not here: HTTP itself, authentication, and what a command does (`fe::eas`).

#[macro_use]
mod numbered;
#[cfg(test)]
#[macro_use]
mod testing;

pub mod answer;
pub mod autodiscover;
pub mod command;
pub mod compose_mail;
pub mod find;
pub mod folder_change;
pub mod folder_sync;
pub mod free_text;
pub mod item_estimate;
pub mod item_operations;
pub mod move_items;
pub mod ping;
pub mod provision;
pub mod request_line;
pub mod resolve_recipients;
pub mod search;
pub mod settings;
pub mod status;
pub mod sync;
pub mod validate_cert;
pub mod version;

pub use answer::{Answer, Malformed, common_status_answer, malformed_answer, refusal_answer};
pub use command::Command;
pub use request_line::{RequestLine, RequestLineError};
pub use status::CommonStatus;
pub use version::Version;

/// Names of the HTTP header fields that EAS adds ([MS-ASHTTP] request and response headers).
pub mod header {
    /// Request: the version that this request speaks (plain query only).
    pub const PROTOCOL_VERSION: &str = "MS-ASProtocolVersion";
    /// Response: all versions that the server speaks.
    pub const PROTOCOL_VERSIONS: &str = "MS-ASProtocolVersions";
    /// Response: all commands that the server carries out.
    pub const PROTOCOL_COMMANDS: &str = "MS-ASProtocolCommands";
    /// Request: the policy key (plain query only; never needed for Ping and OPTIONS).
    pub const POLICY_KEY: &str = "X-MS-PolicyKey";
    /// Request: `T` when ItemOperations may be answered in several parts.
    pub const ACCEPT_MULTIPART: &str = "MS-ASAcceptMultiPart";
    /// Response: the versions again, to a device that must start anew.
    pub const REPROVISION: &str = "X-MS-RP";
    /// Response: which server this is.
    pub const SERVER: &str = "MS-Server-ActiveSync";
}

/// The media type of WBXML bodies in both directions.
pub const CONTENT_TYPE: &str = "application/vnd.ms-sync.wbxml";

/// Whether the request's content type says WBXML; devices also write the short form, and none at all.
pub fn is_wbxml_content_type(value: Option<&str>) -> bool {
    let Some(value) = value else { return true };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    ["", CONTENT_TYPE, "application/vnd.ms-sync"].iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Whether this is the path of the EAS service: case does not matter, and IIS's own document may follow.
pub fn is_service_path(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    ["/Microsoft-Server-ActiveSync", "/Microsoft-Server-ActiveSync/default.eas"]
        .iter()
        .any(|known| path.eq_ignore_ascii_case(known))
}

/// A whole number as devices write it in an element: blanks around it and a sign are allowed, and one that
/// is too long for the type is still a number, the largest or smallest.
fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let limit = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_path_ignores_case_and_the_iis_document() {
        assert!(is_service_path("/Microsoft-Server-ActiveSync"));
        assert!(is_service_path("/microsoft-server-activesync/"));
        assert!(is_service_path("/Microsoft-Server-ActiveSync/default.eas"));
        assert!(!is_service_path("/Microsoft-Server-ActiveSync/other"));
        assert!(!is_service_path("/"));
    }

    #[test]
    fn content_type_may_be_short_or_absent() {
        assert!(is_wbxml_content_type(None));
        assert!(is_wbxml_content_type(Some("application/vnd.ms-sync.wbxml; charset=utf-8")));
        assert!(is_wbxml_content_type(Some("Application/vnd.ms-sync")));
        assert!(!is_wbxml_content_type(Some("text/plain")));
    }

    #[test]
    fn numbers_saturate_instead_of_failing() {
        assert_eq!(number(" -100 "), Some(-100));
        assert_eq!(number("+7"), Some(7));
        assert_eq!(number("99999999999999999999"), Some(i64::MAX));
        assert_eq!(number("-99999999999999999999"), Some(i64::MIN));
        for text in ["", "-", "1.5", "4 8", "0x10", "--1"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
