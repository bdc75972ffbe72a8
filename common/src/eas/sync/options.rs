//! The options of a collection, which Sync and GetItemEstimate share ([MS-ASCMD] Options; [MS-ASAIRS]
//! BodyPreference).

use crate::eas::{Version, number};
use crate::wbxml::tags::{air_sync, air_sync_base};
use crate::wbxml::{ElementRef, Tag, Writer};

numbered! {
    /// How far back items reach ([MS-ASCMD] FilterType).
    FilterType {
        /// No limit.
        All = 0,
        /// One day.
        OneDay = 1,
        /// Three days.
        ThreeDays = 2,
        /// One week.
        OneWeek = 3,
        /// Two weeks.
        TwoWeeks = 4,
        /// One month.
        OneMonth = 5,
        /// Three months (calendar).
        ThreeMonths = 6,
        /// Six months (calendar).
        SixMonths = 7,
        /// Tasks that are not done.
        OpenTasks = 8,
    }
}

impl FilterType {
    /// How many days back the filter reaches; `None` where it has no date.
    pub const fn days(self) -> Option<u32> {
        match self {
            Self::All | Self::OpenTasks => None,
            Self::OneDay => Some(1),
            Self::ThreeDays => Some(3),
            Self::OneWeek => Some(7),
            Self::TwoWeeks => Some(14),
            Self::OneMonth => Some(31),
            Self::ThreeMonths => Some(92),
            Self::SixMonths => Some(183),
        }
    }
}

numbered! {
    /// The form of a body ([MS-ASAIRS] Type).
    BodyType {
        /// Plain text.
        Plain = 1,
        /// HTML.
        Html = 2,
        /// RTF.
        Rtf = 3,
        /// The whole message.
        Mime = 4,
    }
}

numbered! {
    /// Which messages are sent as MIME ([MS-ASCMD] MIMESupport).
    MimeSupport {
        /// None.
        Never = 0,
        /// Signed and encrypted ones only.
        SignedOnly = 1,
        /// All.
        Always = 2,
    }
}

/// One Options element.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncOptions {
    /// To which class of items it applies, where a collection holds several (14.0 and up).
    pub class: Option<String>,
    /// How far back.
    pub filter_type: Option<FilterType>,
    /// Who wins a conflict: 0 the device, 1 the server.
    pub conflict: Option<u8>,
    /// 2.5: how much of a body is sent, 0 (nothing) to 9 (all). See `truncation_limit`.
    pub truncation: Option<u8>,
    /// Which messages are sent as MIME.
    pub mime_support: Option<MimeSupport>,
    /// How much of a MIME body is sent, 0 (nothing) to 8 (all). See `mime_truncation_limit`.
    pub mime_truncation: Option<u8>,
    /// For the recipient cache: how many.
    pub max_items: Option<u32>,
    /// The forms of bodies that the device takes, best first (12.0 and up).
    pub body_preferences: Vec<BodyPreference>,
    /// The forms of the part that a message adds to its conversation (14.1 and up); only HTML is one.
    pub body_part_preferences: Vec<BodyPreference>,
}

/// A form of bodies that the device takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyPreference {
    /// The form.
    pub body_type: BodyType,
    /// The most of it that is sent, in bytes; all if not said.
    pub truncation_size: Option<u32>,
    /// Rather nothing than a truncated body.
    pub all_or_none: bool,
    /// How many characters of preview (14.0 and up).
    pub preview: Option<u32>,
}

impl SyncOptions {
    /// Whether they ask for the part that a message adds to its conversation in a form that it does not have: Status
    /// 164 from 14.1 up, where body parts begin.
    pub fn asks_for_unknown_part(&self, version: Version) -> bool {
        version >= Version::V14_1
            && self.body_part_preferences.iter().any(|part| part.body_type != BodyType::Html)
    }

    /// `truncation` as a number of characters; `None` means all of the body.
    pub fn truncation_limit(&self) -> Option<usize> {
        const LIMITS: [usize; 9] =
            [0, 512, 1 << 10, 2 << 10, 5 << 10, 10 << 10, 20 << 10, 50 << 10, 100 << 10];
        LIMITS.get(usize::from(self.truncation?)).copied()
    }

    /// `mime_truncation` as a number of characters; `None` means all of the message.
    pub fn mime_truncation_limit(&self) -> Option<usize> {
        const LIMITS: [usize; 8] = [0, 4 << 10, 5 << 10, 7 << 10, 10 << 10, 20 << 10, 50 << 10, 100 << 10];
        LIMITS.get(usize::from(self.mime_truncation?)).copied()
    }
}

