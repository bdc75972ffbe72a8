//! What a Ping asks, made complete: the body, else AutdState.xml; then the folders and what the
//! device knows of each, else the device's state objects.
//!
//! In the steady state this is one conditional GET, answered 304: the numbers that come with it say
//! that everything remembered still holds. AutdState.xml is written only when it changes.

use std::sync::Arc;

use directpush_common::autd::{AutdFolder, AutdState};
use directpush_common::dav::hierarchy::Class;
use directpush_common::eas::ping::{PingBody, PingFolder, PingResponse};
use directpush_common::names::Guid;
use directpush_common::numbers::Number;
use directpush_common::sync::state::{CollectionState, FolderSyncState};

use super::state::{self, AUTD, FOLDER_SYNC};
use super::{Request, folders, standing};
use crate::backend::Result;
use crate::backend::device::{Fresh, If, Object, Put};
use crate::push::{Watch, Watches};

/// A question that can be answered by waiting.
pub struct Complete {
    /// Granted, in seconds.
    pub heartbeat_secs: u32,
    /// The folders and what the device knows of them.
    pub watches: Arc<Watches>,
}

/// The interval and folders of a Ping, wherever they came from.
pub struct Parameters {
    autd: AutdState,
    fresh: Fresh,
    remembered: bool,
}

impl Parameters {
    /// The heartbeat in seconds.
    pub fn heartbeat_secs(&self) -> u32 {
        self.autd.heartbeat_secs
    }

    /// How many folders.
    pub fn folders(&self) -> usize {
        self.autd.folders.len()
    }
}

/// The first half: interval and folders, checked and kept. `Err` = the Ping's own refusal.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn parameters(
    request: &Request,
    body: PingBody,
) -> Result<std::result::Result<Parameters, PingResponse>> {
    let (asked_secs, asked_folders) = match body {
        PingBody::Empty => (None, None),
        PingBody::Full(asked) => (asked.heartbeat, asked.folders),
    };
    let whole = asked_secs.is_some() && asked_folders.as_ref().is_some_and(|folders| !folders.is_empty());
    // A new device that leaves nothing out: there is nothing to read.
    let stored = match stored_never(request).filter(|_| whole) {
        Some(never) => never,
        None => stored(request).await?,
    };
    let cached = stored.autd.as_ref();
    let heartbeat =
        asked_secs.or(cached.map(|autd| i64::from(autd.heartbeat_secs)).filter(|secs| *secs != 0));
    let folders = match asked_folders {
        Some(folders) => match autd_folders(&folders) {
            Some(folders) => Some(folders),
            None => return Ok(Err(PingResponse::Syntax)),
        },
        None => cached.map(|autd| autd.folders.clone()),
    };
    let (heartbeat, folders) = match (heartbeat, folders.filter(|folders| !folders.is_empty())) {
        (Some(heartbeat), Some(folders)) => (heartbeat, folders),
        (heartbeat, folders) => {
            keep_half(request, &stored, heartbeat, folders).await?;
            return Ok(Err(PingResponse::MissingParameters));
        }
    };
    let heartbeat_secs = match request.front.config.heartbeat.grant(heartbeat) {
        Ok(granted) => granted,
        Err(out) => return Ok(Err(PingResponse::HeartbeatOutOfRange(out.nearest))),
    };
    let max_folders = request.front.config.max_folders;
    if folders.len() > max_folders as usize {
        return Ok(Err(PingResponse::TooManyFolders(max_folders)));
    }
    let autd = AutdState { heartbeat_secs, folders };
    let mut fresh = stored.fresh;
    let mut remembered = stored.remembered;
    if stored.autd.as_ref() != Some(&autd) {
        fresh = put(request, &autd, fresh.state).await?;
        let mut known = request.device.known.lock();
        remembered = known.watches.as_ref().is_some_and(|watches| lists(watches, &autd.folders));
        if !remembered {
            known.watches = None;
        }
    }
    Ok(Ok(Parameters { autd, fresh, remembered }))
}

