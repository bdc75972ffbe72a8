//! Autodiscover for phones: the mobilesync schema in XML ([MS-ASCMD] Autodiscover), and the newer form in JSON.
//!
//! Not here: whose address it is, and where this server is reached.

use crate::dav::xml::{Element, escape, parse};

/// The schema of a request.
pub const REQUEST_SCHEMA: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/requestschema/2006";
/// The schema of the answer that a phone can read.
pub const RESPONSE_SCHEMA: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006";
/// The schema around every answer, and of errors.
const ENVELOPE: &str = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006";
/// Bytes of an address, at most (RFC 5321 4.5.3.1.3, with room for its brackets).
const ADDRESS_BYTES_MAX: usize = 320;

/// A question: where is this address's mailbox?
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AutodiscoverRequest {
    /// `EMailAddress`.
    pub address: String,
}

/// Why there is no answer to a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AutodiscoverError {
    /// Not a request, or one without an address.
    #[error("Invalid Request")]
    Invalid,
    /// The answer is wanted in another schema than that of phones.
    #[error("Provider is not available")]
    Schema,
}

impl AutodiscoverError {
    /// `ErrorCode`.
    pub const fn code(self) -> u16 {
        match self {
            Self::Invalid => 600,
            Self::Schema => 601,
        }
    }
}

impl AutodiscoverRequest {
    /// Reads a request's body. The namespaces of elements are not looked at: phones write several.
    pub fn decode(body: &[u8]) -> Result<Self, AutodiscoverError> {
        let root = parse(body).map_err(|_| AutodiscoverError::Invalid)?;
        let request = named(&root, "Request").filter(|_| root.name == "Autodiscover");
        let request = request.ok_or(AutodiscoverError::Invalid)?;
        let text = |name| named(request, name).map(|it| it.text.trim());
        let address = text("EMailAddress").filter(|address| is_address(address));
        let schema = text("AcceptableResponseSchema").ok_or(AutodiscoverError::Invalid)?;
        if !schema.eq_ignore_ascii_case(RESPONSE_SCHEMA) {
            return Err(AutodiscoverError::Schema);
        }
        let address = address.ok_or(AutodiscoverError::Invalid)?.to_owned();
        Ok(Self { address })
    }

    /// The request's body.
    pub fn encode(&self) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"{REQUEST_SCHEMA}\"><Request>\
             <EMailAddress>{}</EMailAddress><AcceptableResponseSchema>{RESPONSE_SCHEMA}</AcceptableResponseSchema>\
             </Request></Autodiscover>",
            escape(&self.address)
        )
    }
}

fn is_address(text: &str) -> bool {
    let split = text.split_once('@');
    text.len() <= ADDRESS_BYTES_MAX
        && split.is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty())
}

fn named<'a>(parent: &'a Element, name: &str) -> Option<&'a Element> {
    parent.children.iter().find(|child| child.name == name)
}

/// The answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AutodiscoverResponse {
    /// Here.
    Server {
        /// How the user is called.
        display_name: String,
        /// The user's own address.
        address: String,
        /// Where ActiveSync is reached.
        url: String,
    },
    /// The address is not the user's: Status 2 of the action.
    NotTheirs {
        /// As it was asked for.
        address: String,
    },
    /// There is no answer.
    Failed {
        /// Why not.
        error: AutodiscoverError,
        /// When, as `hh:mm:ss`.
        time: String,
    },
}

impl AutodiscoverResponse {
    /// The response's body.
    pub fn encode(&self) -> String {
        let inner = match self {
            Self::Server { display_name, address, url } => {
                let (display_name, address, url) = (escape(display_name), escape(address), escape(url));
                format!(
                    "<Response xmlns=\"{RESPONSE_SCHEMA}\"><Culture>en:us</Culture><User><DisplayName>{display_name}\
                     </DisplayName><EMailAddress>{address}</EMailAddress></User><Action><Settings><Server>\
                     <Type>MobileSync</Type><Url>{url}</Url><Name>{url}</Name></Server></Settings></Action></Response>"
                )
            }
            Self::NotTheirs { address } => format!(
                "<Response xmlns=\"{RESPONSE_SCHEMA}\"><Culture>en:us</Culture><User><EMailAddress>{}</EMailAddress>\
                 </User><Action><Error><Status>2</Status><Message>The address is not that of the user who asks.\
                 </Message><DebugData>MailUser</DebugData></Error></Action></Response>",
                escape(address)
            ),
            Self::Failed { error, time } => format!(
                "<Response><Error Time=\"{}\" Id=\"1\"><ErrorCode>{}</ErrorCode><Message>{error}</Message>\
                 <DebugData/></Error></Response>",
                escape(time),
                error.code()
            ),
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns=\"{ENVELOPE}\">{inner}</Autodiscover>"
        )
    }
}

/// The JSON form of the question: which service is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AutodiscoverProtocol {
    /// ActiveSync itself.
    ActiveSync,
    /// The XML form above.
    AutodiscoverV1,
}

