//! The log of one device, in the manner of the article's `Ping Exchange Server 1.txt`.
//!
//! Each request is the POST line as Windows Mobile wrote it (without a leading slash) and its
//! `MS-ASProtocolVersion`, with the time; then what came back, after how long, and what the device makes of it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use directpush_common::{
    eas::{header, ping::PingResponse},
    wbxml::{Contents, Limits, dump_bytes},
};
use tokio::time::Instant;

use crate::{
    core::{News, Phone, Request, Response, Task},
    drive::Observer,
};

/// The files that are kept, as the article has them: x = 1, 2, 3.
const FILES_KEPT: u32 = 3;

/// Writes what one device says and hears.
pub struct DeviceLog<W> {
    out: W,
    /// Whether bodies are shown.
    bodies: bool,
    begun: Option<Instant>,
}

impl DeviceLog<File> {
    /// `Ping Exchange Server 1.txt` in `dir`; the ones before become 2 and 3.
    pub fn create(dir: &Path, bodies: bool) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let name = |n: u32| dir.join(format!("Ping Exchange Server {n}.txt"));
        for n in (1..FILES_KEPT).rev().filter(|n| name(*n).exists()) {
            fs::rename(name(n), name(n + 1))?;
        }
        Ok(Self::new(File::create(name(1))?, bodies))
    }
}

impl<W: Write> DeviceLog<W> {
    /// A log that goes to `out`.
    pub fn new(out: W, bodies: bool) -> Self {
        Self { out, bodies, begun: None }
    }

    fn write(&mut self, text: &str) {
        // A log that cannot be written must not stop the device.
        if let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            tracing::debug!(%error, "the device's log");
        }
    }

    fn took(&mut self, at: Instant) -> f64 {
        self.begun.take().map_or(0.0, |begun| at.saturating_duration_since(begun).as_secs_f64())
    }
}

/// The time, as logs of devices have it.
pub fn time_of_day() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S.%3f").to_string()
}

/// What a Ping's answer means, in a few words.
pub fn ping_words(body: &[u8]) -> String {
    match PingResponse::decode(body, Limits::default()) {
        Ok(PingResponse::Changed(folders)) => format!("Ping status = 2: changed: {}", folders.join(", ")),
        Ok(PingResponse::HeartbeatOutOfRange(bound)) => {
            format!("Ping status = 5: the server grants a heartbeat of {bound} s")
        }
        Ok(PingResponse::TooManyFolders(max)) => format!("Ping status = 6: at most {max} folders"),
        Ok(response) => {
            let words = match &response {
                PingResponse::Expired => "the heartbeat passed, nothing changed",
                PingResponse::MissingParameters => "send interval and folders again",
                PingResponse::Syntax => "the server does not understand the request",
                PingResponse::FolderSyncRequired => "the hierarchy changed, FolderSync first",
                PingResponse::ServerError => "trouble on the server",
                _ => "refused",
            };
            format!("Ping status = {}: {words}", response.status_code())
        }
        Err(error) => format!("no answer to Ping: {error}"),
    }
}

impl<W: Write + Send> Observer for DeviceLog<W> {
    fn sent(&mut self, phone: &Phone, request: &Request) {
        self.begun = Some(Instant::now());
        let mut text = format!("=-=-=- {} -=-=-=\r\n", time_of_day());
        let _ = write!(text, "{} {}\r\n", request.method, request.target.trim_start_matches('/'));
        let _ = write!(text, "{}: {}\r\n", header::PROTOCOL_VERSION, phone.version());
        match &request.task {
            Task::Ping(secs) if request.body.is_empty() => {
                let _ = write!(text, "(no body: as the last time, heartbeat {secs} s)\r\n");
            }
            Task::Ping(secs) => {
                let _ = write!(text, "(heartbeat {secs} s)\r\n");
            }
            _ => {}
        }
        if self.bodies && !request.body.is_empty() {
            let _ = write!(text, "{}\r\n", dump_bytes(&request.body, Contents::Shown));
        }
        self.write(&text);
    }

