//! The program itself, as somebody starts it who has just cloned the repository.

use std::{
    fs,
    process::{Command, Output},
};

use directpush_device::pair::{Frontend, Seat};

use crate::{process::Process, stage::PASSWORD};

fn directpush(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_directpush"))
        .args(arguments)
        .env("DIRECTPUSH_PASSWORD", PASSWORD)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

/// "It is done when" 1.
#[test]
fn the_demo_tells_the_whole_story() {
    for protocol in ["14.1", "2.5"] {
        let story = text(&directpush(&["demo", "--protocol", protocol]));
        let places: Vec<Option<usize>> = [
            "Ping: heartbeat 480 s",
            "PUT /exchange/alice@example.com/",
            "SUBSCRIBE /exchange/alice@example.com/Inbox/",
            "Call-Back: httpu://",
            "LMTP: ",
            "NOTIFY, ",
            "|NOTIFY httpu://",
            "UNSUBSCRIBE /exchange/alice@example.com/",
            "Ping status = 2: changed: ",
            "“Direct Push is just a heartbeat away”",
            "Ping without a body",
            "the whole story took",
        ]
        .iter()
        .map(|part| story.find(part))
        .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_answers_every_change_and_says_so_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let seats = [Seat::new("fe-1", false)];
    let backend = Process::backend(dir.path(), &seats, None, 4);
    let frontend = Frontend::start(Frontend::config(&seats[0], backend.http)).await.unwrap();
    let users = dir.path().join("users");
    let lines: Vec<String> = (0..4).map(|n| format!("user{n}@example.com {PASSWORD}")).collect();
    fs::write(&users, lines.join("\n")).unwrap();
    let fe = format!("http://{}", frontend.http().unwrap());
    let directpush_device::lmtp::LmtpAddress::Tcp(lmtp) = backend.lmtp() else { panic!("LMTP by TCP") };
    let lmtp = lmtp.to_string();
    let load = tokio::task::spawn_blocking(move || {
        let users = users.to_str().unwrap();
        directpush(&[
            "load",
            "--fe",
            &fe,
            "--lmtp",
            &lmtp,
            "--users-file",
            users,
            "--devices",
            "12",
            "--devices-per-user",
            "3",
            "--folders",
            "2",
            "--sources",
            "2",
            "--messages",
            "8",
            "--json",
        ])
    });
    let out = text(&load.await.unwrap());
    let reports: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let phases: Vec<&str> = reports.iter().map(|report| report["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["prepare", "park", "one"]);
    let one = &reports[2];
    assert_eq!((&one["changes"], &one["unanswered"]), (&8.into(), &0.into()), "{one}");
    assert!(one["from_data_us"]["p50"].as_f64().unwrap() > 0.0, "{one}");
    frontend.stop().await;
}

#[test]
fn mistakes_are_said_clearly() {
    let cases: [(&[&str], &str); 4] = [
        (&["device", "--server", "https://mail.example.com", "--user", "a"], "only http://"),
        (&["device", "--server", "http://127.0.0.1:1", "--user", "a", "--strategy", "ios"], "a strategy is"),
        (&["device", "--server", "x", "--user", "a", "--base64"], "--base64 needs"),
        (
            &["load", "--fe", "http://127.0.0.1:1", "--lmtp", "127.0.0.1:2", "--users", "nobody"],
            "a pattern such as",
        ),
    ];
    for (arguments, said) in cases {
        let output = directpush(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(said), "{arguments:?}: {errors}");
    }
}
