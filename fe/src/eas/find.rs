//! Find ([MS-ASCMD] Find; 16.1): the quick search of mail and people.

use directpush_common::eas::find::{FindCriterion, FindRequest, FindResponse, FindResult};
use directpush_common::eas::free_text::FreeText;
use directpush_common::eas::status::FindStatus;
use directpush_common::eas::sync::{BodyPreference, BodyType, SyncOptions};
use directpush_common::wbxml::tags::{air_sync_base, email, email2, find as tags};
use directpush_common::wbxml::{Element, Limits, Tag};

use super::found::{self, Page, Wanted};
use super::{Reaction, Request, item};
use crate::backend::Result;

/// Characters of a preview ([MS-ASCMD] Preview (Find)).
const PREVIEW_CHARS: u32 = 255;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match FindRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let response = match asked.criterion.clone() {
        FindCriterion::Gal(query) => {
            let found = found::people(request, query, asked.range).await?;
            FindResponse {
                status: FindStatus::Success,
                store: "GAL",
                results: found.entries.into_iter().map(FindResult::Person).collect(),
                total: u32::try_from(found.total).unwrap_or(u32::MAX),
                picture: asked.picture,
            }
        }
        FindCriterion::Mailbox { free_text, collection_id, deep } => {
            let folders: Vec<String> = collection_id.into_iter().collect();
            mail(request, &asked, &free_text, &folders, deep).await?.unwrap_or_else(FindResponse::failed)
        }
    };
    let note = format!("Fc{}_St{}", response.results.len(), response.status);
    Ok(Reaction::Body(response.encode(), note))
}

async fn mail(
    request: &Request,
    asked: &FindRequest,
    free_text: &str,
    folders: &[String],
    deep: bool,
) -> Result<std::result::Result<FindResponse, FindStatus>> {
    let Ok(text) = FreeText::read(free_text) else { return Ok(Err(FindStatus::InvalidRequest)) };
    let all = item::folders(request).await?;
    let Some(folders) = found::named(&all, folders) else { return Ok(Err(FindStatus::FolderSyncRequired)) };
    let preview = BodyPreference {
        body_type: BodyType::Plain,
        truncation_size: Some(0),
        all_or_none: false,
        preview: Some(PREVIEW_CHARS),
    };
    let options = SyncOptions { body_preferences: vec![preview], ..SyncOptions::default() };
    let wanted = Wanted { text, folders, deep, ..Wanted::default() };
    let Page { messages, total, .. } = found::messages(request, &all, wanted, asked.range, &options).await?;
    let result = |message: found::Message| FindResult::Message {
        server_id: message.id,
        collection_id: message.folder.to_string(),
        properties: properties(&message.properties),
    };
    let results = messages.into_iter().map(result).collect();
    Ok(Ok(FindResponse { status: FindStatus::Success, store: "Mailbox", results, total, picture: false }))
}

/// What Find tells of a message, in its order.
fn properties(data: &[Element]) -> Vec<Element> {
    let child = |tag: Tag| data.iter().find(|element| element.tag == tag);
    let text = |from: Tag, to: Tag| child(from).map(|it| Element::text(to, it.own_text().into_owned()));
    let body = child(air_sync_base::BODY).and_then(|body| body.child(air_sync_base::PREVIEW));
    let attached = u8::from(child(air_sync_base::ATTACHMENTS).is_some());
    [
        child(email::SUBJECT).cloned(),
        child(email::DATE_RECEIVED).cloned(),
        child(email::DISPLAY_TO).cloned(),
        text(email::CC, tags::DISPLAY_CC),
        text(email2::BCC, tags::DISPLAY_BCC),
        child(email::IMPORTANCE).cloned(),
        child(email::READ).cloned(),
        child(email2::IS_DRAFT).cloned(),
        body.map(|preview| Element::text(tags::PREVIEW, preview.own_text().into_owned())),
        Some(Element::text(tags::HAS_ATTACHMENTS, attached.to_string())),
        child(email::FROM).cloned(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
