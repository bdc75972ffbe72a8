//! SUBSCRIBE, NOTIFY, UNSUBSCRIBE, POLL.

use directpush_common::dav::poll::{self, SubscriptionStatus};
use directpush_common::dav::subscribe::{Already, DELAY_NEVER, DeviceEvent, Since, Subscribed};
use directpush_common::names::Guid;
use directpush_common::numbers::{CollectionToken, Number};

use crate::client::{ALICE, Answer, Be};

fn subscribed(answer: &Answer) -> Subscribed {
    Subscribed::from_headers(|name| answer.header(name)).unwrap()
}

async fn unsubscribe(be: &Be, ids: &str, only_if_changed: bool) -> Answer {
    let mut headers = vec![("Subscription-id", ids)];
    if only_if_changed {
        headers.push(("DirectPush-Only-If-Changed", "t"));
    }
    be.fe("UNSUBSCRIBE", &format!("/exchange/{ALICE}/"), &headers, b"").await.expect(207)
}

fn statuses(answer: &Answer) -> Vec<SubscriptionStatus> {
    poll::read(&answer.body).unwrap().iter().map(|answer| answer.status).collect()
}

#[tokio::test]
async fn a_delivery_wakes_and_unsubscribe_says_what_changed() {
    let be = Be::start().await;
    let inbox = subscribed(&be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200));
    let calendar = subscribed(&be.subscribe("Calendar", &be.question(1, Since::Now, 1)).await.expect(200));
    assert_eq!((inbox.already, inbox.event), (Already::Nothing, None));
    assert_eq!(inbox.content_location, format!("/exchange/{ALICE}/Inbox/"));
    assert_eq!((inbox.lifetime_secs, inbox.delay_secs), (540, 300));
    let ids = format!("{}, {}", inbox.id, calendar.id);
    let kept = unsubscribe(&be, &ids, true).await;
    assert_eq!(kept.header("directpush-kept"), Some("t"));

    be.deliver("wake up").await;
    let notify = be.notify().await;
    assert_eq!((notify.call_back, notify.group), (be.call_back(), Some(Guid([1; 16]))));
    assert_eq!(notify.ids[..], [inbox.id]);
    let ended = unsubscribe(&be, &ids, true).await;
    assert_eq!(ended.header("directpush-kept"), None);
    assert_eq!(statuses(&ended), [SubscriptionStatus::Changed, SubscriptionStatus::Unchanged]);
    let gone = unsubscribe(&be, &ids, false).await;
    assert_eq!(statuses(&gone), [SubscriptionStatus::Unknown; 2]);
}

#[tokio::test]
async fn notifies_leave_from_the_address_that_front_ends_know() {
    let be = Be::start_with(|config| config.http_listen = "127.9.9.8:0".parse().unwrap()).await;
    be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200);
    be.deliver("x").await;
    let udp = be.udp.try_clone().unwrap();
    let (_, from) =
        tokio::task::spawn_blocking(move || udp.recv_from(&mut [0; 2048])).await.unwrap().unwrap();
    assert_eq!(from.ip().to_string(), "127.9.9.8");
}

#[tokio::test]
async fn what_came_before_subscribe_is_found_by_it() {
    let be = Be::start().await;
    let first = subscribed(&be.subscribe("Inbox", &be.question(1, Since::Nothing, 1)).await.expect(200));
    assert_eq!(first.already, Already::Nothing);
    be.deliver("x").await;
    let never_synced =
        subscribed(&be.subscribe("Inbox", &be.question(2, Since::Nothing, 1)).await.expect(200));
    assert_eq!(never_synced.already, Already::Now);
    let mut young = be.question(3, Since::Nothing, 1);
    young.floor = Some(i64::MAX);
    assert_eq!(subscribed(&be.subscribe("Inbox", &young).await.expect(200)).already, Already::Nothing);
    let now = subscribed(&be.subscribe("Inbox", &be.question(4, Since::Now, 7)).await.expect(200));
    assert_eq!((now.already, now.event), (Already::Nothing, Some(DeviceEvent::Hierarchy)));
}