/// Keeps the half that a device sent, so that the other half alone completes it: each must be sent at least once
/// ([MS-ASCMD] test cases R4240 and R4241). In AutdState.xml an interval of 0 and an empty list are what is missing.
async fn keep_half(
    request: &Request,
    stored: &Stored,
    heartbeat: Option<i64>,
    folders: Option<Vec<AutdFolder>>,
) -> Result<()> {
    let config = &request.front.config;
    let heartbeat_secs = heartbeat.and_then(|secs| config.heartbeat.grant(secs).ok()).unwrap_or(0);
    let folders = folders.filter(|folders| folders.len() <= config.max_folders as usize).unwrap_or_default();
    let half = AutdState { heartbeat_secs, folders };
    let nothing = half.heartbeat_secs == 0 && half.folders.is_empty();
    if !nothing && stored.autd.as_ref() != Some(&half) {
        put(request, &half, stored.fresh.state).await?;
        // The folders of what is remembered are those of the last whole question.
        request.device.known.lock().autd = None;
    }
    Ok(())
}

struct Stored {
    autd: Option<AutdState>,
    fresh: Fresh,
    /// The remembered folder list is the stored one.
    remembered: bool,
}

/// That there is no AutdState.xml, if that is known. Should another front end have written one since, ours
/// replaces it as it would in any order, and the number says that something else happened.
fn stored_never(request: &Request) -> Option<Stored> {
    let known = request.device.known.lock();
    let never = known.state != 0 && known.rare.as_ref().is_some_and(|rare| rare.no_autd);
    let fresh = Fresh { state: known.state, ..Fresh::default() };
    never.then_some(Stored { autd: None, fresh, remembered: false })
}

/// AutdState.xml, from memory when the back end says that it is as it was.
async fn stored(request: &Request) -> Result<Stored> {
    let remembered = {
        let known = request.device.known.lock();
        known.autd.clone().zip(known.watches.clone())
    };
    let tag = remembered.as_ref().map(|((tag, _), _)| &**tag);
    let (object, fresh) = request.backend().device_get(request.asker(), AUTD, tag).await?;
    Ok(match (object, remembered) {
        (Object::Same, Some(((_, heartbeat_secs), watches))) => {
            let folders = watches.folders().iter().map(|watch| AutdFolder {
                id: watch.folder(watches.installation).to_string(),
                class: watch.class(),
            });
            let autd = AutdState { heartbeat_secs, folders: folders.collect() };
            Stored { autd: Some(autd), fresh, remembered: true }
        }
        (Object::Same | Object::None, _) => {
            request.device.known.lock().autd = None;
            Stored { autd: None, fresh, remembered: false }
        }
        (Object::Is(tag, content), _) => {
            let autd = match AutdState::from_xml(&content) {
                Ok(autd) => Some(autd),
                Err(error) => {
                    let (user, device) = (&request.session.user, &request.device.key);
                    tracing::warn!(%user, %device, object = AUTD, %error, "a state object is corrupt");
                    None
                }
            };
            let mut known = request.device.known.lock();
            known.autd = autd.as_ref().map(|autd| (tag, autd.heartbeat_secs));
            let list = autd.as_ref().zip(known.watches.as_ref());
            let remembered = list.is_some_and(|(autd, watches)| lists(watches, &autd.folders));
            // A 304 says that the file is as remembered, so the list must be the file's.
            if !remembered {
                known.watches = None;
            }
            Stored { autd, fresh, remembered }
        }
    })
}

/// Writes AutdState.xml; `before` is the device-state number that goes with what is remembered.
async fn put(request: &Request, autd: &AutdState, before: u64) -> Result<Fresh> {
    let content = autd.to_xml();
    // The last full Ping wins, whichever front end it came to.
    let put = request.backend().device_put(request.asker(), AUTD, If::Any, content);
    let (put, fresh) = put.await?;
    let mut known = request.device.known.lock();
    // Our own write moved the number; what was true before it still is, but for the folder list.
    known.wrote(before, fresh.state);
    known.autd = match put {
        Put::Done(tag) => Some((tag, autd.heartbeat_secs)),
        Put::Conflict => None,
    };
    if let Some(rare) = &mut known.rare {
        rare.no_autd = false;
    }
    Ok(fresh)
}

