#![forbid(unsafe_code)]
//! `directpush-be`: arguments, configuration, logging; everything else is the library.

mod command;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use directpush_be::admin::{self, Answer, Listed, Order, QuotaParts};
use directpush_be::maintenance::{self, Bar, Summary};
use directpush_be::{Config, Offline};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Direct Push back end: mailboxes over WebDAV and LMTP, subscriptions, UDP NOTIFY.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Begin with:
  directpush-be --print-config > be.toml      the commented settings; add a [[front_end]]
  directpush-be --config be.toml --check-config
  directpush-be --config be.toml user add alice@example.com
  directpush-be --config be.toml

Exit codes: 0 done, 1 failed, 2 a mistake in the arguments or the configuration."
)]
struct Cli {
    /// The settings.
    #[arg(long, global = true, env = "DIRECTPUSH_BE_CONFIG", default_value = "/etc/directpush/be.toml")]
    config: PathBuf,
    /// Check the settings, say all mistakes at once, and stop.
    #[arg(long)]
    check_config: bool,
    /// Write the commented default settings, and stop.
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT (the default).
    Run,
    /// Users: whether a server runs on this configuration or not.
    #[command(subcommand)]
    User(User),
    /// Mail that waits to be sent: whether a server runs or not.
    #[command(subcommand)]
    Queue(command::Queue),
    /// Front ends: their secrets and certificates, whether a server runs or not.
    #[command(subcommand)]
    Fe(command::front_end::FrontEnd),
    /// Phones: what they are, what they did last, and what is ordered for them, whether a server runs or not.
    #[command(subcommand)]
    Device(command::device::Device),
    /// Certificates of back ends.
    #[command(subcommand)]
    Tls(command::front_end::Tls),
    /// Check everything the store keeps, while no server runs on it. Exit code 1: damaged, or something is lost.
    Fsck {
        /// Repair what can be repaired, and drop bodies that nothing uses.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        form: Telling,
    },
    /// Make the index anew out of snapshot and journal, while no server runs on it.
    Rebuild(Telling),
    /// Back the store up into a directory, whether a server runs or not. One that holds an older backup gets what is new.
    Backup {
        /// On the server's host; best on another disk. Its user must be able to write there.
        target: PathBuf,
        #[command(flatten)]
        form: Telling,
    },
    /// Bring a backup back, where there is no store yet.
    Restore {
        /// What `backup` has written.
        source: PathBuf,
        /// Bring everything else back, where bodies in the backup are damaged or gone; the log names them.
        #[arg(long)]
        leave_out_damaged: bool,
        #[command(flatten)]
        form: Telling,
    },
    /// Write mailboxes as Maildir or mbox, whether a server runs or not. What is there already is not written again.
    Export {
        #[command(flatten)]
        what: command::files::Exporting,
        #[command(flatten)]
        form: Telling,
    },
    /// Bring mail from a Maildir or an mbox, whether a server runs or not. What was imported before is not added again. Exit code 1:
    /// something was passed over.
    Import {
        #[command(flatten)]
        what: command::files::Importing,
        #[command(flatten)]
        form: Telling,
    },
    /// What the store takes on the disk, in bytes.
    Usage(Telling),
    /// Measure the store in a directory of its own, which is made and removed; `cargo xtask bench` asks for it.
    #[command(hide = true)]
    BenchStore {
        /// Where; must not be there.
        dir: PathBuf,
        #[arg(long, default_value_t = 1_000_000)]
        items: u64,
        /// Only the whole back end, not the store by itself.
        #[arg(long)]
        back_end_only: bool,
    },
}

