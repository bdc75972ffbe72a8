//! Messages for the devices of a load, over several LMTP connections.

use std::sync::Arc;

use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

use crate::lmtp::{Lmtp, LmtpAddress, LmtpError};

/// A pool of LMTP connections, made when they are needed.
pub struct Mailer {
    address: LmtpAddress,
    idle: Mutex<Vec<Lmtp>>,
    turns: Semaphore,
}

/// What became of one message.
#[derive(Debug)]
pub struct Mailed {
    /// Just before the message was sent.
    pub sent: Instant,
    /// When 250 was read; `None`: another answer.
    pub acked: Option<Instant>,
}

impl Mailer {
    /// At most `connections` at once.
    pub fn new(address: LmtpAddress, connections: usize) -> Arc<Self> {
        Arc::new(Self { address, idle: Mutex::default(), turns: Semaphore::new(connections.max(1)) })
    }

    /// Delivers one small message.
    pub async fn send(&self, to: &str, number: u64) -> Result<Mailed, LmtpError> {
        let _turn = self.turns.acquire().await;
        let idle = self.idle.lock().await.pop();
        let mut lmtp = match idle {
            Some(lmtp) => lmtp,
            None => Lmtp::connect(&self.address).await?,
        };
        let text = message("load@directpush.invalid", to, &format!("Load message {number}"), "A change.");
        let sent = Instant::now();
        let answers = lmtp.deliver("load@directpush.invalid", &[to], text.as_bytes()).await?;
        let acked = answers.first().filter(|answer| answer.is_ok()).map(|answer| answer.at);
        self.idle.lock().await.push(lmtp);
        Ok(Mailed { sent, acked })
    }
}

/// A plain message with CRLF line ends.
pub fn message(from: &str, to: &str, subject: &str, text: &str) -> String {
    let date = jiff::Zoned::now().strftime("%a, %d %b %Y %H:%M:%S %z");
    let id = uuid::Uuid::new_v4();
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@directpush.invalid>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    )
}
