//! One collection of a Sync: the device's changes in, the server's changes out, a new key.
//!
//! What is sent is decided by `common::sync::plan` from the collection's numbers; here the reports
//! are fetched, messages rendered and the state written under its ETag. The device's own changes are `sync_upload`. Mail only: a collection of
//! another class answers its key and knows what came since, so that it can be watched and woken.

use std::collections::HashMap;

use directpush_common::change::{EntryKind, Live};
use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::items::ItemsRequest;
use directpush_common::eas::status::SyncStatus;
use directpush_common::eas::sync::{ApplicationData, CollectionResponse, ServerCommand, SyncCollection};
use directpush_common::names::{FolderId, ItemId};
use directpush_common::numbers::{CollectionToken, Number};
use directpush_common::sync::plan::{PlanCommand, Planned, SyncPlan};
use directpush_common::sync::state::{CollectionState, KeyState, Resume};
use directpush_common::wbxml::Element;

use super::budget::Budget;
use super::options::Kept;
use super::render::{self, Facts};
use super::state::{self, Loaded};
use super::{Request, folders, item};
use crate::backend::Result;
use crate::backend::device::{Fresh, Put};
use crate::backend::items::Place;
use crate::push::Watch;

/// EAS folder type of Drafts.
const DRAFTS: u8 = 3;
/// Changes when the device does not say ([MS-ASCMD] WindowSize), and at most.
const WINDOW_DEFAULT: usize = 100;
const WINDOW_MAX: usize = 512;
/// Messages planned at a time.
const BATCH: usize = 128;
/// Plans in a row that bring nothing: the scan goes on with the next Sync.
const BARREN_ROUNDS_MAX: usize = 4;
/// The device's changes in one request ([MS-ASCMD] 3.1.5.10 Limiting Size of Command Requests).
const DEVICE_COMMANDS_MAX: usize = 200;

/// What became of a collection.
pub enum Synced {
    /// Nothing happened: the key stays; and what to watch, if the device wants to hear of changes.
    Nothing(CollectionResponse, Option<Standing>),
    /// There is something to say; and to be said again if it does not arrive.
    Something(CollectionResponse, Option<FolderId>),
    /// The request as a whole is refused.
    Refused(SyncStatus),
}

/// A collection in which nothing happened, and how far the device knows it.
pub struct Standing {
    /// The folder.
    pub watch: Watch,
    /// The token that the device holds.
    pub base: Option<CollectionToken>,
    /// Unix seconds: what was received before is not on the device.
    pub floor: Option<i64>,
    /// The folder.
    pub id: FolderId,
    /// What the back end said of the device last.
    pub fresh: Fresh,
}

/// How a collection is carried out.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Changes that the response still has room for.
    pub room: usize,
    /// And bytes.
    pub budget: Budget,
    /// The request may be repeated without its keys.
    pub waits: bool,
}

/// Carries out one collection of a Sync. One without a key has the key of its last request.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request, collection: &SyncCollection, terms: Terms) -> Result<Synced> {
    // Two requests of a device at once: the one that came second looks again, unless it has changed something already.
    for _ in 0..2 {
        match once(request, collection, terms).await? {
            Synced::Something(response, _) if is_conflict(&response) && collection.commands.is_empty() => {}
            synced => return Ok(synced),
        }
    }
    once(request, collection, terms).await
}

fn is_conflict(response: &CollectionResponse) -> bool {
    matches!(response.status, SyncStatus::Retry | SyncStatus::ServerError)
}

async fn once(request: &Request, collection: &SyncCollection, terms: Terms) -> Result<Synced> {
    let Ok(id) = collection.collection_id.parse::<FolderId>() else {
        return Ok(refused(collection, &collection.sync_key, SyncStatus::FolderSyncRequired));
    };
    let loaded = state::load::<CollectionState>(request, &state::collection(id)).await?;
    let Some(watch) = watch_of(request, id, loaded.fresh.hierarchy).await? else {
        return Ok(refused(collection, &collection.sync_key, SyncStatus::FolderSyncRequired));
    };
    let class = watch.class();
    if collection.conversation_mode.is_some() && class != Class::Email {
        // [MS-ASCMD] ConversationMode: an invalid element where there is no mail.
        return Ok(Synced::Refused(SyncStatus::ProtocolError));
    }
    let repeated;
    let collection = if collection.sync_key.is_empty() {
        let sync_key = loaded.value.as_ref().map_or(0, CollectionState::repeated_key).to_string();
        repeated = SyncCollection { sync_key, ..collection.clone() };
        &repeated
    } else {
        collection
    };
    let turn =
        Turn { request, collection, hierarchy: loaded.fresh.hierarchy, folder: id, class, watch, terms };
    if collection.sync_key == "0" {
        return turn.begin(&loaded).await;
    }
    let (Some(state), Ok(key)) = (&loaded.value, collection.sync_key.parse()) else {
        return Ok(refused(collection, "0", SyncStatus::InvalidSyncKey));
    };
    let (from, replayed) = match state.resume(key) {
        Resume::Current(from) => (from, false),
        Resume::Replay(from) => (from, true),
        Resume::Unknown => return Ok(refused(collection, "0", SyncStatus::InvalidSyncKey)),
    };
    turn.go_on(&loaded, state, from, replayed).await
}