/// How a summary is told.
#[derive(Args, Clone, Copy)]
struct Telling {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum User {
    /// Add a user; the password is asked for on the terminal, or read as one line from standard input.
    Add {
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Set a new password. Waiting devices are told, and old log-ons end at once.
    Passwd {
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Write the hash of a user's password, for `user add --hashed` at another back end. Keep it from others' eyes.
    Hash { name: String },
    /// Switch what a user may do, say how the person is called, or set what the mailbox may hold.
    Set(Switches),
    /// What a user's mailbox holds and may hold.
    Quota {
        name: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Remove a user and the whole mailbox.
    Remove {
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Passwords for single devices.
    #[command(subcommand)]
    DevicePassword(command::device::DevicePassword),
    /// Addresses beside a user's name: mail to them comes to the user, who may send as them.
    #[command(subcommand)]
    Alias(command::Alias),
    /// Automatic replies while a user is away.
    #[command(subcommand)]
    Oof(command::oof::Command),
    /// List all users.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Form {
    /// What is read is no password but its argon2 hash from another server, in PHC form ($argon2id$v=19$…).
    #[arg(long)]
    hashed: bool,
}

#[derive(Args)]
struct Switches {
    name: String,
    /// Direct Push: whether Pings are told of changes.
    #[arg(long)]
    push: Option<Switch>,
    /// User-initiated sync: whether devices may do anything at all.
    #[arg(long)]
    sync: Option<Switch>,
    /// Whether the user is disabled.
    #[arg(long)]
    disabled: Option<Switch>,
    /// How the person is called, as others see it; "" takes it back.
    #[arg(long = "name", value_name = "TEXT")]
    display_name: Option<String>,
    /// Whether the person is left out of the directory.
    #[arg(long)]
    hidden: Option<Switch>,
    /// Whether the own password is no good for devices, only those of `user device-password`.
    #[arg(long)]
    device_passwords_only: Option<Switch>,
    /// What is demanded of the user's devices: the name of a policy in be.toml, "none", or "default".
    #[arg(long)]
    policy: Option<String>,
    #[command(flatten)]
    quota: command::OwnQuota,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Switch {
    fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

fn main() -> ExitCode {
    // Before anything could choose another: one cryptographic provider for the whole process. It fails only when one is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    if cli.print_config {
        print!("{}", directpush_be::config::TEMPLATE);
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprint!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    if cli.check_config {
        println!("{}: no mistakes", cli.config.display());
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("directpush-be: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match cli.command {
        None | Some(Command::Run) => runtime.block_on(serve(config)),
        Some(Command::User(command)) => runtime.block_on(user(&config, command)),
        Some(Command::Queue(command)) => {
            runtime.block_on(with(&config, async |by| command::queue(by, command).await))
        }
        Some(Command::Fe(command)) => runtime
            .block_on(with(&config, async |by| command::front_end::front_end(by, &config, command).await)),
        Some(Command::Device(command)) => {
            runtime.block_on(with(&config, async |by| command::device::device(by, command).await))
        }
        Some(Command::Tls(command)) => {
            runtime.block_on(with(&config, async |by| command::front_end::tls(by, command).await))
        }
        Some(command) => match runtime.block_on(maintain(&config, command)) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directpush-be: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).context("log_level cannot be read")?;
    // Colours are for a terminal; a log file or journald gets plain text.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let running = directpush_be::run(config, shutdown.clone()).await?;
    if running.server().auth.front_ends().list().is_empty() {
        tracing::warn!("there is no front end, so devices cannot be served: directpush-be fe add");
    }
    let reloader = running.reloader();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reloader.reload().await;
        }
    });
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for SIGINT")?,
    }
    shutdown.cancel();
    running.finished().await?;
    Ok(())
}

/// Sends an order to the running server; without one, opens the store.
enum Administrator {
    Server(PathBuf),
    Store(Box<Offline>),
}

impl Administrator {
    async fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(path) = &config.admin_socket
            && admin::ask(path, &Order::ListUsers { after: Some("\u{10ffff}".into()) }).await?.is_some()
        {
            return Ok(Self::Server(path.clone()));
        }
        let offline = Offline::open(config).await;
        let offline = offline.context("no server answers, and the store cannot be opened")?;
        Ok(Self::Store(Box::new(offline)))
    }

    async fn order(&self, order: Order) -> anyhow::Result<Answer> {
        Ok(self.order_with(order, Bytes::new()).await?.0)
    }

    /// The same with the bytes that follow the order, and those that follow its answer.
    async fn order_with(&self, order: Order, payload: Bytes) -> anyhow::Result<(Answer, Bytes)> {
        let answer = match self {
            Self::Server(path) => {
                let asked = admin::ask_with(path, &order, payload).await?;
                asked.context("the server went away meanwhile: run it again")?
            }
            Self::Store(offline) => admin::execute_with(&offline.administered, order, payload).await,
        };
        match answer {
            (Answer::Refused(why), _) => bail!(why),
            answer => Ok(answer),
        }
    }

    async fn done(self) -> anyhow::Result<()> {
        if let Self::Store(offline) = self {
            offline.close().await?;
        }
        Ok(())
    }
}

/// Looks after the store. Answers whether all is well.
async fn maintain(config: &Config, command: Command) -> anyhow::Result<bool> {
    let filter = tracing_subscriber::EnvFilter::new("warn");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    match command {
        Command::Fsck { repair, form } => {
            let report = maintenance::fsck(config, repair, Bar::new()).await?;
            tell(&report, form)?;
            return Ok(report.is_clean());
        }
        Command::Rebuild(form) => {
            maintenance::rebuild(config, Bar::new()).await?;
            tell(&(), form)?;
        }
        Command::Backup { target, form } => {
            let target = std::path::absolute(target)?;
            let asked = match &config.admin_socket {
                Some(path) => admin::ask(path, &Order::Backup { target: target.clone() }).await?,
                None => None,
            };
            match asked {
                Some(Answer::BackedUp(copied)) => tell(&copied, form)?,
                Some(Answer::Refused(why)) => bail!(why),
                Some(_) => bail!("the server answered something else"),
                None => tell(&maintenance::backup(config, &target, Bar::new()).await?, form)?,
            }
        }
        Command::Restore { source, leave_out_damaged, form } => {
            tell(&maintenance::restore(config, source, leave_out_damaged, Bar::new()).await?, form)?;
        }
        Command::Export { what, form } => {
            let administrator = Administrator::find(config).await?;
            let exported = command::files::run_export(&administrator, what).await;
            administrator.done().await?;
            tell(&exported?, form)?;
        }
        Command::Import { what, form } => {
            let administrator = Administrator::find(config).await?;
            let imported = command::files::run_import(config, &administrator, what).await;
            administrator.done().await?;
            let imported = imported?;
            tell(&imported, form)?;
            return Ok(imported.is_whole());
        }
        Command::Usage(form) => {
            let usage = with(config, async |by| by.order(Order::Usage).await).await?;
            let Answer::Usage(usage) = usage else { bail!("the server answered something else") };
            tell(&usage, form)?;
        }
        Command::BenchStore { dir, items, back_end_only } => {
            let figures = maintenance::bench(config, dir, items, !back_end_only, Bar::new()).await?;
            println!("{}", serde_json::to_string_pretty(&figures)?);
        }
        Command::Run
        | Command::User(_)
        | Command::Queue(_)
        | Command::Fe(_)
        | Command::Device(_)
        | Command::Tls(_) => {}
    }
    Ok(true)
}

fn tell(summary: &impl Summary, form: Telling) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if form.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary.json())?)?;
    } else {
        write!(out, "{}", summary.text())?;
    }
    Ok(())
}

