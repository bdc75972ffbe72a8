//! Search and Find: mail by its words, people by their names.

use directpush_common::eas::Version;
use directpush_common::eas::find::{FindCriterion, FindRequest};
use directpush_common::eas::search::{MailboxQuery, Range, SearchRequest, SearchStore};
use directpush_common::wbxml::{Contents, dump_bytes};

use crate::fake::folder_id;
use crate::world::{MAIL, PHONE, Phone, World};

async fn search(world: &World, phone: Phone, store: SearchStore, range: (u32, u32)) -> String {
    let range = Range { first: range.0, last: range.1 };
    let body = SearchRequest { store, range, picture: false }.encode();
    dump_bytes(&world.body(phone, "Search", body).await, Contents::Shown)
}

fn words(text: &str) -> MailboxQuery {
    MailboxQuery { free_text: text.into(), classes: vec!["Email".into()], ..MailboxQuery::default() }
}

fn status(code: u8) -> String {
    format!("<Search><Status>1</Status><Response><Store><Status>{code}</Status></Store></Response></Search>")
}

#[tokio::test]
async fn mail_is_found_newest_first_with_its_range() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    let mut last = 0;
    for day in 0..5 {
        last = world.fake.deliver(1, &MAIL.replace("Lunch", &format!("Lunch {day}"))).await;
    }
    world.fake.deliver(1, &MAIL.replace("Lunch", "Dinner")).await;
    let all = search(&world, PHONE, SearchStore::Mailbox(words("lunch")), (0, 1)).await;
    assert!(all.contains(&format!("<LongId>1:{last}</LongId>")), "{all}");
    assert!(all.contains(&format!("<AirSync:CollectionId>{}</AirSync:CollectionId>", folder_id(1))), "{all}");
    let (first, second) = (all.find("Lunch 4").unwrap(), all.find("Lunch 3").unwrap());
    assert!(first < second && !all.contains("Lunch 2") && !all.contains("Dinner"));
    assert!(all.ends_with("<Range>0-1</Range><Total>5</Total></Store></Response></Search>"), "{all}");
    let rest = search(&world, PHONE, SearchStore::Mailbox(words("lunch")), (4, 9)).await;
    assert!(rest.contains("Lunch 0") && rest.contains("<Range>4-4</Range>"), "{rest}");
    assert_eq!(search(&world, PHONE, SearchStore::Mailbox(words("lunch")), (5, 9)).await, status(12));
    let none = search(&world, PHONE, SearchStore::Mailbox(words("breakfast")), (0, 9)).await;
    assert!(none.contains("<Result/>"), "{none}");
}

#[tokio::test]
async fn what_is_not_searched_for_has_its_status() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    let unknown = MailboxQuery { collection_ids: vec![folder_id(77).to_string()], ..words("x") };
    let no_date = MailboxQuery { since: Some("yesterday".into()), ..words("x") };
    for (store, code) in [
        (SearchStore::Documents, 13),
        (SearchStore::Mailbox(unknown), 11),
        (SearchStore::Mailbox(no_date), 2),
        (SearchStore::Mailbox(words("a OR b")), 8),
    ] {
        assert_eq!(search(&world, PHONE, store, (0, 9)).await, status(code));
    }
    let old = Phone { version: Version::V2_5, ..PHONE };
    assert_eq!(search(&world, old, SearchStore::Mailbox(words("x")), (0, 9)).await, status(2));
    world.fake.mailbox.lock().manners.search_incomplete = true;
    assert_eq!(search(&world, PHONE, SearchStore::Mailbox(words("x")), (0, 9)).await, status(10));
}

#[tokio::test]
async fn people_are_found_by_every_version() {
    let world = World::start().await;
    for version in [Version::V2_5, Version::V12_1, Version::V14_1] {
        let phone = Phone { version, ..PHONE };
        let found = search(&world, phone, SearchStore::Gal("ali".into()), (0, 9)).await;
        assert!(found.contains("<GAL:DisplayName>Alice Smith</GAL:DisplayName>"), "{found}");
        assert!(found.contains("<GAL:EmailAddress>alice@example.com</GAL:EmailAddress>"), "{found}");
        assert_eq!(search(&world, phone, SearchStore::Gal("ali".into()), (3, 9)).await, status(12));
    }
}

#[tokio::test]
async fn find_is_of_16_1_alone() {
    let world = World::start().await;
    let criterion = FindCriterion::Gal("ali".into());
    let request =
        FindRequest { search_id: "1".into(), criterion, range: Range { first: 0, last: 9 }, picture: false };
    let answer = world.body(PHONE, "Find", request.encode()).await;
    assert_eq!(dump_bytes(&answer, Contents::Shown), "<Find><Status>137</Status></Find>");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_hides_no_other() {
    let world = World::start().await;
    world.folder_sync(PHONE, "0").await;
    let damaged = world.fake.deliver(1, MAIL).await;
    world.fake.deliver(1, MAIL).await;
    world.fake.mailbox.lock().manners.damaged = Some(damaged);
    let found = search(&world, PHONE, SearchStore::Mailbox(words("lunch")), (0, 9)).await;
    assert!(found.contains("(unreadable message)") && found.contains(">Lunch<"), "{found}");
    assert!(found.contains("<Range>0-1</Range>"), "{found}");
}
