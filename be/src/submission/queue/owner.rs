//! The one task that owns the queue. Everyone else holds a [`Queue`] and sends orders to it.
//!
//! It does one thing at a time for each message (store, try, write down, tell the sender, remove), each
//! in a task of its own that comes back with a result; so the owner never waits, and every change of a
//! message is made here. What to do next follows from the entry alone, so a restart goes on where the
//! last process was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directpush_common::names::UserName;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::agenda::{Agenda, Planned};
use super::entry::{Entry, Envelope, Outcome, Owed, Route, Standing, State};
use super::files::Files;
use super::handle::{Clock, Mail, Order, Queue, QueueError, QueueSettings};
use super::list::Listed;
use super::reply::Reply;
use super::schedule::{HostHealth, Times};
use super::spool::{Spool, SpoolError};
use super::{Carried, Carrier, Id, Letter, Office, Report, ReportKind, Reported, ReportedRecipient};

/// Orders that wait for the owner.
const INBOX: usize = 64;
/// Things done at once besides attempts at the smart host: files, local deliveries, reports.
const CHORES_MAX: usize = 16;
/// After something here failed (a full disk, a mailbox that cannot be written), in seconds.
const CHORE_PAUSE_SECS: u64 = 60;
/// After a report could not be put into a mailbox (it is full, say), in seconds.
const REPORT_PAUSE_SECS: u64 = 300;
/// A message that could not even be tried is given up so much later than its days, in seconds.
const UNTRIED_SECS: u64 = 3600;
/// The longest sleep, so that a clock set forward is noticed.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// What is being done for a message.
enum Work {
    Store(oneshot::Sender<Result<Id, QueueError>>),
    /// The recipients that are tried, and where.
    Carry(Vec<usize>, Route),
    Save,
    Tell(Owed),
    Remove,
}

/// What came of it.
enum Done {
    /// A file was written or removed.
    File(Result<(), SpoolError>),
    Carried(Result<Carried, SpoolError>),
    Told(Reported),
}

/// A message, and what is going on with it.
struct Held {
    entry: Entry,
    work: Option<(Work, AbortHandle)>,
    /// The state on disk is older.
    dirty: bool,
    /// The message cannot be read: its file is kept, under another name.
    damaged: bool,
    /// Chores are to wait until then.
    hold: u64,
    removing: Option<oneshot::Sender<bool>>,
    /// Where it stands in the agenda.
    planned: Option<Planned>,
}

/// The queue's owner; [`Owner::run`] is its life.
pub struct Owner<C, O> {
    spool: Spool,
    settings: QueueSettings,
    carrier: Arc<C>,
    office: Arc<O>,
    clock: Clock,
    started: u64,
    inbox: mpsc::Receiver<Order>,
    held: BTreeMap<Id, Held>,
    agenda: Agenda,
    health: HostHealth,
    tasks: JoinSet<Done>,
    /// Whose task it is.
    task_of: HashMap<tokio::task::Id, Id>,
    /// Attempts at the smart host under way.
    carrying: usize,
    /// Messages by user.
    of_user: HashMap<UserName, usize>,
    bytes: u64,
    /// The id given last.
    last: Id,
    stopping: bool,
}

/// Opens the queue in a directory; nothing is sent before [`Owner::run`].
///
/// # Errors
/// The directory cannot be read. A message in it that cannot be read is set aside instead.
pub async fn open<C: Carrier, O: Office>(
    files: Arc<dyn Files>,
    settings: QueueSettings,
    carrier: Arc<C>,
    office: Arc<O>,
    clock: Clock,
) -> Result<(Queue, Owner<C, O>), SpoolError> {
    let spool = Spool::new(files);
    let started = clock();
    let scanned = blocking(&spool, move |spool| spool.scan(started)).await?;
    for name in &scanned.set_aside {
        tracing::error!(file = name, "a file of the mail queue is damaged and was set aside");
    }
    for name in &scanned.newer {
        tracing::error!(file = name, "a file of the mail queue is of a newer program and was left alone");
    }
    let (orders, inbox) = mpsc::channel(INBOX);
    let mut owner = Owner {
        spool,
        settings,
        carrier,
        office,
        clock,
        started,
        inbox,
        held: BTreeMap::new(),
        agenda: Agenda::default(),
        health: HostHealth::default(),
        tasks: JoinSet::new(),
        task_of: HashMap::new(),
        carrying: 0,
        of_user: HashMap::new(),
        bytes: 0,
        last: Id(0),
        stopping: false,
    };
    for (id, mut entry) in scanned.entries {
        entry.state.next = Times::plausible(entry.state.next, started);
        owner.hold(id, entry);
        owner.plan(id);
    }
    if !owner.held.is_empty() {
        tracing::info!(messages = owner.held.len(), "mail waits in the queue");
    }
    Ok((Queue::new(orders), owner))
}

