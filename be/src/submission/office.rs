//! The back end as the queue sees it: mailboxes for mail that could not be put there at once, and reports
//! (RFC 3464) into the sender's own Inbox.

use std::sync::Arc;

use directpush_common::change::{Cause, Maker};
use directpush_common::lmtp::RecipientResult;
use directpush_common::mail::Address;
use directpush_common::mail::dsn::{self, Action, Recipient};
use directpush_common::mail::trace;

use super::queue::entry::Outcome;
use super::queue::reply::Reply;
use super::queue::spool::digest;
use super::queue::{Carried, Carrier, Letter, Office, Report, ReportKind, Reported, smart_host::SmartHost};
use crate::delivery::{Origin, Parcel, Post};
use crate::error::{Error, WithCauses};
use crate::mailbox::folders::INBOX;
use crate::mailbox::items::NewItem;
use crate::mailbox::now_secs;

/// See above.
pub struct PostOffice {
    post: Arc<Post>,
    /// The smart host's name, for reports.
    smart_host: String,
}

impl PostOffice {
    pub fn new(post: Arc<Post>, smart_host: String) -> Self {
        Self { post, smart_host }
    }

    /// The report as a message; none if its sender has no address that one could write to.
    fn compose(&self, report: &Report) -> Option<Vec<u8>> {
        let to: Address = report.sender.parse().ok()?;
        let secs = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
        let given_up = report.kind == ReportKind::Failed;
        let action = if given_up { Action::Failed } else { Action::Delayed { until: secs(report.until) } };
        let recipient = |recipient: &super::queue::ReportedRecipient| {
            let reply = recipient.reply.clone().unwrap_or_else(|| Reply::none("it could not be tried"));
            Some(Recipient {
                address: recipient.address.parse().ok()?,
                action,
                status: reply.status(given_up).to_owned(),
                diagnostic: reply.to_string(),
                remote: if reply.code == 0 { String::new() } else { self.smart_host.clone() },
                tried: now_secs(),
            })
        };
        let recipients: Vec<Recipient> = report.recipients.iter().filter_map(recipient).collect();
        // The same report again has the same id; another one about the same message has another.
        let named: Vec<&str> = report.recipients.iter().map(|named| named.address.as_str()).collect();
        let of = digest(format!("{:?}{}", report.kind, named.join("\n")).as_bytes());
        let report = dsn::Report {
            to: &to,
            host: &self.post.host,
            arrived: secs(report.accepted),
            date: now_secs(),
            recipients: &recipients,
            message: &report.message,
            unique: &format!("{}{}", report.id, &of[..8]),
        };
        Some(trace::with_field(&dsn::compose(&report), "Return-Path", "<>"))
    }
}

fn outcome(result: RecipientResult) -> Outcome {
    match result {
        RecipientResult::Accepted => Outcome::Delivered(Reply::new(250, "2.1.5 OK")),
        RecipientResult::Unknown => Outcome::Permanent(Reply::new(550, "5.1.1 no such user here")),
        RecipientResult::Disabled => Outcome::Permanent(Reply::new(550, "5.2.1 the mailbox is disabled")),
        RecipientResult::NeverFits => Outcome::Permanent(Reply::new(552, "5.2.2 the mailbox is full")),
        RecipientResult::Loop => {
            Outcome::Permanent(Reply::new(554, "5.4.6 the message goes round in circles"))
        }
        RecipientResult::Refused => Outcome::Permanent(Reply::new(550, "5.7.1 not allowed")),
        RecipientResult::OverQuota => Outcome::Transient(Reply::new(452, "4.2.2 the mailbox is full")),
        RecipientResult::Full => Outcome::Transient(Reply::new(452, "4.3.1 no room now")),
        RecipientResult::Failed => Outcome::Transient(Reply::new(451, "4.3.0 not stored")),
    }
}

impl Office for PostOffice {
    async fn deliver(&self, letter: Letter) -> Carried {
        let Letter { sender, recipients, message, .. } = &letter;
        let parcel = Parcel { sender, recipients, message, origin: Origin::default() };
        let results = self.post.deliver(parcel).await;
        Carried { outcomes: results.into_iter().map(outcome).collect(), host_failed: false }
    }

