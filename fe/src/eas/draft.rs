//! Drafts, written by devices of 16.0 and later in the folder of drafts by Sync's Add and Change, and sent by `email2:Send`
//! ([MS-ASEMAIL] 2.2.2.69 Send).
//!
//! A request may come twice, when its answer was lost: an Add finds its item by the name that the request gives it, or by
//! the pairs of ids kept with the key; a Change that was carried out is kept there, too; what was sent is claimed like
//! any message that leaves (`sent`). A draft that was sent is copied into Sent Items and deleted, which all devices are told.
//!
//! Not here: the MIME (`compose::draft`).

use bytes::Bytes;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{ApplicationData, CommandResponse};
use directpush_common::mail::fields;
use directpush_common::numbers::Number;
use directpush_common::wbxml::Element;
use directpush_common::wbxml::tags::{air_sync_base as base, email, email2};

use super::compose::draft::{Written, draft, numbers_of_added};
use super::compose::{Completion, complete};
use super::item;
use super::options::Kept;
use super::render::{self, Facts, Wish};
use super::send_mail::{self, DraftSent};
use super::sent::{self, Mark};
use super::sync_collection::Turn;
use super::sync_upload::{DEVICE_WINS, completed, is_full};
use crate::backend::Result;
use crate::backend::items::Place;

/// Bytes of a ClientId ([MS-ASCMD] ClientId (Sync): 64 characters).
const CLIENT_ID_BYTES_MAX: usize = 256;

/// What becomes of a command, or the status of its failure.
type Done<T> = Result<std::result::Result<T, SyncStatus>>;

/// What was done in the request that led to a key: ClientId and ServerId of what was added, no ClientId for what was changed.
pub(super) type Ledger = Vec<(String, String)>;

/// Whether a change is one of a draft, not only of its flags.
pub(super) fn is_written(data: &[Element]) -> bool {
    let own = [
        email::TO,
        email::CC,
        email2::BCC,
        email::REPLY_TO,
        email::SUBJECT,
        email::IMPORTANCE,
        base::BODY,
        base::ATTACHMENTS,
        email2::SEND,
    ];
    data.iter().any(|element| own.contains(&element.tag))
}

fn is_to_be_sent(data: &[Element]) -> bool {
    data.iter().any(|element| element.tag == email2::SEND)
}

