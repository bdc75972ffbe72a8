//! Dead properties: what DAV clients keep with a resource and only they understand (RFC 4918 4).
//!
//! One record per resource holds all of them, so that a PROPPATCH is whole or not at all and a COPY is one
//! write more. Not here: properties that the server computes (`dav::properties`).

use std::sync::Arc;

use directpush_common::change::Maker;
use directpush_common::dav::fragment::{Fragment, PropertyName};
use directpush_common::dav::properties::Instruction;

use super::codec::{Reader, Writer as Bytes};
use super::condition::Conditions;
use super::items::{ItemName, Written, find};
use super::record::{Record, RecordError};
use super::{Draft, Mailboxes, decode, keys};
use crate::error::Error;
use crate::store::{Index, Read};

/// Dead properties of one resource, at most.
pub const PROPERTIES_MAX: usize = 200;
/// Bytes of the dead properties of one resource, at most: names, namespaces and values.
pub const PROPERTIES_BYTES_MAX: usize = 48 * 1024;

/// One dead property.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Property {
    pub name: PropertyName,
    /// The whole element, self-contained.
    pub xml: String,
}

/// All dead properties of one resource, in the order in which they were first set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Properties(pub Vec<Property>);

impl Record for Properties {
    fn encode(&self) -> Vec<u8> {
        let mut out = Bytes::new();
        out.number(self.0.len() as u64);
        for property in &self.0 {
            out.text(&property.name.ns);
            out.text(&property.name.name);
            out.text(&property.xml);
        }
        out.done()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Reader::new(bytes)?;
        let mut properties = Vec::new();
        for _ in 0..from.number()? {
            let name = PropertyName { ns: from.text()?, name: from.text()? };
            properties.push(Property { name, xml: from.text()? });
        }
        Ok(Self(properties))
    }
}

impl Properties {
    fn set(&mut self, fragment: Fragment) {
        let Fragment { name, xml, .. } = fragment;
        match self.0.iter_mut().find(|property| property.name == name) {
            Some(property) => property.xml = xml,
            None => self.0.push(Property { name, xml }),
        }
    }

    fn apply(&mut self, steps: Vec<Instruction>) -> Result<(), Error> {
        for step in steps {
            match step {
                Instruction::Set(fragment) => self.set(fragment),
                Instruction::Remove(name) => self.0.retain(|property| property.name != name),
            }
        }
        if self.0.len() > PROPERTIES_MAX || self.bytes() > PROPERTIES_BYTES_MAX as u64 {
            return Err(Error::OverBound("the properties of this resource"));
        }
        Ok(())
    }

    /// What they count against the quota.
    pub fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|property| property.name.ns.len() + property.name.name.len() + property.xml.len())
            .sum::<usize>() as u64
    }
}

/// What a PROPPATCH does to one resource.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// The read flag.
    pub read: Option<bool>,
    /// The marks; empty takes them away.
    pub marks: Option<String>,
    /// Dead properties, in order.
    pub steps: Vec<Instruction>,
}

/// The dead properties of a resource; id 0 is the folder itself. One read, none if there can be none.
pub(super) async fn load(
    index: &dyn Index,
    mailbox: u64,
    folder: u64,
    id: u64,
    bytes: u64,
) -> Result<Properties, Error> {
    if bytes == 0 {
        return Ok(Properties::default());
    }
    let found = index.read(Read::default().get(keys::properties(mailbox, folder, id))).await?;
    found
        .gets
        .first()
        .and_then(Option::as_ref)
        .map_or(Ok(Properties::default()), |value| decode(mailbox, value))
}

impl Draft {
    /// Writes a resource's dead properties, and takes an empty record away. The folder's sums are the caller's.
    pub(super) fn put_properties(&mut self, folder: u64, id: u64, properties: &Properties) {
        let key = keys::properties(self.mailbox, folder, id);
        if properties.0.is_empty() {
            self.delete(key);
        } else {
            self.put(key, properties.encode());
        }
    }
}

impl Mailboxes {
    /// The dead properties of a member, given its record's `property_bytes`, or (id 0) of a folder.
    pub async fn properties(
        &self,
        mailbox: u64,
        folder: u64,
        id: u64,
        bytes: u64,
    ) -> Result<Properties, Error> {
        load(&*self.store.index, mailbox, folder, id, bytes).await
    }

