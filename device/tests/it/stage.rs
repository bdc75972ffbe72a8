//! The stage of most tests: one back end, one front end, relays between them, phones.

use std::{net::SocketAddr, path::Path, time::Duration};

use directpush_common::eas::ping::PingResponse;
use directpush_common::wbxml::Limits;
use directpush_device::{
    core::{Kind, Phone, Profile, Task, Trouble},
    drive::{Clock, Drive, Gate, Wish, basic},
    http::Server,
    lmtp::{Lmtp, LmtpAddress},
    load::mail::message,
    pair::{Backend, Frontend, NOTIFY_PORT, Seat},
    relay::{Exchange, HttpRelay, Sight, UdpRelay},
    reporter::{PhoneEvent, Reporter},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "correct horse";
/// How long anything may take that should happen at once, on a machine with much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) backend: Backend,
    pub(crate) frontend: Frontend,
    pub(crate) http_relay: HttpRelay,
    pub(crate) udp_relay: UdpRelay,
    sights: mpsc::UnboundedReceiver<Sight>,
    _dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// A stage whose servers have other settings.
    pub(crate) async fn with(
        tweak: impl FnOnce(&mut directpush_be::Config, &mut directpush_fe::Config),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seat = Seat::new("fe-1", true);
        let mut back = Backend::config(&dir.path().join("be"), std::slice::from_ref(&seat));
        // The front end's settings need to know where the relay is, and that where the back end is.
        let mut front = Frontend::config(&seat, SocketAddr::from(([127, 0, 0, 1], 1)));
        tweak(&mut back, &mut front);
        let backend = Backend::start(back).await.unwrap();
        let (tell, sights) = mpsc::unbounded_channel();
        let http_relay = HttpRelay::start(backend.http(), tell.clone()).await.unwrap();
        let here = (seat.call_back, NOTIFY_PORT).into();
        let udp_relay = UdpRelay::start(here, (seat.listens, NOTIFY_PORT).into(), 7, tell).await.unwrap();
        front.backends[0].url = format!("http://{}", http_relay.address);
        let frontend = Frontend::start(front).await.unwrap();
        backend.add_user("alice@example.com", PASSWORD).await.unwrap();
        Self { backend, frontend, http_relay, udp_relay, sights, _dir: dir }
    }

    pub(crate) fn server(&self) -> Server {
        Server::at(self.frontend.http().unwrap())
    }

    pub(crate) fn phone(&self, strategy: Kind) -> TestPhone {
        TestPhone::start(self.server(), profile("alice@example.com", "phone1", strategy))
    }

    pub(crate) async fn deliver(&self, subject: &str) -> Instant {
        deliver(&self.backend.lmtp().unwrap(), "alice@example.com", subject).await
    }

    /// Waits until the back end holds so many subscriptions.
    pub(crate) async fn armed(&self, count: usize) {
        wait_until("the subscriptions", || self.backend.subscriptions() == count).await;
    }

    /// Everything that passed the relays until `last` comes true.
    pub(crate) async fn sights_until(
        &mut self,
        what: &str,
        mut last: impl FnMut(&Sight) -> bool,
    ) -> Vec<Sight> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let sight = timeout_at(deadline, self.sights.recv()).await;
            let sight = sight.unwrap_or_else(|_| panic!("{what}: not in time; {}", methods(&seen).join(" ")));
            seen.push(sight.unwrap());
            if seen.last().is_some_and(&mut last) {
                return seen;
            }
        }
    }

    /// What passed the relays and was not looked at yet.
    pub(crate) fn sights(&mut self) -> Vec<Sight> {
        std::iter::from_fn(|| self.sights.try_recv().ok()).collect()
    }

    pub(crate) async fn strike(self) {
        self.frontend.stop().await;
        self.backend.stop().await.unwrap();
    }
}

/// `METHOD last-segment status` of each exchange but POLL and the front end's own OPTIONS; `NOTIFY` of each datagram.
pub(crate) fn methods(sights: &[Sight]) -> Vec<String> {
    let name = |exchange: &Exchange| {
        let target = exchange.target().trim_end_matches('/');
        let last = target.rsplit('/').next().unwrap_or_default().to_owned();
        format!("{} {last} {}", exchange.method(), exchange.status())
    };
    sights
        .iter()
        .filter_map(|sight| match sight {
            Sight::Datagram { .. } => Some("NOTIFY".to_owned()),
            Sight::Exchange(exchange) if ["POLL", "OPTIONS"].contains(&exchange.method()) => None,
            Sight::Exchange(exchange) => Some(name(exchange)),
        })
        .collect()
}

