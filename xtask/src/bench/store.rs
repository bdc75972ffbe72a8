//! The back end's store by itself: what the hidden `directpush-be bench-store` measures, as rows of the table.

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
    resident_bytes: f64,
    usage: Usage,
}

/// Bytes on disk after every item was rewritten several times.
#[derive(Deserialize)]
struct Usage {
    live: f64,
    journal_and_snapshot: f64,
    index: f64,
}

/// Makes a store of so many items in a temporary folder and measures it. Bodies are left out.
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
    let mut row = |name, unit, aim, value| report.add(Subject::Directpush, name, unit, aim, value);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    row("items of the store measured below", "", "", figures.items as f64);
    for &(writers, per_sec) in &figures.commits_per_sec {
        let name = if writers == 1 { "durable commits, 1 writer" } else { "durable commits, 64 writers" };
        row(name, "per s", "", per_sec);
    }
    row("start of the store", "ms", "", figures.start_ms);
    row("start after a crash", "ms", "", figures.start_after_crash_ms);
    row("its index made anew", "ms", "", figures.rebuild_ms);
    row("memory of the process", "MB", "", figures.resident_bytes / 1e6);
    let usage = &figures.usage;
    row(
        "journal and snapshots on disk after churn",
        "× live",
        "≤ 2",
        usage.journal_and_snapshot / usage.live,
    );
    row("index on disk after churn", "× live", "", usage.index / usage.live);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_back_end_prints_becomes_rows() {
        let printed = r#"{"items":10,"keys":30,"fill_ms":1,"commits_per_sec":[[1,2000],[64,9000]],"hot_gets_per_sec":[],
            "cold_gets_per_sec":[],"scans_per_sec":[],"start_ms":5,"start_after_crash_ms":6,"rebuild_ms":7,
            "resident_bytes":50000000,"usage":{"live":100,"journal_and_snapshot":150,"index":300}}"#;
        let mut report = Report::default();
        add(&serde_json::from_str(printed).expect("figures"), &mut report);
        let of = |name: &str| {
            let figure = report.figures.iter().find(|figure| figure.name == name).expect(name);
            figure.rounds[&Subject::Directpush][0]
        };
        assert_eq!(of("durable commits, 64 writers").to_bits(), 9000_f64.to_bits());
        assert_eq!(of("memory of the process").to_bits(), 50_f64.to_bits());
        assert_eq!(of("journal and snapshots on disk after churn").to_bits(), 1.5_f64.to_bits());
    }
}
