//! What a device changed, carried out ([MS-ASCMD] 2.2.1.21 Sync, Commands of a request).
//!
//! The back end is told which device it was, so that nothing of it comes back. A request may come twice, when its answer was
//! lost: each command is such that the second time does no harm.
//!
//! Not here: what the server has to tell (`sync_collection`), drafts (`draft`).

use directpush_common::change::{Cause, Live};
use directpush_common::dav::hierarchy::Class;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::marks::MailChange;
use directpush_common::eas::sync::{ApplicationData, CommandResponse, SyncCommand};
use directpush_common::mail::marks::Marks;
use directpush_common::numbers::Number;
use http::StatusCode;

use super::budget::Budget;
use super::draft::{self, Ledger};
use super::item;
use super::options::Kept;
use super::sync_collection::Turn;
use crate::backend::{Error, Result};

/// EAS folder type of Deleted Items.
const DELETED_ITEMS: u8 = 4;

impl Turn<'_> {
    /// The device's own changes. What is answered: every Add and Fetch, and what failed of the rest. `known`: the folder's
    /// change number that the device knows; `again`: the request may have been
    /// carried out before, and did this to drafts.
    pub(super) async fn apply_commands(
        &self,
        kept: &Kept,
        known: Number,
        again: Option<&Ledger>,
        budget: &mut Budget,
    ) -> Result<(Vec<CommandResponse>, Ledger)> {
        let (mut responses, mut ledger) = (Vec::new(), Ledger::new());
        let nothing = Ledger::new();
        let before = again.unwrap_or(&nothing);
        let terms = (kept, known);
        for command in &self.collection.commands {
            match command {
                // Mail comes by delivery; of what a device writes there are drafts only.
                SyncCommand::Add { client_id, data, .. } => {
                    responses.push(self.add_draft(client_id, data, terms, before, &mut ledger).await?);
                }
                SyncCommand::Change { server_id, data }
                    if draft::is_written(data) && self.is_drafts().await? =>
                {
                    let told = self.change_draft(server_id, data, terms, before, &mut ledger).await?;
                    responses.extend(told);
                }
                SyncCommand::Change { server_id, data } => {
                    let status = completed(self.change(server_id, data, kept, known).await)?;
                    if status != SyncStatus::Success {
                        responses.push(CommandResponse::Change { server_id: server_id.clone(), status });
                    }
                }
                SyncCommand::Delete { server_id } => {
                    let status = completed(self.delete(server_id).await)?;
                    let gone = again.is_some() && status == SyncStatus::ObjectNotFound;
                    if status != SyncStatus::Success && !gone {
                        responses.push(CommandResponse::Delete { server_id: server_id.clone(), status });
                    }
                }
                SyncCommand::Fetch { server_id } => {
                    responses.push(self.fetch(server_id, kept, budget).await?);
                }
            }
        }
        Ok((responses, ledger))
    }

    pub(super) async fn change(
        &self,
        server_id: &str,
        data: &ApplicationData,
        kept: &Kept,
        known: Number,
    ) -> Result<SyncStatus> {
        let Some(place) = self.item_of(server_id) else { return Ok(SyncStatus::ObjectNotFound) };
        let Ok(change) = MailChange::read(data) else { return Ok(SyncStatus::ConversionError) };
        // Anything else that a device may change of a mail is not kept here, which harms nobody.
        if change.is_empty() {
            return Ok(SyncStatus::Success);
        }
        let mut marks = None;
        if change.touches_marks() || kept.conflict == Some(SERVER_WINS) {
            let Some((live, last)) = item::changed(self.request, place).await? else {
                return Ok(SyncStatus::ObjectNotFound);
            };
            let own = live.maker.is_own_sync_of(&self.request.device.key);
            let others = if own { live.before } else { last };
            // While additions are being told the device holds items younger than what it knows of the folder.
            let known = known.max(place.item.0);
            if kept.conflict != Some(DEVICE_WINS) && others > known && differs(&live, &change) {
                return Ok(SyncStatus::Conflict);
            }
            if change.touches_marks() {
                let mut now = Marks::from_text(&live.marks);
                change.apply(&mut now);
                let Ok(text) = now.to_text() else { return Ok(SyncStatus::ConversionError) };
                marks = Some(text);
            }
        }
        let (session, device) = (&self.request.session, &self.request.device.key);
        let backend = self.request.backend();
        let found = backend.item_set(session, device, place, change.read, marks.as_deref()).await?;
        Ok(if found { SyncStatus::Success } else { SyncStatus::ObjectNotFound })
    }

    /// Into Deleted Items, unless the device wants it gone or it lies there already. The device knows that the
    /// item left this folder, but not what it is called there: that comes with the next Sync of Deleted Items.
    async fn delete(&self, server_id: &str) -> Result<SyncStatus> {
        let Some(place) = self.item_of(server_id) else { return Ok(SyncStatus::ObjectNotFound) };
        let (backend, session, device) =
            (self.request.backend(), &self.request.session, &self.request.device.key);
        let bin = if self.collection.deletes_as_moves == Some(false) {
            None
        } else {
            let all = self.request.front.folders.get(self.request, self.hierarchy).await?;
            all.folders.iter().find(|folder| folder.folder_type == DELETED_ITEMS).map(|bin| bin.id)
        };
        let found = match bin.filter(|bin| *bin != self.folder) {
            Some(bin) => backend.item_move(session, device, place, bin, Cause::Move).await?.is_some(),
            None => backend.item_delete(session, device, place).await?,
        };
        Ok(if found { SyncStatus::Success } else { SyncStatus::ObjectNotFound })
    }

    /// An item, as far as the answer has room for it.
    async fn fetch(&self, server_id: &str, kept: &Kept, budget: &mut Budget) -> Result<CommandResponse> {
        let answer = |status, data| CommandResponse::Fetch { server_id: server_id.to_owned(), status, data };
        if budget.is_over() {
            return Ok(answer(self.later(), None));
        }
        let data = match self.item_of(server_id) {
            Some(place) if self.class == Class::Email => {
                let live = item::live(self.request, place).await?;
                self.item(place.item, live.as_ref(), kept).await?
            }
            _ => None,
        };
        Ok(match data {
            None => answer(SyncStatus::ObjectNotFound, None),
            Some((data, size)) if budget.takes(size) => answer(SyncStatus::Success, Some(data)),
            Some(_) => answer(self.later(), None),
        })
    }
}

/// [MS-ASCMD] Conflict: who wins.
pub(super) const DEVICE_WINS: u8 = 0;
const SERVER_WINS: u8 = 1;

/// Whether the item is not already as the device wants it: two who did the same are in no conflict.
fn differs(live: &Live, change: &MailChange) -> bool {
    let before = Marks::from_text(&live.marks);
    let mut after = before.clone();
    change.apply(&mut after);
    after != before || change.read.is_some_and(|read| read != live.read)
}

/// A mailbox or a disk that is full is the fate of this command, not of the request: Status 9.
pub(super) fn completed(status: Result<SyncStatus>) -> Result<SyncStatus> {
    match status {
        Err(error) if is_full(&error) => Ok(SyncStatus::CannotComplete),
        status => status,
    }
}

pub(super) fn is_full(error: &Error) -> bool {
    error.status() == Some(StatusCode::INSUFFICIENT_STORAGE)
}
