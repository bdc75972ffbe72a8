//! URLs of the back end, read once into a [`Place`], then found in a mailbox as a [`Target`].
//!
//! Each segment is percent-decoded once and must be a name (`common::names::decode_segment`): nothing
//! that decodes to a slash, a dot segment or a control character gets further than here.

use directpush_common::names::{
    BadName, DeviceKey, FolderId, ItemId, UserName, decode_segment, encode_segment,
};

use crate::mailbox::State;
use crate::mailbox::folders::ROOT;
use crate::mailbox::items::ItemName;

/// Segments of a path, at most.
const SEGMENTS_MAX: usize = 48;
/// Longest name of an item or folder, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

const NON_IPM: &str = "NON_IPM_SUBTREE";
const ACTIVE_SYNC: &str = "Microsoft-Server-ActiveSync";
const SETTINGS: &str = "Settings";
const FLAT: &str = "-FlatUrlSpace-";
const SUBMISSION: &str = "##DavMailSubmissionURI##";

/// What a path means, before any mailbox was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// `/`.
    Root,
    /// `/exchange/`.
    Exchange,
    /// `/directpush/logon`.
    LogOn,
    /// `/directpush/device`.
    Device,
    /// `/directpush/directory`.
    Directory,
    /// Something in a mailbox.
    Mailbox { user: UserName, inside: Inside },
    /// Nothing we have.
    Nowhere,
}

/// A place in a mailbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Inside {
    /// Folders and items by name; empty = the mailbox itself.
    Names(Vec<String>),
    /// `-FlatUrlSpace-`.
    FlatTop,
    /// By permanent id.
    Permanent { folder: FolderId, item: Option<ItemId> },
    /// By name in a folder that is named by its permanent id.
    Below { folder: FolderId, name: String },
    /// Where mail is handed in.
    Submission,
    /// Below `NON_IPM_SUBTREE`.
    Device(DevicePlace),
    /// `NON_IPM_SUBTREE/Settings/<object>`: what is the user's own and no folder.
    Settings(String),
    /// A permanent id that has not the form of one, or a place too deep.
    Nothing,
}

/// A place in the tree of device states.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DevicePlace {
    NonIpm,
    ActiveSync,
    Type(String),
    Device(DeviceKey),
    Object(DeviceKey, String),
}

/// A path that is refused with 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPath {
    #[error("the path is not one of ours")]
    Form,
    #[error(transparent)]
    Name(#[from] BadName),
}

/// A request's path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    pub place: Place,
    /// It ended with a slash.
    pub slash: bool,
}

impl Path {
    /// Reads the path of a request line or of a `Destination` (still encoded).
    pub fn parse(raw: &str) -> Result<Self, BadPath> {
        let rest = raw.strip_prefix('/').ok_or(BadPath::Form)?;
        let slash = raw.ends_with('/');
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::new();
        if !rest.is_empty() {
            for segment in rest.split('/') {
                let name = decode_segment(segment)?;
                if segments.len() == SEGMENTS_MAX || name.len() > NAME_BYTES_MAX {
                    return Err(BadPath::Name(BadName::TooLong));
                }
                segments.push(name);
            }
        }
        Ok(Self { place: place(segments)?, slash })
    }
}

fn place(segments: Vec<String>) -> Result<Place, BadPath> {
    let mut segments = segments.into_iter();
    match segments.next() {
        None => return Ok(Place::Root),
        Some(first) if first.eq_ignore_ascii_case("exchange") => {}
        Some(first) if first == "directpush" => {
            let rest: Vec<String> = segments.collect();
            return Ok(match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["logon"] => Place::LogOn,
                ["device"] => Place::Device,
                ["directory"] => Place::Directory,
                _ => Place::Nowhere,
            });
        }
        Some(_) => return Ok(Place::Nowhere),
    }
    let Some(user) = segments.next() else { return Ok(Place::Exchange) };
    let user = user.parse()?;
    let names: Vec<String> = segments.collect();
    let inside = match names.first().map(String::as_str) {
        Some(first) if first.eq_ignore_ascii_case(NON_IPM) => device_place(&names)?,
        Some(first) if first.eq_ignore_ascii_case(FLAT) => flat_place(&names),
        Some(first) if first.eq_ignore_ascii_case(SUBMISSION) => match &names[..] {
            [_] => Inside::Submission,
            _ => Inside::Nothing,
        },
        _ => Inside::Names(names),
    };
    Ok(Place::Mailbox { user, inside })
}

fn device_place(names: &[String]) -> Result<Inside, BadPath> {
    if let [_, settings, object] = names
        && settings.eq_ignore_ascii_case(SETTINGS)
    {
        return Ok(Inside::Settings(object.clone()));
    }
    if names.get(1).is_some_and(|name| !name.eq_ignore_ascii_case(ACTIVE_SYNC)) {
        return Ok(Inside::Nothing);
    }
    let place = match &names[1..] {
        [] => DevicePlace::NonIpm,
        [_] => DevicePlace::ActiveSync,
        [_, kind] => DevicePlace::Type(kind.clone()),
        [_, kind, id] => DevicePlace::Device(DeviceKey::new(kind, id)?),
        [_, kind, id, object] => DevicePlace::Object(DeviceKey::new(kind, id)?, object.clone()),
        _ => return Ok(Inside::Nothing),
    };
    Ok(Inside::Device(place))
}

fn flat_place(names: &[String]) -> Inside {
    let (folder, item) = match &names[1..] {
        [] => return Inside::FlatTop,
        [folder] => (folder, None),
        [folder, item] => (folder, Some(item)),
        _ => return Inside::Nothing,
    };
    let Ok(folder) = folder.parse::<FolderId>() else { return Inside::Nothing };
    let Some(name) = item else { return Inside::Permanent { folder, item: None } };
    match ItemId::from_section(name) {
        Ok((guid, item)) if guid == folder.installation => Inside::Permanent { folder, item: Some(item) },
        Ok(_) => Inside::Nothing,
        Err(_) => Inside::Below { folder, name: name.clone() },
    }
}

