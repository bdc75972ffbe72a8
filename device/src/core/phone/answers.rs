//! What a phone makes of the answers: one function per command.
//!
//! Source of the reactions: [MS-ASCMD] 2.2.3.177.11 Status (Ping), 2.2.3.177.17 Status (Sync), and what
//! Android's `PingParser` and `EasSyncService` do.

use directpush_common::{
    clock::Moment,
    eas::{
        CommonStatus, Version,
        folder_sync::FolderSyncResponse,
        header,
        ping::{PingFolder, PingResponse},
        provision::{ProvisionResponse, ProvisionResponseError},
        status::{FolderSyncStatus, PolicyStatus, ProvisionStatus, SyncStatus},
        sync::{CollectionResponse, SyncResponse},
    },
    wbxml::Limits,
};

use super::{News, Outstanding, PAUSE_MILLIS, Phone, Provisioning, Response, SYNC_ERROR_SECS, Task, Trouble};

impl Phone {
    pub(super) fn take_options(&mut self, response: &Response) {
        let versions = response.header(header::PROTOCOL_VERSIONS).unwrap_or_default();
        let offered = versions.split(',').filter_map(|version| version.parse::<Version>().ok());
        let best = offered.filter(|version| *version <= self.profile.version).max();
        let Some(best) = best else {
            self.trouble = Some(if versions.is_empty() {
                Trouble::NotActiveSync("its answer to OPTIONS has no MS-ASProtocolVersions".to_owned())
            } else {
                Trouble::Version(versions.to_owned(), self.profile.version)
            });
            return;
        };
        self.version = best;
        let commands = response.header(header::PROTOCOL_COMMANDS).unwrap_or_default();
        self.has_push = commands.split(',').any(|command| command.trim() == "Ping");
        self.capable = true;
    }

    pub(super) fn take_policy(&mut self, now: Moment, body: &[u8]) {
        let response = match ProvisionResponse::decode(body, Limits::default()) {
            Ok(response) => response,
            Err(ProvisionResponseError::Refused(status)) => return self.take_common(now, status),
            Err(error) => {
                self.trouble = Some(Trouble::Policy(error.to_string()));
                return;
            }
        };
        if response.wipe.is_some() {
            self.trouble = Some(Trouble::Wiped);
            return;
        }
        let refused = |what: String| Some(Trouble::Policy(what));
        if response.status != ProvisionStatus::Success {
            self.trouble = refused(format!("Status {}", response.status));
            return;
        }
        let asked = self.provisioning == Provisioning::Ask;
        self.provisioning = match response.policy {
            Some(policy) if policy.status == PolicyStatus::Success => match policy.key {
                Some(key) if asked => Provisioning::Acknowledge(key),
                key => {
                    self.policy_key = key;
                    Provisioning::Done
                }
            },
            // There is none: the device stops asking.
            Some(policy) if policy.status == PolicyStatus::NotDefined => Provisioning::Done,
            None => Provisioning::Done,
            Some(policy) => {
                self.trouble = refused(format!("Policy Status {}", policy.status));
                return;
            }
        };
        // The temporary key is what the acknowledgement is sent with.
        if let Provisioning::Acknowledge(key) = self.provisioning {
            self.policy_key = Some(key);
        }
    }

    pub(super) fn take_hierarchy(&mut self, now: Moment, body: &[u8]) {
        match FolderSyncResponse::decode(body, Limits::default()) {
            Ok(FolderSyncResponse::Changes(changes)) => {
                let profile = &self.profile;
                self.mailbox.apply_hierarchy(changes, |kind| {
                    profile.watch.contains(&kind) || profile.watch_unsynced.contains(&kind)
                });
                self.hierarchy_stale = false;
            }
            Ok(FolderSyncResponse::Failed(FolderSyncStatus::InvalidSyncKey)) => {
                if &*self.mailbox.hierarchy_key == "0" {
                    self.pause(now, Some(SYNC_ERROR_SECS * 1000));
                }
                self.mailbox.hierarchy_key = "0".into();
            }
            Ok(FolderSyncResponse::Common(status)) => self.take_common(now, status),
            Ok(FolderSyncResponse::Failed(_)) => self.pause(now, Some(SYNC_ERROR_SECS * 1000)),
            Err(error) => self.misunderstood(now, &error),
        }
    }

    pub(super) fn take_sync(
        &mut self,
        now: Moment,
        failures: u32,
        folders: &[String],
        outstanding: &Outstanding,
        body: &[u8],
    ) -> Vec<News> {
        let collections = match SyncResponse::decode(body, Limits::default()) {
            Ok(SyncResponse::Collections(collections)) => collections,
            Ok(SyncResponse::Failed { status, .. }) => {
                self.failures = failures;
                for folder in folders {
                    self.sync_failed(now, folder, status);
                }
                return Vec::new();
            }
            Ok(SyncResponse::Common(status)) => {
                self.take_common(now, status);
                return Vec::new();
            }
            Err(error) => {
                self.misunderstood(now, &error);
                return Vec::new();
            }
        };
        let mut news = Vec::new();
        // What the response does not name had nothing happen to it; an empty one names nothing.
        let answered = |id: &str| collections.iter().any(|collection| collection.collection_id == id);
        for (n, folder) in folders.iter().enumerate() {
            if !answered(folder)
                && let Some(known) = self.mailbox.folders.get_mut(folder.as_str())
            {
                let uploaded = outstanding.uploaded.get(n).copied().unwrap_or_default();
                known.confirm(uploaded);
            }
        }
        for collection in collections {
            let CollectionResponse { collection_id, status, .. } = &collection;
            if *status == SyncStatus::Success {
                let place = folders.iter().position(|folder| folder == collection_id);
                let uploaded = place.and_then(|n| outstanding.uploaded.get(n)).copied().unwrap_or_default();
                news.extend(self.mailbox.apply(collection, uploaded));
            } else {
                self.failures = failures;
                let folder = collection_id.clone();
                self.sync_failed(now, &folder, *status);
            }
        }
        let after_ping = self.pinged.iter().any(|id| folders.contains(id));
        if news.is_empty() && after_ping && outstanding.uploaded.iter().all(|count| *count == 0) {
            self.counters.empty_syncs += 1;
        }
        self.pinged.retain(|id| !folders.contains(id));
        news
    }

