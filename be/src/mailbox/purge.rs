//! What is out of reach is dropped behind: items of removed folders, removed mailboxes, bodies without
//! a use. One task, small batches, so that nothing else waits for it.
//!
//! Marks in the store (`garbage`, `mailbox gone`) make it go on after a restart. Bodies that a crash
//! left without a use are found by `fsck`, later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::Item;
use super::{Mailboxes, decode, keys};
use crate::error::{Error, WithCauses};
use crate::store::{BodyId, Commit, Range, Read};

/// Something to drop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Job {
    /// The removed folders of a mailbox.
    Folders(u64),
    /// A whole removed mailbox.
    Mailbox(u64),
    /// A body that lost a use.
    Body(BodyId),
}

const BATCH: usize = 256;
/// A body is looked at this long after it lost a use: a delivery to several mailboxes may still be
/// committing its other uses.
const BODY_GRACE: Duration = Duration::from_mins(1);

/// Runs until `stop`. What is left then is found again at the next start, but for bodies.
pub async fn run(boxes: Arc<Mailboxes>, mut jobs: mpsc::UnboundedReceiver<Job>, stop: CancellationToken) {
    match boxes.store.index.read(Read::default().range(keys::mailboxes_gone(BATCH))).await {
        Ok(found) => {
            for (key, _) in found.ranges.iter().flatten() {
                boxes.purge(Job::Mailbox(keys::last_number(key)));
            }
        }
        Err(error) => tracing::warn!(error = %WithCauses(&error), "cannot look for removed mailboxes"),
    }
    let mut bodies: VecDeque<(Instant, BodyId)> = VecDeque::new();
    loop {
        let due = bodies.front().map(|(due, _)| *due);
        let job = tokio::select! {
            () = stop.cancelled() => return,
            job = jobs.recv() => match job {
                Some(job) => job,
                None => return,
            },
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                if let Some((_, body)) = bodies.pop_front()
                    && let Err(error) = drop_body(&boxes, body).await
                {
                    tracing::warn!(%body, error = %WithCauses(&error), "cannot drop an unused body");
                }
                continue;
            }
        };
        let done = match job {
            Job::Body(body) => {
                bodies.push_back((Instant::now() + BODY_GRACE, body));
                Ok(())
            }
            Job::Folders(mailbox) => drop_folders(&boxes, mailbox).await,
            Job::Mailbox(mailbox) => drop_mailbox(&boxes, mailbox).await,
        };
        if let Err(error) = done {
            tracing::warn!(?job, error = %WithCauses(&error), "cannot drop what was removed; the next start tries again");
        }
    }
}

async fn drop_body(boxes: &Mailboxes, body: BodyId) -> Result<(), Error> {
    let found = boxes.store.index.read(Read::default().range(keys::body_uses(body))).await?;
    if found.ranges.iter().all(Vec::is_empty) {
        boxes.store.bodies.delete(body).await?;
    }
    Ok(())
}

async fn drop_folders(boxes: &Mailboxes, mailbox: u64) -> Result<(), Error> {
    let marks = boxes.store.index.read(Read::default().range(keys::all_garbage(mailbox))).await?;
    for (mark, _) in marks.ranges.into_iter().flatten() {
        let folder = keys::last_number(&mark);
        drop_items(boxes, mailbox, keys::items_after(mailbox, folder, 0, BATCH)).await?;
        drop_items(boxes, mailbox, keys::files_after(mailbox, folder, 0, BATCH)).await?;
        for range in keys::folder_rest(mailbox, folder, BATCH) {
            drop_range(boxes, range).await?;
        }
        boxes.store.index.commit(Commit::default().delete(mark)).await?;
    }
    Ok(())
}

async fn drop_mailbox(boxes: &Mailboxes, mailbox: u64) -> Result<(), Error> {
    for range in keys::all_members(mailbox, BATCH) {
        drop_items(boxes, mailbox, range).await?;
    }
    drop_range(boxes, keys::whole(mailbox, BATCH)).await?;
    boxes.store.index.commit(Commit::default().delete(keys::mailbox_gone(mailbox))).await?;
    Ok(())
}

async fn drop_items(boxes: &Mailboxes, mailbox: u64, range: Range) -> Result<(), Error> {
    loop {
        let found = boxes.store.index.read(Read::default().range(range.clone())).await?;
        let items = found.ranges.into_iter().next().unwrap_or_default();
        if items.is_empty() {
            return Ok(());
        }
        let mut commit = Commit::default();
        let mut dropped = Vec::new();
        for (key, value) in items {
            let (folder, id) = keys::item_of(&key);
            // A record that cannot be read has a body that `fsck` will find.
            if let Ok(item) = decode::<Item>(mailbox, &value) {
                let body = BodyId(item.body);
                commit = commit.delete(keys::body_use(body, mailbox, folder, id));
                dropped.push(body);
            }
            commit = commit.delete(key);
        }
        boxes.store.index.commit(commit).await?;
        for body in dropped {
            boxes.body_dropped(body);
        }
    }
}

