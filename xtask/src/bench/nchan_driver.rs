//! Devices of nchan: parked long polls, a publisher beside them, and the time between the two.
//!
//! A process of its own, so that its memory and its open files are not the benchmark's. It takes commands, one a line,
//! on its standard input and answers each with one line of JSON:
//!
//! | command | does |
//! |---|---|
//! | `park` | opens every long poll and waits until the server counts them all |
//! | `one COUNT` | publishes one at a time, each when the last was answered |
//! | `rate PER_SEC SECS` | publishes at this rate, whatever the answers do |
//! | `all CONNECTIONS` | publishes once for each device over so many connections |
//!
//! The time of a change runs from just before the publish request is written to the last byte at the subscriber.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::measure::percentile;

/// How long a published message may take before it counts as unanswered.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the server may take until it counts every long poll.
const PARK_MAX: Duration = Duration::from_mins(2);
/// Connections that are opened at the same time.
const CONNECTS_AT_ONCE: usize = 128;
/// Publishers for a given rate: more than one, so that an answer on its way delays nobody.
const RATE_CONNECTIONS: usize = 16;
/// A response that is longer than this is not nchan's.
const RESPONSE_BYTES_MAX: usize = 8192;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where nginx listens; loopback only
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    devices: usize,
    /// Source addresses, 127.0.0.2 and up
    #[arg(long, default_value_t = 4)]
    sources: u8,
}

/// What one command measured.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) changes: usize,
    pub(crate) unanswered: usize,
    pub(crate) took_secs: f64,
    pub(crate) latency_us: Latency,
    /// From the message's last byte sent, the commit to disk included: what only our own driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from_data_us: Option<Latency>,
}

/// Microseconds; zero where nothing was measured.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |part| percentile(&samples, part).unwrap_or(0.0);
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.address.ip().is_loopback(), "{} is not on the loopback", options.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, drive(options))
}

/// When a long poll of this device was answered.
struct Answer {
    device: usize,
    at: Instant,
}

