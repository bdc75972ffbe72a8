//! SendMail, SmartReply and SmartForward ([MS-ASCMD] 2.2.1.17 SendMail, 2.2.1.19 SmartForward, 2.2.1.20 SmartReply): read in
//! either form, composed, handed in at the back end, copied into Sent Items.
//!
//! It goes on when the device hangs up: half sent and not remembered, the message would come twice.
//!
//! Not here: the composing ([`super::compose`]), which messages were sent before ([`super::sent`]), who may send as whom and
//! where mail goes (the back end).

use bytes::Bytes;
use directpush_common::change::Cause;
use directpush_common::dav::hierarchy::{Class, Hierarchy};
use directpush_common::eas::compose_mail::{ComposeError, ComposeRequest, Source, compose_answer};
use directpush_common::eas::{Command, CommonStatus};
use directpush_common::mail::fields::{self, BadFields};
use directpush_common::mail::marks::{Marks, Verb, VerbKind};
use directpush_common::names::UserName;
use directpush_common::numbers::Number;

use super::compose::{self, Completion, ComposeFault, Smart};
use super::sent::{self, Claim, Mark};
use super::{Reaction, Request, folders, item};
use crate::backend::items::Place;
use crate::backend::submission::{Refusal, Submitted};
use crate::backend::{self, Result};

/// Bytes of a request beside its message.
const AROUND_BYTES_MAX: usize = 64 * 1024;
/// Recipients that are looked at here; the back end has the bound.
const RECIPIENTS_MAX: usize = 10_000;
/// EAS type of Sent Items ([MS-ASCMD] Type (FolderSync)).
const SENT_ITEMS: u8 = 5;

/// Bytes of the body of such a request, at most.
pub fn body_bytes_max(mail_bytes: usize) -> usize {
    mail_bytes.saturating_add(AROUND_BYTES_MAX)
}

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let request = request.clone();
    let sending = tokio::spawn(async move { send(&request).await });
    sending.await.unwrap_or(Ok(Reaction::Busy(10)))
}

/// How it ends when the message is not sent.
enum NotSent {
    /// The device is told this.
    Status(CommonStatus),
    /// It comes again after so many seconds; from 14.0 up it is told this.
    Later(u64, CommonStatus),
    /// The back end failed.
    Error(backend::Error),
}

impl From<CommonStatus> for NotSent {
    fn from(status: CommonStatus) -> Self {
        Self::Status(status)
    }
}

impl From<backend::Error> for NotSent {
    fn from(error: backend::Error) -> Self {
        Self::Error(error)
    }
}

async fn send(request: &Request) -> Result<Reaction> {
    let asked = match read(request).await {
        Ok(asked) => asked,
        Err(status) => return Ok(refused(request, status)),
    };
    let mark = mark(&asked);
    let now = unix_secs();
    let claimed = sent::update(request, |sent| match &mark {
        Some(mark) => sent.claim(mark, now),
        None => Claim::Ours,
    });
    let (claim, fresh) = claimed.await?;
    match claim {
        Claim::Ours => {}
        Claim::UnderWay => return Ok(Reaction::Busy(30)),
        // Without a ClientId the device knows nothing of messages sent before: it is told what it missed.
        Claim::Sent if asked.client_id.is_none() => return Ok(Reaction::Body(Vec::new(), "again".into())),
        Claim::Sent => return Ok(refused(request, CommonStatus::MessagePreviouslySent)),
    }
    let outcome = compose_and_submit(request, asked, mark.as_ref(), now, fresh.hierarchy).await;
    if let Some(mark) = &mark {
        settle(request, mark, outcome.is_ok()).await;
    }
    match outcome {
        Ok(note) => Ok(Reaction::Body(Vec::new(), note)),
        Err(NotSent::Status(status)) => Ok(refused(request, status)),
        Err(NotSent::Later(secs, status)) if request.line.version.has_common_statuses() => {
            let _ = secs;
            Ok(refused(request, status))
        }
        Err(NotSent::Later(secs, _)) => Ok(Reaction::Busy(secs)),
        Err(NotSent::Error(error)) => Err(error),
    }
}

