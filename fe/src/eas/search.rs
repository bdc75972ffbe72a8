//! Search ([MS-ASCMD] Search): mail by the back end's `dp:find`, people by its directory.
//!
//! Results are not kept: each range is searched for anew, so RebuildResults changes nothing. Not here: documents, which are
//! answered as blocked; conversations and alternatives, which are too complex.

use directpush_common::eas::free_text::FreeText;
use directpush_common::eas::search::{
    MailboxQuery, Range, SearchRequest, SearchResponse, SearchResult, SearchStore,
};
use directpush_common::eas::status::SearchStatus;
use directpush_common::wbxml::Limits;

use super::found::{self, Page, Wanted};
use super::{Reaction, Request, item};
use crate::backend::Result;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match SearchRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let answer = match asked.store {
        SearchStore::Documents => Err(SearchStatus::AccessBlocked),
        SearchStore::Gal(query) => people(request, query, asked.range, asked.picture).await?,
        // Mail is searched for from 12.0 up.
        SearchStore::Mailbox(_) if !request.line.version.has_air_sync_base() => {
            Err(SearchStatus::InvalidRequest)
        }
        SearchStore::Mailbox(query) => mail(request, query, asked.range).await?,
    };
    let response = answer.unwrap_or_else(SearchResponse::failed);
    let note = format!("Fc{}_St{}", response.results.len(), response.status);
    Ok(Reaction::Body(response.encode(), note))
}

type Answer = std::result::Result<SearchResponse, SearchStatus>;

async fn people(request: &Request, query: String, range: Range, picture: bool) -> Result<Answer> {
    let found = found::people(request, query, range).await?;
    let total = u32::try_from(found.total).unwrap_or(u32::MAX);
    let results = found.entries.into_iter().map(SearchResult::Person).collect();
    Ok(page(results, range, total, picture))
}

async fn mail(request: &Request, query: MailboxQuery, range: Range) -> Result<Answer> {
    let Ok(text) = FreeText::read(&query.free_text) else { return Ok(Err(SearchStatus::TooComplex)) };
    if query.conversation {
        return Ok(Err(SearchStatus::TooComplex));
    }
    let time = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => text.parse::<jiff::Timestamp>().map(|time| Some(time.as_second())),
    };
    let (Ok(since), Ok(before)) = (time(&query.since), time(&query.before)) else {
        return Ok(Err(SearchStatus::InvalidRequest));
    };
    if !query.classes.is_empty() && !query.classes.iter().any(|class| class == "Email") {
        return Ok(Ok(SearchResponse::failed(SearchStatus::Success)));
    }
    let all = item::folders(request).await?;
    let Some(folders) = found::named(&all, &query.collection_ids) else {
        return Ok(Err(SearchStatus::FolderSyncRequired));
    };
    let wanted = Wanted { text, folders, deep: query.deep, since, before };
    let Page { messages, total, incomplete } =
        found::messages(request, &all, wanted, range, &query.options).await?;
    if total == 0 && incomplete {
        return Ok(Err(SearchStatus::TimedOut));
    }
    let result = |message: found::Message| SearchResult::Message {
        long_id: message.id,
        collection_id: message.folder.to_string(),
        properties: message.properties,
    };
    Ok(page(messages.into_iter().map(result).collect(), range, total, false))
}

fn page(results: Vec<SearchResult>, range: Range, total: u32, picture: bool) -> Answer {
    if total > 0 && range.first >= total {
        return Err(SearchStatus::EndOfRange);
    }
    Ok(SearchResponse { status: SearchStatus::Success, results, first: range.first, total, picture })
}
