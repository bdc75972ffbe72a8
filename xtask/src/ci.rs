//! `cargo xtask ci`: everything that can be checked without running the product.
//!
//! Tests are not here: CI runs them as the README gives them, `cargo test --workspace`.

use anyhow::Result;

use crate::rules;
use crate::steps::{Outcome, Steps, cargo, find_program, program};

/// The version that is installed when there is none; any installed version is used as it is.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || program(&mut cargo(&["fmt", "--all", "--check"])));
    // The fuzz targets are a workspace of their own.
    steps.run("format of the fuzz targets", || {
        program(&mut cargo(&["fmt", "--manifest-path", "common/fuzz/Cargo.toml", "--check"]))
    });
    steps.run("clippy", || {
        program(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    });
    steps.run("documentation", || {
        program(
            cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    steps.run("licences, bans, sources", || {
        install_cargo_deny()?;
        // Advisories need a database from the network; deny.toml says how to check them.
        program(&mut cargo(&["deny", "--locked", "check", "licenses", "bans", "sources"]))
    });
    for rule in rules::ALL {
        steps.run(rule.name, || {
            let complaints = (rule.check)(&rules::Repository::open()?);
            for complaint in &complaints {
                println!("{complaint}");
            }
            Ok(match complaints.len() {
                0 => Outcome::Passed(String::new()),
                some => Outcome::Failed(format!("{some} places, first {}", complaints[0])),
            })
        });
    }
    steps.finish(false)
}

fn install_cargo_deny() -> Result<()> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let there = cargo_home.is_some_and(|home| home.join("bin/cargo-deny").is_file())
        || find_program("cargo-deny").is_some();
    if !there {
        println!("cargo-deny is not installed; building it takes a few minutes, once");
        if let Outcome::Failed(why) =
            program(&mut cargo(&["install", "--locked", "cargo-deny", "--version", CARGO_DENY]))?
        {
            anyhow::bail!(why);
        }
    }
    Ok(())
}