/// Runs a call of the spool off the async workers.
async fn blocking<T: Send + 'static>(
    spool: &Spool,
    call: impl FnOnce(&Spool) -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    let spool = spool.clone();
    let gone = |_| SpoolError::Io { doing: "work", source: std::io::Error::other("the task failed") };
    tokio::task::spawn_blocking(move || call(&spool)).await.map_err(gone)?
}

impl<C: Carrier, O: Office> Owner<C, O> {
    /// Serves orders and sends mail until `stop`; then lets what is under way come to its end, within
    /// the time of [`QueueSettings::drain`].
    pub async fn run(mut self, stop: CancellationToken) {
        let mut drain_end = None;
        loop {
            let wake = self.start_what_is_due();
            if self.stopping && self.tasks.is_empty() {
                return;
            }
            tokio::select! {
                () = stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    drain_end = Some(Instant::now() + self.settings.drain);
                    self.inbox.close();
                }
                () = until(drain_end) => {
                    drain_end = None;
                    self.give_up_attempts();
                }
                Some(joined) = self.tasks.join_next_with_id() => {
                    let (task, done) = match joined {
                        Ok((task, done)) => (task, Some(done)),
                        Err(error) => (error.id(), None),
                    };
                    if let Some(id) = self.task_of.remove(&task) {
                        self.handle_done(id, done);
                        self.plan(id);
                    }
                }
                Some(order) = self.inbox.recv() => self.handle_order(order),
                () = sleep(wake), if !self.stopping => {}
            }
        }
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Takes a message into memory.
    fn hold(&mut self, id: Id, entry: Entry) {
        self.bytes += entry.envelope.size;
        *self.of_user.entry(entry.envelope.user.clone()).or_default() += 1;
        let held =
            Held { entry, work: None, dirty: false, damaged: false, hold: 0, removing: None, planned: None };
        self.held.insert(id, held);
    }

