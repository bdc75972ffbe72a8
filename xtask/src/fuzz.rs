//! `cargo xtask fuzz`: builds the fuzz targets of `common/fuzz` and runs each for a while.
//!
//! libFuzzer comes with the crate `libfuzzer-sys`, so what the workspace needs builds it too: the pinned stable compiler,
//! with `RUSTC_BOOTSTRAP` for the one unstable flag (AddressSanitizer, whose hooks let the fuzzer see what a
//! `memcmp` compares), and a C++ compiler. `cargo fuzz` is not needed, but understands the same folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::interop::bytes_of_hex;
use crate::steps::{Outcome, Steps, cargo, output, root};

/// What `cargo fuzz` gives to the compiler as well: counters on every edge, and the operands of comparisons.
const RUSTFLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input tried; every decoder's own bounds are tested with real limits elsewhere.
const INPUT_BYTES_MAX: &str = "-max_len=16384";
/// One input may take this long, and one process this much memory; more is a fault of the decoder.
const BOUNDS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Only this target; may be given more than once
    #[arg(long)]
    target: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    for wanted in &options.target {
        ensure!(all.contains(wanted), "there is no target {wanted}; there are {}", all.join(", "));
    }
    let chosen: Vec<_> =
        all.into_iter().filter(|name| options.target.is_empty() || options.target.contains(name)).collect();
    let programs = build()?;
    let mut steps = Steps::default();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for together in chosen.chunks(cores) {
        thread::scope(|scope| {
            let programs = &programs;
            let start = |name| scope.spawn(move || fuzz(&programs.join(name), name, options.seconds));
            let running: Vec<_> = together.iter().map(|name| (name, start(name))).collect();
            for (name, run) in running {
                steps.run(name, || run.join().map_err(|_| anyhow!("its runner panicked"))?);
            }
        });
    }
    steps.finish(false)
}

fn folder() -> PathBuf {
    root().join("common/fuzz")
}

/// The targets by name: one file each.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("fuzz_targets")).context("cannot list the fuzz targets")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds all targets and gives the folder they are in.
fn build() -> Result<PathBuf> {
    let compiler = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let host = compiler
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say what it is for")?;
    // With --target the flags are for the targets alone, and not for build scripts.
    let status = cargo(&["build", "--release", "--locked", "--target", host])
        .current_dir(folder())
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", folder().join("target"))
        .status()?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(folder().join("target").join(host).join("release"))
}

/// The messages that a target starts from: for each folder that its first lines name in `//! Seeds: a, b`, what was
/// recorded in `common/testdata` and what was written for it in `common/fuzz/seeds`; and whatever made it crash before.
fn seeds(name: &str) -> Result<Vec<PathBuf>> {
    let source = fs::read_to_string(folder().join("fuzz_targets").join(name).with_extension("rs"))?;
    let named = source.lines().find_map(|line| line.strip_prefix("//! Seeds: ")).unwrap_or("");
    let places = [root().join("common/testdata"), folder().join("seeds")];
    let mut seeds = Vec::new();
    for wanted in named.split(',').map(str::trim).filter(|wanted| !wanted.is_empty()) {
        let before = seeds.len();
        seeds.extend(places.iter().map(|place| place.join(wanted)).filter(|path| path.is_dir()));
        ensure!(seeds.len() > before, "{name}: there are no seeds {wanted}");
    }
    seeds.extend(Some(crashes(name)).filter(|path| path.is_dir()));
    Ok(seeds)
}

/// Copies the seeds into one folder, as bytes: some are recorded as hex.
fn unpack(seeds: &[PathBuf], folder: &Path) -> Result<()> {
    let mut number = 0;
    for seed in seeds {
        for entry in fs::read_dir(seed)? {
            let path = entry?.path();
            let mut bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if path.extension().is_some_and(|extension| extension == "hex") {
                bytes = bytes_of_hex(&String::from_utf8(bytes)?)?;
            }
            fs::write(folder.join(number.to_string()), bytes)?;
            number += 1;
        }
    }
    Ok(())
}

/// Where inputs are kept that once crashed a target; they are replayed by every later run.
fn crashes(name: &str) -> PathBuf {
    root().join("common/testdata/fuzz").join(name)
}

fn fuzz(program: &Path, name: &str, seconds: u32) -> Result<Outcome> {
    let corpus = folder().join("corpus").join(name);
    let artifacts = tempfile::tempdir()?;
    let unpacked = tempfile::tempdir()?;
    unpack(&seeds(name)?, unpacked.path())?;
    fs::create_dir_all(&corpus)?;
    let run = Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.path().display()))
        .args(["-print_final_stats=1", "-verbosity=0", INPUT_BYTES_MAX])
        .args(BOUNDS)
        .arg(&corpus)
        .arg(unpacked.path())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&run.stderr);
    let executions = statistic(&said, "number_of_executed_units");
    if run.status.success() {
        return Ok(Outcome::Passed(format!("{} executions in {seconds} s", executions.unwrap_or(0))));
    }
    eprintln!("{said}");
    let kept = keep_crashes(artifacts.path(), &crashes(name))?;
    match kept.first() {
        Some(first) => Ok(Outcome::Failed(format!("crashed; the input is kept as {}", first.display()))),
        None => bail!("ended with {} and left no input", run.status),
    }
}

fn statistic(said: &str, name: &str) -> Option<u64> {
    said.lines().find_map(|line| {
        line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()
    })
}

/// Copies what libFuzzer left to where tests and later runs find it.
fn keep_crashes(artifacts: &Path, kept: &Path) -> Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(artifacts)? {
        let path = entry?.path();
        fs::create_dir_all(kept)?;
        let copy = kept.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &copy)?;
        copies.push(copy);
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_libfuzzers_statistics() {
        let said =
            "Done 619 runs\nstat::number_of_executed_units: 619\nstat::peak_rss_mb:              133\n";
        assert_eq!(statistic(said, "number_of_executed_units"), Some(619));
        assert_eq!(statistic(said, "slowest_unit_time_sec"), None);
    }

    #[test]
    fn every_target_is_declared_and_its_seeds_exist() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the manifest");
        for name in targets().expect("targets") {
            assert!(
                manifest.contains(&format!("name = \"{name}\"")),
                "{name} is not in common/fuzz/Cargo.toml"
            );
            seeds(&name).expect("seeds");
        }
    }

    #[test]
    fn crashing_inputs_are_kept() {
        let from = tempfile::tempdir().expect("a folder");
        let to = tempfile::tempdir().expect("a folder");
        fs::write(from.path().join("crash-1"), b"x").expect("written");
        let kept = keep_crashes(from.path(), &to.path().join("notify")).expect("copied");
        assert_eq!(fs::read(&kept[0]).expect("kept"), b"x");
    }
}
