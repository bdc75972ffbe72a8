//! The commands of EAS: their names and their codes in the base64 query ([MS-ASHTTP] command codes).
//!
//! All are known, so that an unimplemented one can be told from nonsense in a log; OPTIONS lists only
//! what this server carries out.

use std::fmt;
use std::str::FromStr;

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

/// The commands that the server carries out, in the order in which Exchange lists them.
pub const IMPLEMENTED: [Command; 13] = [
    Command::Sync,
    Command::SendMail,
    Command::SmartForward,
    Command::SmartReply,
    Command::GetAttachment,
    Command::FolderSync,
    Command::MoveItems,
    Command::GetItemEstimate,
    Command::Ping,
    Command::ItemOperations,
    Command::Provision,
    Command::ResolveRecipients,
    Command::ValidateCert,
];

/// `IMPLEMENTED` as the value of `MS-ASProtocolCommands`.
pub const IMPLEMENTED_LIST: &str = "Sync,SendMail,SmartForward,SmartReply,GetAttachment,FolderSync,\
    MoveItems,GetItemEstimate,Ping,ItemOperations,Provision,ResolveRecipients,ValidateCert";

/// The same where push is switched off: a device that does not see Ping polls instead.
pub const IMPLEMENTED_LIST_WITHOUT_PUSH: &str = "Sync,SendMail,SmartForward,SmartReply,GetAttachment,FolderSync,\
    MoveItems,GetItemEstimate,ItemOperations,Provision,ResolveRecipients,ValidateCert";

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

    /// Whether the server carries it out; if not, the answer is 501 or Status 137.
    pub fn is_implemented(self) -> bool {
        IMPLEMENTED.contains(&self)
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
    fn lists_are_what_is_implemented() {
        assert_eq!(IMPLEMENTED.map(Command::name).join(","), IMPLEMENTED_LIST);
        assert_eq!(IMPLEMENTED_LIST.replace("Ping,", ""), IMPLEMENTED_LIST_WITHOUT_PUSH);
    }
}
