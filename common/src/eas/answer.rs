//! What a device is answered when its request cannot be carried out, by command and version.
//!
//! From 14.0 up a common status goes into a body of the command's own namespace; before, it is an HTTP
//! status. Ping has a status of its own for a body that it cannot read, in every version
//! ([MS-ASCMD] 2.2.3.177.11 Status (Ping): "Frequently caused by poorly formatted WBXML").

use super::ping::PingResponse;
use super::{Command, CommonStatus, Version};
use crate::wbxml::tags::{
    air_sync, compose_mail, find, folder_hierarchy, item_estimate, item_operations, move_items, ping,
    provision, resolve_recipients, search, settings, validate_cert,
};
use crate::wbxml::{Tag, WbxmlError, Writer};

/// An answer that needs nothing but the request's command and version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// This HTTP status, without a body.
    Http(u16),
    /// 200 with this WBXML body.
    Body(Vec<u8>),
}

/// In which way a body cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// It is not WBXML at all.
    Content,
    /// It is WBXML, but broken.
    Wbxml,
    /// It is WBXML in order, but not the document that the command needs.
    Xml,
}

impl Malformed {
    /// The common status that says so.
    pub fn status(self) -> CommonStatus {
        match self {
            Self::Content => CommonStatus::InvalidContent,
            Self::Wbxml => CommonStatus::InvalidWbxml,
            Self::Xml => CommonStatus::InvalidXml,
        }
    }
}

impl From<&WbxmlError> for Malformed {
    fn from(error: &WbxmlError) -> Self {
        if error.is_other_content() { Self::Content } else { Self::Wbxml }
    }
}

/// The answer to a body that cannot be read.
pub fn malformed_answer(command: Command, version: Version, malformed: Malformed) -> Answer {
    if command == Command::Ping {
        return Answer::Body(PingResponse::Syntax.encode());
    }
    common_status_answer(command, version, malformed.status())
}

/// The answer that says this common status to a device of this version.
pub fn common_status_answer(command: Command, version: Version, status: CommonStatus) -> Answer {
    match status_place(command) {
        Some((root, tag)) if version.has_common_statuses() => {
            Answer::Body(Writer::document(root, |writer| writer.number(tag, status)))
        }
        _ => Answer::Http(status.http()),
    }
}

/// The answer to a device that may not be served (`provision::demand`). Below 14.0 a wipe is 403 to a device that sent no policy
/// key ([MS-ASCMD] 2.2.2 Common Status Codes, 140).
pub fn refusal_answer(
    command: Command,
    version: Version,
    status: CommonStatus,
    policy_key: Option<u32>,
) -> Answer {
    match common_status_answer(command, version, status) {
        Answer::Http(449) if status == CommonStatus::RemoteWipeRequested && policy_key.is_none() => {
            Answer::Http(403)
        }
        answer => answer,
    }
}

/// The root element of a command's response and its Status child, for the commands that have one there.
fn status_place(command: Command) -> Option<(Tag, Tag)> {
    Some(match command {
        Command::Sync => (air_sync::SYNC, air_sync::STATUS),
        Command::SendMail => (compose_mail::SEND_MAIL, compose_mail::STATUS),
        Command::SmartForward => (compose_mail::SMART_FORWARD, compose_mail::STATUS),
        Command::SmartReply => (compose_mail::SMART_REPLY, compose_mail::STATUS),
        Command::FolderSync => (folder_hierarchy::FOLDER_SYNC, folder_hierarchy::STATUS),
        Command::FolderCreate => (folder_hierarchy::FOLDER_CREATE, folder_hierarchy::STATUS),
        Command::FolderDelete => (folder_hierarchy::FOLDER_DELETE, folder_hierarchy::STATUS),
        Command::FolderUpdate => (folder_hierarchy::FOLDER_UPDATE, folder_hierarchy::STATUS),
        Command::GetItemEstimate => (item_estimate::GET_ITEM_ESTIMATE, item_estimate::STATUS),
        Command::Search => (search::SEARCH, search::STATUS),
        Command::Settings => (settings::SETTINGS, settings::STATUS),
        Command::Ping => (ping::PING, ping::STATUS),
        Command::ResolveRecipients => (resolve_recipients::RESOLVE_RECIPIENTS, resolve_recipients::STATUS),
        Command::ValidateCert => (validate_cert::VALIDATE_CERT, validate_cert::STATUS),
        Command::MoveItems => (move_items::MOVE_ITEMS, move_items::STATUS),
        Command::ItemOperations => (item_operations::ITEM_OPERATIONS, item_operations::STATUS),
        Command::Provision => (provision::PROVISION, provision::STATUS),
        Command::Find => (find::FIND, find::STATUS),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};

    #[track_caller]
    fn check(answer: Answer, http: u16, shown: &str) {
        match answer {
            Answer::Http(status) => assert_eq!((status, ""), (http, shown)),
            Answer::Body(body) => {
                assert_eq!((200, dump_bytes(&body, Contents::Shown).as_str()), (http, shown));
            }
        }
    }

    #[test]
    fn broken_bodies_are_answered_by_command_and_version() {
        let syntax = "<Ping><Status>4</Status></Ping>";
        for version in Version::ALL {
            check(malformed_answer(Command::Ping, version, Malformed::Content), 200, syntax);
            check(malformed_answer(Command::Ping, version, Malformed::Wbxml), 200, syntax);
        }
        for version in [Version::V2_5, Version::V12_0, Version::V12_1] {
            for command in [Command::Sync, Command::FolderSync, Command::GetItemEstimate, Command::Provision]
            {
                check(malformed_answer(command, version, Malformed::Wbxml), 400, "");
            }
        }
        let answer = |command, malformed| malformed_answer(command, Version::V14_0, malformed);
        check(
            answer(Command::FolderSync, Malformed::Wbxml),
            200,
            "<FolderSync><Status>102</Status></FolderSync>",
        );
        check(answer(Command::Sync, Malformed::Content), 200, "<Sync><Status>101</Status></Sync>");
        check(answer(Command::Sync, Malformed::Xml), 200, "<Sync><Status>103</Status></Sync>");
        check(
            answer(Command::Provision, Malformed::Wbxml),
            200,
            "<Provision><Status>102</Status></Provision>",
        );
        check(answer(Command::MeetingResponse, Malformed::Wbxml), 400, "");
    }

    #[test]
    fn a_device_without_a_policy_is_told_in_its_own_way() {
        let demand =
            |version| common_status_answer(Command::Sync, version, CommonStatus::DeviceNotProvisioned);
        check(demand(Version::V12_1), 449, "");
        check(demand(Version::V14_0), 200, "<Sync><Status>142</Status></Sync>");
    }
}
