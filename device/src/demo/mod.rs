//! `directpush demo`: both servers, a phone and a message, in one process; the whole story with its times.
//!
//! Nothing is staged: the back end keeps a real sled store in a temporary directory, the message comes by LMTP, and
//! what is shown of the wire between the servers passed a relay that copies it.

pub mod page;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use directpush_common::eas::{Version, ping::PingResponse};
use directpush_common::wbxml::Limits;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::page::Page;
use crate::{
    core::{Kind, Phone, Profile, Task},
    drive::{Clock, Drive, basic, open_gate},
    http::Server,
    lmtp::Lmtp,
    load::mail::message,
    pair::{Backend, Frontend, NOTIFY_PORT, Seat},
    relay::{HttpRelay, Sight, UdpRelay},
    reporter::{PhoneEvent, Reporter},
};

const USER: &str = "alice@example.com";
const PASSWORD: &str = "direct-push";
const SUBJECT: &str = "Direct Push is just a heartbeat away";
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `directpush demo`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Leaves the servers up and says what to type into a phone
    #[arg(long)]
    keep: bool,
    /// The protocol version of the device: 2.5, 12.0, 12.1, 14.0 or 14.1
    #[arg(long, default_value = "14.1")]
    protocol: Version,
}

/// Something that happened on the stage.
#[derive(Clone, Debug)]
pub enum Event {
    /// Between the servers.
    Wire(Sight),
    /// At the phone.
    Phone(PhoneEvent),
}

impl From<PhoneEvent> for Event {
    fn from(event: PhoneEvent) -> Self {
        Self::Phone(event)
    }
}

impl Event {
    fn at(&self) -> Instant {
        match self {
            Self::Wire(Sight::Exchange(exchange)) => exchange.asked,
            Self::Wire(Sight::Datagram { at, .. })
            | Self::Phone(
                PhoneEvent::Sent { at, .. }
                | PhoneEvent::Received { at, .. }
                | PhoneEvent::Applied { at, .. }
                | PhoneEvent::Lost { at, .. },
            ) => *at,
        }
    }

    fn is_exchange(&self, method: &str) -> bool {
        matches!(self, Self::Wire(Sight::Exchange(exchange)) if exchange.method() == method)
    }

    /// `POLL` and the front end's own questions, which the story is not about.
    fn is_aside(&self) -> bool {
        self.is_exchange("POLL") || self.is_exchange("OPTIONS")
    }
}

/// Tells the story. An error names the step that failed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut page = Page::default();
    let begun = Instant::now();
    page.title("Direct Push, from the mail's arrival to the phone");
    let mut stage = Stage::build(&page).await.context("set the stage")?;
    let ended = tell(&options, &mut page, &mut stage).await;
    if ended.is_ok() {
        println!();
        page.good(&format!("the whole story took {:.2} s", begun.elapsed().as_secs_f64()));
    }
    if ended.is_ok() && options.keep {
        keep(&page, &stage).await?;
    }
    stage.strike().await?;
    ended
}

/// The servers, the relays between them, and the phone once it runs.
struct Stage {
    backend: Backend,
    frontend: Frontend,
    _relays: (HttpRelay, UdpRelay),
    events: mpsc::UnboundedReceiver<Event>,
    tell: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
    phone: Option<tokio::task::JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Stage {
    async fn build(page: &Page) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("directpush-demo-").tempdir()?;
        let seat = Seat::new("fe-1", true);
        let (tell, events) = mpsc::unbounded_channel();
        let (sights, mut seen) = mpsc::unbounded_channel();
        let wire = tell.clone();
        tokio::spawn(async move {
            while let Some(sight) = seen.recv().await {
                if wire.send(Event::Wire(sight)).is_err() {
                    break;
                }
            }
        });
        let backend = Backend::start(Backend::config(dir.path(), std::slice::from_ref(&seat))).await?;
        let http = HttpRelay::start(backend.http(), sights.clone()).await?;
        let here = (seat.call_back, NOTIFY_PORT).into();
        let udp = UdpRelay::start(here, (seat.listens, NOTIFY_PORT).into(), 0, sights).await;
        let udp = udp.with_context(|| format!("a relay for NOTIFY at {here}"))?;
        let frontend = Frontend::start(Frontend::config(&seat, http.address)).await?;
        backend.add_user(USER, PASSWORD).await?;
        page.fact("back end", &format!("http://{}, LMTP on {}", backend.http(), shown(&backend.lmtp()?)));
        page.fact("", &format!("a sled store in {}", dir.path().display()));
        page.fact("front end", &format!("http://{}, NOTIFY on UDP {here}", frontend.http()?));
        page.fact("user", USER);
        let relays = (http, udp);
        let stop = CancellationToken::new();
        Ok(Self { backend, frontend, _relays: relays, events, tell, stop, phone: None, dir })
    }

