//! GetItemEstimate ([MS-ASCMD] 2.2.1.9 GetItemEstimate): what a Sync would bring, counted by
//! planning it and throwing the plan away.

use std::collections::HashMap;

use directpush_common::clock::Moment;
use directpush_common::eas::item_estimate::{
    Estimate, EstimateCollection, ItemEstimateRequest, ItemEstimateResponse,
};
use directpush_common::eas::status::ItemEstimateStatus;
use directpush_common::eas::{Command, CommonStatus, common_status_answer};
use directpush_common::names::FolderId;
use directpush_common::sync::plan::SyncPlan;
use directpush_common::sync::state::{CollectionState, KeyState, Resume};
use directpush_common::wbxml::Limits;

use super::folders;
use super::options::Kept;
use super::state;
use super::{Reaction, Request};
use crate::backend::Result;

/// Plans made for one estimate: beyond, the estimate is what was counted so far.
const ROUNDS_MAX: usize = 8;
/// Reports fetched for one request, and how long it may take, in milliseconds: devices wait 30 s for an answer.
const REPORTS_MAX: usize = 256;
const ANSWER_MILLIS_MAX: u64 = 15_000;
/// Collections of one request.
const COLLECTIONS_MAX: usize = 1000;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match ItemEstimateRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let version = request.line.version;
    if asked.collections.len() > COLLECTIONS_MAX {
        return Ok(
            common_status_answer(Command::GetItemEstimate, version, CommonStatus::TooManyFolders).into()
        );
    }
    let (mut estimates, mut known) = (Vec::new(), HashMap::new());
    let mut allowance =
        Allowance { reports: REPORTS_MAX, until: request.began.plus_millis(ANSWER_MILLIS_MAX) };
    for collection in asked.collections {
        let id = collection.collection_id.parse::<FolderId>().ok();
        let (status, estimate) = match id.and_then(|id| known.get(&id)) {
            Some(known) => *known,
            None => match estimate(request, &collection, &mut allowance).await? {
                Ok(count) => (ItemEstimateStatus::Success, Some(count)),
                Err(status) => (status, None),
            },
        };
        known.extend(id.map(|id| (id, (status, estimate))));
        estimates.push(Estimate {
            status,
            class: collection.class,
            collection_id: collection.collection_id,
            estimate,
        });
    }
    let note = format!("Fc{}", estimates.len());
    let body = ItemEstimateResponse::Collections(estimates).encode(request.line.version);
    Ok(Reaction::Body(body, note))
}

/// What one request may cost.
struct Allowance {
    reports: usize,
    until: Moment,
}

impl Allowance {
    fn is_over(&self, now: Moment) -> bool {
        self.reports == 0 || now >= self.until
    }

    /// One more report. False when it is too many, or too late.
    fn takes_report(&mut self, now: Moment) -> bool {
        let may = !self.is_over(now);
        self.reports -= usize::from(may);
        may
    }
}

/// Of a folder that was not looked at to the end: there may be something, so that the device asks for it.
const NOT_NOTHING: u32 = 1;

async fn estimate(
    request: &Request,
    collection: &EstimateCollection,
    allowance: &mut Allowance,
) -> Result<std::result::Result<u32, ItemEstimateStatus>> {
    let Ok(id) = collection.collection_id.parse() else {
        return Ok(Err(ItemEstimateStatus::InvalidCollection));
    };
    if allowance.is_over(request.front.now()) {
        return Ok(Ok(NOT_NOTHING));
    }
    let loaded = state::load::<CollectionState>(request, &state::collection(id)).await?;
    let hierarchy = request.front.folders.get(request, loaded.fresh.hierarchy).await?;
    let Some(folder) = folders::find(&hierarchy, &collection.collection_id) else {
        return Ok(Err(ItemEstimateStatus::InvalidCollection));
    };
    // Nothing was told yet, so there is nothing to compare with.
    let primed = loaded.value.filter(|_| collection.sync_key != "0");
    let Some(state) = primed else { return Ok(Err(ItemEstimateStatus::NotPrimed)) };
    let key = collection.sync_key.parse().unwrap_or(0);
    let (Resume::Current(from) | Resume::Replay(from)) = state.resume(key) else {
        return Ok(Err(ItemEstimateStatus::InvalidSyncKey));
    };
    if folder.class.as_str() != "Email" {
        return Ok(Ok(0));
    }
    Ok(match count(request, id, from, collection, allowance).await? {
        Some(count) => Ok(count),
        None => Err(ItemEstimateStatus::InvalidSyncKey),
    })
}

/// `None`: the token is no longer good.
async fn count(
    request: &Request,
    folder: FolderId,
    from: KeyState,
    collection: &EstimateCollection,
    allowance: &mut Allowance,
) -> Result<Option<u32>> {
    let kept = Kept::from_text(&from.options).updated(&collection.options);
    let floor = kept.floor(jiff::Timestamp::now().as_second());
    let (mut state, mut count) = (from, 0);
    let mut least = 0;
    for _ in 0..ROUNDS_MAX {
        let mut plan = SyncPlan::new(&request.device.key, state, 512, kept.filter, floor);
        while let Some(wanted) = plan.wants() {
            if !allowance.takes_report(request.front.now()) {
                least = NOT_NOTHING;
                break;
            }
            match request.backend().items(&request.session, folder, wanted).await? {
                Some(items) => plan.handle_items(&items),
                None => return Ok(None),
            }
        }
        let planned = plan.finish();
        count += planned.commands.len();
        state = planned.next;
        if !planned.more || least > 0 {
            break;
        }
    }
    Ok(Some(u32::try_from(count).unwrap_or(u32::MAX).max(least)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_reports_or_its_time() {
        let mut allowance = Allowance { reports: 2, until: Moment(15_000) };
        assert!(allowance.takes_report(Moment(14_999)) && !allowance.takes_report(Moment(15_000)));
        assert!(allowance.takes_report(Moment(0)) && !allowance.takes_report(Moment(0)));
        assert!(allowance.is_over(Moment(0)));
    }
}
