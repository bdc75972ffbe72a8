//! A load driver as the benchmark sees it: a process that takes a command a line and answers each with a line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::nchan_driver::Report;

pub(crate) struct Driver {
    name: &'static str,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the driver")?;
        let commands = process.stdin.take().context("no standard input")?;
        let answers = BufReader::new(process.stdout.take().context("no standard output")?);
        Ok(Self { name, process, commands, answers })
    }

    /// Gives one command and waits for its report.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Report> {
        println!("  {}: {command}", self.name);
        writeln!(self.commands, "{command}").context("the driver is gone")?;
        self.commands.flush()?;
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the driver ended at `{command}`");
        serde_json::from_str(&line).with_context(|| format!("`{command}`: not a report: {line}"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