    fn start_phone(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut profile = Profile::new(USER, "6F24CAD599A5BF1A690246B8C68FAE8D", Kind::WindowsMobile)?;
        profile.version = options.protocol;
        let (_, wishes) = mpsc::channel(1);
        let drive = Drive {
            server: Server::at(self.frontend.http()?),
            source: None,
            authorization: basic(USER, PASSWORD),
            observer: Reporter(self.tell.clone()),
            wishes,
            clock: Clock::start(),
            gate: open_gate(),
        };
        let stop = self.stop.clone();
        self.phone = Some(tokio::spawn(async move {
            if let (_, Some(trouble)) = drive.run(Phone::new(profile), stop).await {
                eprintln!("the phone: {trouble}");
            }
        }));
        Ok(())
    }

    /// All events until `last` has come true for one, in the order in which they happened.
    async fn until(
        &mut self,
        what: &str,
        mut last: impl FnMut(&Event) -> bool,
    ) -> anyhow::Result<Vec<Event>> {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        loop {
            let event = match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => bail!("{what}: the stage is empty"),
                Err(_) => bail!("{what}: not within {} s", PATIENCE.as_secs()),
            };
            let done = last(&event);
            if !event.is_aside() {
                events.push(event);
            }
            if done {
                events.sort_by_key(Event::at);
                return Ok(events);
            }
        }
    }

    async fn strike(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        if let Some(phone) = self.phone.take() {
            phone.await?;
        }
        self.frontend.stop().await;
        self.backend.stop().await?;
        self.dir.close().context("remove the temporary store")
    }
}

fn shown(address: &crate::lmtp::LmtpAddress) -> String {
    match address {
        crate::lmtp::LmtpAddress::Tcp(address) => address.to_string(),
        crate::lmtp::LmtpAddress::Unix(path) => path.display().to_string(),
    }
}

async fn tell(options: &Options, page: &mut Page, stage: &mut Stage) -> anyhow::Result<()> {
    page.heading(&format!("1  The phone gets its account (ActiveSync {})", options.protocol));
    page.begin(Instant::now());
    stage.start_phone(options)?;
    let pinging = |event: &Event| matches!(event, Event::Phone(PhoneEvent::Sent { task: Task::Ping(_), .. }));
    let mut events = stage.until("the phone's first Ping", pinging).await?;
    let ping = events.iter().rposition(pinging).map(|n| events.split_off(n)).unwrap_or_default();
    // What passed between the servers on the way here would fill the page.
    for event in events.iter().filter(|event| matches!(event, Event::Phone(_))) {
        page.event(event);
    }

    page.heading("2  It asks to be told when the Inbox changes, and waits");
    page.begin(ping.first().map_or_else(Instant::now, Event::at));
    let events = stage.until("SUBSCRIBE", |event| event.is_exchange("SUBSCRIBE")).await?;
    for event in ping.iter().chain(&events) {
        page.event(event);
    }
    ensure!(events.iter().any(|event| event.is_exchange("PUT")), "the first Ping did not PUT AutdState.xml");
    page.remark(
        "The connection is parked now: a task of 128 bytes, and no timer and no buffer, waits with it.",
    );

    wake(page, stage).await?;
    rest(page, stage).await
}

