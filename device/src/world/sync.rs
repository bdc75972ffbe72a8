//! Sync in the simulated front end: the same planning as the real one's, over the simulated back end.

use std::collections::HashMap;

use directpush_common::{
    change::{Cause, EntryKind, Maker},
    eas::{
        Version,
        status::SyncStatus,
        sync::{
            CollectionResponse, CommandResponse, FilterType, ServerCommand, SyncBody, SyncCollection,
            SyncCommand, SyncResponse, email_read,
        },
    },
    names::{DeviceKey, FolderId, ItemId},
    sync::{
        plan::{PlanCommand, SyncPlan},
        state::{CollectionState, Resume},
    },
    wbxml::{Element, Limits, tags::email},
};

use super::{World, folder_id, frontend::Frontend, frontend::body_of};
use crate::core::Response;

impl World {
    pub(super) fn floor(&self, filter: FilterType) -> Option<i64> {
        filter.days().map(|days| self.unix_secs() - i64::from(days) * 86_400)
    }
}

impl Frontend {
    /// `None`: the back end does not answer.
    pub(super) async fn sync(&self, mailbox: usize, device: &DeviceKey, body: &[u8]) -> Option<Response> {
        let SyncBody::Full(request) = SyncBody::decode(body, Limits::default()).unwrap() else { return None };
        let mut answers = Vec::new();
        for collection in &request.collections {
            answers.extend(self.sync_collection(mailbox, device, collection).await?);
        }
        Some(body_of(SyncResponse::Collections(answers).encode(Version::V14_1)))
    }

    async fn sync_collection(
        &self,
        mailbox: usize,
        device: &DeviceKey,
        asked: &SyncCollection,
    ) -> Option<Option<CollectionResponse>> {
        let folder = asked.collection_id.parse::<FolderId>().unwrap().counter;
        let backend = &self.world.backend;
        let stored = backend.call(self.index, async |backend| {
            backend
                .devices
                .borrow()
                .get(&device.to_string())
                .and_then(|state| state.collections.get(&folder).cloned())
        });
        let (tag, state) = stored.await?.unwrap_or_default();
        let plain = |key: &str, status| CollectionResponse::plain(key, &asked.collection_id, status);
        let filter = asked.options.first().and_then(|options| options.filter_type).unwrap_or(FilterType::All);
        let floor = self.world.floor(filter);
        if asked.sync_key == "0" {
            let begun = state.started_over(filter.code(), floor, String::new());
            let key = begun.current.key.to_string();
            let saved = self.save(device, folder, tag, begun).await?;
            return Some(Some(if saved {
                plain(&key, SyncStatus::Success)
            } else {
                plain("0", SyncStatus::Retry)
            }));
        }
        let (from, replayed) = match state.resume(asked.sync_key.parse().unwrap()) {
            Resume::Current(from) => (from, false),
            Resume::Replay(from) => (from, true),
            Resume::Unknown => return Some(Some(plain("0", SyncStatus::InvalidSyncKey))),
        };
        if SyncPlan::must_start_over(&from, filter.code()) {
            return Some(Some(plain("0", SyncStatus::InvalidSyncKey)));
        }
        let responses = self.upload(mailbox, device, folder, &asked.commands).await?;
        let window = asked.window_size.unwrap_or(100) as usize;
        let mut plan = SyncPlan::new(device, from.clone(), window, filter.code(), floor);
        let mut read = HashMap::new();
        while let Some(wanted) = plan.wants() {
            let items = backend
                .call(self.index, async |backend| backend.folder(mailbox, folder, |f| f.items(&wanted)));
            let items = items.await?;
            plan.handle_items(&items);
            for entry in &items.entries {
                if let EntryKind::Live(live) = &entry.kind {
                    read.insert(entry.id, live.read);
                }
            }
        }
        let planned = plan.finish();
        let quiet = planned.commands.is_empty() && !planned.more && asked.commands.is_empty() && !replayed;
        let mut commands = Vec::new();
        for command in planned.commands {
            commands.extend(self.command(mailbox, folder, command, &read).await?);
        }
        let after =
            if quiet { state.advanced(planned.next) } else { CollectionState::answered(from, planned.next) };
        let key = after.current.key.to_string();
        if after != state && !self.save(device, folder, tag, after).await? {
            return Some(Some(plain(&asked.sync_key, SyncStatus::Retry)));
        }
        if quiet {
            return Some(None);
        }
        let more_available = planned.more;
        Some(Some(CollectionResponse {
            commands,
            responses,
            more_available,
            ..plain(&key, SyncStatus::Success)
        }))
    }