impl Turn<'_> {
    /// Carries out an Add. `before`: what this request did, if it came before.
    pub(super) async fn add_draft(
        &self,
        client_id: &str,
        data: &ApplicationData,
        terms: (&Kept, Number),
        before: &Ledger,
        ledger: &mut Ledger,
    ) -> Result<CommandResponse> {
        let known = before.iter().find(|(id, _)| id == client_id).and_then(|(_, id)| self.item_of(id));
        let added = match known {
            Some(place) => Ok(Ok(Some(place))),
            None => self.write_new(client_id, data).await,
        };
        let (place, status) = match settled(added)? {
            Ok(place) => (place, SyncStatus::Success),
            Err(status) => (None, status),
        };
        let server_id = place.map(|place| self.server_id(place.item));
        if let Some(server_id) = &server_id {
            ledger.push((client_id.to_owned(), server_id.clone()));
            self.marked(server_id, data, terms).await?;
        }
        let data = match place {
            Some(place) => self.told(place, data, true).await?,
            None => None,
        };
        Ok(CommandResponse::Add { client_id: client_id.to_owned(), server_id, status, data })
    }

    /// `None`: it was sent, and is no item.
    async fn write_new(&self, client_id: &str, data: &ApplicationData) -> Done<Option<Place>> {
        if client_id.len() > CLIENT_ID_BYTES_MAX || !self.is_drafts().await? {
            return Ok(Err(SyncStatus::ConversionError));
        }
        let mark = self.mark("add", client_id);
        let Some(mime) = self.composed(data, None, "", &mark).await else {
            return Ok(Err(SyncStatus::ConversionError));
        };
        if is_to_be_sent(data) {
            return Ok(self.send(mark, mime).await?.map(|()| None));
        }
        let (session, device) = (&self.request.session, &self.request.device.key);
        let name = format!("draft-{}.eml", mark.as_str());
        let item = self.request.backend().draft_add(session, device, self.folder, &name, mime).await?;
        Ok(Ok(Some(Place { folder: self.folder, item })))
    }

    /// Carries out a Change; there is an answer when it failed, or brought attachments.
    pub(super) async fn change_draft(
        &self,
        server_id: &str,
        data: &ApplicationData,
        terms: (&Kept, Number),
        before: &Ledger,
        ledger: &mut Ledger,
    ) -> Result<Option<CommandResponse>> {
        let was_done = before.iter().any(|(client_id, id)| client_id.is_empty() && id == server_id);
        let changed = match self.item_of(server_id) {
            None => Ok(Err(SyncStatus::ObjectNotFound)),
            Some(place) if was_done => Ok(Ok(Some(place))),
            Some(place) => self.rewrite(place, server_id, data, terms).await,
        };
        let place = match settled(changed)? {
            Ok(place) => place,
            Err(status) => {
                return Ok(Some(CommandResponse::Change { server_id: server_id.to_owned(), status }));
            }
        };
        ledger.push((String::new(), server_id.to_owned()));
        let data = match place {
            Some(place) => {
                self.marked(server_id, data, terms).await?;
                self.told(place, data, false).await?
            }
            None => None,
        };
        Ok(data.map(|data| CommandResponse::Changed { server_id: server_id.to_owned(), data }))
    }

    /// What a device says of its draft as of any message: flags and categories. They are not worth a failure.
    async fn marked(
        &self,
        server_id: &str,
        data: &ApplicationData,
        (kept, known): (&Kept, Number),
    ) -> Result<()> {
        // It is read, because the user wrote it.
        let marks: ApplicationData =
            data.iter().filter(|it| [email::FLAG, email::CATEGORIES].contains(&it.tag)).cloned().collect();
        if !marks.is_empty() {
            completed(self.change(server_id, &marks, kept, known).await)?;
        }
        Ok(())
    }

    /// `None`: it was sent, and is no item any more.
    async fn rewrite(
        &self,
        place: Place,
        server_id: &str,
        data: &ApplicationData,
        (kept, known): (&Kept, Number),
    ) -> Done<Option<Place>> {
        let (backend, session) = (self.request.backend(), &self.request.session);
        let mark = self.mark("change", server_id);
        let sends = is_to_be_sent(data);
        let Some((live, last)) = item::changed(self.request, place).await? else {
            return Ok(if sends && sent::is_settled(self.request, &mark).await? {
                Ok(None)
            } else {
                Err(SyncStatus::ObjectNotFound)
            });
        };
        let own = live.maker.is_own_sync_of(&self.request.device.key);
        let others = if own { live.before } else { last };
        let known = known.max(place.item.0);
        if kept.conflict != Some(DEVICE_WINS) && others > known && live.content > known {
            return Ok(Err(SyncStatus::Conflict));
        }
        let before = match item::bytes(self.request, place).await? {
            None => return Ok(Err(SyncStatus::ObjectNotFound)),
            Some(Err(_)) => return Ok(Err(SyncStatus::ConversionError)),
            Some(Ok(before)) => before,
        };
        let Some(mime) = self.composed(data, Some(before), server_id, &mark).await else {
            return Ok(Err(SyncStatus::ConversionError));
        };
        if sends {
            let sent = self.send(mark, mime).await?;
            if sent.is_ok() {
                backend.draft_sent(session, place).await?;
            }
            return Ok(sent.map(|()| None));
        }
        let found = backend.draft_change(session, &self.request.device.key, place, mime).await?;
        Ok(if found { Ok(Some(place)) } else { Err(SyncStatus::ObjectNotFound) })
    }

    /// The same command of the same request has the same mark, and no other.
    fn mark(&self, what: &str, id: &str) -> Mark {
        let (user, device) = (&self.request.session.user, &self.request.device.key);
        let key = &self.collection.sync_key;
        Mark::of_message(format!("draft {what} {user} {device} {} {key} {id}", self.folder).as_bytes())
    }

    /// `None`: it is no message.
    async fn composed(
        &self,
        data: &ApplicationData,
        before: Option<Bytes>,
        reference: &str,
        mark: &Mark,
    ) -> Option<Bytes> {
        let bytes_max = self.request.front.config.mail_bytes;
        let (data, reference) = (data.clone(), reference.to_owned());
        let own = send_mail::own_address(&self.request.session.user);
        let message_id = send_mail::message_id(self.request, mark.as_str());
        let now = jiff::Timestamp::now().as_second();
        let work = move || {
            let written = Written { data: &data, before: before.as_deref(), reference: &reference };
            let mime = draft(&written, bytes_max).ok()?;
            // It is dated when it leaves.
            let mime = if is_to_be_sent(&data) { fields::without(&mime, &["Date"]) } else { mime };
            Some(complete(&mime, &Completion { own: own.as_deref(), message_id: &message_id, now }))
        };
        self.request.front.desk.work("a draft", work).await.ok().flatten().map(Bytes::from)
    }

    async fn send(&self, mark: Mark, mime: Bytes) -> Done<()> {
        Ok(match send_mail::send_draft(self.request, mark, self.hierarchy, mime).await? {
            DraftSent::Yes => Ok(()),
            DraftSent::Refused => Err(SyncStatus::ConversionError),
            DraftSent::Later => Err(SyncStatus::ServerError),
        })
    }

    /// What the device is told of a draft that it wrote: the conversation of a new one, and what it calls the attachments that
    /// came with it ([MS-ASAIRS] ClientId).
    async fn told(
        &self,
        place: Place,
        data: &ApplicationData,
        is_new: bool,
    ) -> Result<Option<ApplicationData>> {
        let added = without_contents(data);
        if added.is_empty() && !is_new {
            return Ok(None);
        }
        let Some(Ok(mime)) = item::bytes(self.request, place).await? else { return Ok(None) };
        let facts = Facts { reference: self.server_id(place.item), draft: true, ..Facts::default() };
        let wish = Wish::new(self.request.line.version);
        let work = move || {
            let reference = facts.reference.clone();
            let shown = render::application_data(&mime, &facts, &wish);
            let mut told: ApplicationData = Vec::new();
            if is_new {
                told.extend(shown.iter().filter(|it| it.tag == email2::CONVERSATION_ID).cloned());
            }
            let numbers = numbers_of_added(&added, &mime);
            let all: Vec<&Element> =
                shown.iter().filter(|it| it.tag == base::ATTACHMENTS).flat_map(Element::children).collect();
            let named = numbers.into_iter().filter_map(|(client_id, number)| {
                let name = format!("{reference}:{number}");
                let is_it =
                    |it: &&&Element| it.child(base::FILE_REFERENCE).is_some_and(|it| it.own_text() == name);
                let found = all.iter().find(is_it)?;
                let of_it = found.children().cloned();
                let own = Element::text(base::CLIENT_ID, client_id);
                Some(Element::container(base::ATTACHMENT, std::iter::once(own).chain(of_it)))
            });
            let list = Element::container(base::ATTACHMENTS, named);
            if !list.content.is_empty() {
                told.push(list);
            }
            told
        };
        let told = self.request.front.content.work(work).await.unwrap_or_default();
        Ok(Some(told).filter(|told| !told.is_empty()))
    }
}

/// The Attachments of a device's data with what is added, without the bytes.
fn without_contents(data: &ApplicationData) -> ApplicationData {
    let all = data.iter().filter(|element| element.tag == base::ATTACHMENTS);
    let added = all.flat_map(Element::children).filter(|child| child.tag == base::ADD).map(|added| {
        let rest = added.children().filter(|child| child.tag != base::CONTENT).cloned();
        Element::container(base::ADD, rest)
    });
    let list = Element::container(base::ATTACHMENTS, added);
    if list.content.is_empty() { Vec::new() } else { vec![list] }
}

/// A mailbox or a disk that is full is the fate of this command, not of the request: Status 9.
fn settled<T>(done: Done<T>) -> Done<T> {
    match done {
        Err(error) if is_full(&error) => Ok(Err(SyncStatus::CannotComplete)),
        done => done,
    }
}