#[tokio::test]
async fn a_flag_may_wait_and_an_own_change_never_counts() {
    let be = Be::start().await;
    let url = format!("/exchange/{ALICE}/Inbox/a.eml");
    let tag = be.alice("PUT", &url, &[], b"Subject: x\r\n\r\n").await.expect(201);
    let (epoch, number) = tag.header("etag").unwrap().trim_matches('"').split_once('-').unwrap();
    let token = CollectionToken { epoch: epoch.parse().unwrap(), number: number.parse().unwrap() };
    let read = |value: u8| {
        format!(
            "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:m=\"urn:schemas:httpmail:\"><D:set><D:prop>\
             <m:read>{value}</m:read></D:prop></D:set></D:propertyupdate>"
        )
    };
    let phone = crate::client::phone().to_string();
    let own = [("DirectPush-Device", phone.as_str()), ("DirectPush-Cause", "sync")];
    be.fe("PROPPATCH", &url, &own, read(1).as_bytes()).await.expect(207);
    let known = Since::Token(token);
    let answer = subscribed(&be.subscribe("Inbox", &be.question(1, known, 1)).await.expect(200));
    assert_eq!(answer.already, Already::Nothing, "the device's own upload");
    be.alice("PROPPATCH", &url, &[], read(0).as_bytes()).await.expect(207);
    let answer = subscribed(&be.subscribe("Inbox", &be.question(2, known, 1)).await.expect(200));
    assert_eq!(answer.already, Already::Later);
    let mut at_once = be.question(3, known, 1);
    at_once.delay_secs = 0;
    assert_eq!(subscribed(&be.subscribe("Inbox", &at_once).await.expect(200)).already, Already::Now);
    let mut never = be.question(4, known, 1);
    never.delay_secs = DELAY_NEVER;
    assert_ne!(subscribed(&be.subscribe("Inbox", &never).await.expect(200)).already, Already::Now);
}

#[tokio::test]
async fn an_unusable_token_is_a_conflict() {
    let be = Be::start().await;
    for token in [CollectionToken { epoch: 1, number: Number(1) }] {
        let refused = be.subscribe("Inbox", &be.question(1, Since::Token(token), 1)).await.expect(409);
        assert_eq!(refused.header("directpush-reason"), Some("token"));
    }
    be.subscribe("No%20such", &be.question(1, Since::Now, 1)).await.expect(404);
    let id = format!("-FlatUrlSpace-/{}", "7529a5b36290aa458b9e1fc2d5ff85a6-2");
    be.subscribe(&id, &be.question(1, Since::Now, 1)).await.expect(403);
}

#[tokio::test]
async fn only_the_configured_call_back_is_taken() {
    let be = Be::start().await;
    for call_back in ["httpu://127.0.0.2:PORT", "httpu://127.0.0.1:1", "httpu://localhost:PORT"] {
        let port = be.udp.local_addr().unwrap().port().to_string();
        let question = be.question(1, Since::Now, 1);
        let (host, at) = call_back["httpu://".len()..].split_once(':').unwrap();
        let at = at.replace("PORT", &port).parse().unwrap();
        let call_back = directpush_common::httpu::CallBack::new(host, at, Guid([1; 16])).unwrap();
        let question = directpush_common::dav::subscribe::Subscribe { call_back, ..question };
        let refused = be.subscribe("Inbox", &question).await.expect(403);
        assert_eq!(refused.header("directpush-reason"), Some("call-back"));
    }
    let question = be.question(1, Since::Now, 1).to_headers();
    let headers: Vec<_> = question.iter().map(|(name, value)| (*name, value.as_str())).collect();
    be.alice("SUBSCRIBE", &format!("/exchange/{ALICE}/Inbox/"), &headers, b"").await.expect(403);
}

