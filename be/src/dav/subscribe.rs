//! SUBSCRIBE: a front end's question about one folder, new or renewed.
//!
//! Register first, compare second: from the moment of registration every commit reaches the ledger,
//! and what was committed before it is in the state that is read after it. No change falls between.

use directpush_common::dav::headers;
use directpush_common::dav::poll::{self, SubscriptionStatus};
use directpush_common::dav::subscribe::{
    Already, DeviceEvent, LIFETIME_SECS_MAX, Since, Subscribe, Subscribed, format_ids, parse_ids,
};
use directpush_common::httpu::SubscriptionId;
use directpush_common::numbers::Number;
use directpush_common::push::ledger::{FrontEndNumber, NewSubscription};
use directpush_common::push::wake::{Wake, wake};
use http::StatusCode;

use super::path::{Inside, Place, Target, folder_url};
use super::reply::{self, Reply};
use super::{InMailbox, devices, not_found};
use crate::error::Error;
use crate::mailbox::Mailboxes;
use crate::mailbox::items::entry;
use crate::notifier::Notifier;

/// Entries compared at a time, and in all. Beyond, a folder holds nothing young enough to count.
const PAGE: usize = 256;
const COMPARED_MAX: usize = 20_000;

pub(super) async fn answer(at: &InMailbox<'_>) -> Result<Reply, Reply> {
    let call = at.call;
    let (asker, front_end) = call.front_end()?;
    let permanent = matches!(
        &call.path.place,
        Place::Mailbox { inside: Inside::Permanent { .. } | Inside::Below { .. }, .. }
    );
    if permanent {
        return Err(reply::text(StatusCode::FORBIDDEN, "subscribe to the friendly URL"));
    }
    if let Some(ids) = call.header(headers::SUBSCRIPTION_ID) {
        return renew(at, front_end, ids);
    }
    let folder = match &at.target {
        Target::Folder(folder) => *folder,
        Target::Item { .. } | Target::Top(_) | Target::NoParent => return Err(not_found()),
        _ => return Err(reply::text(StatusCode::FORBIDDEN, "only folders are watched")),
    };
    let asked = Subscribe::from_headers(|name| call.header(name))
        .map_err(|error| reply::text(StatusCode::BAD_REQUEST, error))?;
    let server = call.server;
    if let Err(error) = server.notifier.resolve(asker, &asked.call_back).await {
        tracing::warn!(
            front_end = %asker.name, call_back = %asked.call_back, %error,
            "a Call-Back is refused"
        );
        return Err(reason(StatusCode::FORBIDDEN, error, "call-back"));
    }
    let stale = |error: Error| match error {
        Error::Token => reason(StatusCode::CONFLICT, "the token is not valid here", "token"),
        error => reply::failure(&error),
    };
    let base = match asked.since {
        Since::Token(token) => at.state.check_token(folder, token).map_err(stale)?,
        Since::Nothing => 0,
        Since::Now => at.state.token(folder).map_err(stale)?.number.0,
    };
    let mailbox = at.account.mailbox;
    let new = NewSubscription {
        front_end,
        call_back: asked.call_back,
        group: asked.group,
        mailbox,
        folder,
        device: asked.device,
        base: Number(base),
        floor: asked.floor,
        delay_secs: asked.delay_secs,
        lifetime_secs: asked.lifetime_secs,
        poll_interval_secs: asked.poll_interval_secs,
    };
    let id = match server.notifier.subscribe(&new) {
        Ok(id) => id,
        Err(full) => {
            tracing::warn!(user = %at.account.name, %full, "no room for a subscription");
            return Err(reply::busy());
        }
    };
    // Withdrawn if the comparison fails, and if the asker goes away meanwhile: nobody would know of it.
    let mut unheard = Unheard { notifier: &server.notifier, id: Some(id) };
    let (found, hierarchy) = compare(&server.boxes, mailbox, &new).await.map_err(stale)?;
    let found = server.notifier.compared(id, found);
    unheard.id = None;
    devices::waits(call, &at.account, &new.device, new.lifetime_secs);
    let content_location = folder_url(&at.account.name, &at.state, folder).unwrap_or_default();
    let answer = Subscribed {
        id,
        lifetime_secs: new.lifetime_secs,
        delay_secs: new.delay_secs,
        group: new.group,
        content_location,
        already: match found {
            Wake::Never => Already::Nothing,
            Wake::Later => Already::Later,
            Wake::Now => Already::Now,
        },
        event: (hierarchy != asked.hierarchy.0).then_some(DeviceEvent::Hierarchy),
    };
    let reply = reply::empty(StatusCode::OK);
    Ok(answer
        .to_headers()
        .into_iter()
        .fold(reply, |reply, (name, value)| reply::with_ours(reply, name, &value)))
}

