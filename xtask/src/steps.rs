//! A chore as a list of steps: each runs whatever happened before it, and a table at the end says how they went.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

/// How one step ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Passed(String),
    /// Could not run here; the text says what to install or who to be.
    Skipped(String),
    Failed(String),
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    only: Option<String>,
    done: Vec<(String, Outcome, Duration)>,
}

impl Steps {
    /// Steps of which only those run whose names contain this.
    pub(crate) fn only(part: Option<String>) -> Self {
        Self { only: part, done: Vec::new() }
    }

    /// Runs one step and remembers its outcome; an error is a failure and does not stop the others.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Outcome>) {
        if self.only.as_ref().is_some_and(|part| !name.contains(part)) {
            return;
        }
        println!("\n== {name}");
        let began = SystemTime::now();
        let outcome = step().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        match &outcome {
            Outcome::Passed(_) => {}
            Outcome::Skipped(why) => println!("skipped because {why}"),
            Outcome::Failed(why) => println!("FAILED: {why}"),
        }
        self.done.push((name.to_owned(), outcome, began.elapsed().unwrap_or_default()));
    }

    /// Prints the table. With `require`, a skipped step counts as a failed one.
    pub(crate) fn finish(self, require: bool) -> Result<()> {
        let width = self.done.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let mut failures = 0;
        println!();
        for (name, outcome, took) in &self.done {
            let (word, text) = match outcome {
                Outcome::Passed(text) => ("ok", text),
                Outcome::Skipped(text) => ("skipped", text),
                Outcome::Failed(text) => ("FAILED", text),
            };
            failures += usize::from(match outcome {
                Outcome::Passed(_) => false,
                Outcome::Skipped(_) => require,
                Outcome::Failed(_) => true,
            });
            println!(
                "{name:width$}  {:>6.1} s  {word:7}  {}",
                took.as_secs_f64(),
                text.lines().next().unwrap_or("")
            );
        }
        if failures > 0 {
            bail!("{failures} of {} steps did not pass", self.done.len());
        }
        Ok(())
    }
}

/// Runs a program with its output on ours; a non-zero exit is a failed step.
pub(crate) fn program(command: &mut Command) -> Result<Outcome> {
    let words = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("cannot start {words}"))?;
    Ok(if status.success() {
        Outcome::Passed(String::new())
    } else {
        Outcome::Failed(format!("{words}: {status}"))
    })
}

/// `cargo`, the same that runs us, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The root of the repository: of the one that `cargo run` was called in, if target folders are shared.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map(Path::to_owned).unwrap_or(here)
}

/// Whether a program of this name is on the PATH (or where Debian keeps servers).
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// What a program printed, as text; a non-zero exit is an error that carries what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let words = format!("{command:?}").replace('"', "");
    let output = command.output().with_context(|| format!("cannot start {words}"))?;
    if !output.status.success() {
        bail!("{words}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_does_not_stop_the_steps_after_it() {
        let mut steps = Steps::default();
        steps.run("breaks", || bail!("no"));
        steps.run("works", || Ok(Outcome::Passed(String::new())));
        assert_eq!(steps.done.len(), 2);
        assert_eq!(steps.finish(false).expect_err("one failed").to_string(), "1 of 2 steps did not pass");
    }

    #[test]
    fn a_skip_fails_only_where_it_is_required_to_run() {
        let skipped = || {
            let mut steps = Steps::default();
            steps.run("tool", || Ok(Outcome::Skipped("there is no tool".to_owned())));
            steps
        };
        assert!(skipped().finish(false).is_ok());
        assert!(skipped().finish(true).is_err());
    }
}
