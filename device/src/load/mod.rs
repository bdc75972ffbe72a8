//! `directpush load`: many devices, many messages, and the time between.
//!
//! By itself it goes through the phases of `--mode`. With `--steered` it takes commands from standard input, one a
//! line, and answers each with a line of JSON, so that a benchmark can look at the servers in between:
//!
//! | command | does |
//! |---|---|
//! | `prepare` | brings every device up to its first Ping |
//! | `park` | lets all Pings out; done when the last ones sent have been woken by a message |
//! | `one COUNT` | one message at a time, each when the last is on its device |
//! | `rate PER_SEC SECS` | messages at this rate, whatever the devices do |
//! | `all CONNECTIONS` | one message for every device, over so many LMTP connections; each syncs and waits again at once |
//! | `all CONNECTIONS held` | the same, but nobody syncs before all have been woken |
//! | `rest CONNECTIONS` | one message for every device, which syncs and does not ping again before the next `park` |
//! | `deliver CONNECTIONS SECS` | messages to a user without devices' waiting for them |
//!
//! Not here: making users (the back end's command line does).

pub mod board;
pub mod fleet;
pub mod mail;
mod options;
pub mod report;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub use self::options::Options;
use anyhow::{bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::{
    fleet::{Fashion, Fleet},
    mail::Mailer,
    options::{Mode, accounts},
    report::{Latency, Report, micros},
};
use crate::{drive::Gate, http::Server, lmtp::LmtpAddress};

/// How long a change may take before it counts as unanswered.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long all changes of a phase may take to be on their devices.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How long devices may take to get their Pings out.
const PARK_MAX: Duration = Duration::from_mins(2);
/// LMTP connections for a given rate: more than one, so that a commit on its way delays nobody.
const RATE_CONNECTIONS: usize = 16;
/// Devices that are woken to see that the last Pings have been taken.
const SENTINELS: usize = 16;

/// Runs the load. Fails when a change was not answered.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut load = Load::new(&options).await?;
    if options.steered {
        load.obey().await?;
        load.fleet.stop().await;
        return Ok(());
    }
    let per_sec = options.rate.unwrap_or_default();
    let secs = options.messages.div_ceil(per_sec.max(1) as usize);
    let wake = match options.rate {
        None => format!("one {}", options.messages),
        Some(per_sec) => format!("rate {per_sec} {secs}"),
    };
    let phases: Vec<String> = match options.mode {
        Mode::Wake => vec!["prepare".into(), "park".into(), wake],
        Mode::Establish => vec!["prepare".into(), "park".into()],
        Mode::Idle => vec!["prepare".into(), "park".into(), format!("idle {}", options.secs)],
        Mode::Deliver => vec![format!("deliver {} {}", options.connections, options.secs)],
        Mode::All => vec!["prepare".into(), "park".into(), format!("all {}", options.connections)],
    };
    let mut lines = lines();
    let mut unanswered = 0;
    for phase in phases {
        if options.step {
            println!("{}", serde_json::json!({ "next": phase }));
            lines.recv().await;
        }
        let report = load.command(&phase).await?;
        unanswered += report.unanswered;
        if options.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report}");
        }
    }
    load.fleet.stop().await;
    ensure!(unanswered == 0, "{unanswered} changes were not answered");
    Ok(())
}

/// What a device does when it was woken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum After {
    /// It syncs and waits again.
    Sync,
    /// It syncs, and does not ping before it is let.
    Rest,
    /// It holds its Sync back until all have been woken, so that the time is that of the wakes alone.
    Held,
}

struct Load {
    fleet: Fleet,
    lmtp: LmtpAddress,
    quiet: bool,
    /// The device whose turn it is: round about, so that each has long parked again when it comes round.
    next: usize,
    messages: u64,
}

