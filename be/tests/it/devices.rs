//! The register of devices, orders for them, policies and device passwords, from outside.

use directpush_be::Config;
use directpush_be::admin::devices::{DeviceAnswer, DeviceOrder, ListedDevice};
use directpush_be::admin::{self, Answer as Told, Order};
use directpush_common::dav::subscribe::Since;

use crate::client::{ALICE, Answer, Be, phone};
use crate::users::{ok, tool};

const SAYS: [(&str, &str); 3] = [
    ("DirectPush-Agent", "Apple-iPhone14C2%2F2001.55"),
    ("DirectPush-Version", "14.1"),
    ("DirectPush-Command", "Sync"),
];

fn autd() -> String {
    format!("{}AutdState.xml", phone().state_url(&ALICE.parse().unwrap()))
}

async fn get(be: &Be) -> Answer {
    be.fe("GET", &autd(), &SAYS, b"").await
}

async fn order(be: &Be, order: DeviceOrder) -> DeviceAnswer {
    match admin::execute(&be.running.as_ref().unwrap().administered(), Order::Device(order)).await {
        Told::Device(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn device() -> String {
    phone().to_string()
}

async fn list(be: &Be) -> Vec<ListedDevice> {
    match order(be, DeviceOrder::List { user: ALICE.into() }).await {
        DeviceAnswer::Devices(list) => list,
        other => panic!("{other:?}"),
    }
}

async fn report(be: &Be, device: &str, wipe: &str) -> u16 {
    let body = format!("{{\"device\":\"{device}\",\"wipe\":\"{wipe}\"}}");
    be.fe("POST", "/directpush/device", &[], body.as_bytes()).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_ends_a_waiting_ping_and_stands_in_every_answer() {
    let be = Be::start().await;
    assert_eq!(get(&be).await.expect(404).header("DirectPush-Order"), None);
    let put = be.fe("PUT", &autd(), &SAYS, b"<autd/>").await.expect(201);
    assert_eq!(put.header("DirectPush-Policy"), None);
    let question = be.question(1, Since::Nothing, 1);
    let made = be.subscribe("Inbox", &question).await.expect(200);
    let id = made.header("Subscription-id").unwrap().to_owned();
    let found = list(&be).await.remove(0);
    assert_eq!((found.device, found.order.as_str()), (device(), "none"));
    assert_eq!(
        (found.seen.agent.as_str(), found.seen.version.as_str()),
        ("Apple-iPhone14C2/2001.55", "14.1")
    );
    assert_eq!((found.seen.heartbeat_secs, found.seen.front_end.as_str()), (480, "fe-1"));
    assert!(found.seen.sync > 0 && found.seen.ping > 0);

    let wipe =
        DeviceOrder::Wipe { user: ALICE.into(), device: phone().device_id().into(), account_only: false };
    order(&be, wipe).await;
    be.notify().await;
    let ask = [("Subscription-id", id.as_str()), ("DirectPush-Only-If-Changed", "t")];
    let ended = be.fe("UNSUBSCRIBE", &format!("/exchange/{ALICE}/"), &ask, b"").await.expect(207);
    assert_eq!(ended.header("DirectPush-Event"), Some("wipe"));
    let tag = get(&be).await.expect(200).header("ETag").unwrap().to_owned();
    let same = be.fe("GET", &autd(), &[("If-None-Match", &tag)], b"").await.expect(304);
    assert_eq!(same.header("DirectPush-Order"), Some("wipe"));
    let failed = be.fe("PUT", &autd(), &[("If-None-Match", "*")], b"x").await.expect(412);
    assert_eq!(failed.header("DirectPush-Order"), Some("wipe"));
    // A person sees no orders, and cannot report.
    assert_eq!(be.alice("GET", &autd(), &[], b"").await.expect(200).header("DirectPush-Order"), None);
    assert_eq!(be.alice("POST", "/directpush/device", &[], b"{}").await.status, 403);

    assert_eq!(report(&be, &device(), "failed").await, 200);
    assert_eq!(get(&be).await.header("DirectPush-Order"), Some("wipe"), "it is told again");
    assert_eq!(report(&be, &device(), "acknowledged").await, 200);
    assert_eq!(get(&be).await.header("DirectPush-Order"), Some("blocked"), "wiped, it stays out");
    assert_eq!(report(&be, "Other/1", "acknowledged").await, 409);
    assert_eq!(report(&be, "no device", "acknowledged").await, 400);
    assert_eq!(be.fe("POST", "/directpush/device", &[], b"[]").await.status, 400);
    let done = list(&be).await.remove(0).wipe.unwrap();
    assert!(done.acknowledged.is_some() && done.failed.is_some());

    let named = |order: fn(String, String) -> DeviceOrder| order(ALICE.into(), device());
    for (given, told) in [
        (named(|user, device| DeviceOrder::Allow { user, device }), Some("allowed")),
        (named(|user, device| DeviceOrder::Quarantine { user, device }), Some("quarantined")),
        (named(|user, device| DeviceOrder::Block { user, device }), Some("blocked")),
        (named(|user, device| DeviceOrder::Wipe { user, device, account_only: true }), Some("account-wipe")),
        (named(|user, device| DeviceOrder::CancelWipe { user, device }), Some("blocked")),
    ] {
        let shown = format!("{given:?}");
        order(&be, given).await;
        assert_eq!(get(&be).await.header("DirectPush-Order"), told, "{shown}");
    }
    be.subscribe("Inbox", &be.question(2, Since::Nothing, 1)).await.expect(200);
    order(&be, named(|user, device| DeviceOrder::Forget { user, device })).await;
    be.notify().await;
    let gone = get(&be).await.expect(404);
    assert_eq!((gone.header("DirectPush-Order"), gone.header("DirectPush-Device-State")), (None, Some("0")));
    assert!(list(&be).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_and_what_was_seen_outlive_the_process() {
    let mut be = Be::start().await;
    be.fe("PUT", &autd(), &SAYS, b"<autd/>").await.expect(201);
    order(&be, DeviceOrder::Quarantine { user: ALICE.into(), device: device() }).await;
    be.restart().await;
    let found = list(&be).await.remove(0);
    assert_eq!((found.order.as_str(), found.seen.version.as_str()), ("quarantined", "14.1"));
    assert_eq!(get(&be).await.header("DirectPush-Order"), Some("quarantined"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_only_so_many_devices() {
    let be = Be::start_with(|config| config.limits.devices_per_user_max = 2).await;
    let path = |id: usize| autd().replace(phone().device_id(), &format!("ID{id}"));
    for id in 0..2 {
        be.fe("PUT", &path(id), &[], b"x").await.expect(201);
    }
    let refused = be.fe("PUT", &path(2), &[], b"x").await.expect(403);
    assert_eq!(refused.header("DirectPush-Reason"), Some("devices"));
    be.fe("PUT", &path(1), &[], b"y").await.expect(204);
    order(&be, DeviceOrder::Forget { user: ALICE.into(), device: "ID0".into() }).await;
    be.fe("PUT", &path(2), &[], b"x").await.expect(201);
}

fn with_policies(config: &mut Config) {
    let text = "[policy]\ndefault = \"staff\"\n[policy.staff]\ndevice_password_enabled = true\n\
                [policy.guests]\nmin_device_password_length = 4\n";
    config.policies = Config::from_toml(text, "be.toml").unwrap().policies;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_in_force_is_told_and_a_waiting_ping_hears_of_another() {
    let be = Be::start_with(with_policies).await;
    let path = format!("/exchange/{ALICE}/NON_IPM_SUBTREE/Settings/Policy");
    let policy = async || {
        let answer = be.fe("GET", &path, &[], b"").await;
        let told = get(&be).await.header("DirectPush-Policy").map(ToOwned::to_owned);
        if answer.status == 404 {
            assert_eq!(told, None);
            return None;
        }
        let json: serde_json::Value = serde_json::from_slice(&answer.expect(200).body).unwrap();
        assert_eq!(json["hash"].as_str(), told.as_deref());
        Some(json["name"].as_str().unwrap().to_owned())
    };
    assert_eq!(policy().await.as_deref(), Some("staff"));
    assert_eq!(be.alice("GET", &path, &[], b"").await.status, 200);
    assert_eq!(be.alice("PUT", &path, &[], b"{}").await.status, 405);
    be.fe("PUT", &autd(), &SAYS, b"<autd/>").await.expect(201);
    be.subscribe("Inbox", &be.question(1, Since::Nothing, 1)).await.expect(200);
    let set = async |policy: &str| {
        let order = Order::SetUser {
            name: ALICE.into(),
            push: None,
            sync: None,
            disabled: None,
            display_name: None,
            hidden: None,
            device_passwords_only: None,
            policy: Some(policy.into()),
        };
        admin::execute(&be.running.as_ref().unwrap().administered(), order).await
    };
    assert!(matches!(set("guests").await, Told::Done));
    be.notify().await;
    assert_eq!(policy().await.as_deref(), Some("guests"), "and the token is still good");
    assert!(matches!(set("nonsense").await, Told::Refused(_)));
    set("none").await;
    assert_eq!(policy().await, None);
    set("").await;
    assert_eq!(policy().await.as_deref(), Some("staff"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_passwords_are_for_devices_and_end_one_by_one() {
    use data_encoding::BASE64;
    let be = Be::start().await;
    let add = async || {
        let added = order(&be, DeviceOrder::AddPassword { user: ALICE.into(), label: "phone".into() }).await;
        let DeviceAnswer::Password { id, password } = added else { panic!("{added:?}") };
        (id, password)
    };
    let (id, lost) = add().await;
    let (_, kept) = add().await;
    let token = async |password: &str| {
        let answer = be.log_on_as(ALICE, password).await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        json["token"].as_str().map(ToOwned::to_owned)
    };
    let token_of_lost = token(&lost).await.unwrap();
    let dav = async |password: &str| {
        let basic = format!("Basic {}", BASE64.encode(format!("{ALICE}:{password}").as_bytes()));
        let headers = [("Authorization", basic.as_str()), ("Depth", "0")];
        be.send("PROPFIND", &format!("/exchange/{ALICE}/"), &headers, b"").await.status
    };
    assert_eq!((dav(&lost).await, dav(crate::client::PASSWORD).await), (401, 207), "for devices only");
    order(&be, DeviceOrder::RemovePassword { user: ALICE.into(), id }).await;
    assert_eq!(token(&lost).await, None);
    let headers = [
        ("Authorization", "DirectPush fe-1:a secret of sixteen characters or more"),
        ("DirectPush-Act-For", token_of_lost.as_str()),
    ];
    assert_eq!(be.send("GET", &autd(), &headers, b"").await.status, 401, "and its log-on is over");
    assert!(token(&kept).await.is_some() && token(crate::client::PASSWORD).await.is_some());
    let only = Order::SetUser {
        name: ALICE.into(),
        push: None,
        sync: None,
        disabled: None,
        display_name: None,
        hidden: None,
        device_passwords_only: Some(true),
        policy: None,
    };
    admin::execute(&be.running.as_ref().unwrap().administered(), only).await;
    assert!(token(&kept).await.is_some() && token(crate::client::PASSWORD).await.is_none());
    assert_eq!(dav(crate::client::PASSWORD).await, 207, "the own password is good for DAV");
}

#[test]
fn device_on_the_command_line() {
    let dir = tempfile::TempDir::new().unwrap();
    let config = dir.path().join("be.toml");
    std::fs::write(&config, format!("state_dir = {:?}\nlmtp_listen = []\n", dir.path().join("state")))
        .unwrap();
    ok(&tool(&config, &["user", "add", "bob@example.com"], Some("secret\n")));
    ok(&tool(&config, &["device", "block", "bob@example.com", "iPhone/APPL1"], None));
    let listed = ok(&tool(&config, &["device", "list"], None));
    assert_eq!(listed, "bob@example.com\tiPhone/APPL1\tblocked\t-\t-\t-\t-\t0\t-\n");
    let json = ok(&tool(&config, &["device", "show", "bob@example.com", "APPL1", "--json"], None));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["order"].as_str(), json["policy"].as_str()), (Some("blocked"), Some("none")));
    assert!(
        ok(&tool(&config, &["device", "show", "bob@example.com", "APPL1"], None))
            .contains("order\tblocked\n")
    );
    for (arguments, why) in [
        (&["device", "wipe", "bob@example.com", "iPhone/NONE", "--yes"][..], "has no device iPhone/NONE"),
        (&["device", "wipe", "bob@example.com", "APPL1"], "--yes"),
        (&["device", "block", "bob@example.com", "nonsense"], "has no device nonsense"),
        (&["device", "block", "eve@example.com", "a/b"], "no such user"),
        (&["user", "set", "bob@example.com", "--policy", "nonsense"], "is no policy"),
    ] {
        let refused = tool(&config, arguments, None);
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains(why), "{refused:?}");
    }
    ok(&tool(&config, &["device", "wipe", "bob@example.com", "APPL1", "--yes"], None));
    assert!(ok(&tool(&config, &["device", "list", "--user", "bob@example.com"], None)).contains("\twipe\t"));
    ok(&tool(&config, &["device", "forget", "bob@example.com", "APPL1"], None));
    assert_eq!(ok(&tool(&config, &["device", "list", "--json"], None)), "[]\n");
    let add = ["user", "device-password", "add", "bob@example.com", "--label", "Bob's phone"];
    let password = ok(&tool(&config, &add, None));
    assert_eq!(password.trim().len(), 29);
    let listed = ok(&tool(&config, &["user", "device-password", "list", "bob@example.com"], None));
    let (id, rest) = listed.split_once('\t').unwrap();
    assert!(
        rest.starts_with("Bob's phone\t20") && rest.ends_with("\t-\n") && !listed.contains(password.trim())
    );
    ok(&tool(&config, &["user", "device-password", "remove", "bob@example.com", id], None));
    assert_eq!(
        ok(&tool(&config, &["user", "device-password", "list", "bob@example.com", "--json"], None)),
        "[]\n"
    );
}
