//! The demonstration's page: headings, lines with times, the datagram as a hex dump.

use std::{fmt::Write as _, io::IsTerminal as _};

use tokio::time::Instant;

use crate::{
    core::Task,
    demo::Event,
    log::ping_words,
    relay::{Exchange, Sight},
    reporter::PhoneEvent,
};

/// Columns of a line's text before it is shortened.
const TEXT_COLUMNS: usize = 66;

/// Prints; in colour on a terminal that has it.
pub struct Page {
    colour: bool,
    origin: Instant,
}

impl Default for Page {
    /// A page whose times begin now.
    fn default() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, origin: Instant::now() }
    }
}

impl Page {
    /// Times begin at `origin` from here on.
    pub fn begin(&mut self, origin: Instant) {
        self.origin = origin;
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The title.
    pub fn title(&self, text: &str) {
        println!("\n{}\n{}\n", self.paint("1", text), "═".repeat(text.chars().count()));
    }

    /// A chapter.
    pub fn heading(&self, text: &str) {
        println!("\n{}\n", self.paint("1", text));
    }

    /// A named fact.
    pub fn fact(&self, name: &str, text: &str) {
        println!("  {} {text}", self.paint("2", &format!("{name:<10}")));
    }

    /// A remark.
    pub fn remark(&self, text: &str) {
        println!("  {}", self.paint("2", text));
    }

    /// What came true.
    pub fn good(&self, text: &str) {
        println!("  {} {text}", self.paint("32", "✓"));
    }

    /// One line: when, between whom, what.
    pub fn line(&self, at: Instant, who: &str, what: &str) {
        let millis = at.saturating_duration_since(self.origin).as_secs_f64() * 1e3;
        println!("  {millis:>9.2} ms  {}  {}", self.paint("36", &format!("{who:<12}")), shortened(what));
    }

    /// Something that belongs to the line above.
    pub fn detail(&self, text: &str) {
        println!("  {:>12}  {:<12}  {}", "", "", self.paint("2", text));
    }

    /// One event, with what belongs to it.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Wire(Sight::Exchange(exchange)) => self.exchange(exchange),
            Event::Wire(Sight::Datagram { at, bytes, .. }) => {
                self.line(*at, "BE ⇢ FE UDP", &format!("NOTIFY, {} bytes", bytes.len()));
                for line in hex_dump(bytes) {
                    println!("      {}", self.paint("33", &line));
                }
            }
            Event::Phone(event) => self.phone(event),
        }
    }

    fn exchange(&self, exchange: &Exchange) {
        let took = exchange.answered.saturating_duration_since(exchange.asked).as_secs_f64() * 1e3;
        let what = format!("{} {}", exchange.method(), exchange.target());
        let what = format!("{:<TEXT_COLUMNS$} {} {took:>7.2} ms", shortened(&what), exchange.status());
        let millis = exchange.asked.saturating_duration_since(self.origin).as_secs_f64() * 1e3;
        println!("  {millis:>9.2} ms  {}  {what}", self.paint("36", &format!("{:<12}", "FE → BE")));
        let (asked, answered): (&[&str], &[&str]) = match exchange.method() {
            "SUBSCRIBE" => (
                &["Call-Back", "Subscribe-group", "Subscription-lifetime", "DirectPush-Token"],
                &["Subscription-id"],
            ),
            "UNSUBSCRIBE" => (&["Subscription-id"], &[]),
            _ => (&[], &[]),
        };
        for (head, names) in [(&exchange.request, asked), (&exchange.answer, answered)] {
            for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
                // Field names ignore case; they are shown as Exchange wrote them.
                if let Some(name) = names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                    self.detail(&format!("{name}:{value}"));
                }
            }
        }
    }

    fn phone(&self, event: &PhoneEvent) {
        match event {
            PhoneEvent::Sent { at, task, body, .. } => {
                let what = match task {
                    Task::Options => "OPTIONS".to_owned(),
                    Task::Ping(secs) if body.is_empty() => {
                        format!("Ping without a body: as the last time ({secs} s)")
                    }
                    Task::Ping(secs) => format!("Ping: heartbeat {secs} s, {} bytes of WBXML", body.len()),
                    task => format!("{}, {} bytes of WBXML", task.name(), body.len()),
                };
                self.line(*at, "phone → FE", &what);
            }
            PhoneEvent::Received { at, task: Task::Ping(_), status: 200, body, .. } => {
                self.line(*at, "FE → phone", &ping_words(body));
            }
            PhoneEvent::Received { at, task, status, body, .. } => {
                self.line(*at, "FE → phone", &format!("{} HTTP {status}, {} bytes", task.name(), body.len()));
            }
            PhoneEvent::Applied { at, news, .. } => {
                for (_, held) in news {
                    let Some(held) = held else { continue };
                    self.line(*at, "on the phone", &format!("“{}”", printable(&held.subject)));
                    self.detail(&format!("from {}: {}", printable(&held.from), printable(held.body.trim())));
                }
            }
            PhoneEvent::Lost { at, task, error } => {
                self.line(*at, "phone", &format!("{} lost: {error}", task.name()));
            }
        }
    }
}

/// What a message brought must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// The middle of a long text is left out: both its ends say something.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= TEXT_COLUMNS {
        return text.to_owned();
    }
    let tail = TEXT_COLUMNS / 2;
    let head: String = text.chars().take(TEXT_COLUMNS - tail - 1).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{head}…{end}")
}

/// Offset, sixteen bytes, and what of them is printable, as `hexdump -C` shows it.
fn hex_dump(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes.chunks(16).enumerate().map(|(n, chunk)| {
        let mut line = format!("{:08x}  ", n * 16);
        for column in 0..16 {
            let gap = if column == 7 { "  " } else { " " };
            match chunk.get(column) {
                Some(byte) => {
                    let _ = write!(line, "{byte:02x}{gap}");
                }
                None => line.push_str(&format!("  {gap}")),
            }
        }
        let printable = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        line.push_str(&format!(" |{}|", chunk.iter().map(printable).collect::<String>()));
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dump_is_as_hexdump_has_it() {
        let lines: Vec<String> = hex_dump(b"NOTIFY httpu://fe\r\n\0").collect();
        assert_eq!(
            lines,
            [
                "00000000  4e 4f 54 49 46 59 20 68  74 74 70 75 3a 2f 2f 66  |NOTIFY httpu://f|",
                "00000010  65 0d 0a 00                                       |e...|",
            ]
        );
    }

    #[test]
    fn long_texts_keep_both_ends() {
        let long = format!("PUT /exchange/{}/AutdState.xml", "x".repeat(200));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), TEXT_COLUMNS);
        assert!(short.starts_with("PUT /exchange/") && short.ends_with("/AutdState.xml"), "{short}");
        assert_eq!(shortened("short"), "short");
    }
}
