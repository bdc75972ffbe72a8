//! What an administrator does to front ends, and to the certificates of this installation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use directpush_common::httpu::CallBack;
use directpush_common::names::Guid;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

use crate::auth::authority::{Authority, Issued, Use, write_private, write_public};
use crate::auth::front_ends::{FrontEnd, FrontEnds, Origin, new_secret};
use crate::config::{SECRET_CHARS_MIN, is_front_end_name};
use crate::error::WithCauses;
use crate::mailbox::now_secs;

/// Names in a back end's certificate, at most.
const HOSTS_MAX: usize = 100;

/// Something to do.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FrontEndOrder {
    Add {
        name: String,
        call_back_host: String,
        call_back_ports: Vec<u16>,
        /// One that it has from another back end already, and with it its certificate; none = both are made.
        secret: Option<String>,
    },
    /// A new certificate, and a new secret if wanted.
    Renew {
        name: String,
        secret: bool,
    },
    Remove {
        name: String,
    },
    List,
    /// A certificate for a back end: for this one if it is to be installed here.
    Certify {
        hosts: Vec<String>,
        install: bool,
    },
}

/// The answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrontEndAnswer {
    Done,
    /// What is shown this once.
    Credential {
        name: String,
        secret: Option<String>,
        certificate: Option<Issued>,
    },
    /// A certificate, and where it was installed.
    Certificate {
        issued: Issued,
        installed: Option<PathBuf>,
    },
    List(Vec<ListedFrontEnd>),
}

/// A front end as `fe list` shows it.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListedFrontEnd {
    pub name: String,
    pub call_back_host: String,
    pub call_back_ports: Vec<u16>,
    pub origin: Origin,
    /// Unix seconds.
    pub certificate_until: Option<i64>,
}

/// Carries an order out.
pub(super) async fn execute(
    front_ends: Arc<FrontEnds>,
    state_dir: PathBuf,
    order: FrontEndOrder,
) -> Result<FrontEndAnswer, String> {
    // Files and keys: off the async workers.
    let done = tokio::task::spawn_blocking(move || attempt(&front_ends, &state_dir, order)).await;
    done.map_err(|error| error.to_string())?
}

fn attempt(front_ends: &FrontEnds, state_dir: &Path, order: FrontEndOrder) -> Result<FrontEndAnswer, String> {
    let told = |error| WithCauses(&error).to_string();
    let failed = |error: std::io::Error| error.to_string();
    let certify = |name: &str, purpose| {
        let authority = Authority::open(state_dir, now_secs())?;
        authority.issue(&[name.to_owned()], purpose, now_secs())
    };
    match order {
        FrontEndOrder::Add { name, call_back_host, call_back_ports, secret } => {
            if !is_front_end_name(&name) || ServerName::try_from(name.as_str()).is_err() {
                return Err(format!("{name:?} cannot be a front end: letters, digits, hyphens and dots"));
            }
            let call_back = |port: &u16| CallBack::new(&call_back_host, *port, Guid([0; 16])).is_ok();
            if call_back_ports.is_empty() || !call_back_ports.iter().all(call_back) {
                return Err(format!("{call_back_host:?} with these ports cannot be in a Call-Back"));
            }
            if front_ends.named(&name).is_some() {
                return Err(format!("there is a front end {name} already"));
            }
            let (new, certificate) = match &secret {
                Some(secret) if secret.chars().count() < SECRET_CHARS_MIN => {
                    return Err(format!("a secret has at least {SECRET_CHARS_MIN} characters"));
                }
                Some(secret) => (secret.clone(), None),
                None => (new_secret().map_err(told)?, Some(certify(&name, Use::FrontEnd).map_err(failed)?)),
            };
            let mut front_end = FrontEnd::added(name.clone(), &new, &call_back_host, call_back_ports);
            if let Some(issued) = &certificate {
                front_end = front_end.with_certificate(issued.until);
            }
            front_ends.put(front_end).map_err(told)?;
            tracing::info!(front_end = name, "front end added");
            let secret = secret.is_none().then_some(new);
            Ok(FrontEndAnswer::Credential { name, secret, certificate })
        }
        FrontEndOrder::Renew { name, secret } => {
            let found = front_ends.named(&name).ok_or_else(|| format!("there is no front end {name}"))?;
            let configured = found.origin == Origin::Configured;
            if configured && secret {
                return Err(format!("{name} stands in be.toml: write another secret there, and restart"));
            }
            let issued = certify(&name, Use::FrontEnd).map_err(failed)?;
            let secret = secret.then(new_secret).transpose().map_err(told)?;
            if !configured {
                let mut renewed = (*found).clone().with_certificate(issued.until);
                if let Some(secret) = &secret {
                    renewed = renewed.with_secret(secret);
                }
                front_ends.put(renewed).map_err(told)?;
            }
            tracing::info!(front_end = name, secret = secret.is_some(), "front end renewed");
            Ok(FrontEndAnswer::Credential { name, secret, certificate: Some(issued) })
        }
        FrontEndOrder::Remove { name } => {
            front_ends.remove(&name).map_err(told)?;
            tracing::info!(front_end = name, "front end removed");
            Ok(FrontEndAnswer::Done)
        }
        FrontEndOrder::List => {
            let listed = |front_end: Arc<FrontEnd>| ListedFrontEnd {
                name: front_end.name.clone(),
                call_back_host: front_end.call_back_host.clone(),
                call_back_ports: front_end.call_back_ports.clone(),
                origin: front_end.origin,
                certificate_until: front_end.certificate_until,
            };
            Ok(FrontEndAnswer::List(front_ends.list().into_iter().map(listed).collect()))
        }
        FrontEndOrder::Certify { hosts, install } => {
            if hosts.is_empty() || hosts.len() > HOSTS_MAX {
                return Err(format!("a certificate is for 1 to {HOSTS_MAX} hosts"));
            }
            if let Some(bad) = hosts.iter().find(|host| ServerName::try_from(host.as_str()).is_err()) {
                return Err(format!("{bad:?} is neither a host's name nor an address"));
            }
            let authority = Authority::open(state_dir, now_secs()).map_err(failed)?;
            let issued = authority.issue(&hosts, Use::BackEnd, now_secs()).map_err(failed)?;
            let dir = Authority::dir(state_dir);
            if install {
                // The key first: TLS that reads in between finds two that do not belong together, and keeps what it has.
                let written = write_private(&dir.join("server.key"), &issued.key)
                    .and_then(|()| write_public(&dir.join("server.pem"), &issued.certificate));
                written.map_err(failed)?;
            }
            tracing::info!(?hosts, install, "certificate made");
            Ok(FrontEndAnswer::Certificate { issued, installed: install.then_some(dir) })
        }
    }
}
