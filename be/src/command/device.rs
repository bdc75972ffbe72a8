//! `directpush-be device …` and `user device-password …`: phones, and the passwords made for them.

use std::io::{IsTerminal as _, Write as _};

use anyhow::bail;
use clap::Subcommand;
use directpush_be::admin::devices::{
    DeviceAnswer, DeviceOrder, ListedDevice, ListedPassword, PolicyStanding,
};
use directpush_be::admin::{Answer, Order};

use crate::Administrator;

/// Devices are named as `device list` shows them, or by the id alone.
#[derive(Subcommand)]
pub(crate) enum Device {
    /// List devices, one line each: user, device, order, policy, version, last Sync, last Ping, heartbeat, User-Agent.
    List {
        /// Of this user only.
        #[arg(long)]
        user: Option<String>,
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// All that is known of a device.
    Show {
        user: String,
        device: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Order a device to remove everything it holds. A waiting one hears of it at once.
    Wipe {
        user: String,
        device: String,
        /// Only this account, and what belongs to it (version 16.1; others are kept out instead).
        #[arg(long)]
        account_only: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take the order to wipe back, if the device has not followed it yet; or let one that has come again.
    CancelWipe { user: String, device: String },
    /// Keep a device out.
    Block { user: String, device: String },
    /// Let a device in, whatever the front ends' lists say.
    Allow { user: String, device: String },
    /// Keep a device out until somebody has looked at it.
    Quarantine { user: String, device: String },
    /// Forget a device and all that is kept for it: if it comes again, it starts over.
    Forget { user: String, device: String },
}

/// Passwords that the server makes, each for one device, so that a lost phone does not cost the user's own.
#[derive(Subcommand)]
pub(crate) enum DevicePassword {
    /// Make one; it is shown this once.
    Add {
        name: String,
        /// What to call it: "Alice's iPhone".
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List them, one line each: id, label, made, last used.
    List {
        name: String,
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Remove one. Devices that use it are logged off at once.
    Remove {
        name: String,
        /// As `list` shows it.
        id: String,
    },
}

async fn order(administrator: &Administrator, order: DeviceOrder) -> anyhow::Result<DeviceAnswer> {
    match administrator.order(Order::Device(order)).await? {
        Answer::Device(answer) => Ok(answer),
        _ => bail!("the server answered something else"),
    }
}

async fn listed(administrator: &Administrator, asked: DeviceOrder) -> anyhow::Result<Vec<ListedDevice>> {
    match order(administrator, asked).await? {
        DeviceAnswer::Devices(list) => Ok(list),
        _ => bail!("the server answered something else"),
    }
}

pub(crate) async fn device(administrator: &Administrator, command: Device) -> anyhow::Result<()> {
    let given = match command {
        Device::List { user, json } => {
            let users = match user {
                Some(user) => vec![user],
                None => crate::list(administrator).await?.into_iter().map(|user| user.name).collect(),
            };
            let mut all = Vec::new();
            for user in users {
                all.extend(listed(administrator, DeviceOrder::List { user }).await?);
            }
            return show(&all, json);
        }
        Device::Show { user, device, json } => {
            let found = listed(administrator, DeviceOrder::Show { user, device }).await?;
            let Some(found) = found.first() else { bail!("the server answered something else") };
            return show_one(found, json);
        }
        Device::Wipe { user, device, account_only, yes } => {
            if !yes && !confirmed(&device)? {
                bail!("not ordered");
            }
            DeviceOrder::Wipe { user, device, account_only }
        }
        Device::CancelWipe { user, device } => DeviceOrder::CancelWipe { user, device },
        Device::Block { user, device } => DeviceOrder::Block { user, device },
        Device::Allow { user, device } => DeviceOrder::Allow { user, device },
        Device::Quarantine { user, device } => DeviceOrder::Quarantine { user, device },
        Device::Forget { user, device } => DeviceOrder::Forget { user, device },
    };
    order(administrator, given).await.map(|_| ())
}

fn confirmed(device: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("say --yes to wipe a device without being asked");
    }
    eprint!("Everything on the device will be gone. Type {device} again: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == device)
}

/// Unix seconds as people read them; 0 = never.
fn time(secs: i64) -> String {
    match jiff::Timestamp::from_second(secs) {
        Ok(at) if secs != 0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => "-".to_owned(),
    }
}

fn or_dash(text: &str) -> String {
    // What a device said of itself must not look like another field or line.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

fn policy(standing: PolicyStanding) -> &'static str {
    match standing {
        PolicyStanding::None => "-",
        PolicyStanding::Current => "current",
        PolicyStanding::Due => "due",
    }
}

fn show(list: &[ListedDevice], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(list)?)?;
        return Ok(());
    }
    for it in list {
        let fields = [
            or_dash(&it.user),
            or_dash(&it.device),
            it.order.clone(),
            policy(it.policy).to_owned(),
            or_dash(&it.seen.version),
            time(it.seen.sync),
            time(it.seen.ping),
            it.seen.heartbeat_secs.to_string(),
            or_dash(&it.seen.agent),
        ];
        writeln!(out, "{}", fields.join("\t"))?;
    }
    Ok(())
}

fn show_one(it: &ListedDevice, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(it)?)?;
        return Ok(());
    }
    let seen = &it.seen;
    let mut lines = vec![
        ("user", or_dash(&it.user)),
        ("device", or_dash(&it.device)),
        ("order", it.order.clone()),
        ("policy", policy(it.policy).to_owned()),
        ("first seen", time(seen.first)),
        ("last seen", time(seen.last)),
        ("last Sync", time(seen.sync)),
        ("last Ping", time(seen.ping)),
        ("heartbeat", seen.heartbeat_secs.to_string()),
        ("version", or_dash(&seen.version)),
        ("last command", or_dash(&seen.command)),
        ("front end", or_dash(&seen.front_end)),
        ("User-Agent", or_dash(&seen.agent)),
    ];
    if let Some(wipe) = it.wipe {
        lines.push(("wipe ordered", time(wipe.ordered)));
        lines.push(("wipe acknowledged", time(wipe.acknowledged.unwrap_or(0))));
        lines.push(("wipe failed", time(wipe.failed.unwrap_or(0))));
    }
    for (name, value) in lines {
        writeln!(out, "{name}\t{value}")?;
    }
    for (name, value) in &it.information {
        writeln!(out, "{}\t{}", or_dash(name), or_dash(value))?;
    }
    Ok(())
}

pub(crate) async fn password(administrator: &Administrator, command: DevicePassword) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        DevicePassword::Add { name, label } => {
            let added = order(administrator, DeviceOrder::AddPassword { user: name, label }).await?;
            let DeviceAnswer::Password { password, .. } = added else {
                bail!("the server answered something else");
            };
            writeln!(out, "{password}")?;
        }
        DevicePassword::List { name, json } => {
            let listed = order(administrator, DeviceOrder::ListPasswords { user: name }).await?;
            let DeviceAnswer::Passwords(list) = listed else { bail!("the server answered something else") };
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
                return Ok(());
            }
            for ListedPassword { id, label, created, used } in list {
                writeln!(out, "{id}\t{}\t{}\t{}", or_dash(&label), time(created), time(used))?;
            }
        }
        DevicePassword::Remove { name, id } => {
            order(administrator, DeviceOrder::RemovePassword { user: name, id }).await?;
        }
    }
    Ok(())
}
