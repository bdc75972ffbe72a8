//! `POST /directpush/directory`: a front end looks for people, for a user who may ask.

use directpush_common::directory::DirectoryQuery;
use http::StatusCode;
use hyper::body::Incoming;

use super::Call;
use super::reply::{self, Reply};
use crate::auth::Principal;
use crate::http::body;

/// Bytes of the request, at most.
const BODY_BYTES_MAX: u64 = 8 * 1024;

pub(super) async fn answer(call: &Call<'_>, incoming: Incoming) -> Result<Reply, Reply> {
    let Principal::FrontEnd { acting: Some(_), .. } = &call.principal else {
        return Err(reply::text(StatusCode::FORBIDDEN, "a front end asks, acting for a user"));
    };
    let body = body::read(call.server, &call.parts.headers, incoming, BODY_BYTES_MAX).await?;
    let query: DirectoryQuery = serde_json::from_slice(&body.bytes).map_err(reply::bad)?;
    let found = call.server.boxes.find_people(&call.server.post.rules, &query).await;
    reply::json(StatusCode::OK, &found.map_err(|error| reply::failure(&error))?)
}
