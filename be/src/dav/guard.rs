//! What stands between a write and its resource: the `If` header and the locks of DAV clients.
//!
//! Locks live in memory, by mailbox, and die with the process (RFC 4918 6.6 lets a server end them at any
//! time). They bind DAV clients among each other; LMTP and front ends are not asked, so that a client that
//! forgets its lock stops nobody's mail. The writes of one mailbox's DAV clients go one at a time through
//! a gate, which is held from the look at the locks until the write is made. Whoever waited there looks anew
//! at what is where: the write before may have moved it. Waiting has bounds, in number and in time.
//!
//! Not here: LOCK and UNLOCK (`lock`), what a lock covers (`common::dav::locks`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use directpush_common::clock::Moment;
use directpush_common::dav::conditions::Verdict;
use directpush_common::dav::if_header::{IfHeader, ResourceState};
use directpush_common::dav::lock_body;
use directpush_common::dav::locks::{Lock, LockPath, LockTable, Locked, Touch};
use directpush_common::dav::multistatus::{Condition, Multistatus};
use directpush_common::dav::request::uri_path;
use http::{StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::path::{self, Inside, Path, Place, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox};
use crate::auth::Principal;
use crate::mailbox::condition::Conditions;
use crate::mailbox::items::{ItemName, etag, implied_name};

/// Writes of one mailbox's DAV clients that go on or wait, at most.
const WRITES_MAX: usize = 64;
/// How long one of them waits for its turn: far less than a stored body may lie without a use.
const GATE_WAIT: Duration = Duration::from_mins(1);
/// How long a SEARCH waits for the one before it.
const SEARCH_WAIT: Duration = Duration::from_secs(10);

/// A SEARCH that goes on.
pub(super) struct Searching {
    _place: OwnedSemaphorePermit,
    /// While somebody holds them they are these.
    _locks: Arc<MailboxLocks>,
}

/// The locks of all mailboxes.
pub struct Locks {
    origin: Instant,
    mailboxes: Mutex<HashMap<u64, Arc<MailboxLocks>>>,
}

/// The locks of one mailbox.
pub struct MailboxLocks {
    gate: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Semaphore>,
    /// One SEARCH at a time.
    search: Arc<Semaphore>,
    table: Mutex<LockTable>,
}

impl Default for MailboxLocks {
    fn default() -> Self {
        Self {
            gate: Arc::default(),
            places: Arc::new(Semaphore::new(WRITES_MAX)),
            search: Arc::new(Semaphore::new(1)),
            table: Mutex::default(),
        }
    }
}

impl Default for Locks {
    fn default() -> Self {
        Self { origin: Instant::now(), mailboxes: Mutex::default() }
    }
}

impl Locks {
    pub(super) fn now(&self) -> Moment {
        Moment(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn of(&self, mailbox: u64) -> Arc<MailboxLocks> {
        self.mailboxes.lock().entry(mailbox).or_default().clone()
    }

    fn if_any(&self, mailbox: u64) -> Option<Arc<MailboxLocks>> {
        self.mailboxes.lock().get(&mailbox).cloned()
    }

    /// Holds back the writes of a mailbox's DAV clients until it is dropped: for tests, and for who must see a
    /// mailbox stand still.
    pub async fn hold(&self, mailbox: u64) -> OwnedMutexGuard<()> {
        self.of(mailbox).gate.clone().lock_owned().await
    }

    /// Writes of a mailbox's DAV clients that go on or wait.
    pub fn writes(&self, mailbox: u64) -> usize {
        self.if_any(mailbox).map_or(0, |locks| WRITES_MAX - locks.places.available_permits())
    }

    /// Waits until no other SEARCH of this mailbox goes on; none if that lasts.
    pub(super) async fn searching(&self, mailbox: u64) -> Option<Searching> {
        let locks = self.of(mailbox);
        let place = timeout(SEARCH_WAIT, locks.search.clone().acquire_owned()).await.ok()?.ok()?;
        Some(Searching { _place: place, _locks: locks })
    }

    /// The value of `DAV:lockdiscovery` for a path.
    pub(super) fn discovery(&self, mailbox: u64, path: &LockPath) -> String {
        let Some(locks) = self.if_any(mailbox) else { return String::new() };
        let now = self.now();
        let table = locks.table.lock();
        lock_body::discovery(table.covering(path, now), now)
    }

    /// Forgets locks that have expired, and mailboxes without any.
    pub fn sweep(&self) {
        let now = self.now();
        let mut mailboxes = self.mailboxes.lock();
        mailboxes.retain(|_, locks| {
            let mut table = locks.table.lock();
            table.expire(now);
            // Whoever waits at the gate, or is inside, holds the Arc.
            !table.is_empty() || Arc::strong_count(locks) > 1
        });
    }
}

/// A write that may go on. The gate opens when this is dropped.
pub(super) struct Guard {
    /// What must still hold when the write is made.
    pub(super) conditions: Conditions,
    /// The same for what is at the destination of a COPY or MOVE: its entity tag when `If` was evaluated.
    #[expect(clippy::option_option, reason = "not looked at, nothing there, something there")]
    pub(super) seen_there: Option<Option<String>>,
    /// None for a front end while nobody has locks.
    locks: Option<Arc<MailboxLocks>>,
    /// None for a front end, which no lock binds.
    held: Option<(OwnedMutexGuard<()>, OwnedSemaphorePermit)>,
    now: Moment,
}

impl Guard {
    /// What was there is gone, and its locks with it.
    pub(super) fn forget(&self, path: &LockPath) {
        if let Some(locks) = &self.locks {
            locks.table.lock().forget(path);
        }
    }

    /// What was below is gone, and its locks with it; those on it stay.
    pub(super) fn forget_below(&self, path: &LockPath) {
        if let Some(locks) = &self.locks {
            locks.table.lock().forget_below(path);
        }
    }

    /// The conditions of a request to a folder: it is there, and has no entity tag.
    pub(super) fn check_folder(&self) -> Result<(), Reply> {
        match self.conditions.headers.check(false, Some(("", 0))) {
            Verdict::GoOn => Ok(()),
            _ => Err(reply::text(StatusCode::PRECONDITION_FAILED, "a precondition does not hold")),
        }
    }

    /// Works with the table of locks; nothing for a front end, which has none.
    pub(super) fn with_table<T>(&self, work: impl FnOnce(&mut LockTable, Moment) -> T) -> Option<T> {
        let locks = self.locks.as_ref().filter(|_| self.held.is_some());
        locks.map(|locks| work(&mut locks.table.lock(), self.now))
    }

    /// Lets the write go on, or says why not: 412 for `If`, 423 for locks. `there`: the destination, if there is one.
    pub(super) async fn allow(
        &mut self,
        at: &InMailbox<'_>,
        touches: &[(LockPath, Touch)],
        there: Option<&LockPath>,
    ) -> Result<(), Reply> {
        if let Some(locks) = self.locks.as_ref().filter(|_| self.held.is_some()) {
            let seen = look_at(at, locks, self.now, touches, there).await?;
            (self.conditions.seen, self.seen_there) = (seen.here, seen.there);
        }
        Ok(())
    }
}

/// Where a target's locks are kept: friendly names, however it was asked for.
pub(super) async fn lock_path(
    at: &InMailbox<'_>,
    target: &Target,
    inside: &Inside,
) -> Result<LockPath, Reply> {
    let folder_path = |folder: u64| -> Vec<String> {
        at.state.tree.path(folder).unwrap_or_default().into_iter().map(str::to_owned).collect()
    };
    let segments = match target {
        Target::Mailbox => Vec::new(),
        Target::Folder(folder) => folder_path(*folder),
        Target::Top(name) => vec![name.clone()],
        Target::Item { folder, name } => {
            let name = match name {
                ItemName::Name(name) => name.clone(),
                ItemName::Id(id) => {
                    let found = at.member_if_there(*folder, name).await?;
                    let own = found.and_then(|member| member.item.name);
                    own.unwrap_or_else(|| implied_name(at.state.head.installation, *id))
                }
            };
            let mut path = folder_path(*folder);
            path.push(name);
            path
        }
        _ => match inside {
            Inside::Names(names) => names.clone(),
            // No user writes there, so there are no locks.
            _ => vec!["\u{0}".to_owned()],
        },
    };
    Ok(LockPath::new(segments))
}

/// The entity tag of what is at a target; none for nothing and for folders.
async fn tag_of(at: &InMailbox<'_>, target: &Target) -> Result<Option<String>, Reply> {
    let Target::Item { folder, name } = target else { return Ok(None) };
    let found = at.member_if_there(*folder, name).await?;
    Ok(found.map(|member| etag(at.state.head.epoch, member.item.changed)))
}

/// A URI of the `If` header, as a target in this mailbox.
fn tagged(at: &InMailbox<'_>, uri: &str) -> Option<(Inside, Target)> {
    let path = uri_path(uri, authority(at.call)).ok()?;
    match Path::parse(path).ok()?.place {
        Place::Mailbox { user, inside } if user == at.account.name => {
            let target = path::find(&at.state, &inside);
            Some((inside, target))
        }
        _ => None,
    }
}

/// The host that a URI of a DAV client must name; a front end knows us by a name of its own.
pub(super) fn authority<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    match call.principal {
        Principal::User(_) => call.header(header::HOST.as_str()),
        Principal::FrontEnd { .. } => None,
    }
}

/// Waits until it is this write's turn, and looks anew at what is there.
///
/// # Errors
/// 503 if too many wait, or this one waited too long.
pub(super) async fn enter<'a>(at: &InMailbox<'a>) -> Result<(Guard, InMailbox<'a>), Reply> {
    let call = at.call;
    let (locks, mailbox) = (&call.server.locks, at.account.mailbox);
    let conditions = call.conditions();
    let (ours, held) = if matches!(call.principal, Principal::User(_)) {
        let ours = locks.of(mailbox);
        let place = ours.places.clone().try_acquire_owned().map_err(|_| reply::busy())?;
        let gate = timeout(GATE_WAIT, ours.gate.clone().lock_owned()).await.map_err(|_| reply::busy())?;
        (Some(ours), Some((gate, place)))
    } else {
        (locks.if_any(mailbox), None)
    };
    let guard = Guard { conditions, seen_there: None, locks: ours, held, now: locks.now() };
    Ok((guard, at.anew().await?))
}

/// Whether a write would be let in now; another may come before it.
pub(super) async fn look(at: &InMailbox<'_>, touches: &[(LockPath, Touch)]) -> Result<(), Reply> {
    if !matches!(at.call.principal, Principal::User(_)) {
        return Ok(());
    }
    let locks = &at.call.server.locks;
    let ours = locks.of(at.account.mailbox);
    look_at(at, &ours, locks.now(), touches, None).await.map(drop)
}

/// The entity tags that were there when `If` was evaluated, if it asked for any.
#[derive(Default)]
#[expect(clippy::option_option, reason = "not looked at, nothing there, something there")]
struct Seen {
    here: Option<Option<String>>,
    there: Option<Option<String>>,
}

async fn look_at(
    at: &InMailbox<'_>,
    ours: &MailboxLocks,
    now: Moment,
    touches: &[(LockPath, Touch)],
    there: Option<&LockPath>,
) -> Result<Seen, Reply> {
    let call = at.call;
    let value = call.header("if");
    let header = value.map(IfHeader::parse).transpose().map_err(reply::bad)?;
    let mut seen = Seen::default();
    if let Some(header) = &header {
        let here = lock_path(at, &at.target, &at.inside).await?;
        let has_tags = value.is_some_and(|value| value.contains('['));
        let mut states: HashMap<Option<&str>, ResourceState> = HashMap::new();
        for resource in header.resources() {
            let place = match resource {
                None => Some((at.inside.clone(), at.target.clone())),
                Some(uri) => tagged(at, uri),
            };
            let Some((inside, target)) = place else { continue };
            let path = lock_path(at, &target, &inside).await?;
            let etag = tag_of(at, &target).await?;
            if has_tags && path == here {
                seen.here = Some(etag.clone());
            }
            if has_tags && Some(&path) == there {
                seen.there = Some(etag.clone());
            }
            let tokens = ours.table.lock().covering(&path, now).into_iter().map(token).collect();
            states.insert(resource, ResourceState { tokens, etag });
        }
        if !header.holds(|resource| states.get(&resource).cloned().unwrap_or_default()) {
            return Err(reply::text(StatusCode::PRECONDITION_FAILED, "the If header does not hold"));
        }
    }
    let tokens = header.as_ref().map(IfHeader::tokens).unwrap_or_default();
    for (path, touch) in touches {
        let allowed = ours.table.lock().allows(path, *touch, &tokens, now);
        allowed.map_err(|locked| refusal(call, &locked))?;
    }
    Ok(seen)
}

fn token(lock: &Lock) -> String {
    lock.token.clone()
}

/// 423, or 207 where only what lies below is locked (RFC 4918 9.6.1).
fn refusal(call: &Call<'_>, locked: &Locked) -> Reply {
    if !locked.members_only {
        return reply::condition(Condition::LockTokenSubmitted, locked.roots.iter().map(String::as_str));
    }
    let mut out = Multistatus::default();
    for root in &locked.roots {
        let root_only = std::slice::from_ref(root);
        out.status(root, 423, Some((Condition::LockTokenSubmitted, root_only)));
    }
    out.status(call.href(), 424, None);
    reply::multi_status(out.finish())
}