    async fn save(&self, device: &DeviceKey, folder: u64, tag: u64, state: CollectionState) -> Option<bool> {
        let saved = self.world.backend.call(self.index, async |backend| {
            let mut devices = backend.devices.borrow_mut();
            let slot = devices.entry(device.to_string()).or_default().collections.entry(folder).or_default();
            let fits = slot.0 == tag;
            if fits {
                *slot = (tag + 1, state);
            }
            fits
        });
        saved.await
    }

    async fn upload(
        &self,
        mailbox: usize,
        device: &DeviceKey,
        folder: u64,
        commands: &[SyncCommand],
    ) -> Option<Vec<CommandResponse>> {
        let maker = Maker { device: Some(device.clone()), cause: Cause::Sync };
        let mut responses = Vec::new();
        for command in commands {
            let maker = maker.clone();
            let backend = &self.world.backend;
            match command {
                SyncCommand::Change { server_id, data } => {
                    let (id, read) = (item_of(server_id), email_read(data).unwrap());
                    let found = backend.call(self.index, async |backend| {
                        backend.change(mailbox, folder, |f| f.set_read(id, read, maker))
                    });
                    if !found.await? {
                        let status = SyncStatus::ObjectNotFound;
                        responses.push(CommandResponse::Change { server_id: server_id.clone(), status });
                    }
                }
                SyncCommand::Delete { server_id } => {
                    let id = item_of(server_id);
                    let deleted = backend.call(self.index, async |backend| {
                        backend.change(mailbox, folder, |f| f.delete(id, maker))
                    });
                    deleted.await?;
                }
                SyncCommand::Add { .. } | SyncCommand::Fetch { .. } => unreachable!("no phone here does so"),
            }
        }
        Some(responses)
    }

    async fn command(
        &self,
        mailbox: usize,
        folder: u64,
        command: PlanCommand,
        read: &HashMap<ItemId, bool>,
    ) -> Option<Option<ServerCommand>> {
        let name = |item: ItemId| format!("{folder:x}:{item}");
        let flag = |item| Element::text(email::READ, if read.get(&item) == Some(&true) { "1" } else { "0" });
        Some(match command {
            PlanCommand::Delete(item) => Some(ServerCommand::Delete { server_id: name(item) }),
            PlanCommand::SoftDelete(item) => Some(ServerCommand::SoftDelete { server_id: name(item) }),
            PlanCommand::Change(item) => {
                Some(ServerCommand::Change { server_id: name(item), data: vec![flag(item)] })
            }
            PlanCommand::Add(item) => {
                let subject = self.world.backend.call(self.index, async |backend| {
                    backend.folder(mailbox, folder, |f| f.subject(item).map(str::to_owned))
                });
                // Gone since the report: the next one says so.
                subject.await?.map(|subject| ServerCommand::Add {
                    server_id: name(item),
                    data: vec![Element::text(email::SUBJECT, subject), flag(item)],
                })
            }
        })
    }
}

/// The item of a server id.
pub(super) fn item_of(server_id: &str) -> ItemId {
    ItemId(server_id.split_once(':').unwrap().1.parse().unwrap())
}

/// The server id of an item, as the phone holds it.
pub(super) fn server_id(folder: u64, item: ItemId) -> String {
    format!("{:x}:{item}", folder_id(folder).counter)
}