async fn settle(request: &Request, mark: &Mark, was_sent: bool) {
    let settled = sent::update(request, |sent| if was_sent { sent.settle(mark) } else { sent.release(mark) });
    if let Err(error) = settled.await {
        let (user, device) = (&request.session.user, &request.device.key);
        tracing::warn!(%user, %device, %error, "it is not kept whether a message was sent");
    }
}

/// What became of a draft that was to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DraftSent {
    /// It is on its way, now or since before, and its copy is in Sent Items.
    Yes,
    /// It cannot be sent as it is.
    Refused,
    /// Not now.
    Later,
}

/// Sends a draft ([MS-ASEMAIL] Send), once for the same mark. It goes on when the device hangs up.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn send_draft(request: &Request, mark: Mark, hierarchy: Number, mime: Bytes) -> Result<DraftSent> {
    let request = request.clone();
    let sending = tokio::spawn(async move {
        let now = unix_secs();
        match sent::update(&request, |sent| sent.claim(&mark, now)).await?.0 {
            Claim::Ours => {}
            Claim::UnderWay => return Ok(DraftSent::Later),
            Claim::Sent => return Ok(DraftSent::Yes),
        }
        let asked = ComposeRequest { mime: mime.into(), save_in_sent: true, ..ComposeRequest::default() };
        let outcome = compose_and_submit(&request, asked, Some(&mark), now, hierarchy).await;
        settle(&request, &mark, outcome.is_ok()).await;
        match outcome {
            Ok(_) => Ok(DraftSent::Yes),
            Err(NotSent::Status(status)) => {
                tracing::debug!(user = %request.session.user, %status, "a draft is not sent");
                Ok(DraftSent::Refused)
            }
            Err(NotSent::Later(..)) => Ok(DraftSent::Later),
            Err(NotSent::Error(error)) => Err(error),
        }
    });
    sending.await.unwrap_or(Ok(DraftSent::Later))
}

/// The user's own address, if the name is one.
pub(super) fn own_address(user: &UserName) -> Option<String> {
    user.domain().map(|_| user.to_string())
}

/// The Message-ID of a message of this device that has none of its own: the same for the same.
pub(super) fn message_id(request: &Request, unique: &str) -> String {
    let user = &request.session.user;
    let of = Mark::of_message(format!("{user} {} {unique}", request.device.key).as_bytes());
    format!("<{}@{}>", of.as_str(), user.domain().unwrap_or("directpush.invalid"))
}

fn refused(request: &Request, status: CommonStatus) -> Reaction {
    match compose_answer(request.line.command, request.line.version, status).into() {
        Reaction::Body(body, _) => Reaction::Body(body, format!("St{status}")),
        other => other,
    }
}

/// Reads the request in the form of its version.
async fn read(request: &Request) -> std::result::Result<ComposeRequest, CommonStatus> {
    let (line, body) = (request.line.clone(), request.body.clone());
    let bytes_max = body_bytes_max(request.front.config.mail_bytes);
    // The message is copied out of the body, which may be large.
    let reading = request.front.desk.work("a message to send", move || {
        if line.version.has_common_statuses() {
            ComposeRequest::decode(line.command, &body, bytes_max)
        } else {
            ComposeRequest::of_query(line.command, &line.parameters, body)
        }
    });
    let asked = match reading.await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => {
            tracing::debug!(user = %request.session.user, %error, "a message to send cannot be read");
            return Err(error.status());
        }
        Err(compose::desk::Stuck) => return Err(CommonStatus::MailSubmissionFailed),
    };
    if asked.account_id.is_some() {
        return Err(CommonStatus::InvalidAccountId);
    }
    if asked.protects {
        return Err(CommonStatus::RightsManagementDisabled);
    }
    match (asked.forwards_event, asked.mime.is_empty()) {
        // Calendar items are not there to be forwarded.
        (true, true) => Err(CommonStatus::ItemNotFound),
        (true, false) => Err(ComposeError::Ids.status()),
        (false, _) => Ok(asked),
    }
}