/// A folder; `None` when there is no such folder.
async fn watch_of(request: &Request, id: FolderId, hierarchy: Number) -> Result<Option<Watch>> {
    if let Some(watch) = request.device.known.lock().watch_of(id, hierarchy) {
        return Ok(Some(watch));
    }
    let all = request.front.folders.get(request, hierarchy).await?;
    let Some(folder) = all.folders.iter().find(|folder| folder.id == id) else { return Ok(None) };
    let below = request.session.user.mailbox_url();
    let Some(path) = folders::path_below(&folder.url, &below) else { return Ok(None) };
    let watch = Watch::new(id.counter, folder.class, request.front.words.share(path));
    request.device.known.lock().met(id.installation, hierarchy, watch.clone());
    Ok(Some(watch))
}

/// The answer to a collection that fails as a whole.
fn refused(collection: &SyncCollection, key: &str, status: SyncStatus) -> Synced {
    let mut response = CollectionResponse::plain(key, &collection.collection_id, status);
    response.class.clone_from(&collection.class);
    Synced::Something(response, None)
}

/// What the server has to say, and what the device will know then.
struct News {
    commands: Vec<ServerCommand>,
    next: KeyState,
    more: bool,
}

/// One collection's turn.
pub(super) struct Turn<'a> {
    pub(super) request: &'a Request,
    pub(super) collection: &'a SyncCollection,
    pub(super) hierarchy: Number,
    pub(super) folder: FolderId,
    pub(super) class: Class,
    watch: Watch,
    terms: Terms,
}

