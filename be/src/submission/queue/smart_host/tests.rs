//! The SMTP client against a host of our own, over real sockets.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;

use super::fake::{FakeHost, Offers};
use super::*;
use crate::submission::queue::Id;

const MESSAGE: &[u8] = b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nlast\r\n";

fn letter(recipients: &[&str]) -> Letter {
    Letter {
        id: Id(1),
        sender: "alice@example.com".into(),
        recipients: recipients.iter().map(|&address| address.into()).collect(),
        message: Bytes::from_static(MESSAGE),
    }
}

fn settings(host: &FakeHost, tls: Tls) -> SmartHostSettings {
    SmartHostSettings {
        host: "localhost".into(),
        port: host.port,
        tls,
        ca: Some(host.ca.clone()),
        login: None,
        hello: "be.example.com".into(),
        timeouts: Timeouts::default(),
    }
}

fn smart_host(host: &FakeHost, tls: Tls) -> SmartHost {
    SmartHost::new(settings(host, tls)).unwrap()
}

/// The reply codes of an attempt, negative when they are final refusals.
fn codes(carried: &Carried) -> Vec<i32> {
    let code = |outcome: &Outcome| match outcome {
        Outcome::Permanent(reply) => -i32::from(reply.code),
        other => other.reply().code.into(),
    };
    carried.outcomes.iter().map(code).collect()
}

fn says(begin: &'static str, answer: &'static str) -> impl Fn(&str) -> Option<String> + Send + Sync {
    move |line| line.starts_with(begin).then(|| answer.to_owned())
}

fn nothing(_: &str) -> Option<String> {
    None
}

#[tokio::test]
async fn each_recipient_has_an_answer_of_its_own_and_the_message_arrives_as_it_is() {
    let host = FakeHost::start(Offers::Plain, |line| match line {
        "RCPT TO:<later@x.example>" => Some("451 4.2.1 greylisted\r\n".into()),
        "RCPT TO:<never@x.example>" => Some("550-5.1.1 no such\r\n550 5.1.1 user\r\n".into()),
        _ => None,
    })
    .await;
    let smart_host = smart_host(&host, Tls::None);
    let to = ["yes@x.example", "later@x.example", "never@x.example", "not an address"];
    let carried = smart_host.carry(letter(&to)).await;
    assert_eq!(codes(&carried), [250, 451, -550, -553]);
    assert_eq!(carried.outcomes[2].reply().text, "5.1.1 no such user");
    assert!(!carried.host_failed);
    let arrived = host.arrived.lock().remove(0);
    assert_eq!(arrived.mail, "MAIL FROM:<alice@example.com>");
    assert_eq!(arrived.to, ["RCPT TO:<yes@x.example>"]);
    assert_eq!(arrived.message, MESSAGE);

    // The next message takes the same connection.
    smart_host.carry(letter(&["yes@x.example"])).await;
    assert_eq!((host.connections.load(SeqCst), host.count("EHLO")), (1, 1));
    assert_eq!(host.arrived.lock().len(), 1);
}

