//! Random histories of a mailbox: what it says it holds is what it holds, whatever was done, and nothing is
//! left behind by what was taken away.

use std::sync::Arc;

use bytes::Bytes;
use directpush_common::change::{Cause, Maker};
use directpush_common::dav::fragment::{Fragment, PropertyName};
use directpush_common::dav::hierarchy::Class;
use directpush_common::dav::properties::Instruction;
use proptest::prelude::*;

use super::condition::Conditions;
use super::folders::{INBOX, OwnType, ROOT};
use super::items::{Content, ItemName, NewItem};
use super::kind::Kind;
use super::properties::Patch;
use super::quota::{Quota, Usage};
use super::transfer::{By, From, To, Verb};
use super::{Mailboxes, keys};
use crate::error::Error;
use crate::store::{Read, Store};

const NAMES: [&str; 4] = ["a", "B", "c.eml", "d"];

/// One thing that somebody does; numbers choose among the folders and names there are.
#[derive(Clone, Debug)]
enum Step {
    Deliver { bytes: u64 },
    Put { at: usize, name: usize, bytes: u64, kind: Kind },
    Delete { at: usize, name: usize },
    Read { at: usize, name: usize },
    Property { at: usize, name: Option<usize>, bytes: usize },
    Member { at: usize, name: usize, to: usize, new: usize, moves: bool, overwrite: bool },
    MakeFolder { at: usize, name: usize, calendar: bool },
    Folder { at: usize, to: usize, new: usize, moves: bool, deep: bool },
    RemoveFolder { at: usize },
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let (at, name, bytes) = (0..8_usize, 0..NAMES.len(), 0..400_u64);
    let kind = prop_oneof![Just(Kind::Message), Just(Kind::Event), Just(Kind::Other)];
    prop_oneof![
        1 => bytes.clone().prop_map(|bytes| Step::Deliver { bytes }),
        4 => (at.clone(), name.clone(), bytes, kind)
            .prop_map(|(at, name, bytes, kind)| Step::Put { at, name, bytes, kind }),
        1 => (at.clone(), name.clone()).prop_map(|(at, name)| Step::Delete { at, name }),
        1 => (at.clone(), name.clone()).prop_map(|(at, name)| Step::Read { at, name }),
        2 => (at.clone(), proptest::option::of(name.clone()), 0..60_usize)
            .prop_map(|(at, name, bytes)| Step::Property { at, name, bytes }),
        3 => (at.clone(), name.clone(), at.clone(), name.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(at, name, to, new, moves, overwrite)| Step::Member { at, name, to, new, moves, overwrite }),
        2 => (at.clone(), name.clone(), any::<bool>())
            .prop_map(|(at, name, calendar)| Step::MakeFolder { at, name, calendar }),
        2 => (at.clone(), at.clone(), name, any::<bool>(), any::<bool>())
            .prop_map(|(at, to, new, moves, deep)| Step::Folder { at, to, new, moves, deep }),
        1 => at.prop_map(|at| Step::RemoveFolder { at }),
        1 => Just(Step::Forget),
    ]
}

struct Set {
    boxes: Arc<Mailboxes>,
    mailbox: u64,
}

impl Set {
    /// The Inbox, the Calendar and the folders made below, in the order of their counters.
    async fn folder(&self, at: usize) -> u64 {
        let state = self.boxes.state(self.mailbox).await.unwrap();
        let all: Vec<u64> = state
            .tree
            .iter()
            .map(|(counter, _)| counter)
            .filter(|counter| *counter == INBOX || *counter >= 8)
            .collect();
        all[at % all.len()]
    }

