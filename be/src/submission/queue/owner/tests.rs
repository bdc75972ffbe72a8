//! The owner with a smart host and a back end that do as they are told, in paused time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::submission::queue::paper::Paper;

const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// What the smart host says to a recipient.
#[derive(Clone, Copy)]
enum Says {
    Yes,
    Later,
    Never,
}

#[derive(Default)]
struct Host {
    says: Mutex<HashMap<String, Says>>,
    down: Mutex<bool>,
    /// Every attempt: when, what, for whom.
    attempts: Mutex<Vec<(u64, Id, Vec<String>)>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
    /// Attempts wait for it, if there is one.
    gate: Mutex<Option<Arc<Notify>>>,
    origin: Mutex<Option<Instant>>,
}

impl Host {
    fn says(&self, address: &str, says: Says) {
        self.says.lock().insert(address.into(), says);
    }

    fn attempts(&self) -> usize {
        self.attempts.lock().len()
    }

    /// Seconds after the start of the test.
    fn times(&self) -> Vec<u64> {
        self.attempts.lock().iter().map(|(at, ..)| *at).collect()
    }
}

impl Carrier for Host {
    async fn carry(&self, letter: Letter) -> Carried {
        let now = self.origin.lock().unwrap().elapsed().as_secs();
        self.attempts.lock().push((now, letter.id, letter.recipients.clone()));
        let at_once = self.at_once.fetch_add(1, SeqCst) + 1;
        self.at_once_max.fetch_max(at_once, SeqCst);
        let gate = self.gate.lock().clone();
        match gate {
            Some(gate) => gate.notified().await,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        self.at_once.fetch_sub(1, SeqCst);
        if *self.down.lock() {
            let refused = Outcome::Transient(Reply::none("connection refused"));
            return Carried { host_failed: true, ..Carried::all(&letter, &refused) };
        }
        let says = self.says.lock();
        let outcome = |address: &String| match says.get(address).copied().unwrap_or(Says::Yes) {
            Says::Yes => Outcome::Delivered(Reply::new(250, "2.0.0 ok")),
            Says::Later => Outcome::Transient(Reply::new(451, "4.3.0 later")),
            Says::Never => Outcome::Permanent(Reply::new(550, "5.1.1 nobody")),
        };
        Carried { outcomes: letter.recipients.iter().map(outcome).collect(), host_failed: false }
    }
}

struct Rest {
    reports: Mutex<Vec<Report>>,
    answer: Mutex<Reported>,
    delivered: Mutex<Vec<Letter>>,
}

impl Default for Rest {
    fn default() -> Self {
        Self { reports: Mutex::default(), answer: Mutex::new(Reported::Done), delivered: Mutex::default() }
    }
}

impl Office for Rest {
    async fn deliver(&self, letter: Letter) -> Carried {
        let all = Carried::all(&letter, &Outcome::Delivered(Reply::new(250, "2.1.5 ok")));
        self.delivered.lock().push(letter);
        all
    }

    async fn report(&self, report: Report) -> Reported {
        self.reports.lock().push(report);
        *self.answer.lock()
    }
}

/// One life of a queue on a directory that outlives it.
struct World {
    paper: Arc<Paper>,
    host: Arc<Host>,
    rest: Arc<Rest>,
    queue: Queue,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        Self::with(QueueSettings::default()).await
    }

    async fn with(settings: QueueSettings) -> Self {
        let host = Arc::new(Host::default());
        *host.origin.lock() = Some(Instant::now());
        Self::on(Arc::new(Paper::default()), host, Arc::default(), settings).await
    }

    async fn on(paper: Arc<Paper>, host: Arc<Host>, rest: Arc<Rest>, settings: QueueSettings) -> Self {
        let origin = host.origin.lock().unwrap();
        let clock: Clock = Arc::new(move || START + origin.elapsed().as_secs());
        let (queue, owner) = open(paper.clone(), settings, host.clone(), rest.clone(), clock).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(owner.run(stop.clone()));
        Self { paper, host, rest, queue, stop, running }
    }

    async fn send(&self, recipients: &[&str]) -> Id {
        self.queue.add(mail(recipients)).await.unwrap()
    }

