//! The commands of Exchange ActiveSync: what the device asks, done at the back end.
//!
//! [`dispatch`] takes a request from HTTP to its command and its answer back; one file per command
//! does the rest. Reading and writing the bodies is `common::eas`, planning a Sync `common::sync`,
//! deciding a Ping `common::push`.

pub mod autodiscover;
pub mod budget;
pub mod compose;
pub mod content;
pub mod dispatch;
pub mod draft;
pub mod estimate;
pub mod find;
pub mod folder_change;
pub mod folder_create;
pub mod folder_delete;
pub mod folder_sync;
pub mod folder_update;
pub mod folders;
pub mod found;
pub mod get_attachment;
pub mod get_hierarchy;
pub mod hanging;
pub mod item;
pub mod item_operations;
pub mod move_items;
pub mod options;
pub mod parked;
pub mod ping;
pub mod provision;
pub mod question;
pub mod render;
pub mod resolve_recipients;
pub mod search;
pub mod send_mail;
pub mod sent;
pub mod settings;
pub mod standing;
pub mod state;
pub mod sync;
pub mod sync_collection;
pub mod sync_upload;
pub mod validate_cert;

use std::sync::Arc;

use bytes::Bytes;
use directpush_common::clock::Moment;
use directpush_common::eas::{Answer, RequestLine};
use http::{HeaderValue, StatusCode};

use crate::backend::device::Asker;
use crate::backend::{Backend, Session};
use crate::device::Device;
use crate::front::Front;
use crate::http::{Parked, Seat};
use crate::push::Word;

/// One command, read as far as all commands are alike.
#[derive(Clone)]
pub struct Request {
    /// The front end.
    pub front: Arc<Front>,
    /// Whose.
    pub session: Arc<Session>,
    /// Which device.
    pub device: Arc<Device>,
    /// The request line.
    pub line: RequestLine,
    /// The body.
    pub body: Bytes,
    /// Where to park.
    pub seat: Seat,
    /// When it came.
    pub began: Moment,
    /// The device's User-Agent.
    pub agent: Word,
    /// It was parked and is gone on with: its policy key was good when it came, and is not kept.
    pub resumed: bool,
}

impl Request {
    /// The user's back end.
    pub fn backend(&self) -> &Arc<Backend> {
        self.front.backends.of(&self.session)
    }

    /// Who asks, for the device's state objects.
    pub fn asker(&self) -> Asker<'_> {
        Asker {
            session: &self.session,
            device: &self.device.key,
            agent: &self.agent,
            version: self.line.version,
            command: self.line.command,
        }
    }

    /// The moment `secs` seconds from now.
    pub fn now_plus_secs(&self, secs: u64) -> Moment {
        self.front.now().plus_secs(secs)
    }
}

/// What becomes of a command.
pub enum Reaction {
    /// 200 with this body, perhaps empty, and what the log says of it.
    Body(Vec<u8>, String),
    /// 200 with a body to a device that starts over: with the headers that tell it what we speak: these
    /// commands.
    Afresh(Vec<u8>, String, &'static str),
    /// 200 with this body of another type, and what the log says of it.
    Data(HeaderValue, Vec<u8>, String),
    /// Only a status.
    Http(StatusCode),
    /// 503 and `Retry-After`.
    Busy(u64),
    /// The answer comes later.
    Park(Box<dyn Parked>),
}

impl From<Answer> for Reaction {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Http(status) => {
                Self::Http(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST))
            }
            Answer::Body(body) => Self::Body(body, String::new()),
        }
    }
}
