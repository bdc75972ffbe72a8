//! What Search and Find have in common: the question to the back end, and the messages found as a device wants them.

use directpush_common::change::{Entry, EntryKind};
use directpush_common::dav::find::{BUDGET_SECS_MAX, Find, RESULTS_MAX};
use directpush_common::dav::hierarchy::{Class, Hierarchy};
use directpush_common::directory::{DirectoryAnswer, DirectoryQuery, ENTRIES_MAX};
use directpush_common::eas::free_text::FreeText;
use directpush_common::eas::search::{RESULTS_MAX as PAGE, Range};
use directpush_common::eas::sync::{ApplicationData, SyncOptions};
use directpush_common::names::FolderId;
use directpush_common::wbxml::Element;

use super::options::Kept;
use super::{Request, item};
use crate::backend::Result;
use crate::backend::items::Place;

/// Bytes of one response's messages; what does not fit comes with the next range.
const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Devices wait 30 s for an answer: after so many milliseconds it is what was made until then.
const ANSWER_MILLIS_MAX: u64 = 20_000;

/// A message that was found, as it goes to the device.
pub struct Message {
    /// `5:42`: its server id, which is its LongId too.
    pub id: String,
    /// Its folder.
    pub folder: FolderId,
    /// What it is.
    pub properties: ApplicationData,
}

/// Some of what was found.
pub struct Page {
    /// The messages of the range.
    pub messages: Vec<Message>,
    /// All that were found, as far as was counted.
    pub total: u32,
    /// Time ended the search.
    pub incomplete: bool,
}

/// Where is searched, and for what.
#[derive(Default)]
pub struct Wanted {
    /// Words and marks.
    pub text: FreeText,
    /// In these; none = in all mail.
    pub folders: Vec<FolderId>,
    /// And in those below.
    pub deep: bool,
    /// Unix seconds.
    pub since: Option<i64>,
    /// Unix seconds.
    pub before: Option<i64>,
}

/// The messages of a range, each with the properties that these options ask for.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn messages(
    request: &Request,
    all: &Hierarchy,
    wanted: Wanted,
    range: Range,
    options: &SyncOptions,
) -> Result<Page> {
    // One page more than is asked for, so that the device knows whether to ask again.
    let limit = (range.last as usize).saturating_add(1 + PAGE as usize).min(RESULTS_MAX);
    let find = Find {
        terms: wanted.text.terms,
        since: wanted.since,
        before: wanted.before,
        read: wanted.text.read,
        folders: wanted.folders,
        deep: wanted.deep,
        limit,
        budget_secs: BUDGET_SECS_MAX,
    };
    let found = request.backend().find(&request.session, &find).await?;
    let total = u32::try_from(found.messages.len()).unwrap_or(u32::MAX);
    let wish = Kept::default().updated(std::slice::from_ref(options)).wish(request.line.version);
    let (mut messages, mut room) = (Vec::new(), RESPONSE_BYTES_MAX);
    for (folder, entry) in found.messages.into_iter().skip(range.first as usize).take(range.count()) {
        let Some((id, mime, facts)) = read(request, all, folder, &entry).await? else { continue };
        let properties = item::rendered(request, mime, facts, wish.clone()).await;
        let Some(left) = room.checked_sub(properties.iter().map(Element::weight).sum()) else { break };
        room = left;
        messages.push(Message { id, folder, properties });
        if request.front.now().millis_since(request.began) > ANSWER_MILLIS_MAX {
            break;
        }
    }
    Ok(Page { messages, total, incomplete: found.incomplete })
}

type Read = (String, item::Mime, super::render::Facts);

/// The bytes of a message and what is known of it; `None` when it is gone meanwhile, or no mail.
async fn read(request: &Request, all: &Hierarchy, folder: FolderId, entry: &Entry) -> Result<Option<Read>> {
    let folder = all.folders.iter().find(|it| it.id == folder && it.class == Class::Email);
    let (Some(folder), EntryKind::Live(live)) = (folder, &entry.kind) else { return Ok(None) };
    let place = Place { folder: folder.id, item: entry.id };
    let Some(mime) = item::bytes(request, place).await? else { return Ok(None) };
    let facts = item::facts(request, folder, place, live);
    Ok(Some((facts.reference.clone(), mime, facts)))
}

/// The people of a range, and how many there are in all.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn people(request: &Request, query: String, range: Range) -> Result<DirectoryAnswer> {
    let limit = (range.last as usize).saturating_add(1).min(ENTRIES_MAX);
    let query = DirectoryQuery { query, limit, exact: false };
    let mut answer = request.backend().directory(&request.session, &query).await?;
    answer.entries = answer.entries.into_iter().skip(range.first as usize).take(range.count()).collect();
    Ok(answer)
}

/// The folders that a device names; `None` = one is not known.
pub fn named(all: &Hierarchy, ids: &[String]) -> Option<Vec<FolderId>> {
    // 0 is the mailbox itself.
    let ids = ids.iter().filter(|id| *id != "0");
    ids.map(|id| super::folders::find(all, id).map(|folder| folder.id)).collect()
}
