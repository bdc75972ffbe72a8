//! Drives a [`Phone`] in real time: its requests go over a socket, its deadlines become timers.
//!
//! Whoever runs a phone watches it through an [`Observer`] and tells it things through [`Wish`]es: that its user
//! pressed "Sync", read a message, or walked into another network.

use std::{collections::VecDeque, io, net::IpAddr, time::Duration};

pub use directpush_fe::clock::Clock;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Mailbox, News, Phone, Request, Response, Task, Trouble},
    http::{Connection, Server},
};

/// What a phone's owner wants of it.
#[derive(Debug)]
pub enum Wish {
    /// Sync now.
    Sync,
    /// Mark a message read, by folder and item.
    MarkRead(String, String, bool),
    /// Delete a message, by folder and item.
    Delete(String, String),
    /// Go on at another front end, and leave the old connection open, as a phone does that changes networks.
    Roam(Server),
    /// Show what is on the phone.
    Look(oneshot::Sender<Mailbox>),
}

/// Who watches a phone. Each call comes in the task that drives it.
pub trait Observer: Send {
    /// A request is out.
    fn sent(&mut self, _phone: &Phone, _request: &Request) {}
    /// The last byte of an answer came, at `at`; the phone has not looked at it yet.
    fn received(&mut self, _at: Instant, _request: &Request, _response: &Response) {}
    /// The phone holds all there is, and would ping now, but its gate is closed.
    fn ready(&mut self) {}
    /// The phone has taken an answer in.
    fn applied(&mut self, _phone: &Phone, _news: &[News]) {}
    /// The connection failed, or no answer came in time.
    fn lost(&mut self, _request: &Request, _error: &io::Error) {}
}

/// A phone that nobody watches.
impl Observer for () {}

/// Everything about a phone that is not the phone.
pub struct Drive<O> {
    /// The front end.
    pub server: Server,
    /// The address to connect from.
    pub source: Option<IpAddr>,
    /// `Authorization`.
    pub authorization: String,
    /// Who watches.
    pub observer: O,
    /// What its owner wants.
    pub wishes: mpsc::Receiver<Wish>,
    /// The clock of all phones of this process.
    pub clock: Clock,
    /// What the phone may ask at present.
    pub gate: watch::Receiver<Gate>,
}

/// Holds a phone back between two requests; one that is out is not touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    /// It asks what it wants.
    Open,
    /// It does not ping.
    NoPing,
    /// It asks nothing at all.
    Nothing,
}

/// A gate that is open for ever.
pub fn open_gate() -> watch::Receiver<Gate> {
    watch::channel(Gate::Open).1
}

/// `Authorization` of a user and password ([RFC 7617] 2).
pub fn basic(user: &str, password: &str) -> String {
    let pair = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
    format!("Basic {pair}")
}

enum Ended {
    Answered(Response),
    Lost(io::Error),
    Late,
    /// The owner wants something that does not wait for the end of the Ping.
    Wished(Wish),
    Stopped,
}