    pub(super) fn sync_failed(&mut self, now: Moment, folder: &str, status: SyncStatus) {
        match status {
            SyncStatus::InvalidSyncKey => {
                let begins = self.mailbox.folders.get(folder).is_some_and(|f| &*f.sync_key == "0");
                self.mailbox.start_over(folder);
                if begins {
                    self.pause(now, Some(SYNC_ERROR_SECS * 1000));
                }
            }
            SyncStatus::FolderSyncRequired | SyncStatus::ObjectNotFound => self.hierarchy_stale = true,
            SyncStatus::Retry => self.pause(now, None),
            _ => self.pause(now, Some(SYNC_ERROR_SECS * 1000)),
        }
    }

    pub(super) fn take_ping(&mut self, now: Moment, failures: u32, outstanding: &Outstanding, body: &[u8]) {
        let Task::Ping(secs) = outstanding.task else { return };
        let response = match PingResponse::decode(body, Limits::default()) {
            Ok(response) => response,
            // Android treats an answer without a body as a network failure.
            Err(error) => {
                self.heartbeat.handle_lost(now.since(outstanding.sent));
                return self.misunderstood(now, &error);
            }
        };
        let known = |folders: &Option<Vec<PingFolder>>| folders.clone().map(|folders| (secs, folders));
        match response {
            PingResponse::Expired => {
                self.counters.pings_expired += 1;
                self.cached = known(&outstanding.asked);
                self.heartbeat.handle_expired();
            }
            PingResponse::Changed(folders) => {
                self.counters.pings_changed += 1;
                self.cached = known(&outstanding.asked);
                let mut found = false;
                for id in &folders {
                    if let Some(folder) = self.mailbox.folders.get_mut(id.as_str()) {
                        folder.stale = true;
                        found = true;
                    }
                }
                self.pinged = folders;
                self.hierarchy_stale |= !found;
                if found && self.is_only_unsynced() {
                    // It never syncs these: the phone pings on, and leaves the server some seconds.
                    self.mailbox.folders.values_mut().for_each(|folder| folder.stale = false);
                    self.not_before = now.plus_millis(PAUSE_MILLIS);
                }
            }
            PingResponse::MissingParameters => {
                self.counters.pings_failed += 1;
                let was_full = self.cached.take().is_none() || !self.profile.strategy.sends_empty_pings();
                if was_full {
                    self.repeat_ping(now, failures);
                }
            }
            PingResponse::Syntax | PingResponse::ServerError => {
                self.counters.pings_failed += 1;
                self.cached = None;
                self.repeat_ping(now, failures);
            }
            PingResponse::HeartbeatOutOfRange(legal) => {
                self.cached = None;
                self.heartbeat.handle_bound(legal);
            }
            PingResponse::TooManyFolders(max) => self.trouble = Some(Trouble::TooManyFolders(max)),
            PingResponse::FolderSyncRequired => {
                self.cached = None;
                self.hierarchy_stale = true;
            }
            PingResponse::Common(status) => self.take_common(now, status),
        }
    }

    fn is_only_unsynced(&self) -> bool {
        let unsynced = &self.profile.watch_unsynced;
        self.mailbox.folders.values().filter(|folder| folder.stale).all(|f| unsynced.contains(&f.kind))
    }

    /// Android repeats at once; others leave the server a pause that grows.
    pub(super) fn repeat_ping(&mut self, now: Moment, failures: u32) {
        if self.profile.strategy.is_eager() {
            self.not_before = now;
        } else {
            self.failures = failures;
            self.pause(now, None);
        }
    }

    pub(super) fn take_common(&mut self, now: Moment, status: CommonStatus) {
        match status {
            CommonStatus::DeviceNotProvisioned
            | CommonStatus::PolicyRefresh
            | CommonStatus::InvalidPolicyKey
            | CommonStatus::RemoteWipeRequested
            | CommonStatus::LegacyDeviceOnStrictPolicy => self.provision(now),
            CommonStatus::ServerError
            | CommonStatus::ServerErrorRetryLater
            | CommonStatus::MailboxServerOffline
            | CommonStatus::SyncStateLocked => self.pause(now, None),
            other => self.trouble = Some(Trouble::Refused(format!("Status {other}"))),
        }
    }

    pub(super) fn provision(&mut self, now: Moment) {
        // A server that is not content with the policy it gave itself must not be asked in a loop.
        if self.policy_key.take().is_some() {
            self.pause(now, None);
        }
        self.provisioning = Provisioning::Ask;
    }

    pub(super) fn misunderstood(&mut self, now: Moment, error: &dyn std::error::Error) {
        tracing::warn!(device = %self.profile.device_id, %error, "an answer that cannot be read");
        self.pause(now, None);
    }
}
