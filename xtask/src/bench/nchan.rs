//! nginx with nchan: one channel per device, long polls, no buffered messages.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::measure::family;
use crate::steps::find_program;

/// Where Debian's `libnginx-mod-nchan` puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const START_MAX: Duration = Duration::from_secs(10);

/// A running nginx; it ends with this value.
pub(crate) struct Nchan {
    process: Child,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

/// The program, or what to install.
pub(crate) fn find() -> Result<PathBuf, String> {
    match find_program("nginx") {
        Some(nginx) if Path::new(MODULE).is_file() => Ok(nginx),
        _ => Err("there is no nginx with nchan (install nginx libnginx-mod-nchan)".to_owned()),
    }
}

impl Nchan {
    pub(crate) fn start(nginx: &Path, open_files_max: usize) -> Result<Self> {
        let folder = TempDir::with_prefix("bench-nchan-")?;
        let address = free_address()?;
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config(address, open_files_max, is_root()))?;
        let process = Command::new(nginx)
            .args(["-e", "error.log", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let nchan = Self { process, address, folder };
        let mut waited = Duration::ZERO;
        while TcpStream::connect(address).is_err() {
            if waited > START_MAX {
                let log = fs::read_to_string(nchan.folder.path().join("error.log")).unwrap_or_default();
                bail!("nginx does not listen:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
            waited += Duration::from_millis(20);
        }
        Ok(nchan)
    }

    /// Master and workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        family(self.process.id())
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        // The master ends its workers on SIGTERM; a kill would leave them.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn config(address: SocketAddr, open_files_max: usize, root: bool) -> String {
    let connections = open_files_max.saturating_sub(200);
    let user = if root { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;
load_module {MODULE};
worker_processes 2;
worker_rlimit_nofile {open_files_max};
pid nginx.pid;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 256M;
    server {{
        listen {address} backlog=4096;
        location ~ ^/sub/([0-9]+)$ {{
            nchan_subscriber longpoll;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_subscriber_timeout 0;
        }}
        location ~ ^/pub/([0-9]+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_message_buffer_length 0;
        }}
        location = /status {{ nchan_stub_status; }}
    }}
}}
"
    )
}

/// An address of the loopback that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}
