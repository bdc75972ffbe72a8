//! docs/protocol.md holds against the code: the tables of commands and of statuses, and statuses that no other test brings about.

use std::collections::BTreeSet;

use directpush_common::eas::folder_sync::FolderSyncResponse;
use directpush_common::eas::provision::{PolicyRequest, PolicyType, ProvisionRequest, ProvisionResponse};
use directpush_common::eas::status::{FolderSyncStatus, ProvisionStatus, SyncStatus};
use directpush_common::eas::sync::{CommandResponse, SyncCommand, SyncResponse};
use directpush_common::eas::{Command, CommonStatus, Version};
use directpush_common::wbxml::tags::email;
use directpush_common::wbxml::{Contents, Element, Limits, dump_bytes};

use crate::world::{MAIL, PHONE, Phone, World, collection};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The commands in the order in which OPTIONS lists them.
fn listed() -> impl Iterator<Item = Command> {
    directpush_common::eas::command::LISTED.split(',').map(|name| name.parse().unwrap())
}

#[test]
fn the_table_of_commands_is_the_codes() {
    let versions: Vec<_> = Version::ALL.iter().map(ToString::to_string).collect();
    let mut table =
        format!("| command | {} |\n|---|{}\n", versions.join(" | "), "---|".repeat(versions.len()));
    for command in listed() {
        let cells = Version::ALL.map(|version| if command.is_of(version) { "yes" } else { "-" });
        table.push_str(&format!("| {command} | {} |\n", cells.join(" | ")));
    }
    assert!(DOCUMENT.contains(&table), "docs/protocol.md should have this table:\n{table}");
}

#[tokio::test]
async fn every_command_is_served_where_the_table_says_so() {
    for version in Version::ALL.into_iter().filter(|version| version.is_offered()) {
        let world = World::start().await;
        for command in listed() {
            // A device each, so that no Ping waits for another.
            let phone = Phone { id: command.name(), version };
            let response = world.post(phone, command.name(), Vec::new()).await;
            let http = response.status().as_u16();
            let body = dump_bytes(&response.bytes().await.unwrap(), Contents::Shown);
            let unknown = http == 501 || body.contains("<Status>137</Status>");
            assert_eq!(unknown, !command.is_of(version), "{command} {version}: {http} {body}");
            assert!(http != 500, "{command} {version}");
        }
    }
}

/// The codes of the rows of the section behind this heading.
fn codes(heading: &str) -> Vec<u16> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn every_common_status_is_sent_or_never_sent_and_not_both() {
    let (sent, never) =
        (codes("Common statuses that are sent"), codes("Common statuses that are never sent"));
    let all: BTreeSet<u16> = sent.iter().chain(&never).copied().collect();
    assert_eq!(all.len(), sent.len() + never.len(), "a code stands in both tables, or twice");
    let specified: BTreeSet<u16> = (101..=156).chain(160..=179).chain([183, 184]).collect();
    assert_eq!(all, specified);
    let known = CommonStatus::ALL.iter().map(|status| u16::from(status.code()));
    assert!(known.into_iter().all(|code| all.contains(&code)));
}

/// Whatever is written meets somebody else's write.
async fn contended() -> World {
    let world = World::start().await;
    world.fake.mailbox.lock().manners.contended = true;
    world
}

#[tokio::test]
async fn somebody_elses_write_is_trouble_that_passes() {
    let world = contended().await;
    let expected = FolderSyncResponse::Failed(FolderSyncStatus::ServerError);
    assert_eq!(world.folder_sync(PHONE, "0").await, expected);
    let old = Phone { version: Version::V12_1, ..PHONE };
    let ask = ProvisionRequest {
        policy: Some(PolicyRequest::Ask(PolicyType::Wbxml)),
        ..ProvisionRequest::default()
    };
    let answer = world.body(old, "Provision", ask.encode()).await;
    let answer = ProvisionResponse::decode(&answer, Limits::default()).unwrap();
    assert_eq!(answer.status, ProvisionStatus::ServerError);
    // DeviceInformation of Settings, in bytes.
    let settings = b"\x03\x01\x6a\x00\x00\x12\x45\x56\x48\x57\x03A\x00\x01\x01\x01\x01".to_vec();
    let answer = dump_bytes(&world.body(old, "Settings", settings).await, Contents::Shown);
    assert!(answer.contains("<DeviceInformation><Status>4</Status>"), "{answer}");
}

#[tokio::test]
async fn a_sync_that_meets_another_is_asked_to_come_again() {
    for (version, status) in [(Version::V12_1, SyncStatus::ServerError), (Version::V14_1, SyncStatus::Retry)]
    {
        let (world, phone) = (World::start().await, Phone { version, ..PHONE });
        let key = world.prepare(phone, 1).await;
        world.fake.deliver(1, MAIL).await;
        world.fake.mailbox.lock().manners.contended = true;
        match world.sync(phone, collection(phone, 1, &key)).await {
            SyncResponse::Collections(collections) => assert_eq!(collections[0].status, status),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn changes_that_cannot_be_made_have_their_status() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let mut asked = collection(PHONE, 1, &key);
    asked.commands = vec![
        SyncCommand::Add { class: None, client_id: "1".into(), data: Vec::new() },
        SyncCommand::Fetch { server_id: "1:999".into() },
        SyncCommand::Delete { server_id: "1:999".into() },
    ];
    let SyncResponse::Collections(collections) = world.sync(PHONE, asked).await else { panic!() };
    let status = |response: &CommandResponse| match response {
        CommandResponse::Add { status, .. }
        | CommandResponse::Change { status, .. }
        | CommandResponse::Delete { status, .. }
        | CommandResponse::Fetch { status, .. } => *status,
        CommandResponse::Changed { .. } => SyncStatus::Success,
    };
    let told: Vec<_> = collections[0].responses.iter().map(status).collect();
    let (conversion, gone) = (SyncStatus::ConversionError, SyncStatus::ObjectNotFound);
    assert_eq!(told, [conversion, gone, gone]);
}

#[tokio::test]
async fn a_change_that_has_no_room_is_status_9() {
    let world = World::start().await;
    let key = world.prepare(PHONE, 1).await;
    let item = world.fake.deliver(1, MAIL).await;
    let SyncResponse::Collections(told) = world.sync(PHONE, collection(PHONE, 1, &key)).await else {
        panic!()
    };
    world.fake.mailbox.lock().manners.full = true;
    let mut asked = collection(PHONE, 1, &told[0].sync_key);
    let server_id = format!("1:{item}");
    let data = vec![Element::text(email::READ, "1")];
    asked.commands = vec![SyncCommand::Change { server_id: server_id.clone(), data }];
    let SyncResponse::Collections(told) = world.sync(PHONE, asked).await else { panic!() };
    let status = SyncStatus::CannotComplete;
    assert_eq!(told[0].responses, [CommandResponse::Change { server_id, status }]);
}