impl Load {
    async fn new(options: &Options) -> anyhow::Result<Self> {
        let users = options.devices.div_ceil(options.devices_per_user.max(1)).max(1);
        let accounts = accounts(options, users)?;
        let mut servers = Vec::new();
        for url in &options.fe {
            servers.push(Server::resolve(url).await?);
        }
        let fashion = Fashion {
            devices: options.devices,
            folders: usize::from(options.folders),
            heartbeat_secs: options.heartbeat,
            sources: options.sources,
            version: options.protocol,
        };
        Ok(Self {
            fleet: Fleet::new(servers, accounts, fashion),
            lmtp: options.lmtp.clone(),
            quiet: options.json || options.steered,
            next: 0,
            messages: 0,
        })
    }

    async fn obey(&mut self) -> anyhow::Result<()> {
        let mut lines = lines();
        while let Some(line) = lines.recv().await {
            let report = self.command(&line).await?;
            println!("{}", serde_json::to_string(&report)?);
        }
        Ok(())
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<Report> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let before = self.fleet.board.disturbances.load(Ordering::Relaxed);
        let mut report = match words.as_slice() {
            ["prepare"] => self.prepare().await?,
            ["park"] => self.park().await?,
            ["idle", secs] => self.idle(secs.parse()?).await,
            ["one", count] => self.one_at_a_time(count.parse()?).await?,
            ["rate", per_sec, secs] => self.at_rate(per_sec.parse()?, secs.parse()?).await?,
            ["all", connections] => self.all(connections.parse()?, After::Sync).await?,
            ["all", connections, "held"] => self.all(connections.parse()?, After::Held).await?,
            ["rest", connections] => self.all(connections.parse()?, After::Rest).await?,
            ["deliver", connections, secs] => self.deliver(connections.parse()?, secs.parse()?).await?,
            _ => bail!("unknown command {command:?}"),
        };
        report.disturbances = self.fleet.board.disturbances.load(Ordering::Relaxed) - before;
        Ok(report)
    }

