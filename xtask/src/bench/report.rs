//! The figures of all rounds, as a table and as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::measure::median;

/// Who was measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Directpush,
    Nchan,
}

/// One figure: a value per round for each subject, and what we aim at.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: Cow<'static, str>,
    pub(crate) unit: &'static str,
    /// In words, as the table shows it.
    pub(crate) aim: &'static str,
    pub(crate) rounds: BTreeMap<Subject, Vec<f64>>,
}

/// The machine and the run: figures mean nothing without them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) devices: usize,
    pub(crate) rounds: usize,
    pub(crate) quiet_secs: u64,
    pub(crate) figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub(crate) left_out: Vec<String>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        subject: Subject,
        name: impl Into<Cow<'static, str>>,
        unit: &'static str,
        aim: &'static str,
        value: f64,
    ) {
        let name = name.into();
        let found = self.figures.iter().position(|figure| figure.name == name);
        let at = found.unwrap_or_else(|| {
            self.figures.push(Figure { name, unit, aim, rounds: BTreeMap::new() });
            self.figures.len() - 1
        });
        self.figures[at].rounds.entry(subject).or_default().push(value);
    }

    /// The median of the rounds, and from where to where they went.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![["figure", "unit", "directpush", "nginx + nchan", "aim"].map(str::to_owned)];
        for figure in &self.figures {
            let cell = |subject| figure.rounds.get(&subject).map_or_else(String::new, |values| cell(values));
            rows.push([
                figure.name.to_string(),
                figure.unit.to_owned(),
                cell(Subject::Directpush),
                cell(Subject::Nchan),
                figure.aim.to_owned(),
            ]);
        }
        let widths: Vec<usize> = (0..5)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("{}; {} devices, {} rounds\n\n", self.machine, self.devices, self.rounds);
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if index == 0 {
                let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(text, "| {} |", lines.join(" | "));
            }
        }
        for missing in &self.left_out {
            let _ = writeln!(text, "\nNot measured: {missing}");
        }
        text
    }
}

fn cell(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match median(values) {
        None => String::new(),
        Some(middle) if values.len() == 1 => number(middle),
        Some(middle) => format!("{} ({}–{})", number(middle), number(least), number(most)),
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        whole if whole < 10.0 && whole.fract() == 0.0 => format!("{value:.0}"),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What the figures were made on.
pub(crate) fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model =
        cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_median_and_range_side_by_side() {
        let mut report =
            Report { machine: "a machine".to_owned(), devices: 10, rounds: 3, ..Report::default() };
        for value in [3.0, 1.0, 2.0] {
            report.add(Subject::Directpush, "wake p50", "µs", "3 × nchan", value);
        }
        report.add(Subject::Nchan, "wake p50", "µs", "3 × nchan", 86.0);
        report.left_out.push("the rest".to_owned());
        assert_eq!(
            report.table(),
            "a machine; 10 devices, 3 rounds\n\n\
             | figure   | unit | directpush | nginx + nchan | aim       |\n\
             | -------- | ---- | ---------- | ------------- | --------- |\n\
             | wake p50 | µs   | 2 (1–3)    | 86.0          | 3 × nchan |\n\
             \nNot measured: the rest\n"
        );
    }
}
