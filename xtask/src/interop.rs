//! `cargo xtask interop`: our bytes shown to software that others wrote, and theirs to ours.
//!
//! Each step says what it needs; where that is missing it is skipped with a word on what to install.

mod lmtp;
mod notify;
mod wbxml;

use anyhow::{Result, bail};
pub(crate) use notify::bytes_of_hex;

use crate::bench::is_root;
use crate::steps::{Outcome, Steps, cargo, find_program, program, root};

/// What the steps and the benchmark need, by Debian's names.
const PACKAGES: &[&str] = &["libwbxml2-utils", "tshark", "swaks", "nginx", "libnginx-mod-nchan", "curl"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only installs the other software (apt-get, as root), for this and for `bench`
    #[arg(long)]
    install: bool,
    /// Fails where a step could not run
    #[arg(long)]
    require: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.install {
        return install();
    }
    let mut steps = Steps::default();
    steps.run("our WBXML, every tag, read by libwbxml", || with(&["wbxml2xml"], false, wbxml::every_tag));
    steps.run("messages to libwbxml and back", || {
        with(&["wbxml2xml", "xml2wbxml"], false, || wbxml::messages(&root().join("common/testdata/eas")))
    });
    steps.run("the article's NOTIFY, read by tshark", || {
        with(&["tshark"], true, || notify::article(&notify::recorded(&root())?))
    });
    steps.run("a NOTIFY of the back end, read by tshark", || with(&["tshark"], true, || notify::live(demo)));
    steps.run("a delivery by swaks", || with(&["swaks"], false, lmtp::swaks));
    steps.finish(options.require)
}

/// Runs a step if its programs are here, and we are root where it must be.
fn with(programs: &[&str], as_root: bool, step: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if let Some(missing) = programs.iter().find(|name| find_program(name).is_none()) {
        return Ok(Outcome::Skipped(format!("there is no {missing} (install {})", package_of(missing))));
    }
    if as_root && !is_root() {
        return Ok(Outcome::Skipped("only root may capture packets (run as root)".to_owned()));
    }
    step()
}

fn package_of(program: &str) -> &str {
    match program {
        "wbxml2xml" | "xml2wbxml" => "libwbxml2-utils",
        same => same,
    }
}

/// The whole story once: in it the back end sends a NOTIFY.
fn demo() -> Result<()> {
    match program(&mut cargo(&["run", "--release", "--locked", "--", "demo"]))? {
        Outcome::Failed(why) => bail!("the demo: {why}"),
        _ => Ok(()),
    }
}

fn install() -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = std::process::Command::new("apt-get");
        program(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    for arguments in
        [&["update", "-q"][..], &[&["install", "-y", "-q", "--no-install-recommends"], PACKAGES].concat()]
    {
        if let Outcome::Failed(why) = apt(arguments)? {
            bail!(why);
        }
    }
    Ok(())
}
