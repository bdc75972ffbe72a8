//! The 207 bodies of UNSUBSCRIBE and POLL: one response per subscription.
//!
//! One `response` per id, because one client of the time reads only the first `li` of each. Source: the
//! Exchange SDK's samples as the reference notes quote them; `dp:group` is ours, for POLL by call-back.

use super::{
    DAV, DavError, EXCHANGE, OURS,
    xml::{escape, parse},
};
use crate::{httpu::SubscriptionId, names::Guid};

/// What became of one subscription.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SubscriptionStatus {
    /// 200: something changed that was not acknowledged.
    Changed,
    /// 204: nothing did.
    Unchanged,
    /// 412: unknown here, or not this caller's.
    Unknown,
}

impl SubscriptionStatus {
    const fn line(self) -> &'static str {
        match self {
            Self::Changed => "HTTP/1.1 200 OK",
            Self::Unchanged => "HTTP/1.1 204 No Content",
            Self::Unknown => "HTTP/1.1 412 Precondition Failed",
        }
    }
}

/// One response of the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubscriptionAnswer {
    /// The subscription.
    pub id: SubscriptionId,
    /// What became of it.
    pub status: SubscriptionStatus,
    /// Its group, in answers to POLL by call-back.
    pub group: Option<Guid>,
}

/// Writes the body. `href` is the URL of the request.
pub fn write(href: &str, answers: &[SubscriptionAnswer]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\"?><a:multistatus xmlns:b=\"{EXCHANGE}\" xmlns:dp=\"{OURS}\" xmlns:a=\"{DAV}\">"
    );
    let href = escape(href);
    for answer in answers {
        let (line, id) = (answer.status.line(), answer.id);
        out.push_str("<a:response><a:href>");
        out.push_str(&href);
        out.push_str(&format!(
            "</a:href><a:status>{line}</a:status><b:subscriptionID><li>{id}</li></b:subscriptionID>"
        ));
        if let Some(group) = answer.group {
            out.push_str(&format!("<dp:group>{}</dp:group>", group.to_group()));
        }
        out.push_str("</a:response>");
    }
    out.push_str("</a:multistatus>");
    out
}

/// Reads the body.
///
/// # Errors
/// [`DavError`] for a body that is not such a multistatus.
pub fn read(body: &[u8]) -> Result<Vec<SubscriptionAnswer>, DavError> {
    let root = parse(body)?;
    if !root.is(DAV, "multistatus") {
        return Err(DavError::Missing("multistatus"));
    }
    let mut answers = Vec::new();
    for response in root.children_named(DAV, "response") {
        let line = response.child_text(DAV, "status").ok_or(DavError::Missing("status"))?;
        let status = match line.split(' ').nth(1) {
            Some("200") => SubscriptionStatus::Changed,
            Some("204") => SubscriptionStatus::Unchanged,
            Some(_) => SubscriptionStatus::Unknown,
            None => return Err(DavError::Bad("status")),
        };
        let group = match response.child_text(OURS, "group") {
            Some(group) => Some(Guid::from_group(group).map_err(|_| DavError::Bad("group"))?),
            None => None,
        };
        let list = response.child(EXCHANGE, "subscriptionID").ok_or(DavError::Missing("subscriptionID"))?;
        for li in list.children.iter().filter(|child| child.name == "li") {
            let id = li.text.parse().map_err(|_| DavError::Bad("subscriptionID"))?;
            answers.push(SubscriptionAnswer { id, status, group });
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64, status: SubscriptionStatus, group: Option<Guid>) -> SubscriptionAnswer {
        SubscriptionAnswer { id: SubscriptionId(id), status, group }
    }

    #[test]
    fn reads_what_it_writes() {
        let answers = [
            answer(21, SubscriptionStatus::Changed, Some(Guid([3; 16]))),
            answer(22, SubscriptionStatus::Unchanged, None),
            answer(u64::MAX, SubscriptionStatus::Unknown, None),
        ];
        assert_eq!(read(write("/exchange/a&b/", &answers).as_bytes()).unwrap(), answers);
        assert_eq!(read(write("/exchange/", &[]).as_bytes()).unwrap(), []);
    }

    #[test]
    fn the_sdk_sample_is_read() {
        let body = br#"<?xml version="1.0"?><a:multistatus xmlns:b="http://schemas.microsoft.com/Exchange/" xmlns:a="DAV:"><a:response><a:href>http://be/exchange/u@d/Inbox</a:href><a:status>HTTP/1.1 200 OK</a:status><b:subscriptionID><li>21</li></b:subscriptionID></a:response></a:multistatus>"#;
        assert_eq!(read(body).unwrap(), [answer(21, SubscriptionStatus::Changed, None)]);
    }

    #[test]
    fn other_documents_are_refused() {
        assert!(read(b"<html/>").is_err());
        assert!(read(br#"<a:multistatus xmlns:a="DAV:"><a:response/></a:multistatus>"#).is_err());
    }
}
