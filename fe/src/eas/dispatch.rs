//! From HTTP to a command and back: path, method, credential, request line, body, answer, log line.
//!
//! A command that finds the log-on outdated is run once more after logging on again. Trouble at the
//! back end is 503 with `Retry-After`: from a repeated 500 iOS concludes that its data is lost.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use directpush_common::clock::Moment;
use directpush_common::eas::request_line::RequestHeaders;
use directpush_common::eas::{
    CONTENT_TYPE, Command, CommonStatus, Malformed, RequestLine, command, common_status_answer,
    header as eas, is_service_path, is_wbxml_content_type, malformed_answer, refusal_answer, version,
};
use directpush_common::event::Event;
use directpush_common::names::DeviceKey;
use directpush_common::w3c::activesync_query;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::autodiscover::{self, Form};
use super::{Reaction, Request};
use crate::access_log::Entry;
use crate::auth::{Credential, Proof};
use crate::backend::{self, HOPS_MAX, Session};
use crate::events;
use crate::front::{Front, MAIL_ROOM_KIB};
use crate::http::{Ends, Seat, body, gzip};

/// Bytes of a command's body, at most.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// How long a message that is sent waits for memory, in seconds.
const ROOM_SECS: u64 = 10;

/// Answers one HTTP request.
pub async fn handle(front: Arc<Front>, request: http::Request<Body>) -> Response {
    let began = front.now();
    let (parts, incoming) = request.into_parts();
    let mut log = Log::default();
    let response = answer(&front, &parts, incoming, began, &mut log).await;
    let (response, sent) = gzip::compressed(&parts.headers, response).await;
    log.sent = sent.unwrap_or(log.sent);
    let ends = parts.extensions.get::<Ends>().copied().unwrap_or(Ends { peer: None, local: None });
    let query = log.query.as_deref().unwrap_or_else(|| parts.uri.query().unwrap_or_default());
    front.access_log.write(
        ends,
        &Entry {
            method: parts.method.as_str(),
            stem: parts.uri.path(),
            query,
            user: &log.user,
            agent: text(&parts.headers, header::USER_AGENT.as_str()).unwrap_or_default(),
            status: response.status().as_u16(),
            sent: log.sent,
            received: log.received,
            taken_millis: front.now().millis_since(began),
        },
    );
    response
}

/// What the log line needs beside the request itself.
#[derive(Default)]
struct Log {
    user: String,
    query: Option<String>,
    sent: u64,
    received: u64,
}

