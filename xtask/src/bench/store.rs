//! A back end with many items, and its store by itself: what the hidden `directpush-be bench-store` measures, as rows
//! of the table.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use super::report::{Report, Subject};

/// What `bench-store` prints, as far as it is shown.
#[derive(Deserialize)]
struct Figures {
    items: u64,
    commits_per_sec: Vec<(usize, f64)>,
    start_ms: f64,
    start_after_crash_ms: f64,
    rebuild_ms: f64,
    peak_bytes: f64,
    usage: Usage,
    scale: Scale,
}

/// A whole back end that holds the items in one mailbox.
#[derive(Deserialize)]
struct Scale {
    filled_per_sec: f64,
    /// Items of the folder, and what ten changes of it take to tell: median and 99th percentile.
    sync_us: Vec<(u64, f64, f64)>,
    deliveries_per_sec: Vec<(usize, f64)>,
    start_ms: f64,
    resident_bytes: f64,
    peak_bytes: f64,
}

/// What a small message takes beside its records, for the figure of the disk as a whole.
const MESSAGE_BYTES: f64 = 4096.0;

/// Bytes on disk after every item was rewritten several times.
#[derive(Deserialize)]
struct Usage {
    live: f64,
    journal_and_snapshot: f64,
    index: f64,
}

/// Makes a back end and a store of so many items in a temporary folder and measures them.
pub(crate) fn measure(programs: &Path, items: u64, report: &mut Report) -> Result<()> {
    println!("  directpush: a store of {items} items");
    let folder = TempDir::with_prefix("bench-store-")?;
    let config = folder.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = \"{}\"\n", folder.path().join("state").display()))?;
    let ran = Command::new(programs.join("directpush-be"))
        .arg("--config")
        .arg(&config)
        .arg("bench-store")
        .arg(folder.path().join("measured"))
        .args(["--items", &items.to_string()])
        .output()
        .context("cannot start directpush-be")?;
    ensure!(ran.status.success(), "bench-store: {}", String::from_utf8_lossy(&ran.stderr));
    add(&serde_json::from_slice(&ran.stdout).context("bench-store told something else")?, report);
    Ok(())
}

fn add(figures: &Figures, report: &mut Report) {
    let mut row =
        |name: &str, unit, aim, value| report.add(Subject::Directpush, name.to_owned(), unit, aim, value);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let items = figures.items as f64;
    row("items of the back end and the store measured below", "", "", items);
    let scale = &figures.scale;
    row("items made, 250 to a commit", "per s", "", scale.filled_per_sec);
    let least = scale.sync_us.first().map_or(0.0, |(_, p50, _)| *p50);
    for (size, p50, p99) in &scale.sync_us {
        row(&format!("sync-collection, 10 changes of {size} items, p50"), "µs", "flat", *p50);
        row(&format!("sync-collection, 10 changes of {size} items, p99"), "µs", "", *p99);
    }
    if let (Some((_, most, _)), true) = (scale.sync_us.last(), least > 0.0) {
        row("the same: the largest folder to the smallest", "×", "flat", most / least);
    }
    for &(writers, rate) in &scale.deliveries_per_sec {
        row(&format!("durable deliveries beside them, {writers} at once"), "per s", "", rate);
    }
    row("memory of the back end, most", "MB", "", scale.peak_bytes / 1e6);
    row("the same after a start", "MB", "", scale.resident_bytes / 1e6);
    row("start of the back end", "ms", "", scale.start_ms);
    for &(writers, per_sec) in &figures.commits_per_sec {
        row(&format!("durable commits, writers: {writers}"), "per s", "", per_sec);
    }
    row("start of the store", "ms", "", figures.start_ms);
    row("start after a crash", "ms", "", figures.start_after_crash_ms);
    row("its index made anew", "ms", "", figures.rebuild_ms);
    row("most memory of the process, with the back end before", "MB", "", figures.peak_bytes / 1e6);
    let usage = &figures.usage;
    row("journal and snapshots on disk after churn", "× live", "", usage.journal_and_snapshot / usage.live);
    row("index on disk after churn", "× live", "", usage.index / usage.live);
    let bodies = items * MESSAGE_BYTES;
    let all = bodies + usage.journal_and_snapshot + usage.index;
    row("all of it with messages of 4 KiB", "× live", "≤ 2", all / (bodies + usage.live));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_back_end_prints_becomes_rows() {
        let printed = r#"{"items":10,"keys":30,"fill_ms":1,"commits_per_sec":[[1,2000],[64,9000]],"hot_gets_per_sec":[],
            "cold_gets_per_sec":[],"scans_per_sec":[],"start_ms":5,"start_after_crash_ms":6,"rebuild_ms":7,
            "resident_bytes":50000000,"peak_bytes":60000000,"scale":{"items":10,"filled_per_sec":500,"sync_us":[[10,100,200]],
            "deliveries_per_sec":[[1,300]],"start_ms":7,"resident_bytes":1,"peak_bytes":2},"usage":{"live":100,"journal_and_snapshot":150,"index":300}}"#;
        let mut report = Report::default();
        add(&serde_json::from_str(printed).expect("figures"), &mut report);
        let of = |name: &str| {
            let figure = report.figures.iter().find(|figure| figure.name == name).expect(name);
            figure.rounds[&Subject::Directpush][0]
        };
        assert_eq!(of("durable commits, writers: 64").to_bits(), 9000_f64.to_bits());
        assert_eq!(of("most memory of the process, with the back end before").to_bits(), 60_f64.to_bits());
        assert_eq!(of("sync-collection, 10 changes of 10 items, p50").to_bits(), 100_f64.to_bits());
        assert_eq!(of("journal and snapshots on disk after churn").to_bits(), 1.5_f64.to_bits());
    }
}
