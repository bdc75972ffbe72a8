//! `cargo xtask interop`: our bytes shown to software that others wrote, and theirs to ours.
//!
//! Each step says what it needs; where that is missing it is skipped with a word on what to install.

mod dav;
mod lmtp;
mod notify;
mod system;
mod wbxml;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
pub(crate) use notify::bytes_of_hex;

use crate::bench::{build, is_root};
use crate::steps::{Outcome, Steps, cargo, find_program, program, root};

/// What the steps and the benchmark need, by Debian's names.
const PACKAGES: &[&str] = &[
    "libwbxml2-utils",
    "tshark",
    "swaks",
    "nginx",
    "libnginx-mod-nchan",
    "curl",
    "postfix",
    "litmus",
    "cadaver",
    "rclone",
    // Of Exim, which is unpacked beside Postfix.
    "libidn12",
    "libgnutls-dane0",
    // Messages of CPython's tests.
    "libpython3.11-testsuite",
];

const CAPTURE: &str = "capture packets";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only installs the other software (apt-get, as root), for this and for `bench`
    #[arg(long)]
    install: bool,
    /// Fails where a step could not run
    #[arg(long)]
    require: bool,
    /// Only the steps whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// A folder with our programs, instead of building them as they are shipped
    #[arg(long)]
    programs: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.install {
        return install();
    }
    let mut steps = Steps::only(options.only.clone());
    let programs = || options.programs.clone().map_or_else(build, Ok);
    steps.run("our WBXML, every tag, read by libwbxml", || with(&["wbxml2xml"], wbxml::every_tag));
    steps.run("messages to libwbxml and back", || {
        with(&["wbxml2xml", "xml2wbxml"], || wbxml::messages(&root().join("common/testdata/eas")))
    });
    steps.run("the article's NOTIFY, read by tshark", || {
        with_root(CAPTURE, &["tshark"], || notify::article(&notify::recorded(&root())?))
    });
    steps.run("a NOTIFY of the back end, read by tshark", || {
        with_root(CAPTURE, &["tshark"], || notify::live(demo))
    });
    steps.run("a delivery by swaks", || with(&["swaks"], || lmtp::swaks(&programs()?)));
    steps.run("litmus", || with(&["litmus"], || dav::litmus(&programs()?)));
    steps.run("cadaver", || with(&["cadaver"], || dav::cadaver(&programs()?)));
    steps.run("rclone", || with(&["rclone"], || dav::rclone(&programs()?)));
    steps.run("curl as a WebDAV client", || with(&["curl"], || dav::curl(&programs()?)));
    steps.run("the mail corpus, read by libwbxml", || {
        with(&["wbxml2xml"], || system::corpus(Path::new("/usr/lib/python3.11/test/test_email/data")))
    });
    steps.run("Postfix before and behind", || {
        with_root("start Postfix", &["postfix", "smtp-source", "swaks"], || system::tests("mta::postfix", 2))
    });
    steps.run("Exim before", || match system::find_exim() {
        None => Ok(Outcome::Skipped("there is no Exim (cargo xtask interop --install)".to_owned())),
        Some(_) => with_root("be Exim", &["unshare"], || system::tests("mta::exim", 1)),
    });
    steps.run("a disk that is full or read-only", || {
        with_root("mount", &["mkfs.ext4"], || system::tests("disk", 2))
    });
    steps.finish(options.require)
}

/// Runs a step if its programs are here.
fn with(programs: &[&str], step: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if let Some(missing) = programs.iter().find(|name| find_program(name).is_none()) {
        return Ok(Outcome::Skipped(format!("there is no {missing} (install {})", package_of(missing))));
    }
    step()
}

/// The same for what only root may do.
fn with_root(what: &str, programs: &[&str], step: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped(format!("only root may {what} (run as root)")));
    }
    with(programs, step)
}

fn package_of(program: &str) -> &str {
    match program {
        "wbxml2xml" | "xml2wbxml" => "libwbxml2-utils",
        "smtp-source" => "postfix",
        "mkfs.ext4" => "e2fsprogs",
        "unshare" => "util-linux",
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
    if system::find_exim().is_none() {
        system::unpack_exim()?;
    }
    Ok(())
}