impl<O: Observer> Drive<O> {
    /// Runs the phone until it is in trouble or `stop` says so. Cancel-safe: what is dropped is a connection.
    pub async fn run(mut self, mut phone: Phone, stop: CancellationToken) -> (Phone, Option<Trouble>) {
        let mut line = Line::default();
        loop {
            if let Some(trouble) = phone.trouble() {
                let trouble = trouble.clone();
                return (phone, Some(trouble));
            }
            if phone.outstanding().is_none()
                && let Some(wish) = line.wishes.pop_front()
            {
                self.grant(wish, &mut phone, &mut line);
                continue;
            }
            let gate = *self.gate.borrow_and_update();
            let ready = gate == Gate::NoPing && phone.is_in_step();
            if phone.outstanding().is_none() && (ready || gate == Gate::Nothing) {
                if ready {
                    self.observer.ready();
                }
                tokio::select! {
                    () = stop.cancelled() => return (phone, None),
                    Ok(()) = self.gate.changed() => {}
                    Some(wish) = self.wishes.recv() => line.wishes.push_back(wish),
                }
                continue;
            }
            let Some(request) = phone.next_request(self.clock.now()) else {
                let deadline = self.clock.instant(phone.deadline());
                tokio::select! {
                    () = stop.cancelled() => return (phone, None),
                    () = sleep_until(deadline) => {}
                    Some(wish) = self.wishes.recv() => line.wishes.push_back(wish),
                }
                continue;
            };
            self.observer.sent(&phone, &request);
            match self.exchange(&phone, &request, &mut line, &stop).await {
                Ended::Answered(response) => {
                    let news = phone.handle_response(self.clock.now(), &response);
                    self.observer.applied(&phone, &news);
                }
                Ended::Lost(error) => {
                    line.connection = None;
                    self.observer.lost(&request, &error);
                    phone.handle_lost(self.clock.now());
                }
                Ended::Late => {
                    line.connection = None;
                    self.observer.lost(&request, &io::ErrorKind::TimedOut.into());
                    phone.handle_time(self.clock.now().max(request.give_up));
                }
                Ended::Wished(wish) => {
                    phone.handle_wish(self.clock.now());
                    if matches!(wish, Wish::Roam(_)) {
                        line.left_open.extend(line.connection.take());
                    }
                    line.connection = None;
                    self.grant(wish, &mut phone, &mut line);
                }
                Ended::Stopped => return (phone, None),
            }
        }
    }

    fn grant(&mut self, wish: Wish, phone: &mut Phone, line: &mut Line) {
        match wish {
            Wish::Sync => phone.want_sync(),
            Wish::MarkRead(folder, item, read) => {
                phone.mailbox_mut().mark_read(&folder, &item, read);
            }
            Wish::Delete(folder, item) => {
                phone.mailbox_mut().delete(&folder, &item);
            }
            Wish::Roam(server) => {
                line.left_open.extend(line.connection.take());
                self.server = server;
            }
            Wish::Look(answer) => {
                // Who asked may have gone.
                let _ = answer.send(phone.mailbox().clone());
            }
        }
    }

    /// One request and its answer. A connection that the server closed while it was idle is replaced once.
    async fn exchange(
        &mut self,
        phone: &Phone,
        request: &Request,
        line: &mut Line,
        stop: &CancellationToken,
    ) -> Ended {
        let begun = Instant::now();
        let give_up = self.clock.instant(request.give_up);
        loop {
            let reused = line.connection.is_some();
            let answer = {
                let connection = &mut line.connection;
                let talk = talk(connection, &self.server, self.source, &self.authorization, request);
                tokio::pin!(talk);
                loop {
                    tokio::select! {
                        answer = &mut talk => break answer,
                        () = sleep_until(give_up) => return Ended::Late,
                        () = stop.cancelled() => return Ended::Stopped,
                        Some(wish) = self.wishes.recv() => match wish {
                            Wish::Look(answer) => { let _ = answer.send(phone.mailbox().clone()); }
                            wish if matches!(request.task, Task::Ping(_)) => return Ended::Wished(wish),
                            wish => line.wishes.push_back(wish),
                        }
                    }
                }
            };
            match answer {
                Ok((response, reusable)) => {
                    self.observer.received(Instant::now(), request, &response);
                    if !reusable {
                        line.connection = None;
                    }
                    return Ended::Answered(response);
                }
                Err(error) if reused && begun.elapsed() < IDLE_CLOSE => {
                    tracing::debug!(%error, "the idle connection was gone");
                    line.connection = None;
                }
                Err(error) => return Ended::Lost(error),
            }
        }
    }
}

/// A failure on a used connection sooner than this means that the server had closed it while it was idle.
const IDLE_CLOSE: Duration = Duration::from_millis(200);

/// A phone's way to its server.
#[derive(Default)]
struct Line {
    connection: Option<Connection>,
    /// Connections of networks that the phone left without a word.
    left_open: Vec<Connection>,
    /// Wishes that wait for the answer to the request that is out.
    wishes: VecDeque<Wish>,
}

async fn talk(
    connection: &mut Option<Connection>,
    server: &Server,
    source: Option<IpAddr>,
    authorization: &str,
    request: &Request,
) -> io::Result<(Response, bool)> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::open(server, source).await?),
    };
    connection.send(server, authorization, request).await?;
    connection.receive().await
}
