//! `directpush-be user oof`: what is answered automatically while somebody is away.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use directpush_be::admin::{Answer, Order};
use directpush_common::mail::oof::{Oof, OofBody, OofReply, OofState, TEXT_BYTES_MAX};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::Administrator;

/// Automatic replies while a user is away.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// What is answered, and when.
    Show {
        name: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Answer from now on, or for a while.
    Set(Set),
    /// Answer no more, and forget the texts.
    Clear { name: String },
}

#[derive(Args)]
pub(crate) struct Set {
    name: String,
    /// A file with the text for people here; "-" for standard input.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// A file with the text for people elsewhere, if it is another one.
    #[arg(long, value_name = "FILE")]
    external_text: Option<PathBuf>,
    /// Who elsewhere is answered.
    #[arg(long, value_name = "WHO", default_value = "none")]
    external: External,
    /// The texts are HTML.
    #[arg(long)]
    html: bool,
    /// From when on, in this host's time: 2026-12-24 or 2026-12-24T12:00.
    #[arg(long, value_name = "TIME", requires = "end", value_parser = time)]
    start: Option<i64>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<i64>,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum External {
    None,
    /// Those to whom the user has written.
    Known,
    All,
}

/// Unix seconds of a time as people write it.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_second());
    }
    let civil: DateTime =
        text.parse().map_err(|_| "write it as 2026-12-24 or 2026-12-24T12:00".to_owned())?;
    civil.to_zoned(TimeZone::system()).map(|at| at.timestamp().as_second()).map_err(|error| error.to_string())
}

pub(crate) async fn run(administrator: &Administrator, command: Command) -> anyhow::Result<()> {
    let (name, oof) = match command {
        Command::Show { name, json } => return show(administrator, name, json).await,
        Command::Clear { name } => (name, Oof::default()),
        Command::Set(set) => (set.name.clone(), set.oof()?),
    };
    administrator.order(Order::SetOof { name, oof }).await.map(|_| ())
}

impl Set {
    fn oof(&self) -> anyhow::Result<Oof> {
        let body_type = if self.html { OofBody::Html } else { OofBody::Text };
        let internal = OofReply::new(read(&self.text)?, body_type)?;
        let external = match &self.external_text {
            Some(path) => OofReply::new(read(path)?, body_type)?,
            None => internal.clone(),
        };
        let to = |enabled| OofReply { enabled, ..external.clone() };
        let now = Timestamp::now().as_second();
        let state = match (self.start, self.end) {
            (_, Some(end)) => OofState::scheduled(self.start.unwrap_or(now), end)?,
            _ => OofState::On,
        };
        Ok(Oof {
            state,
            external_known: to(self.external != External::None),
            external_unknown: to(self.external == External::All),
            internal,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let doing = || format!("read the text from {}", path.display());
    // One byte more than may be: then it is refused, and not cut.
    let bound = TEXT_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(bound).read_to_string(&mut text).with_context(doing)?;
    } else {
        std::fs::File::open(path)?.take(bound).read_to_string(&mut text).with_context(doing)?;
    }
    Ok(text)
}

async fn show(administrator: &Administrator, name: String, json: bool) -> anyhow::Result<()> {
    let Answer::Oof(oof) = administrator.order(Order::Oof { name }).await? else {
        bail!("the server answered something else");
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&oof)?)?;
        return Ok(());
    }
    let at =
        |secs| Timestamp::from_second(secs).map(|at| at.to_zoned(TimeZone::system())).unwrap_or_default();
    match oof.state {
        OofState::Off => writeln!(out, "off")?,
        OofState::On => writeln!(out, "on")?,
        OofState::Scheduled { start, end } => writeln!(out, "from {} until {}", at(start), at(end))?,
    }
    for (who, reply) in [
        ("people here", &oof.internal),
        ("people elsewhere whom the user has written to", &oof.external_known),
        ("all others", &oof.external_unknown),
    ] {
        let text = if reply.enabled { reply.text.trim_end() } else { "(nothing)" };
        writeln!(out, "\nTo {who}:\n{text}")?;
    }
    Ok(())
}
