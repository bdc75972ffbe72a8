//! REPORT `dp:hierarchy`: the folders of a mailbox that changed since a hierarchy number.

use serde::{Deserialize, Serialize};

use super::{
    DAV, DavError, OURS,
    xml::{Element, escape, parse},
};
use crate::{names::FolderId, numbers::Number};

/// One folder as the hierarchy report gives it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// Permanent id.
    pub id: FolderId,
    /// The folder it lies in; none = the top.
    pub parent: Option<FolderId>,
    /// EAS folder type: 2 Inbox … 12 user's mail folder … ([MS-ASCMD] Type (FolderSync)).
    pub folder_type: u8,
    /// What its items are.
    pub class: Class,
    /// Display name.
    pub name: String,
    /// Hierarchy number of its birth.
    pub created: Number,
    /// Hierarchy number of its last change of name or place.
    pub changed: Number,
    /// Friendly URL, encoded, with a slash at the end.
    pub url: String,
}

/// What the items of a folder are; the spelling of EAS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Class {
    Email,
    Calendar,
    Contacts,
    Tasks,
    Notes,
}

impl Class {
    /// The name as EAS spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "Email",
            Self::Calendar => "Calendar",
            Self::Contacts => "Contacts",
            Self::Tasks => "Tasks",
            Self::Notes => "Notes",
        }
    }
}

impl std::str::FromStr for Class {
    type Err = DavError;
    fn from_str(text: &str) -> Result<Self, DavError> {
        let all = [Self::Email, Self::Calendar, Self::Contacts, Self::Tasks, Self::Notes];
        all.into_iter().find(|class| class.as_str() == text).ok_or(DavError::Bad("class"))
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer of the hierarchy report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hierarchy {
    /// The mailbox's hierarchy number as of this answer.
    pub number: Number,
    /// Folders made or changed since.
    pub folders: Vec<Folder>,
    /// Folders removed since.
    pub removed: Vec<FolderId>,
}

/// Writes the request.
pub fn write_request(since: Number) -> String {
    format!(
        "<?xml version=\"1.0\"?><dp:hierarchy xmlns:dp=\"{OURS}\"><dp:since>{since}</dp:since></dp:hierarchy>"
    )
}

/// Reads the request, already parsed.
///
/// # Errors
/// [`DavError`] for another document.
pub fn read_request(root: &Element) -> Result<Number, DavError> {
    if !root.is(OURS, "hierarchy") {
        return Err(DavError::Missing("hierarchy"));
    }
    root.child_text(OURS, "since").unwrap_or("0").parse().map_err(|_| DavError::Bad("since"))
}

impl Hierarchy {
    /// Writes the 207 body.
    pub fn write(&self) -> String {
        let mut out = format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"{DAV}\" xmlns:dp=\"{OURS}\">");
        for folder in &self.folders {
            let parent = folder.parent.map_or_else(|| "0".to_owned(), |parent| parent.to_string());
            out.push_str(&format!(
                "<D:response><D:href>{}</D:href><D:propstat><D:prop><dp:folder id=\"{}\" parent=\"{parent}\" type=\"{}\" \
                 class=\"{}\" name=\"{}\" created=\"{}\" changed=\"{}\"/></D:prop>\
                 <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>",
                escape(&folder.url),
                folder.id,
                folder.folder_type,
                folder.class,
                escape(&folder.name),
                folder.created,
                folder.changed
            ));
        }
        for id in &self.removed {
            out.push_str(&format!(
                "<D:response><D:href>{id}</D:href><D:status>HTTP/1.1 404 Not Found</D:status>\
                 <dp:folder id=\"{id}\" removed=\"1\"/></D:response>"
            ));
        }
        out.push_str(&format!("<dp:hierarchy-number>{}</dp:hierarchy-number></D:multistatus>", self.number));
        out
    }

    /// Reads the 207 body.
    ///
    /// # Errors
    /// [`DavError`] for another document.
    pub fn read(body: &[u8]) -> Result<Self, DavError> {
        let root = parse(body)?;
        let number =
            root.child_text(OURS, "hierarchy-number").ok_or(DavError::Missing("hierarchy-number"))?;
        let mut hierarchy = Self {
            number: number.parse().map_err(|_| DavError::Bad("hierarchy-number"))?,
            ..Self::default()
        };
        for response in root.children_named(DAV, "response") {
            if let Some(gone) = response.child(OURS, "folder") {
                hierarchy.removed.push(gone.parsed("id")?);
                continue;
            }
            let folder = response
                .child(DAV, "propstat")
                .and_then(|propstat| propstat.child(DAV, "prop"))
                .and_then(|prop| prop.child(OURS, "folder"))
                .ok_or(DavError::Missing("folder"))?;
            hierarchy.folders.push(Folder {
                id: folder.parsed("id")?,
                parent: match folder.attribute("parent") {
                    None | Some("0") => None,
                    Some(parent) => Some(parent.parse().map_err(|_| DavError::Bad("parent"))?),
                },
                folder_type: folder.parsed("type")?,
                class: folder.parsed("class")?,
                name: folder.parsed("name")?,
                created: folder.parsed("created")?,
                changed: folder.parsed("changed")?,
                url: response.child_text(DAV, "href").ok_or(DavError::Missing("href"))?.to_owned(),
            });
        }
        Ok(hierarchy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Guid;

    #[test]
    fn reads_what_it_writes() {
        let id = |counter| FolderId { installation: Guid([9; 16]), counter };
        let hierarchy = Hierarchy {
            number: Number(12),
            folders: vec![Folder {
                id: id(2),
                parent: Some(id(1)),
                folder_type: 12,
                class: Class::Email,
                name: "Köln & \"Bonn\"".into(),
                created: Number(3),
                changed: Number(12),
                url: "/exchange/alice/K%C3%B6ln/".into(),
            }],
            removed: vec![id(77)],
        };
        assert_eq!(Hierarchy::read(hierarchy.write().as_bytes()).unwrap(), hierarchy);
        assert_eq!(Hierarchy::read(b"<a/>"), Err(DavError::Missing("hierarchy-number")));
        assert_eq!(read_request(&parse(write_request(Number(4)).as_bytes()).unwrap()), Ok(Number(4)));
    }
}
