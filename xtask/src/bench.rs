//! `cargo xtask bench`: what a waiting device costs and how fast it is woken, beside nginx + nchan in the same run.
//!
//! Rounds are interleaved, ours and theirs in turn, so that whatever else the machine does meets both. Servers and load drivers
//! are processes of their own; memory and CPU are read from `/proc`. docs/benchmarks.md says how to read the figures.

mod driver;
mod ledger;
mod measure;
mod nchan;
pub(crate) mod nchan_driver;
mod ours;
mod report;
mod store;
mod sync;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::steps::{Outcome, cargo, output, program, root};
use driver::Driver;
use measure::{cpu_secs, pss_bytes};
use nchan::Nchan;
pub(crate) use nchan::is_root;
use nchan_driver::Report as Measured;
pub(crate) use ours::{Mailboxes, Pair};
use report::{Report, Subject};

/// What is measured under load: changes per second and for how long.
const RATE: u32 = 500;
/// Between two loads, so that every device has parked again.
const BETWEEN: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Devices that wait
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Items of the store that is measured by itself; a million take a quarter of an hour
    #[arg(long, default_value_t = 100_000)]
    items: u64,
    /// A few hundred devices and short waits: shows that it works, and says nothing of speed
    #[arg(long)]
    small: bool,
    /// Also writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The size of a run.
struct Plan {
    devices: usize,
    rounds: usize,
    /// How long all is quiet before memory is read.
    quiet: Duration,
    /// How long nobody waits before all park again.
    rest: Duration,
    /// How long CPU is watched while nothing happens.
    idle: Duration,
    one_at_a_time: usize,
    rate: u32,
    rate_secs: u32,
    /// Items of the store that is measured by itself.
    items: u64,
    /// Messages of the folders that are synced.
    folders: [usize; 3],
}