/// What the message is known by. Without a ClientId only one that was given an id is known: `ok` may be said twice.
fn mark(asked: &ComposeRequest) -> Option<Mark> {
    match &asked.client_id {
        Some(id) => Some(Mark::of_client_id(id)),
        None => fields::message_id(&asked.mime).map(|_| Mark::of_message(&asked.mime)),
    }
}

fn unix_secs() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What the log says of a message that was sent.
async fn compose_and_submit(
    request: &Request,
    asked: ComposeRequest,
    mark: Option<&Mark>,
    now: i64,
    hierarchy: Number,
) -> std::result::Result<String, NotSent> {
    let original = match &asked.source {
        None => None,
        Some(source) => original(request, source, hierarchy, asked.replace_mime).await?,
    };
    let (save, to_all) = (asked.save_in_sent, compose::is_to_all(&asked.mime));
    let message = composed(request, asked, original.as_ref(), mark, now).await?;
    let session = &request.session;
    let submitted = match request.backend().submit(session, message.clone()).await? {
        Submitted::Accepted(id) => id,
        Submitted::Refused(refusal) => return Err(not_taken(refusal)),
    };
    // It is on its way: from here on nothing may look to the device as if it were not.
    if save && let Err(error) = keep_copy(request, hierarchy, message).await {
        tracing::warn!(user = %session.user, id = &*submitted, %error, "no copy of a sent message in Sent Items");
    }
    if let Some(original) = original
        && let Err(error) = note_verb(request, original.place, to_all, now).await
    {
        tracing::warn!(user = %session.user, %error, "it is not noted on a message that it was answered");
    }
    Ok(format!("Sent{submitted}"))
}

/// A message that is replied to or forwarded.
struct Original {
    place: Place,
    mime: Bytes,
}

/// Fetches the original. `None`: it is gone, and the device's message is whole without it.
async fn original(
    request: &Request,
    source: &Source,
    hierarchy: Number,
    may_lack: bool,
) -> std::result::Result<Option<Original>, NotSent> {
    let all = request.front.folders.get(request, hierarchy).await?;
    let found = match find(&all, source) {
        Some((_, class)) if class != Class::Email => {
            return Err(match request.line.command {
                Command::SmartReply => CommonStatus::MessageReplyNotAllowed.into(),
                _ => CommonStatus::ItemNotFound.into(),
            });
        }
        Some((place, _)) => {
            let mime = item::bytes(request, place).await?.and_then(std::result::Result::ok);
            mime.map(|mime| Original { place, mime })
        }
        None => None,
    };
    if found.is_none() && !may_lack { Err(CommonStatus::ItemNotFound.into()) } else { Ok(found) }
}

/// The item that a source names, and the class of its folder. An item's server id names its folder, too.
fn find(all: &Hierarchy, source: &Source) -> Option<(Place, Class)> {
    let (Source::Item { item: id, .. } | Source::Long(id)) = source;
    item::find(all, id).map(|(folder, place)| (place, folder.class))
}

