//! The state machine of a phone, from OPTIONS to the Ping that never ends.
//!
//! What to do next follows from what the phone knows: capabilities, then a policy if one is demanded, then the
//! hierarchy, then each folder that is behind, then Ping ([MS-ASCMD] 2.2.1.13 Ping). One request is out at a time.
//! The driver takes it with [`Phone::next_request`], reports with `handle_*`, and comes back at [`Phone::deadline`].

mod answers;
mod requests;

use directpush_common::{
    clock::Moment,
    eas::{
        Version,
        folder_sync::FolderSyncRequest,
        ping::{PingFolder, PingRequest},
    },
};

use super::{
    heartbeat::Heartbeat,
    mailbox::{Mailbox, News},
    message::{Request, Response, Task},
    profile::{Profile, class_of},
};

/// Seconds a phone waits for the answer to anything but a Ping (Android's COMMAND_TIMEOUT).
const COMMAND_SECS: u64 = 30;
/// Seconds a phone waits after a Sync that the server could not do (Android).
const SYNC_ERROR_SECS: u64 = 60;
/// Seconds between polls when the server has no push.
const POLL_SECS: u64 = 900;
/// Milliseconds of the first pause after a failure; it doubles up to [`PAUSE_MILLIS_MAX`].
const PAUSE_MILLIS: u64 = 1000;
/// Longest pause after failures, in milliseconds.
const PAUSE_MILLIS_MAX: u64 = 60_000;
/// A Ping that failed sooner than this says nothing of the network's patience, in milliseconds.
const STOOD_MILLIS: u64 = 2000;

/// Why the phone has stopped and asks its user.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// 401.
    #[error("the server does not take the user name or password (HTTP 401)")]
    Credentials,
    /// 403, or a common status that says the same.
    #[error("the server refuses this user or device ({0})")]
    Refused(String),
    /// 404, or an answer that is not ActiveSync.
    #[error("this is no ActiveSync server: {0}")]
    NotActiveSync(String),
    /// No common version.
    #[error("the server speaks {0:?}, the device {1} at best")]
    Version(String, Version),
    /// Status 6.
    #[error("the server lets a device watch {0} folders, which is fewer than this device watches")]
    TooManyFolders(u32),
    /// The policy cannot be had.
    #[error("the server does not give this device a policy ({0})")]
    Policy(String),
    /// RemoteWipe.
    #[error("the server ordered the device to wipe itself")]
    Wiped,
}

/// What the phone did so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(missing_docs, reason = "each counts what its name says")]
pub struct Counters {
    pub requests: u64,
    pub pings: u64,
    pub pings_expired: u64,
    pub pings_changed: u64,
    pub pings_failed: u64,
    pub syncs: u64,
    /// Syncs after a Ping that said 2 that brought nothing.
    pub empty_syncs: u64,
    pub folder_syncs: u64,
    pub lost_connections: u64,
}

#[derive(Debug)]
struct Outstanding {
    task: Task,
    sent: Moment,
    give_up: Moment,
    /// Own changes per folder that went with a Sync.
    uploaded: Vec<usize>,
    /// What a Ping asked.
    asked: Option<Vec<PingFolder>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Provisioning {
    Done,
    Ask,
    Acknowledge(u32),
}

/// One phone.
#[derive(Debug)]
pub struct Phone {
    profile: Profile,
    version: Version,
    heartbeat: Heartbeat,
    mailbox: Mailbox,
    capable: bool,
    has_push: bool,
    provisioning: Provisioning,
    policy_key: Option<u32>,
    hierarchy_stale: bool,
    /// What the server has cached for this device, as far as the phone can know.
    cached: Option<(u32, Vec<PingFolder>)>,
    /// Folders that the last Ping named.
    pinged: Vec<String>,
    outstanding: Option<Outstanding>,
    not_before: Moment,
    failures: u32,
    trouble: Option<Trouble>,
    counters: Counters,
}

impl Phone {
    /// A phone that was just given its account.
    pub fn new(profile: Profile) -> Self {
        Self {
            version: profile.version,
            heartbeat: Heartbeat::new(profile.strategy),
            mailbox: Mailbox::new(),
            capable: false,
            has_push: true,
            provisioning: if profile.provisions_first { Provisioning::Ask } else { Provisioning::Done },
            policy_key: None,
            hierarchy_stale: true,
            cached: None,
            pinged: Vec::new(),
            outstanding: None,
            not_before: Moment::default(),
            failures: 0,
            trouble: None,
            counters: Counters::default(),
            profile,
        }
    }

