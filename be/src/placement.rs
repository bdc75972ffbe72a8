//! Where users are whose mailboxes are at another back end: the map, and what is said of them here.
//!
//! The map rules: who is placed elsewhere is sent there, even if a mailbox of that name still lies here from before. Only
//! back ends of our own configuration are ever named, so nobody can be sent astray.
//!
//! Not here: how the map is written (`common::placement`).

use std::sync::Arc;

use directpush_common::config::Mistakes;
use directpush_common::names::UserName;
use directpush_common::placement::Placement;
use parking_lot::RwLock;

use crate::config::place::PlacementSettings;

/// Who is where.
#[derive(Debug)]
pub struct Elsewhere {
    settings: PlacementSettings,
    /// By the numbers of the map; this back end has none.
    urls: Vec<Option<Arc<str>>>,
    map: RwLock<Placement>,
}

impl Elsewhere {
    /// Reads the map.
    ///
    /// # Errors
    /// All its mistakes at once.
    pub fn open(settings: PlacementSettings) -> Result<Self, Mistakes> {
        let map = settings.read()?;
        let others = settings.back_ends.iter().map(|other| Some(Arc::from(other.url.as_str())));
        let urls = std::iter::once(None).chain(others).collect();
        Ok(Self { settings, urls, map: RwLock::new(map) })
    }

    /// Reads the map again; says whether it is another.
    ///
    /// # Errors
    /// All its mistakes at once: the one before stays.
    pub fn reload(&self) -> Result<bool, Mistakes> {
        let read = self.settings.read()?;
        let mut map = self.map.write();
        let changed = *map != read;
        *map = read;
        Ok(changed)
    }

    /// The URL of the back end that has a user's mailbox, if it is another.
    pub fn of(&self, user: &UserName) -> Option<Arc<str>> {
        self.url(self.map.read().backend(user))
    }

    /// The same of somebody who may be meant by any of these names.
    pub fn of_any(&self, names: &[UserName]) -> Option<Arc<str>> {
        self.url(self.map.read().backend_of_any(names))
    }

    fn url(&self, number: Option<usize>) -> Option<Arc<str>> {
        self.urls.get(number?)?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::place::BackEnd;

    #[test]
    fn the_map_says_who_is_elsewhere_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let map = dir.path().join("placement");
        std::fs::write(&map, "* be-1\nalice@example.com be-2\n").unwrap();
        let back_ends = vec![BackEnd { name: "be-2".into(), url: "http://b:1".into() }];
        let settings = PlacementSettings { map: map.clone(), back_end: "be-1".into(), back_ends };
        let elsewhere = Elsewhere::open(settings).unwrap();
        let (alice, bob) = ("alice@example.com".parse().unwrap(), "bob@example.com".parse().unwrap());
        assert_eq!(elsewhere.of(&alice).as_deref(), Some("http://b:1"));
        assert_eq!(elsewhere.of(&bob), None);
        std::fs::write(&map, "* be-9\n").unwrap();
        elsewhere.reload().unwrap_err();
        assert_eq!(elsewhere.of(&alice).as_deref(), Some("http://b:1"));
        std::fs::write(&map, "bob@example.com be-2\n").unwrap();
        assert!(elsewhere.reload().unwrap() && !elsewhere.reload().unwrap());
        assert_eq!(elsewhere.of(&alice), None, "nobody says where she is");
        assert_eq!(elsewhere.of_any(&[alice, bob]).as_deref(), Some("http://b:1"));
    }
}