/// Why the JSON form has no answer: HTTP 400 with these words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// No address.
    #[error("A valid smtp address must be provided")]
    Address,
    /// No protocol.
    #[error("The query parameter 'Protocol' must be provided")]
    NoProtocol,
    /// Another protocol.
    #[error("The given protocol value is invalid. Supported values are 'ActiveSync,AutodiscoverV1'")]
    Protocol,
}

impl JsonError {
    /// `ErrorCode`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Address => "InvalidUserId",
            Self::NoProtocol => "MandatoryParameterMissing",
            Self::Protocol => "InvalidProtocol",
        }
    }
}

/// Reads a question of the JSON form: the address stands at the end of the path or in the query.
pub fn json_question(path: &str, query: &str) -> Result<AutodiscoverProtocol, JsonError> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| decoded(value)).next()
    };
    let at_the_end = || path.rsplit('/').next().map(decoded).filter(|text| text.contains('@'));
    if !parameter("Email").or_else(at_the_end).is_some_and(|address| is_address(&address)) {
        return Err(JsonError::Address);
    }
    let protocol = parameter("Protocol").ok_or(JsonError::NoProtocol)?;
    match protocol.to_ascii_lowercase().as_str() {
        "activesync" => Ok(AutodiscoverProtocol::ActiveSync),
        "autodiscoverv1" => Ok(AutodiscoverProtocol::AutodiscoverV1),
        _ => Err(JsonError::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn androids_request_is_read() {
        let body = "<?xml version='1.0' encoding='UTF-8' standalone='no' ?>\n<Autodiscover xmlns=\"http://schemas.microsoft\
                    .com/exchange/autodiscover/mobilesync/requestschema/2006\">\n  <Request>\n    <EMailAddress>alice@example.com\
                    </EMailAddress>\n    <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/mobilesync/\
                    responseschema/2006</AcceptableResponseSchema>\n  </Request>\n</Autodiscover>";
        let request = AutodiscoverRequest { address: "alice@example.com".into() };
        assert_eq!(AutodiscoverRequest::decode(body.as_bytes()), Ok(request.clone()));
        assert_eq!(AutodiscoverRequest::decode(request.encode().as_bytes()), Ok(request));
    }

    #[test]
    fn other_questions_are_600_and_601() {
        let request = AutodiscoverRequest { address: "a@b".into() }.encode();
        let outlook = request.replace("mobilesync/responseschema/2006", "outlook/responseschema/2006a");
        let code = |body: &str| AutodiscoverRequest::decode(body.as_bytes()).map_err(AutodiscoverError::code);
        assert_eq!(code(&outlook), Err(601));
        for bad in
            ["", "<a/>", "<Autodiscover/>", &request.replace("a@b", "nobody"), &request.replace("</", "<")]
        {
            assert_eq!(code(bad), Err(600), "{bad}");
        }
    }

    #[test]
    fn answers_are_xml_whatever_is_in_them() {
        let nasty = "<&\"'>".to_owned();
        for response in [
            AutodiscoverResponse::Server {
                display_name: nasty.clone(),
                address: nasty.clone(),
                url: nasty.clone(),
            },
            AutodiscoverResponse::NotTheirs { address: nasty.clone() },
            AutodiscoverResponse::Failed { error: AutodiscoverError::Schema, time: nasty },
        ] {
            let root = parse(response.encode().as_bytes()).unwrap();
            assert!(root.is(ENVELOPE, "Autodiscover") && root.children[0].name == "Response");
        }
        let failed =
            AutodiscoverResponse::Failed { error: AutodiscoverError::Invalid, time: "09:11:07".into() };
        assert!(failed.encode().contains("<ErrorCode>600</ErrorCode>"));
    }

    #[test]
    fn the_json_form_is_asked_in_the_query_or_the_path() {
        let path = "/autodiscover/autodiscover.json";
        let ask = |path: &str, query: &str| json_question(path, query).map_err(JsonError::code);
        assert_eq!(
            ask(path, "Email=a%40b.example&Protocol=ActiveSync&RedirectCount=1"),
            Ok(AutodiscoverProtocol::ActiveSync)
        );
        assert_eq!(
            ask("/autodiscover/autodiscover.json/v1.0/a@b.example", "protocol=autodiscoverv1"),
            Ok(AutodiscoverProtocol::AutodiscoverV1)
        );
        assert_eq!(ask(path, "Protocol=ActiveSync"), Err("InvalidUserId"));
        assert_eq!(ask(path, "Email=a@b"), Err("MandatoryParameterMissing"));
        assert_eq!(ask(path, "Email=a@b&Protocol=EWS"), Err("InvalidProtocol"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(body in ".{0,200}", query in ".{0,60}") {
            let _ = (AutodiscoverRequest::decode(body.as_bytes()), json_question(&body, &query));
        }
    }
}
