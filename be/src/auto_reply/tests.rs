use std::sync::OnceLock;
use std::time::Duration;

use directpush_common::mail::oof::{Oof, OofBody, OofReply, OofState};

use super::*;
use crate::mailbox::Mailboxes;
use crate::mailbox::addresses::AddressRules;
use crate::mailbox::condition::Conditions;
use crate::store::Store;
use crate::submission::PostOffice;
use crate::submission::queue::files::Memory;
use crate::submission::queue::smart_host::SmartHost;
use crate::submission::queue::{self, QueueSettings};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

struct Stage {
    responder: Responder,
    queue: Queue,
    alice: Arc<Account>,
}

fn reply(text: &str) -> OofReply {
    OofReply::new(text, OofBody::Text).unwrap()
}

fn away() -> Oof {
    Oof {
        state: OofState::On,
        internal: reply("internal"),
        external_known: reply("known"),
        external_unknown: reply("unknown"),
    }
}

impl Stage {
    /// alice is away, with an alias; bob lives here too. What is queued stays.
    async fn new(settings: AutoReplySettings) -> Self {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let alice = boxes.add_user(&"alice@x.example".parse().unwrap(), String::new()).await.unwrap();
        boxes.add_user(&"bob@x.example".parse().unwrap(), String::new()).await.unwrap();
        let alias = "sales@x.example".parse().unwrap();
        boxes.add_alias(&alice.name, &alias).await.unwrap();
        boxes.put_oof(alice.mailbox, away(), Conditions::default()).await.unwrap();
        let post = Arc::new(Post {
            boxes,
            rules: AddressRules {
                default_domain: Some("x.example".into()),
                delimiter: Some('+'),
                ..AddressRules::default()
            },
            spam_marks: Vec::new(),
            duplicate_window: Duration::ZERO,
            host: "be.x.example".into(),
            replies: OnceLock::new(),
        });
        let office = Arc::new(PostOffice::new(post.clone(), String::new()));
        let carrier = Arc::new(None::<SmartHost>);
        let held = QueueSettings { orders_only: true, ..QueueSettings::default() };
        let clock: queue::Clock = Arc::new(|| u64::try_from(NOW).unwrap());
        let (queue, owner) =
            queue::open(Arc::new(Memory::default()), held, carrier, office, clock).await.unwrap();
        tokio::spawn(owner.run(CancellationToken::new()));
        Self { responder: Responder::new(post, queue.clone(), true, settings), queue, alice }
    }

    async fn answer(&mut self, sender: &str, header: &str, now: i64) -> Result<(), NoReply> {
        let header = Bytes::from(format!("{header}\r\n\r\n").into_bytes());
        let arrival = Arrival { account: self.alice.clone(), sender: sender.to_owned(), header };
        self.responder.answer(arrival, now).await.unwrap()
    }

    async fn queued(&self) -> Vec<(String, String)> {
        let listed = self.queue.list(None, None, 100).await.unwrap();
        listed.into_iter().map(|mail| (mail.sender, mail.recipients[0].address.clone())).collect()
    }
}

async fn stage() -> Stage {
    Stage::new(AutoReplySettings::default()).await
}

#[tokio::test]
async fn one_sender_is_answered_once_in_the_window_and_once_in_one_absence() {
    let mut stage = stage().await;
    let to = "To: alice@x.example";
    assert_eq!(stage.answer("carol@y.example", to, NOW).await, Ok(()));
    assert_eq!(stage.answer("Carol@Y.example", to, NOW + 1).await, Err(NoReply::HadOne));
    assert_eq!(stage.answer("carol@y.example", to, NOW + 30 * DAY).await, Err(NoReply::HadOne));
    assert_eq!(stage.answer("dan@y.example", to, NOW).await, Ok(()));
    let boxes = stage.responder.post.boxes.clone();
    for state in [OofState::Off, OofState::On] {
        boxes.put_oof(stage.alice.mailbox, Oof { state, ..away() }, Conditions::default()).await.unwrap();
    }
    assert_eq!(stage.answer("carol@y.example", to, NOW + 6 * DAY).await, Err(NoReply::HadOne));
    assert_eq!(stage.answer("carol@y.example", to, NOW + 7 * DAY).await, Ok(()));
    // The reverse path is empty: nobody answers or reports it.
    let carol = (String::new(), "carol@y.example".to_owned());
    assert_eq!(stage.queued().await, [carol.clone(), (String::new(), "dan@y.example".into()), carol]);
}

