#![forbid(unsafe_code)]
//! `directpush`: arguments, logging, exit code; everything else is the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use directpush_device::{demo, load, single};

/// A faithful ActiveSync device: to see Direct Push work, to test a server, to load one.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Both servers, a phone and a message on this host: the whole story, with its times
    Demo(demo::Options),
    /// One device against any server; writes what it says and hears
    Device(Box<single::Options>),
    /// Many devices and many messages, and the time between
    Load(Box<load::Options>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // In the demonstration the servers' own lines would stand between those of the story.
    let level = if matches!(cli.command, Command::Demo(_)) { "error" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // Colours are for a terminal; a log file or journald gets plain text.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let mut builder = match &cli.command {
        // A load has little to do per device, and must leave the processors to the servers.
        Command::Load(_) => tokio::runtime::Builder::new_current_thread(),
        Command::Demo(_) | Command::Device(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("directpush: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Demo(options) => demo::run(options).await,
            Command::Device(options) => single::run(*options).await,
            Command::Load(options) => load::run(*options).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directpush: {error:#}");
            ExitCode::FAILURE
        }
    }
}
