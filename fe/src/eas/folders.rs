//! The folders of a mailbox, as a request needs them: id, class, type, URL.
//!
//! Remembered for the users seen last, by hierarchy number; a number that moved makes them be read
//! again. A parked Ping needs none of this.

use std::collections::HashMap;
use std::sync::Arc;

use directpush_common::dav::hierarchy::{Folder, Hierarchy};
use directpush_common::names::{FolderId, UserName};
use directpush_common::numbers::Number;
use parking_lot::Mutex;

use super::Request;
use crate::backend::Result;

/// Users whose folders are remembered in each of two generations.
const USERS_MAX: usize = 100;

/// Remembered hierarchies.
#[derive(Default)]
pub struct Folders(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<UserName, Arc<Hierarchy>>,
    old: HashMap<UserName, Arc<Hierarchy>>,
}

impl Folders {
    /// The user's folders as of hierarchy number `current`.
    ///
    /// # Errors
    /// [`crate::backend::Error`].
    pub async fn get(&self, request: &Request, current: Number) -> Result<Arc<Hierarchy>> {
        if let Some(known) = self.recall(&request.session.user).filter(|known| known.number == current) {
            return Ok(known);
        }
        let mut read = request.backend().hierarchy(&request.session, Number::ZERO).await?;
        read.folders.shrink_to_fit();
        let read = Arc::new(read);
        self.remember(&request.session.user, Arc::clone(&read));
        Ok(read)
    }

    fn recall(&self, user: &UserName) -> Option<Arc<Hierarchy>> {
        let mut table = self.0.lock();
        if let Some(returning) = table.old.remove(user) {
            table.young.insert(user.clone(), returning);
        }
        table.young.get(user).cloned()
    }

    fn remember(&self, user: &UserName, hierarchy: Arc<Hierarchy>) {
        let mut table = self.0.lock();
        if table.young.len() >= USERS_MAX {
            table.old = std::mem::take(&mut table.young);
        }
        table.young.insert(user.clone(), hierarchy);
    }
}

/// The folder that a device means by `id`.
pub fn find<'a>(hierarchy: &'a Hierarchy, id: &str) -> Option<&'a Folder> {
    let id: FolderId = id.parse().ok()?;
    hierarchy.folders.iter().find(|folder| folder.id == id)
}

/// The part of a folder's URL below its mailbox; the back end may give the URL absolute.
pub fn path_below<'a>(url: &'a str, mailbox: &str) -> Option<&'a str> {
    let path = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    path.strip_prefix(mailbox).filter(|path| !path.is_empty())
}
