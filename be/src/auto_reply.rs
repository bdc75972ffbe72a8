//! Answers for people who are away: one task, behind deliveries, so that no MTA waits for it.
//!
//! What may be answered, and how a reply looks, is `common::mail::auto_reply` (RFC 3834); here is who wrote it (somebody here,
//! somebody whom the user knows, anybody), whether they had a reply already, and the queue that carries it. It is on record that
//! somebody was answered before the reply leaves: a crash between costs a reply, and never sends two.
//!
//! Known is, elsewhere, whom the user has written to in the last two years. Not here: the user's settings (`mailbox::oof`).

use std::sync::Arc;

use bytes::Bytes;
use directpush_common::mail::Address;
use directpush_common::mail::auto_reply::{AutoReply, addressed, answerable, compose};
use directpush_common::mail::oof::Audience;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::delivery::Post;
use crate::error::{Error, WithCauses};
use crate::mailbox::addresses::Place;
use crate::mailbox::oof::mark;
use crate::mailbox::users::Account;
use crate::mailbox::{now_secs, random_number};
use crate::submission::queue::entry::Route;
use crate::submission::queue::rate::{HourlyLimits, Rates};
use crate::submission::queue::{Mail, Queue};

/// Messages that wait to be looked at; each is a header.
pub const WAITING_MAX: usize = 1024;

/// How often people are answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AutoReplySettings {
    /// One sender is answered once in so many seconds.
    pub window_secs: u64,
    /// Replies of one user in an hour; 0 = none are sent at all.
    pub per_hour: u32,
}

impl Default for AutoReplySettings {
    fn default() -> Self {
        Self { window_secs: 7 * 86_400, per_hour: 60 }
    }
}

/// A message that came into somebody's Inbox.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub account: Arc<Account>,
    /// The reverse path.
    pub sender: String,
    pub header: Bytes,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoReply {
    /// The user is not away.
    NotAway,
    /// A machine wrote it, or a list brought it.
    Machine,
    /// The user wrote it.
    Own,
    /// None of the user's addresses is in `To` or `Cc`.
    NotAddressed,
    /// The user has nothing to say to them.
    NothingToSay,
    /// They had a reply.
    HadOne,
    /// The user's replies of this hour are used up.
    Rate,
    /// The sender cannot be written to from here.
    NoWay,
}

/// The task's state.
pub struct Responder {
    post: Arc<Post>,
    queue: Queue,
    /// Mail for other hosts can leave.
    relays: bool,
    settings: AutoReplySettings,
    rates: Rates,
}

impl Responder {
    pub fn new(post: Arc<Post>, queue: Queue, relays: bool, settings: AutoReplySettings) -> Self {
        Self { post, queue, relays, settings, rates: Rates::default() }
    }

    /// Answers until `stop`, and then what has come before it.
    pub async fn run(mut self, mut arrivals: mpsc::Receiver<Arrival>, stop: CancellationToken) {
        loop {
            let arrival = tokio::select! {
                biased;
                arrival = arrivals.recv() => arrival,
                () = stop.cancelled() => None,
            };
            let Some(arrival) = arrival else { return };
            let user = arrival.account.name.clone();
            match self.answer(arrival, now_secs()).await {
                Ok(Ok(())) => tracing::info!(%user, "an automatic reply was sent"),
                Ok(Err(why)) => tracing::debug!(%user, ?why, "no automatic reply"),
                Err(error) => {
                    tracing::warn!(%user, error = %WithCauses(&error), "cannot send an automatic reply");
                }
            }
        }
    }

    /// Answers a message at `now` (Unix seconds), or says why not.
    pub async fn answer(&mut self, arrival: Arrival, now: i64) -> Result<Result<(), NoReply>, Error> {
        let Arrival { account, sender, header } = arrival;
        let (post, mailbox) = (self.post.clone(), account.mailbox);
        let boxes = &post.boxes;
        let Some(kept) = boxes.active_oof(mailbox, now).await?.filter(|_| !account.disabled) else {
            return Ok(Err(NoReply::NotAway));
        };
        let Ok(to) = answerable(&sender, &header) else { return Ok(Err(NoReply::Machine)) };
        let place = boxes.place(&post.rules, &to.to_string()).await?;
        let audience = match &place {
            Place::Here(other) if other.mailbox == mailbox => return Ok(Err(NoReply::Own)),
            Place::Here(_) => Audience::Internal,
            Place::Nobody => return Ok(Err(NoReply::NoWay)),
            // A neighbour whose mailbox is at another back end.
            Place::Elsewhere if self.relays && post.rules.is_elsewhere(&to.to_string(), None) => {
                Audience::Internal
            }
            Place::Elsewhere if !self.relays => return Ok(Err(NoReply::NoWay)),
            Place::Elsewhere if boxes.has_written_to(mailbox, mark(&to)).await? => Audience::ExternalKnown,
            Place::Elsewhere => Audience::ExternalUnknown,
        };
        let Some(reply) = kept.oof.reply(audience, now) else { return Ok(Err(NoReply::NothingToSay)) };
        let Some(from) = self.own_address(mailbox, &header).await? else {
            return Ok(Err(NoReply::NotAddressed));
        };
        let at = u64::try_from(now).unwrap_or(0);
        let hourly = HourlyLimits { messages: self.settings.per_hour, recipients: u32::MAX };
        if self.rates.take(&account.name, 1, at, &hourly).is_err() {
            return Ok(Err(NoReply::Rate));
        }
        let turn = boxes.take_turn(mailbox, mark(&to), kept.period, self.settings.window_secs, at).await;
        if !turn.as_ref().is_ok_and(|turn| *turn) {
            self.rates.give_back(&account.name, 1, at);
            return turn.map(|_| Err(NoReply::HadOne));
        }
        let unique = format!("{:014x}", random_number()?);
        let message = compose(&AutoReply {
            from: &from,
            to: &to,
            host: &post.host,
            unique: &unique,
            date: now,
            message: &header,
            reply,
        });
        let mail = Mail {
            user: account.name.clone(),
            // RFC 3834 3.3: nobody is to answer this, nor to report what becomes of it.
            sender: String::new(),
            route: if place == Place::Elsewhere { Route::SmartHost } else { Route::Local },
            recipients: vec![to.to_string()],
            reports: false,
            message: message.into(),
        };
        let queued = self.queue.add(mail).await;
        let failed = |error| Error::io("put it into the mail queue")(std::io::Error::other(error));
        queued.map_err(failed)?;
        Ok(Ok(()))
    }

    /// The first address in `To` or `Cc` that is this mailbox's.
    async fn own_address(&self, mailbox: u64, header: &[u8]) -> Result<Option<Address>, Error> {
        for address in addressed(header) {
            let owner = self.post.boxes.owner(&self.post.rules, &address.to_string()).await?;
            if owner.is_some_and(|owner| owner.mailbox == mailbox) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