    /// Who it is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What it holds.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Its heartbeat strategy.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The version it speaks with this server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Why it has stopped, if it has.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Whether nothing is left to be synced as far as the phone knows.
    pub fn is_in_step(&self) -> bool {
        !self.hierarchy_stale && self.capable && self.mailbox.folders.values().all(|folder| !folder.stale)
    }

    /// What is out now.
    pub fn outstanding(&self) -> Option<&Task> {
        self.outstanding.as_ref().map(|outstanding| &outstanding.task)
    }

    /// When the phone has something to do though nothing happened: the next request, or giving up on one.
    pub fn deadline(&self) -> Moment {
        match &self.outstanding {
            _ if self.trouble.is_some() => Moment::NEVER,
            Some(outstanding) => outstanding.give_up,
            None => self.not_before,
        }
    }

    /// The request to send now, once. `None`: one is out, a pause runs, or the phone has stopped.
    pub fn next_request(&mut self, now: Moment) -> Option<Request> {
        if self.trouble.is_some() || self.outstanding.is_some() || now < self.not_before {
            return None;
        }
        let task = self.next_task(now)?;
        let mut uploaded = Vec::new();
        let mut asked = None;
        let body = match &task {
            Task::Options => Vec::new(),
            Task::ProvisionAsk => self.ask_policy().encode(),
            Task::ProvisionAcknowledge(key) => self.acknowledge(*key).encode(),
            Task::FolderSync => {
                FolderSyncRequest { sync_key: self.mailbox.hierarchy_key.to_string() }.encode()
            }
            Task::Sync(folders) => {
                let request = self.sync_request(folders);
                uploaded = request.collections.iter().map(|collection| collection.commands.len()).collect();
                request.encode(self.version)
            }
            Task::Ping(secs) => {
                let folders = self.ping_folders();
                self.pinged = folders.iter().map(|folder| folder.id.clone()).collect();
                let same =
                    self.cached.as_ref().is_some_and(|(cached, known)| cached == secs && *known == folders);
                asked = Some(folders.clone());
                if same && self.profile.strategy.sends_empty_pings() {
                    Vec::new()
                } else {
                    // Until this one is answered nobody knows which of the two the server keeps.
                    self.cached = None;
                    PingRequest { heartbeat: Some(i64::from(*secs)), folders: Some(folders) }.encode()
                }
            }
        };
        let patience = match task {
            Task::Ping(secs) => u64::from(secs) + self.profile.strategy.grace_secs(),
            _ => COMMAND_SECS,
        };
        let give_up = now.plus_secs(patience);
        self.counters.requests += 1;
        match task {
            Task::Ping(_) => self.counters.pings += 1,
            Task::Sync(_) => self.counters.syncs += 1,
            Task::FolderSync => self.counters.folder_syncs += 1,
            _ => {}
        }
        self.outstanding = Some(Outstanding { task: task.clone(), sent: now, give_up, uploaded, asked });
        Some(Request::new(&self.profile, self.version, self.policy_key, task, body, give_up))
    }

    /// An answer came, whole.
    pub fn handle_response(&mut self, now: Moment, response: &Response) -> Vec<News> {
        let Some(outstanding) = self.outstanding.take() else { return Vec::new() };
        match response.status {
            200 => {}
            401 => {
                self.trouble = Some(Trouble::Credentials);
                return Vec::new();
            }
            449 => {
                self.provision(now);
                return Vec::new();
            }
            403 | 507 => {
                self.trouble = Some(Trouble::Refused(format!("HTTP {}", response.status)));
                return Vec::new();
            }
            400 | 404 | 405 | 501 | 505 if outstanding.task == Task::Options || self.failures > 5 => {
                self.trouble = Some(Trouble::NotActiveSync(format!(
                    "{} is answered HTTP {}",
                    outstanding.task.name(),
                    response.status
                )));
                return Vec::new();
            }
            _ => {
                if matches!(outstanding.task, Task::Ping(_)) {
                    self.counters.pings_failed += 1;
                }
                let told = response.retry_after().filter(|_| !self.profile.ignores_retry_after);
                self.pause(now, told.map(|secs| secs.saturating_mul(1000)));
                return Vec::new();
            }
        }
        let before = self.failures;
        self.failures = 0;
        let body = response.body.as_slice();
        match &outstanding.task {
            Task::Options => self.take_options(response),
            Task::ProvisionAsk | Task::ProvisionAcknowledge(_) => self.take_policy(now, body),
            Task::FolderSync => self.take_hierarchy(now, body),
            Task::Sync(folders) => return self.take_sync(now, before, folders, &outstanding, body),
            Task::Ping(_) => self.take_ping(now, before, &outstanding, body),
        }
        Vec::new()
    }

