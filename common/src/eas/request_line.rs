//! What a request says beside its body: the query in both its forms, and the headers that belong to the
//! plain one ([MS-ASHTTP] request line; base64 query value).
//!
//! The plain form is `Cmd=Ping&User=u&DeviceId=d&DeviceType=t` in any order; from 12.1 up the whole query
//! may be base64 of a packed record instead, with `/`, `+` and `=` as they are. A query with a parameter
//! named `Cmd` is plain, anything else must be base64.
//!
//! Not here: whose request it is (authentication), and whether the server carries the command out.

mod device;
mod packed;
mod plain;

#[cfg(test)]
mod tests;

pub use device::{DeviceId, DeviceType, InvalidDevice};

use super::version::UnknownVersion;
use super::{Answer, Command, CommonStatus, Version, common_status_answer};

/// The header fields that complete a plain query, as they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHeaders<'a> {
    /// `MS-ASProtocolVersion`.
    pub protocol_version: Option<&'a str>,
    /// `X-MS-PolicyKey`.
    pub policy_key: Option<&'a str>,
    /// `MS-ASAcceptMultiPart`.
    pub accept_multipart: Option<&'a str>,
}

/// A request, but for its body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestLine {
    /// What is asked. It exists, but need not be implemented.
    pub command: Command,
    /// The version that the device speaks; one that is offered.
    pub version: Version,
    /// Whose mailbox, as the device wrote it: `u`, `u@d` or `d\u`. Base64 queries mostly leave it to the
    /// Authorization header. Compare by `names_user`.
    pub user: Option<String>,
    /// Which device.
    pub device_id: DeviceId,
    /// What kind of device.
    pub device_type: DeviceType,
    /// The policy that is in force on the device; `None` where it sent none, or no number.
    pub policy_key: Option<u32>,
    /// The device's language as a Windows LCID (base64 form only).
    pub locale: Option<u16>,
    /// What some commands need.
    pub parameters: Parameters,
}

/// Parameters of single commands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parameters {
    /// GetAttachment: which attachment.
    pub attachment_name: Option<String>,
    /// SmartReply and SmartForward: the folder of the original.
    pub collection_id: Option<String>,
    /// SmartReply and SmartForward: the original.
    pub item_id: Option<String>,
    /// SmartReply and SmartForward: the original, as Search named it.
    pub long_id: Option<String>,
    /// SmartReply and SmartForward: which occurrence of a series.
    pub occurrence: Option<String>,
    /// SendMail and its kind: keep a copy in the Sent folder.
    pub save_in_sent: bool,
    /// ItemOperations: the answer may have several parts.
    pub accept_multipart: bool,
}

/// Why a request line cannot be served, with what is needed to answer it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("request line: {fault}")]
pub struct RequestLineError {
    /// What is wrong.
    pub fault: RequestLineFault,
    /// The command, as far as it was understood.
    pub command: Option<Command>,
    /// The version, as far as it was understood.
    pub version: Option<Version>,
}

/// What can be wrong with a request line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestLineFault {
    /// Neither form, or broken.
    #[error("the query is malformed")]
    Malformed,
    /// No such command.
    #[error("unknown command")]
    UnknownCommand,
    /// A plain query without `MS-ASProtocolVersion`.
    #[error("no protocol version")]
    MissingVersion,
    /// A version that does not exist or is not offered.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// No DeviceId, or one that is refused.
    #[error("DeviceId missing or invalid")]
    DeviceId,
    /// No DeviceType, or one that is refused.
    #[error("DeviceType missing or invalid")]
    DeviceType,
}

impl RequestLine {
    /// The line of a request that is gone on with after its connection was parked. `None` only for a device whose name
    /// no request could have brought.
    pub fn resumed(command: Command, version: Version, device: &crate::names::DeviceKey) -> Option<Self> {
        Some(Self {
            command,
            version,
            user: None,
            device_id: DeviceId::new(device.device_id()).ok()?,
            device_type: DeviceType::new(device.device_type()).ok()?,
            policy_key: None,
            locale: None,
            parameters: Parameters::default(),
        })
    }
}

impl RequestLineError {
    /// What the device is answered.
    pub fn answer(&self) -> Answer {
        let status = match self.fault {
            RequestLineFault::Malformed | RequestLineFault::MissingVersion => return Answer::Http(400),
            RequestLineFault::UnknownCommand => CommonStatus::CommandNotSupported,
            RequestLineFault::UnsupportedVersion => CommonStatus::VersionNotSupported,
            RequestLineFault::DeviceId => CommonStatus::DeviceIdMissingOrInvalid,
            RequestLineFault::DeviceType => CommonStatus::DeviceTypeMissingOrInvalid,
        };
        match (self.command, self.version) {
            (Some(command), Some(version)) => common_status_answer(command, version, status),
            _ => Answer::Http(status.http()),
        }
    }
}

/// The query as either form reads it, before it is checked.
#[derive(Debug, Default)]
struct Draft {
    command: Option<Command>,
    version: Option<Result<Version, UnknownVersion>>,
    user: Option<String>,
    device_id: Option<Result<DeviceId, InvalidDevice>>,
    device_type: Option<Result<DeviceType, InvalidDevice>>,
    policy_key: Option<u32>,
    locale: Option<u16>,
    parameters: Parameters,
}

impl RequestLine {
    /// Reads the query (what follows `?`) with its headers. Never panics, whatever the text.
    pub fn decode(query: &str, headers: RequestHeaders<'_>) -> Result<Self, RequestLineError> {
        let draft = if plain::is_plain(query) {
            plain::read(query, headers)
        } else {
            packed::read(query, headers).ok_or(RequestLineError {
                fault: RequestLineFault::Malformed,
                command: None,
                version: None,
            })?
        };
        draft.check()
    }

    /// The plain query; the version and the policy key go into headers.
    pub fn encode_plain(&self) -> String {
        plain::write(self)
    }

    /// The base64 query; `None` where it has no room for a text, or the version does not know this form.
    pub fn encode_base64(&self) -> Option<String> {
        packed::write(self)
    }

    /// Whether the request is for the user that `is_same` recognises. A request without a user is for
    /// whoever authenticated. A `+` may stand for itself or for a blank: devices differ, so both count.
    pub fn names_user(&self, is_same: impl Fn(&str) -> bool) -> bool {
        match &self.user {
            None => true,
            Some(user) if user.is_empty() => true,
            Some(user) => is_same(user) || (user.contains('+') && is_same(&user.replace('+', " "))),
        }
    }
}

impl Draft {
    fn check(self) -> Result<RequestLine, RequestLineError> {
        let known = self.version.and_then(Result::ok);
        let error = |fault| RequestLineError { fault, command: self.command, version: known };
        let command = self.command.ok_or(error(RequestLineFault::UnknownCommand))?;
        if self.version.is_none() {
            return Err(error(RequestLineFault::MissingVersion));
        }
        let version = known
            .filter(|version| version.is_offered())
            .ok_or(error(RequestLineFault::UnsupportedVersion))?;
        let device_id = self.device_id.and_then(Result::ok).ok_or(error(RequestLineFault::DeviceId))?;
        let device_type = self.device_type.and_then(Result::ok).ok_or(error(RequestLineFault::DeviceType))?;
        Ok(RequestLine {
            command,
            version,
            user: self.user,
            device_id,
            device_type,
            policy_key: self.policy_key,
            locale: self.locale,
            parameters: self.parameters,
        })
    }
}
