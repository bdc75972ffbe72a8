//! A WebDAV client for tests: one mailbox, one connection, and folders kept in step by `sync-collection` (RFC 6578).
//!
//! It asks as a front end that acts for the user, or as the user. What it cannot understand ends the test; only a
//! connection that fails is the caller's business, because servers are killed here.

use std::{collections::BTreeMap, io, net::SocketAddr};

use data_encoding::BASE64;
use directpush_common::{
    change::{EntryKind, Live},
    clock::Moment,
    dav::{
        headers,
        hierarchy::{self, Folder, Hierarchy},
        items::{Items, ItemsRequest},
    },
    names::{FolderId, ItemId, UserName},
    numbers::{CollectionToken, Number},
};
use directpush_device::{
    core::{Request, Response, Task},
    http::{Connection, Server},
    pair::Seat,
};

use crate::stage::PASSWORD;

/// Entries asked for at once: few, so that folders of a test need several answers.
const LIMIT: usize = 16;

pub(crate) struct Dav {
    pub(crate) user: UserName,
    server: Server,
    connection: Option<Connection>,
    authorization: String,
    always: Vec<(&'static str, String)>,
}

impl Dav {
    /// A person with a DAV client.
    pub(crate) fn person(http: SocketAddr, user: &str) -> Self {
        let authorization = format!("Basic {}", BASE64.encode(format!("{user}:{PASSWORD}").as_bytes()));
        Self {
            user: user.parse().unwrap(),
            server: Server::at(http),
            connection: None,
            authorization,
            always: Vec::new(),
        }
    }

    /// The front end on `seat`, which proves the user's password first.
    pub(crate) async fn front_end(http: SocketAddr, seat: &Seat, user: &str) -> io::Result<Self> {
        let authorization = format!("{} {}:{}", headers::FE_SCHEME, seat.name, seat.secret);
        let mut this = Self { authorization, ..Self::person(http, user) };
        let proof = serde_json::json!({ "login": user, "password": PASSWORD }).to_string();
        let answer = this.ask("POST", "/directpush/logon", &[], proof.as_bytes()).await?;
        assert_eq!(answer.status, 200, "{}", text(&answer));
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        this.always.push((headers::ACT_FOR, told["token"].as_str().unwrap().to_owned()));
        Ok(this)
    }

    /// Goes on at a server that was started anew.
    pub(crate) fn moved_to(&mut self, http: SocketAddr) {
        self.server = Server::at(http);
        self.connection = None;
    }

    pub(crate) async fn ask(
        &mut self,
        method: &'static str,
        target: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> io::Result<Response> {
        let request = Request {
            task: Task::Options,
            method,
            target: target.to_owned(),
            headers: self.always.iter().chain(headers).cloned().collect(),
            body: body.to_owned(),
            give_up: Moment::NEVER,
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.server, None).await?,
        };
        connection.send(&self.server, &self.authorization, &request).await?;
        let (response, reusable) = connection.receive().await?;
        self.connection = reusable.then_some(connection);
        Ok(response)
    }

    /// The same, for what must succeed.
    pub(crate) async fn done(
        &mut self,
        method: &'static str,
        target: &str,
        headers: &[(&'static str, String)],
        body: &[u8],
    ) -> io::Result<Response> {
        let answer = self.ask(method, target, headers, body).await?;
        assert!(
            (200..300).contains(&answer.status),
            "{method} {target}: {} {}",
            answer.status,
            text(&answer)
        );
        Ok(answer)
    }

    pub(crate) async fn hierarchy(&mut self) -> io::Result<Vec<Folder>> {
        let url = self.user.mailbox_url();
        let asked = hierarchy::write_request(Number(0));
        let answer = self.done("REPORT", &url, &[], asked.as_bytes()).await?;
        Ok(Hierarchy::read(&answer.body).unwrap().folders)
    }

    /// The read flag, of the item at `target`.
    pub(crate) async fn set_read(&mut self, target: &str, read: bool) -> io::Result<Response> {
        let body = format!(
            "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:m=\"urn:schemas:httpmail:\"><D:set><D:prop>\
             <m:read>{}</m:read></D:prop></D:set></D:propertyupdate>",
            u8::from(read)
        );
        self.done("PROPPATCH", target, &[], body.as_bytes()).await
    }

    /// Moves the item at `target` into a folder; gives its new id.
    pub(crate) async fn move_into(&mut self, target: &str, folder: FolderId) -> io::Result<ItemId> {
        let to = [("Destination", folder.permanent_url(&self.user))];
        let answer = self.done("MOVE", target, &to, b"").await?;
        let section = answer.header("location").and_then(|url| url.rsplit('/').next()).unwrap();
        Ok(ItemId::from_section(section).unwrap().1)
    }
}

pub(crate) fn text(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// What a folder holds as far as `sync-collection` told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) token: Option<CollectionToken>,
    /// With the number of the last change.
    pub(crate) items: BTreeMap<ItemId, (Number, Live)>,
}

impl View {
    /// Brings the view up to date from where it stands. The token must be taken.
    pub(crate) async fn sync(&mut self, dav: &mut Dav, folder: FolderId) -> io::Result<()> {
        let url = folder.permanent_url(&dav.user);
        loop {
            let asked = ItemsRequest::Changes { since: self.token, limit: LIMIT }.write();
            let answer = dav.done("REPORT", &url, &[], asked.as_bytes()).await?;
            let told = Items::read(&answer.body).unwrap();
            for entry in told.entries {
                let known = self.items.get(&entry.id).map(|(changed, _)| *changed);
                assert!(known.is_none_or(|known| known < entry.changed), "{entry:?} is old news");
                match entry.kind {
                    EntryKind::Live(live) => {
                        self.items.insert(entry.id, (entry.changed, live));
                    }
                    EntryKind::Gone(_) => {
                        self.items.remove(&entry.id);
                    }
                }
            }
            self.token = Some(told.token);
            if !told.more {
                return Ok(());
            }
        }
    }
}
