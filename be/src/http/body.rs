//! Request bodies: bounded in size, in time, and in what all of them together take of memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::dav::reply::{self, Reply};
use crate::server::Server;

/// A peer that sends slower than this on the whole is cut off, once its first seconds are over.
const BYTES_PER_SEC_MIN: u64 = 8 * 1024;
/// How long a body waits for its place in memory.
const PLACE_WAIT: Duration = Duration::from_secs(10);
/// The unit in which memory is handed out.
const UNIT: u64 = 1024;

/// One mailbox's answers take at most this part of all memory for bodies.
const SHARE: u32 = 4;
/// Mailboxes whose share is remembered though nothing of it is taken.
const SHARES_IDLE_MAX: usize = 1024;

/// Memory for bodies.
pub struct Budget {
    places: Arc<Semaphore>,
    units: u32,
    /// What is left of each mailbox's share.
    shares: Mutex<HashMap<u64, Arc<Semaphore>>>,
}

/// A place in memory for an answer, out of its mailbox's share.
pub struct Place {
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
}

/// A body with its place in memory.
pub struct Read {
    pub bytes: Bytes,
    /// Held as long as the bytes are.
    pub place: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        Self { places: Arc::new(Semaphore::new(units as usize)), units, shares: Mutex::default() }
    }

    /// A place for so many bytes; none if there is none within a while. One body larger than all of the
    /// budget takes all of it.
    pub async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let waiting = self.places.clone().acquire_many_owned(units);
        timeout(PLACE_WAIT, waiting).await.ok()?.ok()
    }

    /// The same for an answer: who asks for much and reads it slowly does so out of the own mailbox's share. A body
    /// larger than the share takes all of it.
    pub async fn take_share(&self, mailbox: u64, bytes: u64) -> Option<Place> {
        let whole = self.units.div_ceil(SHARE);
        let share = {
            let mut shares = self.shares.lock();
            if shares.len() >= SHARES_IDLE_MAX {
                // What is taken of a share holds it.
                shares.retain(|_, share| Arc::strong_count(share) > 1);
            }
            shares.entry(mailbox).or_insert_with(|| Arc::new(Semaphore::new(whole as usize))).clone()
        };
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(whole);
        let share = timeout(PLACE_WAIT, share.acquire_many_owned(units)).await.ok()?.ok()?;
        Some(Place { _all: self.take(bytes).await?, _share: share })
    }
}

/// Memory is taken in steps of so many units while a body comes in.
const STEP: u32 = 64;

impl Budget {
    /// Makes a place grow to so many bytes. False if there is no room within a while.
    pub async fn grow(&self, place: &mut Option<OwnedSemaphorePermit>, bytes: u64) -> bool {
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let held = place.as_ref().map_or(0, |place| u32::try_from(place.num_permits()).unwrap_or(u32::MAX));
        if wanted <= held {
            return true;
        }
        let more = wanted.next_multiple_of(STEP).min(self.units) - held;
        let waiting = self.places.clone().acquire_many_owned(more);
        let Ok(Ok(more)) = timeout(PLACE_WAIT, waiting).await else { return false };
        match place {
            Some(place) => place.merge(more),
            None => *place = Some(more),
        }
        true
    }
}

/// A place in memory for a body of this mailbox that is to be sent.
pub async fn reserve(server: &Server, mailbox: u64, bytes: u64) -> Result<Place, Reply> {
    server.budget.take_share(mailbox, bytes).await.ok_or_else(reply::busy)
}

/// A body that keeps its place in memory until it is sent.
pub fn placed<P: Send + Sync + 'static>(bytes: Bytes, place: P) -> Bytes {
    struct Placed<P>(Bytes, P);
    impl<P> AsRef<[u8]> for Placed<P> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Placed(bytes, place))
}

/// Reads a request's body of at most `bytes_max`.
pub async fn read(
    server: &Server,
    headers: &HeaderMap,
    mut incoming: Incoming,
    bytes_max: u64,
) -> Result<Read, Reply> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    if length == Some(0) || hyper::body::Body::is_end_stream(&incoming) {
        return Ok(Read { bytes: Bytes::new(), place: None });
    }
    let mut start = Instant::now();
    let patience = Duration::from_secs(server.config.limits.request_secs);
    let mut bytes = BytesMut::new();
    let mut place: Option<OwnedSemaphorePermit> = None;
    loop {
        let due = start + patience + Duration::from_secs(bytes.len() as u64 / BYTES_PER_SEC_MIN);
        let frame = match timeout_at(due, incoming.frame()).await {
            Err(_) => {
                let reply = reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
                return Err(reply::with(reply, header::CONNECTION, "close"));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(reply::text(StatusCode::BAD_REQUEST, "the body was cut off")),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            let wanted = bytes.len() as u64 + data.len() as u64;
            if wanted > bytes_max {
                return Err(too_large());
            }
            // Room is taken for what has come, not for what was announced: announcing costs nothing.
            let before = Instant::now();
            if !server.budget.grow(&mut place, wanted).await {
                return Err(reply::with(reply::busy(), header::CONNECTION, "close"));
            }
            start += before.elapsed();
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Read { bytes: bytes.freeze(), place })
}

/// 413; the connection ends with it, because what is left of the body is not read.
fn too_large() -> Reply {
    let reply = reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    reply::with(reply, header::CONNECTION, "close")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_mailbox_takes_its_share_and_no_more() {
        let budget = Budget::new(256 * UNIT);
        let first = budget.take_share(1, 40 * UNIT).await.unwrap();
        assert!(budget.take_share(1, 30 * UNIT).await.is_none(), "64 are a quarter");
        let others: Vec<_> = [budget.take_share(2, 64 * UNIT).await, budget.take_share(3, UNIT).await].into();
        assert!(others.iter().all(Option::is_some));
        drop(first);
        assert!(budget.take_share(1, 64 * UNIT).await.is_some());
        for mailbox in 10..10 + SHARES_IDLE_MAX as u64 + 10 {
            budget.take_share(mailbox, UNIT).await.unwrap();
        }
        assert!(budget.shares.lock().len() <= SHARES_IDLE_MAX);
        // What is taken is not forgotten.
        assert!(budget.take_share(2, UNIT).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_grows_with_what_has_come() {
        let budget = Budget::new(256 * UNIT);
        let (mut one, mut two) = (None, None);
        assert!(budget.grow(&mut one, 10).await && budget.grow(&mut one, 64 * UNIT).await);
        assert_eq!(one.as_ref().unwrap().num_permits(), 64);
        assert!(budget.grow(&mut two, 100 * UNIT).await);
        assert_eq!(two.as_ref().unwrap().num_permits(), 128);
        assert!(!budget.grow(&mut two, 200 * UNIT).await, "the first one holds 64");
        drop(one);
        // One body larger than all of the budget takes all of it.
        assert!(budget.grow(&mut two, u64::MAX).await);
        assert_eq!(two.unwrap().num_permits(), 256);
    }
}
