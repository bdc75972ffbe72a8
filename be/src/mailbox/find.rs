//! Messages by what they say (`common::dav::find`): folders are gone through together, newest additions first, and each
//! message that may fit is read and its texts compared.
//!
//! There is no index of words: what bounds the work is the asker's time and 512 KiB of each message, one search
//! per mailbox and a few per back end at a time. A message that no parser survives fits nothing.

use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use directpush_common::change::Entry;
use directpush_common::dav::find::{Find, Found, Texts};
use directpush_common::names::FolderId;
use mail_parser::{Address, Message, MessageParser, PartType};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::record::Item;
use super::{Mailboxes, State, items};
use crate::error::Error;
use crate::store::BodyId;

/// Bytes of a message that are looked at: headers and texts come first, attachments after them.
const LOOK_BYTES: u64 = 512 * 1024;
/// Bytes that are read when only headers are compared.
const HEADER_BYTES: u64 = 64 * 1024;
/// Bytes of a message's texts that are compared.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Messages looked at between two looks at the clock, and held in memory at once.
const BATCH: usize = 16;
/// Items of one folder read at a time.
const PAGE: usize = 128;
/// Searches at once.
const AT_ONCE_MAX: usize = 4;

/// The searches that are under way.
pub struct Searches {
    running: Arc<Mutex<HashSet<u64>>>,
    places: Arc<Semaphore>,
}

/// The right to search one mailbox.
pub struct Turn {
    running: Arc<Mutex<HashSet<u64>>>,
    mailbox: u64,
    _place: OwnedSemaphorePermit,
}