/// Mail arrives, and the phone has it.
async fn wake(page: &mut Page, stage: &mut Stage) -> anyhow::Result<()> {
    page.heading("3  Mail arrives");
    let mut lmtp = Lmtp::connect(&stage.backend.lmtp()?).await?;
    let mail = message("Bob <bob@example.org>", USER, SUBJECT, "Hello Alice, did your phone just buzz?");
    let sent = Instant::now();
    page.begin(sent);
    let delivered = lmtp.deliver("bob@example.org", &[USER], mail.as_bytes()).await.context("LMTP")?;
    let delivered = delivered.into_iter().next().context("LMTP gave no answer")?;
    ensure!(delivered.is_ok(), "LMTP refused the message: {}", delivered.reply);
    let arrived = |event: &Event| match event {
        Event::Phone(PhoneEvent::Applied { news, .. }) => {
            news.iter().any(|(_, held)| held.as_ref().is_some_and(|held| &*held.subject == SUBJECT))
        }
        _ => false,
    };
    let events = stage.until("the message on the phone", arrived).await?;
    page.line(sent, "MTA → BE", &format!("LMTP: {} bytes for {USER}", mail.len()));
    let (before, after): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.at() < delivered.at);
    for event in before {
        page.event(event);
    }
    page.line(delivered.at, "BE → MTA", &format!("{} (durable)", delivered.reply));
    for event in after {
        page.event(event);
    }

    let datagrams = events.iter().filter(|event| matches!(event, Event::Wire(Sight::Datagram { .. })));
    ensure!(datagrams.count() > 0, "no NOTIFY was sent");
    ensure!(
        events.iter().any(|event| event.is_exchange("UNSUBSCRIBE")),
        "the Ping ended without UNSUBSCRIBE"
    );
    let woken = events.iter().find_map(|event| match event {
        Event::Phone(PhoneEvent::Received { at, task: Task::Ping(_), body, .. }) => {
            let response = PingResponse::decode(body, Limits::default());
            matches!(response, Ok(PingResponse::Changed(_))).then_some(*at)
        }
        _ => None,
    });
    let woken = woken.context("the Ping was not answered with Status 2")?;
    let synced = events.iter().find(|event| arrived(event)).map_or(woken, Event::at);
    let told = events.iter().find_map(|event| match event {
        Event::Wire(Sight::Datagram { at, .. }) => Some(*at),
        _ => None,
    });
    let millis = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    println!();
    let told = told.unwrap_or(delivered.at).min(woken);
    page.good(&format!(
        "{:.2} ms to take the message and make it durable, {:.2} ms more until the phone knew",
        millis(sent, told),
        millis(told, woken)
    ));
    page.good(&format!("{:.2} ms after that the message was on the phone", millis(woken, synced)));
    Ok(())
}

/// The phone waits again, and nothing is written for it.
async fn rest(page: &mut Page, stage: &mut Stage) -> anyhow::Result<()> {
    page.heading("4  And it waits again");
    page.begin(Instant::now());
    let events = stage.until("the next SUBSCRIBE", |event| event.is_exchange("SUBSCRIBE")).await?;
    for event in &events {
        page.event(event);
    }
    let puts = events
        .iter()
        .filter(|event| matches!(event, Event::Wire(Sight::Exchange(e)) if e.target().ends_with("AutdState.xml") && e.method() == "PUT"));
    ensure!(puts.count() == 0, "a repeated Ping wrote AutdState.xml");
    println!();
    page.good("a Ping without a body costs one conditional GET and one SUBSCRIBE per folder, and no PUT");
    Ok(())
}

/// Leaves the servers up until Ctrl-C.
async fn keep(page: &Page, stage: &Stage) -> anyhow::Result<()> {
    let http = stage.frontend.http()?;
    page.heading("The servers stay up. What to type into a phone (or an emulator) on this host:");
    page.fact("account", "Exchange, or \"Corporate\"; set up by hand");
    page.fact("server", &format!("{http} (from an Android emulator: 10.0.2.2:{})", http.port()));
    page.fact("user", USER);
    page.fact("password", PASSWORD);
    page.fact("security", "none: SSL/TLS off, for we do not speak it here");
    println!();
    let lmtp = shown(&stage.backend.lmtp()?);
    page.fact("mail", &format!("by LMTP to {lmtp}, for instance with swaks:"));
    page.fact("", &format!("swaks --protocol LMTP --server {lmtp} --to {USER} --header 'Subject: hello'"));
    page.fact("device", "another one, in another terminal:");
    page.fact(
        "",
        &format!("DIRECTPUSH_PASSWORD={PASSWORD} directpush device --server http://{http} --user {USER}"),
    );
    println!();
    page.remark("Ctrl-C ends it all.");
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    println!();
    Ok(())
}
