//! How maintenance is told: a bar while it goes on, a summary or JSON at its end.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::migration::export::Exported;
use crate::migration::import::Imported;
use crate::store::{Copied, Progress, Report, Severity, Usage};

/// A bar on standard error where that is a terminal, and nothing elsewhere.
pub struct Bar {
    bar: ProgressBar,
    phase: &'static str,
}

impl Bar {
    /// Shown where there is a terminal.
    pub fn new() -> Self {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bar: ProgressBar::with_draw_target(None, target), phase: "" }
    }

    /// Never shown.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), phase: "" }
    }

    /// Shows how far it is.
    pub fn show(&mut self, at: Progress) {
        if self.phase != at.phase {
            self.phase = at.phase;
            let known = "{msg:12} {wide_bar} {percent:>3} %  {eta}";
            let template = if at.total > 0 { known } else { "{msg:12} {spinner} {pos}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar.set_message(at.phase);
        }
        if at.total > 0 {
            self.bar.set_length(at.total);
        }
        self.bar.set_position(at.done);
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What came of it, as text for people and as JSON for programs.
pub trait Summary {
    /// Lines, each ended.
    fn text(&self) -> String;
    /// One object.
    fn json(&self) -> Value;
}

impl Summary for Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Note => "note",
                Severity::Damage => "damaged",
                Severity::Loss => "lost",
            };
            let _ = writeln!(text, "{word}: {}", finding.what);
        }
        let told = self.findings.len() as u64;
        let found = self.notes + self.damages + self.losses;
        if found > told {
            let _ = writeln!(text, "… and {} more", found - told);
        }
        for repair in &self.repairs {
            let _ = writeln!(text, "repaired: {repair}");
        }
        let _ = writeln!(
            text,
            "{} keys ({} bytes), {} journal records, {} bodies ({} bytes; {} without a hash, {} without a use)",
            self.entries,
            self.live_bytes,
            self.records,
            self.bodies,
            self.body_bytes,
            self.bodies_unhashed,
            self.unreferenced
        );
        let verdict = match (self.losses, self.damages) {
            (0, 0) => "everything is whole",
            (0, _) if self.repairs.is_empty() => {
                "damaged, but nothing is lost: `directpush-be fsck --repair` repairs it"
            }
            (0, _) => "repaired; check it once more",
            _ => "something is lost: `directpush-be restore` brings back what a backup has",
        };
        let _ = writeln!(text, "{verdict}");
        text
    }

    fn json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::Damage => "damage",
                Severity::Loss => "loss",
            };
            json!({ "severity": severity, "what": finding.what })
        });
        json!({
            "clean": self.is_clean(),
            "notes": self.notes,
            "damages": self.damages,
            "losses": self.losses,
            "findings": findings.collect::<Vec<_>>(),
            "repairs": self.repairs,
            "entries": self.entries,
            "live_bytes": self.live_bytes,
            "journal_records": self.records,
            "bodies": self.bodies,
            "body_bytes": self.body_bytes,
            "bodies_unhashed": self.bodies_unhashed,
            "bodies_unreferenced": self.unreferenced,
        })
    }
}

impl Summary for Copied {
    fn text(&self) -> String {
        let mut text = format!(
            "{} keys and {} bodies ({} bytes); {} bodies were copied now; {} messages of the mail queue\n",
            self.entries, self.bodies, self.body_bytes, self.new_bodies, self.queued
        );
        if self.damaged_bodies > 0 {
            let _ = writeln!(
                text,
                "{} bodies are damaged and were left out; the log names them",
                self.damaged_bodies
            );
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "entries": self.entries,
            "bodies": self.bodies,
            "body_bytes": self.body_bytes,
            "bodies_copied": self.new_bodies,
            "bodies_damaged": self.damaged_bodies,
            "queued": self.queued,
        })
    }
}

impl Summary for Exported {
    fn text(&self) -> String {
        let Self { users, folders, messages, written, bytes, left_out } = self;
        let mut text = format!(
            "{messages} messages of {users} users in {folders} folders; {written} ({bytes} bytes) were written now\n"
        );
        if *left_out > 0 {
            let _ = writeln!(text, "{left_out} contacts, events and files are no mail and were left out");
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "users": self.users,
            "folders": self.folders,
            "messages": self.messages,
            "written": self.written,
            "bytes": self.bytes,
            "left_out": self.left_out,
        })
    }
}

impl Summary for Imported {
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, why) in &self.bad {
            let _ = writeln!(text, "passed over: {name}: {why}");
        }
        let named = self.bad.len() as u64;
        if self.bad_count > named {
            let _ = writeln!(text, "… and {} more", self.bad_count - named);
        }
        let Self { users, folders, added, bytes, known, .. } = self;
        let done = if self.dry_run { "would be added" } else { "added" };
        let _ = writeln!(
            text,
            "{added} messages ({bytes} bytes) {done}, {known} were there; {folders} folders, {users} users"
        );
        for (user, why) in &self.stopped {
            let _ = writeln!(text, "not all of {user}: {why}");
        }
        text
    }

    fn json(&self) -> Value {
        let pairs = |pairs: &[(String, String)], of: &str| {
            pairs.iter().map(|(name, why)| json!({ of: name, "why": why })).collect::<Vec<_>>()
        };
        json!({
            "dry_run": self.dry_run,
            "users": self.users,
            "folders": self.folders,
            "added": self.added,
            "bytes": self.bytes,
            "known": self.known,
            "passed_over": self.bad_count,
            "bad": pairs(&self.bad, "message"),
            "stopped": pairs(&self.stopped, "user"),
        })
    }
}

impl Summary for Usage {
    fn text(&self) -> String {
        format!(
            "live     {:>15}\njournal  {:>15}\nsnapshot {:>15}\nindex    {:>15}\nbodies   {:>15}\n",
            self.live, self.journal, self.snapshot, self.index, self.bodies
        )
    }

    fn json(&self) -> Value {
        json!({
            "live": self.live,
            "journal": self.journal,
            "snapshot": self.snapshot,
            "index": self.index,
            "bodies": self.bodies,
        })
    }
}

impl Summary for () {
    fn text(&self) -> String {
        "the index is made anew\n".to_owned()
    }

    fn json(&self) -> Value {
        json!({ "done": true })
    }
}