    /// Drops a message from memory.
    fn forget(&mut self, id: Id) {
        let Some(held) = self.held.remove(&id) else { return };
        if let Some(planned) = held.planned {
            self.agenda.forget(id, planned);
        }
        let envelope = held.entry.envelope;
        self.bytes -= envelope.size;
        if let Some(count) = self.of_user.get_mut(&envelope.user) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&envelope.user);
            }
        }
        if let Some(reply) = held.removing {
            let _ = reply.send(true);
        }
    }

    /// Puts a message where it belongs in the agenda: nowhere while something is being done for it.
    fn plan(&mut self, id: Id) {
        let times = self.settings.times;
        let Some(held) = self.held.get_mut(&id) else { return };
        if let Some(planned) = held.planned.take() {
            self.agenda.forget(id, planned);
        }
        if held.work.is_some() {
            return;
        }
        let entry = &held.entry;
        let ends = held.removing.is_some() || entry.is_done();
        let at_once = ends || held.dirty || entry.owed(0, &times) == Some(Owed::Failure);
        let chore = if at_once {
            Some(0)
        } else if entry.may_warn() && entry.state.attempts > 0 {
            Some(times.warn_at(entry.envelope.accepted))
        } else {
            None
        };
        let give_up = entry.is_waiting().then(|| give_up_at(entry, &times, self.started));
        let chore = chore.into_iter().chain(give_up).min().map(|at| at.max(held.hold));
        let due = (!ends && entry.is_waiting()).then_some((entry.envelope.route, entry.state.next));
        let planned = Planned { chore, due };
        held.planned = Some(planned);
        self.agenda.note(id, planned);
    }

    /// Starts what can be started; answers how long there is nothing more to do.
    fn start_what_is_due(&mut self) -> Duration {
        let now = self.now();
        let mut skipped = Vec::new();
        while self.chores_running() < CHORES_MAX
            && let Some(&(_, id)) = self.agenda.chores.first().filter(|(at, _)| *at <= now)
        {
            if !self.start_chore(id, now) {
                // Not now.
                let first = self.agenda.chores.pop_first();
                skipped.extend(first);
            }
        }
        self.agenda.chores.extend(skipped);
        if self.is_resting() {
            return SLEEP_MAX;
        }
        while self.chores_running() < CHORES_MAX
            && let Some(&(_, id)) = self.agenda.local.first().filter(|(at, _)| *at <= now)
        {
            self.start_attempt(id);
        }
        while self.may_carry(now)
            && let Some(&(_, id)) = self.agenda.remote.first().filter(|(at, _)| *at <= now)
        {
            self.start_attempt(id);
        }
        self.sleep_time(now)
    }

    /// Whether nothing new is to be begun, files apart.
    fn is_resting(&self) -> bool {
        self.stopping || self.settings.orders_only
    }

    fn chores_running(&self) -> usize {
        self.tasks.len() - self.carrying
    }

    fn may_carry(&self, now: u64) -> bool {
        self.carrying < self.settings.connections_max && self.health.may_start(now, self.carrying)
    }

    fn sleep_time(&self, now: u64) -> Duration {
        let mut next = Vec::new();
        if self.chores_running() < CHORES_MAX {
            next.extend([self.agenda.chores.first(), self.agenda.local.first()].into_iter().flatten());
        }
        let mut next = next.into_iter().map(|(at, _)| at).min();
        if let Some(&(at, _)) = self.agenda.remote.first()
            && self.carrying < self.settings.connections_max
        {
            // While the host is held back by an attempt under way, its end is what wakes us.
            let at = match self.health.deadline() {
                Some(_) if self.carrying > 0 => None,
                Some(until) => Some(at.max(until)),
                None => Some(at),
            };
            next = next.into_iter().chain(at).min();
        }
        next.map_or(SLEEP_MAX, |at| Duration::from_secs(at.saturating_sub(now)).min(SLEEP_MAX))
    }

    /// Starts `future` as what is done for a message.
    fn start(&mut self, id: Id, work: Work, future: impl Future<Output = Done> + Send + 'static) {
        let abort = self.tasks.spawn(future);
        self.task_of.insert(abort.id(), id);
        if let Work::Carry(_, Route::SmartHost) = work {
            self.carrying += 1;
        }
        if let Some(held) = self.held.get_mut(&id) {
            held.work = Some((work, abort));
        }
        self.plan(id);
    }

    /// Starts the chore that comes first for a message. False if there is none that may be done now.
    fn start_chore(&mut self, id: Id, now: u64) -> bool {
        let times = self.settings.times;
        let spool = self.spool.clone();
        let resting = self.is_resting();
        let Some(held) = self.held.get_mut(&id) else { return false };
        if held.removing.is_some() || held.entry.is_done() {
            let aside = held.damaged;
            let end = move |spool: &Spool| if aside { spool.put_aside(id) } else { spool.remove(id) };
            self.start(id, Work::Remove, async move { Done::File(blocking(&spool, end).await) });
            return true;
        }
        if !resting && held.entry.is_waiting() && now >= give_up_at(&held.entry, &times, self.started) {
            held.entry.give_up();
            held.dirty = true;
        }
        if held.dirty {
            // What happens from now on is written down by the next one.
            held.dirty = false;
            let state = held.entry.state.clone();
            let save = move |spool: &Spool| spool.save(id, &state);
            self.start(id, Work::Save, async move { Done::File(blocking(&spool, save).await) });
            return true;
        }
        if resting {
            return false;
        }
        let Some(owed) = held.entry.owed(now, &times) else { return false };
        let report = report(id, &held.entry, owed, &times);
        let (envelope, damaged) = (held.entry.envelope.clone(), held.damaged);
        let office = self.office.clone();
        self.start(id, Work::Tell(owed), async move {
            let message = if damaged {
                None
            } else {
                blocking(&spool, move |spool| spool.message(id, &envelope)).await.ok()
            };
            Done::Told(office.report(Report { message: message.unwrap_or_default(), ..report }).await)
        });
        true
    }

    fn start_attempt(&mut self, id: Id) {
        let Some(held) = self.held.get(&id) else { return };
        let envelope = held.entry.envelope.clone();
        let places = held.entry.recipients(Standing::Waiting);
        let route = envelope.route;
        let work = Work::Carry(places.clone(), route);
        let (spool, carrier, office) = (self.spool.clone(), self.carrier.clone(), self.office.clone());
        self.start(id, work, async move {
            let recipients = places.iter().map(|&at| envelope.recipients[at].clone()).collect();
            let sender = envelope.sender.clone();
            let message = match blocking(&spool, move |spool| spool.message(id, &envelope)).await {
                Ok(message) => message,
                Err(error) => return Done::Carried(Err(error)),
            };
            let letter = Letter { id, sender, recipients, message };
            Done::Carried(Ok(match route {
                Route::Local => office.deliver(letter).await,
                Route::SmartHost => carrier.carry(letter).await,
            }))
        });
    }

    /// Takes in a result; `None` when the task was given up or failed inside.
    fn handle_done(&mut self, id: Id, done: Option<Done>) {
        let now = self.now();
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some((work, _)) = held.work.take() else { return };
        match (work, done) {
            (Work::Store(reply), done) => {
                let result = match done {
                    Some(Done::File(result)) => result.map(|()| id).map_err(QueueError::Spool),
                    _ => Err(QueueError::Stopped),
                };
                if result.is_err() {
                    self.forget(id);
                } else {
                    let Envelope { user, size, recipients, .. } = &held.entry.envelope;
                    tracing::info!(%id, %user, size, recipients = recipients.len(), "mail queued");
                }
                // A submitter who is gone has a message in the queue all the same.
                let _ = reply.send(result);
            }
            (Work::Carry(places, route), done) => {
                if route == Route::SmartHost {
                    self.carrying -= 1;
                }
                let carried = match done {
                    Some(Done::Carried(carried)) => Some(carried),
                    _ => None,
                };
                self.handle_carried(id, places, route, carried, now);
            }
            (Work::Save, Some(Done::File(Ok(())))) => {}
            (Work::Save, done) => {
                held.dirty = true;
                held.hold = now + CHORE_PAUSE_SECS;
                complain(id, "write down how far a message is", done);
            }
            (Work::Remove, Some(Done::File(Ok(())))) => self.forget(id),
            (Work::Remove, done) => {
                held.hold = now + CHORE_PAUSE_SECS;
                complain(id, "remove a message", done);
            }
            (Work::Tell(owed), Some(Done::Told(Reported::Done | Reported::Nobody))) => {
                held.entry.handle_told(owed);
                held.dirty = true;
            }
            (Work::Tell(owed), _) => {
                held.hold = now + REPORT_PAUSE_SECS;
                let age = now.saturating_sub(held.entry.envelope.accepted);
                if age > 2 * self.settings.times.queue_secs.max(REPORT_PAUSE_SECS) {
                    tracing::error!(%id, user = %held.entry.envelope.user, "a report could not be delivered");
                    held.entry.handle_told(owed);
                    held.dirty = true;
                }
            }
        }
    }

    fn handle_carried(
        &mut self,
        id: Id,
        places: Vec<usize>,
        route: Route,
        carried: Option<Result<Carried, SpoolError>>,
        now: u64,
    ) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let same = |outcome: Outcome| vec![outcome; places.len()];
        let outcomes = match carried {
            Some(Ok(carried)) => {
                if route == Route::SmartHost {
                    if carried.host_failed {
                        self.health.handle_failure(now);
                    } else {
                        self.health.handle_success();
                    }
                }
                carried.outcomes
            }
            Some(Err(SpoolError::Corrupt(what))) => {
                tracing::error!(%id, what, "a message in the mail queue is damaged");
                held.damaged = true;
                same(Outcome::Permanent(Reply::new(554, "5.3.0 the message was damaged in the queue")))
            }
            Some(Err(error)) => {
                tracing::error!(%id, %error, "cannot read a message of the mail queue");
                same(Outcome::Transient(Reply::none("4.3.0 the message could not be read")))
            }
            // Given up when the server stopped, or by an order; not an attempt that says anything.
            None if self.stopping || held.removing.is_some() => return,
            None => {
                tracing::error!(%id, "an attempt to send ended without a result");
                same(Outcome::Transient(Reply::none("4.3.0 the attempt ended without a result")))
            }
        };
        let outcomes: Vec<_> = places.into_iter().zip(outcomes).collect();
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, o)| wanted(o)).count();
        let last = outcomes.last().map(|(_, outcome)| outcome.reply().to_string());
        tracing::info!(
            %id,
            user = %held.entry.envelope.user,
            delivered = count(|o| matches!(o, Outcome::Delivered(_))),
            transient = count(|o| matches!(o, Outcome::Transient(_))),
            permanent = count(|o| matches!(o, Outcome::Permanent(_))),
            last,
            "mail tried"
        );
        held.entry.handle_attempt(outcomes, now, &self.settings.times, fastrand::f64());
        held.dirty = true;
    }

    /// The time to stop is over: attempts and reports under way are dropped, and made again after the
    /// next start.
    fn give_up_attempts(&mut self) {
        for held in self.held.values() {
            if let Some((Work::Carry(..) | Work::Tell(_), abort)) = &held.work {
                abort.abort();
            }
        }
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Add(mail, digest, reply) => self.add(mail, digest, reply),
            Order::List { user, after, limit, reply } => {
                let now = self.now();
                let after = after.map_or(Id(0), Id::next);
                let listed = self.held.range(after..).filter_map(|(&id, held)| {
                    let stored = !matches!(held.work, Some((Work::Store(_), _)));
                    let wanted = user.as_ref().is_none_or(|user| *user == held.entry.envelope.user);
                    let trying = matches!(held.work, Some((Work::Carry(..), _)));
                    (stored && wanted).then(|| Listed::new(id, &held.entry, trying, now))
                });
                let _ = reply.send(listed.take(limit).collect());
            }
            Order::Retry(id, reply) => {
                let now = self.now();
                let ids: Vec<Id> = match id {
                    Some(id) => vec![id],
                    None => self.held.keys().copied().collect(),
                };
                let mut count = 0;
                for id in ids {
                    if let Some(held) = self.held.get_mut(&id)
                        && held.entry.is_waiting()
                    {
                        if held.entry.state.next > now {
                            held.entry.state.next = now;
                            held.dirty = true;
                        }
                        count += 1;
                        self.plan(id);
                    }
                }
                self.health = HostHealth::default();
                let _ = reply.send(count);
            }
            Order::Remove(id, reply) => match self.held.get_mut(&id) {
                Some(held) if !matches!(held.work, Some((Work::Store(_), _))) => {
                    if let Some((Work::Carry(..) | Work::Tell(_), abort)) = &held.work {
                        abort.abort();
                    }
                    tracing::info!(%id, user = %held.entry.envelope.user, "mail removed by order");
                    (held.removing, held.hold) = (Some(reply), 0);
                    self.plan(id);
                }
                _ => {
                    let _ = reply.send(false);
                }
            },
        }
    }

    fn add(&mut self, mail: Mail, digest: String, reply: oneshot::Sender<Result<Id, QueueError>>) {
        let Mail { user, sender, route, recipients, reports, message } = mail;
        let size = message.len() as u64;
        let of_user = self.of_user.get(&user).copied().unwrap_or(0);
        let refusal = if of_user >= self.settings.messages_per_user_max {
            Some(QueueError::TooManyOfUser)
        } else if self.held.len() >= self.settings.messages_max
            || self.bytes.saturating_add(size) > self.settings.bytes_max
        {
            Some(QueueError::TooMany)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            tracing::warn!(%user, error = %refusal, "mail refused");
            let _ = reply.send(Err(refusal));
            return;
        }
        let now = self.now();
        let mut id = Id::first(now).max(self.last.next());
        while self.held.contains_key(&id) {
            id = id.next();
        }
        self.last = id;
        let state = State::new(recipients.len(), now);
        let envelope = Envelope { user, sender, route, recipients, accepted: now, size, digest, reports };
        self.hold(id, Entry { envelope: envelope.clone(), state });
        let spool = self.spool.clone();
        let put = move |spool: &Spool| spool.put(id, &envelope, &message);
        self.start(id, Work::Store(reply), async move { Done::File(blocking(&spool, put).await) });
    }
}

