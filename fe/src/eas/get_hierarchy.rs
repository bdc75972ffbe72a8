//! GetHierarchy ([MS-ASCMD] GetHierarchy; up to 12.1): the mail folders, without a key.

use directpush_common::dav::hierarchy::Class;
use directpush_common::eas::folder_change::hierarchy_answer;
use directpush_common::numbers::Number;

use super::folder_sync::wire;
use super::{Reaction, Request};
use crate::backend::Result;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let hierarchy = request.backend().hierarchy(&request.session, Number::ZERO).await?;
    let mail = hierarchy.folders.iter().filter(|folder| folder.class == Class::Email);
    let folders: Vec<_> = mail.map(wire).collect();
    Ok(Reaction::Body(hierarchy_answer(&folders), format!("Fc{}", folders.len())))
}