/// A subscription that its asker does not know of yet.
struct Unheard<'a> {
    notifier: &'a Notifier,
    id: Option<SubscriptionId>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.notifier.withdraw(id);
        }
    }
}

/// What already counts, and the hierarchy number now.
async fn compare(boxes: &Mailboxes, mailbox: u64, new: &NewSubscription) -> Result<(Wake, u64), Error> {
    let state = boxes.state(mailbox).await?;
    let head = state.tree.folder(new.folder).ok_or(Error::Gone("the folder"))?;
    let mut found = Wake::Never;
    if head.changed > new.base.0 {
        found = if new.base.0 == 0 { newest(boxes, new).await? } else { log(boxes, new).await? };
    }
    if found == Wake::Later && new.delay_secs == 0 {
        found = Wake::Now;
    }
    Ok((found, state.head.hierarchy))
}

/// The folder was never synced: any item counts, and the newest are the likeliest.
async fn newest(boxes: &Mailboxes, new: &NewSubscription) -> Result<Wake, Error> {
    let (mut before, mut seen, mut found) = (0, 0, Wake::Never);
    loop {
        let items = boxes.newest(new.mailbox, new.folder, before, PAGE).await?;
        for (id, item) in &items {
            found = found.max(wake(&entry(*id, item), new.base, new.floor, &new.device));
        }
        seen += items.len();
        match items.last() {
            Some((last, _)) if found != Wake::Now && items.len() == PAGE => before = *last,
            _ => return Ok(found),
        }
        if seen >= COMPARED_MAX {
            // Too much to look at while a device waits: its Sync finds out, and moves the token.
            return Ok(Wake::Now);
        }
    }
}

/// The folder is known up to a number: what the log says since.
async fn log(boxes: &Mailboxes, new: &NewSubscription) -> Result<Wake, Error> {
    let (mut since, mut seen, mut found) = (new.base.0, 0, Wake::Never);
    loop {
        let (entries, reached, more) = boxes.log_above(new.mailbox, new.folder, since, PAGE).await?;
        for entry in &entries {
            found = found.max(wake(entry, new.base, new.floor, &new.device));
        }
        seen += entries.len();
        match reached {
            Some(reached) if found != Wake::Now && more => since = reached,
            _ => return Ok(found),
        }
        if seen >= COMPARED_MAX {
            return Ok(Wake::Now);
        }
    }
}

/// Renewal by ids; it must not look like a new subscription ([Exchange SDK]).
fn renew(at: &InMailbox<'_>, front_end: FrontEndNumber, ids: &str) -> Result<Reply, Reply> {
    let call = at.call;
    for name in [headers::CALL_BACK, headers::NOTIFICATION_TYPE, headers::DEPTH] {
        if call.header(name).is_some() {
            return Err(reply::text(
                StatusCode::BAD_REQUEST,
                format!("{name} does not belong into a renewal"),
            ));
        }
    }
    let ids = parse_ids(ids).map_err(|error| reply::text(StatusCode::BAD_REQUEST, error))?;
    let lifetime = match call.header(headers::SUBSCRIPTION_LIFETIME).map(|text| text.trim().parse::<u32>()) {
        None => LIFETIME_SECS_MAX,
        Some(Ok(secs)) => secs.clamp(1, LIFETIME_SECS_MAX),
        Some(Err(_)) => {
            return Err(reply::text(StatusCode::BAD_REQUEST, "Subscription-lifetime cannot be read"));
        }
    };
    let mut answers = call.server.notifier.renew(front_end, &ids, lifetime);
    let unknown: Vec<_> =
        answers.iter().filter(|answer| answer.status == SubscriptionStatus::Unknown).map(|a| a.id).collect();
    let finish = |reply, ids| {
        let reply = reply::with_ours(reply, headers::SUBSCRIPTION_ID, &format_ids(ids));
        reply::with_ours(reply, headers::SUBSCRIPTION_LIFETIME, &lifetime.to_string())
    };
    if unknown.len() == answers.len() {
        return Err(finish(reply::text(StatusCode::PRECONDITION_FAILED, "unknown subscriptions"), unknown));
    }
    if answers.len() == 1 {
        return Ok(finish(reply::empty(StatusCode::OK), ids));
    }
    // In the body of a renewal 200 says: renewed.
    for answer in answers.iter_mut().filter(|answer| answer.status == SubscriptionStatus::Unchanged) {
        answer.status = SubscriptionStatus::Changed;
    }
    Ok(finish(reply::multi_status(poll::write(call.href(), &answers)), ids))
}

fn reason(status: StatusCode, line: impl std::fmt::Display, reason: &str) -> Reply {
    reply::with_ours(reply::text(status, line), headers::REASON, reason)
}
