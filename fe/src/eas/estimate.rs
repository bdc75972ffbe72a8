//! GetItemEstimate ([MS-ASCMD] 2.2.1.9 GetItemEstimate): what a Sync would bring, counted by
//! planning it and throwing the plan away.

use directpush_common::eas::item_estimate::{
    Estimate, EstimateCollection, ItemEstimateRequest, ItemEstimateResponse,
};
use directpush_common::eas::status::ItemEstimateStatus;
use directpush_common::eas::{Command, CommonStatus, common_status_answer};
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
    let mut estimates = Vec::new();
    for collection in asked.collections {
        let (status, estimate) = match estimate(request, &collection).await? {
            Ok(count) => (ItemEstimateStatus::Success, Some(count)),
            Err(status) => (status, None),
        };
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

async fn estimate(
    request: &Request,
    collection: &EstimateCollection,
) -> Result<std::result::Result<u32, ItemEstimateStatus>> {
    let Ok(id) = collection.collection_id.parse() else {
        return Ok(Err(ItemEstimateStatus::InvalidCollection));
    };
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
    Ok(match count(request, id, from, collection).await? {
        Some(count) => Ok(count),
        None => Err(ItemEstimateStatus::InvalidSyncKey),
    })
}

/// `None`: the token is no longer good.
async fn count(
    request: &Request,
    folder: directpush_common::names::FolderId,
    from: KeyState,
    collection: &EstimateCollection,
) -> Result<Option<u32>> {
    let kept = Kept::from_text(&from.options).updated(&collection.options);
    let floor = kept.floor(jiff::Timestamp::now().as_second());
    let (mut state, mut count) = (from, 0);
    for _ in 0..ROUNDS_MAX {
        let mut plan = SyncPlan::new(&request.device.key, state, 512, kept.filter, floor);
        while let Some(wanted) = plan.wants() {
            match request.backend().items(&request.session, folder, wanted).await? {
                Some(items) => plan.handle_items(&items),
                None => return Ok(None),
            }
        }
        let planned = plan.finish();
        count += planned.commands.len();
        state = planned.next;
        if !planned.more {
            break;
        }
    }
    Ok(Some(u32::try_from(count).unwrap_or(u32::MAX)))
}
