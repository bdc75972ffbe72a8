//! Our WBXML read by libwbxml (`wbxml2xml`), and libwbxml's (`xml2wbxml`) read by us.
//!
//! libwbxml knows the ActiveSync code pages from another source than ours, and of an older edition: some names differ
//! in spelling, and what came after it is missing. Both are named here and counted in the result.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use directpush_common::wbxml::tags::{self, air_sync, air_sync_base, email, ping};
use directpush_common::wbxml::{Document, Element, ElementRef, Limits, Tag};

use super::notify::bytes_of_hex;
use crate::steps::{Outcome, output};

/// Names that are neither equal nor one the other's ending: ours, theirs.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("AssistantPhoneNumber", "AssistantTelephoneNumber"),
    ("RequireStorageCardEncryption", "DeviceEncryptionEnabled"),
    ("RemoveRightsManagementProtection", "RemoveRightsManagementDistribution"),
    // Their table has a slip of the pen here.
    ("RightsManagementInformation", "ihsManagementInformation"),
];
/// How libwbxml writes a tag that its tables do not have.
const UNKNOWN: &str = "unknown";

/// One document with every tag of our tables: libwbxml must see the same names in the same places.
pub(super) fn every_tag() -> Result<Outcome> {
    // Tags that hold bytes are shown in base64 there; the names are all that counts here.
    let all: Vec<Tag> =
        Tag::all().filter(|tag| tag.page_name() != "AutdState" && !is_root_page(*tag)).collect();
    let document =
        Element::container(ping::PING, all.iter().map(|tag| Element::text(*tag, "x"))).to_document();
    let xml = to_xml(&document)?;
    let theirs = read_xml(&xml)?;
    ensure!(theirs.children.len() == all.len(), "{} tags became {}", all.len(), theirs.children.len());
    let (mut same, mut spelled, mut unknown) = (0, 0, 0);
    for (tag, node) in all.iter().zip(&theirs.children) {
        let page = node.page.eq_ignore_ascii_case(tag.page_name());
        match node.name.as_str() {
            UNKNOWN => unknown += 1,
            name if page && name == tag.name() => same += 1,
            name if page && is_other_spelling(tag.name(), name) => spelled += 1,
            name => bail!("{tag:?} is {}:{name} there", node.page),
        }
    }
    ensure!(same > 450, "only {same} names are the same");
    Ok(Outcome::Passed(format!(
        "{same} tags have one name, {spelled} another spelling, {unknown} are newer than libwbxml"
    )))
}

/// The root's own page carries no namespace of its own in their XML.
fn is_root_page(tag: Tag) -> bool {
    tag.page() == ping::PING.page()
}

fn is_other_spelling(ours: &str, theirs: &str) -> bool {
    let letters = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], "").replace("address", "");
    letters(theirs).ends_with(&letters(ours)) || OTHER_NAMES.contains(&(ours, theirs))
}