    fn received(&mut self, at: Instant, request: &Request, response: &Response) {
        let took = self.took(at);
        let mut text = format!("{} HTTP {} after {took:.3} s", time_of_day(), response.status);
        if let Some(secs) = response.retry_after() {
            let _ = write!(text, ", Retry-After: {secs}");
        }
        text.push_str("\r\n");
        if matches!(request.task, Task::Ping(_)) && response.status == 200 {
            let _ = write!(text, "{}\r\n", ping_words(&response.body));
        }
        if self.bodies && !response.body.is_empty() {
            let _ = write!(text, "{}\r\n", dump_bytes(&response.body, Contents::Shown));
        }
        self.write(&text);
    }

    fn applied(&mut self, phone: &Phone, news: &[News]) {
        let mut text = String::new();
        for news in news {
            let (what, folder, item) = match news {
                News::Added { folder, item } => ("new", folder, item),
                News::Changed { folder, item } => ("changed", folder, item),
                News::Removed { folder, item } => ("gone", folder, item),
            };
            let known = phone.mailbox().folders.get(folder.as_str());
            let held = known.and_then(|known| known.items.get(item.as_str()));
            let subject = held.map(|held| held.subject.escape_debug().to_string()).unwrap_or_default();
            let name = known.map(|known| known.name.escape_debug().to_string()).unwrap_or_default();
            let _ = write!(text, "{what}: {name} {item} \"{subject}\"\r\n");
        }
        self.write(&text);
    }

    fn lost(&mut self, request: &Request, error: &io::Error) {
        let took = self.took(Instant::now());
        let text = format!("{} {} lost after {took:.3} s: {error}\r\n", time_of_day(), request.task.name());
        self.write(&text);
    }
}

/// Two logs at once: the screen and the file.
impl<A: Observer, B: Observer> Observer for (A, Option<B>) {
    fn sent(&mut self, phone: &Phone, request: &Request) {
        self.0.sent(phone, request);
        self.1.iter_mut().for_each(|log| log.sent(phone, request));
    }

    fn received(&mut self, at: Instant, request: &Request, response: &Response) {
        self.0.received(at, request, response);
        self.1.iter_mut().for_each(|log| log.received(at, request, response));
    }

    fn applied(&mut self, phone: &Phone, news: &[News]) {
        self.0.applied(phone, news);
        self.1.iter_mut().for_each(|log| log.applied(phone, news));
    }

    fn lost(&mut self, request: &Request, error: &io::Error) {
        self.0.lost(request, error);
        self.1.iter_mut().for_each(|log| log.lost(request, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Kind, Profile};

    #[test]
    fn the_log_shows_the_articles_lines() {
        let id = "6F24CAD599A5BF1A690246B8C68FAE8D";
        let profile = Profile::new("administrator", id, Kind::WindowsMobile).unwrap();
        let mut phone = Phone::new(profile);
        let mut request = phone.next_request(directpush_common::clock::Moment(0)).unwrap();
        request.method = "POST";
        request.task = Task::Ping(480);
        request.target = format!(
            "/Microsoft-Server-ActiveSync?User=administrator&DeviceId={id}&DeviceType=PocketPC&Cmd=Ping"
        );
        let mut out = Vec::new();
        let mut log = DeviceLog::new(&mut out, false);
        log.sent(&phone, &request);
        let body = PingResponse::Changed(vec!["5".to_owned()]).encode();
        log.received(Instant::now(), &request, &Response { status: 200, headers: Vec::new(), body });
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "POST Microsoft-Server-ActiveSync?User=administrator&DeviceId=6F24CAD599A5BF1A690246B8C68FAE8D&DeviceType=PocketPC&Cmd=Ping"
        );
        assert_eq!(lines[2], "MS-ASProtocolVersion: 2.5");
        assert!(lines[4].contains("HTTP 200"), "{text}");
        assert_eq!(lines[5], "Ping status = 2: changed: 5");
    }

    #[test]
    fn three_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            DeviceLog::create(dir.path(), false).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [1, 2, 3].map(|n| format!("Ping Exchange Server {n}.txt")));
    }
}
