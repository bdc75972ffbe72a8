//! The Call-Back URL of a subscription: `httpu://<this front end>:<port>/<guid>`.
//!
//! It is copied into the request line of every NOTIFY, so nothing may be in it that would end that line.

use std::{fmt, str::FromStr};

use crate::names::Guid;

/// Bytes of a Call-Back, at most.
pub const CALL_BACK_BYTES_MAX: usize = 256;

/// Where the back end sends NOTIFYs of a subscription: one process of one front end.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallBack {
    host: Box<str>,
    port: u16,
    guid: Guid,
}

/// A Call-Back that will not be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCallBack {
    /// Longer than [`CALL_BACK_BYTES_MAX`].
    #[error("the Call-Back is longer than {CALL_BACK_BYTES_MAX} bytes")]
    TooLong,
    /// Another scheme than httpu: the back end is no reflector.
    #[error("the Call-Back's scheme is not httpu")]
    Scheme,
    /// No port, port 0, or no number.
    #[error("the Call-Back needs a port")]
    Port,
    /// A host with characters that no host name or address has.
    #[error("the Call-Back's host is no host name or address")]
    Host,
    /// The path is not one GUID.
    #[error("the Call-Back's path is not a GUID")]
    Path,
}

impl CallBack {
    /// A call-back to `host` (a name or an IPv4 address) on `port`.
    pub fn new(host: &str, port: u16, guid: Guid) -> Result<Self, BadCallBack> {
        let host_ok = (1..=200).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        match (host_ok, port) {
            (false, _) => Err(BadCallBack::Host),
            (_, 0) => Err(BadCallBack::Port),
            _ => Ok(Self { host: host.to_ascii_lowercase().into(), port, guid }),
        }
    }

    /// The front end's own name, lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Names the process: new at each start of the front end.
    pub fn guid(&self) -> Guid {
        self.guid
    }
}

impl fmt::Display for CallBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "httpu://{}:{}/{}", self.host, self.port, self.guid)
    }
}

impl FromStr for CallBack {
    type Err = BadCallBack;
    fn from_str(text: &str) -> Result<Self, BadCallBack> {
        if text.len() > CALL_BACK_BYTES_MAX {
            return Err(BadCallBack::TooLong);
        }
        let rest = match text.split_at_checked(8) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("httpu://") => rest,
            _ => return Err(BadCallBack::Scheme),
        };
        let (authority, path) = rest.split_once('/').ok_or(BadCallBack::Path)?;
        let (host, port) = authority.rsplit_once(':').ok_or(BadCallBack::Port)?;
        let port_ok = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if port_ok {
            port.parse().map_err(|_| BadCallBack::Port)?
        } else {
            return Err(BadCallBack::Port);
        };
        Self::new(host, port, path.parse().map_err(|_| BadCallBack::Path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_httpu_with_port_and_guid() {
        let good = "httpu://1b25a.1b1domain.lab:2883/35395ce4-1504-4ac4-9721-f152c646ea35";
        assert_eq!(good.parse::<CallBack>().unwrap().to_string(), good);
        let guid = "35395ce4-1504-4ac4-9721-f152c646ea35";
        for (bad, why) in [
            (format!("http://fe:2883/{guid}"), BadCallBack::Scheme),
            (format!("httpu://fe/{guid}"), BadCallBack::Port),
            (format!("httpu://fe:0/{guid}"), BadCallBack::Port),
            (format!("httpu://fe:+1/{guid}"), BadCallBack::Port),
            (format!("httpu://fe:70000/{guid}"), BadCallBack::Port),
            (format!("httpu://a b:2883/{guid}"), BadCallBack::Host),
            (format!("httpu://a\r\nX:2883/{guid}"), BadCallBack::Host),
            ("httpu://fe:2883/510".into(), BadCallBack::Path),
            (format!("httpu://fe:2883/{guid}/x"), BadCallBack::Path),
            (format!("httpu://{}:2883/{guid}", "a".repeat(300)), BadCallBack::TooLong),
        ] {
            assert_eq!(bad.parse::<CallBack>(), Err(why), "{bad}");
        }
    }
}
