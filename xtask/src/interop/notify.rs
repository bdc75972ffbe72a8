//! NOTIFY as tshark sees it on the loopback: the article's own datagram, and one that our back end really sent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::steps::Outcome;

/// UDP whose payload begins with `NOTI`, on whatever port.
const CAPTURE_FILTER: &str = "udp[8:4] = 0x4e4f5449";
/// How long tshark may take to show a datagram that was sent.
const CAPTURE_MAX: Duration = Duration::from_secs(20);
/// A datagram that passes the filter and is no NOTIFY.
const KNOCK: &[u8] = b"NOTI knock";
const KNOCK_INTERVAL: Duration = Duration::from_millis(100);
const KNOCKS_MAX: u32 = 200;
/// IPv4 without options, UDP.
const UDP_HEADER_BYTES: usize = 8;

/// What tshark says of one datagram.
#[derive(Debug)]
struct Seen {
    udp_length: usize,
    payload: Vec<u8>,
    /// Its own reading of the payload as HTTP over UDP.
    method: String,
    target: String,
    version: String,
}

/// Sends the recorded datagram from one socket of the loopback to another and shows it to tshark.
pub(super) fn article(datagram: &[u8]) -> Result<Outcome> {
    ensure!(datagram.len() == 154, "the article's datagram has 154 bytes, this one {}", datagram.len());
    let seen = capture(|| {
        let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
        UdpSocket::bind(("127.0.0.1", 0))?.send_to(datagram, receiver.local_addr()?)?;
        Ok(())
    })?;
    check_layout(&seen)?;
    ensure!(seen.payload == datagram, "the bytes on the wire are not those sent");
    Ok(Outcome::Passed("154 bytes, NOTIFY, its target and headers as tshark reads them".to_owned()))
}

/// Captures while `cause` makes a back end send one, and checks that it has the article's layout.
pub(super) fn live(cause: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let seen = capture(cause)?;
    check_layout(&seen)?;
    println!("{}", hex_dump(&seen.payload));
    Ok(Outcome::Passed(format!("{} bytes to {}", seen.payload.len(), seen.target)))
}

fn capture(cause: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let capture = Capture::start()?;
    capture.wait_until_ready()?;
    cause()?;
    capture.next()
}

/// A tshark that prints a line for each datagram; it ends with this value.
struct Capture {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Capture {
    fn start() -> Result<Self> {
        // HTTP over UDP is known to tshark as SSDP, on port 1900; tell it that every port is like that.
        let mut process = Command::new("tshark")
            .args(["-i", "lo", "-l", "-f", CAPTURE_FILTER, "-d", "udp.port==1-65535,ssdp", "-T", "fields"])
            .args(["-E", "separator=|", "-e", "udp.length", "-e", "udp.payload"])
            .args(["-e", "http.request.method", "-e", "http.request.uri", "-e", "http.request.version"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start tshark")?;
        let printed = BufReader::new(process.stdout.take().context("no standard output")?).lines();
        let (lines_in, lines) = mpsc::channel();
        thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| lines_in.send(line)));
        Ok(Self { process, lines })
    }

    /// tshark says that it captures a good while before it does; so we knock until it answers.
    fn wait_until_ready(&self) -> Result<()> {
        let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
        let sender = UdpSocket::bind(("127.0.0.1", 0))?;
        for _ in 0..KNOCKS_MAX {
            sender.send_to(KNOCK, receiver.local_addr()?)?;
            if self.lines.recv_timeout(KNOCK_INTERVAL).is_ok() {
                return Ok(());
            }
        }
        bail!("tshark captures nothing on the loopback (is it allowed to?)")
    }

    /// The next datagram that is not a knock of ours.
    fn next(&self) -> Result<Seen> {
        loop {
            let line = self.lines.recv_timeout(CAPTURE_MAX).context("no NOTIFY was seen")?;
            let [length, payload, method, target, version] = line.split('|').collect::<Vec<_>>()[..] else {
                bail!("tshark says {line:?}")
            };
            let payload = bytes_of_hex(payload)?;
            if payload != KNOCK {
                let (method, target, version) = (method.to_owned(), target.to_owned(), version.to_owned());
                return Ok(Seen { udp_length: length.parse()?, payload, method, target, version });
            }
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // SIGTERM: tshark ends its dumpcap and removes its temporary file.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// The layout of the article's capture: request line, group, id, empty line, NUL, and not a byte more.
fn check_layout(seen: &Seen) -> Result<()> {
    ensure!(seen.udp_length == UDP_HEADER_BYTES + seen.payload.len(), "lengths differ: {seen:?}");
    ensure!(
        seen.method == "NOTIFY" && seen.version == "HTTP/1.1",
        "tshark reads {} {}",
        seen.method,
        seen.version
    );
    ensure!(seen.target.starts_with("httpu://"), "the target is {}", seen.target);
    let text = std::str::from_utf8(&seen.payload)?;
    let lines: Vec<&str> = text.split("\r\n").collect();
    let [request, group, id, "", "\0"] = lines.as_slice() else {
        bail!("other lines than the article's: {lines:?}")
    };
    ensure!(*request == format!("NOTIFY {} HTTP/1.1", seen.target), "request line {request:?}");
    let group = group.strip_prefix("Subscribe-group: ").context("the second line is not the group")?;
    ensure!(group.len() == 24 && group.ends_with("=="), "the group is not 16 bytes in base64: {group}");
    let id = id.strip_prefix("Subscription-id: ").context("the third line is not the id")?;
    ensure!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b','), "ids {id:?}");
    Ok(())
}

/// Bytes from hex digits, blanks and line ends between them.
pub(crate) fn bytes_of_hex(text: &str) -> Result<Vec<u8>> {
    let digits: String = text.split_whitespace().collect();
    ensure!(digits.len().is_multiple_of(2) && digits.is_ascii(), "not whole bytes in hex");
    (0..digits.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&digits[at..at + 2], 16)?)).collect()
}

fn hex_dump(bytes: &[u8]) -> String {
    let row = |(index, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            row.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:04x}  {:47}  {text}", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect::<Vec<_>>().join("\n")
}

/// The recorded datagram.
pub(super) fn recorded(root: &Path) -> Result<Vec<u8>> {
    let file = root.join("common/testdata/httpu/article.bin");
    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::root;

    fn seen(payload: &[u8]) -> Seen {
        Seen {
            udp_length: payload.len() + 8,
            payload: payload.to_vec(),
            method: "NOTIFY".to_owned(),
            target: "httpu://1b25a.1b1domain.lab:2883/35395ce4-1504-4ac4-9721-f152c646ea35".to_owned(),
            version: "HTTP/1.1".to_owned(),
        }
    }

    #[test]
    fn the_articles_datagram_has_the_articles_layout() {
        let datagram = recorded(&root()).expect("recorded");
        check_layout(&seen(&datagram)).expect("its own layout");
        check_layout(&seen(&datagram[..153])).expect_err("without its NUL");
        let swapped =
            String::from_utf8(datagram).expect("text").replace("Subscribe-group", "Subscription-id");
        check_layout(&seen(swapped.as_bytes())).expect_err("without a group");
    }

    #[test]
    fn hex_is_read_and_shown() {
        assert_eq!(bytes_of_hex("03 01\n6A00").expect("hex"), [3, 1, 0x6a, 0]);
        assert!(bytes_of_hex("031").is_err());
        assert_eq!(hex_dump(b"NO\0"), format!("0000  {:47}  NO.", "4e 4f 00"));
    }
}