/// What a place is in a mailbox as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    Mailbox,
    Folder(u64),
    /// An item, or a name in an existing folder that may become one.
    Item {
        folder: u64,
        name: ItemName,
    },
    /// A name at the top of the mailbox, where only folders are.
    Top(String),
    FlatTop,
    Device(DevicePlace),
    /// The folder above does not exist.
    NoParent,
    /// There cannot be anything here.
    Nothing,
}

/// Finds a place in the folder tree. Items are not looked for.
pub fn find(state: &State, inside: &Inside) -> Target {
    match inside {
        Inside::Nothing | Inside::Submission | Inside::Settings(_) => Target::Nothing,
        Inside::FlatTop => Target::FlatTop,
        Inside::Device(place) => Target::Device(place.clone()),
        Inside::Permanent { folder, item } => {
            let ours = folder.installation == state.head.installation;
            match (state.tree.folder(folder.counter).filter(|_| ours), item) {
                (Some(_), None) => Target::Folder(folder.counter),
                (Some(_), Some(item)) => {
                    Target::Item { folder: folder.counter, name: ItemName::Id(item.0.0) }
                }
                (None, _) => Target::NoParent,
            }
        }
        Inside::Below { folder, name } => {
            let ours = folder.installation == state.head.installation;
            match state.tree.folder(folder.counter).filter(|_| ours) {
                Some(_) => match state.tree.child(folder.counter, name) {
                    Some(child) => Target::Folder(child),
                    None => Target::Item { folder: folder.counter, name: ItemName::Name(name.clone()) },
                },
                None => Target::NoParent,
            }
        }
        Inside::Names(names) => {
            let mut at = ROOT;
            for (n, name) in names.iter().enumerate() {
                let last = n + 1 == names.len();
                match state.tree.child(at, name) {
                    Some(child) => at = child,
                    None if last && at == ROOT => return Target::Top(name.clone()),
                    None if last => return Target::Item { folder: at, name: ItemName::Name(name.clone()) },
                    None => return Target::NoParent,
                }
            }
            if at == ROOT { Target::Mailbox } else { Target::Folder(at) }
        }
    }
}

/// A folder's friendly URL, encoded, with a slash at the end.
pub fn folder_url(user: &UserName, state: &State, folder: u64) -> Option<String> {
    let mut url = user.mailbox_url();
    for name in state.tree.path(folder)? {
        url.push_str(&encode_segment(name));
        url.push('/');
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn inside(raw: &str) -> Inside {
        match Path::parse(raw).unwrap().place {
            Place::Mailbox { inside, .. } => inside,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_of_the_contract() {
        assert_eq!(Path::parse("/").unwrap().place, Place::Root);
        assert_eq!(Path::parse("/exchange").unwrap(), Path { place: Place::Exchange, slash: false });
        assert_eq!(Path::parse("/directpush/logon").unwrap().place, Place::LogOn);
        assert_eq!(inside("/exchange/a@b.example/"), Inside::Names(vec![]));
        assert_eq!(
            inside("/Exchange/A@b.example/Inbox/x%20y"),
            Inside::Names(vec!["Inbox".into(), "x y".into()])
        );
        let device = DeviceKey::new("PocketPC", "6F24").unwrap();
        assert_eq!(
            inside("/exchange/a/NON_IPM_SUBTREE/Microsoft-Server-ActiveSync/PocketPC/6F24/AutdState.xml"),
            Inside::Device(DevicePlace::Object(device, "AutdState.xml".into()))
        );
        assert_eq!(
            inside(
                "/exchange/a/-FlatUrlSpace-/7529a5b36290aa458b9e1fc2d5ff85a6-2/7529a5b36290aa458b9e1fc2d5ff85a6-1f"
            ),
            Inside::Permanent {
                folder: "7529a5b36290aa458b9e1fc2d5ff85a6-2".parse().unwrap(),
                item: Some(ItemId(directpush_common::numbers::Number(0x1f)))
            }
        );
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        for raw in [
            "",
            "exchange",
            "/exchange//",
            "/exchange/a/../b",
            "/exchange/a/%2e%2e/b",
            "/exchange/a/b%2fc",
            "/exchange/a/b%5cc",
            "/exchange/a/%00",
            "/exchange/a/%ff",
            "/exchange/a%3fb/",
        ] {
            assert!(Path::parse(raw).is_err(), "{raw}");
        }
        assert_eq!(inside("/exchange/a/-FlatUrlSpace-/7529-3"), Inside::Nothing);
        let (ours, other) = ("7529a5b36290aa458b9e1fc2d5ff85a6-2", "7529a5b36290aa458b9e1fc2d5ff85a7-2");
        assert_eq!(inside(&format!("/exchange/a/-FlatUrlSpace-/{ours}/{other}")), Inside::Nothing);
        let below = Inside::Below { folder: ours.parse().unwrap(), name: "a b".into() };
        assert_eq!(inside(&format!("/exchange/a/-FlatUrlSpace-/{ours}/a%20b/")), below);
        assert_eq!(inside("/exchange/a/NON_IPM_SUBTREE/other"), Inside::Nothing);
        assert_eq!(inside("/exchange/a/NON_IPM_SUBTREE/Settings/User"), Inside::Settings("User".into()));
        assert_eq!(inside("/exchange/a/%23%23DavMailSubmissionURI%23%23/"), Inside::Submission);
        assert_eq!(inside("/exchange/a/%23%23DavMailSubmissionURI%23%23/x"), Inside::Nothing);
    }
}
