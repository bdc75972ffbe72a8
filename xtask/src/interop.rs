//! `cargo xtask interop`: our bytes shown to software that others wrote, and theirs to ours.

use anyhow::Result;

use crate::steps::{Outcome, Steps, program};

/// What the steps need, by Debian's names.
const PACKAGES: &[&str] = &["libwbxml2-utils", "tshark", "swaks", "nginx", "libnginx-mod-nchan", "curl"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Installs the other software first, by apt-get, as root
    #[arg(long)]
    install: bool,
    /// Fails where a step could not run
    #[arg(long)]
    require: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    if options.install {
        steps.run("install", install);
    }
    steps.finish(options.require)
}

fn install() -> Result<Outcome> {
    let apt = |arguments: &[&str]| {
        let mut command = std::process::Command::new("apt-get");
        program(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
    };
    if let failed @ Outcome::Failed(_) = apt(&["update", "-q"])? {
        return Ok(failed);
    }
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], PACKAGES].concat())
}