async fn drop_range(boxes: &Mailboxes, range: Range) -> Result<(), Error> {
    loop {
        let found = boxes.store.index.read(Read::default().range(range.clone())).await?;
        let lines = found.ranges.into_iter().next().unwrap_or_default();
        if lines.is_empty() {
            return Ok(());
        }
        let commit = lines.into_iter().fold(Commit::default(), |commit, (key, _)| commit.delete(key));
        boxes.store.index.commit(commit).await?;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use directpush_common::change::{Cause, Maker};

    use super::*;
    use crate::mailbox::folders::{INBOX, ROOT};
    use crate::mailbox::items::{NewItem, Written};
    use crate::mailbox::transfer::{By, From, To, Verb};
    use crate::store::Store;

    struct Set {
        boxes: Arc<Mailboxes>,
        mailbox: u64,
        _stop: tokio_util::sync::DropGuard,
    }

    async fn set() -> Set {
        let (boxes, jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(run(boxes.clone(), jobs, stop.clone()));
        let account = boxes.add_user(&"alice".parse().unwrap(), "hash".into()).await.unwrap();
        Set { boxes, mailbox: account.mailbox, _stop: stop.drop_guard() }
    }

    impl Set {
        async fn add(&self, folder: u64, body: BodyId) -> Written {
            let new = NewItem { body, size: 1, content_type: "message/rfc822".into(), date: 0, read: false };
            self.boxes.add(self.mailbox, folder, new, Maker::of(Cause::Dav)).await.unwrap()
        }

        async fn body(&self) -> BodyId {
            self.boxes.store.bodies.put(Bytes::from_static(b"x")).await.unwrap()
        }

        async fn bodies(&self) -> usize {
            tokio::time::sleep(2 * BODY_GRACE).await;
            self.boxes.store.bodies.list(None, 1000).await.unwrap().len()
        }

        async fn keys(&self) -> usize {
            let read = Read::default().range(keys::whole(self.mailbox, 10_000));
            self.boxes.store.index.read(read).await.unwrap().ranges[0].len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_folder_leaves_nothing_but_its_tombstone() {
        let set = set().await;
        let before = set.keys().await;
        let make = |name: &str| set.boxes.make_folder(set.mailbox, ROOT, name.into(), None, None);
        let folder = make("big").await.unwrap().folder;
        for _ in 0..2 * BATCH {
            let body = set.body().await;
            set.add(folder, body).await;
        }
        set.boxes.remove_folder(set.mailbox, folder, None).await.unwrap();
        assert_eq!(set.bodies().await, 0);
        assert_eq!(set.keys().await, before + 1);
        // The counter of a removed folder is not given out again.
        assert!(make("big").await.unwrap().folder > folder);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_lives_as_long_as_its_last_use() {
        let set = set().await;
        let body = set.body().await;
        let one = set.add(INBOX, body).await;
        let two = set.add(3, body).await;
        let name = |written: &Written| crate::mailbox::items::ItemName::Id(written.id);
        let (maker, any) = (Maker::of(Cause::Dav), crate::mailbox::condition::Conditions::default());
        let to = To { folder: 4, name: None, overwrite: true, seen: None };
        let by = By { maker: maker.clone(), device: None };
        let from = From { folder: INBOX, name: name(&one), conditions: any.clone() };
        let moved = set.boxes.transfer_member(set.mailbox, from, to, by, Verb::Move).await.unwrap();
        set.boxes.remove_item(set.mailbox, 3, name(&two), maker.clone(), any.clone()).await.unwrap();
        assert_eq!(set.bodies().await, 1);
        set.boxes.remove_item(set.mailbox, 4, name(&moved), maker, any).await.unwrap();
        assert_eq!(set.bodies().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_user_leaves_nothing_and_may_come_again_with_another_epoch() {
        let set = set().await;
        let body = set.body().await;
        let epoch = set.add(INBOX, body).await.epoch;
        let alice = "alice".parse().unwrap();
        set.boxes.remove_user(&alice).await.unwrap();
        assert_eq!((set.bodies().await, set.keys().await), (0, 0));
        assert!(matches!(set.boxes.state(set.mailbox).await, Err(Error::NoUser)));
        let again = set.boxes.add_user(&alice, "hash".into()).await.unwrap();
        assert_ne!(again.mailbox, set.mailbox);
        assert_ne!(set.boxes.state(again.mailbox).await.unwrap().head.epoch, epoch);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_mailboxes_are_let_go_and_read_again() {
        let set = set().await;
        let body = set.body().await;
        let written = set.add(INBOX, body).await;
        assert_eq!(set.boxes.open_count(), 1);
        for _ in 0..3 {
            set.boxes.sweep();
        }
        assert_eq!(set.boxes.open_count(), 0);
        let state = set.boxes.state(set.mailbox).await.unwrap();
        assert_eq!(state.tree.folder(INBOX).unwrap().added, written.id);
        assert_eq!(state.head.last, written.id);
    }
}
