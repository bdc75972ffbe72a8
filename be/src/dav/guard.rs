//! What stands between a write and its resource: the `If` header and the locks of DAV clients.
//!
//! Locks live in memory, by mailbox, and die with the process (RFC 4918 6.6 lets a server end them at any
//! time). They bind DAV clients among each other; LMTP and front ends are not asked, so that a client that
//! forgets its lock stops nobody's mail. The writes of one mailbox's DAV clients go one at a time through
//! a gate, which is held from the look at the locks until the write is made.
//!
//! Not here: LOCK and UNLOCK (`lock`), what a lock covers (`common::dav::locks`).

use std::collections::HashMap;
use std::sync::Arc;

use directpush_common::clock::Moment;
use directpush_common::dav::conditions::Verdict;
use directpush_common::dav::if_header::{IfHeader, ResourceState};
use directpush_common::dav::lock_body;
use directpush_common::dav::locks::{Lock, LockPath, LockTable, Locked, Touch};
use directpush_common::dav::multistatus::{Condition, Multistatus};
use directpush_common::dav::request::uri_path;
use http::{StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::path::{self, Inside, Path, Place, Target};
use super::reply::{self, Reply};
use super::{Call, InMailbox};
use crate::auth::Principal;
use crate::mailbox::condition::Conditions;
use crate::mailbox::items::{ItemName, etag, implied_name};

/// The locks of all mailboxes.
pub struct Locks {
    origin: Instant,
    mailboxes: Mutex<HashMap<u64, Arc<MailboxLocks>>>,
}

/// The locks of one mailbox.
#[derive(Default)]
pub struct MailboxLocks {
    gate: Arc<tokio::sync::Mutex<()>>,
    table: Mutex<LockTable>,
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

    /// The value of `DAV:lockdiscovery` for a path.
    pub(super) fn discovery(&self, mailbox: u64, path: &LockPath) -> String {
        let Some(locks) = self.mailboxes.lock().get(&mailbox).cloned() else { return String::new() };
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
    inside: Option<(OwnedMutexGuard<()>, Arc<MailboxLocks>)>,
    now: Moment,
}

impl Guard {
    /// What was there is gone, and its locks with it.
    pub(super) fn forget(&self, path: &LockPath) {
        if let Some((_, locks)) = &self.inside {
            locks.table.lock().forget(path);
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
        self.inside.as_ref().map(|(_, locks)| work(&mut locks.table.lock(), self.now))
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

/// Lets a write in, or says why not: 412 for `If`, 423 for locks.
pub(super) async fn enter(at: &InMailbox<'_>, touches: &[(LockPath, Touch)]) -> Result<Guard, Reply> {
    let call = at.call;
    let headers = call.conditions().headers;
    let locks = &call.server.locks;
    if !matches!(call.principal, Principal::User(_)) {
        return Ok(Guard { conditions: Conditions { headers, seen: None }, inside: None, now: locks.now() });
    }
    let ours = locks.of(at.account.mailbox);
    let gate = ours.gate.clone().lock_owned().await;
    let now = locks.now();
    let header = call.header("if").map(IfHeader::parse).transpose().map_err(reply::bad)?;
    let mut seen = None;
    if let Some(header) = &header {
        let mut states: HashMap<Option<&str>, ResourceState> = HashMap::new();
        for resource in header.resources() {
            let place = match resource {
                None => Some((at.inside.clone(), at.target.clone())),
                Some(uri) => tagged(at, uri),
            };
            let Some((inside, target)) = place else { continue };
            let path = lock_path(at, &target, &inside).await?;
            let etag = tag_of(at, &target).await?;
            if resource.is_none() && call.header("if").is_some_and(|value| value.contains('[')) {
                seen = Some(etag.clone());
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
    Ok(Guard { conditions: Conditions { headers, seen }, inside: Some((gate, ours)), now })
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