/// Writes an Options element; it must not be empty, so nothing is written for options that say nothing.
pub(in crate::eas) fn write_options(writer: &mut Writer, options: &SyncOptions) {
    use air_sync::{
        CLASS, CONFLICT, FILTER_TYPE, MAX_ITEMS, MIME_SUPPORT, MIME_TRUNCATION, OPTIONS, TRUNCATION,
    };
    if *options == SyncOptions::default() {
        return;
    }
    writer.element(OPTIONS, |writer| {
        writer.optional(FILTER_TYPE, options.filter_type);
        writer.optional(CLASS, options.class.as_ref());
        writer.optional(TRUNCATION, options.truncation);
        write_body_preferences(writer, options);
        writer.optional(CONFLICT, options.conflict);
        writer.optional(MIME_SUPPORT, options.mime_support);
        writer.optional(MIME_TRUNCATION, options.mime_truncation);
        writer.optional(MAX_ITEMS, options.max_items);
    });
}

/// Writes the body preferences of options.
pub(in crate::eas) fn write_body_preferences(writer: &mut Writer, options: &SyncOptions) {
    for preference in &options.body_preferences {
        writer.element(air_sync_base::BODY_PREFERENCE, |writer| preference.write(writer));
    }
    for preference in &options.body_part_preferences {
        writer.element(air_sync_base::BODY_PART_PREFERENCE, |writer| preference.write(writer));
    }
}

/// Reads an Options element, or says which element has no valid content.
pub(in crate::eas) fn read_options(options: ElementRef<'_>) -> Result<SyncOptions, Tag> {
    let mut read = SyncOptions::default();
    for option in options.children() {
        match option.tag() {
            air_sync::CLASS => read.class = Some(option.text().into_owned()),
            air_sync::FILTER_TYPE => read.filter_type = Some(read_filter(option)?),
            air_sync::CONFLICT => read.conflict = Some(bounded(option, 1)?),
            air_sync::TRUNCATION => read.truncation = Some(bounded(option, 9)?),
            air_sync::MIME_SUPPORT => read.mime_support = Some(known(option, MimeSupport::from_code)?),
            air_sync::MIME_TRUNCATION => read.mime_truncation = Some(bounded(option, 8)?),
            air_sync::MAX_ITEMS => read.max_items = Some(size(option)?),
            air_sync_base::BODY_PREFERENCE => read.body_preferences.push(BodyPreference::read(option)?),
            air_sync_base::BODY_PART_PREFERENCE => {
                read.body_part_preferences.push(BodyPreference::read(option)?);
            }
            _ => {}
        }
    }
    Ok(read)
}

/// Reads a FilterType element.
pub(in crate::eas) fn read_filter(filter: ElementRef<'_>) -> Result<FilterType, Tag> {
    known(filter, FilterType::from_code)
}

impl BodyPreference {
    fn write(&self, writer: &mut Writer) {
        writer.number(air_sync_base::TYPE, self.body_type);
        writer.optional(air_sync_base::TRUNCATION_SIZE, self.truncation_size);
        writer.optional(air_sync_base::ALL_OR_NONE, self.all_or_none.then_some(1));
        writer.optional(air_sync_base::PREVIEW, self.preview);
    }

    fn read(preference: ElementRef<'_>) -> Result<Self, Tag> {
        use air_sync_base::{ALL_OR_NONE, PREVIEW, TRUNCATION_SIZE, TYPE};
        let body_type = preference.child(TYPE).ok_or(TYPE)?;
        Ok(Self {
            body_type: known(body_type, BodyType::from_code)?,
            truncation_size: preference.child(TRUNCATION_SIZE).map(size).transpose()?,
            all_or_none: preference.child(ALL_OR_NONE).is_some_and(super::request::is_set),
            preview: preference.child(PREVIEW).map(size).transpose()?,
        })
    }
}

fn known<T>(element: ElementRef<'_>, from_code: impl Fn(i64) -> Option<T>) -> Result<T, Tag> {
    number(&element.text()).and_then(from_code).ok_or(element.tag())
}

fn bounded(element: ElementRef<'_>, max: u8) -> Result<u8, Tag> {
    known(element, |code| u8::try_from(code).ok().filter(|&code| code <= max))
}

/// A size; one beyond 32 bits (Android asks for 2^32 - 1 and more) is no limit in practice.
fn size(element: ElementRef<'_>) -> Result<u32, Tag> {
    known(element, |size| (size >= 0).then(|| u32::try_from(size).unwrap_or(u32::MAX)))
}