impl Turn<'_> {
    fn response(&self, key: u32, status: SyncStatus) -> CollectionResponse {
        let mut response = CollectionResponse::plain(key.to_string(), &self.collection.collection_id, status);
        response.class = Some(self.class.as_str().to_owned());
        response
    }

    /// Key 0: a new key, and nothing yet.
    async fn begin(&self, loaded: &Loaded<CollectionState>) -> Result<Synced> {
        let kept = Kept::default().updated(&self.collection.options);
        let before = loaded.value.clone().unwrap_or_default();
        // Some phones send their first Sync twice: the key they got is the key they get.
        let current = &before.current;
        let unused = current.key != 0 && current.base.is_none() && current.walk.is_none();
        if unused && before.previous.is_none() && current.options == kept.to_text() {
            return Ok(Synced::Something(self.response(current.key, SyncStatus::Success), None));
        }
        let state = before.started_over(kept.filter, self.floor(&kept), kept.to_text());
        if !self.save(loaded, &state).await? {
            return Ok(self.retry());
        }
        Ok(Synced::Something(self.response(state.current.key, SyncStatus::Success), None))
    }

    async fn go_on(
        &self,
        loaded: &Loaded<CollectionState>,
        state: &CollectionState,
        mut from: KeyState,
        replayed: bool,
    ) -> Result<Synced> {
        let kept = Kept::from_text(&from.options).updated(&self.collection.options);
        if SyncPlan::must_start_over(&from, kept.filter) {
            return Ok(refused(self.collection, "0", SyncStatus::InvalidSyncKey));
        }
        if self.collection.commands.len() > DEVICE_COMMANDS_MAX {
            return Ok(refused(self.collection, &self.collection.sync_key, SyncStatus::ProtocolError));
        }
        let base = from.base.map_or(Number::ZERO, |base| base.number);
        let mut budget = self.terms.budget;
        let again = replayed.then_some(&state.current.added);
        let (responses, ledger) = self.apply_commands(&kept, base, again, &mut budget).await?;
        let wanted = self.collection.wants_changes(self.request.line.version);
        let room = if budget.is_over() { 0 } else { self.terms.room };
        let news = if wanted && room == 0 {
            // What the answer may hold is used up: is there a reason to ask again?
            match self.plan(from.clone(), 1, &kept).await? {
                Some((planned, _)) if planned.commands.is_empty() && !planned.more => {
                    News { commands: Vec::new(), next: planned.next, more: false }
                }
                Some(_) if self.collection.commands.is_empty() && !replayed => {
                    let mut response = self.response(from.key, SyncStatus::Success);
                    response.more_available = true;
                    return Ok(Synced::Something(response, None));
                }
                Some(_) => News { commands: Vec::new(), next: from.clone(), more: true },
                None => return Ok(refused(self.collection, "0", SyncStatus::InvalidSyncKey)),
            }
        } else if wanted {
            match self.news(from.clone(), &kept, room, budget).await? {
                Some(news) => news,
                None => return Ok(refused(self.collection, "0", SyncStatus::InvalidSyncKey)),
            }
        } else {
            News { commands: Vec::new(), next: from.clone(), more: false }
        };
        let mut next = news.next;
        if wanted {
            next.options = kept.to_text();
        }
        let quiet =
            news.commands.is_empty() && !news.more && self.collection.commands.is_empty() && !replayed;
        // Kept for the request that led to the key, should it come again.
        let told_before = std::mem::take(&mut from.added);
        next.added = if quiet { told_before } else { ledger };
        let mut after = if quiet { state.advanced(next) } else { CollectionState::answered(from, next) };
        after.used |= quiet && self.terms.waits;
        let mut fresh = loaded.fresh;
        if after != *state && !self.save(loaded, &after).await? {
            return Ok(self.retry());
        }
        if after != *state {
            fresh.state = self.request.device.known.lock().state;
        }
        let mut response = self.response(after.current.key, SyncStatus::Success);
        if quiet {
            let KeyState { base, floor, .. } = after.current;
            let watch = self.watch.clone();
            let standing = wanted.then_some(Standing { watch, base, floor, id: self.folder, fresh });
            return Ok(Synced::Nothing(response, standing));
        }
        (response.commands, response.responses) = (news.commands, responses);
        response.more_available = news.more;
        Ok(Synced::Something(response, Some(self.folder)))
    }

    /// Writes the state; false when another request of the device did so meanwhile.
    async fn save(&self, loaded: &Loaded<CollectionState>, state: &CollectionState) -> Result<bool> {
        let name = state::collection(self.folder);
        let (put, fresh) = state::save(self.request, &name, loaded.tag.as_deref(), state).await?;
        let mut known = self.request.device.known.lock();
        if put == Put::Conflict {
            known.state = 0;
            return Ok(false);
        }
        known.synced(self.folder, &state.current, loaded.fresh.state, fresh.state);
        Ok(true)
    }

    fn retry(&self) -> Synced {
        refused(self.collection, &self.collection.sync_key, self.later())
    }

    /// The status of what may be asked for again.
    pub(super) fn later(&self) -> SyncStatus {
        let common = self.request.line.version.has_common_statuses();
        if common { SyncStatus::Retry } else { SyncStatus::ServerError }
    }

    fn floor(&self, kept: &Kept) -> Option<i64> {
        let mail = self.class == Class::Email;
        mail.then(|| kept.floor(jiff::Timestamp::now().as_second())).flatten()
    }

    /// The server's changes; `None` when the token is no longer good.
    async fn news(
        &self,
        from: KeyState,
        kept: &Kept,
        room: usize,
        mut budget: Budget,
    ) -> Result<Option<News>> {
        if self.class != Class::Email {
            return self.advance(from).await.map(Some);
        }
        let window = match self.collection.window_size {
            None => WINDOW_DEFAULT,
            Some(0) => WINDOW_MAX,
            Some(size) => (size as usize).min(WINDOW_MAX),
        };
        let window = window.min(room);
        let (mut state, mut commands, mut barren) = (from, Vec::new(), 0);
        loop {
            let mut batch = BATCH.min(window - commands.len());
            let (planned, live) = loop {
                let Some((planned, live)) = self.plan(state.clone(), batch, kept).await? else {
                    return Ok(None);
                };
                // What would not fit into the response is planned anew, before anything is fetched.
                let fits = how_many_fit(&planned.commands, &live, budget.left());
                if fits >= planned.commands.len() || batch == 1 {
                    break (planned, live);
                }
                batch = fits.max(1);
            };
            barren = if planned.commands.is_empty() { barren + 1 } else { 0 };
            for command in planned.commands {
                let known = state.base.map(|base| base.number);
                let (command, size) = self.command(command, &live, known, kept).await?;
                // Of several each was weighed before; one alone may be too large for what is left.
                if !budget.takes(size) && batch == 1 {
                    return Ok(Some(News { commands, next: state, more: true }));
                }
                commands.extend(command);
            }
            state = planned.next;
            let full = commands.len() >= window || budget.is_over() || barren >= BARREN_ROUNDS_MAX;
            if full || !planned.more {
                return Ok(Some(News { commands, next: state, more: planned.more }));
            }
        }
    }

    /// One plan of at most `batch` commands, and the live items its reports spoke of. `None`: the token is no longer good.
    async fn plan(
        &self,
        state: KeyState,
        batch: usize,
        kept: &Kept,
    ) -> Result<Option<(Planned, HashMap<ItemId, Live>)>> {
        let mut plan = SyncPlan::new(&self.request.device.key, state, batch, kept.filter, self.floor(kept));
        let mut live = HashMap::new();
        while let Some(wanted) = plan.wants() {
            let items = self.request.backend().items(&self.request.session, self.folder, wanted).await?;
            let Some(items) = items else { return Ok(None) };
            plan.handle_items(&items);
            for entry in items.entries {
                if let EntryKind::Live(found) = entry.kind {
                    live.insert(entry.id, found);
                }
            }
        }
        Ok(Some((plan.finish(), live)))
    }

    /// A collection of another class than mail: what is there counts as known.
    async fn advance(&self, from: KeyState) -> Result<News> {
        let request = ItemsRequest::Walk { before: None, limit: 1 };
        let items = self.request.backend().items(&self.request.session, self.folder, request).await?;
        let base = items.map(|items| items.token).or(from.base);
        Ok(News {
            commands: Vec::new(),
            next: KeyState { base, walk: None, more: false, ..from },
            more: false,
        })
    }

    /// One planned command with what it carries, and how large that is.
    async fn command(
        &self,
        command: PlanCommand,
        live: &HashMap<ItemId, Live>,
        known: Option<Number>,
        kept: &Kept,
    ) -> Result<(Option<ServerCommand>, usize)> {
        let name = |item| self.server_id(item);
        Ok(match command {
            PlanCommand::Delete(item) => (Some(ServerCommand::Delete { server_id: name(item) }), 0),
            PlanCommand::SoftDelete(item) => (Some(ServerCommand::SoftDelete { server_id: name(item) }), 0),
            PlanCommand::Change(item) => match live.get(&item) {
                Some(found) if known.is_some_and(|known| found.content > known) => {
                    let whole = self.item(item, Some(found), kept).await?;
                    let change = |(data, size)| (ServerCommand::Change { server_id: name(item), data }, size);
                    whole.map(change).map_or((None, 0), |(command, size)| (Some(command), size))
                }
                found => {
                    let mut data = render::read_flag(found.is_some_and(|found| found.read));
                    let marks = found.map_or("", |found| found.marks.as_str());
                    data.extend(render::marks(marks, self.request.line.version));
                    (Some(ServerCommand::Change { server_id: name(item), data }), 0)
                }
            },
            PlanCommand::Add(item) => match self.item(item, live.get(&item), kept).await? {
                Some((data, size)) => (Some(ServerCommand::Add { server_id: name(item), data }), size),
                // Gone since the report: the next one says so.
                None => (None, 0),
            },
        })
    }

    /// A message, rendered as the device wants it; `None` when it is gone.
    pub(super) async fn item(
        &self,
        id: ItemId,
        live: Option<&Live>,
        kept: &Kept,
    ) -> Result<Option<(ApplicationData, usize)>> {
        let place = Place { folder: self.folder, item: id };
        let Some(mime) = item::bytes(self.request, place).await? else { return Ok(None) };
        let facts = Facts {
            read: live.is_some_and(|live| live.read),
            date: live.map_or(0, |live| live.date),
            reference: self.server_id(id),
            draft: self.is_drafts().await?,
            marks: live.map(|live| render::marks(&live.marks, self.request.line.version)).unwrap_or_default(),
        };
        let wish = kept.wish(self.request.line.version);
        let data = item::rendered(self.request, mime, facts, wish).await;
        let size = data.iter().map(Element::weight).sum();
        Ok(Some((data, size)))
    }

    /// Whether this is the folder of drafts, as far as it matters to the device.
    pub(super) async fn is_drafts(&self) -> Result<bool> {
        if !self.request.line.version.has_drafts() {
            return Ok(false);
        }
        let all = self.request.front.folders.get(self.request, self.hierarchy).await?;
        Ok(all.folders.iter().any(|folder| folder.id == self.folder && folder.folder_type == DRAFTS))
    }

    pub(super) fn server_id(&self, item: ItemId) -> String {
        format!("{:x}:{item}", self.folder.counter)
    }

    pub(super) fn item_of(&self, server_id: &str) -> Option<Place> {
        let (folder, item) = server_id.split_once(':')?;
        let ours = u64::from_str_radix(folder, 16) == Ok(self.folder.counter);
        let item = ItemId(item.parse::<Number>().ok()?);
        ours.then_some(Place { folder: self.folder, item })
    }
}

/// How many of the commands fit into `room` bytes, going by the sizes of the messages as stored: no body form is
/// larger, but for the few bytes of its encoding.
fn how_many_fit(commands: &[PlanCommand], live: &HashMap<ItemId, Live>, room: usize) -> usize {
    let mut left = room as u64;
    commands
        .iter()
        .take_while(|command| {
            let size = match command {
                PlanCommand::Add(item) => live.get(item).map_or(0, |found| found.size),
                _ => 0,
            };
            let fits = size <= left;
            left = left.saturating_sub(size);
            fits
        })
        .count()
}