impl Plan {
    fn of(options: &Options) -> Self {
        let secs = Duration::from_secs;
        if options.small {
            let devices = options.devices.min(300);
            Self {
                devices,
                rounds: options.rounds.min(1),
                quiet: secs(2),
                rest: secs(1),
                idle: secs(5),
                one_at_a_time: 50,
                rate: 100,
                rate_secs: 2,
                items: options.items.min(1000),
                folders: [50, 200, 1000],
            }
        } else {
            Self {
                devices: options.devices,
                rounds: options.rounds,
                quiet: secs(60),
                rest: secs(5),
                idle: secs(180),
                one_at_a_time: 1000,
                rate: RATE,
                rate_secs: 20,
                items: options.items,
                folders: [1000, 10_000, 100_000],
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let plan = Plan::of(options);
    let open_files = measure::open_files_max();
    ensure!(
        plan.devices + 500 < open_files,
        "{} devices do not fit into {open_files} open files per process: raise `ulimit -n` or give --devices",
        plan.devices
    );
    let release = build()?;
    let mut report = Report {
        machine: report::machine(),
        devices: plan.devices,
        rounds: plan.rounds,
        quiet_secs: plan.quiet.as_secs(),
        ..Report::default()
    };
    let nginx = nchan::find();
    if let Err(why) = &nginx {
        report.left_out.push(format!("nginx + nchan: {why}"));
    }
    let can_load = output(Command::new(release.join("directpush")).args(["load", "--help"]))
        .is_ok_and(|help| help.contains("--steered"));
    if !can_load {
        report.left_out.push("directpush: this build's `directpush load` cannot be steered".to_owned());
    }
    let mailboxes =
        if can_load { Some(Mailboxes::make(&release, plan.devices, COLD_DEVICES_MAX)?) } else { None };
    for round in 0..plan.rounds {
        println!("round {} of {}", round + 1, plan.rounds);
        if let Some(mailboxes) = &mailboxes {
            our_round(&release, mailboxes, &plan, round == 0, &mut report).context("directpush")?;
        }
        if let Ok(nginx) = &nginx {
            nchan_round(nginx, &release, &plan, round == 0, &mut report).context("nginx + nchan")?;
        }
    }
    if can_load {
        sync::measure(&release, plan.folders, &mut report).context("Sync")?;
    }
    ledger::measure(&mut report)?;
    store::measure(&release, plan.items, &mut report)?;
    println!("\n{}", report.table());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Builds everything that is measured, and the drivers, as it is shipped; gives the folder of the programs.
pub(crate) fn build() -> Result<PathBuf> {
    if let Outcome::Failed(why) =
        program(&mut cargo(&["build", "--release", "--locked", "--workspace", "--bins"]))?
    {
        anyhow::bail!(why);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release"))
}

/// How many devices log on anew in the cold round: each costs the back end an argon2.
const COLD_DEVICES_MAX: usize = 100;
/// How long deliveries alone are measured.
const DELIVER_SECS: u32 = 5;

fn our_round(
    release: &Path,
    mailboxes: &Mailboxes,
    plan: &Plan,
    first: bool,
    report: &mut Report,
) -> Result<()> {
    let subject = Subject::Directpush;
    for (folders, figures) in [(1, ONE_FOLDER), (5, FIVE_FOLDERS)] {
        let mut pair = Pair::start(release, mailboxes)?;
        let mut driver = pair.driver(plan.devices, folders)?;
        // All that the front end keeps of a device counts. A first Ping is told from later ones, and what a Sync leaves
        // behind belongs to a device's memory: so the devices park, are woken, sync, rest, and park again.
        let fe_before = pss_bytes(&pair.front_end_pids())?;
        driver.ask("prepare")?;
        let parked = driver.ask("park")?;
        driver.ask("rest 64")?;
        sleep(plan.rest);
        let again = driver.ask("park")?;
        sleep(plan.quiet);
        let fe_grown = pss_bytes(&pair.front_end_pids())? - fe_before;
        report.add(subject, figures.memory, "bytes", figures.memory_aim, fe_grown / count(plan.devices));
        let per_sec = |report: &Measured| count(report.changes) / report.took_secs;
        report.add(subject, figures.first, "per s", "", per_sec(&parked));
        report.add(subject, figures.parked, "per s", figures.parked_aim, per_sec(&again));
        if folders != 1 {
            continue;
        }
        if first {
            idle(subject, &pair.all_pids(), plan, report)?;
        }
        report.add(
            subject,
            "one request from front end to back end, p50",
            "µs",
            "",
            pair.round_trip_us(1000)?,
        );
        wakes(subject, &mut driver, plan, report)?;
        for connections in [1, 64] {
            let delivered = driver.ask(&format!("deliver {connections} {DELIVER_SECS}"))?;
            let name = if connections == 1 {
                "durable deliveries, 1 connection"
            } else {
                "durable deliveries, 64 connections"
            };
            report.add(subject, name, "per s", "", count(delivered.changes) / delivered.took_secs);
        }
        drop(driver);
        let cold = plan.devices.min(COLD_DEVICES_MAX);
        let mut driver = pair.driver(cold, 1)?;
        driver.ask("prepare")?;
        pair.restart()?;
        let parked = driver.ask("park")?;
        report.add(
            subject,
            "Pings established, cold credentials",
            "per s",
            "",
            count(parked.changes) / parked.took_secs,
        );
    }
    Ok(())
}

/// What the figures that depend on the number of folders are called.
struct Figures {
    memory: &'static str,
    memory_aim: &'static str,
    /// The device's first Ping, whose parameters are written into the mailbox, durably.
    first: &'static str,
    /// Any later one.
    parked: &'static str,
    parked_aim: &'static str,
}

const ONE_FOLDER: Figures = Figures {
    memory: "memory of a parked device, 1 folder",
    memory_aim: "≤ 1536",
    first: "first Pings established, 1 folder",
    parked: "Pings established, 1 folder",
    parked_aim: "≥ 3000",
};
const FIVE_FOLDERS: Figures = Figures {
    memory: "memory of a parked device, 5 folders",
    memory_aim: "≤ 1792",
    first: "first Pings established, 5 folders",
    parked: "Pings established, 5 folders",
    parked_aim: "",
};

fn nchan_round(nginx: &Path, release: &Path, plan: &Plan, first: bool, report: &mut Report) -> Result<()> {
    let server = Nchan::start(nginx, measure::open_files_max())?;
    let mut driver = Driver::start(
        "nginx + nchan",
        Command::new(release.join("xtask"))
            .args(["nchan-driver", "--address", &server.address.to_string()])
            .args(["--devices", &plan.devices.to_string()]),
    )?;
    let subject = Subject::Nchan;
    let before = pss_bytes(&server.pids())?;
    let parked = driver.ask("park")?;
    sleep(plan.quiet);
    let grown = pss_bytes(&server.pids())? - before;
    report.add(subject, ONE_FOLDER.memory, "bytes", ONE_FOLDER.memory_aim, grown / count(plan.devices));
    let per_sec = count(parked.changes) / parked.took_secs;
    report.add(subject, ONE_FOLDER.parked, "per s", ONE_FOLDER.parked_aim, per_sec);
    if first {
        idle(subject, &server.pids(), plan, report)?;
    }
    wakes(subject, &mut driver, plan, report)
}

/// What the servers do while all devices wait and nothing happens.
fn idle(subject: Subject, pids: &[u32], plan: &Plan, report: &mut Report) -> Result<()> {
    let began = cpu_secs(pids)?;
    sleep(plan.idle);
    let spent = cpu_secs(pids)? - began;
    report.add(
        subject,
        "CPU while nothing happens",
        "% of a core",
        "< 0.2",
        100.0 * spent / plan.idle.as_secs_f64(),
    );
    Ok(())
}

/// The figures that both sides have of waking devices.
fn wakes(subject: Subject, driver: &mut Driver, plan: &Plan, report: &mut Report) -> Result<()> {
    let one = driver.ask(&format!("one {}", plan.one_at_a_time))?;
    sleep(BETWEEN);
    let rate = driver.ask(&format!("rate {} {}", plan.rate, plan.rate_secs))?;
    sleep(BETWEEN);
    // nchan's devices have nothing to sync.
    let (all, synced) = match subject {
        Subject::Nchan => (driver.ask("all 64")?, None),
        Subject::Directpush => {
            let all = driver.ask("all 64 held")?;
            sleep(BETWEEN);
            (all, Some(driver.ask("all 64")?))
        }
    };
    let aim = "p50 ≤ 3 × nchan + 1 request";
    report.add(subject, "wake, one at a time, p50", "µs", aim, one.latency_us.p50);
    report.add(subject, "wake, one at a time, p99", "µs", "", one.latency_us.p99);
    report.add(subject, "wake, at the rate, p50", "µs", aim, rate.latency_us.p50);
    report.add(subject, "wake, at the rate, p99", "µs", "", rate.latency_us.p99);
    report.add(
        subject,
        "one change for every device",
        "wakes/s",
        "≥ 3000",
        count(all.changes) / all.took_secs,
    );
    if let Some(synced) = &synced {
        let per_sec = count(synced.changes) / synced.took_secs;
        report.add(
            subject,
            "the same, each device syncing and waiting again at once",
            "wakes/s",
            "",
            per_sec,
        );
    }
    report.add(
        subject,
        "unanswered changes",
        "",
        "0",
        count(
            one.unanswered + rate.unanswered + all.unanswered + synced.map_or(0, |synced| synced.unanswered),
        ),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
