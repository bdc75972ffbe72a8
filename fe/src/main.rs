//! `directpush-fe`: the front end as a program.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use directpush_fe::config::{Config, TEMPLATE};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Direct Push front end: phones park their Pings here and are woken when mail comes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/directpush/fe.toml",
        env = "DIRECTPUSH_FE_CONFIG"
    )]
    config: PathBuf,
    /// Check the configuration, say all its mistakes, and stop.
    #[arg(long)]
    check_config: bool,
    /// Write the commented defaults and stop.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    // Before anything could choose another: one cryptographic provider for the whole process. It fails only when one is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    if arguments.print_config {
        print!("{TEMPLATE}");
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprint!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        println!("{}: no mistakes", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directpush-fe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level).context("log_level")?;
    // Colours are for a terminal; a log file or journald gets plain text.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut term, mut interrupt, mut hangup) = (
            signal(SignalKind::terminate()).context("SIGTERM")?,
            signal(SignalKind::interrupt()).context("SIGINT")?,
            signal(SignalKind::hangup()).context("SIGHUP")?,
        );
        let front_end = directpush_fe::run(config, shutdown.clone()).await?;
        let reloader = front_end.reloader();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reloader.reload();
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            shutdown.cancel();
        });
        front_end.stopped().await;
        Ok(())
    })
}
