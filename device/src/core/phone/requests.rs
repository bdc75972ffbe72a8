//! The bodies of a phone's requests.

use directpush_common::eas::{
    ping::PingFolder,
    provision::{DeviceInformation, PolicyRequest, PolicyType, ProvisionRequest},
    status::PolicyAcknowledgement,
    sync::{BodyPreference, BodyType, FilterType, SyncCollection, SyncOptions, SyncRequest},
};

use super::{Phone, class_of};

/// Truncation of bodies, in bytes.
const BODY_BYTES: u32 = 2048;

impl Phone {
    pub(super) fn ask_policy(&self) -> ProvisionRequest {
        let information = DeviceInformation {
            model: Some(self.profile.device_type.as_str().to_owned()),
            user_agent: Some(self.profile.user_agent.clone()),
            ..DeviceInformation::default()
        };
        ProvisionRequest {
            device_information: self.version.needs_device_information().then_some(information),
            policy: Some(PolicyRequest::Ask(PolicyType::of(self.version))),
            remote_wipe: None,
        }
    }

    pub(super) fn acknowledge(&self, key: u32) -> ProvisionRequest {
        let policy = PolicyRequest::Acknowledge {
            policy_type: PolicyType::of(self.version),
            key: Some(key),
            status: PolicyAcknowledgement::Applied,
        };
        ProvisionRequest { device_information: None, policy: Some(policy), remote_wipe: None }
    }

    pub(super) fn sync_request(&self, folders: &[String]) -> SyncRequest {
        let known = folders.iter().filter_map(|id| Some((id, self.mailbox.folders.get(id.as_str())?)));
        let collections = known.map(|(id, folder)| {
            let begins = &*folder.sync_key == "0";
            SyncCollection {
                class: self.version.has_class_in_collection().then(|| class_of(folder.kind).to_owned()),
                sync_key: folder.sync_key.to_string(),
                collection_id: id.clone(),
                deletes_as_moves: (!begins).then_some(true),
                get_changes: (!begins).then_some(true),
                window_size: (!begins).then_some(self.profile.window),
                options: if begins { Vec::new() } else { vec![self.options()] },
                commands: if begins { Vec::new() } else { folder.uploads.clone() },
                ..SyncCollection::default()
            }
        });
        SyncRequest { collections: collections.collect(), ..SyncRequest::default() }
    }

    pub(super) fn options(&self) -> SyncOptions {
        let filter_type = (self.profile.filter != FilterType::All).then_some(self.profile.filter);
        let plain = BodyPreference {
            body_type: BodyType::Plain,
            truncation_size: Some(BODY_BYTES),
            all_or_none: false,
            preview: None,
        };
        if self.version.has_air_sync_base() {
            SyncOptions { filter_type, body_preferences: vec![plain], ..SyncOptions::default() }
        } else {
            // 4 is 5 KiB.
            SyncOptions { filter_type, truncation: Some(4), ..SyncOptions::default() }
        }
    }

    /// Android leaves out folders that it never synced; some phones do not.
    pub(super) fn ping_folders(&self) -> Vec<PingFolder> {
        let unsynced = &self.profile.watch_unsynced;
        let watched = self
            .mailbox
            .folders
            .iter()
            .filter(|(_, folder)| &*folder.sync_key != "0" || unsynced.contains(&folder.kind));
        watched
            .map(|(id, folder)| PingFolder { id: id.to_string(), class: class_of(folder.kind).to_owned() })
            .collect()
    }
}
