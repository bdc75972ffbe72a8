//! What a device sends and gets, before and after HTTP: requests with their headers, responses.
//!
//! Not here: the password (the driver adds it), sockets.

use directpush_common::{
    clock::Moment,
    eas::{CONTENT_TYPE, Command, RequestLine, Version, header, request_line::Parameters},
};

use super::profile::Profile;

/// The path of the service.
pub const SERVICE_PATH: &str = "/Microsoft-Server-ActiveSync";

/// What a request is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// Which versions and commands the server has.
    Options,
    /// First phase: the policy, please.
    ProvisionAsk,
    /// Second phase: the policy of this temporary key is in force.
    ProvisionAcknowledge(u32),
    /// What changed in the hierarchy.
    FolderSync,
    /// What changed in these folders.
    Sync(Vec<String>),
    /// Tell me when something changes, or after this many seconds.
    Ping(u32),
}

impl Task {
    /// The command; `None` for OPTIONS.
    pub fn command(&self) -> Option<Command> {
        match self {
            Self::Options => None,
            Self::ProvisionAsk | Self::ProvisionAcknowledge(_) => Some(Command::Provision),
            Self::FolderSync => Some(Command::FolderSync),
            Self::Sync(_) => Some(Command::Sync),
            Self::Ping(_) => Some(Command::Ping),
        }
    }

    /// The command's name, for logs.
    pub fn name(&self) -> &'static str {
        self.command().map_or("OPTIONS", Command::name)
    }
}

/// A request, ready for HTTP but for the password.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is for.
    pub task: Task,
    /// `OPTIONS` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Header fields, without Host, Authorization and Content-Length.
    pub headers: Vec<(&'static str, String)>,
    /// The body, perhaps empty.
    pub body: Vec<u8>,
    /// When the device gives up on the answer.
    pub give_up: Moment,
}

impl Request {
    /// The request for `task` of the device `profile`, speaking `version`.
    pub(super) fn new(
        profile: &Profile,
        version: Version,
        policy_key: Option<u32>,
        task: Task,
        body: Vec<u8>,
        give_up: Moment,
    ) -> Self {
        let mut headers = vec![("User-Agent", profile.user_agent.clone())];
        let Some(command) = task.command() else {
            return Self { task, method: "OPTIONS", target: SERVICE_PATH.to_owned(), headers, body, give_up };
        };
        // Ping never carries the key ([MS-ASPROV] policy key).
        let policy_key = policy_key.filter(|_| command != Command::Ping);
        let line = RequestLine {
            command,
            version,
            user: Some(profile.user.clone()),
            device_id: profile.device_id.clone(),
            device_type: profile.device_type.clone(),
            policy_key,
            locale: Some(0x0409),
            parameters: Parameters::default(),
        };
        let packed = profile.base64.then(|| line.encode_base64()).flatten();
        let query = packed.unwrap_or_else(|| {
            headers.push((header::PROTOCOL_VERSION, version.to_string()));
            if let Some(key) = policy_key {
                headers.push((header::POLICY_KEY, key.to_string()));
            }
            command_last(&line.encode_plain())
        });
        // An empty body has no type ([MS-ASHTTP] Content-Type).
        if !body.is_empty() {
            headers.push(("Content-Type", CONTENT_TYPE.to_owned()));
        }
        let target = format!("{SERVICE_PATH}?{query}");
        Self { task, method: "POST", target, headers, body, give_up }
    }
}

/// The order in which Windows Mobile and iOS write the parameters: `User`, `DeviceId`, `DeviceType`, `Cmd`.
fn command_last(query: &str) -> String {
    match query.split_once('&') {
        Some((command, rest)) => format!("{rest}&{command}"),
        None => query.to_owned(),
    }
}

/// A response, as far as a device reads it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, perhaps empty.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `Retry-After`, in seconds.
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")?.trim().parse().ok()
    }
}