#[tokio::test]
async fn poll_by_call_back_lists_what_counts_and_acknowledges_nothing() {
    let be = Be::start().await;
    let inbox = subscribed(&be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200));
    be.subscribe("Tasks", &be.question(1, Since::Now, 1)).await.expect(200);
    let call_back = be.call_back().to_string();
    let poll = [("Call-Back", call_back.as_str()), ("DirectPush-Poll-Interval", "60")];
    let quiet = be.fe("POLL", "/exchange/", &poll, b"").await.expect(207);
    assert_eq!((quiet.header("directpush-count"), poll::read(&quiet.body).unwrap().len()), (Some("2"), 0));
    be.deliver("x").await;
    for _ in 0..2 {
        let found = poll::read(&be.fe("POLL", "/exchange/", &poll, b"").await.expect(207).body).unwrap();
        assert_eq!((found.len(), found[0].id, found[0].group), (1, inbox.id, Some(Guid([1; 16]))));
    }
    let by_id = [("Subscription-id", inbox.id.to_string())];
    let by_id = [(by_id[0].0, by_id[0].1.as_str())];
    assert_eq!(statuses(&be.fe("POLL", "/exchange/", &by_id, b"").await), [SubscriptionStatus::Changed]);
    assert_eq!(statuses(&be.fe("POLL", "/exchange/", &by_id, b"").await), [SubscriptionStatus::Unchanged]);
}

#[tokio::test]
async fn a_renewal_names_its_ids_and_nothing_else() {
    let be = Be::start().await;
    let id =
        subscribed(&be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200)).id.to_string();
    let url = format!("/exchange/{ALICE}/Inbox/");
    let renewed = be.fe("SUBSCRIBE", &url, &[("Subscription-id", &id)], b"").await.expect(200);
    assert_eq!(renewed.header("subscription-lifetime"), Some("3600"));
    be.fe("SUBSCRIBE", &url, &[("Subscription-id", &id), ("Depth", "1")], b"").await.expect(400);
    be.fe("SUBSCRIBE", &url, &[("Subscription-id", "99999")], b"").await.expect(412);
    let some = format!("{id}, 99999");
    be.fe("SUBSCRIBE", &url, &[("Subscription-id", &some)], b"").await.expect(207);
}

#[tokio::test]
async fn device_events_reach_waiting_devices() {
    let be = Be::start().await;
    let id =
        subscribed(&be.subscribe("Inbox", &be.question(1, Since::Now, 1)).await.expect(200)).id.to_string();
    be.alice("MKCOL", &format!("/exchange/{ALICE}/New/"), &[], b"").await.expect(201);
    be.notify().await;
    let ended = unsubscribe(&be, &id, true).await;
    assert_eq!(ended.header("directpush-event"), Some("hierarchy"));

    let id =
        subscribed(&be.subscribe("Inbox", &be.question(2, Since::Now, 2)).await.expect(200)).id.to_string();
    let server = be.running.as_ref().unwrap().server();
    let edit = directpush_be::mailbox::users::Edit { disabled: Some(true), ..Default::default() };
    server.boxes.edit_user(&ALICE.parse().unwrap(), edit).await.unwrap();
    be.notify().await;
    // The act-for token is outdated now; the end of the Ping is answered all the same.
    let ended = unsubscribe(&be, &id, true).await;
    assert_eq!(ended.header("directpush-event"), Some("disabled"));
    let refused = be.fe("GET", &format!("/exchange/{ALICE}/Inbox/"), &[], b"").await.expect(401);
    assert_eq!(refused.header("directpush-reason"), Some("credential"));
}

/// Deliveries race with SUBSCRIBEs: each is either in the answer or in a NOTIFY, and POLL knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_falls_between() {
    let be = std::sync::Arc::new(Be::start().await);
    for round in 0..20u8 {
        let now = subscribed(&be.subscribe("Inbox", &be.question(100, Since::Now, 1)).await.expect(200));
        unsubscribe(&be, &now.id.to_string(), false).await;
        let url = format!("/exchange/{ALICE}/Inbox/");
        let body = directpush_common::dav::items::ItemsRequest::Changes { since: None, limit: 512 }.write();
        let items = be.fe("REPORT", &url, &[], body.as_bytes()).await.expect(207);
        let token = directpush_common::dav::items::Items::read(&items.body).unwrap().token;
        let delivering = tokio::spawn({
            let be = be.clone();
            async move { be.deliver("race").await }
        });
        let question = be.question(round + 1, Since::Token(token), 1);
        let answer = subscribed(&be.subscribe("Inbox", &question).await.expect(200));
        delivering.await.unwrap();
        let ended = unsubscribe(&be, &answer.id.to_string(), false).await;
        assert_eq!(statuses(&ended), [SubscriptionStatus::Changed], "round {round}: {:?}", answer.already);
    }
}
