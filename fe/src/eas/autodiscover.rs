//! Autodiscover ([MS-ASCMD] Autodiscover): a phone that knows an address asks where ActiveSync is.
//!
//! The XML form needs the user's password, as everything does; the JSON form says the same to everybody, whoever exists.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use directpush_common::eas::autodiscover::{
    AutodiscoverError, AutodiscoverProtocol, AutodiscoverRequest, AutodiscoverResponse, json_question,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::backend::{Result, Session};
use crate::front::Front;

/// What is asked for at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `autodiscover.xml`.
    Xml,
    /// `autodiscover.json`, `autodiscover.json/v1.0/<address>`.
    Json,
}

/// Whether a path is Autodiscover's, whatever its case.
pub fn form(path: &str) -> Option<Form> {
    let path = path.to_ascii_lowercase();
    let rest = path.strip_prefix("/autodiscover/autodiscover.")?;
    match rest.split('/').next() {
        Some("xml") if !rest.contains('/') => Some(Form::Xml),
        Some("json") => Some(Form::Json),
        _ => None,
    }
}

/// The answer to the XML form, for a user who proved a password.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn xml(front: &Front, parts: &Parts, session: &Session, body: Bytes) -> Result<Response> {
    let asked = match parts.method {
        Method::POST => AutodiscoverRequest::decode(&body),
        _ => Err(AutodiscoverError::Invalid),
    };
    let answer = match asked {
        Err(error) => AutodiscoverResponse::Failed { error, time: time_of_day() },
        Ok(asked) => {
            let person = front.backends.of(session).person(session).await?;
            let own = session.user.as_str();
            let theirs = |address: &String| address.eq_ignore_ascii_case(&asked.address);
            let known = person.as_ref().is_some_and(|person| person.addresses.iter().any(theirs));
            if known || asked.address.eq_ignore_ascii_case(own) {
                let name = person.as_ref().map_or_else(|| own.to_owned(), |person| person.name.clone());
                let address = person.and_then(|person| person.addresses.into_iter().next());
                AutodiscoverResponse::Server {
                    display_name: name,
                    address: address.unwrap_or_else(|| own.to_owned()),
                    url: service_url(front, parts),
                }
            } else {
                AutodiscoverResponse::NotTheirs { address: asked.address }
            }
        }
    };
    Ok(reply(StatusCode::OK, "text/xml; charset=utf-8", answer.encode()))
}

/// The answer to the JSON form, for anybody.
pub fn json(front: &Front, parts: &Parts) -> Response {
    let json = |status, value: serde_json::Value| {
        reply(status, "application/json; charset=utf-8", value.to_string())
    };
    match json_question(parts.uri.path(), parts.uri.query().unwrap_or_default()) {
        Ok(AutodiscoverProtocol::ActiveSync) => {
            let url = service_url(front, parts);
            json(StatusCode::OK, serde_json::json!({ "Protocol": "ActiveSync", "Url": url }))
        }
        Ok(AutodiscoverProtocol::AutodiscoverV1) => {
            let url = format!("{}/autodiscover/autodiscover.xml", origin(front, parts));
            json(StatusCode::OK, serde_json::json!({ "Protocol": "AutodiscoverV1", "Url": url }))
        }
        Err(error) => {
            let told = serde_json::json!({ "ErrorCode": error.code(), "ErrorMessage": error.to_string() });
            json(StatusCode::BAD_REQUEST, told)
        }
    }
}

fn service_url(front: &Front, parts: &Parts) -> String {
    format!("{}/Microsoft-Server-ActiveSync", origin(front, parts))
}

/// `https://<host>`: as configured, else as the device itself called us. Plain HTTP is for this host alone.
fn origin(front: &Front, parts: &Parts) -> String {
    if let Some(origin) = &front.config.public_url {
        return origin.clone();
    }
    let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let host = field(header::HOST.as_str()).or(parts.uri.authority().map(http::uri::Authority::as_str));
    let legal = |host: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']');
        !host.is_empty() && host.len() <= 255 && host.bytes().all(fits)
    };
    let host = host.filter(legal).unwrap_or(&front.config.call_back_host);
    let local = ["127.", "localhost", "[::1]"].iter().any(|name| host.starts_with(name));
    let secure = !local || field("x-forwarded-proto") == Some("https");
    format!("{}://{host}", if secure { "https" } else { "http" })
}

fn time_of_day() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}

fn reply(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_in_any_case() {
        assert_eq!(form("/Autodiscover/Autodiscover.xml"), Some(Form::Xml));
        assert_eq!(form("/autodiscover/autodiscover.json"), Some(Form::Json));
        assert_eq!(form("/autodiscover/autodiscover.json/v1.0/a@b.example"), Some(Form::Json));
        for other in
            ["/autodiscover/", "/autodiscover/autodiscover.xml/x", "/autodiscover/autodiscover.svc", "/"]
        {
            assert_eq!(form(other), None, "{other}");
        }
    }
}