/// Whole messages, there and back: libwbxml's XML says what ours says, and the WBXML that it makes of it reads the same.
pub(super) fn messages(recorded: &Path) -> Result<Outcome> {
    let mut messages = vec![("sync response".to_owned(), sync_response().to_document())];
    for entry in fs::read_dir(recorded).with_context(|| format!("cannot list {}", recorded.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("").to_owned();
        if path.extension().is_some_and(|extension| extension == "hex") {
            messages.push((name, bytes_of_hex(&fs::read_to_string(&path)?)?));
        }
    }
    // Some are recorded because they are malformed.
    let read = |message: &[u8]| Document::parse(message, Limits::default()).is_ok();
    let (readable, refused): (Vec<_>, Vec<_>) = messages.into_iter().partition(|(_, message)| read(message));
    ensure!(readable.len() > 3 * refused.len(), "we refuse {} of the recorded messages", refused.len());
    for (name, message) in &readable {
        there_and_back(message).with_context(|| format!("in {name}"))?;
    }
    Ok(Outcome::Passed(format!("{} messages there and back", readable.len())))
}

fn there_and_back(message: &[u8]) -> Result<()> {
    let ours = Document::parse(message, Limits::default()).context("we cannot read it")?;
    let ours = Node::of(ours.root());
    let xml = to_xml(message)?;
    let theirs = read_xml(&xml)?;
    ensure!(ours == theirs, "libwbxml reads something else:\n{ours:?}\n{theirs:?}");
    let back = to_wbxml(&xml)?;
    let again = Document::parse(&back, Limits::default()).context("we cannot read what libwbxml wrote")?;
    let again = Node::of(again.root());
    ensure!(ours == again, "what libwbxml wrote is something else:\n{ours:?}\n{again:?}");
    Ok(())
}

/// A message that changes its code page in the middle, as Sync does.
fn sync_response() -> Element {
    let data = Element::container(
        air_sync::APPLICATION_DATA,
        [
            Element::text(email::SUBJECT, "Grüße & <more>"),
            Element::text(email::READ, "0"),
            Element::container(
                air_sync_base::BODY,
                [Element::text(air_sync_base::TYPE, "1"), Element::text(air_sync_base::DATA, "Hello")],
            ),
            Element::text(email::MESSAGE_CLASS, "IPM.Note"),
        ],
    );
    let add = Element::container(air_sync::ADD, [Element::text(air_sync::SERVER_ID, "5:1"), data]);
    let collection = Element::container(
        air_sync::COLLECTION,
        [
            Element::text(air_sync::SYNC_KEY, "2"),
            Element::text(air_sync::COLLECTION_ID, "5"),
            Element::text(air_sync::STATUS, "1"),
            Element::new(air_sync::MORE_AVAILABLE),
            Element::container(air_sync::COMMANDS, [add]),
        ],
    );
    Element::container(tags::air_sync::SYNC, [Element::container(air_sync::COLLECTIONS, [collection])])
}

/// An element as both sides have it: page, name, own text, children.
#[derive(Debug, Default, Eq, PartialEq)]
struct Node {
    page: String,
    name: String,
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn of(element: ElementRef<'_>) -> Self {
        Self {
            page: element.tag().page_name().to_owned(),
            name: element.tag().name().to_owned(),
            text: element.text().into_owned(),
            children: element.children().map(Self::of).collect(),
        }
    }
}

fn to_xml(wbxml: &[u8]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("message.wbxml");
    fs::write(&file, wbxml)?;
    output(Command::new("wbxml2xml").args(["-l", "ACTIVESYNC", "-m", "0", "-o", "-"]).arg(&file))
}

fn to_wbxml(xml: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (input, made) = (folder.path().join("message.xml"), folder.path().join("message.wbxml"));
    fs::write(&input, xml)?;
    output(Command::new("xml2wbxml").args(["-a", "-n", "-v", "1.3", "-o"]).arg(&made).arg(&input))?;
    Ok(fs::read(&made)?)
}

/// Reads the XML that libwbxml writes: elements with at most an `xmlns`, texts, nothing between.
fn read_xml(xml: &str) -> Result<Node> {
    let mut open = vec![Node::default()];
    let mut rest = xml;
    while let Some((text, tail)) = rest.split_once('<') {
        open.last_mut().context("text after the end")?.text += &unescape(text);
        let (tag, tail) = tail.split_once('>').context("a tag without its end")?;
        rest = tail;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            let done = open.pop().context("an end without its element")?;
            open.last_mut().context("an end without its element")?.children.push(done);
            continue;
        }
        let empty = tag.ends_with('/');
        let (name, attributes) =
            tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let own =
            attributes.strip_prefix("xmlns=\"").and_then(|page| page.split_once(":\"")).map(|(page, _)| page);
        let page = own
            .map_or_else(|| open.last().map(|parent| parent.page.clone()).unwrap_or_default(), str::to_owned);
        let node = Node { page, name: name.to_owned(), ..Node::default() };
        if empty {
            open.last_mut().context("no root")?.children.push(node);
        } else {
            open.push(node);
        }
    }
    let mut document = open.pop().context("nothing")?;
    ensure!(open.is_empty() && document.children.len() == 1, "not one root element");
    Ok(document.children.remove(0))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_xml_that_libwbxml_writes() {
        let xml = "<?xml version=\"1.0\"?><!DOCTYPE ActiveSync PUBLIC \"a\" \"b\"><Sync xmlns=\"AirSync:\"><MoreAvailable/>\
                   <Add><Subject xmlns=\"Email:\">a &amp; b</Subject><ServerId>5:1</ServerId></Add></Sync>";
        let leaf = |page: &str, name: &str, text: &str| Node {
            page: page.to_owned(),
            name: name.to_owned(),
            text: text.to_owned(),
            children: Vec::new(),
        };
        let add = Node {
            children: vec![leaf("Email", "Subject", "a & b"), leaf("AirSync", "ServerId", "5:1")],
            ..leaf("AirSync", "Add", "")
        };
        let sync =
            Node { children: vec![leaf("AirSync", "MoreAvailable", ""), add], ..leaf("AirSync", "Sync", "") };
        assert_eq!(read_xml(xml).expect("a document"), sync);
        assert!(read_xml("<a><b></a>").is_err());
    }

    #[test]
    fn spellings_are_told_from_other_names() {
        assert!(is_other_spelling("DtStamp", "DTStamp"));
        assert!(is_other_spelling("BusinessAddressCity", "BusinessCity"));
        assert!(is_other_spelling("Until", "Recurrence_Until"));
        assert!(!is_other_spelling("Until", "Recurrence_Start"));
    }
}