    fn bar(&self, phase: &'static str, length: usize) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{prefix:<10} {bar:40} {pos}/{len} {per_sec} {eta}");
        ProgressBar::new(length as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_prefix(phase)
    }

    async fn prepare(&mut self) -> anyhow::Result<Report> {
        let bar = self.bar("prepare", self.fleet.size());
        let (ready, took) = self.fleet.prepare(|ready| bar.set_position(ready)).await;
        bar.finish_and_clear();
        let all = self.fleet.size();
        ensure!(ready == all, "only {ready} of {all} devices could be prepared");
        Ok(Report { phase: "prepare", changes: ready, took_secs: took.as_secs_f64(), ..Report::default() })
    }

    /// A front end does not say when it has subscribed. So the last Pings to go out are each sent a message: when
    /// all of these have been answered, those before them have been taken too.
    async fn park(&mut self) -> anyhow::Result<Report> {
        let began = Instant::now();
        let all = self.fleet.size();
        let bar = self.bar("park", all);
        let parked = self.fleet.park(began + PARK_MAX, |parked| bar.set_position(parked)).await;
        bar.finish_and_clear();
        ensure!(parked == all, "only {parked} of {all} devices wait; {}", self.disturbances());
        let last: Vec<usize> = (all.saturating_sub(SENTINELS)..all).collect();
        let woken = self.wake_each("park", &last, SENTINELS, After::Sync).await?;
        let late = woken.unanswered;
        ensure!(late == 0, "{late} of the last Pings were not answered; {}", self.disturbances());
        let took = began.elapsed();
        self.fleet.park(Instant::now() + PARK_MAX, |_| {}).await;
        Ok(Report { phase: "park", changes: all, took_secs: took.as_secs_f64(), ..Report::default() })
    }

    fn disturbances(&self) -> String {
        let count = self.fleet.board.disturbances.load(Ordering::Relaxed);
        format!("{count} requests were refused or lost (a user's devices and Pings per minute are bounded)")
    }

    async fn idle(&self, secs: u64) -> Report {
        let began = Instant::now();
        sleep_until(began + Duration::from_secs(secs)).await;
        let changes = self.fleet.board.parked.load(Ordering::Relaxed);
        Report { phase: "idle", changes, took_secs: began.elapsed().as_secs_f64(), ..Report::default() }
    }

    async fn one_at_a_time(&mut self, count: usize) -> anyhow::Result<Report> {
        let (began, mailer) = (Instant::now(), Mailer::new(self.lmtp.clone(), 1));
        let bar = self.bar("one", count);
        let (mut journeys, mut unanswered) = (Vec::new(), 0);
        for _ in 0..count {
            let device = self.free_device().await?;
            self.send(&mailer, device).await?;
            let board = &self.fleet.board;
            board.wait_for(Instant::now() + ANSWER_MAX, |board| board.under_way() == 0).await;
            journeys.extend(board.take_finished());
            unanswered += board.give_up();
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(summary("one", count, unanswered, 0, began.elapsed(), &journeys))
    }

    async fn at_rate(&mut self, per_sec: u32, secs: u32) -> anyhow::Result<Report> {
        ensure!(per_sec > 0, "a rate of 0");
        let (began, mailer) = (Instant::now(), Mailer::new(self.lmtp.clone(), RATE_CONNECTIONS));
        let count = per_sec as usize * secs as usize;
        let bar = self.bar("rate", count);
        let mut sending = JoinSet::new();
        for n in 0..count {
            let due = began + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / per_sec;
            sleep_until(due).await;
            let device = self.free_device().await?;
            self.spawn_send(&mut sending, &mailer, device);
            bar.inc(1);
        }
        let refused = drain(&mut sending).await?;
        let took = began.elapsed();
        bar.finish_and_clear();
        let (journeys, unanswered) = self.settle().await;
        Ok(summary("rate", count, unanswered, refused, took, &journeys))
    }

    async fn all(&mut self, connections: usize, after: After) -> anyhow::Result<Report> {
        let devices: Vec<usize> = (0..self.fleet.size()).collect();
        self.wake_each("all", &devices, connections, after).await
    }

    /// One message for each of these devices at once; done when the last is synced.
    async fn wake_each(
        &mut self,
        phase: &'static str,
        devices: &[usize],
        connections: usize,
        after: After,
    ) -> anyhow::Result<Report> {
        let (began, mailer) = (Instant::now(), Mailer::new(self.lmtp.clone(), connections));
        let mut sending = JoinSet::new();
        let mut count = 0;
        match after {
            After::Sync => {}
            After::Rest => self.fleet.set_gate(Gate::NoPing),
            After::Held => self.fleet.set_gate(Gate::Nothing),
        }
        for &device in devices {
            if self.fleet.board.begin(device) {
                count += 1;
                for sibling in self.fleet.siblings(device).filter(|sibling| *sibling != device) {
                    count += usize::from(self.fleet.board.begin(sibling));
                }
                self.spawn_send(&mut sending, &mailer, device);
            }
        }
        let refused = drain(&mut sending).await?;
        if after == After::Held {
            let board = &self.fleet.board;
            board.wait_for(Instant::now() + ANSWER_MAX, |board| board.asleep() == 0).await;
            self.fleet.set_gate(Gate::Open);
        }
        let (journeys, unanswered) = self.settle().await;
        let last = journeys.iter().filter_map(|journey| journey.woken).max().unwrap_or_else(Instant::now);
        Ok(summary(phase, count, unanswered, refused, last - began, &journeys))
    }

    /// Messages to all users in turn, whether devices wait or not.
    async fn deliver(&mut self, connections: usize, secs: u64) -> anyhow::Result<Report> {
        let (began, mailer) = (Instant::now(), Mailer::new(self.lmtp.clone(), connections));
        let until = began + Duration::from_secs(secs);
        let mut workers = JoinSet::new();
        for worker in 0..connections {
            let mailer = Arc::clone(&mailer);
            let users: Vec<String> = (worker..self.fleet.size().max(worker + 1))
                .step_by(connections)
                .map(|device| self.fleet.address(device).to_owned())
                .collect();
            workers.spawn(async move {
                let (mut delivered, mut refused) = (0, 0);
                for user in users.iter().cycle() {
                    if Instant::now() >= until {
                        break;
                    }
                    match mailer.send(user, delivered).await?.acked {
                        Some(_) => delivered += 1,
                        None => refused += 1,
                    }
                }
                anyhow::Ok((delivered, refused))
            });
        }
        let (mut changes, mut refused) = (0, 0);
        while let Some(worker) = workers.join_next().await {
            let (delivered, not) = worker??;
            changes += usize::try_from(delivered)?;
            refused += not;
        }
        let took_secs = began.elapsed().as_secs_f64();
        Ok(Report { phase: "deliver", changes, refused, took_secs, ..Report::default() })
    }

    /// The next device, in turn, that waits and has no message on its way; all devices of its user begin a journey.
    async fn free_device(&mut self) -> anyhow::Result<usize> {
        let patience = Instant::now() + ANSWER_MAX;
        loop {
            for _ in 0..self.fleet.size() {
                let device = self.next;
                self.next = (self.next + 1) % self.fleet.size();
                if self.fleet.board.begin(device) {
                    for sibling in self.fleet.siblings(device).filter(|sibling| *sibling != device) {
                        self.fleet.board.begin(sibling);
                    }
                    return Ok(device);
                }
            }
            ensure!(Instant::now() < patience, "no device waits; {}", self.disturbances());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn send(&mut self, mailer: &Mailer, device: usize) -> anyhow::Result<()> {
        self.messages += 1;
        let mailed = mailer.send(self.fleet.address(device), self.messages).await?;
        ensure!(mailed.acked.is_some(), "LMTP refuses mail for {}", self.fleet.address(device));
        for sibling in self.fleet.siblings(device) {
            self.fleet.board.acked(sibling, mailed.sent, mailed.acked);
        }
        Ok(())
    }

    fn spawn_send(
        &mut self,
        sending: &mut JoinSet<anyhow::Result<bool>>,
        mailer: &Arc<Mailer>,
        device: usize,
    ) {
        self.messages += 1;
        let (mailer, to, number) = (Arc::clone(mailer), self.fleet.address(device).to_owned(), self.messages);
        let (board, siblings) = (Arc::clone(&self.fleet.board), self.fleet.siblings(device));
        sending.spawn(async move {
            let mailed = mailer.send(&to, number).await?;
            for sibling in siblings {
                board.acked(sibling, mailed.sent, mailed.acked);
            }
            Ok(mailed.acked.is_some())
        });
    }

    /// Waits for all journeys under way.
    async fn settle(&self) -> (Vec<board::Journey>, usize) {
        let board = &self.fleet.board;
        board.wait_for(Instant::now() + SETTLE_MAX, |board| board.under_way() == 0).await;
        let unanswered = board.give_up();
        (board.take_finished(), unanswered)
    }
}

/// The lines of standard input. They are read by a thread of their own, so that the end of the program does not wait
/// for one more.
fn lines() -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    received
}

/// Waits for all sends; says how many were refused.
async fn drain(sending: &mut JoinSet<anyhow::Result<bool>>) -> anyhow::Result<usize> {
    let mut refused = 0;
    while let Some(sent) = sending.join_next().await {
        refused += usize::from(!sent??);
    }
    Ok(refused)
}

fn summary(
    phase: &'static str,
    changes: usize,
    unanswered: usize,
    refused: usize,
    took: Duration,
    journeys: &[board::Journey],
) -> Report {
    let times = |from: fn(&board::Journey) -> Option<Instant>, to: fn(&board::Journey) -> Option<Instant>| {
        let between = |journey| Some(to(journey)?.saturating_duration_since(from(journey)?));
        Latency::of(journeys.iter().filter_map(between).map(micros).collect())
    };
    Report {
        phase,
        changes,
        unanswered,
        refused,
        took_secs: took.as_secs_f64(),
        latency_us: times(|journey| journey.acked, |journey| journey.woken),
        from_data_us: times(|journey| Some(journey.sent), |journey| journey.woken),
        synced_us: times(|journey| journey.acked, |journey| journey.synced),
        disturbances: 0,
    }
}