pub(crate) fn is_exchange(sight: &Sight, method: &str) -> bool {
    matches!(sight, Sight::Exchange(exchange) if exchange.method() == method)
}

pub(crate) async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Delivers one message; returns when 250 was read.
pub(crate) async fn deliver(lmtp: &LmtpAddress, to: &str, subject: &str) -> Instant {
    let mut lmtp = Lmtp::connect(lmtp).await.unwrap();
    let text = message("bob@example.org", to, subject, "Hello.");
    let answers = lmtp.deliver("bob@example.org", &[to], text.as_bytes()).await.unwrap();
    assert!(answers[0].is_ok(), "{}", answers[0].reply);
    answers[0].at
}

pub(crate) fn profile(user: &str, id: &str, strategy: Kind) -> Profile {
    Profile::new(user, id, strategy).unwrap()
}

pub(crate) struct TestPhone {
    events: mpsc::UnboundedReceiver<PhoneEvent>,
    pub(crate) wishes: mpsc::Sender<Wish>,
    pub(crate) gate: watch::Sender<Gate>,
    stop: CancellationToken,
    task: JoinHandle<(Phone, Option<Trouble>)>,
}

impl TestPhone {
    pub(crate) fn start(server: Server, profile: Profile) -> Self {
        Self::start_gated(server, profile, true)
    }

    /// With `open` false it goes up to its first Ping and waits for the gate.
    pub(crate) fn start_gated(server: Server, profile: Profile, open: bool) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let (wishes, wishes_out) = mpsc::channel(8);
        let (gate, gate_out) = watch::channel(if open { Gate::Open } else { Gate::NoPing });
        let stop = CancellationToken::new();
        let drive = Drive {
            server,
            source: None,
            authorization: basic(&profile.user, PASSWORD),
            observer: Reporter(tell),
            wishes: wishes_out,
            clock: Clock::start(),
            gate: gate_out,
        };
        let task = tokio::spawn(drive.run(Phone::new(profile), stop.clone()));
        Self { events, wishes, gate, stop, task }
    }

    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut last: impl FnMut(&PhoneEvent) -> bool,
    ) -> Vec<PhoneEvent> {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => panic!("{what}: the phone stopped; {events:#?}"),
                Err(late) => panic!("{what}: {late}; {events:#?}"),
            }
            if events.last().is_some_and(&mut last) {
                return events;
            }
        }
    }

    /// What it did and heard and was not looked at yet.
    pub(crate) fn events(&mut self) -> Vec<PhoneEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub(crate) async fn pinging(&mut self) -> Vec<PhoneEvent> {
        self.until("a Ping", |event| matches!(event, PhoneEvent::Sent { task: Task::Ping(_), .. })).await
    }

    /// Until it holds all there is, as far as it knows, and would ping.
    pub(crate) async fn in_step(&mut self) {
        self.until("in step", |event| matches!(event, PhoneEvent::Applied { in_step: true, .. })).await;
    }

    /// The next answer to a Ping, and when it came.
    pub(crate) async fn pinged(&mut self) -> (PingResponse, Instant) {
        let answered = |event: &PhoneEvent| {
            matches!(event, PhoneEvent::Received { task: Task::Ping(_), status: 200, .. })
        };
        let events = self.until("the answer to a Ping", answered).await;
        let Some(PhoneEvent::Received { at, body, .. }) = events.last() else { unreachable!() };
        (PingResponse::decode(body, Limits::default()).unwrap(), *at)
    }

    /// Until its Ping is answered with Status 2.
    pub(crate) async fn woken(&mut self) -> Instant {
        let (response, at) = self.pinged().await;
        assert!(matches!(response, PingResponse::Changed(_)), "{response:?}");
        at
    }

    /// Until a message of this subject is on it.
    pub(crate) async fn has(&mut self, subject: &str) -> Vec<PhoneEvent> {
        self.until(subject, |event| match event {
            PhoneEvent::Applied { news, .. } => {
                news.iter().any(|(_, held)| held.as_ref().is_some_and(|held| &*held.subject == subject))
            }
            _ => false,
        })
        .await
    }

    /// Why it stopped by itself.
    pub(crate) async fn trouble(self) -> Option<Trouble> {
        let ended = timeout_at(Instant::now() + PATIENCE, self.task).await;
        ended.expect("it goes on").unwrap().1
    }

    pub(crate) async fn stop(self) -> Phone {
        self.stop.cancel();
        let (phone, trouble) = self.task.await.unwrap();
        assert_eq!(trouble, None);
        phone
    }
}

pub(crate) fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}
