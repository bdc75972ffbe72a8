//! What a subscription costs the back end: its ledger by itself, filled in this process.
//!
//! The back end's own memory cannot tell: the caches of its store move by more than all subscriptions take, up and down.

use anyhow::{Context, Result};
use directpush_common::clock::Moment;
use directpush_common::httpu::CallBack;
use directpush_common::names::{DeviceKey, Guid};
use directpush_common::numbers::Number;
use directpush_common::push::ledger::{FrontEndNumber, Ledger, LedgerLimits, NewSubscription};

use super::measure::pss_bytes;
use super::report::{Report, Subject};

const SUBSCRIPTIONS: u64 = 100_000;
const NOW: Moment = Moment(1_000_000);

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // Both stay: what a freed one leaves behind would be taken for nothing.
    let (one, one_bytes) = filled(1)?;
    let (five, five_bytes) = filled(5)?;
    drop((one, five));
    let mut row = |name, value| report.add(Subject::Directpush, name, "bytes", "≤ 300", value);
    row("memory of a subscription, 1 folder", one_bytes);
    row("memory of a subscription, 5 folders", five_bytes);
    Ok(())
}

/// A device per mailbox, each with a Ping for so many folders; and the bytes of each subscription.
fn filled(folders: u64) -> Result<(Ledger, f64)> {
    let me = [std::process::id()];
    let before = pss_bytes(&me)?;
    let mut ledger = Ledger::new(LedgerLimits::default(), 1);
    for device in 0..SUBSCRIPTIONS / folders {
        for folder in 1..=folders {
            ledger.handle_subscribe(NOW, &subscription(device, folder)?).context("the ledger is full")?;
        }
    }
    let grown = pss_bytes(&me)? - before;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = grown / ledger.len() as f64;
    Ok((ledger, each))
}

fn subscription(device: u64, folder: u64) -> Result<NewSubscription> {
    let mut group = [0; 16];
    group[..8].copy_from_slice(&device.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    Ok(NewSubscription {
        front_end: FrontEndNumber(0),
        call_back: CallBack::new("fe", 2883, Guid([1; 16])).context("a call-back")?,
        group: Guid(group),
        mailbox: device,
        folder,
        device: DeviceKey::new("iPhone", &format!("ABCDEF{device:026}")).context("a device")?,
        base: Number(10),
        floor: None,
        delay_secs: 300,
        lifetime_secs: 3600,
        poll_interval_secs: 60,
    })
}
