//! AutdState.xml: the heartbeat and the folders of a device's last full Ping, kept in its user's mailbox.
//!
//! The document is the article's. Reading tolerates white space and unknown elements; whatever else is wrong is
//! an error, and the Ping answers Status 3: the device then sends everything again and the file is rewritten.

use crate::dav::{
    DavError,
    hierarchy::Class,
    xml::{Element, escape, parse},
};

/// Namespace of the document, colon included.
const NAMESPACE: &str = "Ping:";
/// Bytes of the document, at most.
pub const BYTES_MAX: usize = 64 * 1024;
/// Folders, at most.
pub const FOLDERS_MAX: usize = 1000;

/// The saved parameters of Ping.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AutdState {
    /// HeartbeatInterval in seconds.
    pub heartbeat_secs: u32,
    /// The folders to watch, in the order in which the device named them.
    pub folders: Vec<AutdFolder>,
}

/// One folder to watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AutdFolder {
    /// The folder's id as the device knows it.
    pub id: String,
    /// What its items are.
    pub class: Class,
}

impl AutdState {
    /// The document as the article prints it, without its indentation.
    pub fn to_xml(&self) -> String {
        let mut out = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><AutdState xmlns=\"{NAMESPACE}\"><Version>1.0</Version>\
             <HeartbeatInterval>{}</HeartbeatInterval><Folders>",
            self.heartbeat_secs
        );
        for AutdFolder { id, class } in &self.folders {
            out.push_str(&format!("<Folder><Id>{}</Id><Class>{class}</Class></Folder>", escape(id)));
        }
        out.push_str("</Folders></AutdState>");
        out
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`DavError`] for anything that is not such a document within the bounds.
    pub fn from_xml(bytes: &[u8]) -> Result<Self, DavError> {
        if bytes.len() > BYTES_MAX {
            return Err(DavError::Bad("AutdState"));
        }
        let root = parse(bytes)?;
        let text = |element: &Element, name| element.child_text(NAMESPACE, name).map(str::to_owned);
        if !root.is(NAMESPACE, "AutdState") {
            return Err(DavError::Missing("AutdState"));
        }
        let heartbeat = text(&root, "HeartbeatInterval").ok_or(DavError::Missing("HeartbeatInterval"))?;
        let list = root.child(NAMESPACE, "Folders").ok_or(DavError::Missing("Folders"))?;
        let mut folders = Vec::new();
        for folder in list.children_named(NAMESPACE, "Folder") {
            if folders.len() == FOLDERS_MAX {
                return Err(DavError::Bad("Folders"));
            }
            let id = text(folder, "Id").filter(|id| !id.is_empty()).ok_or(DavError::Missing("Id"))?;
            let class = text(folder, "Class").ok_or(DavError::Missing("Class"))?.parse()?;
            folders.push(AutdFolder { id, class });
        }
        let heartbeat_secs = heartbeat.parse().map_err(|_| DavError::Bad("HeartbeatInterval"))?;
        Ok(Self { heartbeat_secs, folders })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The article's sample without the marks of Internet Explorer's tree view.
    const ARTICLE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<AutdState xmlns="Ping:">
   <Version>1.0</Version>
   <HeartbeatInterval>680</HeartbeatInterval>
   <Folders>
   <Folder>
      <Id>7529a5b36290aa458b9e1fc2d5ff85a6-3aaa2</Id>
      <Class>Email</Class>
   </Folder>
   <Folder>
    <Id>7529a5b36290aa458b9e1fc2d5ff85a6-2cfb8</Id>
    <Class>Calendar</Class>
    </Folder>
 </Folders>
</AutdState>"#;

    #[test]
    fn the_articles_sample_is_read_and_written_back() {
        let state = AutdState::from_xml(ARTICLE.as_bytes()).unwrap();
        assert_eq!((state.heartbeat_secs, state.folders.len()), (680, 2));
        assert_eq!(state.folders[1].class, Class::Calendar);
        let compact: String = ARTICLE.lines().map(str::trim).collect();
        assert_eq!(state.to_xml(), compact);
    }

    #[test]
    fn what_is_no_autd_state_is_an_error() {
        let many = format!(
            "<AutdState xmlns=\"Ping:\"><HeartbeatInterval>9</HeartbeatInterval><Folders>{}</Folders></AutdState>",
            "<Folder><Id>a</Id><Class>Email</Class></Folder>".repeat(1001)
        );
        for bad in [
            "",
            "garbage",
            "<AutdState/>",
            "<AutdState xmlns=\"Ping:\"><HeartbeatInterval>x</HeartbeatInterval><Folders/></AutdState>",
            "<AutdState xmlns=\"Ping:\"><HeartbeatInterval>9</HeartbeatInterval></AutdState>",
            "<AutdState xmlns=\"Ping:\"><HeartbeatInterval>9</HeartbeatInterval><Folders><Folder><Class>Email</Class></Folder></Folders></AutdState>",
            "<!DOCTYPE a><AutdState xmlns=\"Ping:\"/>",
            many.as_str(),
        ] {
            assert!(AutdState::from_xml(bad.as_bytes()).is_err(), "{bad:.60}");
        }
    }
}