    async fn report(&self, report: Report) -> Reported {
        let Some(message) = self.compose(&report) else { return Reported::Nobody };
        let boxes = &self.post.boxes;
        let put = async {
            let Some(account) = boxes.users.account(&report.user).await? else { return Ok(None) };
            let size = message.len() as u64;
            let body = boxes.store.bodies.put(message.into()).await?;
            let new =
                NewItem { body, size, content_type: "message/rfc822".into(), date: now_secs(), read: false };
            let added = boxes.add(account.mailbox, INBOX, new, Maker::of(Cause::Delivery)).await;
            added.map(Some).inspect_err(|_| boxes.body_dropped(body))
        };
        match put.await {
            Ok(Some(_)) => Reported::Done,
            Ok(None) | Err(Error::NoUser) => Reported::Nobody,
            Err(error) => {
                let (id, user) = (report.id, &report.user);
                tracing::warn!(%id, %user, error = %WithCauses(&error), "a report cannot be delivered now");
                Reported::Later
            }
        }
    }
}

/// Without a smart host what is in the queue waits for one.
impl Carrier for Option<SmartHost> {
    async fn carry(&self, letter: Letter) -> Carried {
        if let Some(smart_host) = self {
            return smart_host.carry(letter).await;
        }
        let missing = Outcome::Transient(Reply::none("4.3.5 no smart host is configured"));
        Carried { host_failed: true, ..Carried::all(&letter, &missing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailboxes;
    use crate::mailbox::addresses::AddressRules;
    use crate::store::Store;
    use crate::submission::queue::{Id, ReportedRecipient};

    async fn office() -> PostOffice {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        boxes.add_user(&"alice@x.example".parse().unwrap(), String::new()).await.unwrap();
        let post = Post {
            boxes,
            rules: AddressRules::default(),
            spam_marks: Vec::new(),
            duplicate_window: std::time::Duration::ZERO,
            host: "be.x.example".into(),
            replies: std::sync::OnceLock::new(),
        };
        PostOffice::new(Arc::new(post), "smtp.y.example".into())
    }

    fn report(user: &str) -> Report {
        let failed = ReportedRecipient {
            address: "bob@y.example".into(),
            reply: Some(Reply::new(550, "5.1.1 no such user")),
        };
        Report {
            id: Id(7),
            user: user.parse().unwrap(),
            sender: "alice@x.example".into(),
            accepted: 784_111_777,
            until: 784_543_777,
            kind: ReportKind::Failed,
            recipients: vec![failed],
            message: "Subject: x\r\n\r\nhello\r\n".into(),
        }
    }

    #[tokio::test]
    async fn a_report_comes_into_the_senders_inbox() {
        let office = office().await;
        assert_eq!(office.report(report("alice@x.example")).await, Reported::Done);
        assert_eq!(office.report(report("carol@x.example")).await, Reported::Nobody);
        let text = String::from_utf8(office.compose(&report("alice@x.example")).unwrap()).unwrap();
        assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"), "{text}");
        assert!(text.contains("Remote-MTA: dns; smtp.y.example\r\nDiagnostic"), "{text}");
    }

    #[tokio::test]
    async fn what_is_given_up_says_so_and_each_report_has_an_id_of_its_own() {
        let office = office().await;
        let mut late = report("alice@x.example");
        late.recipients[0].reply = Some(Reply::none("4.4.1 connection refused"));
        let text = |report: &Report| String::from_utf8(office.compose(report).unwrap()).unwrap();
        assert!(text(&late).contains("Status: 5.4.7"), "{}", text(&late));
        let id = |text: &str| text.lines().find(|line| line.starts_with("Message-ID")).unwrap().to_owned();
        let (first, again) = (id(&text(&late)), id(&text(&late)));
        late.recipients[0].address = "carol@y.example".into();
        let other = id(&text(&late));
        late.kind = ReportKind::Delayed;
        let warning = text(&late);
        assert!(warning.contains("Action: delayed\r\nStatus: 4.4.1"), "{warning}");
        assert_eq!(first, again);
        assert!(first != other && other != id(&warning));
    }
}