impl Default for Searches {
    fn default() -> Self {
        Self { running: Arc::default(), places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

impl Searches {
    /// A turn; `Busy` where this mailbox or too many others are being searched.
    pub fn enter(&self, mailbox: u64) -> Result<Turn, Error> {
        let busy = |_| Error::Busy("searches");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        if !self.running.lock().insert(mailbox) {
            return Err(Error::Busy("a search of this mailbox"));
        }
        Ok(Turn { running: Arc::clone(&self.running), mailbox, _place: place })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.lock().remove(&self.mailbox);
    }
}

/// One folder on the way down from its newest item.
struct Cursor {
    folder: u64,
    page: VecDeque<(u64, Item)>,
    /// Where the next page begins; none = there is no other.
    below: Option<u64>,
}

/// A message that may fit.
struct Candidate {
    folder: u64,
    entry: Entry,
    body: BodyId,
    size: u64,
}

/// All folders' items in descending order of their numbers.
struct Descent<'a> {
    boxes: &'a Mailboxes,
    mailbox: u64,
    cursors: Vec<Cursor>,
    /// The number of the first item of each cursor that has one, and which cursor.
    heads: BinaryHeap<(u64, usize)>,
}

impl<'a> Descent<'a> {
    async fn begin(boxes: &'a Mailboxes, mailbox: u64, folders: &[u64]) -> Result<Self, Error> {
        let mut descent = Self { boxes, mailbox, cursors: Vec::new(), heads: BinaryHeap::new() };
        for &folder in folders {
            descent.cursors.push(Cursor { folder, page: VecDeque::new(), below: Some(0) });
            descent.fill(descent.cursors.len() - 1).await?;
        }
        Ok(descent)
    }

    async fn fill(&mut self, at: usize) -> Result<(), Error> {
        let cursor = &mut self.cursors[at];
        if let (true, Some(below)) = (cursor.page.is_empty(), cursor.below) {
            cursor.page = self.boxes.newest(self.mailbox, cursor.folder, below, PAGE).await?.into();
            let last = cursor.page.back().map(|(id, _)| *id);
            cursor.below = last.filter(|_| cursor.page.len() == PAGE);
        }
        if let Some((id, _)) = cursor.page.front() {
            self.heads.push((*id, at));
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<(u64, u64, Item)>, Error> {
        let Some((_, at)) = self.heads.pop() else { return Ok(None) };
        let folder = self.cursors[at].folder;
        let first = self.cursors[at].page.pop_front();
        self.fill(at).await?;
        Ok(first.map(|(id, item)| (folder, id, item)))
    }
}

impl Mailboxes {
    /// Searches these folders. `over` is asked before each batch whether time is up.
    pub async fn find(
        &self,
        state: &State,
        mailbox: u64,
        folders: &[u64],
        find: &Find,
        mut over: impl FnMut() -> bool,
    ) -> Result<Found, Error> {
        let mut descent = Descent::begin(self, mailbox, folders).await?;
        let mut found = Found::default();
        let find = Arc::new(find.clone());
        let mut done = false;
        while !done {
            if over() {
                found.incomplete = true;
                break;
            }
            let mut batch = Vec::with_capacity(BATCH);
            // Those that cannot fit cost next to nothing, but not nothing.
            for _ in 0..BATCH * 64 {
                let Some((folder, id, item)) = descent.next().await? else {
                    done = true;
                    break;
                };
                if find.may_fit(item.date, item.read) {
                    let (body, size) = (BodyId(item.body), item.size);
                    batch.push(Candidate { folder, entry: items::entry(id, &item), body, size });
                }
                if batch.len() == BATCH {
                    break;
                }
            }
            for (folder, entry) in self.fitting(&find, batch).await? {
                if found.messages.len() >= find.limit {
                    found.incomplete = true;
                    done = true;
                    break;
                }
                let folder = FolderId { installation: state.head.installation, counter: folder };
                found.messages.push((folder, entry));
            }
        }
        found
            .messages
            .sort_by_key(|(_, entry)| (std::cmp::Reverse(entry.date()), std::cmp::Reverse(entry.id)));
        Ok(found)
    }

    /// Those of a batch that fit.
    async fn fitting(&self, find: &Arc<Find>, batch: Vec<Candidate>) -> Result<Vec<(u64, Entry)>, Error> {
        if find.terms.is_empty() {
            return Ok(batch.into_iter().map(|candidate| (candidate.folder, candidate.entry)).collect());
        }
        let bytes_max = if find.needs_body() { LOOK_BYTES } else { HEADER_BYTES };
        let mut read = Vec::with_capacity(batch.len());
        for candidate in batch {
            // Gone since its record was read: it fits nothing.
            if let Ok(bytes) =
                self.store.bodies.get_range(candidate.body, 0..candidate.size.min(bytes_max)).await
            {
                read.push((candidate, bytes));
            }
        }
        let find = Arc::clone(find);
        let fitting = tokio::task::spawn_blocking(move || {
            let fits = |bytes: &Bytes| {
                catch_unwind(AssertUnwindSafe(|| find.fits(&texts(bytes, find.needs_body()))))
                    .unwrap_or(false)
            };
            let fitting = read.into_iter().filter(|(_, bytes)| fits(bytes));
            fitting.map(|(candidate, _)| (candidate.folder, candidate.entry)).collect()
        });
        fitting.await.map_err(|_| Error::Task)
    }
}

/// The texts of a message, in lower case.
fn texts(bytes: &[u8], with_body: bool) -> Texts {
    let parser = MessageParser::default();
    let message = if with_body { parser.parse(bytes) } else { parser.parse_headers(bytes) };
    let Some(message) = message else { return Texts::default() };
    let from = people(message.from()) + &people(message.sender());
    Texts {
        subject: message.subject().unwrap_or_default().to_lowercase(),
        from,
        to: people(message.to()),
        cc: people(message.cc()) + &people(message.bcc()),
        body: if with_body { body(&message) } else { String::new() },
    }
}

fn people(list: Option<&Address<'_>>) -> String {
    let mut out = String::new();
    for person in list.into_iter().flat_map(Address::iter) {
        for text in [person.name(), person.address()].into_iter().flatten() {
            out.push_str(&text.to_lowercase());
            out.push('\n');
        }
    }
    out
}

fn body(message: &Message<'_>) -> String {
    let mut out = String::new();
    for part in message.text_bodies() {
        let room = TEXT_BYTES_MAX.saturating_sub(out.len());
        match &part.body {
            PartType::Text(text) => out.push_str(&cut(text, room).to_lowercase()),
            PartType::Html(html) => {
                let text = mail_parser::decoders::html::html_to_text(cut(html, 4 * room));
                out.push_str(&cut(&text, room).to_lowercase());
            }
            _ => {}
        }
    }
    out
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use directpush_common::change::{Cause, Maker};
    use directpush_common::dav::find::{Field, Term};
    use directpush_common::names::UserName;

    use super::super::folders::INBOX;
    use super::super::items::NewItem;
    use super::*;
    use crate::store::Store;

    async fn mailbox(messages: &[&str]) -> (Arc<Mailboxes>, u64) {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        let alice: UserName = "alice@x.example".parse().unwrap();
        let account = boxes.add_user(&alice, String::new()).await.unwrap();
        for message in messages {
            let body = boxes.store.bodies.put(Bytes::copy_from_slice(message.as_bytes())).await.unwrap();
            let (size, content_type) = (message.len() as u64, "message/rfc822".into());
            let new = NewItem { body, size, content_type, date: 0, read: false };
            boxes.add(account.mailbox, INBOX, new, Maker::of(Cause::Delivery)).await.unwrap();
        }
        (boxes, account.mailbox)
    }

    async fn subjects(boxes: &Mailboxes, mailbox: u64, terms: &[(Field, &str)]) -> Vec<u64> {
        let terms = terms.iter().map(|(field, text)| Term::new(*field, text).unwrap()).collect();
        let state = boxes.state(mailbox).await.unwrap();
        let find = Find { terms, ..Find::default() };
        let found = boxes.find(&state, mailbox, &[INBOX], &find, || false).await.unwrap();
        found.messages.iter().map(|(_, entry)| entry.id.0.0).collect()
    }

    #[tokio::test]
    async fn words_are_found_where_they_are_looked_for_and_as_they_are_meant() {
        let (boxes, mailbox) = mailbox(&[
            "From: Ann <ann@x.example>\r\nTo: bob@x.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nLunch?\r\n",
            "From: bob@x.example\r\nCc: Carl <c@x.example>\r\nSubject: Re\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             <p>Caf=E9 <b>lunch</b></p>",
            "From: x\r\n\r\n",
        ])
        .await;
        let all = subjects(&boxes, mailbox, &[]).await;
        let [third, second, first] = all[..] else { panic!("{all:?}") };
        assert!(third > second && second > first, "newest first");
        for (terms, wanted) in [
            (&[(Field::Subject, "GRÜSSE")][..], &[][..]),
            (&[(Field::Subject, "grüße")], &[first]),
            (&[(Field::Any, "LUNCH")], &[second, first]),
            (&[(Field::Body, "café lunch")], &[second]),
            (&[(Field::Body, "<b>")], &[]),
            (&[(Field::From, "ann")], &[first]),
            (&[(Field::Participants, "bob@x")], &[second, first]),
            (&[(Field::Cc, "carl")], &[second]),
            (&[(Field::Any, "lunch"), (Field::From, "ann")], &[first]),
            (&[(Field::To, "carl")], &[]),
        ] {
            assert_eq!(subjects(&boxes, mailbox, terms).await, wanted, "{terms:?}");
        }
    }

    #[tokio::test]
    async fn time_and_room_end_a_search_with_what_was_found() {
        let messages: Vec<String> =
            (0..5 * BATCH).map(|n| format!("Subject: s{n}\r\n\r\nword\r\n")).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let (boxes, mailbox) = mailbox(&messages).await;
        let state = boxes.state(mailbox).await.unwrap();
        let terms = vec![Term::new(Field::Body, "word").unwrap()];
        let find = Find { terms, limit: 1000, ..Find::default() };
        let mut looks = 0;
        let over = || {
            looks += 1;
            looks > 2
        };
        let found = boxes.find(&state, mailbox, &[INBOX], &find, over).await.unwrap();
        assert_eq!((found.messages.len(), found.incomplete), (2 * BATCH, true));
        let find = Find { limit: 7, ..find };
        let found = boxes.find(&state, mailbox, &[INBOX], &find, || false).await.unwrap();
        assert_eq!((found.messages.len(), found.incomplete), (7, true));
        let find = Find { limit: 1000, ..find };
        let found = boxes.find(&state, mailbox, &[INBOX], &find, || false).await.unwrap();
        assert_eq!((found.messages.len(), found.incomplete), (5 * BATCH, false));
        let ids: Vec<_> = found.messages.iter().map(|(_, entry)| entry.id).collect();
        assert!(ids.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn one_search_per_mailbox_and_a_few_in_all() {
        let searches = Searches::default();
        let first = searches.enter(1).unwrap();
        assert!(searches.enter(1).is_err(), "the same mailbox");
        let others: Vec<_> =
            (2..=AT_ONCE_MAX as u64).map(|mailbox| searches.enter(mailbox).unwrap()).collect();
        assert!(searches.enter(99).is_err(), "too many");
        drop(first);
        searches.enter(1).unwrap();
        drop(others);
    }
}
