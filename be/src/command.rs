//! `directpush-be queue …`, `user alias …` and `user quota`: the commands about mail and mailboxes.

pub(crate) mod device;
pub(crate) mod files;
pub(crate) mod front_end;
pub(crate) mod oof;

use std::io::Write as _;

use anyhow::bail;
use clap::{Args, Subcommand};
use directpush_be::admin::{Answer, Order, QuotaLine, QuotaPart, QuotaParts, QuotaTold};
use directpush_be::submission::queue::entry::Standing;
use directpush_be::submission::queue::list::{Listed, ListedRecipient};

use crate::Administrator;

/// Mail that waits to be sent.
#[derive(Subcommand)]
pub(crate) enum Queue {
    /// List what waits, oldest first.
    List {
        /// Of this user only.
        #[arg(long)]
        user: Option<String>,
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Try a message now, or all of them. Without a running server: at its start.
    Retry {
        /// As `queue list` shows it.
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Remove a message. Nobody is told.
    Remove {
        /// As `queue list` shows it.
        id: String,
    },
}

/// What one mailbox may hold, in the place of what `[quota]` says for all: a number, 0 for no bound, or "default".
#[derive(Args)]
pub(crate) struct OwnQuota {
    /// Messages and all else in folders, in bytes.
    #[arg(long = "quota-bytes", value_name = "BYTES", value_parser = part)]
    bytes: Option<QuotaPart>,
    /// How many of them.
    #[arg(long = "quota-items", value_name = "ITEMS", value_parser = part)]
    items: Option<QuotaPart>,
    /// Folders, the default ones included.
    #[arg(long = "quota-folders", value_name = "FOLDERS", value_parser = part)]
    folders: Option<QuotaPart>,
    /// Folders within each other.
    #[arg(long = "quota-depth", value_name = "FOLDERS", value_parser = part)]
    depth: Option<QuotaPart>,
    /// Dead properties, which DAV clients keep with resources, in bytes.
    #[arg(long = "quota-property-bytes", value_name = "BYTES", value_parser = part)]
    property_bytes: Option<QuotaPart>,
}

impl OwnQuota {
    pub(crate) fn parts(&self) -> QuotaParts {
        QuotaParts {
            bytes: self.bytes,
            items: self.items,
            folders: self.folders,
            depth: self.depth,
            property_bytes: self.property_bytes,
        }
    }
}

fn part(text: &str) -> Result<QuotaPart, String> {
    match text {
        "default" => Ok(QuotaPart::Default),
        text => text.parse().map(QuotaPart::Own).map_err(|_| "a number, or \"default\"".into()),
    }
}

/// Addresses beside a user's name.
#[derive(Subcommand)]
pub(crate) enum Alias {
    /// Mail to this address comes to the user, who may also send as it.
    Add { name: String, address: String },
    /// Take an address from a user.
    Remove { name: String, address: String },
    /// List a user's addresses.
    List {
        name: String,
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn queue(administrator: &Administrator, command: Queue) -> anyhow::Result<()> {
    match command {
        Queue::List { user, json } => show(&list(administrator, user).await?, json),
        Queue::Retry { id, .. } => {
            let one = id.clone();
            match administrator.order(Order::RetryQueue { id }).await? {
                Answer::Count(0) if one.is_some() => bail!("no such message waits"),
                Answer::Count(count) => writeln!(std::io::stdout(), "{count} to be tried now")?,
                _ => bail!("the server answered something else"),
            }
            Ok(())
        }
        Queue::Remove { id } => administrator.order(Order::RemoveQueued { id }).await.map(|_| ()),
    }
}

async fn list(administrator: &Administrator, user: Option<String>) -> anyhow::Result<Vec<Listed>> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let after = all.last().map(|message| message.id.clone());
        let order = Order::ListQueue { user: user.clone(), after };
        let Answer::Queue { messages, more } = administrator.order(order).await? else {
            bail!("the server answered something else");
        };
        all.extend(messages);
        if !more {
            return Ok(all);
        }
    }
}

fn show(messages: &[Listed], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(messages)?)?;
        return Ok(());
    }
    for message in messages {
        let Listed { id, sender, size, age_secs, attempts, .. } = message;
        // What machines write has no sender.
        let sender = if sender.is_empty() { "<>" } else { sender };
        let tries = if message.trying { ", trying now" } else { "" };
        writeln!(out, "{id}  {sender}  {size} bytes, {}, {attempts} attempts{tries}", age(*age_secs))?;
        for ListedRecipient { address, state, last_answer } in &message.recipients {
            let state = match state {
                Standing::Waiting => "waits",
                Standing::Delivered => "sent",
                Standing::Failed | Standing::Told => "failed",
            };
            let answer = last_answer.as_ref().map(|answer| format!(": {answer}")).unwrap_or_default();
            writeln!(out, "    {address}  {state}{answer}")?;
        }
    }
    Ok(())
}

fn age(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s old"),
        120..7200 => format!("{} min old", secs / 60),
        7200..172_800 => format!("{} h old", secs / 3600),
        _ => format!("{} days old", secs / 86_400),
    }
}

pub(crate) async fn alias(administrator: &Administrator, command: Alias) -> anyhow::Result<()> {
    let (name, json) = match command {
        Alias::Add { name, address } => {
            return administrator.order(Order::AddAlias { name, address }).await.map(|_| ());
        }
        Alias::Remove { name, address } => {
            return administrator.order(Order::RemoveAlias { name, address }).await.map(|_| ());
        }
        Alias::List { name, json } => (name, json),
    };
    let Answer::Aliases(aliases) = administrator.order(Order::ListAliases { name }).await? else {
        bail!("the server answered something else");
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&aliases)?)?;
        return Ok(());
    }
    for alias in aliases {
        writeln!(out, "{alias}")?;
    }
    Ok(())
}

pub(crate) async fn quota(administrator: &Administrator, name: String, json: bool) -> anyhow::Result<()> {
    let Answer::Quota(told) = administrator.order(Order::Quota { name }).await? else {
        bail!("the server answered something else");
    };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(());
    }
    let QuotaTold { bytes, items, folders, depth, property_bytes, warning } = told;
    for (what, QuotaLine { used, limit, own }) in [
        ("bytes", bytes),
        ("items", items),
        ("folders", folders),
        ("depth", depth),
        ("property bytes", property_bytes),
    ] {
        let used = used.map(|used| format!("{used} of ")).unwrap_or_default();
        let limit = if limit == 0 { "any number".to_owned() } else { limit.to_string() };
        writeln!(out, "{what}: {used}{limit}{}", if own { " (own)" } else { "" })?;
    }
    if warning {
        writeln!(out, "nearly full")?;
    }
    Ok(())
}