async fn answer(front: &Arc<Front>, parts: &Parts, incoming: Body, began: Moment, log: &mut Log) -> Response {
    let discovers = autodiscover::form(parts.uri.path());
    if discovers == Some(Form::Json) {
        return autodiscover::json(front, parts);
    }
    if discovers.is_none() && !is_service_path(parts.uri.path()) {
        return closing(StatusCode::NOT_FOUND);
    }
    if discovers.is_none() && parts.method != Method::POST && parts.method != Method::OPTIONS {
        let mut response = closing(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("OPTIONS,POST"));
        return response;
    }
    let field = parts.headers.get(header::AUTHORIZATION);
    let Some(credential) = field.and_then(|field| Credential::from_field(field.as_bytes())) else {
        return unauthorized();
    };
    credential.login.clone_into(&mut log.user);
    let mut session = match prove(front, &credential).await {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    if discovers.is_none() && parts.method == Method::OPTIONS {
        return options(front, &session);
    }
    // Only who proved a password has a body read.
    let (bytes_max, patience) = match request_line(parts) {
        Ok(line) if line.command.sends_mail() => {
            (super::send_mail::body_bytes_max(front.config.mail_bytes), front.patience.mail)
        }
        // With drafts come their attachments.
        Ok(line) if line.command == Command::Sync && line.version.has_drafts() && is_large(parts) => {
            (super::send_mail::body_bytes_max(front.config.mail_bytes), front.patience.mail)
        }
        _ => (COMMAND_BYTES_MAX, front.patience.body),
    };
    let Some(_room) = room(front, parts, bytes_max).await else { return busy(ROOM_SECS) };
    let received = match body::read(&parts.headers, incoming, bytes_max, patience).await {
        Ok(received) => received,
        Err(status) => return closing(status),
    };
    log.received = received.len() as u64;
    if discovers.is_some() {
        return discover(front, parts, &session, received).await;
    }
    let (mut logons, mut hops) = (0, 0);
    loop {
        let line = match request_line(parts) {
            Ok(line) => line,
            Err(reaction) => return finish(reaction, log),
        };
        log.query = Some(log_query(&session, &line, ""));
        match command(front, parts, &line, &session, received.clone(), began).await {
            Ok(Reaction::Park(parked)) => {
                let seat = parts.extensions.get::<Seat>().cloned().unwrap_or_default();
                match seat.park(parked).await {}
            }
            Ok(reaction) => {
                if let Reaction::Body(_, note) | Reaction::Afresh(_, note, _) | Reaction::Data(_, _, note) =
                    &reaction
                {
                    log.query = Some(log_query(&session, &line, note));
                }
                return finish(reaction, log);
            }
            Err(backend::Error::Moved { location })
                if hops < HOPS_MAX && front.backends.follow(&session, &location) =>
            {
                hops += 1;
            }
            // Once more, after a log-on that the back end no longer took.
            Err(backend::Error::Credential) if logons > 0 => return unauthorized(),
            Err(backend::Error::Credential) => {
                logons += 1;
                front.logons.forget(&session);
                session = match prove(front, &credential).await {
                    Ok(session) => session,
                    Err(refusal) => return refusal,
                };
            }
            Err(backend::Error::Refused(status)) => {
                let answer = refusal_answer(line.command, line.version, status, line.policy_key);
                return finish(answer.into(), log);
            }
            Err(error) => {
                front.backends.of(&session).complain(line.command.name(), &error);
                if error.status() == Some(StatusCode::INSUFFICIENT_STORAGE) {
                    let status = CommonStatus::MailboxQuotaExceeded;
                    return finish(common_status_answer(line.command, line.version, status).into(), log);
                }
                return busy(retry_after(&error));
            }
        }
    }
}

/// Whether the body says that it is larger than a command.
fn is_large(parts: &Parts) -> bool {
    announced(parts).is_some_and(|bytes| bytes > COMMAND_BYTES_MAX)
}

fn announced(parts: &Parts) -> Option<usize> {
    text(&parts.headers, header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok())
}

/// Memory for a body that may be larger than a command. `None`: others have it.
async fn room(front: &Front, parts: &Parts, bytes_max: usize) -> Option<Option<OwnedSemaphorePermit>> {
    if bytes_max <= COMMAND_BYTES_MAX {
        return Some(None);
    }
    let kib = announced(parts).unwrap_or(bytes_max).min(bytes_max).div_ceil(1024).min(MAIL_ROOM_KIB);
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let waiting = Arc::clone(&front.mail_room).acquire_many_owned(kib);
    let room = tokio::time::timeout(Duration::from_secs(ROOM_SECS), waiting).await;
    room.ok().and_then(Result::ok).map(Some)
}

/// Autodiscover in its XML form, once more where the mailbox has moved.
async fn discover(front: &Front, parts: &Parts, session: &Session, body: Bytes) -> Response {
    let first = autodiscover::xml(front, parts, session, body.clone()).await;
    let answer = match first {
        Err(backend::Error::Moved { location }) if front.backends.follow(session, &location) => {
            autodiscover::xml(front, parts, session, body).await
        }
        first => first,
    };
    match answer {
        Ok(response) => response,
        Err(backend::Error::Credential) => {
            front.logons.forget(session);
            unauthorized()
        }
        Err(error) => {
            front.backends.of(session).complain("Autodiscover", &error);
            busy(retry_after(&error))
        }
    }
}

/// The session behind a credential; else what is answered.
async fn prove(front: &Front, credential: &Credential) -> Result<Arc<Session>, Response> {
    match front.logons.prove(credential, &front.backends, front.now()).await {
        Ok(Proof::Session(session)) => Ok(session),
        Ok(Proof::Wrong) => Err(unauthorized()),
        Ok(Proof::Disabled) => Err(plain(StatusCode::FORBIDDEN)),
        Err(error) => {
            front.backends.at(front.backends.for_login(&credential.login)).complain("log-on", &error);
            Err(busy(retry_after(&error)))
        }
    }
}

/// The query as the log shows it.
pub fn log_query(session: &Session, line: &RequestLine, note: &str) -> String {
    let note = format!("V{}{}{note}", line.version.query_byte(), if note.is_empty() { "" } else { "_" });
    let (user, id, kind) = (session.user.as_str(), line.device_id.as_str(), line.device_type.as_str());
    activesync_query(user, id, kind, line.command.name(), &note)
}

fn request_line(parts: &Parts) -> Result<RequestLine, Reaction> {
    let headers = RequestHeaders {
        protocol_version: text(&parts.headers, eas::PROTOCOL_VERSION),
        policy_key: text(&parts.headers, eas::POLICY_KEY),
        accept_multipart: text(&parts.headers, eas::ACCEPT_MULTIPART),
    };
    RequestLine::decode(parts.uri.query().unwrap_or_default(), headers).map_err(|error| error.answer().into())
}

async fn command(
    front: &Arc<Front>,
    parts: &Parts,
    line: &RequestLine,
    session: &Arc<Session>,
    body: Bytes,
    began: Moment,
) -> backend::Result<Reaction> {
    let refuse = |status| Ok(common_status_answer(line.command, line.version, status).into());
    if !line.names_user(|user| session.user.is_meant_by(user)) {
        return Ok(Reaction::Http(StatusCode::FORBIDDEN));
    }
    if !session.sync {
        return refuse(CommonStatus::UserDisabledForSync);
    }
    if !line.command.is_of(line.version) {
        return refuse(CommonStatus::CommandNotSupported);
    }
    let kind = text(&parts.headers, header::CONTENT_TYPE.as_str());
    // Below 14.0 a message comes as it is, and some devices give it another type.
    let is_mail = line.command.sends_mail() && !line.version.has_common_statuses();
    if !body.is_empty() && !is_mail && !is_wbxml_content_type(kind) {
        return Ok(malformed_answer(line.command, line.version, Malformed::Content).into());
    }
    let Ok(key) = DeviceKey::new(line.device_type.as_str(), line.device_id.as_str()) else {
        return refuse(CommonStatus::DeviceIdMissingOrInvalid);
    };
    let agent = text(&parts.headers, header::USER_AGENT.as_str()).unwrap_or_default();
    let request = Request {
        front: Arc::clone(front),
        session: Arc::clone(session),
        device: front.devices.get(&session.user, &key),
        line: line.clone(),
        body,
        seat: parts.extensions.get::<Seat>().cloned().unwrap_or_default(),
        began,
        agent: front.words.share(agent.get(..200).unwrap_or(agent)),
        resumed: false,
    };
    let throttle = &front.throttle;
    if let Some(away) = throttle.count(request.device.hash, line.command, &request.body, began) {
        if away.new {
            let (user, device) = (session.user.to_string(), request.device.key.to_string());
            let command = line.command.name();
            events::log(&Event::DeviceLoops { user, device, command, secs: away.secs });
        }
        return Ok(Reaction::Busy(away.secs));
    }
    super::standing::gate(&request).await?;
    // Boxed, so that the largest command does not set the size of every request's future.
    match line.command {
        Command::Ping => Box::pin(super::ping::run(&request)).await,
        Command::Sync => Box::pin(super::sync::run(&request)).await,
        Command::FolderSync => Box::pin(super::folder_sync::run(&request)).await,
        Command::FolderCreate => Box::pin(super::folder_create::run(&request)).await,
        Command::FolderUpdate => Box::pin(super::folder_update::run(&request)).await,
        Command::FolderDelete => Box::pin(super::folder_delete::run(&request)).await,
        Command::GetHierarchy => Box::pin(super::get_hierarchy::run(&request)).await,
        Command::GetItemEstimate => Box::pin(super::estimate::run(&request)).await,
        Command::Search => Box::pin(super::search::run(&request)).await,
        Command::Find => Box::pin(super::find::run(&request)).await,
        Command::Settings => Box::pin(super::settings::run(&request)).await,
        Command::Provision => Box::pin(super::provision::run(&request)).await,
        Command::ItemOperations => Box::pin(super::item_operations::run(&request)).await,
        Command::GetAttachment => Box::pin(super::get_attachment::run(&request)).await,
        Command::MoveItems => Box::pin(super::move_items::run(&request)).await,
        Command::ResolveRecipients => Box::pin(super::resolve_recipients::run(&request)).await,
        Command::ValidateCert => Box::pin(super::validate_cert::run(&request)).await,
        Command::SendMail | Command::SmartReply | Command::SmartForward => {
            Box::pin(super::send_mail::run(&request)).await
        }
        _ => refuse(CommonStatus::CommandNotSupported),
    }
}

fn finish(reaction: Reaction, log: &mut Log) -> Response {
    match reaction {
        Reaction::Body(body, _) => {
            log.sent = body.len() as u64;
            wbxml(body)
        }
        Reaction::Afresh(body, _, commands) => {
            log.sent = body.len() as u64;
            let mut response = wbxml(body);
            let headers = response.headers_mut();
            headers.insert("MS-ASProtocolVersions", HeaderValue::from_static(version::OFFERED_LIST));
            headers.insert("MS-ASProtocolCommands", HeaderValue::from_static(commands));
            headers.insert("X-MS-RP", HeaderValue::from_static(version::OFFERED_LIST));
            response
        }
        Reaction::Data(kind, body, _) => {
            log.sent = body.len() as u64;
            let mut response = wbxml(body);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Reaction::Http(status) => plain(status),
        Reaction::Busy(secs) => busy(secs),
        // Parked before it comes to this.
        Reaction::Park(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The commands that this user is told of: without Ping where push is off.
pub fn commands(front: &Front, session: &Session) -> &'static str {
    let push = front.config.direct_push && session.push;
    if push { command::LISTED } else { command::LISTED_WITHOUT_PUSH }
}

fn options(front: &Front, session: &Session) -> Response {
    let commands = commands(front, session);
    let mut response = plain(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS,POST"));
    headers.insert("Public", HeaderValue::from_static("OPTIONS,POST"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    headers.insert("MS-Server-ActiveSync", HeaderValue::from_static("16.1"));
    headers.insert("MS-ASProtocolVersions", HeaderValue::from_static(version::OFFERED_LIST));
    headers.insert("MS-ASProtocolCommands", HeaderValue::from_static(commands));
    response
}

/// 200 with a body, or without one: then no Content-Type either ([MS-ASHTTP]).
fn wbxml(body: Vec<u8>) -> Response {
    let empty = body.is_empty();
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    if !empty {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    response
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A refusal after which the rest of the request is of no interest.
fn closing(status: StatusCode) -> Response {
    let mut response = plain(status);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn unauthorized() -> Response {
    let mut response = plain(StatusCode::UNAUTHORIZED);
    let realm = HeaderValue::from_static("Basic realm=\"ActiveSync\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    response
}

fn busy(secs: u64) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    if let Ok(value) = HeaderValue::from_str(&secs.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// When a device should come back after trouble: spread, so that they do not all come at once.
pub fn retry_after(error: &backend::Error) -> u64 {
    let least = match error {
        backend::Error::Busy { retry_after_secs } => (*retry_after_secs).clamp(1, 600),
        backend::Error::Protected { .. } => 30,
        _ => 10,
    };
    least + fastrand::u64(0..=least)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
