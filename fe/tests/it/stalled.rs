//! A back end that takes requests and answers none: Exchange's events 3007 and 3014.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use directpush_common::eas::folder_sync::FolderSyncRequest;
use http::StatusCode;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::world::{PHONE, World};

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn folder_sync() -> Vec<u8> {
    FolderSyncRequest { sync_key: "0".into() }.encode()
}

/// The runtime of this test has one thread, so the front end logs to where the test looks.
#[tokio::test]
async fn a_stalled_back_end_is_reported_and_then_left_alone() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::start().await;
    world.prepare(PHONE, 1).await;

    world.fake.mailbox.lock().manners.stalled = true;
    let asked = || world.post(PHONE, "FolderSync", folder_sync());
    let (first, second, third, fourth, fifth) = tokio::join!(asked(), asked(), asked(), asked(), asked());
    for answer in [first, second, third, fourth, fifth] {
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
    }
    let said = log.text();
    assert_eq!(said.matches("EVENT_ID=3007").count(), 5, "{said}");
    assert_eq!(said.matches("EVENT_ID=3014").count(), 1, "{said}");

    // From now on the device is answered at once, and the back end hears nothing.
    let heard = world.fake.mailbox.lock().requests.len();
    let began = tokio::time::Instant::now();
    let answer = world.post(PHONE, "FolderSync", folder_sync()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(4), "the time of a time-out is 5 s");
    assert_eq!(world.fake.mailbox.lock().requests.len(), heard);
}