    /// PROPPATCH of a member, in one commit. Setting what is set already gets no change number, and dead
    /// properties never do: no phone is shown them.
    pub async fn patch_member(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        name: ItemName,
        patch: Patch,
        maker: Maker,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.write(mailbox, move |mut writer| async move {
            let epoch = writer.state.head.epoch;
            let mut member = writer.find(folder, &name).await?.ok_or(Error::Gone("the item"))?;
            conditions.check_member(epoch, Some(&member.item))?;
            let mut draft = writer.draft();
            let mut touched = false;
            if !patch.steps.is_empty() {
                let old = member.item.property_bytes;
                let index = &*writer.boxes.store.index;
                let mut properties = load(index, mailbox, folder, member.id, old).await?;
                properties.apply(patch.steps)?;
                member.item.property_bytes = properties.bytes();
                draft.put_properties(folder, member.id, &properties);
                let mut head = draft.folder(folder)?;
                head.held.property_bytes =
                    head.held.property_bytes.saturating_sub(old).saturating_add(member.item.property_bytes);
                draft.put_folder(folder, head);
                touched = true;
            }
            let read = patch.read.filter(|read| *read != member.item.read);
            let marks = patch.marks.filter(|marks| *marks != member.item.marks);
            if read.is_some() || marks.is_some() {
                draft.change(folder, &mut member, maker, |item| {
                    item.read = read.unwrap_or(item.read);
                    item.marks = marks.unwrap_or_else(|| std::mem::take(&mut item.marks));
                })?;
            } else if touched {
                draft.put_member(folder, &member);
            }
            let changed = member.item.changed;
            if touched || draft.head != writer.state.head {
                writer.commit(draft).await?;
            }
            Ok(Written { epoch, folder, id: member.id, changed, created: false })
        })
        .await
    }

    /// PROPPATCH of a folder, in one commit.
    pub async fn patch_folder(
        self: &Arc<Self>,
        mailbox: u64,
        folder: u64,
        steps: Vec<Instruction>,
    ) -> Result<(), Error> {
        self.write(mailbox, move |mut writer| async move {
            let mut draft = writer.draft();
            let mut head = draft.folder(folder)?;
            let old = head.held.own_property_bytes;
            let mut properties = load(&*writer.boxes.store.index, mailbox, folder, 0, old).await?;
            properties.apply(steps)?;
            let new = properties.bytes();
            head.held.property_bytes = head.held.property_bytes.saturating_sub(old).saturating_add(new);
            head.held.own_property_bytes = new;
            draft.put_folder(folder, head);
            draft.put_properties(folder, 0, &properties);
            writer.commit(draft).await
        })
        .await
    }

    /// The state of one member in a folder as it stands, for whoever has to know before writing.
    pub(crate) async fn member_if_there(
        &self,
        state: &super::State,
        mailbox: u64,
        folder: u64,
        name: &ItemName,
    ) -> Result<Option<super::items::Member>, Error> {
        find(&*self.store.index, state.head.installation, mailbox, folder, name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ns: &str, name: &str, xml: &str) -> Instruction {
        Instruction::Set(Fragment { name: PropertyName::new(ns, name), xml: xml.into(), text: String::new() })
    }

    #[test]
    fn steps_are_carried_out_in_order_and_read_back() {
        let mut properties = Properties::default();
        properties.apply(vec![set("urn:x", "a", "<a/>"), set("", "a", "<a/>")]).unwrap();
        let remove = Instruction::Remove(PropertyName::new("urn:x", "a"));
        properties.apply(vec![set("urn:x", "a", "<b/>"), remove, set("urn:x", "ä", "<c/>")]).unwrap();
        let names: Vec<_> = properties.0.iter().map(|property| property.name.name.as_str()).collect();
        assert_eq!(names, ["a", "ä"]);
        assert_eq!(Properties::decode(&properties.encode()).unwrap(), properties);
        let large = "x".repeat(PROPERTIES_BYTES_MAX);
        assert!(matches!(properties.apply(vec![set("", "l", &large)]), Err(Error::OverBound(_))));
    }
}
