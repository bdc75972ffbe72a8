//! The tests of `device/tests/it` that need other software or root: they are ignored in `cargo test` and run from here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::steps::{Outcome, cargo, find_program, output, root};

/// Where `install` unpacks Exim: as packages Exim and Postfix exclude each other.
fn unpacked_exim() -> PathBuf {
    root().join("target/interop/exim")
}

/// The Exim to run, installed or unpacked.
pub(super) fn find_exim() -> Option<PathBuf> {
    let unpacked = unpacked_exim().join("usr/sbin/exim4");
    find_program("exim4").or_else(|| unpacked.is_file().then_some(unpacked))
}

pub(super) fn unpack_exim() -> Result<()> {
    let folder = unpacked_exim();
    std::fs::create_dir_all(&folder)?;
    output(Command::new("apt-get").args(["download", "-q", "exim4-daemon-light"]).current_dir(&folder))?;
    let package = std::fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else { bail!("apt-get downloaded no package of Exim") };
    output(Command::new("dpkg").arg("-x").arg(&package).arg(&folder))?;
    Ok(())
}

/// Every message of the corpus and of CPython's tests in every form that a device asks for.
pub(super) fn corpus(of_cpython: &Path) -> Result<Outcome> {
    if !of_cpython.is_dir() {
        return Ok(Outcome::Skipped(format!(
            "there is no {} (install libpython3.11-testsuite)",
            of_cpython.display()
        )));
    }
    tests("corpus", 1)
}

/// Runs the ignored tests whose names begin so; there must be as many as `count`.
pub(super) fn tests(prefix: &str, count: usize) -> Result<Outcome> {
    // The whole workspace, so that nothing is built with other features than CI's tests were.
    let mut run =
        cargo(&["test", "--workspace", "--locked", "--test", "it", "--", "--ignored", "--nocapture"]);
    run.args(["--test-threads=1", prefix]);
    if let Some(exim) = find_exim() {
        run.env("DIRECTPUSH_EXIM", exim);
    }
    let done = run.output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    ensure!(done.status.success(), "{}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    let passed: usize = said.lines().filter_map(passed).sum();
    ensure!(passed == count, "{passed} tests passed, not {count}");
    Ok(Outcome::Passed(format!("{count} tests")))
}

/// The number of "test result: ok. 2 passed; 0 failed; …".
fn passed(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_counted() {
        let line =
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 30 filtered out; finished in 12.89s";
        assert_eq!(super::passed(line), Some(2));
        assert_eq!(super::passed("running 2 tests"), None);
    }
}