#[tokio::test]
async fn a_message_without_any_good_recipient_is_not_sent() {
    let host = FakeHost::start(Offers::Plain, says("RCPT", "550 5.1.1 no\r\n")).await;
    let smart_host = smart_host(&host, Tls::None);
    assert_eq!(codes(&smart_host.carry(letter(&["a@x", "b@x"])).await), [-550, -550]);
    assert_eq!((host.count("DATA"), host.count("RSET")), (0, 1));
    smart_host.carry(letter(&["a@x"])).await;
    assert_eq!(host.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_sender_or_message_is_final_or_not_as_the_host_says() {
    for (begin, answer, wanted) in [
        ("MAIL", "550 5.7.1 not you\r\n", -550),
        ("MAIL", "451 4.3.0 later\r\n", 451),
        ("DATA", "554 5.5.1 no\r\n", -554),
        ("message", "552 5.3.4 too big\r\n", -552),
        ("message", "452 4.3.1 no room\r\n", 452),
        ("message", "", 0),
        ("message", "354 what\r\n", 0),
        ("DATA", "250 what\r\n", 0),
        ("RCPT", "", 0),
        ("RCPT", "421 4.3.2 going\r\n", 421),
        ("DATA", "421 4.3.2 going\r\n", 421),
    ] {
        let host = FakeHost::start(Offers::Plain, says(begin, answer)).await;
        let carried = smart_host(&host, Tls::None).carry(letter(&["a@x", "b@x"])).await;
        assert_eq!(codes(&carried), [wanted, wanted], "{begin} {answer}");
        assert!(!carried.host_failed, "{begin} {answer}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_host_or_with_us_bounces_nothing() {
    for (begin, answer) in [
        ("greeting", "554 5.3.2 not today\r\n"),
        ("greeting", ""),
        ("greeting", "nonsense\r\n"),
        ("EHLO", "502 5.5.1 no\r\n"),
        ("MAIL", "530 5.7.0 authentication required\r\n"),
        ("MAIL", ""),
    ] {
        let host = FakeHost::start(Offers::Plain, says(begin, answer)).await;
        let smart_host = SmartHost::new(SmartHostSettings {
            timeouts: Timeouts { connect: Duration::from_millis(300), ..Timeouts::default() },
            ..settings(&host, Tls::None)
        });
        let carried = smart_host.unwrap().carry(letter(&["a@x"])).await;
        assert!(carried.host_failed, "{begin} {answer}");
        assert!(matches!(carried.outcomes[..], [Outcome::Transient(_)]), "{begin} {answer}");
    }
    let host = FakeHost::start(Offers::Plain, nothing).await;
    let nobody = SmartHostSettings { port: 1, ..settings(&host, Tls::None) };
    assert!(SmartHost::new(nobody).unwrap().carry(letter(&["a@x"])).await.host_failed);
}

#[tokio::test]
async fn starttls_comes_before_everything_that_must_not_be_read() {
    let host = FakeHost::start(Offers::StartTls, nothing).await;
    let login = Some(("alice".to_owned(), "open sesame".to_owned()));
    let smart_host = SmartHost::new(SmartHostSettings { login, ..settings(&host, Tls::Required) }).unwrap();
    assert_eq!(codes(&smart_host.carry(letter(&["a@x"])).await), [250]);
    assert!(host.arrived.lock()[0].encrypted);
    let commands = host.commands.lock();
    let begin: Vec<&str> = commands.iter().map(|line| line.split(' ').next().unwrap()).take(5).collect();
    assert_eq!(begin, ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"]);
    assert_eq!(commands[3], "AUTH PLAIN AGFsaWNlAG9wZW4gc2VzYW1l");
}

#[tokio::test]
async fn nothing_is_sent_when_tls_is_required_and_cannot_be_trusted() {
    let plain = FakeHost::start(Offers::Plain, nothing).await;
    assert!(smart_host(&plain, Tls::Required).carry(letter(&["a@x"])).await.host_failed);
    let other = FakeHost::start(Offers::StartTls, nothing).await;
    let offering = FakeHost::start(Offers::StartTls, nothing).await;
    let stranger = SmartHostSettings { ca: Some(other.ca.clone()), ..settings(&offering, Tls::Required) };
    let misnamed = SmartHostSettings { host: "127.0.0.1".into(), ..settings(&offering, Tls::Required) };
    let system = SmartHostSettings { ca: None, ..settings(&offering, Tls::Required) };
    for settings in [stranger, misnamed, system] {
        let carried = SmartHost::new(settings).unwrap().carry(letter(&["a@x"])).await;
        assert!(carried.host_failed, "{carried:?}");
    }
    let injecting = FakeHost::start(Offers::StartTlsWithMore, nothing).await;
    let carried = smart_host(&injecting, Tls::Required).carry(letter(&["a@x"])).await;
    assert!(
        carried.host_failed && carried.outcomes[0].reply().text.contains("followed by more"),
        "{carried:?}"
    );
    for host in [&plain, &other, &offering, &injecting] {
        assert_eq!(host.count("MAIL") + host.count("AUTH"), 0);
    }
}

#[tokio::test]
async fn opportunistic_tls_takes_what_there_is() {
    let plain = FakeHost::start(Offers::Plain, nothing).await;
    assert_eq!(codes(&smart_host(&plain, Tls::Opportunistic).carry(letter(&["a@x"])).await), [250]);
    assert!(!plain.arrived.lock()[0].encrypted);
    let offering = FakeHost::start(Offers::StartTls, nothing).await;
    let unknown = SmartHostSettings { ca: None, ..settings(&offering, Tls::Opportunistic) };
    let carried = SmartHost::new(unknown).unwrap().carry(letter(&["a@x"])).await;
    assert_eq!(codes(&carried), [250], "{carried:?}");
    assert!(offering.arrived.lock()[0].encrypted);
}

#[tokio::test]
async fn implicit_tls_and_the_login_mechanism() {
    let host = FakeHost::start_with(Offers::Implicit, &["AUTH LOGIN"], |line| match line {
        "YWxpY2U=" => Some("334 UGFzc3dvcmQ6\r\n".into()),
        "b3BlbiBzZXNhbWU=" => Some("235 2.7.0 welcome\r\n".into()),
        _ => None,
    })
    .await;
    let login = Some(("alice".to_owned(), "open sesame".to_owned()));
    let smart_host = SmartHost::new(SmartHostSettings { login, ..settings(&host, Tls::Implicit) }).unwrap();
    let carried = smart_host.carry(letter(&["a@x"])).await;
    assert_eq!(codes(&carried), [250], "{carried:?}");
    assert_eq!(host.count("AUTH LOGIN"), 1);
}

#[tokio::test]
async fn a_wrong_password_waits_for_the_administrator() {
    let host = FakeHost::start(Offers::StartTls, says("AUTH", "535 5.7.8 wrong\r\n")).await;
    let login = Some(("alice".to_owned(), "guess".to_owned()));
    let smart_host = SmartHost::new(SmartHostSettings { login, ..settings(&host, Tls::Required) }).unwrap();
    let carried = smart_host.carry(letter(&["a@x"])).await;
    assert!(carried.host_failed);
    assert_eq!(codes(&carried), [535], "not final: the message is not at fault");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let host = FakeHost::start(Offers::Plain, says("message", "250 ok\r\n")).await;
    let smart_host = smart_host(&host, Tls::None);
    smart_host.carry(letter(&["a@x"])).await;
    let kept = smart_host.idle.lock().pop();
    let mut kept = kept.unwrap();
    kept.quit().await.unwrap();
    smart_host.idle.lock().push(kept);
    assert_eq!(codes(&smart_host.carry(letter(&["b@x"])).await), [250]);
    assert_eq!(host.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_host_that_falls_silent_is_left() {
    let host = FakeHost::start(Offers::Plain, says("RCPT", "250-and\r\n")).await;
    let timeouts = Timeouts { command: Duration::from_millis(200), ..Timeouts::default() };
    let smart_host = SmartHost::new(SmartHostSettings { timeouts, ..settings(&host, Tls::None) }).unwrap();
    let carried = smart_host.carry(letter(&["a@x"])).await;
    assert_eq!(carried.outcomes[0].reply().status(false), "4.4.2");
}

#[tokio::test]
async fn what_the_host_cannot_take_is_final() {
    let host = FakeHost::start_with(Offers::Plain, &[], nothing).await;
    let smart_host = smart_host(&host, Tls::None);
    let eight_bit = Letter { message: Bytes::from("\r\n\r\né\r\n"), ..letter(&["a@x"]) };
    let carried = smart_host.carry(eight_bit.clone()).await;
    assert_eq!(carried.outcomes[0].reply().status(false), "5.6.3");
    let carried = smart_host.carry(letter(&["é@x"])).await;
    assert_eq!(carried.outcomes[0].reply().status(false), "5.6.7");

    let host = FakeHost::start(Offers::Plain, nothing).await;
    let smart_host = self::smart_host(&host, Tls::None);
    smart_host.carry(Letter { recipients: vec!["é@x".into()], ..eight_bit }).await;
    assert_eq!(host.arrived.lock()[0].mail, "MAIL FROM:<alice@example.com> SMTPUTF8 BODY=8BITMIME");
}

#[tokio::test]
async fn many_recipients_are_sent_in_several_transactions() {
    let host = FakeHost::start(Offers::Plain, nothing).await;
    let addresses: Vec<String> = (0..250).map(|n| format!("r{n}@x")).collect();
    let all = Letter { recipients: addresses, ..letter(&[]) };
    let carried = smart_host(&host, Tls::None).carry(all).await;
    assert_eq!(codes(&carried), vec![250; 250]);
    let sizes: Vec<usize> = host.arrived.lock().iter().map(|arrived| arrived.to.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn an_address_cannot_break_out_of_its_line() {
    for text in ["a@x>\r\nDATA", "a b@x", "<a@x", "a@", "@x", "a", "a\u{0}@x", "a@x\n"] {
        assert!(address(text).is_none(), "{text:?}");
    }
    for text in ["a@x", "o'hara+tag@x.example", "é@x", "a@[192.0.2.1]", "a..b@x"] {
        assert!(address(text).is_some(), "{text:?}");
    }
}
