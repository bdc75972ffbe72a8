//! Answers in gzip for devices that ask for it (RFC 9110 8.4.1.3, 12.5.3 Accept-Encoding): a phone's link is slow
//! where the network is bad, and text shrinks to a fifth.
//!
//! Not compressed: what is small, what does not shrink, and attachments, which mostly do not.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;

/// Bodies below this go as they are.
const BYTES_MIN: u64 = 1024;
/// Bodies beyond this are compressed on a thread of their own.
const LARGE_BYTES: usize = 64 * 1024;
/// What is compressed: WBXML, alone or in parts.
const TYPES: &str = "application/vnd.ms-sync";

/// The answer, compressed if the request allows it and it is worth it. Also the bytes of its body, if that changed.
pub async fn compressed(request: &HeaderMap, response: Response) -> (Response, Option<u64>) {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let worth = response.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.starts_with(TYPES))
        && response.body().size_hint().exact().is_some_and(|bytes| bytes >= BYTES_MIN);
    if !worth || !accepts_gzip(request) {
        return (response, None);
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already: nothing is waited for.
    let Ok(whole) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return (response, Some(0));
    };
    let smaller = if whole.len() > LARGE_BYTES {
        let whole = whole.clone();
        tokio::task::spawn_blocking(move || gzip(&whole)).await.ok().flatten()
    } else {
        gzip(&whole)
    };
    let Some(smaller) = smaller else { return (Response::from_parts(parts, Body::from(whole)), None) };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let bytes = smaller.len() as u64;
    (Response::from_parts(parts, Body::from(smaller)), Some(bytes))
}

/// `None` when that is no smaller.
fn gzip(whole: &Bytes) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(whole.len() / 3), Compression::fast());
    encoder.write_all(whole).ok()?;
    encoder.finish().ok().filter(|smaller| smaller.len() < whole.len())
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let fields = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn answer(body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.ms-sync.wbxml"));
        response
    }

    fn asking(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn large_text_is_compressed_for_who_asks() {
        for length in [2000, 200_000] {
            let (response, sent) =
                compressed(&asking("deflate, gzip;q=0.5"), answer(vec![b'a'; length])).await;
            assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(sent, Some(body.len() as u64));
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, vec![b'a'; length]);
        }
    }

    #[tokio::test]
    async fn everything_else_stays() {
        let noise: Vec<u8> = std::iter::repeat_with({
            let mut state = fastrand::Rng::with_seed(1);
            move || state.u8(..)
        })
        .take(5000)
        .collect();
        for (request, body) in [
            (asking("identity"), vec![b'a'; 5000]),
            (asking("gzip;q=0"), vec![b'a'; 5000]),
            (HeaderMap::new(), vec![b'a'; 5000]),
            (asking("gzip"), vec![b'a'; 100]),
            (asking("gzip"), noise),
        ] {
            let (response, sent) = compressed(&request, answer(body.clone())).await;
            assert!(sent.is_none() && response.headers().get(header::CONTENT_ENCODING).is_none());
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
        let mut picture = answer(vec![b'a'; 5000]);
        picture.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
        assert_eq!(compressed(&asking("gzip"), picture).await.1, None);
    }
}