/// When a message is given up that could not even be tried.
fn give_up_at(entry: &Entry, times: &Times, started: u64) -> u64 {
    entry.envelope.accepted.saturating_add(times.queue_secs).max(started).saturating_add(UNTRIED_SECS)
}

/// The report on a message, still without the message.
fn report(id: Id, entry: &Entry, owed: Owed, times: &Times) -> Report {
    let (kind, standing) = match owed {
        Owed::Failure => (ReportKind::Failed, Standing::Failed),
        Owed::Delay => (ReportKind::Delayed, Standing::Waiting),
    };
    let envelope = &entry.envelope;
    let recipient = |at: usize| ReportedRecipient {
        address: envelope.recipients[at].clone(),
        reply: entry.state.recipients[at].last.clone(),
    };
    Report {
        id,
        user: envelope.user.clone(),
        sender: envelope.sender.clone(),
        accepted: envelope.accepted,
        until: envelope.accepted.saturating_add(times.queue_secs),
        kind,
        recipients: entry.recipients(standing).into_iter().map(recipient).collect(),
        message: Bytes::new(),
    }
}

fn complain(id: Id, doing: &str, done: Option<Done>) {
    if let Some(Done::File(Err(error))) = done {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%id, %error, cause, "cannot {doing}");
    } else {
        tracing::error!(%id, "cannot {doing}");
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
