//! `cargo xtask bench`: what a waiting device costs and how fast it is woken, beside nginx + nchan in the same run.
//!
//! Rounds are interleaved, ours and theirs in turn, so that whatever else the machine does meets both. Servers and load drivers
//! are processes of their own; memory and CPU are read from `/proc`. docs/benchmarks.md says how to read the figures.

mod driver;
mod measure;
mod nchan;
pub(crate) mod nchan_driver;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::steps::{Outcome, cargo, program, root};
use driver::Driver;
use measure::{cpu_secs, pss_bytes};
use nchan::Nchan;
pub(crate) use nchan::is_root;
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
    /// How long CPU is watched while nothing happens.
    idle: Duration,
    one_at_a_time: usize,
    rate: u32,
    rate_secs: u32,
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
                idle: secs(5),
                one_at_a_time: 50,
                rate: 100,
                rate_secs: 2,
            }
        } else {
            Self {
                devices: options.devices,
                rounds: options.rounds,
                quiet: secs(60),
                idle: secs(180),
                one_at_a_time: 1000,
                rate: RATE,
                rate_secs: 20,
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
    for round in 0..plan.rounds {
        println!("round {} of {}", round + 1, plan.rounds);
        if let Ok(nginx) = &nginx {
            nchan_round(nginx, &release, &plan, round == 0, &mut report).context("nginx + nchan")?;
        }
    }
    println!("\n{}", report.table());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Builds everything that is measured, and the drivers, as it is shipped; gives the folder of the programs.
fn build() -> Result<PathBuf> {
    if let Outcome::Failed(why) =
        program(&mut cargo(&["build", "--release", "--locked", "--workspace", "--bins"]))?
    {
        anyhow::bail!(why);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release"))
}

const MEMORY: &str = "memory of a parked device, 1 folder";
const IDLE: &str = "CPU while nothing happens";

fn nchan_round(nginx: &Path, release: &Path, plan: &Plan, first: bool, report: &mut Report) -> Result<()> {
    let server = Nchan::start(nginx, measure::open_files_max())?;
    let mut driver = Driver::start(
        Command::new(release.join("xtask"))
            .args(["nchan-driver", "--address", &server.address.to_string()])
            .args(["--devices", &plan.devices.to_string()]),
    )?;
    let subject = Subject::Nchan;
    let before = pss_bytes(&server.pids())?;
    let parked = driver.ask("park")?;
    sleep(plan.quiet);
    let grown = pss_bytes(&server.pids())? - before;
    report.add(subject, MEMORY, "bytes", "≤ 1536", grown / count(plan.devices));
    report.add(
        subject,
        "devices parked, 1 folder",
        "per s",
        "≥ 3000",
        count(parked.changes) / parked.took_secs,
    );
    if first {
        let began = cpu_secs(&server.pids())?;
        sleep(plan.idle);
        let spent = cpu_secs(&server.pids())? - began;
        report.add(subject, IDLE, "% of a core", "< 0.2", 100.0 * spent / plan.idle.as_secs_f64());
    }
    let one = driver.ask(&format!("one {}", plan.one_at_a_time))?;
    let rate = driver.ask(&format!("rate {} {}", plan.rate, plan.rate_secs))?;
    sleep(BETWEEN);
    let all = driver.ask("all 64")?;
    wakes(subject, &one, &rate, &all, report);
    Ok(())
}

/// The figures that both sides have of waking devices.
fn wakes(
    subject: Subject,
    one: &nchan_driver::Report,
    rate: &nchan_driver::Report,
    all: &nchan_driver::Report,
    report: &mut Report,
) {
    let aim = "p50 ≤ 3 × nchan + 1 round trip";
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
    report.add(
        subject,
        "unanswered changes",
        "",
        "0",
        count(one.unanswered + rate.unanswered + all.unanswered),
    );
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