fn autd_folders(folders: &[PingFolder]) -> Option<Vec<AutdFolder>> {
    folders
        .iter()
        .map(|folder| Some(AutdFolder { id: folder.id.clone(), class: folder.class.parse::<Class>().ok()? }))
        .collect()
}

/// Whether the remembered list has these folders in this order.
fn lists(watches: &Watches, folders: &[AutdFolder]) -> bool {
    watches.folders().len() == folders.len()
        && watches.folders().iter().zip(folders).all(|(watch, folder)| {
            watch.class() == folder.class && folder.id.parse() == Ok(watch.folder(watches.installation))
        })
}

/// The second half: the folders, and what the device knows of each. `None`: Status 7.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn complete(request: &Request, parameters: Parameters) -> Result<Option<Complete>> {
    let Parameters { autd, fresh, remembered } = parameters;
    if !standing::lets_ping(request, &fresh).await? {
        request.device.known.lock().state = 0;
        return Ok(None);
    }
    let (valid, seen, watches) = {
        let known = request.device.known.lock();
        (known.state == fresh.state && fresh.state != 0, known.seen, known.watches.clone())
    };
    let seen = if valid { seen } else { hierarchy_seen(request).await? };
    // Never a FolderSync, or somebody changed the hierarchy since: that comes before any folder id.
    let Some(seen) = seen.filter(|seen| *seen == fresh.hierarchy) else {
        request.device.known.lock().state = 0;
        return Ok(None);
    };
    let heartbeat_secs = autd.heartbeat_secs;
    if let Some(watches) = watches.filter(|watches| valid && remembered && watches.hierarchy == seen) {
        return Ok(Some(Complete { heartbeat_secs, watches }));
    }
    let synced = if valid { from_syncs(request, &autd.folders, seen) } else { None };
    let watches = match synced {
        Some(watches) => watches,
        None => match read_watches(request, &autd.folders, seen).await? {
            Some(watches) => watches,
            None => return Ok(None),
        },
    };
    let watches = Arc::new(watches);
    let mut known = request.device.known.lock();
    (known.state, known.seen, known.watches) = (fresh.state, Some(seen), Some(Arc::clone(&watches)));
    if let Some(rare) = &mut known.rare {
        rare.synced = None;
    }
    known.settle();
    Ok(Some(Complete { heartbeat_secs, watches }))
}

/// The folders as the device's Syncs left them, if it synchronised all of them here.
fn from_syncs(request: &Request, listed: &[AutdFolder], hierarchy: Number) -> Option<Watches> {
    let ids: Option<Vec<_>> = listed.iter().map(|it| Some((it.id.parse().ok()?, it.class))).collect();
    let known = request.device.known.lock();
    let synced = known.rare.as_ref()?.synced.as_ref().filter(|synced| synced.hierarchy == hierarchy)?;
    synced.select(ids?.into_iter())
}

async fn hierarchy_seen(request: &Request) -> Result<Option<Number>> {
    let loaded = state::load::<FolderSyncState>(request, FOLDER_SYNC).await?;
    Ok(loaded.value.filter(|state| state.key != 0).map(|state| state.hierarchy))
}

async fn read_watches(
    request: &Request,
    listed: &[AutdFolder],
    hierarchy: Number,
) -> Result<Option<Watches>> {
    let known = request.front.folders.get(request, hierarchy).await?;
    let below = request.session.user.mailbox_url();
    let mut watches = Watches::new(Guid([0; 16]), hierarchy, listed.len());
    for (at, AutdFolder { id, class }) in listed.iter().enumerate() {
        let Some(folder) = folders::find(&known, id) else { return Ok(None) };
        let Some(path) = folders::path_below(&folder.url, &below) else { return Ok(None) };
        watches.installation = folder.id.installation;
        let watch = Watch::new(folder.id.counter, folder.class, request.front.words.share(path));
        watches.push(watch.called(*class));
        let loaded = state::load::<CollectionState>(request, &state::collection(folder.id)).await?;
        if let Some(state) = loaded.value {
            watches.set_known(at, state.current.base, state.current.floor, state.current.is_pending());
        }
    }
    Ok(Some(watches))
}
