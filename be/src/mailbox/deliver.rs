//! Delivery: a message that comes once. An MTA that did not hear our reply brings it again, and a list
//! brings what came directly already; the same Message-ID comes into the same mailbox once in a while.
//!
//! What was seen is written in the same commit as the message, so no crash comes between. It is kept by
//! windows of time: a look reads this window and the one before, and what is older is removed on the way.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use directpush_common::change::Maker;

use super::items::{NewItem, Written};
use super::record::Record;
use super::{Mailboxes, decode, keys};
use crate::error::Error;
use crate::store::Read;

/// Old marks removed with one delivery, at most: more than come with it.
const FORGOTTEN_AT_ONCE: usize = 8;

/// What makes a message the same, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Once {
    /// A hash of the Message-ID.
    mark: [u8; 16],
    window_secs: u64,
}

impl Once {
    /// `window_secs` is not 0.
    pub fn new(message_id: &str, window_secs: u64) -> Self {
        let mut mark = [0; 16];
        mark.copy_from_slice(&Sha256::digest(message_id)[..16]);
        Self { mark, window_secs: window_secs.max(1) }
    }
}

impl Mailboxes {
    /// Adds a message, unless it came already: then nothing is written, and the answer is `None`.
    pub async fn deliver(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        new: NewItem,
        maker: Maker,
        once: Option<Once>,
    ) -> Result<Option<Written>, Error> {
        let Some(Once { mark, window_secs }) = once else {
            return self.add(mailbox, folder, new, maker).await.map(Some);
        };
        self.write(mailbox, move |mut writer| async move {
            let now = u64::try_from(new.date).unwrap_or(0);
            let window = now / window_secs;
            let read = Read::default()
                .get(keys::seen(mailbox, window, &mark))
                .get(keys::seen(mailbox, window.saturating_sub(1), &mark))
                .range(keys::seen_before(mailbox, window.saturating_sub(1), FORGOTTEN_AT_ONCE));
            let found = writer.boxes.store.index.read(read).await?;
            for bytes in found.gets.iter().flatten() {
                let when: u64 = decode(mailbox, bytes)?;
                if now.saturating_sub(when) < window_secs {
                    return Ok(None);
                }
            }
            let mut draft = writer.draft();
            let written = draft.deliver(folder, new, maker)?;
            draft.put(keys::seen(mailbox, window, &mark), now.encode());
            for (key, _) in found.ranges.iter().flatten() {
                draft.delete(key.clone());
            }
            writer.commit(draft).await?;
            Ok(Some(written))
        })
        .await
    }
}
