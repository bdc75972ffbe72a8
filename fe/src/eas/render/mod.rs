//! A message as a device wants it: RFC 5322 in, ApplicationData out.
//!
//! [MS-ASEMAIL] gives the properties, [MS-ASAIRS] the body and attachments of 12.0 and later; 2.5 has its own.
//! `parts` takes a message apart, `layout` says what is body and what is attached, `body`, `attachments` and
//! `properties` write. What is given to [`application_data`] is hostile: it runs where a panic and a long run
//! are contained (`content`), and what is superlinear in its input has a bound on that input here.
//!
//! Not here: fetching the message, which items a Sync carries.

mod attachments;
mod body;
mod conversation;
#[cfg(test)]
mod corpus_tests;
mod html;
mod layout;
mod mime;
mod parts;
mod properties;
#[cfg(test)]
mod tests;
mod text;

pub use attachments::{Attachment, File, attachment, files};
use directpush_common::eas::Version;
use directpush_common::eas::sync::ApplicationData;
use directpush_common::eas::sync::marks::mark_elements;
use directpush_common::mail::marks::Marks;
use directpush_common::wbxml::Element;
use directpush_common::wbxml::tags::email;

/// In which form a body goes to the device ([MS-ASAIRS] Type).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// 1.
    Plain,
    /// 2.
    Html,
    /// 4.
    Mime,
}

/// One BodyPreference or BodyPartPreference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Preference {
    /// Type.
    pub form: Form,
    /// TruncationSize in bytes.
    pub bytes_max: Option<usize>,
    /// AllOrNone.
    pub all_or_none: bool,
    /// Preview, in characters.
    pub preview: Option<u32>,
}

impl Preference {
    /// All of a form.
    pub const fn new(form: Form) -> Self {
        Self { form, bytes_max: None, all_or_none: false, preview: None }
    }
}

/// What the device asked for, in one form for all versions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wish {
    /// The version that the device speaks: decides which elements there are.
    pub version: Version,
    /// BodyPreference, in the device's order (12.0 and later).
    pub preferences: Vec<Preference>,
    /// BodyPartPreference (14.1 and later).
    pub parts: Vec<Preference>,
    /// MIMESupport: 0 never, 1 for S/MIME only, 2 for all.
    pub mime_support: u8,
    /// 2.5: the bytes of MIMEData; `None` = all.
    pub mime_bytes_max: Option<usize>,
    /// 2.5: the bytes of Body; `None` = all.
    pub text_bytes_max: Option<usize>,
}

impl Wish {
    /// No options: the whole text.
    pub const fn new(version: Version) -> Self {
        Self {
            version,
            preferences: Vec::new(),
            parts: Vec::new(),
            mime_support: 0,
            mime_bytes_max: None,
            text_bytes_max: None,
        }
    }
}

/// What the folder knows of the item besides its bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// The read flag.
    pub read: bool,
    /// When it was received: Unix seconds.
    pub date: i64,
    /// What FileReference begins with: the item's server id.
    pub reference: String,
    /// Whether it is a draft (16.0 and later are told).
    pub draft: bool,
    /// What a device keeps with a message, flag, categories, last verb: see [`marks`].
    pub marks: ApplicationData,
}

/// The ApplicationData of a message.
pub fn application_data(mime: &[u8], facts: &Facts, wish: &Wish) -> ApplicationData {
    let tree = parts::Tree::of(mime);
    let layout = layout::Layout::of(&tree);
    let body = body::Body::new(&tree, &layout, mime);
    let mut data = properties::of(&tree, &layout, facts, wish.version);
    if wish.version.has_air_sync_base() {
        let source = if layout.attached.is_empty() { None } else { body.html_source() };
        data.extend(attachments::list(&tree, &layout, &facts.reference, source));
        body.push(&mut data, wish);
    } else {
        data.extend(attachments::legacy_list(&tree, &layout, &facts.reference));
        body.push_legacy(&mut data, wish);
    }
    data
}

/// What a device is given for a message that cannot be read: it must not block the folder.
pub fn unreadable(facts: &Facts, wish: &Wish) -> ApplicationData {
    let text = "This message could not be converted for the device. It is unchanged in the mailbox.";
    let mut data = ApplicationData::new();
    data.push(Element::text(email::SUBJECT, "(unreadable message)"));
    data.push(Element::text(email::DATE_RECEIVED, date_text(facts.date)));
    data.push(Element::text(email::READ, flag(facts.read)));
    if wish.version.has_air_sync_base() {
        data.push(body::plain(text));
    } else {
        data.push(Element::text(email::BODY, text));
    }
    data.push(Element::text(email::MESSAGE_CLASS, "IPM.Note"));
    data
}

/// What a Change of the read flag carries.
pub fn read_flag(read: bool) -> ApplicationData {
    vec![Element::text(email::READ, flag(read))]
}

/// The elements of an item's marks, as its folder keeps them, at a version.
pub fn marks(text: &str, version: Version) -> ApplicationData {
    mark_elements(&Marks::from_text(text), version, date_text)
}

fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn date_text(unix_secs: i64) -> String {
    let date = jiff::Timestamp::from_second(unix_secs).unwrap_or_default();
    date.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
