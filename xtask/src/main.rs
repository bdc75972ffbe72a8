//! The project's own chores, as `cargo xtask <chore>`: what CI runs, and what a contributor runs before it does.
//!
//! Each chore is one module. They call programs (cargo, nginx, tshark …) and read their output; nothing
//! here is part of the product.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod fuzz;
mod interop;
mod rules;
mod steps;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format, clippy, rustdoc, licences, and the project's rules that a program can check
    Ci,
    /// Runs each decoder's fuzz target for a while
    Fuzz(fuzz::Options),
    /// Shows our bytes to software that others wrote, and theirs to ours
    Interop(interop::Options),
    /// Measures memory, CPU and latency, beside nginx + nchan in the same run
    Bench(bench::Options),
    /// The load driver for nchan, a process of its own under `bench`
    #[command(hide = true)]
    NchanDriver(bench::nchan_driver::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Ci => ci::run(),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Interop(options) => interop::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::NchanDriver(options) => bench::nchan_driver::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
