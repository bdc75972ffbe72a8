//! GetAttachment ([MS-ASCMD] 2.2.1.7 GetAttachment): the bytes of one attachment, as the answer's body.
//!
//! The only way to an attachment at 2.5, and still there at 12.x; from 14.0 up devices use ItemOperations.

use http::{HeaderValue, StatusCode};

use super::{Reaction, Request, item};
use crate::backend::Result;

/// Carries out the command. An attachment that is not there is 404.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let Some(name) = request.line.parameters.attachment_name.as_deref() else {
        return Ok(Reaction::Http(StatusCode::BAD_REQUEST));
    };
    let all = item::folders(request).await?;
    let Some((place, part)) = item::find_attachment(&all, name) else {
        return Ok(Reaction::Http(StatusCode::NOT_FOUND));
    };
    let Some(Ok(mime)) = item::bytes(request, place).await? else {
        return Ok(Reaction::Http(StatusCode::NOT_FOUND));
    };
    Ok(match request.front.content.attachment(mime, part).await {
        Some(found) => {
            let kind = HeaderValue::from_str(&found.content_type);
            let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            Reaction::Data(kind, found.bytes, "Att1".to_owned())
        }
        None => Reaction::Http(StatusCode::NOT_FOUND),
    })
}
