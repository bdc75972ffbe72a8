//! `SyncRequest`: what a device last asked to be watched for, so that it need not say it again.
//!
//! A Sync that waits leaves its collections here ([MS-ASCMD] 2.2.1.21 Sync: the cached set of notifiable collections). An
//! empty request repeats it, one with `Partial` names only what is different, and the front end itself goes on from it when
//! a waiting Sync is woken. Keys and options are not in here: each collection's own state has them.

use serde::{Deserialize, Serialize};

use super::state::{STATE_VERSION, UnknownVersion};
use crate::eas::sync::{SyncCollection, SyncRequest, Wait};

/// The last request of a device that waited.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SyncCache {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// How long it waits.
    wait: CachedWait,
    /// The most changes of all collections together.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    /// Its collections.
    #[serde(rename = "c")]
    collections: Vec<CachedCollection>,
}

/// In the unit that the device asked in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
enum CachedWait {
    #[default]
    #[serde(rename = "n")]
    None,
    #[serde(rename = "m")]
    Minutes(i64),
    #[serde(rename = "s")]
    Seconds(i64),
}

#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
struct CachedCollection {
    #[serde(rename = "i")]
    id: String,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    get_changes: Option<bool>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    deletes_as_moves: Option<bool>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    conversation_mode: Option<bool>,
}

impl SyncCache {
    /// What is kept of a request.
    pub fn of(request: &SyncRequest) -> Self {
        let wait = match request.wait {
            None => CachedWait::None,
            Some(Wait::Minutes(minutes)) => CachedWait::Minutes(minutes),
            Some(Wait::Seconds(secs)) => CachedWait::Seconds(secs),
        };
        let collection = |it: &SyncCollection| CachedCollection {
            id: it.collection_id.clone(),
            window: it.window_size,
            get_changes: it.get_changes,
            deletes_as_moves: it.deletes_as_moves,
            conversation_mode: it.conversation_mode,
        };
        let collections = request.collections.iter().map(collection).collect();
        Self { version: STATE_VERSION, wait, window: request.window_size, collections }
    }

    /// Checks the version that was read.
    ///
    /// # Errors
    /// [`UnknownVersion`] for an object of a newer format.
    pub fn checked(self) -> Result<Self, UnknownVersion> {
        if (1..=STATE_VERSION).contains(&self.version) { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }

    /// The request again. Its collections have no key: theirs is the one of their last request
    /// ([`super::state::CollectionState::repeated_key`]).
    pub fn request(&self) -> SyncRequest {
        let wait = match self.wait {
            CachedWait::None => None,
            CachedWait::Minutes(minutes) => Some(Wait::Minutes(minutes)),
            CachedWait::Seconds(secs) => Some(Wait::Seconds(secs)),
        };
        let collections = self.collections.iter().map(CachedCollection::collection).collect();
        SyncRequest { collections, wait, window_size: self.window, partial: false }
    }

    /// What a `Partial` request means: what it leaves out is as it was.
    pub fn completed(&self, partial: SyncRequest) -> SyncRequest {
        let mut whole = self.request();
        for named in partial.collections {
            match whole.collections.iter_mut().find(|it| it.collection_id == named.collection_id) {
                Some(known) => {
                    let before = std::mem::replace(known, named);
                    known.window_size = known.window_size.or(before.window_size);
                    known.get_changes = known.get_changes.or(before.get_changes);
                    known.deletes_as_moves = known.deletes_as_moves.or(before.deletes_as_moves);
                    known.conversation_mode = known.conversation_mode.or(before.conversation_mode);
                }
                None => whole.collections.push(named),
            }
        }
        whole.wait = partial.wait.or(whole.wait);
        whole.window_size = partial.window_size.or(whole.window_size);
        whole
    }
}

impl CachedCollection {
    fn collection(&self) -> SyncCollection {
        SyncCollection {
            collection_id: self.id.clone(),
            window_size: self.window,
            get_changes: self.get_changes,
            deletes_as_moves: self.deletes_as_moves,
            conversation_mode: self.conversation_mode,
            ..SyncCollection::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str, key: &str, window_size: Option<u32>) -> SyncCollection {
        SyncCollection {
            collection_id: id.into(),
            sync_key: key.into(),
            window_size,
            ..SyncCollection::default()
        }
    }

    fn waiting() -> SyncRequest {
        let mut second = named("6", "9", Some(50));
        second.deletes_as_moves = Some(false);
        SyncRequest {
            collections: vec![named("5", "7", None), second],
            wait: Some(Wait::Seconds(480)),
            window_size: Some(100),
            partial: false,
        }
    }

    #[test]
    fn a_request_is_repeated_without_its_keys() {
        let cache = SyncCache::of(&waiting());
        let json = serde_json::to_string(&cache).unwrap();
        let cache = serde_json::from_str::<SyncCache>(&json).unwrap().checked().unwrap();
        let mut expected = waiting();
        expected.collections.iter_mut().for_each(|it| it.sync_key.clear());
        assert_eq!(cache.request(), expected);
        assert_eq!(SyncCache { version: 9, ..cache }.checked(), Err(UnknownVersion(9)));
        assert!(json.len() < 120, "{json}");
    }

    #[test]
    fn partial_replaces_what_it_names_and_keeps_the_rest() {
        let partial = SyncRequest {
            collections: vec![named("6", "10", None), named("8", "0", None)],
            wait: Some(Wait::Seconds(60)),
            window_size: None,
            partial: true,
        };
        let whole = SyncCache::of(&waiting()).completed(partial);
        let keys: Vec<_> =
            whole.collections.iter().map(|it| (it.collection_id.as_str(), it.sync_key.as_str())).collect();
        assert_eq!(keys, [("5", ""), ("6", "10"), ("8", "0")]);
        assert_eq!(
            (whole.wait, whole.window_size, whole.partial),
            (Some(Wait::Seconds(60)), Some(100), false)
        );
        let six = &whole.collections[1];
        assert_eq!((six.window_size, six.deletes_as_moves), (Some(50), Some(false)));
        let only_partial = SyncRequest { partial: true, ..SyncRequest::default() };
        assert_eq!(SyncCache::of(&waiting()).completed(only_partial).wait, Some(Wait::Seconds(480)));
    }
}