async fn drive(options: &Options) -> Result<()> {
    let (answers_in, mut answers) = mpsc::unbounded_channel();
    let mut driver = Driver { address: options.address, devices: options.devices, next: 0 };
    for command in std::io::stdin().lines() {
        let command = command?;
        let words: Vec<&str> = command.split_whitespace().collect();
        let report = match words.as_slice() {
            ["park"] => driver.park(options.sources, &answers_in).await?,
            ["one", count] => driver.one_at_a_time(count.parse()?, &mut answers).await?,
            ["rate", per_sec, secs] => driver.at_rate(per_sec.parse()?, secs.parse()?, &mut answers).await?,
            ["all", connections] => driver.all(connections.parse()?, &mut answers).await?,
            _ => bail!("unknown command {command:?}"),
        };
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

struct Driver {
    address: SocketAddr,
    devices: usize,
    /// The device whose turn it is: round about, so that each has long parked again when it comes round.
    next: usize,
}

impl Driver {
    async fn park(&mut self, sources: u8, answers: &mpsc::UnboundedSender<Answer>) -> Result<Report> {
        let began = Instant::now();
        let gate = Arc::new(Semaphore::new(CONNECTS_AT_ONCE));
        let address = self.address;
        for (device, source) in (0..self.devices).zip((0..sources.max(1)).cycle()) {
            let permit = Arc::clone(&gate).acquire_owned().await?;
            let answers = answers.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = subscribe(address, source, device, &answers, permit).await {
                    eprintln!("device {device}: {error:#}");
                }
            });
        }
        let mut status = connect(address, None).await?;
        while self.parked(&mut status).await? < self.devices {
            ensure!(began.elapsed() < PARK_MAX, "after {PARK_MAX:?} not all long polls are parked");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Report { changes: self.devices, took_secs: began.elapsed().as_secs_f64(), ..Report::default() })
    }

    /// How many long polls the server counts (`nchan_stub_status`).
    async fn parked(&self, connection: &mut TcpStream) -> Result<usize> {
        connection.write_all(b"GET /status HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
        let mut buffer = [0; RESPONSE_BYTES_MAX];
        let body = response(connection, &mut buffer).await?;
        let text = std::str::from_utf8(body)?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("subscribers:"))
            .context("no count of subscribers")?;
        Ok(count.trim().parse()?)
    }

    fn turn(&mut self) -> usize {
        let device = self.next;
        self.next = (device + 1) % self.devices;
        device
    }

    async fn one_at_a_time(
        &mut self,
        count: usize,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Report> {
        let mut connection = connect(self.address, None).await?;
        let began = Instant::now();
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let device = self.turn();
            let published = Instant::now();
            publish(&mut connection, device).await?;
            if let Ok(Some(answer)) = timeout(ANSWER_MAX, answers.recv()).await {
                ensure!(answer.device == device, "device {} was answered, not {device}", answer.device);
                samples.push(micros(answer.at - published));
            }
        }
        Ok(report(count, began, samples))
    }

    async fn at_rate(
        &mut self,
        per_sec: u32,
        secs: u32,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Report> {
        let began = Instant::now();
        let due = |turn: u32| began + Duration::from_secs(1) * turn / per_sec.max(1);
        let plan: Vec<(usize, Instant)> = (0..per_sec * secs).map(|turn| (self.turn(), due(turn))).collect();
        self.publish_all(plan, RATE_CONNECTIONS, began, answers).await
    }

    async fn all(
        &mut self,
        connections: usize,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Report> {
        let began = Instant::now();
        let plan = (0..self.devices).map(|_| (self.turn(), began)).collect();
        self.publish_all(plan, connections, began, answers).await
    }

    /// Publishes for each device when it is due, and gathers the answers until the last one or until `ANSWER_MAX`.
    async fn publish_all(
        &self,
        plan: Vec<(usize, Instant)>,
        connections: usize,
        began: Instant,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Report> {
        let count = plan.len();
        let (published_in, mut published) = mpsc::unbounded_channel();
        for lane in 0..connections.max(1) {
            let mine: Vec<_> = plan.iter().copied().skip(lane).step_by(connections.max(1)).collect();
            let published_in = published_in.clone();
            let mut connection = connect(self.address, None).await?;
            tokio::task::spawn_local(async move {
                for (device, due) in mine {
                    sleep_until(due).await;
                    let _ = published_in.send((device, Instant::now()));
                    if let Err(error) = publish(&mut connection, device).await {
                        eprintln!("publishing for device {device}: {error:#}");
                        return;
                    }
                }
            });
        }
        drop(published_in);
        let last_due = plan.last().map_or(began, |(_, due)| *due);
        let mut asked = vec![None; self.devices];
        let mut samples = Vec::with_capacity(count);
        while samples.len() < count {
            tokio::select! {
                // In this order: a publish is noted before its answer.
                biased;
                Some((device, at)) = published.recv() => asked[device] = Some(at),
                Some(answer) = answers.recv() => {
                    if let Some(at) = asked[answer.device].take() {
                        samples.push(micros(answer.at - at));
                    }
                }
                () = sleep_until(last_due + ANSWER_MAX) => break,
            }
        }
        Ok(report(count, began, samples))
    }
}

fn report(changes: usize, began: Instant, samples: Vec<f64>) -> Report {
    Report {
        changes,
        unanswered: changes - samples.len(),
        took_secs: began.elapsed().as_secs_f64(),
        latency_us: Latency::of(samples),
        from_data_us: None,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn connect(address: SocketAddr, source: Option<u8>) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + source)), 0))?;
    }
    let stream = socket.connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One device: asks, waits, notes the answer, asks again.
async fn subscribe(
    address: SocketAddr,
    source: u8,
    device: usize,
    answers: &mpsc::UnboundedSender<Answer>,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Result<()> {
    let mut stream = connect(address, Some(source)).await?;
    let request = format!("GET /sub/{device} HTTP/1.1\r\nHost: bench\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    drop(permit);
    loop {
        stream.readable().await?;
        let mut buffer = [0; RESPONSE_BYTES_MAX];
        response(&mut stream, &mut buffer).await?;
        if answers.send(Answer { device, at: Instant::now() }).is_err() {
            return Ok(());
        }
        stream.write_all(request.as_bytes()).await?;
    }
}

async fn publish(stream: &mut TcpStream, device: usize) -> Result<()> {
    let request = format!("POST /pub/{device} HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\n\r\nok");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = [0; RESPONSE_BYTES_MAX];
    response(stream, &mut buffer).await?;
    Ok(())
}

/// Reads one response to its last byte and gives its body.
async fn response<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the server hung up");
        filled += read;
        if let Some(body) = body_range(&buffer[..filled])? {
            return Ok(&buffer[body]);
        }
    }
}

/// Where the body lies, once all of it is there.
fn body_range(bytes: &[u8]) -> Result<Option<std::ops::Range<usize>>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let status = text.split(' ').nth(1).unwrap_or("");
    ensure!(matches!(status, "200" | "201" | "202"), "the server answered {status}");
    let mut length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("Content-Length"))
        .map(|(_, value)| value.trim().parse::<usize>());
    let end = head + 4 + length.next().context("a response without Content-Length")??;
    Ok((bytes.len() >= end).then_some(head + 4..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(body_range(&whole[..whole.len() - 1]).expect("a response"), None);
        assert_eq!(body_range(whole).expect("a response").map(|range| &whole[range]), Some(&b"ok"[..]));
        assert!(body_range(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
