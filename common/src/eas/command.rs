//! The commands of EAS: their names and their codes in the base64 query ([MS-ASHTTP] command codes).
//!
//! All are known, so that one that is not carried out can be told from nonsense in a log; OPTIONS lists what
//! Exchange lists.

use std::fmt;
use std::str::FromStr;

use super::Version;

/// A command; its value is the code of the base64 query.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's, and say it all")]
pub enum Command {
    Sync = 0,
    SendMail = 1,
    SmartForward = 2,
    SmartReply = 3,
    GetAttachment = 4,
    GetHierarchy = 5,
    CreateCollection = 6,
    DeleteCollection = 7,
    MoveCollection = 8,
    FolderSync = 9,
    FolderCreate = 10,
    FolderDelete = 11,
    FolderUpdate = 12,
    MoveItems = 13,
    GetItemEstimate = 14,
    MeetingResponse = 15,
    Search = 16,
    Settings = 17,
    Ping = 18,
    ItemOperations = 19,
    Provision = 20,
    ResolveRecipients = 21,
    ValidateCert = 22,
    Find = 23,
}

/// The value of `MS-ASProtocolCommands`: what Exchange lists, in its order. Of these CreateCollection, DeleteCollection
/// and MoveCollection are carried out by no server, not by Exchange either, and MeetingResponse not by this one
/// ([`Command::is_of`]).
pub const LISTED: &str = "Sync,SendMail,SmartForward,SmartReply,GetAttachment,GetHierarchy,CreateCollection,\
                          DeleteCollection,MoveCollection,FolderSync,FolderCreate,FolderDelete,FolderUpdate,MoveItems,\
                          GetItemEstimate,MeetingResponse,Search,Settings,Ping,ItemOperations,Provision,\
                          ResolveRecipients,ValidateCert,Find";

/// The same where push is switched off: a device that does not see Ping polls instead.
pub const LISTED_WITHOUT_PUSH: &str = "Sync,SendMail,SmartForward,SmartReply,GetAttachment,GetHierarchy,\
                                       CreateCollection,DeleteCollection,MoveCollection,FolderSync,FolderCreate,\
                                       FolderDelete,FolderUpdate,MoveItems,GetItemEstimate,MeetingResponse,Search,\
                                       Settings,ItemOperations,Provision,ResolveRecipients,ValidateCert,Find";

/// Not a command that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a command")]
pub struct UnknownCommand;

impl Command {
    /// All commands; the index is the code.
    pub const ALL: [Self; 24] = [
        Self::Sync,
        Self::SendMail,
        Self::SmartForward,
        Self::SmartReply,
        Self::GetAttachment,
        Self::GetHierarchy,
        Self::CreateCollection,
        Self::DeleteCollection,
        Self::MoveCollection,
        Self::FolderSync,
        Self::FolderCreate,
        Self::FolderDelete,
        Self::FolderUpdate,
        Self::MoveItems,
        Self::GetItemEstimate,
        Self::MeetingResponse,
        Self::Search,
        Self::Settings,
        Self::Ping,
        Self::ItemOperations,
        Self::Provision,
        Self::ResolveRecipients,
        Self::ValidateCert,
        Self::Find,
    ];

    /// The name as `Cmd=` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "Sync",
            Self::SendMail => "SendMail",
            Self::SmartForward => "SmartForward",
            Self::SmartReply => "SmartReply",
            Self::GetAttachment => "GetAttachment",
            Self::GetHierarchy => "GetHierarchy",
            Self::CreateCollection => "CreateCollection",
            Self::DeleteCollection => "DeleteCollection",
            Self::MoveCollection => "MoveCollection",
            Self::FolderSync => "FolderSync",
            Self::FolderCreate => "FolderCreate",
            Self::FolderDelete => "FolderDelete",
            Self::FolderUpdate => "FolderUpdate",
            Self::MoveItems => "MoveItems",
            Self::GetItemEstimate => "GetItemEstimate",
            Self::MeetingResponse => "MeetingResponse",
            Self::Search => "Search",
            Self::Settings => "Settings",
            Self::Ping => "Ping",
            Self::ItemOperations => "ItemOperations",
            Self::Provision => "Provision",
            Self::ResolveRecipients => "ResolveRecipients",
            Self::ValidateCert => "ValidateCert",
            Self::Find => "Find",
        }
    }

    /// The code in the base64 query.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The command of this code.
    pub fn from_code(code: u8) -> Result<Self, UnknownCommand> {
        Self::ALL.get(usize::from(code)).copied().ok_or(UnknownCommand)
    }

    /// Whether a device of this version may send it; if not, the answer is 501 or Status 137.
    pub fn is_of(self, version: Version) -> bool {
        match self {
            // The last because the calendar is not served.
            Self::CreateCollection
            | Self::DeleteCollection
            | Self::MoveCollection
            | Self::MeetingResponse => false,
            // ItemOperations and FolderSync took their place.
            Self::GetAttachment | Self::GetHierarchy => version <= Version::V12_1,
            Self::Settings | Self::ItemOperations => version >= Version::V12_0,
            Self::Find => version >= Version::V16_1,
            _ => true,
        }
    }

    /// Whether its request carries a message.
    pub const fn sends_mail(self) -> bool {
        matches!(self, Self::SendMail | Self::SmartForward | Self::SmartReply)
    }

    /// Whether a device without a valid policy key may be told to provision when it sends this. Ping
    /// carries no key ([MS-ASPROV] policy key), so it never is.
    pub fn needs_policy_key(self) -> bool {
        !matches!(self, Self::Ping | Self::Provision)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(name: &str) -> Result<Self, UnknownCommand> {
        Self::ALL.into_iter().find(|command| command.name().eq_ignore_ascii_case(name)).ok_or(UnknownCommand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_their_command() {
        for command in Command::ALL {
            assert_eq!(Command::from_code(command.code()), Ok(command));
            assert_eq!(command.name().to_lowercase().parse(), Ok(command));
        }
        assert_eq!(Command::from_code(24), Err(UnknownCommand));
        assert_eq!("NotExist".parse::<Command>(), Err(UnknownCommand));
    }

    #[test]
    fn the_list_has_every_command_once_and_ping_only_with_push() {
        let mut listed: Vec<Command> = LISTED.split(',').map(|name| name.parse().unwrap()).collect();
        listed.sort_unstable();
        assert_eq!(listed, Command::ALL);
        assert_eq!(LISTED.replace("Ping,", ""), LISTED_WITHOUT_PUSH);
    }

    #[test]
    fn some_commands_are_of_some_versions_only() {
        let of = |command: Command| Version::ALL.into_iter().filter(|it| command.is_of(*it)).count();
        assert_eq!(
            [Command::Find, Command::Settings, Command::GetAttachment, Command::Ping].map(of),
            [1, 6, 3, 7]
        );
    }
}
