//! Orders for a device: it hears of a wipe while it waits, and wipes itself.

use directpush_be::admin::{
    Answer, Order,
    devices::{DeviceAnswer, DeviceOrder, ListedDevice},
};
use directpush_common::eas::ping::PingResponse;
use directpush_device::core::{Kind, Trouble};

use crate::stage::Stage;

const ALICE: &str = "alice@example.com";

async fn the_device(stage: &Stage) -> ListedDevice {
    let order = Order::Device(DeviceOrder::List { user: ALICE.to_owned() });
    let Answer::Device(DeviceAnswer::Devices(mut list)) = stage.backend.order(order).await else {
        panic!("no list")
    };
    assert_eq!(list.len(), 1);
    list.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_device_is_wiped_at_once() {
    let stage = Stage::new().await;
    let mut phone = stage.phone(Kind::Android);
    phone.pinging().await;
    stage.armed(1).await;
    let known = the_device(&stage).await;
    assert_eq!(known.order, "none");
    assert!(known.seen.ping > 0 && known.seen.heartbeat_secs > 0 && known.seen.front_end == "fe-1");
    let wipe = DeviceOrder::Wipe { user: ALICE.to_owned(), device: known.device, account_only: false };
    assert!(matches!(stage.backend.order(Order::Device(wipe)).await, Answer::Device(DeviceAnswer::Done)));
    let (response, _) = phone.pinged().await;
    assert_eq!(response, PingResponse::FolderSyncRequired, "Status 7, at once");
    assert_eq!(phone.trouble().await, Some(Trouble::Wiped));
    // It has not said so: this device does not live to.
    assert_eq!(the_device(&stage).await.order, "wipe");
    stage.strike().await;
}
