//! OPTIONS: what this server is. Asked without a credential too, by clients and by a front end that
//! wants to know whether the back end is still the same process.

use http::{HeaderName, StatusCode, header};

use super::ALLOW;
use super::reply::{self, Reply};

pub(super) fn answer() -> Reply {
    let mut reply = reply::empty(StatusCode::OK);
    for (name, value) in [
        ("dav", "1, 2, 3"),
        ("dasl", "<DAV:sql>"),
        ("ms-author-via", "DAV"),
        ("public", ALLOW),
        (header::ALLOW.as_str(), ALLOW),
    ] {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            reply = reply::with(reply, name, value);
        }
    }
    reply
}