#[tokio::test]
async fn machines_lists_reports_and_the_user_are_never_answered() {
    let mut stage = stage().await;
    for sender in
        ["", "MAILER-DAEMON@y.example", "noreply@y.example", "owner-l@y.example", "l-request@y.example"]
    {
        let answer = stage.answer(sender, "To: alice@x.example", NOW).await;
        assert_eq!(answer, Err(NoReply::Machine), "{sender}");
    }
    for field in [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated",
        "Precedence: bulk",
        "Precedence: list",
        "List-Id: <l.y.example>",
        "List-Unsubscribe: <mailto:l@y.example>",
        "X-Auto-Response-Suppress: OOF",
        "Content-Type: multipart/report; report-type=delivery-status",
    ] {
        let answer = stage.answer("carol@y.example", &format!("To: alice@x.example\r\n{field}"), NOW).await;
        assert_eq!(answer, Err(NoReply::Machine), "{field}");
    }
    for own in ["alice@x.example", "alice+tag@x.example", "sales@x.example"] {
        assert_eq!(stage.answer(own, "To: alice@x.example", NOW).await, Err(NoReply::Own), "{own}");
    }
    assert_eq!(stage.queued().await, []);
}

#[tokio::test]
async fn the_user_must_be_named_in_to_or_cc() {
    let mut stage = stage().await;
    for (n, header) in
        ["To: bob@x.example", "Bcc: alice@x.example", "To: undisclosed-recipients:;", "Subject: x"]
            .iter()
            .enumerate()
    {
        let answer = stage.answer(&format!("a{n}@y.example"), header, NOW).await;
        assert_eq!(answer, Err(NoReply::NotAddressed), "{header}");
    }
    for (n, header) in [
        "To: bob@x.example, Alice <Alice@X.example>",
        "Cc: alice+news@x.example",
        "To: Sales <sales@x.example>",
        "Resent-To: alice@x.example",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(stage.answer(&format!("b{n}@y.example"), header, NOW).await, Ok(()), "{header}");
    }
}

#[tokio::test]
async fn each_audience_has_its_own_reply_and_some_none() {
    let mut stage = stage().await;
    let boxes = stage.responder.post.boxes.clone();
    let (mailbox, to) = (stage.alice.mailbox, "To: alice@x.example");
    let dan = mark(&"dan@y.example".parse().unwrap());
    boxes.note_written_to(mailbox, vec![dan], 5).await.unwrap();
    let some = Oof { external_unknown: OofReply::default(), ..away() };
    boxes.put_oof(mailbox, some, Conditions::default()).await.unwrap();
    assert_eq!(stage.answer("carol@y.example", to, NOW).await, Err(NoReply::NothingToSay));
    assert_eq!(stage.answer("dan@y.example", to, NOW).await, Ok(()), "the user has written to them");
    assert_eq!(stage.answer("bob@x.example", to, NOW).await, Ok(()));
    assert_eq!(stage.answer("nobody@x.example", to, NOW).await, Err(NoReply::NoWay));
    stage.responder.relays = false;
    assert_eq!(stage.answer("dan@z.example", to, NOW).await, Err(NoReply::NoWay), "there is no smart host");
    let answered: Vec<String> = stage.queued().await.into_iter().map(|(_, to)| to).collect();
    assert_eq!(answered, ["dan@y.example", "bob@x.example"]);
}

#[tokio::test]
async fn only_who_is_away_answers() {
    let mut stage = stage().await;
    let boxes = stage.responder.post.boxes.clone();
    let (mailbox, to) = (stage.alice.mailbox, "To: alice@x.example");
    let state = OofState::scheduled(NOW, NOW + DAY).unwrap();
    boxes.put_oof(mailbox, Oof { state, ..away() }, Conditions::default()).await.unwrap();
    assert_eq!(stage.answer("carol@y.example", to, NOW - 1).await, Err(NoReply::NotAway));
    assert_eq!(stage.answer("carol@y.example", to, NOW + DAY).await, Err(NoReply::NotAway));
    assert_eq!(stage.answer("carol@y.example", to, NOW).await, Ok(()));
    stage.alice = Arc::new(Account { disabled: true, ..Account::clone(&stage.alice) });
    assert_eq!(stage.answer("dan@y.example", to, NOW).await, Err(NoReply::NotAway));
}

#[tokio::test]
async fn an_hour_has_so_many_replies_and_no_more() {
    let mut stage = Stage::new(AutoReplySettings { per_hour: 3, ..AutoReplySettings::default() }).await;
    let to = "To: alice@x.example";
    for n in 0..3 {
        assert_eq!(stage.answer(&format!("a{n}@y.example"), to, NOW).await, Ok(()));
        // Who had one does not use up the hour.
        assert!(stage.answer("a0@y.example", to, NOW).await.is_err());
    }
    assert_eq!(stage.answer("a3@y.example", to, NOW).await, Err(NoReply::Rate));
    assert_eq!(stage.answer("a3@y.example", to, NOW + 3900).await, Ok(()));
}