/// The message as it leaves.
async fn composed(
    request: &Request,
    asked: ComposeRequest,
    original: Option<&Original>,
    mark: Option<&Mark>,
    now: i64,
) -> std::result::Result<Bytes, NotSent> {
    let command = request.line.command;
    let smart = if command == Command::SmartForward { Smart::Forward } else { Smart::Reply };
    let bytes_max = request.front.config.mail_bytes;
    let original = original.map(|original| original.mime.clone());
    let own = own_address(&request.session.user);
    // The same message has the same id, should it be handed in again.
    let unique = match mark {
        Some(mark) => mark.as_str().to_owned(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    };
    let message_id = message_id(request, &unique);
    let composing = request.front.desk.work("a message", move || {
        let ComposeRequest { mime, replace_mime, .. } = asked;
        let mime = match &original {
            None => mime,
            Some(original) if replace_mime => compose::answering(&mime, original),
            Some(original) => compose::smart(&mime, original, smart, bytes_max)?,
        };
        let with = Completion { own: own.as_deref(), message_id: &message_id, now };
        let mime = compose::complete(&mime, &with);
        Ok::<_, ComposeFault>((fields::recipients(&mime, RECIPIENTS_MAX).map(|all| all.len()), mime))
    });
    let (recipients, mime) = match composing.await {
        Ok(Ok(composed)) => composed,
        Ok(Err(ComposeFault::Unreadable)) => return Err(CommonStatus::InvalidMime.into()),
        Ok(Err(ComposeFault::TooLarge)) => return Err(CommonStatus::AttachmentIsTooLarge.into()),
        Err(compose::desk::Stuck) if command == Command::SendMail => {
            return Err(CommonStatus::MailSubmissionFailed.into());
        }
        Err(compose::desk::Stuck) => return Err(CommonStatus::MessageReplyFailed.into()),
    };
    match recipients {
        Ok(0) => Err(CommonStatus::MessageHasNoRecipient.into()),
        Ok(_) => Ok(Bytes::from(mime)),
        Err(BadFields::Address(..)) => Err(CommonStatus::MessageRecipientUnresolved.into()),
        Err(BadFields::TooMany(_)) => Err(CommonStatus::MailSubmissionFailed.into()),
        Err(_) => Err(CommonStatus::InvalidMime.into()),
    }
}

fn not_taken(refusal: Refusal) -> NotSent {
    NotSent::Status(match refusal {
        Refusal::Rate(secs) => return NotSent::Later(secs.clamp(1, 3_600), CommonStatus::SendQuotaExceeded),
        Refusal::TooLarge => CommonStatus::AttachmentIsTooLarge,
        Refusal::Message => CommonStatus::InvalidMime,
        Refusal::Sender | Refusal::Recipients | Refusal::SmartHost | Refusal::Loop => {
            CommonStatus::MailSubmissionFailed
        }
    })
}

async fn note_verb(request: &Request, place: Place, to_all: bool, now: i64) -> Result<()> {
    let kind = match request.line.command {
        Command::SmartForward => VerbKind::Forward,
        _ if to_all => VerbKind::ReplyAll,
        _ => VerbKind::Reply,
    };
    let Some(live) = item::live(request, place).await? else { return Ok(()) };
    let marks = Marks { verb: Some(Verb { kind, time: now }), ..Marks::from_text(&live.marks) };
    // What leaves no room for a verb is worth more than it.
    let Ok(marks) = marks.to_text() else { return Ok(()) };
    let (session, device) = (&request.session, &request.device.key);
    request.backend().item_set_marks(session, device, place, &marks, Cause::Send).await
}

async fn keep_copy(request: &Request, hierarchy: Number, message: Bytes) -> Result<()> {
    let all = request.front.folders.get(request, hierarchy).await?;
    let Some(folder) = all.folders.iter().find(|folder| folder.folder_type == SENT_ITEMS) else {
        return Ok(());
    };
    let mailbox = request.session.user.mailbox_url();
    let Some(below) = folders::path_below(&folder.url, &mailbox) else { return Ok(()) };
    let path = format!("{mailbox}{below}");
    request.backend().item_add(&request.session, &request.device.key, &path, message, Cause::Send).await
}

#[cfg(test)]
mod tests {
    use directpush_common::dav::hierarchy::Folder;
    use directpush_common::names::{FolderId, Guid, ItemId};
    use directpush_common::numbers::Number;

    use super::*;

    #[test]
    fn an_original_is_found_by_its_own_id() {
        let folder = |counter, class| Folder {
            id: FolderId { installation: Guid([7; 16]), counter },
            parent: None,
            folder_type: 12,
            class,
            name: "x".into(),
            created: Number(1),
            changed: Number(1),
            url: "/exchange/a/x/".into(),
        };
        let folders = vec![folder(0x1f, Class::Email), folder(4, Class::Calendar)];
        let all = Hierarchy { number: Number(1), folders, removed: Vec::new() };
        let item = |item: &str| Source::Item { folder: "any".into(), item: item.into(), instance: None };
        let (place, class) = find(&all, &item("1f:9")).unwrap();
        assert_eq!((place.folder.counter, place.item, class), (0x1f, ItemId(Number(9)), Class::Email));
        assert_eq!(find(&all, &Source::Long("4:1".into())).unwrap().1, Class::Calendar);
        for wrong in ["", "1f", "5:9", "1f:", "zz:1"] {
            assert!(find(&all, &item(wrong)).is_none(), "{wrong}");
        }
    }
}
