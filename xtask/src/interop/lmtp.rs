//! LMTP as swaks speaks it: to a back end that runs, for a user who exists and for one who does not.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench::{Mailboxes, Pair};
use crate::steps::Outcome;

pub(super) fn swaks(programs: &Path) -> Result<Outcome> {
    let pair = Pair::start(programs, &Mailboxes::make(programs, 1, 0)?)?;
    let (accepted, said) = deliver(&pair, "load-0@bench")?;
    ensure!(
        accepted && said.contains("<-  250 2.1.5 <load-0@bench>"),
        "a message for a user is not accepted:\n{said}"
    );
    let (accepted, said) = deliver(&pair, "nobody@bench")?;
    ensure!(
        !accepted && said.contains("550 5.1.1"),
        "a message for nobody is not refused with 550 5.1.1:\n{said}"
    );
    Ok(Outcome::Passed("250 for a user, 550 5.1.1 for nobody".to_owned()))
}

/// Whether swaks could deliver, and the dialogue.
fn deliver(pair: &Pair, recipient: &str) -> Result<(bool, String)> {
    let swaks = Command::new("swaks")
        .args(["--protocol", "LMTP", "--server", &pair.lmtp().ip().to_string()])
        .args(["--port", &pair.lmtp().port().to_string(), "--helo", "mta.example"])
        .args(["--from", "sender@example.com", "--to", recipient])
        .args([
            "--header",
            "Subject: from another program",
            "--body",
            "A line.\n.A line that begins with a dot.\n",
        ])
        .output()
        .context("cannot start swaks")?;
    let said = String::from_utf8_lossy(&swaks.stdout).into_owned() + &String::from_utf8_lossy(&swaks.stderr);
    Ok((swaks.status.success(), said))
}
