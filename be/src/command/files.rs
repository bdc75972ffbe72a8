//! `directpush-be export` and `import`: mail to and from the files of other servers.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use directpush_be::Config;
use directpush_be::admin::{Answer, Order};
use directpush_be::maintenance::Bar;
use directpush_be::migration::Desk;
use directpush_be::migration::export::{ExportFormat, Exported, export};
use directpush_be::migration::import::{self, ImportOptions, Imported};

use crate::Administrator;

#[derive(Args)]
pub(crate) struct Exporting {
    /// Where to: each user gets a directory in it.
    target: PathBuf,
    /// This user; may be said several times.
    #[arg(long, value_name = "NAME", required_unless_present = "all")]
    user: Vec<String>,
    /// All users.
    #[arg(long, conflicts_with = "user")]
    all: bool,
    #[arg(long, default_value = "maildir")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A Maildir with its folders as .A.B beside (Maildir++), as Dovecot and Courier have it.
    Maildir,
    /// A Maildir for each folder, within each other.
    Nested,
    /// An mbox for each folder.
    Mbox,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Importing {
    /// A Maildir, an mbox, or a tree of them; with --all a directory in which each user has one.
    source: PathBuf,
    /// Whose mailbox it comes into.
    #[arg(long, value_name = "NAME", required_unless_present = "all")]
    user: Option<String>,
    /// Import for each user after whom something in SOURCE is named.
    #[arg(long, conflicts_with = "user")]
    all: bool,
    /// The folder for messages whose place names none.
    #[arg(long, value_name = "A/B", default_value = "Inbox")]
    folder: String,
    /// Folders called Sent, Trash, … keep their names.
    #[arg(long)]
    keep_names: bool,
    /// Also bring back what an earlier import added and somebody has moved or removed since.
    #[arg(long)]
    again: bool,
    /// Only say what would be imported.
    #[arg(long)]
    dry_run: bool,
}

impl Desk for Administrator {
    async fn order(&self, order: Order, payload: Bytes) -> Result<(Answer, Bytes), String> {
        self.order_with(order, payload).await.map_err(|error| format!("{error:#}"))
    }
}

pub(crate) async fn run_export(
    administrator: &Administrator,
    command: Exporting,
) -> anyhow::Result<Exported> {
    let users = if command.all {
        crate::list(administrator).await?.into_iter().map(|user| user.name).collect()
    } else {
        command.user
    };
    let format = match command.format {
        Format::Maildir => ExportFormat::Maildir,
        Format::Nested => ExportFormat::Nested,
        Format::Mbox => ExportFormat::Mbox,
    };
    let exported = export(administrator, &users, &command.target, format, Bar::new()).await;
    exported.map_err(anyhow::Error::msg)
}

pub(crate) async fn run_import(
    config: &Config,
    administrator: &Administrator,
    command: Importing,
) -> anyhow::Result<Imported> {
    let sources = if let Some(user) = command.user {
        vec![(user, command.source)]
    } else {
        let found = import::users(&command.source);
        found.with_context(|| format!("look into {}", command.source.display()))?
    };
    if sources.is_empty() {
        bail!("nothing there is named after a user");
    }
    let all = command.all;
    let (mut imported, mut watch) = (Imported::default(), Bar::new());
    for (user, source) in sources {
        let options = ImportOptions {
            source,
            user: user.clone(),
            folder: command.folder.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            keep_names: command.keep_names,
            anew: command.again,
            dry_run: command.dry_run,
            mail_bytes_max: config.limits.mail_bytes_max,
        };
        match import::import(administrator, &options, &mut imported, &mut watch).await {
            Ok(()) => {}
            // Of many users, one that is missing stops nobody else.
            Err(why) if all => imported.stopped.push((user, why)),
            Err(why) => bail!("{user}: {why}"),
        }
    }
    Ok(imported)
}