    /// The connection was lost or refused before the answer was whole.
    pub fn handle_lost(&mut self, now: Moment) {
        let Some(outstanding) = self.outstanding.take() else { return };
        self.counters.lost_connections += 1;
        let lasted = now.since(outstanding.sent);
        if matches!(outstanding.task, Task::Ping(_)) {
            self.heartbeat.handle_lost(lasted);
            if now.millis_since(outstanding.sent) >= STOOD_MILLIS {
                // The connection stood and was cut: the phone is at once back on a new one.
                self.failures = 0;
                self.not_before = now;
                return;
            }
        }
        self.pause(now, None);
    }

    /// Gives up on an answer that did not come in time. True if it did: the driver closes the connection.
    pub fn handle_time(&mut self, now: Moment) -> bool {
        let late = self.outstanding.as_ref().is_some_and(|outstanding| now >= outstanding.give_up);
        if late {
            self.handle_lost(now);
        }
        late
    }

    /// The phone gave up its Ping by itself to do something else: its user asked for a Sync, or changed
    /// something. True if a Ping was out: the driver closes the connection, as Android does.
    pub fn handle_wish(&mut self, now: Moment) -> bool {
        let pinging = matches!(self.outstanding(), Some(Task::Ping(_)));
        if pinging {
            self.outstanding = None;
            self.not_before = now;
        }
        pinging
    }

    /// Marks every kept folder as behind: the user pressed "Sync".
    pub fn want_sync(&mut self) {
        let unsynced = &self.profile.watch_unsynced;
        for folder in self.mailbox.folders.values_mut().filter(|folder| !unsynced.contains(&folder.kind)) {
            folder.stale = true;
        }
    }

    /// Asks for the folders anew before anything else.
    pub fn want_hierarchy(&mut self) {
        self.hierarchy_stale = true;
    }

    /// Its own changes go into the mailbox it holds.
    pub fn mailbox_mut(&mut self) -> &mut Mailbox {
        &mut self.mailbox
    }

    fn next_task(&mut self, now: Moment) -> Option<Task> {
        if !self.capable {
            return Some(Task::Options);
        }
        match self.provisioning {
            Provisioning::Ask => return Some(Task::ProvisionAsk),
            Provisioning::Acknowledge(key) => return Some(Task::ProvisionAcknowledge(key)),
            Provisioning::Done => {}
        }
        if self.hierarchy_stale {
            return Some(Task::FolderSync);
        }
        let unsynced = &self.profile.watch_unsynced;
        let stale = self.mailbox.folders.iter().filter(|(_, f)| f.stale && !unsynced.contains(&f.kind));
        let mut stale: Vec<String> = stale.map(|(id, _)| id.to_string()).collect();
        if !self.profile.syncs_together {
            stale.truncate(1);
        }
        if !stale.is_empty() {
            return Some(Task::Sync(stale));
        }
        if self.mailbox.folders.is_empty() || !self.has_push {
            // Nothing to watch, or no push: look again after a while.
            self.not_before = now.plus_secs(POLL_SECS);
            self.hierarchy_stale = self.mailbox.folders.is_empty();
            self.want_sync();
            return None;
        }
        Some(Task::Ping(self.heartbeat.interval()))
    }

    /// Waits `millis`, or a time that doubles with every failure in a row.
    fn pause(&mut self, now: Moment, millis: Option<u64>) {
        let growing = (PAUSE_MILLIS << self.failures.min(10)).min(PAUSE_MILLIS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.plus_millis(millis.unwrap_or(growing));
    }
}

#[cfg(test)]
mod tests;