    /// Waits until the queue holds so many messages.
    async fn until_left(&self, count: usize) {
        while self.left().await != count {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn left(&self) -> usize {
        self.queue.list(None, None, 1000).await.unwrap().len()
    }

    async fn stopped(self) -> (Arc<Paper>, Arc<Host>, Arc<Rest>) {
        self.stop.cancel();
        self.running.await.unwrap();
        (self.paper, self.host, self.rest)
    }
}

fn mail(recipients: &[&str]) -> Mail {
    Mail {
        user: "alice@example.com".parse().unwrap(),
        sender: "alice@example.com".into(),
        route: Route::SmartHost,
        recipients: recipients.iter().map(|&address| address.into()).collect(),
        reports: true,
        message: Bytes::from_static(b"From: alice@example.com\r\n\r\nhello\r\n"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_sent_at_once_and_leaves_nothing_behind() {
    let world = World::new().await;
    world.send(&["bob@x.example"]).await;
    world.until_left(0).await;
    assert_eq!(world.host.attempts(), 1);
    let (paper, _, rest) = world.stopped().await;
    assert!(paper.names().unwrap().is_empty());
    assert!(rest.reports.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_those_who_wait_are_tried_again_and_those_who_fail_are_reported() {
    let world = World::new().await;
    world.host.says("later@x", Says::Later);
    world.host.says("never@x", Says::Never);
    world.send(&["yes@x", "later@x", "never@x"]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    {
        let reports = world.rest.reports.lock();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].kind, ReportKind::Failed);
        assert_eq!(reports[0].recipients.len(), 1);
        assert_eq!(reports[0].recipients[0].address, "never@x");
        assert_eq!(reports[0].recipients[0].reply.as_ref().unwrap().code, 550);
        assert!(reports[0].message.starts_with(b"From: alice"));
    }
    let listed = world.queue.list(None, None, 10).await.unwrap().remove(0);
    assert_eq!((listed.attempts, listed.recipients[1].last_answer.as_deref()), (1, Some("451 4.3.0 later")));
    world.host.says("later@x", Says::Yes);
    world.until_left(0).await;
    let attempts = world.host.attempts.lock();
    assert_eq!(attempts[1].2, ["later@x"]);
    assert_eq!(world.rest.reports.lock().len(), 1, "a failure is told once");
}

#[tokio::test(start_paused = true)]
async fn a_message_nobody_takes_is_warned_of_once_and_given_up_after_five_days() {
    let world = World::new().await;
    world.host.says("later@x", Says::Later);
    world.send(&["later@x"]).await;
    tokio::time::sleep(Duration::from_mins(4 * 60 + 2)).await;
    assert_eq!(world.rest.reports.lock()[0].kind, ReportKind::Delayed);
    world.until_left(0).await;
    let reports = world.rest.reports.lock();
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[1].kind, ReportKind::Failed);
    let times = world.host.times();
    assert!(times.len() > 5 * 20 && times.len() < 5 * 24 + 8, "{}", times.len());
    let last = *times.last().unwrap();
    // An attempt that would come more than an hour after the last day is not waited for.
    assert!((5 * DAY - 360..5 * DAY + 2 * 3600).contains(&last), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_down_is_not_run_against_by_every_message() {
    let world = World::new().await;
    *world.host.down.lock() = true;
    for _ in 0..50 {
        world.send(&["bob@x"]).await;
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    let tried = world.host.attempts();
    assert!(tried < 4 + 10, "{tried} attempts in ten minutes");
    *world.host.down.lock() = false;
    world.until_left(0).await;
    let took = world.host.times().last().unwrap() - 600;
    assert!(took <= 310 + 900, "{took} s until all were sent");
    assert!(world.host.at_once_max.load(SeqCst) <= 4);
}

#[tokio::test(start_paused = true)]
async fn messages_that_were_never_tried_are_given_up_too() {
    let world = World::new().await;
    *world.host.down.lock() = true;
    for _ in 0..3 {
        world.send(&["bob@x"]).await;
    }
    tokio::time::sleep(Duration::from_secs(5 * DAY + 2 * 3600)).await;
    assert_eq!(world.left().await, 0);
    let failed = world.rest.reports.lock().iter().filter(|r| r.kind == ReportKind::Failed).count();
    assert_eq!(failed, 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_sent_by_the_next_process() {
    let world = World::new().await;
    world.host.says("later@x", Says::Later);
    let id = world.send(&["yes@x", "later@x"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (paper, host, rest) = world.stopped().await;
    host.says("later@x", Says::Yes);
    // The power goes; nothing that was told survives only in memory.
    let paper = Arc::new(paper.after_power_cut(1));
    let world = World::on(paper, host, rest, QueueSettings::default()).await;
    assert_eq!(world.queue.list(None, None, 1).await.unwrap()[0].id, id.to_string());
    world.until_left(0).await;
    let attempts = world.host.attempts.lock();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[1].2, ["later@x"], "the one who has it does not get it twice");
}

/// Kill the process at each step of its files; start again on what is left.
#[tokio::test(start_paused = true)]
async fn a_process_killed_at_any_step_loses_nothing_and_repeats_little() {
    let mut lost_removals = 0;
    for steps in 0..30 {
        for seed in 0..3 {
            let host = Arc::new(Host::default());
            *host.origin.lock() = Some(Instant::now());
            host.says("never@x", Says::Never);
            let rest = Arc::new(Rest::default());
            let paper = Arc::new(Paper::default());
            let settings = QueueSettings::default();
            let world = World::on(paper.clone(), host.clone(), rest.clone(), settings).await;
            paper.stop_after(steps);
            let accepted = world.queue.add(mail(&["yes@x", "never@x"])).await.is_ok();
            tokio::time::sleep(Duration::from_secs(20)).await;
            world.running.abort();
            let left = Arc::new(if seed == 0 { paper.after_kill() } else { paper.after_power_cut(seed) });
            let world = World::on(left.clone(), host.clone(), rest.clone(), settings).await;
            world.until_left(0).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let arrived =
                host.attempts.lock().iter().filter(|(.., to)| to.contains(&"yes@x".to_owned())).count();
            let told = rest.reports.lock().len();
            if accepted {
                assert!((1..=2).contains(&arrived), "sent {arrived} times, cut after {steps}");
                assert!((1..=2).contains(&told), "told {told} times, cut after {steps}");
            }
            lost_removals += usize::from(arrived == 2);
            assert!(left.names().unwrap().is_empty());
        }
    }
    assert!(lost_removals > 0, "no cut fell between sending and writing down");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_user_and_in_all() {
    let settings = QueueSettings { messages_max: 3, messages_per_user_max: 2, ..QueueSettings::default() };
    let world = World::with(settings).await;
    *world.host.down.lock() = true;
    world.send(&["a@x"]).await;
    world.send(&["a@x"]).await;
    assert!(matches!(world.queue.add(mail(&["a@x"])).await, Err(QueueError::TooManyOfUser)));
    let of = |name: &str| Mail { user: name.parse().unwrap(), ..mail(&["a@x"]) };
    world.queue.add(of("bob")).await.unwrap();
    assert!(matches!(world.queue.add(of("carol")).await, Err(QueueError::TooMany)));
    let bob = world.queue.list(Some("bob".parse().unwrap()), None, 10).await.unwrap();
    assert_eq!(bob.len(), 1);
    assert!(world.queue.remove(bob[0].id.parse().unwrap()).await.unwrap());
    world.queue.add(of("carol")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_said_and_everything_goes_on_when_there_is_room() {
    let world = World::new().await;
    world.host.says("later@x", Says::Later);
    world.send(&["later@x"]).await;
    world.paper.set_full(true);
    let refused = world.queue.add(mail(&["bob@x"])).await;
    assert!(matches!(refused, Err(QueueError::Spool(SpoolError::Full))));
    tokio::time::sleep(Duration::from_hours(1)).await;
    world.paper.set_full(false);
    world.send(&["bob@x"]).await;
    world.host.says("later@x", Says::Yes);
    world.until_left(0).await;
}

#[tokio::test(start_paused = true)]
async fn orders_retry_and_remove() {
    let world = World::new().await;
    *world.host.down.lock() = true;
    let first = world.send(&["a@x"]).await;
    let second = world.send(&["b@x"]).await;
    tokio::time::sleep(Duration::from_mins(50)).await;
    let before = world.host.attempts();
    *world.host.down.lock() = false;
    assert_eq!(world.queue.retry(Some(first)).await.unwrap(), 1);
    world.until_left(1).await;
    assert_eq!(world.host.attempts(), before + 1);
    assert_eq!(world.queue.retry(Some(first)).await.unwrap(), 0);
    assert!(world.queue.remove(second).await.unwrap());
    assert!(!world.queue.remove(second).await.unwrap());
    assert!(world.paper.names().unwrap().is_empty());
    assert!(world.rest.reports.lock().is_empty(), "what an administrator removes is not reported");
    assert_eq!(world.queue.retry(None).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_can_be_removed_while_it_is_tried() {
    let world = World::new().await;
    *world.host.gate.lock() = Some(Arc::new(Notify::new()));
    let id = world.send(&["a@x"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.queue.list(None, None, 1).await.unwrap()[0].trying);
    assert!(world.queue.remove(id).await.unwrap());
    assert_eq!(world.left().await, 0);
    *world.host.gate.lock() = None;
    world.send(&["b@x"]).await;
    world.until_left(0).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_what_is_under_way_but_not_for_ever() {
    let world = World::new().await;
    let gate = Arc::new(Notify::new());
    *world.host.gate.lock() = Some(gate.clone());
    world.send(&["a@x"]).await;
    world.send(&["b@x"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.host.attempts(), 2);
    let begin = Instant::now();
    world.stop.cancel();
    tokio::task::yield_now().await;
    gate.notify_one();
    assert!(matches!(world.queue.add(mail(&["c@x"])).await, Err(QueueError::Stopped)));
    let (paper, ..) = world.stopped().await;
    assert_eq!(begin.elapsed().as_secs(), 8);
    let mails = paper.names().unwrap().into_iter().filter(|name| name.contains(".mail")).count();
    assert_eq!(mails, 1, "the one that came to its end is gone, the other one waits");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_delivered_now_is_delivered_later() {
    let world = World::new().await;
    world.host.says("never@x", Says::Never);
    *world.rest.answer.lock() = Reported::Later;
    world.send(&["never@x"]).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!((3..=5).contains(&world.rest.reports.lock().len()));
    assert_eq!(world.left().await, 1);
    *world.rest.answer.lock() = Reported::Nobody;
    world.until_left(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_is_kept_aside_and_its_sender_told() {
    let world = World::new().await;
    world.host.says("later@x", Says::Later);
    let id = world.send(&["later@x"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.paper.edit(&format!("{id}.mail"), |bytes| *bytes.last_mut().unwrap() ^= 1);
    world.until_left(0).await;
    let reports = world.rest.reports.lock();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.is_empty());
    assert!(world.paper.names().unwrap().contains(&format!("{id}.mail.corrupt")));
}

#[tokio::test(start_paused = true)]
async fn mail_for_mailboxes_here_does_not_wait_for_the_smart_host() {
    let world = World::new().await;
    *world.host.down.lock() = true;
    world.send(&["far@x"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.queue.add(Mail { route: Route::Local, ..mail(&["near@example.com"]) }).await.unwrap();
    world.until_left(1).await;
    assert_eq!(world.rest.delivered.lock()[0].recipients, ["near@example.com"]);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_can_never_be_delivered_is_given_up_in_the_end() {
    let world = World::new().await;
    world.host.says("never@x", Says::Never);
    *world.rest.answer.lock() = Reported::Later;
    world.send(&["never@x"]).await;
    tokio::time::sleep(Duration::from_secs(9 * DAY)).await;
    assert_eq!(world.left().await, 1);
    tokio::time::sleep(Duration::from_secs(2 * DAY)).await;
    assert_eq!(world.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn with_orders_only_nothing_is_sent_but_orders_are_carried_out() {
    let world = World::new().await;
    *world.host.down.lock() = true;
    let first = world.send(&["a@x"]).await;
    world.send(&["b@x"]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (paper, host, rest) = world.stopped().await;
    let before = host.attempts();
    let settings = QueueSettings { orders_only: true, ..QueueSettings::default() };
    let world = World::on(paper, host, rest, settings).await;
    assert_eq!(world.left().await, 2);
    assert!(world.queue.remove(first).await.unwrap());
    assert_eq!(world.queue.retry(None).await.unwrap(), 1);
    tokio::time::sleep(Duration::from_hours(24)).await;
    let (paper, host, rest) = world.stopped().await;
    assert_eq!(host.attempts(), before);
    *host.down.lock() = false;
    let world = World::on(paper, host, rest, QueueSettings::default()).await;
    world.until_left(0).await;
}
