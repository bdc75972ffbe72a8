//! `directpush-be fe …` and `tls …`: front ends, and certificates.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use directpush_be::Config;
use directpush_be::admin::front_ends::{FrontEndAnswer, FrontEndOrder, ListedFrontEnd};
use directpush_be::admin::{Answer, Order};
use directpush_be::auth::authority::Issued;
use directpush_be::auth::front_ends::Origin;
use serde_json::json;

use crate::Administrator;

/// Front ends that may ask this back end.
#[derive(Subcommand)]
pub(crate) enum FrontEnd {
    /// Make a front end's secret and certificate. It may ask at once; what is made is shown this once.
    Add {
        /// What it is called: in its fe.toml, in its certificate, in our log.
        name: String,
        /// The host its Call-Backs name, as this back end resolves it.
        #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
        address: String,
        /// The UDP ports it listens on for NOTIFYs.
        #[arg(long = "port", default_value = "2883", value_name = "PORT")]
        ports: Vec<u16>,
        /// It was made at another back end: take the secret in this file, and make no certificate.
        #[arg(long, value_name = "FILE", conflicts_with = "out")]
        secret_file: Option<PathBuf>,
        #[command(flatten)]
        to: To,
    },
    /// Make a new certificate for a front end.
    Renew {
        name: String,
        /// And a new secret: the old one is good for nothing from now on.
        #[arg(long)]
        secret: bool,
        #[command(flatten)]
        to: To,
    },
    /// Remove a front end: nothing it asks is answered any more.
    Remove { name: String },
    /// List all front ends: name, address, ports, where it is known from, until when its certificate is good.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
}