async fn user(config: &Config, command: User) -> anyhow::Result<()> {
    let order = match command {
        User::Add { name, form: Form { hashed } } => {
            Order::AddUser { name, password: new_password()?, hashed }
        }
        User::Passwd { name, form: Form { hashed } } => {
            Order::Password { name, password: new_password()?, hashed }
        }
        User::Set(switches) => {
            let Switches { name, display_name, quota, .. } = switches;
            let policy = switches.policy.map(|name| if name == "default" { String::new() } else { name });
            let on = |switch: Option<Switch>| switch.map(Switch::is_on);
            let (push, sync, disabled) = (on(switches.push), on(switches.sync), on(switches.disabled));
            let (hidden, device_passwords_only) = (on(switches.hidden), on(switches.device_passwords_only));
            let parts = quota.parts();
            let switches = [push, sync, disabled, hidden, device_passwords_only].iter().any(Option::is_some)
                || display_name.is_some()
                || policy.is_some();
            let quota =
                (parts != QuotaParts::default()).then(|| Order::SetQuota { name: name.clone(), parts });
            let switches = switches.then_some(Order::SetUser {
                name,
                push,
                sync,
                disabled,
                display_name,
                hidden,
                device_passwords_only,
                policy,
            });
            if quota.is_none() && switches.is_none() {
                bail!("nothing to set: see --help for what can be");
            }
            // What may be refused comes first.
            return all(config, quota.into_iter().chain(switches)).await;
        }
        User::Quota { name, json } => {
            return with(config, async |by| command::quota(by, name, json).await).await;
        }
        User::Remove { name, yes } => {
            if !yes && !confirmed(&name)? {
                bail!("not removed");
            }
            Order::RemoveUser { name }
        }
        User::Hash { name } => {
            let told = with(config, async |by| by.order(Order::Hash { name }).await).await?;
            let Answer::Hash(hash) = told else { bail!("the server answered something else") };
            writeln!(std::io::stdout(), "{hash}")?;
            return Ok(());
        }
        User::DevicePassword(command) => {
            return with(config, async |by| command::device::password(by, command).await).await;
        }
        User::Alias(command) => {
            return with(config, async |by| command::alias(by, command).await).await;
        }
        User::Oof(command) => {
            let administrator = Administrator::find(config).await?;
            let done = command::oof::run(&administrator, command).await;
            administrator.done().await?;
            return done;
        }
        User::List { json } => {
            return show(&with(config, list).await?, json);
        }
    };
    all(config, [order]).await
}

