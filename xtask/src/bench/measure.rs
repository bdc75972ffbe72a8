//! What the kernel says of a process, and what a row of samples says of a program.

use std::path::Path;

use anyhow::{Context, Result};

/// `/proc/PID/stat` counts in this unit on every Linux that we build for (`getconf CLK_TCK`).
const TICKS_PER_SEC: f64 = 100.0;

/// A process and those it has started, as nginx does.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let descendants = children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(descendants).collect()
}

/// Memory of these processes in bytes, shared pages divided among those that share them (proc(5), `smaps_rollup`, `Pss`).
pub(crate) fn pss_bytes(pids: &[u32]) -> Result<f64> {
    let mut kib = 0.0;
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        kib += pss_kib(&text).with_context(|| format!("{file} has no Pss"))?;
    }
    Ok(kib * 1024.0)
}

fn pss_kib(smaps_rollup: &str) -> Option<f64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of these processes so far, in seconds (proc(5), `stat`, fields 14 and 15).
pub(crate) fn cpu_secs(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in pids {
        let file = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        ticks += cpu_ticks(&text).with_context(|| format!("{file} is not as proc(5) says"))?;
    }
    Ok(ticks / TICKS_PER_SEC)
}

fn cpu_ticks(stat: &str) -> Option<f64> {
    // The second field is the program's name, which may hold blanks and brackets.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

/// How many files a process may have open; a driver's devices must fit below.
pub(crate) fn open_files_max() -> usize {
    let limits = std::fs::read_to_string(Path::new("/proc/self/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or("");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

/// The value below which this part (0.5, 0.99 …) of the samples lies: exact, nearest rank. None without samples.
pub(crate) fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The middle of a few rounds: of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            pss_kib("00400000-7fff [rollup]\nRss:   5120 kB\nPss:   1234 kB\nPss_Dirty: 9 kB\n"),
            Some(1234.0)
        );
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 125 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(375.0));
        let me = std::process::id();
        assert!(pss_bytes(&[me]).expect("own memory") > 0.0);
        assert!(cpu_secs(&[me]).expect("own time") >= 0.0);
        assert_eq!(family(me)[0], me);
        assert!(open_files_max() > 0);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), Some(50.0));
        assert_eq!(percentile(&samples, 0.99), Some(99.0));
        assert_eq!(percentile(&samples, 1.0), Some(100.0));
        assert_eq!(percentile(&[7.0], 0.5), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
