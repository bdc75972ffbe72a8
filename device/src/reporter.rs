//! An observer that tells all it sees to a channel: for the demonstration and the whole-system tests.

use std::io;

use tokio::{sync::mpsc, time::Instant};

use crate::{
    core::{Held, News, Phone, Request, Response, Task},
    drive::Observer,
};

/// Something a phone did or heard.
#[derive(Clone, Debug)]
pub enum PhoneEvent {
    /// A request is out.
    Sent {
        /// When.
        at: Instant,
        /// What for.
        task: Task,
        /// Method and target.
        line: String,
        /// The body.
        body: Vec<u8>,
    },
    /// The last byte of an answer came.
    Received {
        /// When.
        at: Instant,
        /// To what.
        task: Task,
        /// HTTP status.
        status: u16,
        /// The body.
        body: Vec<u8>,
        /// `Retry-After`.
        retry_after: Option<u64>,
    },
    /// The phone has taken an answer in.
    Applied {
        /// When.
        at: Instant,
        /// What changed, with what the phone holds now.
        news: Vec<(News, Option<Held>)>,
        /// Whether it holds all there is, as far as it knows.
        in_step: bool,
    },
    /// The connection failed, or no answer came in time.
    Lost {
        /// When.
        at: Instant,
        /// What was asked.
        task: Task,
        /// Why.
        error: String,
    },
}

/// Tells a channel.
#[derive(Clone, Debug)]
pub struct Reporter<T>(pub mpsc::UnboundedSender<T>);

impl<T: From<PhoneEvent> + Send> Reporter<T> {
    fn tell(&self, event: PhoneEvent) {
        // Nobody listens any more: the phone goes on.
        let _ = self.0.send(event.into());
    }
}

impl<T: From<PhoneEvent> + Send> Observer for Reporter<T> {
    fn sent(&mut self, _: &Phone, request: &Request) {
        self.tell(PhoneEvent::Sent {
            at: Instant::now(),
            task: request.task.clone(),
            line: format!("{} {}", request.method, request.target),
            body: request.body.clone(),
        });
    }

    fn received(&mut self, at: Instant, request: &Request, response: &Response) {
        self.tell(PhoneEvent::Received {
            at,
            task: request.task.clone(),
            status: response.status,
            body: response.body.clone(),
            retry_after: response.retry_after(),
        });
    }

    fn applied(&mut self, phone: &Phone, news: &[News]) {
        let held = |news: &News| {
            let (News::Added { folder, item }
            | News::Changed { folder, item }
            | News::Removed { folder, item }) = news;
            phone.mailbox().folders.get(folder.as_str())?.items.get(item.as_str()).cloned()
        };
        let news = news.iter().map(|news| (news.clone(), held(news))).collect();
        self.tell(PhoneEvent::Applied { at: Instant::now(), news, in_step: phone.is_in_step() });
    }

    fn lost(&mut self, request: &Request, error: &io::Error) {
        self.tell(PhoneEvent::Lost {
            at: Instant::now(),
            task: request.task.clone(),
            error: error.to_string(),
        });
    }
}