/// Gives orders, one after the other, up to the first that is refused.
async fn all(config: &Config, orders: impl IntoIterator<Item = Order>) -> anyhow::Result<()> {
    let administrator = Administrator::find(config).await?;
    let mut done = Ok(());
    for order in orders {
        done = administrator.order(order).await.map(|_| ());
        if done.is_err() {
            break;
        }
    }
    administrator.done().await?;
    done
}

/// Runs a command with an administrator, and makes last what it did.
async fn with<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Administrator) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let administrator = Administrator::find(config).await?;
    let done = work(&administrator).await;
    administrator.done().await?;
    done
}

async fn list(administrator: &Administrator) -> anyhow::Result<Vec<Listed>> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let after = all.last().map(|user| user.name.clone());
        let Answer::Users { users, more } = administrator.order(Order::ListUsers { after }).await? else {
            bail!("the server answered something else");
        };
        all.extend(users);
        if !more {
            return Ok(all);
        }
    }
}

fn show(users: &[Listed], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(users)?)?;
        return Ok(());
    }
    for user in users {
        let mut notes = Vec::new();
        for (note, applies) in [
            ("disabled", user.disabled),
            ("push off", !user.push),
            ("sync off", !user.sync),
            ("hidden", user.hidden),
        ] {
            if applies {
                notes.push(note);
            }
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
        let name =
            if user.display_name.is_empty() { String::new() } else { format!("  {}", user.display_name) };
        writeln!(out, "{}{name}{notes}", user.name)?;
    }
    Ok(())
}

/// Never an argument: arguments can be read by every user of the host.
fn new_password() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if password != rpassword::prompt_password("Again: ")? {
            bail!("the two are not the same");
        }
        return Ok(password);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("no password came on standard input");
    }
    Ok(password.to_owned())
}

fn confirmed(name: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("say --yes to remove a user without being asked");
    }
    eprint!("Remove {name} and all their mail for good? Type the name again: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == name)
}