/// Certificates of back ends, signed by this one's own authority.
#[derive(Subcommand)]
pub(crate) enum Tls {
    /// Make this back end's certificate, or the next one.
    Init {
        /// The names and addresses by which front ends reach it.
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Make a certificate for another back end, so that all have one authority.
    Issue {
        /// The names and addresses by which front ends reach it.
        #[arg(required = true)]
        hosts: Vec<String>,
        #[command(flatten)]
        to: To,
    },
}

/// Where what is made goes.
#[derive(Args)]
pub(crate) struct To {
    /// Make this directory, and write the files there. Default: called like what they are for, in this one.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write no files, but one JSON object that has everything.
    #[arg(long, conflicts_with = "out")]
    json: bool,
}

async fn order(administrator: &Administrator, order: FrontEndOrder) -> anyhow::Result<FrontEndAnswer> {
    match administrator.order(Order::FrontEnd(order)).await? {
        Answer::FrontEnd(answer) => Ok(answer),
        _ => bail!("the server answered something else"),
    }
}

pub(crate) async fn front_end(
    administrator: &Administrator,
    config: &Config,
    command: FrontEnd,
) -> anyhow::Result<()> {
    let (order, to) = match command {
        FrontEnd::Add { name, address, ports, secret_file, to } => {
            let secret = if let Some(path) = secret_file {
                let text = fs::read_to_string(&path);
                Some(text.with_context(|| format!("read {}", path.display()))?.trim().to_owned())
            } else {
                to.check(&name)?;
                None
            };
            let (call_back_host, call_back_ports) = (address, ports);
            (FrontEndOrder::Add { name, call_back_host, call_back_ports, secret }, to)
        }
        FrontEnd::Renew { name, secret, to } => {
            to.check(&name)?;
            (FrontEndOrder::Renew { name, secret }, to)
        }
        FrontEnd::Remove { name } => {
            return order(administrator, FrontEndOrder::Remove { name }).await.map(|_| ());
        }
        FrontEnd::List { json } => {
            let FrontEndAnswer::List(list) = order(administrator, FrontEndOrder::List).await? else {
                bail!("the server answered something else");
            };
            return show(&list, json);
        }
    };
    let FrontEndAnswer::Credential { name, secret, certificate } = self::order(administrator, order).await?
    else {
        bail!("the server answered something else");
    };
    let mut out = std::io::stdout().lock();
    if to.json {
        let told = json!({ "name": name, "secret": secret, "certificate": certificate });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(());
    }
    let Some(certificate) = certificate else {
        writeln!(out, "{name} may ask here with the secret and the certificate that it has.")?;
        return Ok(());
    };
    let dir = to.dir(&name);
    let mut files = pem_files(&name, &certificate);
    if let Some(secret) = &secret {
        files.push((format!("{name}.secret"), format!("{secret}\n")));
    }
    write_files(&dir, &files)?;
    writeln!(out, "{} holds what belongs to {name}; it is not kept here. In its fe.toml:\n", dir.display())?;
    write!(out, "{}", snippet(config, &name, secret.is_some()))?;
    Ok(())
}

/// What the front end's `fe.toml` says of us.
fn snippet(config: &Config, name: &str, secret: bool) -> String {
    let dir = "/etc/directpush";
    let mut text = String::new();
    if secret {
        text.push_str(&format!("name = \"{name}\"\nsecret_file = \"{dir}/{name}.secret\"\n\n"));
    }
    let host = &config.mail.host_name;
    let url = match &config.tls {
        Some(tls) => format!("https://{host}:{}", tls.listen.port()),
        None => format!("http://{}", config.http_listen),
    };
    let back_end = config.placement.as_ref().map_or("be-1", |placement| &placement.back_end);
    text.push_str(&format!("[[backend]]\nname = \"{back_end}\"\nurl = \"{url}\"\n\n"));
    text.push_str("# For url = \"https://…\":\n[backend_tls]\n");
    for (key, file) in
        [("ca", "ca.pem"), ("certificate", &format!("{name}.pem")), ("key", &format!("{name}.key"))]
    {
        text.push_str(&format!("{key} = \"{dir}/{file}\"\n"));
    }
    if config.tls.is_none() {
        text = text.replace("[backend_tls]", "# [backend_tls]");
        for key in ["ca", "certificate", "key"] {
            text = text.replace(&format!("\n{key} = "), &format!("\n# {key} = "));
        }
    }
    text
}

pub(crate) async fn tls(administrator: &Administrator, command: Tls) -> anyhow::Result<()> {
    let (hosts, to) = match command {
        Tls::Init { hosts } => (hosts, None),
        Tls::Issue { hosts, to } => {
            to.check(hosts.first().map(String::as_str).unwrap_or_default())?;
            (hosts, Some(to))
        }
    };
    let certify = FrontEndOrder::Certify { hosts: hosts.clone(), install: to.is_none() };
    let FrontEndAnswer::Certificate { issued, installed } = order(administrator, certify).await? else {
        bail!("the server answered something else");
    };
    let mut out = std::io::stdout().lock();
    if let Some(dir) = installed {
        let dir = dir.display();
        writeln!(
            out,
            "{dir} holds the certificate. A server that uses it: reload it (SIGHUP). In be.toml:\n"
        )?;
        writeln!(out, "https_listen = \"0.0.0.0:8443\"\n\n[tls]\ncertificate = \"{dir}/server.pem\"")?;
        writeln!(out, "key = \"{dir}/server.key\"\nclient_ca = \"{dir}/ca.pem\"")?;
        return Ok(());
    }
    let Some(to) = to else { return Ok(()) };
    if to.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&issued)?)?;
        return Ok(());
    }
    let host = hosts.first().map(String::as_str).unwrap_or_default();
    let dir = to.dir(host);
    write_files(&dir, &pem_files("server", &issued))?;
    writeln!(out, "{} holds server.pem, server.key and ca.pem, for [tls] of {host}.", dir.display())?;
    Ok(())
}

impl To {
    fn dir(&self, name: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| name.into())
    }

    /// Before anything is made that would be lost.
    fn check(&self, name: &str) -> anyhow::Result<()> {
        if !self.json && fs::symlink_metadata(self.dir(name)).is_ok() {
            bail!("{} is there already: name another directory with --out", self.dir(name).display());
        }
        Ok(())
    }
}

fn pem_files(name: &str, issued: &Issued) -> Vec<(String, String)> {
    vec![
        (format!("{name}.pem"), issued.certificate.clone()),
        (format!("{name}.key"), issued.key.clone()),
        ("ca.pem".to_owned(), issued.ca.clone()),
    ]
}

/// For this user alone.
fn write_files(dir: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(dir);
    made.with_context(|| format!("make the directory {}", dir.display()))?;
    for (name, text) in files {
        let path = dir.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn show(list: &[ListedFrontEnd], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(list)?)?;
        return Ok(());
    }
    for front_end in list {
        let ports: Vec<String> = front_end.call_back_ports.iter().map(u16::to_string).collect();
        let origin = match front_end.origin {
            Origin::Configured => "be.toml",
            Origin::Added => "added",
        };
        let until = front_end.certificate_until.and_then(|secs| jiff::Timestamp::from_second(secs).ok());
        let until = until.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
        let ListedFrontEnd { name, call_back_host, .. } = front_end;
        writeln!(out, "{name}\t{call_back_host}\t{}\t{origin}\t{until}", ports.join(","))?;
    }
    Ok(())
}