    async fn take(&self, step: Step) -> Result<(), Error> {
        let (boxes, mailbox) = (&self.boxes, self.mailbox);
        let by = By { maker: Maker::of(Cause::Dav), device: None };
        let any = Conditions::default;
        let named = |name: usize| ItemName::Name(NAMES[name].into());
        let body = async || boxes.store.bodies.put(Bytes::new()).await.unwrap();
        match step {
            Step::Deliver { bytes } => {
                let content_type = "message/rfc822".into();
                let new = NewItem { body: body().await, size: bytes, content_type, date: 0, read: false };
                boxes.add(mailbox, INBOX, new, by.maker).await.map(drop)
            }
            Step::Put { at, name, bytes, kind } => {
                let body = body().await;
                let content = Content { body, size: bytes, content_type: "x/y".into(), kind };
                let folder = self.folder(at).await;
                boxes.put(mailbox, folder, named(name), content, by.maker, any()).await.map(drop)
            }
            Step::Delete { at, name } => {
                boxes.remove_item(mailbox, self.folder(at).await, named(name), by.maker, any()).await
            }
            Step::Read { at, name } => {
                let patch = Patch { read: Some(true), ..Patch::default() };
                let folder = self.folder(at).await;
                boxes.patch_member(mailbox, folder, named(name), patch, by.maker, any()).await.map(drop)
            }
            Step::Property { at, name, bytes } => {
                let property = PropertyName::new("urn:x", if bytes % 2 == 0 { "even" } else { "odd" });
                let step = match bytes {
                    0..10 => Instruction::Remove(property),
                    _ => Instruction::Set(Fragment {
                        name: property,
                        xml: "x".repeat(bytes),
                        text: String::new(),
                    }),
                };
                let folder = self.folder(at).await;
                match name {
                    None => boxes.patch_folder(mailbox, folder, vec![step]).await,
                    Some(name) => {
                        let patch = Patch { steps: vec![step], ..Patch::default() };
                        boxes
                            .patch_member(mailbox, folder, named(name), patch, by.maker, any())
                            .await
                            .map(drop)
                    }
                }
            }
            Step::Member { at, name, to, new, moves, overwrite } => {
                let folder = self.folder(at).await;
                let to = To {
                    folder: self.folder(to).await,
                    name: Some(NAMES[new].into()),
                    overwrite,
                    seen: None,
                };
                let from = From { folder, name: named(name), conditions: any() };
                let verb = if moves { Verb::Move } else { Verb::Copy };
                boxes.transfer_member(mailbox, from, to, by, verb).await.map(drop)
            }
            Step::MakeFolder { at, name, calendar } => {
                let parent = self.folder(at).await;
                let kind = OwnType::of(if calendar { Class::Calendar } else { Class::Email });
                boxes.make_folder(mailbox, parent, NAMES[name].into(), Some(kind), None).await.map(drop)
            }
            Step::Folder { at, to, new, moves, deep } => {
                let folder = self.folder(at).await;
                let to = To {
                    folder: self.folder(to).await,
                    name: Some(NAMES[new].into()),
                    overwrite: true,
                    seen: None,
                };
                if moves {
                    boxes.move_folder(mailbox, folder, to, by).await.map(drop)
                } else {
                    boxes.copy_folder(mailbox, folder, to, deep, by).await.map(drop)
                }
            }
            Step::RemoveFolder { at } => {
                boxes.remove_folder(mailbox, self.folder(at).await, None).await.map(drop)
            }
            Step::Forget => {
                boxes.forget(mailbox);
                Ok(())
            }
        }
    }

    /// Counts everything anew and compares.
    async fn check(&self, quota: &Quota) {
        let state = self.boxes.state(self.mailbox).await.unwrap();
        let mut counted = Usage::default();
        let (mut kept, mut with) = (0, 0);
        for (counter, folder) in state.tree.iter() {
            assert_eq!(self.boxes.measure(self.mailbox, counter).await.unwrap(), folder.held, "{counter}");
            let items = self.boxes.members_after(self.mailbox, counter, false, 0, 1000).await.unwrap();
            assert_eq!(items.len() as u64, folder.count);
            assert_eq!(items.iter().filter(|member| !member.item.read).count() as u64, folder.unread);
            assert!(items.iter().all(|member| member.item.kind.fits(folder.class)));
            let (log, ..) = self.boxes.log_above(self.mailbox, counter, 0, 10_000).await.unwrap();
            let live = log
                .iter()
                .filter(|entry| matches!(entry.kind, directpush_common::change::EntryKind::Live(_)));
            assert_eq!(live.count(), items.len(), "one live entry for each item, none for files");
            let files = self.boxes.members_after(self.mailbox, counter, true, 0, 1000).await.unwrap();
            with += items.iter().chain(&files).filter(|member| member.item.property_bytes != 0).count();
            with += usize::from(folder.held.own_property_bytes != 0);
            kept += self.property_records(counter).await;
            counted.add(folder);
        }
        assert_eq!(counted, state.tree.usage());
        assert!(quota.bytes == 0 || counted.bytes <= quota.bytes && counted.items <= quota.items);
        assert!(counted.folders <= quota.folders && counted.property_bytes <= quota.property_bytes);
        assert_eq!(kept, with, "no record of properties is left behind");
    }

    async fn property_records(&self, folder: u64) -> usize {
        let [_, _, range] = keys::folder_rest(self.mailbox, folder, 1000);
        self.boxes.store.index.read(Read::default().range(range)).await.unwrap().ranges[0].len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_a_mailbox_holds_is_what_it_says(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
            let quota = Quota { bytes: 5000, items: 30, folders: 20, depth: 4, property_bytes: 300, warning_percent: 90 };
            boxes.set_default_quota(quota);
            let account = boxes.add_user(&"alice".parse().unwrap(), "hash".into()).await.unwrap();
            let set = Set { boxes, mailbox: account.mailbox };
            set.boxes.make_folder(set.mailbox, ROOT, "Own".into(), None, None).await.unwrap();
            for step in steps {
                // What is refused changes nothing; that is checked like everything else.
                let _ = set.take(step).await;
                set.check(&quota).await;
            }
        });
    }
}
